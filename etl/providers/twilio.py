"""Twilio Flex, legacy messaging: Flex Flows and the chat channels that they make."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from etl.config.settings import Source
from etl.config.values import Rate, Secret, WebUrl
from etl.extract import twilio
from etl.extract.http import Seam, Sign
from etl.extract.url import basic
from etl.extract.verdict import Judge
from etl.providers.declare import Provider, Stream
from etl.transform.tree import tree
from etl.warehouse.model.part import Lookup, Part
from etl.warehouse.tables import BOOL, INT, KEY, TEXT, TIME, current, family, field


class TwilioSource(Source):
    """A Twilio account, reached with its auth token, or with an API key and its secret.

    Default pace: 5 requests per second, the lower one of the two lists' limits (Twilio's docs,
    "Flex limits", legacy messaging).
    """

    account: ClassVar[str] = "account_sid"
    logins: ClassVar[tuple[tuple[str, str], ...]] = (
        ("account_sid", "auth_token"),
        ("api_key_sid", "api_key_secret"),
    )

    provider: Literal["twilio"] = "twilio"
    account_sid: Annotated[str, Field(pattern="^AC[0-9a-fA-F]{32}$")] = Field(
        description="AC and 32 hexadecimal digits", examples=["AC" + 32 * "0"]
    )
    auth_token: Secret | None = Field(default=None, description="the account's auth token")
    api_key_sid: Annotated[str, Field(pattern="^SK[0-9a-fA-F]{32}$")] | None = Field(
        default=None, description="SK and 32 hexadecimal digits", examples=["SK" + 32 * "0"]
    )
    api_key_secret: Secret | None = Field(default=None, description="the secret of the API key")
    base_url: WebUrl = "https://flex-api.twilio.com"
    requests_per_second: Rate = 5.0

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> dict[str, str]:
        """Require exactly one way to log in, with all its keys."""
        half = {"api_key_sid", "api_key_secret"} - given.keys()
        if "auth_token" in given:
            both = "given together with api_key_sid or api_key_secret; expected one way to log in"
            return {"auth_token": both} if len(half) < 2 else {}
        if len(half) == 2:
            return {"auth_token": "missing; expected auth_token, or api_key_sid and api_key_secret"}
        return dict.fromkeys(half, "missing; an API key needs both api_key_sid and api_key_secret")


def _auth(source: TwilioSource, seam: Seam) -> tuple[Sign, Judge]:
    """Sign with the API key where there is one, else with the account's auth token."""
    user, secret = source.account_sid, source.auth_token
    if source.api_key_sid and source.api_key_secret:
        user, secret = source.api_key_sid, source.api_key_secret
    headers = {"authorization": basic(user, secret.get_secret_value() if secret else "")}
    return lambda method, url, body: headers, twilio.judge


flex_flows = current(
    "twilio.flex_flows",
    "Flex Flows of Twilio Flex: what happens with a new contact of a messaging channel.",
    field("sid", KEY, "Id of the Flex Flow (FO…)."),
    field("account_sid", TEXT, "Account that owns it (AC…)."),
    field("friendly_name", TEXT, "Name."),
    field("channel_type", TEXT, "web, sms, facebook, whatsapp, line, custom, …"),
    field("chat_service_sid", TEXT, "Chat service (IS…)."),
    field("contact_identity", TEXT, "Identity of the channel's contact. May be personal data."),
    field("enabled", BOOL, "Whether the Flex Flow is enabled."),
    field("integration_type", TEXT, "What handles inbound messages: studio, external, task, …"),
    field("integration_flow_sid", TEXT, "Studio flow (FW…); studio.", json="integration.flow_sid"),
    field("integration_url", TEXT, "Webhook; external.", json="integration.url"),
    field(
        "integration_workspace_sid",
        TEXT,
        "Workspace (WS…); task.",
        json="integration.workspace_sid",
    ),
    field(
        "integration_workflow_sid", TEXT, "Workflow (WW…); task.", json="integration.workflow_sid"
    ),
    field("integration_channel", TEXT, "Task channel; task.", json="integration.channel"),
    field("integration_timeout", INT, "Task timeout in seconds.", json="integration.timeout"),
    field("integration_priority", INT, "Task priority; task.", json="integration.priority"),
    field(
        "integration_creation_on_message",
        BOOL,
        "Whether the task waits for the first message; task.",
        json="integration.creation_on_message",
    ),
    field(
        "integration_retry_count",
        INT,
        "Retries of the Studio or webhook call (0 to 3).",
        json="integration.retry_count",
    ),
    field("janitor_enabled", BOOL, "Whether Proxy sessions end with their task."),
    field("long_lived", BOOL, "Whether the chat channel is used again for the same contact."),
    field("date_created", TIME, "When it was created."),
    field("date_updated", TIME, "When it was changed last."),
    field("url", TEXT, "Absolute URL of the resource."),
    keys=1,
    record="flex_flows[]",
    sought_by="sid",
)

channels = current(
    "twilio.channels",
    "Flex chat channels: run-time objects, one per contact, made by a Flex Flow.",
    field("sid", KEY, "Id of the channel (CH…)."),
    field("account_sid", TEXT, "Account that owns it (AC…)."),
    field("flex_flow_sid", TEXT, "Flex Flow that made it (FO…); may be deleted since."),
    field("user_sid", TEXT, "Chat user (US…)."),
    field("task_sid", TEXT, "TaskRouter task (WT…); integration type task only."),
    field("date_created", TIME, "When it was created."),
    field("date_updated", TIME, "When it was changed last."),
    field("url", TEXT, "Absolute URL of the resource."),
    keys=1,
    record="flex_chat_channels[]",
)

_STATUS = "CASE WHEN r.enabled THEN 'published' WHEN NOT r.enabled THEN 'disabled' END"
_NEVER_ENDS = "(r.long_lived AND r.janitor_enabled IS NOT TRUE)"
_HAS_NUMBER = "r.channel_type IN ('sms', 'whatsapp')"

FLEX_FLOW_PARTS = (
    Part(
        view="flows",
        table=flex_flows,
        columns={
            "account_id": "r.account_sid",
            "flow_id": "r.sid",
            "name": "r.friendly_name",
            "flow_type": "r.integration_type",
            "channel": "'messaging'",
            "channel_source": "CASE r.channel_type WHEN 'web' THEN 'web_chat' WHEN 'facebook'"
            " THEN 'facebook_messenger' ELSE nullif(r.channel_type, '') END",
            "status": _STATUS,
            "is_live": "coalesce(r.enabled, false)",
            "has_unpublished_changes": "false",
            "modified_at": "r.date_updated",
            "created_at": "r.date_created",
        },
        compared={
            "address": "r.contact_identity",
            **{
                column.name: f"r.{column.name}"
                for column in flex_flows.columns
                if column.name.startswith("integration_") and column.name != "integration_type"
            },
            **{name: f"r.{name}" for name in ("janitor_enabled", "long_lived", "chat_service_sid")},
        },
    ),
    Part(
        view="entry_points",
        table=flex_flows,
        where="r.contact_identity <> ''",
        columns={
            "account_id": "r.account_sid",
            "flow_id": "r.sid",
            "entry_point_id": "r.sid",
            "kind": f"CASE WHEN {_HAS_NUMBER} THEN 'phone' ELSE 'address' END",
            "address": "r.contact_identity",
            "address_key": f"CASE WHEN {_HAS_NUMBER}"
            " THEN nullif(regexp_replace(r.contact_identity, '[^0-9+]', '', 'g'), '')"
            " ELSE lower(r.contact_identity) END",
        },
        tracked=False,
    ),
    # A web page names the flow that it starts, and so does who writes to a custom channel.
    Part(
        view="flows_reached_otherwise",
        table=flex_flows,
        where="r.channel_type IN ('web', 'custom')",
        columns={"account_id": "r.account_sid", "flow_id": "r.sid"},
    ),
    Part(
        view="flex_flows_to_review",
        table=flex_flows,
        where=f"(NOT r.enabled OR {_NEVER_ENDS})",
        columns={
            "account_id": "r.account_sid",
            "flow_id": "r.sid",
            "name": "r.friendly_name",
            "status": _STATUS,
            "long_lived": "r.long_lived",
            "janitor_enabled": "r.janitor_enabled",
            "reason": "concat_ws(', ', CASE WHEN NOT r.enabled THEN 'disabled' END,"
            f" CASE WHEN {_NEVER_ENDS} THEN 'long-lived without janitor' END)",
        },
    ),
)

CHANNEL_PARTS = (
    Part(
        view="channels",
        table=channels,
        columns={
            "account_id": "r.account_sid",
            "channel_id": "r.sid",
            "flow_id": "r.flex_flow_sid",
            "user_id": "r.user_sid",
            "task_id": "r.task_sid",
            "created_at": "r.date_created",
            "updated_at": "r.date_updated",
        },
        looked_up={"flow_exists": "flow.found IS NOT NULL"},
        lookup=Lookup(
            "flow",
            flex_flows,
            on={"source": "r.source", "sid": "r.flex_flow_sid"},
            facts={"found": "count(*)"},
        ),
    ),
)

PROVIDER = Provider(
    name="twilio",
    title="Twilio Flex",
    comment="Twilio Flex as it is now, in Twilio's own field names.",
    settings=TwilioSource,
    setup="Console → Account → API keys & tokens. Use either the auth token or an API key.",
    credentials="account SID with its auth token, or with an API key and its secret",
    rights="access to Flex",
    example="""
[sources.twilio_main]
provider = "twilio"
account_sid = "…"               # AC and 32 hexadecimal digits
auth_token = "…"
base_url = "https://flex-api.twilio.com"
requests_per_second = 5

# or, instead of auth_token:
api_key_sid = "…"               # SK and 32 hexadecimal digits
api_key_secret = "…"

[sources.twilio_main.channels]  # each stream of a source can have such a table
on_absent = "keep"              # no longer listed: "keep" it, or delete it once "confirm"ed
""",
    streams=(
        Stream(
            name="flex_flows",
            tables=family(flex_flows),
            auth=_auth,
            pages=twilio.flex_flows,
            transform=tree(flex_flows, noun="flex flow"),
            look_up=twilio.look_up_flex_flow,
            probe=twilio.probe_flex_flows,
            modified="date_updated",
            counted=False,
            resumable=True,
            parts=FLEX_FLOW_PARTS,
            request_id="twilio-request-id",
        ),
        Stream(
            name="channels",
            tables=family(channels),
            auth=_auth,
            pages=twilio.channels,
            transform=tree(channels, noun="channel"),
            look_up=twilio.look_up_channel,
            probe=twilio.probe_channels,
            modified="date_updated",
            counted=False,
            changes="newest first",
            on_absent="keep",
            resumable=True,
            parts=CHANNEL_PARTS,
            request_id="twilio-request-id",
        ),
    ),
)

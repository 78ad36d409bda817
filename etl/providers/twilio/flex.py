"""Legacy messaging of Twilio Flex: Flex Flows and the chat channels that they make."""

from etl.extract import twilio
from etl.providers.declare import Stream
from etl.providers.twilio.source import auth
from etl.transform.tree import tree
from etl.warehouse.model.part import Lookup, Part
from etl.warehouse.tables import BOOL, INT, KEY, TEXT, TIME, current, family, field

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


def identity_key(identity: str) -> str:
    """Return the SQL of a contact's identity in a form that compares.

    A prefix such as "whatsapp:" and the case do not count, nor do signs between the digits of a
    number.
    """
    bare = f"regexp_replace(lower(btrim({identity})), '^[a-z_]+:[+ ]*', '')"
    return f"""CASE WHEN {bare} ~ '^[0-9+ ()./-]*[0-9][0-9+ ()./-]*$'
        THEN regexp_replace({bare}, '[^0-9]', '', 'g') ELSE nullif({bare}, '') END"""


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
    # Address configurations came after Flex Flows; their API has other words for the channels.
    Part(
        view="legacy_flows",
        table=flex_flows,
        columns={
            "account_id": "r.account_sid",
            "flow_id": "r.sid",
            "name": "r.friendly_name",
            "status": _STATUS,
            "channel": "r.channel_type",
            "contact_identity": "r.contact_identity",
            "address_type": "CASE r.channel_type WHEN 'web' THEN 'chat' WHEN 'facebook'"
            " THEN 'messenger' ELSE r.channel_type END",
            "identity_key": identity_key("r.contact_identity"),
        },
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
        looked_up={"flow_exists": "{flow}"},
        lookup=Lookup("flow", flex_flows, on={"source": "r.source", "sid": "r.flex_flow_sid"}),
    ),
)

STREAMS = (
    Stream(
        name="flex_flows",
        tables=family(flex_flows),
        auth=auth,
        pages=twilio.flex_flows,
        transform=tree(flex_flows, noun="flex flow"),
        look_up=twilio.look_up_flex_flow,
        probe=twilio.probe_flex_flows,
        modified="date_updated",
        counted=False,
        resumable=True,
        parts=FLEX_FLOW_PARTS,
        request_id="twilio-request-id",
        ended="read twilio.addresses and twilio.studio_flows instead",
    ),
    Stream(
        name="channels",
        tables=family(channels),
        auth=auth,
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
        # Conversations and Interactions replace them; those are run-time objects, no configuration.
        ended="read twilio.addresses and twilio.studio_flows instead",
    ),
)

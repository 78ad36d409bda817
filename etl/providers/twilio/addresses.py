"""Address configurations of Twilio Conversations: what happens with a message to an address."""

from etl.extract import twilio_addresses
from etl.providers.declare import Stream
from etl.providers.twilio import studio
from etl.providers.twilio.flex import identity_key
from etl.providers.twilio.source import auth
from etl.providers.twilio.studio_tables import studio_flows
from etl.transform.tree import tree
from etl.warehouse.model.part import Lookup, Part, host_and_path
from etl.warehouse.tables import BOOL, INT, JSON, KEY, TEXT, TIME, current, family, field

addresses = current(
    "twilio.addresses",
    "Address configurations of Twilio Conversations: what a new message to an address starts.",
    field("sid", KEY, "Id of the address configuration (IG…)."),
    field("account_sid", TEXT, "Account that owns it (AC…)."),
    field("type", TEXT, "sms, whatsapp, messenger, gbm, email, rcs, apple, chat, …"),
    field("address", TEXT, "The number or address, as Twilio spells it. Personal data."),
    field("friendly_name", TEXT, "Name."),
    field("address_country", TEXT, "Country of a short code, two letters."),
    field(
        "auto_creation_enabled",
        BOOL,
        "Whether a message that belongs to no conversation opens one.",
        json="auto_creation.enabled",
    ),
    field(
        "auto_creation_type",
        TEXT,
        "What the new conversation is given to: studio, webhook, default (nothing), …",
        json="auto_creation.type",
    ),
    field(
        "conversation_service_sid",
        TEXT,
        "Conversation service (IS…).",
        json="auto_creation.conversation_service_sid",
    ),
    field(
        "studio_flow_sid", TEXT, "Studio flow (FW…); studio.", json="auto_creation.studio_flow_sid"
    ),
    field(
        "studio_retry_count",
        INT,
        "Retries of the Studio call (0 to 3); studio.",
        json="auto_creation.studio_retry_count",
    ),
    field(
        "webhook_url",
        TEXT,
        "Webhook; webhook. May hold secrets.",
        json="auto_creation.webhook_url",
    ),
    field("webhook_method", TEXT, "GET or POST; webhook.", json="auto_creation.webhook_method"),
    field(
        "webhook_filters",
        JSON,
        "Names of the events that call the webhook, a list; webhook.",
        json="auto_creation.webhook_filters",
    ),
    field("date_created", TIME, "When it was created."),
    field("date_updated", TIME, "When it was changed last."),
    field("url", TEXT, "Absolute URL of the resource."),
    keys=1,
    record="address_configurations[]",
    sought_by="sid",
)

_LEADS_TO_FLOW = "r.auto_creation_enabled AND r.auto_creation_type = 'studio'"

_TARGET_KIND = (
    "CASE WHEN r.auto_creation_enabled THEN CASE r.auto_creation_type"
    " WHEN 'studio' THEN CASE WHEN r.studio_flow_sid <> '' THEN 'flow' END"
    " WHEN 'webhook' THEN CASE WHEN r.webhook_url <> '' THEN 'url' END"
    " WHEN 'default' THEN 'conversation'"
    " ELSE nullif(r.auto_creation_type, '') END END"
)
_TARGET = (
    "CASE WHEN r.auto_creation_enabled THEN CASE r.auto_creation_type"
    " WHEN 'studio' THEN nullif(r.studio_flow_sid, '')"
    f" WHEN 'webhook' THEN {host_and_path('r.webhook_url')} END END"
)

PARTS = (
    Part(
        view="entry_points",
        table=addresses,
        columns={
            "account_id": "r.account_sid",
            "flow_id": f"CASE WHEN {_LEADS_TO_FLOW} THEN nullif(r.studio_flow_sid, '') END",
            "entry_point_id": "r.sid",
            "kind": "CASE WHEN r.type IN ('sms', 'whatsapp', 'rcs') THEN 'phone'"
            " WHEN r.type = 'email' THEN 'email' ELSE 'address' END",
            "address": "nullif(r.address, '')",
            "address_key": "nullif(CASE WHEN r.type IN ('sms', 'whatsapp', 'rcs')"
            " THEN regexp_replace(r.address, '[^0-9+]', '', 'g') ELSE lower(r.address) END, '')",
            "name": "nullif(r.friendly_name, '')",
            "target_kind": _TARGET_KIND,
            "target": _TARGET,
        },
        flows=studio.FLOWS,
        changed_at="r.date_updated",
    ),
    Part(
        view="bindings",
        table=addresses,
        where=f"{_LEADS_TO_FLOW} AND r.studio_flow_sid <> ''",
        columns={
            "account_id": "r.account_sid",
            "flow_id": "r.studio_flow_sid",
            "entry_point_id": "r.sid",
            "event": "'incomingConversationMessage'",
        },
        looked_up={"has_flows": "{flows}"},
        lookup=Lookup("flows", studio_flows, on={"source": "r.source"}),
    ),
    Part(
        view="successors",
        table=addresses,
        columns={
            "account_id": "r.account_sid",
            "address_id": "r.sid",
            "address_name": "r.friendly_name",
            "address_type": "r.type",
            "is_enabled": "coalesce(r.auto_creation_enabled, false)",
            "target_kind": _TARGET_KIND,
            "target": _TARGET,
            "identity_key": identity_key("r.address"),
        },
    ),
)

STREAMS = (
    Stream(
        name="addresses",
        tables=family(addresses),
        auth=auth,
        pages=twilio_addresses.addresses,
        transform=tree(addresses, noun="address"),
        look_up=twilio_addresses.look_up_address,
        probe=twilio_addresses.probe_addresses,
        modified="date_updated",
        counted=False,
        resumable=True,
        origin="conversations_url",
        parts=PARTS,
        request_id="twilio-request-id",
        optional=True,
    ),
)

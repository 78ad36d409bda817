"""Phone numbers of a Twilio account: where their calls and their messages go."""

from etl.extract import twilio_numbers
from etl.providers.declare import Stream
from etl.providers.twilio.source import auth
from etl.transform.tree import tree
from etl.transform.twilio_numbers import studio_flow
from etl.warehouse.model.part import Part, place
from etl.warehouse.tables import BOOL, KEY, TEXT, TIME, current, derived, family, field

phone_numbers = current(
    "twilio.phone_numbers",
    "Phone numbers of a Twilio account, and where their calls and messages go.",
    field("sid", KEY, "Id of the phone number (PN…)."),
    field("account_sid", TEXT, "Account that owns it (AC…)."),
    field("phone_number", TEXT, "The number, E.164. Personal data."),
    field("friendly_name", TEXT, "Name."),
    field("origin", TEXT, "twilio: bought there; hosted: owned elsewhere."),
    field("status", TEXT, "in-use, …"),
    field("type", TEXT, "local, mobile, toll-free, …"),
    field("capability_voice", BOOL, "Whether it takes calls.", json="capabilities.voice"),
    field("capability_sms", BOOL, "Whether it takes text messages.", json="capabilities.sms"),
    field("capability_mms", BOOL, "Whether it takes media messages.", json="capabilities.mms"),
    field("voice_url", TEXT, "Webhook of calls. May hold secrets."),
    field("voice_application_sid", TEXT, "TwiML application of calls (AP…), before voice_url."),
    field("trunk_sid", TEXT, "SIP trunk of calls (TK…), before an application and voice_url."),
    derived(
        "voice_studio_flow_sid",
        TEXT,
        "Studio flow (FW…) of the same account that voice_url starts, by its host and path.",
        studio_flow("voice_url"),
    ),
    field("sms_url", TEXT, "Webhook of messages. May hold secrets."),
    field("sms_application_sid", TEXT, "TwiML application of messages (AP…), before sms_url."),
    derived(
        "sms_studio_flow_sid",
        TEXT,
        "Studio flow (FW…) of the same account that sms_url starts, by its host and path.",
        studio_flow("sms_url"),
    ),
    field("date_created", TIME, "When it was created.", spelled="rfc 2822"),
    field("date_updated", TIME, "When it was changed last.", spelled="rfc 2822"),
    keys=1,
    record="incoming_phone_numbers[]",
    sought_by="sid",
    unset="",
)

# Calls go to the trunk, else to the application, else to the URL; a trunk takes no messages.
_WAYS = """(VALUES
        ('voice', r.capability_voice, r.trunk_sid, r.voice_application_sid, r.voice_url,
            r.voice_studio_flow_sid),
        ('sms', r.capability_sms, NULL, r.sms_application_sid, r.sms_url, r.sms_studio_flow_sid)
    ) AS way (name, is_possible, trunk, application, url, flow)"""

PARTS = (
    Part(
        view="entry_points",
        table=phone_numbers,
        each=_WAYS,
        where="way.is_possible IS NOT FALSE",
        columns={
            "account_id": "r.account_sid",
            "flow_id": "CASE WHEN way.trunk IS NULL AND way.application IS NULL THEN way.flow END",
            "entry_point_id": "r.sid || '/' || way.name",
            "kind": "'phone'",
            "address": "r.phone_number",
            "address_key": "nullif(regexp_replace(r.phone_number, '[^0-9+]', '', 'g'), '')",
            "name": "r.friendly_name",
            "target_kind": "CASE WHEN way.trunk IS NOT NULL THEN 'trunk'"
            " WHEN way.application IS NOT NULL THEN 'application'"
            " WHEN way.flow IS NOT NULL THEN 'flow' WHEN way.url IS NOT NULL THEN 'url' END",
            "target": f"coalesce(way.trunk, way.application, way.flow, {place('way.url')})",
        },
        tracked=False,
    ),
)

STREAMS = (
    Stream(
        name="phone_numbers",
        tables=family(phone_numbers),
        auth=auth,
        pages=twilio_numbers.phone_numbers,
        transform=tree(phone_numbers, noun="phone number"),
        look_up=twilio_numbers.look_up_phone_number,
        probe=twilio_numbers.probe_phone_numbers,
        modified="date_updated",
        counted=False,
        resumable=True,
        origin="api_url",
        path="/2010-04-01/Accounts/{source.account_sid}",
        parts=PARTS,
        request_id="twilio-request-id",
        optional=True,
    ),
)

"""Phone numbers of a Twilio account: where their calls and their messages go."""

from etl.extract import twilio_numbers
from etl.providers.declare import Stream
from etl.providers.twilio import studio
from etl.providers.twilio.source import auth
from etl.providers.twilio.studio_tables import studio_flows
from etl.transform.tree import tree
from etl.transform.twilio_numbers import studio_flow
from etl.warehouse.model.part import Lookup, Part, host_and_path
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
_FIRST = {"voice": ("trunk", "application"), "sms": ("application",)}
_COLUMN = {"trunk": "r.trunk_sid", "application": "r.{way}_application_sid"}


def _target(way: str) -> tuple[str, str, str]:
    """Return the SQL of where calls or messages go: flow, kind of target, target."""
    first = {kind: _COLUMN[kind].format(way=way) for kind in _FIRST[way]}
    flow, url = f"r.{way}_studio_flow_sid", f"r.{way}_url"
    free = " AND ".join(f"{column} IS NULL" for column in first.values())
    kinds = {**first, "flow": flow, "url": url}
    cases = " ".join(f"WHEN {column} IS NOT NULL THEN '{kind}'" for kind, column in kinds.items())
    listed = ", ".join((*first.values(), flow, host_and_path(url)))
    return f"CASE WHEN {free} THEN {flow} END", f"CASE {cases} END", f"coalesce({listed})"


def _is_possible(way: str) -> str:
    return f"r.capability_{way} IS NOT FALSE"


def _entry_points(way: str, event: str) -> tuple[Part, Part]:
    """Return the parts of the entry points for calls, or for messages."""
    flow, kind, target = _target(way)
    its_id = {"account_id": "r.account_sid", "entry_point_id": f"r.sid || '/{way}'"}
    return (
        Part(
            view="entry_points",
            table=phone_numbers,
            where=_is_possible(way),
            columns={
                **its_id,
                "flow_id": flow,
                "kind": "'phone'",
                "address": "r.phone_number",
                "address_key": _KEY,
                "name": "r.friendly_name",
                "target_kind": kind,
                "target": target,
            },
            flows=studio.FLOWS,
            changed_at="r.date_updated",
        ),
        Part(
            view="bindings",
            table=phone_numbers,
            where=f"{_is_possible(way)} AND ({flow}) IS NOT NULL",
            columns={**its_id, "flow_id": flow, "event": f"'{event}'"},
            looked_up={"has_flows": "{flows}"},
            lookup=Lookup("flows", studio_flows, on={"source": "r.source"}),
        ),
    )


_KEY = "nullif(regexp_replace(r.phone_number, '[^0-9+]', '', 'g'), '')"

PARTS = (
    *_entry_points("voice", "incomingCall"),
    *_entry_points("sms", "incomingMessage"),
    Part(
        view="unbound_numbers",
        table=phone_numbers,
        where=" AND ".join(
            f"({_is_possible(way)} AND ({_target(way)[1]}) IS NOT NULL) IS NOT TRUE"
            for way in _FIRST
        ),
        columns={
            "account_id": "r.account_sid",
            "number_id": "r.sid",
            "address": "r.phone_number",
            "address_key": _KEY,
            "name": "r.friendly_name",
            "created_at": "r.date_created",
            "since": "r.valid_from",
        },
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

"""How Twilio's records are made and changed in random histories, and their rows."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from sqlalchemy import Table

from etl.providers import TABLES
from etl.sandbox import twilio
from etl.sandbox.exchange import Response
from etl.sandbox.store import Paging, Store
from tests.sync.kinds import Key, Kind, Mode, Record, Rendering, iso, moment, rfc_2822, row, word

MODES = tuple(
    Mode(f"twilio.{stream}/{paging}", "twilio_demo", stream, paging, keeps=keeps)
    for stream, keeps in (
        ("flex_flows", False),
        ("channels", True),
        ("addresses", False),
        ("phone_numbers", False),
    )
    for paging in ("offset/updated", "offset/created", "keyset")
)


def flex_flow(random: Random, name: str, stamp: str) -> Record:
    return {
        "sid": name,
        "friendly_name": word(random),
        "enabled": True,
        "date_created": stamp,
        "date_updated": stamp,
    }


def flex_change(random: Random, record: Record) -> Record:
    return random.choice(({"friendly_name": word(random)}, {"enabled": not record["enabled"]}))


def channel(random: Random, name: str, stamp: str) -> Record:
    return {"sid": name, "user_sid": word(random), "date_created": stamp, "date_updated": stamp}


def channel_change(random: Random, record: Record) -> Record:
    return {random.choice(("user_sid", "task_sid")): word(random)}


def address(random: Random, name: str, stamp: str) -> Record:
    return {
        "sid": name,
        "type": "sms",
        "address": f"+1500555{random.randrange(10**4):04}",
        "auto_creation": {"enabled": True, "type": "studio", "studio_flow_sid": word(random)},
        "date_created": stamp,
        "date_updated": stamp,
    }


def address_change(random: Random, record: Record) -> Record:
    """Move the address to another flow, or give it another name or number."""
    changes: tuple[Record, ...] = (
        {"friendly_name": word(random)},
        {"address": f"+1500555{random.randrange(10**4):04}"},
        {"auto_creation": {**record["auto_creation"], "studio_flow_sid": word(random)}},
        {"auto_creation": {"enabled": False, "type": "default"}},
    )
    return random.choice(changes)


def address_rows(key: Key, record: Record) -> Rendering:
    automatic = record["auto_creation"]
    return rows_of(TABLES["twilio.addresses"])(
        key,
        {
            **record,
            "auto_creation_enabled": automatic["enabled"],
            "auto_creation_type": automatic["type"],
            "studio_flow_sid": automatic.get("studio_flow_sid"),
        },
    )


ACCOUNT = "AC" + "5" * 32
HOOK = f"https://webhooks.twilio.com/v1/Accounts/{ACCOUNT}/Flows/"


def hook(random: Random) -> str:
    flow = f"{HOOK}FW{random.choice('ab') * 32}"
    return random.choice((flow, "", "https://example.com/twiml?key=x"))


def number(random: Random, name: str, stamp: str) -> Record:
    return {
        "sid": name,
        "account_sid": ACCOUNT,
        "phone_number": f"+1500555{random.randrange(10**4):04}",
        "capabilities": {"voice": True, "sms": True},
        "voice_url": hook(random),
        "sms_url": hook(random),
        "trunk_sid": None,
        "date_created": stamp,
        "date_updated": stamp,
    }


def number_change(random: Random, record: Record) -> Record:
    changes: tuple[Record, ...] = (
        {"voice_url": hook(random)},
        {"sms_url": hook(random)},
        {"friendly_name": word(random)},
        {"trunk_sid": random.choice(("", "TK1"))},
    )
    return random.choice(changes)


def number_rows(key: Key, record: Record) -> Rendering:
    given = {name: value or None for name, value in record.items()}
    for way in ("voice", "sms"):
        url, flow = record[f"{way}_url"], None
        if url.startswith(HOOK):
            flow = url.removeprefix(HOOK)
        given |= {f"{way}_studio_flow_sid": flow, f"capability_{way}": True}
    return rows_of(TABLES["twilio.phone_numbers"])(key, given)


def rows_of(table: Table) -> Callable[[Key, Record], Rendering]:
    def render(key: Key, record: Record) -> Rendering:
        times = {name: moment(record[name]) for name in ("date_created", "date_updated")}
        return (frozenset([row(table, **{**record, **times})]),)

    return render


KINDS: Mapping[str, Kind] = {
    "flex_flows": Kind(
        "sid", "date_updated", iso, flex_flow, flex_change, rows_of(TABLES["twilio.flex_flows"])
    ),
    "channels": Kind(
        "sid", "date_updated", iso, channel, channel_change, rows_of(TABLES["twilio.channels"])
    ),
    "addresses": Kind("sid", "date_updated", iso, address, address_change, address_rows),
    "phone_numbers": Kind("sid", "date_updated", rfc_2822, number, number_change, number_rows),
}


def stores(emulator: Any) -> Mapping[str, Mapping[str, Store]]:
    """Return stream → scope → the emulator's records."""
    names = ("flex_flows", "channels", "addresses", "phone_numbers")
    return {name: {"": getattr(emulator, name)} for name in names}


def set_up(emulator: Any, paging: Paging, page: int, *, may_look_up: bool) -> None:
    """Set the kind of paging of the lists."""
    emulator.paging, emulator.largest_page = paging, page


def token_refused() -> Response:
    """Return the answer to a page token that has expired."""
    return twilio.page_token_refused()

"""How Twilio's records are made and changed in random histories, and their rows."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from sqlalchemy import Table

from etl.providers.catalog import STREAMS, TABLES
from etl.sandbox import twilio, twilio_studio
from etl.sandbox.exchange import Response
from etl.sandbox.store import Paging, Store
from etl.warehouse.tables import data_columns as columns
from tests.providers.twilio.expected import (
    FLOWS,
    REVISIONS,
    resource,
    studio_rows,
    without_definition,
)
from tests.sync.kinds import (
    Key,
    Kind,
    Mode,
    Record,
    Rendering,
    few,
    iso,
    moment,
    rfc_2822,
    row,
    word,
)

MODES = tuple(
    Mode(f"twilio.{stream}/{paging}", "twilio_demo", stream, paging, keeps=keeps)
    for stream, keeps in (
        ("flex_flows", False),
        ("channels", True),
        ("addresses", False),
        ("phone_numbers", False),
        ("studio_flows", False),
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


def definition(random: Random) -> Record:
    """Return a definition of a few states, some of which lead nowhere, or are reached by none."""
    names = ["Trigger", *few(random, "s")]

    def transition() -> Record:
        sent: Record = {"event": random.choice(("match", "noMatch", "next"))}
        if random.random() < 0.8:
            sent["next"] = random.choice((*names, "gone", "", None))
        if random.random() < 0.2:
            sent["conditions"] = [{"type": "equal_to", "value": word(random)}]
        return sent

    def state(name: str) -> Record:
        return {
            "name": name,
            "type": random.choice(("say-play", "run-subflow", "unknown")),
            "transitions": [transition() for _ in range(random.randint(0, 2))],
            "properties": {"say": word(random), "offset": {"x": random.randint(0, 9)}},
        }

    initial = random.choice(("Trigger", "Trigger", "gone"))
    return {"initial_state": initial, "states": [state(name) for name in names]}


def studio_flow(random: Random, name: str, stamp: str) -> Record:
    """Return a flow of one to three revisions; without a second one it was never updated."""
    flow = twilio_studio.flow(name, ACCOUNT, word(random), stamp)
    for _ in range(random.randint(1, 3)):
        status = random.choice(("draft", "published"))
        flow = twilio_studio.saved(flow, definition(random), stamp, status=status)
    return flow


def studio_change(random: Random, record: Record) -> Record:
    """Save a draft or a published revision, publish the newest, as it is or renumbered, or rename.

    A revision's times are those of the flow's creation.
    """
    at = record["date_created"]
    what = random.choice(("rename", "draft", "release", "publish", "publish"))
    if what == "rename":
        changed = record | {"friendly_name": word(random)}
    elif what == "publish":
        changed = twilio_studio.published(record, at, renumbers=random.random() < 0.5)
    else:
        status = {"draft": "draft", "release": "published"}[what]
        changed = twilio_studio.saved(record, definition(random), at, status=status)
    return {name: changed[name] for name in ("friendly_name", "revisions")}


STUDIO_TABLES = STREAMS["twilio.studio_flows"].tables


def studio_flow_rows(key: Key, record: Record) -> Rendering:
    rows: dict[str, set[tuple[Any, ...]]] = {table.fullname: set() for table in STUDIO_TABLES}
    for table, cells in studio_rows(resource(record)):
        rows[table].add(row(TABLES[table], **cells))
    return tuple(map(frozenset, rows.values()))


def studio_as_known(version: Rendering, stored: Rendering) -> Rendering:
    """Leave out what is inside revisions that are neither the newest nor live, and not stored."""
    ((*flow,),) = version[0]
    counting = {flow[columns(FLOWS).index(name)] for name in ("revision", "live_revision")}
    revisions = stored[STUDIO_TABLES.index(REVISIONS)]
    unknown = {number for _, number in without_definition(revisions, columns(REVISIONS))} - counting
    known = []
    for table, rows in zip(STUDIO_TABLES, version, strict=True):
        kept = rows
        if table is not FLOWS and "revision" in columns(table):
            number = columns(table).index("revision")
            kept = frozenset(each for each in rows if each[number] not in unknown)
        if table is REVISIONS:
            text = columns(table).index("definition")
            kept |= {(*each[:text], None, *each[text + 1 :]) for each in rows - kept}
        known.append(kept)
    return tuple(known)


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
    "studio_flows": Kind(
        "sid",
        "date_updated",
        iso,
        studio_flow,
        studio_change,
        studio_flow_rows,
        studio_as_known,
        details="/Revisions",
        failures=(
            twilio.not_found("/v2/Flows"),
            twilio.error(403, 20403, "Forbidden"),
            twilio.error(400, 20001, "Invalid request"),
        ),
        sizes=(12, 36),  # each flow takes several requests
    ),
    "phone_numbers": Kind("sid", "date_updated", rfc_2822, number, number_change, number_rows),
}


def stores(emulator: Any) -> Mapping[str, Mapping[str, Store]]:
    """Return stream → scope → the emulator's records."""
    names = ("flex_flows", "channels", "addresses", "phone_numbers", "studio_flows")
    return {name: {"": getattr(emulator, name)} for name in names}


def set_up(emulator: Any, paging: Paging, page: int, *, may_look_up: bool) -> None:
    """Set the kind of paging of the lists."""
    emulator.paging, emulator.largest_page = paging, page


def token_refused() -> Response:
    """Return the answer to a page token that has expired."""
    return twilio.page_token_refused()

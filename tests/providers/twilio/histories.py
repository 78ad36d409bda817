"""How Twilio's flex flows and channels are made and changed in random histories."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from sqlalchemy import Table

from etl.providers import TABLES
from etl.sandbox import twilio
from etl.sandbox.exchange import Response
from etl.sandbox.store import Paging, Store
from tests.sync.kinds import Key, Kind, Mode, Record, Rendering, iso, moment, row, word

MODES = tuple(
    Mode(f"twilio.{stream}/{paging}", "twilio_demo", stream, paging, keeps=keeps)
    for stream, keeps in (("flex_flows", False), ("channels", True))
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
}


def stores(emulator: Any) -> Mapping[str, Mapping[str, Store]]:
    """Return stream → scope → the emulator's records."""
    return {"flex_flows": {"": emulator.flex_flows}, "channels": {"": emulator.channels}}


def set_up(emulator: Any, paging: Paging, page: int, *, may_look_up: bool) -> None:
    """Set the kind of paging of the lists."""
    emulator.paging, emulator.largest_page = paging, page


def token_refused() -> Response:
    """Return the answer to a page token that has expired."""
    return twilio.page_token_refused()

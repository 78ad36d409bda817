"""How Zoom's flows are made and changed in random histories, and what rows they become."""

from collections.abc import Mapping
from random import Random
from typing import Any

from etl.providers.catalog import TABLES
from etl.sandbox import zoom
from etl.sandbox.exchange import Response
from etl.sandbox.store import Paging, Store
from tests.sync.kinds import Key, Kind, Mode, Record, Rendering, few, iso, moment, row, word

MODES = tuple(
    Mode(f"zoom/{paging}", "zoom_demo", "flows", paging, promises=True)
    for paging in ("offset/updated", "offset/created", "keyset", "snapshot")
)


def children(random: Random) -> Record:
    return {
        "flow_versions": [
            {"flow_version_id": name, "flow_version": random.randint(1, 3)}
            for name in few(random, "v")
        ],
        "entry_points": [
            {"entry_id": name, "entry_name": word(random)} for name in few(random, "e")
        ],
    }


def flow(random: Random, name: str, stamp: str) -> Record:
    return {
        "flow_id": name,
        "flow_name": word(random),
        "status": "draft",
        "last_modified_time": stamp,
        **children(random),
    }


def change(random: Random, record: Record) -> Record:
    changes: tuple[Record, ...] = (
        {"flow_name": word(random)},
        {"status": random.choice(("draft", "published", "archived"))},
        children(random),
        {"flow_name": word(random), **children(random)},
    )
    return random.choice(changes)


def rows(key: Key, record: Record) -> Rendering:
    (flow_id,) = key
    time = moment(record["last_modified_time"])
    return (
        frozenset([row(TABLES["zoom.flows"], **{**record, "last_modified_time": time})]),
        frozenset(
            row(TABLES["zoom.flow_versions"], flow_id=flow_id, **each)
            for each in record["flow_versions"]
        ),
        frozenset(
            row(TABLES["zoom.entry_points"], flow_id=flow_id, **each)
            for each in record["entry_points"]
        ),
    )


KINDS: Mapping[str, Kind] = {
    "flows": Kind("flow_id", "last_modified_time", iso, flow, change, rows),
}


def stores(emulator: Any) -> Mapping[str, Mapping[str, Store]]:
    """Return stream → scope → the emulator's records."""
    return {"flows": {"": emulator.flows}}


def set_up(emulator: Any, paging: Paging, page: int, *, may_look_up: bool) -> None:
    """Set the kind of paging of the list, and whether the app may look up one flow."""
    emulator.paging, emulator.largest_page = paging, page
    scopes = {zoom.LIST_SCOPES[1]}
    emulator.scopes = scopes | {zoom.GET_SCOPES[1]} if may_look_up else scopes


def token_refused() -> Response:
    """Return the answer to a page token that has expired."""
    return zoom.page_token_refused()

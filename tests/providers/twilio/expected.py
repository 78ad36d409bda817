"""What rows a Studio flow has to become, worked out from the emulator's resources."""

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from etl.providers.catalog import TABLES
from etl.sandbox import twilio_studio as emulated
from tests.transform import naive

Cells = dict[str, Any]
Revision = tuple[str, int]
"""The sid of a flow and the number of a revision."""

FLOWS, REVISIONS = TABLES["twilio.studio_flows"], TABLES["twilio.studio_flow_revisions"]


def resource(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the API shows of a stored flow: the flow, and its `revisions`."""
    return emulated.fetched(stored) | {"revisions": emulated.fetched_revisions(stored)}


def live_revision(flow: Mapping[str, Any]) -> int | None:
    published = (each for each in flow["revisions"] if each["status"] == "published")
    return max((each["revision"] for each in published), default=None)


def studio_rows(
    flow: Mapping[str, Any], unfetched: Collection[Revision] = ()
) -> Iterator[tuple[str, Cells]]:
    """Yield table and cells; revisions in `unfetched` have no definition, unless it counts now."""
    sid, live = flow["sid"], live_revision(flow)
    shown = {name: value for name, value in flow.items() if name != "revisions"}
    own = {"definition": None, "live_revision": live}
    yield FLOWS.fullname, _cells(FLOWS, shown | own) | {"live_revision": live}
    for revision in flow["revisions"]:
        number = revision["revision"]
        counts = number in (live, flow["revision"])
        whole = counts or (sid, number) not in unfetched
        inside = revision["definition"]
        text = json.dumps(inside, separators=(",", ":"), ensure_ascii=False) if whole else None
        yield REVISIONS.fullname, _cells(REVISIONS, revision) | {"sid": sid, "definition": text}
        for table, cells in _inside(inside) if whole else ():
            yield f"twilio.studio_flow_{table}", {"sid": sid, "revision": number, **cells}
            if number == live:
                account = {"account_sid": flow["account_sid"]}
                yield f"twilio.studio_live_{table}", {"sid": sid, **account, **cells}


def _cells(table: Any, shown: Mapping[str, Any]) -> Cells:
    """Return a resource's cells: its members, times as such, and `extra` with all others."""
    keys = {"revision"} if table is REVISIONS else {"live_revision"}
    names = {column.name for column in table.columns} - ({"sid"} if table is REVISIONS else set())
    extra = {name: value for name, value in shown.items() if name not in names | keys}
    times = {name: _time(shown[name]) for name in ("date_created", "date_updated")}
    return {**shown, **times, "extra": json.dumps(extra, sort_keys=True)}


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _inside(definition: Mapping[str, Any]) -> Iterator[tuple[str, Cells]]:
    states, initial = definition["states"], definition["initial_state"]
    links = []
    for index, state in enumerate(states):
        name = {"name": state["name"]}
        settings = {key: value for key, value in state["properties"].items() if key != "offset"}
        yield (
            "states",
            {
                **name,
                "type": state["type"],
                "is_start": state["name"] == initial,
                "state_index": index,
                "properties": json.dumps(settings, sort_keys=True),
            },
        )
        for position, sent in enumerate(state["transitions"]):
            conditions = sent.get("conditions")
            text = None if conditions is None else json.dumps(conditions, sort_keys=True)
            own = {"event": sent["event"], "next": sent.get("next"), "conditions": text}
            yield "transitions", {**name, "position": position, **own}
            if sent.get("next"):
                links.append((state["name"], sent["event"], sent["next"]))
    steps = [(state["name"], state["name"] == initial, None, True) for state in states]
    for state, finding, event, detail in naive.found(steps, links):
        cells = {"name": state, "finding": finding, "event": event, "detail": detail}
        yield "findings", cells


def without_definition(rows: Collection[tuple[Any, ...]], names: list[str]) -> set[Revision]:
    """Return the revisions without a definition among rows of the table with these columns."""
    sid, number, text = map(names.index, ("sid", "revision", "definition"))
    return {(row[sid], row[number]) for row in rows if row[text] is None}

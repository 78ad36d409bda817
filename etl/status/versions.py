"""In what the insides of two versions of a flow differ, as rows of callflow.changes.

A provider that keeps its versions has a number for each, and the warehouse holds the inside of
those that callflow has read (`callflow.flow_version_steps`). What a difference is follows
`warehouse/model/changes.py`: a step that is new or gone, each of its settings that has another
value, and the ways out of a step per event, as a set.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from etl.errors import ConfigError
from etl.status import flows
from etl.status.drawing import short
from etl.status.flows import Content, Flow, Row
from etl.warehouse.model import contract

Version = int | Literal["live", "newest"]
"""A version's number, the newest published one, or the newest one."""

WORDS: tuple[Literal["live", "newest"], ...] = ("live", "newest")


@dataclass(frozen=True, slots=True)
class Compared:
    """Two versions of a flow, and in what they differ."""

    old: int
    new: int
    rows: Sequence[Row]


def difference(
    connection: Connection, flow: Flow, old: Version | None, new: Version | None
) -> Compared:
    """Return in what the version `new` of `flow` differs from `old`.

    `new` None is the newest version, `old` None the last one before `new` that the warehouse holds.
    Of a flow that is gone, its last content counts. Raises ConfigError if the warehouse does not
    hold one of them.
    """
    content = flows.content(connection, flow)
    assert content is not None  # it was found
    held = _held(connection, flow)
    if not held:
        raise ConfigError(
            f"the warehouse does not hold the inside of single versions of {_called(flow)}",
            where="diff",
            advice="give two moments, such as --from 7d",
        )
    last = _number(new or "newest", content, flow, held)
    earlier = [each for each in held if each < last]
    if old is None and not earlier:
        raise ConfigError(
            f"the warehouse holds no version of {_called(flow)} before {last}",
            where="diff",
            advice=f"give another --to; it holds {_listed(held)}",
        )
    first = earlier[-1] if old is None else _number(old, content, flow, held)
    made = next((row for row in content.versions if row["version_number"] == last), {})
    found = _differences(
        [_inside(connection, flow, contract.FLOW_VERSION_STEPS, each) for each in (first, last)],
        [_inside(connection, flow, contract.FLOW_VERSION_LINKS, each) for each in (first, last)],
    )
    common = {
        **{name: content.flow[name] for name in ("provider", "source", "account_id", "flow_id")},
        "flow_name": content.flow["name"],
        "observed_at": made.get("valid_from"),
        "modified_at": made.get("modified_at"),
        "modified_by": made.get("modified_by"),
        "flow_key": content.flow["flow_key"],
    }
    names = [column.name for column in contract.CHANGES]
    rows = [{**common, **row} for row in found]
    return Compared(first, last, [{name: row[name] for name in names} for row in rows])


def _called(flow: Flow) -> str:
    return short(flow.name, 80) or flow.key


def _listed(held: Sequence[int]) -> str:
    return ", ".join(map(str, held[-20:]))


def _held(connection: Connection, flow: Flow) -> list[int]:
    """Return the numbers of the versions whose inside the warehouse holds, in order."""
    which, given = flows.of_flow(flow)
    query = f"SELECT DISTINCT version_number FROM callflow.flow_version_steps WHERE {which}"
    return sorted(connection.execute(text(query), given).scalars())


def _number(wanted: Version, content: Content, flow: Flow, held: Sequence[int]) -> int:
    """Return the number of a version. Raises ConfigError if the warehouse does not hold it."""
    column = {"live": "published_version", "newest": "newest_version"}
    number = content.flow[column[wanted]] if isinstance(wanted, str) else wanted
    if number is None:
        raise ConfigError(
            f"no version of {_called(flow)} is live",
            where="diff",
            advice=f"give a number; the warehouse holds {_listed(held)}",
        )
    if number not in held:
        raise ConfigError(
            f"the warehouse does not hold the inside of version {number} of {_called(flow)}",
            where="diff",
            advice=f"it holds {_listed(held)}",
        )
    return int(number)


def _inside(
    connection: Connection, flow: Flow, view: contract.View, number: int
) -> Sequence[Mapping[str, Any]]:
    which, given = flows.of_flow(flow)
    query = f"SELECT * FROM callflow.{view.name} WHERE {which} AND version_number = :number"
    found = connection.execute(text(f"{query} ORDER BY step_id"), {**given, "number": number})
    return [dict(row._mapping) for row in found]


# --- what is different ---------------------------------------------------------------------------
_Rows = Sequence[Mapping[str, Any]]
_Values = Mapping[str, str | None]


def _differences(steps: Sequence[_Rows], links: Sequence[_Rows]) -> Iterator[Row]:
    """Yield what differs; `steps` and `links` are those of the old and of the new version."""
    old, new = ({row["step_id"]: row for row in each} for each in steps)
    for step_id in sorted(old.keys() | new.keys()):
        before, after = old.get(step_id), new.get(step_id)
        name = (after or before or {})["name"]
        about = {"entity": "step", "entity_id": step_id, "entity_name": name}
        yield from _changes(about, before and _values(before), after and _values(after))
    was, now = map(_ways, links)
    for key in sorted(was.keys() | now.keys()):
        about = {"entity": "step_link", "entity_id": "/".join(key), "entity_name": key[1]}
        yield from _changes(about, *_leads(was.get(key), now.get(key)))


def _changes(about: Row, old: _Values | None, new: _Values | None) -> Iterator[Row]:
    """Yield a row if a thing is new or gone, else one for each value that differs."""
    if old is None or new is None:
        change = "created" if old is None else "deleted"
        yield {**about, "change": change, "field": None, "old_value": None, "new_value": None}
        return
    for field in sorted(old.keys() | new.keys()):
        values = {"old_value": old.get(field), "new_value": new.get(field)}
        if values["old_value"] != values["new_value"]:
            yield {**about, "change": "updated", "field": field, **values}


def _values(row: Mapping[str, Any]) -> _Values:
    """Return the values of a step as text: its own, and its settings."""
    found = {name: _text(row[name]) for name in ("step_type", "name", "is_start")}
    settings = json.loads(row["properties"] or "null")
    if not isinstance(settings, dict):
        return {**found, "properties": _text(settings)}
    return found | {f"properties.{name}": _text(value) for name, value in settings.items()}


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _ways(rows: _Rows) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Return the ways out by step and event."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["step_id"], row["event"] or ""), []).append(row)
    return found


def _leads(old: _Rows | None, new: _Rows | None) -> tuple[_Values | None, _Values | None]:
    """Return where the ways out on an event lead, as a set; with conditions if these say more."""
    if old is None or new is None:
        return (None if old is None else {}), (None if new is None else {})
    following, conditions, both = (
        [{tell(row) for row in rows} - {None} for rows in (old, new)]
        for tell in (
            lambda row: row["next_step_id"],
            lambda row: row["conditions"],
            lambda row: f"{row['conditions'] or ''} → {row['next_step_id'] or ''}",
        )
    )
    values = [{"next_step": _joined(each)} for each in following]
    if conditions[0] != conditions[1] or following[0] == following[1]:
        for value, each in zip(values, both, strict=True):
            value["conditions"] = _joined(each)
    return values[0], values[1]


def _joined(texts: set[Any]) -> str | None:
    return ", ".join(sorted(texts)) or None

"""Alibaba's records → rows: a contact flow, its numbers, and what its Definition says."""

from collections.abc import Iterator
from datetime import tzinfo
from typing import Any

from etl.errors import TooMuchError, UnkeyedError
from etl.extract.decode import bounded
from etl.extract.page import Page
from etl.transform.rows import Reject, Rows
from etl.transform.values import (
    Row,
    items,
    key,
    no_list,
    no_rows,
    readable,
    reader,
)
from etl.warehouse import tables

_activity = reader(tables.alibaba_contact_flow_activities, apart=("events",))
_transition = reader(tables.alibaba_contact_flow_transitions)


def contact_flows(page: Page, start: int, *, zone: tzinfo) -> Rows:
    """A page of `Data.List[]` → rows of alibaba.contact_flows and of its three child tables.

    `start` is the ordinal of the page's first record in the scan, `zone` that of times without one.
    Every row begins with the ordinal of its record; a row of alibaba.contact_flows goes on with
    whether a number of it could not be read.
    """
    rows = no_rows(tables.alibaba_contact_flows, *tables.children(tables.alibaba_contact_flows))
    flow = reader(tables.alibaba_contact_flows, zone, apart=("NumberList",))

    def read(record: dict[str, Any], given: Row) -> tuple[Row, int]:
        return flow(_without_instance(record, page.scope), given)

    for index, record, row in readable("contact flow", page.records, read, (page.scope,), rows):
        ordinal, flow_key = start + index, row[:2]
        flow_id = f"contact flow {row[1]}"
        numbers = items(record, "NumberList")
        if numbers is None:
            rows.rejects.append(no_list(flow_id, record, "NumberList"))
        found = list(_numbers(numbers or [], flow_id, rows))
        partial = numbers is None or len(found) < len(numbers)
        try:
            content = _content(record.get("Definition"))
        except TooMuchError as error:
            partial, content = True, {}
            rows.rejects.append(Reject(f"Definition of {flow_id}: {error}", row[1]))
        rows.tables["alibaba.contact_flows"].append((ordinal, partial, *row))
        rows.tables["alibaba.contact_flow_numbers"] += [
            (ordinal, *flow_key, number, None) for number in dict.fromkeys(found)
        ]
        for activity, transitions in _activities(content, flow_key, rows):
            rows.tables["alibaba.contact_flow_activities"].append((ordinal, *activity))
            rows.tables["alibaba.contact_flow_transitions"] += [
                (ordinal, *transition) for transition in transitions
            ]
    return rows


def _without_instance(record: dict[str, Any], instance_id: str) -> dict[str, Any]:
    """`record` without an InstanceId that says no more than what was asked for."""
    if record.get("InstanceId") in (None, instance_id):
        return {name: value for name, value in record.items() if name != "InstanceId"}
    return record


def _numbers(numbers: list[Any], flow: str, rows: Rows) -> Iterator[str]:
    for number in numbers:
        try:
            yield key(number, "number") if number != "" else ""
        except UnkeyedError as error:
            rows.rejects.append(Reject(f"NumberList of {flow}: {error}", number))


def _content(definition: Any) -> Any:
    """What a Definition says; None: it is not JSON, {}: there is none. Raises TooMuchError.

    Alibaba's document of ListContactFlows calls the Definition "parsed by the backend, customers
    need not care": it may be anything, and its text is kept in any case. So what is odd in it is
    counted as a warning, never a reject. One that is too large to be read is: callflow's limit must
    not look like a flow without activities.
    """
    if not definition:
        return {}
    try:
        return bounded(definition) if isinstance(definition, str) else None
    except TooMuchError:
        raise
    except ValueError:
        return None


def _activities(content: Any, flow_key: Row, rows: Rows) -> Iterator[tuple[Row, list[Row]]]:
    """Activities of a Definition with their transitions; of a repeated id the last one only."""
    if not isinstance(content, dict):
        rows.warnings += 1
        return
    inside = Rows({})
    found: dict[str, tuple[Row, list[Row]]] = {}
    activities = items(content, "activities")
    for _, activity, row in readable("activity", activities or [], _activity, flow_key, inside):
        events = items(activity, "events")
        transitions = [
            transition
            for index, event in enumerate(events or [])
            for _, _, transition in readable(
                "event", [event], _transition, (*row[:3], index), inside
            )
        ]
        inside.warnings += events is None
        found[row[2]] = row, transitions
    rows.warnings += inside.warnings + len(inside.rejects) + (activities is None)
    yield from found.values()

"""The definitions of a Studio flow's revisions → rows: states, transitions, and findings.

Twilio documents what a definition holds, but flows of its first version, and types of states to
come, may look otherwise. So oddities count as warnings, not as rejects. The exception is a
definition that is too large for callflow to read: it is rejected, because callflow's own limit must
not look like a flow without states.

A flow starts at its `initial_state`, and ends where an event has no `next`: neither a state nor an
event without one is a fault. What `properties` say of a state's place on the canvas is left out.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import Table

from etl.errors import TooMuchError
from etl.extract.decode import whole
from etl.transform import graph
from etl.transform.graph import Finding, Link
from etl.transform.rows import Reject, Rows
from etl.transform.steps import (
    Step,
    Steps,
    add_findings,
    add_rows,
    cells,
    content,
    event_of,
    next_of,
    read_steps,
    unreadable,
)
from etl.transform.tree import Inside
from etl.transform.values import INT4, Reader, Row, items, reader
from etl.warehouse import tables

LAYOUT = "offset"
"""The member of a state's properties that says where it is drawn."""


Judge = Callable[[Steps | None], Iterator[Finding]]
Placed = Callable[[Any], Callable[[Row, int], Row]]


def definitions(states: Table, transitions: Table, found: Table) -> Inside:
    """Return the function that reads the definitions of a flow's revisions into these tables.

    A definition is a JSON object, or the text of one. Only some of the revisions have one.
    """
    state, transition = reader(states, apart=("transitions",)), reader(transitions)
    placed, judge = _placed(states), _judge(states, transitions)

    def inside(record: dict[str, Any], ordinal: int, flow_key: Row, what: str, rows: Rows) -> bool:
        read_all = True
        for number, sent in _definitions(record).items():
            key = (*flow_key, number)
            try:
                read = _states(sent, key, state, transition, placed, rows)
            except TooMuchError as error:
                reason = f"definition of revision {number} of {what}: {error}"
                rows.rejects.append(Reject(reason, flow_key[-1]))
                read_all = False
                continue
            add_rows(rows, ordinal, read, states, transitions)
            add_findings(rows, ordinal, key, judge(read), found)
        return read_all

    return inside


def _definitions(record: dict[str, Any]) -> dict[int, Any]:
    """Return the definitions by the number of their revision, of a repeated one the last."""
    found: dict[int, Any] = {}
    for each in items(record, "revisions") or ():
        number = whole(each.get("revision")) if isinstance(each, dict) else None
        if number is not None and number in INT4:
            found[number] = each.get("definition")
    return {number: sent for number, sent in found.items() if sent is not None and sent != ""}


def _states(
    sent: Any, key: Row, state: Reader, transition: Reader, placed: Placed, rows: Rows
) -> Steps | None:
    """Return the states by name; None if there is no list of them, which is a warning."""
    found = content(sent) if isinstance(sent, str) else sent
    listed = items(found, "states") if isinstance(found, dict) else None
    if listed is None:
        rows.warnings += 1
        return None
    return read_steps(
        map(_without_layout, listed),
        "transitions",
        state,
        transition,
        key,
        rows,
        placed(found.get("initial_state")),
    )


def _without_layout(state: Any) -> Any:
    properties = state.get("properties") if isinstance(state, dict) else None
    if not isinstance(properties, dict) or LAYOUT not in properties:
        return state
    kept = {name: value for name, value in properties.items() if name != LAYOUT}
    return {**state, "properties": kept}


def _placed(states: Table) -> Placed:
    """Return the function that makes, for an initial state, the one that completes states' rows.

    A reader fills the columns that are members of a state; two others stand among them.
    """
    name = len(tables.key_columns(states)) - 1
    place = tables.data_columns(states).index("is_start")

    def placed(initial: Any) -> Callable[[Row, int], Row]:
        return lambda row, index: (*row[:place], row[name] == initial, index, *row[place:])

    return placed


def _judge(states: Table, transitions: Table) -> Judge:
    """Return the function that finds what is wrong with the graph of a definition's states."""
    of_state = cells(states, "name", "is_start")
    of_transition = cells(transitions, "name", "event", "next", "extra")

    def step(each: Step) -> graph.Step:
        name, is_start = of_state(each.row)
        return graph.Step(name, starts=is_start, ends=True)

    def links(every: Iterable[Step]) -> Iterator[Link]:
        for each in every:
            for row in each.leaving:
                name, event, sent, extra = of_transition(row)
                if (following := next_of(sent, extra)) is not None:
                    yield Link(name, event_of(event), following)

    def judge(read: Steps | None) -> Iterator[Finding]:
        if read is None:
            yield Finding("unreadable")
            return
        yield from unreadable(read)
        yield from graph.findings(map(step, read.values()), links(read.values()))

    return judge

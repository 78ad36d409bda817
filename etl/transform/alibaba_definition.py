"""The Definition inside an Alibaba contact flow → rows: activities, transitions, and findings.

Alibaba's document of ListContactFlows says that the Definition is "parsed by the backend, customers
need not care". So oddities in it count as warnings, not as rejects. The exception is a Definition
that is too large for callflow to read: it is rejected, because callflow's own limit must not look
like a flow without activities.

In that document's example a call comes in at an INCOMING_CALL and ends at a HANGUP. Where it enters
a flow that has no INCOMING_CALL is not said; callflow takes the lowest nodeIndex.
"""

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Table

from etl.errors import TooMuchError
from etl.transform import graph
from etl.transform.exact import exact_steps
from etl.transform.graph import Finding, Link
from etl.transform.rows import Reject, Rows
from etl.transform.steps import (
    Step,
    Steps,
    add_findings,
    add_rows,
    as_documented,
    cells,
    content,
    event_of,
    next_of,
    read_steps,
    unreadable,
)
from etl.transform.tree import Inside
from etl.transform.values import Reader, Row, items, reader

Judge = Callable[[Steps | None], Iterator[Finding]]


def definition(activities: Table, transitions: Table, found: Table) -> Inside:
    """Return the function that reads a flow's Definition into rows of these three tables."""
    activity, transition = reader(activities, apart=("events",)), reader(transitions)
    exact, judge = exact_steps("activities", activities), _judge(activities, transitions)

    def inside(record: dict[str, Any], ordinal: int, flow_key: Row, what: str, rows: Rows) -> bool:
        sent = record.get("Definition")
        if sent is None or sent == "":
            return True
        try:
            # What was decoded goes before the graph comes: both take memory.
            read = as_documented(exact, sent, flow_key)
            if read is None:
                read = _activities(content(sent), flow_key, activity, transition, rows)
        except TooMuchError as error:
            rows.rejects.append(Reject(f"Definition of {what}: {error}", flow_key[-1]))
            return False
        add_rows(rows, ordinal, read, activities, transitions)
        add_findings(rows, ordinal, flow_key, judge(read), found)
        return True

    return inside


def _activities(
    sent: Any, flow_key: Row, activity: Reader, transition: Reader, rows: Rows
) -> Steps | None:
    """Return the activities by id; None if there is no list of them, which is a warning."""
    activities = items(sent, "activities") if isinstance(sent, dict) else None
    if activities is None:
        rows.warnings += 1
        return None
    return read_steps(activities, "events", activity, transition, flow_key, rows)


def _judge(activities: Table, transitions: Table) -> Judge:
    """Return the function that finds what is wrong with the graph of a Definition's activities."""
    of_activity = cells(activities, "activity_id", "type", "node_index")
    of_transition = cells(transitions, "activity_id", "event", "next_activity_id", "extra")

    def step(each: Step) -> graph.Step:
        name, kind, order = of_activity(each.row)
        ends = kind == "HANGUP" or not each.whole  # what cannot be read may lead on
        return graph.Step(name, starts=kind == "INCOMING_CALL", order=order, ends=ends)

    def link(row: Row) -> Link:
        name, event, following, extra = of_transition(row)
        return Link(name, event_of(event), next_of(following, extra))

    def judge(read: Steps | None) -> Iterator[Finding]:
        if read is None:
            yield Finding("unreadable")
            return
        every = read.values()
        yield from unreadable(read)
        yield from graph.findings(
            map(step, every), (link(row) for each in every for row in each.leaving)
        )

    return judge

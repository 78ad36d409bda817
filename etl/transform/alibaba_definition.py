"""The Definition inside an Alibaba contact flow → rows: activities, transitions, and findings.

Alibaba's document of ListContactFlows says that the Definition is "parsed by the backend, customers
need not care". So it may be anything, its text is stored in any case, and oddities in it count as
warnings, not as rejects. The exception is a Definition that is too large for callflow to read: it
is rejected, because callflow's own limit must not look like a flow without activities.

In that document's example a call comes in at an INCOMING_CALL and ends at a HANGUP. Where it enters
a flow that has no INCOMING_CALL is not said; callflow takes the lowest nodeIndex.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import Table

from etl.errors import TooMuchError
from etl.extract.decode import bounded, decode
from etl.transform.graph import Finding, Link, Step, findings
from etl.transform.rows import Reject, Rows
from etl.transform.tree import Inside
from etl.transform.values import Reader, Row, as_json, items, readable, reader
from etl.warehouse import tables

MAX_FINDINGS: Final = 20_000
"""Findings that are kept of one flow. No flow that people made has as many, and two for each
activity of the largest Definition would not fit into the memory of a run."""

MAX_EVENT_BYTES: Final = 128
"""Bytes of an event in the key of a finding. Beside three ids of `values.MAX_KEY_BYTES` an index
row has no room for more."""


class _Activity(NamedTuple):
    """An activity and the transitions that leave it; `whole`: its events could be read."""

    row: Row
    leaving: list[Row]
    whole: bool


Activities = dict[str, _Activity]
Judge = Callable[[Activities | None], Iterator[Finding]]


def definition(activities: Table, transitions: Table, found: Table) -> Inside:
    """Return the function that reads a flow's Definition into rows of these three tables."""
    activity, transition = reader(activities, apart=("events",)), reader(transitions)
    judge = _judge(activities, transitions)

    def inside(record: dict[str, Any], ordinal: int, flow_key: Row, what: str, rows: Rows) -> bool:
        sent = record.get("Definition")
        if sent is None or sent == "":
            return True
        try:
            # What was decoded goes before the graph comes: both take memory.
            read = _activities(_content(sent), flow_key, activity, transition, rows)
        except TooMuchError as error:
            rows.rejects.append(Reject(f"Definition of {what}: {error}", flow_key[-1]))
            return False
        for each in (read or {}).values():
            rows.tables[activities.fullname].append((ordinal, *each.row))
            rows.tables[transitions.fullname] += [(ordinal, *row) for row in each.leaving]
        rows.tables[found.fullname] += [
            (ordinal, *flow_key, each.step, each.finding, each.event, each.detail, None)
            for each in islice(judge(read), MAX_FINDINGS)
        ]
        return True

    return inside


def _content(definition: Any) -> Any:
    """Decode a Definition; None if it is not JSON. Raise TooMuchError."""
    try:
        return bounded(definition) if isinstance(definition, str) else None
    except TooMuchError:
        raise
    except ValueError:
        return None


def _activities(
    content: Any, flow_key: Row, activity: Reader, transition: Reader, rows: Rows
) -> Activities | None:
    """Return the activities by id, of a repeated id the last; None if it has no list of them.

    Everything that cannot be read is counted in `rows.warnings`.
    """
    activities = items(content, "activities") if isinstance(content, dict) else None
    if activities is None:
        rows.warnings += 1
        return None
    inside = Rows({})  # its warnings and rejects all become warnings of the record
    width = len(flow_key) + 1
    found: Activities = {}
    for _, sent, row in readable("activity", activities, activity, flow_key, inside):
        events = items(sent, "events")
        leaving = [
            each
            for index, event in enumerate(events or [])
            for _, _, each in readable("event", [event], transition, (*row[:width], index), inside)
        ]
        inside.warnings += events is None
        found[row[width - 1]] = _Activity(row, leaving, events is not None)
    rows.warnings += inside.warnings + len(inside.rejects)
    return found


def _judge(activities: Table, transitions: Table) -> Judge:
    """Return the function that finds what is wrong with the graph of a Definition's activities."""
    of_activity = _cells(activities, "activity_id", "type", "node_index")
    of_transition = _cells(transitions, "activity_id", "event", "next_activity_id", "extra")

    def step(each: _Activity) -> Step:
        name, kind, order = of_activity(each.row)
        ends = kind == "HANGUP" or not each.whole  # what cannot be read may lead on
        return Step(name, starts=kind == "INCOMING_CALL", order=order, ends=ends)

    def link(row: Row) -> Link:
        name, event, following, extra = of_transition(row)
        if following is None and extra is not None:  # one that is not text
            sent = decode(extra).get("next")
            following = None if sent is None else as_json(sent)
        return Link(name, _fitting(event or ""), following or None)

    def judge(read: Activities | None) -> Iterator[Finding]:
        if read is None:
            yield Finding("unreadable")
            return
        every = read.values()
        yield from (Finding("unreadable", name) for name, each in read.items() if not each.whole)
        yield from findings(map(step, every), (link(row) for each in every for row in each.leaving))

    return judge


def _cells(table: Table, *names: str) -> Callable[[Row], tuple[Any, ...]]:
    """Return the function that takes the cells of these columns out of a row."""
    columns = tables.data_columns(table)
    return itemgetter(*(columns.index(name) for name in names))


def _fitting(event: str) -> str:
    return event.encode()[:MAX_EVENT_BYTES].decode(errors="ignore")

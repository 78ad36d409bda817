"""The Definition inside an Alibaba contact flow → rows: its activities and their transitions.

Alibaba's document of ListContactFlows says that the Definition is "parsed by the backend, customers
need not care". So it may be anything, its text is stored in any case, and oddities in it count as
warnings, not as rejects. The exception is a Definition that is too large for callflow to read: it
is rejected, because callflow's own limit must not look like a flow without activities.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Table

from etl.errors import TooMuchError
from etl.extract.decode import bounded
from etl.transform.rows import Reject, Rows
from etl.transform.tree import Inside
from etl.transform.values import Reader, Row, items, readable, reader


def definition(activities: Table, transitions: Table) -> Inside:
    """Return the function that reads a flow's Definition into rows of these two tables."""
    activity, transition = reader(activities, apart=("events",)), reader(transitions)

    def inside(record: dict[str, Any], ordinal: int, flow_key: Row, what: str, rows: Rows) -> bool:
        try:
            content = _content(record.get("Definition"))
        except TooMuchError as error:
            rows.rejects.append(Reject(f"Definition of {what}: {error}", flow_key[-1]))
            return False
        for row, leaving in _activities(content, flow_key, activity, transition, rows):
            rows.tables[activities.fullname].append((ordinal, *row))
            rows.tables[transitions.fullname] += [(ordinal, *each) for each in leaving]
        return True

    return inside


def _content(definition: Any) -> Any:
    """Decode a Definition: {} if there is none, None if it is not JSON. Raise TooMuchError."""
    if not definition:
        return {}
    try:
        return bounded(definition) if isinstance(definition, str) else None
    except TooMuchError:
        raise
    except ValueError:
        return None


def _activities(
    content: Any, flow_key: Row, activity: Reader, transition: Reader, rows: Rows
) -> Iterator[tuple[Row, list[Row]]]:
    """Yield each activity with the transitions that leave it; of a repeated id only the last.

    Everything that cannot be read is counted in `rows.warnings`.
    """
    if not isinstance(content, dict):
        rows.warnings += 1
        return
    inside = Rows({})  # its warnings and rejects all become warnings of the record
    width = len(flow_key) + 1
    found: dict[str, tuple[Row, list[Row]]] = {}
    activities = items(content, "activities")
    for _, sent, row in readable("activity", activities or [], activity, flow_key, inside):
        events = items(sent, "events")
        leaving = [
            each
            for index, event in enumerate(events or [])
            for _, _, each in readable("event", [event], transition, (*row[:width], index), inside)
        ]
        inside.warnings += events is None
        found[row[width - 1]] = row, leaving
    rows.warnings += inside.warnings + len(inside.rejects) + (activities is None)
    yield from found.values()

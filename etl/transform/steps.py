"""The steps inside a flow's definition → rows: what the definitions of all providers share.

No document promises what a definition holds, or for how long. So it may be anything, its text is
stored in any case, and oddities in it count as warnings, not as rejects.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import Table

from etl.errors import TooMuchError
from etl.extract.decode import bounded, check_weight, decode
from etl.transform.exact import ReadSteps
from etl.transform.graph import Finding
from etl.transform.rows import Rows
from etl.transform.values import Reader, Row, as_json, items, readable
from etl.warehouse import tables

MAX_FINDINGS: Final = 20_000
"""Findings that are kept of one flow. No flow that people made has as many, and two for each step
of the largest definition would not fit into the memory of a run."""

MAX_EVENT_BYTES: Final = 128
"""Bytes of an event in the key of a finding. Beside three ids of `values.MAX_KEY_BYTES` an index
row has no room for more."""


class Step(NamedTuple):
    """A step's row and those of the links that leave it; `whole`: its links could be read."""

    row: Row
    leaving: list[Row]
    whole: bool


Steps = dict[str, Step]


def content(definition: Any) -> Any:
    """Decode the text of a definition; None if it is not JSON. Raise TooMuchError."""
    try:
        return bounded(definition) if isinstance(definition, str) else None
    except TooMuchError:
        raise
    except ValueError:
        return None


def as_documented(read: ReadSteps, definition: Any, key: Row) -> Steps | None:
    """Return the steps that `read_steps` would return, if there is nothing odd about any of them.

    `key` is that of their flow. Raise TooMuchError.
    """
    if not isinstance(definition, str):
        return None
    check_weight(definition)
    found = read(definition, key)
    if found is None:
        return None
    steps = {row[len(key)]: Step(row, leaving, whole=True) for row, leaving in found}
    return steps if len(steps) == len(found) else None


def read_steps(
    listed: Iterable[Any],
    member: str,
    step: Reader,
    link: Reader,
    key: Row,
    rows: Rows,
    placed: Callable[[Row, int], Row] = lambda row, index: row,
) -> Steps:
    """Return the steps by id, of a repeated id the last; each has its links in its `member`.

    `key` is that of their flow. What cannot be read is counted in `rows.warnings`, and so is an id
    that comes again. `placed` makes a step's whole row of what was read and its index in the list.
    """
    inside = Rows({})  # its warnings and rejects all become warnings of the record
    width = len(key) + 1
    found: Steps = {}
    for place, sent, row in readable("step", listed, step, key, inside):
        links = items(sent, member)
        leaving = [
            each
            for index, one in enumerate(links or [])
            for _, _, each in readable("link", [one], link, (*row[:width], index), inside)
        ]
        inside.warnings += (links is None) + (row[width - 1] in found)
        found[row[width - 1]] = Step(placed(row, place), leaving, links is not None)
    rows.warnings += inside.warnings + len(inside.rejects)
    return found


def add_rows(rows: Rows, ordinal: int, read: Steps | None, steps: Table, links: Table) -> None:
    """Add the rows of steps and their links to those of a page."""
    for each in (read or {}).values():
        rows.tables[steps.fullname].append((ordinal, *each.row))
        rows.tables[links.fullname] += [(ordinal, *row) for row in each.leaving]


def add_findings(
    rows: Rows, ordinal: int, key: Row, found: Iterator[Finding], table: Table
) -> None:
    """Add what was found about the flow with the `key` to the rows of a page."""
    rows.tables[table.fullname] += [
        (ordinal, *key, each.step, each.finding, each.event, each.detail, None)
        for each in islice(found, MAX_FINDINGS)
    ]


def unreadable(read: Steps) -> Iterator[Finding]:
    """Yield the steps whose links could not be read."""
    return (Finding("unreadable", name) for name, each in read.items() if not each.whole)


def cells(table: Table, *names: str) -> Callable[[Row], tuple[Any, ...]]:
    """Return the function that takes the cells of these columns out of a row."""
    columns = tables.data_columns(table)
    return itemgetter(*(columns.index(name) for name in names))


def event_of(sent: str | None) -> str:
    """Return an event as the key of a finding holds it."""
    if sent is not None and len(sent) <= MAX_EVENT_BYTES // 4:
        return sent
    return (sent or "").encode()[:MAX_EVENT_BYTES].decode(errors="ignore")


def next_of(following: str | None, extra: str | None) -> str | None:
    """Return the id of the step that follows, from a link's cells; None if there is none.

    One that is not text is in `extra`, and comes as JSON: it is the id of no step.
    """
    if following is None and extra is not None:
        sent = decode(extra).get("next")
        following = None if sent is None else as_json(sent)
    return following or None

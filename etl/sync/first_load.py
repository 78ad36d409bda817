"""The first load of a stream: straight into its table, in one transaction, where the list is fast.

That is decided once, after the first batch and before anything is written: no page is read twice
because the list turns out to be longer or slower than it seemed. If the run is killed, all of it is
read again, which takes a fast list as little time as it took. Any other list is staged, and goes on
where it was.

Only a list without a count is loaded like this, because one with a count may have to be read twice
before it is proven.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, islice
from operator import itemgetter
from typing import Any

from psycopg.errors import UniqueViolation
from sqlalchemy import Connection

from etl.errors import PageTokenError
from etl.extract.page import EVERYTHING, Page
from etl.load import runs, stage
from etl.load.merge import Written
from etl.load.runs import Run
from etl.load.stage import Staged, TablePair
from etl.load.transaction import ROLL_BACK, RollBack
from etl.sync.context import RunContext
from etl.sync.finish import Result, record_end
from etl.sync.plan import Plan
from etl.sync.proof import Scan, prove
from etl.sync.scan import Batch, RunningScan, keep_rejects, rejects_of, rows_of, start_scan
from etl.transform.rows import Reject
from etl.warehouse import tables

FAST = 20.0
"""Pages a second from which on a list is fast, going by its first batch. One that fits into a batch
always is."""

HELD = 1000
"""Rejects after which the COPY is interrupted to write them: until then they are in memory."""


@dataclass(slots=True)
class _Load:
    """The rows of a scan on their way into the table.

    `rejects` are those that are not written yet, `newest` the newest modification times so far, by
    scope. `was_read` says that rows were taken: they are gone then. `is_over` says that all of them
    were.
    """

    running: RunningScan
    rejects: list[Reject] = field(default_factory=list)
    newest: dict[str, datetime] = field(default_factory=dict)
    was_read: bool = False
    is_over: bool = False


def load_directly(context: RunContext, plan: Plan) -> Run | RunningScan | None:
    """Load a stream that has no rows yet; return the run as it was recorded.

    If the provider answers slowly, return the scan that was started, to be staged instead. If a
    record comes twice, or if the stream has rows, children, a count, details or news to log, return
    None; then nothing is written, and the list is read from its start. (A key that comes twice ends
    the transaction with all rows before it. It is rare, and to be ready for it would take a second
    copy of the rows, or of the keys, of every list.)
    """
    job, stream = context.job, context.job.stream
    if context.rows or stream.counted or stream.detail or plan.request != EVERYTHING:
        return None
    if len(context.tables) > 1 or context.log.is_open:  # open: the list was empty before
        return None
    started = job.clock()
    running = start_scan(context, plan, plan.request, Scan())
    with job.span("extract"):
        first = list(islice(running.batches, 1))
    is_whole = not first or _is_end(first[0][-1][0])
    again = RunningScan(running.scan, _with_first(first, running.batches))
    if not is_whole and running.scan.pages / (job.clock() - started or 1) < FAST:
        return again
    with closing(again.batches), job.span("load"):
        try:
            result = context.database.write_then_renew(_load, context, plan, _Load(again))
        except UniqueViolation:
            return None
    return None if isinstance(result, RollBack) else result


def _is_end(page: Page) -> bool:
    """Whether the list ends with this page; of a part of a page that is not known."""
    return page.next_pointer is None and not page.part


def _with_first(first: list[Batch], rest: Generator[Batch]) -> Generator[Batch]:
    with closing(rest):
        yield from first
        yield from rest


def _load(connection: Connection, context: RunContext, plan: Plan, load: _Load) -> Run | RollBack:
    """Copy the rows of the scan into the current table and record the run."""
    if load.was_read:  # Postgres gave the first transaction up
        return ROLL_BACK
    load.was_read = True
    job, pair, scan = context.job, context.tables[0], load.running.scan
    now = runs.instant(connection, context.previous.latest)
    while not load.is_over:
        stage.copy_current(connection, pair, job.source, _rows(context, load), now)
        keep_rejects(connection, context, load.rejects)
        load.rejects.clear()
    proof = prove([scan], {}, counted=False, where=job.name)
    if isinstance(proof.incomplete_because, PageTokenError):
        return ROLL_BACK
    loaded = {
        name: Staged(scope.received - scope.unkeyed, load.newest.get(name))
        for name, scope in scan.scopes.items()
    }
    rows = sum(scope.records for scope in loaded.values())
    written = Written(inserted=rows, rows=rows)
    result = Result(plan, scan, loaded, written, now, proof.incomplete_because)
    return record_end(connection, context, result)


def _rows(context: RunContext, load: _Load) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of all batches, or of those up to one with which HELD rejects are held."""
    modified = context.job.stream.modified
    for batch in load.running.batches:
        load.rejects += rejects_of(batch)
        if modified is not None:
            _note_newest(load.newest, batch, context.tables[0], modified)
        yield from rows_of(batch, context.tables[0])
        if len(load.rejects) >= HELD:
            return
    load.is_over = True


def _note_newest(newest: dict[str, datetime], batch: Batch, pair: TablePair, modified: str) -> None:
    """Note the newest times in the column `modified` of a batch's rows, by scope."""
    place = 2 + tables.data_columns(pair.current).index(modified)
    for page, rows in batch:
        times = map(itemgetter(place), rows.tables[pair.current.fullname])
        found = runs.newest_of(chain(times, [newest.get(page.scope)]))
        if found is not None:
            newest[page.scope] = found

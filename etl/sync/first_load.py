"""The first load of a stream: straight into its table, in one transaction, where that is safe.

It takes half the time of the way through the staging tables. It is tried only on a list without a
count, because a list with one may have to be read twice before it is proven.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from psycopg.errors import UniqueViolation
from sqlalchemy import Connection

from etl.errors import PageTokenError
from etl.extract.page import EVERYTHING
from etl.load import runs, stage
from etl.load.merge import Written
from etl.load.runs import Run
from etl.load.transaction import ROLL_BACK, RollBack
from etl.sync.context import RunContext
from etl.sync.finish import Result, record_end
from etl.sync.plan import Plan
from etl.sync.proof import Scan, prove
from etl.sync.scan import Batch, RunningScan, keep_rejects, rejects_of, rows_of, start_scan
from etl.transform.rows import Reject

FAST, LONGEST, MOST = 20.0, 10.0, 250
"""The first load is one transaction if its first batch comes at FAST pages a second, all of it
within LONGEST seconds, and there are at most MOST pages. A longer load should be resumable if it
is killed."""


@dataclass(slots=True)
class _Load:
    """The rows of a scan on their way into one COPY, and why it must be given up.

    `rejects` are those of the rows taken so far. `was_read` says that the rows were taken once:
    they are gone then. `is_unfit` says that the list turned out to be slow or long.
    """

    running: RunningScan
    started: float
    rejects: list[Reject] = field(default_factory=list)
    was_read: bool = False
    is_unfit: bool = False


def load_directly(context: RunContext, plan: Plan) -> Run | RunningScan | None:
    """Load a stream that has no rows yet; return the run as it was recorded.

    If the provider answers slowly, return the scan that was started, to be staged instead. If the
    list turns out to be slow or long, if a record comes twice, or if the stream has rows, a count,
    details or news to log, return None; then nothing is written.
    """
    job = context.job
    if context.rows or job.stream.counted or job.stream.detail or plan.request != EVERYTHING:
        return None
    if context.log.is_open:  # the list was empty before
        return None
    started = job.clock()
    running = start_scan(context, plan, plan.request, Scan())
    first = list(islice(running.batches, 1))
    is_whole = not first or first[0][-1][0].next_pointer is None
    again = RunningScan(running.scan, _with_first(first, running.batches))
    if not is_whole and running.scan.pages / (job.clock() - started or 1) < FAST:
        return again
    with closing(again.batches):
        try:
            result = context.database.write_then_renew(_load, context, plan, _Load(again, started))
        except UniqueViolation:
            return None
    return None if isinstance(result, RollBack) else result


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
    stage.copy_current(connection, pair, job.source, _rows(context, load), now)
    keep_rejects(connection, context, load.rejects)
    proof = prove([scan], {}, counted=False, where=job.name)
    if load.is_unfit or isinstance(proof.incomplete_because, PageTokenError):
        return ROLL_BACK
    rows = sum(scope.received - scope.unkeyed for scope in scan.scopes.values())
    written = Written(inserted=rows, rows=rows)
    result = Result(plan, scan, rows, written, now, pair.current, proof.incomplete_because)
    return record_end(connection, context, result)


def _rows(context: RunContext, load: _Load) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of all batches; end early if it takes too long or there are too many."""
    job, scan = context.job, load.running.scan
    for batch in load.running.batches:
        load.rejects += rejects_of(batch)
        yield from rows_of(batch, context.tables[0])
        is_long = job.clock() - load.started > LONGEST or scan.pages >= MOST
        if is_long and batch[-1][0].next_pointer is not None:
            load.is_unfit = True
            return

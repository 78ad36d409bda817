"""The spine: one run of one stream, from the first page to the watermark.

    acquire the lease
    scan      page → transform → COPY into staging, committed every few pages
    prove     did we see every row that the API counts? if not, scan again
    confirm   rows that were not listed: are they really gone?
    merge     one transaction: differing rows, history, deletes, watermark, run
    release the lease

A scan that cannot be proven still adds and updates what it saw; it removes nothing, moves no
watermark, and the run is not complete. A source's first load takes a shorter way (`_first_load`).
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from psycopg.errors import UniqueViolation
from sqlalchemy import Connection, Engine

from etl import proof
from etl.ahead import ahead
from etl.catalog import Stream
from etl.errors import (
    BusyError,
    CallflowError,
    IncompleteError,
    PageTokenError,
    ProviderError,
    StoppedError,
    UnreachableRowsError,
    WarehouseError,
)
from etl.http import Http
from etl.load import lease as leases
from etl.load import merge, runs, stage
from etl.load.lease import Lease
from etl.load.merge import Key, Written
from etl.load.runs import Progress, Run
from etl.load.stage import Settled, Staged
from etl.model import Lookup, Reject, Rows
from etl.proof import Scan
from etl.warehouse import plain_errors

SCANS = 3
"""How often a list is scanned in one run before the run ends without a proof."""

RENEW_EVERY = leases.TTL.total_seconds() / 4

FAST = 2.0
"""Seconds in which a provider gives its first batch of pages if it is fast enough for the first
load to keep one transaction open."""

_SESSION = """SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true),
                    set_config('lock_timeout', '30s', true)"""


@dataclass(frozen=True, slots=True)
class Job:
    """One stream of one source, and what a run of it depends on.

    `on_page` is told the records read so far and how many the list has, where the API counts.
    `stopped` is asked twice a second whether the run shall end.
    """

    engine: Engine
    stream: Stream
    settings: Any
    holder: str
    accept_deletes: bool = False
    on_page: Callable[[int, int | None], None] = lambda records, total: None
    stopped: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    @property
    def name(self) -> str:
        """`source.stream`."""
        return f"{self.settings.name}.{self.stream.name}"


@dataclass(slots=True)
class _Work:
    """A run under way."""

    job: Job
    connection: Connection
    lease: Lease
    http: Http
    run: Run
    pairs: Sequence[Staged]
    renewed: float
    scan: Scan = field(default_factory=Scan)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that only the holder of the lease can commit."""
        with self.connection.begin():
            self.connection.exec_driver_sql(_SESSION)
            leases.renew(self.connection, self.lease)
            yield self.connection
        self.renewed = self.job.clock()

    def tick(self) -> None:
        """Between two pages: stop when asked to, keep the lease."""
        if self.job.stopped():
            raise StoppedError("stopped; what was read in this run is not merged")
        if self.job.clock() - self.renewed > RENEW_EVERY:
            with self.job.engine.begin() as another:  # ours may be in a transaction
                leases.renew(another, self.lease)
            self.renewed = self.job.clock()


def run_stream(job: Job) -> Run:
    """Bring one stream up to date; return the run as `etl.runs` records it.

    Whatever goes wrong is in its `status`, `error_kind` and `error`. Only StoppedError is raised.
    """
    source, stream = job.settings.name, job.stream
    run = Run(uuid.uuid4().hex, source, stream.name, "full", datetime.now(UTC))
    try:
        with plain_errors(job.name), job.engine.connect() as connection:
            with connection.begin():
                lease = leases.acquire(connection, source, stream.name, holder=job.holder)
            try:
                with stream.connect(
                    job.settings, stream.name, clock=job.clock, sleep=job.sleep
                ) as http:
                    pairs = [stage.staged(source, table) for table in stream.tables]
                    _sync(_Work(job, connection, lease, http, run, pairs, job.clock()))
            finally:
                _release(connection, lease)
    except StoppedError:
        raise
    except CallflowError as error:
        _record_failure(job, run, error)
    return run


def _sync(work: _Work) -> None:
    with work.writing() as connection:
        former = runs.progress(connection, work.run.source, work.run.stream)
        work.run.watermark_before = former.watermark
        rows = runs.count(connection, work.run.source, work.pairs[0].current)
    if not rows and not work.job.stream.overlapping and _first_load(work, former):
        return
    with work.writing() as connection:
        stage.prepare(connection, work.pairs)
    _proven_scan(work)
    gone: Sequence[Key] = ()
    doubt = work.scan.doubt
    if doubt is None:
        gone, doubt = _confirmed_gone(work, rows)
    with work.writing() as connection:
        now = runs.instant(connection, former)
        written = merge.merge(connection, work.run.source, work.pairs, gone, now)
        _finish(work, connection, written, now, doubt, work.pairs[0].stage)
        stage.clear(connection, work.pairs)
    _recount(work)


def _batches(work: _Work) -> Iterator[list[Rows]]:
    """One scan of the list: page after page, transformed, a few at a time."""
    scan = work.scan = Scan()
    stream, settings = work.job.stream, work.job.settings
    transform, records = stream.transform(settings), stream.tables[0].fullname
    batch: list[Rows] = []
    try:
        for page in ahead(stream.extract(work.http, settings), depth=2, tick=work.tick):
            rows = transform(page, scan.received)
            scan.add(page, rows, len(rows.tables[records]))
            batch.append(rows)
            if len(batch) == stream.batch:
                yield batch
                batch = []
            work.run.pages += 1
            work.job.on_page(scan.received, scan.total)
    except ProviderError as error:  # what came before it is true, and is kept
        scan.doubt = error
    if batch:
        yield batch


def _scan(work: _Work) -> Scan:
    """Scan the list into staging."""
    with work.writing() as connection:
        stage.clear(connection, work.pairs)
    for batch in _batches(work):
        with work.writing() as connection:
            for pair in work.pairs:
                stage.copy(connection, pair.stage, _of(batch, pair))
            runs.reject(connection, work.run, _rejects(batch))
    with work.writing() as connection:
        work.scan.settled = stage.settle(connection, work.pairs, work.job.stream.scope)
    return work.scan


def _of(batch: Sequence[Rows], pair: Staged) -> list[tuple[Any, ...]]:
    return [row for rows in batch for row in rows.tables[pair.current.fullname]]


def _rejects(batch: Sequence[Rows]) -> list[Reject]:
    return [reject for rows in batch for reject in rows.rejects]


def _proven_scan(work: _Work) -> None:
    """Scan until the list is proven to be whole, SCANS times at most; the last one says why not."""
    former: Scan | None = None
    for _ in range(SCANS):
        scan = _scan(work)
        if isinstance(scan.doubt, PageTokenError):  # it expired: only a new scan can be whole
            continue
        if scan.doubt is None and not proof.repeats(scan, former):
            scan.doubt = proof.shortfall(scan, work.job.name)
            if scan.doubt is not None:
                former = scan
                continue
        scan.doubt = scan.doubt or proof.rejected(scan, work.job.name)
        return


class _UnfitError(Exception):
    """The first load cannot go the short way."""


def _first_load(work: _Work, former: Progress) -> bool:
    """Load a source that has no rows yet straight into its tables, in one transaction.

    Half the time of the long way. When the provider is slow, a record comes twice, or the scan has
    to be repeated, nothing is written and the answer is False.
    """
    run, written, began = work.run, Written(), work.job.clock()
    try:
        with work.connection.begin():
            work.connection.exec_driver_sql(_SESSION)
            now = runs.instant(work.connection, former)
            rejects: list[Reject] = []

            def batches() -> Iterator[list[Rows]]:
                for number, batch in enumerate(_batches(work)):
                    if number == 1 and work.job.clock() - began > FAST:
                        raise _UnfitError
                    names = [pair.current.fullname for pair in work.pairs]
                    sizes = [sum(len(rows.tables[name]) for rows in batch) for name in names]
                    written.inserted += sizes[0]
                    written.rows += sum(sizes)
                    rejects.extend(_rejects(batch))
                    yield batch

            if len(work.pairs) == 1:  # one COPY for the whole scan: the server never waits for us
                (pair,) = work.pairs
                every = (row for batch in batches() for row in _of(batch, pair))
                stage.copy_current(work.connection, pair, run.source, every, now)
            else:
                for batch in batches():
                    for pair in work.pairs:
                        rows = _of(batch, pair)
                        stage.copy_current(work.connection, pair, run.source, rows, now)
            runs.reject(work.connection, run, rejects)
            scan = work.scan
            scan.settled = Settled(
                {name: scope.received - scope.unkeyed for name, scope in scan.scopes.items()},
                frozenset(),
            )
            if isinstance(scan.doubt, PageTokenError) or (
                scan.doubt is None and proof.shortfall(scan, work.job.name)
            ):
                raise _UnfitError
            leases.renew(work.connection, work.lease)
            doubt = scan.doubt or proof.rejected(scan, work.job.name)
            _finish(work, work.connection, written, now, doubt, work.pairs[0].current)
    except (_UnfitError, UniqueViolation):
        return False
    _recount(work)
    return True


def _confirmed_gone(work: _Work, rows: int) -> tuple[list[Key], CallflowError | None]:
    """Records that the list no longer has and the provider confirms; and what stays open."""
    stream, name = work.job.stream, work.job.name
    missing = _absent(work)
    if not missing:
        return [], None
    if not work.job.accept_deletes and (doubt := proof.brake(work.scan, len(missing), rows, name)):
        return [], doubt
    answers = list(ahead(_look_up(work, missing), depth=1, tick=work.tick))
    gone = [key for key, answer in answers if answer.state == "gone"]
    undecided = [(key, answer) for key, answer in answers if answer.state == "undecided"]
    if undecided and stream.counted:
        again = _scan(work)
        open_doubt = again.doubt or proof.shortfall(again, name) or proof.unanchored(again, name)
        still = set(_absent(work)) if open_doubt is None else set()
        gone += [key for key, _ in undecided if key in still]
        return gone, open_doubt
    if undecided:
        return gone, IncompleteError(
            f"{len(undecided)} records are no longer listed, but nobody can say that they are gone "
            f"({undecided[0][1].reason}); they are kept",
            kind="undecided",
            where=name,
            advice="let these credentials read single records, or wait for the next run",
        )
    if len(gone) < len(answers) and stream.lasting:
        return gone, IncompleteError(
            f"{len(answers) - len(gone)} records exist, but the list did not return them; "
            "they are kept",
            kind="incomplete_scan",
            where=name,
            advice="nothing to do: the next run reads the list again",
        )
    return gone, None


def _absent(work: _Work) -> list[Key]:
    scopes = list(work.scan.scopes) if work.job.stream.scope else []
    with work.connection.begin():
        return merge.absent(work.connection, work.run.source, work.pairs[0], scopes)


def _look_up(work: _Work, keys: Sequence[Key]) -> Iterator[tuple[Key, Lookup]]:
    look_up = work.job.stream.lookup
    for key in keys:
        if look_up is None:
            yield key, Lookup("undecided", reason="the API cannot be asked for one record")
            continue
        try:
            yield key, look_up(work.http, work.job.settings, key)
        except ProviderError as error:
            yield key, Lookup("undecided", reason=str(error))


def _finish(
    work: _Work,
    connection: Connection,
    written: Written,
    now: datetime,
    doubt: CallflowError | None,
    seen: Any,
) -> None:
    """The end of a run, in the transaction of its changes. `seen` is the table of what it saw."""
    run, scan, stream = work.run, work.scan, work.job.stream
    run.status = "complete"
    if doubt is not None:
        ended = isinstance(doubt, IncompleteError | UnreachableRowsError)
        run.status = "incomplete" if ended else "failed"
        run.error_kind, run.error = doubt.kind, str(doubt)
    run.requests = work.http.requests
    run.records, run.rejected, run.warnings = scan.records, scan.rejected, scan.warnings
    run.inserted, run.updated, run.deleted = written.inserted, written.updated, written.deleted
    run.unchanged = sum(scan.settled.distinct.values()) - run.inserted - run.updated
    run.rows_written = written.rows
    marks = None
    if doubt is None:
        marks = runs.watermarks(connection, seen, run.source, stream.modified, stream.scope)
    runs.finish(connection, run, marks=marks, changed_at=now if written.rows else None)


def _recount(work: _Work) -> None:
    if work.run.rows_written:
        with work.writing() as connection:
            runs.recount(connection, work.run, [pair.current for pair in work.pairs])


def _release(connection: Connection, lease: Lease) -> None:
    try:
        connection.rollback()
        with connection.begin():
            leases.release(connection, lease)
    except Exception:  # noqa: BLE001, S110 - it ends by itself; what went wrong before says more
        pass


def _record_failure(job: Job, run: Run, error: CallflowError) -> None:
    run.status = "busy" if isinstance(error, BusyError) else "failed"
    run.error_kind, run.error = error.kind, str(error)
    try:
        with plain_errors(job.name), job.engine.begin() as connection:
            runs.finish(connection, run)
    except WarehouseError:
        run.finished_at = datetime.now(UTC)  # nowhere to record it; the caller reports the run

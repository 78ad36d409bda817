"""The spine: one run of one stream, from the lease to the watermark.

    acquire the lease
    plan      the whole list, or only what changed?
    read      page → transform → COPY into staging, until it is proven that all was seen   scan.py
    decide    records that were not listed: have they gone?                                gone.py
    merge     one transaction: differing rows, history, deletes, watermark, run
    release the lease

What cannot be proven still adds and updates; it removes nothing, moves no watermark, and the run is
not complete. A stream without rows may take a shorter way (`_first_load`).
"""

import contextlib
import itertools
import traceback
import uuid
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

from psycopg.errors import UniqueViolation
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from etl.config.settings import secrets
from etl.errors import (
    BusyError,
    CallflowError,
    IncompleteError,
    LeaseLostError,
    PageTokenError,
    StoppedError,
    UnavailableError,
    UnreachableRowsError,
    internal,
)
from etl.extract.http import Http
from etl.extract.page import WHOLE, Ask
from etl.load import checkpoint, merge, runs, stage
from etl.load import lease as leases
from etl.load.lease import Lease
from etl.load.merge import Written
from etl.load.runs import Marks, Outcome, Progress, Run
from etl.providers.declare import open_http
from etl.sync import scan
from etl.sync import unlisted as gone
from etl.sync.job import Job, Work, another_transaction, transaction
from etl.sync.proof import Proof, prove
from etl.sync.unlisted import Fate
from etl.transform.rows import Reject
from etl.warehouse import tables
from etl.warehouse.rights import plain_rights
from etl.warehouse.tables import Key

FULL_EVERY = timedelta(hours=24)
"""Longest time between two complete full scans, unless the settings say otherwise."""

_HOUR = timedelta(hours=1)
_BRIEF = timedelta(milliseconds=200)
"""How long a leader's run waits for its lease: meanwhile it holds off the renewal of the lead."""
_LONG = timedelta(days=32).total_seconds()  # no limit of a provider is reset later

FAST, LONGEST, MOST = 20.0, 10.0, 250
"""The first load of a stream is one transaction if its first batch comes at FAST pages a second,
all of it within LONGEST seconds, and there are at most MOST pages. A longer one had better be
resumed when it is killed."""


def run_stream(job: Job) -> Run:
    """Bring one stream up to date; return the run as `etl.runs` records it.

    Whatever goes wrong is in its `status`, `error_kind` and `error`: what nobody foresaw too. Only
    StoppedError is raised.
    """
    job = replace(job, redact=job.redact.apart(secrets(job.settings)))
    source, stream, lease = job.settings.name, job.stream, None
    run = Run(uuid.uuid4().hex, source, stream.name, "full", datetime.now(UTC))
    try:
        with _memory_errors(job.name), _plain_errors(job), job.engine.connect() as connection:
            with transaction(job, connection):
                _led(job, connection)
                taken = leases.acquire(
                    connection,
                    source,
                    stream.name,
                    holder=job.holder,
                    dead=partial(_dead, job),
                    wait=_BRIEF if job.leader else leases.WAIT,
                )
            lease = taken  # only now is it committed
            with open_http(
                job.settings,
                stream,
                clock=job.clock,
                sleep=job.sleep,
                now=job.now,
                redact=job.redact,
            ) as http:
                try:
                    _sync(_begun(job, run, lease, connection, http))
                finally:
                    _count_requests(run, http)
                    connection.rollback()
    except StoppedError:
        raise
    except CallflowError as error:
        _record_failure(job, run, lease, error)
    except Exception as error:  # noqa: BLE001 - the other streams' runs have nothing to do with it
        _record_failure(job, run, lease, internal(error, job.name))
    finally:
        _release(job, lease)
    return run


def _plain_errors(job: Job) -> AbstractContextManager[None]:
    return plain_rights(job.engine, job.name, job.redact)


@contextlib.contextmanager
def _memory_errors(where: str) -> Iterator[None]:
    """Turn a MemoryError into one that says what to do, and let go of what filled the memory."""
    try:
        yield
    except MemoryError as error:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        raise internal(error, where) from None


def _dead(job: Job, holder: str) -> bool:
    """A leader runs a stream once at a time: a lease of its own is that of a worker it lost."""
    return leases.is_dead(holder) or (job.leader is not None and holder == job.holder)


def _led(job: Job, connection: Connection) -> None:
    """Make sure that the daemon which the run is of leads, and goes on so until this commits."""
    if job.leader is not None:
        leases.stand_by(connection, job.leader)


def _begun(job: Job, run: Run, lease: Lease, connection: Connection, http: Http) -> Work:
    pairs = [stage.staged(run.source, table) for table in job.stream.tables]
    with transaction(job, connection):
        former = runs.progress(connection, run.source, run.stream)
        rows = runs.count(connection, run.source, pairs[0].current)
    run.watermark_before = former.watermark
    return Work(job, connection, lease, http, run, pairs, former, rows, job.clock())


def _sync(work: Work) -> None:
    run, stream = work.run, work.job.stream
    run.mode, run.reason, ask = _plan(work.job, work.former)
    ask = scan.prepare(work, ask)
    if _first_load(work, ask):
        return
    known, missed, unreadable = _known(work)
    if unreadable:
        run.reason = f"{run.reason}; {len(unreadable)} rows of etl.absences cannot be read"
    proof = scan.read(work, ask, known)
    work.settled = work.write(
        lambda connection: stage.settle(connection, work.pairs, proof.begins, stream.scope)
    )
    fate = Fate()
    if proof.doubt is None and run.mode == "full":
        fate = gone.decide(work, missed)
    removed = set(fate.gone)
    back = _back(work, proof, missed) + [key for key in missed if key in removed]

    def finish(connection: Connection) -> None:
        now = runs.instant(connection, work.former)
        written = merge.merge(
            connection,
            run.source,
            work.pairs,
            fate.gone,
            now,
            looked_up=sum(work.settled.values()) * merge.FEW < work.rows,
        )
        runs.note_missing(connection, run, fate.noted, back, unreadable)
        _finish(work, connection, written, now, proof.doubt or fate.doubt, work.pairs[0].stage)
        if stream.resumable:
            checkpoint.forget(connection, run.source, run.stream)
        stage.clear(connection, work.pairs)

    work.write(finish)
    _look_once(work)


def _plan(job: Job, former: Progress) -> tuple[Literal["full", "incremental"], str, Ask]:
    """How much of the list this run reads, and why."""
    every = job.settings.schedule.full_every or FULL_EVERY
    since = {scope: mark for scope, mark in former.watermarks.items() if mark is not None}
    if job.full:
        return "full", "asked for", WHOLE
    if former.unreadable:
        columns = ", ".join(former.unreadable)
        return "full", f"what etl.streams holds in {columns} cannot be read", WHOLE
    if job.stream.changes is None:
        return "full", "the API cannot be asked for changes only", WHOLE
    if former.last_full_at is None:
        return "full", "there was no complete full scan yet", WHOLE
    age = former.now - former.last_full_at
    if age >= every:
        return "full", f"the last complete full scan is older than {every / _HOUR:g} h", WHOLE
    if age < -_HOUR:
        return "full", "the database's clock was set back since the last full scan", WHOLE
    if not since:
        return "full", "there is no watermark yet", WHOLE
    if job.stream.changes == "since":
        return "incremental", "what changed since the watermark", Ask(since, former.read_at)
    if not former.newest_first:
        return "full", "the list did not come newest first", WHOLE
    return "incremental", "newest first, until nothing is new", WHOLE


def _known(work: Work) -> tuple[dict[str, set[Key]], dict[Key, str], list[str]]:
    """For counted lists: keys in the warehouse per scope, and those that a full run missed.

    The third is what stands in etl.absences and is no key.
    """
    run, stream = work.run, work.job.stream
    if not stream.counted:
        return {}, {}, []
    width = len(tables.key_columns(stream.tables[0]))

    def do(connection: Connection) -> tuple[dict[str, set[Key]], dict[Key, str], list[str]]:
        known = merge.known(connection, run.source, stream.tables[0], stream.scope)
        return known, *runs.missing_since(connection, run.source, run.stream, width)

    return work.read(do)


def _back(work: Work, proof: Proof, missed: Collection[Key]) -> list[Key]:
    """Which of the records that a former run did not list are in the list again."""
    if work.run.mode == "incremental" and proof.doubt is None:
        return list(missed)  # all that are known add up to what is listed
    seen = {key for each in work.scans for scope in each.scopes.values() for key in scope.keys}
    return [key for key in missed if key in seen]


class _UnfitError(Exception):
    """The first load cannot go the short way."""


def _first_load(work: Work, ask: Ask) -> bool:
    """Load a stream that has no rows yet straight into its table, in one transaction.

    Half the time of the long way. When the provider is slow, the list long, or a record comes
    twice, nothing is written and the answer is False; what was read of a slow one is not lost.
    """
    job, run, (pair, *_) = work.job, work.run, work.pairs
    if ask != WHOLE or work.rows or job.stream.counted:
        return False
    began = job.clock()
    pages = scan.batches(work, WHOLE, size=job.stream.batch)
    first = list(itertools.islice(pages, 1))
    whole = not first or first[0][-1][0].following is None
    if not whole and run.pages / (job.clock() - began or 1) < FAST:
        work.begun = itertools.chain(first, pages)
        return False
    rest = [itertools.chain(first, pages)]

    def rows(rejects: list[Reject]) -> Iterator[tuple[Any, ...]]:
        for batch in rest.pop():
            rejects += scan.rejects_of(batch)
            yield from scan.rows_of(batch, pair)
            late = job.clock() - began > LONGEST or run.pages >= MOST
            if late and batch[-1][0].following is not None:
                raise _UnfitError

    def do(connection: Connection) -> None:
        if not rest:  # Postgres gave the transaction up, and what was read is gone
            raise _UnfitError
        now = runs.instant(connection, work.former)
        rejects: list[Reject] = []
        stage.copy_current(connection, pair, run.source, rows(rejects), now)
        runs.reject(connection, run, scan.told(work, rejects))
        proof = prove(work.scans, {}, counted=False, where=job.name)
        if isinstance(proof.doubt, PageTokenError):
            raise _UnfitError
        keyed = sum(each.received - each.unkeyed for each in work.scans[-1].scopes.values())
        work.settled = {"": keyed}
        written = Written(inserted=keyed, rows=keyed)
        _finish(work, connection, written, now, proof.doubt, pair.current)

    try:
        work.write(do, late=True)
    except (_UnfitError, UniqueViolation):
        work.scans, work.ordinal = [], 0
        return False
    _look_once(work)
    return True


def _finish(
    work: Work,
    connection: Connection,
    written: Written,
    now: datetime,
    doubt: CallflowError | None,
    seen: Any,
) -> None:
    """The end of a run, in the transaction of its changes. `seen` is the table of what it saw."""
    run, last = work.run, work.scans[-1]
    run.status, run.error_kind, run.error = "complete", None, None
    if doubt is not None:
        ended = isinstance(doubt, IncompleteError | UnreachableRowsError)
        run.status = "incomplete" if ended else "failed"
        run.error_kind, run.error = doubt.kind, work.job.redact.message(str(doubt))
        run.retry_at = _retry_at(doubt)
    staged = sum(work.settled.values())
    _count_requests(run, work.http)
    run.records = staged + sum(scope.unkeyed for scope in last.scopes.values())
    run.rejected, run.warnings = last.rejected, last.warnings
    run.inserted, run.updated, run.deleted = written.inserted, written.updated, written.deleted
    run.unchanged = staged - run.inserted - run.updated
    run.rows_written = written.rows
    rows = work.rows + run.inserted - run.deleted
    run.absent = rows - staged if run.mode == "full" and doubt is None else 0
    outcome = Outcome(rows, now if written.rows else None)
    if doubt is None:
        outcome = Outcome(
            rows,
            outcome.changed_at,
            _marks(work, connection, seen),
            run.started_at,
            full=run.mode == "full",
            newest_first=_newest_first(work) if run.mode == "full" else None,
        )
    runs.finish(connection, run, outcome)


def _marks(work: Work, connection: Connection, seen: Any) -> Marks:
    """The watermarks of a proven run.

    A scope that was read in several answers which are not anchored to each other keeps the one that
    it had: what changed while it was read may have been missed, and be older than its newest row.
    """
    stream, former = work.job.stream, work.former.watermarks
    newest: dict[str, datetime] = {}
    if stream.modified:
        newest = runs.watermarks(connection, seen, work.run.source, stream.modified, stream.scope)
    marks: dict[str, datetime | None] = {}
    for name, scope in work.scans[-1].scopes.items():
        times = [newest.get(name)]
        if work.run.mode == "incremental":
            times.append(former.get(name))
        if stream.changes != "since" or scope.anchored or scope.pages == 1:
            marks[name] = max((time for time in times if time), default=None)
        elif name in former:
            marks[name] = former[name]
    return marks


def _newest_first(work: Work) -> bool:
    last = work.scans[-1]
    return last.newest_first and last.newest != last.oldest


def _look_once(work: Work) -> None:
    """Read what was written, so that its hint bits are set while its pages are fresh.

    The next reader need not rewrite them then (with data checksums that is WAL: 68 MB for 200,000
    rows were seen in a run without changes). The run is committed: no error matters any more.
    """
    if work.run.rows_written:
        with contextlib.suppress(DBAPIError, StoppedError):
            for pair in work.pairs:
                work.read(partial(runs.count, source=work.run.source, table=pair.current))


def _release(job: Job, lease: Lease | None) -> None:
    if lease is not None:
        # It ends by itself; what went wrong before says more.
        with contextlib.suppress(Exception), another_transaction(job) as connection:
            leases.release(connection, lease)


def _count_requests(run: Run, http: Http) -> None:
    run.requests, run.retries = http.requests, http.retries
    run.throttled_seconds = round(http.throttled_seconds, 3)


def _retry_at(error: CallflowError) -> datetime | None:
    """When the provider may be asked again, where it asks for a longer wait than a run makes."""
    wait = error.wait if isinstance(error, UnavailableError) else None
    return None if wait is None else datetime.now(UTC) + timedelta(seconds=min(wait, _LONG))


def _record_failure(job: Job, run: Run, lease: Lease | None, error: CallflowError) -> None:
    """Record what went wrong; in etl.streams only as long as the lease is ours."""
    run.status = "busy" if isinstance(error, BusyError | LeaseLostError) else "failed"
    # A COMMIT that failed wrote none of what was counted for it.
    run.inserted = run.updated = run.unchanged = run.deleted = run.rows_written = run.absent = 0
    run.error_kind, run.error = error.kind, job.redact.message(str(error))
    run.reason, run.retry_at = run.reason and job.redact.message(run.reason), _retry_at(error)
    try:
        with _plain_errors(job), another_transaction(job) as connection:
            _led(job, connection)
            if lease is not None and run.status == "failed":
                leases.renew(connection, lease)
            runs.finish(connection, run)
    except LeaseLostError as lost:
        _record_failure(job, run, None, lost)
    except StoppedError:
        raise
    except Exception:  # noqa: BLE001 - nowhere to record it; the caller reports the run
        run.finished_at = datetime.now(UTC)

"""The end of a run: what it records, and whether it was complete, and if not, why."""

import contextlib
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from etl.errors import (
    BusyError,
    CallflowError,
    IncompleteError,
    LeaseLostError,
    NotAvailableError,
    StoppedError,
    UnavailableError,
    UnreachableRowsError,
    internal,
)
from etl.load import lease as leases
from etl.load import runs
from etl.load.lease import Lease
from etl.load.merge import Written
from etl.load.runs import Marks, Outcome, Run, Status
from etl.load.stage import Staged
from etl.load.transaction import StopWatcher, brief_transaction
from etl.providers.declare import on_absent, scopes
from etl.sync.available import IN_A_ROW, Before, ended, excuse
from etl.sync.context import RunContext, Tally
from etl.sync.job import Job
from etl.sync.lease import require_lead
from etl.sync.plan import Plan
from etl.sync.proof import Scan
from etl.warehouse.denied import suggest_grants

_LONG = timedelta(days=32).total_seconds()  # no limit of a provider is reset later


@dataclass(frozen=True, slots=True)
class Result:
    """What a run that came to its end did, as its last transaction knows it.

    `scan`   the last scan.
    `staged` scope → the records that it saw, each once.
    `now`    instant of the changes (UTC).
    `incomplete_because` why it may have missed something; None if it saw everything.
    """

    plan: Plan
    scan: Scan
    staged: Mapping[str, Staged]
    written: Written
    now: datetime
    incomplete_because: CallflowError | None


def record_end(connection: Connection, context: RunContext, result: Result) -> Run:
    """Record the run in the transaction of its changes; return it as recorded."""
    excused = _excuse(connection, context, result)
    if excused is not None:
        result = replace(result, incomplete_because=excused)
    because, written, is_full = result.incomplete_because, result.written, _is_full(result)
    rows = context.rows + written.inserted - written.deleted
    staged = sum(each.records for each in result.staged.values())
    run = replace(
        _run_so_far(context.job, context.tally),
        status="complete",
        mode=result.plan.mode,
        reason=result.plan.reason,
        records=staged + sum(scope.unkeyed for scope in result.scan.scopes.values()),
        rejected=result.scan.rejected,
        warnings=result.scan.warnings,
        inserted=written.inserted,
        updated=written.updated,
        deleted=written.deleted,
        unchanged=staged - written.inserted - written.updated,
        rows_written=written.rows,
        absent=rows - staged if is_full else 0,
    )
    outcome = Outcome(rows, result.now if written.rows else None)
    if because is not None:
        run = _not_complete(run, context.job, because)
        return runs.finish(connection, run, outcome, context.job.settings.provider)
    outcome = replace(
        outcome,
        marks=_watermarks(context, result),
        read_at=run.started_at,
        full=is_full,
        newest_first=_came_newest_first(result.scan) if is_full else None,
        known_since=_known_since(context, result.now),
    )
    return runs.finish(connection, run, outcome, context.job.settings.provider)


def _known_since(context: RunContext, now: datetime) -> Mapping[str, datetime] | None:
    """Return since when changes are news, per scope; None if all that was known before."""
    known = context.previous.known_since
    read = scopes(context.job.settings, context.job.stream) or ("",)
    new = {scope: now for scope in read if scope not in known}
    return {**known, **new} if new else None


def _excuse(
    connection: Connection, context: RunContext, result: Result
) -> NotAvailableError | None:
    """Return that the list is not there to be read, if that is what its first answer means."""
    job, because = context.job, result.incomplete_because
    stream, here = job.stream, (job.source, job.stream.name)
    if not (stream.optional or stream.ended):
        return None
    if because is not None and because is result.scan.incomplete_because:
        if context.tally.pages or result.scan.pages:
            return None
        before = Before(
            runs.past(connection, *here, IN_A_ROW - 1), runs.last_success(connection, *here)
        )
        return excuse(stream, because, where=job.name, before=before)
    was_emptied = context.rows > 0 and not result.scan.received
    is_whole = result.plan.mode == "full" or stream.changes != "since"
    is_sure = because is None or because.kind == "safety_stop"
    if stream.ended and was_emptied and is_whole and is_sure and not job.accept_deletes:
        delete = f"if its rows should go too, `callflow sync {job.source} --full --accept-deletes`"
        kept = on_absent(job.settings, stream) == "keep"
        reason = "its list is empty, and was not before"
        return ended(stream, reason, where=job.name, advice="" if kept else delete)
    return None


def _is_full(result: Result) -> bool:
    """Whether the run saw the whole list, and is proven to."""
    return result.plan.mode == "full" and result.incomplete_because is None


def _not_complete(run: Run, job: Job, because: CallflowError) -> Run:
    """Return a run that did not see its whole list, or not with a proof."""
    status: Status = "failed"
    if isinstance(because, IncompleteError | UnreachableRowsError):
        status = "incomplete"
    elif isinstance(because, NotAvailableError):
        status = "not_available"
    return replace(
        run,
        status=status,
        error_kind=because.kind,
        error=job.redact.message(str(because)),
        retry_at=_retry_at(because),
    )


def _run_so_far(job: Job, tally: Tally) -> Run:
    """Return the run with what is known of it whatever happens."""
    http = tally.http
    return Run(
        tally.run_id,
        job.source,
        job.stream.name,
        tally.plan.mode,
        tally.started_at,
        reason=tally.plan.reason,
        pages=tally.pages,
        watermark_before=tally.watermark_before,
        requests=http.budget.requests if http else 0,
        retries=http.budget.retries if http else 0,
        throttled_seconds=round(http.budget.throttled, 3) if http else 0.0,
    )


def _watermarks(context: RunContext, result: Result) -> Marks | None:
    """Return the watermarks of a proven run; None if the list has no modification times.

    A scope that was read in several answers which are not anchored to each other keeps its previous
    watermark: what changed while it was read may have been missed, and be older than its newest
    row.
    """
    stream, previous = context.job.stream, context.previous.watermarks
    if stream.modified is None:
        return None
    marks: dict[str, datetime | None] = {}
    for name, scope in result.scan.scopes.items():
        times = [result.staged[name].newest if name in result.staged else None]
        if result.plan.mode == "incremental":
            times.append(previous.get(name))
        if stream.changes != "since" or scope.anchored or scope.pages == 1:
            marks[name] = max((time for time in times if time), default=None)
        elif name in previous:
            marks[name] = previous[name]
    return marks


def _came_newest_first(scan: Scan) -> bool:
    """Whether the list came newest first; a list of one time only proves nothing."""
    return scan.newest_first and scan.newest != scan.oldest


def set_hint_bits(context: RunContext, run: Run) -> None:
    """Read what was written, so that its hint bits are set while its pages are fresh.

    Otherwise the next reader rewrites those pages. With data checksums that is WAL: 68 MB for
    200,000 rows were seen in a run without changes. Without them it is not, and the next run, which
    reads them anyway, sets the bits. The run is committed, so errors do not matter any more.
    """
    if run.rows_written:
        with contextlib.suppress(DBAPIError, StoppedError):
            context.database.read(_read_if_logged, context)


def _read_if_logged(connection: Connection, context: RunContext) -> None:
    settings = ("data_checksums", "wal_log_hints")
    if "on" in connection.execute(select(*map(func.current_setting, settings))).one():
        for pair in context.tables:
            runs.count(connection, context.job.source, pair.current)


def record_failure(
    job: Job, tally: Tally, watcher: StopWatcher, lease: Lease | None, error: CallflowError
) -> Run:
    """Record a run that broke off; in etl.streams only while its lease is ours.

    A dry run is not recorded. If the failure cannot be recorded either, the caller still gets the
    run. Raises StoppedError when the run should stop, or its daemon does not lead any more.
    """
    run = replace(
        _run_so_far(job, tally),
        status="busy" if isinstance(error, BusyError | LeaseLostError) else "failed",
        error_kind=error.kind,
        error=job.redact.message(str(error)),
        reason=tally.plan.reason and job.redact.message(tally.plan.reason),
        retry_at=_retry_at(error),
    )
    if job.dry_run:
        return replace(run, finished_at=datetime.now(UTC))
    try:
        with translate_run_errors(job), brief_transaction(job.engine, watcher) as connection:
            require_lead(job, connection)
            if lease is not None and run.status == "failed":
                leases.renew(connection, lease)
            return runs.finish(connection, run, provider=job.settings.provider)
    except LeaseLostError as lost:
        return record_failure(job, tally, watcher, None, lost)
    except StoppedError:
        raise
    except Exception:  # noqa: BLE001 - there is nowhere to record it; the caller reports the run
        return replace(run, finished_at=datetime.now(UTC))


@contextlib.contextmanager
def translate_run_errors(job: Job) -> Iterator[None]:
    """Turn what a run meets in the database, and a lack of memory, into errors that give advice.

    A missing right is named with the SQL that gives it. After a MemoryError, let go of what filled
    the memory. Raises CallflowError.
    """
    try:
        with suggest_grants(job.engine, job.name, job.redact):
            yield
    except MemoryError as error:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        raise internal(error, job.name) from None


def _retry_at(error: CallflowError) -> datetime | None:
    """Return when the provider may be asked again (UTC), if it asked for longer than runs wait."""
    wait = error.wait if isinstance(error, UnavailableError) else None
    return None if wait is None else datetime.now(UTC) + timedelta(seconds=min(wait, _LONG))

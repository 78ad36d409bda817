"""The spine: one run of one stream, from the lease to the watermark.

    take the lease
    plan      the whole list, or only what changed?                                    plan.py
    read      page → transform → COPY into staging, until all was provably seen        scan.py
    judge     records that were not listed: are they deleted?                          unlisted.py
    merge     one transaction: differing rows, history, deletes, watermark, the run
    release   the lease

A run that cannot prove that it saw the whole list still adds and updates rows; it deletes none,
moves no watermark, and is not complete. A stream without rows may take a shorter way
(first_load.py).

A dry run is one transaction that is never committed, on its own staging tables. It holds the
lease like any other run, reports what it has done (foresee.py), and is rolled back.
"""

import uuid
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection

from etl.config.settings import secrets
from etl.errors import CallflowError, StoppedError, internal
from etl.load import checkpoint, merge, runs, stage, unlisted
from etl.load import lease as leases
from etl.load.runs import Run
from etl.load.stage import Staged
from etl.load.transaction import LeasedConnection, StopWatcher, never_committed
from etl.sync.context import RunContext, Tally, look_around
from etl.sync.details import complete_records, drop_outdated
from etl.sync.finish import Result, record_end, record_failure, set_hint_bits, translate_run_errors
from etl.sync.first_load import load_directly
from etl.sync.foresee import foresee, look_ahead
from etl.sync.job import Job, Reached
from etl.sync.lease import release_lease, take_lease
from etl.sync.outlook import Outlook
from etl.sync.plan import Plan, choose_plan
from etl.sync.proof import rejected
from etl.sync.resume import prepare_staging
from etl.sync.scan import Reading, RunningScan, count_asked_for, read, start_scan
from etl.sync.unlisted import Known, Verdict, judge_unlisted, read_known, settled, stage_found


def run_stream(job: Job) -> Run:
    """Bring one stream up to date; return the run as `etl.runs` records it.

    Whatever goes wrong is in its `status`, `error_kind` and `error`, unforeseen errors too. Raises
    only StoppedError: when `job.stopped()`, or when the daemon of `job.leader` does not lead.
    """
    job = replace(job, redact=job.redact.apart(secrets(job.settings)))
    tally, lease = Tally(job.run_id or uuid.uuid4().hex, datetime.now(UTC)), None
    with closing(StopWatcher(job.stopped)) as watcher:
        try:
            with translate_run_errors(job), job.engine.connect() as connection:
                lease = take_lease(job, connection, watcher)
                database = LeasedConnection(
                    job.engine, connection, lease, tally.run_id, watcher, job.clock, job.sleep,
                    dry=job.dry_run,
                )  # fmt: skip
                whole = never_committed(connection) if job.dry_run else nullcontext()
                with whole, job.connect() as http:
                    tally.http = http
                    return _sync(look_around(job, database, http, tally))
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - the runs of other streams must go on
            failure = error if isinstance(error, CallflowError) else internal(error, job.name)
            return record_failure(job, tally, watcher, lease, failure)
        finally:
            if lease is not None:
                release_lease(job, watcher, lease)


def _sync(context: RunContext) -> Run:
    """Plan, and load the list straight into its table or by way of the staging tables."""
    job, tally = context.job, context.tally
    every = job.settings.schedule.full_every
    plan = tally.plan = choose_plan(
        job.stream, context.previous, asked_full=job.full, full_every=every
    )
    plan, interrupted = prepare_staging(context, plan)
    tally.plan = plan
    loaded = None if job.dry_run else load_directly(context, plan)
    if isinstance(loaded, Run):
        run = loaded
    elif interrupted is not None:
        running = start_scan(context, plan, plan.request, interrupted)
        run = _stage_and_merge(context, plan, running)
    else:
        run = _stage_and_merge(context, plan, loaded)
    if not job.dry_run:
        set_hint_bits(context, run)
    return run


def _stage_and_merge(context: RunContext, plan: Plan, running: RunningScan | None) -> Run:
    """Read, judge and merge; `running` is a scan that has started already."""
    job, database, tally = context.job, context.database, context.tally
    known = read_known(context)
    if known.unreadable:
        count = len(known.unreadable)
        plan = tally.plan = plan.noting(f"{count} rows of etl.absences cannot be read")
    reading = read(context, plan, known.keys, running=running)
    if plan.mode == "incremental" and reading.may_have_moved:
        plan = tally.plan = Plan("full", reading.why_unproven(job.redact))
        reading = read(context, plan, known.keys, earlier=reading.scans)
    job.on_progress(Reached("proving", reading.last.received))
    starts, stream = reading.proof.starts, job.stream
    with job.span("stage"):
        drop_outdated(context, starts)
        staged = database.write(
            stage.deduplicate, context.tables, starts, stream.scope, stream.modified
        )
        staged, details = complete_records(context, staged, reading.last)
    verdict = Verdict(incomplete_because=details)
    if plan.mode == "full" and reading.is_proven and details is None:
        with job.span("judge"):
            verdict = judge_unlisted(context, reading.last, known.unlisted)
    if verdict.found:
        staged, rows = database.write(stage_found, context, verdict.found, reading.last.end)
        count_asked_for(context, reading.last, rows)
        staged, details = complete_records(context, staged, reading.last)
        because = details or rejected(reading.last, job.name)
        if because is not None:
            verdict = replace(verdict, deleted=(), incomplete_because=because)
    records, outlook = sum(e.records for e in staged.values()), look_ahead(context, verdict)
    job.on_progress(Reached("merging", records))
    with job.span("merge"):
        return database.write(_merge, context, plan, known, reading, verdict, staged, outlook)


def _merge(
    connection: Connection,
    context: RunContext,
    plan: Plan,
    known: Known,
    reading: Reading,
    verdict: Verdict,
    staged: Mapping[str, Staged],
    outlook: Outlook,
) -> Run:
    """Write what differs, what becomes of unlisted records, and the run: all of it or nothing."""
    job, pairs, stream = context.job, context.tables, context.job.stream
    if job.dry_run:  # until it is rolled back, no other run may wait for the rows it has locked
        leases.renew(connection, context.database.lease)
    records = sum(each.records for each in staged.values())
    now = runs.instant(connection, context.previous.latest)
    written = merge.merge(
        connection,
        job.source,
        pairs,
        verdict.deleted,
        now,
        looked_up=records * merge.FEW < context.rows,
        many=min(records // merge.FEW, merge.MANY),
        log=context.log,
    )
    unlisted.note(
        connection,
        job.source,
        stream.name,
        context.tally.run_id,
        unlisted=verdict.noted,
        settled=settled(known, reading, plan, verdict),
        unreadable=known.unreadable,
    )
    because = reading.proof.incomplete_because or verdict.incomplete_because
    result = Result(plan, reading.last, staged, written, now, because)
    run = record_end(connection, context, result)
    if job.dry_run:
        foresee(connection, context, outlook, now)
    if stream.resumable:
        checkpoint.forget(connection, job.source, stream.name)
    stage.clear(connection, pairs)
    return run

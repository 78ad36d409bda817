"""Scan a stream's list into staging, as often as it takes to prove that all of it was seen."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection

from etl.config.redact import Redactor
from etl.errors import ContractError, MissingError, PageTokenError, ProviderError
from etl.extract.budget import Budget
from etl.extract.decode import Packed
from etl.extract.page import Page, ScanRequest
from etl.load import checkpoint, merge, rejects, stage
from etl.load.checkpoint import Checkpoint
from etl.load.stage import TablePair
from etl.providers.declare import request as requested
from etl.providers.declare import zone_of
from etl.sync.context import RunContext
from etl.sync.job import Reached
from etl.sync.plan import Plan
from etl.sync.prefetch import prefetch
from etl.sync.proof import Known, Proof, Scan, prove
from etl.sync.resume import can_resume, digest, state_of
from etl.transform.exact import are_structs
from etl.transform.rows import Reject, Rows
from etl.warehouse import tables

SCANS = 3
"""How often a whole list is scanned in one run before the run ends without a proof."""

RESTARTS = 3
"""How often scans of one run start again because their page token was refused."""

MAX_WAIT = 1.0
"""Seconds after which the pages of a slow provider are staged even if there are few, so that a
killed scan can resume from there."""

PART = 1 << 20
"""Bytes of records that are decoded together, of a page that is too large to be decoded at once;
and at most a thousand records."""

AHEAD = 2
"""Pages that are fetched ahead beyond a batch, so that the provider is asked for more while a batch
is copied."""

ROOM = 2 << 20
"""Bytes of answers whose pages may wait while the next page is fetched. In memory, decoded pages
take up to three times that, in every run of a process."""

Batch = Sequence[tuple[Page, Rows]]
"""Pages without their records, and the rows that these became."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The scans of a run, the last of which is the one that counts, and what they prove."""

    scans: Sequence[Scan]
    proof: Proof

    @property
    def last(self) -> Scan:
        """Return the last scan."""
        return self.scans[-1]

    @property
    def is_proven(self) -> bool:
        """Whether all of the list was seen."""
        return self.proof.incomplete_because is None

    @property
    def may_have_moved(self) -> bool:
        """Whether the list was read to its end, but may have moved meanwhile."""
        because = self.proof.incomplete_because
        return because is not None and because.kind == "incomplete_scan"

    def why_unproven(self, redact: Redactor) -> str:
        """Return what speaks against the proof, as the reason for another scan."""
        because = self.proof.incomplete_because
        return redact.message(f"{because.where}: {because.what}") if because else ""


@dataclass(frozen=True, slots=True)
class RunningScan:
    """A scan under way: `scan` counts what the batches taken from `batches` held."""

    scan: Scan
    batches: Generator[Batch]


def start_scan(context: RunContext, plan: Plan, request: ScanRequest, scan: Scan) -> RunningScan:
    """Return a scan that reads as its batches are taken.

    `scan` is empty, or what the interrupted scan saw that `request` resumes. Batches come a page
    at a time, with no page fetched ahead, if the scan may end early.
    """
    size = context.job.stream.batch
    size, depth = (1, 0) if _may_end_early(context, plan) else (size, size + AHEAD)
    return RunningScan(scan, batches(context, request, scan, size=size, depth=depth))


def read(
    context: RunContext,
    plan: Plan,
    known: Known,
    *,
    earlier: Sequence[Scan] = (),
    running: RunningScan | None = None,
) -> Reading:
    """Scan into staging until the list is proven to have been seen whole, or cannot be.

    A full scan is repeated up to SCANS times, an incremental one is not. `earlier` are scans that
    this run made before, `running` is one that it has started.
    """
    job, scans, whole = context.job, [*earlier], 0
    request = plan.request
    while True:
        if running is None:
            start = scans[-1].end if scans else 0
            running = start_scan(context, plan, request, Scan(start, len(scans) + 1))
        with job.span("extract"):
            _stage(context, plan, running)
        scans.append(running.scan)
        running, request = None, replace(request, resume=None, pages=0)
        if _token_was_refused(scans[-1]) and sum(map(_token_was_refused, scans)) <= RESTARTS:
            continue
        with job.span("prove"):
            proof = prove(scans, known, counted=job.stream.counted, where=job.name)
        reading, whole = Reading(scans, proof), whole + 1
        if not reading.may_have_moved or plan.mode == "incremental" or whole == SCANS:
            return reading


def _token_was_refused(scan: Scan) -> bool:
    return isinstance(scan.incomplete_because, PageTokenError)


def batches(
    context: RunContext, request: ScanRequest, scan: Scan, *, size: int, depth: int
) -> Generator[Batch]:
    """Read the list and yield it transformed; count in `scan` what came.

    It may take as long as the source's `scan_deadline`. A batch has `size` pages, or those that
    came within MAX_WAIT seconds; a page that is too large to be held at once comes in parts, each a
    batch. A batch is emptied when the next one is asked for. Up to `depth` pages are fetched ahead,
    but none while those that wait fill the ROOM.
    An error of the provider ends the scan and is kept in it: what came before is true.
    """
    job = context.job
    batch: list[tuple[Page, Rows]] = []
    since, pages_before = job.clock(), scan.pages
    context.http.budget.allow(job.settings.scan_deadline.total_seconds())
    try:
        asked = requested(job.settings, job.stream, request)
        pages = job.stream.pages(context.http, asked)
        ahead = prefetch(
            _with_bytes(pages, context.http.budget),
            depth=depth,
            tick=context.database.keep_lease,
            size=itemgetter(1),
            room=ROOM,
        )
        with closing(ahead):
            for page, _ in ahead:
                for number, part in enumerate(_parts(page)):
                    if part.part and batch:
                        yield batch
                        batch.clear()
                    rows = job.stream.transform(part, scan.end)
                    _count(context, asked, scan, part, rows, more=number > 0)
                    batch.append((replace(part, records=[]), rows))
                    del rows
                is_alone = part.part
                del page, part  # they may be large, and the next one is on its way
                if is_alone or len(batch) == size or job.clock() - since > MAX_WAIT:
                    yield batch
                    batch.clear()
                    since = job.clock()
    except ProviderError as error:
        scan.incomplete_because = error
        unread = scan.pages == pages_before and isinstance(error, ContractError | MissingError)
        if request.resume is not None and unread:
            scan.incomplete_because = PageTokenError(
                f"the kept page token is not accepted any more: {error.what}",
                where=error.where,
                advice=error.advice,
            )
    if batch:
        yield batch


def _count(
    context: RunContext, request: ScanRequest, scan: Scan, page: Page, rows: Rows, *, more: bool
) -> None:
    """Count a page, or with `more` a further part of one, that became `rows`."""
    job, stream = context.job, context.job.stream
    records = stream.tables[0]
    found = rows.tables[records.fullname]
    width = len(tables.key_columns(records))
    keys = [row[2 : 2 + width] for row in found] if stream.counted else []
    scan.add(page, rows, len(found), keys, partial=page.scope in request.since, more=more)
    _note_reject(context, scan, rows)
    if stream.changes == "newest first" and stream.modified is not None:
        modified = 2 + tables.data_columns(records).index(stream.modified)
        scan.order([row[modified] for row in found])
    context.tally.pages += not more
    job.on_progress(Reached("reading", *scan.reached(len(request.scopes)), scan.number))


def count_asked_for(context: RunContext, scan: Scan, rows: Rows) -> None:
    """Count in `scan` what could not be read of records that were asked for one by one."""
    scan.rejected += len(rows.rejects)
    scan.warnings += rows.warnings
    _note_reject(context, scan, rows)


def _note_reject(context: RunContext, scan: Scan, rows: Rows) -> None:
    if rows.rejects and not scan.reject:
        scan.reject = context.job.redact(rows.rejects[0].reason)


def _with_bytes(pages: Iterator[Page], budget: Budget) -> Iterator[tuple[Page, int]]:
    """Yield each page with the bytes of the answers that were read for it."""
    before = budget.received
    for page in pages:
        now = budget.received
        yield page, now - before
        before = now
        del page  # it may be large, and the next one is on its way


def _parts(page: Page) -> Iterator[Page]:
    """Yield `page`, or the parts in which it can be held: the last one has its next pointer."""
    if are_structs(page) or not any(isinstance(record, Packed) for record in page.records):
        yield page
        return
    part: list[Any] = []
    room = PART
    for record in page.records:
        if part and room < len(record):
            yield replace(page, records=part, next_pointer=None, part=True)
            part, room = [], PART
        part.append(record)
        room -= max(len(record), PART // 1000)
    yield replace(page, records=part, part=True)


def _stage(context: RunContext, plan: Plan, running: RunningScan) -> None:
    """Take the scan's batches to its end and stage them, with a checkpoint if it can be resumed."""
    job, database = context.job, context.database
    ends_early, keeps = _may_end_early(context, plan), can_resume(job, plan)
    settings = digest(job) if keeps else ""
    staged = database.read(stage.size, context.tables[0]) if keeps else 0
    with closing(running.batches):
        for batch in running.batches:
            following, saved = batch[-1][0].next_pointer, None
            staged += len(rows_of(batch, context.tables[0]))
            if keeps and following and running.scan.incomplete_because is None:
                saved = Checkpoint(settings, following, state_of(running.scan), staged)
            database.stage(_stage_batch, context, batch, saved)
            if ends_early and _is_nothing_new(context, running.scan, batch):
                break


def _stage_batch(
    connection: Connection, context: RunContext, batch: Batch, saved: Checkpoint | None
) -> None:
    for pair in context.tables:
        stage.copy(connection, pair.stage, rows_of(batch, pair))
    keep_rejects(connection, context, rejects_of(batch))
    if saved is not None:
        checkpoint.save(connection, context.job.source, context.job.stream.name, saved)


def stage_records(
    connection: Connection,
    context: RunContext,
    records: Sequence[object],
    ordinal: int,
    scope: str = "",
) -> Rows:
    """Stage records of one scope that were asked for one by one; the first one has `ordinal`.

    Return their rows, and what of them became none.
    """
    page = Page(list(records), 1, scope, zone=zone_of(context.job.settings))
    rows = context.job.stream.transform(page, ordinal)
    for pair in context.tables:
        stage.copy(connection, pair.stage, rows.tables[pair.current.fullname])
    keep_rejects(connection, context, rows.rejects)
    return rows


def _may_end_early(context: RunContext, plan: Plan) -> bool:
    return plan.mode == "incremental" and context.job.stream.changes == "newest first"


def _is_nothing_new(context: RunContext, scan: Scan, batch: Batch) -> bool:
    """Whether a whole page held only known, unchanged rows that reach back before the watermark.

    What follows is older still, and the run that moved the watermark has seen it.
    """
    mark, pair = context.previous.watermark, context.tables[0]
    page, rows = batch[-1]
    found = rows.tables[pair.current.fullname]
    if not found or page.part or not scan.newest_first or rows.rejects or mark is None:
        return False
    if scan.oldest is None or scan.oldest >= mark:
        return False
    return not context.database.read(merge.differs, context.job.source, pair, found[0][0])


def rows_of(batch: Batch, pair: TablePair) -> list[tuple[Any, ...]]:
    """Return a batch's rows of one table."""
    return [row for _, rows in batch for row in rows.tables[pair.current.fullname]]


def rejects_of(batch: Batch) -> list[Reject]:
    """Return a batch's rejects."""
    return [reject for _, rows in batch for reject in rows.rejects]


def keep_rejects(connection: Connection, context: RunContext, found: Sequence[Reject]) -> None:
    """Keep rejects in the open transaction; their reasons quote the provider, and are redacted."""
    job = context.job
    clean = (replace(each, reason=job.redact.message(each.reason)) for each in found)
    rejects.keep(connection, job.source, job.stream.name, context.database.run_id, clean)

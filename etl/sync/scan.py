"""Scanning a stream's list into staging, as often as it takes to prove that all of it was seen.

A scan that was killed goes on where it was, if the provider's pointer to the next page can be kept
(`Stream.resumable`): every batch is committed together with its checkpoint.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import msgspec
from sqlalchemy import Connection

from etl import __version__
from etl.errors import ContractError, PageTokenError, ProviderError
from etl.extract.decode import Packed
from etl.extract.page import WHOLE, Ask, Page
from etl.extract.verdict import MissingError
from etl.load import checkpoint, merge, runs, stage
from etl.load.checkpoint import Checkpoint
from etl.load.stage import Staged
from etl.providers.declare import request
from etl.sync.job import Work
from etl.sync.prefetch import ahead
from etl.sync.proof import Known, Proof, Scan, Scope, prove
from etl.transform.rows import Reject, Rows
from etl.warehouse import tables

SCANS = 3
"""How often a whole list is scanned in one run before the run ends without a proof."""

RESTARTS = 3
"""How often a scan begins anew in one run because its page token was refused."""

MAX_WAIT = 1.0
"""Seconds after which the pages of a slow provider are staged, be they few: a killed scan goes on
from there."""

PART = 1 << 20
"""Bytes of records that are decoded together, of a page that is too large to be decoded at once;
and a thousand records at most."""

ROOM = 8 << 20
"""Bytes of such pages that may wait while another one is asked for."""

Batch = Sequence[tuple[Page, Rows]]


def prepare(work: Work, ask: Ask) -> Ask:
    """Empty the staging tables; or keep what a killed scan left there, and ask for the rest."""

    run = work.run

    def do(connection: Connection) -> tuple[Checkpoint | None, _Saved | None]:
        saved: Checkpoint | None = None
        if _can_resume(work):
            settings = _digest(work)
            saved = checkpoint.find(connection, run.source, run.stream, settings, work.pairs[0])
        state = _read(saved.state) if saved else None
        if state is None:
            if work.job.stream.resumable:
                checkpoint.forget(connection, run.source, run.stream)
            stage.prepare(connection, work.pairs)
        return saved, state

    saved, state = work.write(do)
    if saved is None:
        return ask
    if state is None:
        run.reason = f"{run.reason}; what etl.checkpoints holds of a scan cannot be read"
        return ask
    work.scans, work.ordinal = [_restored(state)], state.ordinal
    pages = state.pages
    run.reason = f"{run.reason}; goes on after page {pages} of a scan that was cut off"
    return replace(ask, resume=saved.following, pages=pages)


def read(work: Work, ask: Ask, known: Known) -> Proof:
    """Scan until the list is proven to have been seen whole; the proof, or what speaks against it.

    An incremental scan that cannot be proven is followed by full ones in the same run.
    """
    job, run = work.job, work.run
    restarts = scans = 0
    while True:
        scan = _scan(work, ask)
        ask = replace(ask, resume=None, pages=0)
        if isinstance(scan.doubt, PageTokenError) and restarts < RESTARTS:
            restarts += 1
            continue
        proof = prove(work.scans, known, counted=job.stream.counted, where=job.name)
        if proof.doubt is None or proof.doubt.kind != "incomplete_scan":
            return proof
        if run.mode == "incremental":
            reason = job.redact.message(f"{proof.doubt.where}: {proof.doubt.what}")
            run.mode, run.reason, ask = "full", reason, WHOLE
            continue
        scans += 1
        if scans == SCANS:
            return proof


def batches(work: Work, ask: Ask, *, size: int, depth: int = 3) -> Iterator[Batch]:
    """One scan of the list, transformed; the last of `work.scans` tells what it saw.

    It may take as long as the source's `scan_deadline`. It comes `size` pages at a time, or as many
    as there are after MAX_WAIT seconds; a page that is too large to be held at once comes in parts,
    and alone. A batch is emptied when the next one is asked for. Up to `depth` pages are asked for
    ahead. An error of the provider ends the scan and is kept as its doubt: what came before is
    true.
    """
    job, stream = work.job, work.job.stream
    if ask.resume is None:
        work.scans.append(Scan(begin=work.ordinal))
    scan, before = work.scans[-1], work.run.pages
    transform, records = stream.transform, stream.tables[0]
    width = len(tables.key_columns(records))
    columns = tables.data_columns(records)
    modified = 2 + columns.index(stream.modified) if stream.modified else 0
    batch: list[tuple[Page, Rows]] = []
    since = job.clock()
    work.http.allow(job.settings.scan_deadline.total_seconds())
    try:
        pages = ahead(
            stream.pages(work.http, request(job.settings, stream, ask)),
            depth=depth,
            tick=work.tick,
            size=_packed,
            room=ROOM,
        )
        with closing(pages):
            for page in pages:
                for number, part in enumerate(_parts(page)):
                    if part.part and batch:
                        yield batch
                        batch.clear()
                    rows = transform(part, work.ordinal)
                    found = rows.tables[records.fullname]
                    keys = [row[2 : 2 + width] for row in found] if stream.counted else []
                    scan.add(
                        part,
                        rows,
                        len(found),
                        keys,
                        partial=page.scope in ask.since,
                        more=number > 0,
                    )
                    if rows.rejects and not scan.reject:
                        scan.reject = job.redact(rows.rejects[0].reason)
                    if stream.changes == "newest first" and modified:
                        scan.order([row[modified] for row in found])
                    work.ordinal += len(part.records)
                    work.run.pages += not number
                    job.on_page(scan.received, scan.total)
                    batch.append((replace(part, records=[]), rows))
                    del rows, found
                alone = part.part
                del page, part  # they may be large, and the next one is on its way
                if alone or len(batch) == size or job.clock() - since > MAX_WAIT:
                    yield batch
                    batch.clear()
                    since = job.clock()
    except ProviderError as error:
        scan.doubt = error
        unread = work.run.pages == before and isinstance(error, ContractError | MissingError)
        if ask.resume is not None and unread:
            scan.doubt = PageTokenError(f"the kept page token is not accepted any more: {error}")
    if batch:
        yield batch


def _packed(page: Page) -> int:
    """Bytes of a page's records that are still to be decoded."""
    return sum(len(record) for record in page.records if isinstance(record, Packed))


def _parts(page: Page) -> Iterator[Page]:
    """`page`, or the parts in which it can be held: the last one has its pointer to the next."""
    if not _packed(page):
        yield page
        return
    part: list[Any] = []
    room = PART
    for record in page.records:
        if part and room < len(record):
            yield replace(page, records=part, following=None, part=True)
            part, room = [], PART
        part.append(record)
        room -= max(len(record), PART // 1000)
    yield replace(page, records=part, part=True)


def _scan(work: Work, ask: Ask) -> Scan:
    """Scan the list into staging; an incremental scan from the newest on ends early."""
    run, stream = work.run, work.job.stream
    early = run.mode == "incremental" and stream.changes == "newest first"
    pace = {"size": 1, "depth": 0} if early else {"size": stream.batch}
    staged, settings = 0, ""
    if keeps := _can_resume(work):
        staged = work.read(lambda connection: stage.size(connection, work.pairs[0]))
        settings = _digest(work)
    begun, work.begun = work.begun, None
    for batch in begun or batches(work, ask, **pace):
        scan, following = work.scans[-1], batch[-1][0].following
        staged += len(rows_of(batch, work.pairs[0]))
        saved = None
        if keeps and following and scan.doubt is None:
            saved = Checkpoint(settings, following, _state(scan, work.ordinal), staged)

        def do(
            connection: Connection, batch: Batch = batch, saved: Checkpoint | None = saved
        ) -> None:
            for pair in work.pairs:
                stage.copy(connection, pair.stage, rows_of(batch, pair))
            runs.reject(connection, run, told(work, rejects_of(batch)))
            if saved is not None:
                checkpoint.save(connection, run.source, run.stream, saved)

        work.write(do, late=True)
        if early and _nothing_new(work, batch):
            break
    return work.scans[-1]


def _nothing_new(work: Work, batch: Batch) -> bool:
    """A whole page holds only rows that are known and unchanged, down to before the watermark.

    What follows is older still, and the run that moved the watermark has seen it.
    """
    scan, mark, pair = work.scans[-1], work.former.watermark, work.pairs[0]
    page, rows = batch[-1]
    found = rows.tables[pair.current.fullname]
    if not found or page.part or not scan.newest_first or rows.rejects or mark is None:
        return False
    if scan.oldest is None or scan.oldest >= mark:
        return False
    source, begin = work.run.source, found[0][0]
    return not work.read(lambda connection: merge.differs(connection, source, pair, begin))


def rows_of(batch: Batch, pair: Staged) -> list[tuple[Any, ...]]:
    """A batch's rows of one table."""
    return [row for _, rows in batch for row in rows.tables[pair.current.fullname]]


def rejects_of(batch: Batch) -> list[Reject]:
    """A batch's rejects."""
    return [reject for _, rows in batch for reject in rows.rejects]


def told(work: Work, rejects: Sequence[Reject]) -> list[Reject]:
    """`rejects`, whose reasons quote what the provider sent, as they are recorded."""
    redact = work.job.redact
    return [replace(each, reason=redact.message(each.reason)) for each in rejects]


def _can_resume(work: Work) -> bool:
    """Whether the run, killed, could be gone on with."""
    return work.job.stream.resumable and work.run.mode == "full"


def _digest(work: Work) -> str:
    """Of what the staged rows depend on; secrets are asterisks in it."""
    text = f"{__version__} {tables.REVISION} {work.job.settings.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _SavedScope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Scope of a list that the API does not count."""

    pages: _Count
    received: _Count
    unkeyed: _Count


class _Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What has to be known of a scan to go on with it; `ordinal` is that of the next record."""

    begin: _Count
    pages: _Count
    received: _Count
    rejected: _Count
    warnings: _Count
    newest_first: bool
    newest: _Time | None
    oldest: _Time | None
    scopes: dict[str, _SavedScope]
    ordinal: _Count


def _state(scan: Scan, ordinal: int) -> dict[str, Any]:
    """A scan as JSON."""
    scopes = {
        name: _SavedScope(scope.pages, scope.received, scope.unkeyed)
        for name, scope in scan.scopes.items()
    }
    saved = _Saved(
        scan.begin,
        scan.pages,
        scan.received,
        scan.rejected,
        scan.warnings,
        scan.newest_first,
        scan.newest,
        scan.oldest,
        scopes,
        ordinal,
    )
    state: dict[str, Any] = msgspec.to_builtins(saved)
    return state


def _read(state: Any) -> _Saved | None:
    """A saved scan; None when it is nothing that `_state` made."""
    try:
        return msgspec.convert(state, _Saved)
    except msgspec.ValidationError:
        return None


def _restored(state: _Saved) -> Scan:
    scopes = {
        name: Scope(pages=scope.pages, received=scope.received, unkeyed=scope.unkeyed)
        for name, scope in state.scopes.items()
    }
    return Scan(
        begin=state.begin,
        pages=state.pages,
        received=state.received,
        rejected=state.rejected,
        warnings=state.warnings,
        newest_first=state.newest_first,
        newest=state.newest,
        oldest=state.oldest,
        scopes=scopes,
    )

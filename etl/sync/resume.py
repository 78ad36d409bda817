"""Resume a scan that was killed, or empty the staging tables for a new one.

A scan can be resumed if the provider's pointer to the next page stays valid (`Stream.resumable`):
each batch of staged rows is committed together with a checkpoint, which holds the scan so far.
"""

import hashlib
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import msgspec
from sqlalchemy import Connection

from etl.load import checkpoint, stage
from etl.load.checkpoint import Checkpoint
from etl.sync.context import RunContext
from etl.sync.job import Job
from etl.sync.plan import Plan
from etl.sync.proof import Scan, Scope
from etl.version import __version__
from etl.warehouse import tables


def prepare_staging(context: RunContext, plan: Plan) -> tuple[Plan, Scan | None]:
    """Keep what a killed scan staged and return that scan; otherwise empty the staging tables.

    The plan that is returned asks for the rest of the scan, and says so in its reason.
    """
    saved, scan = context.database.write(_find_or_empty, context, plan)
    if saved is None:
        return plan, None
    if scan is None:
        return plan.noting("what etl.checkpoints holds of a scan cannot be read"), None
    plan = plan.noting(f"goes on after page {scan.pages} of a scan that was cut off")
    request = replace(plan.request, resume=saved.following, pages=scan.pages)
    return replace(plan, request=request), scan


def can_resume(job: Job, plan: Plan) -> bool:
    """Whether this run, if it is killed, could be resumed."""
    return job.stream.resumable and plan.mode == "full"


def digest(job: Job) -> str:
    """Return a digest of everything that staged rows depend on; secrets are asterisks in it."""
    text = f"{__version__} {tables.REVISION} {job.settings.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()


def _find_or_empty(
    connection: Connection, context: RunContext, plan: Plan
) -> tuple[Checkpoint | None, Scan | None]:
    job, parent = context.job, context.tables[0]
    saved: Checkpoint | None = None
    if can_resume(job, plan):
        saved = checkpoint.find(connection, job.source, job.stream.name, digest(job), parent)
    scan = scan_of(saved.state) if saved else None
    if scan is None:
        if job.stream.resumable:
            checkpoint.forget(connection, job.source, job.stream.name)
        stage.prepare(connection, context.tables, keep_fetched=job.stream.detail is not None)
    return saved, scan


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _SavedScope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Scope of a list that the API does not count."""

    pages: _Count
    received: _Count
    unkeyed: _Count


class _SavedScan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What has to be known of a scan to resume it."""

    start: _Count
    pages: _Count
    received: _Count
    rejected: _Count
    reject: str
    warnings: _Count
    newest_first: bool
    newest: _Time | None
    oldest: _Time | None
    scopes: dict[str, _SavedScope]


def state_of(scan: Scan) -> dict[str, Any]:
    """Return the scan as JSON, for a checkpoint."""
    saved = _SavedScan(
        start=scan.start,
        pages=scan.pages,
        received=scan.received,
        rejected=scan.rejected,
        reject=scan.reject,
        warnings=scan.warnings,
        newest_first=scan.newest_first,
        newest=scan.newest,
        oldest=scan.oldest,
        scopes={
            name: _SavedScope(scope.pages, scope.received, scope.unkeyed)
            for name, scope in scan.scopes.items()
        },
    )
    state: dict[str, Any] = msgspec.to_builtins(saved)
    return state


def scan_of(state: Any) -> Scan | None:
    """Return the scan that `state_of` wrote as `state`; None if it did not write this."""
    try:
        saved = msgspec.convert(state, _SavedScan)
    except msgspec.ValidationError:
        return None
    return Scan(
        start=saved.start,
        pages=saved.pages,
        received=saved.received,
        rejected=saved.rejected,
        reject=saved.reject,
        warnings=saved.warnings,
        newest_first=saved.newest_first,
        newest=saved.newest,
        oldest=saved.oldest,
        scopes={
            name: Scope(pages=scope.pages, received=scope.received, unkeyed=scope.unkeyed)
            for name, scope in saved.scopes.items()
        },
    )

"""Report what a run is about to do with whole records, before its last transaction commits.

A run says whom its safety stop keeps, and, under `accept_deletes`, whom it will delete. A dry run
says all that it would do: it does it, reads it back, and is rolled back.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from etl.load.merged import read_back
from etl.load.named import Listing, listing
from etl.providers.declare import name_sql
from etl.sync.context import RunContext
from etl.sync.outlook import Outlook
from etl.sync.unlisted import Verdict
from etl.warehouse.tables import Key


def look_ahead(context: RunContext, verdict: Verdict) -> Outlook:
    """Return what becomes of unlisted records; report it if the run keeps or deletes them by order.

    That is before the transaction that deletes them. A dry run reports by `foresee`.
    """
    job, table = context.job, context.tables[0].current
    is_announced = verdict.missing.total or (job.accept_deletes and verdict.deleted)
    if not (job.dry_run or is_announced):
        return Outlook()

    def of(keys: Sequence[Key]) -> Listing:
        return context.database.read(listing, job.source, table, name_sql(job.stream), keys)

    outlook = Outlook(job.dry_run, verdict.missing, of(verdict.deleted))
    if not job.dry_run:
        job.on_outlook(outlook)
        return outlook
    return replace(outlook, unlisted=of(verdict.unlisted), confirmed=of(verdict.confirmed))


def foresee(connection: Connection, context: RunContext, outlook: Outlook, now: datetime) -> None:
    """Report what the merge of the instant `now`, which will be rolled back, has done."""
    job = context.job
    merged = read_back(connection, job.source, context.tables, now, name_sql(job.stream))
    job.on_outlook(
        replace(
            outlook,
            deleted=merged.deleted,
            new=merged.new,
            changed=merged.changed,
            fields=merged.fields,
        )
    )

"""What a run is about to do with whole records, by name, before its last transaction commits.

A run says whom its safety stop keeps, and, under `accept_deletes`, whom it will delete. A dry run
says all that it would do: it does it, reads it back, and is rolled back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection

from etl.load.merged import read_back
from etl.load.named import Listing, listing
from etl.providers.declare import name_sql
from etl.sync.context import RunContext
from etl.sync.unlisted import Verdict
from etl.warehouse.tables import Key


@dataclass(frozen=True, slots=True)
class Outlook:
    """What becomes of records; those of a real run are only what is `missing` and `deleted`.

    `dry_run`   whether nothing of it is written.
    `missing`   are so many unlisted at once that the safety stop keeps them.
    `deleted`   leave their table.
    `new`, `changed` are inserted, updated; `fields` says how many are in each field.
    `unlisted`  stand in the table and not in the full scan, which is proven; `confirmed` are those
                of them that are known to be gone. They stay while another one is in doubt.
    """

    dry_run: bool = False
    missing: Listing = field(default_factory=Listing)
    deleted: Listing = field(default_factory=Listing)
    new: Listing = field(default_factory=Listing)
    changed: Listing = field(default_factory=Listing)
    fields: Mapping[str, int] = field(default_factory=dict)
    unlisted: Listing = field(default_factory=Listing)
    confirmed: Listing = field(default_factory=Listing)


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

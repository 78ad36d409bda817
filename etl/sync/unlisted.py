"""Records that a proven full scan did not list: are they deleted?

Only the provider can confirm that. Where it answers for one record, it is asked for each; where it
does not, a second proven full scan has to miss the record too.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from sqlalchemy import Connection

from etl.config.redact import Redactor
from etl.errors import CallflowError, CredentialsError, IncompleteError, ProviderError
from etl.extract.page import Lookup
from etl.load import merge, stage
from etl.load.named import Listing, Named, listing
from etl.load.stage import Staged
from etl.load.unlisted import unlisted_before
from etl.providers.declare import name_sql, on_absent
from etl.sync.context import RunContext
from etl.sync.job import Job
from etl.sync.plan import Plan
from etl.sync.prefetch import prefetch
from etl.sync.proof import Scan
from etl.sync.scan import Reading, stage_records
from etl.transform.rows import Rows
from etl.warehouse import tables
from etl.warehouse.tables import Key

SAFE_ROWS, SAFE_SHARE = 10, 0.10
"""More rows than both of these are never deleted at once without `--accept-deletes`."""

NAMED = 5
"""How many of them the message names."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the records that were not listed; those it does not name stay.

    `unlisted`           all that were not listed; `missing` names them if they are too many.
    `confirmed`          are gone; `deleted` are those that leave their table.
    `noted`              leave it if the next full scan does not list them either, if the API counts
                         its list; or are kept for being too many.
    `over`               were noted, and are not any more: they are listed again, or exist.
    `found`              exist all the same: records as the provider gave them, to be staged.
    `incomplete_because` why the run is not complete; None if it is.
    """

    deleted: Sequence[Key] = ()
    noted: Sequence[Key] = ()
    found: Sequence[object] = ()
    incomplete_because: CallflowError | None = None
    unlisted: Sequence[Key] = ()
    confirmed: Sequence[Key] = ()
    over: Collection[Key] = ()
    missing: Listing = field(default_factory=Listing)


@dataclass(frozen=True, slots=True)
class Known:
    """What the warehouse knows of a list.

    `keys`       scope → keys of the current records, if the API counts the list.
    `unlisted`   keys of those that a previous full scan did not list.
    `unreadable` what stands among the latter and is no key.
    """

    keys: Mapping[str, Collection[Key]] = field(default_factory=dict)
    unlisted: Collection[Key] = ()
    unreadable: Collection[str] = ()


def read_known(context: RunContext) -> Known:
    """Read what the warehouse knows of the list."""
    return context.database.read(_known, context.job)


def _known(connection: Connection, job: Job) -> Known:
    records, scope = job.stream.tables[0], job.stream.scope
    width = len(tables.key_columns(records))
    before, unreadable = unlisted_before(connection, job.source, job.stream.name, width)
    keys = merge.known(connection, job.source, records, scope) if job.stream.counted else {}
    return Known(keys, before.keys(), unreadable)


def settled(known: Known, reading: Reading, plan: Plan, verdict: Verdict) -> list[Key]:
    """Return the records noted as unlisted that are listed again, or are deleted now.

    Where only changes were read, the records that are known add up to the list, so all of them are
    in it. An incremental run reads a scope without a watermark whole, and does not judge there.
    """
    over = set(verdict.deleted).union(verdict.over)
    if plan.mode == "incremental" and reading.is_proven:
        partial = [name for name, scope in reading.last.scopes.items() if scope.partial]
        over.update(*(known.keys.get(name, ()) for name in partial))
    for scan in reading.scans:
        over.update(*(scope.keys for scope in scan.scopes.values()))
    return [key for key in known.unlisted if key in over]


def judge_unlisted(context: RunContext, scan: Scan, before: Collection[Key]) -> Verdict:
    """Decide about the current records that are not staged, after a proven full scan.

    `before` are the keys of those that a previous full scan did not list either.
    """
    job, stream = context.job, context.job.stream
    if on_absent(job.settings, stream) == "keep":
        return Verdict()
    scopes = list(scan.scopes) if stream.scope else []
    missing = context.database.read(merge.unlisted, job.source, context.tables[0], scopes)
    # The keys of a list without a count are not kept: what is not missing is listed.
    over = set() if stream.counted else set(before).difference(missing)
    if not missing:
        return Verdict(over=over)
    empty = [name for name, scope in scan.scopes.items() if not scope.received]
    much = is_suspicious(missing, context.rows, empty, stream.scope is not None)
    if much and not job.accept_deletes:
        current, name = context.tables[0].current, name_sql(stream)
        named = context.database.read(listing, job.source, current, name, missing)
        refused = safety_stop(named, context.rows, job.name, job.redact)
        return Verdict(
            noted=missing, unlisted=missing, over=over, missing=named, incomplete_because=refused
        )
    look_ups = _look_up(context, missing)
    answers = list(prefetch(look_ups, depth=1, tick=context.database.keep_lease))
    over |= {key for key, answer in answers if answer.state == "found" and not stream.counted}
    return replace(weigh(answers, before, counted=stream.counted, where=job.name), over=over)


Fate = Literal["delete", "note", "stage", "undecided"]

FATES: Mapping[str, tuple[Fate, Fate, Fate]] = {
    # look-up's state: if the API counts its list and the record was noted before,
    #                  if the API counts its list, if it does not
    "gone": ("delete", "delete", "delete"),
    "found": ("stage", "stage", "stage"),
    "unasked": ("delete", "note", "undecided"),
    "undecided": ("undecided", "undecided", "undecided"),
    "unreadable": ("undecided", "undecided", "undecided"),
}
"""What becomes of an unlisted record. If the API reports a total, two full scans that miss a record
are proof enough; otherwise only the provider's own answer is."""


def weigh(
    answers: Sequence[tuple[Key, Lookup]], before: Collection[Key], *, counted: bool, where: str
) -> Verdict:
    """Return the verdict on unlisted records from the provider's answers, by FATES.

    Nothing is deleted while one of them is undecided, not even what is confirmed: a later run does.
    """
    fates: dict[Fate, list[tuple[Key, Lookup]]] = {}
    for key, answer in answers:
        column = 2 if not counted else 0 if key in before else 1
        fates.setdefault(FATES[answer.state][column], []).append((key, answer))
    noted = [key for key, _ in fates.get("note", ())]
    found = [answer.record for _, answer in fates.get("stage", ())]
    gone = [key for key, _ in fates.get("delete", ())]
    undecided = _undecided(answers, where) if "undecided" in fates else None
    return Verdict(
        deleted=[] if undecided else gone,
        noted=noted,
        found=found,
        incomplete_because=undecided,
        unlisted=[key for key, _ in answers],
        confirmed=gone,
    )


def stage_found(
    connection: Connection, context: RunContext, records: Sequence[object], ordinal: int
) -> tuple[dict[str, Staged], Rows]:
    """Stage records that exist although they are not listed.

    Return what is staged per scope, and the rows of these.
    """
    rows, stream = stage_records(connection, context, records, ordinal), context.job.stream
    staged = stage.deduplicate(connection, context.tables, {}, stream.scope, stream.modified)
    return staged, rows


def is_suspicious(
    missing: Collection[Key], rows: int, empty: Collection[str], scoped: bool
) -> bool:
    """Whether this is much to delete at once: a wrong account, a lost permission, an outage.

    `rows` are in the table now; `empty` are scopes of which nothing at all was returned; `scoped`
    says that the first part of a key is its scope.
    """
    emptied = empty and (not scoped or any(key[0] in empty for key in missing))
    return bool(emptied) or len(missing) > max(SAFE_ROWS, int(rows * SAFE_SHARE))


def safety_stop(missing: Listing, rows: int, where: str, redact: Redactor) -> IncompleteError:
    """Return the error that refuses to delete suspiciously much; it names the first few.

    What is personal in a name or an id is hidden: messages are stored, and sent to webhooks.
    """
    source, _, stream = where.partition(".")
    names = [_quoted(each, redact) for each in missing.records[:NAMED]]
    if missing.total > len(names):
        names.append(f"and {missing.total - len(names):,} more")
    return IncompleteError(
        f"{missing.total} of {rows} {stream.replace('_', ' ')} of {source} were not returned; "
        f"nothing was removed: {', '.join(names)}",
        kind="safety_stop",
        where=where,
        advice=f"see all of them: `callflow show {where} --missing`; if they should be gone, run "
        f"`callflow sync {source} --full --accept-deletes`",
    )


def _quoted(record: Named, redact: Redactor) -> str:
    def of(text: str) -> str:
        return redact.name(text, 60).replace("→", "->")  # an arrow starts the advice of a message

    known = of(record.id)
    return known if record.name is None else f'"{of(record.name)}" ({known})'


def _undecided(answers: Sequence[tuple[Key, Lookup]], where: str) -> IncompleteError:
    open_ = ("unasked", "undecided", "unreadable")
    left = [answer for _, answer in answers if answer.state in open_]
    count = "1 record is" if len(left) == 1 else f"{len(left)} records are"
    return IncompleteError(
        f"{count} no longer listed, and the provider does not confirm a deletion"
        f" ({left[0].reason}); nothing was removed",
        kind="undecided",
        where=where,
        advice="let these credentials read single records, or wait for the next run",
    )


def _look_up(context: RunContext, keys: Sequence[Key]) -> Iterator[tuple[Key, Lookup]]:
    """Ask the provider for each record, until it refuses to be asked.

    All of it may take as long as a scan.
    """
    job, refused = context.job, None
    look_up = job.stream.look_up
    context.http.budget.allow(job.settings.scan_deadline.total_seconds())
    if look_up is None:
        refused = Lookup("unasked", reason="the API cannot be asked for one record")
    for key in keys:
        if look_up is None or refused is not None:
            yield key, refused or Lookup("unasked")
            continue
        try:
            yield key, look_up(context.http, key)
        except CredentialsError as error:
            refused = Lookup("unasked", reason=error.what)
            yield key, refused
        except ProviderError as error:
            yield key, Lookup("undecided", reason=error.what)

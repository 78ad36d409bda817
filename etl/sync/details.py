"""Complete the records of a list that does not hold them whole: one request for each that changed.

The list is read and proven first. What was fetched is committed every few records, and the next run
takes it over if this one is killed. A record that cannot be completed keeps its row as it was: also
one that is listed, but not found. It may have been deleted in between, which the next scan of the
list shows; no row is deleted for that. And one of which a part cannot be loaded, which is kept raw.

Parts of a record that are stored and never change are not fetched again: they are staged as they
are, in the transaction that ends all this.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final

import msgspec
from sqlalchemy import Connection

from etl.errors import (
    CallflowError,
    ContractError,
    CredentialsError,
    IncompleteError,
    ProviderError,
    UnavailableError,
)
from etl.extract.decode import Packed
from etl.extract.page import Page, Wanted
from etl.extract.verdict import IF_IT_STAYS
from etl.load import details, stage
from etl.load.stage import Staged
from etl.providers.declare import Detail, Parts, zone_of
from etl.sync.context import RunContext
from etl.sync.job import Reached
from etl.sync.prefetch import prefetch
from etl.sync.proof import Scan
from etl.sync.scan import count_asked_for, keep_rejects, stage_records
from etl.transform.rows import Reject, Rows
from etl.warehouse import tables
from etl.warehouse.tables import Key

TOGETHER, MAX_WAIT = 20, 1.0
"""Records that are staged in one transaction, and seconds after which fewer are: what was fetched
since the last one is lost if the run is killed."""

ROOM = 8 << 20
"""Bytes of records after which fewer are staged, too: they are held until then."""

Answer = tuple[Key, Packed | CallflowError, Sequence[Reject]]
"""The key of a record, the record as its JSON text or why it could not be fetched whole, and what
of it no table can hold."""


def drop_outdated(context: RunContext, starts: Mapping[str, int]) -> None:
    """Drop what a killed run fetched of records that the list does not show so any more.

    `starts` are those that the list is about to be deduplicated with.
    """
    stream = context.job.stream
    if stream.detail is not None:
        fingerprint = stream.detail.fingerprint
        context.database.write(
            details.drop_outdated, context.tables, fingerprint, starts, stream.scope
        )


def complete_records(
    context: RunContext, staged: dict[str, Staged], scan: Scan
) -> tuple[dict[str, Staged], CallflowError | None]:
    """Complete the staged records; return what is staged per scope, and why some are not.

    What could not be read of them counts in `scan`. Nothing happens for a stream whose list holds
    whole records. Raises LeaseLostError, StoppedError and what Postgres raises.
    """
    job, database, records = context.job, context.database, context.tables[0]
    detail = job.stream.detail
    if detail is None:
        return staged, None
    listed = database.write(
        details.keep_unchanged, job.source, records, detail.fingerprint, detail.fills
    )
    wanted = [Wanted(key, shown) for key, shown in listed]
    if detail.parts is not None and wanted:
        known = database.read(_known_parts, job.source, detail.parts, wanted)
        wanted = [Wanted(each.key, each.listed, known.get(each.key, ())) for each in wanted]
    failed: list[Key] = []
    asked, ordinal = 0, stage.FETCHED
    because: Mapping[Key, CallflowError] = {}
    context.http.budget.allow(job.settings.scan_deadline.total_seconds())
    fetched = _fetch(context, detail, wanted)
    with closing(prefetch(fetched, depth=1, tick=database.keep_lease)) as answers:
        for scope, group in _groups(answers, job.clock, is_scoped=job.stream.scope is not None):
            found = [each for _, each, _ in group if not isinstance(each, CallflowError)]
            errors = {key: each for key, each, _ in group if isinstance(each, CallflowError)}
            failed += errors
            because = because or errors
            rejects = [each for *_, theirs in group for each in theirs]
            rows = database.write(_stage, context, detail, found, ordinal, scope, rejects)
            count_asked_for(context, scan, rows)
            ordinal += len(found)
            asked += len(group)
            job.on_progress(Reached("completing", asked, len(wanted)))
    if failed:
        database.write(details.keep_as_they_were, job.source, records, failed)
    staged = database.write(_finish, context, detail.parts)
    return staged, _incomplete(context, because, len(failed), len(wanted)) if failed else None


def _known_parts(
    connection: Connection, source: str, parts: Parts, wanted: Sequence[Wanted]
) -> Mapping[Key, Sequence[int]]:
    keys = [each.key for each in wanted]
    return details.whole_parts(connection, source, parts.table, parts.content, keys)


def _stage(
    connection: Connection,
    context: RunContext,
    detail: Detail,
    found: Sequence[Packed],
    ordinal: int,
    scope: str,
    rejects: Sequence[Reject],
) -> Rows:
    """Stage fetched records of one scope, with what the list shows of them, and keep `rejects`.

    Return their rows, with the rejects.
    """
    rows = stage_records(connection, context, found, ordinal, scope)
    if detail.fills:
        details.take_listed(connection, context.tables[0], ordinal, detail.fills)
    keep_rejects(connection, context, rejects)
    return replace(rows, rejects=[*rows.rejects, *rejects])


def _finish(connection: Connection, context: RunContext, parts: Parts | None) -> dict[str, Staged]:
    """Add the parts that were not fetched again; return what is staged per scope."""
    pairs = {pair.current.fullname: pair for pair in context.tables}
    if parts is not None:
        of, source = pairs[parts.table.fullname], context.job.source
        children = [pairs[each.fullname] for each in tables.children(parts.table)]
        details.keep_parts(connection, source, of, children, parts.content)
        number = tables.key_columns(parts.table)[-1]
        for inside, shown in parts.shown:
            details.show_chosen(
                connection,
                context.tables[0],
                parts.chosen,
                number,
                pairs[inside.fullname],
                pairs[shown.fullname],
            )
    stream = context.job.stream
    return stage.deduplicate(connection, context.tables, {}, stream.scope, stream.modified)


def _fetch(context: RunContext, detail: Detail, wanted: Sequence[Wanted]) -> Iterator[Answer]:
    """Ask the provider for each record, until it cannot be asked any more."""
    refused: CallflowError | None = None
    for each in wanted:
        key = each.key
        if refused is not None:
            yield key, refused, ()
            continue
        try:
            yield _checked(context, _packed(detail.fetch(context.http, each)), key)
        except (CredentialsError, UnavailableError) as error:
            refused = error
            yield key, error, ()
        except ProviderError as error:
            yield key, error, ()


def _packed(record: object) -> Packed:
    """Return a record as its JSON text, which takes a fraction of its memory until it is staged."""
    try:
        text = msgspec.json.encode(record)
    except UnicodeEncodeError:  # half a surrogate pair
        text = json.dumps(record).encode()
    return Packed(text, 0, len(text))


def _checked(context: RunContext, record: Packed, key: Key) -> Answer:
    """Return `record` if it becomes the row with `key`, and all that is in it becomes rows.

    Without its row the staged one would lose values. With a part left out it would look complete:
    the next run would find its fingerprint unchanged, and not ask for it again.
    """
    job, own = context.job, context.tables[0].current
    scope = key[0] if job.stream.scope else ""
    rows = job.stream.transform(Page([record], 1, scope, zone=zone_of(job.settings)), 0)
    width = len(tables.key_columns(own))
    if [row[2 : 2 + width] for row in rows.tables[own.fullname]] != [key]:
        return key, _odd(context, key, _ANOTHER, IF_IT_STAYS), ()
    if rows.rejects:
        reason = job.redact(rows.rejects[0].reason)
        return key, _odd(context, key, reason, f"see etl.rejects; {IF_IT_STAYS}"), rows.rejects
    return key, record, ()


_ANOTHER: Final = "the provider answered with another record, or with one that has no key"


def _odd(context: RunContext, key: Key, what: str, advice: str) -> ContractError:
    where = f"{context.job.name}, {context.http.redact.name('/'.join(key))}"
    return ContractError(what, where=where, advice=advice)


def _groups(
    answers: Iterator[Answer], clock: Callable[[], float], *, is_scoped: bool
) -> Iterator[tuple[str, list[Answer]]]:
    """Yield answers in groups of one scope, which is the first part of a key, with that scope.

    A group has TOGETHER answers, or those that came within MAX_WAIT seconds or fill the ROOM.
    """
    scope, since, held = "", clock(), 0
    group: list[Answer] = []
    for answer in answers:
        its_own = answer[0][0] if is_scoped else ""
        if group and its_own != scope:
            yield scope, group
            group, since, held = [], clock(), 0
        scope = its_own
        group.append(answer)
        held += len(answer[1]) if isinstance(answer[1], Packed) else 0
        if len(group) == TOGETHER or clock() - since > MAX_WAIT or held > ROOM:
            yield scope, group
            group, since, held = [], clock(), 0
    if group:
        yield scope, group


def _incomplete(
    context: RunContext, because: Mapping[Key, CallflowError], failed: int, of: int
) -> IncompleteError:
    """Return why records are not complete, with the first one as an example."""
    key, error = next(iter(because.items()))
    return IncompleteError(
        f"{failed} of {of} new or changed records could not be read whole, and are kept as they "
        f"were ({context.http.redact.name('/'.join(map(str, key)))}: {error.what})",
        kind="incomplete_details",
        where=context.job.name,
        advice=error.advice or "run again; what was read is not asked for again",
    )

"""Complete the records of a list that does not hold them whole: one request for each that changed.

The list is read and proven first. What was fetched is committed every few records, and the next run
takes it over if this one is killed. A record that cannot be completed keeps its row as it was: also
one that is listed, but not found. It may have been deleted in between, which the next scan of the
list shows; no row is deleted for that.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing

from etl.errors import (
    CallflowError,
    ContractError,
    CredentialsError,
    IncompleteError,
    ProviderError,
    UnavailableError,
)
from etl.extract.page import Page
from etl.load import details, stage
from etl.providers.declare import Detail, zone_of
from etl.sync.context import RunContext
from etl.sync.prefetch import prefetch
from etl.sync.scan import stage_records
from etl.warehouse import tables
from etl.warehouse.tables import Key

TOGETHER, MAX_WAIT = 20, 1.0
"""Records that are staged in one transaction, and seconds after which fewer are: what was fetched
since the last one is lost if the run is killed."""

Answer = tuple[Key, object | CallflowError]
"""The key of a record, and the whole record or why it could not be fetched."""


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
    context: RunContext, staged: dict[str, int]
) -> tuple[dict[str, int], CallflowError | None]:
    """Complete the staged records; return how many are staged per scope, and why some are not.

    Nothing happens for a stream whose list holds whole records. Raises LeaseLostError, StoppedError
    and what Postgres raises.
    """
    job, database, records = context.job, context.database, context.tables[0]
    detail = job.stream.detail
    if detail is None:
        return staged, None
    keys = database.write(details.keep_unchanged, job.source, records, detail.fingerprint)
    failed: list[Key] = []
    ordinal = stage.FETCHED
    because: CallflowError | None = None
    context.http.budget.allow(job.settings.scan_deadline.total_seconds())
    fetched = _fetch(context, detail, keys)
    with closing(prefetch(fetched, depth=1, tick=database.keep_lease)) as answers:
        for scope, group in _groups(answers, job.clock, is_scoped=job.stream.scope is not None):
            found = [answer for _, answer in group if not isinstance(answer, CallflowError)]
            errors = [answer for _, answer in group if isinstance(answer, CallflowError)]
            failed += [key for key, answer in group if isinstance(answer, CallflowError)]
            because = because or next(iter(errors), None)
            database.write(stage_records, context, found, ordinal, scope)
            ordinal += len(found)
    if failed:
        database.write(details.keep_as_they_were, job.source, records, failed)
    staged = database.write(stage.deduplicate, context.tables, {}, job.stream.scope)
    return staged, because and _incomplete(because, len(failed), len(keys), job.name)


def _fetch(context: RunContext, detail: Detail, keys: Sequence[Key]) -> Iterator[Answer]:
    """Ask the provider for each record, until it cannot be asked any more."""
    refused: CallflowError | None = None
    for key in keys:
        if refused is not None:
            yield key, refused
            continue
        try:
            record = detail.fetch(context.http, key)
            yield key, record if _has(context, record, key) else _another(context, key)
        except (CredentialsError, UnavailableError) as error:
            refused = error
            yield key, error
        except ProviderError as error:
            yield key, error


def _has(context: RunContext, record: object, key: Key) -> bool:
    """Whether `record` becomes the row with `key`; without one its staged row would lose values."""
    stream, own = context.job.stream, context.tables[0].current
    scope = key[0] if stream.scope else ""
    rows = stream.transform(Page([record], 1, scope, zone=zone_of(context.job.settings)), 0)
    width = len(tables.key_columns(own))
    return [row[2 : 2 + width] for row in rows.tables[own.fullname]] == [key]


def _another(context: RunContext, key: Key) -> ContractError:
    return ContractError(
        "the provider answered with another record, or with one that has no key",
        where=f"{context.job.name}, {context.http.redact.name('/'.join(key))}",
        advice="nothing is deleted; run again, and report it to the provider if it stays",
    )


def _groups(
    answers: Iterator[Answer], clock: Callable[[], float], *, is_scoped: bool
) -> Iterator[tuple[str, list[Answer]]]:
    """Yield answers in groups of one scope, which is the first part of a key, with that scope.

    A group has TOGETHER answers, or those that came within MAX_WAIT seconds.
    """
    scope, since = "", clock()
    group: list[Answer] = []
    for answer in answers:
        its_own = answer[0][0] if is_scoped else ""
        if group and its_own != scope:
            yield scope, group
            group, since = [], clock()
        scope = its_own
        group.append(answer)
        if len(group) == TOGETHER or clock() - since > MAX_WAIT:
            yield scope, group
            group, since = [], clock()
    if group:
        yield scope, group


def _incomplete(because: CallflowError, failed: int, of: int, where: str) -> IncompleteError:
    return IncompleteError(
        f"{failed} of {of} new or changed records could not be read whole, and are kept as they "
        f"were ({because.what})",
        kind="incomplete_details",
        where=where,
        advice=because.advice or "run again; what was read is not asked for again",
    )

"""The log of changes, `history.changes`: written by the transaction that merges what has changed.

What a change is stands in `warehouse/model/changes.py`. Here is which versions are compared: those
that end and those that start at the instant of a merge, or, when the log is rebuilt, at every
instant since a list was first known. The first complete run of a list is no news: before it, all
rows are new. `etl.streams.known_since` holds when that was, per scope.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Table, text

from etl.warehouse import tables
from etl.warehouse.model.changes import COLUMNS, is_tracked, statements
from etl.warehouse.model.lists import named
from etl.warehouse.model.part import Part
from etl.warehouse.model.span import Span
from etl.warehouse.tables import Key

MANY = 1000
"""Records from which on their versions are found by reading the tables, not one by one."""


@dataclass(frozen=True, slots=True)
class Log:
    """What of a stream is logged.

    `provider` whose flows they are.
    `parts`    what its tables add to the views.
    `scope`    the key column that names a record's scope; None: the list has no scopes.
    `known`    scopes that a complete run has read before: their changes are news.
    """

    provider: str
    parts: Sequence[Part]
    scope: str | None
    known: Collection[str]

    @property
    def is_open(self) -> bool:
        """Whether there can be news."""
        return bool(self.known) and is_tracked(self.parts)


def record(
    connection: Connection, source: str, log: Log, touched: Collection[Key], now: datetime
) -> None:
    """Log what a merge has changed in the records with the keys `touched`, at `now` (UTC)."""
    keys = tables.key_columns(log.parts[0].table)
    news = [key for key in touched if _scope(key, keys, log.scope) in log.known]
    if not news:
        return
    given: dict[str, object] = {"source": source, "now": now}
    if len(news) > MANY:
        span = _merged("", f"AND {log.scope} = ANY (:known)" if log.scope else "")
        given["known"] = list(log.known)
    else:
        listed = ", ".join(f"unnest(CAST(:key_{i} AS text[])) AS k{i}" for i in range(len(keys)))
        same = " AND ".join(f"each.{name} = news.k{i}" for i, name in enumerate(keys))
        span = _merged(f"(SELECT {listed}) AS news CROSS JOIN", f"AND {same}")
        given |= {f"key_{i}": [key[i] for key in news] for i in range(len(keys))}
    _write(connection, log, span, given)


def _scope(key: Key, keys: Sequence[str], scope: str | None) -> str:
    return str(key[keys.index(scope)]) if scope else ""


def _merged(join: str, condition: str) -> Span:
    """Return the versions that end, and those that start, at the instant of a merge.

    With `join`, the records to look up, each is looked up by its key: OFFSET 0 keeps it so.
    """

    def at_now(table: Table, held: Table, instant: str) -> str:
        found = (
            f"SELECT {_listed(table)}, each.{instant} AS at FROM {held.fullname} AS each"
            f" WHERE each.source = :source AND each.{instant} = :now {condition}"
        )
        return f"SELECT found.* FROM {join} LATERAL ({found} OFFSET 0) AS found" if join else found

    return _log_span(
        lambda table: at_now(table, tables.history(table), "valid_to"),
        lambda table: at_now(table, table, "valid_from"),
    )


def clear(connection: Connection, stream: str, log: Log) -> None:
    """Delete what `rebuild` would write of a stream, and of other streams of these sources.

    So all streams of a provider are cleared before the first is rebuilt: several may log changes of
    the same flows. What was logged of a source that `callflow forget` has removed stays as it is:
    nothing says any more since when its lists were known.
    """
    if not is_tracked(log.parts):
        return
    given = {"stream": stream, "provider": log.provider}
    entities = [named(part.view).entity for part in log.parts if part.tracked]
    connection.execute(
        text(f"""
            DELETE FROM {tables.changes.fullname} AS each USING ({_KNOWN}) AS known
            WHERE each.source = known.source AND each.provider = :provider
                AND each.entity = ANY (:entities) AND each.observed_at > known.since
                {"AND each.account_id = known.scope" if log.scope else ""}"""),
        given | {"entities": entities},
    )


def rebuild(connection: Connection, stream: str, log: Log) -> None:
    """Write the log of a stream from the histories, for all sources; `log.known` is not used."""
    if is_tracked(log.parts):
        given = {"stream": stream, "provider": log.provider}
        _write(connection, log, _since_known(log.scope), given)


_KNOWN = f"""
    SELECT source, since.key AS scope, since.value::timestamptz AS since
    FROM {tables.streams.fullname} CROSS JOIN LATERAL jsonb_each_text(known_since) AS since
    WHERE stream = :stream"""


def _since_known(scope: str | None) -> Span:
    """Return the versions that end, and those that start, after their list was known."""
    same = f" AND known.scope = each.{scope}" if scope else ""

    def later(table: Table, held: str, instant: str) -> str:
        return (
            f"SELECT {_listed(table)}, each.{instant} AS at FROM {held} AS each"
            f" JOIN ({_KNOWN}) AS known ON known.source = each.source{same}"
            f" WHERE each.{instant} > known.since"
        )

    return _log_span(
        lambda table: later(table, tables.history(table).fullname, "valid_to"),
        lambda table: later(table, _versions(table), "valid_from"),
    )


def _log_span(old: Callable[[Table], str], new: Callable[[Table], str]) -> Span:
    """Return a span of versions that meet at an instant."""
    return Span(
        old=old,
        new=new,
        versions=_versions,
        before=lambda row, at: (
            f"{row}.valid_from < {at} AND coalesce({row}.valid_to >= {at}, true)"
        ),
        after=lambda row, at: f"{row}.valid_from <= {at} AND coalesce({row}.valid_to > {at}, true)",
        earlier=lambda at: at,
        observed="coalesce(n.at, o.at)",
        link_observed="touched.at",
    )


def _versions(table: Table) -> str:
    """Return a FROM item of all versions, which needs no right on our views."""
    columns, history = _listed(table), tables.history(table).fullname
    return (
        f"(SELECT {columns}, NULL::timestamptz AS valid_to FROM {table.fullname} AS each"
        f" UNION ALL SELECT {columns}, each.valid_to FROM {history} AS each)"
    )


def _listed(table: Table) -> str:
    return ", ".join(f"each.{column.name}" for column in table.columns)


def _write(connection: Connection, log: Log, span: Span, given: Mapping[str, object]) -> None:
    columns = ", ".join(COLUMNS)
    for statement in statements(log.provider, log.parts, span):
        connection.execute(
            text(f"INSERT INTO {tables.changes.fullname} ({columns}) {statement}"), given
        )

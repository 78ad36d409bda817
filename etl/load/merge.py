"""Staged rows → current tables and history, in the caller's transaction.

Only rows that differ are written: a join that only reads finds them first, because Postgres makes
parallel plans only for such statements. If they are few, each is looked up and upserted; otherwise
the tables are joined again to upsert them, in key order. What a statement changes or removes goes
to `history` in that same statement. If the source has no rows yet, all staged rows are inserted.
docs/architecture.md has the figures of the other ways.

How staged and current rows are joined is not left to the planner's guess (`join_by_hash`). If few
rows are staged for a big table, each is looked up by its key (`looked_up`); otherwise both sides
are read once. Either way the work grows with the rows, not with their square.

The statements are SQL text. In all of them `staged` is a row of the staging table, `current` a row
of the current one, and `record` the staged record that a child belongs to; staging tables hold rows
of one source, current ones those of all, `:source` is the one that is merged.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, text
from sqlalchemy.dialects import postgresql

from etl.load import changes
from etl.load.changes import Log
from etl.load.stage import FETCHED, TablePair, join_by_hash
from etl.warehouse import tables
from etl.warehouse.tables import Key

FEW = 20
"""Staged rows are looked up one by one if the table holds more than FEW times as many; those that
differ are, if more than FEW times as many are staged."""

MANY = 100_000
"""More rows that differ are never looked up: their places in the staging table take memory."""

_QUOTING = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class Written:
    """What a merge wrote: records by what became of them, and the rows of all tables together."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    rows: int = 0


def unlisted(
    connection: Connection, source: str, parent: TablePair, scopes: Sequence[str]
) -> list[Key]:
    """Return the keys (without source) of the current rows that are not staged, in key order.

    `scopes`, unless empty, limits them to rows whose first key column is one of these.
    """
    join_by_hash(connection)
    keys = tables.key_columns(parent.current)
    in_scopes = f"AND current.{quoted(keys[:1])} = ANY (:scopes)" if scopes else ""
    return _keys(
        connection,
        f"""
        SELECT {quoted(keys, "current.")} FROM {quoted_table(parent.current)} AS current
        WHERE current.source = :source {in_scopes}
            AND NOT EXISTS (
                SELECT FROM {quoted_table(parent.stage)} AS staged
                WHERE {equal("staged", "current", keys)}
            )
        ORDER BY {quoted(keys, "current.")}
        """,
        {"source": source, "scopes": list(scopes)},
    )


def known(
    connection: Connection, source: str, current: Table, scope: str | None
) -> dict[str, set[Key]]:
    """Return the keys (without source) of the current rows, per value of the column `scope`.

    Without `scope` all of them are under "".
    """
    keys = tables.key_columns(current)
    query = f"SELECT {quoted(keys)} FROM {quoted_table(current)} WHERE source = :source"
    place = keys.index(scope) if scope else None
    found: dict[str, set[Key]] = {}
    for key in _keys(connection, query, {"source": source}):
        found.setdefault("" if place is None else key[place], set()).add(key)
    return found


def differs(connection: Connection, source: str, pair: TablePair, start: int) -> bool:
    """Whether a record staged from the ordinal `start` on is new or unlike its current row.

    They must be few, such as those of a page: each is looked up. Records that were asked for one by
    one do not count.
    """
    join_by_hash(connection)
    staged = f"staged.ord >= :start AND staged.ord < {FETCHED}"
    query = f"SELECT EXISTS ({_differing(pair, looked_up=True)} AND {staged})"
    return bool(connection.scalar(text(query), {"source": source, "start": start}))


def merge(
    connection: Connection,
    source: str,
    pairs: Sequence[TablePair],
    deleted: Sequence[Key],
    now: datetime,
    *,
    looked_up: bool = False,
    many: int = MANY,
    log: Log | None = None,
) -> Written:
    """Make the current rows equal to the staged ones, and take out the records `deleted`.

    `pairs` starts with the records' own table; children come after their parents; staged records
    are deduplicated. Children that a staged record no longer has are taken out, unless one of its
    children was unreadable. `now` (UTC) becomes valid_from and valid_to of what changes.
    `looked_up` says that few records are staged, compared with those in the table (see FEW). Up to
    `many` rows of a table that differ are looked up to be written; for more, the tables are joined
    once more. `log` says what of this is logged as changes.
    """
    join_by_hash(connection)
    records, *children = pairs
    keys = tables.key_columns(records.current)
    is_logged = log is not None and log.is_open
    given = {"source": source, "now": now}
    if not _has_rows(connection, source, records.current):  # so the children's have none either
        written = _insert_all(connection, pairs, given)
        if log is not None and is_logged:
            staged = f"SELECT {quoted(keys)} FROM {quoted_table(records.stage)}"
            changes.record(connection, source, log, _keys(connection, staged, {}), now)
        return written
    differing = [
        _find_differing(connection, pair, given, looked_up=looked_up, many=many) for pair in pairs
    ]
    written = Written()
    if deleted:
        theirs, arrays = is_one_of(deleted, keys)
        for pair in reversed(pairs):
            found = _remove(connection, pair.current, theirs, {**given, **arrays}, keys)
            written.rows += sum(found.values())
        written.deleted = sum(found.values())  # of the records' own table, which comes last
    changed: set[Key] = set()  # records of which a child changed
    for pair, their in reversed([*zip(children, differing[1:], strict=True)]):
        if not looked_up and _are_all_staged(connection, pair, their, given):
            continue
        if _any(connection, _lost(pair, records, looked_up=looked_up), given):
            found = _remove(connection, pair.current, _is_lost(pair, records), given, keys)
            written.rows += sum(found.values())
            changed |= found.keys()
    own: set[Key] = set()
    for pair, their in zip(pairs, differing, strict=True):
        if their is None:
            continue
        inserted, updated, of = _upsert(
            connection, pair, their, keys if children or is_logged else []
        )
        written.rows += inserted + updated
        if pair is records:
            written.inserted, written.updated, own = inserted, updated, of
        else:
            changed |= of
    written.updated += len(changed - own)
    if log is not None and is_logged:
        changes.record(connection, source, log, own.union(changed, deleted), now)
    return written


def _has_rows(connection: Connection, source: str, current: Table) -> bool:
    query = f"SELECT EXISTS (SELECT FROM {quoted_table(current)} WHERE source = :source)"
    return bool(connection.scalar(text(query), {"source": source}))


def _insert_all(
    connection: Connection, pairs: Sequence[TablePair], given: dict[str, Any]
) -> Written:
    """Insert all staged rows into tables without rows of the source, which none can differ from."""
    counts: list[int] = []
    for pair in pairs:
        names, keys = tables.data_columns(pair.current), tables.key_columns(pair.current)
        inserted = connection.execute(
            text(f"""
            INSERT INTO {quoted_table(pair.current)} (source, {quoted(names)}, valid_from)
            SELECT CAST(:source AS text), {quoted(names)}, CAST(:now AS timestamptz)
            FROM {quoted_table(pair.stage)} ORDER BY {quoted(keys)}
            """),
            given,
            execution_options={"preserve_rowcount": True},
        )
        counts.append(inserted.rowcount)
    return Written(inserted=counts[0], rows=sum(counts))


def _any(connection: Connection, query: str, given: dict[str, Any]) -> bool:
    """Whether the query finds rows.

    It counts them, so the query is planned to be read to its end. Usually there are none, and then
    a plan that is quick to find a first row takes longer.
    """
    return bool(connection.scalar(text(f"SELECT count(*) FROM ({query}) AS found"), given))


def _remove(
    connection: Connection,
    current: Table,
    condition: str,
    given: dict[str, Any],
    keys: Sequence[str],
) -> dict[Key, int]:
    """Move the rows that meet `condition` to history; return how many there were per `keys`."""
    columns = quoted(column.name for column in current.columns)
    rows = connection.execute(
        text(f"""
        WITH removed AS (
            DELETE FROM {quoted_table(current)} AS current
            WHERE current.source = :source AND {condition}
            RETURNING {columns}
        ), kept AS (
            INSERT INTO {quoted_table(tables.history(current))} ({columns}, valid_to)
            SELECT {columns}, CAST(:now AS timestamptz) FROM removed
            RETURNING {quoted(keys)}
        )
        SELECT {quoted(keys)}, count(*) FROM kept GROUP BY {quoted(keys)}
        """),
        given,
    )
    return {tuple(key): count for *key, count in rows}


def is_one_of(
    chosen: Sequence[Key], keys: Sequence[str], row: str = "current."
) -> tuple[str, dict[str, list[str]]]:
    """Return the condition that `row` has one of the `chosen` keys, and its parameters.

    It takes one array per column, because a statement takes 65,535 parameters at most.
    """
    arrays = {f"key_{index}": [key[index] for key in chosen] for index in range(len(keys))}
    unnested = ", ".join(f"unnest(CAST(:{name} AS text[]))" for name in arrays)
    return f"({quoted(keys, row)}) IN (SELECT {unnested})", arrays


def _is_lost(child: TablePair, records: TablePair) -> str:
    """Return the condition that a child's record is staged, was wholly readable, and lacks it."""
    of, keys = tables.key_columns(records.current), tables.key_columns(child.current)
    return f"""
        EXISTS (
            SELECT FROM {quoted_table(records.stage)} AS record
            WHERE {equal("record", "current", of)} AND NOT record.partial
        )
        AND NOT EXISTS (
            SELECT FROM {quoted_table(child.stage)} AS staged
            WHERE {equal("staged", "current", keys)}
        )"""


def _lost(child: TablePair, records: TablePair, *, looked_up: bool) -> str:
    """Return the query for children that their staged records no longer have."""
    if not looked_up:
        return f"""
        SELECT FROM {quoted_table(child.current)} AS current
        WHERE current.source = :source AND {_is_lost(child, records)}"""
    of, keys = tables.key_columns(records.current), tables.key_columns(child.current)
    return f"""
        SELECT FROM {quoted_table(records.stage)} AS record
        JOIN {_lookup(child.current, "record", of)} AS current ON true
        WHERE NOT record.partial AND NOT EXISTS (
            SELECT FROM {quoted_table(child.stage)} AS staged
            WHERE {equal("staged", "current", keys)}
        )"""


def _lookup(current: Table, of: str, keys: Sequence[str]) -> str:
    """Return a sub-select of the rows with the `keys` of the row `of`, by the primary key.

    OFFSET 0 keeps it a look-up: the planner must not make another join of it.
    """
    return f"""LATERAL (
            SELECT * FROM {quoted_table(current)} AS sought
            WHERE sought.source = :source AND {equal("sought", of, keys)} OFFSET 0
        )"""


def _differing(pair: TablePair, *, looked_up: bool) -> str:
    """Return the query for staged rows that are new or unlike the current row with their key.

    Its columns are those of the staged row, its `place` in the staging table, `is_new`, and those
    of the current row after `old_`.
    """
    keys, names = tables.key_columns(pair.current), tables.data_columns(pair.current)
    fields = [name for name in names if name not in keys]
    old = ", ".join(
        f"current.{quoted([column.name])} AS {quoted([column.name], 'old_')}"
        for column in pair.current.columns
    )
    if looked_up:
        current = f"{_lookup(pair.current, 'staged', keys)} AS current ON true"
    else:
        same = equal("staged", "current", keys)
        current = f"{quoted_table(pair.current)} AS current ON current.source = :source AND {same}"
    return f"""
        SELECT {quoted(names, "staged.")}, staged.ctid AS place, current.source IS NULL AS is_new,
            {old}
        FROM {quoted_table(pair.stage)} AS staged LEFT JOIN {current}
        WHERE (
            current.source IS NULL
            OR ({quoted(fields, "current.")}) IS DISTINCT FROM ({quoted(fields, "staged.")})
        )"""


def _are_all_staged(
    connection: Connection, pair: TablePair, differing: "_Differing | None", given: dict[str, Any]
) -> bool:
    """Whether each current row has a staged one with its key, going by their numbers.

    Each staged row that is not new has one current row, and no two have the same.
    """
    if differing is not None and differing.new is None:
        return False
    new = 0 if differing is None else differing.new
    query = f"""
        SELECT (SELECT count(*) FROM {quoted_table(pair.current)} WHERE source = :source)
            = (SELECT count(*) FROM {quoted_table(pair.stage)}) - :new"""
    return bool(connection.scalar(text(query), {**given, "new": new}))


@dataclass(frozen=True, slots=True)
class _Differing:
    """The query for the staged rows that are new or differ, to write them, and its parameters.

    `new` is how many of them are new; None: that was not counted.
    """

    query: str
    given: dict[str, Any]
    new: int | None = None


def _find_differing(
    connection: Connection,
    pair: TablePair,
    given: dict[str, Any],
    *,
    looked_up: bool,
    many: int,
) -> _Differing | None:
    """Return the staged rows that are new or unlike their current row; None if there are none.

    Up to `many` are named by their places in the staging table, where nobody else writes meanwhile.
    Postgres ends the statement once it has found more. (LIMIT would, too, but then the statement is
    planned to find its first rows quickly. Usually there are none, and such a plan takes longer.)
    """
    query = _differing(pair, looked_up=looked_up)
    count, new, places = connection.execute(
        text(f"""
        SELECT count(*), count(*) FILTER (WHERE is_new), CAST(array_agg(place) AS text)
        FROM (
            SELECT place, is_new, row_number() OVER () AS nth FROM ({query}) AS differing
        ) AS found
        WHERE nth <= {many + 1}
        """),
        given,
    ).one()
    if not count:
        return None
    if count > many:
        return _Differing(query, given)
    there = "staged.ctid = ANY (CAST(:places AS tid[]))"
    return _Differing(
        f"{_differing(pair, looked_up=True)} AND {there}", {**given, "places": places}, new
    )


def _upsert(
    connection: Connection,
    pair: TablePair,
    differing: _Differing,
    of: Sequence[str],
) -> tuple[int, int, set[Key]]:
    """Insert the `differing` rows that are new, update the others, and keep what they replace.

    All that is written is written in key order: entries of the same page of an index follow each
    other. Returns how many of each, and the keys `of` the records that they belong to.
    """
    keys, names = tables.key_columns(pair.current), tables.data_columns(pair.current)
    columns = [column.name for column in pair.current.columns]
    changes = [name for name in [*names, "valid_from"] if name not in keys]
    setting = ", ".join(f"{quoted([name])} = excluded.{quoted([name])}" for name in changes)
    rows = connection.execute(
        text(f"""
        WITH differing AS MATERIALIZED ({differing.query}
            ORDER BY {quoted(keys, "staged.")}
        ), superseded AS (
            INSERT INTO {quoted_table(tables.history(pair.current))} ({quoted(columns)}, valid_to)
            SELECT {quoted(columns, "old_")}, CAST(:now AS timestamptz)
            FROM differing WHERE NOT is_new
        ), upserted AS (
            INSERT INTO {quoted_table(pair.current)} (source, {quoted(names)}, valid_from)
            SELECT CAST(:source AS text), {quoted(names)}, CAST(:now AS timestamptz)
            FROM differing
            ON CONFLICT (source, {quoted(keys)}) DO UPDATE SET {setting}
        )
        SELECT {"".join(f"{quoted([name])}, " for name in of)}
            count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new)
        FROM differing {f"GROUP BY {quoted(of)}" if of else ""}
        """),
        differing.given,
    ).all()
    inserted, updated = sum(row[-2] for row in rows), sum(row[-1] for row in rows)
    return inserted, updated, {tuple(row[:-2]) for row in rows} if of else set()


def _keys(connection: Connection, query: str, given: dict[str, Any]) -> list[Key]:
    return [tuple(row) for row in connection.execute(text(query), given)]


def quoted_table(table: Table) -> str:
    """Return the table's name with its schema, as SQL."""
    return _QUOTING.format_table(table)


def quoted(names: Iterable[str], prefix: str = "") -> str:
    """Return the column names as SQL, each after `prefix`: "current." or "old_"."""
    return ", ".join(
        f"{prefix}{_QUOTING.quote(name)}" if prefix.endswith(".") else _QUOTING.quote(prefix + name)
        for name in names
    )


def equal(one: str, other: str, names: Sequence[str]) -> str:
    """Return the condition that two rows have the same values in the columns `names`."""
    quoted = map(_QUOTING.quote, names)
    return " AND ".join(f"{one}.{name} = {other}.{name}" for name in quoted)

"""Pages of a running scan → UNLOGGED staging tables, by binary COPY.

Each source has its own staging tables, so that sources never wait for each other. A staged row has
the ordinal of its record in the run, then the columns of its current table except `source` and
`valid_from`. A record's own row also says whether one of its children could not be read.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from psycopg import Connection as PsycopgConnection
from psycopg import sql
from psycopg.errors import LockNotAvailable
from psycopg.types.json import set_json_dumps
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    func,
    literal,
    null,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import OperationalError

from etl.load.runs import newest_in
from etl.warehouse import tables

FETCHED = 1 << 62
"""Ordinals from here on are those of records that were asked for one by one, not listed."""

MAX_NAME = 63
"""Bytes of a name in Postgres, which cuts off the rest of a longer one."""

_COPY_TYPES: Mapping[type, str] = {
    BigInteger: "int8",
    Boolean: "bool",
    DateTime: "timestamptz",
    Integer: "int4",
    JSONB: "jsonb",
    Text: "text",
}


@dataclass(frozen=True, slots=True)
class Staged:
    """What is staged of one scope: how many `records`, each once, and the `newest` of their
    modification times (UTC); None: no record has one, or none that can be true.
    """

    records: int
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class TablePair:
    """A current table, and the staging table that one source fills for it."""

    current: Table
    stage: Table


def _stage_name(source: str, table: str) -> str:
    """Return `source__table`, cut and ended by a digest if that is too long for Postgres."""
    name = f"{source}__{table}"
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def pair_of(source: str, current: Table, apart: str = "") -> TablePair:
    """Return `current` with its staging table for `source`.

    `apart`, the id of a dry run, gives that run its own staging table.
    """
    return _pair(f"{source}__{apart}", current) if apart else _pair_of(source, current)


@cache  # SQLAlchemy compiles the statements on a table once if it is always the same object
def _pair_of(source: str, current: Table) -> TablePair:
    return _pair(source, current)


def _pair(source: str, current: Table) -> TablePair:
    own = [Column("ord", BigInteger(), comment="Ordinal of the record in the scan; the last wins.")]
    if current.info["parent"] is None:
        own.append(Column("partial", Boolean(), comment="A child of the record was unreadable."))
    columns = [
        Column(name, current.c[name].type, comment=current.c[name].comment)
        for name in tables.data_columns(current)
    ]
    stage = Table(
        _stage_name(source, current.name),
        MetaData(),
        *own,
        *columns,
        schema="staging",
        prefixes=["UNLOGGED"],
        comment=f"Pages of a running scan of {current.fullname} by source {source}.",
    )
    return TablePair(current, stage)


def prepare(
    connection: Connection, pairs: Iterable[TablePair], *, keep_fetched: bool = False
) -> None:
    """Create the staging tables that do not exist yet, and empty those that do.

    One that was made for another provider's table, while the source was one of that provider, makes
    way. With `keep_fetched`, rows of records that were asked for one by one stay (see FETCHED).
    """
    for pair in pairs:
        stage = pair.stage
        place = f'"{stage.schema}"."{stage.name}"'
        comment = select(func.obj_description(func.to_regclass(place), "pg_class"))
        if connection.scalar(comment) not in (None, stage.comment):
            connection.execute(text(f"DROP TABLE {place}"))
        fetched = select(select(stage).where(stage.c.ord >= FETCHED).exists())
        if not connection.dialect.has_table(connection, stage.name, schema=stage.schema):
            stage.create(connection, checkfirst=False)
        elif keep_fetched and connection.scalar(fetched):
            connection.execute(delete(stage).where(stage.c.ord < FETCHED))
        else:
            clear(connection, [pair])


def clear(connection: Connection, pairs: Iterable[TablePair]) -> None:
    """Empty the staging tables that hold rows; a TRUNCATE of an empty table would cost WAL too.

    A process that was stopped in the middle of a COPY holds a lock for which TRUNCATE waits. DELETE
    does not wait for it, and what that process copied can never be committed.
    """
    for pair in pairs:
        if connection.scalar(select(select(pair.stage).exists())):
            patience = connection.scalar(select(func.current_setting("lock_timeout")))
            savepoint = connection.begin_nested()
            try:
                with savepoint:  # long enough for autovacuum to make way
                    connection.execute(select(func.set_config("lock_timeout", "3s", True)))
                    connection.execute(text(f'TRUNCATE "{pair.stage.schema}"."{pair.stage.name}"'))
            except OperationalError as error:
                if not isinstance(error.orig, LockNotAvailable):
                    raise
                connection.execute(delete(pair.stage))
            else:
                connection.execute(select(func.set_config("lock_timeout", patience, True)))


def size(connection: Connection, pair: TablePair) -> int:
    """Count the rows in the staging table."""
    return connection.scalar(select(func.count()).select_from(pair.stage)) or 0


def copy(connection: Connection, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """COPY `rows`, with cells in the order of the columns, into `table` in the open transaction.

    A cell of a jsonb column is JSON text, a time is aware.
    """
    raw = connection.connection.driver_connection
    assert isinstance(raw, PsycopgConnection)
    target = sql.Identifier(table.schema or "", table.name)
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(target, names)
    with raw.cursor() as cursor:
        set_json_dumps(str.encode, cursor)
        with cursor.copy(statement) as lines:
            lines.set_types([_COPY_TYPES[type(column.type)] for column in table.columns])
            for row in rows:
                lines.write_row(row)


def copy_current(
    connection: Connection,
    pair: TablePair,
    source: str,
    rows: Iterable[tuple[Any, ...]],
    now: datetime,
) -> None:
    """COPY rows made for the staging table straight into the current one, valid from `now` (UTC).

    Raises psycopg's UniqueViolation when a key comes twice or is in the table already.
    """
    own = len(pair.stage.columns) - len(tables.data_columns(pair.current))
    copy(connection, pair.current, ((source, *row[own:], now) for row in rows))


def deduplicate(
    connection: Connection,
    pairs: Sequence[TablePair],
    starts: Mapping[str, int],
    scope: str | None,
    modified: str | None,
) -> dict[str, Staged]:
    """Keep the last version of each staged record; return what is left per scope.

    `pairs` starts with the records' own table, whose column `scope` names their scope; without one
    the only scope is "". `modified` is its column of modification times. Records of a scope with an
    ordinal below `starts[scope]` are dropped. The planner's statistics are fresh afterwards.

    Each statement reads a table once, however often records repeat. (One DELETE with both
    conditions, joined by OR, would be planned as a search per row.)
    """
    join_by_hash(connection)
    records = pairs[0]
    keys = tables.key_columns(records.current)
    drop_older(connection, pairs, starts, scope)
    connection.execute(select(func.set_config("default_statistics_target", "10", True)))
    for pair in pairs:
        columns = ", ".join(f'"{name}"' for name in tables.key_columns(pair.current))
        connection.execute(text(f'ANALYZE "{pair.stage.schema}"."{pair.stage.name}" ({columns})'))
    of: ColumnElement[str] = records.stage.c[scope] if scope else literal("")
    newest = newest_in(records.stage.c[modified]) if modified else null()
    left = select(of, func.count(), newest).select_from(records.stage).group_by(of)
    each = [records.stage.c[name] for name in keys]
    own = [records.stage.c[name] for name in keys if name != scope]
    # To sort digests takes half as long as to sort the keys. Keys that share one are looked into.
    digests = func.count(_digest(own).distinct())
    found = connection.execute(left.add_columns(digests)).all()
    if any(count > distinct for _, count, _, distinct in found):
        repeated = select(*each).group_by(*each).having(func.count() > 1)
        last = repeated.add_columns(func.max(records.stage.c.ord).label("ord")).cte("last")
        last = last.prefix_with("MATERIALIZED")
        for pair in reversed(pairs):
            same = [pair.stage.c[name] == last.c[name] for name in keys]
            connection.execute(delete(pair.stage).where(*same, pair.stage.c.ord < last.c.ord))
        found = connection.execute(left.add_columns(func.count())).all()
    return {name: Staged(count, time and time.astimezone(UTC)) for name, count, time, _ in found}


def _digest(keys: Sequence[ColumnElement[Any]]) -> ColumnElement[int]:
    """Return the number that Postgres hashes the key columns to."""
    if len(keys) == 1:
        return func.hashtextextended(keys[0], 0)
    return func.hash_record_extended(func.row(*keys), 0)


def drop_older(
    connection: Connection,
    pairs: Sequence[TablePair],
    starts: Mapping[str, int],
    scope: str | None,
) -> None:
    """Drop the records of each scope that were staged before its start, as `deduplicate` does."""
    for pair in pairs:
        if is_older := _is_older(pair.stage, starts, scope):
            connection.execute(delete(pair.stage).where(*is_older))


def _is_older(
    stage: Table, starts: Mapping[str, int], scope: str | None
) -> list[ColumnElement[bool]]:
    """Return conditions on a row staged before its scope's start; none if no row can be."""
    limits = {name: start for name, start in starts.items() if start > 0}
    if not limits:
        return []
    if scope is None:
        return [stage.c.ord < max(limits.values())]
    limit = (
        func.unnest(
            literal([*limits], ARRAY(Text())), literal([*limits.values()], ARRAY(BigInteger()))
        )
        .table_valued("name", "start")
        .render_derived("limit_of")
    )
    return [stage.c[scope] == limit.c.name, stage.c.ord < limit.c.start]


def join_by_hash(connection: Connection) -> None:
    """Have the statements of this transaction join by hash or merge, never row by row.

    The planner's statistics may be old or missing, such as after a first load or a restored dump.
    It then takes ten thousand rows for one, and compares every row of one side with every row of
    the other, for hours. A statement that needs a look-up by an index has a LATERAL.

    Joins may be parallel whatever they are expected to find: the planner takes all rows for new or
    different, and fears the cost of passing them on. Usually none are.
    """
    settings = {"enable_nestloop": "off", "enable_hashjoin": "on", "enable_mergejoin": "on"}
    settings |= {"parallel_tuple_cost": "0"}
    connection.execute(
        select(*(func.set_config(name, value, True) for name, value in settings.items()))
    )

"""Pages of a running scan → UNLOGGED staging tables, by binary COPY.

Every source has staging tables of its own, so that sources never wait for each other. A staged row
is a row of its current table without `source` and `valid_from`, after the ordinal of its record in
the scan; that of a record also says whether a child of it could not be read.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection as PsycopgConnection
from psycopg import sql
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
    Row,
    Table,
    Text,
    delete,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from etl import tables

MAX_NAME = 63
"""Bytes of a name in Postgres; the rest of a longer one is cut off."""

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
    """A current table with the staging table that one source fills for it."""

    current: Table
    stage: Table


def _stage_name(source: str, table: str) -> str:
    """`source__table`; when that is too long for Postgres, its beginning and a digest of all."""
    name = f"{source}__{table}"
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def staged(source: str, current: Table) -> Staged:
    """`current` with its staging table for `source`."""
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
    return Staged(current, stage)


def prepare(connection: Connection, pairs: Iterable[Staged]) -> None:
    """Create the staging tables that are not there yet; empty those that are."""
    for pair in pairs:
        if connection.dialect.has_table(connection, pair.stage.name, schema=pair.stage.schema):
            clear(connection, [pair])
            continue
        pair.stage.create(connection, checkfirst=False)


def clear(connection: Connection, pairs: Iterable[Staged]) -> None:
    """Empty the staging tables that hold anything (a TRUNCATE of an empty one costs WAL too)."""
    for pair in pairs:
        if connection.scalar(select(select(pair.stage).exists())):
            connection.execute(text(f'TRUNCATE "{pair.stage.schema}"."{pair.stage.name}"'))


def copy(connection: Connection, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """COPY `rows` into `table`, whose columns they fill in order, in the open transaction.

    Cells of jsonb columns are JSON text, times are aware.
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
    pair: Staged,
    source: str,
    rows: Iterable[tuple[Any, ...]],
    now: datetime,
) -> None:
    """COPY rows made for the staging table straight into the current one.

    Raises psycopg's UniqueViolation when a key is there already or comes twice.
    """
    own = len(pair.stage.columns) - len(tables.data_columns(pair.current))
    copy(connection, pair.current, ((source, *row[own:], now) for row in rows))


@dataclass(frozen=True, slots=True)
class Settled:
    """What is staged: records per scope, and the keys of those that had come more than once."""

    distinct: dict[str, int]
    repeated: frozenset[tuple[Any, ...]]


def settle(connection: Connection, pairs: Sequence[Staged], scope: str | None) -> Settled:
    """Leave every record once in the staging tables, as it came last.

    `pairs` begins with the records' own table. Records are counted per value of its column `scope`,
    or under "" when that is None. The planner's statistics are fresh afterwards: without them the
    joins of the merge are planned for empty tables.
    """
    for pair in pairs:
        columns = ", ".join(f'"{name}"' for name in tables.key_columns(pair.current))
        connection.execute(text(f'ANALYZE "{pair.stage.schema}"."{pair.stage.name}" ({columns})'))
    parent = pairs[0]
    keys = tables.key_columns(parent.current)
    newer = parent.stage.alias("newer")
    removed: Iterable[Row[Any]] = ()
    each = select(parent.stage.c[keys[-1]]).group_by(*(parent.stage.c[name] for name in keys))
    repeats = connection.scalar(select(each.having(func.count() > 1).exists()))
    for pair in reversed(pairs) if repeats else ():
        same = [pair.stage.c[name] == newer.c[name] for name in keys]
        later = select(newer).where(*same, newer.c.ord > pair.stage.c.ord)
        removed = connection.execute(
            delete(pair.stage)
            .where(later.exists())
            .returning(*(pair.stage.c[name] for name in keys))
        )
    repeated = frozenset(tuple(row) for row in removed)
    of: ColumnElement[str] = parent.stage.c[scope] if scope else literal("")
    counts = select(of, func.count()).select_from(parent.stage).group_by(of)
    return Settled(dict(connection.execute(counts).all()), repeated)

"""Rows of what the configuration no longer has: finding them, and moving them to history."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    Text,
    cast,
    delete,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from etl.load.stage import Staged
from etl.warehouse import tables
from etl.warehouse.tables import absences, checkpoints, streams


def begins(connection: Connection, table: Table, columns: int) -> list[tuple[str, ...]]:
    """The distinct values of the first `columns` columns of the table's primary key, in order.

    One step down the index for each of them, however many rows there are: PostgreSQL has no skip
    scan for DISTINCT (wiki.postgresql.org/wiki/Loose_indexscan).
    """
    names = [column.name for column in table.primary_key][:columns]
    listed = ", ".join(f'"{name}"' for name in names)
    former = ", ".join(f'held."{name}"' for name in names)
    found = f'"{table.schema}"."{table.name}"'
    rows = connection.execute(
        text(f"""
            WITH RECURSIVE held AS (
                (SELECT {listed} FROM {found} ORDER BY {listed} LIMIT 1)
                UNION ALL
                SELECT following.* FROM held, LATERAL (
                    SELECT {listed} FROM {found} WHERE ({listed}) > ({former})
                    ORDER BY {listed} LIMIT 1
                ) AS following
            )
            SELECT {listed} FROM held
        """)
    )
    return [tuple(row) for row in rows]


def history(table: Table) -> Table:
    """The table of the closed versions of `table`'s rows."""
    return tables.history(table)


def held(connection: Connection, table: Table, source: str, scope: str | None) -> int:
    """How many rows of `source` the table has; with `scope`, those of one scope."""
    query = select(func.count()).select_from(table).where(*_theirs(table, source, scope))
    return connection.execute(query).scalar_one()


def sources(connection: Connection) -> set[str]:
    """Every source that etl.streams knows, also one of which no run ever read a row."""
    return {source for (source,) in begins(connection, streams, 1)}


def noted(connection: Connection, source: str) -> set[str]:
    """The streams of `source` that the bookkeeping knows; a run under way is one that it knows."""
    found: set[str] = set()
    for table in (streams, absences, checkpoints):
        query = select(table.c.stream).where(table.c.source == source).distinct()
        found.update(connection.scalars(query))
    leases = tables.leases
    lasting = (leases.c.source == source, leases.c.until > func.clock_timestamp())
    found.update(connection.scalars(select(leases.c.stream).where(*lasting)))
    return found


def was_run(connection: Connection, source: str) -> bool:
    """Whether there ever was a run of `source`, or a version of a row of it."""
    runs = tables.runs
    query = select(select(runs.c.run_id).where(runs.c.source == source).exists())
    return bool(connection.scalar(query))


def instant(connection: Connection, source: str, names: Iterable[str]) -> datetime:
    """The database's clock (UTC), or later than every change of these streams of `source`."""
    query = select(
        func.greatest(
            func.clock_timestamp(),
            select(func.max(streams.c.changed_at) + text("interval '1 microsecond'"))
            .where(streams.c.source == source, streams.c.stream.in_(list(names)))
            .scalar_subquery(),
        )
    )
    now: datetime = connection.execute(query).scalar_one()
    return now.astimezone(UTC)


def move(
    connection: Connection, table: Table, source: str, scope: str | None, now: datetime
) -> int:
    """Move the rows of `source` (with `scope`, of one scope) to history, closed at `now`; how many.

    Tables of children come before their parents'.
    """
    history = tables.history(table)
    gone = delete(table).where(*_theirs(table, source, scope)).returning(*table.columns).cte("gone")
    names = [column.name for column in table.columns]
    moved = insert(history).from_select([*names, "valid_to"], select(gone, literal(now)))
    return connection.execute(moved.execution_options(preserve_rowcount=True)).rowcount


def drop_stream(connection: Connection, source: str, stream: str, pairs: Sequence[Staged]) -> None:
    """Remove what is kept of a stream for its next run, its staging tables included.

    Its lease stays, ended: its epoch must not come a second time, or a process that slept could
    write under it. etl.runs and etl.rejects stay as the record of what was.
    """
    for table in (streams, absences, checkpoints):
        connection.execute(delete(table).where(table.c.source == source, table.c.stream == stream))
    for pair in pairs:
        stage = pair.stage
        connection.execute(text(f'DROP TABLE IF EXISTS "{stage.schema}"."{stage.name}"'))


def drop_scope(
    connection: Connection, source: str, stream: str, scope: str, table: Table, now: datetime | None
) -> None:
    """Remove what is kept of one scope of a stream for its next run, its watermark included.

    `table` is the records' own; `now` the instant of the change, None where no row was moved.
    """
    first = cast(absences.c.key, JSONB)[0].astext
    connection.execute(
        delete(absences).where(
            absences.c.source == source, absences.c.stream == stream, first == scope
        )
    )
    here = (streams.c.source == source, streams.c.stream == stream)
    kept = streams.c.watermarks.op("-")(cast(scope, Text))
    newest = func.jsonb_each_text(kept).table_valued("key", "value", name="kept")
    mark = select(func.max(cast(newest.c.value, streams.c.watermark.type))).scalar_subquery()
    connection.execute(
        update(streams)
        .where(*here, streams.c.watermarks.has_key(scope))
        .values(watermarks=kept, watermark=mark)
    )
    counted = {"rows": held(connection, table, source, None)}
    changed = {} if now is None else {"changed_at": now}
    connection.execute(update(streams).where(*here).values(**counted, **changed))


def _theirs(table: Table, source: str, scope: str | None) -> list[ColumnElement[bool]]:
    chosen = [table.c.source == source]
    if scope is not None:
        chosen.append(table.c[tables.key_columns(table)[0]] == scope)
    return chosen

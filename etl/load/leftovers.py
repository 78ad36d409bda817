"""Find rows of what the configuration no longer has, and move them to history."""

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

from etl.load.runs import readable
from etl.load.stage import TablePair
from etl.warehouse import tables
from etl.warehouse.tables import absences, checkpoints, streams


def key_prefixes(connection: Connection, table: Table, columns: int) -> list[tuple[str, ...]]:
    """Return the distinct values of the first `columns` key columns of the table, in order.

    Takes one step down the primary key's index for each of them, however many rows there are,
    because PostgreSQL has no skip scan for DISTINCT (wiki.postgresql.org/wiki/Loose_indexscan).
    """
    names = [column.name for column in table.primary_key][:columns]
    listed = ", ".join(f'"{name}"' for name in names)
    previous = ", ".join(f'held."{name}"' for name in names)
    found = f'"{table.schema}"."{table.name}"'
    rows = connection.execute(
        text(f"""
            WITH RECURSIVE held AS (
                (SELECT {listed} FROM {found} ORDER BY {listed} LIMIT 1)
                UNION ALL
                SELECT following.* FROM held, LATERAL (
                    SELECT {listed} FROM {found} WHERE ({listed}) > ({previous})
                    ORDER BY {listed} LIMIT 1
                ) AS following
            )
            SELECT {listed} FROM held
        """)
    )
    return [tuple(row) for row in rows]


def history(table: Table) -> Table:
    """Return the table that holds the closed versions of `table`'s rows."""
    return tables.history(table)


def held(connection: Connection, table: Table, source: str, scope: str | None) -> int:
    """Count the rows of `source` in the table; with `scope`, only those of that scope."""
    query = select(func.count()).select_from(table).where(*_theirs(table, source, scope))
    return connection.execute(query).scalar_one()


def sources(connection: Connection) -> set[str]:
    """Return every source in etl.streams, including those of which no run ever read a row."""
    return {source for (source,) in key_prefixes(connection, streams, 1)}


def noted(connection: Connection, source: str) -> set[str]:
    """Return the streams of `source` in the bookkeeping, including those that run now."""
    found: set[str] = set()
    for table in (streams, absences, checkpoints):
        query = select(table.c.stream).where(table.c.source == source).distinct()
        found.update(connection.scalars(query))
    leases = tables.leases
    lasting = (leases.c.source == source, leases.c.until > func.clock_timestamp())
    found.update(connection.scalars(select(leases.c.stream).where(*lasting)))
    return found


def was_run(connection: Connection, source: str, stream: str | None = None) -> bool:
    """Whether there ever was a run of `source`, or of that stream of it."""
    runs = tables.runs
    theirs = [runs.c.source == source] + ([runs.c.stream == stream] if stream else [])
    return bool(connection.scalar(select(select(runs.c.run_id).where(*theirs).exists())))


def changed_at(connection: Connection, source: str, names: Iterable[str]) -> datetime | None:
    """Return the instant (UTC) of the last change of these streams of `source`; None without one.

    Instants that cannot be read do not count (`runs.readable`).
    """
    query = select(func.max(readable(streams.c.changed_at))).where(
        streams.c.source == source, streams.c.stream.in_(list(names))
    )
    found: datetime | None = connection.scalar(query)
    return found and found.astimezone(UTC)


def move(
    connection: Connection, table: Table, source: str, scope: str | None, now: datetime
) -> int:
    """Move the rows of `source` to history, closed at `now` (UTC); return how many.

    With `scope`, only those of that scope. Tables of children must come before their parents'.
    """
    history = tables.history(table)
    gone = delete(table).where(*_theirs(table, source, scope)).returning(*table.columns).cte("gone")
    names = [column.name for column in table.columns]
    moved = insert(history).from_select([*names, "valid_to"], select(gone, literal(now)))
    return connection.execute(moved.execution_options(preserve_rowcount=True)).rowcount


def drop_stream(
    connection: Connection, source: str, stream: str, pairs: Sequence[TablePair]
) -> None:
    """Delete what is kept of a stream for its next run, including its staging tables.

    The row of its lease stays: if its epoch came a second time, a process that slept could write
    under it. etl.runs and etl.rejects stay as the record of what happened.
    """
    for table in (streams, absences, checkpoints):
        connection.execute(delete(table).where(table.c.source == source, table.c.stream == stream))
    for pair in pairs:
        stage = pair.stage
        connection.execute(text(f'DROP TABLE IF EXISTS "{stage.schema}"."{stage.name}"'))


def drop_scope(
    connection: Connection, source: str, stream: str, scope: str, table: Table, now: datetime | None
) -> None:
    """Delete what is kept of one scope of a stream for its next run, including its watermark.

    `table` is the records' own; `now` is the instant of the change (UTC), None if no row moved.
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
    left = {
        "rows": held(connection, table, source, None),
        # If the scope is configured again, what its first run finds is no news.
        "known_since": streams.c.known_since.op("-")(cast(scope, Text)),
    }
    changed = {} if now is None else {"changed_at": now}
    connection.execute(update(streams).where(*here).values(**left, **changed))


def _theirs(table: Table, source: str, scope: str | None) -> list[ColumnElement[bool]]:
    chosen = [table.c.source == source]
    if scope is not None:
        chosen.append(table.c[tables.key_columns(table)[0]] == scope)
    return chosen

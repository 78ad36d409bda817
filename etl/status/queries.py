"""Read the recorded state of sources and streams from the warehouse."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from psycopg.errors import LockNotAvailable
from sqlalchemy import (
    ARRAY,
    Connection,
    DateTime,
    Engine,
    Select,
    Text,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.exc import DBAPIError

from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.load import lead, leftovers
from etl.load.runs import Run, readable
from etl.providers import PROVIDERS, named
from etl.providers.declare import streams_of
from etl.status import health
from etl.status.health import Overview
from etl.version import __version__
from etl.warehouse import tables
from etl.warehouse.translate import translate_errors

Scopes = Sequence[tuple[str, str, str]]
"""(source, stream, scope), such as ("alibaba_sh", "contact_flows", "ccc-test")."""


def recorded(connection: Connection, redact: Redactor) -> tuple[datetime, list[dict[str, Any]]]:
    """Return the database's clock (UTC) and every row of etl.streams, in the order of their names.

    The rows' errors pass `redact`: an older version, or another program, may have written them.
    """
    columns = [
        readable(column).label(column.name) if isinstance(column.type, DateTime) else column
        for column in tables.streams.columns
    ]
    found = connection.execute(select(*columns).order_by(*tables.streams.primary_key))
    rows = [dict(row._mapping) for row in found]
    for row in rows:
        row["error"] = row["error"] and redact.message(row["error"])
    now = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC), rows


def scopes(connection: Connection, otherwise: Scopes = ()) -> Scopes:
    """Return every scope that has rows, of the streams whose lists are split into scopes.

    Runs in the open transaction and waits for no lock: if another session has locked one of the
    tables, return `otherwise`.
    """
    attempt = connection.begin_nested()
    try:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '200ms'")
        return [
            (source, stream.name, scope)
            for provider in PROVIDERS
            for stream in provider.streams
            if stream.scope is not None
            for source, scope in leftovers.key_prefixes(connection, stream.tables[0], 2)
        ]
    except DBAPIError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        return otherwise
    finally:
        attempt.rollback()  # that puts lock_timeout back, too


def recent(
    engine: Engine,
    streams: Sequence[tuple[str, str]],
    redact: Redactor,
    limit: int = 30,
) -> dict[tuple[str, str], list[Run]]:
    """Return the last `limit` runs of each of `streams`, newest first.

    Times are UTC; errors pass `redact`. Raises WarehouseError, also after 3 seconds without a
    result.
    """
    found: dict[tuple[str, str], list[Run]] = {pair: [] for pair in streams}
    with translate_errors("status", redact), engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout = '3s'")
        for run in _runs(connection, _latest(streams, limit), redact):
            found[run.source, run.stream].append(run)
    return found


def last_runs(
    engine: Engine, streams: Sequence[tuple[str, str]], redact: Redactor, limit: int
) -> list[Run]:
    """Return the last `limit` runs of all of `streams` together, newest first.

    Times are UTC; errors pass `redact`. Raises WarehouseError.
    """
    latest = _latest(streams, limit)
    newest = latest.order_by(latest.selected_columns.started_at.desc()).limit(limit)
    with translate_errors("runs", redact), engine.begin() as connection:
        return list(_runs(connection, newest, redact))


def run(engine: Engine, run_id: str, redact: Redactor) -> Run | None:
    """Return the run with that id; None if there is none. Times and errors are as in `recent`.

    Raises WarehouseError, also after 3 seconds without a result.
    """
    with translate_errors("status", redact), engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout = '3s'")
        # The key starts with the source, so the id alone would be sought in the whole table.
        sources = [name for (name,) in leftovers.key_prefixes(connection, tables.runs, 1)]
        columns = tables.runs.c
        wanted = select(tables.runs).where(
            columns.source == func.any(literal(sources, ARRAY(Text))), columns.run_id == run_id
        )
        return next(_runs(connection, wanted.limit(1), redact), None)


def known_streams(
    engine: Engine, settings: Settings, redact: Redactor, source: str | None = None
) -> list[tuple[str, str]]:
    """Return every (source, stream) that is configured or was synced, in the order of the names.

    With `source` also those of it that only etl.runs knows, because they were forgotten. Raises
    WarehouseError.
    """
    found = {
        (each.name, stream.name)
        for each in settings.sources.values()
        for stream in streams_of(each, named(each.provider))
    }
    rows, runs = tables.streams.c, tables.runs.c
    with translate_errors("runs", redact), engine.begin() as connection:
        found |= {
            (row.source, row.stream) for row in connection.execute(select(rows.source, rows.stream))
        }
        if source is not None:
            query = select(runs.source, runs.stream).where(runs.source == source).distinct()
            found |= {(row.source, row.stream) for row in connection.execute(query)}
    return sorted(found)


def _latest(streams: Sequence[tuple[str, str]], limit: int) -> Select[Any]:
    """Return the query of the last `limit` runs of each of `streams`, one index scan for each."""
    names = func.unnest(
        literal([source for source, _ in streams], ARRAY(Text)),
        literal([stream for _, stream in streams], ARRAY(Text)),
    )
    wanted = names.table_valued("source", "stream", name="wanted").render_derived()
    runs = tables.runs
    latest = (
        select(runs)
        .where(runs.c.source == wanted.c.source, runs.c.stream == wanted.c.stream)
        .order_by(runs.c.started_at.desc())
        .limit(limit)
        .lateral()
    )
    return select(latest).select_from(wanted.join(latest, true()))


def _runs(connection: Connection, query: Select[Any], redact: Redactor) -> Iterator[Run]:
    for row in connection.execute(query):
        run = Run(**{name: _utc(value) for name, value in row._mapping.items()})
        yield replace(run, error=run.error and redact.message(run.error))


def status(engine: Engine, settings: Settings, redact: Redactor) -> Overview:
    """Return `overview` on a connection of `engine`. Raises WarehouseError."""
    with translate_errors("status", redact), engine.begin() as connection:
        return overview(connection, settings, redact)


def overview(connection: Connection, settings: Settings, redact: Redactor) -> Overview:
    """Return the state of every stream that is configured or was ever synced, and who leads."""
    now, rows = recorded(connection, redact)
    held = scopes(connection)
    leader = lead.leader(connection)
    streams = health.assess(settings, rows, now, held=held)
    return Overview(at=now, version=__version__, leader=leader, seen_at=now, streams=streams)


def _utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value

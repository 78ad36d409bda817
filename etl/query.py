"""Questions to the warehouse: `callflow sql`, `callflow status`; the rights that BI tools need."""

import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from psycopg import Connection as PsycopgConnection
from psycopg import Error as PsycopgError
from psycopg import InternalError, ProgrammingError
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo
from sqlalchemy import ARRAY, Connection, Engine, Text, func, literal, select, text, true
from sqlalchemy.exc import DBAPIError

from etl import __version__, embedded, health, lead, tables
from etl.errors import CallflowError, ConfigError
from etl.health import Overview
from etl.load.runs import Run
from etl.redact import Redactor
from etl.rights import DENIED, name_of
from etl.settings import Settings, redactor
from etl.warehouse import plain_errors, sqlstate

READABLE = ("zoom", "twilio", "alibaba", "callflow")
"""Schemas for analysts and BI tools; history is read through the views in them."""


class QueryError(CallflowError):
    """A query that the warehouse does not accept."""

    kind = "query"
    exit_code = 2


_LIMITS = """SELECT set_config(name, reset_val, true) FROM pg_settings
             WHERE name IN ('statement_timeout', 'transaction_timeout')"""


def no_rows() -> QueryError:
    """The error about a statement that is none of a kind that gives rows."""
    return QueryError("it returns no rows", where="sql", advice="SELECT something")


def ask(engine: Engine, query: str) -> Generator[Sequence[Any], None, None]:
    """Run `query` in a read-only transaction: first the column names, then row by row.

    Who may leave before the last row closes it; that ends the query on the server too. Raises
    QueryError with the server's message when it is not a valid query.
    """
    if not query.strip(" \t\r\n;"):
        raise QueryError("the query is empty", where="sql", advice="give a SELECT")
    with plain_errors("sql"), engine.connect() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        # Limits that the server has for this role are meant for what people ask.
        connection.exec_driver_sql(_LIMITS)
        # So that the query ends when this process is killed. Postgres knows this from version 14
        # up, and refuses it where the operating system cannot tell; it is not needed to go on.
        with suppress(DBAPIError), connection.begin_nested():
            connection.exec_driver_sql("SET LOCAL client_connection_check_interval = '5s'")
        raw = connection.connection.driver_connection
        assert isinstance(raw, PsycopgConnection)
        with raw.cursor() as cursor:
            stream = cast("Generator[Sequence[Any], None, None]", cursor.stream(query.encode()))
            try:
                # It holds the connection's lock until it is closed; the rollback would wait for it.
                with closing(stream) as rows:
                    first = next(rows, None)
                    if first is None:
                        cursor.execute(query.encode())  # a stream without rows has no column names
                    if cursor.description is None:
                        raise no_rows()
                    yield [column.name for column in cursor.description]
                    if first is not None:
                        yield first
                        yield from rows
            except PsycopgError as error:
                if error.sqlstate is None and isinstance(error, InternalError | ProgrammingError):
                    connection.invalidate()  # a COPY would still be under way on it
                    raise no_rows() from error
                if error.sqlstate is None or error.sqlstate.startswith(("08", "57")):
                    raise
                what = f"{str(error).splitlines()[0]} ({error.sqlstate})"
                several = "multiple commands" in what
                advice = "one statement only" if several else "mend the query"
                raise QueryError(what, where="sql", advice=advice) from error


def psql(engine: Engine, env: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command line of psql for the warehouse, and the environment, which has its password.

    That is the psql on PATH, else the one beside the embedded Postgres. It is given every parameter
    of the URL that is libpq's, and no secret but the password: it asks for others. Raises
    ConfigError where there is no psql.
    """
    program = shutil.which("psql")
    if program is None:
        with suppress(CallflowError):
            program = shutil.which(embedded.find_binaries(env) / "psql")
    if program is None:
        raise ConfigError(
            "psql is not installed", advice='give a query: callflow sql "SELECT 1", or install psql'
        )
    _, given = engine.dialect.create_connect_args(engine.url)
    secret = {each.keyword.decode(): each.dispchar == b"*" for each in Conninfo.get_defaults()}
    shown = {name: value for name, value in given.items() if not secret.get(name, True)}
    password = {"PGPASSWORD": str(given["password"])} if given.get("password") else {}
    return [program, "-d", make_conninfo("", **shown)], {**env, **password}


@dataclass(frozen=True, slots=True)
class Grants:
    """What came of `grant`: whether the role reads everything, and what an administrator has to do.

    `left` are statements that take more than the rights of this session's role.
    """

    reads: bool
    left: Sequence[str]


def grant(connection: Connection, role: str) -> Grants:
    """Give `role` read-only rights on everything analysts use, now and after migrations.

    REFERENCES is among them: without it information_schema hides the keys that BI tools join by.
    What this session may not do is left out and returned: settings of another role take a
    superuser, or CREATEROLE with ADMIN on that role. Raises ConfigError when there is no such role.
    """
    known = connection.execute(
        text("SELECT rolconfig FROM pg_roles WHERE rolname = :role"), {"role": role}
    ).one_or_none()
    if known is None:
        raise ConfigError(
            f"there is no role {role!r} in the warehouse",
            advice=f"create it first, in psql: CREATE ROLE {name_of(role)} LOGIN PASSWORD '…'",
        )
    name, has = name_of(role), [setting.lower() for setting in known.rolconfig or ()]
    left = _run(
        connection,
        [
            f"ALTER ROLE {name} SET {setting} = '{value}'"
            for setting, value in (("timezone", "UTC"), ("statement_timeout", "5min"))
            if f"{setting}={value}".lower() not in has
        ],
    )
    rights = [
        statement
        for schema in READABLE
        for statement in (
            f"GRANT USAGE ON SCHEMA {schema} TO {name}",
            f"GRANT SELECT, REFERENCES ON ALL TABLES IN SCHEMA {schema} TO {name}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} "
            f"GRANT SELECT, REFERENCES ON TABLES TO {name}",
        )
    ]
    denied = _run(connection, rights)
    # A GRANT of what one may not pass on may be no more than a warning.
    unread = connection.scalars(_UNREAD, {"role": role, "schemas": list(READABLE)}).all()
    denied += [each for each in rights if each not in denied and any(s in each for s in unread)]
    return Grants(not denied, [*left, *denied])


_UNREAD = text("""
    SELECT DISTINCT format('SCHEMA %s ', nspname) FROM pg_namespace
    LEFT JOIN pg_class ON relnamespace = pg_namespace.oid AND relkind IN ('r', 'p', 'v')
    WHERE nspname = ANY(:schemas) AND NOT (
        has_schema_privilege(:role, pg_namespace.oid, 'USAGE')
        AND (pg_class.oid IS NULL OR has_table_privilege(:role, pg_class.oid, 'SELECT')
            AND has_table_privilege(:role, pg_class.oid, 'REFERENCES'))
    )
""")


def _run(connection: Connection, statements: Sequence[str]) -> list[str]:
    """Run `statements`; return those that take rights which this session does not have."""
    denied = []
    for statement in statements:
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(statement)
        except DBAPIError as error:
            if sqlstate(error) != DENIED:
                raise
            denied.append(statement)
    return denied


def recorded(
    connection: Connection, redact: Redactor | None = None
) -> tuple[datetime, list[dict[str, Any]]]:
    """The database's clock (UTC), and every row of etl.streams; its errors pass `redact`."""
    found = connection.execute(select(tables.streams).order_by(*tables.streams.primary_key))
    rows = [dict(row._mapping) for row in found]
    for row in rows:  # an older version may have written them, or somebody else
        row["error"] = row["error"] and (redact or Redactor()).message(row["error"])
    now = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC), rows


def recent(
    engine: Engine,
    streams: Sequence[tuple[str, str]],
    limit: int = 30,
    redact: Redactor | None = None,
) -> dict[tuple[str, str], list[Run]]:
    """The last runs of each of `streams`, newest first; times are UTC, errors pass `redact`.

    Raises WarehouseError, also when it takes longer than 3 seconds.
    """
    redact = redact or Redactor()
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
    found: dict[tuple[str, str], list[Run]] = {pair: [] for pair in streams}
    with plain_errors("status", redact), engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout = '3s'")
        for row in connection.execute(select(latest).select_from(wanted.join(latest, true()))):
            run = Run(**{name: _utc(value) for name, value in row._mapping.items()})
            run.error = run.error and redact.message(run.error)
            found[run.source, run.stream].append(run)
    return found


def _utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def status(engine: Engine, settings: Settings) -> Overview:
    """The state of every stream of the configuration, or that was ever synced; and who leads."""
    redact = redactor(settings)
    with plain_errors("status", redact), engine.connect() as connection:
        now, rows = recorded(connection, redact)
        leader = lead.leader(connection)
    streams = health.assess(settings, rows, now)
    return Overview(at=now, version=__version__, leader=leader, seen_at=now, streams=streams)

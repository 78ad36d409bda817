"""Questions to the warehouse: `callflow sql`, `callflow status`; the rights that BI tools need."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from psycopg import Connection as PsycopgConnection
from psycopg import Error as PsycopgError
from psycopg import sql
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.engine import URL

from etl import embedded, tables
from etl.errors import CallflowError, ConfigError
from etl.units import Unit
from etl.warehouse import plain_errors

READABLE = ("zoom", "twilio", "alibaba", "callflow")
"""Schemas for analysts and BI tools; history is read through the views in them."""


class QueryError(CallflowError):
    """A query that the warehouse does not accept."""

    kind = "query"
    exit_code = 2


def ask(engine: Engine, query: str) -> Iterator[Sequence[Any]]:
    """Run `query` in a read-only transaction: first the column names, then row by row.

    Raises QueryError with the server's message when it is not a valid query.
    """
    with plain_errors("sql"), engine.connect() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        raw = connection.connection.driver_connection
        assert isinstance(raw, PsycopgConnection)
        with raw.cursor() as cursor:
            try:
                rows = cursor.stream(query.encode())
                first = next(rows, None)
                if first is None:
                    cursor.execute(query.encode())  # a stream without rows has no column names
                if cursor.description is None:
                    raise QueryError("it returns no rows", where="sql", advice="SELECT something")
                yield [column.name for column in cursor.description]
                if first is not None:
                    yield first
                    yield from rows
            except PsycopgError as error:
                if error.sqlstate is None or error.sqlstate.startswith(("08", "57")):
                    raise
                what = f"{str(error).splitlines()[0]} ({error.sqlstate})"
                raise QueryError(what, where="sql", advice="mend the query") from error


def psql(url: URL, env: Mapping[str, str]) -> list[str]:
    """The command line of psql for `url`, without its password.

    That is the psql on PATH, else the one beside the embedded Postgres. Raises ConfigError where
    there is none.
    """
    program = shutil.which("psql")
    if program is None:
        with suppress(CallflowError):
            program = shutil.which(embedded.find_binaries(env) / "psql")
    if program is None:
        raise ConfigError(
            "psql is not installed", advice='give a query: callflow sql "SELECT 1", or install psql'
        )
    command = [program, "-d", url.database or "postgres"]
    for flag, value in (("-h", url.host), ("-p", url.port), ("-U", url.username)):
        if value is not None:
            command += [flag, str(value)]
    return command


def psql_environment(url: URL) -> dict[str, str]:
    """The environment for `psql`, with the password in it."""
    options = {
        f"PG{name.upper()}": str(value) for name, value in url.query.items() if name == "sslmode"
    }
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    return {**os.environ, **options, **password}


def grant(connection: Connection, role: str) -> list[str]:
    """Give `role` read-only rights on everything analysts use, now and after migrations.

    REFERENCES is among them: without it information_schema hides the keys that BI tools join by.
    Returns the statements that were run. Raises ConfigError when there is no such role.
    """
    known = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role})
    if known.first() is None:
        raise ConfigError(
            f"there is no role {role!r} in the warehouse",
            advice=f"create it first, in psql: CREATE ROLE {_quoted(role)} LOGIN PASSWORD '…'",
        )
    name = _quoted(role)
    statements = [
        f"ALTER ROLE {name} SET timezone = 'UTC'",
        f"ALTER ROLE {name} SET statement_timeout = '5min'",
    ]
    for schema in READABLE:
        statements += [
            f"GRANT USAGE ON SCHEMA {schema} TO {name}",
            f"GRANT SELECT, REFERENCES ON ALL TABLES IN SCHEMA {schema} TO {name}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} "
            f"GRANT SELECT, REFERENCES ON TABLES TO {name}",
        ]
    for statement in statements:
        connection.exec_driver_sql(statement)
    return statements


def _quoted(role: str) -> str:
    return sql.Identifier(role).as_string()


def status(engine: Engine, units: Sequence[Unit]) -> list[dict[str, Any]]:
    """Per stream of the configuration, or that was ever synced: how far it is and what is wrong."""
    columns = [column for column in tables.streams.columns if column.name != "watermarks"]
    with plain_errors("status"), engine.connect() as connection:
        found = connection.execute(select(*columns).order_by(*tables.streams.primary_key))
        known = {(row.source, row.stream): dict(row._mapping) for row in found}
    never = dict.fromkeys([column.name for column in columns])
    for source, stream in units:
        key = (source.name, stream.name)
        known.setdefault(
            key, {**never, "source": key[0], "stream": key[1], "last_status": "never run"}
        )
    return [known[key] for key in sorted(known)]

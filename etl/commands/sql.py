"""`callflow sql`: one query, read-only, or psql."""

import os
import re
import shutil
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from difflib import get_close_matches
from itertools import chain
from typing import Any, cast

from psycopg import Connection as PsycopgConnection
from psycopg import Error as PsycopgError
from psycopg import capabilities, generators
from psycopg.conninfo import make_conninfo
from psycopg.errors import error_from_result
from psycopg.pq import Conninfo, ExecStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from etl.commands import rows as printed
from etl.commands import values
from etl.commands.access import reading
from etl.commands.moments import as_moment
from etl.commands.output import note, stderr, stdout
from etl.commands.signals import cancelling
from etl.config.redact import Redactor, harmless
from etl.config.settings import Settings
from etl.errors import CallflowError, ConfigError, QueryError
from etl.warehouse import embedded
from etl.warehouse.translate import translate_errors


# --- the command ---------------------------------------------------------------------------------
def run(
    settings: Settings,
    redact: Redactor,
    statement: str | None,
    at: str | None,
    *,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Print the rows of `statement`, "-" being standard input; None opens psql."""
    moment = as_moment(at, "--at")
    if as_csv and as_json:
        raise ConfigError("--csv and --json exclude each other", where="sql", advice="choose one")
    if statement == "-":
        statement = sys.stdin.buffer.read().decode("utf-8-sig", errors="surrogateescape")
    with reading(settings, redact, any_query=True) as (engine, denied):
        if statement is None:
            command, env = psql(engine, os.environ, moment)
            os.execve(command[0], command, env)  # noqa: S606
        asked = ask(engine, statement, redact, denied=denied, at=moment)
        with cancelling(), closing(asked) as rows:
            if not (as_csv or as_json):
                count = printed.print_table(stdout(), rows)
                stderr().print(f"{count} row{'' if count == 1 else 's'}")
                return
            names = next(rows)
            if (unique := values.make_unique(names)) != names:
                renamed = [new for old, new in zip(names, unique, strict=True) if old != new]
                note(f"columns whose name another one has are called {', '.join(renamed)}")
            write = printed.write_csv if as_csv else printed.write_json
            write(chain([unique], rows))


# --- asking --------------------------------------------------------------------------------------
_LIMITS = """SELECT set_config(name, reset_val, true) FROM pg_settings
             WHERE name IN ('statement_timeout', 'transaction_timeout')"""

_AT = text("SELECT set_config('callflow.at', :at, true)")

_AT_ONCE = 100 if capabilities.has_stream_chunked() else 1
"""Rows to take from libpq together; before its version 17 it hands out only one at a time."""


def ask(
    engine: Engine,
    query: str,
    redact: Redactor,
    *,
    denied: str = "use a role that has the right",
    at: datetime | None = None,
) -> Generator[Sequence[Any], None, None]:
    """Run `query` in a read-only transaction; yield the column names, then row after row.

    The views of callflow answer as of `at`; None: as of now, or as the role or the URL has set it.
    Values are those of `values.keep_everything`. A caller that stops early must close the
    generator; closing it also cancels the query on the server, as KeyboardInterrupt does.

    Raises QueryError, with the server's message, for a query that is not valid (`denied` is the
    advice if the role lacks a right), and WarehouseError for everything else.
    """
    statement = _encoded(query)
    with translate_errors("sql", redact), engine.connect() as connection:
        connection.begin()
        connection.execute(text("SET TRANSACTION READ ONLY"))
        # The limits that a server sets for this role are meant for the queries of people.
        connection.exec_driver_sql(_LIMITS)
        if at is not None:
            connection.execute(_AT, {"at": at.isoformat()})
        # So that the query ends if this process is killed. A server whose operating system cannot
        # detect that refuses the setting; the query works without it.
        with suppress(DBAPIError), connection.begin_nested():
            connection.exec_driver_sql("SET LOCAL client_connection_check_interval = '5s'")
        raw = connection.connection.driver_connection
        assert isinstance(raw, PsycopgConnection)
        try:
            names = _columns(raw, statement)
            yield names
            yield from _rows(raw, statement)
        except PsycopgError as error:
            code = error.sqlstate
            if code is None or (code.startswith(("08", "57")) and code != "57014"):
                raise
            first, *more = str(error).splitlines() or [type(error).__name__]
            raise QueryError(
                f"{harmless(first)} ({code})",
                advice=_advice(connection, error, query, denied),
                details="\n".join(harmless(line) for line in more),
            ) from error


def _encoded(query: str) -> bytes:
    if not query.strip(" \t\r\n;"):
        raise QueryError("the query is empty", advice="give a SELECT")
    try:
        statement = query.encode()
    except UnicodeEncodeError:
        raise QueryError("the query is not UTF-8", advice="write it as UTF-8") from None
    if b"\0" in statement:
        raise QueryError("the query has a NUL in it", advice="take it out")
    return statement


def _columns(raw: PsycopgConnection, statement: bytes) -> list[str]:
    """Return the names of the columns that `statement` would give, without running it.

    Raises QueryError for one that gives none, such as INSERT.
    """
    raw.pgconn.send_prepare(b"", statement)
    _done(raw)
    raw.pgconn.send_describe_prepared(b"")
    about = _done(raw)
    if about.nparams:
        raise QueryError("it has a parameter ($1)", advice="write the value in its place")
    if not about.nfields:
        raise QueryError("it returns no rows", advice="SELECT something")
    return [(about.fname(column) or b"").decode() for column in range(about.nfields)]


def _rows(raw: PsycopgConnection, statement: bytes) -> Generator[Sequence[Any], None, None]:
    with raw.cursor() as cursor:
        values.keep_everything(cursor)
        stream = cast(
            "Generator[Sequence[Any], None, None]", cursor.stream(statement, size=_AT_ONCE)
        )
        # The stream holds the connection's lock until it is closed; a rollback would wait for it.
        with closing(stream) as rows:
            yield from rows


def _done(raw: PsycopgConnection) -> PGresult:
    results: list[PGresult] = raw.wait(generators.execute(raw.pgconn))
    if results[-1].status == ExecStatus.FATAL_ERROR:
        raise error_from_result(results[-1], raw.info.encoding)
    return results[-1]


# --- advice --------------------------------------------------------------------------------------
def _advice(connection: Connection, error: PsycopgError, query: str, denied: str) -> str:
    if "multiple commands" in str(error):
        return "one statement only"
    match error.sqlstate:
        case "42P01":
            return _perhaps_meant(connection, query, int(error.diag.statement_position or 0))
        case "42501":
            return denied
        case "25006":
            return "`callflow sql` only reads"
        case "57014":
            return "narrow the query if it took longer than the role's statement_timeout"
        case "42703":
            return "docs/tables.md lists the columns of each table; SELECT * shows them too"
    place = " at the mark" if error.diag.statement_position else ""
    return f"correct the query{place}"


_NAME = re.compile(r'\s*((?:"(?:[^"]|"")+")|[^\W\d][\w$]*)\s*(\.)?')

_READABLE_TABLES = text("""
    SELECT nspname, relname, format('%I.%I', nspname, relname)
    FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname NOT IN ('information_schema')
    AND NOT starts_with(nspname, 'pg_') AND has_schema_privilege(n.oid, 'USAGE')
    AND has_any_column_privilege(pg_class.oid, 'SELECT') ORDER BY 1, 2 LIMIT 5000
""")


def _perhaps_meant(connection: Connection, query: str, position: int) -> str:
    """Return advice about the table that `query` names at `position` and that does not exist.

    `position` counts characters from 1, as Postgres does.
    """
    parts, at = [], max(position - 1, 0)
    while found := _NAME.match(query, at):
        quoted = found[1].startswith('"')
        parts.append(found[1][1:-1].replace('""', '"') if quoted else found[1].lower())
        at = found.end()
        if not found[2]:
            break
    connection.rollback()
    connection.begin()
    tables: dict[str, list[str]] = {}
    for schema, table, name in connection.execute(_READABLE_TABLES):
        tables.setdefault(table, []).append(name)
        tables.setdefault(f"{schema}.{table}", []).append(name)
    last = parts[-1] if parts else ""
    near = tables.get(last, [])
    for wanted in (".".join(parts[-2:]), last):
        if not near:
            near = [
                name for close in get_close_matches(wanted, tables, 1) for name in tables[close]
            ]
    if near:
        return f"did you mean {' or '.join(near[:3])}?"
    return "name a table with its schema, as in zoom.flows; docs/tables.md lists them"


# --- psql ----------------------------------------------------------------------------------------
def psql(
    engine: Engine, env: Mapping[str, str], at: datetime | None = None
) -> tuple[list[str], dict[str, str]]:
    """Return the command line of psql for the warehouse, and its environment with the password.

    With `at`, the views of callflow answer as of then in its session. Takes the psql on PATH, else
    the one of the embedded Postgres. It gets every parameter of the URL that is libpq's, except
    secrets other than the password: psql asks for those.

    Raises ConfigError if there is no psql.
    """
    program = shutil.which("psql")
    if program is None:
        with suppress(CallflowError):
            program = shutil.which(embedded.find_binaries(env) / "psql")
    if program is None:
        raise ConfigError(
            "psql is not installed",
            where="sql",
            advice='install psql, or give a query: callflow sql "SELECT 1"',
        )
    _, given = engine.dialect.create_connect_args(engine.url)
    secret = {each.keyword.decode(): each.dispchar == b"*" for each in Conninfo.get_defaults()}
    shown = {name: value for name, value in given.items() if not secret.get(name, True)}
    if at is not None:
        # Options of the command line replace those of the environment.
        before = shown.get("options") or env.get("PGOPTIONS", "")
        shown["options"] = f"{before} -c callflow.at={at.isoformat()}".strip()
    password = {"PGPASSWORD": str(given["password"])} if given.get("password") else {}
    return [program, "-d", make_conninfo("", **shown)], {**env, **password}

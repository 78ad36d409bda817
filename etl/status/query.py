"""Questions to the warehouse: `callflow sql`, `callflow status`; the rights that BI tools need."""

import re
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, cast

from psycopg import Connection as PsycopgConnection
from psycopg import Error as PsycopgError
from psycopg import capabilities, generators
from psycopg.conninfo import make_conninfo
from psycopg.errors import LockNotAvailable, error_from_result
from psycopg.pq import Conninfo, ExecStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import ARRAY, Connection, DateTime, Engine, Text, func, literal, select, text, true
from sqlalchemy.exc import DBAPIError

from etl import __version__
from etl.config.redact import Redactor, harmless
from etl.config.settings import Settings, redactor
from etl.errors import CallflowError, ConfigError
from etl.load import lead, leftovers
from etl.load.runs import Run, readable
from etl.providers import PROVIDERS
from etl.status import answer, health
from etl.status.health import Overview
from etl.warehouse import embedded, tables
from etl.warehouse.connect import plain_errors, sqlstate
from etl.warehouse.rights import DENIED, name_of

READABLE = (*(provider.name for provider in PROVIDERS), "callflow")
"""Schemas for analysts and BI tools; history is read through the views in them."""


class QueryError(CallflowError):
    """A query that the warehouse does not accept.

    `details` are lines that go below the message: where in the query, and what the server adds.
    """

    kind = "query"
    exit_code = 2

    def __init__(self, what: str, *, advice: str = "", details: str = "") -> None:
        super().__init__(what, where="sql", advice=advice)
        self.details = details

    def __str__(self) -> str:
        return "\n".join(filter(None, (super().__str__(), self.details)))


_LIMITS = """SELECT set_config(name, reset_val, true) FROM pg_settings
             WHERE name IN ('statement_timeout', 'transaction_timeout')"""


_AT_ONCE = 100 if capabilities.has_stream_chunked() else 1
"""Rows that are taken from libpq together; before its version 17 only each alone."""


def no_rows() -> QueryError:
    """The error about a statement that is none of a kind that gives rows; it is not run."""
    return QueryError("it returns no rows", advice="SELECT something")


def ask(
    engine: Engine, query: str, *, denied: str = "use a role that has the right"
) -> Generator[Sequence[Any], None, None]:
    """Run `query` in a read-only transaction: first the column names, then row by row.

    Values are as `answer` has them. Who may leave before the last row closes it; that ends the
    query on the server too, as KeyboardInterrupt does. Raises QueryError with the server's message
    when it is not a valid query; `denied` is the advice where the role lacks a right.
    """
    statement = _encoded(query)
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
        try:
            names = _columns(raw, statement)
            if not names:
                raise no_rows()
            with raw.cursor() as cursor:
                answer.keep_everything(cursor)
                stream = cast(
                    "Generator[Sequence[Any], None, None]", cursor.stream(statement, size=_AT_ONCE)
                )
                # It holds the connection's lock until it is closed; the rollback would wait for it.
                with closing(stream) as rows:
                    yield names
                    yield from rows
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
    """The names of the columns that `statement`, which is not run, would give."""
    raw.pgconn.send_prepare(b"", statement)
    _done(raw)
    raw.pgconn.send_describe_prepared(b"")
    about = _done(raw)
    if about.nparams:
        raise QueryError("it has a parameter ($1)", advice="write the value in its place")
    return [(about.fname(column) or b"").decode() for column in range(about.nfields)]


def _done(raw: PsycopgConnection) -> PGresult:
    results: list[PGresult] = raw.wait(generators.execute(raw.pgconn))
    if results[-1].status == ExecStatus.FATAL_ERROR:
        raise error_from_result(results[-1], raw.info.encoding)
    return results[-1]


def _advice(connection: Connection, error: PsycopgError, query: str, denied: str) -> str:
    if "multiple commands" in str(error):
        return "one statement only"
    match error.sqlstate:
        case "42P01":
            return _missing(connection, query, int(error.diag.statement_position or 0))
        case "42501":
            return denied
        case "25006":
            return "`callflow sql` only reads"
        case "57014":
            return (
                "narrow the query, where it took longer than statement_timeout of the role allows"
            )
    return "fix the query"


_NAME = re.compile(r'\s*((?:"(?:[^"]|"")+")|[^\W\d][\w$]*)\s*(\.)?')


def _missing(connection: Connection, query: str, position: int) -> str:
    """Advice about the table that `query` names at `position` (from 1) and that does not exist."""
    parts, at = [], max(position - 1, 0)
    while found := _NAME.match(query, at):
        quoted = found[1].startswith('"')
        parts.append(found[1][1:-1].replace('""', '"') if quoted else found[1].lower())
        at = found.end()
        if not found[2]:
            break
    connection.rollback()
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
    return "fix the query; a table is named with its schema, as in zoom.flows"


_READABLE_TABLES = text("""
    SELECT nspname, relname, format('%I.%I', nspname, relname)
    FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname NOT IN ('information_schema')
    AND NOT starts_with(nspname, 'pg_') AND has_schema_privilege(n.oid, 'USAGE')
    AND has_any_column_privilege(pg_class.oid, 'SELECT') ORDER BY 1, 2 LIMIT 5000
""")


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


def more_than_reads(connection: Connection) -> str | None:
    """A sentence about the role of this session where it may do more than read."""
    role, is_superuser, owns = connection.execute(
        _MORE_THAN_READS, {"schemas": list(READABLE)}
    ).one()
    if not is_superuser and not owns:
        return None
    return f"`callflow sql` runs with the rights of {role}, " + (
        "a superuser" if is_superuser else "who owns the tables"
    )


_MORE_THAN_READS = text("""
    SELECT rolname, rolsuper, EXISTS (
        SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname = ANY(:schemas) AND relkind = 'r' AND pg_has_role(relowner, 'MEMBER'))
    FROM pg_roles WHERE rolname = current_user
""")


def let_read(connection: Connection, role: str) -> None:
    """Let `role` read what `grant` gives, and `etl`, where that is missing.

    It is an operator's: our own messages send people to etl.rejects and etl.runs.
    """
    schemas = (*READABLE, "etl")
    if connection.scalar(_UNREAD, {"role": role, "schemas": list(schemas)}) is None:
        return
    # Postgres refuses to change the rights on one thing in two sessions at once.
    connection.execute(select(func.pg_advisory_xact_lock(_GRANTS)))
    for statement in _reading(name_of(role), schemas):
        connection.exec_driver_sql(statement)


_GRANTS = 0x63616C6C666C6F77  # "callflow"


def _reading(name: str, schemas: Sequence[str] = READABLE) -> list[str]:
    """Return the statements that let `name` read.

    REFERENCES is among them: without it information_schema hides the keys that BI tools join by.
    """
    return [
        statement
        for schema in schemas
        for statement in (
            f"GRANT USAGE ON SCHEMA {schema} TO {name}",
            f"GRANT SELECT, REFERENCES ON ALL TABLES IN SCHEMA {schema} TO {name}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} "
            f"GRANT SELECT, REFERENCES ON TABLES TO {name}",
        )
    ]


@dataclass(frozen=True, slots=True)
class Grants:
    """What came of `grant`: whether the role reads everything, and what an administrator has to do.

    `left` are statements that take more than the rights of this session's role.
    """

    reads: bool
    left: Sequence[str]


def grant(
    connection: Connection, role: str, *, create: Callable[[str], str] = "in psql: {}".format
) -> Grants:
    """Give `role` read-only rights on everything analysts use, now and after migrations.

    REFERENCES is among them: without it information_schema hides the keys that BI tools join by.
    What this session may not do is left out and returned: settings of another role take a
    superuser, or CREATEROLE with ADMIN on that role. Raises ConfigError when there is no such role;
    `create` says as whom a person runs the statement that makes it.
    """
    known = connection.execute(
        text("SELECT rolconfig FROM pg_roles WHERE rolname = :role"), {"role": role}
    ).one_or_none()
    if known is None:
        raise ConfigError(
            f"there is no role {role!r} in the warehouse",
            advice="create it first, " + create(f"CREATE ROLE {name_of(role)} LOGIN PASSWORD '…'"),
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
    rights = _reading(name)
    denied = _run(connection, rights)
    # What counts is what the role may do: a GRANT of what one may not pass on can be no more than a
    # warning, and one that is refused can be of what an administrator has given already.
    unread = connection.scalars(_UNREAD, {"role": role, "schemas": list(READABLE)}).all()
    left += [
        each
        for each in rights
        if any(f"SCHEMA {schema} " in each for schema in unread)
        or (each in denied and each.startswith("ALTER DEFAULT"))
    ]
    return Grants(not unread, left)


_UNREAD = text("""
    SELECT DISTINCT nspname FROM pg_namespace
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
    columns = [
        readable(column).label(column.name) if isinstance(column.type, DateTime) else column
        for column in tables.streams.columns
    ]
    found = connection.execute(select(*columns).order_by(*tables.streams.primary_key))
    rows = [dict(row._mapping) for row in found]
    for row in rows:  # an older version may have written them, or somebody else
        row["error"] = row["error"] and (redact or Redactor()).message(row["error"])
    now = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC), rows


Scopes = Sequence[tuple[str, str, str]]
"""(source, stream, scope), such as ("alibaba_sh", "contact_flows", "ccc-test")."""


def scopes(connection: Connection, otherwise: Scopes = ()) -> Scopes:
    """What has rows of the streams whose lists are split into scopes; in the open transaction.

    `otherwise` where somebody locks one of their tables: nobody shall wait for that.
    """
    attempt = connection.begin_nested()
    try:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '200ms'")
        return [
            (source, stream.name, scope)
            for provider in PROVIDERS
            for stream in provider.streams
            if stream.scope is not None
            for source, scope in leftovers.begins(connection, stream.tables[0], 2)
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
        held = scopes(connection)
        leader = lead.leader(connection)
    streams = health.assess(settings, rows, now, held=held)
    return Overview(at=now, version=__version__, leader=leader, seen_at=now, streams=streams)

"""Opening the warehouse: a Postgres by URL, or the embedded one; its errors in plain words."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import LiteralString

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.errors import SchemaError, WarehouseError
from etl.providers import SCHEMAS
from etl.warehouse import embedded
from etl.warehouse.tables import metadata

_RAISE = (
    "run again; nothing was lost. When the server's {} ends it again: ALTER ROLE … SET {0} = 0, for"
    " the role in warehouse.url"
).replace("{}", "{0}")
_ADVICE = {
    "25006": "connect to the primary: this server, or this role, only reads",
    "28P01": "check user and password of warehouse.url",
    "28000": "check user and host rules (pg_hba.conf) of warehouse.url",
    "3D000": "create the database, or correct its name in warehouse.url",
    "42501": "give the role the missing right, or use the role that ran `callflow migrate`",
    "42P01": "run `callflow check`: it names what is missing",
    "42703": "run `callflow check`: it names what is missing",
    "3F000": "run `callflow check`: it names what is missing",
    "53100": "free disk space on the database server, then run again; nothing was lost",
    "53200": "the server is out of memory: free some, then run again; nothing was lost",
    "53300": "raise max_connections or close other connections",
    "55P03": "end the session that locks it, then run again; nothing was lost",
    "57014": _RAISE.format("statement_timeout"),
    "25P03": _RAISE.format("idle_in_transaction_session_timeout"),
    "25P04": _RAISE.format("transaction_timeout"),
    "57P03": "the server is starting or stopping; try again in a moment",
    "57P05": _RAISE.format("idle_session_timeout"),
}
_AWAY = "check that the server runs and that warehouse.url names it; then run again"
_NOT_TAKEN = (
    "check user, password and database of warehouse.url; the server answers, and refuses them"
)
_HOST = "correct the host in warehouse.url, or see to the name service"
_REFUSALS = (
    ("password authentication failed", _ADVICE["28P01"]),
    ("SASL authentication failed", _ADVICE["28P01"]),
    ("no password supplied", "put the password into warehouse.url"),
    ("no pg_hba.conf entry", _ADVICE["28000"]),
    ("pg_hba.conf rejects", _ADVICE["28000"]),
    ("authentication failed", _ADVICE["28000"]),
    ("is not permitted to log in", "give the role in warehouse.url LOGIN, or name another one"),
    (
        "permission denied for database",
        "GRANT CONNECT on it to the role in warehouse.url",
    ),
    (
        "is not currently accepting connections",
        "let the database accept them, or name another",
    ),
    ("remaining connection slots", _ADVICE["53300"]),
    ("too many connections", _ADVICE["53300"]),
    ("too many clients", _ADVICE["53300"]),
    ("no more connections allowed", _ADVICE["53300"]),
    ("the database system is", _ADVICE["57P03"]),
    ("recovery mode", _ADVICE["57P03"]),
    (
        "could not translate host name",
        _HOST,
    ),
    ("failed to resolve host", _HOST),
    (
        "server does not support SSL",
        "correct sslmode in warehouse.url, or switch TLS on in the server",
    ),
    ("certificate", "check sslmode and sslrootcert in warehouse.url, and its certificate"),
    ("SSL", "check sslmode in warehouse.url, and TLS in the server"),
    ("no such user", "create the role, or correct the user in warehouse.url"),
    ("no such database", _ADVICE["3D000"]),
)
"""What a connection that fails is told by, as psycopg gives no SQLSTATE then."""
_NO_ROLE = re.compile(r"FATAL: .{0,20}role .{0,200} does not exist")
_NO_DATABASE = re.compile(r"FATAL: .{0,20}database .{0,200} does not exist")

_LOCKED = """
    SELECT DISTINCT ON (c.oid) c.oid::regclass::text, l.pid, a.usename
    FROM pg_catalog.pg_locks l
    JOIN pg_catalog.pg_class c ON c.oid = l.relation
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE l.granted AND c.relkind IN ('r', 'p') AND n.nspname = ANY (%s)
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND l.pid <> pg_catalog.pg_backend_pid()
      AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    ORDER BY c.oid, l.pid LIMIT 3"""


def database_url(
    settings: Settings, env: Mapping[str, str], tell: Callable[[str], None] = lambda note: None
) -> URL:
    """The URL of the configured warehouse; without one the embedded Postgres is started.

    `tell` is given what a person should know about that: data elsewhere, another port. Raises
    EmbeddedError when it cannot be started.
    """
    if settings.warehouse.url is not None:
        return normalise(settings.warehouse.url.get_secret_value())
    return normalise(embedded_server(settings, env, tell).url())


def embedded_server(
    settings: Settings, env: Mapping[str, str], tell: Callable[[str], None] = lambda note: None
) -> embedded.Server:
    """The embedded Postgres of these settings, started where it does not run; as `database_url`."""
    data_dir = settings.warehouse.data_dir or embedded.default_data_dir()
    server = embedded.start(data_dir, env=env)
    for note in server.notes:
        tell(note)
    return server


def normalise(url: str | URL) -> URL:
    """`url` with psycopg 3 as its driver (SQLAlchemy 2.0 takes postgresql:// for psycopg2)."""
    return make_url(url).set(drivername="postgresql+psycopg")


_MULE = "MULE_INTERNAL"
"""The one encoding of databases to which Postgres lets no UTF8 client connect."""

SESSION: Mapping[str, str] = {
    # What names mean: functions, operators and types are Postgres's own. Every table is named with
    # its schema. Temporary tables, which come first unless they are named, come last.
    "search_path": "pg_catalog, pg_temp",
    # What values mean, on the way there and back.
    "client_encoding": "UTF8",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # What a failed statement ends, and what a slow one.
    "exit_on_error": "off",
    "client_min_messages": "warning",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # What new tables are, and how joins of many rows are planned.
    "default_table_access_method": "heap",
    "enable_hashjoin": "on",
    "enable_mergejoin": "on",
    "enable_hashagg": "on",
    "enable_sort": "on",
    "enable_indexscan": "on",
}
"""What holds in every transaction of ours, whatever server, database, role and environment say."""


def connect(url: str | URL, *, most: int | None = 32) -> Engine:
    """Return an engine for `url`, all of whose transactions are READ COMMITTED with SESSION set.

    It opens `most` connections at once; None: as many as are asked for. Errors print no bound
    values, no statements are prepared (poolers).

    The settings are sent with every BEGIN, in one message, and end with the transaction. Nothing
    else holds through PgBouncer as well: it refuses most of what could be sent on connecting, hands
    a session's SET to other clients, and gives each transaction another session.

    A connection that the server ended while it idled is replaced: one from the pool where it is
    taken out, one that is held at `connection.begin()`, when nothing of the transaction was sent.

    Who connects where, and how that is protected, is completed from the environment as in every
    program that uses libpq: PGPASSWORD, PGPASSFILE, PGSSLMODE, PGSERVICE, PGHOST …, unless `url`
    says it. PGOPTIONS, PGAPPNAME, PGCLIENTENCODING and PGTARGETSESSIONATTRS are ignored; what
    PGDATESTYLE, PGTZ and PGGEQO set is overridden. Of several hosts the one that takes writes is
    used. What the server's owner decides stays in force: rights, row security, read-only, where
    tables are stored, how durable a commit is.

    Raises SchemaError, on connecting, where the database cannot hold Unicode.
    """
    url = normalise(url)
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=8,
        pool_pre_ping=True,
        max_overflow=-1 if most is None else most - 8,
        use_native_hstore=False,
        connect_args={
            "application_name": "callflow",
            "client_encoding": "utf8",
            "connect_timeout": 10,
            "prepare_threshold": None,
            "keepalives_idle": 30,
            "tcp_user_timeout": 60_000,
            **_unless_said(url),
        },
    )
    # SQLAlchemy asks a new connection for a few things before its first transaction.
    event.listen(engine, "connect", _opened, insert=True)
    event.listen(engine, "connect", _looked_at)
    event.listen(engine, "begin", _begins)
    return engine


def _unless_said(url: URL) -> dict[str, str]:
    """Parameters that libpq would take from the environment where `url` does not give them."""
    hosts = url.query.get("host", ())
    several = len(hosts.split(",") if isinstance(hosts, str) else hosts) > 1
    ours = {"options": "", "target_session_attrs": "read-write" if several else "any"}
    return {name: value for name, value in ours.items() if name not in url.query}


def _opened(raw: psycopg.Connection, _: object) -> None:
    """Refuse a database in which text is not Unicode; pin what SQLAlchemy does next."""
    encoding = raw.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        name = raw.info.dbname
        raw.close()
        raise _not_unicode(encoding, name)
    _pin(raw)


def _not_unicode(encoding: str | None, name: str = "callflow") -> SchemaError:
    """The error about a database in which only some texts can be stored."""
    return SchemaError(
        f"the database has the encoding {encoding}, which cannot hold every text",
        where="warehouse",
        advice="create one that can, and name it in warehouse.url: CREATE DATABASE "
        f"{sql.Identifier(f'{name}_utf8').as_string()} ENCODING 'UTF8' TEMPLATE template0",
    )


def _looked_at(raw: psycopg.Connection, _: object) -> None:
    raw.rollback()


def _begins(connection: Connection) -> None:
    """Pin the transaction that begins; take another connection where the server ended this one."""
    alone = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
    while True:
        used = connection.info.get("used", False)
        raw = connection.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        try:
            _pin(raw, alone=alone)
        except psycopg.Error as error:
            ended = raw.closed or raw.broken
            if ended:
                connection.invalidate(error)
            if not (ended and used):
                raise DBAPIError.instance(
                    "BEGIN", None, error, psycopg.Error, hide_parameters=True,
                    connection_invalidated=ended, dialect=connection.dialect,
                ) from error  # fmt: skip
        else:
            connection.info["used"] = True
            return


def _pin(raw: psycopg.Connection, *, alone: bool = False) -> None:
    """Begin a transaction, pinned; `alone`: pin the session, each statement is a transaction."""
    # For psycopg, which would send a BEGIN in a message before. It commits and rolls back the same.
    raw.autocommit = True
    raw.execute(_pins(raw.info.server_version, alone=alone))


@cache
def _pins(version: int, *, alone: bool) -> LiteralString:
    """The statements that begin a transaction; none looks up a function or takes a snapshot.

    READ WRITE is not among them: who made a server or a role read-only meant it.
    """
    settings = {**SESSION, **({"transaction_timeout": "0"} if version >= 170000 else {})}
    if alone:
        return "; ".join(f"SET {name} = {value}" for name, value in settings.items())
    lines = (f"SET LOCAL {name} = {value}" for name, value in settings.items())
    return "; ".join(["BEGIN ISOLATION LEVEL READ COMMITTED NOT DEFERRABLE", *lines])


def sqlstate(error: DBAPIError | psycopg.Error) -> str | None:
    """The SQLSTATE that the server gave; None when it gave none: the connection broke."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None)


@contextmanager
def plain_errors(
    where: str, redact: Redactor | None = None, engine: Engine | None = None
) -> Iterator[None]:
    """Turn what SQLAlchemy and psycopg raise into a WarehouseError that says what to do.

    `where` names the place, such as the source and stream; `redact` is for what the server says,
    which may quote values, and the words of a user's own triggers: its first line is told, DETAIL
    never is. A constraint, index or trigger that is not callflow's is named, as a SchemaError; a
    table that is locked is named too, for which `engine` is asked who locks it.
    """
    redact = redact or Redactor()
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:  # COPY runs on psycopg's own connection
        raise _plain(error, where, redact, engine) from error
    except SQLAlchemyError as error:
        what = f"Postgres: {type(error).__name__}: {redact(str(error).partition(chr(10))[0])}"
        raise WarehouseError(what, where=where) from error


def _plain(
    error: DBAPIError | psycopg.Error, where: str, redact: Redactor, engine: Engine | None
) -> WarehouseError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = sqlstate(error)
    said = str(cause).strip()[:_LOOKED_AT]
    first = said.partition("\n")[0] or type(cause).__name__
    if code is None and _MULE in first:
        return _not_unicode(_MULE)
    if code is None:  # libpq's words, with the name of the host
        what = f"Postgres: {redact.name(first, 300)}"
        return WarehouseError(what, where=where, advice=_unreached(said))
    what = f"Postgres: {redact(first)} ({code})"
    diagnosis = cause.diag if isinstance(cause, psycopg.Error) else None
    if diagnosis is not None and (theirs := _theirs(diagnosis, code, redact)):
        named, advice = theirs
        return SchemaError(f"{what}, {named}", where=where, advice=advice)
    if code == "55P03" and (locked := _locked(error, redact, engine)):
        what += f": {locked}"
    advice = _ADVICE.get(code, "")
    if code.startswith("08"):
        advice = _AWAY
    elif code[:2] in ("40", "57"):
        advice = advice or "run again; nothing was lost"
    return WarehouseError(what, where=where, advice=advice or "see the server's log")


def _unreached(said: str) -> str:
    """What to do about a connection that broke, or never came about."""
    if _NO_ROLE.search(said):
        return "create the role, or correct the user in warehouse.url"
    if _NO_DATABASE.search(said):
        return _ADVICE["3D000"]
    for words, advice in _REFUSALS:
        if words in said:
            return advice
    # The server's own words, in whatever language: it was reached.
    refused = re.search(r"port \d{1,5} failed: [^:\s]{3,30}: ", said)
    return _NOT_TAKEN if refused else _AWAY


def _theirs(
    diagnosis: psycopg.errors.Diagnostic, code: str, redact: Redactor
) -> tuple[str, str] | None:
    """What of the user's own refuses a row: its name and what to do; None where it is ours."""
    table = f"{diagnosis.schema_name or '?'}.{diagnosis.table_name or '?'}"
    constraint = diagnosis.constraint_name
    if code.startswith("23") and diagnosis.table_name and (constraint or code == "23502"):
        ours = metadata.tables.get(table)
        if (
            constraint
            and ours is not None
            and constraint in {each.name for each in ours.constraints}
        ):
            return None
        if constraint is None and ours is not None:
            column = ours.c.get(diagnosis.column_name or "")
            if column is not None and not column.nullable:
                return None
        kind = "index or constraint" if code == "23505" else "constraint"
        name = f"{kind} {redact.name(constraint or 'NOT NULL')} on {redact.name(table)}"
        if constraint is None:
            name += f".{redact.name(diagnosis.column_name or '?')}"
        return name, (
            "it is not callflow's and refuses what the provider has: drop it, or change it so that"
            " it allows that; then run again, nothing was lost"
        )
    function = _FUNCTION.search((diagnosis.context or "")[:_LOOKED_AT])
    if function is None or code[:2] in _PASSING:
        return None
    return f"in the function {redact.name(function[1])}", (
        "callflow has no such function, so a trigger calls it: drop the trigger, or let it accept"
        " what the provider has; then run again, nothing was lost"
    )


_FUNCTION = re.compile(r"(?:PL/\w{1,20}|SQL)[ -]\w{1,30} \"?([^\s(\"]{1,130})[(\"]")
_PASSING = ("08", "40", "53", "55", "57", "58")
"""Classes of errors that are no statement's fault: another attempt may not meet them."""
_LOOKED_AT = 10_000
"""Characters of what the server says."""


def _locked(
    error: DBAPIError | psycopg.Error, redact: Redactor, engine: Engine | None
) -> str | None:
    """The table that was waited for, and who locks it, as far as anybody can say."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    context = cause.diag.context or "" if isinstance(cause, psycopg.Error) else ""
    row = re.search(r'in relation "([^"]{1,200})"', context[:_LOOKED_AT])
    if engine is not None:
        with suppress(SQLAlchemyError, psycopg.Error), engine.connect() as connection:
            connection.exec_driver_sql("SET LOCAL statement_timeout = '3s'")
            found = connection.exec_driver_sql(_LOCKED, (list(SCHEMAS),)).all()
            if found:
                return "; ".join(
                    f"{redact.name(table)} is locked by process {pid} of {redact.name(user or '?')}"
                    for table, pid, user in found
                )
    return f"a row of {redact.name(row[1])} is locked" if row else None

"""Opening the warehouse: a Postgres by URL, or the embedded one; its errors in plain words."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import LiteralString

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from etl import embedded
from etl.errors import SchemaError, WarehouseError
from etl.settings import Settings

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
    "53300": "raise max_connections or close other connections",
    "55P03": "another session locks the table; end it, then run again",
    "57P03": "the server is starting or stopping; try again in a moment",
}


def database_url(
    settings: Settings, env: Mapping[str, str], tell: Callable[[str], None] = lambda note: None
) -> URL:
    """The URL of the configured warehouse; without one the embedded Postgres is started.

    `tell` is given what a person should know about that: data elsewhere, another port. Raises
    EmbeddedError when it cannot be started.
    """
    if settings.warehouse.url is not None:
        return normalise(settings.warehouse.url.get_secret_value())
    data_dir = settings.warehouse.data_dir or embedded.default_data_dir()
    server = embedded.start(data_dir, env=env)
    for note in server.notes:
        tell(note)
    return normalise(server.url())


def normalise(url: str | URL) -> URL:
    """`url` with psycopg 3 as its driver (SQLAlchemy 2.0 takes postgresql:// for psycopg2)."""
    return make_url(url).set(drivername="postgresql+psycopg")


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
        raise SchemaError(
            f"the database {name!r} has the encoding {encoding}, which cannot hold every text",
            where="warehouse",
            advice="create one that can, and name it in warehouse.url: CREATE DATABASE "
            f"{sql.Identifier(f'{name}_utf8').as_string()} ENCODING 'UTF8' TEMPLATE template0",
        )
    _pin(raw)


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
def plain_errors(where: str) -> Iterator[None]:
    """Turn what SQLAlchemy and psycopg raise into a WarehouseError that says what to do.

    `where` names the place, such as the source and stream. The server's message is kept to its
    first line: DETAIL may hold values of rows.
    """
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:  # COPY runs on psycopg's own connection
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = sqlstate(error)
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        advice = _ADVICE.get(code or "")
        if code is None or code.startswith("08"):
            advice = "check that the server runs and that warehouse.url names it; then run again"
        elif code[:2] in ("40", "57"):
            advice = advice or "run again; nothing was lost"
        what = f"Postgres: {lines[0]}" + (f" ({code})" if code else "")
        raise WarehouseError(what, where=where, advice=advice or "see the server's log") from error
    except SQLAlchemyError as error:
        raise WarehouseError(
            f"Postgres: {type(error).__name__}: {str(error).splitlines()[0]}", where=where
        ) from error

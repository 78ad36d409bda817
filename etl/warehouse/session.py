"""Settings that hold in every transaction, whatever server, database, role and environment say.

Each engine's events (`connect.connect`) call this module. The settings are sent with every BEGIN,
in one message, and end with the transaction. Nothing else works through PgBouncer as well: it
refuses most of what could be sent on connecting, passes a session's SET on to other clients, and
gives each transaction another session.
"""

from collections.abc import Mapping
from functools import cache
from typing import LiteralString

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from etl.errors import SchemaError

SESSION: Mapping[str, str] = {
    # What names mean: functions, operators and types are Postgres's own. Every table is named with
    # its schema. Temporary tables, which come first unless they are named, come last.
    "search_path": "pg_catalog, pg_temp",
    # What values mean, in both directions.
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

MULE = "MULE_INTERNAL"
"""The one encoding of databases to which Postgres lets no UTF8 client connect."""


NEW = 3
"""New connections that may end before their first transaction, one after the other."""


def pin_sessions(engine: Engine) -> None:
    """Pin every transaction of `engine` to SESSION and READ COMMITTED.

    A connection that the server ended while it was held idle is replaced when its next transaction
    is started explicitly, as nothing of that was sent yet. (Inside `execute` that would be too
    late: SQLAlchemy has made its cursor by then.) Connecting raises SchemaError if the database
    cannot hold Unicode.
    """
    # SQLAlchemy asks a new connection for a few things before its first transaction.
    event.listen(engine, "connect", _pin_new, insert=True)
    event.listen(engine, "connect", _unpin_new)
    event.listen(engine, "begin", _begin)


def not_unicode(encoding: str | None, name: str = "callflow") -> SchemaError:
    """Return the error about a database in which only some texts can be stored."""
    return SchemaError(
        f"the database has the encoding {encoding}, which cannot hold every text",
        where="warehouse",
        advice="create one that can, and name it in warehouse.url: CREATE DATABASE "
        f"{sql.Identifier(f'{name}_utf8').as_string()} ENCODING 'UTF8' TEMPLATE template0",
    )


def _pin_new(raw: psycopg.Connection, _: object) -> None:
    """Refuse a database in which text is not Unicode; pin what SQLAlchemy asks next."""
    encoding = raw.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        name = raw.info.dbname
        raw.close()
        raise not_unicode(encoding, name)
    _pin(raw)


def _unpin_new(raw: psycopg.Connection, _: object) -> None:
    raw.rollback()


def _begin(connection: Connection) -> None:
    """Start a pinned transaction; take another connection if the server ended this one.

    A new connection can also end before its first use, on a machine so busy that it idles until
    then. After NEW of them the error is raised.
    """
    alone = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
    new = 0
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
            new += not used
            if not ended or new >= NEW:
                raise DBAPIError.instance(
                    "BEGIN", None, error, psycopg.Error, hide_parameters=True,
                    connection_invalidated=ended, dialect=connection.dialect,
                ) from error  # fmt: skip
        else:
            connection.info["used"] = True
            return


def _pin(raw: psycopg.Connection, *, alone: bool = False) -> None:
    """Start a transaction, pinned; `alone`: pin the session, in which each statement is one."""
    # Else psycopg would send its own BEGIN in an earlier message. It commits and rolls back alike.
    raw.autocommit = True
    raw.execute(_pins(raw.info.server_version, alone=alone))


@cache
def _pins(version: int, *, alone: bool) -> LiteralString:
    """Return the statements that start a transaction; none calls a function or takes a snapshot.

    READ WRITE is not among them: an administrator who made a server or a role read-only meant it.
    """
    settings = {**SESSION, **({"transaction_timeout": "0"} if version >= 170000 else {})}
    if alone:
        return "; ".join(f"SET {name} = {value}" for name, value in settings.items())
    lines = (f"SET LOCAL {name} = {value}" for name, value in settings.items())
    return "; ".join(["BEGIN ISOLATION LEVEL READ COMMITTED NOT DEFERRABLE", *lines])

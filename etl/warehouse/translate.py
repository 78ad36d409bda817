"""The database's errors, translated into WarehouseErrors that say what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from etl.config.redact import Redactor
from etl.errors import SchemaError, WarehouseError
from etl.warehouse.names import SCHEMAS
from etl.warehouse.session import MULE, not_unicode
from etl.warehouse.tables import metadata

_RAISE = (
    "run again; nothing was lost. If the server's {0} ends it again: ALTER ROLE … SET {0} = 0, for"
    " the role in warehouse.url"
)
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
_AWAY = "check that the server runs and that warehouse.url names it"
_NOT_TAKEN = (
    "check user, password and database of warehouse.url; the server answers, but refuses them"
)
_HOST = "correct the host in warehouse.url, or check the name service"
_OPTION = "correct what follows the question mark in warehouse.url"
_REFUSALS = (
    ("invalid connection option", _OPTION),
    ("invalid sslmode value", _OPTION),
    ("unrecognized configuration parameter", _OPTION),
    ("password authentication failed", _ADVICE["28P01"]),
    ("SASL authentication failed", _ADVICE["28P01"]),
    ("no password supplied", "put the password into warehouse.url"),
    ("no pg_hba.conf entry", _ADVICE["28000"]),
    ("pg_hba.conf rejects", _ADVICE["28000"]),
    ("authentication failed", _ADVICE["28000"]),
    ("is not permitted to log in", "give the role in warehouse.url LOGIN, or name another one"),
    ("permission denied for database", "GRANT CONNECT on it to the role in warehouse.url"),
    ("is not currently accepting connections", "let the database accept them, or name another"),
    ("remaining connection slots", _ADVICE["53300"]),
    ("too many connections", _ADVICE["53300"]),
    ("too many clients", _ADVICE["53300"]),
    ("no more connections allowed", _ADVICE["53300"]),
    ("the database system is", _ADVICE["57P03"]),
    ("recovery mode", _ADVICE["57P03"]),
    ("could not translate host name", _HOST),
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
"""Words that say why a connection failed, and the advice; psycopg gives no SQLSTATE then."""
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


_NO_FAULT = ("08", "40", "53", "55", "57", "58")
"""Classes of errors that are no statement's fault: another attempt may not meet them."""

_FUNCTION = re.compile(r"(?:PL/\w{1,20}|SQL)[ -]\w{1,30} \"?([^\s(\"]{1,130})[(\"]")

_LOOKED_AT = 10_000
"""How many characters of the server's words are looked at."""


def sqlstate(error: DBAPIError | psycopg.Error) -> str | None:
    """Return the SQLSTATE that the server gave; None when the connection broke instead."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None)


@contextmanager
def translate_errors(
    where: str, redact: Redactor | None = None, engine: Engine | None = None
) -> Iterator[None]:
    """Turn what SQLAlchemy and psycopg raise into a WarehouseError that says what to do.

    `where` names the place, such as the source and stream. `redact` is applied to the server's
    words, which may quote values and come from a user's own triggers: their first line is quoted,
    DETAIL never is. A constraint, index or trigger that is not callflow's is named, in a
    SchemaError. A locked table is named too, with its locker, for which `engine` is asked.
    """
    redact = redact or Redactor()
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:  # COPY runs on psycopg's own connection
        raise _translated(error, where, redact, engine) from error
    except SQLAlchemyError as error:
        what = f"Postgres: {type(error).__name__}: {redact(str(error).partition(chr(10))[0])}"
        raise WarehouseError(what, where=where) from error


def _translated(
    error: DBAPIError | psycopg.Error, where: str, redact: Redactor, engine: Engine | None
) -> WarehouseError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = sqlstate(error)
    words = str(cause).strip()[:_LOOKED_AT]
    first = words.partition("\n")[0] or type(cause).__name__
    if code is None and MULE in first:
        return not_unicode(MULE)
    if code is None:  # libpq's words, with the name of the host
        what = f"Postgres: {redact.name(first, 300)}"
        return WarehouseError(what, where=where, advice=_unreached(words))
    what = f"Postgres: {redact(first)} ({code})"
    diagnosis = cause.diag if isinstance(cause, psycopg.Error) else None
    if diagnosis is not None and (theirs := _theirs(diagnosis, code, redact)):
        named, advice = theirs
        return SchemaError(f"{what}, {named}", where=where, advice=advice)
    if code == "55P03" and (locked := _locked(diagnosis, redact, engine)):
        what += f": {locked}"
    advice = _ADVICE.get(code, "")
    if code.startswith("08"):
        advice = _AWAY
    elif code[:2] in ("40", "57"):
        advice = advice or "run again; nothing was lost"
    return WarehouseError(what, where=where, advice=advice or "see the server's log")


def _unreached(words: str) -> str:
    """Return what to do about a connection that broke, or was never made."""
    if _NO_ROLE.search(words):
        return "create the role, or correct the user in warehouse.url"
    if _NO_DATABASE.search(words):
        return _ADVICE["3D000"]
    for part, advice in _REFUSALS:
        if part in words:
            return advice
    # The server's own words, in whatever language: it was reached.
    refused = re.search(r"port \d{1,5} failed: [^:\s]{3,30}: ", words)
    return _NOT_TAKEN if refused else _AWAY


def _theirs(
    diagnosis: psycopg.errors.Diagnostic, code: str, redact: Redactor
) -> tuple[str, str] | None:
    """Name what the user added that refuses a row, and what to do; None if it is callflow's."""
    constraint = diagnosis.constraint_name
    if code.startswith("23") and diagnosis.table_name and (constraint or code == "23502"):
        return _constraint(diagnosis, code, redact)
    function = _FUNCTION.search((diagnosis.context or "")[:_LOOKED_AT])
    if function is None or code[:2] in _NO_FAULT:
        return None
    return f"in the function {redact.name(function[1])}", (
        "callflow has no such function, so a trigger calls it: drop the trigger, or let it accept"
        " what the provider has; then run again, nothing was lost"
    )


def _constraint(
    diagnosis: psycopg.errors.Diagnostic, code: str, redact: Redactor
) -> tuple[str, str] | None:
    """Name a constraint or index that refuses a row, and what to do; None if it is callflow's."""
    table = f"{diagnosis.schema_name or '?'}.{diagnosis.table_name}"
    constraint = diagnosis.constraint_name
    ours = metadata.tables.get(table)
    if ours is not None:
        column = ours.c.get(diagnosis.column_name or "")
        if constraint and constraint in {each.name for each in ours.constraints}:
            return None
        if not constraint and column is not None and not column.nullable:
            return None
    kind = "index or constraint" if code == "23505" else "constraint"
    name = f"{kind} {redact.name(constraint or 'NOT NULL')} on {redact.name(table)}"
    if constraint is None:
        name += f".{redact.name(diagnosis.column_name or '?')}"
    return name, (
        "it is not callflow's and refuses what the provider has: drop it, or change it so that it"
        " allows that; then run again, nothing was lost"
    )


def _locked(
    diagnosis: psycopg.errors.Diagnostic | None, redact: Redactor, engine: Engine | None
) -> str | None:
    """Name the table that was waited for, and who locks it, as far as that can be found out."""
    context = (diagnosis.context or "") if diagnosis else ""
    row = re.search(r'in relation "([^"]{1,200})"', context[:_LOOKED_AT])
    if engine is not None:
        with suppress(SQLAlchemyError, psycopg.Error), engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL statement_timeout = '3s'")
            found = connection.exec_driver_sql(_LOCKED, (list(SCHEMAS),)).all()
            if found:
                return "; ".join(
                    f"{redact.name(table)} is locked by process {pid} of {redact.name(user or '?')}"
                    for table, pid, user in found
                )
    return f"a row of {redact.name(row[1])} is locked" if row else None

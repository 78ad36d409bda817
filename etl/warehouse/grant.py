"""The rights of the roles that only read: analysts, BI tools, the reader of the embedded Postgres.

One of them may also write to a schema that is its own, as dbt does. The rights that callflow itself
needs are in `rights`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError

from etl.errors import ConfigError
from etl.providers import PROVIDERS
from etl.warehouse.denied import DENIED
from etl.warehouse.names import SCHEMAS, name_of
from etl.warehouse.translate import sqlstate

READABLE = (*(provider.name for provider in PROVIDERS), "callflow")
"""Schemas for analysts and BI tools; history is read through the views in them."""

SETTINGS = (("timezone", "UTC"), ("statement_timeout", "5min"), ("jit", "off"))
"""Of a role that reads. Before version 18, Postgres compiles queries on views with a history for
longer than they then run."""

LONGEST_NAME = 63
"""Bytes of a name; Postgres cuts longer ones."""

_GRANTS = 0x63616C6C666C6F77  # "callflow"
"""The advisory lock that a session holds while it changes these rights."""

_MORE_THAN_READS = text("""
    SELECT rolname, rolsuper, EXISTS (
        SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname = ANY(:schemas) AND relkind = 'r' AND pg_has_role(relowner, 'MEMBER'))
    FROM pg_roles WHERE rolname = current_user
""")

_UNREAD = text("""
    SELECT DISTINCT nspname FROM pg_namespace
    LEFT JOIN pg_class ON relnamespace = pg_namespace.oid AND relkind IN ('r', 'p', 'v')
    WHERE nspname = ANY(:schemas) AND NOT (
        has_schema_privilege(:role, pg_namespace.oid, 'USAGE')
        AND (pg_class.oid IS NULL OR has_table_privilege(:role, pg_class.oid, 'SELECT')
            AND has_table_privilege(:role, pg_class.oid, 'REFERENCES'))
        AND NOT (nspname = 'callflow' AND EXISTS (
            SELECT FROM pg_proc WHERE pronamespace = pg_namespace.oid
            AND NOT has_function_privilege(:role, pg_proc.oid, 'EXECUTE')))
    )
""")

_MAY_WRITE = text("""
    SELECT has_schema_privilege(:role, oid, 'CREATE') AND has_schema_privilege(:role, oid, 'USAGE')
    FROM pg_namespace WHERE nspname = :schema
""")


@dataclass(frozen=True, slots=True)
class Grants:
    """The result of `grant`.

    `reads`  whether the role can now read every readable schema.
    `writes` whether it can write to the schema that was asked for; True if none was.
    `left`   statements that need more rights than this session's role has: an administrator has to
             run them.
    """

    reads: bool
    writes: bool
    left: Sequence[str]


def grant(
    connection: Connection,
    role: str,
    *,
    writes: str | None = None,
    create: Callable[[str], str] = "in psql: {}".format,
) -> Grants:
    """Give `role` read-only rights on everything that analysts use, now and after migrations.

    It also gets the schema `writes` to write to, which is created if there is none. Statements that
    this session may not run are skipped and returned: to change the settings of another role, for
    example, takes a superuser, or CREATEROLE with ADMIN on that role. `create` turns the statement
    that creates a role into advice on how to run it.

    Raises ConfigError if there is no such role, or if `writes` cannot be a role's own schema, and
    whatever else Postgres raises.
    """
    if writes is not None:
        _require_own(writes)
    known = connection.execute(
        text("SELECT rolconfig FROM pg_roles WHERE rolname = :role"), {"role": role}
    ).one_or_none()
    if known is None:
        raise ConfigError(
            f"there is no role {role!r} in the warehouse",
            where="grant",
            advice="create it first, " + create(f"CREATE ROLE {name_of(role)} LOGIN PASSWORD '…'"),
        )
    name, has = name_of(role), [setting.lower() for setting in known.rolconfig or ()]
    left = _run_permitted(
        connection,
        [
            f"ALTER ROLE {name} SET {setting} = '{value}'"
            for setting, value in SETTINGS
            if f"{setting}={value}".lower() not in has
        ],
    )
    rights = _reading(name)
    denied = _run_permitted(connection, rights)
    # What counts is what the role can read now. A GRANT without the right to pass it on may only
    # warn, and one that Postgres refuses may repeat what an administrator has already granted.
    unread = connection.scalars(_UNREAD, {"role": role, "schemas": list(READABLE)}).all()
    left += [
        each
        for each in rights
        if any(f"SCHEMA {schema} " in each for schema in unread)
        or (each in denied and each.startswith("ALTER DEFAULT"))
    ]
    may_write = True
    if writes is not None:
        may_write, its = _let_write(connection, role, writes)
        left += its
    return Grants(not unread, may_write, left)


def _require_own(schema: str) -> None:
    """Raise ConfigError for a schema that is not for the objects of a role."""
    why = ""
    if schema in (*SCHEMAS, "information_schema") or schema.startswith("pg_"):
        why = f"the schema {schema} is {'callflow' if schema in SCHEMAS else 'Postgres'}'s own"
    elif not schema or "\0" in schema or len(schema.encode(errors="replace")) > LONGEST_NAME:
        why = f"{schema[:80]!r} cannot be the name of a schema"
    if why:
        raise ConfigError(
            why, where="--writes", advice="name another one, which is created, such as analytics"
        )


def _let_write(connection: Connection, role: str, schema: str) -> tuple[bool, list[str]]:
    """Let `role` write to `schema`; return whether it can, and what is left to do for that."""
    known = {"role": role, "schema": schema}
    may = connection.scalar(_MAY_WRITE, known)
    if may:
        return True, []
    statement = f"CREATE SCHEMA {name_of(schema)} AUTHORIZATION {name_of(role)}"
    if may is not None:
        statement = f"GRANT CREATE, USAGE ON SCHEMA {name_of(schema)} TO {name_of(role)}"
    _run_permitted(connection, [statement])
    # Postgres only warns about a GRANT without the right to pass it on.
    if connection.scalar(_MAY_WRITE, known):
        return True, []
    return False, [statement]


def let_read(connection: Connection, role: str) -> None:
    """Let `role` read what `grant` gives, and `etl`, unless it can read all of that.

    The role belongs to an operator, and our own messages refer to etl.rejects and etl.runs.
    """
    schemas = (*READABLE, "etl")
    if connection.scalar(_UNREAD, {"role": role, "schemas": list(schemas)}) is None:
        return
    # Postgres refuses to change the rights on one object in two sessions at once.
    connection.execute(select(func.pg_advisory_xact_lock(_GRANTS)))
    for statement in _reading(name_of(role), schemas):
        _execute(connection, statement)


def more_than_reads(connection: Connection) -> str | None:
    """Return a sentence about this session's role if it can do more than read, else None."""
    role, is_superuser, owns = connection.execute(
        _MORE_THAN_READS, {"schemas": list(READABLE)}
    ).one()
    if not is_superuser and not owns:
        return None
    return f"`callflow sql` runs with the rights of {role}, " + (
        "a superuser" if is_superuser else "who owns the tables"
    )


def _reading(name: str, schemas: Sequence[str] = READABLE) -> list[str]:
    """Return the statements that let the role `name` (quoted) read `schemas`.

    They include REFERENCES: without it information_schema hides the keys that BI tools join by. And
    EXECUTE on the functions of callflow, which a server may not give to everyone.
    """
    functions = [
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA callflow TO {name}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA callflow GRANT EXECUTE ON FUNCTIONS TO {name}",
    ]
    return [
        statement
        for schema in schemas
        for statement in (
            f"GRANT USAGE ON SCHEMA {schema} TO {name}",
            f"GRANT SELECT, REFERENCES ON ALL TABLES IN SCHEMA {schema} TO {name}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} "
            f"GRANT SELECT, REFERENCES ON TABLES TO {name}",
        )
    ] + functions


def _run_permitted(connection: Connection, statements: Sequence[str]) -> list[str]:
    """Run `statements`; return those that this session's role lacks the rights for."""
    denied = []
    for statement in statements:
        try:
            with connection.begin_nested():
                _execute(connection, statement)
        except DBAPIError as error:
            if sqlstate(error) != DENIED:
                raise
            denied.append(statement)
    return denied


def _execute(connection: Connection, statement: str) -> None:
    """Execute a statement without placeholders; a name in it may contain a percent sign."""
    connection.exec_driver_sql(statement.replace("%", "%%"))

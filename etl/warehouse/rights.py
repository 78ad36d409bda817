"""Rights and objects that migrations and runs need but Postgres lacks, and the SQL that adds them.

The role of `warehouse.url` need only own our schemas: docs/deploy.md, "Database rights".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, text
from sqlalchemy.schema import CreateColumn, CreateTable

from etl.providers.catalog import TABLES
from etl.warehouse import tables
from etl.warehouse.names import SCHEMAS, name_of

_APPENDED = ("SELECT", "INSERT")
_KEPT = (*_APPENDED, "UPDATE")
_CHANGED = (*_KEPT, "DELETE")
_RIGHTS: dict[str, Sequence[str]] = {
    **{table.fullname: _CHANGED for table in tables.metadata.sorted_tables},
    **{table.fullname: _APPENDED for table in map(tables.history, TABLES.values())},
    tables.runs.fullname: _APPENDED,
    **{each.fullname: _KEPT for each in (tables.streams, tables.leases, tables.rejects)},
    "etl.alembic_version": ("SELECT",),
}
"""What a run does with each table."""

_USED = tuple(schema for schema in SCHEMAS if schema != "callflow")
"""Schemas that a run uses; the views of `callflow` are for readers."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Our role on the server, and what it may do there.

    `owners` own our tables. `why_read_only` says what an administrator set; "" if we can write.
    """

    role: str
    database: str
    owners: Sequence[str]
    why_read_only: str


def standing(connection: Connection) -> Standing:
    """Ask for the session's role, the owners of our tables, and whether the session can write."""
    row = connection.execute(
        text("""
            SELECT current_user AS role, current_database() AS database,
                pg_is_in_recovery() AS standby,
                current_setting('transaction_read_only')::bool AS read_only,
                ARRAY(
                    SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class
                    JOIN pg_namespace ON pg_namespace.oid = relnamespace
                    WHERE relkind = 'r' AND nspname = ANY(:schemas) ORDER BY 1
                ) AS owners
        """),
        {"schemas": list(_USED)},
    ).one()
    why = ""
    if row.standby:
        why = "the server is a standby, which only reads"
    elif row.read_only:
        why = "default_transaction_read_only is on for this server, database or role"
    return Standing(row.role, row.database, row.owners, why)


def missing(connection: Connection, *, migrating: bool) -> list[str]:
    """List the rights that a migration, or a run, needs and the session's role lacks.

    They are statements that give them, for an administrator to run in this database.
    """
    role = name_of(connection.scalar(text("SELECT current_user")))
    found = list(_schemas(connection, role) if migrating else _uses(connection, role))
    relations = connection.execute(
        text("""
            SELECT nspname AS schema, relname AS name, pg_has_role(relowner, 'USAGE') AS ours,
                ARRAY(
                    SELECT kind FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS kind
                    WHERE has_table_privilege(pg_class.oid, kind)
                ) AS rights
            FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
            WHERE relkind IN ('r', 'p', 'v') AND nspname = ANY(:schemas) ORDER BY 1, 2
        """),
        {"schemas": list(SCHEMAS)},
    )
    for row in relations:
        full = name_of(row.schema, row.name)
        if not row.ours and (migrating or row.schema == "staging"):
            found.append(f"ALTER TABLE {full} OWNER TO {role};")
        elif not migrating:
            needed = _RIGHTS.get(f"{row.schema}.{row.name}", ())
            if lacking := [right for right in needed if right not in row.rights]:
                found.append(f"GRANT {', '.join(lacking)} ON {full} TO {role};")
    return found


def _schemas(connection: Connection, role: str) -> Iterator[str]:
    """Yield what a migration lacks, which makes missing schemas and comments on all of them."""
    found = connection.execute(
        text("""
            SELECT schema, pg_has_role(nspowner, 'USAGE') AS ours,
                has_database_privilege(current_database(), 'CREATE') AS may_create
            FROM unnest(CAST(:schemas AS text[])) AS schema
            LEFT JOIN pg_namespace ON nspname = schema
        """),
        {"schemas": list(SCHEMAS)},
    )
    for schema, ours, may_create in found:
        if ours is None and not may_create:
            yield f"CREATE SCHEMA {schema} AUTHORIZATION {role};"
        elif ours is False:
            yield f"ALTER SCHEMA {schema} OWNER TO {role};"


def _uses(connection: Connection, role: str) -> Iterator[str]:
    """Yield what a run lacks, which uses the schemas and makes staging tables."""
    found = connection.execute(
        text("""
            SELECT nspname, has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE')
            FROM pg_namespace WHERE nspname = ANY(:schemas) ORDER BY 1
        """),
        {"schemas": list(_USED)},
    )
    for schema, may_use, may_create in found:
        if not may_use:
            yield f"GRANT USAGE ON SCHEMA {schema} TO {role};"
        if schema == "staging" and not may_create:
            yield f"GRANT CREATE ON SCHEMA {schema} TO {role};"


def lost(connection: Connection) -> list[str]:
    """List what a schema at head should have but lacks, as statements that make it again."""
    rows = connection.execute(
        text("""
            SELECT nspname || '.' || relname, attname FROM pg_class
            JOIN pg_namespace ON pg_namespace.oid = relnamespace
            JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
            WHERE relkind IN ('r', 'p') AND nspname = ANY(:schemas)
        """),
        {"schemas": list(SCHEMAS)},
    )
    there: dict[str, set[str]] = {}
    for name, column in rows:
        there.setdefault(name, set()).add(column)
    found: list[object] = []
    for table in tables.metadata.sorted_tables:
        if table.fullname not in there:
            found.append(CreateTable(table).compile(connection))
            continue
        found += [
            f"ALTER TABLE {table.fullname} ADD COLUMN {CreateColumn(column).compile(connection)}"
            for column in table.columns
            if column.name not in there[table.fullname]
        ]
    return [f"{' '.join(str(statement).split())};" for statement in found]


def rehearse(connection: Connection) -> None:
    """Do what a run does to a schema at head, in the open transaction; the caller rolls it back.

    Raises what Postgres raises.
    """
    connection.exec_driver_sql('CREATE UNLOGGED TABLE staging."callflow check" ()')
    for table in tables.metadata.sorted_tables:
        for statement in _nothing(table):
            connection.exec_driver_sql(statement)


def _nothing(table: Table) -> Iterator[str]:
    """Yield statements that need every right on a table, and touch no row."""
    name, column = table.fullname, next(iter(table.columns)).name
    rights = _RIGHTS[name]
    yield f"INSERT INTO {name} SELECT * FROM {name} WHERE false"
    if "UPDATE" in rights:
        yield f"UPDATE {name} SET {column} = {column} WHERE false"
    if "DELETE" in rights:
        yield f"DELETE FROM {name} WHERE false"

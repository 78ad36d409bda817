"""The views and functions on the tables, and all comments.

Each table has a view of its history; the schema callflow has the model (`model/definitions.py`).
None of them holds data, but users build on them, with their own views, functions and rights, which
DROP … CASCADE would drop as well. So a view of ours stays while the tables under it change, and is
replaced in place only if it has to change: its columns keep their order and new ones are appended,
as CREATE OR REPLACE VIEW requires. `dependents.py` says what happens if that is not enough.
"""

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection, Table, text
from sqlalchemy.exc import DBAPIError

from etl.errors import SchemaError
from etl.providers.catalog import PARTS, TABLES
from etl.warehouse import tables
from etl.warehouse.model.contract import HISTORY
from etl.warehouse.model.definition import (
    Definition,
    FunctionDefinition,
    ViewDefinition,
    literal,
)
from etl.warehouse.model.definitions import AllParts, definitions
from etl.warehouse.names import SCHEMAS
from etl.warehouse.translate import sqlstate

CHANGED_RESULT = "42P13"
"""SQLSTATE of a function that is there with another result."""


def history(current: Table) -> str:
    """Return the name of the view of a table's history."""
    return f"{current.fullname}_history"


def of_tables(current: Iterable[Table] = tuple(TABLES.values())) -> tuple[ViewDefinition, ...]:
    """Return the views of the histories of these tables of current rows."""
    return tuple(map(_of_history, current))


def all_views(parts: AllParts = PARTS) -> tuple[Definition, ...]:
    """Return every view and function of ours, each after those that it reads."""
    return (*of_tables(), *definitions(parts))


def create(connection: Connection, wanted: Iterable[Definition] | None = None) -> int:
    """Create the views and functions that are missing, and replace those that have to change.

    `wanted` are all of ours if it is None. Returns how many were made or replaced. Raises
    SchemaError if one of their names is taken by something that is not ours.
    """
    changed = 0
    for each in all_views() if wanted is None else wanted:
        if isinstance(each, FunctionDefinition):
            changed += _create_function(connection, each)
            continue
        there = _columns(connection, each)
        query = each.query([*there, *(name for name in each.columns if name not in there)])
        if there and not _differs(connection, each.name, query):
            continue  # replacing it would wait for readers
        connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {each.name} AS {escaped(query)}")
        changed += 1
    return changed


def require_free(connection: Connection) -> None:
    """Check that the names of the model are free, in a warehouse that does not have it yet.

    Raises SchemaError that names what is there.
    """
    for each in definitions(PARTS):
        if exists(connection, each):
            raise _taken(each.identity, "is there, and this version makes one of that name")


def describe(connection: Connection) -> None:
    """Comment on every schema, table, view, function and column, from their definitions."""
    statements = (
        f"COMMENT ON {what} IS {literal(comment)}" for what, comment in _comments(all_views())
    )
    connection.exec_driver_sql(
        escaped("; ".join(statements))
    )  # a thousand: one after another takes long


def _comments(made: Iterable[Definition]) -> Iterator[tuple[str, str]]:
    """Yield what is commented on, as COMMENT ON names it, and the comment."""
    for schema, comment in SCHEMAS.items():
        yield f"SCHEMA {schema}", comment
    for table in tables.metadata.sorted_tables:
        yield f"TABLE {table.fullname}", table.comment or ""
        for column in table.columns:
            yield f'COLUMN {table.fullname}."{column.name}"', column.comment or ""
    for each in made:
        yield f"{each.kind} {each.identity}", each.comment
        if isinstance(each, ViewDefinition):
            for name, comment in each.columns.items():
                yield f"COLUMN {each.name}.{name}", comment
    yield "TABLE etl.alembic_version", "Revision of the schema."
    yield "COLUMN etl.alembic_version.version_num", "Id of the revision."


def _of_history(current: Table) -> ViewDefinition:
    """Return the view of a table's history: its columns, valid_to, and is_current."""
    comments = {column.name: column.comment or "" for column in current.columns}
    comments |= {column.name: column.comment for column in HISTORY}
    members = {column.name: (column.name, column.name) for column in current.columns} | {
        "valid_to": ("NULL::timestamptz", "valid_to"),
        "is_current": ("true", "false"),
    }
    previous = tables.history(current).fullname

    def query(names: Sequence[str]) -> str:
        now = ", ".join(f"{members[name][0]} AS {name}" for name in names)
        once = ", ".join(f"{members[name][1]} AS {name}" for name in names)
        return f"SELECT {now} FROM {current.fullname} UNION ALL SELECT {once} FROM {previous}"

    comment = f"Every version of {current.fullname}, ever."
    return ViewDefinition(history(current), comment, comments, query)


def exists(connection: Connection, of: Definition) -> bool:
    """Return whether there is a view of that name, or a function of that signature."""
    if isinstance(of, FunctionDefinition):
        found = connection.scalar(text("SELECT to_regprocedure(:name)"), {"name": of.signature})
    else:
        found = connection.scalar(text("SELECT to_regclass(:name)"), {"name": of.name})
    return found is not None


def _columns(connection: Connection, of: ViewDefinition) -> list[str]:
    """List the columns of a view as it is, in order; [] if there is none.

    Raises SchemaError if it is not ours: ours are described, and have no columns but ours.
    """
    if not exists(connection, of):
        return []
    is_ours = text(
        "SELECT relkind = 'v' AND obj_description(oid, 'pg_class') IS NOT NULL"
        " FROM pg_catalog.pg_class WHERE oid = to_regclass(:name)"
    )
    if not connection.scalar(is_ours, {"name": of.name}):
        raise _taken(of.name, "is not a view of callflow's")
    columns = text(
        "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass(:name)"
        " AND attnum > 0 ORDER BY attnum"
    )
    there = list(connection.execute(columns, {"name": of.name}).scalars())
    if strange := [column for column in there if column not in of.columns]:
        raise _taken(of.name, f"has columns that callflow did not make ({', '.join(strange)})")
    return there


def _create_function(connection: Connection, of: FunctionDefinition) -> bool:
    """Create or replace a function, unless it is there and the same; return whether it was.

    Raises SchemaError if it is not ours: ours are described.
    """
    there = connection.execute(
        text(
            "SELECT prosrc, obj_description(oid, 'pg_proc') IS NOT NULL FROM pg_catalog.pg_proc"
            " WHERE oid = to_regprocedure(:signature)"
        ),
        {"signature": of.signature},
    ).one_or_none()
    if there is not None and there[0] == of.body:
        return False
    if there is not None and not there[1]:
        raise _taken(of.signature, "is not a function of callflow's")
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(escaped(of.statement))
    except DBAPIError as error:
        if sqlstate(error) != CHANGED_RESULT:
            raise
        raise _taken(of.signature, "is not a function of callflow's") from error
    return True


def _differs(connection: Connection, name: str, query: str) -> bool:
    """Return whether a view differs from `query`, both as Postgres spells them."""
    spelt = text("SELECT pg_catalog.pg_get_viewdef(to_regclass(:name))")
    connection.exec_driver_sql(f"CREATE VIEW staging.as_it_should_be AS {escaped(query)}")
    wanted = connection.scalar(spelt, {"name": "staging.as_it_should_be"})
    connection.exec_driver_sql("DROP VIEW staging.as_it_should_be")
    return bool(connection.scalar(spelt, {"name": name}) != wanted)


def _taken(name: str, why: str) -> SchemaError:
    return SchemaError(
        f"{name} {why}",
        where="warehouse",
        advice="rename it (ALTER … RENAME TO), then run `callflow migrate`; nothing was changed",
    )


def escaped(statement: str) -> str:
    """Return a statement for psycopg, which reads % as the start of a placeholder."""
    return statement.replace("%", "%%")

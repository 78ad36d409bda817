"""What stands on the tables: views (of every table its history), and all comments.

Neither holds data. So a migration takes the views down before it changes tables; at the head of the
migrations the present views are put up, and every schema, table, view and column is described.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, Table, text
from sqlalchemy.schema import SetColumnComment, SetTableComment

from etl import tables


def drop(connection: Connection) -> None:
    """Drop all views of our schemas."""
    found = connection.execute(
        text(
            "SELECT format('%I.%I', schemaname, viewname) FROM pg_views "
            "WHERE schemaname = ANY(:schemas)"
        ),
        {"schemas": list(tables.SCHEMAS)},
    ).scalars()
    for name in found.all():
        connection.execute(text(f"DROP VIEW IF EXISTS {name} CASCADE"))


def create(connection: Connection) -> None:
    """Create all views with their comments."""
    for current in tables.CURRENT:
        for statement in _history_view(current):
            connection.exec_driver_sql(statement)


def describe(connection: Connection) -> None:
    """COMMENT ON every schema, table and column, from their definitions."""
    for schema, comment in tables.SCHEMAS.items():
        connection.exec_driver_sql(f"COMMENT ON SCHEMA {schema} IS {_quoted(comment)}")
    for table in tables.metadata.sorted_tables:
        connection.execute(SetTableComment(table))
        for column in table.columns:
            connection.execute(SetColumnComment(column))
    version = "etl.alembic_version"
    connection.exec_driver_sql(f"COMMENT ON TABLE {version} IS 'Revision of the schema.'")
    connection.exec_driver_sql(f"COMMENT ON COLUMN {version}.version_num IS 'Id of the revision.'")


def _history_view(current: Table) -> Iterator[str]:
    name = f"{current.fullname}_history"
    columns = ", ".join(column.name for column in current.columns)
    yield (  # names and comments of our own tables only
        f"CREATE VIEW {name} AS "
        f"SELECT {columns}, NULL::timestamptz AS valid_to, true AS is_current "
        f"FROM {current.fullname} "
        f"UNION ALL SELECT {columns}, valid_to, false FROM {tables.HISTORY[current].fullname}"
    )
    comments = {column.name: column.comment or "" for column in current.columns}
    comments["valid_to"] = (
        "When callflow saw that this version was changed or gone (UTC); NULL: it is current."
    )
    comments["is_current"] = "Whether this is the version that exists now."
    yield f"COMMENT ON VIEW {name} IS {_quoted(f'Every version of {current.fullname}, ever.')}"
    for column, comment in comments.items():
        yield f"COMMENT ON COLUMN {name}.{column} IS {_quoted(comment)}"


def _quoted(text_: str) -> str:
    """`text_` as a literal; psycopg reads % as the beginning of a placeholder."""
    return "'" + text_.replace("'", "''").replace("%", "%%") + "'"

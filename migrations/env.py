"""How alembic runs the migrations: in one transaction, views taken down before and put up after.

`etl.migrate` passes a connection; the alembic command line opens one of its own.
"""

import os

from alembic import context
from sqlalchemy import Connection, text

from etl import tables, views
from etl.warehouse import connect

OURS = set(tables.SCHEMAS)


def ours(name: str | None, kind: str, parents: object) -> bool:
    """Autogenerate looks at our schemas only, and not at what every source creates for itself."""
    return kind != "schema" or name in OURS - {"staging"}


def empty_staging(connection: Connection) -> None:
    """Drop the sources' staging tables: the next run of each makes them as they have to be."""
    found = text(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'staging'"
    )
    for name in connection.execute(found).scalars().all():
        connection.execute(text(f"DROP TABLE {name}"))


def run(connection: Connection) -> None:
    """Migrate with `connection`, whose transaction belongs to the caller."""
    # One migration at a time: a second process waits here, then finds nothing to do.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('callflow migrate'))"))
    # IF NOT EXISTS asks for CREATE on the database, even where the schema exists.
    if not connection.dialect.has_schema(connection, "etl"):
        connection.execute(text("CREATE SCHEMA etl"))
    context.configure(
        connection=connection,
        target_metadata=tables.metadata,
        version_table_schema="etl",
        include_schemas=True,
        include_name=ours,
        transaction_per_migration=False,
    )
    views.drop(connection)
    empty_staging(connection)
    context.run_migrations()
    head = context.get_head_revision()
    if head is not None and context.get_context().get_current_revision() == head:
        views.create(connection)
        views.describe(connection)


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    url = context.get_x_argument(as_dictionary=True).get("url")
    engine = connect(url or os.environ["CALLFLOW_WAREHOUSE__URL"])
    with engine.begin() as opened:
        run(opened)

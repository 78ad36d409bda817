"""How alembic runs the migrations: in one transaction, with the views in place.

`etl.warehouse.migrate` passes a connection; the alembic command opens its own, and then goes the
same way. There is no offline mode: what a migration has to do depends on what users have built on
the warehouse.
"""

import os

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from etl.errors import SchemaError
from etl.providers.catalog import PARTS
from etl.sync.rebuild import rebuild_changes
from etl.warehouse import dependents, migrate, tables, views
from etl.warehouse.connect import connect
from etl.warehouse.model.definitions import definitions
from etl.warehouse.names import SCHEMAS
from etl.warehouse.translate import sqlstate

OURS = set(SCHEMAS)


def ours(name: str | None, kind: str, parents: object) -> bool:
    """Let autogenerate see our schemas only, without `staging`, where each source makes tables."""
    return kind != "schema" or name in OURS - {"staging"}


def empty_staging(connection: Connection) -> None:
    """Drop the sources' staging tables: the next run of each makes them in their new shape."""
    found = text(
        "SELECT format('%I.%I', nspname, relname) FROM pg_catalog.pg_class"
        " JOIN pg_catalog.pg_namespace AS place ON place.oid = relnamespace"
        " WHERE nspname = 'staging' AND relkind = 'r' AND relpersistence = 'u'"
        " AND obj_description(pg_class.oid, 'pg_class') LIKE 'Pages of a running scan of %'"
    )
    names = connection.execute(found).scalars().all()
    if theirs := dependents.dependents(connection, names, names, whole=False):
        raise dependents.blocked_by(theirs)
    for name in names:
        connection.execute(text(f"DROP TABLE {name}"))


def change_tables(connection: Connection) -> list[str]:
    """Run the migrations; return the statements to run after the views have been made again.

    Our views stay where they are, unless a migration changes what they read: then the model gives
    way and, if that is not enough, the histories that it reads do too.
    """
    again: list[str] = []
    for in_the_way in (definitions(PARTS), views.of_tables()):
        if try_to_change_tables(connection) is None:
            return again
        again += dependents.withdraw(connection, in_the_way)
    if (refused := try_to_change_tables(connection)) is not None:
        raise dependents.blocked(connection, migrate.detail(refused)) from refused
    return again


def try_to_change_tables(connection: Connection) -> DBAPIError | None:
    """Run the migrations; return the error, if something that depends on a table is in the way."""
    try:
        with connection.begin_nested():
            context.run_migrations()
    except DBAPIError as error:
        if sqlstate(error) not in dependents.IN_THE_WAY:
            raise
        return error
    return None


def run(connection: Connection) -> None:
    """Migrate with `connection`, whose transaction belongs to the caller.

    Raises SchemaError for a schema that does not fit this version, and for what stands in the way.
    """
    # One migration at a time: a second process waits here, then finds nothing to do.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('callflow migrate'))"))
    migrate.require_known(migrate.state(connection))
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
    empty_staging(connection)
    had_log = connection.dialect.has_table(connection, "changes", schema="history")
    if not had_log:
        views.require_free(connection)
    again = change_tables(connection)
    head = context.get_head_revision()
    if head is not None and context.get_context().get_current_revision() == head:
        views.create(connection)
        if not had_log:
            rebuild_changes(connection)
        for statement in again:
            connection.exec_driver_sql(statement)
        views.describe(connection)


def run_alone() -> None:
    """Migrate the database of `-x url=…` or CALLFLOW_WAREHOUSE__URL."""
    url = context.get_x_argument(as_dictionary=True).get("url")
    engine = connect(url or os.environ["CALLFLOW_WAREHOUSE__URL"])
    try:
        migrate.patiently(engine, run)
    except SchemaError as error:
        raise CommandError(str(error)) from error
    finally:
        engine.dispose()


if context.is_offline_mode():
    raise CommandError(
        "callflow's migrations depend on the warehouse: there is no offline mode (--sql); "
        "run `callflow migrate` or `alembic upgrade head` on a copy to see what they do"
    )
if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    run_alone()

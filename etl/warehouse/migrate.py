"""The schema's version: alembic's migrations, run from wherever callflow is installed.

alembic and the definitions of the views are imported inside functions: most commands only ask
whether the schema is at head, and the imports would take a quarter of their start-up time.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from etl.errors import SchemaError
from etl.warehouse.connect import connect
from etl.warehouse.denied import suggest_grants
from etl.warehouse.names import SCHEMAS, name_of
from etl.warehouse.tables import REVISION
from etl.warehouse.translate import sqlstate

if TYPE_CHECKING:
    from alembic.config import Config

State = Literal["empty", "unreleased", "behind", "head", "unknown"]
"""How a schema compares with this version of callflow; "unreleased" and "unknown" do not fit."""

UNRELEASED = ("0001", "0002")
"""Revisions from before the first release, from which no migration leads on."""

T = TypeVar("T")

TRIES = 20
"""How often a migration is tried while other sessions hold locks: for about a minute."""

PATIENCE = "1s"
"""How long one attempt waits for a lock, which blocks all who want that table after it."""

_LOCKED = ("55P03", "40P01")
"""SQLSTATEs: a lock was not available in time, a deadlock."""

_HOLDERS = """
SELECT session.pid, session.usename, session.application_name, session.state,
       pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - session.xact_start)::text
  FROM pg_catalog.pg_stat_activity AS session
 WHERE session.pid <> pg_catalog.pg_backend_pid() AND EXISTS (
       SELECT FROM pg_catalog.pg_locks AS lock
        WHERE lock.pid = session.pid AND lock.granted
          AND lock.database = (SELECT oid FROM pg_catalog.pg_database
                                WHERE datname = pg_catalog.current_database())
          AND (lock.locktype = 'advisory'
               AND lock.objid::bigint
                   = pg_catalog.hashtext('callflow migrate')::bigint & 4294967295
               OR lock.relation IN (
                   SELECT relation.oid FROM pg_catalog.pg_class AS relation
                     JOIN pg_catalog.pg_namespace AS place ON place.oid = relation.relnamespace
                    WHERE place.nspname = ANY(CAST(:schemas AS text[])))))
 ORDER BY session.xact_start
"""


def migrations() -> Path:
    """Return the directory of the migrations: inside etl in the wheel, beside it in a checkout."""
    here = Path(__file__).resolve().parents[1]
    inside = here / "migrations"
    return inside if inside.is_dir() else here.parent / "migrations"


def _config(connection: Connection | None = None) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def state(connection: Connection) -> State:
    """Return how the schema compares with this version of callflow.

    "unknown" is a revision that this version does not have: the schema is newer than the program.
    """
    if connection.scalar(text("SELECT to_regclass('etl.alembic_version')")) is None:
        return "empty"
    current = connection.scalar(text("SELECT version_num FROM etl.alembic_version"))
    if current is None:
        return "empty"
    if current == REVISION:
        return "head"
    if current in UNRELEASED:
        return "unreleased"
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_config())
    known = {revision.revision for revision in script.walk_revisions()}
    return "behind" if current in known else "unknown"


def is_hidden(connection: Connection) -> bool:
    """Return whether there is a schema of ours whose state this role has no right to read."""
    hidden = """
        SELECT NOT (has_schema_privilege(n.oid, 'USAGE') AND coalesce(
            (SELECT has_table_privilege(c.oid, 'SELECT') FROM pg_class c
             WHERE relnamespace = n.oid AND relname = 'alembic_version'), true))
        FROM pg_namespace n WHERE nspname = 'etl'"""
    return bool(connection.scalar(text(hidden)))


def upgrade(
    url: str | URL, *, tries: int = TRIES, sleep: Callable[[float], None] = time.sleep
) -> State:
    """Bring the schema at `url` to head, in one transaction; return its state before.

    Raises SchemaError if the schema does not fit (`require_known`), if something of the user's
    depends on what has to change, and if other sessions keep a lock (`patiently`); WarehouseError
    for anything else that Postgres says, with the SQL that gives missing rights. Nothing was
    changed then.
    """
    engine = connect(url)
    try:
        with suggest_grants(engine, "warehouse", migrating=True):
            return patiently(engine, _upgrade, tries=tries, sleep=sleep)
    finally:
        engine.dispose()


def _upgrade(connection: Connection) -> State:
    from etl.warehouse import views

    before = state(connection)
    if before != "head":
        to_head(connection)
    elif views.create(connection):  # a new version may have other views of the same tables
        views.describe(connection)
    return before


def patiently(
    engine: Engine,
    change: Callable[[Connection], T],
    *,
    tries: int = TRIES,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Run `change` in a transaction that waits at most PATIENCE for a lock; return its result.

    Readers that ask for the same lock meanwhile wait behind it, so they are never blocked for long.
    There are up to `tries` attempts. Raises SchemaError that names the sessions in the way.
    """
    for attempt in range(1, tries + 1):
        try:
            with engine.begin() as connection:
                connection.execute(
                    text("SELECT set_config('lock_timeout', :limit, true)"), {"limit": PATIENCE}
                )
                return change(connection)
        except DBAPIError as error:
            if sqlstate(error) not in _LOCKED:
                raise
            with engine.begin() as connection:
                holders = connection.execute(text(_HOLDERS), {"schemas": [*SCHEMAS]}).all()
            if attempt == tries:
                raise _locked([tuple(row) for row in holders]) from error
        sleep(min(0.25 * attempt, 2.0))
    raise AssertionError("never tried")


def detail(error: DBAPIError) -> str:
    """Return what Postgres says beyond an error's first line: names of objects, no values here."""
    cause = error.orig
    return (cause.diag.message_detail or "") if isinstance(cause, psycopg.Error) else ""


def to_head(connection: Connection) -> None:
    """Run the migrations that are left, in the open transaction (migrations/env.py).

    Raises SchemaError as `upgrade` does, and what Postgres raises.
    """
    from alembic import command

    command.upgrade(_config(connection), "head")


def fit(before: State, url: str | URL, *, behind_too: bool) -> None:
    """Bring an empty schema to head, and with `behind_too` one that is behind.

    `before` is its state. Raises SchemaError if it does not fit this version of callflow.
    """
    require_known(before)
    if before == "behind" and not behind_too:
        raise behind()
    if before != "head":
        upgrade(url)


def require_known(before: State) -> None:
    """Raise SchemaError for a state from which this version's migrations do not lead to head."""
    if before == "unreleased":
        raise SchemaError(
            "the schema was made before the first release of callflow (revision "
            f"{' or '.join(UNRELEASED)}), and no migration leads on from there",
            where="warehouse",
            advice="no data was touched: name a new, empty database in warehouse.url, or move the "
            f"old schemas aside ({_RENAMES}); then run `callflow migrate` and a first full sync",
        )
    if before == "unknown":
        raise SchemaError(
            "the schema was made by a newer version of callflow",
            where="warehouse",
            advice="upgrade callflow to that version; nothing was changed",
        )


_RENAMES = " ".join(f"ALTER SCHEMA {name} RENAME TO old_{name};" for name in SCHEMAS)


def behind() -> SchemaError:
    """Return the error about a schema that an older version of callflow has made."""
    return SchemaError(
        "the schema is behind this version of callflow",
        where="warehouse",
        advice="run `callflow migrate`",
    )


def empty() -> SchemaError:
    """Return the error about a warehouse that has no tables and should not be given any."""
    return SchemaError(
        "the warehouse has no tables yet, and a dry run creates none; nothing was written",
        where="warehouse",
        advice="run `callflow migrate`; then everything that the providers have would be new",
    )


def hidden(role: str) -> SchemaError:
    """Return the error about a role for which `is_hidden` holds."""
    name = name_of(role)
    return SchemaError(
        f"the role {role} may not read the schema etl, in which callflow keeps its books",
        where="warehouse",
        advice="set warehouse.url to the role that ran `callflow migrate`, or let this one read: "
        f"GRANT USAGE ON SCHEMA etl TO {name}; GRANT SELECT ON ALL TABLES IN SCHEMA etl TO {name}."
        " For `callflow sql` it has what it needs",
    )


def _locked(holders: Sequence[tuple[Any, ...]]) -> SchemaError:
    who = "; ".join(
        f"pid {pid}, role {role}, {name or 'no application name'}, {activity}"
        + (f", in a transaction for {age}" if age else "")
        for pid, role, name, activity, age in holders
    )
    return SchemaError(
        "another session keeps a table or view locked that has to change"
        + (f": {who}" if who else ""),
        where="warehouse",
        advice="let it finish, or end it (SELECT pg_terminate_backend(pid)), then run `callflow "
        "migrate`; nothing was changed",
    )

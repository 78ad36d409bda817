"""The schema's version: alembic's migrations, run from wherever callflow is installed.

alembic is imported where it is needed: most commands only ask whether the schema is at head, and
importing it would be a quarter of their start-up.
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
from etl.providers import SCHEMAS
from etl.warehouse.connect import connect, sqlstate
from etl.warehouse.rights import name_of, plain_rights
from etl.warehouse.tables import REVISION

if TYPE_CHECKING:
    from alembic.config import Config

State = Literal["empty", "behind", "head", "unknown"]

T = TypeVar("T")

TRIES = 20
"""How often a migration is tried while other sessions keep locks: for about a minute."""

PATIENCE = "1s"
"""How long one try waits for a lock, and keeps everybody else waiting who wants that table."""

_LOCKED = ("55P03", "40P01")  # a lock cannot be had in time, a deadlock

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
    """The folder of the migrations: in the wheel inside etl, in a checkout beside it."""
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
    """How the schema stands to this version of callflow.

    "unknown" is a revision that this version does not have: the schema is newer than the program.
    """
    if connection.scalar(text("SELECT to_regclass('etl.alembic_version')")) is None:
        return "empty"
    current = connection.scalar(text("SELECT version_num FROM etl.alembic_version"))
    if current is None:
        return "empty"
    if current == REVISION:
        return "head"
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_config())
    known = {revision.revision for revision in script.walk_revisions()}
    return "behind" if current in known else "unknown"


def is_hidden(connection: Connection) -> bool:
    """Whether there is a schema of ours whose state this role may not read."""
    hidden = """
        SELECT NOT (has_schema_privilege(n.oid, 'USAGE') AND coalesce(
            (SELECT has_table_privilege(c.oid, 'SELECT') FROM pg_class c
             WHERE relnamespace = n.oid AND relname = 'alembic_version'), true))
        FROM pg_namespace n WHERE nspname = 'etl'"""
    return bool(connection.scalar(text(hidden)))


def upgrade(
    url: str | URL, *, tries: int = TRIES, sleep: Callable[[float], None] = time.sleep
) -> State:
    """Bring the schema at `url` to head, in one transaction; return how it stood before.

    Raises SchemaError when the schema is newer than this version of callflow, when something of the
    user's stands in the way, and when other sessions keep a lock (see `patiently`); WarehouseError
    for what else Postgres says: it has the SQL that gives the rights which are missing. Nothing was
    changed then.
    """

    def do(connection: Connection) -> State:
        before = state(connection)
        if before == "unknown":
            raise newer()
        if before != "head":
            to_head(connection)
        return before

    engine = connect(url)
    try:
        with plain_rights(engine, "warehouse", migrating=True):
            return patiently(engine, do, tries=tries, sleep=sleep)
    finally:
        engine.dispose()


def patiently(
    engine: Engine,
    do: Callable[[Connection], T],
    *,
    tries: int = TRIES,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """`do`, in a transaction that waits for a lock for PATIENCE only; what it returns.

    Whoever asks for the same lock meanwhile waits behind it, so readers are never kept for long. It
    is tried up to `tries` times. Raises SchemaError that names the sessions in the way.
    """
    for attempt in range(1, tries + 1):
        try:
            with engine.begin() as connection:
                connection.execute(
                    text("SELECT set_config('lock_timeout', :limit, true)"), {"limit": PATIENCE}
                )
                return do(connection)
        except DBAPIError as error:
            if sqlstate(error) not in _LOCKED:
                raise
            with engine.connect() as connection:
                holders = connection.execute(text(_HOLDERS), {"schemas": [*SCHEMAS]}).all()
            if attempt == tries:
                raise _locked([tuple(row) for row in holders]) from error
        sleep(min(0.25 * attempt, 2.0))
    raise AssertionError("never tried")


def detail(error: DBAPIError) -> str:
    """What Postgres says of an error beyond its first line; it names objects, no values here."""
    cause = error.orig
    return (cause.diag.message_detail or "") if isinstance(cause, psycopg.Error) else ""


def to_head(connection: Connection) -> None:
    """Run the migrations that are left, in the open transaction. Raises what Postgres raises."""
    from alembic import command

    command.upgrade(_config(connection), "head")


def fit(before: State, url: str | URL, *, behind_too: bool) -> None:
    """Bring an empty schema, with `behind_too` also an old one, to head; `before` is its state.

    Raises SchemaError when it does not fit this version of callflow.
    """
    if before == "unknown":
        raise newer()
    if before == "behind" and not behind_too:
        raise behind()
    if before != "head":
        upgrade(url)


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


def hidden(role: str) -> SchemaError:
    """The error about a role for whom `is_hidden`."""
    name = name_of(role)
    return SchemaError(
        f"the role {role} may not read the schema etl, in which callflow keeps its books",
        where="warehouse",
        advice="set warehouse.url to the role that ran `callflow migrate`, or let this one read: "
        f"GRANT USAGE ON SCHEMA etl TO {name}; GRANT SELECT ON ALL TABLES IN SCHEMA etl TO {name}."
        " For `callflow sql` it has what it needs",
    )


def behind() -> SchemaError:
    """The error about a schema that an older version of callflow has made."""
    return SchemaError(
        "the schema is behind this version of callflow",
        where="warehouse",
        advice="run `callflow migrate`",
    )


def newer() -> SchemaError:
    """The error about a schema that a newer version of callflow has made."""
    return SchemaError(
        "the schema was made by a newer version of callflow",
        where="warehouse",
        advice="upgrade callflow to that version; nothing was changed",
    )

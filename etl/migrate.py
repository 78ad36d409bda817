"""The schema's version: alembic's migrations, run from wherever callflow is installed.

alembic is imported where it is needed: most commands only ask whether the schema is at head, and
importing it would be a quarter of their start-up.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from etl.errors import SchemaError
from etl.rights import plain_rights
from etl.tables import REVISION
from etl.warehouse import connect

if TYPE_CHECKING:
    from alembic.config import Config

State = Literal["empty", "behind", "head", "unknown"]


def migrations() -> Path:
    """The folder of the migrations: in the wheel beside this file, in a checkout one level up."""
    here = Path(__file__).resolve().parent
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


def upgrade(url: str | URL) -> State:
    """Bring the schema at `url` to head, in one transaction; return how it stood before.

    Raises SchemaError when the schema is newer than this version of callflow, and WarehouseError
    for what Postgres says; it has the SQL that gives the rights which are missing.
    """
    engine = connect(url)
    try:
        with plain_rights(engine, "warehouse", migrating=True), engine.begin() as connection:
            before = state(connection)
            if before == "unknown":
                raise newer()
            if before != "head":
                to_head(connection)
    finally:
        engine.dispose()
    return before


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

"""The migrations make what tables.py says, at once or not at all, as often as one likes."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from etl import migrate, tables, views
from etl.errors import SchemaError, WarehouseError
from etl.load import stage
from etl.warehouse import connect

ROOT = Path(__file__).resolve().parents[1]

OURS = "n.nspname = ANY(:schemas)"

CATALOG = {
    "schemas": "SELECT n.nspname, obj_description(n.oid, 'pg_namespace')"
    f" FROM pg_namespace n WHERE {OURS}",
    "relations": "SELECT n.nspname, c.relname, c.relkind, c.relpersistence, c.reloptions,"
    " obj_description(c.oid, 'pg_class')"
    f" FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE {OURS}",
    "columns": "SELECT n.nspname, c.relname, a.attname, a.attnum,"
    " format_type(a.atttypid, a.atttypmod), l.collname, a.attnotnull, a.attidentity,"
    " a.attgenerated, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)"
    " FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid"
    " JOIN pg_namespace n ON n.oid = relnamespace"
    " LEFT JOIN pg_collation l ON l.oid = attcollation"
    " LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum"
    f" WHERE attnum > 0 AND NOT attisdropped AND {OURS}",
    "constraints": "SELECT n.nspname, conrelid::regclass::text, conname, contype,"
    " pg_get_constraintdef(k.oid)"
    f" FROM pg_constraint k JOIN pg_namespace n ON n.oid = connamespace WHERE {OURS}",
    "indexes": f"SELECT n.nspname, indexname, indexdef FROM pg_indexes, pg_namespace n"
    f" WHERE n.nspname = schemaname AND {OURS}",
    "views": f"SELECT n.nspname, viewname, definition FROM pg_views, pg_namespace n"
    f" WHERE n.nspname = schemaname AND {OURS}",
    "triggers": "SELECT n.nspname, tgname, pg_get_triggerdef(t.oid) FROM pg_trigger t"
    " JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = relnamespace"
    f" WHERE NOT tgisinternal AND {OURS}",
    "functions": "SELECT n.nspname, proname, prosrc FROM pg_proc"
    f" JOIN pg_namespace n ON n.oid = pronamespace WHERE {OURS}",
    "types": "SELECT n.nspname, typname, typtype FROM pg_type"
    f" JOIN pg_namespace n ON n.oid = typnamespace WHERE {OURS}",
}

UNDESCRIBED = (
    "SELECT n.nspname FROM pg_namespace n"
    f" WHERE {OURS} AND obj_description(n.oid, 'pg_namespace') IS NULL",
    "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
    f" WHERE {OURS} AND relkind NOT IN ('i', 'I', 't')"
    " AND coalesce(obj_description(c.oid, 'pg_class'), '') = ''",
    "SELECT c.oid::regclass || '.' || attname FROM pg_attribute a JOIN pg_class c ON c.oid ="
    f" attrelid JOIN pg_namespace n ON n.oid = relnamespace WHERE {OURS} AND attnum > 0"
    " AND NOT attisdropped AND relkind NOT IN ('i', 'I', 't')"
    " AND coalesce(col_description(c.oid, attnum), '') = ''",
)


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    engine = connect(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def ask(url: str, query: str) -> set[Any]:
    with opened(url) as connection:
        found = connection.execute(text(query), {"schemas": list(tables.SCHEMAS)})
        return {tuple(tuple(c) if isinstance(c, list) else c for c in row) for row in found}


def catalog(url: str) -> dict[str, set[Any]]:
    """All that is in our schemas, as the server's catalogs describe it."""
    return {kind: ask(url, query) for kind, query in CATALOG.items()}


def state(url: str) -> str:
    with opened(url) as connection:
        return migrate.state(connection)


def alembic(connection: Connection) -> Config:
    """What the alembic command works with, on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(migrate.migrations()))
    config.attributes["connection"] = connection
    return config


def from_metadata(connection: Connection) -> None:
    """The warehouse without any migration: from tables.py and the views."""
    for schema in tables.SCHEMAS:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    tables.metadata.create_all(connection)
    connection.execute(
        text(
            "CREATE TABLE etl.alembic_version (version_num varchar(32) NOT NULL,"
            " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    views.create(connection)
    views.describe(connection)


@pytest.mark.every_postgres
def test_the_migrations_make_what_the_metadata_says(database: str) -> None:
    migrate.upgrade(database)
    migrated = catalog(database)
    with opened(database) as connection:
        for schema in tables.SCHEMAS:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    assert not any(catalog(database).values())
    with opened(database) as connection:
        from_metadata(connection)
    for kind, made in catalog(database).items():
        assert migrated[kind] == made, kind
    assert len(migrated["views"]) >= len(tables.CURRENT)
    assert len(migrated["constraints"]) >= len(tables.metadata.sorted_tables)


@pytest.mark.every_postgres
def test_autogenerate_finds_nothing_to_do(warehouse: str) -> None:
    before = catalog(warehouse)
    with opened(warehouse) as connection:
        command.check(alembic(connection))
    assert catalog(warehouse) == before


def test_the_revision_of_the_tables_is_the_head_of_the_migrations(warehouse: str) -> None:
    with opened(warehouse) as connection:
        script = ScriptDirectory.from_config(alembic(connection))
    assert script.get_heads() == [tables.REVISION]
    assert ask(warehouse, "SELECT version_num FROM etl.alembic_version") == {(tables.REVISION,)}


def test_an_empty_database_becomes_a_warehouse_and_a_second_time_changes_nothing(
    database: str,
) -> None:
    assert state(database) == "empty"
    assert migrate.upgrade(database) == "empty"
    assert state(database) == "head"
    before, rows = catalog(database), ask(database, "SELECT oid, xmin::text FROM pg_class")
    assert migrate.upgrade(database) == "head"
    assert catalog(database) == before
    assert ask(database, "SELECT oid, xmin::text FROM pg_class") == rows


def test_asking_for_the_state_changes_nothing(database: str) -> None:
    state(database)
    assert not any(catalog(database).values())


def test_data_survives_a_second_upgrade(warehouse: str) -> None:
    insert = "INSERT INTO zoom.flows (source, flow_id, valid_from) VALUES ('s', 'f', now())"
    with opened(warehouse) as connection:
        connection.execute(text(insert))
    migrate.upgrade(warehouse)
    assert ask(warehouse, "SELECT source, flow_id, is_current FROM zoom.flows_history") == {
        ("s", "f", True)
    }


def test_downgrading_to_nothing_and_upgrading_again_gives_the_same(warehouse: str) -> None:
    before = catalog(warehouse)
    with opened(warehouse) as connection:
        stage.prepare(connection, [stage.staged("s", tables.zoom_flows)])
    with opened(warehouse) as connection:
        command.downgrade(alembic(connection), "base")
    left = {row[:2] for row in catalog(warehouse)["relations"]}
    assert left == {("etl", "alembic_version"), ("etl", "alembic_version_pkc")}
    assert {row[0] for row in catalog(warehouse)["schemas"]} == {"etl"}
    assert state(warehouse) == "empty"
    assert migrate.upgrade(warehouse) == "empty"
    assert catalog(warehouse) == before


def python(code: str, *arguments: str, root: Path = ROOT) -> subprocess.Popen[str]:
    """A Python that finds the package of `root` first."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    return out.strip()


UPGRADE = "import sys; from etl import migrate; print(migrate.upgrade(sys.argv[1]))"


def test_several_processes_at_once_on_an_empty_database(database: str) -> None:
    processes = [python(UPGRADE, database) for _ in range(2)]
    assert "empty" in {said(process) for process in processes}
    assert state(database) == "head"
    assert ask(database, "SELECT version_num FROM etl.alembic_version") == {(tables.REVISION,)}
    assert len(catalog(database)["views"]) >= len(tables.CURRENT)


def test_a_migration_that_fails_leaves_nothing_behind(database: str) -> None:
    with opened(database) as connection:
        connection.execute(text("CREATE SCHEMA zoom"))
        connection.execute(text("CREATE TABLE zoom.flows (theirs int)"))
    before = catalog(database)
    with pytest.raises(WarehouseError, match="already exists"):
        migrate.upgrade(database)
    assert catalog(database) == before
    assert state(database) == "empty"
    with opened(database) as connection:
        connection.execute(text("DROP SCHEMA zoom CASCADE"))
    assert migrate.upgrade(database) == "empty"
    assert state(database) == "head"


NEXT = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None
def upgrade():
    op.add_column("flows", sa.Column("later", sa.Text()), schema="zoom")
    {more}
def downgrade():
    op.drop_column("flows", "later", schema="zoom")
"""


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The checkout of a later version of callflow, which has one migration more."""
    shutil.copytree(ROOT / "etl", tmp_path / "etl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__")
    )
    module = tmp_path / "etl" / "tables.py"
    old = f'REVISION = "{tables.REVISION}"'
    assert old in module.read_text(encoding="utf-8")
    source = module.read_text(encoding="utf-8").replace(old, 'REVISION = "9999"')
    for words in ("Bookkeeping", "Flows of Zoom", "Name of the flow"):
        source = source.replace(words, f"100 % '{words}'")
    module.write_text(source, encoding="utf-8")
    return tmp_path


def add_migration(later: Path, more: str = "pass") -> None:
    path = later / "migrations" / "versions" / "9999_later.py"
    path.write_text(NEXT.format(head=tables.REVISION, more=more), encoding="utf-8")


STATE = (
    "import sys; from etl import migrate; from etl.warehouse import connect\n"
    "engine = connect(sys.argv[1])\n"
    "with engine.begin() as connection: print(migrate.state(connection))\n"
    "engine.dispose()"
)


def test_a_schema_is_behind_a_later_version_and_newer_than_an_earlier_one(
    warehouse: str, later: Path
) -> None:
    add_migration(later)
    assert said(python(STATE, warehouse, root=later)) == "behind"
    assert said(python(UPGRADE, warehouse, root=later)) == "behind"
    assert said(python(STATE, warehouse, root=later)) == "head"
    assert state(warehouse) == "unknown"
    described = ask(warehouse, CATALOG["schemas"]) | ask(warehouse, CATALOG["columns"])
    described |= ask(warehouse, CATALOG["relations"])
    texts = [row[-1] for row in described if row[-1] and "100 %" in row[-1]]
    assert any("100 % 'Bookkeeping'" in words for words in texts)
    assert sum("100 % 'Flows of Zoom'" in words for words in texts) == 2  # and its history
    assert sum("100 % 'Name of the flow'" in words for words in texts) == 3  # and in the view
    before = catalog(warehouse)
    with pytest.raises(SchemaError, match="newer version of callflow"):
        migrate.upgrade(warehouse)
    assert catalog(warehouse) == before


def test_a_later_migration_that_fails_leaves_the_warehouse_as_it_was(
    warehouse: str, later: Path
) -> None:
    add_migration(later, more='op.execute("SELECT 1/0")')
    before = catalog(warehouse)
    process = python(UPGRADE, warehouse, root=later)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "division by zero" in error
    assert catalog(warehouse) == before
    assert state(warehouse) == "head"


@pytest.mark.every_postgres
def test_everything_in_our_schemas_is_described(warehouse: str) -> None:
    with opened(warehouse) as connection:
        for table in tables.CURRENT:
            stage.prepare(connection, [stage.staged("s", table)])
    assert [row for query in UNDESCRIBED for row in ask(warehouse, query)] == []
    assert len(ask(warehouse, CATALOG["schemas"])) == len(tables.SCHEMAS)
    staged = "SELECT tablename FROM pg_tables WHERE schemaname = 'staging'"
    assert len(ask(warehouse, staged)) == len(tables.CURRENT)


def test_a_table_that_nobody_described_would_be_found(warehouse: str) -> None:
    with opened(warehouse) as connection:
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS zoom"))
        connection.execute(text("CREATE VIEW zoom.bare AS SELECT 1 AS number"))
    found = {row for query in UNDESCRIBED for row in ask(warehouse, query)}
    assert found == {("zoom.bare",), ("zoom.bare.number",)}


def test_a_schema_that_is_behind_says_what_to_run() -> None:
    """Only what every command may say: most have no --migrate."""
    assert str(migrate.behind()).endswith("→ run `callflow migrate`")

"""The migrations make what tables.py says, at once or not at all, as often as one likes."""

import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from etl.errors import SchemaError, WarehouseError
from etl.load import stage
from etl.providers.catalog import TABLES
from etl.warehouse import migrate, rights, tables, views
from etl.warehouse.connect import connect
from etl.warehouse.names import SCHEMAS
from tests.postgres import dsn
from tests.warehouse.later import (
    HEAD,
    ROOT,
    STATE,
    UPGRADE,
    ZOOM,
    add_column,
    add_migration,
    failed,
    later_version,
    python,
    replace,
    said,
)

pytestmark = pytest.mark.slow

OURS = "n.nspname = ANY(:schemas)"

CATALOG = {
    "schemas": "SELECT n.nspname, obj_description(n.oid, 'pg_namespace')"
    f" FROM pg_namespace n WHERE {OURS}",
    "relations": "SELECT n.nspname, c.relname, c.relkind, c.relpersistence, c.reloptions,"
    " obj_description(c.oid, 'pg_class')"
    f" FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE {OURS}",
    "columns": "SELECT n.nspname, c.relname, a.attname,"
    " row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum),"
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
        found = connection.execute(text(query), {"schemas": list(SCHEMAS)})
        return {tuple(tuple(c) if isinstance(c, list) else c for c in row) for row in found}


def catalog(url: str) -> dict[str, set[Any]]:
    """Return the contents of our schemas, as the server's catalogs describe them."""
    return {kind: ask(url, query) for kind, query in CATALOG.items()}


def state(url: str) -> str:
    with opened(url) as connection:
        return migrate.state(connection)


def alembic(connection: Connection) -> Config:
    """Return the configuration of the alembic command, on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(migrate.migrations()))
    config.attributes["connection"] = connection
    return config


def from_metadata(connection: Connection) -> None:
    """Make the warehouse without any migration, from tables.py and the views."""
    for schema in SCHEMAS:
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
        for schema in SCHEMAS:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    assert not any(catalog(database).values())
    with opened(database) as connection:
        from_metadata(connection)
    for kind, made in catalog(database).items():
        assert migrated[kind] == made, kind
    assert len(migrated["views"]) >= len(TABLES.values())
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
        stage.prepare(connection, [stage.pair_of("s", TABLES["zoom.flows"])])
    with opened(warehouse) as connection:
        command.downgrade(alembic(connection), "base")
    left = {row[:2] for row in catalog(warehouse)["relations"]}
    assert left == {("etl", "alembic_version"), ("etl", "alembic_version_pkc")}
    assert {row[0] for row in catalog(warehouse)["schemas"]} == {"etl"}
    assert state(warehouse) == "empty"
    assert migrate.upgrade(warehouse) == "empty"
    assert catalog(warehouse) == before


def test_several_processes_at_once_on_an_empty_database(database: str) -> None:
    processes = [python(UPGRADE, database) for _ in range(2)]
    assert "empty" in {said(process) for process in processes}
    assert state(database) == "head"
    assert ask(database, "SELECT version_num FROM etl.alembic_version") == {(tables.REVISION,)}
    assert len(catalog(database)["views"]) >= len(TABLES.values())


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


@pytest.fixture
def later(tmp_path: Path) -> Path:
    return later_version(tmp_path)


@pytest.mark.fault(53)
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
    assert "division by zero" in failed(python(UPGRADE, warehouse, root=later))
    assert catalog(warehouse) == before
    assert state(warehouse) == "head"


@pytest.mark.every_postgres
def test_everything_in_our_schemas_is_described(warehouse: str) -> None:
    with opened(warehouse) as connection:
        for table in TABLES.values():
            stage.prepare(connection, [stage.pair_of("s", table)])
    assert [row for query in UNDESCRIBED for row in ask(warehouse, query)] == []
    assert len(ask(warehouse, CATALOG["schemas"])) == len(SCHEMAS)
    staged = "SELECT tablename FROM pg_tables WHERE schemaname = 'staging'"
    assert len(ask(warehouse, staged)) == len({table.name for table in TABLES.values()})


def test_a_table_without_a_description_would_be_found(warehouse: str) -> None:
    with opened(warehouse) as connection:
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS zoom"))
        connection.execute(text("CREATE VIEW zoom.bare AS SELECT 1 AS number"))
    found = {row for query in UNDESCRIBED for row in ask(warehouse, query)}
    assert found == {("zoom.bare",), ("zoom.bare.number",)}


CONFIG = """
[daemon]
http = ""
[sources.zoom_eu]
provider = "zoom"
account_id = "account"
client_id = "client"
client_secret = "never-sent"
"""


@pytest.mark.fault(53)
def test_a_schema_that_is_behind_is_refused_with_what_to_run(
    database: str, later: Path, tmp_path: Path
) -> None:
    """The advice fits every command: most have no --migrate."""
    migrate.upgrade(database)
    add_migration(later)
    config = tmp_path / "callflow.toml"
    config.write_text(CONFIG)
    config.chmod(0o600)
    for word in ("sync", "daemon"):
        done = subprocess.run(
            [sys.executable, "-m", "etl", word, "-c", str(config)],
            cwd=later,
            env={**os.environ, "CALLFLOW_WAREHOUSE__URL": database},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1, done
        assert "the schema is behind this version of callflow" in done.stdout + done.stderr
        assert "callflow migrate" in done.stdout + done.stderr
    assert state(database) == "head"  # of this version: nothing was changed


# -- warehouses of the versions before the first release -----------------------------------------


def without_comments(found: dict[str, set[Any]]) -> dict[str, set[Any]]:
    """Return a catalogue without what `views.describe` writes, which no migration makes."""
    described = ("schemas", "relations", "columns")
    return {
        kind: {row[:-1] for row in rows} if kind in described else rows
        for kind, rows in found.items()
    }


KEPT = "SELECT (to_jsonb(t) - 'provider' - 'known_since')::text FROM {} AS t"
"""The rows of a table without columns that later migrations fill."""

HISTORY_VIEWS = r"""
SELECT format('%I.%I', schemaname, viewname) FROM pg_views
 WHERE schemaname IN ('zoom', 'twilio', 'alibaba') AND viewname LIKE '%\_history'
"""


def of_three_migrations(url: str, role: str) -> None:
    """Make the warehouse of revision_0003.sql: rows, history, and objects that a user built."""
    statements = (Path(__file__).parent / "revision_0003.sql").read_text(encoding="utf-8")
    with psycopg.connect(dsn(url), autocommit=True) as session:
        session.execute(re.sub("analyst", role, statements).encode())
        # The file has no comments, by which callflow knows its views.
        for (view,) in session.execute(HISTORY_VIEWS).fetchall():
            session.execute(f"COMMENT ON VIEW {view} IS 'Every version, ever.'".encode())


@pytest.mark.every_postgres
def test_one_migration_makes_what_three_made(database: str, role: str) -> None:
    of_three_migrations(database, role)
    with opened(database) as connection:
        connection.execute(text("DROP VIEW callflow.my_view"))
        connection.execute(text("DROP SCHEMA reports CASCADE"))
    three = without_comments(catalog(database))
    with opened(database) as connection:
        for schema in SCHEMAS:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    with opened(database) as connection:
        command.upgrade(alembic(connection), "0003")
        # The views are made at the head; these are of tables that were there then.
        views.create(connection, views.of_tables(TABLES[name] for name in TABLES if name in COUNTS))
    one = without_comments(catalog(database))
    for kind, made in three.items():
        assert one[kind] == made, kind


@pytest.mark.every_postgres
def test_a_warehouse_of_three_migrations_goes_on_with_those_that_follow(
    database: str, role: str
) -> None:
    of_three_migrations(database, role)
    rows = {table: ask(database, KEPT.format(table)) for table in COUNTS}
    assert {table: len(found) for table, found in rows.items()} == COUNTS
    before, built = catalog(database), objects(database, "relations", "definitions", "functions")
    assert migrate.upgrade(database) == "behind"
    with opened(database) as connection:
        assert rights.lost(connection) == []
    with opened(database) as connection:
        rights.rehearse(connection)
        connection.rollback()
    with opened(database) as connection:
        command.check(alembic(connection))
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        for readable in ("reports.kept", "reports.seen", "zoom.flows_history"):
            assert connection.scalar(text(f"SELECT count(*) FROM {readable}")) == 4
    after = objects(database, *built)
    assert {kind: built[kind] - after[kind] for kind in built} == {kind: set() for kind in built}
    assert catalog(database)["views"] >= before["views"]
    for table, found in rows.items():
        assert ask(database, KEPT.format(table)) == found, table
    made = catalog(database)
    with opened(database) as connection:
        command.downgrade(alembic(connection), "0003")
    assert without_comments(catalog(database)) == without_comments(before)
    assert migrate.upgrade(database) == "behind"
    assert catalog(database) == made


def test_every_contact_flow_is_read_again_once_findings_can_be_stored(database: str) -> None:
    """An incremental run reads none of those that did not change."""
    with opened(database) as connection:
        command.upgrade(alembic(connection), "0003")
        connection.execute(
            text(
                "INSERT INTO etl.streams (source, stream, last_full_at, last_success_at) VALUES"
                " ('a', 'contact_flows', now(), now()), ('z', 'flows', now(), now())"
            )
        )
    assert migrate.upgrade(database) == "behind"
    assert ask(
        database, "SELECT source, last_full_at IS NULL, last_success_at IS NULL FROM etl.streams"
    ) == {("a", True, False), ("z", False, False)}


COUNTS = {
    "zoom.flows": 2,
    "zoom.flows_history": 4,
    "zoom.flow_versions": 1,
    "zoom.entry_points": 1,
    "twilio.flex_flows": 1,
    "twilio.channels": 1,
    "twilio.channels_history": 2,
    "alibaba.contact_flows": 1,
    "alibaba.contact_flow_numbers": 1,
    "alibaba.contact_flow_activities": 1,
    "alibaba.contact_flow_transitions": 1,
    "etl.runs": 1,
    "etl.streams": 1,
    "etl.absences": 1,
    "etl.rejects": 1,
    "etl.leases": 1,
    "reports.seen": 4,
    "reports.kept": 4,
    "callflow.my_view": 1,
}


@pytest.mark.fault(53)
@pytest.mark.parametrize("revision", migrate.UNRELEASED)
def test_an_unreleased_schema_is_refused_and_its_data_can_be_moved_aside(
    warehouse: str, revision: str
) -> None:
    with opened(warehouse) as connection:
        connection.execute(text(FLOW))
        connection.execute(text(f"UPDATE etl.alembic_version SET version_num = '{revision}'"))
    before = catalog(warehouse)
    with pytest.raises(SchemaError, match="before the first release") as caught:
        migrate.upgrade(warehouse)
    for words in ("no data was touched", "new, empty database", "callflow migrate", "full sync"):
        assert words in caught.value.advice
    assert catalog(warehouse) == before
    assert state(warehouse) == "unreleased"
    with opened(warehouse) as connection, pytest.raises(SchemaError, match="first release"):
        migrate.to_head(connection)  # the alembic command goes the same way
    assert catalog(warehouse) == before

    renames = re.findall(r"ALTER SCHEMA \w+ RENAME TO \w+;", caught.value.advice)
    with opened(warehouse) as connection:
        for statement in renames:
            connection.execute(text(statement))
    assert migrate.upgrade(warehouse) == "empty"
    assert state(warehouse) == "head"
    assert ask(warehouse, "SELECT flow_id FROM old_zoom.flows_history") == {("f",)}
    assert ask(warehouse, "SELECT flow_id FROM zoom.flows_history") == set()


# -- what others have built on our views ---------------------------------------------------------


THEIRS = """
CREATE SCHEMA reports;
CREATE VIEW reports.seen AS SELECT flow_id, flow_name, valid_to FROM zoom.flows_history;
CREATE VIEW reports.on_it AS SELECT * FROM reports.seen WHERE valid_to IS NULL;
CREATE MATERIALIZED VIEW reports.kept AS SELECT * FROM zoom.flows_history;
CREATE INDEX kept_ids ON reports.kept (flow_id);
CREATE VIEW callflow.my_view AS SELECT source, sid FROM twilio.channels;
CREATE VIEW zoom.mine AS SELECT f.flow_id, is_current FROM zoom.flows_history AS f;
CREATE TABLE staging.mine (note text);
INSERT INTO staging.mine VALUES ('keep');
CREATE FUNCTION reports.names() RETURNS SETOF text LANGUAGE sql AS
    'SELECT flow_name FROM zoom.flows_history ORDER BY 1';
CREATE FUNCTION reports.solid() RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC SELECT count(*) FROM zoom.flows_history; END;
CREATE FUNCTION reports.typed() RETURNS SETOF zoom.flows_history LANGUAGE sql AS
    'SELECT * FROM zoom.flows_history';
GRANT SELECT ON zoom.flows_history TO PUBLIC;
GRANT SELECT (flow_id) ON zoom.entry_points_history TO {role} WITH GRANT OPTION;
GRANT SELECT ON reports.seen, callflow.my_view TO {role};
"""

OBJECTS = {
    "relations": "SELECT c.oid::regclass::text, c.oid, c.relkind, c.relacl::text, c.relowner,"
    " (SELECT string_agg(concat(attname, attacl::text), ',' ORDER BY attnum) FROM pg_attribute"
    "   WHERE attrelid = c.oid AND attacl IS NOT NULL)"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
    " WHERE relkind IN ('v', 'm', 'r') AND (nspname IN ('reports') OR relkind = 'v'"
    " AND nspname = ANY(:schemas) OR relname = 'mine')",
    "definitions": "SELECT c.oid::regclass::text, pg_get_viewdef(c.oid) FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('v', 'm')"
    " AND (nspname = 'reports' OR relname IN ('my_view', 'mine'))",
    "functions": "SELECT p.oid, proname, pg_get_functiondef(p.oid) FROM pg_proc p"
    " JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'reports'",
    "rows": "SELECT (SELECT count(*) FROM reports.on_it), (SELECT count(*) FROM reports.kept),"
    " (SELECT note FROM staging.mine), array(SELECT reports.names()), reports.solid(),"
    " (SELECT count(*) FROM zoom.mine)",
}

FLOW = (
    "INSERT INTO zoom.flows (source, flow_id, flow_name, valid_from) VALUES ('s', 'f', 'n', now())"
)


@pytest.fixture
def role(database: str) -> Iterator[str]:
    name = f"analyst_{secrets.token_hex(4)}"
    with opened(database) as connection:
        connection.execute(text(f"CREATE ROLE {name}"))
    yield name
    with opened(database) as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))


def at_revision(url: str, revision: str, role: str = "", theirs: str = "") -> None:
    """Make a warehouse as that revision left it, with a flow and objects that users made."""
    with opened(url) as connection:
        command.upgrade(alembic(connection), revision)
        views.create(connection)
        connection.execute(text(FLOW))
        for statement in theirs.format(role=role).split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)


def objects(url: str, *kinds: str) -> dict[str, set[Any]]:
    return {kind: ask(url, OBJECTS[kind]) for kind in kinds or OBJECTS}


COLUMNS = (
    "SELECT attname, attnum, col_description(attrelid, attnum) FROM pg_attribute"
    " WHERE attrelid = 'zoom.flows_history'::regclass AND attnum > 0"
)


@pytest.mark.every_postgres
def test_objects_built_on_our_views_survive_an_upgrade(
    database: str, later: Path, role: str
) -> None:
    survives_an_upgrade(database, later, role)


def test_it_survives_two_migrations_at_once(database: str, later: Path, role: str) -> None:
    add_migration(later, revision="9998", column="between")
    survives_an_upgrade(database, later, role)


def survives_an_upgrade(database: str, later: Path, role: str) -> None:
    at_revision(database, HEAD, role, THEIRS)
    before = objects(database)
    columns = {row[:2] for row in ask(database, COLUMNS)}
    add_column(later)
    assert said(python(UPGRADE, database, root=later)) == "behind"
    assert objects(database) == before
    found = ask(database, COLUMNS)
    last = len(columns) + 1
    assert {row[:2] for row in found} == columns | {("later", last)}  # appended
    assert all(row[2] for row in found)
    with opened(database) as connection:
        connection.execute(text("UPDATE zoom.flows SET later = 'x'"))
    assert ask(database, "SELECT flow_name, later, is_current FROM zoom.flows_history") == {
        ("n", "x", True)
    }


def test_the_alembic_command_keeps_it_too_and_has_no_offline_mode(
    database: str, later: Path, role: str
) -> None:
    at_revision(database, HEAD, role, THEIRS)
    before = objects(database)
    add_column(later)

    def alembic_says(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", *arguments],
            cwd=later,
            env={**os.environ, "CALLFLOW_WAREHOUSE__URL": database},
            capture_output=True,
            text=True,
            timeout=60,
        )

    refused = alembic_says(f"{HEAD}:head", "--sql")
    assert refused.returncode != 0
    assert "there is no offline mode" in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr
    assert said(python(STATE, database, root=later)) == "behind"
    assert alembic_says("head").returncode == 0
    assert said(python(STATE, database, root=later)) == "head"
    assert objects(database) == before


def test_nothing_is_ever_dropped_with_what_depends_on_it() -> None:
    for path in [*(ROOT / "etl").rglob("*.py"), *(ROOT / "migrations").rglob("*.py")]:
        code = "\n".join(
            line for line in path.read_text(encoding="utf-8").splitlines() if '"""' not in line
        )
        assert not re.search(r"DROP[^\n…]*CASCADE", code, re.IGNORECASE), path


DROP = 'op.drop_column("flows", "channel_type", schema="zoom")'
RETYPE = 'op.alter_column("flows", "channel_type", type_=sa.String(9), schema="zoom")'

ON_THE_VIEW = """
CREATE VIEW callflow.x AS SELECT flow_id FROM zoom.flows_history;
CREATE VIEW reports.w AS SELECT flow_id FROM zoom.flows_history;
CREATE MATERIALIZED VIEW reports.y AS SELECT * FROM reports.w;
CREATE FUNCTION reports.f() RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC SELECT count(*) FROM zoom.flows_history; END;
CREATE FUNCTION reports.g() RETURNS SETOF zoom.flows_history LANGUAGE sql AS
    'SELECT * FROM zoom.flows_history';
CREATE DOMAIN reports.d AS zoom.flows_history;
CREATE TABLE reports.t (a zoom.flows_history);
CREATE FUNCTION reports.h() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER z INSTEAD OF INSERT ON zoom.flows_history
    FOR EACH ROW EXECUTE FUNCTION reports.h();
"""
NAMED = ("view callflow.x", "view reports.w", "materialized view reports.y", "function reports.f()",
         "function reports.g()", "type reports.d", "table reports.t",
         "trigger z on zoom.flows_history")  # fmt: skip

ON_THE_TABLE = "CREATE VIEW reports.x AS SELECT channel_type FROM zoom.flows"

CHANGES = {
    "dropped under a history view": (DROP, ON_THE_VIEW, NAMED),
    "dropped": (DROP, ON_THE_TABLE, ("view reports.x",)),
    "another type": (RETYPE, ON_THE_TABLE, ("view reports.x",)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_would_break_what_others_built_is_refused_and_names_it(
    database: str, later: Path, change: str
) -> None:
    more, theirs, names = CHANGES[change]
    at_revision(database, HEAD, theirs=f"CREATE SCHEMA reports;\n{theirs}")
    module = (later / ZOOM).read_text(encoding="utf-8")
    (line,) = re.findall(r'    field\("channel_type", TEXT, "Deprecated by Zoom.*\n', module)
    replace(later / ZOOM, line, "")
    add_migration(later, more=more)
    before = catalog(database)
    last = failed(python(UPGRADE, database, root=later))
    owner = next(iter(ask(database, "SELECT current_user")))[0]
    assert "something of yours depends on" in last and "SchemaError" in last
    for name in names:
        assert name in last
        assert f"{name} (owner {owner})" in last or name.startswith(("trigger", "type"))
    assert last.count("(owner ") <= len(names)
    assert "nothing was changed" in last
    assert catalog(database) == before
    assert ask(database, "SELECT version_num FROM etl.alembic_version") == {(HEAD,)}


def test_a_history_view_that_must_give_way_comes_back_with_its_rights(
    database: str, later: Path, role: str
) -> None:
    rights = (
        "GRANT SELECT ON zoom.flows_history TO {role} WITH GRANT OPTION;\n"
        "GRANT SELECT (flow_id) ON zoom.flows_history TO PUBLIC;\n"
        "ALTER VIEW zoom.flows_history SET (security_barrier = true);\n"
        "ALTER DEFAULT PRIVILEGES IN SCHEMA zoom GRANT SELECT, UPDATE ON TABLES TO {role};\n"
    )
    at_revision(database, HEAD, role, rights)
    had = (
        "SELECT relacl::text, reloptions::text, relowner, (SELECT array_agg(attacl::text)"
        " FROM pg_attribute WHERE attrelid = c.oid AND attacl IS NOT NULL)::text"
        " FROM pg_class c WHERE oid = 'zoom.flows_history'::regclass"
    )
    before = ask(database, had)
    add_migration(
        later,
        more='op.alter_column("flows", "status", type_=sa.String(99), schema="zoom")\n    '
        'op.alter_column("zoom_flows", "status", type_=sa.String(99), schema="history")',
    )
    assert said(python(UPGRADE, database, root=later)) == "behind"
    assert ask(database, had) == before
    kind = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'status'"
    kind += " AND attrelid = 'zoom.flows_history'::regclass"
    assert ask(database, kind) == {("character varying(99)",)}


@pytest.mark.parametrize(
    ("theirs", "said_of_it"),
    [
        (
            "DROP VIEW zoom.flows_history CASCADE;\n"
            "CREATE VIEW zoom.flows_history AS SELECT 1 AS one",
            "zoom.flows_history is not a view of callflow's",
        ),
        (
            "CREATE OR REPLACE VIEW zoom.flows_history AS SELECT *, 1 AS one FROM"
            " (SELECT *, NULL::timestamptz AS valid_to, true AS is_current FROM zoom.flows"
            " UNION ALL SELECT *, false FROM history.zoom_flows) AS a",
            "zoom.flows_history has columns that callflow did not make (one)",
        ),
        (
            "CREATE UNLOGGED TABLE staging.s__flows (a int);\n"
            "COMMENT ON TABLE staging.s__flows IS 'Pages of a running scan of zoom.flows by s.';\n"
            "CREATE VIEW callflow.peek AS SELECT * FROM staging.s__flows",
            "view callflow.peek",
        ),
    ],
)
def test_another_object_in_our_place_is_not_overwritten(
    database: str, later: Path, theirs: str, said_of_it: str
) -> None:
    at_revision(database, HEAD, theirs=theirs)
    add_migration(later)
    before = catalog(database)
    error = failed(python(UPGRADE, database, root=later))
    assert error.startswith("etl.errors.SchemaError: ") and "nothing was changed" in error
    assert said_of_it in error
    assert catalog(database) == before


WAITS = "SELECT pid FROM pg_locks WHERE NOT granted"


def test_a_reader_in_a_transaction_is_waited_for_and_then_named(database: str, later: Path) -> None:
    at_revision(database, HEAD)
    add_column(later)
    reader = connect(database)
    with reader.connect() as reading:
        reading.execute(text("SET application_name = 'a dashboard'"))
        reading.execute(text("SELECT * FROM zoom.flows_history")).all()
        pid = reading.scalar(text("SELECT pg_backend_pid()"))
        code = UPGRADE.replace("sys.argv[1])", "sys.argv[1], tries=2)")
        last = failed(python(code, database, root=later))
        assert "another session keeps a table or view locked" in last
        assert f"pid {pid}" in last and "a dashboard, idle in transaction" in last
        assert state(database) == "head"  # of this version: nothing was changed

        process = python(UPGRADE, database, root=later)
        pause, seen = threading.Event(), [False]
        for _ in range(1200):
            waits = bool(ask(database, WAITS))
            seen += [waits] if waits != seen[-1] else []
            if seen == [False, True, False, True]:  # it gave up once, and tries again
                break
            pause.wait(0.02)
        assert process.poll() is None
        reading.execute(text("SELECT count(*) FROM etl.runs"))
        reading.rollback()
    reader.dispose()
    assert said(process) == "behind"


def test_the_views_of_a_warehouse_at_head_follow_the_program(warehouse: str) -> None:
    """A version with other views of the same tables brings no migration."""
    with opened(warehouse) as connection:
        connection.execute(text("DROP VIEW callflow.number_map"))
        connection.execute(text("DROP FUNCTION callflow.flow_findings_at"))
        older = "SELECT 'x'::text AS provider, 'x'::text AS finding"
        connection.execute(text("DROP VIEW callflow.flow_findings_history"))
        connection.execute(text(f"CREATE VIEW callflow.flow_findings_history AS {older}"))
        connection.execute(text("COMMENT ON VIEW callflow.flow_findings_history IS 'Older.'"))
    assert migrate.upgrade(warehouse) == "head"
    assert ask(warehouse, "SELECT count(*) FROM callflow.number_map") == {(0,)}
    assert ask(warehouse, "SELECT count(*) FROM callflow.flow_findings_at(now())") == {(0,)}
    assert ask(warehouse, "SELECT count(*) FROM callflow.flow_findings_history") == {(0,)}
    for query in UNDESCRIBED:
        assert not ask(warehouse, query)

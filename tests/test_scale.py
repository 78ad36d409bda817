"""docs/scale.md: its statements do what it says, on a real warehouse with data."""

import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import PrimaryKeyConstraint, Table, UniqueConstraint

from etl import api
from etl.config.redact import Redactor
from etl.load import runs
from etl.load.runs import Run
from etl.providers.catalog import TABLES
from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from etl.status import queries
from etl.warehouse import grant, tables, views
from etl.warehouse.connect import connect
from etl.warehouse.names import SCHEMAS
from tests.postgres import ask, dsn
from tests.warehouse.later import HEAD, UPGRADE, add_migration, later_version, python, said
from tests.warehouse.test_migrate import opened

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
CHANNELS = "twilio_demo.channels"
PARTITIONED = "twilio_channels"


def block(name: str) -> str:
    """Return the document's block of SQL that is called `name`."""
    found = re.findall(rf"^```sql {name}\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.M | re.S)
    (statements,) = found
    return str(statements)


def run(url: str, statements: str) -> None:
    """Run them as psql does: each is committed; those between BEGIN and COMMIT as a whole."""
    whole = statements.startswith("BEGIN;")
    with psycopg.connect(dsn(url), autocommit=True) as connection:
        for each in [statements] if whole else re.split(r"(?<=;)\n", statements.strip()):
            connection.execute(each.encode())


# --- every key starts with source ----------------------------------------------------------------
def names(columns: Any) -> list[str]:
    return [column.name for column in columns]


KEYED = [table for table in tables.metadata.sorted_tables if table is not tables.changes]
"""All tables except the log of changes, which has no key."""


@pytest.mark.parametrize("table", KEYED, ids=lambda table: table.fullname)
def test_every_key_of_the_definitions_starts_with_source(table: Table) -> None:
    keys = [
        names(each.columns)
        for each in table.constraints
        if isinstance(each, PrimaryKeyConstraint | UniqueConstraint)
    ]
    keys += [names(index.columns) for index in table.indexes if index.unique]
    for each in table.foreign_key_constraints:
        keys += [names(each.columns), [element.column.name for element in each.elements]]
    assert names(table.primary_key) in keys
    assert {key[0] for key in keys} == {"source"}


KEYS = """
SELECT n.nspname || '.' || c.relname AS of, 'constraint' AS kind, k.conname AS name, a.attname
  FROM pg_constraint k
  JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
 WHERE k.contype IN ('p', 'u', 'f', 'x') AND n.nspname = ANY(%(schemas)s)
UNION ALL
SELECT n.nspname || '.' || c.relname, 'referenced', k.conname, a.attname
  FROM pg_constraint k
  JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = k.confkey[1]
 WHERE k.contype = 'f' AND n.nspname = ANY(%(schemas)s)
UNION ALL
SELECT n.nspname || '.' || c.relname, 'index', i.indexrelid::regclass::text,
       pg_get_indexdef(i.indexrelid, 1, true)
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE i.indisunique AND n.nspname = ANY(%(schemas)s)
"""


@pytest.mark.every_postgres
def test_every_key_of_a_migrated_database_starts_with_source(warehouse: str) -> None:
    with psycopg.connect(dsn(warehouse)) as connection:
        rows = connection.execute(KEYS, {"schemas": list(SCHEMAS)}).fetchall()
    found = [row for row in rows if row[0] != "etl.alembic_version"]  # it stays where it is
    assert [row for row in found if row[3] != "source"] == []
    foreign = sum(len(t.foreign_key_constraints) for t in tables.metadata.sorted_tables)
    every = {table.fullname for table in KEYED}
    assert {row[0] for row in found if row[1] == "index"} == every
    assert len([row for row in found if row[1] == "constraint"]) == len(every) + foreign
    assert len([row for row in found if row[1] == "referenced"]) == foreign == 14


# --- Citus: there is none here, so no more than the order and the names --------------------------
def distributed() -> list[tuple[str, str, str]]:
    """Return (table, column, table that it is colocated with) in the document's order."""
    statement = (
        r"SELECT create_distributed_table\('([a-z_.]+)', '([a-z]+)',"
        r" colocate_with => '([a-z_.]+)'\);"
    )
    found = []
    for line in (block("citus-data") + block("citus-bookkeeping")).splitlines():
        parts = re.fullmatch(statement, line)
        assert parts is not None, line
        found.append((parts[1], parts[2], parts[3]))
    return found


def test_citus_gets_every_table_once_by_source_and_parents_first() -> None:
    order = [table for table, _, _ in distributed()]
    assert sorted(order) == sorted(table.fullname for table in tables.metadata.sorted_tables)
    assert {column for _, column, _ in distributed()} == {"source"}
    for table in tables.metadata.sorted_tables:
        for key in table.foreign_key_constraints:
            assert order.index(key.referred_table.fullname) < order.index(table.fullname)
    first, *others = distributed()
    assert first[2] == "none"
    assert {near for _, _, near in others} == {first[0]}  # all of a source on one machine


def test_the_bookkeeping_that_may_stay_behind_is_the_schema_etl() -> None:
    data_, kept = block("citus-data"), block("citus-bookkeeping")
    assert data_.count("'etl.") == 0
    assert kept.count("'etl.") == kept.count(";") == 6
    # Nothing of the one refers to the other, so that they may be on different machines.
    for table in tables.metadata.sorted_tables:
        for key in table.foreign_key_constraints:
            assert (key.referred_table.schema == "etl") == (table.schema == "etl")


# --- pruning etl.runs ----------------------------------------------------------------------------
def fill_runs(
    url: str, source: str, stream: str, count: int, *, apart: timedelta, newest: datetime
) -> None:
    """Record `count` runs of a stream, the last one at `newest`."""
    engine = connect(url)
    with engine.begin() as connection:
        for number in reversed(range(count)):
            started = newest - number * apart
            name = f"{source}-{stream}-{number:04}"
            runs.finish(connection, Run(name, source, stream, "full", started, status="complete"))
    engine.dispose()


def test_pruning_leaves_what_the_page_and_the_status_need(warehouse: str) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    fill_runs(warehouse, "a", "busy", 200, apart=day, newest=now)
    fill_runs(warehouse, "a", "slow", 50, apart=30 * day, newest=now)
    fill_runs(warehouse, "b", "busy", 100, apart=day, newest=now - 300 * day)  # configured no more
    fill_runs(warehouse, "b", "young", 5, apart=100 * day, newest=now)
    streams = [("a", "busy"), ("a", "slow"), ("b", "busy"), ("b", "young")]
    engine = connect(warehouse)
    before = queries.recent(engine, streams, Redactor())
    states = ask(warehouse, "SELECT * FROM etl.streams ORDER BY source, stream")
    run(warehouse, block("prune-runs"))
    assert queries.recent(engine, streams, Redactor()) == before
    engine.dispose()
    assert ask(warehouse, "SELECT * FROM etl.streams ORDER BY source, stream") == states
    left = "SELECT source, stream, count(*) FROM etl.runs GROUP BY 1, 2 ORDER BY 1, 2"
    assert ask(warehouse, left) == [
        ("a", "busy", 90),
        ("a", "slow", 30),
        ("b", "busy", 30),
        ("b", "young", 5),
    ]
    assert ask(
        warehouse,
        "SELECT count(*) FROM etl.streams JOIN etl.runs USING (source, stream)"
        " WHERE last_run_id = run_id",
    ) == [(4,)]


# --- history in partitions -----------------------------------------------------------------------
@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(4, 40), seed=9) as running:
        yield running


@pytest.fixture
def config(sandbox: Sandbox, warehouse: str, tmp_path: Path) -> Path:
    path = tmp_path / "callflow.toml"
    path.write_text(f'[warehouse]\nurl = "{dsn(warehouse)}"\n{sandbox.toml()}', encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.fixture
def analyst(warehouse: str) -> Iterator[str]:
    """Yield a role that may read what BI tools read, and this table of history."""
    name = f"analyst {secrets.token_hex(4)}"  # it needs quotes
    role = sql.Identifier(name)
    with psycopg.connect(dsn(warehouse), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(role))
        try:
            engine = connect(warehouse)
            with engine.begin() as other:
                grant.grant(other, name)
            engine.dispose()
            connection.execute(
                sql.SQL(
                    "GRANT USAGE ON SCHEMA history TO {0};"
                    " GRANT SELECT, TRUNCATE ON history.twilio_channels TO {0} WITH GRANT OPTION;"
                    " GRANT SELECT ON history.twilio_channels TO PUBLIC"
                ).format(role)
            )
            yield name
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


DESCRIBED = """
SELECT 'view', v.oid::regclass::text, pg_get_viewdef(v.oid), v.relacl::text, v.relowner::text,
       obj_description(v.oid), array(SELECT col_description(v.oid, attnum) FROM pg_attribute
                                     WHERE attrelid = v.oid AND attnum > 0 ORDER BY attnum)
  FROM pg_class v WHERE v.relkind = 'v' AND v.relnamespace::regnamespace::text = ANY(%(schemas)s)
UNION ALL
SELECT 'table', t.oid::regclass::text, NULL,
       (SELECT array_agg(concat(grantee::regrole, ' ', privilege_type, ' ', is_grantable)
                         ORDER BY grantee, privilege_type) FROM aclexplode(t.relacl))::text,
       t.relowner::text, obj_description(t.oid),
       array(SELECT row(attname, atttypid, attcollation, attnotnull, col_description(t.oid, attnum))
                    ::text FROM pg_attribute
              WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped
              ORDER BY attnum)
  FROM pg_class t WHERE t.oid = ANY(%(tables)s::regclass[])
UNION ALL
SELECT 'key', k.conrelid::regclass::text, k.conname, pg_get_constraintdef(k.oid), NULL, NULL, NULL
  FROM pg_constraint k WHERE k.contype = 'p' AND k.conrelid = ANY(%(tables)s::regclass[])
ORDER BY 1, 2
"""


def described(url: str) -> list[tuple[Any, ...]]:
    """Return what people, BI tools and callflow see of the views and tables."""
    names_ = [table.fullname for table in tables.metadata.sorted_tables]
    with psycopg.connect(dsn(url)) as connection:
        given = {"schemas": list(SCHEMAS), "tables": names_}
        return connection.execute(DESCRIBED, given).fetchall()


def sync(config: Path, **expected: int) -> Run:
    (one,) = api.sync(CHANNELS, config, full=True, env={})
    assert one.status == "complete", one.error
    assert {name: getattr(one, name) for name in expected} == expected
    return one


def change(sandbox: Sandbox, sids: list[str], word: str) -> None:
    for sid in sids:
        sandbox.twilio.channels.update(sid, user_sid=word)


def age(url: str, sids: list[str], started: str) -> None:
    """Set the start of these channels' current versions, so that the next ones follow it.

    (etl.load.runs.instant: a change is later than every previous one, whatever the clock says.)
    """
    with psycopg.connect(dsn(url)) as connection:
        connection.execute(
            "UPDATE twilio.channels SET valid_from = %s WHERE sid = ANY(%s)", [started, sids]
        )
        connection.execute("UPDATE etl.streams SET changed_at = %s", [started])


PLACES = """
SELECT tableoid::regclass::text, valid_from AT TIME ZONE 'UTC', count(*)
  FROM history.twilio_channels GROUP BY 1, 2 ORDER BY 2
"""

VERSIONS = "SELECT * FROM twilio.channels_history ORDER BY sid, valid_from"


@pytest.mark.every_postgres
def test_history_becomes_partitioned_and_everything_goes_on(
    config: Path, sandbox: Sandbox, warehouse: str, analyst: str
) -> None:
    sids = [str(record["sid"]) for record in sandbox.twilio.channels.records()][:10]
    sync(config, inserted=40)
    age(warehouse, sids, "2025-05-05 12:00+00")
    change(sandbox, sids, "US1")
    sync(config, updated=10)
    before = described(warehouse), ask(warehouse, VERSIONS)
    (rights,) = (r[3] for r in before[0] if r[:2] == ("table", "history.twilio_channels"))
    assert f'{analyst}\\" SELECT t' in rights and "- SELECT f" in rights

    run(warehouse, block("history-before"))
    run(warehouse, block("history-swap"))

    assert (described(warehouse), ask(warehouse, VERSIONS)) == before
    for number, started in enumerate(
        ("2026-12-31 23:59:59.999999+00", "2027-01-01 00:00+00", "2028-01-01 00:00+00"), 2
    ):
        age(warehouse, sids, started)
        change(sandbox, sids, f"US{number}")
        sync(config, updated=10, unchanged=30)
    assert ask(warehouse, PLACES) == [
        ("history.twilio_channels_2026", datetime(2025, 5, 5, 12), 10),  # noqa: DTZ001 - UTC
        ("history.twilio_channels_2026", datetime(2026, 12, 31, 23, 59, 59, 999999), 10),  # noqa: DTZ001
        ("history.twilio_channels_2027", datetime(2027, 1, 1), 10),  # noqa: DTZ001
        ("history.twilio_channels_rest", datetime(2028, 1, 1), 10),  # noqa: DTZ001
    ]
    versions = ask(warehouse, VERSIONS)
    assert len(versions) == 40 + 10 * 4
    assert {row for row in before[1] if not row[-1]} <= set(versions)
    assert [
        version[0]
        for version in ask(
            warehouse,
            "SELECT user_sid FROM twilio.channels_history WHERE sid = %s ORDER BY valid_from",
            sids[0],
        )
    ][1:] == ["US1", "US2", "US3", "US4"]
    with psycopg.connect(dsn(warehouse)) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(analyst)))
        assert connection.execute("SELECT count(*) FROM twilio.channels_history").fetchone() == (
            80,
        )
        assert connection.execute("SELECT count(*) FROM history.twilio_channels").fetchone() == (
            40,
        )


@pytest.fixture
def partitioned(warehouse: str) -> str:
    run(warehouse, block("history-before"))
    run(warehouse, block("history-swap"))
    return warehouse


COLUMNS = """
SELECT c.oid::regclass::text, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE c.oid IN (SELECT relid FROM pg_partition_tree('history.twilio_channels'))
   AND a.attname = 'later'
"""


def test_migrations_go_on_with_a_partitioned_history(
    partitioned: str, config: Path, sandbox: Sandbox, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "etl", "migrate", "-c", str(config)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "The schema is already up to date.\n"
    before = described(partitioned)
    later = later_version(tmp_path / "later")
    add_migration(
        later, f'op.add_column("{PARTITIONED}", sa.Column("later", sa.Text()), schema="history")'
        '; op.add_column("channels", sa.Column("later", sa.Text()), schema="twilio")',
    )  # fmt: skip
    assert said(python(UPGRADE, partitioned, root=later)) == "behind"
    assert [row[:2] + row[3:5] for row in described(partitioned)] == [
        row[:2] + row[3:5] for row in before
    ]
    with opened(partitioned) as connection:  # this version goes on, which knows no such column
        connection.exec_driver_sql(f"UPDATE etl.alembic_version SET version_num = '{HEAD}'")
        views.create(connection)
        views.describe(connection)
    assert len(ask(partitioned, COLUMNS)) == 4  # the table and its three partitions
    sync(config, inserted=40)
    change(sandbox, [str(r["sid"]) for r in sandbox.twilio.channels.records()][:3], "US9")
    sync(config, updated=3)
    assert ask(partitioned, "SELECT count(*) FROM twilio.channels_history") == [(43,)]


@pytest.mark.parametrize(
    "table", [tables.history(table) for table in TABLES.values()], ids=lambda table: table.name
)
def test_the_statements_fit_every_table_of_history(table: Table, warehouse: str) -> None:
    before = described(warehouse)
    for name in ("history-before", "history-swap"):
        run(warehouse, block(name).replace(PARTITIONED, table.name))
    assert described(warehouse) == before
    kinds = "SELECT relkind FROM pg_class WHERE oid = %s::regclass"
    assert ask(warehouse, kinds, table.fullname) == [("p",)]


def test_rows_that_do_not_fit_the_first_partition_stop_it_before_anything_is_changed(
    config: Path, warehouse: str
) -> None:
    sync(config, inserted=40)
    run(
        warehouse,
        "INSERT INTO history.twilio_channels (source, sid, valid_from, valid_to)"
        " VALUES ('s', 'CH1', '2027-01-01 00:00+00', '2027-01-02');",
    )
    before = described(warehouse)
    with pytest.raises(psycopg.errors.CheckViolation):
        run(warehouse, block("history-before"))
    with pytest.raises(psycopg.errors.CheckViolation):
        run(warehouse, block("history-swap"))
    assert described(warehouse) == before
    assert ask(warehouse, "SELECT count(*) FROM history.twilio_channels") == [(1,)]

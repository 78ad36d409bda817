"""The analysts' model on upgrades: the log is written from what is there, users' objects stay."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text

from etl.errors import SchemaError, WarehouseError
from etl.warehouse import migrate
from tests.warehouse.later import (
    HEAD,
    UPGRADE,
    ZOOM,
    add_column,
    add_migration,
    later_version,
    python,
    replace,
)
from tests.warehouse.later import said as output
from tests.warehouse.test_migrate import alembic, ask, at_revision, catalog, opened, state

pytestmark = pytest.mark.slow

BEFORE = "0003"
"""The revision before the model."""


@pytest.fixture
def later(tmp_path: Path) -> Path:
    return later_version(tmp_path)


@pytest.fixture
def role(database: str) -> Iterator[str]:
    name = f"analyst_{secrets.token_hex(4)}"
    with opened(database) as connection:
        connection.execute(text(f"CREATE ROLE {name}"))
    yield name
    with opened(database) as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))


def before(url: str, *statements: str) -> None:
    """Make a warehouse of the revision before the model, with rows."""
    with opened(url) as connection:
        command.upgrade(alembic(connection), BEFORE)
        for statement in statements:
            connection.execute(text(statement))


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    return sorted(ask(url, query), key=repr)


# -- the log of a warehouse that had none ---------------------------------------------------------


def zoom(flow_id: str, name: str, since: int, until: int | None = None, source: str = "z") -> str:
    """Return the statement that adds a version of a flow, valid from and to these days of March."""
    table, more, end = ("zoom.flows", "", "") if until is None else (
        "history.zoom_flows", ", valid_to", f", '2026-03-{until:02}Z'"
    )  # fmt: skip
    return (
        f"INSERT INTO {table} (source, flow_id, flow_name, valid_from{more}) VALUES"
        f" ('{source}', '{flow_id}', '{name}', '2026-03-{since:02}Z'{end})"
    )


def run(day: int, status: str, source: str = "z", stream: str = "flows") -> str:
    """Return the statement that adds a run of an hour, which changed rows half an hour in."""
    start = f"timestamptz '2026-03-{day:02}Z' - interval '30 min'"
    return (
        "INSERT INTO etl.runs (source, run_id, stream, mode, started_at, finished_at, status)"
        f" VALUES ('{source}', '{stream}{day}', '{stream}', 'full', {start},"
        f" {start} + interval '1 h', '{status}')"
    )


def stream(last_success: int | None, source: str = "z", name: str = "flows") -> str:
    time = "NULL" if last_success is None else f"'2026-03-{last_success:02}Z'"
    return (
        "INSERT INTO etl.streams (source, stream, last_success_at, rows)"
        f" VALUES ('{source}', '{name}', {time}, 0)"
    )


LOGGED = "SELECT source, account_id, flow_id, change, field, old_value, new_value,"
LOGGED += " extract(day FROM observed_at AT TIME ZONE 'UTC')::int FROM callflow.changes"
KNOWN = "SELECT source, key, extract(day FROM value::timestamptz AT TIME ZONE 'UTC')::int"
KNOWN += " FROM etl.streams, jsonb_each_text(known_since)"


@pytest.mark.every_postgres
def test_what_came_with_the_first_complete_run_is_no_news_after_the_upgrade(database: str) -> None:
    before(
        database,
        run(1, "incomplete"),
        run(2, "failed"),
        run(3, "complete"),
        run(4, "complete"),
        stream(4),
        zoom("a", "One", 1, 2),
        zoom("a", "Two", 2, 4),
        zoom("a", "Three", 4),
        zoom("b", "Came with the first complete run", 3),
        zoom("c", "Came later", 4),
        zoom("d", "Went before", 1, 2),
        zoom("e", "Went later", 1, 4),
    )
    assert migrate.upgrade(database) == "behind"
    assert rows(database, KNOWN) == [("z", "", 3)]
    assert rows(database, LOGGED) == [
        ("z", None, "a", "updated", "name", "Two", "Three", 4),
        ("z", None, "c", "created", None, None, None, 4),
        ("z", None, "e", "deleted", None, None, None, 4),
    ]
    provider = "SELECT provider FROM etl.streams"
    assert rows(database, provider) == [("zoom",)]


def test_where_the_runs_were_pruned_what_came_first_is_no_news(database: str) -> None:
    before(
        database,
        run(8, "complete"),
        stream(8),
        zoom("a", "One", 1, 3),
        zoom("a", "Two", 3),
        zoom("b", "Later", 5),
    )
    migrate.upgrade(database)
    assert rows(database, KNOWN) == [("z", "", 1)]
    assert rows(database, LOGGED) == [
        ("z", None, "a", "updated", "name", "One", "Two", 3),
        ("z", None, "b", "created", None, None, None, 5),
    ]


def test_a_list_without_a_complete_run_has_no_news(database: str) -> None:
    before(database, run(1, "incomplete"), stream(None), zoom("a", "One", 1, 2), zoom("a", "2", 2))
    migrate.upgrade(database)
    assert rows(database, "SELECT known_since FROM etl.streams") == [(None,)]
    assert rows(database, LOGGED) == []


def test_an_empty_list_is_known_since_its_last_complete_run(database: str) -> None:
    before(database, run(2, "complete"), stream(2))
    migrate.upgrade(database)
    assert rows(database, KNOWN) == [("z", "", 2)]


def test_each_instance_is_known_since_its_first_complete_run(database: str) -> None:
    def flow(instance: str, name: str, day: int) -> str:
        return (
            "INSERT INTO alibaba.contact_flows (source, instance_id, contact_flow_id, valid_from)"
            f" VALUES ('c', '{instance}', '{name}', '2026-03-{day:02}Z')"
        )

    of = {"source": "c", "stream": "contact_flows"}
    before(
        database,
        run(1, "complete", **of),
        run(2, "complete", **of),
        run(3, "complete", **of),
        stream(3, "c", "contact_flows"),
        flow("i", "first", 1),
        flow("i", "later", 3),
        flow("added", "first", 2),
        flow("added", "later", 3),
    )
    migrate.upgrade(database)
    assert rows(database, KNOWN) == [("c", "added", 2), ("c", "i", 1)]
    assert rows(database, LOGGED) == [
        ("c", "added", "later", "created", None, None, None, 3),
        ("c", "i", "later", "created", None, None, None, 3),
    ]


# -- what users built on the model ----------------------------------------------------------------


THEIRS = """
CREATE SCHEMA reports;
CREATE VIEW reports.live AS SELECT flow_key, name FROM callflow.flows WHERE is_live;
CREATE VIEW reports.whole AS SELECT * FROM callflow.flows;
CREATE MATERIALIZED VIEW reports.kept AS SELECT * FROM callflow.flows_history;
CREATE VIEW reports.then AS SELECT name FROM callflow.flows_at('2999-01-01Z');
CREATE VIEW reports.whole_then AS SELECT * FROM callflow.flows_at('2999-01-01Z');
CREATE VIEW reports.news AS SELECT * FROM callflow.changes;
CREATE VIEW reports.joined AS SELECT f.name, e.address FROM callflow.flows AS f
    LEFT JOIN callflow.entry_points AS e USING (provider, source, flow_id);
CREATE FUNCTION reports.names(at timestamptz) RETURNS SETOF text LANGUAGE sql AS
    'SELECT name FROM callflow.flows_at(at) ORDER BY 1';
CREATE FUNCTION reports.typed() RETURNS SETOF callflow.flows LANGUAGE sql AS
    'SELECT * FROM callflow.flows_at(now())';
CREATE FUNCTION reports.solid() RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC SELECT count(*) FROM callflow.flows_at(now()); END;
CREATE FUNCTION reports.differences() RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC SELECT count(*) FROM callflow.flow_diff('s', 'f', now(), now()); END;
GRANT SELECT ON callflow.flows TO {role} WITH GRANT OPTION;
GRANT SELECT (name) ON callflow.entry_points TO {role};
GRANT SELECT ON callflow.changes TO PUBLIC;
GRANT EXECUTE ON FUNCTION callflow.flows_at(timestamptz) TO {role} WITH GRANT OPTION;
REVOKE EXECUTE ON FUNCTION callflow.flow_diff(text, text, timestamptz, timestamptz) FROM PUBLIC;
"""

OBJECTS = (
    "SELECT c.oid, c.oid::regclass::text, relkind, relacl::text, relowner,"
    " CASE WHEN nspname = 'reports' THEN pg_get_viewdef(c.oid) END FROM pg_class AS c"
    " JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname IN ('callflow', 'reports')"
    " AND relkind IN ('v', 'm')",
    "SELECT p.oid, p.oid::regprocedure::text, proacl::text, proowner,"
    " CASE WHEN nspname = 'reports' THEN pg_get_functiondef(p.oid) END FROM pg_proc AS p"
    " JOIN pg_namespace AS n ON n.oid = pronamespace WHERE nspname IN ('callflow', 'reports')",
)

ANSWERS = (
    "SELECT * FROM reports.live",
    "SELECT name FROM reports.whole",
    "SELECT name FROM reports.kept",
    "SELECT name FROM reports.then",
    "SELECT name FROM reports.whole_then",
    "SELECT count(*) FROM reports.news",
    "SELECT * FROM reports.joined",
    "SELECT reports.names(now())",
    "SELECT name FROM reports.typed()",
    "SELECT reports.solid(), reports.differences()",
)

LAST = """        Column("created_at", "timestamptz", "When it was created."),
        *END,
    ),
    key=(),
    entity="flow\""""


def append(later: Path) -> None:
    """Append a column to the view of flows, which Zoom alone has."""
    module = later / "etl/warehouse/model/contract.py"
    appended = LAST.replace("*END,", '*END,\n        Column("later", "text", "New."),')
    replace(module, LAST, appended)
    name = '            "name": "r.flow_name",\n'
    replace(later / ZOOM, name, f'{name}            "later": "r.later",\n')


def shape(url: str, relation: str) -> list[str]:
    query = (
        "SELECT attnum, attname FROM pg_attribute"
        f" WHERE attrelid = '{relation}'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    return [name for _, name in sorted(ask(url, query))]


@pytest.mark.every_postgres
def test_objects_on_the_model_survive_a_column_that_is_appended(
    database: str, later: Path, role: str
) -> None:
    at_revision(database, HEAD, role, THEIRS)
    with opened(database) as connection:
        connection.execute(text("UPDATE zoom.flows SET status = 'published'"))
        connection.execute(text("REFRESH MATERIALIZED VIEW reports.kept"))
    there = [ask(database, query) for query in OBJECTS]
    answers = [ask(database, query) for query in ANSWERS]
    assert all(answers)
    columns = {name: shape(database, f"callflow.{name}") for name in ("flows", "flows_history")}
    add_column(later)
    append(later)
    assert output(python(UPGRADE, database, root=later)) == "behind"
    assert [ask(database, query) for query in OBJECTS] == there
    assert [ask(database, query) for query in ANSWERS] == answers
    for name, earlier in columns.items():
        assert shape(database, f"callflow.{name}") == [*earlier, "later"]
    with opened(database) as connection:
        connection.execute(text("UPDATE zoom.flows SET later = 'x'"))
    for of in ("flows", "flows_history", "flows_at(now())"):
        assert ask(database, f"SELECT name, later FROM callflow.{of}") == {("n", "x")}
    assert ask(database, "SELECT later FROM reports.typed()") == {("x",)}


def test_a_new_warehouse_has_the_columns_in_the_order_of_an_old_one(
    database: str, later: Path
) -> None:
    add_column(later)
    append(later)
    assert output(python(UPGRADE, database, root=later)) == "empty"
    assert shape(database, "callflow.flows")[-2:] == ["flow_key", "later"]
    assert shape(database, "callflow.flows_history")[-3:] == ["valid_to", "is_current", "later"]


@pytest.mark.every_postgres
def test_the_model_that_must_give_way_comes_back_with_its_rights(
    database: str, later: Path, role: str
) -> None:
    """A type changes under the views, so they are dropped and made again."""
    rights = "\n".join(line for line in THEIRS.splitlines() if line.startswith(("GRANT", "REVOKE")))
    at_revision(database, HEAD, role, rights + "\n")
    acl = (
        "SELECT c.oid::regclass::text, relacl::text, relowner FROM pg_class AS c"
        " WHERE relnamespace = 'callflow'::regnamespace AND relacl IS NOT NULL"
        " UNION ALL SELECT p.oid::regprocedure::text, proacl::text, proowner FROM pg_proc AS p"
        " WHERE pronamespace = 'callflow'::regnamespace AND proacl IS NOT NULL"
    )

    def granted() -> set[tuple[str, frozenset[str]]]:
        return {
            (name, frozenset(str(rights).strip("{}").split(",")))
            for name, rights, _ in ask(database, acl)
            if role in str(rights) or "flow_diff" in name or name.endswith("changes")
        }

    before = granted()
    assert len(before) >= 4
    retype = 'op.alter_column("{}", "status", type_=sa.String(99), schema="{}")'
    add_migration(
        later,
        more=f"{retype.format('flows', 'zoom')}\n    {retype.format('zoom_flows', 'history')}",
    )
    assert output(python(UPGRADE, database, root=later)) == "behind"
    assert granted() == before
    assert ask(database, "SELECT name, status FROM callflow.flows") == {("n", None)}


# -- a user's object with the name of one of ours -------------------------------------------------


TAKEN = {
    "CREATE TABLE callflow.flows (a int)": "callflow.flows",
    "CREATE VIEW callflow.flows AS SELECT flow_id, source FROM zoom.flows": "callflow.flows",
    "CREATE VIEW callflow.entry_points_history AS SELECT 1 AS a": "callflow.entry_points_history",
    "CREATE MATERIALIZED VIEW callflow.changes AS SELECT 1 AS a": "callflow.changes",
    "CREATE SEQUENCE callflow.freshness": "callflow.freshness",
    "CREATE FUNCTION callflow.moment() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'":
        "callflow.moment()",
    "CREATE FUNCTION callflow.flows_at(timestamptz) RETURNS int LANGUAGE sql AS 'SELECT 1'":
        "callflow.flows_at(timestamptz)",
    "CREATE FUNCTION callflow.flow_diff(text, text, timestamptz, timestamptz) RETURNS int"
    " LANGUAGE sql AS 'SELECT 1'": "callflow.flow_diff(text, text, timestamptz, timestamptz)",
}  # fmt: skip


@pytest.mark.parametrize("theirs", TAKEN)
@pytest.mark.parametrize("described", [False, True])
def test_an_object_with_a_name_of_the_model_stops_the_upgrade(
    database: str, theirs: str, described: bool
) -> None:
    """dbt, for one, comments on what it makes, as callflow does."""
    name = TAKEN[theirs]
    before(database, theirs)
    if described:
        kind = theirs.split()[1].replace("MATERIALIZED", "MATERIALIZED VIEW")
        with opened(database) as connection:
            connection.execute(text(f"COMMENT ON {kind} {name} IS 'mine'"))
    there = catalog(database)
    with pytest.raises(SchemaError) as caught:
        migrate.upgrade(database)
    assert str(caught.value).startswith(f"warehouse: {name} ")
    assert "nothing was changed" in str(caught.value)
    assert catalog(database) == there
    assert state(database) == "behind"


@pytest.mark.parametrize("name", ["history.changes", "alibaba.contact_flow_findings"])
def test_a_table_with_a_name_of_a_new_one_stops_the_upgrade(database: str, name: str) -> None:
    before(database, f"CREATE TABLE {name} (a int)")
    there = catalog(database)
    with pytest.raises(WarehouseError, match=name.partition(".")[2]):
        migrate.upgrade(database)
    assert catalog(database) == there
    assert state(database) == "behind"


def test_a_function_in_the_place_of_ours_is_not_overwritten_later(
    database: str, later: Path
) -> None:
    theirs = "CREATE FUNCTION callflow.moment() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'"
    at_revision(database, HEAD)
    with opened(database) as connection:
        for statement in (
            "DROP SCHEMA callflow CASCADE",
            "CREATE SCHEMA callflow",
            theirs,
        ):
            connection.execute(text(statement))
    there = catalog(database)
    add_column(later)
    process = python(UPGRADE, database, root=later)
    _, error = process.communicate(timeout=60)
    assert "callflow.moment() is not a function of callflow's" in error
    assert catalog(database) == there

"""The views as of a moment: `callflow.at`, and the functions `<view>_at(timestamptz)`."""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from etl.warehouse.model.contract import VIEWS, history_columns
from tests.load.loading import at
from tests.postgres import dsn
from tests.warehouse.merges import play

pytestmark = pytest.mark.slow

NAMES = [view.name for view in VIEWS]
STEPS, MOST = 20, 400
Session = psycopg.Connection[tuple[Any, ...]]
Contents = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def engine(emptied: Engine) -> Engine:
    return emptied


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    url = dsn(engine.url.render_as_string(hide_password=False))
    with psycopg.connect(url, autocommit=True, options="-c timezone=UTC") as session:
        yield session


def read(session: Session, query: str, *values: object) -> list[tuple[Any, ...]]:
    return sorted(session.execute(query.encode(), values or None).fetchall(), key=repr)


def travel(session: Session, moment: object) -> None:
    session.execute("SELECT set_config('callflow.at', %s, false)", [moment and str(moment)])


def today(session: Session) -> Contents:
    return {name: read(session, f"SELECT * FROM callflow.{name}") for name in NAMES}


def contents(session: Session, engine: Engine, seed: int) -> dict[datetime, Contents]:
    """Play a history; return what every view showed after each of its merges.

    It has STEPS merges, and goes on until no view is left that never showed a row.
    """
    found: dict[datetime, Contents] = {}
    empty = {*NAMES}
    with engine.connect() as connection:
        for now in play(connection, Random(seed), MOST):
            found[now] = today(session)
            empty -= {name for name in empty if found[now][name]}
            if len(found) >= STEPS and not empty:
                return found
    raise AssertionError(f"{MOST} merges, and never a row in {sorted(empty)}")


@pytest.mark.every_postgres
def test_the_views_show_what_they_showed_then(session: Session, engine: Engine, seed: int) -> None:
    truth = contents(session, engine, seed)
    instants, rng = list(truth), Random(seed)
    span = (instants[-1] - instants[0]).total_seconds()
    moments = [instants[0] + timedelta(seconds=rng.uniform(-1, span + 1)) for _ in range(70)]
    for instant in rng.sample(instants, 10):
        moments += [instant + timedelta(microseconds=micro) for micro in (-1, 0, 1)]
    assert len(moments) == 100
    nothing: Contents = {name: [] for name in NAMES}
    for moment in moments:
        place = bisect_right(instants, moment)
        then = truth[instants[place - 1]] if place else nothing
        travel(session, moment)
        assert today(session) == then, moment
        travel(session, None)
        for name in NAMES:
            rows = read(session, f"SELECT * FROM callflow.{name}_at(%s)", moment)
            assert rows == then[name], (name, moment)


@pytest.mark.every_postgres
def test_the_histories_hold_what_the_views_showed(
    session: Session, engine: Engine, seed: int
) -> None:
    truth = contents(session, engine, seed)
    for view in VIEWS:
        shown = [column.name for column in view.columns]
        own = [column.name for column in history_columns(view)]
        kept = [name for name in own if name not in ("valid_to", "is_current")]
        places = [shown.index(name) for name in kept]
        for instant, then in truth.items():
            rows = read(
                session,
                f"SELECT {', '.join(kept)} FROM callflow.{view.name}_history"
                " WHERE valid_from <= %s AND (valid_to IS NULL OR valid_to > %s)",
                instant,
                instant,
            )
            expected = [tuple(row[place] for place in places) for row in then[view.name]]
            assert rows == sorted(expected, key=repr), (view.name, instant)
        current = read(
            session, f"SELECT {', '.join(kept)} FROM callflow.{view.name}_history WHERE is_current"
        )
        last = [tuple(row[place] for place in places) for row in truth[instant][view.name]]
        assert current == sorted(last, key=repr)


def test_unset_and_empty_are_today_and_so_is_the_future(
    session: Session, engine: Engine, seed: int
) -> None:
    truth = contents(session, engine, seed)
    now = truth[max(truth)]
    travel(session, "2999-01-01")
    assert today(session) == now
    travel(session, "")
    assert today(session) == now
    session.execute("SET callflow.at = '1999-12-31'")
    assert today(session) == {name: [] for name in NAMES}
    session.execute("RESET callflow.at")
    assert today(session) == now
    with session.transaction():
        session.execute("SET LOCAL callflow.at = '1999-12-31 23:59:59.999999+14'")
        assert today(session) == {name: [] for name in NAMES}
    assert today(session) == now


def test_changes_are_those_up_to_then_and_freshness_is_always_of_now(
    session: Session, engine: Engine, seed: int
) -> None:
    instants = [*contents(session, engine, seed)]
    every = read(session, "SELECT * FROM callflow.changes")
    fresh = "SELECT source, stream, last_success_at, row_count FROM callflow.freshness"
    assert every
    place = [column.name for column in session.execute("SELECT * FROM callflow.changes").description
             or ()].index("observed_at")  # fmt: skip
    before = read(session, fresh)
    for instant in (at(-1), *instants[::3]):
        for moment in (instant, instant - timedelta(microseconds=1)):
            travel(session, moment)
            expected = [row for row in every if row[place] <= moment]
            assert read(session, "SELECT * FROM callflow.changes") == expected
            assert read(session, fresh) == before


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("2026-01-01", "2026-01-01 00:00+00"),
        ("2026-01-01 14:05", "2026-01-01 14:05+00"),
        ("2026-01-01T14:05:06Z", "2026-01-01 14:05:06+00"),
        ("2026-01-01 14:05:06.123456 UTC", "2026-01-01 14:05:06.123456+00"),
        ("2026-01-01 14:05+01", "2026-01-01 13:05+00"),
        ("2026-01-01 14:05:00-0530", "2026-01-01 19:35+00"),
        ("2024-02-29", "2024-02-29 00:00+00"),
        ("0001-01-01", "0001-01-01 00:00+00"),
        ("9999-12-31 23:59:59.999999-15:59", "10000-01-01 15:58:59.999999+00"),
    ],
)
def test_a_moment_is_read_as_people_write_it(session: Session, given: str, meant: str) -> None:
    travel(session, given)
    query = "SELECT callflow.moment() = CAST(%s AS timestamptz)"
    assert read(session, query, meant) == [(True,)]


def test_a_moment_without_an_offset_is_in_the_time_zone_of_the_session(session: Session) -> None:
    session.execute("SET timezone = 'Asia/Shanghai'")
    travel(session, "2026-01-01 08:00")
    assert read(session, "SELECT callflow.moment() = '2026-01-01 00:00+00'") == [(True,)]


UNREADABLE = (
    "garbage",
    "yesterday",
    "now",
    "today",
    "infinity",
    "-infinity",
    "epoch",
    "12:00",
    "2026-02-30",
    "2025-02-29",
    "2026-04-31 10:00",
    "2026-13-01",
    "2026-00-10",
    "2026-01-00",
    "0000-01-01",
    "2026-1-1",
    "20260101",
    "2026-01-01 25:00",
    "2026-01-01 24:00",
    "2026-01-01 10:60",
    "2026-01-01 10:00:60",
    "2026-01-01 10",
    "2026-01-01 10:00+16",
    "2026-01-01 10:00 Europe/Berlin",
    "2026-01-01 BC",
    "J2461042",
    "01/02/2026",
    " 2026-01-01",
    "2026-01-01 ",
    "2026-01-01\n",
    "2026-01-01\n2026-01-02",
    " ",
    "NULL",
    "２０２６-01-01",
    "x" * 100_000,
    "2026-01-01" + " " * 10_000,
    "'; DROP TABLE zoom.flows; --",
    "2026-01-01'::timestamptz OR true --",
    "%s %(x)s {0} \\",
)
EVERY = [*NAMES, "changes"]


@pytest.mark.parametrize("given", UNREADABLE, ids=[repr(each)[:30] for each in UNREADABLE])
def test_what_is_no_moment_is_an_error_on_every_view_also_on_an_empty_one(
    session: Session, given: str
) -> None:
    travel(session, given)
    for name in EVERY:
        for more in ("", " WHERE source = 'none'", " WHERE flow_id = 'none'", " LIMIT 1"):
            with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
                session.execute(f"SELECT * FROM callflow.{name}{more}".encode())
            said = str(caught.value)
            assert said.startswith(f"callflow.at is '{given[:100]}': expected a date, or a date")
            assert "2026-11-17 14:05+01" in said and "RESET callflow.at" in said
            assert len(said) < 600
    assert read(session, "SELECT count(*) FROM zoom.flows") == [(0,)]
    assert read(session, "SELECT count(*) FROM callflow.freshness") == [(0,)]
    travel(session, "")
    assert today(session) == {name: [] for name in NAMES}


def plan_of(session: Session, query: str) -> str:
    rows = session.execute(f"EXPLAIN (ANALYZE, TIMING OFF) {query}".encode()).fetchall()
    return "\n".join(line for (line,) in rows)


def executed(plan: str) -> list[str]:
    """Return the lines of a plan that scan a table of the schema history and were executed."""
    return [
        line for line in plan.splitlines()
        if " on zoom_" in line or " on twilio_" in line or " on alibaba_" in line
        or "history." in line if "never executed" not in line
    ]  # fmt: skip


MANY = """
INSERT INTO zoom.flows (source, flow_id, flow_name, status, valid_from)
    SELECT 's', 'f' || n, 'Flow ' || n, 'published', '2026-01-02' FROM generate_series(1, {n}) AS n;
INSERT INTO history.zoom_flows (source, flow_id, flow_name, status, valid_from, valid_to)
    SELECT 's', 'f' || n, 'Old ' || n, 'draft', '2026-01-01', '2026-01-02'
    FROM generate_series(1, {n}) AS n;
INSERT INTO zoom.flow_versions (source, flow_id, flow_version_id, flow_version, valid_from)
    SELECT 's', 'f' || n, 'v', n, '2026-01-01' FROM generate_series(1, {n}) AS n;
INSERT INTO zoom.entry_points (source, flow_id, entry_id, entry_number, valid_from)
    SELECT 's', 'f' || n, 'e', '+49' || n, '2026-01-01' FROM generate_series(1, {n}) AS n;
INSERT INTO history.changes (source, provider, flow_id, entity, observed_at, change)
    SELECT 's', 'zoom', 'f' || n, 'flow', '2026-01-02', 'updated' FROM generate_series(1, {n}) AS n;
"""


def fill(session: Session, count: int) -> None:
    session.execute(MANY.format(n=count).encode())
    session.execute("ANALYZE")


@pytest.mark.every_postgres
def test_without_a_moment_no_history_is_read(session: Session) -> None:
    fill(session, 2000)
    queries = [
        *(f"SELECT * FROM callflow.{name}" for name in NAMES),
        *(f"SELECT count(*) FROM callflow.{name}" for name in NAMES),
        "SELECT * FROM callflow.flows WHERE source = 's' AND flow_id = 'f77'",
        "SELECT name FROM callflow.flows WHERE provider = 'zoom' ORDER BY name LIMIT 5",
        "SELECT * FROM callflow.flows JOIN callflow.entry_points USING (provider, source, flow_id)",
        "SELECT status, count(*) FROM callflow.flows GROUP BY status",
    ]
    for query in queries:
        assert executed(plan_of(session, query)) == [], query
    travel(session, "2026-01-01 12:00Z")
    for query in queries[:1]:
        assert executed(plan_of(session, query))  # and this is how one that is read would show
    assert read(session, "SELECT DISTINCT status FROM callflow.flows") == [("draft",)]


def in_parallel(session: Session) -> None:
    """Let Postgres read also small tables by several processes."""
    name = "debug_parallel_query" if session.info.server_version >= 160000 else (
        "force_parallel_mode"
    )  # fmt: skip
    for setting, value in (
        ("parallel_setup_cost", "0"),
        ("parallel_tuple_cost", "0"),
        ("min_parallel_table_scan_size", "0"),
        ("min_parallel_index_scan_size", "0"),
        ("max_parallel_workers_per_gather", "2"),
        (name, "on"),
    ):
        session.execute(sql.SQL("SET {} = {}").format(sql.Identifier(setting), value))


@pytest.mark.every_postgres
def test_parallel_queries_answer_as_of_the_moment_and_refuse_what_is_none(
    session: Session,
) -> None:
    fill(session, 20_000)
    in_parallel(session)
    query = "SELECT count(*), min(name), min(status) FROM callflow.flows"
    plan = plan_of(session, query)
    assert "Workers Launched" in plan and "Parallel" in plan
    if session.info.server_version >= 160000:  # the workers count, and do not just hand rows over
        assert "Partial" in plan
    assert executed(plan) == []
    assert read(session, query) == [(20_000, "Flow 1", "published")]
    travel(session, "2026-01-01 12:00Z")
    assert read(session, query) == [(20_000, "Old 1", "draft")]
    assert read(session, "SELECT count(*) FROM callflow.changes") == [(0,)]
    travel(session, "2025-01-01")
    assert read(session, query) == [(0, None, None)]
    for given in ("garbage", "2026-02-30", "x" * 1000):
        travel(session, given)
        for name in EVERY:
            for query in (
                f"SELECT count(*) FROM callflow.{name}",
                f"SELECT * FROM callflow.{name} WHERE source = 'none'",
            ):
                with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"callflow\.at is"):
                    session.execute(query.encode())


@pytest.mark.every_postgres
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan", "auto"])
def test_a_prepared_statement_follows_the_setting(session: Session, mode: str) -> None:
    fill(session, 50)
    session.execute(f"SET plan_cache_mode = {mode}".encode())
    session.execute(
        "PREPARE name_of (text) AS SELECT name, status FROM callflow.flows WHERE flow_id = $1"
    )
    answers: dict[str, list[tuple[Any, ...]]] = {
        "": [("Flow 7", "published")],
        "2026-01-01 12:00Z": [("Old 7", "draft")],
        "2025-12-31": [],
        "2026-01-02 00:00Z": [("Flow 7", "published")],
    }
    for moment in [*answers, *answers, *answers, *reversed(answers)]:
        travel(session, moment)
        assert read(session, "EXECUTE name_of ('f7')") == answers[moment], moment
    travel(session, "garbage")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"callflow\.at is 'garbage'"):
        session.execute("EXECUTE name_of ('f7')")
    session.execute("RESET callflow.at")
    assert read(session, "EXECUTE name_of ('f7')") == answers[""]


def test_a_cursor_that_is_read_in_parts_shows_one_moment(session: Session) -> None:
    fill(session, 500)
    with session.transaction():
        session.execute("DECLARE names CURSOR FOR SELECT status FROM callflow.flows")
        first = session.execute("FETCH 100 FROM names").fetchall()
        rest = session.execute("FETCH ALL FROM names").fetchall()
    assert {*first, *rest} == {("published",)}
    assert len(first) + len(rest) == 500


@pytest.mark.every_postgres
def test_a_reader_without_rights_on_the_tables_can_set_it(session: Session, engine: Engine) -> None:
    fill(session, 10)
    ((name,),) = read(session, "SELECT format('reader_%s', txid_current())")
    session.execute(f"CREATE ROLE {name}".encode())
    try:
        session.execute(
            f"GRANT USAGE ON SCHEMA callflow, zoom, twilio, alibaba TO {name};"
            f" GRANT SELECT ON ALL TABLES IN SCHEMA callflow, zoom, twilio, alibaba TO {name};"
            f" SET ROLE {name}".encode()
        )
        travel(session, "2026-01-01 12:00Z")
        assert read(session, "SELECT count(*), min(status) FROM callflow.flows") == [(10, "draft")]
        since = "SELECT count(*), min(status) FROM callflow.flows_at('2026-01-01 12:00Z')"
        assert read(session, since) == [(10, "draft")]
    finally:
        session.execute(f"RESET ROLE; DROP OWNED BY {name}; DROP ROLE {name}".encode())

"""Every statement over staged rows does work in proportion to the rows, not to their square.

What a statement does is counted by Postgres itself: the rows that pass through each node of its
plan. It is compared between a size and twice that size, so no clock is looked at.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event, text

from etl.extract.page import Page
from etl.load import checkpoint, merge, runs, stage
from etl.warehouse import tables
from tests.load.loading import CONTACT_FLOWS, FLEX_FLOWS, FLOWS, SHANGHAI, Kind, at, pairs_of
from tests.load.test_merge import flow

pytestmark = pytest.mark.slow

SIZE = 250
"""Records of the smaller of two loads."""

GROWTH = 2.6
"""Twice the rows are at most so much more work: a square would be 4."""

OURS = ("SELECT", "INSERT", "DELETE", "WITH")

Work = Callable[[Connection, int], None]


class Meter:
    """Counts the rows that pass through the plans of an engine's statements, by statement."""

    def __init__(self, engine: Engine) -> None:
        self.work: dict[str, int] = {}
        self.plans: list[Mapping[str, Any]] = []
        self.counting = False
        event.listen(engine, "before_cursor_execute", self._measure)

    def _measure(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        if (
            not self.counting
            or not statement.lstrip().startswith(OURS)
            or "pg_catalog" in statement
        ):
            return
        raw = connection.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        explain = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
        with raw.cursor() as another:
            another.execute("SAVEPOINT measured")
            another.execute(explain + statement, parameters)
            ((found,),) = another.fetchall()
            another.execute("ROLLBACK TO measured")
        plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
        self.plans.append(plan)
        self.work[statement] = self.work.get(statement, 0) + rows_through(plan)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        self.work, self.plans, self.counting = {}, [], True
        try:
            yield
        finally:
            self.counting = False  # the engine is shared with the tests that follow


def rows_through(plan: Mapping[str, Any]) -> int:
    """Return how many rows a plan's nodes return or discard, in total."""
    each = sum(
        plan.get(name, 0)
        for name in (
            "Actual Rows",
            "Rows Removed by Filter",
            "Rows Removed by Join Filter",
            "Rows Removed by Index Recheck",
        )
    )
    below = sum(rows_through(child) for child in plan.get("Plans", []))
    return int(each * plan["Actual Loops"]) + below


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


# -- what is measured ----------------------------------------------------------------------------


def contact_flow(number: int) -> dict[str, Any]:
    """Return an Alibaba flow of 20 nodes with 3 edges each."""
    activities = [
        {"id": f"node{n:02d}", "type": "PLAY_SAY", "events": [{"event": f"e{e}"} for e in range(3)]}
        for n in range(20)
    ]
    return {
        "ContactFlowId": f"flow{number:06d}",
        "Name": "n",
        "NumberList": [f"+49{number}"],
        "Definition": json.dumps({"activities": activities}),
    }


def zoom_flow(number: int, name: str = "n", entries: str = "xyz") -> dict[str, Any]:
    # As with the providers' keys, the order of the keys is not that of the list.
    return flow(f"{number * 7919 % 100_003:06d}", name, entries, "12")


def staged(connection: Connection, kind: Kind, *scans: Sequence[Any], source: str = "s") -> int:
    """Stage the records of several scans in turn; return the last scan's first ordinal."""
    pairs, start, last = pairs_of(source, kind), 0, 0
    with connection.begin():
        stage.prepare(connection, pairs)
        for records in scans:
            last = start
            rows = kind.transform(Page(list(records), 1, scope="ccc", zone=SHANGHAI), start)
            start += len(records)
            for pair in pairs:
                stage.copy(connection, pair.stage, rows.tables[pair.current.fullname])
    return last


def settled(connection: Connection, kind: Kind, start: int = 0) -> dict[str, int]:
    name = "ccc" if kind.scope else ""
    starts = {name: start}
    left = stage.deduplicate(connection, pairs_of("s", kind), starts, kind.scope, kind.modified)
    return {scope: staged.records for scope, staged in left.items()}


def merged(
    connection: Connection,
    kind: Kind,
    hour: float,
    *,
    gone: Sequence[tables.Key] = (),
    **given: Any,
) -> merge.Written:
    return merge.merge(connection, "s", pairs_of("s", kind), gone, at(hour), **given)


def loaded(connection: Connection, kind: Kind, records: Sequence[Any]) -> None:
    staged(connection, kind, records)
    with connection.begin():
        settled(connection, kind)
        merged(connection, kind, 0)


def flows(size: int, **given: Any) -> list[dict[str, Any]]:
    return [zoom_flow(number, **given) for number in range(size)]


def read_twice(connection: Connection, size: int) -> None:
    start = staged(connection, FLOWS, flows(size), flows(size))
    with connection.begin():
        assert settled(connection, FLOWS, start) == {"": size}


def repeated(connection: Connection, size: int) -> None:
    staged(connection, FLOWS, flows(size), flows(size))
    with connection.begin():
        assert settled(connection, FLOWS) == {"": size}


def one_record_again_and_again(connection: Connection, size: int) -> None:
    staged(connection, FLOWS, [zoom_flow(1)] * size)
    with connection.begin():
        assert settled(connection, FLOWS) == {"": 1}


def instance_read_twice(connection: Connection, size: int) -> None:
    records = [contact_flow(number) for number in range(size // 20)]
    start = staged(connection, CONTACT_FLOWS, records, records)
    with connection.begin():
        assert settled(connection, CONTACT_FLOWS, start) == {"ccc": size // 20}


def first_load(connection: Connection, size: int) -> None:
    staged(connection, FLOWS, flows(size))
    with connection.begin():
        settled(connection, FLOWS)
        assert merged(connection, FLOWS, 0).inserted == size


def nothing_changed(connection: Connection, size: int) -> None:
    staged(connection, FLOWS, flows(size))
    with connection.begin():
        assert settled(connection, FLOWS) == {"": size}
        assert merge.unlisted(connection, "s", pairs_of("s", FLOWS)[0], []) == []
        assert merged(connection, FLOWS, 1) == merge.Written()


def nothing_changed_below(connection: Connection, size: int) -> None:
    staged(connection, CONTACT_FLOWS, [contact_flow(number) for number in range(size // 20)])
    with connection.begin():
        settled(connection, CONTACT_FLOWS)
        assert merge.unlisted(connection, "s", pairs_of("s", CONTACT_FLOWS)[0], ["ccc"]) == []
        assert merged(connection, CONTACT_FLOWS, 1) == merge.Written()


def all_changed(connection: Connection, size: int, many: int = 0) -> None:
    staged(connection, FLOWS, flows(size, name="m", entries="yw"))
    with connection.begin():
        settled(connection, FLOWS)
        written = merged(connection, FLOWS, 1, many=many)
        assert written == merge.Written(updated=size, rows=4 * size)


def all_changed_and_looked_up(connection: Connection, size: int) -> None:
    all_changed(connection, size, merge.MANY)


def few_changed(connection: Connection, size: int) -> None:
    """Merge few rows, which are looked up without reading the table."""
    staged(connection, FLOWS, flows(size // 20, name="m", entries="yw"))
    with connection.begin():
        settled(connection, FLOWS)
        assert merge.differs(connection, "s", pairs_of("s", FLOWS)[0], 0)
        written = merged(connection, FLOWS, 1, looked_up=True)
        assert written == merge.Written(updated=size // 20, rows=4 * (size // 20))


def half_gone(connection: Connection, size: int) -> None:
    staged(connection, FLOWS, flows(size)[::2])
    with connection.begin():
        settled(connection, FLOWS)
        gone = merge.unlisted(connection, "s", pairs_of("s", FLOWS)[0], [])
        assert len(gone) == size // 2
        assert merged(connection, FLOWS, 1, gone=gone).deleted == size // 2


def counted(connection: Connection, size: int) -> None:
    pair = pairs_of("s", FLEX_FLOWS)[0]
    staged(connection, FLEX_FLOWS, [{"sid": f"FO{number}"} for number in range(size)])
    with connection.begin():
        settled(connection, FLEX_FLOWS)
        merged(connection, FLEX_FLOWS, 0)
        place = checkpoint.Checkpoint("settings", "next", {}, size)
        checkpoint.save(connection, "s", "flex_flows", place)
        assert checkpoint.find(connection, "s", "flex_flows", "settings", pair) == place
        assert stage.size(connection, pair) == runs.count(connection, "s", pair.current) == size
        assert merge.known(connection, "s", pair.current, None).keys() == {""}


def contact_flows(size: int) -> list[dict[str, Any]]:
    return [contact_flow(number) for number in range(size // 20)]


WORKS: Mapping[str, tuple[Work, Kind, Callable[[int], list[dict[str, Any]]]]] = {
    "read twice": (read_twice, FLOWS, lambda size: []),
    "repeated": (repeated, FLOWS, lambda size: []),
    "one record": (one_record_again_and_again, FLOWS, lambda size: []),
    "instance read twice": (instance_read_twice, CONTACT_FLOWS, lambda size: []),
    "first load": (first_load, FLOWS, lambda size: []),
    "nothing changed": (nothing_changed, FLOWS, flows),
    "nothing changed below": (nothing_changed_below, CONTACT_FLOWS, contact_flows),
    "all changed": (all_changed, FLOWS, flows),
    "all changed, looked up": (all_changed_and_looked_up, FLOWS, flows),
    "few changed": (few_changed, FLOWS, flows),
    "half gone": (half_gone, FLOWS, flows),
    "counted": (counted, FLEX_FLOWS, lambda size: []),
}

AUTOVACUUM = """
SELECT format('ALTER TABLE %I.%I SET (autovacuum_enabled = {})', schemaname, tablename)
  FROM pg_tables WHERE schemaname IN ('zoom', 'twilio', 'alibaba', 'history')
"""


def set_autovacuum(engine: Engine, value: str) -> None:
    with engine.begin() as connection:
        for statement in connection.scalars(text(AUTOVACUUM.format(value))).all():
            connection.execute(text(statement))


@pytest.fixture
def unanalyzed(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """Yield a connection to tables without statistics, or with those of another source only."""
    set_autovacuum(engine, "off")
    with engine.connect() as connection:
        if request.param == "of another source":
            for kind, record in ((FLOWS, zoom_flow(1)), (CONTACT_FLOWS, contact_flow(1))):
                records = [record, *(zoom_flow(n) for n in range(2, 20) if kind is FLOWS)]
                staged(connection, kind, records, source="another")
                with connection.begin():
                    pairs = pairs_of("another", kind)
                    merge.merge(connection, "another", pairs, [], at(0))
            with connection.begin():
                for table in (*FLOWS.tables, *CONTACT_FLOWS.tables):
                    connection.execute(text(f"ANALYZE {table.fullname}"))
        yield connection
    set_autovacuum(engine, "on")


@pytest.mark.every_postgres
@pytest.mark.parametrize("unanalyzed", ["missing", "of another source"], indirect=True)
def test_twice_the_rows_are_twice_the_work(unanalyzed: Connection, engine: Engine) -> None:
    connection, meter = unanalyzed, Meter(engine)
    for name, (work, kind, before) in WORKS.items():
        done: list[dict[str, int]] = []
        for size in (SIZE, 2 * SIZE):
            if records := before(size):
                loaded(connection, kind, records)
            with meter.measuring():
                work(connection, size)
            done.append(meter.work)
            for node in (node for plan in meter.plans for node in nodes(plan)):
                of = node.get("Parent Relationship"), node.get("Subplan Name", "")
                assert of[0] != "SubPlan", f"{name}: a plan per row: {of[1]}"
            with connection.begin():
                for table in reversed(kind.tables):
                    connection.execute(text(f"DELETE FROM {table.fullname} WHERE source = 's'"))
                    connection.execute(text(f"DELETE FROM {tables.history(table).fullname}"))
        once, twice = done
        assert set(once) <= set(twice), name  # the second time a staging table is emptied first
        assert len(once) >= 3, name
        for statement, rows in once.items():
            # The rest is what a plan spares itself where one side is empty.
            assert twice[statement] <= GROWTH * rows + 10 * SIZE, (name, rows, statement)


@pytest.mark.every_postgres
@pytest.mark.parametrize("unanalyzed", ["missing"], indirect=True)
def test_few_staged_rows_are_looked_up_and_the_table_is_not_read(
    unanalyzed: Connection, engine: Engine
) -> None:
    loaded(unanalyzed, FLOWS, flows(1000))
    staged(unanalyzed, FLOWS, flows(10))
    meter = Meter(engine)
    with unanalyzed.begin(), meter.measuring():
        assert not merge.differs(unanalyzed, "s", pairs_of("s", FLOWS)[0], 0)
        assert merged(unanalyzed, FLOWS, 1, looked_up=True) == merge.Written()
    assert sum(meter.work.values()) < 1000


@pytest.mark.every_postgres
@pytest.mark.parametrize("unanalyzed", ["missing"], indirect=True)
def test_rows_that_differ_are_found_by_one_join_which_few_of_them_do_not_repeat(
    unanalyzed: Connection, engine: Engine
) -> None:
    loaded(unanalyzed, FLOWS, flows(1000))
    done: dict[int, int] = {}
    searched: dict[int, bool] = {}
    for changed in (0, 10):
        staged(unanalyzed, FLOWS, [*flows(changed, name="m", entries="yw"), *flows(1000)[changed:]])
        meter = Meter(engine)
        with unanalyzed.begin():
            settled(unanalyzed, FLOWS)
            with meter.measuring():
                written = merged(unanalyzed, FLOWS, 1)
        assert written == merge.Written(updated=changed, rows=4 * changed)
        # To find children that their records lost, and to take them out, are joins too.
        lost = {each for each in meter.work if "NOT record.partial" in each}
        done[changed] = sum(rows for each, rows in meter.work.items() if each not in lost)
        searched[changed] = bool(lost)
    assert done[10] < 1.1 * done[0]
    assert searched == {0: False, 10: True}


@pytest.mark.every_postgres
@pytest.mark.parametrize("unanalyzed", ["missing", "of another source"], indirect=True)
def test_a_first_load_is_an_insert_of_sorted_rows_and_joins_nothing(
    unanalyzed: Connection, engine: Engine
) -> None:
    staged(unanalyzed, FLOWS, flows(SIZE))
    meter = Meter(engine)
    with unanalyzed.begin(), meter.measuring():
        assert merged(unanalyzed, FLOWS, 0).inserted == SIZE
    inserts = [plan for plan in meter.plans if plan["Node Type"] == "ModifyTable"]
    assert [plan["Relation Name"] for plan in inserts] == [each.name for each in FLOWS.tables]
    for plan in inserts:
        types = [node["Node Type"] for node in nodes(plan)]
        assert {*types} - {"Subquery Scan"} == {"ModifyTable", "Sort", "Seq Scan"}, plan
        assert types.count("Seq Scan") == 1
        assert "Conflict Resolution" not in plan

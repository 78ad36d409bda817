"""Staging: COPY keeps every value; of a repeated record only the last version stays."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from psycopg.errors import UniqueViolation
from sqlalchemy import BigInteger, Boolean, Connection, DateTime, Integer, Text, select, text
from sqlalchemy.dialects.postgresql import JSONB

from etl.extract.page import Page
from etl.load import stage
from etl.load.stage import Staged
from etl.providers.catalog import TABLES
from etl.warehouse import tables
from tests.load.loading import (
    CHANNELS,
    CONTACT_FLOWS,
    FLOWS,
    KINDS,
    Kind,
    at,
    load,
    pairs_of,
    rows_of,
    scan,
)

ODD = "-'\"\\ %s %(x)s {} ; 流程 😀 \t\n\r\x01\x7f\u2028\ufffe"

CELLS: dict[type, list[Any]] = {
    BigInteger: [0, -(2**63), 2**63 - 1],
    Boolean: [True, False, None],
    DateTime: [
        datetime(2022, 2, 15, 9, 27, 15, 123456, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1890, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai")),
        datetime(2021, 3, 14, 2, 30, tzinfo=ZoneInfo("America/New_York")),
        datetime(2021, 1, 1, tzinfo=timezone(timedelta(hours=-14))),
        None,
    ],
    Integer: [0, -(2**31), 2**31 - 1, None],
    JSONB: ['{"a": [1, 2.5, null, "😀\\\\u0000"], "": {}}', "null", "[]", '"text"', None],
    Text: ["", ODD, "x" * 100_000, None],
}


@pytest.mark.every_postgres
def test_copy_keeps_every_value_of_every_type(connection: Connection) -> None:
    with connection.begin():
        connection.execute(text("SET TIME ZONE 'UTC'"))
    for table in TABLES.values():
        pair = stage.pair_of("s", table)
        columns = list(pair.stage.columns)
        rows = [
            tuple(CELLS[type(c.type)][index % len(CELLS[type(c.type)])] for c in columns)
            for index in range(max(len(cells) for cells in CELLS.values()))
        ]
        with connection.begin():
            stage.prepare(connection, [pair])
            stage.copy(connection, pair.stage, rows)
            found = connection.execute(select(pair.stage)).all()
        assert len(found) == len(rows)
        for row, sent in zip(found, rows, strict=True):
            for column, cell, value in zip(columns, row, sent, strict=True):
                if isinstance(column.type, JSONB):
                    assert cell == (None if value is None else json.loads(value)), column
                elif isinstance(value, datetime):
                    assert cell == value.astimezone(UTC), column
                else:
                    assert cell == value, column
                    assert type(cell) is type(value)


def test_rows_can_be_copied_straight_into_the_current_tables(connection: Connection) -> None:
    page = [{"flow_id": n, "flow_name": ODD, "entry_points": [{"entry_id": "e"}]} for n in "ab"]
    rows = FLOWS.transform(Page(page, 1), 0)
    with connection.begin():
        for pair in pairs_of("s", FLOWS):
            stage.copy_current(connection, pair, "s", rows.tables[pair.current.fullname], at(1))
    assert rows_of(connection, TABLES["zoom.flows"]) == [
        {"source": "s", "flow_id": n, "flow_name": ODD, "valid_from": at(1)} for n in "ab"
    ]
    assert rows_of(connection, TABLES["zoom.entry_points"]) == [
        {"source": "s", "flow_id": n, "entry_id": "e", "valid_from": at(1)} for n in "ab"
    ]


@pytest.mark.parametrize("records", [["a", "b", "a"], ["old"]])
def test_copying_straight_refuses_a_key_that_is_there_or_comes_twice(
    connection: Connection, records: list[str]
) -> None:
    load(connection, "s", CHANNELS, [{"sid": "old"}], now=at(0))
    (pair,) = pairs_of("s", CHANNELS)
    rows = CHANNELS.transform(Page([{"sid": sid} for sid in records], 1), 0)
    with pytest.raises(UniqueViolation), connection.begin():
        stage.copy_current(connection, pair, "s", rows.tables["twilio.channels"], at(1))
    assert [row["sid"] for row in rows_of(connection, TABLES["twilio.channels"])] == ["old"]


def test_sql_null_and_json_null_are_two_things(connection: Connection) -> None:
    pair = stage.pair_of("s", TABLES["alibaba.contact_flow_numbers"])
    with connection.begin():
        stage.prepare(connection, [pair])
        stage.copy(connection, pair.stage, [(0, "i", "f", "1", None), (0, "i", "f", "2", "null")])
        query = select(pair.stage.c.number).where(pair.stage.c.extra.is_(None))
        assert connection.execute(query).scalars().all() == ["1"]


def test_copying_nothing_is_nothing(connection: Connection) -> None:
    pair = stage.pair_of("s", TABLES["twilio.channels"])
    with connection.begin():
        stage.prepare(connection, [pair])
        stage.copy(connection, pair.stage, [])
    assert rows_of_stage(connection, pair) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.tables[0].fullname)
def test_staging_tables_are_unlogged_and_described(connection: Connection, kind: Kind) -> None:
    pairs = pairs_of("s", kind)
    with connection.begin():
        stage.prepare(connection, pairs)
        found = connection.execute(
            text(
                "SELECT c.relname, c.relpersistence, obj_description(c.oid, 'pg_class') AS comment,"
                " array_agg(a.attname) FILTER (WHERE col_description(c.oid, a.attnum) IS NULL)"
                " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0"
                " WHERE relnamespace = 'staging'::regnamespace AND relkind = 'r' GROUP BY c.oid"
            )
        ).all()
    assert {row[0] for row in found} == {pair.stage.name for pair in pairs}
    assert {row[1] for row in found} == {"u"}
    assert all(row[2] for row in found)
    assert [row[3] for row in found] == [None] * len(found)


def test_preparing_empties_what_a_killed_run_left(connection: Connection) -> None:
    scan(connection, "s", FLOWS, [{"flow_id": "a", "entry_points": [{"entry_id": "e"}]}])
    pairs = pairs_of("s", FLOWS)
    with connection.begin():
        assert connection.execute(select(pairs[2].stage)).all() != []
        stage.prepare(connection, pairs)
    for pair in pairs:
        assert rows_of_stage(connection, pair) == []


def test_sources_have_their_own_staging_tables(connection: Connection) -> None:
    scan(connection, "one", CHANNELS, [{"sid": "a"}])
    scan(connection, "two", CHANNELS, [{"sid": "b"}])
    (one,), (two,) = pairs_of("one", CHANNELS), pairs_of("two", CHANNELS)
    assert [row.sid for row in rows_of_stage(connection, one)] == ["a"]
    assert [row.sid for row in rows_of_stage(connection, two)] == ["b"]


@pytest.mark.fault(73)
def test_the_longest_source_name_works_run_after_run(connection: Connection) -> None:
    long, other = "s" * 40, "s" * 39 + "t"
    for _ in range(2):
        for source in (long, other):
            scan(connection, source, CONTACT_FLOWS, [{"ContactFlowId": source}])
    for source in (long, other):
        pair = pairs_of(source, CONTACT_FLOWS)[0]
        assert [row.contact_flow_id for row in rows_of_stage(connection, pair)] == [source]
    made = {pair.stage.name for s in (long, other) for pair in pairs_of(s, CONTACT_FLOWS)}
    with connection.begin():
        query = "SELECT relname FROM pg_class WHERE relnamespace = 'staging'::regnamespace"
        found = set(connection.execute(text(query + " AND relkind = 'r'")).scalars())
    assert found == made
    assert len(made) == 2 * len(CONTACT_FLOWS.tables)


def test_no_two_sources_share_a_staging_table() -> None:
    sources = ["a", "a_", "a__", "a__flows", "flows", "a_contact", "s" * 40, "s" * 39 + "_"]
    names = [pair.stage.name for s in sources for kind in KINDS for pair in pairs_of(s, kind)]
    assert len(set(names)) == len(names)
    assert max(len(name.encode()) for name in names) <= 63


def test_a_source_that_is_given_to_another_provider_gets_that_one_s_staging_table(
    connection: Connection,
) -> None:
    """Two providers may call a table alike, as phone_numbers, with other columns."""
    for name in ("twilio.phone_numbers", "alibaba.phone_numbers", "twilio.phone_numbers"):
        pair = stage.pair_of("s", TABLES[name])
        with connection.begin():
            stage.prepare(connection, [pair])
            assert connection.execute(select(pair.stage)).all() == []
            connection.execute(pair.stage.insert().values(ord=1, partial=False))


@pytest.mark.fault(18, 44)
def test_only_the_last_version_of_a_repeated_record_is_kept(connection: Connection) -> None:
    first = {
        "flow_id": "a",
        "flow_name": "old",
        "entry_points": [{"entry_id": "x"}, {"entry_id": "y"}],
        "flow_versions": [{"flow_version_id": "1"}],
    }
    last = {"flow_id": "a", "flow_name": "new", "entry_points": [{"entry_id": "y"}]}
    middle = {"flow_id": "a", "entry_points": "not a list"}
    other = {"flow_id": "b", "entry_points": [{"entry_id": "x"}]}
    found = scan(connection, "s", FLOWS, [first, middle], [other, last])
    assert found == {"": Staged(2, None)}
    flows, versions, entries = (
        [tuple(row) for row in rows_of_stage(connection, pair)] for pair in pairs_of("s", FLOWS)
    )
    assert [row[:4] for row in flows] == [(3, False, "a", "new"), (2, False, "b", None)]
    assert versions == []
    assert [row[:3] for row in entries] == [(3, "a", "y"), (2, "b", "x")]


def test_a_repeated_record_without_children_is_reported_too(connection: Connection) -> None:
    other = {"flow_id": "b", "entry_points": [{"entry_id": "x"}]}
    found = scan(connection, "s", FLOWS, [{"flow_id": "a"}, other], [{"flow_id": "a"}])
    assert found == {"": Staged(2, None)}


@pytest.mark.fault(44)
def test_the_last_of_a_record_repeated_on_a_page_wins(connection: Connection) -> None:
    found = scan(connection, "s", CHANNELS, [{"sid": "a", "url": str(i)} for i in range(5)])
    assert found == {"": Staged(1, None)}
    (row,) = rows_of_stage(connection, pairs_of("s", CHANNELS)[0])
    assert (row.ord, row.url) == (4, "4")


def test_the_counts_are_per_scope(connection: Connection) -> None:
    kind = Kind(CHANNELS.tables, CHANNELS.transform, scope="account_sid")
    page = [{"sid": sid, "account_sid": sid[0]} for sid in ("x1", "x2", "y1", "x1")]
    left = {"x": Staged(2, None), "y": Staged(1, None)}
    assert scan(connection, "s", kind, page) == left
    assert scan(connection, "s", CHANNELS) == {}


def test_rows_staged_only_before_the_proven_scan_are_dropped(connection: Connection) -> None:
    def page(*names: str) -> list[Any]:
        return [{"ContactFlowId": name, "NumberList": [name], "InstanceId": "x"} for name in names]

    pairs = pairs_of("s", CONTACT_FLOWS)
    scan(connection, "s", CONTACT_FLOWS, page("a", "b"), page("b", "c"), scope="one")
    with connection.begin():
        left = stage.deduplicate(connection, pairs, {"other": 9, "one": 2}, "instance_id", None)
        assert left == {"one": Staged(2, None)}
    assert [row.contact_flow_id for row in rows_of_stage(connection, pairs[0])] == ["b", "c"]
    assert [row.number for row in rows_of_stage(connection, pairs[1])] == ["b", "c"]


@pytest.mark.every_postgres
def test_the_planner_knows_the_staged_keys(connection: Connection) -> None:
    """Without statistics the joins of the merge are planned for empty tables."""
    scan(connection, "s", CHANNELS, [{"sid": f"CH{number}"} for number in range(500)])
    (pair,) = pairs_of("s", CHANNELS)
    with connection.begin():
        rows = connection.scalar(
            text("SELECT reltuples FROM pg_class WHERE oid = to_regclass(:name)"),
            {"name": pair.stage.fullname},
        )
        known = connection.scalar(
            text("SELECT n_distinct FROM pg_stats WHERE tablename = :name AND attname = 'sid'"),
            {"name": pair.stage.name},
        )
    assert rows == 500
    assert known == -1


def test_clearing_leaves_nothing_and_does_nothing_to_empty_tables(connection: Connection) -> None:
    scan(connection, "s", CHANNELS, [{"sid": "a"}])
    pairs = pairs_of("s", CHANNELS)

    def file() -> Any:
        query = text("SELECT pg_relation_filenode(to_regclass(:name))")
        return connection.scalar(query, {"name": pairs[0].stage.fullname})

    with connection.begin():
        before = file()
        stage.clear(connection, pairs)
        emptied = file()
        stage.clear(connection, pairs)
        assert file() == emptied != before
    assert rows_of_stage(connection, pairs[0]) == []
    assert rows_of(connection, TABLES["twilio.channels"]) == []


def rows_of_stage(connection: Connection, pair: stage.TablePair) -> list[Any]:
    keys = [pair.stage.c[name] for name in tables.key_columns(pair.current)]
    with connection.begin():
        return list(connection.execute(select(pair.stage).order_by(*keys)).all())

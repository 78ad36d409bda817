"""The merge: current tables equal what was staged, history holds what was superseded."""

import random
from typing import Any

import pytest
from sqlalchemy import Connection, Table, text

from etl.load import merge
from etl.load.merge import Written
from etl.providers.catalog import TABLES
from etl.transform.values import MAX_KEY_BYTES
from etl.warehouse import tables
from tests.load.loading import (
    CHANNELS,
    CONTACT_FLOWS,
    FLOWS,
    KINDS,
    at,
    load,
    pairs_of,
    rows_of,
    scan,
    versions_of,
)

ODD = "-'\"\\ %s %(x)s {a} ; 流程 😀"


def flow(flow_id: str, name: str = "n", entries: str = "", versions: str = "") -> dict[str, Any]:
    """Return a Zoom flow with one entry point or version per letter."""
    return {
        "flow_id": flow_id,
        "flow_name": name,
        "entry_points": [{"entry_id": letter} for letter in entries],
        "flow_versions": [{"flow_version_id": letter} for letter in versions],
    }


def ids(connection: Connection, table: Table, source: str = "s") -> list[tuple[Any, ...]]:
    keys = tables.key_columns(table)
    return [tuple(row[key] for key in keys) for row in rows_of(connection, table, source)]


def same_but_valid_from(row: dict[str, Any]) -> dict[str, Any]:
    return {name: cell for name, cell in row.items() if name not in ("valid_from", "valid_to")}


def test_new_records_are_inserted_with_all_their_children(connection: Connection) -> None:
    written = load(connection, "s", FLOWS, [flow("a", "A", "xy", "1"), flow("b")], now=at(0))
    assert written == Written(inserted=2, updated=0, deleted=0, rows=5)
    assert rows_of(connection, TABLES["zoom.flows"]) == [
        {"source": "s", "flow_id": "a", "flow_name": "A", "valid_from": at(0)},
        {"source": "s", "flow_id": "b", "flow_name": "n", "valid_from": at(0)},
    ]
    assert ids(connection, TABLES["zoom.entry_points"]) == [("a", "x"), ("a", "y")]
    assert ids(connection, TABLES["zoom.flow_versions"]) == [("a", "1")]
    for table in FLOWS.tables:
        assert versions_of(connection, table) == []


def test_the_first_rows_of_a_source_are_written_in_the_order_of_their_keys(
    connection: Connection,
) -> None:
    """Beside those of others, and also after all rows of the source have gone to history."""
    load(connection, "another", FLOWS, [flow("z", "n", "x", "1"), flow("b", "n", "x")], now=at(0))
    load(connection, "s", FLOWS, [flow("b", "n", "x")], now=at(0))
    load(connection, "s", FLOWS, gone=[("b",)], now=at(1))
    page = [flow("c", "n", "ba"), flow("b", "n", "yx", "21"), flow("-"), flow("Z")]
    assert load(connection, "s", FLOWS, page, now=at(2)) == Written(inserted=4, rows=10)
    places = {}
    for table in FLOWS.tables:
        key = ", ".join(tables.key_columns(table))
        query = f"SELECT {key} FROM {table.fullname} WHERE source = 's' ORDER BY ctid"
        with connection.begin():
            places[table.name] = [tuple(row) for row in connection.execute(text(query))]
    assert places == {
        "flows": [("-",), ("Z",), ("b",), ("c",)],
        "flow_versions": [("b", "1"), ("b", "2")],
        "entry_points": [("b", "x"), ("b", "y"), ("c", "a"), ("c", "b")],
    }
    assert [row["valid_to"] for row in versions_of(connection, TABLES["zoom.flows"])] == [at(1)]


def test_a_changed_record_is_updated_and_its_previous_version_goes_to_history(
    connection: Connection,
) -> None:
    load(connection, "s", FLOWS, [flow("a", "old"), flow("b")], now=at(0))
    written = load(connection, "s", FLOWS, [flow("a", "new"), flow("b")], now=at(1))
    assert written == Written(updated=1, rows=1)
    assert [
        (r["flow_name"], r["valid_from"]) for r in rows_of(connection, TABLES["zoom.flows"])
    ] == [
        ("new", at(1)),
        ("n", at(0)),
    ]
    assert versions_of(connection, TABLES["zoom.flows"]) == [
        {
            "source": "s",
            "flow_id": "a",
            "flow_name": "old",
            "valid_from": at(0),
            "valid_to": at(1),
        }
    ]


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    ("member", "first", "second"),
    [
        ("flow_name", "x", None),
        ("flow_name", None, ""),
        ("flow_name", "x", "X"),
        ("flow_name", "e\u0301", "é"),
        ("last_modified_time", "2022-02-15T09:27:15Z", "2022-02-15T09:27:15.000001Z"),
        ("last_modified_time", "2022-02-15T09:27:15Z", "not a time"),
        ("new", 1, "1"),
        ("new", None, 0),
        ("new", {"a": 1}, {"a": [1]}),
    ],
)
def test_any_difference_in_any_column_is_a_change(
    connection: Connection, member: str, first: Any, second: Any
) -> None:
    load(connection, "s", FLOWS, [{"flow_id": "a", member: first}], now=at(0))
    written = load(connection, "s", FLOWS, [{"flow_id": "a", member: second}], now=at(1))
    assert written == Written(updated=1, rows=1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"last_modified_time": "2022-02-15T09:27:15Z"},
         {"last_modified_time": "2022-02-15T10:27:15.000+01:00"}),
        ({"new": {"a": 1, "b": 2}}, {"new": {"b": 2, "a": 1.0}}),
        ({"flow_name": None}, {}),
        ({"entry_points": []}, {"entry_points": None}),
    ],
)  # fmt: skip
def test_another_spelling_of_the_same_is_no_change(
    connection: Connection, first: Any, second: Any
) -> None:
    load(connection, "s", FLOWS, [{"flow_id": "a", **first}], now=at(0))
    assert load(connection, "s", FLOWS, [{"flow_id": "a", **second}], now=at(1)) == Written()


def test_children_are_replaced_as_a_set(connection: Connection) -> None:
    load(connection, "s", FLOWS, [flow("a", "n", "xyz", "1"), flow("b", "n", "x")], now=at(0))
    changed = flow("a", "n", "yw", "1")
    changed["entry_points"][0]["entry_name"] = "new"
    written = load(connection, "s", FLOWS, [changed, flow("b", "n", "x")], now=at(1))
    assert written == Written(updated=1, rows=4)  # x and z removed, y changed, w new
    found = {
        (row["flow_id"], row["entry_id"]): row["valid_from"]
        for row in rows_of(connection, TABLES["zoom.entry_points"])
    }
    assert found == {("a", "y"): at(1), ("a", "w"): at(1), ("b", "x"): at(0)}
    closed = [(r["entry_id"], r["valid_to"]) for r in versions_of(connection, FLOWS.tables[2])]
    assert sorted(closed) == [("x", at(1)), ("y", at(1)), ("z", at(1))]
    (record, _) = rows_of(connection, TABLES["zoom.flows"])
    assert record["valid_from"] == at(0)  # its own row is as it was


@pytest.mark.parametrize(
    ("before", "after", "rows"),
    [
        (flow("a", "n", "x"), flow("a", "n", "xy"), 1),
        (flow("a", "n", "xy"), flow("a", "n", "x"), 1),
        (flow("a", "n", "x"), flow("a", "m", "y"), 3),
        (flow("a", "n", "x", "1"), flow("a", "n", "", ""), 2),
    ],
)
def test_a_record_whose_children_changed_counts_as_one_updated(
    connection: Connection, before: Any, after: Any, rows: int
) -> None:
    others = [flow("b", "n", "xy", "12"), flow("c")]
    load(connection, "s", FLOWS, [before, *others], now=at(0))
    written = load(connection, "s", FLOWS, [after, *others], now=at(1))
    assert written == Written(updated=1, rows=rows)


def test_new_records_with_children_are_not_counted_as_updated(connection: Connection) -> None:
    load(connection, "s", FLOWS, [flow("a", "n", "x")], now=at(0))
    page = [flow("a", "n", "xy"), flow("b", "n", "xyz", "1")]
    assert load(connection, "s", FLOWS, page, now=at(1)) == Written(inserted=1, updated=1, rows=6)


def test_an_unreadable_child_keeps_the_children_that_were_there(connection: Connection) -> None:
    load(connection, "s", FLOWS, [flow("a", "n", "xy", "1")], now=at(0))
    partial = flow("a", "m", "yw", "")
    partial["entry_points"].append({"entry_name": "no id"})
    written = load(connection, "s", FLOWS, [partial], now=at(1))
    assert written == Written(updated=1, rows=2)
    assert ids(connection, TABLES["zoom.entry_points"]) == [("a", "w"), ("a", "x"), ("a", "y")]
    assert ids(connection, TABLES["zoom.flow_versions"]) == [("a", "1")]


def test_a_record_that_was_not_staged_is_left_alone(connection: Connection) -> None:
    load(connection, "s", FLOWS, [flow("a", "n", "x"), flow("b", "n", "x")], now=at(0))
    assert load(connection, "s", FLOWS, [flow("a", "n", "x")], now=at(1)) == Written()
    assert ids(connection, TABLES["zoom.flows"]) == [("a",), ("b",)]
    assert ids(connection, TABLES["zoom.entry_points"]) == [("a", "x"), ("b", "x")]


@pytest.mark.every_postgres
def test_a_deleted_record_moves_to_history_with_its_children(connection: Connection) -> None:
    records = [flow("a", "A", "xy", "1"), flow("b", "B", "x")]
    load(connection, "s", FLOWS, records, now=at(0))
    written = load(connection, "s", FLOWS, [records[1]], gone=[("a",)], now=at(1))
    assert written == Written(deleted=1, rows=4)
    assert ids(connection, TABLES["zoom.flows"]) == [("b",)]
    assert ids(connection, TABLES["zoom.entry_points"]) == [("b", "x")]
    assert ids(connection, TABLES["zoom.flow_versions"]) == []
    (closed,) = versions_of(connection, TABLES["zoom.flows"])
    assert (closed["flow_name"], closed["valid_from"], closed["valid_to"]) == ("A", at(0), at(1))
    assert len(versions_of(connection, TABLES["zoom.entry_points"])) == 2
    assert len(versions_of(connection, TABLES["zoom.flow_versions"])) == 1


def test_a_row_can_go_and_come_back(connection: Connection) -> None:
    record = flow("a", "A", "x")
    load(connection, "s", FLOWS, [record], now=at(0))
    load(connection, "s", FLOWS, gone=[("a",)], now=at(1))
    assert load(connection, "s", FLOWS, [record], now=at(2)) == Written(inserted=1, rows=2)
    load(connection, "s", FLOWS, gone=[("a",)], now=at(3))
    for table in (TABLES["zoom.flows"], TABLES["zoom.entry_points"]):
        assert rows_of(connection, table) == []
        spans = [(row["valid_from"], row["valid_to"]) for row in versions_of(connection, table)]
        assert spans == [(at(0), at(1)), (at(2), at(3))]


def test_the_history_view_shows_every_version_once_and_they_abut(connection: Connection) -> None:
    for hour, name in enumerate(["one", "two", "three"]):
        load(connection, "s", FLOWS, [flow("a", name, "x"), flow("b")], now=at(hour))
    with connection.begin():
        found = connection.execute(
            text(
                "SELECT flow_id, flow_name, valid_from, valid_to, is_current"
                " FROM zoom.flows_history ORDER BY flow_id, valid_from"
            )
        ).all()
        entries = connection.scalar(text("SELECT count(*) FROM zoom.entry_points_history"))
    assert [tuple(row) for row in found] == [
        ("a", "one", at(0), at(1), False),
        ("a", "two", at(1), at(2), False),
        ("a", "three", at(2), None, True),
        ("b", "n", at(0), None, True),
    ]
    assert entries == 1


def contact_flow(flow_id: str, shape: dict[str, list[str | None]], **more: Any) -> Any:
    """Return a contact flow whose activities have transitions to these."""
    activities = ",".join(
        f'{{"id": "{name}", "events": ['
        + ",".join(f'{{"next": "{to}"}}' if to else "{}" for to in targets)
        + "]}"
        for name, targets in shape.items()
    )
    return {"ContactFlowId": flow_id, "Definition": f'{{"activities": [{activities}]}}', **more}


@pytest.mark.every_postgres
def test_grandchildren_come_and_go_in_the_order_of_their_keys(connection: Connection) -> None:
    first = contact_flow("f", {"a": ["b", "c"], "b": ["c"], "c": [None]}, NumberList=["1", "2"])
    assert load(connection, "s", CONTACT_FLOWS, [first], now=at(0)) == Written(inserted=1, rows=12)
    second = contact_flow("f", {"a": ["b"], "b": ["d"], "d": []}, NumberList=["2"])
    written = load(connection, "s", CONTACT_FLOWS, [second], now=at(1))
    # the record, one number, two activities, of a one transition, of b one changed, of c one;
    # d is the dead end instead of c, and there still is no start
    assert written == Written(updated=1, rows=9)
    key = ("ccc", "f")
    assert ids(connection, TABLES["alibaba.contact_flow_transitions"]) == [
        (*key, "a", 0),
        (*key, "b", 0),
    ]
    assert ids(connection, TABLES["alibaba.contact_flow_activities"]) == [
        (*key, "a"),
        (*key, "b"),
        (*key, "d"),
    ]
    written = load(connection, "s", CONTACT_FLOWS, gone=[key], now=at(2))
    assert written == Written(deleted=1, rows=9)
    for table in CONTACT_FLOWS.tables:
        assert rows_of(connection, table) == []


def test_children_only_changes_are_counted_however_deep(connection: Connection) -> None:
    """Alibaba's Definition is a column, so the test stages rows that differ only below."""
    load(connection, "s", CONTACT_FLOWS, [contact_flow("f", {"a": ["b"], "b": []})], now=at(0))
    pairs = pairs_of("s", CONTACT_FLOWS)
    scan(connection, "s", CONTACT_FLOWS, [contact_flow("f", {"a": ["b"], "b": []})])
    with connection.begin():
        connection.execute(text(f"UPDATE {pairs[3].stage.fullname} SET event = 'changed'"))
        written = merge.merge(connection, "s", pairs, [], at(1))
    assert written == Written(updated=1, rows=1)


@pytest.mark.fault(41)
def test_keys_and_values_with_odd_characters(connection: Connection) -> None:
    record = flow(ODD, ODD, "x")
    record["entry_points"][0]["entry_id"] = ODD
    load(connection, "s", FLOWS, [record, flow("b")], now=at(0))
    record["flow_name"] += "!"
    assert load(connection, "s", FLOWS, [record], now=at(1)) == Written(updated=1, rows=1)
    pairs = pairs_of("s", FLOWS)
    with connection.begin():
        assert merge.unlisted(connection, "s", pairs[0], []) == [("b",)]
    written = load(connection, "s", FLOWS, gone=[(ODD,), ("b",)], now=at(2))
    assert written == Written(deleted=2, rows=3)
    closed = [row["flow_name"] for row in versions_of(connection, TABLES["zoom.flows"])]
    assert sorted(closed) == sorted([ODD, ODD + "!", "n"])


@pytest.mark.fault(39)
def test_keys_of_the_greatest_length_fit_every_index(connection: Connection, seed: int) -> None:
    """The text is random, so that Postgres cannot compress it."""
    rng = random.Random(seed)
    longest = "".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(MAX_KEY_BYTES // 3))
    record = contact_flow(longest, {longest: ["b"]}, NumberList=[longest])
    source = "s" * 40
    load(connection, source, CONTACT_FLOWS, [record], now=at(0), scope=longest)
    assert load(
        connection, source, CONTACT_FLOWS, gone=[(longest, longest)], now=at(1), scope=longest
    ) == Written(deleted=1, rows=7)  # three are findings
    (closed,) = versions_of(connection, TABLES["alibaba.contact_flow_transitions"])
    assert closed["activity_id"] == longest


def test_two_sources_with_the_same_ids_do_not_touch_each_other(connection: Connection) -> None:
    load(connection, "one", FLOWS, [flow("a", "1", "xy", "1"), flow("b")], now=at(0))
    load(connection, "two", FLOWS, [flow("a", "2", "x"), flow("c")], now=at(1))
    before = {table: rows_of(connection, table, "one") for table in FLOWS.tables}
    load(connection, "two", FLOWS, [flow("a", "new", "z", "9")], gone=[("c",), ("b",)], now=at(2))
    scan(connection, "two", FLOWS)
    with connection.begin():
        assert merge.unlisted(connection, "two", pairs_of("two", FLOWS)[0], []) == [("a",)]
    assert {table: rows_of(connection, table, "one") for table in FLOWS.tables} == before
    for table in FLOWS.tables:
        assert {row["source"] for row in versions_of(connection, table)} <= {"two"}


def test_the_absent_are_those_not_staged_in_key_order_and_within_the_scopes(
    connection: Connection,
) -> None:
    for scope in ("i3", "i2", "i1"):
        for key in ("b", "-", "a", "Z"):
            load(connection, "s", CONTACT_FLOWS, [{"ContactFlowId": key}], now=at(0), scope=scope)
    scan(connection, "s", CONTACT_FLOWS, [{"ContactFlowId": "b"}], scope="i2")
    pair = pairs_of("s", CONTACT_FLOWS)[0]
    with connection.begin():
        for plan in ("mergejoin", "indexscan", "indexonlyscan", "bitmapscan"):  # they sort
            connection.execute(text(f"SET LOCAL enable_{plan} = off"))
        assert merge.unlisted(connection, "s", pair, ["i2"]) == [
            ("i2", "-"),
            ("i2", "Z"),
            ("i2", "a"),
        ]
        assert len(merge.unlisted(connection, "s", pair, ["i1", "i2"])) == 7
        assert len(merge.unlisted(connection, "s", pair, [])) == 11
        assert merge.unlisted(connection, "s", pair, ["i9"]) == []


@pytest.mark.fault(55)
@pytest.mark.every_postgres
def test_nothing_changed_writes_no_row_and_hardly_any_wal(connection: Connection) -> None:
    everything = {
        FLOWS: [flow(f"f{n}", "n", "xyz", "12") for n in range(200)],
        CONTACT_FLOWS: [contact_flow(f"f{n}", {"a": ["b"], "b": [None]}) for n in range(200)],
        CHANNELS: [{"sid": f"CH{n}", "new": {"n": n}} for n in range(2000)],
    }
    marks = "source, ctid::text, xmin::text, xmax::text"
    for kind, records in everything.items():
        load(connection, "s", kind, records, now=at(0))
        load(connection, "s", kind, [*records[:-1], {**records[-1], "x": 1}], now=at(1))
        written = [*records[:-1], {**records[-1], "x": 1}]
        watched = [*kind.tables, *(tables.history(table) for table in kind.tables)]

        def physical(watched: Any = watched) -> list[Any]:
            return [
                connection.execute(text(f"SELECT {marks} FROM {table} ORDER BY ctid")).all()
                for table in watched
            ]

        wal = []
        scan(connection, "s", kind, written)
        for hour in (2, 3, 4):
            with connection.begin():
                before = physical()
                start = connection.scalar(text("SELECT pg_current_wal_insert_lsn()"))
                found = merge.merge(connection, "s", pairs_of("s", kind), [], at(hour))
                wal.append(
                    connection.scalar(
                        text("SELECT pg_current_wal_insert_lsn() - CAST(:start AS pg_lsn)"),
                        {"start": start},
                    )
                )
                assert physical() == before
                assert found == Written()
        assert min(wal) < 2000  # another session of the server may write some, but not every time


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.tables[0].fullname)
def test_an_empty_scan_of_an_empty_source_is_nothing(connection: Connection, kind: Any) -> None:
    assert load(connection, "s", kind, now=at(0)) == Written()


@pytest.mark.fault(57)
def test_more_rows_than_a_statement_takes_parameters_can_go_at_once(
    connection: Connection,
) -> None:
    """A statement takes at most 65,535 parameters."""
    count = 65_600
    with connection.begin():
        connection.execute(
            text(
                "INSERT INTO twilio.channels (source, sid, valid_from)"
                " SELECT 's', 'CH' || n, '2026-01-01T00:00Z' FROM generate_series(1, :count) n"
            ),
            {"count": count},
        )
    scan(connection, "s", CHANNELS, [{"sid": "CH1"}])
    pairs = pairs_of("s", CHANNELS)
    with connection.begin():
        gone = merge.unlisted(connection, "s", pairs[0], [])
        assert len(gone) == count - 1
        written = merge.merge(connection, "s", pairs, gone, at(1))
    assert written == Written(deleted=count - 1, rows=count - 1)
    assert ids(connection, TABLES["twilio.channels"]) == [("CH1",)]


@pytest.mark.slow
@pytest.mark.fault(57)
def test_more_records_than_a_statement_takes_parameters_can_lose_children_at_once(
    connection: Connection,
) -> None:
    count = 65_600
    numbers = {"count": count}
    with connection.begin():
        connection.execute(
            text(
                "INSERT INTO zoom.flows (source, flow_id, valid_from)"
                " SELECT 's', 'f' || n, '2026-01-01T00:00Z' FROM generate_series(1, :count) n"
            ),
            numbers,
        )
        connection.execute(
            text(
                "INSERT INTO zoom.entry_points (source, flow_id, entry_id, valid_from)"
                " SELECT source, flow_id, 'e', valid_from FROM zoom.flows"
            )
        )
    scan(connection, "s", FLOWS)
    pairs = pairs_of("s", FLOWS)
    with connection.begin():
        connection.execute(
            text(
                f"INSERT INTO {pairs[0].stage.fullname} (ord, partial, flow_id)"
                " SELECT n, false, 'f' || n FROM generate_series(1, :count) n"
            ),
            numbers,
        )
        connection.execute(text(f"ANALYZE {pairs[0].stage.fullname}"))
        written = merge.merge(connection, "s", pairs, [], at(1))
    assert written == Written(updated=count, rows=count)


@pytest.mark.slow
@pytest.mark.fault(57)
def test_a_row_of_fifty_megabytes_is_loaded_and_its_former_version_kept(
    connection: Connection,
) -> None:
    size = 50 << 20
    load(connection, "s", FLOWS, [flow("a", "x" * size), flow("b")], now=at(0))
    written = load(connection, "s", FLOWS, [flow("a", "y" * size), flow("b")], now=at(1))
    assert written == Written(updated=1, rows=1)
    both = (
        "SELECT length(flow_name), left(flow_name, 1) FROM zoom.flows_history WHERE flow_id = 'a'"
    )
    with connection.begin():
        found = connection.execute(text(f"{both} ORDER BY valid_from")).all()
    assert [tuple(row) for row in found] == [(size, "x"), (size, "y")]

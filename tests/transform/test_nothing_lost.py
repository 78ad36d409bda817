"""Whatever JSON a provider sends: no exception, and every member can be found again."""

import json
from collections.abc import Iterable
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import DateTime, Table

from etl.extract.decode import decode
from etl.providers.catalog import TABLES
from etl.transform.rows import Reject, Rows
from etl.warehouse import tables
from tests.transform.named import Named, named, transformed

ZONE = ZoneInfo("Asia/Shanghai")

odd = st.sampled_from(
    ["", "\0", "\ud800", "a\0\udfff", "\\u0000", "true", "3", "2021-03-08 15:34:49.0",
     "2016-08-01T22:10:40Z", "2016-08-01T22:10:40.123+00:00", "0001-01-01T00:00:00Z",
     "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:59Z"]
)  # fmt: skip
texts = st.text(st.characters(exclude_categories=[]), max_size=6).map(
    lambda text: json.loads(json.dumps(text))  # a pair of surrogates in JSON is one character
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**33), 2**33)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, 3.0, 2**31 - 1, 2**31, 10**400])
    | odd
    | texts
)
names = st.sampled_from(["", "extra", "source", "valid_from", "ord", "a\0", "\ud800"]) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
ids = st.sampled_from(["a", "b", "-c"])


def objects(members: Iterable[str], of_id: str, **special: st.SearchStrategy[Any]) -> Any:
    """Generate objects with some of `members`, mostly with an id, and with unknown others."""
    known = st.fixed_dictionaries(
        {}, optional={name: special.get(name, values) for name in (*members, *special)}
    )
    with_id = st.fixed_dictionaries({}, optional={of_id: ids | ids | values})
    more = st.dictionaries(names, values, max_size=2)
    return st.tuples(more, known, with_id).map(lambda parts: {**parts[0], **parts[1], **parts[2]})


def members(table: Table) -> list[str]:
    return [c.info["json"][-1] for c in table.columns if "json" in c.info]


def children(table: Table, of_id: str, **special: st.SearchStrategy[Any]) -> Any:
    return st.lists(objects(members(table), of_id, **special) | values, max_size=3) | values


flows = objects(
    members(TABLES["zoom.flows"]),
    "flow_id",
    entry_points=children(TABLES["zoom.entry_points"], "entry_id"),
    flow_versions=children(TABLES["zoom.flow_versions"], "flow_version_id"),
)
_top = [c.info["json"][0] for c in TABLES["twilio.flex_flows"].columns if "json" in c.info]
_inner = [
    c.info["json"][1]
    for c in TABLES["twilio.flex_flows"].columns
    if len(c.info.get("json", ())) == 2
]
flex_flows = objects(
    [name for name in _top if name != "integration"],
    "sid",
    integration=objects(_inner, "new") | values,
)
channels = objects(members(TABLES["twilio.channels"]), "sid")
activities = children(
    TABLES["alibaba.contact_flow_activities"],
    "id",
    events=st.lists(objects(members(TABLES["alibaba.contact_flow_transitions"]), "x") | values,
                    max_size=2) | values,
)  # fmt: skip
definitions = (
    st.fixed_dictionaries({}, optional={"activities": activities, "description": values}).map(
        json.dumps
    )
    | values
)
contact_flows = objects(
    members(TABLES["alibaba.contact_flows"]),
    "ContactFlowId",
    Definition=definitions,
    NumberList=st.lists(st.sampled_from(["1", "2"]) | values, max_size=3) | values,
    InstanceId=st.just("i") | values,
)


def same(stored: Any, sent: Any) -> bool:
    """Return whether `stored` (a jsonb cell) is `sent`, except text Postgres cannot hold."""
    if isinstance(sent, str):
        return isinstance(stored, str) and (stored == sent or unescaped(stored) == sent)
    if isinstance(sent, dict):
        return isinstance(stored, dict) and all(
            any(same_name(name, key) and same(inner, value) for name, inner in stored.items())
            for key, value in sent.items()
        )
    if isinstance(sent, list):
        return (
            isinstance(stored, list)
            and len(stored) == len(sent)
            and all(same(one, other) for one, other in zip(stored, sent, strict=True))
        )
    return type(stored) is type(sent) and bool(stored == sent)


def same_name(stored: str, sent: str) -> bool:
    return stored == sent or unescaped(stored.rstrip("_")) == sent


def unescaped(text: str) -> Any:
    try:
        return json.loads(f'"{text}"')
    except ValueError:
        return None


def fits(cell: Any, value: Any, zone: ZoneInfo | None) -> bool:
    """Return whether the cell of a column holds what was sent."""
    if isinstance(cell, datetime):
        sent = datetime.fromisoformat(value.upper())
        moment = sent if sent.tzinfo else sent.replace(tzinfo=zone)
        return abs(cell - moment) < timedelta(milliseconds=1)
    if isinstance(cell, dict | list):
        return same(cell, value)
    if type(cell) is int and type(value) is float:
        return cell == value
    if type(cell) in (int, bool) and isinstance(value, str):
        return json.dumps(cell) == value
    return type(cell) is type(value) and bool(cell == value)


def assert_kept(
    table: Table, record: dict[str, Any], row: Named, zone: ZoneInfo | None, apart: set[str]
) -> None:
    """Assert that every member of `record` is in a column of `row` or in its extra."""
    extra = row.get("extra", {})
    paths = {c.info["json"]: c for c in table.columns if "json" in c.info}
    for name, value in record.items():
        if name in apart and isinstance(value, list | None):
            continue
        inside = isinstance(value, dict) and any(path[0] == name and path[1:] for path in paths)
        for path, sent in (
            [((name, inner), one) for inner, one in value.items()] if inside else [((name,), value)]
        ):
            column = paths.get(path)
            if sent is None and (column is not None or (name == "integration" and not inside)):
                continue
            kept = extra.get(name, {}) if inside else extra
            in_extra = any(
                same_name(one, path[-1]) and same(other, sent) for one, other in kept.items()
            )
            cell = None if column is None else row.get(column.name)
            assert in_extra or (cell is not None and fits(cell, sent, zone)), path
            if column is not None and isinstance(column.type, DateTime) and cell is not None:
                assert cell.utcoffset() is not None


def found(rejects: list[Reject], payload: Any) -> bool:
    return any(reject.payload is payload for reject in rejects)


def check(
    stream: str,
    table: Table,
    records: list[Any],
    zone: ZoneInfo | None = None,
    of: tuple[tuple[str, str, Table], ...] = (),
    apart: tuple[str, ...] = (),
) -> Rows:
    """Transform one page and look for every member; `of`: list, its items' key, their table."""
    before = deepcopy(records)
    rows = transformed(stream, records, scope="i", zone=zone)
    assert records == before
    by_ord = {row["ord"]: row for row in named(rows, table.fullname)}
    for index, record in enumerate(records):
        if index not in by_ord:
            assert found(rows.rejects, record)
            continue
        set_apart = {name for name, _, _ in of} | set(apart)
        assert_kept(table, record, by_ord[index], zone, set_apart)
        for name, of_id, child_table in of:
            children = record.get(name)
            mine = [row for row in named(rows, child_table.fullname) if row["ord"] == index]
            last = {
                child[of_id]: child
                for child in (children if isinstance(children, list) else [])
                if not found(rows.rejects, child)
            }
            column = tables.key_columns(child_table)[-1]
            assert sorted(row[column] for row in mine) == sorted(last)
            for row in mine:
                assert_kept(child_table, last[row[column]], row, zone, set())
    return rows


some = settings(max_examples=60, deadline=None)


@pytest.mark.fault(16)
@some
@given(st.lists(flows | values, max_size=3))
def test_nothing_of_a_zoom_flow_is_lost(records: list[Any]) -> None:
    check(
        "zoom.flows",
        TABLES["zoom.flows"],
        records,
        of=(
            ("entry_points", "entry_id", TABLES["zoom.entry_points"]),
            ("flow_versions", "flow_version_id", TABLES["zoom.flow_versions"]),
        ),
    )


@pytest.mark.slow
@pytest.mark.fault(16)
@some
@given(st.lists(flex_flows | values, max_size=3))
@example([{"sid": "a", "enabled": "true", "integration": {"timeout": "0", "priority": "00"}}])
def test_nothing_of_a_flex_flow_is_lost(records: list[Any]) -> None:
    check(
        "twilio.flex_flows",
        TABLES["twilio.flex_flows"],
        records,
    )


@pytest.mark.fault(16)
@some
@given(st.lists(channels | values, max_size=3))
def test_nothing_of_a_channel_is_lost(records: list[Any]) -> None:
    check(
        "twilio.channels",
        TABLES["twilio.channels"],
        records,
    )


@pytest.mark.fault(16)
@some
@given(st.lists(contact_flows | values, max_size=3))
def test_nothing_of_a_contact_flow_is_lost(records: list[Any]) -> None:
    rows = check(
        "alibaba.contact_flows",
        TABLES["alibaba.contact_flows"],
        [
            {name: value for name, value in record.items() if name != "InstanceId"}
            if isinstance(record, dict) and record.get("InstanceId") in ("i", None)
            else record
            for record in records
        ],
        zone=ZONE,
        apart=("NumberList",),
    )
    numbers = named(rows, "alibaba.contact_flow_numbers")
    for row in named(rows, "alibaba.contact_flows"):
        sent = records[row["ord"]].get("NumberList")
        for number in sent if isinstance(sent, list) else []:
            kept = any(n["ord"] == row["ord"] and n["number"] == number for n in numbers)
            assert kept or any(same(r.payload, number) for r in rows.rejects)
        if "definition" in row:
            sent_text = records[row["ord"]]["Definition"]
            assert same(row["definition"], sent_text) or same(row["extra"]["Definition"], sent_text)
            assert_activities_kept(rows, row["ord"], sent_text)


def assert_activities_kept(rows: Rows, ordinal: int, definition: str) -> None:
    try:
        content = decode(definition)
    except ValueError:
        return
    sent = content.get("activities") if isinstance(content, dict) else None
    by_id: dict[str, Any] = {}
    for activity in sent if isinstance(sent, list) else []:
        if isinstance(activity, dict) and isinstance(activity.get("id"), str):
            by_id[activity["id"]] = activity
    for row in named(rows, "alibaba.contact_flow_activities"):
        if row["ord"] == ordinal:
            activity = by_id[row["activity_id"]]
            table = TABLES["alibaba.contact_flow_activities"]
            assert_kept(table, activity, row, None, {"events"})

"""Alibaba's contact flows: the documents' examples, times without a zone, any Definition."""

import json
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from etl.extract.page import Page
from etl.providers.catalog import STREAMS
from etl.transform.rows import Reject, Rows
from etl.transform.steps import MAX_FINDINGS
from tests.transform.named import Named, example, named, transformed

SHANGHAI = ZoneInfo("Asia/Shanghai")
FLOW = {"instance_id": "ccc-test", "contact_flow_id": "f"}


def contact_flows(*records: Any, zone: str = "Asia/Shanghai") -> Rows:
    page = Page(list(records), 1, scope="ccc-test")
    return STREAMS["alibaba.contact_flows"].transform(replace(page, zone=ZoneInfo(zone)), 0)


def contact_flow(**members: Any) -> tuple[Named, Rows]:
    rows = contact_flows({"ContactFlowId": "f", **members})
    (row,) = named(rows, "alibaba.contact_flows")
    return {name: cell for name, cell in row.items() if name not in ("ord", *FLOW)}, rows


def defined(content: Any) -> Rows:
    return contact_flow(Definition=json.dumps(content))[1]


def test_the_documented_contact_flow_becomes_exactly_these_rows() -> None:
    records = example("alibaba/contact_flows")["Data"]["List"]
    rows = transformed("alibaba.contact_flows", records, scope="ccc-test", zone=SHANGHAI)
    flow = {
        "ord": 0,
        "instance_id": "ccc-test",
        "contact_flow_id": "78128960-bb00-4ddc-8e82-923a8c5bd22d",
    }
    assert named(rows, "alibaba.contact_flows") == [
        {
            **flow,
            "partial": False,
            "name": "默认流程",
            "type": "MAIN_FLOW",
            "description": "1.0",
            "definition": records[0]["Definition"],
            "draft_id": "db07c0bb-6b1f-47d2-b37e-2451c617562d",
            "published": True,
            "editor": "ccc-test",
            "created_time": datetime(2021, 3, 5, 9, 35, 45, tzinfo=UTC),
            "updated_time": datetime(2021, 3, 8, 7, 34, 49, tzinfo=UTC),
        }
    ]
    assert named(rows, "alibaba.contact_flow_numbers") == [{**flow, "number": "400289****"}]
    assert named(rows, "alibaba.contact_flow_activities") == [
        {
            **flow,
            "activity_id": "e98f0d47",
            "type": "INCOMING_CALL",
            "name": "开始",
            "node_index": 0,
            "properties": {"position": {"x": 263, "y": 164}},
        },
        {
            **flow,
            "activity_id": "bd4f37e2",
            "type": "HANGUP",
            "name": "挂机",
            "node_index": 999,
            "properties": {"position": {"x": 765, "y": 185}},
        },
        {
            **flow,
            "activity_id": "2d3ad2c2",
            "type": "PLAY_SAY",
            "name": "放音",
            "node_index": 1,
            "properties": {
                "say": "您好,欢迎来到云联络中心。",
                "audioResourceId": "",
                "position": {"x": 485.5, "y": 153.5},
                "audioType": "tts",
                "audioInterrupt": False,
            },
        },
    ]
    complete = {**flow, "position": 0, "event": "complete"}
    assert named(rows, "alibaba.contact_flow_transitions") == [
        {
            **complete,
            "activity_id": "e98f0d47",
            "edge_id": "41f7dbd0",
            "next_activity_id": "2d3ad2c2",
        },
        {**complete, "activity_id": "bd4f37e2"},
        {
            **complete,
            "activity_id": "2d3ad2c2",
            "edge_id": "e1af4f1f",
            "next_activity_id": "bd4f37e2",
        },
    ]
    assert (rows.rejects, rows.warnings) == ([], 0)


def test_a_field_added_later_is_kept() -> None:
    records = example("alibaba/contact_flows_response_ok")["Data"]["List"]
    rows = transformed("alibaba.contact_flows", records, scope="ccc-test", zone=SHANGHAI)
    assert named(rows, "alibaba.contact_flows")[0]["extra"] == {"FieldAddedLater": {"x": 1}}
    assert rows.tables["alibaba.contact_flow_activities"] == []
    assert rows.warnings == 0


@pytest.mark.fault(38)
@pytest.mark.parametrize(
    ("sent", "microseconds"),
    [
        ("", 0),
        (".0", 0),
        (".1", 100_000),
        (".12", 120_000),
        (".123", 123_000),
        (".1234", 123_400),
        (".12345", 123_450),
        (".123456", 123_456),
        (".1234564", 123_456),
        (".12345612", 123_456),
        (".123456499", 123_456),
    ],
)
def test_a_time_without_zone_is_read_in_the_source_s_with_up_to_nine_digits(
    sent: str, microseconds: int
) -> None:
    row, rows = contact_flow(UpdatedTime=f"2021-03-08 15:34:49{sent}")
    assert row["updated_time"] == datetime(2021, 3, 8, 7, 34, 49, microseconds, tzinfo=UTC)
    assert rows.warnings == 0


@pytest.mark.parametrize(
    ("zone", "sent", "utc"),
    [
        ("UTC", "2021-03-08 15:34:49.0", datetime(2021, 3, 8, 15, 34, 49, tzinfo=UTC)),
        ("America/New_York", "2021-01-01 00:00:00.0", datetime(2021, 1, 1, 5, tzinfo=UTC)),
        ("America/New_York", "2021-07-01 00:00:00.0", datetime(2021, 7, 1, 4, tzinfo=UTC)),
        # The clock went from 2:00 to 3:00; 2:30 is read as half an hour after 2:00 by the old one.
        ("America/New_York", "2021-03-14 02:30:00.0", datetime(2021, 3, 14, 7, 30, tzinfo=UTC)),
        # 1:30 came twice; the first one is taken.
        ("America/New_York", "2021-11-07 01:30:00.0", datetime(2021, 11, 7, 5, 30, tzinfo=UTC)),
        # A time that comes with a zone keeps it.
        ("America/New_York", "2021-03-08T15:34:49Z", datetime(2021, 3, 8, 15, 34, 49, tzinfo=UTC)),
        ("UTC", "2021-03-08 15:34:49.0+08:00", datetime(2021, 3, 8, 7, 34, 49, tzinfo=UTC)),
    ],
)
def test_times_in_other_zones(zone: str, sent: str, utc: datetime) -> None:
    rows = contact_flows({"ContactFlowId": "f", "CreatedTime": sent}, zone=zone)
    cell = named(rows, "alibaba.contact_flows")[0]["created_time"]
    assert cell.astimezone(UTC) == utc
    assert rows.warnings == 0


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    "sent",
    ["", "infinity", "2021-03-08", "2021-02-30 00:00:00.0", "2021-03-08 24:00:00.0",
     "2021-03-08 23:59:60.0", "10000-01-01 00:00:00.0", "0001-01-01 00:00:00.0",
     "9999-12-31T23:59:59-08:00", 1615188889000, "1615188889000"],
)  # fmt: skip
def test_a_time_that_does_not_parse_or_that_no_client_can_read_is_kept_as_sent(sent: Any) -> None:
    row, rows = contact_flow(UpdatedTime=sent)
    assert row == {"partial": False, "extra": {"UpdatedTime": sent}}
    assert rows.warnings == 1


@pytest.mark.parametrize("sent", ["True", "yes", "1", 1, 0, "", []])
def test_a_value_that_is_not_a_boolean_is_kept_as_sent(sent: Any) -> None:
    row, rows = contact_flow(Published=sent)
    assert row == {"partial": False, "extra": {"Published": sent}}
    assert rows.warnings == 1


def test_an_instance_id_that_was_asked_for_is_no_news_and_another_is_kept() -> None:
    assert contact_flow(InstanceId="ccc-test")[0] == {"partial": False}
    assert contact_flow(InstanceId=None)[0] == {"partial": False}
    row, rows = contact_flow(InstanceId="ccc-other")
    assert row == {"partial": False, "extra": {"InstanceId": "ccc-other"}}
    assert named(rows, "alibaba.contact_flows")[0]["instance_id"] == "ccc-test"


def test_a_rejected_record_is_kept_whole() -> None:
    record = {"InstanceId": "ccc-test", "Name": "no id", "NumberList": ["1"], "Definition": "{}"}
    rows = contact_flows(record, "x")
    assert rows.rejects == [
        Reject("contact flow: ContactFlowId is missing", record),
        Reject("contact flow: it is not an object", "x"),
    ]
    assert all(found == [] for found in rows.tables.values())


def test_numbers_are_opaque_and_a_repeated_one_is_one() -> None:
    rows = contact_flow(NumberList=["400289****", "", "400289****", "+86 21", "400289****"])[1]
    found = [row["number"] for row in named(rows, "alibaba.contact_flow_numbers")]
    assert sorted(found) == ["", "+86 21", "400289****"]
    assert (rows.rejects, rows.warnings) == ([], 0)


@pytest.mark.parametrize("numbers", [None, []])
def test_no_numbers(numbers: Any) -> None:
    row, rows = contact_flow(NumberList=numbers)
    assert row == {"partial": False}
    assert rows.tables["alibaba.contact_flow_numbers"] == []


def test_unreadable_numbers_are_rejected_and_make_the_record_partial() -> None:
    bad: list[Any] = [None, 400289, {"Number": "1"}, "1\0", "\ud800", "9" * 801]
    row, rows = contact_flow(NumberList=[*bad, "ok"])
    assert row == {"partial": True}
    assert [reject.payload for reject in rows.rejects] == bad
    assert {reject.reason.split(":")[0] for reject in rows.rejects} == {
        "NumberList of contact flow f"
    }
    assert [row["number"] for row in named(rows, "alibaba.contact_flow_numbers")] == ["ok"]


def test_numbers_that_are_not_a_list_are_kept_and_make_the_record_partial() -> None:
    row, rows = contact_flow(NumberList="400289****")
    assert row == {"partial": True, "extra": {"NumberList": "400289****"}}
    assert rows.warnings == 1
    assert rows.tables["alibaba.contact_flow_numbers"] == []


@pytest.mark.fault(40)
@pytest.mark.parametrize(
    "text",
    ["{", "<xml/>", "[]", "null", "3", '"text"', '{"activities": NaN}', "\ud800", " ",
     "[" * 100_000],
)  # fmt: skip
def test_a_definition_that_is_not_a_json_object_keeps_its_text(text: str) -> None:
    row, rows = contact_flow(Definition=text)
    assert row["definition"] == text.replace("\ud800", "�")
    assert row["partial"] is False
    assert rows.tables["alibaba.contact_flow_activities"] == []
    assert rows.warnings >= 1
    assert rows.rejects == []


@pytest.mark.parametrize("text", ["", "{}", '{"activities": []}', '{"activities": null}'])
def test_a_definition_without_activities_has_none(text: str) -> None:
    row, rows = contact_flow(Definition=text)
    assert row["definition"] == text
    assert rows.tables["alibaba.contact_flow_activities"] == []
    assert rows.warnings == 0


def test_a_missing_definition_is_null_and_one_that_is_not_text_is_kept() -> None:
    assert contact_flow(Definition=None)[0] == {"partial": False}
    row, rows = contact_flow(Definition={"activities": [{"id": "a"}]})
    assert row == {"partial": False, "extra": {"Definition": {"activities": [{"id": "a"}]}}}
    assert rows.warnings >= 1
    assert rows.tables["alibaba.contact_flow_activities"] == []


@pytest.mark.parametrize("activities", ["none", {"a": 1}, 3])
def test_activities_that_are_not_a_list_are_a_warning(activities: Any) -> None:
    rows = defined({"activities": activities})
    assert rows.warnings == 1
    assert rows.tables["alibaba.contact_flow_activities"] == []


def test_odd_activities_and_events_are_warnings_and_the_rest_is_read() -> None:
    rows = defined(
        {
            "activities": [
                None,
                {"type": "no id"},
                {"id": 7},
                {"id": "a", "nodeIndex": "01", "events": "none"},
                {"id": "b", "type": 5, "events": [None, {"event": "x", "next": 3}, {"new": 1}]},
                {"id": "c", "properties": [1], "new": {"y": None}},
            ]
        }
    )
    assert named(rows, "alibaba.contact_flow_activities") == [
        {"ord": 0, **FLOW, "activity_id": "a", "extra": {"nodeIndex": "01", "events": "none"}},
        {"ord": 0, **FLOW, "activity_id": "b", "extra": {"type": 5}},
        {"ord": 0, **FLOW, "activity_id": "c", "properties": [1], "extra": {"new": {"y": None}}},
    ]
    b = {"ord": 0, **FLOW, "activity_id": "b"}
    assert named(rows, "alibaba.contact_flow_transitions") == [
        {**b, "position": 1, "event": "x", "extra": {"next": 3}},
        {**b, "position": 2, "extra": {"new": 1}},
    ]
    assert rows.rejects == []
    assert named(rows, "alibaba.contact_flows")[0]["partial"] is False
    assert rows.warnings >= 7


def test_the_last_of_repeated_activities_wins_with_its_events() -> None:
    rows = defined(
        {
            "activities": [
                {"id": "a", "name": "first", "events": [{"next": "x"}, {"next": "y"}]},
                {"id": "a", "name": "last", "events": [{"next": "z"}]},
            ]
        }
    )
    assert [r["name"] for r in named(rows, "alibaba.contact_flow_activities")] == ["last"]
    found = [
        (row["position"], row["next_activity_id"])
        for row in named(rows, "alibaba.contact_flow_transitions")
    ]
    assert found == [(0, "z")]


@pytest.mark.fault(32, 33)
def test_nul_and_lone_surrogates_in_a_definition_are_replaced_and_the_originals_kept() -> None:
    text = (
        '{"activities":[{"id":"a","name":"x\\u0000","properties":{"k\\u0000":"\\ud800","ok":"😀"},'
        '"events":[{"event":"\\udfff"}]}]}'
    )
    row, rows = contact_flow(Definition=text)
    assert row["definition"] == text
    assert named(rows, "alibaba.contact_flow_activities") == [
        {
            "ord": 0,
            **FLOW,
            "activity_id": "a",
            "name": "x�",
            "properties": {"k�": "�", "ok": "😀"},
            "extra": {"name": "x\\u0000", "properties": {"k\\u0000": "\\ud800", "ok": "😀"}},
        }
    ]
    (transition,) = named(rows, "alibaba.contact_flow_transitions")
    assert (transition["event"], transition["extra"]) == ("�", {"event": "\\udfff"})
    assert rows.warnings == 3


@pytest.mark.fault(40)
def test_the_last_of_repeated_members_of_a_definition_wins() -> None:
    rows = contact_flow(Definition='{"activities":[{"id":"a","name":"1","name":"2"}]}')[1]
    assert named(rows, "alibaba.contact_flow_activities")[0]["name"] == "2"


@pytest.mark.fault(35)
def test_numbers_of_a_definition_that_no_column_can_hold_are_kept_as_text() -> None:
    rows = contact_flow(
        Definition='{"activities":[{"id":"a","nodeIndex":1e400,"properties":{"x":-1e999}}]}'
    )[1]
    (row,) = named(rows, "alibaba.contact_flow_activities")
    assert row["extra"] == {"nodeIndex": "1e400"}
    assert row["properties"] == {"x": "-1e999"}


@pytest.mark.fault(40)
def test_a_large_definition_is_kept_whole() -> None:
    text = json.dumps({"activities": [{"id": str(i), "name": "x" * 1000} for i in range(1000)]})
    row, rows = contact_flow(Definition=text)
    assert row["definition"] == text
    assert len(rows.tables["alibaba.contact_flow_activities"]) == 1000


def test_a_definition_has_at_most_so_many_findings_and_all_of_its_activities() -> None:
    rows = defined({"activities": [{"id": f"a{number}"} for number in range(MAX_FINDINGS + 9)]})
    assert len(rows.tables["alibaba.contact_flow_activities"]) == MAX_FINDINGS + 9
    assert len(rows.tables["alibaba.contact_flow_findings"]) == MAX_FINDINGS


def test_the_record_is_left_as_it_was() -> None:
    record = {
        "ContactFlowId": "f",
        "InstanceId": "ccc-test",
        "Definition": '{"activities":[{"id":"a","events":[{}]}]}',
        "NumberList": ["1", "1", None],
        "UpdatedTime": "never",
        "New": {"x": ["\0"]},
    }
    before = deepcopy(record)
    contact_flows(record)
    assert record == before
    assert list(record) == list(before)

"""Zoom's flows: the documents' examples, and what else may arrive."""

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from etl.transform.rows import Reject, Rows
from tests.transform.named import example, named, transformed


def flows(*records: Any, start: int = 0) -> Rows:
    return transformed("zoom.flows", list(records), start)


def test_the_documented_values_become_exactly_these_rows() -> None:
    rows = transformed("zoom.flows", example("zoom/flows")["flows"])
    assert named(rows, "zoom.flows") == [
        {
            "ord": 0,
            "partial": False,
            "flow_id": "zwKiV80hQ7CwRg9BEm0Bvw",
            "flow_name": "Video Test",
            "flow_description": "A testing flow.",
            "channel_type": "voice",
            "channel": "messaging",
            "channel_source": "web_chat",
            "status": "published",
            "modified_by": "IGTRVt3gQ2i-WjoUIjeZxw",
            "last_modified_time": datetime(2022, 2, 15, 9, 27, 15, tzinfo=UTC),
        }
    ]
    assert named(rows, "zoom.entry_points") == [
        {
            "ord": 0,
            "flow_id": "zwKiV80hQ7CwRg9BEm0Bvw",
            "entry_id": "x_h7uCj3TtScXWOBnQnKrw",
            "entry_name": "Test video",
            "entry_number": "+16052052430",
            "entry_language": "en-US",
            "email_address": "xxxx@zoom.us",
        }
    ]
    assert named(rows, "zoom.flow_versions") == [
        {
            "ord": 0,
            "flow_id": "zwKiV80hQ7CwRg9BEm0Bvw",
            "flow_version_id": "EWg5URJZRXKwfbLJpeJWyA",
            "flow_version": 2,
            "flow_version_description": "Version 1",
            "flow_version_status": "draft",
            "flow_version_modified_by": "jdhgdhghk376453hjdf",
            "flow_version_last_modified_time": datetime(2022, 8, 5, 1, 55, 52, tzinfo=UTC),
        }
    ]
    assert (rows.rejects, rows.warnings) == ([], 0)


def test_the_first_document_s_placeholders_load_as_they_stand() -> None:
    """Every value is "<string>", also ids (so children repeat), times and integers."""
    rows = transformed("zoom.flows", example("zoom/flows_placeholders")["flows"], 40)
    texts = dict.fromkeys(("flow_id", "flow_name", "flow_description", "modified_by"), "<string>")
    flow = {
        "partial": False,
        "channel_type": "voice",
        "extra": {"last_modified_time": "<string>"},
        **texts,
    }
    assert named(rows, "zoom.flows") == [
        {"ord": 40, "status": "published", **flow},
        {"ord": 41, "status": "archived", **flow},
    ]
    entry = dict.fromkeys(
        ("flow_id", "entry_id", "entry_name", "entry_number", "entry_language"), "<string>"
    )
    assert named(rows, "zoom.entry_points") == [{"ord": 40, **entry}, {"ord": 41, **entry}]
    version = {
        "flow_id": "<string>",
        "flow_version_id": "<string>",
        "flow_version_description": "<string>",
        "flow_version_status": "published",  # of the repeated id the last one
        "flow_version_modified_by": "<string>",
        "extra": {"flow_version": "<integer>", "flow_version_last_modified_time": "<string>"},
    }
    assert named(rows, "zoom.flow_versions") == [{"ord": 40, **version}, {"ord": 41, **version}]
    assert rows.rejects == []
    assert rows.warnings == 2 + 4 * 2


def test_a_record_of_the_older_shape_has_null_in_the_newer_columns() -> None:
    (row,) = named(flows({"flow_id": "f", "channel_type": "voice"}), "zoom.flows")
    assert row == {"ord": 0, "partial": False, "flow_id": "f", "channel_type": "voice"}


def test_empty_text_stays_empty_text_and_null_is_null() -> None:
    (row,) = named(flows({"flow_id": "f", "flow_name": "", "status": None}), "zoom.flows")
    assert row == {"ord": 0, "partial": False, "flow_id": "f", "flow_name": ""}


def test_a_status_that_no_document_names_is_loaded() -> None:
    rows = flows({"flow_id": "f", "status": "hibernating"})
    assert named(rows, "zoom.flows")[0]["status"] == "hibernating"
    assert rows.warnings == 0


@pytest.mark.fault(16)
def test_unknown_members_are_kept_as_sent_without_a_warning() -> None:
    rows = flows({"flow_id": "f", "new": {"a": [1, None]}, "also": None})
    assert named(rows, "zoom.flows")[0]["extra"] == {"new": {"a": [1, None]}, "also": None}
    assert rows.warnings == 0


def test_missing_null_and_empty_children_are_no_children() -> None:
    rows = flows(
        {"flow_id": "a"},
        {"flow_id": "b", "entry_points": None, "flow_versions": None},
        {"flow_id": "c", "entry_points": [], "flow_versions": []},
    )
    assert [row["partial"] for row in named(rows, "zoom.flows")] == [False] * 3
    assert all("extra" not in row for row in named(rows, "zoom.flows"))
    assert rows.tables["zoom.entry_points"] == rows.tables["zoom.flow_versions"] == []
    assert (rows.rejects, rows.warnings) == ([], 0)


def test_children_that_are_not_a_list_are_kept_and_make_the_record_partial() -> None:
    rows = flows({"flow_id": "f", "entry_points": {"entry_id": "e"}, "flow_versions": "none"})
    (row,) = named(rows, "zoom.flows")
    assert row["partial"] is True
    assert row["extra"] == {"entry_points": {"entry_id": "e"}, "flow_versions": "none"}
    assert rows.warnings == 2
    assert rows.tables["zoom.entry_points"] == []


def test_the_last_of_repeated_child_keys_wins() -> None:
    rows = flows(
        {
            "flow_id": "f",
            "entry_points": [
                {"entry_id": "e", "entry_name": "first", "old": 1},
                {"entry_id": "other"},
                {"entry_id": "e", "entry_name": "last"},
            ],
        }
    )
    entries = {row["entry_id"]: row for row in named(rows, "zoom.entry_points")}
    assert len(rows.tables["zoom.entry_points"]) == 2
    assert entries["e"] == {"ord": 0, "flow_id": "f", "entry_id": "e", "entry_name": "last"}
    assert named(rows, "zoom.flows")[0]["partial"] is False


def test_an_unkeyable_child_is_rejected_and_makes_the_record_partial() -> None:
    bad: list[Any] = [None, "x", {"entry_name": "no id"}, {"entry_id": 7}, {"entry_id": ""}]
    rows = flows({"flow_id": "f", "entry_points": [*bad, {"entry_id": "good"}]})
    assert rows.rejects == [
        Reject("entry_points of flow f: it is not an object", None),
        Reject("entry_points of flow f: it is not an object", "x"),
        Reject("entry_points of flow f: entry_id is missing", {"entry_name": "no id"}),
        Reject("entry_points of flow f: entry_id is not text but int", {"entry_id": 7}),
        Reject("entry_points of flow f: entry_id is empty", {"entry_id": ""}),
    ]
    assert [row["entry_id"] for row in named(rows, "zoom.entry_points")] == ["good"]
    assert named(rows, "zoom.flows")[0]["partial"] is True


@pytest.mark.fault(17)
def test_unkeyable_records_are_rejected_whole_and_the_others_keep_their_ordinals() -> None:
    bad: list[Any] = [
        None,
        [],
        "text",
        {},
        {"flow_id": None, "entry_points": [{"entry_id": "e"}]},
        {"flow_id": 3},
        {"flow_id": ""},
        {"flow_id": "a\0b"},
        {"flow_id": "a\ud800b"},
        {"flow_id": "é" * 401},
    ]
    rows = flows({"flow_id": "first"}, *bad, {"flow_id": "last"}, start=100)
    assert [(row["ord"], row["flow_id"]) for row in named(rows, "zoom.flows")] == [
        (100, "first"),
        (111, "last"),
    ]
    assert [reject.payload for reject in rows.rejects] == bad
    assert [reject.reason for reject in rows.rejects] == [
        "flow: it is not an object",
        "flow: it is not an object",
        "flow: it is not an object",
        "flow: flow_id is missing",
        "flow: flow_id is missing",
        "flow: flow_id is not text but int",
        "flow: flow_id is empty",
        "flow: flow_id holds a NUL or a lone surrogate",
        "flow: flow_id holds a NUL or a lone surrogate",
        "flow: flow_id is longer than 800 bytes",
    ]
    assert rows.tables["zoom.entry_points"] == []


def test_odd_characters_in_a_key_are_kept() -> None:
    odd = "-'\"\\ %s {}; 流程 😀\t\x7f"
    rows = flows({"flow_id": odd, "entry_points": [{"entry_id": odd}]})
    assert named(rows, "zoom.flows")[0]["flow_id"] == odd
    assert named(rows, "zoom.entry_points")[0] == {"ord": 0, "flow_id": odd, "entry_id": odd}


def test_the_record_is_left_as_it_was() -> None:
    record = {
        "flow_id": "f",
        "flow_name": "a\0b",
        "new": {"x\0": ["\ud800"]},
        "last_modified_time": "yesterday",
        "entry_points": [{"entry_id": "e", "entry_number": 1}, {"entry_id": 5}],
        "flow_versions": {"odd": []},
    }
    before = deepcopy(record)
    rows = flows(record)
    assert record == before
    assert list(record) == list(before)
    assert rows.warnings == 4

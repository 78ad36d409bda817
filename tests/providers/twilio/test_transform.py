"""Twilio's Flex Flows and channels: the documents' examples, and what else may arrive."""

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from etl.extract.page import Page
from etl.providers.catalog import STREAMS
from etl.transform.rows import Rows
from tests.transform.named import Named, example, named, transformed


def flex_flow(**members: Any) -> tuple[Named, Rows]:
    rows = transformed("twilio.flex_flows", [{"sid": "FO1", **members}])
    (row,) = named(rows, "twilio.flex_flows")
    assert (row.pop("ord"), row.pop("partial"), row.pop("sid")) == (0, False, "FO1")
    return row, rows


def test_the_first_document_s_flex_flow_becomes_exactly_this_row() -> None:
    rows = transformed("twilio.flex_flows", example("twilio/flex_flows_strings")["flex_flows"])
    texts = ("account_sid", "chat_service_sid", "contact_identity", "friendly_name", "sid")
    assert named(rows, "twilio.flex_flows") == [
        {
            "ord": 0,
            "partial": False,
            **dict.fromkeys(texts, "string"),
            "channel_type": "web",
            "date_created": datetime(2023, 5, 4, 9, 42, tzinfo=UTC),
            "date_updated": datetime(2023, 5, 4, 9, 42, tzinfo=UTC),
            "enabled": True,
            "integration_type": "studio",
            "janitor_enabled": True,
            "long_lived": True,
            "url": "https://example.com",
        }
    ]
    assert (rows.rejects, rows.warnings) == ([], 0)


def test_the_openapi_document_s_flex_flow_becomes_exactly_this_row() -> None:
    rows = transformed("twilio.flex_flows", example("twilio/flex_flows")["flex_flows"], 7)
    assert named(rows, "twilio.flex_flows") == [
        {
            "ord": 7,
            "partial": False,
            "sid": "FO" + "a" * 32,
            "account_sid": "AC" + "a" * 32,
            "date_created": datetime(2016, 8, 1, 22, 10, 40, tzinfo=UTC),
            "date_updated": datetime(2016, 8, 1, 22, 10, 40, tzinfo=UTC),
            "friendly_name": "friendly_name",
            "chat_service_sid": "IS" + "a" * 32,
            "channel_type": "sms",
            "contact_identity": "12345",
            "enabled": True,
            "integration_type": "studio",
            "integration_flow_sid": "FW" + "a" * 32,
            "integration_retry_count": 1,
            "long_lived": True,
            "janitor_enabled": True,
            "url": "https://flex-api.twilio.com/v1/FlexFlows/FO" + "a" * 32,
        }
    ]
    assert (rows.rejects, rows.warnings) == ([], 0)


def test_each_type_of_integration_fills_its_own_columns() -> None:
    page = Page(example("twilio/flex_flows_integrations")["flex_flows"], 1)
    rows = STREAMS["twilio.flex_flows"].transform(page, 0)
    found = [
        {name: cell for name, cell in row.items() if name.startswith("integration")}
        for row in named(rows, "twilio.flex_flows")
    ]
    assert found == [
        {
            "integration_type": "studio",
            "integration_flow_sid": "FW" + "0" * 32,
            "integration_retry_count": 3,
        },
        {
            "integration_type": "external",
            "integration_url": "https://example.com/hook",
            "integration_retry_count": 3,
        },
        {
            "integration_type": "task",
            "integration_workspace_sid": "WS" + "2".zfill(32),
            "integration_workflow_sid": "WW" + "2".zfill(32),
            "integration_channel": "default",
            "integration_timeout": 86400,
            "integration_priority": 0,
            "integration_creation_on_message": False,
        },
    ]
    assert [row["extra"] for row in named(rows, "twilio.flex_flows")] == [
        {"field_added_later": 1}
    ] * 3


def test_the_url_of_the_integration_is_not_the_url_of_the_flex_flow() -> None:
    row, _ = flex_flow(url="https://own", integration={"url": "https://hook"})
    assert row == {"url": "https://own", "integration_url": "https://hook"}


def test_members_of_the_integration_that_do_not_fit_stay_inside_it() -> None:
    row, rows = flex_flow(
        integration={"timeout": "86400.0", "retry_count": 3.0, "priority": None, "new": [1]}
    )
    assert row == {
        "integration_retry_count": 3,
        "extra": {"integration": {"timeout": "86400.0", "new": [1]}},
    }
    assert rows.warnings == 1


@pytest.mark.parametrize("integration", ["studio", 0, False, ["FW1"], ""])
def test_an_integration_that_is_not_an_object_is_kept(integration: Any) -> None:
    row, rows = flex_flow(integration=integration)
    assert row == {"extra": {"integration": integration}}
    assert rows.warnings == 1


@pytest.mark.parametrize("integration", [None, {}])
def test_a_null_integration_adds_nothing_to_extra(integration: Any) -> None:
    row, rows = flex_flow(integration=integration)
    assert row == {}
    assert rows.warnings == 0


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    ("member", "sent"),
    [
        ("enabled", "True"),
        ("enabled", 1),
        ("long_lived", ""),
        ("friendly_name", 5),
        ("friendly_name", True),
        ("friendly_name", ["a"]),
        ("friendly_name", {}),
        ("url", 1.5),
        ("date_created", 1470089440),
        ("date_created", "2016-08-01T22:10:40"),
        ("date_created", "2016-08-01 22:10:40"),
        ("date_created", "Mon, 01 Aug 2016 22:10:40 +0000"),
        ("date_created", ""),
        ("date_created", "\ud800"),
    ],
)
def test_a_value_that_does_not_fit_is_null_kept_and_counted(member: str, sent: Any) -> None:
    row, rows = flex_flow(**{member: sent})
    kept = "\\ud800" if sent == "\ud800" else sent
    assert row == {"extra": {member: kept}}
    assert type(row["extra"][member]) is type(sent)
    assert rows.warnings == 1


def test_the_documented_channel_becomes_exactly_this_row() -> None:
    rows = transformed("twilio.channels", example("twilio/channels")["flex_chat_channels"], 3)
    assert named(rows, "twilio.channels") == [
        {
            "ord": 3,
            "partial": False,
            "sid": "CH" + "a" * 32,
            "url": "https://flex-api.twilio.com/v1/Channels/CH" + "a" * 32,
            "task_sid": "WT" + "a" * 32,
            "user_sid": "US" + "a" * 32,
            "account_sid": "AC" + "a" * 32,
            "flex_flow_sid": "FO" + "a" * 32,
            "date_created": datetime(2016, 8, 1, 22, 10, 40, tzinfo=UTC),
            "date_updated": datetime(2016, 8, 1, 22, 10, 40, tzinfo=UTC),
        }
    ]
    assert (rows.rejects, rows.warnings) == ([], 0)


@pytest.mark.parametrize("stream", ["flex_flows", "channels"])
def test_records_without_a_sid_are_rejected(stream: str) -> None:
    bad: list[Any] = [{"sid": None, "url": "u"}, {"url": "u"}, {"sid": ["x"]}, 1, {"sid": "\ud800"}]
    rows = transformed(f"twilio.{stream}", [{"sid": "a"}, *bad, {"sid": "b"}], 10)
    assert [row[0] for row in rows.tables[f"twilio.{stream}"]] == [10, 16]
    assert [reject.payload for reject in rows.rejects] == bad
    what = {"flex_flows": "flex flow", "channels": "channel"}[stream]
    assert [reject.reason for reject in rows.rejects] == [
        f"{what}: sid is missing",
        f"{what}: sid is missing",
        f"{what}: sid is not text but list",
        f"{what}: it is not an object",
        f"{what}: sid holds a NUL or a lone surrogate",
    ]


def test_a_repeated_sid_is_kept_with_rising_ordinals() -> None:
    """The winner is chosen among all pages, after they are staged."""
    rows = transformed("twilio.channels", [{"sid": "a", "url": "1"}, {"sid": "a", "url": "2"}])
    found = [(row["ord"], row["url"]) for row in named(rows, "twilio.channels")]
    assert found == [(0, "1"), (1, "2")]


def test_a_channel_with_odd_members_keeps_them() -> None:
    record = {"sid": "CH1", "\ud800": 1, "date_created": "\ud800", "user_sid": "a\0", "task_sid": 1}
    before = deepcopy(record)
    rows = transformed("twilio.channels", [record])
    (row,) = named(rows, "twilio.channels")
    assert row["user_sid"] == "a�"
    assert row["extra"] == {
        "\\ud800": 1,
        "date_created": "\\ud800",
        "user_sid": "a\\u0000",
        "task_sid": 1,
    }
    assert rows.warnings == 3
    assert record == before

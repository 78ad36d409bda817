"""Twilio's address configurations: how the list is read, and what its records become."""

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from etl.errors import ContractError
from etl.extract.page import EVERYTHING, Lookup
from etl.extract.twilio_addresses import addresses, look_up_address, probe_addresses
from etl.providers.catalog import STREAMS
from etl.providers.declare import open_http
from etl.sandbox.exchange import json_response
from etl.sandbox.faults import html, redirect
from etl.sandbox.twilio import Twilio, not_found
from etl.sandbox.wire import serving
from etl.transform.rows import Rows
from tests.extract.scripted import Script, connected
from tests.extract.sources import twilio_lists, twilio_source
from tests.transform.named import Named, example, named, transformed

PATH = "/v1/Configuration/Addresses"
SID = "IG" + "1" * 32
AT = datetime(2016, 3, 24, 21, 5, 50, tzinfo=UTC)


def page(following: Any = None, rows: Any = (), **meta: Any) -> dict[str, Any]:
    named = {"key": "address_configurations", "page": 0, "next_page_url": following, **meta}
    return {"meta": named, "address_configurations": list(rows)}


def address(**members: Any) -> tuple[Named, Rows]:
    rows = transformed("twilio.addresses", [{"sid": SID, **members}])
    (row,) = named(rows, "twilio.addresses")
    assert (row.pop("ord"), row.pop("partial"), row.pop("sid")) == (0, False, SID)
    return row, rows


def asked_for(answer: Any, sid: str = SID) -> tuple[Lookup, Script]:
    script = Script(answer)
    with twilio_lists(script, of="addresses") as http:
        return look_up_address(http, (sid,)), script


# --- the list ------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [0, 1, 50, 51, 120])
def test_all_pages_are_read_fifty_records_at_a_time(rows: int) -> None:
    twilio = Twilio()
    for number in range(rows):
        twilio.addresses.add({"sid": f"IG{number:032x}", "type": "sms"})
    with twilio_lists(twilio, of="addresses") as http:
        pages = list(addresses(http))
    found = [row["sid"] for each in pages for row in each.records]
    assert sorted(found) == sorted(twilio.addresses.keys())
    assert len(twilio.requests) == len(pages) == max(1, -(-rows // 50))
    assert all(request.params["PageSize"] == "50" for request in twilio.requests)
    assert all(each.total is None for each in pages)


@pytest.mark.fault(5)
@pytest.mark.parametrize("body", [{}, {"address_configurations": []}, page(""), page(0)])
def test_an_uncertain_end_does_not_count_as_the_end(body: Any) -> None:
    with twilio_lists(Script(body), of="addresses") as http, pytest.raises(ContractError):
        list(addresses(http))


@pytest.mark.fault(30)
def test_the_list_is_followed_on_its_own_origin_only() -> None:
    """The address of another of the account's products is another host for this list."""
    stranger = Script(page())
    with connected(stranger) as other:
        script = Script(page(f"{other.base_url}{PATH}?Page=1"))
        with serving(script) as url:
            source = twilio_source(script, base_url=other.base_url, conversations_url=url)
            with (
                open_http(source, STREAMS["twilio.addresses"]) as http,
                pytest.raises(ContractError, match="the next page is on another host") as caught,
            ):
                list(addresses(http))
    assert len(script.requests) == 1
    assert not stranger.requests
    assert caught.value.advice == "nothing was sent there; check conversations_url"


@pytest.mark.parametrize(
    ("of", "setting"),
    [
        ("channels", "base_url"),
        ("studio_flows", "studio_url"),
        ("addresses", "conversations_url"),
        ("phone_numbers", "api_url"),
    ],
)
@pytest.mark.parametrize(
    "answer",
    [{"meta": {"next_page_url": None}, "next_page_uri": None}, [], html(200), html(404), "302"],
)
def test_advice_names_the_setting_of_the_product_s_address(
    answer: Any, of: str, setting: str
) -> None:
    answer = redirect("/elsewhere") if answer == "302" else answer
    with (
        twilio_lists(Script(answer), of=of) as http,
        pytest.raises(ContractError) as caught,
    ):
        list(STREAMS[f"twilio.{of}"].pages(http, EVERYTHING))
    assert re.findall(r"\w+_url", caught.value.advice) == [setting]


@pytest.mark.fault(30)
@pytest.mark.parametrize("path", ["/v1/FlexFlows?Page=1", f"{PATH}/{SID}", f"{PATH}#x", "@h/v1"])
def test_a_next_page_off_the_list_is_not_followed(path: str) -> None:
    script = Script()
    with twilio_lists(script, of="addresses") as http:
        script.answers = [page(script.url + path)]
        with pytest.raises(ContractError, match="the next page is"):
            list(addresses(http))
    assert len(script.requests) == 1


# --- one record ----------------------------------------------------------------------------------
def test_an_address_is_found_or_gone_by_its_sid() -> None:
    assert asked_for({"sid": SID, "type": "sms"})[0].state == "found"
    lookup, script = asked_for(not_found(f"{PATH}/{SID}"))
    assert lookup.state == "gone"
    assert [urlsplit(request.target).path for request in script.requests] == [f"{PATH}/{SID}"]


@pytest.mark.parametrize(
    "answer",
    [
        {"sid": "IG" + "2" * 32, "address": "+15005550006"},
        {"sid": None},
        {},
        html(404),
        json_response(404, {"code": 1, "message": "x"}),
        json_response(200, {"code": 20404, "message": "x"}),
    ],
)
def test_another_configuration_does_not_answer_for_it(answer: Any) -> None:
    assert asked_for(answer)[0].state == "undecided"


@pytest.mark.parametrize(
    "sid", ["+15005550006", "15005550006", "whatsapp:+15005550006", "a@example.com", ""]
)
def test_nothing_is_asked_for_by_its_address(sid: str) -> None:
    lookup, script = asked_for({"sid": sid}, sid)
    assert lookup.state == "unasked"
    assert lookup.reason
    assert not script.requests


def test_the_probe() -> None:
    twilio = Twilio()
    with twilio_lists(twilio, of="addresses") as http:
        assert probe_addresses(http) == "readable, there are no addresses"
        twilio.addresses.add({"sid": SID})
        assert probe_addresses(http) == "readable, there are addresses"
    assert {request.params["PageSize"] for request in twilio.requests} == {"1"}


# --- rows ----------------------------------------------------------------------------------------
def test_the_documented_addresses_become_exactly_these_rows() -> None:
    records = example("twilio/addresses")["address_configurations"]
    rows = transformed("twilio.addresses", records)
    every = {
        "partial": False,
        "account_sid": "AC" + "a" * 32,
        "type": "sms",
        "date_created": AT,
        "date_updated": AT,
    }
    ends = [32 * "a", 31 * "a" + "b", 31 * "a" + "c"]
    expected = [
        {
            "address": "+15005550006",
            "friendly_name": "My Test Configuration",
            "address_country": "CA",
            "auto_creation_enabled": True,
            "auto_creation_type": "webhook",
            "conversation_service_sid": "IS" + "a" * 32,
            "webhook_url": "https://example.com",
            "webhook_method": "POST",
            "webhook_filters": ["onParticipantAdded", "onMessageAdded"],
        },
        {
            "address": "+15005550007",
            "friendly_name": "Studio Test Configuration",
            "address_country": "US",
            "auto_creation_enabled": False,
            "auto_creation_type": "studio",
            "conversation_service_sid": "IS" + "a" * 32,
            "studio_flow_sid": "FW" + "a" * 32,
            "studio_retry_count": 3,
        },
        {
            "address": "+15005550008",
            "friendly_name": "Default Test Configuration",
            "address_country": "NG",
            "auto_creation_enabled": True,
            "auto_creation_type": "default",
        },
    ]
    base = "https://conversations.twilio.com/v1/Configuration/Addresses/IG"
    assert named(rows, "twilio.addresses") == [
        {**every, "ord": number, "sid": f"IG{end}", "url": base + end, **one}
        for number, (end, one) in enumerate(zip(ends, expected, strict=True))
    ]
    assert (rows.rejects, rows.warnings) == ([], 0)


@pytest.mark.parametrize("kind", ["rcs", "apple", "chat", "gbm", "of tomorrow", ""])
def test_a_type_that_is_not_known_loads(kind: str) -> None:
    row, rows = address(type=kind, address="x", more=1)
    assert row == {"type": kind, "address": "x", "extra": {"more": 1}}
    assert rows.warnings == 0


@pytest.mark.parametrize("sent", [None, {}, {"enabled": None, "webhook_filters": None}])
def test_what_is_null_or_missing_is_null(sent: Any) -> None:
    row, rows = address(auto_creation=sent, friendly_name=None)
    assert row == {}
    assert rows.warnings == 0


def test_what_does_not_fit_stays_where_it_was() -> None:
    sent = {"enabled": "yes", "studio_retry_count": "three", "type": ["studio"], "new": 1}
    row, rows = address(auto_creation=sent)
    assert row == {"extra": {"auto_creation": sent}}
    assert rows.warnings == 3

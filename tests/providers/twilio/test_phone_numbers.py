"""Twilio's phone numbers: the list of the API of 2010, its records, and Studio's webhooks."""

import logging
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from etl.errors import ContractError, PageTokenError, ProviderError
from etl.extract.twilio_numbers import look_up_phone_number, phone_numbers, probe_phone_numbers
from etl.sandbox.exchange import json_response
from etl.sandbox.faults import html
from etl.sandbox.twilio import Twilio, not_found
from etl.transform.rows import Rows
from etl.transform.twilio_numbers import studio_flow
from tests.extract.scripted import Script, connected
from tests.extract.sources import twilio_lists
from tests.transform.named import Named, example, named, transformed

ACCOUNT = "AC" + "5" * 32
PATH = f"/2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers.json"
FLOW = "FW" + "a" * 32
HOOK = f"https://webhooks.twilio.com/v1/Accounts/{ACCOUNT}/Flows/{FLOW}"
API_KEY: dict[str, Any] = {
    "auth_token": None,
    "api_key_sid": "SK" + "7" * 32,
    "api_key_secret": SecretStr("sandbox-twilio-key-secret"),
}


def filled(count: int) -> Twilio:
    twilio = Twilio()
    for number in range(count):
        twilio.phone_numbers.add(
            {"sid": f"PN{number:032x}", "date_updated": "Thu, 30 Jul 2015 23:19:04 +0000"}
        )
    return twilio


def page(following: Any = None, rows: Any = (), number: int = 0) -> dict[str, Any]:
    return {
        "incoming_phone_numbers": list(rows),
        "next_page_uri": following,
        "page": number,
        "page_size": 1000,
    }


def refused(*answers: Any, **changes: Any) -> ProviderError:
    with (
        twilio_lists(script := Script(*answers), of="phone_numbers", **changes) as http,
        pytest.raises(ProviderError) as caught,
    ):
        list(phone_numbers(http))
    assert caught.value.where.startswith("twilio_main.phone_numbers, page 1")
    assert len(script.requests) == 1
    return caught.value


def phone_number(**members: Any) -> tuple[Named, Rows]:
    rows = transformed("twilio.phone_numbers", [{"sid": "PN1", **members}])
    (row,) = named(rows, "twilio.phone_numbers")
    assert (row.pop("ord"), row.pop("partial"), row.pop("sid")) == (0, False, "PN1")
    return row, rows


# --- the list ------------------------------------------------------------------------------------
@pytest.mark.parametrize("changes", [{}, API_KEY], ids=["auth token", "API key"])
@pytest.mark.parametrize("rows", [0, 1, 1000, 1001, 2100])
def test_all_pages_of_the_account_are_read(rows: int, changes: dict[str, Any]) -> None:
    twilio = filled(rows)
    with twilio_lists(twilio, of="phone_numbers", **changes) as http:
        pages = list(phone_numbers(http))
    found = [row["sid"] for each in pages for row in each.records]
    assert sorted(found) == sorted(twilio.phone_numbers.keys())
    assert len(twilio.requests) == len(pages) == max(1, -(-rows // 1000))
    assert {urlsplit(request.target).path for request in twilio.requests} == {PATH}
    assert all(request.params["PageSize"] == "1000" for request in twilio.requests)


@pytest.mark.parametrize("base", ["", "{url}"])
def test_a_next_page_is_followed_relative_or_absolute(base: str) -> None:
    script = Script()
    with twilio_lists(script, of="phone_numbers") as http:
        uri = f"{base.format(url=script.url)}{PATH}?PageSize=50&Page=1&PageToken=PA%2b1"
        script.answers = [page(uri, [{"sid": "a"}]), page(None, [{"sid": "b"}], 1)]
        found = [row["sid"] for each in phone_numbers(http) for row in each.records]
    assert found == ["a", "b"]
    assert script.requests[1].target == f"{PATH}?PageSize=50&Page=1&PageToken=PA%2b1"


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"incoming_phone_numbers": []},
        {"incoming_phone_numbers": [], "meta": {"next_page_url": None}},
        page(""),
        page(0),
        page(False),
        page(["x"]),
        {"next_page_uri": None},
        {"next_page_uri": None, "incoming_phone_numbers": {}},
    ],
)
def test_an_uncertain_end_does_not_count_as_the_end(body: Any) -> None:
    assert type(refused(body)) is ContractError


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    "uri",
    [
        f"/2010-04-01/Accounts/AC{'6' * 32}/IncomingPhoneNumbers.json?Page=1",
        f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json?Page=1",
        f"/2010-04-01/Accounts/{ACCOUNT}/../AC{'6' * 32}/IncomingPhoneNumbers.json",
        f"//127.0.0.1:1{PATH}",
        f"@127.0.0.1:1{PATH}",
        f".evil.example{PATH}",
        f"https://api.twilio.com{PATH}",
        f"https://user:hidden-password@evil.example{PATH}?key=hidden-key",
        f"\\\\evil.example{PATH}",
        f"{PATH}#x",
        f"{PATH}\r\nx: y",
        PATH[1:],
        "?Page=1",
    ],
)
def test_a_next_page_elsewhere_is_not_followed(uri: str) -> None:
    """Neither on another host, nor of another account, nor of another list."""
    error = refused(page(uri, [{"sid": "a"}]))
    assert type(error) is ContractError
    assert error.what.startswith("the next page is")
    assert "hidden" not in str(error)


@pytest.mark.fault(30)
def test_credentials_never_follow_a_next_page_to_another_server() -> None:
    stranger = Script(page())
    with connected(stranger) as other:
        assert type(refused(page(f"{other.base_url}{PATH}?Page=1"))) is ContractError
    assert not stranger.requests


@pytest.mark.fault(11)
def test_another_page_than_the_one_that_was_asked_for_is_noticed() -> None:
    script = Script()
    with twilio_lists(script, of="phone_numbers") as http:
        script.answers = [
            page(f"{PATH}?Page=1", [{"sid": "a"}]),
            page(f"{PATH}?Page=2", [{"sid": "a"}], 0),
        ]
        with pytest.raises(ContractError, match="page 1 was asked for, page 0 was answered"):
            list(phone_numbers(http))


def test_a_refused_page_token_says_that_the_scan_can_start_over() -> None:
    answer = json_response(400, {"code": 21481, "message": "Invalid PageToken", "status": 400})
    assert type(refused(answer)) is PageTokenError


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"sid": "PN1"}, "found"),
        (not_found("/x"), "gone"),
        ({"sid": "PN2"}, "undecided"),
        (html(404), "undecided"),
        (json_response(200, {"code": 20404, "message": "x"}), "undecided"),
    ],
)
def test_one_number_is_looked_up_by_its_sid(answer: Any, state: str) -> None:
    script = Script(answer)
    with twilio_lists(script, of="phone_numbers") as http:
        assert look_up_phone_number(http, ("PN1",)).state == state
    path = PATH.replace(".json", "/PN1.json")
    assert [request.target for request in script.requests] == [path]


def test_the_probe() -> None:
    twilio = filled(0)
    with twilio_lists(twilio, of="phone_numbers") as http:
        assert probe_phone_numbers(http) == "readable, there are no phone numbers"
    assert [request.params["PageSize"] for request in twilio.requests] == ["1"]


# --- secrets in URLs -----------------------------------------------------------------------------
@pytest.mark.fault(72)
@pytest.mark.parametrize("status", [400, 403, 404, 500])
@pytest.mark.parametrize(
    "said",
    [
        "VoiceUrl https://me:hidden-pass@example.com/a?key=hidden-key#hidden is not valid",
        "<b>VoiceUrl</b> 'https://me:hidden-pass@example.com/a?api_key=hidden-key'",
        "see https://example.com/hook?token=hidden-key&x=1",
    ],
)
def test_a_url_in_a_failing_answer_is_masked_in_the_message_and_the_log(
    said: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    script = Script(json_response(status, {"code": 21502, "message": said, "status": status}))
    with (
        twilio_lists(script, of="phone_numbers") as http,
        pytest.raises(ProviderError) as caught,
    ):
        list(phone_numbers(http))
    assert "hidden" not in str(caught.value)
    assert "hidden" not in caplog.text


@pytest.mark.fault(72)
def test_a_record_without_a_sid_is_rejected_without_its_urls() -> None:
    record = {"sid": ["https://u:hidden@h"], "voice_url": "https://u:hidden@h/?k=hidden"}
    rows = transformed("twilio.phone_numbers", [record])
    assert [(each.reason, each.payload) for each in rows.rejects] == [
        ("phone number: sid is not text but list", record)
    ]


# --- rows ----------------------------------------------------------------------------------------
def test_the_documented_numbers_become_these_rows() -> None:
    records = example("twilio/phone_numbers")["incoming_phone_numbers"]
    rows = transformed("twilio.phone_numbers", records)
    found = named(rows, "twilio.phone_numbers")
    every = {
        "partial": False,
        "account_sid": "AC" + "a" * 32,
        "origin": "origin",
        "status": "in-use",
        "type": "local",
        "capability_voice": True,
        "capability_sms": False,
        "capability_mms": True,
        "date_created": datetime(2015, 7, 30, 23, 19, 4, tzinfo=UTC),
        "date_updated": datetime(2015, 7, 30, 23, 19, 4, tzinfo=UTC),
    }
    extras = [row.pop("extra") for row in found]
    assert found == [
        {**every, "ord": number, "sid": "PN" + 32 * end, "phone_number": text, **one}
        for number, (end, text, one) in enumerate(
            [
                ("a", "+15005550006", {"friendly_name": "(500) 555-0006"}),
                (
                    "b",
                    "+15005550007",
                    {
                        "friendly_name": "Main line",
                        "voice_url": records[1]["voice_url"],
                        "voice_studio_flow_sid": FLOW,
                        "sms_url": "https://demo.twilio.com/welcome/sms/reply/",
                    },
                ),
                ("c", "+15005550008", {"friendly_name": "Trunk", "trunk_sid": "TK" + 32 * "a"}),
                (
                    "d",
                    "+15005550009",
                    {
                        "friendly_name": "App",
                        "voice_application_sid": "AP" + 32 * "a",
                        "voice_url": "https://example.com/ignored",
                    },
                ),
            ]
        )
    ]
    assert (rows.rejects, rows.warnings) == ([], 0)
    for extra in extras:
        assert extra["capabilities"] == {"fax": False}
        assert extra["sms_fallback_url"] == ""
        assert "voice_url" not in extra


@pytest.mark.parametrize("sent", ["", None])
def test_unset_is_null_whichever_way_it_is_sent(sent: Any) -> None:
    columns = ("voice_url", "sms_url", "trunk_sid", "voice_application_sid", "date_updated")
    row, rows = phone_number(**dict.fromkeys(columns, sent), capabilities={"voice": sent})
    assert row == {}
    assert rows.warnings == 0


def test_members_without_a_column_stay_whole() -> None:
    url = "https://me:secret@example.com/fallback?key=secret"
    row, _ = phone_number(voice_fallback_url=url, status_callback="", voice_url=url)
    assert row["extra"] == {"voice_fallback_url": url, "status_callback": ""}
    assert row["voice_url"] == url


@pytest.mark.fault(16)
@pytest.mark.parametrize("sent", ["Thu, 30 Jul 2015 23:19:04", "30.07.2015", 1438298344])
def test_an_odd_date_is_null_kept_and_counted(sent: Any) -> None:
    row, rows = phone_number(date_updated=sent)
    assert row == {"extra": {"date_updated": sent}}
    assert rows.warnings == 1


def test_what_the_provider_calls_like_a_derived_column_is_kept() -> None:
    row, _ = phone_number(voice_studio_flow_sid="FW1")
    assert row == {"extra": {"voice_studio_flow_sid": "FW1"}}


# --- Studio's webhooks ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    "url",
    [
        HOOK,
        HOOK.replace("https", "http"),
        HOOK + "/",
        HOOK + "?foo=bar",
        HOOK + "/?a=https://evil.example",
        HOOK + "#x",
        HOOK.replace("webhooks.twilio.com", "WebHooks.Twilio.COM"),
        HOOK.replace("twilio.com", "twilio.com:443"),
        "HTTPS" + HOOK.removeprefix("https"),
        HOOK.replace("https://", "https://me:pw@") + "?key=1",
    ],
)
def test_host_and_path_name_the_flow(url: str) -> None:
    for member in ("voice", "sms"):
        row, _ = phone_number(account_sid=ACCOUNT, **{f"{member}_url": url})
        assert row == {
            "account_sid": ACCOUNT,
            f"{member}_url": url,
            f"{member}_studio_flow_sid": FLOW,
        }


@pytest.mark.parametrize(
    "url",
    [
        HOOK.replace("twilio.com", "twilio.com.evil.example"),
        HOOK.replace("webhooks", "evil-webhooks"),
        HOOK.replace("webhooks.", "evil.webhooks."),
        HOOK.replace("webhooks.twilio.com", "webhooks-twilio.com"),
        HOOK.replace("webhooks.twilio.com", "webhooksxtwilio.com"),
        HOOK.replace("webhooks", "webhoo\u212as"),  # str.lower() makes a k of the Kelvin sign
        HOOK.replace("webhooks.twilio.com", "webhooks.twilio.com@evil.example"),
        HOOK.replace("https://", "https://evil.example/"),
        HOOK.replace("https://", "https://evil.example/@"),
        HOOK.replace("https://", "https://me@evil.example:1@"),
        HOOK.replace("https://", "https://evil.example?u=https://"),
        HOOK.replace("https://", "https://evil.example\\@"),
        HOOK.replace("https:", ""),
        HOOK.replace("https://", ""),
        HOOK.replace("/v1/", "/v2/"),
        HOOK.replace("/v1/", "/V1/"),
        HOOK.replace("/v1/", "//v1/"),
        HOOK.replace("/Flows/", "/flows/"),
        HOOK.replace("/v1/", "/x/../v1/"),
        HOOK.replace("/Flows", "/%46lows"),
        HOOK.replace(ACCOUNT, "AC" + "6" * 32),
        HOOK.replace(FLOW, "FW"),
        HOOK + "0",
        HOOK + "/Executions",
        HOOK + "//",
        " " + HOOK,
        HOOK + " ",
        HOOK + "\n",
        HOOK.replace("twilio.com", "twilio.com:x"),
        HOOK.replace("twilio.com", "twilio.com."),
        "",
        None,
        ["x"],
    ],
)
def test_what_only_looks_like_studio_s_webhook_is_a_url_like_any(url: Any) -> None:
    assert studio_flow("voice_url")({"account_sid": ACCOUNT, "voice_url": url}) is None

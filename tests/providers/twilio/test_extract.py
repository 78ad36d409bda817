"""Twilio's flex flows and channels, read from the sandbox over a socket."""

import base64
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from etl.errors import (
    ContractError,
    CredentialsError,
    ForbiddenError,
    MissingError,
    PageTokenError,
    ProviderError,
    UnavailableError,
    WithdrawnError,
)
from etl.extract.page import Page
from etl.extract.twilio import (
    channels,
    flex_flows,
    look_up_channel,
    look_up_flex_flow,
    probe_channels,
    probe_flex_flows,
)
from etl.sandbox import twilio as emulated
from etl.sandbox.exchange import Response, json_response
from etl.sandbox.faults import Fault, empty, html, redirect
from etl.sandbox.twilio import Twilio
from tests.extract.scripted import Script, Time, connected
from tests.extract.sources import twilio_lists

META: dict[str, Any] = {"key": "flex_chat_channels", "page": 0, "next_page_url": None}
NOTHING: dict[str, Any] = {}
API_KEY: dict[str, Any] = {
    "auth_token": None,
    "api_key_sid": "SK" + "7" * 32,
    "api_key_secret": SecretStr("sandbox-twilio-key-secret"),
}


def filled(channels: int = 0, flex_flows: int = 0) -> Twilio:
    twilio = Twilio()
    for number in range(channels):
        twilio.channels.add({"sid": f"CH{number:032x}"})
    for number in range(flex_flows):
        twilio.flex_flows.add({"sid": f"FO{number:032x}"})
    return twilio


def sids(pages: list[Page]) -> list[str]:
    return [row["sid"] for page in pages for row in page.records]


def page(next_page_url: Any = None, rows: Any = (), **meta: Any) -> dict[str, Any]:
    return {"meta": {**META, "next_page_url": next_page_url, **meta}, "flex_chat_channels": rows}


def refused(twilio: Any, kind: type[ProviderError], **changes: Any) -> ProviderError:
    with (
        twilio_lists(twilio, **changes) as http,
        pytest.raises(ProviderError) as caught,
    ):
        list(channels(http))
    assert type(caught.value) is kind, caught.value
    assert caught.value.where.startswith("twilio_main.channels")
    assert "sandbox-twilio" not in str(caught.value)
    return caught.value


# --- pages ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [0, 1, 1000, 1001, 2500])
def test_all_pages_are_read_to_the_end(rows: int) -> None:
    twilio = filled(channels=rows, flex_flows=rows)
    with twilio_lists(twilio) as http:
        for scan, truth in (
            (channels, twilio.channels.records()),
            (flex_flows, twilio.flex_flows.records()),
        ):
            twilio.requests.clear()
            pages = list(scan(http))
            assert sorted(sids(pages)) == sorted(row["sid"] for row in truth)
            assert [p.number for p in pages] == list(range(1, max(1, -(-rows // 1000)) + 1))
            assert all((p.total, p.scope, p.anchored) == (None, "", False) for p in pages)
            assert len(twilio.requests) == len(pages)
            assert all(r.params["PageSize"] == "1000" for r in twilio.requests)


def test_the_next_page_url_is_followed_as_it_is() -> None:
    script = Script()
    with twilio_lists(script) as http:
        url = f"{script.url}/v1/Channels?Page=1&PageToken=a%2fB+c%20~*&x"
        script.answers = [page(url, [{"sid": "a"}]), page(None, [{"sid": "b"}])]
        assert sids(list(channels(http))) == ["a", "b"]
    assert script.requests[1].target == url.removeprefix(script.url)


def test_the_scan_may_be_left_early() -> None:
    with twilio_lists(twilio := filled(channels=1500)) as http:
        scan = channels(http)
        next(scan)
        scan.close()  # type: ignore[attr-defined]
        assert len(twilio.requests) == 1


def test_a_server_with_smaller_pages_is_followed() -> None:
    script = Script()
    with twilio_lists(script) as http:
        url = f"{script.url}/v1/Channels?PageSize=50&Page="
        script.answers = [page(f"{url}{n}", [{"sid": str(n)}], page_size=50) for n in range(30)]
        script.answers.append(page(None, page_size=50))
        assert len(sids(list(channels(http)))) == 30


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"flex_chat_channels": []},
        {"flex_chat_channels": [], "meta": None},
        {"flex_chat_channels": [], "meta": {}},
        {"flex_chat_channels": [], "meta": {"key": "flex_chat_channels"}},
        page(""),
        page(0),
        page(False),
        page(["x"]),
        {"meta": META},
        {"meta": META, "flex_chat_channels": None},
        {"meta": META, "flex_chat_channels": {}},
        {"code": 20003, "message": "no", "meta": META},
        {"code": 1, "message": "no"},
    ],
)
@pytest.mark.fault(5)
def test_an_uncertain_end_does_not_count_as_the_end(body: Any) -> None:
    refused(Script(body), ContractError)


@pytest.mark.parametrize("base", ["", "{url}"])
def test_a_next_page_is_followed_relative_or_absolute(base: str) -> None:
    script = Script()
    with twilio_lists(script) as http:
        url = f"{base.format(url=script.url)}/v1/Channels?PageToken=PA%2b1&Page=1"
        script.answers = [page(url, [{"sid": "a"}]), page(None, [{"sid": "b"}])]
        assert sids(list(channels(http))) == ["a", "b"]
    assert script.requests[1].target == "/v1/Channels?PageToken=PA%2b1&Page=1"


@pytest.mark.parametrize("key", [None, "", 5, "flex_chat_channels"])
def test_the_documented_name_of_the_rows_holds_when_meta_has_none(key: Any) -> None:
    with twilio_lists(Script(page(None, [{"sid": "a"}], key=key))) as http:
        assert sids(list(channels(http))) == ["a"]


def test_rows_under_another_name_are_found_when_meta_says_so() -> None:
    body = {"meta": {**META, "key": "chats"}, "chats": [{"sid": "a"}]}
    with twilio_lists(Script(body)) as http:
        assert sids(list(channels(http))) == ["a"]


@pytest.mark.fault(11)
def test_a_next_page_that_repeats_stops_the_scan() -> None:
    script = Script()
    with (
        twilio_lists(script) as http,
        pytest.raises(ContractError, match="paging loops") as caught,
    ):
        script.answers = [page(f"{script.url}/v1/Channels?Page=1", [{"sid": "a"}])]
        list(channels(http))
    assert "page 2" in caught.value.where
    assert len(script.requests) == 2


@pytest.mark.fault(13)
def test_twenty_empty_pages_are_borne_and_no_more() -> None:
    for empties, rows in ((20, 1), (21, 0)):
        script = Script()
        with twilio_lists(script) as http:
            urls = [f"{script.url}/v1/Channels?Page={number}" for number in range(empties)]
            script.answers = [page(url) for url in urls] + [page(None, [{"sid": "a"}])]
            if rows:
                assert sids(list(channels(http))) == ["a"]
            else:
                with pytest.raises(ContractError, match="21 empty pages"):
                    list(channels(http))


@pytest.mark.fault(30)
def test_credentials_never_follow_a_next_page_elsewhere() -> None:
    stranger = Script({})
    with connected(stranger) as other:
        port = urlsplit(other.base_url).port
        for base in (other.base_url, f"http://localhost:{port}", f"https://127.0.0.1:{port}"):
            twilio = filled(channels=1500)
            twilio.next_base = base
            error = refused(twilio, ContractError)
            assert "the next page is on another host (" in error.what
            assert "page 1" in error.where
            assert len(twilio.requests) == 1
    assert not stranger.requests


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    "suffix",
    ["/v1/Channels/../Users", "/v1/FlexFlows?Page=1", "/v1/Channels#x", "@127.0.0.1/v1/Channels"],
)
def test_a_next_page_off_the_list_is_not_followed(suffix: str) -> None:
    script = Script()
    with twilio_lists(script) as http:
        script.answers = [page(script.url + suffix)]
        with pytest.raises(ContractError, match="the next page is"):
            list(channels(http))
    assert len(script.requests) == 1


@pytest.mark.fault(10)
def test_a_refused_page_token_says_that_the_scan_can_start_over() -> None:
    twilio = filled(channels=1500)
    twilio.faults.append(Fault(nth=2, response=emulated.page_token_refused()))
    error = refused(twilio, PageTokenError)
    assert "page token" in error.what
    assert "run again" in error.advice


# --- access and failures -------------------------------------------------------------------------
def test_the_auth_token_and_the_api_key_sign() -> None:
    for changes, user in (
        (NOTHING, b"AC" + b"5" * 32 + b":sandbox-twilio-token"),
        (API_KEY, b"SK" + b"7" * 32 + b":sandbox-twilio-key-secret"),
    ):
        twilio = filled(channels=1)
        with twilio_lists(twilio, **changes) as http:
            assert len(sids(list(channels(http)))) == 1
        sent = twilio.requests[0].headers["authorization"]
        assert sent == f"Basic {base64.b64encode(user).decode()}"


@pytest.mark.fault(7)
def test_wrong_credentials_and_missing_permission() -> None:
    error = refused(filled(), CredentialsError, auth_token=SecretStr("wrong"))
    assert "refuses the credentials: Authenticate" in error.what
    twilio = filled()
    twilio.suspended = True
    assert "does not permit" in refused(twilio, ForbiddenError).what
    twilio = filled()
    twilio.api_key_may_read = set()
    assert "permission for Flex" in refused(twilio, ForbiddenError, **API_KEY).advice
    assert len(twilio.requests) == 1
    for answer in (
        empty(401),
        empty(403),
        html(403),
        emulated.error(401, 70051, "no"),
        json_response(403, {"message": "a gateway's"}),
        json_response(200, {"code": 20003, "message": "x"}),
    ):
        refused(Script(answer), CredentialsError)


@pytest.mark.parametrize(
    ("answer", "least"),
    [
        (emulated.too_many_requests(), 1.0),
        (emulated.too_many_requests("3"), 3.0),
        (emulated.rate_limit_exceeded(), 1.0),
        (json_response(400, {"code": 45010, "message": "Rate Limit Exceeded"}), 1.0),
        (emulated.unavailable(), 0.0),
        (html(502), 0.0),
    ],
)
def test_a_limit_or_a_failure_passes(answer: Response, least: float) -> None:
    twilio, time = filled(channels=1500), Time()
    twilio.faults.append(Fault(nth=2, response=answer))
    with twilio_lists(twilio, time) as http:
        assert len(set(sids(list(channels(http))))) == 1500
    assert http.budget.retries == 1
    assert time.slept[0] >= least


@pytest.mark.fault(4)
def test_lasting_failures() -> None:
    refused(Script(emulated.too_many_requests()), UnavailableError)
    refused(Script(emulated.unavailable()), UnavailableError)
    refused(Script(redirect("/v1/Channels")), ContractError)
    refused(Script(emulated.error(400, 20001, "Invalid PageSize")), ContractError)
    with (
        twilio_lists(Script(emulated.not_found("/v1/Channels"))) as http,
        pytest.raises(ContractError, match=r"has this product$"),
    ):
        list(channels(http))
    refused(Script(emulated.not_found("/v1/Channels")), MissingError)
    refused(Script(html(404)), ContractError)  # a proxy's page says nothing about Twilio
    for answer in (html(410), empty(410), emulated.error(410, 20410, "gone")):
        refused(Script(answer), WithdrawnError)


# --- one record ----------------------------------------------------------------------------------
def test_a_record_is_found_or_gone() -> None:
    twilio = filled(channels=1, flex_flows=1)
    with twilio_lists(twilio) as http:
        for lookup, store in (
            (look_up_channel, twilio.channels),
            (look_up_flex_flow, twilio.flex_flows),
        ):
            (sid,) = store.keys()
            found = lookup(http, (sid,))
            assert (found.state, found.record) == ("found", {"sid": sid})
            store.delete(sid)
            assert lookup(http, (sid,)).state == "gone"


@pytest.mark.parametrize(
    "answer",
    [
        html(404),
        empty(404),
        json_response(404, {"code": 1, "message": "x"}),
        json_response(400, {"code": 20404, "message": "x"}),
        json_response(200, {"code": 20404, "message": "x"}),
        html(502),
        json_response(200, {}),
        json_response(200, {"sid": "CH2"}),
    ],
)
def test_anything_else_leaves_it_undecided(answer: Response) -> None:
    assert_state("undecided", answer)


@pytest.mark.parametrize("answer", [emulated.unauthorized(), emulated.error(403, 70051, "no")])
def test_a_refusal_is_distinguished_from_an_odd_answer(answer: Response) -> None:
    with pytest.raises(CredentialsError):
        assert_state("", answer)


def assert_state(state: str, answer: Response) -> None:
    with twilio_lists(Script(answer)) as http:
        for lookup in (look_up_channel, look_up_flex_flow):
            result = lookup(http, ("CH1",))
            assert (result.state, result.record) == (state, None)
            assert result.reason


@pytest.mark.parametrize("sid", ["", ".", "..", "\ud800"])
def test_a_sid_that_no_url_can_contain_is_not_looked_up(sid: str) -> None:
    with twilio_lists(twilio := Twilio()) as http:
        assert look_up_channel(http, (sid,)).state == "unasked"
    assert not twilio.requests


def test_the_probes() -> None:
    twilio = filled(channels=3)
    with twilio_lists(twilio) as http:
        assert probe_channels(http) == "readable, there are channels"
        assert probe_flex_flows(http) == "readable, there are no flex flows"
        assert [r.params for r in twilio.requests] == [{"PageSize": "1"}] * 2
        twilio.suspended = True
        with pytest.raises(CredentialsError):
            probe_channels(http)

"""Zoom's flows, read from the sandbox over a socket."""

import base64
import logging
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from etl.errors import (
    ContractError,
    CredentialsError,
    PageTokenError,
    ProviderError,
    UnavailableError,
)
from etl.extract.page import Page
from etl.extract.zoom import flows, look_up_flow, probe_flows
from etl.sandbox import zoom as emulated
from etl.sandbox.exchange import Response, json_response
from etl.sandbox.faults import Fault, empty, html
from etl.sandbox.zoom import Zoom
from tests.extract.scripted import Script, Time
from tests.extract.sources import zoom_flows

LIST = "/v2/contact_center/flows"
TOKEN = {"access_token": "token-1", "expires_in": 3600, "scope": "a b"}


def filled(count: int) -> Zoom:
    zoom = Zoom()
    for number in range(count):
        zoom.flows.add({"flow_id": f"flow-{number:05}", "flow_name": f"Flow {number}"})
    return zoom


def ids(pages: list[Page]) -> list[str]:
    return [row["flow_id"] for page in pages for row in page.records]


def to_list(zoom: Any) -> list[Any]:
    return [r for r in zoom.requests if r.path == LIST]


def refused(zoom: Any, kind: type[ProviderError], **changes: Any) -> ProviderError:
    with zoom_flows(zoom, **changes) as http, pytest.raises(ProviderError) as caught:
        list(flows(http))
    assert type(caught.value) is kind, caught.value
    assert caught.value.where.startswith("zoom_eu.flows")
    assert "sandbox-zoom" not in str(caught.value)
    return caught.value


def after_token(*answers: Any) -> Script:
    return Script(TOKEN, *answers)


# --- pages ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 250])
@pytest.mark.parametrize("end", ["", "null", "missing"])
def test_all_pages_are_read_to_the_end(rows: int, end: Any) -> None:
    zoom = filled(rows)
    zoom.last_page_token = end
    with zoom_flows(zoom) as http:
        pages = list(flows(http))
    assert sorted(ids(pages)) == sorted(r["flow_id"] for r in zoom.flows.records())
    assert [page.number for page in pages] == list(range(1, max(1, -(-rows // 100)) + 1))
    assert all((p.total, p.scope, p.anchored) == (rows, "", False) for p in pages)
    assert len(zoom.requests) == http.budget.requests == len(pages) + 1  # and one for the token
    assert all(r.params["page_size"] == "100" for r in to_list(zoom))


def test_the_log_names_each_request_as_zoom_s_support_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "etl.extract.http")
    with zoom_flows(filled(1)) as http:
        assert len(list(flows(http))) == 1
    logged = re.findall(r"/oauth/token .*, x-zm-trackingid \S+|/flows .*, x-zm-trackingid \S+",
                        caplog.text)  # fmt: skip
    assert len(logged) == 2


def test_the_scan_may_be_left_early() -> None:
    zoom = filled(250)
    with zoom_flows(zoom) as http:
        scan = flows(http)
        assert next(scan).number == 1
        scan.close()  # type: ignore[attr-defined]
        assert len(to_list(zoom)) == 1


def test_nothing_is_sent_before_the_first_page_is_wanted() -> None:
    with zoom_flows(zoom := filled(1)) as http:
        flows(http)
        assert not zoom.requests


@pytest.mark.fault(19)
@pytest.mark.parametrize("total", [None, -1, "03", " 3", "+3", "3.0", "3e0", "٣", "", 1.5, True])
def test_a_count_that_is_not_a_number_is_not_passed_on(total: Any) -> None:
    with zoom_flows(after_token({"flows": [], "total_records": total})) as http:
        assert [page.total for page in flows(http)] == [None]


@pytest.mark.parametrize("rows", [[None, 1, "x", [], {}], [{"flow_id": None}]])
def test_records_are_passed_on_as_they_are(rows: list[Any]) -> None:
    with zoom_flows(after_token({"flows": rows})) as http:
        assert [page.records for page in flows(http)] == [rows]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"flows": None},
        {"flows": None, "total_records": 1},
        {"flows": {}, "total_records": 0},
        {"flows": {}},
        {"flows": "x"},
        {"next_page_token": ""},
        {"code": 9, "message": "x"},
    ],
)
@pytest.mark.fault(5)
def test_an_answer_without_flows_is_never_an_empty_list(body: Any) -> None:
    refused(after_token(body), ContractError)


@pytest.mark.parametrize("body", [{"flows": None}, {}, {"flows": []}])
def test_an_answer_that_counts_no_flows_may_leave_out_the_list(body: dict[str, Any]) -> None:
    with zoom_flows(after_token(body | {"total_records": 0, "next_page_token": ""})) as http:
        assert [(page.records, page.total) for page in flows(http)] == [([], 0)]


@pytest.mark.fault(11)
def test_a_page_token_that_repeats_stops_the_scan() -> None:
    page = {"flows": [{"flow_id": "a"}], "next_page_token": "again"}
    error = refused(script := after_token(page), ContractError)
    assert "paging loops" in error.what
    assert "page 2" in error.where
    assert len(to_list(script)) == 2
    other = {"flows": [{"flow_id": "a"}], "next_page_token": "other"}
    refused(script := after_token(page, other, page), ContractError)  # a longer circle
    assert len(to_list(script)) == 3


@pytest.mark.fault(13)
def test_twenty_empty_pages_are_accepted_and_no_more() -> None:
    def empties(count: int) -> list[Any]:
        return [{"flows": [], "next_page_token": f"t{number}"} for number in range(count)]

    end = {"flows": [{"flow_id": "a"}], "next_page_token": ""}
    with zoom_flows(after_token(*empties(20), end)) as http:
        assert ids(list(flows(http))) == ["a"]
    assert "21 empty pages" in refused(after_token(*empties(21), end), ContractError).what


@pytest.mark.parametrize("token", [5, ["x"], {"a": 1}, True, "\ud800"])
def test_a_page_token_that_is_no_text_breaks_the_contract(token: Any) -> None:
    answer = Response(200, b'{"flows": [], "next_page_token": "\\ud800"}')
    page = answer if token == "\ud800" else {"flows": [], "next_page_token": token}
    refused(after_token(page), ContractError)


@pytest.mark.fault(10)
def test_a_page_token_too_old_says_that_the_scan_can_start_over() -> None:
    zoom = filled(250)
    zoom.faults.append(Fault(path=LIST, nth=2, before_request=lambda z, _: z.clock.advance(901)))
    zoom.expires_in = 36_000
    error = refused(zoom, PageTokenError)
    assert "page token" in error.what
    assert "run again" in error.advice
    assert len(to_list(zoom)) == 2


@pytest.mark.parametrize(
    ("message", "nth"),
    [("The next page token is invalid or expired.", 1), ("Validation Failed.", 2)],
)
def test_code_300_is_about_a_page_token_only_when_one_was_sent(message: str, nth: int) -> None:
    zoom = filled(250)
    zoom.faults.append(Fault(path=LIST, nth=nth, response=emulated.error(400, 300, message)))
    assert message[:-1] in refused(zoom, ContractError).what


# --- access --------------------------------------------------------------------------------------
def test_the_token_is_asked_for_in_the_body_with_basic_auth() -> None:
    zoom = filled(250)
    with zoom_flows(zoom) as http:
        list(flows(http))
    token = zoom.requests[0]
    assert (token.method, token.target) == ("POST", "/oauth/token")
    assert token.body == b"grant_type=account_credentials&account_id=sandbox-zoom-account"
    code = base64.b64encode(b"sandbox-zoom-client:sandbox-zoom-secret").decode()
    assert token.headers["authorization"] == f"Basic {code}"
    assert len({r.headers["authorization"] for r in to_list(zoom)}) == 1


@pytest.mark.parametrize(("passed", "tokens"), [(3539, 1), (3541, 2)])
def test_the_token_is_renewed_when_a_minute_remains(passed: int, tokens: int) -> None:
    zoom, time = filled(150), Time()
    with zoom_flows(zoom, time) as http:
        scan = flows(http)
        next(scan)
        time.now += passed
        list(scan)
    assert len([r for r in zoom.requests if r.path == "/oauth/token"]) == tokens
    assert http.budget.retries == 0


@pytest.mark.fault(6)
@pytest.mark.parametrize("status", [401, 400])
def test_a_token_that_expires_during_a_scan_is_renewed_and_the_page_asked_again(
    status: Any,
) -> None:
    zoom = filled(250)
    zoom.expired_status = status
    for nth in (2, 4):  # the fourth request is the third page
        zoom.faults.append(Fault(path=LIST, nth=nth, before_request=lambda z, _: z.revoke_tokens()))
    with zoom_flows(zoom) as http:
        pages = list(flows(http))
    assert len(ids(pages)) == len(set(ids(pages))) == 250
    assert (http.budget.requests, http.budget.retries, http.budget.throttled) == (8, 2, 0.0)


@pytest.mark.fault(6)
@pytest.mark.parametrize(
    "answer", [emulated.token_expired(), emulated.token_expired(400), empty(401)]
)
def test_the_run_ends_if_a_fresh_token_is_refused_too(answer: Response) -> None:
    zoom = filled(1)
    zoom.faults.append(Fault(path=LIST, times=None, response=answer))
    error = refused(zoom, CredentialsError)
    assert "refuses the access token" in error.what
    assert [r.path for r in zoom.requests] == ["/oauth/token", LIST] * 2


@pytest.mark.fault(7)
@pytest.mark.parametrize(
    "changes",
    [{"client_secret": SecretStr("wrong")}, {"client_id": "wrong"}, {"account_id": "wrong"}],
)
def test_wrong_credentials(changes: dict[str, Any]) -> None:
    error = refused(zoom := filled(1), CredentialsError, **changes)
    assert "gives no access token" in error.what
    assert "client_secret" in error.advice
    assert len(zoom.requests) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"error": "invalid_client", "reason": "no"}, CredentialsError),
        ({"access_token": "", "expires_in": 1}, ContractError),
        ({"access_token": None}, ContractError),
        ({"access_token": "two\r\nlines", "expires_in": 1}, ContractError),
        ({}, ContractError),
        (html(200), ContractError),
        (html(503), UnavailableError),
        (json_response(404, {}), ContractError),
    ],
)
def test_odd_answers_of_the_token_endpoint(answer: Any, kind: type[ProviderError]) -> None:
    error = refused(Script(answer), kind)
    assert "access token" in error.where
    assert "base_url" not in error.advice


def test_an_address_of_tokens_that_is_wrong_is_named() -> None:
    zoom = filled(1)
    error = refused(zoom, UnavailableError, token_url="http://127.0.0.1:1/token")
    assert "cannot connect to 127.0.0.1:1" in error.what
    assert error.advice.startswith("check token_url and the network")
    assert not zoom.requests


@pytest.mark.parametrize(
    ("answers", "retries"),
    [((html(503), html(503), TOKEN, {"flows": []}), 2), ((html(503),) * 6, 5), ((html(401),), 0)],
)
def test_the_budget_of_the_run_pays_for_requests_for_tokens(
    answers: tuple[Any, ...], retries: int
) -> None:
    script, time = Script(*answers), Time()
    with zoom_flows(script, time) as http:
        with suppress(ProviderError):
            list(flows(http))
        spent = (http.budget.requests, http.budget.retries)
    assert spent == (len(script.requests), retries) == (len(answers), retries)
    assert (http.budget.throttled > 0) is (retries > 0)


def test_a_token_without_expires_in_lasts_an_hour() -> None:
    script, time = Script({"access_token": "t"}, {"flows": [], "next_page_token": "a"}), Time()
    with zoom_flows(script, time) as http:
        scan = flows(http)
        next(scan)
        time.now += 3000
        next(scan)
    assert [r.path for r in script.requests] == ["/oauth/token", LIST, LIST]


@pytest.mark.fault(7)
@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_missing_scope_is_named_and_not_retried(status: int) -> None:
    zoom = filled(1)
    scope = "contact_center:read:list_flows:admin"
    text = f"Invalid access token, does not contain scopes:[{scope}]."
    answer = emulated.error(status, 4711, text)
    zoom.faults.append(Fault(path=LIST, times=None, response=answer))
    assert f"add {scope} to" in refused(zoom, CredentialsError).advice
    assert len(to_list(zoom)) == 1


@pytest.mark.parametrize(
    "answer", [emulated.error(403, 1, "no"), emulated.error(400, 200, "No permission."), empty(403)]
)
@pytest.mark.fault(7)
def test_no_permission(answer: Response) -> None:
    zoom = filled(1)
    zoom.faults.append(Fault(path=LIST, times=None, response=answer))
    assert "contact_center:read:list_flows:admin" in refused(zoom, CredentialsError).advice


# --- limits and failures -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "answer",
    [
        emulated.too_many_this_second(),
        emulated.too_many_at_once(),
        json_response(200, {"code": 429, "message": "Too many"}),
        html(502),
    ],
)
def test_a_limit_or_a_failure_passes(answer: Response) -> None:
    zoom, time = filled(250), Time()
    zoom.faults.append(Fault(path=LIST, nth=2, response=answer))
    with zoom_flows(zoom, time) as http:
        assert len(ids(list(flows(http)))) == 250
    assert http.budget.retries == 1
    if answer.status != 502:
        assert time.slept[0] >= 1


@pytest.mark.parametrize(
    "answer",
    [
        emulated.too_many_today(),
        emulated.too_many_today("2026-11-20T00:00:01Z"),
        json_response(429, {"code": 429, "message": "the maximum daily rate limit"}),
        json_response(429, {}, {"Retry-After": "2026-11-21T00:00:00Z"}),
        json_response(429, {}, {"X-RateLimit-Type": "Daily-limit"}),
    ],
)
@pytest.mark.fault(1)
def test_the_daily_limit_means_not_today(answer: Response) -> None:
    zoom, time = filled(1), Time()
    zoom.faults.append(Fault(path=LIST, times=None, response=answer))
    with zoom_flows(zoom, time) as http, pytest.raises(UnavailableError) as caught:
        list(flows(http))
    assert "daily limit of requests is used up, again " in caught.value.what
    assert len(to_list(zoom)) == 1
    assert not time.slept
    asked = answer.headers.get("Retry-After")
    left = asked and (datetime.fromisoformat(asked) - datetime.now(UTC)).total_seconds()
    assert caught.value.wait == pytest.approx(max(0, left) if left else 3600, abs=5)


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"code": 4711, "message": "does not contain scopes:[x:y]."}, CredentialsError),
        ({"code": 200, "message": "No permission."}, CredentialsError),
        ({"code": 300, "message": "Validation Failed."}, ContractError),
        ({"code": "124", "message": "Invalid access token."}, CredentialsError),
    ],
)
def test_an_error_envelope_in_a_200_counts_like_an_error(
    body: Any, kind: type[ProviderError]
) -> None:
    zoom = filled(1)
    zoom.faults.append(Fault(path=LIST, times=None, response=json_response(200, body)))
    refused(zoom, kind)


# --- one flow ------------------------------------------------------------------------------------
@pytest.mark.parametrize("flow_id", ["zwKiV80hQ7CwRg9BEm0Bvw", "-x_", "a/b c?d#e%2F", "ü", ". ."])
def test_a_flow_is_found_or_gone(flow_id: str) -> None:
    zoom = Zoom()
    zoom.flows.add({"flow_id": flow_id, "flow_name": "One"})
    with zoom_flows(zoom) as http:
        found = look_up_flow(http, (flow_id,))
        assert (found.state, found.record) == ("found", zoom.flows.get(flow_id))
        zoom.flows.delete(flow_id)
        assert look_up_flow(http, (flow_id,)).state == "gone"


@pytest.mark.parametrize(
    "answer",
    [
        html(404),
        empty(404),
        emulated.error(404, 2300, "This API endpoint is not recognized."),
        emulated.error(400, 3201, "Flow does not exist: x."),
        html(502),
        json_response(200, {}),
        json_response(200, {"flow_id": "another"}),
        json_response(200, []),
        emulated.too_many_today(),
    ],
)
def test_anything_else_leaves_it_undecided(answer: Response) -> None:
    assert_state("undecided", answer)


@pytest.mark.parametrize(
    "answer",
    [emulated.missing_scope("contact_center:read:flow:admin"), emulated.error(403, 1, "no")],
)
def test_a_refusal_is_distinguished_from_an_odd_answer(answer: Response) -> None:
    with pytest.raises(CredentialsError):
        assert_state("", answer)


def assert_state(state: str, answer: Response) -> None:
    zoom = filled(0)
    zoom.faults.append(Fault(path=f"{LIST}/*", times=None, response=answer))
    with zoom_flows(zoom) as http:
        lookup = look_up_flow(http, ("x",))
    assert lookup.state == state
    assert lookup.reason
    assert lookup.record is None


@pytest.mark.parametrize("flow_id", ["", ".", "..", "\ud800"])
def test_an_id_that_no_url_can_hold_is_not_asked_for(flow_id: str) -> None:
    with zoom_flows(zoom := Zoom()) as http:
        assert look_up_flow(http, (flow_id,)).state == "unasked"
    assert not zoom.requests


# --- check ---------------------------------------------------------------------------------------
def test_the_probe_counts_and_names_the_scopes() -> None:
    with zoom_flows(zoom := filled(47)) as http:
        assert probe_flows(http) == (
            "47 flows; scopes: contact_center:read:flow:admin, contact_center:read:list_flows:admin"
        )
        assert len(to_list(zoom)) == 1


def test_the_probe_says_when_deleted_flows_cannot_be_confirmed() -> None:
    zoom = filled(1)
    zoom.scopes = {"contact_center:read:list_flows:admin"}
    with zoom_flows(zoom) as http:
        assert "; add contact_center:read:flow:admin so that" in probe_flows(http)
    zoom.scopes = {"contact_center_flow:read:admin"}
    with zoom_flows(zoom) as http:
        assert "; add" not in probe_flows(http)


def test_the_probe_raises_what_a_scan_would() -> None:
    zoom = filled(1)
    zoom.scopes = {"user:read:admin"}
    with zoom_flows(zoom) as http, pytest.raises(CredentialsError, match="scope"):
        probe_flows(http)
    with zoom_flows(after_token({"x": 1})) as http, pytest.raises(ContractError):
        probe_flows(http)
    with zoom_flows(Script({"access_token": "t"}, {"flows": []})) as http:
        assert probe_flows(http) == "an unknown number of flows; scopes: unknown"

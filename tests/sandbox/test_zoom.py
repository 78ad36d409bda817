"""The Zoom emulator against the API reference's examples and rules."""

import json
from random import Random
from typing import Literal

import httpx
import pytest

from etl.sandbox import zoom as errors
from etl.sandbox import zoom_data
from etl.sandbox.exchange import Response
from etl.sandbox.server import Sandbox
from etl.sandbox.store import Paging
from etl.sandbox.wire import Clock
from etl.sandbox.zoom import Zoom
from tests.sandbox.clients import zoom_get, zoom_pages, zoom_token

# The reference's example of a row.
EXAMPLE = {
    "flow_id": "zwKiV80hQ7CwRg9BEm0Bvw",
    "flow_name": "Video Test",
    "flow_description": "A testing flow.",
    "channel_type": "voice",
    "channel": "messaging",
    "channel_source": "web_chat",
    "status": "published",
    "modified_by": "IGTRVt3gQ2i-WjoUIjeZxw",
    "last_modified_time": "2022-02-15T09:27:15Z",
    "entry_points": [
        {
            "entry_id": "x_h7uCj3TtScXWOBnQnKrw",
            "entry_name": "Test video",
            "entry_number": "+12125550142",
            "entry_language": "en-US",
            "email_address": "xxxx@example.com",
        }
    ],
    "flow_versions": [
        {
            "flow_version_id": "EWg5URJZRXKwfbLJpeJWyA",
            "flow_version_description": "Version 1",
            "flow_version_status": "draft",
            "flow_version": 2,
            "flow_version_modified_by": "jdhgdhghk376453hjdf",
            "flow_version_last_modified_time": "2022-08-05T01:55:52Z",
        }
    ],
}

PAGE_TOKEN_REFUSED = {"code": 300, "message": "The next page token is invalid or expired."}


@pytest.fixture
def zoom(sandbox: Sandbox) -> Zoom:
    emulator: Zoom = sandbox.zoom
    return emulator


@pytest.fixture
def token(http: httpx.Client, zoom: Zoom) -> str:
    return zoom_token(http, zoom)


def fill(zoom: Zoom, count: int) -> list[str]:
    """Return flows f0, f1 … of which the last is the newest and the last changed."""
    return [
        zoom.flows.add({"flow_id": f"f{n}", "last_modified_time": f"2024-01-01T00:{n:02}:00Z"})
        for n in range(count)
    ]


def refused(answer: httpx.Response) -> tuple[int, int, str]:
    body = answer.json()
    return answer.status_code, body["code"], body["message"]


# -- access tokens --------------------------------------------------------------------------------


def test_the_token_answer(http: httpx.Client, zoom: Zoom) -> None:
    zoom.expires_in = 120
    answer = http.post(
        f"{zoom.url}/oauth/token",
        data={"grant_type": "account_credentials", "account_id": zoom.account_id},
        auth=(zoom.client_id, zoom.client_secret),
    )
    body = answer.json()
    token = body.pop("access_token")
    assert zoom_get(http, zoom, token).status_code == 200
    assert body == {
        "token_type": "bearer",
        "expires_in": 120,
        "scope": "contact_center:read:flow:admin contact_center:read:list_flows:admin",
        "api_url": zoom.url,
    }


def test_token_requests_that_are_refused(http: httpx.Client, zoom: Zoom) -> None:
    url = f"{zoom.url}/oauth/token"
    form = {"grant_type": "account_credentials", "account_id": zoom.account_id}
    right = (zoom.client_id, zoom.client_secret)
    unsupported = {"reason": "Unsupported grant type", "error": "unsupported_grant_type"}
    unknown = {"reason": "Invalid client_id or client_secret", "error": "invalid_client"}
    for answer, expected in (
        (http.post(url, params=form, auth=right), unsupported),
        (http.post(url, json=form, auth=right), unsupported),
        (http.get(url, params=form, auth=right), unsupported),
        (
            http.post(url, data={**form, "grant_type": "client_credentials"}, auth=right),
            unsupported,
        ),
        (http.post(url, data=form, auth=(zoom.client_id, "wrong")), unknown),
        (http.post(url, data=form), unknown),
        (http.post(url, data=form, headers={"Authorization": "Basic ###"}), unknown),
        (
            http.post(url, data={**form, "account_id": "other"}, auth=right),
            {"reason": "Bad Request", "error": "invalid_request"},
        ),
    ):
        assert (answer.status_code, answer.json()) == (400, expected)


def test_tokens_expire_when_their_answer_says(http: httpx.Client, zoom: Zoom) -> None:
    zoom.clock = Clock(frozen_at=1_700_000_000)
    token = zoom_token(http, zoom)
    zoom.clock.advance(3599)
    assert zoom_get(http, zoom, token).status_code == 200
    zoom.clock.advance(1)
    assert refused(zoom_get(http, zoom, token)) == (401, 124, "Access token is expired.")
    zoom.expired_status = 400
    assert refused(zoom_get(http, zoom, token)) == (400, 124, "Access token is expired.")


def test_several_tokens_are_valid_until_revoked(http: httpx.Client, zoom: Zoom) -> None:
    first, second = zoom_token(http, zoom), zoom_token(http, zoom)
    assert first != second
    assert zoom_get(http, zoom, first).status_code == 200
    zoom.revoke_tokens()
    for token in (first, second, "made up"):
        assert refused(zoom_get(http, zoom, token)) == (401, 124, "Invalid access token.")
    answer = http.get(f"{zoom.url}/v2/contact_center/flows")
    assert refused(answer) == (401, 4700, "Token cannot be empty.")


def test_each_call_has_its_scope_and_the_classic_one_opens_both(
    http: httpx.Client, zoom: Zoom
) -> None:
    flow_id = zoom.flows.add(EXAMPLE)
    zoom.scopes = {"contact_center:read:list_flows:admin"}
    lists = zoom_token(http, zoom)
    zoom.scopes = {"contact_center:read:flow:admin"}
    gets = zoom_token(http, zoom)
    zoom.scopes = {"contact_center_flow:read:admin"}
    both = zoom_token(http, zoom)
    one = f"/{flow_id}"
    assert zoom_get(http, zoom, lists).status_code == 200
    assert zoom_get(http, zoom, gets, one).status_code == 200
    assert zoom_get(http, zoom, both).status_code == 200
    assert zoom_get(http, zoom, both, one).status_code == 200
    text = "Invalid access token, does not contain scopes:[contact_center:read:{}:admin]."
    assert refused(zoom_get(http, zoom, gets)) == (400, 4711, text.format("list_flows"))
    assert refused(zoom_get(http, zoom, lists, one)) == (400, 4711, text.format("flow"))


# -- the list -------------------------------------------------------------------------------------


def test_the_reference_example_comes_back_as_documented(
    http: httpx.Client, zoom: Zoom, token: str
) -> None:
    zoom.flows.add(EXAMPLE)
    answer = zoom_get(http, zoom, token)
    assert answer.json() == {
        "next_page_token": "",
        "page_size": 30,
        "total_records": 1,
        "flows": [EXAMPLE],
    }
    assert answer.headers["x-zm-trackingid"]
    assert answer.headers["content-type"].startswith("application/json")


def test_thirty_rows_by_default_and_never_more_than_a_hundred(
    http: httpx.Client, zoom: Zoom, token: str
) -> None:
    for number in range(120):
        zoom.flows.add({"flow_id": f"f{number}"})
    for params, size in (({}, 30), ({"page_size": "7"}, 7), ({"page_size": "300"}, 100)):
        page = zoom_get(http, zoom, token, **params).json()
        assert (page["page_size"], len(page["flows"]), page["total_records"]) == (size, size, 120)
    zoom.refuses_large_pages = True
    assert zoom_get(http, zoom, token, page_size="100").status_code == 200
    answer = zoom_get(http, zoom, token, page_size="101")
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "debugging"),
        ("channel_type", "email"),
        ("channel", "fax"),
        ("channel_source", "voice"),
        ("page_size", "0"),
        ("page_size", "many"),
        ("page_size", "9" * 5000),
    ],
)
def test_values_that_the_reference_does_not_allow(
    http: httpx.Client, zoom: Zoom, token: str, name: str, value: str
) -> None:
    answer = zoom_get(http, zoom, token, **{name: value})
    assert answer.status_code == 400
    assert answer.json() == {
        "code": 300,
        "message": "Validation Failed.",
        "errors": [{"field": name, "message": "Invalid field."}],
    }


def test_filters_narrow_the_rows_and_the_count(http: httpx.Client, zoom: Zoom, token: str) -> None:
    zoom.flows.add({"flow_id": "a", "status": "draft", "channel": "voice", "channel_type": "voice"})
    zoom.flows.add({"flow_id": "b", "status": "published", "channel": "voice"})
    zoom.flows.add({"flow_id": "c", "status": "archived", "channel_source": "sms"})
    for params, ids in (
        ({"status": "draft"}, ["a"]),
        ({"channel": "voice"}, ["b", "a"]),
        ({"channel": "voice", "status": "published"}, ["b"]),
        ({"channel_type": "voice"}, ["a"]),
        ({"channel_source": "sms"}, ["c"]),
        ({"channel": "email"}, []),
        ({"status": ""}, ["c", "b", "a"]),
    ):
        page = zoom_get(http, zoom, token, **params).json()
        assert [flow["flow_id"] for flow in page["flows"]] == ids
        assert page["total_records"] == len(ids)


def test_archived_flows_may_be_left_out_of_the_plain_list(
    http: httpx.Client, zoom: Zoom, token: str
) -> None:
    zoom.flows.add({"flow_id": "kept", "status": "published"})
    zoom.flows.add({"flow_id": "old", "status": "archived"})
    assert zoom_get(http, zoom, token).json()["total_records"] == 2
    zoom.lists_archived = False
    assert [flow["flow_id"] for flow in zoom_get(http, zoom, token).json()["flows"]] == ["kept"]
    page = zoom_get(http, zoom, token, status="archived").json()
    assert [flow["flow_id"] for flow in page["flows"]] == ["old"]


@pytest.mark.parametrize("how", ["", "null", "missing"])
def test_how_the_last_page_is_marked(
    http: httpx.Client, zoom: Zoom, token: str, how: Literal["", "null", "missing"]
) -> None:
    zoom.last_page_token = how
    page = zoom_get(http, zoom, token).json()
    assert page.get("next_page_token", "missing") == {"": "", "null": None}.get(how, "missing")


# -- page tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize("paging", ["offset/updated", "offset/created", "keyset", "snapshot"])
def test_a_quiet_list_is_paged_through_exactly_once(
    http: httpx.Client, zoom: Zoom, paging: Paging
) -> None:
    fill(zoom, 25)
    zoom.paging = paging
    pages = zoom_pages(http, zoom, page_size="10")
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [flow_id for page in pages for flow_id in page] == [f"f{n}" for n in reversed(range(25))]


def test_pages_may_be_smaller_than_requested(http: httpx.Client, zoom: Zoom) -> None:
    fill(zoom, 7)
    zoom.largest_page = 3
    assert [len(page) for page in zoom_pages(http, zoom, page_size="100")] == [3, 3, 1]


@pytest.mark.parametrize(
    ("paging", "change", "second_page", "total"),
    [
        # f5 … f0 are listed newest first in pages of two: the first page was f5, f4.
        ("offset/updated", "update", ["f4", "f3"], 6),  # f0 went to the front, unseen
        ("offset/updated", "delete", ["f2", "f1"], 5),
        ("offset/created", "update", ["f3", "f2"], 6),
        ("offset/created", "delete", ["f2", "f1"], 5),  # f3 moved up, unseen
        ("keyset", "update", ["f3", "f2"], 6),
        ("keyset", "delete", ["f3", "f2"], 5),
        ("snapshot", "update", ["f3", "f2"], 6),
        ("snapshot", "delete", ["f3", "f2"], 6),
    ],
)
def test_what_a_change_between_two_pages_does(
    http: httpx.Client,
    zoom: Zoom,
    token: str,
    paging: Paging,
    change: str,
    second_page: list[str],
    total: int,
) -> None:
    fill(zoom, 6)
    zoom.paging = paging
    page = zoom_get(http, zoom, token, page_size="2").json()
    assert [flow["flow_id"] for flow in page["flows"]] == ["f5", "f4"]
    if change == "update":
        zoom.flows.update("f0", flow_name="changed")
    else:
        zoom.flows.delete("f4")
    following = page["next_page_token"]
    page = zoom_get(http, zoom, token, page_size="2", next_page_token=following).json()
    assert [flow["flow_id"] for flow in page["flows"]] == second_page
    assert page["total_records"] == total


def test_a_page_token_lives_15_minutes(http: httpx.Client, zoom: Zoom, token: str) -> None:
    fill(zoom, 3)
    zoom.clock = Clock(frozen_at=zoom.clock())
    following = zoom_get(http, zoom, token, page_size="2").json()["next_page_token"]
    assert 0 < len(following) <= 100
    zoom.clock.advance(15 * 60 - 1)
    for _ in range(2):  # it may be used again, as a retry does
        page = zoom_get(http, zoom, token, page_size="2", next_page_token=following).json()
        assert [flow["flow_id"] for flow in page["flows"]] == ["f0"]
    zoom.clock.advance(1)
    answer = zoom_get(http, zoom, token, page_size="2", next_page_token=following)
    assert (answer.status_code, answer.json()) == (400, PAGE_TOKEN_REFUSED)


def test_a_page_token_needs_the_parameters_of_the_first_call(
    http: httpx.Client, zoom: Zoom, token: str
) -> None:
    for flow_id in fill(zoom, 3):
        zoom.flows.update_silently(flow_id, status="draft")
    first = {"page_size": "2", "status": "draft"}
    following = zoom_get(http, zoom, token, **first).json()["next_page_token"]
    for params in (
        {"page_size": "2"},
        {"status": "draft"},
        {**first, "page_size": "1"},
        {**first, "status": "published"},
        {**first, "channel": "voice"},
    ):
        answer = zoom_get(http, zoom, token, **params, next_page_token=following)
        assert (answer.status_code, answer.json()) == (400, PAGE_TOKEN_REFUSED), params
    assert zoom_get(http, zoom, token, **first, next_page_token=following).status_code == 200
    answer = zoom_get(http, zoom, token, **first, next_page_token="made-up")
    assert (answer.status_code, answer.json()) == (400, PAGE_TOKEN_REFUSED)


def test_rows_of_the_same_second_may_change_places(
    http: httpx.Client, zoom: Zoom, token: str
) -> None:
    for number in range(8):
        zoom.flows.add({"flow_id": f"f{number}", "last_modified_time": "2024-01-01T00:00:00Z"})
    zoom.paging = "offset/updated"

    def orders() -> int:
        pages = [zoom_get(http, zoom, token).json()["flows"] for _ in range(5)]
        return len({tuple(flow["flow_id"] for flow in page) for page in pages})

    assert orders() == 1
    zoom.ties = Random(1)
    assert orders() > 1


# -- one flow -------------------------------------------------------------------------------------


def test_one_flow_by_its_id(http: httpx.Client, zoom: Zoom, token: str) -> None:
    for flow_id in ("zwKiV80hQ7CwRg9BEm0Bvw", "-abc_-", "odd/id?x=1"):
        zoom.flows.add({**EXAMPLE, "flow_id": flow_id})
        quoted = flow_id.replace("/", "%2F").replace("?", "%3F")
        assert zoom_get(http, zoom, token, f"/{quoted}").json() == {**EXAMPLE, "flow_id": flow_id}
    answer = zoom_get(http, zoom, token, "/gone")
    assert refused(answer) == (404, 3201, "Flow does not exist: gone.")


def test_other_paths_and_methods(http: httpx.Client, zoom: Zoom, token: str) -> None:
    for method, path in (
        ("GET", "/contact_center/flows"),
        ("GET", "/v2/contact_center/flowers"),
        ("GET", "/v2/contact_center/flows/a/b"),
        ("DELETE", "/v2/contact_center/flows/a"),
        ("POST", "/v2/contact_center/flows"),
    ):
        bearer = {"Authorization": f"Bearer {token}"}
        answer = http.request(method, f"{zoom.url}{path}", headers=bearer)
        assert refused(answer) == (404, 2300, "This API endpoint is not recognized.")
        assert answer.headers["x-zm-trackingid"]


# -- changes, data, error answers -----------------------------------------------------------------


def test_a_change_is_stamped_unless_it_is_silent(zoom: Zoom) -> None:
    zoom.clock = Clock(frozen_at=1_700_000_000)
    flow_id = zoom.flows.add(EXAMPLE)
    zoom.flows.update_silently(flow_id, status="archived")
    assert zoom.flows.records() == [{**EXAMPLE, "status": "archived"}]
    zoom.flows.update(flow_id, flow_name="new")
    stamp = "2023-11-14T22:13:20Z"
    changed = {**EXAMPLE, "status": "archived", "flow_name": "new", "last_modified_time": stamp}
    assert zoom.flows.records() == [changed]
    zoom.flows.update(flow_id, last_modified_time="2020-01-01T00:00:00Z")
    assert zoom.flows.get(flow_id)["last_modified_time"] == "2020-01-01T00:00:00Z"


def test_generated_and_awkward_flows_are_what_the_list_returns(
    http: httpx.Client, zoom: Zoom, token: str
) -> None:
    flows = zoom_data.flows(Random(3), 40) + zoom_data.awkward_flows()
    for flow in flows:
        zoom.flows.add(flow)
    page = zoom_get(http, zoom, token, page_size="100").json()
    assert page["flows"][::-1] == flows
    assert zoom.flows.records() == flows


def test_error_answers_are_the_documents() -> None:
    def shape(response: Response) -> tuple[int, object, dict[str, str]]:
        special = {
            name: value
            for name, value in response.headers.items()
            if name.startswith("X-RateLimit") or name == "Retry-After"
        }
        return response.status, json.loads(response.body), special

    assert shape(errors.too_many_this_second()) == (
        429,
        {
            "code": 429,
            "message": "You have reached the maximum per-second rate limit for this API. "
            "Try again later.",
        },
        {
            "X-RateLimit-Category": "Medium",
            "X-RateLimit-Type": "QPS",
            "X-RateLimit-Limit": "10",
            "X-RateLimit-Remaining": "0",
        },
    )
    assert shape(errors.too_many_today("2026-11-21T00:00:00Z")) == (
        429,
        {
            "code": 429,
            "message": "You have reached the maximum daily rate limit for this API. Refer to the "
            "response header for details on when you can make another request.",
        },
        {
            "X-RateLimit-Category": "Heavy",
            "X-RateLimit-Type": "Daily-limit",
            "X-RateLimit-Limit": "15000",
            "X-RateLimit-Remaining": "0",
            "Retry-After": "2026-11-21T00:00:00Z",
        },
    )
    assert shape(errors.too_many_at_once())[0] == 429
    expired = {"code": 124, "message": "Access token is expired."}
    assert shape(errors.token_expired(400)) == (400, expired, {})
    assert shape(errors.page_token_refused()) == (400, PAGE_TOKEN_REFUSED, {})

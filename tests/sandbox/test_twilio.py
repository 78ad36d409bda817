"""The Twilio emulator against the OpenAPI document's examples and the error dictionary."""

import json
from random import Random
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from etl.sandbox import twilio as errors
from etl.sandbox import twilio_data
from etl.sandbox.exchange import Response
from etl.sandbox.server import Sandbox
from etl.sandbox.store import Paging
from etl.sandbox.twilio import Twilio
from etl.sandbox.wire import Clock
from tests.sandbox.clients import twilio_get, twilio_pages

# The OpenAPI document's example of a channel.
CHANNEL = {
    "sid": "CH" + "a" * 32,
    "url": "https://flex-api.twilio.com/v1/Channels/CH" + "a" * 32,
    "task_sid": "WT" + "a" * 32,
    "user_sid": "US" + "a" * 32,
    "account_sid": "AC" + "a" * 32,
    "date_created": "2016-08-01T22:10:40Z",
    "date_updated": "2016-08-01T22:10:40Z",
    "flex_flow_sid": "FO" + "a" * 32,
}


@pytest.fixture
def twilio(sandbox: Sandbox) -> Twilio:
    emulator: Twilio = sandbox.twilio
    return emulator


def fill(twilio: Twilio, count: int) -> list[str]:
    """Return channels CH0, CH1 … of which the last is the newest and the last changed."""
    return [
        twilio.channels.add({"sid": f"CH{n}", "date_updated": f"2024-01-01T00:{n:02}:00Z"})
        for n in range(count)
    ]


def refused(answer: httpx.Response) -> tuple[int, int, str]:
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["more_info"] == f"https://www.twilio.com/docs/errors/{body['code']}"
    return answer.status_code, body["code"], body["message"]


@pytest.mark.parametrize("path", ["Channels", "FlexFlows"])
def test_an_empty_list_is_the_documents_example(
    http: httpx.Client, twilio: Twilio, path: str
) -> None:
    key = {"Channels": "flex_chat_channels", "FlexFlows": "flex_flows"}[path]
    first = f"{twilio.url}/v1/{path}?PageSize=50&Page=0"
    assert twilio_get(http, twilio, path).json() == {
        "meta": {
            "key": key,
            "url": first,
            "page": 0,
            "page_size": 50,
            "next_page_url": None,
            "first_page_url": first,
            "previous_page_url": None,
        },
        key: [],
    }


def test_the_documents_example_of_a_channel(http: httpx.Client, twilio: Twilio) -> None:
    sid = twilio.channels.add(CHANNEL)
    assert twilio_get(http, twilio, "Channels").json()["flex_chat_channels"] == [CHANNEL]
    assert twilio_get(http, twilio, f"Channels/{sid}").json() == CHANNEL


# -- credentials ----------------------------------------------------------------------------------


def test_auth_token_and_api_key(http: httpx.Client, twilio: Twilio) -> None:
    url = f"{twilio.url}/v1/FlexFlows"
    account = (twilio.account_sid, twilio.auth_token)
    key = (twilio.api_key_sid, twilio.api_key_secret)
    assert http.get(url, auth=account).status_code == 200
    assert http.get(url, auth=key).status_code == 200
    for wrong in (
        (twilio.account_sid, twilio.api_key_secret),
        (twilio.api_key_sid, twilio.auth_token),
        (twilio.account_sid.lower(), twilio.auth_token),
    ):
        answer = http.get(url, auth=wrong)
        assert refused(answer) == (401, 20003, "Authenticate")
        assert answer.headers["www-authenticate"].startswith("Basic")
    assert refused(http.get(url))[:2] == (401, 20003)
    assert refused(http.get(url, headers={"Authorization": "Basic ###"}))[:2] == (401, 20003)
    twilio.api_key_may_read = set()
    assert refused(http.get(url, auth=key)) == (403, 70051, "Authorization Failed")
    assert http.get(url, auth=account).status_code == 200
    twilio.suspended = True
    assert refused(http.get(url, auth=account))[:2] == (403, 20403)


# -- paging ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("paging", ["offset/updated", "offset/created", "keyset", "snapshot"])
def test_a_quiet_list_is_paged_through_exactly_once(
    http: httpx.Client, twilio: Twilio, paging: Paging
) -> None:
    fill(twilio, 25)
    twilio.paging = paging
    pages = twilio_pages(http, twilio, "Channels", PageSize="10")
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [sid for page in pages for sid in page] == [f"CH{n}" for n in reversed(range(25))]


def test_keyset_paging_misses_no_row_that_exists_throughout(
    http: httpx.Client, twilio: Twilio
) -> None:
    fill(twilio, 6)
    page = twilio_get(http, twilio, "Channels", PageSize="2").json()
    twilio.channels.delete("CH4")
    twilio.channels.add({"sid": "CHnew"})
    auth = (twilio.account_sid, twilio.auth_token)
    page = http.get(page["meta"]["next_page_url"], auth=auth).json()
    assert [row["sid"] for row in page["flex_chat_channels"]] == ["CH3", "CH2"]


def test_the_urls_in_meta(http: httpx.Client, twilio: Twilio) -> None:
    for number in range(5):
        twilio.flex_flows.add({"sid": f"FO{number}", "friendly_name": "x y"})
    answer = twilio_get(http, twilio, "FlexFlows", FriendlyName="x y", PageSize="2")
    auth = (twilio.account_sid, twilio.auth_token)
    metas = [answer.json()["meta"]]
    while metas[-1]["next_page_url"]:
        metas.append(http.get(metas[-1]["next_page_url"], auth=auth).json()["meta"])
    assert [meta["page"] for meta in metas] == [0, 1, 2]
    first = f"{twilio.url}/v1/FlexFlows?FriendlyName=x+y&PageSize=2&Page=0"
    assert {meta["first_page_url"] for meta in metas} == {first}
    assert [meta["url"] for meta in metas] == [first, *(m["next_page_url"] for m in metas[:2])]
    assert [meta["previous_page_url"] for meta in metas] == [None, first, metas[1]["url"]]
    query = parse_qs(urlsplit(metas[1]["url"]).query)
    assert query.keys() == {"FriendlyName", "PageSize", "Page", "PageToken"}
    answer = http.get(metas[2]["previous_page_url"], auth=auth)
    assert [row["sid"] for row in answer.json()["flex_flows"]] == ["FO2", "FO1"]


def test_a_page_token_belongs_to_its_list(http: httpx.Client, twilio: Twilio) -> None:
    fill(twilio, 3)
    page = twilio_get(http, twilio, "Channels", PageSize="2").json()
    token = parse_qs(urlsplit(page["meta"]["next_page_url"]).query)["PageToken"][0]
    right = {"PageSize": "2", "Page": "1", "PageToken": token}
    assert twilio_get(http, twilio, "Channels", **right).status_code == 200
    assert twilio_get(http, twilio, "Channels", **right).status_code == 200
    for path, wrong in (
        ("Channels", {**right, "PageToken": "PTmadeup"}),
        ("Channels", {**right, "PageSize": "3"}),
        ("Channels", {**right, "Page": "2"}),
        ("Channels", {"PageSize": "2", "Page": "1"}),
        ("FlexFlows", right),
    ):
        answer = twilio_get(http, twilio, path, **wrong)
        assert refused(answer) == (400, 21481, "Invalid PageToken"), wrong


def test_fifty_rows_by_default_and_never_more_than_a_thousand(
    http: httpx.Client, twilio: Twilio
) -> None:
    twilio.channels.load((f"CH{n}", f'{{"sid":"CH{n}"}}'.encode(), "") for n in range(1100))
    for params, size in (({}, 50), ({"PageSize": "7"}, 7), ({"PageSize": "5000"}, 1000)):
        page = twilio_get(http, twilio, "Channels", **params).json()
        assert (page["meta"]["page_size"], len(page["flex_chat_channels"])) == (size, size)
        assert f"PageSize={size}&" in page["meta"]["next_page_url"]
    for params in ({"PageSize": "0"}, {"PageSize": "x"}, {"Page": "-1"}):
        assert twilio_get(http, twilio, "Channels", **params).status_code == 400
    twilio.refuses_large_pages = True
    assert twilio_get(http, twilio, "Channels", PageSize="1001").status_code == 400
    assert twilio_get(http, twilio, "Channels", PageSize="1000").status_code == 200


def test_pages_may_be_smaller_than_requested(http: httpx.Client, twilio: Twilio) -> None:
    fill(twilio, 7)
    twilio.largest_page = 3
    pages = twilio_pages(http, twilio, "Channels", PageSize="1000")
    assert [len(page) for page in pages] == [3, 3, 1]


def test_urls_may_name_another_host(http: httpx.Client, twilio: Twilio) -> None:
    fill(twilio, 3)
    twilio.public_base = "https://flex-api.example.com"
    meta = twilio_get(http, twilio, "Channels", PageSize="2").json()["meta"]
    for name in ("url", "first_page_url", "next_page_url"):
        assert meta[name].startswith("https://flex-api.example.com/v1/Channels?")
    twilio.public_base, twilio.next_base = None, "http://127.0.0.1:9"
    meta = twilio_get(http, twilio, "Channels", PageSize="2").json()["meta"]
    assert meta["next_page_url"].startswith("http://127.0.0.1:9/v1/Channels?")
    assert meta["url"].startswith(twilio.url)


# -- rows -----------------------------------------------------------------------------------------


def test_friendly_name_finds_whole_names_or_parts(http: httpx.Client, twilio: Twilio) -> None:
    for sid, name in (("FO1", "web"), ("FO2", "webchat"), ("FO3", None)):
        twilio.flex_flows.add({"sid": sid, "friendly_name": name})
    assert twilio_pages(http, twilio, "FlexFlows", FriendlyName="web") == [["FO1"]]
    twilio.matches_part = True
    assert twilio_pages(http, twilio, "FlexFlows", FriendlyName="web") == [["FO2", "FO1"]]
    assert twilio_pages(http, twilio, "FlexFlows", FriendlyName="") == [["FO3", "FO2", "FO1"]]


def test_an_unknown_row_or_path_is_not_found(http: httpx.Client, twilio: Twilio) -> None:
    sid = "FO" + "0" * 32
    text = "The requested resource /{} was not found"
    for path in (f"FlexFlows/{sid}", f"Channels/{sid}", "FlexFlowz", "FlexFlows/a/b"):
        answer = twilio_get(http, twilio, path)
        assert refused(answer) == (404, 20404, text.format(path))
    auth = (twilio.account_sid, twilio.auth_token)
    assert http.post(f"{twilio.url}/v1/FlexFlows", auth=auth).status_code == 404
    assert http.get(f"{twilio.url}/FlexFlows", auth=auth).status_code == 404


def test_a_change_is_stamped_in_the_chosen_form(twilio: Twilio) -> None:
    twilio.clock = Clock(frozen_at=1_700_000_000)
    sid = twilio.channels.add(CHANNEL)
    twilio.channels.update(sid, task_sid=None)
    stamp = "2023-11-14T22:13:20"
    assert twilio.channels.get(sid) == {**CHANNEL, "task_sid": None, "date_updated": f"{stamp}Z"}
    twilio.date_form = "+00:00"
    twilio.channels.update(sid)
    assert twilio.channels.get(sid)["date_updated"] == f"{stamp}+00:00"


def test_generated_and_awkward_rows_are_what_the_lists_return(
    http: httpx.Client, twilio: Twilio
) -> None:
    flows = twilio_data.flex_flows(Random(3), 40, twilio.account_sid)
    flows += twilio_data.awkward_flex_flows()
    for flow in flows:
        twilio.flex_flows.add(flow)
    twilio.channels.load(twilio_data.channels(Random(4), 60, twilio.account_sid, flows[:40]))
    for channel in twilio_data.awkward_channels():
        twilio.channels.add(channel)
    page = twilio_get(http, twilio, "FlexFlows", PageSize="1000").json()
    assert page["flex_flows"][::-1] == flows == twilio.records()["flex_flows"]
    page = twilio_get(http, twilio, "Channels", PageSize="1000").json()
    assert page["flex_chat_channels"][::-1] == twilio.records()["channels"]
    assert len(twilio.channels) == 65


def test_error_answers_are_the_documents() -> None:
    def shape(response: Response) -> tuple[int, int, str, str | None]:
        body = json.loads(response.body)
        assert body["status"] == response.status
        wait = response.headers.get("Retry-After")
        return response.status, body["code"], body["message"], wait

    assert shape(errors.too_many_requests()) == (429, 20429, "Too Many Requests", None)
    assert shape(errors.too_many_requests("1")) == (429, 20429, "Too Many Requests", "1")
    assert shape(errors.rate_limit_exceeded()) == (429, 45010, "Rate Limit Exceeded", None)
    assert shape(errors.unavailable()) == (503, 20503, "Service unavailable", None)

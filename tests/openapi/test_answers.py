"""Every answer of the emulators of Twilio and Zoom is one that the provider's document allows."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from etl.sandbox import twilio_numbers
from etl.sandbox.data import Sizes
from etl.sandbox.exchange import Request
from etl.sandbox.server import Sandbox, serve
from tests.openapi.document import DOCUMENTS, Document
from tests.providers.contract import RECORDED
from tests.sandbox.clients import zoom_token

TWILIO, ZOOM = DOCUMENTS["twilio"], DOCUMENTS["zoom"]
SIDS = {"FlexFlows": "FO", "Channels": "CH", "Flows": "FW", "Addresses": "IG"}
ACCOUNT = "AC" + "5" * 32
NUMBERS = twilio_numbers.path(ACCOUNT)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with serve(Sizes(120, 30), seed=11) as running:
        yield running


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield client


def twilio_answers(http: httpx.Client, twilio: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the path and body of each page of a list."""
    auth = (twilio.account_sid, twilio.auth_token)
    url: Any = f"{twilio.url}{path}?PageSize=7"
    while url:
        body = http.get(url, auth=auth).json()
        yield path, body
        following = body["meta"]["next_page_url"] if "meta" in body else body["next_page_uri"]
        url = following if following is None or "://" in following else twilio.url + following


@pytest.mark.parametrize(
    ("path", "key", "below"),
    [
        ("/v1/FlexFlows", "flex_flows", "/{sid}"),
        ("/v1/Channels", "flex_chat_channels", "/{sid}"),
        ("/v2/Flows", "flows", "/{sid}"),
        ("/v1/Configuration/Addresses", "address_configurations", "/{sid}"),
        (f"{NUMBERS}.json", "incoming_phone_numbers", "/{sid}.json"),
    ],
)
def test_twilios_lists_and_look_ups(
    http: httpx.Client, sandbox: Sandbox, path: str, key: str, below: str
) -> None:
    twilio = sandbox.twilio
    pages = list(twilio_answers(http, twilio, path))
    assert len(pages) > 3
    rows = [row for _, page in pages for row in page[key]]
    auth = (twilio.account_sid, twilio.auth_token)
    for row in rows[:20]:
        one = path.removesuffix(".json") + below.format(sid=row["sid"])
        pages.append((one, http.get(twilio.url + one, auth=auth).json()))
    assert [wrong for page in pages for wrong in TWILIO.wrong_in_answer(*page)] == []


def test_revisions_of_studio_flows(http: httpx.Client, sandbox: Sandbox) -> None:
    twilio = sandbox.twilio
    auth = (twilio.account_sid, twilio.auth_token)
    answers: list[tuple[str, Any]] = []
    for flow in twilio.records()["studio_flows"]:
        sid = flow["sid"]
        path = f"/v2/Flows/{sid}/Revisions"
        answers += twilio_answers(http, twilio, path)
        for which in ("1", "LatestRevision", "LatestPublished"):
            answer = http.get(f"{twilio.url}{path}/{which}", auth=auth)
            if answer.status_code == 200:
                answers.append((f"{path}/{which}", answer.json()))
    assert [wrong for each in answers for wrong in TWILIO.wrong_in_answer(*each)] == []
    assert len(answers) > 3 * len(twilio.studio_flows)


def test_zooms_lists_and_look_ups(http: httpx.Client, sandbox: Sandbox) -> None:
    zoom = sandbox.zoom
    headers = {"Authorization": f"Bearer {zoom_token(http, zoom)}"}
    flows, token = "/v2/contact_center/flows", ""
    answers: list[tuple[str, Any]] = []
    while token or not answers:
        query = {"page_size": "50", "next_page_token": token}
        answer = http.get(zoom.url + flows, params=query, headers=headers).json()
        answers.append((flows, answer))
        token = answer.get("next_page_token", "")
    for row in answers[0][1]["flows"][:20]:
        path = f"{flows}/{row['flow_id']}"
        answers.append((path, http.get(zoom.url + path, headers=headers).json()))
    assert [wrong for each in answers for wrong in ZOOM.wrong_in_answer(*each)] == []
    assert len(answers) == 3 + 20


@pytest.mark.parametrize(
    ("provider", "stream", "path"),
    [
        ("twilio", "flex_flows", "/v1/FlexFlows"),
        ("twilio", "channels", "/v1/Channels"),
        ("zoom", "flows", "/v2/contact_center/flows"),
    ],
)
def test_recorded_answers(provider: str, stream: str, path: str) -> None:
    recorded = json.loads((RECORDED / provider / f"{stream}.json").read_text(encoding="utf-8"))
    assert list(DOCUMENTS[provider].wrong_in_answer(path, recorded)) == []


# -- the judge itself -----------------------------------------------------------------------------


def wrong(document: Document, path: str, body: object, *place: Any, value: object) -> list[str]:
    """Return what is wrong with `body` once `value` is at that place."""
    changed: Any = copy.deepcopy(body)
    inside = changed
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = value
    return list(document.wrong_in_answer(path, changed))


def test_the_judge_sees_mistakes_in_answers(http: httpx.Client, sandbox: Sandbox) -> None:
    (_, page), *_ = twilio_answers(http, sandbox.twilio, f"{NUMBERS}.json")
    rows = ("incoming_phone_numbers", 0)
    path = f"{NUMBERS}.json"
    mistakes: tuple[tuple[str, object], ...] = (
        ("sid", "PN5"),
        ("voice_application_sid", "none"),
        ("capabilities", []),
        ("date_created", "2026-11-27T00:00:00Z"),
        ("status", 5),
        ("beta", "false"),
        ("address_requirements", "added later"),
        ("voice_method", "PUT"),
        ("added_later", 1),
    )
    for name, value in mistakes:
        assert wrong(TWILIO, path, page, *rows, name, value=value), name
    assert wrong(TWILIO, path, page, "meta", value={})
    assert wrong(TWILIO, path, page, *rows, value={})
    assert wrong(TWILIO, path, page, *rows, "voice_application_sid", value="") == []
    assert wrong(TWILIO, path, page, *rows, "trunk_sid", value=None) == []
    (_, page), *_ = twilio_answers(http, sandbox.twilio, "/v2/Flows")
    mistakes = (
        ("date_created", "Thu, 30 Jul 2015 23:19:04 +0000"),
        ("revision", None),
        ("author_sid", ""),  # the exception is for the API of 2010 alone
    )
    for name, value in mistakes:
        assert wrong(TWILIO, "/v2/Flows", page, "flows", 0, name, value=value), name
    assert list(TWILIO.wrong_in_answer("/v2/Flowz", page))


@pytest.mark.parametrize(
    "target",
    [
        "/v2/Flows?PageSize=1001",
        "/v2/Flows?PageSize=0",
        "/v2/Flows?PageSize=many",
        "/v2/Flows?Page=-1",
        "/v2/Flows?PageSize=5&PageSize=5",
        "/v2/Flows?Status=draft",
        "/v2/Flows/FW1/Executions",
        "/v1/Configuration/Addresses?PageSize=51",
        f"{NUMBERS}.json?Beta=maybe",
        f"{NUMBERS.replace(ACCOUNT, 'AC5')}.json",
    ],
)
def test_the_judge_sees_mistakes_in_requests(target: str) -> None:
    assert list(TWILIO.wrong_in_request(requested(target)))


def requested(target: str) -> Request:
    url = httpx.URL(f"http://x{target}")
    return Request("GET", target, url.path, list(url.params.multi_items()), {}, b"", at=0)


def test_the_judge_allows_what_is_documented() -> None:
    for target in (
        "/v2/Flows?PageSize=1000&Page=3&PageToken=PT1",
        f"/v2/Flows/FW{'1' * 32}/Revisions/LatestPublished",
        "/v1/Configuration/Addresses?PageSize=50&Type=sms",
        f"{NUMBERS}.json?Beta=true&PhoneNumber=%2B1",
    ):
        assert list(TWILIO.wrong_in_request(requested(target))) == []
    assert json.dumps(TWILIO.content).count("$ref") > 5

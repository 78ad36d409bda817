"""Studio flows of the Twilio emulator: lists without definitions, revisions, what is published."""

import json
from typing import Any

import httpx
import pytest

from etl.sandbox import twilio_studio, twilio_studio_data
from etl.sandbox.data import random_of
from etl.sandbox.server import Sandbox
from etl.sandbox.twilio import Twilio
from etl.sandbox.wire import Clock

FW = "FW" + "a" * 32
AC = "AC" + "a" * 32
STUDIO = "https://studio.twilio.com/v2/Flows"

# The OpenAPI document's example of a flow that is fetched.
FLOW = {
    "sid": FW,
    "account_sid": AC,
    "author_sid": "US" + "a" * 32,
    "friendly_name": "Test Flow",
    "definition": {"initial_state": "Trigger"},
    "status": "published",
    "revision": 1,
    "commit_message": "commit",
    "valid": True,
    "errors": [],
    "warnings": [],
    "webhook_url": f"http://webhooks.twilio.com/v1/Accounts/{AC}/Flows/{FW}",
    "date_created": "2017-11-06T12:00:00Z",
    "date_updated": None,
    "url": f"{STUDIO}/{FW}",
    "links": {
        "test_users": f"{STUDIO}/{FW}/TestUsers",
        "revisions": f"{STUDIO}/{FW}/Revisions",
        "executions": f"{STUDIO}/{FW}/Executions",
    },
}


@pytest.fixture
def twilio(sandbox: Sandbox) -> Twilio:
    emulator: Twilio = sandbox.twilio
    emulator.clock = Clock(frozen_at=1_700_000_000)
    return emulator


@pytest.fixture
def sid(twilio: Twilio) -> str:
    """Return the sid of a flow that has no revision yet."""
    return twilio.studio_flows.add(
        twilio_studio.flow(FW, twilio.account_sid, "Main", "2023-01-01T00:00:00Z")
    )


def got(http: httpx.Client, twilio: Twilio, path: str) -> Any:
    auth = (twilio.account_sid, twilio.auth_token)
    answer = http.get(f"{twilio.url}/v2/Flows{path}", auth=auth)
    return answer.json() if answer.status_code == 200 else (answer.status_code, answer.json())


def numbers(http: httpx.Client, twilio: Twilio, sid: str) -> list[tuple[int, str]]:
    found = got(http, twilio, f"/{sid}/Revisions")["revisions"]
    assert all(each["definition"] is None for each in found)
    return [(each["revision"], each["status"]) for each in found]


def test_the_documents_example(http: httpx.Client, twilio: Twilio) -> None:
    twilio.studio_flows.add(FLOW)
    assert got(http, twilio, f"/{FW}") == FLOW
    listed = {**FLOW, "definition": None}
    assert got(http, twilio, "")["flows"] == [listed]
    (revision,) = got(http, twilio, f"/{FW}/Revisions")["revisions"]
    shown = FLOW.keys() - {"webhook_url", "links", "warnings"}
    assert revision == {name: listed[name] for name in shown} | {
        "url": f"{STUDIO}/{FW}/Revisions/1"
    }
    for which in ("1", "LatestPublished", "LatestRevision"):
        found = got(http, twilio, f"/{FW}/Revisions/{which}")
        assert found == {**revision, "definition": FLOW["definition"]}
    twilio.brief_lists = True
    left_out = dict.fromkeys(("definition", "commit_message", "valid", "errors", "warnings"))
    assert got(http, twilio, "")["flows"] == [FLOW | left_out]


def test_a_list_of_flows_has_a_meta_and_pages(http: httpx.Client, twilio: Twilio) -> None:
    for number in range(5):
        twilio.studio_flows.add(twilio_studio.flow(f"FW{number}", AC, "x", "2023-01-01T00:00:00Z"))
        twilio.save_draft(f"FW{number}", {})
    twilio.largest_page = 2
    page = got(http, twilio, "")
    assert page["meta"]["key"] == "flows"
    assert page["meta"]["next_page_url"].startswith(f"{twilio.url}/v2/Flows?PageSize=2&Page=1&")
    sids = []
    while True:
        sids += [row["sid"] for row in page["flows"]]
        if page["meta"]["next_page_url"] is None:
            break
        auth = (twilio.account_sid, twilio.auth_token)
        page = http.get(page["meta"]["next_page_url"], auth=auth).json()
    assert sids == [f"FW{n}" for n in (4, 3, 2, 1, 0)]


def test_saving_makes_the_next_number_and_publishing_changes_the_status(
    http: httpx.Client, twilio: Twilio, sid: str
) -> None:
    twilio.save_draft(sid, {"n": 1}, author_sid="US1")
    assert got(http, twilio, f"/{sid}")["date_updated"] is None
    assert numbers(http, twilio, sid) == [(1, "draft")]
    status, body = got(http, twilio, f"/{sid}/Revisions/LatestPublished")
    assert (status, body["code"]) == (404, 20404)
    assert body["message"] == (
        f"The requested resource /Flows/{sid}/Revisions/LatestPublished was not found"
    )
    twilio.publish(sid)
    assert numbers(http, twilio, sid) == [(1, "published")]
    twilio.save_draft(sid, {"n": 2}, commit_message="more", friendly_name="Renamed")
    assert numbers(http, twilio, sid) == [(2, "draft"), (1, "published")]
    flow = got(http, twilio, f"/{sid}")
    assert (flow["revision"], flow["status"], flow["definition"]) == (2, "draft", {"n": 2})
    assert (flow["author_sid"], flow["commit_message"], flow["friendly_name"]) == (
        "US1",
        "more",
        "Renamed",
    )
    assert flow["date_updated"] == "2023-11-14T22:13:20Z"
    live = got(http, twilio, f"/{sid}/Revisions/LatestPublished")
    assert (live["revision"], live["definition"]) == (1, {"n": 1})
    assert got(http, twilio, f"/{sid}/Revisions/LatestRevision")["revision"] == 2


def test_a_draft_that_is_published_may_become_the_next_number(
    http: httpx.Client, twilio: Twilio, sid: str
) -> None:
    twilio.publishing_renumbers = True
    twilio.save_draft(sid, {"n": 1}, commit_message="first")
    twilio.publish(sid)
    twilio.publish(sid)  # it is published already
    assert numbers(http, twilio, sid) == [(2, "published"), (1, "draft")]
    live = got(http, twilio, f"/{sid}/Revisions/LatestPublished")
    assert (live["definition"], live["commit_message"]) == ({"n": 1}, "first")
    twilio.publish(sid, {"n": 3})
    assert numbers(http, twilio, sid)[0] == (3, "published")


def test_a_revision_never_changes_its_definition(
    http: httpx.Client, twilio: Twilio, sid: str
) -> None:
    seen: dict[int, Any] = {}
    for number in range(6):
        twilio.save_draft(sid, {"n": number})
        if number % 2:
            twilio.publishing_renumbers = number % 4 == 1
            twilio.publish(sid)
        for revision, _ in numbers(http, twilio, sid):
            found = got(http, twilio, f"/{sid}/Revisions/{revision}")
            assert seen.setdefault(revision, found["definition"]) == found["definition"]
    assert len(seen) > 6


def test_revisions_are_paged(http: httpx.Client, twilio: Twilio, sid: str) -> None:
    for number in range(5):
        twilio.save_draft(sid, {"n": number})
    auth = (twilio.account_sid, twilio.auth_token)
    url = f"{twilio.url}/v2/Flows/{sid}/Revisions?PageSize=2"
    pages = []
    while url:
        page = http.get(url, auth=auth).json()
        assert page["meta"]["key"] == "revisions"
        pages.append([each["revision"] for each in page["revisions"]])
        url = page["meta"]["next_page_url"]
    assert pages == [[5, 4], [3, 2], [1]]


def test_what_is_not_there(http: httpx.Client, twilio: Twilio, sid: str) -> None:
    twilio.publish(sid, {})
    assert got(http, twilio, f"/{sid}/Revisions/1")["revision"] == 1
    twilio.publish(sid, {}, valid=False)
    for path in (
        f"/{sid}/Revisions/3",
        f"/{sid}/Revisions/01",
        f"/{sid}/Revisions/1/x",
        f"/{sid}/Executions",
        "/FWgone",
        "/FWgone/Revisions",
        "/FWgone/Revisions/LatestPublished",
    ):
        status, body = got(http, twilio, path)
        assert (status, body["code"]) == (404, 20404)
    twilio.studio_flows.delete(sid)
    for path in (f"/{sid}", f"/{sid}/Revisions", f"/{sid}/Revisions/1"):
        assert got(http, twilio, path)[0] == 404


def test_records_are_what_the_look_ups_return(http: httpx.Client, twilio: Twilio) -> None:
    flows = twilio_studio_data.studio_flows(random_of(1, "studio"), 24, twilio.account_sid)
    for flow in [*flows, *twilio_studio_data.awkward_studio_flows()]:
        twilio.studio_flows.add(flow)
    twilio.studio_flows.add(5)  # no document allows it; the list shows it as it is
    assert 5 in got(http, twilio, "?PageSize=1000")["flows"]
    twilio.studio_flows.delete(twilio.studio_flows.keys()[-1])
    for record in twilio.records()["studio_flows"]:
        revisions = record.pop("revisions")
        assert got(http, twilio, f"/{record['sid']}") == record
        for revision in revisions:
            path = f"/{record['sid']}/Revisions/{revision['revision']}"
            assert got(http, twilio, path) == revision
        listed = got(http, twilio, f"/{record['sid']}/Revisions")["revisions"]
        assert listed == [{**each, "definition": None} for each in reversed(revisions)]


def test_a_stale_replica_shows_old_revisions(http: httpx.Client, twilio: Twilio, sid: str) -> None:
    twilio.publish(sid, {"n": 1})
    twilio.studio_flows.replica = twilio.studio_flows.image()
    twilio.publish(sid, {"n": 2})
    assert numbers(http, twilio, sid) == [(1, "published")]
    twilio.studio_flows.replica = None
    assert len(numbers(http, twilio, sid)) == 2


def test_the_demo_publishes_and_moves(twilio: Twilio) -> None:
    for flow in twilio_studio_data.studio_flows(random_of(1, "studio"), 2, twilio.account_sid):
        twilio.studio_flows.add(flow)
    first = twilio.studio_flows.keys()[0]
    before = twilio.records()["studio_flows"][0]["revisions"]
    assert twilio.change() == ["publishes a new revision of a Studio flow"]
    *old, new = twilio.records()["studio_flows"][0]["revisions"]
    assert old == before
    assert new["status"] == "published"
    assert len(new["definition"]["states"]) == len(old[-1]["definition"]["states"]) + 1
    twilio.studio_flows.add({**twilio.studio_flows.get(first), "revisions": []})
    twilio.publish(first, {"states": [{"transitions": [], "properties": {"offset": {"y": 1}}}]})
    twilio.change()  # a trigger that leads nowhere
    assert json.dumps(twilio.records()["studio_flows"][0]["definition"])

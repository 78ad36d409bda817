"""Studio flows as the sandbox shows them over a socket: list, revisions, definitions."""

from collections.abc import Callable
from typing import Any

import pytest

from etl.errors import ContractError, CredentialsError, MissingError
from etl.extract import twilio_studio
from etl.extract.page import Wanted
from etl.sandbox.exchange import Request, json_response
from etl.sandbox.faults import Fault, altered
from etl.sandbox.twilio import Twilio, not_found
from tests.extract.scripted import Script, connected
from tests.extract.sources import twilio_lists
from tests.providers.twilio.flows import CHANGED, HELLO, add, asked, recorded, sid


@pytest.fixture
def twilio() -> Twilio:
    return Twilio()


# --- requests ------------------------------------------------------------------------------------
@pytest.mark.parametrize("flows", [0, 1, 7])
def test_all_pages_are_read_to_the_end(twilio: Twilio, flows: int) -> None:
    twilio.largest_page = 3
    for number in range(flows):
        add(twilio, number, ("published", HELLO))
    with twilio_lists(twilio, of="studio_flows") as http:
        records = [row for page in twilio_studio.flows(http) for row in page.records]
    assert sorted(row["sid"] for row in records) == [sid(number) for number in range(flows)]
    assert all(row["definition"] is None for row in records)
    assert twilio.requests[0].params["PageSize"] == "1000"


def fetched(twilio: Twilio, number: int, *known: int, **listed: Any) -> dict[str, Any]:
    with twilio_lists(twilio, of="studio_flows") as http:
        twilio.requests.clear()
        return twilio_studio.revisions(http, Wanted((sid(number),), listed, known))


@pytest.mark.parametrize(
    ("statuses", "known", "requests", "live"),
    [
        (["draft"], (), ["1"], None),
        (["published"], (), ["LatestPublished"], 1),
        (["published", "draft"], (), ["2", "LatestPublished"], 1),
        (["published", "draft"], (1,), ["2"], 1),
        (["published", "draft"], (1, 2), [], 1),
        (["draft", "draft", "published", "published"], (2,), ["LatestPublished"], 4),
        (["published", "draft", "draft"], (2,), ["3", "LatestPublished"], 1),
    ],
)
def test_only_the_newest_and_the_live_definition_are_asked_for_and_each_once(
    twilio: Twilio, statuses: list[str], known: tuple[int, ...], requests: list[str], live: Any
) -> None:
    add(twilio, 1, *((status, HELLO) for status in statuses))
    record = fetched(twilio, 1, *known, revision=len(statuses), status=statuses[-1])
    assert asked(twilio) == [f"{sid(1)}/Revisions", *(f"{sid(1)}/Revisions/{r}" for r in requests)]
    assert (record["sid"], record["live_revision"]) == (sid(1), live)
    whole = {each["revision"] for each in record["revisions"] if each["definition"] is not None}
    assert whole == {len(statuses), live} - {None, *known}
    assert len(record["revisions"]) == len(statuses)


def test_revisions_are_read_page_by_page(twilio: Twilio) -> None:
    """All have the sid of their flow, which must not look like pages that repeat."""
    twilio.largest_page = 1
    add(twilio, 1, *[("published", HELLO)] * 45)
    assert len(fetched(twilio, 1)["revisions"]) == 45
    assert len(asked(twilio)) == 46


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v2/Flows/{sid}/Revisions?Page=1",
        "{base}/v2/Flows?Page=1",
        "{base}/v2/Flows/{other}/Revisions?Page=1",
        "{base}/v2/Flows/{sid}/Revisions/2",
    ],
)
def test_a_next_page_elsewhere_is_not_asked_for(twilio: Twilio, url: str) -> None:
    """Each list's next page has to lead to its own origin and path."""
    add(twilio, 1, ("published", HELLO))

    def mislead(body: dict[str, Any]) -> None:
        body["meta"]["next_page_url"] = url.format(base=twilio.url, sid=sid(1), other=sid(2))

    twilio.faults.append(Fault(f"/v2/Flows/{sid(1)}/Revisions", response=altered(mislead)))
    with pytest.raises(ContractError, match="the next page is"):
        fetched(twilio, 1)
    assert asked(twilio) == [f"{sid(1)}/Revisions"]


RACES: dict[str, Callable[[Twilio], None]] = {
    "another draft": lambda twilio: twilio.save_draft(sid(1), CHANGED),
    "republished": lambda twilio: twilio.publish(sid(1), CHANGED),
    "its draft published": lambda twilio: twilio.publish(sid(1)),
    "deleted": lambda twilio: twilio.studio_flows.delete(sid(1)),
}


def race(twilio: Twilio, name: str, before: str) -> None:
    """Let something happen to the flow just before the request of a path."""

    def change(_: Any, request: Request) -> None:
        RACES[name](twilio)

    twilio.faults.append(Fault(f"/v2/Flows/{sid(1)}/{before}", before_request=change))


@pytest.mark.parametrize("renumbers", [False, True])
@pytest.mark.parametrize("name", RACES)
@pytest.mark.parametrize("before", ["Revisions", "Revisions/2", "Revisions/LatestPublished"])
def test_a_flow_that_changes_while_it_is_read_is_refused_or_read_as_it_was(
    twilio: Twilio, before: str, name: str, renumbers: bool
) -> None:
    twilio.publishing_renumbers = renumbers
    add(twilio, 1, ("published", HELLO), ("draft", CHANGED))
    race(twilio, name, before)
    try:
        record = fetched(twilio, 1, revision=2, status="draft")
    except ContractError as error:
        assert str(error).count("nothing is deleted") == 1
    else:
        assert before != "Revisions"
        assert record["live_revision"] == 1
        inside = {each["revision"]: each["definition"] for each in record["revisions"]}
        assert inside == {1: HELLO, 2: CHANGED}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (not_found("/"), MissingError),
        (json_response(403, {"code": 70051, "message": "no", "status": 403}), CredentialsError),
        (json_response(200, {"meta": {"next_page_url": None}, "revisions": []}), ContractError),
        (json_response(200, {"meta": {"next_page_url": None}, "revisions": [7]}), ContractError),
    ],
)
def test_answers_without_revisions_are_errors(twilio: Twilio, answer: Any, kind: Any) -> None:
    add(twilio, 1, ("published", HELLO))
    twilio.faults.append(Fault("/v2/Flows/*/Revisions", response=answer))
    with pytest.raises(kind):
        fetched(twilio, 1)


@pytest.mark.parametrize(
    "changes",
    [{"revision": 7}, {"sid": sid(2)}, {"status": "draft"}, {"definition": None}],
    ids=["another number", "another flow", "another status", "no definition"],
)
def test_an_answer_that_is_not_the_revision_is_refused(
    twilio: Twilio, changes: dict[str, Any]
) -> None:
    add(twilio, 1, ("published", HELLO))

    def change(body: dict[str, Any]) -> None:
        body |= changes

    twilio.faults.append(Fault("/v2/Flows/*/LatestPublished", response=altered(change)))
    with pytest.raises(ContractError, match="nothing is deleted"):
        fetched(twilio, 1)


def test_a_flow_is_looked_up_by_its_sid(twilio: Twilio) -> None:
    add(twilio, 1, ("published", HELLO))
    with twilio_lists(twilio, of="studio_flows") as http:
        (listed,) = [row for page in twilio_studio.flows(http) for row in page.records]
        found = twilio_studio.look_up_flow(http, (sid(1),))
        assert (found.state, found.record) == ("found", listed)
        assert twilio_studio.look_up_flow(http, (sid(2),)).state == "gone"
        assert twilio_studio.probe_flows(http) == "readable, there are Studio flows"


def test_the_examples_of_the_document_are_read_as_they_stand() -> None:
    example = recorded("studio_exchanges")
    script = Script(example["list"], example["revisions"], example["flow"])
    (flow,) = example["list"]["flows"]
    for answer in (example["list"], example["revisions"]):
        answer["meta"]["next_page_url"] = None
    with connected(script) as http:
        (page,) = twilio_studio.flows(http)
        wanted = Wanted((flow["sid"],), {"revision": flow["revision"], "status": flow["status"]})
        record = twilio_studio.revisions(http, wanted)
    assert page.records == [flow]
    assert record["live_revision"] == 1
    assert record["revisions"][0]["definition"] == {"initial_state": "Trigger"}

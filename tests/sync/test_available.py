"""Lists that an account lacks, or that their provider has ended: states, and no failures."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from etl.load.runs import Run
from etl.providers.catalog import STREAMS
from etl.sandbox import twilio, twilio_data
from etl.sandbox.exchange import Request, Response, json_response
from etl.sandbox.faults import Fault, empty, html
from etl.sandbox.server import Sandbox
from etl.sync.selection import exit_code
from tests.postgres import ask
from tests.sync.conftest import Starter, Sync

FLOWS, CHANNELS = "twilio_demo.flex_flows", "twilio_demo.channels"
LIST, RECORD = "/v1/FlexFlows", "/v1/FlexFlows/*"
ACCOUNT = "AC" + 32 * "0"
READ = "read twilio.addresses and twilio.studio_flows instead"


def fill(sandbox: Sandbox) -> None:
    for record in twilio_data.awkward_flex_flows():
        sandbox.twilio.flex_flows.add(record)


def rows(url: str) -> Any:
    current = ask(url, "SELECT * FROM twilio.flex_flows ORDER BY sid")
    return current, ask(url, "SELECT * FROM twilio.flex_flows_history ORDER BY sid, valid_from")


def recorded(url: str) -> Any:
    return ask(url, "SELECT watermark, last_success_at, last_full_at, rows FROM etl.streams")


def answer(sandbox: Sandbox, response: Response, path: str = LIST, **how: Any) -> None:
    sandbox.twilio.faults[:] = [Fault(path=path, times=None, response=response, **how)]


def is_later(request: Request) -> bool:
    return "PageToken" in request.params


def state(run: Run) -> tuple[str, str | None]:
    return run.status, run.error_kind


ENDED = ("not_available", "ended")


# --- the announced end ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("response", "status"),
    [
        (twilio.not_found(LIST), 404),
        (twilio.error(403, 20403, "Forbidden"), 403),
        (twilio.error(410, 20410, "Gone"), 410),
        (html(410), 410),
    ],
)
def test_a_list_that_its_provider_ended_keeps_its_rows_and_comes_back_by_itself(
    response: Response, status: int, sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox)
    run = sync(sandbox)
    assert run(FLOWS).status == "complete"
    before = rows(warehouse), recorded(warehouse)
    answer(sandbox, response)
    for _ in range(2):
        result = run(FLOWS)
        assert state(result) == ENDED
        assert (result.requests, result.rows_written, exit_code([result])) == (1, 0, 0)
        said = f"{FLOWS}: the provider has ended this API (HTTP {status}: Twilio does not "
        assert str(result.error).startswith(said)
        assert f"its rows are kept as they were → {READ}" in str(result.error)
    assert (rows(warehouse), recorded(warehouse)) == before
    assert ask(warehouse, "SELECT last_status FROM etl.streams") == [("not_available",)]
    sandbox.twilio.faults.clear()
    assert state(run(FLOWS)) == ("complete", None)
    assert rows(warehouse) == before[0]


def test_a_list_may_have_ended_before_the_first_run(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    answer(sandbox, twilio.not_found(LIST))
    assert state(sync(sandbox)(FLOWS)) == ENDED
    assert recorded(warehouse) == [(None, None, None, 0)]


@pytest.mark.parametrize("refusal", [twilio.unavailable(), html(502), html(404), html(403)])
def test_what_may_be_an_outage_is_an_end_only_in_the_third_run_in_a_row(
    refusal: Response, sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    """A page of HTML may be a proxy's."""
    fill(sandbox)
    run = sync(sandbox)
    run(FLOWS)
    before = rows(warehouse)
    answer(sandbox, refusal)
    assert [run(FLOWS).status for _ in range(2)] == ["failed", "failed"]
    sandbox.twilio.faults.clear()
    assert run(FLOWS).status == "complete"
    answer(sandbox, refusal)
    assert [run(FLOWS).status for _ in range(2)] == ["failed", "failed"]
    for times in ("in 3 runs in a row", ""):
        result = run(FLOWS)
        assert state(result) == ENDED
        assert f"(HTTP {refusal.status}: " in str(result.error)
        assert times in str(result.error)
    assert rows(warehouse) == before
    sandbox.twilio.faults.clear()
    assert run(FLOWS).status == "complete"
    answer(sandbox, refusal)
    assert run(FLOWS).status == "failed"


@pytest.mark.parametrize(
    ("faulty", "kind"),
    [
        ({"response": twilio.unauthorized()}, "credentials"),
        ({"response": twilio.error(401, 70051, "Authorization Failed")}, "credentials"),
        ({"delivery": "reset_at_once"}, "unavailable"),
        ({"response": twilio.too_many_requests()}, "unavailable"),
        ({"response": Response(503, b"", {"Retry-After": "7200"})}, "unavailable"),
        ({"response": empty(200)}, "contract"),
        ({"response": html(200)}, "contract"),
        ({"response": json_response(200, {"code": 20404, "message": "x"})}, "contract"),
    ],
)
def test_any_other_trouble_stays_a_failure_however_often_it_comes(
    faulty: dict[str, Any], kind: str, sync: Starter, sandbox: Sandbox
) -> None:
    fill(sandbox)
    run = sync(sandbox)
    sandbox.twilio.faults.append(Fault(path=LIST, times=None, **faulty))
    assert [state(run(FLOWS)) for _ in range(4)] == [("failed", kind)] * 4


def test_a_later_page_that_is_refused_is_no_end(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    sandbox.twilio.largest_page = 2
    fill(sandbox)
    run = sync(sandbox)
    for response, kind in (
        (twilio.not_found(LIST), "contract"),
        (twilio.error(403, 20403, "Forbidden"), "credentials"),
        (html(410), "contract"),
    ):
        answer(sandbox, response, when=is_later)
        assert [state(run(FLOWS)) for _ in range(3)] == [("failed", kind)] * 3
    answer(sandbox, html(500), when=is_later)
    assert [state(run(FLOWS)) for _ in range(3)] == [("failed", "unavailable")] * 3


@pytest.mark.parametrize("name", [FLOWS, CHANNELS])
def test_an_empty_list_after_rows_is_an_end_and_deletes_only_when_asked_to(
    name: str, sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    flows = twilio_data.flex_flows(Random(1), 4, ACCOUNT, "Z")
    for flow in flows:
        sandbox.twilio.flex_flows.add(flow)
    sandbox.twilio.channels.load(twilio_data.channels(Random(1), 30, ACCOUNT, flows, "Z"))
    table = name.replace("twilio_demo", "twilio")
    run = sync(sandbox)
    assert run(name).status == "complete"
    before = ask(warehouse, f"SELECT * FROM {table} ORDER BY sid"), recorded(warehouse)
    store = getattr(sandbox.twilio, name.partition(".")[2])
    kept = store.records()
    store.clear()
    for _ in range(2):  # a full run, and one that would read only what is new
        result = run(name)
        assert state(result) == ENDED
        assert (result.deleted, result.rows_written, result.absent) == (0, 0, 0)
        assert "its list is empty, and was not before" in str(result.error)
        assert ("--accept-deletes" in str(result.error)) == (name == FLOWS)
        assert (
            ask(warehouse, f"SELECT * FROM {table} ORDER BY sid"),
            recorded(warehouse),
        ) == before
    for record in kept:
        store.add(record)
    assert run(name).status == "complete"
    store.clear()
    assert state(run(name)) == ENDED
    result = run(name, accept_deletes=True)
    assert (result.status, result.deleted) == ("complete", len(kept) if name == FLOWS else 0)
    left = 0 if name == FLOWS else len(kept)
    assert ask(warehouse, f"SELECT count(*) FROM {table}") == [(left,)]
    assert run(name).status == ("complete" if name == FLOWS else "not_available")


def test_an_empty_list_without_rows_before_is_complete(sync: Starter, sandbox: Sandbox) -> None:
    run = sync(sandbox)
    assert [run(FLOWS).status for _ in range(2)] == ["complete", "complete"]


def test_look_ups_that_are_refused_are_no_end(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox)
    run = sync(sandbox)
    run(FLOWS)
    sandbox.twilio.flex_flows.delete(sandbox.twilio.flex_flows.keys()[0])
    before = rows(warehouse)
    for response in (twilio.error(403, 20403, "no"), html(404), html(410)):
        answer(sandbox, response, RECORD)
        result = run(FLOWS)
        assert (state(result), result.deleted) == (("incomplete", "undecided"), 0)
    assert rows(warehouse) == before


# --- not available -------------------------------------------------------------------------------
@pytest.fixture
def optional(sync: Starter, sandbox: Sandbox) -> Sync:
    """Run the Flex Flows as if an account may lack them, and no end were announced."""
    stream = replace(STREAMS["twilio.flex_flows"], optional=True, ended="")
    run = sync(sandbox)
    return lambda **given: run(FLOWS, stream=stream, **given)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (twilio.not_found(LIST), "this account does not have flex flows (Twilio does not have it"),
        (
            twilio.error(403, 70051, "Authorization Failed"),
            "these credentials lack the permission to read flex flows (Twilio does not permit it:"
            " Authorization Failed)",
        ),
    ],
)
def test_a_list_that_the_account_lacks_is_not_available_until_it_answers(
    response: Response, words: str, optional: Sync, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox)
    answer(sandbox, response)
    for _ in range(2):
        result = optional()
        assert state(result) == ("not_available", "not_available")
        assert (result.requests, exit_code([result])) == (1, 0)
        assert str(result.error).startswith(f"{FLOWS}: {words}")
        assert "leave flex_flows out of the source's `streams`" in str(result.error)
        assert "readable until" not in str(result.error)
    assert recorded(warehouse) == [(None, None, None, 0)]
    sandbox.twilio.faults.clear()
    assert optional().status == "complete"
    before = rows(warehouse), recorded(warehouse)
    answer(sandbox, response)
    result = optional()
    assert state(result) == ("not_available", "not_available")
    until = before[1][0][1]
    assert f"; they were readable until {until:%Y-%m-%d %H:%M} UTC, and" in str(result.error)
    assert (rows(warehouse), recorded(warehouse)) == before
    sandbox.twilio.faults.clear()
    assert state(optional()) == ("complete", None)


@pytest.mark.parametrize(
    "response",
    [twilio.unauthorized(), html(404), html(403), empty(404), html(500), html(410),
     json_response(404, {"message": "no Route matched"}), json_response(403, {"message": "no"})],
)  # fmt: skip
def test_only_the_providers_own_refusal_says_that_a_list_is_not_available(
    response: Response, optional: Sync, sandbox: Sandbox
) -> None:
    answer(sandbox, response)
    assert [optional().status for _ in range(4)] == ["failed"] * 4


def test_a_list_that_must_be_there_fails_when_it_is_refused(
    sync: Starter, sandbox: Sandbox
) -> None:
    stream = replace(STREAMS["twilio.flex_flows"], ended="")
    run = sync(sandbox)
    for response, kind in (
        (twilio.not_found(LIST), "contract"),
        (twilio.error(403, 70051, "no"), "credentials"),
        (html(410), "contract"),
    ):
        answer(sandbox, response)
        assert state(run(FLOWS, stream=stream)) == ("failed", kind)
    sandbox.twilio.faults.clear()
    fill(sandbox)
    assert run(FLOWS, stream=stream).status == "complete"
    sandbox.twilio.flex_flows.clear()
    assert state(run(FLOWS, stream=stream)) == ("incomplete", "safety_stop")

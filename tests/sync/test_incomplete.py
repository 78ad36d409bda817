"""A run that cannot prove that it saw everything says so, and removes nothing."""

import itertools
import random
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from etl.errors import StoppedError
from etl.providers.catalog import STREAMS
from etl.sandbox import alibaba, alibaba_data, twilio, twilio_data, zoom
from etl.sandbox.exchange import Response, json_response
from etl.sandbox.faults import Fault, altered, html, redirect
from etl.sandbox.server import Sandbox
from etl.sandbox.wire import serving
from etl.sandbox.zoom import Zoom
from etl.sync.job import Reached
from tests.postgres import ask
from tests.sync.conftest import Starter

ZOOM = "zoom_demo.flows"


def flow(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "flow_id": f"flow-{number:04}",
        "flow_name": f"Flow {number}",
        "status": "published",
        "last_modified_time": f"2025-01-01T00:{number // 60 % 60:02}:{number % 60:02}Z",
        "flow_versions": [{"flow_version_id": "v1", "flow_version": 1}],
        "entry_points": [{"entry_id": "e1", "entry_number": "+12125550100"}],
        **changes,
    }


def fill(sandbox: Sandbox, count: int) -> None:
    for number in range(count):
        sandbox.zoom.flows.add(flow(number))


def count(url: str) -> int:
    return int(ask(url, "SELECT count(*) FROM zoom.flows")[0][0])


@pytest.mark.fault(17)
def test_unkeyable_records_are_kept_raw_once_and_nothing_is_removed(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 20)
    run = sync(sandbox)
    assert run(ZOOM).status == "complete"
    watermark = ask(warehouse, "SELECT watermark FROM etl.streams")
    sandbox.zoom.flows.delete("flow-0003")
    sandbox.zoom.flows.add(
        {"flow_name": "no id", "last_modified_time": "2026-01-01T00:00:00Z"}, key="a"
    )
    sandbox.zoom.flows.add("not an object", key="b")
    sandbox.zoom.flows.add(flow(900, entry_points=[{"entry_name": "no id"}, {"entry_id": "e"}]))

    first = run(ZOOM)
    second = run(ZOOM)

    assert (first.status, first.error_kind) == ("incomplete", "rejected_rows")
    assert (first.inserted, first.rejected, first.deleted) == (1, 3, 0)
    assert "etl.rejects" in str(first.error)
    assert count(warehouse) == 21  # the deleted one is still there, the new one too
    rejects = ask(warehouse, "SELECT run_id, payload, last_seen > first_seen FROM etl.rejects")
    assert {(row[0], row[2]) for row in rejects} == {(second.run_id, True)}
    assert sorted(str(row[1]) for row in rejects) == sorted(
        [
            str({"flow_name": "no id", "last_modified_time": "2026-01-01T00:00:00Z"}),
            "not an object",
            str({"entry_name": "no id"}),
        ]
    )
    assert ask(warehouse, "SELECT watermark FROM etl.streams") == watermark


def test_a_resumed_scan_says_why_a_record_was_rejected_before_it_was_killed(
    sync: Starter, full_sandbox: Sandbox
) -> None:

    def lose_key(answer: Any) -> None:
        del answer["flex_chat_channels"][0]["sid"]

    fault = Fault(path="/v1/Channels", nth=1, response=altered(lose_key))
    full_sandbox.twilio.faults.append(fault)
    run, stream = sync(full_sandbox), replace(STREAMS["twilio.channels"], batch=1)

    def end_at_the_last_page(reached: Reached) -> None:
        if reached.records > 2000:
            raise StoppedError("killed")

    name = "twilio_demo.channels"
    with pytest.raises(StoppedError):  # as slow as this clock shows, the list is staged
        run(name, stream=stream, clock=lambda: 0.0, on_progress=end_at_the_last_page)
    resumed = run(name, stream=stream)
    assert "goes on after page 2" in str(resumed.reason)
    assert (resumed.status, resumed.error_kind) == ("incomplete", "rejected_rows")
    assert "1 record could not be loaded (channel: sid is missing)" in str(resumed.error)


@pytest.mark.slow
def test_an_unreadable_child_does_not_remove_its_siblings(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    sandbox.zoom.flows.add(flow(1, entry_points=[{"entry_id": "a"}, {"entry_id": "b"}]))
    run = sync(sandbox)
    run(ZOOM)
    sandbox.zoom.flows.update("flow-0001", entry_points=[{"entry_id": "a"}, {"entry_name": "?"}])
    assert run(ZOOM).status == "incomplete"
    assert ask(warehouse, "SELECT entry_id FROM zoom.entry_points ORDER BY 1") == [("a",), ("b",)]
    sandbox.zoom.flows.update("flow-0001", entry_points=[{"entry_id": "a"}])
    assert run(ZOOM).status == "complete"
    assert ask(warehouse, "SELECT entry_id FROM zoom.entry_points ORDER BY 1") == [("a",)]


STOPPING: dict[str, tuple[Response | None, dict[str, Any], str]] = {
    "HTML": (html(200), {}, "contract"),
    "unavailable": (html(503), {}, "unavailable"),
    "truncated": (None, {"delivery": "truncated"}, "unavailable"),
    "reset": (None, {"delivery": "reset"}, "unavailable"),
    "close-delimited": (None, {"delivery": "close_delimited"}, "contract"),
    "redirect": (redirect("https://other.example/"), {}, "contract"),
    "scope": (zoom.missing_scope("contact_center:read:list_flows:admin"), {}, "credentials"),
    "today": (zoom.too_many_today("2026-11-21T00:00:00Z"), {}, "unavailable"),
}


@pytest.mark.parametrize("name", STOPPING)
@pytest.mark.fault(4, 7, 23, 24, 28, 29)
def test_a_scan_that_breaks_off_keeps_what_it_saw_and_removes_nothing(
    name: str, sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    response, how, kind = STOPPING[name]
    fill(sandbox, 250)
    run = sync(sandbox)
    assert run(ZOOM).status == "complete"
    before = ask(warehouse, "SELECT watermark, last_success_at FROM etl.streams")
    sandbox.zoom.flows.update("flow-0249", flow_name="renamed")
    sandbox.zoom.flows.delete("flow-0100")
    sandbox.zoom.paging = "offset/updated"  # the renamed one comes on the first page
    sandbox.zoom.faults.append(
        Fault(
            path="/v2/contact_center/flows", when=on_page_two, times=None, response=response, **how
        )
    )

    result = run(ZOOM)

    assert (result.status, result.error_kind) == ("failed", kind)
    assert "zoom_demo.flows" in str(result.error)
    assert (result.updated, result.deleted, result.watermark_after) == (1, 0, before[0][0])
    assert count(warehouse) == 250
    assert ask(warehouse, "SELECT watermark, last_success_at FROM etl.streams") == before

    sandbox.zoom.faults.clear()
    assert run(ZOOM).status == "complete"
    assert count(warehouse) == 249


def on_page_two(request: Any) -> bool:
    return "next_page_token" in request.params


@pytest.mark.fault(10)
def test_an_expired_page_token_starts_the_scan_over(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 250)
    sandbox.zoom.faults.append(Fault(when=on_page_two, nth=2, response=zoom.page_token_refused()))
    result = sync(sandbox)(ZOOM)
    assert (result.status, result.pages, count(warehouse)) == ("complete", 2 + 3 + 3, 250)

    sandbox.zoom.faults.append(
        Fault(when=on_page_two, times=None, response=zoom.page_token_refused())
    )
    result = sync(sandbox)(ZOOM)
    assert (result.status, result.error_kind, result.pages) == ("failed", "page_token", 1 + 3)


@pytest.mark.fault(14)
def test_a_list_that_moves_under_the_scan_is_scanned_again(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    """The list is newest first by offset, so updating an unread row moves it to a read page."""
    fill(sandbox, 250)
    sandbox.zoom.paging = "offset/updated"
    move = Fault(
        when=on_page_two,
        before_request=lambda emulator, request: emulator.flows.update("flow-0000", status="draft"),
    )
    sandbox.zoom.faults.append(move)
    result = sync(sandbox)(ZOOM)
    assert move.fired == 1
    assert (result.status, result.pages, count(warehouse)) == ("complete", 6, 250)


@pytest.mark.fault(19)
def test_a_list_that_never_adds_up_is_incomplete(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 250)
    run = sync(sandbox)
    run(ZOOM)
    sandbox.zoom.flows.delete("flow-0007")
    one_more = altered(lambda page: page.update(total_records=page["total_records"] + 1))
    sandbox.zoom.faults.append(
        Fault(path="/v2/contact_center/flows", times=None, response=one_more)
    )
    result = run(ZOOM)
    assert (result.status, result.error_kind, result.pages) == ("incomplete", "incomplete_scan", 9)
    assert "says that it has 250 rows, but 249 were returned, the same ones in each of 3" in str(
        result.error
    )
    assert "the provider's count does not fit its list" in str(result.error)
    assert "faster" not in str(result.error)
    assert (result.deleted, count(warehouse)) == (0, 250)


def test_a_list_without_its_count_is_incomplete(sync: Starter, sandbox: Sandbox) -> None:
    fill(sandbox, 250)
    no_count = altered(lambda page: page.pop("total_records"))
    sandbox.zoom.faults.append(
        Fault(path="/v2/contact_center/flows", times=None, response=no_count)
    )
    result = sync(sandbox)(ZOOM)
    assert (result.status, result.error_kind) == ("incomplete", "incomplete_scan")
    assert "does not say how many rows it has → nothing is removed" in str(result.error)


@pytest.mark.fault(14)
def test_a_scan_that_misses_a_row_is_not_taken_for_whole(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    """By offset, deleting a row on a read page shifts an unread row there; the count still fits."""
    fill(sandbox, 250)
    run = sync(sandbox)
    run(ZOOM)

    sandbox.zoom.flows.update("flow-0149", status="draft")
    sandbox.zoom.faults.append(
        Fault(
            when=on_page_two,
            before_request=lambda emulator, request: emulator.flows.delete("flow-0200"),
        )
    )
    result = run(ZOOM)
    assert (result.status, result.updated, result.deleted) == ("complete", 1, 1)
    assert result.pages == 3 + 3
    names = {row[0] for row in ask(warehouse, "SELECT flow_id FROM zoom.flows")}
    assert names == set(sandbox.zoom.flows.keys())


@pytest.mark.fault(18)
def test_a_list_of_one_page_that_repeats_a_row_is_complete(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 20)
    sandbox.zoom.flows.add(flow(5, flow_name="again"), key="again")
    result = sync(sandbox)(ZOOM)
    assert (result.status, count(warehouse)) == ("complete", 20)


@pytest.mark.fault(18)
def test_a_row_on_two_pages_may_hide_one_that_moved(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    """Every scan has the same rows twice: the list counts them twice, or misses others."""
    fill(sandbox, 120)
    sandbox.zoom.flows.add(flow(5, flow_name="again"), key="again")
    result = sync(sandbox)(ZOOM)
    assert (result.status, result.error_kind) == ("incomplete", "incomplete_scan")
    assert "has 121 rows, but 120 were returned, 1 of them twice" in str(result.error)
    assert count(warehouse) == 120


@pytest.mark.fault(9)
def test_suspiciously_many_missing_rows_are_not_removed(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 50)
    run = sync(sandbox)
    run(ZOOM)
    for number in range(11):
        sandbox.zoom.flows.delete(f"flow-{number:04}")

    result = run(ZOOM)
    assert (result.status, result.error_kind) == ("incomplete", "safety_stop")
    assert "11 of 50 flows of zoom_demo were not returned" in str(result.error)
    assert "callflow sync zoom_demo --full --accept-deletes" in str(result.error)
    assert count(warehouse) == 50

    result = run(ZOOM, accept_deletes=True)
    assert (result.status, result.deleted, count(warehouse)) == ("complete", 11, 39)


@pytest.mark.fault(9)
def test_an_empty_list_removes_nothing(sync: Starter, sandbox: Sandbox, warehouse: str) -> None:
    fill(sandbox, 3)
    run = sync(sandbox)
    run(ZOOM)
    sandbox.zoom.flows.clear()
    result = run(ZOOM)
    assert (result.status, result.error_kind, count(warehouse)) == ("incomplete", "safety_stop", 3)


@pytest.mark.fault(20)
def test_a_flow_that_exists_but_is_not_listed_is_kept_as_the_provider_gives_it(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 30)
    run = sync(sandbox)
    run(ZOOM)
    sandbox.zoom.lists_archived = False
    sandbox.zoom.flows.update("flow-0004", status="archived", entry_points=[])
    sandbox.zoom.flows.delete("flow-0005")
    result = run(ZOOM)
    assert (result.status, result.updated, result.deleted) == ("complete", 1, 1)
    query = "SELECT status FROM zoom.flows WHERE flow_id = 'flow-0004'"
    assert ask(warehouse, query) == [("archived",)]
    assert count(warehouse) == 29
    assert run(ZOOM).rows_written == 0


def test_a_flow_that_is_not_listed_and_cannot_be_loaded_whole_is_incomplete(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 30)
    run = sync(sandbox)
    run(ZOOM)
    sandbox.zoom.lists_archived = False
    odd = [{"entry_name": "no id"}, {"entry_id": "e1"}]
    sandbox.zoom.flows.update("flow-0004", status="archived", entry_points=odd)
    sandbox.zoom.flows.delete("flow-0005")
    for _ in range(2):
        result = run(ZOOM)
        assert (result.status, result.error_kind) == ("incomplete", "rejected_rows")
        assert "entry_id is missing" in str(result.error)
        assert (result.rejected, result.deleted, count(warehouse)) == (1, 0, 30)
    sandbox.zoom.flows.update("flow-0004", entry_points=odd[1:])
    assert (run(ZOOM).status, count(warehouse)) == ("complete", 29)


def test_a_twilio_flow_that_jumped_over_a_page_border_is_kept_as_it_is_now(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    """Twilio sends no count, so only the look-up of an unlisted flow decides whether it is gone."""
    for record in twilio_data.flex_flows(random.Random(1), 1200, "AC", "Z"):
        sandbox.twilio.flex_flows.add(record)
    run = sync(sandbox)
    assert run("twilio_demo.flex_flows").status == "complete"
    sandbox.twilio.paging = "offset/updated"
    sid, gone, *_ = sandbox.twilio.flex_flows.keys()
    sandbox.twilio.flex_flows.delete(gone)
    second = Fault(
        when=lambda request: "PageToken" in request.params,
        before_request=lambda emulator, request: emulator.flex_flows.update(sid, enabled=False),
    )
    sandbox.twilio.faults.append(second)
    result = run("twilio_demo.flex_flows")
    assert second.fired == 1
    assert (result.status, result.updated, result.deleted) == ("complete", 1, 1)
    query = f"SELECT enabled FROM twilio.flex_flows WHERE sid = '{sid}'"
    assert ask(warehouse, query) == [(False,)]


def test_without_the_right_to_read_one_flow_a_second_run_confirms(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 130)
    run = sync(sandbox)
    run(ZOOM)
    sandbox.zoom.scopes = {"contact_center:read:list_flows:admin"}
    sandbox.zoom.flows.delete("flow-0004")
    kept = sandbox.zoom.flows.get("flow-0005")
    sandbox.zoom.flows.delete("flow-0005")
    result = run(ZOOM)
    assert (result.status, result.deleted, result.absent) == ("complete", 0, 2)
    sandbox.zoom.flows.add(kept)  # it had only been away
    result = run(ZOOM)
    assert (result.status, result.deleted, result.absent) == ("complete", 1, 0)
    sandbox.zoom.flows.delete("flow-0005")
    result = run(ZOOM)
    assert (result.status, result.deleted, result.absent) == ("complete", 0, 1)
    assert ask(warehouse, "SELECT key FROM etl.absences") == [('["flow-0005"]',)]


def test_twilio_flows_stay_when_no_look_up_confirms_that_they_are_gone(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    for record in twilio_data.awkward_flex_flows():
        sandbox.twilio.flex_flows.add(record)
    run = sync(sandbox)
    run("twilio_demo.flex_flows")
    sid = sandbox.twilio.flex_flows.keys()[0]
    sandbox.twilio.flex_flows.delete(sid)
    sandbox.twilio.faults.append(
        Fault(path=f"/v1/FlexFlows/{sid}", times=None, response=twilio.error(403, 20403, "no"))
    )
    result = run("twilio_demo.flex_flows")
    assert (result.status, result.error_kind, result.deleted) == ("incomplete", "undecided", 0)
    problem, *advice = str(result.error).split(" → ")  # where status and the page divide it
    assert re.search(r": 1 record is no longer listed, .* \(.+\); nothing was removed$", problem)
    assert len(advice) == 1
    sandbox.twilio.faults.clear()
    result = run("twilio_demo.flex_flows")
    assert (result.status, result.deleted) == ("complete", 1)


@pytest.mark.fault(5)
def test_an_error_envelope_in_a_200_is_never_an_empty_list(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    for record in alibaba_data.awkward_flows("ccc-sandbox"):
        sandbox.alibaba.flows["ccc-sandbox"].add(record)
    run = sync(sandbox)
    before = run("alibaba_demo.contact_flows")
    sandbox.alibaba.faults.append(Fault(times=None, response=alibaba.not_ok()))
    result = run("alibaba_demo.contact_flows")
    assert result.status == "failed"
    stored = ask(warehouse, "SELECT count(*) FROM alibaba.contact_flows")
    assert stored == [(before.inserted,)]


@pytest.mark.fault(30)
def test_a_foreign_next_page_is_never_asked(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    foreign = Zoom()
    with serving(foreign) as elsewhere:
        for record in twilio_data.flex_flows(random.Random(1), 1200, "AC", "Z"):
            sandbox.twilio.flex_flows.add(record)
        sandbox.twilio.next_base = elsewhere
        result = sync(sandbox)("twilio_demo.flex_flows")
    assert (result.status, result.error_kind) == ("failed", "contract")
    assert not foreign.requests
    assert ask(warehouse, "SELECT count(*) FROM twilio.flex_flows") == [(1000,)]


@pytest.mark.fault(7)
def test_wrong_credentials_name_what_to_do_and_no_secret(sync: Starter, sandbox: Sandbox) -> None:
    run = sync(sandbox)
    sandbox.zoom.client_secret = "changed-meanwhile"
    result = run(ZOOM)
    assert (result.status, result.error_kind) == ("failed", "credentials")
    assert "client_secret" in str(result.error)
    assert "sandbox-zoom" not in str(result.error)


def test_when_the_provider_asks_to_wait_long_it_is_noted_until_a_run_is_good_again(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run = sync(sandbox)
    reset = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=7)
    sandbox.zoom.faults.append(
        Fault(
            path="/v2/contact_center/flows",
            times=None,
            response=zoom.too_many_today(reset.isoformat()),
        )
    )
    result = run(ZOOM)
    assert result.status == "failed"
    assert result.retry_at is not None
    assert abs(result.retry_at - reset) < timedelta(seconds=10)
    noted = "SELECT retry_at FROM etl.streams UNION ALL SELECT retry_at FROM etl.runs"
    assert ask(warehouse, noted) == [(result.retry_at,)] * 2
    sandbox.zoom.faults.clear()
    assert run(ZOOM).status == "complete"
    assert ask(warehouse, "SELECT retry_at FROM etl.streams") == [(None,)]


def test_requests_sent_again_and_the_time_slept_for_them_are_counted(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    slept: list[float] = []
    sandbox.zoom.faults.append(
        Fault(path="/v2/contact_center/flows", times=2, response=zoom.too_many_this_second())
    )
    sandbox.zoom.faults.append(Fault(path="/oauth/token", response=html(503)))
    result = sync(sandbox)(ZOOM, sleep=slept.append)
    assert (result.status, result.retries) == ("complete", 3)
    assert result.requests == len(sandbox.zoom.requests)
    assert result.throttled_seconds == pytest.approx(sum(slept), abs=0.01)
    assert result.throttled_seconds >= 2
    assert ask(warehouse, "SELECT retries, throttled_seconds FROM etl.runs") == [
        (3, result.throttled_seconds)
    ]


@pytest.mark.fault(61)
def test_two_runs_of_one_stream_never_overlap(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 150)
    run = sync(sandbox)
    inside: list[Any] = []
    sandbox.zoom.faults.append(
        Fault(
            when=on_page_two,
            before_request=lambda emulator, request: inside.append(
                run(ZOOM, holder="other:2:unknown")
            ),
        )
    )
    outer = run(ZOOM)
    assert [(r.status, r.error_kind) for r in inside] == [("busy", "busy")]
    assert "test:1:unknown" in str(inside[0].error)
    assert outer.status == "complete"
    assert ask(warehouse, "SELECT status FROM etl.runs ORDER BY status") == [
        ("busy",),
        ("complete",),
    ]
    assert ask(warehouse, "SELECT last_status FROM etl.streams") == [("complete",)]


@pytest.mark.slow
@pytest.mark.fault(11, 25)
def test_a_list_without_end_is_given_up(sync: Starter, sandbox: Sandbox, warehouse: str) -> None:
    """Every page has a new row and a next page."""
    rows = itertools.count()

    def another(request: Any, honest: Response) -> Response:
        number = next(rows)
        page = int(request.params.get("Page", 0))
        body = {
            "meta": {
                "key": "flex_chat_channels",
                "page": page,
                "next_page_url": f"{sandbox.twilio.url}/v1/Channels?Page={page + 1}&N={number}",
            },
            "flex_chat_channels": [
                {"sid": f"CH{number}", "date_updated": "2025-01-01T00:00:00Z"},
            ],
        }
        return json_response(200, body)

    sandbox.twilio.faults.append(Fault(path="/v1/Channels", times=None, response=another))
    run = sync(sandbox, scan_deadline=timedelta(seconds=1))
    for _ in range(2):
        result = run("twilio_demo.channels", sleep=time.sleep)
        assert (result.status, result.error_kind, result.deleted) == ("failed", "unavailable", 0)
        assert "not done within 1 s" in str(result.error)
        assert "raise the source's scan_deadline" in str(result.error)


@pytest.mark.fault(2, 4)
def test_a_provider_that_fails_every_second_time_is_left_alone(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 200)
    sandbox.zoom.largest_page = 4
    sandbox.zoom.faults.append(
        Fault(path="/v2/contact_center/flows", every=2, times=None, response=html(503))
    )
    result = sync(sandbox)(ZOOM)
    assert (result.status, result.error_kind) == ("failed", "unavailable")
    assert "requests of this run were repeated ones, so it gives up" in str(result.error)
    assert result.retries == 13
    assert 0 < count(warehouse) < 200
    sandbox.zoom.faults.clear()
    assert sync(sandbox)(ZOOM).status == "complete"
    assert count(warehouse) == 200

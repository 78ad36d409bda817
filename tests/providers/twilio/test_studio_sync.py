"""Runs of the stream of Studio flows, from the sandbox into a real warehouse."""

import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from etl.extract.http import Http
from etl.extract.page import Wanted
from etl.load.lease import process_name
from etl.sandbox.exchange import Request, json_response
from etl.sandbox.faults import Fault, altered
from etl.sandbox.twilio import Twilio, not_found
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.warehouse.connect import connect
from tests.postgres import ask
from tests.providers.twilio.conftest import Sync
from tests.providers.twilio.flows import (
    CHANGED,
    HELLO,
    add,
    asked,
    definition,
    recorded,
    sid,
    state,
)


def expected(twilio: Twilio, *unfetched: tuple[str, int]) -> dict[str, Any]:
    """Return what has to be stored, by the emulator's rows alone; some revisions are not whole."""
    rows: dict[str, Any] = {"flows": [], "revisions": [], "states": [], "links": [], "live": []}
    for flow in twilio.records()["studio_flows"]:
        key, revisions = flow["sid"], flow["revisions"]
        live = max((r["revision"] for r in revisions if r["status"] == "published"), default=None)
        rows["flows"].append((key, flow["friendly_name"], flow["status"], flow["revision"], live))
        for each in revisions:
            number, inside = each["revision"], each["definition"]
            whole = (key, number) not in unfetched
            text = json.dumps(inside, separators=(",", ":")) if whole else None
            rows["revisions"].append((key, number, each["status"], text))
            for index, one in enumerate(inside["states"] if whole else ()):
                own = (one["type"], one["name"] == inside["initial_state"], index)
                rows["states"].append((key, number, one["name"], *own))
                rows["live"] += [(key, one["name"], *own)] if number == live else []
                for position, link in enumerate(one["transitions"]):
                    row = (key, number, one["name"], position, link["event"], link["next"])
                    rows["links"].append(row)
    return {name: sorted(found) for name, found in rows.items()}


def stored(url: str) -> dict[str, Any]:
    """Return the same as the warehouse has it."""
    inside = "name, type, is_start, state_index"
    queries = {
        "flows": "SELECT sid, friendly_name, status, revision, live_revision FROM"
        " twilio.studio_flows",
        "revisions": "SELECT sid, revision, status, definition FROM twilio.studio_flow_revisions",
        "states": f"SELECT sid, revision, {inside} FROM twilio.studio_flow_states",
        "links": "SELECT sid, revision, name, position, event, next"
        " FROM twilio.studio_flow_transitions",
        "live": f"SELECT sid, {inside} FROM twilio.studio_live_states",
    }
    return {name: sorted(ask(url, query)) for name, query in queries.items()}


def test_flows_come_with_what_is_inside_and_cost_one_request_while_nothing_changes(
    sync: Sync, twilio: Twilio, url: str
) -> None:
    twilio.largest_page = 2
    add(twilio, 1, ("published", HELLO))
    add(twilio, 2, ("draft", HELLO))
    add(twilio, 3, ("published", HELLO), ("published", CHANGED), ("draft", HELLO))
    run = sync()
    assert (run.status, run.inserted, run.error) == ("complete", 3, None)
    assert stored(url) == expected(twilio, (sid(3), 1))
    asked(twilio)
    quiet = sync()
    assert (quiet.status, quiet.rows_written, quiet.unchanged) == ("complete", 0, 3)
    assert (quiet.requests, asked(twilio)) == (2, [])


def test_a_revision_s_definition_is_asked_for_once_in_its_life(
    sync: Sync, twilio: Twilio, url: str
) -> None:
    add(twilio, 1, ("published", HELLO))
    sync()
    later = {"date_updated": "2099-01-01T00:00:00Z"}  # not in the second of the change before
    changes: list[tuple[Callable[[], None], list[str]]] = [
        (lambda: twilio.save_draft(sid(1), CHANGED), ["/2"]),
        (lambda: twilio.publish(sid(1)), []),  # the draft keeps its number
        (lambda: twilio.publish(sid(1), HELLO), ["/LatestPublished"]),
        (lambda: twilio.studio_flows.update(sid(1), **later, friendly_name="Another"), []),
    ]
    for change, requests in changes:
        asked(twilio)
        change()
        run = sync()
        assert (run.status, run.updated, run.error) == ("complete", 1, None)
        root = f"{sid(1)}/Revisions"
        assert asked(twilio) == [root, *(root + each for each in requests)]
        assert stored(url) == expected(twilio)
    assert sync().rows_written == 0


def test_a_renamed_flow_is_renamed_even_where_its_fingerprint_is_the_same(
    sync: Sync, twilio: Twilio, url: str
) -> None:
    add(twilio, 1, ("published", HELLO))
    sync()
    asked(twilio)
    flow = twilio.studio_flows.get(sid(1))
    twilio.studio_flows.add({**flow, "friendly_name": "Another"})
    run = sync()
    assert (run.status, run.updated, asked(twilio)) == ("complete", 1, [])
    assert stored(url) == expected(twilio)


def test_a_flow_of_which_the_list_shows_no_fingerprint_is_read_in_every_run(
    sync: Sync, twilio: Twilio, url: str
) -> None:
    def leave_out(page: Any) -> None:
        for flow in page["flows"]:
            for member in ("revision", "status", "date_updated"):
                flow.pop(member)

    add(twilio, 1, ("published", HELLO))
    twilio.faults.append(Fault("/v2/Flows", response=altered(leave_out), times=None))
    sync()
    add(twilio, 1, ("published", HELLO), ("published", CHANGED))
    assert sync().status == "complete"
    assert ask(url, "SELECT live_revision FROM twilio.studio_flows") == [(2,)]


def test_what_leaves_a_flow_leaves_its_tables_for_the_history(
    sync: Sync, twilio: Twilio, url: str
) -> None:
    """Only the states of the live revision come and go with it; those of revisions stay."""
    add(twilio, 1, ("published", HELLO))
    add(twilio, 2, ("published", HELLO))
    sync()
    before = ask(
        url, "SELECT name, valid_from FROM twilio.studio_live_states WHERE sid = %s", sid(1)
    )
    twilio.publish(sid(1), definition(state("Trigger", "hello"), state("hello"), state("new")))
    twilio.studio_flows.delete(sid(2))
    run = sync()
    assert (run.status, run.updated, run.deleted) == ("complete", 1, 1)
    assert stored(url) == expected(twilio)
    after = ask(url, "SELECT name, valid_from FROM twilio.studio_live_states")
    assert set(before) & set(after) == {each for each in before if each[0] == "Trigger"}
    assert ask(url, "SELECT count(*) FROM twilio.studio_flow_states_history WHERE sid = %s"
               " AND NOT is_current", sid(2)) == [(2,)]  # fmt: skip


FAILURES = {
    "no revisions": ("Revisions", not_found("/")),
    "no such revision": ("Revisions/*", not_found("/")),
    "no rights": ("Revisions", json_response(403, {"code": 70051, "message": "no", "status": 403})),
    "an error": ("Revisions/*", json_response(400, {"code": 20001, "message": "no"})),
    "no revision at all": (
        "Revisions",
        json_response(200, {"meta": {"next_page_url": None}, "revisions": []}),
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_flow_that_cannot_be_read_keeps_its_rows_and_the_next_run_reads_it(
    sync: Sync, twilio: Twilio, url: str, name: str
) -> None:
    path, answer = FAILURES[name]
    add(twilio, 1, ("published", HELLO))
    add(twilio, 2, ("published", HELLO))
    sync()
    before = stored(url)
    twilio.publish(sid(1), CHANGED)
    fault = Fault(f"/v2/Flows/{sid(1)}/{path}", response=answer, times=None)
    twilio.faults.append(fault)
    run = sync()
    assert (run.status, run.error_kind) == ("incomplete", "incomplete_details")
    assert sid(1) in str(run.error)
    assert (run.rows_written, run.deleted) == (0, 0)
    assert stored(url) == before
    twilio.faults.remove(fault)
    assert (sync().status, sync().rows_written) == ("complete", 0)
    assert stored(url) == expected(twilio)


def without_number(answer: Any) -> None:
    answer["revisions"].append({"revision": None, "status": "published"})


def too_large(answer: Any) -> None:
    answer["definition"] = "[" + "{}," * 400_000 + "{}]"


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("Revisions", without_number, "revision is missing"),
        ("Revisions/*", too_large, "it holds too many values"),
    ],
)
def test_a_flow_of_which_a_part_cannot_be_loaded_is_incomplete_until_it_can(
    sync: Sync, twilio: Twilio, url: str, path: str, change: Callable[[Any], None], words: str
) -> None:
    """Else its next runs would find its fingerprint unchanged, and be complete."""
    add(twilio, 1, ("published", HELLO))
    add(twilio, 2, ("published", HELLO))
    sync()
    before = stored(url)
    twilio.publish(sid(1), CHANGED)
    fault = Fault(f"/v2/Flows/{sid(1)}/{path}", response=altered(change), times=None)
    twilio.faults.append(fault)
    for _ in range(2):
        run = sync()
        assert (run.status, run.error_kind) == ("incomplete", "incomplete_details")
        assert sid(1) in str(run.error) and words in str(run.error)
        assert "etl.rejects" in str(run.error)
        assert (run.rejected, run.rows_written, stored(url)) == (1, 0, before)
    [(reason,)] = ask(url, "SELECT reason FROM etl.rejects")
    assert words in reason
    twilio.faults.remove(fault)
    assert (sync().status, sync().rows_written) == ("complete", 0)
    assert stored(url) == expected(twilio)


@pytest.mark.parametrize("path", ["Revisions", "Revisions/*"])
@pytest.mark.parametrize("change", ["publish", "draft", "delete"])
def test_a_flow_that_changes_during_the_scan_is_right_after_the_next_run(
    sync: Sync, twilio: Twilio, url: str, path: str, change: str
) -> None:
    add(twilio, 1, ("published", HELLO))
    add(twilio, 2, ("published", HELLO))
    sync()
    twilio.save_draft(sid(1), CHANGED)

    def meanwhile(_: Any, request: Request) -> None:
        if change == "delete":
            twilio.studio_flows.delete(sid(1))
        else:
            twilio.publish(sid(1)) if change == "publish" else twilio.save_draft(sid(1), HELLO)

    twilio.faults.append(Fault(f"/v2/Flows/{sid(1)}/{path}", before_request=meanwhile))
    run = sync()
    assert run.status in ("complete", "incomplete")
    assert run.deleted == 0
    query = "SELECT live_revision, revision FROM twilio.studio_flows WHERE sid = %s"
    live = ask(url, query, sid(1))
    assert live == ([(1, 2)] if run.status == "complete" else [(1, 1)])
    assert sync().status == "complete"
    gaps = [(sid(1), 2)] if (change, run.status) == ("draft", "incomplete") else []
    assert stored(url) == expected(twilio, *gaps)


def killed(job: Job, url: str, request: int) -> None:
    """Run in a process that is killed when it asks for the details of that flow, from 1 on."""
    detail, numbers = job.stream.detail, itertools.count(1)
    assert detail is not None

    def fetch_or_die(http: Http, wanted: Wanted) -> Any:
        if next(numbers) == request:
            os.kill(os.getpid(), signal.SIGKILL)
        return detail.fetch(http, wanted)

    def run() -> None:
        stream = replace(job.stream, detail=replace(detail, fetch=fetch_or_die))
        run_stream(replace(job, engine=connect(url), holder=process_name(), stream=stream))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_killed_scan_of_details_keeps_what_it_fetched_with_all_that_is_inside(
    sync: Sync, job: Job, twilio: Twilio, url: str
) -> None:
    """Also what it left to be taken from the revisions that are stored."""
    for number in range(30):
        add(twilio, number, ("published", HELLO))
    assert sync().status == "complete"
    for number in range(30):
        twilio.save_draft(sid(number), CHANGED)
    before = stored(url)
    killed(job, url, 26)
    assert stored(url) == before
    asked(twilio)
    killed(job, url, 3)
    twilio.publish(sid(29))  # it was fetched, as the first one
    asked(twilio)
    run = sync()
    assert (run.status, run.updated, run.error) == ("complete", 30, None)
    again = {path.partition("/")[0] for path in asked(twilio)}
    assert len(again) <= 11
    assert stored(url) == expected(twilio)
    assert (sync().rows_written, asked(twilio)) == (0, [])


def test_a_flow_that_is_missing_from_the_list_and_there_is_read_all_the_same(
    sync: Sync, twilio: Twilio, url: str
) -> None:
    """Its look-up holds no revisions, which must not look like a flow that has none.

    Another flow, which is listed, is completed before it, and must not be completed twice.
    """
    for number in range(20):
        add(twilio, number, ("published", HELLO))
    sync()
    twilio.publish(sid(1), CHANGED)
    for number in (1, 2):
        twilio.publish(sid(number + 10), CHANGED)
        twilio.faults.append(Fault("/v2/Flows", response=without(sid(number)), times=1))
        run = sync()
        assert (run.status, run.deleted, run.error) == ("complete", 0, None)
        assert stored(url) == expected(twilio)
    assert sync().rows_written == 0


def without(missing: str) -> Any:
    def leave_out(body: dict[str, Any]) -> None:
        body["flows"] = [flow for flow in body["flows"] if flow["sid"] != missing]

    return altered(leave_out)


ODD = {
    "null states": {"initial_state": "Trigger", "states": None},
    "no states": {"initial_state": "Trigger"},
    "states are no list": {"states": {"Trigger": {}}},
    "a list": [],
    "a number": 5,
    "text": "Hello",
    "text of JSON": json.dumps(HELLO),
    "empty text": "",
    "deep": json.loads("[" * 300 + "]" * 300),
    "NUL and half a pair": definition(state("Trigger", description="\0 \ud800")),
    "the first version": {
        "flow_url": "https://example.com",
        "states": [{"name": "Trigger", "type": "InitialState", "flow_url": "x", "properties": 3}],
    },
}


@pytest.mark.parametrize("brief", [False, True])
def test_whatever_a_definition_is_its_flow_is_stored(
    sync: Sync, twilio: Twilio, url: str, brief: bool
) -> None:
    twilio.brief_lists = brief
    for number, inside in enumerate(ODD.values()):
        add(twilio, number, ("published", inside))
    run = sync()
    assert (run.status, run.inserted, run.rejected, run.error) == ("complete", len(ODD), 0, None)
    assert run.warnings > 0
    texts = dict(ask(url, "SELECT sid, definition FROM twilio.studio_flow_revisions"))
    for number, (name, inside) in enumerate(ODD.items()):
        text = texts[sid(number)]
        assert text == inside or json.loads(text) == inside, name
    assert sync().rows_written == 0


def test_the_recorded_definitions_load_as_they_stand(sync: Sync, twilio: Twilio, url: str) -> None:
    names = ("callback", "messaging", "schedule")
    for number, name in enumerate(names):
        add(twilio, number, ("published", recorded(f"studio_definition_{name}")["definition"]))
    run = sync()
    assert (run.status, run.warnings, run.rejected) == ("complete", 0, 0)
    counts = "SELECT sid, count(*) FROM twilio.studio_flow_states GROUP BY 1 ORDER BY 1"
    assert [count for _, count in ask(url, counts)] == [2, 7, 5]
    assert ask(url, "SELECT count(*) FROM twilio.studio_flow_states WHERE properties ? 'offset'"
               ) == [(0,)]  # fmt: skip
    findings = "SELECT sid, name, finding FROM twilio.studio_flow_findings ORDER BY 1, 2"
    assert ask(url, findings) == [
        (sid(1), "select_queue", "loop"), (sid(1), "send_welcome", "loop"),
    ]  # fmt: skip

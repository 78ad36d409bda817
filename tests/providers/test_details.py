"""A list that does not hold whole records: one request for each that is new or has changed."""

import itertools
import multiprocessing
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import Connection, select

from etl.extract.http import Http
from etl.extract.page import Page, Wanted
from etl.load import details, stage
from etl.load.lease import process_name
from etl.providers.declare import Detail
from etl.sandbox.exchange import Response, json_response
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.warehouse.connect import connect
from tests.providers.toy import Toy, expected, menu, rows, versions

MENU = "/menus/menu-{:02}"


def fetch(http: Http, wanted: Wanted) -> Any:
    return http.call("GET", f"/menus/{wanted.key[0]}", at="one menu")


@pytest.fixture
def detailed(toy: Toy, job: Job) -> Job:
    """Return the toy's stream, whose list has no options any more."""
    toy.lists_options = False
    detail = Detail(fetch, fingerprint=("title",))
    return replace(job, stream=replace(job.stream, detail=detail))


def asked(toy: Toy) -> list[str]:
    """Return the single menus that were asked for since the last call."""
    found = [each.path.removeprefix("/menus/") for each in toy.requests if each.path != "/menus"]
    toy.requests.clear()
    return found


def test_each_new_or_changed_record_is_asked_for_once(
    toy: Toy, detailed: Job, warehouse: str
) -> None:
    first = run_stream(detailed)
    assert (first.status, first.inserted, first.error) == ("complete", 10, None)
    assert rows(warehouse) == expected(toy)
    assert asked(toy) == [f"menu-{number:02}" for number in range(9, -1, -1)]

    quiet = run_stream(detailed)
    assert (quiet.status, quiet.rows_written, quiet.unchanged) == ("complete", 0, 10)
    assert asked(toy) == []

    toy.menus.update_silently("menu-03", title="At night", options=[{"digit": "1", "target": "x"}])
    toy.menus.add(menu(10))
    changed = run_stream(detailed)
    assert (changed.status, changed.updated, changed.inserted) == ("complete", 1, 1)
    assert sorted(asked(toy)) == ["menu-03", "menu-10"]
    assert rows(warehouse) == expected(toy)
    assert versions(warehouse, "target", "toy.options_history")[-1] == ("x", True)


def killed(job: Job, url: str, request: int, clock: Callable[[], float] = monotonic) -> None:
    """Run the stream in a process that is killed when it makes that request for a menu."""
    numbers = itertools.count(1)

    def fetch_or_die(http: Http, wanted: Wanted) -> Any:
        if next(numbers) == request:
            os.kill(os.getpid(), signal.SIGKILL)
        return fetch(http, wanted)

    def run() -> None:
        stream = replace(job.stream, detail=Detail(fetch_or_die, fingerprint=("title",)))
        own = replace(job, engine=connect(url), holder=process_name(), clock=clock)
        run_stream(replace(own, stream=stream))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_what_a_killed_run_fetched_is_not_asked_for_again(
    toy: Toy, detailed: Job, warehouse: str
) -> None:
    """Unless the list shows another fingerprint since, or does not show the record any more."""
    for number in range(10, 50):
        toy.menus.add(menu(number))
    killed(detailed, warehouse, 45)
    first = asked(toy)
    assert first == [f"menu-{number:02}" for number in range(49, 5, -1)]
    assert rows(warehouse)["menus"] == []

    toy.menus.update_silently("menu-40", title="At night", options=[{"digit": "1", "target": "x"}])
    toy.menus.delete("menu-41")
    killed(detailed, warehouse, 5)
    run = run_stream(detailed)
    assert (run.status, run.inserted, run.records) == ("complete", 49, 49), run.error
    assert asked(toy)[4:] == ["menu-40", *(f"menu-{number:02}" for number in range(9, -1, -1))]
    assert rows(warehouse) == expected(toy)
    assert run_stream(detailed).rows_written == 0
    assert asked(toy) == []


def test_what_was_fetched_counts_if_the_scan_that_counts_shows_it_the_same(job: Job) -> None:
    pairs = [stage.pair_of("s", table) for table in job.stream.tables]

    def staged(connection: Connection, ordinal: int, *menus: tuple[int, str]) -> None:
        page = Page([menu(number) | {"title": title} for number, title in menus], 1)
        found = job.stream.transform(page, ordinal)
        for pair in pairs:
            stage.copy(connection, pair.stage, found.tables[pair.current.fullname])

    with job.engine.begin() as connection:
        stage.prepare(connection, pairs)
        staged(connection, 0, (1, "only in the scan before"))
        staged(connection, 3, (2, "same"), (3, "before"), (3, "after"), (4, "after"))
        fetched = [(1, "only in the scan before"), (2, "same"), (3, "after"), (4, "before")]
        staged(connection, stage.FETCHED, *fetched, (5, "not listed"))
        details.drop_outdated(connection, pairs, ("title",), {"": 3}, None)
        for pair, rows_left in zip(pairs, (1, 2), strict=True):
            query = select(pair.stage.c.menu_id).where(pair.stage.c.ord >= stage.FETCHED)
            assert connection.scalars(query).all() == ["menu-02"] * rows_left


def test_a_slow_provider_s_answers_are_kept_one_by_one(
    toy: Toy, detailed: Job, warehouse: str
) -> None:
    steps = itertools.count(0, 2)
    killed(detailed, warehouse, 8, clock=lambda: float(next(steps)))
    assert len(asked(toy)) == 7
    assert run_stream(detailed).inserted == 10
    assert len(asked(toy)) <= 4  # the last answer may have been on its way
    assert rows(warehouse) == expected(toy)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (json_response(404, {"error": "no such menu"}), "HTTP 404|no such menu"),
        (json_response(400, {"error": "broken"}), "HTTP 400"),
        (json_response(403, {"error": "not yours"}), "HTTP 403"),
        (json_response(200, menu(9)), "another record"),
        (json_response(200, {"title": "no id"}), "another record"),
    ],
    ids=["not found", "an error", "no right", "another", "no key"],
)
def test_a_record_that_cannot_be_completed_keeps_its_row(
    toy: Toy, detailed: Job, warehouse: str, answer: Response, words: str
) -> None:
    run_stream(detailed)
    before = expected(toy)
    toy.menus.update_silently("menu-03", title="At night", options=[])
    toy.menus.delete("menu-05")
    toy.answers["menu-03"] = answer
    run = run_stream(detailed)
    assert (run.status, run.error_kind) == ("incomplete", "incomplete_details")
    assert re.search(f"1 of 1 new or changed records .*({words})", str(run.error)), run.error
    assert (run.deleted, run.updated, run.rows_written) == (0, 0, 0)
    assert rows(warehouse) == before

    del toy.answers["menu-03"]
    run = run_stream(detailed)
    assert (run.status, run.updated, run.deleted) == ("complete", 1, 1)
    assert rows(warehouse) == expected(toy)


def test_a_new_record_that_cannot_be_completed_comes_with_a_later_run(
    toy: Toy, detailed: Job, warehouse: str
) -> None:
    run_stream(detailed)
    before = expected(toy)
    toy.menus.add(menu(10))
    toy.menus.add(menu(11))
    toy.answers["menu-10"] = json_response(404, {})
    run = run_stream(detailed)
    assert (run.status, run.inserted) == ("incomplete", 1)
    assert [row for row in rows(warehouse)["menus"] if row not in before["menus"]] == [
        ("toy_test", "menu-11", "Menu 11", None)
    ]
    toy.answers.clear()
    assert run_stream(detailed).inserted == 1
    assert rows(warehouse) == expected(toy)


def test_a_refused_look_up_ends_the_look_ups(toy: Toy, detailed: Job, warehouse: str) -> None:
    toy.answers = {f"menu-{number:02}": json_response(401, {}) for number in range(10)}
    run = run_stream(detailed)
    assert (run.status, run.inserted) == ("incomplete", 0)
    assert len(asked(toy)) == 1
    assert rows(warehouse)["menus"] == []

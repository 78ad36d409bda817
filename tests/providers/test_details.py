"""A list that does not hold whole records: one request for each that is new or has changed."""

import re
from dataclasses import replace
from typing import Any

import pytest

from etl.extract.http import Http
from etl.providers.declare import Detail
from etl.sandbox.exchange import Response, json_response
from etl.sync.job import Job
from etl.sync.run import run_stream
from tests.providers.toy import Toy, expected, menu, rows, versions

MENU = "/menus/menu-{:02}"


def fetch(http: Http, key: tuple[str, ...]) -> Any:
    return http.call("GET", f"/menus/{key[0]}", at="one menu")


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

"""The toy provider syncs end to end, without any file of etl/ that names it."""

from etl.load.runs import Run
from etl.providers.declare import open_http, request
from etl.sync.job import Job
from etl.sync.run import run_stream
from tests.postgres import ask
from tests.providers.toy import Toy, expected, rows, versions


def test_the_toy_syncs_end_to_end(toy: Toy, job: Job, warehouse: str) -> None:
    first = run_stream(job)
    assert (first.status, first.error) == ("complete", None)
    assert (first.inserted, first.rows_written) == (10, 30)
    assert rows(warehouse) == expected(toy)

    quiet = run_stream(job)
    assert (quiet.status, quiet.rows_written) == ("complete", 0)

    toy.menus.update_silently("menu-03", title="At night", options=[{"digit": "1", "target": "x"}])
    changed = run_stream(job)
    assert (changed.status, changed.updated) == ("complete", 1)
    assert rows(warehouse) == expected(toy)
    assert versions(warehouse, "title", "toy.menus_history") == [
        ("Menu 3", False),
        ("At night", True),
    ]
    assert versions(warehouse, "target", "toy.options_history") == [
        ("queue-3-1", False),
        ("queue-3-2", False),
        ("x", True),
    ]

    toy.menus.delete("menu-05")
    toy.unlisted.add("menu-07")
    deleted = run_stream(job)
    looked_up = {r.path: r.status for r in toy.requests if r.path != "/menus"}
    assert looked_up == {"/menus/menu-05": 404, "/menus/menu-07": 200}
    assert (deleted.status, deleted.deleted) == ("complete", 1)
    assert rows(warehouse) == expected(toy)
    gone = "SELECT is_current, valid_to > valid_from FROM toy.{} WHERE menu_id = 'menu-05'"
    assert ask(warehouse, gone.format("menus_history")) == [(False, True)]
    assert ask(warehouse, gone.format("options_history")) == [(False, True)] * 2

    recorded = "SELECT mode, status, inserted, updated, deleted FROM etl.runs ORDER BY started_at"
    assert ask(warehouse, recorded) == [
        ("full", "complete", 10, 0, 0),
        ("full", "complete", 0, 0, 0),
        ("full", "complete", 0, 1, 0),
        ("full", "complete", 0, 0, 1),
    ]
    watermark = "SELECT source, stream, watermark, rows FROM etl.streams"
    assert ask(warehouse, watermark) == [("toy_test", "menus", None, 9)]


def test_wrong_credentials_are_reported_without_the_token(toy: Toy, job: Job) -> None:
    toy.token = "another"
    run: Run = run_stream(job)
    assert (run.status, run.error_kind) == ("failed", "credentials")
    assert "toy-token-of-this-test" not in str(run.error)


def test_its_probe_sends_one_request(toy: Toy, job: Job) -> None:
    with open_http(job.settings, job.stream) as http:
        assert job.stream.probe(http, request(job.settings, job.stream)) == "10 menus"
    assert len(toy.requests) == 1

"""The first load: straight into the table if the list is fast, otherwise staged."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from etl.config import load as config
from etl.load.runs import Run
from etl.sandbox.faults import Fault, altered
from etl.sandbox.server import Sandbox
from etl.sync.first_load import FAST, HELD
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import select
from tests.postgres import ask
from tests.sync import truth

Load = Callable[[dict[int, float]], Run]


@pytest.fixture
def load(engine: Engine, full_sandbox: Sandbox, tmp_path: Path) -> Load:
    """`load({page: seconds})` loads three pages of channels, some of which take that long."""
    path = tmp_path / "callflow.toml"
    path.write_text(full_sandbox.toml(), encoding="utf-8")
    path.chmod(0o600)
    ((source, stream),) = select(config.load(path, {}), ["twilio_demo.channels"])

    def run(slow: dict[int, float]) -> Run:
        now = pages = 0.0

        def on_page(records: int, total: int | None) -> None:
            nonlocal now, pages
            pages += 1
            now += slow.get(int(pages), 0.01)

        one_by_one = replace(stream, batch=1)
        job = Job(engine, one_by_one, source, "test:1:x", on_page=on_page, clock=lambda: now)
        return run_stream(job)

    return run


def check(run: Run, warehouse: str, sandbox: Sandbox) -> None:
    """Assert that the run is complete and each channel is in its first version."""
    assert (run.status, run.error) == ("complete", None)
    assert (run.inserted, run.rows_written) == (2300, 2300)
    table = "twilio.channels"
    assert truth.stored(warehouse)[table] == truth.of(sandbox)[table]
    assert ask(warehouse, "SELECT count(*) FROM history.twilio_channels") == [(0,)]


def test_a_quick_list_is_read_once(load: Load, full_sandbox: Sandbox, warehouse: str) -> None:
    run = load({})
    assert run.pages == 3
    check(run, warehouse, full_sandbox)


def test_a_list_whose_first_page_is_slow_is_staged_and_read_once(
    load: Load, full_sandbox: Sandbox, warehouse: str
) -> None:
    run = load({1: 2 / FAST})
    assert run.pages == 3
    check(run, warehouse, full_sandbox)


@pytest.mark.parametrize("page", [2, 3])
def test_nothing_is_read_again_because_a_later_page_is_slow(
    load: Load, full_sandbox: Sandbox, warehouse: str, page: int
) -> None:
    run = load({page: 3600})
    assert run.pages == 3
    check(run, warehouse, full_sandbox)


def test_a_record_that_comes_twice_is_loaded_once_by_way_of_staging(
    load: Load, full_sandbox: Sandbox, warehouse: str
) -> None:
    twice = next(iter(full_sandbox.twilio.channels.records()))
    full_sandbox.twilio.channels.add(dict(twice), key="again")
    run = load({})
    assert run.pages == 3 + 3
    check(run, warehouse, full_sandbox)


def test_rejects_are_kept_while_the_list_is_loaded(
    load: Load, full_sandbox: Sandbox, warehouse: str
) -> None:
    """Those of the second page, as many as are held, are written before the third is copied."""

    def lose_keys(page: Any) -> None:
        for record in page["flex_chat_channels"]:
            del record["sid"]

    second = Fault(path="/v1/Channels", nth=2, response=altered(lose_keys))
    full_sandbox.twilio.faults.append(second)
    run = load({})
    assert (run.status, run.error_kind, run.pages) == ("incomplete", "rejected_rows", 3)
    assert (run.inserted, run.rejected) == (1300, HELD)
    channels = "SELECT count(*), count(DISTINCT cmin::text) FROM twilio.channels"
    assert ask(warehouse, channels) == [(1300, 2)]
    assert ask(warehouse, "SELECT count(*) FROM etl.rejects") == [(HELD,)]

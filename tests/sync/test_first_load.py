"""The first load: straight into the table if the list is fast, otherwise staged."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from etl.config import load as config
from etl.load.runs import Run
from etl.sandbox.faults import Fault, altered
from etl.sandbox.server import Sandbox
from etl.sync.first_load import FAST, HELD
from etl.sync.job import Job, Reached
from etl.sync.run import run_stream
from etl.sync.scan import PART
from etl.sync.selection import select
from tests.postgres import ask
from tests.sync import truth

LATER = "2026-01-01T00:00:00Z"

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

        def on_page(reached: Reached) -> None:
            nonlocal now, pages
            pages += 1
            now += slow.get(int(pages), 0.01)

        one_by_one = replace(stream, batch=1)
        job = Job(engine, one_by_one, source, "test:1:x", on_progress=on_page, clock=lambda: now)
        return run_stream(job)

    return run


def check(run: Run, warehouse: str, sandbox: Sandbox) -> None:
    """Assert that the run is complete and each channel is in its first version."""
    assert (run.status, run.error) == ("complete", None)
    assert (run.inserted, run.rows_written) == (2300, 2300)
    table = "twilio.channels"
    assert truth.stored(warehouse)[table] == truth.of(sandbox)[table]
    assert ask(warehouse, "SELECT count(*) FROM history.twilio_channels") == [(0,)]


def was_staged(warehouse: str) -> bool:
    """Whether the rows were inserted in the order of their keys, which is not that of the list.

    Postgres puts a few small ones into room that was left behind.
    """
    keys = ask(warehouse, "SELECT sid FROM twilio.channels ORDER BY ctid")
    in_order = sum(one < next_one for one, next_one in pairwise(keys))
    return in_order > 0.9 * len(keys)


def test_a_fast_list_is_read_once(load: Load, full_sandbox: Sandbox, warehouse: str) -> None:
    run = load({})
    assert run.pages == 3
    check(run, warehouse, full_sandbox)
    assert not was_staged(warehouse)


def test_a_list_whose_first_page_is_slow_is_staged_and_read_once(
    load: Load, full_sandbox: Sandbox, warehouse: str
) -> None:
    run = load({1: 2 / FAST})
    assert run.pages == 3
    check(run, warehouse, full_sandbox)
    assert was_staged(warehouse)


def test_a_page_that_comes_in_parts_is_not_taken_for_the_end_of_the_list(
    load: Load, full_sandbox: Sandbox, warehouse: str
) -> None:
    def enlarge(page: Any) -> None:
        page["flex_chat_channels"][1] |= {"new": "\ud800" + "x" * PART}

    fault = Fault(path="/v1/Channels", nth=1, response=altered(enlarge))
    full_sandbox.twilio.faults.append(fault)
    run = load({1: 2 / FAST})
    assert (run.status, run.pages, run.inserted) == ("complete", 3, 2300)
    assert was_staged(warehouse)


@pytest.mark.parametrize("page", [2, 3])
def test_nothing_is_read_again_because_a_later_page_is_slow(
    load: Load, full_sandbox: Sandbox, warehouse: str, page: int
) -> None:
    run = load({page: 3600})
    assert run.pages == 3
    check(run, warehouse, full_sandbox)
    assert not was_staged(warehouse)


def test_a_record_that_comes_twice_is_loaded_once_by_way_of_staging(
    load: Load, full_sandbox: Sandbox, warehouse: str
) -> None:
    twice = next(iter(full_sandbox.twilio.channels.records()))
    full_sandbox.twilio.channels.add(dict(twice), key="again")
    run = load({})
    assert run.pages == 3 + 3
    check(run, warehouse, full_sandbox)
    assert was_staged(warehouse)


@pytest.mark.parametrize("again", [False, True])
def test_the_watermark_is_the_newest_time_that_is_kept(
    load: Load, full_sandbox: Sandbox, warehouse: str, again: bool
) -> None:
    """Also where the list starts with a record that comes again as its last one, which counts."""
    last, *_ = full_sandbox.twilio.channels.records()
    if again:
        full_sandbox.twilio.channels.add({**last, "date_updated": LATER}, key="again")
    run = load({})
    assert run.status == "complete"
    [(kept,)] = ask(warehouse, "SELECT max(date_updated) FROM twilio.channels")
    assert run.watermark_after == kept
    [(came_newest_first,)] = ask(warehouse, "SELECT newest_first FROM etl.streams")
    assert came_newest_first


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
    commands = "SELECT cmin::text::int AS number, count(*) FROM {} GROUP BY 1 ORDER BY 1"
    (first, one), (last, two) = ask(warehouse, commands.format("twilio.channels"))
    assert {one, two} == {1000, 300}
    written = ask(warehouse, commands.format("etl.rejects"))
    assert sum(count for _, count in written) == HELD
    assert all(first < number < last for number, _ in written)

"""What the daemon and its page read of the warehouse: the state of every stream, its last runs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from etl.config.redact import Redactor
from etl.errors import WarehouseError
from etl.load import runs
from etl.load.runs import Outcome, Run
from etl.status import queries
from etl.warehouse.connect import connect

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PLAIN = Redactor()


def prepare(raw: Any, _: Any) -> None:
    """Give sessions another time zone, which must not matter, and a limit that ends a deadlock."""
    raw.execute("SET TIME ZONE 'Asia/Tokyo'")
    raw.execute("SET statement_timeout = '25s'")
    raw.commit()


@pytest.fixture
def engine(warehouse: str) -> Iterator[Engine]:
    engine = connect(warehouse)
    event.listen(engine, "connect", prepare)
    try:
        yield engine
    finally:
        engine.dispose()


def record(engine: Engine, name: str, number: int, status: str = "complete", **more: object) -> Run:
    source, stream = name.split(".")
    started = NOON + number * MINUTE
    values: dict[str, Any] = {"status": status, **more}
    run = Run(f"{name}-{number}", source, stream, "full", started, **values)
    with engine.begin() as connection:
        return runs.finish(connection, run, Outcome(7) if status == "complete" else None)


# --- recorded ------------------------------------------------------------------------------------
def test_an_empty_warehouse_has_recorded_nothing(engine: Engine) -> None:
    with engine.connect() as connection:
        now, rows = queries.recorded(connection, PLAIN)
    assert rows == []
    assert now.tzinfo is UTC
    assert abs(now - datetime.now(UTC)) < MINUTE


def test_rows_come_in_the_order_of_the_names(engine: Engine) -> None:
    retry = NOON + timedelta(days=3)
    for name in ("b.flows", "a.flows", "b.channels"):
        record(engine, name, 1)
    record(engine, "a.flows", 2, "failed", error_kind="unavailable", error="no", retry_at=retry)
    with engine.connect() as connection:
        now, rows = queries.recorded(connection, PLAIN)
    assert [(row["source"], row["stream"]) for row in rows] == [
        ("a", "flows"), ("b", "channels"), ("b", "flows")
    ]  # fmt: skip
    first = rows[0]
    assert (first["last_status"], first["error"], first["retry_at"]) == ("failed", "no", retry)
    assert first["rows"] == 7
    assert first["last_success_at"] < first["last_attempt_at"] <= now
    assert first["told"] is None


# --- recent --------------------------------------------------------------------------------------
def test_the_last_runs_of_each_stream_come_newest_first(engine: Engine) -> None:
    numbers = [3, 1, 4, 0, 2]
    for number in numbers:
        record(engine, "a.flows", number)
        record(engine, "b.flows", 10 + number, "failed", error_kind="config", error="no")
    record(engine, "c.flows", 1)
    found = queries.recent(
        engine, [("b", "flows"), ("a", "flows"), ("never", "ran")], PLAIN, limit=3
    )
    assert {name: [run.run_id for run in each] for name, each in found.items()} == {
        ("b", "flows"): ["b.flows-14", "b.flows-13", "b.flows-12"],
        ("a", "flows"): ["a.flows-4", "a.flows-3", "a.flows-2"],
        ("never", "ran"): [],
    }


def test_a_run_comes_back_as_it_was_recorded(engine: Engine) -> None:
    run = record(
        engine, "a.flows", 1, "failed", error_kind="unavailable", error="no → wait", requests=3,
        retries=2, throttled_seconds=1.5, retry_at=NOON, watermark_before=NOON, reason="asked for",
    )  # fmt: skip
    ((found,),) = queries.recent(engine, [("a", "flows")], PLAIN).values()
    assert found == run
    for time in (found.started_at, found.finished_at, found.retry_at, found.watermark_before):
        assert time is not None
        assert time.tzinfo is UTC


def test_no_streams_have_no_runs(engine: Engine) -> None:
    record(engine, "a.flows", 1)
    assert queries.recent(engine, [], PLAIN) == {}


def test_names_are_data(engine: Engine) -> None:
    odd = ("a'; DROP TABLE etl.runs; --", '{"x"}')
    assert queries.recent(engine, [odd], PLAIN) == {odd: []}


def test_thirty_runs_are_returned_unless_a_limit_is_given(engine: Engine) -> None:
    for number in range(32):
        record(engine, "a.flows", number)
    ((found),) = queries.recent(engine, [("a", "flows")], PLAIN).values()
    assert [run.run_id for run in found] == [f"a.flows-{n}" for n in range(31, 1, -1)]


@pytest.mark.slow
def test_a_locked_table_does_not_block_the_page(engine: Engine) -> None:
    """Another session holds the table; the page reports that within seconds."""
    with engine.connect() as holder:
        holder.execute(text("LOCK TABLE etl.runs IN ACCESS EXCLUSIVE MODE"))
        started = monotonic()
        with pytest.raises(WarehouseError, match="statement timeout"):
            queries.recent(engine, [("a", "flows")], PLAIN)
        assert monotonic() - started < 20
        holder.rollback()
    assert queries.recent(engine, [("a", "flows")], PLAIN) == {("a", "flows"): []}


# --- the last runs of all ------------------------------------------------------------------------
def test_the_last_runs_of_several_streams_are_one_list(engine: Engine) -> None:
    for number in range(4):
        record(engine, "a.flows", 2 * number)
        record(engine, "b.flows", 2 * number + 1, "failed", error=f"key {number} canary-secret")
    record(engine, "c.flows", 9)
    streams = [("a", "flows"), ("b", "flows"), ("never", "run")]
    found = queries.last_runs(engine, streams, Redactor(["canary-secret"]), 3)
    assert [run.run_id for run in found] == ["b.flows-7", "a.flows-6", "b.flows-5"]
    assert found[0].error == "key 3 …"
    assert found[0].started_at == NOON + 7 * MINUTE
    assert found[0].started_at.tzinfo is UTC
    assert queries.last_runs(engine, [], PLAIN, 3) == []

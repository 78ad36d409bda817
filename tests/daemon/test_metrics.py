"""The metrics, as a reader of its text sees it: parsed by prometheus_client, promised by name."""

import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from etl.daemon.metrics import Metrics
from etl.load.runs import Run
from etl.status.health import Overview, State, StreamHealth

NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
HERE: dict[str, Any] = {"source": "zoom_eu", "stream": "flows"}
STREAM = {"source", "stream"}
NAMES: dict[str, tuple[str, set[str]]] = {
    "callflow_runs_total": ("counter", STREAM | {"mode", "status"}),
    "callflow_rows_total": ("counter", STREAM | {"kind"}),
    "callflow_requests_total": ("counter", STREAM),
    "callflow_retries_total": ("counter", STREAM),
    "callflow_throttled_seconds_total": ("counter", STREAM),
    "callflow_run_errors_total": ("counter", STREAM | {"kind"}),
    "callflow_run_duration_seconds_bucket": ("histogram", STREAM | {"le"}),
    "callflow_run_duration_seconds_sum": ("histogram", STREAM),
    "callflow_run_duration_seconds_count": ("histogram", STREAM),
    "callflow_runs_skipped_total": ("counter", {"source"}),
    "callflow_schedule_lag_seconds": ("gauge", {"source"}),
    "callflow_runs_hung_total": ("counter", STREAM),
    "callflow_last_success_timestamp_seconds": ("gauge", STREAM),
    "callflow_last_success_age_seconds": ("gauge", STREAM),
    "callflow_stale_after_seconds": ("gauge", STREAM),
    "callflow_stream_stale": ("gauge", STREAM),
    "callflow_stream_state": ("gauge", STREAM | {"state"}),
    "callflow_stream_rows": ("gauge", STREAM),
    "callflow_stream_throttled_until_timestamp_seconds": ("gauge", STREAM),
    "callflow_leader": ("gauge", set()),
    "callflow_database_up": ("gauge", set()),
    "callflow_ready": ("gauge", set()),
    "callflow_config_refused": ("gauge", set()),
    "callflow_clock_jumps_total": ("counter", set()),
    "callflow_alerts_total": ("counter", {"result"}),
    "callflow_build_info": ("gauge", {"version"}),
}


def new_metrics(version: str = "1") -> Metrics:
    return Metrics(version, CollectorRegistry())


def new_run(**values: Any) -> Run:
    given = {"status": "complete", "finished_at": NOON + timedelta(seconds=2)} | values
    named: dict[str, Any] = {**HERE, "mode": "full", "started_at": NOON} | given
    return Run("a" * 32, **named)


def new_stream(**values: Any) -> StreamHealth:
    named = {"source": "zoom_eu", "stream": "flows", "provider": "zoom", "state": "good"}
    return StreamHealth(**(named | {"stale": False} | values))


def overview(*streams: StreamHealth, **values: Any) -> Overview:
    return Overview(NOON, "1.2.3", streams=streams, **values)


def families(metrics: Metrics, seen: Overview) -> dict[str, Any]:
    text = metrics.render(seen).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def numbers(metrics: Metrics, seen: Overview, name: str) -> list[tuple[Mapping[str, str], float]]:
    found = families(metrics, seen).values()
    return [
        (sample.labels, sample.value)
        for family in found
        for sample in family.samples
        if sample.name == name
    ]


def number(metrics: Metrics, name: str, seen: Overview | None = None, **labels: str) -> float:
    (found,) = [
        value
        for its, value in numbers(metrics, seen or overview(), name)
        if labels.items() <= its.items()
    ]
    return found


def busy_daemon() -> tuple[Metrics, Overview]:
    """Return metrics and an overview with something in every metric."""
    metrics = new_metrics("1.2.3")
    metrics.run(new_run(error_kind="safety_stop", status="incomplete"))
    metrics.skipped("zoom_eu")
    metrics.lag("zoom_eu", 1.5)
    metrics.hung("zoom_eu", "flows")
    seen = new_stream(
        state="throttled", retry_at=NOON, last_success_at=NOON, age=5.0, stale_after=9.0, rows=3
    )
    return metrics, overview(seen)


def test_each_agreed_name_has_its_type_labels_and_words_and_there_is_no_other() -> None:
    metrics, seen = busy_daemon()
    found: dict[str, tuple[str, set[str]]] = {}
    for family in families(metrics, seen).values():
        assert len(family.documentation) > 10, family.name
        for sample in family.samples:
            if sample.name.startswith("callflow_"):
                kind = family.type
                assert found.setdefault(sample.name, (kind, set(sample.labels))) == (
                    kind,
                    set(sample.labels),
                )
    assert found == NAMES


def test_the_process_is_measured_in_a_separate_registry() -> None:
    metrics, seen = busy_daemon()
    found = families(metrics, seen)
    assert found["process_resident_memory_bytes"].samples[0].value > 1e6
    assert found["process_open_fds"].samples[0].value > 2
    assert "python_gc_collections" in found
    assert not any(family.name.startswith("callflow") for family in REGISTRY.collect())
    new_metrics("another one in the same process")


def test_runs_are_counted() -> None:
    metrics = new_metrics()
    run = new_run(
        inserted=1, updated=2, unchanged=3, deleted=4, rejected=5, requests=6, retries=2,
        throttled_seconds=1.5,
    )  # fmt: skip
    metrics.run(run)
    metrics.run(replace(run, status="failed", error_kind="credentials"))
    metrics.run(replace(run, stream="other", mode="incremental"))
    for status, count in (("complete", 1), ("failed", 1), ("incomplete", 0), ("busy", 0)):
        assert number(metrics, "callflow_runs_total", **HERE, mode="full", status=status) == count
    kinds = {
        its["kind"]: value
        for its, value in numbers(metrics, overview(), "callflow_rows_total")
        if its["stream"] == "flows"
    }
    assert kinds == {"inserted": 2, "updated": 4, "unchanged": 6, "deleted": 8, "rejected": 10}
    assert number(metrics, "callflow_requests_total", **HERE) == 12
    assert number(metrics, "callflow_retries_total", **HERE) == 4
    assert number(metrics, "callflow_throttled_seconds_total", **HERE) == 3.0
    errors = numbers(metrics, overview(), "callflow_run_errors_total")
    assert errors == [(HERE | {"kind": "credentials"}, 1.0)]


def test_a_busy_run_counts_as_a_run_and_changes_nothing() -> None:
    metrics = new_metrics()
    metrics.run(new_run(status="busy", error_kind="lease_lost", inserted=7, requests=3))
    assert number(metrics, "callflow_runs_total", status="busy") == 1
    assert number(metrics, "callflow_rows_total", kind="inserted") == 0
    assert number(metrics, "callflow_requests_total") == 3
    assert number(metrics, "callflow_run_errors_total", kind="lease_lost") == 1
    assert numbers(metrics, overview(), "callflow_run_duration_seconds_count") == []


def test_counters_of_a_stream_exist_before_the_first_count() -> None:
    metrics = new_metrics()
    metrics.run(new_run())
    assert number(metrics, "callflow_runs_hung_total", **HERE) == 0
    assert number(metrics, "callflow_runs_skipped_total", source="zoom_eu") == 0
    assert number(metrics, "callflow_rows_total", kind="deleted") == 0
    assert number(metrics, "callflow_alerts_total", result="failed") == 0
    assert number(metrics, "callflow_clock_jumps_total") == 0
    assert number(metrics, "callflow_config_refused") == 0


def test_the_durations_are_those_of_prometheus_clients_histogram() -> None:
    registry = CollectorRegistry()
    buckets = (0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900, 3600)
    theirs = Histogram("callflow_run_duration_seconds", "x", buckets=buckets, registry=registry)
    metrics = new_metrics()
    for took in (0.0, 0.1, 0.100001, 3.0, 59.9, 3600.0, 3601.0, 1e6):
        metrics.run(new_run(finished_at=NOON + timedelta(seconds=took)))
        theirs.observe(took)
    (expected,) = registry.collect()
    ours = families(metrics, overview())["callflow_run_duration_seconds"]
    assert {(s.name, s.labels.get("le")): s.value for s in ours.samples} == {
        (s.name, s.labels.get("le")): s.value
        for s in expected.samples
        if not s.name.endswith("_created")
    }


def test_a_run_that_ends_before_its_start_took_no_time_and_an_unfinished_one_has_none() -> None:
    metrics = new_metrics()
    metrics.run(new_run(finished_at=NOON - timedelta(hours=1)))
    assert number(metrics, "callflow_run_duration_seconds_sum") == 0
    assert number(metrics, "callflow_run_duration_seconds_bucket", le="0.1") == 1
    metrics.run(new_run(finished_at=None))
    assert number(metrics, "callflow_run_duration_seconds_count") == 1


def test_the_daemon_counts_its_own_events() -> None:
    metrics = new_metrics('1.2"3')
    for _ in range(2):
        metrics.skipped("a")
        metrics.hung("a", "flows")
        metrics.clock_jumped()
        metrics.alerted(sent=True)
    metrics.alerted(sent=False)
    metrics.lag("a", 5.0)
    metrics.lag("a", 2.5)
    metrics.config_refused(True)
    assert number(metrics, "callflow_runs_skipped_total", source="a") == 2
    assert number(metrics, "callflow_runs_hung_total", source="a", stream="flows") == 2
    assert number(metrics, "callflow_clock_jumps_total") == 2
    assert number(metrics, "callflow_alerts_total", result="sent") == 2
    assert number(metrics, "callflow_alerts_total", result="failed") == 1
    assert number(metrics, "callflow_schedule_lag_seconds", source="a") == 2.5
    assert number(metrics, "callflow_config_refused") == 1
    assert number(metrics, "callflow_build_info", version='1.2"3') == 1
    metrics.config_refused(False)
    assert number(metrics, "callflow_config_refused") == 0


def test_gauges_are_of_the_overview() -> None:
    metrics = new_metrics()
    good = new_stream(last_success_at=NOON, age=30.0, stale_after=60.0, rows=0)
    seen = overview(good, role="leader")
    assert number(metrics, "callflow_leader", seen) == 1
    assert number(metrics, "callflow_database_up", seen) == 1
    assert number(metrics, "callflow_ready", seen) == 1
    assert number(metrics, "callflow_last_success_timestamp_seconds", seen) == NOON.timestamp()
    assert number(metrics, "callflow_last_success_age_seconds", seen, **HERE) == 30
    assert number(metrics, "callflow_stale_after_seconds", seen) == 60
    assert number(metrics, "callflow_stream_stale", seen) == 0
    assert number(metrics, "callflow_stream_rows", seen) == 0
    down = overview(replace(good, stale=True), role="standby", database="no answer")
    assert number(metrics, "callflow_leader", down) == 0
    assert number(metrics, "callflow_database_up", down) == 0
    assert number(metrics, "callflow_ready", down) == 0
    assert number(metrics, "callflow_stream_stale", down) == 1


@pytest.mark.parametrize("state", get_args(State))
def test_a_stream_is_in_one_state(state: State) -> None:
    found = numbers(new_metrics(), overview(new_stream(state=state)), "callflow_stream_state")
    assert {its["state"]: value for its, value in found} == {
        name: float(name == state) for name in get_args(State)
    }


def test_numbers_that_are_not_known_are_left_out() -> None:
    metrics = new_metrics()
    never = overview(new_stream(state="never run", retry_at=NOON))
    for name in (
        "callflow_last_success_timestamp_seconds",
        "callflow_last_success_age_seconds",
        "callflow_stale_after_seconds",
        "callflow_stream_rows",
        "callflow_stream_throttled_until_timestamp_seconds",
    ):
        assert numbers(metrics, never, name) == [], name
    throttled = overview(new_stream(state="throttled", retry_at=NOON))
    until = "callflow_stream_throttled_until_timestamp_seconds"
    assert number(metrics, until, throttled) == NOON.timestamp()


def test_a_stream_that_left_the_overview_has_no_gauges() -> None:
    metrics = new_metrics()
    both = overview(new_stream(source="a"), new_stream(source="b"))
    assert b'source="b"' in metrics.render(both)
    assert b'source="b"' not in metrics.render(overview(new_stream(source="a")))


def test_streams_that_are_no_longer_configured_are_forgotten() -> None:
    metrics = new_metrics()
    for source in ("a", "b"):
        for stream in ("x", "y"):
            metrics.run(new_run(source=source, stream=stream, status="failed", error_kind="k"))
            metrics.hung(source, stream)
        metrics.lag(source, 1)
        metrics.skipped(source)
    metrics.forget([("a", "x")])
    kept = {
        (sample.labels["source"], sample.labels.get("stream", "x"))
        for family in families(metrics, overview()).values()
        for sample in family.samples
        if "source" in sample.labels
    }
    assert kept == {("a", "x")}
    assert number(metrics, "callflow_runs_total", source="a", status="failed") == 1
    assert number(metrics, "callflow_schedule_lag_seconds", source="a") == 1
    metrics.run(new_run(source="b"))
    assert number(metrics, "callflow_runs_total", source="b", status="complete") == 1


@example('\\n "quoted"\nand \\')
@given(st.text(st.characters(codec="utf-8")))
def test_any_text_is_a_label(text: str) -> None:
    metrics = new_metrics()
    metrics.run(new_run(error_kind=text, status="failed", requests=3))
    metrics.run(new_run(source="last"))
    errors = [
        line
        for line in metrics.render(overview()).decode().split("\n")
        if line.startswith("callflow_run_errors_total{")
    ]
    assert len(errors) == 1
    plain, rest = "", iter(errors[0].partition('kind="')[2])
    while (character := next(rest)) != '"':
        plain += {"n": "\n"}.get(c := next(rest), c) if character == "\\" else character
    assert plain == text
    assert "".join(rest) == ',source="zoom_eu",stream="flows"} 1.0'


def test_all_threads_are_counted_while_others_read_and_forget(seed: int) -> None:
    metrics = new_metrics()
    started = threading.Barrier(6)
    failed: list[Exception] = []

    def count(chance: random.Random) -> None:
        started.wait()
        for _ in range(300):
            metrics.run(new_run(requests=1))
            metrics.run(new_run(source=f"s{chance.randrange(50)}"))
            metrics.clock_jumped()

    def disturb() -> None:
        started.wait()
        try:
            for _ in range(50):
                metrics.render(overview())
                metrics.forget([("zoom_eu", "flows")])
        except RuntimeError as error:
            failed.append(error)

    threads = [
        *(threading.Thread(target=count, args=(random.Random(seed + n),)) for n in range(4)),
        *(threading.Thread(target=disturb) for _ in range(2)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert number(metrics, "callflow_requests_total", source="zoom_eu") == 1200
    assert number(metrics, "callflow_clock_jumps_total") == 1200


@pytest.mark.slow
def test_four_times_the_streams_are_rendered_in_four_times_the_time() -> None:
    def costs(count: int) -> Iterator[float]:
        metrics = new_metrics()
        streams = []
        for n in range(count):
            metrics.run(new_run(source=f"s{n}", error_kind="unavailable", status="failed"))
            streams.append(
                new_stream(source=f"s{n}", last_success_at=NOON, age=1.0, stale_after=2.0, rows=3)
            )
        seen = overview(*streams)
        for _ in range(3):
            started = time.process_time()
            text = metrics.render(seen)
            took = time.process_time() - started
            assert text.count(b"\ncallflow_") > count * 30
            yield took

    most = 8 * min(costs(500))  # 16 where it is the square
    assert any(cost < most for cost in costs(2000))  # the first one, unless something disturbs it

"""What Prometheus reads from the daemon, with prometheus_client.

Counters and histograms are of this process. Gauges of streams are computed from the current
`Overview` at each scrape, so a stream that left it leaves no stale series.

A scrape takes about a third of a millisecond of CPU for each stream.
"""

import threading
from collections.abc import Collection, Iterable
from functools import partial
from typing import TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from etl.load.runs import Run, Status
from etl.status.health import Overview, State, StreamHealth

Labelled = TypeVar("Labelled", Counter, Gauge, Histogram)
_Series = tuple[Counter | Gauge | Histogram, tuple[str, ...]]

_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
_ROWS = ("inserted", "updated", "unchanged", "deleted", "rejected")


class Metrics:
    """The numbers of one daemon, in `registry`. All methods may be called by any thread.

    Every series of a stream exists from the end of its first run, with 0 where nothing was counted,
    because Prometheus sees no increase in a series that is new. Only kinds of errors appear when
    they first happen.
    """

    def __init__(self, version: str, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._series: dict[
            tuple[str, ...], set[tuple[Counter | Gauge | Histogram, tuple[str, ...]]]
        ]
        self._series = {}
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        here = ("source", "stream")
        self._runs = counter("callflow_runs_total", "Runs that ended.", (*here, "mode", "status"))
        self._rows = counter(
            "callflow_rows_total", "Rows by what the runs did with them.", (*here, "kind")
        )
        self._requests = counter(
            "callflow_requests_total",
            "HTTP requests to the provider, retries and those for access tokens included.",
            here,
        )
        self._retries = counter(
            "callflow_retries_total", "Requests that were repeated after a failure.", here
        )
        self._throttled = counter(
            "callflow_throttled_seconds_total",
            "Seconds slept for pacing, for back-off, and because the provider asked to wait.",
            here,
        )
        self._errors = counter(
            "callflow_run_errors_total", "Runs with an error, by its kind.", (*here, "kind")
        )
        self._took = Histogram(
            "callflow_run_duration_seconds",
            "How long the runs took, except those that found their stream busy.",
            here,
            buckets=_BUCKETS,
            registry=registry,
        )
        self._hung = counter("callflow_runs_hung_total", "Runs that the watchdog gave up.", here)
        self._skipped = counter(
            "callflow_runs_skipped_total",
            "Planned runs that did not start because the previous one was still running.",
            ("source",),
        )
        self._lag = gauge(
            "callflow_schedule_lag_seconds",
            "How many seconds later than planned the last run started.",
            ("source",),
        )
        self._jumps = counter(
            "callflow_clock_jumps_total", "How often the clock of this machine was set by much."
        )
        self._refused = gauge(
            "callflow_config_refused", "1 if the configuration was refused when it was last read."
        )
        self._alerts = counter(
            "callflow_alerts_total", "Messages to the alert webhook, sent or failed.", ("result",)
        )
        for result in ("sent", "failed"):
            self._alerts.labels(result)
        build = gauge("callflow_build_info", "Always 1; the label is the version.", ("version",))
        build.labels(version).set(1)

    def run(self, run: Run) -> None:
        """Count a run that ended. A busy one touched no row and has no duration."""
        here, busy = (run.source, run.stream), run.status == "busy"
        with self._lock:
            for status in get_args(Status):
                self._of(here, self._runs, run.mode, status).inc(int(status == run.status))
            for kind in _ROWS:
                self._of(here, self._rows, kind).inc(0 if busy else getattr(run, kind))
            self._of(here, self._requests).inc(run.requests)
            self._of(here, self._retries).inc(run.retries)
            self._of(here, self._throttled).inc(run.throttled_seconds)
            self._of(here, self._hung)
            self._of((run.source,), self._skipped)
            if run.error_kind is not None:
                self._of(here, self._errors, run.error_kind).inc()
            if run.finished_at is not None and not busy:
                # It started by this machine's clock and ended by the database's.
                took = max(0.0, (run.finished_at - run.started_at).total_seconds())
                self._of(here, self._took).observe(took)

    def skipped(self, source: str) -> None:
        """Count a planned run that did not start because the previous one was still running."""
        with self._lock:
            self._of((source,), self._skipped).inc()

    def lag(self, source: str, seconds: float) -> None:
        """Set how many seconds later than planned a run of the source started."""
        with self._lock:
            self._of((source,), self._lag).set(seconds)

    def hung(self, source: str, stream: str) -> None:
        """Count a run that the watchdog gave up; its error counts when `run` is called with it."""
        with self._lock:
            self._of((source, stream), self._hung).inc()

    def clock_jumped(self) -> None:
        """Count a jump of this machine's clock."""
        self._jumps.inc()

    def config_refused(self, refused: bool) -> None:
        """Set whether the configuration was refused when it was last read."""
        self._refused.set(refused)

    def alerted(self, sent: bool) -> None:
        """Count a message to the webhook: sent, or failed."""
        self._alerts.labels("sent" if sent else "failed").inc()

    def forget(self, names: Collection[tuple[str, str]]) -> None:
        """Drop the series of all streams except `names`, (source, stream), and of other sources.

        A run that ends later brings the series of its stream back, until the next call.
        """
        kept = {*names, *((source,) for source, _ in names)}
        with self._lock:
            for owner in self._series.keys() - kept:
                for metric, labels in self._series.pop(owner):
                    metric.remove(*labels)

    def render(self, overview: Overview) -> bytes:
        """Return all metrics as /metrics answers them; gauges of streams out of `overview`."""
        return generate_latest(_Scrape(self._registry, overview))

    def _of(self, owner: tuple[str, ...], metric: Labelled, *more: str) -> Labelled:
        """Return the series of a stream or source, which `forget` can find; `_lock` is held."""
        labels = (*owner, *more)
        self._series.setdefault(owner, set()).add((metric, labels))
        return metric.labels(*labels)


class _Scrape(Collector):
    """Everything that one scrape reads."""

    def __init__(self, registry: CollectorRegistry, overview: Overview) -> None:
        self._registry = registry
        self._overview = overview

    def collect(self) -> Iterable[Metric]:
        """Yield what is counted, and the gauges of the overview.

        The time at which each series was created is left out: it would be two more lines each, and
        prometheus_client can switch it off for the whole process only.
        """
        for family in self._registry.collect():
            family.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield family
        yield from _gauges(self._overview)


_OF_STREAM = {
    "callflow_last_success_timestamp_seconds": "When the last complete run ended, in Unix time.",
    "callflow_last_success_age_seconds": "Seconds since the last complete run.",
    "callflow_stale_after_seconds": "The age of the last complete run that makes a stream stale.",
    "callflow_stream_stale": "1 if the last complete run is older than it may be.",
    "callflow_stream_rows": "Rows of the stream in the warehouse.",
    "callflow_stream_throttled_until_timestamp_seconds": (
        "Until when the provider asked not to be asked, in Unix time."
    ),
}


def _gauges(overview: Overview) -> Iterable[Metric]:
    for name, words, value in (
        ("callflow_leader", "1 if this daemon leads.", overview.role == "leader"),
        ("callflow_database_up", "1 if the warehouse answers, with the schema at head.",
         overview.database is None),
        ("callflow_ready", "1 if every stream is fresh, and the warehouse up.", overview.ready),
    ):  # fmt: skip
        yield GaugeMetricFamily(name, words, value=float(value))
    families = {
        name: GaugeMetricFamily(name, words, labels=("source", "stream"))
        for name, words in _OF_STREAM.items()
    }
    states = GaugeMetricFamily(
        "callflow_stream_state",
        "1 for the state that the stream is in, 0 for all others.",
        labels=("source", "stream", "state"),
    )
    for stream in overview.streams:
        here = (stream.source, stream.stream)
        for name, number in _numbers(stream).items():
            if number is not None:
                families[name].add_metric(here, float(number))
        for state in get_args(State):
            states.add_metric((*here, state), float(state == stream.state))
    yield from families.values()
    yield states


def _numbers(stream: StreamHealth) -> dict[str, float | None]:
    success = stream.last_success_at
    until = stream.retry_at if stream.state == "throttled" else None
    return {
        "callflow_last_success_timestamp_seconds": success.timestamp() if success else None,
        "callflow_last_success_age_seconds": stream.age,
        "callflow_stale_after_seconds": stream.stale_after,
        "callflow_stream_stale": stream.stale,
        "callflow_stream_rows": stream.rows,
        "callflow_stream_throttled_until_timestamp_seconds": until.timestamp() if until else None,
    }

"""What Prometheus reads from the daemon.

Counters and histograms are of this process; gauges are told by the `Overview` of the moment, so
that a stream which left it leaves no series behind. The format is Prometheus's docs, "Exposition
formats", text-based format.

The series of streams are kept and written here, as prometheus_client takes ten times as long: for
thousands of streams that is seconds at every scrape, in which no run goes on.
"""

import threading
from collections.abc import Collection, Iterable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from etl.load.runs import Run, Status
from etl.status.health import Overview, State, StreamHealth

_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
_ROWS = ("inserted", "updated", "unchanged", "deleted", "rejected")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class _Series:
    """The numbers of one metric by the values of its labels; `words` say what it is."""

    def __init__(self, name: str, words: str, *labels: str, kind: str = "counter") -> None:
        self.name = name
        self.head = _head(name, kind, words) if words else ""
        self._labels = labels
        self._values: dict[tuple[str, ...], float] = {}
        self._texts: dict[tuple[str, ...], str] = {}

    def add(self, amount: float, *values: str) -> None:
        """Add `amount` to the series, which begins with 0."""
        self.set(self._values.get(values, 0.0) + amount, *values)

    def set(self, value: float, *values: str) -> None:
        """Make `value` the series' number."""
        self._values[values] = float(value)
        if values not in self._texts:
            self._texts[values] = _labelled(zip(self._labels, values, strict=True))

    def keep(self, names: Collection[tuple[str, ...]], labels: int) -> None:
        """Drop all series whose first `labels` values are not in `names`."""
        for values in [values for values in self._values if values[:labels] not in names]:
            del self._values[values], self._texts[values]

    def render(self) -> str:
        texts, name = self._texts, self.name
        lines = [f"{name}{texts[values]} {value!r}\n" for values, value in self._values.items()]
        return self.head + "".join(lines)


class Metrics:
    """The numbers of one daemon. All methods may be called by any thread.

    What a stream can count begins with 0 when its first run ended, because Prometheus sees no
    increase in a series that is new. Only kinds of errors are there when they happen.
    """

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry()  # not the one that all of the process shares
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._lock = threading.Lock()
        here = ("source", "stream")
        self._runs = _Series("callflow_runs_total", "Runs that ended.", *here, "mode", "status")
        self._rows = _Series(
            "callflow_rows_total", "Rows by what the runs did with them.", *here, "kind"
        )
        self._requests = _Series(
            "callflow_requests_total",
            "HTTP requests for lists and records, retries included; not those for access tokens.",
            *here,
        )
        self._retries = _Series(
            "callflow_retries_total", "Requests that were made again after a failure.", *here
        )
        self._throttled = _Series(
            "callflow_throttled_seconds_total",
            "Seconds slept for pacing, for back-off, and because the provider asked to wait.",
            *here,
        )
        self._errors = _Series(
            "callflow_run_errors_total", "Runs with an error, by its kind.", *here, "kind"
        )
        duration = "callflow_run_duration_seconds"
        self._took = _Series(
            f"{duration}_bucket",
            "How long the runs took; those that found their stream busy are left out.",
            *here,
            "le",
            kind="histogram",
        )
        self._took_sum = _Series(f"{duration}_sum", "", *here)
        self._took_count = _Series(f"{duration}_count", "", *here)
        self._hung = _Series("callflow_runs_hung_total", "Runs that the watchdog gave up.", *here)
        self._skipped = _Series(
            "callflow_runs_skipped_total",
            "Planned runs that were not begun because the former one still ran.",
            "source",
        )
        self._lag = _Series(
            "callflow_schedule_lag_seconds",
            "How many seconds later than planned the last run began.",
            "source",
            kind="gauge",
        )
        self._jumps = _Series(
            "callflow_clock_jumps_total", "How often the clock of this machine was set by much."
        )
        self._refused = _Series(
            "callflow_config_refused",
            "1 if the configuration was refused when it was read last.",
            kind="gauge",
        )
        self._alerts = _Series(
            "callflow_alerts_total", "Messages to the alert webhook, sent or failed.", "result"
        )
        self._build = _Series(
            "callflow_build_info", "Always 1; the label tells the version.", "version", kind="gauge"
        )
        self._of_streams = (self._runs, self._rows, self._requests, self._retries, self._throttled,
                            self._errors, self._took, self._took_sum, self._took_count,
                            self._hung)  # fmt: skip
        self._of_sources = (self._skipped, self._lag)
        self._of_daemon = (self._jumps, self._refused, self._alerts, self._build)
        self._jumps.set(0)
        self._refused.set(0)
        self._alerts.set(0, "sent")
        self._alerts.set(0, "failed")
        self._build.set(1, version)

    def run(self, run: Run) -> None:
        """Count a run that ended. A busy one touched no row and has no duration."""
        here, busy = (run.source, run.stream), run.status == "busy"
        with self._lock:
            for status in get_args(Status):
                self._runs.add(status == run.status, *here, run.mode, status)
            for kind in _ROWS:
                self._rows.add(0 if busy else getattr(run, kind), *here, kind)
            self._requests.add(run.requests, *here)
            self._retries.add(run.retries, *here)
            self._throttled.add(run.throttled_seconds, *here)
            self._hung.add(0, *here)
            self._skipped.add(0, run.source)
            if run.error_kind is not None:
                self._errors.add(1, *here, run.error_kind)
            if run.finished_at is not None and not busy:
                # It began by this machine's clock and ended by the database's.
                took = max(0.0, (run.finished_at - run.started_at).total_seconds())
                for most in _BUCKETS:
                    self._took.add(took <= most, *here, str(most))
                self._took.add(1, *here, "+Inf")
                self._took_sum.add(took, *here)
                self._took_count.add(1, *here)

    def skipped(self, source: str) -> None:
        """Count a planned run that was not begun because the former one still ran."""
        with self._lock:
            self._skipped.add(1, source)

    def lag(self, source: str, seconds: float) -> None:
        """Note how many seconds later than planned a run of the source began."""
        with self._lock:
            self._lag.set(seconds, source)

    def hung(self, source: str, stream: str) -> None:
        """Count a run that the watchdog gave up; its error counts when `run` is told of it."""
        with self._lock:
            self._hung.add(1, source, stream)

    def clock_jumped(self) -> None:
        """Count a jump of this machine's clock."""
        with self._lock:
            self._jumps.add(1)

    def config_refused(self, refused: bool) -> None:
        """Note whether the configuration was refused when it was read last."""
        with self._lock:
            self._refused.set(refused)

    def alerted(self, sent: bool) -> None:
        """Count a message to the webhook: sent, or failed."""
        with self._lock:
            self._alerts.add(1, "sent" if sent else "failed")

    def forget(self, names: Collection[tuple[str, str]]) -> None:
        """Drop the series of all streams but `names`, (source, stream), and of other sources.

        A run that ends later brings the series of its stream back, until the next call.
        """
        streams = set(names)
        with self._lock:
            for series in self._of_streams:
                series.keep(streams, 2)
            for series in self._of_sources:
                series.keep({(source,) for source, _ in streams}, 1)

    def render(self, overview: Overview) -> bytes:
        """All metrics, in the text format of version 0.0.4; gauges out of `overview`."""
        with self._lock:
            counted = [
                series.render()
                for series in (*self._of_streams, *self._of_sources, *self._of_daemon)
            ]
        told = "".join([*counted, *_gauges(overview)])
        return told.encode() + generate_latest(self._registry)


def _gauges(overview: Overview) -> Iterator[str]:
    up = overview.database is None
    yield _flag("callflow_leader", "1 if this daemon leads.", overview.role == "leader")
    yield _flag("callflow_database_up", "1 if the warehouse answers, with the schema at head.", up)
    yield _flag(
        "callflow_ready", "1 if every stream is fresh, and the warehouse up.", overview.ready
    )
    lines: dict[str, list[str]] = {name: [] for name in _OF_OVERVIEW}
    for stream in overview.streams:
        pairs = [("source", stream.source), ("stream", stream.stream)]
        here = _labelled(pairs)
        for name, value in _numbers(stream).items():
            if value is not None:
                lines[name].append(f"{name}{here} {float(value)!r}\n")
        for state in get_args(State):
            where = f'{here[:-1]},state="{state}"}}'
            lines[_STATE].append(f"{_STATE}{where} {float(state == stream.state)!r}\n")
    for name, words in _OF_OVERVIEW.items():
        yield _head(name, "gauge", words)
        yield from lines[name]


_STATE = "callflow_stream_state"
_OF_OVERVIEW = {
    "callflow_last_success_timestamp_seconds": "When the last complete run ended, in Unix time.",
    "callflow_last_success_age_seconds": "Seconds since the last complete run.",
    "callflow_stale_after_seconds": "The age of the last complete run that makes a stream stale.",
    "callflow_stream_stale": "1 if the last complete run is older than it may be.",
    _STATE: "1 for the state that the stream is in, 0 for all others.",
    "callflow_stream_rows": "Rows of the stream in the warehouse.",
    "callflow_stream_throttled_until_timestamp_seconds": (
        "Until when the provider asked not to be asked, in Unix time."
    ),
}


def _flag(name: str, words: str, value: bool) -> str:
    return f"{_head(name, 'gauge', words)}{name} {float(value)!r}\n"


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


def _head(name: str, kind: str, words: str) -> str:
    name = name.removesuffix("_bucket")
    return f"# HELP {name} {words}\n# TYPE {name} {kind}\n"


def _labelled(pairs: Iterable[tuple[str, str]]) -> str:
    text = ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs])
    return f"{{{text}}}" if text else ""

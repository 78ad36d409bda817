"""Runs and streams as lines for a person, in the markup of rich. Pure."""

from datetime import datetime

from rich.markup import escape

from etl.config.redact import harmless
from etl.load.runs import Run
from etl.status.health import StreamHealth
from etl.status.words import span

_RUN_COLOURS = {"complete": "green", "incomplete": "yellow", "failed": "red", "busy": "yellow"}
_STATE_COLOURS = {
    "good": "green",
    "never run": "yellow",
    "failed": "red",
    "incomplete": "yellow",
    "throttled": "yellow",
    "stale": "red",
    "not configured": "dim",
}


def run_line(run: Run) -> str:
    """Return one line about a run, and a second one if something is wrong."""
    seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0
    counts = [
        f"{count:,} {word}"
        for count, word in (
            (run.inserted, "new"),
            (run.updated, "changed"),
            (run.unchanged, "unchanged"),
            (run.deleted, "gone"),
            (run.absent, "not listed but kept"),
            (run.rejected, "rejected"),
            (run.warnings, "values kept in extra"),
        )
        if count
    ]
    name = f"{run.source}.{run.stream}"
    colour = _RUN_COLOURS[run.status]
    nothing = "nothing there"
    if run.status != "complete":
        nothing = "nothing written" if run.records else "nothing read"
    line = (
        f"{escape(name):<28} [{colour}]{run.status:<10}[/{colour}] {run.records:>8,} records  "
        f"{', '.join(counts) or nothing}  ({run.requests} requests, {seconds:.1f} s)"
    )
    return f"{line}\n    [{colour}]{escape(harmless(run.error))}[/{colour}]" if run.error else line


def stream_line(stream: StreamHealth) -> str:
    """Return one line about a stream, and one more for each thing to know or to do."""
    colour = _STATE_COLOURS["stale" if stream.stale else stream.state]
    line = f"{stream.name:<28} [{colour}]{_state(stream):<10}[/{colour}]"
    if stream.rows is not None:
        line += f" {stream.rows:>10,} rows"
    if stream.age is not None:
        line += f"  complete {span(stream.age, 2)} ago"
    for label, time in (("watermark", stream.watermark), ("last full scan", stream.last_full_at)):
        line += f"  {label} {_instant(time)}" if time else ""
    if stream.problem:
        advice = f" → {stream.advice}" if stream.advice else ""
        line += f"\n    [{colour}]{escape(harmless(stream.problem + advice))}[/{colour}]"
    for left in stream.leftovers:
        text = escape(harmless(f"{left.name}: {left.problem} → {left.advice}"))
        line += f"\n    [yellow]{text}[/yellow]"
    return line


def _state(stream: StreamHealth) -> str:
    if not stream.stale:
        return stream.state
    return "stale" if stream.state == "good" else f"{stream.state}, stale"


def _instant(time: datetime) -> str:
    return time.isoformat(sep=" ", timespec="seconds").removesuffix(":00")

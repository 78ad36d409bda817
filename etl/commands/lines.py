"""Runs and streams as lines for a person, in the markup of rich. Pure."""

from datetime import datetime

from rich.markup import escape

from etl.config.redact import harmless
from etl.load.runs import Run
from etl.status.health import StreamHealth
from etl.status.words import run_word, span

_RUN_COLOURS = {
    "complete": "green",
    "incomplete": "yellow",
    "failed": "red",
    "busy": "yellow",
    "not_available": "dim",
}
_STATE_COLOURS = {
    "good": "green",
    "never run": "yellow",
    "failed": "red",
    "incomplete": "yellow",
    "throttled": "yellow",
    "stale": "red",
    "not available": "dim",
    "ended": "dim",
    "not configured": "dim",
}


def run_line(run: Run) -> str:
    """Return one line about a run, and a second one if something is wrong.

    The counts add up to the records that were read, so the line does not repeat their number, and
    most lines fit a terminal of 80 columns.
    """
    seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0
    name = f"{run.source}.{run.stream}"
    colour = _RUN_COLOURS[run.status]
    nothing = "nothing there"
    if run.status != "complete":
        nothing = f"{run.records:,} read, nothing written" if run.records else "nothing read"
    requests = _number(run.requests, "request")
    line = (
        f"{escape(name):<26} [{colour}]{run_word(run):<10}[/{colour}] "
        f"{_counts(run) or nothing} ({requests}, {seconds:.1f} s)"
    )
    return f"{line}\n    [{colour}]{escape(harmless(run.error))}[/{colour}]" if run.error else line


def past_run_lines(run: Run) -> str:
    """Return two lines about a run of the past, and a third one if something went wrong."""
    colour = _RUN_COLOURS[run.status]
    seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0
    name = f"{run.source}.{run.stream}"
    took = f"{seconds:.1f} s" if seconds < 60 else span(seconds, 2)
    line = (
        f"{_instant(run.started_at)} {escape(harmless(name)):<26} {run.mode:<11}"
        f" [{colour}]{run_word(run):<10}[/{colour}] {took}"
    )
    read = f"{_number(run.requests, 'request')}, {_number(run.records, 'record')}"
    counts = _counts(run)
    line += f"\n    {read}{': ' if counts else ''}{counts}"
    return f"{line}\n    [{colour}]{escape(harmless(run.error))}[/{colour}]" if run.error else line


def _counts(run: Run) -> str:
    """Return what became of the records that were read; "" if there were none."""
    counts = (
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
    )
    return ", ".join(counts)


def _number(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def stream_line(stream: StreamHealth) -> str:
    """Return one line about a stream, and one more for each thing to know or to do."""
    colour = _STATE_COLOURS["stale" if stream.stale else stream.state]
    facts = []
    if stream.rows is not None:
        facts.append(f"{stream.rows:,} rows")
    if stream.age is not None:
        facts.append(f"complete {span(stream.age, 2)} ago")
    line = f"{stream.name:<26} [{colour}]{_state(stream)}[/{colour}]"
    if facts:
        line += " " * max(1, 11 - len(_state(stream))) + ", ".join(facts)
    times = (("watermark", stream.watermark), ("last full scan", stream.last_full_at))
    if known := ", ".join(f"{label} {_instant(time)}" for label, time in times if time):
        line += f"\n    {known}"
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

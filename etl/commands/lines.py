"""Runs and streams for a person: as lines in the markup of rich, and as rows of a table. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo

from rich.markup import escape

from etl.commands.grid import Cell, Column, Row
from etl.config.redact import harmless
from etl.load.runs import Run
from etl.status.health import StreamHealth
from etl.status.words import local_time, run_word, span

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


# --- runs ----------------------------------------------------------------------------------------
def run_line(run: Run, width: int = 26) -> str:
    """Return one line about a run, and a second one if something is wrong.

    The counts add up to the records that were read, so the line does not repeat their number.
    `width` is that of the longest name.
    """
    colour = _RUN_COLOURS[run.status]
    nothing = "nothing there"
    if run.status != "complete":
        nothing = f"{run.records:,} read, nothing written" if run.records else "nothing read"
    line = (
        f"{escape(_name(run)):<{width}} [{colour}]{run_word(run):<10}[/{colour}] "
        f"{_words(_counts(run)) or nothing} ({number(run.requests, 'request')}, {_seconds(run)})"
    )
    return line + _error(run, colour)


def past_run_lines(run: Run) -> str:
    """Return two lines about a run of the past, and a third one if something went wrong."""
    colour = _RUN_COLOURS[run.status]
    line = (
        f"{_instant(run.started_at)} {escape(harmless(_name(run))):<26} {run.mode:<11}"
        f" [{colour}]{run_word(run):<10}[/{colour}] {_took(run)}"
    )
    read = f"{number(run.requests, 'request')}, {number(run.records, 'record')}"
    counts = _words(_counts(run))
    line += f"\n    {read}{': ' if counts else ''}{counts}"
    return line + _error(run, colour)


def run_columns(names: Iterable[str]) -> list[Column]:
    """Return the columns of runs that end one after another, of streams with these names."""
    return [
        Column("stream", max(map(len, names), default=0)),
        Column("status", len("incomplete")),
        Column("records", right=True),
        Column("new", 5, right=True),
        Column("changed", right=True),
        Column("gone", right=True),
        Column("took", 6, right=True),
        Column("unchanged", right=True),
        Column("requests", right=True),
    ]


def run_row(run: Run) -> Row:
    """Return a run in the columns of `run_columns`, with what else is to be known below it."""
    colour = _RUN_COLOURS[run.status]
    counts = _counts(run)
    cells = [
        Cell(_name(run)),
        Cell(run_word(run), style=colour),
        _count(run.records, f"{run.records:,} read"),
        *(_count(counts.pop(word, 0), word) for word in ("new", "changed", "gone")),
        Cell(_took(run)),
        _count(counts.pop("unchanged", 0)),
        _count(run.requests),
    ]
    return Row(cells, ((_words(counts), "yellow"), (_without(_name(run), run.error), colour)))


PAST = [
    Column("started"),
    Column("stream"),
    Column("status"),
    Column("took", right=True),
    Column("mode"),
    *(Column(title, right=True)
      for title in ("requests", "records", "new", "changed", "unchanged", "gone")),
]  # fmt: skip
"""The columns of `past_row`."""


def past_row(run: Run, zone: tzinfo | None) -> Row:
    """Return a run of the past in the columns of PAST; times are in `zone` and in UTC."""
    colour = _RUN_COLOURS[run.status]
    counts = _counts(run)
    cells = [
        Cell(local_time(run.started_at, zone)),
        Cell(_name(run), _name(run)),
        Cell(run_word(run), run_word(run), colour),
        Cell(_took(run), f"took {_took(run)}"),
        Cell(run.mode, run.mode),
        _count(run.requests, number(run.requests, "request")),
        _count(run.records, number(run.records, "record")),
        *(_count(counts.pop(word, 0), word) for word in ("new", "changed", "unchanged", "gone")),
    ]
    return Row(cells, ((_words(counts), "yellow"), (_without(_name(run), run.error), colour)))


def totals(runs: Sequence[Run], seconds: float) -> str:
    """Return a line about runs that took so long together: how many, what failed, what they did."""
    words = Counter(run_word(run) for run in runs)
    bad = [
        f"[{_RUN_COLOURS[status]}]{words[status]} {status}[/{_RUN_COLOURS[status]}]"
        for status in ("failed", "incomplete", "busy")
        if words[status]
    ]
    counts = (
        f"{number(sum(run.records for run in runs), 'record')}, "
        f"{sum(run.inserted for run in runs):,} new, {sum(run.updated for run in runs):,} changed, "
        f"{sum(run.deleted for run in runs):,} gone"
    )
    took = f"{seconds:.1f} s" if seconds < 60 else span(seconds, 2)
    requests = number(sum(run.requests for run in runs), "request")
    return f"{', '.join([number(len(runs), 'stream'), *bad])}: {counts} ({requests}, {took})"


def _counts(run: Run) -> dict[str, int]:
    """Return what became of the records that were read, in words: those of which there are any."""
    counts = {
        "new": run.inserted,
        "changed": run.updated,
        "unchanged": run.unchanged,
        "gone": run.deleted,
        "not listed but kept": run.absent,
        "rejected": run.rejected,
        "values kept in extra": run.warnings,
    }
    return {word: count for word, count in counts.items() if count}


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in counts.items())


def _count(count: int, words: str = "") -> Cell:
    """Return a number; in words, of which one may leave out the number, only if it is not 0."""
    said = words if " " in words else f"{count:,} {words}" if count and words else ""
    return Cell(f"{count:,}", said, "" if count else "dim")


def _error(run: Run, colour: str) -> str:
    return f"\n    [{colour}]{escape(harmless(run.error))}[/{colour}]" if run.error else ""


def _without(name: str, error: str | None) -> str:
    """Return an error without the name of the stream, which the row above it has."""
    return (error or "").removeprefix(f"{name}: ").removeprefix(f"{name}, ")


def _name(run: Run) -> str:
    return f"{run.source}.{run.stream}"


def _length(run: Run) -> float:
    return (run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0


def _seconds(run: Run) -> str:
    return f"{_length(run):.1f} s"


def _took(run: Run) -> str:
    return _seconds(run) if _length(run) < 60 else span(_length(run), 2)


def number(count: int, word: str) -> str:
    """Return a count with what is counted: "1 record", "2,300 records"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


# --- streams -------------------------------------------------------------------------------------
def stream_line(stream: StreamHealth, width: int = 26) -> str:
    """Return one line about a stream, and one more for each thing to know or to do."""
    colour = _colour(stream)
    facts = []
    if stream.rows is not None:
        facts.append(number(stream.rows, "row"))
    if stream.age is not None:
        facts.append(f"complete {span(stream.age, 2)} ago")
    line = f"{stream.name:<{width}} [{colour}]{_state(stream)}[/{colour}]"
    if facts:
        line += " " * max(1, 11 - len(_state(stream))) + ", ".join(facts)
    times = (("watermark", stream.watermark), ("last full scan", stream.last_full_at))
    if known := ", ".join(f"{label} {_instant(time)}" for label, time in times if time):
        line += f"\n    {known}"
    for text, style in _notes(stream):
        line += f"\n    [{style}]{escape(harmless(text))}[/{style}]"
    return line


STREAMS = [
    Column("stream"),
    Column("state"),
    Column("rows", right=True),
    Column("complete", right=True),
    Column("full scan", right=True),
    Column("watermark"),
]
"""The columns of `stream_row`."""


def stream_row(stream: StreamHealth, now: datetime, zone: tzinfo | None) -> Row:
    """Return a stream in the columns of STREAMS, with what is to be known or done below it.

    `now` is when the warehouse was asked (UTC); times are in `zone` and in UTC.
    """
    full = None if stream.last_full_at is None else (now - stream.last_full_at).total_seconds()
    mark = "" if stream.watermark is None else local_time(stream.watermark, zone)
    facts = (
        ("" if stream.rows is None else number(stream.rows, "row")),
        *("" if age is None else f"{span(max(age, 0), 2)} ago" for age in (stream.age, full)),
    )
    cells = [
        Cell(stream.name),
        Cell(_state(stream), _state(stream), _colour(stream)),
        Cell(facts[0].partition(" ")[0], facts[0]),
        Cell(facts[1], facts[1] and f"complete {facts[1]}"),
        Cell(facts[2], facts[2] and f"last full scan {facts[2]}"),
        Cell(mark, mark and f"watermark {mark}"),
    ]
    notes = [(_without(stream.name, text), style) for text, style in _notes(stream)]
    return Row(cells, notes)


def _notes(stream: StreamHealth) -> Iterator[tuple[str, str]]:
    """Yield what is to be known of a stream or done about it, and in which colour."""
    if stream.problem:
        advice = f" → {stream.advice}" if stream.advice else ""
        yield stream.problem + advice, _colour(stream)
    for left in stream.leftovers:
        yield f"{left.name}: {left.problem} → {left.advice}", "yellow"


def _colour(stream: StreamHealth) -> str:
    return _STATE_COLOURS["stale" if stream.stale else stream.state]


def _state(stream: StreamHealth) -> str:
    if not stream.stale:
        return stream.state
    return "stale" if stream.state == "good" else f"{stream.state}, stale"


def _instant(time: datetime) -> str:
    return time.isoformat(sep=" ", timespec="seconds").removesuffix(":00")

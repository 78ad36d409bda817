"""What a person sees: progress, runs, and tables. Results go to stdout, all else to stderr."""

import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Self

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from etl.config.redact import harmless
from etl.errors import CallflowError, StoppedError
from etl.load.runs import Run
from etl.status import answer
from etl.status.health import StreamHealth
from etl.status.words import span

COLOURS = {"complete": "green", "incomplete": "yellow", "failed": "red", "busy": "yellow"}
STATES = {
    "good": "green",
    "never run": "yellow",
    "failed": "red",
    "incomplete": "yellow",
    "throttled": "yellow",
    "stale": "red",
    "not configured": "dim",
}


class OutputError(CallflowError):
    """Where stdout leads nothing can be written."""

    kind = "output"


class Results(io.FileIO):
    """The file that stdout leads to. Its errors name it, unlike an OSError of anything else."""

    def write(self, data: Any, /) -> int:
        """As FileIO does. Raises OutputError; BrokenPipeError when the reader has gone."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"cannot be written: {error.strerror}",
                where="stdout",
                advice="free space, or write elsewhere",
            ) from error


def open_streams() -> None:
    """Make the standard streams fit for any text, and for having been closed by the caller.

    What their encoding lacks is written as an escape. From here on stdout raises OutputError.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It takes the lowest free number, which is its own, and keeps it from any connection.
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(Results(sys.stdout.fileno(), "w", closefd=False)),
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            line_buffering=sys.stdout.line_buffering or sys.stdout.write_through,
        )


class Watch:
    """Shows how far streams have come: bars on a terminal, nothing elsewhere."""

    def __init__(self, console: Console, names: Sequence[str], *, quiet: bool = False) -> None:
        self.shown = console.is_terminal and not quiet
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("records"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self.shown,
        )
        self._tasks: dict[str, TaskID] = {
            name: self._progress.add_task(name, total=None, start=False) for name in names
        }

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def page(self, name: str, records: int, total: int | None) -> None:
        """`name` has read `records` of `total`."""
        task = self._tasks[name]
        self._progress.start_task(task)
        self._progress.update(task, completed=records, total=total)

    def done(self, name: str) -> None:
        """`name` is through."""
        self._progress.update(self._tasks[name], visible=False)


@contextmanager
def cancelling() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM interrupt what is waited for; a second one ends the process.

    Raises StoppedError when one came, with the exit code of its signal.
    """
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for each in former:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    former = {
        each: handler
        for each in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(each)) != signal.SIG_IGN
    }
    for each in former:
        signal.signal(each, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError("stopped by a signal; the query was cancelled", signal=came[0]) from None
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one ends the process at once.

    Raises StoppedError afterwards when one came, with the exit code of its signal.
    """
    stopped = threading.Event()
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        stopped.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)

    former = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
        if came:
            raise StoppedError(
                "stopped by a signal; what was not committed is rolled back", signal=came[0]
            )


def run_line(run: Run) -> str:
    """One line about a run, in rich's markup, and a second one when something is wrong."""
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
    colour = COLOURS[run.status]
    nothing = "nothing there"
    if run.status != "complete":
        nothing = "nothing written" if run.records else "nothing read"
    line = (
        f"{escape(name):<28} [{colour}]{run.status:<10}[/{colour}] {run.records:>8,} records  "
        f"{', '.join(counts) or nothing}  ({run.requests} requests, {seconds:.1f} s)"
    )
    return f"{line}\n    [{colour}]{escape(harmless(run.error))}[/{colour}]" if run.error else line


def stream_line(stream: StreamHealth) -> str:
    """One line about a stream, in rich's markup, and one for each thing to know or to do."""
    colour = STATES["stale" if stream.stale else stream.state]
    word = f"{stream.state}, stale" if stream.stale and stream.state != "good" else stream.state
    line = f"{stream.name:<28} [{colour}]{'stale' if word == 'good' and stream.stale else word:<10}"
    line += f"[/{colour}]"
    if stream.rows is not None:
        line += f" {stream.rows:>10,} rows"
    if stream.age is not None:
        line += f"  complete {span(stream.age, 2)} ago"
    for label, time in (("watermark", stream.watermark), ("last full scan", stream.last_full_at)):
        line += f"  {label} {_cell(time)}" if time else ""
    if stream.problem:
        advice = f" → {stream.advice}" if stream.advice else ""
        line += f"\n    [{colour}]{escape(harmless(stream.problem + advice))}[/{colour}]"
    for left in stream.leftovers:
        text = escape(harmless(f"{left.name}: {left.problem} → {left.advice}"))
        line += f"\n    [yellow]{text}[/yellow]"
    return line


def stream_json(stream: StreamHealth) -> str:
    """A stream's state as one JSON object; lengths of time are seconds."""
    error = " → ".join(filter(None, (stream.problem, stream.advice))) or None
    return as_json({**asdict(stream), "name": stream.name, "good": stream.good, "error": error})


def as_json(value: Any) -> str:
    """`value` as one line of JSON; times as ISO 8601, numbers of any size as numbers."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def run_json(run: Run) -> str:
    """A run as one JSON object: the columns of etl.runs."""
    return as_json(asdict(run))


def table(console: Console, rows: Iterator[Sequence[Any]], title: str = "") -> int:
    """Print rows (the first one is the header) as a table; return how many there were.

    Where a row is wider than the console, each column of each row has a line to itself.
    """
    header = [Text(harmless(name)) for name in next(rows)]
    body = [[Text(harmless(_cell(value), keep="\n")) for value in row] for row in rows]
    lines = [header, *body]
    widths = (max(max(map(cell_len, line[n].plain.split("\n"))) for line in lines)
              for n in range(len(header)))  # fmt: skip
    if sum(width + 2 for width in widths) <= console.width:
        grid = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left",
                     title_style="bold")  # fmt: skip
        for name in header:
            grid.add_column(name, overflow="fold")
        for row in body:
            grid.add_row(*row)
        console.print(grid)
        return len(body)
    if title:
        console.print(Text(title, style="bold"))
    if not body:
        console.print(Text(", ").join(header))
    for number, row in enumerate(body, 1):
        console.print(Text(f"── {number} ──", style="dim"))
        record = Table.grid(padding=(0, 2, 0, 0))
        record.add_column(no_wrap=True)
        record.add_column(overflow="fold")
        for name, value in zip(header, row, strict=True):
            record.add_row(name, value)
        console.print(record)
    return len(body)


def write_csv(rows: Iterator[Sequence[Any]]) -> None:
    """Write rows (the first one is the header) to stdout as CSV, as COPY reads it.

    NULL is nothing, an empty text is "". A terminal is shown escapes for what would steer it.
    """
    shown = partial(harmless, keep="\t\n") if sys.stdout.isatty() else str
    for row in rows:
        sys.stdout.write(",".join(shown(_quoted(value)) for value in row) + "\n")


def write_json(rows: Iterator[Sequence[Any]]) -> None:
    """Write rows (the first one is the header) to stdout as JSON objects, one a line.

    A terminal is shown JSON's escapes for what would steer it.
    """
    shown = _steering_escaped if sys.stdout.isatty() else str
    keys = [json.dumps(name, ensure_ascii=False) for name in next(rows)]
    for row in rows:
        members = (f"{key}: {answer.as_json(each)}" for key, each in zip(keys, row, strict=True))
        sys.stdout.write(shown(f"{{{', '.join(members)}}}") + "\n")


def _steering_escaped(line: str) -> str:
    """The same JSON, with JSON's own escapes for what a terminal would obey."""
    if line.isprintable():
        return line
    return "".join(
        each
        if harmless(each) == each
        else "".join(
            f"\\u{unit:04x}"
            for unit in memoryview(each.encode("utf-16-le", "surrogatepass")).cast("H")
        )
        for each in line
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds").removesuffix(":00")
    return answer.as_text(value)


def _quoted(value: Any) -> str:
    if value is None:
        return ""
    text = answer.as_text(value)
    if text in ("", "\\.") or re.search('[",\r\n]', text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)

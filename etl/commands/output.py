"""Where the output of a command goes: results to stdout, everything else to stderr."""

import logging
import os
import sys
from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from etl.commands.grid import Column, Row, fitting, hanging, header, lines, measured
from etl.config.redact import Redactor, harmless


def stdout() -> Console:
    """Return the console for results; outside a terminal lines are never broken."""
    return _console(sys.stdout, is_stderr=False)


def stderr() -> Console:
    """Return the console for messages."""
    return _console(sys.stderr, is_stderr=True)


def _console(stream: TextIO, *, is_stderr: bool) -> Console:
    # To rich FORCE_COLOR makes a terminal of a pipe; here it only colours what goes into it.
    terminal = stream.isatty()
    coloured = not terminal and os.environ.get("FORCE_COLOR")
    return Console(
        stderr=is_stderr,
        force_terminal=terminal,
        color_system="standard" if coloured else "auto",
        width=None if terminal else 10_000,
        highlight=False,
        soft_wrap=True,
        emoji=False,
    )


def zone(console: Console) -> tzinfo | None:
    """Return the zone of the times that `console` shows: None, this machine's, on a terminal.

    Elsewhere it is UTC, so that what a program reads is the same on every machine.
    """
    return None if console.is_terminal else UTC


def print_lines(console: Console, markup: str, indent: int = 4) -> None:
    """Print lines of rich's markup; on a terminal, break long ones between words and indent.

    Not for what people copy into a shell, which line breaks would damage.
    """
    for line in markup.split("\n"):
        text = Text.from_markup(line, emoji=False)
        shown = hanging(text, console.width, indent) if console.is_terminal else [text]
        console.print(*shown, sep="\n")


def print_rows(console: Console, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Print rows in as many of `columns` as fit the terminal, under their titles."""
    if not rows:
        return
    shown = fitting(measured(columns, rows), console.width)
    console.print(header(shown))
    for row in rows:
        console.print(*lines(shown, row, console.width), sep="\n")


def note(text: str) -> None:
    """Print a note to stderr: something to know that is no error. Not after --quiet."""
    if not quiet():
        print_lines(stderr(), f"note: {escape(harmless(text))}")


def quiet() -> bool:
    """Return whether only results and errors are wanted."""
    return _log.level >= logging.WARNING


def shows_progress() -> bool:
    """Return whether progress may be drawn: not if that is unwanted, nor among lines of a log."""
    return _log.level == logging.NOTSET


def log_to_stderr(level: int, redact: Redactor) -> None:
    """Print what callflow logs from `level` up as lines on stderr, without what `redact` hides."""
    _log.setLevel(level)
    _log.handlers[:] = [_Lines(redact)]
    _log.propagate = False


_log = logging.getLogger("etl")


class _Lines(logging.Handler):
    """Prints each record as one line."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record; of an exception it has its type only."""
        text = self._redact.logged(record.getMessage())
        kind = record.exc_info[0] if record.exc_info else None
        stderr().print(escape(harmless(f"{text} ({kind.__name__})" if kind else text)))

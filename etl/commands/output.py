"""Where the output of a command goes: results to stdout, everything else to stderr."""

import logging
import sys

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from etl.config.redact import Redactor, harmless


def stdout() -> Console:
    """Return the console for results; outside a terminal lines are never broken."""
    width = None if sys.stdout.isatty() else 10_000
    return Console(highlight=False, soft_wrap=True, width=width, emoji=False)


def stderr() -> Console:
    """Return the console for messages."""
    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def print_lines(console: Console, markup: str, indent: int = 4) -> None:
    """Print lines of rich's markup; on a terminal, break long ones between words and indent.

    Not for what people copy into a shell, which line breaks would damage.
    """
    for line in markup.split("\n"):
        text = Text.from_markup(line, emoji=False)
        if not console.is_terminal or text.cell_len <= console.width:
            console.print(text)
            continue
        first, *rest = text.wrap(console, max(console.width - indent, 20))
        console.print(first)
        for each in rest:
            console.print(Text(" " * indent) + each)


def note(text: str) -> None:
    """Print a note to stderr: something to know that is no error. Not after --quiet."""
    if not quiet():
        stderr().print(f"note: {escape(harmless(text))}")


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

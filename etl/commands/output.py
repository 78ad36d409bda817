"""Where the output of a command goes: results to stdout, everything else to stderr."""

import io
import os
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from etl.config.redact import harmless
from etl.errors import OutputError


class _Results(io.FileIO):
    """The file behind stdout. Its errors name it, unlike an OSError from anywhere else."""

    def write(self, data: Any, /) -> int:
        """Write as FileIO does. Raises OutputError; BrokenPipeError if the reader has gone."""
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
    """Make the standard streams accept any text, even if the caller has closed them.

    A character that their encoding lacks is written as an escape. From now on stdout raises
    OutputError.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # This takes the lowest free file number, which is the stream's own, so that no
            # connection can get it.
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Results(sys.stdout.fileno(), "w", closefd=False)),
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            line_buffering=sys.stdout.line_buffering or sys.stdout.write_through,
        )


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
    """Print a note to stderr: something to know that is no error."""
    stderr().print(f"note: {escape(harmless(text))}")

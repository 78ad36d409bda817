"""Where the output of a command goes: results to stdout, everything else to stderr."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from etl.config.redact import harmless


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

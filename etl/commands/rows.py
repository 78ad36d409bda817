"""Print the rows of a query: as a table, as CSV, as JSON. The first row is the header."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import zip_longest
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from etl.commands import values
from etl.config.redact import harmless
from etl.status import documents


def print_table(console: Console, rows: Iterator[Sequence[Any]], title: str = "") -> int:
    """Print rows as a table; return how many there were.

    Columns of numbers are aligned to the right. If a row is wider than the console, each column of
    each row gets a line.
    """
    header, found = [Text(harmless(name)) for name in next(rows)], list(rows)
    body = [[_cell(value) for value in row] for row in found]
    lines = [header, *body]
    widths = (max(max(map(cell_len, line[n].plain.split("\n"))) for line in lines)
              for n in range(len(header)))  # fmt: skip
    if sum(width + 3 for width in widths) + 1 <= console.width:
        right = [_are_numbers(column) for column in zip(*found, strict=True)]
        _print_grid(console, header, body, right, title)
    else:
        _print_records(console, header, body, title)
    return len(body)


def _print_grid(
    console: Console,
    header: Sequence[Text],
    body: Sequence[Sequence[Text]],
    right: Sequence[bool],
    title: str,
) -> None:
    grid = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name, is_right in zip_longest(header, right):
        grid.add_column(name, overflow="fold", justify="right" if is_right else "left")
    for row in body:
        grid.add_row(*row)
    console.print(grid)


def _print_records(
    console: Console, header: Sequence[Text], body: Sequence[Sequence[Text]], title: str
) -> None:
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


def write_csv(rows: Iterator[Sequence[Any]]) -> None:
    """Write rows to stdout as CSV that COPY reads: NULL is nothing, an empty text is "".

    On a terminal, control characters are replaced.
    """
    shown = partial(harmless, keep="\t\n") if sys.stdout.isatty() else str
    for row in rows:
        sys.stdout.write(",".join(shown(_csv_field(value)) for value in row) + "\n")


def write_json(rows: Iterator[Sequence[Any]]) -> None:
    """Write rows to stdout as JSON, one object a line. Column names must be unique.

    On a terminal, control characters are written as JSON's escapes.
    """
    shown = without_control if sys.stdout.isatty() else str
    keys = [json.dumps(name, ensure_ascii=False) for name in next(rows)]
    for row in rows:
        members = (f"{key}: {values.as_json(each)}" for key, each in zip(keys, row, strict=True))
        sys.stdout.write(shown(f"{{{', '.join(members)}}}") + "\n")


def write_objects(found: Iterable[Mapping[str, Any]]) -> None:
    """Write mappings to stdout as JSON, one object a line, as `write_json` does on a terminal."""
    shown = without_control if sys.stdout.isatty() else str
    for each in found:
        sys.stdout.write(shown(documents.as_json(each)) + "\n")


def without_control(line: str) -> str:
    """Return the same JSON with escapes for the characters that a terminal would obey."""
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


def _cell(value: Any) -> Text:
    """Return a value as it is shown; NULL is a word, and an empty text is empty."""
    if value is None:
        return Text("NULL", "dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, datetime):
        return Text(value.isoformat(sep=" ", timespec="seconds").removesuffix(":00"))
    return Text(harmless(values.as_text(value), keep="\n"))


def _are_numbers(column: Sequence[Any]) -> bool:
    found = [value for value in column if value is not None]
    numbers = (isinstance(value, int | float | Decimal) for value in found)
    return bool(found) and all(numbers) and not any(isinstance(value, bool) for value in found)


def _csv_field(value: Any) -> str:
    if value is None:
        return ""
    text = values.as_text(value)
    if text in ("", "\\.") or re.search('[",\r\n]', text):
        return '"' + text.replace('"', '""') + '"'
    return text

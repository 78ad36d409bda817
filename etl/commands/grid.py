"""Rows in columns that fit a terminal. What does not fit stands in words below its row. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.text import Text

from etl.config.redact import harmless

_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, and how many cells are kept for its values; numbers go to the right."""

    title: str
    width: int = 0
    right: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A value: as it is shown in its column, and in words; no words, no mention elsewhere."""

    text: str
    words: str = ""
    style: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row, the most important ones first, and what is to be said below them.

    A note is a text and its style.
    """

    cells: Sequence[Cell]
    notes: Sequence[tuple[str, str]] = ()


def measured(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Return `columns` as wide as the values of `rows`."""
    return [
        replace(column, width=max((cell_len(row.cells[at].text) for row in rows), default=0))
        for at, column in enumerate(columns)
    ]


def fitting(columns: Sequence[Column], width: int) -> Sequence[Column]:
    """Return the first of `columns`, as many as fit into `width`; one at least.

    One that takes more than half is narrowed to two fifths, unless all fit: one long name must not
    cost all other rows their columns.
    """
    if _end(columns) > width:
        columns = [
            replace(each, width=width * 2 // 5) if each.width > width // 2 else each
            for each in columns
        ]
    counts = (count for count in range(len(columns), 1, -1) if _end(columns[:count]) <= width)
    return columns[: next(counts, 1)]


def header(columns: Sequence[Column]) -> Text:
    """Return the line of the titles."""
    line = _aligned(columns, [Cell(column.title) for column in columns])
    line.stylize("dim")
    return line


def lines(columns: Sequence[Column], row: Row, width: int) -> Iterator[Text]:
    """Yield the lines of `row`: its cells in `columns`, then the rest in words, then its notes.

    A first value that is too long for its column has a line to itself.
    """
    shown, cells = len(columns), row.cells
    if cell_len(cells[0].text) > _width(columns[0]):
        yield Text(harmless(cells[0].text), cells[0].style)
        cells = [Cell(""), *cells[1:]]
    line = _aligned(columns, cells)
    while shown > 1 and line.cell_len > width:
        shown -= 1
        line = _aligned(columns[:shown], cells)
    if line:
        yield line
    said = [cell.words for cell in row.cells[shown:] if cell.words]
    for text, style in (*((each, "") for each in _joined(said, width - 4)), *row.notes):
        if text:
            yield from below(Text(harmless(text), style), width)


def _joined(phrases: Sequence[str], width: int) -> Iterator[str]:
    """Yield phrases joined by commas, in lines of up to `width` cells that break between them."""
    line = ""
    for phrase in phrases:
        if line and cell_len(f"{line}, {phrase}") >= width:
            yield f"{line},"
            line = ""
        line = f"{line}, {phrase}" if line else phrase
    yield line


def below(text: Text, width: int, indent: int = 4) -> Iterator[Text]:
    """Yield `text` as lines below a row: indented, and broken between words."""
    return hanging(Text(" " * indent) + text, width, indent)


def hanging(text: Text, width: int, indent: int = 4) -> Iterator[Text]:
    """Yield `text` in lines of up to `width` cells, broken between words; all but one indented.

    A word that is longer than a line, such as a URL, stays whole, so that it can be copied. One of
    wide characters is broken between them: Chinese has no blanks.
    """
    breaks: list[int] = []
    start = used = len(text.plain) - len(text.plain.lstrip())
    indent = min(indent, width // 2)

    def break_at(place: int) -> None:
        nonlocal start, used
        breaks.append(place)
        start = used = indent

    for found in re.finditer(r"\S+\s*", text.plain):
        word = found[0].rstrip()
        if used > start and used + cell_len(word) > width:
            break_at(found.start())
        if cell_len(word) <= max(width - indent, len(word)):
            used += cell_len(found[0])
            continue
        for place, character in enumerate(found[0], found.start()):
            if used + cell_len(character) > width:
                break_at(place)
            used += cell_len(character)
    for number, line in enumerate(text.divide(breaks)):
        line.rstrip()
        yield Text(" " * indent) + line if number else line


def _aligned(columns: Sequence[Column], cells: Sequence[Cell]) -> Text:
    """Return cells in their columns; one that is too wide moves the next ones as far as needed."""
    line, start = Text(), 0
    for column, cell in zip(columns, cells, strict=False):
        text = harmless(cell.text)
        room = _width(column) - cell_len(text) if column.right else 0
        before = max(start + room - line.cell_len, 1 if line else 0)
        line.append(" " * before).append(text, cell.style)
        start += _width(column) + _GAP
    line.rstrip()
    return line


def _end(columns: Sequence[Column]) -> int:
    return sum(_width(column) + _GAP for column in columns) - _GAP


def _width(column: Column) -> int:
    return max(column.width, cell_len(column.title))

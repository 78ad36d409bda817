"""Rows as people see them in a terminal, and as programs read them."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from etl.commands import rows as printed
from etl.commands.values import Json


def shown(width: int, *rows: Sequence[Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=width, emoji=False)
    printed.print_table(console, iter(rows))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]


def test_rows_that_fit_are_a_table_and_wide_characters_keep_its_columns() -> None:
    lines = shown(80, ["name", "n"], ["投诉受理 – 贵宾专线", 1], [":x: [b]", None], ["a", True])
    assert [line.split() for line in lines] == [
        ["name", "n"], ["─" * 28], ["投诉受理", "–", "贵宾专线", "1"], [":x:", "[b]", "NULL"],
        ["a", "yes"]
    ]  # fmt: skip
    assert cell_len(lines[2].partition("1")[0]) == lines[4].index("yes")


def test_rows_that_do_not_fit_have_a_line_for_each_column() -> None:
    names = [f"column_{number}" for number in range(10)]
    lines = shown(80, names, ["x" * 70, *"bcdefghij"], [*"ABCDEFGHIJ"])
    assert lines[:4] == ["── 1 ──", "column_0  " + "x" * 70, "column_1  b", "column_2  c"]
    assert lines[11] == "── 2 ──"
    assert len(lines) == 2 * 11
    assert all(len(line) <= 80 for line in shown(80, names, ["x y" * 100, *"bcdefghij"]))
    assert shown(300, names, [*"ABCDEFGHIJ"])[0].split() == names
    assert " ".join(shown(80, names)).split(", ") == names


def test_a_table_as_wide_as_the_console_is_the_widest_there_is() -> None:
    """The frame counts too: three characters for each column, and one more."""
    row = ["x" * 40, "y" * 33]
    (line,) = [line for line in shown(80, ["a", "b"], row) if "x" in line]
    assert line == f"  {row[0]}   {row[1]}"
    assert shown(79, ["a", "b"], row)[1:] == [f"a  {row[0]}", f"b  {row[1]}"]


def test_numbers_stand_at_the_right_and_null_is_not_an_empty_text() -> None:
    rows: list[Sequence[Any]]
    rows = [["n", "cost", "note", "b"], [1, Decimal("0.50"), "", True], [1000, None, None, None]]
    assert shown(80, *rows) == [
        "     n   cost   note   b",
        " ───────────────────────────",
        "     1   0.50          yes",
        "  1000   NULL   NULL   NULL",
    ]
    assert shown(10, *rows) == [
        "── 1 ──", "n     1", "cost  0.50", "note", "b     yes",
        "── 2 ──", "n     1000", "cost  NULL", "note  NULL", "b     NULL",
    ]  # fmt: skip


def test_nothing_controls_the_terminal() -> None:
    evil = "a\x1b[31m\x07\x9b1m\u202eb\rc"
    for width in (80, 10):
        text = "\n".join(shown(width, [evil], [evil], [["x", evil]], [Json(f'"{evil}"')]))
        assert not set(evil) - set("a[31mbc") & set(text)
    assert shown(80, ["n"], ["one\ntwo"])[-2:] == ["  one", "  two"]


class Out(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def written() -> Iterator[Any]:
    """Yield what a function writes to stdout, which is a terminal or not."""
    real = sys.stdout

    def run(write: Any, rows: list[Sequence[Any]], *, terminal: bool = False) -> str:
        out = Out(terminal=terminal)
        sys.stdout = out
        try:
            write(iter(rows))
        finally:
            sys.stdout = real
        return out.getvalue()

    yield run
    sys.stdout = real


EVIL: list[list[Any]] = [["na\x1bme", "b"], ["\x1b[31m\x9b1m\u202e\x7f\U000e0001投", None]]


def test_files_get_every_byte_and_a_terminal_nothing_that_controls_it(written: Any) -> None:
    assert written(printed.write_csv, EVIL) == f"na\x1bme,b\n{EVIL[1][0]},\n"
    assert json.loads(written(printed.write_json, EVIL)) == dict(zip(*EVIL, strict=True))
    assert written(printed.write_csv, EVIL, terminal=True) == "na␛me,b\n␛[31m�1m�␡�投,\n"
    line = written(printed.write_json, EVIL, terminal=True)
    assert line.removesuffix("\n").isprintable()
    assert json.loads(line) == dict(zip(*EVIL, strict=True))


def test_null_is_not_an_empty_text(written: Any) -> None:
    rows = [["a", "b", "c"], [None, "", 'x"y'], ["\\.", "l1\nl2", " "]]
    text = written(printed.write_csv, rows)
    assert text == 'a,b,c\n,"","x""y"\n"\\.","l1\nl2", \n'
    assert list(csv.reader(io.StringIO(text)))[2] == rows[2]

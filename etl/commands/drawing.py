"""Draw a flow for a terminal, with termaid, which lays it out in its own process."""

import re
import subprocess
from collections.abc import Iterator

from rich.cells import cell_len

from etl.status.drawing import UNREACHABLE, Drawing, Step, fold, headline, kind, short, some, words
from etl.status.graphviz import apart

MOST_STEPS = 40
"""How many steps a terminal shows as a drawing; termaid takes minutes for some larger flows."""
_MARKS = 0xE000
_MOST_MARKS = 0xF8FF - _MARKS
"""Characters for private use, which no name here has: `plain` replaces them."""
_SECONDS = 10.0

_TERMAID = """
import sys
from termaid import render
text = sys.stdin.buffer.read().decode()
drawn = render(text, padding_x=1, padding_y=0, gap=3, max_label_width=200)
sys.stdout.buffer.write(drawn.encode())
"""


# --- the terminal --------------------------------------------------------------------------------
def terminal(drawing: Drawing, width: int) -> str:
    """Return the flow as lines of up to `width` columns: drawn, else as a list of its steps.

    A line says why it is a list: more than MOST_STEPS steps, or a drawing that would be too wide.
    """
    head = [*_folded(drawing.title, width), *_folded(_reached_by(drawing), width)]
    head += _folded(", ".join(map(words, drawing.findings)), width)
    hidden = {step.id for step in drawing.steps if UNREACHABLE in step.findings}
    if len(hidden) == len(drawing.steps):
        hidden = set()
    shown = len(drawing.steps) - len(hidden)
    if not drawing.steps:
        return _joined([*head, "", "It has no steps."])
    if shown > MOST_STEPS:
        why = f"{shown:,} steps are too many for a drawing. As a list:"
        return _joined([*head, "", *_folded(why, width), "", *_list(drawing, width)])
    drawn = _drawn(drawing, hidden, width)
    if isinstance(drawn, str):
        return _joined(
            [*head, "", *_folded(f"{drawn} As a list:", width), "", *_list(drawing, width)]
        )
    rest = [
        line for step in drawing.steps if step.id in hidden for line in _item(drawing, step, width)
    ]
    return _joined([*head, "", *drawn, *(["", "No way leads to:", *rest] if rest else [])])


def _joined(lines: list[str]) -> str:
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _reached_by(drawing: Drawing) -> str:
    return f"reached by {', '.join(some(drawing.addresses))}" if drawing.addresses else ""


def _folded(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Return `text` in lines of up to `width` columns; none if it is empty."""
    lines = fold(text, max(width - max(cell_len(first), cell_len(rest)), 8), 20, cell_len)
    return [(rest if number else first) + line for number, line in enumerate(lines) if line]


# --- drawn ---------------------------------------------------------------------------------------
def _drawn(drawing: Drawing, hidden: set[str], width: int) -> list[str] | str:
    """Return the drawing without the steps that are `hidden`, or why there is none.

    It gets its boxes and arrows from termaid, but no word of the flow: lines of one character for
    private use stand for them. So no name can mean something to termaid, and each takes as many
    columns as the terminal gives it.
    """
    why = f"The drawing would be wider than {width} columns."
    for direction in ("TD", "LR"):
        texts: list[str] = []
        source = "\n".join([f"flowchart {direction}", *_boxes(drawing, hidden, texts)])
        if len(texts) > _MOST_MARKS:
            return "It has too many arrows for a drawing."
        try:
            drawn = apart(_TERMAID, source, _SECONDS)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError, UnicodeDecodeError):
            return "It is too tangled for a drawing."
        lines = _filled_in(drawn, texts)
        if lines is None:
            return "It is too tangled for a drawing."
        if max(map(cell_len, lines)) <= width:
            return lines
    return why


def _boxes(drawing: Drawing, hidden: set[str], texts: list[str]) -> Iterator[str]:
    """Yield the lines of the flowchart; append to `texts` what each of the marks stands for."""
    shown = [step for step in drawing.steps if step.id not in hidden]
    for step in shown:
        lines = _box(drawing, step)
        wide = max(map(cell_len, lines))
        marks = [chr(_MARKS + len(texts) + at) * wide for at in range(len(lines))]
        texts += [line + " " * (wide - cell_len(line)) for line in lines]
        yield f'n{drawing.numbers[step.id]}["' + "\\n".join(marks) + '"]'
    for step in shown:
        for arrow in drawing.arrows[step.id]:
            if arrow.number is not None and not arrow.back:
                yield f"n{drawing.numbers[step.id]} --> n{arrow.number}"


def _box(drawing: Drawing, step: Step) -> list[str]:
    """Return the lines in the box of a step.

    Events are there instead of at the arrows, because termaid draws one over another.
    """
    number = f"{drawing.numbers[step.id]} "
    lines = [number + short(kind(step), 18)] if kind(step) else []
    lines += fold(headline(step) if lines else number + headline(step), 22, 2, cell_len)
    lines += [f"✗ {short(words(each), 20)}" for each in _wrong(step)]
    for arrow in drawing.arrows[step.id]:
        sign = "✗" if arrow.number is None else "↺" if arrow.back else "→"
        to = short(arrow.missing, 20) if arrow.number is None else arrow.number
        lines.append(f"{short(arrow.events, 14)} {sign} {to}".strip())
    return lines


def _wrong(step: Step) -> list[str]:
    """Return the findings that neither an arrow nor a place in the drawing shows."""
    return [
        each
        for each in step.findings
        if each not in ("loop", "open_event", "broken_link", UNREACHABLE)
    ]


def _filled_in(drawn: str, texts: list[str]) -> list[str] | None:
    """Return the lines of a drawing with `texts` for their marks; None if one is not whole."""
    left = dict(enumerate(texts))

    def text(found: re.Match[str]) -> str:
        line = left.pop(ord(found[1]) - _MARKS, "")
        return line if cell_len(line) == len(found[0]) else "\n\n"

    filled = re.sub(r"([\ue000-\uf8ff])\1*", text, drawn)
    return None if left or "\n\n" in filled else filled.rstrip().split("\n")


# --- a list --------------------------------------------------------------------------------------
def _list(drawing: Drawing, width: int) -> Iterator[str]:
    for step in drawing.steps:
        yield from _item(drawing, step, width)


def _item(drawing: Drawing, step: Step, width: int) -> Iterator[str]:
    """Yield the lines of a step in the list: its name, type and findings, then what follows it."""
    number = f"{drawing.numbers[step.id]}. "
    said = f"{headline(step)} ({kind(step)})" if kind(step) else headline(step)
    found = ", ".join(map(words, step.findings))
    text = short(said, 200) + (f" [{found}]" if found else "")
    yield from _folded(text, width, number, " " * len(number))
    for arrow in drawing.arrows[step.id]:
        to = short(arrow.missing, 60)
        if arrow.number is not None:
            to = f"{arrow.number}. {short(headline(drawing.steps[arrow.number - 1]), 60)}"
        said = f"{short(arrow.events, 100)} {'↺' if arrow.back else '→'} {to}"
        yield from _folded(said.strip(), width, "     ", "       ")

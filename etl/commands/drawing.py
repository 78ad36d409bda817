"""Draw a flow: for a terminal with termaid, and as SVG with Graphviz.

Both lay out in a process of their own. There a flow that takes too much time or memory ends alone,
Ctrl-C ends it at once, and what the libraries write to stderr reaches no terminal.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from rich.cells import cell_len

from etl.errors import ConfigError
from etl.status import picture
from etl.status.drawing import UNREACHABLE, Drawing, Step, fold, headline, kind, short, some, words

MOST_STEPS = 40
"""How many steps a terminal shows as a drawing; termaid takes minutes for some larger flows."""
_MOST_IN_PICTURE = 500
_MARKS = 0xE000
_MOST_MARKS = 0xF8FF - _MARKS
"""Characters for private use, which no name here has: `plain` replaces them."""
_SECONDS = 10.0

_TERMAID = """
import sys
from contextlib import suppress
with suppress(Exception):
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from termaid import render
text = sys.stdin.buffer.read().decode()
drawn = render(text, padding_x=1, padding_y=0, gap=3, max_label_width=200)
sys.stdout.buffer.write(drawn.encode())
"""
_GRAPHVIZ = """
import sys
from pygraphviz import AGraph
graph = AGraph(string=sys.stdin.buffer.read().decode())
sys.stdout.buffer.write(graph.draw(format="svg", prog="dot"))
"""


# --- SVG -----------------------------------------------------------------------------------------
def svg(drawing: Drawing) -> str:
    """Return the flow as SVG, laid out by Graphviz.

    Raises ConfigError if pygraphviz is missing or broken, or the flow is too large.
    """
    if len(drawing.steps) > _MOST_IN_PICTURE:
        raise ConfigError(
            f"{len(drawing.steps):,} steps are too many for a picture"
            f" (up to {_MOST_IN_PICTURE} are drawn)",
            where="picture",
            advice="take the Mermaid text or the list of steps instead",
        )
    return picture.svg(drawing, graphviz)


def graphviz(dot: str, seconds: float = 30.0) -> str:
    """Lay out a graph in DOT and return it as SVG.

    Raises ConfigError if pygraphviz is missing or broken, or if it takes longer than `seconds`.
    """
    if find_spec("pygraphviz") is None:
        raise ConfigError(
            "pygraphviz is not installed",
            where="picture",
            advice="pip install 'callflow[pictures]'",
        )
    try:
        return _apart(_GRAPHVIZ, dot, seconds)
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"Graphviz found no layout within {seconds:g} s",
            where="picture",
            advice="take the Mermaid text or the list of steps instead",
        ) from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise ConfigError(
            f"Graphviz failed: {short(said[-1], 200)}",
            where="picture",
            advice="pip install --force-reinstall 'callflow[pictures]'; if that does not help,"
            " take the Mermaid text instead",
        ) from None


def _apart(code: str, text: str, seconds: float) -> str:
    """Run Python `code` in a process of its own; give it `text` and return what it writes.

    Raises subprocess.TimeoutExpired, and CalledProcessError if it fails.
    """
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(  # noqa: S603 - our own code, and text goes in by stdin alone
        command, input=text.encode(), capture_output=True, timeout=seconds, check=True
    )
    return done.stdout.decode()


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
            drawn = _apart(_TERMAID, source, _SECONDS)
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

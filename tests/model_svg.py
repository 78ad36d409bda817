"""docs/model.svg: the views of the schema `callflow` and how they refer to each other.

Plain shapes at fixed places: the same text on every machine, and readable without a script. The
views stand in columns, and each reference runs in the gap beside the view that it leads to.
"""

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from etl.warehouse.model.contract import FLOW_KEY, FLOW_STEPS, FLOWS
from tests.model_docs import SHOWN, Link, Providers, fed, links, typed

PLACES = (
    ("flow_versions", "entry_points", "channels"),
    ("flows", "changes"),
    ("flow_steps", "flow_findings", "freshness"),
    ("flow_step_links", "flow_step_properties", "flow_references"),
    ("flow_version_steps", "flow_version_links"),
)
"""The views of each column, from the left."""

WIDTH, GAP, MARGIN = 236, 56, 20
LINE, HEAD, SPACE = 18, 42, 26

STYLE = """
text { font: 11.5px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #24292f; }
.name { font-weight: 700; font-size: 13px; fill: #ffffff; }
.from { font-size: 10.5px; fill: #d0e4ff; }
.type { fill: #6e7781; text-anchor: end; }
.key { font-weight: 700; }
.box { fill: #ffffff; stroke: #8c959f; }
.head { fill: #0b4a8f; }
.stripe { fill: #f6f8fa; }
.link { fill: none; stroke: #0b4a8f; stroke-width: 1.3; }
.may { stroke-dasharray: 4 3; }
.dot { fill: #0b4a8f; }
.note { fill: #57606a; }
"""


class Box(NamedTuple):
    """Where a view stands: its column of the picture, its left edge, its top."""

    column: int
    x: int
    y: int


def svg(providers: Providers) -> str:
    """Return the picture."""
    boxes = placed()
    bottom = max(box.y + height(view) for view, box in boxes.items())
    width = 2 * MARGIN + len(PLACES) * WIDTH + (len(PLACES) - 1) * GAP
    names = fed(providers)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom + 46}"'
        f' viewBox="0 0 {width} {bottom + 46}" role="img" aria-label="Views of callflow">',
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *(line for link in drawn() for line in _link(link, boxes)),
        *(line for view, box in boxes.items() for line in _box(view, box, names[view])),
        f'<text class="note" x="{MARGIN}" y="{bottom + 30}">Solid: the row is always there. Dashed:'
        " it may be missing. Join by provider, source, account_id and flow_id, steps also by"
        " step_id.</text>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def placed() -> dict[str, Box]:
    """Return the place of each view. Raises ValueError if PLACES lacks one."""
    found: dict[str, Box] = {}
    for number, views in enumerate(PLACES):
        y = MARGIN
        for view in views:
            found[view] = Box(number, MARGIN + number * (WIDTH + GAP), y)
            y += height(view) + SPACE
    if missing := SHOWN.keys() - found.keys():
        raise ValueError(f"PLACES lacks {', '.join(sorted(missing))}")
    return found


def height(view: str) -> int:
    return HEAD + LINE * len(SHOWN[view]) + 4


def drawn() -> Iterator[Link]:
    """Yield the links of the picture: what has a step belongs to the step's flow."""
    steps = {link.view for link in links() if link.to == FLOW_STEPS.name and not link.optional}
    yield from (link for link in links() if link.to != FLOWS.name or link.view not in steps)


def _middle(view: str, column: str, boxes: dict[str, Box]) -> int:
    """Return the height at which the line of a column of a view is."""
    names = [each.name for each in SHOWN[view]]
    return boxes[view].y + HEAD + LINE * names.index(column) + LINE // 2


def _link(link: Link, boxes: dict[str, Box]) -> Iterator[str]:
    """Yield a line with three toes at the many and a dot at the one."""
    box, to = boxes[link.view], boxes[link.to]
    y, to_y = _middle(link.view, link.column, boxes), _middle(link.to, link.to_column, boxes)
    from_the_left = box.column < to.column or (box.column == to.column and link.to == FLOWS.name)
    to_x = to.x if from_the_left else to.x + WIDTH
    away = GAP // 2 + (6 if link.optional else -6)
    lane = to_x - away if from_the_left else to_x + away
    x = box.x if box.x > lane else box.x + WIDTH
    toe = 9 if x < lane else -9
    kind = "link may" if link.optional else "link"
    yield f'<path class="link" d="M{x} {y - 5}L{x + toe} {y}L{x} {y + 5}"/>'
    yield f'<path class="{kind}" d="M{x} {y}H{lane}V{to_y}H{to_x}"/>'
    yield f'<circle class="dot" cx="{to_x + (-4 if from_the_left else 4)}" cy="{to_y}" r="3.5"/>'


def _box(view: str, box: Box, providers: list[str]) -> Iterator[str]:
    yield f'<rect class="box" x="{box.x}" y="{box.y}" width="{WIDTH}" height="{height(view)}"/>'
    yield f'<rect class="head" x="{box.x}" y="{box.y}" width="{WIDTH}" height="{HEAD - 4}"/>'
    yield f'<text class="name" x="{box.x + 10}" y="{box.y + 16}">{escape(view)}</text>'
    said = escape(", ".join(providers) or "no provider")
    yield f'<text class="from" x="{box.x + 10}" y="{box.y + 31}">{said}</text>'
    keys = {(link.view, link.column) for link in links()}
    keys |= {(FLOWS.name, FLOW_KEY.name), (FLOW_STEPS.name, "step_id")}
    for number, column in enumerate(SHOWN[view]):
        top = box.y + HEAD + LINE * number
        if number % 2:
            yield (
                f'<rect class="stripe" x="{box.x + 1}" y="{top}" width="{WIDTH - 2}"'
                f' height="{LINE}"/>'
            )
        kind = ' class="key"' if (view, column.name) in keys else ""
        yield f'<text{kind} x="{box.x + 10}" y="{top + 13}">{escape(column.name)}</text>'
        right = box.x + WIDTH - 10
        yield f'<text class="type" x="{right}" y="{top + 13}">{typed(column)}</text>'

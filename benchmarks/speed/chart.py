"""docs/performance.svg: seconds of each tool as bars, for lists that peers were measured with."""

from collections.abc import Iterator
from html import escape

from benchmarks.speed.results import Results, Run

PANELS = (
    ("200k", "first load", "Twilio channels, first load"),
    ("200k", "nothing changed", "Twilio channels, nothing changed"),
    ("zoom", "first load", "Zoom flows with children, first load"),
    ("zoom", "nothing changed", "Zoom flows with children, nothing changed"),
)
TOOLS = ("bare", "callflow", "dlt tuned", "dlt default")
WIDTH, LEFT, RIGHT, BAR, HEAD, SPACE = 720, 110, 90, 22, 34, 14

STYLE = """
text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #24292f; }
.title { font-weight: 600; }
.back { fill: #ffffff; }
.bar { fill: #8c959f; }
.callflow { fill: #0969da; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .back { fill: #0d1117; }
  .bar { fill: #6e7681; }
  .callflow { fill: #58a6ff; }
}
"""


def svg(results: Results) -> str:
    """Return the picture; a tool that was not measured has no bar."""
    lines: list[str] = []
    y = SPACE
    for group, step, title in PANELS:
        walls = {tool: results.middle(Run(group, tool, step), "wall") for tool in TOOLS}
        found = {tool: wall for tool, wall in walls.items() if wall is not None}
        if found:
            lines += _panel(f"{results.rows(group):,} {title}", found, y)
            y += HEAD + BAR * len(found) + SPACE
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    said = "Seconds that each tool takes; the tables below have the same figures"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{said}">'
    back = '<rect class="back" width="100%" height="100%"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", back, *lines, "</svg>"]) + "\n"


def _panel(title: str, walls: dict[str, float], y: int) -> Iterator[str]:
    yield f'<text class="title" x="{SPACE}" y="{y + 18}">{escape(title)}, seconds</text>'
    most = max(walls.values())
    for number, (tool, wall) in enumerate(walls.items()):
        top = y + HEAD - 6 + number * BAR
        width = max(1, round((WIDTH - LEFT - RIGHT) * wall / most))
        name = "bar callflow" if tool == "callflow" else "bar"
        yield f'<text x="{LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(tool)}</text>'
        yield f'<rect class="{name}" x="{LEFT}" y="{top + 2}" width="{width}" height="{BAR - 6}"/>'
        yield f'<text x="{LEFT + width + 6}" y="{top + 14}">{wall:.1f}</text>'

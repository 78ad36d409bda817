"""What the pages of sources and flows show, out of what the warehouse answered. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from etl.status.drawing import Drawing, Step
from etl.status.flows import MOST_CHANGES, Row, SourceFlows

FLOWS = 100
"""How many flows one page of a source lists."""
STEPS = 500
"""How many steps the table of a flow lists."""
CHANGES = MOST_CHANGES
ROWS = 50
"""How many entry points, versions or findings the page of a flow lists."""

_SCALE = 1.13  # pixels of the page for a point of Graphviz: 12 pt are 13.6 px
_WIDE = 1150.0
_SMALLEST = 0.8
_TALL = 2000.0


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the flows of a source that match `query`, by name.

    `found` is how many match, `several` whether the source has flows of more than one account.
    """

    source: str
    query: str
    number: int
    pages: int
    found: int
    rows: Sequence[Row]
    several: bool

    def link(self, number: int) -> str:
        """Return the address of another page of the same flows."""
        given = {"q": self.query, "page": "" if number == 1 else str(number)}
        query = urlencode({name: value for name, value in given.items() if value})
        return source_link(self.source) + (f"?{query}" if query else "")


def listed(source: str, its: SourceFlows, query: str, number: str) -> Listing:
    """Return page `number` of the flows with every word of `query` in name, id, status, channel."""
    words = query.casefold().split()
    found = [row for row in its.flows if all(word in _searched(row) for word in words)]
    found.sort(key=lambda row: ((row["name"] or "").casefold(), row["flow_key"]))
    pages = max(1, -(-len(found) // FLOWS))
    wanted = int(number) if number.isdecimal() and len(number) < 7 else 1
    here = min(max(1, wanted), pages)
    return Listing(
        source=source,
        query=query,
        number=here,
        pages=pages,
        found=len(found),
        rows=found[(here - 1) * FLOWS : here * FLOWS],
        several=len({row["account_id"] for row in its.flows}) > 1,
    )


def _searched(row: Row) -> str:
    said = (row["name"], row["flow_key"], row["status"], row["channel"], row["modified_by"])
    return " ".join(filter(None, said)).casefold()


def source_link(source: str) -> str:
    """Return the address of the page of a source."""
    return f"/source/{quote(source, safe='')}"


def flow_link(key: str) -> str:
    """Return the address of the page of a flow, by its flow_key."""
    return f"/flow?{urlencode({'key': key})}"


def key_beside(row: Row, flow_id: str) -> str:
    """Return the flow_key of another flow of the same account as the flow `row`."""
    return "/".join(filter(None, (row["source"], row["account_id"], flow_id)))


def fitted(svg: str) -> tuple[str, bool]:
    """Return a picture of Graphviz with words about as large as the page's; whether it is tall.

    A picture that would then be wider than the page is made smaller, but not so that its words
    could not be read: it is scrolled instead. So is a tall one.
    """
    svg = svg.replace('aria-label=""', 'aria-label="The steps"', 1)
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    if size is None:
        return svg, False
    width, height = float(size[1]), float(size[2])
    scale = max(min(_SCALE, _WIDE / width), _SMALLEST) if width else _SCALE
    sized = f'width="{width * scale:.0f}" height="{height * scale:.0f}"'
    return svg.replace(size[0], sized, 1), height * scale > _TALL


def what_follows(drawing: Drawing, step: Step) -> Sequence[tuple[str, bool, Step | None, str]]:
    """Return for each arrow of `step` its events, if it goes back, the next step, what is missing.

    If there is no next step, what is missing says so in words.
    """
    return [
        (
            arrow.events,
            arrow.back,
            None if arrow.number is None else drawing.steps[arrow.number - 1],
            arrow.missing,
        )
        for arrow in drawing.arrows[step.id]
    ]

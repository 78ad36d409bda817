"""The cost model: a line through what runs of several sizes cost, and what follows from it."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.speed.results import SIZES, Results, mine

PAGE, PACE = 1_000, 5.0
"""Rows on a page, pages a second: Twilio's maximum, and callflow's default pace for it."""
NIGHT = 8 * 3600


class Line(NamedTuple):
    """`fixed` + `each` × rows; `off` is the largest deviation from a measurement, as a share."""

    fixed: float
    each: float
    off: float


def line(points: Sequence[tuple[float, float]]) -> Line | None:
    """Return the line through (rows, cost) with the smallest relative deviations; None for one.

    It has no negative part: a negative fixed part becomes none, and so does one for each row, which
    only noise makes.
    """
    points = [(x, y) for x, y in points if y > 0]
    if len(points) < 2:
        return None
    weights = [1 / y**2 for _, y in points]
    w = sum(weights)
    mean_x = sum(k * x for k, (x, _) in zip(weights, points, strict=True)) / w
    mean_y = sum(k * y for k, (_, y) in zip(weights, points, strict=True)) / w
    spread = sum(k * (x - mean_x) ** 2 for k, (x, _) in zip(weights, points, strict=True))
    both = sum(k * (x - mean_x) * (y - mean_y) for k, (x, y) in zip(weights, points, strict=True))
    each, fixed = both / spread, mean_y - both / spread * mean_x
    if each < 0:
        each, fixed = 0.0, mean_y
    if fixed < 0:
        squares = sum(k * x * x for k, (x, _) in zip(weights, points, strict=True))
        each = sum(k * x * y for k, (x, y) in zip(weights, points, strict=True)) / squares
        fixed = 0.0
    return Line(fixed, each, max(abs(fixed + each * x - y) / y for x, y in points))


def growth(results: Results, step: str, figure: str) -> Line | None:
    """Return how a figure of a step grows with the channels."""
    return line(
        [
            (rows, value)
            for size in SIZES
            if (rows := results.rows(size)) is not None
            and (value := results.middle(mine(size, step), figure)) is not None
        ]
    )


def per_change(results: Results, step: str, changed: Callable[[int], float], figure: str
               ) -> float | None:  # fmt: skip
    """Return what each changed row adds to a run without a change, at the largest size."""
    for size in reversed(SIZES):
        rows = results.rows(size)
        quiet = results.middle(mine(size, "nothing changed"), figure)
        busy = results.middle(mine(size, step), figure)
        if rows and quiet is not None and busy is not None:
            return (busy - quiet) / changed(rows)
    return None


def per_run(results: Results, step: str) -> tuple[float, float] | None:
    """Return the peak memory of one run, and what each further run at the same time adds."""
    one, all_ = (
        results.middle(mine("200k", step), "peak"),
        results.middle(mine("eight", step), "peak"),
    )
    return None if one is None or all_ is None else (one, max(0.0, all_ - one) / 7)


def at_least(pages: int, pace: float = PACE, latency: float = 0.15) -> float:
    """Return the seconds that a list takes any client: a request every 1/pace, the last answer."""
    return (pages - 1) * max(1 / pace, latency) + latency


def share(results: Results, step: str) -> tuple[int, float, float | None] | None:
    """Return pages, the provider's share of the wall time, and that of a list of 1,000 pages.

    The last one is derived: what is not waiting grows with the pages, except for the start, for
    which `callflow --version` stands. It is None for a list too short to say.
    """
    rows, wall = results.rows("paced"), results.middle(mine("paced", step), "wall")
    start = results.middle(mine("start-up", "--version"), "wall") or 0.0
    if rows is None or wall is None:
        return None
    pages = math.ceil(rows / PAGE)
    if pages < 100:
        return pages, at_least(pages) / wall, None
    rest = max(0.0, wall - at_least(pages) - start) * 1_000 / pages + start
    return pages, at_least(pages) / wall, at_least(1_000) / (at_least(1_000) + rest)

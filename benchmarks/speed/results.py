"""The lines that were measured, and medians and ratios of them."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

SIZES = ("200k", "1m", "3m")
"""The groups that load Twilio channels into the same server."""


class Run(NamedTuple):
    """Which runs are meant: a group, a tool of it, a step of that."""

    group: str
    tool: str
    step: str


@dataclass(frozen=True, slots=True)
class Results:
    """What one benchmark measured: the machine and the options, and a line for each run."""

    machine: dict[str, Any]
    lines: Sequence[dict[str, Any]]

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if "error" in line]

    @property
    def runs(self) -> list[Run]:
        """Which runs were measured, in the order of the first time."""
        return list(dict.fromkeys(_run(line) for line in self.lines if "error" not in line))

    def of(self, run: Run, figure: str) -> dict[int, float]:
        """Return a figure of a run by repetition; those that have it."""
        return {
            line["repetition"]: line[figure]
            for line in self.lines
            if _run(line) == run and "error" not in line and line.get(figure) is not None
        }

    def middle(self, run: Run, figure: str) -> float | None:
        """Return the median of a figure of a run; None if it was not measured."""
        return statistics.median(found) if (found := self.of(run, figure).values()) else None

    def ratio(self, run: Run, other: Run, figure: str = "wall") -> float | None:
        """Return the median of the ratios of the repetitions that measured both; None if none."""
        ones, others = self.of(run, figure), self.of(other, figure)
        found = [ones[each] / others[each] for each in ones if others.get(each)]
        return statistics.median(found) if found else None

    def rows(self, group: str) -> int | None:
        """Return the records of a group's list; None if it was not measured."""
        return next((line["rows"] for line in self.lines if line["group"] == group), None)


def _run(line: dict[str, Any]) -> Run:
    return Run(line["group"], line["tool"], line["step"])


def read(file: Path) -> Results:
    """Read what `python -m benchmarks.speed` has written."""
    first, *lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return Results(first["machine"], lines)


def mine(group: str, step: str) -> Run:
    """Return a run of callflow."""
    return Run(group, "callflow", step)

"""The small chart of a stream's last runs: where its bars are, and words that say the same.

A bar's length upwards is how long the run took, downwards how many rows it changed. The scale is
that of the complete runs: a longer bar is cut, and has a gap near its end. Below a bar is a mark if
the run did not end well, so that nothing is shown by colour alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from etl.load.runs import Run
from etl.status.words import run_word, span

SLOTS = 30
WIDTH, HEIGHT = 240, 54
_SLOT, _BAR = WIDTH // SLOTS, 6
_UP, _ZERO, _DOWN = 30.0, 32.0, 11.0
_CUT = 1.02  # a bar this much longer than the scale is cut

# Drawn from the left edge of the slot's bar, below everything else.
_MARKS = {
    "failed": "M{x} 48l5 5m0 -5l-5 5",
    "incomplete": "M{x} 53h5l-2.5 -5z",
    "busy": "M{x} 51h5",
    "not_available": "M{x} 48.5h5v4h-5z",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One run. `x` is the left edge of its slot; the others are SVG paths, empty for no mark."""

    x: int
    status: str
    title: str
    duration: str
    changed: str
    mark: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The bars from old to new, `words` that say what they show, and what the tallest stand for.

    The tallest upwards is the longest complete run, or the longest one if none is complete.
    """

    bars: tuple[Bar, ...]
    words: str
    longest: str
    most: str


def chart(runs: Sequence[Run]) -> Chart | None:
    """Return the chart of `runs` (newest first; the last 30 are shown); None if there are none."""
    shown = runs[:SLOTS]
    if not shown:
        return None
    whole = [seconds(run) for run in shown if run.status == "complete"]
    longest = max(whole, default=0.0) or max(map(seconds, shown))
    most = max(changed(run) for run in shown)
    bars = []
    for place, run in enumerate(reversed(shown), start=SLOTS - len(shown)):
        x = place * _SLOT
        # At least half a unit: a run that took no time must be seen too.
        up = max(0.5, _UP * seconds(run) / longest if longest else 0.0)
        cut = up > _UP * _CUT
        down = max(1.0, _DOWN * changed(run) / most) if changed(run) else 0.0
        bars.append(
            Bar(
                x=x,
                status=run.status,
                title=_title(run),
                duration=_cut_bar(x + 1) if cut else _bar(x + 1, _ZERO - up, up),
                changed=_bar(x + 1, _ZERO + 2, down) if down else "",
                mark=_MARKS.get(run.status, "").format(x=x + 1.5),
            )
        )
    counts = Counter(run_word(run) for run in shown)
    each = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    kind = "longest complete one" if 0 < len(whole) < len(shown) else "longest"
    words = f"The last {len(shown)} runs: {each}; the {kind} took {took(longest)}"
    words += f", the most rows changed are {most:,}." if most else ", none changed a row."
    rows = f"{_short(most)} row{'s' * (most != 1)}" if most else "no rows"
    return Chart(tuple(bars), words, took(longest), rows)


def _bar(x: int, top: float, height: float) -> str:
    return f"M{x} {top:.3g}h{_BAR}v{height:.3g}h-{_BAR}z"


def _cut_bar(x: int) -> str:
    """Return a bar of full height with a slanting gap near its upper end."""
    return f"M{x} 2h{_BAR}v3l-{_BAR} 3zM{x} {_ZERO:g}v-21l{_BAR} -3v24z"


def seconds(run: Run) -> float:
    """Return the seconds that the run took; 0 if the clock was set back or it has no end."""
    return max(0.0, (run.finished_at - run.started_at).total_seconds()) if run.finished_at else 0.0


def took(length: float) -> str:
    """Return a length of time in seconds for people: "0.4s", "1m 5s"."""
    return f"{length:.1f}s" if length < 9.95 else span(length, 2)


def changed(run: Run) -> int:
    """Return how many rows the run inserted, updated or deleted."""
    return run.inserted + run.updated + run.deleted


def changes(run: Run) -> str:
    """Return what the run did, in words: "3 new, 1 changed, 1 gone"."""
    counts = (
        (run.inserted, "new"),
        (run.updated, "changed"),
        (run.deleted, "gone"),
        (run.rejected, "rejected"),
    )
    return ", ".join(f"{count:,} {word}" for count, word in counts if count) or "nothing changed"


def _title(run: Run) -> str:
    return (
        f"{run.started_at:%Y-%m-%d %H:%M:%S} UTC, {run_word(run)}, {took(seconds(run))}:"
        f" {changes(run)}"
    )


def _short(count: int) -> str:
    """Return a count in at most five characters, which is all the room: 950, 1.2k, 44k, 1.0M."""
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.{int(count < 10 * size)}f}{letter}"
    return str(count)

"""The random histories of the suite, and a check that their checker finds wrong algorithms.

HISTORIES=2000 plays 2000 of them instead of one of each mode; CALLFLOW_TEST_SEED=… repeats them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from etl.warehouse.embedded import find_binaries
from tests.postgres import Cluster
from tests.sync.checker import Outcome
from tests.sync.histories import PRODUCT, Player, failures, in_turn, play_all, players, report
from tests.sync.simulation import MODES

pytestmark = pytest.mark.slow

HISTORIES = int(os.environ.get("HISTORIES", len(MODES)))

UPDATED, KEYSET, ALIBABA = "zoom/offset/updated", "zoom/keyset", "alibaba/offset/updated"

FAILING_SEEDS = {UPDATED: (2, 5), KEYSET: (4, 26), ALIBABA: (3, 4)}
"""Mode → seeds of histories in which the wrong algorithms fail. After a change to the histories,
look for new ones: `python -m tests.sync.histories --algorithm absent_twice --mode …`."""

CAUGHT = {
    "naive_delete": (UPDATED, {"false delete"}),
    "absent_twice": (UPDATED, {"false delete"}),
    "no_anchors": (ALIBABA, {"false delete", "missing in a complete run"}),
    "open_watermark": (KEYSET, {"missing in a complete run", "lost"}),
    "watermark_per_page": (KEYSET, {"watermark", "missing in a complete run", "lost"}),
    "watermark_before_rows": (KEYSET, {"watermark", "missing in a complete run", "lost"}),
}
"""Wrong algorithm → the mode in which it fails, and the kinds of findings."""


@pytest.fixture(scope="module")
def two_players(clusters: Callable[[Path], Cluster]) -> Iterator[list[Player]]:
    """Yield two processes that play side by side, each on its own warehouse."""
    cluster = clusters(find_binaries(os.environ))
    with ExitStack() as stack:
        urls = [stack.enter_context(cluster.database(template=cluster.migrated)) for _ in range(2)]
        yield stack.enter_context(players(urls))


@pytest.fixture(scope="module")
def kinds(two_players: list[Player]) -> dict[tuple[str, str], set[str]]:
    """Map algorithm and mode to the kinds of findings in the histories of FAILING_SEEDS."""
    cases = [(mode, algorithm) for algorithm, (mode, _) in CAUGHT.items()]
    cases += [(mode, PRODUCT) for mode in FAILING_SEEDS] + [(KEYSET, "closed_watermark")]
    histories = [(mode, seed, name) for mode, name in cases for seed in FAILING_SEEDS[mode]]
    found: dict[tuple[str, str], set[str]] = {(name, mode): set() for mode, name in cases}
    for outcome in play_all(two_players, histories):
        found[outcome.algorithm, outcome.mode] |= {finding.kind for finding in outcome.findings}
    return found


def problems(outcomes: list[Outcome]) -> str:
    """Return the findings, the commands that repeat them, and the table; "" if there are none."""
    found = [line for outcome in outcomes for line in failures(outcome)]
    return "\n".join([*found, *report(outcomes)]) if found else ""


@pytest.mark.fault(14)
def test_the_warehouse_is_right_whatever_happens_to_the_source(
    two_players: list[Player], seed: int
) -> None:
    outcomes = play_all(two_players, in_turn(list(MODES), seed, HISTORIES))
    assert not problems(outcomes)
    if len(MODES) <= HISTORIES:  # enough for everything that can happen
        for what in ("complete", "incomplete", "crashed", "incremental", "operations"):
            assert sum(getattr(outcome, what) for outcome in outcomes) > 0, what


@pytest.mark.more
def test_the_same_seed_repeats_a_history_exactly(two_players: list[Player], seed: int) -> None:
    modes = [UPDATED, "twilio.channels/offset/updated", ALIBABA]
    first, again = (play_all(two_players[:count], in_turn(modes, seed, 3)) for count in (1, 2))
    assert sorted(map(repr, first)) == sorted(map(repr, again))
    assert all(len(outcome.trace) == outcome.runs >= 8 for outcome in first)


@pytest.mark.more
@pytest.mark.parametrize("algorithm", CAUGHT)
def test_a_wrong_algorithm_is_caught(
    kinds: dict[tuple[str, str], set[str]], algorithm: str
) -> None:
    mode, caught = CAUGHT[algorithm]
    assert caught <= kinds[algorithm, mode]


@pytest.mark.more
@pytest.mark.parametrize("mode", FAILING_SEEDS)
def test_the_product_is_right_where_wrong_algorithms_are_caught(
    kinds: dict[tuple[str, str], set[str]], mode: str
) -> None:
    assert kinds[PRODUCT, mode] == set()


@pytest.mark.more
def test_a_watermark_with_an_overlap_that_is_saved_last_loses_nothing(
    kinds: dict[tuple[str, str], set[str]],
) -> None:
    """So the three wrong algorithms fail because of their mistakes, not because of watermarks."""
    assert kinds["closed_watermark", KEYSET].isdisjoint(
        {"lost", "watermark", "missing in a complete run"}
    )

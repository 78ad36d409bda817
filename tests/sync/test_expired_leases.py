"""Two or three processes on one warehouse, some of which are stopped until their lease has expired.

STALE_RUNS=… sets how many of them are stopped at random instants.
"""

import os
import signal
from contextlib import ExitStack
from random import Random

import pytest

from tests.postgres import ask
from tests.sync import kills
from tests.sync.kills import NamedPoint, Tally
from tests.sync.processes import Point
from tests.sync.reference import STREAMS, Harness

pytestmark = pytest.mark.slow

RANDOM_STALE_RUNS = int(os.environ.get("STALE_RUNS", "8"))

ZOOM = "zoom_demo.flows"
CHANNELS = "twilio_demo.channels"


@pytest.mark.fault(61)
def test_one_of_two_runs_that_start_at_once_works_and_the_other_is_busy(
    harness: Harness, seed: int
) -> None:
    """If the other one started a stream late, it finds the stream done."""
    scenario = harness.scenario(STREAMS, "all", Random(seed))
    with kills.slowed(harness, 0.2), harness.start(STREAMS) as one, harness.start(STREAMS) as other:
        one.finish()
        other.finish()
    both = [("complete", None), ("complete", None)]
    for name in STREAMS:
        states = sorted((run.status, run.error_kind) for run in (one.runs[name], other.runs[name]))
        assert states in ([("busy", "busy"), ("complete", None)], both)
        assert states != both or one.runs[name].rows_written * other.runs[name].rows_written == 0
    harness.restart(scenario)


FREE_POINTS = [named for named in kills.NAMED_POINTS if named.name in kills.LEASE_FREE_POINTS]


@pytest.mark.fault(62)
@pytest.mark.parametrize("named", FREE_POINTS, ids=lambda named: named.name)
def test_a_run_stopped_at_a_named_point_writes_nothing_after_a_takeover(
    harness: Harness, named: NamedPoint, seed: int
) -> None:
    scenario = harness.scenario((named.stream,), named.start, Random(f"{seed} {named.name}"))
    with kills.slowed(harness, named.slow):
        came_to = kills.resume_stale_run(harness, scenario, point=named.point)
    if named.name == "direct first load: lease not checked":
        assert came_to == "blocked"  # by rows that the stopped run had copied, not committed
    elif named.name == "direct first load: copying":
        assert came_to in (
            "blocked",
            "fenced",
        )  # depends on how many of them the server had received
    else:
        assert came_to == "fenced"


def test_every_lease_free_point_exists() -> None:
    assert [named.name for named in FREE_POINTS] == list(kills.LEASE_FREE_POINTS)


@pytest.mark.parametrize(
    "point",
    [
        Point("commit", "INSERT INTO etl.runs"),
        Point("after", "INSERT INTO zoom.flows "),
        Point("commit", "ANALYZE"),
    ],
)
def test_a_run_that_is_stopped_while_it_writes_keeps_its_lease(
    harness: Harness, point: Point, seed: int
) -> None:
    scenario = harness.scenario((ZOOM,), "all", Random(seed))
    assert kills.resume_stale_run(harness, scenario, point=point) == "locked"


def test_a_run_that_finds_the_lease_row_locked_says_so_and_ends(
    harness: Harness, seed: int
) -> None:
    """While the holder is stopped inside its merge no run can take over, and none waits forever."""
    scenario = harness.scenario((ZOOM,), "all", Random(seed))
    point = Point("commit", "INSERT INTO etl.runs")
    with harness.start(scenario.names, point=point, signal=signal.SIGSTOP) as holder:
        assert kills.suspend(harness, holder, None)
        runs, _ = harness.run(scenario.names, lock_timeout="500ms")
        assert (runs[ZOOM].status, runs[ZOOM].error_kind) == ("busy", "busy")
        assert "another run holds the lease" in str(runs[ZOOM].error)
        holder.send(signal.SIGCONT)
        holder.finish()
        assert holder.runs[ZOOM].status == "complete"
    assert harness.verify(scenario) == {ZOOM: True}
    harness.restart(scenario)


POINTS = {named.name: named.point for named in kills.NAMED_POINTS}


@pytest.mark.parametrize("successor_at", ["a batch staged", "settled"])
@pytest.mark.parametrize(
    "stale_at", ["staging made", "a batch staged, the lease not checked", "settled"]
)
def test_a_stale_run_that_resumes_does_not_disturb_its_successor(
    harness: Harness, stale_at: str, successor_at: str, seed: int
) -> None:
    """The successor is in the middle of a scan, and uses the same staging tables and checkpoint."""
    scenario = harness.scenario((ZOOM,), "empty", Random(seed))
    stop = signal.SIGSTOP
    with ExitStack() as stack:
        stale = stack.enter_context(
            harness.start(scenario.names, point=POINTS[stale_at], signal=stop)
        )
        assert kills.suspend(harness, stale, None)
        assert kills.end_lease(harness, ZOOM, stale) == "ended"
        successor = stack.enter_context(
            harness.start(scenario.names, point=POINTS[successor_at], signal=stop)
        )
        assert kills.suspend(harness, successor, None)
        assert harness.rows([ZOOM], staging=True)[ZOOM]['"staging"."zoom_demo__flows"']
        kills.resume_after_takeover(harness, ZOOM, stale)
        successor.send(signal.SIGCONT)
        successor.finish()
        assert (successor.runs[ZOOM].status, successor.runs[ZOOM].error) == ("complete", None)
    assert harness.verify(scenario) == {ZOOM: True}
    harness.restart(scenario)


@pytest.mark.more
@pytest.mark.fault(62)
def test_runs_stopped_at_random_instants(harness: Harness, seed: int) -> None:
    """Stop RANDOM_STALE_RUNS runs, and more until one is fenced: where a run stops is random."""
    tally = Tally()
    for _ in kills.stale_runs_at_random(harness, Random(seed), 5 * RANDOM_STALE_RUNS, tally):
        if tally.stale_runs.total() >= RANDOM_STALE_RUNS and tally.stale_runs["fenced"]:
            break
    harness.converge()
    assert tally.stale_runs["fenced"] > 0, tally.stale_runs


def test_every_new_holder_has_a_higher_epoch(harness: Harness, seed: int) -> None:
    harness.wipe([ZOOM])
    epochs = []
    for _ in range(3):
        harness.run([ZOOM])
        with harness.querying() as connection:
            query = "SELECT epoch FROM etl.leases WHERE source = 'zoom_demo' AND stream = 'flows'"
            epochs += [epoch for (epoch,) in ask(connection, query)]
    assert epochs == [1, 2, 3]
    harness.wipe([ZOOM])

"""Two and three processes on one warehouse; some sleep past the end of their lease and wake up.

ZOMBIES=… sets how many there are that are stopped at random instants.
"""

import os
import signal
from contextlib import ExitStack
from random import Random

import pytest

from tests.postgres import ask
from tests.sync import kills
from tests.sync.kills import Named, Tally
from tests.sync.twins import STREAMS, World
from tests.sync.victims import Point

pytestmark = pytest.mark.slow

RANDOM_ZOMBIES = int(os.environ.get("ZOMBIES", "8"))

ZOOM = "zoom_demo.flows"
CHANNELS = "twilio_demo.channels"


@pytest.mark.fault(61)
def test_of_two_that_start_at_once_one_works_and_one_is_busy(world: World, seed: int) -> None:
    """Or, if the other one was late for a stream, it finds it done."""
    scene = world.scene(STREAMS, "all", Random(seed))
    with kills.slowed(world, 0.2), world.bear(STREAMS) as one, world.bear(STREAMS) as other:
        one.finish()
        other.finish()
    both = [("complete", None), ("complete", None)]
    for name in STREAMS:
        states = sorted((run.status, run.error_kind) for run in (one.runs[name], other.runs[name]))
        assert states in ([("busy", "busy"), ("complete", None)], both)
        assert states != both or one.runs[name].rows_written * other.runs[name].rows_written == 0
    world.restart(scene)


SLEEPY = [named for named in kills.NAMED if named.name in kills.SLEEPY]


@pytest.mark.fault(62)
@pytest.mark.parametrize("named", SLEEPY, ids=lambda named: named.name)
def test_a_zombie_that_was_stopped_at_a_named_point_writes_nothing(
    world: World, named: Named, seed: int
) -> None:
    scene = world.scene((named.stream,), named.start, Random(f"{seed} {named.name}"))
    with kills.slowed(world, named.slow):
        came_to = kills.wake_a_zombie(world, scene, point=named.point)
    if named.name == "short first load: lease not checked":
        assert came_to == "blocked"  # by rows that it had copied, but not committed
    elif named.name == "short first load: copying":
        assert came_to in ("blocked", "fenced")  # as much of them as the server had
    else:
        assert came_to == "fenced"


def test_every_point_for_zombies_exists() -> None:
    assert [named.name for named in SLEEPY] == list(kills.SLEEPY)


@pytest.mark.parametrize(
    "point",
    [
        Point("commit", "INSERT INTO etl.runs"),
        Point("after", "INSERT INTO zoom.flows "),
        Point("commit", "ANALYZE"),
    ],
)
def test_a_run_that_is_stopped_while_it_writes_cannot_be_robbed(
    world: World, point: Point, seed: int
) -> None:
    scene = world.scene((ZOOM,), "all", Random(seed))
    assert kills.wake_a_zombie(world, scene, point=point) == "locked"


def test_who_finds_the_lease_s_row_locked_says_so_and_ends(world: World, seed: int) -> None:
    """The holder was stopped inside its merge: no run can take over, and none waits forever."""
    scene = world.scene((ZOOM,), "all", Random(seed))
    point = Point("commit", "INSERT INTO etl.runs")
    with world.bear(scene.names, point=point, signal=signal.SIGSTOP) as sleeper:
        assert kills.freeze(world, sleeper, None)
        runs, _ = world.run(scene.names, lock_timeout="500ms")
        assert (runs[ZOOM].status, runs[ZOOM].error_kind) == ("busy", "busy")
        assert "another run holds the lease" in str(runs[ZOOM].error)
        sleeper.send(signal.SIGCONT)
        sleeper.finish()
        assert sleeper.runs[ZOOM].status == "complete"
    assert world.judge(scene) == {ZOOM: True}
    world.restart(scene)


POINTS = {named.name: named.point for named in kills.NAMED}


@pytest.mark.parametrize("heir_s", ["a batch staged", "settled"])
@pytest.mark.parametrize(
    "zombie_s", ["staging made", "a batch staged, the lease not checked", "settled"]
)
def test_a_zombie_that_wakes_up_does_not_disturb_who_is_at_work(
    world: World, zombie_s: str, heir_s: str, seed: int
) -> None:
    """Its heir is in the middle of a scan: staged rows and checkpoint are the heir's too."""
    scene = world.scene((ZOOM,), "empty", Random(seed))
    stop = signal.SIGSTOP
    with ExitStack() as stack:
        zombie = stack.enter_context(world.bear(scene.names, point=POINTS[zombie_s], signal=stop))
        assert kills.freeze(world, zombie, None)
        assert kills.end_lease(world, ZOOM, zombie) == "ended"
        heir = stack.enter_context(world.bear(scene.names, point=POINTS[heir_s], signal=stop))
        assert kills.freeze(world, heir, None)
        assert world.rows([ZOOM], staging=True)[ZOOM]['"staging"."zoom_demo__flows"']
        kills.wake(world, ZOOM, zombie)
        heir.send(signal.SIGCONT)
        heir.finish()
        assert (heir.runs[ZOOM].status, heir.runs[ZOOM].error) == ("complete", None)
    assert world.judge(scene) == {ZOOM: True}
    world.restart(scene)


@pytest.mark.more
@pytest.mark.fault(62)
def test_zombies_at_random_instants(world: World, seed: int) -> None:
    """So many, and more of them until one was fenced: where a run stops is a matter of luck."""
    tally = Tally()
    for _ in kills.zombies_at_random(world, Random(seed), 5 * RANDOM_ZOMBIES, tally):
        if tally.zombies.total() >= RANDOM_ZOMBIES and tally.zombies["fenced"]:
            break
    world.quieten()
    assert tally.zombies["fenced"] > 0, tally.zombies


def test_every_new_holder_has_a_higher_epoch(world: World, seed: int) -> None:
    world.wipe([ZOOM])
    epochs = []
    for _ in range(3):
        world.run([ZOOM])
        with world.asking() as connection:
            query = "SELECT epoch FROM etl.leases WHERE source = 'zoom_demo' AND stream = 'flows'"
            epochs += [epoch for (epoch,) in ask(connection, query)]
    assert epochs == [1, 2, 3]
    world.wipe([ZOOM])

"""kill -9 at any instant, of callflow or of Postgres; scans that go on; SIGTERM and SIGINT.

KILLS=… sets how many kills at random instants there are; each named point is there once besides.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from etl.sandbox import twilio
from etl.sandbox.exchange import Response, json_response
from etl.sandbox.faults import Fault
from etl.warehouse.embedded import find_binaries
from tests.machine import slowness
from tests.postgres import Cluster, ask, dsn
from tests.sync import kills
from tests.sync.kills import Named, Tally
from tests.sync.twins import STREAMS, Scene, World, do, happen, state_of
from tests.sync.victims import Nursery, Point, ViolationError
from tests.warm import Warm

pytestmark = pytest.mark.slow

RANDOM_KILLS = int(os.environ.get("KILLS", "20"))

CHANNELS = "twilio_demo.channels"
ZOOM = "zoom_demo.flows"


@pytest.fixture(scope="module")
def undone(
    clusters: Callable[[Path], Cluster], nursed: tuple[str, Nursery], seed: int
) -> Iterator[tuple[World, Scene]]:
    """A world of its own, and a run that does not get through, only at the very end."""
    cluster = clusters(find_binaries(os.environ))
    with (
        cluster.database(template=cluster.migrated) as url,
        kills.a_world(url, nursed[1]) as world,
    ):
        scene = world.scene((ZOOM,), "all", Random(seed))
        yield world, scene
        assert world.restart(scene)[ZOOM].status == "complete"


@pytest.mark.more
@pytest.mark.fault(59)
def test_kills_at_random_instants(world: World, seed: int) -> None:
    tally = Tally()
    for _ in kills.kill_at_random(world, Random(seed), RANDOM_KILLS, tally):
        pass
    assert tally.kills["random"] >= RANDOM_KILLS
    assert tally.random_under_way >= 0.6 * tally.kills["random"], "\n".join(tally.lines())


@pytest.mark.fault(59)
@pytest.mark.parametrize("named", kills.NAMED, ids=lambda named: named.name)
def test_kill_at_a_named_point(world: World, named: Named, seed: int) -> None:
    random = Random(f"{seed} {named.name}")
    assert kills.kill_at(world, named, random), f"no run came to {named.point}"


def test_there_are_enough_named_points_and_each_has_a_name_of_its_own() -> None:
    assert len({named.name for named in kills.NAMED}) == len(kills.NAMED) >= 25
    assert {named.stream for named in kills.NAMED} >= {ZOOM, CHANNELS, "alibaba_demo.contact_flows"}


def test_a_run_that_is_killed_again_and_again_ends_where_it_should(world: World, seed: int) -> None:
    scene = world.scene(STREAMS, "all", Random(seed))
    for nth in range(1, 12, 2):
        with world.bear(scene.names, point=Point("commit", "UPDATE etl.leases", nth)) as child:
            child.finish()
        assert child.code == -signal.SIGKILL
        if any(world.judge(scene).values()):
            break
    world.restart(scene)


def test_readers_see_a_run_whole_or_not_at_all(world: World, seed: int) -> None:
    """One reader after the other, each with one snapshot, while runs go on."""
    scene = world.scene((ZOOM,), "all", Random(seed))
    seen = []
    with psycopg.connect(dsn(world.url)) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with world.bear(scene.names) as child:
            while child.code is None:
                with reader.transaction():
                    seen.append(state_of(reader, "zoom_demo", world.stream(ZOOM)))
                child.wait(lambda: False, 0.001)
        assert child.runs[ZOOM].status == "complete"
    assert len(seen) > 5
    assert all(state in (scene.before[ZOOM], scene.after[ZOOM]) for state in seen)
    assert seen[0] == scene.before[ZOOM]
    world.restart(scene)


# -- the harness itself --------------------------------------------------------------------------


@contextmanager
def rolled_back(world: World, statement: str) -> Iterator[None]:
    """Something is wrong in the warehouse for a while, for the world's own connection only."""
    with world.asking() as connection:
        do(connection, "BEGIN")
        do(connection, statement)
        yield
        do(connection, "ROLLBACK")


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("DELETE FROM zoom.entry_points WHERE source = 'zoom_demo'", "torn"),
        ("DELETE FROM zoom.flow_versions WHERE source = 'zoom_demo' AND flow_version = 1", "torn"),
        ("UPDATE zoom.flows SET status = 'x' WHERE source = 'zoom_demo'", "torn"),
        ("UPDATE zoom.flows SET status = status WHERE source = 'zoom_demo'", "torn"),
        (
            "UPDATE etl.streams SET watermark = watermark + interval '1 day'"
            " WHERE source = 'zoom_demo'",
            "torn",
        ),
        (
            "INSERT INTO history.zoom_flows SELECT *, valid_from + interval '1 day'"
            " FROM zoom.flows WHERE source = 'zoom_demo'",
            "torn",
        ),
        (
            "UPDATE zoom.flow_versions SET valid_from = valid_from - interval '1 day'"
            " WHERE source = 'zoom_demo'",
            "torn",
        ),
        ("DELETE FROM etl.runs WHERE source = 'zoom_demo'", "torn"),
    ],
)
def test_the_judge_sees_a_run_that_left_a_part(
    undone: tuple[World, Scene], damage: str, kind: str
) -> None:
    world, scene = undone
    assert world.judge(scene) == {ZOOM: False}
    with rolled_back(world, damage), pytest.raises(ViolationError) as caught:
        world.judge(scene)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("DELETE FROM zoom.entry_points WHERE source = 'zoom_demo'", "lost"),
        (
            "INSERT INTO zoom.entry_points (source, flow_id, entry_id, valid_from)"
            " SELECT source, flow_id, 'another', valid_from FROM zoom.flows"
            " WHERE source = 'zoom_demo'",
            "doubled",
        ),
        (
            "INSERT INTO history.zoom_flows SELECT *, valid_from + interval '1 day'"
            " FROM zoom.flows WHERE source = 'zoom_demo'",
            "doubled",
        ),
        (
            "UPDATE zoom.entry_points SET valid_from = valid_from - interval '1 day'"
            " WHERE source = 'zoom_demo'",
            "torn",
        ),
        (
            "UPDATE etl.leases SET until = now() + interval '1 minute' WHERE source = 'zoom_demo'",
            "leftover",
        ),
        ("UPDATE etl.streams SET rows = rows + 1 WHERE source = 'zoom_demo'", "leftover"),
    ],
)
def test_the_comparison_sees_what_a_restart_left_wrong(
    world: World, damage: str, kind: str, seed: int
) -> None:
    if not world.committed(ZOOM):
        world.restart(world.scene((ZOOM,), "same", Random(seed)))
    world.compare(ZOOM)
    with rolled_back(world, damage), pytest.raises(ViolationError) as caught:
        world.compare(ZOOM)
    assert caught.value.kind == kind


# -- Postgres ------------------------------------------------------------------------------------


@pytest.mark.fault(46, 59)
def test_kill_of_postgres_itself(nursed: tuple[str, Nursery], seed: int) -> None:
    _, nursery = nursed
    random = Random(seed)
    with (
        kills.fragile() as cluster,
        kills.a_world(cluster.server.url(), nursery) as world,
    ):
        for point in (
            Point("committed", "UPDATE etl.leases", 2),  # rows are staged
            Point("after", "INSERT INTO zoom.flows "),  # in the merge
            Point("committed", "INSERT INTO etl.runs"),
        ):
            scene = world.scene((ZOOM,), "all", random)
            assert kills.kill_postgres(world, cluster, scene, point=point)
        scene = world.scene(STREAMS, "changed", random)
        kills.kill_postgres(world, cluster, scene, delay=random.uniform(0, scene.seconds))
        world.quieten()


# -- a scan goes on ------------------------------------------------------------------------------


def cut_off(world: World, page: int) -> None:
    """A scan of channels is killed while it asks for that page; pages take their time."""
    world.sandbox.twilio.requests.clear()
    point = Point("request", rf"/v1/Channels\?.*Page={page - 1}(&|$)")
    with kills.slowed(world, 0.06):
        assert kills.kill_in_request(world, (CHANNELS,), point)


def last_page(world: World) -> int:
    return -(-len(world.sandbox.twilio.channels) // 10)


def pages_asked_for(world: World) -> list[int]:
    """Which pages of channels were asked for since, from 1."""
    return [
        int(request.params.get("Page", "0")) + 1
        for request in world.sandbox.twilio.requests
        if request.path == "/v1/Channels"
    ]


def refuse_page_tokens(world: World) -> dict[str, Any]:
    world.sandbox.twilio.faults.append(
        Fault(when=lambda r: "PageToken" in r.params, response=twilio.page_token_refused())
    )
    return {}


def empty_staging(world: World) -> dict[str, Any]:
    with world.asking() as connection:
        do(connection, "TRUNCATE staging.twilio_demo__channels")
    return {}


def grow_old(world: World) -> dict[str, Any]:
    with world.asking() as connection:
        do(connection, "UPDATE etl.checkpoints SET saved_at = saved_at - interval '2 hours'")
    return {}


def scribble(world: World) -> dict[str, Any]:
    with world.asking() as connection:
        change = """UPDATE etl.checkpoints SET state = '{"ordinal": "x"}', saved_at = 'infinity'"""
        do(connection, change)
    return {}


def change_settings(world: World) -> dict[str, Any]:
    return {"timeout": 29.0}


def test_a_killed_scan_goes_on_where_it_was(world: World, seed: int) -> None:
    scene = world.scene((CHANNELS,), "empty", Random(seed))
    cut_off(world, page=24)
    world.judge(scene)
    world.sandbox.twilio.requests.clear()
    runs = world.restart(scene)
    assert pages_asked_for(world)[0] in range(24 - 10, 24 + 1)
    assert pages_asked_for(world)[-1] == last_page(world)
    assert runs[CHANNELS].status == "complete"
    assert f"goes on after page {pages_asked_for(world)[0] - 1} " in str(runs[CHANNELS].reason)
    world.quieten([CHANNELS], runs=1)


@pytest.mark.parametrize(
    "meanwhile", [refuse_page_tokens, empty_staging, grow_old, scribble, change_settings]
)
def test_a_killed_scan_begins_anew_when_it_cannot_go_on(
    world: World, meanwhile: Callable[[World], dict[str, Any]], seed: int
) -> None:
    scene = world.scene((CHANNELS,), "empty", Random(seed))
    cut_off(world, page=24)
    world.judge(scene)
    world.sandbox.twilio.requests.clear()
    runs = world.restart(scene, settings=meanwhile(world))
    asked = pages_asked_for(world)
    assert asked[1 if meanwhile is refuse_page_tokens else 0] == 1
    assert set(asked) == set(range(1, last_page(world) + 1))
    assert runs[CHANNELS].status == "complete"
    told = "what etl.checkpoints holds of a scan cannot be read"
    assert (told in str(runs[CHANNELS].reason)) == (meanwhile is scribble)
    world.quieten([CHANNELS], runs=1)


def test_a_scan_that_is_killed_every_few_pages_comes_to_its_end(world: World, seed: int) -> None:
    scene = world.scene((CHANNELS,), "empty", Random(seed))
    begun = []
    for page in (14, 24, 25):
        cut_off(world, page)
        begun.append(pages_asked_for(world)[0])
    world.sandbox.twilio.requests.clear()
    world.restart(scene)
    first, *again = [*begun, pages_asked_for(world)[0]]
    assert first == 1
    for page, killed_at in zip(again, (14, 24, 25), strict=True):
        assert page in range(killed_at - 10, killed_at + 1)


def test_rows_that_change_between_the_halves_of_a_scan_are_found_later(
    world: World, seed: int
) -> None:
    random = Random(seed)
    world.wipe([CHANNELS])
    cut_off(world, page=24)
    happen(world.sandbox, CHANNELS, random, [0, 1, 0, 1])
    runs, _ = world.run([CHANNELS])
    assert runs[CHANNELS].status == "complete"
    assert "goes on" in str(runs[CHANNELS].reason)
    world.quieten([CHANNELS])
    world.wipe([CHANNELS])


# -- SIGTERM and SIGINT --------------------------------------------------------------------------


@pytest.fixture
def command(undone: tuple[World, Scene], tmp_path: Path) -> list[str]:
    """`callflow sync zoom_demo`, for that world."""
    world, _ = undone
    path = tmp_path / "callflow.toml"
    url = f'[warehouse]\nurl = "{dsn(world.url)}"\n\n'
    path.write_text(url + world.sandbox.toml(), encoding="utf-8")
    path.chmod(0o600)
    return ["sync", "zoom_demo", "-c", str(path)]


CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


@contextmanager
def waiting_for_a_page(world: World) -> Iterator[Callable[[], bool]]:
    """The provider takes very long for the second page."""
    fault = Fault(when=lambda r: "next_page_token" in r.params, delay=60)
    with world.faults(fault):
        yield lambda: fault.seen > 0


def slow_down() -> Response:
    return json_response(429, {"code": 429, "message": "Slow down."}, {"Retry-After": "20"})


@contextmanager
def told_to_wait(world: World) -> Iterator[Callable[[], bool]]:
    """The provider wants to be asked again in 20 seconds."""
    fault = Fault(path="/v2/contact_center/flows", response=slow_down(), times=None)
    with world.faults(fault):
        yield lambda: fault.seen > 0


@contextmanager
def waiting_for_one_record(world: World) -> Iterator[Callable[[], bool]]:
    """The provider takes very long to say whether a flow has gone."""
    fault = Fault(path="/v2/contact_center/flows/*", delay=60)
    with world.faults(fault):
        yield lambda: fault.seen > 0


@contextmanager
def locked(world: World, statement: str) -> Iterator[Callable[[], bool]]:
    """Another session holds a lock that the run waits for."""
    with psycopg.connect(dsn(world.url)) as another:
        another.execute(statement.encode())
        waits = """SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'"""

        def is_waited_for() -> bool:
            with world.asking() as connection:
                return ask(connection, waits) != [(0,)]

        yield is_waited_for
        another.rollback()


PHASES: dict[str, Callable[[World], AbstractContextManager[Callable[[], bool]]]] = {
    "waiting for a page": waiting_for_a_page,
    "told to wait": told_to_wait,
    "asking for one record": waiting_for_one_record,
    "merge waits for a table": partial(
        locked, statement="LOCK TABLE zoom.flow_versions IN SHARE ROW EXCLUSIVE MODE"
    ),
    "merge waits for a row": partial(
        locked, statement="SELECT FROM zoom.flows WHERE source = 'zoom_demo' FOR UPDATE"
    ),
    "lease waits for its row": partial(
        locked, statement="SELECT FROM etl.leases WHERE source = 'zoom_demo' FOR UPDATE"
    ),
    "first look waits for a table": partial(
        locked, statement="LOCK TABLE zoom.flows IN ACCESS EXCLUSIVE MODE"
    ),
    "bookkeeping waits for a table": partial(
        locked, statement="LOCK TABLE etl.streams IN ACCESS EXCLUSIVE MODE"
    ),
}


CASES = [
    *((phase, signal.SIGTERM) for phase in PHASES),
    ("waiting for a page", signal.SIGINT),
]


@pytest.mark.fault(60)
@pytest.mark.parametrize(("phase", "number"), CASES)
def test_a_signal_ends_the_command_within_five_seconds(
    undone: tuple[World, Scene], command: list[str], phase: str, number: signal.Signals, warm: Warm
) -> None:
    world, scene = undone
    with (
        PHASES[phase](world) as reached,
        warm.start(command, env=os.environ) as process,
    ):
        try:
            until = time.monotonic() + 120
            while not reached():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < until, "the run did not come there"
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
            process.send_signal(number)
            asked = time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            took = time.monotonic() - asked
        finally:
            process.kill()
            _, errors = process.communicate()
    in_time = took < 5 * slowness()
    assert (process.returncode, in_time) == (CODES[number], True), (took, errors)
    assert "Traceback" not in errors
    assert world.judge(scene) == {ZOOM: False}

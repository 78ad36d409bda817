"""SIGKILL to callflow or to Postgres at any instant; resumed scans; SIGTERM and SIGINT.

KILLS=… sets the number of kills at random instants; each named point adds one.
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
from etl.sync import details
from etl.warehouse.embedded import find_binaries
from tests.machine import slowness
from tests.postgres import Cluster, ask, dsn
from tests.sync import kills
from tests.sync.kills import NamedPoint, Tally
from tests.sync.processes import ForkServer, Point, ViolationError
from tests.sync.reference import STREAMS, Harness, Scenario, apply_changes, do, state_of
from tests.warm import Warm

pytestmark = pytest.mark.slow

RANDOM_KILLS = int(os.environ.get("KILLS", "20"))

CHANNELS = "twilio_demo.channels"
STUDIO = "twilio_demo.studio_flows"
ZOOM = "zoom_demo.flows"


@pytest.fixture(scope="module")
def unfinished(
    clusters: Callable[[Path], Cluster],
    warehouse_and_fork_server: tuple[str, ForkServer],
    seed: int,
) -> Iterator[tuple[Harness, Scenario]]:
    """Yield a separate harness, and a scenario whose run succeeds only when the module ends."""
    cluster = clusters(find_binaries(os.environ))
    with (
        cluster.database(template=cluster.migrated) as url,
        kills.new_harness(url, warehouse_and_fork_server[1]) as harness,
    ):
        scenario = harness.scenario((ZOOM,), "all", Random(seed))
        yield harness, scenario
        assert harness.restart(scenario)[ZOOM].status == "complete"


@pytest.mark.more
@pytest.mark.fault(59)
def test_runs_are_killed_at_random_instants(harness: Harness, seed: int) -> None:
    tally = Tally()
    for _ in kills.kill_at_random(harness, Random(seed), RANDOM_KILLS, tally):
        pass
    assert tally.kills["random"] >= RANDOM_KILLS
    assert tally.random_under_way >= 0.6 * tally.kills["random"], "\n".join(tally.lines())


@pytest.mark.fault(59)
@pytest.mark.parametrize("named", kills.NAMED_POINTS, ids=lambda named: named.name)
def test_a_run_is_killed_at_a_named_point(harness: Harness, named: NamedPoint, seed: int) -> None:
    random = Random(f"{seed} {named.name}")
    assert kills.kill_at(harness, named, random), f"no run came to {named.point}"


def test_there_are_enough_named_points_with_unique_names() -> None:
    assert len({named.name for named in kills.NAMED_POINTS}) == len(kills.NAMED_POINTS) >= 25
    assert {named.stream for named in kills.NAMED_POINTS} >= {
        ZOOM,
        CHANNELS,
        STUDIO,
        "alibaba_demo.contact_flows",
    }


def test_a_run_that_is_killed_again_and_again_ends_in_the_right_state(
    harness: Harness, seed: int
) -> None:
    scenario = harness.scenario(STREAMS, "all", Random(seed))
    for nth in range(1, 12, 2):
        with harness.start(
            scenario.names, point=Point("commit", "UPDATE etl.leases", nth)
        ) as child:
            child.finish()
        assert child.code == -signal.SIGKILL
        if any(harness.verify(scenario).values()):
            break
    harness.restart(scenario)


def test_readers_see_all_of_a_run_or_nothing(harness: Harness, seed: int) -> None:
    """Read snapshot after snapshot while a run writes."""
    scenario = harness.scenario((ZOOM,), "all", Random(seed))
    seen = []
    with psycopg.connect(dsn(harness.url)) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with harness.start(scenario.names) as child:
            while child.code is None:
                with reader.transaction():
                    seen.append(state_of(reader, "zoom_demo", harness.stream(ZOOM)))
                child.wait(lambda: False, 0.001)
        assert child.runs[ZOOM].status == "complete"
    assert len(seen) > 5
    assert all(state in (scenario.before[ZOOM], scenario.after[ZOOM]) for state in seen)
    assert seen[0] == scenario.before[ZOOM]
    harness.restart(scenario)


# -- the harness itself --------------------------------------------------------------------------

LOGGED = """INSERT INTO history.changes (source, provider, flow_id, entity, observed_at, change)
    VALUES ('zoom_demo', 'zoom', 'f', 'flow', now(), 'created')"""
"""Logs a change that no run has merged."""


@contextmanager
def rolled_back(harness: Harness, statement: str) -> Iterator[None]:
    """Damage the warehouse within the block, visible to the harness's own connection only."""
    with harness.querying() as connection:
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
        (LOGGED, "torn"),
    ],
)
def test_verify_finds_a_run_that_was_committed_in_part(
    unfinished: tuple[Harness, Scenario], damage: str, kind: str
) -> None:
    harness, scenario = unfinished
    assert harness.verify(scenario) == {ZOOM: False}
    with rolled_back(harness, damage), pytest.raises(ViolationError) as caught:
        harness.verify(scenario)
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
        (LOGGED, "doubled"),
    ],
)
def test_compare_finds_what_a_restart_left_wrong(
    harness: Harness, damage: str, kind: str, seed: int
) -> None:
    if not harness.committed(ZOOM):
        harness.restart(harness.scenario((ZOOM,), "same", Random(seed)))
    harness.compare(ZOOM)
    with rolled_back(harness, damage), pytest.raises(ViolationError) as caught:
        harness.compare(ZOOM)
    assert caught.value.kind == kind


# -- Postgres ------------------------------------------------------------------------------------


@pytest.mark.fault(46, 59)
def test_postgres_is_killed(warehouse_and_fork_server: tuple[str, ForkServer], seed: int) -> None:
    _, fork_server = warehouse_and_fork_server
    random = Random(seed)
    with (
        kills.crashable_cluster() as cluster,
        kills.new_harness(cluster.server.url(), fork_server) as harness,
    ):
        for point in (
            Point("committed", "UPDATE etl.leases", 2),  # rows are staged
            Point("after", "INSERT INTO zoom.flows "),  # in the merge
            Point("committed", "INSERT INTO etl.runs"),
        ):
            scenario = harness.scenario((ZOOM,), "all", random)
            assert kills.kill_postgres(harness, cluster, scenario, point=point)
        scenario = harness.scenario(STREAMS, "changed", random)
        kills.kill_postgres(harness, cluster, scenario, delay=random.uniform(0, scenario.seconds))
        harness.converge()


# -- a killed scan is resumed --------------------------------------------------------------------


def cut_off(harness: Harness, page: int) -> None:
    """Kill a scan of channels while it asks for that page; pages are slow."""
    harness.sandbox.twilio.requests.clear()
    point = Point("request", rf"/v1/Channels\?.*Page={page - 1}(&|$)")
    with kills.slowed(harness, 0.06):
        assert kills.kill_in_request(harness, (CHANNELS,), point)


def last_page(harness: Harness) -> int:
    return -(-len(harness.sandbox.twilio.channels) // 10)


def pages_asked_for(harness: Harness) -> list[int]:
    """Return which pages of channels were asked for since, counted from 1."""
    return [
        int(request.params.get("Page", "0")) + 1
        for request in harness.sandbox.twilio.requests
        if request.path == "/v1/Channels"
    ]


def refuse_page_tokens(harness: Harness) -> dict[str, Any]:
    harness.sandbox.twilio.faults.append(
        Fault(when=lambda r: "PageToken" in r.params, response=twilio.page_token_refused())
    )
    return {}


def empty_staging(harness: Harness) -> dict[str, Any]:
    with harness.querying() as connection:
        do(connection, "TRUNCATE staging.twilio_demo__channels")
    return {}


def age_checkpoint(harness: Harness) -> dict[str, Any]:
    with harness.querying() as connection:
        do(connection, "UPDATE etl.checkpoints SET saved_at = saved_at - interval '2 hours'")
    return {}


def damage_checkpoint(harness: Harness) -> dict[str, Any]:
    with harness.querying() as connection:
        change = """UPDATE etl.checkpoints SET state = '{"ordinal": "x"}', saved_at = 'infinity'"""
        do(connection, change)
    return {}


def change_settings(harness: Harness) -> dict[str, Any]:
    return {"timeout": 29.0}


def test_a_killed_scan_resumes_where_it_was(harness: Harness, seed: int) -> None:
    scenario = harness.scenario((CHANNELS,), "empty", Random(seed))
    cut_off(harness, page=24)
    harness.verify(scenario)
    harness.sandbox.twilio.requests.clear()
    runs = harness.restart(scenario)
    assert pages_asked_for(harness)[0] in range(24 - 10, 24 + 1)
    assert pages_asked_for(harness)[-1] == last_page(harness)
    assert runs[CHANNELS].status == "complete"
    assert f"goes on after page {pages_asked_for(harness)[0] - 1} " in str(runs[CHANNELS].reason)
    harness.converge([CHANNELS], runs=1)


@pytest.mark.parametrize(
    "meanwhile",
    [refuse_page_tokens, empty_staging, age_checkpoint, damage_checkpoint, change_settings],
)
def test_a_killed_scan_starts_again_when_it_cannot_be_resumed(
    harness: Harness, meanwhile: Callable[[Harness], dict[str, Any]], seed: int
) -> None:
    scenario = harness.scenario((CHANNELS,), "empty", Random(seed))
    cut_off(harness, page=24)
    harness.verify(scenario)
    harness.sandbox.twilio.requests.clear()
    runs = harness.restart(scenario, settings=meanwhile(harness))
    asked = pages_asked_for(harness)
    assert asked[1 if meanwhile is refuse_page_tokens else 0] == 1
    assert set(asked) == set(range(1, last_page(harness) + 1))
    assert runs[CHANNELS].status == "complete"
    unreadable = "what etl.checkpoints holds of a scan cannot be read"
    assert (unreadable in str(runs[CHANNELS].reason)) == (meanwhile is damage_checkpoint)
    harness.converge([CHANNELS], runs=1)


def test_a_scan_that_is_killed_every_few_pages_ends(harness: Harness, seed: int) -> None:
    scenario = harness.scenario((CHANNELS,), "empty", Random(seed))
    starts = []
    for page in (14, 24, 25):
        cut_off(harness, page)
        starts.append(pages_asked_for(harness)[0])
    harness.sandbox.twilio.requests.clear()
    harness.restart(scenario)
    first, *again = [*starts, pages_asked_for(harness)[0]]
    assert first == 1
    for page, killed_at in zip(again, (14, 24, 25), strict=True):
        assert page in range(killed_at - 10, killed_at + 1)


def test_rows_that_change_before_a_scan_is_resumed_are_found_later(
    harness: Harness, seed: int
) -> None:
    random = Random(seed)
    harness.wipe([CHANNELS])
    cut_off(harness, page=24)
    apply_changes(harness.sandbox, CHANNELS, random, [0, 1, 0, 1])
    runs, _ = harness.run([CHANNELS])
    assert runs[CHANNELS].status == "complete"
    assert "goes on" in str(runs[CHANNELS].reason)
    harness.converge([CHANNELS])
    harness.wipe([CHANNELS])


# -- a killed scan of details is resumed ----------------------------------------------------------


def flows_asked_for(harness: Harness) -> list[str]:
    """Return the Studio flows whose revisions were asked for since the last call, in order."""
    paths = [request.path.split("/") for request in harness.sandbox.twilio.requests]
    harness.sandbox.twilio.requests.clear()
    return list(dict.fromkeys(path[3] for path in paths if "Revisions" in path))


@pytest.mark.parametrize(
    ("point", "kept"),
    [
        (Point("committed", r"UPDATE staging\..* AS fetched"), details.TOGETHER),
        (Point("committed", r"INSERT INTO staging\..* AS part"), None),
        (Point("after", r"INSERT INTO twilio\.studio_flow_revisions"), None),
        (Point("commit", r"INSERT INTO etl\.runs"), None),
    ],
    ids=["some staged", "all staged", "merged in part", "merged, not committed"],
)
def test_what_was_fetched_before_a_kill_is_not_fetched_again(
    harness: Harness, point: Point, kept: int | None, seed: int
) -> None:
    scenario = harness.scenario((STUDIO,), "empty", Random(seed))
    flows_asked_for(harness)
    with harness.start(scenario.names, point=point) as child:
        child.finish()
    assert child.code == -signal.SIGKILL
    assert harness.verify(scenario) == {STUDIO: False}
    first = flows_asked_for(harness)
    harness.restart(scenario)
    again = flows_asked_for(harness)
    assert len(first) >= (kept or len(harness.sandbox.twilio.studio_flows))
    assert not set(first[:kept]) & set(again)
    assert {*first, *again} == set(harness.sandbox.twilio.studio_flows.keys())


# -- SIGTERM and SIGINT --------------------------------------------------------------------------


@pytest.fixture
def command(unfinished: tuple[Harness, Scenario], tmp_path: Path) -> list[str]:
    """Return the arguments of `callflow sync zoom_demo` for that harness."""
    harness, _ = unfinished
    path = tmp_path / "callflow.toml"
    url = f'[warehouse]\nurl = "{dsn(harness.url)}"\n\n'
    path.write_text(url + harness.sandbox.toml(), encoding="utf-8")
    path.chmod(0o600)
    return ["sync", "zoom_demo", "-c", str(path)]


CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


@contextmanager
def waiting_for_a_page(harness: Harness) -> Iterator[Callable[[], bool]]:
    """Delay the second page for a minute."""
    fault = Fault(when=lambda r: "next_page_token" in r.params, delay=60)
    with harness.faults(fault):
        yield lambda: fault.seen > 0


def slow_down() -> Response:
    return json_response(429, {"code": 429, "message": "Slow down."}, {"Retry-After": "20"})


@contextmanager
def asked_to_wait(harness: Harness) -> Iterator[Callable[[], bool]]:
    """Make the provider ask the run to wait for 20 seconds."""
    fault = Fault(path="/v2/contact_center/flows", response=slow_down(), times=None)
    with harness.faults(fault):
        yield lambda: fault.seen > 0


@contextmanager
def waiting_for_one_record(harness: Harness) -> Iterator[Callable[[], bool]]:
    """Delay the look-up of one flow for a minute."""
    fault = Fault(path="/v2/contact_center/flows/*", delay=60)
    with harness.faults(fault):
        yield lambda: fault.seen > 0


@contextmanager
def locked(harness: Harness, statement: str) -> Iterator[Callable[[], bool]]:
    """Hold a lock that the run waits for, in another session."""
    with psycopg.connect(dsn(harness.url)) as another:
        another.execute(statement.encode())
        waits = """SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'"""

        def is_waited_for() -> bool:
            with harness.querying() as connection:
                return ask(connection, waits) != [(0,)]

        yield is_waited_for
        another.rollback()


PHASES: dict[str, Callable[[Harness], AbstractContextManager[Callable[[], bool]]]] = {
    "waiting for a page": waiting_for_a_page,
    "asked to wait": asked_to_wait,
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
    unfinished: tuple[Harness, Scenario],
    command: list[str],
    phase: str,
    number: signal.Signals,
    warm: Warm,
) -> None:
    harness, scenario = unfinished
    with (
        PHASES[phase](harness) as reached,
        warm.start(command, env=os.environ) as process,
    ):
        try:
            until = time.monotonic() + 120
            while not reached():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < until, "the run did not reach the phase"
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
    assert harness.verify(scenario) == {ZOOM: False}

"""Kill runs with SIGKILL, again and again: what was committed stays, the rest leaves no trace.

    python -m tests.sync.kills --kills 500 --seed 1
    python -m tests.sync.kills --seed 1 --only random:17     a part again, as a failure prints it

The emulators run in this process. Runs that are killed are in processes forked from one without
threads (`processes.ForkServer`), because in this one a thread of an emulator may hold any lock.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from etl.sandbox.faults import Fault
from etl.sandbox.server import serve
from etl.warehouse import embedded, migrate
from tests.postgres import ask, directory, dsn, running
from tests.sync.processes import PATIENCE, Child, ForkServer, Point, ViolationError
from tests.sync.reference import (
    KINDS,
    SIZES,
    STREAMS,
    Harness,
    Scenario,
    Start,
    apply_changes,
    difference,
    do,
)

# -- one kill ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NamedPoint:
    """A named point, and the run in which it is reached."""

    name: str
    point: Point
    stream: str = "zoom_demo.flows"
    start: Start = "all"
    slow: float = 0.0  # seconds that the provider takes for each page


def kill_at(harness: Harness, named: NamedPoint, random: Random) -> bool:
    """Kill a run at a named point; return whether it got there."""
    scenario = harness.scenario([named.stream], named.start, random)
    with slowed(harness, named.slow):
        if named.point.at == "request":
            killed = kill_in_request(harness, scenario.names, named.point)
        else:
            with harness.start(scenario.names, point=named.point) as child:
                child.finish()
            killed = child.code == -signal.SIGKILL
    harness.verify(scenario)
    harness.restart(scenario)
    return killed


@contextmanager
def slowed(harness: Harness, seconds: float) -> Iterator[None]:
    """Delay each page of the providers by `seconds`."""
    if not seconds:
        yield
        return
    with harness.faults(Fault(when=_is_list, delay=seconds, times=None)):
        yield


def _is_list(request: Any) -> bool:
    action = request.headers.get("x-acs-action", "")
    lists = ("/flows", "/FlexFlows", "/Channels", "/v2/Flows", "/Revisions")
    return request.path.endswith(lists) or "List" in action


def kill_in_request(harness: Harness, names: Sequence[str], point: Point) -> bool:
    """Kill a run while the provider works on its request; return whether it was killed there."""
    born = threading.Event()
    pids: list[int] = []

    def kill(_: Any, __: Any) -> None:
        born.wait(PATIENCE)
        os.kill(pids[0], signal.SIGKILL)

    def matches(request: Any) -> bool:
        return re.search(point.what, f"{request.method} {request.target}") is not None

    with (
        harness.faults(Fault(when=matches, nth=point.nth, before_request=kill)),
        harness.start(names) as child,
    ):
        pids.append(child.pid)
        born.set()
        child.finish()
    return child.code == -signal.SIGKILL


def kill_at_random_instant(
    harness: Harness, scenario: Scenario, random: Random, seconds: float | None = None
) -> bool:
    """Kill runs at a random instant of their `seconds`; return whether they were under way."""
    delay = random.uniform(0, seconds or scenario.seconds)
    with harness.start(scenario.names) as child:
        child.wait(lambda: child.started)
        child.wait(lambda: child.all_ended, delay)
        child.send(signal.SIGKILL)
        child.finish()
    return child.code == -signal.SIGKILL and child.under_way


def kill_while_rows_change(harness: Harness, scenario: Scenario, random: Random) -> bool:
    """Do the same while rows change between its requests, so that no reference run has its outcome.

    What must hold: without a run in etl.runs nothing was written, and later the tables equal the
    list.
    """

    def move(_: Any, __: Any) -> None:
        name = random.choice(scenario.names)
        apply_changes(harness.sandbox, name, random, [random.randrange(KINDS[name])])

    committed = {name: harness.committed(name) for name in scenario.names}
    fault = Fault(when=_is_list, before_request=move, probability=0.5, rng=random, times=3)
    with harness.faults(fault):
        hit = kill_at_random_instant(harness, scenario, random)
    states = harness.states(scenario.names)
    for name in scenario.names:
        if harness.committed(name) == committed[name] and states[name] != scenario.before[name]:
            changed = difference(scenario.before[name], states[name])
            raise ViolationError("torn", f"{name} was written by no run: {changed}")
    harness.converge(scenario.names)
    harness.wipe(scenario.names)  # its history differs from the reference's now
    return hit


# -- runs that were stopped past the end of their lease ------------------------------------------


def suspend(harness: Harness, child: Child, delay: float | None) -> bool:
    """Stop a child `delay` seconds after it started, or wait until it stops itself (None).

    Return whether it stopped.
    """
    child.wait(lambda: child.started)
    if delay is not None:
        child.wait(lambda: child.all_ended, delay)
        child.send(signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    while child.code is None and time.monotonic() < deadline:
        if child.is_stopped():
            return True
        child.wait(lambda: False, 0.01)
    return False


def end_lease(harness: Harness, name: str, child: Child) -> str:
    """End the lease that `child` holds now instead of in a minute.

    Return `ended`, `none` if it holds none, or `locked` if it is inside a transaction that writes.
    """
    source, stream = name.split(".")
    with harness.querying() as connection:
        query = "SELECT holder FROM etl.leases WHERE source = %s AND stream = %s AND until > now()"
        holders = ask(connection, query, source, stream)
        if not holders or holders[0][0].split(":")[-2] != str(child.pid):
            return "none"
        try:
            do(
                connection,
                "UPDATE etl.leases SET until = clock_timestamp() - interval '1 s' "
                "WHERE source = %s AND stream = %s",
                source,
                stream,
            )
        except psycopg.errors.LockNotAvailable:
            return "locked"
    return "ended"


def resume_stale_run(
    harness: Harness, scenario: Scenario, *, point: Point | None = None, delay: float | None = None
) -> str:
    """Stop a run, let another one take over and end, then resume the first: it must not write.

    Return what happened. `fenced`: as described. `idle`: the run had not started, or had ended.
    `locked`: it was stopped inside a transaction, so no other could take over; resumed, it ended
    well. `blocked`: another run took over, waited for rows that the first had locked, and failed
    with an error that says so.
    """
    (name,) = scenario.names
    with harness.start(scenario.names, point=point, signal=signal.SIGSTOP) as stale:
        stopped = suspend(harness, stale, delay)
        if point is not None and not stopped:
            raise ViolationError("unreached", f"{name} did not come to {point}")
        lease = end_lease(harness, name, stale) if stopped else "none"
        if lease == "ended":
            came_to = _take_over(harness, name, stale)
        else:
            stale.send(signal.SIGCONT)
            stale.finish()
            came_to = {"none": "idle"}.get(lease, lease)
            run = stale.runs.get(name)
            if run is None or run.status not in ("complete", "incomplete"):
                raise ViolationError("stuck", f"{name}, only stopped for some time: {run}")
    harness.restart(scenario)
    return came_to


def _take_over(harness: Harness, name: str, stale: Child) -> str:
    """Run the stream while `stale` is stopped and its lease has ended; then resume `stale`."""
    successors, _ = harness.run([name], lock_timeout="500ms")
    successor = successors[name]
    if successor.status not in ("complete", "incomplete"):
        if "lock" not in (successor.error or "") or successor.error_kind != "database":
            raise ViolationError(
                "stuck", f"the successor of {name}: {successor.status}: {successor.error}"
            )
        stale.send(signal.SIGCONT)
        stale.finish()
        return "blocked"
    resume_after_takeover(harness, name, stale)
    return "fenced"


def resume_after_takeover(harness: Harness, name: str, stale: Child) -> None:
    """Resume a run whose lease another one took: it has to end, and must not write anything.

    It may be complete only if it had committed everything before it was stopped.
    """
    before = harness.rows([name], staging=True)[name]
    merged = harness.committed(name)
    stale.send(signal.SIGCONT)
    stale.finish()
    after = harness.rows([name], staging=True)[name]
    touched = [table for table in before if before[table] != after[table]]
    if touched or harness.committed(name) != merged:
        raise ViolationError("stale write", f"{name}: a run without a lease wrote {touched}")
    run = stale.runs.get(name)
    if run is not None and run.status == "complete" and harness.has_run(name, run):
        return
    if run is None or (run.status, run.error_kind) != ("busy", "lease_lost"):
        raise ViolationError("stale write", f"{name}: a run that lost its lease ended as {run}")


def resume_among_three(harness: Harness, scenario: Scenario, random: Random) -> str:
    """Stop a run, let a second take over and stop it halfway, then resume the first.

    Then let a third take over and end, and resume the second. Return what happened.
    """
    (name,) = scenario.names
    with ExitStack() as stack:

        def suspend_one() -> tuple[Child, str]:
            child = stack.enter_context(harness.start(scenario.names, lock_timeout="500ms"))
            stopped = suspend(harness, child, random.uniform(0.1, 0.9) * scenario.seconds)
            lease = end_lease(harness, name, child) if stopped else "none"
            if lease != "ended":
                child.send(signal.SIGCONT)
                child.finish()
            return child, lease

        first, lease = suspend_one()
        came_to = {"none": "idle"}.get(lease, lease)
        if lease == "ended":
            second, lease = suspend_one()
            resume_after_takeover(harness, name, first)
            came_to = "fenced"
            if lease == "ended":
                came_to = _take_over(harness, name, second)
    harness.restart(scenario)
    return came_to


# -- Postgres itself -----------------------------------------------------------------------------


class CrashableCluster:
    """A separate cluster, to be killed and started again."""

    # SIGKILL loses nothing that was handed to the kernel, so fsync is not needed; commits and whole
    # pages have to be written.
    SETTINGS: Mapping[str, str] = {"fsync": "off"}

    def __init__(self, place: Path) -> None:
        self._place = place
        self.server = self.start()

    def start(self) -> embedded.Server:
        """Start the server, which recovers first if it was killed."""
        self.server = embedded.start(self._place, settings=self.SETTINGS)
        return self.server

    def kill(self) -> None:
        """Send SIGKILL to the postmaster, then to the processes that it had."""
        with psycopg.connect(dsn(self.server.url()), autocommit=True) as connection:
            pids = [pid for (pid,) in ask(connection, "SELECT pid FROM pg_stat_activity")]
            for pid in (self.server.pid, *pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server in the ordinary way."""
        embedded.stop(self._place)


@contextmanager
def crashable_cluster() -> Iterator[CrashableCluster]:
    """Start a cluster with an empty warehouse; delete it at the end."""
    with directory() as place:
        cluster = CrashableCluster(place / "data")
        try:
            migrate.upgrade(cluster.server.url())
            yield cluster
        finally:
            cluster.stop()


def kill_postgres(
    harness: Harness,
    cluster: CrashableCluster,
    scenario: Scenario,
    *,
    delay: float | None = None,
    point: Point | None = None,
) -> bool:
    """Kill Postgres in the middle of a run; return whether it was under way."""
    with harness.start(scenario.names, point=point, signal=signal.SIGSTOP) as child:
        if point is not None:
            if not suspend(harness, child, None):
                raise ViolationError("unreached", f"{scenario.names} did not come to {point}")
        else:
            child.wait(lambda: child.started)
            child.wait(lambda: child.all_ended, delay or 0.0)
        under_way = child.under_way
        cluster.kill()
        child.send(signal.SIGCONT)
        child.finish()
        for name, run in child.runs.items():
            if run.status not in ("complete", "incomplete") and run.error_kind != "database":
                raise ViolationError("stuck", f"{name} ended as {run.status}: {run.error}")
        if child.code or not child.all_ended:
            raise ViolationError("crashed", f"{scenario.names} ended with code {child.code}")
    cluster.start()
    harness.disconnect()
    harness.verify(scenario)
    harness.restart(scenario)
    return under_way


# -- named points --------------------------------------------------------------------------------

_LEASE = r"INSERT INTO etl\.leases"
_RENEW = r"UPDATE etl\.leases SET until=\(clock"
_RELEASE = r"UPDATE etl\.leases SET until=clock"
_RUN = r"INSERT INTO etl\.runs"
_CHANNELS = "twilio_demo.channels"
_ALIBABA = "alibaba_demo.contact_flows"
_STUDIO = "twilio_demo.studio_flows"

NAMED_POINTS = (
    NamedPoint("before the lease is taken", Point("before", _LEASE)),
    NamedPoint("lease taken, not committed", Point("commit", _LEASE)),
    NamedPoint("lease taken", Point("committed", _LEASE)),
    NamedPoint("before the plan", Point("before", r"FROM etl\.streams")),
    NamedPoint("before the first staging table", Point("before", "CREATE UNLOGGED"), start="empty"),
    NamedPoint("between two staging tables", Point("after", "CREATE UNLOGGED", 2), start="empty"),
    NamedPoint("staging made, not committed", Point("commit", "CREATE UNLOGGED"), start="empty"),
    NamedPoint("staging made", Point("committed", "CREATE UNLOGGED"), start="empty"),
    NamedPoint(
        "staging emptied, not committed", Point("commit", r"EXISTS \(SELECT .*FROM staging\.")
    ),
    NamedPoint("staging emptied", Point("committed", r"EXISTS \(SELECT .*FROM staging\.")),
    NamedPoint("while the token is asked for", Point("request", "POST /oauth/token")),
    NamedPoint("while the first page is asked for", Point("request", r"GET .*/flows\?")),
    NamedPoint("while the second page is asked for", Point("request", r"GET .*/flows\?", 2)),
    NamedPoint(
        "while the list is read again", Point("request", r"GET .*/flows\?", 6), start="empty"
    ),
    NamedPoint("while Alibaba is asked", Point("request", "^[A-Z]+ /", 2), _ALIBABA),
    NamedPoint("a page read", Point("page", nth=3)),
    NamedPoint("a page of the second scan read", Point("page", nth=7), start="empty"),
    NamedPoint("a batch staged, the lease not checked", Point("before", _RENEW, 2)),
    NamedPoint("a batch staged, not committed", Point("commit", _RENEW, 2)),
    NamedPoint("a batch staged", Point("committed", _RENEW, 2)),
    NamedPoint(
        "before a checkpoint",
        Point("before", r"INSERT INTO etl\.checkpoints"),
        _CHANNELS,
        "empty",
        0.06,
    ),
    NamedPoint(
        "checkpoint saved, not committed",
        Point("commit", r"INSERT INTO etl\.checkpoints"),
        _CHANNELS,
        "empty",
        0.06,
    ),
    NamedPoint(
        "checkpoint saved",
        Point("committed", r"INSERT INTO etl\.checkpoints", 2),
        _CHANNELS,
        "empty",
        0.06,
    ),
    NamedPoint("before the staged rows are settled", Point("before", "ANALYZE")),
    NamedPoint("while they are settled", Point("after", r"DELETE FROM staging\."), start="empty"),
    NamedPoint("settled, not committed", Point("commit", "ANALYZE")),
    NamedPoint("settled", Point("committed", "ANALYZE")),
    NamedPoint("absent rows found", Point("after", r"FROM zoom\.flows .*NOT EXISTS")),
    NamedPoint("while one record is asked for", Point("request", r"GET .*/flows/")),
    NamedPoint("before the merge checks the lease", Point("before", _RENEW, 4)),
    NamedPoint("before the merge writes", Point("before", r"WITH removed")),
    NamedPoint(
        "children of a gone row removed", Point("after", r"DELETE FROM zoom\.flow_versions")
    ),
    NamedPoint("a gone row removed", Point("after", r"DELETE FROM zoom\.flows")),
    NamedPoint("lost children removed", Point("after", r"DELETE FROM zoom\.flow_versions", 2)),
    NamedPoint(
        "before history is written", Point("before", r"INSERT INTO history\.zoom_flows .*differ")
    ),
    NamedPoint("rows written, not their children", Point("after", r"INSERT INTO zoom\.flows ")),
    NamedPoint("children written", Point("after", r"INSERT INTO zoom\.entry_points ")),
    NamedPoint(
        "first rows written, not their children",
        Point("after", r"INSERT INTO zoom\.flows "),
        start="empty",
    ),
    NamedPoint(
        "first rows written from staging",
        Point("after", r"INSERT INTO twilio\.channels "),
        _CHANNELS,
        "empty",
        0.06,
    ),
    NamedPoint("before the watermark is worked out", Point("before", r"max\(staging\.")),
    NamedPoint("before the run is recorded", Point("before", _RUN)),
    NamedPoint("run recorded, not the watermark", Point("after", _RUN)),
    NamedPoint("watermark written", Point("after", r"INSERT INTO etl\.streams")),
    NamedPoint("staging emptied in part", Point("after", "TRUNCATE", 2), start="empty"),
    NamedPoint("before the merge's COMMIT", Point("commit", _RUN)),
    NamedPoint("after the merge's COMMIT", Point("committed", _RUN)),
    NamedPoint("before the lease is released", Point("before", _RELEASE)),
    NamedPoint("lease released, not committed", Point("commit", _RELEASE)),
    NamedPoint("lease released", Point("committed", _RELEASE)),
    NamedPoint("absence noted", Point("after", r"INSERT INTO etl\.absences"), _ALIBABA),
    NamedPoint(
        "absence noted, not committed", Point("commit", r"INSERT INTO etl\.absences"), _ALIBABA
    ),
    NamedPoint(
        "absence noted for good", Point("committed", r"INSERT INTO etl\.absences"), _ALIBABA
    ),
    NamedPoint("before the twice absent go", Point("before", "WITH removed"), _ALIBABA, "absent"),
    NamedPoint("absence settled", Point("after", r"DELETE FROM etl\.absences"), _ALIBABA, "absent"),
    NamedPoint(
        "Alibaba: rows written, not their children",
        Point("after", r"INSERT INTO alibaba\.contact_flows "),
        _ALIBABA,
    ),
    NamedPoint("Alibaba: before the merge's COMMIT", Point("commit", _RUN), _ALIBABA),
    NamedPoint("while details are sought", Point("after", r"UPDATE staging\..* partial"), _STUDIO),
    NamedPoint("details sought", Point("committed", r"UPDATE staging\..* partial"), _STUDIO),
    NamedPoint("stored parts sought", Point("after", "definition IS NOT NULL"), _STUDIO),
    NamedPoint(
        "while a detail is asked for", Point("request", r"/Revisions\?", 23), _STUDIO, "empty"
    ),
    NamedPoint("while a part of a detail is asked for", Point("request", "/Revisions/"), _STUDIO),
    NamedPoint(
        "details staged, without what was listed",
        Point("before", r"UPDATE staging\..* AS fetched"),
        _STUDIO,
    ),
    NamedPoint(
        "details staged, not committed", Point("commit", r"UPDATE staging\..* AS fetched"), _STUDIO
    ),
    NamedPoint(
        "some details staged",
        Point("committed", r"UPDATE staging\..* AS fetched"),
        _STUDIO,
        "empty",
    ),
    NamedPoint(
        "stored parts staged in part",
        Point("after", r"INSERT INTO staging\..* AS child", 2),
        _STUDIO,
    ),
    NamedPoint("stored parts staged", Point("after", r"UPDATE staging\..* coalesce"), _STUDIO),
    NamedPoint(
        "chosen parts staged in part", Point("after", r"INSERT INTO staging\..* AS part"), _STUDIO
    ),
    NamedPoint(
        "details settled, not committed",
        Point("commit", r"INSERT INTO staging\..* AS part"),
        _STUDIO,
    ),
    NamedPoint("details settled", Point("committed", r"INSERT INTO staging\..* AS part"), _STUDIO),
    NamedPoint(
        "details settled, all of them",
        Point("committed", r"INSERT INTO staging\..* AS part"),
        _STUDIO,
        "empty",
    ),
    NamedPoint(
        "details merged in part", Point("after", r"INSERT INTO twilio\.studio_flow_r"), _STUDIO
    ),
    NamedPoint("details: before the merge's COMMIT", Point("commit", _RUN), _STUDIO),
    NamedPoint("details: after the merge's COMMIT", Point("committed", _RUN), _STUDIO),
    NamedPoint("direct first load: copying", Point("page", nth=12), _CHANNELS, "empty"),
    NamedPoint(
        "direct first load: lease not checked", Point("before", _RENEW, 2), _CHANNELS, "empty"
    ),
    NamedPoint("direct first load: before its COMMIT", Point("commit", _RUN), _CHANNELS, "empty"),
    NamedPoint("direct first load: after its COMMIT", Point("committed", _RUN), _CHANNELS, "empty"),
    NamedPoint("read from the newest on: a page staged", Point("committed", _RENEW, 2), _CHANNELS),
    NamedPoint(
        "read from the newest on: before the merge's COMMIT", Point("commit", _RUN), _CHANNELS
    ),
)

LEASE_FREE_POINTS = (
    "lease taken",
    "staging made",
    "a page of the second scan read",
    "a batch staged, the lease not checked",
    "a batch staged",
    "before a checkpoint",
    "checkpoint saved",
    "settled",
    "absent rows found",
    "before the merge checks the lease",
    "after the merge's COMMIT",
    "before the lease is released",
    "some details staged",
    "direct first load: copying",
    "direct first load: lease not checked",
)
"""Points at which a run does not lock the row of its lease, so that another one can take it."""


# -- many kills ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What was done, and the outcomes."""

    kills: Counter[str] = field(default_factory=Counter)
    random_under_way: int = 0
    stale_runs: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Add the counts of another tally."""
        for mine, theirs in (
            (self.kills, other.kills),
            (self.stale_runs, other.stale_runs),
            (self.points, other.points),
            (self.violations, other.violations),
        ):
            mine.update(theirs)
        self.random_under_way += other.random_under_way

    def lines(self) -> Iterator[str]:
        """Yield the tally as lines of text."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        yield f"{self.kills.total()} kills: {kinds}"
        if self.kills["random"]:
            share = self.random_under_way / self.kills["random"]
            yield f"{self.random_under_way} of the random ones ({share:.0%}) hit a run under way"
        if self.points:
            yield f"{len(self.points)} of {len(NAMED_POINTS)} named points reached"
        if self.stale_runs:
            ends = ", ".join(f"{count} {end}" for end, count in sorted(self.stale_runs.items()))
            yield f"stale runs: {ends}"
        words = ("lost", "doubled", "torn")
        others = [word for word in self.violations if word not in words]
        yield ", ".join(f"{word} {self.violations[word]}" for word in (*words, *others))


def kill_at_random(harness: Harness, random: Random, kills: int, tally: Tally) -> Iterator[None]:
    """Kill runs at random instants on one warehouse, half of them before another killed run."""
    harness.wipe()
    done = 0
    while done < kills:
        for hit in _random_scenario(harness, random):
            done += 1
            tally.kills["random"] += 1
            tally.random_under_way += hit
            yield
    harness.converge()


def _random_scenario(harness: Harness, random: Random) -> Iterator[bool]:
    names = STREAMS if random.random() < 0.2 else (random.choice(STREAMS),)
    start: Start = random.choices(("empty", "changed", "same"), (25, 65, 10))[0]
    if random.random() < 0.03:
        scenario = harness.scenario(("twilio_demo.channels",), "empty", random)
        with slowed(harness, 0.06):
            yield kill_at_random_instant(harness, scenario, random, seconds=1.6)
            harness.verify(scenario)
            yield kill_at_random_instant(harness, scenario, random, seconds=1.6)
    else:
        scenario = harness.scenario(names, start, random)
        if random.random() < 0.06:
            yield kill_while_rows_change(harness, scenario, random)
            return
        again = True
        while again:
            yield kill_at_random_instant(harness, scenario, random)
            again = not any(harness.verify(scenario).values()) and random.random() < 0.5
    harness.verify(scenario)
    harness.restart(scenario)


def stale_runs_at_random(
    harness: Harness, random: Random, kills: int, tally: Tally
) -> Iterator[None]:
    """Stop runs at random instants and let one or two other processes take their leases."""
    harness.wipe()
    for _ in range(kills):
        start: Start = random.choices(("empty", "changed"), (30, 70))[0]
        scenario = harness.scenario((random.choice(STREAMS),), start, random)
        if random.random() < 0.3:
            tally.stale_runs[resume_among_three(harness, scenario, random)] += 1
        else:
            delay = random.uniform(0.1, 0.9) * scenario.seconds
            tally.stale_runs[resume_stale_run(harness, scenario, delay=delay)] += 1
        tally.kills["stale"] += 1
        yield
    harness.converge()


def kill_at_name(
    harness: Harness, named: NamedPoint, random: Random, tally: Tally
) -> Iterator[None]:
    """Kill one run at a named point, which has to be reached."""
    harness.wipe()
    if not kill_at(harness, named, random):
        raise ViolationError("unreached", f"no run came to {named.name!r}: {named.point}")
    tally.kills["named"] += 1
    tally.points[named.name] += 1
    yield


def kill_postgres_at_random(
    harness: Harness, cluster: CrashableCluster, random: Random, kills: int, tally: Tally
) -> Iterator[None]:
    """Kill Postgres at random instants of runs."""
    harness.wipe()
    for _ in range(kills):
        start: Start = random.choices(("empty", "changed"), (30, 70))[0]
        names = STREAMS if random.random() < 0.3 else (random.choice(STREAMS),)
        scenario = harness.scenario(names, start, random)
        kill_postgres(harness, cluster, scenario, delay=random.uniform(0, scenario.seconds))
        tally.kills["postgres"] += 1
        yield
    harness.converge()


# -- the command ---------------------------------------------------------------------------------

KILLS_PER_WAREHOUSE = 20
"""Kills on one warehouse before the next one."""


def plan(kills: int) -> Iterator[tuple[str, int]]:
    """Yield the parts of a campaign: their names, and how many kills they have."""
    wanted = {
        "postgres": max(kills // 50, 2),
        "stale": max(kills // 12, 5),
    }
    named = NAMED_POINTS if kills >= 2 * len(NAMED_POINTS) else ()
    wanted["random"] = max(kills - len(named) - sum(wanted.values()), 5)
    for each in named:
        yield f"named:{each.name}", 1
    for kind, count in wanted.items():
        for number, start in enumerate(range(0, count, KILLS_PER_WAREHOUSE)):
            yield f"{kind}:{number}", min(KILLS_PER_WAREHOUSE, count - start)


@dataclass(slots=True)
class Campaign:
    """The warehouses and processes that the parts of a campaign use."""

    seed: str
    url: str
    fork_server: ForkServer
    crashable_cluster: CrashableCluster | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    def part(self, label: str, kills: int, tally: Tally) -> Iterator[None]:
        """Run one part, yielding after each kill; a broken promise raises ViolationError."""
        kind, _, what = label.partition(":")
        random = Random(f"{self.seed} {label}")
        with ExitStack() as stack:
            url = self.url
            if kind == "postgres":
                self.crashable_cluster = self.crashable_cluster or self.stack.enter_context(
                    crashable_cluster()
                )
                url = self.crashable_cluster.server.url()
            harness = stack.enter_context(
                new_harness(url, self.fork_server, seed=random.randrange(10**6))
            )
            if kind == "named":
                named = next(each for each in NAMED_POINTS if each.name == what)
                yield from kill_at_name(harness, named, random, tally)
            elif kind == "postgres":
                assert self.crashable_cluster is not None
                yield from kill_postgres_at_random(
                    harness, self.crashable_cluster, random, kills, tally
                )
            elif kind == "stale":
                yield from stale_runs_at_random(harness, random, kills, tally)
            else:
                yield from kill_at_random(harness, random, kills, tally)


@contextmanager
def new_harness(url: str, fork_server: ForkServer, *, seed: int = 1) -> Iterator[Harness]:
    """Create a harness on that warehouse, with its own emulators."""
    with serve(SIZES, seed=seed) as sandbox, tempfile.TemporaryDirectory() as place:
        harness = Harness(sandbox, url, Path(place), fork_server)
        try:
            yield harness
        finally:
            harness.disconnect()


@contextmanager
def warm_fork_server(url: str) -> Iterator[ForkServer]:
    """Start a fork server that has already run everything, on the warehouse `url`."""
    fork_server = ForkServer()
    try:
        with new_harness(url, fork_server) as harness:
            for _ in range(2):
                fork_server.warm_up(harness.spec(STREAMS))
            for name in STREAMS:
                apply_changes(harness.sandbox, name, Random(0), range(KINDS[name]))
            fork_server.warm_up(harness.spec(STREAMS))
            harness.wipe()
        yield fork_server
    finally:
        fork_server.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if every promise held."""
    parser = argparse.ArgumentParser(prog="python -m tests.sync.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", default=str(Random().randrange(10**6)))
    parser.add_argument("--only", help="one part, as a failure names it")
    given = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"seed {given.seed}")
    parts = list(plan(given.kills))
    if given.only:
        kind = given.only.partition(":")[0]
        parts = [
            (given.only, dict(parts).get(given.only, 1 if kind == "named" else KILLS_PER_WAREHOUSE))
        ]
    tally, started = Tally(), time.monotonic()
    with ExitStack() as stack:
        cluster = stack.enter_context(running(embedded.find_binaries(os.environ)))
        url = stack.enter_context(cluster.database(template=cluster.migrated))
        campaign = Campaign(given.seed, url, stack.enter_context(warm_fork_server(url)))
        stack.enter_context(campaign.stack)
        advance = stack.enter_context(_progress(console, sum(count for _, count in parts)))
        for label, count in parts:
            try:
                for _ in campaign.part(label, count, tally):
                    advance(tally)
            except ViolationError as error:
                tally.violations[error.kind] += 1
                console.print(
                    f"{label}: {error}\n  again: python -m tests.sync.kills --kills {given.kills} "
                    f"--seed {given.seed} --only '{label}'",
                    markup=False,
                )
    for line in tally.lines():
        console.print(line)
    minutes = (time.monotonic() - started) / 60
    console.print(f"{minutes:.1f} minutes, {tally.kills.total() / minutes:.0f} kills a minute")
    return 1 if tally.violations else 0


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[Tally], None]]:
    """Show a bar on a terminal, and a line every 50 kills elsewhere."""
    if not console.is_terminal:
        yield (
            lambda tally: (
                console.print(f"{tally.kills.total()} of {total} kills")
                if tally.kills.total() % 50 == 0
                else None
            )
        )
        return
    columns = (TextColumn("kills"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("kills", total=total)
        yield lambda tally: progress.update(task, completed=tally.kills.total())


if __name__ == "__main__":
    sys.exit(main())

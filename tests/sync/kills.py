"""kill -9 again and again: what was committed stays, the rest is as if it had not begun.

    python -m tests.sync.kills --kills 500 --seed 1
    python -m tests.sync.kills --seed 1 --only random:17     a part again, as a failure prints it

The emulators run in this process. Whoever is killed runs in a process of its own, forked from one
without threads (`victims.Nursery`): here a thread of an emulator may hold any lock.
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
from tests.sync.twins import KINDS, SIZES, STREAMS, Scene, Start, World, difference, do, happen
from tests.sync.victims import PATIENCE, Child, Nursery, Point, ViolationError

# -- one kill ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Named:
    """A point with the run in which it is reached."""

    name: str
    point: Point
    stream: str = "zoom_demo.flows"
    start: Start = "all"
    slow: float = 0.0  # seconds that the provider takes for each page


def kill_at(world: World, named: Named, random: Random) -> bool:
    """Kill a run at a named point; whether it got there."""
    scene = world.scene([named.stream], named.start, random)
    with slowed(world, named.slow):
        if named.point.at == "request":
            killed = kill_in_request(world, scene.names, named.point)
        else:
            with world.bear(scene.names, point=named.point) as child:
                child.finish()
            killed = child.code == -signal.SIGKILL
    world.judge(scene)
    world.restart(scene)
    return killed


@contextmanager
def slowed(world: World, seconds: float) -> Iterator[None]:
    """Let the providers take their time for each page."""
    if not seconds:
        yield
        return
    with world.faults(Fault(when=_is_list, delay=seconds, times=None)):
        yield


def _is_list(request: Any) -> bool:
    action = request.headers.get("x-acs-action", "")
    return request.path.endswith(("/flows", "/FlexFlows", "/Channels")) or "List" in action


def kill_in_request(world: World, names: Sequence[str], point: Point) -> bool:
    """Kill it while the provider works on its request."""
    born = threading.Event()
    pids: list[int] = []

    def kill(_: Any, __: Any) -> None:
        born.wait(PATIENCE)
        os.kill(pids[0], signal.SIGKILL)

    def meant(request: Any) -> bool:
        return re.search(point.what, f"{request.method} {request.target}") is not None

    with (
        world.faults(Fault(when=meant, nth=point.nth, before_request=kill)),
        world.bear(names) as child,
    ):
        pids.append(child.pid)
        born.set()
        child.finish()
    return child.code == -signal.SIGKILL


def kill_sometime(world: World, scene: Scene, random: Random, seconds: float | None = None) -> bool:
    """Kill runs at a random instant of their `seconds`; whether they were under way."""
    delay = random.uniform(0, seconds or scene.seconds)
    with world.bear(scene.names) as child:
        child.wait(lambda: child.began)
        child.wait(lambda: child.all_ended, delay)
        child.send(signal.SIGKILL)
        child.finish()
    return child.code == -signal.SIGKILL and child.under_way


def kill_while_moving(world: World, scene: Scene, random: Random) -> bool:
    """The same while rows change between its requests: no twin can tell the outcome then.

    What has to hold: without a run in etl.runs nothing was written; and later all is as listed.
    """

    def move(_: Any, __: Any) -> None:
        name = random.choice(scene.names)
        happen(world.sandbox, name, random, [random.randrange(KINDS[name])])

    committed = {name: world.committed(name) for name in scene.names}
    fault = Fault(when=_is_list, before_request=move, probability=0.5, rng=random, times=3)
    with world.faults(fault):
        landed = kill_sometime(world, scene, random)
    states = world.states(scene.names)
    for name in scene.names:
        if world.committed(name) == committed[name] and states[name] != scene.before[name]:
            told = difference(scene.before[name], states[name])
            raise ViolationError("torn", f"{name} was written by no run: {told}")
    world.quieten(scene.names)
    world.wipe(scene.names)  # its history is not the twin's any more
    return landed


# -- zombies -------------------------------------------------------------------------------------


def freeze(world: World, child: Child, delay: float | None) -> bool:
    """Stop a child `delay` seconds after it began (None: it stops itself); whether it stopped."""
    child.wait(lambda: child.began)
    if delay is not None:
        child.wait(lambda: child.all_ended, delay)
        child.send(signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    while child.code is None and time.monotonic() < deadline:
        if child.is_stopped():
            return True
        child.wait(lambda: False, 0.01)
    return False


def end_lease(world: World, name: str, child: Child) -> str:
    """Let the lease that `child` holds end now instead of in a minute.

    `ended`; `none` when it holds none; `locked` when it is inside a transaction that writes.
    """
    source, stream = name.split(".")
    with world.asking() as connection:
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


def wake_a_zombie(
    world: World, scene: Scene, *, point: Point | None = None, delay: float | None = None
) -> str:
    """Stop a run, let another one take over and end, wake the first: it must not write any more.

    Says what it came to: `fenced`, the rule. `idle`: it had not begun, or had ended. `locked`:
    stopped inside a transaction, nobody could take over; it went on and ended. `blocked`: another
    one took over but could not pass the rows that the first held, and said so.
    """
    (name,) = scene.names
    with world.bear(scene.names, point=point, signal=signal.SIGSTOP) as sleeper:
        stopped = freeze(world, sleeper, delay)
        if point is not None and not stopped:
            raise ViolationError("unreached", f"{name} did not come to {point}")
        lease = end_lease(world, name, sleeper) if stopped else "none"
        if lease == "ended":
            came_to = _take_over(world, name, sleeper)
        else:
            sleeper.send(signal.SIGCONT)
            sleeper.finish()
            came_to = {"none": "idle"}.get(lease, lease)
            run = sleeper.runs.get(name)
            if run is None or run.status not in ("complete", "incomplete"):
                raise ViolationError("stuck", f"{name}, only stopped for a while: {run}")
    world.restart(scene)
    return came_to


def _take_over(world: World, name: str, sleeper: Child) -> str:
    """Another run while `sleeper` sleeps, whose lease has ended; then `sleeper` wakes up."""
    heirs, _ = world.run([name], lock_timeout="500ms")
    heir = heirs[name]
    if heir.status not in ("complete", "incomplete"):
        if "lock" not in (heir.error or "") or heir.error_kind != "database":
            raise ViolationError("stuck", f"the heir of {name}: {heir.status}: {heir.error}")
        sleeper.send(signal.SIGCONT)
        sleeper.finish()
        return "blocked"
    wake(world, name, sleeper)
    return "fenced"


def wake(world: World, name: str, sleeper: Child) -> None:
    """Wake a run whose lease another one took: it has to end, and to write nothing.

    It is complete only if it had committed everything before it was stopped.
    """
    before = world.rows([name], staging=True)[name]
    merged = world.committed(name)
    sleeper.send(signal.SIGCONT)
    sleeper.finish()
    after = world.rows([name], staging=True)[name]
    touched = [table for table in before if before[table] != after[table]]
    if touched or world.committed(name) != merged:
        raise ViolationError("zombie", f"{name}: a run without a lease wrote {touched}")
    run = sleeper.runs.get(name)
    if run is not None and run.status == "complete" and world.has(name, run):
        return
    if run is None or (run.status, run.error_kind) != ("busy", "lease_lost"):
        raise ViolationError("zombie", f"{name}: a run that lost its lease ended as {run}")


def wake_among_three(world: World, scene: Scene, random: Random) -> str:
    """The first sleeps, the second takes over and sleeps in the middle, and the first wakes up.

    Then a third one takes over and ends, and the second wakes up. Says what it came to.
    """
    (name,) = scene.names
    with ExitStack() as stack:

        def put_to_sleep() -> tuple[Child, str]:
            child = stack.enter_context(world.bear(scene.names, lock_timeout="500ms"))
            stopped = freeze(world, child, random.uniform(0.1, 0.9) * scene.seconds)
            lease = end_lease(world, name, child) if stopped else "none"
            if lease != "ended":
                child.send(signal.SIGCONT)
                child.finish()
            return child, lease

        first, lease = put_to_sleep()
        came_to = {"none": "idle"}.get(lease, lease)
        if lease == "ended":
            second, lease = put_to_sleep()
            wake(world, name, first)
            came_to = "fenced"
            if lease == "ended":
                came_to = _take_over(world, name, second)
    world.restart(scene)
    return came_to


# -- Postgres itself -----------------------------------------------------------------------------


class Fragile:
    """A cluster of its own, to be killed and started again."""

    # fsync outlives nothing that a SIGKILL does not; commits and whole pages have to be written.
    SETTINGS: Mapping[str, str] = {"fsync": "off"}

    def __init__(self, place: Path) -> None:
        self._place = place
        self.server = self.start()

    def start(self) -> embedded.Server:
        """Start it; after a kill it recovers first."""
        self.server = embedded.start(self._place, settings=self.SETTINGS)
        return self.server

    def kill(self) -> None:
        """SIGKILL for the postmaster, then for the processes that it had."""
        with psycopg.connect(dsn(self.server.url()), autocommit=True) as connection:
            pids = [pid for (pid,) in ask(connection, "SELECT pid FROM pg_stat_activity")]
            for pid in (self.server.pid, *pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop it in the ordinary way."""
        embedded.stop(self._place)


@contextmanager
def fragile() -> Iterator[Fragile]:
    """A cluster with an empty warehouse; gone at the end."""
    with directory() as place:
        cluster = Fragile(place / "data")
        try:
            migrate.upgrade(cluster.server.url())
            yield cluster
        finally:
            cluster.stop()


def kill_postgres(
    world: World,
    cluster: Fragile,
    scene: Scene,
    *,
    delay: float | None = None,
    point: Point | None = None,
) -> bool:
    """Kill Postgres in the middle of a run; whether it was under way."""
    with world.bear(scene.names, point=point, signal=signal.SIGSTOP) as child:
        if point is not None:
            if not freeze(world, child, None):
                raise ViolationError("unreached", f"{scene.names} did not come to {point}")
        else:
            child.wait(lambda: child.began)
            child.wait(lambda: child.all_ended, delay or 0.0)
        under_way = child.under_way
        cluster.kill()
        child.send(signal.SIGCONT)
        child.finish()
        for name, run in child.runs.items():
            if run.status not in ("complete", "incomplete") and run.error_kind != "database":
                raise ViolationError("stuck", f"{name} ended as {run.status}: {run.error}")
        if child.code or not child.all_ended:
            raise ViolationError("crashed", f"{scene.names} ended with code {child.code}")
    cluster.start()
    world.hang_up()
    world.judge(scene)
    world.restart(scene)
    return under_way


# -- points that have a name ---------------------------------------------------------------------

_LEASE = r"INSERT INTO etl\.leases"
_RENEW = r"UPDATE etl\.leases SET until=\(clock"
_RELEASE = r"UPDATE etl\.leases SET until=clock"
_RUN = r"INSERT INTO etl\.runs"
_CHANNELS = "twilio_demo.channels"
_ALIBABA = "alibaba_demo.contact_flows"

NAMED = (
    Named("before the lease is taken", Point("before", _LEASE)),
    Named("lease taken, not committed", Point("commit", _LEASE)),
    Named("lease taken", Point("committed", _LEASE)),
    Named("before the plan", Point("before", r"FROM etl\.streams")),
    Named("before the first staging table", Point("before", "CREATE UNLOGGED"), start="empty"),
    Named("between two staging tables", Point("after", "CREATE UNLOGGED", 2), start="empty"),
    Named("staging made, not committed", Point("commit", "CREATE UNLOGGED"), start="empty"),
    Named("staging made", Point("committed", "CREATE UNLOGGED"), start="empty"),
    Named("staging emptied, not committed", Point("commit", r"EXISTS \(SELECT .*FROM staging\.")),
    Named("staging emptied", Point("committed", r"EXISTS \(SELECT .*FROM staging\.")),
    Named("while the token is asked for", Point("request", "POST /oauth/token")),
    Named("while the first page is asked for", Point("request", r"GET .*/flows\?")),
    Named("while the second page is asked for", Point("request", r"GET .*/flows\?", 2)),
    Named("while the list is read again", Point("request", r"GET .*/flows\?", 6), start="empty"),
    Named("while Alibaba is asked", Point("request", "^[A-Z]+ /", 2), _ALIBABA),
    Named("a page read", Point("page", nth=3)),
    Named("a page of the second scan read", Point("page", nth=7), start="empty"),
    Named("a batch staged, the lease not checked", Point("before", _RENEW, 2)),
    Named("a batch staged, not committed", Point("commit", _RENEW, 2)),
    Named("a batch staged", Point("committed", _RENEW, 2)),
    Named(
        "before a checkpoint",
        Point("before", r"INSERT INTO etl\.checkpoints"),
        _CHANNELS,
        "empty",
        0.06,
    ),
    Named(
        "checkpoint saved, not committed",
        Point("commit", r"INSERT INTO etl\.checkpoints"),
        _CHANNELS,
        "empty",
        0.06,
    ),
    Named(
        "checkpoint saved",
        Point("committed", r"INSERT INTO etl\.checkpoints", 2),
        _CHANNELS,
        "empty",
        0.06,
    ),
    Named("before the staged rows are settled", Point("before", "ANALYZE")),
    Named("while they are settled", Point("after", r"DELETE FROM staging\."), start="empty"),
    Named("settled, not committed", Point("commit", "ANALYZE")),
    Named("settled", Point("committed", "ANALYZE")),
    Named("absent rows found", Point("after", r"FROM zoom\.flows .*NOT EXISTS")),
    Named("while one record is asked for", Point("request", r"GET .*/flows/")),
    Named("before the merge checks the lease", Point("before", _RENEW, 4)),
    Named("before the merge writes", Point("before", r"WITH removed")),
    Named("children of a gone row removed", Point("after", r"DELETE FROM zoom\.flow_versions")),
    Named("a gone row removed", Point("after", r"DELETE FROM zoom\.flows")),
    Named("lost children removed", Point("after", r"DELETE FROM zoom\.flow_versions", 2)),
    Named(
        "before history is written", Point("before", r"INSERT INTO history\.zoom_flows .*differ")
    ),
    Named("rows written, not their children", Point("after", r"INSERT INTO zoom\.flows ")),
    Named("children written", Point("after", r"INSERT INTO zoom\.entry_points ")),
    Named("before the watermark is worked out", Point("before", r"max\(staging\.")),
    Named("before the run is recorded", Point("before", _RUN)),
    Named("run recorded, not the watermark", Point("after", _RUN)),
    Named("watermark written", Point("after", r"INSERT INTO etl\.streams")),
    Named("staging emptied in part", Point("after", "TRUNCATE", 2), start="empty"),
    Named("before the merge's COMMIT", Point("commit", _RUN)),
    Named("after the merge's COMMIT", Point("committed", _RUN)),
    Named("before the lease is released", Point("before", _RELEASE)),
    Named("lease released, not committed", Point("commit", _RELEASE)),
    Named("lease released", Point("committed", _RELEASE)),
    Named("absence noted", Point("after", r"INSERT INTO etl\.absences"), _ALIBABA),
    Named("absence noted, not committed", Point("commit", r"INSERT INTO etl\.absences"), _ALIBABA),
    Named("absence noted for good", Point("committed", r"INSERT INTO etl\.absences"), _ALIBABA),
    Named("before the twice absent go", Point("before", "WITH removed"), _ALIBABA, "absent"),
    Named("absence settled", Point("after", r"DELETE FROM etl\.absences"), _ALIBABA, "absent"),
    Named(
        "Alibaba: rows written, not their children",
        Point("after", r"INSERT INTO alibaba\.contact_flows "),
        _ALIBABA,
    ),
    Named("Alibaba: before the merge's COMMIT", Point("commit", _RUN), _ALIBABA),
    Named("short first load: copying", Point("page", nth=12), _CHANNELS, "empty"),
    Named("short first load: lease not checked", Point("before", _RENEW, 2), _CHANNELS, "empty"),
    Named("short first load: before its COMMIT", Point("commit", _RUN), _CHANNELS, "empty"),
    Named("short first load: after its COMMIT", Point("committed", _RUN), _CHANNELS, "empty"),
    Named("read from the newest on: a page staged", Point("committed", _RENEW, 2), _CHANNELS),
    Named("read from the newest on: before the merge's COMMIT", Point("commit", _RUN), _CHANNELS),
)

SLEEPY = (
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
    "short first load: copying",
    "short first load: lease not checked",
)
"""Points at which a stopped run does not hold the row of its lease: another one can take it."""


# -- many kills ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What was done, and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    random_under_way: int = 0
    zombies: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Take in another one."""
        for mine, theirs in (
            (self.kills, other.kills),
            (self.zombies, other.zombies),
            (self.points, other.points),
            (self.violations, other.violations),
        ):
            mine.update(theirs)
        self.random_under_way += other.random_under_way

    def lines(self) -> Iterator[str]:
        """The tally in words."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        yield f"{self.kills.total()} kills: {kinds}"
        if self.kills["random"]:
            share = self.random_under_way / self.kills["random"]
            yield f"{self.random_under_way} of the random ones ({share:.0%}) hit a run under way"
        if self.points:
            yield f"{len(self.points)} of {len(NAMED)} named points reached"
        if self.zombies:
            ends = ", ".join(f"{count} {end}" for end, count in sorted(self.zombies.items()))
            yield f"zombies: {ends}"
        words = ("lost", "doubled", "torn")
        others = [word for word in self.violations if word not in words]
        yield ", ".join(f"{word} {self.violations[word]}" for word in (*words, *others))


def kill_at_random(world: World, random: Random, kills: int, tally: Tally) -> Iterator[None]:
    """Kills at random instants on one warehouse; half of them before a run that is killed too."""
    world.wipe()
    done = 0
    while done < kills:
        for landed in _random_scene(world, random):
            done += 1
            tally.kills["random"] += 1
            tally.random_under_way += landed
            yield
    world.quieten()


def _random_scene(world: World, random: Random) -> Iterator[bool]:
    names = STREAMS if random.random() < 0.2 else (random.choice(STREAMS),)
    start: Start = random.choices(("empty", "changed", "same"), (25, 65, 10))[0]
    if random.random() < 0.03:
        scene = world.scene(("twilio_demo.channels",), "empty", random)
        with slowed(world, 0.06):
            yield kill_sometime(world, scene, random, seconds=1.6)
            world.judge(scene)
            yield kill_sometime(world, scene, random, seconds=1.6)
    else:
        scene = world.scene(names, start, random)
        if random.random() < 0.06:
            yield kill_while_moving(world, scene, random)
            return
        again = True
        while again:
            yield kill_sometime(world, scene, random)
            again = not any(world.judge(scene).values()) and random.random() < 0.5
    world.judge(scene)
    world.restart(scene)


def zombies_at_random(world: World, random: Random, kills: int, tally: Tally) -> Iterator[None]:
    """Runs of two or three processes that are stopped at random instants and robbed."""
    world.wipe()
    for _ in range(kills):
        start: Start = random.choices(("empty", "changed"), (30, 70))[0]
        scene = world.scene((random.choice(STREAMS),), start, random)
        if random.random() < 0.3:
            tally.zombies[wake_among_three(world, scene, random)] += 1
        else:
            delay = random.uniform(0.1, 0.9) * scene.seconds
            tally.zombies[wake_a_zombie(world, scene, delay=delay)] += 1
        tally.kills["zombie"] += 1
        yield
    world.quieten()


def kill_at_name(world: World, named: Named, random: Random, tally: Tally) -> Iterator[None]:
    """One kill at a named point, which has to be reached."""
    world.wipe()
    if not kill_at(world, named, random):
        raise ViolationError("unreached", f"no run came to {named.name!r}: {named.point}")
    tally.kills["named"] += 1
    tally.points[named.name] += 1
    yield


def kill_postgres_at_random(
    world: World, cluster: Fragile, random: Random, kills: int, tally: Tally
) -> Iterator[None]:
    """Postgres is killed at random instants of runs."""
    world.wipe()
    for _ in range(kills):
        start: Start = random.choices(("empty", "changed"), (30, 70))[0]
        names = STREAMS if random.random() < 0.3 else (random.choice(STREAMS),)
        scene = world.scene(names, start, random)
        kill_postgres(world, cluster, scene, delay=random.uniform(0, scene.seconds))
        tally.kills["postgres"] += 1
        yield
    world.quieten()


# -- the command ---------------------------------------------------------------------------------

CHAIN = 20
"""Kills on one warehouse before the next one."""


def plan(kills: int) -> Iterator[tuple[str, int]]:
    """Parts of a campaign: their names, and how many kills they have."""
    wanted = {
        "postgres": max(kills // 50, 2),
        "zombie": max(kills // 12, 5),
    }
    named = NAMED if kills >= 2 * len(NAMED) else ()
    wanted["random"] = max(kills - len(named) - sum(wanted.values()), 5)
    for each in named:
        yield f"named:{each.name}", 1
    for kind, count in wanted.items():
        for number, begin in enumerate(range(0, count, CHAIN)):
            yield f"{kind}:{number}", min(CHAIN, count - begin)


@dataclass(slots=True)
class Campaign:
    """Where the parts of a campaign take place."""

    seed: str
    url: str
    nursery: Nursery
    fragile: Fragile | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    def part(self, label: str, kills: int, tally: Tally) -> Iterator[None]:
        """One part, kill by kill; ViolationError ends it."""
        kind, _, what = label.partition(":")
        random = Random(f"{self.seed} {label}")
        with ExitStack() as stack:
            url = self.url
            if kind == "postgres":
                self.fragile = self.fragile or self.stack.enter_context(fragile())
                url = self.fragile.server.url()
            world = stack.enter_context(a_world(url, self.nursery, seed=random.randrange(10**6)))
            if kind == "named":
                named = next(each for each in NAMED if each.name == what)
                yield from kill_at_name(world, named, random, tally)
            elif kind == "postgres":
                assert self.fragile is not None
                yield from kill_postgres_at_random(world, self.fragile, random, kills, tally)
            elif kind == "zombie":
                yield from zombies_at_random(world, random, kills, tally)
            else:
                yield from kill_at_random(world, random, kills, tally)


@contextmanager
def a_world(url: str, nursery: Nursery, *, seed: int = 1) -> Iterator[World]:
    """A world on that warehouse, with emulators of its own."""
    with serve(SIZES, seed=seed) as sandbox, tempfile.TemporaryDirectory() as place:
        world = World(sandbox, url, Path(place), nursery)
        try:
            yield world
        finally:
            world.hang_up()


@contextmanager
def a_nursery(url: str) -> Iterator[Nursery]:
    """A nursery that has run everything once, on the warehouse `url`."""
    nursery = Nursery()
    try:
        with a_world(url, nursery) as world:
            for _ in range(2):
                nursery.warm_up(world.order(STREAMS))
            for name in STREAMS:
                happen(world.sandbox, name, Random(0), range(KINDS[name]))
            nursery.warm_up(world.order(STREAMS))
            world.wipe()
        yield nursery
    finally:
        nursery.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when every promise held."""
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
        parts = [(given.only, dict(parts).get(given.only, 1 if kind == "named" else CHAIN))]
    tally, began = Tally(), time.monotonic()
    with ExitStack() as stack:
        cluster = stack.enter_context(running(embedded.find_binaries(os.environ)))
        url = stack.enter_context(cluster.database(template=cluster.migrated))
        campaign = Campaign(given.seed, url, stack.enter_context(a_nursery(url)))
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
    minutes = (time.monotonic() - began) / 60
    console.print(f"{minutes:.1f} minutes, {tally.kills.total() / minutes:.0f} kills a minute")
    return 1 if tally.violations else 0


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[Tally], None]]:
    """A bar on a terminal; elsewhere a line now and then."""
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

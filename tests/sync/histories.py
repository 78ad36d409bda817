"""Random histories: a source that changes while it is read, synced by the real code over HTTP.

    python -m tests.sync.histories --histories 2000 --seed 1 [--mode zoom/keyset] [--trace]

A history is a seed and a mode (a stream, and what its page tokens mean). The source changes during
the first 6 to 10 runs (simulation.py) and is quiet for up to 8 more; then the warehouse has to
equal it (checker.py). A process that "dies" stops in the middle of its run: its connections are
closed and its lease stays taken. Everything random comes from the seed, so `--mode M --seed S
--histories 1` repeats a history.
"""

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from etl.load import lease
from etl.load.runs import Run
from etl.sync.job import Job, Reached
from etl.sync.run import run_stream
from etl.warehouse.embedded import find_binaries
from tests.postgres import running
from tests.sync import wrong
from tests.sync.checker import Checker, Environment, Outcome, open_environment
from tests.sync.kinds import Mode
from tests.sync.simulation import MODES, Crash, SourceSimulation

RunStream = Callable[[Job], Run]

PRODUCT = "product"

# -- the driver -----------------------------------------------------------------------------------

FAST = 0.0
"""What the product's stopwatch always shows, so that nothing counts as slow."""


class Driver:
    """Plays one history: runs while the source changes, then quiet ones."""

    def __init__(self, env: Environment, mode: Mode, seed: int, algorithm: str) -> None:
        env.clear()
        self.env, self.mode = env, mode
        self.run = run_stream if algorithm == PRODUCT else wrong.ALGORITHMS[algorithm]()
        self.outcome = Outcome(mode.name, seed, algorithm)
        self.simulation = SourceSimulation(env.sandbox, mode, seed)
        self.stream = self.simulation.stream()
        self.settings = self.simulation.settings(env.sources[mode.source])
        self.checker = Checker(self.simulation, env, self.stream, self.outcome)
        self.accept = False

    def play(self) -> Outcome:
        random, simulation, outcome = self.simulation.random, self.simulation, self.outcome
        lam = random.choice((0.02, 0.05, 0.1, 0.3, 0.6))
        quiet_at_first = random.random() < 0.5
        for number in range(random.randint(6, 10)):
            simulation.lam = 0.0 if number == 0 and quiet_at_first else lam
            self._once(full=random.random() < 0.12)
            simulation.clock.advance(random.choice((60, 900, 21_600, 50_000)))
            simulation.churn(25 if random.random() < 0.05 else random.randint(0, 3))
        simulation.quieten()
        outcome.operations, churned = simulation.operation, outcome.requests
        last = self._quiet()
        for _ in range(3):  # rows of one instant come in another order with every answer
            if last is None or last.status != "complete":
                last = self._once(full=True)
        outcome.quiet_requests = outcome.requests - churned
        if last is None or last.status != "complete":
            outcome.add_finding("not settled", f"{last and last.status}: {last and last.error}")
        # Now the smallest possible run has to find every change made between two runs.
        for _ in range(2):
            simulation.touch(random.choice((1, 3, 25)))
            self._once()
        self.checker.check_end()
        before = self.checker.writes()
        again = self._once()
        if self.checker.writes() != before or again is None or again.rows_written:
            outcome.add_finding("not quiet", "a run without changes wrote rows or used a sequence")
        return outcome

    def _quiet(self) -> Run | None:
        """Run up to 5 times on a quiet source, in full at the end; return the last run."""
        run, settled = None, 0
        fulls = {"channels": 3, "contact_flows": 1}.get(self.mode.stream, 0)
        for number in range(5):
            full = number >= 5 - fulls
            if settled > 1 and not full:  # two runs in a row found nothing to do
                continue
            self.simulation.clock.advance(50_000)
            if full and not self.outcome.behind:
                self.outcome.behind = self.checker.behind()
            run = self._once(full=full)
            self.outcome.quiet_runs += 1
            quiet = run is not None and run.status == "complete" and not run.rows_written
            settled = settled + 1 if quiet else 0
        return run

    def _once(self, *, full: bool = False) -> Run | None:
        """Run once; return None if the process died in it."""
        simulation, outcome, pages = self.simulation, self.outcome, 0

        def on_progress(reached: Reached) -> None:
            nonlocal pages
            pages += reached.phase == "reading"

        simulation.begin_run()
        self.checker.before_run()
        outcome.runs += 1
        job = Job(
            self.env.engine,
            self.stream,
            self.settings,
            self._holder(),
            accept_deletes=self.accept,
            full=full,
            on_progress=on_progress,
            clock=lambda: FAST,
            sleep=lambda seconds: simulation.clock.advance(1),  # the real length is random
            now=simulation.now,
        )
        run: Run | None = None
        try:
            run = self.run(job)
        except Crash:
            self._leave_as_killed()
            outcome.crashed += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, no run may raise it
            self._leave_as_killed()
            outcome.add_finding("raised", repr(error))
        if self.mode.keeps:
            # Such a run may stop early, and how many pages it had prefetched depends on timing:
            # make the changes that would have come before those pages in any case.
            while simulation.requests < pages + 16:
                simulation.before_request()
        # As if a person had checked what was not deleted, and found it right.
        self.accept = run is not None and run.error_kind in ("safety_stop", "ended")
        outcome.requests += pages if self.mode.keeps else simulation.requests
        if run is not None:
            outcome.complete += run.status == "complete"
            outcome.incomplete += run.status != "complete"
            outcome.incremental += run.mode == "incremental"
        self.checker.after_run(run)
        return run

    def _holder(self) -> str:
        """Return the name of a dead process of this machine: no pid is that large."""
        node, _, place = lease.process_name().rsplit(":", 2)
        return f"{node}:{2**22 + self.outcome.runs}:{place}"

    def _leave_as_killed(self) -> None:
        """Leave what a kill leaves: no connection, and a lease that was not released."""
        self.env.engine.dispose()
        if lease.is_dead(self._holder()):
            self.env.connection.execute(
                "UPDATE etl.leases SET until = clock_timestamp() + interval '1 minute' "
                "WHERE source = %s",
                [self.mode.source],
            )


def play(env: Environment, mode: str, seed: int, algorithm: str = PRODUCT) -> Outcome:
    """Play one history with the product, or with an algorithm of wrong.py in its place."""
    return Driver(env, MODES[mode], seed, algorithm).play()


# -- many histories -------------------------------------------------------------------------------

History = tuple[str, int, str]
"""Mode, seed, algorithm."""


def in_turn(modes: Sequence[str], seed: int, count: int, algorithm: str = PRODUCT) -> list[History]:
    """Return `count` histories, the modes in turn, the seeds from `seed` on."""
    size = len(modes)
    return [(modes[n % size], seed + n // size, algorithm) for n in range(count)]


Player = subprocess.Popen[str]


@contextmanager
def players(urls: Sequence[str]) -> Iterator[list[Player]]:
    """Yield one process for each warehouse; it plays histories on that warehouse."""
    command = [sys.executable, "-m", "tests.sync.histories", "--worker"]
    root = Path(__file__).parents[2]
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                subprocess.Popen(
                    [*command, url],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=root,
                )
            )
            for url in urls
        ]


def play_all(
    players: Sequence[Player],
    histories: Iterable[History],
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Play histories with all players; call `on_outcome` with each outcome as it comes.

    Raise RuntimeError if such a process ends too soon.
    """
    left = iter(histories)
    outcomes: list[Outcome] = []
    lock = threading.Lock()

    def take() -> History | None:
        with lock:
            return next(left, None)

    def work(player: Player) -> None:
        assert player.stdin is not None
        assert player.stdout is not None
        while history := take():
            player.stdin.write(json.dumps(history) + "\n")
            player.stdin.flush()
            line = player.stdout.readline()
            if not line:
                raise RuntimeError(f"the process that played {history} ended; see stderr")
            with lock:
                outcomes.append(Outcome.of(line))
                on_outcome(outcomes[-1])

    with ThreadPoolExecutor(len(players)) as threads:
        list(threads.map(work, players))
    return outcomes


def work(url: str) -> None:
    """Play the histories that stdin names, a line of JSON for each; print each outcome as one."""
    with open_environment(url) as env:
        for line in sys.stdin:
            outcome = play(env, *json.loads(line))
            sys.stdout.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
            sys.stdout.flush()


COLUMNS = (
    ("runs", "runs"),
    ("complete", "complete"),
    ("incompl.", "incomplete"),
    ("crashed", "crashed"),
    ("increm.", "incremental"),
    ("late", "late"),
    ("behind", "behind"),
    ("lost", "lost"),
    ("stale", "stale"),
    ("false del.", "false_deletes"),
    ("undetected", "undetected"),
)


def report(outcomes: Iterable[Outcome]) -> list[str]:
    """Return a table with a line per mode; `req` is requests per run, with changes and quiet."""
    of: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        of.setdefault(outcome.mode, []).append(outcome)
    titles = ["histories", "req", "req quiet", *(title for title, _ in COLUMNS), "findings"]
    lines = [f"{'mode':33}" + "".join(f"{title:>11}" for title in titles)]
    for mode in [mode for mode in MODES if mode in of]:
        each = of[mode]
        names = ["requests", "quiet_requests", "quiet_runs", *(name for _, name in COLUMNS)]
        total = {name: sum(getattr(outcome, name) for outcome in each) for name in names}
        churned = total["runs"] - total["quiet_runs"]
        cells = [
            len(each),
            round((total["requests"] - total["quiet_requests"]) / max(churned, 1), 2),
            round(total["quiet_requests"] / max(total["quiet_runs"], 1), 2),
            *(total[name] for _, name in COLUMNS),
            sum(len(o.findings) for o in each),
        ]
        lines.append(f"{mode:33}" + "".join(f"{cell:>11}" for cell in cells))
    return lines


def replay(outcome: Outcome) -> str:
    """Return the command that repeats a history."""
    history = f"--mode {outcome.mode} --seed {outcome.seed} --histories 1 --trace"
    other = "" if outcome.algorithm == PRODUCT else f" --algorithm {outcome.algorithm}"
    return f"python -m tests.sync.histories {history}{other}"


def failures(outcome: Outcome) -> list[str]:
    """Return the findings, and the command that repeats them."""
    lines = [f"{found.kind}: {found.text[:300]}" for found in outcome.findings[:5]]
    return [*lines, f"  again: {replay(outcome)}"] if lines else []


def main() -> int:
    """Play histories and print their outcomes; return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.sync.histories")
    parser.add_argument("--histories", type=int, default=220)
    parser.add_argument("--seed", type=int, default=Random().randrange(2**32))
    parser.add_argument("--mode", default="", help="a mode, or the common prefix of several")
    parser.add_argument("--algorithm", default=PRODUCT, choices=[PRODUCT, *wrong.ALGORITHMS])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--trace", action="store_true", help="print a line per run")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker)
        return 0
    modes = [mode for mode in MODES if mode.startswith(given.mode)]
    if not modes:
        parser.error(f"no such mode; there are: {', '.join(MODES)}")
    histories = in_turn(modes, given.seed, given.histories, given.algorithm)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{given.histories} histories, seed {given.seed}")
    outcomes = _play_with_progress(console, histories, given.processes, trace=given.trace)
    for line in report(outcomes):
        console.print(line)
    return 1 if any(outcome.findings for outcome in outcomes) else 0


def _play_with_progress(
    console: Console, histories: Sequence[History], processes: int, *, trace: bool
) -> list[Outcome]:
    """Play on a new Postgres, with a progress bar if there is a terminal."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with ExitStack() as stack:
        cluster = stack.enter_context(running(find_binaries(os.environ)))
        urls = [
            stack.enter_context(cluster.database(template=cluster.migrated))
            for _ in range(min(processes, len(histories)))
        ]
        bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        stack.enter_context(bar)
        task = bar.add_task("histories", total=len(histories))
        ended = itertools.count(1)

        def on_outcome(outcome: Outcome) -> None:
            bar.advance(task)
            if not console.is_terminal and (number := next(ended)) % 50 == 0:
                console.print(f"{number} of {len(histories)}")
            for line in [*(outcome.trace if trace else ()), *failures(outcome)]:
                console.print(line)

        return play_all(stack.enter_context(players(urls)), histories, on_outcome)


if __name__ == "__main__":
    sys.exit(main())

"""Rounds: plan them, start their runs, follow the runs to their end, and give up those that hang.

schedule.py says which source is due, dispatch.py which run is next, executors.py where it happens,
hung.py which runs make no progress.
"""

import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.daemon import connections, hung, logs, schedule
from etl.daemon.context import Context, Surroundings
from etl.daemon.dispatch import Dispatch, Running
from etl.daemon.executors import Order, Runner
from etl.daemon.metrics import Metrics
from etl.daemon.snapshot import Snapshot
from etl.errors import CallflowError, StoppedError, place
from etl.load import lease as leases
from etl.load import runs
from etl.load.lease import Lease
from etl.load.runs import Run
from etl.sync.selection import Unit, account, name_of, select

ROLL_BACK = 6.0
"""Seconds of the deadline that are kept for rolling back what did not finish by then."""

_PASSING = {"unavailable", "database", "busy", "lease_lost", "internal", "hung", "memory"}
"""Kinds of failure that another attempt may not meet: it is made before the next planned time."""
_AGAIN, _AGAIN_AT_MOST = timedelta(seconds=30), timedelta(minutes=15)


class Rounds:
    """The rounds of all sources. The loop sets `context`; other threads only read it.

    `ended` is called, in any thread, after a run has ended and was recorded.
    """

    def __init__(
        self,
        context: Context,
        runner: Runner,
        given: Surroundings,
        metrics: Metrics,
        ended: Callable[[], None],
    ) -> None:
        self.context = context
        self.planned = False
        self._runner = runner
        self._given = given
        self._metrics = metrics
        self._on_ended = ended
        self._dispatch = Dispatch(
            self._start,
            workers=context.settings.daemon.workers,
            ended=self._ended,
            started=self._round_started,
            clock=given.clock,
        )
        self._timer = schedule.scheduler(self._submit, self._skipped)
        self._timer.start(paused=True)
        self._failures: dict[str, int] = {}
        self._late: dict[str, float] = {}  # source → since when its next round waits for this one
        self._rolled_back: list[Unit] | None = None  # a list from `close` on

    # --- the plan --------------------------------------------------------------------------------
    def plan(self, snapshot: Snapshot, sources: Collection[str] | None = None) -> None:
        """Plan the rounds of `sources` (None: of all) again, by what is recorded of their runs.

        Streams whose last run failed are due at once when this daemon only starts to lead.
        """
        settings, now = self.context.settings, snapshot.time(self._given.clock())
        ages, asked = recorded_ages(settings, snapshot, now, failed_now=not self.planned)
        chosen = {
            name: source
            for name, source in settings.sources.items()
            if sources is None or name in sources
        }
        schedule.plan(
            self._timer,
            {name: source.schedule for name, source in chosen.items()},
            ages,
            {name: asked.get(account(source), timedelta()) for name, source in chosen.items()},
            self._given.random,
            self._given.wall(),
        )
        self.planned = True

    def keep(self, sources: Collection[str]) -> None:
        """Forget the planned rounds of all other sources."""
        schedule.drop(self._timer, sources)

    def go_on(self) -> None:
        """Let planned rounds start, and runs in the slots that silent runs left."""
        self._timer.resume()
        self._dispatch.look_again()

    def pause(self) -> None:
        """Start no round until `go_on`; runs under way go on."""
        self._timer.pause()

    def next_runs(self) -> Mapping[str, datetime]:
        """Return when each source is planned next (UTC)."""
        return schedule.next_runs(self._timer)

    def running(self) -> Mapping[tuple[str, str], float]:
        """Return the runs under way: (source, stream) → seconds since its start."""
        runs_ = self._dispatch.running()
        return {pair: self._dispatch.age(running) for pair, running in runs_.items()}

    # --- a round ---------------------------------------------------------------------------------
    def _submit(self, source: str, late: float) -> "Future[None]":
        """Queue the streams of a source that is due."""
        settings = self.context.settings
        if source not in settings.sources:
            gone: Future[None] = Future()
            gone.cancel()
            return gone
        return self._dispatch.submit(select(settings, [source]), late)

    def _skipped(self, source: str) -> None:
        self._metrics.skipped(source)
        if source not in self._late:
            self._late[source] = self._given.clock()
            self._given.log.warning(
                "not started: the previous round waits or still runs", source=source
            )
        self._metrics.lag(source, self._given.clock() - self._late[source])

    def _round_started(self, source: str, late: float) -> None:
        since = self._late.pop(source, None)
        self._metrics.lag(source, late if since is None else max(late, self._given.clock() - since))

    def _start(self, unit: Unit, stop: threading.Event) -> "Future[Run]":
        now, clock = self.context, self._given.clock
        if now.lease is None or now.engines is None:
            raise StoppedError("this daemon does not lead")

        def heard() -> None:
            self._dispatch.heard(unit)

        engine = now.engines.runs
        order = Order(unit, now.settings, engine, now.lease, now.redact, clock, stop, heard)
        return self._runner.start(order)

    def _ended(self, unit: Unit, outcome: Run | BaseException) -> None:
        if isinstance(outcome, StoppedError):
            if self._rolled_back is not None:
                self._rolled_back.append(unit)
            self._given.log.info("run stopped", source=unit[0].name, stream=unit[1].name)
            return
        run = outcome if isinstance(outcome, Run) else self._record_death(unit, outcome)
        self._metrics.run(run)
        traced = isinstance(outcome, Run) and self.context.settings.daemon.telemetry
        logs.run_ended(self._given.log, run, traced=traced)
        self._on_ended()
        self._plan_after(unit, run)

    def _record_death(self, unit: Unit, error: BaseException) -> Run:
        now = self.context
        run = run_that_died(unit, error, now.redact, self._given.wall())
        if now.lease is not None and now.engines is not None:
            recorded = connections.attempt(now.engines.runs, now.redact, _record, now.lease, run)
            return recorded or run
        return run

    def _plan_after(self, unit: Unit, run: Run) -> None:
        """Move the next round of a source by what came of this run."""
        source = unit[0]
        if run.retry_at is not None:
            self._dispatch.drop(account(source))
            for name, each in self.context.settings.sources.items():
                if account(each) == account(source):
                    schedule.put_off(self._timer, name, run.retry_at)
            schedule.bring_forward(self._timer, source.name, run.retry_at)
        elif run.status in ("failed", "busy") and run.error_kind in _PASSING:
            count = self._failures[source.name] = self._failures.get(source.name, 0) + 1
            wait = min(_AGAIN * 2 ** min(count - 1, 10), _AGAIN_AT_MOST)
            schedule.bring_forward(self._timer, source.name, self._given.wall() + wait)
        elif run.status in ("complete", "not_available"):
            self._failures.pop(source.name, None)

    # --- runs that hang --------------------------------------------------------------------------
    def revoke_hung(self, connection: Connection) -> list[Running]:
        """Revoke the leases of runs that hang, if this daemon leads; return these runs."""
        now = self.context
        if now.lease is None:
            return []
        ages = {each: self._dispatch.age(each) for each in self._dispatch.running().values()}
        return hung.revoke_hung(connection, now.process, ages, now.settings.daemon.hung_after)

    def give_up(self, running: Running) -> None:
        """Free the slot of a run that hangs and was revoked; its round goes on without it."""
        source, stream = running.unit
        self._metrics.hung(source.name, stream.name)
        reason = hung.reason(running.unit, self.context.settings.daemon.hung_after)
        self._dispatch.give_up(running, reason)

    # --- the end ---------------------------------------------------------------------------------
    def step_down(self) -> None:
        """Stop all runs and forget the plan: another daemon leads."""
        self.planned = False
        self._timer.pause()
        self._dispatch.stop()
        self.keep(())

    def close(self) -> None:
        """Start nothing more."""
        self._rolled_back = []
        self._timer.pause()
        self._dispatch.close()

    def finish(self, until: float) -> int:
        """Wait for the runs under way; stop those that remain, so that all end before `until`.

        `until` is by the steady clock. Returns how many runs did not finish: Postgres rolls back
        what they had written.
        """
        left = until - self._given.clock()
        if not self._dispatch.wait(left - min(ROLL_BACK, left / 2)):
            self._dispatch.stop()
            now = self.context
            if not self._runner.hears_stop and now.engines is not None:
                connections.attempt(now.engines.own, now.redact, leases.revoke, now.process)
            self._dispatch.wait(max(0.0, until - 1.0 - self._given.clock()))
        return len(self._dispatch.running()) + len(self._rolled_back or ())

    def shutdown(self) -> None:
        """End the timer's thread."""
        self._timer.shutdown(wait=False)


def recorded_ages(
    settings: Settings, snapshot: Snapshot, now: datetime, *, failed_now: bool
) -> tuple[dict[str, timedelta | None], dict[str, timedelta]]:
    """Return how long ago each source last ran, and how long each account asked to be left alone.

    `now` is by the database's clock. A source is as old as its oldest stream; None: one never ran
    or, with `failed_now`, failed last. The second mapping is by account.
    """
    recorded = {(row["source"], row["stream"]): row for row in snapshot.rows}
    ages: dict[str, timedelta | None] = {}
    asked: dict[str, timedelta] = {}
    for source, stream in select(settings, []):
        row = recorded.get((source.name, stream.name), {})
        last, retry_at = row.get("last_attempt_at"), row.get("retry_at")
        again = failed_now and row.get("last_status") == "failed"
        age = now - last if last and not again else None
        others = ages.get(source.name, timedelta())
        ages[source.name] = None if age is None or others is None else max(age, others)
        if retry_at is not None:
            name = account(source)
            asked[name] = max(asked.get(name, timedelta()), retry_at - now)
    return ages, asked


def run_that_died(unit: Unit, error: BaseException, redact: Redactor, now: datetime) -> Run:
    """Return the run of a unit that could not report its own end.

    It hung, its worker was lost, or it met a bug. `now` is the time (any zone).
    """
    source, stream = unit
    now = now.astimezone(UTC)
    kind, what = (
        "internal",
        (
            f"{name_of(unit)}: the run died of {type(error).__name__}"
            f"{place(error)} → it starts again automatically; report this if it repeats"
        ),
    )
    if isinstance(error, CallflowError):
        kind, what = error.kind, redact.message(str(error))
    run = Run(uuid.uuid4().hex, source.name, stream.name, "full", now, now)
    return replace(run, error_kind=kind, error=what)


def _record(connection: Connection, lease: Lease, run: Run) -> Run:
    leases.stand_by(connection, lease)
    return runs.finish(connection, run)

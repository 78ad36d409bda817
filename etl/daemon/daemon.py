"""`callflow daemon`: keeps the warehouse fresh until a signal ends it.

The main thread beats about once a second. In each beat it takes or renews the lead and reads the
state of all streams (watch.py), gives up runs that hang (rounds.py), updates what the outside sees
(outside.py), and notifies systemd that it is alive (notify.py). Everything else has its own
threads, so nothing waits for anything it does not need: the page is answered from the last
overview, alerts are sent by another thread, and a database that is down is asked again later.

State that must survive a restart is in the warehouse, and nowhere else.
"""

import os
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry

from etl.config.settings import Settings, redactor
from etl.daemon import dask, executors, notify
from etl.daemon.context import Context, Surroundings
from etl.daemon.executors import Runner
from etl.daemon.metrics import Metrics
from etl.daemon.outside import Alerting, Notes, Page, overview
from etl.daemon.reload import reload, rescheduled
from etl.daemon.rounds import Rounds
from etl.daemon.signals import Signals
from etl.daemon.snapshot import Snapshot
from etl.daemon.watch import Watch
from etl.errors import CallflowError, SchemaError, place
from etl.load.lease import process_name
from etl.status.health import Overview, Role
from etl.status.words import span
from etl.version import __version__

BEAT = 1.0
"""Seconds between two beats, unless something happens earlier."""
REST_AT_MOST = 1.5
"""Seconds between two beats where there are so many streams that a beat itself takes long."""
AFTER_A_BUG = 10.0
"""Seconds until the warehouse is asked again after a beat that met a bug."""
JUMP = 5.0
"""Seconds by which the wall clock may leave the steady one before all is planned again."""

_RUNNERS = {"threads": executors.threads, "dask": dask.workers}


def run(settings: Settings, given: Surroundings) -> None:
    """Keep the warehouse fresh until SIGTERM or SIGINT. To be called in the main thread.

    Raises CallflowError where it cannot start: a schema that is behind or too new, an executor that
    is not installed. A database or a cluster that does not answer is waited for.
    """
    signals = Signals(given.clock)
    with ExitStack() as stack:
        stack.enter_context(signals.handled())
        runner = stack.enter_context(_RUNNERS[settings.daemon.executor](settings))
        given.relog(settings)  # a runner's library may have added log handlers
        daemon = Daemon(settings, given, signals, runner)
        stack.callback(daemon.close)
        while not signals.stopping:
            daemon.beat()
        daemon.end()


class Daemon:
    """The loop of one process, and the parts between which it passes values."""

    def __init__(
        self, settings: Settings, given: Surroundings, signals: Signals, runner: Runner
    ) -> None:
        self._given, self._signals, self._runner = given, signals, runner
        self._context = Context(process_name(), settings, redactor(settings))
        self._started = given.now()
        self._offset = self._started.offset()
        self._changed = False  # a run has ended since all streams were read
        self._metrics = Metrics(__version__, CollectorRegistry())
        self._notes = Notes(given.log)
        self._watch = Watch(given)
        self._rounds = Rounds(self._context, runner, given, self._metrics, self._run_ended)
        self._alerting = Alerting(self._metrics, self._notes)
        self._manager = notify.Manager(given.env, given.clock)
        self._page = Page(
            self._view("starting"), self._watch.questions(lambda: self._context.redact),
            self._metrics, self._notes, given,
        )  # fmt: skip
        given.log.info(
            "started", version=__version__, sources=len(settings.sources),
            executor=settings.daemon.executor, process=self._context.process,
        )  # fmt: skip

    def beat(self) -> None:
        """Do what is due, then sleep. A bug is noted, and the next beat goes on.

        Raises SchemaError if the warehouse does not fit this version and never did.
        """
        started = self._given.clock()
        try:
            self._beat()
        except CallflowError:
            raise
        except Exception as error:  # noqa: BLE001 - one bug must not end the daemon at night
            what = f"a bug: {type(error).__name__}{place(error)} → report it; the daemon goes on"
            self._note("bug", what)
            self._watch.standing = replace(self._watch.standing, ask_at=started + AFTER_A_BUG)
        else:
            self._note("bug", None)
        self._note("systemd", self._manager.alive(notify.status(self._page.shown)))
        # Beats use a tenth of the time at most, unless there are very many streams.
        took = self._given.clock() - started
        self._signals.sleep(min(9 * took, REST_AT_MOST), BEAT)

    def _beat(self) -> None:
        if self._signals.reload:
            self._signals.reload = False
            self._note("systemd", self._manager.reloading())
            self._configure()
        self._compare_clocks()
        context = self._context
        self._page.serve(context.settings.daemon, self._given.clock(), context.redact)
        if self._given.clock() >= self._watch.standing.ask_at:
            try:
                self._look()
            except CallflowError as error:
                if isinstance(error, SchemaError) and not self._watch.standing.answered:
                    raise
                self._rounds.pause()
                self._watch.lost(error, context, running=bool(self._rounds.running()))
                self._change(engines=self._watch.engines)
        self._page.shown = shown = self._view()
        self._alerting.beat(self._context, shown, self._watch.snapshot, self._given.clock())

    def _look(self) -> None:
        """Ask the warehouse which daemon leads and what state the streams are in; act on it."""
        watch, led = self._watch, self._context.lease is not None
        engines = watch.reach(self._context)
        lapsed = watch.standing.lapsed(self._given.clock())
        watch.take_or_renew(engines, self._context)
        self._change(engines=engines, lease=watch.standing.lease)
        if led and self._context.lease is None:
            self._rounds.step_down()
            text = "another daemon leads now; this one stopped its runs, and they write nothing"
            self._given.log.warning(text)
        changed, self._changed = self._changed, False
        revoke = self._rounds.revoke_hung
        snapshot, hung = watch.read(engines, self._context, changed=changed, also=revoke)
        self._go_on(snapshot, lapsed)
        for each in hung:
            self._rounds.give_up(each)

    def _go_on(self, snapshot: Snapshot, lapsed: bool) -> None:
        """Let rounds start if this daemon leads and its runner works; plan them first if needed."""
        trouble, lease = self._runner.trouble(), self._context.lease
        self._note("executor", trouble)
        if lease is not None and trouble is None:
            if lapsed or not self._rounds.planned:
                self._given.log.info("this daemon leads", epoch=lease.epoch)
                self._rounds.plan(snapshot)
            self._rounds.go_on()
        elif self._rounds.planned:  # what a cluster lost is planned again when it is back
            self._rounds.planned = False
            self._rounds.pause()

    def _compare_clocks(self) -> None:
        """Plan again when the wall clock was set: planned times are by the wall clock."""
        offset = self._given.now().offset()
        jump, self._offset = offset - self._offset, offset
        if abs(jump) < JUMP:
            return
        way = "forward" if jump > 0 else "back"
        text = f"the clock of this machine went {way}; all rounds are planned again"
        self._given.log.warning(text, by=span(abs(jump)))
        self._metrics.clock_jumped()
        if self._rounds.planned and self._watch.snapshot is not None:
            self._rounds.plan(self._watch.snapshot)

    def _configure(self) -> None:
        previous = self._context.settings
        context = reload(self._context, self._given, self._metrics, self._notes)
        if context is None:
            return
        self._change(settings=context.settings, redact=context.redact)
        self._page.try_now()
        if self._rounds.planned and self._watch.snapshot is not None:
            self._rounds.keep(context.settings.sources)
            self._rounds.plan(self._watch.snapshot, rescheduled(previous, context.settings))

    def _change(self, **values: Any) -> None:
        self._context = self._rounds.context = replace(self._context, **values)

    def _view(self, role: Role | None = None) -> Overview:
        return overview(
            self._context, self._watch.standing, self._watch.snapshot, now=self._given.now(),
            started=self._started, notes=self._notes.texts(), running=self._rounds.running(),
            next_runs=self._rounds.next_runs(), role=role,
        )  # fmt: skip

    def _note(self, about: str, text: str | None) -> None:
        self._notes.set(about, text, self._context.redact)

    def _run_ended(self) -> None:
        self._changed = True
        self._signals.wake()

    # --- the end ---------------------------------------------------------------------------------
    def end(self) -> None:
        """Finish what can be finished within the deadline; roll the rest back."""
        deadline = self._context.settings.daemon.stop_deadline.total_seconds()
        last = threading.Timer(deadline, _abandon, (self._given.log,))
        last.daemon = True
        last.start()
        until = self._given.clock() + deadline
        running, log = len(self._rounds.running()), self._given.log
        log.info("stopping", running=running, deadline=span(deadline))
        self._note("systemd", self._manager.stopping(f"stops; {running} running"))
        self._page.shown = self._view("stopping")
        self._rounds.close()
        self._watch.release(self._context.redact)
        self._change(lease=None)
        rolled_back = self._rounds.finish(until)
        last.cancel()
        log.info("stopped", rolled_back=rolled_back)

    def close(self) -> None:
        """Let go of the timer, the port and the connections."""
        self._rounds.shutdown()
        self._page.close()
        self._watch.close(running=bool(self._rounds.running()))


def _abandon(log: Any) -> None:
    log.warning("the deadline is over; Postgres rolls back what is still running")
    os._exit(0)

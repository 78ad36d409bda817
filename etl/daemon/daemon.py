"""`callflow daemon`: keeps the warehouse fresh until it is told to stop.

The main thread beats once a second: it takes or renews the lead (lead.py), reads what state the
streams are in (health.py), gives up runs that hang, tells of what turned bad (alerts.py). Sources
become due by APScheduler (schedule.py), and their runs begin as places become free (dispatch.py) on
an executor (executors.py). Nothing waits for anything that it need not: a page is answered from the
last overview, a message is sent by a thread of its own, and a database that is away is asked again.

What is to be known after a restart is in the warehouse, and nothing else is kept anywhere.
"""

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from queue import Empty, SimpleQueue
from random import Random
from types import FrameType
from typing import Any

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from etl import __version__, api
from etl.config.settings import Settings, Source, redactor, secrets
from etl.daemon import alerts, logs, schedule
from etl.daemon.dispatch import Dispatch, Running
from etl.daemon.executors import Dask, Threads
from etl.daemon.metrics import Metrics
from etl.daemon.web.app import app
from etl.daemon.web.server import listen, serving
from etl.errors import (
    CallflowError,
    ConfigError,
    LeaseLostError,
    SchemaError,
    StoppedError,
    WarehouseError,
    place,
)
from etl.extract.http import MAX_ASKED_WAIT, utc_now
from etl.extract.route import Route, route_of
from etl.extract.verdict import ATTEMPTS
from etl.load import lead, runs
from etl.load import lease as leases
from etl.load.lease import Lease, process_name
from etl.load.runs import Run
from etl.status import query
from etl.status.health import Overview, Role, StreamHealth, assess
from etl.status.timetable import span
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import Unit, account, name_of, select
from etl.warehouse import migrate
from etl.warehouse.connect import connect, database_url, plain_errors
from etl.warehouse.rights import plain_rights

BEAT = 1.0
"""Seconds between two looks at everything."""
REST_AT_MOST = 1.5
"""Seconds between two beats where there are so many streams that a beat itself takes long."""
READ_EVERY = 3.0
"""Seconds between two looks at all streams, while nothing ends."""
REACH_EVERY = 15.0
"""Seconds between two looks whether the schema is still the one of this version."""
RENEW_EVERY = lead.TTL_SECONDS / 4
ROLL_BACK = 6.0
"""Seconds of the deadline that are kept for rolling back what did not finish by then."""
TRY_AGAIN = 10.0
"""Seconds until a port that was taken, or a message that was not taken, is tried again."""
JUMP = 5.0
"""Seconds by which the wall clock may leave the steady one before all is planned anew."""

_PASSING = {"unavailable", "database", "busy", "lease_lost", "internal", "hung", "memory"}
"""Kinds of failure that another attempt may not meet: it is made before the next planned time."""
_AGAIN, _AGAIN_AT_MOST = timedelta(seconds=30), timedelta(minutes=15)

_SESSION = """SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '3s';
              SET LOCAL idle_in_transaction_session_timeout = '60s'"""


@dataclass(slots=True)
class _Seen:
    """What the warehouse said last: rows of etl.streams at its time `now`, read at `read_at`; what
    scopes have rows, `held`."""

    now: datetime
    read_at: float
    rows: Sequence[Mapping[str, Any]]
    held: Sequence[tuple[str, str, str]]
    told: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def over(self, clock: float) -> bool:
        """Whether it is time to ask again."""
        return clock - self.read_at > READ_EVERY


class Daemon:
    """One process that may lead. `run` is its whole life; everything else it calls itself.

    `load`  reads the configuration anew. `log` is a structlog logger. `relog` is told the settings
    whose secrets the log must not show.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        load: Callable[[], Settings],
        env: Mapping[str, str],
        log: Any,
        relog: Callable[[Settings], None],
        with_migrate: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = utc_now,
        random: Random | None = None,
    ) -> None:
        self._settings = settings
        self._redact = redactor(settings)
        self._load = load
        self._env = env
        self._log = log
        self._relog = relog
        self._with_migrate = with_migrate
        self._clock = clock
        self._wall = wall
        self._random = random or Random()  # noqa: S311 - it spreads runs
        self._process = process_name()
        self._metrics = Metrics(__version__)
        self._dispatch = Dispatch(
            self._begin,
            workers=settings.daemon.workers,
            ended=self._ended,
            started=self._started,
            clock=clock,
        )
        self._timer = schedule.scheduler(self._submit, self._skipped)
        self._executor: Executor = Threads()
        self._engine: Engine | None = None  # of the runs
        self._own: Engine | None = None  # of the beats: never waits for a run
        self._lease: Lease | None = None
        self._leader: str | None = None
        self._renewed = clock()
        self._seen: _Seen | None = None
        self._stale = False
        self._trouble: str | None = "it was not asked yet"
        self._away = 0
        self._look_at = self._reach_at = clock()
        self._failures: dict[str, int] = {}
        self._late: dict[str, float] = {}  # source → since when its next round waits for this one
        self._rolled_back: list[Unit] | None = None
        self._notes: dict[str, str] = {}
        self._http = ExitStack()
        self._listening: tuple[str, Any] | None = None
        self._listen_at = clock()
        self._message: Future[None] | None = None
        self._message_at = clock()
        self._signals: list[int] = []
        self._reload = False
        # Its put() may be called by a signal handler at any point of the main thread's get();
        # Event.set() could wait there for ever for a lock that the main thread itself holds.
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._planned = False
        self._began = clock()
        self._started_at = wall()
        self._offset = wall().timestamp() - clock()
        self._overview = self._view("starting")

    # --- its life --------------------------------------------------------------------------------
    def run(self) -> None:
        """Work until SIGTERM or SIGINT.

        Raises CallflowError where it cannot begin: a schema that is behind or too new, an executor
        that is not installed. A database or a cluster that does not answer is waited for.
        """
        daemon = self._settings.daemon
        with ExitStack() as stack:
            stack.enter_context(_handling(self._signalled))
            stack.callback(self._dispose)
            stack.callback(self._http.close)
            if daemon.executor == "dask":
                if self._settings.warehouse.url is None:
                    raise ConfigError(
                        'missing; with executor = "dask" workers have to reach the warehouse',
                        where="warehouse.url",
                        advice="name a Postgres server; the embedded one is for one machine",
                    )
                self._executor = stack.enter_context(Dask(daemon.dask_scheduler or ""))
                self._relog(self._settings)  # distributed put up log handlers of its own
            self._log.info(
                "started", version=__version__, sources=len(self._settings.sources),
                executor=daemon.executor, process=self._process,
            )  # fmt: skip
            self._timer.start(paused=True)
            stack.callback(partial(self._timer.shutdown, wait=False))
            while not self._signals:
                began = self._clock()
                self._beat_on()
                self._rest(self._clock() - began)
            self._end()

    def _rest(self, took: float) -> None:
        """Until something happened or BEAT is over, so that what `took` long is a tenth at most."""
        end = self._clock() + min(9 * took, REST_AT_MOST)
        left = max(BEAT, end - self._clock())
        with suppress(Empty):
            while left > 0 and not (self._signals or self._reload):
                self._wakes.get(timeout=left)
                left = end - self._clock()
        while not self._wakes.empty():
            self._wakes.get()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        elif self._signals:
            os._exit(128 + number)
        else:
            self._signals.append(number)
        self._wakes.put(None)

    def _end(self) -> None:
        """Finish what can be finished within the deadline, roll the rest back."""
        deadline = self._settings.daemon.stop_deadline.total_seconds()
        last = threading.Timer(deadline, self._abandon)
        last.daemon = True
        last.start()
        began = self._clock()
        running = len(self._dispatch.running())
        self._log.info("stopping", running=running, deadline=span(deadline))
        self._overview = self._view("stopping")
        self._timer.pause()
        self._dispatch.close()
        self._give_back()
        rolled_back = self._rolled_back = []
        if not self._dispatch.wait(deadline - min(ROLL_BACK, deadline / 2)):
            self._dispatch.stop()
            self._revoke()
            self._dispatch.wait(max(0.0, deadline - 1.0 - (self._clock() - began)))
        last.cancel()
        left = len(self._dispatch.running())
        self._log.info("stopped", rolled_back=left + len(rolled_back))

    def _abandon(self) -> None:
        self._log.warning("the deadline is over; what still runs is rolled back by Postgres")
        os._exit(0)

    def _give_back(self) -> None:
        """The lead, so that another daemon need not wait for its end."""
        lease, self._lease = self._lease, None
        if lease is not None and self._own is not None:
            with (
                suppress(CallflowError),
                plain_errors("daemon", self._redact),
                self._transaction() as connection,
            ):
                leases.release(connection, lease)

    def _revoke(self) -> None:
        """End what runs on a cluster, where nobody hears that it is to stop: it writes no more."""
        if isinstance(self._executor, Dask) and self._own is not None:
            with (
                suppress(CallflowError),
                plain_errors("daemon", self._redact),
                self._transaction() as connection,
            ):
                leases.revoke(connection, self._process)

    def _dispose(self) -> None:
        for engine in (self._own, self._engine):
            if engine is not None:
                engine.dispose(close=not self._dispatch.running())

    # --- one beat --------------------------------------------------------------------------------
    def _beat_on(self) -> None:
        """A beat; a bug in it is told, and the next one is tried."""
        try:
            self._beat()
        except CallflowError:
            raise
        except Exception as error:  # noqa: BLE001 - nobody watches a daemon end at night
            what = f"a bug: {type(error).__name__}{place(error)} → report it; the daemon goes on"
            self._note("bug", what)
            self._look_at = self._clock() + TRY_AGAIN
        else:
            self._note("bug", None)

    def _beat(self) -> None:
        if self._reload:
            self._reload = False
            self._configure()
        self._compare_clocks()
        self._serve()
        if self._clock() >= self._look_at:
            try:
                self._look()
            except SchemaError as error:
                if self._seen is None:
                    raise
                self._went_away(error)
            except CallflowError as error:
                self._went_away(error)
        self._overview = self._view()
        self._notify()

    def _look(self) -> None:
        """Ask the warehouse: who leads, and what state are the streams in?"""
        if self._trouble is not None or self._clock() >= self._reach_at:
            self._reach()
            self._reach_at = self._clock() + REACH_EVERY
        lapsed = self._clock() - self._renewed > lead.TTL_SECONDS
        with plain_errors("warehouse", self._redact):
            self._lead()
        with plain_errors("warehouse", self._redact), self._transaction() as connection:
            if self._seen is None or self._stale or self._seen.over(self._clock()):
                self._stale = False
                now, rows = query.recorded(connection, self._redact)
                told = {(row["source"], row["stream"]): row["told"] for row in rows}
                for source, stream in [pair for pair, word in told.items() if word]:
                    if self._lease is not None and source not in self._settings.sources:
                        runs.note_told(connection, source, stream, None)
                held = query.scopes(connection, () if self._seen is None else self._seen.held)
                self._seen = _Seen(now, self._clock(), rows, held, told)
            hung = self._hung(connection) if self._lease else []
        if self._trouble is not None:
            self._log.info("the warehouse answers", after_failures=self._away)
        self._trouble, self._away = None, 0
        self._note("dask", self._cluster())
        if self._lease is not None and self._cluster() is None:
            if lapsed or not self._planned:
                self._log.info("this daemon leads", epoch=self._lease.epoch)
                self._plan(self._settings.sources)
                self._planned = True
            self._timer.resume()
            self._dispatch.look_again()
        elif self._planned:  # what the cluster lost is planned anew when it is back
            self._planned = False
            self._timer.pause()
        for running in hung:
            self._give_up(running)

    def _cluster(self) -> str | None:
        """Why no run can begin on the Dask cluster; None where it can, and without a cluster."""
        trouble = self._executor.trouble if isinstance(self._executor, Dask) else None
        if trouble is None:
            return None
        return f"{trouble}; nothing is begun until it is there → see to it, or to dask_scheduler"

    def _lead(self) -> None:
        """Renew the lead, or take it if nobody has it."""
        now, lease = self._clock(), self._lease
        if lease is None:
            with self._transaction() as connection:
                taken = lead.take(connection, self._process)
                self._leader = self._process if taken else lead.leader(connection)
            if taken is not None:  # only now is it committed
                self._lease, self._renewed = taken, now
                self._seen = None  # runs may have ended while another one led
        elif now - self._renewed > RENEW_EVERY:
            try:
                with self._transaction() as connection:
                    leases.renew(connection, lease, lead.TTL)
                self._renewed = now
            except LeaseLostError:
                self._step_down()

    def _step_down(self) -> None:
        self._lease, self._planned = None, False
        self._timer.pause()
        self._dispatch.stop()
        for job in self._timer.get_jobs():
            job.remove()
        self._log.warning("another daemon leads now; what ran here is stopped, and writes nothing")

    def _went_away(self, error: CallflowError) -> None:
        """The warehouse does not answer: wait for it, longer each time, and begin nothing."""
        self._away += 1
        self._timer.pause()
        trouble = self._redact.message(str(error))
        if trouble != self._trouble:
            self._log.error("no warehouse; waiting for it", error=trouble)
        self._trouble = trouble
        self._look_at = self._clock() + min(15.0, 2.0 ** min(self._away - 1, 4))
        if self._settings.warehouse.url is None:
            self._dispose()
            self._own = self._engine = None  # the embedded Postgres is started again

    def _reach(self) -> None:
        """Connect, and make the tables if there are none. Raises SchemaError if they do not fit."""
        if self._own is None:
            url = database_url(self._settings, self._env, lambda note: self._log.info(note))
            self._own, self._engine = connect(url), connect(url, most=None)
        with plain_rights(self._own, "warehouse", self._redact):
            with self._transaction() as connection:
                state = migrate.state(connection)
            migrate.fit(state, self._own.url, behind_too=self._with_migrate)
        if state != "head":
            self._log.info("the schema was brought to head")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        assert self._own is not None
        with self._own.begin() as connection:
            connection.exec_driver_sql(_SESSION)
            yield connection

    def _compare_clocks(self) -> None:
        """Plan anew when the wall clock was set: planned times are the wall clock's."""
        offset = self._wall().timestamp() - self._clock()
        jump, self._offset = offset - self._offset, offset
        if abs(jump) < JUMP:
            return
        way = "forward" if jump > 0 else "back"
        self._log.warning(f"the clock of this machine went {way}; planned anew", by=span(abs(jump)))
        self._metrics.clock_jumped()
        if self._planned:
            self._plan(self._settings.sources)

    # --- the schedule ----------------------------------------------------------------------------
    def _plan(self, sources: Mapping[str, Source]) -> None:
        """Make the jobs of `sources` anew, by what the warehouse knows of their runs."""
        assert self._seen is not None
        now = self._seen.now + timedelta(seconds=self._clock() - self._seen.read_at)
        recorded = {(row["source"], row["stream"]): row for row in self._seen.rows}
        ages: dict[str, timedelta | None] = {}
        asked: dict[str, timedelta] = {}
        for source, stream in self._units():
            row = recorded.get((source.name, stream.name), {})
            last, retry_at = row.get("last_attempt_at"), row.get("retry_at")
            # What failed last is tried when somebody begins to lead.
            again = row.get("last_status") == "failed" and not self._planned
            age = now - last if last and not again else None
            former = ages.get(source.name, timedelta())
            ages[source.name] = None if age is None or former is None else max(age, former)
            if retry_at is not None:
                asked[account(source)] = max(
                    asked.get(account(source), timedelta()), retry_at - now
                )
        paused = {name: asked.get(account(each), timedelta()) for name, each in sources.items()}
        schedules = {name: source.schedule for name, source in sources.items()}
        schedule.plan(self._timer, schedules, ages, paused, self._random, self._wall())

    def _units(self) -> list[Unit]:
        return select(self._settings, [])

    def _submit(self, name: str, late: float) -> "Future[None]":
        """APScheduler says that a source is due."""
        if name not in self._settings.sources:
            gone: Future[None] = Future()
            gone.cancel()
            return gone
        return self._dispatch.submit(select(self._settings, [name]), late)

    def _skipped(self, source: str) -> None:
        self._metrics.skipped(source)
        if source not in self._late:
            self._late[source] = self._clock()
            self._log.warning("not begun: the former round waits or runs still", source=source)
        self._metrics.lag(source, self._clock() - self._late[source])

    def _started(self, source: str, late: float) -> None:
        """A round of a source begins, `late` seconds after it was due."""
        since = self._late.pop(source, None)
        self._metrics.lag(source, late if since is None else max(late, self._clock() - since))

    def _begin(self, unit: Unit, stop: threading.Event) -> "Future[Run]":
        """Start a run on the executor. A secret is never an argument of one elsewhere."""
        lease, (source, stream) = self._lease, unit
        if lease is None or self._engine is None:
            raise StoppedError("this daemon does not lead")
        if self._settings.daemon.executor == "dask":
            path = self._settings.path and self._settings.path.absolute()
            return self._executor.submit(
                api.sync_stream, name_of(unit), path, holder=self._process, leader=lease
            )
        job = Job(
            self._engine, stream, source, self._process, leader=lease, stopped=stop.is_set,
            clock=self._clock, on_page=lambda records, total: self._dispatch.heard(unit),
            redact=self._redact,
        )  # fmt: skip
        self._dispatch.heard(unit)
        return self._executor.submit(run_stream, job)

    def _ended(self, unit: Unit, outcome: Run | BaseException) -> None:
        """A run came to its end, in whatever thread."""
        if isinstance(outcome, StoppedError):
            if self._rolled_back is not None:
                self._rolled_back.append(unit)
            self._log.info("run stopped", source=unit[0].name, stream=unit[1].name)
            return
        source = unit[0]
        run = outcome if isinstance(outcome, Run) else self._died(unit, outcome)
        self._metrics.run(run)
        logs.run_ended(self._log, run)
        self._stale = True
        self._wakes.put(None)
        if run.retry_at is not None:
            self._dispatch.drop(account(source))
            for name, each in self._settings.sources.items():
                if account(each) == account(source):
                    schedule.put_off(self._timer, name, run.retry_at)
        elif run.status in ("failed", "busy") and run.error_kind in _PASSING:
            count = self._failures[source.name] = self._failures.get(source.name, 0) + 1
            wait = min(_AGAIN * 2 ** min(count - 1, 10), _AGAIN_AT_MOST)
            schedule.bring_forward(self._timer, source.name, self._wall() + wait)
        elif run.status == "complete":
            self._failures.pop(source.name, None)

    def _died(self, unit: Unit, error: BaseException) -> Run:
        """The run of a unit that could not tell its end: it hung, its worker was lost, a bug."""
        source, stream = unit
        now = datetime.now(UTC)
        run = Run(uuid.uuid4().hex, source.name, stream.name, "full", now, now)
        if isinstance(error, CallflowError):
            run.error_kind, run.error = error.kind, self._redact.message(str(error))
        else:
            run.error_kind = "internal"
            run.error = (
                f"{name_of(unit)}: the run died of {type(error).__name__}"
                f"{place(error)} → it is begun again by itself; report this when it stays"
            )
        lease = self._lease
        if lease is not None and self._engine is not None:
            with (
                suppress(CallflowError),
                plain_errors("daemon", self._redact),
                self._engine.begin() as connection,
            ):
                leases.stand_by(connection, lease)
                runs.finish(connection, run)
        return run

    # --- runs that hang --------------------------------------------------------------------------
    def _hung(self, connection: Connection) -> list[Running]:
        """The runs without progress: neither begun nor their lease renewed for too long."""
        running = self._dispatch.running()
        if not any(self._dispatch.age(each) > self._patience(each) for each in running.values()):
            return []
        renewed = leases.renewals(connection, self._process)
        found = []
        for pair, each in running.items():
            idle = timedelta(seconds=self._dispatch.age(each))
            if min(idle, renewed.get(pair, idle)).total_seconds() > self._patience(each):
                try:
                    with connection.begin_nested():
                        connection.exec_driver_sql("SET LOCAL lock_timeout = '200ms'")
                        leases.revoke(connection, self._process, only=pair)
                except OperationalError as error:
                    if not isinstance(error.orig, LockNotAvailable):
                        raise
                    continue  # it holds its lease's row: it is writing, and Postgres sees to it
                found.append(each)
        return found

    def _patience(self, running: Running) -> float:
        """Seconds without progress that are not too long: all attempts at one request, and one."""
        set_to = self._settings.daemon.hung_after
        if set_to is not None:
            return set_to.total_seconds()
        return ATTEMPTS * (running.unit[0].timeout + MAX_ASKED_WAIT) + 60

    def _give_up(self, running: Running) -> None:
        source, stream = running.unit
        self._metrics.hung(source.name, stream.name)
        self._dispatch.give_up(running, HungError(
            f"no progress for {span(self._patience(running), 2)}: given up, its lease revoked",
            where=name_of(running.unit),
            advice="it is begun again by itself; when it stays, look at what the provider answers",
        ))  # fmt: skip

    # --- what is seen from outside ---------------------------------------------------------------
    def _view(self, role: Role | None = None) -> Overview:
        seen, now = self._seen, self._wall()
        running = self._dispatch.running()
        streams: tuple[StreamHealth, ...] = ()
        if seen is not None:
            elapsed = timedelta(seconds=self._clock() - seen.read_at)
            begun = {
                pair: now - timedelta(seconds=self._dispatch.age(each))
                for pair, each in running.items()
            }
            streams = assess(
                self._settings,
                seen.rows,
                seen.now + elapsed,
                since=seen.now + elapsed - timedelta(seconds=self._clock() - self._began),
                next_runs=schedule.next_runs(self._timer) if self._lease else {},
                running=begun,
                held=seen.held,
            )
        if role is None:
            # Who could not renew the lead in time does not know whether it has it still.
            leads = self._lease is not None and self._clock() - self._renewed < lead.TTL_SECONDS
            role = "leader" if leads else "standby" if seen is not None else "starting"
        return Overview(
            at=now,
            version=__version__,
            role=role,
            leader=self._leader,
            process=self._process,
            started_at=self._started_at,
            seen_at=None if seen is None else now - elapsed,
            database=self._trouble,
            notes=tuple(self._notes.values()),
            streams=streams,
        )

    def _serve(self) -> None:
        """Listen where the settings say; try again by and by where somebody else does."""
        daemon = self._settings.daemon
        token = daemon.http_token.get_secret_value() if daemon.http_token else None
        wanted = (daemon.http, token)
        if wanted == self._listening or self._clock() < self._listen_at:
            return
        if self._listening is not None and self._listening[0] == daemon.http:  # a new token
            self._http.close()
            self._listening = None
        try:
            sock = listen(daemon.http) if daemon.http else None
        except CallflowError as error:  # where it listened before it listens still
            self._listen_at = self._clock() + TRY_AGAIN
            self._note("http", f"{error}; trying again")
            return
        self._http.close()
        if sock is not None:
            page = app(lambda: self._overview, self._recent, self._render, token=token)
            self._http.enter_context(serving(page, sock))
            self._log.info("the status page is up", url=f"http://{daemon.http}/")
        self._note("http", None)
        self._listening = wanted

    def _recent(
        self, streams: Sequence[tuple[str, str]]
    ) -> Mapping[tuple[str, str], Sequence[Run]]:
        engine = self._own
        if engine is None:
            raise WarehouseError("the warehouse was not reached yet")
        return query.recent(engine, streams, redact=self._redact)

    def _render(self) -> bytes:
        return self._metrics.render(self._overview.told_at(self._wall()))

    def _note(self, about: str, text: str | None) -> None:
        """What a person should know of this daemon: on its page, and once in its log."""
        text = text and self._redact.message(text)
        if text is None:
            self._notes = {name: note for name, note in self._notes.items() if name != about}
        elif self._notes.get(about) != text:
            self._notes = {**self._notes, about: text}
            self._log.warning(text)

    def _notify(self) -> None:
        """Tell of what turned bad or well again; whatever was told is noted in the warehouse."""
        webhook, seen = self._settings.daemon.alert_webhook, self._seen
        if webhook is None or seen is None or self._lease is None or self._trouble is not None:
            return
        if self._message is not None and not self._message.done():
            return
        if self._clock() < self._message_at:
            return
        found = alerts.alerts(self._overview.streams, seen.told, self._redact)
        if found:
            url, route = webhook.get_secret_value(), route_of(self._settings.network)
            self._message = Threads().submit(self._send, url, route, found, seen)

    def _send(self, url: str, route: Route, found: Sequence[alerts.Alert], seen: _Seen) -> None:
        try:
            alerts.send(url, found, route=route, redact=self._redact)
        except CallflowError as error:
            self._metrics.alerted(False)
            self._note("webhook", f"no notification could be sent: {error}")
            self._message_at = self._clock() + 3 * TRY_AGAIN
            return
        self._metrics.alerted(True)
        self._note("webhook", None)
        for alert in found:
            seen.told[alert.source, alert.stream] = alert.told
        with (
            suppress(CallflowError),
            plain_errors("daemon", self._redact),
            self._transaction() as connection,
        ):
            for alert in found:
                runs.note_told(connection, alert.source, alert.stream, alert.told)

    # --- a changed configuration -----------------------------------------------------------------
    def _configure(self) -> None:
        """Read the configuration anew; a bad one is told, and the former one stays."""
        former = self._settings
        try:
            settings = self._load()
        except CallflowError as error:
            self._metrics.config_refused(True)
            self._note("config", f"the new configuration is refused, the former one stays: {error}")
            return
        self._metrics.config_refused(False)
        self._note("config", None)
        fixed = [
            name
            for name, before, after in (
                ("warehouse", former.warehouse, settings.warehouse),
                ("daemon.executor", former.daemon.executor, settings.daemon.executor),
                ("daemon.workers", former.daemon.workers, settings.daemon.workers),
                (
                    "daemon.dask_scheduler",
                    former.daemon.dask_scheduler,
                    settings.daemon.dask_scheduler,
                ),
            )
            if before != after
        ]
        text = f"a restart is needed for what changed in {', '.join(fixed)}" if fixed else None
        self._note("restart", text)
        daemon = settings.daemon.model_copy(
            update={"executor": former.daemon.executor, "workers": former.daemon.workers}
        )
        self._settings = settings.model_copy(
            update={"warehouse": former.warehouse, "daemon": daemon}
        )
        # What the previous one held may be used still: the warehouse is that one's.
        self._redact = redactor(settings).apart(secrets(former))
        self._relog(settings)
        self._listen_at = self._clock()
        units = self._units()
        self._metrics.forget({(source.name, stream.name) for source, stream in units})
        self._log.info("the configuration was read anew", sources=len(settings.sources))
        if self._planned:
            schedule.drop(self._timer, settings.sources)
            self._plan({
                name: source
                for name, source in settings.sources.items()
                if name not in former.sources
                or former.sources[name].schedule != source.schedule
            })  # fmt: skip


class HungError(CallflowError):
    """A run made no progress for too long."""

    kind = "hung"


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    former = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, each in former.items():
            signal.signal(number, each)

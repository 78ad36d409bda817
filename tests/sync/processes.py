"""Processes that run streams and are killed, stopped or cut off meanwhile; what they report."""

import gc
import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal, cast

from sqlalchemy import Engine, event

from etl.config.settings import Source
from etl.load.lease import process_name
from etl.load.runs import Run
from etl.providers.catalog import STREAMS
from etl.providers.declare import Stream
from etl.sync.job import Job, Reached
from etl.sync.run import run_stream
from etl.warehouse.connect import connect

PATIENCE = 30.0
"""Seconds within which a run of so few rows ends, whatever happens to it."""

SPAWN = multiprocessing.get_context("spawn")
FORK = multiprocessing.get_context("fork")


class ViolationError(Exception):
    """A promise was broken. `kind` is lost, doubled, torn, or another word for what is wrong."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Point:
    """A point in a run: when the `nth` of these is reached.

    `before`    a statement that matches `what` is about to be sent.
    `after`     such a statement has been answered.
    `commit`    the COMMIT of a transaction with such a statement is about to be sent.
    `committed` such a COMMIT has been answered.
    `page`      a page of the list is handed to its transformer (`what` is unused).
    `request`   a request that matches `what` ("METHOD target") reaches the provider.
    """

    at: Literal["before", "after", "commit", "committed", "page", "request"]
    what: str = ""
    nth: int = 1


class PointHook:
    """Calls `act` when a run with this engine reaches `point`, by SQLAlchemy's public events."""

    def __init__(self, engine: Engine, point: Point, act: Callable[[], None]) -> None:
        self._point = point
        self._act = act
        self._seen = 0
        self._inside = False
        self._passed = False
        event.listen(engine, "begin", self._next)
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "commit", self._commit)
        event.listen(engine, "rollback", self._rollback)
        event.listen(engine, "checkin", self._next)

    def page(self) -> None:
        """Count another page that was read."""
        if self._reach("page"):
            self._act()

    def _matches(self, statement: str) -> bool:
        return re.search(self._point.what, statement, re.DOTALL) is not None

    def _reach(self, at: str) -> bool:
        if self._point.at != at:
            return False
        self._seen += 1
        return self._seen == self._point.nth

    def _next(self, *_: object) -> None:
        if self._passed:
            self._passed = False
            self._act()

    def _before(self, _: Any, __: Any, statement: str, *___: object) -> None:
        self._next()
        if self._matches(statement):
            self._inside = True
            if self._reach("before"):
                self._act()

    def _after(self, _: Any, __: Any, statement: str, *___: object) -> None:
        if self._matches(statement) and self._reach("after"):
            self._act()

    def _commit(self, _: Any) -> None:
        if self._inside:
            self._inside = False
            if self._reach("commit"):
                self._act()
            self._passed = self._reach("committed")

    def _rollback(self, _: Any) -> None:
        self._inside = False


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a child process runs, and the `signal` that it sends to itself at `point`."""

    url: str
    units: tuple[tuple[Source, str], ...]
    full: bool = False
    point: Point | None = None
    signal: int = signal.SIGKILL
    lock_timeout: str | None = None  # in place of the one that the run sets


class ForkServer:
    """A single-threaded process that forks the children, and what they report.

    It has run the same code before, so a child need not import and compile it first.
    """

    def __init__(self) -> None:
        self._line, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve_forks, args=(theirs,))
        self._process.start()
        theirs.close()
        self._children: dict[int, Child] = {}

    def warm_up(self, spec: RunSpec) -> None:
        """Make the server process run `spec` itself."""
        self._line.send((spec, False))
        while self._receive() != "warm":
            pass

    def start(self, spec: RunSpec) -> "Child":
        """Fork a child, which the caller closes."""
        self._line.send((spec, True))
        while not isinstance(pid := self._receive(), int):
            pass
        child = self._children[pid] = Child(self, spec, pid)
        return child

    def receive_until(self, until: Callable[[], object], seconds: float) -> bool:
        """Receive reports of all children until `until()` is true, for at most `seconds`.

        Return whether it became true.
        """
        deadline = time.monotonic() + seconds
        while not until():
            if not self._line.poll(max(deadline - time.monotonic(), 0)):
                return False
            self._receive()
        return True

    def _receive(self) -> object:
        pid, kind, value = self._line.recv()
        if kind == "forked":
            return pid
        if pid in self._children:
            self._children[pid].record(kind, value)
        return kind

    def forget(self, child: "Child") -> None:
        """Ignore what this child reports from now on."""
        del self._children[child.pid]

    def close(self) -> None:
        """End the server process, and with it every child that is left."""
        self._line.close()
        self._process.join()


def _serve_forks(line: Pipe) -> None:
    """Fork a child for each request; this process has one thread, so no lock is held then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[Pipe, Any] = {}
    while True:
        for ready in cast("list[Pipe]", wait([line, *children])):
            try:
                message = ready.recv()
            except (EOFError, OSError):
                if ready is line:
                    return
                process = children.pop(ready)
                process.join()
                line.send((process.pid, "exit", process.exitcode))
                continue
            if ready is not line:
                line.send((children[ready].pid, *message))
                continue
            spec, forked = message
            if not forked:
                _run_streams(spec, None)
                gc.freeze()  # what is there stays shared with the children
                line.send((0, "warm", None))
                continue
            for thread in threading.enumerate():  # one that read ahead may still be ending
                if thread is not threading.main_thread():
                    thread.join(PATIENCE)
            assert threading.active_count() == 1, threading.enumerate()
            reader, writer = FORK.Pipe(duplex=False)
            process = FORK.Process(target=_run_streams, args=(spec, writer), daemon=True)
            process.start()
            writer.close()
            children[reader] = process
            line.send((process.pid, "forked", None))


class Child:
    """A process that runs streams, and how far it has come by what it reported."""

    def __init__(self, fork_server: ForkServer, spec: RunSpec, pid: int) -> None:
        self._fork_server = fork_server
        self.pid = pid
        self.names = [f"{source.name}.{stream}" for source, stream in spec.units]
        self.started = 0.0
        self.ended = 0.0
        self.runs: dict[str, Run] = {}
        self.code: int | None = None
        """Its exit code, negative for a signal; None while it runs."""

    @property
    def all_ended(self) -> bool:
        """Return whether every run has ended."""
        return len(self.runs) == len(self.names)

    @property
    def under_way(self) -> bool:
        """Return whether a run had started and not all had ended."""
        return bool(self.started) and not self.all_ended

    @property
    def seconds(self) -> float:
        """Return the time from the start of the first run to the end of the last one."""
        return self.ended - self.started

    def record(self, kind: str, value: Any) -> None:
        """Record a report: `started` at an instant, `ended` with a run, or the process's `exit`."""
        if kind == "started":
            self.started = self.started or value
        elif kind == "ended":
            self.ended, run = value
            self.runs[f"{run.source}.{run.stream}"] = run
        else:
            self.code = value

    def wait(self, until: Callable[[], object], seconds: float = PATIENCE) -> bool:
        """Wait until `until()` is true or the child has ended; return whether it is true."""
        self._fork_server.receive_until(lambda: until() or self.code is not None, seconds)
        return bool(until())

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def is_stopped(self) -> bool:
        """Return whether SIGSTOP has taken effect."""
        return process_state(self.pid).startswith("T")

    def finish(self, seconds: float = PATIENCE) -> None:
        """Wait for its end; raise ViolationError if it does not come."""
        if not self.wait(lambda: self.code is not None, seconds):
            raise ViolationError("hangs", f"{self.names} did not end within {seconds:.0f} s")

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        self.wait(lambda: False)
        self._fork_server.forget(self)


def process_state(pid: int) -> str:
    """Return the state as `ps` writes it: T… stopped, Z… ended but not reaped, "" gone."""
    if Path("/proc/self/stat").exists():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0].upper()
        except (FileNotFoundError, ProcessLookupError):
            return ""
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


ENGINES: dict[str, Engine] = {}
"""By URL; children need not compile again what the fork server has compiled. SQLAlchemy keys
compiled statements by the dialect, and each engine has its own."""


def _run_streams(spec: RunSpec, line: Pipe | None) -> None:
    """Run the streams as `callflow sync` does, those of one source one after the other."""
    if spec.url not in ENGINES:
        ENGINES[spec.url] = connect(spec.url)
    engine = ENGINES[spec.url]
    if spec.lock_timeout is not None:
        _shorten(engine, spec.lock_timeout)
    hook = None
    if spec.point is not None:
        hook = PointHook(engine, spec.point, lambda: os.kill(os.getpid(), spec.signal))
    lock = threading.Lock()

    def report(kind: str, value: Any) -> None:
        if line is not None:
            with lock:
                line.send((kind, value))

    def heard(reached: Reached) -> None:
        if hook and reached.phase == "reading":
            hook.page()

    def run(units: Sequence[tuple[Source, str]]) -> None:
        for source, name in units:
            report("started", time.monotonic())
            ended = run_stream(
                Job(
                    engine,
                    stream_of(source, name),
                    source,
                    process_name(),
                    full=spec.full,
                    on_progress=heard,
                )
            )
            report("ended", (time.monotonic(), ended))

    sources = {source.name for source, _ in spec.units}
    groups = [[unit for unit in spec.units if unit[0].name == name] for name in sorted(sources)]
    if len(groups) == 1:
        run(groups[0])
    else:
        with ThreadPoolExecutor(len(groups)) as executor:
            list(executor.map(run, groups))
    engine.dispose()  # so that the fork server holds no connection when it forks


def _shorten(engine: Engine, lock_timeout: str) -> None:
    def after(connection: Any, _: Any, statement: str, parameters: Any, *__: object) -> None:
        if "lock_timeout" in f"{statement} {parameters}":
            with connection.connection.cursor() as another:
                another.execute("SELECT set_config('lock_timeout', %s, true)", [lock_timeout])

    event.listen(engine, "after_cursor_execute", after)


def stream_of(source: Source, name: str) -> Stream:
    """Return a source's stream by its name."""
    return STREAMS[f"{source.provider}.{name}"]

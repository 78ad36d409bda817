"""Processes that run streams and are killed, stopped or cut off on the way; and what they tell."""

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
from etl.providers import STREAMS
from etl.providers.declare import Stream
from etl.sync.job import Job
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
    """An instant of a run that can be named: at the `nth` …

    `before`    statement that matches `what`, not sent yet.
    `after`     … that has been answered.
    `commit`    transaction with such a statement, whose COMMIT is not sent yet.
    `committed` … whose COMMIT has been answered.
    `page`      page of the list, handed to its transformer (`what` is unused).
    `request`   request that matches `what` ("METHOD target"), as it reaches the provider.
    """

    at: Literal["before", "after", "commit", "committed", "page", "request"]
    what: str = ""
    nth: int = 1


class Trap:
    """Calls `act` when a run with this engine reaches `point`: by SQLAlchemy's public events."""

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
        """Another page was read."""
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
class Order:
    """What a process of its own shall run; `signal` is what it sends to itself at `point`."""

    url: str
    units: tuple[tuple[Source, str], ...]
    full: bool = False
    point: Point | None = None
    signal: int = signal.SIGKILL
    lock_timeout: str | None = None  # in place of the one that the run sets


class Nursery:
    """The clean and warm process that forks the children, and what is heard from them.

    Warm: it has run the same code before, so a child does not import and compile first.
    """

    def __init__(self) -> None:
        self._line, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_nurse, args=(theirs,))
        self._process.start()
        theirs.close()
        self._children: dict[int, Child] = {}

    def warm_up(self, order: Order) -> None:
        """Let it run `order` itself."""
        self._line.send((order, False))
        while self._hear() != "warm":
            pass

    def bear(self, order: Order) -> "Child":
        """A new child; the caller closes it."""
        self._line.send((order, True))
        while not isinstance(pid := self._hear(), int):
            pass
        child = self._children[pid] = Child(self, order, pid)
        return child

    def listen(self, until: Callable[[], object], seconds: float) -> bool:
        """Listen to all children until `until()` is true, `seconds` at most; whether it is."""
        deadline = time.monotonic() + seconds
        while not until():
            if not self._line.poll(max(deadline - time.monotonic(), 0)):
                return False
            self._hear()
        return True

    def _hear(self) -> object:
        pid, kind, value = self._line.recv()
        if kind == "born":
            return pid
        if pid in self._children:
            self._children[pid].hear(kind, value)
        return kind

    def forget(self, child: "Child") -> None:
        """Nobody listens to it any more."""
        del self._children[child.pid]

    def close(self) -> None:
        """End it, and with it every child that is left."""
        self._line.close()
        self._process.join()


def _nurse(line: Pipe) -> None:
    """The life of a nursery: it has one thread only, so a fork finds no lock held."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    born: dict[Pipe, Any] = {}
    while True:
        for ready in cast("list[Pipe]", wait([line, *born])):
            try:
                message = ready.recv()
            except (EOFError, OSError):
                if ready is line:
                    return
                process = born.pop(ready)
                process.join()
                line.send((process.pid, "exit", process.exitcode))
                continue
            if ready is not line:
                line.send((born[ready].pid, *message))
                continue
            order, forked = message
            if not forked:
                _live(order, None)
                gc.freeze()  # what is there stays shared with the children
                line.send((0, "warm", None))
                continue
            for thread in threading.enumerate():  # one that read ahead may still be ending
                if thread is not threading.main_thread():
                    thread.join(PATIENCE)
            assert threading.active_count() == 1, threading.enumerate()
            reader, writer = FORK.Pipe(duplex=False)
            process = FORK.Process(target=_live, args=(order, writer), daemon=True)
            process.start()
            writer.close()
            born[reader] = process
            line.send((process.pid, "born", None))


class Child:
    """A process that runs streams, and how far it has come, as far as it told."""

    def __init__(self, nursery: Nursery, order: Order, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self.names = [f"{source.name}.{stream}" for source, stream in order.units]
        self.began = 0.0
        self.ended = 0.0
        self.runs: dict[str, Run] = {}
        self.code: int | None = None
        """Its exit code, negative for a signal; None while it lives."""

    @property
    def all_ended(self) -> bool:
        """Whether every run has come to its end."""
        return len(self.runs) == len(self.names)

    @property
    def under_way(self) -> bool:
        """Whether a run had begun and not all had ended."""
        return bool(self.began) and not self.all_ended

    @property
    def seconds(self) -> float:
        """From the beginning of the first run to the end of the last one."""
        return self.ended - self.began

    def hear(self, kind: str, value: Any) -> None:
        """It says: `begins`, at an instant; `ended`, with a run; of it is said: `exit`."""
        if kind == "begins":
            self.began = self.began or value
        elif kind == "ended":
            self.ended, run = value
            self.runs[f"{run.source}.{run.stream}"] = run
        else:
            self.code = value

    def wait(self, until: Callable[[], object], seconds: float = PATIENCE) -> bool:
        """Wait until `until()` is true or the child has ended; whether it is true."""
        self._nursery.listen(lambda: until() or self.code is not None, seconds)
        return bool(until())

    def send(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def is_stopped(self) -> bool:
        """Whether SIGSTOP has had its effect."""
        return process_state(self.pid).startswith("T")

    def finish(self, seconds: float = PATIENCE) -> None:
        """Wait for its end. ViolationError when it does not come."""
        if not self.wait(lambda: self.code is not None, seconds):
            raise ViolationError("hangs", f"{self.names} did not end within {seconds:.0f} s")

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        self.wait(lambda: False)
        self._nursery.forget(self)


def process_state(pid: int) -> str:
    """How `ps` writes it: T… stopped, Z… ended but not waited for; "" when it is gone."""
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
"""By URL: what the nursery has compiled its children need not compile again. SQLAlchemy keeps it by
the dialect, which is each engine's own."""


def _live(order: Order, line: Pipe | None) -> None:
    """The life of a child: runs as `callflow sync` does them, of each source one at a time."""
    if order.url not in ENGINES:
        ENGINES[order.url] = connect(order.url)
    engine = ENGINES[order.url]
    if order.lock_timeout is not None:
        _shorten(engine, order.lock_timeout)
    trap = None
    if order.point is not None:
        trap = Trap(engine, order.point, lambda: os.kill(os.getpid(), order.signal))
    lock = threading.Lock()

    def say(kind: str, value: Any) -> None:
        if line is not None:
            with lock:
                line.send((kind, value))

    def run(units: Sequence[tuple[Source, str]]) -> None:
        for source, name in units:
            say("begins", time.monotonic())
            ended = run_stream(
                Job(
                    engine,
                    stream_of(source, name),
                    source,
                    process_name(),
                    full=order.full,
                    on_page=lambda records, total: trap.page() if trap else None,
                )
            )
            say("ended", (time.monotonic(), ended))

    sources = {source.name for source, _ in order.units}
    groups = [[unit for unit in order.units if unit[0].name == name] for name in sorted(sources)]
    if len(groups) == 1:
        run(groups[0])
    else:
        with ThreadPoolExecutor(len(groups)) as executor:
            list(executor.map(run, groups))
    engine.dispose()  # the nursery has no connection when it forks


def _shorten(engine: Engine, lock_timeout: str) -> None:
    def after(connection: Any, _: Any, statement: str, parameters: Any, *__: object) -> None:
        if "lock_timeout" in f"{statement} {parameters}":
            with connection.connection.cursor() as another:
                another.execute("SELECT set_config('lock_timeout', %s, true)", [lock_timeout])

    event.listen(engine, "after_cursor_execute", after)


def stream_of(source: Source, name: str) -> Stream:
    """A source's stream by its name."""
    return STREAMS[f"{source.provider}.{name}"]

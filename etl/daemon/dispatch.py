"""Which run is next: one at a time per account, a few per provider's host, in order of arrival.

A provider's limits are per account. Two runs of one account therefore never overlap, and the pace
of a run is the pace of the account. An outage usually concerns one host, so `workers` limits the
runs per host, and other hosts' runs do not wait for it. While a run's provider is silent, or has
asked it to wait, its slot is lent to a run of another account. A run that hangs is given up, which
frees its slot.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from etl.errors import StoppedError
from etl.load.runs import Run
from etl.sync.selection import Unit, account, host

SILENT = 3.0
"""Seconds after which a run that heard nothing from its provider lends its slot to another one."""
SPARE = 4
"""However many are silent, at most this many times `workers` runs of one host are under way: each
holds a connection to the database."""

Start = Callable[[Unit, threading.Event], "Future[Run]"]
"""Starts a unit's run on some executor; the event asks it to stop."""


@dataclass(slots=True, eq=False)
class Running:
    """A run under way. `stop` asks it to end.

    `since` is its start and `heard` its provider's last answer, by the dispatcher's clock. None
    means that answers are not reported, as on a cluster; such a run keeps its slot.
    """

    unit: Unit
    since: float
    heard: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    future: "Future[Run] | None" = None


@dataclass(slots=True, eq=False)
class _Round:
    """One due pass over a source's streams, one after the other."""

    source: str
    units: deque[Unit]
    planned: float
    account: str
    host: str
    over: "Future[None]" = field(default_factory=Future)
    running: Running | None = None


class Dispatch:
    """Starts runs as slots become free. Every method may be called from any thread.

    `start`    starts a run on an executor.
    `ended`    is called with a unit and its Run, or the exception that ended it. StoppedError means
               that it was asked to stop, or never started.
    `started`  is called with a source, and by how many seconds its first run starts late.
    """

    def __init__(
        self,
        start: Start,
        *,
        workers: int,
        ended: Callable[[Unit, Run | BaseException], None],
        started: Callable[[str, float], None] = lambda source, late: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._workers = workers
        self._ended = ended
        self._started = started
        self._clock = clock
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._waiting: dict[str, deque[_Round]] = {}
        self._at_work: list[_Round] = []
        self._closed = self._filling = False

    def submit(self, units: Sequence[Unit], late: float = 0.0) -> "Future[None]":
        """Run a source's streams in turn; the future is done when all have ended, however.

        They were planned `late` seconds ago.
        """
        source = units[0][0]
        planned = self._clock() - late
        new = _Round(source.name, deque(units), planned, account(source), host(source))
        with self._lock:
            if self._closed:
                new.over.cancel()
            else:
                self._waiting.setdefault(new.host, deque()).append(new)
        self._fill()
        return new.over

    def running(self) -> Mapping[tuple[str, str], Running]:
        """Return the runs under way by (source, stream)."""
        with self._lock:
            found = [each.running for each in self._at_work if each.running is not None]
        return {(each.unit[0].name, each.unit[1].name): each for each in found}

    def age(self, running: Running) -> float:
        """Return the seconds since its start."""
        return self._clock() - running.since

    def heard(self, unit: Unit) -> None:
        """Note that the provider of a run under way has answered."""
        source, stream = unit
        running = self.running().get((source.name, stream.name))
        if running is not None:
            running.heard = self._clock()

    def look_again(self) -> None:
        """Start runs in the slots that silent runs lend."""
        self._fill()

    def give_up(self, running: Running, reason: Exception) -> None:
        """Ask a run to stop and free its slot without waiting for its end."""
        running.stop.set()
        with self._lock:
            found = [each for each in self._at_work if each.running is running]
        if found:
            self._end(found[0], running, reason)
        if running.future is not None:  # on a cluster it may not have started yet
            running.future.cancel()

    def drop(self, name: str) -> None:
        """Start nothing more of what was submitted for the account `name`; its run goes on."""
        with self._lock:
            for each in self._at_work:
                if each.account == name:
                    each.units.clear()
            dropped = []
            for host, queue in self._waiting.items():
                dropped += [each for each in queue if each.account == name]
                self._waiting[host] = deque(each for each in queue if each.account != name)
        for each in dropped:
            each.over.cancel()

    def close(self) -> None:
        """Start nothing more; runs under way go on."""
        with self._lock:
            self._closed = True
            waiting = [each for queue in self._waiting.values() for each in queue]
            self._waiting.clear()
            for each in self._at_work:
                each.units.clear()
        for each in waiting:
            each.over.cancel()

    def stop(self) -> None:
        """Ask all runs under way to stop."""
        for running in self.running().values():
            running.stop.set()
            if running.future is not None:
                running.future.cancel()

    def wait(self, timeout: float) -> bool:
        """Return whether all runs under way ended within `timeout` seconds."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._at_work, timeout)

    def _fill(self) -> None:
        """Start runs while slots are free. One thread at a time does, so that ends do not recurse.

        (A run may end while it is being started, and its end frees a slot.)
        """
        with self._lock:
            if self._filling:
                return  # the thread that fills looks once more before it ends
            self._filling = True
        while (chosen := self._next()) is not None:
            _notify(self._started, chosen.source, max(0.0, self._clock() - chosen.planned))
            self._go_on(chosen)

    def _next(self) -> _Round | None:
        """Return the round to start now; without one, let another thread fill the next slot."""
        with self._lock:
            chosen = self._choose()
            self._filling = chosen is not None
            return chosen

    def _choose(self) -> _Round | None:
        with self._lock:
            busy = {each.account for each in self._at_work}
            for name, queue in self._waiting.items():
                at_work = [each for each in self._at_work if each.host == name]
                if len(at_work) >= SPARE * self._workers:
                    continue
                if sum(not self._is_silent(each) for each in at_work) >= self._workers:
                    continue
                for chosen in queue:
                    if chosen.account not in busy:
                        queue.remove(chosen)
                        self._at_work.append(chosen)
                        return chosen
            return None

    def _is_silent(self, current: _Round) -> bool:
        heard = current.running.heard if current.running else None
        return heard is not None and self._clock() - heard > SILENT

    def _go_on(self, current: _Round) -> None:
        """Start the next stream of a round, or end the round."""
        with self._lock:
            if not current.units:
                current.running = None
                self._at_work.remove(current)
                self._idle.notify_all()
                done = True
            else:
                unit = current.units.popleft()
                running = current.running = Running(unit, self._clock())
                done = False
        if done:
            current.over.set_result(None)
            self._fill()
            return
        try:
            future = self._start(unit, running.stop)
        except Exception as error:  # noqa: BLE001 - a broken executor: reported as the run's end
            self._end(current, running, error)
            return
        running.future = future
        future.add_done_callback(lambda f: self._end(current, running, _outcome(f)))

    def _end(self, current: _Round, running: Running, outcome: Run | BaseException) -> None:
        with self._lock:
            if current.running is not running:
                return  # it was given up earlier
            current.running = None
        _notify(self._ended, running.unit, outcome)
        self._go_on(current)


def _notify(callback: Callable[..., None], *values: Any) -> None:
    """Log what a callback raises instead of raising it: otherwise its slot would never be free."""
    try:
        callback(*values)
    except Exception:
        logging.getLogger(__name__).exception("reporting the start or end of a run failed")


def _outcome(future: "Future[Run]") -> Run | BaseException:
    if future.cancelled():
        return StoppedError("cancelled")
    return future.exception() or future.result()

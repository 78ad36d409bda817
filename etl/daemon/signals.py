"""Signals to the daemon, and a sleep that they end."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType


class Signals:
    """The signals that this process received. Used by the main thread, except for `wake`.

    SIGTERM and SIGINT set `stopping`, and a second one ends the process at once. SIGHUP sets
    `reload`, which the loop resets.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.stopping = self.reload = False
        self._clock = clock
        # A signal handler may call its put() at any point of the main thread's get(); Event.set()
        # could wait there forever for a lock that the main thread itself holds.
        self._wakes: SimpleQueue[None] = SimpleQueue()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals; put the previous handlers back at the end."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        previous = {number: signal.signal(number, self._came) for number in numbers}
        try:
            yield
        finally:
            for number, each in previous.items():
                signal.signal(number, each)

    def wake(self) -> None:
        """End the main thread's sleep. May be called from any thread."""
        self._wakes.put(None)

    def sleep(self, least: float, most: float) -> None:
        """Sleep until woken, but `least` seconds at least and `most` at most.

        A signal ends it at once. Several calls of `wake` before or during a sleep count as one.
        """
        end = self._clock() + least
        left = max(least, most)
        try:
            while left > 0 and not (self.stopping or self.reload):
                self._wakes.get(timeout=left)
                left = end - self._clock()
        except Empty:
            pass
        while not self._wakes.empty():
            self._wakes.get()

    def _came(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        elif self.stopping:
            os._exit(128 + number)
        else:
            self.stopping = True
        self._wakes.put(None)

"""Signals to the daemon, and the sleep that they end."""

import os
import signal
import threading
import time

import pytest

from etl.daemon.signals import Signals

PATIENCE = 60.0


@pytest.mark.parametrize(
    ("number", "stopping", "reload"),
    [
        (signal.SIGTERM, True, False),
        (signal.SIGINT, True, False),
        (signal.SIGHUP, False, True),
    ],
)
def test_a_signal_ends_the_sleep_at_once(number: int, stopping: bool, reload: bool) -> None:
    signals = Signals()
    with signals.handled():
        ours = signal.getsignal(number)
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        started = time.monotonic()
        signals.sleep(10 * PATIENCE, 10 * PATIENCE)
        assert time.monotonic() - started < PATIENCE
    assert (signals.stopping, signals.reload) == (stopping, reload)
    assert signal.getsignal(number) != ours


def test_waking_ends_a_sleep_but_not_before_its_least_time() -> None:
    times = iter([0.0, 4.0, 9.0, 10.0])  # start, and after each wake
    signals = Signals(lambda: next(times))
    for _ in range(3):
        signals.wake()
    signals.sleep(10.0, 10 * PATIENCE)
    assert list(times) == []
    signals = Signals(lambda: 0.0)
    signals.wake()
    signals.wake()
    signals.sleep(0.0, 10 * PATIENCE)
    signals.sleep(0.0, 0.01)  # the second wake counted with the first

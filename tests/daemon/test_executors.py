"""A thread for each call, which nothing waits for."""

import subprocess
import sys
import threading
from concurrent.futures import CancelledError, wait
from types import FrameType
from typing import Any

import pytest

from etl.daemon.executors import Threads

PATIENCE = 30.0


def test_a_call_gets_its_arguments_and_gives_its_result() -> None:
    def call(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    found = Threads().submit(call, 1, fn=2, self=3)
    assert found.result(PATIENCE) == ((1,), {"fn": 2, "self": 3})
    assert [*Threads().map(str, range(3))] == ["0", "1", "2"]


@pytest.mark.parametrize("error", [KeyError("a bug"), SystemExit(3), KeyboardInterrupt()])
def test_the_future_carries_whatever_is_raised(error: BaseException) -> None:
    def fail() -> None:
        raise error

    assert Threads().submit(fail).exception(PATIENCE) is error


def test_a_call_that_hangs_holds_no_other_up() -> None:
    go = threading.Event()
    threads = Threads()
    hung = [threads.submit(go.wait, PATIENCE) for _ in range(50)]
    assert threads.submit(str, 1).result(PATIENCE) == "1"
    assert not any(each.done() for each in hung)
    assert all(each.running() for each in hung if not each.cancel())
    go.set()
    assert wait(hung, PATIENCE).not_done == set()


def test_a_call_that_is_cancelled_before_it_starts_is_not_made() -> None:
    """Its thread does not fail either: pytest would report that."""
    cancelled = threading.Event()
    made: list[int] = []

    def hold(frame: FrameType, *_: Any) -> None:
        """Wait; called in a new thread before anything else."""
        cancelled.wait(PATIENCE)

    before, previous = {*threading.enumerate()}, threading.gettrace()
    threading.settrace(hold)
    try:
        future = Threads().submit(made.append, 1)
    finally:
        threading.settrace(previous)
    (thread,) = {*threading.enumerate()} - before
    assert future.cancel()
    cancelled.set()
    thread.join(PATIENCE)
    assert made == []
    with pytest.raises(CancelledError):
        future.result(0)


@pytest.mark.slow
def test_a_process_ends_although_a_call_hangs() -> None:
    code = (
        "import threading; from etl.daemon.executors import Threads\n"
        "called = threading.Event()\n"
        "Threads().submit(lambda: (called.set(), threading.Event().wait()))\n"
        "called.wait(); print('over')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "over\n"

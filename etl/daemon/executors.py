"""Where runs happen. `threads` runs them in this process, dask.py on the workers of a cluster.

Both give a `Runner`; how many runs are under way at once is up to the dispatcher.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Engine

from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.load.lease import Lease
from etl.load.runs import Run
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import Unit


@dataclass(frozen=True, slots=True)
class Order:
    """One run to start, and what it depends on.

    `leader` is the lead of the daemon that orders it. `stop` asks the run to end; `heard` is called
    whenever its provider has answered, and when it goes on to another phase.
    """

    unit: Unit
    settings: Settings
    engine: Engine
    leader: Lease
    redact: Redactor
    clock: Callable[[], float]
    stop: threading.Event
    heard: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Runner:
    """A place where runs happen.

    `start`       starts a run. Raises StoppedError while there is `trouble`.
    `trouble`     returns why no run can start now and what to do; None when runs can start.
    `hears_stop`  whether a run notices that it is asked to stop. If it does not, only revoking its
                  lease keeps it from writing.
    """

    start: Callable[[Order], "Future[Run]"]
    trouble: Callable[[], str | None]
    hears_stop: bool


@contextmanager
def threads(settings: Settings) -> Iterator[Runner]:
    """Run each stream in a thread of this process. Raises ConfigError: traces cannot be sent."""
    if not settings.daemon.telemetry:
        yield Runner(partial(_start, run_stream), trouble=lambda: None, hears_stop=True)
        return
    from etl.daemon.telemetry import tracing

    with tracing() as run:
        yield Runner(partial(_start, run), trouble=lambda: None, hears_stop=True)


def _start(run: Callable[[Job], Run], order: Order) -> "Future[Run]":
    source, stream = order.unit
    job = Job(
        order.engine, stream, source, order.leader.holder, leader=order.leader,
        stopped=order.stop.is_set, clock=order.clock,
        on_progress=lambda reached: order.heard(), redact=order.redact,
    )  # fmt: skip
    order.heard()
    return Threads().submit(run, job)


class Threads(Executor):
    """Makes each call in its own thread, which nothing waits for.

    A call that hangs therefore delays no other one and does not keep the process from ending. (In a
    ThreadPoolExecutor it would occupy a worker, and the interpreter would wait for it.)
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call `fn` in a new thread."""
        future: Future[Any] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - the future carries it
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, name="run", daemon=True).start()
        return future

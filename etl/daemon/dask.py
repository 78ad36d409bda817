"""Runs on the workers of a Dask cluster (optional: the extra `dask`)."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

from etl import api
from etl.config.settings import Settings
from etl.daemon.executors import Order, Runner
from etl.errors import ConfigError, StoppedError
from etl.load.runs import Run
from etl.sync.selection import name_of

CONNECT = 5.0
"""Seconds of one attempt to reach a Dask scheduler."""
AGAIN, AGAIN_AT_MOST = 1.0, 15.0
"""Seconds between two attempts: at first, and after many."""
LOOK_EVERY = 2.0
"""Seconds between two looks at a cluster."""


@contextmanager
def workers(settings: Settings) -> Iterator[Runner]:
    """Run each stream on a worker of the cluster that `settings` name.

    Raises ConfigError where the warehouse is the embedded one, which workers cannot reach, and
    where the extra is not installed.
    """
    if settings.warehouse.url is None:
        raise ConfigError(
            'missing; with executor = "dask" workers have to reach the warehouse',
            where="warehouse.url",
            advice="name a Postgres server; the embedded one is for one machine",
        )
    with Dask(settings.daemon.dask_scheduler or "") as cluster:
        yield Runner(partial(_start, cluster), partial(_trouble, cluster), hears_stop=False)


def _start(cluster: "Dask", order: Order) -> "Future[Run]":
    """Send the stream's name; the worker reads the settings itself, so that no secret travels."""
    path = order.settings.path and order.settings.path.absolute()
    return cluster.submit(
        api.sync_stream,
        name_of(order.unit),
        path,
        holder=order.leader.holder,
        leader=order.leader,
    )


def _trouble(cluster: "Dask") -> str | None:
    if cluster.trouble is None:
        return None
    advice = "check the cluster, and dask_scheduler in [daemon]"
    return f"{cluster.trouble}; no run starts until it can be used → {advice}"


class Dask(Executor):
    """The workers of a Dask cluster, given the address of its scheduler ("tcp://host:8786").

    A thread keeps the connection and reconnects whenever it is lost; the constructor waits for the
    first attempt only. `trouble` says why no call can start; None when calls can.

    When a worker is lost, the scheduler repeats its calls on another one, as often as it allows
    (Dask's docs, "Configuration reference", distributed.scheduler.allowed-failures: 3). When the
    scheduler is lost, the futures of all calls are cancelled at once; a call that had started may
    still finish, but its result is lost.

    Anyone who can reach a scheduler or a worker can run code there: `tcp://` is for private
    networks; `tls://` takes its certificates from Dask's own configuration (distributed.comm.tls).
    Arguments and results are pickled, logged and shown on Dask's dashboard: never pass a secret.

    Raises ConfigError where the extra is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client, Security
            from distributed.comm.core import connect
            from distributed.utils import LoopRunner
        except ImportError:
            raise ConfigError(
                'executor = "dask" needs the extra of that name',
                where="daemon.executor",
                advice="pip install '/path/to/callflow[dask]'",
            ) from None
        self.trouble: str | None = f"the Dask scheduler at {address} was not reached yet"
        self._address = address
        self._client, self._connect, self._security = cast("Any", (Client, connect, Security))
        self._workers: Executor | None = None
        self._tried = threading.Event()
        self._over = threading.Event()
        self._loop: Any = LoopRunner()
        self._loop.start()
        self._keeper = threading.Thread(target=self._keep, name="dask", daemon=True)
        self._keeper.start()
        self._tried.wait(2 * CONNECT)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call `fn` on a worker. Raises StoppedError while there is `trouble`."""
        workers, trouble = self._workers, self.trouble
        if workers is None or trouble is not None:
            raise StoppedError(trouble or "the Dask cluster was closed")
        return workers.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; calls that have not started there never will."""
        self._over.set()
        self._keeper.join(CONNECT if wait else 0)
        if not self._keeper.is_alive():
            self._loop.stop()

    def _keep(self) -> None:
        """Connect, and reconnect whenever the scheduler was lost, until `shutdown`."""
        again = AGAIN
        while not self._over.is_set():
            try:
                self._loop.run_sync(self._knock, callback_timeout=2 * CONNECT)
                client = self._client(
                    self._address, timeout=CONNECT, loop=self._loop.loop, set_as_default=False
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, there is no scheduler yet
                why = str(error) or type(error).__name__
                self.trouble = f"no Dask scheduler can be used: {why}"
                self._tried.set()
                self._over.wait(again)
                again = min(2 * again, AGAIN_AT_MOST)
                continue
            again = AGAIN
            self._workers = client.get_executor(pure=False)
            self._watch(client)
            self._workers = None
            with suppress(Exception):  # the scheduler may have gone: nothing is left to close
                client.close(timeout=2)

    async def _knock(self) -> None:
        """Connect once and raise what a client would: a client that fails leaves threads behind."""
        words = self._security().get_connection_args("client")
        comm = await self._connect(self._address, timeout=CONNECT, **words)
        await comm.close()

    def _watch(self, client: Any) -> None:
        """Return when the client can no longer be used, or on `shutdown`.

        A scheduler that is slow to answer is not given up: its calls go on, and would be made twice
        if this client connected again.
        """
        while client.status == "running" and not self._over.is_set():
            workers = None
            with suppress(Exception):
                workers = client.nthreads(callback_timeout=CONNECT)
            if workers:
                self.trouble = None
            elif workers is None:
                self.trouble = f"the Dask scheduler at {self._address} does not answer"
            else:
                self.trouble = f"the Dask cluster at {self._address} has no worker"
            self._tried.set()
            self._over.wait(LOOK_EVERY)
        if not self._over.is_set():
            self.trouble = f"the Dask scheduler at {self._address} went away"

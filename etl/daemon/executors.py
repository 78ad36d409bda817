"""Where runs happen: in threads of this process, or on the workers of a Dask cluster.

Both are a `concurrent.futures.Executor`; how many run at once is the dispatcher's to say.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, cast

from etl.errors import ConfigError, StoppedError

CONNECT = 5.0
"""Seconds of one attempt to reach a Dask scheduler."""
AGAIN, AGAIN_AT_MOST = 1.0, 15.0
"""Seconds between two attempts: at first, and after many."""
LOOK_EVERY = 2.0
"""Seconds between two looks at a cluster."""


class Threads(Executor):
    """A thread for each call, that nobody waits for: one that hangs holds nothing else up.

    (A ThreadPoolExecutor's would take a worker from the others, and keep the process from ending.)
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


class Dask(Executor):
    """The workers of a Dask cluster, by the address of its scheduler ("tcp://host:8786").

    It connects in a thread of its own, again and again while nothing answers; the first attempt is
    waited for. `trouble` says why nothing can be begun now; None: all is well.

    A call whose worker is lost is made again on another one, as often as the scheduler allows
    (Dask's docs, "Configuration reference", distributed.scheduler.allowed-failures: 3). When the
    scheduler is lost, the futures of all calls are cancelled at once; a call that had begun may
    still come to its end, which nobody hears of.

    Whoever reaches a scheduler or a worker can run code there: `tcp://` is for private networks;
    `tls://` takes its certificates from Dask's own configuration (distributed.comm.tls). Arguments
    and results are pickled, seen on Dask's dashboard and logged: never hand it a secret.

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
        """Leave the cluster: what had not begun there never does."""
        self._over.set()
        self._keeper.join(CONNECT if wait else 0)
        if not self._keeper.is_alive():
            self._loop.stop()

    def _keep(self) -> None:
        """Be connected for as long as there is somebody to be connected to."""
        again = AGAIN
        while not self._over.is_set():
            try:
                self._loop.run_sync(self._knock, callback_timeout=2 * CONNECT)
                client = self._client(
                    self._address, timeout=CONNECT, loop=self._loop.loop, set_as_default=False
                )
            except Exception as error:  # noqa: BLE001 - of whatever kind, it is no scheduler yet
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
            with suppress(Exception):  # the scheduler may be gone; there is nothing left to lose
                client.close(timeout=2)

    async def _knock(self) -> None:
        """Raise what a client would, which leaves threads behind if it cannot connect."""
        words = self._security().get_connection_args("client")
        comm = await self._connect(self._address, timeout=CONNECT, **words)
        await comm.close()

    def _watch(self, client: Any) -> None:
        """Return when the client is of no use any more, or nobody needs it.

        A scheduler that is slow to answer is waited for: what runs there goes on, and would be
        made twice if it were given up.
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

"""One stream of one source at work: what a run is given, and its transactions under the lease."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from etl.config.redact import Redactor
from etl.errors import StoppedError
from etl.extract.http import Http, utc_now
from etl.extract.page import Page
from etl.load import lease as leases
from etl.load import runs
from etl.load.lease import Lease
from etl.load.runs import Progress, Run
from etl.load.stage import Staged
from etl.providers.declare import Stream
from etl.sync.proof import Scan
from etl.transform.rows import Rows
from etl.warehouse.connect import sqlstate

T = TypeVar("T")

RENEW_EVERY = leases.TTL.total_seconds() / 4

REPEATS = 3
"""How often a transaction that Postgres gave up for another one's sake is begun again."""

GRACE = 2.0
"""Seconds that a statement has left when the run is asked to stop."""

_GIVEN_UP = ("40001", "40P01")  # serialization failure, deadlock
_CANCELLED = "57014"
_READ_BACK = 10  # seconds

_SESSION = """SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true),
                    set_config('lock_timeout', '{patience}s', true),
                    set_config('idle_in_transaction_session_timeout', '60s', true)"""


@dataclass(frozen=True, slots=True)
class Job:
    """One stream of one source, and what a run of it depends on.

    `full` scans the whole list also where a part would do. `leader` is the lease of the daemon that
    the run is of: without it nothing is begun, and nothing recorded. `on_page` is told the records
    read so far and how many the list has, where the API counts. `stopped` is asked twice a second
    whether the run shall end. `redact` takes the secrets of the whole configuration out of what is
    quoted; those of `settings` in any case.
    """

    engine: Engine
    stream: Stream
    settings: Any
    holder: str
    accept_deletes: bool = False
    full: bool = False
    leader: Lease | None = None
    on_page: Callable[[int, int | None], None] = lambda records, total: None
    stopped: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = utc_now
    redact: Redactor = field(default_factory=Redactor)

    @property
    def name(self) -> str:
        """`source.stream`."""
        return f"{self.settings.name}.{self.stream.name}"


@dataclass(slots=True)
class Work:
    """A run under way.

    `former` is how far the stream had come, `rows` what its table held when the run began; `scans`
    is what the run saw, `ordinal` the number of records that it has read, and `settled` how many
    of them are staged per scope. `begun` is a scan of which the first batches were read already.
    """

    job: Job
    connection: Connection
    lease: Lease
    http: Http
    run: Run
    pairs: Sequence[Staged]
    former: Progress
    rows: int
    renewed: float
    scans: list[Scan] = field(default_factory=list)
    ordinal: int = 0
    settled: dict[str, int] = field(default_factory=dict)
    begun: Iterator[Sequence[tuple[Page, Rows]]] | None = None

    def write(self, do: Callable[[Connection], T], *, late: bool = False) -> T:
        """`do`, in a transaction that only the holder of the lease can commit; what it returns.

        The lease's row is locked before, or with `late` after what `do` does (a COPY may wait for
        us, and nobody shall wait for that row). Repeated when Postgres gave the transaction up for
        another one. When the answer to its COMMIT is lost and it was to record the run, the
        warehouse is asked whether it did. Raises LeaseLostError, StoppedError and what Postgres
        raises.
        """
        attempt = 0
        while True:
            done: list[T] = []
            try:
                with transaction(self.job, self.connection) as connection:
                    if not late:
                        leases.renew(connection, self.lease)
                    result = do(connection)
                    if late:
                        leases.renew(connection, self.lease)
                    done.append(result)
            except (DBAPIError, psycopg.Error) as error:
                attempt += 1
                if sqlstate(error) in _GIVEN_UP and attempt <= REPEATS:
                    self.job.sleep(0.1 * attempt)
                    continue
                if not done or sqlstate(error) is not None or not self._recorded():
                    raise
            self.renewed = self.job.clock()
            return done[0]

    def read(self, do: Callable[[Connection], T]) -> T:
        """`do`, in a transaction that writes nothing; what it returns."""
        with transaction(self.job, self.connection) as connection:
            return do(connection)

    def _recorded(self) -> bool:
        """Whether the warehouse has the run, asked anew until it answers or it takes too long."""
        until = self.job.clock() + _READ_BACK
        while True:
            try:
                with self.job.engine.connect() as another:
                    return runs.recorded(another, self.run)
            except DBAPIError:
                if self.job.clock() > until:
                    return False
                self.job.sleep(0.5)

    def tick(self) -> None:
        """Between two pages: stop when asked to, keep the lease."""
        if self.job.stopped():
            raise StoppedError("stopped; what was read in this run is not merged")
        if self.job.clock() - self.renewed > RENEW_EVERY:
            with another_transaction(self.job) as another:  # ours may be in one
                leases.renew(another, self.lease)
            self.renewed = self.job.clock()


@contextmanager
def transaction(job: Job, connection: Connection, *, patience: int = 30) -> Iterator[Connection]:
    """A transaction that waits `patience` seconds for a lock, and no longer than GRACE to stop.

    Raises StoppedError when a statement was cancelled because the job is to stop.
    """
    begun = connection.begin()  # on another connection where the server ended this one
    with _stopping(job, connection), begun:
        connection.exec_driver_sql(_SESSION.format(patience=patience))
        yield connection


@contextmanager
def another_transaction(job: Job) -> Iterator[Connection]:
    """A short one on a connection of its own, which waits for nobody long."""
    patience = int(leases.WAIT.total_seconds())
    with job.engine.connect() as connection, transaction(job, connection, patience=patience):
        yield connection


@contextmanager
def _stopping(job: Job, connection: Connection) -> Iterator[None]:
    """Cancel whatever statement runs from GRACE seconds after the job is asked to stop."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            if job.stopped() and not over.wait(GRACE):
                with suppress(
                    psycopg.Error
                ):  # the connection may have gone; the statement too then
                    raw.cancel_safe(timeout=GRACE)

    watcher = threading.Thread(target=watch, name="stop-watch", daemon=True)
    try:
        watcher.start()
    except RuntimeError as error:  # there is no memory for its stack
        raise MemoryError(str(error)) from None
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        if sqlstate(error) == _CANCELLED and job.stopped():
            raise StoppedError("stopped; what was under way was rolled back") from error
        raise
    finally:
        over.set()
        watcher.join()

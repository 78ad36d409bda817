"""The transactions of a run: committed only while it holds its lease, and ended when it must stop.

`LeasedConnection.write(function, *values)` runs `function(connection, *values)` in a transaction.
Postgres may give a transaction up for another one's sake; then the function is called again, so it
must depend on its values only.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, Transaction
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from etl.errors import StoppedError
from etl.load import lease as leases
from etl.load import runs
from etl.load.lease import Lease
from etl.warehouse.translate import sqlstate

P = ParamSpec("P")
T = TypeVar("T")

RENEW_EVERY = leases.TTL.total_seconds() / 4
"""Seconds after which a run that waits for its provider renews its lease."""

REPEATS = 3
"""How often a transaction that Postgres gave up for another one's sake is started again."""

POLL, GRACE = 0.5, 2.0
"""Seconds between two looks whether the run should stop, and seconds that a transaction which is
open by then has left."""

_GIVEN_UP = ("40001", "40P01")  # serialization failure, deadlock
_CANCELLED = "57014"
_READ_BACK = 10  # seconds

_SESSION = """SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true),
                    set_config('lock_timeout', '{patience}s', true),
                    set_config('idle_in_transaction_session_timeout', '60s', true)"""
_SOON = ", set_config('synchronous_commit', 'off', true)"


@dataclass(frozen=True, slots=True)
class RollBack:
    """What a function given to `write` or `write_then_renew` returns to have nothing written."""


ROLL_BACK = RollBack()


@dataclass(eq=False, slots=True)
class _Open:
    """A transaction under way, and for how many looks of the watcher the run should have ended."""

    raw: psycopg.Connection
    looks: int = 0


class StopWatcher:
    """Interrupts the statements of one run when it is asked to stop: one thread for all of them.

    The thread starts with the first transaction and ends with `close`. It calls `stopped`, which
    must be safe to call from another thread, every POLL seconds.
    """

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self.stopped = stopped
        self._lock = threading.Lock()
        self._open: set[_Open] = set()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch(self, raw: psycopg.Connection) -> Iterator[None]:
        """Cancel whatever `raw` executes from GRACE seconds after the run is asked to stop.

        Raises StoppedError in place of the error of a statement that was cancelled for that, and
        MemoryError when there is no memory for the thread.
        """
        self._start()
        transaction = _Open(raw)
        with self._lock:
            self._open.add(transaction)
        try:
            yield
        except (DBAPIError, psycopg.Error) as error:
            if sqlstate(error) == _CANCELLED and self.stopped():
                raise StoppedError("stopped; what was under way was rolled back") from error
            raise
        finally:
            with self._lock:  # a cancel on its way must not meet the connection's next transaction
                self._open.discard(transaction)

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._look, name="stop-watcher", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # there is no memory for its stack
            raise MemoryError(str(error)) from None
        self._thread = thread

    def _look(self) -> None:
        while not self._over.wait(POLL):
            if not self.stopped():
                continue
            with self._lock:
                for each in self._open:
                    each.looks += 1
                    if each.looks > GRACE / POLL:
                        # The connection may have gone, and the statement with it.
                        with suppress(psycopg.Error):
                            each.raw.cancel_safe(timeout=GRACE)


@contextmanager
def transaction(
    connection: Connection,
    watcher: StopWatcher,
    *,
    patience: int = 30,
    within: bool = False,
    soon: bool = False,
) -> Iterator[Transaction]:
    """Open a transaction that waits at most `patience` seconds for a lock.

    `within` makes it a savepoint of the transaction that is open. `soon` lets its COMMIT return
    before the disk has it. Raises StoppedError when a statement was cancelled because the run
    should stop.
    """
    # A new one is on another connection if the server ended this one.
    opened: Transaction = connection.begin_nested() if within else connection.begin()
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    with watcher.watch(raw), opened:
        connection.exec_driver_sql(_SESSION.format(patience=patience) + (_SOON if soon else ""))
        yield opened


@contextmanager
def never_committed(connection: Connection) -> Iterator[None]:
    """Open a transaction around all that a dry run does, and roll it back in any case."""
    whole = connection.begin()
    try:
        yield
    finally:
        with suppress(SQLAlchemyError):  # on a connection that died there is nothing to roll back
            whole.rollback()


@contextmanager
def brief_transaction(engine: Engine, watcher: StopWatcher) -> Iterator[Connection]:
    """Open a transaction on another connection, which waits for a lock as long as leases do."""
    patience = int(leases.WAIT.total_seconds())
    with engine.connect() as connection, transaction(connection, watcher, patience=patience):
        yield connection


@dataclass(slots=True)
class LeasedConnection:
    """The connection of a run, through which it reads, and writes under its lease.

    `run_id` names the run in etl.runs. `clock` and `sleep` count seconds, as those of `time` do.
    With `dry` its transactions are savepoints of the one in `never_committed`. They leave the
    lease's row alone, which they would lock for as long; it is renewed by other transactions.
    """

    engine: Engine
    connection: Connection
    lease: Lease
    run_id: str
    watcher: StopWatcher
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    dry: bool = False
    _renewed: float = field(init=False)

    def __post_init__(self) -> None:
        self._renewed = self.clock()

    def read(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `function(connection, …)`, run in a transaction that writes nothing."""
        with transaction(self.connection, self.watcher, within=self.dry):
            return function(self.connection, *args, **kwargs)

    def write(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `function(connection, …)`, run in a transaction that renews the lease first.

        The lease's row stays locked until the transaction ends, so no other run can take it over
        meanwhile. When the answer to the COMMIT is lost, and the transaction was to record the run,
        the warehouse is asked whether it did. Raises LeaseLostError, StoppedError and what Postgres
        raises.
        """
        return self._write(lambda: function(self.connection, *args, **kwargs), renew_first=True)

    def write_then_renew(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Like `write`, but renew the lease last, just before the COMMIT.

        For a COPY: it can wait for our own producer of rows, or for a process that was put to
        sleep, and the lease's row must not stay locked meanwhile.
        """
        return self._write(lambda: function(self.connection, *args, **kwargs), renew_first=False)

    def stage(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Like `write_then_renew`, but let the COMMIT return before the disk has it.

        For pages that go into UNLOGGED tables: a crash of the server empties these, and what else
        it takes, such as rejects, comes again with the pages.
        """
        return self._write(
            lambda: function(self.connection, *args, **kwargs), renew_first=False, soon=True
        )

    def keep_lease(self) -> None:
        """Renew the lease if it is time to. Raises StoppedError when the run is asked to stop."""
        if self.watcher.stopped():
            raise StoppedError("stopped; what was read in this run is not merged")
        if self.clock() - self._renewed > RENEW_EVERY:
            with brief_transaction(self.engine, self.watcher) as another:  # ours may be in one
                leases.renew(another, self.lease)
            self._renewed = self.clock()
            if self.dry:  # or Postgres ends it, as one whose process sleeps
                self.connection.exec_driver_sql("SELECT")

    def _write(self, function: Callable[[], T], *, renew_first: bool, soon: bool = False) -> T:
        for attempt in itertools.count(1):
            result: list[T] = []  # filled when only the COMMIT is left to do
            try:
                with transaction(
                    self.connection, self.watcher, within=self.dry, soon=soon
                ) as opened:
                    if renew_first:
                        self._renew()
                    returned = function()
                    if isinstance(returned, RollBack):
                        opened.rollback()
                    elif not renew_first:
                        self._renew()
                    result.append(returned)
            except (DBAPIError, psycopg.Error) as error:
                state = sqlstate(error)
                if state in _GIVEN_UP and attempt <= REPEATS:
                    self.sleep(0.1 * attempt)
                    continue
                if not result or state is not None or not self._is_recorded():
                    raise
            if not self.dry:
                self._renewed = self.clock()
            return result[0]
        raise AssertionError("itertools.count ended")

    def _renew(self) -> None:
        if self.dry:
            self.keep_lease()
        else:
            leases.renew(self.connection, self.lease)

    def _is_recorded(self) -> bool:
        """Ask whether the warehouse has the run, until it answers or _READ_BACK seconds passed."""
        until = self.clock() + _READ_BACK
        while True:
            try:
                with self.engine.begin() as another:
                    return runs.recorded(another, self.lease.source, self.run_id)
            except DBAPIError:
                if self.clock() > until:
                    return False
                self.sleep(0.5)

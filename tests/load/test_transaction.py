"""The transactions of a run: under its lease, repeated when given up, interrupted when it stops."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg.errors import LockNotAvailable, SerializationFailure
from sqlalchemy import Connection, Engine, text

from etl.errors import LeaseLostError, StoppedError
from etl.load import lease as leases
from etl.load.transaction import (
    RENEW_EVERY,
    REPEATS,
    ROLL_BACK,
    LeasedConnection,
    RollBack,
    StopWatcher,
)
from tests.postgres import dsn

NAME = "stop-watcher"


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def database(
    engine: Engine, connection: Connection, clock: Clock, stop: threading.Event
) -> Iterator[LeasedConnection]:
    with connection.begin():
        lease = leases.acquire(connection, "s", "flows", holder="here:1:x")
        connection.execute(text("CREATE TABLE IF NOT EXISTS staging.notes (note text)"))
    with closing(StopWatcher(stop.is_set)) as watcher:
        yield LeasedConnection(
            engine, connection, lease, "a run", watcher, clock, lambda seconds: None
        )
    assert NAME not in [thread.name for thread in threading.enumerate()]


def note(connection: Connection, content: str) -> str:
    connection.execute(text("INSERT INTO staging.notes VALUES (:content)"), {"content": content})
    return content


def notes(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT note FROM staging.notes ORDER BY note")))


def take_over(engine: Engine) -> None:
    with engine.begin() as other:
        leases.revoke(other, "here:1:x")
        leases.acquire(other, "s", "flows", holder="elsewhere:1:x")


def is_lease_locked(url: str) -> bool:
    try:
        with psycopg.connect(dsn(url)) as other:
            other.execute("SELECT FROM etl.leases FOR UPDATE NOWAIT")
    except LockNotAvailable:
        return True
    return False


def test_what_a_function_returns_and_writes_is_committed(database: LeasedConnection) -> None:
    assert database.write(note, "one") == "one"
    assert database.write_then_renew(note, content="two") == "two"
    assert database.read(notes) == ["one", "two"]


@pytest.mark.parametrize("way", ["write", "write_then_renew", "stage"])
def test_nothing_is_written_without_the_lease(
    database: LeasedConnection, engine: Engine, way: str
) -> None:
    database.write(note, "before")
    take_over(engine)
    with pytest.raises(LeaseLostError):
        getattr(database, way)(note, "after")
    assert database.read(notes) == ["before"]


def test_the_lease_s_row_is_locked_first_or_only_at_the_end(
    database: LeasedConnection, warehouse: str
) -> None:
    """A COPY may wait for rows that we produce; meanwhile it must not block the lease's readers."""

    def look(connection: Connection) -> bool:
        return is_lease_locked(warehouse)

    assert database.write(look)
    assert not database.write_then_renew(look)


@pytest.mark.parametrize("way", ["write", "write_then_renew", "stage"])
def test_a_function_can_have_its_transaction_rolled_back(
    database: LeasedConnection, way: str
) -> None:
    def give_up(connection: Connection) -> RollBack:
        note(connection, "never")
        return ROLL_BACK

    assert getattr(database, way)(give_up) is ROLL_BACK
    assert database.read(notes) == []
    assert database.write(note, "next") == "next"


@pytest.mark.fault(45)
@pytest.mark.parametrize(("failures", "passes"), [(REPEATS, True), (REPEATS + 1, False)])
def test_a_transaction_that_postgres_gave_up_is_started_again_a_few_times(
    database: LeasedConnection, failures: int, passes: bool
) -> None:
    attempts: list[int] = []

    def fail(connection: Connection) -> int:
        note(connection, f"attempt {len(attempts)}")
        attempts.append(1)
        if len(attempts) <= failures:
            connection.execute(
                text("DO $$ BEGIN RAISE SQLSTATE '40001' USING MESSAGE = 'given up'; END $$")
            )
        return len(attempts)

    if passes:
        assert database.write(fail) == REPEATS + 1
        assert database.read(notes) == [f"attempt {REPEATS}"]
        return
    with pytest.raises(Exception, match="given up") as caught:
        database.write(fail)
    assert isinstance(caught.value.__cause__, SerializationFailure)
    assert (len(attempts), database.read(notes)) == (REPEATS + 1, [])


def wait_for_lock(url: str, waiting: Callable[[], object], then: Callable[[], None]) -> None:
    """Run `waiting`, which waits for a lock that another session holds; call `then` meanwhile."""
    query = """SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'"""

    def look() -> None:
        with psycopg.connect(dsn(url), autocommit=True) as watching:
            while not watching.execute(query).fetchall():
                if over.wait(0.02):
                    return
        then()

    over = threading.Event()
    with psycopg.connect(dsn(url)) as other:
        other.execute("LOCK TABLE staging.notes IN ACCESS EXCLUSIVE MODE")
        looking = threading.Thread(target=look)
        looking.start()
        try:
            waiting()
        finally:
            over.set()
            looking.join()


@pytest.mark.slow
def test_a_stop_interrupts_a_statement_that_waits(
    database: LeasedConnection, warehouse: str, stop: threading.Event
) -> None:
    def wait() -> None:
        with pytest.raises(StoppedError, match="rolled back"):
            database.write(note, "never")

    wait_for_lock(warehouse, wait, stop.set)
    stop.clear()
    assert database.write(note, "next") == "next"  # its connection is as good as before
    assert database.read(notes) == ["next"]


@pytest.mark.slow
def test_a_stop_interrupts_also_what_starts_after_it(
    database: LeasedConnection, warehouse: str, stop: threading.Event
) -> None:
    stop.set()
    assert database.write(note, "short") == "short"

    def wait() -> None:
        with pytest.raises(StoppedError):
            database.write(note, "never")

    wait_for_lock(warehouse, wait, lambda: None)


def test_a_statement_cancelled_by_another_session_is_not_a_stop(
    database: LeasedConnection, warehouse: str
) -> None:
    def cancel() -> None:
        with psycopg.connect(dsn(warehouse), autocommit=True) as other:
            other.execute(
                """SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'"""
            )

    def wait() -> None:
        with pytest.raises(Exception, match="canceling statement due to user request"):
            database.write(note, "never")

    wait_for_lock(warehouse, wait, cancel)


def test_one_thread_watches_all_transactions_of_a_run(database: LeasedConnection) -> None:
    def watchers(connection: Connection) -> list[int | None]:
        return [each.ident for each in threading.enumerate() if each.name == NAME]

    found = [database.read(watchers), database.write(watchers), database.read(watchers)]
    assert len(found[0]) == 1
    assert found[0] == found[1] == found[2]


def test_the_lease_is_renewed_in_time_while_a_run_waits(
    database: LeasedConnection, engine: Engine, clock: Clock, stop: threading.Event
) -> None:
    take_over(engine)
    clock.now += RENEW_EVERY
    database.keep_lease()  # it is not time to renew it, so nothing is asked
    clock.now += 1
    with pytest.raises(LeaseLostError):
        database.keep_lease()
    stop.set()
    with pytest.raises(StoppedError):
        database.keep_lease()

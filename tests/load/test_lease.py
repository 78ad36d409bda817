"""One writer per stream, even if processes die, are stopped or race for the lease."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text

from etl.errors import BusyError, LeaseLostError
from etl.load import lease
from etl.load.lease import (
    Lease,
    acquire,
    is_dead,
    last_holder,
    process_name,
    release,
    renew,
    renewals,
    revoke,
)
from etl.warehouse import tables


def none_is_dead(holder: str) -> bool:
    return False


def take(
    connection: Connection, holder: str = "a", stream: str = "flows", source: str = "s"
) -> Lease:
    with connection.begin():
        return acquire(connection, source, stream, holder=holder, dead=none_is_dead)


def ends_in(connection: Connection) -> timedelta:
    """Return how long the lease of s.flows still lasts, by the database's clock."""
    with connection.begin():
        left = connection.scalar(
            text("SELECT until - clock_timestamp() FROM etl.leases WHERE stream = 'flows'")
        )
    assert isinstance(left, timedelta)
    return left


def end_lease(connection: Connection) -> None:
    with connection.begin():
        connection.execute(text("UPDATE etl.leases SET until = now() - interval '1 second'"))


def test_a_lease_that_was_never_taken_is_free(connection: Connection) -> None:
    assert take(connection, "me") == Lease("s", "flows", "me", 1)
    assert timedelta(seconds=50) < ends_in(connection) <= lease.TTL


def test_a_held_lease_is_busy_and_names_its_holder_and_its_end(connection: Connection) -> None:
    take(connection, "host:1:place")
    with connection.begin():
        connection.execute(text("SET TIME ZONE 'Asia/Tokyo'"))
    with connection.begin():
        until = connection.scalar(select(tables.leases.c.until))
    assert isinstance(until, datetime)
    with pytest.raises(BusyError) as caught:
        take(connection, "other")
    assert str(caught.value) == (
        "s.flows: another run holds the lease: host:1:place, "
        f"until {until.astimezone(UTC):%H:%M:%S} UTC → let it finish, or try again later"
    )
    assert caught.value.exit_code == 75


def test_the_same_holder_cannot_take_it_twice(connection: Connection) -> None:
    take(connection, "me")
    with pytest.raises(BusyError):
        take(connection, "me")


def test_streams_and_sources_have_their_own_leases(connection: Connection) -> None:
    for source, stream in (("s", "flows"), ("s", "channels"), ("t", "flows")):
        assert take(connection, "me", stream, source).epoch == 1


def test_the_epoch_rises_with_every_holder(connection: Connection) -> None:
    epochs = []
    for holder in "abc":
        held = take(connection, holder)
        epochs.append(held.epoch)
        with connection.begin():
            release(connection, held)
    assert epochs == [1, 2, 3]


def test_a_released_lease_is_free_at_once(connection: Connection) -> None:
    held = take(connection, "a")
    with connection.begin():
        release(connection, held)
    assert ends_in(connection) <= timedelta(0)
    assert take(connection, "b").holder == "b"


def test_a_lease_that_ended_is_free(connection: Connection) -> None:
    take(connection, "a")
    end_lease(connection)
    assert take(connection, "b") == Lease("s", "flows", "b", 2)


def test_renewing_prolongs_it_and_keeps_others_out(connection: Connection) -> None:
    held = take(connection, "a")
    end_lease(connection)
    with connection.begin():
        renew(connection, held)
    assert timedelta(seconds=50) < ends_in(connection) <= lease.TTL
    with pytest.raises(BusyError):
        take(connection, "b")


@pytest.mark.fault(62)
def test_a_process_whose_lease_was_taken_over_cannot_write(connection: Connection) -> None:
    """Its lease had ended when another process took it."""
    stale = take(connection, "a")
    end_lease(connection)
    successor = take(connection, "b")
    lost = pytest.raises(LeaseLostError, match=r"^s\.flows: another run took the lease over")
    with lost, connection.begin():
        renew(connection, stale)
    with connection.begin():
        release(connection, stale)  # the lease belongs to another process now
    assert ends_in(connection) > timedelta(seconds=50)
    with connection.begin():
        renew(connection, successor)


def test_a_process_whose_lease_was_taken_by_the_same_name_cannot_write(
    connection: Connection,
) -> None:
    stale = take(connection, "same")
    end_lease(connection)
    take(connection, "same")
    with pytest.raises(LeaseLostError), connection.begin():
        renew(connection, stale)


def test_a_rolled_back_transaction_takes_nothing(connection: Connection) -> None:
    transaction = connection.begin()
    acquire(connection, "s", "flows", holder="a", dead=none_is_dead)
    transaction.rollback()
    assert take(connection, "b").epoch == 1


def test_the_lease_of_a_dead_holder_is_free_at_once(connection: Connection) -> None:
    take(connection, "a")
    with connection.begin():
        held = acquire(connection, "s", "flows", holder="b", dead=lambda holder: holder == "a")
    assert held.epoch == 2
    with pytest.raises(BusyError), connection.begin():
        acquire(connection, "s", "flows", holder="c", dead=lambda holder: holder == "a")


def test_an_ended_process_of_this_machine_is_dead(connection: Connection) -> None:
    code = "from etl.load.lease import process_name; print(process_name())"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    take(connection, ended)
    with connection.begin():
        assert acquire(connection, "s", "flows", holder=process_name()).epoch == 2
    assert is_dead(ended)


def test_a_live_process_and_one_on_another_machine_are_not_dead() -> None:
    host, pid, place = process_name().rsplit(":", 2)
    assert pid == str(os.getpid())
    assert not is_dead(process_name())
    assert not is_dead(f"{host}:{os.getppid()}:{place}")
    gone = 2**22 + 1  # above the kernel's highest pid
    assert is_dead(f"{host}:{gone}:{place}")
    assert is_dead(f"a:b:{gone}:{place}")
    others = [f"{host}:{gone}:elsewhere", f"{host}:{gone}:unknown", f"{host}:x:{place}"]
    for other in [*others, f"{host}:{gone}", "a", ""]:
        assert not is_dead(other), other


@contextmanager
def in_thread(work: Any) -> Iterator[list[Any]]:
    """Run `work` in a thread; its result, or what it raised, is in the list after the block."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(work())
        except BusyError as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield result
    finally:
        thread.join(timeout=30)
        assert not thread.is_alive()


def wait_until_blocked(connection: Connection) -> None:
    """Wait until another session of this database waits for a lock."""
    pause = threading.Event()
    for _ in range(3000):
        with connection.begin():
            blocked = connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )
        if blocked:
            return
        pause.wait(0.01)
    raise AssertionError("no session waited for a lock")


@pytest.mark.parametrize("before", ["never taken", "ended", "dead"])
@pytest.mark.parametrize("first_commits", [True, False])
def test_the_second_of_two_waits_for_the_first_s_transaction(
    engine: Engine, connection: Connection, before: str, first_commits: bool
) -> None:
    if before != "never taken":
        take(connection, "previous")
    if before == "ended":
        end_lease(connection)

    def dead(holder: str) -> bool:
        return before == "dead" and holder == "previous"

    def second() -> Lease:
        with engine.connect() as other, other.begin():
            return acquire(other, "s", "flows", holder="second", dead=dead)

    with engine.connect() as first:
        transaction = first.begin()
        acquire(first, "s", "flows", holder="first", dead=dead)
        with in_thread(second) as result:
            wait_until_blocked(connection)
            if first_commits:
                transaction.commit()
            else:
                transaction.rollback()
    if first_commits:
        assert isinstance(result[0], BusyError)
        assert "first" in str(result[0])
    else:
        assert result[0].holder == "second"


def test_no_run_takes_over_between_renewing_and_committing(
    engine: Engine, connection: Connection
) -> None:
    held = take(connection, "a")
    end_lease(connection)

    def take_over() -> Lease:
        with engine.connect() as other:
            return take(other, "other")

    with engine.connect() as writer:
        transaction = writer.begin()
        renew(writer, held)
        with in_thread(take_over) as result:
            wait_until_blocked(connection)
            transaction.commit()
    assert isinstance(result[0], BusyError)


@pytest.mark.every_postgres
def test_one_of_many_runs_that_race_for_a_lease_wins(
    engine: Engine, connection: Connection
) -> None:
    for round_ in range(3):
        barrier = threading.Barrier(6)

        def race(name: str, barrier: threading.Barrier = barrier) -> Any:
            with engine.connect() as own:
                own.execute(text("SELECT 1"))
                own.rollback()
                barrier.wait(timeout=30)
                return take(own, name)

        with ExitStack() as stack:
            results = [stack.enter_context(in_thread(lambda n=n: race(f"r{n}"))) for n in range(6)]
        won = [found[0] for found in results if isinstance(found[0], Lease)]
        assert len(won) == 1
        assert won[0].epoch == round_ + 1
        assert sum(isinstance(found[0], BusyError) for found in results) == 5
        with connection.begin():
            release(connection, won[0])


def test_a_lease_can_be_shorter(connection: Connection) -> None:
    with connection.begin():
        held = acquire(connection, "s", "flows", holder="a", ttl=timedelta(seconds=9))
    assert timedelta(seconds=5) < ends_in(connection) <= timedelta(seconds=9)
    with connection.begin():
        renew(connection, held, timedelta(seconds=20))
    assert timedelta(seconds=15) < ends_in(connection) <= timedelta(seconds=20)


def test_a_revoked_lease_allows_no_write_and_is_free_at_once(connection: Connection) -> None:
    mine, other, third = take(connection), take(connection, "a", "x"), take(connection, "b", "y")
    with connection.begin():
        assert revoke(connection, "a", only=("s", "flows")) == 1
        assert revoke(connection, "a", only=("s", "flows")) == 0
    with pytest.raises(LeaseLostError), connection.begin():
        renew(connection, mine)
    with connection.begin():
        renew(connection, other)
    assert take(connection, "b").holder == "b"
    with connection.begin():
        assert revoke(connection, "a", but=("s", "x")) == 0
        assert revoke(connection, "a") == 1
    with pytest.raises(LeaseLostError), connection.begin():
        renew(connection, other)
    with connection.begin():
        renew(connection, third)


def test_a_revoked_lease_that_its_holder_gives_back_stays_the_next_one_s(
    connection: Connection,
) -> None:
    held = take(connection)
    with connection.begin():
        revoke(connection, "a")
    following = take(connection, "b")
    with connection.begin():
        release(connection, held)
    with connection.begin():
        renew(connection, following)


def test_the_last_holder_of_a_lease_and_the_time_since_its_renewal(connection: Connection) -> None:
    with connection.begin():
        assert last_holder(connection, "s", "flows") == (None, False)
    held = take(connection, "a")
    take(connection, "b", "channels")
    with connection.begin():
        connection.execute(text("UPDATE etl.leases SET until = until - interval '40 seconds'"))
        assert last_holder(connection, "s", "flows") == ("a", True)
        connection.execute(text("UPDATE etl.leases SET until = until - interval '40 seconds'"))
        assert last_holder(connection, "s", "flows") == ("a", False)
        connection.execute(text("UPDATE etl.leases SET until = until + interval '40 seconds'"))
        (age,) = renewals(connection, "a").values()
        assert timedelta(seconds=40) <= age < timedelta(seconds=50)
        renew(connection, held)
        (again,) = renewals(connection, "a").values()
        assert again < timedelta(seconds=10)

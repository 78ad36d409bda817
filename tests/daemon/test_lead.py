"""One daemon leads even if others die, are stopped or race for it; the previous one's runs end."""

import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import OperationalError

from etl.daemon.executors import Threads
from etl.errors import LeaseLostError, StoppedError
from etl.load import lease as leases
from etl.load.lead import PLACE, TTL, leader, take
from etl.load.lease import Lease
from etl.warehouse.connect import connect
from etl.warehouse.embedded import find_binaries
from tests.postgres import Cluster

pytestmark = pytest.mark.slow

PATIENCE = 30.0

A, B, C = (f"{name}:1:elsewhere" for name in "abc")
"""Processes of other machines, of which this one cannot know whether they run."""

DEAD = "host:{}:{}".format(2**22 + 1, leases.process_name().rsplit(":", 1)[1])
"""An ended process of this machine: no pid is that high."""


@pytest.fixture(scope="module")
def module_url(clusters: Callable[[Path], Cluster]) -> Iterator[str]:
    cluster = clusters(find_binaries(os.environ))
    with cluster.database(template=cluster.migrated) as url:
        yield url


def impatient(raw: Any, _: Any) -> None:
    """Let a test that blocks itself fail instead of hang."""
    raw.execute("SET statement_timeout = '20s'")
    raw.commit()


@pytest.fixture
def engine(module_url: str) -> Iterator[Engine]:
    engine = connect(module_url)
    event.listen(engine, "connect", impatient)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE etl.leases"))
    try:
        yield engine
    finally:
        engine.dispose()


def lead(engine: Engine, process: str) -> Lease | None:
    with engine.begin() as connection:
        return take(connection, process)


def leads(engine: Engine, process: str) -> Lease:
    lease = lead(engine, process)
    assert lease is not None
    return lease


def hold(engine: Engine, holder: str, stream: str = "flows") -> Lease:
    """Return the lease of a run of the daemon `holder`."""
    with engine.begin() as connection:
        return leases.acquire(connection, "s", stream, holder=holder)


def renewable(engine: Engine, lease: Lease) -> bool:
    try:
        with engine.begin() as connection:
            leases.renew(connection, lease)
    except LeaseLostError:
        return False
    return True


def execute(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


END_LEAD = """UPDATE etl.leases SET until = clock_timestamp() - interval '1 second'
                WHERE source = '*'"""
END_LEAD_NOW = "UPDATE etl.leases SET until = clock_timestamp() WHERE source = '*'"
END_LEAD_SOON = """UPDATE etl.leases SET until = clock_timestamp() + interval '500 ms'
                      WHERE source = '*'"""


def who(engine: Engine) -> str | None:
    with engine.begin() as connection:
        return leader(connection)


def wait_for(engine: Engine, query: str) -> None:
    """Wait until `query` returns true."""
    pause = threading.Event()
    for _ in range(1500):
        with engine.begin() as connection:
            if connection.scalar(text(query)):
                return
        pause.wait(0.02)
    raise AssertionError(f"never: {query}")


BLOCKED = """SELECT count(*) > 0 FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'"""


# --- who leads -----------------------------------------------------------------------------------
def test_the_first_daemon_leads_and_no_other(engine: Engine) -> None:
    assert who(engine) is None
    first = leads(engine, A)
    assert first == Lease(*PLACE, A, 1)
    assert lead(engine, B) is None
    assert who(engine) == A
    with engine.begin() as connection:
        left = connection.scalar(text("SELECT until - clock_timestamp() FROM etl.leases"))
    assert isinstance(left, timedelta)
    assert timedelta(seconds=5) < left <= TTL


def test_a_leader_that_vanished_is_followed_when_its_lease_has_ended(engine: Engine) -> None:
    leads(engine, A)
    execute(engine, END_LEAD)
    assert who(engine) is None
    assert leads(engine, B).epoch == 2
    assert who(engine) == B
    assert lead(engine, A) is None


def test_a_leader_that_gives_it_back_is_followed_at_once(engine: Engine) -> None:
    first = leads(engine, A)
    with engine.begin() as connection:
        leases.release(connection, first)
    assert who(engine) is None
    assert leads(engine, B).epoch == 2
    with engine.begin() as connection:
        leases.release(connection, first)  # too late: the lease belongs to B now
    assert who(engine) == B


def test_a_dead_leader_of_this_machine_is_followed_at_once(engine: Engine) -> None:
    leads(engine, DEAD)
    run = hold(engine, DEAD)
    assert leads(engine, B).epoch == 2
    assert not renewable(engine, run)


def test_a_restart_under_the_same_name_waits_and_keeps_its_own_lead(engine: Engine) -> None:
    """In a container a restarted daemon has the same name: it is process 1 again."""
    previous = leads(engine, A)
    run = hold(engine, A)
    assert lead(engine, A) is None
    execute(engine, END_LEAD)
    again = leads(engine, A)
    assert again.epoch == previous.epoch + 1
    assert renewable(engine, again)
    assert not renewable(engine, previous)
    assert not renewable(engine, run)
    assert who(engine) == A


def test_a_lead_that_was_renewed_stays(engine: Engine) -> None:
    """It had ended, but no other daemon had taken it."""
    lease = leads(engine, A)
    execute(engine, END_LEAD)
    with engine.begin() as connection:
        leases.renew(connection, lease, TTL)
    assert lead(engine, B) is None


def test_a_lead_that_is_rolled_back_was_not_taken(engine: Engine) -> None:
    leads(engine, A)
    run = hold(engine, A)
    execute(engine, END_LEAD)
    with engine.connect() as connection:
        transaction = connection.begin()
        assert take(connection, B) is not None
        transaction.rollback()
    assert who(engine) is None
    assert renewable(engine, run)
    assert leads(engine, C).epoch == 2


@pytest.mark.fault(61)
@pytest.mark.parametrize("before", ["no lead", "ended", "dead", "given back"])
def test_one_of_six_daemons_that_race_leads(module_url: str, engine: Engine, before: str) -> None:
    if before != "no lead":
        first = leads(engine, DEAD if before == "dead" else A)
        if before == "ended":
            execute(engine, END_LEAD)
        if before == "given back":
            with engine.begin() as connection:
                leases.release(connection, first)
    barrier = threading.Barrier(6)

    def race(process: str) -> Lease | None:
        own = connect(module_url)  # a process has its own
        try:
            with own.connect() as connection:
                connection.execute(text("SELECT 1"))
                connection.rollback()
                barrier.wait(PATIENCE)
                with connection.begin():
                    return take(connection, process)
        finally:
            own.dispose()

    threads = Threads()
    runners = [threads.submit(race, f"racer{n}:1:elsewhere") for n in range(6)]
    found = [each.result(PATIENCE) for each in runners]
    (winner,) = (each for each in found if each is not None)
    assert who(engine) == winner.holder
    assert winner.epoch == (1 if before == "no lead" else 2)
    assert renewable(engine, winner)


# --- runs of the previous leader ------------------------------------------------------------------
def test_a_new_leader_revokes_the_runs_of_the_previous_one(engine: Engine) -> None:
    leads(engine, A)
    mine, other = hold(engine, A, "flows"), hold(engine, C, "channels")
    execute(engine, END_LEAD)
    with engine.connect() as connection:
        transaction = connection.begin()
        second = take(connection, B)
        # In the same transaction: until it commits no other session sees a change.
        with engine.begin() as another:
            holder = "SELECT holder, epoch FROM etl.leases WHERE source = '*'"
            assert another.execute(text(holder)).one() == (A, 1)
            assert another.scalar(text("SELECT epoch FROM etl.leases WHERE stream = 'flows'")) == 1
        transaction.commit()
    assert second is not None
    assert not renewable(engine, mine)
    assert renewable(engine, other)  # a person's `callflow sync` goes on
    assert renewable(engine, second)
    assert hold(engine, B).epoch == mine.epoch + 2


def test_a_daemon_that_only_looks_revokes_nothing(engine: Engine) -> None:
    leads(engine, A)
    run = hold(engine, A)
    assert lead(engine, B) is None
    assert renewable(engine, run)


@pytest.mark.parametrize("ends", ["commits", "rolls back"])
def test_a_daemon_that_cannot_revoke_a_run_that_is_writing_does_not_lead_yet(
    engine: Engine, ends: str
) -> None:
    """The previous leader was stopped in the middle of a merge."""
    leads(engine, A)
    writing, other = hold(engine, A, "flows"), hold(engine, A, "channels")
    execute(engine, END_LEAD)
    with engine.connect() as stopped_leader:
        transaction = stopped_leader.begin()
        leases.renew(stopped_leader, writing)
        with engine.begin() as connection:
            assert take(connection, B) is None
            assert connection.scalar(text("SELECT 1")) == 1  # the transaction can go on
        assert who(engine) is None
        if ends == "commits":
            transaction.commit()
        else:
            transaction.rollback()
    assert renewable(engine, other)
    assert leads(engine, B).epoch == 2
    assert not renewable(engine, writing)
    assert not renewable(engine, other)


def test_a_leader_that_is_stopped_in_the_middle_of_a_write_is_followed_at_once(
    engine: Engine,
) -> None:
    """Its lead ended after that write started: the new leader ends its session, nothing stays."""
    leads(engine, A)
    writing, staging, other = (hold(engine, A, name) for name in ("flows", "queues", "channels"))
    theirs = hold(engine, C, "roles")
    with engine.connect() as stopped_leader, engine.connect() as person:
        written = stopped_leader.begin()
        with stopped_leader.begin_nested():
            leases.renew(stopped_leader, writing)
        leases.renew(stopped_leader, staging)
        synced = person.begin()  # as old, but of a `callflow sync`
        leases.renew(person, theirs)
        execute(engine, END_LEAD_NOW)
        assert leads(engine, B).epoch == 2
        with pytest.raises(OperationalError, match="terminating connection"):
            written.commit()
        stopped_leader.invalidate()
        synced.commit()
    assert not any(renewable(engine, each) for each in (writing, staging, other))
    assert renewable(engine, theirs)


def test_a_leader_that_is_stopped_while_it_renews_its_lead_is_followed_at_once(
    engine: Engine,
) -> None:
    lease = leads(engine, A)
    execute(engine, END_LEAD_SOON)
    with engine.connect() as stopped_leader:
        stopped_leader.begin()
        leases.renew(stopped_leader, lease, TTL)
        wait_for(engine, "SELECT until < clock_timestamp() FROM etl.leases WHERE source = '*'")
        assert leads(engine, B).epoch == 2
        stopped_leader.invalidate()


def test_a_daemon_that_looks_while_another_one_leads_does_not_wait(engine: Engine) -> None:
    """A run of the leader is just starting, and has locked the leader's row."""
    first = leads(engine, A)
    with engine.connect() as run, engine.begin() as connection:
        transaction = run.begin()
        leases.stand_by(run, first)
        connection.execute(text("SET LOCAL statement_timeout = '2s'"))  # less than a lock's 3 s
        assert take(connection, B) is None
        transaction.commit()


def start_run(connection: Connection, led: Lease) -> Lease:
    leases.stand_by(connection, led)
    return leases.acquire(connection, "s", "flows", holder=led.holder)


def test_a_run_that_is_just_starting_is_seen_and_revoked(engine: Engine) -> None:
    first = leads(engine, DEAD)  # so that its lead can be taken while it lasts
    with engine.connect() as connection:
        transaction = connection.begin()
        run = start_run(connection, first)
        taken = Threads().submit(lead, engine, B)
        wait_for(engine, BLOCKED)
        assert not taken.done()
        transaction.commit()
    assert taken.result(PATIENCE) is not None
    assert not renewable(engine, run)


def test_a_run_that_waits_for_the_next_leader_s_commit_does_not_start(engine: Engine) -> None:
    first = leads(engine, DEAD)
    with engine.connect() as successor:
        transaction = successor.begin()
        assert take(successor, B) is not None

        def late() -> Lease:
            with engine.begin() as connection:
                return start_run(connection, first)

        stopped = Threads().submit(late)
        wait_for(engine, BLOCKED)
        transaction.commit()
    assert isinstance(stopped.exception(PATIENCE), StoppedError)


def test_no_run_starts_without_the_lead(engine: Engine) -> None:
    first = leads(engine, A)
    with engine.begin() as connection:
        leases.stand_by(connection, first)
    execute(engine, END_LEAD)
    with pytest.raises(StoppedError, match="does not lead any more"), engine.begin() as connection:
        leases.stand_by(connection, first)  # no other daemon leads, but any may
    leads(engine, B)
    with pytest.raises(StoppedError), engine.begin() as connection:
        leases.stand_by(connection, first)


def test_runs_start_side_by_side_and_the_lead_can_be_renewed_meanwhile(engine: Engine) -> None:
    first = leads(engine, A)
    with engine.connect() as one, engine.connect() as two:
        both = [one.begin(), two.begin()]
        leases.stand_by(one, first)
        leases.stand_by(two, first)
        renewed = Threads().submit(renewable, engine, first)
        wait_for(engine, BLOCKED)
        for transaction in both:
            transaction.commit()
    assert renewed.result(PATIENCE)


def test_runs_of_a_leader_that_came_and_went_unseen_are_revoked(engine: Engine) -> None:
    """C reads that A led and is stopped; B leads, starts a run and is stopped too; C resumes."""
    leads(engine, A)
    execute(engine, END_LEAD)
    leases_of_b: list[Lease] = []

    def meanwhile(*_: Any) -> None:
        if not leases_of_b:
            leases_of_b.append(leads(engine, B))
            leases_of_b.append(hold(engine, B))
            execute(engine, END_LEAD)

    slow = engine.execution_options()
    event.listen(slow, "after_cursor_execute", meanwhile)
    with slow.connect() as connection:
        for _ in range(2):
            with connection.begin():
                led = take(connection, C)
            if led is not None:
                break
            assert renewable(engine, leases_of_b[1])
    assert led is not None
    assert led.holder == who(engine) == C
    assert led.epoch == 3
    assert not renewable(engine, leases_of_b[0])
    assert not renewable(engine, leases_of_b[1])

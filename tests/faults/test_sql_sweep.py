"""Every statement of a sync fails, in every way in which Postgres lets statements fail.

After each failure the warehouse must be as before the run, or as after a whole one; the message
must name the stream and say what to do; and an undisturbed run must then end in the right state.
`make test` takes the same sample each time, so that a failure is about the change at hand;
CALLFLOW_SWEEP=1 draws another, larger one by the seed, CALLFLOW_SWEEP=all takes every statement
with every failure, once and from then on.
"""

import os
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import psycopg
import pytest
from sqlalchemy import Engine, event

from etl.load.runs import Run
from etl.warehouse.connect import connect
from etl.warehouse.embedded import find_binaries
from tests.postgres import Cluster
from tests.sync import kills
from tests.sync.reference import Harness, Scenario, Start, do
from tests.sync.test_database_faults import failing_inserts, run_here

pytestmark = pytest.mark.slow

SWEEP = os.environ.get("CALLFLOW_SWEEP")
ALL = SWEEP == "all"
SEED = 8919
"""The seed of the sample that `make test` takes."""

ERRORS = (
    "0A000",  # cached plan must not change result type
    "22P05",  # a character that the database's encoding has not
    "23505",  # a constraint of the user's
    "25006",  # failed over to a standby, which only reads
    "40001",
    "40P01",
    "42501",
    "42703",
    "42P01",
    "53100",  # disk full
    "53200",
    "53300",
    "54000",
    "55P03",
    "57014",
    "58030",  # I/O error
    "XX000",
    "XX001",  # a damaged page
)
"""Answers to a statement while the connection stays open."""

ENDS = ("57P01", "25P03", "cut")
"""The connection ends: the backend is terminated, its transaction idled, the network failed."""

SAMPLE = 14 if SWEEP else 7
"""Failures per case."""

CASES: tuple[tuple[str, Start], ...] = (
    ("zoom_demo.flows", "empty"),
    ("zoom_demo.flows", "all"),
    ("zoom_demo.flows", "same"),
    ("alibaba_demo.contact_flows", "empty"),
    ("alibaba_demo.contact_flows", "all"),
    ("alibaba_demo.contact_flows", "same"),
    ("twilio_demo.channels", "empty"),
)

LATER = """
CREATE TABLE IF NOT EXISTS public.at_commit (state text);
CREATE OR REPLACE FUNCTION public.fail_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'it fails' USING ERRCODE = NEW.state; END $$;
CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON public.at_commit DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION public.fail_at_commit();
"""


@dataclass(frozen=True)
class Failure:
    """The `nth` statement or COMMIT fails with `state`; with `lasting` all that follow too."""

    nth: int
    state: str
    lasting: bool


class FailureInjector:
    """Makes a run's statements fail: the server gets another statement in their place.

    `seen` counts the statements, `failed` those of them that failed.
    """

    def __init__(self, engine: Engine, failure: Failure) -> None:
        self._failure = failure
        self.seen = self.failed = 0
        event.listen(engine, "before_cursor_execute", self._replace, retval=True)
        event.listen(engine, "commit", self._commit)

    def _is_due(self) -> bool:
        self.seen += 1
        nth = self._failure.nth
        due = self.seen >= nth if self._failure.lasting else self.seen == nth
        self.failed += due
        return due

    def _replace(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> tuple[str, Any]:
        # These cannot fail while the connection is open: rolling back to a savepoint or releasing
        # one waits for nothing and writes nothing.
        if statement.startswith(("ROLLBACK TO", "RELEASE")) or not self._is_due():
            return statement, parameters
        raw = connection.connection.driver_connection
        state = self._failure.state
        if state in ERRORS:
            raised = f"RAISE EXCEPTION 'it fails' USING ERRCODE = '{state}'"
            return f"DO $$ BEGIN {raised}; END $$", {}
        self._end(raw, state)
        return statement, parameters

    def _commit(self, connection: Any) -> None:
        raw = connection.connection.driver_connection
        if not self._is_due() or raw.info.transaction_status.name != "INTRANS":
            return
        if self._failure.state in ERRORS:
            raw.execute("INSERT INTO public.at_commit VALUES (%s)", [self._failure.state])
        else:
            self._end(raw, self._failure.state)

    @staticmethod
    def _end(raw: psycopg.Connection[Any], state: str) -> None:
        """End the connection; the run notices with its next statement."""
        with socket.socket(fileno=os.dup(raw.fileno())) as line:
            if state == "cut":
                line.shutdown(socket.SHUT_RDWR)
                return
            if state == "25P03":
                raw.execute("SET LOCAL idle_in_transaction_session_timeout = '1ms'")
            else:
                with psycopg.connect(**_parameters(raw), autocommit=True) as other:
                    other.execute("SELECT pg_terminate_backend(%s)", [raw.info.backend_pid])
            assert select.select([line], [], [], 10)[0], "the server did not end the connection"


def _parameters(raw: psycopg.Connection[Any]) -> dict[str, Any]:
    info = raw.info
    return {
        "host": info.host,
        "port": info.port,
        "user": info.user,
        "password": info.password,
        "dbname": info.dbname,
    }


@pytest.fixture(scope="module")
def harness(clusters: Any) -> Iterator[Harness]:
    cluster: Cluster = clusters(find_binaries(os.environ))
    with (
        cluster.database(template=cluster.migrated) as url,
        kills.warm_fork_server(url) as fork_server,
        kills.new_harness(url, fork_server) as harness,
    ):
        with harness.querying() as connection:
            do(connection, LATER)
        yield harness


def is_clear(run: Run, name: str) -> bool:
    """Return whether a failed run names the stream, the database's error and what to do now."""
    said = run.error or ""
    return (
        run.status == "failed"
        and run.error_kind in ("database", "database_schema")
        and said.startswith(f"{name}: ")
        and " → " in said
        and "a bug" not in said
        and "(25P02)" not in said  # this only follows from another error
        and "Traceback" not in said
        and "pass" not in said.replace("password of", "")
    )


def run_with(
    harness: Harness, scenario: Scenario, name: str, failure: Failure
) -> tuple[FailureInjector, bool]:
    """Run with that failure and verify the result; return whether the run was committed anyway."""
    engine = connect(harness.url)
    injector = FailureInjector(engine, failure)
    run = run_here(harness, engine, name)
    engine.dispose()
    happened = harness.verify(scenario)[name]
    assert happened == (run.status == "complete"), (failure, run)
    assert happened or is_clear(run, name), (failure, run.status, run.error_kind, run.error)
    return injector, happened


def failures(random: Random, statements: int) -> list[Failure]:
    """Return every failure of every statement in random order, or a sample of distinct kinds."""
    states = [*ERRORS, *ENDS]
    grid = [
        Failure(nth, state, lasting)
        for nth in range(1, statements + 1)
        for state in states
        for lasting in (False, True)
    ]
    random.shuffle(grid)
    if ALL:
        return grid
    kinds = random.sample(states, SAMPLE)
    return [next(each for each in grid if each.state == kind) for kind in kinds]


@pytest.mark.fault(45, 46, 48, 49)
@pytest.mark.parametrize(("name", "start"), CASES)
def test_any_failure_at_any_statement(
    harness: Harness, name: str, start: Literal["empty", "all", "same"], seed: int
) -> None:
    random = Random(f"{seed if SWEEP else SEED} {name} {start}")
    scenario = harness.scenario((name,), start, random)
    injector, happened = run_with(harness, scenario, name, Failure(10**6, "cut", lasting=False))
    assert happened and injector.seen > 25
    outcomes = []
    for failure in failures(random, injector.seen):
        if happened or ALL or random.random() < 0.2:
            harness.restart(scenario)
            scenario = harness.scenario((name,), start, random)
        injector, happened = run_with(harness, scenario, name, failure)
        assert injector.failed or injector.seen < failure.nth, failure
        outcomes.append(happened)
    harness.restart(scenario)
    assert outcomes.count(False) >= 2 * SAMPLE // 7


@pytest.mark.fault(49, 50, 52)
@pytest.mark.parametrize("name", ["zoom_demo.flows", "alibaba_demo.contact_flows"])
def test_a_copy_that_fails(harness: Harness, name: str, seed: int) -> None:
    """A trigger makes COPY fail, as a full disk would: the engine has no event for COPY."""
    random = Random(f"{seed if SWEEP else SEED} {name}")
    source = name.split(".")[0]
    harness.restart(harness.scenario((name,), "same", random))  # so the staging tables exist
    scenario = harness.scenario((name,), "all", random)
    names = [f"staging.{source}__{table.name}" for table in harness.stream(name).tables]
    grid = [(table, state) for table in names for state in ERRORS]
    for table, state in grid if ALL else random.sample(grid, 6):
        engine = connect(harness.url)
        with failing_inserts(harness, table, state, times=10**6):
            run = run_here(harness, engine, name)
        engine.dispose()
        assert harness.verify(scenario) == {name: False}, (table, state)
        assert is_clear(run, name), (table, state, run.error_kind, run.error)
        assert state in str(run.error)
    harness.restart(scenario)

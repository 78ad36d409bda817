"""Every statement of a sync fails, in every way in which Postgres lets statements fail.

After each failure the warehouse must be as before the run, or as after a whole one; the message
must name the stream and say what to do; and a run that nobody disturbs must end where it would
have. `make test` plays the same sample each time, so that a failure is about the change at hand;
CALLFLOW_SWEEP=1 draws another, larger one by the seed, CALLFLOW_SWEEP=all plays every statement
with every failure, once and for good.
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
from tests.sync.test_database_faults import giving_up, run_here
from tests.sync.twins import Scene, Start, World, do

pytestmark = pytest.mark.slow

SWEEP = os.environ.get("CALLFLOW_SWEEP")
ALL = SWEEP == "all"
SEED = 8919
"""Of the sample that `make test` plays."""

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
"""What a statement is answered with while the connection lives on."""

ENDS = ("57P01", "25P03", "cut")
"""The connection ends: the backend is told to, it idled in its transaction, the network went."""

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


class Saboteur:
    """Lets a run's statements fail by what the server does with another statement in their place.

    `seen` counts them; `struck` tells how many have failed.
    """

    def __init__(self, engine: Engine, failure: Failure) -> None:
        self._failure = failure
        self.seen = self.struck = 0
        event.listen(engine, "before_cursor_execute", self._replace, retval=True)
        event.listen(engine, "commit", self._commit)

    def _strikes(self) -> bool:
        self.seen += 1
        nth = self._failure.nth
        strikes = self.seen >= nth if self._failure.lasting else self.seen == nth
        self.struck += strikes
        return strikes

    def _replace(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> tuple[str, Any]:
        # What has failed can be rolled back as long as there is a connection, and what was done can
        # be kept: to release a savepoint waits for nothing and writes nothing.
        if statement.startswith(("ROLLBACK TO", "RELEASE")) or not self._strikes():
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
        if not self._strikes() or raw.info.transaction_status.name != "INTRANS":
            return
        if self._failure.state in ERRORS:
            raw.execute("INSERT INTO public.at_commit VALUES (%s)", [self._failure.state])
        else:
            self._end(raw, self._failure.state)

    @staticmethod
    def _end(raw: psycopg.Connection[Any], state: str) -> None:
        """End the connection; the next thing that is sent over it finds out."""
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
def world(clusters: Any) -> Iterator[World]:
    cluster: Cluster = clusters(find_binaries(os.environ))
    with (
        cluster.database(template=cluster.migrated) as url,
        kills.a_nursery(url) as nursery,
        kills.a_world(url, nursery) as world,
    ):
        with world.asking() as connection:
            do(connection, LATER)
        yield world


def is_clear(run: Run, name: str) -> bool:
    """Whether a failed run says where, what happened and what to do, and that it was the database.

    Where the whole run failed its lease may be found to be another's: that is said then.
    """
    said = run.error or ""
    return (
        run.status == "failed"
        and run.error_kind in ("database", "database_schema")
        and said.startswith(f"{name}: ")
        and " → " in said
        and "a bug" not in said
        and "(25P02)" not in said  # what follows from another error says nothing of it
        and "Traceback" not in said
        and "pass" not in said.replace("password of", "")
    )


def played(world: World, scene: Scene, name: str, failure: Failure) -> tuple[Saboteur, bool]:
    """A run with that failure, judged; whether it has happened all the same."""
    engine = connect(world.url)
    saboteur = Saboteur(engine, failure)
    run = run_here(world, engine, name)
    engine.dispose()
    happened = world.judge(scene)[name]
    assert happened == (run.status == "complete"), (failure, run)
    assert happened or is_clear(run, name), (failure, run.status, run.error_kind, run.error)
    return saboteur, happened


def failures(random: Random, statements: int) -> list[Failure]:
    """Every failure of every statement in a random order, or a sample with each kind in it."""
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
def test_whatever_fails_at_whatever_statement(
    world: World, name: str, start: Literal["empty", "all", "same"], seed: int
) -> None:
    random = Random(f"{seed if SWEEP else SEED} {name} {start}")
    scene = world.scene((name,), start, random)
    saboteur, happened = played(world, scene, name, Failure(10**6, "cut", lasting=False))
    assert happened and saboteur.seen > 25
    outcomes = []
    for failure in failures(random, saboteur.seen):
        if happened or ALL or random.random() < 0.2:
            world.restart(scene)
            scene = world.scene((name,), start, random)
        struck, happened = played(world, scene, name, failure)
        assert struck.struck or struck.seen < failure.nth, failure
        outcomes.append(happened)
    world.restart(scene)
    assert outcomes.count(False) >= 2 * SAMPLE // 7


@pytest.mark.fault(49, 50, 52)
@pytest.mark.parametrize("name", ["zoom_demo.flows", "alibaba_demo.contact_flows"])
def test_a_copy_that_fails(world: World, name: str, seed: int) -> None:
    """COPY is no statement of the engine's: a trigger lets it fail, as a full disk would."""
    random = Random(f"{seed if SWEEP else SEED} {name}")
    source = name.split(".")[0]
    world.restart(world.scene((name,), "same", random))  # the staging tables are there now
    scene = world.scene((name,), "all", random)
    names = [f"staging.{source}__{table.name}" for table in world.stream(name).tables]
    grid = [(table, state) for table in names for state in ERRORS]
    for table, state in grid if ALL else random.sample(grid, 6):
        engine = connect(world.url)
        with giving_up(world, table, state, times=10**6):
            run = run_here(world, engine, name)
        engine.dispose()
        assert world.judge(scene) == {name: False}, (table, state)
        assert is_clear(run, name), (table, state, run.error_kind, run.error)
        assert state in str(run.error)
    world.restart(scene)

"""Connections that break at every statement, deadlocks, and COMMITs whose answer is lost."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from random import Random
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event, make_url

from etl.load.lease import process_name
from etl.load.runs import Run
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.warehouse.connect import connect
from tests.postgres import ask, dsn
from tests.sync import kills
from tests.sync.processes import ForkServer, Point, PointHook, stream_of
from tests.sync.reference import Harness, do

pytestmark = pytest.mark.slow

ZOOM = "zoom_demo.flows"
CHANNELS = "twilio_demo.channels"


@pytest.fixture
def harness(warehouse_and_fork_server: tuple[str, ForkServer]) -> Iterator[Harness]:
    with kills.new_harness(*warehouse_and_fork_server) as harness:
        harness.wipe()
        yield harness


@pytest.fixture
def engine(harness: Harness) -> Iterator[Engine]:
    engine = connect(harness.url)
    yield engine
    engine.dispose()


def run_here(
    harness: Harness,
    engine: Engine,
    name: str,
    on_page: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Run:
    """Run in this process, on the test's engine, with a dead process as the holder of the lease."""
    ((source, stream),) = harness.spec([name]).units
    host, _, place = process_name().rsplit(":", 2)
    return run_stream(
        Job(
            engine,
            stream_of(source, stream),
            source,
            f"{host}:{2**22 + 1}:{place}",  # above the kernel's highest process id
            on_progress=lambda reached: on_page() if reached.phase == "reading" else None,
            clock=clock,
        )
    )


def slow_clock() -> float:
    """Count a fiftieth of the seconds: a busy machine must not make a short first load a slow one.

    A first load that comes too slowly goes another way, with other statements.
    """
    return time.monotonic() / 50


def is_clear(run: Run) -> bool:
    """Return whether a failed run says what happened, where, and what to do."""
    said = run.error or ""
    return (
        (run.status, run.error_kind) == ("failed", "database")
        and re.match(r"\w+\.\w+: Postgres: .+ → .+", said) is not None
        and "Traceback" not in said
        and "password" not in said
    )


# -- connections that break ----------------------------------------------------------------------


class Breaker:
    """Ends the backend of the connection that reaches a point, from another session."""

    def __init__(self, url: str, engine: Engine, point: Point) -> None:
        self.broke = False
        self._url = url
        self._pids: dict[int, None] = {}
        event.listen(engine, "begin", self._note_pid)
        self.hook = PointHook(engine, point, self._break)

    def _note_pid(self, connection: Any) -> None:
        pid = connection.connection.driver_connection.info.backend_pid
        self._pids.pop(pid, None)
        self._pids[pid] = None  # the last one is the one in use

    def _break(self) -> None:
        self.broke = True
        with psycopg.connect(dsn(self._url), autocommit=True) as another:
            another.execute("SELECT pg_terminate_backend(%s, 5000)", [[*self._pids][-1]])


@pytest.mark.fault(46)
@pytest.mark.parametrize("at", ["before", "commit", "committed"])
@pytest.mark.parametrize(("name", "start"), [(ZOOM, "all"), (CHANNELS, "empty")])
def test_a_connection_that_breaks_at_the_nth_statement_for_every_n(
    harness: Harness, name: str, start: Any, at: Any, seed: int
) -> None:
    random = Random(seed)
    scenario = harness.scenario((name,), start, random)
    states = []
    for nth in range(1, 200):
        engine = connect(harness.url)
        breaker = Breaker(harness.url, engine, Point(at, nth=nth))
        run = run_here(harness, engine, name, clock=slow_clock)
        engine.dispose()
        happened = harness.verify(scenario)[name]
        assert happened == (run.status == "complete"), (nth, run)
        assert happened or is_clear(run), (nth, run.status, run.error)
        states.append(happened)
        if happened:
            harness.restart(scenario)
            if not breaker.broke:
                break
            scenario = harness.scenario((name,), start, random)
    else:
        raise AssertionError("no run passed")
    assert len(states) > (20 if at == "before" else 5)
    assert states.count(False) >= 3
    assert states == sorted(states), "a later break undid more than an earlier one"


@pytest.mark.fault(46)
def test_a_connection_that_breaks_in_the_middle_of_a_copy(
    harness: Harness, engine: Engine, seed: int
) -> None:
    scenario = harness.scenario((CHANNELS,), "empty", Random(seed))
    breaker = Breaker(harness.url, engine, Point("page", nth=15))
    run = run_here(harness, engine, CHANNELS, breaker.hook.page)
    assert breaker.broke
    assert is_clear(run), run
    assert harness.verify(scenario) == {CHANNELS: False}
    harness.restart(scenario)


# -- deadlocks and serialization failures --------------------------------------------------------


@contextmanager
def failing_inserts(
    harness: Harness, table: str, state: str, times: int
) -> Iterator[Callable[[], int]]:
    """Fail the first `times` inserts into `table` with `state`; yield a counter of attempts."""
    with harness.querying() as connection:
        do(connection, "CREATE SEQUENCE public.attempts")
        do(
            connection,
            f"""CREATE FUNCTION public.give_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('public.attempts') <= {times} THEN
                    RAISE EXCEPTION 'given up for another one' USING ERRCODE = '{state}';
                END IF;
                RETURN NULL; END $$""",
        )
        do(
            connection,
            f"CREATE TRIGGER give_up BEFORE INSERT ON {table} EXECUTE FUNCTION public.give_up()",
        )

        def attempts() -> int:
            ((count,),) = ask(connection, "SELECT last_value FROM public.attempts")
            return int(count)

        try:
            yield attempts
        finally:
            do(connection, "DROP FUNCTION public.give_up CASCADE")
            do(connection, "DROP SEQUENCE public.attempts")


WRITES = {
    "batch": (ZOOM, "all", "staging.zoom_demo__entry_points"),
    "merge": (ZOOM, "all", "zoom.flow_versions"),
    "bookkeeping": (ZOOM, "all", "etl.streams"),
    "first load": (CHANNELS, "empty", "twilio.channels"),
    "first load's bookkeeping": (CHANNELS, "empty", "etl.runs"),
}


@pytest.mark.fault(45)
@pytest.mark.parametrize("state", ["40P01", "40001"])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("times", [1, 3])
def test_a_transaction_that_postgres_aborted_is_repeated(
    harness: Harness, engine: Engine, write: str, state: str, times: int, seed: int
) -> None:
    name, start, table = WRITES[write]
    if table.startswith("staging."):  # a run makes the table
        harness.restart(harness.scenario((name,), "same", Random(seed)))
    scenario = harness.scenario((name,), start, Random(seed))  # type: ignore[arg-type]
    with failing_inserts(harness, table, state, times) as attempts:
        run = run_here(harness, engine, name)
        assert attempts() >= times + 1
    assert (run.status, run.error) == ("complete", None)
    assert harness.verify(scenario) == {name: True}
    harness.restart(scenario)


@pytest.mark.parametrize("state", ["40P01", "40001"])
@pytest.mark.parametrize("write", ["batch", "merge", "first load"])
def test_it_is_repeated_three_times_at_most(
    harness: Harness, engine: Engine, write: str, state: str, seed: int
) -> None:
    name, start, table = WRITES[write]
    if table.startswith("staging."):
        harness.restart(harness.scenario((name,), "same", Random(seed)))
    scenario = harness.scenario((name,), start, Random(seed))  # type: ignore[arg-type]
    with failing_inserts(harness, table, state, times=10**6) as attempts:
        run = run_here(harness, engine, name)
        # A first load that is aborted may be tried again through the staging table.
        assert attempts() == 4 or (write == "first load" and attempts() <= 8)
    assert is_clear(run), run
    assert f"given up for another one ({state})" in str(run.error)
    assert harness.verify(scenario) == {name: False}
    harness.restart(scenario)


def wait_until_blocked(connection: psycopg.Connection[Any]) -> None:
    """Wait until a run on this database waits for a lock."""
    pause = threading.Event()
    query = """SELECT FROM pg_stat_activity WHERE datname = current_database()
               AND application_name = 'callflow' AND wait_event_type = 'Lock'"""
    for _ in range(3000):
        if ask(connection, query):
            return
        pause.wait(0.01)
    raise AssertionError("no run waited for a lock")


def failures_of(engine: Engine) -> list[str | None]:
    """Return a list that collects the SQLSTATEs of the statements that fail from now on."""
    failures: list[str | None] = []

    def note(context: Any) -> None:
        failures.append(getattr(context.original_exception, "sqlstate", None))

    event.listen(engine, "handle_error", note)
    return failures


@pytest.mark.fault(45)
def test_a_run_survives_a_real_deadlock(harness: Harness, engine: Engine, seed: int) -> None:
    """Another session locks rows first and then the lease's row; the run locks them in reverse."""
    scenario = harness.scenario((ZOOM,), "all", Random(seed))
    failures = failures_of(engine)
    runs: list[Run] = []
    worker = threading.Thread(target=lambda: runs.append(run_here(harness, engine, ZOOM)))
    with psycopg.connect(dsn(harness.url)) as other, harness.querying() as watching:
        other.execute("SET deadlock_timeout = '1h'")  # so the run finds the deadlock
        other.execute("SELECT FROM zoom.flows WHERE source = 'zoom_demo' FOR UPDATE")
        worker.start()
        wait_until_blocked(watching)
        other.execute("SELECT FROM etl.leases WHERE source = 'zoom_demo' FOR UPDATE")
        other.rollback()
    worker.join(timeout=60)
    assert failures == ["40P01"]
    assert (runs[0].status, runs[0].error) == ("complete", None)
    assert harness.verify(scenario) == {ZOOM: True}
    harness.restart(scenario)


@pytest.mark.fault(45)
@pytest.mark.parametrize("level", ["repeatable\\ read", "serializable"])
def test_the_server_s_default_isolation_fails_no_run(
    harness: Harness, level: str, seed: int
) -> None:
    """A run is READ COMMITTED even where another session changes a row under it."""
    scenario = harness.scenario((ZOOM,), "all", Random(seed))
    strict = make_url(harness.url).update_query_dict(
        {"options": f"-c default_transaction_isolation={level}"}
    )
    engine = connect(strict)
    failures = failures_of(engine)
    runs: list[Run] = []
    worker = threading.Thread(target=lambda: runs.append(run_here(harness, engine, ZOOM)))
    with psycopg.connect(dsn(harness.url)) as other, harness.querying() as watching:
        other.execute("UPDATE zoom.flows SET status = status WHERE source = 'zoom_demo'")
        worker.start()
        wait_until_blocked(watching)
        other.commit()
        worker.join(timeout=60)
    engine.dispose()
    assert failures == []
    assert (runs[0].status, runs[0].error) == ("complete", None)
    assert harness.verify(scenario) == {ZOOM: True}
    harness.restart(scenario)


# -- lost COMMITs, and lost answers to them ------------------------------------------------------


class Proxy:
    """Cuts the connection of client and server at the `nth` transaction with `what`.

    `lost` is "answer" if the COMMIT still reaches the server, "commit" if it does not.
    """

    def __init__(self, url: str, what: bytes, lost: str, nth: int = 1) -> None:
        self._server = make_url(url)
        self._what = what
        self._lost = lost
        self._nth = nth
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = self._server.set(port=port).render_as_string(hide_password=False)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                assert self._server.host is not None and self._server.port is not None
                server = socket.create_connection((self._server.host, self._server.port))
                thread = threading.Thread(target=self._serve, args=(client, server))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=self._pass_back, args=(server, client))
        back.start()
        inside = False
        with suppress(OSError):
            while chunk := client.recv(1 << 16):
                inside = inside or self._what in chunk
                if inside and b"COMMIT\x00" in chunk:
                    inside = False
                    self._nth -= 1
                    if self._nth == 0:
                        self._cut(client, server, chunk)
                        break
                server.sendall(chunk)
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        back.join()
        client.close()
        server.close()

    def _cut(self, client: socket.socket, server: socket.socket, chunk: bytes) -> None:
        self.cuts += 1
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)  # so what comes back cannot be passed on
        if self._lost == "answer":
            server.sendall(chunk)
            server.shutdown(socket.SHUT_WR)
            threading.Event().wait(0.1)  # the thread that passes back reads to the end

    @staticmethod
    def _pass_back(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while chunk := server.recv(1 << 16):
                with suppress(OSError):
                    client.sendall(chunk)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=30)
            assert not thread.is_alive()


def run_through(harness: Harness, proxy: Proxy, name: str) -> Run:
    with harness.fork(replace(harness.spec([name]), url=proxy.url)) as child:
        child.finish()
        return child.runs[name]


MERGES = {"merge": (ZOOM, "all"), "first load": (CHANNELS, "empty")}


@pytest.mark.fault(47)
@pytest.mark.parametrize("kind", MERGES)
def test_a_merge_whose_commit_was_not_answered_is_read_back(
    harness: Harness, kind: str, seed: int
) -> None:
    name, start = MERGES[kind]
    scenario = harness.scenario((name,), start, Random(seed))  # type: ignore[arg-type]
    with Proxy(harness.url, b"INSERT INTO etl.runs", "answer") as proxy:
        run = run_through(harness, proxy, name)
    assert proxy.cuts == 1
    assert (run.status, run.error) == ("complete", None)
    with harness.querying() as connection:
        query = "SELECT status, error FROM etl.runs WHERE run_id = %s"
        assert ask(connection, query, run.run_id) == [("complete", None)]
        query = """SELECT last_run_id, last_status, error FROM etl.streams
                   WHERE source = %s AND stream = %s"""
        assert ask(connection, query, *name.split(".")) == [(run.run_id, "complete", None)]
    assert harness.verify(scenario) == {name: True}
    harness.restart(scenario)


@pytest.mark.fault(47)
@pytest.mark.parametrize("kind", MERGES)
def test_a_merge_whose_commit_was_lost_has_not_happened(
    harness: Harness, kind: str, seed: int
) -> None:
    name, start = MERGES[kind]
    scenario = harness.scenario((name,), start, Random(seed))  # type: ignore[arg-type]
    with Proxy(harness.url, b"INSERT INTO etl.runs", "commit") as proxy:
        run = run_through(harness, proxy, name)
    assert proxy.cuts == 1
    assert is_clear(run), run
    assert harness.verify(scenario) == {name: False}
    harness.restart(scenario)


@pytest.mark.parametrize("lost", ["answer", "commit"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_losing_a_commit_before_the_merge_only_ends_the_run(
    harness: Harness, lost: str, nth: int, seed: int
) -> None:
    """These transactions renew the lease: staging made, a batch staged, rows settled."""
    scenario = harness.scenario((ZOOM,), "all", Random(seed))
    with Proxy(harness.url, b"UPDATE etl.leases SET until=(clock", lost, nth) as proxy:
        run = run_through(harness, proxy, ZOOM)
    assert proxy.cuts == 1
    assert is_clear(run), run
    assert harness.verify(scenario) == {ZOOM: False}
    harness.restart(scenario)


@pytest.mark.parametrize("lost", ["answer", "commit"])
def test_a_lease_whose_commit_is_lost_does_not_keep_the_next_run_out(
    harness: Harness, lost: str, seed: int
) -> None:
    scenario = harness.scenario((ZOOM,), "all", Random(seed))
    with Proxy(harness.url, b"INSERT INTO etl.leases", lost) as proxy:
        run = run_through(harness, proxy, ZOOM)
    assert proxy.cuts == 1
    assert is_clear(run), run
    assert harness.verify(scenario) == {ZOOM: False}
    harness.restart(scenario)

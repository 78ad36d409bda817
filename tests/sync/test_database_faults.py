"""Connections that break at every statement, deadlocks, and COMMITs whose answer is lost."""

import re
import socket
import threading
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
from tests.sync.twins import World, do
from tests.sync.victims import Nursery, Point, Trap, stream_of

pytestmark = pytest.mark.slow

ZOOM = "zoom_demo.flows"
CHANNELS = "twilio_demo.channels"


@pytest.fixture
def world(nursed: tuple[str, Nursery]) -> Iterator[World]:
    with kills.a_world(*nursed) as world:
        world.wipe()
        yield world


@pytest.fixture
def engine(world: World) -> Iterator[Engine]:
    engine = connect(world.url)
    yield engine
    engine.dispose()


def run_here(
    world: World, engine: Engine, name: str, on_page: Callable[[], None] = lambda: None
) -> Run:
    """A run in this process, on an engine of the test's; its holder is one that has ended since."""
    ((source, stream),) = world.order([name]).units
    host, _, place = process_name().rsplit(":", 2)
    return run_stream(
        Job(
            engine,
            stream_of(source, stream),
            source,
            f"{host}:{2**22 + 1}:{place}",  # above the kernel's highest process id
            on_page=lambda records, total: on_page(),
        )
    )


def is_clear(run: Run) -> bool:
    """Whether a failed run says what happened, where, and what to do."""
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
        event.listen(engine, "begin", self._begins)
        self.trap = Trap(engine, point, self._break)

    def _begins(self, connection: Any) -> None:
        pid = connection.connection.driver_connection.info.backend_pid
        self._pids.pop(pid, None)
        self._pids[pid] = None  # the last one is the one at work

    def _break(self) -> None:
        self.broke = True
        with psycopg.connect(dsn(self._url), autocommit=True) as another:
            another.execute("SELECT pg_terminate_backend(%s, 5000)", [[*self._pids][-1]])


@pytest.mark.fault(46)
@pytest.mark.parametrize("at", ["before", "commit", "committed"])
@pytest.mark.parametrize(("name", "start"), [(ZOOM, "all"), (CHANNELS, "empty")])
def test_a_connection_that_breaks_at_the_nth_statement_for_every_n(
    world: World, name: str, start: Any, at: Any, seed: int
) -> None:
    random = Random(seed)
    scene = world.scene((name,), start, random)
    states = []
    for nth in range(1, 200):
        engine = connect(world.url)
        breaker = Breaker(world.url, engine, Point(at, nth=nth))
        run = run_here(world, engine, name)
        engine.dispose()
        happened = world.judge(scene)[name]
        assert happened == (run.status == "complete"), (nth, run)
        assert happened or is_clear(run), (nth, run.status, run.error)
        states.append(happened)
        if happened:
            world.restart(scene)
            if not breaker.broke:
                break
            scene = world.scene((name,), start, random)
    else:
        raise AssertionError("no run passed")
    assert len(states) > (20 if at == "before" else 5)
    assert states.count(False) >= 3
    assert states == sorted(states), "a run that came further was done less"


@pytest.mark.fault(46)
def test_a_connection_that_breaks_in_the_middle_of_a_copy(
    world: World, engine: Engine, seed: int
) -> None:
    scene = world.scene((CHANNELS,), "empty", Random(seed))
    breaker = Breaker(world.url, engine, Point("page", nth=15))
    run = run_here(world, engine, CHANNELS, breaker.trap.page)
    assert breaker.broke
    assert is_clear(run), run
    assert world.judge(scene) == {CHANNELS: False}
    world.restart(scene)


# -- deadlocks and serialization failures --------------------------------------------------------


@contextmanager
def giving_up(world: World, table: str, state: str, times: int) -> Iterator[Callable[[], int]]:
    """The first `times` statements that insert into `table` fail with `state`; the attempts."""
    with world.asking() as connection:
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
def test_a_transaction_that_postgres_gave_up_is_repeated(
    world: World, engine: Engine, write: str, state: str, times: int, seed: int
) -> None:
    name, start, table = WRITES[write]
    if table.startswith("staging."):  # a run makes the table
        world.restart(world.scene((name,), "same", Random(seed)))
    scene = world.scene((name,), start, Random(seed))  # type: ignore[arg-type]
    with giving_up(world, table, state, times) as attempts:
        run = run_here(world, engine, name)
        assert attempts() >= times + 1
    assert (run.status, run.error) == ("complete", None)
    assert world.judge(scene) == {name: True}
    world.restart(scene)


@pytest.mark.parametrize("state", ["40P01", "40001"])
@pytest.mark.parametrize("write", ["batch", "merge", "first load"])
def test_it_is_repeated_three_times_at_most(
    world: World, engine: Engine, write: str, state: str, seed: int
) -> None:
    name, start, table = WRITES[write]
    if table.startswith("staging."):
        world.restart(world.scene((name,), "same", Random(seed)))
    scene = world.scene((name,), start, Random(seed))  # type: ignore[arg-type]
    with giving_up(world, table, state, times=10**6) as attempts:
        run = run_here(world, engine, name)
        # A first load that is given up may be tried again by way of the staging table.
        assert attempts() == 4 or (write == "first load" and attempts() <= 8)
    assert is_clear(run), run
    assert f"given up for another one ({state})" in str(run.error)
    assert world.judge(scene) == {name: False}
    world.restart(scene)


def wait_until_blocked(connection: psycopg.Connection[Any]) -> None:
    """Until a run of this database waits for a lock."""
    pause = threading.Event()
    query = """SELECT FROM pg_stat_activity WHERE datname = current_database()
               AND application_name = 'callflow' AND wait_event_type = 'Lock'"""
    for _ in range(3000):
        if ask(connection, query):
            return
        pause.wait(0.01)
    raise AssertionError("nobody waited")


def failures_of(engine: Engine) -> list[str | None]:
    """The SQLSTATEs of the statements that fail from now on."""
    failures: list[str | None] = []

    def note(context: Any) -> None:
        failures.append(getattr(context.original_exception, "sqlstate", None))

    event.listen(engine, "handle_error", note)
    return failures


@pytest.mark.fault(45)
def test_a_real_deadlock_is_got_over(world: World, engine: Engine, seed: int) -> None:
    """Another session locks rows first, and the lease's row then; the run does it the other way."""
    scene = world.scene((ZOOM,), "all", Random(seed))
    failures = failures_of(engine)
    runs: list[Run] = []
    worker = threading.Thread(target=lambda: runs.append(run_here(world, engine, ZOOM)))
    with psycopg.connect(dsn(world.url)) as other, world.asking() as watching:
        other.execute("SET deadlock_timeout = '1h'")  # it is the run that finds the deadlock
        other.execute("SELECT FROM zoom.flows WHERE source = 'zoom_demo' FOR UPDATE")
        worker.start()
        wait_until_blocked(watching)
        other.execute("SELECT FROM etl.leases WHERE source = 'zoom_demo' FOR UPDATE")
        other.rollback()
    worker.join(timeout=60)
    assert failures == ["40P01"]
    assert (runs[0].status, runs[0].error) == ("complete", None)
    assert world.judge(scene) == {ZOOM: True}
    world.restart(scene)


@pytest.mark.fault(45)
@pytest.mark.parametrize("level", ["repeatable\\ read", "serializable"])
def test_the_server_s_default_isolation_fails_no_run(world: World, level: str, seed: int) -> None:
    """A run is READ COMMITTED even where another session changes a row under it."""
    scene = world.scene((ZOOM,), "all", Random(seed))
    strict = make_url(world.url).update_query_dict(
        {"options": f"-c default_transaction_isolation={level}"}
    )
    engine = connect(strict)
    failures = failures_of(engine)
    runs: list[Run] = []
    worker = threading.Thread(target=lambda: runs.append(run_here(world, engine, ZOOM)))
    with psycopg.connect(dsn(world.url)) as other, world.asking() as watching:
        other.execute("UPDATE zoom.flows SET status = status WHERE source = 'zoom_demo'")
        worker.start()
        wait_until_blocked(watching)
        other.commit()
        worker.join(timeout=60)
    engine.dispose()
    assert failures == []
    assert (runs[0].status, runs[0].error) == ("complete", None)
    assert world.judge(scene) == {ZOOM: True}
    world.restart(scene)


# -- COMMITs whose answer is lost ----------------------------------------------------------------


class Proxy:
    """Between client and server: at the `nth` transaction with `what` it cuts the connection.

    `lost` is "answer" when its COMMIT still reaches the server, "commit" when it does not.
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


def run_through(world: World, proxy: Proxy, name: str) -> Run:
    with world.bear_order(replace(world.order([name]), url=proxy.url)) as child:
        child.finish()
        return child.runs[name]


MERGES = {"merge": (ZOOM, "all"), "first load": (CHANNELS, "empty")}


@pytest.mark.fault(47)
@pytest.mark.parametrize("kind", MERGES)
def test_a_merge_whose_commit_was_not_answered_is_read_back(
    world: World, kind: str, seed: int
) -> None:
    name, start = MERGES[kind]
    scene = world.scene((name,), start, Random(seed))  # type: ignore[arg-type]
    with Proxy(world.url, b"INSERT INTO etl.runs", "answer") as proxy:
        run = run_through(world, proxy, name)
    assert proxy.cuts == 1
    assert (run.status, run.error) == ("complete", None)
    with world.asking() as connection:
        query = "SELECT status, error FROM etl.runs WHERE run_id = %s"
        assert ask(connection, query, run.run_id) == [("complete", None)]
        query = """SELECT last_run_id, last_status, error FROM etl.streams
                   WHERE source = %s AND stream = %s"""
        assert ask(connection, query, *name.split(".")) == [(run.run_id, "complete", None)]
    assert world.judge(scene) == {name: True}
    world.restart(scene)


@pytest.mark.fault(47)
@pytest.mark.parametrize("kind", MERGES)
def test_a_merge_whose_commit_was_lost_has_not_happened(world: World, kind: str, seed: int) -> None:
    name, start = MERGES[kind]
    scene = world.scene((name,), start, Random(seed))  # type: ignore[arg-type]
    with Proxy(world.url, b"INSERT INTO etl.runs", "commit") as proxy:
        run = run_through(world, proxy, name)
    assert proxy.cuts == 1
    assert is_clear(run), run
    assert world.judge(scene) == {name: False}
    world.restart(scene)


@pytest.mark.parametrize("lost", ["answer", "commit"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_smaller_commit_that_is_lost_only_ends_the_run(
    world: World, lost: str, nth: int, seed: int
) -> None:
    """Of the transactions that renew the lease: staging made, a batch staged, rows settled."""
    scene = world.scene((ZOOM,), "all", Random(seed))
    with Proxy(world.url, b"UPDATE etl.leases SET until=(clock", lost, nth) as proxy:
        run = run_through(world, proxy, ZOOM)
    assert proxy.cuts == 1
    assert is_clear(run), run
    assert world.judge(scene) == {ZOOM: False}
    world.restart(scene)


@pytest.mark.parametrize("lost", ["answer", "commit"])
def test_a_lease_whose_commit_is_lost_does_not_keep_the_next_run_out(
    world: World, lost: str, seed: int
) -> None:
    scene = world.scene((ZOOM,), "all", Random(seed))
    with Proxy(world.url, b"INSERT INTO etl.leases", lost) as proxy:
        run = run_through(world, proxy, ZOOM)
    assert proxy.cuts == 1
    assert is_clear(run), run
    assert world.judge(scene) == {ZOOM: False}
    world.restart(scene)

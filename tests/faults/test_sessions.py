"""Every session is ours: whatever server, database, role, pooler and environment say."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, event, make_url, text
from sqlalchemy.exc import DBAPIError

from etl.config import load as config
from etl.config.settings import redactor
from etl.errors import WarehouseError
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox
from etl.status import queries
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import select
from etl.warehouse import migrate
from etl.warehouse.connect import connect
from etl.warehouse.session import SESSION
from etl.warehouse.translate import translate_errors
from tests.daemon.processes import Process, free_port, until
from tests.faults.conftest import commands, name_in, write_config
from tests.postgres import directory, dsn

pytestmark = pytest.mark.slow

HOSTILE = {
    "search_path": '"$user", public, pg_catalog',
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Tokyo",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "extra_float_digits": "-5",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "exit_on_error": "on",
    "client_min_messages": "debug5",
    "statement_timeout": "5s",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "enable_hashjoin": "off",
}

ENVIRONMENT = {
    "PGOPTIONS": "-c search_path=public -c default_transaction_isolation=serializable",
    "PGCLIENTENCODING": "LATIN1",
    "PGDATESTYLE": "German",
    "PGTZ": "America/New_York",
    "PGGEQO": "off",
    "PGAPPNAME": "other",
    "PGTARGETSESSIONATTRS": "standby",
}


def set_for(url: str, admin: str, settings: dict[str, str]) -> None:
    """Set them for the role of `url` in its database; a list of names is one."""
    role, database = name_in(url)
    with psycopg.connect(dsn(admin), autocommit=True) as connection:
        for name, value in settings.items():
            said = sql.SQL(value) if name == "search_path" else sql.Literal(value)
            connection.execute(
                sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(
                    sql.Identifier(role),
                    sql.Identifier(database),
                    sql.SQL(name),
                    said,
                )
            )


def plant(admin: str, *schemas: str) -> None:
    script = (Path(__file__).parent / "planted.sql").read_text(encoding="utf-8")
    with psycopg.connect(dsn(admin)) as connection:
        for schema in schemas:
            connection.execute(script.replace("{schema}", schema).encode())


def ran(admin: str, *schemas: str) -> int:
    """Return how many planted functions ran."""
    with psycopg.connect(dsn(admin), options="-c search_path=pg_catalog") as connection:
        found = 0
        for schema in schemas:
            query = sql.SQL("SELECT last_value, is_called FROM {}.ran")
            last, called = connection.execute(query.format(sql.Identifier(schema))).fetchall()[0]
            found += last if called else 0
        return found


@pytest.fixture
def hostile(loaded: tuple[str, str]) -> tuple[str, str, tuple[str, ...]]:
    """Return a database with planted functions, which the role's settings put first."""
    url, admin = loaded
    schemas = (name_in(url)[0], "public")
    plant(admin, *schemas)
    set_for(url, admin, HOSTILE)
    return url, admin, schemas


def test_no_planted_function_runs_in_any_command(
    hostile: tuple[str, str, tuple[str, ...]], providers: Sandbox, tmp_path: Path
) -> None:
    url, admin, schemas = hostile
    path = write_config(tmp_path / "callflow.toml", url, providers)
    role = name_in(url)[0]
    done = commands(
        path,
        ["check"],
        ["migrate"],
        ["check"],
        ["sync", "--json"],
        ["status", "--json"],
        ["sql", "--csv", "SELECT count(*), max(last_modified_time) FROM zoom.flows"],
        ["sql", "--csv", "SELECT current_setting('application_name')"],
        ["grant", role],
        ["sync", "--full"],
        **ENVIRONMENT,
    )
    assert done.codes == [0] * 9, done
    assert "\ncallflow\n" in done.stdout
    assert "30,20" in done.stdout
    assert "+00" in done.stdout
    port = free_port()
    path.write_text(
        f'{path.read_text()}\n[schedule]\nevery = "1s"\n[daemon]\nhttp = "127.0.0.1:{port}"\n'
    )
    set_for(url, admin, {"idle_session_timeout": "200ms"})
    daemon = Process(path, port)
    try:
        daemon.ran(8)
        assert daemon.status()["database"] is None
        daemon.kill(signal.SIGTERM)
        assert daemon.ended() == 0
    finally:
        daemon.close()
    assert daemon.runs() == daemon.runs(status="complete")
    assert not daemon.events("no warehouse")
    assert ran(admin, *schemas) == 0
    # They would have run: in a session that is not pinned they do.
    calls = ("set_config('a.b'::varchar, 'c'::varchar, true)", "now()", "count(*)", "1 = 2")
    for call in calls:
        with (
            pytest.raises(psycopg.errors.RaiseException, match="planted"),
            psycopg.connect(dsn(url), autocommit=True) as connection,
        ):
            connection.execute(f"SELECT {call}".encode())
    assert ran(admin, *schemas) == len(calls)


@pytest.mark.every_postgres
def test_every_setting_holds_in_every_transaction(
    hostile: tuple[str, str, tuple[str, ...]],
) -> None:
    url, _, _ = hostile
    engine = connect(url)
    settings = {
        **SESSION,
        "transaction_isolation": "read committed",
        "transaction_deferrable": "off",
        "application_name": "callflow",
    }
    query = text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)")
    try:
        with engine.connect() as connection:
            for _ in range(2):
                found = connection.execute(query, {"names": list(settings)}).all()
                assert dict(found) == settings
                connection.rollback()
    finally:
        engine.dispose()


# -- behind a pooler ------------------------------------------------------------------------------


@contextmanager
def pgbouncer(server: str, role: str, password: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Run PgBouncer in transaction mode; yield its URL, and a function that restarts it."""
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if program is None:
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    to, port = make_url(server), free_port()
    with directory() as place:
        (place / "users").write_text(f'"{role}" "{password}"\n')
        (place / "ini").write_text(f"""
            [databases]
            * = host={to.host} port={to.port}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {place}/users
            pool_mode = transaction
            default_pool_size = 4
        """)
        user = ["-u", "nobody"] if os.geteuid() == 0 else []

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen([program, "-q", *user, str(place / "ini")])
            until(lambda: answers(port), "PgBouncer listens")
            return process

        def restart() -> None:
            running.append(start_after(running[-1]))

        def start_after(previous: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
            previous.kill()
            previous.wait(30)
            return start()

        running = [start()]
        try:
            yield to.set(port=port).render_as_string(hide_password=False), restart
        finally:
            running[-1].kill()
            running[-1].wait(30)


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.mark.fault(54)
def test_pgbouncer_in_transaction_mode(
    hostile: tuple[str, str, tuple[str, ...]], providers: Sandbox, tmp_path: Path
) -> None:
    url, admin, schemas = hostile
    role = name_in(url)[0]
    password = make_url(url).password
    with pgbouncer(url, role, str(password)) as (pooled, restart):
        # What another client of the pool leaves behind in its sessions.
        with psycopg.connect(dsn(pooled), autocommit=True) as other:
            other.execute("SET idle_in_transaction_session_timeout = 0")
            other.execute("SET search_path = public")
        path = write_config(tmp_path / "callflow.toml", pooled, providers)
        ignored = {name: value for name, value in ENVIRONMENT.items() if name != "PGGEQO"}
        lines = [["check"], ["migrate"], ["sync"], ["check"], ["status"], ["grant", role]]
        done = commands(path, *lines, **ignored)
        assert done.codes == [0] * 6, done
        assert ran(admin, *schemas) == 0
        # And what ours leave behind: nothing.
        with psycopg.connect(dsn(pooled), autocommit=True) as other:
            assert "pg_temp" not in str(other.execute("SHOW search_path").fetchone())
        engine = connect(pooled)
        try:
            for _ in range(3):
                with engine.connect() as connection, connection.begin():
                    connection.exec_driver_sql("SELECT FROM etl.streams")
                restart()
        finally:
            engine.dispose()


# -- connections that the server ends while they idle ---------------------------------------------


@pytest.fixture
def slow(providers: Sandbox) -> Iterator[Callable[[Fault], None]]:
    """Yield a function that gives every provider the same fault."""
    emulators = (providers.zoom, providers.twilio, providers.alibaba)

    def give(fault: Fault) -> None:
        for each in emulators:
            each.faults.append(replace(fault))

    yield give
    for each in emulators:
        each.faults.clear()


def end_idle(url: str, admin: str) -> int:
    """Make the server end every session of the role that is between two transactions."""
    with psycopg.connect(dsn(admin), autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE usename = %s AND state = 'idle'",
            [name_in(url)[0]],
        )
        return len(ended.fetchall())


def end_new(engine: Engine, admin: str, count: int) -> list[int]:
    """Have the server end the next `count` new sessions at once; return the list of new ones."""
    made: list[int] = []

    def end(raw: psycopg.Connection, _: object) -> None:
        made.append(raw.info.backend_pid)
        if len(made) <= count:
            with psycopg.connect(dsn(admin), autocommit=True) as another:
                another.execute("SELECT pg_terminate_backend(%s, 5000)", [made[-1]])

    event.listen(engine, "connect", end)
    return made


@pytest.mark.parametrize(("ended", "works"), [(2, True), (3, False)])
def test_a_new_session_that_ends_before_its_first_use_is_replaced_twice(
    loaded: tuple[str, str], ended: int, works: bool
) -> None:
    url, admin = loaded
    engine = connect(url)
    made = end_new(engine, admin, ended)
    try:
        with engine.connect() as connection:
            if works:
                with connection.begin():
                    assert connection.scalar(text("SELECT 1")) == 1
            else:
                with pytest.raises(DBAPIError, match="terminat"):
                    connection.begin()
        assert len(made) == ended + works
    finally:
        engine.dispose()


@pytest.mark.parametrize("pooled", [True, False])
def test_a_short_read_works_though_its_session_has_ended(
    loaded: tuple[str, str], providers: Sandbox, tmp_path: Path, pooled: bool
) -> None:
    """In the pool, or, while the machine is very busy, before its first use."""
    url, admin = loaded
    migrate.upgrade(url)
    settings = config.load(write_config(tmp_path / "callflow.toml", url, providers), {})
    engine = connect(url)
    try:
        made = end_new(engine, admin, 0 if pooled else 1)
        for _ in range(2):
            assert queries.status(engine, settings, redactor(settings)).streams
            assert not pooled or end_idle(url, admin) == 1
        assert len(made) == 2
    finally:
        engine.dispose()


@pytest.mark.every_postgres
def test_a_page_may_take_longer_than_a_session_may_idle(
    loaded: tuple[str, str],
    providers: Sandbox,
    slow: Callable[[Fault], None],
    tmp_path: Path,
) -> None:
    url, admin = loaded
    set_for(url, admin, {"idle_session_timeout": "200ms"})
    slow(Fault(delay=0.5, times=3))
    path = write_config(tmp_path / "callflow.toml", url, providers)
    done = commands(path, ["migrate"], ["sync"], ["sync", "--full"], ["status"])
    assert done.codes == [0] * 4, done


@pytest.mark.every_postgres
def test_sessions_that_end_between_pages_and_between_runs_fail_no_run(
    loaded: tuple[str, str],
    providers: Sandbox,
    slow: Callable[[Fault], None],
    tmp_path: Path,
) -> None:
    url, admin = loaded
    migrate.upgrade(url)
    settings = config.load(write_config(tmp_path / "callflow.toml", url, providers), {})
    ended: list[int] = []
    slow(Fault(nth=1, before_request=lambda *_: ended.append(end_idle(url, admin))))
    engine = connect(url)
    try:
        for _ in range(3):
            for source, stream in select(settings, []):
                run = run_stream(Job(engine, stream, source, "test:1:unknown"))
                assert (run.status, run.error) == ("complete", None)
            assert end_idle(url, admin) > 0
    finally:
        engine.dispose()
    assert ended == [1, 1, 1]


def test_a_transaction_whose_statements_were_sent_is_not_repeated(loaded: tuple[str, str]) -> None:
    url, admin = loaded
    engine = connect(url)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
        assert end_idle(url, admin) == 1
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            connection.rollback()
            assert end_idle(url, admin) == 1
            connection.begin()
            connection.exec_driver_sql("CREATE TEMPORARY TABLE kept ()")
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            with psycopg.connect(dsn(admin), autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            with pytest.raises(DBAPIError):
                connection.exec_driver_sql("SELECT FROM kept")
    finally:
        engine.dispose()


def test_a_server_that_is_gone_is_an_error_at_once(loaded: tuple[str, str]) -> None:
    url = make_url(loaded[0])
    engine = connect(url.set(port=free_port()))
    with (
        pytest.raises(WarehouseError, match="check that the server runs"),
        translate_errors("here"),
        engine.connect(),
    ):
        pass
    engine.dispose()

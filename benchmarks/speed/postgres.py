"""The servers that are measured, and what one has done so far.

Both run with the settings that they come with, except that autovacuum is off: it would write in the
middle of a run, and what it does belongs to the runs before.
"""

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from etl.warehouse import embedded
from etl.warehouse.embedded.process import free_ports

AUTOVACUUM = {"autovacuum": "off"}
_TICK = os.sysconf("SC_CLK_TCK")

WRITTEN = """
SELECT s.relid, s.n_tup_ins + s.n_tup_upd + s.n_tup_del
FROM pg_stat_user_tables AS s JOIN pg_class AS c ON c.oid = s.relid
WHERE c.relpersistence = 'p' AND s.schemaname <> 'etl'
"""
"""Row versions written so far, by table; not the staging tables, not the record of the runs."""

ON_DISK = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p'
    AND n.nspname NOT IN ('etl', 'pg_catalog', 'information_schema')
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `url` is that of its owner, with {} for the name of the database."""

    name: str
    url: str
    pid: int

    def database(self, name: str) -> str:
        return self.url.format(name)

    def create(self, name: str, template: str = "template1") -> str:
        """Make a new database; return its URL."""
        with psycopg.connect(self.database("postgres"), autocommit=True) as connection:
            which = sql.Identifier(name), sql.Identifier(template)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(which[0]))
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*which))
        return self.database(name)

    def drop(self, name: str) -> None:
        with psycopg.connect(self.database("postgres"), autocommit=True) as connection:
            which = sql.Identifier(name)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(which))


@dataclass(frozen=True, slots=True)
class Done:
    """What a server has done so far: CPU seconds, bytes of WAL, rows written, bytes on disk."""

    cpu: float | None
    wal: int
    written: dict[int, int]
    temporary: int
    disk: int


def done(server: Server, connection: psycopg.Connection[Any]) -> Done:
    """Wait for the other sessions of the database to end, and return what was done."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    until = time.monotonic() + 10
    while one(connection, others) > 1 and time.monotonic() < until:
        time.sleep(0.02)
    return Done(
        cpu(server.pid),
        one(connection, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"),
        dict(connection.execute(WRITTEN).fetchall()),
        one(connection, "SELECT temp_bytes FROM pg_stat_database WHERE datname=current_database()"),
        one(connection, ON_DISK),
    )


def one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row and row[0]


def cpu(pid: int) -> float | None:
    """Return the CPU seconds of a process and its children, alive and ended; None without /proc."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
        ticks = 0
        for each in (str(pid), *children):
            fields = Path(f"/proc/{each}/stat").read_bytes().rpartition(b")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    except OSError:
        return None
    return ticks / _TICK


def programs() -> Path | None:
    """Return the programs that CALLFLOW_PG_BIN names, or the system's newest; None without any."""
    if named := os.environ.get("CALLFLOW_PG_BIN"):
        return Path(named)
    found = [each for each in embedded.SYSTEM_BINARIES.glob("*/bin") if (each / "initdb").exists()]
    return max(found, key=lambda each: float(each.parent.name), default=None)


@contextmanager
def of_the_system(bin_dir: Path, folder: Path) -> Iterator[Server]:
    """Run a new cluster with the programs in `bin_dir`; under root as CALLFLOW_PG_USER or postgres.

    Raises RuntimeError if initdb fails.
    """
    user: dict[str, Any] = {}
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        account = pwd.getpwnam(os.environ.get("CALLFLOW_PG_USER", "postgres"))
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    initdb = [str(bin_dir / "initdb"), f"--pgdata={folder}", "--username=bench", "--auth=trust"]
    locale = ["--encoding=UTF8", "--locale=C.UTF-8"]
    done = subprocess.run(
        [*initdb, *locale], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, **user,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{initdb[0]} failed: {done.stdout}")
    port = next(free_ports(None, folder))
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": ""}
        given = [f"-c{name}={value}" for name, value in {**options, **AUTOVACUUM}.items()]
        process = subprocess.Popen(
            [str(bin_dir / "postgres"), "-D", str(folder), *given],
            cwd="/", stdout=log, stderr=log, start_new_session=True, **user,
        )  # fmt: skip
    try:
        url = f"postgresql://bench:any@127.0.0.1:{port}/{{}}"  # dlt insists on a password
        yield Server(f"PostgreSQL {_version(url, process)}", url, process.pid)
    finally:
        process.send_signal(signal.SIGINT)  # the fast shutdown
        process.wait()


def _version(url: str, process: "subprocess.Popen[bytes]") -> str:
    """Return the version of a server, when it takes connections."""
    until = time.monotonic() + 60
    while True:
        try:
            with psycopg.connect(url.format("postgres")) as connection:
                return str(one(connection, "SHOW server_version")).split()[0]
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.1)


@contextmanager
def of_callflow(folder: Path) -> Iterator[Server]:
    """Run the embedded server, with a new cluster."""
    running = embedded.start(folder, env={}, settings=AUTOVACUUM)
    try:
        embedded.administer(running, ["GRANT pg_checkpoint TO callflow"])
        url = running.url("{}").replace("%7B%7D", "{}").replace("+psycopg", "")
        with psycopg.connect(url.format("postgres")) as connection:
            version = str(one(connection, "SHOW server_version")).split()[0]
        yield Server(f"embedded PostgreSQL {version}", url, running.pid)
    finally:
        embedded.stop(running.data_dir, env={})

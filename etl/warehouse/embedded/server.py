"""Start, attach to and stop the embedded Postgres.

It outlives the process that started it: `start` attaches to a server that runs, `stop` ends it.
"""

import contextlib
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from etl.warehouse.embedded import cluster, logins, process
from etl.warehouse.embedded.accounts import locate
from etl.warehouse.embedded.binaries import find_binaries, usable_binaries
from etl.warehouse.embedded.cluster import Launch
from etl.warehouse.embedded.place import (
    HOST,
    LOCK,
    PASSWORDS,
    SHARED,
    Deadline,
    Patience,
    absolute,
    keep_port,
    locked,
    make_home,
    os_errors,
    read_passwords,
    read_port,
)
from etl.warehouse.roles import ADMIN, DATABASE, OWNER, READER

PATIENCE = Patience()


@dataclass(frozen=True)
class Server:
    """A running embedded Postgres, and how to connect to it: as the owner, or to read only.

    `data_dir` is where the data really is: not the directory asked for when the account Postgres
    runs as cannot reach that. `notes` are sentences for the user (moved, other port, …).
    `password_file` has the format of PGPASSFILE and is valid for any port. The reader has no rights
    until they are granted to it, like any other role.
    """

    host: str
    port: int
    user: str
    dbname: str
    data_dir: Path
    bin_dir: Path
    major: int
    pid: int
    password_file: Path
    password: str = field(repr=False)
    reader_password: str = field(repr=False)
    notes: tuple[str, ...] = ()

    def url(self, dbname: str | None = None) -> str:
        """Return the SQLAlchemy URL of the owner, with the password: never print it."""
        return self._url(self.user, self.password, dbname)

    def reader_url(self, dbname: str | None = None) -> str:
        """Return the SQLAlchemy URL of the role that only reads, with the password."""
        return self._url(READER, self.reader_password, dbname)

    def _url(self, user: str, password: str, dbname: str | None) -> str:
        # Given here, so that PGSSLMODE, PGHOSTADDR, … of the environment do not apply.
        options = (
            f"hostaddr={self.host}&sslmode=disable&gssencmode=disable&channel_binding=prefer"
            "&target_session_attrs=any"
        )
        place = f"{self.host}:{self.port}/{quote(dbname or self.dbname, safe='')}"
        return f"postgresql+psycopg://{user}:{quote(password, safe='')}@{place}?{options}"

    def psql(self, user: str = OWNER, *more: str) -> str:
        """Return a shell line that opens psql; it names the password file, not the password.

        `user` is one of `PASSWORDS`, `more` are further arguments.
        """
        line = ["psql", "-h", self.host, "-p", str(self.port), "-U", user, "-d", self.dbname, *more]
        if (self.bin_dir / "psql").exists():
            line[0] = str(self.bin_dir / "psql")
        password_file = self.data_dir / PASSWORDS[user]
        return f"PGPASSFILE={shlex.quote(str(password_file))} {shlex.join(line)}"


def exists(data_dir: Path, env: Mapping[str, str] = os.environ, *, shared: Path = SHARED) -> bool:
    """Return whether a first start has made the data of `data_dir`; change nothing.

    Raises EmbeddedError when the directory cannot be read, or belongs to another user.
    """
    with os_errors(data_dir):
        home, _ = locate(data_dir, env, shared)
        return (home / "pgdata").is_dir()


def is_running(data_dir: Path, env: Mapping[str, str] = os.environ, shared: Path = SHARED) -> bool:
    """Return whether the server of `data_dir` runs and takes connections; change nothing.

    Raises EmbeddedError as `exists` does.
    """
    with os_errors(data_dir):
        home, _ = locate(data_dir, env, shared)
        found = process.running(home / "pgdata")
        return found is not None and found.ready


def start(
    data_dir: Path,
    *,
    bin_dir: Path | None = None,
    env: Mapping[str, str] = os.environ,
    settings: Mapping[str, str] = MappingProxyType({}),
    shared: Path = SHARED,
    patience: Patience = PATIENCE,
) -> Server:
    """Start the server of `data_dir`, or attach to it if it runs; safe to call at any time.

    The first start makes the cluster (about half a second). Several processes may call this at
    once: one starts the server, all attach. `settings` are server settings by name; they apply only
    if this call starts the server. `shared` takes what root's Postgres account cannot reach.
    `patience` covers the whole call; a server that is still recovering then continues to do so.

    Raises EmbeddedError: no programs; a directory that is not ours; a cluster of another major
    version (never touched); no free port; the server does not come up.
    """
    deadline = patience.deadline()
    bin_dir = (bin_dir or find_binaries(env)).absolute()
    with os_errors(data_dir):
        home, account = locate(data_dir, env, shared)
        bin_dir, major = usable_binaries(bin_dir, account, shared, deadline)
        make_home(home, passable=account.switch)
        launch = Launch(home, bin_dir, major, account, settings)
        with locked(home / LOCK, deadline) as lock:
            if not launch.cluster.is_dir():
                cluster.create(launch, lock)
            cluster.check_major(launch)
            server = _start_or_attach(launch, deadline)
    if home == absolute(data_dir):
        return server
    moved = (
        f"Postgres runs as {account.name} here, who cannot reach {absolute(data_dir)}; "
        f"the data is in {home}."
    )
    return replace(server, notes=(moved, *server.notes))


def _start_or_attach(launch: Launch, deadline: Deadline) -> Server:
    """Bring up the server of a cluster that exists, with its roles and its database."""
    home = launch.home
    notes: list[str] = []
    passwords, kept = read_passwords(home), read_port(home)
    if process.has_lost_programs(launch.cluster):
        process.shut_down(launch.cluster, launch.account, deadline)
        notes.append("The programs that Postgres ran with were removed, so it was started again.")
    postmaster = process.bring_up(launch, kept, deadline)
    if not logins.in_order(postmaster.port, passwords, deadline):
        postmaster, passwords, notes = logins.set_up(launch, postmaster, passwords, deadline)
        owner = passwords[OWNER]
        logins.open_session(home, postmaster.port, OWNER, owner, deadline).close()
    if postmaster.port != kept:
        keep_port(home, postmaster.port)
        if kept:
            notes.append(f"Port {kept} was taken; Postgres now listens on {postmaster.port}.")
    return Server(
        host=HOST,
        port=postmaster.port,
        user=OWNER,
        dbname=DATABASE,
        data_dir=home,
        bin_dir=launch.bin_dir,
        major=launch.major,
        pid=postmaster.pid,
        password_file=home / PASSWORDS[OWNER],
        password=passwords[OWNER],
        reader_password=passwords[READER],
        notes=tuple(notes),
    )


def prove_reader(server: Server, patience: Patience = PATIENCE) -> None:
    """Check that the reader of a running `server` is let in.

    Raises EmbeddedError if the reader changed its password, which callflow then does not have.
    """
    password, deadline = server.reader_password, patience.deadline()
    logins.open_session(server.data_dir, server.port, READER, password, deadline).close()


def administer(server: Server, statements: Sequence[str], patience: Patience = PATIENCE) -> None:
    """Run `statements` as the administrator of a running `server`, in its database: all or none.

    Raises EmbeddedError if the administrator is not let in, psycopg.Error for what Postgres says.
    """
    password, deadline = read_passwords(server.data_dir).get(ADMIN, ""), patience.deadline()
    connection = logins.open_session(server.data_dir, server.port, ADMIN, password, deadline)
    with contextlib.closing(connection), connection.transaction():
        for statement in statements:
            connection.execute(statement.encode())


def stop(
    data_dir: Path,
    *,
    env: Mapping[str, str] = os.environ,
    shared: Path = SHARED,
    patience: Patience = PATIENCE,
) -> bool:
    """End the server of `data_dir`; return whether one was running. The data stays.

    Open connections are closed and their transactions rolled back. Raises EmbeddedError when the
    directory is not ours, or when the server is still there after all patience.
    """
    deadline = patience.deadline()
    with os_errors(data_dir):
        home, account = locate(data_dir, env, shared)
        if not (home / "pgdata").is_dir():
            return False
        with locked(home / LOCK, deadline):
            return process.shut_down(home / "pgdata", account, deadline)

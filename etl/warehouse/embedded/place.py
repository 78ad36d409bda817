"""The data directory: where it is, its lock, and the files in it that callflow itself keeps.

One directory holds everything:

    callflow.lock  held during a start or a stop; its presence marks the directory as ours
    pgdata         the cluster; made under another name and renamed, so it is whole or absent
    pgpass         the owner's password, in the format of PGPASSFILE, mode 0600
    reader.pgpass  the password of the role that only reads, likewise
    admin.pgpass   the password of the superuser, which only a start needs (see `roles`)
    port           the port to use again at the next start
    start.log      what Postgres printed before it opened its own log (pgdata/log)
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from etl.errors import EmbeddedError
from etl.warehouse.roles import ADMIN, OWNER, READER

HOST = "127.0.0.1"
LOCK = "callflow.lock"
PASSWORDS = {ADMIN: "admin.pgpass", OWNER: "pgpass", READER: "reader.pgpass"}
"""The file of each role's password."""
SHARED = Path("/var/lib/callflow")
"""Where data and programs go that the account Postgres runs as could not reach otherwise."""
ELSEWHERE = (
    "check the rights and the free space there, or set another warehouse.data_dir"
    " (of the demo: --data-dir)"
)
"""The advice when something cannot be written."""


# ------------------------------------------------------------------ time


@dataclass(frozen=True)
class Deadline:
    """The moment, on `clock`, after which waiting is given up."""

    until: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]

    def pause(self, waiting_for: str, advice: str) -> None:
        """Wait for a moment; raise EmbeddedError once the deadline has passed."""
        if self.clock() >= self.until:
            raise EmbeddedError(f"gave up waiting for {waiting_for}", advice=advice)
        self.sleep(0.02)


@dataclass(frozen=True)
class Patience:
    """How long a call may wait, in seconds, and by which clock."""

    seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def deadline(self) -> Deadline:
        """Return the deadline of a call that starts now."""
        return Deadline(self.clock() + self.seconds, self.clock, self.sleep)


# ------------------------------------------------------------------ the directory


def default_data_dir() -> Path:
    """Return the platform's directory for user data, e.g. ~/.local/share/callflow.

    Raises EmbeddedError when there is no home directory to put it in.
    """
    advice = "set HOME, or warehouse.data_dir in callflow.toml"
    try:
        path = Path(platformdirs.user_data_dir("callflow", appauthor=False))
    except RuntimeError as error:  # newer platformdirs; older ones return a relative path
        raise EmbeddedError(f"no place for the data: {error}", advice=advice) from error
    if not path.is_absolute():
        raise EmbeddedError(f"no place for the data: {path} is not absolute", advice=advice)
    return path


def absolute(path: Path) -> Path:
    """Return `path` without ~, symbolic links and "..".

    Raises EmbeddedError for a path that Postgres's own files cannot hold.
    """
    try:
        found = path.expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # no home directory; a NUL in the path
        raise EmbeddedError(
            f"not a usable path: {error}",
            where=repr(str(path)),
            advice="set warehouse.data_dir to an absolute path",
        ) from error
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", str(found)):
        raise EmbeddedError(
            "the path of the data directory has characters that Postgres's own files cannot hold",
            where=repr(str(found)),
            advice="set another warehouse.data_dir",
        )
    return found


def digest(path: Path) -> str:
    """Return a hexadecimal digest of `path`, to give directories different names and ports."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def make_home(home: Path, *, passable: bool) -> None:
    """Make the data directory and its parents, as `make_directory` does.

    Raises EmbeddedError for a directory that holds something other than ours.
    """
    make_directory(home, passable=passable)
    entries = {entry.name for entry in home.iterdir()} - {"lost+found"}
    if entries and LOCK not in entries:
        raise EmbeddedError(
            "the directory is not empty and was not made by callflow; nothing was changed",
            where=str(home),
            advice="set warehouse.data_dir to an empty or a new directory",
        )


def make_directory(path: Path, *, passable: bool) -> None:
    """Make `path` and its parents for us alone; `passable` lets other accounts pass through.

    Modes of directories that exist are never changed.
    """
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
        if passable:
            directory.chmod(0o755)


@contextlib.contextmanager
def os_errors(home: Path) -> Iterator[None]:
    """Turn an OSError about the data directory into an EmbeddedError."""
    try:
        yield
    except OSError as error:
        raise EmbeddedError(
            f"{error.strerror or error}: {error.filename or ''}".rstrip(": "),
            where=str(home),
            advice=ELSEWHERE,
        ) from error


@contextlib.contextmanager
def locked(path: Path, deadline: Deadline) -> Iterator[int]:
    """Hold an exclusive lock on the file `path`, and yield its descriptor.

    The lock ends with the process, however the process ends.
    """
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if new:
            give_to_owner_of_parent(path)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                deadline.pause(
                    f"another callflow that holds {path}",
                    "see with `ps` what it is doing, and try again",
                )
        yield descriptor
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------ its files


def write(path: Path, text: str) -> None:
    """Replace a file atomically; only its owner can read it."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    give_to_owner_of_parent(draft)
    draft.replace(path)


def give_to_owner_of_parent(path: Path) -> None:
    """Keep usable for a user what root (sudo) writes into that user's data directory."""
    if os.geteuid() == 0:
        parent = path.parent.stat()
        os.chown(path, parent.st_uid, parent.st_gid, follow_symlinks=False)


def keep_password(home: Path, role: str, password: str) -> str:
    """Write a role's password to its file, and return it."""
    escaped = re.sub(r"([:\\])", r"\\\1", password)
    write(home / PASSWORDS[role], f"{HOST}:*:*:{role}:{escaped}\n")
    return password


def read_passwords(home: Path) -> dict[str, str]:
    """Return the password of each role that has one; earlier versions kept only the owner's.

    Raises EmbeddedError for a file that others can read.
    """
    found = {}
    for role, name in PASSWORDS.items():
        with contextlib.suppress(FileNotFoundError):
            # host:port:database:user:password, \\ before a colon or backslash of the password
            fields = _first_line(home / name).split(":", 4)
            if len(fields) == 5 and fields[4]:
                found[role] = re.sub(r"\\(.)", r"\1", fields[4])
    return found


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        # psql has the same rule, and ignores such a file.
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise EmbeddedError(
                "others than its owner may read this password file",
                where=str(path),
                advice=f"chmod 600 {shlex.quote(str(path))}; delete it before if others have been "
                "there, and callflow sets a new password",
            )
        return file.readline().strip()


def read_port(home: Path) -> int | None:
    """Return the port that the server had last; None when the file is missing or damaged."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        port = int((home / "port").read_text())
        return port if 1024 <= port <= 65535 else None
    return None


def keep_port(home: Path, port: int) -> None:
    """Remember the port for the next start."""
    write(home / "port", f"{port}\n")

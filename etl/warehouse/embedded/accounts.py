"""The account that Postgres runs as.

Postgres refuses to run as root. When root starts it, it runs as the owner of the data directory, or
else as `nobody` (CALLFLOW_PG_USER names another account). If that account cannot reach the data
directory or the programs, these go to /var/lib/callflow. When an ordinary user starts Postgres, it
runs as that user.
"""

import contextlib
import os
import pwd
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from etl.errors import EmbeddedError
from etl.warehouse.embedded.place import absolute, digest


@dataclass(frozen=True)
class Account:
    """The account that Postgres runs as. `switch` says that we are root and have to become it."""

    name: str
    uid: int
    gid: int
    switch: bool

    @property
    def user(self) -> int | None:
        """The user id that a child process changes to; None when it keeps ours."""
        return self.uid if self.switch else None

    @property
    def group(self) -> int | None:
        """The group id that a child process changes to; None when it keeps ours."""
        return self.gid if self.switch else None

    @property
    def extra_groups(self) -> list[int] | None:
        """The other groups of a child process; None when it keeps ours."""
        return [] if self.switch else None

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        input: str = "",  # noqa: A002  # as subprocess names it
        pass_fds: tuple[int, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` as this account, in a bare environment and in /, and wait for it.

        stdout of the result holds stderr too.
        """
        return subprocess.run(  # noqa: S603  # our own argv, no shell unless named
            argv,
            input=input,
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=bare_environment(),
            umask=0o077,
            user=self.user,
            group=self.group,
            extra_groups=self.extra_groups,
            pass_fds=pass_fds,
            check=False,
        )

    def reaches(self, directory: Path) -> bool:
        """Return whether this account can enter `directory`."""
        return self.run(["/bin/sh", "-c", 'cd -- "$1"', "sh", directory]).returncode == 0

    def append(self, path: Path, text: str) -> None:
        """Append to a file as this account: root must not write into another's directory."""
        done = self.run(["/bin/sh", "-c", 'cat >> "$1"', "sh", path], input=text)
        if done.returncode:
            raise EmbeddedError(f"cannot write: {done.stdout.strip()}", where=str(path))


def bare_environment() -> dict[str, str]:
    """Return an environment without our secrets and without PG… variables.

    LC_ALL is C because we read what Postgres prints.
    """
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def locate(data_dir: Path, env: Mapping[str, str], shared: Path) -> tuple[Path, Account]:
    """Return where the data of `data_dir` is or will be, and the account Postgres runs as there.

    That is below `shared` when the account cannot reach `data_dir`. Raises EmbeddedError when there
    is no account that could run Postgres there.
    """
    home = absolute(data_dir)
    if os.geteuid() != 0:
        return home, _own_account(home)
    moved = shared / f"data-{digest(home)[:8]}"
    # A cluster that exists stays where it is, even if the modes of its parents have changed since.
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


def _own_account(home: Path) -> Account:
    uid = os.geteuid()
    if not _is_known(uid):
        raise EmbeddedError(
            f"user id {uid} has no name on this machine, and initdb insists on one",
            advice="run as a user of /etc/passwd, or set warehouse.url to a server of yours",
        )
    with contextlib.suppress(OSError):  # absent or out of reach: a later step reports it better
        owner = (home / "pgdata").stat().st_uid
        if owner != uid:
            raise EmbeddedError(
                f"the data belongs to user id {owner}, not to you (user id {uid})",
                where=str(home),
                advice="run as that user (or as root when it was made by root), or set another "
                "warehouse.data_dir",
            )
    return Account(pwd.getpwuid(uid).pw_name, uid, os.getegid(), switch=False)


def _account_of(uid: int, home: Path) -> Account:
    if uid == 0 or not _is_known(uid):
        raise EmbeddedError(
            f"the data belongs to user id {uid}, and Postgres cannot run as that",
            where=str(home / "pgdata"),
            advice=f"chown -R nobody {shlex.quote(str(home / 'pgdata'))}",
        )
    entry = pwd.getpwuid(uid)
    return Account(entry.pw_name, uid, entry.pw_gid, switch=True)


def _unprivileged(env: Mapping[str, str]) -> Account:
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
    return Account(name, entry.pw_uid, entry.pw_gid, switch=True)


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True

"""The cluster: the files that initdb makes, and their major version."""

import os
import re
import secrets
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from etl.errors import EmbeddedError
from etl.warehouse.embedded.accounts import Account
from etl.warehouse.embedded.place import (
    ELSEWHERE,
    HOST,
    PASSWORDS,
    keep_password,
    read_passwords,
    read_port,
)
from etl.warehouse.roles import ADMIN, DATABASE, OWNER

# Written into a new cluster's postgresql.conf; ALTER SYSTEM overrides them.
DEFAULTS = {
    "shared_buffers": "64MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # One file per weekday, overwritten a week later.
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    # Records hold phone numbers and names, and errors quote them. The client gets its errors in
    # full; the log keeps only what concerns the server.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_checkpoints": "off",
}


@dataclass(frozen=True)
class Launch:
    """What starts a server: its data directory, the programs, the account and server settings."""

    home: Path
    bin_dir: Path
    major: int
    account: Account
    settings: Mapping[str, str]

    @property
    def cluster(self) -> Path:
        """The directory that Postgres calls its data directory."""
        return self.home / "pgdata"


def create(launch: Launch, lock: int) -> None:
    """Make the cluster under another name and rename it: after a kill there is none or all of it.

    initdb inherits `lock`, a descriptor, so that no other process makes a cluster beside it if we
    are killed. Raises EmbeddedError.
    """
    home, account = launch.home, launch.account
    staging = home / "new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    if account.switch:
        os.chown(staging, account.uid, account.gid)
    password = read_passwords(home).get(ADMIN) or keep_password(home, ADMIN, new_password())
    account.append(staging / "password", f"{password}\n")
    _initdb(launch, staging, lock)
    lines = "".join(f"{name} = '{value}'\n" for name, value in DEFAULTS.items())
    account.append(staging / "pgdata" / "postgresql.conf", f"\n# callflow\n{lines}")
    (staging / "pgdata").rename(launch.cluster)
    shutil.rmtree(staging, ignore_errors=True)


def _initdb(launch: Launch, staging: Path, lock: int) -> None:
    for locale in _locales(launch.major):
        done = launch.account.run(
            [
                launch.bin_dir / "initdb",
                f"--pgdata={staging / 'pgdata'}",
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
            return
    raise EmbeddedError(
        f"initdb failed: {cause(done.stdout)}", where=str(launch.home), advice=ELSEWHERE
    )


def _locales(major: int) -> list[list[str]]:
    """Return initdb's options for sorting by code point, the same on every system, best first.

    Wheels have no ICU; macOS has no C.UTF-8.
    """
    if major >= 17:
        return [["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]]
    return [["--locale=C.UTF-8"], ["--locale=C"]]


def check_major(launch: Launch) -> None:
    """Raise EmbeddedError if another major version of PostgreSQL made the cluster."""
    cluster = launch.cluster
    made_by = (cluster / "PG_VERSION").read_text().strip()
    if made_by == str(launch.major):
        return
    old, new = f"<bin of PostgreSQL {made_by}>", shlex.quote(str(launch.bin_dir))
    home, aside = shlex.quote(str(launch.home)), shlex.quote(f"{launch.home}.{made_by}")
    raise EmbeddedError(
        f"the data was made by PostgreSQL {made_by}, and the programs found are PostgreSQL "
        f"{launch.major}; nothing was changed",
        where=str(cluster),
        advice=f"""go on with the old version: CALLFLOW_PG_BIN={old}. Or move to the new one:
  CALLFLOW_PG_BIN={old} callflow status    # starts the old server
  PGPASSFILE={shlex.quote(str(launch.home / PASSWORDS[ADMIN]))} {new}/pg_dump -Fc -h {HOST} \
    -p {read_port(launch.home) or "<port>"} -U {ADMIN} -d {DATABASE} -f callflow.dump
  {old}/pg_ctl stop -D {shlex.quote(str(cluster))}    # as the owner of that directory
  mv {home} {aside}
  callflow status    # makes a new one, with empty tables that are in the dump's way
  export PGHOST={HOST} PGUSER={ADMIN} PGPASSFILE={home}/{PASSWORDS[ADMIN]}
  export PGPORT=$(cat {home}/port)
  {new}/dropdb {DATABASE} && {new}/createdb -O {OWNER} {DATABASE}
  {new}/pg_restore --single-transaction -d {DATABASE} callflow.dump
(pg_upgrade --old-datadir … --new-datadir … --old-bindir {old} --new-bindir {new} does it too.)""",
    )


def new_password() -> str:
    """Return a random password of 32 characters."""
    return secrets.token_urlsafe(24)


def cause(text: str) -> str:
    """Return what a Postgres program complained about first, e.g. `FATAL:  could not …`.

    Later complaints are consequences: `PANIC:  cannot abort transaction 1` after a full disk.
    """
    if found := re.search("(?:ERROR|FATAL|PANIC|error):.*", text):
        return found[0].strip()
    return text.strip().rpartition("\n")[2] or "it said nothing"

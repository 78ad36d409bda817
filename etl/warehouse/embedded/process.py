"""The server's process: found by its lock file, started on a free port, and ended.

The server outlives the process that started it.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from etl.errors import EmbeddedError
from etl.warehouse.embedded.accounts import Account, bare_environment
from etl.warehouse.embedded.cluster import Launch, cause
from etl.warehouse.embedded.place import HOST, Deadline, digest, give_to_owner_of_parent

PORTS = range(15432, 16432)  # below the ephemeral ports, so that the one kept stays free


ATTEMPTS = 3
"""How often a server is started that ends after it began to log. A second attempt has succeeded
where a killed one had just left its place."""


@dataclass(frozen=True)
class Postmaster:
    """A server's process. `ready`: it takes connections; `port` is 0 until then."""

    pid: int
    port: int
    ready: bool


def bring_up(launch: Launch, kept: int | None, deadline: Deadline) -> Postmaster:
    """Wait for the server that runs or is starting; if there is none, start one.

    It starts on the port `kept` if that is free, else on another. Raises EmbeddedError when it does
    not start, and at the deadline; a server that is still recovering then continues to do so.
    """
    ports = free_ports(kept, launch.home)
    spawned: int | None = None
    attempts = 0
    while True:
        found = running(launch.cluster)
        if found and found.ready:
            return found
        if not found and (spawned is None or _command_line(spawned) is None):
            if spawned is None or _port_was_taken(launch, attempts):
                port = _next(ports, launch.home)
            spawned = _spawn(launch, port)
            attempts += 1
        deadline.pause(
            f"Postgres in {launch.home} to be ready",
            f"it may be recovering after a crash: try again; see {launch.home / 'start.log'} and "
            f"{launch.cluster / 'log'}",
        )


def _port_was_taken(launch: Launch, attempts: int) -> bool:
    """Return whether the server that ended needs another port; False if the same one may be tried.

    Raises EmbeddedError when another attempt would fail as well, or enough were made.
    """
    complaint = (launch.home / "start.log").read_text(errors="replace")
    if "could not create any TCP/IP sockets" in complaint:
        return True
    if 'lock file "postmaster.pid"' in complaint:
        remove_stale_lock(launch.cluster)
    elif "shared memory block" in complaint:  # left by backends that are about to end
        return False
    elif attempts >= ATTEMPTS or _LOGS not in complaint:
        said = complaint.partition(_LOGS)[0] + _logged(launch.cluster)
        raise EmbeddedError(
            f"Postgres did not start: {cause(said if _LOGS in complaint else complaint)}",
            where=str(launch.home),
            advice=f"read {launch.home / 'start.log'} and {launch.cluster / 'log'}",
        )
    return False


_LOGS = "redirecting log output"
"""What the server says before it goes on in the files of its directory `log`."""


def _logged(cluster: Path) -> str:
    """Return what the server that started last wrote to its log."""
    logs = sorted((cluster / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
    text = logs[-1].read_text(errors="replace") if logs else ""
    return text.rpartition("starting PostgreSQL")[2]


def _spawn(launch: Launch, port: int) -> int:
    """Start postgres on `port` and return its process id; what it prints goes to start.log.

    It listens on 127.0.0.1 only, without a Unix socket: the path of one may be too long, and BI
    tools want TCP.
    """
    options = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        **launch.settings,
    }
    argv = [str(launch.bin_dir / "postgres"), "-D", str(launch.cluster)]
    for name, value in options.items():
        argv += ["-c", f"{name}={value}"]
    with _new_log(launch.home) as log:
        # A shell in between makes the server no child of ours: as our child it would stay a zombie
        # if it died before us. Its own session keeps Ctrl-C at the terminal away from it.
        done = subprocess.run(  # noqa: S603
            ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env=bare_environment(),
            umask=0o077,
            user=launch.account.user,
            group=launch.account.group,
            extra_groups=launch.account.extra_groups,
            start_new_session=True,
            check=True,
        )
    return int(done.stdout)


def _new_log(home: Path) -> IO[bytes]:
    path = home / "start.log"
    path.unlink(missing_ok=True)
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    give_to_owner_of_parent(path)
    return file


def running(cluster: Path) -> Postmaster | None:
    """Return the postmaster of `cluster`; None when there is none, whatever its lock file says."""
    try:
        lines = (cluster / "postmaster.pid").read_text(errors="replace").splitlines()
        pid = abs(int(lines[0]))
    except (FileNotFoundError, IndexError, ValueError):
        return None
    command = _command_line(pid)
    # The process id may belong to another program by now.
    if command is None or (command and str(cluster) not in command):
        return None
    # process id, directory, start time, port, socket directory, address, shared memory, status
    ready = bool(command) and len(lines) > 7 and lines[7].strip() == "ready"
    return Postmaster(pid, int(lines[3]) if ready else 0, ready)


def has_lost_programs(cluster: Path) -> bool:
    """Whether a server runs whose files were removed, such as those of a deleted environment.

    It takes connections, but can load nothing more: not plpgsql, not the time zones.
    """
    if not running(cluster):
        return False
    try:
        # The command line that it was started with, its options in quotes (PostgreSQL's
        # documentation, "Database File Layout").
        command = (cluster / "postmaster.opts").read_text(errors="surrogateescape")
        Path(command.partition(' "')[0]).stat()
    except FileNotFoundError:
        return (cluster / "postmaster.opts").exists()
    except OSError:
        return False
    return False


def _command_line(pid: int) -> str | None:
    """Return a process's command line, "" while it is ending, None when it is gone or a zombie."""
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


def remove_stale_lock(cluster: Path) -> None:
    """Remove a lock file that Postgres would not: its process is a zombie or not Postgres.

    Backends that are left over are safe: Postgres finds them by the shared memory.
    """
    if not running(cluster):
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def free_ports(kept: int | None, home: Path) -> Iterator[int]:
    """Yield ports that can be bound now: `kept` first, then all others of PORTS.

    Each directory starts at another one, so that two warehouses do not take each other's port while
    one is stopped.
    """
    first = int(digest(home), 16) % len(PORTS)
    others = [*PORTS[first:], *PORTS[:first]]
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


def shut_down(cluster: Path, account: Account, deadline: Deadline) -> bool:
    """End the server of `cluster` and wait for that; return whether one was running.

    Raises EmbeddedError when it is still there at the deadline.
    """
    found = running(cluster)
    if not found:
        return False
    # Sent by the server's account, not by root: the process id comes from a file of that account.
    # SIGINT is the fast shutdown: https://www.postgresql.org/docs/current/server-shutdown.html
    account.run(["/bin/sh", "-c", 'kill -INT "$1"', "sh", str(found.pid)])
    while _command_line(found.pid) is not None:
        deadline.pause(
            f"Postgres in {cluster.parent} to end", f"see {cluster / 'log'}, and try again"
        )
    return True

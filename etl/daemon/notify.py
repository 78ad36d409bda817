"""Notify systemd, by the protocol of sd_notify(3), that the daemon is ready, alive, or ending."""

import os
import socket
from collections.abc import Callable, Mapping

from etl.status.health import Overview

_SHORT = 200
"""Characters of a message that a status quotes."""


class Manager:
    """The service manager, if one started this process and wants to be notified of how it is.

    `env` names its socket (NOTIFY_SOCKET) and says whether it watches this process (WATCHDOG_USEC);
    without the socket nothing happens. `clock` counts the seconds of CLOCK_MONOTONIC. Used by the
    main thread. The methods return why it could not be notified; None: it was, or wants nothing.
    """

    def __init__(self, env: Mapping[str, str], clock: Callable[[], float]) -> None:
        self._address = env.get("NOTIFY_SOCKET", "")
        self._watches = "WATCHDOG_USEC" in env and env.get("WATCHDOG_PID") in (
            None,
            str(os.getpid()),  # else it watches the process that started this one
        )
        self._clock = clock
        self._ready = False
        self._status = ""

    def alive(self, status: str) -> str | None:
        """Notify it that this process is alive, after a start or a reload also that it is ready."""
        fields = [] if self._ready else ["READY=1"]
        if status != self._status:
            fields.append(f"STATUS={status}")
        if self._watches:
            fields.append("WATCHDOG=1")
        trouble = self._send(*fields)
        if trouble is None:
            self._ready, self._status = True, status
        return trouble

    def reloading(self) -> str | None:
        """Notify it that the configuration is read again, until `alive`."""
        self._ready = False
        return self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._clock() * 1e6)}")

    def stopping(self, status: str) -> str | None:
        """Notify it that this process is about to end."""
        return self._send("STOPPING=1", f"STATUS={status}")

    def _send(self, *fields: str) -> str | None:
        if not self._address or not fields:
            return None
        address = self._address
        if address.startswith("@"):  # an abstract name
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect(address)
                sock.send("\n".join(fields).encode())
        except OSError as error:
            return f"systemd cannot be notified at {self._address}: {error.strerror or error}"
        return None


def status(view: Overview) -> str:
    """Return how a daemon is, as `systemctl status` shows it: one short line."""
    if view.database is not None:
        said = f"waits for the database: {_short(view.database.partition(' → ')[0])}"
    else:
        other = f"stands by; {view.leader or 'no daemon'} leads"
        said = f"{'leads' if view.role == 'leader' else other}; {_streams(view)}"
    return "; ".join([said, *(_short(note) for note in view.notes[:1])])


def _streams(view: Overview) -> str:
    bad = [stream.name for stream in view.streams if not stream.good]
    unread = sum(stream.state == "never run" for stream in view.streams)
    total = len(view.streams)
    counted = f"{total:,} stream{'s' * (total != 1)}"
    if bad:
        more = f" and {len(bad) - 1:,} more" if len(bad) > 1 else ""
        return f"{counted}, {bad[0]}{more} not healthy"
    return f"{counted}, {f'{unread:,} not synced yet' if unread else 'all healthy'}"


def _short(text: str) -> str:
    """Return `text` in one line, of limited length."""
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 1]}…"

"""What systemd is notified of, read from the datagram socket that it would have made."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from etl.daemon.notify import Manager, status
from etl.sandbox.server import Sandbox
from etl.status.health import Overview, StreamHealth
from tests.daemon.conftest import Start
from tests.daemon.processes import PATIENCE, free_port, relayed

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Systemd:
    """The end of the socket at which systemd reads."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(PATIENCE)
        self.sock.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> dict[str, str]:
        """Wait for the next datagram and return its fields."""
        lines = self.sock.recv(65536).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def until(self, **wanted: str) -> dict[str, str]:
        """Return the next datagram whose fields start like `wanted`."""
        end = time.monotonic() + PATIENCE
        while True:
            fields = self.heard()
            assert time.monotonic() < end, f"not within {PATIENCE:.0f} s: {wanted}; {fields}"
            if all(fields.get(name, "").startswith(value) for name, value in wanted.items()):
                return fields


@contextmanager
def listening(address: str) -> Iterator[Systemd]:
    systemd = Systemd(address)
    try:
        yield systemd
    finally:
        systemd.sock.close()


@pytest.mark.parametrize("address", ["socket", "@callflow-{}"])
def test_ready_alive_reloading_and_stopping_are_sent(address: str, tmp_path: Path) -> None:
    name = address.format(os.getpid()) if address[0] == "@" else str(tmp_path / address)
    with listening(name) as systemd:
        env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
        manager = Manager(env, lambda: 12.3456789)
        for said in ("leads", "leads", "stands by"):
            assert manager.alive(said) is None
        assert manager.reloading() is None
        assert manager.alive("stands by") is None
        assert manager.stopping("stops; 2 running") is None
        assert [systemd.heard() for _ in range(6)] == [
            {"READY": "1", "STATUS": "leads", "WATCHDOG": "1"},
            {"WATCHDOG": "1"},
            {"STATUS": "stands by", "WATCHDOG": "1"},
            {"RELOADING": "1", "MONOTONIC_USEC": "12345678"},
            {"READY": "1", "WATCHDOG": "1"},
            {"STOPPING": "1", "STATUS": "stops; 2 running"},
        ]


@pytest.mark.parametrize("env", [{}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}])
def test_a_process_that_is_not_watched_sends_no_sign_of_life(
    env: dict[str, str], tmp_path: Path
) -> None:
    with listening(str(tmp_path / "socket")) as systemd:
        manager = Manager(env | {"NOTIFY_SOCKET": systemd.address}, time.monotonic)
        for said in ("leads", "leads", "stands by"):
            assert manager.alive(said) is None
        assert systemd.heard() == {"READY": "1", "STATUS": "leads"}
        assert systemd.heard() == {"STATUS": "stands by"}


def test_without_systemd_nothing_happens_and_a_wrong_socket_is_reported(tmp_path: Path) -> None:
    manager = Manager({}, time.monotonic)
    assert manager.alive("leads") is manager.reloading() is manager.stopping("stops") is None
    path = str(tmp_path / "none")
    manager = Manager({"NOTIFY_SOCKET": path}, time.monotonic)
    trouble = f"systemd cannot be notified at {path}: No such file or directory"
    assert manager.alive("leads") == manager.alive("leads") == trouble
    with listening(path) as systemd:  # what was not sent is sent later
        assert manager.alive("leads") is None
        assert systemd.heard() == {"READY": "1", "STATUS": "leads"}


def stream(name: str, state: Any = "good") -> StreamHealth:
    return StreamHealth("zoom_eu", name, "zoom", state, stale=False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"role": "leader", "streams": (stream("a"), stream("b"))},
         "leads; 2 streams, all healthy"),
        ({"role": "leader", "streams": (stream("a", "never run"), stream("b"))},
         "leads; 2 streams, 1 not synced yet"),
        ({"role": "leader", "streams": (stream("a", "failed"),)},
         "leads; 1 stream, zoom_eu.a not healthy"),
        ({"role": "standby", "leader": "there:1",
          "streams": (stream("a"), stream("b", "failed"), stream("c", "incomplete"))},
         "stands by; there:1 leads; 3 streams, zoom_eu.b and 1 more not healthy"),
        ({"role": "standby"}, "stands by; no daemon leads; 0 streams, all healthy"),
        ({"role": "starting", "database": "warehouse: no\nserver → start it"},
         "waits for the database: warehouse: no server"),
        ({"role": "leader", "notes": (f"refused\n{'x' * 300}", "another")},
         f"leads; 0 streams, all healthy; refused {'x' * 191}…"),
    ],
)  # fmt: skip
def test_the_status_is_one_short_line(given: dict[str, Any], said: str) -> None:
    assert status(Overview(NOON, "1", **given)) == said


@pytest.mark.slow
def test_a_daemon_under_systemd(
    start: Start, sandbox: Sandbox, warehouse: str, tmp_path: Path
) -> None:
    """It is ready when it leads, alive while the database is down, and says how it is."""
    with (
        listening(str(tmp_path / "notify")) as systemd,
        relayed(warehouse) as (url, relay),
    ):
        port, env = free_port(), {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "180000000"}
        daemon = start(sandbox, url=url, port=port, env=env)
        first = systemd.heard()
        assert first.keys() == {"READY", "STATUS", "WATCHDOG"}
        assert first["STATUS"].startswith("leads; 8 streams, ")
        systemd.until(STATUS="leads; 8 streams, all healthy")

        relay.shut()
        systemd.until(STATUS="waits for the database: ")
        for _ in range(3):
            systemd.until(WATCHDOG="1")
        relay.open()
        systemd.until(STATUS="leads; 8 streams, all healthy")

        config = tmp_path / f"{port}.toml"
        kept = config.read_text(encoding="utf-8")
        for text, said in ((kept + "\n[wrong]\n", "the new configuration is refused"), (kept, "")):
            config.write_text(text, encoding="utf-8")
            before = time.monotonic() * 1e6
            daemon.kill(signal.SIGHUP)
            reloading = systemd.until(RELOADING="1")
            assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic() * 1e6
            ready = systemd.until(READY="1")
            assert said in ready["STATUS"] and ready["STATUS"].startswith("leads; 8 streams, ")

        daemon.kill(signal.SIGTERM)
        assert systemd.until(STOPPING="1")["STATUS"].startswith("stops; ")
        assert daemon.ended() == 0

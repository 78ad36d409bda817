"""Daemons as an operator runs them: processes, their log lines, and what they answer by HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from etl.sandbox.server import Sandbox
from tests.postgres import dsn
from tests.warm import Command, Warm

PATIENCE = 180.0
"""Seconds within which anything that is waited for has happened, also on a loaded machine."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def until(true: Callable[[], Any], what: str, *heard: "Process") -> Any:
    """Call `true` ten times a second until its result is true; return that result."""
    end = time.monotonic() + PATIENCE
    while not (answer := true()):
        logs = "\n\n".join(each.output for each in heard)
        assert time.monotonic() < end, f"not within {PATIENCE:.0f} s: {what}\n{logs}"
        time.sleep(0.1)
    return answer


class Process:
    """`callflow daemon` with its own configuration, forked from `warm` or started by Python.

    `more` are variables of its environment.
    """

    def __init__(
        self, path: Path, port: int, *words: str, code: str = "", warm: Warm | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.path, self.port = path, port
        env = {name: value for name, value in os.environ.items() if name[:9] != "CALLFLOW_"}
        env |= {"CALLFLOW_CONFIG": str(path), **(more or {})}
        self.popen: Command | subprocess.Popen[str]
        if warm and not code:
            out = subprocess.DEVNULL
            self.popen = warm.start(["daemon", *words], env=env, cwd=path.parent, stdout=out)
        else:
            command = ["-c", code] if code else ["-m", "etl", "daemon", *words]
            self.popen = subprocess.Popen(
                [sys.executable, *command],
                env=env,
                cwd=path.parent,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the lines of the log, or those of one event."""
        found = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [each for each in found if event is None or event in each["event"]]

    def said(self, event: str) -> dict[str, Any]:
        """Wait for the first line of an event, and return it."""
        found: dict[str, Any] = until(
            lambda: next(iter(self.events(event)), None), f"the log says {event!r}", self
        )
        return found

    def runs(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the runs in the log that have such fields."""
        return [
            each
            for each in self.events("run ended")
            if all(each.get(name) == value for name, value in fields.items())
        ]

    def ran(self, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Wait for at least `count` such runs, and return them."""
        return until(  # type: ignore[no-any-return]
            lambda: found if len(found := self.runs(**fields)) >= count else None,
            f"{count} runs of {fields}",
            self,
        )

    def get(self, path: str, **given: Any) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE, **given)

    def status(self) -> dict[str, Any]:
        """Return /api/status as soon as it is served."""

        def ask() -> Any:
            with suppress(httpx.TransportError):
                return self.get("/api/status").json()
            return None

        answer: dict[str, Any] = until(ask, "the status is served", self)
        return answer

    def stream(self, name: str) -> dict[str, Any]:
        found = [each for each in self.status()["streams"] if each["name"] == name]
        return found[0] if found else {}

    def kill(self, number: int) -> None:
        self.popen.send_signal(number)

    def ended(self, patience: float = PATIENCE) -> int:
        """Wait for the end of the process, and return its exit code."""
        code = self.popen.wait(patience)
        self._reader.join(10)
        return code

    def close(self) -> None:
        if self.popen.poll() is None:
            with suppress(ProcessLookupError):
                self.kill(signal.SIGCONT)
            self.popen.kill()
        self.popen.wait(30)
        self._reader.join(10)
        if self.popen.stderr is not None:
            self.popen.stderr.close()


def write_config(
    path: Path, warehouse: str, sandbox: Sandbox | str, *, port: int, more: str = "",
    every: str = "1s", daemon: str = "",
) -> Path:  # fmt: skip
    sources = sandbox if isinstance(sandbox, str) else sandbox.toml()
    # A request that a test holds is not asked again meanwhile, however long it takes.
    sources = sources.replace(
        "requests_per_second = 0\n", "requests_per_second = 0\ntimeout = 300\n"
    )
    path.write_text(
        f'[warehouse]\nurl = "{dsn(warehouse)}"\n[schedule]\nevery = "{every}"\n'
        f'[daemon]\nhttp = "127.0.0.1:{port}"\n{daemon}\n{sources}\n{more}',
        encoding="utf-8",
    )
    path.chmod(0o600)
    return path


class Relay:
    """A TCP relay to Postgres that can be shut: then nothing gets through, and nothing is new."""

    def __init__(self, port: int, *, open_: bool = True) -> None:
        self._to = port
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._server: socket.socket | None = None
        self.port = free_port()
        if open_:
            self.open()

    def open(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def shut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for sock in pair:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                theirs, _ = server.accept()
                ours = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            with self._lock:
                self._pairs.append((theirs, ours))
            for one, other in ((theirs, ours), (ours, theirs)):
                threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    with suppress(OSError):
        other.shutdown(socket.SHUT_RDWR)


@contextmanager
def relayed(warehouse: str, *, open_: bool = True) -> Iterator[tuple[str, Relay]]:
    """Yield the URL of `warehouse` through a relay, and the relay."""
    rest = warehouse.rpartition("@")[2]
    port = int(rest.partition("/")[0].rpartition(":")[2])
    relay = Relay(port, open_=open_)
    try:
        yield warehouse.replace(f"127.0.0.1:{port}", f"127.0.0.1:{relay.port}"), relay
    finally:
        relay.shut()


@contextmanager
def processes() -> Iterator[Callable[..., Process]]:
    """Yield a function that starts daemons; end all of them at the end."""
    with ExitStack() as stack:

        def start(path: Path, port: int, *words: str, **given: Any) -> Process:
            process = Process(path, port, *words, **given)
            stack.callback(process.close)
            return process

        yield start

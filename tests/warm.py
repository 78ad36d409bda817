"""Commands of callflow as real processes, without the second that each start of Python takes.

    warm.run(["sync", "--json"], env=…)    its CompletedProcess, as of subprocess.run
    warm.start(["daemon"], env=…)          a Command, as of subprocess.Popen

A process that has imported all of callflow, runs none of it and has one thread forks them. Each has
its own arguments, environment, directory, pipes, signals, exit code and end of the interpreter. For
what happens before the first line of `etl.__main__`, a few tests of start-up run `python -m etl`.
"""

import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

LENGTH = struct.Struct("!I")
"""What comes before a request: the length of its JSON. The descriptors travel with it."""

AT_START = ("PYTHON", "LC_", "LANG")
"""Beginnings of the names of variables that Python reads once, when it starts."""


class Command:
    """A forked command, with the names that subprocess.Popen has for what can be done with it."""

    def __init__(self, words: Sequence[str], line: socket.socket, pipes: list[IO[str] | None]):
        self.args = list(words)
        self.stdin, self.stdout, self.stderr = pipes
        self.returncode: int | None = None
        self._line = line
        self._received = b""
        self.pid = int(self._receive(None) or 0)
        assert self.pid, "the warm process has ended"

    def _receive(self, seconds: float | None) -> bytes | None:
        """Return the next line about the process; None if it takes longer than `seconds`."""
        end = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._received:
            # A timeout of 0 would make it a socket that never waits, which is what is meant here.
            self._line.settimeout(None if end is None else max(end - time.monotonic(), 0))
            try:
                part = self._line.recv(64)
            except (TimeoutError, BlockingIOError):
                return None
            if not part:
                raise RuntimeError(f"the process that waits for {self.args} has ended")
            self._received += part
        said, _, self._received = self._received.partition(b"\n")
        return said

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            said = self._receive(timeout)
            if said is None:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(said)
            self._line.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, text: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """Give it `text`, read what it prints until it has ended, and return that.

        Raises subprocess.TimeoutExpired; it is killed then, and its output is lost.
        """
        with ThreadPoolExecutor(3) as threads:
            given = threads.submit(self._give, text)
            read = [threads.submit(_rest_of, pipe) for pipe in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            given.result()
            out, errors = (each.result() for each in read)
        return out, errors

    def _give(self, text: str | None) -> None:
        if self.stdin is not None:
            with suppress(BrokenPipeError):
                self.stdin.write(text or "")
                self.stdin.close()

    def close(self) -> None:
        """Wait for its end and close the pipes."""
        self.wait()
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Warm:
    """The process that forks commands."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def start(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> Command:
        """Start `callflow WORDS…`; each of the three is a descriptor, PIPE, or DEVNULL.

        Raises ValueError when `env` changes what Python reads only when it starts.
        """
        read_once = {
            name
            for name in {*env, *os.environ}
            if name.startswith(AT_START) and env.get(name) != os.environ.get(name)
        }
        if read_once:
            raise ValueError(f"Python has read {read_once} when it started; run `python -m etl`")
        ours: list[IO[str] | None] = []
        theirs: list[int] = []
        for number, wanted in enumerate((stdin, stdout, stderr)):
            ends = _ends(wanted, writes=number == 0)
            ours.append(ends[0])
            theirs.append(ends[1])
        line, status = socket.socketpair()
        request = {"words": list(words), "env": dict(env), "cwd": str(cwd or Path.cwd())}
        message = json.dumps(request).encode()
        with status, self._lock:
            descriptors = [*theirs, status.fileno()]
            socket.send_fds(self._line, [LENGTH.pack(len(message))], descriptors)
            self._line.sendall(message)
        for descriptor in theirs:
            os.close(descriptor)
        return Command(words, line, ours)

    def run(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        text: str | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run `callflow WORDS…` to its end, with `text` as its stdin if there is one.

        Raises subprocess.TimeoutExpired.
        """
        stdin = stdin if text is None else subprocess.PIPE
        with self.start(words, env=env, cwd=cwd, stdin=stdin) as command:
            out, errors = command.communicate(text, timeout)
        return subprocess.CompletedProcess(list(words), command.wait(), out, errors)

    def close(self) -> None:
        """End it."""
        self._line.close()
        self._process.wait()


@contextmanager
def warmed() -> Iterator[Warm]:
    """Start a process that forks commands."""
    warm = Warm()
    try:
        yield warm
    finally:
        warm.close()


def _rest_of(pipe: IO[str] | None) -> str:
    return pipe.read() if pipe else ""


def _ends(wanted: int, *, writes: bool) -> tuple[IO[str] | None, int]:
    """Return our end of a pipe and the child's, or only the child's."""
    if wanted == subprocess.PIPE:
        reader, writer = os.pipe()
        if writes:
            return os.fdopen(writer, "w", encoding="utf-8"), reader
        return os.fdopen(reader, "r", encoding="utf-8"), writer
    if wanted == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    return None, os.dup(wanted)


# -- the warm process -----------------------------------------------------------------------------


def main(line: socket.socket) -> None:
    """Fork what is asked for on `line`, until that is closed; each child comes back as callflow."""
    warm_up()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the commands
    signal.signal(
        signal.SIGCHLD, signal.SIG_IGN
    )  # so the processes that wait for a command need not be reaped
    while True:
        head, descriptors, _, _ = socket.recv_fds(line, LENGTH.size, 4)
        if not head:
            return
        request = json.loads(_exactly(line, *LENGTH.unpack(head)))
        assert threading.active_count() == 1, threading.enumerate()
        if os.fork() == 0:
            line.close()
            become(request, descriptors)
            runpy.run_module("etl", run_name="__main__", alter_sys=True)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _exactly(line: socket.socket, size: int) -> bytes:
    read = b""
    while len(read) < size:
        read += line.recv(size - len(read))
    return read


def warm_up() -> None:
    """Import callflow and what it imports only when it is needed, and run none of it.

    Without what runs it, and without Dask, which starts threads and few commands need.
    """
    import etl

    for module in pkgutil.walk_packages(etl.__path__, "etl."):
        if module.name.rpartition(".")[2] not in ("__main__", "dask", "migrations"):
            importlib.import_module(module.name)
    for name in (
        "alembic.command", "alembic.config", "sqlalchemy.dialects.postgresql.psycopg",
        "uvicorn.lifespan.on", "uvicorn.loops.asyncio", "uvicorn.protocols.http.h11_impl",
    ):  # fmt: skip
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is there stays shared with the commands


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Split in two: one waits for the other and says how it ended; the other one returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, status = descriptors
    if pid := os.fork():
        for descriptor in (*streams, 0, 1, 2):
            os.close(descriptor)
        os.write(status, b"%d\n" % pid)
        _, ended = os.waitpid(pid, 0)
        os.write(status, b"%d\n" % os.waitstatus_to_exitcode(ended))
        os._exit(0)
    os.close(status)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.argv[1:] = request["words"]
    sys.stdin = sys.__stdin__ = _opened(0, sys.stdin)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _opened(1, sys.stdout)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _opened(2, sys.stderr)  # type: ignore[misc]


def _opened(descriptor: int, like: Any) -> io.TextIOWrapper:
    """Open a standard stream as Python does when it starts."""
    return io.TextIOWrapper(
        open(descriptor, "wb" if descriptor else "rb", closefd=False),
        encoding=like.encoding,
        errors=like.errors,
        newline="\n",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
    )


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))

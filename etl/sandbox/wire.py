"""HTTP for the emulators: accept requests, record them, let a `Fault` spoil the answer, send it.

This is the only file of the sandbox that knows sockets. An emulator is anything with the
attributes of `Emulator`; its `handle` turns a `Request` into a `Response` and never sees a fault.
"""

import socket
import socketserver
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from etl.errors import ConfigError
from etl.sandbox.exchange import Request, Response
from etl.sandbox.faults import Fault, happening


class Clock:
    """The time as one emulator sees it, in seconds since 1970 UTC; a test may move it.

    `frozen_at` stops the clock at that instant; without it the clock follows the machine's.
    """

    def __init__(self, frozen_at: float | None = None) -> None:
        self._frozen_at = frozen_at
        self._moved = 0.0

    def __call__(self) -> float:
        """Return the seconds since 1970 UTC."""
        return (time.time() if self._frozen_at is None else self._frozen_at) + self._moved

    def advance(self, seconds: float) -> None:
        """Move the time forward, or back if `seconds` is negative."""
        self._moved += seconds


class Emulator(Protocol):
    """What an emulator needs in order to be served."""

    url: str
    clock: Clock
    faults: list[Fault]
    requests: deque[Request]
    errors: list[Exception]

    def handle(self, request: Request) -> Response:
        """Answer one request."""


@contextmanager
def serving(emulator: Emulator, port: int = 0) -> Iterator[str]:
    """Serve one emulator on 127.0.0.1 (port 0: a free one) and yield its URL, without a path.

    The URL is also set as `emulator.url`. On leaving, connections are closed and threads joined.
    An exception inside the emulator or a fault's callable, which the client saw as a 500, is
    raised again here so that no test overlooks it. Raises ConfigError if the port is taken.
    """
    try:
        server = _Server(emulator, port)
    except OSError as error:
        raise ConfigError(
            f"port {port} cannot be used: {error.strerror}",
            where="sandbox, 127.0.0.1",
            advice="choose another port, or 0 for a free one",
        ) from None
    emulator.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.start()
    try:
        yield emulator.url
    finally:
        server.stop()
    if emulator.errors:
        raise emulator.errors[0]


class _Server(socketserver.TCPServer):
    """One thread per connection. Unlike `serve_forever`, it stops without waiting for a poll."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, emulator: Emulator, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.emulator = emulator
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def start(self) -> None:
        self._acceptor.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            self.handle_request()

    def stop(self) -> None:
        self.stopping.set()
        with socket.create_connection(("127.0.0.1", self.server_address[1])):
            self._acceptor.join()
        self.server_close()
        with self._lock:
            still_open = dict(self._open)
            for connection in still_open:
                with suppress(OSError):  # the client closed it first
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in still_open.values():
            thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self._serve, args=(request, client_address), daemon=True)
        with self._lock:
            self._open[request] = thread
        thread.start()

    def _serve(self, connection: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(connection, client_address)
        except OSError:
            pass  # the client left, or `stop` closed the connection
        except Exception as error:  # noqa: BLE001  (`serving` raises it)
            self.emulator.errors.append(error)
        finally:
            with self._lock:
                del self._open[connection]
                # Not shutdown_request: its shutdown() would turn a reset into an orderly end.
                connection.close()

    def answer(self, request: Request) -> tuple[Response, Fault]:
        """Record the request, let faults happen, and handle it. Never raises."""
        emulator = self.emulator
        spoiler = Fault()
        try:
            with self._lock:
                emulator.requests.append(request)
                due = happening(list(emulator.faults), request)
            spoiler = next((each for each in due if each.spoils_answer()), spoiler)
            for fault in due:
                if fault.before_request is not None:
                    fault.before_request(emulator, request)
            response = emulator.handle(request)
            if spoiler.response is not None:
                instead = spoiler.response
                response = instead if isinstance(instead, Response) else instead(request, response)
        except Exception as error:  # noqa: BLE001  (`serving` raises it)
            emulator.errors.append(error)
            response = Response(500, f"the sandbox has a bug: {error!r}".encode(), {})
        request.status = response.status
        return response, spoiler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: `requests` holds every request."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = urlsplit(self.path)
        request = Request(
            method=self.command,
            target=self.path,
            path=unquote(target.path),
            query=parse_qsl(target.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            at=self.server.emulator.clock(),
        )
        response, fault = self.server.answer(request)
        self.deliver(response, fault)

    # http.server looks these names up.
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def deliver(self, response: Response, fault: Fault) -> None:
        """Send the answer, spoilt as the fault says."""
        if fault.delay and self.server.stopping.wait(fault.delay):
            return
        if fault.delivery == "reset_at_once":
            self.reset()
            return
        length = len(response.body) + fault.padding
        headers = {"Date": formatdate(self.server.emulator.clock(), usegmt=True)}
        headers.update(response.headers)
        if fault.delivery != "close_delimited":
            headers["Content-Length"] = str(length)
        if fault.delivery != "whole":
            headers["Connection"] = "close"
            self.close_connection = True
        head = f"HTTP/1.1 {response.status} {_reason(response.status)}\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items()
        )
        end = length
        if fault.delivery != "whole":
            end = length // 2 if fault.cut is None else fault.cut
        body = response.body[:end]
        if fault.bytes_per_second:
            self.wfile.write(f"{head}\r\n".encode("latin-1"))
            self.drip(body, fault.bytes_per_second)
        else:
            self.wfile.write(f"{head}\r\n".encode("latin-1") + body)
        blank = b" " * 65_536
        for start in range(len(body), min(end, length), len(blank)):
            self.wfile.write(blank[: min(end, length) - start])
        if fault.delivery == "reset":
            self.reset()

    def drip(self, body: bytes, bytes_per_second: float) -> None:
        step = max(1, int(bytes_per_second / 20))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if self.server.stopping.wait(step / bytes_per_second):
                return

    def reset(self) -> None:
        """Make the next close() a TCP reset instead of an orderly end."""
        linger_for_no_time = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time)
        self.close_connection = True


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""

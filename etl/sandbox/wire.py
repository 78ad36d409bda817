"""HTTP for the emulators: requests come in, are recorded, may be spoilt by a `Fault`, and go out.

This is the only file of the sandbox that knows sockets. An emulator is anything with the
attributes of `Emulator`; its `handle` turns a `Request` into a `Response` and never sees a fault.
"""

import json
import socket
import socketserver
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from fnmatch import fnmatchcase
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from random import Random
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from etl.errors import ConfigError

JSON = {"Content-Type": "application/json;charset=UTF-8"}

Delivery = Literal["whole", "reset_at_once", "reset", "truncated", "close_delimited"]


class Clock:
    """The time as one emulator sees it, in seconds since 1970 UTC; a test may move it.

    `frozen_at` stops it at that instant; without it the clock runs with the machine's.
    """

    def __init__(self, frozen_at: float | None = None) -> None:
        self._frozen_at = frozen_at
        self._moved = 0.0

    def __call__(self) -> float:
        """Seconds since 1970 UTC."""
        return (time.time() if self._frozen_at is None else self._frozen_at) + self._moved

    def advance(self, seconds: float) -> None:
        """Move the time forward, or back when negative."""
        self._moved += seconds


@dataclass(slots=True, eq=False)
class Request:
    """One request as it arrived, kept for the tests to look at.

    `path`    percent-decoded, without the query; `target` is the raw text of the request line.
    `query`   decoded pairs in the order sent (`+` is a space); `params` is the same as a dict.
    `headers` names in lower case, `authorization` included.
    `at`      the emulator's clock on arrival, seconds since 1970 UTC.
    `status`  of the answer that was meant for it; 0 while there is none.
    """

    method: str
    target: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes
    at: float
    status: int = 0

    @property
    def params(self) -> dict[str, str]:
        """The query as a dict; of a repeated name the last one counts."""
        return dict(self.query)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: `body` as it goes over the wire, `headers` without those of the transport."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


@dataclass(slots=True, eq=False)
class Fault:
    """A misfortune: when it happens, and what happens then. Put it into an emulator's `faults`.

    When, all of these must hold:
    `path`        the request's path; `*` and `?` are wildcards; "" is any.
    `when`        a predicate of the request.
    `nth`         only the nth (1, 2 …) of the requests that the two above let through.
    `every`       only each k-th of them.
    `probability` drawn from `rng`.
    `times`       at most so often; None for ever.
    Of the faults that spoil the answer the first in the list that is due happens, alone; the
    others count the request all the same (`seen`; `fired` counts what happened).

    What; a fault with nothing but `before_request` spoils nothing and happens beside another:
    `before_request` is called with the emulator and the request before the request is handled, so
        rows can change between two pages.
    `response`    replaces the emulator's answer, which is still worked out, so that a nonce is
        used up; a callable gets the request and that answer (see `altered`).
    `delay`       seconds before the first byte.
    `bytes_per_second` of the body; 0 is at once.
    `padding`     bytes of white space after the body: still the same JSON, but huge.
    `delivery`    how it arrives: "reset_at_once" is a TCP reset instead of an answer; the others
        send `cut` bytes of the body (default: half) and then "reset" the connection, or close it
        short of its Content-Length ("truncated"), or close it where no Content-Length had been
        given ("close_delimited", which to HTTP is a whole answer).
    """

    path: str = ""
    when: Callable[[Request], bool] | None = None
    nth: int | None = None
    every: int | None = None
    probability: float = 1.0
    rng: Random = field(default_factory=lambda: Random(0))  # noqa: S311  (not for secrets)
    times: int | None = 1
    before_request: Callable[[Any, Request], None] | None = None
    response: Response | Callable[[Request, Response], Response] | None = None
    delay: float = 0.0
    bytes_per_second: float = 0.0
    padding: int = 0
    delivery: Delivery = "whole"
    cut: int | None = None
    seen: int = 0
    fired: int = 0

    def counts(self, request: Request) -> bool:
        """Whether the request is of the kind that is meant; if so it is counted."""
        if self.path and not fnmatchcase(request.path, self.path):
            return False
        if self.when is not None and not self.when(request):
            return False
        self.seen += 1
        return True

    def is_due(self) -> bool:
        """Whether it happens to the request that was just counted."""
        return (
            (self.nth is None or self.seen == self.nth)
            and (self.every is None or self.seen % self.every == 0)
            and (self.times is None or self.fired < self.times)
            and (self.probability >= 1 or self.rng.random() < self.probability)
        )

    def spoils_answer(self) -> bool:
        """Whether it does more than calling `before_request`."""
        return (
            self.response is not None
            or self.delivery != "whole"
            or max(self.delay, self.bytes_per_second, self.padding) > 0
        )


class Emulator(Protocol):
    """What a provider's emulator shows to the server."""

    url: str
    clock: Clock
    faults: list[Fault]
    requests: deque[Request]
    errors: list[Exception]

    def handle(self, request: Request) -> Response:
        """Answer one request."""


def json_response(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """An answer with a JSON body; `headers` come on top of the content type."""
    return Response(status, msgspec.json.encode(body), {**JSON, **(headers or {})})


def altered(change: Callable[[Any], object]) -> Callable[[Request, Response], Response]:
    """For a fault's `response`: the honest answer, its decoded JSON body changed in place."""

    def alter(_: Request, response: Response) -> Response:
        body = json.loads(response.body)
        change(body)
        return Response(response.status, json.dumps(body).encode(), response.headers)

    return alter


def html(status: int = 502) -> Response:
    """What a proxy in front of an API says when the API is away."""
    reason = HTTPStatus(status).phrase
    page = f"<html><head><title>{status} {reason}</title></head><body>{reason}</body></html>"
    return Response(status, page.encode(), {"Content-Type": "text/html; charset=utf-8"})


def empty(status: int = 500) -> Response:
    """A status and nothing else."""
    return Response(status, b"", {})


def redirect(location: str, status: int = 302) -> Response:
    """Somewhere else, by an absolute URL or a path."""
    return Response(status, b"", {"Location": location})


def gzip_bomb(unpacked: int) -> Response:
    """A gzip body that unpacks to `unpacked` bytes of white space, about 1000 times its size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    block = b" " * 65_536
    packed = [packer.compress(block) for _ in range(unpacked // len(block))]
    packed += [packer.compress(block[: unpacked % len(block)]), packer.flush()]
    return Response(200, b"".join(packed), {**JSON, "Content-Encoding": "gzip"})


def whole_number(text: str) -> int | None:
    """A number of decimal digits only, as a query parameter must be; None for anything else."""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None


@contextmanager
def serving(emulator: Emulator, port: int = 0) -> Iterator[str]:
    """Serve one emulator on 127.0.0.1 (port 0: a free one) and yield its URL, without a path.

    The URL is also set as `emulator.url`. On leaving, connections are closed and threads joined;
    an exception inside the emulator or a fault's callable, which the client saw as a 500, is
    raised again here so that no test overlooks it. ConfigError when the port is taken.
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
    """A thread per connection. Unlike `serve_forever` its stop takes no poll interval."""

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
                with suppress(OSError):  # the client was quicker
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
            pass  # the client went away, or `stop` closed the connection
        except Exception as error:  # noqa: BLE001  (shown to the test by `serving`)
            self.emulator.errors.append(error)
        finally:
            with self._lock:
                del self._open[connection]
                # Not shutdown_request: its shutdown() would turn a reset into an orderly end.
                connection.close()

    def answer(self, request: Request) -> tuple[Response, Fault]:
        """Record the request, let faults happen, handle it. Never raises."""
        emulator = self.emulator
        spoiler = Fault()
        try:
            with self._lock:
                emulator.requests.append(request)
                happening = self._happening(request)
            spoiler = next((each for each in happening if each.spoils_answer()), spoiler)
            for fault in happening:
                if fault.before_request is not None:
                    fault.before_request(emulator, request)
            response = emulator.handle(request)
            if spoiler.response is not None:
                instead = spoiler.response
                response = instead if isinstance(instead, Response) else instead(request, response)
        except Exception as error:  # noqa: BLE001  (shown to the test by `serving`)
            emulator.errors.append(error)
            response = Response(500, f"the sandbox has a bug: {error!r}".encode(), {})
        request.status = response.status
        return response, spoiler

    def _happening(self, request: Request) -> list[Fault]:
        counted = [fault for fault in list(self.emulator.faults) if fault.counts(request)]
        happening: list[Fault] = []
        spoilt = False
        for fault in counted:
            if not (spoilt and fault.spoils_answer()) and fault.is_due():
                fault.fired += 1
                happening.append(fault)
                spoilt = spoilt or fault.spoils_answer()
        return happening


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: `requests` has it all."""

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

    # The names that http.server looks up.
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def deliver(self, response: Response, fault: Fault) -> None:
        """Send the answer in the manner of the fault; the one place where answers are spoilt."""
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
        """Make the coming close() a TCP reset instead of an orderly end."""
        linger_for_no_time = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time)
        self.close_connection = True


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""

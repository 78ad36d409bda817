"""The socket and the thread that the HTTP side of the daemon runs in."""

import asyncio
import errno
import ipaddress
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from etl.errors import ConfigError

_GRACE = 1.0  # seconds for an answer on its way when serving ends
_BACKLOG = 128  # connections that are accepted at once, before their requests are read

_ADVICE = {
    errno.EADDRINUSE: "stop what listens there, or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address; 127.0.0.1 is reachable from here only",
    errno.EACCES: "choose a port from 1024 up",
}


def listen(address: str) -> socket.socket:
    """Return a socket that listens on `address`, such as "127.0.0.1:8787"; port 0 is a free one.

    "[::]:8787" listens on all addresses of both kinds. The caller closes it; `serving` does, too.
    Raises ConfigError when the port is taken, the address is not this machine's, or is not allowed.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        # No host would mean every address.
        if not host or not 0 <= int(port) < 65536:
            raise ValueError(address)
        return socket.create_server(
            (host, int(port)), family=family, backlog=_BACKLOG, dualstack_ipv6=both
        )
    except (OSError, ValueError) as error:
        number = (error.errno if isinstance(error, OSError) else None) or 0
        # The numbers of name resolution are negative.
        why = os.strerror(number).lower() if number > 0 else "no host and port of this machine"
        advice = _ADVICE.get(number, "give host:port, such as 127.0.0.1:8787")
        raise ConfigError(
            f"cannot listen on {address}: {why}",
            where="daemon.http",
            advice=f'{advice}; http = "" turns it off',
        ) from None


@contextmanager
def serving(
    app: Starlette,
    sock: socket.socket,
    *,
    connections: int = 256,
    head: float = 5.0,
    young: float = 1.0,
    lifetime: float = 60.0,
) -> Iterator[None]:
    """Serve `app` on the listening socket in a thread; on leaving, end it and close the socket.

    Takes no signals and writes no access log. At the end an answer on its way has a second to get
    through; then its connection is cut, so that a client that reads slowly does not hold up the
    daemon.

    At most `connections` are open, because each holds a file, and the runs need files too. A new
    one is always accepted; if there are too many, another one is cut, see `_Connection`. Therefore
    `connections` must be more than _BACKLOG.

    The head of a request has to arrive within `head` seconds, from the connection's start or from
    the first byte after the previous answer, which must come within 5 s of that answer. In its
    first `young` seconds a connection is spared if another one can be cut. Each ends after
    `lifetime` seconds, whatever its client does.
    """
    protocol: Any = partial(_Connection, connections, head, young, lifetime)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="error",  # otherwise anyone could fill the log with invalid requests
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
        )
    )
    runner = asyncio.Runner()
    loop = runner.get_loop()
    # A daemon thread, as are those it starts: a database that hangs keeps no process alive.
    thread = threading.Thread(target=_run, args=(runner, server, sock), name="http", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_GRACE)
        with suppress(RuntimeError):  # its loop is closed: the server has ended already
            loop.call_soon_threadsafe(_cut, server)
        thread.join()
        sock.close()


def _run(runner: asyncio.Runner, server: uvicorn.Server, sock: socket.socket) -> None:
    with runner:
        runner.run(server.serve(sockets=[sock]))


def _cut(server: uvicorn.Server) -> None:
    for connection in list(server.server_state.connections):
        connection.transport.abort()


class _Connection(H11Protocol):
    """One client's connection. uvicorn alone would wait forever for one that sends nothing.

    If there are more than `limit`, the one whose end costs least is cut: first one that sent no
    whole request and is no longer young, then one between two requests, then one whose client does
    not read its answer, then a young one, whose request may only not have been read yet. Among
    equals it is the oldest one of the client that has most. So neither a client with many
    connections nor many clients with one each keep others out, and a reverse proxy, which stands
    for many clients, may have as many as are free.
    """

    def __init__(
        self, limit: int, head: float, young: float, lifetime: float, **given: Any
    ) -> None:
        super().__init__(**given)
        self._limit = limit
        self._head = head
        self._young = young
        self._lifetime = lifetime
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._who = network_of(self.client[0]) if self.client else ""
        self._since = self.loop.time()
        self._end = self.loop.call_later(self._lifetime, self._leave)
        self._late = self.loop.call_later(self._head, self._leave)
        if len(self.connections) > self._limit:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        if self._late is None and not self._answering():
            self._late = self.loop.call_later(self._head, self._leave)
        super().data_received(data)

    def handle_events(self) -> None:
        previous = self.cycle
        super().handle_events()
        if self.cycle is not previous:  # a whole head has come
            self._since = self.loop.time()
            self._in_time()

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        if not self.cycle or self.conn.our_state is h11.IDLE:
            super().send_400_response(msg)
        else:  # its answer is on its way or was sent: there can be no other one
            self.cycle.disconnected = True
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        self._in_time()
        super().connection_lost(exc)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    def _loss(self) -> int:
        """Return how much its end would cost."""
        if not self.cycle:
            return 3 if self.loop.time() - self._since < self._young else 0
        if self._answering():
            return 4
        return 2 if self.transport.get_write_buffer_size() else 1

    def _make_room(self) -> None:
        """Cut another connection; the limit is one at least, so there is one."""
        others = [each for each in self.connections if isinstance(each, _Connection)]
        losses = {each: each._loss() for each in others if each is not self}
        least = min(losses.values())
        lightest = [each for each, loss in losses.items() if loss == least]
        held = Counter(each._who for each in lightest)
        victim = max(lightest, key=lambda each: (held[each._who], -each._since))
        self.connections.discard(victim)  # it hears of its end later
        victim.transport.abort()

    def _leave(self) -> None:
        self._end.cancel()
        self._end = self.loop.call_later(_GRACE, self.transport.abort)
        if not self.transport.is_closing():
            self.shutdown()


def network_of(host: str) -> str:
    """Return what stands for one client: its address, or the first half if it is an IPv6 one."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host

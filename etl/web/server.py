"""The socket and the thread that the HTTP side of the daemon runs in."""

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from etl.errors import ConfigError

_GRACE = 1.0  # seconds that an answer on its way has when serving ends

_ADVICE = {
    errno.EADDRINUSE: "stop what listens there, or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address; 127.0.0.1 is reached from here only",
    errno.EACCES: "choose a port from 1024 up",
}


def listen(address: str) -> socket.socket:
    """A socket that listens on `address`: "127.0.0.1:8787", "[::1]:8787"; port 0 is a free one.

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
            (host, int(port)), family=family, backlog=128, dualstack_ipv6=both
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
    app: Starlette, sock: socket.socket, *, connections: int = 256, lifetime: float = 60.0
) -> Iterator[None]:
    """Serve `app` on the listening socket in a thread; on leaving, end it and close the socket.

    Takes no signals and writes no access log. An answer on its way has a second to get through,
    then its connection is cut: a client that reads slowly does not keep the daemon.

    `connections` are open at most, because each holds a file, and the runs need files too. Each
    ends after `lifetime` seconds, whatever its client does or leaves undone.
    """
    protocol: Any = partial(_Connection, connections, lifetime)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
    runner = asyncio.Runner()
    loop = runner.get_loop()
    # A daemon thread, and so are those it starts: a database that hangs keeps no process alive.
    thread = threading.Thread(target=_run, args=(runner, server, sock), name="http", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_GRACE)
        with suppress(RuntimeError):  # its loop is closed: it ended by itself
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
    """One client's connection. uvicorn by itself waits for ever for one that sends nothing."""

    def __init__(self, limit: int, lifetime: float, **given: Any) -> None:
        super().__init__(**given)
        self._limit = limit
        self._lifetime = lifetime

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._end = self.loop.call_later(self._lifetime, self._leave)
        if len(self.connections) > self._limit:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)

    def _leave(self) -> None:
        self._end = self.loop.call_later(_GRACE, self.transport.abort)
        if not self.transport.is_closing():
            self.shutdown()

"""What carries an `Http`'s requests: httpcore's connections, behind the interface of httpx.

httpx has timeouts for single reads only, and a server that sends one byte a second never exceeds
them. httpcore lets its caller hand in what opens connections (`network_backend`); the one used here
ends every wait at the deadline of the whole request, and looks at the address it connected to.
"""

import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from etl.config.hosts import is_private
from etl.errors import ContractError

_KEEP_ALIVE = 5.0  # seconds for which an idle connection is kept, as httpx's own transport does

Resolve = Callable[[str, int], list[str]]
"""(host, port) → the addresses of the host, the preferred one first. Raises OSError."""


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system knows them. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label of it is empty, or longer than 63 characters
        raise socket.gaierror(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Transport(httpx.BaseTransport):
    """Sends requests to one origin, directly or through a proxy.

    `tls` verifies the origin. `left` returns the seconds that the request under way may still take,
    and raises httpcore.ReadTimeout if there are none. `anywhere` allows private addresses.
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        proxy: httpx.Proxy | None,
        left: Callable[[], float],
        *,
        anywhere: bool,
        resolve: Resolve = resolve,
    ) -> None:
        self._network = _Network(left, resolve, anywhere=anywhere)
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            proxy=_proxy(proxy) if proxy else None,
            keepalive_expiry=_KEEP_ALIVE,
            network_backend=self._network,
        )

    @property
    def peer(self) -> str:
        """The host whose certificate was verified last; "" before there was one."""
        return self._network.peer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and return the response, whose body is read as it is iterated."""
        assert isinstance(request.stream, httpx.SyncByteStream)
        sent = httpcore.Request(
            method=request.method,
            url=_url(request.url),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _errors_of_httpx():
            response = self._pool.handle_request(sent)
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _errors_of_httpx():
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


def _url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


def _proxy(proxy: httpx.Proxy) -> httpcore.Proxy:
    return httpcore.Proxy(
        _url(proxy.url),
        auth=proxy.raw_auth,
        headers=proxy.headers.raw,
        ssl_context=proxy.ssl_context,
    )


_ERRORS: Mapping[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.TimeoutException: httpx.TimeoutException,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.NetworkError: httpx.NetworkError,
    httpcore.ProxyError: httpx.ProxyError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.ProtocolError: httpx.ProtocolError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
}


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """Raise httpcore's errors as those of httpx that have the same name."""
    try:
        yield
    except tuple(_ERRORS) as error:
        kind = next(_ERRORS[base] for base in type(error).__mro__ if base in _ERRORS)
        raise kind(str(error)) from error


class _Stream(httpcore.NetworkStream):
    """A connection on which each wait ends at the deadline of the whole request."""

    def __init__(self, stream: httpcore.NetworkStream, network: "_Network") -> None:
        self._stream = stream
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        self._network.peer = server_hostname or ""
        stream = self._stream.start_tls(ssl_context, server_hostname, self._network.left())
        return _Stream(stream, self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Network(httpcore.SyncBackend):
    def __init__(self, left: Callable[[], float], resolve: Resolve, *, anywhere: bool) -> None:
        self.left = left
        self.peer = ""
        self._resolve = resolve
        self._anywhere = anywhere

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._connect(host, port, local_address, socket_options)
        # The address that was connected to, not one looked up before: a name can change in between.
        where = str(stream.get_extra_info("server_addr")[0])
        if not self._anywhere and is_private(where):
            stream.close()
            raise ContractError(
                f"{host} leads to {where}, an address of a private network",
                advice="nothing was sent there; if that is right, set allow_private_hosts = true"
                " in [network] or for the source",
            )
        return _Stream(stream, self)

    def _connect(
        self,
        host: str,
        port: int,
        local_address: str | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers; each may take its share of the time left.

        Otherwise one that never answers, such as IPv6 where it leads nowhere, would take it all.
        """
        try:
            addresses = self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for others in range(len(addresses) - 1, -1, -1):
            share = self.left() / (others + 1)
            address = addresses[-1 - others]
            try:
                return super().connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not others:
                    raise
        raise httpcore.ConnectError(f"{host} has no address")

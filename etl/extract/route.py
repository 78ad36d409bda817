"""How a connection is made: directly or through a proxy, whom TLS trusts, where it may not lead.

Only settings decide it. Proxies, authorities, key logs and passwords that the environment names
(HTTPS_PROXY, SSL_CERT_FILE, SSL_CERT_DIR, SSLKEYLOGFILE, .netrc) are ignored.
"""

import errno
import re
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import certifi
import httpcore
import httpx
from pydantic import SecretStr

from etl.config.hosts import is_exempt, is_loopback, is_private
from etl.errors import ConfigError, ContractError, CredentialsError, ProviderError, UnavailableError


@dataclass(frozen=True, slots=True)
class Route:
    """The settings of a connection.

    `proxy`    "http://user:password@host:port" with user and password percent-encoded, or
               https://; "": none. It is asked to CONNECT to https:// hosts that no `no_proxy` names
               (see `hosts.is_exempt`); http:// is for loopback only, which is never proxied.
    `ca_file`  certificates (PEM) that are trusted besides those of certifi.
    `private`  whether addresses of private networks may be connected to.
    """

    proxy: str = field(default="", repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_file: Path | None = None
    private: bool = False


DIRECT = Route()


class Reach(Protocol):
    """What the settings of a source, or those of all sources, say about the network."""

    @property
    def proxy(self) -> SecretStr | None: ...  # noqa: D102

    @property
    def no_proxy(self) -> tuple[str, ...] | None: ...  # noqa: D102

    @property
    def ca_file(self) -> Path | None: ...  # noqa: D102

    @property
    def allow_private_hosts(self) -> bool | None: ...  # noqa: D102


def route_of(settings: Reach) -> Route:
    """Return the route that a source's settings, or those of all, describe."""
    return Route(
        proxy=settings.proxy.get_secret_value() if settings.proxy else "",
        no_proxy=settings.no_proxy or (),
        ca_file=settings.ca_file,
        private=bool(settings.allow_private_hosts),
    )


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """A context that verifies certificate and host name by certifi's authorities and `ca_file`'s.

    Raises ConfigError when a file of them cannot be read.
    """
    # Not ssl.create_default_context(), which writes the keys of each connection to SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate authority is enough
    where = "the certificates of certifi"
    try:
        context.load_verify_locations(certifi.where())
        if ca_file is not None:
            where = str(ca_file)
            context.load_verify_locations(ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"cannot be read: {error.strerror or 'not in PEM form'}",
            where=where,
            advice=out_of_files(error)
            or "check network.ca_file; it is a file of certificates in PEM form",
        ) from None
    return context


def out_of_files(error: OSError) -> str:
    """What to do where no more files can be opened; "" for any other error."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files (ulimit -n), or lower daemon.workers"
    return ""


class Way:
    """The way to one origin: httpx's transport for it, and what messages say about it.

    `left` gives the seconds that the request under way may still take; it raises
    httpcore.ReadTimeout when there are none. `proxy` is host:port of the proxy; "" for none.
    """

    def __init__(self, url: httpx.URL, route: Route, left: Callable[[], float]) -> None:
        through = httpx.URL(route.proxy) if route.proxy else None
        if url.scheme != "https" or is_exempt(url.host, route.no_proxy):
            through = None
        # Loading the authorities takes longer than a page; plain HTTP trusts nobody.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if url.scheme == "https":
            tls = trust(route.ca_file)
        self.proxy = through.netloc.decode() if through else ""
        self.transport = httpx.HTTPTransport(
            verify=tls,
            trust_env=False,
            proxy=_proxy(through, tls) if through else None,
        )
        anywhere = route.private or through is not None or is_loopback(url.host)
        self._backend = _Backend(left, anywhere=anywhere)
        # httpx has timeouts per read only, and one byte a second never meets them.
        self.transport._pool._network_backend = self._backend

    @property
    def peer(self) -> str:
        """The host whose certificate was verified last; "" before there was one."""
        return self._backend.peer


def _proxy(url: httpx.URL, tls: ssl.SSLContext) -> httpx.Proxy:
    return httpx.Proxy(url, ssl_context=tls if url.scheme == "https" else None)


def proxy_refusal(error: httpx.ProxyError, proxy: str, host: str) -> ProviderError:
    """What it means that `proxy` answered CONNECT with anything but a 2xx.

    UnavailableError where it may be better later. The answer's own text is not quoted.
    """
    told = re.match(r"\d{3}", str(error))
    status = int(told[0]) if told else 0
    said = f"the proxy {proxy} answered HTTP {status}" if status else f"the proxy {proxy} failed"
    if status == 407:
        return CredentialsError(
            f"{said}: it wants a user and a password, or others",
            advice="put them into network.proxy: http://user:password@host:port",
        )
    if status in (401, 403, 451):
        return CredentialsError(
            f"{said}: it does not let callflow reach {host}",
            advice=f"ask whoever runs the proxy to permit CONNECT to {host}",
        )
    if status in (408, 429) or status >= 500:
        return UnavailableError(
            f"{said}: it cannot reach {host}",
            advice="try again later; if it stays, ask whoever runs the proxy",
        )
    return ContractError(
        f"{said} where a proxy connects to {host}",
        advice="check that network.proxy is the address of an HTTP proxy that permits CONNECT",
    )


# --- under httpx ---------------------------------------------------------------------------------
class _Stream(httpcore.NetworkStream):
    """A connection on which each wait ends at the deadline of the whole request."""

    def __init__(self, stream: httpcore.NetworkStream, backend: "_Backend") -> None:
        self._stream = stream
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._backend.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._backend.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        self._backend.peer = server_hostname or ""
        stream = self._stream.start_tls(ssl_context, server_hostname, self._backend.left())
        return _Stream(stream, self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    def __init__(self, left: Callable[[], float], *, anywhere: bool) -> None:
        self.left = left
        self.peer = ""
        self._anywhere = anywhere

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, self.left(), local_address, socket_options)
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

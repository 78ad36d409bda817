"""How a connection is made: directly or through a proxy, whom TLS trusts, where it may not lead.

Only settings decide that. Proxies, authorities, key logs and passwords that the environment names
(HTTPS_PROXY, SSL_CERT_FILE, SSL_CERT_DIR, SSLKEYLOGFILE, .netrc) are ignored.
"""

import errno
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import certifi
import httpx
from pydantic import SecretStr

from etl.config.hosts import is_exempt, is_loopback
from etl.errors import ConfigError
from etl.extract.transport import Transport


@dataclass(frozen=True, slots=True)
class Route:
    """The settings of a connection.

    `proxy`    "http://user:password@host:port" with user and password percent-encoded, or
               https://…; "" for none. It is asked to CONNECT to https:// hosts, except those that
               `no_proxy` names (see `hosts.is_exempt`). http:// is for loopback only, which is
               never proxied.
    `ca_file`  certificates (PEM) that are trusted besides those of certifi.
    `private`  whether connections to addresses of private networks are allowed.
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
    """Return the route that the settings of a source, or those of all sources, describe."""
    return Route(
        proxy=settings.proxy.get_secret_value() if settings.proxy else "",
        no_proxy=settings.no_proxy or (),
        ca_file=settings.ca_file,
        private=bool(settings.allow_private_hosts),
    )


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that verifies certificate and host name by certifi's and `ca_file`'s roots.

    Raise ConfigError if one of the two files cannot be read.
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
    """Return what to do if no more files can be opened; "" for any other error."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files (ulimit -n), or lower daemon.workers"
    return ""


class Way:
    """The way to one origin: httpx's transport for it, and what messages say about it.

    `left` returns the seconds that the request under way may still take, and raises
    httpcore.ReadTimeout if there are none. `proxy` is host:port of the proxy; "" for none.
    """

    def __init__(self, url: httpx.URL, route: Route, left: Callable[[], float]) -> None:
        through = httpx.URL(route.proxy) if route.proxy else None
        if url.scheme != "https" or is_exempt(url.host, route.no_proxy):
            through = None
        # Loading the authorities takes longer than a page; plain HTTP needs none.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if url.scheme == "https":
            tls = trust(route.ca_file)
        self.proxy = through.netloc.decode() if through else ""
        self.transport = Transport(
            tls,
            _proxy(through, tls) if through else None,
            left,
            anywhere=route.private or through is not None or is_loopback(url.host),
        )

    @property
    def peer(self) -> str:
        """The host whose certificate was verified last; "" before there was one."""
        return self.transport.peer


def _proxy(url: httpx.URL, tls: ssl.SSLContext) -> httpx.Proxy:
    return httpx.Proxy(url, ssl_context=tls if url.scheme == "https" else None)

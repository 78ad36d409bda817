"""A private authority, TLS in front of an emulator, and an HTTP proxy that makes tunnels."""

import base64
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Authority:
    """A certificate authority of a company; `ca_file` is its certificate."""

    def __init__(self, folder: Path, name: str = "Our Own CA") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = (
            self._dated(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = folder / f"{name.replace(' ', '-')}.pem"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _dated(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        number = x509.random_serial_number()
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), number)
        return builder.not_valid_before(now - timedelta(days=1)).not_valid_after(
            now + timedelta(days=1)
        )

    def server(self, *hosts: str) -> ssl.SSLContext:
        """Return the TLS side of a server with a certificate for these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        certificate = (
            self._dated(subject, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        path = self._folder / "server.pem"
        path.write_bytes(
            key.private_bytes(pem, form, serialization.NoEncryption())
            + certificate.public_bytes(pem)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


@contextmanager
def listening(
    talk: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Serve on 127.0.0.1, each connection by `talk` in a thread; yield the port."""
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []
    ended = threading.Event()

    def run(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if context is None:
                talk(connection)
                return
            with context.wrap_socket(connection, server_side=True) as tls:
                connections.append(tls)
                talk(tls)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                connection, _ = listener.accept()
                if ended.is_set():
                    connection.close()
                    return
                connections.append(connection)
                threads.append(threading.Thread(target=run, args=(connection,), daemon=True))
                threads[-1].start()

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            with socket.create_connection(listener.getsockname()):
                acceptor.join()
            for connection in connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def piped(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=carry, args=(other, one), daemon=True)
    back.start()
    carry(one, other)
    back.join()


@contextmanager
def in_tls(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """Put TLS in front of the plain server at `port`; yield the new port."""

    def talk(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as inner:
            piped(connection, inner)

    with listening(talk, context) as front:
        yield front


@dataclass
class Proxy:
    """What a proxy does, and what it saw: `heads` are the requests as they came.

    `ports` says where a host is; others it cannot reach (502). `login` is "user:password" that it
    wants. `answer` replaces its answer to everything, `stall` lets it answer nothing.
    """

    ports: Mapping[str, int]
    login: str = ""
    answer: bytes = b""
    stall: bool = False
    heads: list[bytes] = field(default_factory=list)
    url: str = ""

    @property
    def asked(self) -> list[str]:
        """Return the first line of each request."""
        return [head.partition(b"\r\n")[0].decode() for head in self.heads]

    def talk(self, connection: socket.socket) -> None:
        """Serve one connection."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (data := connection.recv(1)):
                return
            head += data
        self.heads.append(head)
        if self.stall:
            connection.recv(1)
            return
        wanted = b"Proxy-Authorization: Basic " + base64.b64encode(self.login.encode())
        if self.login and wanted.lower() not in head.lower():
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        if self.answer:
            connection.sendall(self.answer)
            connection.recv(65_536)
            return
        place = head.split(b" ")[1].decode().rpartition(":")[0]
        if place not in self.ports:
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", self.ports[place])) as inner:
            connection.sendall(ESTABLISHED)
            piped(connection, inner)


@contextmanager
def proxied(
    ports: Mapping[str, int], *, tls: ssl.SSLContext | None = None, **how: object
) -> Iterator[Proxy]:
    """Yield a running proxy; with `tls` its clients talk TLS to it."""
    proxy = Proxy(ports, **how)  # type: ignore[arg-type]
    with listening(proxy.talk, tls) as port:
        proxy.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield proxy

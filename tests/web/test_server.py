"""The socket and its thread: what is refused, and that nothing is left behind."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from etl.errors import ConfigError
from etl.web.server import listen, serving
from tests.web import fleet
from tests.web.running import running

BIG = b"x" * 50_000_000  # more than the buffers of both sockets hold
ASK = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def small(request: Request) -> Response:
    return PlainTextResponse("small")


async def big(request: Request) -> Response:
    return Response(BIG)


APP = Starlette(routes=[Route("/", small), Route("/big", big)])


def connect(sock: socket.socket) -> socket.socket:
    return socket.create_connection(sock.getsockname()[:2], timeout=10)


def get(url: str) -> str:
    """With a client of its own, which ends when it has its answer."""
    return httpx.get(url, trust_env=False, verify=False, timeout=20).text


def ends(connection: socket.socket) -> bool:
    """Whether the server ended the connection, in order or with a reset."""
    with suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Afterwards there are no more threads than before; worker threads may take a moment."""
    before = threading.active_count()
    yield
    until(lambda: threading.active_count() <= before)


# --- listening ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "localhost:0", "0.0.0.0:0", "[::1]:0", "[::]:0"]
)
def test_it_listens_on_addresses_of_both_kinds(address: str) -> None:
    if "[" in address and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    host = "::1" if address == "[::1]:0" else "127.0.0.1"
    sock = listen(address)
    with serving(APP, sock), socket.create_connection((host, sock.getsockname()[1])) as client:
        client.sendall(ASK % b"")
        assert client.recv(12) == b"HTTP/1.1 200"


def test_a_port_that_is_taken_is_refused_with_advice() -> None:
    with listen("127.0.0.1:0") as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(ConfigError) as refused:
            listen(address)
    assert f"cannot listen on {address}: address already in use" in str(refused.value)
    assert "choose another port" in refused.value.advice


def test_a_port_is_free_again_at_once() -> None:
    first = listen("127.0.0.1:0")
    address = f"127.0.0.1:{first.getsockname()[1]}"
    with serving(APP, first):
        assert get(f"http://{address}/") == "small"
    with serving(APP, listen(address)):
        assert get(f"http://{address}/") == "small"


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        listen("192.0.2.1:8787")
    assert "cannot listen on 192.0.2.1:8787: cannot assign" in str(refused.value)
    assert "this machine has no such address" in refused.value.advice


NO_ADDRESSES = ("8787", ":8787", "", "[]:8787", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536",
                "127.0.0.1:-1", "[::z]:1")  # fmt: skip


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError) as refused:
        listen(address)
    assert f"cannot listen on {address}: no host and port" in str(refused.value)


# --- ending ---------------------------------------------------------------------------------------
def test_it_ends_though_clients_keep_their_connections_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with nothing_left(), ExitStack() as clients:
        sock = listen("127.0.0.1:0")
        where = sock.getsockname()
        with serving(APP, sock):
            silent, half, idle, slow = (clients.enter_context(connect(sock)) for _ in range(4))
            half.sendall(b"GET / HTTP/1.1\r\nHost: loc")
            idle.sendall(ASK % b"")
            assert idle.recv(12) == b"HTTP/1.1 200"
            slow.sendall(ASK % b"big")
            assert slow.recv(12) == b"HTTP/1.1 200"
            assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
            began = time.monotonic()
        assert time.monotonic() - began < 2.5
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
        assert sock.fileno() == -1
        assert ends(silent)
        assert ends(half)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where)


def test_it_ends_before_it_served_anything() -> None:
    with nothing_left():
        for _ in range(3):
            sock = listen("127.0.0.1:0")
            with serving(APP, sock):
                pass
            assert sock.fileno() == -1


def test_an_answer_on_its_way_gets_through() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def metrics() -> bytes:
        asked.set()
        assert go_on.wait(10)
        return b"up 1\n"

    found: list[str] = []
    with running(metrics=metrics) as client:
        url = str(client.base_url.join("/metrics"))
        thread = threading.Thread(target=lambda: found.append(get(url)))
        thread.start()
        assert asked.wait(10)
        threading.Timer(0.3, go_on.set).start()
    thread.join()
    assert found == ["up 1\n"]


def test_it_ends_though_the_database_hangs() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hangs(pairs: object) -> fleet.Runs:
        asked.set()
        assert go_on.wait(30)
        return {}

    def ask(url: str) -> None:
        with suppress(httpx.HTTPError):
            get(url)

    with nothing_left():
        try:
            with running(recent=hangs, patience=60) as client:
                thread = threading.Thread(target=ask, args=(str(client.base_url),))
                thread.start()
                assert asked.wait(10)
                began = time.monotonic()
            assert time.monotonic() - began < 4
        finally:
            go_on.set()
        thread.join()


# --- clients that take and give nothing -----------------------------------------------------------
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: loc"])
def test_a_connection_that_asks_for_nothing_ends_after_its_lifetime(sent: bytes) -> None:
    sock = listen("127.0.0.1:0")
    with serving(APP, sock, lifetime=0.2), connect(sock) as client:
        client.sendall(sent)
        began = time.monotonic()
        assert ends(client)
        assert 0.15 < time.monotonic() - began < 0.9


def test_an_answer_has_a_second_more_then_its_connection_ends() -> None:
    sock = listen("127.0.0.1:0")
    with serving(APP, sock, lifetime=0.2), connect(sock) as client:
        client.sendall(ASK % b"big")
        time.sleep(1.6)  # it reads nothing meanwhile
        received = 0
        with suppress(ConnectionResetError):
            while chunk := client.recv(1 << 20):
                received += len(chunk)
        assert 0 < received < len(BIG)


def test_there_are_only_so_many_connections() -> None:
    sock = listen("127.0.0.1:0")
    with serving(APP, sock, connections=2), ExitStack() as clients:
        first, second = (clients.enter_context(connect(sock)) for _ in range(2))
        for each in (first, second):
            each.sendall(ASK % b"")
            assert each.recv(12) == b"HTTP/1.1 200"
        third = clients.enter_context(connect(sock))
        assert ends(third)
        second.close()

        def answered() -> bool:
            with connect(sock) as again, suppress(ConnectionError):
                again.sendall(ASK % b"")
                return again.recv(12) == b"HTTP/1.1 200"
            return False

        until(answered)

"""The socket and its thread: what is refused, and that nothing is left behind."""

import asyncio
import itertools
import logging
import resource
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from etl.daemon.web.server import listen, network_of, serving
from etl.errors import ConfigError
from tests.machine import slowness
from tests.web import fleet
from tests.web.running import running

pytestmark = pytest.mark.slow

BIG = b"x" * 50_000_000  # more than the buffers of both sockets hold
ASK = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def small(request: Request) -> Response:
    return PlainTextResponse("small")


async def big(request: Request) -> Response:
    return Response(BIG)


APP = Starlette(routes=[Route("/", small), Route("/big", big)])


def connect(sock: socket.socket, source: str = "127.0.0.1") -> socket.socket:
    where = sock.getsockname()[:2]
    return socket.create_connection(where, timeout=60, source_address=(source, 0))


def said(connection: socket.socket) -> bytes:
    """Return all that the server says until it ends the connection."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while chunk := connection.recv(1 << 20):
            received += chunk
    return bytes(received)


def get(url: str) -> str:
    """Ask with a separate client, which ends when it has its answer."""
    return httpx.get(url, trust_env=False, verify=False, timeout=60).text


def ends(connection: socket.socket) -> bool:
    """Return whether the server ended the connection, in order or with a reset."""
    with suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Check that no thread is left at the end; worker threads may take a moment."""
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
def test_a_text_that_is_no_address_is_refused(address: str) -> None:
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
            started = time.monotonic()
        assert time.monotonic() - started < 2.5 * slowness()
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


def test_an_answer_being_sent_is_completed() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def metrics() -> bytes:
        asked.set()
        assert go_on.wait(60)
        return b"up 1\n"

    found: list[str] = []
    with running(metrics=metrics) as client:
        url = str(client.base_url.join("/metrics"))
        thread = threading.Thread(target=lambda: found.append(get(url)))
        thread.start()
        assert asked.wait(60)
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
                assert asked.wait(60)
                started = time.monotonic()
            assert time.monotonic() - started < 4 * slowness()
        finally:
            go_on.set()
        thread.join()


# --- clients that take and give nothing -----------------------------------------------------------
HALF = b"GET / HTTP/1.1\r\nHost: loc"


@pytest.mark.parametrize("sent", [b"", HALF])
@pytest.mark.parametrize("limit", ["head", "lifetime"])
def test_a_connection_that_asks_for_nothing_ends(sent: bytes, limit: str) -> None:
    sock = listen("127.0.0.1:0")
    limits = {"head": 60.0, "lifetime": 60.0, limit: 0.2}
    with serving(APP, sock, **limits), connect(sock) as client:  # type: ignore[arg-type]
        client.sendall(sent)
        assert ends(client)


def test_an_answer_has_a_second_more_then_its_connection_ends() -> None:
    sock = listen("127.0.0.1:0")
    with serving(APP, sock, lifetime=0.2), connect(sock) as client:
        client.sendall(ASK % b"big")
        deadline = time.monotonic() + 60
        with suppress(ConnectionError):  # it reads nothing meanwhile, and hears nothing of the end
            while time.monotonic() < deadline:
                client.sendall(b"x")
                time.sleep(0.1)
        assert len(said(client)) < len(BIG)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ", id="head"),
        pytest.param(ASK % b"" + HALF, id="second head"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", id="body"
        ),
    ],
)
def test_a_request_that_comes_byte_by_byte_has_to_come_in_time(start: bytes) -> None:
    sock = listen("127.0.0.1:0")
    with serving(APP, sock, head=0.3), connect(sock) as client:
        client.sendall(start)
        client.settimeout(0.05)
        deadline = time.monotonic() + 30
        with suppress(ConnectionError):
            while True:
                assert time.monotonic() < deadline, "it is still heard"
                client.sendall(b"x")
                with suppress(TimeoutError):
                    if client.recv(4096) == b"":
                        break


def test_a_head_that_never_ends_is_refused() -> None:
    sock = listen("127.0.0.1:0")
    with serving(APP, sock), connect(sock) as client:
        with suppress(ConnectionError):
            for _ in range(1000):
                client.sendall(b"X-Long: %s\r\n" % (b"x" * 1000))
        assert ends(client) or b"400" in said(client)
        assert get(f"http://127.0.0.1:{sock.getsockname()[1]}/") == "small"


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_nothing_is_upgraded(upgrade: str) -> None:
    ask = f"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
    sock = listen("127.0.0.1:0")
    with serving(APP, sock), connect(sock) as client:
        client.sendall(ask.encode())
        assert client.recv(15) == b"HTTP/1.1 200 OK"


def test_an_http_1_0_client_is_answered_and_its_connection_closed() -> None:
    sock = listen("127.0.0.1:0")
    with serving(APP, sock), connect(sock) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert said(client).endswith(b"small")


def test_requests_that_are_sent_at_once_are_answered_in_turn() -> None:
    sock = listen("127.0.0.1:0")
    last = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with serving(APP, sock), connect(sock) as client:
        client.sendall(ASK % b"" * 300 + last)
        assert get(f"http://127.0.0.1:{sock.getsockname()[1]}/") == "small"
        assert said(client).count(b"HTTP/1.1 200 OK") == 301


def test_an_invalid_request_is_no_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    sock = listen("127.0.0.1:0")
    with serving(APP, sock):
        with connect(sock) as client:
            client.sendall(b"\x16\x03\x01\x02\r\n\r\n")
            assert said(client).startswith(b"HTTP/1.1 400")
        with connect(sock) as client:
            client.sendall(chunked)
            assert client.recv(12) == b"HTTP/1.1 405"  # before the body has come
            client.sendall(b"no chunk\r\n")
            said(client)
    logged = [each for each in caplog.records if each.levelno > logging.INFO]
    assert [each.getMessage() for each in logged if each.name.startswith("uvicorn")] == []
    assert [each.getMessage() for each in logged if each.name == "asyncio"] == []


# --- too many of them -----------------------------------------------------------------------------
def answered(connection: socket.socket) -> bool:
    """Return whether a request on it is answered, after reading everything that came."""
    return connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_a_new_connection_is_served_and_the_oldest_makes_room() -> None:
    sock = listen("127.0.0.1:0")
    with serving(APP, sock, connections=2), ExitStack() as clients:
        first, second, third = (clients.enter_context(connect(sock)) for _ in range(3))
        assert ends(first)
        for each in (third, second):
            each.sendall(ASK % b"")
            assert answered(each)


def test_the_client_with_most_connections_makes_room() -> None:
    sock = listen("127.0.0.1:0")
    with serving(APP, sock, connections=3), ExitStack() as clients:
        other = clients.enter_context(connect(sock, "127.0.0.2"))
        flood = [clients.enter_context(connect(sock)) for _ in range(20)]
        assert all(ends(each) for each in flood[:-2])
        for each in (other, *flood[-2:]):
            each.sendall(ASK % b"")
            assert answered(each)


def test_a_new_connection_is_kept_until_its_request_can_have_arrived() -> None:
    sock = listen("127.0.0.1:0")
    with serving(APP, sock, connections=3, young=600), ExitStack() as clients:
        rests, unread = (clients.enter_context(connect(sock)) for _ in range(2))
        unread.sendall(ASK % b"big")
        assert unread.recv(12) == b"HTTP/1.1 200"
        rests.sendall(ASK % b"")
        assert answered(rests)
        new, *_ = [clients.enter_context(connect(sock)) for _ in range(3)]
        assert b"HTTP/1.1 200" not in said(rests)  # and it ends
        assert len(said(unread)) < len(BIG)
        new.sendall(ASK % b"")
        assert answered(new)


def test_a_request_that_is_being_answered_is_cut_last() -> None:
    """Of four connections, the oldest is being answered, one is not read, one rests, one is new."""
    asked, go_on = threading.Semaphore(0), threading.Event()

    async def slow(request: Request) -> Response:
        asked.release()
        await asyncio.to_thread(go_on.wait, 60)
        return PlainTextResponse("slow")

    sock = listen("127.0.0.1:0")
    application = Starlette(routes=[*APP.routes, Route("/slow", slow)])
    with serving(application, sock, connections=4, young=0), ExitStack() as clients:
        under_way, unread, rests, silent = (clients.enter_context(connect(sock)) for _ in range(4))
        under_way.sendall(ASK % b"slow")
        assert asked.acquire(timeout=60)
        unread.sendall(ASK % b"big")
        assert unread.recv(12) == b"HTTP/1.1 200"
        rests.sendall(ASK % b"")
        assert answered(rests)
        for client in (silent, rests, unread):
            new = clients.enter_context(connect(sock))
            new.sendall(ASK % b"slow")
            assert asked.acquire(timeout=60)
            with suppress(ConnectionError):
                client.sendall(ASK % b"")
            received = said(client)
            assert len(received) < len(BIG)
            assert b"HTTP/1.1 200" not in received
        go_on.set()
        assert answered(under_way)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::9", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a unix socket", "a unix socket"),
    ],
)
def test_one_client_may_have_many_addresses_of_ipv6(host: str, network: str) -> None:
    assert network_of(host) == network


SENT = (
    b"",
    HALF,
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx",
    ASK % b"metrics" * 20,
    ASK % b"healthz",
    b"\x16\x03\x01\r\n\r\n",
)


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(4096, before[1])), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    ("count", "sent"), [(300, [HALF]), (1000, SENT)], ids=["300 half", "1000 mixed"]
)
def test_probes_are_answered_whatever_others_hold_open(count: int, sent: Sequence[bytes]) -> None:
    """Keep `count` connections without a token open, replacing those that the server ends."""
    over, full = threading.Event(), threading.Event()
    opened = 0

    def attack(where: tuple[str, int]) -> None:
        nonlocal opened
        held: deque[socket.socket] = deque()
        for each in itertools.cycle(sent):
            if over.is_set():
                break
            client = socket.socket()
            held.append(client)
            with suppress(OSError):  # the queue may be full for a moment
                client.settimeout(30)
                client.connect(where)
                client.sendall(each)
            opened += 1
            if len(held) > count:
                held.popleft().close()
                full.set()
                time.sleep(0.005)
        for each_held in held:
            each_held.close()

    with running(fleet.SOME_BAD, token="a token of some length") as client:
        where = ("127.0.0.1", client.base_url.port or 0)
        attacker = threading.Thread(target=attack, args=(where,), daemon=True)
        attacker.start()
        try:
            assert full.wait(120)
            before = opened
            for _ in range(10):
                assert get(str(client.base_url.join("/healthz"))) == "ok\n"
                assert get(str(client.base_url.join("/readyz"))) == "not ready\n"
            assert attacker.is_alive()
            until(lambda: opened > before)
        finally:
            over.set()
            attacker.join()

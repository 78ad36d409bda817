"""Faults as a client meets them, on real sockets."""

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from random import Random

import httpx
import pytest

from etl.errors import ConfigError
from etl.sandbox.exchange import Request, Response, json_response
from etl.sandbox.faults import Fault, altered, empty, gzip_bomb, html, redirect
from etl.sandbox.server import Sandbox
from etl.sandbox.twilio import Twilio
from etl.sandbox.wire import Clock, serving
from tests.sandbox.clients import twilio_get, twilio_pages


@pytest.fixture
def twilio(sandbox: Sandbox) -> Twilio:
    sandbox.twilio.channels.add({"sid": "CH1"})
    emulator: Twilio = sandbox.twilio
    return emulator


@contextmanager
def asked(twilio: Twilio, path: str = "/v1/Channels") -> Iterator[socket.socket]:
    """Yield a socket on which a good request was sent and nothing was read."""
    port = int(twilio.url.rpartition(":")[2])
    request = httpx.Request(
        "GET", f"{twilio.url}{path}", headers={"Host": twilio.url.removeprefix("http://")}
    )
    auth = httpx.BasicAuth(twilio.account_sid, twilio.auth_token)
    request = next(auth.auth_flow(request))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"GET {path} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in request.headers.items()
        )
        connection.sendall(f"{head}\r\n".encode())
        yield connection


def everything(connection: socket.socket) -> tuple[dict[str, str], bytes]:
    """Return headers and body up to the end of the connection."""
    received = b""
    while part := connection.recv(65_536):
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return {
        name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
    }, body


def statuses(http: httpx.Client, twilio: Twilio, count: int, path: str = "Channels") -> list[int]:
    return [twilio_get(http, twilio, path).status_code for _ in range(count)]


# -- when a fault happens -------------------------------------------------------------------------


def test_a_fault_happens_once_by_default(http: httpx.Client, twilio: Twilio) -> None:
    once, twice = Fault(response=empty(500)), Fault(response=empty(501), times=2)
    twilio.faults += [once, twice]
    assert statuses(http, twilio, 5) == [500, 501, 501, 200, 200]
    assert (once.seen, once.fired, twice.seen, twice.fired) == (5, 1, 5, 2)


def test_the_nth_and_every_kth_request(http: httpx.Client, twilio: Twilio) -> None:
    twilio.faults.append(Fault(nth=3, response=empty(500)))
    assert statuses(http, twilio, 4) == [200, 200, 500, 200]
    twilio.faults[:] = [Fault(nth=2, response=empty(500)), Fault(nth=3, response=empty(501))]
    assert statuses(http, twilio, 4) == [200, 500, 501, 200]
    twilio.faults[:] = [Fault(every=2, times=None, response=empty(500))]
    assert statuses(http, twilio, 5) == [200, 500, 200, 500, 200]


def test_requests_that_do_not_match_do_not_count(http: httpx.Client, twilio: Twilio) -> None:
    def has_size(request: Request) -> bool:
        return "PageSize" in request.params

    twilio.faults.append(Fault(path="/v1/Flex*", nth=2, response=empty(500)))
    assert statuses(http, twilio, 3) == [200, 200, 200]
    assert statuses(http, twilio, 3, "FlexFlows") == [200, 500, 200]
    twilio.faults[:] = [Fault(when=has_size, nth=2, response=empty(500))]
    assert statuses(http, twilio, 3) == [200, 200, 200]
    assert statuses(http, twilio, 3, "Channels?PageSize=2") == [200, 500, 200]
    twilio.faults[:] = [Fault(path="/v1/Channels", response=empty(500))]
    assert statuses(http, twilio, 1, "Channels/CH1") == [200]


def test_random_faults_are_repeatable(http: httpx.Client, twilio: Twilio) -> None:
    def run(seed: int) -> list[int]:
        fault = Fault(probability=0.5, rng=Random(seed), times=None, response=empty(500))
        twilio.faults[:] = [fault]
        return statuses(http, twilio, 24)

    assert run(1) == run(1) != run(2)
    assert set(run(1)) == {200, 500}


def test_rows_can_change_between_two_pages(http: httpx.Client, twilio: Twilio) -> None:
    for number in range(2, 6):
        twilio.channels.add({"sid": f"CH{number}"})

    def change(emulator: Twilio, request: Request) -> None:
        assert request.params["PageSize"] == "2"
        emulator.channels.delete("CH3")

    twilio.faults.append(Fault(nth=2, before_request=change))
    assert twilio_pages(http, twilio, "Channels", PageSize="2") == [["CH5", "CH4"], ["CH2", "CH1"]]


def test_a_change_of_rows_does_not_prevent_the_next_fault(
    http: httpx.Client, twilio: Twilio
) -> None:
    calls = []
    twilio.faults += [
        Fault(before_request=lambda *_: calls.append("first"), times=None),
        Fault(response=empty(500), before_request=lambda *_: calls.append("second")),
        Fault(response=empty(501), before_request=lambda *_: calls.append("third")),
    ]
    assert statuses(http, twilio, 3) == [500, 501, 200]
    assert calls == ["first", "second", "first", "third", "first"]
    twilio.faults[:] = [Fault(response=empty(500)), Fault(before_request=lambda *_: calls.clear())]
    assert statuses(http, twilio, 1) == [500]
    assert calls == []


# -- what arrives ---------------------------------------------------------------------------------


def test_other_answers(http: httpx.Client, twilio: Twilio) -> None:
    def echo(request: Request, honest: Response) -> Response:
        return json_response(418, {"asked": request.path, "honest": honest.status})

    def miscount(page: dict[str, dict[str, int]]) -> None:
        page["meta"]["page_size"] = 7

    twilio.faults += [
        Fault(response=html(502)),
        Fault(response=empty(500)),
        Fault(response=redirect("https://elsewhere.example.com/")),
        Fault(response=echo),
        Fault(response=altered(miscount)),
    ]
    answer = twilio_get(http, twilio, "Channels")
    assert answer.status_code == 502
    assert answer.headers["content-type"].startswith("text/html")
    assert "Bad Gateway" in answer.text
    answer = twilio_get(http, twilio, "Channels")
    assert (answer.status_code, answer.content) == (500, b"")
    answer = twilio_get(http, twilio, "Channels")
    assert (answer.status_code, answer.headers["location"]) == (
        302,
        "https://elsewhere.example.com/",
    )
    answer = twilio_get(http, twilio, "Channels")
    assert answer.status_code == 418
    assert answer.json() == {"asked": "/v1/Channels", "honest": 200}
    page = twilio_get(http, twilio, "Channels").json()
    assert (page["meta"]["page_size"], page["flex_chat_channels"]) == (7, [{"sid": "CH1"}])
    assert [request.status for request in twilio.requests] == [502, 500, 302, 418, 200]


def test_a_reset_instead_of_an_answer(twilio: Twilio) -> None:
    twilio.faults.append(Fault(delivery="reset_at_once"))
    with asked(twilio) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert len(twilio.requests) == 1


def test_a_reset_in_the_middle_of_the_body(http: httpx.Client, twilio: Twilio) -> None:
    twilio.faults.append(Fault(delivery="reset", times=2))
    with asked(twilio) as connection, pytest.raises(ConnectionResetError):
        everything(connection)
    with pytest.raises(httpx.ReadError):
        twilio_get(http, twilio, "Channels")
    assert statuses(http, twilio, 1) == [200]


def test_a_body_cut_anywhere(http: httpx.Client, twilio: Twilio) -> None:
    whole = twilio_get(http, twilio, "Channels").content
    for cut in range(0, len(whole), 7):
        twilio.faults[:] = [Fault(delivery="truncated", cut=cut)]
        with asked(twilio) as connection:
            headers, body = everything(connection)
        assert headers["content-length"] == str(len(whole))
        assert body == whole[:cut]
    twilio.faults[:] = [Fault(delivery="truncated")]
    with asked(twilio) as connection:
        assert len(everything(connection)[1]) == len(whole) // 2
    twilio.faults[:] = [Fault(delivery="truncated")]
    with pytest.raises(httpx.RemoteProtocolError):
        twilio_get(http, twilio, "Channels")


def test_an_answer_cut_off_without_http_noticing(http: httpx.Client, twilio: Twilio) -> None:
    whole = twilio_get(http, twilio, "Channels").content
    twilio.faults.append(Fault(delivery="close_delimited", cut=20))
    answer = twilio_get(http, twilio, "Channels")
    assert (answer.status_code, answer.content) == (200, whole[:20])
    assert "content-length" not in answer.headers
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_large_bodies(http: httpx.Client, twilio: Twilio) -> None:
    whole = twilio_get(http, twilio, "Channels").json()
    twilio.faults.append(Fault(padding=1_000_000))
    answer = twilio_get(http, twilio, "Channels")
    assert len(answer.content) > 1_000_000
    assert answer.json() == whole
    bomb = gzip_bomb(2_000_001)
    assert len(bomb.body) < 5_000
    twilio.faults.append(Fault(response=bomb))
    answer = twilio_get(http, twilio, "Channels")
    assert answer.content == b" " * 2_000_001
    twilio.faults.append(Fault(padding=1_000_000, delivery="truncated", cut=500_000))
    with asked(twilio) as connection:
        headers, body = everything(connection)
    assert len(body) == 500_000 < int(headers["content-length"])


def test_slow_answers(http: httpx.Client, twilio: Twilio) -> None:
    size = len(twilio_get(http, twilio, "Channels").content)
    for fault, least in (
        (Fault(delay=0.15), 0.15),
        (Fault(bytes_per_second=size / 0.2), 0.15),
    ):
        twilio.faults.append(fault)
        start = time.monotonic()
        assert len(twilio_get(http, twilio, "Channels").content) == size
        assert least <= time.monotonic() - start < 60


# -- the connection and the record ----------------------------------------------------------------


def test_one_connection_carries_many_requests(twilio: Twilio) -> None:
    with asked(twilio) as connection:
        for number in range(1, 4):
            received = connection.recv(65_536)
            head, _, body = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert json.loads(body)["flex_chat_channels"] == [{"sid": "CH1"}]
            assert len(twilio.requests) == number
            connection.sendall(b"GET /v1/Channels HTTP/1.1\r\nHost: h\r\nAuthorization: ")
            connection.sendall(twilio.requests[0].headers["authorization"].encode() + b"\r\n\r\n")


def test_requests_are_recorded(http: httpx.Client, twilio: Twilio) -> None:
    twilio.clock = Clock(frozen_at=1_700_000_000)
    http.post(f"{twilio.url}/v1/a%20b?x=1+2&y=&x=%C3%A9", content=b"body", auth=("u", "p"))
    request = twilio.requests[-1]
    assert (request.method, request.path, request.body) == ("POST", "/v1/a b", b"body")
    assert request.target == "/v1/a%20b?x=1+2&y=&x=%C3%A9"
    assert request.query == [("x", "1 2"), ("y", ""), ("x", "é")]
    assert request.params == {"x": "é", "y": ""}
    assert request.headers["authorization"] == "Basic dTpw"
    assert (request.at, request.status) == (1_700_000_000, 401)


def test_the_record_is_bounded(http: httpx.Client) -> None:
    twilio = Twilio(keep_requests=3)
    with serving(twilio):
        for number in range(5):
            twilio_get(http, twilio, "Channels", PageSize=str(number + 1))
    assert [request.params["PageSize"] for request in twilio.requests] == ["3", "4", "5"]


def test_the_date_is_the_emulators(http: httpx.Client, twilio: Twilio) -> None:
    twilio.clock = Clock(frozen_at=1_700_000_000)
    answer = twilio_get(http, twilio, "Channels")
    assert answer.headers["date"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    twilio.clock.advance(-1)
    answer = twilio_get(http, twilio, "Channels")
    assert answer.headers["date"] == "Tue, 14 Nov 2023 22:13:19 GMT"


def test_a_running_clock_runs() -> None:
    clock = Clock()
    before = time.time()
    clock.advance(100)
    assert before + 100 <= clock() <= time.time() + 100


def test_a_bug_in_a_callable_fails_the_test(http: httpx.Client) -> None:
    def buggy(emulator: Twilio, request: Request) -> None:
        raise KeyError("no such key")

    twilio = Twilio()
    twilio.faults.append(Fault(before_request=buggy))
    with pytest.raises(KeyError, match="no such key"), serving(twilio):
        answer = twilio_get(http, twilio, "Channels")
        assert answer.status_code == 500
        assert "no such key" in answer.text
        assert statuses(http, twilio, 1) == [200]


# -- starting and stopping ------------------------------------------------------------------------


def test_stopping_waits_for_no_client() -> None:
    twilio = Twilio()
    twilio.faults += [Fault(delay=60), Fault(bytes_per_second=1), Fault(padding=500_000_000)]
    with ExitStack() as clients:
        with serving(twilio) as url:
            clients.enter_context(asked(twilio))
            while len(twilio.requests) < 1:
                pass
            for _ in range(2):
                assert clients.enter_context(asked(twilio)).recv(4) == b"HTTP"
            port = int(url.rpartition(":")[2])
            idle = clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            idle.sendall(b"GET /v1/")
            start = time.monotonic()
        assert time.monotonic() - start < 30  # the clients stay forever
        with suppress(ConnectionResetError):  # what it sent may not have been read
            assert idle.recv(1) == b""
    assert [fault.fired for fault in twilio.faults] == [1, 1, 1]


def test_a_client_that_hangs_up_is_no_error(http: httpx.Client, twilio: Twilio) -> None:
    twilio.faults.append(Fault(padding=50_000_000))
    with asked(twilio) as connection:
        assert connection.recv(4) == b"HTTP"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert statuses(http, twilio, 2) == [200, 200]
    assert twilio.errors == []


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"port {port} cannot be used"),
            serving(Twilio(), port),
        ):
            pass


def test_the_same_port_can_be_served_again_at_once(http: httpx.Client) -> None:
    with serving(Twilio()) as url:
        port = int(url.rpartition(":")[2])
    for _ in range(3):
        twilio = Twilio()
        with serving(twilio, port) as again:
            assert again == url
            assert statuses(http, twilio, 1) == [200]

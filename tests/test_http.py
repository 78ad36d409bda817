"""The HTTP client against real sockets: the sandbox's wire with its faults, and raw ones."""

import gzip
import ipaddress
import itertools
import json
import logging
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import httpcore
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from etl.errors import (
    ContractError,
    CredentialsError,
    ProviderError,
    Retry,
    TooLargeError,
    UnavailableError,
)
from etl.extract.answer import Answer, asked_wait
from etl.extract.http import Http
from etl.extract.transport import Transport
from etl.extract.url import basic, encode, same_origin
from etl.sandbox.exchange import JSON, Response, json_response
from etl.sandbox.faults import Fault, empty, gzip_bomb, html, redirect
from tests.extract.scripted import Script, Time, connected, scripted_http

NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
DATE = "Fri, 20 Nov 2026 12:00:00 GMT"
GOOD = {"good": True}
UNICODE = st.text(st.characters(codec="utf-8"))


def fails(http: Http, kind: type[ProviderError], **call: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        http.call("GET", "/list", **call)
    assert type(caught.value) is kind, caught.value
    assert caught.value.where.startswith("demo.stream")
    return caught.value


# --- retries -------------------------------------------------------------------------------------
@pytest.mark.fault(4)
@pytest.mark.parametrize(
    "bad",
    [
        json_response(429, {"message": "slow down"}),
        json_response(500, {"message": "oh"}),
        html(502),
        html(503),
        empty(504),
        empty(408),
    ],
)
def test_a_passing_failure_is_asked_again(bad: Response) -> None:
    script = Script(bad, bad, GOOD)
    with connected(script) as http:
        assert http.call("GET", "/list") == GOOD
        assert (http.budget.requests, http.budget.retries) == (3, 2)


@pytest.mark.fault(2, 4)
def test_a_lasting_failure_ends_after_six_attempts_with_capped_full_jitter() -> None:
    script, time = Script(html(502)), Time()
    with connected(script, time) as http:
        error = fails(http, UnavailableError, at="page 7")
    assert str(error).startswith("demo.stream, page 7: HTTP 502: 502 Bad Gateway Bad Gateway (6 at")
    assert len(script.requests) == http.budget.requests == 6
    assert len(time.slept) == http.budget.retries == 5
    assert http.budget.throttled == sum(time.slept)
    for attempt, pause in enumerate(time.slept):
        assert 0 <= pause <= 0.5 * 2**attempt
    assert len(set(time.slept)) == 5


@pytest.mark.parametrize(("sent", "logged"), [("abc-1", ", x-own-id abc-1"), ("a b", " s")])
def test_the_log_names_a_request_as_the_provider_does(
    sent: str, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "etl.extract.http")
    answer = Response(200, b"{}", {"X-Own-Id": sent, "X-Other-Id": "def-2"})
    with connected(Script(answer), request_id="x-own-id") as http:
        http.call("GET", "/list")
    assert caplog.messages[-1].endswith(logged)


@pytest.mark.fault(2)
def test_429_without_a_hint_waits_a_second_at_least() -> None:
    time = Time()
    with connected(Script(empty(429), GOOD), time) as http:
        http.call("GET", "/list")
    assert 1.0 <= time.slept[0] <= 1.5


@pytest.mark.fault(1)
@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "-5"}, 0.0),
        (
            {
                "Retry-After": "Fri, 20 Nov 2026 12:00:09 GMT",
                "Date": "Fri, 20 Nov 2026 12:00:00 GMT",
            },
            9,
        ),
        ({"Retry-After": "2026-11-20T12:00:30Z", "Date": DATE}, 30.0),
    ],
)
def test_the_provider_is_given_the_time_it_asks_for(headers: dict[str, str], least: float) -> None:
    time = Time()
    with connected(Script(Response(429, b"{}", headers), GOOD), time) as http:
        http.call("GET", "/list")
    assert least <= time.slept[0] <= least + 0.5


@pytest.mark.fault(1)
@pytest.mark.parametrize(
    "asked", ["86400", "Sat, 21 Nov 2026 12:00:00 GMT", "2026-11-21T12:00:00Z", "999999999999"]
)
def test_a_wait_beyond_the_cap_ends_the_run_and_says_so(asked: str) -> None:
    script, time = Script(Response(429, b"{}", {"Retry-After": asked})), Time()
    with connected(script, time, now=lambda: NOON) as http:
        script.clock.advance(NOON.timestamp() - script.clock())
        error = fails(http, UnavailableError)
    assert re.search(
        r"asks to wait (86400 s|86399 s|11574074 days), so this run gives up", error.what
    )
    assert len(script.requests) == 1
    assert not time.slept


@pytest.mark.fault(1)
def test_asked_wait_survives_nonsense() -> None:
    for text in ("", "soon", "nan", "inf", "1e9", "9" * 400, "2026-99-99", "Fri, 99 Nov 2026"):
        assert asked_wait({"retry-after": text}, NOON) is None
    huge = "9" * 400
    for text in (
        f"Fri, 20 Nov {huge} 12:00:00 GMT",
        "Fri, 20 Nov 99999999999 12:00:00 GMT",
        f"Fri, 20 Nov 2026 {huge}:00:00 GMT",
        f"Fri, 20 Nov 2026 12:00:00 +{huge}",
        f"{huge}-01-01T00:00:00Z",
        f"-{huge}",
        "1e400",
        "９９９９９",
    ):
        for header in ("retry-after", "date"):
            asked_wait({header: text}, NOON)
            asked_wait({"retry-after": "2026-11-20T12:00:30Z", header: text}, NOON)
    for year in ("0001", "9999"):
        moment = f"{year}-01-01T00:00:00+23:59"
        wait = asked_wait({"retry-after": moment, "date": "9999-12-31T23:59:59-23:59"}, NOON)
        assert wait is None or 0 <= wait < 10**12


@pytest.mark.fault(7)
def test_what_is_not_retried() -> None:
    for status, kind in ((400, ContractError), (401, CredentialsError), (403, CredentialsError)):
        script = Script(json_response(status, {"message": "no"}))
        with connected(script) as http:
            assert f"HTTP {status}: no" in fails(http, kind).what
        assert len(script.requests) == 1


@pytest.mark.fault(3)
def test_every_attempt_is_signed_again() -> None:
    nonces = iter(range(100))
    script = Script(empty(500), empty(500), GOOD)
    with connected(script, sign=lambda *_: {"x-nonce": str(next(nonces))}) as http:
        http.call("GET", "/list")
    assert [r.headers["x-nonce"] for r in script.requests] == ["0", "1", "2"]


def test_a_judge_may_ask_again_at_once_and_fewer_times() -> None:
    def judge(answer: Answer) -> None:
        raise Retry(ContractError("odd", advice="look"), backoff=False, attempts=2)

    time = Time()
    with connected(Script(), time, judge=judge) as http:
        error = fails(http, ContractError)
    assert (error.what, error.advice) == ("odd (2 attempts)", "look")
    assert time.slept == [0.0]


def test_requests_are_spaced_also_when_they_are_retried() -> None:
    script, time = Script(empty(500), GOOD), Time()
    starts: list[float] = []

    def sign(method: str, url: str, body: bytes) -> dict[str, str]:
        starts.append(time.now)
        return {}

    with connected(script, time, sign=sign, requests_per_second=0.5) as http:
        for _ in range(4):
            http.call("GET", "/list")
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert len(gaps) == 4
    assert min(gaps) == pytest.approx(2.0)
    assert max(gaps) < 2.6
    assert http.budget.throttled == pytest.approx(starts[-1] - starts[0])


@pytest.mark.fault(2)
def test_every_second_answer_failing_ends_a_run_that_would_go_on_forever() -> None:
    script, time = Script(GOOD), Time()
    script.faults.append(Fault(every=2, times=None, response=html(503)))
    with connected(script, time) as http:
        error: ProviderError | None = None
        for page in range(1, 1000):
            try:
                http.call("GET", "/list", at=f"page {page}")
            except UnavailableError as failed:
                error = failed
                break
        assert error is not None
        assert error.where == "demo.stream, page 15"
        assert re.search(r"^HTTP 503: .*; 13 of the 28 requests of this run were rep", error.what)
        assert (http.budget.retries, len(script.requests)) == (13, 28)
        assert "try again later" in error.advice


@pytest.mark.fault(2)
def test_one_failure_in_twenty_is_accepted_forever() -> None:
    script = Script(GOOD)
    script.faults.append(Fault(every=20, times=None, response=html(503)))
    with connected(script) as http:
        for _ in range(600):
            http.call("GET", "/list")
        assert http.budget.retries == 31


@pytest.mark.fault(1, 25)
def test_all_requests_of_a_scan_together_have_a_deadline() -> None:
    script, time = Script(GOOD), Time()
    with connected(script, time) as http:
        http.budget.allow(100)
        http.call("GET", "/list")
        time.now += 99
        http.call("GET", "/list")
        time.now += 1
        error = fails(http, UnavailableError, at="page 3")
        assert str(error).startswith("demo.stream, page 3: not done within 100 s → nothing was rem")
        assert "scan_deadline" in error.advice
        assert http.budget.requests == len(script.requests) == 2
        http.budget.allow(100)
        http.call("GET", "/list")


@pytest.mark.fault(1, 25)
def test_nothing_is_waited_for_beyond_the_deadline_of_the_scan() -> None:
    script, time = Script(Response(429, b"{}", {"Retry-After": "40"})), Time()
    with connected(script, time) as http:
        http.budget.allow(30)
        error = fails(http, UnavailableError)
    assert error.what.startswith("not done within 30 s; HTTP 429")
    assert not time.slept

    drip = Script(GOOD)
    drip.faults.append(Fault(delay=30, times=None))
    with connected(drip, clock=monotonic, sleep=lambda _: None) as http:
        http.budget.allow(0.2)
        assert "not done within 0.2 s" in fails(http, UnavailableError).what


# --- the network ---------------------------------------------------------------------------------
@pytest.mark.fault(23, 24)
@pytest.mark.parametrize("cut", range(13))
@pytest.mark.parametrize("delivery", ["reset", "truncated", "close_delimited"])
def test_a_page_cut_at_any_byte_is_asked_again(cut: int, delivery: Any) -> None:
    script = Script(GOOD)  # {"good":true} is 13 bytes
    script.faults.append(Fault(delivery=delivery, cut=cut, times=2))
    with connected(script) as http:
        assert http.call("GET", "/list") == GOOD
        assert http.budget.retries == 2


@pytest.mark.fault(23, 24)
@pytest.mark.parametrize(
    ("delivery", "kind"),
    [
        ("reset_at_once", UnavailableError),
        ("reset", UnavailableError),
        ("truncated", UnavailableError),
        ("close_delimited", ContractError),
    ],
)
def test_a_page_that_always_breaks_off(delivery: Any, kind: type[ProviderError]) -> None:
    script = Script(GOOD)
    script.faults.append(Fault(delivery=delivery, times=None))
    with connected(script) as http:
        error = fails(http, kind)
    assert len(script.requests) == (6 if kind is UnavailableError else 3)
    assert "127.0.0.1" in error.what or "not JSON" in error.what


@pytest.mark.fault(21)
def test_a_refused_connection_and_an_unknown_host() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with plain(url, setting="studio_url") as http:
            place = url.removeprefix("http://")
            error = fails(http, UnavailableError)
            assert f"cannot connect to {place}: Connection refused" in error.what
            assert error.advice.startswith("check studio_url and the network")
            assert http.budget.requests == 6
    for host in ("host.invalid", "host..invalid", f"{'h' * 64}.invalid"):
        with plain(f"https://{host}") as http:
            assert f"cannot resolve {host}" in fails(http, UnavailableError).what


@contextmanager
def plain(url: str, **options: Any) -> Iterator[Http]:
    with scripted_http(url, Time(), **options) as http:
        yield http


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yield a server that knows no HTTP: `talk` gets each connection, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopped = threading.Event()

        def accept() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if stopped.is_set():
                        return
                    try:
                        talk(connection)
                    except OSError:
                        continue  # the client has seen enough

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stopped.set()
            with socket.create_connection(listener.getsockname()):
                pass
            thread.join()


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"HTTP/1.1 2"]
)
def test_a_slow_drip_meets_the_deadline_of_the_whole_request(head: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(head)
        while True:  # every read gets a byte long before any timeout per read
            connection.sendall(b"0")
            time.sleep(0.01)

    with (
        raw_server(drip) as place,
        plain(f"http://{place}", timeout=0.15, clock=time.monotonic) as http,
    ):
        started = time.monotonic()
        error = fails(http, UnavailableError)
        seconds = time.monotonic() - started
    assert f"no complete answer from {place} within 0.15 s (6 attempts)" in error.what
    assert 6 * 0.15 <= seconds < 60  # without a deadline it would drip forever


@contextmanager
def silent(host: str, port: int) -> Iterator[None]:
    """Yield while connections to that address get no answer: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield


def test_an_address_that_never_answers_leaves_time_for_the_next_one() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    def left() -> float:
        if time.monotonic() > until:
            raise httpcore.ReadTimeout
        return until - time.monotonic()

    with raw_server(talk) as place, silent("127.0.0.2", port := int(place.partition(":")[2])):
        transport = Transport(
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), None, left, anywhere=True,
            resolve=lambda host, port: ["127.0.0.2", "127.0.0.1"],
        )  # fmt: skip
        until = time.monotonic() + 2
        with httpx.Client(transport=transport, trust_env=False) as client:
            assert client.get(f"http://two.example:{port}").text == "{}"


def test_the_deadline_counts_by_the_clock_that_was_given() -> None:
    ticks = iter(range(0, 100_000, 7))  # each look at the clock is 7 s later
    script = Script(GOOD)
    with connected(script, timeout=30, clock=lambda: float(next(ticks))) as http:
        assert "within 30 s" in fails(http, UnavailableError).what


@pytest.mark.fault(25)
def test_a_silent_server_meets_the_deadline() -> None:
    script = Script(GOOD)
    script.faults.append(Fault(delay=1.0))
    with connected(script, timeout=0.1, clock=time.monotonic) as http:
        assert http.call("GET", "/list") == GOOD
        assert http.budget.retries == 1


@pytest.mark.fault(22)
def test_a_certificate_that_cannot_be_verified_is_never_accepted(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    received = []

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            received.append(tls.recv(10_000))

    with raw_server(talk) as place, plain(f"https://{place}") as http:
        error = fails(http, CredentialsError)
        assert "certificate of 127.0.0.1 cannot be verified: self" in error.what
        assert http.budget.requests == 1
    assert not any(received)


def self_signed(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = folder / "both.pem"
    path.write_bytes(
        key.private_bytes(pem, form, serialization.NoEncryption()) + certificate.public_bytes(pem)
    )
    return path


@pytest.mark.slow
@pytest.mark.fault(31)
def test_proxies_and_netrc_of_the_environment_are_ignored(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("default login nobody password canary\n")
    stranger, script = Script(GOOD), Script(GOOD)
    with connected(stranger) as proxy, connected(script) as http:
        names = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
        environment = dict.fromkeys(names, proxy.base_url) | {
            "HOME": str(tmp_path),
            "NETRC": str(tmp_path / ".netrc"),
        }
        other_process(CALL, http.base_url, environment)
    assert not stranger.requests
    assert "authorization" not in script.requests[0].headers


# --- answers -------------------------------------------------------------------------------------
@pytest.mark.fault(29)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304])
def test_a_redirect_is_not_followed(status: int) -> None:
    stranger = Script(GOOD)
    with connected(stranger) as other:
        script = Script(redirect(f"{other.base_url}/secret?token=canary", status))
        with connected(script, sign=lambda *_: {"authorization": "Basic canary"}) as http:
            error = fails(http, ContractError)
    assert "unexpected redirect to 127.0.0.1" in error.what
    assert "canary" not in str(error)
    assert not stranger.requests
    assert len(script.requests) == 1


@pytest.mark.fault(29)
def test_a_redirect_to_nowhere() -> None:
    for location in ("", "http://[", "http://\x7f", "//a b/"):
        with connected(Script(redirect(location))) as http:
            assert "unexpected redirect" in fails(http, ContractError).what


@pytest.mark.fault(24, 28)
@pytest.mark.parametrize(
    "body",
    [
        b"<html><style>x{}</style><title>Log in</title>\x1b[31mCall +1 (605) 205-2430, me@x.org",
        b"",
        b'{"good": tru',
        b'{"good": NaN}',
        b'{"good": Infinity}',
        b'{"good": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_a_200_that_is_not_json_is_asked_again_and_then_a_broken_contract(body: bytes) -> None:
    script = Script(Response(200, body, {"Content-Type": "text/html"}))
    with connected(script) as http:
        error = fails(http, ContractError)
    assert len(script.requests) == 3
    assert error.what.startswith("HTTP 200, but the answer is not JSON: ")
    assert len(error.what) < 300
    assert error.what.isprintable()
    for secret in ("605", "2430", "me@x.org", "<"):
        assert secret not in error.what
    if b"Log in" in body:
        assert "Log in" in error.what


@pytest.mark.parametrize("body", ["[]", "null", '"x"', "1", "true"])
def test_json_that_is_no_object_breaks_the_contract(body: str) -> None:
    with connected(Script(Response(200, body.encode()))) as http:
        assert "not an object" in fails(http, ContractError).what


def test_strange_but_legal_json_is_read() -> None:
    body = (
        rb'{"half": "\ud83d", "nul": "\u0000", "big": 1e400, "twice": 1, "twice": 2,'
        rb' "long": 123456789012345678901234567890, "longest": ' + b"7" * 5000 + b"}"
    )
    with connected(Script(Response(200, b"\xef\xbb\xbf" + body), Response(200, body))) as http:
        for _ in range(2):
            answer = http.call("GET", "/list")
            assert answer["half"] == "\ud83d"
            assert answer["nul"] == "\x00"
            assert answer["big"] == "1e400"
            assert answer["long"] == 123456789012345678901234567890
            assert answer["longest"] == "7" * 5000
            assert answer["twice"] == 2


def test_json_by_another_content_type_is_read() -> None:
    with connected(Script(Response(200, b'{"good":true}', {"Content-Type": "text/plain"}))) as http:
        assert http.call("GET", "/list") == GOOD


def packed(text: bytes) -> Response:
    return Response(200, text, {**JSON, "Content-Encoding": "gzip"})


def test_gzip_is_asked_for_and_read() -> None:
    whole = gzip.compress(json.dumps({"rows": ["x" * 100] * 5000}).encode())
    members = gzip.compress(b'{"good":') + gzip.compress(b"true}")
    large = gzip.compress(b'{"a": "' + b"b" * (5 * 2**20 - 9) + b'"}')  # whole mebibytes
    script = Script(packed(whole), packed(members), packed(large))
    with connected(script) as http:
        assert http.call("GET", "/list")["rows"] == ["x" * 100] * 5000
        assert http.call("GET", "/list") == GOOD
        assert http.call("GET", "/list") == {"a": "b" * (5 * 2**20 - 9)}
    assert script.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.fault(23, 27)
def test_damaged_gzip_is_asked_again() -> None:
    whole = gzip.compress(b'{"good": true}')
    script = Script(packed(whole[:-3]), packed(b"\x1f\x8b\x08" + b"\xff" * 30), packed(whole))
    with connected(script) as http:
        assert http.call("GET", "/list") == GOOD
        assert http.budget.retries == 2
    with connected(Script(Response(200, b"x", {"Content-Encoding": "br"}))) as http:
        assert "other than gzip" in fails(http, ContractError).what


@pytest.mark.fault(26, 27)
def test_a_body_over_the_limit_is_refused_whatever_it_unpacks_from() -> None:
    room = gzip.compress(b'{"a":1}' + b" " * (2**20 - 7))
    script = Script(packed(room), gzip_bomb(2**20 + 1), Response(200, b" " * (2**20 + 1)))
    with connected(script, max_body=2**20) as http:
        assert http.call("GET", "/list") == {"a": 1}
        for _ in range(2):
            assert "larger than 1 MiB" in fails(http, TooLargeError).what
    assert len(script.requests) == 3


@pytest.mark.slow
@pytest.mark.fault(26, 27)
def test_a_bomb_and_a_huge_body_leave_memory_flat() -> None:
    bomb, padded = Script(gzip_bomb(2**28)), Script({})
    padded.faults.append(Fault(padding=2**30, times=None))
    for script in (bomb, padded):
        with connected(script) as http:
            peak = other_process(PEAK, http.base_url)
        kibibytes = int(peak) // (1024 if sys.platform == "darwin" else 1)
        assert kibibytes < 48 * 1024  # 32 MiB of body, and what its buffer grows by


CALL = """
import sys
from etl.extract.http import Http, Seam
from etl.extract.verdict import judge_status
with Http(sys.argv[1], Seam("x"), sign=lambda *_: {}, judge=judge_status) as http:
    http.call("GET", "/list")
"""
PEAK = """
import resource, sys
from etl.errors import ContractError
from etl.extract.http import Http, Seam
from etl.extract.verdict import judge_status
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Http(sys.argv[1], Seam("x"), sign=lambda *_: {}, judge=judge_status) as http:
    before = peak()
    try: http.call("GET", "/list")
    except ContractError as error: assert "larger than 32 MiB" in error.what
    print(peak() - before)
"""


def other_process(code: str, url: str, environment: Mapping[str, str] | None = None) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, url],
        env={**os.environ, **(environment or {})},
        cwd=Path(__file__).parent.parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


# --- what is sent --------------------------------------------------------------------------------
def test_query_and_form_are_encoded_once_after_rfc_3986() -> None:
    values = {"a b": "c+d*e~/ü", "x": "", "y": "%2F&="}
    script = Script(GOOD)
    with connected(script, path="/v2") as http:
        http.call("GET", "/list", values)
        http.call("POST", "/form", form=values)
    wire = "a%20b=c%2Bd%2Ae~%2F%C3%BC&x=&y=%252F%26%3D"
    assert script.requests[0].target == f"/v2/list?{wire}"
    assert script.requests[1].body == wire.encode()
    assert script.requests[1].headers["content-type"] == "application/x-www-form-urlencoded"
    assert script.requests[0].headers["accept"] == "application/json"


def test_one_connection_is_kept_alive() -> None:
    connections = 0

    def talk(connection: socket.socket) -> None:
        nonlocal connections
        connections += 1
        while connection.recv(10_000):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with raw_server(talk) as place, plain(f"http://{place}") as http:
        for _ in range(5):
            http.call("GET", "/list")
    assert connections == 1


def test_a_client_that_another_thread_closes_at_any_moment_leaves_nothing_open() -> None:
    """A run that fails closes it while its other thread connects, sends or receives.

    A request looks at the clock before each of these; at one such look the client is closed.
    """
    opened: list[socket.socket] = []
    closed: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        opened.append(connection)
        connection.settimeout(30)
        with suppress(ConnectionError):
            while connection.recv(10_000):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        closed.append(connection)

    def closes_at(look: int) -> bool:
        looks = itertools.count(1)

        def clock() -> float:
            if next(looks) == look:
                http.close()
            return 1000.0

        with raw_server(talk) as place:
            http = scripted_http(f"http://{place}", Time(), clock=clock)
            with suppress(ProviderError, RuntimeError):
                http.call("GET", "/list")
            is_closed = next(looks) > look
            if not is_closed:
                http.close()
        return is_closed

    assert next(look for look in itertools.count(2) if not closes_at(look)) > 8
    assert opened == closed


@pytest.mark.fault(30)
def test_another_origin_is_never_asked_even_when_the_caller_does_not_look() -> None:
    stranger, script = Script(GOOD), Script(GOOD)
    with connected(stranger) as other, connected(script) as http:
        for url in (f"{other.base_url}/list", "https://127.0.0.1/list", "ftp://x/", "http://[::"):
            with pytest.raises(ContractError):
                http.call("GET", url)
    assert not stranger.requests
    assert not script.requests


@pytest.mark.parametrize("secret", ["canary\r\nX-Evil: 1", "canary\x00", "canäry", "canary\ud800"])
def test_a_secret_that_no_header_may_hold_is_not_shown(secret: str) -> None:
    script = Script(GOOD)
    with connected(script, sign=lambda *_: {"authorization": secret}) as http:
        error = fails(http, CredentialsError)
    assert "can" not in str(error).replace("cannot", "")
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert not script.requests


def test_half_a_surrogate_cannot_be_a_parameter() -> None:
    with connected(Script(GOOD)) as http:
        assert "surrogate" in fails(http, ContractError, params={"token": "\ud800"}).what


BASE = "https://flex-api.twilio.com"
PATH = "/v1/Channels"


@pytest.mark.parametrize(
    "url",
    [
        f"{BASE}{PATH}?PageSize=50&Page=1&PageToken=PA1",
        f"{BASE}{PATH}",
        f"{BASE}:443{PATH}?x=http://elsewhere/",
        f"HTTPS://FLEX-API.TWILIO.COM{PATH}?",
    ],
)
def test_a_next_page_of_the_same_list_may_be_followed(url: str) -> None:
    same_origin(url, BASE, PATH)


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    "url",
    [
        f"https://evil.example{PATH}",
        f"http://flex-api.twilio.com{PATH}",
        f"{BASE}:444{PATH}",
        f"{BASE}:0{PATH}",
        f"{BASE}:99999{PATH}",
        f"{BASE}:x{PATH}",
        f"{BASE}.{PATH}",
        f"{BASE}.evil.example{PATH}",
        f"https://user@flex-api.twilio.com{PATH}",
        f"https://flex-api.twilio.com:pass@evil.example{PATH}",
        f"https://@flex-api.twilio.com{PATH}",
        f"https://evil.example\\@flex-api.twilio.com{PATH}",
        f"https://evil.example#@flex-api.twilio.com{PATH}",
        f"{BASE}{PATH}#frag",
        f"//flex-api.twilio.com{PATH}",
        PATH,
        "",
        f"{BASE}/v1/Channels/../Users",
        f"{BASE}/v1/%2e%2e/v1/Channels",
        f"{BASE}/v1/channels",
        f"{BASE}/v1/Channels/",
        f"{BASE}/v1/Channels;x",
        f"{BASE}//v1/Channels",
        f"https://127.0.0.1{PATH}",
        f"https://169.254.169.254{PATH}",
        f"https://[::1]{PATH}",
        f"https://[::1{PATH}",
        f"https://flex-api.twilio.co\uff4d{PATH}",
        f"https://flex-api.tw\u0131lio.com{PATH}",
        f"https://flex-api.twilio.com\n{PATH}",
        f" {BASE}{PATH}",
        f"{BASE}{PATH}?a=b c",
        f"{BASE}{PATH}?a=\x00",
        f"file://{PATH}",
    ],
)
def test_a_next_page_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(ContractError, match="the next page is") as caught:
        same_origin(url, BASE, PATH)
    assert "nothing was sent" in caught.value.advice
    assert "pass" not in caught.value.what


@pytest.mark.fault(30)
def test_the_kelvin_sign_is_not_a_k() -> None:
    same_origin("https://k.example/p", "https://k.example", "/p")
    with pytest.raises(ContractError):
        same_origin("https://\u212a.example/p", "https://k.example", "/p")


def test_basic() -> None:
    assert basic("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
)
def test_encode_leaves_only_unreserved_characters(params: dict[str, str]) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._~%=&-]*", encode(params))

"""Alerts: which are sent when, and the webhook against real servers on loopback."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from etl.daemon.alerts import Alert, alerts
from etl.daemon.messages import LINES, payload, send
from etl.daemon.webhook import post_json
from etl.errors import CallflowError, ContractError, UnavailableError
from etl.status.health import StreamHealth
from tests.machine import slowness

NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
NAME = ("zoom_eu", "flows")
SECRET_PATH = "/services/T0/B1/sesame"
QUERY = "?token=open_please"


def new_stream(**values: Any) -> StreamHealth:
    named: dict[str, Any] = {"source": NAME[0], "stream": NAME[1], "provider": "zoom"}
    return StreamHealth(**(named | {"state": "good", "stale": False} | values))


GOOD = new_stream(age=5.0)
THROTTLED = new_stream(
    state="throttled",
    problem="zoom_eu.flows, page 3: HTTP 429: daily limit; paused until 2026-11-21 00:00 UTC",
    advice="nothing; it continues automatically after that",
    retry_at=NOON,
)
INCOMPLETE = new_stream(
    state="incomplete", problem="zoom_eu.flows: 9 of 10 rows are gone", advice="look first"
)
FAILED = new_stream(
    state="failed", problem="zoom_eu.flows, page 3: HTTP 401: no", advice="check the credentials"
)
STALE = new_stream(
    state="failed", stale=True, problem="HTTP 401: no", advice="check the credentials",
    age=7500.0, stale_after=3600.0,
)  # fmt: skip
SILENT = new_stream(
    stale=True, problem="the last complete run is 2h 5m old, and 1h is allowed", age=7500.0,
    stale_after=3600.0, advice="check that a daemon runs and leads",
)  # fmt: skip
NEVER = new_stream(state="never run")
LATE = new_stream(state="never run", stale=True, stale_after=3600.0)
GONE = new_stream(state="not configured")
LACKS = new_stream(
    state="not available", problem="zoom_eu.flows: this account does not have flows", advice="look"
)
OUTDATED = replace(LACKS, stale=True, age=7500.0, stale_after=3600.0)
ENDED = new_stream(
    state="ended", problem="zoom_eu.flows: the provider has ended this API", advice="read other"
)


# --- when ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("previous", "stream", "word"),
    [
        (None, THROTTLED, "throttled"),
        (None, INCOMPLETE, "incomplete"),
        (None, FAILED, "failed"),
        (None, STALE, "stale"),
        (None, SILENT, "stale"),
        (None, LATE, "stale"),
        ("throttled", INCOMPLETE, "incomplete"),
        ("throttled", FAILED, "failed"),
        ("throttled", STALE, "stale"),
        ("throttled", GOOD, None),
        ("incomplete", GOOD, None),
        ("failed", GOOD, None),
        ("stale", GOOD, None),
        (None, LACKS, "not available"),
        ("throttled", LACKS, "not available"),
        ("failed", LACKS, "not available"),  # who heard that it fails has to know why
        ("stale", LACKS, "not available"),
        ("not available", OUTDATED, "stale"),
        ("not available", FAILED, "failed"),
        ("not available", GOOD, None),
        (None, ENDED, "ended"),
        ("failed", ENDED, "ended"),
        ("stale", ENDED, "ended"),
        ("ended", GOOD, None),
    ],
)
def test_an_alert_is_sent(previous: str | None, stream: StreamHealth, word: str | None) -> None:
    (alert,) = alerts([stream], {NAME: previous})
    assert (alert.source, alert.stream, alert.state) == (*NAME, word)
    assert alert.text.startswith("zoom_eu.flows ")


@pytest.mark.parametrize(
    ("previous", "stream"),
    [
        (None, GOOD),
        (None, NEVER),
        (None, GONE),
        ("throttled", THROTTLED),
        ("incomplete", INCOMPLETE),
        ("failed", FAILED),
        ("stale", STALE),
        ("incomplete", FAILED),
        ("failed", INCOMPLETE),
        ("failed", STALE),  # that it is stale follows from the first alert
        ("incomplete", STALE),
        ("failed", THROTTLED),
        ("stale", FAILED),
        ("stale", THROTTLED),
        ("stale", NEVER),  # a daemon that has just started to watch: nothing is well yet
        ("failed", GONE),
        ("not available", LACKS),
        ("not available", THROTTLED),
        ("stale", OUTDATED),
        ("failed", OUTDATED),
        ("ended", ENDED),
        ("ended", LACKS),
        ("ended", FAILED),  # nothing that happens to it after its end needs a person
        ("ended", STALE),
        ("ended", THROTTLED),
        (None, new_stream(state="not configured", stale=True)),
    ],
)
def test_no_alert_is_sent(previous: str | None, stream: StreamHealth) -> None:
    assert alerts([stream], {NAME: previous}) == []


def test_in_any_history_each_problem_is_alerted_once_and_its_end_once(seed: int) -> None:
    chance = random.Random(seed)
    rank = {"throttled": 1, "incomplete": 2, "failed": 2, "stale": 2}
    for _ in range(300):
        told: dict[tuple[str, str], str | None] = {}
        said: list[str | None] = []
        for _ in range(chance.randrange(30)):
            stream = chance.choice([GOOD, THROTTLED, INCOMPLETE, FAILED, STALE, SILENT])
            for _ in range(chance.randrange(1, 4)):  # the same is seen at every beat
                for alert in alerts([stream], told):
                    said.append(alert.state)
                    told[NAME] = alert.state
            assert (told.get(NAME) is None) == (stream is GOOD)
        for previous, word in zip([None, *said], said, strict=False):
            assert rank.get(word or "", 0) > rank.get(previous or "", 0) or (previous and not word)


def test_an_alert_that_could_not_be_sent_is_sent_again() -> None:
    assert alerts([FAILED], {}) == alerts([FAILED], {}) != []


def test_the_worst_come_first_and_the_well_last() -> None:
    streams = [
        new_stream(source="a"),
        new_stream(source="b", state="throttled"),
        new_stream(source="c", state="failed"),
        new_stream(source="d", stale=True),
        new_stream(source="e", state="failed"),
    ]
    found = alerts(streams, {("a", "flows"): "failed"})
    assert [alert.source for alert in found] == ["d", "c", "e", "b", "a"]


# --- what ----------------------------------------------------------------------------------------
def text_of(stream: StreamHealth, previous: str | None = None) -> str:
    (alert,) = alerts([stream], {NAME: previous})
    return alert.text


def test_a_text_says_who_what_and_what_to_do() -> None:
    assert text_of(FAILED) == (
        "zoom_eu.flows failed: page 3: HTTP 401: no → check the credentials"
    )  # fmt: skip
    assert text_of(INCOMPLETE) == (
        "zoom_eu.flows is incomplete: 9 of 10 rows are gone → look first"
    )  # fmt: skip
    assert text_of(THROTTLED) == (
        "zoom_eu.flows is throttled: page 3: HTTP 429: daily limit; paused until"
        " 2026-11-21 00:00 UTC → nothing; it continues automatically after that"
    )
    assert text_of(STALE) == (
        "zoom_eu.flows is stale (2h 5m old, 1h allowed): HTTP 401: no → check the credentials"
    )
    assert text_of(SILENT) == (
        "zoom_eu.flows is stale (2h 5m old, 1h allowed) → check that a daemon runs and leads"
    )
    assert text_of(LATE) == "zoom_eu.flows is stale (no complete run yet, 1h allowed)"
    assert text_of(GOOD, "failed") == "zoom_eu.flows is well again"


def test_a_text_holds_nothing_private_and_is_one_short_line() -> None:
    problem = "call +49 30 1234567 or\nhttps://u:pw@host/x?token=abc " + "x" * 1000
    text = text_of(new_stream(state="failed", problem=problem, advice="x"))
    for private in ("1234567", "pw", "abc", "\n"):
        assert private not in text
    assert len(text) == 500
    assert text_of(new_stream(state="failed", advice="ask 212-555-0100")).endswith("→ ask …")


def test_slack_sees_no_markup_of_others() -> None:
    text = "zoom_eu.flows failed: <!channel> & <https://evil.example|click>"
    assert payload([Alert(*NAME, text, "failed")]) == {
        "text": "zoom_eu.flows failed: &lt;!channel&gt; &amp; &lt;https://evil.example|click&gt;"
    }


def many(count: int) -> list[Alert]:
    return [Alert(f"s{n}", "flows", f"s{n}.flows failed", "failed") for n in range(count)]


def test_a_message_has_twenty_lines_at_most_and_counts_the_rest() -> None:
    whole = payload(many(LINES))["text"].split("\n")
    assert whole == [f"s{n}.flows failed" for n in range(20)]
    well = Alert("z", "flows", "z.flows is well again", None)
    cut = payload([*many(1030), well])["text"].split("\n")
    assert cut[:19] == whole[:19]
    assert cut[19:] == ["and 1,012 more streams: 1,011 failed, 1 well again"]


def test_what_is_not_available_and_what_has_ended_is_said_in_words() -> None:
    (lacks,) = alerts([LACKS], {})
    assert lacks.text == "zoom_eu.flows is not available: this account does not have flows → look"
    (ended,) = alerts([ENDED], {})
    assert ended.text == ("zoom_eu.flows is ended: the provider has ended this API → read other")


# --- the webhook ---------------------------------------------------------------------------------
class Hook(ThreadingHTTPServer):
    """Answers every POST alike, and keeps what came; clear `go` to keep the answers back."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), HookRequest)
        self.status, self.body, self.headers = status, body, headers
        self.came: list[tuple[str, Mapping[str, str], bytes]] = []
        self.go = threading.Event()
        self.go.set()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: the client need not read all that is sent."""


class HookRequest(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"]))
        self.server.came.append((self.path, {k.lower(): v for k, v in self.headers.items()}, sent))
        self.server.go.wait(60)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def hook(status: int = 200, body: bytes = b"ok", **headers: str) -> Iterator[Hook]:
    with Hook(status, body, headers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def refused(url: str, **values: Any) -> CallflowError:
    with pytest.raises(CallflowError) as caught:
        send(url, many(1), **values)
    chain: BaseException | None = caught.value
    while chain is not None:
        for secret in (SECRET_PATH, "sesame", "open_please"):
            assert secret not in f"{chain} {chain!r} {chain.args}"
        chain = chain.__cause__
    return caught.value


def test_alerts_are_posted_as_json() -> None:
    alert = Alert(*NAME, "zoom_eu.flows failed: „größer“ → \ud800", "failed")
    with hook(204, b"") as server:
        send(server.origin + SECRET_PATH + QUERY, [alert])
    ((path, headers, body),) = server.came
    assert path == SECRET_PATH + QUERY
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == payload([alert])


def test_without_alerts_nothing_is_sent() -> None:
    with hook() as server:
        send(server.origin, [])
    assert server.came == []


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_2xx_is_good(status: int) -> None:
    with hook(status, b"") as server:
        send(server.origin, many(1))
    assert len(server.came) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (408, UnavailableError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
        (301, ContractError),
        (400, ContractError),
        (403, ContractError),
        (404, ContractError),
        (410, ContractError),
    ],
)
def test_any_other_answer_is_an_error_that_names_the_host_only(
    status: int, kind: type[CallflowError]
) -> None:
    with hook(status, b"Cannot POST " + SECRET_PATH.encode()) as server:
        error = refused(server.origin + SECRET_PATH + QUERY)
    assert type(error) is kind
    assert error.what == f"the webhook at 127.0.0.1 answered HTTP {status}"
    assert len(server.came) == 1


def test_one_word_of_the_answer_is_quoted_unless_the_url_has_it() -> None:
    with hook(404, b"no_service\n") as server:
        assert str(refused(server.origin + SECRET_PATH)).startswith(
            "the webhook at 127.0.0.1 answered HTTP 404: no_service → check"
        )
    with hook(404, b"sesame") as server:
        assert refused(server.origin + SECRET_PATH).what.endswith("HTTP 404")


def test_a_redirect_is_not_followed() -> None:
    with hook() as elsewhere, hook(307, b"", location=elsewhere.origin + SECRET_PATH) as server:
        assert type(refused(server.origin + SECRET_PATH)) is ContractError
    assert elsewhere.came == []


@pytest.mark.parametrize("status", [200, 500])
def test_a_large_answer_is_not_read(status: int) -> None:
    with hook(status, bytes(50_000_000)) as server:
        start = time.monotonic()
        if status == 200:
            send(server.origin, many(1))
        else:
            refused(server.origin)
        assert time.monotonic() - start < 5 * slowness()


def test_a_webhook_that_does_not_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = refused(f"http://127.0.0.1:{port}{SECRET_PATH}")
    assert type(error) is UnavailableError
    assert error.what == "the webhook at 127.0.0.1 cannot be reached"


@contextmanager
def scripted(*pieces: bytes, pause: float = 0.0, wait: bool = False) -> Iterator[str]:
    """Yield a server that sends `pieces` to one client, then keeps it waiting if `wait` is set."""
    done = threading.Event()

    def serve(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.recv(65536)
            for piece in pieces:
                try:
                    client.sendall(piece)
                except OSError:
                    return
                done.wait(pause)
            if wait:
                done.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            done.set()
            thread.join()


def test_an_answer_that_breaks_off_is_an_unavailable_one() -> None:
    with scripted(b"HTTP/1.1 2") as origin:
        assert type(refused(origin + SECRET_PATH)) is UnavailableError
    with scripted(b"nonsense\r\n\r\n") as origin:
        assert type(refused(origin + SECRET_PATH)) is UnavailableError


@pytest.mark.parametrize("pieces", [[], [b"x"] * 300], ids=["silent", "a byte at a time"])
def test_the_deadline_is_that_of_the_whole_request(pieces: list[bytes]) -> None:
    with scripted(b"HTTP/1.1 200 ", *pieces, pause=0.05, wait=True) as origin:
        start = time.monotonic()
        error = refused(origin + SECRET_PATH, timeout=0.5)
        assert time.monotonic() - start < 60
    assert type(error) is UnavailableError
    assert error.what == "no answer of the webhook at 127.0.0.1 within 0.5 s"


def test_a_message_that_was_taken_is_not_sent_again_because_the_answer_has_no_end() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
    with scripted(head, wait=True) as origin:
        start = time.monotonic()
        send(origin, many(1), timeout=120)
        assert time.monotonic() - start < 60


def test_time_is_measured_by_the_given_clock() -> None:
    times = iter([0.0, *[99.0] * 50])
    with hook() as server, pytest.raises(UnavailableError, match="within 10 s"):
        post_json(server.origin, {}, clock=lambda: next(times))
    assert server.came == []


@pytest.mark.parametrize(
    "url", ["http://[h/sesame", "http://a b/sesame", "nothing", "ftp://h/sesame"]
)
def test_a_text_that_is_no_url_is_an_error_too(url: str) -> None:
    refused(url)


@pytest.mark.slow
def test_the_environment_names_no_proxy_and_no_password(tmp_path: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password sesame\n")
    netrc.chmod(0o600)
    closed = "http://127.0.0.1:1"
    env = os.environ | {"http_proxy": closed, "all_proxy": closed, "no_proxy": ""}
    code = (
        "import sys; from etl.daemon.webhook import post_json\n"
        "post_json(sys.argv[1], {'text': 'x'})"
    )
    with hook() as server:
        subprocess.run(
            [sys.executable, "-c", code, server.origin],
            env=env | {"NETRC": str(netrc)},
            check=True,
            timeout=60,
        )
    ((_, headers, body),) = server.came
    assert json.loads(body) == {"text": "x"}
    assert "authorization" not in headers

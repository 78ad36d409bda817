"""Which requests are answered, and what programs get: /healthz, /readyz, /metrics, /api/status."""

import base64
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from prometheus_client import CONTENT_TYPE_LATEST

from etl.daemon.web.app import API_RUNS
from etl.errors import WarehouseError
from etl.status.health import Reach
from tests.web import fleet
from tests.web.running import running

TOKEN = "s3cret:token"  # a colon, as HTTP Basic must let it through
CLOSED = ("/", "/api/status", "/metrics", "/style.css", "/source/zoom_eu", "/flow?key=zoom_eu/f1",
          "/streams/zoom_eu/flows", "/runs/zoom_eu.flows-0", "/nowhere")  # fmt: skip
READY = fleet.ALL_WELL


def basic(password: str, user: str = "anyone") -> dict[str, str]:
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


@pytest.fixture(scope="module")
def locked() -> Iterator[httpx.Client]:
    """Yield a client of a server with a token, which it does not send automatically."""
    with running(token=TOKEN) as client:
        yield client


@pytest.fixture(scope="module")
def unlocked() -> Iterator[httpx.Client]:
    """Yield a client of a server without a token."""
    with running() as client:
        yield client


# --- who is answered ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN}"},
        basic(TOKEN),
        basic(TOKEN, ""),
    ],
)
def test_the_token_opens_everything(locked: httpx.Client, headers: dict[str, str]) -> None:
    for path in CLOSED:
        assert locked.get(path, headers=headers).status_code == 200 + 204 * (path == "/nowhere")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Digest {TOKEN}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Basic ====="},
        {"Authorization": "Bearer ünïcode"},
        basic(""),
        basic("wrong"),
        basic("x", TOKEN),
    ],
)
def test_without_the_token_only_the_probes_are_answered(
    locked: httpx.Client, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    for path in CLOSED:
        for method in ("GET", "POST"):
            answer = locked.request(method, path, headers=raw)
            assert answer.status_code == 401, path
            challenges = answer.headers.get_list("www-authenticate")
            assert [each.split()[0] for each in challenges] == ["Bearer", "Basic"]
            assert TOKEN not in answer.text
            assert "zoom" not in answer.text
    assert locked.get("/healthz", headers=raw).status_code == 200
    assert locked.get("/readyz", headers=raw).text == "not ready\n"


def test_with_a_token_any_host_name_will_do() -> None:
    with running(token=TOKEN) as client:
        answer = client.get("/", headers={"Host": "etl.corp.example", **basic(TOKEN)})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("localhost", True),
        ("LocalHost:8787", True),
        ("127.0.0.1", True),
        ("127.0.0.1:1", True),
        ("[::1]", True),
        ("[::1]:8787", True),
        ("evil.example", False),
        ("evil.example:8787", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost:8787:evil", False),
        ("localhost@evil.example", False),
        ("10.0.0.1:8787", False),
        ("[::2]:8787", False),
        ("0.0.0.0:8787", False),
        ("", False),
    ],
)
def test_without_a_token_only_loopback_names_are_answered(
    unlocked: httpx.Client, host: str, good: bool
) -> None:
    for path in (*CLOSED, "/readyz"):
        answer = unlocked.get(path, headers={"Host": host})
        assert (answer.status_code != 421) is good, path
        if not good:
            assert "no token is set" in answer.text
            assert "zoom" not in answer.text
    assert unlocked.get("/healthz", headers={"Host": host}).text == "ok\n"


@pytest.mark.parametrize(("version", "status"), [(b"1.0", b"421"), (b"1.1", b"400")])
def test_a_request_without_a_host_is_not_answered(version: bytes, status: bytes) -> None:
    with running() as client:
        where = (client.base_url.host, client.base_url.port or 0)
        with socket.create_connection(where, timeout=60) as connection:
            connection.sendall(b"GET /api/status HTTP/%s\r\n\r\n" % version)
            assert connection.recv(12) == b"HTTP/1.1 " + status


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/metrics", "/api/status", *CLOSED[4:8]]
)
def test_only_get_and_head_are_answered(path: str) -> None:
    with running(READY) as client:
        whole = client.get(path, headers={"Accept-Encoding": "identity"})
        head = client.head(path, headers={"Accept-Encoding": "identity"})
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            answer = client.request(method, path)
            assert answer.status_code == 405
            assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_every_answer_carries_the_headers_that_protect_it() -> None:
    def broken() -> bytes:
        raise RuntimeError("hunter2")

    with running(metrics=broken, token=TOKEN) as client:
        statuses = set()
        for path, headers in (
            *((path, basic(TOKEN)) for path in (*CLOSED, "/healthz", "/readyz")),
            ("/", {}),
        ):
            answer = client.get(path, headers=headers)
            statuses.add(answer.status_code)
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self' data:;")
            assert "frame-ancestors 'none'" in policy
            assert "base-uri 'none'" in policy
            assert "form-action 'self'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers.get_list("cache-control") == ["no-store"]
            assert "server" not in answer.headers
        assert statuses == {200, 401, 404, 500, 503}


def test_a_path_that_does_not_exist_is_one_plain_line() -> None:
    with running() as client:
        for path in ("/nowhere", "/healthz/", "/..%2f..%2fetc/passwd", "/status.html"):
            answer = client.get(path)
            assert (answer.status_code, answer.text) == (404, "404: Not Found\n"), path
            assert answer.headers["content-type"].startswith("text/plain")


def test_a_fault_inside_shows_no_traceback() -> None:
    def broken() -> bytes:
        raise RuntimeError("hunter2")

    with running(metrics=broken) as client:
        answer = client.get("/metrics")
        assert answer.status_code == 500
        assert "callflow's log" in answer.text
        assert "hunter2" not in answer.text
        assert "Traceback" not in answer.text
        assert client.get("/healthz").status_code == 200


# --- probes and metrics ---------------------------------------------------------------------------
def test_readyz_says_ready() -> None:
    with running(READY) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.text) == (200, "ready\n")


def test_readyz_gives_the_reasons_as_lines() -> None:
    view = replace(fleet.SOME_BAD, database="it is away")
    with running(view) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.text == "not ready\nit is away\nzoom_us.flows: 2h 31m old\n"
    with running(view, token=TOKEN) as client:
        assert client.get("/readyz").text == "not ready\n"
        assert client.get("/readyz", headers=basic(TOKEN)).text == answer.text


@pytest.mark.parametrize(("age", "status"), [(0, 200), (14, 200), (15, 200), (16, 503), (-90, 200)])
def test_it_is_not_ready_when_the_daemon_has_stopped_checking(age: int, status: int) -> None:
    with running(READY, now=lambda: fleet.NOW + timedelta(seconds=age)) as client:
        answer = client.get("/readyz")
        assert answer.status_code == status
        assert ("last looked at the streams 16s ago" in answer.text) is (status == 503)
        shown = client.get("/api/status").json()
        assert shown["ready"] is (status == 200)
        assert (shown["database"], shown["role"]) == (
            (None, "leader")
            if status == 200
            else (
                "the daemon last looked at the streams 16s ago → check that the database server "
                "answers; if it does, restart the daemon",
                "none",
            )
        )
        assert client.get("/healthz").status_code == 200


def test_metrics_are_given_as_they_are() -> None:
    with running(metrics=lambda: b'callflow_ready 1\nx{a="\xc3\xbc"} 2\n') as client:
        answer = client.get("/metrics")
        assert answer.content == b'callflow_ready 1\nx{a="\xc3\xbc"} 2\n'
        assert answer.headers["content-type"] == CONTENT_TYPE_LATEST


# --- /api/status ----------------------------------------------------------------------------------
def test_the_status_is_the_overview() -> None:
    with running(fleet.DOWN) as client:
        answer = client.get("/api/status")
    assert answer.headers["content-type"] == "application/json"
    shown = answer.json()
    assert shown["at"] == "2026-03-14T03:12:40+00:00"
    assert shown["seen_at"] == "2026-03-14T03:09:35+00:00"
    assert (shown["role"], shown["leader"], shown["version"]) == ("leader", "etl-1:4711", "0.1.0")
    assert shown["database"] == fleet.DOWN.database
    assert shown["notes"] == list(fleet.DOWN.notes)
    assert shown["ready"] is False
    assert shown["reasons"] == [fleet.DOWN.database, "zoom_us.flows: 2h 31m old"]
    assert "runs_error" not in shown
    streams = {each["name"]: each for each in shown["streams"]}
    assert set(streams) == {each.name for each in fleet.DOWN.streams}
    failed = streams["zoom_us.flows"]
    assert (failed["good"], failed["fresh"], failed["stale"]) == (False, False, True)
    assert (failed["state"], failed["age"], failed["stale_after"]) == ("failed", 9080.0, 3600.0)
    assert (failed["problem"], failed["advice"]) == (fleet.SCOPE, fleet.SCOPE_ADVICE)
    assert streams["twilio_main.channels"]["good"] is False
    assert streams["twilio_main.channels"]["fresh"] is True
    assert streams["zoom_eu.flows"]["good"] is True
    assert "runs" not in failed


def test_the_status_links_to_the_pages_of_the_streams_and_says_how_to_connect() -> None:
    reach = Reach("db.example", "5432", "callflow", "bi")
    view = replace(READY, public_url="https://callflow.example", reach=reach)
    with running(view) as client:
        shown = client.get("/api/status").json()
    urls = [each["url"] for each in shown["streams"]]
    assert urls[0] == "https://callflow.example/streams/alibaba_sh/contact_flows"
    assert shown["reach"] == {"host": "db.example", "port": "5432", "database": "callflow",
                              "role": "bi", "embedded": False}  # fmt: skip
    with running(READY) as client:
        assert client.get("/api/status").json()["streams"][0]["url"] is None


def test_the_status_adds_the_runs_when_asked() -> None:
    with running() as client:
        assert "runs" not in client.get("/api/status?runs=0").json()["streams"][0]
        shown = client.get("/api/status", params={"runs": "1", "q": "ZOOM_eu"}).json()
    assert [each["name"] for each in shown["streams"]] == ["zoom_eu.flows"]
    assert shown["runs_error"] is None
    runs = shown["streams"][0]["runs"]
    expected = fleet.last_runs(fleet.SOME_BAD)["zoom_eu", "flows"]
    assert len(runs) == 30
    assert runs[0]["started_at"] == expected[0].started_at.isoformat()
    assert (runs[0]["status"], runs[0]["inserted"]) == ("complete", expected[0].inserted)
    assert expected[0].finished_at is not None
    lasted = (expected[0].finished_at - expected[0].started_at).total_seconds()
    assert runs[0]["duration"] == lasted


def test_the_status_says_why_there_are_no_runs() -> None:
    def away(pairs: object) -> fleet.Runs:
        raise WarehouseError("Postgres is away", advice="start it")

    with running(recent=away) as client:
        shown = client.get("/api/status?runs=1").json()
    assert shown["runs_error"] == "Postgres is away → start it"
    assert all(each["runs"] == [] for each in shown["streams"])


def test_the_status_has_the_runs_of_only_so_many_streams() -> None:
    asked: list[int] = []

    def recent(pairs: Sequence[tuple[str, str]]) -> fleet.Runs:
        asked.append(len(pairs))
        return {}

    with running(fleet.many(API_RUNS + 1), recent) as client:
        refused = client.get("/api/status?runs=1")
        assert refused.status_code == 400
        assert "narrow them with q=" in refused.text
        assert len(client.get("/api/status").json()["streams"]) == API_RUNS + 1
        assert client.get("/api/status?runs=1&q=channels").status_code == 200
    assert asked == [101]


@pytest.mark.slow
def test_a_database_that_hangs_costs_neither_probes_nor_threads() -> None:
    go_on = threading.Event()
    asked: list[object] = []

    def hangs(pairs: object) -> fleet.Runs:
        asked.append(pairs)
        assert go_on.wait(30)
        return {}

    try:
        with running(recent=hangs, patience=0.1) as client:
            for _ in range(6):
                page = client.get("/")
                assert page.status_code == 200
            assert "has not answered the last four questions yet" in page.text
            assert len(asked) == 4
            assert client.get("/readyz").status_code == 503
            assert client.get("/metrics").status_code == 200
            go_on.set()
            deadline = time.monotonic() + 60
            while "last four questions" in (page := client.get("/")).text:
                assert time.monotonic() < deadline
            assert "The last runs are not shown" not in page.text
    finally:
        go_on.set()

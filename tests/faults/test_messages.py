"""Text from outside in messages: no secret, no phone number, no terminal codes, no delay.

A hostile provider repeats everything that it was sent, in every shape of an answer, and
every output of callflow is searched for it.
"""

import base64
import html
import io
import json
import logging
import os
import re
import signal
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from rich.console import Console
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from etl.commands import check, lines
from etl.config import load as config
from etl.config.settings import Settings, Warehouse, redactor
from etl.daemon import alerts, logs, messages
from etl.load.runs import Run
from etl.sandbox.exchange import JSON, Request, Response, json_response
from etl.sandbox.faults import Fault
from etl.sandbox.wire import Clock, serving
from etl.status import documents, queries
from etl.sync.job import Job, Reached
from etl.sync.run import run_stream
from etl.sync.selection import select
from tests.daemon.processes import Process, free_port, until
from tests.postgres import dsn
from tests.warm import Warm

pytestmark = pytest.mark.slow

ZOOM = "zoomCanary/1+aB&c'd<e>9"
TWILIO = "0123456789abcdef0123456789fedcba"
API_KEY = "twilioKeyCanary.7%2Fx"
ALIBABA = "alibabaCanary8899aabbcc"
STS = "stsCanary-0011.2233_4455"
HTTP_TOKEN = "httpTokenCanary/55"
HOOK = "/services/T0CANARY/B0CANARY/hookCanary77"
PASSWORD = "warehouseCanary@42"
TOKEN = "runTimeCanary.eyJhbGciOi.99"
SECRETS = (ZOOM, TWILIO, API_KEY, ALIBABA, STS, HTTP_TOKEN, HOOK, PASSWORD, TOKEN)
PERSONAL = ("+49 151 12345678", "13800138000", "(212) 555-0123", "some.one@example.org")
OBEYED = "\x1b]0;title\x07\x1b[2J\x9b31m\x00\u202e\u2066\u2028\x85\r\nERROR forged=line\x7f"

SOURCES = f"""
[daemon]
http_token = "{HTTP_TOKEN}"
alert_webhook = "{{hook}}{HOOK}"

[schedule]
every = "1h"

[sources.zoom_eu]
provider = "zoom"
account_id = "account"
client_id = "client"
client_secret = "{ZOOM}"
base_url = "{{url}}/v2"
token_url = "{{url}}/oauth/token"

[sources.twilio_main]
provider = "twilio"
account_sid = "AC{"5" * 32}"
auth_token = "{TWILIO}"
base_url = "{{url}}"

[sources.twilio_key]
provider = "twilio"
account_sid = "AC{"6" * 32}"
api_key_sid = "SK{"7" * 32}"
api_key_secret = "{API_KEY}"
base_url = "{{url}}"

[sources.alibaba_sh]
provider = "alibaba"
access_key_id = "key"
access_key_secret = "{ALIBABA}"
security_token = "{STS}"
instance_ids = ["ccc-test"]
base_url = "{{url}}"
"""


def written(secret: str) -> dict[str, str]:
    """Return the forms in which a secret may come back, by name."""
    data = secret.encode()
    return {
        "plain": secret,
        "small": secret.lower(),
        "base64": base64.b64encode(data).decode().rstrip("="),
        "basic": base64.b64encode(b"client:" + data).decode().rstrip("=")[10:-1],
        "url": urllib.parse.quote(secret, safe=""),
        "json": json.dumps(secret)[1:-1],
        "html": html.escape(secret),
        "repr": repr(secret)[1:-1],
    }


FORMS = {form for secret in SECRETS for form in written(secret).values()}


def search(output: str, where: str, *, keep: str = "\n") -> None:
    """Fail if `output` contains anything that must stay secret."""
    for form in FORMS:
        assert form not in output, f"{where}: {form!r} in {output[:2000]!r}"
        for start in range(len(form) - 9):  # no ten characters of one either
            assert form[start : start + 10] not in output, f"{where}: {form!r} in {output[:2000]!r}"
    for private in PERSONAL:
        assert private not in output, f"{where}: {private} in {output[:2000]!r}"
    odd = {each for each in output if not each.isprintable() and each not in keep}
    assert not odd, f"{where}: {odd} in {output[:2000]!r}"


# --- a provider that repeats everything ----------------------------------------------------------
def said(request: Request) -> str:
    """Return everything that it knows, short, with the worst first."""
    zooms = request.path.startswith(("/v2", "/oauth"))
    known = FORMS if zooms else FORMS - set(written(TOKEN).values())
    everything = [*PERSONAL, *sorted(known), request.headers.get("authorization", "")]
    return f"no: {OBEYED} {' '.join(everything)} {request.headers} {request.target}"


Shape = Callable[[Request, str], Response]


def envelope(status: int, **more: Any) -> Shape:
    def shape(request: Request, words: str) -> Response:
        body = {"message": words, "Message": words, "error": words, "reason": words}
        return json_response(status, {"code": 4999, "Code": "Parameter.Odd", **body, **more})

    return shape


def plain(status: int, kind: str, around: str = "{}") -> Shape:
    def shape(request: Request, words: str) -> Response:
        body = around.format(words).encode("utf-8", "surrogatepass")
        return Response(status, body, {"Content-Type": kind})

    return shape


def header(status: int, *names: str) -> Shape:
    def shape(request: Request, words: str) -> Response:
        value = re.sub(r"[^ -~]", "?", words)[:6000]
        return Response(status, b'{"code": 1}', JSON | dict.fromkeys(names, value))

    return shape


def scopes(request: Request, words: str) -> Response:
    listed = ", ".join(["a:b:c", *SECRETS, *PERSONAL, OBEYED, words])
    message = f"Invalid access token, does not contain scopes:[{listed}]. {words}"
    bare = f"does not contain scopes:[contact_center:{STS.lower()}, {ALIBABA}, {TOKEN}]"
    return json_response(400, {"code": 4711, "message": bare if "page_size=1&" in request.target
                               else message})  # fmt: skip


def redirect(request: Request, words: str) -> Response:
    token = TOKEN if request.path.startswith("/v2") else STS
    host = f"{STS}.{token}.{ALIBABA}.example"
    return Response(302, b"", {"Location": f"https://{host}/{urllib.parse.quote(words)}"})


def elsewhere(request: Request, words: str) -> Response:
    """Return a first page whose pointer leads elsewhere, with records that no table takes."""
    host = f"{STS}.{ALIBABA}.{TWILIO}.example"
    rows: list[Any] = [words, {"sid": [words]}, {"flow_id": ZOOM + TWILIO, "versions": [words]}]
    body: dict[str, Any] = {"flows": rows, "total_records": 3, "next_page_token": TOKEN * 3}
    body |= {"flex_flows": rows, "flex_chat_channels": rows}
    body["meta"] = {"next_page_url": f"https://{host}/{words}", "key": words}
    row = {"ContactFlowId": ALIBABA, "NumberList": [{"n": words}], "Definition": words}
    data = {"TotalCount": 2, "PageNumber": 1, "PageSize": 100, "List": [row, words]}
    return json_response(200, body | {"Code": "OK", "Data": data})


SHAPES: Mapping[str, Shape] = {
    "400": envelope(400),
    "401": envelope(401),
    "403": envelope(403),
    "404": envelope(404),
    "429": envelope(429),
    "500": envelope(500),
    "good status, bad news": envelope(200),
    "a secret as the code": envelope(400, Code=STS, code=TWILIO),
    "a signature's code": envelope(400, Code="SignatureDoesNotMatch"),
    "a forbidden code": envelope(403, Code=f"Forbidden.{ALIBABA}"),
    "a huge code": envelope(400, code=10**400),
    "HTML": plain(403, "text/html", "<html><style>p {{}}</style><p title='{0}'>{0}</p>"),
    "HTML for JSON": plain(200, "text/html", "<p>{}</p>"),
    "text": plain(400, "text/plain"),
    "half of JSON": plain(200, "application/json", '{{"message": "{}'),
    "waits": header(429, "Retry-After", "x-acs-retry-after"),
    "headers": header(400, "x-zm-trackingid", "Twilio-Request-Id", "x-acs-request-id", "Date"),
    "compressed oddly": header(200, "Content-Encoding"),
    "type": header(200, "Content-Type"),
    "scopes": scopes,
    "redirect": redirect,
    "elsewhere": elsewhere,
}


class Echo:
    """The three providers at once; `shape` makes every answer but the token's."""

    def __init__(self) -> None:
        self.url = ""
        self.clock = Clock()
        self.faults: list[Fault] = []
        self.requests: deque[Request] = deque(maxlen=100)
        self.errors: list[Exception] = []
        self.shape: Shape = envelope(400)
        self.words: Callable[[Request], str] = said
        self.token: dict[str, Any] | None = None

    def handle(self, request: Request) -> Response:
        if request.path == "/oauth/token" and self.token is not None:
            return json_response(200, self.token)
        return self.shape(request, self.words(request))


GOOD = {"access_token": TOKEN, "expires_in": 3600, "scope": f"a:b:c {STS} {TOKEN} {ZOOM} {OBEYED}"}


@pytest.fixture
def engine(emptied: Engine) -> Engine:
    return emptied


@pytest.fixture
def echo() -> Iterator[Echo]:
    emulator = Echo()
    emulator.token = dict(GOOD)
    with serving(emulator):
        yield emulator


@pytest.fixture
def settings(echo: Echo, tmp_path: Path) -> Settings:
    warehouse = f'[warehouse]\nurl = "postgresql://me:{urllib.parse.quote(PASSWORD)}@db/callflow"\n'
    path = tmp_path / "callflow.toml"
    path.write_text(warehouse + SOURCES.format(url=echo.url, hook="https://hook.example"))
    path.chmod(0o600)
    return config.load(path, {})


@pytest.fixture
def logged() -> Iterator[Callable[[Settings, bool], io.StringIO]]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def start(settings: Settings, as_json: bool) -> io.StringIO:
        root.handlers.clear()
        stream = io.StringIO()
        redact = redactor(settings)
        logs.configure(stream, as_json=as_json, redact=redact, level=logging.DEBUG)
        return stream

    yield start
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def run_all(settings: Settings, engine: Engine, *names: str) -> list[Run]:
    redact = redactor(settings)
    return [
        run_stream(Job(engine, stream, source, "test:1:unknown", redact=redact, full=True,
                       sleep=lambda seconds: None))
        for source, stream in select(settings, names)
    ]  # fmt: skip


STREAMS = ("zoom_eu.flows", "twilio_main.flex_flows", "twilio_key.channels",
           "alibaba_sh.contact_flows")  # fmt: skip


def shown(runs: list[Run]) -> Iterator[tuple[str, str]]:
    """Yield what is shown and recorded of runs."""
    for run in runs:
        stream = io.StringIO()
        Console(file=stream, soft_wrap=True, width=10_000).print(lines.run_line(run))
        yield "run line", stream.getvalue()
        yield "run as JSON", documents.run_json(run)
        yield "error", run.error or ""


@pytest.mark.fault(4, 5, 7, 41, 72)
@pytest.mark.parametrize("name", SHAPES)
def test_whatever_a_provider_repeats_stays_out_of_runs_logs_and_tables(
    name: str,
    echo: Echo,
    settings: Settings,
    engine: Engine,
    logged: Callable[[Settings, bool], io.StringIO],
) -> None:
    echo.shape = SHAPES[name]
    lines = logged(settings, name[0] < "a")  # either kind of log for half of the shapes
    runs = run_all(settings, engine, *STREAMS)
    log = structlog.stdlib.get_logger("etl.daemon.daemon")
    for run in runs:
        logs.run_ended(log, run)
        assert run.error_kind == "ended" or run.status in ("failed", "incomplete"), run
        assert run.error is not None
        assert run.error.startswith(f"{run.source}.{run.stream}"), run.error
        assert len(run.error) < 1000, run.error
        assert "bug" not in run.error, run.error
    for where, output in shown(runs):
        search(output, where)
    search(lines.getvalue(), "log")
    with engine.connect() as connection:
        for table in ("etl.runs", "etl.streams"):
            for row in connection.execute(text(f"SELECT t::text FROM {table} t")):
                search(row[0], table)
        reasons = connection.execute(text("SELECT reason FROM etl.rejects")).scalars().all()
        assert reasons or name != "elsewhere"
        for reason in reasons:
            search(reason, "etl.rejects.reason")


@pytest.mark.parametrize("name", ["400", "403", "500", "HTML", "good status, bad news"])
def test_the_secret_is_hidden_when_the_token_is_refused(
    name: str, echo: Echo, settings: Settings, engine: Engine
) -> None:
    echo.token, echo.shape = None, SHAPES[name]
    (run,) = run_all(settings, engine, "zoom_eu.flows")
    assert run.error is not None
    search(run.error, "error")
    assert "access token: " in run.error


@pytest.mark.parametrize("piece", ["!", "é", "\x1b", "\u202e", "\0", "<", "a@", "1 ", "://"])
def test_megabytes_of_an_awkward_character_cause_no_delay(
    piece: str, echo: Echo, settings: Settings, engine: Engine
) -> None:
    echo.words = lambda request: piece * (2_000_000 // len(piece))
    for run in run_all(settings, engine, "twilio_main.flex_flows"):
        assert run.error is not None
        assert len(run.error) < 500
        search(run.error, "error")


# --- numbers of a provider -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "lifetime",
    ["9" * 400, "9" * 5000, "-1", "0", "1e999", "-1e999", "true", '"3600"', '"soon"', "null", "[]",
     "{}", "NaN"],
)  # fmt: skip
def test_any_lifetime_of_a_token_is_accepted(
    lifetime: str, echo: Echo, settings: Settings, engine: Engine
) -> None:
    echo.token = None

    def shape(request: Request, words: str) -> Response:
        if request.path == "/oauth/token":
            body = f'{{"access_token": "{TOKEN}", "expires_in": {lifetime}}}'
            return Response(200, body.encode(), JSON)
        return json_response(200, {"flows": [], "total_records": 0, "next_page_token": ""})

    echo.shape = shape
    (run,) = run_all(settings, engine, "zoom_eu.flows")
    if lifetime == "NaN":  # that is no JSON
        assert (run.status, run.error_kind) == ("failed", "contract")
    else:
        assert (run.status, run.error) == ("complete", None)
        assert len(echo.requests) <= 3


@pytest.mark.fault(1)
@pytest.mark.parametrize("header", ["Retry-After", "x-acs-retry-after"])
@pytest.mark.parametrize(
    "asked",
    ["9" * 400, "-" + "9" * 12, "1e400", "nan", "Mon, 01 Jan 0001 00:00:00 +2359",
     "Fri, 31 Dec 9999 23:59:59 -2359", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
     f"Fri, 31 Dec {'9' * 400} 23:59:59 GMT", f"Fri, 31 Dec 2026 23:59:59 +{'9' * 40}",
     "Fri, 31 Dec 2026 99:99:99 GMT", "-", ",", "Fri", "٣"],
)  # fmt: skip
def test_any_requested_wait_is_reported_and_is_no_bug(
    header: str, asked: str, echo: Echo, settings: Settings, engine: Engine
) -> None:
    value = asked.encode("utf-8").decode("latin-1")
    echo.shape = lambda request, words: Response(
        429, b'{"code": 1, "message": "no"}', JSON | {header: value, "Date": value}
    )
    for run in run_all(settings, engine, "twilio_main.flex_flows", "alibaba_sh.contact_flows"):
        assert (run.status, run.error_kind) == ("failed", "unavailable"), run.error


# --- too much was asked for, however it is said --------------------------------------------------
SLOW_DOWN: Mapping[str, list[tuple[int, dict[str, Any]]]] = {
    "zoom_eu.flows": [
        (403, {"code": 403, "message": "Sorry, the maximum number of api requests are already "
               "reached. Please try later."}),
        (400, {"code": 300, "message": "Too many concurrent requests. A request to disable …"}),
        (403, {"code": 200, "message": "You have reached the maximum per-second rate limit."}),
    ],
    "twilio_main.flex_flows": [
        (400, {"code": 45780, "message": "Account is sending too many concurrent API requests."}),
        (403, {"code": 20403, "message": "Rate limit exceeded"}),
    ],
    "alibaba_sh.contact_flows": [
        (400, {"Code": "Throttling.User", "Message": "Denied due to user flow control."}),
        (403, {"Code": "Forbidden", "Message": "Request was denied due to request throttling."}),
        (400, {"Code": "FlowControl.Api", "Message": "no"}),
    ],
}  # fmt: skip


@pytest.mark.fault(1, 2, 3, 7)
@pytest.mark.parametrize(
    ("name", "status", "body"), [(n, *case) for n, cases in SLOW_DOWN.items() for case in cases]
)
def test_a_refusal_for_too_many_requests_is_tried_again_with_pauses(
    name: str, status: int, body: dict[str, Any], echo: Echo, settings: Settings, engine: Engine
) -> None:
    echo.shape = lambda request, words: json_response(status, body)
    (run,) = run_all(settings, engine, name)
    assert (run.status, run.error_kind, run.retries) == ("failed", "unavailable", 5), run.error
    assert run.throttled_seconds >= 5
    assert "requests_per_second" in (run.error or "")
    assert "scope" not in (run.error or "")


def test_zooms_daily_limit_in_a_403_is_one_too(
    echo: Echo, settings: Settings, engine: Engine
) -> None:
    words = "Sorry, the maximum number of user report api requests every day are already reached"
    echo.shape = lambda request, _: json_response(403, {"code": 403, "message": words})
    (run,) = run_all(settings, engine, "zoom_eu.flows")
    assert run.retry_at is not None
    assert "daily limit" in (run.error or "")


# --- unforeseen errors ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "kind", [KeyError, MemoryError, RecursionError, OverflowError, SystemError]
)
def test_a_bug_in_one_run_is_the_failure_of_that_run(
    kind: type[Exception], settings: Settings, engine: Engine
) -> None:
    def bug(reached: Reached) -> None:
        raise kind(f"{ZOOM} {OBEYED}")

    def rows(request: Request, words: str) -> Response:
        return json_response(200, {"flex_flows": [], "meta": {"next_page_url": None}})

    ((source, stream),) = select(settings, ["twilio_main.flex_flows"])
    emulator = Echo()
    emulator.shape = rows
    with serving(emulator):
        source = source.model_copy(update={"base_url": emulator.url})
        run = run_stream(Job(engine, stream, source, "test:1:unknown", on_progress=bug))
    word = "memory" if kind is MemoryError else "internal"
    assert (run.status, run.error_kind) == ("failed", word)
    assert run.error is not None
    said = ".+" if kind is MemoryError else rf"a bug: {kind.__name__} at \w+\.py:\d+"
    assert re.fullmatch(rf"twilio_main\.flex_flows: {said} → .+", run.error), run.error
    search(run.error, "error")
    with engine.connect() as connection:
        recorded = connection.execute(text("SELECT status, error_kind, error FROM etl.runs")).one()
        held = connection.execute(text("SELECT count(*) FROM etl.leases WHERE until > now()"))
        assert tuple(recorded) == ("failed", word, run.error)
        assert held.scalar_one() == 0


def test_a_bug_in_one_look_of_check_is_its_finding_and_the_next_looks_follow(
    settings: Settings, warehouse: str
) -> None:
    def bug(http: Any, source: Any) -> str:
        raise OverflowError(f"{ZOOM} {OBEYED}")

    units = [(source, replace(stream, probe=bug)) for source, stream in select(settings, [])]
    own = Warehouse(url=SecretStr(dsn(warehouse)))
    reachable = settings.model_copy(update={"warehouse": own})
    found = list(check.check(reachable, units, {}, redactor(reachable)))
    last = found[-len(units) :]
    assert [each.subject for each in last] == [f"{a.name}.{b.name}" for a, b in units]
    for finding in last:
        assert not finding.good
        assert re.fullmatch(r"a bug: OverflowError at \w+\.py:\d+ → .+", finding.text), finding
        search(finding.text, "check")


# --- all of it, from outside ---------------------------------------------------------------------
class Hook(ThreadingHTTPServer):
    """Receives what is sent to a webhook."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HookRequest)
        self.got: list[str] = []


class HookRequest(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(500 if len(self.server.got) == 1 else 200)
        self.end_headers()
        self.wfile.write(f"{HOOK} {ZOOM}".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.fault(41, 72)
def test_no_command_and_no_page_shows_what_a_provider_repeats(
    echo: Echo, hook: Hook, warehouse: str, tmp_path: Path, warm: Warm
) -> None:
    port = free_port()
    own = str(make_url(warehouse).password)
    path = tmp_path / "callflow.toml"
    daemon = f'[daemon]\nhttp = "127.0.0.1:{port}"\n'
    sources = SOURCES.format(url=echo.url, hook=f"http://127.0.0.1:{hook.server_port}")
    path.write_text(
        f'[warehouse]\nurl = "{dsn(warehouse)}"\n' + sources.replace("[daemon]\n", daemon)
    )
    path.chmod(0o600)

    def look(output: str, where: str) -> str:
        search(output, where)
        assert own not in output, where
        return output

    def command(*words: str) -> str:
        env = {k: v for k, v in os.environ.items() if not k.startswith("CALLFLOW_")}
        done = warm.run([*words, "--config", str(path)], env=env, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        assert done.returncode == (0 if words[0] == "status" else 1), (
            words,
            done.stdout,
            done.stderr,
        )
        look(done.stderr, f"stderr of {words}")
        return look(done.stdout, f"stdout of {words}")

    streams = len(select(config.load(path, {}), []))
    assert command("check").count("FAIL") == streams
    assert command("sync").count("failed") == streams
    echo.shape = scopes
    assert command("sync", "--json", "zoom_eu").count('"failed"') == 1
    assert command("status").count("failed") == streams
    for line in command("status", "--json").splitlines():
        assert json.loads(line)["state"] == "failed"

    process = Process(path, port)
    try:
        process.ran(4)
        until(lambda: len(hook.got) >= 2, "the webhook is called", process)
        headers = {"Authorization": f"Bearer {HTTP_TOKEN}"}
        for place in ("/", "/api/status?runs=1", "/metrics", "/readyz", "/healthz"):
            answer = process.get(place, headers=headers)
            look(answer.text, place)
        assert "zoom_eu" in process.get("/", headers=headers).text
        for name in ("cmdline", "comm"):
            look(Path(f"/proc/{process.popen.pid}/{name}").read_text().replace("\0", " "), name)
    finally:
        process.kill(signal.SIGTERM)
        process.ended()
        process.close()
    look(process.output, "log")
    for message in hook.got:
        look(message, "webhook")
    assert "zoom_eu.flows" in hook.got[-1]


def test_records_of_an_older_version_are_redacted_when_shown(
    settings: Settings, engine: Engine
) -> None:
    error = f"zoom_eu.flows: HTTP 400: {OBEYED} {ZOOM} {PERSONAL[0]} → ask {PERSONAL[1]}"
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO etl.streams (source, stream, last_status, last_attempt_at, error)"
                 " VALUES ('zoom_eu', 'flows', 'failed', now(), :error)"),
            {"error": error.replace("\0", "")},
        )  # fmt: skip
    overview = queries.status(engine, settings, redactor(settings))
    for stream in overview.streams:
        search(lines.stream_line(stream), "status")
        search(documents.stream_json(stream), "status --json")
    found = alerts.alerts(overview.streams, {}, redactor(settings))
    search(json.dumps(messages.payload(found), ensure_ascii=False), "webhook")
    assert "HTTP 400" in json.dumps(messages.payload(found))

"""What the daemon answers over HTTP, out of values and callables; it knows no SQL.

    /healthz      the process is alive                                        open
    /readyz       what is in the warehouse is fresh; the reasons where not    open
    /metrics      for Prometheus
    /api/status   the Overview as JSON; ?runs=1 adds each stream's last runs, ?q= narrows it
    /             the same for a person; ?q=, ?page=, ?still=1 (no reloading)
    /source/…     a source, and /flow?key=… a flow: flow_pages.py

If a token is set, all but the first two need it. If none is set, only requests that name this
machine by a loopback name are answered: a web page elsewhere whose host name was pointed at
127.0.0.1 (DNS rebinding) gets nothing.
"""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from etl.daemon.web import flow_contents, flow_pages
from etl.daemon.web.asking import Draw, Questions, Runs, in_time, limited
from etl.daemon.web.chart import changes, chart, seconds, took
from etl.daemon.web.contents import Plan, between, headline, matching, paged, word
from etl.daemon.web.flow_pages import html
from etl.status import changed, drawing, flows, picture
from etl.status.documents import as_json
from etl.status.health import Overview, StreamHealth
from etl.status.words import run_word, span

API_RUNS = 200
"""For how many streams at most one answer of /api/status has the last runs."""

_HERE = Path(__file__).parent
_OPEN = ("/healthz", "/readyz")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ICONS = {
    tone: "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    f"%3Cpath fill='none' stroke='%23{colour}' stroke-width='3' d='{path}'/%3E%3C/svg%3E"
    for tone, colour, path in (
        ("well", "2e9b63", "M2 9l4 4 8-10"),
        ("bad", "d93a30", "M3 3l10 10M13 3l-10 10"),
        ("down", "d93a30", "M8 2v8M8 12v3"),
        ("plain", "5b7fa6", "M8 1v6M3 15v-5h10v5M8 7v3"),
    )
}
_CHALLENGES = ('Bearer realm="callflow"', 'Basic realm="callflow", charset="UTF-8"')


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _State:
    """What every request is answered from; `app` explains the fields."""

    view: Callable[[], Overview]
    questions: Questions
    metrics: Callable[[], bytes]
    token: str | None
    now: Callable[[], datetime]
    patience: float
    template: Template


def app(
    view: Callable[[], Overview],
    questions: Questions,
    metrics: Callable[[], bytes],
    draw: Draw,
    *,
    token: str | None,
    now: Callable[[], datetime] = _utc_now,
    patience: float = 5.0,
) -> Starlette:
    """Return the application.

    `view`      returns the newest Overview at once, and never raises.
    `questions` ask the database; at most four of them are open at a time. If one takes longer than
                `patience` seconds, the page says so and shows what is known without the answer.
    `metrics`   returns the text of /metrics.
    `draw`      makes the SVG of a flow, in which it escapes all names; it bounds its own time.
    `token`     what clients must send; None: only loopback names are answered.
    `now`       the clock that `Overview.at` comes from. An overview that is OLD is not ready.
    """
    templates = _templates()
    questions = limited(questions)
    pages = flow_pages.routes(
        view, questions, draw, now=now, patience=patience, templates=templates
    )
    style = (_HERE / "style.css").read_text("utf-8") + picture.dark_style(".picture")
    application = Starlette(
        routes=[
            Route("/healthz", _fixed("ok\n", "text/plain")),
            Route("/readyz", _readyz),
            Route("/metrics", _metrics),
            Route("/api/status", _api_status),
            Route("/style.css", _fixed(style, "text/css")),
            Route("/", _page),
            *pages,
        ],
        middleware=[Middleware(_guarded, token=token), Middleware(GZipMiddleware)],
        exception_handlers={HTTPException: _refuse, Exception: _broken},
    )
    application.state.callflow = _State(
        view, questions, metrics, token, now, patience, templates.get_template("status.html")
    )
    application.router.redirect_slashes = False  # it would repeat the Host that the client named
    return application


# --- handlers -------------------------------------------------------------------------------------
def _state(request: Request) -> _State:
    state: _State = request.app.state.callflow
    return state


async def _readyz(request: Request) -> Response:
    state = _state(request)
    reasons = state.view().as_seen_at(state.now()).reasons
    lines = ["not ready" if reasons else "ready"]
    if state.token is None or _knows(request.headers, state.token):
        lines += reasons
    return PlainTextResponse("\n".join(lines) + "\n", 503 if reasons else 200)


async def _metrics(request: Request) -> Response:
    text = await run_sync(_state(request).metrics)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _api_status(request: Request) -> Response:
    state = _state(request)
    shown = state.view().as_seen_at(state.now())
    streams = matching(shown.streams, _query(request))
    runs, why = None, None
    if request.query_params.get("runs", "0") not in ("", "0"):
        if len(streams) > API_RUNS:
            detail = f"runs=1 answers for at most {API_RUNS} streams; narrow them with q=, as in"
            raise HTTPException(400, f"{detail} /api/status?runs=1&q=zoom_eu")
        runs, why = await _runs_of(state, streams)
    text = await run_sync(lambda: as_json(_status(shown, streams, runs, why)) + "\n")
    # Half a surrogate pair in a provider's message must not make it fail.
    kind = {"Content-Type": "application/json"}
    return Response(text.encode("utf-8", "replace"), headers=kind)


async def _page(request: Request) -> Response:
    state = _state(request)
    shown = state.view().as_seen_at(state.now())
    plan = paged(shown, _query(request), request.query_params.get("page", ""))
    runs, why = await _runs_of(state, plan.streams)
    still = request.query_params.get("still") == "1"
    text = await run_sync(_rendered, state, shown, plan, runs, why, still)
    return html(text)


def _rendered(
    state: _State, shown: Overview, plan: Plan, runs: Runs, why: str | None, still: bool
) -> str:
    moment = state.now()
    head = headline(shown, moment)
    return state.template.render(
        view=shown,
        head=head,
        icon=_ICONS[head.tone],
        not_ready=shown.reasons,
        plan=plan,
        runs=runs,
        why=why,
        still=still,
        ago=lambda time: f"{between(time, moment)} ago",
        since=lambda time: between(time, moment),
        until=lambda time: "due" if time <= moment else f"in {between(moment, time)}",
    )


async def _runs_of(state: _State, streams: Sequence[StreamHealth]) -> tuple[Runs, str | None]:
    """Return the last runs of `streams`, or none of them and why."""
    pairs = [(stream.source, stream.stream) for stream in streams]
    if not pairs:
        return {}, None
    late = f"the database did not answer within {state.patience:g} s"
    runs, why = await in_time(state.patience, late, state.questions.recent, pairs)
    return runs or {}, why


def _fixed(text: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def fixed(request: Request) -> Response:
        return Response(text, media_type=kind)

    return fixed


# --- who is answered ------------------------------------------------------------------------------
def _guarded(inner: ASGIApp, token: str | None) -> ASGIApp:
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = _refusal(scope["path"], Headers(scope=scope), token)
        await (refusal or inner)(scope, receive, send_with_headers)

    return guarded


def _refusal(path: str, headers: Headers, token: str | None) -> Response | None:
    if token is None:
        # /healthz answers nothing but "ok", and a probe may use any host name.
        if path == "/healthz" or _loopback(headers.get("host", "")):
            return None
        return PlainTextResponse(
            "421: no token is set, so only http://localhost, 127.0.0.1 and [::1] are answered, not"
            " another host name.\nSet http_token_file in [daemon] to be reached by other names.\n",
            421,
        )
    if path in _OPEN or _knows(headers, token):
        return None
    refusal = PlainTextResponse(
        "401: send the token, as `Authorization: Bearer …` or as the password of HTTP Basic.\n", 401
    )
    for challenge in _CHALLENGES:
        refusal.headers.append("WWW-Authenticate", challenge)
    return refusal


def _loopback(host: str) -> bool:
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():
        name = host
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _knows(headers: Headers, token: str) -> bool:
    """Whether the request carries the token (RFC 6750, section 2.1; RFC 7617, section 2)."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    secret = given.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            _, _, secret = base64.b64decode(secret, validate=True).partition(b":")
        except binascii.Error:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(secret, token.encode())


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{error.status_code}: {error.detail}\n"
    return PlainTextResponse(text, error.status_code, headers=error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    text = "500: answering this failed; callflow's log says why.\n"
    # uvicorn ends the connection when this has been sent.
    return PlainTextResponse(text, 500, headers={**_HEADERS, "Connection": "close"})


def _query(request: Request) -> str:
    return request.query_params.get("q", "")[:100].strip()


def _status(
    view: Overview,
    streams: Sequence[StreamHealth],
    runs: Runs | None,
    why: str | None,
) -> dict[str, Any]:
    answer = asdict(view) | {"ready": view.ready, "reasons": view.reasons}
    answer["streams"] = [
        {"name": stream.name, "good": stream.good, "fresh": stream.fresh, **asdict(stream)}
        for stream in streams
    ]
    if runs is not None:
        answer["runs_error"] = why
        for stream, shown in zip(streams, answer["streams"], strict=True):
            last = runs.get((stream.source, stream.stream), ())
            shown["runs"] = [asdict(run) | {"duration": seconds(run)} for run in last]
    return answer


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["span"] = span
    environment.filters["short"] = lambda text, limit=200: drawing.short(text or "", limit)
    environment.filters["took"] = took
    environment.filters["number"] = "{:,}".format
    environment.filters["minute"] = "{:%Y-%m-%d %H:%M}".format
    environment.filters["iso"] = lambda time: time.isoformat(timespec="seconds")
    environment.globals.update(
        chart=chart, run_changes=changes, seconds=seconds, word=word, run_word=run_word,
        urlencode=urlencode, icons=_ICONS,
        most=flow_contents, changed=changed, drawn=drawing,
        source_link=flow_contents.source_link, flow_link=flow_contents.flow_link,
        key_beside=flow_contents.key_beside, contact_kind=flows.contact_kind,
        what_follows=flow_contents.what_follows,
    )  # fmt: skip
    return environment

"""What the daemon answers over HTTP, out of values and callables; it knows no SQL.

    /healthz      the process is alive                                        open
    /readyz       what is in the warehouse is fresh; the reasons where not    open
    /metrics      for Prometheus
    /api/status   the Overview as JSON; ?runs=1 adds each stream's last runs, ?q= narrows it
    /             the same for a person; ?q=, ?page=, ?still=1 (no reloading)
    /streams/…    a stream, and /runs/… a run: stream_pages.py
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
from typing import Any

from anyio.to_thread import run_sync
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

from etl.daemon.web import flow_pages, stream_pages
from etl.daemon.web.asking import Draw, Questions, Runs, in_time, late, limited
from etl.daemon.web.chart import seconds
from etl.daemon.web.contents import LATEST, headline, matching, paged, stream_link
from etl.daemon.web.templates import HERE, Local, Render, html, renderer
from etl.status import picture
from etl.status.documents import as_json
from etl.status.health import Overview, StreamHealth

API_RUNS = 200
"""For how many streams at most one answer of /api/status has the last runs."""

_OPEN = ("/healthz", "/readyz")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
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
    render: Render


def app(
    view: Callable[[], Overview],
    questions: Questions,
    metrics: Callable[[], bytes],
    draw: Draw,
    *,
    token: str | None,
    now: Callable[[], datetime] = _utc_now,
    local: Local = datetime.astimezone,
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
    `local`     returns a time in the zone that is shown beside UTC: this machine's.
    """
    render = renderer(now, local)
    questions = limited(questions)
    pages = [
        *stream_pages.routes(view, questions, now=now, patience=patience, render=render),
        *flow_pages.routes(view, questions, draw, patience=patience, render=render),
    ]
    style = (HERE / "style.css").read_text("utf-8") + picture.dark_style(".picture")
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
    application.state.callflow = _State(view, questions, metrics, token, now, patience, render)
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
    moment = state.now()
    shown = state.view().as_seen_at(moment)
    plan = paged(shown, _query(request), request.query_params.get("page", ""))
    runs: Runs = {}
    why, changed = None, None
    if shown.database is None:  # else the page says already why nothing can be asked
        runs, why = await _runs_of(state, plan.streams)
        if why is None and plan.is_whole:
            changed, why = await in_time(
                state.patience, late(state.patience), state.questions.latest, LATEST
            )
    values = {
        "view": shown, "head": headline(shown, moment), "plan": plan, "runs": runs, "why": why,
        "latest": changed, "still": request.query_params.get("still") == "1",
    }  # fmt: skip
    return html(await run_sync(lambda: state.render("status.html", **values)))


async def _runs_of(state: _State, streams: Sequence[StreamHealth]) -> tuple[Runs, str | None]:
    """Return the last runs of `streams`, or none of them and why."""
    pairs = [(stream.source, stream.stream) for stream in streams]
    if not pairs:
        return {}, None
    runs, why = await in_time(state.patience, late(state.patience), state.questions.recent, pairs)
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
    page = view.public_url
    answer["streams"] = [
        {
            "name": stream.name,
            "good": stream.good,
            "fresh": stream.fresh,
            "url": page and page + stream_link(stream.source, stream.stream),
            **asdict(stream),
        }
        for stream in streams
    ]
    if runs is not None:
        answer["runs_error"] = why
        for stream, shown in zip(streams, answer["streams"], strict=True):
            last = runs.get((stream.source, stream.stream), ())
            shown["runs"] = [asdict(run) | {"duration": seconds(run)} for run in last]
    return answer

"""Zoom: server-to-server OAuth and the contact-center flow list, as Zoom's API reference has them.

What the reference leaves open is a switch here: the order of rows, what a page token means, how
the last page says so, the status of an expired access token, whether a plain list has archived
flows, and what becomes of a page_size above 100.
"""

import base64
import binascii
import secrets
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

import msgspec

from etl.sandbox.store import Cursor, Paging, Store
from etl.sandbox.wire import Clock, Fault, Request, Response, json_response, whole_number

LIST_SCOPES = ("contact_center_flow:read:admin", "contact_center:read:list_flows:admin")
"""Classic and granular scope of the list; either will do (Zoom's API reference, 'List flows')."""

GET_SCOPES = ("contact_center_flow:read:admin", "contact_center:read:flow:admin")
"""The same for one flow (Zoom's API reference, 'Get a flow')."""

FILTERS: Mapping[str, frozenset[str]] = {
    "status": frozenset({"draft", "published", "archived"}),
    "channel_type": frozenset({"voice", "chat", "sms", "video", "in_app_chat"}),
    "channel": frozenset({"voice", "video", "messaging", "email", "work_item"}),
    "channel_source": frozenset(
        {
            "web_chat",
            "in_app_chat",
            "sms",
            "facebook_messenger",
            "whatsapp",
            "email_address",
            "api",
        }
    ),
}
"""Query parameters that filter the list, with the values that the reference allows."""

_FLOWS = "/v2/contact_center/flows"


@dataclass(frozen=True, slots=True)
class _AccessToken:
    expires_at: float
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class _PageToken:
    filters: Mapping[str, str]
    page_size: int
    issued_at: float
    cursor: Cursor


class Zoom:
    """State and behaviour of one Zoom account; every public attribute may be changed at any time.

    `flows`           the account's flows, by flow_id.
    `expires_in`      life of new access tokens, seconds; what the token response says.
    `scopes`          of new access tokens.
    `page_token_life` seconds.
    `last_page_token` how the last page ends: "", null or no such member.
    `expired_status`  HTTP status of code 124.
    `lists_archived`  whether the list without a status filter has archived flows.
    `refuses_large_pages` page_size above 100: 400, or lowered to 100.
    `largest_page`    most rows in an answer, whatever was asked for; a few make a list of few rows
                      have many pages.
    """

    def __init__(self, *, clock: Clock | None = None, keep_requests: int | None = 10_000) -> None:
        self.url = ""
        self.clock = clock or Clock()
        self.faults: list[Fault] = []
        self.requests: deque[Request] = deque(maxlen=keep_requests)
        self.errors: list[Exception] = []

        self.account_id = "sandbox-zoom-account"
        self.client_id = "sandbox-zoom-client"
        self.client_secret = "sandbox-zoom-secret"  # noqa: S105  (invented)
        self.scopes = {LIST_SCOPES[1], GET_SCOPES[1]}
        self.expires_in = 3600
        self.paging: Paging = "offset/created"
        self.ties: Random | None = None
        self.page_token_life = 15 * 60
        self.last_page_token: Literal["", "null", "missing"] = ""
        self.expired_status = 401
        self.lists_archived = True
        self.refuses_large_pages = False
        self.largest_page = 100

        self._lock = threading.RLock()
        self.flows = Store("flow_id", "last_modified_time", self._now, self._lock)
        self._access: dict[str, _AccessToken] = {}
        self._pages: dict[str, _PageToken] = {}

    def records(self) -> list[Any]:
        """The flows as they are now: what a complete list returns."""
        return self.flows.records()

    def revoke_tokens(self) -> None:
        """Make all access tokens invalid, as deactivating the app does."""
        with self._lock:
            self._access.clear()

    def handle(self, request: Request) -> Response:
        """Answer one request; always with the tracking id that Zoom's support asks for."""
        with self._lock:
            answer = self._route(request)
        tracking = {"x-zm-trackingid": f"SANDBOX_{secrets.token_hex(16)}"}
        return Response(answer.status, answer.body, {**answer.headers, **tracking})

    def _now(self) -> str:
        return datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _route(self, request: Request) -> Response:
        if request.path == "/oauth/token":
            return self._token(request)
        flow_id = request.target.partition("?")[0].removeprefix(f"{_FLOWS}/")
        is_list = request.path == _FLOWS
        is_one = request.path.startswith(f"{_FLOWS}/") and bool(flow_id) and "/" not in flow_id
        if request.method != "GET" or not (is_list or is_one):
            return error(404, 2300, "This API endpoint is not recognized.")
        refused = self._refusal(request, LIST_SCOPES if is_list else GET_SCOPES)
        if refused is not None:
            return refused
        return self._list(request) if is_list else self._one(unquote(flow_id))

    # -- access tokens -----------------------------------------------------------------------

    def _token(self, request: Request) -> Response:
        """POST /oauth/token (Zoom's docs, 'Server-to-Server OAuth')."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_form = request.method == "POST" and kind == "application/x-www-form-urlencoded"
        form = parse_qs(request.body.decode("latin-1")) if is_form else {}
        if _basic(request) != (self.client_id, self.client_secret):
            return oauth_error("invalid_client", "Invalid client_id or client_secret")
        if form.get("grant_type") != ["account_credentials"]:
            return oauth_error("unsupported_grant_type", "Unsupported grant type")
        if form.get("account_id") != [self.account_id]:
            return oauth_error("invalid_request", "Bad Request")
        token = f"sandbox-access-{secrets.token_urlsafe(24)}"
        scopes = frozenset(self.scopes)
        self._access[token] = _AccessToken(self.clock() + self.expires_in, scopes)
        return json_response(
            200,
            {
                "access_token": token,
                "token_type": "bearer",
                "expires_in": self.expires_in,
                "scope": " ".join(sorted(scopes)),
                "api_url": self.url,
            },
        )

    def _refusal(self, request: Request, scopes: tuple[str, str]) -> Response | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            return error(401, 4700, "Token cannot be empty.")
        access = self._access.get(token)
        if access is None:
            return error(self.expired_status, 124, "Invalid access token.")
        if access.expires_at <= self.clock():
            return error(self.expired_status, 124, "Access token is expired.")
        if access.scopes.isdisjoint(scopes):
            return missing_scope(scopes[1])
        return None

    # -- flows -------------------------------------------------------------------------------

    def _list(self, request: Request) -> Response:
        """GET /contact_center/flows (Zoom's API reference, 'List flows'; docs, 'Pagination')."""
        params = request.params
        filters = {name: params[name] for name in FILTERS if params.get(name)}
        wrong = [name for name, value in filters.items() if value not in FILTERS[name]]
        size = whole_number(params.get("page_size", "30")) or 0
        if size < 1 or (size > 100 and self.refuses_large_pages):
            wrong.append("page_size")
        if wrong:
            return invalid(wrong)
        page_size = min(size, self.largest_page)

        cursor = Cursor()
        token = params.get("next_page_token", "")
        if token:
            meant = self._pages.get(token)
            if (
                meant is None
                or meant.issued_at + self.page_token_life <= self.clock()
                or (meant.filters, meant.page_size) != (filters, page_size)
            ):
                return page_token_refused()
            cursor = meant.cursor

        def wanted(flow: Any) -> bool:
            if not filters and not self.lists_archived:
                return not isinstance(flow, dict) or flow.get("status") != "archived"
            return isinstance(flow, dict) and all(flow.get(k) == v for k, v in filters.items())

        rows, following, total = self.flows.page(
            self.paging,
            cursor,
            page_size,
            ties=self.ties,
            wanted=wanted if filters or not self.lists_archived else None,
        )
        envelope: dict[str, object] = {}
        if following is not None:
            envelope["next_page_token"] = self._page_token(filters, page_size, following)
        elif self.last_page_token != "missing":  # noqa: S105
            envelope["next_page_token"] = None if self.last_page_token else ""
        envelope |= {"page_size": page_size, "total_records": total}
        envelope["flows"] = [msgspec.Raw(row) for row in rows]
        return json_response(200, envelope)

    def _page_token(self, filters: Mapping[str, str], page_size: int, cursor: Cursor) -> str:
        now = self.clock()
        if len(self._pages) > 1000:
            alive = now - self.page_token_life
            self._pages = {key: page for key, page in self._pages.items() if page.issued_at > alive}
        token = secrets.token_urlsafe(26)
        self._pages[token] = _PageToken(filters, page_size, now, cursor)
        return token

    def _one(self, flow_id: str) -> Response:
        """GET /contact_center/flows/{flowId} (Zoom's API reference, 'Get a flow')."""
        row = self.flows.find(flow_id)
        if row is None:
            return error(404, 3201, f"Flow does not exist: {flow_id}.")
        return Response(200, row)


def _basic(request: Request) -> tuple[str, str] | None:
    kind, _, code = request.headers.get("authorization", "").partition(" ")
    try:
        user, _, password = base64.b64decode(code, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if kind.lower() == "basic" else None


# -- the error answers, for the emulator and as the `response` of a Fault ------------------------


def error(status: int, code: int, message: str) -> Response:
    """Zoom's error body (Zoom's docs, 'Errors')."""
    return json_response(status, {"code": code, "message": message})


def oauth_error(word: str, reason: str, status: int = 400) -> Response:
    """The token endpoint's error body, which is unlike that of the API."""
    return json_response(status, {"reason": reason, "error": word})


def invalid(fields: list[str]) -> Response:
    """A query parameter that the reference does not allow (Zoom's docs, 'Errors')."""
    problems = [{"field": name, "message": "Invalid field."} for name in fields]
    return json_response(400, {"code": 300, "message": "Validation Failed.", "errors": problems})


def page_token_refused() -> Response:
    """A next_page_token that is unknown, too old, or sent with other parameters."""
    return error(400, 300, "The next page token is invalid or expired.")


def token_expired(status: int = 401) -> Response:
    """An access token past its time."""
    return error(status, 124, "Access token is expired.")


def missing_scope(scope: str = LIST_SCOPES[1]) -> Response:
    """The app was not given the scope that this call needs."""
    return error(400, 4711, f"Invalid access token, does not contain scopes:[{scope}].")


def too_many_this_second() -> Response:
    """The per-second limit (Zoom's docs, 'Rate limits'); it comes without Retry-After."""
    return json_response(
        429,
        {
            "code": 429,
            "message": "You have reached the maximum per-second rate limit for this API. "
            "Try again later.",
        },
        _limit_headers("Medium", "QPS", 10),
    )


def too_many_today(until: str = "2026-11-21T00:00:00Z") -> Response:
    """The daily limit; Retry-After is an instant (`until`, ISO 8601), not a number of seconds."""
    return json_response(
        429,
        {
            "code": 429,
            "message": "You have reached the maximum daily rate limit for this API. Refer to the "
            "response header for details on when you can make another request.",
        },
        {**_limit_headers("Heavy", "Daily-limit", 15_000), "Retry-After": until},
    )


def too_many_at_once() -> Response:
    """The concurrency limit."""
    return error(429, 429, "Too many concurrent requests. Try again later.")


def _limit_headers(category: str, kind: str, limit: int) -> dict[str, str]:
    return {
        "X-RateLimit-Category": category,
        "X-RateLimit-Type": kind,
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": "0",
    }

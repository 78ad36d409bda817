"""Zoom: server-to-server OAuth and the list of contact-center flows, as Zoom's API reference says.

What the reference leaves open is a switch here: the order of rows, what a page token means, how
the last page is marked, the status of an expired access token, whether a plain list has archived
flows, and how a page_size above 100 is answered.
"""

import base64
import binascii
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, unquote

import msgspec

from etl.sandbox import zoom_data
from etl.sandbox.data import RandomOf, Sizes
from etl.sandbox.exchange import Request, Response, json_response, whole_number
from etl.sandbox.faults import Fault
from etl.sandbox.store import Cursor, Paging, Store, Ticket, Tickets
from etl.sandbox.wire import Clock

LIST_SCOPES = ("contact_center_flow:read:admin", "contact_center:read:list_flows:admin")
"""Classic and granular scope of the list; one suffices (Zoom's API reference, 'List flows')."""

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
class _Query:
    filters: Mapping[str, str]
    page_size: int


class Zoom:
    """State and behaviour of one Zoom account; any public attribute may be changed at any time.

    `flows`           the account's flows, by flow_id.
    `expires_in`      lifetime of new access tokens in seconds, as the token response says.
    `scopes`          of new access tokens.
    `page_token_life` seconds.
    `last_page_token` next_page_token of the last page: "", null or missing.
    `expired_status`  HTTP status of code 124.
    `lists_archived`  whether the list without a status filter has archived flows.
    `refuses_large_pages` whether a page_size above 100 is answered with 400, or lowered to 100.
    `largest_page`    the most rows of an answer, whatever was requested; a small number gives a
                      list of few rows many pages.
    """

    name: ClassVar[str] = "zoom"

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
        self._tickets = Tickets()

    def fill(self, random_of: RandomOf, sizes: Sizes) -> None:
        """Add generated flows."""
        for flow in zoom_data.flows(random_of("zoom"), sizes.of("zoom.flows", sizes.flows)):
            self.flows.add(flow)

    def settings(self) -> dict[str, object]:
        """Return what callflow.toml says of this account, without secrets."""
        return {
            "account_id": self.account_id,
            "client_id": self.client_id,
            "base_url": f"{self.url}/v2",
            "token_url": f"{self.url}/oauth/token",
        }

    def secrets(self) -> dict[str, str]:
        """Return the secrets of this account, by their keys in callflow.toml."""
        return {"client_secret": self.client_secret}

    def records(self) -> dict[str, list[Any]]:
        """Return the records as they are now, by stream: what complete lists return."""
        return {"flows": self.flows.records()}

    def change(self) -> list[str]:
        """Change something for the demo; return what "someone" did, one verb phrase per change."""
        keys = self.flows.keys()
        if len(keys) < 2:
            return []
        self.flows.update(keys[0], flow_name="Autumn sale hotline", status="published")
        self.flows.delete(keys[1])
        return ["renames a flow", "deletes one"]

    def revoke_tokens(self) -> None:
        """Invalidate all access tokens, as deactivating the app does."""
        with self._lock:
            self._access.clear()

    def handle(self, request: Request) -> Response:
        """Answer one request, with the tracking id that Zoom's support asks for."""
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
        query = self._query(request.params)
        if isinstance(query, Response):
            return query
        cursor = self._cursor(request.params.get("next_page_token", ""), query)
        if cursor is None:
            return page_token_refused()
        rows, following, total = self.flows.page(
            self.paging,
            cursor,
            query.page_size,
            ties=self.ties,
            wanted=self._wanted(query.filters),
        )
        envelope: dict[str, object] = {}
        if following is not None:
            token = secrets.token_urlsafe(26)
            ticket = Ticket(query, following, self.clock())
            envelope["next_page_token"] = self._tickets.give(token, ticket)
        elif self.last_page_token != "missing":  # noqa: S105
            envelope["next_page_token"] = None if self.last_page_token else ""
        envelope |= {"page_size": query.page_size, "total_records": total}
        envelope["flows"] = [msgspec.Raw(row) for row in rows]
        return json_response(200, envelope)

    def _query(self, params: Mapping[str, str]) -> _Query | Response:
        filters = {name: params[name] for name in FILTERS if params.get(name)}
        wrong = [name for name, value in filters.items() if value not in FILTERS[name]]
        size = whole_number(params.get("page_size", "30")) or 0
        if size < 1 or (size > 100 and self.refuses_large_pages):
            wrong.append("page_size")
        return invalid(wrong) if wrong else _Query(filters, min(size, self.largest_page))

    def _cursor(self, token: str, query: _Query) -> Cursor | None:
        """Return where the page starts; None if the token is not valid for it."""
        if not token:
            return Cursor()
        ticket = self._tickets.find(token, query)
        if ticket is None or ticket.at + self.page_token_life <= self.clock():
            return None
        return ticket.cursor

    def _wanted(self, filters: Mapping[str, str]) -> Callable[[Any], bool] | None:
        """Return what decides whether a flow is listed; None if all are."""
        if filters:
            return lambda flow: (
                isinstance(flow, dict) and all(flow.get(k) == v for k, v in filters.items())
            )
        if not self.lists_archived:
            return lambda flow: not isinstance(flow, dict) or flow.get("status") != "archived"
        return None

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


# -- error answers, for the emulator and for a fault's `response` --------------------------------


def error(status: int, code: int, message: str) -> Response:
    """Return Zoom's error body (Zoom's docs, 'Errors')."""
    return json_response(status, {"code": code, "message": message})


def oauth_error(word: str, reason: str, status: int = 400) -> Response:
    """Return the token endpoint's error body, which differs from the API's."""
    return json_response(status, {"reason": reason, "error": word})


def invalid(fields: list[str]) -> Response:
    """Refuse query parameters that the reference does not allow (Zoom's docs, 'Errors')."""
    problems = [{"field": name, "message": "Invalid field."} for name in fields]
    return json_response(400, {"code": 300, "message": "Validation Failed.", "errors": problems})


def page_token_refused() -> Response:
    """Refuse a next_page_token that is unknown, too old, or sent with other parameters."""
    return error(400, 300, "The next page token is invalid or expired.")


def token_expired(status: int = 401) -> Response:
    """Refuse an expired access token."""
    return error(status, 124, "Access token is expired.")


def missing_scope(scope: str = LIST_SCOPES[1]) -> Response:
    """Refuse a call whose scope the app was not given."""
    return error(400, 4711, f"Invalid access token, does not contain scopes:[{scope}].")


def too_many_this_second() -> Response:
    """Report the per-second limit (Zoom's docs, 'Rate limits'), without Retry-After."""
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
    """Report the daily limit; Retry-After is an instant (`until`, ISO 8601), not a duration."""
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
    """Report the concurrency limit."""
    return error(429, 429, "Too many concurrent requests. Try again later.")


def _limit_headers(category: str, kind: str, limit: int) -> dict[str, str]:
    return {
        "X-RateLimit-Category": category,
        "X-RateLimit-Type": kind,
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": "0",
    }

"""Twilio: Flex flows and channels, as Twilio's Flex API reference and OpenAPI document have them.

What they leave open is a switch here: the order of rows, what a page token means, PageSize above
1000, how FriendlyName matches, the form of dates.
"""

import base64
import binascii
import hmac
import secrets
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, Literal
from urllib.parse import urlencode

import msgspec

from etl.sandbox.store import Cursor, Paging, Store
from etl.sandbox.wire import Clock, Fault, Request, Response, json_response, whole_number


@dataclass(frozen=True, slots=True)
class _PageToken:
    path: str
    filters: Mapping[str, str]
    page_size: int
    page: int
    before: str | None
    cursor: Cursor


class Twilio:
    """State and behaviour of one Twilio account; public attributes may be changed at any time.

    `flex_flows`, `channels` the account's rows, by sid.
    `suspended`        403 for everybody.
    `api_key_may_read` False: the API key, unlike the auth token, has no permission for Flex.
    `refuses_large_pages` PageSize above 1000: 400, or lowered to 1000.
    `largest_page`     most rows in an answer, whatever was asked for; a few make a list of few rows
                       have many pages.
    `matches_part`     FriendlyName finds parts of names, or whole ones only.
    `date_form`        of the times that `update` writes: "Z" or "+00:00".
    `public_base`      scheme and host of the URLs in `meta`; None: those of the request.
    `next_base`        the same for next_page_url alone; point it at a stranger to see whether
                       credentials follow.
    """

    def __init__(self, *, clock: Clock | None = None, keep_requests: int | None = 10_000) -> None:
        self.url = ""
        self.clock = clock or Clock()
        self.faults: list[Fault] = []
        self.requests: deque[Request] = deque(maxlen=keep_requests)
        self.errors: list[Exception] = []

        self.account_sid = ACCOUNT_SID
        self.auth_token = "sandbox-twilio-token"  # noqa: S105  (invented)
        self.api_key_sid = "SK" + "7" * 32
        self.api_key_secret = "sandbox-twilio-key-secret"  # noqa: S105  (invented)
        self.suspended = False
        self.api_key_may_read = True
        self.paging: Paging = "keyset"
        self.ties: Random | None = None
        self.refuses_large_pages = False
        self.largest_page = 1000
        self.matches_part = False
        self.date_form: Literal["Z", "+00:00"] = "Z"
        self.public_base: str | None = None
        self.next_base: str | None = None

        self._lock = threading.RLock()
        self.flex_flows = Store("sid", "date_updated", self._now, self._lock)
        self.channels = Store("sid", "date_updated", self._now, self._lock)
        self._pages: dict[str, _PageToken] = {}

    def records(self) -> dict[str, list[Any]]:
        """The rows as they are now, by stream: what complete lists return."""
        with self._lock:
            return {
                "flex_flows": self.flex_flows.records(),
                "channels": self.channels.records(),
            }

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        with self._lock:
            return self._route(request)

    def _now(self) -> str:
        now = datetime.fromtimestamp(self.clock(), UTC)
        return now.strftime("%Y-%m-%dT%H:%M:%S") + self.date_form

    def _route(self, request: Request) -> Response:
        refused = self._refusal(request)
        if refused is not None:
            return refused
        places = {
            "/v1/FlexFlows": (self.flex_flows, "flex_flows"),
            "/v1/Channels": (self.channels, "flex_chat_channels"),
        }
        resource, _, sid = request.path.removeprefix("/v1/").partition("/")
        place = places.get(f"/v1/{resource}")
        if place is None or request.method != "GET" or not request.path.startswith("/v1/"):
            return not_found(request.path)
        store, rows_key = place
        if request.path == f"/v1/{resource}":
            return self._list(request, store, rows_key)
        row = store.find(sid)
        return not_found(request.path) if row is None else Response(200, row)

    def _refusal(self, request: Request) -> Response | None:
        """HTTP Basic: account SID and auth token, or API key SID and secret."""
        kind, _, code = request.headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(code, validate=True) if kind.lower() == "basic" else b""
        except binascii.Error:
            given = b""
        by_account = f"{self.account_sid}:{self.auth_token}".encode()
        by_key = f"{self.api_key_sid}:{self.api_key_secret}".encode()
        is_key = hmac.compare_digest(given, by_key)
        if not is_key and not hmac.compare_digest(given, by_account):
            return unauthorized()
        if self.suspended:
            return error(403, 20403, "Forbidden")
        if is_key and not self.api_key_may_read:
            return error(403, 70051, "Authorization Failed")
        return None

    def _list(self, request: Request, store: Store, rows_key: str) -> Response:
        params = request.params
        size = whole_number(params.get("PageSize", "50"))
        page = whole_number(params.get("Page", "0"))
        if not size:
            return error(400, 20001, "Invalid PageSize")
        if page is None:
            return error(400, 20001, "Invalid Page")
        if size > 1000 and self.refuses_large_pages:
            return error(400, 20001, "Page size must be at most 1000")
        page_size = min(size, self.largest_page)
        filters = {}
        if rows_key == "flex_flows" and params.get("FriendlyName"):
            filters["FriendlyName"] = params["FriendlyName"]

        cursor, before = Cursor(), None
        token = params.get("PageToken", "")
        if token:
            meant = self._pages.get(token)
            asked = (request.path, filters, page_size, page)
            if meant is None or asked != (meant.path, meant.filters, meant.page_size, meant.page):
                return page_token_refused()
            cursor, before = meant.cursor, meant.before
        elif page > 0:
            return page_token_refused()

        wanted = self._named(filters["FriendlyName"]) if filters else None
        rows, following, _ = store.page(
            self.paging, cursor, page_size, ties=self.ties, wanted=wanted
        )
        base = self.public_base or f"http://{request.headers.get('host', '')}"

        def url(page: int, token: str | None = None, base: str = base) -> str:
            query = {**filters, "PageSize": str(page_size), "Page": str(page)}
            if token:
                query["PageToken"] = token
            return f"{base}{request.path}?{urlencode(query)}"

        next_url = None
        if following is not None:
            next_token = f"PT{secrets.token_hex(16)}"
            if len(self._pages) >= 10_000:
                del self._pages[next(iter(self._pages))]
            self._pages[next_token] = _PageToken(
                request.path, filters, page_size, page + 1, token or None, following
            )
            next_url = url(page + 1, next_token, self.next_base or base)
        meta = {
            "page": page,
            "page_size": page_size,
            "first_page_url": url(0),
            "previous_page_url": url(page - 1, before) if page else None,
            "url": url(page, token or None),
            "next_page_url": next_url,
            "key": rows_key,
        }
        return json_response(200, {"meta": meta, rows_key: [msgspec.Raw(row) for row in rows]})

    def _named(self, name: str) -> Any:
        def wanted(flow: Any) -> bool:
            text = flow.get("friendly_name") if isinstance(flow, dict) else None
            return isinstance(text, str) and (name in text if self.matches_part else name == text)

        return wanted


ACCOUNT_SID = "AC" + "5" * 32
"""The invented account; written as a sum so that no scanner takes it for a real one."""


# -- the error answers, for the emulator and as the `response` of a Fault ------------------------


def error(
    status: int, code: int, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Twilio's error body (Twilio's docs, 'Error and Warning Dictionary')."""
    body = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return json_response(status, body, headers)


def unauthorized() -> Response:
    """Wrong or no credentials."""
    return error(401, 20003, "Authenticate", {"WWW-Authenticate": 'Basic realm="Twilio API"'})


def not_found(path: str) -> Response:
    """No such resource, or no such row; `path` as requested."""
    resource = path.removeprefix("/v1")
    return error(404, 20404, f"The requested resource {resource} was not found")


def page_token_refused() -> Response:
    """A PageToken that this list did not give out, or Page without one."""
    return error(400, 21481, "Invalid PageToken")


def too_many_requests(retry_after: str | None = None) -> Response:
    """The account's concurrency limit; `retry_after` is the header's text, None leaves it out."""
    headers = {"Twilio-Concurrent-Requests": "101"}
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    return error(429, 20429, "Too Many Requests", headers)


def rate_limit_exceeded() -> Response:
    """The rate limit of Flex's own (Twilio's docs, error 45010)."""
    return error(429, 45010, "Rate Limit Exceeded")


def unavailable() -> Response:
    """The service is away."""
    return error(503, 20503, "Service unavailable")

"""Twilio: Flex Flows and channels, as Twilio's Flex API reference and OpenAPI document say.

What they leave open is a switch here: the order of rows, what a page token means, a PageSize above
1000, how FriendlyName matches, the form of dates.
"""

import base64
import binascii
import hmac
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

import msgspec

from etl.sandbox import twilio_data
from etl.sandbox.data import RandomOf, Sizes
from etl.sandbox.exchange import Request, Response, json_response, whole_number
from etl.sandbox.faults import Fault
from etl.sandbox.store import Cursor, Paging, Store, Ticket, Tickets
from etl.sandbox.wire import Clock


@dataclass(frozen=True, slots=True)
class _Query:
    path: str
    filters: Mapping[str, str]
    page_size: int
    page: int

    def url(self, base: str, token: str | None = None) -> str:
        """Return the URL that requests this page."""
        pairs = {**self.filters, "PageSize": str(self.page_size), "Page": str(self.page)}
        if token:
            pairs["PageToken"] = token
        return f"{base}{self.path}?{urlencode(pairs)}"


class Twilio:
    """State and behaviour of one Twilio account; public attributes may be changed at any time.

    `flex_flows`, `channels` the account's rows, by sid.
    `suspended`        whether every request is answered with 403.
    `api_key_may_read` False: the API key, unlike the auth token, has no permission for Flex.
    `refuses_large_pages` whether a PageSize above 1000 is answered with 400, or lowered to 1000.
    `largest_page`     the most rows of an answer, whatever was requested; a small number gives a
                       list of few rows many pages.
    `matches_part`     whether FriendlyName finds parts of names, or only whole names.
    `date_form`        of the times that `update` writes: "Z" or "+00:00".
    `public_base`      scheme and host of the URLs in `meta`; None: those of the request.
    `next_base`        the same for next_page_url alone; with another host it shows whether
                       credentials are sent there.
    """

    name: ClassVar[str] = "twilio"

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
        self._tickets = Tickets()

    def fill(self, random_of: RandomOf, sizes: Sizes) -> None:
        """Add generated Flex Flows, a quarter of what other providers have, and channels."""
        count = sizes.of("twilio.flex_flows", (sizes.flows + 3) // 4)
        flows = twilio_data.flex_flows(random_of("flex"), count, self.account_sid, self.date_form)
        for flow in flows:
            self.flex_flows.add(flow)
        count = sizes.of("twilio.channels", sizes.objects)
        self.channels.load(
            twilio_data.channels(
                random_of("channels"), count, self.account_sid, flows, self.date_form
            )
        )

    def settings(self) -> dict[str, object]:
        """Return what callflow.toml says of this account, without secrets."""
        return {"account_sid": self.account_sid, "base_url": self.url}

    def secrets(self) -> dict[str, str]:
        """Return the secrets of this account, by their keys in callflow.toml."""
        return {"auth_token": self.auth_token}

    def change(self) -> list[str]:
        """Change something for the demo; return what "someone" did, one verb phrase per change."""
        if not len(self.flex_flows):
            return []
        self.flex_flows.update(self.flex_flows.keys()[0], enabled=False)
        return ["switches a Flex Flow off"]

    def records(self) -> dict[str, list[Any]]:
        """Return the records as they are now, by stream: what complete lists return."""
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
        """Check HTTP Basic: account SID and auth token, or API key SID and secret."""
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
        """GET /v1/FlexFlows or /v1/Channels (Twilio's Flex API reference)."""
        query = self._query(request, rows_key)
        if isinstance(query, Response):
            return query
        token = request.params.get("PageToken") or None
        ticket = self._ticket(token, query)
        if ticket is None:
            return page_token_refused()
        rows, following, _ = store.page(
            self.paging,
            ticket.cursor,
            query.page_size,
            ties=self.ties,
            wanted=self._wanted(query.filters.get("FriendlyName")),
        )
        base = self.public_base or f"http://{request.headers.get('host', '')}"
        next_url = None
        if following is not None:
            after = replace(query, page=query.page + 1)
            next_ticket = Ticket(after, following, before=token)
            next_token = self._tickets.give(f"PT{secrets.token_hex(16)}", next_ticket)
            next_url = after.url(self.next_base or base, next_token)
        previous = replace(query, page=query.page - 1)
        meta = {
            "page": query.page,
            "page_size": query.page_size,
            "first_page_url": replace(query, page=0).url(base),
            "previous_page_url": previous.url(base, ticket.before) if query.page else None,
            "url": query.url(base, token),
            "next_page_url": next_url,
            "key": rows_key,
        }
        return json_response(200, {"meta": meta, rows_key: [msgspec.Raw(row) for row in rows]})

    def _query(self, request: Request, rows_key: str) -> _Query | Response:
        params = request.params
        size = whole_number(params.get("PageSize", "50"))
        page = whole_number(params.get("Page", "0"))
        if not size:
            return error(400, 20001, "Invalid PageSize")
        if page is None:
            return error(400, 20001, "Invalid Page")
        if size > 1000 and self.refuses_large_pages:
            return error(400, 20001, "Page size must be at most 1000")
        name = params.get("FriendlyName") if rows_key == "flex_flows" else None
        filters = {"FriendlyName": name} if name else {}
        return _Query(request.path, filters, min(size, self.largest_page), page)

    def _ticket(self, token: str | None, query: _Query) -> Ticket | None:
        """Return what the token stands for; None if it is not valid for the query."""
        if token is not None:
            return self._tickets.find(token, query)
        return None if query.page else Ticket(query, Cursor())

    def _wanted(self, name: str | None) -> Callable[[Any], bool] | None:
        """Return what decides whether a flow has this FriendlyName; None if no name was given."""
        if name is None:
            return None

        def wanted(flow: Any) -> bool:
            text = flow.get("friendly_name") if isinstance(flow, dict) else None
            return isinstance(text, str) and (name in text if self.matches_part else name == text)

        return wanted


ACCOUNT_SID = "AC" + "5" * 32
"""The invented account; written as a sum so that no scanner mistakes it for a real one."""


# -- error answers, for the emulator and for a fault's `response` --------------------------------


def error(
    status: int, code: int, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return Twilio's error body (Twilio's docs, 'Error and Warning Dictionary')."""
    body = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return json_response(status, body, headers)


def unauthorized() -> Response:
    """Refuse wrong or missing credentials."""
    return error(401, 20003, "Authenticate", {"WWW-Authenticate": 'Basic realm="Twilio API"'})


def not_found(path: str) -> Response:
    """Report that there is no such resource or row; `path` as requested."""
    resource = path.removeprefix("/v1")
    return error(404, 20404, f"The requested resource {resource} was not found")


def page_token_refused() -> Response:
    """Refuse a PageToken that this list did not give out, or a Page without one."""
    return error(400, 21481, "Invalid PageToken")


def too_many_requests(retry_after: str | None = None) -> Response:
    """Report the account's concurrency limit; `retry_after` is the header's text, None omits it."""
    headers = {"Twilio-Concurrent-Requests": "101"}
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    return error(429, 20429, "Too Many Requests", headers)


def rate_limit_exceeded() -> Response:
    """Report Flex's own rate limit (Twilio's docs, error 45010)."""
    return error(429, 45010, "Rate Limit Exceeded")


def unavailable() -> Response:
    """Report that the service is down."""
    return error(503, 20503, "Service unavailable")

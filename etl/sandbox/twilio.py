"""Twilio: Flex, Studio, Conversations and the REST API of 2010, all on one port.

What Twilio's references and OpenAPI documents leave open is a switch here: the order of rows, what
a page token means, a PageSize above the most, how FriendlyName matches, the form of dates, what
becomes of a draft that is published, and what the lists of legacy Flex answer after their end.
"""

import base64
import binascii
import hmac
import json
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any, ClassVar, Literal

from etl.sandbox import (
    twilio_bindings_data,
    twilio_data,
    twilio_lists,
    twilio_numbers,
    twilio_studio,
    twilio_studio_data,
)
from etl.sandbox.data import RandomOf, Record, Sizes
from etl.sandbox.exchange import Request, Response, json_response
from etl.sandbox.faults import Fault
from etl.sandbox.store import Cursor, Paging, Row, Store, Ticket, Tickets, encode, page_of
from etl.sandbox.twilio_lists import Listing, Product, Query
from etl.sandbox.wire import Clock

Ending = Literal["empty", 403, 404, 410, 503]
"""What a list answers after its end of life: no rows, or this status, whatever is requested."""

_Pager = Callable[[Query, Cursor], tuple[Sequence[bytes], Cursor | None]]
"""Returns the rows of a page, and the next cursor."""


class Twilio:
    """State and behaviour of one Twilio account; public attributes may be changed at any time.

    `flex_flows`, `channels`, `studio_flows`, `addresses`, `phone_numbers`: the account's rows, by
                       sid. What a Studio flow is in its store, twilio_studio.py says.
    `suspended`        whether every request is answered with 403.
    `api_key_may_read` the products that the API key, unlike the auth token, has a permission for.
    `absent`           the products that the account does not have: all about them answers 404.
    `ended`            streams whose end of life has come, and what they answer since.
    `refuses_large_pages` whether a PageSize above the list's most is answered with 400, or lowered.
    `largest_page`     the most rows of an answer, whatever was requested; a small number gives a
                       list of few rows many pages.
    `brief_lists`      whether the lists of Studio leave out all that their example leaves out, or
                       only definitions.
    `publishing_renumbers` whether a draft that is published becomes the next revision, or keeps its
                       number.
    `matches_part`     whether FriendlyName finds parts of names, or only whole names.
    `date_form`        of the times that `update` writes: "Z" or "+00:00".
    `public_base`      scheme and host of the URLs in `meta`; None: those of the request.
    `next_base`        the same for the link to the next page alone; with another host it shows
                       whether credentials are sent there.
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
        self.api_key_may_read: set[Product] = {"flex", "studio", "conversations", "api"}
        self.absent: set[Product] = set()
        self.ended: dict[str, Ending] = {}
        self.paging: Paging = "keyset"
        self.ties: Random | None = None
        self.refuses_large_pages = False
        self.largest_page = 1000
        self.brief_lists = False
        self.publishing_renumbers = False
        self.matches_part = False
        self.date_form: Literal["Z", "+00:00"] = "Z"
        self.public_base: str | None = None
        self.next_base: str | None = None

        self._lock = threading.RLock()
        stores = [Store("sid", "date_updated", self._now, self._lock) for _ in range(4)]
        self.flex_flows, self.channels, self.studio_flows, self.addresses = stores
        self.phone_numbers = Store(
            "sid",
            "date_updated",
            lambda: twilio_numbers.stamp(self.clock()),
            self._lock,
            twilio_numbers.sortable,
        )
        self._tickets = Tickets()

    def fill(self, random_of: RandomOf, sizes: Sizes) -> None:
        """Add generated rows: channels, and of all others a quarter of the flows elsewhere."""
        account, quarter = self.account_sid, (sizes.flows + 3) // 4
        count = sizes.of("twilio.flex_flows", quarter)
        flex_flows = twilio_data.flex_flows(random_of("flex"), count, account, self.date_form)
        count = sizes.of("twilio.channels", sizes.objects)
        self.channels.load(
            twilio_data.channels(random_of("channels"), count, account, flex_flows, self.date_form)
        )
        count = sizes.of("twilio.studio_flows", quarter)
        studio_flows = twilio_studio_data.studio_flows(random_of("studio"), count, account)
        count = sizes.of("twilio.addresses", quarter)
        addresses = twilio_bindings_data.addresses(
            random_of("addresses"), count, account, studio_flows, flex_flows
        )
        count = sizes.of("twilio.phone_numbers", quarter)
        numbers = twilio_bindings_data.phone_numbers(
            random_of("numbers"), count, account, studio_flows
        )
        for store, rows in (
            (self.flex_flows, flex_flows),
            (self.studio_flows, studio_flows),
            (self.addresses, addresses),
            (self.phone_numbers, numbers),
        ):
            for row in rows:
                store.add(row)

    def settings(self) -> dict[str, object]:
        """Return what callflow.toml says of this account, without secrets."""
        return {"account_sid": self.account_sid, "base_url": self.url}

    def secrets(self) -> dict[str, str]:
        """Return the secrets of this account, by their keys in callflow.toml."""
        return {"auth_token": self.auth_token}

    def change(self) -> list[str]:
        """Change something for the demo; return what "someone" did, one verb phrase per change."""
        done = []
        if len(self.flex_flows):
            self.flex_flows.update(self.flex_flows.keys()[0], enabled=False)
            done.append("switches a Flex Flow off")
        if len(self.studio_flows):
            sid = self.studio_flows.keys()[0]
            newest = twilio_studio.revisions(self.studio_flows.get(sid))[-1]
            self.publish(sid, twilio_studio_data.rewired(newest["definition"]))
            done.append("publishes a new revision of a Studio flow")
        if len(self.studio_flows) > 1 and len(self.phone_numbers):
            target = self.studio_flows.get(self.studio_flows.keys()[1])
            url = target["webhook_url"].replace("http:", "https:")
            self.phone_numbers.update(self.phone_numbers.keys()[0], voice_url=url)
            done.append("moves a telephone number to another Studio flow")
        return done

    def records(self) -> dict[str, list[Any]]:
        """Return the records as they are now, by stream: what complete lists return.

        Of a Studio flow: what its look-up returns, and `revisions`, what the look-ups of them do.
        """
        with self._lock:
            return {
                "flex_flows": self.flex_flows.records(),
                "channels": self.channels.records(),
                "studio_flows": [
                    twilio_studio.fetched(flow)
                    | {"revisions": twilio_studio.fetched_revisions(flow)}
                    for flow in self.studio_flows.records()
                ],
                "addresses": self.addresses.records(),
                "phone_numbers": self.phone_numbers.records(),
            }

    def save_draft(self, sid: str, definition: object, **members: object) -> None:
        """Save a definition as the next revision of a Studio flow, as Twilio's editor does."""
        with self._lock:
            flow = self.studio_flows.get(sid)
            self.studio_flows.add(twilio_studio.saved(flow, definition, self._now(), **members))

    def publish(self, sid: str, definition: object = None, **members: object) -> None:
        """Publish the newest revision of a Studio flow; or the next one, with this definition."""
        with self._lock:
            if definition is not None:
                self.save_draft(sid, definition, status="published", **members)
                return
            flow, now = self.studio_flows.get(sid), self._now()
            renumbers = self.publishing_renumbers
            self.studio_flows.add(twilio_studio.published(flow, now, renumbers=renumbers))

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        with self._lock:
            return self._route(request)

    def _now(self) -> str:
        now = datetime.fromtimestamp(self.clock(), UTC)
        return now.strftime("%Y-%m-%dT%H:%M:%S") + self.date_form

    def _route(self, request: Request) -> Response:
        place = self._place(request.path)
        refused = self._refusal(request, place[0] if place else None)
        if refused is not None:
            return refused
        if place is None or request.method != "GET" or place[0].product in self.absent:
            return not_found(request.path)
        listing, below = place
        ending = self.ended.get(listing.stream)
        if ending is not None and ending != "empty":
            return ended(ending, request.path)
        if not below:
            return self._list(request, listing, self._rows(listing, is_empty=ending == "empty"))
        answer = None if ending else self._found(request, listing, below)
        return not_found(request.path) if answer is None else answer

    def _place(self, path: str) -> tuple[Listing, list[str]] | None:
        """Return the list that a path is about, and what the path names below it."""
        numbers = twilio_numbers.path(self.account_sid)
        for root, listing, end in (
            ("/v1/FlexFlows", twilio_lists.FLEX_FLOWS, ""),
            ("/v1/Channels", twilio_lists.CHANNELS, ""),
            ("/v2/Flows", twilio_lists.STUDIO_FLOWS, ""),
            ("/v1/Configuration/Addresses", twilio_lists.ADDRESSES, ""),
            (numbers, twilio_lists.PHONE_NUMBERS, ".json"),
        ):
            below = path.removeprefix(root).removesuffix(end)
            if path.startswith(root) and path.endswith(end) and below[:1] in ("", "/"):
                return listing, below.split("/")[1:]
        return None

    def _refusal(self, request: Request, listing: Listing | None) -> Response | None:
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
        if is_key and listing is not None and listing.product not in self.api_key_may_read:
            return error(403, 70051, "Authorization Failed")
        return None

    def _found(self, request: Request, listing: Listing, below: list[str]) -> Response | None:
        """Return the answer about one row, or the revisions of one; None: there is no such row."""
        key, *more = below
        store = self._store(listing)
        text = store.find(key)
        if text is None and listing is twilio_lists.ADDRESSES:
            # "The SID or the address", so a later row of the same address answers.
            same = store.listed(by_update=False, wanted=partial(_is_of, key))
            text = same[0].json if same else None
        if text is None or (more and listing is not twilio_lists.STUDIO_FLOWS):
            return None
        if listing is not twilio_lists.STUDIO_FLOWS:
            return Response(200, text)
        return self._of_studio(request, json.loads(text), more)

    def _of_studio(self, request: Request, flow: Record, more: list[str]) -> Response | None:
        """Return the answer about a Studio flow, its revisions, or one of them."""
        if not more:
            return Response(200, encode(twilio_studio.fetched(flow)))
        if more[0] != "Revisions" or len(more) > 2:
            return None
        if len(more) == 2:
            revision = twilio_studio.found_revision(flow, more[1])
            return None if revision is None else Response(200, encode(revision))
        rows = [
            Row(str(number), encode(self._shown(each)), number, "")
            for number, each in enumerate(twilio_studio.fetched_revisions(flow), 1)
        ]

        def page(query: Query, cursor: Cursor) -> tuple[Sequence[bytes], Cursor | None]:
            part, following = page_of(rows[::-1], self.paging, cursor, query.page_size)
            return [row.json for row in part], following

        return self._list(request, twilio_lists.REVISIONS, page)

    def _shown(self, resource: Mapping[str, Any]) -> Record:
        return twilio_studio.listed(resource, brief=self.brief_lists)

    def _flow_listed(self, row: bytes) -> bytes:
        flow = json.loads(row)
        return encode(self._shown(twilio_studio.fetched(flow))) if isinstance(flow, dict) else row

    def _store(self, listing: Listing) -> Store:
        store: Store = getattr(self, listing.stream)
        return store

    def _rows(self, listing: Listing, *, is_empty: bool) -> _Pager:
        """Return what reads the pages of a list out of its store."""

        def page(query: Query, cursor: Cursor) -> tuple[Sequence[bytes], Cursor | None]:
            if is_empty:
                return [], None
            rows, following, _ = self._store(listing).page(
                self.paging,
                cursor,
                query.page_size,
                ties=self.ties,
                wanted=twilio_lists.wanted(listing, query, part=self.matches_part),
            )
            if listing is twilio_lists.STUDIO_FLOWS:
                rows = [self._flow_listed(row) for row in rows]
            return rows, following

        return page

    def _list(self, request: Request, listing: Listing, page: _Pager) -> Response:
        """Answer the request of a page."""
        query = twilio_lists.read(
            request, listing, self.largest_page, refuses_large=self.refuses_large_pages
        )
        if isinstance(query, str):
            return error(400, 20001, query)
        token = request.params.get("PageToken") or None
        ticket = self._ticket(token, query)
        if ticket is None:
            return page_token_refused()
        rows, following = page(query, ticket.cursor)
        is_2010 = listing is twilio_lists.PHONE_NUMBERS
        base = "" if is_2010 else self.public_base or f"http://{request.headers.get('host', '')}"
        urls = {
            "first_page_url": query.at(0).url(base),
            "previous_page_url": query.at(query.page - 1).url(base, ticket.before)
            if query.page
            else None,
            "url": query.url(base, token),
            "next_page_url": None,
        }
        if following is not None:
            after = query.at(query.page + 1)
            kind = "PA" if is_2010 else "PT"
            next_ticket = Ticket(after, following, before=token)
            next_token = self._tickets.give(f"{kind}{secrets.token_hex(16)}", next_ticket)
            urls["next_page_url"] = after.url(self.next_base or base, next_token)
        form = twilio_lists.page_of_2010 if is_2010 else twilio_lists.meta_page
        return json_response(200, form(query, listing.rows_key, rows, urls))

    def _ticket(self, token: str | None, query: Query) -> Ticket | None:
        """Return what the token stands for; None if it is not valid for the query."""
        if token is not None:
            return self._tickets.find(token, query)
        return None if query.page else Ticket(query, Cursor())


def _is_of(address: str, row: Any) -> bool:
    return isinstance(row, dict) and row.get("address") == address


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
    resource = path.removeprefix("/v1").removeprefix("/v2")
    return error(404, 20404, f"The requested resource {resource} was not found")


def ended(status: int, path: str) -> Response:
    """Answer for a list that has ended; no document says how, so in the form of other errors."""
    if status == 404:
        return not_found(path)
    if status == 503:
        return unavailable()
    return error(status, 20000 + status, {403: "Forbidden", 410: "Gone"}[status])


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

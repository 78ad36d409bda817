"""Zoom Contact Center: the list of flows, with their versions and entry points."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from etl.errors import (
    ContractError,
    CredentialsError,
    PageTokenError,
    UnavailableError,
)
from etl.extract.paging import Guard, count, error_code, look_up
from etl.extract.zoom_auth import ZoomToken
from etl.http import Answer, Http, Judge, MissingError, busy, instant, judge_status, utc_now
from etl.model import WHOLE, Ask, Lookup, Page
from etl.route import route_of
from etl.settings import ZoomSource

_FLOWS = "/contact_center/flows"
_HOUR = 3600.0
_PAGE_SIZE = "100"  # the maximum (Zoom's API reference, "List flows")
_LIST_SCOPES = (
    "contact_center:read:list_flows:admin (or the classic contact_center_flow:read:admin)"
)
_GET_SCOPES = frozenset({"contact_center:read:flow:admin", "contact_center_flow:read:admin"})


def connect(
    settings: ZoomSource,
    stream: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = utc_now,
) -> Http:
    """A connection to Zoom for one run of `stream`; the caller closes it. Sends nothing yet."""
    where = f"{settings.name}.{stream}"
    token = ZoomToken(settings, where, clock=clock, sleep=sleep, now=now)
    return Http(
        settings.base_url,
        sign=token,
        judge=_judge(token),
        where=where,
        timeout=settings.timeout,
        requests_per_second=settings.requests_per_second,
        route=route_of(settings),
        clock=clock,
        sleep=sleep,
        now=now,
    )


def flows(http: Http, settings: ZoomSource, ask: Ask = WHOLE) -> Iterator[Page]:
    """Every page of the account's flows, in the order in which Zoom gives them (not documented).

    The end is an empty, null or missing `next_page_token` (Zoom's docs, "Pagination"). Each page's
    `total` is `total_records`, the rows on all pages. Whatever `ask` says, all of them are read:
    Zoom cannot be asked for changes, and page tokens live for 15 minutes only. Raises
    PageTokenError when one has expired: then the scan can start over.
    """
    guard = Guard(http.where)
    params = {"page_size": _PAGE_SIZE}
    number = 1
    while True:
        body = http.call("GET", _FLOWS, params, at=f"page {number}", records=("flows",))
        rows = body.get("flows")
        if not isinstance(rows, list):
            raise ContractError(
                "the answer holds no list `flows`",
                where=f"{http.where}, page {number}",
                advice="check that base_url is the API's address",
            )
        token, length = body.get("next_page_token"), len(rows)
        page = Page(rows, number, total=count(body.get("total_records")))
        del body, rows
        yield page
        del page  # it may be large, and the next one is on its way
        if token is None or token == "":
            return
        if not isinstance(token, str):
            raise ContractError(
                "next_page_token is not a string", where=f"{http.where}, page {number}"
            )
        guard.follow(token, length)
        params = {"page_size": _PAGE_SIZE, "next_page_token": token}
        number += 1


def lookup_flow(http: Http, settings: ZoomSource, key: tuple[str, ...]) -> Lookup:
    """Whether the flow with the id `key[0]` exists (Zoom's API reference, "Get a flow").

    "gone" only for HTTP 404 with Zoom's code 3201, "Flow does not exist". Raises what
    `paging.look_up` raises.
    """
    return look_up(http, _FLOWS, key, member="flow_id", provider="Zoom", noun="flow")


def probe_flows(http: Http, settings: ZoomSource) -> str:
    """Ask for one flow: a line about what there is. Raises what `flows` would raise."""
    body = http.call("GET", _FLOWS, {"page_size": "1"}, at="a first look")
    if not isinstance(body.get("flows"), list):
        raise ContractError("the answer holds no list `flows`", where=http.where)
    total = count(body.get("total_records"))
    line = f"{'an unknown number of' if total is None else total} flows"
    scopes = http.sign.scopes if isinstance(http.sign, ZoomToken) else frozenset()
    if not scopes:
        return f"{line}; scopes: not told"
    line += f"; scopes: {', '.join(sorted(scopes))}"
    if not scopes & _GET_SCOPES:
        line += "; add contact_center:read:flow:admin so that deleted flows can be confirmed"
    return line


def _judge(token: ZoomToken) -> Judge:
    def judge(answer: Answer) -> None:
        code = error_code(answer.body)
        good = code is None or "flows" in answer.body or "flow_id" in answer.body
        if answer.status < 300 and good:
            token.accepted()
            return
        _refuse_scope(answer, code)
        if answer.status == 401 or code == 124:  # Zoom's specs list 124 under HTTP 400
            raise token.refused(answer.said)
        token.accepted()
        _refuse(answer, code)
        judge_status(answer)
        raise ContractError(f"HTTP {answer.status} with the error {code}: {answer.said}")

    return judge


def _message(answer: Answer) -> str:
    words = answer.body.get("message") if isinstance(answer.body, dict) else ""
    return words.lower() if isinstance(words, str) else ""


def _refuse_scope(answer: Answer, code: int | None) -> None:
    message = _message(answer)
    if code == 4711 or "does not contain scopes" in message:
        missing = re.search(r"scopes:?\s*\[([\w:., -]*)\]", message)
        raise CredentialsError(
            "the access token lacks a scope",
            advice=f"add {missing[1] if missing and missing[1] else _LIST_SCOPES}"
            " to the server-to-server OAuth app",
        )


def _refuse(answer: Answer, code: int | None) -> None:
    """Raise what Zoom's own codes say; HTTP's status says the rest."""
    message = _message(answer)
    if answer.status == 403 or code == 200:
        raise CredentialsError(
            f"Zoom does not permit it: {answer.said}",
            advice=f"the app needs {_LIST_SCOPES}, the account needs Contact Center",
        )
    if answer.status == 429 or code == 429:
        raise _not_today(answer) if _daily(answer, message) else busy(answer)
    if code == 300 and "next_page_token" in answer.params and "token" in message:
        raise PageTokenError(f"Zoom refuses the page token: {answer.said}")
    if answer.status == 404 and code == 3201:
        raise MissingError(answer.said)


def _daily(answer: Answer, message: str) -> bool:
    """Whether a 429 is the daily limit's; its Retry-After is an ISO instant, not seconds."""
    kind = answer.headers.get("x-ratelimit-type", "").lower()
    if kind == "qps":
        return False
    asked = answer.headers.get("retry-after", "")
    return "daily" in kind or "daily" in message or re.match(r"\d{4}-\d\d-\d\d", asked) is not None


def _not_today(answer: Answer) -> UnavailableError:
    until = instant(answer.headers.get("retry-after", ""))
    again = f"again from {until:%Y-%m-%d %H:%M} {until.tzname()}" if until else "again tomorrow"
    return UnavailableError(
        f"Zoom's daily limit of requests is used up, {again}",
        advice="the limit is shared by all apps of the account; sync less often",
        wait=_HOUR if answer.wait is None else answer.wait,
    )

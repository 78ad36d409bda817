"""Zoom Contact Center: the list of flows, with their versions and entry points."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etl.errors import (
    ContractError,
    CredentialsError,
    MissingError,
    PageTokenError,
    UnavailableError,
)
from etl.extract.answer import Answer, instant, words
from etl.extract.oauth import AccessToken
from etl.extract.page import EVERYTHING, Lookup, Page, Params, ScanRequest
from etl.extract.paging import CursorList, Envelope, count, error_code, look_up, pages
from etl.extract.verdict import IF_IT_STAYS, Judge, busy, judge_status

if TYPE_CHECKING:
    from etl.extract.http import Http

_FLOWS = "/contact_center/flows"
_HOUR = 3600.0
_PAGE_SIZE = "100"  # the maximum (Zoom's API reference, "List flows")
_LIST_SCOPES = (
    "contact_center:read:list_flows:admin (or the classic contact_center_flow:read:admin)"
)
_SCOPE = re.compile(r"[a-z_]{1,60}(?::[a-z_]{1,60}){1,5}")
_MANY = 20
"""The most scopes that one message names."""
_GET_SCOPES = frozenset({"contact_center:read:flow:admin", "contact_center_flow:read:admin"})


def _request(http: "Http", token: str | None) -> tuple[str, Params]:
    params = {"page_size": _PAGE_SIZE}
    return _FLOWS, params if token is None else {**params, "next_page_token": token}


def _read(body: dict[str, Any], token: str | None, where: str) -> Envelope:
    """Read an answer; it is the last one if `next_page_token` is empty, null or missing."""
    rows, following = _rows(body, where), body.get("next_page_token")
    if following is not None and not isinstance(following, str):
        raise ContractError("next_page_token is not a string", where=where, advice=IF_IT_STAYS)
    return Envelope(rows, following or None, total=count(body.get("total_records")))


def _rows(body: dict[str, Any], where: str) -> list[Any]:
    """Return the flows of an answer; it may leave out the list where it counts none."""
    rows = body.get("flows")
    if rows is None and count(body.get("total_records")) == 0:
        return []
    if not isinstance(rows, list):
        raise ContractError(
            "the answer holds no list `flows`",
            where=where,
            advice="check that base_url is the API's address",
        )
    return rows


_LIST = CursorList(_request, _read, records=("flows",), id_member="flow_id")


def flows(http: "Http", ask: ScanRequest = EVERYTHING) -> Iterator[Page]:
    """Yield the account's flows page by page, in Zoom's order, which is not documented.

    The end is an empty, null or missing `next_page_token` (Zoom's docs, "Pagination"). Each page's
    `total` is `total_records`, the rows on all pages. Whatever `ask` says, all flows are read:
    Zoom cannot be asked for changes, and page tokens live for only 15 minutes. Raise PageTokenError
    if one has expired: then the scan can start over.
    """
    return pages(http, _LIST, ask)


def look_up_flow(http: "Http", key: tuple[str, ...]) -> Lookup:
    """Ask whether the flow with the id `key[0]` exists (Zoom's API reference, "Get a flow").

    "gone" only for HTTP 404 with Zoom's code 3201, "Flow does not exist". Raise what
    `paging.look_up` raises.
    """
    path = f"{_FLOWS}/{{}}"
    return look_up(http, key, path=path, members=("flow_id",), provider="Zoom", noun="flow")


def probe_flows(http: "Http", ask: ScanRequest = EVERYTHING) -> str:
    """Ask for one flow, and return a line about the list. Raise what `flows` would raise."""
    body = http.call("GET", _FLOWS, {"page_size": "1"}, at="a first look")
    _rows(body, http.where)
    total = count(body.get("total_records"))
    line = f"{'an unknown number of' if total is None else total} flows"
    granted = http.sign.scopes if isinstance(http.sign, AccessToken) else frozenset()
    scopes = {scope for scope in granted if _SCOPE.fullmatch(scope)}
    if not scopes:
        return f"{line}; scopes: unknown"
    named = ", ".join(http.redact.name(scope) for scope in sorted(scopes)[:_MANY])
    more = f" and {len(scopes) - _MANY} more" if len(scopes) > _MANY else ""
    line += f"; scopes: {named}{more}"
    if not scopes & _GET_SCOPES:
        line += "; add contact_center:read:flow:admin so that deleted flows can be confirmed"
    return line


def judge(token: AccessToken) -> Judge:
    """Return the judge of Zoom's answers, which has a refused token renewed once."""

    def verdict(answer: Answer) -> None:
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
        raise ContractError(
            f"HTTP {answer.status} with the error {code}: {answer.said}", advice=IF_IT_STAYS
        )

    return verdict


def _refuse_scope(answer: Answer, code: int | None) -> None:
    said = words(answer.body)
    if code == 4711 or "does not contain scopes" in said.lower():
        raise CredentialsError(
            "the access token lacks a scope",
            advice=f"add {_missing(answer, said)} to the server-to-server OAuth app",
        )


def _missing(answer: Answer, said: str) -> str:
    """Return the scopes in a message such as "… does not contain scopes:[a:b:c, d:e:f]."."""
    listed = re.search(r"scopes:?\s{0,9}\[([\w:., -]*)\]", said, re.IGNORECASE)
    named = re.split(r"[, ]+", listed[1]) if listed else []
    scopes = [answer.redact.name(each) for each in named if _SCOPE.fullmatch(each)]
    return ", ".join(scopes[:_MANY]) or _LIST_SCOPES


def _refuse(answer: Answer, code: int | None) -> None:
    """Raise the error that a Zoom code stands for; return if the status decides."""
    message = words(answer.body).lower()
    if answer.status == 429 or code == 429 or answer.slow_down:
        raise _not_today(answer) if _daily(answer, message) else busy(answer)
    if answer.status == 403 or code == 200:
        raise CredentialsError(
            f"Zoom does not permit it: {answer.said}",
            advice=f"the app needs {_LIST_SCOPES}, the account needs Contact Center",
        )
    if code == 300 and "next_page_token" in answer.params and "token" in message:
        raise PageTokenError(f"Zoom refuses the page token: {answer.said}", advice=IF_IT_STAYS)
    if answer.status == 404 and code == 3201:
        raise MissingError(answer.said)


def _daily(answer: Answer, message: str) -> bool:
    """Return whether the daily limit is used up; then Retry-After is an ISO instant."""
    kind = answer.headers.get("x-ratelimit-type", "").lower()
    if kind == "qps":
        return False
    asked = answer.headers.get("retry-after", "")
    daily = "daily" in kind or re.search("daily|every day|per day", message) is not None
    return daily or re.match(r"\d{4}-\d\d-\d\d", asked) is not None


def _not_today(answer: Answer) -> UnavailableError:
    until = instant(answer.headers.get("retry-after", ""))
    again = f"again from {until:%Y-%m-%d %H:%M} UTC" if until else "again tomorrow"
    return UnavailableError(
        f"Zoom's daily limit of requests is used up, {again}",
        advice="the limit is shared by all apps of the account; sync less often",
        wait=_HOUR if answer.wait is None else answer.wait,
    )

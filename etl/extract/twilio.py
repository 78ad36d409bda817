"""Twilio Flex: the lists of flex flows and of chat channels."""

import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

from etl.errors import (
    ContractError,
    CredentialsError,
    MissingError,
    PageTokenError,
)
from etl.extract.http import Answer, Http, busy, judge_status, same_origin
from etl.extract.page import WHOLE, Ask, Lookup, Page
from etl.extract.paging import Guard, count, error_code, look_up

_FLEX_FLOWS = "/v1/FlexFlows"
_CHANNELS = "/v1/Channels"
_BUSY = (20429, 45010, 45719, 45780)  # Twilio's error dictionary: too many, or too many at once
_PAGE_SIZE = "1000"  # the maximum (Twilio's API reference, "PageSize")


def flex_flows(http: Http, ask: Ask = WHOLE) -> Iterator[Page]:
    """Every page of the account's flex flows; see `_pages` for what it raises."""
    return _pages(http, _FLEX_FLOWS, "flex_flows", ask)


def channels(http: Http, ask: Ask = WHOLE) -> Iterator[Page]:
    """Every page of the account's chat channels; see `_pages` for what it raises."""
    return _pages(http, _CHANNELS, "flex_chat_channels", ask)


def look_up_flex_flow(http: Http, key: tuple[str, ...]) -> Lookup:
    """Whether the flex flow with the sid `key[0]` exists; see `_lookup`."""
    return _lookup(http, _FLEX_FLOWS, key)


def look_up_channel(http: Http, key: tuple[str, ...]) -> Lookup:
    """Whether the channel with the sid `key[0]` exists; see `_lookup`."""
    return _lookup(http, _CHANNELS, key)


def probe_flex_flows(http: Http, ask: Ask = WHOLE) -> str:
    """Ask for one flex flow: a line about what there is. Raises what `flex_flows` would raise."""
    return _probe(http, _FLEX_FLOWS, "flex_flows", "flex flows")


def probe_channels(http: Http, ask: Ask = WHOLE) -> str:
    """Ask for one channel: a line about what there is. Raises what `channels` would raise."""
    return _probe(http, _CHANNELS, "flex_chat_channels", "channels")


def _pages(http: Http, path: str, key: str, ask: Ask) -> Iterator[Page]:
    """Follow `meta.next_page_url` until it is null (Twilio's docs, "Paging").

    The URL is followed as it is, but only when it leads to `path` under the base URL, as the
    credentials go with it; a scan can be resumed with it, and `ask.resume` is checked the same way.
    There is no count: each page's `total` is None. Twilio cannot be asked for changes. Raises
    PageTokenError when Twilio refuses a page token (21481): then the scan can start over;
    ContractError for a next page that leads elsewhere, was there before or is not told.
    """
    guard = Guard(http.where, "sid")
    number = ask.pages + 1
    next_url = ask.resume
    while True:
        if next_url is None:
            size = {"PageSize": _PAGE_SIZE}
            body = http.call("GET", path, size, at=f"page {number}", records=(key,))
        else:
            try:
                same_origin(next_url, http.base_url, path, http.redact)
            except ContractError as error:
                error.where = f"{http.where}, page {max(number - 1, 1)}"
                raise
            body = http.call("GET", next_url, at=f"page {number}", records=(key,))
        asked = 0 if next_url is None else _page_of(next_url)
        rows, next_url = _envelope(body, key, f"{http.where}, page {number}")
        told = count(body["meta"].get("page"))
        guard.note(rows)
        page = Page(rows, number, following=next_url)
        del body, rows
        yield page
        del page  # it may be large, and the next one is on its way
        same = None in (asked, told) or asked == told
        odd = "" if same else f"page {asked} was asked for, page {str(told)[:20]} was answered"
        guard.follow(next_url, odd=odd)
        if next_url is None:
            return
        number += 1


def _page_of(url: str) -> int | None:
    """The `Page` that a next page's URL names, from 0 on."""
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    text = query.get("Page", [""])[0]
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def _envelope(body: dict[str, Any], key: str, where: str) -> tuple[list[Any], str | None]:
    """The rows and the next page's URL, None at the end.

    The rows are under their documented name `key`; only when nothing is there, under `meta.key`.
    """
    meta = body.get("meta")
    if not isinstance(meta, dict) or "next_page_url" not in meta:
        raise ContractError("the answer does not say whether there is a next page", where=where)
    rows = body.get(key if key in body else str(meta.get("key")))
    if not isinstance(rows, list):
        raise ContractError(
            f"the answer holds no list `{key}`",
            where=where,
            advice="check that base_url is the API's address",
        )
    next_url = meta["next_page_url"]
    if next_url is not None and (not isinstance(next_url, str) or not next_url):
        raise ContractError("next_page_url is neither a URL nor null", where=where)
    return rows, next_url


def _lookup(http: Http, path: str, key: tuple[str, ...]) -> Lookup:
    """ "gone" only for 404 with code 20404. Raises what `paging.look_up` raises."""
    return look_up(http, path, key, member="sid", provider="Twilio", noun="record")


def _probe(http: Http, path: str, key: str, noun: str) -> str:
    body = http.call("GET", path, {"PageSize": "1"}, at="a first look")
    rows, _ = _envelope(body, key, http.where)
    return f"readable, there are {noun}" if rows else f"readable, there are no {noun}"


def judge(answer: Answer) -> None:
    """Tell good answers from errors: `{"code", "message", "more_info", "status"}`."""
    code = error_code(answer.body)
    if answer.status < 300 and (code is None or "meta" in answer.body or "sid" in answer.body):
        return
    if code == 21481:
        raise PageTokenError(f"Twilio refuses the page token: {answer.said}")
    if code in _BUSY or (code not in (20404, 21481) and answer.slow_down):
        raise busy(answer)
    if code == 20404 and answer.status == 404:
        raise MissingError(
            f"Twilio does not have it: {answer.said}",
            advice="Twilio announced the end of Flex's legacy messaging, which flex flows and"
            " channels belong to, for 2026-06-01; remove the source if it no longer answers",
        )
    if code in (20403, 70051) or answer.status == 403:
        raise CredentialsError(
            f"Twilio does not permit it: {answer.said}",
            advice="give the API key permission for Flex, and check that the account is active",
        )
    if code == 20003 or answer.status == 401:
        raise CredentialsError(
            f"Twilio refuses the credentials: {answer.said}",
            advice="check account_sid with auth_token, or api_key_sid with api_key_secret",
        )
    judge_status(answer)
    raise ContractError(f"HTTP {answer.status} with the error {code}: {answer.said}")

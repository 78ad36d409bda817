"""Twilio: lists whose pages have a `meta`, its verdicts, and the lists of legacy Flex messaging."""

import re
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etl.errors import (
    ContractError,
    CredentialsError,
    ForbiddenError,
    MissingError,
    PageTokenError,
    WithdrawnError,
)
from etl.extract.answer import Answer
from etl.extract.page import EVERYTHING, Lookup, Page, Params, ScanRequest
from etl.extract.paging import (
    CursorList,
    Envelope,
    count,
    error_code,
    look_up,
    pages,
    read_envelope,
)
from etl.extract.url import same_origin
from etl.extract.verdict import IF_IT_STAYS, busy, judge_status

if TYPE_CHECKING:
    from etl.extract.http import Http

_BUSY = (20429, 45010, 45719, 45780)  # Twilio's error dictionary: too many, or too many at once
_PAGE_SIZE = "1000"  # the maximum (Twilio's API reference, "PageSize")


def paged(
    path: str,
    key: str,
    *,
    id_member: str = "sid",
    page_size: str = _PAGE_SIZE,
) -> CursorList:
    """Describe the list at `path` with its records in `key`: its pages lead to one another by URL.

    `meta.next_page_url` is null on the last page (Twilio's docs, "Paging"); see `next_page`.
    `id_member` tells one record from another; `page_size` is the most that the list allows.
    """

    def request(http: "Http", url: str | None) -> tuple[str, Params | None]:
        if url is None:
            return path, {"PageSize": page_size}
        return next_page(http, url, path), None

    def read(body: dict[str, Any], url: str | None, where: str) -> Envelope:
        rows, next_url = _envelope(body, key, where)
        return Envelope(rows, next_url, odd=another_page(url, body["meta"].get("page")))

    return CursorList(request, read, records=(key,), id_member=id_member, resumable=True)


_FLEX_FLOWS = paged("/v1/FlexFlows", "flex_flows")
_CHANNELS = paged("/v1/Channels", "flex_chat_channels")


def flex_flows(http: "Http", ask: ScanRequest = EVERYTHING) -> Iterator[Page]:
    """Yield the account's flex flows page by page; see `channels`."""
    return pages(http, _FLEX_FLOWS, ask)


def channels(http: "Http", ask: ScanRequest = EVERYTHING) -> Iterator[Page]:
    """Yield the account's chat channels page by page.

    There is no count: each page's `total` is None. Twilio cannot be asked for changes. Raise
    PageTokenError if Twilio refuses a page token (21481): then the scan can start over;
    ContractError if the next page is elsewhere, was there before, or is not named.
    """
    return pages(http, _CHANNELS, ask)


def look_up_flex_flow(http: "Http", key: tuple[str, ...]) -> Lookup:
    """Ask whether the flex flow with the sid `key[0]` exists; see `look_up_sid`."""
    return look_up_sid(http, "/v1/FlexFlows/{}", key)


def look_up_channel(http: "Http", key: tuple[str, ...]) -> Lookup:
    """Ask whether the channel with the sid `key[0]` exists; see `look_up_sid`."""
    return look_up_sid(http, "/v1/Channels/{}", key)


def probe_flex_flows(http: "Http", ask: ScanRequest = EVERYTHING) -> str:
    """Ask for one flex flow, and return a line about the list. Raise what `flex_flows` raises."""
    return probe(http, _FLEX_FLOWS, "flex flows")


def probe_channels(http: "Http", ask: ScanRequest = EVERYTHING) -> str:
    """Ask for one channel, and return a line about the list. Raise what `channels` raises."""
    return probe(http, _CHANNELS, "channels")


def next_page(http: "Http", url: str, path: str) -> str:
    """Return the whole URL of a list's next page; `url` may leave out the origin.

    It is followed as it is, but only if it leads to `path` under the base URL, because the
    credentials go with it. Raise ContractError if it leads elsewhere.
    """
    if url.startswith("/"):
        origin = urllib.parse.urlsplit(http.base_url)
        url = f"{origin.scheme}://{origin.netloc}{url}"
    same_origin(url, http.base_url, path, http.redact)
    return url


def another_page(url: str | None, page: Any) -> str:
    """Say how the `page` that an answer names differs from the one that `url` asks for; or ""."""
    asked = 0 if url is None else _page_of(url)
    answered = count(page)
    if None in (asked, answered) or asked == answered:
        return ""
    return f"page {asked} was asked for, page {str(answered)[:20]} was answered"


def _page_of(url: str) -> int | None:
    """Return the `Page` that a next page's URL names, from 0 on; None if it names none."""
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    text = query.get("Page", [""])[0]
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def _envelope(body: dict[str, Any], key: str, where: str) -> tuple[list[Any], str | None]:
    """Return the rows and the next page's URL, None on the last page.

    The rows are in the documented member `key`; only if there is none, in the one that `meta.key`
    names.
    """
    meta = body.get("meta")
    if not isinstance(meta, dict) or "next_page_url" not in meta:
        raise ContractError(
            "the answer does not say whether there is a next page",
            where=where,
            advice=IF_IT_STAYS,
        )
    rows = body.get(key if key in body else str(meta.get("key")))
    if not isinstance(rows, list):
        raise ContractError(
            f"the answer holds no list `{key}`",
            where=where,
            advice="check that base_url is the API's address",
        )
    next_url = meta["next_page_url"]
    if next_url is not None and (not isinstance(next_url, str) or not next_url):
        raise ContractError(
            "next_page_url is neither a URL nor null", where=where, advice=IF_IT_STAYS
        )
    return rows, next_url


def look_up_sid(http: "Http", path: str, key: tuple[str, ...]) -> Lookup:
    """Ask for one record: "gone" only for 404 with code 20404. Raise what `paging.look_up` does."""
    return look_up(http, key, path=path, members=("sid",), provider="Twilio", noun="record")


def probe(http: "Http", of: CursorList, noun: str) -> str:
    """Ask for one record of a list, and return a line about it. Raise what reading it raises."""
    path, _ = of.request(http, None)
    body = http.call("GET", path, {"PageSize": "1"}, at="a first look")
    rows = read_envelope(http, of, body, None, http.where).rows
    there_are = "there are" if rows else "there are no"
    return f"readable, {there_are} {noun}"


def judge(answer: Answer) -> None:
    """Raise for an error, whose answer is `{"code", "message", "more_info", "status"}`."""
    code = error_code(answer.body)
    if answer.status < 300 and (code is None or "meta" in answer.body or "sid" in answer.body):
        return
    if code == 21481:
        raise PageTokenError(f"Twilio refuses the page token: {answer.said}", advice=IF_IT_STAYS)
    if code in _BUSY or (code not in (20404, 21481) and answer.slow_down):
        raise busy(answer)
    if code == 20404 and answer.status == 404:
        raise MissingError(
            f"Twilio does not have it: {answer.said}",
            advice="check that the account has this product",
        )
    if answer.status == 410:
        raise WithdrawnError(
            f"Twilio does not offer it any more: {answer.said}",
            advice="look in Twilio's changelog for what replaces it",
        )
    if code is not None and answer.status == 403:
        raise ForbiddenError(
            f"Twilio does not permit it: {answer.said}",
            advice="give the API key permission for Flex, Studio, Conversations or phone numbers,"
            " whichever the list belongs to, and check that the account is active",
        )
    if code in (20403, 70051):
        raise CredentialsError(
            f"Twilio does not permit it: {answer.said}",
            advice="check that the account is active, and the rights of the API key",
        )
    if code == 20003 or answer.status == 401:
        raise CredentialsError(
            f"Twilio refuses the credentials: {answer.said}",
            advice="check account_sid with auth_token, or api_key_sid with api_key_secret",
        )
    judge_status(answer)
    raise ContractError(
        f"HTTP {answer.status} with the error {code}: {answer.said}", advice=IF_IT_STAYS
    )

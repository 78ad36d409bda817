"""Twilio's REST API of 2010: the list of an account's phone numbers.

An `Http` for it has the account in its base URL, as all addresses of this API do, even where an API
key signs. Its lists have no `meta`; they name the next page by a relative URI.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etl.errors import ContractError
from etl.extract.page import EVERYTHING, Lookup, Page, Params, ScanRequest
from etl.extract.paging import CursorList, Envelope, pages
from etl.extract.twilio import another_page, look_up_sid, next_page, probe
from etl.extract.verdict import IF_IT_STAYS

if TYPE_CHECKING:
    from etl.extract.http import Http

_PATH = "/IncomingPhoneNumbers.json"
_KEY = "incoming_phone_numbers"


def phone_numbers(http: "Http", ask: ScanRequest = EVERYTHING) -> Iterator[Page]:
    """Yield the account's phone numbers page by page.

    There is no count, and no order is known. Raise what `twilio.channels` raises.
    """
    return pages(http, _NUMBERS, ask)


def look_up_phone_number(http: "Http", key: tuple[str, ...]) -> Lookup:
    """Ask whether the phone number with the sid `key[0]` exists; see `look_up_sid`."""
    return look_up_sid(http, "/IncomingPhoneNumbers/{}.json", key)


def probe_phone_numbers(http: "Http", ask: ScanRequest = EVERYTHING) -> str:
    """Ask for one number, and return a line about the list. Raise what `phone_numbers` raises."""
    return probe(http, _NUMBERS, "phone numbers")


def _request(http: "Http", uri: str | None) -> tuple[str, Params | None]:
    """Return what to ask for: `uri` leads to the account's list, or it is not followed."""
    if uri is None:
        return _PATH, {"PageSize": "1000"}
    return next_page(http, uri, _PATH), None


def _read(body: dict[str, Any], uri: str | None, where: str) -> Envelope:
    """Return the envelope of an answer: `next_page_uri` is null on the last page."""
    if "next_page_uri" not in body:
        raise ContractError(
            "the answer does not say whether there is a next page",
            where=where,
            advice=IF_IT_STAYS,
        )
    rows, following = body.get(_KEY), body["next_page_uri"]
    if not isinstance(rows, list):
        raise ContractError(
            f"the answer holds no list `{_KEY}`",
            where=where,
            advice="check that api_url is the API's address",
        )
    if following is not None and (not isinstance(following, str) or not following):
        raise ContractError(
            "next_page_uri is neither a URI nor null", where=where, advice=IF_IT_STAYS
        )
    return Envelope(rows, following, odd=another_page(uri, body.get("page")))


_NUMBERS = CursorList(_request, _read, records=(_KEY,), id_member="sid", resumable=True)

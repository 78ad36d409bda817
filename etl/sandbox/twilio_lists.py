"""Twilio's lists: which there are, what requests a page of one, and the two forms of a page.

The lists of 2010 link their pages by paths; all others have a `meta` with URLs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal
from urllib.parse import urlencode

import msgspec

from etl.sandbox.exchange import Request, whole_number

Product = Literal["flex", "studio", "conversations", "api"]


@dataclass(frozen=True, slots=True)
class Listing:
    """A list: whose it is, where its rows are in an answer, the most rows of a page.

    `filters` by name: the member of the rows that each is about.
    """

    stream: str
    product: Product
    rows_key: str
    most: int = 1000
    filters: Mapping[str, str] = field(default_factory=dict)


_NUMBER_FILTERS = {
    "Beta": "beta",
    "FriendlyName": "friendly_name",
    "PhoneNumber": "phone_number",
    "Origin": "origin",
}

FLEX_FLOWS = Listing("flex_flows", "flex", "flex_flows", filters={"FriendlyName": "friendly_name"})
CHANNELS = Listing("channels", "flex", "flex_chat_channels")
STUDIO_FLOWS = Listing("studio_flows", "studio", "flows")
REVISIONS = Listing("studio_flows", "studio", "revisions")
ADDRESSES = Listing(
    "addresses", "conversations", "address_configurations", most=50, filters={"Type": "type"}
)
PHONE_NUMBERS = Listing("phone_numbers", "api", "incoming_phone_numbers", filters=_NUMBER_FILTERS)


@dataclass(frozen=True, slots=True)
class Query:
    """What a page is requested with, apart from its token."""

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

    def at(self, page: int) -> "Query":
        """Return the query of another page."""
        return replace(self, page=page)


def read(request: Request, listing: Listing, largest: int, *, refuses_large: bool) -> Query | str:
    """Read what is requested; or return what is wrong with it."""
    params = request.params
    size = whole_number(params.get("PageSize", "50"))
    page = whole_number(params.get("Page", "0"))
    if not size:
        return "Invalid PageSize"
    if page is None:
        return "Invalid Page"
    if size > listing.most and refuses_large:
        return f"Page size must be at most {listing.most}"
    filters = {name: params[name] for name in listing.filters if params.get(name)}
    return Query(request.path, filters, min(size, listing.most, largest), page)


def wanted(listing: Listing, query: Query, *, part: bool) -> Callable[[Any], bool] | None:
    """Return what decides whether the filters choose a row; None if there are none.

    With `part` a FriendlyName finds parts of names; else it finds whole names.
    """
    if not query.filters:
        return None

    def is_wanted(row: Any) -> bool:
        return isinstance(row, dict) and all(
            _matches(name, text, row.get(listing.filters[name]), part=part)
            for name, text in query.filters.items()
        )

    return is_wanted


def _matches(name: str, text: str, value: object, *, part: bool) -> bool:
    if name == "Beta":  # whether numbers that are new to Twilio are included
        return text.lower() != "false" or value is not True
    if not isinstance(value, str):
        return False
    if name == "PhoneNumber":  # `*` is any digit
        return fnmatchcase(value, text.replace("*", "[0-9]"))
    return text in value if name == "FriendlyName" and part else value == text


def meta_page(
    query: Query, rows_key: str, rows: Sequence[bytes], urls: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return a page with its `meta`; `urls` are its links."""
    meta = {"page": query.page, "page_size": query.page_size, **urls, "key": rows_key}
    return {"meta": meta, rows_key: [msgspec.Raw(row) for row in rows]}


def page_of_2010(
    query: Query, rows_key: str, rows: Sequence[bytes], urls: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return a page of the REST API of 2010."""
    start = query.page * query.page_size
    return {
        **{name.replace("url", "uri"): url for name, url in urls.items()},
        "page": query.page,
        "page_size": query.page_size,
        "start": start,
        "end": max(start + len(rows) - 1, 0),
        rows_key: [msgspec.Raw(row) for row in rows],
    }

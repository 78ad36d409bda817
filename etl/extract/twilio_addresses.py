"""Twilio Conversations: the list of address configurations."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from etl.extract.page import EVERYTHING, Lookup, Page, ScanRequest
from etl.extract.paging import pages
from etl.extract.twilio import look_up_sid, paged, probe

if TYPE_CHECKING:
    from etl.extract.http import Http

_PATH = "/v1/Configuration/Addresses"
_ADDRESSES = paged(_PATH, "address_configurations", page_size="50")  # the maximum of this list
_ADDRESS = re.compile(r"[+].*|.*[:@].*|[0-9]*", re.DOTALL)


def addresses(http: "Http", ask: ScanRequest = EVERYTHING) -> Iterator[Page]:
    """Yield the account's address configurations page by page.

    There is no count, and no order is known. Raise what `twilio.channels` raises.
    """
    return pages(http, _ADDRESSES, ask)


def look_up_address(http: "Http", key: tuple[str, ...]) -> Lookup:
    """Ask whether the address configuration with the sid `key[0]` exists; see `look_up_sid`.

    Twilio answers at this place for an address, too: another configuration of the same number would
    then stand for one that was deleted. So what may be an address is not asked for, and an answer
    with another sid decides nothing.
    """
    if _ADDRESS.fullmatch(key[0]):
        return Lookup("unasked", reason="its sid may be an address")
    return look_up_sid(http, f"{_PATH}/{{}}", key)


def probe_addresses(http: "Http", ask: ScanRequest = EVERYTHING) -> str:
    """Ask for one address, and return a line about the list. Raise what `addresses` raises."""
    return probe(http, _ADDRESSES, "addresses")

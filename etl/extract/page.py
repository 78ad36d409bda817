"""What travels between an extractor and the rest: what is asked, a page, a look-up's answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, Literal

Params = Mapping[str, str]
"""Query parameters of a request, as they are meant (not encoded)."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a scan reads of a list: sync → extract. The default is all of a list that is one whole.

    `since`   scope → watermark (UTC, inclusive): of that scope only what was modified from then on
              is wanted; a scope that is not in it is read whole.
    `read_at` when the scan began that those watermarks come from (UTC, this machine's clock).
    `resume`  `Page.following` of the last page of a scan that was cut off, whose rest is wanted.
    `pages`   how many pages that scan had read.
    `scopes`  the parts that are asked for one by one, such as Alibaba's instance ids.
    `zone`    the time zone of times that the provider sends without one.
    `size`    records of a full page; None: as many as the provider allows.
    """

    since: Mapping[str, datetime] = field(default_factory=dict)
    read_at: datetime | None = None
    resume: str | None = None
    pages: int = 0
    scopes: tuple[str, ...] = ("",)
    zone: tzinfo | None = None
    size: int | None = None


WHOLE = Ask()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a provider's list, its envelope taken off: extract → transform.

    `records`   as the provider sent them, decoded from JSON; any JSON value may be among them, and
                a `decode.Packed` for one that is to be decoded when its turn comes.
    `number`    1, 2, 3 … within the scan of one scope.
    `scope`     the part of the list that was asked for: Alibaba's instance id; "" elsewhere.
    `zone`      the time zone of times in it that come without one; None: all come with one.
    `total`     rows in the whole list by this response's own count; None where it gave none.
    `anchored`  it is shown that no row slipped between this page and the one before it.
    `following` the pointer with which the scan can be resumed after this page; None: it cannot.
    `part`      these are some of the records of a page that is too large to be held at once.
    """

    records: list[Any]
    number: int
    scope: str = ""
    total: int | None = None
    anchored: bool = False
    following: str | None = None
    part: bool = False
    zone: tzinfo | None = None


@dataclass(frozen=True, slots=True)
class Lookup:
    """A provider's answer to "does this one record exist?", asked by its key.

    `state`  "found" (then `record` is the record), "gone" (the provider's own definite not-found),
             "unasked" (nobody can ask for it), or "undecided" (an odd answer, or none); of the last
             two `reason` says why.
    """

    state: Literal["found", "gone", "unasked", "undecided"]
    record: Any = None
    reason: str = ""

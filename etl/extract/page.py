"""What extractors take and return: what to read, a page, the answer to a look-up."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, Literal, Protocol

Params = Mapping[str, str]
"""Query parameters of a request, not encoded."""


class Exact(Protocol):
    """Reads a list of records if each of them is exactly as documented."""

    def __call__(
        self, text: bytes | bytearray | memoryview, *, zone: tzinfo | None
    ) -> list[Any] | None:
        """Return structs, whose fields have the names of the members; None if any record is odd.

        `text` is JSON that holds no NUL; `zone` is that of times without one.
        """


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """What a scan reads of a list: sync → extract. The default is everything, in one scope.

    `since`   scope → watermark (UTC, inclusive): of that scope only records modified at or after
              it are read; a scope that is not in it is read in full.
    `read_at` when the scan started that set those watermarks (UTC, this machine's clock).
    `resume`  `Page.next_pointer` of the last page of an interrupted scan, to read the rest of it.
    `pages`   how many pages that scan had read.
    `scopes`  the parts that are read one by one, such as Alibaba's instance ids.
    `zone`    the time zone of times that the provider sends without one.
    `size`    records on a full page; None for as many as the provider allows.
    `exact`   reads the records of a page that are exactly as documented; None: nothing does.
    """

    since: Mapping[str, datetime] = field(default_factory=dict)
    read_at: datetime | None = None
    resume: str | None = None
    pages: int = 0
    scopes: tuple[str, ...] = ("",)
    zone: tzinfo | None = None
    size: int | None = None
    exact: Exact | None = None


EVERYTHING = ScanRequest()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a provider's list without its envelope: extract → transform.

    `records`   as the provider sent them, decoded from JSON: structs, if `ScanRequest.exact` could
                read all of them; else any JSON values, or a `decode.Packed` for one that is decoded
                when its turn comes.
    `number`    1, 2, 3 … within the scan of one scope.
    `scope`     the part of the list that was asked for: Alibaba's instance id; "" elsewhere.
    `zone`      the time zone of times without one in the records; None if all have one.
    `total`     rows in the whole list by this answer's own count; None if it gave none.
    `anchored`  whether it is proven that no row slipped between this page and the previous one.
    `next_pointer` resumes the scan after this page; None if it cannot be resumed.
    `part`      whether these are only some of the records of a page too large to be held at once.
    """

    records: list[Any]
    number: int
    scope: str = ""
    total: int | None = None
    anchored: bool = False
    next_pointer: str | None = None
    part: bool = False
    zone: tzinfo | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A record that its list does not hold whole, to be asked for: sync → extract.

    `key`    its key without source.
    `listed` what the list shows of it: columns of the stream's fingerprint → their values.
    `known`  numbers of its parts that are stored whole: they need not be asked for again.
    """

    key: tuple[Any, ...]
    listed: Mapping[str, Any] = field(default_factory=dict)
    known: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class Lookup:
    """A provider's answer to "does this one record exist?", asked by its key.

    `state`  "found"       it exists, and `record` is the record;
             "gone"        it does not exist, by the provider's own definite not-found;
             "unreadable"  it exists, by the provider's own word, but may not be read;
             "unasked"     the provider cannot be asked for it;
             "undecided"   the answer is odd, or there is none.
             Only "gone" confirms that a record was deleted. `reason` explains the last three.
    """

    state: Literal["found", "gone", "unreadable", "unasked", "undecided"]
    record: Any = None
    reason: str = ""

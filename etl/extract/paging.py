"""What providers' lists share: paging by cursor, a guard against endless lists, look-ups, numbers.

A list that is paged by cursor gives with each page a pointer (a token, a URL) to the next one. Its
provider declares a `CursorList`; `pages` does the rest.
"""

import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from etl.errors import ContractError, CredentialsError, MissingError, ProviderError, UnreadableError
from etl.extract.decode import Packed, ReadList, RecordsAt, whole
from etl.extract.page import EVERYTHING, Lookup, Page, Params, ScanRequest

if TYPE_CHECKING:
    from etl.extract.http import Http

MAX_EMPTY_PAGES = 20
MAX_PAGES = 100_000
MAX_POINTER = 16_384
"""Characters of a page token or URL; no server takes back a longer one."""
_MOST_CODES = 10**9
"""No provider's error code is as large; a larger number is no code, and would fill the message."""

_BITS = 1 << 24
_FEW = 256


@dataclass(frozen=True, slots=True)
class Envelope:
    """What one answer of a list holds.

    `rows`         its records, as sent.
    `next_pointer` the pointer to the next page; None if this is the last one.
    `total`        rows in the whole list by this answer's own count; None if it gives none.
    `odd`          how the page differs from the one that was asked for, if the answer says so.
    """

    rows: list[Any]
    next_pointer: str | None
    total: int | None = None
    odd: str = ""


@dataclass(frozen=True, slots=True)
class CursorList:
    """How a provider's list is asked for, read, and followed from page to page.

    `request`   (http, pointer; None for the first page) → the path or URL to GET, and its query.
                Raises ContractError for a pointer that must not be followed.
    `read`      (answer, the pointer that it was asked with, its place in messages) → its envelope.
                Raises ContractError for an answer that does not say what it has to.
    `records`   the members of an answer that lead to the list of its records.
    `id_member` the member of a record that holds its id.
    `resumable` whether pointers live long enough for another run to go on from one.
    """

    request: Callable[["Http", str | None], tuple[str, Params | None]]
    read: Callable[[dict[str, Any], str | None, str], Envelope]
    records: tuple[str, ...]
    id_member: str
    resumable: bool = False


def pages(http: "Http", of: CursorList, ask: ScanRequest = EVERYTHING) -> Iterator[Page]:
    """Yield the pages of a list, in the order in which the provider gives them.

    A resumable list goes on from `ask.resume`, which is checked like any other pointer. `ask.exact`
    reads the records, whose times all have a zone. The rest of `ask` does not matter: such lists
    cannot be asked for changes. Raise what the list's functions
    and the `Guard` raise; an error of a pointer names the page that gave it.
    """
    guard = Guard(http.where, of.id_member)
    records = RecordsAt(of.records, exactly(ask, zone=None))
    pointer, number = (ask.resume, ask.pages + 1) if of.resumable else (None, 1)
    while True:
        try:
            target, params = of.request(http, pointer)
        except ContractError as error:
            error.where = f"{http.where}, page {max(number - 1, 1)}"
            http.with_setting(error)
            raise
        at = f"page {number}"
        body = http.call("GET", target, params, at=at, records=records)
        found = read_envelope(http, of, body, pointer, f"{http.where}, {at}")
        guard.note(found.rows)
        pointer, odd = found.next_pointer, found.odd
        page = Page(
            found.rows, number, total=found.total, next_pointer=pointer if of.resumable else None
        )
        del body, found
        yield page
        del page  # it may be large, and the next one is on its way
        guard.check_progress(pointer, odd=odd)
        if pointer is None:
            return
        number += 1


def exactly(ask: ScanRequest, zone: tzinfo | None) -> ReadList | None:
    """Return what reads the records of a page at once; `zone` is that of times without one."""
    return None if ask.exact is None else partial(ask.exact, zone=zone)


def read_envelope(
    http: "Http", of: CursorList, body: dict[str, Any], pointer: str | None, where: str
) -> Envelope:
    """Return what `of.read` makes of an answer; its errors name the setting of the address."""
    try:
        return of.read(body, pointer, where)
    except ProviderError as error:
        http.with_setting(error)
        raise


class Guard:
    """Stops a scan that goes round in circles.

    `where` names the stream in messages, `member` is the member that holds a record's id. Ids that
    were seen are noted in 2 MiB of bits, one bit per id (of a long page only every 16th id). A page
    whose ids all share their bits with others counts as seen; that takes a list of a hundred
    million ids.
    """

    def __init__(self, where: str, member: str) -> None:
        self._where = where
        self._member = member
        self._pointers: set[int] = set()
        self._seen = bytearray(_BITS // 8)
        self._pages = self._empty = self._news = self._stale = self._same = 0
        self._last: list[int] = []

    def note(self, rows: Sequence[Any]) -> None:
        """Note the ids of the next page; its rows are not kept."""
        of = attrgetter if rows and isinstance(rows[0], msgspec.Struct) else itemgetter
        try:
            ids = list(map(hash, map(of(self._member), rows)))
        except (KeyError, TypeError, AttributeError):
            ids = [self._id(row) for row in rows]
        # Of a long page every 16th id is enough to see that it brings something.
        fresh = self._mark(ids if len(ids) <= _FEW else [id_ for id_ in ids if not id_ & 15])
        self._pages += 1
        self._same = self._same + 1 if ids and ids == self._last else 0
        self._last = ids
        self._empty = 0 if rows else self._empty + 1
        self._news, self._stale = self._news + fresh, 0 if fresh else self._stale + 1

    def check_progress(self, pointer: str | None, *, odd: str = "") -> None:
        """Check that following `pointer` from the page noted last can bring the list to an end.

        `pointer` is a token or a URL; None if the page is the last one. `odd` says how the page
        differs from the one that was asked for; it matters if the page brought nothing new.

        Raise ContractError if the pointer was there before or is too long; if three pages in a row
        hold the same records; after more than 20 empty pages in a row; after a row of pages
        without anything new that is longer than 20 pages and than the number of pages that
        brought something; after 100,000 pages.
        """
        problem = odd if self._stale and not self._empty else ""
        if pointer is not None:
            if len(pointer) > MAX_POINTER:
                raise self._refusal(f"the pointer to the next page has {len(pointer)} characters")
            problem = problem or self._circle(pointer)
            self._pointers.add(hash(pointer))
        if problem:
            raise self._refusal(f"paging loops: {problem}")

    def _refusal(self, what: str) -> ContractError:
        return ContractError(
            what,
            where=f"{self._where}, page {self._pages}",
            advice="nothing is deleted; run again; if it happens again, report it to the provider",
        )

    def _circle(self, pointer: str) -> str:
        if hash(pointer) in self._pointers:
            return "the pointer to the next page was there before"
        if self._same >= 2:
            return "three pages in a row hold the same rows, so the page token is ignored"
        if self._empty > MAX_EMPTY_PAGES:
            return f"{self._empty} empty pages in a row, each with a next page"
        if self._stale > max(MAX_EMPTY_PAGES, self._news):
            return f"{self._stale} pages in a row brought no row that was not there before"
        if self._pages >= MAX_PAGES:
            return f"no end after {self._pages} pages"
        return ""

    def _id(self, row: Any) -> int:
        if isinstance(row, Packed):
            return hash(bytes(row.data[row.start : row.end]))
        name = row.get(self._member) if isinstance(row, dict) else None
        if isinstance(name, str):
            return hash(name)
        try:
            return hash(repr(row))
        except RecursionError:  # it will be rejected; all such rows count as one
            return 0

    def _mark(self, ids: Iterable[int]) -> bool:
        """Note ids as seen; return whether one of them is new."""
        seen, fresh = self._seen, False
        for number in ids:
            place, bit = (number >> 4 & (_BITS - 1)) >> 3, 1 << (number >> 4 & 7)
            if not seen[place] & bit:
                seen[place] |= bit
                fresh = True
        return fresh


def look_up(
    http: "Http",
    key: Sequence[str],
    *,
    path: str,
    members: Sequence[str | None],
    provider: str,
    noun: str,
) -> Lookup:
    """Ask whether the record with `key` exists.

    `path` has one {} for each part of the key, such as "/flows/{}". `members` are the members of
    the record that repeat those parts; None for a part that the record does not repeat. `provider`
    and `noun` are for messages.

    The answer is "gone" only if the judge of `http` raises MissingError, "unreadable" only if it
    raises UnreadableError. Raise CredentialsError if nothing can be asked at all.
    """
    for part, member in zip(key, members, strict=True):
        if part in ("", ".", ".."):
            return Lookup("unasked", reason=f"its {member or 'key'} cannot stand in a URL")
    try:
        target = path.format(*(urllib.parse.quote(part, safe="") for part in key))
        body = http.call("GET", target, at=f"one {noun}")
    except MissingError:
        return Lookup("gone")
    except UnreadableError as error:
        return Lookup("unreadable", reason=error.what)
    except CredentialsError:
        raise
    except ProviderError as error:
        return Lookup("undecided", reason=error.what)
    except UnicodeError as error:
        return Lookup("unasked", reason=http.redact(str(error)))
    if any(member and body.get(member) != part for part, member in zip(key, members, strict=True)):
        return Lookup("undecided", reason=f"{provider} answered with another {noun}")
    return Lookup("found", record=body)


def count(value: Any) -> int | None:
    """Read a row count as a provider sent it; return None if it is no `decode.whole` from 0 on."""
    number = whole(value)
    return number if number is not None and 0 <= number < 10**18 else None


def error_code(body: Any) -> int | None:
    """Return the numeric `code` of an error envelope, which old services send as text; or None."""
    code = body.get("code") if isinstance(body, dict) else None
    if isinstance(code, str) and len(code) < 10 and code.isascii() and code.isdigit():
        return int(code)
    return code if type(code) is int and abs(code) < _MOST_CODES else None

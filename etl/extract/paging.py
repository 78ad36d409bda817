"""What the providers' lists share: a guard for endless paging, look-ups of one record, numbers."""

import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any

from etl.errors import ContractError, CredentialsError, MissingError, ProviderError
from etl.extract.decode import Packed, whole
from etl.extract.http import Http
from etl.extract.page import Lookup

MAX_EMPTY_PAGES = 20
MAX_PAGES = 100_000
MAX_POINTER = 16_384
"""Characters of a page token or URL; what is longer no server takes back."""
_MOST_CODES = 10**9
"""No provider's error code is as large; a larger number is none, and would fill the message."""

_BITS = 1 << 24
_FEW = 256


class Guard:
    """Stops a scan that goes round in circles.

    `where` names the stream in messages, `member` is the records' id. What was seen is noted in
    2 MiB of bits, one per id (of a long page only every 16th id): a page of ids that share all
    their bits with others is taken for seen, which takes a list of a hundred million ids.
    """

    def __init__(self, where: str, member: str) -> None:
        self._where = where
        self._member = member
        self._pointers: set[int] = set()
        self._seen = bytearray(_BITS // 8)
        self._pages = self._empty = self._news = self._stale = self._same = 0
        self._last: list[int] = []

    def note(self, rows: Sequence[Any]) -> None:
        """Note the rows of the next page, of which nothing is kept."""
        try:
            ids = [hash(row[self._member]) for row in rows]
        except (KeyError, TypeError):
            ids = [self._id(row) for row in rows]
        # Of a long page every 16th id is enough to see that it brings something.
        fresh = self._mark(ids if len(ids) <= _FEW else [id_ for id_ in ids if not id_ & 15])
        self._pages += 1
        self._same = self._same + 1 if ids and ids == self._last else 0
        self._last = ids
        self._empty = 0 if rows else self._empty + 1
        self._news, self._stale = self._news + fresh, 0 if fresh else self._stale + 1

    def follow(self, pointer: str | None, *, odd: str = "") -> None:
        """Look at the page noted last, and the pointer (a token, a URL) to the one after it.

        None: it is the last one. `odd` says how the page differs from the one that was asked for,
        if the answer says so; it matters where the page brought nothing new.

        Raises ContractError when the pointer was there before or is too long; when three pages in a
        row hold the same records; after more than 20 empty pages in a row; after more pages in a
        row that bring nothing new than 20 and than all before that did; after 100,000 pages.
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
            advice="nothing is deleted; run again, and tell the provider if it happens again",
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
        except RecursionError:  # it will be rejected; here it counts as one and the same
            return 0

    def _mark(self, ids: Iterable[int]) -> bool:
        """Note ids as seen; whether one of them was not."""
        seen, fresh = self._seen, False
        for number in ids:
            place, bit = (number >> 4 & (_BITS - 1)) >> 3, 1 << (number >> 4 & 7)
            if not seen[place] & bit:
                seen[place] |= bit
                fresh = True
        return fresh


def look_up(
    http: Http, path: str, key: tuple[str, ...], *, member: str, provider: str, noun: str
) -> Lookup:
    """Whether the record at `path` whose `member` is `key[0]` exists.

    "gone" only where the judge of `http` raises MissingError. Raises CredentialsError when nothing
    can be asked at all. `provider` and `noun` are for messages.
    """
    (sought,) = key
    if sought in ("", ".", ".."):
        return Lookup("unasked", reason=f"its {member} cannot stand in a URL")
    try:
        place = f"{path}/{urllib.parse.quote(sought, safe='')}"
        body = http.call("GET", place, at=f"one {noun}")
    except MissingError:
        return Lookup("gone")
    except CredentialsError:
        raise
    except ProviderError as error:
        return Lookup("undecided", reason=str(error))
    except UnicodeError as error:
        return Lookup("unasked", reason=http.redact(str(error)))
    if body.get(member) != sought:
        return Lookup("undecided", reason=f"{provider} answered with another {noun}")
    return Lookup("found", record=body)


def count(value: Any) -> int | None:
    """Return a row count as a provider sent it; None when it is no `decode.whole` from 0 on."""
    number = whole(value)
    return number if number is not None and 0 <= number < 10**18 else None


def error_code(body: Any) -> int | None:
    """The numeric `code` of an error envelope, which old services send as text; else None."""
    code = body.get("code") if isinstance(body, dict) else None
    if isinstance(code, str) and len(code) < 10 and code.isascii() and code.isdigit():
        return int(code)
    return code if type(code) is int and abs(code) < _MOST_CODES else None

"""What the providers' lists share: a guard for endless paging, look-ups of one record, numbers."""

import re
import urllib.parse
from typing import Any

from etl.errors import ContractError, CredentialsError, ProviderError
from etl.http import Http, MissingError
from etl.model import Key, Lookup

MAX_EMPTY_PAGES = 20
MAX_PAGES = 100_000
_MOST_CODES = 10**9
"""No provider's error code is as large; a larger number is none, and would fill the message."""


class Guard:
    """Stops a scan that goes round in circles. `where` names the stream in messages."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._seen: set[str] = set()
        self._empty = 0

    def follow(self, pointer: str, rows: int) -> None:
        """Note that a page of `rows` rows names `pointer` (a token, a URL) as the next page.

        Raises ContractError when the pointer was there before, after more than 20 empty pages in a
        row, and after 100,000 pages.
        """
        page = len(self._seen) + 1
        self._empty = 0 if rows else self._empty + 1
        problem = ""
        if pointer in self._seen:
            problem = "paging loops: the pointer to the next page was there before"
        elif self._empty > MAX_EMPTY_PAGES:
            problem = f"paging loops: {self._empty} empty pages in a row, each with a next page"
        elif page >= MAX_PAGES:
            problem = f"paging loops: no end after {page} pages"
        self._seen.add(pointer)
        if problem:
            raise ContractError(
                problem,
                where=f"{self._where}, page {page}",
                advice="nothing is deleted; run again, and tell the provider if it stays",
            )


def look_up(http: Http, path: str, key: Key, *, member: str, provider: str, noun: str) -> Lookup:
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


_NUMBER = re.compile("0|[1-9][0-9]{0,17}")


def count(value: Any) -> int | None:
    """A row count as a provider sent it; None when it is not a whole number from 0 on.

    Text is a number where it is spelled as JSON spells one: "100", but not "0100", "+1" or "1.0".
    Alibaba's own example of ListContactFlows counts in such texts.
    """
    if isinstance(value, str):
        return int(value) if _NUMBER.fullmatch(value) else None
    if type(value) is float and value.is_integer():  # JSON has one kind of number: 3.0 is 3
        value = int(value)
    return value if type(value) is int and 0 <= value < 10**18 else None


def error_code(body: Any) -> int | None:
    """The numeric `code` of an error envelope, which old services send as text; else None."""
    code = body.get("code") if isinstance(body, dict) else None
    if isinstance(code, str) and len(code) < 10 and code.isascii() and code.isdigit():
        return int(code)
    return code if type(code) is int and abs(code) < _MOST_CODES else None

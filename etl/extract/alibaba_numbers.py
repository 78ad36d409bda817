"""Alibaba Cloud CCC: the phone numbers of each instance.

ListPhoneNumbers documents no time of change and no order, so nothing but its count and the numbers
themselves can prove that all were seen: `sync.proof` needs each number that the list counted to be
known already, or to come in a second scan. Pages overlap all the same, so that a number that leaves
the list while it is read takes none with it that moves a place forward.

There is no look-up of one number: SearchPattern finds similar ones, too.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl.errors import ContractError, TooLargeError, UnreachableRowsError
from etl.extract.alibaba import LARGEST, counts, of_each_instance, read_page
from etl.extract.decode import unpacked
from etl.extract.offset_list import page_from
from etl.extract.page import EVERYTHING, Page, ScanRequest
from etl.extract.verdict import IF_IT_STAYS

if TYPE_CHECKING:
    from etl.extract.http import Http

PHONE_NUMBERS = "ListPhoneNumbers"
"""The action that lists them, as the signature names it."""

Joined = tuple[str, str]
"""A row's Number and CreateTime, which is when it joined the instance; "" for what is missing."""

Masked = dict[tuple[str, str, int], dict[str, Any]]
"""Number, CreateTime, and how many rows before it in its answer are alike in both → row."""

_SMALLEST = 2  # with one row to a page no page could show a row of the previous one again


@dataclass(slots=True)
class _Window:
    """Rows `start`, `start` + 1, … of the list, as one answer held them.

    `ids[i]` tells row i from others, also from those with a number that is masked alike. `total` is
    the length of the list, None if it is not known. `is_last` says that the list ends with it.
    """

    start: int
    rows: list[Any]
    ids: list[Joined]
    total: int | None
    is_last: bool

    @property
    def end(self) -> int:
        """The number of the row behind its last one."""
        return self.start + len(self.rows)


def phone_numbers(http: "Http", ask: ScanRequest = EVERYTHING) -> Iterator[Page]:
    """Yield the phone numbers of every instance: `ask.scopes` and `Page.scope` are instance ids.

    Pages overlap: a number may come several times, and its last record is the newest one. No page
    is `anchored`. `Page.total` is TotalCount of the instance.

    Alibaba may mask numbers, and mask several ones alike. Of those that an instance holds more than
    once, the one that joined first keeps the number as sent; a slash and CreateTime are put behind
    the others (`_with_own_numbers`). So masked numbers come last, when all of them are known.

    `ask.size` is the rows on a full page, 2 to 100; the API reaches 100 pages far. After everything
    that can be read of every instance, raise UnreachableRowsError if numbers of one are out of
    reach, MissingError if one does not exist; ContractError if the page number is ignored.
    """

    def numbers_of(instance: str) -> Iterator[Page]:
        places = itertools.count(1)
        masked: Masked = {}
        total = None
        for window in _windows(http, instance, ask.size or LARGEST):
            total = window.total
            rows = _put_aside(window.rows, masked)
            if window.start == 0 and window.is_last:  # a list in one answer stays one page
                rows, masked = [*rows, *_with_own_numbers(masked)], {}
            yield Page(rows, next(places), instance, total)
            del rows
        if masked:
            yield Page(_with_own_numbers(masked), next(places), instance, total)

    return of_each_instance(http, ask.scopes, numbers_of)


def probe_phone_numbers(http: "Http", ask: ScanRequest) -> str:
    """Ask each instance for one number; return a line of counts. Raise what a scan would raise."""
    return counts(
        {each: read_page(http, each, 1, 1, {})[1] for each in ask.scopes}, "phone numbers"
    )


# --- masked numbers ------------------------------------------------------------------------------
def _put_aside(rows: Iterable[Any], masked: Masked) -> list[Any]:
    """Add the rows with a masked number to `masked`, and return the others.

    A row is known again by its number and by when it joined the instance; rows of one answer that
    are alike in both are different rows, and are counted.
    """
    others: list[Any] = []
    alike: Counter[Joined] = Counter()
    for row in rows:
        joined = _joined(row)
        if "*" not in joined[0]:
            others.append(row)
            continue
        masked[(*joined, alike[joined])] = unpacked(row)
        alike[joined] += 1
    return others


def _with_own_numbers(masked: Masked) -> list[Any]:
    """Return the rows with a masked number, each with a number that no other one has."""
    rows: list[Any] = []
    taken: set[str] = set()
    for (number, joined, more), record in sorted(masked.items(), key=lambda each: each[0]):
        if number in taken:
            record = {**record, "Number": f"{number}/{joined}{f'/{more}' if more else ''}"}
        taken.add(number)
        rows.append(record)
    return rows


# --- requests ------------------------------------------------------------------------------------
def _windows(http: "Http", instance: str, size: int) -> Iterator[_Window]:
    """Yield windows that cover the list; if an answer is too large, again with smaller pages."""
    while True:
        try:
            yield from _walk(http, instance, size)
            return
        except TooLargeError:
            if size <= _SMALLEST:
                raise
            size = max(_SMALLEST, size // 4)


def _walk(http: "Http", instance: str, size: int) -> Iterator[_Window]:
    """Read from the first row to the last in windows that overlap.

    A busy list may need more windows than one walk reads; then its count shows what is missing.
    """
    here = _window(http, instance, 1, size)
    seen: set[Joined] = set()
    for _ in range(20 + 3 * (here.total or LARGEST * size) // size):
        yield here
        if here.is_last or not here.rows:
            return
        seen.update(here.ids)
        here = _next(http, instance, size, here, seen)


def _next(http: "Http", instance: str, size: int, here: _Window, seen: Set[Joined]) -> _Window:
    """Return a window that reaches beyond `here` and starts with a row that was read before.

    Then no row has moved from behind the rows that were read to before them, if rows keep their
    order. If it starts with another row, rows before it are gone, and the next one is half a page
    further ahead.
    """
    want, end = here.end - 1, here.end
    while True:
        # Of two rows to a page, every second one cannot be shown again.
        page = page_from(want, end, size, LARGEST) or (end // size + 1, size)
        if page[0] > LARGEST:
            rows = f"over {end}" if here.total is None else here.total
            raise UnreachableRowsError(
                f"{instance} has {rows} phone numbers, of which {end} could be read",
                advice=f"the API pages no further than {LARGEST * size} rows, so none is deleted;"
                " remove phone numbers that are no longer used",
            )
        there = _window(http, instance, *page)
        if there.start > here.start and there.ids == here.ids[: len(there.ids)] != []:
            raise ContractError(
                f"rows {here.start} and {there.start} of the list are the same, so the page number"
                " is ignored",
                where=f"{http.where}, instance {instance}",
                advice=IF_IT_STAYS,
            )
        if there.start in (0, here.end) or not there.rows or there.ids[0] in seen:
            return there
        want = end = max(0, want - size // 2)


def _window(http: "Http", instance: str, page: int, size: int) -> _Window:
    """Ask for a page. A count below the rows that the page shows is not used."""
    rows, total = read_page(http, instance, page, size, {})
    start = (page - 1) * size
    if total is not None and rows and total < start + len(rows):
        total = None  # it counts something else
    is_last = len(rows) < size if total is None else start + len(rows) >= total
    return _Window(start, rows, [_joined(row) for row in rows], total, is_last)


def _joined(row: Any) -> Joined:
    record = unpacked(row)
    if not isinstance(record, dict) or not isinstance(number := record.get("Number"), str):
        return "", ""
    return number, str(record.get("CreateTime", ""))

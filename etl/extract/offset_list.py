"""A list that is paged by offset: how it is asked for, one window of it, and its rows' clock."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

from etl.errors import ContractError
from etl.extract.decode import moment
from etl.extract.paging import count

Order = Literal["ASC", "DESC"]
"""By the time of the rows: oldest first, or newest first."""

Version = tuple[str, datetime]
"""A row's id and the time of its last change."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock that sets the rows' times, as far as it is known.

    `zone`   the zone of times that come without one. All times are compared as local times in it.
    `lag`    a row is in the list at most this long after its time.
    `skew`   how far the provider's clock and this machine's clock may differ.
    `behind` how far the local times of the rows may be behind UTC by this machine's clock, even if
             `zone` is wrong.
    """

    zone: tzinfo
    lag: timedelta
    skew: timedelta
    behind: timedelta

    def local(self, value: Any) -> datetime | None:
        """Return a time, as sent or read already, as a local time of the provider without its zone.

        A time that comes with a zone is converted. Return None for anything else, and for the years
        1 and 9999, which stand for "never".
        """
        when = value if isinstance(value, datetime) else moment(value)
        try:
            if when and when.tzinfo:
                when = when.astimezone(self.zone).replace(tzinfo=None)
        except OverflowError:
            return None
        return when if when and 1 < when.year < 9999 else None

    def settled_at(self, at: datetime) -> datetime:
        """Return the local time up to which the list is settled at `at`, whatever the time zone.

        Rows that are not listed yet will have later times. `at` is aware, by this machine's clock.
        """
        return at.astimezone(UTC).replace(tzinfo=None) - self.behind - self.lag


@dataclass(frozen=True, slots=True)
class OffsetPage:
    """One page: its rows as sent, and how many rows the list or part has (None: not known).

    `versions[i]` is the id of row i ("" if it has none) and its local time (None if it has none).
    """

    rows: list[Any]
    versions: list[tuple[str, datetime | None]]
    total: int | None


@dataclass(frozen=True, slots=True)
class OffsetList:
    """A list that is paged by offset, or the part of one that its provider can select.

    `read`       (part, order, page from 1 on, rows on a page) → that page. Raises TooLargeError if
                 fewer rows may fit into an answer.
    `now`        this machine's clock, aware.
    `where`      the place of the list in errors; `subject` names the list, `noun` its rows.
    `size`       rows on a full page.
    `last_page`  the highest page number that the provider accepts.
    `parts`      selections that together hold every row, for lists that are too long to be paged;
                 `part_noun` is what the provider calls one.
    `part`       the selection that is read; "" for the whole list.
    `list_total` while a part is read: the rows in the whole list when that was last counted.
    """

    read: Callable[[str, Order, int, int], OffsetPage]
    now: Callable[[], datetime]
    clock: Clock
    where: str
    subject: str
    noun: str
    size: int
    last_page: int
    parts: tuple[str, ...] = ()
    part_noun: str = "part"
    part: str = ""
    list_total: int | None = None

    @property
    def reach(self) -> int:
        """Rows that can be paged from one end."""
        return self.last_page * self.size

    def requests(self, total: int | None) -> Iterator[int]:
        """Return one item per request that a walk may make: more than a busy list ever needs."""
        return iter(range(20 + 3 * min(total or 0, self.reach) // self.size))

    def window(self, order: Order, page: int, size: int) -> "Window":
        """Ask for a page. A count below the rows that the page shows is not used."""
        found = self.read(self.part, order, page, size)
        start, total = (page - 1) * size, found.total
        if total is not None and found.rows and total < start + len(found.rows):
            total = None  # it counts something else
        list_total = self.list_total if self.part else total
        return Window(start, found.rows, found.versions, total, list_total)


@dataclass(slots=True)
class Window:
    """Rows `start`, `start` + 1, … of the list, as one answer held them.

    `versions` are as in `OffsetPage`. `total` is the length of the list or part that was asked for,
    `list_total` that of the whole list; None if not known. `anchored` says that no row slipped
    between this window and the previous one.
    """

    start: int
    rows: list[Any]
    versions: list[tuple[str, datetime | None]]
    total: int | None
    list_total: int | None
    anchored: bool = False

    @property
    def end(self) -> int:
        """The number of the row behind its last one."""
        return self.start + len(self.versions)

    @property
    def is_last(self) -> bool:
        """Whether the list ends with it."""
        return self.total is not None and self.end >= self.total

    @property
    def is_whole(self) -> bool:
        """Whether this one answer holds the whole list: then its order does not matter."""
        return self.start == 0 and self.is_last

    @property
    def times(self) -> list[datetime]:
        """The times of its rows that have one, in its order."""
        return [time for _, time in self.versions if time]

    @property
    def newest(self) -> datetime | None:
        """The latest time; None if no row has one."""
        return max(self.times, default=None)

    @property
    def ids(self) -> set[str]:
        """The ids of its rows that have one."""
        return {id_ for id_, _ in self.versions if id_}

    @property
    def dated(self) -> set[Version]:
        """Its rows that have an id and a time."""
        return {(id_, time) for id_, time in self.versions if id_ and time}

    def is_ordered(self, order: Order) -> bool:
        """Return whether the rows that have a time are in `order`; equal times are."""
        times = self.times if order == "ASC" else self.times[::-1]
        return all(a <= b for a, b in itertools.pairwise(times))


def check_echo(
    answer: Mapping[str, Any], names: tuple[str, str], page: int, size: int, most: int, where: str
) -> None:
    """Check that `answer` is the page that was asked for, if it says which page it is.

    `names` are its members for the page's number and size, `most` is the largest size. Raise
    ContractError with the place `where` if they differ from `page` and `size`.
    """
    number_name, size_name = names
    for name, asked in ((number_name, page), (size_name, size)):
        answered = count(answer.get(name))
        if answered is None or answered == asked:
            continue
        if name == size_name and page == 1 and answered <= most:
            continue  # page 1 starts at row 0 whatever its size; Alibaba's own example says 10
        raise ContractError(
            f"{name} {asked} was asked for, {str(answered)[:20]} was answered",
            where=where,
            advice="nothing is deleted; report to the maintainers that the API pages differently",
        )


def page_from(start: int, end: int, largest: int, last_page: int) -> tuple[int, int] | None:
    """Return the (page, page size) that starts at or before row `start` and reaches furthest.

    It must reach beyond row `end`. Offsets are multiples of the page size, so the size varies:
    page 52 of 98 rows starts at row 4,998. None means that there is no such page.
    """
    best = None
    for size in range(1, largest + 1):
        page = start // size + 1
        if page <= last_page and page * size > end and (best is None or page * size > best[0]):
            best = (page * size, page, size)
    return best and best[1:]

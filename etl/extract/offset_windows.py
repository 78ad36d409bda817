"""Lists that are paged by offset, read in windows that overlap, so that no row slips between them.

Rows move while such a list is read: an edited row jumps to one end, a deleted one pulls the rest a
place forward, and a row that crosses a page border meanwhile is missed. So the list is asked for in
the order of its rows' times, and each window must show a row of the previous ones again (an
anchor), which proves that nothing slipped between the two. The whole list is read oldest first
(`_anchored`), changes only are read newest first (`_changes`).

The proofs assume five things. An answer shows the list, and counts it, at one instant. An id is
never used again. A change moves a row to a later time, never to an earlier one or to none. A
change shows up at most `Clock.lag` after the time that it gives the row. The provider's clock is
never set back. Rows with the same time may come in any order.
"""

from collections.abc import Generator, Iterator, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from etl.errors import ContractError, TooLargeError, UnreachableRowsError
from etl.extract.offset_list import Clock, OffsetList, Order, Version, Window, page_from
from etl.extract.paging import MAX_EMPTY_PAGES
from etl.extract.verdict import IF_IT_STAYS

_SMALLEST = 2  # with one row to a page no window could show a row of the previous one again
_EARLIEST, _LATEST = datetime.min, datetime.max  # noqa: DTZ901 - local times


def windows(
    of: OffsetList, since: datetime | None = None, read_at: datetime | None = None
) -> Iterator[Window]:
    """Read the whole list (`since` is None), or what changed at or after `since` (aware).

    `since` is the newest time that a previous scan saw, `read_at` when that scan started. Windows
    overlap, so a row may come several times; the last one is the newest.

    All windows are `anchored` exactly if it is proven that no row slipped through:

    - The whole list: every row that was listed when the last answer was given was returned, in the
      version that it had then. The exception are changes during the very last requests of a list
      that is too long to be paged (`_by_parts`): of those, every row that was listed all along was
      returned, maybe in an older version. Without the proof the reading goes on all the same.
    - Changes: every row that the first answer's list had with a time from `since` on was returned,
      unless it was changed again or deleted before its page was read; such a change sets a time
      that the next scan reads. No row is newer than the newest of the first window, so the newest
      time that was returned is a sound next `since`. If the proof fails, the last window is not
      anchored, and the whole list has to be read.

    If an answer is too large, the walk starts again with smaller pages. Rows that it had returned
    are rows of the list all the same, and the proof rests on the last walk alone.

    Raise UnreachableRowsError after the last window if rows are out of reach; TooLargeError if even
    two rows are too large for an answer; ContractError if the provider ignores the page number or
    goes on with empty pages.
    """
    floor = None if since is None else _floor(of.clock, since, read_at)
    while True:
        try:
            yield from _whole_list(of) if floor is None else _changes(of, floor)
            return
        except TooLargeError:
            if of.size <= _SMALLEST:
                raise
            of = replace(of, size=max(_SMALLEST, of.size // 4))


# --- the whole list ------------------------------------------------------------------------------
def _whole_list(of: OffsetList) -> Iterator[Window]:
    """Yield windows that cover the whole list, by parts if it is too long to be paged."""
    first = of.window("ASC", 1, of.size)
    total = first.total
    if total is None or total <= of.reach:
        total = yield from _ascending(of, first)
    if total is None or total > of.reach:
        yield from _by_parts(of, total)


def _ascending(of: OffsetList, first: Window) -> Generator[Window, None, int | None]:
    """Read on from the first window as far as the list can be paged, proven as far as it can be.

    Return the rows in the list; None if that is not known and there may be more.
    """
    here = yield from _anchored(of, first)
    if here.is_last:
        return here.total
    page = min(here.end // of.size + 1, of.last_page)
    return (yield from _unproven(of, "ASC", page, of.last_page))


def _anchored(of: OffsetList, here: Window) -> Generator[Window, None, Window]:
    """Walk from the oldest row to the newest in windows that overlap; return the last window.

    A window continues the previous one only if it shows an anchor: a row that was read before, in
    the same version, and older than any row that can still appear (`_anchors_before`). Then:

    1. An answer is one contiguous piece of the list, so the window holds every row from the anchor
       to its own last row.
    2. Every row that is older than the anchor, or as old, stood before the last row of the previous
       window, so it was read.
    3. So after each window all rows before its end have been read as they are, and after the window
       at which the list ends, all rows have.

    A row without a time is no anchor, and is not taken for one that changed.

    The walk ends early if there is no anchor: about a page of rows have one time or are minutes
    old, the order is not kept, there is no count, or no page reaches back to the anchor.
    """
    settled = of.clock.settled_at(of.now())
    left = of.requests(here.total)
    seen: set[Version] = set()
    while True:
        here.anchored = here.is_whole or here.is_ordered("ASC")
        yield here
        newest = here.newest
        if here.is_last or here.total is None or not here.anchored or newest is None:
            return here
        seen |= here.dated
        bound = _anchors_before(newest, settled, of.clock.lag)
        there = _next(of, "ASC", here, {row for row in seen if row[1] < bound}, left)
        if there is None:
            return here
        _require_progress(of, here, there)
        here = there


def _anchors_before(newest: datetime, settled: datetime, lag: timedelta) -> datetime:
    """Return the time that anchors have to be older than: no row can appear before it any more.

    A row that appears later has a time later than `settled`, and later than now minus the lag,
    where now is not before `newest`, the newest time in the window. Rows with one time may come in
    any order, and a page may end among them, so `newest` itself is never an anchor's.
    """
    return max(newest - lag, min(newest, settled))


def _next(
    of: OffsetList, order: Order, here: Window, anchors: Set[Version], left: Iterator[int]
) -> Window | None:
    """Return a window that reaches beyond `here` and shows one of `anchors`; None if none does.

    It starts at the last row of `here` that is an anchor. If it shows no anchor, rows before it
    were deleted or have moved, so it is moved back by half a page at a time. The first rows of the
    list, oldest first, need no anchor.
    """
    places = [here.start + i for i, row in enumerate(here.versions) if row in anchors]
    if not places:
        return None
    want, end = places[-1], here.end
    for _ in left:
        page = page_from(want, end, of.size, of.last_page)
        if page is None:
            return None
        there = of.window(order, *page)
        if there.dated & anchors or (there.start == 0 and order == "ASC"):
            return there
        if there.start == 0:
            return None
        want = end = max(0, want - of.size // 2)
    return None


def _repeats(before: Window, after: Window) -> bool:
    """Return whether a later window holds the very rows that the previous one starts with."""
    same = len(after.versions) > 1 and after.versions == before.versions[: len(after.versions)]
    return same and after.start > before.start


def _require_progress(of: OffsetList, before: Window, after: Window) -> None:
    if _repeats(before, after):
        raise ContractError(
            f"rows {before.start} and {after.start} of the list are the same, so the page number is"
            " ignored",
            where=of.where,
            advice=IF_IT_STAYS,
        )


def _unproven(
    of: OffsetList, order: Order, page: int, last: int
) -> Generator[Window, None, int | None]:
    """Read pages `page` to `last`, or to the end of the list, without a proof.

    Return the rows in the list; None if that is not known and there may be more.
    """
    empty, before = 0, None
    for number in range(page, last + 1):
        window = of.window(order, number, of.size)
        yield window
        if before is not None:
            _require_progress(of, before, window)
        before = window
        if window.total is None and len(window.versions) < of.size:
            return window.end  # without a count the last page is the one that is not full
        if window.total is not None and number * of.size >= window.total:
            break
        empty = 0 if window.versions else empty + 1
        if empty > MAX_EMPTY_PAGES:
            raise ContractError(
                f"the list counts {window.total} rows, but {empty} pages in a row are empty",
                where=f"{of.where}, page {number}",
                advice=IF_IT_STAYS,
            )
    return window.total


# --- more than can be paged ----------------------------------------------------------------------
@dataclass(slots=True)
class _Tally:
    """What was read of a list by parts.

    `listed`   rows that the parts count, and rows that only the changes showed.
    `too_long` whether rows are out of reach.
    """

    ids: set[str]
    newest: datetime | None = None
    listed: int = 0
    too_long: bool = False

    def note(self, window: Window) -> None:
        self.ids |= window.ids
        self.newest = max(filter(None, (self.newest, window.newest)), default=None)

    def end_part(self, of: OffsetList, last: Window) -> None:
        total = last.end if last.total is None else last.total
        self.listed += total
        unknown = last.total is None and total >= of.reach
        self.too_long |= total > 2 * of.reach or unknown


def _by_parts(of: OffsetList, list_total: int | None) -> Iterator[Window]:
    """Read a list that is too long to be paged: each of its parts, then what changed meanwhile.

    1. The walk through a part shows all its rows as they are when it ends. A part that is itself
       too long is read from both ends, unproven.
    2. A row that changes later has a time later than the end of the first walk less the lag. A
       walk through the changes of the whole list down to that time returns it.
    3. The first answer of that walk counts the list. If it counts more rows than were returned,
       some belong to no known part; they are read from both ends of the list, unproven.

    It is assumed that a row stays in its part. If its part is changed, the row is still found among
    the changes. If its part is changed without a new time, it may be missed, and then the count
    exceeds the rows returned.

    Raise UnreachableRowsError after the last window if rows are out of reach.
    """
    started = of.now()
    floor: datetime | None = None
    tally = _Tally(set())
    for part in of.parts:
        for window in _both_ends(replace(of, part=part, list_total=list_total)):
            yield window
            tally.note(window)
        if floor is None:
            floor = _floor_after(of.clock, tally.newest, started)
        tally.end_part(of, window)
    list_total = yield from _changes_meanwhile(of, floor or of.clock.settled_at(started), tally)
    if list_total is not None and list_total > tally.listed:
        for window in _both_ends(of):
            yield replace(window, anchored=False)
            window.rows = []
            tally.ids |= window.ids
        tally.too_long |= list_total > len(tally.ids)
    if tally.too_long:
        raise _unreachable(of, list_total, len(tally.ids))


def _floor_after(clock: Clock, newest: datetime | None, started: datetime) -> datetime:
    """Return the floor of changes after a walk that saw `newest`, a local time."""
    if newest is None:
        return clock.settled_at(started)
    return _floor(clock, newest.replace(tzinfo=clock.zone), started)


def _changes_meanwhile(
    of: OffsetList, floor: datetime, tally: _Tally
) -> Generator[Window, None, int | None]:
    """Yield the changes from `floor` on, and note them; return the list's count by the first."""
    list_total = None
    for number, window in enumerate(_changes(of, floor)):
        list_total = list_total if number else window.list_total
        yield window
        tally.listed += len(window.ids - tally.ids)
        tally.ids |= window.ids
    return list_total


def _unreachable(of: OffsetList, list_total: int | None, read: int) -> UnreachableRowsError:
    rows = f"over {of.reach}" if list_total is None else list_total
    return UnreachableRowsError(
        f"{of.subject} has {rows} {of.noun}, of which {read} could be read",
        advice=f"the API pages no further than {of.reach} rows from either end of a list or"
        f" of a {of.part_noun}, so none is deleted; remove {of.noun} that are no longer used",
    )


def _both_ends(of: OffsetList) -> Iterator[Window]:
    """Read a list from its oldest row on, and from its newest one if it is too long for that."""
    total = yield from _ascending(of, of.window("ASC", 1, of.size))
    if total is None or total > of.reach:
        pages = of.last_page if total is None else -(-(total - of.reach) // of.size)
        yield from _unproven(of, "DESC", 1, min(pages, of.last_page))


# --- changes only --------------------------------------------------------------------------------
def _floor(clock: Clock, since: datetime, read_at: datetime | None) -> datetime:
    """Return the oldest local time that a change which a scan missed can have set.

    `since` is the newest time that the scan saw, `read_at` when it started, by this machine's
    clock. Whatever the scan missed is newer than two times: `since` less the lag, because older
    rows were listed already, and `clock.settled_at(read_at)`. If `since` is older than the latter,
    what was missed is newer than `since` itself. If `since` is in the future, its row or the time
    zone is wrong: then only this machine's clock sets the floor.
    """
    settled = clock.settled_at(read_at) if read_at else _EARLIEST
    if read_at and since > read_at + clock.skew:
        return settled
    day = timedelta(days=1)  # if clocks went forward in it, `since` may be one of two local times
    try:
        newest = min(
            since.astimezone(clock.zone).replace(tzinfo=None),
            (since - day).astimezone(clock.zone).replace(tzinfo=None) + day,
        )
        return newest if newest < settled else newest - clock.lag
    except OverflowError:  # a time near year 1 or 9999
        return settled


def _changes(of: OffsetList, floor: datetime) -> Iterator[Window]:
    """Walk from the newest row down to the first one older than `floor`, in windows that overlap.

    A window continues the previous one only if it shows an anchor: a row that was read before, in
    the same version, and newer than the last row read. It must be newer, not as new, because a page
    may end among rows with one time. Then:

    1. An answer is one contiguous piece of the list, so the window holds every row from the anchor
       down to its own last row.
    2. Every row that is newer than the anchor, or as new, was read before.
    3. So after each window every row of the first answer's list that is newer than the last row
       read has been returned, except those that were changed or deleted since. Such a change sets
       a time later than the newest row of the first answer less the lag, and the floor of the next
       scan lies below that.

    Rows that are newer than all of the first answer are left to the next scan. If they were
    returned, the newest time returned would be later than the first answer, and the next floor
    might be above another row that a change put on top meanwhile and that was not read.

    If there is no anchor, the order is not kept, or there is no count, the last window is not
    anchored (it may be empty): what is older counts as unread.
    """
    here = of.window("DESC", 1, of.size)
    left = of.requests(here.total)
    seen: set[Version] = set()
    newest, oldest = here.newest or _LATEST, _LATEST
    while True:
        here.anchored = here.is_whole or (here.total is not None and here.is_ordered("DESC"))
        yield _up_to(here, newest)
        here.rows = []
        oldest = min([oldest, *here.times])
        if here.is_last or not here.anchored or oldest < floor:
            return
        seen |= here.dated
        there = _next(of, "DESC", here, {row for row in seen if row[1] > oldest}, left)
        if there is None or _repeats(here, there):
            yield Window(here.end, [], [], here.total, here.list_total)
            return
        here = there


def _up_to(window: Window, newest: datetime) -> Window:
    """Return the window without the rows that are newer than `newest`."""
    kept = [
        (row, version)
        for row, version in zip(window.rows, window.versions, strict=True)
        if version[1] is None or version[1] <= newest
    ]
    return replace(window, rows=[row for row, _ in kept], versions=[version for _, version in kept])

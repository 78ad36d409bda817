"""Alibaba Cloud CCC: the contact flows of each instance.

The list is paged by offset, and rows move while it is read: an edited flow jumps to one end, a
deleted one pulls the rest a place forward, and the row that crosses a page border is missed. So
the list is asked for in the order of `updatedTime`, and each window overlaps the one before it by
a row that proves that nothing slipped between the two: oldest first where the whole list is
wanted (`_anchored`), newest first where only changes are (`_changed`).

What the proofs take for granted: an answer shows the list, and counts it, at one instant; an id is
never used again; a change moves a row to a later time, never to an earlier one or to none, and
shows up at most `_LAG` after the time that it bears; the provider's clock is not set back. Rows of
one time may come in any order.

There is no look-up of one flow: GetContactFlow needs the DraftId, which a published flow does not
have (Alibaba Cloud's docs, "GetContactFlow").
"""

import itertools
import re
from collections.abc import Callable, Generator, Iterator, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

from etl.errors import (
    ContractError,
    CredentialsError,
    MissingError,
    TooLargeError,
    UnreachableRowsError,
)
from etl.extract.decode import Packed, moment, unpack
from etl.extract.http import Answer, Http, Judge, busy, instant, judge_status
from etl.extract.page import WHOLE, Ask, Page
from etl.extract.paging import MAX_EMPTY_PAGES, count

CONTACT_FLOWS = "ListContactFlows"
"""The action that lists them, as the signature names it."""
_TYPES = ("MAIN_FLOW", "SUB_FLOW", "SURVEY_FLOW")
_LARGEST = 100  # PageNumber and PageSize are 1 to 100 (Alibaba Cloud's docs, "ListContactFlows")
_SMALLEST = 2  # of one row no window could show again what the one before it showed
_LAG = timedelta(seconds=600)
"""A row shows up in the list at most this long after the `UpdatedTime` that it bears."""
_SKEW = timedelta(minutes=15)  # Alibaba refuses requests whose date is further off
_WEST = timedelta(hours=12) + _SKEW
"""No clock that a request of ours got through to is further behind UTC by ours."""

_REFUSED = ("Signature", "IncompleteSignature", "InvalidAccessKeyId", "InvalidSecurityToken")
_FORBIDDEN = ("Forbidden", "NoPermission", "NotAuthorized", "Unauthorized", "AccessDenied")
_BUSY = ("Throttling", "FlowControl", "TooManyRequests", "RequestThrottled", "LimitExceeded.QPS",
         "SystemBusy", "ServiceUnavailable", "InternalError", "InternalService")  # fmt: skip

_EARLIEST, _LATEST = datetime.min, datetime.max  # noqa: DTZ901 - Alibaba's times bear no zone

_Order = Literal["ASC", "DESC"]
_Version = tuple[str, datetime]
"""A flow's id and when it was updated."""


def contact_flows(http: Http, ask: Ask = WHOLE) -> Iterator[Page]:
    """Yield the contact flows of every instance: `ask.scopes` and `Page.scope` are instance ids.

    An instance in `ask.since` is read newest first, down to the first row older than its watermark
    (less an overlap), the others whole. Pages overlap: the same flow may come several times, its
    last record is the newest one. `Page.total` is TotalCount, of the instance and not of a part.

    All pages of a scope are `anchored` exactly when it is shown that no row slipped through:
    - read whole: every flow that the list had all along was returned; in the version of the last
      answer, and new flows too, but for what changed during the very last requests of a list of
      more than 10,000 flows (`_by_type`). Without the proof the reading goes on all the same.
    - read for changes: every version at or after the watermark that the first answer's list had
      was returned, unless it was changed again or deleted before its page was read; a change made
      then bears a time that the next run looks at. No row is newer than the newest of the first
      page, so the newest time that was returned is a sound next watermark. A scope whose proof
      fails ends there, with a page that is not anchored: it has to be read whole.

    `ask.size` is the rows of a full page, 2 to 100, fewer where so many do not fit into an answer;
    the API reaches 100 pages far. Raises, after all that can be read of every instance,
    UnreachableRowsError when flows of one are out of reach, MissingError when one does not exist.
    """
    errors: list[MissingError | UnreachableRowsError] = []
    zone = ask.zone or UTC
    for instance in ask.scopes:
        since = ask.since.get(instance)
        floor = None if since is None else _floor(since, ask.read_at, zone)
        numbers = itertools.count(1)
        try:
            for window in _small_enough(_List(http, instance, zone, ask.size or _LARGEST), floor):
                yield Page(
                    window.rows,
                    next(numbers),
                    instance,
                    window.told,
                    window.anchored,
                    zone=zone,
                )
                window.rows = []  # they may be large, and the next ones are on their way
        except (MissingError, UnreachableRowsError) as error:  # the others can still be read
            errors.append(error)
    if errors:
        errors[0].what = "; ".join(each.what for each in errors)
        raise errors[0]


def probe_contact_flows(http: Http, ask: Ask) -> str:
    """Ask each instance for one flow: a line with the counts. Raises what a scan would raise."""
    counts = []
    for instance in ask.scopes:
        window = _read(_List(http, instance, ask.zone or UTC, 1), "ASC", 1, 1)
        total = "an unknown number of" if window.total is None else window.total
        counts.append(f"{instance}: {total} contact flows")
    return "; ".join(counts)


# --- windows -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _List:
    """A list that can be asked for: the flows of an instance, or those of one `kind` (Type).

    `zone` is that of times without one, `size` the rows of a full page. Of a part, `told` is the
    length of the instance's whole list when that was last told.
    """

    http: Http
    instance: str
    zone: tzinfo
    size: int
    kind: str = ""
    told: int | None = None

    @property
    def reach(self) -> int:
        return _LARGEST * self.size

    def requests(self, total: int | None) -> Iterator[int]:
        """One item per request that a walk may make; more than a busy list ever needs."""
        return iter(range(20 + 3 * min(total or 0, self.reach) // self.size))


@dataclass(slots=True)
class _Window:
    """Rows `start`, `start` + 1, … of the list, as one answer held them.

    `flows[i]` is the id of row i ("" where it has none), and when it was updated, in the provider's
    own clock, which bears no zone; None where the row does not say. `total` is the length of the
    list that was asked for, `told` that of the instance's whole list; None when not told.
    """

    start: int
    rows: list[Any]
    flows: list[tuple[str, datetime | None]]
    total: int | None
    told: int | None
    anchored: bool = False

    @property
    def end(self) -> int:
        return self.start + len(self.flows)

    @property
    def last(self) -> bool:
        """Whether the list ends with it."""
        return self.total is not None and self.end >= self.total

    @property
    def times(self) -> list[datetime | None]:
        return [time for _, time in self.flows]

    def known(self) -> list[datetime]:
        return [time for time in self.times if time]

    def ordered(self, order: _Order) -> bool:
        known = self.known()
        return all(
            a <= b for a, b in itertools.pairwise(known if order == "ASC" else reversed(known))
        )

    def newest(self) -> datetime | None:
        return max(self.known(), default=None)

    def ids(self) -> set[str]:
        return {flow for flow, _ in self.flows if flow}

    def versions(self) -> set[_Version]:
        return {(flow, time) for flow, time in self.flows if flow and time}


def _unlisted(moment: datetime) -> datetime:
    """What is not in the list at `moment` will bear a later time than this, whatever the zone."""
    return moment.astimezone(UTC).replace(tzinfo=None) - _WEST - _LAG


def _small_enough(flows: _List, floor: datetime | None) -> Iterator[_Window]:
    """Walk down to `floor`, or through the whole list; start again with smaller pages at need.

    A hundred large Definitions can be more than one answer may have. What was read before the walk
    starts again is true, and what it proves stands on the last walk alone.
    """
    while True:
        try:
            yield from _whole(flows) if floor is None else _changed(flows, floor)
            return
        except TooLargeError:
            if flows.size <= _SMALLEST:
                raise
            flows = replace(flows, size=max(_SMALLEST, flows.size // 4))


# --- the whole list ------------------------------------------------------------------------------
def _whole(flows: _List) -> Iterator[_Window]:
    """Windows that cover an instance's whole list.

    Raises UnreachableRowsError after the last window when they are not the whole list.
    """
    first = _read(flows, "ASC", 1, flows.size)
    total = first.total
    if total is None or total <= flows.reach:
        total = yield from _ascending(flows, first)
    if total is None or total > flows.reach:
        yield from _by_type(flows, total)


def _ascending(flows: _List, first: _Window) -> Generator[_Window, None, int | None]:
    """The list from its first window on as far as it can be paged, proven as far as it can be.

    Returns the rows in the list; None when that is not told and there may be more.
    """
    here = yield from _anchored(flows, first)
    if here.last:
        return here.total
    page = min(here.end // flows.size + 1, _LARGEST)
    return (yield from _plain(flows, "ASC", page, _LARGEST))


def _settled(time: datetime | None, newest: datetime | None, old: datetime) -> bool:
    """Whether `time` is so old that no row can still appear at it or before it.

    What appears later bears a time later than now minus the lag, and now is not before `newest`,
    the newest time in the window, nor before `old` plus the lag. Rows of one time may come in any
    order, and a page may end among them, so `newest` itself is not settled.
    """
    if time is None or newest is None:
        return False
    return newest - time > _LAG or (time < newest and time < old)


def _anchored(flows: _List, here: _Window) -> Generator[_Window, None, _Window]:
    """Walk from the oldest row to the newest in windows that overlap. Returns the last of them.

    A window follows the one before it only if it shows again a row that was read before, in the
    same version, and older than any row that can still appear (an anchor). An answer is one
    contiguous piece of the list, so it then holds every row from the anchor to its own last row;
    and what is older than the anchor, or as old, stood before the last row of the window before
    and was read. So after each window all rows that stand before its end have been read as they
    are, and with the window at which the list ends that is all rows. A row without a time anchors
    nothing, and is not taken for one that changed.

    The walk ends early where no anchor can be had: about a page of rows updated at one time or in
    the last minutes, an order that is not kept, no count, an anchor that no page reaches back to.
    """
    old = _unlisted(flows.http.now())
    left = flows.requests(here.total)
    seen: set[_Version] = set()
    while True:
        # What one answer holds as a whole needs no order.
        here.anchored = here.ordered("ASC") or (here.start == 0 and here.last)
        yield here
        newest = here.newest()
        anchors = [i for i, time in enumerate(here.times) if _settled(time, newest, old)]
        if here.last or here.total is None or not here.anchored or not anchors:
            return here
        seen |= here.versions()
        proof = {version for version in seen if _settled(version[1], newest, old)}
        there = _next(flows, "ASC", here.start + anchors[-1], here.end, proof, left)
        if there is None:
            return here
        _make_sure_of_progress(flows, here, there)
        here = there


def _repeats(before: _Window, after: _Window) -> bool:
    """Whether a later window holds the very rows that the one before begins with."""
    same = len(after.flows) > 1 and after.flows == before.flows[: len(after.flows)]
    return same and after.start > before.start


def _make_sure_of_progress(flows: _List, before: _Window, after: _Window) -> None:
    if _repeats(before, after):
        raise ContractError(
            f"rows {before.start} and {after.start} of the list are the same, so PageNumber is"
            " ignored",
            where=f"{flows.http.where}, instance {flows.instance}",
            advice="nothing is deleted; run again, and tell Alibaba Cloud if it stays",
        )


def _next(
    flows: _List, order: _Order, want: int, end: int, proof: Set[_Version], left: Iterator[int]
) -> _Window | None:
    """A window from row `want` or before to beyond row `end` that shows a version of `proof`.

    While it shows none, rows before it are gone or have moved: it is stepped back half a page at a
    time. The first rows of an ascending list need no proof. None when there is no such window.
    """
    for _ in left:
        place = _overlap(want, end, flows.size)
        if place is None:
            return None
        window = _read(flows, order, *place)
        first = window.start == 0
        if window.versions() & proof or (first and order == "ASC"):
            return window
        if first:
            return None
        want = end = max(0, want - flows.size // 2)
    return None


def _overlap(start: int, end: int, largest: int) -> tuple[int, int] | None:
    """The (PageNumber, PageSize) that begins at or before row `start` and reaches furthest.

    It must reach beyond row `end`. Offsets are multiples of the page size, so the size varies:
    page 52 of 98 rows starts at row 4,998. None when there is no such page.
    """
    best = None
    for size in range(1, largest + 1):
        page = start // size + 1
        if page <= _LARGEST and page * size > end and (best is None or page * size > best[0]):
            best = (page * size, page, size)
    return best and best[1:]


def _plain(
    flows: _List, order: _Order, page: int, last: int
) -> Generator[_Window, None, int | None]:
    """Read pages `page` to `last`, or to the end of the list, unproven.

    Returns the rows in the list; None when that is not told and there may be more.
    """
    empty, before = 0, None
    for number in range(page, last + 1):
        window = _read(flows, order, number, flows.size)
        yield window
        if before is not None:
            _make_sure_of_progress(flows, before, window)
        before = window
        if window.total is None and len(window.flows) < flows.size:
            return window.end  # without a count the last page is the one that is not full
        if window.total is not None and number * flows.size >= window.total:
            break
        empty = 0 if window.flows else empty + 1
        if empty > MAX_EMPTY_PAGES:
            raise ContractError(
                f"TotalCount is {window.total}, but {empty} pages in a row are empty",
                where=f"{flows.http.where}, instance {flows.instance}, page {number}",
                advice="nothing is deleted; run again, and tell Alibaba Cloud if it stays",
            )
    return window.total


# --- more than can be paged ----------------------------------------------------------------------
def _by_type(flows: _List, told: int | None) -> Iterator[_Window]:
    """A list that is too long to be paged: the flows of each Type, then what changed meanwhile.

    The walk through a Type shows all its flows as they are when it ends. What appears later bears
    a time later than the end of the first walk less the lag, and a walk through the whole list,
    newest first, down to that time adds it; its first answer has the count to compare with. A Type
    that is itself too long is read from both ends, unproven.

    A flow keeps its Type: that is inferred, no document says so. Where a Type is edited, the flow
    is still found among the changes; were it changed without a new time, the flow might be missed,
    and the count would exceed the flows returned.

    Raises UnreachableRowsError after the last window when there are flows that no way reaches.
    """
    began = flows.http.now()
    newest: datetime | None = None
    floor: datetime | None = None
    ids: set[str] = set()
    listed, too_long = 0, False
    for kind in _TYPES:
        for window in _both_ways(replace(flows, kind=kind, told=told)):
            yield window
            ids |= window.ids()
            newest = max(filter(None, (newest, window.newest())), default=None)
        if floor is None:
            seen = newest and newest.replace(tzinfo=flows.zone)
            floor = _floor(seen, began, flows.zone) if seen else _unlisted(began)
        total = window.end if window.total is None else window.total
        listed += total
        too_long |= total > 2 * flows.reach or (window.total is None and total >= flows.reach)
    told = None
    for number, window in enumerate(_changed(flows, floor or _unlisted(began))):
        told = told if number else window.told
        yield window
        listed += len(window.ids() - ids)
        ids |= window.ids()
    if told is not None and told > listed:  # flows of no known Type; some can be read all the same
        for window in _both_ways(flows):
            yield replace(window, anchored=False)
            window.rows = []
            ids |= window.ids()
        too_long |= told > len(ids)
    if too_long:
        rows = f"over {flows.reach}" if told is None else told
        raise UnreachableRowsError(
            f"{flows.instance} has {rows} contact flows, of which {len(ids)} could be read",
            where=flows.http.where,
            advice=f"the API pages no further than {flows.reach} rows from either end of a list or"
            " of a Type, so none is taken for deleted; remove flows that are no longer used",
        )


def _both_ways(flows: _List) -> Iterator[_Window]:
    """The list from its oldest row on, and from its newest one where it is too long for that."""
    total = yield from _ascending(flows, _read(flows, "ASC", 1, flows.size))
    if total is None or total > flows.reach:
        pages = _LARGEST if total is None else -(-(total - flows.reach) // flows.size)
        yield from _plain(flows, "DESC", 1, min(pages, _LARGEST))


# --- changes only --------------------------------------------------------------------------------
def _floor(since: datetime, read_at: datetime | None, zone: tzinfo) -> datetime:
    """The oldest time that a change can bear which a scan did not see, in the provider's clock.

    `since` is the newest time that the scan saw, `read_at` when it began, by our clock. What it did
    not see bears a later time than `since` less the lag, for that was there to be seen; and a later
    time than `_unlisted(read_at)`. So where `since` lies before the latter, a change is later than
    `since` itself. Where `since` lies in the future, its row or the time zone is wrong: then only
    our clock bounds it.
    """
    surely = _unlisted(read_at) if read_at else _EARLIEST
    if read_at and since > read_at + _SKEW:
        return surely
    day = timedelta(days=1)  # when clocks went forward in it, `since` may be one of two local times
    try:
        newest = min(
            since.astimezone(zone).replace(tzinfo=None),
            (since - day).astimezone(zone).replace(tzinfo=None) + day,
        )
        return newest if newest < surely else newest - _LAG
    except OverflowError:  # a time at the end of all times
        return surely


def _changed(flows: _List, floor: datetime) -> Iterator[_Window]:
    """Walk from the newest row down to the first one older than `floor`, in overlapping windows.

    A window follows what was read only if it shows again a row that was read, in the same version
    and newer than the last row read (an anchor). Strictly newer, as a page may end among rows of
    one time. An answer is one contiguous piece of the list, so it then holds every row from the
    anchor down to its own last row; and what is newer than the anchor, or as new, was read before.
    So after each window every row of the first answer's list that is newer than the last row read
    has been returned, but for those that were changed or deleted since. A change bears a time later
    than the newest row of the first answer less the lag, and the next run's floor lies below that.

    Rows that are newer than all of the first answer are left to the next run. With them, the newest
    time returned would be later than the first answer, and a row that another change put on top
    meanwhile, unread, might be older than the next floor.

    Ends with a window that is not anchored, an empty one at need, where no anchor can be had, the
    order is not kept or there is no count: what is older must be taken for unread.
    """
    here = _read(flows, "DESC", 1, flows.size)
    left = flows.requests(here.total)
    seen: set[_Version] = set()
    first, last = here.newest() or _LATEST, _LATEST
    while True:
        # What one answer holds as a whole needs no order.
        whole = here.start == 0 and here.last
        here.anchored = whole or (here.total is not None and here.ordered("DESC"))
        yield _until(here, first)
        here.rows = []
        last = min([last, *here.known()])
        if here.last or not here.anchored or last < floor:
            return
        seen |= here.versions()
        proof = {version for version in seen if version[1] > last}
        anchors = [i for i, time in enumerate(here.times) if time and time > last]
        there = None
        if anchors:
            there = _next(flows, "DESC", here.start + anchors[-1], here.end, proof, left)
        if there is None or _repeats(here, there):
            yield _Window(here.end, [], [], here.total, here.told)
            return
        here = there


def _until(window: _Window, newest: datetime) -> _Window:
    """The rows of `window` that are not newer than `newest`."""
    old = [
        (row, flow)
        for row, flow in zip(window.rows, window.flows, strict=True)
        if flow[1] is None or flow[1] <= newest
    ]
    return replace(window, rows=[row for row, _ in old], flows=[flow for _, flow in old])


# --- requests ------------------------------------------------------------------------------------
def _read(flows: _List, order: _Order, page: int, size: int) -> _Window:
    params = {
        "InstanceId": flows.instance,
        "PageNumber": str(page),
        "PageSize": str(size),
        "OrderByField": "updatedTime",
        "SortOrder": order,
    }
    if flows.kind:
        params["Type"] = flows.kind
    part = f", Type {flows.kind}" if flows.kind else ""
    at = f"instance {flows.instance}{part}, page {page} of {size} rows"
    data = flows.http.call("POST", "/", params, at=at, records=("Data", "List")).get("Data")
    where = f"{flows.http.where}, {at}"
    if not isinstance(data, dict):
        raise ContractError("the answer holds no object `Data`", where=where)
    for name, asked in (("PageNumber", page), ("PageSize", size)):
        told = count(data.get(name))
        # The first page starts at 0 whatever its size: the documents' own example tells 10 for it.
        first = name == "PageSize" and page == 1 and told is not None and told <= _LARGEST
        if told is not None and told != asked and not first:
            raise ContractError(
                f"{name} {asked} was asked for, {str(told)[:20]} was answered",
                where=where,
                advice="nothing is deleted; tell the maintainers that the API pages otherwise",
            )
    total = count(data.get("TotalCount"))
    rows = data.get("List")
    if rows is None and total == 0:
        rows = []
    if not isinstance(rows, list) or len(rows) > size:
        raise ContractError(f"`List` is not a list of at most {size} rows", where=where)
    start = (page - 1) * size
    if total is not None and rows and total < start + len(rows):
        total = None  # it counts something else
    found = [_flow(row, flows.zone) for row in rows]
    return _Window(start, rows, found, total, flows.told if flows.kind else total)


def _flow(row: Any, zone: tzinfo) -> tuple[str, datetime | None]:
    """The id of a row ("": it is no flow), and when it was updated."""
    try:
        row = unpack(row) if isinstance(row, Packed) else row
    except ValueError:
        return "", None
    if not isinstance(row, dict):
        return "", None
    flow = row.get("ContactFlowId")
    return flow if isinstance(flow, str) else "", _time(row.get("UpdatedTime"), zone)


def _time(text: Any, zone: tzinfo) -> datetime | None:
    """`2021-03-08 15:34:49.0` in the provider's own clock; a time that does bear a zone in `zone`.

    The years 1 and 9999 stand for "never".
    """
    when = moment(text)
    try:
        local = when.astimezone(zone).replace(tzinfo=None) if when and when.tzinfo else when
    except OverflowError:
        return None
    return local if local and 1 < local.year < 9999 else None


# --- errors --------------------------------------------------------------------------------------
def judge(now: Callable[[], datetime]) -> Judge:
    """Return what tells CCC's good answers from its errors; `now` is this machine's clock."""

    def verdict(answer: Answer) -> None:
        """Success is HTTP 2xx and `Code` "OK"; everything else goes by the start of `Code`.

        Codes come with changing statuses: throttling is HTTP 400 or 429, a failed call may be 200.
        """
        body = answer.body if isinstance(answer.body, dict) else {}
        code = body.get("Code")
        if answer.status < 300 and code == "OK":
            return
        if not isinstance(code, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,80}", code):
            judge_status(answer)
            raise ContractError(f"HTTP {answer.status}, but Code is not OK: {answer.said}")
        _refuse(answer, code, now)
        code = answer.redact.name(code)
        status = count(body.get("HttpStatusCode")) or 0
        if answer.status < 300 and status >= 500:
            raise busy(answer)
        if answer.status < 500 and answer.status not in (408, 429):
            raise ContractError(f"{code}: {answer.said}", advice="check the source's settings")
        judge_status(answer)

    return verdict


def _refuse(answer: Answer, code: str, now: Callable[[], datetime]) -> None:
    """Raise what Alibaba's own codes say; the status says the rest."""
    code = answer.redact.name(code)
    if code.startswith(_BUSY):
        raise busy(answer)
    if code.startswith("InvalidTimeStamp"):
        raise _wrong_clock(answer, code, now())
    if code.startswith(_REFUSED):
        # Its message may quote the whole request, so only the code is told.
        raise CredentialsError(
            f"Alibaba Cloud refuses the credentials: {code}",
            advice="check access_key_id and access_key_secret, and security_token when the key is"
            " a temporary one",
        )
    if answer.slow_down:
        raise busy(answer)
    if code.startswith(_FORBIDDEN) or answer.status in (401, 403):
        raise CredentialsError(
            f"Alibaba Cloud does not permit it: {code}: {answer.said}",
            advice="give the RAM user the right to read the CCC instance (AliyunCCCReadOnlyAccess)",
        )
    if code.startswith("NotExists.InstanceId"):
        raise MissingError(
            f"Alibaba Cloud does not have the instance {answer.params.get('InstanceId')}",
            advice="check instance_ids and the region in base_url",
        )


def _wrong_clock(answer: Answer, code: str, now: datetime) -> CredentialsError:
    server = instant(answer.headers.get("date", ""))
    told = ""
    if server is not None:
        minutes = round((now - server).total_seconds() / 60)
        side = "ahead of" if minutes > 0 else "behind"
        told = f"; this machine's clock is {abs(minutes)} min {side} its"
    return CredentialsError(
        f"Alibaba Cloud refuses the time of the request: {code}{told}",
        advice="set this machine's clock (NTP); it may be at most 15 minutes off",
    )

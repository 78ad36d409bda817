"""Alibaba Cloud CCC: the contact flows of each instance.

The list is paged by offset, and rows move while it is read: an edited flow jumps to the end, a
deleted one pulls the rest a place forward, and the row that crosses a page border is missed. So
the list is asked for in the order of `updatedTime`, and each window overlaps the one before it by
a row that proves that nothing slipped between the two (`_anchored`).

There is no look-up of one flow: GetContactFlow needs the DraftId, which a published flow does not
have (Alibaba Cloud's docs, "GetContactFlow").
"""

import itertools
import re
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from etl.errors import ContractError, CredentialsError, UnreachableRowsError
from etl.extract.alibaba_auth import AlibabaSigner
from etl.extract.paging import MAX_EMPTY_PAGES, count
from etl.http import Answer, Http, Judge, MissingError, busy, instant, judge_status, utc_now
from etl.model import Page
from etl.settings import AlibabaSource

_ACTION = "ListContactFlows"
_LARGEST = 100  # PageNumber and PageSize are 1 to 100 (Alibaba Cloud's docs, "ListContactFlows")
_REACHABLE = _LARGEST * _LARGEST
_LAG = timedelta(seconds=600)
"""A row shows up in the list at most this long after the `UpdatedTime` that it bears."""
_WEST = timedelta(hours=12, minutes=15)
"""No time zone is further behind UTC; and Alibaba refuses clocks that are 15 minutes off."""

_REFUSED = ("Signature", "IncompleteSignature", "InvalidAccessKeyId", "InvalidSecurityToken")
_FORBIDDEN = ("Forbidden", "NoPermission", "NotAuthorized", "Unauthorized", "AccessDenied")
_BUSY = ("Throttling", "ServiceUnavailable", "InternalError", "InternalService")


def connect(
    settings: AlibabaSource,
    stream: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = utc_now,
) -> Http:
    """A connection to CCC for one run of `stream`; the caller closes it. Sends nothing yet.

    `now` is the clock that the signature's date comes from; it must be right to 15 minutes.
    """
    token = settings.security_token
    sign = AlibabaSigner(
        settings.access_key_id,
        settings.access_key_secret.get_secret_value(),
        token.get_secret_value() if token else None,
        _ACTION,
        now=now,
    )
    return Http(
        settings.base_url,
        sign=sign,
        judge=_judge(now),
        where=f"{settings.name}.{stream}",
        timeout=settings.timeout,
        requests_per_second=settings.requests_per_second,
        clock=clock,
        sleep=sleep,
        now=now,
    )


def contact_flows(http: Http, settings: AlibabaSource) -> Iterator[Page]:
    """Every page of every instance's contact flows; `Page.scope` is the instance id.

    Pages overlap: the same flow may come several times, its last record is the newest one.
    `Page.total` is TotalCount. `Page.anchored` is False from the first page on of which it could
    not be shown that nothing slipped before it. Raises, after all that can be read of every
    instance, UnreachableRowsError when one has more than 10,000 flows, MissingError when one does
    not exist.
    """
    errors: list[MissingError | UnreachableRowsError] = []
    for instance in settings.instance_ids:
        try:
            for number, window in enumerate(_windows(http, instance), 1):
                yield Page(window.rows, number, instance, window.total, window.anchored)
        except (MissingError, UnreachableRowsError) as error:  # the others can still be read
            errors.append(error)
    if errors:
        errors[0].what = "; ".join(each.what for each in errors)
        raise errors[0]


def probe_contact_flows(http: Http, settings: AlibabaSource) -> str:
    """Ask each instance for one flow: a line with the counts. Raises what a scan would raise."""
    counts = []
    for instance in settings.instance_ids:
        window = _read(http, instance, "ASC", 1, 1)
        total = "an unknown number of" if window.total is None else window.total
        counts.append(f"{instance}: {total} contact flows")
    return "; ".join(counts)


# --- windows -------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Window:
    """Rows `start`, `start` + 1, … of the list, as one answer held them.

    `times[i]` is when row i was updated, in the provider's own clock, which bears no zone; None
    where the row does not say. `total` is the length of the whole list, None when not told.
    """

    start: int
    rows: list[Any]
    times: list[datetime | None]
    total: int | None
    anchored: bool = True

    @property
    def end(self) -> int:
        return self.start + len(self.rows)

    def ordered(self) -> bool:
        known = [time for time in self.times if time]
        return all(a <= b for a, b in itertools.pairwise(known))

    def last(self) -> datetime | None:
        return max((time for time in self.times if time), default=None)

    def versions(self) -> list[tuple[str, datetime]]:
        return [
            (str(row.get("ContactFlowId")), time)
            for row, time in zip(self.rows, self.times, strict=True)
            if isinstance(row, dict) and time
        ]


def _windows(http: Http, instance: str) -> Iterator[_Window]:
    """Windows that cover an instance's whole list.

    Raises UnreachableRowsError after the last window when they are not the whole list.
    """
    passed = yield from _anchored(http, instance)
    if passed is None:
        return
    first = min(passed // _LARGEST + 1, _LARGEST)
    total = yield from _plain(http, instance, "ASC", first, _LARGEST)
    if total > _REACHABLE:
        pages = -(-(total - _REACHABLE) // _LARGEST)
        # The newest rows are out of reach from this end: read them from the other one.
        yield from _plain(http, instance, "DESC", 1, min(pages, _LARGEST))
        raise UnreachableRowsError(
            f"{instance} has {total} contact flows, over {_REACHABLE}",
            where=http.where,
            advice="the API pages no further from either end, so some flows cannot be read and"
            " none is taken for deleted; remove flows that are no longer used",
        )


def _settled(time: datetime | None, last: datetime | None, old: datetime) -> bool:
    """Whether `time` is so old that no row can still appear at it or before it.

    What appears later bears a time later than now minus the lag, and now is not before `last`, the
    newest time in the window, nor before `old` plus the lag. Rows of one time may come in any
    order, so `last` itself is not settled.
    """
    if time is None or last is None:
        return False
    return last - time > _LAG or (time < last and time < old)


def _anchored(http: Http, instance: str) -> Generator[_Window, None, int | None]:
    """Walk from the oldest row to the newest in windows that overlap.

    A window follows the one before it only if it shows again a row that was read before, in the
    same version, and older than any row that can still appear (an anchor). An answer is one
    contiguous piece of the list, so it then holds every row from the anchor to its own last row;
    and what is older than the anchor was read before. A window without an anchor is stepped back
    half a page at a time.

    Returns None at the end of the list; or, where no anchor can be had (more than a page of rows
    updated at one time, an order that is not kept, no count), how many rows have been passed.
    """
    old = http.now().astimezone(UTC).replace(tzinfo=None) - _WEST - _LAG
    here = _read(http, instance, "ASC", 1, _LARGEST)
    left = 20 + 3 * (here.total or 0) // _LARGEST  # requests; more than a busy list ever needs
    seen: set[tuple[str, datetime]] = set()
    yield here
    while True:
        if here.total is not None and here.rows and here.end >= here.total:
            return None
        if here.total == 0:
            return None
        last = here.last()
        anchors = [i for i, time in enumerate(here.times) if _settled(time, last, old)]
        if here.total is None or not here.ordered() or not anchors:
            return here.end
        seen.update(here.versions())
        want, beyond = here.start + anchors[-1], here.end
        while True:
            place = _overlap(want, beyond)
            left -= 1
            if place is None or left < 0:
                return here.end
            there = _read(http, instance, "ASC", *place)
            there.anchored = there.ordered()
            yield there
            shown = {version for version in there.versions() if _settled(version[1], last, old)}
            if there.start == 0 or seen & shown:
                break
            seen.update(there.versions())
            want = beyond = max(0, want - _LARGEST // 2)
        here = there


def _overlap(start: int, end: int) -> tuple[int, int] | None:
    """The (PageNumber, PageSize) that begins at or before row `start` and reaches furthest.

    It must reach beyond row `end`. Offsets are multiples of the page size, so the size varies:
    page 52 of 98 rows starts at row 4,998. None when there is no such page.
    """
    best = None
    for size in range(1, _LARGEST + 1):
        page = start // size + 1
        if page <= _LARGEST and page * size > end and (best is None or page * size > best[0]):
            best = (page * size, page, size)
    return best and best[1:]


def _plain(
    http: Http, instance: str, order: Literal["ASC", "DESC"], page: int, last: int
) -> Generator[_Window, None, int]:
    """Read pages `page` to `last`, or to the end of the list. Returns the rows in the list."""
    empty = 0
    total = 0
    for number in range(page, last + 1):
        window = _read(http, instance, order, number, _LARGEST)
        window.anchored = False
        yield window
        full = len(window.rows) == _LARGEST
        # Without a count the last page is the one that is not full; a full last one tells nothing.
        total = window.total if window.total is not None else window.end + full
        if number * _LARGEST >= total:
            break
        empty = 0 if window.rows else empty + 1
        if empty > MAX_EMPTY_PAGES:
            raise ContractError(
                f"TotalCount is {total}, but {empty} pages in a row are empty",
                where=f"{http.where}, instance {instance}, page {number}",
                advice="nothing is deleted; run again, and tell Alibaba Cloud if it stays",
            )
    return total


def _read(
    http: Http, instance: str, order: Literal["ASC", "DESC"], page: int, size: int
) -> _Window:
    params = {
        "InstanceId": instance,
        "PageNumber": str(page),
        "PageSize": str(size),
        "OrderByField": "updatedTime",
        "SortOrder": order,
    }
    at = f"instance {instance}, page {page} of {size} rows"
    data = http.call("POST", "/", params, at=at).get("Data")
    where = f"{http.where}, {at}"
    if not isinstance(data, dict):
        raise ContractError("the answer holds no object `Data`", where=where)
    for name, asked in (("PageNumber", page), ("PageSize", size)):
        told = count(data.get(name))
        # The first page starts at 0 whatever its size: the documents' own example tells 10 for it.
        shorter = name == "PageSize" and page == 1 and told is not None and told < asked
        if told is not None and told != asked and not shorter:
            raise ContractError(
                f"{name} {asked} was asked for, {told} was answered",
                where=where,
                advice="nothing is deleted; tell the maintainers that the API pages otherwise",
            )
    total = count(data.get("TotalCount"))
    rows = data.get("List")
    if rows is None and total == 0:
        rows = []
    if not isinstance(rows, list) or len(rows) > size:
        raise ContractError(f"`List` is not a list of at most {size} rows", where=where)
    if total is not None and total < len(rows):
        total = None  # it counts something else
    times = [_time(row.get("UpdatedTime") if isinstance(row, dict) else None) for row in rows]
    return _Window((page - 1) * size, rows, times, total)


def _time(text: Any) -> datetime | None:
    """`2021-03-08 15:34:49.0` in the provider's own clock; a time that does bear a zone in UTC."""
    try:
        when = datetime.fromisoformat(text)
        return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when
    except (TypeError, ValueError, OverflowError):
        return None


# --- errors --------------------------------------------------------------------------------------
def _judge(now: Callable[[], datetime]) -> Judge:
    def judge(answer: Answer) -> None:
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
        status = count(body.get("HttpStatusCode")) or 0
        if answer.status < 300 and status >= 500:
            raise busy(answer)
        if answer.status < 500 and answer.status not in (408, 429):
            raise ContractError(f"{code}: {answer.said}", advice="check the source's settings")
        judge_status(answer)

    return judge


def _refuse(answer: Answer, code: str, now: Callable[[], datetime]) -> None:
    """Raise what Alibaba's own codes say; the status says the rest."""
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

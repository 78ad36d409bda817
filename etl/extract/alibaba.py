"""Alibaba Cloud CCC: what its lists share, and the contact flows of each instance.

ListContactFlows is paged by offset: `offset_windows` reads it so that no flow slips through. This
file knows how an action is called and what its answers and errors mean.

There is no look-up of one flow: GetContactFlow needs the DraftId, which a published flow does not
have (Alibaba Cloud's docs, "GetContactFlow").
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from etl.errors import (
    ContractError,
    CredentialsError,
    ForbiddenError,
    MissingError,
    TooLargeError,
    UnreachableRowsError,
)
from etl.extract.answer import Answer, duration, instant
from etl.extract.decode import ReadList, RecordsAt, unpacked
from etl.extract.offset_list import Clock, OffsetList, OffsetPage, Order, check_echo
from etl.extract.offset_windows import windows
from etl.extract.page import EVERYTHING, Page, Params, ScanRequest
from etl.extract.paging import count, exactly
from etl.extract.verdict import IF_IT_STAYS, Judge, busy, judge_status

if TYPE_CHECKING:
    from etl.extract.http import Http

CONTACT_FLOWS = "ListContactFlows"
"""The action that lists them, as the signature names it."""
_TYPES = ("MAIN_FLOW", "SUB_FLOW", "SURVEY_FLOW")
LARGEST = 100
"""PageNumber and PageSize are 1 to 100 (Alibaba Cloud's docs, "ListContactFlows")."""
_LAG = timedelta(seconds=600)
_SKEW = timedelta(minutes=15)  # Alibaba rejects requests whose date is further off
_BEHIND = timedelta(hours=12) + _SKEW  # no time zone is further west

_REFUSED = ("Signature", "IncompleteSignature", "InvalidAccessKeyId", "InvalidSecurityToken")
_FORBIDDEN = ("Forbidden", "NoPermission", "NotAuthorized", "Unauthorized", "AccessDenied")
_BUSY = ("Throttling", "FlowControl", "TooManyRequests", "RequestThrottled", "LimitExceeded.QPS",
         "SystemBusy", "ServiceUnavailable", "InternalError", "InternalService",
         "SignatureNonceUsed")  # fmt: skip


def contact_flows(http: "Http", ask: ScanRequest = EVERYTHING) -> Iterator[Page]:
    """Yield the contact flows of every instance: `ask.scopes` and `Page.scope` are instance ids.

    An instance in `ask.since` is read newest first, down to the first flow older than its watermark
    (less an overlap), the others in full; `offset_windows.windows` says what `Page.anchored`
    proves. Pages overlap: a flow may come several times, and its last record is the newest one.
    `Page.total` is TotalCount of the whole instance.

    `ask.size` is the rows on a full page, 2 to 100; pages are made smaller if so many do not fit
    into an answer. The API reaches 100 pages far. After everything that can be read of every
    instance, raise UnreachableRowsError if flows of one are out of reach, MissingError if one does
    not exist.
    """

    def flows_of(instance: str) -> Iterator[Page]:
        flows = _list(http, ask, instance)
        numbers = itertools.count(1)
        for window in windows(flows, ask.since.get(instance), ask.read_at):
            yield Page(window.rows, next(numbers), instance, window.list_total,
                       window.anchored, zone=flows.clock.zone)  # fmt: skip
            window.rows = []  # they may be large, and the next ones are on their way

    return of_each_instance(http, ask.scopes, flows_of)


def of_each_instance(
    http: "Http", instances: Iterable[str], read: Callable[[str], Iterator[Page]]
) -> Iterator[Page]:
    """Yield what `read` yields of each instance.

    After everything that can be read of every instance, raise UnreachableRowsError if rows of one
    are out of reach, MissingError if one does not exist.
    """
    errors: list[MissingError | UnreachableRowsError] = []
    for instance in instances:
        try:
            yield from read(instance)
        except (MissingError, UnreachableRowsError) as error:  # the others can still be read
            error.where = error.where or http.where
            errors.append(error)
    if errors:
        errors[0].what = "; ".join(each.what for each in errors)
        raise errors[0]


def probe_contact_flows(http: "Http", ask: ScanRequest) -> str:
    """Ask each instance for one flow; return a line of counts. Raise what a scan would raise."""
    return counts(
        {each: _list(http, ask, each).window("ASC", 1, 1).total for each in ask.scopes},
        "contact flows",
    )


def counts(totals: Mapping[str, int | None], noun: str) -> str:
    """Return a line of what each instance counts; None is a number that is not known."""
    return "; ".join(
        f"{instance}: {'an unknown number of' if total is None else total} {noun}"
        for instance, total in totals.items()
    )


# --- requests ------------------------------------------------------------------------------------
def _list(http: "Http", ask: ScanRequest, instance: str) -> OffsetList:
    clock = Clock(ask.zone or UTC, lag=_LAG, skew=_SKEW, behind=_BEHIND)
    return OffsetList(
        partial(_read, http, instance, clock, exactly(ask, clock.zone)),
        http.now,
        clock,
        where=f"{http.where}, instance {instance}",
        subject=instance,
        noun="contact flows",
        size=ask.size or LARGEST,
        last_page=LARGEST,
        parts=_TYPES,
        part_noun="Type",
    )


def _read(
    http: "Http",
    instance: str,
    clock: Clock,
    exact: ReadList | None,
    kind: str,
    order: Order,
    page: int,
    size: int,
) -> OffsetPage:
    ordered = {"OrderByField": "updatedTime", "SortOrder": order}
    kinds = {"Type": kind} if kind else {}
    at = f", Type {kind}" if kind else ""
    rows, total = read_page(http, instance, page, size, {**ordered, **kinds}, at, exact)
    return OffsetPage(rows, [_version(row, clock) for row in rows], total)


def read_page(
    http: "Http",
    instance: str,
    page: int,
    size: int,
    more: Params,
    at: str = "",
    exact: ReadList | None = None,
) -> tuple[list[Any], int | None]:
    """Return the rows of one page of an instance's list, and how many rows the list has.

    `more` are further parameters of the request, `at` names them in messages. `exact` reads the
    rows if they are as documented. Raise ContractError for an answer that is not that page,
    TooLargeError if pages are smaller than `size`: the next one would start at another row.
    """
    params = {"InstanceId": instance, "PageNumber": str(page), "PageSize": str(size), **more}
    at = f"instance {instance}{at}, page {page} of {size} rows"
    records = RecordsAt(("Data", "List"), exact)
    data = http.call("POST", "/", params, at=at, records=records).get("Data")
    where = f"{http.where}, {at}"
    if not isinstance(data, dict):
        raise ContractError("the answer holds no object `Data`", where=where, advice=IF_IT_STAYS)
    check_echo(data, ("PageNumber", "PageSize"), page, size, LARGEST, where)
    total, rows = count(data.get("TotalCount")), data.get("List")
    if rows is None and total == 0:
        rows = []
    if not isinstance(rows, list) or len(rows) > size:
        raise ContractError(
            f"`List` is not a list of at most {size} rows", where=where, advice=IF_IT_STAYS
        )
    if page == 1 and total is not None and 2 <= len(rows) < min(size, total):
        raise TooLargeError(
            f"{len(rows)} of {total} rows came where {size} were asked for",
            where=where,
            advice=IF_IT_STAYS,
        )
    return rows, total


def _version(row: Any, clock: Clock) -> tuple[str, datetime | None]:
    """Return the id of a row ("" if it is no flow), and the local time of its last change."""
    if isinstance(row, msgspec.Struct):
        return row.ContactFlowId, clock.local(row.UpdatedTime)  # type: ignore[attr-defined]
    row = unpacked(row)
    if not isinstance(row, dict):
        return "", None
    flow = row.get("ContactFlowId")
    return flow if isinstance(flow, str) else "", clock.local(row.get("UpdatedTime"))


# --- errors --------------------------------------------------------------------------------------
def judge(now: Callable[[], datetime]) -> Judge:
    """Return the judge of CCC's answers; `now` is this machine's clock."""

    def verdict(answer: Answer) -> None:
        """Pass HTTP 2xx with the `Code` "OK"; judge everything else by the start of `Code`.

        Codes come with various statuses: throttling is HTTP 400 or 429, a failed call may be 200.
        """
        body = answer.body if isinstance(answer.body, dict) else {}
        code = body.get("Code")
        answer = replace(answer, wait=_asked_wait(answer))
        if answer.status < 300 and code == "OK":
            return
        if not isinstance(code, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,80}", code):
            judge_status(answer)
            raise ContractError(
                f"HTTP {answer.status}, but Code is not OK: {answer.said}",
                advice="check that base_url is the API's address",
            )
        _refuse(answer, code, now)
        code = answer.redact.name(code)
        status = count(body.get("HttpStatusCode")) or 0
        if answer.status < 300 and status >= 500:
            raise busy(answer)
        if answer.status < 500 and answer.status not in (408, 429):
            raise ContractError(f"{code}: {answer.said}", advice="check the source's settings")
        judge_status(answer)

    return verdict


def _asked_wait(answer: Answer) -> float | None:
    """Return the seconds to wait: Alibaba asks in milliseconds, as its own SDK reads them."""
    milliseconds = duration(answer.headers.get("x-acs-retry-after", "").strip())
    return answer.wait if milliseconds is None else milliseconds / 1000


def _refuse(answer: Answer, code: str, now: Callable[[], datetime]) -> None:
    """Raise the error that an Alibaba code stands for; return if the status decides."""
    code = answer.redact.name(code)
    if code.startswith(_BUSY):
        raise busy(answer)
    if code.startswith("InvalidTimeStamp"):
        raise _wrong_clock(answer, code, now())
    if code.startswith(_REFUSED):
        # Its message may quote the whole request, so only the code is shown.
        raise CredentialsError(
            f"Alibaba Cloud refuses the credentials: {code}",
            advice="check access_key_id and access_key_secret, and security_token when the key is"
            " a temporary one",
        )
    if answer.slow_down:
        raise busy(answer)
    if code.startswith(_FORBIDDEN) or answer.status in (401, 403):
        refused = CredentialsError if answer.status == 401 else ForbiddenError
        raise refused(
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
    difference = ""
    minutes = round((now - server).total_seconds() / 60) if server is not None else 0
    if minutes:
        side = "ahead of" if minutes > 0 else "behind"
        difference = f"; this machine's clock is {abs(minutes)} min {side} its"
    return CredentialsError(
        f"Alibaba Cloud refuses the time of the request: {code}{difference}",
        advice="set this machine's clock (NTP); it may be at most 15 minutes off",
    )

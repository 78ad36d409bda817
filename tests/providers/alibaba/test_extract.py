"""Alibaba's contact flows, read from the sandbox over a socket."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from etl.errors import (
    ContractError,
    CredentialsError,
    ForbiddenError,
    MissingError,
    ProviderError,
    TooLargeError,
    UnavailableError,
    UnreachableRowsError,
)
from etl.extract.alibaba import contact_flows, probe_contact_flows
from etl.extract.decode import Packed, unpack
from etl.extract.http import Http
from etl.extract.page import EVERYTHING, Page, ScanRequest
from etl.providers.catalog import STREAMS
from etl.providers.declare import open_http, request
from etl.sandbox import alibaba as emulated
from etl.sandbox.alibaba import Alibaba
from etl.sandbox.alibaba_gateway import AccessKey
from etl.sandbox.exchange import Request, Response, json_response
from etl.sandbox.faults import Fault, altered, empty, html
from etl.sandbox.wire import Clock, serving
from tests.extract.scripted import Script, Time
from tests.extract.sources import alibaba_flows, alibaba_source

CONTACT_FLOWS = STREAMS["alibaba.contact_flows"]
START = datetime(2021, 3, 8, 15, 34, 49)  # noqa: DTZ001 - Alibaba's times have no zone


def filled(rows: int, apart: float = 60.0, start: datetime = START) -> Alibaba:
    """Return an instance with `rows` flows, each updated `apart` seconds after the one before."""
    fake = Alibaba(("ccc-sandbox",))
    for number in range(rows):
        updated = start + timedelta(seconds=apart * number)
        fake.flows["ccc-sandbox"].add(flow(f"f{number:05}", f"{updated}.0"))
    return fake


def flow(key: str, updated: Any, kind: str = "MAIN_FLOW") -> dict[str, Any]:
    return {"ContactFlowId": key, "UpdatedTime": updated, "Name": key, "Type": kind}


def ids(pages: list[Page]) -> list[str]:
    rows = [row for page in pages for row in page.records]
    read = [unpack(row) if isinstance(row, Packed) else row for row in rows]
    return [row["ContactFlowId"] for row in read]


def asked(whole: ScanRequest, ask: ScanRequest, size: int) -> ScanRequest:
    """Return `ask` for the list that `whole` names, in pages of `size` rows."""
    return replace(ask, scopes=whole.scopes, zone=whole.zone, size=size)


def scanned(
    fake: Any, ask: ScanRequest = EVERYTHING, *, page_size: int = 100, **changes: Any
) -> list[Page]:
    with alibaba_flows(fake, **changes) as (http, whole):
        return list(contact_flows(http, asked(whole, ask, page_size)))


def refused(
    fake: Any, kind: type[ProviderError], page_size: int = 100, **changes: Any
) -> ProviderError:
    with (
        alibaba_flows(fake, **changes) as (http, whole),
        pytest.raises(ProviderError) as caught,
    ):
        list(contact_flows(http, replace(whole, size=page_size)))
    assert type(caught.value) is kind, caught.value
    assert caught.value.where.startswith("alibaba_sh.contact_flows")
    assert "sandbox-alibaba" not in str(caught.value)
    return caught.value


def envelope(rows: Any, total: Any, **data: Any) -> dict[str, Any]:
    return {"Code": "OK", "Data": {"List": rows, "TotalCount": total, **data}}


def after(since: datetime, read_at: datetime | None = None) -> ScanRequest:
    """Ask for changes from `since` on (Shanghai's time); earlier ones were read at `read_at`."""
    mark = since.replace(tzinfo=ZoneInfo("Asia/Shanghai")).astimezone(UTC)
    return ScanRequest({"ccc-sandbox": mark}, read_at or datetime.now(UTC))


# --- pages ---------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.fault(26)
@pytest.mark.parametrize("ask", [EVERYTHING, after(START)])
def test_a_page_that_is_too_large_is_asked_for_in_parts(ask: ScanRequest) -> None:
    fake = filled(110)
    flows = fake.flows["ccc-sandbox"]
    for key in flows.keys()[50:]:
        flows.update_silently(key, Definition=json.dumps({"activities": [], "x": "x" * 700_000}))
    pages = scanned(fake, ask)
    assert set(ids(pages)) == set(flows.keys())
    assert all((page.anchored, page.total) == (True, 110) for page in pages)
    assert [page.number for page in pages] == list(range(1, len(pages) + 1))
    sizes = [int(request.params["PageSize"]) for request in fake.requests]
    assert max(sizes) == 100
    assert 2 <= min(sizes) <= 25


def test_a_single_record_that_is_too_large_ends_the_scan() -> None:
    fake = filled(3)
    flows = fake.flows["ccc-sandbox"]
    flows.update_silently(flows.keys()[0], Definition="x" * 33 * 2**20)
    assert "larger than 32 MiB" in refused(fake, TooLargeError).what
    assert [request.params["PageSize"] for request in fake.requests] == ["100", "25", "6", "2"]


@pytest.mark.parametrize(
    ("rows", "requests"),
    [(0, 1), (1, 1), (100, 1), (101, 2), (150, 2), (250, 3), (1000, 12), (3000, 35)],
)
@pytest.mark.parametrize("apart", [1.0, 3600.0])
def test_a_quiet_list_is_read_whole_and_anchored(rows: int, requests: int, apart: float) -> None:
    fake = filled(rows, apart)
    pages = scanned(fake)
    assert set(ids(pages)) == set(fake.flows["ccc-sandbox"].keys())
    assert all(page.anchored for page in pages)
    assert all((page.scope, page.total) == ("ccc-sandbox", rows) for page in pages)
    assert [page.number for page in pages] == list(range(1, len(pages) + 1))
    assert len(fake.requests) == len(pages) <= requests


def test_what_is_asked_for() -> None:
    scanned(fake := filled(101))
    first, second = fake.requests
    assert (first.method, first.path, first.body) == ("POST", "/", b"")
    assert first.params == {
        "InstanceId": "ccc-sandbox",
        "PageNumber": "1",
        "PageSize": "100",
        "OrderByField": "updatedTime",
        "SortOrder": "ASC",
    }
    assert first.headers["x-acs-version"] == "2020-07-01"
    start = (int(second.params["PageNumber"]) - 1) * int(second.params["PageSize"])
    assert start < 100  # it shows the last row but one again


def test_each_instance_is_its_own_scope() -> None:
    fake = filled(150)
    fake.add_instance("ccc-other").add(flow("other", f"{START}.0"))
    fake.add_instance("ccc-empty")
    names = ("ccc-sandbox", "ccc-empty", "ccc-other")
    pages = scanned(fake, instance_ids=names)
    assert [(p.scope, p.number, p.total) for p in pages] == [
        ("ccc-sandbox", 1, 150),
        ("ccc-sandbox", 2, 150),
        ("ccc-empty", 1, 0),
        ("ccc-other", 1, 1),
    ]


def test_the_scan_may_be_left_early() -> None:
    with alibaba_flows(fake := filled(500)) as (http, whole):
        scan = contact_flows(http, whole)
        next(scan)
        scan.close()  # type: ignore[attr-defined]
        assert len(fake.requests) == 1


@pytest.mark.parametrize("rows", [101, 150, 350])
def test_a_tie_larger_than_a_page_ends_without_a_proof(rows: int) -> None:
    fake = filled(rows, apart=0.0)
    fake.ties = None
    pages = scanned(fake)
    assert set(ids(pages)) == set(fake.flows["ccc-sandbox"].keys())
    assert [page.anchored for page in pages] == [True] + [False] * (len(pages) - 1)
    assert len(fake.requests) == -(-rows // 100)


def test_ties_smaller_than_a_page_keep_the_proof() -> None:
    fake = filled(0)
    for number in range(400):  # forty rows of one second each, shuffled again for every request
        updated = START + timedelta(hours=number // 40)
        fake.flows["ccc-sandbox"].add(flow(f"f{number}", f"{updated}.0"))
    pages = scanned(fake)
    assert set(ids(pages)) == set(fake.flows["ccc-sandbox"].keys())
    assert all(page.anchored for page in pages)


def test_rows_of_these_minutes_are_no_anchors() -> None:
    """A row may show up ten minutes after its time, so recent rows prove nothing."""
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0) + timedelta(hours=8)
    for apart, anchored in ((1.0, False), (60.0, True)):
        pages = scanned(filled(150, apart, now - timedelta(seconds=150 * apart)))
        assert len(set(ids(pages))) == 150
        assert pages[-1].anchored == anchored


@pytest.mark.parametrize(
    "times",
    [
        ["2021-03-08 15:34:49.123456789", "2021-03-08 15:34:49.5", "2021-03-08 15:34:50"],
        ["2021-03-08T15:34:49Z", "2021-03-08T23:34:50+08:00", "2021-03-08T15:34:51.000Z"],
    ],
)
def test_times_are_compared_as_times(times: list[str]) -> None:
    rows = [flow(f"f{n}", times[0]) for n in range(99)] + [flow("x", times[1]), flow("y", times[2])]
    pages = scanned(Script(envelope(rows[:100], 101), envelope(rows[98:], 101)))
    assert [page.anchored for page in pages] == [True, True]


@pytest.mark.parametrize("order", ["descending", "shuffled"])
def test_an_order_that_is_not_kept_ends_the_proof(order: str) -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(150)]
    if order == "descending":
        rows.reverse()
    else:
        rows[50:60] = reversed(rows[50:60])
    pages = scanned(Script(envelope(rows[:100], 150), envelope(rows[100:], 150)))
    assert [page.anchored for page in pages] == [False, False]
    assert len(ids(pages)) == 150
    (page,) = scanned(Script(envelope(rows[:100], 100)))
    assert page.anchored  # one answer that holds all of the list needs no order


def test_the_order_of_the_last_window_counts_too() -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(150)]
    rows[140:143] = reversed(rows[140:143])
    pages = scanned(Script(envelope(rows[:100], 150), envelope(rows[98:], 150)))
    assert [page.anchored for page in pages] == [True, False]


@pytest.mark.parametrize("updated", [None, "", "yesterday", 5, [], "0001-01-01T00:00:00+14:00"])
def test_rows_without_a_time_are_read_but_prove_nothing(updated: Any) -> None:
    rows = [flow(f"f{n}", updated) for n in range(150)]
    pages = scanned(Script(envelope(rows[:100], 150), envelope(rows[100:], 150)))
    assert len(ids(pages)) == 150
    assert [page.anchored for page in pages] == [True, False]


def test_records_are_passed_on_as_they_are() -> None:
    rows: list[Any] = [None, 1, "x", [], {}, {"ContactFlowId": None}]
    (page,) = scanned(Script(envelope(rows, 6)))
    assert (page.records, page.anchored) == (rows, True)


@pytest.mark.parametrize("total", [None, -1, "0150", "150.0", 1.5, True, 99])
def test_without_a_usable_count_the_short_page_is_the_end(total: Any) -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(150)]
    script = Script(envelope(rows[:100], total), envelope(rows[100:], None))
    pages = scanned(script)
    assert len(ids(pages)) == 150
    assert [(page.total, page.anchored) for page in pages] == [(None, True), (None, False)]
    assert len(script.requests) == 2


def test_a_count_below_the_rows_shown_counts_something_else() -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(150)]
    pages = scanned(Script(envelope(rows[:100], 150), envelope(rows[98:], 120)))
    assert len(set(ids(pages))) == 150
    assert (pages[1].total, pages[-1].anchored) == (None, False)


@pytest.mark.fault(13)
def test_an_empty_page_before_the_end_is_not_the_end() -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(100)]
    last = [flow("last", f"{START}.0")]
    script = Script(envelope(rows, 201), envelope([], 201), envelope([], 201), envelope(last, 201))
    pages = scanned(script)
    assert ids(pages)[-1] == "last"
    assert not pages[-1].anchored
    assert [int(r.params["PageNumber"]) for r in script.requests][-1] == 3


@pytest.mark.fault(13)
def test_pages_that_stay_empty_break_the_contract() -> None:
    rows: list[Any] = [flow(f"f{n}", f"{START}.0") for n in range(100)]
    script = Script(envelope(rows, 9000), envelope([], 9000))
    assert "21 pages in a row are empty" in refused(script, ContractError).what
    assert len(script.requests) == 22


def test_a_first_page_that_says_a_smaller_size_is_read() -> None:
    """The document's example says 10 rows per page, whatever was asked for."""
    script = Script(envelope([flow("a", f"{START}.0")], 1, PageSize=10))
    assert [page.total for page in scanned(script)] == [1]


def smaller_pages(most: int, echo: dict[str, Any]) -> Fault:
    """Make page 1 as short as if no page held more than `most` rows."""

    def shortened(request: Request, honest: Response) -> Response:
        if int(request.params["PageSize"]) <= most:
            return honest
        body = json.loads(honest.body)
        body["Data"].update(List=body["Data"]["List"][:most], **echo)
        return json_response(200, body)

    return Fault(times=None, response=shortened)


@pytest.mark.parametrize("echo", [{"PageSize": 50}, {}, {"PageSize": None}])
@pytest.mark.parametrize("ask", [EVERYTHING, after(START)])
def test_smaller_pages_than_asked_for_are_read_all_the_same(
    ask: ScanRequest, echo: dict[str, Any]
) -> None:
    fake = filled(230)
    fake.faults.append(smaller_pages(50, echo))
    pages = scanned(fake, ask)
    assert set(ids(pages)) == set(fake.flows["ccc-sandbox"].keys())
    assert all((page.anchored, page.total) == (True, 230) for page in pages)


@pytest.mark.fault(12)
@pytest.mark.parametrize("data", [{"PageNumber": 2}, {"PageSize": 101}])
def test_an_echo_that_differs_breaks_the_contract(data: dict[str, int]) -> None:
    error = refused(Script(envelope([], 0, **data)), ContractError)
    assert "was asked for" in error.what
    assert "instance ccc-sandbox, page 1 of 100 rows" in error.where


@pytest.mark.parametrize("data", [{"PageNumber": 1, "PageSize": 100}, {"PageSize": None}, {}])
@pytest.mark.fault(12)
def test_an_echo_that_agrees_or_is_missing_is_fine(data: dict[str, Any]) -> None:
    assert len(scanned(Script(envelope([], 0, **data)))) == 1


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"Code": "OK"},
        {"Code": "OK", "Data": None},
        {"Code": "OK", "Data": []},
        envelope(None, 5),
        envelope(None, None),
        envelope({}, 0),
        envelope("x", 0),
        envelope([1] * 101, 101),
        {"Code": "ok", "Data": {"List": [], "TotalCount": 0}},
        {"Code": "Ok", "Data": {"List": [], "TotalCount": 0}},
        {"Code": "", "Data": {"List": [], "TotalCount": 0}},
        {"Code": 200, "Data": {"List": [], "TotalCount": 0}},
        {"Data": {"List": [], "TotalCount": 0}},
        {"Code": None, "Data": {"List": [], "TotalCount": 0}},
        {"Code": "SomethingNew", "HttpStatusCode": 400, "Message": "no"},
    ],
)
def test_an_answer_that_is_not_a_list_is_never_an_empty_one(body: Any) -> None:
    refused(Script(body), ContractError)


def test_an_empty_list_may_be_null() -> None:
    assert ids(scanned(Script(envelope(None, 0)))) == []


# --- more than can be reached --------------------------------------------------------------------
def typed(sizes: dict[str, int], start: datetime = START) -> Alibaba:
    """Return an instance with that many flows of each Type, mixed, an hour between two."""
    fake = Alibaba(("ccc-sandbox",))
    kinds = [kind for kind, size in sizes.items() for _ in range(size)]
    random.Random(1).shuffle(kinds)
    for number, kind in enumerate(kinds):
        updated = start + timedelta(hours=number)
        fake.flows["ccc-sandbox"].add(flow(f"f{number:05}", f"{updated}.0", kind))
    return fake


def collected(
    fake: Alibaba, page_size: int, instance_ids: tuple[str, ...] = ("ccc-sandbox",)
) -> tuple[list[Page], str]:
    """Return a whole scan's pages, and the message of the UnreachableRowsError after them."""
    pages: list[Page] = []
    with (
        alibaba_flows(fake, instance_ids=instance_ids) as (http, whole),
        pytest.raises(UnreachableRowsError) as caught,
    ):
        for page in contact_flows(http, replace(whole, size=page_size)):
            pages.append(page)  # noqa: PERF402 - what came before the error must be kept
    return pages, str(caught.value)


@pytest.mark.slow
@pytest.mark.fault(15)
def test_a_list_that_is_too_long_is_read_by_type() -> None:
    fake = typed({"MAIN_FLOW": 700, "SUB_FLOW": 570, "SURVEY_FLOW": 30})
    pages = scanned(fake, page_size=12)
    assert set(ids(pages)) == set(fake.flows["ccc-sandbox"].keys())
    assert {(page.total, page.anchored) for page in pages} == {(1300, True)}
    assert [page.number for page in pages] == list(range(1, len(pages) + 1))
    asked = [(r.params["SortOrder"], r.params.get("Type")) for r in fake.requests]
    assert list(dict.fromkeys(asked)) == [
        ("ASC", None),
        ("ASC", "MAIN_FLOW"),
        ("ASC", "SUB_FLOW"),
        ("ASC", "SURVEY_FLOW"),
        ("DESC", None),
    ]
    assert len(fake.requests) < 1300 / 12 * 2  # small pages overlap by much of their rows


@pytest.mark.slow
def test_changes_made_while_the_types_are_read_are_found_at_the_end() -> None:
    now = datetime.now(ZoneInfo("Asia/Shanghai")).replace(tzinfo=None, microsecond=0)
    sizes = {"MAIN_FLOW": 700, "SUB_FLOW": 550, "SURVEY_FLOW": 5}
    fake = typed(sizes, now - timedelta(hours=1255))
    store = fake.flows["ccc-sandbox"]
    mains = [row["ContactFlowId"] for row in store.records() if row["Type"] == "MAIN_FLOW"]
    newest = datetime.fromisoformat(store.get(mains[-1])["UpdatedTime"])

    def change(emulator: Alibaba, request: Request) -> None:
        store.update(mains[0], Name="edited", UpdatedTime=f"{now}.0")
        store.update(mains[1], Type="SURVEY_FLOW", UpdatedTime=f"{now}.0")
        for number in range(20):  # stamped before the walk through its Type ended
            store.add(flow(f"late{number}", f"{newest - timedelta(seconds=599 - number)}.0"))
        store.delete(mains[2])

    survey = Fault(when=lambda r: r.params.get("Type") == "SURVEY_FLOW", before_request=change)
    fake.faults.append(survey)
    pages = scanned(fake, page_size=12)
    assert survey.fired == 1
    seen = {row["ContactFlowId"]: row for page in pages for row in page.records}
    assert {row["ContactFlowId"]: row for row in store.records()}.items() <= seen.items()
    assert pages[-1].total == 1274
    assert all(page.anchored for page in pages)


@pytest.mark.slow
def test_a_list_that_grows_too_long_while_it_is_read_is_read_by_type_then() -> None:
    fake = typed({"MAIN_FLOW": 990})
    store = fake.flows["ccc-sandbox"]

    def grow(emulator: Alibaba, request: Request) -> None:
        for number in range(30):
            store.add(flow(f"x{number}", f"{START + timedelta(hours=2000 + number)}.0", "SUB_FLOW"))

    fake.faults.append(Fault(nth=20, before_request=grow))
    pages = scanned(fake, page_size=10)
    assert set(ids(pages)) == set(store.keys())
    assert pages[-1].total == 1020


@pytest.mark.slow
def test_a_type_that_is_too_long_is_read_from_both_ends() -> None:
    fake = typed({"MAIN_FLOW": 900, "SUB_FLOW": 100})
    pages = scanned(fake, page_size=5)
    assert set(ids(pages)) == set(fake.flows["ccc-sandbox"].keys())
    assert not all(page.anchored for page in pages)
    assert {page.total for page in pages} == {1000}
    assert max(int(r.params["PageNumber"]) for r in fake.requests) == 100


@pytest.mark.slow
@pytest.mark.fault(15)
def test_a_type_longer_than_both_ends_reach_is_reported() -> None:
    fake = typed({"MAIN_FLOW": 630, "SUB_FLOW": 7})
    fake.add_instance("ccc-other").add(flow("other", f"{START}.0"))
    pages, error = collected(fake, 3, ("ccc-sandbox", "ccc-other"))
    assert "ccc-sandbox has 637 contact flows, of which 607 could be read" in error
    assert "no further than 300 rows" in error
    assert "remove contact flows" in error
    assert len(set(ids(pages))) == 608  # the other instance's too
    assert pages[-1].scope == "ccc-other"
    assert {page.total for page in pages[:-1]} == {637}


@pytest.mark.slow
def test_flows_of_other_types_are_read_from_both_ends() -> None:
    fake = typed({"MAIN_FLOW": 400, "SUB_FLOW": 300, "NEW_FLOW": 50})
    pages = scanned(fake, page_size=5)
    assert set(ids(pages)) == set(fake.flows["ccc-sandbox"].keys())
    assert not pages[-1].anchored
    assert pages[-1].total == 750


@pytest.mark.slow
def test_flows_of_other_types_out_of_reach_are_reported() -> None:
    fake = typed({"MAIN_FLOW": 270, "SUB_FLOW": 270, "SURVEY_FLOW": 270, "NEW_FLOW": 100})
    pages, error = collected(fake, 3)
    read = len(set(ids(pages)))
    assert 810 < read < 910
    assert f"ccc-sandbox has 910 contact flows, of which {read} could be read" in error


@pytest.mark.slow
def test_ten_thousand_rows_exactly_are_reachable() -> None:
    fake = filled(10_000, apart=3600.0)
    pages = scanned(fake)
    assert len(set(ids(pages))) == 10_000
    assert len(fake.requests) < 120


@pytest.mark.slow
def test_without_a_count_a_full_last_page_may_hide_rows() -> None:
    def full(request: Request, _: Response) -> Response:
        order, page = request.params["SortOrder"], request.params["PageNumber"]
        rows = [flow(f"{order}-{page}-{n}", f"{START}.0") for n in range(5)]
        return json_response(200, envelope(rows, None))

    script = Script()
    script.faults.append(Fault(times=None, response=full))
    error = refused(script, UnreachableRowsError, page_size=5)
    assert "ccc-sandbox has over 500 contact flows, of which 1000 could be read" in error.what
    assert max(int(r.params["PageNumber"]) for r in script.requests) == 100
    assert len(script.requests) == 701  # the list; each Type from both ends; the newest rows


@pytest.mark.fault(12)
@pytest.mark.parametrize("total", [None, 50])
def test_a_page_number_that_is_ignored_is_noticed_at_once(total: int | None) -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(10)]

    def first_rows(request: Request, _: Response) -> Response:
        return json_response(200, envelope(rows[: int(request.params["PageSize"])], total))

    script = Script()
    script.faults.append(Fault(times=None, response=first_rows))
    assert "so the page number is ignored" in refused(script, ContractError, page_size=10).what
    assert len(script.requests) <= 3


# --- a provider with wrong answers ---------------------------------------------------------------
def wrong_answers(kind: str) -> Alibaba:
    fake = filled(60, apart=3600.0)
    totals = iter(range(200, 10**9, 90))
    rows = fake.flows["ccc-sandbox"].records()

    def changed(request: Request, honest: Response) -> Response:
        if kind == "a total that grows":
            return altered(lambda body: body["Data"].update(TotalCount=next(totals)))(
                request, honest
            )
        if kind == "a total beyond all measure":
            return altered(lambda body: body["Data"].update(TotalCount=10**15))(request, honest)
        shown = rows[::-1] if request.params["SortOrder"] == "DESC" else rows
        shown = shown[: int(request.params["PageSize"])] if kind == "one page forever" else []
        return altered(lambda body: body["Data"].update(List=shown, TotalCount=10**5))(
            request, honest
        )

    fake.faults.append(Fault(times=None, response=changed))
    return fake


WRONG_ANSWERS = [
    "a total that grows",
    "a total beyond all measure",
    "one page forever",
    "empty pages",
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRONG_ANSWERS)
@pytest.mark.parametrize("since", [None, START - timedelta(days=9)])
@pytest.mark.fault(11, 19)
def test_no_wrong_answer_is_followed_forever(kind: str, since: datetime | None) -> None:
    fake = wrong_answers(kind)
    pages: list[Page] = []
    ask = EVERYTHING if since is None else after(since)
    with alibaba_flows(fake) as (http, whole):
        try:
            for page in contact_flows(http, asked(whole, ask, 10)):
                pages.append(page)  # noqa: PERF402 - what came before the error counts
        except (ContractError, UnreachableRowsError):
            assert since is None
        else:
            assert not all(page.anchored for page in pages)
    assert len(fake.requests) < (2500 if since is None else 350)


# --- changes only --------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 1000])
@pytest.mark.parametrize("apart", [1.0, 60.0, 86_400.0])
def test_a_quiet_source_costs_one_request(rows: int, apart: float) -> None:
    fake = filled(rows, apart)
    newest = START + timedelta(seconds=apart * max(rows - 1, 0))
    (page,) = scanned(fake, after(newest))
    assert (page.number, page.total, page.anchored) == (1, rows, True)
    assert page.scope == "ccc-sandbox"
    (request,) = fake.requests
    assert request.params == {
        "InstanceId": "ccc-sandbox",
        "PageNumber": "1",
        "PageSize": "100",
        "OrderByField": "updatedTime",
        "SortOrder": "DESC",
    }


@pytest.mark.parametrize("changed", [1, 50, 98, 99, 150, 500, 1500])
def test_changes_cost_a_request_per_page(changed: int) -> None:
    fake = filled(2000)
    newest = START + timedelta(minutes=1999 - changed)
    pages = scanned(fake, after(newest))
    keys = set(fake.flows["ccc-sandbox"].keys()[-changed:])
    assert keys <= set(ids(pages))
    assert {(page.total, page.anchored) for page in pages} == {(2000, True)}
    assert [page.number for page in pages] == list(range(1, len(pages) + 1))
    assert len(fake.requests) == len(pages) <= changed // 90 + 1


def test_an_instance_without_a_watermark_is_read_whole() -> None:
    fake = filled(150)
    fake.add_instance("ccc-new").add(flow("new", f"{START}.0"))
    pages = scanned(
        fake, after(START + timedelta(minutes=149)), instance_ids=("ccc-sandbox", "ccc-new")
    )
    assert [(page.scope, len(page.records), page.total) for page in pages] == [
        ("ccc-sandbox", 100, 150),
        ("ccc-new", 1, 1),
    ]
    assert [r.params["SortOrder"] for r in fake.requests] == ["DESC", "ASC"]


def test_rows_at_the_watermark_itself_are_read() -> None:
    fake = filled(100)
    store, mark = fake.flows["ccc-sandbox"], START + timedelta(days=1)
    for number in range(24):  # ten at the watermark, across the end of the first page
        updated = mark + timedelta(seconds=max(0, number - 9))
        store.update(f"f{number:05}", UpdatedTime=f"{updated}.0")
    pages = scanned(fake, after(mark), page_size=20)
    assert {f"f{number:05}" for number in range(24)} <= set(ids(pages))
    assert all(page.anchored for page in pages)
    assert len(pages) == 2


HOUR = timedelta(hours=1)
NEWEST = START + 599 * timedelta(seconds=150)
LOCAL = NEWEST - 8 * HOUR  # in UTC


@pytest.mark.parametrize(
    ("since", "read_at", "down_to"),
    [
        (NEWEST, LOCAL + 21 * HOUR, NEWEST),  # whatever was unread then has a later time
        (NEWEST, LOCAL + 20 * HOUR, NEWEST - timedelta(minutes=10)),
        (NEWEST, LOCAL, NEWEST - timedelta(minutes=10)),
        (NEWEST, None, NEWEST - timedelta(minutes=10)),
        (NEWEST + HOUR, LOCAL, LOCAL - timedelta(hours=12, minutes=25)),  # a row from the future
        (datetime(9999, 12, 31, 23), LOCAL, LOCAL - timedelta(hours=12, minutes=25)),  # noqa: DTZ001
        (datetime(1, 1, 2), LOCAL, START),  # noqa: DTZ001
        (datetime(1, 1, 1), None, START),  # noqa: DTZ001
    ],
)
def test_how_far_down_changes_are_read(
    since: datetime, read_at: datetime | None, down_to: datetime
) -> None:
    """Read to the watermark and a page further, or by the lag if rows may still come late."""
    fake = filled(600, apart=150.0)
    ask = ScanRequest(
        {"ccc-sandbox": since.replace(tzinfo=UTC) - (8 * HOUR if since.year > 1 else 0 * HOUR)},
        read_at and read_at.replace(tzinfo=UTC),
    )
    pages = scanned(fake, ask, page_size=10)
    wanted = {
        row["ContactFlowId"]
        for row in fake.flows["ccc-sandbox"].records()
        if row["UpdatedTime"] >= f"{down_to}.0"
    }
    assert wanted <= set(ids(pages))
    assert len(set(ids(pages))) <= len(wanted) + 10
    assert all(page.anchored for page in pages)


def test_rows_that_may_have_come_late_are_read_again() -> None:
    fake = filled(2000, apart=1.0)
    newest = START + timedelta(seconds=1999)
    pages = scanned(fake, after(newest, (newest - 8 * HOUR).replace(tzinfo=UTC)))
    assert {f"f{number:05}" for number in range(1399, 2000)} <= set(ids(pages))
    assert len(fake.requests) == 7


@pytest.mark.parametrize("night", ["2021-03-28", "2021-10-31"])
@pytest.mark.parametrize("clock", ["01:30", "02:00", "02:30", "03:00", "03:30"])
def test_a_watermark_in_the_night_when_clocks_change(night: str, clock: str) -> None:
    mark = datetime.fromisoformat(f"{night} {clock}")
    fake = filled(300, 60.0, mark - timedelta(minutes=200))
    zone = ZoneInfo("Europe/Berlin")
    ask = ScanRequest({"ccc-sandbox": mark.replace(tzinfo=zone).astimezone(UTC)}, datetime.now(UTC))
    pages = scanned(fake, ask, page_size=10, timezone="Europe/Berlin")
    assert {f"f{number:05}" for number in range(200, 300)} <= set(ids(pages))
    assert all(page.anchored for page in pages)
    assert len(set(ids(pages))) <= 180


def test_times_with_a_zone_are_compared_in_the_zone_of_the_source() -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}+00:00") for n in range(50)][::-1]
    parts = [envelope(rows[:10], 50), envelope(rows[8:16], 50), envelope(rows[14:21], 50)]
    since = (START + timedelta(hours=40)).replace(tzinfo=UTC)
    fake = Script(*parts)
    pages = scanned(fake, ScanRequest({"ccc-sandbox": since}, datetime.now(UTC)), page_size=10)
    assert [page.anchored for page in pages] == [True, True]  # down to 2 hours below it


@pytest.mark.slow
def test_ties_are_never_cut() -> None:
    fake = filled(0)
    for number in range(300):  # seven rows of one second, shuffled again for every request
        fake.flows["ccc-sandbox"].add(flow(f"f{number}", f"{START + number // 7 * HOUR}.0"))
    for _ in range(20):
        pages = scanned(fake, after(START + 20 * HOUR), page_size=15)
        assert {f"f{number}" for number in range(140, 300)} <= set(ids(pages))
        assert all(page.anchored for page in pages)


def test_rows_deleted_between_two_pages_hide_none() -> None:
    fake = filled(100)
    store = fake.flows["ccc-sandbox"]

    def delete(emulator: Alibaba, request: Request) -> None:
        for number in range(90, 96):
            store.delete(f"f{number:05}")

    fake.faults.append(Fault(nth=2, before_request=delete))
    pages = scanned(fake, after(START + timedelta(minutes=50)), page_size=10)
    assert {f"f{number:05}" for number in [*range(50, 90), *range(96, 100)]} <= set(ids(pages))
    assert all(page.anchored for page in pages)
    assert [page.total for page in pages][:2] == [100, 94]


@pytest.mark.parametrize("rows", [7, 12, 30])
def test_rows_newer_than_the_first_answer_are_left_to_the_next_run(rows: int) -> None:
    fake = filled(100)
    store, newest = fake.flows["ccc-sandbox"], START + timedelta(minutes=99)

    def add(emulator: Alibaba, request: Request) -> None:
        for number in range(rows):
            store.add(flow(f"new{number}", f"{newest + timedelta(seconds=1 + number)}.0"))
        store.update("f00099", UpdatedTime=f"{newest + timedelta(seconds=5)}.0")

    fake.faults.append(Fault(nth=2, before_request=add))
    pages = scanned(fake, after(START + timedelta(minutes=50)), page_size=10)
    times = [row["UpdatedTime"] for page in pages for row in page.records]
    assert max(times) == f"{newest}.0"
    assert pages[0].total == 100
    if rows < 20:
        assert set(ids(pages)) >= {f"f{number:05}" for number in range(50, 100)}
        assert all(page.anchored for page in pages)
    else:  # nothing that was read can be seen again
        assert [page.anchored for page in pages] == [True, False]
        assert pages[-1].records == []


@pytest.mark.parametrize("flaw", ["a tie", "no order", "no count", "no times"])
def test_without_an_anchor_the_scope_ends_there(flaw: str) -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(50)][::-1]
    if flaw == "a tie":
        rows = [row | {"UpdatedTime": f"{START}.0"} for row in rows]
    if flaw == "no order":
        rows[3:5] = rows[4:2:-1]
    if flaw == "no times":
        rows = [row | {"UpdatedTime": None} for row in rows]
    total = None if flaw == "no count" else 50
    script = Script(envelope(rows[:10], total), envelope(rows[8:16], total))
    pages = scanned(script, after(START), page_size=10)
    assert not pages[-1].anchored
    assert ids(pages)[:10] == [row["ContactFlowId"] for row in rows[:10]]
    assert pages[-1].total == total
    assert len(script.requests) == 1


def test_one_answer_that_holds_all_of_the_list_needs_no_order() -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(10)]
    (page,) = scanned(Script(envelope(rows, 10)), after(START - HOUR), page_size=10)
    assert (page.anchored, len(page.records)) == (True, 10)


def test_changes_beyond_reach_end_without_a_proof() -> None:
    fake = filled(1100)
    pages = scanned(fake, after(START), page_size=10)
    assert [page.anchored for page in pages] == [True] * (len(pages) - 1) + [False]
    assert max(int(r.params["PageNumber"]) for r in fake.requests) <= 100


def test_a_few_changes_of_a_list_beyond_reach_are_proven() -> None:
    (page,) = scanned(filled(1100), after(START + timedelta(minutes=1098)), page_size=10)
    assert (page.anchored, page.total) == (True, 1100)


# --- a list that changes while it is read --------------------------------------------------------
def test_a_deletion_between_two_windows_hides_nothing() -> None:
    fake = filled(250, apart=3600.0)
    store = fake.flows["ccc-sandbox"]

    def delete_five(emulator: Alibaba, request: Any) -> None:
        for number in range(5):
            store.delete(f"f{number:05}")

    fake.faults.append(Fault(nth=2, before_request=delete_five))
    pages = scanned(fake)
    assert set(store.keys()) <= set(ids(pages))
    assert all(page.anchored for page in pages)
    assert len(fake.requests) == 5  # a window was stepped back, and the list is read from there
    assert len(pages) == 4  # the one that showed no anchor is not passed on


@dataclass
class ChangingInstance:
    """One instance, which may change before each answer. Times are stamped as Alibaba does it.

    `first` and `current` are the flows (id → time) at the first and the last answer of a scan;
    `newest_first` those at its first answer that was asked for in that order.
    """

    rng: random.Random
    rows: int
    kinds: tuple[str, ...] = ("MAIN_FLOW",)
    gaps: tuple[int, ...] = ()
    fake: Alibaba = field(init=False)
    rate: float = field(init=False)
    first: dict[str, str] = field(default_factory=dict)
    newest_first: dict[str, str] = field(default_factory=dict)
    current: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = self.rng
        self.fake = Alibaba(("ccc-sandbox",), clock=Clock(frozen_at=1_700_000_000.0))
        self.fake.ties = random.Random(rng.random())
        self.rate = rng.choice([0.0, 0.2, 0.5, 1.0, 3.0])
        # Seconds between two new rows: a busy hour, or a few days.
        gaps = self.gaps or rng.choice([(0, 1, 5, 8), (0, 1, 20, 200, 2000)])
        for _ in range(self.rows):
            self.add()
            self.fake.clock.advance(rng.choice(gaps))
        self.fake.faults.append(Fault(times=None, before_request=self.churn))

    def add(self) -> None:
        key, kind = f"f{self.rng.getrandbits(60)}", self.rng.choice(self.kinds)
        self.fake.flows["ccc-sandbox"].add(flow(key, self.stamp(), kind))

    def stamp(self) -> str:
        rng = self.rng
        late = rng.choice([0, 0, 0, 0, rng.uniform(0, 590)])  # it shows up after its time
        local = datetime.fromtimestamp(self.fake.clock() - late, UTC) + timedelta(hours=8)
        return local.strftime("%Y-%m-%d %H:%M:%S.0")

    def change(self) -> None:
        rng, store = self.rng, self.fake.flows["ccc-sandbox"]
        self.fake.clock.advance(rng.choice([0, 0, 1, 30, rng.uniform(0, 400)]))
        kind, keys = rng.random(), store.keys()
        if kind < 0.3 or len(keys) < 20:
            self.add()
            return
        key = rng.choice(keys)
        if kind < 0.7:
            # An update never makes a row older than it was.
            store.update(key, UpdatedTime=max(self.stamp(), store.get(key)["UpdatedTime"]))
        else:
            store.delete(key)

    def churn(self, emulator: Alibaba, request: Request) -> None:
        started = self.fake.clock()  # the signature's date must not be overtaken by 15 minutes
        rate = self.rate
        while self.rng.random() < rate / (1 + rate) and self.fake.clock() - started < 450:
            self.change()
        image = self.fake.flows["ccc-sandbox"].image()
        self.current = {key: row.updated for key, row in image.items()}
        self.first = self.first or self.current
        if request.params["SortOrder"] == "DESC":
            self.newest_first = self.newest_first or self.current

    def scan(
        self, http: Http, whole: ScanRequest, ask: ScanRequest, page_size: int
    ) -> tuple[list[Page], dict[str, str]]:
        """Scan; return the pages, and the flows that they hold (id → time)."""
        self.first, self.newest_first = {}, {}
        pages = list(contact_flows(http, asked(whole, ask, page_size)))
        return pages, {r["ContactFlowId"]: r["UpdatedTime"] for p in pages for r in p.records}

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.fake.clock(), UTC)

    def kept(self, then: dict[str, str]) -> dict[str, str]:
        """Return the flows of `then` that are unchanged at the last answer."""
        return dict(then.items() & self.current.items())


def scans_of(changing: ChangingInstance, scans: int = 4) -> Iterator[tuple[Http, ScanRequest]]:
    """Yield a connection for each of `scans` scans, with some time between them."""
    time = Time()
    with serving(changing.fake):
        settings = alibaba_source(changing.fake)
        with open_http(
            settings, CONTACT_FLOWS, clock=time, sleep=time.sleep, now=changing.now
        ) as http:
            for _ in range(scans):
                yield http, request(settings, CONTACT_FLOWS)
                changing.fake.clock.advance(changing.rng.choice([60, 3600, 200_000]))


def whole_scans(rng: random.Random) -> Iterator[bool]:
    """Read one list four times while it changes; yield whether each scan was anchored.

    Assert what an anchored scan promises: every row that is there at its last answer was read,
    in its version of then (except silent changes, which move nothing).
    """
    changing = ChangingInstance(rng, rng.randint(101, 420))
    for http, whole in scans_of(changing):
        pages, seen = changing.scan(http, whole, EVERYTHING, 100)
        anchored = all(page.anchored for page in pages)
        if anchored:
            assert changing.current.items() <= seen.items()
        yield anchored


@pytest.mark.slow
@pytest.mark.fault(14)
def test_an_anchored_scan_of_a_changing_list_misses_nothing(seed: int) -> None:
    scans = [anchored for n in range(25) for anchored in whole_scans(random.Random(f"{seed} {n}"))]
    assert sum(scans) > len(scans) / 4  # so the promise above was tested


@pytest.mark.slow
def test_an_anchored_scan_by_type_misses_nothing(seed: int) -> None:
    kinds = ("MAIN_FLOW", "SUB_FLOW", "SURVEY_FLOW")
    changing = ChangingInstance(random.Random(seed), 2100, kinds, (20, 99, 999))
    changing.rate = 0.2
    proven = False
    for http, whole in scans_of(changing, 3):
        if proven:
            continue
        changing.fake.clock.advance(200_000)
        pages, seen = changing.scan(http, whole, EVERYTHING, 20)
        proven = all(page.anchored for page in pages)
        if proven:
            assert pages[-1].total == len(changing.current)
            assert changing.kept(changing.newest_first).items() <= seen.items()
            assert max(seen.values()) <= max(changing.newest_first.values())
    assert proven  # so the promise above was tested


@dataclass
class Mirror:
    """What a caller keeps of the list between runs, as callflow does."""

    known: dict[str, str] = field(default_factory=dict)
    mark: datetime | None = None
    read_at: datetime | None = None

    def ask(self) -> ScanRequest:
        return ScanRequest({"ccc-sandbox": self.mark}, self.read_at) if self.mark else EVERYTHING

    def move(self, seen: dict[str, str], read_at: datetime) -> None:
        local = datetime.fromisoformat(max(seen.values()))
        self.mark = local.replace(tzinfo=ZoneInfo("Asia/Shanghai")).astimezone(UTC)
        self.read_at = read_at


def changes_only(rng: random.Random) -> Iterator[tuple[int, bool]]:
    """Mirror one list by runs that ask for changes while it changes, then when it is quiet.

    Yield the pages of each scan for changes and whether it was anchored. Assert what an anchored
    one promises: every flow of its first answer's list that has not changed since is known now.
    """
    changing, mirror = ChangingInstance(rng, rng.randint(60, 250)), Mirror()
    size = rng.choice([10, 20, 20, 100])
    for _ in range(2):
        for http, whole in scans_of(changing):
            if changing.rate == 0.0:
                changing.fake.clock.advance(200_000)
                changing.fake.ties = None
            started = changing.now()
            counted = False
            if mirror.mark is not None:
                pages, seen = changing.scan(http, whole, mirror.ask(), size)
                anchored = all(page.anchored for page in pages)
                mirror.known.update(seen)
                if anchored:
                    assert changing.kept(changing.first).items() <= mirror.known.items()
                    assert max(seen.values()) <= max(changing.first.values())
                    counted = pages[0].total == len(mirror.known)
                unseen = changing.first.keys() - mirror.known.keys()
                if counted and not unseen:  # none changed or went before its page was read
                    assert mirror.known.keys() == changing.first.keys()
                if counted:
                    mirror.move(seen, started)
                yield len(pages), anchored
            if not counted:
                pages, seen = changing.scan(http, whole, EVERYTHING, size)
                mirror.known.update(seen)
                if all(page.anchored for page in pages) and len(seen) >= (pages[-1].total or 0):
                    assert changing.current.items() <= seen.items()
                    mirror.known = seen
                    mirror.move(seen, started)
            for _ in range(rng.choice([0, 10, 30, 60]) if changing.rate else 0):
                changing.change()
        changing.rate = 0.0
    assert changing.current.items() <= mirror.known.items()
    if size == 100:  # small pages cannot always overlap where they should, so no proof of absence
        assert mirror.known == changing.current


@pytest.mark.slow
def test_scans_for_changes_miss_nothing(seed: int) -> None:
    scans = [scan for n in range(25) for scan in changes_only(random.Random(f"{seed} {n}"))]
    assert sum(anchored for _, anchored in scans) > len(scans) / 2
    assert any(anchored and pages > 1 for pages, anchored in scans)


# --- access and failures -------------------------------------------------------------------------
@pytest.mark.fault(3)
@pytest.mark.parametrize(
    ("answer", "least"),
    [
        (emulated.throttled(), 1.0),
        (emulated.throttled(429), 1.0),
        (emulated.throttled(429, retry_after_ms=250), 0.25),
        (emulated.throttled(400, retry_after_ms=2500, code="Throttling.Api"), 2.5),
        (emulated.throttled(400, code="Throttling"), 1.0),
        (emulated.unavailable(), 0.0),
        (emulated.not_ok(), 0.0),
        (emulated.not_ok("InternalService.DB"), 0.0),
        (emulated.not_ok("SomethingNew", status=503), 0.0),
        (emulated.error(500, "SomethingNew", "x"), 0.0),
        (html(502), 0.0),
        (empty(500), 0.0),
    ],
)
def test_throttling_and_failures_pass_and_each_attempt_is_signed_again(
    answer: Response, least: float
) -> None:
    fake, time = filled(250), Time()
    requests = iter((True, True, False, True))
    fake.faults.append(Fault(times=3, when=lambda _: next(requests, False), response=answer))
    with alibaba_flows(fake, time) as (http, whole):
        assert len(set(ids(list(contact_flows(http, whole))))) == 250
    assert http.budget.retries == 3
    assert min(time.slept) >= least
    nonces = [r.headers["x-acs-signature-nonce"] for r in fake.requests]
    assert len(set(nonces)) == len(nonces) == 6


@pytest.mark.fault(3)
def test_lasting_throttling_ends_the_run() -> None:
    fake = filled(1)
    fake.faults.append(Fault(times=None, response=emulated.throttled()))
    assert "flow control" in refused(fake, UnavailableError).what
    assert len(fake.requests) == 6


@pytest.mark.fault(7)
def test_wrong_keys() -> None:
    error = refused(fake := filled(1), CredentialsError, access_key_id="wrong")
    assert "InvalidAccessKeyId.NotFound" in error.what
    assert len(fake.requests) == 1
    error = refused(filled(1), CredentialsError, access_key_secret=SecretStr("wrong-canary"))
    assert "SignatureDoesNotMatch" in error.what
    assert "string to sign" not in str(error)
    assert "canary" not in str(error)


def test_a_temporary_key() -> None:
    fake = filled(1)
    fake.keys["sandbox-alibaba-key"] = AccessKey("sandbox-alibaba-secret", "sts-token")
    token: dict[str, Any] = {"security_token": SecretStr("sts-token")}
    assert len(scanned(fake, **token)) == 1
    refused(fake, CredentialsError)
    fake.keys["sandbox-alibaba-key"] = AccessKey("sandbox-alibaba-secret", "sts-token", 0.0)
    error = refused(fake, CredentialsError, **token)
    assert "InvalidSecurityToken.Expired" in error.what
    assert "security_token" in error.advice


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    ("off", "difference"), [(1380, "23 min behind its"), (-1380, "23 min ahead of its")]
)
def test_a_wrong_clock_is_measured(off: int, difference: str) -> None:
    fake = filled(1)
    fake.clock.advance(off)
    error = refused(fake, CredentialsError)
    assert difference in error.what
    assert "NTP" in error.advice
    assert len(fake.requests) == 1


@pytest.mark.fault(66)
@pytest.mark.parametrize("date", ["yesterday", ""])
def test_a_wrong_clock_that_cannot_be_measured_is_reported_all_the_same(date: str) -> None:
    """The Date may be that of a proxy, which has the same clock as this machine."""
    body = {"Code": "InvalidTimeStamp.Expired", "Message": "x"}
    date = date or format_datetime(datetime.now(UTC), usegmt=True)
    answer = json_response(400, body, {"Date": date})
    what = refused(Script(answer), CredentialsError).what
    assert what == "Alibaba Cloud refuses the time of the request: InvalidTimeStamp.Expired"


@pytest.mark.fault(8)
def test_an_unknown_instance_is_named() -> None:
    error = refused(fake := filled(1), MissingError, instance_ids=("ccc-nowhere",))
    assert "ccc-nowhere" in error.what
    assert "instance_ids" in error.advice
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (emulated.error(403, "Forbidden.RAM", "no"), ForbiddenError),
        (emulated.error(400, "NoPermission", "no"), ForbiddenError),
        (emulated.error(403, "SomethingNew", "no"), ForbiddenError),
        (emulated.error(400, "IncompleteSignature", "no"), CredentialsError),
        (emulated.error(400, "SignatureDoesNotMatch", "no"), CredentialsError),
        (emulated.error(400, "Parameter.Maximum", "no"), ContractError),
        (emulated.error(404, "InvalidAction.NotFound", "no"), ContractError),
        (emulated.not_ok("Parameter.Blank", status=400), ContractError),
        (json_response(404, {}), ContractError),
        (html(200), ContractError),
        (html(403), CredentialsError),
    ],
)
def test_what_is_not_retried(answer: Response, kind: type[ProviderError]) -> None:
    refused(Script(answer), kind)


def test_a_request_that_came_twice_is_signed_again() -> None:
    """A proxy that repeats a request sends its nonce twice."""
    used = emulated.error(400, "SignatureNonceUsed", "no")
    script = Script(used, envelope([], 0))
    assert len(scanned(script)) == 1
    nonces = {request.headers["x-acs-signature-nonce"] for request in script.requests}
    assert len(nonces) == 2


# --- check ---------------------------------------------------------------------------------------
def test_the_probe_counts_each_instance() -> None:
    fake = filled(150)
    fake.add_instance("ccc-other")
    names = ("ccc-sandbox", "ccc-other")
    with alibaba_flows(fake, instance_ids=names) as (http, whole):
        assert probe_contact_flows(http, whole) == (
            "ccc-sandbox: 150 contact flows; ccc-other: 0 contact flows"
        )
        assert len(fake.requests) == 2
    with (
        alibaba_flows(fake, instance_ids=("ccc-nowhere",)) as (http, whole),
        pytest.raises(MissingError),
    ):
        probe_contact_flows(http, whole)


def test_an_instance_that_does_not_exist_does_not_hide_the_others() -> None:
    seen: list[Page] = []
    names = ("nowhere", "ccc-sandbox")
    with alibaba_flows(filled(3), instance_ids=names) as (http, whole):
        pages = contact_flows(http, whole)
        seen.append(next(pages))
        with pytest.raises(MissingError) as caught:
            next(pages)
    assert (seen[0].scope, len(seen[0].records)) == ("ccc-sandbox", 3)
    assert "nowhere" in caught.value.what

"""Alibaba's phone numbers: overlapping pages, masked numbers, and what their records become."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from etl.errors import ContractError, MissingError, ProviderError, UnreachableRowsError
from etl.extract.alibaba_numbers import phone_numbers, probe_phone_numbers
from etl.extract.http import Http
from etl.extract.page import Page, ScanRequest
from etl.providers.catalog import STREAMS
from etl.providers.declare import open_http, request
from etl.sandbox.alibaba import Alibaba
from etl.sandbox.exchange import Request, Response
from etl.sandbox.wire import serving
from etl.transform.rows import Rows
from tests.extract.scripted import Script, Time
from tests.extract.sources import alibaba_source
from tests.transform.named import Named, example, named, transformed

STREAM = STREAMS["alibaba.phone_numbers"]
JOINED = 1578457081000


def filled(count: int) -> Alibaba:
    fake = Alibaba(("ccc-sandbox",))
    for number in range(count):
        fake.phone_numbers["ccc-sandbox"].add(row(number))
    return fake


def row(number: int | str, joined: int = JOINED, **members: Any) -> dict[str, Any]:
    text = number if isinstance(number, str) else f"010{number:08}"
    return {"Number": text, "CreateTime": str(joined), "ContactFlowId": "", **members}


@contextmanager
def listed(fake: Any, size: int = 100, **changes: Any) -> Iterator[tuple[Http, ScanRequest]]:
    with serving(fake):
        source, time = alibaba_source(fake, **changes), Time()
        with open_http(source, STREAM, clock=time, sleep=time.sleep) as http:
            yield http, replace(request(source, STREAM), size=size)


def scanned(fake: Any, size: int = 100, **changes: Any) -> list[Page]:
    with listed(fake, size, **changes) as (http, ask):
        return list(phone_numbers(http, ask))


def numbers(pages: list[Page]) -> list[str]:
    return [each["Number"] for page in pages for each in page.records]


def envelope(rows: Any, total: Any, **data: Any) -> dict[str, Any]:
    return {"Code": "OK", "Data": {"List": rows, "TotalCount": total, **data}}


def spans(fake: Any) -> list[tuple[int, int]]:
    """Return the first row and the row behind the last one of each page that was asked for."""
    asked = [(int(r.params["PageNumber"]), int(r.params["PageSize"])) for r in fake.requests]
    return [((page - 1) * size, page * size) for page, size in asked]


class Changing:
    """An emulator whose list changes before given requests: number of the request → change."""

    def __init__(self, fake: Alibaba, changes: dict[int, Callable[[Any], object]]) -> None:
        self.fake, self.changes, self.count = fake, changes, 0
        self.clock, self.faults, self.errors = fake.clock, fake.faults, fake.errors
        self.requests = fake.requests

    @property
    def url(self) -> str:
        return self.fake.url

    @url.setter
    def url(self, value: str) -> None:
        self.fake.url = value

    def handle(self, request: Request) -> Response:
        self.count += 1
        if change := self.changes.get(self.count):
            change(self.fake.phone_numbers["ccc-sandbox"])
        return self.fake.handle(request)


# --- pages ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize(
    ("count", "requests"), [(0, 1), (1, 1), (100, 1), (101, 2), (199, 3), (1000, 12)]
)
def test_a_quiet_list_is_read_in_pages_that_overlap(
    count: int, requests: int, is_sorted: bool
) -> None:
    fake = filled(count)
    fake.sorts_numbers = is_sorted
    pages = scanned(fake)
    assert set(numbers(pages)) == set(fake.phone_numbers["ccc-sandbox"].keys())
    assert {(page.scope, page.total, page.anchored) for page in pages} == {
        ("ccc-sandbox", count, False)
    }
    assert [page.number for page in pages] == list(range(1, len(pages) + 1))
    assert len(fake.requests) == len(pages) <= requests
    found = spans(fake)
    assert all(after[0] < before[1] for before, after in itertools.pairwise(found))
    assert {request.headers["x-acs-action"] for request in fake.requests} == {"ListPhoneNumbers"}


def test_a_number_that_leaves_takes_none_with_it() -> None:
    fake = filled(60)
    fake.sorts_numbers = True
    every = fake.phone_numbers["ccc-sandbox"].keys()
    gone = every[:7]

    def leave(store: Any) -> None:
        for key in gone:
            store.delete(key)

    pages = scanned(Changing(fake, {2: leave}), size=20)
    assert set(numbers(pages)) == set(every)
    assert pages[0].total == 60
    assert pages[-1].total == 53


def test_a_list_that_shrinks_to_nothing_ends() -> None:
    fake = filled(60)
    pages = scanned(Changing(fake, {2: lambda store: store.clear()}), size=20)
    assert len(set(numbers(pages))) == 20
    assert pages[-1].total == 0


def test_an_answer_without_a_count_is_not_the_end_if_it_is_full() -> None:
    rows = [row(number) for number in range(5)]
    script = Script(envelope(rows[:4], None), envelope(rows[3:], None))
    pages = scanned(script, size=4)
    assert set(numbers(pages)) == {each["Number"] for each in rows}
    assert {page.total for page in pages} == {None}


@pytest.mark.parametrize("data", [None, [], {"TotalCount": 1}, {"List": {}, "TotalCount": 1}])
@pytest.mark.fault(5)
def test_an_answer_without_rows_is_refused(data: Any) -> None:
    with pytest.raises(ContractError):
        scanned(Script({"Code": "OK", "Data": data}))


@pytest.mark.fault(11)
def test_a_page_number_that_is_ignored_is_noticed() -> None:
    rows = [row(number) for number in range(10)]
    with pytest.raises(ContractError, match="the page number is ignored"):
        scanned(Script(envelope(rows, 100), envelope(rows[:9], 100)), size=10)
    with pytest.raises(ContractError, match="was asked for, 1 was answered"):
        scanned(Script(envelope(rows, 100), envelope(rows[:9], 100, PageNumber=1)), size=10)


@pytest.mark.slow
def test_numbers_out_of_reach_are_said_after_those_that_can_be_read() -> None:
    fake, pages = filled(250), []
    with listed(fake, 2) as (http, ask), pytest.raises(UnreachableRowsError) as caught:
        for page in phone_numbers(http, ask):
            pages.append(page)  # noqa: PERF402 - what came before the error counts
    assert len(set(numbers(pages))) == 200
    assert "250 phone numbers" in caught.value.what


def test_an_instance_that_does_not_exist_leaves_the_others_to_be_read() -> None:
    fake, pages = filled(3), []
    with (
        listed(fake, instance_ids=("ccc-gone", "ccc-sandbox")) as (http, ask),
        pytest.raises(MissingError, match="ccc-gone"),
    ):
        for page in phone_numbers(http, ask):
            pages.append(page)  # noqa: PERF402 - what came before the error counts
    assert len(numbers(pages)) == 3


def test_the_probe_counts_each_instance() -> None:
    with listed(fake := filled(3)) as (http, ask):
        assert probe_phone_numbers(http, ask) == "ccc-sandbox: 3 phone numbers"
    assert spans(fake) == [(0, 1)]


@pytest.mark.fault(72)
def test_an_error_shows_no_number() -> None:
    answer = {"Code": "Invalid", "Message": "Number 13800138000 is odd", "HttpStatusCode": 400}
    with pytest.raises(ProviderError) as caught:
        scanned(Script(answer))
    assert "13800138000" not in str(caught.value)


# --- masked numbers ------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [2, 3, 100])
def test_numbers_that_are_masked_alike_are_told_apart_by_when_they_joined(size: int) -> None:
    rows = [
        row("0105550****", 3), row("0105551****", 9), row("0105550****", 1), row("0100000001"),
        row("0105550****", 2),
    ]  # fmt: skip
    script = Pages(rows)
    pages = scanned(script, size)
    assert set(numbers(pages)) == {
        "0105550****", "0105550****/2", "0105550****/3", "0105551****", "0100000001",
    }  # fmt: skip
    assert {each["Number"]: each["CreateTime"] for page in pages for each in page.records}[
        "0105550****"
    ] == "1"


def test_those_that_joined_at_once_are_told_apart_if_one_answer_shows_them() -> None:
    rows = [row("0105550****", 1, City=city) for city in ("a", "b")]
    pages = scanned(Pages(rows))
    assert len(pages) == 1  # one answer shows one instant, and proves itself
    assert numbers(pages) == ["0105550****", "0105550****/1/1"]
    assert [each["City"] for page in pages for each in page.records] == ["a", "b"]


def test_a_masked_number_that_two_pages_show_is_one() -> None:
    fake = filled(25)
    fake.masks_numbers = True
    store = fake.phone_numbers["ccc-sandbox"]
    for place, key in enumerate(store.keys()):
        store.update_silently(key, CreateTime=str(JOINED + place))
    pages = scanned(fake, size=10)
    assert len(set(numbers(pages))) == len(numbers(pages)) == 25
    assert pages[-1].total == 25


class Pages(Script):
    """Pages through fixed rows, with no more than `most` on a page."""

    def __init__(self, rows: list[dict[str, Any]], most: int = 100) -> None:
        super().__init__()
        self.rows = rows
        self.most = most

    def handle(self, request: Request) -> Response:
        page, size = (int(request.params[name]) for name in ("PageNumber", "PageSize"))
        size = min(size, self.most)
        found = self.rows[(page - 1) * size : page * size]
        self.answers = [envelope(found, len(self.rows))]
        return super().handle(request)


@pytest.mark.parametrize("most", [10, 50])
def test_smaller_pages_than_asked_for_are_read_all_the_same(most: int) -> None:
    pages = scanned(Pages([row(number) for number in range(230)], most))
    assert set(numbers(pages)) == {row(number)["Number"] for number in range(230)}


# --- rows ----------------------------------------------------------------------------------------
def phone_number(**members: Any) -> tuple[Named, Rows]:
    sent = [{"Number": "0100000001", **members}]
    rows = transformed("alibaba.phone_numbers", sent, scope="ccc-test")
    (found,) = named(rows, "alibaba.phone_numbers")
    for name in ("ord", "partial", "instance_id", "number"):
        del found[name]
    return found, rows


def test_the_documented_numbers_become_exactly_these_rows() -> None:
    records = example("alibaba/phone_numbers")["Data"]["List"]
    rows = transformed("alibaba.phone_numbers", records, scope="ccc-test")
    every = {"partial": False, "instance_id": "ccc-test", "user_id": ""}
    joined = datetime(2020, 1, 8, 4, 18, 1, tzinfo=UTC)
    assert named(rows, "alibaba.phone_numbers") == [
        {
            **every,
            "ord": 0,
            "number": "0100000001",
            "active": True,
            "contact_flow_id": "00000000-0000-4000-8000-000000000001",
            "contact_flow_name": "main",
            "usage": "Bidirection",
            "provider": "",
            "province": "",
            "city": "",
            "create_time": joined,
            "extra": {"Tags": "[]"},
        },
        {
            **every,
            "ord": 1,
            "number": "0100000002",
            "active": False,
            "contact_flow_id": "",
            "contact_flow_name": "",
            "usage": "Inbound",
            "create_time": joined,
        },
    ]
    assert named(rows, "alibaba.phone_number_skill_groups") == [
        {
            "ord": 0,
            "instance_id": "ccc-test",
            "number": "0100000001",
            "skill_group_id": "sales@ccc-test",
            "name": "sales",
            "display_name": "Sales",
            "extra": {"InstanceId": "ccc-test"},
        }
    ]
    assert (rows.rejects, rows.warnings) == ([], 0)


@pytest.mark.fault(16)
@pytest.mark.parametrize("sent", ["", "0", "2021-03-08 15:34:49.0", "1578457081000.5"])
def test_a_time_that_is_no_number_of_milliseconds_is_kept_and_counted(sent: str) -> None:
    found, rows = phone_number(CreateTime=sent)
    assert found == {"extra": {"CreateTime": sent}}
    assert rows.warnings == 1


def test_skill_groups_that_cannot_be_read_keep_those_that_are_there() -> None:
    _, rows = phone_number(SkillGroups="none")
    assert rows.tables["alibaba.phone_numbers"][0][1] is True
    assert [each.reason for each in rows.rejects] == [
        "SkillGroups of phone number 0100000001: it is text that is not the JSON of a list, or of"
        " one of more than 200000 items"
    ]


def test_a_record_without_a_number_is_rejected() -> None:
    bad: list[Any] = [{"Number": ""}, {"Number": 100000001}, {}, "0100000001"]
    rows = transformed("alibaba.phone_numbers", bad, scope="ccc-test")
    assert [each.payload for each in rows.rejects] == bad

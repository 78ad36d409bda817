"""Lists that never end: what stops a scan that goes round in circles, and what does not."""

import itertools
import random
from typing import Any

import pytest

from etl.errors import ContractError
from etl.extract.paging import Guard
from etl.extract.twilio import channels
from etl.extract.zoom import flows
from etl.sandbox.exchange import Request, Response, json_response
from etl.sandbox.faults import Fault
from tests.extract.scripted import Script
from tests.extract.sources import twilio_lists, zoom_flows
from tests.extract.test_twilio import page, sids


def rows(*names: Any) -> list[Any]:
    return [{"sid": name} for name in names]


def guarded(pages: Any, *, most: int = 100_000) -> int:
    """How many of the pages a scan reads before it is stopped; each has a token of its own."""
    guard = Guard("demo.stream", "sid")
    for number, records in enumerate(itertools.islice(pages, most), 1):
        try:
            guard.note(records)
            guard.check_progress(f"token {number}")
        except ContractError as error:
            assert error.what.startswith("paging loops: ")
            assert error.where == f"demo.stream, page {number}"
            return number
    return -1


@pytest.mark.fault(11, 12)
def test_the_same_page_with_fresh_tokens_ends_at_once() -> None:
    assert guarded(itertools.repeat(rows("a", "b"))) == 3
    assert guarded(itertools.repeat([{"sid": "a", "date": n} for n in range(3)])) == 3
    assert guarded(rows(str(n % 2)) for n in itertools.count()) == 2 + 21


@pytest.mark.fault(11)
@pytest.mark.parametrize("pages", [1, 5, 30, 200])
def test_a_list_that_begins_again_ends_after_twice_its_length(pages: int, seed: int) -> None:
    """In any order, and though its records change while it is read."""
    order = random.Random(seed)
    names = [f"row {number}" for number in range(7 * pages)]

    def again() -> Any:
        for change in itertools.count():
            for start in range(0, len(names), 7):
                yield [{"sid": name, "change": change} for name in names[start : start + 7]]
            order.shuffle(names)

    assert guarded(again()) <= max(2 * pages + 1, pages + 21)


@pytest.mark.fault(13)
def test_empty_pages_with_a_known_row_now_and_then_end() -> None:
    assert guarded(rows("a") if n % 5 == 0 else [] for n in itertools.count()) == 1 + 21
    assert guarded("not a record" if n % 2 else [None] for n in itertools.count()) <= 2 + 21


def test_a_pointer_that_is_too_long_is_not_followed() -> None:
    guard = Guard("demo.stream", "sid")
    for length in (16_384, 16_385):
        guard.note(rows(str(length)))
        if length > 16_384:
            with pytest.raises(ContractError, match="next page has 16385 characters"):
                guard.check_progress("x" * length)
        else:
            guard.check_progress("x" * length)


def test_what_brings_something_new_now_and_then_goes_on() -> None:
    assert guarded((rows(n) if n % 20 == 0 else [] for n in itertools.count()), most=3000) == -1
    # A page of many known rows and a new one, as when rows were added at the front.
    known = [str(n) for n in range(50)]
    assert guarded((rows(*known, f"new {n}") for n in itertools.count()), most=3000) == -1


def test_a_long_list_is_not_taken_for_a_circle_and_little_is_kept_of_it() -> None:
    guard = Guard("demo.stream", "sid")
    for number in range(500):
        guard.note(rows(*(f"CH{number:06}{row:04}" for row in range(1000))))
        guard.check_progress(str(number))
    assert len(guard._seen) == 2**21
    assert guard._news == 500


@pytest.mark.parametrize("odd", [None, [], {}, "", 5, 1.5, True, [[[[1]]]], {"sid": ["x"]}])
def test_records_without_an_id_are_told_apart_by_what_they_hold(odd: Any) -> None:
    assert guarded([[odd]] * 30) == 3
    assert guarded(([odd, {"sid": str(n)}] for n in range(30)), most=30) == -1


def test_a_record_that_nests_as_deeply_as_can_be_read_is_no_error() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert guarded([[deep, {"sid": str(n)}] for n in range(3)]) == -1


@pytest.mark.fault(12)
def test_zooms_page_token_that_is_ignored_is_noticed_on_the_third_page() -> None:
    tokens = itertools.count()

    def first(request: Request, honest: Response) -> Response:
        body = {"flows": [{"flow_id": "a"}], "next_page_token": f"t{next(tokens)}"}
        return json_response(200, body)

    script = Script({"access_token": "t", "expires_in": 3600})
    script.faults.append(Fault(path="*/flows", times=None, response=first))
    with zoom_flows(script) as http:
        with pytest.raises(ContractError, match="so the page token is ignored"):
            list(flows(http))
        assert http.requests == 3


@pytest.mark.fault(12)
@pytest.mark.parametrize("more", [True, False], ids=["endless", "the last page"])
def test_twilios_page_that_is_ignored_is_noticed_by_its_echo(more: bool) -> None:
    script = Script()
    with twilio_lists(script) as http:
        url = f"{script.url}/v1/Channels?Page=1&PageToken="
        first = page(f"{url}1", [{"sid": "a"}])
        script.answers = [first, page(f"{url}2" if more else None, [{"sid": "a"}], page=0)]
        with pytest.raises(ContractError, match="page 1 was asked for, page 0 was answered"):
            list(channels(http))
        assert len(script.requests) == 2


@pytest.mark.parametrize("told", [0, "0", None, "x", 1, 2.0, True])
def test_an_echo_that_differs_harms_nothing_while_new_rows_come(told: Any) -> None:
    script = Script()
    with twilio_lists(script) as http:
        url = f"{script.url}/v1/Channels?Page=1"
        script.answers = [page(url, [{"sid": "a"}]), page(None, [{"sid": "b"}], page=told)]
        assert sids(list(channels(http))) == ["a", "b"]

"""Lists that never end: what stops a scan that goes round in circles, and what does not."""

import itertools
import random
from typing import Any

import pytest

from etl.errors import ContractError, CredentialsError, MissingError, UnreadableError
from etl.extract.answer import Answer
from etl.extract.http import Http
from etl.extract.page import Lookup, Params, ScanRequest
from etl.extract.paging import CursorList, Envelope, Guard, look_up, pages
from etl.extract.twilio import channels
from etl.extract.zoom import flows
from etl.sandbox.exchange import Request, Response, json_response
from etl.sandbox.faults import Fault, empty
from tests.extract.scripted import Script, connected
from tests.extract.sources import twilio_lists, zoom_flows
from tests.providers.twilio.test_extract import page, sids


def rows(*names: Any) -> list[Any]:
    return [{"sid": name} for name in names]


def guarded(pages: Any, *, most: int = 100_000) -> int:
    """Return how many of the pages a scan reads before it is stopped; each has its own token."""
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
def test_a_list_that_starts_again_ends_after_twice_its_length(pages: int, seed: int) -> None:
    """Its records may be in any order and change while they are read."""
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


def test_a_list_that_sometimes_brings_something_new_is_read_on() -> None:
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
def test_records_without_an_id_are_compared_by_what_they_hold(odd: Any) -> None:
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
        assert http.budget.requests == 1 + 3  # and one for the token


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


@pytest.mark.parametrize("answered", [0, "0", None, "x", 1, 2.0, True])
def test_an_echo_that_differs_harms_nothing_while_new_rows_come(answered: Any) -> None:
    script = Script()
    with twilio_lists(script) as http:
        url = f"{script.url}/v1/Channels?Page=1"
        script.answers = [page(url, [{"sid": "a"}]), page(None, [{"sid": "b"}], page=answered)]
        assert sids(list(channels(http))) == ["a", "b"]


# --- a list of a new provider --------------------------------------------------------------------
def numbered(*, resumable: bool = False) -> CursorList:
    """Return a list with numbers as pointers: the least that a provider has to declare."""

    def request(http: Http, pointer: str | None) -> tuple[str, Params | None]:
        if pointer == "elsewhere":
            raise ContractError("the next page is elsewhere")
        return "/things", {} if pointer is None else {"after": pointer}

    def read(body: dict[str, Any], pointer: str | None, where: str) -> Envelope:
        if "things" not in body:
            raise ContractError("no things", where=where)
        return Envelope(body["things"], body.get("next"), body.get("count"))

    return CursorList(request, read, ("things",), "id", resumable)


def test_a_new_list_is_read_to_its_end() -> None:
    script = Script({"things": [{"id": "a"}], "next": "1", "count": 2}, {"things": [{"id": "b"}]})
    with connected(script) as http:
        found = list(pages(http, numbered()))
    assert [(p.records, p.number, p.total) for p in found] == [
        ([{"id": "a"}], 1, 2),
        ([{"id": "b"}], 2, None),
    ]
    assert [request.params for request in script.requests] == [{}, {"after": "1"}]


@pytest.mark.parametrize("resumable", [True, False])
def test_only_a_resumable_list_gives_pointers_and_goes_on_from_one(resumable: bool) -> None:
    script = Script({"things": [{"id": "c"}], "next": "3"}, {"things": []})
    with connected(script) as http:
        found = list(pages(http, numbered(resumable=resumable), ScanRequest(resume="2", pages=2)))
    assert script.requests[0].params == ({"after": "2"} if resumable else {})
    assert [p.number for p in found] == ([3, 4] if resumable else [1, 2])
    assert [p.next_pointer for p in found] == (["3", None] if resumable else [None, None])


def test_an_error_names_the_page_that_is_to_blame() -> None:
    with connected(Script({"things": [], "next": "elsewhere"})) as http:
        with pytest.raises(ContractError) as caught:
            list(pages(http, numbered()))
        assert caught.value.where == "demo.stream, page 1"
    with connected(Script({"things": [], "next": "1"}, {})) as http:
        with pytest.raises(ContractError) as caught:
            list(pages(http, numbered()))
        assert caught.value.where == "demo.stream, page 2"


# --- look-ups ------------------------------------------------------------------------------------
def by_status(answer: Answer) -> None:
    kinds = {404: MissingError, 403: UnreadableError, 401: CredentialsError, 410: ContractError}
    if answer.status in kinds:
        raise kinds[answer.status](f"HTTP {answer.status}")


def looked_up(answer: Any, *key: str) -> tuple[Lookup, Script]:
    script = Script(answer)
    with connected(script, judge=by_status) as http:
        found = look_up(
            http,
            key,
            path="/instances/{}/flows/{}",
            members=(None, "id"),
            provider="Demo",
            noun="flow",
        )
    return found, script


def test_a_key_of_two_parts_is_looked_up() -> None:
    found, script = looked_up({"id": "f/1"}, "i 1", "f/1")
    assert found == Lookup("found", record={"id": "f/1"})
    assert script.requests[0].target == "/instances/i%201/flows/f%2F1"


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (empty(404), "gone", ""),
        (empty(403), "unreadable", "HTTP 403"),
        (empty(410), "undecided", "HTTP 410"),
        ({"id": "other"}, "undecided", "Demo answered with another flow"),
    ],
)
def test_only_the_provider_s_own_word_says_that_a_record_is_gone(
    answer: Any, state: str, reason: str
) -> None:
    found, _ = looked_up(answer, "i", "f")
    assert found.state == state
    assert reason in found.reason


def test_a_look_up_that_may_not_be_made_at_all_is_an_error() -> None:
    with pytest.raises(CredentialsError):
        looked_up(empty(401), "i", "f")


@pytest.mark.parametrize("key", [("", "f"), ("..", "f"), ("i", "."), ("i", "\ud800")])
def test_a_part_that_cannot_stand_in_a_url_is_not_asked_for(key: tuple[str, str]) -> None:
    found, script = looked_up({"id": key[1]}, *key)
    assert found.state == "unasked"
    assert not script.requests

"""Which streams suffer from the same, whatever their names, pages and ids."""

import pytest

from etl.status.causes import grouped, key, problem_of, without_name
from etl.status.health import StreamHealth
from tests.web.fleet import stream

ADVICE = "check the network"


def same(first: str, second: str, *, advice: str = ADVICE) -> bool:
    """Return whether the problems of zoom_eu.flows and of twilio_main.studio_flows are one."""
    return key("zoom_eu", "flows", first, ADVICE) == key(
        "twilio_main", "studio_flows", second, advice
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("HTTP 503", "HTTP 503"),
        ("zoom_eu.flows, page 1: HTTP 503", "twilio_main.studio_flows, page 17: HTTP 503"),
        ("zoom_eu.flows: HTTP 503", "twilio_main.studio_flows, page 2: HTTP 503"),
        ("page 3: HTTP 503 (6 attempts)", "page 1: HTTP 503 (1 attempt)"),
        ("the list of zoom_eu ended", "the list of twilio_main ended"),
        ("3 of 5 flows of zoom_eu were", "3 of 5 studio flows of twilio_main were"),
        (
            "flow 0f4de2a1-77aa-4b3c-9a55-b1d2c3d4e5f6: HTTP 500",
            "flow FW00112233445566778899aabbccddeeff: HTTP 500",
        ),
    ],
)
def test_these_are_the_same(first: str, second: str) -> None:
    assert same(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("HTTP 503", "HTTP 504"),
        ("cannot connect to a.example:443", "cannot connect to a.example:444"),
        ("cannot connect to a.example", "cannot connect to b.example"),
        ("3 of 5 rows", "4 of 5 rows"),
        ("page 1: HTTP 503", "page 1: no answer"),
    ],
)
def test_these_are_not(first: str, second: str) -> None:
    assert not same(first, second)


def test_advice_that_names_something_else_is_another_cause() -> None:
    assert not same("HTTP 503", "HTTP 503", advice="run `callflow sync twilio_main`")


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("zoom_eu.flows, page 1: no", "page 1: no"),
        ("zoom_eu.flows: no", "no"),
        ("zoom_eu.flows2: no", "zoom_eu.flows2: no"),
        ("zoom_eu.flows", "zoom_eu.flows"),
        ("no", "no"),
        ("", ""),
    ],
)
def test_a_name_at_the_start_is_left_out(text: str, rest: str) -> None:
    assert without_name("zoom_eu.flows", text) == rest


def test_streams_of_one_cause_stand_together_in_their_order() -> None:
    def bad(name: str, problem: str, state: str = "failed") -> StreamHealth:
        return stream("a", name, state=state, problem=f"a.{name}, {problem}", advice=ADVICE)

    streams = [bad("x", "page 4: no"), bad("y", "page 4: yes"), bad("z", "page 7: no"),
               bad("w", "page 4: no", "incomplete")]  # fmt: skip
    found = [(each.problem, [s.stream for s in each.streams]) for each in grouped(streams)]
    assert found == [("no", ["x", "z"]), ("page 4: yes", ["y"]), ("page 4: no", ["w"])]
    assert grouped([]) == ()


def test_a_stream_without_a_reason_says_how_its_last_run_ended() -> None:
    assert problem_of(stream(last_status="failed")) == "its last run ended failed"
    assert problem_of(stream(last_status=None)) == "its last run ended in no known way"

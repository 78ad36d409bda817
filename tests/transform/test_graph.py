"""Findings about a graph: each kind, every shape, and work in proportion to its size."""

import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from random import Random
from types import FrameType
from typing import Any

import pytest

from etl.transform import graph
from etl.transform.graph import Finding, Link, Step
from tests.transform import naive

START = Step("start", starts=True)
END = Step("end", ends=True)

Graph = tuple[list[Step], list[Link]]


def found(steps: Iterable[Step], links: Iterable[Link]) -> list[Finding]:
    every = list(graph.findings(steps, links))
    keys = [each[:3] for each in every]
    assert len(set(keys)) == len(keys)
    return every


def ways(spelt: str) -> list[Link]:
    """Links of "from event to, …"; "-" is no next."""
    parts = (each.split() for each in spelt.split(",") if each.strip())
    return [Link(step, event, None if to == "-" else to) for step, event, to in parts]


def named(count: int) -> list[str]:
    return [f"s{number}" for number in range(count)]


def test_a_sound_graph_has_no_findings() -> None:
    steps = [START, Step("menu"), Step("queue"), END]
    links = ways("start ok menu, menu 1 queue, menu 2 end, queue ok end, end ok -")
    assert found(steps, links) == []


def test_a_step_that_no_path_from_a_start_leads_to() -> None:
    steps = [START, END, Step("lost"), Step("behind"), Step("other", starts=True), Step("seen")]
    links = ways("start ok end, lost ok behind, behind ok end, other ok seen, seen ok end")
    assert found(steps, links) == [Finding("unreachable", "lost"), Finding("unreachable", "behind")]


@pytest.mark.parametrize("links", ["", "stuck ok -", "stuck ok -, stuck no -"])
def test_a_step_that_nothing_leads_on_from_is_a_dead_end_unless_the_call_ends(links: str) -> None:
    steps = [START, Step("stuck"), END]
    assert found(steps, ways(f"start ok stuck, start no end, {links}, end ok -")) == [
        Finding("dead_end", "stuck")
    ]


def test_an_event_without_next_beside_others_is_open() -> None:
    links = ways("start ok end, start error -, start - -, start error -")
    assert found([START, END], links) == [
        Finding("open_event", "start", "error"),
        Finding("open_event", "start", "-"),
    ]


def test_a_link_to_no_step_is_named_and_does_not_lead_on() -> None:
    links = ways("start ok end, start error gone, end ok lost, end no -")
    assert found([START, END], links) == [
        Finding("broken_link", "start", "error", "gone"),
        Finding("open_event", "end", "no"),
        Finding("broken_link", "end", "ok", "lost"),
    ]
    assert found([START], ways("start ok gone")) == [
        Finding("dead_end", "start"),
        Finding("broken_link", "start", "ok", "gone"),
    ]


def test_what_repeated_events_name_is_in_one_finding() -> None:
    links = ways("start ok x, start ok y, start ok x, start ok end")
    assert found([START, END], links) == [Finding("broken_link", "start", "ok", "x, y")]


def test_each_step_on_a_cycle_is_named_with_the_others() -> None:
    steps = [START, Step("c"), Step("a"), Step("b"), Step("self"), Step("on"), END]
    links = ways(
        "start ok c, c ok a, a ok b, b ok c, b no self, self ok self, self no on, on ok end"
    )
    assert set(found(steps, links)) == {
        *(Finding("loop", each, detail="a, b, c") for each in "abc"),
        Finding("loop", "self", detail="self"),
    }
    assert set(found(steps[::-1], links[::-1])) == set(found(steps, links))


@pytest.mark.parametrize(("size", "more"), [(20, ""), (21, " and 1 more"), (50, " and 30 more")])
def test_twenty_steps_of_a_loop_are_named(size: int, more: str) -> None:
    ids = [f"{number:02}" for number in range(size)]
    Random(1).shuffle(ids)
    links = [Link(each, "ok", ids[number - 1]) for number, each in enumerate(ids)]
    details = {each.detail for each in found([Step(each, starts=True) for each in ids], links)}
    assert details == {", ".join(sorted(ids)[:20]) + more}


def test_without_a_start_the_lowest_order_is_one_and_without_that_nothing_is_unreachable() -> None:
    links = ways("a ok end, b ok end")
    ordered = [Step("a", order=3), Step("b", order=-1), END, Step("c", order=-1, ends=True)]
    assert found(ordered, links) == [Finding("unreachable", "a"), Finding("unreachable", "c")]
    assert found([Step("a"), Step("b"), END], links) == [Finding("no_start")]
    assert found([], []) == [Finding("no_start")]


def test_of_a_repeated_id_the_last_step_counts_and_links_of_no_step_do_not() -> None:
    steps = [Step("a", starts=True), Step("b"), Step("a", order=1, ends=True)]
    assert found(steps, ways("gone ok a, gone no -")) == [
        Finding("unreachable", "b"),
        Finding("dead_end", "b"),
    ]


def chain(size: int) -> Graph:
    ids = named(size)
    steps = [Step(each, starts=not n, ends=n == size - 1) for n, each in enumerate(ids)]
    return steps, [Link(a, "ok", b) for a, b in pairwise(ids)]


def cycle(size: int) -> Graph:
    steps, links = chain(size)
    return steps, [*links, Link(steps[-1].id, "ok", steps[0].id)]


def backwards(size: int) -> Graph:
    steps, links = chain(size)
    return steps[::-1], links[::-1]


def many_cycles(size: int) -> Graph:
    """Every step leads on and back: each cycle is part of a larger one."""
    steps, links = chain(size)
    return steps, [*links, *(Link(link.next or "", "back", link.step) for link in links)]


def dense(size: int) -> Graph:
    """As many links as in a chain of `size`, each step with each."""
    ids = named(int(size**0.5))
    return [Step(each, starts=True) for each in ids], [Link(a, b, b) for a in ids for b in ids]


def star(size: int) -> Graph:
    ids = named(size)
    steps = [Step(each, starts=not n, ends=True) for n, each in enumerate(ids)]
    return steps, [Link(ids[0], each, each) for each in ids]


def twins(size: int) -> Graph:
    return [Step("a", starts=True)] * size, [Link("a", "ok", "a")] * size


def selves(size: int) -> Graph:
    return [Step(each) for each in named(size)], [Link(e, "ok", e) for e in named(size)]


def broken(size: int) -> Graph:
    return [START], [Link("start", "ok", each) for each in named(size)]


def opened(size: int) -> Graph:
    return [START, END], [
        Link("start", "ok", "end"),
        *(Link("start", e, None) for e in named(size)),
    ]


SHAPES: dict[Callable[[int], Graph], dict[str, int]] = {
    chain: {},
    backwards: {},
    cycle: {"loop": 5000},
    many_cycles: {"loop": 5000},
    dense: {"loop": 70},
    star: {"loop": 1},
    twins: {"loop": 1},
    selves: {"no_start": 1, "loop": 5000},
    broken: {"dead_end": 1, "broken_link": 1},
    opened: {"open_event": 5000},
}
"""The shape → its findings, with a size of 5,000."""

shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)


@shapes
def test_thousands_of_steps_in_any_shape(shape: Callable[[int], Graph]) -> None:
    counts: dict[str, int] = {}
    for each in found(*shape(5000)):
        counts[each.finding] = counts.get(each.finding, 0) + 1
    assert counts == SHAPES[shape]


def work(steps: list[Step], links: list[Link]) -> int:
    """How many lines of the module are run, and characters of details made, for a graph."""
    lines = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != graph.__file__:
            return None
        lines += event in ("line", "call")  # a generator expression is called for each item
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        every = list(graph.findings(steps, links))
    finally:
        sys.settrace(before)
    return lines + sum(len(each.detail or "") for each in every)


@shapes
def test_the_work_grows_with_the_steps_and_links(shape: Callable[[int], Graph]) -> None:
    short, long = work(*shape(400)), work(*shape(1600))
    assert long < 4.4 * short  # a detail counts the steps that it does not name: "and 1580 more"


def random_graph(random: Random) -> Graph:
    ids = named(random.randrange(9))
    kinds = random.choice(((False,), (False, True)))
    steps = [
        Step(each, random.choice(kinds), random.choice((None, 1, 2, 3)), random.random() < 0.3)
        for each in ids
    ]
    links = [
        Link(step, random.choice("ab"), random.choice((*ids, *ids, "gone", "lost", None)))
        for step in ids
        for _ in range(random.choice((0, 1, 1, 2, 3)))
    ]
    return steps, links


def test_random_graphs_have_what_a_naive_search_finds(seed: int) -> None:
    for number in range(2000):
        random = Random(f"{seed} {number}")
        steps, links = random_graph(random)
        expected = naive.found(steps, links)
        seen = found(steps, links)
        assert {(e.step, e.finding, e.event, e.detail) for e in seen} == expected, (seed, number)
        links = random.sample(links, len(links))
        again = {each._replace(detail=None) for each in found(steps, links)}
        assert again == {each._replace(detail=None) for each in seen}, (seed, number)

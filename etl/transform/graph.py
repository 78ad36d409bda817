"""What is wrong with a graph of steps that a call goes through: values in, findings out.

It knows no provider, and takes time in proportion to the steps and links, whatever their shape: a
chain of thousands, a cycle of thousands, a dense graph. So nothing here recurses.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import Final, NamedTuple

NAMED: Final = 20
"""How many steps of a loop are named: each step on it has them in its finding."""


class Step(NamedTuple):
    """A step of a flow. Of steps with the same id only the last counts.

    `starts` a call can start here; `order` if no step says so, it starts at the lowest one.
    `ends`   the call may end here, so that it is no dead end.
    """

    id: str
    starts: bool = False
    order: int | None = None
    ends: bool = False


class Link(NamedTuple):
    """An event of the step `step` and the id of the step that it leads to, None if to none."""

    step: str
    event: str
    next: str | None


class Finding(NamedTuple):
    """What was found: `step` is "" if it is about the flow, `event` if about no single event."""

    finding: str
    step: str = ""
    event: str = ""
    detail: str | None = None


Onward = Mapping[int, list[int]]
"""The number of a step → the numbers of those that follow it, as often as links say so."""


class _Graph(NamedTuple):
    """The steps, numbered, and where their links lead.

    `broken` number of a step → event → the ids that it names although no step has them.
    `open`   number of a step → the events that name none; as keys, so that each is there once.
    """

    steps: list[Step]
    onward: Onward
    broken: Mapping[int, dict[str, list[str]]]
    open: Mapping[int, dict[str, None]]


def findings(steps: Iterable[Step], links: Iterable[Link]) -> Iterator[Finding]:
    """Yield what is found about the graph; no two with the same finding, step and event.

    `no_start`     there is no step at which a call could start.
    `unreachable`  no path leads from a start to the step.
    `dead_end`     no event leads on to a step, and the call does not end here.
    `open_event`   the event has no next, while another one of the step has.
    `broken_link`  the event's next is no step; the detail is the id that it names.
    `loop`         the step is on a cycle; the detail names the steps that are on it together.

    Links that leave no step of the graph are ignored.
    """
    graph = _graph(steps, links)
    yield from _unreached(graph)
    for number in range(len(graph.steps)):
        yield from _of_step(graph, number)
    yield from _loops(graph)


def _graph(steps: Iterable[Step], links: Iterable[Link]) -> _Graph:
    unique = list({step.id: step for step in steps}.values())
    numbers = {step.id: number for number, step in enumerate(unique)}
    onward: dict[int, list[int]] = {}  # a list for each step would take much for steps alone
    broken: dict[int, dict[str, list[str]]] = {}
    unled: dict[int, dict[str, None]] = {}
    for link in links:
        number = numbers.get(link.step)
        if number is None:
            continue
        following = None if link.next is None else numbers.get(link.next)
        if following is not None:
            onward.setdefault(number, []).append(following)
        elif link.next is not None:
            broken.setdefault(number, {}).setdefault(link.event, []).append(link.next)
        else:
            unled.setdefault(number, {})[link.event] = None
    return _Graph(unique, onward, broken, unled)


def _unreached(graph: _Graph) -> Iterator[Finding]:
    """Yield the steps that no path leads to, or that there is no start."""
    starts = _starts(graph.steps)
    if not starts:
        yield Finding("no_start")
        return
    seen = bytearray(len(graph.steps))
    _reach(graph.onward, starts, seen)
    yield from (
        Finding("unreachable", step.id)
        for step, is_reached in zip(graph.steps, seen, strict=True)
        if not is_reached
    )


def _starts(steps: Sequence[Step]) -> list[int]:
    if starts := [number for number, step in enumerate(steps) if step.starts]:
        return starts
    ordered = [(step.order, number) for number, step in enumerate(steps) if step.order is not None]
    return [min(ordered)[1]] if ordered else []


def _of_step(graph: _Graph, number: int) -> Iterator[Finding]:
    """Yield what is found about the links of one step."""
    step, broken = graph.steps[number], graph.broken.get(number, {})
    if number not in graph.onward and not step.ends:
        yield Finding("dead_end", step.id)
    if number in graph.onward or broken:
        yield from (Finding("open_event", step.id, event) for event in graph.open.get(number, ()))
    for event, named in broken.items():
        yield Finding("broken_link", step.id, event, ", ".join(dict.fromkeys(named)))


def _loops(graph: _Graph) -> Iterator[Finding]:
    for loop in _knots(graph.onward, len(graph.steps)):
        if len(loop) > 1 or loop[0] in graph.onward.get(loop[0], ()):
            ids = [graph.steps[number].id for number in loop]
            # By id, so that activities that only change places leave it as it is.
            detail = ", ".join(nsmallest(NAMED, ids))
            if len(ids) > NAMED:
                detail += f" and {len(ids) - NAMED} more"
            yield from (Finding("loop", step, detail=detail) for step in ids)


def _knots(onward: Onward, size: int) -> Iterator[list[int]]:
    """Yield the strongly connected components, each as its steps (Kosaraju's algorithm)."""
    back: dict[int, list[int]] = {}
    for number, following in onward.items():
        for each in following:
            back.setdefault(each, []).append(number)
    seen = bytearray(size)
    for number in reversed(_finished(onward, size)):
        if not seen[number]:
            yield _reach(back, [number], seen)


def _finished(onward: Onward, size: int) -> list[int]:
    """Return the steps in the order in which a search, depth first, is done with them."""
    done: list[int] = []
    seen = bytearray(size)
    for root in range(size):
        if seen[root]:
            continue
        seen[root] = True
        path = [(root, iter(onward.get(root, ())))]
        while path:
            number, rest = path[-1]
            following = next((each for each in rest if not seen[each]), None)
            if following is None:
                done.append(number)
                path.pop()
            else:
                seen[following] = True
                path.append((following, iter(onward.get(following, ()))))
    return done


def _reach(onward: Onward, starts: Sequence[int], seen: bytearray) -> list[int]:
    """Return `starts` and all steps that they lead to and that are not `seen` yet; mark them."""
    found = list(starts)
    for start in starts:
        seen[start] = True
    for number in found:  # it grows meanwhile
        for each in onward.get(number, ()):
            if not seen[each]:
                seen[each] = True
                found.append(each)
    return found

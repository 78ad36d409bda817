"""Reading ahead: the items in their order, and no more of them than asked for."""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import pytest

from etl.sync.prefetch import prefetch

SOON = 30.0


def idle() -> None:
    pass


def read_ahead(
    items: Iterator[Any], depth: int = 2, tick: Callable[[], None] = idle
) -> Generator[Any, None, None]:
    found = prefetch(items, depth=depth, tick=tick, every=0.01)
    assert isinstance(found, Generator)
    return found


def test_items_are_yielded_in_order() -> None:
    assert list(read_ahead(iter(range(1000)))) == list(range(1000))
    assert list(read_ahead(iter([]))) == []


def test_none_and_exceptions_are_items_like_others() -> None:
    error = ValueError("an item")
    assert list(read_ahead(iter([None, error, ()]))) == [None, error, ()]


def test_the_next_item_is_produced_while_this_one_is_used() -> None:
    produced = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for number, event in enumerate(produced):
            event.set()
            yield number

    with closing(read_ahead(items())) as found:
        assert next(found) == 0
        assert produced[1].wait(SOON)  # before it is asked for


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_no_more_are_produced_than_depth_beyond_those_asked_for(depth: int) -> None:
    made: list[int] = []
    progress = threading.Condition()

    def items() -> Iterator[int]:
        for number in range(100):
            with progress:
                made.append(number)
                progress.notify_all()
            yield number

    with closing(read_ahead(items(), depth)) as found:
        for asked in (1, 2):
            assert next(found) == asked - 1
            with progress:
                assert progress.wait_for(lambda: len(made) == depth + asked, SOON)  # noqa: B023
                assert not progress.wait_for(lambda: len(made) > depth + asked, 0.1)  # noqa: B023


def test_an_exception_of_the_items_is_raised_in_order() -> None:
    class OddError(Exception):
        pass

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OddError("third")

    found = read_ahead(items())
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(OddError, match="third"):
        next(found)
    assert list(found) == []


def test_an_early_close_closes_the_generator_in_its_thread() -> None:
    closed = threading.Event()
    threads = []

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            threads.append(threading.current_thread())
            closed.set()

    found = read_ahead(items())
    assert next(found) == 1
    found.close()
    assert closed.wait(SOON)
    assert threads[0] is not threading.current_thread()
    threads[0].join(SOON)
    assert not threads[0].is_alive()


def test_the_generator_is_closed_also_after_its_end_and_after_the_caller_s_error() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.set()

    assert list(read_ahead(items())) == [1, 2]
    assert closed.wait(SOON)
    closed.clear()
    with pytest.raises(KeyError), closing(read_ahead(items())) as found:
        for _ in found:
            raise KeyError("in the caller")
    assert closed.wait(SOON)


def test_closing_does_not_wait_for_an_item_that_does_not_come() -> None:
    blocked, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            blocked.set()
            assert go_on.wait(SOON)
            yield 2
        finally:
            closed.set()

    found = read_ahead(items())
    assert next(found) == 1
    assert blocked.wait(SOON)
    found.close()  # comes back although the generator is stuck
    assert not closed.is_set()
    go_on.set()
    assert closed.wait(SOON)


def test_tick_is_called_while_an_item_is_awaited_in_the_caller_s_thread() -> None:
    enough = threading.Event()
    ticks = []

    def tick() -> None:
        ticks.append(threading.current_thread())
        if len(ticks) == 5:
            enough.set()

    def items() -> Iterator[int]:
        assert enough.wait(SOON)  # comes only after five ticks
        yield 1

    assert list(read_ahead(items(), tick=tick)) == [1]
    assert set(ticks) == {threading.current_thread()}


def test_what_tick_raises_ends_the_reading() -> None:
    class StopError(Exception):
        pass

    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            closed.set()

    count = iter(range(100))

    def tick() -> None:
        if next(count) == 3:
            raise StopError

    found = read_ahead(items(), tick=tick)
    with pytest.raises(StopError):
        list(found)
    assert closed.wait(SOON)


def test_an_iterator_that_is_no_generator_needs_no_close() -> None:
    with closing(read_ahead(iter(range(100)))) as found:
        assert next(found) == 0

"""What the pages ask of the warehouse and of Graphviz, bounded in time and in number."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from anyio import move_on_after
from anyio.to_thread import run_sync

from etl.errors import CallflowError, ConfigError, WarehouseError
from etl.load.runs import Run
from etl.status.drawing import Drawing
from etl.status.flows import FlowStory, Row, SourceFlows
from etl.status.stories import RunStory, StreamStory

T = TypeVar("T")
V = TypeVar("V")

Pairs = Sequence[tuple[str, str]]
Runs = Mapping[tuple[str, str], Sequence[Run]]
Draw = Callable[[Drawing], str]
"""Makes the SVG of a flow. Raises CallflowError if there can be none."""

AT_ONCE = 4
"""How many questions to the database, or waits for a picture, are open at a time."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What the warehouse is asked, from any thread. Each may raise CallflowError.

    `recent`  the last runs (newest first, at most 30) of the streams given as (source, stream).
    `latest`  the last changes of all sources, newest first, at most as many as the number given.
    `source`  the flows of a source by its name; none if the warehouse does not know it.
    `flow`    a flow by its `flow_key`; None if the warehouse does not know it.
    `stream`  a stream by (source, stream); nothing of one that the warehouse does not know.
    `run`     a run by its id; None if the warehouse does not know it.
    """

    recent: Callable[[Pairs], Runs]
    latest: Callable[[int], Sequence[Row]]
    source: Callable[[str], SourceFlows]
    flow: Callable[[str], FlowStory | None]
    stream: Callable[[tuple[str, str]], StreamStory]
    run: Callable[[str], RunStory | None]


def limited(questions: Questions) -> Questions:
    """Return the questions, AT_ONCE of them at a time: a hanging database must not use up threads.

    Further ones raise WarehouseError at once.
    """
    free = threading.BoundedSemaphore(AT_ONCE)

    def bounded(ask: Callable[[V], T]) -> Callable[[V], T]:
        def asked(value: V) -> T:
            if not free.acquire(blocking=False):
                raise WarehouseError("the database has not answered the last four questions yet")
            try:
                return ask(value)
            finally:
                free.release()

        return asked

    return Questions(
        recent=bounded(questions.recent),
        latest=bounded(questions.latest),
        source=bounded(questions.source),
        flow=bounded(questions.flow),
        stream=bounded(questions.stream),
        run=bounded(questions.run),
    )


def late(patience: float) -> str:
    """Return why there is no answer after `patience` seconds."""
    return f"the database did not answer within {patience:g} s → reload this page in a moment"


def one_at_a_time(draw: Draw, patience: float) -> Draw:
    """Return `draw` so that one picture is drawn at a time; others wait `patience` seconds.

    It raises ConfigError when the wait was in vain, and at once when AT_ONCE others wait.
    """
    free, waiting = threading.Lock(), threading.BoundedSemaphore(AT_ONCE)

    def drawn(drawing: Drawing) -> str:
        if not waiting.acquire(blocking=False):
            raise _busy()
        try:
            if not free.acquire(timeout=patience):
                raise _busy()
            try:
                return draw(drawing)
            finally:
                free.release()
        finally:
            waiting.release()

    return drawn


def _busy() -> ConfigError:
    return ConfigError("other pictures are being drawn", advice="reload this page in a moment")


async def in_time(
    seconds: float, late: str, ask: Callable[[V], T], value: V
) -> tuple[T | None, str | None]:
    """Call `ask(value)` in a thread; return its result and None, or None and why there is none.

    If it takes longer than `seconds`, `late` is the reason, and the thread is not waited for.
    """
    with move_on_after(seconds):
        try:
            return await run_sync(ask, value, abandon_on_cancel=True), None
        except CallflowError as error:
            return None, str(error)
    return None, late

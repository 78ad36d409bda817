"""Reading ahead: the next page is fetched while this one is loaded."""

import threading
from collections.abc import Callable, Generator, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")


def ahead(
    items: Iterator[T], *, depth: int, tick: Callable[[], None], every: float = 0.5
) -> Iterator[T]:
    """The items of `items`, which a thread produces ahead: up to `depth` wait, one is in its hands.

    `tick` is called in the caller's thread, every `every` seconds at least, also while an item is
    awaited. Whatever `items` raises is raised here, in its place. When the caller stops early, the
    generator is closed by its thread as soon as it comes back from what it is waiting for.
    """
    box: Queue[tuple[T] | BaseException | None] = Queue(depth)
    stop = threading.Event()
    thread = threading.Thread(
        target=_produce, args=(items, box, stop, every), name="read-ahead", daemon=True
    )
    thread.start()
    try:
        while True:
            tick()
            try:
                entry = box.get(timeout=every)
            except Empty:
                continue
            if entry is None:
                return
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stop.set()
        thread.join(timeout=every)


def _produce(
    items: Iterator[T],
    box: "Queue[tuple[T] | BaseException | None]",
    stop: threading.Event,
    every: float,
) -> None:
    def put(entry: tuple[T] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return box.put(entry, timeout=every)
            except Full:
                continue
        return None

    try:
        for item in items:
            put((item,))
            if stop.is_set():
                break
        put(None)
    except BaseException as error:  # noqa: BLE001 - it is raised again, in the caller's thread
        put(error)
    finally:
        if isinstance(items, Generator):
            items.close()

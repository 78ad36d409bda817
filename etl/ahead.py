"""Reading ahead: the next page is fetched while this one is loaded."""

import threading
from collections.abc import Callable, Generator, Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def ahead(
    items: Iterator[T], *, depth: int, tick: Callable[[], None], every: float = 0.5
) -> Generator[T]:
    """The items of `items`, which a thread produces, `depth` more than were asked for at most.

    With a depth of 0 nothing is produced before it is asked for. `tick` is called in the caller's
    thread, every `every` seconds at least, also while an item is awaited. Whatever `items` raises
    is raised here, in its place. When the caller stops early, the generator is closed by its thread
    as soon as it comes back from what it is waiting for.
    """
    box: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    wanted, stop = threading.Semaphore(depth), threading.Event()
    thread = threading.Thread(
        target=_produce, args=(items, box, wanted, stop), name="read-ahead", daemon=True
    )
    thread.start()
    try:
        while True:
            wanted.release()
            while True:
                tick()
                try:
                    entry = box.get(timeout=every)
                    break
                except Empty:
                    continue
            if entry is None:
                return
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stop.set()
        wanted.release()
        thread.join(timeout=every)


def _produce(
    items: Iterator[T],
    box: "SimpleQueue[tuple[T] | BaseException | None]",
    wanted: threading.Semaphore,
    stop: threading.Event,
) -> None:
    try:
        wanted.acquire()
        for item in items:
            box.put((item,))
            wanted.acquire()
            if stop.is_set():
                break
        box.put(None)
    except BaseException as error:  # noqa: BLE001 - it is raised again, in the caller's thread
        box.put(error)
    finally:
        if isinstance(items, Generator):
            items.close()

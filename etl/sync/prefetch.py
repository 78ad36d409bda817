"""Reading ahead: the next page is fetched while this one is loaded."""

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


def ahead(
    items: Iterator[T],
    *,
    depth: int,
    tick: Callable[[], None],
    every: float = 0.5,
    size: Callable[[T], int] = lambda item: 0,
    room: int = 0,
) -> Generator[T]:
    """The items of `items`, which a thread produces, `depth` more than were asked for at most.

    With a depth of 0 nothing is produced before it is asked for. Nor is anything while the items
    that were produced, and that of the caller until it asks for the next, are of more than `room`
    by `size`. `tick` is called in the caller's thread, every `every` seconds at least, also while
    an item is awaited. Whatever `items` raises is raised here, in its place; MemoryError also where
    the thread could not even say so. When the caller stops early, the generator is closed by its
    thread as soon as it comes back from what it is waiting for.
    """
    between = _Between[T](depth)
    thread = threading.Thread(
        target=_produce, args=(items, between, size, room), name="read-ahead", daemon=True
    )
    try:
        thread.start()
    except RuntimeError as error:  # there is no memory for its stack
        raise MemoryError(str(error)) from None
    try:
        taken = 0
        while True:
            between.ask(taken)
            entry = None
            while entry is None:
                tick()
                alive = thread.is_alive()
                with contextlib.suppress(Empty):
                    entry = between.box.get(timeout=every)
                if entry is None and not alive:
                    raise MemoryError("the thread that reads ahead has died")
            if isinstance(entry, BaseException):
                try:
                    raise entry
                finally:
                    del entry  # or this frame and the error would keep each other alive
            if not entry:
                return
            (item,) = entry
            taken = size(item)
            del entry
            yield item
            del item  # it may be large, and the next one is on its way
    finally:
        between.stop()
        thread.join(timeout=every)


@dataclass(slots=True)
class _Between(Generic[T]):
    """What the two threads share: `wanted` items may still be produced, `held` is their size."""

    wanted: int
    held: int = 0
    stopped: bool = False
    box: "SimpleQueue[tuple[T] | tuple[()] | BaseException]" = field(default_factory=SimpleQueue)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def ask(self, taken: int) -> None:
        """Ask for one more item; that of the size `taken` is no longer held."""
        with self.changed:
            self.wanted += 1
            self.held -= taken
            self.changed.notify()

    def hold(self, size: int) -> None:
        with self.changed:
            self.held += size

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify()

    def wait(self, room: int) -> bool:
        """Wait until an item may be produced; False: none is wanted any more."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or (self.wanted > 0 and self.held <= room))
            self.wanted -= 1
            return not self.stopped


def _produce(items: Iterator[T], between: _Between[T], size: Callable[[T], int], room: int) -> None:
    with contextlib.suppress(MemoryError):  # the other thread sees that this one has ended
        try:
            while between.wait(room):
                for item in items:
                    between.hold(size(item))
                    between.box.put((item,))
                    del item
                    break
                else:
                    between.box.put(())
                    break
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the caller's thread
            between.box.put(error)
        finally:
            if isinstance(items, Generator):
                items.close()

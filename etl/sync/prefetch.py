"""Read ahead: fetch the next page while this one is loaded."""

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


def prefetch(
    items: Iterator[T],
    *,
    depth: int,
    tick: Callable[[], None],
    every: float = 0.5,
    size: Callable[[T], int] = lambda item: 0,
    room: int = 0,
) -> Generator[T]:
    """Yield the items of `items`, which a thread produces ahead of the caller.

    The thread produces at most `depth` items more than the caller asked for (0: none before it is
    asked for), and none while the items produced, and the one that the caller has until it asks for
    the next, exceed `room` by `size` in total.

    `tick` is called in the caller's thread, at least every `every` seconds, also while it waits for
    an item. An exception of `items` is raised here, in place of the item; MemoryError also if the
    thread had no memory left to report one. When the caller stops early, the thread closes the
    generator `items` as soon as it returns from what it waits for.
    """
    between = _Between[T](depth)
    run = copy_context().run  # so that what is logged there names the run
    work = (_produce, items, between, size, room)
    thread = threading.Thread(target=run, args=work, name="read-ahead", daemon=True)
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
                    raise MemoryError("the thread that reads ahead died")
            if isinstance(entry, BaseException):
                try:
                    raise entry
                finally:
                    del entry  # otherwise this frame and the error keep each other alive
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
    """What the two threads share: how many items are `wanted`, and the size of those `held`."""

    wanted: int
    held: int = 0
    stopped: bool = False
    box: "SimpleQueue[tuple[T] | tuple[()] | BaseException]" = field(default_factory=SimpleQueue)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def ask(self, taken: int) -> None:
        """Ask for one more item; the last one, of the size `taken`, is no longer held."""
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
        """Wait until an item may be produced; return False when no more items are wanted."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or (self.wanted > 0 and self.held <= room))
            self.wanted -= 1
            return not self.stopped


def _produce(items: Iterator[T], between: _Between[T], size: Callable[[T], int], room: int) -> None:
    with contextlib.suppress(MemoryError):  # the caller sees that this thread has ended
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
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            between.box.put(error)
        finally:
            if isinstance(items, Generator):
                items.close()

"""What Ctrl-C and SIGTERM do to a command: the first one ends it in order, a second one at once.

While it still imports modules, the first one ends it at once.
"""

import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from etl.errors import StoppedError


@contextmanager
def importing() -> Iterator[None]:
    """Let Ctrl-C end the process silently while modules are imported, and look for no garbage.

    Python's own handler, which is set at the end, would raise KeyboardInterrupt inside an import.
    What is imported stays. The collector would find nothing there, neither now, which would take a
    tenth of the time of the imports, nor later, whenever many rows have been made: that would take
    a tenth of the time of a load. An ignored signal stays ignored, and a handler of a command's own
    stays.
    """
    ours = signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler)
    collects = gc.isenabled()
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def cancelling() -> Iterator[None]:
    """Let the first signal interrupt whatever the command waits for, as KeyboardInterrupt does.

    An ignored signal stays ignored. Raises StoppedError, with the exit code of the signal, if one
    came.
    """
    came: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for each in previous:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    previous = {
        each: handler
        for each in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(each)) != signal.SIG_IGN
    }
    for each in previous:
        signal.signal(each, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError("stopped by a signal; the query was cancelled", signal=came[0]) from None
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Yield an event that the first signal sets.

    Raises StoppedError at the end, with the exit code of the signal, if one came.
    """
    stopped = threading.Event()
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        stopped.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)

    previous = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
        if came:
            raise StoppedError(
                "stopped by a signal; what was not committed is rolled back", signal=came[0]
            )

"""What a signal does to a daemon that still starts. It is imported first, so it imports little."""

import os
import signal
from types import FrameType


def end_well_while_starting() -> None:
    """Let SIGTERM and Ctrl-C end this process at once, with exit code 0, and ignore SIGHUP.

    For a daemon, which exits with 0 after these signals: from here on until it handles them itself.
    An ignored signal stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # its default is to end the process


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # it may be in the middle of an import, and has started nothing yet

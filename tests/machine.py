"""How loaded the machine is that the tests run on."""

import time


def slowness() -> float:
    """Return how many times longer work takes now than on an idle machine; 1 or more.

    For a promise in seconds: it is given for a machine that has nothing else to do.
    """
    started, until = time.monotonic(), time.process_time() + 0.1
    while time.process_time() < until:
        pass
    return max(1.0, (time.monotonic() - started) / 0.1)

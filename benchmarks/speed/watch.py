"""Run a command, and print as one line of JSON what it cost.

    python -I -S benchmarks/speed/watch.py LIMIT OUTPUT COMMAND…

Its own process, and a small one: Linux counts the peak memory of the process that forks into
that of the one it starts. LIMIT is in seconds; then the command and its children are killed.
OUTPUT is the file for what it prints. Peak memory is in kB: of the process, or, when it has
children, the largest sum of the peaks of those alive at the same time, looked at every 50 ms.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress


def family(pid: int) -> list[int]:
    """Return `pid` and its descendants that are alive."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{each}/task"):  # noqa: PTH208 - imports little
                with open(f"/proc/{each}/task/{task}/children") as file:  # noqa: PTH123
                    found += [int(child) for child in file.read().split()]
    return found


def peak(pid: int) -> int:
    """Return the peak of one process in kB; 0 if it has ended."""
    with suppress(OSError), open(f"/proc/{pid}/status") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    limit, output, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    over = threading.Event()
    most = 0

    def look(pid: int) -> None:
        nonlocal most
        until = time.monotonic() + limit
        while not over.wait(0.05):
            pids = family(pid)
            if len(pids) > 1:
                most = max(most, sum(peak(each) for each in pids))
            if time.monotonic() > until:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    with open(output, "wb") as file:  # noqa: PTH123
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        watcher = threading.Thread(target=look, args=(process.pid,), daemon=True)
        watcher.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - started
        finally:
            with suppress(ProcessLookupError):  # also what it left behind
                os.killpg(process.pid, signal.SIGKILL)
    over.set()
    watcher.join()
    own = usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    print(
        json.dumps(
            {
                "status": os.waitstatus_to_exitcode(status),
                "wall": wall,
                "cpu": usage.ru_utime + usage.ru_stime,
                "peak": max(most, own),
            }
        )
    )


main()

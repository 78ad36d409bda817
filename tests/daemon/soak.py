"""A daemon on a quick schedule, while records change and 5 % of the answers fail.

    make soak MINUTES=45

At the end nothing changes any more and no answer fails: then the warehouse has to be equal to the
provider, the daemon's memory has to be what it was after a tenth of the time, and so its files.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from etl.sandbox import alibaba_data, data, twilio_data, zoom_data
from etl.sandbox.exchange import Response
from etl.sandbox.faults import Fault, html
from etl.sandbox.server import Sandbox, serve
from etl.warehouse.embedded import find_binaries
from tests.daemon.processes import Process, free_port, processes, until, write_config
from tests.postgres import ask, running
from tests.sync import truth

SHARE = 0.05
"""The share of answers that fail."""


@dataclass(slots=True)
class Report:
    """What a soak found; memory is the resident set in MB, after a tenth of it and at last."""

    seed: int
    minutes: float
    runs: int = 0
    failed: int = 0
    changes: int = 0
    faults: int = 0
    requests: int = 0
    memory: tuple[float, float] = (0.0, 0.0)
    files: tuple[int, int] = (0, 0)
    different: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Return the growth of the memory, as a share."""
        return self.memory[1] / self.memory[0] - 1

    def __str__(self) -> str:
        return (
            f"{self.minutes:g} minutes, seed {self.seed}: {self.runs} runs, {self.failed} of them "
            f"failed or incomplete; {self.requests} requests, {self.faults} of them spoiled; "
            f"{self.changes} changes; memory {self.memory[0]:.1f} → {self.memory[1]:.1f} MB "
            f"({self.growth:+.1%}), files {self.files[0]} → {self.files[1]}; "
            + ("; ".join(self.different) if self.different else "the warehouse is equal")
        )


def soak(warehouse: str, folder: Path, minutes: float, seed: int, *, every: str = "2s") -> Report:
    """Run the soak test on an empty warehouse at the head of the migrations."""
    random, report = Random(seed), Report(seed, minutes)
    with serve(data.Sizes(250, 1500), seed=seed) as sandbox, processes() as start:
        faults = add_faults(sandbox, seed)
        port = free_port()
        more = "".join(
            f'[sources.{name}.schedule]\nevery = "{every}"\nfull_every = "20s"\n'
            for name in ("zoom_demo", "twilio_demo", "alibaba_demo")
        )
        daemon = start(
            write_config(folder / "callflow.toml", warehouse, sandbox, port=port, more=more), port
        )
        daemon.ran(8)
        end, first = time.monotonic() + 60 * minutes, time.monotonic() + 6 * minutes
        sampled: list[tuple[float, int]] = []
        while time.monotonic() < end:
            change(sandbox, random)
            report.changes += 1
            if time.monotonic() > first and len(sampled) < 10:
                sampled.append(measure(daemon))
            threading.Event().wait(random.uniform(0.1, 0.6))
        last = [measure(daemon) for _ in range(10)]
        report.memory = (mean(sampled), mean(last))
        report.files = (min(n for _, n in sampled), min(n for _, n in last))
        report.faults = sum(fault.fired for fault in faults)
        for emulator in (sandbox.zoom, sandbox.twilio, sandbox.alibaba):
            report.requests += len(emulator.requests)
            emulator.faults.clear()
        settle(daemon, sandbox, warehouse, report)
        runs = daemon.runs()
        report.runs, report.failed = len(runs), sum(run["status"] != "complete" for run in runs)
        daemon.kill(signal.SIGTERM)
        assert daemon.ended() == 0
        assert "Traceback" not in daemon.output
    return report


def add_faults(sandbox: Sandbox, seed: int) -> list[Fault]:
    """Add five kinds of failure to each emulator, each at a fifth of SHARE, until the end."""
    kinds: list[dict[str, Any]] = [
        {"response": Response(429, b'{"code": 429, "message": "slower"}', {"Retry-After": "1"})},
        {"response": html(503)},
        {"delivery": "reset_at_once"},
        {"delivery": "truncated"},
        {"delay": 1.0, "response": html(200)},
    ]
    found: list[Fault] = []
    emulators: list[Any] = [sandbox.zoom, sandbox.twilio, sandbox.alibaba]
    for number, emulator in enumerate(emulators):
        for kind in kinds:
            rng = Random(f"{seed} {number} {len(found)}")
            found.append(Fault(times=None, probability=SHARE / len(kinds), rng=rng, **kind))
            emulator.faults.append(found[-1])
    return found


def change(sandbox: Sandbox, random: Random) -> None:
    """Add, rename or remove a record at one provider."""
    stamp = f"{random.getrandbits(64):016x}"
    kind = random.choice(("add", "rename", "rename", "remove"))
    which = random.choice(("zoom", "flex_flows", "channels", "alibaba"))
    instance = random.choice(list(sandbox.alibaba.flows))
    chosen: dict[str, tuple[Any, str, Callable[[], list[Any]]]] = {
        "zoom": (sandbox.zoom.flows, "flow_name", lambda: zoom_data.flows(random, 1)),
        "flex_flows": (
            sandbox.twilio.flex_flows,
            "friendly_name",
            lambda: twilio_data.flex_flows(random, 1, sandbox.twilio.account_sid, "Z"),
        ),
        "channels": (sandbox.twilio.channels, "task_sid", list),
        "alibaba": (
            sandbox.alibaba.flows[instance],
            "Name",
            lambda: alibaba_data.flows(random, 1, instance),
        ),
    }
    store, name, make = chosen[which]
    keys = store.keys()
    if which == "channels":  # run-time objects: they are kept whatever becomes of them
        store.update(random.choice(keys), task_sid=f"WT{stamp}{stamp}")
    elif kind == "add" and len(keys) < 300:
        for record in make():
            store.add(record)
    elif kind == "remove" and len(keys) > 5:
        store.delete(random.choice(keys))
    else:
        store.update(random.choice(keys), **{name: f"renamed {stamp}"})


def measure(daemon: Process) -> tuple[float, int]:
    """Return the daemon's resident memory in MB and its open files."""
    threading.Event().wait(0.2)
    place = Path("/proc", str(daemon.popen.pid))
    pages = int((place / "statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list((place / "fd").iterdir()))


def mean(sampled: list[tuple[float, int]]) -> float:
    return sum(memory for memory, _ in sampled) / len(sampled)


def settle(daemon: Process, sandbox: Sandbox, warehouse: str, report: Report) -> None:
    """Wait until every stream had three more complete full scans; then compare."""
    pairs = ask(warehouse, "SELECT source, stream FROM etl.streams")
    since = {pair: len(daemon.runs(source=pair[0], stream=pair[1])) for pair in pairs}
    for source, stream in pairs:

        def again(source: str = source, stream: str = stream) -> bool:
            later = daemon.runs(source=source, stream=stream)[since[source, stream] :]
            good = [run for run in later if (run["mode"], run["status"]) == ("full", "complete")]
            return len(good) >= 3

        until(again, f"{source}.{stream} is read whole three times")
    stored = truth.stored(warehouse)
    wanted = truth.of(sandbox, stored)
    for table, rows in wanted.items():
        if rows != stored[table]:
            report.different.append(
                f"{table}: {len(rows - stored[table])} missing, {len(stored[table] - rows)} wrong"
            )


def main() -> int:
    """Run the command; return 0 if the warehouse is equal and nothing grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--seed", type=int, default=Random().randrange(2**32))
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    with (
        running(find_binaries(os.environ)) as cluster,
        cluster.database(template=cluster.migrated) as url,
        TemporaryDirectory() as folder,
    ):
        report = soak(url, Path(folder), given.minutes, given.seed)
    sys.stdout.write(f"{report}\n")
    good = not report.different and report.growth < 0.05 and report.files[1] <= report.files[0] + 2
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

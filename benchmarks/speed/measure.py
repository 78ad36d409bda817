"""Run a command as its own process, and measure it, the server and the provider."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks.speed import machine
from benchmarks.speed.postgres import Server, cpu, done

WATCH = Path(__file__).with_name("watch.py")


class StepError(Exception):
    """A command that was to be measured did not do what it should."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run cost: seconds, CPU seconds, bytes, rows.

    `peak` is the client's memory, `temporary` the server's temporary files, `disk` the size of the
    tables afterwards. `others` is the CPU time of everything else on the machine, as cores.
    """

    wall: float
    client_cpu: float
    server_cpu: float | None
    provider_cpu: float | None
    peak: int
    wal: int
    written: int
    temporary: int
    disk: int
    others: float | None


def run(
    command: Sequence[str], more: Mapping[str, str], cwd: Path, limit: float
) -> dict[str, float]:
    """Run a command in `cwd`; return what watch.py says. Its output is in `cwd`/output.

    Raises StepError if it fails, with the end of its output, or takes longer than `limit` seconds.
    """
    env = {name: value for name, value in os.environ.items() if name not in UNSET} | dict(more)
    output = cwd / "output"
    watch = [sys.executable, "-I", "-S", str(WATCH), str(limit), str(output), *command]
    with subprocess.Popen(watch, cwd=cwd, env=env, stdout=subprocess.PIPE) as process:
        try:
            answer, _ = process.communicate()
        except BaseException:
            process.terminate()  # it ends the command, too
            raise
    if process.returncode != 0:
        raise StepError(f"watch.py ended with {process.returncode}")
    found: dict[str, float] = json.loads(answer)
    if found["status"] != 0:
        end = output.read_text(errors="replace")[-1000:]
        late = f" after the limit of {limit:.0f} s" if found["wall"] > limit else ""
        raise StepError(f"exit code {found['status']:.0f}{late}: {end}")
    return found


UNSET = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV", "CALLFLOW_PG_BIN"}
"""Variables that would change what is measured: without bytecode every start compiles."""


def measured(
    command: Sequence[str],
    more: Mapping[str, str],
    cwd: Path,
    limit: float,
    server: Server,
    url: str,
    provider: int,
) -> Cost:
    """Run a command that writes to the database `url`; return its cost. Raises as `run` does.

    A checkpoint comes first, so the WAL holds whole pages where it would in a nightly run.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        before, served, busy = done(server, connection), cpu(provider), machine.busy()
        found = run(command, more, cwd, limit)
        after, serving, used = done(server, connection), cpu(provider), machine.busy()
    written = sum(
        max(0, count - before.written.get(table, 0)) for table, count in after.written.items()
    )
    server_cpu, provider_cpu = _less(after.cpu, before.cpu), _less(serving, served)
    others = _less(used, busy)
    if others is not None:
        others -= found["cpu"] + (server_cpu or 0) + (provider_cpu or 0)
    return Cost(
        wall=found["wall"],
        client_cpu=found["cpu"],
        server_cpu=server_cpu,
        provider_cpu=provider_cpu,
        peak=int(found["peak"]) * 1024,
        wal=after.wal - before.wal,
        written=written,
        temporary=after.temporary - before.temporary,
        disk=after.disk,
        others=None if others is None else max(0.0, others / found["wall"]),
    )


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before

"""What a benchmark ran on, and how busy the machine was with other things."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK")


def described(root: Path) -> dict[str, Any]:
    """Return the machine, the versions, and the commit of the working tree `root`."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(root),
        "cpu": _cpu() or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _commit(root: Path) -> str:
    """Return the commit, with a + if what is measured, or what measures, differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True,
                              check=False)  # fmt: skip
        return done.stdout.strip()

    changed = git("status", "--porcelain", "etl", "migrations", "benchmarks/speed")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def busy() -> float | None:
    """Return the CPU seconds of all processes since the machine started; None without /proc.

    Time that a hypervisor took away counts.
    """
    try:
        line = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, soft, steal = (int(field) for field in line[:8])
    return (user + nice + system + irq + soft + steal) / _TICK

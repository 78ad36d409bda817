"""Lengths of time, schedules and runs in words. Pure."""

from etl.config.settings import Schedule
from etl.load.runs import Run
from etl.status.timetable import EVERY

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def span(seconds: float, parts: int = 4) -> str:
    """Return a length of time in its `parts` largest units: "1h 5m"."""
    left = round(seconds)
    found = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            found.append(f"{count}{unit}")
    return " ".join(found[:parts]) or "0s"


def in_words(schedule: Schedule) -> str:
    """Return a schedule as "every 15m" or "cron */15 * * * * Europe/Berlin"."""
    if schedule.cron is not None:
        return f"cron {schedule.cron} {schedule.timezone}"
    return f"every {span((schedule.every or EVERY).total_seconds())}"


def run_word(run: Run) -> str:
    """Return what became of a run: its status, "not available", or "ended"."""
    if run.status != "not_available":
        return run.status
    return "ended" if run.error_kind == "ended" else "not available"


def last_complete(age: float | None) -> str:
    """Say how long ago, in seconds, the last complete run ended; None means that there was none."""
    return "no complete run yet" if age is None else f"the last complete run is {span(age, 2)} old"

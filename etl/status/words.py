"""Lengths of time, schedules and runs in words. Pure."""

from contextlib import suppress
from datetime import UTC, datetime, tzinfo

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


def local_time(time: datetime, zone: tzinfo | None) -> str:
    """Return an aware time to the minute in `zone` and in UTC: "2026-11-17 14:05 CET (13:05 UTC)".

    Where the zone has the time of UTC: "2026-11-17 13:05 UTC". None is this machine's zone. A time
    that has no year in UTC stays as it is: "9999-12-31 23:59 UTC-12:00".
    """
    try:
        there = utc = time.astimezone(UTC)
    except OverflowError:
        return f"{time:%Y-%m-%d %H:%M %Z}"
    with suppress(ValueError, OverflowError):  # in the years 1 and 9999
        there = utc.astimezone(zone)
    if not there.utcoffset():
        return f"{utc:%Y-%m-%d %H:%M} UTC"
    beside = f"{utc:%H:%M}" if utc.date() == there.date() else f"{utc:%m-%d %H:%M}"
    return f"{there:%Y-%m-%d %H:%M} {there.tzname()} ({beside} UTC)"


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

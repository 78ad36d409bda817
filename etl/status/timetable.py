"""When a source is due: by `every`, or by a crontab line in its time zone. Pure; times are UTC."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from etl.config.settings import Schedule

EVERY = timedelta(minutes=15)
"""How often a source is synced when its schedule names neither `every` nor `cron`."""

_LONGEST = timedelta(days=36500)
"""Longer times are cut to it: far beyond any use, and no date that is reckoned overflows."""


def after(schedule: Schedule, moment: datetime) -> datetime:
    """The first planned time after `moment`: one interval later, or when the cron line says.

    Weekdays are crontab's (0 and 7 are Sunday). Where both days are restricted either will do. A
    local time that a change of clocks skips is planned right after the gap, one that comes twice is
    planned once (Debian's cron(8)).
    """
    if schedule.cron is None:
        return moment.astimezone(UTC) + _interval(schedule)
    local = moment.astimezone(ZoneInfo(schedule.timezone))
    planned = (time.astimezone(UTC) for time in CronSim(schedule.cron, local))
    # In an hour that comes twice the line's time may have been the first one.
    return next(time for time in planned if time > moment)


def gap(schedule: Schedule, moment: datetime) -> timedelta:
    """The time between the next two planned ones after `moment`."""
    if schedule.cron is None:
        return _interval(schedule)
    planned = after(schedule, moment)
    return after(schedule, planned) - planned


def due(schedule: Schedule, age: timedelta | None, now: datetime) -> datetime:
    """When a source is due whose last run ended `age` ago (None: never); `now` when it is overdue.

    By its age, not by its time: that was told by another clock, which may have been set since. Less
    than nothing counts as nothing.
    """
    if age is None:
        return now
    planned = after(schedule, now - min(max(age, timedelta()), _LONGEST))
    return max(now, planned)


def in_words(schedule: Schedule) -> str:
    """ "every 15m", or "cron */15 * * * * Europe/Berlin"."""
    if schedule.cron is not None:
        return f"cron {schedule.cron} {schedule.timezone}"
    return f"every {span((schedule.every or EVERY).total_seconds())}"


def _interval(schedule: Schedule) -> timedelta:
    return min(schedule.every or EVERY, _LONGEST)


_SPANS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def span(seconds: float, parts: int = 4) -> str:
    """A length of time for people, in its `parts` largest units: "1h 5m"."""
    left = round(seconds)
    found = []
    for unit, size in _SPANS:
        count, left = divmod(left, size)
        if count:
            found.append(f"{count}{unit}")
    return " ".join(found[:parts]) or "0s"

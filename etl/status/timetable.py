"""Plan when a source is due: by `every`, or by a crontab line in its time zone. Pure; in UTC."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from etl.config.settings import Schedule

EVERY = timedelta(minutes=15)
"""How often a source is synced if its schedule has neither `every` nor `cron`."""

_LONGEST = timedelta(days=36500)
"""Longer times are cut to this: far beyond any use, and no date computed from it overflows."""


def after(schedule: Schedule, moment: datetime) -> datetime:
    """Return the first planned time after `moment`: one interval later, or by the crontab line.

    Weekdays are crontab's (0 and 7 are Sunday). If a line restricts both the day of the month and
    the weekday, either is enough. A local time that a change of clocks skips is planned right after
    the gap, one that occurs twice is planned once (Debian's cron(8)).
    """
    if schedule.cron is None:
        return moment.astimezone(UTC) + _interval(schedule)
    local = moment.astimezone(ZoneInfo(schedule.timezone))
    planned = (time.astimezone(UTC) for time in CronSim(schedule.cron, local))
    # In an hour that occurs twice, CronSim may return the first occurrence, which has passed.
    return next(time for time in planned if time > moment)


def gap(schedule: Schedule, moment: datetime) -> timedelta:
    """Return the time between the next two planned times after `moment`."""
    if schedule.cron is None:
        return _interval(schedule)
    planned = after(schedule, moment)
    return after(schedule, planned) - planned


def due(schedule: Schedule, age: timedelta | None, now: datetime) -> datetime:
    """Return when a source is due whose last run ended `age` ago; `now` if it is overdue.

    None means that it never ran. The age counts, not the time of the run: that comes from another
    clock, which may have been set since. A negative age counts as zero.
    """
    if age is None:
        return now
    planned = after(schedule, now - min(max(age, timedelta()), _LONGEST))
    return max(now, planned)


def _interval(schedule: Schedule) -> timedelta:
    return min(schedule.every or EVERY, _LONGEST)

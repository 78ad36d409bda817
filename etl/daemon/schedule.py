"""APScheduler as callflow uses it: one job per source, in memory, planned from the warehouse.

A source that is due while its previous round is still running is skipped (`max_instances=1`). One
round makes up for all the times that were missed (`coalesce`), and none is dropped for being late
(`misfire_grace_time=None`; APScheduler's own default is one second).
"""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from random import Random

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from etl.config.settings import Schedule
from etl.status.timetable import after, due, gap

CRON_JITTER = timedelta(minutes=1)
"""The most by which a cron line's times are spread: a time of day that is named is meant."""

OVERDUE_EVERY = timedelta(milliseconds=100)
"""How far apart sources that are overdue at the start are started, at most."""

Submit = Callable[[str, float], "Future[None]"]
"""(source, seconds since it was planned) → done when its streams have ended."""


def scheduler(submit: Submit, skipped: Callable[[str], None]) -> BackgroundScheduler:
    """Return a scheduler, without jobs and not started, that submits sources when they are due.

    `skipped(source)` is called when a source is due while its previous round is still running.
    """
    made = BackgroundScheduler(
        executors={"default": _Rounds(submit)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone=UTC,
        daemon=True,
    )

    def listen(event: JobSubmissionEvent) -> None:
        skipped(event.job_id)

    made.add_listener(listen, EVENT_JOB_MAX_INSTANCES)
    return made


def plan(
    made: BackgroundScheduler,
    schedules: Mapping[str, Schedule],
    ages: Mapping[str, timedelta | None],
    paused: Mapping[str, timedelta],
    random: Random,
    now: datetime,
) -> None:
    """Plan these sources again, by how long ago the last run of each ended (`ages`).

    Overdue ones run at once; if there are many, they are spread over their jitter. `paused` is for
    how long the provider asked to be left alone. `now` is by the wall clock (UTC).
    """
    times = {name: due(schedule, ages.get(name), now) for name, schedule in schedules.items()}
    crowd = OVERDUE_EVERY * sum(time <= now for time in times.values())
    for source, schedule in schedules.items():
        planned = times[source]
        if planned <= now:
            planned = now + random.random() * min(crowd, jitter(schedule, now))
        elif schedule.cron is not None:  # intervals are as far apart as the runs were
            planned += random.random() * jitter(schedule, now)
        planned = max(planned, now + paused.get(source, timedelta()))
        made.add_job(
            _nothing,
            Planned(schedule, random),
            id=source,
            replace_existing=True,
            next_run_time=planned,
        )


def drop(made: BackgroundScheduler, kept: Collection[str]) -> None:
    """Forget the sources that are not in `kept`."""
    for job in made.get_jobs():
        if job.id not in kept:
            made.remove_job(job.id)


def bring_forward(made: BackgroundScheduler, source: str, to: datetime) -> None:
    """Run `source` at the time `to`, if it is planned for later."""
    job = made.get_job(source)
    if job is not None and job.next_run_time is not None and job.next_run_time > to:
        _move(made, source, to)


def put_off(made: BackgroundScheduler, source: str, to: datetime) -> None:
    """Do not run `source` before `to`."""
    job = made.get_job(source)
    if job is not None and job.next_run_time is not None and job.next_run_time < to:
        _move(made, source, to)


def next_runs(made: BackgroundScheduler) -> dict[str, datetime]:
    """Return when each source is planned next (UTC)."""
    return {job.id: job.next_run_time.astimezone(UTC) for job in made.get_jobs()}


def jitter(schedule: Schedule, now: datetime) -> timedelta:
    """Return the most by which a planned time may be moved, which is less than to the one after."""
    most = gap(schedule, now) * schedule.jitter
    return most if schedule.cron is None else min(CRON_JITTER, most)


class Planned(BaseTrigger):  # type: ignore[misc]
    """Gives the next time of a schedule after now, moved by its jitter.

    It counts from now and not from the last planned time, so a machine that slept or a clock that
    was set causes one round and not thousands. Intervals are moved both ways, so that their average
    length stays; cron times are only moved to later.
    """

    def __init__(self, schedule: Schedule, random: Random) -> None:
        self._schedule = schedule
        self._random = random

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """Answer APScheduler; both times have a time zone."""
        share = self._random.random() - (0.5 if self._schedule.cron is None else 0)
        return after(self._schedule, now) + jitter(self._schedule, now) * share


class _Rounds(BaseExecutor):  # type: ignore[misc]
    """Submits a source's name when APScheduler runs its job."""

    def __init__(self, submit: Submit) -> None:
        super().__init__()
        self._submit = submit

    def _do_submit_job(self, job: Job, run_times: list[datetime]) -> None:
        late = (datetime.now(UTC) - run_times[-1]).total_seconds()
        over = self._submit(job.id, max(0.0, late))
        over.add_done_callback(lambda future: self._run_job_success(job.id, []))


def _nothing() -> None:
    """Do nothing: a job is only a time; what is due then is up to the executor."""


def _move(made: BackgroundScheduler, source: str, to: datetime) -> None:
    try:
        made.modify_job(source, next_run_time=to)
    except JobLookupError:  # it was removed from the configuration meanwhile
        return

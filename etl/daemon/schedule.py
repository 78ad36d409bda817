"""APScheduler, as callflow uses it: one job per source, in memory, planned anew from the warehouse.

A round that still runs when its next one is due is not doubled (`max_instances=1`); however many
times were missed, one round makes up for them (`coalesce`), and it is never dropped for being late
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
"""The most that a cron line's times are spread: who names a time of day means it."""

OVERDUE_EVERY = timedelta(milliseconds=100)
"""How far apart the sources that are overdue at the start begin, at most."""

Submit = Callable[[str, float], "Future[None]"]
"""(source, seconds since it was planned) → done when its streams have ended."""


def scheduler(submit: Submit, skipped: Callable[[str], None]) -> BackgroundScheduler:
    """A scheduler without jobs, not started, that hands sources to `submit` when they are due.

    `skipped` is told the source whose former round still runs.
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
    """Make the jobs of these sources anew, by how long ago the last run of each ended.

    Overdue ones run at once, many of them spread over their jitter. `paused`: for how long the
    provider asked not to be asked.
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
    """Source → when it is planned next (UTC)."""
    return {job.id: job.next_run_time.astimezone(UTC) for job in made.get_jobs()}


def jitter(schedule: Schedule, now: datetime) -> timedelta:
    """The most by which the next time of this schedule is moved; never as far as the one after."""
    most = gap(schedule, now) * schedule.jitter
    return most if schedule.cron is None else min(CRON_JITTER, most)


class Planned(BaseTrigger):  # type: ignore[misc]
    """The next time of a schedule after now, moved by its jitter.

    After now, not after the last time: one that was slept through, or a clock that was set, makes
    one round and not thousands. Intervals are moved both ways, so that they keep their length on
    the average; cron times are only moved on.
    """

    def __init__(self, schedule: Schedule, random: Random) -> None:
        self._schedule = schedule
        self._random = random

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """APScheduler's question; both times are aware."""
        share = self._random.random() - (0.5 if self._schedule.cron is None else 0)
        return after(self._schedule, now) + jitter(self._schedule, now) * share


class _Rounds(BaseExecutor):  # type: ignore[misc]
    """Where APScheduler's jobs go: a source's name, and nothing of the job, is handed on."""

    def __init__(self, submit: Submit) -> None:
        super().__init__()
        self._submit = submit

    def _do_submit_job(self, job: Job, run_times: list[datetime]) -> None:
        late = (datetime.now(UTC) - run_times[-1]).total_seconds()
        over = self._submit(job.id, max(0.0, late))
        over.add_done_callback(lambda future: self._run_job_success(job.id, []))


def _nothing() -> None:
    """What a job calls; the round is the executor's."""


def _move(made: BackgroundScheduler, source: str, to: datetime) -> None:
    try:
        made.modify_job(source, next_run_time=to)
    except JobLookupError:  # it was taken out of the configuration meanwhile
        return

"""What state every stream is in, what is wrong with it, and what to do now.

Pure: out of the settings and what the warehouse has recorded. `callflow status`, the status page,
/readyz, the metrics and the alerts all tell what stands here.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal, Self

from etl.config.settings import Schedule, Settings
from etl.providers import named
from etl.providers.declare import scopes
from etl.status.timetable import after, in_words, span
from etl.sync.selection import name_of_scope

State = Literal["good", "never run", "failed", "incomplete", "throttled", "not configured"]
Role = Literal["leader", "standby", "starting", "stopping", "none"]

_HOUR = timedelta(hours=1)
OLD = timedelta(seconds=15)
"""How old an overview of a daemon may be, which makes one every second or two."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """What has rows and is no longer configured: a source, or an instance of one (Alibaba).

    `name` is what `callflow forget` takes.
    """

    name: str
    problem: str
    advice: str


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """One stream as it stands. Times are UTC.

    `state`        what the last run says; "throttled": the provider asked not to be asked before
                   `retry_at`; "not configured": it was synced once, and no source has it any more.
    `stale`        no complete run within `stale_after` seconds. `age`: seconds since the last one.
    `problem`      what is wrong, and `advice` what to do now; None when nothing is.
    `schedule`     in words, such as "every 15m". `next_run_at` is known to the daemon that leads.
    `running_since` when the run under way began, if one is.
    `leftovers`    what of it is no longer configured: its source, or instances.
    """

    source: str
    stream: str
    provider: str
    state: State
    stale: bool
    problem: str | None = None
    advice: str | None = None
    schedule: str = ""
    stale_after: float | None = None
    age: float | None = None
    rows: int | None = None
    watermark: datetime | None = None
    last_status: str | None = None
    last_attempt_at: datetime | None = None
    last_success_at: datetime | None = None
    last_full_at: datetime | None = None
    changed_at: datetime | None = None
    retry_at: datetime | None = None
    running_since: datetime | None = None
    next_run_at: datetime | None = None
    leftovers: tuple[Leftover, ...] = ()

    @property
    def name(self) -> str:
        """`source.stream`."""
        return f"{self.source}.{self.stream}"

    @property
    def good(self) -> bool:
        """Whether nobody need do anything about it."""
        return not self.stale and self.state in ("good", "never run", "not configured")

    @property
    def fresh(self) -> bool:
        """Whether it had a complete run, and that is recent enough."""
        return not self.stale and self.age is not None


@dataclass(frozen=True, slots=True)
class Overview:
    """All streams, and the daemon that tells of them, at one instant (UTC).

    `database`  what is wrong with the warehouse; None: it answers, and its schema is at head.
    `role`      of this daemon; "none" where no daemon tells. `leader` is the process that leads.
    `notes`     what a person should know of the daemon: a refused configuration, a taken port.
    `seen_at`   when the warehouse answered last.
    """

    at: datetime
    version: str
    role: Role = "none"
    leader: str | None = None
    process: str = ""
    started_at: datetime | None = None
    seen_at: datetime | None = None
    database: str | None = None
    notes: tuple[str, ...] = ()
    streams: tuple[StreamHealth, ...] = field(default=())

    def told_at(self, now: datetime) -> Self:
        """What may be told of it at `now`: after OLD nobody knows whether it is so still."""
        age = now - self.at
        if age <= OLD:
            return self
        what = f"the daemon looked at the streams {span(age.total_seconds(), 2)} ago last"
        advice = "see whether the database server answers; if it does, restart the daemon"
        return replace(self, role="none", database=f"{what} → {advice}")

    @property
    def ready(self) -> bool:
        """Whether a reader can trust what is in the warehouse to be fresh."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ready."""
        found = [self.database] if self.database else []
        for stream in self.streams:
            if stream.state != "not configured" and not stream.fresh:
                since = (
                    "no complete run yet" if stream.age is None else f"{span(stream.age, 2)} old"
                )
                found.append(f"{stream.name}: {since}")
        return tuple(found)


def assess(
    settings: Settings,
    recorded: Sequence[Mapping[str, Any]],
    now: datetime,
    *,
    since: datetime | None = None,
    next_runs: Mapping[str, datetime] = {},
    running: Mapping[tuple[str, str], datetime] = {},
    held: Iterable[tuple[str, str, str]] = (),
) -> tuple[StreamHealth, ...]:
    """Every stream, in the order of the names.

    `recorded`  rows of etl.streams.
    `now`       by the clock that the rows' times come from. `since` is when somebody began to
                watch: a stream that never had a complete run is stale `stale_after` later.
    `next_runs` source → when its next run is planned; `running` (source, stream) → when the run
                under way began.
    `held`      every (source, stream, scope) that has rows, of streams with scopes.
    """
    rows = {(row["source"], row["stream"]): row for row in recorded}
    wanted = {
        (source.name, stream.name): source.provider
        for source in settings.sources.values()
        for stream in named(source.provider).streams
    }
    left = _leftovers(settings, rows, wanted, held)
    # Of a thousand sources most share a schedule, and a crontab line takes a while to reckon.
    allow = cache(stale_after)
    found = []
    for source, stream in sorted(rows.keys() | wanted.keys()):
        row = rows.get((source, stream), {})
        provider = wanted.get((source, stream))
        schedule = settings.sources[source].schedule if provider else None
        ahead = {
            "next_run_at": next_runs.get(source) if provider else None,
            "running_since": running.get((source, stream)),
        }
        names = left.get((source, stream), ())
        old = tuple(_leftover(name) for name in names)
        found.append(
            _stream(source, stream, provider, schedule, row, now, since, allow, ahead, old)
        )
    return tuple(found)


def _stream(
    source: str,
    stream: str,
    provider: str | None,
    schedule: Schedule | None,
    row: Mapping[str, Any],
    now: datetime,
    since: datetime | None,
    allow: Callable[[Schedule, datetime], timedelta],
    ahead: Mapping[str, datetime | None],
    leftovers: tuple[Leftover, ...],
) -> StreamHealth:
    times = {
        name: row.get(name) and row[name].astimezone(UTC)
        for name in (
            "watermark",
            "last_attempt_at",
            "last_success_at",
            "last_full_at",
            "changed_at",
            "retry_at",
        )
    }
    state: State = "not configured"
    allowed = None
    if schedule is not None:
        state = _state(row.get("last_status"), times["retry_at"], now)
        began = times["last_success_at"] or since or now
        allowed = allow(schedule, began.replace(second=0, microsecond=0)).total_seconds()
    success = times["last_success_at"]
    # Never negative: a clock that was set back makes nothing fresher, and nothing stale.
    age = max(0.0, (now - success).total_seconds()) if success else None
    waited = age if age is not None else (now - since).total_seconds() if since else 0.0
    stale = allowed is not None and waited > allowed
    problem, _, advice = (row.get("error") or "" if provider else "").partition(" → ")
    if state == "throttled":
        problem = f"{problem}; paused until {times['retry_at']:%Y-%m-%d %H:%M} UTC"
        advice = "nothing; it goes on by itself then"
    if stale and not problem and ahead["running_since"]:
        begun = f"{ahead['running_since']:%H:%M:%S} UTC"
        problem = f"{_last_complete(age)}; one is under way since {begun}"
        advice = "wait for it; it fails, and says why, if the provider does not answer"
    elif stale and not problem:
        problem = f"{_last_complete(age)}, and {span(allowed or 0, 2)} is allowed"
        advice = "see whether a daemon runs and leads; `callflow sync` runs it now"
    return StreamHealth(
        source=source,
        stream=stream,
        provider=provider or "",
        state=state,
        stale=stale,
        problem=problem or None,
        advice=advice or None,
        schedule=in_words(schedule) if schedule else "",
        stale_after=allowed,
        age=age,
        rows=row.get("rows"),
        last_status=row.get("last_status"),
        leftovers=leftovers,
        **times,
        **ahead,
    )


def _leftovers(
    settings: Settings,
    rows: Iterable[tuple[str, str]],
    wanted: Container[tuple[str, str]],
    held: Iterable[tuple[str, str, str]],
) -> dict[tuple[str, str], list[str]]:
    """(source, stream) → the names of what of it is no longer configured."""
    found = {pair: [pair[0]] for pair in rows if pair not in wanted}
    configured = {
        (source.name, stream.name): scopes(source, stream)
        for source in settings.sources.values()
        for stream in named(source.provider).streams
    }
    for source, stream, scope in held:
        if scope not in (configured.get((source, stream)) or (scope,)):
            found.setdefault((source, stream), []).append(name_of_scope(source, scope))
    return found


def _leftover(name: str) -> Leftover:
    return Leftover(
        name,
        "no longer configured; its rows stay as they were",
        f"`callflow forget {name}` moves them to history, or configure it again",
    )


def _last_complete(age: float | None) -> str:
    return "no complete run yet" if age is None else f"the last complete run is {span(age, 2)} old"


def _state(last: str | None, retry_at: datetime | None, now: datetime) -> State:
    if last is None:
        return "never run"
    if last == "complete":
        return "good"
    if retry_at is not None and retry_at > now:
        return "throttled"
    return "incomplete" if last == "incomplete" else "failed"


def stale_after(schedule: Schedule, success: datetime) -> timedelta:
    """The age from which a stream is stale whose last complete run ended at `success`.

    Unless it is set, three planned times that passed without another one, and an hour at least. So
    a crontab line for office hours makes nothing stale overnight.
    """
    if schedule.stale_after is not None:
        return schedule.stale_after
    planned = success
    for _ in range(3):
        planned = after(schedule, planned)
    return max(_HOUR, planned - success)

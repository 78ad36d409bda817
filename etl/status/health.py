"""Judge every stream: its state, what is wrong with it, and what to do now.

Pure: from the settings and what the warehouse has recorded. `callflow status`, the status page,
/readyz, the metrics and the alerts all report these judgements.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal, Self

from etl.config.settings import Schedule, Settings, Source
from etl.providers import PROVIDERS, named
from etl.providers.declare import Provider, Stream, scopes, streams_of
from etl.status.timetable import after
from etl.status.words import in_words, last_complete, span
from etl.sync.selection import name_of_scope

State = Literal[
    "good",
    "never run",
    "failed",
    "incomplete",
    "throttled",
    "not available",
    "ended",
    "not configured",
]
Role = Literal["leader", "standby", "starting", "stopping", "none"]

_HOUR = timedelta(hours=1)
CALM = ("not available", "ended", "not configured")
"""States of which nothing more has to be done once they are known."""
OLD = timedelta(seconds=15)
"""Maximum age of an overview; a healthy daemon makes one every second or two."""
WHEN_OLD = "check that the database server answers; if it does, restart the daemon"
"""What to do when there is no newer one: the daemon may wait for a server that hangs."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A source, or a stream or an instance of one, that has rows and is no longer configured.

    `name` is the argument for `callflow forget`.
    """

    name: str
    problem: str
    advice: str


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """The state of one stream. Times are UTC, lengths of time are seconds.

    `state`         from the last run. "throttled": the provider asked for no requests before
                    `retry_at`; also after that, until the run that is planned then has ended. "not
                    available": the account lacks it, or the credentials the right to it. "ended":
                    its provider has ended it. "not configured": it was synced once, but no source
                    has it now.
    `stale`         whether there was no complete run within `stale_after`. What has ended, and what
                    was never available, is never stale.
    `problem`       what is wrong, or why it cannot be read, and `advice` what to do now; None if
                    there is nothing to say.
    `schedule`      in words, such as "every 15m".
    `stale_after`   the `age` from which it is stale; None: it is never.
    `age`           since the last complete run ended; None if there was none.
    `running_since` when the current run started, if one is running.
    `next_run_at`   known only to the daemon that leads.
    `leftovers`     the parts that are no longer configured: its source, or instances.
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
        """Whether it needs no attention."""
        return not self.stale and self.state in ("good", "never run", *CALM)

    @property
    def fresh(self) -> bool:
        """Whether it had a complete run, recently enough."""
        return not self.stale and self.age is not None


@dataclass(frozen=True, slots=True)
class Reach:
    """How a client connects to the warehouse; nothing in it is secret.

    `host`     a name, an address, or the directory of a socket; "": that of the default.
    `port`     a number; several servers may have several, between commas, as their hosts.
    `role`     one that only reads; None: the settings name none.
    `embedded` whether it is callflow's own Postgres, for its machine only.
    """

    host: str
    port: str
    database: str
    role: str | None = None
    embedded: bool = False


@dataclass(frozen=True, slots=True)
class Overview:
    """All streams, and the daemon that reports on them, at one instant (UTC).

    `role`     of this daemon; "none" if it is no daemon that reports. `leader` is the process that
               leads.
    `seen_at`  when the warehouse last answered.
    `database` what is wrong with the warehouse; None if it answers and its schema is at head.
    `notes`    what a person should know about the daemon: a refused configuration, a taken port.
    `public_url` where people reach the status page; None: the settings do not say.
    `reach`    how to connect to the warehouse; None: it is not known yet.
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
    public_url: str | None = None
    reach: Reach | None = None
    streams: tuple[StreamHealth, ...] = field(default=())

    def as_seen_at(self, now: datetime) -> Self:
        """Return what can still be said at `now`: an overview older than OLD proves nothing."""
        age = now - self.at
        if age <= OLD:
            return self
        what = f"the daemon last looked at the streams {span(age.total_seconds(), 2)} ago"
        return replace(self, role="none", database=f"{what} → {WHEN_OLD}")

    @property
    def ready(self) -> bool:
        """Whether a reader can trust the warehouse to be fresh."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ready; empty if it is."""
        found = [self.database] if self.database else []
        for stream in self.streams:
            if not stream.fresh and (stream.stale or stream.state not in CALM):
                since = (
                    "no complete run yet" if stream.age is None else f"{span(stream.age, 2)} old"
                )
                found.append(f"{stream.name}: {since}")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is known about one stream before it is judged.

    `schedule` None means that the stream is not configured; its `provider` is then "".
    `ends`     whether its provider has announced its end.
    `row`      its row of etl.streams, times in UTC; empty if it was never synced.
    """

    source: str
    stream: str
    provider: str
    schedule: Schedule | None
    ends: bool
    row: Mapping[str, Any]
    running_since: datetime | None
    next_run_at: datetime | None
    leftovers: tuple[Leftover, ...]


@dataclass(frozen=True, slots=True)
class Age:
    """How old the last complete run of a stream is, in seconds.

    `since_success` None if there was none. `allowed` None if the stream cannot become stale.
    """

    since_success: float | None
    allowed: float | None
    stale: bool


def assess(
    settings: Settings,
    recorded: Sequence[Mapping[str, Any]],
    now: datetime,
    *,
    since: datetime | None = None,
    next_runs: Mapping[str, datetime] = {},
    running: Mapping[tuple[str, str], datetime] = {},
    held: Iterable[tuple[str, str, str]] = (),
    providers: tuple[Provider, ...] = PROVIDERS,
) -> tuple[StreamHealth, ...]:
    """Judge every stream that is configured or recorded, in the order of the names.

    `recorded`  rows of etl.streams.
    `now`       by the clock that the rows' times come from.
    `since`     when watching started: a stream without any complete run becomes stale
                `stale_after` later, and never if `since` is None.
    `next_runs` source → when its next run is planned.
    `running`   (source, stream) → when the current run started.
    `held`      every (source, stream, scope) that has rows, of streams with scopes.
    """
    rows = {(row["source"], row["stream"]): row for row in recorded}
    wanted = {
        (source.name, stream.name): (source, stream)
        for source in settings.sources.values()
        for stream in streams_of(source, named(source.provider, providers))
    }
    left = _leftovers(settings, rows, wanted, held)
    # Of a thousand sources most share a schedule, and a crontab line takes a while to evaluate.
    allow = cache(stale_after)
    found = []
    for source, stream in sorted(rows.keys() | wanted.keys()):
        unit = wanted.get((source, stream))
        known = Recorded(
            source=source,
            stream=stream,
            provider=unit[0].provider if unit else "",
            schedule=unit[0].schedule if unit else None,
            ends=bool(unit and unit[1].ended),
            row=_in_utc(rows.get((source, stream), {})),
            running_since=running.get((source, stream)),
            next_run_at=next_runs.get(source) if unit else None,
            leftovers=tuple(_leftover(name) for name in left.get((source, stream), ())),
        )
        found.append(_judge(known, now, since, allow))
    return tuple(found)


def _judge(
    known: Recorded,
    now: datetime,
    since: datetime | None,
    allow: Callable[[Schedule, datetime], timedelta],
) -> StreamHealth:
    state = _state(known, now)
    age = _age(known, state, now, since, allow)
    problem, advice = _words(known, state, age)
    return StreamHealth(
        source=known.source,
        stream=known.stream,
        provider=known.provider,
        state=state,
        stale=age.stale,
        problem=problem or None,
        advice=advice or None,
        schedule=in_words(known.schedule) if known.schedule else "",
        stale_after=age.allowed,
        age=age.since_success,
        rows=known.row.get("rows"),
        last_status=known.row.get("last_status"),
        running_since=known.running_since,
        next_run_at=known.next_run_at,
        leftovers=known.leftovers,
        **{name: known.row.get(name) for name in _TIMES},
    )


_TIMES = ("watermark", "last_attempt_at", "last_success_at", "last_full_at", "changed_at",
          "retry_at")  # fmt: skip


def _in_utc(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        **row,
        **{name: row[name].astimezone(UTC) for name in _TIMES if row.get(name) is not None},
    }


def _state(known: Recorded, now: datetime) -> State:
    """Return the state that the last run left the stream in."""
    last, retry_at = known.row.get("last_status"), known.row.get("retry_at")
    if known.schedule is None:
        return "not configured"
    if last is None:
        return "never run"
    if last == "complete":
        return "good"
    if last == "not_available":
        return "ended" if known.ends else "not available"
    goes_on = known.running_since is not None or known.next_run_at is not None
    if retry_at is not None and (retry_at > now or goes_on):
        return "throttled"
    return "incomplete" if last == "incomplete" else "failed"


def _age(
    known: Recorded,
    state: State,
    now: datetime,
    since: datetime | None,
    allow: Callable[[Schedule, datetime], timedelta],
) -> Age:
    """Return how old the last complete run is, and whether that is too old."""
    success = known.row.get("last_success_at")
    # Never negative: a clock that was set back makes nothing fresher, and nothing stale.
    age = max(0.0, (now - success).total_seconds()) if success else None
    never = state == "ended" or (state == "not available" and success is None)
    if known.schedule is None or never:
        return Age(age, None, stale=False)
    start = success or since or now
    allowed = allow(known.schedule, start.replace(second=0, microsecond=0)).total_seconds()
    waited = (now - since).total_seconds() if age is None and since else age or 0.0
    return Age(age, allowed, stale=waited > allowed)


def _words(known: Recorded, state: State, age: Age) -> tuple[str, str]:
    """Return what is wrong with a stream, and what to do now; both empty if nothing is wrong."""
    error = known.row.get("error") if known.schedule else None
    problem, _, advice = (error or "").partition(" → ")
    if state == "throttled":
        problem = f"{problem}; paused until {known.row['retry_at']:%Y-%m-%d %H:%M} UTC"
        return problem, "nothing; it continues automatically after that"
    if problem or not age.stale:
        return problem, advice
    success = last_complete(age.since_success)
    if known.running_since:
        return (
            f"{success}; a run started at {known.running_since:%H:%M:%S} UTC",
            "wait for it; if the provider does not answer, it fails and says why",
        )
    return (
        f"{success}, and {span(age.allowed or 0, 2)} is allowed",
        "check that a daemon runs and leads; `callflow sync` runs it now",
    )


def _leftovers(
    settings: Settings,
    rows: Iterable[tuple[str, str]],
    wanted: Mapping[tuple[str, str], tuple[Source, Stream]],
    held: Iterable[tuple[str, str, str]],
) -> dict[tuple[str, str], list[str]]:
    """Return (source, stream) → the names of its parts that are no longer configured."""
    found = {
        pair: [".".join(pair) if pair[0] in settings.sources else pair[0]]
        for pair in rows
        if pair not in wanted
    }
    configured = {pair: scopes(*unit) for pair, unit in wanted.items()}
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


def stale_after(schedule: Schedule, success: datetime) -> timedelta:
    """Return the age at which a stream whose last complete run ended at `success` becomes stale.

    If the schedule does not set it: the time until three planned runs have passed, and at least an
    hour. So a crontab line for office hours makes nothing stale overnight.
    """
    if schedule.stale_after is not None:
        return schedule.stale_after
    planned = success
    for _ in range(3):
        planned = after(schedule, planned)
    return max(_HOUR, planned - success)

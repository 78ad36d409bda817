"""The record of each run (etl.runs), and what it leaves for the next one (etl.streams)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Table, and_, case, func, select
from sqlalchemy.dialects.postgresql import insert

from etl.warehouse.tables import runs, streams

Status = Literal["complete", "incomplete", "failed", "busy", "not_available"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one stream, as `etl.runs` records it; times are UTC."""

    run_id: str
    source: str
    stream: str
    mode: Literal["full", "incremental"]
    started_at: datetime
    finished_at: datetime | None = None
    status: Status = "failed"
    requests: int = 0
    pages: int = 0
    records: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    rejected: int = 0
    warnings: int = 0
    rows_written: int = 0
    watermark_before: datetime | None = None
    watermark_after: datetime | None = None
    error_kind: str | None = None
    error: str | None = None
    reason: str | None = None
    absent: int = 0
    retries: int = 0
    throttled_seconds: float = 0.0
    retry_at: datetime | None = None


Marks = Mapping[str, datetime | None]
"""Scope → watermark (UTC); None means that the scope was read and holds no time."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream had come before a run: its row of `etl.streams`, times in UTC.

    `now` is the time by the database's clock, which also set `last_full_at`. `known_since` says per
    scope since when its changes are news: since its first complete run. `unreadable` names columns
    that hold what callflow never writes; their fields are as before a first run.
    """

    now: datetime
    watermark: datetime | None = None
    watermarks: Marks = field(default_factory=dict)
    read_at: datetime | None = None
    changed_at: datetime | None = None
    last_full_at: datetime | None = None
    newest_first: bool = False
    known_since: Mapping[str, datetime] = field(default_factory=dict)
    unreadable: Sequence[str] = ()

    @property
    def latest(self) -> datetime | None:
        """The latest instant at which something changed, or a scope became known (UTC)."""
        times = [*filter(None, [self.changed_at]), *self.known_since.values()]
        return max(times, default=None)


FIRST, LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
"""Limits of times that count. The years 1 and 9999 stand for "never", and clients west or east of
UTC cannot read them; Python cannot read times outside of these years at all."""


def readable(time: ColumnElement[datetime]) -> ColumnElement[datetime | None]:
    """Return `time`, or NULL if it is infinite or out of range: rows can be written by hand."""
    return case((and_(time >= FIRST, time < LAST), time))


def progress(connection: Connection, source: str, stream: str) -> Progress:
    """Read the stream's row of `etl.streams`; before its first run all fields are empty.

    Fails on no content of that row: what cannot be read is left out (`Progress.unreadable`).
    """
    names = ("watermark", "read_at", "changed_at", "last_full_at")
    columns = [streams.c[name] for name in names]
    row = connection.execute(
        select(
            *(readable(column) for column in columns),
            *(column.is_not(None) for column in columns),
            streams.c.watermarks,
            streams.c.newest_first,
            streams.c.known_since,
        ).where(streams.c.source == source, streams.c.stream == stream)
    ).one_or_none()
    now = _clock(connection)
    if row is None:
        return Progress(now)
    times = dict(zip(names, row[:4], strict=True))
    odd = [name for name, given in zip(names, row[4:8], strict=True) if given and not times[name]]
    marks = _marks(row.watermarks)
    if marks is None:
        odd.append("watermarks")
    known = _marks(row.known_since)
    if known is None:
        odd.append("known_since")
    return Progress(
        now,
        watermarks=marks or {},
        newest_first=bool(row.newest_first),
        known_since={scope: time for scope, time in (known or {}).items() if time is not None},
        unreadable=tuple(odd),
        **{name: time and time.astimezone(UTC) for name, time in times.items()},
    )


def _marks(stored: Any) -> dict[str, datetime | None] | None:
    """Return the watermarks that `finish` stored as JSON; None if it did not store this."""
    if stored is None:
        return {}
    try:
        marks = {
            scope: None if time is None else datetime.fromisoformat(time).astimezone(UTC)
            for scope, time in stored.items()
            if time is None or datetime.fromisoformat(time).tzinfo is not None
        }
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
    fits = all(mark is None or FIRST <= mark < LAST for mark in marks.values())
    return marks if fits and len(marks) == len(stored) else None


def instant(connection: Connection, changed_at: datetime | None) -> datetime:
    """Return the instant (UTC) of the changes about to be written, by the database's clock.

    It is later than that of the last changes, `changed_at`, even if that clock was set back, so
    that versions never overlap. None means that nothing was changed yet.
    """
    now = _clock(connection)
    if changed_at is not None:
        now = max(now, changed_at + timedelta(microseconds=1))
    return now


def count(connection: Connection, source: str, table: Table) -> int:
    """Count the rows of `source` in the table."""
    query = select(func.count()).select_from(table).where(table.c.source == source)
    return connection.execute(query).scalar_one()


def newest_of(times: Iterable[datetime | None]) -> datetime | None:
    """Return the newest of `times`; those outside of FIRST and LAST do not count."""
    known = [*filter(None, times)]
    newest = max(known, default=None)
    if newest is not None and newest >= LAST:
        newest = max((time for time in known if time < LAST), default=None)
    return None if newest is None or newest < FIRST else newest


def newest_in(times: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the aggregate that finds in a column what `newest_of` finds in a list."""
    return func.max(times).filter(times >= FIRST, times < LAST)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run that reached its end leaves for the next one; None keeps what is there.

    `rows`         rows in the stream's own table.
    `changed_at`   instant of the run's changes (UTC); None when it changed nothing.
    `marks`        the watermarks, and `read_at` when the scan started that they come from (UTC).
    `full`         whether every scope was scanned whole.
    `newest_first` whether such a scan came in the order of modification, newest first.
    `known_since`  per scope, since when changes are news (UTC).
    """

    rows: int
    changed_at: datetime | None = None
    marks: Marks | None = None
    read_at: datetime | None = None
    full: bool = False
    newest_first: bool | None = None
    known_since: Mapping[str, datetime] | None = None


def finish(
    connection: Connection, run: Run, outcome: Outcome | None = None, provider: str | None = None
) -> Run:
    """Record `run` in etl.runs and what follows from it in etl.streams, in the open transaction.

    Returns the run with `finished_at` and `watermark_after`. A busy run is recorded in etl.runs
    only: the run that holds the lease writes the stream's state. A run that is already recorded
    stays as it is.
    """
    marks = outcome.marks if outcome is not None else None
    mark = (
        run.watermark_before if marks is None else max(filter(None, marks.values()), default=None)
    )
    run = replace(run, finished_at=_clock(connection), watermark_after=mark)
    new = insert(runs).values(**asdict(run)).on_conflict_do_nothing().returning(runs.c.run_id)
    if connection.scalar(new) is not None and run.status != "busy":
        _update_stream(connection, run.source, run.stream, _stream_row(run, outcome, provider))
    return run


def _stream_row(run: Run, outcome: Outcome | None, provider: str | None) -> dict[str, Any]:
    """Return the columns of etl.streams that `run` changes."""
    row: dict[str, Any] = {} if provider is None else {"provider": provider}
    row |= {
        "last_run_id": run.run_id,
        "last_status": run.status,
        "last_attempt_at": run.finished_at,
        "error": run.error,
        "retry_at": run.retry_at,
    }
    if run.status == "complete":
        row["last_success_at"] = run.finished_at
    if outcome is None:
        return row
    row["rows"] = outcome.rows
    if run.status == "complete" and outcome.full:
        row["last_full_at"] = run.finished_at
    if outcome.marks is not None:
        row["watermark"] = run.watermark_after
        row["watermarks"] = {
            scope: mark and mark.isoformat() for scope, mark in outcome.marks.items()
        }
        row["read_at"] = outcome.read_at
    if outcome.known_since is not None:
        row["known_since"] = {
            scope: since.isoformat() for scope, since in outcome.known_since.items()
        }
    kept_unless_known = {"changed_at": outcome.changed_at, "newest_first": outcome.newest_first}
    return row | {name: value for name, value in kept_unless_known.items() if value is not None}


def _update_stream(connection: Connection, source: str, stream: str, row: dict[str, Any]) -> None:
    statement = insert(streams).values(source=source, stream=stream, **row)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["source", "stream"], set_=row)
    )


def recorded(connection: Connection, source: str, run_id: str) -> bool:
    """Whether etl.runs has the run: if so, the transaction that was to end it did commit."""
    query = select(runs.c.run_id).where(runs.c.source == source, runs.c.run_id == run_id)
    return connection.scalar(query) is not None


@dataclass(frozen=True, slots=True)
class Past:
    """What became of a run; `retry_at` is when the provider wanted to be asked again, if it did."""

    status: str
    error_kind: str | None
    error: str | None
    retry_at: datetime | None


def past(connection: Connection, source: str, stream: str, limit: int) -> list[Past]:
    """Return the last `limit` runs of a stream, newest first, without those that found it busy."""
    columns = (runs.c.status, runs.c.error_kind, runs.c.error, runs.c.retry_at)
    query = (
        select(*columns)
        .where(runs.c.source == source, runs.c.stream == stream, runs.c.status != "busy")
        .order_by(runs.c.started_at.desc())
        .limit(limit)
    )
    return [Past(*row) for row in connection.execute(query)]


def last_success(connection: Connection, source: str, stream: str) -> datetime | None:
    """Return when the last complete run of a stream ended (UTC); None if there was none."""
    query = select(readable(streams.c.last_success_at)).where(
        streams.c.source == source, streams.c.stream == stream
    )
    found: datetime | None = connection.scalar(query)
    return found and found.astimezone(UTC)


def record_alert(connection: Connection, source: str, stream: str, state: str | None) -> None:
    """Record which state of a stream the last alert reported; None after the all-clear."""
    _update_stream(connection, source, stream, {"told": state})


def _clock(connection: Connection) -> datetime:
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)

"""Bookkeeping: etl.runs, etl.streams with the watermark, etl.rejects, etl.absences."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from etl.transform.rows import Reject
from etl.transform.values import as_json
from etl.warehouse.tables import Key, absences, rejects, runs, streams

Status = Literal["complete", "incomplete", "failed", "busy"]


@dataclass(slots=True)
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
"""Scope → watermark; None: the scope was read and holds no time."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream had come before a run: its row of `etl.streams`, times in UTC.

    `now` is the database's clock, which `last_full_at` is compared with. `unreadable` names the
    columns that hold what callflow never writes; the fields of these are as before a first run.
    """

    now: datetime
    watermark: datetime | None = None
    watermarks: Marks = field(default_factory=dict)
    read_at: datetime | None = None
    changed_at: datetime | None = None
    last_full_at: datetime | None = None
    newest_first: bool = False
    unreadable: Sequence[str] = ()


FIRST, LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
"""Times of the years 1 and 9999 stand for "never", and no client west or east of UTC can read
them; Python can read none before and none after."""


def readable(time: ColumnElement[datetime]) -> ColumnElement[datetime | None]:
    """A time of a row that anybody may have written; NULL where it is infinite or out of range."""
    return case((and_(time >= FIRST, time < LAST), time))


def progress(connection: Connection, source: str, stream: str) -> Progress:
    """The stream's row of `etl.streams`, times in UTC; an empty one before its first run.

    Whatever stands there: what cannot be read is left out and named (`Progress.unreadable`).
    """
    names = ("watermark", "read_at", "changed_at", "last_full_at")
    columns = [streams.c[name] for name in names]
    row = connection.execute(
        select(
            *(readable(column) for column in columns),
            *(column.is_not(None) for column in columns),
            streams.c.watermarks,
            streams.c.newest_first,
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
    return Progress(
        now,
        watermarks=marks or {},
        newest_first=bool(row.newest_first),
        unreadable=tuple(odd),
        **{name: time and time.astimezone(UTC) for name, time in times.items()},
    )


def _marks(stored: Any) -> dict[str, datetime | None] | None:
    """The watermarks that `finish` has stored as JSON; None when it is nothing that it stores."""
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


def instant(connection: Connection, former: Progress) -> datetime:
    """The instant of a change that is about to be merged, by the database's clock (UTC).

    It is later than every former one even if that clock was set back, so versions never overlap.
    """
    now = _clock(connection)
    if former.changed_at is not None:
        now = max(now, former.changed_at + timedelta(microseconds=1))
    return now


def count(connection: Connection, source: str, table: Table) -> int:
    """How many rows of `source` the table has."""
    query = select(func.count()).select_from(table).where(table.c.source == source)
    return connection.execute(query).scalar_one()


def watermarks(
    connection: Connection, seen: Table, source: str, modified: str, scope: str | None
) -> dict[str, datetime]:
    """The newest modification time in the column `modified`, per value of the column `scope`.

    `seen` is the table of what the run saw: a staging table, or a current one (rows of `source`).

    Without `scope` the only key is "". Scopes without a time are not in it. The years 1 and 9999 do
    not count (FIRST, LAST).
    """
    time_sent = seen.c[modified]
    newest = func.max(time_sent).filter(time_sent >= FIRST, time_sent < LAST)
    of: Any = seen.c[scope] if scope else literal("")
    query = select(of, newest).select_from(seen).group_by(of)
    if "source" in seen.c:
        query = query.where(seen.c.source == source)
    rows = connection.execute(query)
    return {name: time.astimezone(UTC) for name, time in rows if time is not None}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run that came to its end tells the next one; None leaves what is there.

    `marks` the watermarks, and `read_at` when the scan began that they come from.
    `full`  every scope was scanned whole. `newest_first` is what such a scan saw of the order.
    """

    rows: int
    changed_at: datetime | None = None
    marks: Marks | None = None
    read_at: datetime | None = None
    full: bool = False
    newest_first: bool | None = None


def finish(connection: Connection, run: Run, outcome: Outcome | None = None) -> None:
    """Record `run` in etl.runs and what follows from it in etl.streams, in the open transaction.

    A run that is busy is recorded in etl.runs only: the stream's state is told by the run that
    holds the lease. A run that is recorded already stays as it is.
    """
    run.finished_at = _clock(connection)
    run.watermark_after = run.watermark_before
    state: dict[str, Any] = {
        "last_run_id": run.run_id,
        "last_status": run.status,
        "last_attempt_at": run.finished_at,
        "error": run.error,
        "retry_at": run.retry_at,
    }
    if outcome is not None:
        state["rows"] = outcome.rows
        if outcome.changed_at is not None:
            state["changed_at"] = outcome.changed_at
        if outcome.newest_first is not None:
            state["newest_first"] = outcome.newest_first
        if outcome.marks is not None:
            run.watermark_after = max(
                (mark for mark in outcome.marks.values() if mark), default=None
            )
            state["watermark"] = run.watermark_after
            state["watermarks"] = {
                scope: mark and mark.isoformat() for scope, mark in outcome.marks.items()
            }
            state["read_at"] = outcome.read_at
    if run.status == "complete":
        state["last_success_at"] = run.finished_at
        if outcome is not None and outcome.full:
            state["last_full_at"] = run.finished_at
    statement = insert(runs).values(**asdict(run)).on_conflict_do_nothing()
    is_new = connection.scalar(statement.returning(runs.c.run_id))
    if is_new is None or run.status == "busy":
        return
    here = insert(streams).values(source=run.source, stream=run.stream, **state)
    connection.execute(here.on_conflict_do_update(index_elements=["source", "stream"], set_=state))


def recorded(connection: Connection, run: Run) -> bool:
    """Whether etl.runs has `run`: then the transaction that was to end it did commit."""
    query = select(runs.c.run_id).where(runs.c.source == run.source, runs.c.run_id == run.run_id)
    return connection.scalar(query) is not None


def missing_since(
    connection: Connection, source: str, stream: str, width: int
) -> tuple[dict[Key, str], list[str]]:
    """Records that a proven full scan did not list: key (without source) → id of that run.

    `width` is the number of the key's columns. What stands in the column `key` and is no such key
    comes second, for `note_missing` to forget.
    """
    query = select(absences.c.key, absences.c.run_id).where(
        absences.c.source == source, absences.c.stream == stream
    )
    missing: dict[Key, str] = {}
    unreadable: list[str] = []
    for text, run_id in connection.execute(query):
        key = _key(text, width)
        if key is None:
            unreadable.append(text)
        else:
            missing[key] = run_id
    return missing, unreadable


def note_missing(
    connection: Connection,
    run: Run,
    missing: Iterable[Key],
    settled: Collection[Key],
    unreadable: Collection[str] = (),
) -> None:
    """Note that `run` did not list the records `missing`; forget those `settled`: back, or gone.

    Rows `unreadable`, by their column `key`, are forgotten too.
    """
    here = (absences.c.source == run.source, absences.c.stream == run.stream)
    if over := [*map(_text, settled), *unreadable]:
        keys = literal(over, ARRAY(Text()))
        connection.execute(delete(absences).where(*here, absences.c.key == func.any(keys)))
    if keys_missing := [_text(key) for key in missing]:
        values = {"source": run.source, "stream": run.stream, "run_id": run.run_id}
        since = _clock(connection)
        rows = [{**values, "key": key, "since": since} for key in keys_missing]
        connection.execute(insert(absences).on_conflict_do_nothing(), rows)


def _key(text: str, width: int) -> Key | None:
    """The key that `_text` made a text of; None when it did not make this one."""
    try:
        key = json.loads(text)
    except (ValueError, RecursionError):
        return None
    fits = isinstance(key, list) and len(key) == width and all(isinstance(c, str) for c in key)
    return tuple(key) if fits and _text(tuple(key)) == text else None


def _text(key: Key) -> str:
    return json.dumps(key, ensure_ascii=False)


def note_told(connection: Connection, source: str, stream: str, told: str | None) -> None:
    """Note what was notified about a stream: the word of what is wrong, or None for all well."""
    here = insert(streams).values(source=source, stream=stream, told=told)
    connection.execute(
        here.on_conflict_do_update(index_elements=["source", "stream"], set_={"told": told})
    )


def reject(connection: Connection, run: Run, found: Iterable[Reject]) -> None:
    """Keep records that no table can hold, each once; seen again, only `last_seen` moves."""
    kept: set[str] = set()
    values: list[dict[str, Any]] = []
    room = _REJECTS
    for item in found:
        payload = as_json(item.payload)
        digest = hashlib.sha256(f"{item.reason}\n{payload}".encode()).hexdigest()
        if digest in kept:
            continue
        kept.add(digest)
        values.append({"digest": digest, "reason": item.reason, "payload": payload})
        room -= len(payload) + _REJECTS // 1000
        if room < 0:
            _keep(connection, run, values)
            values, room = [], _REJECTS
    if values:
        _keep(connection, run, values)


_REJECTS = 1 << 20
"""Bytes of rejects, or a thousand of them, that are sent at once."""


def _keep(connection: Connection, run: Run, values: list[dict[str, Any]]) -> None:
    seen = func.clock_timestamp()
    statement = insert(rejects).values(
        source=run.source,
        stream=run.stream,
        run_id=run.run_id,
        digest=bindparam("digest"),
        reason=bindparam("reason"),
        payload=cast(cast(bindparam("payload"), Text), JSONB),
        first_seen=seen,
        last_seen=seen,
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["source", "stream", "digest"],
            set_={"run_id": run.run_id, "last_seen": seen},
        ),
        values,
    )


def _clock(connection: Connection) -> datetime:
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)

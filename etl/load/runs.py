"""Bookkeeping: etl.runs, etl.streams with the watermark, etl.rejects."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Table, Text, cast, func, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from etl.model import Reject
from etl.tables import rejects, runs, streams
from etl.transform.values import as_json

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


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream had come before a run: its row of `etl.streams`."""

    watermark: datetime | None = None
    watermarks: Mapping[str, str] | None = None
    changed_at: datetime | None = None


def progress(connection: Connection, source: str, stream: str) -> Progress:
    """The stream's row of `etl.streams`, times in UTC; an empty one before its first run."""
    row = connection.execute(
        select(streams.c.watermark, streams.c.watermarks, streams.c.changed_at).where(
            streams.c.source == source, streams.c.stream == stream
        )
    ).one_or_none()
    if row is None:
        return Progress()
    marks: tuple[datetime | None, ...] = (row.watermark, row.changed_at)
    watermark, changed_at = (time and time.astimezone(UTC) for time in marks)
    return Progress(watermark, row.watermarks, changed_at)


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

    Without `scope` the only key is "". The years 1 and 9999 do not count: they stand for "never",
    and no client west or east of UTC can read them.
    """
    time_sent = seen.c[modified]
    newest = func.max(time_sent).filter(
        time_sent >= datetime(2, 1, 1, tzinfo=UTC), time_sent < datetime(9999, 1, 1, tzinfo=UTC)
    )
    of: Any = seen.c[scope] if scope else literal("")
    query = select(of, newest).select_from(seen).group_by(of)
    if "source" in seen.c:
        query = query.where(seen.c.source == source)
    rows = connection.execute(query)
    return {name: time.astimezone(UTC) for name, time in rows if time is not None}


def finish(
    connection: Connection,
    run: Run,
    *,
    marks: Mapping[str, datetime] | None = None,
    changed_at: datetime | None = None,
) -> None:
    """Record `run` in etl.runs and what follows from it in etl.streams, in the open transaction.

    `marks` are the watermarks of a complete run, per scope.
    `changed_at` is the instant of what was merged; None: nothing was. Sets `run.finished_at` and
    `run.watermark_after`.
    """
    run.finished_at = _clock(connection)
    run.watermark_after = run.watermark_before
    state: dict[str, Any] = {
        "last_run_id": run.run_id,
        "last_status": run.status,
        "last_attempt_at": run.finished_at,
        "error": run.error,
    }
    if run.status == "complete":
        state["last_success_at"] = run.finished_at
        if run.mode == "full":
            state["last_full_at"] = run.finished_at
    if marks:
        run.watermark_after = max(marks.values())
        state["watermark"] = run.watermark_after
        state["watermarks"] = {scope: time.isoformat() for scope, time in marks.items()}
    if changed_at is not None:
        state["changed_at"] = changed_at
    connection.execute(insert(runs).values(**asdict(run)))
    if run.status == "busy":  # the stream's state is told by the run that holds the lease
        return
    statement = insert(streams).values(source=run.source, stream=run.stream, **state)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["source", "stream"], set_=state)
    )


def recount(connection: Connection, run: Run, changed: Sequence[Table]) -> None:
    """Record how many rows the stream's own table (the first of `changed`) has now.

    Comes after the commit of a merge and reads all that it may have written: so the hint bits of
    the new rows are set while their pages are fresh, and the next reader need not rewrite them
    (with data checksums that is WAL: 68 MB for 200,000 rows were seen in a run without changes).
    """
    counts = [count(connection, run.source, table) for table in changed]
    here = (streams.c.source == run.source, streams.c.stream == run.stream)
    connection.execute(update(streams).where(*here).values(rows=counts[0]))


def reject(connection: Connection, run: Run, found: Iterable[Reject]) -> None:
    """Keep records that no table can hold, each once; seen again, only `last_seen` moves."""
    distinct: dict[str, dict[str, Any]] = {}
    for item in found:
        payload = as_json(item.payload)
        digest = hashlib.sha256(f"{item.reason}\n{payload}".encode()).hexdigest()
        distinct[digest] = {
            "source": run.source,
            "stream": run.stream,
            "digest": digest,
            "run_id": run.run_id,
            "reason": item.reason,
            "payload": cast(cast(payload, Text), JSONB),
        }
    for values in distinct.values():
        seen = func.clock_timestamp()
        statement = insert(rejects).values(**values, first_seen=seen, last_seen=seen)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["source", "stream", "digest"],
                set_={"run_id": run.run_id, "last_seen": seen},
            )
        )


def _clock(connection: Connection) -> datetime:
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)

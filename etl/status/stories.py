"""What the pages of streams and runs show, and the last changes of all sources, as one reads them.

Every text in it that came from outside passed the redactor, or is one of the warehouse's values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, func, select

from etl.config.redact import Redactor
from etl.load.runs import Run
from etl.providers.catalog import STREAMS
from etl.providers.declare import Stream
from etl.status import flows, queries
from etl.status.flows import Row
from etl.status.missing import Missing, missing
from etl.warehouse import tables
from etl.warehouse.model.lists import named as view_named

MOST_MISSING = 200
"""How many unlisted records the page of a stream names."""
MOST_REJECTS = 50
"""How many reasons for rejects a page shows."""
MOST_CHANGES = 20
"""How many changes of its source the page of a stream shows."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """How many records could not be loaded for one reason; `last_seen` is UTC."""

    reason: str
    count: int
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class StreamStory:
    """The last runs of a stream, newest first; what it misses, and what it rejected.

    `missing` are the first of `missing_count`; `changes` the last ones of its source.
    """

    runs: Sequence[Run] = ()
    missing: Sequence[Missing] = ()
    missing_count: int = 0
    rejects: Sequence[Rejected] = ()
    changes: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class RunStory:
    """A run, and what callflow saw change in its source meanwhile, of what its stream holds.

    `rejects` are those that no later run has met again.
    """

    run: Run
    changes: Sequence[Row] = ()
    rejects: Sequence[Rejected] = ()


def latest(engine: Engine, limit: int, redact: Redactor) -> list[Row]:
    """Return the last changes of all sources, newest first.

    Raises WarehouseError, also after 3 seconds without a result.
    """
    with flows.brief(engine, redact) as connection:
        return flows.newest(connection, limit)


def of_stream(engine: Engine, source: str, stream: str, redact: Redactor) -> StreamStory:
    """Return what is recorded of a stream; nothing if it is not known.

    Raises WarehouseError, also after 3 seconds without a result.
    """
    if "\0" in source + stream:  # Postgres has no such text
        return StreamStory()
    last = queries.recent(engine, [(source, stream)], redact)[source, stream]
    with flows.brief(engine, redact) as connection:
        declared = _declared(connection, source, stream)
        unlisted = [] if declared is None else missing(connection, source, declared)
        rejected = tables.rejects.c
        found = _rejects(connection, redact, rejected.source == source, rejected.stream == stream)
        changes = flows.newest(connection, MOST_CHANGES, source)
    return StreamStory(last, unlisted[:MOST_MISSING], len(unlisted), found, changes)


def of_run(engine: Engine, run_id: str, redact: Redactor) -> RunStory | None:
    """Return the run with that id; None if there is none.

    Raises WarehouseError, also after 3 seconds without a result.
    """
    if "\0" in run_id:  # Postgres has no such text
        return None
    run = queries.run(engine, run_id, redact)
    if run is None:
        return None
    with flows.brief(engine, redact) as connection:
        rejected = tables.rejects.c
        found = _rejects(connection, redact, rejected.source == run.source,
                         rejected.stream == run.stream, rejected.run_id == run_id)  # fmt: skip
        return RunStory(run, _changes(connection, run), found)


def _changes(connection: Connection, run: Run) -> list[Row]:
    """Return what was seen to change while `run` was under way, of what its stream holds.

    The log has no run; a source's streams run one after another in the daemon.
    """
    declared = _declared(connection, run.source, run.stream)
    if declared is None or run.finished_at is None or not run.inserted + run.updated + run.deleted:
        return []
    views = [view_named(part.view) for part in declared.parts if part.tracked]
    return flows.changes(
        connection, run.started_at, flows.MOST_CHANGES, source=run.source,
        until=run.finished_at, entities=[view.entity for view in views if view.entity],
    )  # fmt: skip


def _declared(connection: Connection, source: str, stream: str) -> Stream | None:
    """Return the declaration of a stream by the provider that etl.streams has for it."""
    rows = tables.streams.c
    query = select(rows.provider).where(rows.source == source, rows.stream == stream)
    return STREAMS.get(f"{connection.scalar(query)}.{stream}")


def _rejects(
    connection: Connection, redact: Redactor, *which: ColumnElement[bool]
) -> list[Rejected]:
    """Return for which reasons records are kept as rejects, the last met first."""
    kept = tables.rejects.c
    last = func.max(kept.last_seen)
    query = select(kept.reason, func.count(), last).where(*which).group_by(kept.reason)
    rows = connection.execute(query.order_by(last.desc(), kept.reason).limit(MOST_REJECTS))
    return [
        Rejected(redact.message(reason), number, seen.astimezone(UTC))
        for reason, number, seen in rows
    ]

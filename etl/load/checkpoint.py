"""How far a scan has come, saved with its staged rows: the next run goes on from there."""

from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from etl.load.stage import Staged, size
from etl.warehouse.tables import checkpoints

MAX_AGE = timedelta(hours=1)
"""A scan that paused for longer begins anew: too much may have moved in the meantime."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place in a scan.

    `settings` a digest of what the scan depends on; `following` the pointer to the next page;
    `state` what the scan has seen, as JSON (any JSON, when it was found); `staged` the rows in the
    stream's staging table.
    """

    settings: str
    following: str
    state: dict[str, Any]
    staged: int


def save(connection: Connection, source: str, stream: str, checkpoint: Checkpoint) -> None:
    """Save the place, in the transaction that commits the rows up to it."""
    values = {**asdict(checkpoint), "saved_at": func.clock_timestamp()}
    statement = insert(checkpoints).values(source=source, stream=stream, **values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["source", "stream"], set_=values)
    )


def find(
    connection: Connection, source: str, stream: str, settings: str, parent: Staged
) -> Checkpoint | None:
    """The place from which a scan can go on; None when there is none that still fits.

    It fits with the same settings, when it is not older than MAX_AGE, and while the staging table
    still holds exactly the rows that it tells.
    """
    row = connection.execute(
        select(*(checkpoints.c[each.name] for each in fields(Checkpoint))).where(
            checkpoints.c.source == source,
            checkpoints.c.stream == stream,
            checkpoints.c.settings == settings,
            checkpoints.c.saved_at > func.clock_timestamp() - MAX_AGE,
        )
    ).one_or_none()
    stage = parent.stage
    if row is None or not connection.dialect.has_table(connection, stage.name, schema=stage.schema):
        return None
    if size(connection, parent) != row.staged:
        return None
    return Checkpoint(row.settings, row.following, row.state, row.staged)


def forget(connection: Connection, source: str, stream: str) -> None:
    """There is no scan to go on with (any more)."""
    connection.execute(
        delete(checkpoints).where(checkpoints.c.source == source, checkpoints.c.stream == stream)
    )

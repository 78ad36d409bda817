"""How far a scan has come, saved with its staged rows so that the next run can resume it."""

from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from etl.load.stage import TablePair, size
from etl.warehouse.tables import checkpoints

MAX_AGE = timedelta(hours=1)
"""A scan that paused for longer starts again, because too much may have moved meanwhile."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place in a scan.

    `settings`  digest of what the scan depends on.
    `following` the provider's pointer to the next page.
    `state`     what the scan has seen, as JSON; any JSON in a checkpoint that was found.
    `staged`    rows in the staging table of the stream's records.
    """

    settings: str
    following: str
    state: dict[str, Any]
    staged: int


def save(connection: Connection, source: str, stream: str, checkpoint: Checkpoint) -> None:
    """Save the place in the open transaction, which commits the staged rows up to it."""
    values = {**asdict(checkpoint), "saved_at": func.clock_timestamp()}
    statement = insert(checkpoints).values(source=source, stream=stream, **values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["source", "stream"], set_=values)
    )


def find(
    connection: Connection, source: str, stream: str, settings: str, parent: TablePair
) -> Checkpoint | None:
    """Return the place from which a scan can be resumed; None when no saved one fits.

    A place fits if it has the same settings, is not older than MAX_AGE, and the staging table of
    `parent` holds exactly as many rows as it says.
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
    """Delete the stream's checkpoint."""
    connection.execute(
        delete(checkpoints).where(checkpoints.c.source == source, checkpoints.c.stream == stream)
    )

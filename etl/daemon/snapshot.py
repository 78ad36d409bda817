"""What the warehouse records of all streams, as the daemon read it last."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from etl.config.redact import Redactor
from etl.load import runs
from etl.status import queries


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All streams at one instant.

    `now`      that instant by the database's clock (UTC); `read_at` by the daemon's steady clock.
    `rows`     rows of etl.streams.
    `held`     every (source, stream, scope) that has rows, of streams with scopes.
    """

    now: datetime
    read_at: float
    rows: Sequence[Mapping[str, Any]]
    held: Sequence[tuple[str, str, str]]

    def time(self, clock: float) -> datetime:
        """Return what the database's clock (UTC) shows when the steady clock shows `clock`."""
        return self.now + timedelta(seconds=clock - self.read_at)

    @property
    def alerted(self) -> dict[tuple[str, str], str | None]:
        """(source, stream) → what was last alerted as wrong with it; None if nothing is."""
        return {(row["source"], row["stream"]): row["told"] for row in self.rows}


def read(
    connection: Connection, clock: float, previous: Snapshot | None, redact: Redactor
) -> Snapshot:
    """Read a snapshot; `clock` is what the steady clock shows now.

    The scopes are those of `previous` while another session locks one of their tables.
    """
    now, rows = queries.recorded(connection, redact)
    held = queries.scopes(connection, () if previous is None else previous.held)
    return Snapshot(now, clock, rows, held)


def forget_alerts(
    connection: Connection, snapshot: Snapshot, kept: Container[tuple[str, str]]
) -> None:
    """Forget what was alerted of streams that are not in `kept`, (source, stream)."""
    for name, word in snapshot.alerted.items():
        if word and name not in kept:
            runs.record_alert(connection, *name, None)

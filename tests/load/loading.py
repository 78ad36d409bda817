"""Loading records as a run does it, and looking at what is in the tables then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Table, select

from etl.extract.page import Page
from etl.load import merge, stage
from etl.load.merge import Written
from etl.load.stage import TablePair
from etl.providers.catalog import STREAMS
from etl.transform.rows import Rows
from etl.warehouse import tables
from etl.warehouse.tables import Key

SHANGHAI = ZoneInfo("Asia/Shanghai")
Rowset = list[dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A stream: its tables and what makes rows of its pages."""

    tables: tuple[Table, ...]
    transform: Callable[[Page, int], Rows]
    scope: str | None = None
    modified: str | None = None


def kind_of(name: str) -> Kind:
    stream = STREAMS[name]
    return Kind(stream.tables, stream.transform, stream.scope, stream.modified)


FLOWS, CHANNELS = kind_of("zoom.flows"), kind_of("twilio.channels")
FLEX_FLOWS, CONTACT_FLOWS = kind_of("twilio.flex_flows"), kind_of("alibaba.contact_flows")
KINDS = (FLOWS, CHANNELS, FLEX_FLOWS, CONTACT_FLOWS)


def at(hour: float) -> datetime:
    """Return an instant for valid_from and valid_to."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)


def pairs_of(source: str, kind: Kind) -> list[TablePair]:
    return [stage.pair_of(source, table) for table in kind.tables]


def scan(
    connection: Connection, source: str, kind: Kind, *pages: Sequence[Any], scope: str = "ccc"
) -> dict[str, stage.Staged]:
    """Stage `pages` of records, each in a separate transaction, and deduplicate them."""
    pairs = pairs_of(source, kind)
    with connection.begin():
        stage.prepare(connection, pairs)
    start = 0
    for number, records in enumerate(pages, 1):
        rows = kind.transform(Page(list(records), number, scope=scope, zone=SHANGHAI), start)
        with connection.begin():
            for pair in pairs:
                stage.copy(connection, pair.stage, rows.tables[pair.current.fullname])
        start += len(records)
    with connection.begin():
        return stage.deduplicate(connection, pairs, {}, kind.scope, kind.modified)


def load(
    connection: Connection,
    source: str,
    kind: Kind,
    *pages: Sequence[Any],
    now: datetime,
    gone: Sequence[Key] = (),
    scope: str = "ccc",
) -> Written:
    """Stage `pages` and merge them."""
    scan(connection, source, kind, *pages, scope=scope)
    with connection.begin():
        return merge.merge(connection, source, pairs_of(source, kind), gone, now)


def rows_of(connection: Connection, table: Table, source: str | None = None) -> Rowset:
    """Return the rows of `table` by the names of their columns, NULLs left out, in key order."""
    query = select(table).order_by(*table.primary_key)
    if source is not None:
        query = query.where(table.c.source == source)
    with connection.begin():
        found = [dict(row) for row in connection.execute(query).mappings()]
    return [{name: cell for name, cell in row.items() if cell is not None} for row in found]


def versions_of(connection: Connection, table: Table) -> Rowset:
    """Return the rows of `table`'s history, oldest first."""
    return sorted(rows_of(connection, tables.history(table)), key=lambda row: row["valid_to"])

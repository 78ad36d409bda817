"""What a merge has written, read back in its transaction: for a run that is then rolled back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from etl.load.merge import equal, quoted, quoted_table
from etl.load.named import LISTED, Listing, Named, name_of
from etl.load.stage import TablePair, join_by_hash
from etl.warehouse import tables


@dataclass(frozen=True, slots=True)
class Merged:
    """The records that a merge inserted, updated and deleted.

    `fields` column, or table of children → how many of the updated records changed in it.
    """

    new: Listing = field(default_factory=Listing)
    changed: Listing = field(default_factory=Listing)
    deleted: Listing = field(default_factory=Listing)
    fields: Mapping[str, int] = field(default_factory=dict)


def read_back(
    connection: Connection, source: str, pairs: Sequence[TablePair], now: datetime, name: str
) -> Merged:
    """Return what the merge of the instant `now` (UTC) wrote.

    `pairs` starts with the records' own table, `name` is SQL over a row `r` of it. Versions that
    start at that instant are new or changed; those that end at it are changed or deleted.
    """
    join_by_hash(connection)
    records = pairs[0].current
    started = f"{quoted_table(records)} AS r WHERE r.source = :source AND r.valid_from = :now"
    ended = (
        f"{quoted_table(tables.history(records))} AS r WHERE r.source = :source"
        " AND r.valid_to = :now"
    )
    keys = tables.key_columns(records)
    same = equal("r", "other", keys)
    had = f"""SELECT FROM {quoted_table(tables.history(records))} AS other
        WHERE other.source = :source AND other.valid_to = :now AND {same}"""
    has = f"SELECT FROM {quoted_table(records)} AS other WHERE other.source = :source AND {same}"
    shown = f"{quoted(keys, 'r.')}, {name_of(name)}, CAST('{{}}' AS text[]) AS fields"
    new = f"SELECT {shown} FROM {started} AND NOT EXISTS ({had})"
    deleted = f"SELECT {shown} FROM {ended} AND NOT EXISTS ({has})"
    touched = _touched(pairs, name)
    changed = f"""SELECT {quoted(keys)}, shown, array_agg(field ORDER BY field) AS fields
        FROM ({touched}) AS touched GROUP BY {quoted(keys)}, shown"""
    given = {"source": source, "now": now}
    counts = f"SELECT field, count(*) FROM ({touched}) AS touched GROUP BY field ORDER BY field"
    return Merged(
        new=_listing(connection, new, keys, given),
        changed=_listing(connection, changed, keys, given),
        deleted=_listing(connection, deleted, keys, given),
        fields=dict(tuple(row) for row in connection.execute(text(counts), given)),
    )


def _listing(
    connection: Connection, query: str, keys: Sequence[str], given: Mapping[str, Any]
) -> Listing:
    """Return the first rows of `query`, whose columns are the keys, `shown` and `fields`."""
    rows = connection.execute(
        text(f"""
        SELECT found.*, count(*) OVER () AS total FROM ({query}) AS found
        ORDER BY shown NULLS LAST, {quoted(keys)} LIMIT {LISTED}
        """),
        given,
    ).all()
    found = [Named(tuple(key), shown, tuple(fields)) for *key, shown, fields, _ in rows]
    return Listing(rows[0].total if rows else 0, found)


def _touched(pairs: Sequence[TablePair], name: str) -> str:
    """Return the query for what changed in records that were there before and still are.

    It has a row per record and field: the keys, `shown` and `field`.
    """
    records, *children = (pair.current for pair in pairs)
    keys = tables.key_columns(records)
    history = quoted_table(tables.history(records))
    values = ", ".join(
        f"('{column}', r.{quoted([column])} IS DISTINCT FROM o.{quoted([column])})"
        for column in tables.data_columns(records)
        if column not in keys
    )
    parts = [
        f"""SELECT {quoted(keys, "r.")}, each.field
        FROM {quoted_table(records)} AS r
        JOIN {history} AS o ON o.source = :source AND o.valid_to = :now AND {equal("o", "r", keys)}
        CROSS JOIN LATERAL (VALUES {values}) AS each (field, differs)
        WHERE r.source = :source AND r.valid_from = :now AND each.differs"""
    ]
    for child in children:
        for table, instant in ((child, "valid_from"), (tables.history(child), "valid_to")):
            parts.append(
                f"""SELECT {quoted(keys, "c.")}, '{child.name}' AS field
                FROM {quoted_table(table)} AS c WHERE c.source = :source AND c.{instant} = :now"""
            )
    return f"""
        SELECT {quoted(keys, "r.")}, {name_of(name)}, part.field
        FROM ({" UNION ".join(parts)}) AS part
        JOIN {quoted_table(records)} AS r ON r.source = :source AND {equal("r", "part", keys)}
        LEFT JOIN {history} AS o
            ON o.source = :source AND o.valid_to = :now AND {equal("o", "r", keys)}
        WHERE r.valid_from < :now OR o.source IS NOT NULL"""

"""Staged rows of a list that does not hold whole records: what they still lack.

Such a row has the columns that the list fills. The rest comes from the current row if the record
has not changed since, as its fingerprint shows, or else from a request for this one record.

Records that were asked for are staged with ordinals from FETCHED on. Those that a killed run left
there are taken over if the list still shows their fingerprint.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from etl.load.merge import equal, is_one_of, quoted, quoted_table
from etl.load.stage import FETCHED, TablePair, drop_older, join_by_hash
from etl.warehouse import tables
from etl.warehouse.tables import Key


def drop_outdated(
    connection: Connection,
    pairs: Sequence[TablePair],
    fingerprint: Sequence[str],
    starts: Mapping[str, int],
    scope: str | None,
) -> None:
    """Drop what a killed run fetched, except records that the list shows with that `fingerprint`.

    A list that shows a record several times must show it so each time. What was staged before
    `starts` does not count, and is dropped (`stage.deduplicate`).
    """
    join_by_hash(connection)
    drop_older(connection, pairs, starts, scope)
    records, *children = pairs
    staged, keys = quoted_table(records.stage), tables.key_columns(records.current)
    same = f"({quoted(fingerprint, 'listed.')}) IS NOT DISTINCT FROM "
    same += f"({quoted(fingerprint, 'fetched.')})"
    connection.execute(
        text(f"""
        WITH matching AS MATERIALIZED (
            SELECT {quoted(keys, "fetched.")} FROM {staged} AS fetched
            JOIN {staged} AS listed ON {equal("listed", "fetched", keys)}
            WHERE fetched.ord >= {FETCHED} AND listed.ord < {FETCHED}
            GROUP BY {quoted(keys, "fetched.")} HAVING bool_and({same})
        )
        DELETE FROM {staged} AS fetched WHERE fetched.ord >= {FETCHED}
            AND NOT EXISTS (SELECT FROM matching WHERE {equal("matching", "fetched", keys)})
        """)
    )
    for child in children:
        connection.execute(
            text(f"""
            DELETE FROM {quoted_table(child.stage)} AS child WHERE child.ord >= {FETCHED}
                AND NOT EXISTS (
                    SELECT FROM {staged} AS record
                    WHERE record.ord >= {FETCHED} AND {equal("record", "child", keys)}
                )
            """)
        )


def keep_unchanged(
    connection: Connection, source: str, records: TablePair, fingerprint: Sequence[str]
) -> list[Key]:
    """Complete the staged rows whose record has not changed; return the keys to be fetched.

    A record is new, or has changed, if a column of its `fingerprint` is unlike that of its current
    row. The keys are those of such records, in the order of the list, that are not fetched yet.
    """
    join_by_hash(connection)
    same = f"({quoted(fingerprint, 'staged.')}) IS NOT DISTINCT FROM "
    same += f"({quoted(fingerprint, 'current.')})"
    _take_current(connection, source, records, same, {})
    keys = tables.key_columns(records.current)
    found = connection.execute(
        text(f"""
        SELECT {quoted(keys, "staged.")} FROM {quoted_table(records.stage)} AS staged
        WHERE staged.ord < {FETCHED} AND NOT EXISTS (
            SELECT FROM {quoted_table(records.current)} AS current
            WHERE current.source = :source AND {equal("current", "staged", keys)} AND {same}
        )
        ORDER BY staged.ord
        """),
        {"source": source},
    )
    return [tuple(row) for row in found]


def keep_as_they_were(
    connection: Connection, source: str, records: TablePair, chosen: Sequence[Key]
) -> None:
    """Give staged rows the values of their current rows, and remove those that have none."""
    keys = tables.key_columns(records.current)
    theirs, arrays = is_one_of(chosen, keys, "staged.")
    _take_current(connection, source, records, theirs, arrays)
    connection.execute(
        text(f"""
        DELETE FROM {quoted_table(records.stage)} AS staged
        WHERE {theirs} AND NOT EXISTS (
            SELECT FROM {quoted_table(records.current)} AS current
            WHERE current.source = :source AND {equal("current", "staged", keys)}
        )
        """),
        {"source": source, **arrays},
    )


def _take_current(
    connection: Connection, source: str, records: TablePair, condition: str, given: dict[str, Any]
) -> None:
    """Overwrite the staged rows that meet `condition`; their children are not staged, and stay."""
    keys = tables.key_columns(records.current)
    columns = [name for name in tables.data_columns(records.current) if name not in keys]
    values = ", ".join(f"{quoted([name])} = {quoted([name], 'current.')}" for name in columns)
    connection.execute(
        text(f"""
        UPDATE {quoted_table(records.stage)} AS staged SET partial = true, {values}
        FROM {quoted_table(records.current)} AS current
        WHERE current.source = :source AND {equal("current", "staged", keys)} AND {condition}
        """),
        {"source": source, **given},
    )

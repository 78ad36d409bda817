"""Staged rows of a list that does not hold whole records: what they still lack.

Such a row has the columns that the list fills. The rest comes from the current row if the record
has not changed since, as its fingerprint shows, or else from a request for this one record.

Records that were asked for are staged with ordinals from FETCHED on. Those that a killed run left
there are taken over if the list still shows their fingerprint. Where a record has parts that never
change, what is stored of them is staged again without a request.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, text

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
    connection: Connection,
    source: str,
    records: TablePair,
    fingerprint: Sequence[str],
    fills: Sequence[str] = (),
) -> list[tuple[Key, dict[str, Any]]]:
    """Complete the staged rows whose record has not changed; return the records to be fetched.

    A record is new, or has changed, if a column of its `fingerprint` is unlike that of its current
    row; if the list shows none of them, it may have changed. Returned are those that are not
    fetched yet, in the order of the list: the key of each, and what the list shows as its
    fingerprint. `fills` are the columns that the list does not fill; if there are none, an
    unchanged record keeps its row as it is.
    """
    join_by_hash(connection)
    same = f"({quoted(fingerprint, 'staged.')}) IS NOT DISTINCT FROM "
    same += f"({quoted(fingerprint, 'current.')})"
    same += f" AND num_nonnulls({quoted(fingerprint, 'staged.')}) > 0"
    _take_current(connection, source, records, same, {}, fills)
    keys = tables.key_columns(records.current)
    found = connection.execute(
        text(f"""
        SELECT {quoted(keys, "staged.")}, {quoted(fingerprint, "staged.")}
        FROM {quoted_table(records.stage)} AS staged
        WHERE staged.ord < {FETCHED} AND NOT EXISTS (
            SELECT FROM {quoted_table(records.current)} AS current
            WHERE current.source = :source AND {equal("current", "staged", keys)} AND {same}
        )
        ORDER BY staged.ord
        """),
        {"source": source},
    )
    width = len(keys)
    return [(tuple(row[:width]), dict(zip(fingerprint, row[width:], strict=True))) for row in found]


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
    connection: Connection,
    source: str,
    records: TablePair,
    condition: str,
    given: dict[str, Any],
    columns: Sequence[str] = (),
) -> None:
    """Overwrite the staged rows that meet `condition`; their children are not staged, and stay.

    Only `columns` are overwritten, if there are any.
    """
    keys = tables.key_columns(records.current)
    columns = columns or [each for each in tables.data_columns(records.current) if each not in keys]
    values = ", ".join(f"{quoted([name])} = {quoted([name], 'current.')}" for name in columns)
    connection.execute(
        text(f"""
        UPDATE {quoted_table(records.stage)} AS staged SET partial = true, {values}
        FROM {quoted_table(records.current)} AS current
        WHERE current.source = :source AND {equal("current", "staged", keys)} AND {condition}
        """),
        {"source": source, **given},
    )


def take_listed(
    connection: Connection, records: TablePair, ordinal: int, fills: Sequence[str]
) -> None:
    """Give records fetched from `ordinal` on what the list shows, except in the columns `fills`."""
    join_by_hash(connection)
    staged, own = quoted_table(records.stage), {*tables.key_columns(records.current), *fills}
    columns = [name for name in tables.data_columns(records.current) if name not in own]
    values = ", ".join(f"{quoted([name])} = {quoted([name], 'listed.')}" for name in columns)
    same = equal("listed", "fetched", tables.key_columns(records.current))
    connection.execute(
        text(f"""
        UPDATE {staged} AS fetched SET {values} FROM {staged} AS listed
        WHERE fetched.ord >= :ordinal AND listed.ord < {FETCHED} AND {same}
        """),
        {"ordinal": ordinal},
    )


# --- parts that never change ---------------------------------------------------------------------
def whole_parts(
    connection: Connection, source: str, parts: Table, content: str, of: Sequence[Key]
) -> dict[Key, list[int]]:
    """Return record → the numbers of its parts whose current row holds their `content`."""
    join_by_hash(connection)
    *keys, number = tables.key_columns(parts)
    theirs, arrays = is_one_of(of, keys)
    rows = connection.execute(
        text(f"""
        SELECT {quoted(keys, "current.")}, {quoted([number], "current.")}
        FROM {quoted_table(parts)} AS current
        WHERE current.source = :source AND {theirs} AND {quoted([content], "current.")} IS NOT NULL
        """),
        {"source": source, **arrays},
    )
    found: dict[Key, list[int]] = {}
    for *key, numbered in rows:
        found.setdefault(tuple(key), []).append(numbered)
    return found


def keep_parts(
    connection: Connection,
    source: str,
    parts: TablePair,
    children: Sequence[TablePair],
    content: str,
) -> None:
    """Complete the parts that were fetched without their `content`, where current rows hold it.

    Such a part gets the current values where it has none, and its children are staged as they are.
    """
    join_by_hash(connection)
    keys = tables.key_columns(parts.current)
    kept = f"""current.source = :source AND {equal("current", "staged", keys)}
        AND {quoted([content], "current.")} IS NOT NULL
        AND {quoted([content], "staged.")} IS NULL AND staged.ord >= {FETCHED}"""
    given = {"source": source}
    for child in children:
        names = tables.data_columns(child.current)
        connection.execute(
            text(f"""
            INSERT INTO {quoted_table(child.stage)} (ord, {quoted(names)})
            SELECT staged.ord, {quoted(names, "child.")}
            FROM {quoted_table(parts.stage)} AS staged
            JOIN {quoted_table(parts.current)} AS current ON {kept}
            JOIN {quoted_table(child.current)} AS child
                ON child.source = :source AND {equal("child", "staged", keys)}
            """),
            given,
        )
    fields = [name for name in tables.data_columns(parts.current) if name not in (*keys, "extra")]
    values = ", ".join(
        f"{quoted([name])} = coalesce({quoted([name], 'staged.')}, {quoted([name], 'current.')})"
        for name in fields
    )  # `extra` stays as it came with the content: lists leave more out
    connection.execute(
        text(f"""
        UPDATE {quoted_table(parts.stage)} AS staged SET extra = current.extra, {values}
        FROM {quoted_table(parts.current)} AS current WHERE {kept}
        """),
        given,
    )


def show_chosen(
    connection: Connection,
    records: TablePair,
    chosen: str,
    number: str,
    parts: TablePair,
    shown: TablePair,
) -> None:
    """Stage as `shown` the rows of `parts` that belong to a fetched record's chosen part.

    That is the part whose `number` is in the record's column `chosen`. What `parts` has no column
    for comes from the record.
    """
    join_by_hash(connection)
    keys, theirs = tables.key_columns(records.current), tables.data_columns(parts.current)
    names = tables.data_columns(shown.current)
    values = ", ".join(quoted([name], "part." if name in theirs else "record.") for name in names)
    connection.execute(
        text(f"DELETE FROM {quoted_table(shown.stage)} WHERE ord >= {FETCHED}")
    )  # what a killed run had copied
    connection.execute(
        text(f"""
        INSERT INTO {quoted_table(shown.stage)} (ord, {quoted(names)})
        SELECT record.ord, {values}
        FROM {quoted_table(records.stage)} AS record
        JOIN {quoted_table(parts.stage)} AS part ON part.ord = record.ord
            AND {equal("part", "record", keys)}
            AND {quoted([number], "part.")} = {quoted([chosen], "record.")}
        WHERE record.ord >= {FETCHED}
        """)
    )

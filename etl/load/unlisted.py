"""Records that a proven full scan did not list, remembered in etl.absences until one lists them."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Table, Text, bindparam, delete, func, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert

from etl.load.merge import is_one_of, quoted, quoted_table
from etl.load.named import Named, name_of
from etl.load.runs import FIRST, LAST, readable
from etl.load.stage import join_by_hash
from etl.warehouse import tables
from etl.warehouse.tables import Key, absences


def unlisted_before(
    connection: Connection, source: str, stream: str, width: int
) -> tuple[dict[Key, str], list[str]]:
    """Return the records noted as unlisted: key (without source) → id of the run that noted it.

    `width` is the number of the key's columns. The second value holds what stands in the column
    `key` and is no such key, for `note` to delete.
    """
    query = select(absences.c.key, absences.c.run_id).where(
        absences.c.source == source, absences.c.stream == stream
    )
    unlisted: dict[Key, str] = {}
    unreadable: list[str] = []
    for written, run_id in connection.execute(query):
        key = _key(written, width)
        if key is None:
            unreadable.append(written)
        else:
            unlisted[key] = run_id
    return unlisted, unreadable


@dataclass(frozen=True, slots=True)
class Missing:
    """A record that is in its table, but was not listed by the last full scans that are proven.

    `id` and `name` are those of `named.Named`; `modified` is the provider's time of modification,
    None if it has none; `since` when a run missed the record first (both UTC).
    """

    id: str
    name: str | None
    since: datetime | None
    modified: datetime | None


def missing(
    connection: Connection,
    source: str,
    stream: str,
    table: Table,
    name: str,
    modified: str | None,
) -> list[Missing]:
    """Return the current records that are noted as unlisted, by name.

    `table` is that of the records, `name` is SQL over a row `r` of it, `modified` a column.
    """
    query = select(absences.c.key, readable(absences.c.since)).where(
        absences.c.source == source, absences.c.stream == stream
    )
    columns = tables.key_columns(table)
    noted: dict[Key, datetime | None] = {}
    for written, since in connection.execute(query):
        key = _key(written, len(columns))
        if key is not None:
            noted[key] = since and since.astimezone(UTC)
    if not noted:
        return []
    join_by_hash(connection)
    theirs, arrays = is_one_of(list(noted), columns, "r.")
    column = f"r.{quoted([modified])}" if modified else "NULL::timestamptz"
    rows = connection.execute(
        text(f"""
        SELECT {quoted(columns, "r.")}, {name_of(name)},
            CASE WHEN {column} >= :first AND {column} < :last THEN {column} END
        FROM {quoted_table(table)} AS r WHERE r.source = :source AND {theirs}
        ORDER BY shown NULLS LAST, {quoted(columns, "r.")}
        """),
        {"source": source, "first": FIRST, "last": LAST, **arrays},
    )
    return [
        Missing(Named(key, shown).id, shown, noted[key], time and time.astimezone(UTC))
        for *parts, shown, time in rows
        for key in [tuple(parts)]
    ]


def note(
    connection: Connection,
    source: str,
    stream: str,
    run_id: str,
    *,
    unlisted: Iterable[Key] = (),
    settled: Collection[Key] = (),
    unreadable: Collection[str] = (),
) -> None:
    """Note that the run did not list the records `unlisted`, and delete the notes on others.

    `settled` are keys of records that are listed again or were deleted, `unreadable` contents of
    the column `key` that are no keys. A record that is noted already keeps its note.
    """
    if over := [*map(_text, settled), *unreadable]:
        chosen = absences.c.key == func.any(literal(over, ARRAY(Text())))
        connection.execute(
            delete(absences).where(absences.c.source == source, absences.c.stream == stream, chosen)
        )
    if keys := [_text(key) for key in unlisted]:
        insertion = insert(absences).values(
            source=source,
            stream=stream,
            key=bindparam("key"),
            run_id=run_id,
            since=func.clock_timestamp(),
        )
        connection.execute(insertion.on_conflict_do_nothing(), [{"key": key} for key in keys])


def _key(written: str, width: int) -> Key | None:
    """Return the key that `_text` wrote; None when it did not write this one."""
    try:
        key = json.loads(written)
    except (ValueError, RecursionError):
        return None
    fits = isinstance(key, list) and len(key) == width and all(isinstance(c, str) for c in key)
    return tuple(key) if fits and _text(tuple(key)) == written else None


def _text(key: Key) -> str:
    return json.dumps(key, ensure_ascii=False)

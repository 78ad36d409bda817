"""Records that a proven full scan did not list, remembered in etl.absences until the next one."""

import json
from collections.abc import Collection, Iterable

from sqlalchemy import Connection, Text, bindparam, delete, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, insert

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
    for text, run_id in connection.execute(query):
        key = _key(text, width)
        if key is None:
            unreadable.append(text)
        else:
            unlisted[key] = run_id
    return unlisted, unreadable


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


def _key(text: str, width: int) -> Key | None:
    """Return the key that `_text` wrote as `text`; None when it did not write this one."""
    try:
        key = json.loads(text)
    except (ValueError, RecursionError):
        return None
    fits = isinstance(key, list) and len(key) == width and all(isinstance(c, str) for c in key)
    return tuple(key) if fits and _text(tuple(key)) == text else None


def _text(key: Key) -> str:
    return json.dumps(key, ensure_ascii=False)

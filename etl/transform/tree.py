"""A record and the lists of children inside it → rows, as their tables declare it.

A table declares where its records are (`record="flows[].versions[]"`) and from which member each
column comes. What a declaration cannot say is a function, `inside`: for example, how to read the
steps in the JSON text of a flow's definition.
"""

from collections.abc import Callable, Iterator
from datetime import tzinfo
from functools import cache, partial
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Table

from etl.errors import UnkeyedError
from etl.extract.page import Page
from etl.transform.exact import Struct, add_exact, are_structs
from etl.transform.lists import ChildList, child_lists
from etl.transform.rows import Reject, Rows
from etl.transform.values import (
    Reader,
    Row,
    items,
    key,
    last_of_each,
    no_list,
    no_rows,
    readable,
    reader,
)
from etl.warehouse import tables

Transform = Callable[[Page, int], Rows]
"""(page, ordinal of its first record in the scan) → rows; each row starts with its ordinal."""

Inside = Callable[[dict[str, Any], int, Row, str, Rows], bool]
"""(record, its ordinal, its key, its name in messages, rows to add to) → whether all was read.

The record's times may have been read already. A False keeps the record's current children: none of
them is removed for not being among the rows.
"""


def tree(record: Table, *, noun: str, inside: Inside | None = None) -> Transform:
    """Return the transformer of a list whose records become rows of the table `record`.

    `noun` names a record in messages ("flow"). A row of `record` starts with its ordinal and
    whether one of its children could not be read; a child's row starts with the ordinal of its
    record. The page is not changed.
    """
    lists = child_lists(record)
    named = [record, *tables.children(record)]
    width = len(tables.key_columns(record))

    def transform(page: Page, start: int) -> Rows:
        rows = no_rows(*named)
        into = rows.tables[record.fullname]
        if are_structs(page):
            within = partial(_within, inside, noun, rows) if inside else None
            add_exact(record, page, start, rows, within)
            return rows
        read = _reader(record, page.zone, tuple(each.member for each in lists))
        given, read = _scoped(record, page.scope, read)
        for index, sent, row in readable(noun, page.records, read, given, rows):
            ordinal, own_key = start + index, row[:width]
            what = f"{noun} {own_key[-1]}"
            read_all = [_children(each, sent, ordinal, own_key, what, page.zone, rows)
                     for each in lists]  # fmt: skip
            if inside:
                read_all.append(inside(sent, ordinal, own_key, what, rows))
            into.append((ordinal, not all(read_all), *row))
        return rows

    return transform


def _within(
    inside: Inside, noun: str, rows: Rows, sent: Struct, ordinal: int, own_key: Row
) -> bool:
    """Read what is inside a record that is a struct."""
    return inside(asdict(sent), ordinal, own_key, f"{noun} {own_key[-1]}", rows)


@cache
def _reader(table: Table, zone: tzinfo | None, apart: tuple[str, ...] = ()) -> Reader:
    return reader(table, zone, apart=apart)


def _scoped(record: Table, scope: str, read: Reader) -> tuple[Row, Reader]:
    """Return the key columns of the scope, and a reader that drops a member repeating them."""
    members = [column.info["scope"] for column in record.columns if "scope" in column.info]
    if not members:
        return (), read
    (member,) = members

    def without(sent: dict[str, Any], given: Row) -> tuple[Row, int]:
        if sent.get(member) in (None, scope):
            sent = {name: value for name, value in sent.items() if name != member}
        return read(sent, given)

    return (scope,), without


def _children(
    of: ChildList,
    sent: dict[str, Any],
    ordinal: int,
    parent: Row,
    what: str,
    zone: tzinfo | None,
    rows: Rows,
) -> bool:
    """Add the rows of one list of children; return whether all of them could be read."""
    listed = items(sent, of.member)
    if listed is None:
        rows.rejects.append(no_list(what, sent, of.member))
        return False
    what = f"{of.member} of {what}"
    if of.texts:
        found = [(*parent, text, None) for text in _texts(listed, of.table, what, rows)]
    else:
        read = _reader(of.table, zone)
        found = [child for _, _, child in readable(what, listed, read, parent, rows)]
    into = rows.tables[of.table.fullname]
    into += [(ordinal, *child) for child in last_of_each(found, of.width)]
    return len(found) == len(listed)


def _texts(listed: list[Any], table: Table, what: str, rows: Rows) -> Iterator[str]:
    """Yield the items that are texts, also empty ones; reject the others."""
    name = tables.key_columns(table)[-1]
    for text in listed:
        try:
            yield key(text, name) if text != "" else ""
        except UnkeyedError as error:
            rows.rejects.append(Reject(f"{what}: {error}", text))

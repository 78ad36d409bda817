"""A record and what is inside it → rows, as the tables declare it: `record="flows[].versions[]"`.

Only what a declaration cannot say is code, handed in as `inside`: such as the steps in the JSON
text of a flow's definition.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import tzinfo
from functools import cache
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import JSONB

from etl.errors import UnkeyedError
from etl.extract.page import Page
from etl.transform.rows import Reject, Rows
from etl.transform.values import (
    Reader,
    Row,
    exact_reader,
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
"""(record, its ordinal, its key, its name in messages, rows to add to) → whether all was read."""


@dataclass(frozen=True, slots=True)
class _List:
    """A list of children in the record's `member`; `texts`: its items are texts, not objects."""

    member: str
    table: Table
    texts: bool

    @property
    def width(self) -> int:
        return len(tables.key_columns(self.table))


def tree(record: Table, *, noun: str, inside: Inside | None = None) -> Transform:
    """Return the transformer of a list whose records are `record`'s rows.

    `noun` names a record in messages ("flow"). A row of `record` starts with its ordinal and
    whether a child of it could not be read, a child's row with the ordinal of its record. The
    input stays as it was.
    """
    lists = _lists(record)
    named = [record, *tables.children(record)]
    width = len(tables.key_columns(record))
    exact = exact_reader(record) if _is_plain(record) else None

    def transform(page: Page, start: int) -> Rows:
        rows = no_rows(*named)
        into = rows.tables[record.fullname]
        if exact and (found := exact(page.records)) is not None:
            into += [(ordinal, False, *row, None) for ordinal, row in enumerate(found, start)]
            return rows
        read = _reader(record, page.zone, tuple(each.member for each in lists))
        given, read = _scoped(record, page.scope, read)
        for index, sent, row in readable(noun, page.records, read, given, rows):
            ordinal, own_key = start + index, row[:width]
            what = f"{noun} {own_key[-1]}"
            whole = [_children(each, sent, ordinal, own_key, what, page.zone, rows)
                     for each in lists]  # fmt: skip
            if inside:
                whole.append(inside(sent, ordinal, own_key, what, rows))
            into.append((ordinal, not all(whole), *row))
        return rows

    return transform


def _is_plain(record: Table) -> bool:
    """Whether a record is nothing but values of its own members, of types with one spelling."""
    own = [column for column in record.columns if "json" in column.info]
    return (
        not record.info["children"]
        and all(
            len(column.info["json"]) == 1 and not isinstance(column.type, JSONB) for column in own
        )
        and not any("scope" in column.info for column in record.columns)
    )


def _lists(record: Table) -> tuple[_List, ...]:
    """Find the child tables whose records are a list in a member of `record`'s own."""
    found = []
    for table in record.info["children"]:
        member = table.info["record"].removeprefix(record.info["record"] + ".")
        if member.endswith("[]") and "." not in member:
            texts = any(column.info.get("json") == () for column in table.columns)
            found.append(_List(member.removesuffix("[]"), table, texts))
    return tuple(found)


@cache
def _reader(table: Table, zone: tzinfo | None, apart: tuple[str, ...] = ()) -> Reader:
    return reader(table, zone, apart=apart)


def _scoped(record: Table, scope: str, read: Reader) -> tuple[Row, Reader]:
    """Return the given key columns of a list's part, and a reader that drops what repeats them."""
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
    of: _List,
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
    """Yield the items that are texts; an empty one is one of them."""
    name = tables.key_columns(table)[-1]
    for text in listed:
        try:
            yield key(text, name) if text != "" else ""
        except UnkeyedError as error:
            rows.rejects.append(Reject(f"{what}: {error}", text))

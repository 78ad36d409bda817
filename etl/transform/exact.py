"""Records that are exactly as documented: from their JSON text to rows, without dictionaries.

`exact_reader` decodes the records of a page into structs, one call for all of them. A struct has a
field for each column of the record's table, in COPY order, and the lists of its children.
`add_exact` makes rows of structs. If there is any doubt about one value of a page, the page does
not become structs, and `tree` takes the general way, record by record and cell by cell
(`values.reader`). Both ways give the same rows; a property test compares them.

What is known of structs, so that nobody has to look at single values:

- Each member is one that a column or a list of children reads, and has its type. So nothing is
  left for `extra`, and nothing is a warning.
- Each key is text that can be one.
- No text holds a NUL, because no escape stands for one; or half of a surrogate pair, which msgspec
  refuses.
- No time is in the years 1 and 9999, where an instant may be one that no client reads back.
"""

import keyword
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, datetime, tzinfo
from functools import cache
from itertools import chain, groupby, takewhile
from operator import attrgetter
from typing import Annotated, Any, Final

import msgspec
from msgspec.structs import astuple
from sqlalchemy import Boolean, Column, DateTime, Integer, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from etl.extract.decode import AT_ONCE, COMMA, OBJECT, Buffer, may_hold_nul
from etl.extract.page import Exact, Page
from etl.transform.lists import child_lists
from etl.transform.rows import Rows
from etl.transform.values import (
    INT4,
    MAX_ITEMS,
    MAX_KEY_BYTES,
    Row,
    as_it_is,
    as_json,
    last_of_each,
)
from etl.warehouse import tables

Struct = Any
"""A record, or a child of one, as its table's struct."""

Within = Callable[[Struct, int, Row], bool]
"""(record, its ordinal, its key) → whether all that it holds besides its lists was read."""

ReadSteps = Callable[[str, Row], list[tuple[Row, list[Row]]] | None]
"""(text of a definition, key of its flow) → the row of each step, and those of the links that leave
it; None if any of it is odd in any way."""

_KEY: Final = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY_BYTES // 4)]
_ITEM: Final = Annotated[str, msgspec.Meta(max_length=MAX_KEY_BYTES // 4)]
_INT4: Final = Annotated[int, msgspec.Meta(ge=INT4.start, lt=INT4.stop)]
_ZONED: Final = Annotated[datetime, msgspec.Meta(tz=True)]
_KINDS: Final[dict[type, Any]] = {Text: str, Boolean: bool, Integer: _INT4, JSONB: Any}


@dataclass(frozen=True, slots=True)
class _Shape:
    """The struct of a table's records, and how its fields become cells.

    `struct`   its first `cells` fields are members that columns read, in COPY order; then come the
               member that repeats the `scope` ("": there is none), and the `lists` of children.
    `inner`    the fields that are objects, from the last to the first, with the number of columns
               that read them.
    `jsons`, `times`
               the cells that hold JSON, and those that hold times; `times_of` are their members.
    `key`      returns the record's own key, or the part of it that the record holds.
    """

    struct: Any
    cells: int
    inner: tuple[tuple[int, int], ...]
    jsons: tuple[int, ...]
    times: tuple[int, ...]
    times_of: tuple[str, ...]
    scope: str
    lists: tuple["_List", ...]
    key: Callable[[Struct], Any] | None


@dataclass(frozen=True, slots=True)
class _List:
    """A list of children: its member, the table, and their shape; None: they are texts."""

    member: str
    table: Table
    shape: _Shape | None


def exact_reader(table: Table) -> Exact | None:
    """Return the function that reads a list of `table`'s records if all are as documented.

    None if a column needs more than the value of a member. See `extract.page.Exact`.
    """
    shape = _shape(table, zoned=False)
    if shape is None or shape.jsons or any(each.shape and each.shape.jsons for each in shape.lists):
        return None

    def read(text: Buffer, *, zone: tzinfo | None) -> list[Struct] | None:
        shape, decoder = _reader(table, zoned=zone is not None)
        try:
            found = decoder.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        return found if len(text) + _weight(shape, found) <= AT_ONCE else None

    return read


def _weight(shape: _Shape, found: list[Struct]) -> float:
    """Estimate as `decode.weight` does how many bytes the records take, besides their text.

    It is infinite if a time is in a year in which an instant may be out of reach.
    """
    for name in shape.times_of:
        for time in map(attrgetter(name), found):
            if time is not None and not MINYEAR < time.year < MAXYEAR:
                return math.inf
    much: float = OBJECT * len(found)
    for each in shape.lists:
        children = [*chain.from_iterable(filter(None, map(attrgetter(each.member), found)))]
        much += _weight(each.shape, children) if each.shape else COMMA * len(children)
    return much


def are_structs(page: Page) -> bool:
    """Return whether the records of a page are what an exact reader made of them."""
    return bool(page.records) and isinstance(page.records[0], msgspec.Struct)


def add_exact(
    record: Table, page: Page, start: int, rows: Rows, within: Within | None = None
) -> None:
    """Add the rows of a page of `record`'s structs and their children; see `tree.tree`."""
    shape = _shape(record, zoned=page.zone is not None)
    assert shape is not None
    cells, into = _cells(shape, page.zone), rows.tables[record.fullname]
    if not (shape.scope or shape.lists or within):
        into += [(n, False, *row, None) for n, row in enumerate(map(cells, page.records), start)]
        return
    given = (page.scope,) if shape.scope else ()
    width = len(tables.key_columns(record))
    children = [
        (attrgetter(each.member), _children(each, page.zone), rows.tables[each.table.fullname])
        for each in shape.lists
    ]
    for ordinal, sent in enumerate(page.records, start):
        row = (*given, *cells(sent))
        key = row[:width]
        is_whole = within is None or within(sent, ordinal, key)
        into.append((ordinal, not is_whole, *row, _extra(sent, shape.scope, page.scope)))
        for listed, made, child_rows in children:
            if found := listed(sent):
                child_rows += made(found, (ordinal, *key))


def _extra(sent: Struct, member: str, scope: str) -> str | None:
    """Return what is left of a record: the member that repeats the scope, if it does not."""
    if not member or (value := getattr(sent, member)) in (None, scope):
        return None
    return as_json({member: value})


def _children(of: _List, zone: tzinfo | None) -> Callable[[list[Any], Row], list[Row]]:
    """Return the function (children of a record, its ordinal and key) → their rows.

    Of children with one key the last one's row is kept, at the place of the first one.
    """
    shape, width = of.shape, 1 + len(tables.key_columns(of.table))
    if shape is None:
        return lambda found, before: [(*before, text, None) for text in dict.fromkeys(found)]
    cells, own_key = _cells(shape, zone), shape.key

    def made(found: list[Any], before: Row) -> list[Row]:
        listed = [(*before, *cells(each), None) for each in found]
        keys = set(map(own_key, found)) if own_key else ()
        return listed if len(keys) == len(found) else list(last_of_each(listed, width))

    return made


def exact_steps(member: str, steps: Table) -> ReadSteps:
    """Return the function that reads the steps in the list `member` of a definition's text.

    The links that leave a step are the children of its table. See `ReadSteps`.
    """

    def read(text: str, key: Row) -> list[tuple[Row, list[Row]]] | None:
        if may_hold_nul(text):
            return None
        shape, decoder = _definition(member, steps)
        (links,) = shape.lists
        assert links.shape is not None
        step_cells, link_cells = _cells(shape, None), _cells(links.shape, None)
        leaving, found = attrgetter(links.member), []
        try:
            for each in getattr(decoder.decode(text), member):
                row = (*key, *step_cells(each), None)
                before = row[: len(key) + 1]
                ways = enumerate(map(link_cells, leaving(each) or ()))
                found.append((row, [(*before, place, *way, None) for place, way in ways]))
        except (ValueError, RecursionError):
            return None
        return found

    return read


def _cells(shape: _Shape, zone: tzinfo | None) -> Callable[[Struct], Row]:
    """Return the function that makes a record's cells, from its own key to the last field.

    It raises ValueError for JSON that a jsonb column does not accept as it is.
    """
    count, times = shape.cells, shape.times if zone else ()
    if not (shape.inner or shape.jsons or times):
        if count == len(shape.struct.__struct_fields__):
            return astuple
        return lambda sent: astuple(sent)[:count]

    def cells(sent: Struct) -> Row:
        row = list(astuple(sent)[:count])
        for index, width in shape.inner:
            row[index : index + 1] = [None] * width if row[index] is None else astuple(row[index])
        for index in shape.jsons:
            if row[index] is not None:
                row[index] = as_it_is(row[index])
                if row[index] is None:
                    raise ValueError("it nests too deeply")
        for index in times:
            if row[index] is not None and row[index].tzinfo is None:
                row[index] = row[index].replace(tzinfo=zone)
        return tuple(row)

    return cells


# --- from a table to its struct ------------------------------------------------------------------
@cache
def _reader(table: Table, *, zoned: bool) -> tuple[_Shape, msgspec.json.Decoder[list[Struct]]]:
    """Return the shape of the table's records, and what decodes a list of them."""
    shape = _shape(table, zoned=zoned)
    assert shape is not None
    return shape, msgspec.json.Decoder(_listed(shape.struct))


@cache
def _definition(member: str, steps: Table) -> tuple[_Shape, msgspec.json.Decoder[Struct]]:
    """Return the shape of the steps, and what decodes a definition with a list of them."""
    shape = _shape(steps, zoned=False)
    assert shape is not None
    content = msgspec.defstruct("definition", [(member, _listed(shape.struct))])
    return shape, msgspec.json.Decoder(content)


@cache
def _shape(table: Table, *, zoned: bool) -> _Shape | None:
    """Return the shape of the table's records; None if a column needs more than a value.

    `zoned` says that times may come without a zone.
    """
    given, columns = _columns(table)
    if columns is None or table.info["unset"] is not None:
        return None
    fields: list[Any] = []
    inner: list[tuple[int, int]] = []
    for name, group in groupby(columns, lambda column: column.info["json"][0]):
        of = list(group)
        if len(of) == 1 and len(of[0].info["json"]) == 1:
            fields.append(_field(table, of[0], zoned=zoned))
        elif all(_is_inner(column) for column in of):
            inner.append((len(fields), len(of)))
            inside = [_field(table, column, zoned=zoned) for column in of]
            fields.append((name, _struct(name, inside) | None, None))
        else:
            return None
    cells = len(fields)
    scope = "".join(column.info["scope"] for column in given if "scope" in column.info)
    if scope:
        fields.append((scope, str | None, None))
    lists = []
    for each in child_lists(table):
        child = None if each.texts else _shape(each.table, zoned=zoned)
        if child and child.lists:
            child = None
        kind = _ITEM if each.texts else child and child.struct
        # Other children, and children of children, are read in the general way.
        fields.append((each.member, _listed(kind) | None if kind else None, None))
        if kind:
            lists.append(_List(each.member, each.table, child))
    names = [name for name, *_ in fields]
    if len(set(names)) < len(names) or not all(map(_can_be_field, names)):
        return None
    keys = [c.info["json"][0] for c in columns if c.name in tables.key_columns(table)]
    return _Shape(
        _struct(table.name, fields),
        cells,
        tuple(reversed(inner)),
        tuple(n for n, column in enumerate(columns) if isinstance(column.type, JSONB)),
        tuple(n for n, column in enumerate(columns) if isinstance(column.type, DateTime)),
        tuple(c.info["json"][0] for c in columns if isinstance(c.type, DateTime)),
        scope,
        tuple(lists),
        attrgetter(*keys) if keys else None,
    )


def _columns(table: Table) -> tuple[list[Column[Any]], list[Column[Any]] | None]:
    """Return the columns that the transformer fills, and those that members of a record fill.

    The latter is None if those do not follow these, or need more than a member's value.
    """
    data = [table.columns[name] for name in tables.data_columns(table)[:-1]]
    given = list(takewhile(lambda column: "json" not in column.info, data))
    rest = data[len(given) :]
    special = {"spelled", "derived", "text", "scope"}
    if any(not column.info.get("json") or column.info.keys() & special for column in rest):
        return given, None
    return given, rest


def _field(table: Table, column: Column[Any], *, zoned: bool) -> tuple[Any, ...]:
    kind = {**_KINDS, DateTime: datetime if zoned else _ZONED}[type(column.type)]
    name = column.info["json"][-1]
    if column.name in tables.key_columns(table):
        return name, _KEY if kind is str else kind
    return name, kind if kind is Any else kind | None, None


def _struct(name: str, fields: list[tuple[Any, ...]]) -> Any:
    return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True, gc=False)


def _listed(kind: Any) -> Any:
    return Annotated[list[kind], msgspec.Meta(max_length=MAX_ITEMS)]


def _is_inner(column: Column[Any]) -> bool:
    return len(column.info["json"]) == 2 and not isinstance(column.type, DateTime)


def _can_be_field(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)

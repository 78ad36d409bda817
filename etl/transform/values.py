"""From a provider's JSON object to a row: one reader per table, built from its definition.

A value that fits its column goes there. A value that does not fit leaves NULL in the column and is
kept as sent in `extra`, under the provider's name; so is everything that no column models. Text
that Postgres cannot hold (NUL, lone surrogates) is stored with U+FFFD, and its JSON-escaped
original is kept in `extra`. So nothing that a provider sent is lost.

Numbers, booleans and lists of children that come as text are read if the text is spelled as in
JSON: "3", "true", "[…]" (Alibaba's own examples have them). "03", "3.0", "True" and "yes" might
mean something else, so they do not fit.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

import msgspec
from sqlalchemy import Boolean, Column, DateTime, Integer, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from etl.errors import UnkeyedError
from etl.extract.decode import Packed, as_sent, bounded, moment, unpack, whole
from etl.transform.rows import Reject, Rows
from etl.transform.times import SPELLINGS
from etl.warehouse import tables

Row = tuple[Any, ...]
Reader = Callable[[dict[str, Any], Row], tuple[Row, int]]

MAX_KEY_BYTES: Final = 800
"""Bytes of the longest key column: three and a source fit into an index row (2,704 bytes)."""

INT4: Final = range(-(2**31), 2**31)

MAX_DEPTH: Final = 100
"""Levels of a JSON value that are stored as such. Deeper values are stored as their JSON text, so
that neither Python's stack nor that of Postgres overflows."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_NOTHING: Final = object()
_PIECE: Final = 65_536

MAX_ITEMS: Final = 200_000
"""The most children of one kind that a record may have."""


def storable(text: str) -> bool:
    """Return whether Postgres can hold `text`: it has no NUL and no lone surrogate."""
    return (text.isascii() and "\0" not in text) or not _UNSTORABLE.search(text)


def replaced(text: str) -> str:
    """Return `text` with U+FFFD for every character that Postgres cannot hold."""
    return _UNSTORABLE.sub("\ufffd", text)


def escaped(text: str) -> str:
    """Return `text` as the inside of a JSON string, from which the original can be read back."""
    pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
    return "".join(_escaped(piece) for piece in pieces)


def _escaped(text: str) -> str:
    inner = json.dumps(text, ensure_ascii=False)[1:-1]
    return _UNSTORABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", inner)


def _deep(value: Any, clean: Callable[[str], str], room: int = MAX_DEPTH) -> Any:
    """Apply `clean` to every string in `value` that Postgres cannot hold, keys included.

    A key that would then be in its object twice gets the first free suffix of "_", "__", "___",
    "_4", "_5", …. Values below `room` levels become JSON text.
    """
    if isinstance(value, str):
        return value if storable(value) else clean(value)
    if not isinstance(value, dict | list):
        return value
    if not room:
        return _text_of(value)
    if isinstance(value, list):
        return [_deep(inner, clean, room - 1) for inner in value]
    cleaned: dict[str, Any] = {}
    tried: dict[str, int] = {}
    for name, inner in value.items():
        new = base = _deep(name, clean)
        while new != name and (new in value or new in cleaned):
            times = tried[base] = tried.get(base, 0) + 1
            new = base + ("_" * times if times < 4 else f"_{times}")
        cleaned[new] = _deep(inner, clean, room - 1)
    return cleaned


def _text_of(value: Any) -> str:
    """Return `value` as ASCII JSON text, however deeply it nests (json.dumps recurses)."""
    done: list[str] = []
    todo: list[tuple[str, Any]] = [("", value)]  # text that comes first, then a value
    while todo:
        text, inner = todo.pop()
        done.append(text)
        if isinstance(inner, dict):
            named = [(json.dumps(name) + ":", one) for name, one in inner.items()]
        elif isinstance(inner, list):
            named = [("", one) for one in inner]
        else:
            done.append("" if inner is _NOTHING else json.dumps(inner))
            continue
        opening, closing = "{}" if isinstance(inner, dict) else "[]"
        todo.append((closing, _NOTHING))
        members = [
            (("," if index else opening) + name, one) for index, (name, one) in enumerate(named)
        ]
        todo += reversed(members or [(opening, _NOTHING)])
    return "".join(done)


def as_json(value: Any) -> str:
    """Return `value` as JSON text that a jsonb column accepts; text it cannot hold is escaped."""
    if (text := as_it_is(value)) is not None:
        return text
    return _dumps(_deep(value, escaped))


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_it_is(value: Any) -> str | None:
    """Return `value` as JSON text; None if a jsonb column does not accept it unchanged."""
    try:
        text = msgspec.json.encode(value)
    except OverflowError:  # an integer of more than 64 bits
        return _large_as_it_is(value)
    except (UnicodeEncodeError, RecursionError):
        return None
    # Each level has a bracket, so this proves of nearly all values that they are not too deep.
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and not _shallow(value, MAX_DEPTH):
        return None
    return None if b"\\u0000" in text else text.decode()


def _large_as_it_is(value: Any) -> str | None:
    if not _shallow(value, MAX_DEPTH):
        return None
    text = _dumps(value)
    return text if "\\u0000" not in text and storable(text) else None


def _shallow(value: Any, room: int) -> bool:
    """Return whether `value` has no more than `room` levels."""
    if not isinstance(value, dict | list):
        return True
    inside = value.values() if isinstance(value, dict) else value
    return room > 0 and all(
        _shallow(inner, room - 1) for inner in inside if type(inner) in (dict, list)
    )


def parse_time(
    value: Any, zone: tzinfo | None, spelled: Callable[[Any], datetime | None] = moment
) -> datetime | None:
    """Read a time as an aware datetime; None if it is none. `spelled` reads its spelling.

    A time without an offset is read in `zone`; without a zone it is refused, not guessed. An
    instant outside the years 1 to 9999 in UTC is refused too: no client could read it back.
    """
    time = spelled(value)
    if time is None:
        return None
    try:
        if time.tzinfo is None:
            if zone is None:
                return None
            time = time.replace(tzinfo=zone)
        time.astimezone(UTC)
    except OverflowError:
        return None
    return time


Converter = Callable[[Any], tuple[Any, bool]]
"""A value as sent → the cell, and whether the original has to be kept beside it."""

_MISFIT: Final = (None, True)


def _text(value: Any) -> tuple[Any, bool]:
    if type(value) is not str:
        return _MISFIT
    return (value, False) if storable(value) else (replaced(value), True)


def _boolean(value: Any) -> tuple[Any, bool]:
    if type(value) is str:
        value = {"true": True, "false": False}.get(value)
    return (value, False) if type(value) is bool else _MISFIT


def _integer(value: Any) -> tuple[Any, bool]:
    number = whole(value)
    return (number, False) if number is not None and number in INT4 else _MISFIT


def _json(value: Any) -> tuple[Any, bool]:
    if (text := as_it_is(value)) is not None:
        return text, False
    return _dumps(_deep(value, replaced)), True


def _time(zone: tzinfo | None, spelled: Callable[[Any], datetime | None]) -> Converter:
    def convert(value: Any) -> tuple[Any, bool]:
        time = parse_time(value, zone, spelled)
        return time, time is None

    return convert


def json_text(value: Any) -> str:
    """Return `value` as compact JSON text, from which it can be read back whatever it holds."""
    if _shallow(value, MAX_DEPTH) and storable(text := _dumps(value)):
        return text
    return _text_of(value)


def _json_text(value: Any) -> tuple[Any, bool]:
    """Convert a value that comes as JSON, or as its text."""
    return _text(value) if isinstance(value, str) else (json_text(value), False)


def _converter(column: Column[Any], zone: tzinfo | None) -> Converter:
    kind: Any = column.type
    if "text" in column.info:
        return _json_text
    if isinstance(kind, DateTime):
        return _time(zone, SPELLINGS.get(column.info.get("spelled", ""), moment))
    return {Text: _text, Boolean: _boolean, Integer: _integer, JSONB: _json}[type(kind)]


def key(value: Any, name: str) -> str:
    """Return `value` if it can be (part of) a key, else raise UnkeyedError; never change it."""
    if not isinstance(value, str):
        found = "missing" if value is None else f"not text but {type(value).__name__}"
        raise UnkeyedError(f"{name} is {found}")
    if not value:
        raise UnkeyedError(f"{name} is empty")
    if not storable(value):
        raise UnkeyedError(f"{name} holds a NUL or a lone surrogate")
    if len(value.encode()) > MAX_KEY_BYTES:
        raise UnkeyedError(f"{name} is longer than {MAX_KEY_BYTES} bytes")
    return value


def _number(value: Any, name: str) -> int:
    """Return `value` if it can be a number in a key, else raise UnkeyedError."""
    number, is_odd = _integer(value)
    if is_odd:
        raise UnkeyedError(f"{name} is {'missing' if value is None else 'not a whole number'}")
    return int(number)


def reader(table: Table, zone: tzinfo | None = None, *, apart: Iterable[str] = ()) -> Reader:
    """Return a function that reads one record of `table`.

    `zone`   the zone of times that come without one; None: such times do not fit.
    `apart`  members that hold children: they are read elsewhere and do not go to `extra`.

    The function takes the record and the given key columns (a parent's key, a position). It returns
    the row in COPY order and the number of values that did not fit. It does not change the record.
    It raises UnkeyedError if the record has no usable key.
    """
    keys = set(tables.key_columns(table))
    columns = [column for column in table.columns if "json" in column.info]
    own_keys = [
        (c.info["json"][0], _number if isinstance(c.type, Integer) else key)
        for c in columns
        if c.name in keys
    ]
    fields = [_field(c, zone) for c in columns if c.name not in keys]
    groups = tuple(dict.fromkeys(group for _, group, _ in fields if group is not None))
    lists, unset = tuple(apart), table.info.get("unset")
    derived = [
        (index, column.info["derived"])
        for index, column in enumerate(table.columns[name] for name in tables.data_columns(table))
        if "derived" in column.info
    ]

    def read(record: dict[str, Any], given: Row) -> tuple[Row, int]:
        rest = dict(record)  # what no cell has taken yet; it becomes `extra`
        cells = [*given, *(read_key(rest.pop(name, None), name) for name, read_key in own_keys)]
        warnings = _drop_lists(rest, lists) if lists else 0
        inner = _take_groups(rest, groups) if groups else {}
        for member, group, convert in fields:
            home = rest if group is None else inner.get(group, {})
            sent = home.pop(member, None)
            if sent is None or sent == unset:
                cells.append(None)
                continue
            cell, keep = convert(sent)
            if keep:
                home[member] = sent
                warnings += 1
            cells.append(cell)
        if groups:
            warnings += _return_groups(rest, groups, inner)
        for index, derive in derived:
            cells.insert(index, derive(record))
        cells.append(as_json(rest) if rest else None)
        return tuple(cells), warnings

    return read


def _field(column: Column[Any], zone: tzinfo | None) -> tuple[str, str | None, Converter]:
    """Return the member that a column reads, the object around it (None: the record), and how."""
    path = column.info["json"]
    return path[-1], path[0] if len(path) > 1 else None, _converter(column, zone)


def _drop_lists(rest: dict[str, Any], lists: tuple[str, ...]) -> int:
    """Remove the lists of children, which are read elsewhere; return how many are no lists."""
    unread = 0
    for member in lists:
        if items(rest, member) is None:
            unread += 1
        else:
            rest.pop(member, None)
    return unread


def _take_groups(rest: dict[str, Any], groups: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Remove the inner objects that columns read, and return copies of them by name."""
    return {name: dict(rest.pop(name)) for name in groups if isinstance(rest.get(name), dict)}


def _return_groups(
    rest: dict[str, Any], groups: tuple[str, ...], inner: dict[str, dict[str, Any]]
) -> int:
    """Put back what no column took of the inner objects; return how many are no objects, and stay.

    An object that was taken entirely, and one that is null, leave nothing behind.
    """
    odd = 0
    for name in groups:
        if inner.get(name):
            rest[name] = inner[name]
        elif name in rest and rest[name] is None:
            del rest[name]
        elif name in rest:
            odd += 1
    return odd


def items(record: dict[str, Any], member: str) -> list[Any] | None:
    """Return the children in the list `member` of `record`; [] if it is null or missing.

    A list may come as its JSON text. None means that the member is something else, or holds more
    than MAX_ITEMS children, so that the record's children are not known.
    """
    value = record.get(member)
    if isinstance(value, str):
        try:
            value = bounded(value)
        except ValueError:
            return None
    if value is None:
        return []
    return value if isinstance(value, list) and len(value) <= MAX_ITEMS else None


def no_list(what: str, record: dict[str, Any], member: str) -> Reject:
    """Return the reject of a `member` that is no list of children. `what` names the record."""
    value = record[member]
    kind = f"not a list but {_kind(value)}"
    if isinstance(value, str):
        kind = f"text that is not the JSON of a list, or of one of more than {MAX_ITEMS} items"
    elif isinstance(value, list):
        kind = f"a list of {len(value)} items; up to {MAX_ITEMS} are read"
    return Reject(f"{member} of {what}: it is {kind}", value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def readable(
    what: str, records: Iterable[Any], read: Reader, given: Row, rows: Rows
) -> Iterator[tuple[int, dict[str, Any], Row]]:
    """Yield (index, record, row) of each record with a key; add the others to `rows.rejects`."""
    for index, sent in enumerate(records):
        record = sent
        if isinstance(sent, Packed):
            try:
                record = unpack(sent)
            except ValueError as error:
                rows.rejects.append(Reject(f"{what}: {error}", as_sent(sent)))
                continue
        try:
            if not isinstance(record, dict):
                raise UnkeyedError("it is not an object")
            row, warnings = read(record, given)
        except UnkeyedError as error:
            rows.rejects.append(Reject(f"{what}: {error}", record))
            continue
        rows.warnings += warnings
        yield index, record, row


def last_of_each(found: Iterable[Row], width: int) -> Iterable[Row]:
    """Return the rows of `found`, of each key (the first `width` cells) only the last."""
    return {row[:width]: row for row in found}.values()


def no_rows(*of: Table) -> Rows:
    """Return Rows with an empty list for each table."""
    return Rows({table.fullname: [] for table in of})

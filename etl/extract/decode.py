"""JSON text → values: strict about what JSON is, lenient about what strings and numbers hold.

A page of records is read so that a damaged or huge record does not cost the others: `page` reads it
at once if it can, and otherwise keeps each record as its text (`Packed`) until its turn comes.
Nothing here takes longer than linear time, whatever the text.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn

import msgspec

from etl.errors import TooMuchError

Buffer = bytes | bytearray | memoryview

AT_ONCE: Final = 6 << 20
"""`weight` up to which a page is read at once: more than a page of 1,000 records as documented."""

EXACTLY: Final = 1 << 20
"""Bytes of a page up to which its records may become structs, which then take less than 16 MiB."""

MAX_RECORDS: Final = 50_000
"""The most records on one page; no request asks for more than 1,000."""

MAX_RECORD: Final = 24 << 20
"""Bytes of one record in memory, which its text takes several times before Postgres has it: 12 MiB
of JSON, 6 MiB if a character is beyond U+FFFF, because then Python takes four bytes for each."""

MAX_WEIGHT: Final = 112 << 20
"""`weight` of one record, or of one text inside a record."""

KEPT: Final = 1 << 20
"""Bytes that are kept of a record that cannot be read."""

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = rb'[^"\[\]{}]*+'
# Python before 3.11.5 loses its place where what a possessive quantifier repeats can be tried in
# several ways (python/cpython#106052), so that part is an atomic group.
_INSIDE = _FLAT + rb"(?:(?>%b|\[%b\]|\{%b\})%b)*+" % (_STRING, _FLAT, _FLAT, _FLAT)
"""Everything up to a bracket that holds others, or one that closes an outer bracket."""
_BRACKETS = re.compile(_INSIDE + rb"([\[{]++|[\]}]++|\"|\Z)", re.DOTALL)
_TEXT = re.compile(_STRING, re.DOTALL)
_SOME = re.compile(rb'(?:[^"]{0,4096}+(?>(?:%b)?)){0,250}+' % _STRING, re.DOTALL)
_WIDE = re.compile(rb"[\xf0-\xf4]|\\u[dD][89abAB]")  # UTF-8 or an escape of what is beyond U+FFFF
_SPACE = re.compile(rb"[ \t\n\r]*+")
_SCALAR = re.compile(rb"[^,\[\]{}\" \t\n\r]++")


@dataclass(frozen=True, slots=True)
class Packed:
    """A record as its JSON text, `data[start:end]`, on a page that could not be read at once."""

    data: Buffer
    start: int
    end: int

    def __len__(self) -> int:
        """Return the bytes of the text."""
        return self.end - self.start


def decode(text: Buffer | str) -> Any:
    """Decode a JSON text.

    Lone surrogates (`"\\ud800"`) are kept; a number beyond a double's range, or an integer longer
    than Python converts, is kept as its text; of a repeated member the last wins. Raise ValueError
    if `text` is not JSON (NaN and Infinity are not), is not UTF-8, or nests too deeply to be read;
    it says what is wrong and at which byte.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        pass  # not JSON, or JSON that msgspec refuses: the slower parser finds out which
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    if not isinstance(text, str):
        try:
            text = bytes(text).decode("utf-8-sig")  # json.loads would take UTF-16 and UTF-32 too
        except UnicodeDecodeError as error:
            raise ValueError(f"byte {error.start}: it is not UTF-8") from None
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_number, parse_int=_integer)
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    except json.JSONDecodeError as error:
        before = text[: error.pos].encode(errors="surrogatepass")
        raise ValueError(f"byte {len(before)}: {error.msg}") from None


def may_hold_nul(text: bytes | bytearray | str) -> bool:
    """Return whether a string in a JSON text may hold a NUL: only an escape stands for one."""
    if isinstance(text, str):
        return "\\u0000" in text
    return b"\\" in text and b"\\u0000" in text  # one byte is found much faster than six


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not JSON")


def _number(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _integer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # more digits than sys.get_int_max_str_digits()
        return text


def moment(value: Any) -> datetime | None:
    """Read an ISO 8601 time as RFC 3339 profiles it, with or without an offset; None for all else.

    `2016-08-01T22:10:40Z`, with a blank for the T, small letters, a fraction, `+01:00` or `+0100`.
    Fractions are rounded to microseconds, as Postgres does. Dates alone, week dates, times without
    seconds, 24:00, leap seconds (:60), years outside 1 to 9999 and numbers are refused, not guessed
    at.
    """
    if not isinstance(value, str) or "\0" in value:  # msgspec would end at a NUL
        return None
    try:
        return msgspec.convert(value, datetime)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return None


def whole(value: Any) -> int | None:
    """Return a whole number as a provider sent it; None for all else.

    Text is a number if it is spelled as in JSON: "100", but not "0100", "+1" or "1.0".
    Alibaba's own example of ListContactFlows counts in such texts.
    """
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else None
    if type(value) is float and value.is_integer():  # JSON has one kind of number: 3.0 is 3
        return int(value)
    return value if type(value) is int else None


_WHOLE = re.compile("0|-?[1-9][0-9]{0,17}")


# --- how much it is ------------------------------------------------------------------------------
COMMA: Final = 144
OBJECT: Final = 480
"""The most bytes that a value behind a comma takes, and an object."""


def weight(text: bytes | bytearray | str) -> int:
    """Estimate how many bytes a JSON text's values and the rows made of them take in memory.

    It is an upper bound for texts with many values in few bytes; commas and brackets inside strings
    count too.
    """
    if isinstance(text, str):
        commas, lists, objects = text.count(","), text.count("["), text.count("{")
    else:
        commas, lists, objects = text.count(b","), text.count(b"["), text.count(b"{")
    return len(text) + COMMA * commas + 96 * lists + OBJECT * objects


def bounded(text: bytes | bytearray | str) -> Any:
    """Decode a text if it is not too large. Raise what `decode` raises, and TooMuchError."""
    check_weight(text)
    return decode(text)


def check_weight(text: bytes | bytearray | str) -> None:
    """Raise TooMuchError if a text and the values in it are too large to be held."""
    if len(text) <= _SURELY_HELD:
        return
    names = text.count(":") if isinstance(text, str) else text.count(b":")
    if weight(text) + _NAME * names > MAX_WEIGHT:
        much = _weight_outside(text.encode(errors="replace") if isinstance(text, str) else text)
        if len(text) + much > MAX_WEIGHT:
            raise TooMuchError(f"it holds too many values ({len(text)} bytes)")


_SURELY_HELD: Final = MAX_WEIGHT // (OBJECT + 1)  # even if each byte opens an object
_NAME: Final = 256  # bytes of a name that few objects share; those of small objects are shared
_SHARED: Final = 8  # names of an object that are assumed to be shared


def _weight_outside(text: bytes | bytearray) -> int:
    """Return the `weight` of everything outside strings, looking at a few strings at a time."""
    much = names = place = 0
    while place < len(text):
        end = _SOME.match(text, place).end()  # type: ignore[union-attr]  # it matches anything
        end = end if end > place else len(text)
        outside = _TEXT.sub(b"", text[place:end])
        much += weight(outside)
        names += outside.count(b":") - _SHARED * outside.count(b"{")
        place = end
    return much + _NAME * max(0, names)


# --- pages ---------------------------------------------------------------------------------------
ReadList = Callable[[Buffer], list[Any] | None]
"""(JSON text of a list of records, without a NUL) → them; None if any of them cannot be read so."""


@dataclass(frozen=True, slots=True)
class RecordsAt:
    """Where an answer has its records, and what reads them.

    `path`  the members that lead to their list; () if the answer has none.
    `exact` reads the list at once if its records are as documented; None: nothing does.
    """

    path: tuple[str, ...] = ()
    exact: ReadList | None = None


NO_RECORDS: Final = RecordsAt()


def page(data: bytearray, path: Sequence[str], exact: ReadList | None = None) -> Any:
    """Decode an answer whose records are in the list at `path` (names of members).

    They are what `exact` makes of the list. If it makes nothing of it, they are values; and if the
    whole is too large to be read at once, or something in it cannot be read, each record is
    `Packed`, so that damage costs one record. Raise ValueError, which names the byte, if the rest
    of the answer cannot be read, or if the end of a record cannot be found; TooMuchError if it is
    too large.
    """
    if exact and len(data) <= EXACTLY and not may_hold_nul(data):
        with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            if (read := _exactly(data, path, exact)) is not None:
                return read
    if weight(data) <= AT_ONCE:
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    found = _list_at(data, path) if path else None
    if found is None:
        return bounded(data)
    start, end, records = found
    try:
        envelope = bounded(data[:start] + b"[]" + data[end:])
    except TooMuchError:
        raise
    except ValueError:  # decoded again at its place in the answer, for the byte in the message
        envelope = decode(data[:start] + b"[%*b]" % (end - start - 2, b"") + data[end:])
    home = envelope
    for name in path[:-1]:
        home = home.get(name) if isinstance(home, dict) else None
    if not isinstance(home, dict) or home.get(path[-1]) != []:
        raise ValueError(f"it holds the member {path[-1]} twice")
    home[path[-1]] = records
    return envelope


def _exactly(text: Buffer, path: Sequence[str], exact: ReadList) -> dict[str, Any] | None:
    """Decode an object with what `exact` makes of the list at `path`; None if it makes nothing.

    Raise what msgspec raises if it is no object, or not JSON.
    """
    members = _RAW.decode(text)
    if path[0] not in members:
        return None
    sent = memoryview(members.pop(path[0]))
    inside = exact(sent) if len(path) == 1 else _exactly(sent, path[1:], exact)
    if inside is None:
        return None
    return {name: msgspec.json.decode(raw) for name, raw in members.items()} | {path[0]: inside}


_RAW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def unpack(record: Packed) -> Any:
    """Decode a record. Raise ValueError as `decode` does, TooMuchError as `bounded` does."""
    most = MAX_RECORD // 2
    if len(record) <= most:
        text = bytes(memoryview(record.data)[record.start : record.end])
        if len(text) > MAX_RECORD // 4 and _WIDE.search(text):
            most = MAX_RECORD // 4
    if len(record) > most:
        raise TooMuchError(f"it is larger than {most >> 20} MiB ({len(record)} bytes)")
    return bounded(text)


def unpacked(record: Any) -> Any:
    """Decode a record of a page if it is `Packed`; one that cannot be decoded stays as it is."""
    with suppress(ValueError):
        return unpack(record) if isinstance(record, Packed) else record
    return record


def as_sent(record: Packed) -> Any:
    """Return the text of a record for people to read; of a long one its start, length and SHA-256.

    Bytes that are not UTF-8 become `\\xff`.
    """
    text = memoryview(record.data)[record.start : record.end]
    whole = bytes(text[:KEPT]).decode(errors="backslashreplace")
    if len(text) <= KEPT:
        return whole
    return {
        "beginning": whole,
        "bytes": len(text),
        "sha256": hashlib.sha256(text).hexdigest(),
    }


def _list_at(data: bytearray, path: Sequence[str]) -> tuple[int, int, list[Packed]] | None:
    """Return the start and end of the list at `path`, and its items; None if there is none."""
    place = _skip(_SPACE, data, 3 if data.startswith(b"\xef\xbb\xbf") else 0)
    for name in path:
        place = _member(data, place, name)
        if place < 0:
            return None
    return _items(data, place) if _at(data, place) == _LIST else None


def _member(data: bytearray, place: int, name: str) -> int:
    """Return where member `name` of the object at `place` has its value; -1 if it has none."""
    if _at(data, place) != _OBJECT:
        return -1
    place = _skip(_SPACE, data, place + 1)
    while _at(data, place) != _OBJECT_END:
        start, end = place, _skip(_TEXT, data, place)
        place = _skip(_SPACE, data, end)
        _expect(_COLON, data, place)
        place = _skip(_SPACE, data, place + 1)
        if decode(data[start:end]) == name:
            return place
        place = _skip(_SPACE, data, _end_of_value(data, place))
        if _at(data, place) != _OBJECT_END:
            _expect(_COMMA, data, place)
            place = _skip(_SPACE, data, place + 1)
    return -1


def _items(data: bytearray, start: int) -> tuple[int, int, list[Packed]]:
    records: list[Packed] = []
    place = _skip(_SPACE, data, start + 1)
    while _at(data, place) != _LIST_END or records:
        end = _end_of_value(data, place)
        records.append(Packed(data, place, end))
        if len(records) > MAX_RECORDS:
            raise TooMuchError(f"it holds more than {MAX_RECORDS} records")
        place = _skip(_SPACE, data, end)
        if _at(data, place) == _LIST_END:
            break
        _expect(_COMMA, data, place)
        place = _skip(_SPACE, data, place + 1)
    return start, place + 1, records


def _end_of_value(data: bytearray, start: int) -> int:
    """Return where the value that starts at `start` ends, by its quotes and brackets alone."""
    first = _at(data, start)
    if first not in (_LIST, _OBJECT):
        return _skip(_TEXT if first == _QUOTE else _SCALAR, data, start)
    depth = 1
    for found in _BRACKETS.finditer(data, start + 1):
        place, end = found.span(1)
        bracket = _at(data, place)
        if bracket in (_LIST, _OBJECT):
            depth += end - place
        elif bracket not in (_LIST_END, _OBJECT_END):
            break
        elif end - place >= depth:
            return place + depth
        else:
            depth -= end - place
    what = "it breaks off" if place == len(data) else "a string is not closed"
    raise ValueError(f"byte {place}: {what}, in the value that starts at byte {start}")


_NOTHING: Final = -1
_LIST, _LIST_END, _OBJECT, _OBJECT_END, _COMMA, _COLON, _QUOTE = b'[]{},:"'


def _at(data: bytearray, place: int) -> int:
    return data[place] if place < len(data) else _NOTHING


def _expect(byte: int, data: bytearray, place: int) -> None:
    if (found := _at(data, place)) != byte:
        what = "it breaks off" if found == _NOTHING else f"{chr(byte)!r} is missing"
        raise ValueError(f"byte {place}: {what}")


def _skip(pattern: re.Pattern[bytes], data: bytearray, place: int) -> int:
    found = pattern.match(data, place)
    if found is None:
        what = "it breaks off" if place >= len(data) else "a value is missing, or not closed"
        raise ValueError(f"byte {place}: {what}")
    return found.end()

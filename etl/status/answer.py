"""What Postgres answers to a query, as values that lose nothing, and as text to keep.

psycopg's own types cannot hold all that Postgres's can: `infinity` and years BC, 24:00, months of
an interval, the digits of a number in a jsonb. So whatever a Python value holds exactly becomes
one, and all else stays the text that the server sends, such as `1 mon 2 days` or `\\x00ff`.
"""

import json
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from math import isfinite, isnan
from typing import Any

from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.errors import DataError
from psycopg.types.datetime import DateLoader, TimestampLoader, TimestamptzLoader

AS_TEXT = ("time", "timetz", "interval", "bytea", "uuid", "inet", "cidr", "record", "int4range",
           "int8range", "numrange", "daterange", "tsrange", "tstzrange", "int4multirange",
           "int8multirange", "nummultirange", "datemultirange", "tsmultirange",
           "tstzmultirange")  # fmt: skip


class Json(str):
    """A JSON document as the server sent it: reading it would round its numbers."""

    __slots__ = ()


class _Text(Loader):
    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


class _Json(Loader):
    def load(self, data: Buffer) -> Json:
        return Json(bytes(data).decode())


class _Date(DateLoader):
    def load(self, data: Buffer) -> Any:
        try:
            return super().load(data)
        except (DataError, ValueError, OverflowError):  # infinity, BC, a year of five digits
            return bytes(data).decode()


class _Timestamp(TimestampLoader):
    def load(self, data: Buffer) -> Any:
        try:
            return super().load(data)
        except (DataError, ValueError, OverflowError):
            return bytes(data).decode()


class _Timestamptz(TimestamptzLoader):
    def load(self, data: Buffer) -> Any:
        try:
            return super().load(data)
        except (DataError, ValueError, OverflowError):
            return bytes(data).decode()


def keep_everything(context: AdaptContext) -> None:
    """Let what a cursor or connection reads lose nothing. The session's client_encoding is UTF8."""
    adapters = context.adapters
    assert isinstance(adapters, AdaptersMap)
    for name in AS_TEXT:
        adapters.register_loader(name, _Text)
    for name in ("json", "jsonb"):
        adapters.register_loader(name, _Json)
    adapters.register_loader("date", _Date)
    adapters.register_loader("timestamp", _Timestamp)
    adapters.register_loader("timestamptz", _Timestamptz)


def told_apart(names: Iterable[str]) -> list[str]:
    """`names` with those that came before made different: name, name_2; no other is `name_2`."""
    names = list(names)
    taken, last = set(names), dict.fromkeys(names, 1)
    seen, found = set[str](), []
    for name in names:
        unique = name
        while unique in seen:
            last[name] += 1
            if (another := f"{name}_{last[name]}") not in taken:
                unique = another
        seen.add(unique)
        found.append(unique)
    return found


def as_json(value: Any) -> str:
    """A value as JSON: numbers with all their digits, NaN and infinity as text, times as text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Json):
        # A line break outside of a string is a blank; inside of one Postgres allows none.
        return value.replace("\r", " ").replace("\n", " ")
    if isinstance(value, list | tuple):
        return f"[{', '.join(as_json(each) for each in value)}]"
    if isinstance(value, int | float | Decimal) and isfinite(value):
        return as_text(value)
    return json.dumps(as_text(value), ensure_ascii=False)


def as_text(value: Any) -> str:
    """A value other than NULL as text, which Postgres reads back as the same value."""
    if isinstance(value, bool | list | tuple):
        return as_json(value)
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() else _not_finite(value)
    if isinstance(value, float):
        return repr(value) if isfinite(value) else _not_finite(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)


def _not_finite(value: float | Decimal) -> str:
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"

"""Values of Postgres in Python without loss, and as text that Postgres reads back unchanged.

Python's types cannot hold everything that Postgres's types can: `infinity`, years BC, 24:00, the
months of an interval, every digit of a number in a jsonb. A value becomes a Python value if that
holds it exactly. Otherwise it stays the text that the server sends, such as `1 mon 2 days`.
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
"""Types whose values always stay text."""


class Json(str):
    """A JSON document as the server sent it: to parse it would round its numbers."""

    __slots__ = ()


class _Text(Loader):
    def load(self, data: Buffer) -> Any:
        return bytes(data).decode()


class _Json(Loader):
    def load(self, data: Buffer) -> Json:
        return Json(bytes(data).decode())


class _ExactOrText(Loader):
    """Loads what `exact` can; the rest stays text: infinity, years BC, a year of five digits."""

    exact: type[Loader]

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._exact = self.exact(oid, context)

    def load(self, data: Buffer) -> Any:
        try:
            return self._exact.load(data)
        except (DataError, ValueError, OverflowError):
            return bytes(data).decode()


_LOADERS: dict[str, type[Loader]] = {
    **dict.fromkeys(AS_TEXT, _Text),
    **dict.fromkeys(("json", "jsonb"), _Json),
    **{
        name: type(f"_{exact.__name__}OrText", (_ExactOrText,), {"exact": exact})
        for name, exact in (
            ("date", DateLoader),
            ("timestamp", TimestampLoader),
            ("timestamptz", TimestamptzLoader),
        )
    },
}


def keep_everything(context: AdaptContext) -> None:
    """Make a cursor or connection read values without loss. Its client_encoding must be UTF8."""
    adapters = context.adapters
    assert isinstance(adapters, AdaptersMap)
    for name, loader in _LOADERS.items():
        adapters.register_loader(name, loader)


def make_unique(names: Iterable[str]) -> list[str]:
    """Return `names` with repetitions numbered: name, name_2, …, skipping numbers already taken."""
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
    """Return a value as JSON: numbers with all digits, NaN and infinity as text, times as text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Json):
        # Postgres allows line breaks only between tokens, where a blank means the same.
        return value.replace("\r", " ").replace("\n", " ")
    if isinstance(value, list | tuple):
        return f"[{', '.join(as_json(each) for each in value)}]"
    if isinstance(value, int | float | Decimal) and isfinite(value):
        return as_text(value)
    return json.dumps(as_text(value), ensure_ascii=False)


def as_text(value: Any) -> str:
    """Return a value other than NULL as text that Postgres reads back as the same value."""
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

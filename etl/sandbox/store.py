"""Records of one kind: changed by a test, listed page by page by an emulator.

A record is kept as the JSON text that goes over the wire, so that a page of 1000 is one join, and
so that a record may also be something that no encoder would write.
"""

import json
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

import msgspec

Paging = Literal["offset/updated", "offset/created", "keyset", "snapshot"]
"""What a page token means; the providers do not say, so an emulator can be any of these.

`offset/updated` a position in the list, the last changed first: a change moves rows about.
`offset/created` a position in the list, the newest first: a deletion moves rows up.
`keyset`         "what is older than this row": a row that lives all along is never missed.
`snapshot`       a position in the list as it was when the first page was asked for.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A record and what sorts it: `created` counts up from 1, `updated` is the text of a time."""

    key: str
    json: bytes
    created: int
    updated: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next page starts: the meaning of a page token."""

    offset: int = 0
    older_than: int | None = None
    frozen: tuple[Row, ...] | None = None


class Store:
    """Records by key. Every method is atomic; a list is computed at one instant.

    `key_field`      the member of a record that is its key.
    `updated_field`  the member with the time of its last change.
    `stamp`          gives the present time in that member's form.
    `replica`        an `image()` that lists and look-ups are served from while it is set, as a read
                     replica that lags behind would.
    """

    def __init__(
        self,
        key_field: str,
        updated_field: str,
        stamp: Callable[[], str],
        lock: threading.RLock,
    ) -> None:
        self.replica: Mapping[str, Row] | None = None
        self._key_field = key_field
        self._updated_field = updated_field
        self._stamp = stamp
        self._lock = lock
        self._rows: dict[str, Row] = {}
        self._created = 0
        self._sorted: dict[bool, list[Row]] = {}

    def add(self, record: object, *, key: str | None = None) -> str:
        """Add a record, or replace the one with the same key; returns its key.

        The key is taken from the record. A record that has none gets a made-up one; `key` gives
        one, also to have the same record in the list twice.
        """
        members = record if isinstance(record, dict) else {}
        with self._lock:
            if key is None:
                key = str(members.get(self._key_field) or f"(no key, {self._created + 1})")
            return self._put(key, encode(record), str(members.get(self._updated_field) or ""))

    def add_raw(self, text: bytes, *, key: str, updated: str = "") -> str:
        """Add a record as text, for what no encoder writes: NaN, 5000 digits, a repeated member.

        Nothing looks into the text, so `records` fails where json.loads does.
        """
        return self._put(key, text, updated)

    def load(self, rows: Iterable[tuple[str, bytes, str]]) -> None:
        """Add many: (key, JSON text, time of last change), the oldest first."""
        with self._lock:
            self._sorted.clear()
            for number, (key, text, updated) in enumerate(rows, self._created + 1):
                self._rows[key] = Row(key, text, number, updated)
                self._created = number

    def update(self, key: str, **changes: object) -> None:
        """Change members of a record and, unless it is among them, its time of last change."""
        self._change(key, {self._updated_field: self._stamp(), **changes})

    def update_silently(self, key: str, **changes: object) -> None:
        """Change members of a record and leave its time of last change as it was."""
        self._change(key, changes)

    def delete(self, key: str) -> None:
        """Remove a record. KeyError when there is none."""
        with self._lock:
            self._sorted.clear()
            del self._rows[key]

    def clear(self) -> None:
        """Remove all records."""
        with self._lock:
            self._sorted.clear()
            self._rows.clear()

    def get(self, key: str) -> Any:
        """A copy of a record as it is now. KeyError when there is none."""
        return json.loads(self._rows[key].json)

    def keys(self) -> list[str]:
        """The keys, the oldest record first."""
        with self._lock:
            return list(self._rows)

    def records(self) -> list[Any]:
        """Copies of all records as they are now, the oldest first: the truth to compare with."""
        with self._lock:
            return [json.loads(row.json) for row in self._rows.values()]

    def __len__(self) -> int:
        return len(self._rows)

    def image(self) -> Mapping[str, Row]:
        """The present state, to be set as `replica` later."""
        with self._lock:
            return dict(self._rows)

    def find(self, key: str) -> bytes | None:
        """The JSON text that a look-up by key answers with; None when there is no such record."""
        with self._lock:
            row = (self._rows if self.replica is None else self.replica).get(key)
            return None if row is None else row.json

    def listed(
        self,
        *,
        by_update: bool,
        descending: bool = True,
        ties: Random | None = None,
        wanted: Callable[[Any], bool] | None = None,
    ) -> list[Row]:
        """All rows, sorted by last change or by creation.

        `ties` shuffles rows with the same time of last change; `wanted` filters by the decoded
        record. The list may be shared: do not change it.
        """
        with self._lock:
            rows = self._in_order(by_update)
            if by_update and ties is not None:
                rows = sorted(rows, key=lambda row: (row.updated, ties.random()), reverse=True)
            if wanted is not None:
                rows = [row for row in rows if wanted(json.loads(row.json))]
            return rows if descending else rows[::-1]

    def page(
        self,
        paging: Paging,
        cursor: Cursor,
        size: int,
        *,
        ties: Random | None = None,
        wanted: Callable[[Any], bool] | None = None,
    ) -> tuple[list[bytes], Cursor | None, int]:
        """One page of a list: its rows' JSON text, the next page's cursor, the list's length."""
        rows: list[Row] | tuple[Row, ...] | None = cursor.frozen
        if rows is None:
            rows = self.listed(by_update=paging == "offset/updated", ties=ties, wanted=wanted)
        start = cursor.offset
        if cursor.older_than is not None:
            start = bisect_right(rows, -cursor.older_than, key=lambda row: -row.created)
        part = rows[start : start + size]
        following: Cursor | None = None
        if start + size < len(rows):
            if paging == "keyset":
                following = Cursor(older_than=part[-1].created)
            elif paging == "snapshot":
                following = Cursor(offset=start + size, frozen=tuple(rows))
            else:
                following = Cursor(offset=start + size)
        return [row.json for row in part], following, len(rows)

    def _put(self, key: str, text: bytes, updated: str) -> str:
        with self._lock:
            self._sorted.clear()
            old = self._rows.get(key)
            if old is None:
                self._created += 1
            created = self._created if old is None else old.created
            self._rows[key] = Row(key, text, created, updated)
            return key

    def _change(self, key: str, changes: Mapping[str, object]) -> None:
        with self._lock:
            self._sorted.clear()
            row = self._rows[key]
            record = json.loads(row.json) | changes
            updated = str(record.get(self._updated_field) or "")
            self._rows[key] = replace(row, json=encode(record), updated=updated)

    def _in_order(self, by_update: bool) -> list[Row]:
        if self.replica is not None:
            return _newest_first(self.replica.values(), by_update)
        if by_update not in self._sorted:
            self._sorted[by_update] = _newest_first(self._rows.values(), by_update)
        return self._sorted[by_update]


def encode(record: object) -> bytes:
    """A record as compact JSON text in UTF-8."""
    try:
        return msgspec.json.encode(record)
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can carry
        return json.dumps(record, separators=(",", ":")).encode()


def _newest_first(rows: Iterable[Row], by_update: bool) -> list[Row]:
    if by_update:
        return sorted(rows, key=lambda row: (row.updated, row.created), reverse=True)
    return sorted(rows, key=lambda row: row.created, reverse=True)

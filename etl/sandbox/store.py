"""Records of one kind: a test changes them, an emulator lists them page by page.

A record is kept as the JSON text that goes over the wire. So a page of 1000 is one join, and a
record may also be text that no encoder would write.
"""

import json
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

import msgspec

Paging = Literal["offset/updated", "offset/created", "keyset", "snapshot"]
"""What a page token means. The providers do not say, so an emulator can do any of these.

`offset/updated` a position in the list, last changed first: a change moves rows to the front.
`offset/created` a position in the list, newest first: a deletion moves later rows up.
`keyset`         "older than this row": a row that exists during the whole scan is never missed.
`snapshot`       a position in the list as it was when the first page was requested.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A record and what it is sorted by: `created` counts from 1, `updated` is a time as text."""

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


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a page token was given out for.

    `query`  what the next page must be requested with.
    `at`     when the token was given out, seconds since 1970 UTC.
    `before` the token of the page that it came with; None: that was the first page.
    """

    query: object
    cursor: Cursor
    at: float = 0.0
    before: str | None = None


class Tickets:
    """The page tokens that an emulator has given out; beyond MOST it forgets the oldest."""

    MOST = 10_000

    def __init__(self) -> None:
        self._tickets: dict[str, Ticket] = {}

    def give(self, token: str, ticket: Ticket) -> str:
        """Remember what `token` stands for; return it."""
        if len(self._tickets) >= self.MOST:
            del self._tickets[next(iter(self._tickets))]
        self._tickets[token] = ticket
        return token

    def find(self, token: str, query: object) -> Ticket | None:
        """Return the token's ticket; None if it is unknown or was given out for another query."""
        ticket = self._tickets.get(token)
        return None if ticket is None or ticket.query != query else ticket


class Store:
    """Records by key. Every method is atomic; a list is computed at one instant.

    `key_field`      the member of a record that is its key.
    `updated_field`  the member with the time of its last change; None: records have none.
    `stamp`          returns the present time in that member's form.
    `sortable`       turns such a time into a text that sorts as the times do.
    `replica`        an `image()`; while it is set, lists and look-ups are served from it, as from a
                     read replica that lags behind.
    """

    def __init__(
        self,
        key_field: str,
        updated_field: str | None,
        stamp: Callable[[], str],
        lock: threading.RLock,
        sortable: Callable[[str], str] = str,
    ) -> None:
        self.replica: Mapping[str, Row] | None = None
        self._key_field = key_field
        self._updated_field = updated_field
        self._stamp = stamp
        self._lock = lock
        self._sortable = sortable
        self._rows: dict[str, Row] = {}
        self._created = 0
        self._sorted: dict[bool, list[Row]] = {}

    def add(self, record: object, *, key: str | None = None) -> str:
        """Add a record, or replace the one with the same key; return its key.

        The key is taken from the record; a record without one gets an invented key. `key` sets it,
        for example to list the same record twice.
        """
        members = record if isinstance(record, dict) else {}
        with self._lock:
            if key is None:
                key = str(members.get(self._key_field) or f"(no key, {self._created + 1})")
            return self._put(key, encode(record), self._updated(members))

    def add_raw(self, text: bytes, *, key: str, updated: str = "") -> str:
        """Add a record as text that no encoder writes: NaN, 5000 digits, a repeated member.

        The text is not checked, so `records` fails where json.loads does.
        """
        return self._put(key, text, updated)

    def load(self, rows: Iterable[tuple[str, bytes, str]]) -> None:
        """Add many records: (key, JSON text, time of last change), the oldest first."""
        with self._lock:
            self._sorted.clear()
            for number, (key, text, updated) in enumerate(rows, self._created + 1):
                self._rows[key] = Row(key, text, number, updated)
                self._created = number

    def update(self, key: str, **changes: object) -> None:
        """Change members of a record, and its time of last change unless that is among them."""
        stamped = {self._updated_field: self._stamp()} if self._updated_field else {}
        self._change(key, {**stamped, **changes})

    def update_silently(self, key: str, **changes: object) -> None:
        """Change members of a record, but not its time of last change."""
        self._change(key, changes)

    def delete(self, key: str) -> None:
        """Remove a record. Raises KeyError if there is none."""
        with self._lock:
            self._sorted.clear()
            del self._rows[key]

    def clear(self) -> None:
        """Remove all records."""
        with self._lock:
            self._sorted.clear()
            self._rows.clear()

    def get(self, key: str) -> Any:
        """Return a copy of a record as it is now. Raises KeyError if there is none."""
        return json.loads(self._rows[key].json)

    def keys(self) -> list[str]:
        """Return the keys, the oldest record first."""
        with self._lock:
            return list(self._rows)

    def records(self) -> list[Any]:
        """Return copies of all records as they are now, the oldest first."""
        with self._lock:
            return [json.loads(row.json) for row in self._rows.values()]

    def __len__(self) -> int:
        return len(self._rows)

    def image(self) -> Mapping[str, Row]:
        """Return the present state, to be set as `replica` later."""
        with self._lock:
            return dict(self._rows)

    def find(self, key: str) -> bytes | None:
        """Return the JSON text that a look-up by key gets; None if there is no such record."""
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
        """Return all rows, sorted by last change or by creation.

        `ties` shuffles rows with the same time of last change; `wanted` filters by the decoded
        record. The returned list may be shared: do not change it.
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
        """Return one page of a list: its rows' JSON text, the next cursor, the list's length."""
        rows: Sequence[Row] | None = cursor.frozen
        if rows is None:
            rows = self.listed(by_update=paging == "offset/updated", ties=ties, wanted=wanted)
        part, following = page_of(rows, paging, cursor, size)
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
            self._rows[key] = replace(row, json=encode(record), updated=self._updated(record))

    def _updated(self, record: Mapping[str, Any]) -> str:
        time = record.get(self._updated_field) if self._updated_field else None
        return self._sortable(str(time)) if time else ""

    def _in_order(self, by_update: bool) -> list[Row]:
        if self.replica is not None:
            return _newest_first(self.replica.values(), by_update)
        if by_update not in self._sorted:
            self._sorted[by_update] = _newest_first(self._rows.values(), by_update)
        return self._sorted[by_update]


def page_of(
    rows: Sequence[Row], paging: Paging, cursor: Cursor, size: int
) -> tuple[Sequence[Row], Cursor | None]:
    """Return the rows of one page of a list that is in its order, and the next cursor."""
    start = cursor.offset
    if cursor.older_than is not None:
        start = bisect_right(rows, -cursor.older_than, key=lambda row: -row.created)
    part = rows[start : start + size]
    if start + size >= len(rows):
        return part, None
    if paging == "keyset":
        return part, Cursor(older_than=part[-1].created)
    return part, Cursor(offset=start + size, frozen=tuple(rows) if paging == "snapshot" else None)


def encode(record: object) -> bytes:
    """Encode a record as compact JSON text in UTF-8."""
    try:
        return msgspec.json.encode(record)
    except UnicodeEncodeError:  # a lone surrogate; only an escape can carry it
        return json.dumps(record, separators=(",", ":")).encode()


def _newest_first(rows: Iterable[Row], by_update: bool) -> list[Row]:
    if by_update:
        return sorted(rows, key=lambda row: (row.updated, row.created), reverse=True)
    return sorted(rows, key=lambda row: row.created, reverse=True)

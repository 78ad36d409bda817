"""The few types that travel between the stages. They hold values and do nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Params = Mapping[str, str]
"""Query parameters of a request, as they are meant (not encoded)."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a provider's list, its envelope taken off: extract → transform.

    `records`  as the provider sent them, decoded from JSON; any JSON value may be among them.
    `number`   1, 2, 3 … within the scan of one scope.
    `scope`    the part of the list that was asked for: Alibaba's instance id; "" elsewhere.
    `total`    rows in the whole list by this response's own count; None where it gave none.
    `anchored` False when a row may have slipped between this page and the one before it
               (offset paging of a list that moved); such a scan may add rows, never remove any.
    """

    records: list[Any]
    number: int
    scope: str = ""
    total: int | None = None
    anchored: bool = True


@dataclass(frozen=True, slots=True)
class Reject:
    """A record, or a child of one, that no table can hold: kept raw in `etl.rejects`."""

    reason: str
    payload: Any


@dataclass(slots=True)
class Rows:
    """What one page became: transform → load.

    `tables`   table name ("zoom.flows") → rows, each in that table's COPY order.
    `rejects`  what could not be keyed.
    `warnings` values that did not fit their column; the originals are in `extra`.
    """

    tables: dict[str, list[tuple[Any, ...]]]
    rejects: list[Reject] = field(default_factory=list)
    warnings: int = 0


@dataclass(frozen=True, slots=True)
class Lookup:
    """A provider's answer to "does this one record exist?", asked by its key.

    `state`  "found" (then `record` is the record), "gone" (the provider's own definite not-found),
             or "undecided" (then `reason` says why: no permission, no such call, an odd answer).
    """

    state: Literal["found", "gone", "undecided"]
    record: Any = None
    reason: str = ""

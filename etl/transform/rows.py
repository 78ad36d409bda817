"""The result of transforming a page: rows, and records that no table can hold."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Reject:
    """A record, or a child of one, that no table can hold: kept raw in `etl.rejects`."""

    reason: str
    payload: Any


@dataclass(slots=True)
class Rows:
    """The rows of one page: transform → load.

    `tables`   table name ("zoom.flows") → rows, each in that table's COPY order.
    `rejects`  records and children without a usable key.
    `warnings` number of values that did not fit their column; the originals are in `extra`.
    """

    tables: dict[str, list[tuple[Any, ...]]]
    rejects: list[Reject] = field(default_factory=list)
    warnings: int = 0

"""Which versions of rows are compared, to find what changed: see `changes.py`."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Table

from etl.warehouse import tables
from etl.warehouse.model.contract import View
from etl.warehouse.model.part import Part


@dataclass(frozen=True, slots=True)
class Span:
    """Which versions are compared.

    `old`, `new` table → SELECT of its rows that can be the old, or the new, version of a pair: all
                 its columns, and the instant `at`.
    `versions`   table → SQL of all its versions, with valid_from and valid_to.
    `before`,    alias of a version, SQL of `at` → the condition that it was valid just before,
    `after`      or just after.
    `earlier`    SQL of `at` → the instant up to which a version ended that is restored.
    `observed`   SQL of when a change was seen, over the pair `o` and `n`.
    `link_observed` the same for a set of links: over `touched.at`, and `latest` and `ended` of
                 `was_there` and `now_there`.
    `is_news`    SQL over `found`, a row of `COLUMNS`: whether it is reported.
    """

    old: Callable[[Table], str]
    new: Callable[[Table], str]
    versions: Callable[[Table], str]
    before: Callable[[str, str], str]
    after: Callable[[str, str], str]
    earlier: Callable[[str], str]
    observed: str
    link_observed: str
    is_news: str = "true"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One part of a view, and the parts that its rows belong to, or lead to."""

    provider: str
    view: View
    part: Part
    flows: Part
    findings: Part | None
    span: Span

    @property
    def leads(self) -> bool:
        """Whether the rows lead to flows of another stream."""
        return self.part.flows is not None


def keys_of(table: Table) -> list[str]:
    """Return the columns of a table's key."""
    return ["source", *tables.key_columns(table)]

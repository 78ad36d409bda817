"""Which versions of rows are compared, to find what changed: see `changes.py`."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Table


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

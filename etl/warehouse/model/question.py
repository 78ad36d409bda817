"""A question as a value: what its view answers, its columns, and its SQL on callflow's views."""

from collections.abc import Sequence
from dataclasses import dataclass

from etl.warehouse.model import moment
from etl.warehouse.model.contract import Column, View

NOW = f"coalesce({moment.NAME}, now())"
"""The moment as of which questions answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """One view that answers a question.

    `asked`   the question, a sentence; the view's COMMENT starts with it.
    `caveat`  what one has to know to read the answer, sentences.
    `columns` names, types and order; a last flow_key is made of the others.
    `sql`     a SELECT of these columns on views of the schema callflow, which follow callflow.at.
    `ready`   a query on the view, to be copied.
    `lists`   what the providers declare for this question: `sql` reads each by its name.
    """

    name: str
    asked: str
    caveat: str
    columns: tuple[Column, ...]
    sql: str
    ready: str
    lists: Sequence[View] = ()


def flow_of(row: str) -> str:
    """Return the columns that identify the flow of `row`, to be selected or grouped by.

    The id comes first, because Postgres sorts in this order: it tells most rows apart.
    """
    return ", ".join(f"{row}.{name}" for name in ("flow_id", "source", "account_id", "provider"))


def same_flow(one: str, other: str) -> str:
    """Return the condition that two rows are of one flow; NULL is an account like another."""
    equal = " AND ".join(
        f"{one}.{name} = {other}.{name}" for name in ("flow_id", "source", "provider")
    )
    return f"{equal} AND {one}.account_id IS NOT DISTINCT FROM {other}.account_id"


def age_days(since: str) -> str:
    """Return the SQL of the whole days from `since` until now, or until callflow.at."""
    return f"extract(day FROM {ago(0)} - {since})"


def ago(hours: int) -> str:
    """Return the SQL of the moment so long before now, or before callflow.at.

    As a sub-select it is computed once, not for each row.
    """
    return f"(SELECT {NOW} - interval '{hours} hours')"

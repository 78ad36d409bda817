"""The views that answer a question each."""

from collections.abc import Callable, Iterator, Sequence

from etl.warehouse.model import activity_questions, assemble, binding_questions, flow_questions
from etl.warehouse.model.contract import FLOW_KEY_SQL, View
from etl.warehouse.model.definition import Definition, ViewDefinition
from etl.warehouse.model.part import Part
from etl.warehouse.model.question import Question

QUESTIONS = (
    *flow_questions.QUESTIONS,
    *binding_questions.QUESTIONS,
    *activity_questions.QUESTIONS,
)
"""All questions, in the order in which documents list them."""


def of_questions(parts: Sequence[tuple[str, Part]]) -> Iterator[Definition]:
    """Yield the view of each question; it reads callflow's views and what the providers list."""
    for question in QUESTIONS:
        yield ViewDefinition(
            f"callflow.{question.name}",
            f"{question.asked} {question.caveat}",
            {column.name: column.comment for column in question.columns},
            _query(question, parts),
        )


def _query(question: Question, parts: Sequence[tuple[str, Part]]) -> Callable[[Sequence[str]], str]:
    columns = {column.name: column for column in question.columns}
    lists = ", ".join(f"{each.name} AS ({_list(each, parts)})" for each in question.lists)
    found = f"WITH {lists} {question.sql}" if lists else question.sql

    given = {"flow_key": f"({FLOW_KEY_SQL})"}

    def query(names: Sequence[str]) -> str:
        listed = ", ".join(
            f"{assemble.typed(given.get(name, f'found.{name}'), columns[name])} AS {name}"
            for name in names
        )
        return f"SELECT {listed} FROM ({found}) AS found"

    return query


def _list(view: View, parts: Sequence[tuple[str, Part]]) -> str:
    """Return the query of what the providers list, as of `callflow.at`."""
    of_view = [(provider, part) for provider, part in parts if part.view == view.name]
    return assemble.current_view(view.columns, of_view)

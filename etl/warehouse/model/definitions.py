"""Everything that stands in the schema `callflow`, in the order in which it is made."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from etl.warehouse.model import assemble, moment
from etl.warehouse.model.contract import VIEWS, Column, View, history_columns
from etl.warehouse.model.definition import Definition, FunctionDefinition, ViewDefinition
from etl.warehouse.model.log import of_log
from etl.warehouse.model.part import Part
from etl.warehouse.model.questions import of_questions

AllParts = Sequence[tuple[str, Part]]
"""The parts of all views, each with the name of its provider."""


def definitions(parts: AllParts) -> tuple[Definition, ...]:
    """Return what the schema holds when the providers declare these parts."""
    found: list[Definition] = [moment.FUNCTION]
    for view in VIEWS:
        found += _of(view, [(provider, part) for provider, part in parts if part.view == view.name])
    return (*found, *of_log(parts), *of_questions(parts))


def _of(view: View, parts: assemble.Parts) -> Iterator[Definition]:
    """Yield a view, its history, and its function `_at`."""
    name = f"callflow.{view.name}"
    from_whom = f" From: {', '.join(dict.fromkeys(provider for provider, _ in parts)) or 'none'}."
    yield _view(name, view.comment + from_whom, view.columns, parts, assemble.current_view)
    history = f"Every version of {name} that callflow saw, the current one included."
    columns = history_columns(view)
    yield _view(f"{name}_history", history + from_whom, columns, parts, assemble.history_view)
    yield FunctionDefinition(
        f"{name}_at",
        f"The rows of {name} as of a moment: what callflow knew then.",
        "at timestamptz",
        f"SETOF {name}",
        assemble.at_body(view.columns, parts),
    )


def _view(
    name: str,
    comment: str,
    columns: Iterable[Column],
    parts: assemble.Parts,
    assembled: Callable[[Sequence[Column], assemble.Parts], str],
) -> ViewDefinition:
    by_name = {column.name: column for column in columns}
    return ViewDefinition(
        name,
        comment,
        {column.name: _comment(column, parts) for column in by_name.values()},
        lambda names: assembled([by_name[each] for each in names], parts),
    )


def _comment(column: Column, parts: assemble.Parts) -> str:
    """Return the column's comment, with the providers that leave the column NULL."""
    without = [
        provider
        for provider, part in parts
        if column.name not in assemble.expressions(provider, part)
    ]
    if not without or len(without) == len(parts):
        return column.comment
    return f"{column.comment} NULL for {' and '.join(dict.fromkeys(without))}."

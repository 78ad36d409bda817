"""The schema `callflow` in the documents: its views and functions, and diagrams in Mermaid.

The SVG is in `tests/model_svg.py`.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sqlalchemy import Table

from etl.providers.declare import Provider
from etl.warehouse.model.contract import (
    CHANGES,
    FLOW_KEY,
    FLOW_STEPS,
    FLOWS,
    FRESHNESS,
    SQL_TYPES,
    VIEWS,
    Column,
    history_columns,
)
from etl.warehouse.model.definition import FunctionDefinition, ViewDefinition
from etl.warehouse.model.definitions import definitions
from etl.warehouse.model.questions import QUESTIONS
from tests.markdown import prose, rows, type_of

Providers = tuple[Provider, ...]

SHOWN: Mapping[str, tuple[Column, ...]] = {
    **{view.name: view.columns for view in VIEWS},
    "changes": CHANGES,
    "freshness": FRESHNESS,
}
"""The views of the diagrams: those that have a history, the log and the books."""


class Link(NamedTuple):
    """A column whose values are a row of another view. `optional`: that row may be missing."""

    view: str
    column: str
    to: str
    to_column: str
    optional: bool = False


def links() -> Iterator[Link]:
    """Yield how the views refer to each other.

    A channel, a change, the next step and an older version may name what is gone; an entry point
    may lead to no flow.
    """
    for view, columns in SHOWN.items():
        names = {column.name for column in columns}
        if FLOW_KEY.name in names and view != FLOWS.name:
            may = view in ("channels", "changes", "entry_points")
            yield Link(view, FLOW_KEY.name, FLOWS.name, FLOW_KEY.name, optional=may)
        for name in ("step_id", "next_step_id"):
            if name in names and view != FLOW_STEPS.name:
                may = view in ("flow_findings", "flow_version_steps", "flow_version_links")
                optional = name == "next_step_id" or may
                yield Link(view, name, FLOW_STEPS.name, "step_id", optional=optional)


def fed(providers: Providers) -> dict[str, list[str]]:
    """Return the names of the providers whose rows each view shows."""
    found: dict[str, list[str]] = {name: [] for name in SHOWN}
    for provider in providers:
        views = {part.view for stream in provider.streams for part in stream.parts}
        for name in SHOWN:
            if name in views or name in ("changes", "freshness"):
                found[name].append(provider.name)
    return found


def parts_of(providers: Providers) -> list[tuple[str, ViewDefinition | FunctionDefinition]]:
    """Return what stands in the schema with these providers, by its name without the schema."""
    parts = [(p.name, part) for p in providers for stream in p.streams for part in stream.parts]
    return [(each.name.removeprefix("callflow."), each) for each in definitions(parts)]


def typed(column: Column) -> str:
    return SQL_TYPES[column.kind]


def columns_of(view: str) -> dict[str, str]:
    """Return the columns of a view with their types. Raises KeyError for a view unknown here."""
    listed = {
        **SHOWN,
        **{f"{each.name}_history": history_columns(each) for each in VIEWS},
        **{question.name: question.columns for question in QUESTIONS},
    }
    return {column.name: typed(column) for column in listed[view]}


def dictionary(providers: Providers) -> str:
    """Return every view of the schema with its columns, and the functions."""
    found, functions = [], []
    for name, each in parts_of(providers):
        if isinstance(each, FunctionDefinition):
            signature = f"`callflow.{name}({each.arguments})`"
            functions.append((signature, f"`{each.result}`", prose(each.comment)))
        elif name.endswith("_history"):
            found.append(f"### callflow.{name}\n\n{prose(each.comment)} {_history(name)}\n")
        else:
            types = columns_of(name)
            columns = rows(
                "column | type | comment",
                ((f"`{c}`", types[c], prose(said)) for c, said in each.columns.items()),
            )
            found.append(f"### callflow.{name}\n\n{prose(each.comment)}\n\n{columns}")
    table = rows("function | returns | comment", functions)
    return "\n".join([*found, f"### Functions\n\n{table}"])


def _history(name: str) -> str:
    view = name.removesuffix("_history")
    left_out = [f"`{each.name}`" for each in SHOWN[view] if each.looked_up]
    without = f" without {', '.join(left_out)}," if left_out else ""
    return f"Its columns: those of `callflow.{view}`,{without} then `valid_to` and `is_current`."


def mermaid(providers: Providers) -> str:
    """Return the diagrams: the views, then the tables of each provider."""
    found = ["## The views\n", _fenced(_views(providers))]
    for provider in providers:
        found += [f"## {provider.title}\n", _fenced(_tables(provider))]
    return "\n".join(found)


def _fenced(lines: Iterator[str]) -> str:
    return "\n".join(["```mermaid", "erDiagram", *(f"    {line}" for line in lines), "```\n"])


def _views(providers: Providers) -> Iterator[str]:
    refers = [*links()]
    for link in refers:
        if not (link.to == FLOWS.name and _has_steps(link.view)):
            one = "|o" if link.optional else "||"
            yield f"{link.to} {one}--o{{ {link.view} : {link.column}"
    keys = {(link.view, link.column) for link in refers}
    for view, names in fed(providers).items():
        yield f'{view}["{view}: {", ".join(names)}"] {{'
        for column in SHOWN[view]:
            yield f"    {typed(column)} {column.name}{_mark((view, column.name), keys)}"
        yield "}"


def _has_steps(view: str) -> bool:
    """Return whether a view belongs to a flow by way of a step."""
    return view in ("flow_step_links", "flow_step_properties")


def _mark(column: tuple[str, str], keys: set[tuple[str, str]]) -> str:
    if column in ((FLOWS.name, FLOW_KEY.name), (FLOW_STEPS.name, "step_id")):
        return " PK"
    return " FK" if column in keys else ""


def _tables(provider: Provider) -> Iterator[str]:
    every = [table for stream in provider.streams for table in stream.tables]
    for table in every:
        if (parent := table.info["parent"]) is not None:
            shared = ", ".join(column.name for column in parent.primary_key)
            yield f'{parent.name} ||--o{{ {table.name} : "{shared}"'
    for table in every:
        yield f"{table.name} {{"
        yield from (f"    {line}" for line in _columns(table))
        yield "}"


def _columns(table: Table) -> Iterator[str]:
    parent = table.info["parent"]
    refers = {column.name for column in parent.primary_key} if parent is not None else set()
    for column in table.columns:
        marks = ["PK"] * column.primary_key + ["FK"] * (column.name in refers)
        yield f"{type_of(column.type)} {column.name} {', '.join(marks)}".rstrip()

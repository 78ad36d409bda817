"""examples/dbt/models/sources.yml: the views and tables as dbt sources, from their definitions.

Postgres itself holds the keys of the providers' tables, so dbt tests only the views of `callflow`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from sqlalchemy import Table

from etl.providers.declare import Provider, Stream
from etl.warehouse import views
from etl.warehouse.model.contract import FLOW_KEY, FLOWS, IDENTITY, VIEWS
from etl.warehouse.model.definition import ViewDefinition
from etl.warehouse.names import SCHEMAS
from tests.model_docs import SHOWN, Providers, columns_of, links, parts_of

Entry = dict[str, Any]

WORDS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("changes", "entity"): ("flow", "flow_version", "entry_point", "step", "step_link"),
    ("changes", "change"): ("created", "updated", "deleted", "restored"),
    ("entry_points", "kind"): ("phone", "email", "name", "address"),
    ("flow_findings", "finding"): (
        "unreachable",
        "dead_end",
        "open_event",
        "broken_link",
        "loop",
        "no_start",
        "unreadable",
    ),
    ("freshness", "last_status"): ("complete", "incomplete", "failed", "not_available"),
}
"""View and column → the only words that callflow itself puts there. What a provider says is not
here: it may use a new word tomorrow."""

KEYS: Mapping[str, tuple[str, ...]] = {
    **{
        view.name: (*(column.name for column in IDENTITY[1:]), *view.key)
        for view in VIEWS
        if view.name not in ("flows", "channels", "flow_findings")
    },
    "channels": ("source", "channel_id"),
    "freshness": ("source", "stream"),
}
"""View → columns that together are unique; of flows it is flow_key alone. A flow can have one
finding twice, for events of which the names differ after the part that is kept."""

MAY_BE_NULL = {
    (view, name) for view in ("channels", "entry_points") for name in ("flow_id", "flow_key")
}
NEVER_NULL = {
    ("channels", "channel_id"),
    ("flow_findings", "finding"),
    ("freshness", "stream"),
    ("shared_addresses", "address_key"),
    ("changes_per_week", "week"),
    *(("changes", name) for name in ("entity", "observed_at", "change")),
}


def sources(providers: Providers) -> str:
    """Return the sources: the schema callflow, then each provider's."""
    found = [_callflow(providers), *map(_provider, providers)]
    return yaml.safe_dump(
        {"sources": found}, sort_keys=False, allow_unicode=True, width=100, indent=2
    )


def _callflow(providers: Providers) -> Entry:
    tables = [
        _view(name, each, providers)
        for name, each in parts_of(providers)
        if isinstance(each, ViewDefinition)
    ]
    return {
        "name": "callflow",
        "description": SCHEMAS["callflow"],
        "schema": "callflow",
        "tables": tables,
    }


def _view(name: str, view: ViewDefinition, providers: Providers) -> Entry:
    entry: Entry = {"name": name, "description": view.comment}
    if name == "freshness":
        entry["config"] = _fresh("")
    if name in KEYS:
        row = f"({', '.join(KEYS[name])})::text"
        entry["data_tests"] = [{"unique": {"arguments": {"column_name": row}}}]
    columns = []
    for column, comment in view.columns.items():
        described: Entry = {
            "name": column,
            "description": comment,
            "data_type": columns_of(name)[column],
        }
        if tests := [*_tests(name, column, comment, providers)]:
            described["data_tests"] = tests
        # In a history the rest is as in the view itself.
        if tests or not name.endswith("_history"):
            columns.append(described)
    return entry | {"columns": columns}


def _tests(view: str, column: str, comment: str, providers: Providers) -> Iterator[Any]:
    """Yield what always holds of a column."""
    if (view, column) == (FLOWS.name, FLOW_KEY.name):
        yield "unique"
    if _never_null(view, column, comment):
        yield "not_null"
    if column == "provider" and view in ("flows", "changes", "freshness"):
        yield {"accepted_values": {"arguments": {"values": [each.name for each in providers]}}}
    if words := WORDS.get((view, column)):
        yield {"accepted_values": {"arguments": {"values": [*words]}}}
    for link in links():
        if (link.view, link.column, link.to) == (view, column, FLOWS.name) and not link.optional:
            to = {"to": f"source('callflow', '{link.to}')", "field": link.to_column}
            yield {"relationships": {"arguments": to}}


def _never_null(view: str, column: str, comment: str) -> bool:
    if (view, column) in NEVER_NULL:
        return True
    if view.endswith("_history"):
        return column in ("valid_from", "is_current")
    if view not in SHOWN or (view, column) in MAY_BE_NULL:
        return False
    names = ("provider", "source", "flow_id", "flow_key", "valid_from")
    return column in names or "Never NULL" in comment


def _provider(provider: Provider) -> Entry:
    return {
        "name": provider.name,
        "description": provider.comment,
        "schema": provider.name,
        "config": {"enabled": f"{{{{ '{provider.name}' in var('callflow_providers') }}}}"},
        "tables": [
            entry
            for stream in provider.streams
            for table in stream.tables
            for entry in (_table(provider, stream, table), _history(table))
        ],
    }


def _table(provider: Provider, stream: Stream, table: Table) -> Entry:
    return {
        "name": str(table.name),
        "description": str(table.comment),
        "config": _fresh(f" where provider = '{provider.name}' and stream = '{stream.name}'"),
        "columns": [
            {"name": str(column.name), "description": str(column.comment)}
            for column in table.columns
        ],
    }


def _history(table: Table) -> Entry:
    (view,) = views.of_tables([table])
    comment = re.sub(r"\.$", "", view.comment)
    return {
        "name": view.name.partition(".")[2],
        "description": f"{comment}. Its columns, then valid_to and is_current.",
    }


def _fresh(where: str) -> Entry:
    """Return what `dbt source freshness` compares: when the oldest of these lists was read.

    A list that was never read counts as one of 1970; without coalesce min() would leave it out.
    """
    hours = {
        f"{level}_after": {
            "count": f"{{{{ var('callflow_{level}_after_hours') }}}}",
            "period": "hour",
        }
        for level in ("warn", "error")
    }
    oldest = "min(coalesce(last_success_at, timestamptz 'epoch'))"
    return {
        "loaded_at_query": f"select {oldest} from callflow.freshness{where}",
        "freshness": hours,
    }

"""Rows by the names of their columns, and the documents' own examples."""

import json
from pathlib import Path
from typing import Any

from sqlalchemy.dialects.postgresql import JSONB

from etl.extract.page import Page
from etl.providers.catalog import STREAMS
from etl.transform.rows import Rows
from etl.warehouse import tables

Named = dict[str, Any]


def example(name: str) -> Any:
    """Return an answer that the provider's own document shows, as it stands there: "zoom/flows"."""
    path = Path(__file__).parents[1] / "providers" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def transformed(stream: str, records: list[Any], start: int = 0, **page: Any) -> Rows:
    """Transform a page of records of a stream ("zoom.flows"); `page` has more of its attributes."""
    return STREAMS[stream].transform(Page(records, 1, **page), start)


def named(rows: Rows, table_name: str) -> list[Named]:
    """Return one table's rows as dictionaries, with jsonb decoded and without NULLs."""
    table = tables.metadata.tables[table_name]
    own = ["ord"] if table.info["parent"] is not None else ["ord", "partial"]
    columns = [*own, *tables.data_columns(table)]
    texts = {column.name for column in table.columns if isinstance(column.type, JSONB)}
    return [
        {
            name: json.loads(cell) if name in texts else cell
            for name, cell in zip(columns, row, strict=True)
            if cell is not None
        }
        for row in rows.tables[table_name]
    ]

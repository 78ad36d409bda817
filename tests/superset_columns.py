"""examples/superset/callflow/datasets: the columns of each dataset, from the definitions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from etl.warehouse.model.definition import ViewDefinition
from tests.model_docs import Providers, columns_of, parts_of

DATASETS = "examples/superset/callflow/datasets/callflow"
BUNDLE = Path(__file__).resolve().parents[1] / "examples/superset/callflow"

TYPES = {"timestamptz": "TIMESTAMP WITH TIME ZONE"}
"""What Superset calls a type if it is not the same word in capitals."""


def datasets() -> list[str]:
    """Return the views that the dashboard reads."""
    return sorted(path.stem for path in (BUNDLE / "datasets/callflow").glob("*.yaml"))


def columns_for(view: str) -> Callable[[Providers], str]:
    """Return what writes the columns of a dataset."""

    def columns(providers: Providers) -> str:
        (made,) = [each for name, each in parts_of(providers) if name == view]
        assert isinstance(made, ViewDefinition)
        types = columns_of(view)
        listed: list[dict[str, Any]] = [
            {
                "column_name": name,
                "type": TYPES.get(types[name], types[name].upper()),
                "is_dttm": types[name] == "timestamptz",
                "groupby": True,
                "filterable": True,
                "description": comment,
            }
            for name, comment in made.columns.items()
        ]
        return yaml.safe_dump(
            {"columns": listed}, sort_keys=False, allow_unicode=True, width=100, indent=2
        )

    return columns

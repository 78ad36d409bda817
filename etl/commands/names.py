"""The names that a shell completes: of sources and streams, as callflow.toml has them."""

import contextlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer


def of_sources(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the configured sources; typer takes those that start as was typed."""
    return list(_sources(context))


def of_streams(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the configured sources; after one and a dot, those of its streams."""
    source, dot, _ = incomplete.partition(".")
    if not dot:
        return of_sources(context, incomplete)
    from etl.providers import PROVIDERS  # with it come pydantic and the settings

    table = _sources(context).get(source)
    provider = table.get("provider") if isinstance(table, dict) else None
    return [f"{source}.{name}" for p in PROVIDERS if p.name == provider for name in p.names]


def _sources(context: typer.Context) -> Mapping[str, Any]:
    """Return the sources of the file that the command would read; {} where that cannot be read.

    What is wrong with it is for the command to say, not for the Tab key.
    """
    given = context.params.get("path") or os.environ.get("CALLFLOW_CONFIG") or "callflow.toml"
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = tomllib.loads(Path(given).read_text("utf-8-sig")).get("sources")
        return found if isinstance(found, dict) else {}
    return {}

"""The names that a shell completes: of sources and streams, as callflow.toml has them."""

import contextlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer


def of_sources(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the configured sources that start with `incomplete`."""
    return [name for name in _sources(context) if name.startswith(incomplete)]


def of_streams(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of sources that start with `incomplete`; after a dot, those of streams."""
    source, dot, _ = incomplete.partition(".")
    if not dot:
        return of_sources(context, incomplete)
    from etl.providers import PROVIDERS  # with it come pydantic and the settings

    table = _sources(context).get(source)
    provider = table.get("provider") if isinstance(table, dict) else None
    streams = [name for each in PROVIDERS if each.name == provider for name in each.names]
    return [name for s in streams if (name := f"{source}.{s}").startswith(incomplete)]


def _sources(context: typer.Context) -> Mapping[str, Any]:
    """Return the sources of the file that the command would read; {} where that cannot be read.

    What is wrong with it is for the command to say, not for the Tab key.
    """
    given = context.params.get("path") or os.environ.get("CALLFLOW_CONFIG") or "callflow.toml"
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = tomllib.loads(Path(given).read_text("utf-8-sig")).get("sources")
        return found if isinstance(found, dict) else {}
    return {}

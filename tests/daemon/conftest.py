"""A sandbox, and daemons on it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from tests.daemon.processes import Process, free_port, processes, write_config
from tests.warm import Warm

Start = Callable[..., Process]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(30, 200), seed=3) as running:
        yield running


@pytest.fixture
def start(warehouse: str, tmp_path: Path, warm: Warm) -> Iterator[Start]:
    """`start(sandbox or TOML of sources, every=…, more=…, daemon=…)` starts a daemon."""
    with processes() as start_process:

        def of(sources: Sandbox | str, *words: str, url: str = "", **given: Any) -> Process:
            port = given.pop("port", None) or free_port()
            path = tmp_path / f"{port}.toml"
            code, env = given.pop("code", ""), given.pop("env", None)
            write_config(path, url or warehouse, sources, port=port, **given)
            return start_process(path, port, *words, code=code, warm=warm, more=env)

        yield of

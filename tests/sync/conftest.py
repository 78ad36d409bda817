"""A sandbox, and streams synced from it into a real warehouse, in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etl import config
from etl.job import Job
from etl.load.runs import Run
from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from etl.sync import run_stream
from etl.units import select
from etl.warehouse import connect

Sync = Callable[..., Run]
Starter = Callable[..., Sync]

SMALL = data.Sizes(zoom_flows=230, twilio_flex_flows=25, twilio_channels=2300, alibaba_flows=120)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.EMPTY) as running:
        yield running


@pytest.fixture
def full_sandbox() -> Iterator[Sandbox]:
    with serve(SMALL, seed=7) as running:
        yield running


@pytest.fixture
def sync(warehouse: str, tmp_path: Path) -> Iterator[Callable[..., Sync]]:
    """`sync(sandbox)("zoom_demo.flows")` runs that stream; keywords go to its Job."""
    engine = connect(warehouse)
    waits: list[float] = []

    def of(sandbox: Sandbox, **source: Any) -> Sync:
        path = tmp_path / "callflow.toml"
        path.write_text(sandbox.toml(), encoding="utf-8")
        path.chmod(0o600)
        settings = config.load(path, {})

        def run(name: str, **given: Any) -> Run:
            ((settings_of, stream),) = select(settings, [name])
            job = Job(
                engine,
                stream,
                type(settings_of).model_validate({**settings_of.model_dump(), **source}),
                given.pop("holder", "test:1:unknown"),
                **{"sleep": waits.append, **given},
            )
            return run_stream(job)

        return run

    yield of
    engine.dispose()

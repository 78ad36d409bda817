"""A sandbox, streams synced from it into a real warehouse in this process, and the harness."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from etl.config import load as config
from etl.load.runs import Run
from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import select
from etl.warehouse.embedded import find_binaries
from tests.postgres import Cluster
from tests.sync import kills
from tests.sync.processes import ForkServer
from tests.sync.reference import Harness

Sync = Callable[..., Run]
Starter = Callable[..., Sync]

SMALL = data.Sizes(230, 2300, {"twilio.flex_flows": 25, "alibaba.contact_flows": 120})


@pytest.fixture
def engine(emptied: Engine) -> Engine:
    return emptied


@pytest.fixture
def warehouse(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.EMPTY) as running:
        yield running


@pytest.fixture
def full_sandbox() -> Iterator[Sandbox]:
    with serve(SMALL, seed=7) as running:
        yield running


@pytest.fixture
def sync(engine: Engine, tmp_path: Path) -> Starter:
    """`sync(sandbox)("zoom_demo.flows")` runs that stream; keywords go to its Job."""
    waits: list[float] = []

    def of(sandbox: Sandbox, **source: Any) -> Sync:
        path = tmp_path / "callflow.toml"
        path.write_text(sandbox.toml(), encoding="utf-8")
        path.chmod(0o600)
        settings = config.load(path, {})

        def run(name: str, **given: Any) -> Run:
            ((settings_of, stream),) = select(settings, [name])
            job = Job(
                given.pop("engine", engine),
                given.pop("stream", stream),
                type(settings_of).model_validate({**settings_of.model_dump(), **source}),
                given.pop("holder", "test:1:unknown"),
                **{"sleep": waits.append, **given},
            )
            return run_stream(job)

        return run

    return of


@pytest.fixture(scope="module")
def warehouse_and_fork_server(
    clusters: Callable[[Path], Cluster],
) -> Iterator[tuple[str, ForkServer]]:
    cluster = clusters(find_binaries(os.environ))
    with (
        cluster.database(template=cluster.migrated) as url,
        kills.warm_fork_server(url) as fork_server,
    ):
        yield url, fork_server


@pytest.fixture(scope="module")
def shared_harness(warehouse_and_fork_server: tuple[str, ForkServer]) -> Iterator[Harness]:
    with kills.new_harness(*warehouse_and_fork_server) as harness:
        harness.wipe()
        yield harness


@pytest.fixture
def harness(shared_harness: Harness, request: pytest.FixtureRequest) -> Harness:
    """Return a harness with what other tests have left, or an empty one after a failure."""
    if request.session.testsfailed:
        shared_harness.disconnect()
        shared_harness.wipe()
    return shared_harness

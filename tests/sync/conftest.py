"""A sandbox, and streams synced from it into a real warehouse, in this process."""

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
from tests.sync.twins import World
from tests.sync.victims import Nursery

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
                engine,
                stream,
                type(settings_of).model_validate({**settings_of.model_dump(), **source}),
                given.pop("holder", "test:1:unknown"),
                **{"sleep": waits.append, **given},
            )
            return run_stream(job)

        return run

    return of


@pytest.fixture(scope="module")
def nursed(clusters: Callable[[Path], Cluster]) -> Iterator[tuple[str, Nursery]]:
    cluster = clusters(find_binaries(os.environ))
    with (
        cluster.database(template=cluster.migrated) as url,
        kills.a_nursery(url) as nursery,
    ):
        yield url, nursery


@pytest.fixture(scope="module")
def lasting_world(nursed: tuple[str, Nursery]) -> Iterator[World]:
    with kills.a_world(*nursed) as world:
        world.wipe()
        yield world


@pytest.fixture
def world(lasting_world: World, request: pytest.FixtureRequest) -> World:
    """A world in which other tests have left what they did, unless one has failed."""
    if request.session.testsfailed:
        lasting_world.hang_up()
        lasting_world.wipe()
    return lasting_world

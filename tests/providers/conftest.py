"""The toy provider, emulated, and a run of its stream."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.schema import CreateSchema

from etl.config import load as config
from etl.sandbox.wire import serving
from etl.sync.job import Job
from etl.sync.selection import select
from etl.warehouse import views
from etl.warehouse.tables import family
from tests.providers.toy import METADATA, TOY, Toy, menu, menus


@pytest.fixture
def toy() -> Iterator[Toy]:
    emulator = Toy()
    for number in range(10):
        emulator.menus.add(menu(number))
    with serving(emulator):
        yield emulator


@pytest.fixture
def job(toy: Toy, engine: Engine, tmp_path: Path) -> Job:
    """Make the toy's tables and configuration; return what a run of its stream needs."""
    with engine.begin() as connection:
        connection.execute(CreateSchema("toy"))
        METADATA.create_all(connection)
        views.create(connection, views.of_tables(family(menus)))
    path = tmp_path / "callflow.toml"
    path.touch(mode=0o600)
    path.write_text(
        '[sources.toy_test]\nprovider = "toy"\ntenant = "acme"\nrequests_per_second = 0\n'
        f'token = "{toy.token}"\nbase_url = "{toy.url}"\n',
        encoding="utf-8",
    )
    settings = config.load(path, {}, providers=(TOY,))
    ((source, stream),) = select(settings, ["toy_test.menus"], providers=(TOY,))
    return Job(engine, stream, source, "test:1:unknown")

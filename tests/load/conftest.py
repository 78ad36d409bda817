"""An open connection to a migrated warehouse."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine

from etl.warehouse import connect


@pytest.fixture
def engine(warehouse: str) -> Iterator[Engine]:
    engine = connect(warehouse)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection

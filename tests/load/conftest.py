"""An open connection to a migrated warehouse, which the tests of this folder share."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine


@pytest.fixture
def engine(emptied: Engine) -> Engine:
    return emptied


@pytest.fixture
def warehouse(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection

"""An open connection to a migrated warehouse.

The tests of this folder share one database per server and empty it: making one for each of them
would take longer than all of them together.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, Engine

from tests.postgres import Cluster, dsn

EMPTY = """
DO $$
DECLARE name text; filled boolean;
BEGIN
  FOR name IN SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
    WHERE schemaname IN ('zoom', 'twilio', 'alibaba', 'history', 'etl', 'staging')
    AND tablename <> 'alembic_version'
  LOOP
    IF name LIKE 'staging.%' THEN
      EXECUTE 'DROP TABLE ' || name;
    ELSE
      EXECUTE 'SELECT EXISTS (SELECT FROM ' || name || ')' INTO filled;
      IF filled THEN EXECUTE 'TRUNCATE ' || name || ' CASCADE'; END IF;
    END IF;
  END LOOP;
END $$
"""


@pytest.fixture(scope="session")
def shared(clusters: Callable[[Path], Cluster]) -> Iterator[Callable[[Path], str]]:
    """The URL of the database that the tests of this folder share, for each server."""
    urls: dict[Path, str] = {}
    with ExitStack() as stack:

        def url(bin_dir: Path) -> str:
            if bin_dir not in urls:
                cluster = clusters(bin_dir)
                database = cluster.database(template=cluster.migrated)
                urls[bin_dir] = stack.enter_context(database)
            return urls[bin_dir]

        yield url


@pytest.fixture
def warehouse(shared: Callable[[Path], str], bin_dir: Path) -> str:
    url = shared(bin_dir)
    with psycopg.connect(dsn(url)) as connection:
        connection.execute(EMPTY)
    return url


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection

"""Throw-away Postgres servers for the fixtures of conftest.py."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from sqlalchemy import URL

from etl.warehouse import embedded

ROOM = 4 << 30
"""Bytes that must be free in memory for a server to live there."""

# A crash may lose everything here: a database is made in 20 ms instead of 1.5 s.
UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def bin_dirs() -> list[Path]:
    """Return the binaries that callflow would take, then every other PostgreSQL of the system."""
    system = sorted(embedded.SYSTEM_BINARIES.glob("*/bin"))
    found = [embedded.find_binaries(os.environ), *(d for d in system if (d / "initdb").exists())]
    return list(dict.fromkeys(found))


def dsn(url: str) -> str:
    """Return a SQLAlchemy URL as psycopg.connect and psql take it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def ask(
    where: str | URL | psycopg.Connection[Any], query: str, *values: object
) -> list[tuple[Any, ...]]:
    """Return the rows of a query, asked on a connection, or on a new one to that database."""
    if isinstance(where, psycopg.Connection):
        return where.execute(query.encode(), values or None).fetchall()
    url = where if isinstance(where, str) else where.render_as_string(hide_password=False)
    with psycopg.connect(dsn(url)) as connection:
        return ask(connection, query, *values)


EMPTY = """
DO $$
DECLARE name text; filled boolean;
BEGIN
  SET LOCAL lock_timeout = '60s';
  FOR name IN SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
    WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
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
"""Makes a new warehouse of a used one."""


@dataclass(frozen=True)
class Cluster:
    server: embedded.Server

    def execute(self, statement: LiteralString, name: str, *more: str) -> None:
        query = sql.SQL(statement).format(*(sql.Identifier(n) for n in (name, *more)))
        with psycopg.connect(dsn(self.server.url("postgres")), autocommit=True) as connection:
            connection.execute(query)

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Yield the URL of a new database; drop it at the end, even if sessions are connected."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, template)
        try:
            yield self.server.url(name)
        finally:
            self.execute("DROP DATABASE {} WITH (FORCE)", name)

    @cached_property
    def migrated(self) -> str:
        """Return the name of a database that is at the head of the migrations; made once."""
        name = "migrated"
        self.execute("CREATE DATABASE {}", name)
        import_module("etl.warehouse.migrate").upgrade(self.server.url(name))
        return name


def as_admin(server: embedded.Server, dbname: str = "postgres") -> psycopg.Connection:
    """Return a session of the embedded Postgres's superuser."""
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user="callflow_admin",
        dbname=dbname,
        passfile=str(server.data_dir / "admin.pgpass"),
        autocommit=True,
    )


@contextmanager
def directory() -> Iterator[Path]:
    """Yield a new directory that the user Postgres runs as can reach, as pytest's tmp_path is not.

    Under root that is `nobody`, and TMPDIR may be one of root's own. It is in memory where there is
    room: making, emptying and dropping tables is work for the file system.
    """
    memory = Path("/dev/shm")
    bases = [Path(tempfile.gettempdir()).resolve(), Path("/var/tmp"), Path("/tmp")]
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM:
        bases.insert(0, memory)
    passable = (b for b in bases if all(p.stat().st_mode & 0o001 for p in (b, *b.parents)))
    base = next(passable) if os.geteuid() == 0 else bases[0]
    path = Path(tempfile.mkdtemp(prefix="callflow-test-", dir=base))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def running(bin_dir: Path) -> Iterator[Cluster]:
    """Yield a server on an empty data directory; both are gone at the end.

    Its owner is a superuser until the next start: tests make roles, and look at what others do.
    """
    with directory() as place:
        server = embedded.start(place / "data", bin_dir=bin_dir, settings=UNSAFE)
        try:
            with as_admin(server) as connection:
                connection.execute("ALTER ROLE callflow SUPERUSER")
            yield Cluster(server)
        finally:
            embedded.stop(server.data_dir)

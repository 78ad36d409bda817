"""Databases and servers that cannot hold the warehouse, or only read, are refused with what to do;
all others just work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from etl.config import load as config
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import select
from etl.warehouse.connect import connect
from tests.daemon.processes import Process, free_port
from tests.faults.conftest import commands, name_in, write_config
from tests.postgres import Cluster, dsn

pytestmark = pytest.mark.slow


@contextmanager
def encoded(cluster: Cluster, encoding: str) -> Iterator[str]:
    """Yield a database in another encoding; its locale works with every encoding."""
    name = f"in_{encoding.lower()}"
    libc = "" if cluster.server.major == 15 else "LOCALE_PROVIDER libc"
    with psycopg.connect(dsn(cluster.server.url("postgres")), autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' {libc}"
            " TEMPLATE template0".encode()
        )
        try:
            yield cluster.server.url(name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.fault(58)
@pytest.mark.every_postgres
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_CN", "MULE_INTERNAL"])
def test_a_database_that_cannot_hold_every_text_is_refused(
    clusters: Callable[[Path], Cluster],
    bin_dir: Path,
    providers: Sandbox,
    tmp_path: Path,
    encoding: str,
) -> None:
    cluster = clusters(bin_dir)
    with encoded(cluster, encoding) as url:
        path = write_config(tmp_path / "callflow.toml", url, providers)
        lines = [["check"], ["migrate"], ["sync"], ["status"], ["sql", "SELECT 1"]]
        done = commands(path, *lines)
        assert done.codes == [1] * len(lines), done
        for said in (done.stdout, done.stderr):
            assert f"has the encoding {encoding}" in said
            assert "create one that can" in said
        advice = done.stdout.partition("warehouse.url: ")[2].splitlines()[0]
        other = advice.split()[2]
        assert advice == f"CREATE DATABASE {other} ENCODING 'UTF8' TEMPLATE template0"
        with psycopg.connect(dsn(url), autocommit=True) as connection:
            connection.execute(advice.encode())
            connection.execute(f"DROP DATABASE {other}".encode())


@pytest.mark.fault(58)
def test_a_daemon_does_not_wait_for_a_database_that_cannot_hold_every_text(
    clusters: Callable[[Path], Cluster], bin_dir: Path, providers: Sandbox, tmp_path: Path
) -> None:
    with encoded(clusters(bin_dir), "MULE_INTERNAL") as url:
        path = write_config(tmp_path / "callflow.toml", url, providers)
        daemon = Process(path, free_port())
        try:
            assert daemon.ended() == 1
        finally:
            daemon.close()
    assert "has the encoding MULE_INTERNAL" in daemon.output


@pytest.mark.fault(48)
@pytest.mark.parametrize("whose", ["DATABASE", "ROLE"])
def test_a_read_only_role_or_database_is_reported(
    loaded: tuple[str, str], providers: Sandbox, tmp_path: Path, whose: str
) -> None:
    url, admin = loaded
    path = write_config(tmp_path / "callflow.toml", url, providers)
    assert commands(path, ["migrate"]).codes == [0]
    role, database = name_in(url)
    named = sql.Identifier(database if whose == "DATABASE" else role)
    with psycopg.connect(dsn(admin), autocommit=True) as connection:
        change = sql.SQL("ALTER {} {} SET default_transaction_read_only = on")
        connection.execute(change.format(sql.SQL(whose), named))
    done = commands(path, ["check"], ["sync", "--json"], ["status"], ["sql", "SELECT 1"])
    assert done.codes == [1, 1, 0, 0], done
    assert "default_transaction_read_only is on" in done.stdout
    assert "name a server that accepts writes" in done.stdout
    assert "connect to the primary" in done.stdout


@pytest.mark.fault(51)
def test_a_slow_provider_is_waited_for_outside_of_transactions(
    loaded: tuple[str, str], providers: Sandbox, tmp_path: Path
) -> None:
    url, admin = loaded
    role, database = name_in(url)
    with psycopg.connect(dsn(admin), autocommit=True) as connection:
        longest = "ALTER ROLE {} IN DATABASE {} SET idle_in_transaction_session_timeout = '100ms'"
        connection.execute(sql.SQL(longest).format(sql.Identifier(role), sql.Identifier(database)))
    path = write_config(tmp_path / "callflow.toml", url, providers)
    providers.zoom.faults.append(Fault(delay=0.4, times=None))
    try:
        done = commands(path, ["migrate"], ["sync", "zoom_demo"])
    finally:
        providers.zoom.faults.clear()
    assert done.codes == [0, 0], done


@pytest.mark.fault(56)
@pytest.mark.every_postgres
def test_tables_that_are_altered_under_a_run_fail_none(
    warehouse: str, providers: Sandbox, tmp_path: Path
) -> None:
    """Statements are not prepared, so no plan with an outdated result type is kept."""
    path = write_config(tmp_path / "callflow.toml", warehouse, providers)
    altered = 0

    def alter(*_: object) -> None:
        nonlocal altered
        altered += 1
        with psycopg.connect(dsn(warehouse), autocommit=True) as connection:
            for column in ("runs ALTER error", "streams ALTER last_run_id"):  # no view reads them
                change = f"ALTER TABLE etl.{column} TYPE varchar({1000 + altered})"
                connection.execute(change.encode())
            connection.execute(f"ALTER TABLE zoom.flows ADD COLUMN theirs_{altered} int".encode())

    providers.zoom.faults.append(Fault(before_request=alter, times=None))
    engine = connect(warehouse)
    try:
        ((source, stream),) = select(config.load(path, {}), ["zoom_demo"])
        for _ in range(3):
            run = run_stream(Job(engine, stream, source, "test:1:unknown"))
            assert (run.status, run.error) == ("complete", None)
    finally:
        engine.dispose()
        providers.zoom.faults.clear()
    assert altered >= 3

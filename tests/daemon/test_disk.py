"""A daemon whose warehouse runs out of disk space, and gets some again.

A small file system is mounted for it, which takes root; elsewhere the test is skipped.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import psycopg
import pytest
from psycopg import sql

from etl.sandbox import zoom_data
from etl.sandbox.server import Sandbox
from etl.warehouse.embedded import find_binaries
from tests.daemon.conftest import Start
from tests.daemon.processes import until
from tests.postgres import Cluster, ask, directory, dsn

pytestmark = pytest.mark.slow

SIZE = 40 << 20


@contextmanager
def small_disk() -> Iterator[Path]:
    with directory() as place:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "callflow-test", str(place)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("no file system can be mounted here")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk() as place:
        yield place


@pytest.fixture
def cramped(clusters: Callable[[Path], Cluster], disk: Path) -> Iterator[str]:
    """Yield the URL of a warehouse whose files are on `disk`, without the write-ahead log."""
    cluster = clusters(find_binaries(os.environ))
    files = disk / "files"
    files.mkdir(mode=0o700)
    owner = next(cluster.server.data_dir.rglob("PG_VERSION")).stat()
    os.chown(files, owner.st_uid, owner.st_gid)
    place = sql.SQL("CREATE TABLESPACE cramped LOCATION {}").format(sql.Literal(str(files)))
    with psycopg.connect(dsn(cluster.server.url("postgres")), autocommit=True) as admin:
        admin.execute(place)
        with cluster.database(template=cluster.migrated) as url:
            name = sql.Identifier(url.partition("?")[0].rpartition("/")[2])
            admin.execute(sql.SQL("ALTER DATABASE {} SET TABLESPACE cramped").format(name))
            yield url
        admin.execute("DROP TABLESPACE cramped")


@pytest.fixture
def connected(cramped: str) -> Iterator[psycopg.Connection]:
    """Yield a session that was there before the disk was full: a new one may need room."""
    with psycopg.connect(dsn(cramped), autocommit=True) as connection:
        yield connection


@pytest.mark.fault(49)
def test_a_full_disk_is_reported_and_everything_goes_on_when_there_is_room_again(
    start: Start,
    sandbox: Sandbox,
    cramped: str,
    connected: psycopg.Connection,
    disk: Path,
    seed: int,
) -> None:
    daemon = start(sandbox, url=cramped)
    daemon.ran(8, status="complete")
    flows = "SELECT flow_id FROM zoom.flows ORDER BY 1"
    before = ask(connected, flows)
    filler = disk / "filler"
    with filler.open("wb") as file, suppress(OSError):  # Postgres frees and takes room meanwhile
        while free := shutil.disk_usage(disk).free:
            file.write(b"\0" * free)
            file.flush()
    for record in zoom_data.flows(Random(seed), 2000):
        sandbox.zoom.flows.add(record)
    failed = daemon.ran(1, source="zoom_demo", status="failed")[0]
    assert "No space left on device" in failed["error"]
    assert "free disk space on the database server" in failed["error"]
    assert ask(connected, flows) == before
    stream = until(
        lambda: found if (found := daemon.stream("zoom_demo.flows"))["state"] == "failed" else None,
        "the page shows it",
        daemon,
    )
    assert "free disk space" in stream["advice"]
    assert daemon.get("/healthz").status_code == 200
    filler.unlink()
    count = "SELECT count(*) FROM zoom.flows"
    until(
        lambda: ask(connected, count) == [(len(sandbox.zoom.flows.keys()),)], "all is there", daemon
    )
    assert "Traceback" not in daemon.output

"""What every test may ask for: a real Postgres, and a seed that is printed.

    postgres   the server (session)                             etl.warehouse.embedded.Server
    database   a new, empty database                            its SQLAlchemy URL
    warehouse  a new database at the head of the migrations     its SQLAlchemy URL
    engine     on that warehouse                                sqlalchemy.Engine
    emptied    on a warehouse that tests share, empty again     sqlalchemy.Engine
    warm       runs `callflow …` as a process                   tests.warm.Warm
    seed       for random.Random(seed); CALLFLOW_TEST_SEED=… repeats a run

A test marked `every_postgres` runs once per PostgreSQL found on this machine. The whole suite runs
on another one with CALLFLOW_PG_BIN=/usr/lib/postgresql/15/bin.

`make quick` leaves out what is marked `slow` or `more`, `make test` what is marked `more`: larger
samples, further servers, tools of others. The rest of them is `make test-more`.

A test marked `fault(n)` is the answer to fault n of the catalogue in tests/faults.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from etl.warehouse.connect import connect
from etl.warehouse.embedded import Server, find_binaries
from tests.postgres import EMPTY, Cluster, bin_dirs, dsn, running
from tests.warm import Warm, warmed

SEED = pytest.StashKey[int]()

LONGEST = (
    "sync/test_kills.py",
    "sandbox/official/test_official.py",
    "warehouse/test_embedded.py",
    "daemon/test_daemon.py",
    "faults/test_sql_sweep.py",
    "sync/test_histories.py",
    "sync/test_database_faults.py",
    "test_cli.py",
    "sync/test_expired_leases.py",
    "faults/test_http_sweep.py",
)
"""Files that start first, or the last of them would run alone. Some wait and some compute."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "every_postgres: run on each PostgreSQL of this machine (needs a database)"
    )
    config.addinivalue_line("markers", "fault(n, …): shows what becomes of these catalogued faults")
    config.addinivalue_line("markers", "slow: not in make quick")
    config.addinivalue_line("markers", "more: in make test-more only")
    # Of the day: all who run the tests today see the same failure, and each day looks elsewhere.
    seed = os.environ.get("CALLFLOW_TEST_SEED") or f"{datetime.now(UTC):%Y%m%d}"
    config.stash[SEED] = int(seed)
    os.environ["CALLFLOW_TEST_SEED"] = str(config.stash[SEED])  # pytest-xdist's workers inherit it
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A shell starts jobs in the background with Ctrl-C ignored, and processes inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _seed_line(config: pytest.Config) -> str:
    return f"seed: CALLFLOW_TEST_SEED={config.stash[SEED]}"


def pytest_report_header(config: pytest.Config) -> str:
    return _seed_line(config)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    # -q hides the header.
    if config.get_verbosity() < 0 or terminalreporter.stats.keys() & {"failed", "error"}:
        terminalreporter.write_line(_seed_line(config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    assert all(path.exists() for path in places), "LONGEST names a file that is not there"
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("every_postgres"):
        first, *others = bin_dirs()
        more = [pytest.param(each, marks=pytest.mark.more) for each in others]
        metafunc.parametrize("bin_dir", [first, *more], indirect=True, ids=_version_of)


def _version_of(bin_dir: Path) -> str:
    return "embedded" if "site-packages" in bin_dir.parts else f"postgres-{bin_dir.parent.name}"


@pytest.fixture(scope="session")
def clusters() -> Iterator[Callable[[Path], Cluster]]:
    """Yield one server for each directory of binaries, started when it is first asked for."""
    started: dict[Path, Cluster] = {}
    with ExitStack() as stack:

        def cluster(bin_dir: Path) -> Cluster:
            if bin_dir not in started:
                started[bin_dir] = stack.enter_context(running(bin_dir))
            return started[bin_dir]

        yield cluster


@pytest.fixture(scope="session")
def postgres(clusters: Callable[[Path], Cluster]) -> Server:
    return clusters(find_binaries(os.environ)).server


@pytest.fixture
def bin_dir(request: pytest.FixtureRequest) -> Path:
    chosen = getattr(request, "param", None) or find_binaries(os.environ)
    assert isinstance(chosen, Path)
    return chosen


@pytest.fixture
def database(clusters: Callable[[Path], Cluster], bin_dir: Path) -> Iterator[str]:
    with clusters(bin_dir).database() as url:
        yield url


@pytest.fixture
def warehouse(clusters: Callable[[Path], Cluster], bin_dir: Path) -> Iterator[str]:
    cluster = clusters(bin_dir)
    with cluster.database(template=cluster.migrated) as url:
        yield url


@pytest.fixture
def engine(warehouse: str) -> Iterator[Engine]:
    engine = connect(warehouse)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture(scope="session")
def shared(clusters: Callable[[Path], Cluster]) -> Iterator[Callable[[Path], Engine]]:
    """Yield an engine per server, on a warehouse that the tests which use `emptied` share."""
    engines: dict[Path, Engine] = {}
    with ExitStack() as stack:

        def engine(bin_dir: Path) -> Engine:
            if bin_dir not in engines:
                cluster = clusters(bin_dir)
                url = stack.enter_context(cluster.database(template=cluster.migrated))
                engines[bin_dir] = connect(url)
                stack.callback(engines[bin_dir].dispose)
            return engines[bin_dir]

        yield engine


@pytest.fixture
def emptied(shared: Callable[[Path], Engine], bin_dir: Path) -> Engine:
    """Return the shared engine on an empty warehouse: emptying one is faster than making one."""
    engine = shared(bin_dir)
    url = engine.url.render_as_string(hide_password=False)
    with psycopg.connect(dsn(url), autocommit=True) as connection:
        connection.execute(EMPTY)
    return engine


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    with warmed() as warm:
        yield warm


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    return pytestconfig.stash[SEED]

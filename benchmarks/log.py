"""Measure what the log of changes adds to a merge.

    python benchmarks/log.py [--flows 20000] [--repetitions 7]

Zoom flows, each with 3 versions and an entry point, are merged into an embedded Postgres. Then they
are staged again with some names changed, and merged with the log and without it in turn, each time
in a transaction that is rolled back. The medians are printed, and their ratio.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, text

from etl.load import merge, stage
from etl.load.changes import Log
from etl.providers import STREAMS
from etl.warehouse import embedded, migrate
from etl.warehouse.connect import connect

STREAM = STREAMS["zoom.flows"]
PAIRS = [stage.pair_of("zoom_eu", table) for table in STREAM.tables]
LOG = Log("zoom", STREAM.parts, None, ("",))
START = datetime(2026, 11, 1, tzinfo=UTC)

FILL = """
INSERT INTO staging.zoom_eu__flows (ord, partial, flow_id, flow_name, status, modified_by,
    last_modified_time)
SELECT g, false, 'f' || lpad(g::text, 8, '0'), 'Flow ' || g ||
    CASE WHEN g % 100 < {percent} THEN ' ({nth})' ELSE '' END, 'published', 'u' || g % 50, '{now}'
FROM generate_series(1, {flows}) AS g;
INSERT INTO staging.zoom_eu__flow_versions (ord, flow_id, flow_version_id, flow_version)
SELECT g, 'f' || lpad(g::text, 8, '0'), 'v' || n, n
FROM generate_series(1, {flows}) AS g, generate_series(1, 3) AS n;
INSERT INTO staging.zoom_eu__entry_points (ord, flow_id, entry_id, entry_number)
SELECT g, 'f' || lpad(g::text, 8, '0'), 'e', '+1' || g FROM generate_series(1, {flows}) AS g;
"""


def fill(connection: Connection, flows: int, percent: int, nth: int) -> None:
    """Stage the flows; so many percent of them have another name than before."""
    stage.prepare(connection, PAIRS)
    filled = FILL.format(flows=flows, percent=percent, nth=nth, now=START)
    connection.exec_driver_sql(filled.replace("%", "%%"))
    stage.deduplicate(connection, PAIRS, {}, None)


def seconds(connection: Connection, log: Log | None, now: datetime) -> float:
    """Merge what is staged, and roll back; return how long the merge took."""
    savepoint = connection.begin_nested()
    started = time.perf_counter()
    merge.merge(connection, "zoom_eu", PAIRS, [], now, log=log)
    took = time.perf_counter() - started
    savepoint.rollback()
    return took


def measure(connection: Connection, percent: int, repetitions: int) -> str:
    """Return a line: what the merge of what is staged takes without the log, and with it."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for nth in range(repetitions + 1):
        for logged in (nth % 2 == 0, nth % 2 == 1):
            took = seconds(connection, LOG if logged else None, START + timedelta(days=nth + 1))
            if nth:  # the first pair warms caches
                found[logged].append(took)
    without, with_log = statistics.median(found[False]), statistics.median(found[True])
    ratio = statistics.median(a / b for a, b in zip(found[True], found[False], strict=True))
    return f"{percent:3} % changed: {without:.3f} s without, {with_log:.3f} s with: {ratio:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flows", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=7)
    given = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="callflow-benchmark-") as folder:
        server = embedded.start(Path(folder))
        try:
            migrate.upgrade(server.url())
            engine = connect(server.url())
            with engine.begin() as connection:
                fill(connection, given.flows, 0, 0)
                merge.merge(connection, "zoom_eu", PAIRS, [], START)
            with engine.connect() as connection:
                alone = connection.execution_options(isolation_level="AUTOCOMMIT")
                alone.execute(text("VACUUM (ANALYZE)"))
            for percent in (1, 10, 100):
                with engine.begin() as connection:
                    fill(connection, given.flows, percent, 1)
                    print(measure(connection, percent, given.repetitions), flush=True)
            engine.dispose()
        finally:
            embedded.stop(Path(folder))


if __name__ == "__main__":
    main()

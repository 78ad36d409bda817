"""Measure what rows cost on disk, and what the usual questions cost with a million of them.

    python benchmarks/size.py [--rows 1000000] [--flows 10000]

The sandbox's data is synced into an embedded Postgres, so widths and children are those of the
demo: `--flows` flows of each provider, `--rows` Twilio channels. History gets one closed version of
every row, etl.runs as many runs as there are channels, of 40 streams. Sizes are those of heap,
TOAST and indexes, and depend on the data only; times depend on the machine and its other load.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Table

from etl import api
from etl.config.redact import Redactor
from etl.providers.catalog import TABLES
from etl.sandbox.data import Sizes
from etl.sandbox.server import serve
from etl.status import queries
from etl.warehouse import embedded, migrate, tables
from etl.warehouse.connect import connect

SETTINGS = {"fsync": "off", "max_wal_size": "4GB"}  # neither changes a size
STREAMS = 40
REPEATS = 5

RUNS = f"""
INSERT INTO etl.runs
SELECT one.*
FROM (SELECT * FROM etl.runs WHERE stream = 'channels' ORDER BY finished_at DESC LIMIT 1) AS run,
     generate_series(1, %s) AS n,
     jsonb_populate_record(NULL::etl.runs, to_jsonb(run) || jsonb_build_object(
         'source', 'source_' || mod(n, {STREAMS}),
         'run_id', md5(n::text),
         'started_at', run.started_at - n * interval '22.5 seconds',
         'finished_at', run.finished_at - n * interval '22.5 seconds')) AS one
"""

THEN = "valid_from <= %(at)s AND (valid_to > %(at)s OR valid_to IS NULL)"
QUESTIONS = {
    "how many channels are there": "SELECT count(*) FROM twilio.channels",
    "how many were there half a year ago": "SELECT count(*) FROM twilio.channels_history"
    f" WHERE {THEN}",
    "one channel half a year ago": "SELECT * FROM twilio.channels_history"
    f" WHERE source = 'twilio_demo' AND sid = %(sid)s AND {THEN}",
    "every version of one channel": "SELECT * FROM twilio.channels_history"
    " WHERE source = 'twilio_demo' AND sid = %(sid)s",
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--flows", type=int, default=10_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = embedded.start(folder / "postgres", settings=SETTINGS)
        try:
            measure(folder, server.url(), given.rows, given.flows)
        finally:
            embedded.stop(folder / "postgres")


def measure(folder: Path, url: str, rows: int, flows: int) -> None:
    migrate.upgrade(url)
    load(
        folder,
        url,
        Sizes(flows, rows, {"twilio.flex_flows": flows, "alibaba.contact_flows": flows // 2}),
    )  # two instances
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        # A first load of many pages gives up the direct way, whose rows leave free space behind.
        connection.execute("CREATE TEMP TABLE loaded AS SELECT * FROM twilio.channels")
        connection.execute("TRUNCATE twilio.channels")
        connection.execute("INSERT INTO twilio.channels SELECT * FROM loaded")
        for current, history in tables.HISTORY.items():
            close(connection, current, history)
        connection.execute(RUNS, [rows])
        for table in tables.metadata.sorted_tables:
            connection.execute(f"VACUUM ANALYZE {table.fullname}")
        sizes(connection)
        times(connection, url)


def load(folder: Path, url: str, data: Sizes) -> None:
    with serve(data) as sandbox:
        config = folder / "callflow.toml"
        config.write_text(f'[warehouse]\nurl = "{url}"\n{sandbox.toml()}')
        config.chmod(0o600)
        for source in api.sources(config, env={}):
            for run in api.sync(source, config, env={}):
                assert run.status == "complete", run.error


def close(connection: psycopg.Connection[Any], current: Table, history: Table) -> None:
    """Add a previous version of each row that started in the last two years."""
    columns = ", ".join(c.name for c in current.columns if c.name != "valid_from")
    connection.execute(
        f"INSERT INTO {history.fullname} ({columns}, valid_from, valid_to) SELECT {columns},"
        f" valid_from - random() * interval '730 days', valid_from FROM {current.fullname}"
    )


def sizes(connection: psycopg.Connection[Any]) -> None:
    print(f"{'table':46}{'rows':>10}{'B/row heap':>12}{'with indexes':>14}{'rows in 100 GB':>16}")
    for table in (*TABLES.values(), *tables.HISTORY.values(), tables.runs):
        name = table.fullname
        (count,) = connection.execute(f"SELECT count(*) FROM {name}").fetchone()
        heap, whole = connection.execute(
            f"SELECT pg_table_size('{name}'), pg_total_relation_size('{name}')"
        ).fetchone()
        each = whole / count
        print(f"{name:46}{count:>10,}{heap / count:>12.0f}{each:>14.0f}{100e9 / each:>16,.0f}")


def times(connection: psycopg.Connection[Any], url: str) -> None:
    (rows,) = connection.execute("SELECT count(*) FROM twilio.channels").fetchone()
    print(f"\n{rows:,} channels, as many versions in history, as many runs; {REPEATS} times each;")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    (at,) = connection.execute("SELECT now() - interval '180 days'").fetchone()
    (sid,) = connection.execute("SELECT sid FROM twilio.channels OFFSET 1000 LIMIT 1").fetchone()
    for words, statement in QUESTIONS.items():
        ask = partial(connection.execute, statement, {"at": at, "sid": sid})
        report(words, lambda ask=ask: ask().fetchall())
    engine = connect(url)
    streams = [(f"source_{n}", "channels") for n in range(STREAMS)]
    report(
        f"the last 30 runs of {STREAMS} streams",
        lambda: queries.recent(engine, streams, Redactor()),
    )
    engine.dispose()


def report(words: str, ask: Callable[[], object]) -> None:
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - start)
    middle, best = statistics.median(taken) * 1000, min(taken) * 1000
    print(f"{words:46}{middle:>10.1f} ms, median;{best:>10.1f} ms at best")


if __name__ == "__main__":
    main()

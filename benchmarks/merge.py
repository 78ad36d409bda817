"""Measure the merge by itself: beside a plain upsert of the same rows, and with the log of changes.

    python benchmarks/merge.py [--rows 200000] [--flows 20000] [--repetitions 5]

Twilio channels are in the table and staged once more, all of them changed. They are merged, which
keeps what they were in the history, and, in turn, upserted by one `INSERT … ON CONFLICT DO UPDATE`,
which keeps nothing. Then Zoom flows, each with 3 versions and an entry point, are merged with the
log of changes and, in turn, without it. Every transaction is rolled back, and the tables are
vacuumed after it. The server is an embedded Postgres; medians are printed, and the median of the
ratios of each pair.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, Engine, text

from etl.load import merge, stage
from etl.load.changes import Log
from etl.load.merge import quoted, quoted_table
from etl.providers.catalog import STREAMS
from etl.warehouse import embedded, migrate, tables
from etl.warehouse.connect import connect

START = datetime(2026, 11, 1, tzinfo=UTC)
ZOOM, CHANNELS = STREAMS["zoom.flows"], STREAMS["twilio.channels"]
FLOWS = [stage.pair_of("zoom_eu", table) for table in ZOOM.tables]
ROWS = [stage.pair_of("twilio", table) for table in CHANNELS.tables]
LOG = Log("zoom", ZOOM.parts, None, ("",))

FILL_FLOWS = """
INSERT INTO staging.zoom_eu__flows (ord, partial, flow_id, flow_name, status, modified_by,
    last_modified_time)
SELECT g, false, 'f' || lpad(g::text, 8, '0'), 'Flow ' || g ||
    CASE WHEN g %% 100 < {changed} THEN ' changed' ELSE '' END, 'published', 'u' || g %% 50, now()
FROM generate_series(1, {count}) AS g;
INSERT INTO staging.zoom_eu__flow_versions (ord, flow_id, flow_version_id, flow_version)
SELECT g, 'f' || lpad(g::text, 8, '0'), 'v' || n, n
FROM generate_series(1, {count}) AS g, generate_series(1, 3) AS n;
INSERT INTO staging.zoom_eu__entry_points (ord, flow_id, entry_id, entry_number)
SELECT g, 'f' || lpad(g::text, 8, '0'), 'e', '+1' || g FROM generate_series(1, {count}) AS g;
"""

FILL_CHANNELS = """
INSERT INTO staging.twilio__channels (ord, partial, sid, account_sid, flex_flow_sid, user_sid,
    date_created, date_updated, url)
SELECT g, false, 'CH' || md5(g::text), 'AC' || repeat('5', 32), 'FO' || md5((g %% 10)::text),
    'US' || md5((g * 7)::text), '2025-01-01 00:00Z', '2026-01-01 00:00Z'::timestamptz
        + CASE WHEN g %% 100 < {changed} THEN interval '1 day' ELSE interval '0' END,
    'https://flex-api.twilio.com/v1/Channels/CH' || md5(g::text)
FROM generate_series(1, {count}) AS g;
"""

Step = Callable[[Connection], object]


def fill(connection: Connection, pairs: Sequence[stage.TablePair], sql: str) -> None:
    """Stage the rows that `sql` makes."""
    stage.prepare(connection, pairs)
    connection.exec_driver_sql(sql)
    stage.deduplicate(connection, pairs, {}, None, "date_updated")


def merged(
    connection: Connection, source: str, pairs: Sequence[stage.TablePair], log: Log | None = None
) -> None:
    merge.merge(connection, source, pairs, [], START + timedelta(days=1), log=log)


def upserted(connection: Connection) -> None:
    """Upsert the staged channels, whether they have changed or not."""
    (pair,) = ROWS
    names, keys = tables.data_columns(pair.current), tables.key_columns(pair.current)
    fields = [name for name in (*names, "valid_from") if name not in keys]
    setting = ", ".join(f"{quoted([name])} = excluded.{quoted([name])}" for name in fields)
    connection.execute(
        text(f"""
        INSERT INTO {quoted_table(pair.current)} (source, {quoted(names)}, valid_from)
        SELECT 'twilio', {quoted(names)}, CAST(:now AS timestamptz)
        FROM {quoted_table(pair.stage)} ON CONFLICT (source, {quoted(keys)}) DO UPDATE SET {setting}
        """),
        {"now": START + timedelta(days=1)},
    )


def seconds(engine: Engine, step: Step) -> float:
    """Return how long a step takes in a transaction, which is then rolled back."""
    with engine.connect() as connection, connection.begin() as transaction:
        started = time.perf_counter()
        step(connection)
        took = time.perf_counter() - started
        transaction.rollback()
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM"))
    return took


def compare(engine: Engine, what: str, first: Step, second: Step, repetitions: int) -> None:
    """Take two steps in turn, and print the median times and ratio of the first to the second."""
    found: list[tuple[float, float]] = []
    for number in range(repetitions + 1):
        pair = [(place, step) for place, step in enumerate((first, second))]
        took = {place: seconds(engine, step) for place, step in pair[:: -1 if number % 2 else 1]}
        if number:  # the first pair warms caches
            found.append((took[0], took[1]))
    one, other = (statistics.median(times) for times in zip(*found, strict=True))
    ratio = statistics.median(a / b for a, b in found)
    print(f"{what}: {one:.3f} s and {other:.3f} s: {ratio:.2f}", flush=True)


def measure(engine: Engine, rows: int, flows: int, repetitions: int) -> None:
    """Fill the tables, and compare."""
    with engine.begin() as connection:
        fill(connection, ROWS, FILL_CHANNELS.format(count=rows, changed=0))
        merge.merge(connection, "twilio", ROWS, [], START)
        fill(connection, ROWS, FILL_CHANNELS.format(count=rows, changed=100))
        fill(connection, FLOWS, FILL_FLOWS.format(count=flows, changed=0))
        merge.merge(connection, "zoom_eu", FLOWS, [], START)
    with engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        alone.execute(text("VACUUM (ANALYZE)"))
    what = f"{rows:,} channels, 100 % changed, merged with history and upserted"
    compare(engine, what, partial(merged, source="twilio", pairs=ROWS), upserted, repetitions)
    for changed in (1, 10, 100):
        with engine.begin() as connection:
            fill(connection, FLOWS, FILL_FLOWS.format(count=flows, changed=changed))
        what = f"{flows:,} Zoom flows, {changed} % changed, merged with the log and without"
        without = partial(merged, source="zoom_eu", pairs=FLOWS)
        compare(engine, what, partial(without, log=LOG), without, repetitions)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--flows", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="callflow-benchmark-") as folder:
        server = embedded.start(Path(folder))
        try:
            migrate.upgrade(server.url())
            engine = connect(server.url())
            measure(engine, given.rows, given.flows, given.repetitions)
            engine.dispose()
        finally:
            embedded.stop(Path(folder))


if __name__ == "__main__":
    main()

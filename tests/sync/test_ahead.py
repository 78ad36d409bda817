"""Reading ahead in a run: the next batch is read while one is copied, within a bound in bytes.

And staging in it: what the next run reads again need not be on the disk before the run goes on.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import Connection, event

from etl.providers import twilio
from etl.sandbox.server import Sandbox
from etl.sync.scan import AHEAD, ROOM
from etl.warehouse.connect import connect
from tests.postgres import dsn
from tests.sync.conftest import Starter

NAME, BATCH, PAGES = "twilio_demo.channels", 2, 8
(CHANNELS,) = (each for each in twilio.PROVIDER.streams if each.name == "channels")


@contextmanager
def no_copy(url: str) -> Iterator[None]:
    """Keep the rows of channels from being staged for a while."""
    with psycopg.connect(dsn(url)) as other:
        other.execute("LOCK TABLE staging.twilio_demo__channels IN SHARE ROW EXCLUSIVE MODE")
        yield


@pytest.mark.parametrize(
    ("size", "requests"),
    [(100, BATCH + BATCH + AHEAD), (ROOM // 2, BATCH + 1), (ROOM, BATCH)],
)
def test_while_a_batch_is_copied_more_pages_are_read_up_to_the_bound(
    sync: Starter, sandbox: Sandbox, warehouse: str, size: int, requests: int
) -> None:
    """`size` is that of a page. The last page of the batch counts until the next one is taken."""
    for number in range(PAGES):
        sandbox.twilio.channels.add({"sid": f"CH{number:032}", "more": "x" * size})
    sandbox.twilio.largest_page = 1
    sent = sandbox.twilio.requests
    run, stream = sync(sandbox), replace(CHANNELS, batch=BATCH)
    assert run(NAME, stream=stream).status == "complete"
    assert len(sent) == PAGES
    sent.clear()
    with ThreadPoolExecutor(1) as executor:
        with no_copy(warehouse):
            running = executor.submit(run, NAME, stream=stream, full=True)
            deadline = time.monotonic() + 25  # seconds; COPY waits 30 for the lock
            while len(sent) < requests and not running.done() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(sent) == requests
            time.sleep(0.2)  # one page more would come now
            assert len(sent) == requests
        assert (running.result().status, running.result().pages) == ("complete", PAGES)


def test_only_the_commit_of_what_is_merged_waits_for_the_disk(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    for number in range(PAGES):
        sandbox.twilio.channels.add({"sid": f"CH{number:032}"})
    sandbox.twilio.largest_page = 1
    run, stream = sync(sandbox), replace(CHANNELS, batch=BATCH)
    run(NAME, stream=stream)  # so that the next one stages
    commits: list[tuple[str, int]] = []

    def ask(connection: Connection) -> None:
        raw = connection.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        query = "SELECT current_setting('synchronous_commit'), (SELECT count(*) FROM etl.runs)"
        commits.extend(raw.execute(query).fetchall())

    engine = connect(warehouse)
    event.listen(engine, "connect", lambda raw, _: raw.execute("SET synchronous_commit = on"))
    event.listen(engine, "commit", ask)
    assert run(NAME, stream=stream, full=True, engine=engine).records == PAGES
    engine.dispose()
    assert [runs for wait, runs in commits if wait == "off"] == [1] * (PAGES // BATCH)
    assert ("on", 2) in commits

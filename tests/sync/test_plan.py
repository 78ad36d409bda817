"""Full or incremental, and why: from values alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from etl.config import load as config
from etl.extract.page import EVERYTHING, ScanRequest
from etl.load.runs import Progress
from etl.providers.catalog import STREAMS
from etl.providers.declare import Stream
from etl.sandbox.server import Sandbox
from etl.sync.job import Job
from etl.sync.plan import Plan, choose_plan
from etl.sync.run import run_stream
from etl.sync.selection import select
from tests.postgres import ask
from tests.sync import truth

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MARK = datetime(2026, 2, 28, tzinfo=UTC)
READ = datetime(2026, 3, 1, 11, tzinfo=UTC)

SINCE, NEWEST_FIRST, WHOLE_ONLY = (
    STREAMS[name] for name in ("alibaba.contact_flows", "twilio.channels", "zoom.flows")
)

SCANNED = Progress(
    NOW,
    watermark=MARK,
    watermarks={"a": MARK, "b": None},
    read_at=READ,
    last_full_at=NOW - timedelta(hours=23),
    newest_first=True,
)


def plan(stream: Stream, previous: Progress = SCANNED, **given: Any) -> Plan:
    return choose_plan(stream, previous, **{"asked_full": False, "full_every": None, **given})


def test_a_list_that_can_be_asked_for_changes_is_asked_for_them() -> None:
    assert plan(SINCE) == Plan(
        "incremental", "what changed since the watermark", ScanRequest({"a": MARK}, READ)
    )
    assert plan(NEWEST_FIRST) == Plan(
        "incremental", "newest first, until nothing is new", EVERYTHING
    )


@pytest.mark.parametrize("stream", [SINCE, NEWEST_FIRST], ids=["since", "newest first"])
@pytest.mark.parametrize(
    ("changes", "given", "reason"),
    [
        ({}, {"asked_full": True}, "asked for"),
        (
            {"unreadable": ("watermark", "read_at")},
            {},
            "what etl.streams holds in watermark, read_at cannot be read",
        ),
        ({"last_full_at": None}, {}, "there was no complete full scan yet"),
        (
            {"last_full_at": NOW - timedelta(hours=24)},
            {},
            "the last complete full scan is older than 24 h",
        ),
        (
            {},
            {"full_every": timedelta(hours=1.5)},
            "the last complete full scan is older than 1.5 h",
        ),
        (
            {"last_full_at": NOW + timedelta(hours=1, seconds=1)},
            {},
            "the database's clock was set back since the last full scan",
        ),
        ({"watermarks": {"b": None}}, {}, "there is no watermark yet"),
    ],
)
def test_otherwise_the_whole_list_is_read_and_the_reason_says_why(
    stream: Stream, changes: dict[str, Any], given: dict[str, Any], reason: str
) -> None:
    assert plan(stream, replace(SCANNED, **changes), **given) == Plan("full", reason, EVERYTHING)


def test_a_list_that_came_in_another_order_is_read_whole() -> None:
    previous = replace(SCANNED, newest_first=False)
    assert plan(NEWEST_FIRST, previous).reason == "the list did not come newest first"
    assert plan(SINCE, previous).mode == "incremental"


def test_a_list_that_cannot_be_asked_for_changes_is_read_whole() -> None:
    assert plan(WHOLE_ONLY) == Plan("full", "the API cannot be asked for changes only", EVERYTHING)


@pytest.mark.parametrize("stream", [SINCE, NEWEST_FIRST], ids=["since", "newest first"])
def test_a_list_without_modification_times_is_read_whole(stream: Stream) -> None:
    timeless = replace(stream, modified=None)
    assert plan(timeless) == Plan("full", "the list has no modification times", EVERYTHING)


@pytest.mark.parametrize("name", ["flows", "flex_flows", "channels", "contact_flows"])
def test_a_stream_without_modification_times_is_synced_and_has_no_watermark(
    engine: Engine, full_sandbox: Sandbox, warehouse: str, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "callflow.toml"
    path.write_text(full_sandbox.toml(), encoding="utf-8")
    path.chmod(0o600)
    units = select(config.load(path, {}), [])
    ((source, stream),) = [unit for unit in units if unit[1].name == name]
    job = Job(engine, replace(stream, modified=None), source, "test:1:unknown")
    first = run_stream(job)
    assert (first.status, first.mode, first.watermark_after) == ("complete", "full", None)
    assert first.inserted == first.records > 20
    table = stream.tables[0].fullname
    assert truth.stored(warehouse)[table] == truth.of(full_sandbox)[table]
    again = run_stream(job)
    assert (again.status, again.mode, again.watermark_after) == ("complete", "full", None)
    assert (again.rows_written, again.unchanged) == (0, first.inserted)
    state = "SELECT watermark, watermarks, read_at, last_full_at IS NULL FROM etl.streams"
    assert ask(warehouse, state) == [(None, None, None, False)]

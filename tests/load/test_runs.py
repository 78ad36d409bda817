"""Bookkeeping: runs, how far a stream is, and what was rejected."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from etl.extract.page import Page
from etl.load import rejects, runs, stage, unlisted
from etl.load.runs import Outcome, Progress, Run
from etl.load.stage import Staged
from etl.load.unlisted import unlisted_before
from etl.providers.catalog import TABLES
from etl.transform.rows import Reject
from etl.warehouse import tables
from tests.load.loading import CHANNELS, CONTACT_FLOWS, FLOWS, at, load, pairs_of, rows_of, scan


def new_run(source: str = "s", stream: str = "flows", **members: Any) -> Run:
    return Run(uuid.uuid4().hex, source, stream, **{"mode": "full", "started_at": at(0), **members})


def finish(connection: Connection, run: Run, **outcome: Any) -> Run:
    with connection.begin():
        return runs.finish(connection, run, Outcome(**{"rows": 0, **outcome}))


def stream_row(connection: Connection, source: str = "s") -> dict[str, Any]:
    (row,) = rows_of(connection, tables.streams, source)
    return row


def test_before_the_first_run_there_is_no_progress(connection: Connection) -> None:
    with connection.begin():
        found = runs.progress(connection, "s", "flows")
    assert found == Progress(found.now)
    assert abs(found.now - datetime.now(UTC)) < timedelta(hours=1)


def test_a_complete_full_run_is_recorded_whole(connection: Connection) -> None:
    run = new_run(
        status="complete", requests=1, pages=2, records=3, inserted=4, updated=5, unchanged=6,
        deleted=7, rejected=8, warnings=9, rows_written=10, watermark_before=at(1),
        reason="asked for", absent=11, retries=13, throttled_seconds=1.25, retry_at=at(9),
    )  # fmt: skip
    marks = {"i": at(5), "j": at(3), "empty": None}
    run = finish(
        connection, run, marks=marks, changed_at=at(7), read_at=at(6), rows=12, full=True,
        newest_first=True,
    )  # fmt: skip
    assert run.finished_at is not None
    assert run.finished_at.utcoffset() == timedelta(0)
    assert abs(run.finished_at - datetime.now(UTC)) < timedelta(hours=1)
    (row,) = rows_of(connection, tables.runs)
    assert row == {
        "source": "s", "run_id": run.run_id, "stream": "flows", "mode": "full",
        "started_at": at(0), "finished_at": run.finished_at, "status": "complete",
        "requests": 1, "pages": 2, "records": 3, "inserted": 4, "updated": 5, "unchanged": 6,
        "deleted": 7, "rejected": 8, "warnings": 9, "rows_written": 10,
        "reason": "asked for", "absent": 11,
        "retries": 13, "throttled_seconds": 1.25, "retry_at": at(9),
        "watermark_before": at(1), "watermark_after": at(5),
    }  # fmt: skip
    assert stream_row(connection) == {
        "source": "s",
        "stream": "flows",
        "watermark": at(5),
        "watermarks": {"i": at(5).isoformat(), "j": at(3).isoformat(), "empty": None},
        "last_run_id": run.run_id,
        "last_status": "complete",
        "last_attempt_at": run.finished_at,
        "last_success_at": run.finished_at,
        "last_full_at": run.finished_at,
        "changed_at": at(7),
        "read_at": at(6),
        "newest_first": True,
        "rows": 12,
        "retry_at": at(9),
    }
    with connection.begin():
        found = runs.progress(connection, "s", "flows")
    assert found == Progress(
        found.now, at(5), marks, at(6), at(7), run.finished_at, newest_first=True
    )


@pytest.mark.parametrize("status", ["incomplete", "failed"])
def test_a_run_without_success_keeps_what_the_last_one_proved(
    connection: Connection, status: Any
) -> None:
    good = new_run(status="complete")
    good = finish(connection, good, marks={"": at(3)}, changed_at=at(4), full=True)
    bad = new_run(status=status, watermark_before=at(3), error_kind="contract", error="why")
    bad = finish(connection, bad)
    assert bad.watermark_after == at(3)
    row = stream_row(connection)
    assert (row["last_status"], row["last_run_id"], row["error"]) == (status, bad.run_id, "why")
    assert row["last_attempt_at"] == bad.finished_at
    assert row["last_success_at"] == row["last_full_at"] == good.finished_at
    assert (row["watermark"], row["changed_at"]) == (at(3), at(4))
    finish(connection, new_run(status="complete"))
    assert "error" not in stream_row(connection)


def test_an_incremental_run_is_no_full_scan(connection: Connection) -> None:
    finish(connection, new_run(status="complete", mode="incremental"))
    assert "last_success_at" in stream_row(connection)
    assert "last_full_at" not in stream_row(connection)


def test_a_busy_run_is_recorded_and_leaves_the_stream_s_state_alone(connection: Connection) -> None:
    good = new_run(status="complete")
    finish(connection, good, marks={"": at(3)})
    before = stream_row(connection)
    finish(connection, new_run(status="busy", error_kind="busy", error="held"))
    assert stream_row(connection) == before
    assert [row["status"] for row in rows_of(connection, tables.runs)].count("busy") == 1


def test_streams_of_two_sources_are_apart(connection: Connection) -> None:
    finish(connection, new_run("s", status="complete"), marks={"": at(1)})
    finish(connection, new_run("t", status="complete"), marks={"": at(2)})
    assert stream_row(connection, "s")["watermark"] == at(1)
    assert stream_row(connection, "t")["watermark"] == at(2)


@pytest.mark.fault(65)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Shanghai"])
def test_an_instant_is_later_than_every_previous_one(connection: Connection, zone: str) -> None:
    with connection.begin():
        connection.execute(text(f"SET TIME ZONE '{zone}'"))
        clock = connection.scalar(select(text("clock_timestamp()")))
        assert isinstance(clock, datetime)
        now = runs.instant(connection, None)
        assert timedelta(0) <= now - clock < timedelta(minutes=5)
        assert now.utcoffset() == timedelta(0)
        assert runs.instant(connection, clock - timedelta(days=1)) >= now
        ahead = clock + timedelta(days=1)  # the clock was set back since
        assert runs.instant(connection, ahead) == ahead + timedelta(microseconds=1)


TIMES = ["2022-02-15T09:27:15.000001Z", "2022-02-15T09:27:15Z", None, "never",
         "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"]  # fmt: skip


def staged(connection: Connection, zone: str, page: list[Any]) -> dict[str, Staged]:
    """Return what is staged of a page of channels, as a session in another time zone sees it."""
    scan(connection, "s", CHANNELS, page)
    with connection.begin():
        connection.execute(text(f"SET TIME ZONE '{zone}'"))
        return stage.deduplicate(connection, pairs_of("s", CHANNELS), {}, None, "date_updated")


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Shanghai"])
def test_the_newest_time_of_what_is_staged_is_found(connection: Connection, zone: str) -> None:
    page = [{"sid": f"CH{n}", "date_updated": time} for n, time in enumerate(TIMES)]
    found = staged(connection, zone, page)[""]
    assert found.newest == datetime(2022, 2, 15, 9, 27, 15, 1, tzinfo=UTC)
    assert found.newest.utcoffset() == timedelta(0)


@pytest.mark.fault(37)
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Shanghai"])
@pytest.mark.parametrize("time", [None, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_times_that_stand_for_never_are_no_watermark(
    connection: Connection, zone: str, time: str | None
) -> None:
    page = [{"sid": "CH1", "date_updated": time}]
    assert staged(connection, zone, page) == {"": Staged(1, None)}


def test_the_newest_time_in_a_list_is_that_of_a_column(connection: Connection) -> None:
    page = [{"sid": f"CH{n}", "date_updated": time} for n, time in enumerate(TIMES)]
    (found,) = scan(connection, "s", CHANNELS, page).values()
    rows = CHANNELS.transform(Page(page, 1), 0).tables["twilio.channels"]
    place = 2 + tables.data_columns(TABLES["twilio.channels"]).index("date_updated")
    assert runs.newest_of(row[place] for row in rows) == found.newest
    assert runs.newest_of([None]) is runs.newest_of([]) is None


def test_each_scope_has_its_own_newest_time(connection: Connection) -> None:
    pairs = pairs_of("s", CONTACT_FLOWS)
    page = [{"ContactFlowId": n, "UpdatedTime": f"2021-03-08 0{n}:00:00.0"} for n in "123"]
    scan(connection, "s", CONTACT_FLOWS, page, scope="i1")
    table = pairs[0].stage
    with connection.begin():
        connection.execute(
            table.update().where(table.c.contact_flow_id == "3").values(instance_id="i2")
        )
        found = stage.deduplicate(connection, pairs, {}, "instance_id", "updated_time")
    assert found == {
        "i1": Staged(2, datetime(2021, 3, 7, 18, tzinfo=UTC)),
        "i2": Staged(1, datetime(2021, 3, 7, 19, tzinfo=UTC)),
    }


def test_a_run_that_is_recorded_already_stays_as_it_is(connection: Connection) -> None:
    """The answer to its COMMIT was lost, so the run tries to record a failure."""
    run = new_run(status="complete")
    with connection.begin():
        assert not runs.recorded(connection, "s", run.run_id)
    finish(connection, run, marks={"": at(3)}, rows=5)
    before = rows_of(connection, tables.runs), stream_row(connection)
    with connection.begin():
        assert runs.recorded(connection, "s", run.run_id)
        runs.finish(connection, replace(run, status="failed", error="connection lost"))
    assert (rows_of(connection, tables.runs), stream_row(connection)) == before


def test_missing_records_are_remembered_until_they_are_back_or_gone(
    connection: Connection,
) -> None:
    a, b, c = ("i", "a\"'%s"), ("i", "b"), ("j", "ü")
    with connection.begin():
        unlisted.note(connection, "s", "flows", "first", unlisted=[a, b, c])
        unlisted.note(connection, "t", "flows", "other", unlisted=[a])
        unlisted.note(connection, "s", "flows", "second", unlisted=[a], settled=[c])
    with connection.begin():
        found = unlisted_before(connection, "s", "flows", 2)
        assert found == ({a: "first", b: "first"}, [])
        assert unlisted_before(connection, "t", "flows", 2) == ({a: "other"}, [])
        assert unlisted_before(connection, "s", "channels", 2) == ({}, [])


def test_the_rows_of_the_stream_s_own_table_are_counted_per_source(connection: Connection) -> None:
    for source, size in (("s", 3), ("t", 2)):
        page = [
            {"flow_id": str(n), "entry_points": [{"entry_id": "a"}, {"entry_id": "b"}]}
            for n in range(size)
        ]
        load(connection, source, FLOWS, page, now=at(0))
    with connection.begin():
        assert runs.count(connection, "s", TABLES["zoom.entry_points"]) == 6
        assert runs.count(connection, "t", TABLES["zoom.flows"]) == 2


def reject(connection: Connection, run: Run, *found: Reject) -> None:
    with connection.begin():
        rejects.keep(connection, run.source, run.stream, run.run_id, found)


def test_a_reject_is_kept_once_with_when_it_was_first_and_last_seen(
    connection: Connection,
) -> None:
    first, second = new_run(), new_run()
    same = Reject("flow: flow_id is missing", {"b": 1, "a": [None]})
    reject(connection, first, same, same)
    (before,) = rows_of(connection, tables.rejects)
    assert before["run_id"] == first.run_id
    assert before["first_seen"] <= before["last_seen"]
    reject(connection, second, same, Reject("other", {"b": 1, "a": [None]}), Reject("other", "x"))
    rows = rows_of(connection, tables.rejects)
    assert len(rows) == 3
    (again,) = [row for row in rows if row["reason"] == same.reason]
    assert again["run_id"] == second.run_id
    assert again["first_seen"] == before["first_seen"]
    assert again["last_seen"] > before["last_seen"]
    assert again["payload"] == same.payload


def test_rejects_of_two_sources_and_streams_are_apart(connection: Connection) -> None:
    same = Reject("why", 1)
    for source, stream in (("s", "flows"), ("t", "flows"), ("s", "channels")):
        reject(connection, new_run(source, stream), same)
    assert len(rows_of(connection, tables.rejects)) == 3


@pytest.mark.every_postgres
def test_any_json_can_be_kept_as_a_reject(connection: Connection) -> None:
    deep: Any = "core"
    for _ in range(5000):
        deep = [deep]
    payloads: list[Any] = [
        None, True, 0, 1.5, 10**400, "", "text", [], {}, {"": None}, "'; DROP %s \\ 😀", deep
    ]  # fmt: skip
    reject(connection, new_run(), *(Reject("why", payload) for payload in payloads))
    with connection.begin():
        found = connection.execute(select(tables.rejects.c.payload)).scalars().all()
    assert len(found) == len(payloads)
    assert all(payload in found for payload in payloads[:-1])
    assert any("core" in str(payload) for payload in found)


def test_text_that_postgres_cannot_hold_is_kept_escaped(connection: Connection) -> None:
    reject(connection, new_run(), Reject("why", {"a\0": ["\ud800", "😀\0"]}))
    (row,) = rows_of(connection, tables.rejects)
    assert row["payload"] == {"a\\u0000": ["\\ud800", "😀\\u0000"]}


def test_no_rejects_are_no_rows(connection: Connection) -> None:
    reject(connection, new_run())
    assert rows_of(connection, tables.rejects) == []

"""Full or incremental: what a run reads, why, what it costs, and what it may remove."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from etl.sandbox.faults import Fault, altered
from etl.sandbox.server import Sandbox
from tests.postgres import ask, dsn
from tests.sync import truth
from tests.sync.conftest import Starter

CONTACT_FLOWS = "alibaba_demo.contact_flows"
CHANNELS = "twilio_demo.channels"
INSTANCE = "ccc-sandbox"
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


def contact_flow(number: int, **changes: Any) -> dict[str, Any]:
    time = f"{EPOCH + timedelta(minutes=20 * number):%Y-%m-%d %H:%M:%S}.0"
    return {
        "ContactFlowId": f"flow-{number:04}",
        "Name": f"Flow {number}",
        "Type": "MAIN_FLOW",
        "Definition": '{"activities": [{"id": "a", "type": "HANGUP", "properties": {}}]}',
        "NumberList": [f"400{number}"],
        "CreatedTime": time,
        "UpdatedTime": time,
        **changes,
    }


def edit(sandbox: Sandbox, count: int) -> None:
    """Edit the oldest `count` contact flows, one every twenty minutes."""
    for number in range(count):
        time = contact_flow(5000 + number)["UpdatedTime"]
        sandbox.alibaba.flows[INSTANCE].update(f"flow-{number:04}", Name="new", UpdatedTime=time)


def channel(number: int, **changes: Any) -> dict[str, Any]:
    time = f"{EPOCH + timedelta(minutes=number):%Y-%m-%dT%H:%M:%SZ}"
    return {"sid": f"CH{number:032}", "date_created": time, "date_updated": time, **changes}


def fill(sandbox: Sandbox, flows: int = 0, channels: int = 0) -> None:
    for number in range(flows):
        sandbox.alibaba.flows[INSTANCE].add(contact_flow(number))
    for number in range(channels):
        sandbox.twilio.channels.add(channel(number))


def ids(url: str) -> set[str]:
    return {row[0] for row in ask(url, "SELECT contact_flow_id FROM alibaba.contact_flows")}


def test_a_quiet_alibaba_instance_costs_one_request_and_changes_about_a_page_each(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, flows=850)
    store = sandbox.alibaba.flows[INSTANCE]
    run = sync(sandbox)
    first = run(CONTACT_FLOWS)
    assert (first.mode, first.reason) == ("full", "there was no complete full scan yet")
    assert (first.status, first.inserted) == ("complete", 850)

    quiet = run(CONTACT_FLOWS)
    assert (quiet.mode, quiet.status) == ("incremental", "complete")
    assert quiet.requests == len(sandbox.alibaba.flows)
    assert (quiet.rows_written, quiet.watermark_after) == (0, first.watermark_after)

    edit(sandbox, 250)
    store.add(contact_flow(900))
    changed = run(CONTACT_FLOWS)
    assert (changed.mode, changed.status) == ("incremental", "complete")
    assert (changed.inserted, changed.updated) == (1, 250)
    assert changed.requests <= 250 / 100 + 1 + len(sandbox.alibaba.flows)
    assert changed.watermark_after is not None
    assert first.watermark_after is not None
    assert changed.watermark_after > first.watermark_after
    assert truth.stored(warehouse) == truth.of(sandbox)


@pytest.mark.fault(20)
def test_a_deletion_shows_in_the_count_and_takes_two_full_runs(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, flows=250)
    store = sandbox.alibaba.flows[INSTANCE]
    run = sync(sandbox)
    run(CONTACT_FLOWS)
    kept = store.get("flow-0007")
    for key in ("flow-0007", "flow-0017"):
        store.delete(key)

    first = run(CONTACT_FLOWS)
    assert (first.mode, first.status, first.deleted, first.absent) == ("full", "complete", 0, 2)
    assert "the list has 248 rows, 250 are known" in str(first.reason)
    assert len(ids(warehouse)) == 250
    store.add(kept)

    second = run(CONTACT_FLOWS)
    assert (second.mode, second.deleted, second.absent) == ("full", 1, 0)
    assert ids(warehouse) == set(store.keys())
    assert ask(warehouse, "SELECT count(*) FROM etl.absences") == [(0,)]
    assert run(CONTACT_FLOWS).mode == "incremental"
    assert truth.stored(warehouse) == truth.of(sandbox)


def test_a_row_that_is_back_is_forgotten_as_missing_also_when_it_is_not_read(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    """The next deletion takes two runs again."""
    fill(sandbox, flows=250)
    store = sandbox.alibaba.flows[INSTANCE]
    run = sync(sandbox)
    run(CONTACT_FLOWS)
    record = store.get("flow-0007")
    store.delete("flow-0007")
    assert run(CONTACT_FLOWS).absent == 1
    store.add(record)
    assert run(CONTACT_FLOWS).mode == "incremental"  # it is old, so only the count shows it
    store.delete("flow-0007")
    result = run(CONTACT_FLOWS)
    assert (result.mode, result.deleted, result.absent) == ("full", 0, 1)


def test_a_deletion_behind_an_insert_is_not_hidden_by_the_count(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, flows=150)
    store = sandbox.alibaba.flows[INSTANCE]
    run = sync(sandbox)
    run(CONTACT_FLOWS)
    store.delete("flow-0003")
    store.add(contact_flow(500))
    assert run(CONTACT_FLOWS).mode == "full"
    assert run(CONTACT_FLOWS).deleted == 1
    assert ids(warehouse) == set(store.keys())


def test_rows_that_someone_took_out_of_the_table_are_read_again(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    """All flows of an instance are gone but its watermark stays: only the count shows it."""
    fill(sandbox, flows=150)
    run = sync(sandbox)
    run(CONTACT_FLOWS)
    with psycopg.connect(dsn(warehouse)) as connection:
        connection.execute("TRUNCATE alibaba.contact_flows CASCADE")
    result = run(CONTACT_FLOWS)
    assert (result.mode, result.status, result.inserted) == ("full", "complete", 150)
    assert truth.stored(warehouse) == truth.of(sandbox)


@pytest.mark.fault(43)
def test_a_silent_change_waits_for_the_next_full_scan(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, flows=150)
    run = sync(sandbox)
    run(CONTACT_FLOWS)
    sandbox.alibaba.flows[INSTANCE].update_silently("flow-0000", Published=True)
    assert run(CONTACT_FLOWS).rows_written == 0
    forced = run(CONTACT_FLOWS, full=True)
    assert (forced.mode, forced.reason, forced.updated) == ("full", "asked for", 1)
    assert truth.stored(warehouse) == truth.of(sandbox)


def test_a_full_scan_is_due_after_full_every(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, flows=3)
    run = sync(sandbox)
    run(CONTACT_FLOWS)
    assert run(CONTACT_FLOWS).mode == "incremental"
    with psycopg.connect(dsn(warehouse)) as connection:
        connection.execute("UPDATE etl.streams SET last_full_at = last_full_at - interval '25 h'")
    due = run(CONTACT_FLOWS)
    assert (due.mode, due.reason) == ("full", "the last complete full scan is older than 24 h")
    assert run(CONTACT_FLOWS).mode == "incremental"


def test_an_instance_that_is_new_or_empty_is_read_whole_among_incremental_ones(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, flows=150)
    empty = sandbox.alibaba.add_instance("ccc-empty")
    assert sync(sandbox)(CONTACT_FLOWS).status == "complete"
    run = sync(sandbox)
    quiet = run(CONTACT_FLOWS)
    assert (quiet.mode, quiet.requests) == ("incremental", len(sandbox.alibaba.flows))
    empty.add(contact_flow(1))
    added = sandbox.alibaba.add_instance("ccc-added")
    for number in range(120):
        added.add(contact_flow(number))
    result = sync(sandbox)(CONTACT_FLOWS)
    assert (result.mode, result.status, result.inserted) == ("incremental", "complete", 121)
    assert truth.stored(warehouse) == truth.of(sandbox)


def test_an_incomplete_run_moves_no_watermark_and_the_next_one_reads_it_all(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    """The newest page was kept and the next was not read, so that one must not be skipped later."""
    fill(sandbox, flows=400)
    run = sync(sandbox)
    before = run(CONTACT_FLOWS).watermark_after
    edit(sandbox, 250)
    sandbox.alibaba.faults.append(
        Fault(when=lambda r: r.params["PageNumber"] != "1", times=None, delivery="reset")
    )
    result = run(CONTACT_FLOWS)
    assert (result.status, result.mode, result.updated) == ("failed", "incremental", 100)
    assert (result.watermark_before, result.watermark_after) == (before, before)
    sandbox.alibaba.faults.clear()
    assert run(CONTACT_FLOWS).updated == 150
    assert truth.stored(warehouse) == truth.of(sandbox)


@pytest.mark.slow
@pytest.mark.fault(19)
def test_counts_that_never_add_up_are_incomplete(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, flows=150)
    run = sync(sandbox)
    before = run(CONTACT_FLOWS)
    sandbox.alibaba.flows[INSTANCE].delete("flow-0000")

    def more(page: dict[str, Any]) -> None:
        page["Data"]["TotalCount"] += 1

    sandbox.alibaba.faults.append(Fault(times=None, response=altered(more)))
    for _ in range(3):
        result = run(CONTACT_FLOWS, full=True)
        assert (result.status, result.error_kind) == ("incomplete", "incomplete_scan")
        assert (result.deleted, result.watermark_after) == (0, before.watermark_after)
    assert len(ids(warehouse)) == 150


@pytest.mark.fault(9)
def test_an_instance_that_is_suddenly_empty_loses_nothing(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, flows=150)
    other = sandbox.alibaba.add_instance("ccc-small")
    for number in range(4):
        other.add(contact_flow(number))
    run = sync(sandbox)
    run(CONTACT_FLOWS)
    other.clear()
    for _ in range(2):
        result = run(CONTACT_FLOWS)
        assert (result.status, result.error_kind) == ("incomplete", "safety_stop")
        assert "4 of 154 contact flows of alibaba_demo were not returned" in str(result.error)
    result = run(CONTACT_FLOWS, full=True, accept_deletes=True)
    assert (result.status, result.deleted) == ("complete", 4)
    assert len(ids(warehouse)) == 150


def test_channels_are_read_until_nothing_is_new_once_they_were_seen_to_come_newest_first(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, channels=5300)
    sandbox.twilio.paging = "offset/updated"
    run = sync(sandbox)
    first = run(CHANNELS)
    assert (first.mode, first.requests, first.inserted) == ("full", 6, 5300)
    assert ask(warehouse, "SELECT newest_first FROM etl.streams") == [(True,)]

    quiet = run(CHANNELS)
    assert (quiet.mode, quiet.status, quiet.requests) == ("incremental", "complete", 1)
    assert quiet.rows_written == 0

    for number in range(1500):
        sandbox.twilio.channels.update(f"CH{number:032}", task_sid="WT")
    sandbox.twilio.channels.add(channel(6000))
    changed = run(CHANNELS)
    assert (changed.mode, changed.inserted, changed.updated) == ("incremental", 1, 1500)
    assert changed.requests == 3
    assert truth.stored(warehouse)["twilio.channels"] == truth.of(sandbox)["twilio.channels"]


def test_a_page_of_known_channels_does_not_end_a_run_after_one_that_broke_off(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    """The interrupted run kept the first page; the new rows are on later ones."""
    fill(sandbox, channels=3300)
    sandbox.twilio.paging = "offset/updated"
    run = sync(sandbox)
    run(CHANNELS)
    for number in range(1500):
        sandbox.twilio.channels.update(f"CH{number:032}", task_sid="WT")
    second = Fault(when=lambda r: "PageToken" in r.params, times=None, delivery="reset")
    sandbox.twilio.faults.append(second)
    assert (run(CHANNELS).status, second.fired > 0) == ("failed", True)
    sandbox.twilio.faults.clear()
    assert run(CHANNELS).updated == 500
    assert truth.stored(warehouse)["twilio.channels"] == truth.of(sandbox)["twilio.channels"]


@pytest.mark.parametrize("paging", ["offset/created", "keyset"])
def test_channels_in_another_order_are_always_read_whole(
    paging: Any, sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, channels=2300)
    sandbox.twilio.channels.update(f"CH{7:032}", task_sid="WT")
    sandbox.twilio.paging = paging
    run = sync(sandbox)
    run(CHANNELS)
    sandbox.twilio.channels.update(f"CH{9:032}", task_sid="WT")
    result = run(CHANNELS)
    assert (result.mode, result.reason) == ("full", "the list did not come newest first")
    assert (result.updated, result.requests) == (1, 3)


def test_the_order_is_unlearned_by_the_next_full_scan(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, channels=1200)  # by creation, which is the order of modification as yet
    run = sync(sandbox)
    run(CHANNELS)
    assert run(CHANNELS).mode == "incremental"
    sandbox.twilio.channels.update(f"CH{9:032}", task_sid="WT")
    assert run(CHANNELS).updated == 0
    assert run(CHANNELS, full=True).updated == 1
    assert run(CHANNELS).mode == "full"


def test_the_treatment_of_unlisted_channels_is_configurable(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, channels=20)
    run = sync(sandbox)
    run(CHANNELS)
    for number in (3, 4):
        sandbox.twilio.channels.delete(f"CH{number:032}")
    kept = run(CHANNELS, full=True)
    assert (kept.status, kept.deleted, kept.absent) == ("complete", 0, 2)
    confirming = sync(sandbox, options={"channels": {"on_absent": "confirm"}})
    gone = confirming(CHANNELS, full=True)
    assert (gone.status, gone.deleted, gone.absent) == ("complete", 2, 0)


@pytest.mark.fault(20)
def test_a_row_that_comes_back_shows_its_gap(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, flows=30)
    store = sandbox.alibaba.flows[INSTANCE]
    run = sync(sandbox)
    run(CONTACT_FLOWS)
    record = store.get("flow-0009")
    store.delete("flow-0009")
    run(CONTACT_FLOWS)
    assert run(CONTACT_FLOWS).deleted == 1
    store.add(record)
    assert run(CONTACT_FLOWS).inserted == 1
    for table in ("contact_flows", "contact_flow_numbers", "contact_flow_activities"):
        rows = ask(
            warehouse,
            f"SELECT valid_from, valid_to, is_current FROM alibaba.{table}_history "
            "WHERE contact_flow_id = 'flow-0009' ORDER BY valid_from",
        )
        assert [row[2] for row in rows] == [False, True]
        assert rows[0][0] < rows[0][1] < rows[1][0]
        assert rows[1][1] is None
    assert truth.stored(warehouse) == truth.of(sandbox)


@pytest.mark.fault(20)
def test_a_flow_that_disappears_and_returns_is_deleted_in_one_run_and_back_with_its_gap(
    sync: Starter, full_sandbox: Sandbox, warehouse: str
) -> None:
    """One complete scan without it and a definite "not found" are enough; its history stays."""
    sandbox, flows = full_sandbox, full_sandbox.zoom.flows
    run = sync(sandbox)
    run("zoom_demo.flows")
    (flow_id, *_) = (
        str(record["flow_id"]) for record in flows.records() if record["flow_versions"]
    )
    record = flows.get(flow_id)
    flows.delete(flow_id)
    gone = run("zoom_demo.flows")
    assert (gone.status, gone.deleted) == ("complete", 1)
    flows.add(record)
    back = run("zoom_demo.flows")
    assert (back.status, back.inserted) == ("complete", 1)
    for table in ("flows", "flow_versions"):
        found = ask(
            warehouse,
            "SELECT count(*), count(*) FILTER (WHERE is_current), max(valid_to) < max(valid_from)"
            f" FROM zoom.{table}_history AS version WHERE flow_id = '{flow_id}'"
            " GROUP BY to_jsonb(version) - 'valid_from' - 'valid_to' - 'is_current'",
        )
        assert set(found) == {(2, 1, True)}, table
    assert run("zoom_demo.flows").rows_written == 0
    assert truth.stored(warehouse)["zoom.flows"] == truth.of(sandbox)["zoom.flows"]


@pytest.mark.slow
@pytest.mark.fault(42)
def test_a_time_of_change_that_goes_back_is_taken_as_it_is(
    sync: Starter, full_sandbox: Sandbox, warehouse: str
) -> None:
    """After a provider was restored from a backup the content decides, not the time."""
    sandbox = full_sandbox
    run = sync(sandbox)
    for name in ("zoom_demo.flows", CONTACT_FLOWS):
        run(name)
    marks = ask(warehouse, "SELECT source, watermark FROM etl.streams")
    zoom, (ccc, *_) = sandbox.zoom.flows, sandbox.alibaba.flows.values()
    zoom.update_silently(zoom.keys()[3], last_modified_time="2019-05-05T05:05:05Z")
    ccc.update_silently(ccc.keys()[3], UpdatedTime="2019-05-05 05:05:05.0", Name="restored")
    for name in ("zoom_demo.flows", CONTACT_FLOWS):
        again = run(name, full=True)
        assert (again.status, again.updated, again.deleted) == ("complete", 1, 0), again.error
    stored, there = truth.stored(warehouse), truth.of(sandbox)
    for table in ("zoom.flows", "alibaba.contact_flows"):
        assert stored[table] == there[table]
    # Nothing newer was proven to be gone: a watermark of a full scan is what that scan saw.
    assert [mark for _, mark in marks] == [
        mark for _, mark in ask(warehouse, "SELECT source, watermark FROM etl.streams")
    ]


@pytest.mark.slow
@pytest.mark.fault(55)
@pytest.mark.every_postgres
def test_a_run_without_changes_writes_no_row_and_uses_no_sequence_value(
    sync: Starter, full_sandbox: Sandbox, warehouse: str
) -> None:
    run = sync(full_sandbox)
    streams = ("zoom_demo.flows", "twilio_demo.flex_flows", CHANNELS, CONTACT_FLOWS)
    for name in streams:
        run(name)
    before = truth.versions(warehouse), ask(warehouse, "SELECT last_value FROM pg_sequences")
    for name in streams:
        assert run(name, full=True).rows_written == 0
    after = truth.versions(warehouse), ask(warehouse, "SELECT last_value FROM pg_sequences")
    assert after == before

"""A dry run reports exactly what a run would do, and leaves everything as it was."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from etl.errors import StoppedError
from etl.load.lease import acquire
from etl.load.runs import Run
from etl.providers.catalog import STREAMS
from etl.sandbox.exchange import json_response
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox
from etl.sync.job import Job, Reached
from etl.sync.outlook import Outlook
from etl.sync.run import run_stream
from etl.warehouse import tables
from etl.warehouse.connect import connect
from etl.warehouse.embedded import find_binaries
from tests.postgres import Cluster, ask, dsn
from tests.sync.checker import Contents, Environment, contents, open_environment, renderings
from tests.sync.conftest import Starter
from tests.sync.simulation import MODES, SourceSimulation
from tests.sync.test_incomplete import ZOOM, count, fill, flow

SCHEMAS = ("zoom", "twilio", "alibaba", "history", "callflow", "etl", "staging", "public")

HISTORIES = ("zoom/offset/updated", "twilio.flex_flows/keyset", "twilio.channels/offset/updated",
             "twilio.studio_flows/keyset", "alibaba/offset/updated",
             "alibaba.phone_numbers")  # fmt: skip


def dump(url: str) -> dict[str, Any]:
    """Return every row version of every table, and every sequence; of leases only whose they are.

    A lease is taken and given back, so its epoch and its end differ.
    """
    found: dict[str, Any] = {}
    with psycopg.connect(dsn(url), autocommit=True) as connection:
        names = connection.execute(
            "SELECT format('%%I.%%I', nspname, relname) FROM pg_class"
            " JOIN pg_namespace AS n ON n.oid = relnamespace"
            " WHERE nspname = ANY(%s) AND relkind = 'r'",
            [list(SCHEMAS)],
        )
        for (name,) in names.fetchall():
            what = "source, stream, until <= clock_timestamp()"
            what = what if name == "etl.leases" else "ctid, xmin, t::text"
            rows = connection.execute(f"SELECT {what} FROM {name} AS t").fetchall()
            found[name] = sorted(map(repr, rows))
        found["sequences"] = connection.execute(
            "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"
        ).fetchall()
    return found


class Ahead:
    """Runs a stream dry: returns the run and what it said, and checks that it left no trace."""

    def __init__(self, run: Callable[..., Run], url: str) -> None:
        self.run, self.url = run, url
        self.outlooks: list[Outlook] = []

    def __call__(self, **given: Any) -> tuple[Run, Outlook]:
        before = dump(self.url)
        self.outlooks.clear()
        run = self.run(dry_run=True, on_outlook=self.outlooks.append, **given)
        after = dump(self.url)
        assert after == before | {"etl.leases": after["etl.leases"]}
        assert all("True" in lease for lease in after["etl.leases"])  # they are all over
        return run, (self.outlooks or [Outlook(dry_run=True)])[0]


def same(dry: Run, real: Run) -> bool:
    """Return whether two runs say the same except when they were and what they asked for."""
    passing = {"run_id", "started_at", "finished_at", "requests", "retries", "throttled_seconds"}
    one, other = asdict(dry), asdict(real)
    return {**one, **dict.fromkeys(passing)} == {**other, **dict.fromkeys(passing)}


# -- random changes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(clusters: Callable[[Path], Cluster]) -> Iterator[Environment]:
    cluster = clusters(find_binaries(os.environ))
    with (
        cluster.database(template=cluster.migrated) as url,
        open_environment(url) as environment,
    ):
        yield environment


@pytest.mark.slow
@pytest.mark.parametrize("mode", HISTORIES)
def test_a_run_does_exactly_what_the_dry_run_before_it_said(
    environment: Environment, mode: str, seed: int
) -> None:
    environment.clear()
    simulation = SourceSimulation(environment.sandbox, MODES[mode], seed)
    stream, settings = (
        simulation.stream(),
        simulation.settings(environment.sources[MODES[mode].source]),
    )

    def run(**given: Any) -> Run:
        simulation.begin_run()
        job = Job(
            environment.engine, stream, settings, "test:1:unknown", clock=lambda: 0.0,
            sleep=lambda seconds: None, now=simulation.now, **given,
        )  # fmt: skip
        return run_stream(job)

    ahead = Ahead(run, environment.url)
    said: set[str] = set()
    for number in range(9):
        if number:
            simulation.clock.advance(50_000)
            simulation.churn(simulation.random.choice((0, 1, 6)))
        if number in (3, 6):
            simulation.delete(max(12, len(simulation.present()) // 2))
        given = {"full": simulation.random.random() < 0.4, "accept_deletes": number == 7}
        before = contents(environment.connection, settings.name, stream)
        dry, outlook = ahead(**given)
        simulation.run -= 1  # rows of one instant come in the same order again
        real = run(**given)
        assert same(dry, real), f"round {number}: {dry}\n{real}"
        if dry.status != "failed":
            check(outlook, real, before, contents(environment.connection, settings.name, stream),
                  stream.tables)  # fmt: skip
        said |= {
            name
            for name in ("new", "changed", "deleted", "missing", "unlisted")
            if getattr(outlook, name).total
        }
    assert {"new", "changed"} <= said
    assert MODES[mode].keeps or {"deleted", "missing", "unlisted"} <= said


def check(outlook: Outlook, run: Run, before: Contents, after: Contents, of: Any) -> None:
    """Compare what a dry run said with the tables before and after the run that followed."""
    columns = tables.data_columns(of[0])
    width = len(tables.key_columns(of[0]))
    old, new = renderings(before, width), renderings(after, width)
    changed = {key for key in old.keys() & new.keys() if old[key] != new[key]}
    fields = {}
    for key in changed:
        pair = before[0][key][0], after[0][key][0]
        own = [name for name, a, b in zip(columns, *pair, strict=True) if a != b]
        parts = zip(of[1:], old[key][1:], new[key][1:], strict=True)
        fields[key] = {*own, *(table.name for table, a, b in parts if a != b)}
    counts: dict[str, int] = {}
    for name in [name for each in fields.values() for name in each]:
        counts[name] = counts.get(name, 0) + 1
    assert outlook.new.total == run.inserted == len(new.keys() - old.keys())
    assert outlook.changed.total == run.updated == len(changed)
    assert outlook.deleted.total == run.deleted == len(old.keys() - new.keys())
    assert outlook.fields == counts
    assert {each.key for each in outlook.new.records} <= new.keys() - old.keys()
    assert {each.key for each in outlook.deleted.records} <= old.keys() - new.keys()
    assert all(fields[each.key] == set(each.fields) for each in outlook.changed.records)


# -- what is said ---------------------------------------------------------------------------------


def test_a_dry_run_names_what_it_would_change(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 130)
    run = sync(sandbox)
    ahead = Ahead(lambda **given: run(ZOOM, **given), warehouse)
    first, outlook = ahead()
    assert (first.status, first.inserted, outlook.new.total) == ("complete", 130, 130)
    assert len(outlook.new.records) == 100
    assert count(warehouse) == 0
    run(ZOOM)
    sandbox.zoom.flows.update("flow-0001", flow_name="Renamed", status="draft")
    sandbox.zoom.flows.update("flow-0002", entry_points=[])
    sandbox.zoom.flows.delete("flow-0003")
    sandbox.zoom.flows.add(flow(900, flow_name=None))
    _, outlook = ahead()
    assert [(each.id, each.name) for each in outlook.new.records] == [("flow-0900", None)]
    assert [(each.name, each.fields) for each in outlook.changed.records] == [
        ("Flow 2", ("entry_points", "last_modified_time")),
        ("Renamed", ("flow_name", "last_modified_time", "status")),
    ]
    counts = {"entry_points": 1, "flow_name": 1, "last_modified_time": 2, "status": 1}
    assert outlook.fields == counts
    for listing in (outlook.deleted, outlook.unlisted, outlook.confirmed):
        assert [each.name for each in listing.records] == ["Flow 3"]


@pytest.mark.parametrize(
    ("status", "result", "deleted"),
    [(403, ("complete", None), ["flow-0003"]), (500, ("incomplete", "undecided"), [])],
)
def test_what_the_provider_does_not_confirm_is_kept_and_said_to_be(
    sync: Starter,
    sandbox: Sandbox,
    warehouse: str,
    status: int,
    result: tuple[str, str | None],
    deleted: list[str],
) -> None:
    """Once it forbids to ask, a second full run confirms; after an error nothing is deleted."""
    fill(sandbox, 30)
    run = sync(sandbox)
    run(ZOOM)
    sandbox.zoom.flows.delete("flow-0003")
    sandbox.zoom.flows.delete("flow-0004")
    answer = json_response(status, {"code": status, "message": "no"})
    asked = "/v2/contact_center/flows/flow-0004"
    sandbox.zoom.faults.append(Fault(path=asked, times=None, response=answer))
    dry, outlook = Ahead(lambda **given: run(ZOOM, **given), warehouse)()
    assert (dry.status, dry.error_kind) == result
    assert [each.id for each in outlook.unlisted.records] == ["flow-0003", "flow-0004"]
    assert [each.id for each in outlook.confirmed.records] == ["flow-0003"]
    assert [each.id for each in outlook.deleted.records] == deleted
    assert same(dry, run(ZOOM))


def test_a_safety_stop_is_foreseen_and_what_would_be_deleted_without_it(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 50)
    run = sync(sandbox)
    run(ZOOM)
    sandbox.zoom.flows.clear()
    ahead = Ahead(lambda **given: run(ZOOM, **given), warehouse)
    dry, outlook = ahead()
    assert (dry.error_kind, outlook.missing.total, outlook.deleted.total) == ("safety_stop", 50, 0)
    dry, outlook = ahead(accept_deletes=True)
    assert (dry.status, outlook.missing.total, outlook.deleted.total) == ("complete", 0, 50)
    assert count(warehouse) == 50
    assert ask(warehouse, "SELECT count(*) FROM etl.absences") == [(0,)]


# -- what is left alone ---------------------------------------------------------------------------


def test_a_dry_run_keeps_the_place_of_a_scan_that_was_killed(
    sync: Starter, full_sandbox: Sandbox, warehouse: str
) -> None:
    """It reads the list from its start, and the next run goes on where the killed one was."""
    name = "twilio_demo.channels"
    run = sync(full_sandbox)
    stream = replace(STREAMS["twilio.channels"], batch=1)

    def end_at_the_last_page(reached: Reached) -> None:
        if reached.records > 2000:
            raise StoppedError("killed")

    with pytest.raises(StoppedError):  # as slow as this clock shows, the list is staged
        run(name, stream=stream, clock=lambda: 0.0, on_progress=end_at_the_last_page)
    assert ask(warehouse, "SELECT staged FROM etl.checkpoints") == [(2000,)]
    dry, outlook = Ahead(lambda **given: run(name, **given), warehouse)(stream=stream)
    assert (dry.status, outlook.new.total) == ("complete", 2300)
    assert dry.reason is None or "goes on" not in dry.reason
    real = run(name, stream=stream)
    assert real.reason is not None and "goes on after page" in real.reason
    assert (real.status, real.inserted) == ("complete", 2300)


def test_records_that_cannot_be_loaded_are_counted_and_not_kept(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 3)
    sandbox.zoom.flows.add({"flow_name": "no id"}, key="a")
    run = sync(sandbox)
    dry, _ = Ahead(lambda **given: run(ZOOM, **given), warehouse)()
    assert (dry.status, dry.error_kind, dry.rejected) == ("incomplete", "rejected_rows", 1)


def test_a_dry_run_of_a_stream_that_is_run_is_busy_and_not_recorded(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 3)
    run = sync(sandbox)
    engine = connect(warehouse)
    with engine.begin() as connection:
        acquire(connection, "zoom_demo", "flows", holder="elsewhere:1:unknown")
    engine.dispose()
    assert run(ZOOM, dry_run=True).status == "busy"
    assert ask(warehouse, "SELECT * FROM etl.runs") == []


def test_no_other_run_starts_while_a_dry_run_reads(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 3)
    run = sync(sandbox)
    states: list[str] = []

    def meanwhile(*_: object) -> None:
        if not states:
            states.append("")
            states[0] = run(ZOOM, holder="other:1:unknown").status

    sandbox.zoom.faults.append(Fault(path="/v2/contact_center/flows", before_request=meanwhile))
    assert run(ZOOM, dry_run=True).status == "complete"
    assert states == ["busy"]


def test_a_failed_dry_run_is_not_recorded(sync: Starter, sandbox: Sandbox, warehouse: str) -> None:
    run = sync(sandbox)
    sandbox.zoom.client_secret = "another one by now"
    dry, outlook = Ahead(lambda **given: run(ZOOM, **given), warehouse)()
    assert (dry.status, dry.error_kind) == ("failed", "credentials")
    totals = (outlook.new.total, outlook.deleted.total, outlook.unlisted.total)
    assert totals == (0, 0, 0)


@pytest.mark.parametrize("at", ["connection", "table"])
def test_a_dry_run_that_the_database_ends_says_so(
    sync: Starter, sandbox: Sandbox, warehouse: str, at: str
) -> None:
    fill(sandbox, 3)
    run = sync(sandbox)
    other = psycopg.connect(dsn(warehouse), autocommit=True)

    def end(*_: object) -> None:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND state = 'idle in transaction'"
        )

    if at == "connection":
        fault = Fault(path="/v2/contact_center/flows", before_request=end)
        sandbox.zoom.faults.append(fault)
    else:  # a table that the merge writes is gone
        other.execute("ALTER TABLE history.zoom_flows RENAME TO elsewhere")
    try:
        dry = run(ZOOM, dry_run=True)
    finally:
        if at == "table":
            other.execute("ALTER TABLE history.elsewhere RENAME TO zoom_flows")
        other.close()
    assert dry.status == "failed"
    assert "Traceback" not in str(dry.error) and "→" in str(dry.error)
    assert ask(warehouse, "SELECT * FROM etl.runs") == []
    assert run(ZOOM).inserted == 3

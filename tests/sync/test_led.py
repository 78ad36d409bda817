"""Runs of a daemon that lost its lead: they start nothing, record nothing and write nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text

from etl.errors import ContractError, StoppedError
from etl.load import lead
from etl.load import lease as leases
from etl.load.lease import Lease
from etl.sandbox.server import Sandbox
from etl.sync.job import Reached
from tests.postgres import ask

DAEMON, OTHER, PERSON = (f"{name}:1:elsewhere" for name in ("daemon", "other", "person"))

COLUMNS = {
    "zoom_demo.flows": ("zoom.flows", "flow_name"),
    "twilio_demo.channels": ("twilio.channels", "user_sid"),
    "twilio_demo.flex_flows": ("twilio.flex_flows", "friendly_name"),  # a short first load
}

Sync = Callable[..., Any]


def take(engine: Engine, process: str) -> Lease:
    with engine.begin() as connection:
        lease = lead.take(connection, process)
    assert lease is not None
    return lease


def depose(engine: Engine) -> None:
    """Let another daemon take the lead, as if the previous one had been stopped."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE etl.leases SET until = clock_timestamp() WHERE source = '*'")
        )
    take(engine, OTHER)


def recorded(engine: Engine) -> tuple[Any, Any]:
    return (
        ask(engine.url, "SELECT source, stream, status FROM etl.runs"),
        ask(engine.url, "SELECT source, stream FROM etl.streams"),
    )


def test_a_run_of_the_leader_is_like_any_other(
    sync: Sync, full_sandbox: Sandbox, engine: Engine
) -> None:
    led = take(engine, DAEMON)
    run = sync(full_sandbox)("zoom_demo.flows", leader=led, holder=DAEMON)
    assert (run.status, run.inserted) == ("complete", 230)
    assert recorded(engine)[0] == [("zoom_demo", "flows", "complete")]


@pytest.mark.parametrize("how", ["deposed", "ended"])
def test_a_run_of_a_daemon_that_lost_its_lead_does_not_start(
    sync: Sync, full_sandbox: Sandbox, engine: Engine, how: str
) -> None:
    led = take(engine, DAEMON)
    if how == "deposed":
        depose(engine)
    else:
        with engine.begin() as connection:
            leases.release(connection, led)
    run = sync(full_sandbox)
    with pytest.raises(StoppedError, match="does not lead any more"):
        run("zoom_demo.flows", leader=led, holder=DAEMON)
    assert not full_sandbox.zoom.requests
    assert recorded(engine) == ([], [])
    assert ask(engine.url, "SELECT source, stream FROM etl.leases") == [("*", "daemon")]


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("rows", ["first load", "later"])
def test_a_run_under_way_whose_daemon_is_deposed_writes_nothing(
    sync: Sync, full_sandbox: Sandbox, engine: Engine, name: str, rows: str
) -> None:
    run = sync(full_sandbox)
    table, column = COLUMNS[name]
    content = f"SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {table} AS t"
    if rows == "later":
        assert run(name).status == "complete"
        with engine.begin() as connection:  # there is something to mend
            connection.execute(text(f"UPDATE {table} SET {column} = 'x'"))
    before = (ask(engine.url, content), recorded(engine))
    led = take(engine, DAEMON)
    pages: list[int] = []

    def deposed(reached: Reached) -> None:
        if not pages:
            depose(engine)
        pages.append(reached.records)

    with pytest.raises(StoppedError, match="does not lead any more"):
        run(name, leader=led, holder=DAEMON, on_progress=deposed, full=True)
    assert pages
    assert (ask(engine.url, content), recorded(engine)) == before
    again = run(name, holder=PERSON, full=True)  # the stream is free at once
    assert (again.status, again.inserted + again.updated > 20) == ("complete", True)


def test_a_run_that_failed_without_the_lead_is_not_recorded(
    sync: Sync, full_sandbox: Sandbox, engine: Engine
) -> None:
    """It does not change what the next leader's run has recorded of the stream either."""
    led = take(engine, DAEMON)

    def deposed(reached: Reached) -> None:
        depose(engine)
        raise ContractError("an answer that makes no sense")

    with pytest.raises(StoppedError):
        sync(full_sandbox)("zoom_demo.flows", leader=led, holder=DAEMON, on_progress=deposed)
    assert recorded(engine) == ([], [])


@pytest.mark.parametrize("holder", [DAEMON, PERSON])
def test_a_leader_takes_a_lease_that_its_lost_worker_left_at_once(
    sync: Sync, full_sandbox: Sandbox, engine: Engine, holder: str
) -> None:
    led = take(engine, DAEMON)
    with engine.begin() as connection:
        left = leases.acquire(connection, "zoom_demo", "flows", holder=holder)
    run = sync(full_sandbox)("zoom_demo.flows", leader=led, holder=DAEMON)
    if holder == PERSON:
        assert (run.status, run.error_kind) == ("busy", "busy")
        return
    assert run.status == "complete"
    query = "SELECT epoch FROM etl.leases WHERE source = 'zoom_demo'"
    assert ask(engine.url, query) == [(left.epoch + 1,)]


def test_a_run_without_a_leader_waits_for_a_lease_of_its_own_holder_name(
    sync: Sync, full_sandbox: Sandbox, engine: Engine
) -> None:
    with engine.begin() as connection:
        leases.acquire(connection, "zoom_demo", "flows", holder=PERSON)
    assert sync(full_sandbox)("zoom_demo.flows", holder=PERSON).status == "busy"

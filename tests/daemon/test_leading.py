"""The state of the lead, a value that each function takes and returns."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from etl.daemon import leading
from etl.daemon.leading import RENEW_EVERY, Standing
from etl.load.lead import TTL_SECONDS
from etl.warehouse.connect import connect

HERE, THERE = "here:1:elsewhere", "there:1:elsewhere"


@pytest.fixture
def engine(warehouse: str) -> Iterator[Engine]:
    engine = connect(warehouse)
    try:
        yield engine
    finally:
        engine.dispose()


def after(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


TAKEN_OVER = f"UPDATE etl.leases SET holder = '{THERE}', epoch = epoch + 1 WHERE source = '*'"


def test_the_first_one_leads_and_renews_only_when_it_is_due(engine: Engine) -> None:
    first = leading.take_or_renew(leading.starting(100.0), engine, HERE, 101.0)
    assert (first.leader, first.renewed) == (HERE, 101.0)
    assert first.leads(101.0 + TTL_SECONDS)
    assert not first.leads(101.1 + TTL_SECONDS)
    soon = leading.take_or_renew(first, engine, HERE, 101.0 + RENEW_EVERY)
    assert soon == first
    later = leading.take_or_renew(soon, engine, HERE, 101.1 + RENEW_EVERY)
    assert (later.lease, later.renewed) == (first.lease, 101.1 + RENEW_EVERY)


def test_another_daemon_knows_which_one_leads(engine: Engine) -> None:
    leading.take_or_renew(leading.starting(0.0), engine, HERE, 0.0)
    other = leading.take_or_renew(leading.starting(50.0), engine, THERE, 50.0)
    assert (other.lease, other.leader, other.leads(50.0)) == (None, HERE, False)


def test_a_lead_that_was_taken_over_is_given_up(engine: Engine) -> None:
    first = leading.take_or_renew(leading.starting(0.0), engine, HERE, 0.0)
    after(engine, TAKEN_OVER)
    assert leading.take_or_renew(first, engine, HERE, 1.0).lease is first.lease  # not due yet
    then = leading.take_or_renew(first, engine, HERE, 1.0 + RENEW_EVERY)
    assert then.lease is None
    assert leading.take_or_renew(then, engine, HERE, 2.0 + RENEW_EVERY).leader == THERE


def test_a_warehouse_that_is_away_is_asked_less_often_until_it_answers() -> None:
    standing, waits = leading.starting(0.0), []
    for _ in range(7):
        standing = leading.lost(standing, "no answer", 1000.0)
        waits.append(standing.ask_at - 1000.0)
    assert waits == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert (standing.trouble, standing.failures, standing.answered) == ("no answer", 7, False)
    again = leading.answered(standing)
    assert again == Standing(0.0, 1015.0, 0.0, trouble=None, failures=0, answered=True)

"""What the pages of streams and runs read of the warehouse, and the last changes of all sources."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from etl.config.redact import Redactor
from etl.errors import WarehouseError
from etl.load import runs
from etl.load.runs import Outcome, Run
from etl.status import stories
from etl.status.missing import Missing
from etl.status.stories import Rejected, StreamStory
from etl.warehouse.connect import connect
from tests.test_queries import prepare

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PLAIN = Redactor()


@pytest.fixture
def engine(warehouse: str) -> Iterator[Engine]:
    engine = connect(warehouse)
    event.listen(engine, "connect", prepare)
    try:
        yield engine
    finally:
        engine.dispose()


def record(engine: Engine, name: str, provider: str, **given: Any) -> Run:
    """Record a run that started a minute ago by the clock of the database."""
    source, stream = name.split(".")
    with engine.begin() as connection:
        now = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        values: dict[str, Any] = {"status": "complete", **given}
        run = Run(f"{name}-{now:%M%S%f}", source, stream, "full", now - MINUTE, **values)
        return runs.finish(connection, run, Outcome(1), provider)


def execute(engine: Engine, statement: str, **given: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), given)


def changed(
    engine: Engine, source: str, provider: str, entity: str, ago: timedelta, field: str = "name"
) -> None:
    execute(
        engine,
        """INSERT INTO history.changes (source, provider, flow_id, flow_name, entity, observed_at,
            change, field, old_value, new_value)
        VALUES (:source, :provider, 'f1', 'Billing', :entity, clock_timestamp() - :ago, 'updated',
            :field, 'a', 'b')""",
        source=source, provider=provider, entity=entity, ago=ago, field=field,
    )  # fmt: skip


# --- the last changes -----------------------------------------------------------------------------
def test_the_last_changes_are_those_of_all_sources_newest_first(engine: Engine) -> None:
    for number, source in enumerate(("a", "b", "c")):
        changed(engine, source, "zoom", "flow", number * timedelta(days=400))
    assert [row["source"] for row in stories.latest(engine, 2, PLAIN)] == ["a", "b"]
    assert [row["source"] for row in stories.latest(engine, 9, PLAIN)] == ["a", "b", "c"]


# --- a stream -------------------------------------------------------------------------------------
def test_a_stream_that_is_not_known_has_no_story(engine: Engine) -> None:
    assert stories.of_stream(engine, "a", "flows", PLAIN) == StreamStory([], [], 0, [], [])
    assert stories.of_stream(engine, "a\0", "flows", PLAIN) == StreamStory()


def test_what_a_stream_misses_has_its_name_and_since_when(engine: Engine) -> None:
    record(engine, "a.flows", "zoom")
    for source, flow_id, name in (("a", "f1", "Billing"), ("b", "f1", "not it"), ("a", "f2", None)):
        execute(
            engine,
            "INSERT INTO zoom.flows (source, flow_id, flow_name, valid_from)"
            " VALUES (:source, :flow_id, :name, now())",
            source=source, flow_id=flow_id, name=name,
        )  # fmt: skip
    keys = ('["f1"]', '["f2"]', '["gone"]', "no key")
    for number, key in enumerate(keys):
        since = NOON + number * MINUTE
        execute(
            engine, "INSERT INTO etl.absences VALUES ('a', 'flows', :key, 'x', :since)",
            key=key, since=since,
        )  # fmt: skip
    execute(engine, """INSERT INTO etl.absences VALUES ('b', 'flows', '["f1"]', 'x', now())""")
    found = stories.of_stream(engine, "a", "flows", PLAIN)
    assert found.missing_count == 2
    assert found.missing == [
        Missing("f1", "Billing", NOON, None),
        Missing("f2", None, NOON + MINUTE, None),
    ]


def test_a_key_of_several_columns_finds_its_name(engine: Engine) -> None:
    record(engine, "a.contact_flows", "alibaba")
    for instance, name in (("i1", "one"), ("i2", "two")):
        execute(
            engine,
            """INSERT INTO alibaba.contact_flows (source, instance_id, contact_flow_id, name,
                valid_from) VALUES ('a', :instance, 'f', :name, now())""",
            instance=instance, name=name,
        )  # fmt: skip
    for key in ('["i2", "f"]', '["i1", "f"]'):
        execute(
            engine, "INSERT INTO etl.absences VALUES ('a', 'contact_flows', :key, 'x', :since)",
            key=key, since=NOON,
        )  # fmt: skip
    found = stories.of_stream(engine, "a", "contact_flows", PLAIN).missing
    assert [(each.id, each.name) for each in found] == [("i1/f", "one"), ("i2/f", "two")]


def test_rejects_are_counted_by_reason_without_secrets(engine: Engine) -> None:
    for number, (reason, run) in enumerate((("no id", "x"), ("hunter22", "x"), ("no id", "y"))):
        execute(
            engine,
            """INSERT INTO etl.rejects (source, stream, digest, run_id, reason, payload,
                first_seen, last_seen)
            VALUES ('a', 'flows', :digest, :run, :reason, '{}', :seen, :seen)""",
            digest=str(number), run=run, reason=reason, seen=NOON + number * MINUTE,
        )  # fmt: skip
    found = stories.of_stream(engine, "a", "flows", Redactor({"hunter22"})).rejects
    assert found == [Rejected("no id", 2, NOON + 2 * MINUTE), Rejected("…", 1, NOON + MINUTE)]


# --- a run ----------------------------------------------------------------------------------------
def test_a_run_is_found_by_its_id_alone(engine: Engine) -> None:
    made = [record(engine, f"{source}.flows", "zoom", error="hunter22") for source in "abc"]
    found = stories.of_run(engine, made[1].run_id, Redactor({"hunter22"}))
    assert found is not None
    assert (found.run.source, found.run.error, found.changes) == ("b", "…", [])
    assert found.run.started_at == made[1].started_at
    for unknown in ("", "x", "\0", made[1].run_id.upper()):
        assert stories.of_run(engine, unknown, PLAIN) is None


def test_a_run_has_what_changed_meanwhile_of_what_its_stream_holds(engine: Engine) -> None:
    ago = timedelta(seconds=20)
    changed(engine, "a", "twilio", "flow", ago)
    changed(engine, "a", "twilio", "entry_point", ago)  # of another list of the source
    changed(engine, "a", "twilio", "flow", 2 * MINUTE, "before it")
    changed(engine, "b", "twilio", "flow", ago)
    made = record(engine, "a.studio_flows", "twilio", updated=1)
    changed(engine, "a", "twilio", "flow", timedelta(0), "after it")
    found = stories.of_run(engine, made.run_id, PLAIN)
    assert found is not None
    assert [(row["entity"], row["field"]) for row in found.changes] == [("flow", "name")]
    idle = record(engine, "a.studio_flows", "twilio")
    empty = stories.of_run(engine, idle.run_id, PLAIN)
    assert empty is not None
    assert empty.changes == []


def test_a_database_that_hangs_is_not_waited_for(engine: Engine) -> None:
    record(engine, "a.flows", "zoom")
    with engine.begin() as blocker:
        blocker.exec_driver_sql("LOCK TABLE etl.absences IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(WarehouseError):
            stories.of_stream(engine, "a", "flows", PLAIN)

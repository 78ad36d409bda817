"""Values in the bookkeeping that were written by hand, or are damaged, are not trusted."""

import json
from random import Random
from typing import Any

import psycopg
import pytest

from etl.config.redact import Redactor
from etl.sandbox.server import Sandbox
from etl.status import queries
from etl.sync.proof import Scan, Scope
from etl.sync.resume import scan_of, state_of
from etl.warehouse.connect import connect
from tests.postgres import ask, dsn
from tests.sync import truth
from tests.sync.conftest import Starter
from tests.sync.test_modes import CHANNELS, CONTACT_FLOWS, INSTANCE, fill

pytestmark = pytest.mark.slow

ZOOM = "zoom_demo.flows"

MARKS = [
    "[]",
    "[1, null]",
    '"2026-01-01T00:00:00+00:00"',
    "17",
    "true",
    '{"%s": 5}',
    '{"%s": ["2026-01-01T00:00:00+00:00"]}',
    '{"%s": {"a": null}}',
    '{"%s": ""}',
    '{"%s": "yesterday"}',
    '{"%s": "2026-01-01T00:00:00"}',
    '{"%s": "2026-02-30T00:00:00+00:00"}',
    '{"%s": "0001-01-01T00:00:00+14:00"}',
    '{"%s": "0001-06-01T00:00:00+00:00"}',
    '{"%s": "9999-12-31T23:59:59-14:00"}',
    '{"%s": "10000-01-01T00:00:00+00:00"}',
    '{"unknown": false, "%s": "2024-01-01T00:00:00+00:00"}',
]


def write(url: str, statement: str, *values: object) -> None:
    with psycopg.connect(dsn(url), autocommit=True) as connection:
        connection.execute(statement.encode(), values)


def test_unreadable_watermarks_make_the_next_run_read_the_whole_list(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, flows=130, channels=20)
    run = sync(sandbox)
    for name, scope in ((CONTACT_FLOWS, INSTANCE), (CHANNELS, "")):
        run(name)
        sound = ask(warehouse, "SELECT watermarks::text FROM etl.streams WHERE rows > 0")
        for marks in MARKS if name == CONTACT_FLOWS else MARKS[::5]:
            write(warehouse, "UPDATE etl.streams SET watermarks = %s", marks.replace("%s", scope))
            again = run(name)
            assert (again.mode, again.status, again.rows_written) == ("full", "complete", 0), marks
            assert again.reason == "what etl.streams holds in watermarks cannot be read"
            found = ask(warehouse, "SELECT watermarks::text FROM etl.streams WHERE rows > 0")
            assert found == sound, marks
        assert run(name).mode == "incremental"
        write(warehouse, "DELETE FROM etl.streams")


@pytest.mark.parametrize("column", ["watermark", "read_at", "changed_at", "last_full_at"])
def test_unreadable_times_make_the_next_run_read_the_whole_list(
    sync: Starter, sandbox: Sandbox, warehouse: str, column: str
) -> None:
    fill(sandbox, flows=30)
    run = sync(sandbox)
    run(CONTACT_FLOWS)
    for time in ("infinity", "-infinity", "0001-01-01 BC", "0001-01-01", "294276-01-01"):
        write(warehouse, f"UPDATE etl.streams SET {column} = %s", time)
        engine = connect(warehouse)
        with engine.connect() as connection:
            queries.recorded(connection, Redactor())
        engine.dispose()
        sandbox.alibaba.flows[INSTANCE].update_silently("flow-0003", Name=f"at {time}")
        again = run(CONTACT_FLOWS)
        assert (again.mode, again.status, again.updated) == ("full", "complete", 1), time
        assert again.reason == f"what etl.streams holds in {column} cannot be read"
        assert ask(warehouse, "SELECT FROM alibaba.contact_flows WHERE valid_from > now()") == []
    assert run(CONTACT_FLOWS).mode == "incremental"
    assert truth.stored(warehouse) == truth.of(sandbox)


def test_scopes_that_are_not_configured_any_more_do_no_harm(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, flows=30)
    run = sync(sandbox)
    run(CONTACT_FLOWS)
    marks = """'{"elsewhere": "2030-01-01T00:00:00+00:00", "never": null}'"""
    write(warehouse, f"UPDATE etl.streams SET watermarks = watermarks || {marks}")
    again = run(CONTACT_FLOWS)
    assert (again.mode, again.status, again.rows_written) == ("incremental", "complete", 0)


def test_absences_that_are_no_keys_are_left_out_and_forgotten(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    """None of them lets a record be deleted that only one run has missed."""
    fill(sandbox, flows=30)
    run = sync(sandbox)
    run(CONTACT_FLOWS)
    store = sandbox.alibaba.flows[INSTANCE]
    kept = json.dumps([INSTANCE, "flow-0007"])
    odd = ["", "no JSON", "null", "7", "{}", '"flow-0007"', "[]", '["flow-0007"]', "[[1], {}]",
           f'["{INSTANCE}", 7]', f'["{INSTANCE}",  "flow-0007"]', "[" * 5000,
           f'["{INSTANCE}", "flow-0007", "more"]']  # fmt: skip
    for key in odd[:-2]:
        write(
            warehouse,
            "INSERT INTO etl.absences VALUES ('alibaba_demo', 'contact_flows', %s, 'x', now())",
            key,
        )
    store.delete("flow-0007")
    missed = run(CONTACT_FLOWS, full=True)
    assert (missed.status, missed.deleted) == ("complete", 0)
    assert missed.reason == f"asked for; {len(odd) - 2} rows of etl.absences cannot be read"
    assert ask(warehouse, "SELECT key FROM etl.absences") == [(kept,)]
    again = run(CONTACT_FLOWS, full=True)
    assert (again.deleted, again.reason) == (1, "asked for")


def test_no_damaged_json_is_taken_for_an_interrupted_scan(seed: int) -> None:
    random = Random(seed)
    scopes = {"": Scope(pages=3, received=9, unkeyed=1)}
    saved = Scan(pages=3, received=9, scopes=scopes)
    sound = state_of(saved)
    assert scan_of(json.loads(json.dumps(sound))) == saved
    odd: list[Any] = [None, [], {}, 1, "x", True, -1, 1.5, 10**30, "2026-01-01", [sound], {"": 3}]
    assert all(scan_of(value) is None for value in odd)
    for _ in range(300):
        name, value = random.choice([*sound]), random.choice(odd)
        restored = scan_of({**sound, name: value})
        assert restored is None or state_of(restored)[name] == value
        assert scan_of({key: each for key, each in sound.items() if key != name}) is None

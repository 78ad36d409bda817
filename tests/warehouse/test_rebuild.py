"""The log of changes, written by merges, equals the one that is made of the histories.

HISTORIES=500 plays 500 of them; CALLFLOW_TEST_SEED=… repeats them.
"""

import os
from random import Random

import psycopg
import pytest
from sqlalchemy import Engine, text

from etl.sync.rebuild import rebuild_changes
from tests.postgres import EMPTY, dsn
from tests.warehouse.merges import log_of, play

pytestmark = pytest.mark.slow

HISTORIES = int(os.environ.get("HISTORIES", "8"))
MOST = HISTORIES + 200
STEPS = 20

MOVES = """SELECT count(*) FROM callflow.changes AS was JOIN callflow.changes AS now
    USING (provider, source, entity, entity_id, observed_at)
    WHERE entity = 'entry_point' AND was.change = 'deleted' AND was.flow_id <> now.flow_id
        AND now.change IN ('created', 'restored')"""
"""How often what leads to a flow left it for another one."""

CHANGES = "provider, source, account_id, flow_id, flow_name, entity, entity_id, entity_name,"
CHANGES += " observed_at, modified_at, modified_by, change, field, old_value, new_value"


@pytest.fixture
def engine(emptied: Engine) -> Engine:
    return emptied


def test_a_log_that_is_rebuilt_equals_the_one_that_was_written(engine: Engine, seed: int) -> None:
    """HISTORIES of them; and more, until each kind of change has been seen."""
    unseen = {
        (entity, change)
        for entity in ("flow", "flow_version", "entry_point", "step", "step_link")
        for change in ("created", "updated", "deleted", "restored")
    }
    fields, moves, number = {"saved", "definition", "extra", "properties"}, 0, 0
    while number < HISTORIES or unseen or fields or not moves:
        assert number < MOST, f"{number} histories, and never one of {unseen}, {fields}, or a move"
        with psycopg.connect(
            dsn(engine.url.render_as_string(hide_password=False)), autocommit=True
        ) as session:
            session.execute(EMPTY)
        with engine.connect() as connection:
            for _ in play(connection, Random(f"{seed} {number}"), STEPS):
                pass
            with connection.begin():
                written = log_of(connection)
                assert rebuild_changes(connection) == len(written)
                rebuilt = log_of(connection)
            assert rebuilt == written, f"history {number} of seed {seed}"
            with connection.begin():
                found = connection.execute(
                    text(
                        "SELECT DISTINCT entity, change, regexp_replace(field, '[.].*', '')"
                        " FROM callflow.changes"
                    )
                ).all()
                moves += connection.execute(text(MOVES)).scalar_one()
        unseen -= {(entity, change) for entity, change, _ in found}
        fields -= {field for _, _, field in found}
        number += 1


def test_between_two_neighbouring_instants_flow_diff_finds_what_was_logged(
    engine: Engine, seed: int
) -> None:
    with engine.connect() as connection:
        instants = list(play(connection, Random(seed), 2 * STEPS))
        with connection.begin():
            flows = connection.execute(
                text("SELECT DISTINCT source, flow_id, observed_at FROM callflow.changes")
            ).all()
            for source, flow_id, now in flows:
                given = {"source": source, "flow_id": flow_id, "now": now}
                given["before"] = instants[instants.index(now) - 1]
                logged = connection.execute(
                    text(
                        f"SELECT {CHANGES} FROM callflow.changes WHERE source = :source"
                        " AND flow_id = :flow_id AND observed_at = :now"
                    ),
                    given,
                ).all()
                differing = connection.execute(
                    text(
                        f"SELECT {CHANGES} FROM callflow.flow_diff(:source, :flow_id, :before,"
                        " :now) WHERE account_id IS NULL OR account_id IN (SELECT account_id"
                        " FROM callflow.changes WHERE source = :source AND flow_id = :flow_id"
                        " AND observed_at = :now)"
                    ),
                    given,
                ).all()
                assert sorted(map(tuple, differing), key=repr) == sorted(
                    map(tuple, logged), key=repr
                ), given
    assert len(flows) > 5

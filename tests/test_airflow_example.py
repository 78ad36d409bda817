"""examples/airflow: the DAG runs, by `dag.test()`, where there is an Airflow.

It is no dependency of ours: CALLFLOW_AIRFLOW_PYTHON names the interpreter of an environment that
has Airflow 3 and callflow (pip install apache-airflow -e '.[embedded]').
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from tests.orchestrated import EXAMPLES, Example, busy_until_seen
from tests.postgres import ask
from tests.sync import truth
from tests.sync.truth import STREAMS

PYTHON = os.environ.get("CALLFLOW_AIRFLOW_PYTHON", "")

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(
        not PYTHON, reason="CALLFLOW_AIRFLOW_PYTHON names no interpreter that has Airflow"
    ),
]


RUN = """
import json, sys
from datetime import timedelta
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
(dag,) = bag.dags.values()
task = dag.get_task("sync")
task.partial_kwargs["retry_delay"] = timedelta(seconds=1)
task.partial_kwargs["retry_exponential_backoff"] = False
run = dag.test()
found = {}
for each in run.get_task_instances():
    if each.task_id == "sync":
        pulled = each.xcom_pull(task_ids="sync", map_indexes=each.map_index)
        found[each.rendered_map_index] = {
            "state": each.state, "tries": each.try_number, "pool": each.pool, "pulled": pulled,
        }
print("FOUND " + json.dumps({"state": run.state, "sync": found}))
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(12, 40), seed=5) as running:
        yield running


@pytest.fixture
def example(sandbox: Sandbox, warehouse: str, tmp_path: Path) -> Example:
    env = {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    example = Example(PYTHON, "airflow", RUN, env, tmp_path, warehouse, sandbox)
    example.call("-m", "airflow", "db", "migrate")
    return example


def test_the_dag_syncs_every_stream_and_fails_where_a_stream_does(
    example: Example, sandbox: Sandbox, warehouse: str
) -> None:
    found, log = example.run()
    assert found["state"] == "success", log
    states = {name: each["state"] for name, each in found["sync"].items()}
    assert states == dict.fromkeys(STREAMS, "success")
    assert {each["pool"] for each in found["sync"].values()} == {"callflow"}
    (pulled,) = found["sync"]["zoom_demo.flows"]["pulled"]
    assert (pulled["status"], pulled["inserted"]) == ("complete", 12)
    stored = truth.stored(warehouse)
    assert stored == truth.of(sandbox, stored)

    sandbox.zoom.client_secret = "another one by now"
    with busy_until_seen(warehouse, "twilio_demo", "channels"):
        found, log = example.run()
    assert found["state"] == "failed", log
    ended = {name: (each["state"], each["tries"]) for name, each in found["sync"].items()}
    assert ended == {
        **dict.fromkeys(STREAMS, ("success", 1)),
        "zoom_demo.flows": ("failed", 1),
        "twilio_demo.channels": ("success", 2),
    }
    ((error,),) = ask(warehouse, "SELECT error FROM etl.runs WHERE status = 'failed'")
    assert "→" in error and f"AirflowFailException: failed: {error}" in log
    assert "sandbox-zoom-secret" not in log
    ran = "SELECT stream, status FROM etl.runs WHERE status <> 'complete' ORDER BY 1"
    assert ask(warehouse, ran) == [("channels", "busy"), ("flows", "failed")]

"""examples/airflow: the DAG runs, by `dag.test()`, where there is an Airflow.

It is no dependency of ours: CALLFLOW_AIRFLOW_PYTHON names the interpreter of an environment that
has Airflow 3 and callflow (pip install apache-airflow -e '.[embedded]').
"""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.load import lease as leases
from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from etl.warehouse.connect import connect
from tests.postgres import ask, dsn
from tests.sync import truth
from tests.sync.truth import STREAMS

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "airflow"
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

Run = Callable[[], tuple[dict[str, Any], str]]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(12, 40), seed=5) as running:
        yield running


@pytest.fixture
def run(sandbox: Sandbox, warehouse: str, tmp_path: Path) -> Run:
    """Return a function that runs the DAG once and returns its result and the log."""
    config = tmp_path / "callflow.toml"
    config.write_text(f'[warehouse]\nurl = "{dsn(warehouse)}"\n{sandbox.toml()}', encoding="utf-8")
    config.chmod(0o600)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLE),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "CALLFLOW_CONFIG": str(config),
    }

    def python(*words: str) -> str:
        done = subprocess.run(
            [PYTHON, *words], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    python("-m", "airflow", "db", "migrate")

    def once() -> tuple[dict[str, Any], str]:
        log = python("-c", RUN, str(EXAMPLE))
        (line,) = [line for line in log.splitlines() if line.startswith("FOUND ")]
        return json.loads(line.removeprefix("FOUND ")), log

    return once


def test_the_dag_syncs_every_stream_and_fails_where_a_stream_does(
    run: Run, sandbox: Sandbox, warehouse: str
) -> None:
    found, log = run()
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
        found, log = run()
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


@contextmanager
def busy_until_seen(url: str, source: str, stream: str) -> Iterator[None]:
    """Hold the lease of that stream until a run has found it taken."""
    engine = connect(url)
    with engine.begin() as connection:
        lease = leases.acquire(
            connection, source, stream, holder="elsewhere:1:unknown", ttl=timedelta(hours=1)
        )
    over = threading.Event()

    def release() -> None:
        while not over.wait(0.1):
            with engine.begin() as connection:
                if connection.exec_driver_sql("SELECT FROM etl.runs WHERE status = 'busy'").all():
                    leases.release(connection, lease)
                    return

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        engine.dispose()

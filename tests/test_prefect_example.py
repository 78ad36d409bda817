"""examples/prefect: the flow runs, with its own server, where there is a Prefect.

It is no dependency of ours: CALLFLOW_PREFECT_PYTHON names the interpreter of an environment that
has Prefect 3 and callflow (pip install prefect -e .).
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from tests.orchestrated import Example, busy_until_seen
from tests.postgres import ask
from tests.sync import truth
from tests.sync.truth import STREAMS

PYTHON = os.environ.get("CALLFLOW_PREFECT_PYTHON", "")

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(
        not PYTHON, reason="CALLFLOW_PREFECT_PYTHON names no interpreter that has Prefect"
    ),
]

RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import callflow_flow as example
example.sync.retry_delay_seconds = 1
state = example.callflow(return_state=True)
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    runs = client.read_task_runs()
tasks = {
    run.name: {"state": run.state_name, "tries": run.run_count} for run in runs
    if run.flow_run_id == state.state_details.flow_run_id
}
for each in state.result(raise_on_failure=False):
    value = each.result(raise_on_failure=False)
    if isinstance(value, list):
        (one,) = value
        tasks[one["source"] + "." + one["stream"]]["result"] = one
print("FOUND " + json.dumps({"state": state.name, "tasks": tasks}))
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(12, 40), seed=5) as running:
        yield running


@pytest.fixture
def example(sandbox: Sandbox, warehouse: str, tmp_path: Path) -> Example:
    env = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    return Example(PYTHON, "prefect", RUN, env, tmp_path, warehouse, sandbox)


def test_the_flow_syncs_every_stream_and_fails_where_a_stream_does(
    example: Example, sandbox: Sandbox, warehouse: str
) -> None:
    found, log = example.run()
    assert found["state"] == "Completed", log
    ended = {name: (each["state"], each["tries"]) for name, each in found["tasks"].items()}
    assert ended == dict.fromkeys(STREAMS, ("Completed", 1))
    result = found["tasks"]["zoom_demo.flows"]["result"]
    assert (result["status"], result["inserted"]) == ("complete", 12)
    stored = truth.stored(warehouse)
    assert stored == truth.of(sandbox, stored)

    sandbox.zoom.client_secret = "another one by now"
    with busy_until_seen(warehouse, "twilio_demo", "channels"):
        found, log = example.run()
    assert found["state"] == "Failed", log
    assert {name: (each["state"], each["tries"]) for name, each in found["tasks"].items()} == {
        **dict.fromkeys(STREAMS, ("Completed", 1)),
        "zoom_demo.flows": ("Failed", 1),
        "twilio_demo.channels": ("Completed", 2),
    }
    ((error,),) = ask(warehouse, "SELECT error FROM etl.runs WHERE status = 'failed'")
    assert "→" in error and f"failed: {error}" in log
    assert "sandbox-zoom-secret" not in log

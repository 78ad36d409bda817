"""examples/dagster: the assets materialize, in one process, where there is a Dagster.

It is no dependency of ours: CALLFLOW_DAGSTER_PYTHON names the interpreter of an environment that
has Dagster and callflow (pip install dagster -e .).
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

PYTHON = os.environ.get("CALLFLOW_DAGSTER_PYTHON", "")

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(
        not PYTHON, reason="CALLFLOW_DAGSTER_PYTHON names no interpreter that has Dagster"
    ),
]

RUN = """
import json, sys
import dagster as dg
sys.path.insert(0, sys.argv[1])
import callflow_assets as example
assert example.defs.resolve_job_def("callflow") and len(list(example.defs.schedules)) == 1
assert {each.key.to_user_string() for each in example.defs.assets} == {
    "callflow/" + name.replace(".", "/") for name in example.api.streams()
}
result = dg.materialize(
    [example.asset_of(name, delay=0.5) for name in example.api.streams()],
    instance=dg.DagsterInstance.get(), raise_on_error=False,
)
found = {}
for step in result.all_events:
    if step.event_type_value in ("STEP_SUCCESS", "STEP_FAILURE", "STEP_UP_FOR_RETRY"):
        name = step.node_name.removeprefix("callflow__").replace("__", ".")
        found.setdefault(name, {"events": [], "metadata": {}})["events"].append(
            step.event_type_value
        )
    if step.event_type_value == "ASSET_MATERIALIZATION":
        name = step.node_name.removeprefix("callflow__").replace("__", ".")
        found.setdefault(name, {"events": [], "metadata": {}})["metadata"] = {
            key: value.value for key, value in step.materialization.metadata.items()
        }
print("FOUND " + json.dumps({"success": result.success, "assets": found}))
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(12, 40), seed=5) as running:
        yield running


@pytest.fixture
def example(sandbox: Sandbox, warehouse: str, tmp_path: Path) -> Example:
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    env = {"DAGSTER_HOME": str(tmp_path / "dagster")}
    return Example(PYTHON, "dagster", RUN, env, tmp_path, warehouse, sandbox)


def test_the_assets_are_the_streams_and_fail_where_a_stream_does(
    example: Example, sandbox: Sandbox, warehouse: str
) -> None:
    found, log = example.run()
    assert found["success"], log
    events = {name: each["events"] for name, each in found["assets"].items()}
    assert events == {name: ["STEP_SUCCESS"] for name in STREAMS}
    metadata = found["assets"]["zoom_demo.flows"]["metadata"]
    assert (metadata["status"], metadata["inserted"]) == ("complete", 12)
    stored = truth.stored(warehouse)
    assert stored == truth.of(sandbox, stored)

    sandbox.zoom.client_secret = "another one by now"
    with busy_until_seen(warehouse, "twilio_demo", "channels"):
        found, log = example.run()
    assert not found["success"], log
    assert {name: each["events"] for name, each in found["assets"].items()} == {
        **{name: ["STEP_SUCCESS"] for name in STREAMS},
        "zoom_demo.flows": ["STEP_FAILURE"],
        "twilio_demo.channels": ["STEP_UP_FOR_RETRY", "STEP_SUCCESS"],
    }
    ((error,),) = ask(warehouse, "SELECT error FROM etl.runs WHERE status = 'failed'")
    assert "→" in error and f"failed: {error}" in log
    assert "sandbox-zoom-secret" not in log

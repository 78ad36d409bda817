"""etl.api as an orchestrator uses it: against a sandbox and a real warehouse."""

import inspect
import json
import threading
import typing
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from etl import api
from etl.errors import ConfigError, StoppedError
from etl.load.lease import acquire
from etl.sandbox import data, zoom
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox, serve
from etl.warehouse.connect import connect
from tests.postgres import dsn
from tests.sync import truth
from tests.sync.truth import STREAMS


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(12, 40), seed=5) as running:
        yield running


@pytest.fixture
def config(sandbox: Sandbox, warehouse: str, tmp_path: Path) -> Path:
    path = tmp_path / "callflow.toml"
    path.write_text(f'[warehouse]\nurl = "{dsn(warehouse)}"\n{sandbox.toml()}', encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.mark.slow
def test_every_stream_can_be_mapped_over_and_synced(
    config: Path, sandbox: Sandbox, warehouse: str
) -> None:
    assert api.sources(config) == ["zoom_demo", "twilio_demo", "alibaba_demo"]
    assert api.streams(config) == STREAMS
    runs = [run for name in api.streams(config) for run in api.sync(name, config)]
    assert [f"{run.source}.{run.stream}" for run in runs] == STREAMS
    assert {run.status for run in runs} == {"complete"} and api.exit_code(runs) == 0
    stored = truth.stored(warehouse)
    assert stored == truth.of(sandbox, stored)


def test_a_source_is_its_streams_in_turn(config: Path) -> None:
    runs = api.sync("twilio_demo", str(config))
    streams = [name.partition(".")[2] for name in STREAMS if name.startswith("twilio_demo.")]
    assert [(run.stream, run.status) for run in runs] == [(each, "complete") for each in streams]
    for one, following in pairwise(runs):
        assert one.finished_at is not None and one.finished_at <= following.started_at


def test_the_file_is_the_one_that_the_environment_names(config: Path) -> None:
    env = {"CALLFLOW_CONFIG": str(config)}
    assert api.streams(env=env) == STREAMS
    assert [run.status for run in api.sync("zoom_demo", env=env)] == ["complete"]
    states = {each.name: each.state for each in api.status(env=env)}
    assert states == dict.fromkeys(STREAMS, "never run") | {"zoom_demo.flows": "good"}


def test_a_summary_is_json_with_every_field_and_times_in_utc(
    config: Path, sandbox: Sandbox
) -> None:
    (run,) = api.sync("zoom_demo.flows", config)
    summary = api.summary(run)
    assert json.loads(json.dumps(summary)) == summary
    assert set(summary) == {each.name for each in fields(run)}
    assert (summary["status"], summary["records"]) == ("complete", 12)
    assert datetime.fromisoformat(summary["finished_at"]) == run.finished_at
    (health,) = [each for each in api.status(config) if each.name == "zoom_demo.flows"]
    state = api.summary(health)
    assert json.loads(json.dumps(state)) == state
    assert (state["name"], state["state"], state["error"]) == ("zoom_demo.flows", "good", None)
    names = ("started_at", "finished_at", "watermark_after"), ("watermark", "last_success_at")
    for each, times in zip((summary, state), names, strict=True):
        assert all(each[name].endswith("+00:00") for name in times), each


def test_an_error_of_a_provider_is_in_the_run(config: Path, sandbox: Sandbox) -> None:
    sandbox.zoom.client_secret = "another one by now"
    (run,) = api.sync("zoom_demo.flows", config)
    assert (run.status, run.error_kind) == ("failed", "credentials")
    assert run.error is not None and "zoom_demo.flows" in run.error and "→" in run.error
    assert api.exit_code([run]) == 1
    assert "sandbox-zoom-secret" not in json.dumps(api.summary(run))


def test_the_time_at_which_the_provider_can_be_asked_again_is_in_the_run(
    config: Path, sandbox: Sandbox
) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=5)
    answer = zoom.too_many_today(until.isoformat().replace("+00:00", "Z"))
    sandbox.zoom.faults.append(Fault(path="/v2/*", times=None, response=answer))
    (run,) = api.sync("zoom_demo.flows", config)
    assert run.status == "failed"
    retry_at = api.summary(run)["retry_at"]
    assert abs(datetime.fromisoformat(retry_at) - until) < timedelta(minutes=1)


def test_another_run_at_work_makes_it_busy(config: Path, warehouse: str) -> None:
    engine = connect(warehouse)
    with engine.begin() as connection:
        acquire(connection, "zoom_demo", "flows", holder="elsewhere:1:unknown")
    engine.dispose()
    runs = api.sync("zoom_demo.flows", config)
    assert [(run.status, run.error_kind) for run in runs] == [("busy", "busy")]
    assert api.exit_code(runs) == 75


def test_a_database_that_is_away_is_a_failed_run(config: Path, warehouse: str) -> None:
    text = config.read_text(encoding="utf-8").replace(dsn(warehouse), "postgresql://127.0.0.1:1/x")
    config.write_text(text, encoding="utf-8")
    (run,) = api.sync("zoom_demo.flows", config)
    assert (run.status, run.error_kind) == ("failed", "database")
    assert run.finished_at is not None


def test_full_and_stopped_reach_the_run(config: Path, sandbox: Sandbox) -> None:
    modes = [api.sync("alibaba_demo", config, full=full)[0].mode for full in (False, False, True)]
    assert modes == ["full", "incremental", "full"]
    stop = threading.Event()
    sandbox.zoom.faults.append(Fault(path="/v2/*", before_request=lambda *_: stop.set()))
    with pytest.raises(StoppedError):
        api.sync("zoom_demo.flows", config, stopped=stop.is_set)


def test_accepted_deletes_reach_the_run(config: Path, sandbox: Sandbox) -> None:
    api.sync("zoom_demo.flows", config)
    for key in sandbox.zoom.flows.keys():  # noqa: SIM118 - a store is no dict
        sandbox.zoom.flows.delete(key)
    refused = [api.sync("zoom_demo.flows", config, full=True)[0] for _ in range(2)]
    assert [(run.status, run.deleted) for run in refused] == [("incomplete", 0)] * 2
    ahead: dict[str, api.Outlook] = {}
    given: dict[str, Any] = {"accept_deletes": True, "on_outlook": ahead.__setitem__}
    (dry,) = api.sync("zoom_demo.flows", config, dry_run=True, **given)
    assert (dry.status, dry.deleted, ahead["zoom_demo.flows"].deleted.total) == ("complete", 12, 12)
    summary = api.summary(dry, ahead["zoom_demo.flows"])
    assert (summary["dry_run"], summary["would_delete_total"]) == (True, 12)
    (run,) = api.sync("zoom_demo.flows", config, full=True, accept_deletes=True)
    assert (run.status, run.deleted) == ("complete", 12)


@pytest.mark.parametrize("name", ["zoom_dmeo.flows", "zoom_demo.channels", ""])
def test_a_wrong_name_is_reported_before_anything_is_done(config: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="there is no source or stream") as caught:
        api.sync(name, config)
    assert str(config) in str(caught.value)


def test_a_wrong_configuration_is_reported(tmp_path: Path) -> None:
    for call in (api.sources, api.streams, api.status):
        with pytest.raises(ConfigError, match=r"missing\.toml"):
            call(tmp_path / "missing.toml")


def test_everything_public_is_typed_and_described() -> None:
    for name in api.__all__:
        each = getattr(api, name)
        assert inspect.getdoc(each), name
        if inspect.isfunction(each):
            hints = typing.get_type_hints(each)
            assert set(hints) == {*inspect.signature(each).parameters, "return"}, name

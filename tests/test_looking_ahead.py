"""`sync --dry-run` and `--accept-deletes`, and `show --missing`: processes and what they print."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import psycopg
import pytest

from etl.sandbox import data
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox, serve
from etl.warehouse import embedded
from tests.daemon.processes import until
from tests.postgres import ask, dsn
from tests.sync.test_dry_run import dump
from tests.sync.test_incomplete import fill
from tests.warm import Command, Warm

Start = Callable[..., Command]
Cli = Callable[..., CompletedProcess[str]]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.EMPTY) as running:
        fill(running, 60)
        yield running


@pytest.fixture
def start(sandbox: Sandbox, warehouse: str, tmp_path: Path, warm: Warm) -> Start:
    """Return a function that starts `callflow …` on the sandbox and the warehouse."""
    path = tmp_path / "callflow.toml"
    path.write_text(f'[warehouse]\nurl = "{dsn(warehouse)}"\n{sandbox.toml()}', encoding="utf-8")
    path.chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    return lambda *words: warm.start(words, env={**kept, "CALLFLOW_CONFIG": str(path)})


@pytest.fixture
def cli(start: Start) -> Cli:
    def run(*words: str) -> CompletedProcess[str]:
        with start(*words) as command:
            out, err = command.communicate(timeout=60)
        assert "Traceback" not in out + err
        return CompletedProcess(words, command.returncode or 0, out, err)

    return run


def delete(sandbox: Sandbox, count: int) -> None:
    for number in range(count):
        sandbox.zoom.flows.delete(f"flow-{number:04}")


def test_a_dry_run_prints_what_a_run_would_do_and_exits_as_it_would(
    cli: Cli, sandbox: Sandbox, warehouse: str
) -> None:
    before = dump(warehouse)
    done = cli("sync", "zoom_demo", "--dry-run")
    assert (done.returncode, "nothing was written" in done.stderr) == (0, True)
    assert "60 records would be added" in done.stdout
    assert '"Flow 0" (flow-0000)' in done.stdout and "and 50 more" in done.stdout
    cli("sync", "zoom_demo")
    delete(sandbox, 20)
    sandbox.zoom.flows.update("flow-0040", flow_name="A\x1b[31m new\nname")
    done = cli("sync", "zoom_demo", "--dry-run")
    assert done.returncode == 1
    assert '"A␛[31m new name" (flow-0040): flow_name, last_modified_time' in done.stdout
    assert "20 records not listed any more; the safety stop keeps them" in done.stdout
    assert ask(warehouse, "SELECT count(*) FROM etl.runs") == [(1,)]
    assert before.keys() == dump(warehouse).keys() - {
        f"staging.zoom_demo__{table}" for table in ("flows", "flow_versions", "entry_points")
    }


def test_json_has_the_keys_of_a_run_and_bounded_lists_with_totals(
    cli: Cli, sandbox: Sandbox
) -> None:
    real = json.loads(cli("sync", "zoom_demo", "--json").stdout)
    assert (real["missing"], real["missing_total"]) == ([], 0) and "dry_run" not in real
    delete(sandbox, 20)
    found = json.loads(cli("sync", "zoom_demo", "--dry-run", "--json").stdout)
    lists = {"missing", "would_insert", "would_update", "would_delete", "unlisted", "confirmed"}
    assert found.keys() - real.keys() == {
        "dry_run", "would_update_fields", *lists - {"missing"},
        *(f"{name}_total" for name in lists - {"missing"}),
    }  # fmt: skip
    assert real.keys() <= found.keys() and found["dry_run"] is True
    assert found["missing_total"] == found["unlisted_total"] == len(found["missing"]) == 20
    assert found["missing"][0] == {"id": "flow-0000", "name": "Flow 0"}
    real = json.loads(cli("sync", "zoom_demo", "--json").stdout)
    assert (real["missing"], real["error"]) == (found["missing"], found["error"])
    given = ("sync", "zoom_demo", "--dry-run", "--accept-deletes", "--full", "--json")
    found = json.loads(cli(*given).stdout)
    assert (found["status"], found["deleted"], found["would_delete_total"]) == ("complete", 20, 20)
    assert found["missing_total"] == 0 and len(found["confirmed"]) == 20


def test_show_missing_lists_them_all(cli: Cli, sandbox: Sandbox) -> None:
    cli("sync", "zoom_demo")
    none = cli("show", "zoom_demo.flows", "--missing")
    assert (none.returncode, none.stdout) == (0, "")
    assert "zoom_demo.flows: no record is noted as missing" in none.stderr
    sandbox.zoom.flows.update("flow-0001", flow_name="总机\x1b[2J")
    cli("sync", "zoom_demo")
    delete(sandbox, 30)
    assert cli("sync", "zoom_demo").returncode == 1
    shown = cli("show", "zoom_demo.flows", "--missing")
    assert shown.returncode == 0 and "30 not listed any more" in shown.stdout
    assert all(f"flow-{number:04}" in shown.stdout for number in range(30))
    assert "总机␛[2J" in shown.stdout and "2025-01-01 00:00" in shown.stdout
    found = [json.loads(line) for line in
             cli("show", "zoom_demo", "--missing", "--json").stdout.splitlines()]  # fmt: skip
    assert len(found) == 30
    assert found[0].keys() == {"source", "stream", "id", "name", "since", "modified"}
    assert {each["name"] for each in found if each["id"] == "flow-0001"} == {"总机\x1b[2J"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["zoom_demo.flow"], "did you mean zoom_demo.flows?"),
        (["zoom_dmeo.flows"], "did you mean zoom_demo.flows?"),
        (["zoom_demo.flows", "--mask"], "--missing takes no other option"),
        (["zoom_demo.flows", "--at", "2026-01-01"], "--missing takes no other option"),
    ],
)
def test_show_missing_of_what_there_is_not_says_so(cli: Cli, words: list[str], said: str) -> None:
    done = cli("show", *words, "--missing")
    assert (done.returncode, said in done.stderr) == (2, True)


def test_what_is_deleted_by_order_is_printed_before_it_is_committed(
    cli: Cli, start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    cli("sync", "zoom_demo")
    delete(sandbox, 20)
    with psycopg.connect(dsn(warehouse)) as other:
        other.execute("LOCK TABLE history.zoom_flows IN ACCESS EXCLUSIVE MODE")
        with start("sync", "zoom_demo", "--full", "--accept-deletes", "--json") as command:
            assert command.stderr is not None
            said = [command.stderr.readline() for _ in range(21)]
            assert ask(warehouse, "SELECT count(*) FROM zoom.flows") == [(60,)]
            other.rollback()
            out, _ = command.communicate(timeout=60)
    assert said[0] == "zoom_demo.flows: 20 records will be deleted\n"
    assert [line.strip() for line in said[1:3]] == ['"Flow 0" (flow-0000)', '"Flow 1" (flow-0001)']
    assert (json.loads(out)["deleted"], command.returncode) == (20, 0)


def test_nothing_is_deleted_if_it_cannot_be_printed(
    cli: Cli, sandbox: Sandbox, warehouse: str, tmp_path: Path
) -> None:
    cli("sync", "zoom_demo")
    delete(sandbox, 20)
    env = {**os.environ, "CALLFLOW_CONFIG": str(tmp_path / "callflow.toml")}
    words = ["sync", "zoom_demo", "--accept-deletes"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "etl", *words], env=env, stdout=subprocess.PIPE, stderr=full,
            text=True, check=False,
        )  # fmt: skip
    assert "stderr cannot be written, so nothing was deleted: No space left" in done.stdout
    assert ask(warehouse, "SELECT count(*) FROM zoom.flows") == [(60,)]


def test_of_what_is_deleted_by_order_a_hundred_are_named_and_the_rest_counted(
    cli: Cli, sandbox: Sandbox
) -> None:
    fill(sandbox, 130)
    cli("sync", "zoom_demo")
    sandbox.zoom.flows.clear()
    done = cli("sync", "zoom_demo", "--full", "--accept-deletes")
    lines = done.stderr.splitlines()
    assert (done.returncode, lines[0]) == (0, "zoom_demo.flows: 130 records will be deleted")
    assert (len(lines), lines[-1].strip()) == (102, "and 30 more")


def test_a_warehouse_without_tables_gets_none(
    start: Start, database: str, warehouse: str, tmp_path: Path, cli: Cli
) -> None:
    path = tmp_path / "callflow.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(dsn(warehouse), dsn(database)))
    done = cli("sync", "--dry-run")
    assert done.returncode == 1
    assert "has no tables yet" in done.stderr and "`callflow migrate`" in done.stderr
    assert ask(database, "SELECT nspname FROM pg_namespace WHERE nspname IN ('etl', 'zoom')") == []
    done = cli("sync", "--dry-run", "--migrate")
    assert (done.returncode, "--dry-run" in done.stderr) == (2, True)


def test_no_embedded_postgres_is_made_for_a_dry_run(
    cli: Cli, warehouse: str, tmp_path: Path
) -> None:
    path, place = tmp_path / "callflow.toml", tmp_path / "data"
    url = f'url = "{dsn(warehouse)}"'
    path.write_text(path.read_text(encoding="utf-8").replace(url, f'data_dir = "{place}"'))
    done = cli("sync", "--dry-run")
    assert (done.returncode, "has no tables yet" in done.stderr) == (1, True)
    assert not place.exists() and not embedded.exists(place)


@pytest.mark.fault(59)
def test_a_dry_run_that_is_killed_leaves_nothing(
    cli: Cli, start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    cli("sync", "zoom_demo")
    fill(sandbox, 400)
    before = dump(warehouse)
    reached, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        reached.set()
        go_on.wait(30)

    sandbox.zoom.faults.append(Fault(path="/v2/contact_center/flows", nth=4, before_request=wait))
    with start("sync", "zoom_demo", "--dry-run") as command:
        assert reached.wait(30)
        os.kill(command.pid, signal.SIGKILL)
        command.wait(30)
    go_on.set()
    ours = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND state LIKE 'idle in%'"
    )
    until(lambda: ask(warehouse, ours) == [(0,)], "the transaction of the dry run to end")
    after = dump(warehouse)
    assert after == before | {"etl.leases": after["etl.leases"]}
    again = cli("sync", "zoom_demo", "--json")
    assert json.loads(again.stdout)["inserted"] == 340

"""The command line as a person or a scheduler uses it: a process, its output, its exit code.

Most of them are forked from a warm process. What is about a start of Python, a shell or a terminal
runs `python -m etl`.
"""

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from rich.text import Text

from etl.commands import lines, sql
from etl.config.load import load as load_config
from etl.load import lead
from etl.load.runs import Run
from etl.providers import PROVIDERS
from etl.providers.catalog import TABLES
from etl.sandbox import data, twilio, zoom
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox, serve
from etl.warehouse.connect import connect
from etl.warehouse.embedded import start as start_embedded
from etl.warehouse.embedded import stop as stop_embedded
from tests.daemon.processes import until
from tests.machine import slowness
from tests.postgres import ask, directory, dsn
from tests.sync.truth import STREAMS
from tests.warm import Command, Warm

Cli = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Command]

ANY_PORTS = ["0"] * len(PROVIDERS)

SECRETS = ("sandbox-zoom-secret", "sandbox-alibaba-secret", "auth_token")


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    return {**kept, **changes}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(120, 1200), seed=3) as running:
        yield running


@pytest.fixture
def config(sandbox: Sandbox, warehouse: str, tmp_path: Path) -> Path:
    path = tmp_path / "callflow.toml"
    urls = f'url = "{dsn(warehouse)}"\nread_url = "{dsn(warehouse)}"\n'
    path.write_text(f"[warehouse]\n{urls}\n{sandbox.toml()}", encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.fixture
def cli(config: Path, sandbox: Sandbox, tmp_path: Path, warm: Warm) -> Cli:
    """Return a function that runs `callflow …` and finds no traceback or secret in its output."""

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        env = environment(CALLFLOW_CONFIG=str(config), **env)
        done = warm.run(words, env=env, cwd=tmp_path)
        for text in (done.stdout, done.stderr):
            assert "Traceback" not in text
            for secret in (
                sandbox.zoom.client_secret,
                sandbox.twilio.auth_token,
                sandbox.alibaba.keys[sandbox.alibaba.access_key_id].secret,
            ):
                assert secret not in text
        return done

    return run


@pytest.fixture
def start(warm: Warm) -> Start:
    """Return a function that starts `callflow …` on a configuration."""

    def of(config: Path, *words: str) -> Command:
        return warm.start(words, env=environment(CALLFLOW_CONFIG=str(config)))

    return of


def runs_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {f"{run['source']}.{run['stream']}": run for run in lines}


@pytest.mark.parametrize("words", [["sink"], ["sync", "--fast"], ["sync", "zoom_demo.flow"]])
def test_wrong_usage_exits_2(cli: Cli, words: list[str]) -> None:
    done = cli(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


@pytest.mark.slow
def test_sync_prints_one_json_object_per_stream_and_nothing_else(
    cli: Cli, sandbox: Sandbox
) -> None:
    first, second, third = (cli("sync", "--json", *more) for more in ([], [], ["--full"]))
    assert (first.returncode, second.returncode, first.stderr) == (0, 0, "")
    runs = runs_of(first)
    assert {name: run["status"] for name, run in runs.items()} == dict.fromkeys(STREAMS, "complete")
    fields = {*Run.__dataclass_fields__, "missing", "missing_total"}
    assert set(runs["zoom_demo.flows"]) == fields
    assert runs["twilio_demo.channels"]["inserted"] == 1200
    for done, unchanged in ((second, 1000), (third, 1200)):
        again = runs_of(done)["twilio_demo.channels"]
        assert (again["unchanged"], again["inserted"], again["updated"]) == (unchanged, 0, 0)
    full = ("full", "the API cannot be asked for changes only")
    assert {name: (run["mode"], run["reason"]) for name, run in runs_of(second).items()} == {
        **dict.fromkeys(STREAMS, full),
        "twilio_demo.channels": ("incremental", "newest first, until nothing is new"),
        "alibaba_demo.contact_flows": ("incremental", "what changed since the watermark"),
    }
    assert {(run["mode"], run["reason"]) for run in runs_of(third).values()} == {
        ("full", "asked for")
    }


def test_sync_of_named_streams_runs_only_those(cli: Cli) -> None:
    done = cli("sync", "twilio_demo.flex_flows", "zoom_demo", "--json")
    assert set(runs_of(done)) == {"twilio_demo.flex_flows", "zoom_demo.flows"}


def test_without_a_terminal_sync_prints_a_plain_line_per_stream(cli: Cli) -> None:
    done = cli("sync")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(STREAMS)
    assert "twilio_demo.channels" in done.stdout
    assert "1,200 new" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert re.fullmatch(rf"{len(STREAMS)} streams: 1,800 records, .* s\)\n", done.stderr)
    coloured = cli("sync", "zoom_demo", FORCE_COLOR="1")
    assert coloured.stdout.startswith(
        "zoom_demo.flows            \x1b[32mcomplete  \x1b[0m 120 unch"
    )
    assert (len(coloured.stdout.splitlines()), coloured.stderr) == (1, "")


@pytest.mark.slow
def test_on_a_terminal_runs_appear_above_the_bars_as_they_end(
    config: Path, sandbox: Sandbox
) -> None:
    came, go = hold(sandbox)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "etl", "sync"],
        env=environment(CALLFLOW_CONFIG=str(config), TERM="xterm-256color", COLUMNS="100"),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while select.select([ours], [], [], 60)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side has closed
                break
            if not part:
                break
            seen += part
            if seen.count(b"complete") == len(STREAMS) - 1 and came.is_set():
                go.set()  # all others are shown, although this one has not ended
        assert go.is_set()
    finally:
        go.set()
        os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", seen.decode())
    bars, _, shown = text.partition("zoom_demo.flows             complete")
    assert bars.count("complete") == len(STREAMS) - 1
    assert re.search("zoom_demo.flows +reading .*━.* 100/120", bars)
    assert f"{len(STREAMS)} streams: 1,800 records, 1,800 new, 0 changed, 0 gone (" in shown


def test_one_failing_source_does_not_hold_up_the_others(
    cli: Cli, sandbox: Sandbox, config: Path
) -> None:
    sandbox.zoom.client_secret = "revoked"
    done = cli("sync", "--json")
    runs = runs_of(done)
    assert done.returncode == 1
    assert runs["zoom_demo.flows"]["status"] == "failed"
    assert runs["zoom_demo.flows"]["error_kind"] == "credentials"
    others = {run["status"] for name, run in runs.items() if name != "zoom_demo.flows"}
    assert set(runs) == set(STREAMS) and others == {"complete"}


@pytest.mark.fault(68)
def test_every_problem_of_the_configuration_is_reported_at_once(cli: Cli, config: Path) -> None:
    config.write_text('[sources.a]\nprovider = "zoom"\nclient_secrt = "x"\n[warehous]\n')
    done = cli("sync")
    assert (done.returncode, done.stdout) == (2, "")
    for word in ("account_id", "client_id", "client_secret", "client_secrt", "warehous"):
        assert word in done.stderr


def test_a_database_that_is_down_is_named(cli: Cli) -> None:
    for command in (["sync"], ["status"], ["sql", "SELECT 1"], ["migrate"]):
        url = "postgresql://me:canary@127.0.0.1:1/db"
        done = cli(*command, CALLFLOW_WAREHOUSE__URL=url, CALLFLOW_WAREHOUSE__READ_URL=url)
        assert done.returncode == 1
        assert "127.0.0.1" in done.stderr
        assert "canary" not in done.stderr


@pytest.mark.parametrize("option", ["sslmod=require", "sslmode=on", "options=-c%20nope%3D1"])
def test_a_wrong_option_of_the_url_is_not_taken_for_a_server_that_is_down(
    cli: Cli, warehouse: str, option: str
) -> None:
    done = cli("status", CALLFLOW_WAREHOUSE__URL=f"{warehouse.partition('?')[0]}?{option}")
    assert done.returncode == 1
    assert done.stderr.endswith("→ correct what follows the question mark in warehouse.url\n")


@pytest.mark.fault(48)
def test_a_read_only_database_is_reported_as_such(cli: Cli, warehouse: str) -> None:
    name = warehouse.rpartition("/")[2].split("?")[0]
    with psycopg.connect(dsn(warehouse), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    done = cli("sync", "--json")
    assert done.returncode == 1
    assert {run["status"] for run in runs_of(done).values()} == {"failed"}
    assert "connect to the primary" in runs_of(done)["zoom_demo.flows"]["error"]


@pytest.mark.fault(53)
def test_a_schema_of_a_newer_version_is_refused(cli: Cli, warehouse: str) -> None:
    with psycopg.connect(dsn(warehouse)) as connection:
        connection.execute("UPDATE etl.alembic_version SET version_num = 'future'")
    for command in (["sync"], ["migrate"], ["status"]):
        done = cli(*command)
        assert done.returncode == 1
        assert "upgrade callflow" in done.stderr


def test_an_empty_database_gets_its_tables(cli: Cli, database: str) -> None:
    done = cli("sync", "zoom_demo", CALLFLOW_WAREHOUSE__URL=dsn(database))
    assert done.returncode == 0
    assert ask(database, "SELECT count(*) FROM zoom.flows") == [(120,)]
    assert "already" in cli("migrate", CALLFLOW_WAREHOUSE__URL=dsn(database)).stdout


@pytest.mark.slow
def test_check_says_what_is_wrong_and_writes_nothing(
    cli: Cli, sandbox: Sandbox, database: str
) -> None:
    done = cli("check", CALLFLOW_WAREHOUSE__URL=dsn(database))
    assert done.returncode == 0
    assert re.findall(r"(?m)^ok +(\w+\.\w+)", done.stdout) == STREAMS
    assert ask(database, "SELECT count(*) FROM pg_namespace WHERE nspname = 'zoom'") == [(0,)]

    sandbox.zoom.scopes = {"contact_center:read:list_queues:admin"}
    done = cli("check", CALLFLOW_WAREHOUSE__URL=dsn(database))
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert "zoom_demo.flows" in line
    assert "contact_center:read:list_flows:admin" in line


def test_a_list_that_has_ended_is_no_failure_of_sync_check_or_runs(
    cli: Cli, sandbox: Sandbox, warehouse: str
) -> None:
    gone = twilio.error(410, 20410, "This API was withdrawn")
    sandbox.twilio.faults.append(Fault(path="/v1/FlexFlows", times=None, response=gone))
    done = cli("check", "twilio_demo")
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("none")]
    assert line.startswith("none twilio_demo.flex_flows")
    assert "ended, no failure: the provider has ended this API (HTTP 410: " in line
    assert "This API was withdrawn" in line
    assert line.endswith("→ read twilio.addresses and twilio.studio_flows instead")
    assert re.search(r"(?m)^ok +twilio_demo\.channels +readable", done.stdout)
    done = cli("sync", "twilio_demo")
    assert done.returncode == 0
    assert re.search(r"(?m)^twilio_demo\.flex_flows +ended +nothing read \(1 request", done.stdout)
    (run,) = map(json.loads, cli("sync", "twilio_demo.flex_flows", "--json").stdout.splitlines())
    assert (run["status"], run["error_kind"]) == ("not_available", "ended")
    assert "ended" in cli("runs", "twilio_demo.flex_flows").stdout
    done = cli("status", "--json")
    states = {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}
    flows = states["twilio_demo.flex_flows"]
    assert (flows["state"], flows["good"], flows["stale"]) == ("ended", True, False)
    assert flows["last_status"] == "not_available"
    kept = ask(warehouse, "SELECT last_status FROM callflow.freshness WHERE stream = 'flex_flows'")
    assert kept == [("not_available",)]

    down = twilio.error(410, 20410, "again")
    sandbox.twilio.faults[:] = [Fault(path="/v1/FlexFlows", times=None, response=down)]
    sandbox.twilio.auth_token = "changed-meanwhile"
    assert cli("check", "twilio_demo.channels").returncode == 1
    assert cli("sync", "twilio_demo.channels").returncode == 1


def test_migrate_writes_the_log_of_changes_again(
    cli: Cli, sandbox: Sandbox, warehouse: str
) -> None:
    assert cli("migrate", "--rebuild-changes").stdout.endswith(
        "The log of changes was rebuilt from the histories: it has 0 rows.\n"
    )
    assert cli("sync", "zoom_demo").returncode == 0
    sandbox.zoom.change()
    assert cli("sync", "zoom_demo").returncode == 0
    asked = "SELECT entity_id, change, field, observed_at FROM callflow.changes ORDER BY 1, 2, 3"
    written = ask(warehouse, asked)
    assert written
    with psycopg.connect(dsn(warehouse)) as connection:
        connection.execute("UPDATE history.changes SET change = 'lost'")
    done = cli("migrate", "--rebuild-changes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "The schema is already up to date.\n"
        f"The log of changes was rebuilt from the histories: it has {len(written)} rows.\n"
    )
    assert ask(warehouse, asked) == written


def test_init_writes_a_file_once(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "new" / "callflow.toml"
    path.parent.mkdir()
    assert cli("init", str(path)).returncode == 0
    text = path.read_text()
    assert "[sources." in text
    done = cli("init", str(path))
    assert done.returncode == 2
    assert path.read_text() == text


@pytest.mark.slow
def test_sql_prints_tables_csv_and_json_and_changes_nothing(cli: Cli, warehouse: str) -> None:
    query = "SELECT 1 AS one, NULL AS nothing, 'a,\"b' AS text, '{\"k\": [1]}'::jsonb AS doc"
    assert cli("sql", "--csv", query).stdout == 'one,nothing,text,doc\n1,,"a,""b","{""k"": [1]}"\n'
    assert json.loads(cli("sql", "--json", query).stdout) == {
        "one": 1,
        "nothing": None,
        "text": 'a,"b',
        "doc": {"k": [1]},
    }
    shown = cli("sql", "SELECT generate_series(1, 3) AS n")
    assert (shown.returncode, shown.stderr) == (0, "3 rows\n")
    assert cli("sql", "--csv", "SELECT 1 AS a WHERE false").stdout == "a\n"
    for wrong in ("SELEC", "DELETE FROM zoom.flows", "CREATE TABLE x ()", "SELECT * FROM nowhere"):
        done = cli("sql", wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert "callflow: sql:" in done.stderr
    assert cli("sql", "--csv", "--json", "SELECT 1").returncode == 2


def test_sql_says_with_whose_rights_it_runs_unless_a_reader_is_set(
    cli: Cli, config: Path, warehouse: str
) -> None:
    text = config.read_text().replace("read_url", "# read_url")
    config.write_text(text)
    done = cli("sql", "--csv", "SELECT 1 AS one")
    note = (
        "note: `callflow sql` runs with the rights of callflow, a superuser"
        " → set warehouse.read_url to a role that only reads\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n1\n", note)
    url = dsn(warehouse)
    nowhere = "postgresql://me:canary@127.0.0.1:1/db"
    done = cli("sql", "--csv", "SELECT 1 AS one", CALLFLOW_WAREHOUSE__URL=nowhere,
               CALLFLOW_WAREHOUSE__READ_URL=url)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n1\n", "")
    wrong = re.sub("//.*@", "//nobody:canary@", url)
    done = cli("sql", "SELECT 1", CALLFLOW_WAREHOUSE__READ_URL=wrong)
    assert (done.returncode, done.stdout) == (1, "")
    assert "check user and password of warehouse.read_url" in done.stderr
    assert "canary" not in done.stderr


def test_a_role_made_by_grant_can_query_and_learns_what_status_needs(
    cli: Cli, warehouse: str
) -> None:
    role = f"analyst_{os.getpid()}"
    with psycopg.connect(dsn(warehouse), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'a'")
        try:
            assert cli("grant", role).returncode == 0
            url = {"CALLFLOW_WAREHOUSE__URL": re.sub("//.*@", f"//{role}:a@", dsn(warehouse))}
            url |= {"CALLFLOW_WAREHOUSE__READ_URL": url["CALLFLOW_WAREHOUSE__URL"]}
            done = cli("sql", "--csv", "SELECT count(*) FROM zoom.flows", **url)
            assert (done.returncode, done.stdout, done.stderr) == (0, "count\n0\n", "")
            done = cli("status", **url)
            assert (done.returncode, done.stdout) == (1, "")
            expected = (
                f"the role {role} may not read the schema etl, in which callflow keeps its books"
            )
            assert expected in done.stderr
            assert f'let this one read: GRANT USAGE ON SCHEMA etl TO "{role}"' in done.stderr
        finally:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


@pytest.mark.slow
def test_a_query_can_start_with_a_comment_and_come_from_a_pipe(cli: Cli, config: Path) -> None:
    for words in (["-- what\nSELECT 1 AS one", "--csv"], ["--csv", "--x\nSELECT 1 AS one"],
                  ["--csv", "--", "--csv\nSELECT 1 AS one"]):  # fmt: skip
        done = cli("sql", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "one\n1\n", "")
    assert "there is no option --cvs" in cli("sql", "--cvs", "SELECT 1").stderr
    done = shell(config, "printf '\\357\\273\\277-- x\\nSELECT 1 AS \"é\"' | callflow sql - --csv")
    assert (done.returncode, done.stdout) == (0, "é\n1\n")
    done = shell(config, "printf 'SELECT 1 AS \"\\351\"' | callflow sql -")
    assert (done.returncode, done.stderr) == (
        2, "callflow: sql: the query is not UTF-8 → write it as UTF-8\n"
    )  # fmt: skip


def test_columns_of_one_name_are_made_unique(cli: Cli) -> None:
    query = "SELECT 1 AS a, 2 AS a, 3 AS a_2"
    note = "note: columns whose name another one has are called a_3\n"
    done = cli("sql", "--json", query)
    assert (done.stdout, done.stderr) == ('{"a": 1, "a_3": 2, "a_2": 3}\n', note)
    done = cli("sql", "--csv", query)
    assert (done.stdout, done.stderr) == ("a,a_3,a_2\n1,2,3\n", note)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_query_that_is_stopped_is_cancelled(
    number: signal.Signals, config: Path, warehouse: str, start: Start
) -> None:
    with start(config, "sql", "SELECT pg_sleep(300)") as process:
        count = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)'"
        count += " AND state = 'active' AND datname = current_database()"
        until(lambda: ask(warehouse, count) == [(1,)], "the query runs")
        process.send_signal(number)
        out, errors = process.communicate(timeout=30)
        assert ask(warehouse, count) == [(0,)]
    assert (process.returncode, out) == (128 + number, "")
    assert errors == "callflow: stopped by a signal; the query was cancelled\n"


@pytest.mark.slow
def test_the_embedded_postgres_is_read_by_a_role_that_only_reads(
    cli: Cli, config: Path, tmp_path: Path
) -> None:
    with directory() as place:
        try:
            config.write_text(f'[warehouse]\ndata_dir = "{place / "data"}"\n')
            done = cli("sql", "--csv", "SELECT current_user, count(*) FROM zoom.flows")
            assert (done.returncode, done.stdout) == (0, "current_user,count\ncallflow_reader,0\n")
            assert cli("sql", "--csv", "SELECT count(*) FROM etl.rejects").stdout == "count\n0\n"
            assert cli("sql", "DELETE FROM etl.rejects RETURNING 1").returncode == 2
            done = cli("sql", "SELECT pg_read_file('/etc/passwd')")
            assert (done.returncode, done.stdout) == (2, "")
            assert "permission denied for function pg_read_file (42501)" in done.stderr
            assert "-U callflow -d callflow" in done.stderr
            ran = place / "ran"
            script = f"SELECT current_user; COPY (SELECT 1) TO PROGRAM 'touch {ran}';"
            done = shell(config, f'printf %s "{script}" | callflow sql')
            assert "callflow_reader" in done.stdout
            assert "permission denied to COPY to or from an external program" in done.stderr
            assert not ran.exists()

            done = cli("grant", "bi")
            assert done.returncode == 2
            _, made, line = done.stderr.partition("create it first, with: ")
            assert made, done.stderr
            done = shell(config, line)
            assert (done.returncode, done.stdout) == (0, "CREATE ROLE\n")
            done = cli("grant", "bi")
            assert (done.returncode, done.stderr) == (0, "")
            done = cli("grant", "bi", "--writes", "dbt")
            assert (done.returncode, done.stderr) == (0, "")
            owner = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'dbt'"
            assert cli("sql", "--csv", owner).stdout.splitlines()[1] == "bi"
            settings = "SELECT rolconfig::text FROM pg_roles WHERE rolname = 'bi'"
            assert "statement_timeout=5min" in cli("sql", "--csv", settings).stdout
        finally:
            stop_embedded(place / "data")


@pytest.mark.slow
def test_everything_that_the_sandbox_prints_can_be_saved(tmp_path: Path) -> None:
    """Read stdout and stderr from one file, while the sandbox serves and after its end."""
    saved = tmp_path / "callflow.toml"
    words = [sys.executable, "-m", "etl", "sandbox", "--ports", *ANY_PORTS, "--flows", "3"]
    with saved.open("w") as file, subprocess.Popen(words, stdout=file, stderr=file) as process:
        until(lambda: "Ctrl-C ends" in saved.read_text(), "it serves")
        first = tomllib.loads(saved.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert tomllib.loads(saved.read_text()) == first
    assert set(first["sources"]) == {"zoom_demo", "twilio_demo", "alibaba_demo"}


def test_grant_gives_what_a_bi_tool_needs_and_no_more(cli: Cli, warehouse: str) -> None:
    cli("sync", "zoom_demo")
    assert cli("grant", "no_such_role").returncode == 2
    role = f"bi_{os.getpid()}"
    with psycopg.connect(dsn(warehouse), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role}")
        try:
            assert cli("grant", role).returncode == 0
            connection.execute(f"SET ROLE {role}")
            for readable in ("zoom.flows", "zoom.flows_history", "twilio.channels"):
                connection.execute(f"SELECT count(*) FROM {readable}")
            keys = connection.execute(
                "SELECT count(*) FROM information_schema.table_constraints "
                "WHERE constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY')"
            ).fetchall()
            parents = sum(each.info["parent"] is not None for each in TABLES.values())
            assert keys == [(len(TABLES) + parents,)]
            for forbidden in (
                "SELECT 1 FROM etl.runs",
                "SELECT 1 FROM history.zoom_flows",
                "DELETE FROM zoom.flows",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(forbidden)
        finally:
            connection.execute("RESET ROLE")
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


@pytest.mark.slow
def test_status_shows_every_stream_before_and_after(cli: Cli, sandbox: Sandbox) -> None:
    assert cli("status").stdout.count("never run") == len(STREAMS)
    cli("sync", "twilio_demo")
    sandbox.zoom.client_secret = "revoked"
    cli("sync", "zoom_demo")
    states = {
        f"{row['source']}.{row['stream']}": row
        for row in map(json.loads, cli("status", "--json").stdout.splitlines())
    }
    assert states["twilio_demo.channels"]["last_status"] == "complete"
    assert states["twilio_demo.channels"]["rows"] == 1200
    assert states["twilio_demo.channels"]["watermark"]
    assert states["zoom_demo.flows"]["last_status"] == "failed"
    assert states["zoom_demo.flows"]["error"]
    assert states["zoom_demo.flows"]["good"] is False
    assert states["alibaba_demo.contact_flows"]["state"] == "never run"
    shown = cli("status").stdout
    assert "client_secret" in shown
    assert re.search(r"complete \d+s ago", shown)


# --- runs ----------------------------------------------------------------------------------------
def test_runs_shows_the_last_ones_of_all_streams_newest_first(cli: Cli, sandbox: Sandbox) -> None:
    empty = cli("runs")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "No run is recorded.\n")
    assert cli("sync", "zoom_demo", "twilio_demo.flex_flows").returncode == 0
    sandbox.zoom.client_secret = "revoked"
    assert cli("sync", "zoom_demo").returncode == 1
    done = cli("runs")
    assert (done.returncode, done.stderr) == (0, "")
    failed, wrong, *others = re.findall(r"(?m)^(?:\d.*\n.*|    .*)$", done.stdout)
    assert re.match(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00 zoom_demo\.flows +full +failed +\d+\.\d s\n"
        r"    \d+ requests?, 0 records$", failed
    )  # fmt: skip
    assert re.match(r"    .*client_secret.* → .+", wrong)
    assert len(others) == 2
    first = next(each for each in others if "zoom_demo.flows" in each)
    assert re.search(r"complete +.*\n    \d+ requests?, 120 records: 120 new$", first)


def test_runs_of_a_name_as_json_and_no_more_than_asked_for(cli: Cli, warehouse: str) -> None:
    for words in (["zoom_demo", "twilio_demo"], ["twilio_demo.channels"], ["zoom_demo"]):
        assert cli("sync", *words).returncode == 0
    columns = set(Run.__dataclass_fields__)
    for words, names in (
        ([], ["zoom_demo.flows", "twilio_demo.channels"]),
        (["twilio_demo"], ["twilio_demo.channels"]),
        (["twilio_demo.flex_flows"], ["twilio_demo.flex_flows"]),
    ):
        done = cli("runs", *words, "--json", "--limit", "2")
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert (done.returncode, done.stderr) == (0, "")
        assert all(set(run) == columns for run in found)
        shown = [f"{run['source']}.{run['stream']}" for run in found]
        assert shown[: len(names)] == names
        assert len(shown) == (1 if words == ["twilio_demo.flex_flows"] else 2)
        started = [run["started_at"] for run in found]
        assert started == sorted(started, reverse=True)


def test_runs_of_a_forgotten_source_are_found_by_name(cli: Cli, warehouse: str) -> None:
    assert cli("sync", "zoom_demo").returncode == 0
    with psycopg.connect(dsn(warehouse)) as connection:
        connection.execute("UPDATE etl.runs SET source = 'old'")
        connection.execute("DELETE FROM etl.streams")
    for name in ("old", "old.flows"):
        assert runs_of(cli("runs", name, "--json"))["old.flows"]["records"] == 120


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("zoom_dem", "did you mean zoom_demo?"),
        ("zoom_demo.channels", "did you mean "),
        ("xyz", "choose from: alibaba_demo, twilio_demo, zoom_demo, alibaba_demo.contact_flows"),
    ],
)
def test_runs_of_an_unknown_name_lists_the_known_ones(cli: Cli, name: str, advice: str) -> None:
    done = cli("runs", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"callflow: runs: there is no source or stream '{name}', and no run of it → " in (
        done.stderr
    )
    assert advice in done.stderr


def test_a_past_run_fits_a_terminal_of_80_columns() -> None:
    at = datetime(2026, 3, 14, 3, 12, 40, tzinfo=UTC)
    run = Run("id", "alibaba_sh", "contact_flows", "incremental", at, at + timedelta(minutes=61.5),
              "incomplete", requests=12345, records=1234, inserted=123, updated=1111,
              error="the list changed → run again")  # fmt: skip
    shown = [Text.from_markup(line).plain for line in lines.past_run_lines(run).split("\n")]
    assert shown == [
        "2026-03-14 03:12:40+00 alibaba_sh.contact_flows   incremental incomplete 1h 1m",
        "    12,345 requests, 1,234 records: 123 new, 1,111 changed",
        "    the list changed → run again",
    ]
    assert all(len(line) <= 80 for line in shown)


def hold(sandbox: Sandbox) -> tuple[threading.Event, threading.Event]:
    """Hold the provider's second page back; return events: it was asked for, let it go."""
    came, go = threading.Event(), threading.Event()

    def wait(emulator: Any, request: Any) -> None:
        came.set()
        go.wait(300)

    sandbox.zoom.faults.append(
        Fault(when=lambda r: "next_page_token" in r.params, before_request=wait)
    )
    return came, go


@pytest.mark.fault(61)
def test_a_second_run_of_a_stream_is_busy_and_exits_75(
    cli: Cli, config: Path, sandbox: Sandbox, start: Start
) -> None:
    came, go = hold(sandbox)
    with start(config, "sync", "zoom_demo", "--json") as first:
        assert came.wait(60)
        second = cli("sync", "zoom_demo", "--json")
        go.set()
        out, _ = first.communicate(timeout=60)
    assert second.returncode == 75
    assert runs_of(second)["zoom_demo.flows"]["status"] == "busy"
    assert (first.returncode, json.loads(out)["status"]) == (0, "complete")


@pytest.mark.slow
@pytest.mark.fault(60)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_in_the_middle_of_a_scan_the_next_run_just_works(
    number: signal.Signals, cli: Cli, config: Path, sandbox: Sandbox, warehouse: str, start: Start
) -> None:
    came, go = hold(sandbox)
    with start(config, "sync", "zoom_demo") as process:
        assert came.wait(60)
        process.send_signal(number)
        asked = time.monotonic()
        _, errors = process.communicate(timeout=60)
        waited = time.monotonic() - asked
        go.set()
    expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert process.returncode == expected[number]
    assert waited < 5 * slowness()
    assert "Traceback" not in errors
    assert ask(warehouse, "SELECT count(*) FROM zoom.flows") == [(0,)]
    done = cli("sync", "zoom_demo", "--json")
    assert (done.returncode, runs_of(done)["zoom_demo.flows"]["inserted"]) == (0, 120)


@pytest.mark.slow
def test_the_sandbox_serves_until_it_is_stopped(
    tmp_path: Path, database: str, start: Start, warm: Warm
) -> None:
    words = ["sandbox", "--ports", *ANY_PORTS, "--flows", "3", "--channels", "5"]
    with start(tmp_path / "none", *words) as process:
        assert process.stdout
        lines: list[str] = []
        while lines.count("requests_per_second = 0\n") < 3:
            lines.append(process.stdout.readline())
        config = tmp_path / "callflow.toml"
        config.write_text("".join(lines))
        env = environment(CALLFLOW_WAREHOUSE__URL=dsn(database))
        done = warm.run(["sync", "-c", str(config), "--json"], env=env)
        process.terminate()
        process.communicate(timeout=30)
    assert (done.returncode, process.returncode) == (0, 143)
    assert runs_of(done)["twilio_demo.channels"]["inserted"] == 5


def test_both_streams_of_the_sandbox_in_one_file_are_a_configuration(
    tmp_path: Path, warm: Warm
) -> None:
    path = tmp_path / "callflow.toml"
    words = ["sandbox", "--ports", *ANY_PORTS, "--flows", "3", "--channels", "5"]
    with path.open("w") as file:
        out = file.fileno()
        process = warm.start(words, env=environment(), stdout=out, stderr=out)
    try:
        until(lambda: "Ctrl-C ends" in path.read_text(encoding="utf-8"), "it serves")
    finally:
        process.terminate()
        process.close()
    path.chmod(0o600)
    assert set(load_config(path, {}).sources) == {"zoom_demo", "twilio_demo", "alibaba_demo"}


@contextmanager
def sandbox_with(warm: Warm, path: Path) -> Iterator[Command]:
    """A running `callflow sandbox --config PATH`, which has written its first line to stderr."""
    words = ["sandbox", "--ports", *ANY_PORTS, "--flows", "3", "--channels", "5"]
    process = warm.start([*words, "--config", str(path)], env=environment())
    try:
        assert process.stderr
        assert process.stderr.readline() == (
            f"# Serving. Wrote {path}; then `callflow sync -c {path}`. Ctrl-C ends.\n"
        )
        yield process
    finally:
        process.terminate()
        assert process.communicate(timeout=30)[0] == ""
        process.close()


def test_the_sandbox_writes_its_configuration_and_replaces_only_its_own(
    tmp_path: Path, database: str, warm: Warm
) -> None:
    path = tmp_path / "callflow.toml"
    with sandbox_with(warm, path):
        first = path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600
    with sandbox_with(warm, path):
        assert path.read_text() != first  # other ports
        env = environment(CALLFLOW_WAREHOUSE__URL=dsn(database))
        done = warm.run(["sync", "-c", str(path), "--json"], env=env)
        assert runs_of(done)["twilio_demo.channels"]["inserted"] == 5
    assert [each.name for each in tmp_path.iterdir()] == ["callflow.toml"]


@pytest.mark.parametrize("kind", ["mine", "empty", "link", "directory", "nowhere"])
def test_the_sandbox_leaves_alone_what_it_did_not_write(
    tmp_path: Path, warm: Warm, kind: str
) -> None:
    path = tmp_path / "callflow.toml"
    reason = "already exists; it was not changed → name another file, or remove this one"
    if kind == "mine":
        path.write_text("[sources.a]\n")
    elif kind == "empty":
        path.touch()
    elif kind == "link":
        path.symlink_to("elsewhere.toml")
    elif kind == "directory":
        path.mkdir()
    else:
        path = tmp_path / "none" / "callflow.toml"
        reason = "cannot be written: No such file or directory → choose another path, or make"
    before = sorted(tmp_path.iterdir())
    done = warm.run(
        ["sandbox", "--ports", *ANY_PORTS, "--flows", "3", "--channels", "5", "-c", str(path)],
        env=environment(),
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"callflow: {path}: {reason}")
    assert sorted(tmp_path.iterdir()) == before
    if kind == "mine":
        assert path.read_text() == "[sources.a]\n"


def test_a_daily_limit_is_reported_and_not_waited_for(cli: Cli, sandbox: Sandbox) -> None:
    sandbox.zoom.faults.append(
        Fault(
            times=None,
            path="/v2/contact_center/flows",
            response=zoom.too_many_today("2031-01-01T00:00:00Z"),
        )
    )
    done = cli("sync", "zoom_demo")
    assert done.returncode == 1
    assert "2031-01-01" in done.stdout


def psql(warm: Warm, config: Path, script: str, *words: str, **env: str) -> str:
    """Return what `callflow sql` prints when psql is given a script."""
    env = environment(CALLFLOW_CONFIG=str(config), **env)
    done = warm.run(["sql", *words], env=env, text=script)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_sql_without_a_query_opens_psql(config: Path, warm: Warm) -> None:
    """psql need not be installed: the embedded Postgres includes one."""
    assert "answer 42" in psql(warm, config, "SELECT 'answer ' || 6 * 7;", PATH="/nowhere")


def test_psql_is_given_what_the_url_says(config: Path, warehouse: str, warm: Warm) -> None:
    url = f"{dsn(warehouse)}&options=-c%20search_path%3Dtwilio%20-c%20jit%3Doff"
    script = "SELECT current_setting('search_path') || ' ' || current_setting('jit');"
    assert "twilio off" in psql(warm, config, script, CALLFLOW_WAREHOUSE__READ_URL=url)


def test_a_query_and_psql_answer_as_of_a_moment(
    cli: Cli, config: Path, warehouse: str, warm: Warm
) -> None:
    assert cli("sync", "zoom_demo").returncode == 0
    asked = (
        "SELECT count(*) || ' at ' || coalesce(callflow.moment()::text, '-') FROM callflow.flows"
    )
    for words, answer in (
        ([], "120 at -"),
        (["--at", "2026-01-01 12:00:00.5+01"], "0 at 2026-01-01 11:00:00.5+00"),
        (["--at", "9999-01-01"], "120 at 9999-01-01 00:00:00+00"),
    ):
        done = cli("sql", "--csv", *words, asked)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[1] == answer
        url = f"{dsn(warehouse)}&options=-c%20work_mem%3D777kB%20-c%20TimeZone%3DUTC"
        script = f"SHOW work_mem; {asked};"
        shown = psql(warm, config, script, *words, CALLFLOW_WAREHOUSE__READ_URL=url)
        assert f" {answer}\n" in shown
        assert " 777kB\n" in shown
    script = "SELECT current_setting('work_mem') || current_setting('callflow.at');"
    words = ["--at", "2026-01-01"]
    shown = psql(warm, config, script, *words, PGOPTIONS="-c work_mem=777kB")
    assert "777kB2026-01-01T00:00:00+00:00" in shown


@pytest.mark.parametrize(
    "given", ["yesterday", "2026-02-30", "", "2026-01-01 -c jit=on", "\x1b[2J"]
)
def test_an_unreadable_moment_is_refused_before_anything_is_asked(cli: Cli, given: str) -> None:
    nowhere = "postgresql://me@127.0.0.1:1/db"
    for query in (["SELECT 1"], []):
        done = cli("sql", "--at", given, *query, CALLFLOW_WAREHOUSE__READ_URL=nowhere)
        assert (done.returncode, done.stdout) == (2, "")
        assert "callflow: --at: " in done.stderr
        assert "→ expected a date, or a date and a time, such as 2026-11-17 14:05+01" in done.stderr
        assert "\x1b" not in done.stderr


@pytest.mark.fault(72)
def test_psql_s_command_line_has_no_secret() -> None:
    engine = connect(
        "postgresql://reader:p%40ss@/db?host=one:5432&host=two:5433&sslmode=verify-full"
        "&sslrootcert=%2Fetc%2Fca.pem&sslpassword=hidden&prepare_threshold=5"
    )
    (_, _, conninfo), env = sql.psql(engine, {"A": "B"})
    assert conninfo_to_dict(conninfo) == {
        "user": "reader",
        "dbname": "db",
        "host": "one,two",
        "port": "5432,5433",
        "sslmode": "verify-full",
        "sslrootcert": "/etc/ca.pem",
    }
    assert env == {"A": "B", "PGPASSWORD": "p@ss"}


# --- where the output goes -----------------------------------------------------------------------
NAMES = ["Hotline", "投诉受理 – 贵宾专线"]


def shell(config: Path, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a line of sh, in which `callflow` is this checkout's."""
    return subprocess.run(
        ["/bin/sh", "-c", f'callflow() {{ "$PYTHON" -m etl "$@"; }}\n{line}'],
        env=environment(CALLFLOW_CONFIG=str(config), PYTHON=sys.executable, **env),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
def test_characters_that_a_terminal_cannot_show_are_escaped(config: Path) -> None:
    query = f"SELECT unnest(ARRAY{NAMES[::-1]}) AS name"
    escaped = NAMES[1].encode("ascii", "backslashreplace").decode()
    for how in ("--csv", ""):
        done = shell(config, f'callflow sql {how} "{query}"', PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert escaped in done.stdout
        assert NAMES[0] in done.stdout


@pytest.mark.slow
def test_json_is_json_also_where_ascii_is_all_that_can_be_shown(config: Path) -> None:
    names = [*NAMES, "Größe", "😀"]
    query = f"SELECT unnest(ARRAY{names}) AS name"
    for encoding in ("ascii", "utf-8"):
        done = shell(config, f'callflow sql --json "{query}"', PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr
        assert [json.loads(line)["name"] for line in done.stdout.splitlines()] == names, encoding


full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")


@pytest.mark.fault(63)
@full
@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "status",
        "status --json",
        "check",
        "sync zoom_demo",
        "sync zoom_demo --json",
        "sql 'SELECT 1'",
        # more than fits into any buffer, in the first row and in later ones
        "sql --csv \"SELECT repeat('x', 100000) FROM generate_series(1, 5)\"",
        "sql --json 'SELECT generate_series(1, 50000) AS n'",
    ],
)
def test_an_output_that_cannot_be_written_is_reported_in_one_line(
    warm: Warm, config: Path, words: str
) -> None:
    env = environment(CALLFLOW_CONFIG=str(config))
    with (
        Path("/dev/full").open("w") as output,
        warm.start(shlex.split(words), env=env, stdout=output.fileno()) as command,
    ):
        _, errors = command.communicate()
    assert (command.returncode, errors.splitlines()) == (
        1,
        [
            "callflow: stdout: cannot be written: No space left on device"
            " → free space, or write elsewhere"
        ],
    )


@full
@pytest.mark.slow
def test_messages_that_cannot_be_written_leave_the_exit_code(config: Path) -> None:
    commands = ("status", "sync --jsn", "sync nope", "runs")
    codes = [shell(config, f"callflow {each} 2>/dev/full").returncode for each in commands]
    assert codes == [0, 2, 2, 0]


@pytest.mark.slow
@pytest.mark.fault(63)
def test_an_output_that_is_closed_is_no_error(config: Path) -> None:
    unread = "note: 8 streams were never synced; `callflow sync` does it now\n"
    for words, errors in (("status", f"no daemon is running\n{unread}"), ("--help", "")):
        done = shell(config, f"callflow {words} >&-")
        assert (done.returncode, done.stderr) == (0, errors)
    assert shell(config, "callflow status <&- >&- 2>&-").returncode == 0
    done = shell(config, "callflow sql --csv 'SELECT 1 AS one' 2>&-")
    assert (done.returncode, done.stdout) == (0, "one\n1\n")


@pytest.mark.slow
@pytest.mark.fault(63)
def test_a_reader_that_goes_is_no_error(config: Path) -> None:
    query = "SELECT repeat('x', 100000) AS n FROM generate_series(1, 500)"
    done = shell(config, f'callflow sql --csv "{query}" | head -c 1')
    assert (done.stdout, done.stderr) == ("n", "")


# --- being stopped -------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.fault(60)
@pytest.mark.parametrize(
    "imported", ["typer", "pydantic", "sqlalchemy", "etl.warehouse.tables", "psycopg"]
)
def test_ctrl_c_while_it_starts_ends_it_without_a_traceback(config: Path, imported: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "etl", "status"],
        env=environment(CALLFLOW_CONFIG=str(config)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        ours = False
        for line in process.stderr:  # "import time: microseconds | all told | module"
            name = line.rpartition("|")[2].strip()
            ours |= name == "etl"  # what comes before it is Python's own start
            if (ours and name == imported) or name == "etl.commands.status":
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    # 130 where Python has its handler: between two imports.
    assert process.returncode in (-signal.SIGINT, 130), rest
    assert "Traceback" not in rest


@pytest.mark.slow
def test_an_ignored_ctrl_c_stays_ignored(config: Path) -> None:
    done = shell(config, "trap '' INT; callflow --version")
    assert done.returncode == 0
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import sys, etl.__main__ as entry; sys.argv[1:] = ['--version']\n"
        "try: entry.main()\n"
        "finally: assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere servers may refuse to look")
def test_the_query_of_a_killed_client_ends(config: Path, warehouse: str, start: Start) -> None:
    with start(config, "sql", "SELECT pg_sleep(300)") as process:
        count = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)'"
        count += " AND state = 'active' AND datname = current_database()"
        until(lambda: ask(warehouse, count) == [(1,)], "the query runs")
        process.kill()
    until(lambda: ask(warehouse, count) == [(0,)], "Postgres ended it")


# --- what is said --------------------------------------------------------------------------------
@pytest.mark.parametrize("port", ["65536", "-1", "99999999999"])
def test_a_port_that_cannot_be_is_wrong_usage(cli: Cli, port: str) -> None:
    done = cli("sandbox", "--ports", port, *ANY_PORTS[1:])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"callflow: --ports: there is no port {port} → "
        f"give {len(ANY_PORTS)} ports, each 0 to 65535\n"
    )


def test_the_help_says_what_it_is_about(cli: Cli) -> None:
    names = " ".join(provider.name.upper() for provider in PROVIDERS)
    assert f"--ports {names} " in cli("sandbox", "--help").stdout
    words = " ".join(cli("status", "--help").stdout.split())
    assert "Exits 0 whatever state the streams are in. For monitoring use --json or" in words
    assert "three times" in " ".join(cli("demo", "--help").stdout.split())


@pytest.mark.slow
def test_status_without_a_configuration_says_where_it_looked(tmp_path: Path, database: str) -> None:
    line = f"unset CALLFLOW_CONFIG; cd {tmp_path} && callflow status"
    done = shell(tmp_path, line, CALLFLOW_WAREHOUSE__URL=dsn(database))
    assert (done.returncode, done.stdout) == (0, "")
    assert "no --config, no $CALLFLOW_CONFIG, no callflow.toml in " in done.stderr
    assert "`callflow init` writes" in done.stderr


def test_init_where_nothing_can_be_written_says_what_to_do(cli: Cli) -> None:
    done = cli("init", "/nodir/x.toml")
    assert (done.returncode, done.stderr) == (
        2,
        "callflow: /nodir/x.toml: cannot be written: No such file or directory"
        " → choose another path, or make the directory\n",
    )


@pytest.mark.parametrize(
    ("status", "records", "word"),
    [
        ("complete", 0, "nothing there"),
        ("failed", 0, "nothing read"),
        ("busy", 0, "nothing read"),
        ("failed", 7, "nothing written"),
    ],
)
def test_only_a_complete_run_says_that_nothing_is_there(
    status: Any, records: int, word: str
) -> None:
    run = Run("id", "a", "flows", "full", datetime.now(UTC), status=status, records=records)
    assert re.findall(r"nothing \w+", lines.run_line(run)) == [word]


@pytest.mark.slow
def test_stop_says_that_a_daemon_will_start_it_again(warm: Warm) -> None:
    with directory() as place:
        env = environment(CALLFLOW_WAREHOUSE__DATA_DIR=str(place / "data"))
        if "CALLFLOW_PG_BIN" in os.environ:
            env["CALLFLOW_PG_BIN"] = os.environ["CALLFLOW_PG_BIN"]

        def run(word: str) -> tuple[int, str, str]:
            done = warm.run([word], env=env, cwd=place)
            return done.returncode, done.stdout, done.stderr

        try:
            start_embedded(place / "data")  # without any tables, so that no leader can be read
            assert run("stop") == (0, "Stopped.\n", "")
            assert run("migrate")[0] == 0
            engine = connect(start_embedded(place / "data").url())
            with engine.begin() as connection:
                assert lead.take(connection, "elsewhere:1:x")
            engine.dispose()
            note = "note: the daemon elsewhere:1:x leads and will start it again → end it first\n"
            assert run("stop") == (0, "Stopped.\n", note)
            assert run("stop") == (0, "It was not running.\n", "")
        finally:
            stop_embedded(place / "data")

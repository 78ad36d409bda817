"""What a command imports before it does its work: that takes most of the time of a short one."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import typer

from etl.commands import cli

OF_THE_DAEMON = {"apscheduler", "etl.daemon", "jinja2", "prometheus_client", "starlette",
                 "structlog", "uvicorn"}  # fmt: skip
TO_ASK_A_PROVIDER = {"etl.extract.http", "httpcore", "httpx", "tenacity"}
OTHERS = {"alembic", "etl.providers.catalog", "etl.sandbox.server", "etl.status.drawing", "termaid"}
"""What a few commands need, and what only a migration needs; all providers' tables among it."""

EVERY_LIBRARY = {*OF_THE_DAEMON, *TO_ASK_A_PROVIDER, *OTHERS, "asyncio", "cronsim", "msgspec",
                 "psycopg", "rich", "sqlalchemy"}  # fmt: skip
"""All but typer, and pydantic, with which typer reads options, and which reads the metadata."""

A_SOURCE = {
    "CALLFLOW_WAREHOUSE__URL": "postgresql://127.0.0.1:1/nowhere",
    "CALLFLOW_SOURCES__A__PROVIDER": "zoom",
    "CALLFLOW_SOURCES__A__ACCOUNT_ID": "a",
    "CALLFLOW_SOURCES__A__CLIENT_ID": "b",
    "CALLFLOW_SOURCES__A__CLIENT_SECRET": "c",
}
"""A configuration with which a command gets as far as its first connection, which is refused."""


def imported(cwd: Path, *commands: list[str], code: int = 0, **env: str) -> set[str]:
    """Return the modules that one process has imported after all of `commands` ended with `code`.

    Each is the words after `callflow`.
    """
    program = (
        "import gc, sys; from pathlib import Path; from etl.__main__ import main\n"
        f"for words in {commands!r}:\n"
        "    sys.argv[1:] = words\n"
        "    try: main()\n"
        f"    except SystemExit as end: assert end.code == {code}, words\n"
        "assert gc.isenabled()\n"
        "Path('modules').write_text(' '.join(sys.modules))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env=kept | env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = set((cwd / "modules").read_text(encoding="utf-8").split())
    assert "etl.commands.cli" in found
    return found


def test_help_and_the_version_need_no_library(tmp_path: Path) -> None:
    names = list(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    assert {"init", "sync", "daemon", "sql"} <= {*names}
    found = imported(tmp_path, ["--help"])
    assert found & {"importlib.metadata", "pydantic", *EVERY_LIBRARY} == set()
    found = imported(tmp_path, ["--version"], *([name, "--help"] for name in names))
    assert found & EVERY_LIBRARY == set()


def test_init_needs_no_library(tmp_path: Path) -> None:
    found = imported(tmp_path, ["init"])
    assert (tmp_path / "callflow.toml").exists()
    assert found & EVERY_LIBRARY == set()


def test_a_mistake_in_the_configuration_is_reported_before_the_command_is_imported(
    tmp_path: Path,
) -> None:
    broken = (
        '[warehouse]\nurl = "postgresql://callflow:s3cret@db.example:5432/warehouse"\nurll = 1\n'
    )
    (tmp_path / "callflow.toml").write_text(broken, encoding="utf-8")
    words = (["sync"], ["status"], ["daemon"], ["check"], ["sql", "SELECT 1"])
    found = imported(tmp_path, *words, code=2)
    unneeded = {"psycopg", "sqlalchemy", *OF_THE_DAEMON, *TO_ASK_A_PROVIDER, *OTHERS}
    assert found & unneeded == set()
    assert {
        name for name in found if name.startswith(("etl.sync", "etl.load", "etl.status"))
    } == set()


def test_neither_the_schema_nor_completion_needs_the_tables(tmp_path: Path) -> None:
    found = imported(tmp_path, ["init", "--schema"], ["completion", "bash"])
    assert found & {"sqlalchemy", "psycopg", *TO_ASK_A_PROVIDER} == set()
    source = '[sources.z]\nprovider = "zoom"\n'
    (tmp_path / "callflow.toml").write_text(source, encoding="utf-8")
    shell = "complete_bash"
    found = imported(
        tmp_path, [], _CALLFLOW_COMPLETE=shell, COMP_CWORD="2", COMP_WORDS="callflow sync z"
    )
    assert found & EVERY_LIBRARY == set()
    found = imported(
        tmp_path, [], _CALLFLOW_COMPLETE=shell, COMP_CWORD="2", COMP_WORDS="callflow sync z."
    )
    assert found & {"sqlalchemy", "psycopg", *TO_ASK_A_PROVIDER} == set()


def test_so_is_that_there_is_none(tmp_path: Path) -> None:
    found = imported(tmp_path, ["sync"], ["check"], ["daemon"], code=2)
    assert found & {"psycopg", *OF_THE_DAEMON, *TO_ASK_A_PROVIDER} == set()


def test_status_needs_nothing_that_asks_a_provider(tmp_path: Path) -> None:
    found = imported(tmp_path, ["status"], ["runs"], code=1, **A_SOURCE)
    assert found & {"etl.sync.run", *OF_THE_DAEMON, *TO_ASK_A_PROVIDER, *OTHERS} == set()
    assert "psycopg" in found


def test_sync_needs_nothing_of_the_daemon(tmp_path: Path) -> None:
    found = imported(tmp_path, ["sync"], code=1, **A_SOURCE)
    assert found & {*OF_THE_DAEMON, *OTHERS} == set()
    assert "etl.sync.run" in found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_is_stopped_while_it_starts_exits_with_0(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Send the signal when a module is imported: a first one, one of many, a last one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    env = kept | A_SOURCE | {"CALLFLOW_DAEMON__HTTP": ""}
    for module in ("etl.errors", "etl.config.load", "sqlalchemy", "etl.daemon.daemon"):
        words = [sys.executable, "-X", "importtime", "-m", "etl", "daemon"]
        with subprocess.Popen(
            words, cwd=tmp_path, env=env, text=True, stderr=subprocess.PIPE,
            preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # a shell may ignore it
        ) as process:  # fmt: skip
            assert process.stderr
            for line in process.stderr:
                if line.rpartition("|")[2].strip() == module:
                    process.send_signal(number)
            assert process.wait(60) == 0, (module, line)

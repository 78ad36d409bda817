"""The command line before a command runs: help, examples, shared options, completion."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from etl.commands import cli
from etl.commands.examples import EXAMPLES
from etl.commands.options import Shared
from etl.sandbox import data
from etl.sandbox.server import serve
from tests.postgres import dsn
from tests.warm import Warm

PROGRAM = typer.main.get_command(cli.app)
COMMANDS: list[str] = list(PROGRAM.commands)  # type: ignore[attr-defined]
ZOOM = '[sources.desk]\nprovider = "zoom"\naccount_id = "a"\nclient_id = "b"\n'
RUNS = 'client_secret = "c"\nbase_url = "http://127.0.0.1:1"\ntoken_url = "http://127.0.0.1:1/t"\n'

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli_here(warm: Warm, tmp_path: Path) -> Cli:
    """Return a function that runs `callflow …` in an empty directory, 80 columns wide."""

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        kept = {n: value for n, value in os.environ.items() if not n.startswith("CALLFLOW_")}
        return warm.run(words, env={**kept, "COLUMNS": "80", **env}, cwd=tmp_path)

    return run


# --- help ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_every_help_fits_80_columns_and_ends_with_examples(cli_here: Cli, name: str) -> None:
    done = cli_here(*filter(None, [name]), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.startswith(f"Usage: {' '.join(filter(None, ['callflow', name]))} ")
    _, found, examples = done.stdout.partition("\nExamples:\n")
    assert found
    for typed, _ in EXAMPLES[name]:
        assert f"\n  {typed}" in f"\n{examples}"
    assert not re.search(r"\w\.\.\.$|<\w+(\[|>)|\]\.\.\.|\d<=x|\{\w+\}", done.stdout, re.M)
    assert cli_here("help", *filter(None, [name])).stdout == done.stdout


def test_every_command_has_examples_and_each_parses() -> None:
    assert set(EXAMPLES) == {"", *COMMANDS}
    for name, examples in EXAMPLES.items():
        for typed, said in examples:
            words = callflow_in(typed)
            assert said.endswith("."), typed
            context = PROGRAM.make_context("callflow", words, obj=Shared())
            rest = [*context._protected_args, *context.args]
            _, command, rest = PROGRAM.resolve_command(context, rest)  # type: ignore[attr-defined]
            assert name in ("", command.name), typed
            with command.make_context(command.name, rest, parent=context):
                pass


def callflow_in(typed: str) -> list[str]:
    """Return the words after `callflow` in a line for a shell."""
    typed = typed.removeprefix('eval "$(').removesuffix(')"')
    words = shlex.split(re.sub(r" >>?[^ ].*$| <[^ ]+$", "", typed))
    assert words[0] == "callflow"
    return words[1:]


# --- what may stand before the command -----------------------------------------------------------
@pytest.mark.parametrize(
    "words",
    [
        ["--config", "x.toml", "check"],
        ["--config=x.toml", "check"],
        ["-c", "x.toml", "check"],
        ["-cx.toml", "-v", "check"],
        ["-v", "-c", "x.toml", "check"],
        ["-q", "--log-level", "error", "-c", "x.toml", "check"],
        ["--log-level=debug", "check", "-c", "x.toml"],
    ],
)
def test_shared_options_are_understood_before_the_command(cli_here: Cli, words: list[str]) -> None:
    done = cli_here(*words)
    assert (done.returncode, done.stdout) == (2, "")
    if "error" in words:
        expected = "callflow: command line: --quiet and --log-level exclude each other → give one"
    else:
        expected = "callflow: x.toml: cannot be read: No such file or directory"
    assert done.stderr.startswith(expected)


def test_the_version_and_no_command(cli_here: Cli) -> None:
    for option in ("--version", "-V"):
        assert re.fullmatch(r"callflow \d+\.\d+\.\d+\n", cli_here(option).stdout)
    for words in ((), ("-q",)):
        done = cli_here(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == cli_here("help").stdout


# --- -v and -q -----------------------------------------------------------------------------------
def test_verbose_shows_each_request_without_secrets_and_quiet_no_note(
    cli_here: Cli, warehouse: str, tmp_path: Path
) -> None:
    with serve(data.Sizes(3, 3), seed=1) as sandbox:
        file = tmp_path / "callflow.toml"
        urls = f'url = "{dsn(warehouse)}"\nread_url = "{dsn(warehouse)}"\n'
        file.write_text(f"[warehouse]\n{urls}{sandbox.toml()}")
        file.chmod(0o644)  # of which a note warns
        usual, verbose, quiet, less, late = (
            cli_here("sync", "zoom_demo", "--full", *more)
            for more in ([], ["-v"], ["-q"], ["--log-level", "info"], ["--log-level", "warning"])
        )
        account = sandbox.zoom.account_id
    assert {done.returncode for done in (usual, verbose, quiet, less, late)} == {0}
    assert usual.stderr.startswith("note: ")
    assert len(usual.stderr.splitlines()) == 1
    assert (quiet.stderr, late.stderr, less.stderr) == ("", "", usual.stderr)
    assert "complete" in quiet.stdout
    lines = verbose.stderr.splitlines()[1:]
    assert lines
    assert all(
        re.match(r"zoom_demo\.flows[^:]*: (GET|POST) /\S+ → HTTP 200", each) for each in lines
    ), lines
    assert account not in verbose.stderr
    assert "complete" in verbose.stdout


def test_the_daemon_logs_from_the_level_that_is_asked_for(warm: Warm, tmp_path: Path) -> None:
    file = tmp_path / "callflow.toml"
    nowhere = '[warehouse]\nurl = "postgresql://127.0.0.1:1/x"\n[daemon]\nhttp = ""\n'
    file.write_text(nowhere + ZOOM + RUNS)
    file.chmod(0o600)
    env = {n: value for n, value in os.environ.items() if not n.startswith("CALLFLOW_")}
    found = {}
    for option in ("--log-level=info", "-q", "-v"):
        with warm.start(["daemon", option, "-c", str(file)], env=env) as daemon:
            assert daemon.stderr
            lines = [daemon.stderr.readline()]
            daemon.terminate()
            lines += daemon.stderr.readlines()
        found[option] = {json.loads(line)["level"] for line in lines if line[0] == "{"}
    assert "info" in found["--log-level=info"] and "info" in found["-v"]
    assert "info" not in found["-q"]


# --- completion ----------------------------------------------------------------------------------
def complete(cli_here: Cli, line: str) -> list[str]:
    """Return what bash would be given when Tab is pressed at the end of `line`."""
    words = line.split(" ")
    env = {"_CALLFLOW_COMPLETE": "complete_bash", "COMP_WORDS": line}
    done = cli_here(**env, COMP_CWORD=str(len(words) - 1))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_commands_options_and_names_are_completed(cli_here: Cli, tmp_path: Path) -> None:
    (tmp_path / "callflow.toml").write_text(ZOOM + '[sources.tw]\nprovider = "twilio"\n')
    (tmp_path / "other.toml").write_text(ZOOM.replace("desk", "elsewhere"))
    assert complete(cli_here, "callflow s") == ["sync", "status", "show", "sandbox", "sql", "stop"]
    assert complete(cli_here, "callflow help chan") == ["changes"]
    assert complete(cli_here, "callflow completion ") == ["bash", "zsh", "fish"]
    assert complete(cli_here, "callflow sync --fu") == ["--full"]
    assert complete(cli_here, "callflow sync --log-level w") == ["warning"]
    assert complete(cli_here, "callflow export --format ") == ["csv", "parquet"]
    assert complete(cli_here, "callflow sync ") == ["desk", "tw"]
    assert complete(cli_here, "callflow sync d") == ["desk"]
    assert complete(cli_here, "callflow sync desk.") == ["desk.flows"]
    assert complete(cli_here, "callflow check desk tw.ch") == ["tw.channels"]
    assert complete(cli_here, "callflow -c other.toml runs ") == ["elsewhere"]
    assert complete(cli_here, "callflow show x --source ") == ["desk", "tw"]


@pytest.mark.parametrize("text", ["[sources", "sources = 1", "[sources]\na = 1", "\xff"])
def test_completion_of_names_is_silent_about_a_wrong_configuration(
    cli_here: Cli, tmp_path: Path, text: str
) -> None:
    (tmp_path / "callflow.toml").write_bytes(text.encode("latin-1"))
    assert complete(cli_here, "callflow sync b") == []
    assert complete(cli_here, "callflow sync a.") == []


def test_the_script_for_bash_completes(tmp_path: Path) -> None:
    (tmp_path / "callflow.toml").write_text(ZOOM)
    (tmp_path / "callflow").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m etl "$@"\n')
    (tmp_path / "callflow").chmod(0o755)
    program = (
        'eval "$(callflow completion bash)"; COMP_WORDS=(callflow sync de); COMP_CWORD=2;'
        ' _callflow_completion callflow; echo "${COMPREPLY[@]}"; complete -p callflow'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}",
             "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "desk"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(cli_here: Cli, shell: str) -> None:
    done = cli_here("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_CALLFLOW_COMPLETE=complete_{shell}" in done.stdout

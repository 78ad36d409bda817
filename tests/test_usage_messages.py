"""What a wrong command line or configuration is answered with: what, where, what to do now."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from etl.commands.cli import app
from tests.warm import Warm

ZOOM = """\
[sources.z]
provider = "zoom"
account_id = "a"
client_id = "b"
client_secret = "c"
"""
DAEMON = "[daemon]\nhttp = '0.0.0.0:8787'\n"
AT_SIGN = "[warehouse]\nurl = 'postgresql://u:p@ss@h/db'\n"
URL = "in the user and the password, write @ as %40"

# text of callflow.toml, None: there is none; words; what, where, what to do
ROWS: Sequence[tuple[str | None, str, str, str, str]] = [
    # the command line
    (None, "chek", "there is no command 'chek'", "command line:", "did you mean check?"),
    (None, "version", "there is no command 'version'", "command line", "did you mean --version?"),
    (None, "frob", "there is no command 'frob'", "command line", "`callflow help` lists them"),
    (None, "--confg x check", "there is no option --confg", "command line", "mean --config?"),
    (None, "sync --jsn", "there is no option --jsn", "sync:", "did you mean --json?"),
    (None, "sync -x", "there is no option -x", "sync:", "`callflow sync --help` says more"),
    (None, "show", "FLOW is missing", "show:", "`callflow show --help` says more"),
    (None, "runs --limit 0", "expected a whole number from 1 to 10,000", "--limit", "runs --help"),
    (None, "runs --limit x", "expected a whole number from 1 to 10,000", "--limit", "runs --help"),
    (None, "demo --seed x", "expected a whole number", "demo: --seed", "demo --help"),
    (None, "completion tcsh", "expected bash, zsh or fish", "SHELL", "completion --help"),
    (None, "check --log-level loud", "debug, info, warning or error", "--log-level", "--help"),
    (None, "check -c", "requires an argument", "'-c'", "callflow --help"),
    (None, "help sync runs", "unexpected extra argument", "help", "callflow help --help"),
    (None, "-v -q check", "exclude each other", "--verbose and --quiet", "give one of them"),
    (ZOOM, "check zz", "no source or stream 'zz'", "callflow.toml", "did you mean z?"),
    (ZOOM, "sync z.flow", "no source or stream 'z.flow'", "callflow.toml", "did you mean z.flows?"),
    (ZOOM, "init", "already exists; it was not changed", "callflow.toml", "name another file"),
    (None, "init no/x", "cannot be written: No such file", "no/x:", "or make the directory"),
    # a file that cannot be read
    (None, "sync", "no configuration", "no callflow.toml in /", "`callflow init` writes"),
    (None, "-c x sync", "cannot be read: No such file", "x:", "name another with --config"),
    (None, "-c /tmp sync", "cannot be read: Is a directory", "/tmp:", "name another with --config"),
    (ZOOM + "a = b\n", "sync", "Invalid value", "line 6, column 5", "in straight quotes"),
    (ZOOM + "[schedule\n", "sync", "Expected ']'", "line 6, column 10", "with both brackets"),
    (ZOOM + "a = 1 b = 2\n", "sync", "Expected newline", "line 6, column 7", "its own line"),
    (ZOOM + "a 3\n", "sync", "Expected '='", "line 6, column 3", "its own line"),
    (ZOOM + 'client_id = "d"\n', "sync", "overwrite", "line 6", "each key once per table"),
    (ZOOM + "[sources.z]\n", "sync", "twice", "line 6", "each table once"),
    (ZOOM + 'x = "a\n', "sync", "Illegal character", "line 6", "end each text with a quote"),
    (ZOOM + 'x = "C:\\users"\n', "sync", "hex value", "line 6", "a backslash in text twice"),
    (ZOOM + "x = True\n", "sync", "Invalid value", "line 6, column 5", "true and false in lower"),
    (ZOOM + "x\u00a0= 1\n", "sync", "Expected '='", "line 6, column 2", "put a plain space"),
    ("schedule = '15m'\n", "sync", "expected a table", "schedule (line 1)", "such as [schedule]"),
    (ZOOM + "x = [\n", "sync", "end of document", "line 7", "close what is open"),
    # keys and values
    ("", "sync", "no sources", "callflow.toml", "uncomment a [sources.…] table"),
    (ZOOM.replace('"a"', '"…"'), "sync", "still the placeholder", "(line 3)", "the account ID of"),
    (ZOOM.replace("client_secret", "client_secrit"), "sync", "unknown key",
     "client_secrit (line 5)", "did you mean client_secret?"),
    (ZOOM.replace("client_secret", "#"), "sync", "client_secret (line 1): missing", "sources.z",
     'for example client_secret_file = "/run/secrets/client_secret"'),
    ("[sources]\nz.provider = 'zoom'\nz.client_secrit = 'x'\n", "sync", "unknown key",
     "sources.z.client_secrit (line 3)", "did you mean client_secret?"),
    (ZOOM.replace("zoom", "zom"), "sync", 'expected "zoom", ', "(line 2)", "did you mean zoom?"),
    ("[warehous]\n" + ZOOM, "sync", "unknown key", "warehous (line 1)", "did you mean warehouse?"),
    (ZOOM.replace("s.z", "s.Z-1"), "sync", "expected a name", "sources.Z-1 (line 1)", "[sources.z"),
    (ZOOM + "scan_deadline = 5", "sync", "expected a duration", "scan_deadline (line 6)", '= "2h"'),
    (ZOOM + "[schedule]\nevery = '15 min'", "sync", "with a unit", "every (line 7)",
     'every = "15m"'),
    (ZOOM + "[schedule]\nevery = '1m'\ncron = '* * * * *'", "sync", "together with every",
     "schedule.cron (line 8)", "expected one of the two"),
    (ZOOM + "[schedule]\ncron = '* * *'", "sync", "the five fields", "(line 7)", "cron = "),
    (ZOOM + "[schedule]\ntimezone = 'Europe/Berlim'", "sync", "no such time zone", "(line 7)",
     "did you mean Europe/Berlin?"),
    (ZOOM + DAEMON, "sync", "required because other machines", "(line 6)", "http_token_file = "),
    (ZOOM + AT_SIGN, "sync", "cannot be read", "warehouse.url (line 7)", URL),
    (ZOOM.replace("secret =", "secret_file ="), "sync", "No such file",
     "client_secret_file (line 5)", "expected a file that holds only the secret"),
]  # fmt: skip
VARIABLES = [
    ("CALLFLOW_CONFG", "x", "unknown variable", "$CALLFLOW_CONFG", "did you mean CALLFLOW_CONFIG?"),
    ("CALLFLOW_SOURCES__Z__TIMEOT", "3", "unknown key", "TIMEOT)", "did you mean timeout?"),
    ("CALLFLOW_SOURCES__Z__TIMEOUT", "x", "expected a number of seconds",
     "($CALLFLOW_SOURCES__Z__TIMEOUT)", "for example CALLFLOW_SOURCES__Z__TIMEOUT=30"),
]  # fmt: skip


def answer(
    warm: Warm, place: Path, text: str | None, words: Sequence[str], env: Mapping[str, str]
) -> str:
    """Return what the command says; it exits 2 and prints no result."""
    if text is not None:
        (place / "callflow.toml").write_text(text)
        (place / "callflow.toml").chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    done = warm.run(words, env={**kept, **env}, cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


@pytest.mark.parametrize(("text", "words", "what", "where", "todo"), ROWS)
def test_it_says_what_where_and_what_to_do(
    warm: Warm, tmp_path: Path, text: str | None, words: str, what: str, where: str, todo: str
) -> None:
    said = answer(warm, tmp_path, text, words.split(), {})
    assert said.startswith("callflow: ")
    for part in (what, where, todo):
        assert part in said


@pytest.mark.parametrize(("name", "value", "what", "where", "todo"), VARIABLES)
def test_so_it_does_of_variables(
    warm: Warm, tmp_path: Path, name: str, value: str, what: str, where: str, todo: str
) -> None:
    said = answer(warm, tmp_path, ZOOM, ["sync"], {name: value})
    for part in (what, where, todo):
        assert part in said


def test_so_it_does_of_bytes_that_are_no_text(warm: Warm, tmp_path: Path) -> None:
    bad = os.fsdecode(b"Caf\xe9")
    for words in (
        ["show", bad],
        ["diff", bad],
        ["runs", bad],
        ["sync", "z", bad],
        ["forget", bad, "--yes"],
        ["grant", bad],
        ["grant", "bi", "--writes", bad],
        ["changes", "--by", bad],
        ["sql", f"SELECT '{bad}'"],
    ):
        said = answer(warm, tmp_path, ZOOM, words, {})
        assert said.startswith(f"callflow: {words[0]}: ")
        assert "what was given is not UTF-8 → set the encoding of this terminal" in said


def test_no_path_is_looked_at_before_its_command_does() -> None:
    """Else a file that may not be read is answered without the reason."""
    program: Any = get_command(app)
    checked = {
        (name, each.name)
        for name, command in program.commands.items()
        for each in command.params
        if each.type_descriptor.annotation is Path and each.type_descriptor.parameter_info.readable
    }
    assert not checked


def test_no_variable_is_suggested_that_only_starts_alike(warm: Warm, tmp_path: Path) -> None:
    for name in ("CALLFLOW_DEBUG", "CALLFLOW_ZOOM__CLIENT_SECRET", "CALLFLOW_SOURCES__Z"):
        said = answer(warm, tmp_path, ZOOM, ["sync"], {name: "x"})
        assert f"${name}: unknown variable; expected CALLFLOW_TABLE__KEY, or" in said
        assert "did you mean" not in said


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("a b\n", "expected printable ASCII without spaces"),
        ("…", "is still the placeholder; expected the client secret"),
    ],
)
def test_what_a_file_holds_is_a_problem_of_the_key_that_names_it(
    warm: Warm, tmp_path: Path, held: str, said: str
) -> None:
    (tmp_path / "held").write_text(held, encoding="utf-8")
    (tmp_path / "held").chmod(0o600)
    text = ZOOM.replace('client_secret = "c"', 'client_secret_file = "held"')
    shown = answer(warm, tmp_path, text, ["sync"], {})
    assert f"sources.z.client_secret_file (line 5): in that file: {said}" in shown
    assert "for example" not in shown


@pytest.mark.slow
def test_a_directory_that_was_removed_has_no_configuration(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    done = subprocess.run(
        ["sh", "-c", 'mkdir x && cd x && rmdir ../x && exec "$0" -m etl sync', sys.executable],
        cwd=tmp_path,
        env=kept,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no callflow.toml in this directory, which was removed → `callflow init`" in done.stderr

"""`callflow init`: the questions on a terminal, what it writes, and what it leaves alone."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.commands.setup import Person, interview
from etl.config.example import Entry, write_answers
from etl.config.load import load
from etl.errors import ConfigError
from etl.providers import PROVIDERS
from etl.providers.twilio.source import TwilioSource
from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from tests.providers.toy import TOY
from tests.terminal import at_terminal

AC, SK = "AC" + 32 * "0", "SK" + 32 * "f"
SECRET = "canary-Zq7-secret"


def answers(path: Path, *given: str) -> tuple[list[Entry], str, list[str]]:
    """Return the tables that the answers make, what was said, and the prompts of hidden ones."""
    left, said, unseen = list(given), list[str](), list[str]()

    def hidden(prompt: str) -> str:
        unseen.append(prompt.partition(":")[0])
        return left.pop(0)

    entries = interview(
        Person(said.append, lambda prompt: left.pop(0), hidden), path, (*PROVIDERS, TOY)
    )
    assert not left
    return entries, "\n".join(said), unseen


def test_every_required_key_is_asked_for_and_secrets_are_hidden(tmp_path: Path) -> None:
    path = tmp_path / "callflow.toml"
    entries, _, unseen = answers(path, "zoom", "", "acc", "cid", SECRET, "")
    assert unseen == ["client_secret", "url"]
    write_answers(path, entries)
    text = path.read_text("utf-8")
    assert tomllib.loads(text) == {
        "warehouse": {},
        "sources": {
            "zoom_main": {
                "provider": "zoom",
                "account_id": "acc",
                "client_id": "cid",
                "client_secret_file": "secrets/zoom_main_client_secret",
            }
        },
    }
    assert text.startswith("#:schema callflow.schema.json\n")
    (source,) = load(path, {}).sources.values()
    assert getattr(source, "client_secret").get_secret_value() == SECRET  # noqa: B009
    assert SECRET not in text


def test_only_the_owner_can_read_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "callflow.toml"
    write_answers(path, answers(path, "zoom", "", "a", "b", SECRET, "postgresql://u:p@h/db")[0])
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.rglob("*")}
    assert modes == {
        "callflow.toml": 0o600,
        "secrets": 0o700,
        "zoom_main_client_secret": 0o600,
        "callflow_warehouse_url": 0o600,
    }
    url = load(path, {}).warehouse.url
    assert url and url.get_secret_value() == "postgresql+psycopg://u:p@h/db"


def test_a_wrong_answer_is_asked_again_with_the_reason(tmp_path: Path) -> None:
    entries, said, _ = answers(
        tmp_path / "callflow.toml",
        "9", "twillio", "2",  # the provider
        "Main!", "tw",
        "AC12", "…", AC,
        "a b", "token",
        "mysql://h", "",
    )  # fmt: skip
    for reason in (
        "did you mean twilio?",
        "expected a name of at most 40 characters",
        "expected AC and 32 hexadecimal digits; for example AC0000",
        "is still the placeholder",
        "expected printable ASCII without spaces",
        "expected a URL that starts with postgresql://",
    ):
        assert reason in said
    assert entries[-1].values == {"provider": "twilio", "account_sid": AC}
    assert entries[-1].secrets == {"auth_token": "token"}


def test_another_way_to_log_in_is_asked_for_if_the_first_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "callflow.toml"
    entries, said, _ = answers(path, "twilio", "", AC, "", SK, "", "", "", SK, SECRET, "")
    assert said.count("expected auth_token, or api_key_sid and api_key_secret") == 1
    assert "an API key needs both" in said
    write_answers(path, entries)
    (source,) = load(path, {}).sources.values()
    assert isinstance(source, TwilioSource)
    assert (source.auth_token, source.api_key_sid) == (None, SK)


def test_a_list_is_given_with_commas(tmp_path: Path) -> None:
    given = ("alibaba", "", "id", SECRET, "a, a", "ccc-1, ccc-2", "")
    entries, said, _ = answers(tmp_path / "callflow.toml", *given)
    assert entries[-1].values["instance_ids"] == ["ccc-1", "ccc-2"]
    assert "lists the same instance twice" in said


def test_a_new_provider_is_asked_for_as_it_is_declared(tmp_path: Path) -> None:
    required = [k for k, info in TOY.settings.model_fields.items()
                if info.is_required() and k not in ("name", "base_url")]  # fmt: skip
    assert required
    entries, said, _ = answers(tmp_path / "c.toml", TOY.name, "", *(["x"] * len(required)), "")
    assert TOY.title in said
    assert {*entries[-1].values, *entries[-1].secrets} == {"provider", *required}


def test_secrets_that_are_there_already_are_never_replaced(tmp_path: Path) -> None:
    path, there = tmp_path / "callflow.toml", tmp_path / "secrets" / "zoom_main_client_secret"
    there.parent.mkdir()
    there.write_text("mine")
    entries, said, _ = answers(path, "zoom", "", "zoom_eu", "a", "b", SECRET, "")
    assert "secrets/zoom_main_client_secret is there already" in said
    write_answers(path, entries)
    assert there.read_text() == "mine"
    (tmp_path / "secrets" / "us_warehouse_url").write_text("mine")
    with pytest.raises(ConfigError, match="us_warehouse_url: already exists"):
        answers(tmp_path / "us.toml")


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    entries, _, _ = answers(tmp_path / "callflow.toml", "zoom", "", "a", "b", SECRET, "")
    with pytest.raises(ConfigError, match="choose another path, or make the directory"):
        write_answers(tmp_path / "nowhere" / "callflow.toml", entries)
    assert not list(tmp_path.iterdir())
    # The last file fails: those before it go again, and so does the directory.
    entries[-1].secrets["x/y"] = "z"  # type: ignore[index]
    with pytest.raises(ConfigError, match="cannot be written"):
        write_answers(tmp_path / "callflow.toml", entries)
    assert not list(tmp_path.iterdir())


def test_a_place_where_nothing_can_be_written_is_reported_before_the_first_question(
    tmp_path: Path,
) -> None:
    for path, said in (
        (tmp_path / "nowhere" / "callflow.toml", r"callflow.toml: cannot be written: No such file"),
        (tmp_path / "a_file" / "callflow.toml", "callflow.toml: cannot be written: Not a dir"),
        (tmp_path / "callflow.toml", "secrets/callflow_warehouse_url: cannot be written: Not a di"),
    ):
        (tmp_path / "a_file").touch()
        (tmp_path / "secrets").touch()
        with pytest.raises(ConfigError, match=said):
            answers(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_so_is_a_directory_that_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"callflow\.toml: cannot be written: Permission denied"):
        answers(tmp_path / "callflow.toml")


# --- on a terminal -------------------------------------------------------------------------------
@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(3, 3), seed=3) as running:
        yield running


def test_on_a_terminal_it_asks_writes_and_checks(
    tmp_path: Path, sandbox: Sandbox, database: str
) -> None:
    urls = {
        f"CALLFLOW_SOURCES__ZOOM_MAIN__{key.upper()}": value
        for key, value in tomllib.loads(sandbox.toml())["sources"]["zoom_demo"].items()
        if key in ("base_url", "token_url")
    }
    shown, code = at_terminal(
        ["init"],
        tmp_path,
        [
            ("Provider", "zoom\n"),
            ("Name of the source [zoom_main]", "\n"),
            ("account_id", f"{sandbox.zoom.account_id}\n"),
            ("client_id", f"{sandbox.zoom.client_id}\n"),
            ("client_secret", f"{sandbox.zoom.client_secret}\n"),
            ("url", f"{database.replace('+psycopg', '')}\n"),
        ],
        **urls,
    )
    assert code == 0, shown
    assert "zoom_main.flows" in shown
    assert "Next: callflow sync" in shown
    assert sandbox.zoom.client_secret not in shown
    assert database.partition("://")[2] not in shown


@pytest.mark.slow
def test_ctrl_c_or_the_end_of_input_leaves_nothing(tmp_path: Path) -> None:
    started = [("Provider", "1\n"), ("Name", "\n"), ("account_id", "a\n"), ("client_id", "b\n")]
    shown, code = at_terminal(["init"], tmp_path, [*started, ("client_secret", "\x03")])
    assert (code, list(tmp_path.iterdir())) == (130, [])
    assert "stopped by a signal; nothing was written" in shown
    shown, code = at_terminal(["init"], tmp_path, [*started[:2], ("account_id", "\x04")])
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert "no more input; nothing was written" in shown
    assert "Traceback" not in shown


@pytest.mark.slow
def test_a_secret_that_is_no_text_is_asked_for_again(tmp_path: Path) -> None:
    started = [("Provider", "1\n"), ("Name", "\n"), ("account_id", "a\n"), ("client_id", "b\n")]
    bad = os.fsdecode(b"se\xe9cret\n")
    shown, code = at_terminal(
        ["init"], tmp_path, [*started, ("client_secret", bad), ("client_secret", "\x03")]
    )
    assert (code, list(tmp_path.iterdir())) == (130, []), shown
    assert "expected printable ASCII without spaces" in shown


def test_with_no_input_or_an_existing_file_a_terminal_is_not_asked(tmp_path: Path) -> None:
    shown, code = at_terminal(["init", "--no-input", "eu.toml"], tmp_path, [])
    assert code == 0
    assert "callflow -c eu.toml check" in shown
    written = (tmp_path / "eu.toml").read_bytes()
    shown, code = at_terminal(["init", "eu.toml"], tmp_path, [])
    assert code == 2
    assert "already exists; it was not changed" in shown
    assert (tmp_path / "eu.toml").read_bytes() == written


def test_the_schema_is_printed_without_a_configuration(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "etl", "init", "--schema"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith('{\n  "$schema": "http://json-schema.org/draft-07/schema#"')
    assert not list(tmp_path.iterdir())

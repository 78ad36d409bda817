"""Each message that a newcomer or an operator provokes says what happened, where, and what to do.

Messages about the command line and the configuration file are in tests/test_help.py and
tests/test_config.py, those about the network and proxies in tests/test_proxy.py.
"""

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import make_url

from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from tests.faults.conftest import a_role, as_role, commands
from tests.postgres import Cluster, dsn

SECRETS = {"zoom": "client_secret", "twilio": "auth_token", "alibaba": "access_key_secret"}


@dataclass(frozen=True, slots=True)
class Message:
    """What is done, and the patterns of what is said about it: what, where and what to do.

    `url` changes the warehouse's URL, `sources` the sources of callflow.toml.
    """

    words: tuple[str, ...]
    what: str
    where: str
    do: str
    code: int = 1
    url: Callable[[str], str] = lambda url: url
    sources: Callable[[str], str] = lambda sources: sources
    more: str = field(default="")


def other(**parts: str) -> Callable[[str], str]:
    """Return what replaces parts of a warehouse's URL."""

    def replaced(url: str) -> str:
        made = make_url(url)
        names = {"user": made.username, "password": made.password, "database": made.database}
        user, password, database = {**names, **parts}.values()
        changed = made.set(username=user, password=password, database=database)
        return changed.render_as_string(hide_password=False)

    return replaced


def wrong_secret(key: str) -> Callable[[str], str]:
    return lambda text: re.sub(rf'^{key} = ".*"', f'{key} = "{"0" * 32}"', text, flags=re.M)


def elsewhere(base: str) -> Callable[[str], str]:
    return lambda text: re.sub(
        r'^base_url = "http://[^/"]*', f'base_url = "{base}', text, flags=re.M
    )


MESSAGES = {
    "an unknown source": Message(
        ("sync", "zoom_dem"), "no source or stream 'zoom_dem'", r"callflow\.toml",
        "did you mean zoom_demo", code=2,
    ),
    "an unknown stream": Message(
        ("sync", "zoom_demo.flow"), "no source or stream 'zoom_demo.flow'", r"callflow\.toml",
        r"did you mean zoom_demo\.flows", code=2,
    ),
    "Zoom's secret": Message(
        ("check", "zoom_demo"), "Invalid client_id or client_secret", r"zoom_demo\.flows",
        "check account_id, client_id and client_secret", sources=wrong_secret(SECRETS["zoom"]),
    ),
    "Twilio's secret": Message(
        ("check", "twilio_demo.addresses"), "Twilio refuses the credentials",
        r"twilio_demo\.addresses", "check account_sid with auth_token",
        sources=wrong_secret(SECRETS["twilio"]),
    ),
    "Alibaba's secret": Message(
        ("check", "alibaba_demo.contact_flows"), "SignatureDoesNotMatch",
        r"alibaba_demo\.contact_flows", "check access_key_id and access_key_secret",
        sources=wrong_secret(SECRETS["alibaba"]),
    ),
    "a provider that is down": Message(
        ("check", "zoom_demo"), "Connection refused", r"127\.0\.0\.1:{closed}",
        "check base_url and the network", sources=elsewhere("http://127.0.0.1:{closed}"),
    ),
    "the password of the database": Message(
        ("status",), "password authentication failed", r'"127\.0\.0\.1", port \d+',
        r"check user and password of warehouse\.url", url=other(password="nobodys"),
    ),
    "a database that is missing": Message(
        ("status",), 'database "nodb" does not exist', r'"127\.0\.0\.1", port \d+',
        r"create the database, or correct its name in warehouse\.url", url=other(database="nodb"),
    ),
    "a database server that is down": Message(
        ("status",), "Connection refused", r"port {closed}",
        r"check that the server runs", url=lambda url: re.sub(r":\d+/", ":{closed}/", url),
    ),
    "a role that is missing": Message(
        ("grant", "nobody_there"), "there is no role 'nobody_there'", "warehouse",
        'CREATE ROLE "nobody_there" LOGIN', code=2,
    ),
    "a slip of SQL": Message(
        ("sql", "selct 1"), r'syntax error at or near "selct" \(42601\)', r"LINE 1: selct 1\n +\^",
        "correct the query at the mark", code=2,
    ),
    "a table that is missing": Message(
        ("sql", "SELECT * FROM zoom.flow"), r'"zoom\.flow" does not exist',
        r"LINE 1: SELECT \* FROM zoom\.flow\n +\^", r"did you mean zoom\.flows\?", code=2,
    ),
    "a column that is missing": Message(
        ("sql", "SELECT colour FROM zoom.flows"), 'column "colour" does not exist',
        r"LINE 1: SELECT colour FROM zoom\.flows\n +\^", r"docs/tables\.md", code=2,
    ),
    "SQL that writes": Message(
        ("sql", "DELETE FROM zoom.flows"), "it returns no rows", "sql", "SELECT", code=2,
    ),
    "two statements": Message(
        ("sql", "SELECT 1; SELECT 2"), "multiple commands", "sql", "one statement only", code=2,
    ),
    "no statement": Message(("sql", " "), "the query is empty", "sql", "SELECT", code=2),
    "a flow that is missing": Message(
        ("show", "No such flow"), "'No such flow'", "show", "callflow sql", code=2,
    ),
    "a port that others can reach": Message(
        ("daemon",), "http_token", r"callflow\.toml", "http_token_file", code=2,
        more='[daemon]\nhttp = "0.0.0.0:{closed}"\n',
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(30, 50), seed=3) as running:
        yield running


@pytest.fixture
def closed() -> Iterator[int]:
    """Yield a port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def said(message: Message, warehouse: str, sandbox: Sandbox, closed: int, path: Path) -> str:
    """Return what the command says; assert that it ends as it should."""
    url = message.url(dsn(warehouse))
    text = f'[warehouse]\nurl = "{url}"\n\n{message.more}\n{message.sources(sandbox.toml())}'
    path.write_text(text.replace("{closed}", str(closed)), encoding="utf-8")
    path.chmod(0o600)
    done = commands(path, [*message.words])
    assert done.codes == [message.code], done
    return done.stdout + done.stderr


@pytest.mark.parametrize("provoked", MESSAGES)
def test_a_message_says_what_where_and_what_to_do(
    provoked: str, warehouse: str, sandbox: Sandbox, closed: int, tmp_path: Path
) -> None:
    message = MESSAGES[provoked]
    found = said(message, warehouse, sandbox, closed, tmp_path / "callflow.toml")
    for part in (message.what, message.where, message.do):
        assert re.search(part.replace("{closed}", str(closed)), found), found


def test_a_role_without_rights_is_refused_by_check_and_sync_alike(
    clusters: Callable[[Path], Cluster], bin_dir: Path, database: str, sandbox: Sandbox,
    tmp_path: Path,
) -> None:  # fmt: skip
    with a_role(clusters(bin_dir)) as (name, password):
        path = tmp_path / "callflow.toml"
        url = dsn(as_role(database, name, password))
        path.write_text(f'[warehouse]\nurl = "{url}"\n\n{sandbox.toml()}', encoding="utf-8")
        path.chmod(0o600)
        for words in (["check", "zoom_demo"], ["sync", "zoom_demo"]):
            done = commands(path, words)
            assert done.codes == [1], done
            found = done.stdout + done.stderr
            assert re.search("rights are missing|lacks rights", found), found
            assert name in found
            assert f'CREATE SCHEMA zoom AUTHORIZATION "{name}"' in found


def test_what_was_never_synced_says_how_to_sync_it(
    warehouse: str, sandbox: Sandbox, closed: int, tmp_path: Path
) -> None:
    message = Message(("status",), "", "", "", code=0)
    found = said(message, warehouse, sandbox, closed, tmp_path / "callflow.toml")
    assert re.search(r"zoom_demo\.flows +never run", found), found
    assert "`callflow sync`" in found, found

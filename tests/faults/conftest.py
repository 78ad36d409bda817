"""A warehouse whose role is not a superuser, emulated providers, and the commands in a process."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from tests.postgres import Cluster, dsn

COMMANDS = """
import json, sys
from etl.cli import app
from etl.errors import CallflowError
for words in json.loads(sys.argv[1]):
    try:
        code = app(words, standalone_mode=False)
    except CallflowError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    sys.stdout.flush()
    print("exit", code or 0, *words)
"""
"""Runs commands one after the other in one process: most of a command's time is its start."""


@contextmanager
def a_role(cluster: Cluster, attributes: str = "LOGIN") -> Iterator[tuple[str, str]]:
    """A new role and its password; its databases have to be gone at the end."""
    name, password = f"r_{secrets.token_hex(6)}", secrets.token_urlsafe(9)
    with psycopg.connect(dsn(cluster.server.url("postgres")), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} {} PASSWORD {}").format(
                sql.Identifier(name),
                sql.SQL(attributes),
                password,
            )
        )
        try:
            yield name, password
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def as_role(url: str, name: str, password: str) -> str:
    """`url` for another role."""
    changed = make_url(url).set(username=name, password=password)
    return changed.render_as_string(hide_password=False)


def name_in(url: str) -> tuple[str, str]:
    """Role and database of `url`."""
    parts = make_url(url)
    assert parts.username and parts.database
    return parts.username, parts.database


@pytest.fixture
def loaded(clusters: Callable[[Path], Cluster], bin_dir: Path) -> Iterator[tuple[str, str]]:
    """An empty database that belongs to a role which is no superuser; the same as a superuser."""
    cluster = clusters(bin_dir)
    with a_role(cluster) as (name, password), cluster.database() as url:
        cluster.execute("ALTER DATABASE {} OWNER TO {}", name_in(url)[1], name)
        yield as_role(url, name, password), url


@pytest.fixture(scope="module")
def providers() -> Iterator[Sandbox]:
    with serve(data.Sizes(30, 6, 200, 20), seed=3) as running:
        yield running


def write_config(path: Path, url: str, providers: Sandbox | None) -> Path:
    sources = providers.toml() if providers else ""
    path.write_text(f'[warehouse]\nurl = "{dsn(url)}"\n\n{sources}', encoding="utf-8")
    path.chmod(0o600)
    return path


def commands(path: Path, *lines: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    """Run `callflow …` for each of `lines`; stdout has a line "exit CODE …" after each."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(lines)],
        env={**kept, "CALLFLOW_CONFIG": str(path), **env},
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert " a bug" not in done.stdout + done.stderr, done
    return done


def codes(done: subprocess.CompletedProcess[str]) -> list[int]:
    """The exit codes of `commands`."""
    lines = done.stdout.splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("exit ")]

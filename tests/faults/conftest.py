"""A warehouse whose role is not a superuser, emulated providers, and the commands."""

import io
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from etl.commands.cli import app
from etl.errors import CallflowError
from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from tests.postgres import Cluster, dsn


@contextmanager
def a_role(cluster: Cluster, attributes: str = "LOGIN") -> Iterator[tuple[str, str]]:
    """Yield a new role and its password; its databases must be dropped before the end."""
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
    """Return `url` for another role."""
    changed = make_url(url).set(username=name, password=password)
    return changed.render_as_string(hide_password=False)


def name_in(url: str) -> tuple[str, str]:
    """Return the role and the database of `url`."""
    parts = make_url(url)
    assert parts.username and parts.database
    return parts.username, parts.database


@pytest.fixture
def loaded(clusters: Callable[[Path], Cluster], bin_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield the URL of an empty database as its ordinary owner, and as a superuser."""
    cluster = clusters(bin_dir)
    with a_role(cluster) as (name, password), cluster.database() as url:
        cluster.execute("ALTER DATABASE {} OWNER TO {}", name_in(url)[1], name)
        yield as_role(url, name, password), url


@pytest.fixture(scope="module")
def providers() -> Iterator[Sandbox]:
    with serve(data.Sizes(30, 200), seed=3) as running:
        yield running


def write_config(path: Path, url: str, providers: Sandbox | None) -> Path:
    sources = providers.toml() if providers else ""
    path.write_text(f'[warehouse]\nurl = "{dsn(url)}"\n\n{sources}', encoding="utf-8")
    path.chmod(0o600)
    return path


@dataclass(frozen=True, slots=True)
class Done:
    """What commands said, and their exit codes."""

    codes: list[int]
    stdout: str
    stderr: str


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set these variables in the environment, where libpq looks for its own."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in changes:
            del os.environ[name]
        os.environ.update(before)


def commands(path: Path, *lines: list[str], **env: str) -> Done:
    """Run `callflow …` with the configuration `path` for each of `lines`, in this process.

    A separate process for each would take longer than the command itself.
    """
    stdout, stderr, found = io.StringIO(), io.StringIO(), []
    with redirect_stdout(stdout), redirect_stderr(stderr), environment(env):
        for command, *words in lines:
            try:
                code = app([command, "--config", str(path), *words], standalone_mode=False)
            except CallflowError as error:
                stderr.write(f"callflow: {error}\n")
                code = error.exit_code
            found.append(code or 0)
    done = Done(found, stdout.getvalue(), stderr.getvalue())
    assert "Traceback" not in done.stderr, done
    assert " a bug" not in done.stdout + done.stderr, done
    return done

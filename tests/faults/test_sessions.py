"""Every session is ours: whatever server, database, role, pooler and environment say."""

import signal
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from etl.sandbox.server import Sandbox
from etl.warehouse import SESSION, connect
from tests.daemon.processes import Process, free_port
from tests.faults.conftest import codes, commands, name_in, write_config
from tests.postgres import dsn

HOSTILE = {
    "search_path": '"$user", public, pg_catalog',
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Tokyo",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "extra_float_digits": "-5",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "exit_on_error": "on",
    "client_min_messages": "debug5",
    "statement_timeout": "5s",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "enable_hashjoin": "off",
}

ENVIRONMENT = {
    "PGOPTIONS": "-c search_path=public -c default_transaction_isolation=serializable",
    "PGCLIENTENCODING": "LATIN1",
    "PGDATESTYLE": "German",
    "PGTZ": "America/New_York",
    "PGGEQO": "off",
    "PGAPPNAME": "other",
    "PGTARGETSESSIONATTRS": "standby",
}


def set_for(url: str, admin: str, settings: dict[str, str]) -> None:
    """Set them for the role of `url` in its database; a list of names is one."""
    role, database = name_in(url)
    with psycopg.connect(dsn(admin), autocommit=True) as connection:
        for name, value in settings.items():
            said = sql.SQL(value) if name == "search_path" else sql.Literal(value)
            connection.execute(
                sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(
                    sql.Identifier(role),
                    sql.Identifier(database),
                    sql.SQL(name),
                    said,
                )
            )


def plant(admin: str, *schemas: str) -> None:
    script = (Path(__file__).parent / "planted.sql").read_text(encoding="utf-8")
    with psycopg.connect(dsn(admin)) as connection:
        for schema in schemas:
            connection.execute(script.replace("{schema}", schema).encode())


def ran(admin: str, *schemas: str) -> int:
    """How many planted functions ran."""
    with psycopg.connect(dsn(admin), options="-c search_path=pg_catalog") as connection:
        found = 0
        for schema in schemas:
            query = sql.SQL("SELECT last_value, is_called FROM {}.ran")
            last, called = connection.execute(query.format(sql.Identifier(schema))).fetchall()[0]
            found += last if called else 0
        return found


@pytest.fixture
def hostile(loaded: tuple[str, str]) -> tuple[str, str, tuple[str, ...]]:
    """A database with planted functions, which the settings of the role put first."""
    url, admin = loaded
    schemas = (name_in(url)[0], "public")
    plant(admin, *schemas)
    set_for(url, admin, HOSTILE)
    return url, admin, schemas


def test_no_planted_function_runs_in_any_command(
    hostile: tuple[str, str, tuple[str, ...]], providers: Sandbox, tmp_path: Path
) -> None:
    url, admin, schemas = hostile
    path = write_config(tmp_path / "callflow.toml", url, providers)
    role = name_in(url)[0]
    done = commands(
        path,
        ["check"],
        ["migrate"],
        ["check"],
        ["sync", "--json"],
        ["status", "--json"],
        ["sql", "--csv", "SELECT count(*), max(last_modified_time) FROM zoom.flows"],
        ["grant", role],
        ["sync", "--full"],
        **ENVIRONMENT,
    )
    assert codes(done) == [0] * 8, done
    assert "30,20" in done.stdout
    assert "+00" in done.stdout
    port = free_port()
    path.write_text(
        f'{path.read_text()}\n[schedule]\nevery = "1s"\n[daemon]\nhttp = "127.0.0.1:{port}"\n'
    )
    daemon = Process(path, port)
    try:
        daemon.ran(4, status="complete")
        assert daemon.status()["database"] is None
        daemon.kill(signal.SIGTERM)
        assert daemon.ended() == 0
    finally:
        daemon.close()
    assert ran(admin, *schemas) == 0
    # They would have run: in a session that is not pinned they do.
    calls = ("set_config('a.b'::varchar, 'c'::varchar, true)", "now()", "count(*)", "1 = 2")
    for call in calls:
        with (
            pytest.raises(psycopg.errors.RaiseException, match="planted"),
            psycopg.connect(dsn(url)) as connection,
        ):
            connection.execute(f"SELECT {call}".encode())
    assert ran(admin, *schemas) == len(calls)


def test_every_setting_holds_in_every_transaction(
    hostile: tuple[str, str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _, _ = hostile
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    engine = connect(url)
    settings = {
        **SESSION,
        "transaction_isolation": "read committed",
        "transaction_deferrable": "off",
        "application_name": "callflow",
    }
    query = text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)")
    try:
        with engine.connect() as connection:
            for _ in range(2):
                found = connection.execute(query, {"names": list(settings)}).all()
                assert dict(found) == settings
                connection.rollback()
    finally:
        engine.dispose()

"""What is reported when Postgres refuses: the table, constraint or trigger, and what to do."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, make_url

from etl.config import load as config
from etl.config.redact import Redactor
from etl.errors import SchemaError, WarehouseError
from etl.load.runs import Run
from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import select
from etl.warehouse.connect import connect
from etl.warehouse.translate import translate_errors
from tests.daemon.processes import until
from tests.postgres import dsn

pytestmark = pytest.mark.slow

SECRET = "triggerCanary-77aa88bb"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(5, 0), seed=3) as running:
        yield running


def run(sandbox: Sandbox, engine: Engine, tmp_path: Path, name: str = "zoom_demo.flows") -> Run:
    path = tmp_path / "callflow.toml"
    path.write_text(sandbox.toml(), encoding="utf-8")
    path.chmod(0o600)
    ((source, stream),) = select(config.load(path, {}), [name])
    return run_stream(Job(engine, stream, source, "test:1:unknown", redact=Redactor([SECRET])))


# --- what is the user's own ----------------------------------------------------------------------
THEIRS = {
    "an index": (
        "CREATE UNIQUE INDEX one_name ON zoom.flows (source)",
        "index or constraint one_name on zoom.flows",
    ),
    "a constraint": (
        "ALTER TABLE zoom.flow_versions ADD CONSTRAINT no_drafts CHECK (flow_version < 0)",
        "constraint no_drafts on zoom.flow_versions",
    ),
    "a column": (
        "ALTER TABLE zoom.flows ADD COLUMN owner text NOT NULL",
        "constraint NOT NULL on zoom.flows.owner",
    ),
    "a foreign key": (
        "CREATE TABLE public.known (id text PRIMARY KEY); ALTER TABLE zoom.flows"
        " ADD CONSTRAINT only_known FOREIGN KEY (flow_id) REFERENCES public.known",
        "constraint only_known on zoom.flows",
    ),
    "a trigger": (
        "CREATE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE"
        f" E'no \\x1b[2J +49 151 12345678 {SECRET} a@b.example\\nsecond line'; END $$;"
        "CREATE TRIGGER audit BEFORE INSERT ON zoom.flows FOR EACH ROW"
        " EXECUTE FUNCTION public.audit()",
        "in the function public.audit",
    ),
}


@pytest.mark.every_postgres
@pytest.mark.fault(52)
@pytest.mark.parametrize("kind", THEIRS)
def test_a_users_constraint_or_trigger_that_refuses_a_row_is_named(
    kind: str, sandbox: Sandbox, warehouse: str, engine: Engine, tmp_path: Path
) -> None:
    make, named = THEIRS[kind]
    with psycopg.connect(dsn(warehouse), autocommit=True) as owner:
        owner.execute(make.encode())
    failed = run(sandbox, engine, tmp_path)
    assert (failed.status, failed.error_kind) == ("failed", "database_schema"), failed.error
    error = failed.error or ""
    assert named.removesuffix("public.audit") in error
    assert "audit" in error or kind != "a trigger"
    assert re.search(r"→ .*not callflow's|→ callflow has no such function", error), error
    assert not re.search(r"\x1b|12345678|Canary|a@b|second line|server's log", error), error
    assert error.isprintable()


def test_a_refusal_of_our_own_is_not_blamed_on_the_user(engine: Engine) -> None:
    row = "INSERT INTO zoom.flows (source, flow_id, valid_from) VALUES ('a', 'b', now())"
    for statement in (row + ";" + row, "INSERT INTO zoom.flows (source) VALUES ('a')"):
        with (
            pytest.raises(WarehouseError) as caught,
            translate_errors("x"),
            engine.begin() as connection,
        ):
            connection.exec_driver_sql(statement)
        assert not isinstance(caught.value, SchemaError)
        assert caught.value.advice == "see the server's log"


# --- locks and limits ----------------------------------------------------------------------------
@pytest.mark.every_postgres
@pytest.mark.fault(50)
@pytest.mark.parametrize(
    ("lock", "message"),
    [
        ("LOCK TABLE zoom.flows", r"zoom\.flows is locked by process {} of \w+"),
        ("SELECT FROM zoom.flows FOR UPDATE", r"a row of flows is locked"),
    ],
)
def test_a_locked_table_is_named_and_who_locks_it(
    lock: str, message: str, warehouse: str, engine: Engine
) -> None:
    row = "INSERT INTO zoom.flows (source, flow_id, valid_from) VALUES ('a', 'b', now())"
    with psycopg.connect(dsn(warehouse)) as other:
        other.execute(row.encode())
        other.commit()
        other.execute(lock.encode())
        with (
            pytest.raises(WarehouseError) as caught,
            translate_errors("x", Redactor(), engine),
            engine.begin() as connection,
        ):
            connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
            connection.exec_driver_sql("UPDATE zoom.flows SET flow_name = 'x'")
        assert re.search(message.format(other.info.backend_pid), caught.value.what), caught.value
        assert "end the session" in caught.value.advice


@pytest.mark.fault(50)
def test_a_statement_that_takes_too_long_says_which_limit_ended_it(engine: Engine) -> None:
    with (
        pytest.raises(WarehouseError) as caught,
        translate_errors("x"),
        engine.begin() as connection,
    ):
        connection.exec_driver_sql("SET LOCAL statement_timeout = '20ms'")
        connection.exec_driver_sql("SELECT pg_sleep(60)")
    assert "(57014)" in caught.value.what
    assert "SET statement_timeout" in caught.value.advice


@pytest.mark.fault(51)
def test_a_transaction_that_idles_too_long_says_which_limit_ended_it(
    warehouse: str, engine: Engine
) -> None:
    with (
        psycopg.connect(dsn(warehouse), autocommit=True) as other,
        pytest.raises(WarehouseError) as caught,
        translate_errors("x"),
        engine.connect() as connection,
    ):
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '20ms'")
        gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s"

        def ended() -> bool:
            found = other.execute(gone, (pid,)).fetchone()
            return bool(found and found[0])

        until(ended, "the server ends the session")
        connection.exec_driver_sql("SELECT 1")
    assert "idle_in_transaction_session_timeout" in str(caught.value)


# --- connections that do not come about ----------------------------------------------------------
def advice(url: str, **changes: object) -> tuple[str, str]:
    engine = connect(make_url(url).set(**changes))  # type: ignore[arg-type]
    try:
        with pytest.raises(WarehouseError) as caught, translate_errors("x"), engine.connect():
            pass
    finally:
        engine.dispose()
    assert caught.value.what.startswith("Postgres: ")
    assert "\n" not in caught.value.what
    return caught.value.what, caught.value.advice


@pytest.mark.every_postgres
def test_a_refused_login_is_not_reported_as_a_stopped_server(warehouse: str) -> None:
    assert "user and password" in advice(warehouse, password="wrong")[1]
    assert "user" in advice(warehouse, username="nobody_here")[1]
    what, to_do = advice(warehouse, database="nowhere_here")
    assert "create the database" in to_do
    assert "127.0.0.1" in what
    name = make_url(warehouse).database
    elsewhere = dsn(warehouse).replace(f"/{name}", "/postgres")
    with psycopg.connect(elsewhere, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        assert "let the database accept" in advice(warehouse)[1]
        owner.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        role = f"asleep_{time.monotonic_ns()}"
        owner.execute(f"CREATE ROLE {role} NOLOGIN PASSWORD 'x'".encode())
        assert "LOGIN" in advice(warehouse, username=role, password="x")[1]
        owner.execute(
            f"ALTER ROLE {role} LOGIN; REVOKE CONNECT ON DATABASE {name} FROM PUBLIC".encode()
        )
        assert "GRANT CONNECT" in advice(warehouse, username=role, password="x")[1]
        owner.execute(f"GRANT CONNECT ON DATABASE {name} TO {role}".encode())
        owner.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0".encode())
        assert "max_connections" in advice(warehouse, username=role, password="x")[1]
        owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_server_that_cannot_be_reached_is_reported_as_that(warehouse: str) -> None:
    plain = make_url(warehouse).set(query={}).render_as_string(hide_password=False)
    assert "check that the server runs" in advice(plain, port=1)[1]
    assert "host" in advice(plain, host="nowhere.invalid")[1]
    assert "sslmode" in advice(plain, query={"sslmode": "require"})[1]

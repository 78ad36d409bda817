"""A role needs no more than docs/deploy.md says; what it lacks is reported as SQL."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from etl.sandbox.server import Sandbox
from etl.warehouse import grant
from etl.warehouse.connect import connect
from etl.warehouse.embedded import find_binaries
from etl.warehouse.names import SCHEMAS
from tests.daemon.processes import Process, free_port
from tests.faults.conftest import Done, a_role, as_role, commands, name_in, write_config
from tests.postgres import Cluster, dsn

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def documented() -> tuple[list[str], list[str]]:
    """Return the statements of "Database rights", before and after connecting to the database."""
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    section = page.partition("## Database rights")[2].partition("\n## ")[0]
    (script,) = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    before, found, after = script.partition("\\connect warehouse\n")
    assert found
    return (
        [line for line in before.split(";\n") if line],
        [line for line in after.split(";\n") if line],
    )


@pytest.fixture
def as_documented(
    clusters: Callable[[Path], Cluster], bin_dir: Path
) -> Iterator[tuple[str, str, str]]:
    """Yield the documented database's URLs for the loader, the analyst and an administrator."""
    server = clusters(bin_dir).server
    admin = server.url("warehouse")
    before, after = documented()
    with psycopg.connect(dsn(server.url("postgres")), autocommit=True) as connection:
        try:
            for statement in before:
                connection.execute(statement.encode())
            with psycopg.connect(dsn(admin)) as inside:
                for statement in after:
                    inside.execute(statement.encode())
            yield (
                as_role(admin, "loader", "choose-one"),
                as_role(admin, "analyst", "choose-another"),
                admin,
            )
        finally:
            connection.execute("DROP DATABASE IF EXISTS warehouse WITH (FORCE)")
            connection.execute("DROP ROLE IF EXISTS loader")
            connection.execute("DROP ROLE IF EXISTS analyst")


@pytest.mark.every_postgres
def test_everything_runs_with_the_rights_of_the_document(
    as_documented: tuple[str, str, str], providers: Sandbox, bin_dir: Path, tmp_path: Path
) -> None:
    loader, analyst, admin = as_documented
    port = free_port()
    path = tmp_path / "callflow.toml"
    more = f'\n[schedule]\nevery = "1s"\n[daemon]\nhttp = "127.0.0.1:{port}"\n'
    write_config(path, loader, providers).write_text(path.read_text() + more)
    done = commands(
        path,
        ["check"],
        ["migrate"],
        ["check"],
        ["grant", "analyst"],
        ["sync"],
        ["sync", "--full", "--accept-deletes"],
        ["status"],
        ["sql", "--csv", "SELECT count(*) FROM zoom.flows_history"],
    )
    assert done.codes == [0] * 8, done
    assert "as loader; the first sync creates the tables" in done.stdout
    assert "as loader; the schema is up to date" in done.stdout
    assert "administrator" not in done.stderr
    if bin_dir == find_binaries(os.environ):  # once is enough: it takes its time
        daemon = Process(path, port)
        try:
            daemon.ran(4, status="complete")
            daemon.kill(signal.SIGTERM)
            assert daemon.ended() == 0
        finally:
            daemon.close()
    with psycopg.connect(dsn(analyst), autocommit=True) as connection:
        for readable in ("zoom.flows", "zoom.flows_history", "twilio.channels"):
            connection.execute(f"SELECT FROM {readable}".encode())
        assert connection.execute("SHOW timezone").fetchall() == [("UTC",)]
        assert connection.execute("SHOW statement_timeout").fetchall() == [("5min",)]
        assert connection.execute("SHOW jit").fetchall() == [("off",)]
        for forbidden in (
            "SELECT FROM etl.rejects",
            "SELECT FROM history.zoom_flows",
            "DELETE FROM zoom.flows",
            "UPDATE zoom.flows SET status = ''",
            "TRUNCATE twilio.channels",
            "CREATE TABLE zoom.theirs ()",
            "CREATE SCHEMA theirs",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden.encode())
    with psycopg.connect(dsn(admin)) as connection:
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = ANY(%s)"
        assert connection.execute(owners, [list(SCHEMAS)]).fetchall() == [("loader",)]


# -- what is missing is reported as SQL that grants it --------------------------------------------


def advised(text: str) -> list[str]:
    """Return the statements that an administrator is to run."""
    (found,) = set(re.findall(r"administrator has to run, in this database: (.*;)", text))
    return [f"{each.strip()};" for each in found.split(";") if each.strip()]


def run_as(url: str, *statements: str) -> None:
    with psycopg.connect(dsn(url), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_without_schemas_and_create_the_sql_that_is_printed_is_enough(
    loaded: tuple[str, str], providers: Sandbox, tmp_path: Path
) -> None:
    url, admin = loaded
    role, database = name_in(url)
    run_as(admin, f"ALTER DATABASE {database} OWNER TO {name_in(admin)[0]}", "CREATE SCHEMA zoom")
    path = write_config(tmp_path / "callflow.toml", url, providers)
    done = commands(path, ["check"], ["migrate"], ["sync"])
    assert done.codes == [1, 1, 1], done
    statements = advised(done.stdout)
    assert statements == advised(done.stderr)
    assert statements[0] == f'ALTER SCHEMA zoom OWNER TO "{role}";'
    assert statements[1] == f'CREATE SCHEMA twilio AUTHORIZATION "{role}";'
    assert len(statements) == len(SCHEMAS)
    assert role in done.stdout
    run_as(admin, *statements)
    done = commands(path, ["check"], ["migrate"], ["check"], ["sync"])
    assert done.codes == [0] * 4, done


@pytest.mark.fault(53)
def test_a_right_that_was_taken_away_is_named_with_the_sql_that_gives_it_back(
    clusters: Callable[[Path], Cluster],
    bin_dir: Path,
    warehouse: str,
    providers: Sandbox,
    tmp_path: Path,
) -> None:
    """The tables belong to another role; this one may only use them."""
    with a_role(clusters(bin_dir)) as (role, password):
        path = write_config(
            tmp_path / "callflow.toml", as_role(warehouse, role, password), providers
        )
        try:
            done = commands(path, ["check"], ["sync", "zoom_demo", "--json"])
            assert done.codes == [1, 1], done
            run_as(warehouse, *advised(done.stdout))
            done = commands(path, ["check"], ["sync"], ["status"])
            assert done.codes == [0] * 3, done
            assert f"as {role} (the tables belong to {name_in(warehouse)[0]})" in done.stdout
            run_as(warehouse, f"REVOKE INSERT, DELETE ON zoom.entry_points FROM {role}")
            done = commands(path, ["check"])
            given = f'GRANT INSERT, DELETE ON "zoom"."entry_points" TO "{role}";'
            assert advised(done.stdout) == [given]
            run_as(warehouse, f"REVOKE INSERT ON etl.absences FROM {role}")
            run_as(warehouse, f"REVOKE SELECT ON zoom.flows FROM {role}")
            done = commands(path, ["sync", "zoom_demo", "--json"])
            assert done.codes == [1]
            assert "permission denied for table flows" in done.stdout
            assert f"the role '{role}' lacks rights" in done.stdout
            assert len(advised(done.stdout.replace('\\"', '"'))) == 3
        finally:
            run_as(warehouse, f"DROP OWNED BY {role}")


@pytest.mark.fault(53)
def test_tables_and_columns_that_are_gone_are_named_with_the_sql_that_makes_them(
    warehouse: str, providers: Sandbox, tmp_path: Path
) -> None:
    path = write_config(tmp_path / "callflow.toml", warehouse, providers)
    run_as(
        warehouse,
        "DROP TABLE etl.absences",
        "ALTER TABLE twilio.channels DROP COLUMN task_sid CASCADE",
    )
    done = commands(path, ["check"], ["sync", "--json"])
    assert done.codes == [1, 1]
    assert "`callflow check`: it names what is missing" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    statements = line.partition("create them again: ")[2].split("; ")
    assert [each.split("(")[0].strip() for each in statements] == [
        "CREATE TABLE etl.absences",
        "ALTER TABLE twilio.channels ADD COLUMN task_sid TEXT;",
    ]
    run_as(warehouse, *statements)
    assert commands(path, ["check"], ["sync"]).codes == [0, 0]


def test_check_writes_nothing(warehouse: str, providers: Sandbox, tmp_path: Path) -> None:
    query = """SELECT ARRAY(SELECT oid FROM pg_class ORDER BY 1), ARRAY(
        SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_all_tables
        WHERE schemaname = ANY(%s) ORDER BY relid)"""

    def state() -> object:
        with psycopg.connect(dsn(warehouse)) as connection:
            return connection.execute(query, [list(SCHEMAS)]).fetchall()

    before = state()
    done = commands(write_config(tmp_path / "callflow.toml", warehouse, providers), ["check"])
    assert done.codes == [0]
    assert state() == before


# -- grant ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reader:
    """A role that is to be granted rights, and how to connect as whom.

    `config` is for `url`, the loader that owns the database and is no member of the role.
    """

    name: str
    url: str
    admin: str
    password: str
    config: Path

    @property
    def own(self) -> str:
        """The URL for the role itself."""
        return as_role(self.url, self.name, self.password)


@pytest.fixture
def reader(
    loaded: tuple[str, str],
    clusters: Callable[[Path], Cluster],
    bin_dir: Path,
    tmp_path: Path,
) -> Iterator[Reader]:
    """Yield a new role; at the end, what it owns is dropped."""
    url, admin = loaded
    path = write_config(tmp_path / "callflow.toml", url, None)
    with a_role(clusters(bin_dir)) as (name, password):
        try:
            yield Reader(name, url, admin, password, path)
        finally:
            run_as(admin, f"DROP OWNED BY {name} CASCADE")


def left_to_run(done: Done) -> list[str]:
    """Return the statements that `callflow grant` leaves to an administrator."""
    return re.findall("^  (.*;)$", done.stderr, re.MULTILINE)


def test_grant_does_what_it_may_and_prints_the_rest(reader: Reader) -> None:
    name, admin, path = reader.name, reader.admin, reader.config
    done = commands(path, ["migrate"], ["grant", name])
    assert done.codes == [0, 0], done
    assert "can read the schemas" in done.stdout
    left = left_to_run(done)
    assert left == [
        f"ALTER ROLE \"{name}\" SET timezone = 'UTC';",
        f"ALTER ROLE \"{name}\" SET statement_timeout = '5min';",
        f"ALTER ROLE \"{name}\" SET jit = 'off';",
    ]
    run_as(admin, *left)
    done = commands(path, ["grant", name])
    assert (done.codes, done.stderr) == ([0], "")
    with psycopg.connect(dsn(reader.own)) as connection:
        assert connection.execute("SELECT count(*) FROM zoom.flows").fetchall() == [(0,)]
    # A table of another owner: its SELECT cannot be granted, so this is no success.
    run_as(admin, "CREATE TABLE zoom.theirs ()")
    done = commands(path, ["grant", name])
    assert done.codes == [1], done
    assert "can read" not in done.stdout
    left = left_to_run(done)
    assert any("ON ALL TABLES IN SCHEMA zoom" in each for each in left)
    run_as(admin, *left)
    assert commands(path, ["grant", name]).codes == [0]


def test_a_schema_to_write_to_is_made_or_printed(reader: Reader) -> None:
    name, admin, path = reader.name, reader.admin, reader.config
    run_as(admin, *(f"ALTER ROLE {name} SET {n} = '{v}'" for n, v in grant.SETTINGS))
    done = commands(path, ["migrate"], ["grant", name, "--writes", 'dbt "100%"'])
    assert done.codes == [0, 1], done
    assert "can read the schemas" in done.stdout
    assert "can write" not in done.stdout
    left = left_to_run(done)
    assert left == [f'CREATE SCHEMA "dbt ""100%""" AUTHORIZATION "{name}";']
    run_as(admin, *left)
    run_as(reader.url, "CREATE SCHEMA marts")
    for schema in ('dbt "100%"', "marts"):
        done = commands(path, ["grant", name, "--writes", schema])
        assert (done.codes, done.stderr) == ([0], ""), done
        assert f"{name} can write to the schema {schema}." in done.stdout
    run_as(reader.own, 'CREATE TABLE "dbt ""100%""".t ()', "CREATE VIEW marts.v AS SELECT 1")


@pytest.mark.fault(70)
def test_every_password_connects_and_none_is_shown(
    clusters: Callable[[Path], Cluster], bin_dir: Path, warehouse: str, tmp_path: Path
) -> None:
    """A password that the URL escapes reaches the server unescaped."""
    passwords = [
        "p@ss:w/rd",
        "100%",
        "%41%2f",
        "a b+c",
        "#?&=",
        "'\"\\",
        "ünï😀",
        "$$",
        "[x]",
        "é%",
    ]
    with a_role(clusters(bin_dir)) as (role, _):
        for password in passwords:
            change = sql.SQL("ALTER ROLE {} PASSWORD {}")
            with psycopg.connect(dsn(warehouse), autocommit=True) as connection:
                connection.execute(change.format(sql.Identifier(role), password))
            url = as_role(warehouse, role, password)
            assert make_url(url).password == password
            engine = connect(dsn(url))
            with engine.connect() as connected:
                assert connected.exec_driver_sql("SELECT current_user").scalar_one() == role
            assert password not in f"{engine!r} {engine.url}"
            engine.dispose()

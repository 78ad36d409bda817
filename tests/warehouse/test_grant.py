"""Rights of a role that reads, on a server that gives no right to everyone."""

import secrets
from collections.abc import Iterator

import pytest
from psycopg import errors
from sqlalchemy import Engine
from sqlalchemy.exc import ProgrammingError

from etl.errors import ConfigError
from etl.warehouse import grant
from etl.warehouse.names import SCHEMAS, name_of


@pytest.fixture
def role(engine: Engine) -> Iterator[str]:
    """Yield a new role whose name needs quotes, and in which % is no placeholder."""
    name = f'bi 100%s "{secrets.token_hex(4)}"'
    quoted = name_of(name).replace("%", "%%")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {quoted}")
    yield name
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {quoted} CASCADE")
        connection.exec_driver_sql(f"DROP ROLE {quoted}")


def run(engine: Engine, role: str, query: str) -> object:
    """Return the one value of a query, asked as `role`."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {name_of(role).replace('%', '%%')}")
        return connection.exec_driver_sql(query).scalar()


@pytest.mark.every_postgres
def test_functions_can_be_called_where_not_everyone_may(engine: Engine, role: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA callflow FROM PUBLIC")
        connection.exec_driver_sql(
            "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
        )
    for let in (grant.grant, grant.let_read):
        with engine.begin() as connection:
            let(connection, role)
            made = f"callflow.later_{let.__name__}"
            connection.exec_driver_sql(
                f"CREATE FUNCTION {made}() RETURNS int LANGUAGE sql AS 'SELECT 1'"
            )
        assert run(engine, role, "SELECT callflow.moment()") is None
        assert run(engine, role, "SELECT count(*) FROM callflow.flows_at(now())") == 0
        assert run(engine, role, f"SELECT {made}()") == 1
        with engine.begin() as connection:
            quoted = name_of(role).replace("%", "%%")
            connection.exec_driver_sql(f"DROP OWNED BY {quoted}")
    with pytest.raises(ProgrammingError) as caught:
        run(engine, role, "SELECT callflow.moment()")
    assert isinstance(caught.value.orig, errors.InsufficientPrivilege)


def test_a_missing_right_on_a_function_is_given_again(engine: Engine, role: str) -> None:
    with engine.begin() as connection:
        grant.let_read(connection, role)
        connection.exec_driver_sql("REVOKE EXECUTE ON FUNCTION callflow.moment() FROM PUBLIC")
        quoted = name_of(role).replace("%", "%%")
        connection.exec_driver_sql(f"REVOKE EXECUTE ON FUNCTION callflow.moment() FROM {quoted}")
        grant.let_read(connection, role)
    assert run(engine, role, "SELECT callflow.moment()") is None


def test_a_role_gets_its_settings_once(engine: Engine, role: str) -> None:
    of_role = "SELECT rolconfig FROM pg_roles WHERE rolname = %(role)s"
    for _ in range(2):
        with engine.begin() as connection:
            assert grant.grant(connection, role) == grant.Grants(True, True, [])
            found = connection.exec_driver_sql(of_role, {"role": role}).scalar_one()
    assert found == ["TimeZone=UTC", "statement_timeout=5min", "jit=off"]


def test_a_schema_belongs_to_the_role_that_writes_to_it(engine: Engine, role: str) -> None:
    owner = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'dbt; DROP'"
    for _ in range(2):
        with engine.begin() as connection:
            assert grant.grant(connection, role, writes="dbt; DROP").writes
            assert connection.exec_driver_sql(owner).scalar_one() == role
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {name_of(role).replace('%', '%%')}")
        connection.exec_driver_sql('CREATE TABLE "dbt; DROP".model ()')


@pytest.mark.parametrize(
    "schema",
    [*SCHEMAS, "pg_catalog", "pg_mine", "information_schema", "", "a\0b", "x" * 64, "ä" * 32],
)
def test_a_schema_that_cannot_be_a_role_s_own_is_refused(emptied: Engine, schema: str) -> None:
    with emptied.begin() as connection, pytest.raises(ConfigError, match=r"--writes: .* → name "):
        grant.grant(connection, "callflow", writes=schema)

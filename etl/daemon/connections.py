"""The daemon's connections to the warehouse, and transactions that wait for nothing long."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.errors import CallflowError
from etl.warehouse import migrate
from etl.warehouse.connect import connect, database_url
from etl.warehouse.denied import suggest_grants
from etl.warehouse.translate import translate_errors

_SESSION = """SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '3s';
              SET LOCAL idle_in_transaction_session_timeout = '60s'"""


@dataclass(frozen=True, slots=True)
class Engines:
    """Two pools of connections: the daemon's own ones never wait for those of its runs."""

    own: Engine
    runs: Engine

    def dispose(self, *, close: bool) -> None:
        """Let go of the connections; `close` them too, which no run may use then."""
        for engine in (self.own, self.runs):
            engine.dispose(close=close)


def engines(settings: Settings, env: Mapping[str, str], note: Callable[[str], None]) -> Engines:
    """Make the engines; start the embedded Postgres if the settings name no server.

    `note` is called with what a person should know of that start.
    """
    url = database_url(settings, env, note)
    return Engines(connect(url), connect(url, most=None))


def fit_schema(engine: Engine, *, with_migrate: bool, redact: Redactor) -> bool:
    """Make the tables if there are none; return whether the schema had to be changed.

    `with_migrate` allows a schema that is behind to be brought to head. Raises SchemaError when it
    does not fit, and WarehouseError.
    """
    with suggest_grants(engine, "warehouse", redact):
        with transaction(engine) as connection:
            state = migrate.state(connection)
        migrate.fit(state, engine.url, behind_too=with_migrate)
    return state != "head"


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that waits for nothing longer than a few seconds."""
    with engine.begin() as connection:
        connection.exec_driver_sql(_SESSION)
        yield connection


def attempt(engine: Engine, redact: Redactor, write: Callable[..., Any], *values: Any) -> Any:
    """Call `write(connection, *values)` in a transaction and return what it returns.

    None means that the warehouse could not be reached; the daemon goes on without this write.
    """
    with (
        suppress(CallflowError),
        translate_errors("daemon", redact),
        transaction(engine) as connection,
    ):
        return write(connection, *values)
    return None

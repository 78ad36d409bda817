"""`callflow check`: is everything there that a sync needs? It writes nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from psycopg import Connection as PsycopgConnection
from sqlalchemy import Connection

from etl.config.redact import Redactor
from etl.config.settings import Settings, redactor
from etl.errors import CallflowError, SchemaError, WarehouseError, internal
from etl.providers.declare import open_http, request
from etl.status import query
from etl.sync.selection import Unit
from etl.warehouse import embedded, migrate, rights
from etl.warehouse.connect import connect, database_url
from etl.warehouse.rights import plain_rights


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was looked at, whether it is good, and what was found."""

    subject: str
    good: bool
    text: str


def check(settings: Settings, units: Sequence[Unit], env: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the configuration, the warehouse, and every stream's credentials and rights.

    Whatever goes wrong with one of them is its finding, and the next one is looked at.
    """
    redact = redactor(settings)
    where = settings.path or "the environment"
    yield Finding("config", True, f"{where}: {len(settings.sources)} sources")
    for warning in settings.warnings:
        yield Finding("config", True, f"note: {warning}")
    warehouse = _finding("warehouse", lambda: _warehouse(settings, env, redact), redact)
    yield warehouse
    if warehouse.good:
        yield from _leftovers(settings, env, redact)
    for source, stream in units:
        probe = partial(_probe, (source, stream), redact)
        yield _finding(f"{source.name}.{stream.name}", probe, redact)


def _probe(unit: Unit, redact: Redactor) -> str:
    source, stream = unit
    with open_http(source, stream, redact=redact) as http:
        return stream.probe(http, request(source, stream))


def _finding(subject: str, look: Callable[[], str], redact: Redactor) -> Finding:
    try:
        return Finding(subject, True, redact.message(look()))
    except CallflowError as error:
        wrong = error
    except Exception as error:  # noqa: BLE001 - what comes next may be well
        wrong = internal(error)
    return Finding(subject, False, redact.message(str(wrong).removeprefix(f"{subject}: ")))


def _warehouse(settings: Settings, env: Mapping[str, str], redact: Redactor) -> str:
    if settings.warehouse.url is None:
        data_dir = settings.warehouse.data_dir or embedded.default_data_dir()
        if not embedded.exists(data_dir, env):
            binaries = embedded.find_binaries(env)
            return f"embedded Postgres ({binaries}); the first sync makes its data in {data_dir}"
    url = database_url(settings, env)
    engine = connect(url)
    try:
        with plain_rights(engine, "warehouse", redact), engine.connect() as connection:
            return _judged(connection)
    finally:
        engine.dispose()


def _leftovers(settings: Settings, env: Mapping[str, str], redact: Redactor) -> Iterator[Finding]:
    """What has rows and is no longer configured. Nothing is wrong with it, it may be meant so."""
    url = settings.warehouse.url
    if url is None and not embedded.exists(
        settings.warehouse.data_dir or embedded.default_data_dir(), env
    ):
        return
    engine = connect(database_url(settings, env))
    try:
        with plain_rights(engine, "warehouse", redact), engine.connect() as connection:
            here = migrate.state(connection) == "head"
        streams = query.status(engine, settings).streams if here else ()
    except CallflowError as error:
        yield Finding("warehouse", False, redact.message(str(error)))
        return
    finally:
        engine.dispose()
    found = {left.name: left for stream in streams for left in stream.leftovers}
    for name, left in found.items():
        yield Finding(name, True, redact.message(f"note: {left.problem} → {left.advice}"))


def _judged(connection: Connection) -> str:
    """What a sync needs of the database is tried in the open transaction, and rolled back."""
    connection.exec_driver_sql("SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '30s'")
    version = str(connection.exec_driver_sql("SHOW server_version").scalar_one())
    raw = connection.connection.driver_connection
    assert isinstance(raw, PsycopgConnection)
    # As it is connected: the URL may name several hosts, or none.
    place = f"{raw.info.host}:{raw.info.port}/{raw.info.dbname}, PostgreSQL {version}"
    if int(version.split(".")[0].split(" ")[0]) < 15:
        raise WarehouseError(f"{place}: too old", advice="use PostgreSQL 15 or newer")
    ours = rights.standing(connection)
    who = f"{place}, as {ours.role}"
    owners = [owner for owner in ours.owners if owner != ours.role]
    who += f" (the tables belong to {', '.join(owners)})" if owners else ""
    if ours.why_read_only:
        raise WarehouseError(
            f"{who}: {ours.why_read_only}",
            advice="name the server that takes writes in warehouse.url, or have that setting reset",
        )
    state = migrate.state(connection)
    if state == "unknown":
        raise migrate.newer()
    if missing := rights.missing(connection, migrating=state != "head"):
        raise WarehouseError(f"{who}: rights are missing", advice=rights.advice(missing))
    if state == "behind":
        raise SchemaError(f"{who}: the schema is behind", advice="run `callflow migrate`")
    if state == "empty":
        migrate.to_head(connection)
        connection.rollback()
        return f"{who}; the first sync makes the tables"
    if lost := rights.lost(connection):
        raise SchemaError(
            f"{who}: the schema is at head, and something of it is gone",
            advice=f"restore it from a backup, or make it again: {' '.join(lost)}",
        )
    rights.rehearse(connection)
    connection.rollback()
    return f"{who}; the schema is up to date"

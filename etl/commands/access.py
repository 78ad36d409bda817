"""Engines for the configured warehouse, as commands need them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from etl.commands.output import note
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.errors import WarehouseError
from etl.load import lead
from etl.load.lease import is_dead
from etl.warehouse import embedded, grant, migrate
from etl.warehouse.connect import connect, database_url, embedded_server, normalise
from etl.warehouse.denied import suggest_grants
from etl.warehouse.roles import READER
from etl.warehouse.translate import translate_errors


@contextmanager
def warehouse(
    settings: Settings,
    redact: Redactor,
    *,
    allow_behind: bool = False,
    notes: bool = False,
    to_read: bool = False,
    unchanged: bool = False,
) -> Iterator[Engine]:
    """Yield an engine for the configured warehouse; create the tables if there are none.

    `unchanged` creates nothing, also no embedded Postgres: then SchemaError is raised instead.
    `notes` prints what a person should know about the embedded Postgres. `to_read` reports only
    the rights to read as missing. Errors of the block pass through `suggest_grants`.

    Raises WarehouseError; SchemaError if the schema is newer than this version, or behind unless
    `allow_behind`.
    """
    if unchanged and settings.warehouse.url is None:
        place = settings.warehouse.data_dir or embedded.default_data_dir()
        if not embedded.exists(place):
            raise migrate.empty()
    url = database_url(settings, os.environ, note if notes else lambda _: None)
    engine = connect(url)
    try:
        with suggest_grants(engine, "warehouse", redact):
            with engine.begin() as connection:
                if to_read and migrate.is_hidden(connection):
                    raise migrate.hidden(str(engine.url.username))
                state = migrate.state(connection)
            if unchanged and state == "empty":
                raise migrate.empty()
            migrate.fit(state, url, behind_too=allow_behind)
            yield engine
    finally:
        engine.dispose()


@contextmanager
def reading(
    settings: Settings, redact: Redactor, *, any_query: bool = False
) -> Iterator[tuple[Engine, str]]:
    """Yield an engine that reads, and the advice for a query that lacks a right.

    Its role is that of `warehouse.read_url`, or the reader of the embedded Postgres. With neither
    it is the role of `warehouse.url`; if that role can do more than read, and the engine is for
    `any_query`, a note says so.

    Raises WarehouseError, and SchemaError as `warehouse` does unless the role cannot see the
    schema's version.
    """
    denied = "use a role that has it; `callflow grant ROLE` gives what analysts need"
    given = settings.warehouse
    if given.read_url is not None:
        url = normalise(given.read_url.get_secret_value())
    elif given.url is not None:
        url = normalise(given.url.get_secret_value())
    else:
        server = embedded_server(settings, os.environ)
        embedded.prove_reader(server)
        with warehouse(settings, redact) as owner, owner.begin() as connection:
            grant.let_read(connection, READER)
        url = normalise(server.reader_url())
        denied = f"{READER} only reads; as the owner: {server.psql()}"
    engine = connect(url)
    try:
        if given.read_url is None and given.url is not None:
            with translate_errors("warehouse", redact):
                with engine.begin() as connection:
                    state = "head" if migrate.is_hidden(connection) else migrate.state(connection)
                    more = grant.more_than_reads(connection)
                migrate.fit(state, url, behind_too=False)
            if more and any_query:
                note(f"{more} → set warehouse.read_url to a role that only reads")
        yield engine, denied
    except WarehouseError as error:
        if given.read_url is not None:
            error.advice = error.advice.replace("warehouse.url", "warehouse.read_url")
        raise
    finally:
        engine.dispose()


def leader_on(settings: Settings, data_dir: Path) -> str | None:
    """Return the daemon that leads on the embedded Postgres of `data_dir`, if it is alive.

    Does not start the server. Raises whatever goes wrong.
    """
    if not embedded.is_running(data_dir):
        return None
    engine = connect(database_url(settings, os.environ))
    try:
        with engine.begin() as connection:
            leader = lead.leader(connection)
    finally:
        engine.dispose()
    return None if leader is None or is_dead(leader) else leader

"""`callflow check`: look whether everything that a sync needs is there. Writes nothing."""

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg import Connection as PsycopgConnection
from rich.markup import escape
from sqlalchemy import Connection

from etl.commands.output import print_lines, stdout
from etl.config.redact import Redactor, harmless
from etl.config.settings import Settings
from etl.errors import CallflowError, ProviderError, SchemaError, WarehouseError, internal
from etl.load.runs import Past
from etl.providers.declare import open_http, request
from etl.status import queries
from etl.sync.available import NEVER, Before, excuse
from etl.sync.selection import Unit, name_of, select
from etl.warehouse import denied, embedded, migrate, rights
from etl.warehouse.connect import connect, database_url


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: the subject, whether it is good, and what was found.

    `there` is False for a list that is not available, or has ended; that is no failure.
    """

    subject: str
    good: bool
    text: str
    there: bool = True


def run(settings: Settings, redact: Redactor, names: Sequence[str]) -> int:
    """Print one line for each finding; return the exit code."""
    good, results, units = True, stdout(), select(settings, names)
    width = max(len(name) for name in ("warehouse", *map(name_of, units)))
    indent = 7 + width
    for finding in check(settings, units, os.environ, redact):
        mark = "[green]ok  [/green]" if finding.there else "[yellow]none[/yellow]"
        mark = mark if finding.good else "[red]FAIL[/red]"
        text = escape(harmless(finding.text))
        subject = escape(finding.subject)
        if indent <= results.width // 2:
            print_lines(results, f"{mark} {subject:<{width}}  {text}", indent)
        else:
            print_lines(results, f"{mark} {subject}\n     {text}", 5)
        good &= finding.good
    return 0 if good else 1


def check(
    settings: Settings, units: Sequence[Unit], env: Mapping[str, str], redact: Redactor
) -> Iterator[Finding]:
    """Check the configuration, the warehouse, and the credentials and rights of every stream.

    Yields findings in that order. Whatever goes wrong is a finding as well, and the next subject
    is still checked: raises nothing.
    """
    where = settings.path or "the environment"
    count = len(settings.sources)
    yield Finding("config", True, f"{where}: {count} source{'' if count == 1 else 's'}")
    for warning in settings.warnings:
        yield Finding("config", True, f"note: {warning}")
    ended: set[str] = set()
    yield from _guarded("warehouse", _warehouse(settings, env, ended, redact), redact)
    for unit in units:
        yield from _guarded(name_of(unit), _probe(unit, ended, redact), redact)


def _guarded(subject: str, findings: Iterator[Finding], redact: Redactor) -> Iterator[Finding]:
    """Yield `findings`; an error that they raise becomes the last one, about `subject`."""
    try:
        for each in findings:
            yield replace(each, text=redact.message(each.text))
        return
    except CallflowError as error:
        wrong = error
    except Exception as error:  # noqa: BLE001 - the next subject may be fine
        wrong = internal(error)
    text = str(wrong).removeprefix(f"{subject}: ").removeprefix(f"{subject}, ")
    yield Finding(subject, False, redact.message(text))


def _probe(unit: Unit, known_to_end: Container[str], redact: Redactor) -> Iterator[Finding]:
    """Ask the stream's list for a first row; `known_to_end` are streams whose last run found so."""
    (source, stream), name = unit, name_of(unit)
    before = (
        Before((Past("not_available", "ended", None, None),)) if name in known_to_end else NEVER
    )
    try:
        with open_http(source, stream, redact=redact) as http:
            text = stream.probe(http, request(source, stream))
    except ProviderError as error:
        reason = excuse(stream, error, where=name, before=before)
        if reason is None:
            raise
        words = "ended, no failure" if reason.kind == "ended" else "not available, no failure"
        text = f"{words}: {reason.what} → {reason.advice}"
        yield Finding(name, True, text, there=False)
        return
    yield Finding(name, True, text)


def _warehouse(
    settings: Settings, env: Mapping[str, str], ended: set[str], redact: Redactor
) -> Iterator[Finding]:
    """Check the warehouse, and list what has rows but is no longer configured.

    Adds to `ended` the streams that have ended by their last runs. What is no longer configured is
    only a note, because it may be intended. All of it on one connection.
    """
    if settings.warehouse.url is None:
        data_dir = settings.warehouse.data_dir or embedded.default_data_dir()
        if not embedded.exists(data_dir, env):
            binaries = embedded.find_binaries(env)
            text = f"embedded Postgres ({binaries}); the first sync makes its data in {data_dir}"
            yield Finding("warehouse", True, text)
            return
    engine = connect(database_url(settings, env))
    try:
        with denied.suggest_grants(engine, "warehouse", redact):
            with engine.connect() as connection, connection.begin() as tried:
                found = _judged(connection)
                tried.rollback()
            yield Finding("warehouse", True, found)
            with engine.begin() as connection:
                if migrate.state(connection) != "head":
                    return
                streams = queries.overview(connection, settings, redact).streams
    finally:
        engine.dispose()
    ended.update(stream.name for stream in streams if stream.state == "ended")
    for left in {left.name: left for stream in streams for left in stream.leftovers}.values():
        yield Finding(left.name, True, f"note: {left.problem} → {left.advice}")


def _judged(connection: Connection) -> str:
    """Try what a sync does in the open transaction, to be rolled back; return what was found.

    Raises WarehouseError, SchemaError, and what Postgres raises.
    """
    connection.exec_driver_sql("SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '30s'")
    version = str(connection.exec_driver_sql("SHOW server_version").scalar_one())
    raw = connection.connection.driver_connection
    assert isinstance(raw, PsycopgConnection)
    # From the connection, because the URL may name several hosts, or none.
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
            advice="name a server that accepts writes in warehouse.url, or have that setting reset",
        )
    state = migrate.state(connection)
    migrate.require_known(state)
    if missing := rights.missing(connection, migrating=state != "head"):
        raise WarehouseError(f"{who}: rights are missing", advice=denied.advice(missing))
    if state == "behind":
        raise SchemaError(f"{who}: the schema is behind", advice="run `callflow migrate`")
    if state == "empty":
        migrate.to_head(connection)
        return f"{who}; the first sync creates the tables"
    if lost := rights.lost(connection):
        raise SchemaError(
            f"{who}: the schema is up to date, but parts of it are missing",
            advice=f"restore them from a backup, or create them again: {' '.join(lost)}",
        )
    rights.rehearse(connection)
    return f"{who}; the schema is up to date"

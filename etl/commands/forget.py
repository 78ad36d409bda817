"""`callflow forget`: move rows of what is no longer configured from the current tables to history.

Forgets a source, one stream of it (SOURCE.STREAM), or one scope of its lists (SOURCE/INSTANCE),
unless that is configured. All of it is one transaction, under the leases of the streams: children
first, one closed version per row, then the bookkeeping for the next run.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import typer
from rich.markup import escape
from sqlalchemy import Connection, Engine

from etl.commands.access import warehouse
from etl.commands.output import note, stderr, stdout
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.config.values import did_you_mean
from etl.errors import ConfigError, StoppedError
from etl.load import lead, leftovers, runs, stage
from etl.load import lease as leases
from etl.load.lease import is_dead, process_name
from etl.providers import PROVIDERS, named
from etl.providers.declare import Stream, scopes, streams_of
from etl.sync.selection import name_of_scope
from etl.warehouse.denied import suggest_grants

_SESSION = """SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '5s';
              SET LOCAL idle_in_transaction_session_timeout = '60s'"""

STREAMS: tuple[Stream, ...] = tuple(stream for each in PROVIDERS for stream in each.streams)


@dataclass(frozen=True, slots=True)
class Left:
    """The rows and bookkeeping of a source, or of a part of it, that is no longer configured.

    `name`     the argument of `callflow forget` for it.
    `scope`    the scope, if only one is left.
    `streams`  the sorted names of its streams that have rows or bookkeeping.
    `rows`     full name of each current table → how many of its rows; parents first, no zeros.
    """

    name: str
    source: str
    scope: str | None
    streams: tuple[str, ...]
    rows: Mapping[str, int]


# --- the command ---------------------------------------------------------------------------------
def run(settings: Settings, redact: Redactor, name: str, *, yes: bool) -> None:
    """Forget `name`, and say what was moved; without `yes`, ask first.

    Raises ConfigError if it is still configured, if nothing ever had that name, or if there is no
    terminal to ask on; BusyError while one of its streams is being synced.
    """
    with warehouse(settings, redact) as engine, suggest_grants(engine, "forget", redact):
        with engine.begin() as connection:
            left = find(connection, settings, name)
            leader = lead.leader(connection)
        if left is not None and not yes:
            _confirm(left)
        moved = left and move_to_history(engine, settings, name, process_name())
    if moved is None:
        stdout().print(f"Nothing is left of {escape(name)}: it was forgotten already.")
        return
    for table, count in moved.rows.items():
        stdout().print(f"{table:<36} {count:>10,} row{'s' if count > 1 else ''} moved to history")
    stdout().print(f"{escape(moved.name)} is forgotten.")
    if leader is not None and not is_dead(leader):
        note(
            f"the daemon {leader} leads and will sync {moved.name} again, unless it has read the"
            " new configuration → send it SIGHUP, or restart it"
        )


def _confirm(left: Left) -> None:
    """Ask on the terminal whether to forget `left`; exit with 1 unless the answer is yes.

    Raises ConfigError if there is no terminal, StoppedError when Ctrl-C is the answer.
    """
    if not sys.stdin.isatty():
        raise ConfigError(
            "it asks first, and standard input is not a terminal",
            where="forget",
            advice=f"to move its rows to history, run: callflow forget {left.name} --yes",
        )
    messages = stderr()
    messages.print(f"{escape(left.name)} is no longer configured. This would move to history:")
    for table, count in left.rows.items():
        messages.print(f"  {table:<36} {count:>10,} row{'s' if count > 1 else ''}")
    if not left.rows:
        messages.print("  no rows; only the bookkeeping for its next run would be removed")
    sys.stderr.write("Forget it? [y/N]: ")
    sys.stderr.flush()
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        messages.print()
        raise StoppedError("stopped by a signal; nothing was changed") from None
    if answer.strip().lower() not in ("y", "yes"):
        messages.print("Nothing was changed.")
        raise typer.Exit(1)


# --- what it does --------------------------------------------------------------------------------
def find(connection: Connection, settings: Settings, name: str) -> Left | None:
    """Return what is left of `name`; None if it is already forgotten.

    It is "source", "source.stream" or "source/scope". Raises ConfigError if it is still configured,
    or if nothing ever had that name.
    """
    source, slash, scope = name.partition("/")
    wanted = scope if slash else None
    source, dot, one = (source, "", "") if slash else source.partition(".")
    known = _known(connection)
    if wanted is None:
        configured = _configured(settings, source)
        if one in configured:
            raise _configured_still(name, f"leave it out of sources.{source}.streams first")
        streams = [each for each in _unconfigured(settings, source) if one in ("", each.name)]
        names = leftovers.noted(connection, source) - configured
        names &= {one} if dot else names
    else:
        streams = _with_scope(settings, source, wanted)
        names = set()
    rows = {}
    for stream in streams:
        for table in stream.tables:
            if count := leftovers.held(connection, table, source, wanted):
                rows[table.fullname] = count
                names.add(stream.name)
    if names:
        return Left(name, source, wanted, tuple(sorted(names)), rows)
    if wanted is None and not dot and source in settings.sources:
        raise _configured_still(name, f"remove [sources.{source}] from the configuration first")
    if name in known or (wanted is None and leftovers.was_run(connection, source, one or None)):
        return None
    raise ConfigError(
        f"there is no {name!r} in the warehouse{did_you_mean(name, _left(settings, known))}",
        where="forget",
        advice="`callflow status` shows what is no longer configured",
    )


def move_to_history(engine: Engine, settings: Settings, name: str, holder: str) -> Left | None:
    """Move what is left of `name` to history; return what was moved, None if nothing was left.

    Raises BusyError while one of its streams is being synced, ConfigError as `find` does, and what
    Postgres raises. Nothing is changed then.
    """
    with engine.begin() as connection:
        connection.exec_driver_sql(_SESSION)
        left = find(connection, settings, name)
        if left is None:
            return None
        held = [
            leases.acquire(
                connection, left.source, stream, holder=holder, ttl=timedelta(minutes=10)
            )
            for stream in left.streams
        ]
        connection.exec_driver_sql(_SESSION)  # taking a lease has changed lock_timeout
        left = find(connection, settings, name) or left
        changed_at = leftovers.changed_at(connection, left.source, left.streams)
        now = runs.instant(connection, changed_at)
        moved = {}
        for stream in STREAMS:
            if stream.name not in left.streams:
                continue
            for table in reversed(stream.tables):
                count = leftovers.move(connection, table, left.source, left.scope, now)
                if count:
                    moved[table.fullname] = count
            if left.scope is not None:
                parent = stream.tables[0]
                changed = now if parent.fullname in moved else None
                leftovers.drop_scope(
                    connection, left.source, stream.name, left.scope, parent, changed
                )
        if left.scope is None:
            for stream_name in left.streams:
                pairs = [
                    stage.pair_of(left.source, table)
                    for stream in STREAMS
                    for table in stream.tables
                    if stream.name == stream_name
                ]
                leftovers.drop_stream(connection, left.source, stream_name, pairs)
        for lease in held:
            leases.release(connection, lease)
        return replace(left, rows=dict(reversed(moved.items())))


def _configured(settings: Settings, source: str) -> set[str]:
    """Return the names of the streams of `source` that are configured."""
    configured = settings.sources.get(source)
    if configured is None:
        return set()
    return {each.name for each in streams_of(configured, named(configured.provider))}


def _unconfigured(settings: Settings, source: str) -> list[Stream]:
    """Return the streams that `source` may have had, also from another provider before."""
    return [each for each in STREAMS if each.name not in _configured(settings, source)]


def _with_scope(settings: Settings, source: str, scope: str) -> list[Stream]:
    """Return the streams that may have rows of a scope. Raises ConfigError if it is configured."""
    configured = settings.sources.get(source)
    found = []
    for stream in STREAMS:
        if stream.scope is None:
            continue
        theirs = configured and stream in streams_of(configured, named(configured.provider))
        if configured and theirs and scope in (scopes(configured, stream) or ()):
            key = f"sources.{source}.{stream.scope}s"
            raise _configured_still(name_of_scope(source, scope), f"take it out of {key} first")
        found.append(stream)
    return found


def _configured_still(name: str, advice: str) -> ConfigError:
    return ConfigError(f"{name} is configured, so it is synced", where="forget", advice=advice)


def _known(connection: Connection) -> set[str]:
    """Return every source, and every scope, that has rows in a table or in its history."""
    found = leftovers.sources(connection)
    for stream in STREAMS:
        for table in (stream.tables[0], leftovers.history(stream.tables[0])):
            columns = 1 if stream.scope is None else 2
            for source, *scope in leftovers.key_prefixes(connection, table, columns):
                found.add(source)
                found.update(name_of_scope(source, each) for each in scope)
    return found


def _left(settings: Settings, known: set[str]) -> list[str]:
    """Return those of `known` that are not configured."""
    configured = set(settings.sources)
    for source in settings.sources.values():
        for stream in streams_of(source, named(source.provider)):
            configured |= {
                name_of_scope(source.name, each) for each in scopes(source, stream) or ()
            }
    return sorted(known - configured)

"""`callflow forget`: what the configuration no longer has goes from the current tables to history.

What is named is a source, or one scope of a source (Alibaba: SOURCE/INSTANCE). Only what is not
configured can be forgotten. It is one transaction under the leases of its streams: children first,
one closed version per row, then what was kept for the next run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, Engine

from etl.config.settings import Settings
from etl.config.values import did_you_mean
from etl.errors import ConfigError
from etl.load import lease as leases
from etl.load import leftovers, stage
from etl.providers import PROVIDERS, named
from etl.providers.declare import Stream, scopes
from etl.sync.selection import name_of_scope

_SESSION = """SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '5s';
              SET LOCAL idle_in_transaction_session_timeout = '60s'"""

STREAMS: tuple[Stream, ...] = tuple(stream for each in PROVIDERS for stream in each.streams)


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a source, or of one scope of it, that the configuration no longer has.

    `streams`  the names of its streams that hold rows or bookkeeping, sorted.
    `rows`     full name of each current table that holds rows of it → how many; parents first.
    """

    source: str
    scope: str | None
    streams: tuple[str, ...]
    rows: Mapping[str, int]

    @property
    def name(self) -> str:
        """As `callflow forget` takes it."""
        return self.source if self.scope is None else name_of_scope(self.source, self.scope)


def find(connection: Connection, settings: Settings, name: str) -> Left | None:
    """What is left of `name`, "source" or "source/scope"; None when it was forgotten already.

    Raises ConfigError when it is configured still, and when nothing was ever called that.
    """
    source, slash, scope = name.partition("/")
    wanted = scope if slash else None
    known = _known(connection)
    if wanted is None:
        streams = _unconfigured(settings, source)
        names = leftovers.noted(connection, source) - _configured(settings, source)
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
        return Left(source, wanted, tuple(sorted(names)), rows)
    if wanted is None and source in settings.sources:
        raise _configured_still(name, f"remove [sources.{source}] from the configuration first")
    if name in known or (wanted is None and leftovers.was_run(connection, source)):
        return None
    raise ConfigError(
        f"there is no {name!r} in the warehouse{did_you_mean(name, _left(settings, known))}",
        where="forget",
        advice="`callflow status` shows what is no longer configured",
    )


def forget(engine: Engine, settings: Settings, name: str, holder: str) -> Left | None:
    """Move what is left of `name` to history; what was moved, None when nothing was left.

    Raises BusyError while a run of one of its streams is under way, ConfigError as `find` does, and
    what Postgres raises. Whatever is raised, nothing was changed.
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
        connection.exec_driver_sql(_SESSION)  # taking a lease set another lock_timeout
        left = find(connection, settings, name) or left
        now = leftovers.instant(connection, left.source, left.streams)
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
            tables = {stream.name: stream.tables for stream in STREAMS}
            for stream_name in left.streams:
                pairs = [stage.staged(left.source, each) for each in tables.get(stream_name, ())]
                leftovers.drop_stream(connection, left.source, stream_name, pairs)
        for lease in held:
            leases.release(connection, lease)
        return Left(left.source, left.scope, left.streams, dict(reversed(moved.items())))


def _configured(settings: Settings, source: str) -> set[str]:
    """The names of the streams that the configuration has of `source`."""
    configured = settings.sources.get(source)
    return {each.name for each in named(configured.provider).streams} if configured else set()


def _unconfigured(settings: Settings, source: str) -> list[Stream]:
    """The streams that `source` may have had: a name may have been another provider's before."""
    return [each for each in STREAMS if each.name not in _configured(settings, source)]


def _with_scope(settings: Settings, source: str, scope: str) -> list[Stream]:
    """The streams in which `scope` of `source` may have rows; ConfigError if it is configured."""
    configured = settings.sources.get(source)
    found = []
    for stream in STREAMS:
        if stream.scope is None:
            continue
        theirs = configured and stream in named(configured.provider).streams
        if configured and theirs and scope in (scopes(configured, stream) or ()):
            key = f"sources.{source}.{stream.scope}s"
            raise _configured_still(name_of_scope(source, scope), f"take it out of {key} first")
        found.append(stream)
    return found


def _configured_still(name: str, advice: str) -> ConfigError:
    return ConfigError(f"{name} is configured, so it is synced", where="forget", advice=advice)


def _known(connection: Connection) -> set[str]:
    """Every source, and every scope of one, that a table or its history has rows of."""
    found = leftovers.sources(connection)
    for stream in STREAMS:
        for table in (stream.tables[0], leftovers.history(stream.tables[0])):
            columns = 1 if stream.scope is None else 2
            for source, *scope in leftovers.begins(connection, table, columns):
                found.add(source)
                found.update(name_of_scope(source, each) for each in scope)
    return found


def _left(settings: Settings, known: set[str]) -> list[str]:
    """Those of `known` that are not configured."""
    configured = set(settings.sources)
    for source in settings.sources.values():
        for stream in named(source.provider).streams:
            configured |= {
                name_of_scope(source.name, each) for each in scopes(source, stream) or ()
            }
    return sorted(known - configured)

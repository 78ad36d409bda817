"""The watch over the warehouse: reach it, lead if no other daemon does, read all streams."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Connection, Engine

from etl.config.redact import Redactor
from etl.daemon import connections, leading, snapshot
from etl.daemon.connections import Engines
from etl.daemon.context import Context, Surroundings
from etl.daemon.snapshot import Snapshot
from etl.daemon.web.asking import Questions
from etl.errors import CallflowError, WarehouseError
from etl.load import lease as leases
from etl.status import flows, queries, stories
from etl.sync.selection import select
from etl.warehouse.translate import translate_errors

T = TypeVar("T")

CHECK_EVERY = 15.0
"""Seconds between two checks that the schema still fits this version."""
READ_EVERY = 3.0
"""Seconds between two reads of all streams, while no run ends."""


class Watch:
    """What this daemon knows of the warehouse. Other threads use the `questions`.

    `engines` are None until the warehouse was reached, `snapshot` until this daemon may trust one.
    """

    def __init__(self, given: Surroundings) -> None:
        self.engines: Engines | None = None
        self.standing = leading.starting(given.clock())
        self.snapshot: Snapshot | None = None
        self._given = given

    def reach(self, context: Context) -> Engines:
        """Connect, and from time to time check the schema; return the connections.

        Raises SchemaError and WarehouseError, EmbeddedError.
        """
        given, standing = self._given, self.standing
        if self.engines is None:
            self.engines = connections.engines(context.settings, given.env, given.log.info)
        if standing.trouble is not None or given.clock() >= standing.check_at:
            if connections.fit_schema(
                self.engines.own, with_migrate=given.with_migrate, redact=context.redact
            ):
                given.log.info("the schema was brought to head")
            self.standing = replace(standing, check_at=given.clock() + CHECK_EVERY)
        return self.engines

    def take_or_renew(self, engines: Engines, context: Context) -> None:
        """Take or renew the lead; `standing` says what came of it. Raises WarehouseError."""
        before = self.standing
        with translate_errors("warehouse", context.redact):
            self.standing = leading.take_or_renew(
                before, engines.own, context.process, self._given.clock()
            )
        if before.lease is None and self.standing.lease is not None:
            self.snapshot = None  # runs may have ended while another daemon led

    def read(
        self, engines: Engines, context: Context, *, changed: bool, also: Callable[[Connection], T]
    ) -> tuple[Snapshot, T]:
        """Read all streams when that is due or a run `changed` them; return what is known now.

        `also` is called in the same transaction, and its result returned. Raises WarehouseError.
        """
        given, seen = self._given, self.snapshot
        with (
            translate_errors("warehouse", context.redact),
            connections.transaction(engines.own) as connection,
        ):
            if seen is None or changed or given.clock() - seen.read_at > READ_EVERY:
                seen = snapshot.read(connection, given.clock(), seen, context.redact)
                if context.lease is not None:
                    units = select(context.settings, [])
                    kept = {(source.name, stream.name) for source, stream in units}
                    snapshot.forget_alerts(connection, seen, kept)
            found = also(connection)
        self.snapshot = seen
        if self.standing.trouble is not None:
            given.log.info("the warehouse answers", after_failures=self.standing.failures)
        self.standing = leading.answered(self.standing)
        return seen, found

    def lost(self, error: CallflowError, context: Context, *, running: bool) -> None:
        """Ask again later; `running` keeps connections that a run may use from being closed."""
        trouble = context.redact.message(str(error))
        if trouble != self.standing.trouble:
            self._given.log.error("no warehouse; waiting for it", error=trouble)
        self.standing = leading.lost(self.standing, trouble, self._given.clock())
        if context.settings.warehouse.url is None:
            self.close(running=running)
            self.engines = None  # the embedded Postgres is started again

    def release(self, redact: Redactor) -> None:
        """Give the lead back, so that another daemon need not wait for its end."""
        lease = self.standing.lease
        self.standing = replace(self.standing, lease=None)
        if lease is not None and self.engines is not None:
            connections.attempt(self.engines.own, redact, leases.release, lease)

    def questions(self, redact: Callable[[], Redactor]) -> Questions:
        """Return what the pages may ask, from any thread; `redact` returns what holds now."""
        return Questions(
            recent=lambda names: queries.recent(self._own(), names, redact()),
            latest=lambda limit: stories.latest(self._own(), limit, redact()),
            source=lambda name: flows.of_source(self._own(), name, redact()),
            flow=lambda key: flows.story(self._own(), key, redact()),
            stream=lambda pair: stories.of_stream(self._own(), *pair, redact()),
            run=lambda run_id: stories.of_run(self._own(), run_id, redact()),
        )

    def _own(self) -> Engine:
        engines = self.engines
        if engines is None:
            raise WarehouseError("the warehouse was not reached yet")
        return engines.own

    def close(self, *, running: bool) -> None:
        """Let go of the connections; those that a run may use stay open until it ends."""
        if self.engines is not None:
            self.engines.dispose(close=not running)

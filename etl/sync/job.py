"""The input of a run of one stream."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Engine

from etl.config.redact import Redactor
from etl.extract.clock import utc_now
from etl.load.lease import Lease
from etl.providers.declare import Stream, open_http

if TYPE_CHECKING:
    from etl.extract.http import Http
    from etl.sync.outlook import Outlook


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a run has come, for those who watch it.

    `phase`   "reading" the list; "completing" records that it does not hold whole, one by one;
              "proving" that all of it was seen; "merging" what differs into the tables.
    `records` read or completed so far, each counted once. In one phase of one scan they only grow.
    `total`   how many there will be, never fewer than `records`; None if that is not known.
    `scan`    which scan of the list is under way: 1, 2, …
    """

    phase: Literal["reading", "completing", "proving", "merging"]
    records: int
    total: int | None = None
    scan: int = 1


@dataclass(frozen=True, slots=True)
class Job:
    """One stream of one source, and everything that a run of it depends on.

    `settings`       the source's, of the configuration.
    `holder`         name of the process that runs it, as `load.lease.process_name` gives it.
    `accept_deletes` delete also suspiciously many rows at once.
    `full`           scan the whole list even if a part would do.
    `dry_run`        report what the run would do, and have nothing of it written.
    `on_outlook`     called with what becomes of records before it is committed: once for a dry run
                     that comes to its end, for others if rows are kept by the safety stop, or
                     deleted with `accept_deletes`. Called in the thread of the run.
    `leader`         lease of the daemon that starts the run; without it nothing is started, and
                     nothing is recorded. None for a run of no daemon.
    `on_progress`    called for each page that was read, and where another phase starts.
    `stopped`        called twice a second, from another thread: should the run end?
    `clock`, `sleep` count seconds, as those of `time` do; `now` gives the time in UTC.
    `redact`         takes the secrets of the whole configuration out of quoted text; those of
                     `settings` are taken out in any case.
    `run_id`         id of the run, 32 hexadecimal digits; None: a new one.
    `span`           opens a block in which one stage of the run happens, by its name.
    """

    engine: Engine
    stream: Stream
    settings: Any
    holder: str
    accept_deletes: bool = False
    full: bool = False
    dry_run: bool = False
    on_outlook: "Callable[[Outlook], None]" = lambda outlook: None
    leader: Lease | None = None
    on_progress: Callable[[Reached], None] = lambda reached: None
    stopped: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = utc_now
    redact: Redactor = field(default_factory=Redactor)
    run_id: str | None = None
    span: Callable[[str], AbstractContextManager[object]] = lambda name: nullcontext()

    @property
    def name(self) -> str:
        """Return `source.stream`."""
        return f"{self.settings.name}.{self.stream.name}"

    @property
    def source(self) -> str:
        """Return the name of the source."""
        name: str = self.settings.name
        return name

    def connect(self) -> "Http":
        """Open the HTTP seam to the provider, with the source's authentication."""
        return open_http(
            self.settings,
            self.stream,
            clock=self.clock,
            sleep=self.sleep,
            now=self.now,
            redact=self.redact,
        )

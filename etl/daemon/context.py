"""The values that the parts of the daemon share."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.daemon.connections import Engines
from etl.extract.clock import utc_now
from etl.load.lease import Lease


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the daemon is handed from outside.

    `load`    reads the configuration again. Raises CallflowError when it is refused.
    `log`     a structlog logger; `relog` is called with the settings whose secrets it must hide.
    `clock`   steady seconds; `wall` the time (UTC).
    `random`  spreads rounds.
    """

    load: Callable[[], Settings]
    env: Mapping[str, str]
    log: Any
    relog: Callable[[Settings], None]
    with_migrate: bool = False
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], datetime] = utc_now
    random: Random = field(default_factory=Random)

    def now(self) -> "Moment":
        """Return this instant."""
        return Moment(self.clock(), self.wall())


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant by the steady clock (seconds) and by the wall clock (UTC)."""

    clock: float
    wall: datetime

    def offset(self) -> float:
        """Return by how many seconds the wall clock is ahead of the steady one."""
        return self.wall.timestamp() - self.clock


@dataclass(frozen=True, slots=True)
class Context:
    """What a run that starts now depends on. Replaced as a whole when any of it changes.

    `process` is the name of this one. Without `engines` or `lease`, which is the lead, no run can
    start.
    """

    process: str
    settings: Settings
    redact: Redactor
    engines: Engines | None = None
    lease: Lease | None = None

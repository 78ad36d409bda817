"""Who leads, and whether the warehouse answers: values in, values out.

Of several daemons on one warehouse one leads (etl/load/lead.py). A `Standing` says where this
daemon stands; the functions each take one and return the next.
"""

from dataclasses import dataclass, replace

from sqlalchemy import Engine

from etl.daemon.connections import transaction
from etl.errors import LeaseLostError
from etl.load import lead
from etl.load import lease as leases
from etl.load.lease import Lease

RENEW_EVERY = lead.TTL_SECONDS / 4
LONGEST_WAIT = 15.0
"""Seconds until a warehouse that is away is asked again, at most."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a daemon stands. Times are seconds of its steady clock.

    `lease`     the lead, if it is this daemon's, last taken or renewed at `renewed`.
    `leader`    the process that leads; None when none does, or it is not known yet.
    `trouble`   why the warehouse cannot be used; None: it answered. `failures` counts the attempts
                in a row that failed.
    `answered`  whether it ever answered.
    `ask_at`    when to ask it next; `check_at` when to check the schema next.
    """

    renewed: float
    ask_at: float
    check_at: float
    lease: Lease | None = None
    leader: str | None = None
    trouble: str | None = "it was not asked yet"
    failures: int = 0
    answered: bool = False

    def lapsed(self, now: float) -> bool:
        """Whether the lead has ended, if it was this daemon's and was not renewed since."""
        return now - self.renewed > lead.TTL_SECONDS

    def leads(self, now: float) -> bool:
        """Whether this daemon leads for certain: it renewed the lead in time."""
        return self.lease is not None and not self.lapsed(now)


def starting(now: float) -> Standing:
    """Return the standing of a daemon that has not asked the warehouse yet."""
    return Standing(renewed=now, ask_at=now, check_at=now)


def take_or_renew(standing: Standing, engine: Engine, process: str, now: float) -> Standing:
    """Renew the lead when that is due; take it if no daemon has it.

    The result has no lease when another daemon leads, also if it took the lead from this one.
    Raises what Postgres raises.
    """
    if standing.lease is None:
        with transaction(engine) as connection:
            taken = lead.take(connection, process)
            leader = process if taken else lead.leader(connection)
        if taken is None:
            return replace(standing, leader=leader)
        return replace(standing, lease=taken, leader=leader, renewed=now)  # it is committed now
    if now - standing.renewed <= RENEW_EVERY:
        return standing
    try:
        with transaction(engine) as connection:
            leases.renew(connection, standing.lease, lead.TTL)
    except LeaseLostError:
        return replace(standing, lease=None)
    return replace(standing, renewed=now)


def lost(standing: Standing, trouble: str, now: float) -> Standing:
    """Return the standing after the warehouse did not answer: wait longer each time."""
    wait = min(LONGEST_WAIT, 2.0 ** min(standing.failures, 4))
    return replace(standing, trouble=trouble, failures=standing.failures + 1, ask_at=now + wait)


def answered(standing: Standing) -> Standing:
    """Return the standing after the warehouse answered."""
    return replace(standing, trouble=None, failures=0, answered=True)

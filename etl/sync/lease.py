"""The lease of a run: what it takes before it starts, and gives back at its end."""

from contextlib import suppress
from datetime import timedelta
from functools import partial

from sqlalchemy import Connection

from etl.load import lease as leases
from etl.load.lease import Lease
from etl.load.transaction import StopWatcher, brief_transaction, transaction
from etl.sync.job import Job

_BRIEF = timedelta(milliseconds=200)
"""How long a leader's run waits for its lease; meanwhile it delays the renewal of the lead."""


def take_lease(job: Job, connection: Connection, watcher: StopWatcher) -> Lease:
    """Take the stream's lease, committed.

    Raises BusyError when another run holds it, and StoppedError as `require_lead` does.
    """
    with transaction(connection, watcher):
        require_lead(job, connection)
        return leases.acquire(
            connection,
            job.source,
            job.stream.name,
            holder=job.holder,
            dead=partial(_is_dead, job),
            wait=_BRIEF if job.leader else leases.WAIT,
        )


def release_lease(job: Job, watcher: StopWatcher, lease: Lease) -> None:
    """End the lease. If that fails, it ends when its time is over."""
    with suppress(Exception), brief_transaction(job.engine, watcher) as connection:
        leases.release(connection, lease)


def require_lead(job: Job, connection: Connection) -> None:
    """Check that the daemon of the run leads, and hold that until the transaction commits.

    Raises StoppedError when it does not.
    """
    if job.leader is not None:
        leases.stand_by(connection, job.leader)


def _is_dead(job: Job, holder: str) -> bool:
    """Whether `holder` is a process that has ended.

    A leader never runs a stream twice at once, so a lease that is held in its own name belongs to a
    worker that it lost.
    """
    return leases.is_dead(holder) or (job.leader is not None and holder == job.holder)

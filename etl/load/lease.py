"""One writer per stream: a row of etl.leases with holder, epoch and end.

Not an advisory lock, because poolers break those. The epoch rises with every new holder. `renew`
checks it in every transaction that writes, so a process that slept past the end of its lease can
write nothing after another one has taken it over.
"""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg.errors import LockNotAvailable
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.sql.dml import ReturningInsert

from etl.errors import BusyError, LeaseLostError, StoppedError
from etl.warehouse.tables import leases

TTL = timedelta(seconds=60)
"""How long a lease lasts unless it is renewed: the longest wait after its holder vanished."""

WAIT = timedelta(seconds=3)
"""How long `acquire` waits for a write transaction of the holder to end."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one stream of one source."""

    source: str
    stream: str
    holder: str
    epoch: int


def process_name() -> str:
    """Return `host:pid:machine` of this process; `machine` differs also between containers."""
    return f"{platform.node()}:{os.getpid()}:{_machine()}"


def _machine() -> str:
    """Name the kernel and the pid namespace, within which a pid names one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return "unknown"


def is_dead(holder: str) -> bool:
    """Whether `holder` is a process of this machine and container that has ended."""
    try:
        _, pid, machine = holder.rsplit(":", 2)
        if machine == "unknown" or machine != _machine():
            return False
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return False


def acquire(
    connection: Connection,
    source: str,
    stream: str,
    *,
    holder: str,
    dead: Callable[[str], bool] = is_dead,
    ttl: timedelta = TTL,
    wait: timedelta = WAIT,
) -> Lease:
    """Take the lease in the open transaction, for the time `ttl`.

    A lease is free when it was never taken, has ended, or `dead(holder)` says so. Raises BusyError,
    which names the holder, if it is not free, or if a write under way locks its row for longer than
    `wait`.
    """
    milliseconds = wait / timedelta(milliseconds=1)
    connection.execute(select(func.set_config("lock_timeout", f"{milliseconds:.0f}ms", True)))
    here = _row_of(source, stream)
    previous = connection.scalar(select(leases.c.holder).where(here))
    vanished = previous is not None and dead(previous)
    take = _taking(source, stream, holder, ttl, previous if vanished else None)
    savepoint = connection.begin_nested()
    try:
        with savepoint:
            epoch = connection.scalar(take)
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        epoch = None
    if epoch is None:
        row = connection.execute(select(leases.c.holder, leases.c.until).where(here)).one()
        raise BusyError(
            f"another run holds the lease: {row.holder}, "
            f"until {row.until.astimezone(UTC):%H:%M:%S} UTC",
            where=f"{source}.{stream}",
            advice="let it finish, or try again later",
        )
    return Lease(source, stream, holder, epoch)


def _taking(
    source: str, stream: str, holder: str, ttl: timedelta, dead_holder: str | None
) -> ReturningInsert[int]:
    """Return the statement that takes the lease if it is free; it returns the epoch if so."""
    statement = insert(leases).values(
        source=source, stream=stream, holder=holder, epoch=1, until=func.clock_timestamp() + ttl
    )
    return statement.on_conflict_do_update(
        index_elements=["source", "stream"],
        set_={
            "holder": holder,
            "epoch": leases.c.epoch + 1,
            "until": statement.excluded.until,
        },
        where=or_(leases.c.until < func.clock_timestamp(), leases.c.holder == dead_holder),
    ).returning(leases.c.epoch)


def renew(connection: Connection, lease: Lease, ttl: timedelta = TTL) -> None:
    """Prolong the lease in the open transaction; every transaction that writes calls this.

    Raises LeaseLostError when another holder has taken it over.
    """
    renewed = connection.execute(
        update(leases).where(_is_ours(lease)).values(until=func.clock_timestamp() + ttl)
    )
    if renewed.rowcount != 1:
        raise LeaseLostError(
            "another run took the lease over; this one stops and writes nothing more",
            where=f"{lease.source}.{lease.stream}",
            advice="nothing to do: the other run does the work",
        )


def stand_by(connection: Connection, lease: Lease) -> None:
    """Keep `lease`, that of a leader, from being taken over until the open transaction ends.

    A run calls this before it takes its own lease, so that a new leader sees every lease that the
    previous one handed out, and can revoke it. Raises StoppedError when `lease` has ended or is
    held by another process.
    """
    held = connection.scalar(
        select(leases.c.epoch)
        .where(_is_ours(lease), leases.c.until > func.clock_timestamp())
        .with_for_update(read=True)
    )
    if held is None:
        raise StoppedError("this daemon does not lead any more; nothing is started")


def release(connection: Connection, lease: Lease) -> None:
    """End the lease in the open transaction, if it is still ours."""
    connection.execute(update(leases).where(_is_ours(lease)).values(until=func.clock_timestamp()))


def revoke(
    connection: Connection,
    holder: str,
    *,
    only: tuple[str, str] | None = None,
    but: tuple[str, str] | None = None,
) -> int:
    """End leases of `holder`, and return how many.

    `only` that of one (source, stream), or all `but` that. Their epoch rises, so
    `holder` can write nothing under them even if it goes on.
    """
    place = tuple_(leases.c.source, leases.c.stream)
    chosen = [place == only] if only else [place != but] if but else []
    taken = connection.execute(
        update(leases)
        .where(leases.c.holder == holder, leases.c.until > func.clock_timestamp(), *chosen)
        .values(epoch=leases.c.epoch + 1, until=func.clock_timestamp())
    )
    return taken.rowcount


def end_writes(connection: Connection, holder: str, *, started_before: datetime) -> int:
    """Have Postgres end the transactions that lock rows of `holder`'s leases; return how many.

    A holder that was stopped in the middle of a write locks its lease's row, and its lease cannot
    be revoked until that write ends. Only transactions that `started_before` that time are ended,
    and only those of our own database role, which takes no further right.
    """
    # The xmax of a row that is being changed is the transaction which changes it; that transaction
    # holds a lock on its own id, and pg_locks names the backend of that lock.
    return len(
        connection.scalars(
            text("""
                SELECT pg_terminate_backend(activity.pid)
                FROM etl.leases
                JOIN pg_locks ON pg_locks.transactionid = leases.xmax AND pg_locks.granted
                JOIN pg_stat_activity AS activity USING (pid)
                WHERE leases.holder = :holder AND activity.usename = current_user
                    AND activity.pid <> pg_backend_pid() AND activity.xact_start < :started_before
            """),
            {"holder": holder, "started_before": started_before},
        ).all()
    )


def last_holder(connection: Connection, source: str, stream: str) -> tuple[str | None, bool]:
    """Return who holds the lease or held it last, and whether it still lasts."""
    row = connection.execute(
        select(leases.c.holder, leases.c.until > func.clock_timestamp()).where(
            _row_of(source, stream)
        )
    ).one_or_none()
    return (None, False) if row is None else (row[0], row[1])


def renewals(connection: Connection, holder: str) -> dict[tuple[str, str], timedelta]:
    """Return (source, stream) → time since the last renewal, for leases that `holder` held last."""
    query = select(leases.c.source, leases.c.stream, leases.c.until, func.clock_timestamp()).where(
        leases.c.holder == holder
    )
    found: dict[tuple[str, str], timedelta] = {}
    for source, stream, until, now in connection.execute(query):
        found[source, stream] = max(timedelta(), now - (until - TTL))
    return found


def _row_of(source: str, stream: str) -> ColumnElement[bool]:
    return and_(leases.c.source == source, leases.c.stream == stream)


def _is_ours(lease: Lease) -> ColumnElement[bool]:
    """No other holder has taken the lease over, and it was not revoked."""
    return and_(
        _row_of(lease.source, lease.stream),
        leases.c.holder == lease.holder,
        leases.c.epoch == lease.epoch,
    )

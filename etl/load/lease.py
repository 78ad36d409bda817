"""One writer per stream: a lease row with holder, epoch and end (no advisory locks: poolers).

The epoch rises with every new holder. `renew` checks it in every transaction that writes, so a
holder that slept past the end of its lease cannot write any more once another one has taken over.
"""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, func, literal, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError

from etl.errors import BusyError, LeaseLostError, StoppedError
from etl.warehouse.tables import leases

TTL = timedelta(seconds=60)
"""How long a lease lasts unless it is renewed; the longest wait after a holder vanished."""

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
    """`host:pid:place` of this process; `place` differs between machines and containers."""
    return f"{platform.node()}:{os.getpid()}:{_place()}"


def _place() -> str:
    """The kernel and the pid namespace, in which a pid names one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return "unknown"


def is_dead(holder: str) -> bool:
    """Whether `holder` is a process of this very machine and container that has ended."""
    try:
        _, pid, place = holder.rsplit(":", 2)
        if place == "unknown" or place != _place():
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

    It is free when it was never taken, has ended, or its holder is `dead`. Raises BusyError, which
    names the holder, when it is not, and after `wait` when its row is locked by a write under way.
    """
    milliseconds = wait / timedelta(milliseconds=1)
    connection.execute(select(func.set_config("lock_timeout", f"{milliseconds:.0f}ms", True)))
    here = (leases.c.source == source, leases.c.stream == stream)
    former = connection.scalar(select(leases.c.holder).where(*here))
    vanished = former is not None and dead(former)
    statement = insert(leases).values(
        source=source, stream=stream, holder=holder, epoch=1, until=func.clock_timestamp() + ttl
    )
    take = statement.on_conflict_do_update(
        index_elements=["source", "stream"],
        set_={
            "holder": holder,
            "epoch": leases.c.epoch + 1,
            "until": statement.excluded.until,
        },
        where=or_(
            leases.c.until < func.clock_timestamp(),
            literal(vanished) & (leases.c.holder == former),
        ),
    ).returning(leases.c.epoch)
    savepoint = connection.begin_nested()
    try:
        with savepoint:
            epoch = connection.scalar(take)
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        epoch = None
    if epoch is None:
        row = connection.execute(select(leases.c.holder, leases.c.until).where(*here)).one()
        raise BusyError(
            f"another run holds the lease: {row.holder}, "
            f"until {row.until.astimezone(UTC):%H:%M:%S} UTC",
            where=f"{source}.{stream}",
            advice="let it finish, or try again later",
        )
    return Lease(source, stream, holder, epoch)


def renew(connection: Connection, lease: Lease, ttl: timedelta = TTL) -> None:
    """Check and prolong the lease in the open transaction; every one that writes begins with it.

    Raises LeaseLostError when another holder has taken it over.
    """
    renewed = connection.execute(
        update(leases)
        .where(
            leases.c.source == lease.source,
            leases.c.stream == lease.stream,
            leases.c.holder == lease.holder,
            leases.c.epoch == lease.epoch,
        )
        .values(until=func.clock_timestamp() + ttl)
    )
    if renewed.rowcount != 1:
        raise LeaseLostError(
            "another run took the lease over; this one stops and writes nothing more",
            where=f"{lease.source}.{lease.stream}",
            advice="nothing to do: the other run does the work",
        )


def stand_by(connection: Connection, lease: Lease) -> None:
    """Hold off whoever would take `lease` over until the open transaction ends.

    For what a leader's runs begin: who takes the lead afterwards finds their leases, and revokes
    them. Raises StoppedError when the lease has ended or is another one's.
    """
    held = connection.scalar(
        select(leases.c.epoch)
        .where(
            leases.c.source == lease.source,
            leases.c.stream == lease.stream,
            leases.c.holder == lease.holder,
            leases.c.epoch == lease.epoch,
            leases.c.until > func.clock_timestamp(),
        )
        .with_for_update(read=True)
    )
    if held is None:
        raise StoppedError("this daemon does not lead any more; nothing is begun")


def release(connection: Connection, lease: Lease) -> None:
    """End the lease, if it is still ours, in the open transaction."""
    connection.execute(
        update(leases)
        .where(
            leases.c.source == lease.source,
            leases.c.stream == lease.stream,
            leases.c.holder == lease.holder,
            leases.c.epoch == lease.epoch,
        )
        .values(until=func.clock_timestamp())
    )


def revoke(
    connection: Connection,
    holder: str,
    *,
    only: tuple[str, str] | None = None,
    but: tuple[str, str] | None = None,
) -> int:
    """Take `holder`'s leases away, `only` that of a (source, stream) or all `but` it; how many.

    The epoch rises: whatever it goes on with, it can write nothing under them any more.
    """
    place = tuple_(leases.c.source, leases.c.stream)
    chosen = [place == only] if only else [place != but] if but else []
    taken = connection.execute(
        update(leases)
        .where(leases.c.holder == holder, leases.c.until > func.clock_timestamp(), *chosen)
        .values(epoch=leases.c.epoch + 1, until=func.clock_timestamp())
    )
    return taken.rowcount


def end_writes(connection: Connection, holder: str, *, begun_before: datetime) -> int:
    """Have Postgres roll back what holds rows of `holder`'s leases; how many transactions.

    Only transactions that were `begun_before` that time, and only those of our own database role,
    which need no right of their own. For a holder that was stopped in the middle of a write: until
    that ends nobody can revoke its lease.
    """
    # Of a row that is being changed, xmax is who changes it; its lock on itself tells the backend.
    return len(
        connection.scalars(
            text("""
                SELECT pg_terminate_backend(activity.pid)
                FROM etl.leases
                JOIN pg_locks ON pg_locks.transactionid = leases.xmax AND pg_locks.granted
                JOIN pg_stat_activity AS activity USING (pid)
                WHERE leases.holder = :holder AND activity.usename = current_user
                    AND activity.pid <> pg_backend_pid() AND activity.xact_start < :begun_before
            """),
            {"holder": holder, "begun_before": begun_before},
        ).all()
    )


def last_holder(connection: Connection, source: str, stream: str) -> tuple[str | None, bool]:
    """Who holds the lease or held it last, and whether it lasts still."""
    row = connection.execute(
        select(leases.c.holder, leases.c.until > func.clock_timestamp()).where(
            leases.c.source == source, leases.c.stream == stream
        )
    ).one_or_none()
    return (None, False) if row is None else (row[0], row[1])


def renewals(connection: Connection, holder: str) -> dict[tuple[str, str], timedelta]:
    """The leases that `holder` has or had last: (source, stream) → how long ago it renewed them."""
    query = select(leases.c.source, leases.c.stream, leases.c.until, func.clock_timestamp()).where(
        leases.c.holder == holder
    )
    found: dict[tuple[str, str], timedelta] = {}
    for source, stream, until, now in connection.execute(query):
        found[source, stream] = max(timedelta(), now - (until - TTL))
    return found

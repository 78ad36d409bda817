"""Of several daemons on one warehouse one leads: the holder of the lease of stream `daemon` of `*`.

No source can have that name. The leader renews the lease; the others look every second whether it
has ended. A daemon that takes it also revokes, in the same transaction, the leases of the previous
leader's runs: if that process was only stopped, it wakes up without the lead and without leases,
and writes nothing.
"""

from datetime import timedelta

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError

from etl.errors import BusyError
from etl.load import lease as leases
from etl.load.lease import Lease
from etl.warehouse.tables import leases as rows

PLACE = ("*", "daemon")

TTL_SECONDS = 10.0
TTL = timedelta(seconds=TTL_SECONDS)
"""How long the lead lasts unless it is renewed: the longest wait after the leader vanished."""


def leader(connection: Connection) -> str | None:
    """Return the name of the process that leads; None when no process does."""
    holder, lasts = leases.last_holder(connection, *PLACE)
    return holder if lasts else None


def take(connection: Connection, process: str) -> Lease | None:
    """Take the lead in the open transaction; return None when another process has it.

    The caller leads when that transaction is committed, and not before.

    A previous leader whose lease has ended may have been stopped in the middle of a write, which
    locks the leases to revoke. Postgres is asked to end that write; until it has, return None.
    """
    lasts = (rows.c.until > func.clock_timestamp()).label("lasts")
    query = select(rows.c.holder, rows.c.epoch, rows.c.until, lasts)
    here = query.where(rows.c.source == PLACE[0], rows.c.stream == PLACE[1])
    row = connection.execute(here).one_or_none()
    previous, epoch = (row.holder, row.epoch) if row else (None, 0)
    if row and row.lasts and not leases.is_dead(row.holder):
        return None
    if row and not row.lasts:
        leases.end_writes(connection, row.holder, started_before=row.until)
    try:
        with connection.begin_nested():
            lease = leases.acquire(connection, *PLACE, holder=process, ttl=TTL)
            if lease.epoch != epoch + 1:  # one that led since we looked still has leases
                raise BusyError("another one led meanwhile")
            if previous is not None:
                leases.revoke(connection, previous, but=PLACE)
    except BusyError:  # another one was faster
        return None
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        return None
    return lease

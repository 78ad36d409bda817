"""Of several daemons on one warehouse one leads: who has the lease of the stream `daemon` of `*`.

No source is called that. The leader renews it; the others look every second whether it has ended.
Whoever takes it revokes, in the same transaction, what the former leader's runs hold: a process
that was only stopped finds itself without the lead and without leases, and writes nothing.
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
"""How long the lead lasts unless it is renewed: the longest wait after a leader vanished."""


def leader(connection: Connection) -> str | None:
    """The process that leads; None when nobody does."""
    holder, lasts = leases.last_holder(connection, *PLACE)
    return holder if lasts else None


def take(connection: Connection, process: str) -> Lease | None:
    """Lead, in the open transaction, if nobody does; None when somebody does.

    A former leader whose time is over may have been stopped in the middle of a write, which holds
    what is to be revoked: Postgres is told to end that. None while it has not.

    The lease is the caller's once that transaction is committed, and not before.
    """
    lasts = (rows.c.until > func.clock_timestamp()).label("lasts")
    query = select(rows.c.holder, rows.c.epoch, rows.c.until, lasts)
    here = query.where(rows.c.source == PLACE[0], rows.c.stream == PLACE[1])
    row = connection.execute(here).one_or_none()
    former, epoch = (row.holder, row.epoch) if row else (None, 0)
    if row and row.lasts and not leases.is_dead(row.holder):
        return None
    if row and not row.lasts:
        leases.end_writes(connection, row.holder, begun_before=row.until)
    try:
        with connection.begin_nested():
            lease = leases.acquire(connection, *PLACE, holder=process, ttl=TTL)
            if lease.epoch != epoch + 1:  # it led since we looked: its runs are to be revoked
                raise BusyError("another one led meanwhile")
            if former is not None:
                leases.revoke(connection, former, but=PLACE)
    except BusyError:  # another one was faster
        return None
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        return None
    return lease

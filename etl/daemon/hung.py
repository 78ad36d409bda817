"""Runs that hang: which they are, and taking their leases away."""

from collections.abc import Mapping
from datetime import timedelta

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from etl.daemon.dispatch import Running
from etl.errors import HungError
from etl.extract.budget import MAX_ASKED_WAIT
from etl.extract.verdict import ATTEMPTS
from etl.load import lease as leases
from etl.status.words import span
from etl.sync.selection import Unit, name_of


def revoke_hung(
    connection: Connection,
    process: str,
    ages: Mapping[Running, float],
    hung_after: timedelta | None,
) -> list[Running]:
    """Revoke the leases of runs without progress, in the open transaction; return these runs.

    `ages` has the seconds since the start of each run of this `process`. A run makes progress when
    it starts and whenever it renews its lease. One that is writing is left alone: Postgres limits
    how long that may take.
    """
    old = {run: age for run, age in ages.items() if age > patience(run.unit, hung_after)}
    if not old:
        return []
    renewed = leases.renewals(connection, process)
    found = []
    for run, age in old.items():
        name = (run.unit[0].name, run.unit[1].name)
        idle = min(timedelta(seconds=age), renewed.get(name, timedelta.max)).total_seconds()
        if idle > patience(run.unit, hung_after) and _revoke(connection, process, name):
            found.append(run)
    return found


def patience(unit: Unit, hung_after: timedelta | None) -> float:
    """Return the seconds without progress after which a run hangs.

    Unless `hung_after` is set, it is what all attempts at one request may take, and a minute.
    """
    if hung_after is not None:
        return hung_after.total_seconds()
    return ATTEMPTS * (unit[0].timeout + MAX_ASKED_WAIT) + 60


def reason(unit: Unit, hung_after: timedelta | None) -> HungError:
    """Return the error of a run that was given up because it hung."""
    return HungError(
        f"no progress for {span(patience(unit, hung_after), 2)}: given up, its lease revoked",
        where=name_of(unit),
        advice="it starts again automatically; if this repeats, see what the provider answers",
    )


def _revoke(connection: Connection, process: str, name: tuple[str, str]) -> bool:
    """Revoke one lease; return False if its row is locked, because its holder is writing."""
    try:
        with connection.begin_nested():
            connection.exec_driver_sql("SET LOCAL lock_timeout = '200ms'")
            leases.revoke(connection, process, only=name)
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        return False
    return True

"""The log of changes, written again from the histories: after an upgrade, or on demand."""

from sqlalchemy import Connection, func, select, text

from etl.load import changes
from etl.load.changes import Log
from etl.providers import PROVIDERS
from etl.warehouse import tables


def rebuild_changes(connection: Connection) -> int:
    """Write history.changes again, in the open transaction; return how many rows it has.

    Runs that want to log changes wait until the transaction ends.
    """
    log = tables.changes
    connection.execute(text(f"LOCK TABLE {log.fullname} IN SHARE ROW EXCLUSIVE MODE"))
    for provider in PROVIDERS:
        logs = {
            stream.name: Log(provider.name, stream.parts, stream.scope, ())
            for stream in provider.streams
        }
        for name, of in logs.items():
            changes.clear(connection, name, of)
        for name, of in logs.items():
            changes.rebuild(connection, name, of)
    return connection.execute(select(func.count()).select_from(log)).scalar_one()

"""Which records of a stream are missing from its list, and still in its table."""

from sqlalchemy import Connection

from etl.load import unlisted
from etl.load.unlisted import Missing
from etl.providers.declare import Stream, name_sql

__all__ = ["Missing", "missing"]


def missing(connection: Connection, source: str, stream: Stream) -> list[Missing]:
    """Return the records that the last proven full scans of `source` did not list, by name.

    They are those that the safety stop keeps, and those that wait for a second scan to confirm that
    they are gone. Names and ids are the provider's, as sent.
    """
    return unlisted.missing(
        connection, source, stream.name, stream.tables[0], name_sql(stream), stream.modified
    )

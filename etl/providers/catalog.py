"""What the providers declare, together: streams, tables, parts of views.

To import it takes the tables of all providers: 20 ms that most commands need not wait.
"""

from collections.abc import Mapping

from sqlalchemy import Table

from etl.providers import PROVIDERS
from etl.providers.declare import Stream
from etl.warehouse.model.part import Part

STREAMS: Mapping[str, Stream] = {
    f"{provider.name}.{stream.name}": stream
    for provider in PROVIDERS
    for stream in provider.streams
}
"""Every stream, by its provider's name and its own."""

TABLES: Mapping[str, Table] = {
    table.fullname: table for stream in STREAMS.values() for table in stream.tables
}
"""Every table of current rows, by its name with its schema, parents before their children."""

PARTS: tuple[tuple[str, Part], ...] = tuple(
    (provider.name, part)
    for provider in PROVIDERS
    for stream in provider.streams
    for part in stream.parts
)
"""What each provider adds to the views of the schema callflow, with the provider's name."""

"""The providers, each declared in one place. Everything that lists providers reads `PROVIDERS`."""

from collections.abc import Mapping

from sqlalchemy import Table

from etl.providers import alibaba, twilio, zoom
from etl.providers.declare import Provider, Stream
from etl.warehouse import tables
from etl.warehouse.model.part import Part

PROVIDERS: tuple[Provider, ...] = (zoom.PROVIDER, twilio.PROVIDER, alibaba.PROVIDER)

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

SCHEMAS: Mapping[str, str] = {
    **{provider.name: provider.comment for provider in PROVIDERS},
    **tables.SCHEMAS,
}
"""Every schema of the warehouse and its COMMENT."""


def named(name: str, providers: tuple[Provider, ...] = PROVIDERS) -> Provider:
    """Return the provider that callflow.toml calls `name`. Raises KeyError where there is none."""
    return {provider.name: provider for provider in providers}[name]

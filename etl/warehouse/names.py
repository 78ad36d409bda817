"""Names in SQL: the schemas of the warehouse, and names that must be quoted."""

from collections.abc import Mapping

from psycopg import sql

from etl.providers import PROVIDERS
from etl.warehouse import tables

SCHEMAS: Mapping[str, str] = {
    **{provider.name: provider.comment for provider in PROVIDERS},
    **tables.SCHEMAS,
}
"""Every schema of the warehouse and its COMMENT."""


def name_of(*parts: str | None) -> str:
    """Return a name as SQL has it, quoted."""
    return sql.Identifier(*(part or "" for part in parts)).as_string()

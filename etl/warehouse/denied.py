"""A right that Postgres refused, and the SQL that gives it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from etl.config.redact import Redactor
from etl.errors import WarehouseError
from etl.warehouse.translate import sqlstate, translate_errors

DENIED = "42501"


def advice(statements: Iterable[str]) -> str:
    """Return what to do about missing rights."""
    return f"an administrator has to run, in this database: {' '.join(statements)}"


@contextmanager
def suggest_grants(
    engine: Engine, where: str, redact: Redactor | None = None, *, migrating: bool = False
) -> Iterator[None]:
    """Translate errors, as `translate_errors`; name a missing right with the SQL that gives it.

    Raises WarehouseError.
    """
    try:
        with translate_errors(where, redact, engine):
            yield
    except WarehouseError as error:
        cause = error.__cause__
        if not isinstance(cause, DBAPIError | psycopg.Error) or sqlstate(cause) != DENIED:
            raise
        from etl.warehouse import rights  # with the tables of all providers

        statements: list[str] = []
        with (
            suppress(WarehouseError),  # what went wrong first says more
            translate_errors(where),
            engine.begin() as connection,
        ):
            role = connection.scalar(text("SELECT current_user"))
            statements = rights.missing(connection, migrating=migrating)
        if not statements:
            raise
        what = f"the role {role!r} lacks rights: {error.what}"
        raise type(error)(what, where=error.where, advice=advice(statements)) from error

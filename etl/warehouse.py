"""Opening the warehouse: a Postgres by URL, or the embedded one; its errors in plain words."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psycopg
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from etl import embedded
from etl.errors import WarehouseError
from etl.settings import Settings

_ADVICE = {
    "25006": "connect to the primary: this server, or this role, only reads",
    "28P01": "check user and password of warehouse.url",
    "28000": "check user and host rules (pg_hba.conf) of warehouse.url",
    "3D000": "create the database, or correct its name in warehouse.url",
    "42501": "give the role the missing right, or use the role that ran `callflow migrate`",
    "42P01": "run `callflow migrate`",
    "42703": "run `callflow migrate`",
    "3F000": "run `callflow migrate`",
    "53100": "free disk space on the database server, then run again; nothing was lost",
    "53300": "raise max_connections or close other connections",
    "55P03": "another session locks the table; end it, then run again",
    "57P03": "the server is starting or stopping; try again in a moment",
}


def database_url(
    settings: Settings, env: Mapping[str, str], tell: Callable[[str], None] = lambda note: None
) -> URL:
    """The URL of the configured warehouse; without one the embedded Postgres is started.

    `tell` is given what a person should know about that: data elsewhere, another port. Raises
    EmbeddedError when it cannot be started.
    """
    if settings.warehouse.url is not None:
        return normalise(settings.warehouse.url.get_secret_value())
    data_dir = settings.warehouse.data_dir or embedded.default_data_dir()
    server = embedded.start(data_dir, env=env)
    for note in server.notes:
        tell(note)
    return normalise(server.url())


def normalise(url: str | URL) -> URL:
    """`url` with psycopg 3 as its driver (SQLAlchemy 2.0 takes postgresql:// for psycopg2)."""
    return make_url(url).set(drivername="postgresql+psycopg")


def connect(url: str | URL, *, most: int | None = 32) -> Engine:
    """An engine for `url`; errors print no bound values, no statements are prepared (poolers).

    It opens `most` connections at once; None: as many as are asked for.
    """
    return create_engine(
        normalise(url),
        hide_parameters=True,
        pool_size=8,
        max_overflow=-1 if most is None else most - 8,
        connect_args={
            "application_name": "callflow",
            "connect_timeout": 10,
            "prepare_threshold": None,
            "keepalives_idle": 30,
            "tcp_user_timeout": 60_000,
        },
    )


def sqlstate(error: DBAPIError | psycopg.Error) -> str | None:
    """The SQLSTATE that the server gave; None when it gave none: the connection broke."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None)


@contextmanager
def plain_errors(where: str) -> Iterator[None]:
    """Turn what SQLAlchemy and psycopg raise into a WarehouseError that says what to do.

    `where` names the place, such as the source and stream. The server's message is kept to its
    first line: DETAIL may hold values of rows.
    """
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:  # COPY runs on psycopg's own connection
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = sqlstate(error)
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        advice = _ADVICE.get(code or "")
        if code is None or code.startswith("08"):
            advice = "check that the server runs and that warehouse.url names it; then run again"
        elif code[:2] in ("40", "57"):
            advice = advice or "run again; nothing was lost"
        what = f"Postgres: {lines[0]}" + (f" ({code})" if code else "")
        raise WarehouseError(what, where=where, advice=advice or "see the server's log") from error
    except SQLAlchemyError as error:
        raise WarehouseError(
            f"Postgres: {type(error).__name__}: {str(error).splitlines()[0]}", where=where
        ) from error

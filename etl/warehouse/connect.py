"""Opening the warehouse: a Postgres by URL, or the embedded one."""

from collections.abc import Callable, Mapping

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.engine import URL

from etl.config.settings import Settings
from etl.warehouse import embedded
from etl.warehouse.session import pin_sessions


def database_url(
    settings: Settings, env: Mapping[str, str], note: Callable[[str], None] = lambda text: None
) -> URL:
    """Return the URL of the configured warehouse; start the embedded Postgres if there is none.

    `note` is called with what a user should know about that: data elsewhere, another port. Raises
    EmbeddedError when it cannot be started.
    """
    if settings.warehouse.url is not None:
        return normalise(settings.warehouse.url.get_secret_value())
    return normalise(embedded_server(settings, env, note).url())


def embedded_server(
    settings: Settings, env: Mapping[str, str], note: Callable[[str], None] = lambda text: None
) -> embedded.Server:
    """Return the embedded Postgres of these settings, started if necessary; as `database_url`."""
    data_dir = settings.warehouse.data_dir or embedded.default_data_dir()
    server = embedded.start(data_dir, env=env)
    for each in server.notes:
        note(each)
    return server


def normalise(url: str | URL) -> URL:
    """Return `url` with psycopg 3 as its driver: to SQLAlchemy 2.0, postgresql:// is psycopg2."""
    return make_url(url).set(drivername="postgresql+psycopg")


def connect(url: str | URL, *, most: int | None = 32) -> Engine:
    """Return an engine for `url`, all of whose transactions are pinned (`session.pin_sessions`).

    It opens at most `most` connections at once, or as many as are asked for if that is None. Errors
    print no bound values, and no statements are prepared (poolers). A connection from the pool that
    the server ended while it idled is replaced.

    What `url` leaves open about the server and how the way to it is protected comes from the
    environment, as in every program that uses libpq: PGPASSWORD, PGPASSFILE, PGSSLMODE, PGSERVICE,
    PGHOST …. PGOPTIONS, PGAPPNAME, PGCLIENTENCODING and PGTARGETSESSIONATTRS are ignored; what
    PGDATESTYLE, PGTZ and PGGEQO set is overridden. Of several hosts the one that takes writes is
    used. What the server's owner decides stays in force: rights, row security, read-only, where
    tables are stored, how durable a commit is.

    Connecting raises SchemaError if the database cannot hold Unicode.
    """
    url = normalise(url)
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=8,
        pool_pre_ping=True,
        max_overflow=-1 if most is None else most - 8,
        use_native_hstore=False,
        connect_args={
            "application_name": "callflow",
            "client_encoding": "utf8",
            "connect_timeout": 10,
            "prepare_threshold": None,
            "keepalives_idle": 30,
            "tcp_user_timeout": 60_000,
            **_unless_given(url),
        },
    )
    pin_sessions(engine)
    return engine


def _unless_given(url: URL) -> dict[str, str]:
    """Return parameters that libpq would take from the environment if `url` does not give them."""
    hosts = url.query.get("host", ())
    several = len(hosts.split(",") if isinstance(hosts, str) else hosts) > 1
    ours = {"options": "", "target_session_attrs": "read-write" if several else "any"}
    return {name: value for name, value in ours.items() if name not in url.query}

"""The embedded Postgres: a server that callflow runs itself, for users who have none.

`server` starts, attaches to and stops it. Underneath, each module knows those before it:

    place     the data directory: where it is, its lock, its files
    accounts  the account that Postgres runs as; under root another one than ours
    binaries  the programs of PostgreSQL: found, and copied where that account cannot reach them
    cluster   the cluster that initdb makes
    process   the server's process and its port
    logins    sessions of our roles, and their passwords
"""

from etl.warehouse.embedded.binaries import SYSTEM_BINARIES, find_binaries
from etl.warehouse.embedded.place import PASSWORDS, Patience, default_data_dir
from etl.warehouse.embedded.server import (
    Server,
    administer,
    exists,
    is_running,
    prove_reader,
    start,
    stop,
)

__all__ = [
    "PASSWORDS",
    "SYSTEM_BINARIES",
    "Patience",
    "Server",
    "administer",
    "default_data_dir",
    "exists",
    "find_binaries",
    "is_running",
    "prove_reader",
    "start",
    "stop",
]

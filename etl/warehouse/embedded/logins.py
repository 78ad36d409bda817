"""Sessions of our roles on the embedded Postgres, and the passwords they log in with."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from etl.errors import EmbeddedError
from etl.warehouse import roles
from etl.warehouse.embedded.cluster import Launch, cause, new_password
from etl.warehouse.embedded.place import HOST, PASSWORDS, Deadline, keep_password
from etl.warehouse.embedded.process import Postmaster, bring_up, remove_stale_lock, shut_down
from etl.warehouse.roles import ADMIN, DATABASE, OWNER, READER

Session = psycopg.Connection[tuple[Any, ...]]


def in_order(port: int, passwords: Mapping[str, str], deadline: Deadline) -> bool:
    """Return whether the owner's password is accepted, and all roles and the database exist."""
    if passwords.keys() != PASSWORDS.keys():
        return False
    connection = _log_in(port, OWNER, passwords[OWNER], deadline)
    if connection is None:
        return False
    with contextlib.closing(connection):
        return roles.in_order(connection)


def set_up(
    launch: Launch, postmaster: Postmaster, passwords: Mapping[str, str], deadline: Deadline
) -> tuple[Postmaster, dict[str, str], list[str]]:
    """Make the roles, passwords and database that are missing, also after an earlier version.

    Returns the server, which may have been restarted, the passwords and notes for the user. A kill
    at any instant leaves what the next start can continue: the administrator's password is written
    down before it is set, the others' afterwards. Raises EmbeddedError.
    """
    home = launch.home
    admin = passwords.get(ADMIN) or keep_password(home, ADMIN, new_password())
    owner = passwords.get(OWNER, admin)
    postmaster, connection = _open_admin(launch, postmaster, admin, owner, deadline)
    new = {role: role not in passwords for role in (OWNER, READER)}
    kept = {ADMIN: admin, **{role: passwords.get(role) or new_password() for role in new}}
    try:
        with contextlib.closing(connection):
            roles.rename_admin(connection, admin)
            roles.set_up(connection, kept, new)
            databases = roles.databases_to_give(connection)
        for role in new:
            if new[role]:
                keep_password(home, role, kept[role])
        notes: list[str] = []
        for database in databases:
            if in_it := _log_in(postmaster.port, ADMIN, admin, deadline, database):
                with contextlib.closing(in_it):
                    notes += roles.give_database(in_it)
    except psycopg.Error as error:
        raise EmbeddedError(
            f"setting up the roles failed: {_one_line(error)}",
            where=str(home),
            advice="end what uses the tables (a daemon, psql), or run `callflow stop`; then run "
            "again: nothing was lost",
        ) from error
    return postmaster, kept, notes


def _open_admin(
    launch: Launch, postmaster: Postmaster, admin: str, owner: str, deadline: Deadline
) -> tuple[Postmaster, Session]:
    """Open a session of the administrator, whose password is set again if it was lost.

    Setting it restarts the server, which is returned as well.
    """
    connection = _find_admin(postmaster.port, admin, owner, deadline)
    if connection is None:  # its password file was lost, or comes from a backup
        postmaster = _reset_admin(launch, postmaster.port, admin, deadline)
        connection = _find_admin(postmaster.port, admin, admin, deadline)
    if connection is None:
        raise EmbeddedError(
            "the server refuses its administrator", where=str(launch.home / PASSWORDS[ADMIN])
        )
    return postmaster, connection


def _find_admin(port: int, admin: str, owner: str, deadline: Deadline) -> Session | None:
    """Open a session of the superuser that initdb made: in earlier versions it was the owner."""
    for role, password in ((ADMIN, admin), (OWNER, owner), (OWNER, admin)):
        connection = _log_in(port, role, password, deadline)
        if connection is not None:
            if roles.is_admin(connection):
                return connection
            connection.close()
    return None


def _reset_admin(launch: Launch, port: int, password: str, deadline: Deadline) -> Postmaster:
    """Set the administrator's password while the server is stopped, then start it again."""
    shut_down(launch.cluster, launch.account, deadline)
    remove_stale_lock(launch.cluster)
    literal = sql.Literal(password).as_string()
    done = launch.account.run(
        [launch.bin_dir / "postgres", "--single", "-D", launch.cluster, "postgres"],
        input=f"DO $reset$ BEGIN EXECUTE format('ALTER ROLE %I PASSWORD %L', (SELECT rolname FROM "
        f"pg_catalog.pg_authid WHERE oid = 10), {literal}); END $reset$\n",
    )
    if done.returncode or "ERROR" in done.stdout:
        raise EmbeddedError(
            f"the administrator's password is lost, and setting a new one failed: "
            f"{cause(done.stdout)}",
            where=str(launch.home / PASSWORDS[ADMIN]),
            advice="put the file back from a backup",
        )
    return bring_up(launch, port, deadline)


def open_session(home: Path, port: int, role: str, password: str, deadline: Deadline) -> Session:
    """Open a session of `role` in our database. Raises EmbeddedError if its password is refused."""
    connection = _log_in(port, role, password, deadline, DATABASE)
    if connection is None:
        raise EmbeddedError(
            f"the server refuses the password that callflow keeps of {role}",
            where=str(home / PASSWORDS[role]),
            advice="write the password that was set into this file, or delete the file "
            "and callflow sets a new one",
        )
    return connection


def _log_in(
    port: int, role: str, password: str, deadline: Deadline, database: str = "postgres"
) -> Session | None:
    """Open a session of `role`, which proves that the server is ours; None if it is refused."""
    while True:
        try:
            # Every parameter that the environment (PGHOSTADDR, PGOPTIONS, …) could set is set here.
            return psycopg.connect(
                host=HOST,
                hostaddr=HOST,
                port=port,
                user=role,
                password=password,
                dbname=database,
                # SCRAM proves the server too: a program that took the port learns nothing.
                require_auth="scram-sha-256",
                channel_binding="prefer",
                sslmode="disable",
                gssencmode="disable",
                target_session_attrs="any",
                load_balance_hosts="disable",
                client_encoding="UTF8",
                options=roles.OPTIONS,
                application_name="callflow",
                connect_timeout=10,
                autocommit=True,
            )
        except psycopg.Error as error:
            if "password authentication failed" in str(error):
                return None
            deadline.pause(f"a connection to {HOST}:{port}", f"Postgres said: {_one_line(error)}")


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())

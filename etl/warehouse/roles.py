"""The roles of the embedded Postgres, each with no more rights than its work needs.

    callflow_admin   the superuser that initdb made; it only makes the other two
    callflow         owns the databases, schemas and tables; every command works as it
    callflow_reader  reads; `callflow sql` and the psql that it opens log in as it

In earlier versions `callflow` was the superuser that initdb made, and Postgres never lets that role
be less: it stays a superuser and the owner of the system's objects. So it is renamed, a new
`callflow` takes its name and password, and all that the old one made is given to the new one.
"""

import secrets
from collections.abc import Mapping
from typing import Any, LiteralString

from psycopg import Connection, NotSupportedError, ProgrammingError, sql

ADMIN = "callflow_admin"
OWNER = "callflow"
READER = "callflow_reader"
DATABASE = "callflow"

# An administrator's session runs no user's function, whatever a role or database has set.
OPTIONS = "-c search_path=pg_catalog -c statement_timeout=0 -c default_transaction_read_only=off"

ATTRIBUTES: Mapping[str, LiteralString] = {
    OWNER: "LOGIN NOSUPERUSER CREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
    READER: "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
}

# 10 is the superuser that initdb makes, whatever its name; what it made itself has numbers from
# 16384 up: https://www.postgresql.org/docs/current/system-catalog-initial-data.html
IN_ORDER = """
    SELECT EXISTS (SELECT FROM pg_roles WHERE oid = 10 AND rolname = 'callflow_admin')
       AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'callflow' AND rolcreatedb AND NOT
                   (rolsuper OR rolcreaterole OR rolreplication OR rolbypassrls)
                   AND pg_has_role(oid, 'pg_signal_backend', 'MEMBER'))
       AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'callflow_reader' AND NOT
                   (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)
                   AND NOT has_database_privilege(oid, 'postgres', 'CONNECT'))
       AND EXISTS (SELECT FROM pg_database WHERE datname = 'callflow')
       AND NOT EXISTS (SELECT FROM pg_database WHERE datdba = 10 AND datallowconn
                       AND NOT datistemplate AND datname <> 'postgres')"""

DATABASES_OF_ADMIN = """
    SELECT datname FROM pg_database
    WHERE datdba = 10 AND datallowconn AND NOT datistemplate AND datname <> 'postgres' ORDER BY 1"""

# Without what belongs to another object (the sequence of a column, the row type of a table, members
# of an extension): it follows that object.
OWNED = """
    WITH owned (class, id) AS (
        SELECT 'pg_class'::regclass::oid, oid FROM pg_class
        WHERE relowner = 10 AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        UNION ALL SELECT 'pg_type'::regclass, t.oid FROM pg_type t
        WHERE typowner = 10 AND typtype <> 'm' AND (typrelid = 0 OR EXISTS
              (SELECT FROM pg_class WHERE oid = t.typrelid AND relkind = 'c'))
              AND NOT EXISTS (SELECT FROM pg_type WHERE typarray = t.oid)
        UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE proowner = 10
        UNION ALL SELECT 'pg_namespace'::regclass, oid FROM pg_namespace WHERE nspowner = 10
        UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator WHERE oprowner = 10
        UNION ALL SELECT 'pg_opclass'::regclass, oid FROM pg_opclass WHERE opcowner = 10
        UNION ALL SELECT 'pg_opfamily'::regclass, oid FROM pg_opfamily WHERE opfowner = 10
        UNION ALL SELECT 'pg_collation'::regclass, oid FROM pg_collation WHERE collowner = 10
        UNION ALL SELECT 'pg_conversion'::regclass, oid FROM pg_conversion WHERE conowner = 10
        UNION ALL SELECT 'pg_ts_dict'::regclass, oid FROM pg_ts_dict WHERE dictowner = 10
        UNION ALL SELECT 'pg_ts_config'::regclass, oid FROM pg_ts_config WHERE cfgowner = 10
        UNION ALL SELECT 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext WHERE stxowner = 10
        UNION ALL SELECT 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
        WHERE srvowner = 10
        UNION ALL SELECT 'pg_largeobject'::regclass, oid FROM pg_largeobject_metadata
        WHERE lomowner = 10
    )
    SELECT format('ALTER %s %s OWNER TO callflow', CASE
        WHEN type IN ('function', 'procedure', 'aggregate') THEN 'ROUTINE'
        WHEN type = 'statistics object' THEN 'STATISTICS' ELSE type END, identity)
    FROM owned, pg_identify_object(class, id, 0)
    WHERE id >= 16384 AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = class AND objid = id
        AND (deptype = 'e' OR deptype IN ('a', 'i') AND type = 'sequence'))
    ORDER BY type = 'schema' DESC, id"""

# Default privileges, which apply only to what the role that set them creates.
PROMISED = """
    WITH promised AS (
        SELECT CASE WHEN nspname IS NULL THEN '' ELSE format('IN SCHEMA %I', nspname) END AS place,
               format('%s ON %s', privilege_type, CASE defaclobjtype WHEN 'r' THEN 'TABLES'
                      WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES' WHEN 'T' THEN 'TYPES'
                      WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END) AS what,
               CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
               AS whom, CASE WHEN is_grantable THEN 'WITH GRANT OPTION' ELSE '' END AS more
        FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace,
             aclexplode(defaclacl)
        WHERE defaclrole = 10 AND grantee <> 10)
    SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE callflow %s GRANT %s TO %s %s',
                  place, what, whom, more) FROM promised
    UNION ALL
    SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE callflow_admin %s REVOKE %s FROM %s',
                  place, what, whom) FROM promised WHERE place <> ''"""

# What `ALTER ROLE … SET` left for a role, for all databases (NULL) or one.
SETTINGS = """
    SELECT datname, split_part(line, '=', 1), substr(line, strpos(line, '=') + 1)
    FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase, unnest(setconfig) line
    WHERE setrole = 10 AND split_part(line, '=', 1) NOT IN ('role', 'session_authorization')"""

Session = Connection[tuple[Any, ...]]


def in_order(connection: Session) -> bool:
    """Return whether roles and databases are as `set_up` leaves them; any role can ask."""
    return bool(_value(connection, IN_ORDER))


def is_admin(connection: Session) -> bool:
    """Return whether this session is of the superuser that initdb made, whatever its name."""
    return bool(_value(connection, "SELECT oid = 10 FROM pg_roles WHERE rolname = session_user"))


def rename_admin(connection: Session, password: str) -> None:
    """Turn the superuser `callflow` of earlier versions into `callflow_admin`, with this password.

    A new `callflow` gets the old password, and all that was set for and granted to the old role.
    `connection` is a session of that superuser in the database postgres. All is done or nothing.
    """
    if _value(connection, "SELECT rolname FROM pg_roles WHERE oid = 10") != OWNER:
        return
    heir = f"{OWNER}_{secrets.token_hex(4)}"
    with connection.transaction():
        verifier = _value(connection, "SELECT rolpassword FROM pg_authid WHERE oid = 10")
        # No session can rename its own role.
        _run(connection, "CREATE ROLE {} SUPERUSER", heir)
        _run(connection, "SET LOCAL SESSION AUTHORIZATION {}", heir)
        _run(connection, "ALTER ROLE {} RENAME TO {}", OWNER, ADMIN)
        _run(connection, "RESET SESSION AUTHORIZATION")
        _run(connection, "ALTER ROLE {} RENAME TO {}", heir, OWNER)
        _run(connection, f"ALTER ROLE {{}} {ATTRIBUTES[OWNER]}", OWNER)
        _set_password(connection, OWNER, verifier)
        _set_password(connection, ADMIN, _hidden(connection, ADMIN, password))
        members = "SELECT pg_get_userbyid(member) FROM pg_auth_members WHERE roleid = 10"
        for (member,) in connection.execute(members).fetchall():
            _run(connection, "GRANT {} TO {}", OWNER, member)
            _run(connection, "REVOKE {} FROM {}", ADMIN, member)
        granted = (
            "SELECT pg_get_userbyid(roleid) FROM pg_auth_members JOIN pg_roles r ON r.oid = roleid"
            " WHERE member = 10 AND NOT rolsuper"
        )
        for (group,) in connection.execute(granted).fetchall():
            _run(connection, "GRANT {} TO {}", group, OWNER)
        _give(connection)
        _take_settings(connection)


def set_up(connection: Session, passwords: Mapping[str, str], new: Mapping[str, bool]) -> None:
    """Make the owner, the reader and the database if one is missing, and correct their rights.

    `passwords` are the owner's and the reader's; one is set if its role is made, or if it is `new`.
    `connection` is the administrator's, in the database postgres. Safe to call at any time.
    """
    with connection.transaction():
        for role, attributes in ATTRIBUTES.items():
            known = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount
            if not known:
                _run(connection, "CREATE ROLE {}", role)
            _run(connection, f"ALTER ROLE {{}} {attributes}", role)
            if new[role] or not known:
                _set_password(connection, role, _hidden(connection, role, passwords[role]))
        # The owner ends sessions in its way, such as those of a database that the demo makes again.
        _run(connection, "GRANT pg_signal_backend TO {}", OWNER)
        _run(connection, "ALTER ROLE {} SET timezone = 'UTC'", READER)
        _run(connection, "ALTER ROLE {} SET statement_timeout = '5min'", READER)
        for database in ("postgres", "template1"):
            _run(connection, "REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC", database)
            _run(connection, "GRANT CONNECT ON DATABASE {} TO {}", database, OWNER)
    if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount:
        _run(connection, "CREATE DATABASE {} OWNER {}", DATABASE, OWNER)


def databases_to_give(connection: Session) -> list[str]:
    """List the databases that still belong to the administrator, each for `give_database`."""
    return [name for (name,) in connection.execute(DATABASES_OF_ADMIN).fetchall()]


def give_database(connection: Session) -> list[str]:
    """Give the database of this administrator's session, and what was made in it, to the owner.

    What only a superuser can own stays the administrator's: extensions and their members, event
    triggers, foreign-data wrappers, publications, subscriptions. Returns a sentence about each
    other object that Postgres refuses to give, which stays as well.
    """
    with connection.transaction():
        # If a session holds one of the tables, this fails and says so instead of waiting forever.
        connection.execute("SET LOCAL lock_timeout = '10s'")
        kept = _give(connection)
        _run(connection, "ALTER DATABASE {} OWNER TO {}", connection.info.dbname, OWNER)
    return kept


def _give(connection: Session) -> list[str]:
    kept = []
    for query in (OWNED, PROMISED):
        for (statement,) in connection.execute(query).fetchall():
            try:
                with connection.transaction():
                    connection.execute(statement.encode())
            except (NotSupportedError, ProgrammingError) as error:
                kept.append(f"In {connection.info.dbname} this failed: {statement}: {error}.")
    return kept


def _take_settings(connection: Session) -> None:
    """Move the settings of the administrator to the owner."""
    for database, name, value in connection.execute(SETTINGS).fetchall():
        place = sql.SQL("IN DATABASE {} ").format(sql.Identifier(database or ""))
        place = place if database else sql.Composed([])
        # FROM CURRENT spares quoting a list of values.
        connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", [name, value])
        change = sql.SQL("ALTER ROLE {} {}SET {} FROM CURRENT")
        setting = sql.Identifier(*name.split("."))
        connection.execute(change.format(sql.Identifier(OWNER), place, setting))
        reset = sql.SQL("ALTER ROLE {} {}RESET {}")
        connection.execute(reset.format(sql.Identifier(ADMIN), place, setting))


def _hidden(connection: Session, role: str, password: str) -> str:
    """Return a password's verifier as the server keeps it, so that no log holds the password."""
    hidden = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    return hidden.decode()


def _set_password(connection: Session, role: str, verifier: str) -> None:
    statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
    connection.execute(statement.format(sql.Identifier(role), sql.Literal(verifier)))


def _run(connection: Session, statement: LiteralString, *names: str) -> None:
    connection.execute(sql.SQL(statement).format(*(sql.Identifier(name) for name in names)))


def _value(connection: Session, query: LiteralString) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None

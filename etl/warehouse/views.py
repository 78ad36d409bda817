"""The views on the tables (the history of each), and all comments.

Neither holds data, but users build on the views, with their own views, functions and rights, which
DROP … CASCADE would drop as well. So a view of ours stays while the tables under it change, and is
replaced in place only if it has to change: its columns keep their order and new ones are appended,
as CREATE OR REPLACE VIEW requires. If Postgres refuses a migration because of our views, they are
withdrawn first, unless something of a user's depends on them: then the migration stops and names
it.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from psycopg import sql
from sqlalchemy import Connection, Table, text
from sqlalchemy.schema import SetColumnComment, SetTableComment

from etl.errors import SchemaError
from etl.providers import SCHEMAS, TABLES
from etl.warehouse import tables

IN_THE_WAY = ("2BP01", "0A000")
"""SQLSTATEs of a change that a dependent object prevents: dependent objects still exist; the type
of a column that a view uses cannot be altered."""

Dependent = tuple[str, str, str | None]
"""Kind, name and owner of something that depends on a relation."""

_DEPENDENTS = """
WITH RECURSIVE found(classid, objid) AS (
    SELECT 'pg_catalog.pg_class'::regclass::oid, to_regclass(name)::oid
      FROM unnest(CAST(:names AS text[])) AS name WHERE to_regclass(name) IS NOT NULL
    UNION
    SELECT CASE WHEN rule.rulename = '_RETURN' THEN 'pg_catalog.pg_class'::regclass::oid
                ELSE link.classid END,
           CASE WHEN rule.rulename = '_RETURN' THEN rule.ev_class ELSE link.objid END
      FROM found
      JOIN pg_catalog.pg_depend AS link
        ON link.refclassid = found.classid AND link.refobjid = found.objid
      LEFT JOIN pg_catalog.pg_rewrite AS rule
        ON link.classid = 'pg_catalog.pg_rewrite'::regclass AND rule.oid = link.objid)
SELECT object.type, object.identity,
       pg_catalog.pg_get_userbyid(coalesce(relation.relowner, routine.proowner))
  FROM found
  LEFT JOIN pg_catalog.pg_class AS relation
    ON found.classid = 'pg_catalog.pg_class'::regclass AND relation.oid = found.objid
  LEFT JOIN pg_catalog.pg_proc AS routine
    ON found.classid = 'pg_catalog.pg_proc'::regclass AND routine.oid = found.objid
  LEFT JOIN pg_catalog.pg_trigger AS helper
    ON found.classid = 'pg_catalog.pg_trigger'::regclass AND helper.oid = found.objid
  LEFT JOIN pg_catalog.pg_type AS kind
    ON found.classid = 'pg_catalog.pg_type'::regclass AND kind.oid = found.objid
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(found.classid, found.objid, 0) AS object
 WHERE (kind.oid IS NULL OR kind.typtype = 'd')
   AND coalesce(relation.relkind NOT IN ('i', 'I', 't', 'S'), true)
   AND NOT EXISTS (SELECT FROM unnest(CAST(:ours AS text[])) AS name
                    WHERE to_regclass(name) = relation.oid)
   AND NOT coalesce(helper.tgisinternal, false)
   AND (:all OR relation.oid IS NOT NULL OR routine.oid IS NOT NULL
        OR object.type IN ('trigger', 'policy', 'rule', 'type'))
 ORDER BY 1, 2
"""

_RIGHTS = """
SELECT privilege_type, CASE grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(grantee) END,
       is_grantable, attname
  FROM (SELECT relowner, relacl AS rights, NULL::text AS attname FROM pg_catalog.pg_class
         WHERE oid = to_regclass(:name)
        UNION ALL
        SELECT relowner, attacl, attname::text FROM pg_catalog.pg_attribute
          JOIN pg_catalog.pg_class AS relation ON relation.oid = attrelid
         WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped) AS present
 CROSS JOIN LATERAL pg_catalog.aclexplode(rights)
 WHERE grantee <> relowner
"""


def history(current: Table) -> str:
    """Return the name of the view of a table's history."""
    return f"{current.fullname}_history"


def create(connection: Connection, of: Iterable[Table] = tuple(TABLES.values())) -> None:
    """Create the views that are missing, and replace those that have to change.

    `of` are tables of current rows. Raises SchemaError if one of the views' names is taken by
    something that is not ours.
    """
    for current in of:
        name = history(current)
        there = _columns(connection, current)
        query = _query(current, there)
        if there and not _differs(connection, name, query):
            continue  # replacing it would wait for readers
        connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {name} AS {query}")


def withdraw(connection: Connection) -> list[str]:
    """Drop our own views, so that the tables under them can change.

    Returns the statements that restore their owners, options and rights after they have been made
    again. Raises SchemaError, and drops none, if anything that is not ours depends on them.
    """
    names = [name for name in map(history, TABLES.values()) if _exists(connection, name)]
    if found := dependents(connection, names, names, whole=True):
        raise blocked_by(found)
    again = [statement for name in names for statement in _given(connection, name)]
    for name in names:
        connection.exec_driver_sql(f"DROP VIEW {name}")
    return again


def blocked(connection: Connection, detail: str) -> SchemaError:
    """Return the error about a change of a table that Postgres refused; `detail` says why.

    It names what that mentions of all that depends on our tables.
    """
    ours = [table.fullname for table in tables.metadata.sorted_tables]
    ours += map(history, TABLES.values())
    found = dependents(connection, ours, ours, whole=False)
    named = [row for row in found if _mentions(detail, row[1])]
    return blocked_by(named or found)


def dependents(
    connection: Connection, names: Collection[str], ours: Collection[str], *, whole: bool
) -> list[Dependent]:
    """List what depends on the relations `names` and is not among `ours`: kind, name, owner.

    Views on views are found too. `whole` includes what disappears silently when the relation is
    dropped, such as triggers' helpers and defaults; without it only what can stand in the way.
    """
    given = {"names": [*names], "ours": [*ours], "all": whole}
    rows = connection.execute(text(_DEPENDENTS), given).all()
    own = {f'"_RETURN" on {name}' for name in ours}
    return [(kind, name, owner) for kind, name, owner in rows if name not in own]


def describe(connection: Connection) -> None:
    """Comment on every schema, table, view and column, from their definitions."""
    for schema, comment in SCHEMAS.items():
        connection.exec_driver_sql(f"COMMENT ON SCHEMA {schema} IS {_literal(comment)}")
    for table in tables.metadata.sorted_tables:
        connection.execute(SetTableComment(table))
        for column in table.columns:
            connection.execute(SetColumnComment(column))
    for current in TABLES.values():
        for statement in _comments(current):
            connection.exec_driver_sql(statement)
    version = "etl.alembic_version"
    connection.exec_driver_sql(f"COMMENT ON TABLE {version} IS 'Revision of the schema.'")
    connection.exec_driver_sql(f"COMMENT ON COLUMN {version}.version_num IS 'Id of the revision.'")


def _exists(connection: Connection, name: str) -> bool:
    return connection.scalar(text("SELECT to_regclass(:name)"), {"name": name}) is not None


def _columns(connection: Connection, current: Table) -> list[str]:
    """List the columns of a table's history view as it is, in order; [] if there is no view."""
    name = history(current)
    if not _exists(connection, name):
        return []
    reads = text(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_depend JOIN pg_catalog.pg_rewrite AS rule"
        " ON rule.oid = objid AND classid = 'pg_catalog.pg_rewrite'::regclass"
        " WHERE ev_class = to_regclass(:name) AND rulename = '_RETURN'"
        " AND refobjid = to_regclass(:table))"
    )
    if not connection.scalar(reads, {"name": name, "table": current.fullname}):
        raise _taken(name, "is not a view of callflow's")
    columns = text(
        "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass(:name)"
        " AND attnum > 0 ORDER BY attnum"
    )
    there = list(connection.execute(columns, {"name": name}).scalars())
    if strange := [column for column in there if column not in _members(current)]:
        raise _taken(name, f"has columns that callflow did not make ({', '.join(strange)})")
    return there


def _members(current: Table) -> dict[str, tuple[str, str]]:
    """Return, for each column of a history view, its SQL for a current row and for a closed one."""
    members = {column.name: (column.name, column.name) for column in current.columns}
    return members | {
        "valid_to": ("NULL::timestamptz", "valid_to"),
        "is_current": ("true", "false"),
    }


def _query(current: Table, there: Sequence[str]) -> str:
    """Return the query of a history view: first the columns `there`, then those that are new."""
    members = _members(current)
    order = [*there, *(name for name in members if name not in there)]
    now = ", ".join(f"{members[name][0]} AS {name}" for name in order)
    once = ", ".join(f"{members[name][1]} AS {name}" for name in order)
    previous = tables.history(current).fullname
    return f"SELECT {now} FROM {current.fullname} UNION ALL SELECT {once} FROM {previous}"


def _differs(connection: Connection, name: str, query: str) -> bool:
    """Return whether a view differs from `query`, both as Postgres spells them."""
    spelt = text("SELECT pg_catalog.pg_get_viewdef(to_regclass(:name))")
    connection.exec_driver_sql(f"CREATE VIEW staging.as_it_should_be AS {query}")
    wanted = connection.scalar(spelt, {"name": "staging.as_it_should_be"})
    connection.exec_driver_sql("DROP VIEW staging.as_it_should_be")
    return bool(connection.scalar(spelt, {"name": name}) != wanted)


def _comments(current: Table) -> Iterator[str]:
    name = history(current)
    comments = {column.name: column.comment or "" for column in current.columns}
    comments["valid_to"] = (
        "When callflow saw that this version was changed or gone (UTC); NULL: it is current."
    )
    comments["is_current"] = "Whether this is the version that exists now."
    yield f"COMMENT ON VIEW {name} IS {_literal(f'Every version of {current.fullname}, ever.')}"
    for column, comment in comments.items():
        yield f"COMMENT ON COLUMN {name}.{column} IS {_literal(comment)}"


def _given(connection: Connection, name: str) -> Iterator[str]:
    """Yield statements that restore owner, options and rights of a view that is made again."""
    facts = text(
        "SELECT pg_catalog.pg_get_userbyid(relowner), relowner = current_user::regrole, reloptions"
        " FROM pg_catalog.pg_class WHERE oid = to_regclass(:name)"
    )
    owner, is_mine, options = connection.execute(facts, {"name": name}).one()
    for option in options or ():
        yield f"ALTER VIEW {name} SET ({option})"
    rights = connection.execute(text(_RIGHTS), {"name": name}).all()
    # A new view gets the rights that new tables are given by default; it may have had fewer.
    yield (
        "DO $$ DECLARE statement text; BEGIN FOR statement IN SELECT format("
        f"'REVOKE ALL ON {name} FROM %%s', CASE grantee WHEN 0 THEN 'PUBLIC'"
        " ELSE quote_ident(pg_catalog.pg_get_userbyid(grantee)) END)"
        " FROM pg_catalog.pg_class, pg_catalog.aclexplode(relacl)"
        f" WHERE oid = '{name}'::regclass AND grantee <> relowner"
        " LOOP EXECUTE statement; END LOOP; END $$"
    )
    for right, grantee, grantable, column in rights:
        of = f" ({_name(column)})" if column else ""
        to = _name(grantee) if grantee else "PUBLIC"
        yield f"GRANT {right}{of} ON {name} TO {to}" + (" WITH GRANT OPTION" if grantable else "")
    if not is_mine:
        yield f"ALTER VIEW {name} OWNER TO {_name(owner)}"


def _mentions(detail: str, identity: str) -> bool:
    """Return whether Postgres names the object; it omits a schema that is on the search_path."""
    bare = identity.partition(".")[2] or identity
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", detail) for name in (identity, bare))


def blocked_by(found: Sequence[Dependent]) -> SchemaError:
    """Return the error that names what stands in the way of a migration."""
    named = ", ".join(
        f"{kind} {name}" + (f" (owner {owner})" if owner else "") for kind, name, owner in found
    )
    return SchemaError(
        "this version changes tables that something of yours depends on"
        + (f": {named}" if named else ""),
        where="warehouse",
        advice="keep the definitions (psql: \\d+, \\sf), drop these, run `callflow migrate`, "
        "create them again; nothing was changed",
    )


def _taken(name: str, why: str) -> SchemaError:
    return SchemaError(
        f"{name} {why}",
        where="warehouse",
        advice="rename it (ALTER VIEW … RENAME TO), then run `callflow migrate`; "
        "nothing was changed",
    )


def _name(identifier: str) -> str:
    return sql.Identifier(identifier).as_string().replace("%", "%%")


def _literal(content: str) -> str:
    """Return `content` as a literal; psycopg reads % as the start of a placeholder."""
    return "'" + content.replace("'", "''").replace("%", "%%") + "'"

"""What depends on our tables and views, and how our views make way for a migration.

Users build on our views, with their own views, functions and rights, which DROP … CASCADE would
drop as well. If Postgres refuses a migration because of our own views, they are withdrawn first and
made again afterwards, unless something of a user's depends on them: then the migration stops and
names it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from psycopg import sql
from sqlalchemy import Connection, text

from etl.errors import SchemaError
from etl.warehouse import tables
from etl.warehouse.model.definition import Definition, FunctionDefinition
from etl.warehouse.views import all_views, escaped, exists

IN_THE_WAY = ("2BP01", "0A000")
"""SQLSTATEs of a change that a dependent object prevents: dependent objects still exist; the type
of a column that a view uses cannot be altered."""

Dependent = tuple[str, str, str | None]
"""Kind, name and owner of something that depends on a relation."""

_DEPENDENTS = """
WITH RECURSIVE given(classid, objid) AS (
    SELECT 'pg_catalog.pg_class'::regclass::oid, to_regclass(name)::oid
      FROM unnest(CAST(:names AS text[])) AS name
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::regclass::oid, to_regprocedure(signature)::oid
      FROM unnest(CAST(:functions AS text[])) AS signature
), found(classid, objid) AS (
    SELECT classid, objid FROM given WHERE objid IS NOT NULL
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
   AND NOT EXISTS (SELECT FROM unnest(CAST(:our_functions AS text[])) AS signature
                    WHERE to_regprocedure(signature) = routine.oid)
   AND NOT coalesce(helper.tgisinternal, false)
   AND (:all OR relation.oid IS NOT NULL OR routine.oid IS NOT NULL
        OR object.type IN ('trigger', 'policy', 'rule', 'type'))
 ORDER BY 1, 2
"""

_VIEW = """
SELECT pg_catalog.pg_get_userbyid(relowner), relowner = current_user::regrole, reloptions
  FROM pg_catalog.pg_class WHERE oid = to_regclass(:name)
"""

_FUNCTION = """
SELECT pg_catalog.pg_get_userbyid(proowner), proowner = current_user::regrole, NULL::text[]
  FROM pg_catalog.pg_proc WHERE oid = to_regprocedure(:name)
"""

_FUNCTION_RIGHTS = """
SELECT privilege_type, CASE grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(grantee) END,
       is_grantable, NULL::text
  FROM pg_catalog.pg_proc
 CROSS JOIN LATERAL pg_catalog.aclexplode(
       coalesce(proacl, pg_catalog.acldefault('f', proowner))) AS given
 WHERE oid = to_regprocedure(:name) AND grantee <> proowner
"""

_ACL = {
    "VIEW": "SELECT relowner, relacl FROM pg_catalog.pg_class WHERE oid = '{name}'::regclass",
    "FUNCTION": "SELECT proowner, coalesce(proacl, pg_catalog.acldefault('f', proowner))"
    " FROM pg_catalog.pg_proc WHERE oid = '{name}'::regprocedure",
}
"""The owner and the rights of what was made again."""

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


def withdraw(connection: Connection, of: Iterable[Definition]) -> list[str]:
    """Drop views and functions of ours, so that the tables under them can change.

    Returns the statements that restore their owners, options and rights after they have been made
    again. Raises SchemaError, and drops none, if anything that is not ours depends on them.
    """
    ours = [each for each in of if exists(connection, each)]
    if found := dependents(connection, ours, ours, whole=True):
        raise blocked_by(found)
    again = [statement for each in ours for statement in _given(connection, each)]
    for each in reversed(ours):
        connection.exec_driver_sql(f"DROP {each.kind} {each.identity}")
    return again


def blocked(connection: Connection, detail: str) -> SchemaError:
    """Return the error about a change of a table that Postgres refused; `detail` says why.

    It names what that mentions of all that depends on our tables.
    """
    ours = [*(table.fullname for table in tables.metadata.sorted_tables), *all_views()]
    found = dependents(connection, ours, ours, whole=False)
    named = [row for row in found if _mentions(detail, row[1])]
    return blocked_by(named or found)


def dependents(
    connection: Connection,
    of: Iterable[str | Definition],
    ours: Iterable[str | Definition],
    *,
    whole: bool,
) -> list[Dependent]:
    """List what depends on tables (by name), views and functions: kind, name, owner.

    What is among `ours` is left out. Views on views are found too. `whole` includes what disappears
    silently when the relation is dropped, such as triggers' helpers and defaults; without it only
    what can stand in the way.
    """
    names, functions = _names(of)
    our_names, our_functions = _names(ours)
    given = {
        "names": names,
        "functions": functions,
        "ours": our_names,
        "our_functions": our_functions,
        "all": whole,
    }
    rows = connection.execute(text(_DEPENDENTS), given).all()
    own = {f'"_RETURN" on {name}' for name in our_names}
    return [(kind, name, owner) for kind, name, owner in rows if name not in own]


def _names(of: Iterable[str | Definition]) -> tuple[list[str], list[str]]:
    """Return the names of relations and the signatures of functions."""
    each = [*of]
    return (
        [
            e if isinstance(e, str) else e.name
            for e in each
            if not isinstance(e, FunctionDefinition)
        ],
        [e.signature for e in each if isinstance(e, FunctionDefinition)],
    )


def _given(connection: Connection, of: Definition) -> Iterator[str]:
    """Yield statements that restore owner, options and rights of what is made again."""
    kind, name = of.kind, of.identity
    if isinstance(of, FunctionDefinition):
        query, rights = _FUNCTION, _FUNCTION_RIGHTS
    else:
        query, rights = _VIEW, _RIGHTS
    owner, is_mine, options = connection.execute(text(query), {"name": name}).one()
    for option in options or ():
        yield f"ALTER VIEW {name} SET ({option})"
    granted = connection.execute(text(rights), {"name": name}).all()
    # A new object gets the rights that are given by default; this one may have had fewer.
    on = f"FUNCTION {name}" if kind == "FUNCTION" else name
    yield (
        "DO $$ DECLARE statement text; BEGIN FOR statement IN SELECT format("
        f"'REVOKE ALL ON {on} FROM %%s', CASE grantee WHEN 0 THEN 'PUBLIC'"
        " ELSE quote_ident(pg_catalog.pg_get_userbyid(grantee)) END)"
        f" FROM ({escaped(_ACL[kind].format(name=name))}) AS made(owner, acl),"
        " pg_catalog.aclexplode(acl) WHERE grantee <> owner"
        " LOOP EXECUTE statement; END LOOP; END $$"
    )
    for right, grantee, grantable, column in granted:
        columns = f" ({_name(column)})" if column else ""
        to = _name(grantee) if grantee else "PUBLIC"
        yield f"GRANT {right}{columns} ON {on} TO {to}" + (
            " WITH GRANT OPTION" if grantable else ""
        )
    if not is_mine:
        yield f"ALTER {kind} {name} OWNER TO {_name(owner)}"


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


def _name(identifier: str) -> str:
    return sql.Identifier(identifier).as_string().replace("%", "%%")

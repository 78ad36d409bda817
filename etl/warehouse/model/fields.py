"""Which values of two versions of a row differ, as SQL over the pair that `changes.py` makes."""

from collections.abc import Sequence

from etl.warehouse.model.assemble import expressions
from etl.warehouse.model.definition import literal
from etl.warehouse.model.part import Part
from etl.warehouse.model.span import Comparison, keys_of

SHOWN = 200
"""Characters that are shown of a flow's inside while it cannot be read."""


def members(part: Part) -> str:
    """Return the settings of a step, without what says where it is drawn."""
    if part.members is None:
        return "NULL::jsonb"
    listed = ", ".join(literal(name) for name in part.layout)
    column = f"r.{part.members}"
    return (
        f"CASE WHEN jsonb_typeof({column}) = 'object' THEN {column} - ARRAY[{listed}]::text[] END"
    )


def compared(of: Comparison) -> dict[str, str]:
    """Return field → SQL over `r`, of the fields that are compared as text."""
    given = expressions(of.provider, of.part)
    fields = {name: given[name] for name in of.view.compared if name in given}
    if of.part.members:  # settings of another shape have no members to compare
        column = f"r.{of.part.members}"
        fields[of.part.members] = f"CASE WHEN jsonb_typeof({column}) <> 'object' THEN {column} END"
    return fields | dict(of.part.compared)


def fields(of: Comparison) -> str:
    """Return a SELECT of the fields that differ: name, old_value, new_value.

    A row that is new or gone has none, so its change has one row with a NULL for a name. Of a row
    that leads to a flow only what the view shows counts: the rest of it may be about other ways
    that it leads, and may be secret.
    """
    names = [*compared(of)]
    both = "this.had AND this.has"
    found = [f"SELECT NULL::text AS name, NULL::text AS old_value, NULL::text AS new_value"
             f" WHERE NOT ({both})"]  # fmt: skip
    if names:
        # Arrays, because Postgres prepares the expressions of VALUES again for every row.
        listed = ", ".join(map(literal, names))
        old, new = (
            ", ".join(f"{row}.f_{index}" for index in range(len(names)))
            for row in ("old_row", "new_row")
        )
        found.append(
            f"SELECT * FROM unnest(ARRAY[{listed}], ARRAY[{old}], ARRAY[{new}])"
            f" AS value(name, old_value, new_value)"
            f" WHERE {both} AND old_value IS DISTINCT FROM new_value"
        )
    if of.leads:
        return " UNION ALL ".join(found)
    if of.part.members:
        found.append(_differing_members(f"{of.part.members}.", "members", both))
    found.append(_differing_members("extra.", "extra", both))
    if of.part.content:
        found.append(f"SELECT {literal(of.part.content)}, {_shown(of, 'o')}, {_shown(of, 'n')}"
                     f" WHERE {both} AND {_is_unreadable(of)}")  # fmt: skip
    if not of.part.layout:
        found.append(_saved(of, names, both))
    return " UNION ALL ".join(found)


def _differing_members(prefix: str, column: str, both: str) -> str:
    return f"""SELECT {literal(prefix)} || key, o.value #>> '{{}}', n.value #>> '{{}}'
        FROM jsonb_each(coalesce(old_row.{column}, '{{}}')) AS o
        FULL JOIN jsonb_each(coalesce(new_row.{column}, '{{}}')) AS n USING (key)
        WHERE {both} AND old_row.{column} IS DISTINCT FROM new_row.{column}
            AND o.value IS DISTINCT FROM n.value"""


def _shown(of: Comparison, prefix: str) -> str:
    return f"left(pair.{prefix}_{of.part.content}, {SHOWN})"


def _is_unreadable(of: Comparison) -> str:
    """Return the condition that the flow's inside differs and could not be read on one side."""
    content = of.part.content
    differs = f"pair.o_{content} IS DISTINCT FROM pair.n_{content}"
    if of.findings is None:
        return f"false AND {differs}"
    same = " AND ".join(f"r.{name} = pair.{name}" for name in keys_of(of.part.table))
    given = expressions(of.provider, of.findings)
    either = f"({of.span.before('r', 'pair.at')} OR {of.span.after('r', 'pair.at')})"
    return f"""{differs} AND EXISTS (SELECT FROM {of.span.versions(of.findings.table)} AS r
        WHERE {same} AND {given["finding"]} = 'unreadable' AND {given["step_id"]} IS NULL
        AND {either})"""


def _saved(of: Comparison, names: Sequence[str], both: str) -> str:
    """Return the field `saved`: the row differs, and nothing that is compared does.

    Its values are the times of modification, in UTC. A flow's inside does not count: what changed
    in it is reported step by step, and what did not is layout.
    """
    part = of.part
    kept = {*keys_of(part.table), "valid_from", part.content}
    columns = [each.name for each in part.table.columns if each.name not in kept]
    old, new = (", ".join(f"pair.{p}_{name}" for name in columns) for p in ("o", "n"))
    equal = [f"old_row.f_{i} IS NOT DISTINCT FROM new_row.f_{i}" for i in range(len(names))]
    equal += [
        f"old_row.{name} IS NOT DISTINCT FROM new_row.{name}" for name in ("members", "extra")
    ]
    if part.content:
        equal.append(f"NOT ({_is_unreadable(of)})")
    return (
        f"SELECT 'saved', {_utc('old_row.modified_at')}, {_utc('new_row.modified_at')}"
        f" WHERE {both} AND ({old}) IS DISTINCT FROM ({new}) AND {' AND '.join(equal)}"
    )


def _utc(time: str) -> str:
    """Return a time as text that does not depend on the session."""
    return f"""to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24":"MI":"SS.US"Z"')"""

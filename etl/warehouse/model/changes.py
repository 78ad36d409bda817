"""What counts as a change of a flow, as SQL: for the log `history.changes`, and for `flow_diff`.

Both compare pairs of versions of one row: `o` is the old one, `n` the new one, and one of them is
missing where the row is new or gone. The log pairs versions that end and start at one instant,
`at`; `flow_diff` pairs the versions of two moments. A caller passes how versions are found as a
`Span`; the rest is the same, so the two cannot differ in what a change is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Boolean, Column, DateTime, Integer, Table
from sqlalchemy.dialects.postgresql import JSONB

from etl.warehouse import tables
from etl.warehouse.model.assemble import expressions
from etl.warehouse.model.contract import FLOW_FINDINGS, FLOW_STEP_LINKS, FLOWS, View, named
from etl.warehouse.model.definition import literal
from etl.warehouse.model.part import Part

COLUMNS = tuple(column.name for column in tables.changes.columns)
"""The columns of the log, in the order in which the statements here return them."""

SHOWN = 200
"""Characters that are shown of a flow's inside while it cannot be read."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which versions are compared.

    `old`, `new` table → SELECT of its rows that can be the old, or the new, version of a pair: all
                 its columns, and the instant `at`.
    `versions`   table → SQL of all its versions, with valid_from and valid_to.
    `before`,    alias of a version, SQL of `at` → the condition that it was valid just before,
    `after`      or just after.
    `earlier`    SQL of `at` → the instant up to which a version ended that is restored.
    `observed`   SQL of when a change was seen, over the pair `o` and `n`.
    `link_observed` the same for a set of links: over `touched.at`, and `latest` and `ended` of
                 `was_there` and `now_there`.
    `is_news`    SQL over `found`, a row of `COLUMNS`: whether it is reported.
    """

    old: Callable[[Table], str]
    new: Callable[[Table], str]
    versions: Callable[[Table], str]
    before: Callable[[str, str], str]
    after: Callable[[str, str], str]
    earlier: Callable[[str], str]
    observed: str
    link_observed: str
    is_news: str = "true"


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One part of a view, and the parts that its rows belong to."""

    provider: str
    view: View
    part: Part
    flows: Part
    findings: Part | None
    span: Span


def statements(provider: str, parts: Sequence[Part], span: Span) -> Iterator[str]:
    """Yield a SELECT of `COLUMNS` for each part whose changes are tracked."""
    by_view = {part.view: part for part in parts}
    flows = by_view.get(FLOWS.name)
    for part in parts if flows else ():
        view = named(part.view)
        if view.entity is None or not part.tracked:
            continue
        assert flows is not None
        of = _Comparison(provider, view, part, flows, by_view.get(FLOW_FINDINGS.name), span)
        found = _links(of) if view is FLOW_STEP_LINKS else _rows(of)
        yield f"SELECT {', '.join(COLUMNS)} FROM ({found}) AS found WHERE {span.is_news}"


def is_tracked(parts: Sequence[Part]) -> bool:
    """Return whether changes of any of these parts are logged."""
    return any(part.tracked and named(part.view).entity is not None for part in parts)


def _rows(of: _Comparison) -> str:
    """Return the changes of rows that are paired by their key."""
    part, span = of.part, of.span
    keys = _keys(part.table)
    pairs = ", ".join(
        f"{_moved(column)} AS o_{column.name}, n.{column.name} AS n_{column.name}"
        for column in part.table.columns
    )
    same = " AND ".join(f"o.{name} = n.{name}" for name in (*keys, "at"))
    shared = ", ".join(f"coalesce(o.{name}, n.{name}) AS {name}" for name in (*keys, "at"))
    return f"""
    WITH old AS ({span.old(part.table)}), new AS ({span.new(part.table)}), {_came_or_went(of)}
    pair AS (
        SELECT {shared}, {pairs}, o.source IS NOT NULL AS had, n.source IS NOT NULL AS has,
            {span.observed} AS observed_at
        FROM old AS o FULL JOIN new AS n ON {same}
    )
    SELECT pair.source, '{of.provider}' AS provider, this.account_id, this.flow_id,
        {"this.name" if part is of.flows else "flow.name"} AS flow_name,
        '{of.view.entity}' AS entity, this.entity_id, this.entity_name, pair.observed_at,
        CASE WHEN pair.has THEN {_given(of, "modified_at")} END AS modified_at,
        CASE WHEN pair.has THEN {_given(of, "modified_by")} END AS modified_by,
        CASE WHEN pair.had AND pair.has THEN 'updated' WHEN pair.had THEN 'deleted'
            WHEN {_was_there(of)} THEN 'restored' ELSE 'created' END AS change,
        field.name AS field, field.old_value, field.new_value
    FROM pair
    CROSS JOIN LATERAL ({_version(of, "o")}) AS old_row
    CROSS JOIN LATERAL ({_version(of, "n")}) AS new_row
    CROSS JOIN LATERAL (SELECT {_either()}) AS this
    {_flow(of, "pair")}
    CROSS JOIN LATERAL ({_fields(of)}) AS field
    {_unless_with_flow(of, "pair")}"""


def _keys(table: Table) -> list[str]:
    return ["source", *tables.key_columns(table)]


def _moved(column: Column[object]) -> str:
    """Return the old value of a column, as if callflow had always had this column.

    Before a column is added, its values are in `extra`: moving from there is no change.
    """
    name, path = column.name, column.info.get("json")
    if name == "extra":
        members = sorted({each.info["json"][0] for each in column.table.columns
                          if each.info.get("json")})  # fmt: skip
        listed = ", ".join(literal(member) for member in members)
        return f"""CASE WHEN jsonb_typeof(o.extra) = 'object' THEN nullif(o.extra - ARRAY(
            SELECT member FROM unnest(ARRAY[{listed}]::text[]) AS member
            WHERE NOT coalesce(n.extra ? member, n.source IS NULL)), '{{}}') ELSE o.extra END"""
    if not path or not column.nullable:
        return f"o.{name}"
    inside = "{" + ",".join(path) + "}"
    held = f"o.extra #> '{inside}'"
    was_there = (
        f"o.{name} IS NULL AND o.extra IS NOT NULL AND {held} IS NOT NULL"
        f" AND n.extra #> '{inside}' IS NULL AND n.{name} IS NOT NULL"
    )
    kind = column.type
    if isinstance(kind, JSONB):
        value = f"CASE WHEN {held} = n.{name} THEN n.{name} END"
    elif isinstance(kind, DateTime):
        value = f"n.{name}"  # spelt otherwise by the provider, so there is nothing to compare
    elif isinstance(kind, Boolean | Integer):
        value = f"CASE WHEN o.extra #>> '{inside}' = n.{name}::text THEN n.{name} END"
    else:
        value = f"o.extra #>> '{inside}'"
    return f"CASE WHEN {was_there} THEN {value} ELSE o.{name} END"


def _came_or_went(of: _Comparison) -> str:
    """Return a CTE of the flows that are new or gone: their parts come and go with them."""
    if of.part is of.flows:
        return ""
    keys = ", ".join((*_keys(of.flows.table), "at"))
    old, new = of.span.old(of.flows.table), of.span.new(of.flows.table)
    return f"""flow_old AS (SELECT {keys} FROM ({old}) AS each),
    flow_new AS (SELECT {keys} FROM ({new}) AS each),
    came_or_went AS (
        (SELECT {keys} FROM flow_old EXCEPT SELECT {keys} FROM flow_new)
        UNION ALL (SELECT {keys} FROM flow_new EXCEPT SELECT {keys} FROM flow_old)
    ),"""


def _unless_with_flow(of: _Comparison, row: str) -> str:
    if of.part is of.flows:
        return ""
    same = " AND ".join(f"came_or_went.{k} = {row}.{k}" for k in (*_keys(of.flows.table), "at"))
    return f"WHERE NOT EXISTS (SELECT FROM came_or_went WHERE {same})"


def _version(of: _Comparison, prefix: str) -> str:
    """Return a SELECT of what is compared of one version: values, members and `extra`."""
    part, given = of.part, expressions(of.provider, of.part)
    columns = ", ".join(f"pair.{prefix}_{each.name} AS {each.name}" for each in part.table.columns)
    ids = {
        "account_id": given.get("account_id", "NULL"),
        "flow_id": given["flow_id"],
        "name": given.get("name", "NULL"),
        "entity_id": _entity_id(of.view, given),
        "entity_name": _entity_name(of.view, given),
    }
    listed = [f"({sql})::text AS {name}" for name, sql in ids.items()]
    listed += [
        f"CAST({given.get('modified_at', 'NULL')} AS timestamptz) AS modified_at",
        f"CAST({given.get('modified_by', 'NULL')} AS text) AS modified_by",
        f"{_members(part)} AS members",
        "CASE WHEN jsonb_typeof(r.extra) = 'object' THEN r.extra END AS extra",
    ]
    listed += [f"({sql})::text AS f_{index}" for index, sql in enumerate(_compared(of).values())]
    return f"SELECT {', '.join(listed)} FROM (SELECT {columns}) AS r"


def _entity_id(view: View, given: Mapping[str, str]) -> str:
    return " || '/' || ".join(given[name] for name in view.key) or given["flow_id"]


def _entity_name(view: View, given: Mapping[str, str]) -> str:
    """Return what people call it: its name, or else its number or its address."""
    found = [given[name] for name in ("address", "name", "version_number") if name in given]
    return found[0] if found else "NULL"


def _members(part: Part) -> str:
    """Return the settings of a step, without what says where it is drawn."""
    if part.members is None:
        return "NULL::jsonb"
    listed = ", ".join(literal(name) for name in part.layout)
    column = f"r.{part.members}"
    return (
        f"CASE WHEN jsonb_typeof({column}) = 'object' THEN {column} - ARRAY[{listed}]::text[] END"
    )


def _compared(of: _Comparison) -> dict[str, str]:
    """Return field → SQL over `r`, of the fields that are compared as text."""
    given = expressions(of.provider, of.part)
    fields = {name: given[name] for name in of.view.compared if name in given}
    if of.part.members:  # settings of another shape have no members to compare
        column = f"r.{of.part.members}"
        fields[of.part.members] = f"CASE WHEN jsonb_typeof({column}) <> 'object' THEN {column} END"
    return fields | dict(of.part.compared)


def _either() -> str:
    """Return what identifies the row, from the new version or else from the old one."""
    return ", ".join(
        f"CASE WHEN pair.has THEN new_row.{name} ELSE old_row.{name} END AS {name}"
        for name in ("account_id", "flow_id", "name", "entity_id", "entity_name")
    )


def _given(of: _Comparison, name: str) -> str:
    """Return who changed the row, or when, by the row itself or else by its flow."""
    is_own = of.part is of.flows or name in expressions(of.provider, of.part)
    return f"new_row.{name}" if is_own else f"flow.{name}"


def _flow(of: _Comparison, row: str) -> str:
    """Return the join of the flow's version after the change, or else of its last one."""
    if of.part is of.flows:
        return ""
    given = expressions(of.provider, of.flows)
    same = " AND ".join(f"r.{name} = {row}.{name}" for name in _keys(of.flows.table))
    return f"""LEFT JOIN LATERAL (
        SELECT {given["name"]} AS name,
            CAST({given.get("modified_at", "NULL")} AS timestamptz) AS modified_at,
            CAST({given.get("modified_by", "NULL")} AS text) AS modified_by
        FROM {of.span.versions(of.flows.table)} AS r WHERE {same} AND r.valid_from <= {row}.at
        ORDER BY r.valid_from DESC LIMIT 1
    ) AS flow ON true"""


def _was_there(of: _Comparison) -> str:
    """Return the condition that the row of a pair had a version which ended earlier."""
    until = of.span.earlier("pair.at")
    same = " AND ".join(f"earlier.{name} = pair.{name}" for name in _keys(of.part.table))
    versions = of.span.versions(of.part.table)
    return f"""EXISTS (SELECT FROM {versions} AS earlier
            WHERE {same} AND earlier.valid_to <= {until})"""


def _fields(of: _Comparison) -> str:
    """Return a SELECT of the fields that differ: name, old_value, new_value.

    A row that is new or gone has none, so its change has one row with a NULL for a name.
    """
    names = [*_compared(of)]
    both = "pair.had AND pair.has"
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


def _shown(of: _Comparison, prefix: str) -> str:
    return f"left(pair.{prefix}_{of.part.content}, {SHOWN})"


def _is_unreadable(of: _Comparison) -> str:
    """Return the condition that the flow's inside differs and could not be read on one side."""
    content = of.part.content
    differs = f"pair.o_{content} IS DISTINCT FROM pair.n_{content}"
    if of.findings is None:
        return f"false AND {differs}"
    same = " AND ".join(f"r.{name} = pair.{name}" for name in _keys(of.part.table))
    given = expressions(of.provider, of.findings)
    either = f"({of.span.before('r', 'pair.at')} OR {of.span.after('r', 'pair.at')})"
    return f"""{differs} AND EXISTS (SELECT FROM {of.span.versions(of.findings.table)} AS r
        WHERE {same} AND {given["finding"]} = 'unreadable' AND {given["step_id"]} IS NULL
        AND {either})"""


def _saved(of: _Comparison, names: Sequence[str], both: str) -> str:
    """Return the field `saved`: the row differs, and nothing that is compared does.

    Its values are the times of modification, in UTC. A flow's inside does not count: what changed
    in it is reported step by step, and what did not is layout.
    """
    part = of.part
    kept = {*_keys(part.table), "valid_from", part.content}
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


def _links(of: _Comparison) -> str:
    """Return the changes of the ways out of a step: per step and event, as a set.

    An event that is inserted moves all later ones to another position, which is no change.
    """
    part, span = of.part, of.span
    given = expressions(of.provider, part)
    step = [*_keys(part.table)[:-1]]  # without the position among the ways out
    keys = ", ".join(f"r.{name}" for name in step)
    same = " AND ".join(f"r.{name} = touched.{name}" for name in step)
    following = given["next_step_id"]
    versions = span.versions(part.table)

    def side(condition: str) -> str:
        return f"""SELECT count(*) AS count, max(r.valid_from) AS latest,
            max(r.valid_to) FILTER (WHERE r.valid_to <= touched.at) AS ended,
            string_agg(DISTINCT {following}, ', ' ORDER BY {following}) AS next
            FROM {versions} AS r WHERE {same}
                AND {given["event"]} IS NOT DISTINCT FROM touched.event AND {condition}"""

    return f"""
    WITH {_came_or_went(of)}
    touched AS (
        SELECT DISTINCT {keys}, {given["event"]} AS event, {given["step_id"]} AS step_id,
            {given.get("account_id", "NULL::text")} AS account_id,
            {given["flow_id"]} AS flow_id, r.at
        FROM ({span.old(part.table)} UNION ALL {span.new(part.table)}) AS r
    )
    SELECT touched.source, '{of.provider}' AS provider, touched.account_id, touched.flow_id,
        flow.name AS flow_name, '{of.view.entity}' AS entity,
        concat(touched.step_id, '/', touched.event) AS entity_id, touched.event AS entity_name,
        {span.link_observed} AS observed_at,
        CASE WHEN now_there.count > 0 THEN flow.modified_at END AS modified_at,
        CASE WHEN now_there.count > 0 THEN flow.modified_by END AS modified_by,
        CASE WHEN was_there.count > 0 AND now_there.count > 0 THEN 'updated'
            WHEN was_there.count > 0 THEN 'deleted' WHEN earlier.count > 0 THEN 'restored'
            ELSE 'created' END AS change,
        CASE WHEN was_there.count > 0 AND now_there.count > 0 THEN 'next_step' END AS field,
        CASE WHEN now_there.count > 0 THEN was_there.next END AS old_value,
        CASE WHEN was_there.count > 0 THEN now_there.next END AS new_value
    FROM touched
    CROSS JOIN LATERAL ({side(span.before("r", "touched.at"))}) AS was_there
    CROSS JOIN LATERAL ({side(span.after("r", "touched.at"))}) AS now_there
    CROSS JOIN LATERAL ({side(f"r.valid_to <= {span.earlier('touched.at')}")}) AS earlier
    {_flow(of, "touched")}
    {_unless_with_flow(of, "touched") or "WHERE true"}
        AND ((was_there.count > 0) <> (now_there.count > 0)
            OR was_there.next IS DISTINCT FROM now_there.next)"""

"""What counts as a change of a flow, as SQL: for the log `history.changes`, and for `flow_diff`.

Both compare pairs of versions of one row: `o` is the old one, `n` the new one, and one of them is
missing where the row is new or gone. The log pairs versions that end and start at one instant,
`at`; `flow_diff` pairs the versions of two moments. A caller passes how versions are found as a
`Span`; the rest is the same, so the two cannot differ in what a change is.

Most rows belong to their flow: they come and go with it, which is no change of theirs. Others lead
to a flow of another stream (`Part.flows`), such as a number that is bound to it. Such a row can
move: that is a change of the flow that it leaves, and of the one that it joins.
"""

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Boolean, Column, DateTime, Integer
from sqlalchemy.dialects.postgresql import JSONB

from etl.warehouse import tables
from etl.warehouse.model.assemble import belongs, expressions
from etl.warehouse.model.contract import FLOW_FINDINGS, FLOW_STEP_LINKS, FLOWS, View
from etl.warehouse.model.definition import literal
from etl.warehouse.model.fields import compared, fields, members
from etl.warehouse.model.lists import named
from etl.warehouse.model.part import Part
from etl.warehouse.model.span import Comparison, Span, keys_of

COLUMNS = tuple(column.name for column in tables.changes.columns)
"""The columns of the log, in the order in which the statements here return them."""


def statements(provider: str, parts: Sequence[Part], span: Span) -> Iterator[str]:
    """Yield a SELECT of `COLUMNS` for each part whose changes are tracked."""
    by_view = {part.view: part for part in parts}
    for part in parts:
        view, flows = named(part.view), part.flows or by_view.get(FLOWS.name)
        if view.entity is None or not part.tracked or flows is None:
            continue
        of = Comparison(provider, view, part, flows, by_view.get(FLOW_FINDINGS.name), span)
        found = _links(of) if view is FLOW_STEP_LINKS else _rows(of)
        yield f"SELECT {', '.join(COLUMNS)} FROM ({found}) AS found WHERE {span.is_news}"


def is_tracked(parts: Sequence[Part]) -> bool:
    """Return whether changes of any of these parts are logged."""
    return any(part.tracked and named(part.view).entity is not None for part in parts)


def _rows(of: Comparison) -> str:
    """Return the changes of rows that are paired by their key.

    `this` says what changed: it had the flow before, has it after, or both.
    """
    part, span = of.part, of.span
    keys = keys_of(part.table)
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
        CASE WHEN this.had AND this.has THEN 'updated' WHEN this.had THEN 'deleted'
            WHEN {_was_there(of)} THEN 'restored' ELSE 'created' END AS change,
        field.name AS field, field.old_value, field.new_value
    FROM pair
    CROSS JOIN LATERAL ({_version(of, "o")}) AS old_row
    CROSS JOIN LATERAL ({_version(of, "n")}) AS new_row
    CROSS JOIN LATERAL ({_joined_or_left() if of.leads else _either()}) AS this
    {_flow(of, "pair")}
    CROSS JOIN LATERAL ({fields(of)}) AS field
    {_unless_with_flow(of, "pair") or "WHERE true"} AND NOT this.is_reported"""


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


def _came_or_went(of: Comparison) -> str:
    """Return a CTE of the flows that are new or gone: their parts come and go with them."""
    if of.part is of.flows or of.leads:
        return ""
    keys = ", ".join((*keys_of(of.flows.table), "at"))
    old, new = of.span.old(of.flows.table), of.span.new(of.flows.table)
    return f"""flow_old AS (SELECT {keys} FROM ({old}) AS each),
    flow_new AS (SELECT {keys} FROM ({new}) AS each),
    came_or_went AS (
        (SELECT {keys} FROM flow_old EXCEPT SELECT {keys} FROM flow_new)
        UNION ALL (SELECT {keys} FROM flow_new EXCEPT SELECT {keys} FROM flow_old)
    ),"""


def _unless_with_flow(of: Comparison, row: str) -> str:
    if of.part is of.flows or of.leads:
        return ""
    same = " AND ".join(f"came_or_went.{k} = {row}.{k}" for k in (*keys_of(of.flows.table), "at"))
    return f"WHERE NOT EXISTS (SELECT FROM came_or_went WHERE {same})"


def _version(of: Comparison, prefix: str) -> str:
    """Return a SELECT of what is compared of one version: values, members and `extra`."""
    part, given = of.part, expressions(of.provider, of.part)
    columns = ", ".join(f"pair.{prefix}_{each.name} AS {each.name}" for each in part.table.columns)
    ids = {
        "account_id": given.get("account_id", "NULL"),
        "flow_id": _flow_id(of),
        "name": given.get("name", "NULL"),
        "entity_id": _entity_id(of.view, given),
        "entity_name": _entity_name(of.view, given),
    }
    listed = [f"({sql})::text AS {name}" for name, sql in ids.items()]
    listed += [
        f"CAST({given.get('modified_at', part.changed_at)} AS timestamptz) AS modified_at",
        f"CAST({given.get('modified_by', 'NULL')} AS text) AS modified_by",
        f"{members(part)} AS members",
        "CASE WHEN jsonb_typeof(r.extra) = 'object' THEN r.extra END AS extra",
        f"{_reported(of)} AS is_reported",
    ]
    listed += [f"({sql})::text AS f_{index}" for index, sql in enumerate(compared(of).values())]
    return f"SELECT {', '.join(listed)} FROM (SELECT {columns}) AS r"


def _reported(of: Comparison) -> str:
    """Return the condition that another list reports what happens to `r`."""
    lookup = of.part.reported
    if lookup is None:
        return "false"
    return f"""EXISTS (SELECT FROM {of.span.versions(lookup.table)} AS each
            WHERE {belongs(lookup)} AND {of.span.after("each", "pair.at")})"""


def _flow_id(of: Comparison) -> str:
    """Return SQL over `r` of the flow that it belongs to, or now leads to; NULL: to none."""
    flow_id = expressions(of.provider, of.part)["flow_id"]
    return f"CASE WHEN {of.part.where} THEN {flow_id} END" if of.leads else flow_id


def _entity_id(view: View, given: Mapping[str, str]) -> str:
    return " || '/' || ".join(given[name] for name in view.key) or given["flow_id"]


def _entity_name(view: View, given: Mapping[str, str]) -> str:
    """Return what people call it: its name, or else its number or its address."""
    found = [given[name] for name in ("address", "name", "version_number") if name in given]
    return found[0] if found else "NULL"


_IDENTIFIED = ("account_id", "flow_id", "name", "entity_id", "entity_name", "is_reported")


def _either() -> str:
    """Return a SELECT of what identifies the row, from the new version or else from the old one."""
    listed = ", ".join(
        f"CASE WHEN pair.has THEN new_row.{name} ELSE old_row.{name} END AS {name}"
        for name in _IDENTIFIED
    )
    return f"SELECT {listed}, pair.had, pair.has"


def _joined_or_left() -> str:
    """Return a SELECT of the flow that the row leads to before and after, or leaves, or joins.

    A row that moves does both, and is in two rows; one that leads to no flow is in none.
    """
    old, new = (
        ", ".join(f"{row}.{name}" for name in _IDENTIFIED) for row in ("old_row", "new_row")
    )
    return f"""SELECT {new}, true AS had, true AS has WHERE {_same_flow("old_row", "new_row")}
        UNION ALL SELECT {old}, true, false WHERE old_row.flow_id IS NOT NULL
            AND ({_same_flow("old_row", "new_row")}) IS NOT TRUE
        UNION ALL SELECT {new}, false, true WHERE new_row.flow_id IS NOT NULL
            AND ({_same_flow("old_row", "new_row")}) IS NOT TRUE"""


def _same_flow(one: str, other: str) -> str:
    return (
        f"{one}.flow_id = {other}.flow_id"
        f" AND {one}.account_id IS NOT DISTINCT FROM {other}.account_id"
    )


def _given(of: Comparison, name: str) -> str:
    """Return who changed the row, or when, by the row itself or else by its flow.

    A flow of another stream does not say it: the row is in another list.
    """
    is_own = of.part is of.flows or of.leads or name in expressions(of.provider, of.part)
    return f"new_row.{name}" if is_own else f"flow.{name}"


def _flow(of: Comparison, row: str) -> str:
    """Return the join of the flow's version after the change, or else of its last one."""
    if of.part is of.flows:
        return ""
    given = expressions(of.provider, of.flows)
    if of.leads:
        account = given.get("account_id", "NULL")
        same = f"""r.source = {row}.source AND {given["flow_id"]} = this.flow_id
            AND {account} IS NOT DISTINCT FROM this.account_id"""
    else:
        same = " AND ".join(f"r.{name} = {row}.{name}" for name in keys_of(of.flows.table))
    return f"""LEFT JOIN LATERAL (
        SELECT {given["name"]} AS name,
            CAST({given.get("modified_at", "NULL")} AS timestamptz) AS modified_at,
            CAST({given.get("modified_by", "NULL")} AS text) AS modified_by
        FROM {of.span.versions(of.flows.table)} AS r WHERE {same} AND r.valid_from <= {row}.at
        ORDER BY r.valid_from DESC LIMIT 1
    ) AS flow ON true"""


def _was_there(of: Comparison) -> str:
    """Return the condition that the row of a pair had a version which ended earlier.

    If it leads to flows, it is one that led to the same flow.
    """
    until = of.span.earlier("pair.at")
    same = " AND ".join(f"r.{name} = pair.{name}" for name in keys_of(of.part.table))
    if of.leads:
        account = expressions(of.provider, of.part).get("account_id", "NULL")
        same += f""" AND {_flow_id(of)} = this.flow_id
            AND {account} IS NOT DISTINCT FROM this.account_id"""
    versions = of.span.versions(of.part.table)
    return f"""EXISTS (SELECT FROM {versions} AS r WHERE {same} AND r.valid_to <= {until})"""


def _links(of: Comparison) -> str:
    """Return the changes of the ways out of a step: per step and event, as a set.

    An event that is inserted moves all later ones to another position, which is no change. Where
    several ways out have one event, their conditions say which of them is taken.
    """
    part, span = of.part, of.span
    given = expressions(of.provider, part)
    step = [*keys_of(part.table)[:-1]]  # without the position among the ways out
    keys = ", ".join(f"r.{name}" for name in step)
    same = " AND ".join(f"r.{name} = touched.{name}" for name in step)
    following, conditions = given["next_step_id"], given.get("conditions", "NULL::text")
    way = f"concat({conditions}, ' → ', {following})"
    versions = span.versions(part.table)

    both = "was_there.count > 0 AND now_there.count > 0"

    def side(condition: str) -> str:
        return f"""SELECT count(*) AS count, max(r.valid_from) AS latest,
            max(r.valid_to) FILTER (WHERE r.valid_to <= touched.at) AS ended,
            {_set(following)} AS next, {_set(conditions)} AS conditions, {_set(way)} AS ways
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
        field.name AS field, field.old_value, field.new_value
    FROM touched
    CROSS JOIN LATERAL ({side(span.before("r", "touched.at"))}) AS was_there
    CROSS JOIN LATERAL ({side(span.after("r", "touched.at"))}) AS now_there
    CROSS JOIN LATERAL ({side(f"r.valid_to <= {span.earlier('touched.at')}")}) AS earlier
    CROSS JOIN LATERAL (
        SELECT NULL::text AS name, NULL::text AS old_value, NULL::text AS new_value
            WHERE (was_there.count > 0) <> (now_there.count > 0)
        UNION ALL SELECT 'next_step', was_there.next, now_there.next WHERE {both}
            AND was_there.next IS DISTINCT FROM now_there.next
        UNION ALL SELECT 'conditions', was_there.ways, now_there.ways WHERE {both}
            AND (was_there.conditions IS DISTINCT FROM now_there.conditions
                OR was_there.next IS NOT DISTINCT FROM now_there.next
                    AND was_there.ways IS DISTINCT FROM now_there.ways)
    ) AS field
    {_flow(of, "touched")}
    {_unless_with_flow(of, "touched")}"""


def _set(sql: str) -> str:
    return f"string_agg(DISTINCT {sql}, ', ' ORDER BY {sql})"

"""The SQL of the views: every provider's parts, joined by UNION ALL, under one contract.

Three forms are made of each part: the rows of today, the rows as of a moment, and all versions. The
view shows the first of these while `callflow.at` is not set, else the second: whichever does not
apply is cut off by a condition that Postgres evaluates once (a one-time filter).

A column of a key must keep its collation "C" through all of this, or its index is not used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Table

from etl.warehouse.model import moment
from etl.warehouse.model.contract import (
    COLLATIONS,
    HISTORY,
    SQL_TYPES,
    Column,
    View,
)
from etl.warehouse.model.part import Lookup, Part

Parts = Sequence[tuple[str, Part]]
"""The parts of one view, each with the name of its provider."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Which versions of the rows are read.

    `suffix` of the name of the table or view that has them.
    `joined` a FROM item that `wanted` refers to, or "".
    `wanted` alias of a row → the condition that its version is a wanted one.
    """

    suffix: str = ""
    joined: str = ""
    wanted: Callable[[str], str] = lambda row: "true"


TODAY, ALL = Versions(), Versions("_history")


def current_view(columns: Sequence[Column], parts: Parts) -> str:
    """Return the query of `callflow.<view>`: today's rows, or those as of `callflow.at`."""
    past = Versions("_history", moment.JOINED, lambda row: as_of(row, "moment.at"))
    branches = [
        branch
        for provider, part in parts
        for branch in (
            _branch(provider, part, columns, TODAY, gate=f"{moment.NAME} IS NULL"),
            _branch(provider, part, columns, past, gate=f"{moment.NAME} IS NOT NULL"),
        )
    ]
    return _union(columns, branches)


def history_view(columns: Sequence[Column], parts: Parts) -> str:
    """Return the query of `callflow.<view>_history`: every version of every row."""
    return _union(columns, [_branch(provider, part, columns, ALL) for provider, part in parts])


def at_body(columns: Sequence[Column], parts: Parts) -> str:
    """Return the body of `callflow.<view>_at(timestamptz)`: the rows as of its argument.

    It reads views on which the caller has rights: a function runs with the rights of its caller.
    """
    then = Versions("_history", "", lambda row: as_of(row, "$1"))
    return _union(columns, [_branch(provider, part, columns, then) for provider, part in parts])


def as_of(row: str, moment: str) -> str:
    """Return the condition that `row` of a history view is the version of that moment."""
    return f"{row}.valid_from <= {moment} AND ({row}.valid_to IS NULL OR {row}.valid_to > {moment})"


def _union(columns: Sequence[Column], branches: Sequence[str]) -> str:
    if branches:
        return "\nUNION ALL\n".join(branches)
    nothing = ", ".join(f"{typed('NULL', column)} AS {column.name}" for column in columns)
    return f"SELECT {nothing} WHERE false"


def _branch(
    provider: str, part: Part, columns: Sequence[Column], versions: Versions, gate: str = "true"
) -> str:
    """Return the SELECT of one part, behind a condition `gate` that is about no row."""
    given = dict(expressions(provider, part))
    source, lookup = _read(part.table, "r", versions), part.lookup
    if part.each:
        source += f" CROSS JOIN LATERAL {part.each}"
    conditions = [each for each in (gate, versions.wanted("r"), part.where) if each != "true"]
    if part.unless and versions is ALL:
        source += f" CROSS JOIN LATERAL ({_times_without(part.unless)}) AS span"
        given |= {"valid_from": "span.starts", "valid_to": "span.ends", "is_current": "span.lasts"}
    else:
        conditions += [f"NOT {found(each, versions)}" for each in part.unless]
    if lookup and any(column.looked_up for column in columns):
        if lookup.facts:
            source += joined(lookup, versions)
        else:
            is_found = found(lookup, versions)
            given |= {n: given[n].replace(f"{{{lookup.name}}}", is_found) for n in part.looked_up}
    listed = ", ".join(
        f"{typed(given.get(each.name, 'NULL'), each)} AS {each.name}" for each in columns
    )
    return f"SELECT {listed} FROM {source}" + (
        f" WHERE {' AND '.join(conditions)}" if conditions else ""
    )


def _read(table: Table, alias: str, versions: Versions) -> str:
    named = f"{table.fullname}{versions.suffix} AS {alias}"
    return f"{versions.joined} CROSS JOIN {named}" if versions.joined else named


def expressions(provider: str, part: Part) -> Mapping[str, str]:
    """Return the SQL of each column that the part has, over `r` and its lookup."""
    given = {**part.columns, **part.looked_up}
    account, flow_id = given.get("account_id"), given.get("flow_id", "NULL")
    key = [flow_id] if account is None else [f"coalesce({account} || '/', '')", flow_id]
    return {
        **given,
        "provider": f"'{provider}'",
        "source": "r.source",
        "valid_from": "r.valid_from",
        "valid_to": "r.valid_to",
        "is_current": "r.is_current",
        "flow_key": " || ".join(["r.source || '/'", *key]),
    }


def joined(lookup: Lookup, versions: Versions) -> str:
    """Return the join of a lookup. It groups by its key, so an unused one leaves the plan."""
    keys = ", ".join(f"each.{name}" for name in lookup.on)
    facts = ", ".join(f"{sql} AS {name}" for name, sql in lookup.facts.items())
    same = " AND ".join(f"{lookup.name}.{name} = {sql}" for name, sql in lookup.on.items())
    return (
        f" LEFT JOIN (SELECT {keys}, {facts} FROM {_read(lookup.table, 'each', versions)}"
        f" WHERE {versions.wanted('each')} GROUP BY {keys}) AS {lookup.name} ON {same}"
    )


def found(lookup: Lookup, versions: Versions) -> str:
    """Return the condition that a lookup finds rows. Unlike a join, PostgreSQL 15 leaves it out of
    the plan of a query that does not ask for it.
    """
    source = _read(lookup.table, "each", versions)
    return f"EXISTS (SELECT FROM {source} WHERE {belongs(lookup)} AND {versions.wanted('each')})"


def belongs(lookup: Lookup) -> str:
    """Return the condition that a row `each` of the lookup belongs to `r`."""
    same = [f"each.{name} = {sql}" for name, sql in lookup.on.items()]
    return " AND ".join([*same, *([lookup.where] if lookup.where != "true" else [])])


def _times_without(lookups: Sequence[Lookup]) -> str:
    """Return the query of the times within a version of `r` in which no lookup finds rows."""
    versions = " UNION ALL ".join(
        f"SELECT each.valid_from, each.valid_to FROM {_read(lookup.table, 'each', ALL)}"
        f" WHERE {belongs(lookup)}"
        for lookup in lookups
    )
    return f"""SELECT lower(time) AS starts, upper(time) AS ends, upper_inf(time) AS lasts
        FROM unnest(tstzmultirange(tstzrange(r.valid_from, r.valid_to)) - coalesce((
            SELECT range_agg(tstzrange(found.valid_from, found.valid_to)) FROM ({versions}) AS found
        ), tstzmultirange())) AS time"""


def typed(sql: str, column: Column) -> str:
    """Return an expression with the type and the collation of its column.

    A collation that is left out follows the expression: with another provider, or another table,
    the view could not be replaced any more.
    """
    collation = COLLATIONS.get(column.kind)
    cast = f"CAST({sql} AS {SQL_TYPES[column.kind]})"
    return f'{cast} COLLATE "{collation}"' if collation else cast


def unused(view: View, part: Part) -> list[str]:
    """Return the columns that a part gives and its view does not have."""
    known = {column.name for column in (*view.columns, *HISTORY)}
    return [name for name in (*part.columns, *part.looked_up) if name not in known]

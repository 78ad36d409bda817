"""Staged rows → current tables and history, in the caller's transaction.

Only rows that differ are written: a join finds them first, then they are upserted in key order.
What a statement changes or removes goes to `history` in that same statement.
docs/architecture.md has the figures of the other ways.

How staged and current rows are joined is not left to the planner's guess (`join_by_hash`): where
few rows are staged for a big table, each is looked up by its key (`looked_up`); otherwise both
sides are read once. Either way the work grows with the rows, not with their square.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Table,
    and_,
    delete,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from etl.load.stage import Staged, join_by_hash
from etl.warehouse import tables
from etl.warehouse.tables import Key

FEW = 20
"""Staged rows are looked up one by one when the table holds more than FEW times as many."""


@dataclass(slots=True)
class Written:
    """What a merge wrote: records by their fate, and the rows of all tables together."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    rows: int = 0


def absent(connection: Connection, source: str, parent: Staged, scopes: Sequence[str]) -> list[Key]:
    """Keys (without source) of the current rows of `source` that are not staged, in key order.

    `scopes`, unless empty, limits them to rows whose first key column is one of these.
    """
    join_by_hash(connection)
    current = parent.current
    keys = [current.c[name] for name in tables.key_columns(current)]
    query = (
        select(*keys)
        .where(current.c.source == source)
        .where(~select(literal(1)).where(_same_key(current, parent.stage, current)).exists())
        .order_by(*keys)
    )
    if scopes:
        query = query.where(keys[0].in_(scopes))
    return [tuple(row) for row in connection.execute(query)]


def known(
    connection: Connection, source: str, current: Table, scope: str | None
) -> dict[str, set[Key]]:
    """Keys (without source) of the current rows of `source`, per value of the column `scope`."""
    keys = [current.c[name] for name in tables.key_columns(current)]
    of: ColumnElement[str] = current.c[scope] if scope else literal("")
    found: dict[str, set[Key]] = {}
    for name, *key in connection.execute(select(of, *keys).where(current.c.source == source)):
        found.setdefault(name, set()).add(tuple(key))
    return found


def differs(connection: Connection, source: str, pair: Staged, begin: int) -> bool:
    """Whether a record staged from the ordinal `begin` on is new or unlike its current row.

    They are few, such as those of a page: each is looked up.
    """
    join_by_hash(connection)
    query = _differing(source, pair, looked_up=True).where(pair.stage.c.ord >= begin)
    return bool(connection.scalar(select(query.exists())))


def merge(
    connection: Connection,
    source: str,
    pairs: Sequence[Staged],
    gone: Sequence[Key],
    now: datetime,
    *,
    looked_up: bool = False,
) -> Written:
    """Make the current rows of `source` equal to the staged ones, and take out the records `gone`.

    `pairs` begins with the records' own table; children come after their parents; the staging
    tables are settled. Children that a staged record no longer has are taken out, unless one of its
    children was unreadable. `now` becomes valid_from and valid_to of what changes. `looked_up`:
    few records are staged, compared with those in the table (see FEW).
    """
    join_by_hash(connection)
    records, *children = pairs
    written = Written()
    if gone:
        for pair in reversed(pairs):
            theirs = _one_of(gone, pair.current, records.current)
            rows, _ = _remove(connection, source, pair.current, theirs, now, records.current)
            written.rows += rows
            written.deleted += rows if pair is records else 0
    below: set[Key] = set()
    for pair in reversed(children):
        lost = _lost(source, pair, records, looked_up=looked_up)
        if _any(connection, lost):
            condition = _is_lost(pair, records)
            rows, keys = _remove(connection, source, pair.current, condition, now, records.current)
            written.rows += rows
            below |= keys
    own: set[Key] = set()
    for pair in pairs:
        differing = _differing(source, pair, looked_up=looked_up)
        if not _any(connection, differing):
            continue
        of = records.current if children else None
        inserted, updated, keys = _upsert(connection, source, pair, differing, now, of)
        written.rows += inserted + updated
        if pair is records:
            written.inserted, written.updated, own = inserted, updated, keys
        else:
            below |= keys
    written.updated += len(below - own)
    return written


def _any(connection: Connection, found: Select[Any]) -> bool:
    """Whether there are such rows. They are counted, and so planned to be read whole: usually
    there are none, and then a plan for a quick first row is the slower one."""
    return bool(connection.scalar(select(func.count()).select_from(found.subquery())))


def _same_key(one: FromClause, other: FromClause, of: Table) -> ColumnElement[bool]:
    """Both rows have the same key of `of` (without source: staging tables hold one source)."""
    return and_(*(one.c[name] == other.c[name] for name in tables.key_columns(of)))


def _one_of(keys: Collection[Key], rows: Table, of: Table) -> ColumnElement[bool]:
    """The key of `of` in `rows` is one of `keys`: one array per column, as 65,535 values is all
    that a statement takes."""
    names = tables.key_columns(of)
    columns = [
        func.unnest(literal([key[index] for key in keys], ARRAY(of.c[name].type)))
        for index, name in enumerate(names)
    ]
    return tuple_(*(rows.c[name] for name in names)).in_(select(*columns))


def _remove(
    connection: Connection,
    source: str,
    current: Table,
    condition: ColumnElement[bool],
    now: datetime,
    of: Table,
) -> tuple[int, set[Key]]:
    """Move the rows of `current` that meet `condition` to history.

    Returns how many, and the keys of `of` in them.
    """
    history = tables.history(current)
    removed = (
        delete(current)
        .where(current.c.source == source, condition)
        .returning(*current.columns)
        .cte("removed")
    )
    names = [column.name for column in current.columns]
    kept = (
        insert(history)
        .from_select([*names, "valid_to"], select(removed, literal(now)))
        .returning(*(history.c[name] for name in tables.key_columns(of)))
        .cte("kept")
    )
    counts = select(*kept.columns, func.count()).group_by(*kept.columns)
    found = connection.execute(counts).all()
    return sum(row[-1] for row in found), {tuple(row[:-1]) for row in found}


def _is_lost(child: Staged, records: Staged) -> ColumnElement[bool]:
    """The row's record is staged, all its children were readable, and the row is not among them."""
    record = select(literal(1)).where(
        _same_key(records.stage, child.current, records.current), ~records.stage.c.partial
    )
    itself = select(literal(1)).where(_same_key(child.stage, child.current, child.current))
    return and_(record.exists(), ~itself.exists())


def _lost(source: str, child: Staged, records: Staged, *, looked_up: bool) -> Select[Any]:
    """The current rows of a child's table that their staged records no longer have."""
    if not looked_up:
        return select(literal(1)).where(child.current.c.source == source, _is_lost(child, records))
    theirs = _lookup(source, child.current, records.stage, records.current)
    itself = select(literal(1)).where(_same_key(child.stage, theirs, child.current))
    return (
        select(literal(1))
        .select_from(records.stage.join(theirs, true()))
        .where(~records.stage.c.partial, ~itself.exists())
    )


def _lookup(source: str, current: Table, rows: FromClause, of: Table) -> FromClause:
    """The rows of `current` with the key of `of` that a row of `rows` has, by the primary key.

    OFFSET 0 keeps it a lookup: the planner must not make another join of it.
    """
    return (
        select(current)
        .where(current.c.source == source, _same_key(current, rows, of))
        .offset(0)
        .lateral("looked_up")
    )


def _differing(source: str, pair: Staged, *, looked_up: bool) -> Select[Any]:
    """Staged rows that are new (`is_new`) or unlike the current row with their key.

    The columns of that row follow, each after `old_`.
    """
    current, stage = pair.current, pair.stage
    keys = tables.key_columns(current)
    names = tables.data_columns(current)
    fields = [name for name in names if name not in keys]
    if looked_up:
        old: FromClause = _lookup(source, current, stage, current)
        both = stage.outerjoin(old, true())
    else:
        old = current
        both = stage.outerjoin(
            current, and_(current.c.source == source, _same_key(stage, current, current))
        )
    unlike = tuple_(*(old.c[name] for name in fields)).is_distinct_from(
        tuple_(*(stage.c[name] for name in fields))
    )
    return (
        select(
            *(stage.c[name] for name in names),
            old.c.source.is_(None).label("is_new"),
            *(column.label(f"old_{column.name}") for column in old.columns),
        )
        .select_from(both)
        .where(or_(old.c.source.is_(None), unlike))
    )


def _upsert(
    connection: Connection,
    source: str,
    pair: Staged,
    found: Select[Any],
    now: datetime,
    of: Table | None,
) -> tuple[int, int, set[Key]]:
    """Insert the rows `found` that are new, update those that differ.

    Returns how many of each, and the keys of `of` in them.
    """
    current, history = pair.current, tables.history(pair.current)
    keys = tables.key_columns(current)
    names = tables.data_columns(current)
    fields = [name for name in names if name not in keys]
    differing = found.cte("differing").prefix_with("MATERIALIZED")
    superseded = (
        insert(history)
        .from_select(
            [*(column.name for column in current.columns), "valid_to"],
            select(
                *(differing.c[f"old_{column.name}"] for column in current.columns), literal(now)
            ).where(~differing.c.is_new),
        )
        .cte("superseded")
    )
    upsert = insert(current).from_select(
        ["source", *names, "valid_from"],
        select(literal(source), *(differing.c[name] for name in names), literal(now)).order_by(
            *(differing.c[name] for name in keys)
        ),
    )
    upserted = upsert.on_conflict_do_update(
        index_elements=["source", *keys],
        set_={name: upsert.excluded[name] for name in [*fields, "valid_from"]},
    ).cte("upserted")
    records = [differing.c[name] for name in tables.key_columns(of)] if of is not None else []
    counts = (
        select(
            *records,
            func.count().filter(differing.c.is_new),
            func.count().filter(~differing.c.is_new),
        )
        .select_from(differing)
        .group_by(*records)
    )
    rows = connection.execute(counts.add_cte(superseded, upserted)).all()
    inserted, updated = sum(row[-2] for row in rows), sum(row[-1] for row in rows)
    return inserted, updated, {tuple(row[:-2]) for row in rows} if records else set()

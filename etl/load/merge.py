"""Staged rows → current tables and history, in the caller's transaction.

Only rows that differ are written: a join finds them first, then they are upserted in key order.
What a statement changes or removes goes to `history` in that same statement.
docs/architecture.md has the figures of the other ways.
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
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from etl import tables
from etl.load.stage import Staged
from etl.model import Key


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
    """Whether a record staged from the ordinal `begin` on is new or unlike its current row."""
    query = _differing(source, pair).where(pair.stage.c.ord >= begin)
    return bool(connection.scalar(select(query.exists())))


def merge(
    connection: Connection,
    source: str,
    pairs: Sequence[Staged],
    gone: Sequence[Key],
    now: datetime,
) -> Written:
    """Make the current rows of `source` equal to the staged ones, and take out the records `gone`.

    `pairs` begins with the records' own table; children come after their parents; the staging
    tables are settled. Children that a staged record no longer has are taken out, unless one of its
    children was unreadable. `now` becomes valid_from and valid_to of what changes.
    """
    records, *children = pairs
    written = Written()
    if gone:
        for pair in reversed(pairs):
            theirs = _one_of(gone, pair.current, records.current)
            removed = _remove(connection, source, pair.current, theirs, now)
            written.rows += len(removed)
            written.deleted += len(removed) if pair is records else 0
    bereft: set[Key] = set()
    for pair in reversed(children):
        removed = _remove(connection, source, pair.current, _lost(pair, records), now)
        written.rows += len(removed)
        bereft |= {key[: len(tables.key_columns(records.current))] for key in removed}
    for pair in pairs:
        inserted, updated = _upsert(connection, source, pair, now)
        written.rows += inserted + updated
        if pair is records:
            written.inserted, written.updated = inserted, updated
    if children and written.rows > written.inserted + written.updated + written.deleted:
        written.updated += _changed_below(connection, source, pairs, bereft, now)
    return written


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
) -> list[Key]:
    """Move the rows of `current` that meet `condition` to history; return their keys."""
    history = tables.HISTORY[current]
    removed = (
        delete(current)
        .where(current.c.source == source, condition)
        .returning(*current.columns)
        .cte("removed")
    )
    names = [column.name for column in current.columns]
    statement = (
        insert(history)
        .from_select([*names, "valid_to"], select(removed, literal(now)))
        .returning(*(history.c[name] for name in tables.key_columns(current)))
    )
    return [tuple(row) for row in connection.execute(statement)]


def _lost(child: Staged, records: Staged) -> ColumnElement[bool]:
    """The row's record is staged, all its children were readable, and the row is not among them."""
    record = select(literal(1)).where(
        _same_key(records.stage, child.current, records.current), ~records.stage.c.partial
    )
    itself = select(literal(1)).where(_same_key(child.stage, child.current, child.current))
    return and_(record.exists(), ~itself.exists())


def _differing(source: str, pair: Staged) -> Select[Any]:
    """Staged rows that are new (`is_new`) or unlike the current row with their key."""
    current, stage = pair.current, pair.stage
    keys = tables.key_columns(current)
    names = tables.data_columns(current)
    fields = [name for name in names if name not in keys]
    same = and_(current.c.source == source, _same_key(stage, current, current))
    unlike = tuple_(*(current.c[name] for name in fields)).is_distinct_from(
        tuple_(*(stage.c[name] for name in fields))
    )
    return (
        select(*(stage.c[name] for name in names), current.c.source.is_(None).label("is_new"))
        .select_from(stage.outerjoin(current, same))
        .where(or_(current.c.source.is_(None), unlike))
    )


def _upsert(connection: Connection, source: str, pair: Staged, now: datetime) -> tuple[int, int]:
    """Insert staged rows that are new, update those that differ; return how many of each."""
    current, history = pair.current, tables.HISTORY[pair.current]
    keys = tables.key_columns(current)
    names = tables.data_columns(current)
    fields = [name for name in names if name not in keys]
    differing = _differing(source, pair).cte("differing").prefix_with("MATERIALIZED")
    superseded = (
        insert(history)
        .from_select(
            [*(column.name for column in current.columns), "valid_to"],
            select(current, literal(now)).join(
                differing, and_(current.c.source == source, _same_key(current, differing, current))
            ),
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
    counts = select(
        func.count().filter(differing.c.is_new), func.count().filter(~differing.c.is_new)
    ).select_from(differing)
    inserted, updated = connection.execute(counts.add_cte(superseded, upserted)).one()
    return inserted, updated


def _changed_below(
    connection: Connection,
    source: str,
    pairs: Sequence[Staged],
    bereft: set[Key],
    now: datetime,
) -> int:
    """How many records are as they were, but not their children; `bereft` lost one."""
    records, *children = pairs
    parent = records.current
    below: list[ColumnElement[bool]] = [
        select(literal(1))
        .where(
            pair.current.c.source == source,
            _same_key(pair.current, parent, parent),
            pair.current.c.valid_from == now,
        )
        .exists()
        for pair in children
    ]
    if bereft:
        below.append(_one_of(bereft, parent, parent))
    query = select(func.count()).where(
        parent.c.source == source, parent.c.valid_from != now, or_(*below)
    )
    return connection.scalar(query) or 0

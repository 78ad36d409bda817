"""Random histories of a source: after every step the tables equal those of a plain model."""

import json
import random
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Integer, Table

from etl.load import merge, stage
from etl.load.merge import Written
from etl.warehouse import tables
from tests.load.loading import CONTACT_FLOWS, FLOWS, Kind, at, pairs_of, rows_of

Key = tuple[Any, ...]
Cells = tuple[Any, ...]
Staged = dict[str, list[tuple[Any, ...]]]

STEPS = 25


class Model:
    """What the tables must hold: per table its rows with their valid_from, and closed versions."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.current: dict[Table, dict[Key, tuple[Cells, datetime]]] = {t: {} for t in kind.tables}
        self.closed: dict[Table, list[tuple[Key, Cells, datetime, datetime]]] = {
            table: [] for table in kind.tables
        }

    def close(self, table: Table, key: Key, now: datetime) -> None:
        cells, since = self.current[table].pop(key)
        self.closed[table].append((key, cells, since, now))

    def merge(self, staged: Staged, gone: list[Key], now: datetime) -> Written:
        records, *below = self.kind.tables
        width = len(tables.key_columns(records))
        known = set(self.current[records])
        last = {row[2 : 2 + width]: row for row in staged[records.fullname]}
        touched: set[Key] = set()
        written = Written()
        for key in gone:
            for table in self.kind.tables:
                for theirs in [k for k in self.current[table] if k[:width] == key]:
                    self.close(table, theirs, now)
                    written.rows += 1
                    written.deleted += table is records
        for table in self.kind.tables:
            own = 2 if table is records else 1
            wide = len(tables.key_columns(table))
            wanted = {
                row[own : own + wide]: row[own + wide :]
                for row in staged[table.fullname]
                if last[row[own : own + width]][0] == row[0]
            }
            if table in below:
                for key in [k for k in self.current[table] if k not in wanted]:
                    if key[:width] in last and not last[key[:width]][1]:
                        self.close(table, key, now)
                        touched.add(key[:width])
                        written.rows += 1
            for key, cells in wanted.items():
                old = self.current[table].get(key)
                if old is not None and old[0] == cells:
                    continue
                if old is not None:
                    self.close(table, key, now)
                self.current[table][key] = cells, now
                touched.add(key[:width])
                written.rows += 1
        written.inserted = len(touched - known)
        written.updated = len(touched & known)
        return written


def cell(rng: random.Random, kind: str) -> Any:
    choices: dict[str, list[Any]] = {
        "TEXT": [None, "", "a", "b", "流%s'\\"],
        "INTEGER": [None, 0, 1],
        "BOOLEAN": [None, True, False],
        "DATETIME": [None, at(1), at(2)],
        "JSONB": [None, "null", '{"a": 1}', '{"a": [2]}'],
    }
    return rng.choice(choices[kind])


def cells(rng: random.Random, table: Table) -> Cells:
    """Return values of the columns that are not keys; few differ, so that versions come again."""
    names = [name for name in tables.data_columns(table) if name not in tables.key_columns(table)]
    changed = rng.choice([None, None, *names])
    return tuple(
        cell(rng, type(table.c[name].type).__name__.upper()) if name == changed else None
        for name in names
    )


def record(rng: random.Random, kind: Kind, ordinal: int, key: Key) -> Staged:
    """Return the staged rows of one version of a record with its children."""
    found: Staged = {table.fullname: [] for table in kind.tables}
    records, *below = kind.tables
    found[records.fullname].append((ordinal, rng.random() < 0.15, *key, *cells(rng, records)))
    keys: dict[Table, list[Key]] = {records: [key]}
    for table in below:
        own = tables.key_columns(table)[len(tables.key_columns(table.info["parent"])) :]
        *between, last = ([0, 1] if isinstance(table.c[name].type, Integer) else ["x", "y", "'\"%s"]
                          for name in own)  # fmt: skip
        keys[table] = [
            (*above, *(rng.choice(each[:2]) for each in between), part)
            for above in keys[table.info["parent"]]
            for part in last
            if rng.random() < 0.4
        ]
        for each in keys[table]:
            found[table.fullname].append((ordinal, *each, *cells(rng, table)))
    return found


def scan_of(rng: random.Random, kind: Kind, keys: list[Key]) -> Iterator[Staged]:
    """Yield the batches of one scan: some of the records, some of them more than once."""
    seen = [key for key in keys if rng.random() < 0.7]
    seen += rng.choices(seen, k=2) if seen else []
    rng.shuffle(seen)
    for ordinal, key in enumerate(seen):
        yield record(rng, kind, ordinal, key)


def stored(connection: Connection, table: Table, times: tuple[str, ...]) -> list[Any]:
    names = [name for name in tables.data_columns(table) if name not in tables.key_columns(table)]
    return in_order(
        (
            (row["source"], *(row[name] for name in tables.key_columns(table))),
            tuple(row.get(name) for name in names),
            *(row[time] for time in times),
        )
        for row in rows_of(connection, tables.history(table) if "valid_to" in times else table)
    )


def in_order(rows: Iterable[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: (row[0], row[2]))


def as_stored(cells: Cells) -> Cells:
    """Return cells as they are read back: JSON decoded (JSON null and SQL null read the same)."""
    *others, extra = cells
    others = [json.loads(c) if isinstance(c, str) and c[:1] in "{n" and c else c for c in others]
    return (*others, json.loads(extra) if extra else None)


@pytest.mark.slow
@pytest.mark.every_postgres
@pytest.mark.parametrize("kind", [FLOWS, CONTACT_FLOWS], ids=["zoom", "alibaba"])
def test_random_histories_equal_the_model(connection: Connection, kind: Kind, seed: int) -> None:
    rng = random.Random(seed)
    parts = ["a", "-b", "'%s\\😀"]
    width = len(tables.key_columns(kind.tables[0]))
    keys: list[Key] = [(part,) if width == 1 else (i, part) for i in "ij" for part in parts]
    models = {source: Model(kind) for source in ("one", "two")}
    for step in range(STEPS):
        source = rng.choice(list(models))
        pairs, model = pairs_of(source, kind), models[source]
        staged: Staged = {table.fullname: [] for table in kind.tables}
        with connection.begin():
            stage.prepare(connection, pairs)
        for batch in scan_of(rng, kind, keys):
            with connection.begin():
                for pair in pairs:
                    rows = batch[pair.current.fullname]
                    stage.copy(connection, pair.stage, rows)
                    staged[pair.current.fullname] += rows
        with connection.begin():
            found = stage.deduplicate(connection, pairs, {}, None, None)
            absent = merge.unlisted(connection, source, pairs[0], [])
            here = {row[2 : 2 + width] for row in staged[kind.tables[0].fullname]}
            assert found == ({"": stage.Staged(len(here), None)} if here else {})
            assert absent == sorted(
                (key for key in model.current[kind.tables[0]] if key not in here),
                key=lambda key: [part.encode() for part in key],
            )
            gone = [key for key in absent if rng.random() < 0.4]
            many = rng.choice([0, 2, merge.MANY])
            written = merge.merge(connection, source, pairs, gone, at(step), many=many)
        assert written == model.merge(staged, gone, at(step)), f"step {step}"
        for table in kind.tables:
            assert stored(connection, table, ("valid_from",)) == in_order(
                ((source, *key), as_stored(cells), since)
                for source, model in models.items()
                for key, (cells, since) in model.current[table].items()
            ), f"step {step}: {table}"
    for table in kind.tables:
        assert stored(connection, table, ("valid_from", "valid_to")) == in_order(
            ((source, *key), as_stored(cells), since, until)
            for source, model in models.items()
            for key, cells, since, until in model.closed[table]
        ), table

"""Compares the warehouse with the world: after every run, and at the end of a history."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import psycopg
from sqlalchemy import Engine

from etl.config import load as config
from etl.load.runs import Run
from etl.providers.declare import Stream
from etl.sandbox.data import EMPTY
from etl.sandbox.server import Sandbox, serve
from etl.warehouse import tables
from etl.warehouse.connect import connect
from tests.postgres import dsn
from tests.sync import truth
from tests.sync.kinds import Key, Rendering, Row, canonical
from tests.sync.world import World

# -- the laboratory -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Laboratory:
    """What the histories of one process share: a sandbox and a warehouse."""

    url: str
    sandbox: Sandbox
    engine: Engine
    look: psycopg.Connection[Row]
    sources: Mapping[str, Any]

    def clear(self) -> None:
        """Forget the former history."""
        schemas = ["zoom", "twilio", "alibaba", "history", "etl", "staging"]
        found = self.look.execute(
            "SELECT format('%%I.%%I', schemaname, tablename) FROM pg_tables "
            "WHERE schemaname = ANY(%s)",
            [schemas],
        ).fetchall()
        self.look.execute(f"TRUNCATE {', '.join(name for (name,) in found)}")


@contextmanager
def laboratory(url: str) -> Iterator[Laboratory]:
    """A sandbox, and the warehouse at `url`, whose contents are lost."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(serve(EMPTY, keep_requests=1))
        directory = Path(stack.enter_context(TemporaryDirectory()))
        path = directory / "callflow.toml"
        path.write_text(sandbox.toml(), encoding="utf-8")
        path.chmod(0o600)
        engine = connect(url)
        stack.callback(engine.dispose)
        options = "-c timezone=UTC"
        look = stack.enter_context(psycopg.connect(dsn(url), autocommit=True, options=options))
        yield Laboratory(url, sandbox, engine, look, config.load(path, {}).sources)


# -- what the warehouse holds ---------------------------------------------------------------------

Contents = tuple[dict[Row, tuple[Row, datetime]], ...]
"""Per table of the stream: key → the row's data and its valid_from."""


def contents(look: psycopg.Connection[Row], source: str, stream: Stream) -> Contents:
    found: list[dict[Row, tuple[Row, datetime]]] = []
    for table in stream.tables:
        columns, keys = tables.data_columns(table), len(tables.key_columns(table))
        query = f"SELECT {', '.join(columns)}, valid_from FROM {table.fullname} WHERE source = %s"
        rows = (tuple(map(canonical, each)) for each in look.execute(query, [source]))
        found.append({each[:keys]: (each[:-1], each[-1]) for each in rows})
    return tuple(found)


def renderings(now: Contents, width: int) -> dict[Key, Rendering]:
    """The records that the tables hold, by key; `width` columns of each key are the record's."""
    sets: dict[Key, list[set[Row]]] = {}
    for index, table in enumerate(now):
        for key, (data, _) in table.items():
            sets.setdefault(key[:width], [set() for _ in now])[index].add(data)
    return {key: tuple(map(frozenset, parts)) for key, parts in sets.items()}


Version = tuple[int, Row, datetime, datetime | None]
"""Index of the table, data, valid_from, valid_to."""


@dataclass(slots=True)
class Chronicle:
    """What `<table>_history` has to say, put together from what was seen after each run."""

    now: Contents
    closed: list[Version] = field(default_factory=list)

    def add(self, later: Contents, changed_at: datetime | None) -> Iterator[str]:
        """Note the contents after a run that changed them at `changed_at`; yields what is odd."""
        for index, (before, after) in enumerate(zip(self.now, later, strict=True)):
            for key in before.keys() | after.keys():
                old, new = before.get(key), after.get(key)
                if old == new:
                    continue
                if old and new and old[0] == new[0]:
                    yield f"{key} got a new version without a change"
                if new and new[1] != changed_at:
                    yield f"{key} is valid from {new[1]}, the change was at {changed_at}"
                if old:
                    self.closed.append((index, *old, changed_at))
        self.now = later

    def versions(self) -> set[Version]:
        still = (
            (index, *row, None) for index, table in enumerate(self.now) for row in table.values()
        )
        return {*self.closed, *still}


def history(look: psycopg.Connection[Row], source: str, stream: Stream) -> list[Version]:
    found: list[Version] = []
    for index, table in enumerate(stream.tables):
        names = ", ".join(tables.data_columns(table))
        query = (
            f"SELECT {names}, valid_from, valid_to, is_current FROM {table.fullname}_history "
            "WHERE source = %s"
        )
        for *each, start, end, current in look.execute(query, [source]):
            assert current == (end is None)
            found.append((index, tuple(map(canonical, each)), start, end))
    return found


# -- the checker ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be: `kind` in a word or two, `text` says what and where."""

    kind: str
    text: str


@dataclass(slots=True)
class Outcome:
    """What came of a history, in numbers; `trace` has a line per run.

    `late`   rows that a complete run had not as they were at any time of it (where Twilio, which
             does not count its rows, promises nothing).
    `behind` rows that were not as they are in a quiet source before it was scanned in full.
    """

    mode: str
    seed: int
    algorithm: str
    findings: list[Finding] = field(default_factory=list)
    runs: int = 0
    complete: int = 0
    incomplete: int = 0
    crashed: int = 0
    incremental: int = 0
    quiet_runs: int = 0
    requests: int = 0
    quiet_requests: int = 0
    operations: int = 0
    late: int = 0
    behind: int = 0
    lost: int = 0
    stale: int = 0
    false_deletes: int = 0
    undetected: int = 0
    trace: list[str] = field(default_factory=list)

    def find(self, kind: str, text: object) -> None:
        self.findings.append(Finding(kind, f"run {self.runs}: {text}"))

    @classmethod
    def of(cls, text: str) -> Self:
        values = json.loads(text)
        return cls(**{**values, "findings": [Finding(**each) for each in values["findings"]]})


@dataclass(frozen=True, slots=True)
class State:
    """What etl.streams says that a run leaves behind."""

    watermark: datetime | None = None
    watermarks: Any = None
    changed_at: datetime | None = None
    read_at: datetime | None = None


class Checker:
    """Compares the warehouse with the world, after each run and at the end."""

    def __init__(self, world: World, lab: Laboratory, stream: Stream, outcome: Outcome) -> None:
        self.world, self.lab, self.outcome = world, lab, outcome
        self.source, self.tables = world.mode.source, stream
        self.width = len(tables.key_columns(stream.tables[0]))
        self.state = State()
        self.began, self.operation = world.now(), world.operation
        self.chronicle = Chronicle(tuple({} for _ in stream.tables))

    def read_state(self) -> State:
        row = self.lab.look.execute(
            "SELECT watermark, watermarks, changed_at, read_at FROM etl.streams WHERE source = %s",
            [self.source],
        ).fetchone()
        return State(*row) if row else State()

    def before_run(self) -> None:
        self.began, self.operation = self.world.now(), self.world.operation

    def after_run(self, run: Run | None) -> None:
        """`run` is None when the process died."""
        before, state = self.state, self.read_state()
        former = self.chronicle.now[0]
        now = contents(self.lab.look, self.source, self.tables)
        if run is not None and state.read_at != before.read_at:
            state = dataclasses.replace(state, read_at=self._put_right())
        self.state = state
        for odd in self.chronicle.add(now, state.changed_at):
            self.outcome.find("history", odd)
        self._removed([key for key in former if key not in now[0]], run)
        self._watermark(run, before, state)
        stored = renderings(now, self.width)
        for key, rendering in stored.items():
            life = self.world.lives.get(key)
            if life is None or not life.was(rendering):
                self.outcome.find("invented", f"{key} never was like this: {rendering}")
        if run is not None and run.status == "complete":
            self._vouched(run, stored)
        self._note(run, now)

    def _put_right(self) -> datetime:
        """read_at is of this machine's clock, but the source lives by the world's."""
        self.lab.look.execute(
            "UPDATE etl.streams SET read_at = %s WHERE source = %s", [self.began, self.source]
        )
        return self.began

    def _removed(self, gone: Sequence[Row], run: Run | None) -> None:
        living = self.world.lives
        for key in gone:
            if living[key].died is None:
                self.outcome.false_deletes += 1
                self.outcome.find("false delete", f"{key} was removed and still exists")
            if self.world.mode.keeps:
                self.outcome.find("not kept", f"{key} was removed")
        if gone and (run is None or run.status != "complete"):
            status = run.status if run else "crashed"
            self.outcome.find("unproven delete", f"{len(gone)} rows in a run that {status}")
        if run is not None and run.deleted != len(gone):
            self.outcome.find("count", f"{run.deleted} rows deleted, it says; {len(gone)} are gone")

    def _watermark(self, run: Run | None, before: State, state: State) -> None:
        marks = (state.watermark, state.watermarks)
        if marks == (before.watermark, before.watermarks):
            return
        if run is None or run.status != "complete":
            status = run.status if run else "crashed"
            self.outcome.find("watermark", f"moved to {marks} by a run that {status}")
        if state.watermark != before.watermark and state.watermark not in self.world.stamps:
            self.outcome.find("watermark", f"{state.watermark} is no time of the provider's")

    def _vouched(self, run: Run, stored: Mapping[Key, Rendering]) -> None:
        """What a complete run says of the rows that lived from before it until after it."""
        for key in self.world.living():
            life = self.world.lives[key]
            if life.versions[0].since > self.operation:
                continue
            rows, by_time = stored.get(key), run.mode == "incremental"
            if rows is None:
                problem = "missing"
            elif not life.was(rows) or life.is_older(rows, self.operation, seen_by_time=by_time):
                problem = "outdated"
            else:
                continue
            if self.world.mode.promises:
                self.outcome.find(f"{problem} in a complete run", key)
            else:
                self.outcome.late += 1

    def _note(self, run: Run | None, now: Contents) -> None:
        what = "crashed"
        if run is not None:
            counts = f"+{run.inserted} ~{run.updated} -{run.deleted} ?{run.absent}"
            what = f"{run.mode} {run.status} {run.error_kind or ''} {counts}"
        outcome, world = self.outcome, self.world
        when = f"operation {world.operation} at {world.now():%d %H:%M:%S}"
        outcome.trace.append(f"{outcome.runs} {what} {when} {digest_of(now)}")

    def behind(self) -> int:
        """How many records are not in the tables as they are now."""
        stored = renderings(self.chronicle.now, self.width)
        present = {key: self.world.lives[key].versions[-1].rows for key in self.world.living()}
        return sum(stored.get(key) != rendering for key, rendering in present.items())

    def at_the_end(self) -> None:
        """The source is quiet and was read: the tables are the source, the views what was seen."""
        outcome, world = self.outcome, self.world
        stored = renderings(self.chronicle.now, self.width)
        living = world.living()
        for key in living:
            rendering = stored.get(key)
            if rendering is None:
                outcome.lost += 1
                outcome.find("lost", key)
            elif rendering != world.lives[key].versions[-1].rows:
                outcome.stale += 1
                outcome.find("stale", key)
        if not world.mode.keeps:
            for key in sorted(stored.keys() - set(living)):
                outcome.undetected += 1
                outcome.find("undetected delete", key)
            if not outcome.findings and truth.stored(self.lab.url) != truth.of(self.lab.sandbox):
                outcome.find("truth", "tests/sync/truth.py sees another difference")
        found = history(self.lab.look, self.source, self.tables)
        expected = self.chronicle.versions()
        if len(found) != len(expected) or set(found) != expected:
            wrong = sorted(set(found) ^ expected, key=repr)
            outcome.find("history", f"{len(wrong)} versions are not as seen, such as {wrong[:2]}")

    def writes(self) -> tuple[Any, ...]:
        """Changes when any row of data or any sequence does."""
        sequences = self.lab.look.execute(
            "SELECT schemaname, sequencename, last_value FROM pg_sequences"
        )
        return truth.versions(self.lab.url), sorted(map(tuple, sequences))


def digest_of(now: Contents) -> str:
    """A digest of the data; equal in two histories that went alike."""
    data = [sorted(repr(data) for data, _ in table.values()) for table in now]
    return hashlib.sha256(repr(data).encode()).hexdigest()[:12]

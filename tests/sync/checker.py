"""Compare the warehouse with the simulated source: after every run, and at the end of a history."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import psycopg
from sqlalchemy import Engine, text

from etl.config import load as config
from etl.load.runs import Run
from etl.providers.declare import Stream
from etl.sandbox.data import EMPTY
from etl.sandbox.server import Sandbox, serve
from etl.sync.rebuild import rebuild_changes
from etl.warehouse import tables
from etl.warehouse.connect import connect
from tests.postgres import dsn
from tests.sync import truth
from tests.sync.kinds import Key, Rendering, Row, canonical
from tests.sync.simulation import SourceSimulation

# -- the environment ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Environment:
    """What the histories of one process share: a sandbox, a warehouse, and a connection to it."""

    url: str
    sandbox: Sandbox
    engine: Engine
    connection: psycopg.Connection[Row]
    sources: Mapping[str, Any]

    def clear(self) -> None:
        """Delete what the previous history left."""
        schemas = ["zoom", "twilio", "alibaba", "history", "etl", "staging"]
        found = self.connection.execute(
            "SELECT format('%%I.%%I', schemaname, tablename) FROM pg_tables "
            "WHERE schemaname = ANY(%s)",
            [schemas],
        ).fetchall()
        self.connection.execute(f"TRUNCATE {', '.join(name for (name,) in found)}")


@contextmanager
def open_environment(url: str) -> Iterator[Environment]:
    """Start a sandbox, and open the warehouse at `url`, whose contents are lost."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(serve(EMPTY, keep_requests=1))
        directory = Path(stack.enter_context(TemporaryDirectory()))
        path = directory / "callflow.toml"
        path.write_text(sandbox.toml(), encoding="utf-8")
        path.chmod(0o600)
        engine = connect(url)
        stack.callback(engine.dispose)
        options = "-c timezone=UTC"
        connection = stack.enter_context(
            psycopg.connect(dsn(url), autocommit=True, options=options)
        )
        yield Environment(url, sandbox, engine, connection, config.load(path, {}).sources)


# -- what the warehouse holds ---------------------------------------------------------------------

Contents = tuple[dict[Row, tuple[Row, datetime]], ...]
"""Per table of the stream: key → the row's data and its valid_from."""


def contents(connection: psycopg.Connection[Row], source: str, stream: Stream) -> Contents:
    found: list[dict[Row, tuple[Row, datetime]]] = []
    for table in stream.tables:
        columns, keys = tables.data_columns(table), len(tables.key_columns(table))
        query = f"SELECT {', '.join(columns)}, valid_from FROM {table.fullname} WHERE source = %s"
        rows = (tuple(map(canonical, each)) for each in connection.execute(query, [source]))
        found.append({each[:keys]: (each[:-1], each[-1]) for each in rows})
    return tuple(found)


def renderings(now: Contents, width: int) -> dict[Key, Rendering]:
    """Return the records in the tables, by key; the first `width` key columns are the record's."""
    sets: dict[Key, list[set[Row]]] = {}
    for index, table in enumerate(now):
        for key, (data, _) in table.items():
            sets.setdefault(key[:width], [set() for _ in now])[index].add(data)
    return {key: tuple(map(frozenset, parts)) for key, parts in sets.items()}


Version = tuple[int, Row, datetime, datetime | None]
"""Index of the table, data, valid_from, valid_to."""


@dataclass(slots=True)
class ExpectedHistory:
    """What `<table>_history` must contain, put together from the contents after each run."""

    now: Contents
    closed: list[Version] = field(default_factory=list)

    def add(self, later: Contents, changed_at: datetime | None) -> Iterator[str]:
        """Add the contents after a run that changed them at `changed_at`; yield what is wrong."""
        for index, (before, after) in enumerate(zip(self.now, later, strict=True)):
            for key in before.keys() | after.keys():
                old, new = before.get(key), after.get(key)
                if old == new:
                    continue
                if old and new and old[0] == new[0]:
                    yield f"{key} has a new version without a change"
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


def history(connection: psycopg.Connection[Row], source: str, stream: Stream) -> list[Version]:
    found: list[Version] = []
    for index, table in enumerate(stream.tables):
        names = ", ".join(tables.data_columns(table))
        query = (
            f"SELECT {names}, valid_from, valid_to, is_current FROM {table.fullname}_history "
            "WHERE source = %s"
        )
        for *each, start, end, current in connection.execute(query, [source]):
            assert current == (end is None)
            found.append((index, tuple(map(canonical, each)), start, end))
    return found


# -- the checker ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: `kind` in a word or two, `text` says what and where."""

    kind: str
    text: str


@dataclass(slots=True)
class Outcome:
    """The result of a history, in numbers; `trace` has a line per run.

    `late`   rows that were outdated or missing after a complete run. That is allowed for Twilio,
             which does not count its rows.
    `behind` rows that were outdated or missing before a quiet source was scanned in full.
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

    def add_finding(self, kind: str, text: object) -> None:
        self.findings.append(Finding(kind, f"run {self.runs}: {text}"))

    @classmethod
    def of(cls, text: str) -> Self:
        values = json.loads(text)
        return cls(**{**values, "findings": [Finding(**each) for each in values["findings"]]})


@dataclass(frozen=True, slots=True)
class State:
    """The state in etl.streams after a run."""

    watermark: datetime | None = None
    watermarks: Any = None
    changed_at: datetime | None = None
    read_at: datetime | None = None


class Checker:
    """Compares the warehouse with the simulated source, after each run and at the end."""

    def __init__(
        self, simulation: SourceSimulation, env: Environment, stream: Stream, outcome: Outcome
    ) -> None:
        self.simulation, self.env, self.outcome = simulation, env, outcome
        self.source, self.tables = simulation.mode.source, stream
        self.width = len(tables.key_columns(stream.tables[0]))
        self.state = State()
        self.started, self.operation = simulation.now(), simulation.operation
        self.expected = ExpectedHistory(tuple({} for _ in stream.tables))

    def read_state(self) -> State:
        row = self.env.connection.execute(
            "SELECT watermark, watermarks, changed_at, read_at FROM etl.streams WHERE source = %s",
            [self.source],
        ).fetchone()
        return State(*row) if row else State()

    def before_run(self) -> None:
        self.started, self.operation = self.simulation.now(), self.simulation.operation

    def after_run(self, run: Run | None) -> None:
        """Check the warehouse after `run`, which is None if the process died."""
        before, state = self.state, self.read_state()
        current = self.expected.now
        previous = current[0]
        now = contents(self.env.connection, self.source, self.tables)
        if run is not None and state.read_at != before.read_at:
            state = dataclasses.replace(state, read_at=self._reset_read_at())
        self.state = state
        for problem in self.expected.add(now, state.changed_at):
            self.outcome.add_finding("history", problem)
        self._check_removed([key for key in previous if key not in now[0]], run)
        self._check_watermark(run, before, state, now)
        self._check_parts(current, now)
        stored = renderings(now, self.width)
        for key, rendering in stored.items():
            record = self.simulation.records.get(key)
            if record is None or not record.had(rendering):
                self.outcome.add_finding("invented", f"{key} never looked like this: {rendering}")
        if run is not None and run.status == "complete":
            self._check_complete_run(run, stored)
        self._trace(run, now)

    def _reset_read_at(self) -> datetime:
        """Set read_at, which is by this machine's clock, to the clock of the simulation."""
        self.env.connection.execute(
            "UPDATE etl.streams SET read_at = %s WHERE source = %s", [self.started, self.source]
        )
        return self.started

    def _check_removed(self, gone: Sequence[Row], run: Run | None) -> None:
        records = self.simulation.records
        for key in gone:
            if records[key].deleted is None:
                self.outcome.false_deletes += 1
                self.outcome.add_finding("false delete", f"{key} was removed and still exists")
            if self.simulation.mode.keeps:
                self.outcome.add_finding("not kept", f"{key} was removed")
        if gone and (run is None or run.status != "complete"):
            status = run.status if run else "crashed"
            self.outcome.add_finding("unproven delete", f"{len(gone)} rows in a run that {status}")
        if run is not None and run.deleted != len(gone):
            self.outcome.add_finding(
                "count", f"{run.deleted} rows deleted by its report; {len(gone)} are gone"
            )

    def _check_parts(self, before: Contents, now: Contents) -> None:
        """Check that no part of a record has lost its content, which is fetched once."""
        parts = self.tables.detail and self.tables.detail.parts
        if not parts:
            return
        index = self.tables.tables.index(parts.table)
        content = tables.data_columns(parts.table).index(parts.content)
        for key, (data, _) in before[index].items():
            later = now[index].get(key)
            if later and data[content] is not None and later[0][content] != data[content]:
                self.outcome.add_finding("part", f"{key} lost its content or has another one")

    def _is_dated(self, now: Contents) -> bool:
        """Return whether a record has a time of its last change: a new Studio flow has none."""
        assert self.tables.modified
        index = tables.data_columns(self.tables.tables[0]).index(self.tables.modified)
        return any(data[index] is not None for data, _ in now[0].values())

    def _check_watermark(self, run: Run | None, before: State, state: State, now: Contents) -> None:
        marks = (state.watermark, state.watermarks)
        if marks == (before.watermark, before.watermarks):
            return
        if run is None or run.status != "complete":
            status = run.status if run else "crashed"
            self.outcome.add_finding("watermark", f"moved to {marks} by a run that {status}")
        times: set[datetime | None] = {*self.simulation.stamps}
        if not self._is_dated(now):
            times.add(None)
        if state.watermark != before.watermark and state.watermark not in times:
            self.outcome.add_finding("watermark", f"{state.watermark} is no time of the provider's")

    def _check_complete_run(self, run: Run, stored: Mapping[Key, Rendering]) -> None:
        """Check a complete run's version of the rows that existed from before it until after it."""
        for key in self.simulation.present():
            record = self.simulation.records[key]
            if record.versions[0].since > self.operation:
                continue
            rows, by_time = stored.get(key), run.mode == "incremental"
            if rows is None:
                problem = "missing"
            elif not record.had(rows) or record.is_older(
                rows, self.operation, seen_by_time=by_time
            ):
                problem = "outdated"
            else:
                continue
            if self.simulation.mode.promises:
                self.outcome.add_finding(f"{problem} in a complete run", key)
            else:
                self.outcome.late += 1

    def _trace(self, run: Run | None, now: Contents) -> None:
        what = "crashed"
        if run is not None:
            counts = f"+{run.inserted} ~{run.updated} -{run.deleted} ?{run.absent}"
            what = f"{run.mode} {run.status} {run.error_kind or ''} {counts}"
        outcome, simulation = self.outcome, self.simulation
        when = f"operation {simulation.operation} at {simulation.now():%d %H:%M:%S}"
        outcome.trace.append(f"{outcome.runs} {what} {when} {digest_of(now)}")

    def behind(self) -> int:
        """Return how many records are missing or outdated in the tables."""
        stored = renderings(self.expected.now, self.width)
        last = {key: self.simulation.records[key].versions[-1] for key in self.simulation.present()}
        return sum(
            key not in stored or not version.is_known_as(stored[key])
            for key, version in last.items()
        )

    def check_end(self) -> None:
        """Check tables and views against everything seen, after a quiet source was read."""
        outcome, simulation = self.outcome, self.simulation
        stored = renderings(self.expected.now, self.width)
        present = simulation.present()
        for key in present:
            rendering = stored.get(key)
            if rendering is None:
                outcome.lost += 1
                outcome.add_finding("lost", key)
            elif not simulation.records[key].versions[-1].is_known_as(rendering):
                outcome.stale += 1
                outcome.add_finding("stale", key)
        if not simulation.mode.keeps:
            for key in sorted(stored.keys() - set(present)):
                outcome.undetected += 1
                outcome.add_finding("undetected delete", key)
            held = truth.stored(self.env.url)
            if not outcome.findings and held != truth.of(self.env.sandbox, held):
                outcome.add_finding("truth", "tests/sync/truth.py finds a difference")
        found = history(self.env.connection, self.source, self.tables)
        expected = self.expected.versions()
        if len(found) != len(expected) or set(found) != expected:
            wrong = sorted(set(found) ^ expected, key=repr)
            outcome.add_finding(
                "history", f"{len(wrong)} versions are not as seen, such as {wrong[:2]}"
            )
        self._check_changes()

    def _check_changes(self) -> None:
        """Check that the log of changes is the one that the histories give."""
        query = text(f"SELECT * FROM {tables.changes.fullname}")
        with self.env.engine.connect() as connection:
            written = Counter(map(tuple, connection.execute(query)))
            rebuild_changes(connection)
            rebuilt = Counter(map(tuple, connection.execute(query)))
            connection.rollback()
        if written != rebuilt:
            wrong = [*(written - rebuilt), *(rebuilt - written)]
            self.outcome.add_finding("changes", f"{len(wrong)} rows differ, such as {wrong[:2]}")

    def writes(self) -> tuple[Any, ...]:
        """Return a value that changes when any row of data or any sequence does."""
        sequences = self.env.connection.execute(
            "SELECT schemaname, sequencename, last_value FROM pg_sequences"
        )
        return truth.versions(self.env.url), sorted(map(tuple, sequences))


def digest_of(now: Contents) -> str:
    """Return a digest of the data, equal in two histories that ran alike."""
    data = [sorted(repr(data) for data, _ in table.values()) for table in now]
    return hashlib.sha256(repr(data).encode()).hexdigest()[:12]

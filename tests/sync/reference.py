"""A warehouse in which every source is synced twice, and the checks that compare the two copies.

Every source exists as `…_demo`, whose runs are disturbed, and as `…_reference`, whose runs are not.
So the state after a kill has to be the one before the run, or the one that the reference has after
its run; after a second, undisturbed run it has to equal the reference.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, Literal

import psycopg
from sqlalchemy import Table

from etl.config import load as config
from etl.config.settings import Settings
from etl.load import stage
from etl.load.runs import Run
from etl.providers.catalog import STREAMS as EVERY_STREAM
from etl.providers.declare import Stream
from etl.sandbox import (
    alibaba_data,
    data,
    twilio_data,
    twilio_studio,
    twilio_studio_data,
    zoom_data,
)
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox
from etl.sandbox.store import Store
from etl.sync.selection import select
from etl.warehouse import tables
from etl.warehouse.model.changes import is_tracked
from tests.postgres import ask, dsn
from tests.sync import truth
from tests.sync.processes import Child, ForkServer, RunSpec, ViolationError

STREAMS = (
    "zoom_demo.flows",
    "twilio_demo.flex_flows",
    "twilio_demo.channels",
    "twilio_demo.studio_flows",
    "alibaba_demo.contact_flows",
)
"""The streams that are disturbed; the reference of `zoom_demo` is `zoom_reference`."""

SIZES = data.Sizes(
    44, 260, {"twilio.flex_flows": 24, "twilio.studio_flows": 26, "alibaba.contact_flows": 14}
)

State = dict[str, Counter[tuple[Any, ...]]]
Start = Literal["empty", "changed", "all", "absent", "same"]


# -- what the warehouse holds --------------------------------------------------------------------

INSTANTS = {
    "source",
    "run_id",
    "valid_from",
    "valid_to",
    "observed_at",
    "since",
    "first_seen",
    "last_seen",
}
"""Columns in which the two copies may differ."""

RUN_COLUMNS = (
    "mode",
    "status",
    "records",
    "inserted",
    "updated",
    "unchanged",
    "deleted",
    "rejected",
    "absent",
    "rows_written",
    "watermark_before",
    "watermark_after",
    "error_kind",
)


def _tables_of(stream: Stream) -> Iterator[Table]:
    for table in stream.tables:
        yield table
        yield tables.history(table)
    if is_tracked(stream.parts):
        yield tables.changes


def _of_stream(stream: Stream, table: Table) -> str:
    """Return the condition that a row of a table belongs to the stream, besides its source.

    The log of changes has those of all streams; the others' are about their flows.
    """
    if table is not tables.changes:
        return ""
    provider = stream.tables[0].schema
    others = [
        part
        for name, each in EVERY_STREAM.items()
        if name.partition(".")[0] == provider and each.name != stream.name
        for part in each.parts
        if part.view == "flows"
    ]
    conditions = [
        f"AND flow_id NOT IN (SELECT {part.columns['flow_id']} FROM {each.fullname} AS r)"
        for part in others
        for each in (part.table, tables.history(part.table))
    ]
    return " ".join(conditions)


def state_of(connection: psycopg.Connection[Any], source: str, stream: Stream) -> State:
    """Return what a run has committed, in a form that is equal for both copies."""
    state: State = {}

    def read(name: str, columns: Sequence[str], where: str = "") -> None:
        cells = ", ".join(f'"{column}"' for column in columns)
        rows = ask(connection, f"SELECT {cells} FROM {name} WHERE source = %s {where}", source)
        state[name] = Counter(tuple(_hashable(cell) for cell in row) for row in rows)

    for table in _tables_of(stream):
        columns = [c.name for c in table.columns if c.name not in INSTANTS]
        read(table.fullname, columns, _of_stream(stream, table))
    own = f"AND stream = '{stream.name}'"
    known = tables.metadata.tables
    for name in ("etl.absences", "etl.rejects"):
        if name in known:
            columns = [c.name for c in known[name].columns if c.name not in INSTANTS]
            read(name, columns, own)
    marks = [n for n in ("watermark", "watermarks", "newest_first") if n in tables.streams.c]
    read("etl.streams", marks, f"{own} AND watermark IS NOT NULL")
    read(
        "etl.runs",
        [name for name in RUN_COLUMNS if name in tables.runs.c],
        f"{own} AND status IN ('complete', 'incomplete')",
    )
    return state


def _hashable(cell: Any) -> Any:
    return json.dumps(cell, sort_keys=True) if isinstance(cell, dict | list) else cell


def rows_of(
    connection: psycopg.Connection[Any], source: str, stream: Stream, *, staging: bool = False
) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row with its place in its table: equal only if nothing at all was written."""
    names = {
        table.fullname: f"WHERE source = '{source}' {_of_stream(stream, table)}"
        for table in _tables_of(stream)
    }
    own = f"WHERE source = '{source}' AND stream = '{stream.name}'"
    names |= {
        name: own
        for name in ("etl.absences", "etl.checkpoints", "etl.rejects", "etl.streams")
        if name in tables.metadata.tables
    }
    if staging:
        for table in stream.tables:
            pair = stage.pair_of(source, table).stage
            name = f'"{pair.schema}"."{pair.name}"'
            if ask(connection, "SELECT to_regclass(%s)", name) != [(None,)]:
                names[name] = ""
    return {
        name: ask(connection, f"SELECT ctid::text, t::text FROM {name} t {where} ORDER BY ctid")
        for name, where in names.items()
    }


def history_errors(connection: psycopg.Connection[Any], source: str, stream: Stream) -> list[str]:
    """Return what is wrong in a stream's history and in its watermark, as messages."""
    found = []
    for table in stream.tables:
        keys = ", ".join(f'"{name}"' for name in tables.key_columns(table))
        query = _VERSIONS.format(keys=keys, **_parts(table))
        ((empty, overlaps, equal),) = ask(connection, query, source, source)
        found += [f"{table.fullname}: {empty} versions are empty intervals"] * bool(empty)
        found += [f"{table.fullname}: {overlaps} versions overlap"] * bool(overlaps)
        found += [f"{table.fullname}: {equal} versions equal the next one"] * bool(equal)
        parent = table.info["parent"]
        if parent is not None and not found:
            above = ", ".join(f'"{name}"' for name in tables.key_columns(parent))
            query = _COVERED.format(
                keys=above,
                current=table.fullname,
                history=tables.history(table).fullname,
                above=parent.fullname,
                above_history=tables.history(parent).fullname,
            )
            ((orphans,),) = ask(connection, query, *[source] * 4)
            found += [f"{table.fullname}: {orphans} versions without a parent"] * bool(orphans)
    records = stream.tables[0]
    ahead = ask(
        connection,
        f"""SELECT watermark FROM etl.streams WHERE source = %s AND stream = %s AND watermark > (
              SELECT max(newest) FROM (
                SELECT max({stream.modified}) newest FROM {records.fullname} WHERE source = %s
                UNION ALL SELECT max({stream.modified})
                FROM {tables.history(records).fullname} WHERE source = %s) both_tables)""",
        source,
        stream.name,
        source,
        source,
    )
    return found + [f"the watermark {mark} is ahead of every row" for (mark,) in ahead]


def _parts(table: Table) -> dict[str, str]:
    cells = (f'"{c.name}"' for c in table.columns if c.name not in INSTANTS)
    return {
        "body": f"ROW({', '.join(cells)})::text",
        "current": table.fullname,
        "history": tables.history(table).fullname,
    }


_VERSIONS = """
SELECT count(*) FILTER (WHERE valid_to <= valid_from),
       count(*) FILTER (WHERE following < valid_to),
       count(*) FILTER (WHERE following = valid_to AND next_body = body)
FROM (
    SELECT *, lead(valid_from) OVER each_row AS following, lead(body) OVER each_row AS next_body
    FROM (SELECT {keys}, {body} AS body, valid_from, valid_to FROM {history} WHERE source = %s
          UNION ALL
          SELECT {keys}, {body}, valid_from, 'infinity' FROM {current} WHERE source = %s) v
    WINDOW each_row AS (PARTITION BY {keys} ORDER BY valid_from, valid_to)) w"""

_COVERED = """
SELECT count(*)
FROM (SELECT {keys}, tstzrange(valid_from, valid_to) life FROM {history} WHERE source = %s
      UNION ALL
      SELECT {keys}, tstzrange(valid_from, NULL) FROM {current} WHERE source = %s) child
LEFT JOIN (
    SELECT {keys}, range_agg(life) lives
    FROM (SELECT {keys}, tstzrange(valid_from, valid_to) life FROM {above_history}
          WHERE source = %s
          UNION ALL
          SELECT {keys}, tstzrange(valid_from, NULL) FROM {above} WHERE source = %s) p
    GROUP BY {keys}) parent USING ({keys})
WHERE NOT coalesce(child.life <@ parent.lives, false)"""


# -- the harness ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scenario:
    """The state before a run, and the state after the undisturbed run of its reference."""

    names: tuple[str, ...]
    before: Mapping[str, State]
    rows: Mapping[str, Mapping[str, list[tuple[Any, ...]]]]
    after: Mapping[str, State]
    seconds: float


class Harness:
    """Emulators, and a warehouse with two copies of every source."""

    def __init__(self, sandbox: Sandbox, url: str, place: Path, fork_server: ForkServer) -> None:
        self.sandbox = sandbox
        self.url = url
        self._fork_server = fork_server
        self._connection: psycopg.Connection[Any] | None = None
        sandbox.zoom.largest_page = 12
        sandbox.twilio.largest_page = 10
        self._settings: dict[bool, Settings] = {}
        for reference in (False, True):
            text = sandbox.toml()
            path = place / "callflow.toml"
            path.write_text(
                text.replace("_demo]", "_reference]") if reference else text, encoding="utf-8"
            )
            path.chmod(0o600)
            self._settings[reference] = config.load(path, {})

    @contextmanager
    def querying(self) -> Iterator[psycopg.Connection[Any]]:
        """Open the test's own connection, in autocommit, which waits only 300 ms for a lock."""
        if self._connection is None:
            self._connection = psycopg.connect(dsn(self.url), autocommit=True)
            self._connection.execute("SET lock_timeout = '300ms'")
        yield self._connection

    def disconnect(self) -> None:
        """Close that connection; the next query opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def start(self, names: Sequence[str], **more: Any) -> Child:
        """Start a process that runs these streams."""
        return self.fork(self.spec(names, **more))

    def fork(self, spec: RunSpec) -> Child:
        """Start a process with this specification."""
        return self._fork_server.start(spec)

    def spec(
        self,
        names: Sequence[str],
        *,
        reference: bool = False,
        settings: Mapping[str, Any] = MappingProxyType({}),
        **more: Any,
    ) -> RunSpec:
        """Return what a child is to run; `settings` override those of the sources."""
        wanted = [name.replace("_demo.", "_reference.") if reference else name for name in names]
        units = tuple(
            (source.model_copy(update=settings), stream.name)
            for source, stream in select(self._settings[reference], wanted)
        )
        return RunSpec(self.url, units, **more)

    def stream(self, name: str) -> Stream:
        """Return the stream of that name."""
        ((_, stream),) = select(self._settings["_reference." in name], [name])
        return stream

    def wipe(self, names: Sequence[str] = STREAMS) -> None:
        """Delete everything about these streams, their staging tables included."""
        with self.querying() as connection:
            for name in names:
                stream = self.stream(name)
                for source in (name.split(".")[0], _reference(name).split(".")[0]):
                    self._delete_stream(connection, source, stream)

    def _delete_stream(
        self, connection: psycopg.Connection[Any], source: str, stream: Stream
    ) -> None:
        for table in reversed(list(_tables_of(stream))):
            of = _of_stream(stream, table)
            do(connection, f"DELETE FROM {table.fullname} WHERE source = %s {of}", source)
        for table in tables.metadata.tables.values():
            if table.schema == "etl":
                query = f"DELETE FROM {table.fullname} WHERE source = %s AND stream = %s"
                do(connection, query, source, stream.name)
        for table in stream.tables:
            pair = stage.pair_of(source, table).stage
            do(connection, f'DROP TABLE IF EXISTS "{pair.schema}"."{pair.name}"')

    def run(self, names: Sequence[str], **more: Any) -> tuple[dict[str, Run], float]:
        """Run streams in a separate process, undisturbed; return their runs, and the seconds."""
        with self.start(names, **more) as child:
            child.finish()
            if child.code or not child.all_ended:
                raise ViolationError("crashed", f"{names} ended with code {child.code}")
            return child.runs, child.seconds

    def states(self, names: Sequence[str]) -> dict[str, State]:
        """Return the state of each stream."""
        with self.querying() as connection:
            return {
                name: state_of(
                    connection,
                    name.split(".")[0],
                    self.stream(name.replace("_reference.", "_demo.")),
                )
                for name in names
            }

    def rows(self, names: Sequence[str], *, staging: bool = False) -> dict[str, Any]:
        """Return the rows of each stream, with their places."""
        with self.querying() as connection:
            return {
                name: rows_of(connection, name.split(".")[0], self.stream(name), staging=staging)
                for name in names
            }

    def scenario(
        self, names: Sequence[str], start: Start, random: Random, *, full: bool = False
    ) -> Scenario:
        """Change the provider's rows, then run the references over them undisturbed.

        `start` is what a run finds: nothing was loaded yet (`empty`); or since the first load there
        were a few changes (`changed`), one of each kind (`all`), none (`same`), or a row was
        deleted and one run has already missed it (`absent`).
        """
        names = tuple(names)
        if start == "empty":
            self.wipe(names)
        elif missing := [name for name in names if not self.committed(name)]:
            self.run(missing)
            self.run(missing, reference=True)
        for name in names:
            kinds: Sequence[int] = ()
            if start == "changed":
                kinds = random.choices(range(KINDS[name]), k=random.randint(1, 4))
            elif start == "all":
                kinds = range(KINDS[name])
            elif start == "absent":
                kinds = [KINDS[name] - 1]
            apply_changes(self.sandbox, name, random, kinds)
            if start == "absent":
                self.run([name])
                self.run([name], reference=True)
        before = self.states(names)
        rows = self.rows(names)
        _, seconds = self.run(names, reference=True, full=full)
        after = self.states([_reference(name) for name in names])
        return Scenario(
            names, before, rows, {name: after[_reference(name)] for name in names}, seconds
        )

    def committed(self, name: str) -> int:
        """Return how many runs of the stream have merged what they found."""
        source, stream = name.split(".")
        with self.querying() as connection:
            query = """SELECT count(*) FROM etl.runs WHERE source = %s AND stream = %s
                       AND status IN ('complete', 'incomplete')"""
            ((runs,),) = ask(connection, query, source, stream)
        return int(runs)

    def has_run(self, name: str, run: Run) -> bool:
        """Return whether the warehouse has that run."""
        with self.querying() as connection:
            query = "SELECT FROM etl.runs WHERE source = %s AND run_id = %s"
            return bool(ask(connection, query, name.split(".")[0], run.run_id))

    def verify(self, scenario: Scenario) -> dict[str, bool]:
        """Return for each run whether it was committed; raise ViolationError if it was in part."""
        applied = {}
        states = self.states(scenario.names)
        rows = self.rows(scenario.names)
        for name in scenario.names:
            before, after, now = scenario.before[name], scenario.after[name], states[name]
            if now not in (before, after):
                raise ViolationError(
                    "torn",
                    f"{name} is neither as before ({difference(before, now)}) nor as after a whole "
                    f"run ({difference(after, now)})",
                )
            applied[name] = now == after
            scratch = {"etl.checkpoints", "etl.streams", "etl.rejects"}
            touched = [
                table
                for table, previous in scenario.rows[name].items()
                if table not in scratch and rows[name][table] != previous
            ]
            if touched and not applied[name]:
                raise ViolationError("torn", f"{name}: rows of {touched} were written again")
            self._check_history(name)
        return applied

    def restart(self, scenario: Scenario, **more: Any) -> dict[str, Run]:
        """Run once more, undisturbed: it has to end in the state of the reference."""
        ended, _ = self.run(scenario.names, **more)
        self.catch_up_reference(scenario.names)
        for name in scenario.names:
            run = ended[name]
            if run.status not in ("complete", "incomplete"):
                raise ViolationError("stuck", f"the next run of {name}: {run.status}: {run.error}")
            self.compare(name)
        return ended

    def catch_up_reference(self, names: Sequence[str]) -> None:
        """Run each reference until it has run as often as its stream."""
        for name in names:
            while self.committed(_reference(name)) < self.committed(name):
                self.run([name], reference=True)

    def compare(self, name: str) -> None:
        """Check that the stream equals its reference, with a sound history and no leftovers."""
        states = self.states([name, _reference(name)])
        wanted, now = states[_reference(name)], states[name]
        if wanted != now:
            lost = any((wanted[table] - now[table]) for table in wanted if table != "etl.runs")
            raise ViolationError(
                "lost" if lost else "doubled",
                f"{name} is not as after undisturbed runs: {difference(wanted, now)}",
            )
        self._check_history(name)
        self._check_leftovers(name)

    def _check_history(self, name: str) -> None:
        with self.querying() as connection:
            found = history_errors(connection, name.split(".")[0], self.stream(name))
        if found:
            raise ViolationError("torn", f"{name}: {'; '.join(found)}")

    def _check_leftovers(self, name: str) -> None:
        source, stream = name.split(".")
        left = []
        with self.querying() as connection:
            for table in self.stream(name).tables:
                pair = stage.pair_of(source, table).stage
                place = f'"{pair.schema}"."{pair.name}"'
                if ask(connection, "SELECT to_regclass(%s)", place) == [(None,)]:
                    continue
                if ask(connection, f"SELECT FROM {place} LIMIT 1"):
                    left.append(f"rows in {place}")
            query = (
                "SELECT holder FROM etl.leases WHERE source = %s AND stream = %s AND until > now()"
            )
            if ask(connection, query, source, stream):
                left.append("a lease")
            if "etl.checkpoints" in tables.metadata.tables:
                query = "SELECT FROM etl.checkpoints WHERE source = %s AND stream = %s"
                if ask(connection, query, source, stream):
                    left.append("a checkpoint")
            records = self.stream(name).tables[0].fullname
            query = f"""SELECT "rows", (SELECT count(*) FROM {records} t WHERE t.source = s.source),
                        last_status, error FROM etl.streams s WHERE source = %s AND stream = %s"""
            ((recorded, stored, status, error),) = ask(connection, query, source, stream)
            if recorded != stored:
                left.append(f"etl.streams.rows is {recorded}, the table has {stored}")
            if status not in ("complete", "incomplete"):
                left.append(f"status {status}: {error}")
        if left:
            raise ViolationError("leftover", f"{name}: {', '.join(left)}")

    def converge(self, names: Sequence[str] = STREAMS, runs: int = 4) -> None:
        """Check that the tables equal what the provider lists once it no longer changes."""
        fullnames = {table.fullname for name in names for table in self.stream(name).tables}
        for _ in range(runs):
            ended, _ = self.run(names, full=True)
            self.run(names, full=True, reference=True)
            held = {
                table: {row for row in rows if row[0].endswith("_demo")}
                for table, rows in truth.stored(self.url).items()
            }
            listed = truth.of(self.sandbox, held)
            wanted, found = ({name: of[name] for name in fullnames} for of in (listed, held))
            if found == wanted and {run.status for run in ended.values()} == {"complete"}:
                break
        else:
            lost = {table: len(wanted[table] - found[table]) for table in wanted}
            surplus = {table: len(found[table] - wanted[table]) for table in wanted}
            states = {name: (run.status, run.error) for name, run in ended.items()}
            raise ViolationError(
                "lost" if any(lost.values()) else "doubled",
                f"after {runs} quiet runs {lost} are missing, {surplus} too many; {states}",
            )
        for name in names:
            self._check_history(name)

    @contextmanager
    def faults(self, *faults: Fault) -> Iterator[None]:
        """Add faults to all three emulators, for the length of the block."""
        emulators = (self.sandbox.zoom, self.sandbox.twilio, self.sandbox.alibaba)
        for emulator in emulators:
            emulator.faults.extend(faults)
        try:
            yield
        finally:
            for emulator in emulators:
                emulator.faults[:] = [each for each in emulator.faults if each not in faults]


def _reference(name: str) -> str:
    return name.replace("_demo.", "_reference.")


def do(connection: psycopg.Connection[Any], query: str, *values: object) -> None:
    """Execute a statement that was put together here."""
    connection.execute(query.encode(), values)


def difference(wanted: State, found: State) -> str:
    """Say in which tables how many rows are missing or too many, with an example."""
    words = []
    for table in wanted:
        for sign, rows in (
            ("-", wanted[table] - found[table]),
            ("+", found[table] - wanted[table]),
        ):
            if rows:
                words.append(f"{table} {sign}{rows.total()} {str(next(iter(rows)))[:160]}")
    return "; ".join(words) or "no difference"


# -- changes at the provider ---------------------------------------------------------------------


KINDS = {
    "zoom_demo.flows": 6,
    "twilio_demo.flex_flows": 3,
    "twilio_demo.channels": 2,
    "twilio_demo.studio_flows": 5,
    "alibaba_demo.contact_flows": 5,
}
"""How many kinds of changes each provider's list has; the last one deletes a row, except for
channels, which are kept when they are no longer listed."""


def apply_changes(sandbox: Sandbox, name: str, random: Random, kinds: Sequence[int]) -> None:
    """Apply changes at the provider, each to another row: it is added, changed or deleted, or gets
    or loses children."""
    if name == "zoom_demo.flows":
        flows, changes = sandbox.zoom.flows, _zoom_changes
    elif name == "twilio_demo.flex_flows":
        flows, changes = sandbox.twilio.flex_flows, _flex_flow_changes
    elif name == "twilio_demo.channels":
        flows, changes = sandbox.twilio.channels, _channel_changes
    elif name == "twilio_demo.studio_flows":
        flows, changes = sandbox.twilio.studio_flows, _studio_flow_changes
    else:
        flows, changes = random.choice(list(sandbox.alibaba.flows.values())), _alibaba_changes
    keys = flows.keys()[-30:]
    if name == "zoom_demo.flows":  # so that there are children to be lost
        known = flows.keys()
        parents = [key for key in known if flows.get(key)["flow_versions"]]
        keys = parents[-30:] if len(parents) >= len(kinds) else keys
    for kind, key in zip(kinds, random.sample(keys, len(kinds)), strict=True):
        changes(sandbox, flows, key, random)[kind]()


Changes = list[Callable[[], object]]


def _zoom_changes(sandbox: Sandbox, flows: Store, key: str, random: Random) -> Changes:
    (other,) = zoom_data.flows(random, 1)
    number, versions = random.randrange(10**6), flows.get(key)["flow_versions"]
    return [
        lambda: flows.add(other),
        lambda: flows.update(key, flow_name=f"Hotline {number}", status="archived"),
        lambda: flows.update(key, flow_versions=[], entry_points=other["entry_points"]),
        lambda: flows.update(key, flow_versions=[*versions, *other["flow_versions"]]),
        lambda: flows.update_silently(key, flow_description=f"silent {number}"),
        lambda: flows.delete(key),
    ]


def _flex_flow_changes(sandbox: Sandbox, flows: Store, key: str, random: Random) -> Changes:
    (other,) = twilio_data.flex_flows(random, 1, sandbox.twilio.account_sid)
    return [
        lambda: flows.add(other),
        lambda: flows.update(key, friendly_name=other["friendly_name"], enabled=False),
        lambda: flows.delete(key),
    ]


def _channel_changes(sandbox: Sandbox, flows: Store, key: str, random: Random) -> Changes:
    account, flex_flows = sandbox.twilio.account_sid, sandbox.twilio.flex_flows.records()
    ((_, text, _),) = twilio_data.channels(random, 1, account, flex_flows)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(sandbox.twilio.clock()))
    other = {**json.loads(text), "date_created": now, "date_updated": now}
    return [
        lambda: flows.add(other),
        lambda: flows.update(key, user_sid=other["user_sid"]),
    ]


def _studio_flow_changes(sandbox: Sandbox, flows: Store, key: str, random: Random) -> Changes:
    twilio = sandbox.twilio
    (other,) = twilio_studio_data.studio_flows(random, 1, twilio.account_sid)
    inside = twilio_studio.revisions(other)[-1]["definition"]
    return [
        lambda: flows.add(other),
        lambda: twilio.save_draft(key, inside),
        lambda: twilio.publish(key, inside),
        lambda: twilio.publish(key),
        lambda: flows.delete(key),
    ]


def _alibaba_changes(sandbox: Sandbox, flows: Store, key: str, random: Random) -> Changes:
    (other,) = alibaba_data.flows(random, 1, flows.get(key)["InstanceId"])
    shanghai = time.gmtime(sandbox.alibaba.clock() + 8 * 3600)
    other["UpdatedTime"] = time.strftime("%Y-%m-%d %H:%M:%S.0", shanghai)
    return [
        lambda: flows.add(other),
        lambda: flows.update(key, Name=other["Name"] + " 2"),
        lambda: flows.update(key, Definition=other["Definition"]),
        lambda: flows.update(key, NumberList=[f"400{random.randrange(10**6)}"]),
        lambda: flows.delete(key),
    ]

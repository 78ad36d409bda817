"""Read flows, their inside and their changes from the views of the schema `callflow`.

Each function reads in the transaction that `snapshot` starts, with no more rights than `callflow
grant` gives. A row is a mapping from the columns of its view to values; times are UTC.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from etl.config.redact import Redactor
from etl.status.drawing import Drawing, Link, Step
from etl.warehouse.model import contract
from etl.warehouse.model.contract import View
from etl.warehouse.translate import translate_errors

Row = Mapping[str, Any]

OPEN = frozenset({"dead_end", "open_event"})
"""Findings that an event of the step leads nowhere."""

INSTANT = timedelta(microseconds=1)
"""The smallest difference between two moments in Postgres."""


@dataclass(frozen=True, slots=True, order=True)
class Flow:
    """A flow that a person may mean: what identifies it, its last name, and whether it is there.

    `account_id` and `name` are "" where the provider has none.
    """

    source: str
    account_id: str
    flow_id: str
    provider: str
    name: str
    is_there: bool

    @property
    def key(self) -> str:
        """The flow's `flow_key`, by which `find` finds it and no other."""
        return "/".join(filter(None, (self.source, self.account_id, self.flow_id)))


@dataclass(frozen=True, slots=True)
class Content:
    """What a flow was at a moment: its row of callflow.flows, and the rows that belong to it.

    `gone_at` when callflow saw that it was gone, and the rows are its last ones; None: it is there.
    `uses` are the references of its steps, `used_by` those of other flows to it, with the name of
    each. Only the row of the flow has the columns that identify it.
    """

    flow: Row
    gone_at: datetime | None
    entry_points: Sequence[Row]
    versions: Sequence[Row]
    findings: Sequence[Row]
    steps: Sequence[Row]
    links: Sequence[Row]
    uses: Sequence[Row] = ()
    used_by: Sequence[Row] = ()


@contextmanager
def snapshot(engine: Engine, redact: Redactor, where: str) -> Iterator[Connection]:
    """Yield a connection in a transaction that reads, and in which all is as of one instant.

    Raises WarehouseError.
    """
    with translate_errors(where, redact, engine), engine.begin() as connection:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.exec_driver_sql("SET LOCAL jit = off")  # to compile takes longer
        yield connection


def now(connection: Connection) -> datetime:
    """Return the database's time at the start of the transaction."""
    found: datetime = connection.execute(text("SELECT now()")).scalar_one()
    return found


def sources(connection: Connection) -> list[str]:
    """Return the names of the sources that were ever synced, or that have changes, sorted."""
    query = "SELECT source FROM callflow.freshness UNION SELECT source FROM callflow.changes"
    return sorted(connection.execute(text(query)).scalars())


# --- which flow is meant -------------------------------------------------------------------------
_NAMES = "SELECT provider, source, account_id, flow_id, name FROM callflow.flows"
_ONCE = _NAMES.replace("SELECT", "SELECT DISTINCT", 1) + "_history WHERE NOT is_current"

_LAST = """
    SELECT DISTINCT ON (source, account_id, flow_id, provider)
        source, coalesce(account_id, ''), flow_id, provider, coalesce(name, ''), is_current
    FROM callflow.flows_history WHERE flow_id = ANY (:ids) {and_source}
    ORDER BY source, account_id, flow_id, provider, valid_from DESC
"""


def find(connection: Connection, wanted: str, source: str | None = None) -> list[Flow]:
    """Return the flows that `wanted` means, in the order of their keys; [] if there are none.

    It means a flow's id or key; else its name, whole or in part, whatever its case. The first of
    these that fits counts. Names of flows that are there come before what flows were once called.
    `source` leaves out the other sources.
    """
    ids = [wanted]
    while "/" in ids[-1]:
        ids.append(ids[-1].partition("/")[2])
    known = [flow for flow in _last(connection, ids, source) if wanted in (flow.flow_id, flow.key)]
    if known or not wanted.strip():
        return known
    for query, condition in ((_NAMES, "WHERE"), (_ONCE, "AND")):
        limited = f"{query} {condition} source = :source" if source else query
        rows = connection.execute(text(limited), {"source": source} if source else {}).all()
        if meant := _called(wanted, ((row.name, row) for row in rows)):
            keys = {(row.source, row.account_id or "", row.flow_id) for row in meant}
            found = _last(connection, [row.flow_id for row in meant], source)
            return [flow for flow in found if (flow.source, flow.account_id, flow.flow_id) in keys]
    return []


def _last(connection: Connection, ids: Sequence[str], source: str | None) -> list[Flow]:
    """Return the flows with these ids, with their last names, in the order of their keys."""
    query = text(_LAST.format(and_source="AND source = :source" if source else ""))
    given = {"ids": list(dict.fromkeys(ids)), **({"source": source} if source else {})}
    return sorted(Flow(*row) for row in connection.execute(query, given))


def _called(wanted: str, names: Iterable[tuple[str | None, Any]]) -> list[Any]:
    """Return what has the name `wanted`, else has it in another case, else has it as a part.

    Python compares, because what another case is depends on the collation of the database.
    """
    folded = wanted.casefold()
    exact, same, part = [], [], []
    for name, named in names:
        if name is None or folded not in name.casefold():
            continue
        part.append(named)
        if name.casefold() == folded:
            same.append(named)
        if name == wanted:
            exact.append(named)
    return exact or same or part


# --- what a flow is, or was ----------------------------------------------------------------------
_VERSION = """
    SELECT valid_from, valid_to FROM callflow.flows_history
    WHERE {which} AND valid_from <= coalesce(CAST(:at AS timestamptz), 'infinity')
    ORDER BY valid_from DESC LIMIT 1
"""

_IDENTITY = {column.name for column in (*contract.IDENTITY, contract.FLOW_KEY)}


def content(connection: Connection, flow: Flow, at: datetime | None = None) -> Content | None:
    """Return what `flow` is, or was at the moment `at`; None if callflow did not know it yet.

    The views of callflow answer as of that moment until the transaction ends.
    """
    which, given = of_flow(flow)
    version = connection.execute(
        text(_VERSION.format(which=which)), {**given, "at": at}
    ).one_or_none()
    if version is None:
        return None
    gone_at = version.valid_to
    if at is not None and gone_at is not None and gone_at > at:
        gone_at = None
    as_of = at if gone_at is None else gone_at - INSTANT
    if as_of is not None:
        setting = text("SELECT set_config('callflow.at', :at, true)")
        connection.execute(setting, {"at": as_of.isoformat()})
    (row,) = _rows(connection, contract.FLOWS, flow, "valid_from", whole=True)
    return Content(
        row,
        gone_at,
        _rows(connection, contract.ENTRY_POINTS, flow, "kind, address, entry_point_id"),
        _rows(
            connection,
            contract.FLOW_VERSIONS,
            flow,
            "version_number DESC NULLS LAST, modified_at DESC NULLS LAST, version_id",
        ),
        _rows(connection, contract.FLOW_FINDINGS, flow, "finding, step_id, detail"),
        _rows(connection, contract.FLOW_STEPS, flow, "step_number NULLS LAST, step_id"),
        _rows(connection, contract.FLOW_STEP_LINKS, flow, "step_id, link_number"),
        _rows(connection, contract.FLOW_REFERENCES, flow, "kind, target_name, target_id, step_id"),
        _used_by(connection, flow),
    )


def _rows(
    connection: Connection, view: View, flow: Flow, order: str, *, whole: bool = False
) -> list[Row]:
    """Return the rows of `view` that belong to `flow`; `whole`: with what identifies it."""
    which, given = of_flow(flow)
    listed = ", ".join(
        column.name for column in view.columns if whole or column.name not in _IDENTITY
    )
    query = f"SELECT {listed} FROM callflow.{view.name} WHERE {which} ORDER BY {order}"
    return [dict(row._mapping) for row in connection.execute(text(query), given)]


_USED_BY = """
    SELECT DISTINCT f.name, r.flow_id, r.flow_key, r.step_id
    FROM callflow.flow_references AS r JOIN callflow.flows AS f
        ON f.provider = r.provider AND f.source = r.source AND f.flow_id = r.flow_id
        AND f.account_id IS NOT DISTINCT FROM r.account_id
    WHERE r.kind = 'flow' AND NOT r.is_dynamic AND r.provider = :provider AND r.source = :source
        AND r.target_id = :flow_id AND r.flow_id <> :flow_id
        AND coalesce(r.account_id, '') = :account_id
    ORDER BY f.name, r.flow_id, r.step_id
"""


def _used_by(connection: Connection, flow: Flow) -> list[Row]:
    """Return the steps of other flows that refer to `flow`."""
    given = {name: getattr(flow, name) for name in ("provider", "source", "account_id", "flow_id")}
    return [dict(row._mapping) for row in connection.execute(text(_USED_BY), given)]


def of_flow(flow: Flow) -> tuple[str, dict[str, str]]:
    """Return the condition for the rows of a flow, and its values."""
    given = {"provider": flow.provider, "source": flow.source, "flow_id": flow.flow_id}
    if flow.account_id:
        given["account_id"] = flow.account_id
    conditions = [f"{name} = :{name}" for name in given]
    if not flow.account_id:
        conditions.append("coalesce(account_id, '') = ''")
    return " AND ".join(conditions), given


_OF_A_KIND = re.compile(r".+/([a-z]+)", re.DOTALL)


def contact_kind(row: Row) -> str:
    """Return for which contacts an entry point is, such as "voice"; "": for all of its address.

    A number that leads elsewhere with calls than with messages is an entry point of each kind, with
    an id that ends in it (`contract.ENTRY_POINTS`).
    """
    found = _OF_A_KIND.fullmatch(row["entry_point_id"] or "") if row["kind"] == "phone" else None
    return found[1] if found else ""


def drawing(of: Content) -> Drawing:
    """Return the inside of a flow as it is drawn.

    An event that leads nowhere is drawn only where that is a finding: a step that ends the call may
    have one too.
    """
    found: dict[str | None, dict[str, None]] = {}
    for row in of.findings:
        found.setdefault(row["step_id"], {})[row["finding"]] = None
    addresses = dict.fromkeys(row["address"] for row in of.entry_points if row["address"])
    return Drawing(
        of.flow["name"] or of.flow["flow_id"],
        tuple(
            Step(
                row["step_id"], row["step_type"] or "", row["name"] or "",
                tuple(found.get(row["step_id"], ())), bool(row["is_start"]),
            )
            for row in of.steps
        ),
        tuple(
            Link(row["step_id"], row["event"] or "", row["next_step_id"])
            for row in of.links
            if row["next_step_id"] or OPEN.intersection(found.get(row["step_id"], ()))
        ),
        tuple(addresses),
        tuple(found.get(None, ())),
    )  # fmt: skip


# --- what was changed ----------------------------------------------------------------------------
_COLUMNS = ", ".join(column.name for column in contract.CHANGES)
_ORDER = """observed_at DESC, source, provider, account_id, flow_id, modified_by NULLS LAST,
    entity <> 'flow', entity, entity_id, field"""


def changes(
    connection: Connection,
    since: datetime,
    limit: int,
    *,
    source: str | None = None,
    flow: Flow | None = None,
    by: str | None = None,
    until: datetime | None = None,
    entities: Sequence[str] | None = None,
) -> list[Row]:
    """Return up to `limit` rows of callflow.changes that were observed from `since` to `until`.

    The newest comes first. `by` is an editor, whatever the case.
    """
    which: str
    given: dict[str, Any]
    which, given = of_flow(flow) if flow else ("true", {})
    if source is not None:
        which, given = f"{which} AND source = :source", {**given, "source": source}
    if by is not None:
        which, given = f"{which} AND lower(modified_by) = lower(:editor)", {**given, "editor": by}
    if until is not None:
        which, given = f"{which} AND observed_at <= :until", {**given, "until": until}
    if entities is not None:
        which, given = f"{which} AND entity = ANY (:entities)", {**given, "entities": entities}
    query = f"""SELECT {_COLUMNS} FROM callflow.changes
        WHERE observed_at >= :since AND {which} ORDER BY {_ORDER} LIMIT :limit"""
    found = connection.execute(text(query), {**given, "since": since, "limit": limit})
    return [dict(row._mapping) for row in found]


def editors(connection: Connection, since: datetime) -> list[str]:
    """Return who changed something from `since` on, those with the most changes first."""
    query = """SELECT modified_by FROM callflow.changes
        WHERE observed_at >= :since AND modified_by IS NOT NULL
        GROUP BY modified_by ORDER BY count(*) DESC, modified_by"""
    return list(connection.execute(text(query), {"since": since}).scalars())


def last_change(connection: Connection, flow: Flow, until: datetime) -> datetime | None:
    """Return when callflow saw the last change of `flow` up to `until`; None if there was none."""
    which, given = of_flow(flow)
    query = f"SELECT max(observed_at) FROM callflow.changes WHERE {which} AND observed_at <= :until"
    found: datetime | None = connection.execute(text(query), {**given, "until": until}).scalar()
    return found


def difference(connection: Connection, flow: Flow, since: datetime, until: datetime) -> list[Row]:
    """Return in what `flow` differs between two moments, as rows of callflow.changes."""
    which, given = of_flow(flow)
    query = f"""SELECT {_COLUMNS} FROM callflow.flow_diff(:source, :flow_id, :since, :until)
        WHERE {which} ORDER BY entity <> 'flow', entity, entity_id, field"""
    found = connection.execute(text(query), {**given, "since": since, "until": until})
    return [dict(row._mapping) for row in found]


# --- what the daemon's pages show ----------------------------------------------------------------
EVER = datetime.min.replace(tzinfo=UTC)
MOST_CHANGES = 100
"""How many changes a page shows."""
MOST_GONE = 50
"""How many flows that are gone the page of a source shows."""
_LISTED = """provider, account_id, flow_id, flow_key, name, status, is_live,
    has_unpublished_changes, channel, modified_by, modified_at"""


@dataclass(frozen=True, slots=True)
class SourceFlows:
    """The flows of a source that are there, those that went last, and the newest changes.

    `faults` flow_key → how many findings the flow has, except for loops, which may be right.
    """

    flows: Sequence[Row]
    gone: Sequence[Row]
    changes: Sequence[Row]
    faults: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FlowStory:
    """A flow, what it is or was last, and its newest changes."""

    flow: Flow
    content: Content
    changes: Sequence[Row]


def of_source(engine: Engine, source: str, redact: Redactor) -> SourceFlows:
    """Return the flows of `source` and its changes; nothing if callflow never knew it.

    Raises WarehouseError, also after 3 seconds without a result.
    """
    if "\0" in source:  # Postgres has no such text
        return SourceFlows([], [], [], {})
    given = {"source": source, "limit": MOST_GONE}
    with brief(engine, redact) as connection:
        listed = connection.execute(
            text(f"SELECT {_LISTED} FROM callflow.flows WHERE source = :source"), given
        )
        flows = [dict(row._mapping) for row in listed]
        gone = connection.execute(
            text("""SELECT name, flow_id, flow_key, deleted_at FROM callflow.deleted_flows
                WHERE source = :source ORDER BY deleted_at DESC, flow_key LIMIT :limit"""),
            given,
        )
        faults = connection.execute(
            text("""SELECT flow_key, count(*) FROM callflow.flow_findings
                WHERE source = :source AND finding <> 'loop' GROUP BY flow_key"""),
            given,
        )
        return SourceFlows(
            flows,
            [dict(row._mapping) for row in gone],
            newest(connection, MOST_CHANGES, source),
            {row[0]: row[1] for row in faults},
        )


def newest(connection: Connection, limit: int, source: str | None = None) -> list[Row]:
    """Return the newest changes, of one source or of all; read no more of the log than it takes."""
    today = now(connection)
    for days in (1, 30):
        found = changes(connection, today - timedelta(days=days), limit, source=source)
        if len(found) == limit:
            return found
    return changes(connection, EVER, limit, source=source)


def story(engine: Engine, key: str, redact: Redactor) -> FlowStory | None:
    """Return the flow whose `flow_key` is `key`; None if callflow never knew it.

    Raises WarehouseError, also after 3 seconds without a result.
    """
    if "\0" in key:  # Postgres has no such text
        return None
    parts = key.split("/", 4)  # a key has an id after its first or its second slash
    ids = ["/".join(parts[at:]) for at in range(1, len(parts))]
    with brief(engine, redact) as connection:
        known = [flow for flow in _last(connection, ids, parts[0]) if flow.key == key]
        if not known:
            return None
        flow = max(known, key=lambda each: each.is_there)
        made = changes(connection, EVER, MOST_CHANGES, flow=flow)  # `content` moves to a moment
        found = content(connection, flow)
        return None if found is None else FlowStory(flow, found, made)


@contextmanager
def brief(engine: Engine, redact: Redactor) -> Iterator[Connection]:
    """Yield a snapshot whose statements may take 3 seconds each. Raises WarehouseError."""
    with snapshot(engine, redact, "status") as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout = '3s'")
        yield connection

"""How a table is declared, and callflow's own tables.

A provider's tables are in its declaration, `etl/providers/NAME`. COPY order, merge keys, readers
of provider records, COMMENT ON and the data dictionary all come from these definitions. Shape of a
current table: `source`, its key, its fields, `extra`, `valid_from`.

`Column.info["json"]` is the path of the column's value in the provider's record, "" being the
record itself; a column without one is given by the transformer (a parent's key, a position).
`Column.info["scope"]` is the record's member that repeats the part of the list which was asked for.
`Table.info` holds the `record` path, the `parent` table that a child row belongs to (the children
of a record are replaced as a set, with their parent), the `children`, the `history` table, and
whether it is `derived`: made by callflow from what is at `record`.
"""

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

Key = tuple[Any, ...]
"""The key of a record without its source, in the order of its table's key columns."""

SCHEMAS = {
    "callflow": "Views across all providers.",
    "history": "Closed versions of every row. Read them through the views <table>_history.",
    "etl": "Bookkeeping: runs, streams with their watermarks, rejected records, leases.",
    "staging": "Pages of running scans, before they are merged. Emptied by every run.",
}

REVISION = "0005"
"""The migration that makes these tables: the head of migrations/versions."""

TEXT = Text()
KEY = Text(collation="C")  # keys are compared, never sorted for people: byte order is the fastest
INT = Integer()
BOOL = Boolean()
TIME = DateTime(timezone=True)
JSON = JSONB(none_as_null=True)

metadata = MetaData(
    naming_convention={"pk": "%(table_name)s_pkey", "fk": "%(table_name)s_%(referred_table_name)s"}
)


def _source() -> Column[str]:
    return Column("source", KEY, comment="Name of the source in callflow.toml.", nullable=False)


def given(name: str, kind: TypeEngine[Any], comment: str) -> Column[Any]:
    """Declare a column that the transformer fills: a parent's key, or a position in a list."""
    return Column(name, kind, comment=comment)


def scope(name: str, member: str, comment: str) -> Column[Any]:
    """Declare the key column of the list's part that was asked for (Alibaba: an instance).

    A record's `member` that only repeats it is not kept.
    """
    return Column(name, KEY, comment=f"{member}: {comment}", info={"scope": member})


def item(name: str, comment: str) -> Column[Any]:
    """Declare the key column of a list whose items are texts, not objects."""
    return Column(name, KEY, comment=comment, info={"json": ()})


def field(
    name: str,
    kind: TypeEngine[Any],
    comment: str,
    *,
    json: str | None = None,
    spelled: str | None = None,
) -> Column[Any]:
    """Declare a column that holds the record's member `json` (default: `name`; dots go inside).

    `spelled` is how the provider spells its times, if that is not ISO 8601: "rfc 2822" or "epoch
    milliseconds".
    """
    info: dict[str, Any] = {"json": tuple((json or name).split("."))}
    return Column(
        name, kind, comment=comment, info=info | ({"spelled": spelled} if spelled else {})
    )


def derived(
    name: str, kind: TypeEngine[Any], comment: str, by: Callable[[dict[str, Any]], Any]
) -> Column[Any]:
    """Declare a column that callflow derives from the whole record: `by` (record) → its value."""
    return Column(name, kind, comment=f"Derived by callflow: {comment}", info={"derived": by})


def json_text(name: str, comment: str) -> Column[Any]:
    """Declare a text column that holds the record's member `name` as JSON text, however it came."""
    return Column(name, TEXT, comment=comment, info={"json": (name,), "text": True})


def current(
    name: str,
    comment: str,
    *columns: Column[Any],
    keys: int,
    record: str,
    parent: Table | None = None,
    derived: bool = False,
    sought_by: str | None = None,
    toast: int | None = None,
    unset: str | None = None,
    metadata: MetaData = metadata,
) -> Table:
    """Declare a table of current rows and its history; `keys` columns are its key after `source`.

    `record` says where its records are in the provider's JSON, such as "flows[].entry_points[]"; it
    starts every column comment, and the transformer finds the records of a child table by it.
    `derived` says that callflow makes the rows from what is at `record`: the provider sends none.
    `sought_by` is a column of the key by which alone versions are looked up: the history has an
    index of it. `toast` is how many bytes of a row that is too long for its page Postgres tries to
    leave there (its toast_tuple_target; None: as many as fit four to a page). `unset` is a text
    that the provider sends for null, and that becomes NULL in every column.
    """
    schema, table_name = name.split(".")
    for column in columns:
        path = column.info.get("json")
        if path is not None:
            column.comment = f"{'.'.join([record, *path])}: {column.comment}"
    storage = {} if toast is None else {"toast_tuple_target": toast}
    table = Table(
        table_name,
        metadata,
        _source(),
        *columns,
        *_own_columns(record, derived=derived),
        PrimaryKeyConstraint("source", *(column.name for column in columns[:keys])),
        *_belongs_to(parent),
        schema=schema,
        comment=f"{comment} {whence(record, derived=derived)}",
        info={
            "record": record,
            "derived": derived,
            "parent": parent,
            "children": [],
            "unset": unset,
        },
        # A tenth of each page stays free, so that updates stay on their page (HOT).
        postgresql_with={"fillfactor": 90, **storage},
    )
    table.info["history"] = _history(table, metadata, storage)
    if sought_by is not None:
        closed = history(table)
        Index(f"{closed.name}_{sought_by}", closed.c[sought_by])
    if parent is not None:
        parent.info["children"].append(table)
    return table


def whence(record: str, *, derived: bool) -> str:
    """Return the last sentence of a table's comment: where its rows come from."""
    return f"Derived by callflow from {record}." if derived else f"One row per item of {record}."


def _own_columns(record: str, *, derived: bool) -> tuple[Column[Any], Column[Any]]:
    """Return the columns that callflow adds to each record."""
    extra = (
        "Always NULL, unless the row repeats another one: the provider does not send these rows."
        if derived
        else f"{record}: members that no column models, and values that did not fit their "
        "column, under the provider's names. NULL when there are none."
    )
    valid_from = "When callflow first saw this version of the row (UTC)."
    return (
        Column("extra", JSON, comment=extra),
        Column("valid_from", TIME, comment=valid_from, nullable=False),
    )


def _belongs_to(parent: Table | None) -> list[ForeignKeyConstraint]:
    """Return the constraint that a child row has a parent row, with the same first key columns."""
    if parent is None:
        return []
    shared = [column.name for column in parent.primary_key]
    return [ForeignKeyConstraint(shared, [f"{parent.fullname}.{name}" for name in shared])]


def _history(current: Table, metadata: MetaData, storage: dict[str, int]) -> Table:
    """Declare the table of `current`'s closed versions: the same columns, and `valid_to`."""
    columns = [
        Column(column.name, column.type, comment=column.comment, nullable=column.nullable)
        for column in current.columns
    ]
    return Table(
        f"{current.schema}_{current.name}",
        metadata,
        *columns,
        Column(
            "valid_to",
            TIME,
            comment="When callflow saw that this version was changed or gone (UTC).",
            nullable=False,
        ),
        PrimaryKeyConstraint(*(column.name for column in current.primary_key), "valid_from"),
        schema="history",
        comment=f"Closed versions of {current.fullname}. {current.comment}",
        postgresql_with=storage,
    )


def _etl(
    name: str, comment: str, *columns: Column[Any], keys: int, unlogged: bool = False
) -> Table:
    for column in columns[:keys]:
        column.nullable = False
    return Table(
        name,
        metadata,
        _source(),
        *columns,
        PrimaryKeyConstraint("source", *(column.name for column in columns[:keys])),
        schema="etl",
        comment=comment,
        prefixes=["UNLOGGED"] if unlogged else [],
    )


def _count(name: str, comment: str) -> Column[Any]:
    return Column(name, BigInteger(), comment=comment, nullable=False, server_default="0")


def _plain(
    name: str, kind: TypeEngine[Any], comment: str, *, required: bool = False
) -> Column[Any]:
    return Column(name, kind, comment=comment, nullable=not required)


runs = _etl(
    "runs",
    "One row per run of one stream.",
    _plain("run_id", KEY, "Id of the run (UUID)."),
    _plain("stream", KEY, "Name of the stream, such as flows.", required=True),
    _plain("mode", TEXT, "full or incremental.", required=True),
    _plain("started_at", TIME, "When the run started (UTC).", required=True),
    _plain("finished_at", TIME, "When the run ended (UTC).", required=True),
    _plain("status", TEXT, "complete, incomplete, failed, busy or not_available.", required=True),
    _count("requests", "HTTP requests sent, retries included."),
    _count("pages", "Pages read."),
    _count("records", "Records of the list, a repeated one once."),
    _count("inserted", "Records that were new."),
    _count("updated", "Records that differed, in their own row or in a child's."),
    _count("unchanged", "Records that were equal to what is stored."),
    _count("deleted", "Records that the provider no longer has."),
    _count("rejected", "Records or children that could not be keyed; see etl.rejects."),
    _count("warnings", "Values that did not fit their column; they are kept in `extra`."),
    _count("rows_written", "Rows inserted, updated or deleted in the current tables, in total."),
    _plain("watermark_before", TIME, "The stream's watermark when the run started."),
    _plain("watermark_after", TIME, "The stream's watermark when the run ended."),
    _plain("error_kind", TEXT, "Class of what went wrong: credentials, unavailable, contract, …"),
    _plain("error", TEXT, "What went wrong, where, and what to do now. Never a secret."),
    _plain("reason", TEXT, "Why the run was full or incremental."),
    _count(
        "absent",
        "Records not listed but kept: the provider does not confirm that they are gone.",
    ),
    _count("retries", "Requests that had to be sent again."),
    Column(
        "throttled_seconds",
        Double(),
        comment="Time slept for the pace, for back-off and because the provider asked to wait.",
        nullable=False,
        server_default="0",
    ),
    _plain("retry_at", TIME, "Before then the provider asked not to be asked again (UTC)."),
    keys=1,
)
Index("runs_latest", runs.c.source, runs.c.stream, runs.c.started_at.desc())

streams = _etl(
    "streams",
    "One row per source and stream: how far it has come.",
    _plain("stream", KEY, "Name of the stream, such as flows."),
    _plain(
        "watermark", TIME, "Newest modification time, by the provider's clock, of a proven run."
    ),
    _plain("watermarks", JSON, "The same per scope (Alibaba: per instance id)."),
    _plain("last_run_id", TEXT, "The last run, whatever came of it."),
    _plain("last_status", TEXT, "Its status."),
    _plain("last_attempt_at", TIME, "When it ended (UTC)."),
    _plain("last_success_at", TIME, "When the last complete run ended (UTC)."),
    _plain("last_full_at", TIME, "When the last complete full scan ended (UTC)."),
    _plain(
        "changed_at", TIME, "Instant of the last change that was merged (UTC); it never steps back."
    ),
    _count("rows", "Rows in the stream's own table after the last run."),
    _plain("error", TEXT, "What went wrong in the last run; NULL when nothing did."),
    _plain("read_at", TIME, "When the scan started that the watermark comes from (UTC)."),
    _plain(
        "newest_first",
        BOOL,
        "Whether the last complete full scan met the list ordered by modification, newest first.",
    ),
    _plain("retry_at", TIME, "Before then the provider asked not to be asked again (UTC)."),
    _plain("told", TEXT, "What was wrong by the last notification; NULL when all is well."),
    _plain("provider", TEXT, "Whose list it is, as in callflow.toml."),
    _plain(
        "known_since",
        JSON,
        "Per scope, the instant of its first complete run (UTC): changes after it are news, and are"
        " in history.changes.",
    ),
    keys=1,
)

changes = Table(
    "changes",
    metadata,
    _source(),
    Column("provider", KEY, comment="Whose flow it is, as in callflow.toml.", nullable=False),
    Column("account_id", KEY, comment="Account or instance, where the provider's data say it."),
    Column("flow_id", KEY, comment="Id of the flow.", nullable=False),
    _plain("flow_name", TEXT, "Name of the flow at that moment."),
    Column(
        "entity",
        KEY,
        comment="What was changed: flow, flow_version, entry_point, step or step_link.",
        nullable=False,
    ),
    Column("entity_id", KEY, comment="Its id; of a step_link the step's id, a slash, the event."),
    _plain("entity_name", TEXT, "Its name."),
    _plain("observed_at", TIME, "When callflow saw the change (UTC).", required=True),
    _plain("modified_at", TIME, "When it was made, by the provider's clock; NULL if not known."),
    _plain("modified_by", TEXT, "Who made it, in the provider's words; NULL if not known."),
    _plain("change", TEXT, "created, updated, deleted or restored.", required=True),
    _plain(
        "field",
        TEXT,
        "What has a new value; NULL if the change is no update. saved: the provider says that it"
        " was saved, and its data do not say what changed.",
    ),
    _plain("old_value", TEXT, "The previous value, as text."),
    _plain("new_value", TEXT, "The new value, as text."),
    schema="history",
    comment="One row per changed field of a flow and its parts. Read it as callflow.changes.",
)
Index("changes_flow", changes.c.flow_id, changes.c.observed_at)
Index("changes_time", changes.c.observed_at, changes.c.source, changes.c.provider, changes.c.entity)
Index(
    "changes_presence",
    changes.c.entity,
    changes.c.change,
    changes.c.observed_at,
    postgresql_where=changes.c.change.in_(("deleted", "restored")),
)

absences = _etl(
    "absences",
    "Records that a proven full scan did not list, and that are kept: until a second one does not "
    "list them either, or, where there are suspiciously many, until somebody accepts it.",
    _plain("stream", KEY, "Name of the stream, such as flows."),
    _plain("key", KEY, "Key of the record without source, a JSON list."),
    _plain("run_id", TEXT, "The run that missed it first.", required=True),
    _plain("since", TIME, "When that run ended (UTC).", required=True),
    keys=2,
)

checkpoints = _etl(
    "checkpoints",
    "How far a scan under way has come, for the run that takes it up if this one is killed. "
    "UNLOGGED as the staging tables are: a crash of Postgres empties both.",
    _plain("stream", KEY, "Name of the stream, such as flows."),
    _plain("settings", TEXT, "Digest of the settings that the scan started with.", required=True),
    _plain("following", TEXT, "Pointer to the next page.", required=True),
    _plain("state", JSON, "What the scan has seen, in numbers.", required=True),
    _plain("staged", BigInteger(), "Rows in the stream's staging table.", required=True),
    _plain("saved_at", TIME, "When it was saved (UTC).", required=True),
    keys=1,
    unlogged=True,
)

rejects = _etl(
    "rejects",
    "Records kept raw because no table could hold them: one row per distinct record and reason.",
    _plain("stream", KEY, "Name of the stream, such as flows."),
    _plain("digest", KEY, "SHA-256 of reason and payload."),
    _plain("run_id", TEXT, "The last run that met it.", required=True),
    _plain("reason", TEXT, "Why it could not be loaded.", required=True),
    _plain("payload", JSONB(), "The record as sent (NUL and lone surrogates as \\uXXXX text)."),
    _plain("first_seen", TIME, "When it was met first (UTC).", required=True),
    _plain("last_seen", TIME, "When it was met last (UTC).", required=True),
    keys=2,
)

leases = _etl(
    "leases",
    "The right to write a stream: one holder at a time, for a limited time.",
    _plain("stream", KEY, "Name of the stream, such as flows."),
    _plain("holder", TEXT, "Process that holds or held it.", required=True),
    _plain("epoch", BigInteger(), "Rises with every new holder (fencing token).", required=True),
    _plain("until", TIME, "When it ends unless it is renewed (database clock).", required=True),
    keys=1,
)


def children(parent: Table) -> Iterator[Table]:
    """Yield the tables whose rows belong to `parent`'s, each followed by its own children."""
    for table in parent.info["children"]:
        yield table
        yield from children(table)


def root(table: Table) -> Table:
    """Return the table of the records that the rows of `table` belong to."""
    parent: Table | None = table.info["parent"]
    return table if parent is None else root(parent)


def family(table: Table) -> tuple[Table, ...]:
    """Return the table and those of its rows' children, parents first."""
    return table, *children(table)


def history(current: Table) -> Table:
    """Return the table that holds the closed versions of `current`'s rows."""
    found: Table = current.info["history"]
    return found


def key_columns(table: Table) -> list[str]:
    """Return the names of the key's columns without `source`."""
    return [column.name for column in table.primary_key if column.name != "source"]


def data_columns(table: Table) -> list[str]:
    """Return the names of the columns that a record fills, in COPY order: key, fields, extra."""
    return [column.name for column in table.columns if column.name not in ("source", "valid_from")]

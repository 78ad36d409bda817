"""Every table of the warehouse, once.

Migrations, COPY order, merge keys, readers of provider records, COMMENT ON and the data dictionary
all come from here. Shape of a current table: `source`, its key, its fields, `extra`, `valid_from`.

`Column.info["json"]` is the path of the column's value in the provider's record; a column without
one is given by the transformer (a parent's key, a position). `Table.info["parent"]` is the table
that a child row belongs to: the children of a record are replaced as a set, with their parent.
"""

from collections.abc import Iterator
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
    "zoom": "Zoom Contact Center as it is now, in Zoom's own field names.",
    "twilio": "Twilio Flex as it is now, in Twilio's own field names.",
    "alibaba": "Alibaba Cloud CCC as it is now, in Alibaba's own field names (snake_case).",
    "callflow": "Views across all providers.",
    "history": "Closed versions of every row. Read them through the views <table>_history.",
    "etl": "Bookkeeping: runs, streams with their watermarks, rejected records, leases.",
    "staging": "Pages of running scans, before they are merged. Emptied by every run.",
}

REVISION = "0003"
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


def _given(name: str, kind: TypeEngine[Any], comment: str) -> Column[Any]:
    return Column(name, kind, comment=comment)


def _field(
    name: str, kind: TypeEngine[Any], comment: str, *, json: str | None = None
) -> Column[Any]:
    """A column filled from the record's member `json` (default: the same name; dots go inside)."""
    return Column(name, kind, comment=comment, info={"json": tuple((json or name).split("."))})


def _current(
    name: str,
    comment: str,
    *columns: Column[Any],
    keys: int,
    record: str,
    parent: Table | None = None,
) -> Table:
    """A table of current rows; the first `keys` of `columns` are its key after `source`.

    `record` says where its records are in the provider's JSON; it begins every column comment.
    """
    schema, table_name = name.split(".")
    for column in columns:
        if path := column.info.get("json"):
            column.comment = f"{record}.{'.'.join(path)}: {column.comment}"
    key_names = ["source", *(column.name for column in columns[:keys])]
    constraints: list[PrimaryKeyConstraint | ForeignKeyConstraint] = [
        PrimaryKeyConstraint(*key_names)
    ]
    if parent is not None:
        shared = [column.name for column in parent.primary_key]
        constraints.append(
            ForeignKeyConstraint(shared, [f"{parent.fullname}.{column}" for column in shared])
        )
    return Table(
        table_name,
        metadata,
        _source(),
        *columns,
        Column(
            "extra",
            JSON,
            comment=f"{record}: members that no column models, and values that did not fit their "
            "column, under the provider's names. NULL when there are none.",
        ),
        Column(
            "valid_from",
            TIME,
            comment="When callflow first saw this version of the row (UTC).",
            nullable=False,
        ),
        *constraints,
        schema=schema,
        comment=f"{comment} One row per item of {record}.",
        info={"parent": parent},
        # A tenth of each page stays free, so that updates stay on their page (HOT).
        postgresql_with={"fillfactor": 90},
    )


zoom_flows = _current(
    "zoom.flows",
    "Flows of Zoom Contact Center.",
    _field("flow_id", KEY, "Id of the flow."),
    _field("flow_name", TEXT, "Name of the flow."),
    _field("flow_description", TEXT, "Description of the flow."),
    _field("channel_type", TEXT, "Deprecated by Zoom: voice, chat, sms, video, in_app_chat."),
    _field("channel", TEXT, "Channel: voice, video, messaging, email, …"),
    _field("channel_source", TEXT, "Source within the channel: web_chat, sms, whatsapp, …"),
    _field("status", TEXT, "draft, published, archived, debugging, …"),
    _field("modified_by", TEXT, "Id of the user who changed the flow last."),
    _field("last_modified_time", TIME, "When the flow was changed last."),
    keys=1,
    record="flows[]",
)

zoom_flow_versions = _current(
    "zoom.flow_versions",
    "Versions of the flows of Zoom Contact Center.",
    _given("flow_id", KEY, "flows[].flow_id: the flow that the version belongs to."),
    _field("flow_version_id", KEY, "Id of the version."),
    _field("flow_version", INT, "Number of the version."),
    _field("flow_version_description", TEXT, "Description of the version."),
    _field("flow_version_status", TEXT, "draft, published, archived, debugging, …"),
    _field("flow_version_modified_by", TEXT, "Id of the user who changed the version last."),
    _field("flow_version_last_modified_time", TIME, "When the version was changed last."),
    keys=2,
    record="flows[].flow_versions[]",
    parent=zoom_flows,
)

zoom_entry_points = _current(
    "zoom.entry_points",
    "Entry points (numbers, addresses, web chats) that reach a flow of Zoom Contact Center.",
    _given("flow_id", KEY, "flows[].flow_id: the flow that the entry point reaches."),
    _field("entry_id", KEY, "Id of the entry point."),
    _field("entry_name", TEXT, "Name (video, web chat, in-app chat)."),
    _field("entry_number", TEXT, "Phone number, E.164 (voice, sms). Personal data."),
    _field("entry_language", TEXT, "Language tag, such as en-US."),
    _field("email_address", TEXT, "E-mail address (email). Personal data."),
    keys=2,
    record="flows[].entry_points[]",
    parent=zoom_flows,
)

twilio_flex_flows = _current(
    "twilio.flex_flows",
    "Flex Flows of Twilio Flex: what happens with a new contact of a messaging channel.",
    _field("sid", KEY, "Id of the Flex Flow (FO…)."),
    _field("account_sid", TEXT, "Account that owns it (AC…)."),
    _field("friendly_name", TEXT, "Name."),
    _field("channel_type", TEXT, "web, sms, facebook, whatsapp, line, custom, …"),
    _field("chat_service_sid", TEXT, "Chat service (IS…)."),
    _field("contact_identity", TEXT, "Identity of the channel's contact. May be personal data."),
    _field("enabled", BOOL, "Whether the Flex Flow is enabled."),
    _field("integration_type", TEXT, "What handles inbound messages: studio, external, task, …"),
    _field("integration_flow_sid", TEXT, "Studio flow (FW…); studio.", json="integration.flow_sid"),
    _field("integration_url", TEXT, "Webhook; external.", json="integration.url"),
    _field(
        "integration_workspace_sid",
        TEXT,
        "Workspace (WS…); task.",
        json="integration.workspace_sid",
    ),
    _field(
        "integration_workflow_sid", TEXT, "Workflow (WW…); task.", json="integration.workflow_sid"
    ),
    _field("integration_channel", TEXT, "Task channel; task.", json="integration.channel"),
    _field("integration_timeout", INT, "Task timeout in seconds.", json="integration.timeout"),
    _field("integration_priority", INT, "Task priority; task.", json="integration.priority"),
    _field(
        "integration_creation_on_message",
        BOOL,
        "Whether the task waits for the first message; task.",
        json="integration.creation_on_message",
    ),
    _field(
        "integration_retry_count",
        INT,
        "Retries of the Studio or webhook call (0 to 3).",
        json="integration.retry_count",
    ),
    _field("janitor_enabled", BOOL, "Whether Proxy sessions end with their task."),
    _field("long_lived", BOOL, "Whether the chat channel is used again for the same contact."),
    _field("date_created", TIME, "When it was created."),
    _field("date_updated", TIME, "When it was changed last."),
    _field("url", TEXT, "Absolute URL of the resource."),
    keys=1,
    record="flex_flows[]",
)

twilio_channels = _current(
    "twilio.channels",
    "Flex chat channels: run-time objects, one per contact, made by a Flex Flow.",
    _field("sid", KEY, "Id of the channel (CH…)."),
    _field("account_sid", TEXT, "Account that owns it (AC…)."),
    _field("flex_flow_sid", TEXT, "Flex Flow that made it (FO…); may be deleted since."),
    _field("user_sid", TEXT, "Chat user (US…)."),
    _field("task_sid", TEXT, "TaskRouter task (WT…); integration type task only."),
    _field("date_created", TIME, "When it was created."),
    _field("date_updated", TIME, "When it was changed last."),
    _field("url", TEXT, "Absolute URL of the resource."),
    keys=1,
    record="flex_chat_channels[]",
)

_ZONE = "Alibaba sends it without a zone; read in the source's `timezone` (Asia/Shanghai)."

alibaba_contact_flows = _current(
    "alibaba.contact_flows",
    "IVR contact flows of Alibaba Cloud CCC.",
    _given("instance_id", KEY, "InstanceId: the contact centre instance that was listed."),
    _field("contact_flow_id", KEY, "Id of the contact flow.", json="ContactFlowId"),
    _field("name", TEXT, "Name.", json="Name"),
    _field("type", TEXT, "MAIN_FLOW, SUB_FLOW, SURVEY_FLOW, …", json="Type"),
    _field("description", TEXT, "Description of the version.", json="Description"),
    _field("definition", TEXT, "JSON text of the flow's content, as sent.", json="Definition"),
    _field("draft_id", TEXT, "Id of the draft, while one is unpublished.", json="DraftId"),
    _field("published", BOOL, "Whether it was ever published.", json="Published"),
    _field("editor", TEXT, "Login name of the agent who edits the draft.", json="Editor"),
    _field("created_time", TIME, f"When it was created. {_ZONE}", json="CreatedTime"),
    _field("updated_time", TIME, f"When it was changed last. {_ZONE}", json="UpdatedTime"),
    keys=2,
    record="Data.List[]",
)

_FLOW_KEY = (
    ("instance_id", "InstanceId: the contact centre instance that was listed."),
    ("contact_flow_id", "Data.List[].ContactFlowId: the contact flow that the row belongs to."),
)

alibaba_contact_flow_numbers = _current(
    "alibaba.contact_flow_numbers",
    "Phone numbers bound to a contact flow, as sent (Alibaba may mask them).",
    *(_given(name, KEY, comment) for name, comment in _FLOW_KEY),
    _given("number", KEY, "Data.List[].NumberList[]: the number. Personal data; not a join key."),
    keys=3,
    record="Data.List[].NumberList[]",
    parent=alibaba_contact_flows,
)

alibaba_contact_flow_activities = _current(
    "alibaba.contact_flow_activities",
    "Activities (nodes) of a contact flow, read from its Definition.",
    *(_given(name, KEY, comment) for name, comment in _FLOW_KEY),
    _field("activity_id", KEY, "Id of the activity within the flow.", json="id"),
    _field("type", TEXT, "INCOMING_CALL, PLAY_SAY, HANGUP, …", json="type"),
    _field("name", TEXT, "Name.", json="name"),
    _field("node_index", INT, "Index of the node (999: the end).", json="nodeIndex"),
    _field("properties", JSON, "Settings of the activity, as sent.", json="properties"),
    keys=3,
    record="Data.List[].Definition.activities[]",
    parent=alibaba_contact_flows,
)

alibaba_contact_flow_transitions = _current(
    "alibaba.contact_flow_transitions",
    "Transitions (edges) between the activities of a contact flow, read from its Definition.",
    *(_given(name, KEY, comment) for name, comment in _FLOW_KEY),
    _given("activity_id", KEY, "Data.List[].Definition.activities[].id: where it starts."),
    _given("position", INT, "Index in the activity's `events`, from 0."),
    _field("event", TEXT, "Event that takes this way: complete, …", json="event"),
    _field("edge_id", TEXT, "Id of the edge.", json="edgeId"),
    _field("next_activity_id", TEXT, "Activity that follows; NULL at the end.", json="next"),
    keys=4,
    record="Data.List[].Definition.activities[].events[]",
    parent=alibaba_contact_flow_activities,
)

CURRENT: tuple[Table, ...] = (
    zoom_flows,
    zoom_flow_versions,
    zoom_entry_points,
    twilio_flex_flows,
    twilio_channels,
    alibaba_contact_flows,
    alibaba_contact_flow_numbers,
    alibaba_contact_flow_activities,
    alibaba_contact_flow_transitions,
)


def _history(current: Table) -> Table:
    """The table of `current`'s closed versions: the same columns, and `valid_to`."""
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
    )


HISTORY: dict[Table, Table] = {current: _history(current) for current in CURRENT}


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
    _plain("started_at", TIME, "When the run began (UTC).", required=True),
    _plain("finished_at", TIME, "When the run ended (UTC).", required=True),
    _plain("status", TEXT, "complete, incomplete, failed or busy.", required=True),
    _count("requests", "HTTP requests sent, retries included."),
    _count("pages", "Pages read."),
    _count("records", "Records of the list, a repeated one once."),
    _count("inserted", "Records that were new."),
    _count("updated", "Records that differed, in their own row or in a child's."),
    _count("unchanged", "Records that were equal to what is stored."),
    _count("deleted", "Records that the provider no longer has."),
    _count("rejected", "Records or children that could not be keyed; see etl.rejects."),
    _count("warnings", "Values that did not fit their column; they are kept in `extra`."),
    _count("rows_written", "Rows inserted, updated or deleted in the current tables, all told."),
    _plain("watermark_before", TIME, "The stream's watermark when the run began."),
    _plain("watermark_after", TIME, "The stream's watermark when the run ended."),
    _plain("error_kind", TEXT, "Class of what went wrong: credentials, unavailable, contract, …"),
    _plain("error", TEXT, "What went wrong, where, and what to do now. Never a secret."),
    _plain("reason", TEXT, "Why the run was full or incremental."),
    _count("absent", "Records that were not listed but are kept: nobody confirms that they went."),
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
    _plain("read_at", TIME, "When the scan began that the watermark comes from (UTC)."),
    _plain(
        "newest_first",
        BOOL,
        "Whether the last complete full scan met the list ordered by modification, newest first.",
    ),
    _plain("retry_at", TIME, "Before then the provider asked not to be asked again (UTC)."),
    _plain("told", TEXT, "What the last notification said was wrong; NULL when all is well."),
    keys=1,
)

absences = _etl(
    "absences",
    "Records that a proven full scan did not list; a second such run removes them.",
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
    _plain("settings", TEXT, "Digest of the settings that the scan began with.", required=True),
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
    "Who may write a stream: one holder at a time, for a limited time.",
    _plain("stream", KEY, "Name of the stream, such as flows."),
    _plain("holder", TEXT, "Process that holds or held it.", required=True),
    _plain("epoch", BigInteger(), "Rises with every new holder (fencing token).", required=True),
    _plain("until", TIME, "When it ends unless it is renewed (database clock).", required=True),
    keys=1,
)


def children(parent: Table) -> Iterator[Table]:
    """The tables whose rows belong to `parent`'s, nearest first, grandchildren after."""
    for table in CURRENT:
        above = table.info["parent"]
        while above is not None:
            if above is parent:
                yield table
                break
            above = above.info["parent"]


def key_columns(table: Table) -> list[str]:
    """Names of the key's columns without `source`."""
    return [column.name for column in table.primary_key if column.name != "source"]


def data_columns(table: Table) -> list[str]:
    """Names of the columns that the provider fills, in COPY order: key, fields, extra."""
    return [column.name for column in table.columns if column.name not in ("source", "valid_from")]

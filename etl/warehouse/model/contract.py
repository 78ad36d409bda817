"""The views of the schema `callflow` and their columns: the contract with those who query them.

Columns are only appended, never renamed, moved or retyped: `CREATE OR REPLACE VIEW` refuses
anything else, and users' views stand on ours. tests/warehouse/contract.txt holds what was promised.
The first timestamptz of a view is the time axis that BI tools choose: `modified_at` comes before
`created_at`, because a provider may have no `created_at`.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["id", "text", "boolean", "integer", "bigint", "timestamptz"]
"""The type of a column; "id" is text in byte order (COLLATE "C"), as keys are: only then can an
index on a key serve a comparison."""

SQL_TYPES: dict[Kind, str] = {
    "id": "text",
    "text": "text",
    "boolean": "boolean",
    "integer": "integer",
    "bigint": "bigint",
    "timestamptz": "timestamptz",
}

COLLATIONS: dict[Kind, str] = {"id": "C", "text": "default"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a view. `looked_up` says that it depends on other rows than its own."""

    name: str
    kind: Kind
    comment: str
    looked_up: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """One view with a history.

    `entity`   what a row is in `changes`; None: changes of these rows are not recorded.
    `compared` the columns of which a new value is a change.
    `key`      the columns that tell one row of a flow from another.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    entity: str | None = None
    compared: tuple[str, ...] = ()


PROVIDER = Column("provider", "text", "Whose service it is, as in callflow.toml.")
SOURCE = Column("source", "id", "Name of the source in callflow.toml.")
ACCOUNT = Column(
    "account_id",
    "id",
    "The account or instance that the provider's data name; part of what identifies a flow.",
)
FLOW = Column("flow_id", "id", "Id of the flow, unique within provider, source and account_id.")
VALID_FROM = Column("valid_from", "timestamptz", "When callflow first saw this version (UTC).")
FLOW_KEY = Column(
    "flow_key",
    "id",
    "source, account_id and flow_id in one column, for tools that relate tables by one. Filter by"
    " source and flow_id instead: those have an index.",
)
FLOW_KEY_SQL = "source || '/' || coalesce(account_id || '/', '') || flow_id"
HISTORY = (
    Column(
        "valid_to",
        "timestamptz",
        "When callflow saw that this version was changed or gone (UTC); NULL: it is current.",
    ),
    Column("is_current", "boolean", "Whether this is the version that exists now."),
)
ENTRY_POINT_ID = Column(
    "entry_point_id",
    "id",
    "Id of the entry point, or what stands in for one. Where calls and messages to a number lead"
    " elsewhere, each is an entry point, and ends in /voice or /sms.",
)
TARGET_KIND = Column(
    "target_kind",
    "text",
    "What it leads to: flow, url, application, trunk, …; NULL: nothing, and it is unbound.",
)
TARGET = Column(
    "target",
    "id",
    "Id of what it leads to; of a URL only host and path, because the rest may be secret.",
)
IDENTITY = (PROVIDER, SOURCE, ACCOUNT, FLOW)
END = (VALID_FROM, FLOW_KEY)

FLOWS = View(
    "flows",
    "Which flows are there, on all providers, and which of them are live? One row per flow.",
    (
        *IDENTITY,
        Column("name", "text", "Name of the flow."),
        Column("description", "text", "Description of the flow."),
        Column("flow_type", "text", "Type of the flow, in the provider's word."),
        Column("channel", "text", "voice, video, messaging, email, …"),
        Column("channel_source", "text", "Within the channel: web_chat, sms, whatsapp, …"),
        Column(
            "status",
            "text",
            "published, draft, archived, debugging, disabled, or another word of the provider's."
            " published or draft where the provider only says if a flow was ever published.",
        ),
        Column("is_live", "boolean", "Whether the flow handles contacts now. Never NULL."),
        Column(
            "has_unpublished_changes",
            "boolean",
            "Whether a published flow was edited since. Never NULL.",
            looked_up=True,
        ),
        Column(
            "published_version",
            "integer",
            "Number of the newest published version.",
            looked_up=True,
        ),
        Column("newest_version", "integer", "Number of the newest version.", looked_up=True),
        Column(
            "modified_by",
            "text",
            "Who changed it last: the provider's user id, or the login name of the draft's editor.",
        ),
        Column("modified_at", "timestamptz", "When it was changed last, by the provider's clock."),
        Column("created_at", "timestamptz", "When it was created."),
        *END,
    ),
    key=(),
    entity="flow",
    compared=("name", "description", "flow_type", "channel", "channel_source", "status"),
)

FLOW_VERSIONS = View(
    "flow_versions",
    "Which versions does a flow have, and which are published? One row per version.",
    (
        *IDENTITY,
        Column("version_id", "id", "Id of the version."),
        Column("version_number", "integer", "Number of the version."),
        Column("status", "text", "draft, published, archived, debugging, …"),
        Column("description", "text", "Description of the version."),
        Column("modified_by", "text", "Id of the user who changed the version last."),
        Column("modified_at", "timestamptz", "When the version was changed last."),
        *END,
    ),
    key=("version_id",),
    entity="flow_version",
    compared=("status", "description", "version_number"),
)

ENTRY_POINTS = View(
    "entry_points",
    "Which numbers, e-mail addresses and names lead to which flow? One row per entry point.",
    (
        *IDENTITY,
        ENTRY_POINT_ID,
        Column("kind", "text", "phone, email, name or address; NULL where nothing is given."),
        Column("address", "text", "Number, address or name, as the provider sent it."),
        Column(
            "address_key",
            "id",
            "The address in a form that compares: digits and + of a number, an e-mail address in"
            " lower case. NULL for a name, and for a number that the provider masks.",
        ),
        Column("name", "text", "Name of the entry point."),
        Column("language", "text", "Language tag, such as en-US."),
        *END,
        TARGET_KIND,
        TARGET,
    ),
    key=("entry_point_id",),
    entity="entry_point",
    compared=("address", "name", "language", "target_kind", "target"),
)

CHANNELS = View(
    "channels",
    "Which chat channels did flows open? One row per channel. Nothing says which of them are still"
    " open: closed ones stay in the list.",
    (
        PROVIDER,
        SOURCE,
        ACCOUNT,
        Column("channel_id", "id", "Id of the channel."),
        Column("flow_id", "id", "The flow that opened it; it may be gone."),
        Column("flow_exists", "boolean", "Whether that flow is there. Never NULL.", looked_up=True),
        Column("user_id", "id", "Id of the chat user."),
        Column("task_id", "id", "Id of the task that routes the channel to an agent."),
        Column("created_at", "timestamptz", "When the channel was created."),
        Column("updated_at", "timestamptz", "When the channel was changed last."),
        *END,
    ),
    key=("channel_id",),
)

FLOW_STEPS = View(
    "flow_steps",
    "What does a flow do, step by step? One row per step of a flow whose inside can be read.",
    (
        *IDENTITY,
        Column("step_id", "id", "Id of the step within its flow."),
        Column("step_type", "text", "What the step does, in the provider's word: PLAY_SAY, …"),
        Column("name", "text", "Name of the step."),
        Column("step_number", "integer", "Number of the step, where the provider numbers them."),
        Column(
            "properties",
            "text",
            "Settings of the step as JSON text, without its place on the drawing board.",
        ),
        *END,
        Column("is_start", "boolean", "Whether contacts come in here; NULL: it is not known."),
    ),
    key=("step_id",),
    entity="step",
    compared=("step_type", "name"),
)

_STEP = Column("step_id", "id", "Id of the step within its flow.")
_VERSION = Column("version_number", "integer", "Number of the version.")

FLOW_VERSION_STEPS = View(
    "flow_version_steps",
    "What did a flow do in a version, step by step? One row per step of each version whose inside"
    " callflow has read: at least the live one and the newest.",
    (
        *IDENTITY,
        _VERSION,
        _STEP,
        *(c for c in FLOW_STEPS.columns if c.name in ("step_type", "name", "step_number")),
        *(c for c in FLOW_STEPS.columns if c.name in ("properties", "is_start")),
        *END,
    ),
    key=("version_number", "step_id"),
)

FLOW_STEP_LINKS = View(
    "flow_step_links",
    "Which step follows which, and on which event? One row per way out of a step.",
    (
        *IDENTITY,
        Column("step_id", "id", "The step that the way leaves."),
        Column("link_number", "integer", "Position among the ways out of the step, from 0."),
        Column("event", "text", "What takes this way: complete, timeout, a key, …"),
        Column("next_step_id", "id", "The step that follows; NULL: none does."),
        *END,
        Column("conditions", "text", "What has to be so besides the event, as JSON text."),
    ),
    key=("step_id", "link_number"),
    entity="step_link",
)

FLOW_VERSION_LINKS = View(
    "flow_version_links",
    "Which step followed which in a version? One row per way out of a step of flow_version_steps.",
    (
        *IDENTITY,
        _VERSION,
        *(c for c in FLOW_STEP_LINKS.columns if c not in (*IDENTITY, *END)),
        *END,
    ),
    key=("version_number", "step_id", "link_number"),
)

FLOW_STEP_PROPERTIES = View(
    "flow_step_properties",
    "Which steps have which settings? One row per setting of a step; a nested one is JSON text.",
    (
        *IDENTITY,
        Column("step_id", "id", "Id of the step within its flow."),
        Column("step_type", "text", "What the step does, in the provider's word."),
        Column("step_name", "text", "Name of the step."),
        Column("property", "text", "Name of the setting, as the provider calls it."),
        Column("value", "text", "Its value as text; JSON text if it is an object or a list."),
        *END,
    ),
    key=("step_id", "property"),
)

FLOW_FINDINGS = View(
    "flow_findings",
    "Which flows have a fault inside, and since when? One row per finding.",
    (
        *IDENTITY,
        Column("step_id", "id", "The step that it is about; NULL: the whole flow."),
        Column(
            "finding",
            "text",
            "unreachable: no way leads there. dead_end: no way leads on, and the call is not ended."
            " open_event: an event without a next step. broken_link: the next step does not exist."
            " loop: the step can follow itself (menus repeat, so this may be right). no_start: no"
            " step where a call starts. unreadable: callflow cannot read the flow's inside.",
        ),
        Column("detail", "text", "Which event, which missing step, which steps of a loop."),
        *END,
    ),
    key=("step_id", "finding", "detail"),
)

FLOW_REFERENCES = View(
    "flow_references",
    "What does a flow use: other flows, queues, workflows, functions, URLs? One row per reference"
    " of a step.",
    (
        *IDENTITY,
        Column("step_id", "id", "Id of the step within its flow."),
        Column("kind", "text", "flow, queue, workflow, function or url."),
        Column(
            "target_id",
            "id",
            "Id of what is used; of a URL only host and path. Of a dynamic one, its expression.",
        ),
        Column(
            "target_name",
            "text",
            "Name of the flow that is used; NULL: it is gone, or is no flow.",
            looked_up=True,
        ),
        Column(
            "is_dynamic",
            "boolean",
            "Whether an expression decides, while a contact is in the flow, what is used.",
        ),
        *END,
    ),
    key=("step_id", "kind", "target_id"),
)

CHANGES = (
    Column("provider", "id", "Whose flow it is, as in callflow.toml."),
    SOURCE,
    ACCOUNT,
    FLOW,
    Column("flow_name", "text", "Name of the flow after the change."),
    Column("entity", "id", "What was changed: flow, flow_version, entry_point, step or step_link."),
    Column("entity_id", "id", "Its id; of a step_link the step's id, a slash and the event."),
    Column("entity_name", "text", "What people call it: its name, number or address."),
    Column("observed_at", "timestamptz", "When callflow saw the change (UTC)."),
    Column(
        "modified_at",
        "timestamptz",
        "When it was made, by the provider's clock: of the thing itself, or else of its flow.",
    ),
    Column(
        "modified_by",
        "text",
        "Who made it, in the provider's words; NULL for what was deleted, and if it is not known.",
    ),
    Column("change", "text", "created, updated, deleted, or restored: it was there once before."),
    Column(
        "field",
        "text",
        "Which value is another one; NULL unless updated. saved: the provider says that it was"
        " saved, and the data do not say what changed.",
    ),
    Column("old_value", "text", "The value before."),
    Column("new_value", "text", "The value after."),
    FLOW_KEY,
)

FRESHNESS = (
    SOURCE,
    PROVIDER,
    Column("stream", "text", "The list of the provider that is synced, such as flows."),
    Column("last_success_at", "timestamptz", "When the last complete run ended (UTC)."),
    Column("age_seconds", "bigint", "Seconds since then; NULL: there never was one."),
    Column("last_attempt_at", "timestamptz", "When the last run ended, whatever came of it (UTC)."),
    Column("last_status", "text", "complete, incomplete, failed or not_available."),
    Column("last_error", "text", "What went wrong in the last run; NULL: nothing did."),
    Column("row_count", "bigint", "Rows in the list's own table after the last run."),
    Column("watermark", "timestamptz", "Newest modification time up to which all has been seen."),
    Column("last_full_at", "timestamptz", "When the last complete full scan ended (UTC)."),
    Column("last_change_at", "timestamptz", "When a run last changed a row (UTC)."),
)

VIEWS = (
    FLOWS,
    FLOW_VERSIONS,
    ENTRY_POINTS,
    CHANNELS,
    FLOW_STEPS,
    FLOW_STEP_LINKS,
    FLOW_STEP_PROPERTIES,
    FLOW_FINDINGS,
    FLOW_REFERENCES,
    FLOW_VERSION_STEPS,
    FLOW_VERSION_LINKS,
)
"""The views that have a history, in the order in which they are made."""


def history_columns(view: View) -> tuple[Column, ...]:
    """Return the columns of `<view>_history`: those of the row itself, valid_to and is_current.

    Columns that were appended to the view come last here as well, where an upgrade puts them.
    """
    own = [column for column in view.columns if not column.looked_up]
    appended = own.index(FLOW_KEY) + 1
    return (*own[:appended], *HISTORY, *own[appended:])

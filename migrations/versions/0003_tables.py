"""the tables of the first release

It takes the place of three migrations that were never released, and keeps the id of the last one,
so that a warehouse at that revision goes on unchanged.

Revision ID: 0003
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from etl.warehouse.versioned import JSON, KEY, TEXT, TIME, create_versioned, drop_versioned

revision = "0003"
down_revision = None
branch_labels = None
depends_on = None

INT, BOOL = sa.Integer(), sa.Boolean()

SCHEMAS = ("zoom", "twilio", "alibaba", "callflow", "history", "etl", "staging")

VERSIONED = (
    "zoom.flows",
    "zoom.flow_versions",
    "zoom.entry_points",
    "twilio.flex_flows",
    "twilio.channels",
    "alibaba.contact_flows",
    "alibaba.contact_flow_numbers",
    "alibaba.contact_flow_activities",
    "alibaba.contact_flow_transitions",
)
BOOKS = ("runs", "streams", "absences", "checkpoints", "rejects", "leases")


def upgrade() -> None:
    # IF NOT EXISTS asks for CREATE on the database, even where an administrator made the schema.
    existing = sa.inspect(op.get_bind()).get_schema_names()
    for name in SCHEMAS:
        if name not in existing:
            op.execute(f"CREATE SCHEMA {name}")
    create_zoom()
    create_twilio()
    create_alibaba()
    create_alibaba_definitions()
    create_runs()
    create_streams()
    create_scans()
    create_rejects_and_leases()


def downgrade() -> None:
    for name in BOOKS:
        op.drop_table(name, schema="etl")
    for name in reversed(VERSIONED):
        drop_versioned(name)
    for name in SCHEMAS:
        if name != "etl":  # it holds alembic's own table
            op.execute(f"DROP SCHEMA {name}")


def create_zoom() -> None:
    create_versioned(
        "zoom.flows",
        keys="flow_id",
        columns="flow_name flow_description channel_type channel channel_source status"
        " modified_by last_modified_time:time",
    )
    create_versioned(
        "zoom.flow_versions",
        keys="flow_id flow_version_id",
        columns="flow_version:int flow_version_description flow_version_status"
        " flow_version_modified_by flow_version_last_modified_time:time",
        parent=("zoom.flows", 1),
    )
    create_versioned(
        "zoom.entry_points",
        keys="flow_id entry_id",
        columns="entry_name entry_number entry_language email_address",
        parent=("zoom.flows", 1),
    )


def create_twilio() -> None:
    create_versioned(
        "twilio.flex_flows",
        keys="sid",
        columns="account_sid friendly_name channel_type chat_service_sid contact_identity"
        " enabled:bool integration_type integration_flow_sid integration_url"
        " integration_workspace_sid integration_workflow_sid integration_channel"
        " integration_timeout:int integration_priority:int"
        " integration_creation_on_message:bool integration_retry_count:int"
        " janitor_enabled:bool long_lived:bool date_created:time date_updated:time url",
    )
    create_versioned(
        "twilio.channels",
        keys="sid",
        columns="account_sid flex_flow_sid user_sid task_sid date_created:time date_updated:time"
        " url",
    )


def create_alibaba() -> None:
    create_versioned(
        "alibaba.contact_flows",
        keys="instance_id contact_flow_id",
        columns="name type description definition draft_id published:bool editor"
        " created_time:time updated_time:time",
    )
    create_versioned(
        "alibaba.contact_flow_numbers",
        keys="instance_id contact_flow_id number",
        columns="",
        parent=("alibaba.contact_flows", 2),
    )


def create_alibaba_definitions() -> None:
    create_versioned(
        "alibaba.contact_flow_activities",
        keys="instance_id contact_flow_id activity_id",
        columns="type name node_index:int properties:json",
        parent=("alibaba.contact_flows", 2),
    )
    create_versioned(
        "alibaba.contact_flow_transitions",
        keys="instance_id contact_flow_id activity_id position:int",
        columns="event edge_id next_activity_id",
        parent=("alibaba.contact_flow_activities", 3),
    )


def create_runs() -> None:
    op.create_table(
        "runs",
        key("source"),
        key("run_id"),
        sa.Column("stream", KEY, nullable=False),
        sa.Column("mode", TEXT, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        *(
            count(name)
            for name in (
                *("requests", "pages", "records", "inserted", "updated", "unchanged"),
                *("deleted", "rejected", "warnings", "rows_written"),
            )
        ),
        sa.Column("watermark_before", TIME),
        sa.Column("watermark_after", TIME),
        sa.Column("error_kind", TEXT),
        sa.Column("error", TEXT),
        sa.Column("reason", TEXT),
        count("absent"),
        count("retries"),
        sa.Column("throttled_seconds", sa.Double(), server_default="0", nullable=False),
        sa.Column("retry_at", TIME),
        sa.PrimaryKeyConstraint("source", "run_id", name="runs_pkey"),
        schema="etl",
    )
    op.create_index(
        "runs_latest", "runs", ["source", "stream", sa.text("started_at DESC")], schema="etl"
    )


def create_streams() -> None:
    op.create_table(
        "streams",
        key("source"),
        key("stream"),
        sa.Column("watermark", TIME),
        sa.Column("watermarks", JSON),
        sa.Column("last_run_id", TEXT),
        sa.Column("last_status", TEXT),
        sa.Column("last_attempt_at", TIME),
        sa.Column("last_success_at", TIME),
        sa.Column("last_full_at", TIME),
        sa.Column("changed_at", TIME),
        count("rows"),
        sa.Column("error", TEXT),
        sa.Column("read_at", TIME),
        sa.Column("newest_first", BOOL),
        sa.Column("retry_at", TIME),
        sa.Column("told", TEXT),
        sa.PrimaryKeyConstraint("source", "stream", name="streams_pkey"),
        schema="etl",
    )


def create_scans() -> None:
    op.create_table(
        "absences",
        key("source"),
        key("stream"),
        key("key"),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.PrimaryKeyConstraint("source", "stream", "key", name="absences_pkey"),
        schema="etl",
    )
    op.create_table(
        "checkpoints",
        key("source"),
        key("stream"),
        sa.Column("settings", TEXT, nullable=False),
        sa.Column("following", TEXT, nullable=False),
        sa.Column("state", postgresql.JSONB(), nullable=False),
        sa.Column("staged", sa.BigInteger(), nullable=False),
        sa.Column("saved_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("source", "stream", name="checkpoints_pkey"),
        schema="etl",
        prefixes=["UNLOGGED"],
    )


def create_rejects_and_leases() -> None:
    op.create_table(
        "rejects",
        key("source"),
        key("stream"),
        key("digest"),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("payload", postgresql.JSONB()),
        sa.Column("first_seen", TIME, nullable=False),
        sa.Column("last_seen", TIME, nullable=False),
        sa.PrimaryKeyConstraint("source", "stream", "digest", name="rejects_pkey"),
        schema="etl",
    )
    op.create_table(
        "leases",
        key("source"),
        key("stream"),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.PrimaryKeyConstraint("source", "stream", name="leases_pkey"),
        schema="etl",
    )


def key(name: str) -> sa.Column[str]:
    return sa.Column(name, KEY, nullable=False)


def count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)

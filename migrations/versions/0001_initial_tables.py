"""initial tables

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


SCHEMAS = (
    "zoom",
    "twilio",
    "alibaba",
    "callflow",
    "history",
    "etl",
    "staging",
)


def upgrade() -> None:
    # IF NOT EXISTS asks for CREATE on the database, even where an administrator made the schema.
    existing = sa.inspect(op.get_bind()).get_schema_names()
    for name in SCHEMAS:
        if name not in existing:
            op.execute(f"CREATE SCHEMA {name}")
    op.create_table(
        "contact_flows",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("instance_id", sa.Text(collation="C"), nullable=False),
        sa.Column("contact_flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("type", sa.Text()),
        sa.Column("description", sa.Text()),
        sa.Column("definition", sa.Text()),
        sa.Column("draft_id", sa.Text()),
        sa.Column("published", sa.Boolean()),
        sa.Column("editor", sa.Text()),
        sa.Column("created_time", sa.DateTime(timezone=True)),
        sa.Column("updated_time", sa.DateTime(timezone=True)),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(
            "source", "instance_id", "contact_flow_id", name=op.f("contact_flows_pkey")
        ),
        schema="alibaba",
        postgresql_with={"fillfactor": 90},
    )
    op.create_table(
        "leases",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("stream", sa.Text(collation="C")),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "stream", name=op.f("leases_pkey")),
        schema="etl",
    )
    op.create_table(
        "rejects",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("stream", sa.Text(collation="C")),
        sa.Column("digest", sa.Text(collation="C")),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB()),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "stream", "digest", name=op.f("rejects_pkey")),
        schema="etl",
    )
    op.create_table(
        "runs",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("run_id", sa.Text(collation="C")),
        sa.Column("stream", sa.Text(collation="C"), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pages", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("records", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("inserted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("updated", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unchanged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("deleted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("warnings", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rows_written", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("watermark_before", sa.DateTime(timezone=True)),
        sa.Column("watermark_after", sa.DateTime(timezone=True)),
        sa.Column("error_kind", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("source", "run_id", name=op.f("runs_pkey")),
        schema="etl",
    )
    op.create_table(
        "streams",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("stream", sa.Text(collation="C")),
        sa.Column("watermark", sa.DateTime(timezone=True)),
        sa.Column("watermarks", postgresql.JSONB(none_as_null=True)),
        sa.Column("last_run_id", sa.Text()),
        sa.Column("last_status", sa.Text()),
        sa.Column("last_attempt_at", sa.DateTime(timezone=True)),
        sa.Column("last_success_at", sa.DateTime(timezone=True)),
        sa.Column("last_full_at", sa.DateTime(timezone=True)),
        sa.Column("changed_at", sa.DateTime(timezone=True)),
        sa.Column("rows", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("source", "stream", name=op.f("streams_pkey")),
        schema="etl",
    )
    op.create_table(
        "alibaba_contact_flow_activities",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("instance_id", sa.Text(collation="C"), nullable=False),
        sa.Column("contact_flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("activity_id", sa.Text(collation="C"), nullable=False),
        sa.Column("type", sa.Text()),
        sa.Column("name", sa.Text()),
        sa.Column("node_index", sa.Integer()),
        sa.Column("properties", postgresql.JSONB(none_as_null=True)),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(
            "source",
            "instance_id",
            "contact_flow_id",
            "activity_id",
            "valid_from",
            name=op.f("alibaba_contact_flow_activities_pkey"),
        ),
        schema="history",
    )
    op.create_table(
        "alibaba_contact_flow_numbers",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("instance_id", sa.Text(collation="C"), nullable=False),
        sa.Column("contact_flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Text(collation="C"), nullable=False),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(
            "source",
            "instance_id",
            "contact_flow_id",
            "number",
            "valid_from",
            name=op.f("alibaba_contact_flow_numbers_pkey"),
        ),
        schema="history",
    )
    op.create_table(
        "alibaba_contact_flow_transitions",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("instance_id", sa.Text(collation="C"), nullable=False),
        sa.Column("contact_flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("activity_id", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("event", sa.Text()),
        sa.Column("edge_id", sa.Text()),
        sa.Column("next_activity_id", sa.Text()),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(
            "source",
            "instance_id",
            "contact_flow_id",
            "activity_id",
            "position",
            "valid_from",
            name=op.f("alibaba_contact_flow_transitions_pkey"),
        ),
        schema="history",
    )
    op.create_table(
        "alibaba_contact_flows",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("instance_id", sa.Text(collation="C"), nullable=False),
        sa.Column("contact_flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("type", sa.Text()),
        sa.Column("description", sa.Text()),
        sa.Column("definition", sa.Text()),
        sa.Column("draft_id", sa.Text()),
        sa.Column("published", sa.Boolean()),
        sa.Column("editor", sa.Text()),
        sa.Column("created_time", sa.DateTime(timezone=True)),
        sa.Column("updated_time", sa.DateTime(timezone=True)),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(
            "source",
            "instance_id",
            "contact_flow_id",
            "valid_from",
            name=op.f("alibaba_contact_flows_pkey"),
        ),
        schema="history",
    )
    op.create_table(
        "twilio_channels",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("sid", sa.Text(collation="C"), nullable=False),
        sa.Column("account_sid", sa.Text()),
        sa.Column("flex_flow_sid", sa.Text()),
        sa.Column("user_sid", sa.Text()),
        sa.Column("task_sid", sa.Text()),
        sa.Column("date_created", sa.DateTime(timezone=True)),
        sa.Column("date_updated", sa.DateTime(timezone=True)),
        sa.Column("url", sa.Text()),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "sid", "valid_from", name=op.f("twilio_channels_pkey")),
        schema="history",
    )
    op.create_table(
        "twilio_flex_flows",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("sid", sa.Text(collation="C"), nullable=False),
        sa.Column("account_sid", sa.Text()),
        sa.Column("friendly_name", sa.Text()),
        sa.Column("channel_type", sa.Text()),
        sa.Column("chat_service_sid", sa.Text()),
        sa.Column("contact_identity", sa.Text()),
        sa.Column("enabled", sa.Boolean()),
        sa.Column("integration_type", sa.Text()),
        sa.Column("integration_flow_sid", sa.Text()),
        sa.Column("integration_url", sa.Text()),
        sa.Column("integration_workspace_sid", sa.Text()),
        sa.Column("integration_workflow_sid", sa.Text()),
        sa.Column("integration_channel", sa.Text()),
        sa.Column("integration_timeout", sa.Integer()),
        sa.Column("integration_priority", sa.Integer()),
        sa.Column("integration_creation_on_message", sa.Boolean()),
        sa.Column("integration_retry_count", sa.Integer()),
        sa.Column("janitor_enabled", sa.Boolean()),
        sa.Column("long_lived", sa.Boolean()),
        sa.Column("date_created", sa.DateTime(timezone=True)),
        sa.Column("date_updated", sa.DateTime(timezone=True)),
        sa.Column("url", sa.Text()),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "sid", "valid_from", name=op.f("twilio_flex_flows_pkey")),
        schema="history",
    )
    op.create_table(
        "zoom_entry_points",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("entry_id", sa.Text(collation="C"), nullable=False),
        sa.Column("entry_name", sa.Text()),
        sa.Column("entry_number", sa.Text()),
        sa.Column("entry_language", sa.Text()),
        sa.Column("email_address", sa.Text()),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(
            "source", "flow_id", "entry_id", "valid_from", name=op.f("zoom_entry_points_pkey")
        ),
        schema="history",
    )
    op.create_table(
        "zoom_flow_versions",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_version_id", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_version", sa.Integer()),
        sa.Column("flow_version_description", sa.Text()),
        sa.Column("flow_version_status", sa.Text()),
        sa.Column("flow_version_modified_by", sa.Text()),
        sa.Column("flow_version_last_modified_time", sa.DateTime(timezone=True)),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(
            "source",
            "flow_id",
            "flow_version_id",
            "valid_from",
            name=op.f("zoom_flow_versions_pkey"),
        ),
        schema="history",
    )
    op.create_table(
        "zoom_flows",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_name", sa.Text()),
        sa.Column("flow_description", sa.Text()),
        sa.Column("channel_type", sa.Text()),
        sa.Column("channel", sa.Text()),
        sa.Column("channel_source", sa.Text()),
        sa.Column("status", sa.Text()),
        sa.Column("modified_by", sa.Text()),
        sa.Column("last_modified_time", sa.DateTime(timezone=True)),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "flow_id", "valid_from", name=op.f("zoom_flows_pkey")),
        schema="history",
    )
    op.create_table(
        "channels",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("sid", sa.Text(collation="C"), nullable=False),
        sa.Column("account_sid", sa.Text()),
        sa.Column("flex_flow_sid", sa.Text()),
        sa.Column("user_sid", sa.Text()),
        sa.Column("task_sid", sa.Text()),
        sa.Column("date_created", sa.DateTime(timezone=True)),
        sa.Column("date_updated", sa.DateTime(timezone=True)),
        sa.Column("url", sa.Text()),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "sid", name=op.f("channels_pkey")),
        schema="twilio",
        postgresql_with={"fillfactor": 90},
    )
    op.create_table(
        "flex_flows",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("sid", sa.Text(collation="C"), nullable=False),
        sa.Column("account_sid", sa.Text()),
        sa.Column("friendly_name", sa.Text()),
        sa.Column("channel_type", sa.Text()),
        sa.Column("chat_service_sid", sa.Text()),
        sa.Column("contact_identity", sa.Text()),
        sa.Column("enabled", sa.Boolean()),
        sa.Column("integration_type", sa.Text()),
        sa.Column("integration_flow_sid", sa.Text()),
        sa.Column("integration_url", sa.Text()),
        sa.Column("integration_workspace_sid", sa.Text()),
        sa.Column("integration_workflow_sid", sa.Text()),
        sa.Column("integration_channel", sa.Text()),
        sa.Column("integration_timeout", sa.Integer()),
        sa.Column("integration_priority", sa.Integer()),
        sa.Column("integration_creation_on_message", sa.Boolean()),
        sa.Column("integration_retry_count", sa.Integer()),
        sa.Column("janitor_enabled", sa.Boolean()),
        sa.Column("long_lived", sa.Boolean()),
        sa.Column("date_created", sa.DateTime(timezone=True)),
        sa.Column("date_updated", sa.DateTime(timezone=True)),
        sa.Column("url", sa.Text()),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "sid", name=op.f("flex_flows_pkey")),
        schema="twilio",
        postgresql_with={"fillfactor": 90},
    )
    op.create_table(
        "flows",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_name", sa.Text()),
        sa.Column("flow_description", sa.Text()),
        sa.Column("channel_type", sa.Text()),
        sa.Column("channel", sa.Text()),
        sa.Column("channel_source", sa.Text()),
        sa.Column("status", sa.Text()),
        sa.Column("modified_by", sa.Text()),
        sa.Column("last_modified_time", sa.DateTime(timezone=True)),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "flow_id", name=op.f("flows_pkey")),
        schema="zoom",
        postgresql_with={"fillfactor": 90},
    )
    op.create_table(
        "contact_flow_activities",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("instance_id", sa.Text(collation="C"), nullable=False),
        sa.Column("contact_flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("activity_id", sa.Text(collation="C"), nullable=False),
        sa.Column("type", sa.Text()),
        sa.Column("name", sa.Text()),
        sa.Column("node_index", sa.Integer()),
        sa.Column("properties", postgresql.JSONB(none_as_null=True)),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["source", "instance_id", "contact_flow_id"],
            [
                "alibaba.contact_flows.source",
                "alibaba.contact_flows.instance_id",
                "alibaba.contact_flows.contact_flow_id",
            ],
            name=op.f("contact_flow_activities_contact_flows"),
        ),
        sa.PrimaryKeyConstraint(
            "source",
            "instance_id",
            "contact_flow_id",
            "activity_id",
            name=op.f("contact_flow_activities_pkey"),
        ),
        schema="alibaba",
        postgresql_with={"fillfactor": 90},
    )
    op.create_table(
        "contact_flow_numbers",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("instance_id", sa.Text(collation="C"), nullable=False),
        sa.Column("contact_flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Text(collation="C"), nullable=False),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["source", "instance_id", "contact_flow_id"],
            [
                "alibaba.contact_flows.source",
                "alibaba.contact_flows.instance_id",
                "alibaba.contact_flows.contact_flow_id",
            ],
            name=op.f("contact_flow_numbers_contact_flows"),
        ),
        sa.PrimaryKeyConstraint(
            "source",
            "instance_id",
            "contact_flow_id",
            "number",
            name=op.f("contact_flow_numbers_pkey"),
        ),
        schema="alibaba",
        postgresql_with={"fillfactor": 90},
    )
    op.create_table(
        "entry_points",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("entry_id", sa.Text(collation="C"), nullable=False),
        sa.Column("entry_name", sa.Text()),
        sa.Column("entry_number", sa.Text()),
        sa.Column("entry_language", sa.Text()),
        sa.Column("email_address", sa.Text()),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["source", "flow_id"],
            ["zoom.flows.source", "zoom.flows.flow_id"],
            name=op.f("entry_points_flows"),
        ),
        sa.PrimaryKeyConstraint("source", "flow_id", "entry_id", name=op.f("entry_points_pkey")),
        schema="zoom",
        postgresql_with={"fillfactor": 90},
    )
    op.create_table(
        "flow_versions",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_version_id", sa.Text(collation="C"), nullable=False),
        sa.Column("flow_version", sa.Integer()),
        sa.Column("flow_version_description", sa.Text()),
        sa.Column("flow_version_status", sa.Text()),
        sa.Column("flow_version_modified_by", sa.Text()),
        sa.Column("flow_version_last_modified_time", sa.DateTime(timezone=True)),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["source", "flow_id"],
            ["zoom.flows.source", "zoom.flows.flow_id"],
            name=op.f("flow_versions_flows"),
        ),
        sa.PrimaryKeyConstraint(
            "source", "flow_id", "flow_version_id", name=op.f("flow_versions_pkey")
        ),
        schema="zoom",
        postgresql_with={"fillfactor": 90},
    )
    op.create_table(
        "contact_flow_transitions",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("instance_id", sa.Text(collation="C"), nullable=False),
        sa.Column("contact_flow_id", sa.Text(collation="C"), nullable=False),
        sa.Column("activity_id", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("event", sa.Text()),
        sa.Column("edge_id", sa.Text()),
        sa.Column("next_activity_id", sa.Text()),
        sa.Column("extra", postgresql.JSONB(none_as_null=True)),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["source", "instance_id", "contact_flow_id", "activity_id"],
            [
                "alibaba.contact_flow_activities.source",
                "alibaba.contact_flow_activities.instance_id",
                "alibaba.contact_flow_activities.contact_flow_id",
                "alibaba.contact_flow_activities.activity_id",
            ],
            name=op.f("contact_flow_transitions_contact_flow_activities"),
        ),
        sa.PrimaryKeyConstraint(
            "source",
            "instance_id",
            "contact_flow_id",
            "activity_id",
            "position",
            name=op.f("contact_flow_transitions_pkey"),
        ),
        schema="alibaba",
        postgresql_with={"fillfactor": 90},
    )


def downgrade() -> None:
    op.drop_table("contact_flow_transitions", schema="alibaba")
    op.drop_table("flow_versions", schema="zoom")
    op.drop_table("entry_points", schema="zoom")
    op.drop_table("contact_flow_numbers", schema="alibaba")
    op.drop_table("contact_flow_activities", schema="alibaba")
    op.drop_table("flows", schema="zoom")
    op.drop_table("flex_flows", schema="twilio")
    op.drop_table("channels", schema="twilio")
    op.drop_table("zoom_flows", schema="history")
    op.drop_table("zoom_flow_versions", schema="history")
    op.drop_table("zoom_entry_points", schema="history")
    op.drop_table("twilio_flex_flows", schema="history")
    op.drop_table("twilio_channels", schema="history")
    op.drop_table("alibaba_contact_flows", schema="history")
    op.drop_table("alibaba_contact_flow_transitions", schema="history")
    op.drop_table("alibaba_contact_flow_numbers", schema="history")
    op.drop_table("alibaba_contact_flow_activities", schema="history")
    op.drop_table("streams", schema="etl")
    op.drop_table("runs", schema="etl")
    op.drop_table("rejects", schema="etl")
    op.drop_table("leases", schema="etl")
    op.drop_table("contact_flows", schema="alibaba")
    for name in reversed(SCHEMAS):
        if name != "etl":  # it holds alembic's own table
            op.execute(f"DROP SCHEMA {name}")

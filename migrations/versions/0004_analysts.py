"""what analysts ask for: findings about contact flows, a log of changes, versions of one flow

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

from etl.warehouse.versioned import JSON, KEY, TEXT, TIME, create_versioned, drop_versioned

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FINDINGS = "alibaba.contact_flow_findings"

SOUGHT_BY = {
    "zoom_flows": "flow_id",
    "twilio_flex_flows": "sid",
    "alibaba_contact_flows": "contact_flow_id",
}
"""Table of the schema history → the column of its key that is looked up without the others."""

CONTACT_FLOWS = ("alibaba.contact_flows", "history.alibaba_contact_flows")


ROOTS = (
    ("zoom", "flows", "flows", None),
    ("twilio", "flex_flows", "flex_flows", None),
    ("twilio", "channels", "channels", None),
    ("alibaba", "contact_flows", "contact_flows", "instance_id"),
)
"""Provider, stream, table of its records, and the column of their scope."""


def upgrade() -> None:
    create_findings()
    create_indexes()
    put_definitions_aside()
    create_changes()


def downgrade() -> None:
    drop_changes()
    keep_definitions()
    drop_indexes()
    drop_findings()


def create_findings() -> None:
    create_versioned(
        FINDINGS,
        keys="instance_id contact_flow_id activity_id finding event",
        columns="detail",
        parent=("alibaba.contact_flows", 2),
    )
    # Findings are made where a Definition is read, and an incremental run reads only those that
    # changed: no findings would look like no faults.
    op.execute(sa.text("UPDATE etl.streams SET last_full_at = NULL WHERE stream = 'contact_flows'"))


def drop_findings() -> None:
    # Made from the definitions after the migrations; otherwise all views would have to give way.
    op.execute(f"DROP VIEW IF EXISTS {FINDINGS}_history")
    drop_versioned(FINDINGS)


def create_indexes() -> None:
    # The key starts with the source, and only PostgreSQL 18 skips over the few that there are.
    for table, column in SOUGHT_BY.items():
        op.create_index(f"{table}_{column}", table, [column], schema="history")


def drop_indexes() -> None:
    for table, column in SOUGHT_BY.items():
        op.drop_index(f"{table}_{column}", table, schema="history")


def put_definitions_aside() -> None:
    # For rows written from now on; what reads no Definition then reads an eighth of the pages.
    for table in CONTACT_FLOWS:
        op.execute(f"ALTER TABLE {table} SET (toast_tuple_target = 256)")


def keep_definitions() -> None:
    for table in CONTACT_FLOWS:
        op.execute(f"ALTER TABLE {table} RESET (toast_tuple_target)")


def create_changes() -> None:
    """Make the log of changes; migrations/env.py fills it after the views have been made."""
    op.create_table(
        "changes",
        sa.Column("source", KEY, nullable=False),
        sa.Column("provider", KEY, nullable=False),
        sa.Column("account_id", KEY),
        sa.Column("flow_id", KEY, nullable=False),
        sa.Column("flow_name", TEXT),
        sa.Column("entity", KEY, nullable=False),
        sa.Column("entity_id", KEY),
        sa.Column("entity_name", TEXT),
        sa.Column("observed_at", TIME, nullable=False),
        sa.Column("modified_at", TIME),
        sa.Column("modified_by", TEXT),
        sa.Column("change", TEXT, nullable=False),
        sa.Column("field", TEXT),
        sa.Column("old_value", TEXT),
        sa.Column("new_value", TEXT),
        schema="history",
    )
    op.create_index("changes_flow", "changes", ["flow_id", "observed_at"], schema="history")
    op.create_index(
        "changes_time", "changes", ["observed_at", "source", "provider", "entity"], schema="history"
    )
    op.create_index(
        "changes_presence",
        "changes",
        ["entity", "change", "observed_at"],
        schema="history",
        postgresql_where=sa.text("change IN ('deleted', 'restored')"),
    )
    op.add_column("streams", sa.Column("provider", TEXT), schema="etl")
    op.add_column("streams", sa.Column("known_since", JSON), schema="etl")
    for provider, stream, table, scope in ROOTS:
        date_first_complete_runs(provider, stream, table, scope)


def date_first_complete_runs(provider: str, stream: str, table: str, scope: str | None) -> None:
    """Set since when the changes of a stream are news: since its first complete run, per scope.

    Where etl.runs was pruned, that is when its first rows came.
    """
    key = f"coalesce({scope}, '')" if scope else "''"
    op.execute(f"UPDATE etl.streams SET provider = '{provider}' WHERE stream = '{stream}'")
    op.execute(f"""
        UPDATE etl.streams AS stream SET known_since = coalesce((
            SELECT jsonb_object_agg(first.scope, coalesce((
                SELECT min(run.finished_at) FROM etl.runs AS run
                WHERE run.source = stream.source AND run.stream = stream.stream
                    AND run.status = 'complete' AND run.finished_at >= first.came
                    AND EXISTS (SELECT FROM etl.runs AS earlier
                        WHERE earlier.source = stream.source AND earlier.stream = stream.stream
                            AND earlier.started_at <= first.came)
            ), first.came))
            FROM (
                SELECT {key} AS scope, min(valid_from) AS came FROM (
                    SELECT source, {scope or "NULL"} AS {scope or "scope"}, valid_from
                    FROM {provider}.{table}
                    UNION ALL SELECT source, {scope or "NULL"}, valid_from
                    FROM history.{provider}_{table}
                ) AS version WHERE version.source = stream.source GROUP BY 1
            ) AS first
        ), CASE WHEN {"false" if scope else "true"}
            THEN jsonb_build_object('', stream.last_success_at) END)
        WHERE stream.stream = '{stream}' AND stream.last_success_at IS NOT NULL""")


def drop_changes() -> None:
    op.drop_column("streams", "known_since", schema="etl")
    op.drop_column("streams", "provider", schema="etl")
    op.drop_table("changes", schema="history")

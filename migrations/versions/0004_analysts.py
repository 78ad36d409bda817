"""what analysts ask for: findings about contact flows, and versions of one flow by its id

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

from etl.warehouse.versioned import create_versioned, drop_versioned

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


def upgrade() -> None:
    create_findings()
    create_indexes()
    put_definitions_aside()


def downgrade() -> None:
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

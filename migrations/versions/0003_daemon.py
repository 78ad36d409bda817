"""what the daemon needs: throttling, when to ask again, what was notified, the latest runs

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "runs",
        sa.Column("retries", sa.BigInteger(), server_default="0", nullable=False),
        schema="etl",
    )
    op.add_column(
        "runs",
        sa.Column("throttled_seconds", sa.Double(), server_default="0", nullable=False),
        schema="etl",
    )
    op.add_column("runs", sa.Column("retry_at", sa.DateTime(timezone=True)), schema="etl")
    op.create_index(
        "runs_latest", "runs", ["source", "stream", sa.text("started_at DESC")], schema="etl"
    )
    op.add_column("streams", sa.Column("retry_at", sa.DateTime(timezone=True)), schema="etl")
    op.add_column("streams", sa.Column("told", sa.Text()), schema="etl")


def downgrade() -> None:
    op.drop_column("streams", "told", schema="etl")
    op.drop_column("streams", "retry_at", schema="etl")
    op.drop_index("runs_latest", "runs", schema="etl")
    op.drop_column("runs", "retry_at", schema="etl")
    op.drop_column("runs", "throttled_seconds", schema="etl")
    op.drop_column("runs", "retries", schema="etl")

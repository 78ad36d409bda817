"""what a run needs to know of former ones: modes, absences, checkpoints

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("reason", sa.Text()), schema="etl")
    op.add_column(
        "runs",
        sa.Column("absent", sa.BigInteger(), server_default="0", nullable=False),
        schema="etl",
    )
    op.add_column("streams", sa.Column("read_at", sa.DateTime(timezone=True)), schema="etl")
    op.add_column("streams", sa.Column("newest_first", sa.Boolean()), schema="etl")
    op.create_table(
        "absences",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("stream", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "stream", "key"),
        schema="etl",
    )
    op.create_table(
        "checkpoints",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("stream", sa.Text(collation="C"), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("following", sa.Text(), nullable=False),
        sa.Column("state", postgresql.JSONB(), nullable=False),
        sa.Column("staged", sa.BigInteger(), nullable=False),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "stream"),
        schema="etl",
        prefixes=["UNLOGGED"],
    )


def downgrade() -> None:
    op.drop_table("checkpoints", schema="etl")
    op.drop_table("absences", schema="etl")
    op.drop_column("streams", "newest_first", schema="etl")
    op.drop_column("streams", "read_at", schema="etl")
    op.drop_column("runs", "absent", schema="etl")
    op.drop_column("runs", "reason", schema="etl")

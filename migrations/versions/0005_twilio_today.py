"""what Twilio is today: Studio flows

Revision ID: 0005
Revises: 0004
"""

from alembic import op

from etl.warehouse.versioned import create_versioned, drop_versioned

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_studio_flows()


def downgrade() -> None:
    drop_studio_flows()


STUDIO_STATE = "type is_start:bool state_index:int properties:json"
STUDIO_TRANSITION = "event next conditions:json"

STUDIO_TABLES: tuple[tuple[str, str, str, tuple[str, int] | None], ...] = (
    (
        "studio_flows",
        "sid",
        "account_sid author_sid friendly_name status revision:int live_revision:int commit_message"
        " valid:bool webhook_url date_created:time date_updated:time url",
        None,
    ),
    (
        "studio_flow_revisions",
        "sid revision:int",
        "account_sid status author_sid commit_message valid:bool definition date_created:time"
        " date_updated:time",
        ("studio_flows", 1),
    ),
    ("studio_flow_states", "sid revision:int name", STUDIO_STATE, ("studio_flow_revisions", 2)),
    (
        "studio_flow_transitions",
        "sid revision:int name position:int",
        STUDIO_TRANSITION,
        ("studio_flow_states", 3),
    ),
    (
        "studio_flow_findings",
        "sid revision:int name finding event",
        "detail",
        ("studio_flow_revisions", 2),
    ),
    ("studio_live_states", "sid name", f"{STUDIO_STATE} account_sid", ("studio_flows", 1)),
    (
        "studio_live_transitions",
        "sid name position:int",
        f"{STUDIO_TRANSITION} account_sid",
        ("studio_live_states", 2),
    ),
    ("studio_live_findings", "sid name finding event", "detail account_sid", ("studio_flows", 1)),
)
"""Name, key, columns, and the table whose rows own these with how much of the key is its."""


def create_studio_flows() -> None:
    for name, keys, columns, owner in STUDIO_TABLES:
        parent = None if owner is None else (f"twilio.{owner[0]}", owner[1])
        create_versioned(f"twilio.{name}", keys=keys, columns=columns, parent=parent)
    op.create_index("twilio_studio_flows_sid", "twilio_studio_flows", ["sid"], schema="history")
    for table in ("twilio.studio_flow_revisions", "history.twilio_studio_flow_revisions"):
        op.execute(f"ALTER TABLE {table} SET (toast_tuple_target = 256)")


def drop_studio_flows() -> None:
    op.drop_index("twilio_studio_flows_sid", "twilio_studio_flows", schema="history")
    for name, *_ in reversed(STUDIO_TABLES):
        op.execute(f"DROP VIEW IF EXISTS twilio.{name}_history")
        drop_versioned(f"twilio.{name}")

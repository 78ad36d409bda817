"""What Twilio is today, Studio flows, addresses and numbers; and the numbers of Alibaba Cloud CCC

Revision ID: 0005
Revises: 0004
"""

from alembic import op

from etl.warehouse.versioned import create_versioned, drop_versioned

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NUMBERS = ("alibaba.phone_number_skill_groups", "alibaba.phone_numbers", "twilio.phone_numbers",
           "twilio.addresses")  # fmt: skip
"""The tables of numbers and addresses, children first."""

SOUGHT_BY = {
    "twilio_addresses": "sid",
    "twilio_phone_numbers": "sid",
    "alibaba_phone_numbers": "number",
}
"""Table of the schema history → the column of its key that is looked up without the others."""


def upgrade() -> None:
    create_studio_flows()
    create_numbers()


def downgrade() -> None:
    drop_numbers()
    drop_studio_flows()


def create_numbers() -> None:
    create_versioned(
        "twilio.addresses",
        keys="sid",
        columns="account_sid type address friendly_name address_country auto_creation_enabled:bool"
        " auto_creation_type conversation_service_sid studio_flow_sid studio_retry_count:int"
        " webhook_url webhook_method webhook_filters:json date_created:time date_updated:time url",
    )
    create_versioned(
        "twilio.phone_numbers",
        keys="sid",
        columns="account_sid phone_number friendly_name origin status type capability_voice:bool"
        " capability_sms:bool capability_mms:bool voice_url voice_application_sid trunk_sid"
        " voice_studio_flow_sid sms_url sms_application_sid sms_studio_flow_sid"
        " date_created:time date_updated:time",
    )
    create_versioned(
        "alibaba.phone_numbers",
        keys="instance_id number",
        columns="active:bool contact_flow_id contact_flow_name usage provider province city user_id"
        " create_time:time",
    )
    create_versioned(
        "alibaba.phone_number_skill_groups",
        keys="instance_id number skill_group_id",
        columns="name display_name",
        parent=("alibaba.phone_numbers", 2),
    )
    for table, column in SOUGHT_BY.items():
        op.create_index(f"{table}_{column}", table, [column], schema="history")


def drop_numbers() -> None:
    for table in NUMBERS:
        # Made from the definitions after the migrations; otherwise all views would have to give
        # way.
        op.execute(f"DROP VIEW IF EXISTS {table}_history")
        drop_versioned(table)


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

"""Twilio as it is today: addresses and phone numbers; and the phone numbers of Alibaba Cloud CCC

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
    create_numbers()


def downgrade() -> None:
    drop_numbers()


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

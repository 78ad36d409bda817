"""The tables are those that the design names, and each of their columns is described."""

import pytest
from sqlalchemy import MetaData, Table, make_url

from etl.providers.catalog import TABLES
from etl.warehouse import tables
from etl.warehouse.names import SCHEMAS

KEYS_AND_COLUMNS: dict[str, tuple[str, str]] = {
    "zoom.flows": (
        "source flow_id",
        "flow_name flow_description channel_type channel channel_source status modified_by"
        " last_modified_time:timestamptz",
    ),
    "zoom.flow_versions": (
        "source flow_id flow_version_id",
        "flow_version:int flow_version_description flow_version_status flow_version_modified_by"
        " flow_version_last_modified_time:timestamptz",
    ),
    "zoom.entry_points": (
        "source flow_id entry_id",
        "entry_name entry_number entry_language email_address",
    ),
    "twilio.flex_flows": (
        "source sid",
        "account_sid friendly_name channel_type chat_service_sid contact_identity enabled:bool"
        " integration_type integration_flow_sid integration_url integration_workspace_sid"
        " integration_workflow_sid integration_channel integration_timeout:int"
        " integration_priority:int integration_creation_on_message:bool"
        " integration_retry_count:int janitor_enabled:bool long_lived:bool"
        " date_created:timestamptz date_updated:timestamptz url",
    ),
    "twilio.channels": (
        "source sid",
        "account_sid flex_flow_sid user_sid task_sid date_created:timestamptz"
        " date_updated:timestamptz url",
    ),
    "twilio.studio_flows": (
        "source sid",
        "account_sid author_sid friendly_name status revision:int live_revision:int"
        " commit_message valid:bool webhook_url date_created:timestamptz"
        " date_updated:timestamptz url",
    ),
    "twilio.studio_flow_revisions": (
        "source sid revision:int",
        "account_sid status author_sid commit_message valid:bool definition"
        " date_created:timestamptz date_updated:timestamptz",
    ),
    "twilio.studio_flow_states": (
        "source sid revision:int name",
        "type is_start:bool state_index:int properties:jsonb",
    ),
    "twilio.studio_flow_transitions": (
        "source sid revision:int name position:int",
        "event next conditions:jsonb",
    ),
    "twilio.studio_flow_findings": ("source sid revision:int name finding event", "detail"),
    "twilio.studio_live_states": (
        "source sid name",
        "type is_start:bool state_index:int properties:jsonb account_sid",
    ),
    "twilio.studio_live_transitions": (
        "source sid name position:int",
        "event next conditions:jsonb account_sid",
    ),
    "twilio.studio_live_findings": ("source sid name finding event", "detail account_sid"),
    "twilio.addresses": (
        "source sid",
        "account_sid type address friendly_name address_country auto_creation_enabled:bool"
        " auto_creation_type conversation_service_sid studio_flow_sid studio_retry_count:int"
        " webhook_url webhook_method webhook_filters:jsonb date_created:timestamptz"
        " date_updated:timestamptz url",
    ),
    "twilio.phone_numbers": (
        "source sid",
        "account_sid phone_number friendly_name origin status type capability_voice:bool"
        " capability_sms:bool capability_mms:bool voice_url voice_application_sid trunk_sid"
        " voice_studio_flow_sid sms_url sms_application_sid sms_studio_flow_sid"
        " date_created:timestamptz date_updated:timestamptz",
    ),
    "alibaba.contact_flows": (
        "source instance_id contact_flow_id",
        "name type description definition draft_id published:bool editor"
        " created_time:timestamptz updated_time:timestamptz",
    ),
    "alibaba.contact_flow_numbers": ("source instance_id contact_flow_id number", ""),
    "alibaba.contact_flow_activities": (
        "source instance_id contact_flow_id activity_id",
        "type name node_index:int properties:jsonb",
    ),
    "alibaba.contact_flow_transitions": (
        "source instance_id contact_flow_id activity_id position:int",
        "event edge_id next_activity_id",
    ),
    "alibaba.contact_flow_findings": (
        "source instance_id contact_flow_id activity_id finding event",
        "detail",
    ),
    "alibaba.phone_numbers": (
        "source instance_id number",
        "active:bool contact_flow_id contact_flow_name usage provider province city user_id"
        " create_time:timestamptz",
    ),
    "alibaba.phone_number_skill_groups": (
        "source instance_id number skill_group_id",
        "name display_name",
    ),
}
"""Every column is text unless it says otherwise."""

TYPES = {
    "text": "TEXT",
    "key": 'TEXT COLLATE "C"',
    "int": "INTEGER",
    "bool": "BOOLEAN",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "jsonb": "JSONB",
}

POSTGRES = make_url("postgresql+psycopg://").get_dialect()()

every_table = pytest.mark.parametrize(
    "table", tables.metadata.sorted_tables, ids=lambda table: table.fullname
)


def types_of(table: Table) -> dict[str, str]:
    return {c.name: str(c.type.compile(dialect=POSTGRES)) for c in table.columns}


def test_these_are_the_current_tables() -> None:
    assert [table.fullname for table in TABLES.values()] == list(KEYS_AND_COLUMNS)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.fullname)
def test_a_current_table_has_exactly_these_columns(table: Table) -> None:
    keys, columns = (words.split() for words in KEYS_AND_COLUMNS[table.fullname])
    expected = {}
    for word in (*keys, *columns, "extra:jsonb", "valid_from:timestamptz"):
        name, _, kind = word.partition(":")
        expected[name] = TYPES[kind or ("key" if word in keys else "text")]
    assert list(types_of(table).items()) == list(expected.items())
    assert [c.name for c in table.primary_key] == [key.partition(":")[0] for key in keys]
    required = {c.name for c in table.columns if not c.nullable}
    assert required == {c.name for c in table.primary_key} | {"valid_from"}


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.fullname)
def test_a_history_table_mirrors_its_current_one(table: Table) -> None:
    history = tables.history(table)
    assert history.fullname == f"history.{table.schema}_{table.name}"
    assert types_of(history) == {**types_of(table), "valid_to": TYPES["timestamptz"]}
    assert list(types_of(history))[-1] == "valid_to"
    assert [c.name for c in history.primary_key] == [
        *(c.name for c in table.primary_key),
        "valid_from",
    ]
    for column in table.columns:
        assert history.c[column.name].nullable == column.nullable
        assert history.c[column.name].comment == column.comment
    assert not history.c.valid_to.nullable


@every_table
def test_every_table_and_column_is_described(table: Table) -> None:
    assert table.schema in SCHEMAS
    assert table.comment
    assert [column.name for column in table.columns if not column.comment] == []


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.fullname)
def test_the_description_says_where_in_the_provider_s_json_a_value_is(table: Table) -> None:
    for column in table.columns:
        if path := column.info.get("json"):
            assert column.comment is not None
            assert column.comment.split(":")[0].endswith("[]." + ".".join(path)), column


def test_every_schema_is_described_and_each_is_used() -> None:
    assert all(SCHEMAS.values())
    used = {table.schema for table in tables.metadata.sorted_tables}
    assert used | {"callflow", "staging"} == set(SCHEMAS)


@every_table
def test_the_key_starts_with_source_so_that_tables_can_be_distributed_by_it(table: Table) -> None:
    if table is not tables.changes:  # a log has no key
        assert next(iter(table.primary_key)).name == "source"
    assert next(iter(table.columns)).name == "source"
    for constraint in table.foreign_key_constraints:
        assert constraint.column_keys[0] == "source"
        assert {e.column.name for e in constraint.elements} == set(constraint.column_keys)


@pytest.mark.fault(73)
@every_table
def test_names_fit_postgres_and_need_no_quotes(table: Table) -> None:
    quoted = POSTGRES.identifier_preparer
    names: list[object] = [table.name, table.schema, *(column.name for column in table.columns)]
    names += [constraint.name for constraint in table.constraints]
    for name in names:
        assert isinstance(name, str)
        assert len(name.encode()) < 63
        assert quoted.quote(str(name)) == name
        assert name.islower()


@every_table
def test_no_column_is_an_array_or_an_enum(table: Table) -> None:
    assert set(types_of(table).values()) <= {*TYPES.values(), "BIGINT", "DOUBLE PRECISION"}


def test_children_follow_their_parents() -> None:
    assert [t.name for t in tables.children(TABLES["alibaba.contact_flows"])] == [
        "contact_flow_numbers",
        "contact_flow_activities",
        "contact_flow_transitions",
        "contact_flow_findings",
    ]
    assert [t.name for t in tables.children(TABLES["zoom.flows"])] == [
        "flow_versions",
        "entry_points",
    ]
    assert list(tables.children(TABLES["twilio.channels"])) == []
    for table in TABLES.values():
        parent = table.info["parent"]
        assert (parent is None) == (not table.foreign_key_constraints)
        if parent is not None:
            names = list(TABLES)
            assert names.index(parent.fullname) < names.index(table.fullname)
            assert [c.name for c in parent.primary_key] == [
                c.name for c in list(table.primary_key)[: len(parent.primary_key)]
            ]


def test_a_second_provider_of_the_same_name_cannot_slip_in() -> None:
    assert isinstance(tables.metadata, MetaData)
    names = [table.fullname for table in TABLES.values()]
    assert len(set(names)) == len(names)  # the staging tables of a source have its provider's names


def test_no_part_of_a_key_may_be_null() -> None:
    for table in tables.metadata.sorted_tables:
        assert [c.name for c in table.primary_key if c.nullable] == [], table

"""Contact flows of Alibaba Cloud CCC: what their Definitions say and lack."""

from functools import partial

from etl.extract import alibaba
from etl.providers.alibaba.source import auth
from etl.providers.alibaba.tables import (
    contact_flow_activities,
    contact_flow_findings,
    contact_flow_numbers,
    contact_flow_transitions,
    contact_flows,
    phone_numbers,
)
from etl.providers.declare import Stream
from etl.transform.alibaba_definition import definition
from etl.transform.tree import tree
from etl.warehouse.model.part import Lookup, Part
from etl.warehouse.tables import family

DIGITS = """CASE WHEN r.number NOT LIKE '%*%'
    THEN nullif(regexp_replace(r.number, '[^0-9+]', '', 'g'), '') END"""
FLOW = {"account_id": "r.instance_id", "flow_id": "r.contact_flow_id"}
_SETTINGS = """CASE WHEN jsonb_typeof(r.properties) = 'object' THEN r.properties - 'position'
    ELSE r.properties END"""

_EACH_SETTING = """jsonb_each(CASE WHEN jsonb_typeof(r.properties) = 'object'
    THEN r.properties - 'position' ELSE '{}' END) AS setting"""


def _strings(value: str) -> str:
    """Return the SQL of the strings in a JSON value, as JSON."""
    return f"""jsonb_path_query({value}, 'strict $.** ? (@.type() == "string")')"""


FLOWS = Part(
    view="flows",
    table=contact_flows,
    columns={
        **FLOW,
        "name": "r.name",
        "description": "r.description",
        "flow_type": "r.type",
        "channel": "'voice'",
        "status": "CASE WHEN r.published THEN 'published' WHEN NOT r.published THEN 'draft' END",
        "is_live": "coalesce(r.published, false)",
        "modified_by": "nullif(r.editor, '')",
        "modified_at": "r.updated_time",
        "created_at": "r.created_time",
    },
    looked_up={"has_unpublished_changes": "coalesce(r.published AND r.draft_id <> '', false)"},
    compared={"draft": "r.draft_id"},
    content="definition",
)

PARTS = (
    FLOWS,
    Part(
        view="entry_points",
        table=contact_flow_numbers,
        columns={
            **FLOW,
            "entry_point_id": "r.number",
            "kind": "'phone'",
            "address": "r.number",
            "address_key": DIGITS,
            "target_kind": "'flow'",
            "target": "r.contact_flow_id",
        },
        # The list of numbers says which of them reach a flow, too, and which do not.
        unless=(
            Lookup(
                "listed",
                phone_numbers,
                on={"source": "r.source", "instance_id": "r.instance_id", "number": "r.number"},
            ),
            Lookup(
                "unmasked",
                phone_numbers,
                on={
                    "source": "r.source",
                    "instance_id": "r.instance_id",
                    "contact_flow_id": "r.contact_flow_id",
                },
                where="r.number LIKE '%*%' AND each.number LIKE replace(r.number, '*', '_')",
            ),
        ),
        reported=Lookup(
            "numbers",
            phone_numbers,
            on={"source": "r.source", "instance_id": "r.instance_id"},
        ),
    ),
    Part(
        view="flow_steps",
        table=contact_flow_activities,
        columns={
            **FLOW,
            "step_id": "r.activity_id",
            "step_type": "r.type",
            "name": "r.name",
            "step_number": "r.node_index",
            "properties": f"({_SETTINGS})::text",
        },
        members="properties",
        layout=("position",),
    ),
    Part(
        view="flow_step_links",
        table=contact_flow_transitions,
        columns={
            **FLOW,
            "step_id": "r.activity_id",
            "link_number": "r.position",
            "event": "r.event",
            "next_step_id": "r.next_activity_id",
        },
    ),
    Part(
        view="flow_step_properties",
        table=contact_flow_activities,
        columns={
            **FLOW,
            "step_id": "r.activity_id",
            "step_type": "r.type",
            "step_name": "r.name",
            "property": "setting.key",
            "value": "setting.value #>> '{}'",
        },
        each=_EACH_SETTING,
    ),
    Part(
        view="flow_findings",
        table=contact_flow_findings,
        columns={
            **FLOW,
            "step_id": "nullif(r.activity_id, '')",
            "finding": "r.finding",
            "detail": "nullif(concat_ws(': ', nullif(r.event, ''), r.detail), '')",
        },
    ),
    # No document says which setting refers to what, but the id of a flow stands for that flow, also
    # when it is gone.
    Part(
        view="flow_references",
        table=contact_flow_activities,
        columns={
            **FLOW,
            "step_id": "r.activity_id",
            "kind": "'flow'",
            "target_id": "string.value",
            "is_dynamic": "false",
        },
        each=f"""(SELECT DISTINCT found #>> '{{}}' AS value
            FROM {_strings(_SETTINGS)} AS found) AS string""",
        # "IS TRUE" keeps it a condition, looked up in a hash table or an index. As a join it would
        # be planned for each step by itself, and read every flow for each.
        where="""string.value <> r.contact_flow_id AND (EXISTS (
            SELECT FROM alibaba.contact_flows_history AS known
            WHERE known.source = r.source AND known.instance_id = r.instance_id
                AND known.contact_flow_id = string.value)) IS TRUE""",
        looked_up={"target_name": "used.name"},
        lookup=Lookup(
            "used",
            contact_flows,
            on={
                "source": "r.source",
                "instance_id": "r.instance_id",
                "contact_flow_id": "string.value",
            },
            facts={"name": "max(each.name)"},
        ),
    ),
    # Only main flows have numbers; other flows are called from them.
    Part(
        view="flows_reached_otherwise",
        table=contact_flows,
        where="r.type IN ('SUB_FLOW', 'SURVEY_FLOW')",
        columns=FLOW,
    ),
    Part(
        view="flow_step_strings",
        table=contact_flow_activities,
        columns={
            **FLOW,
            "step_id": "r.activity_id",
            "property": "setting.key",
            "value": "string.found #>> '{}'",
        },
        each=f"""{_EACH_SETTING} CROSS JOIN LATERAL {_strings("setting.value")} AS string(found)""",
    ),
)

STREAM = Stream(
    name="contact_flows",
    tables=family(contact_flows),
    auth=partial(auth, action=alibaba.CONTACT_FLOWS),
    pages=alibaba.contact_flows,
    transform=tree(
        contact_flows,
        noun="contact flow",
        inside=definition(contact_flow_activities, contact_flow_transitions, contact_flow_findings),
    ),
    look_up=None,
    probe=alibaba.probe_contact_flows,
    modified="updated_time",
    scope="instance_id",
    changes="since",
    parts=PARTS,
    request_id="x-acs-request-id",
    batch=1,  # a hundred Definitions of a hundred kilobytes are enough to hold
)

"""Alibaba Cloud CCC: IVR contact flows, their numbers, what their Definitions say and lack."""

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from etl.config.settings import Source
from etl.config.values import InstanceIds, Rate, Secret, TimeZone, WebUrl, Word
from etl.extract import alibaba, alibaba_numbers
from etl.extract.acs3 import Signer
from etl.extract.http import Seam, Sign
from etl.extract.verdict import Judge
from etl.providers.declare import Provider, Stream
from etl.transform.alibaba_definition import definition
from etl.transform.tree import tree
from etl.warehouse.model.part import Lookup, Part
from etl.warehouse.tables import (
    BOOL,
    INT,
    JSON,
    KEY,
    TEXT,
    TIME,
    current,
    family,
    field,
    given,
    item,
    scope,
)


class AlibabaSource(Source):
    """An Alibaba Cloud account; `timezone` is the zone of the times that it sends without one.

    Default pace: 5 requests per second; no limit is documented for CCC; its sister products state
    5 to 10 per account.
    """

    account: ClassVar[str] = "access_key_id"
    scopes: ClassVar[str | None] = "instance_ids"
    zone: ClassVar[str | None] = "timezone"

    provider: Literal["alibaba"] = "alibaba"
    access_key_id: Word = Field(description="the ID of a RAM user's access key")
    access_key_secret: Secret = Field(description="the secret of that access key")
    security_token: Secret | None = Field(
        default=None, description="the STS token that belongs to a temporary key"
    )
    instance_ids: InstanceIds = Field(
        description="a list of CCC instance ids, each once", examples=[["ccc-test"]]
    )
    base_url: WebUrl = "https://ccc.cn-shanghai.aliyuncs.com"
    timezone: TimeZone = "Asia/Shanghai"
    requests_per_second: Rate = 5.0


def _auth(source: AlibabaSource, seam: Seam, *, action: str) -> tuple[Sign, Judge]:
    token = source.security_token
    sign = Signer(
        source.access_key_id,
        source.access_key_secret.get_secret_value(),
        token.get_secret_value() if token else None,
        action,
        now=seam.now,
    )
    return sign, alibaba.judge(seam.now)


_ZONE = "Alibaba sends it without a zone; read in the source's `timezone` (Asia/Shanghai)."

contact_flows = current(
    "alibaba.contact_flows",
    "IVR contact flows of Alibaba Cloud CCC.",
    scope("instance_id", "InstanceId", "the contact centre instance that was listed."),
    field("contact_flow_id", KEY, "Id of the contact flow.", json="ContactFlowId"),
    field("name", TEXT, "Name.", json="Name"),
    field("type", TEXT, "MAIN_FLOW, SUB_FLOW, SURVEY_FLOW, …", json="Type"),
    field("description", TEXT, "Description of the version.", json="Description"),
    field("definition", TEXT, "JSON text of the flow's content, as sent.", json="Definition"),
    field("draft_id", TEXT, "Id of the draft, while one is unpublished.", json="DraftId"),
    field("published", BOOL, "Whether it was ever published.", json="Published"),
    field("editor", TEXT, "Login name of the agent who edits the draft.", json="Editor"),
    field("created_time", TIME, f"When it was created. {_ZONE}", json="CreatedTime"),
    field("updated_time", TIME, f"When it was changed last. {_ZONE}", json="UpdatedTime"),
    keys=2,
    record="Data.List[]",
    sought_by="contact_flow_id",
    # Most Definitions have 1 to 8 kB, compress to less than 2 kB, and would then stay in the row:
    # what reads no Definition would read eight times as many pages.
    toast=256,
)

_FLOW_KEY = (
    ("instance_id", "InstanceId: the contact centre instance that was listed."),
    ("contact_flow_id", "Data.List[].ContactFlowId: the contact flow that the row belongs to."),
)

contact_flow_numbers = current(
    "alibaba.contact_flow_numbers",
    "Phone numbers bound to a contact flow, as sent (Alibaba may mask them).",
    *(given(name, KEY, comment) for name, comment in _FLOW_KEY),
    item("number", "the number. Personal data; not a join key."),
    keys=3,
    record="Data.List[].NumberList[]",
    parent=contact_flows,
)

contact_flow_activities = current(
    "alibaba.contact_flow_activities",
    "Activities (nodes) of a contact flow, read from its Definition.",
    *(given(name, KEY, comment) for name, comment in _FLOW_KEY),
    field("activity_id", KEY, "Id of the activity within the flow.", json="id"),
    field("type", TEXT, "INCOMING_CALL, PLAY_SAY, HANGUP, …", json="type"),
    field("name", TEXT, "Name.", json="name"),
    field("node_index", INT, "Index of the node (999: the end).", json="nodeIndex"),
    field("properties", JSON, "Settings of the activity, as sent.", json="properties"),
    keys=3,
    record="Data.List[].Definition.activities[]",
    parent=contact_flows,
)

contact_flow_transitions = current(
    "alibaba.contact_flow_transitions",
    "Transitions (edges) between the activities of a contact flow, read from its Definition.",
    *(given(name, KEY, comment) for name, comment in _FLOW_KEY),
    given("activity_id", KEY, "Data.List[].Definition.activities[].id: where it starts."),
    given("position", INT, "Index in the activity's `events`, from 0."),
    field("event", TEXT, "Event that takes this way: complete, …", json="event"),
    field("edge_id", TEXT, "Id of the edge.", json="edgeId"),
    field("next_activity_id", TEXT, "Activity that follows; NULL at the end.", json="next"),
    keys=4,
    record="Data.List[].Definition.activities[].events[]",
    parent=contact_flow_activities,
)

contact_flow_findings = current(
    "alibaba.contact_flow_findings",
    "What is wrong with the graph of a contact flow's activities, and where it repeats.",
    *(given(name, KEY, comment) for name, comment in _FLOW_KEY),
    given("activity_id", KEY, "Activity that it is about; empty: the contact flow as a whole."),
    given(
        "finding",
        KEY,
        "unreachable: no path leads there from an INCOMING_CALL or, where there is none, from the "
        "lowest nodeIndex; no_start: there is neither; dead_end: no event leads on, and it is no "
        "HANGUP; open_event: the event has no next, while another one has; broken_link: the "
        "event's next is no activity; loop: it is on a cycle, which is not wrong if a menu "
        "repeats; unreadable: the Definition, or the activity's events, cannot be read.",
    ),
    given(
        "event",
        KEY,
        "Event that it is about, up to 128 bytes of it; empty if there is no single one, or if it "
        "has no name.",
    ),
    given(
        "detail",
        TEXT,
        "broken_link: the next that is no activity; loop: the activities that are on it together, "
        "20 of them at most; otherwise NULL.",
    ),
    keys=5,
    record="Data.List[].Definition",
    parent=contact_flows,
    derived=True,
)

phone_numbers = current(
    "alibaba.phone_numbers",
    "Phone numbers of the instances of Alibaba Cloud CCC, also those that reach no contact flow.",
    scope("instance_id", "InstanceId", "the contact centre instance that was listed."),
    field(
        "number",
        KEY,
        "the number, as sent. Alibaba may mask it; where an instance has several that it masks"
        " alike, a slash and CreateTime follow on all but the oldest. Personal data.",
        json="Number",
    ),
    field("active", BOOL, "Whether it is in use.", json="Active"),
    field("contact_flow_id", TEXT, "Contact flow of its calls; empty: none.", json="ContactFlowId"),
    field("contact_flow_name", TEXT, "Name of that contact flow.", json="ContactFlowName"),
    field("usage", TEXT, "Inbound, Outbound, Bidirection, …", json="Usage"),
    field("provider", TEXT, "Carrier.", json="Provider"),
    field("province", TEXT, "Province.", json="Province"),
    field("city", TEXT, "City.", json="City"),
    field("user_id", TEXT, "Agent whose number it is; empty: none.", json="UserId"),
    field(
        "create_time",
        TIME,
        "When it joined the instance.",
        json="CreateTime",
        spelled="epoch milliseconds",
    ),
    keys=2,
    record="Data.List[]",
    sought_by="number",
)

phone_number_skill_groups = current(
    "alibaba.phone_number_skill_groups",
    "Skill groups that use a phone number.",
    given("instance_id", KEY, "InstanceId: the contact centre instance that was listed."),
    given("number", KEY, "Data.List[].Number: the phone number that the row belongs to."),
    field("skill_group_id", KEY, "Id of the skill group.", json="SkillGroupId"),
    field("name", TEXT, "Name.", json="Name"),
    field("display_name", TEXT, "Name that agents see.", json="DisplayName"),
    keys=3,
    record="Data.List[].SkillGroups[]",
    parent=phone_numbers,
)

_DIGITS = """CASE WHEN r.number NOT LIKE '%*%'
    THEN nullif(regexp_replace(r.number, '[^0-9+]', '', 'g'), '') END"""
_FLOW = {"account_id": "r.instance_id", "flow_id": "r.contact_flow_id"}
_SETTINGS = """CASE WHEN jsonb_typeof(r.properties) = 'object' THEN r.properties - 'position'
    ELSE r.properties END"""

_EACH_SETTING = """jsonb_each(CASE WHEN jsonb_typeof(r.properties) = 'object'
    THEN r.properties - 'position' ELSE '{}' END) AS setting"""

_STRING_VALUES = """jsonb_path_query(setting.value, 'strict $.** ? (@.type() == "string")')"""

_FLOWS = Part(
    view="flows",
    table=contact_flows,
    columns={
        **_FLOW,
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
    _FLOWS,
    Part(
        view="entry_points",
        table=contact_flow_numbers,
        columns={
            **_FLOW,
            "entry_point_id": "r.number",
            "kind": "'phone'",
            "address": "r.number",
            "address_key": _DIGITS,
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
            **_FLOW,
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
            **_FLOW,
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
            **_FLOW,
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
            **_FLOW,
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
            **_FLOW,
            "step_id": "r.activity_id",
            "kind": "'flow'",
            "target_id": "string.value",
            "is_dynamic": "false",
        },
        each=f"""(SELECT DISTINCT found #>> '{{}}' AS value
            FROM {_EACH_SETTING} CROSS JOIN LATERAL {_STRING_VALUES} AS found) AS string""",
        where="""string.value <> r.contact_flow_id AND EXISTS (
            SELECT FROM alibaba.contact_flows_history AS known
            WHERE known.source = r.source AND known.instance_id = r.instance_id
                AND known.contact_flow_id = string.value)""",
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
        columns=_FLOW,
    ),
    Part(
        view="flow_step_strings",
        table=contact_flow_activities,
        columns={
            **_FLOW,
            "step_id": "r.activity_id",
            "property": "setting.key",
            "value": "string.found #>> '{}'",
        },
        each=f"""{_EACH_SETTING} CROSS JOIN LATERAL {_STRING_VALUES} AS string(found)""",
    ),
)

NUMBER_PARTS = (
    Part(
        view="entry_points",
        table=phone_numbers,
        columns={
            "account_id": "r.instance_id",
            "flow_id": "nullif(r.contact_flow_id, '')",
            "entry_point_id": "r.number",
            "kind": "'phone'",
            "address": "split_part(r.number, '/', 1)",
            "address_key": _DIGITS,
            "target_kind": "CASE WHEN r.contact_flow_id <> '' THEN 'flow'"
            " WHEN r.user_id <> '' THEN 'agent' END",
            "target": "coalesce(nullif(r.contact_flow_id, ''), nullif(r.user_id, ''))",
        },
        flows=_FLOWS,
    ),
    Part(
        view="bindings",
        table=phone_numbers,
        where="r.contact_flow_id <> ''",
        columns={**_FLOW, "entry_point_id": "r.number"},
        looked_up={"has_flows": "{flows}"},
        lookup=Lookup(
            "flows", contact_flows, on={"source": "r.source", "instance_id": "r.instance_id"}
        ),
    ),
    Part(
        view="unbound_numbers",
        table=phone_numbers,
        where="coalesce(r.contact_flow_id, '') = '' AND coalesce(r.user_id, '') = ''",
        columns={
            "account_id": "r.instance_id",
            "number_id": "r.number",
            "address": "split_part(r.number, '/', 1)",
            "address_key": _DIGITS,
            "created_at": "r.create_time",
            "since": "r.valid_from",
        },
    ),
)

PROVIDER = Provider(
    name="alibaba",
    title="Alibaba Cloud CCC",
    comment="Alibaba Cloud CCC as it is now, in Alibaba's own field names (snake_case).",
    settings=AlibabaSource,
    setup="RAM console → Users → AccessKey.",
    credentials="the access key of a RAM user (or STS), the CCC instance ids",
    rights="read access to Cloud Call Center: ccc:ListContactFlows, ccc:ListPhoneNumbers",
    example="""
[sources.alibaba_sh]
provider = "alibaba"
access_key_id = "…"
access_key_secret = "…"
instance_ids = ["…"]            # one or more instances of Cloud Call Center
base_url = "https://ccc.cn-shanghai.aliyuncs.com"
timezone = "Asia/Shanghai"      # Alibaba sends times without a zone; they are read in this one
requests_per_second = 5

# only with temporary credentials (STS):
security_token = "…"
""",
    streams=(
        Stream(
            name="contact_flows",
            tables=family(contact_flows),
            auth=partial(_auth, action=alibaba.CONTACT_FLOWS),
            pages=alibaba.contact_flows,
            transform=tree(
                contact_flows,
                noun="contact flow",
                inside=definition(
                    contact_flow_activities, contact_flow_transitions, contact_flow_findings
                ),
            ),
            look_up=None,
            probe=alibaba.probe_contact_flows,
            modified="updated_time",
            scope="instance_id",
            changes="since",
            parts=PARTS,
            request_id="x-acs-request-id",
            batch=1,  # a hundred Definitions of a hundred kilobytes are enough to hold
        ),
        Stream(
            name="phone_numbers",
            tables=family(phone_numbers),
            auth=partial(_auth, action=alibaba_numbers.PHONE_NUMBERS),
            pages=alibaba_numbers.phone_numbers,
            transform=tree(phone_numbers, noun="phone number"),
            look_up=None,
            probe=alibaba_numbers.probe_phone_numbers,
            scope="instance_id",
            parts=NUMBER_PARTS,
            request_id="x-acs-request-id",
            optional=True,
        ),
    ),
)

"""Alibaba Cloud CCC: IVR contact flows, their numbers, what their Definitions say and lack."""

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from etl.config.settings import Source
from etl.config.values import InstanceIds, Rate, Secret, TimeZone, WebUrl, Word
from etl.extract import alibaba
from etl.extract.acs3 import Signer
from etl.extract.http import Seam, Sign
from etl.extract.verdict import Judge
from etl.providers.declare import Provider, Stream
from etl.transform.alibaba_definition import definition
from etl.transform.tree import tree
from etl.warehouse.model.part import Part
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

_FLOW = {"account_id": "r.instance_id", "flow_id": "r.contact_flow_id"}
_SETTINGS = """CASE WHEN jsonb_typeof(r.properties) = 'object' THEN r.properties - 'position'
    ELSE r.properties END"""

_EACH_SETTING = """jsonb_each(CASE WHEN jsonb_typeof(r.properties) = 'object'
    THEN r.properties - 'position' ELSE '{}' END) AS setting"""

PARTS = (
    Part(
        view="flows",
        table=contact_flows,
        columns={
            **_FLOW,
            "name": "r.name",
            "description": "r.description",
            "flow_type": "r.type",
            "channel": "'voice'",
            "status": "CASE WHEN r.published THEN 'published'"
            " WHEN NOT r.published THEN 'draft' END",
            "is_live": "coalesce(r.published, false)",
            "modified_by": "nullif(r.editor, '')",
            "modified_at": "r.updated_time",
            "created_at": "r.created_time",
        },
        looked_up={"has_unpublished_changes": "coalesce(r.published AND r.draft_id <> '', false)"},
        compared={"draft": "r.draft_id"},
        content="definition",
    ),
    Part(
        view="entry_points",
        table=contact_flow_numbers,
        columns={
            **_FLOW,
            "entry_point_id": "r.number",
            "kind": "'phone'",
            "address": "r.number",
            "address_key": "CASE WHEN r.number NOT LIKE '%*%'"
            " THEN nullif(regexp_replace(r.number, '[^0-9+]', '', 'g'), '') END",
        },
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
        each=f"""{_EACH_SETTING} CROSS JOIN LATERAL
            jsonb_path_query(setting.value, 'strict $.** ? (@.type() == "string")')
            AS string(found)""",
    ),
)

PROVIDER = Provider(
    name="alibaba",
    title="Alibaba Cloud CCC",
    comment="Alibaba Cloud CCC as it is now, in Alibaba's own field names (snake_case).",
    settings=AlibabaSource,
    setup="RAM console → Users → AccessKey.",
    credentials="the access key of a RAM user (or STS), the CCC instance ids",
    rights="read access to Cloud Call Center",
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
    ),
)

"""The tables of Alibaba's contact flows and phone numbers."""

from etl.warehouse.tables import (
    BOOL,
    INT,
    JSON,
    KEY,
    TEXT,
    TIME,
    current,
    field,
    given,
    item,
    scope,
)

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

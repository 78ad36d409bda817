"""Twilio Studio: flows with their revisions, and what the live one does, step by step."""

from etl.extract import twilio_studio
from etl.providers.declare import Detail, Parts, Stream
from etl.providers.twilio.source import auth
from etl.providers.twilio.studio_tables import (
    studio_flow_findings,
    studio_flow_revisions,
    studio_flow_states,
    studio_flow_transitions,
    studio_flows,
    studio_live_findings,
    studio_live_states,
    studio_live_transitions,
)
from etl.transform.tree import tree
from etl.transform.twilio_definition import definitions
from etl.warehouse.model.part import Lookup, Part, host_and_path
from etl.warehouse.tables import family

_FLOW = {"account_id": "r.account_sid", "flow_id": "r.sid"}
_STEP = {**_FLOW, "step_id": "r.name"}
_SETTINGS = """jsonb_each(CASE WHEN jsonb_typeof(r.properties) = 'object' THEN r.properties
    ELSE '{}' END) AS setting"""


# No answer of Twilio's changes the account of a revision, so any version of its row will do.
_REVISION = """(SELECT any_of.account_sid FROM twilio.studio_flow_revisions_history AS any_of
    WHERE any_of.source = r.source AND any_of.sid = r.sid AND any_of.revision = r.revision
    LIMIT 1) AS revision"""

_CONDITIONS = "nullif(r.conditions, '[]')::text"


def _given(setting: str, *types: str) -> str:
    """Return the SQL of a text among the settings of a state of these types; NULL without one."""
    of = ", ".join(f"'{each}'" for each in types)
    value = f"r.properties -> '{setting}'"
    return (
        f"CASE WHEN r.type IN ({of}) AND jsonb_typeof({value}) = 'string'"
        f" THEN nullif({value} #>> '{{}}', '') END"
    )


def _is_dynamic(value: str) -> str:
    """Return the condition that a text is a Liquid template."""
    return f"(strpos({value}, '{{{{') > 0 OR strpos({value}, '{{%') > 0)"


_CALLED = _given("flow_sid", "run-subflow")
_FUNCTION = _given("function_sid", "run-function")
_REFERENCES = f"""(
    SELECT DISTINCT named.kind, {_is_dynamic("named.value")} AS is_dynamic,
        CASE named.kind WHEN 'url' THEN {host_and_path("named.value")} ELSE named.value END
            AS target
    FROM (VALUES
        ('flow', {_CALLED}),
        ('workflow', {_given("workflow", "send-to-flex")}),
        ('workflow', {_given("workflow_sid", "enqueue-call")}),
        ('queue', {_given("queue_name", "enqueue-call")}),
        ('function', {_FUNCTION}),
        ('url', CASE WHEN {_FUNCTION} IS NULL THEN {_given("url", "run-function")} END),
        ('url', {_given("url", "make-http-request")})
    ) AS named(kind, value) WHERE named.value IS NOT NULL
) AS reference"""

FLOWS = Part(
    view="flows",
    table=studio_flows,
    columns={
        **_FLOW,
        "name": "r.friendly_name",
        "status": "r.status",
        "is_live": "r.live_revision IS NOT NULL",
        "modified_by": "r.author_sid",
        "modified_at": "coalesce(r.date_updated, r.date_created)",
        "created_at": "r.date_created",
    },
    looked_up={
        "has_unpublished_changes": "coalesce(r.revision > r.live_revision, false)",
        "published_version": "r.live_revision",
        "newest_version": "r.revision",
    },
    compared={"published_version": "r.live_revision"},
)

PARTS = (
    FLOWS,
    Part(
        view="flow_versions",
        table=studio_flow_revisions,
        columns={
            **_FLOW,
            "version_id": "r.revision::text",
            "version_number": "r.revision",
            "status": "r.status",
            "description": "r.commit_message",
            "modified_by": "r.author_sid",
            "modified_at": "coalesce(r.date_updated, r.date_created)",
        },
    ),
    Part(
        view="flow_steps",
        table=studio_live_states,
        columns={
            **_STEP,
            "step_type": "r.type",
            "name": "r.name",
            "step_number": "r.state_index",
            "properties": "r.properties::text",
            "is_start": "r.is_start",
        },
        compared={"is_start": "r.is_start"},
        members="properties",
        layout=("offset",),
    ),
    Part(
        view="flow_step_links",
        table=studio_live_transitions,
        columns={
            **_STEP,
            "link_number": "r.position",
            "event": "r.event",
            "next_step_id": "nullif(r.next, '')",
            "conditions": _CONDITIONS,
        },
    ),
    Part(
        view="flow_step_properties",
        table=studio_live_states,
        columns={
            **_STEP,
            "step_type": "r.type",
            "step_name": "r.name",
            "property": "setting.key",
            "value": "setting.value #>> '{}'",
        },
        each=_SETTINGS,
    ),
    Part(
        view="flow_findings",
        table=studio_live_findings,
        columns={
            **_FLOW,
            "step_id": "nullif(r.name, '')",
            "finding": "r.finding",
            "detail": "nullif(concat_ws(': ', nullif(r.event, ''), r.detail), '')",
        },
    ),
    Part(
        view="flow_references",
        table=studio_live_states,
        columns={
            **_STEP,
            "kind": "reference.kind",
            "target_id": "reference.target",
            "is_dynamic": "reference.is_dynamic",
        },
        looked_up={"target_name": "CASE reference.kind WHEN 'flow' THEN called.name END"},
        lookup=Lookup(
            "called",
            studio_flows,
            on={"source": "r.source", "sid": _CALLED},
            facts={"name": "max(each.friendly_name)"},
        ),
        each=_REFERENCES,
    ),
    Part(
        view="flow_version_steps",
        table=studio_flow_states,
        columns={
            **_STEP,
            "account_id": "revision.account_sid",
            "version_number": "r.revision",
            "step_type": "r.type",
            "name": "r.name",
            "step_number": "r.state_index",
            "properties": "r.properties::text",
            "is_start": "r.is_start",
        },
        each=_REVISION,
    ),
    Part(
        view="flow_version_links",
        table=studio_flow_transitions,
        columns={
            **_STEP,
            "account_id": "revision.account_sid",
            "version_number": "r.revision",
            "link_number": "r.position",
            "event": "r.event",
            "next_step_id": "nullif(r.next, '')",
            "conditions": _CONDITIONS,
        },
        each=_REVISION,
    ),
    # A flow calls it.
    Part(
        view="flows_reached_otherwise",
        table=studio_live_states,
        where=f"NOT {_is_dynamic(_CALLED)}",
        columns={"account_id": "r.account_sid", "flow_id": _CALLED},
    ),
    # Another flow may call it, by an expression too, or the REST API start it.
    Part(
        view="flows_reached_otherwise",
        table=studio_live_transitions,
        where="r.event IN ('incomingParent', 'incomingRequest') AND r.next <> ''",
        columns=_FLOW,
    ),
    Part(
        view="flow_step_strings",
        table=studio_live_states,
        columns={**_STEP, "property": "setting.key", "value": "string.found #>> '{}'"},
        each=f"""{_SETTINGS} CROSS JOIN LATERAL
            jsonb_path_query(setting.value, 'strict $.** ? (@.type() == "string")')
            AS string(found)""",
    ),
)

STREAMS = (
    Stream(
        name="studio_flows",
        tables=family(studio_flows),
        auth=auth,
        pages=twilio_studio.flows,
        transform=tree(
            studio_flows,
            noun="Studio flow",
            inside=definitions(studio_flow_states, studio_flow_transitions, studio_flow_findings),
        ),
        look_up=twilio_studio.look_up_flow,
        probe=twilio_studio.probe_flows,
        detail=Detail(
            twilio_studio.revisions,
            fingerprint=("revision", "status", "date_updated"),
            fills=("live_revision",),
            parts=Parts(
                studio_flow_revisions,
                content="definition",
                chosen="live_revision",
                shown=(
                    (studio_flow_states, studio_live_states),
                    (studio_flow_transitions, studio_live_transitions),
                    (studio_flow_findings, studio_live_findings),
                ),
            ),
        ),
        modified="date_updated",
        counted=False,
        origin="studio_url",
        parts=PARTS,
        request_id="twilio-request-id",
        optional=True,
    ),
)

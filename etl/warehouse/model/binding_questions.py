"""Questions about bindings: numbers and addresses that lead nowhere, and what legacy flows became.

They are about more than one list of a provider: numbers and addresses are in other lists than the
flows that they lead to.
"""

from etl.warehouse.model.contract import ENTRY_POINT_ID, FLOW_KEY, IDENTITY, Column
from etl.warehouse.model.lists import BINDINGS, LEGACY_FLOWS, SUCCESSORS, UNBOUND_NUMBERS
from etl.warehouse.model.question import NOW, Question, flow_of, same_flow

UNBOUND = Question(
    UNBOUND_NUMBERS.name,
    "Which phone numbers are paid for, and reach nothing?",
    "A call and a message both lead nowhere: to no flow, URL, application or trunk. What is set for"
    " a kind of contact that the number cannot receive does not count.",
    UNBOUND_NUMBERS.columns,
    "SELECT * FROM unbound_numbers",
    """
    SELECT address, name, source, created_at
    FROM callflow.unbound_numbers ORDER BY created_at NULLS FIRST, address LIMIT 20""",
    lists=(UNBOUND_NUMBERS,),
)

DEAD_BINDINGS = Question(
    "dead_bindings",
    "Which numbers and addresses are bound to a flow that does nothing with their contacts?",
    "Whether the flow handles them is read in its live version. A flow that callflow does not have"
    " counts as gone, unless callflow has no flow of the account at all.",
    (
        *IDENTITY,
        ENTRY_POINT_ID,
        Column("kind", "text", "phone, email, name or address."),
        Column("address", "text", "Number, address or name, as the provider sent it."),
        Column("flow_name", "text", "Name of the flow; NULL also where the flow is gone."),
        Column(
            "event", "text", "The event of the flow's start that leads nowhere; NULL: all of them."
        ),
        Column(
            "reason",
            "text",
            "flow_gone: there is no such flow. only_draft: the flow was never published, or is a"
            " draft again. no_path: no step follows its start when such a contact comes in.",
        ),
        FLOW_KEY,
    ),
    f"""
    SELECT {flow_of("e")}, e.entry_point_id, e.kind, e.address, f.name AS flow_name,
        CASE WHEN why.reason = 'no_path' THEN b.event END AS event, why.reason
    FROM callflow.entry_points AS e
    LEFT JOIN callflow.flows AS f ON {same_flow("f", "e")}
    LEFT JOIN bindings AS b ON {same_flow("b", "e")} AND b.entry_point_id = e.entry_point_id
    CROSS JOIN LATERAL (SELECT CASE
        WHEN f.flow_id IS NULL THEN CASE WHEN b.has_flows THEN 'flow_gone' END
        WHEN NOT f.is_live THEN CASE WHEN f.status = 'draft' THEN 'only_draft' END
        WHEN b.event IS NOT NULL
            AND EXISTS (SELECT FROM callflow.flow_steps AS s WHERE {same_flow("s", "f")})
            AND NOT EXISTS (
                SELECT FROM callflow.flow_steps AS start
                JOIN callflow.flow_step_links AS l
                    ON {same_flow("l", "start")} AND l.step_id = start.step_id
                JOIN callflow.flow_steps AS s
                    ON {same_flow("s", "start")} AND s.step_id = l.next_step_id
                WHERE {same_flow("start", "f")} AND start.is_start AND l.event = b.event)
            THEN 'no_path' END AS reason) AS why
    WHERE e.flow_id IS NOT NULL AND why.reason IS NOT NULL""",
    """
    SELECT reason, event, address, flow_name, source
    FROM callflow.dead_bindings ORDER BY reason, address LIMIT 20""",
    lists=(BINDINGS,),
)

BROKEN_REFERENCES = Question(
    "broken_references",
    "Which flows call a flow that is gone?",
    "What an expression decides while a contact is in the flow is not listed: nothing says which"
    " flow that is.",
    (
        *IDENTITY,
        Column("flow_name", "text", "Name of the flow that calls."),
        Column("step_id", "id", "The step that calls."),
        Column("target_id", "id", "Id of the flow that is gone."),
        Column("last_name", "text", "Its last name; NULL: callflow never had it."),
        FLOW_KEY,
    ),
    f"""
    SELECT {flow_of("r")}, f.name AS flow_name, r.step_id, r.target_id, h.name AS last_name
    FROM callflow.flow_references AS r
    LEFT JOIN callflow.flows AS f ON {same_flow("f", "r")}
    LEFT JOIN LATERAL (
        SELECT each.name FROM callflow.flows_history AS each
        WHERE {same_flow("each", "r").replace("r.flow_id", "r.target_id")}
            AND each.valid_from <= {NOW} ORDER BY each.valid_from DESC LIMIT 1) AS h ON true
    WHERE r.kind = 'flow' AND NOT r.is_dynamic AND NOT EXISTS (
        SELECT FROM callflow.flows AS called
        WHERE {same_flow("called", "r").replace("r.flow_id", "r.target_id")})""",
    """
    SELECT flow_name, step_id, coalesce(last_name, target_id) AS gone, source
    FROM callflow.broken_references ORDER BY flow_name, step_id LIMIT 20""",
)

LEGACY_BRIDGE = Question(
    "legacy_bridge",
    "Which legacy flow became which address, and which has no successor?",
    "One row per legacy flow, matched by account, channel and identity; how a number is spelt, a"
    " prefix such as whatsapp: and the case do not count. The provider does not say what replaced"
    " what, and for some channels there are no addresses.",
    (
        *IDENTITY,
        *(c for c in LEGACY_FLOWS.columns if c.name in ("name", "status", "channel")),
        Column("contact_identity", "text", "Number, address or name that it answers for."),
        Column("address_id", "id", "Id of the address that replaced it; NULL: none did."),
        *(c for c in SUCCESSORS.columns if c.name in ("address_name", "address_type")),
        Column("is_enabled", "boolean", "Whether the address starts something."),
        *(c for c in SUCCESSORS.columns if c.name.startswith("target")),
        FLOW_KEY,
    ),
    f"""
    SELECT {flow_of("f")}, f.name, f.status, f.channel, f.contact_identity, a.address_id,
        a.address_name, a.address_type, a.is_enabled, a.target_kind, a.target
    FROM legacy_flows AS f
    LEFT JOIN (
        SELECT DISTINCT ON (s.provider, s.source, account, s.address_type, s.identity_key)
            s.*, coalesce(s.account_id, '') AS account
        FROM successors AS s
        ORDER BY s.provider, s.source, account, s.address_type, s.identity_key,
            s.is_enabled DESC, s.address_id
    ) AS a ON a.provider = f.provider AND a.source = f.source
        AND a.account = coalesce(f.account_id, '')
        AND a.address_type = f.address_type AND a.identity_key = f.identity_key""",
    """
    SELECT name, channel, contact_identity, address_id, target_kind, target
    FROM callflow.legacy_bridge ORDER BY address_id NULLS FIRST, name LIMIT 20""",
    lists=(LEGACY_FLOWS, SUCCESSORS),
)

QUESTIONS = (UNBOUND, DEAD_BINDINGS, BROKEN_REFERENCES, LEGACY_BRIDGE)

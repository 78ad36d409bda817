"""Questions about what is there: which contacts reach which flow, and in which state flows are."""

from etl.warehouse.model.contract import (
    ENTRY_POINT_ID,
    FLOW_KEY,
    IDENTITY,
    PROVIDER,
    SOURCE,
    TARGET,
    TARGET_KIND,
    Column,
)
from etl.warehouse.model.lists import (
    FLEX_FLOWS_TO_REVIEW,
    FLOW_STEP_STRINGS,
    FLOWS_REACHED_OTHERWISE,
)
from etl.warehouse.model.question import Question, age_days, flow_of, same_flow

_NAME = Column("name", "text", "Name of the flow.")
_FLOW_NAME = Column("flow_name", "text", "Name of the flow.")
_STATUS = Column("status", "text", "Status of the flow, as in callflow.flows.")
_CHANNEL = Column("channel", "text", "voice, video, messaging, email, …")
_MODIFIED_AT = Column(
    "modified_at", "timestamptz", "When it was changed last, by the provider's clock."
)
_ADDRESS = Column("address", "text", "Number, address or name, as the provider sent it.")
_KIND = Column("kind", "text", "phone, email, name or address; NULL where nothing is given.")
_AGE = Column("age_days", "integer", "Whole days since then, up to callflow.at if that is set.")

NUMBER_MAP = Question(
    "number_map",
    "Which number, e-mail address or name reaches which flow, and is that flow live?",
    "One row per entry point. The flow's name and status are NULL if it leads to something else"
    " (target_kind says what), to nothing, or to a flow that callflow does not have. Compare"
    " addresses by address_key, which is NULL for a name and for a number that the provider masks.",
    (
        *IDENTITY,
        _ADDRESS,
        Column("address_key", "id", "The address in a form that compares, across providers."),
        _KIND,
        _FLOW_NAME,
        _STATUS,
        Column("is_live", "boolean", "Whether the flow handles contacts now. Never NULL."),
        ENTRY_POINT_ID,
        Column("language", "text", "Language tag, such as en-US."),
        FLOW_KEY,
        TARGET_KIND,
        TARGET,
    ),
    f"""
    SELECT {flow_of("e")}, e.address, e.address_key, e.kind, f.name AS flow_name, f.status,
        coalesce(f.is_live, false) AS is_live, e.entry_point_id, e.language, e.target_kind, e.target
    FROM callflow.entry_points AS e LEFT JOIN callflow.flows AS f ON {same_flow("f", "e")}""",
    """
    SELECT address, flow_name, status, is_live, source
    FROM callflow.number_map WHERE kind = 'phone' ORDER BY is_live DESC, address_key LIMIT 20""",
)

SHARED_ADDRESSES = Question(
    "shared_addresses",
    "Which number or address leads to several live flows?",
    "Spelling does not count, nor does a prefix such as whatsapp:. Masked numbers are left out:"
    " they may be different ones.",
    (
        Column("address_key", "id", "The address in a form that compares, across providers."),
        Column("flow_count", "bigint", "How many live flows it leads to."),
        Column("flow_names", "text", "Their names, or the id of a flow without a name."),
        Column("sources", "text", "The sources that have these flows."),
    ),
    # Flows are made distinct first: one flow may have an address twice.
    f"""
    SELECT address_key, count(*) AS flow_count,
        string_agg(coalesce(name, flow_id), ', ' ORDER BY name, flow_id) AS flow_names,
        string_agg(DISTINCT source, ', ' ORDER BY source) AS sources
    FROM (SELECT DISTINCT e.address_key, {flow_of("f")}, f.name
          FROM callflow.entry_points AS e JOIN callflow.flows AS f ON {same_flow("f", "e")}
          WHERE f.is_live AND e.address_key IS NOT NULL) AS reached
    GROUP BY address_key HAVING count(*) > 1""",
    """
    SELECT address_key, flow_count, flow_names, sources
    FROM callflow.shared_addresses ORDER BY flow_count DESC, address_key""",
)

UNREACHED_FLOWS = Question(
    "unreached_flows",
    "Which live flows does nothing reach?",
    "They have no entry point. Flows that are reached in another way, from other flows or from a"
    " web page, are not listed.",
    (
        *IDENTITY,
        _NAME,
        Column("flow_type", "text", "Type of the flow, in the provider's word."),
        _CHANNEL,
        _MODIFIED_AT,
        FLOW_KEY,
    ),
    f"""
    SELECT {flow_of("f")}, f.name, f.flow_type, f.channel, f.modified_at
    FROM callflow.flows AS f
    WHERE f.is_live
        AND NOT EXISTS (SELECT FROM callflow.entry_points AS e WHERE {same_flow("e", "f")})
        AND NOT EXISTS (SELECT FROM flows_reached_otherwise AS o WHERE {same_flow("o", "f")})""",
    """
    SELECT provider, source, name, channel, modified_at
    FROM callflow.unreached_flows ORDER BY modified_at NULLS FIRST LIMIT 20""",
    lists=(FLOWS_REACHED_OTHERWISE,),
)

ENTRY_POINTS_NOT_LIVE = Question(
    "entry_points_not_live",
    "Which entry points lead to a flow that is not live?",
    "Whoever contacts them may reach no one. Of a flow in the status debugging, the provider does"
    " not say whether it answers.",
    (*IDENTITY, _ADDRESS, _KIND, _FLOW_NAME, _STATUS, FLOW_KEY),
    f"""
    SELECT {flow_of("e")}, e.address, e.kind, f.name AS flow_name, f.status
    FROM callflow.entry_points AS e JOIN callflow.flows AS f ON {same_flow("f", "e")}
    WHERE NOT f.is_live""",
    """
    SELECT status, kind, address, flow_name, source
    FROM callflow.entry_points_not_live ORDER BY status, address LIMIT 20""",
)

UNPUBLISHED_CHANGES = Question(
    "unpublished_changes",
    "Which live flows were edited since they were published?",
    "What was edited does not handle contacts yet. Versions are NULL where the provider does not"
    " number them.",
    (
        *IDENTITY,
        _NAME,
        Column("published_version", "integer", "Number of the newest published version."),
        Column("newest_version", "integer", "Number of the newest version."),
        Column(
            "edited_at",
            "timestamptz",
            "When the newer versions were edited last, or else the flow, by the provider's clock.",
        ),
        _AGE,
        FLOW_KEY,
    ),
    f"""
    SELECT {flow_of("f")}, f.name, f.published_version, f.newest_version, edited.at AS edited_at,
        {age_days("edited.at")} AS age_days
    FROM callflow.flows AS f
    LEFT JOIN LATERAL (
        SELECT max(v.modified_at) AS at FROM callflow.flow_versions AS v
        WHERE {same_flow("v", "f")} AND v.version_number > f.published_version) AS newer ON true
    CROSS JOIN LATERAL (SELECT coalesce(newer.at, f.modified_at) AS at) AS edited
    WHERE f.has_unpublished_changes""",
    """
    SELECT name, source, published_version, newest_version, age_days
    FROM callflow.unpublished_changes ORDER BY age_days DESC LIMIT 20""",
)

STALE_DRAFTS = Question(
    "stale_drafts",
    "Which flows are drafts, and since when has no one edited them?",
    "Drafts of every age are listed: those that were never published, and those that were"
    " published once and are drafts again.",
    (*IDENTITY, _NAME, _MODIFIED_AT, _AGE, FLOW_KEY),
    f"""
    SELECT {flow_of("f")}, f.name, f.modified_at, {age_days("f.modified_at")} AS age_days
    FROM callflow.flows AS f WHERE f.status = 'draft'""",
    """
    SELECT name, source, modified_at, age_days
    FROM callflow.stale_drafts WHERE age_days > 90 ORDER BY age_days DESC LIMIT 20""",
)

FLOWS_BY_STATUS = Question(
    "flows_by_status",
    "How many flows are there, by source, channel and status?",
    "A NULL channel or status is a row like the others.",
    (
        PROVIDER,
        SOURCE,
        _CHANNEL,
        _STATUS,
        Column("flow_count", "bigint", "How many flows."),
    ),
    """
    SELECT provider, source, channel, status, count(*) AS flow_count
    FROM callflow.flows GROUP BY provider, source, channel, status""",
    """
    SELECT provider, status, sum(flow_count) AS flow_count
    FROM callflow.flows_by_status GROUP BY provider, status ORDER BY provider, flow_count DESC""",
)

FLOWS_BY_SOURCE = Question(
    "flows_by_source",
    "Which sources have a flow of this name, and which lack it?",
    "One row per provider and name; case and spaces do not count. Flows without a name are left"
    " out.",
    (
        PROVIDER,
        Column("name", "text", "The name, in one of its spellings."),
        Column("source_count", "bigint", "How many of the provider's sources have such a flow."),
        Column("of_sources", "bigint", "How many sources of the provider have any flow."),
        Column("sources", "text", "The sources that have such a flow."),
    ),
    # Besides ASCII spaces, the ones of other scripts: whether \s covers them depends on the locale.
    r"""
    SELECT named.provider, min(named.name) AS name, count(*) AS source_count, each.of_sources,
        string_agg(named.source, ', ' ORDER BY named.source) AS sources
    FROM (SELECT provider, source, spelling.name_key, min(name) AS name
          FROM callflow.flows CROSS JOIN LATERAL (SELECT lower(
              regexp_replace(name, '[\s\u00a0\u202f\u3000]+', '', 'g')) AS name_key) AS spelling
          WHERE spelling.name_key <> '' GROUP BY provider, source, spelling.name_key) AS named
    JOIN (SELECT provider, count(DISTINCT source) AS of_sources
          FROM callflow.flows GROUP BY provider) AS each USING (provider)
    GROUP BY named.provider, named.name_key, each.of_sources""",
    """
    SELECT provider, name, source_count, of_sources, sources
    FROM callflow.flows_by_source ORDER BY of_sources - source_count DESC, name LIMIT 20""",
)

TO_REVIEW = Question(
    FLEX_FLOWS_TO_REVIEW.name,
    "Which Flex Flows are disabled, or reuse a channel that no janitor ends?",
    "The janitor counts as off where the provider does not say that it is on.",
    (*FLEX_FLOWS_TO_REVIEW.columns, FLOW_KEY),
    "SELECT * FROM flex_flows_to_review",
    """
    SELECT name, status, long_lived, janitor_enabled, reason
    FROM callflow.flex_flows_to_review ORDER BY reason, name LIMIT 20""",
    lists=(FLEX_FLOWS_TO_REVIEW,),
)

FLOW_USES = Question(
    "flow_uses",
    "Which flow is used by a step of which other flow?",
    "Found where a setting of a step is the id of another flow of the same account, also inside"
    " lists and objects.",
    (
        *IDENTITY,
        Column("step_id", "id", "The step that names the other flow."),
        Column("property", "text", "The setting that names it."),
        Column("used_flow_id", "id", "Id of the flow that is used."),
        Column("used_flow_name", "text", "Name of the flow that is used."),
        FLOW_KEY,
    ),
    # Made distinct here, for a setting may name a flow twice: to do that for each setting keeps
    # Postgres from a parallel plan.
    f"""
    SELECT DISTINCT {flow_of("s")}, s.step_id, s.property, f.flow_id AS used_flow_id,
        f.name AS used_flow_name
    FROM flow_step_strings AS s
    JOIN callflow.flows AS f ON f.provider = s.provider AND f.source = s.source
        AND f.account_id IS NOT DISTINCT FROM s.account_id
        AND f.flow_id = s.value AND f.flow_id <> s.flow_id""",
    """
    SELECT used_flow_name, flow_id AS used_by, step_id, property
    FROM callflow.flow_uses ORDER BY used_flow_name, used_by LIMIT 20""",
    lists=(FLOW_STEP_STRINGS,),
)

QUESTIONS = (
    NUMBER_MAP,
    SHARED_ADDRESSES,
    UNREACHED_FLOWS,
    ENTRY_POINTS_NOT_LIVE,
    UNPUBLISHED_CHANGES,
    STALE_DRAFTS,
    FLOWS_BY_STATUS,
    FLOWS_BY_SOURCE,
    TO_REVIEW,
    FLOW_USES,
)

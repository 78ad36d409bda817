"""The questions that `callflow demo` answers at the end: title → SQL."""

from collections.abc import Mapping

QUESTIONS: Mapping[str, str] = {
    "Who changed what?": """
        SELECT concat_ws(' ',
                CASE WHEN entity <> 'flow' THEN replace(entity, '_', ' ') || ' ' || entity_name END,
                CASE WHEN field IS NULL THEN change
                    WHEN field = 'name' THEN 'name: was ' || old_value
                    ELSE concat(field, ': ', old_value, ' → ', new_value) END) AS change,
            flow_name AS flow, coalesce(left(modified_by, 8) || '…', '') AS by
        FROM callflow.changes WHERE entity IN ('flow', 'entry_point', 'step')
        ORDER BY provider, flow_name, entity, change, field""",
    "Which numbers still reach a flow that is not live?": """
        SELECT address AS number, flow_name AS flow, status, provider FROM (
            SELECT *, row_number() OVER (PARTITION BY provider ORDER BY address, flow_name) AS n
            FROM callflow.entry_points_not_live WHERE kind = 'phone'
        ) AS each WHERE n <= 3 ORDER BY provider, n""",
    "Which numbers are paid for and reach nothing?": """
        SELECT address AS number, coalesce(name, '') AS name, created_at::date AS created, provider
        FROM (
            SELECT *, row_number() OVER (PARTITION BY provider ORDER BY created_at, address) AS n
            FROM callflow.unbound_numbers
        ) AS each WHERE n <= 2 ORDER BY provider, n""",
    "Which numbers reach which live flow?": """
        SELECT address AS number, flow_name AS flow, provider FROM (
            SELECT *, row_number() OVER (PARTITION BY provider ORDER BY address_key, flow_name) AS n
            FROM callflow.number_map
            WHERE is_live AND kind = 'phone' AND address_key IS NOT NULL
        ) AS each WHERE n <= 3 ORDER BY provider, n""",
}

CHANGED = """
    SELECT flow_key, min(observed_at) AS at FROM callflow.changes
    WHERE flow_key = (SELECT flow_key FROM callflow.changes WHERE entity = 'step'
        ORDER BY observed_at DESC, flow_key LIMIT 1)
    GROUP BY flow_key"""
"""The flow whose inside was changed last, and when it was changed first."""

DRAWN = """
    SELECT steps.flow_key FROM callflow.flow_steps AS steps
    GROUP BY steps.flow_key HAVING count(*) > 2
    ORDER BY
        EXISTS (SELECT FROM callflow.flow_references AS used
            WHERE used.flow_key = steps.flow_key) DESC,
        EXISTS (SELECT FROM callflow.flow_findings AS found
            WHERE found.flow_key = steps.flow_key
            AND found.finding IN ('dead_end', 'broken_link', 'unreachable')) DESC,
        count(*), steps.flow_key
    LIMIT 1"""
"""A small flow that the demo draws: one that calls something outside itself, such as a queue or a
function, and has a fault inside, if there is one like that."""

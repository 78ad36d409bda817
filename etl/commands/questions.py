"""The questions that `callflow demo` answers at the end: title → SQL."""

from collections.abc import Mapping

QUESTIONS: Mapping[str, str] = {
    "Which numbers reach which live flow?": """
        SELECT address AS number, flow_name AS flow, provider FROM (
            SELECT *, row_number() OVER (PARTITION BY provider ORDER BY address_key, flow_name) AS n
            FROM callflow.number_map
            WHERE is_live AND kind = 'phone' AND address_key IS NOT NULL
        ) AS each WHERE n <= 3 ORDER BY provider, n""",
    "Which entry points lead to a flow that is not live?": """
        SELECT address, flow_name AS flow, status, provider FROM (
            SELECT *, row_number() OVER (PARTITION BY provider ORDER BY address, flow_name) AS n
            FROM callflow.entry_points_not_live
        ) AS each WHERE n <= 2 ORDER BY provider, n""",
    "Who changed what between the two syncs?": """
        SELECT concat_ws(' ', change, field || ':', old_value || ' → ' || new_value) AS change,
            flow_name AS flow, provider
        FROM callflow.changes ORDER BY provider, flow_name, field""",
}

FAULTY = """
    SELECT findings.flow_key FROM callflow.flow_findings AS findings
    JOIN callflow.flow_steps AS steps USING (flow_key)
    WHERE findings.finding IN ('dead_end', 'broken_link', 'unreachable')
    GROUP BY findings.flow_key ORDER BY count(DISTINCT steps.step_id), findings.flow_key LIMIT 1"""
"""A small flow with a fault inside, which the demo draws."""

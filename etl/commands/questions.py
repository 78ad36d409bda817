"""The questions that `callflow demo` answers at the end: title → SQL."""

from collections.abc import Mapping

QUESTIONS: Mapping[str, str] = {
    "Which numbers reach which flow?": """
        (SELECT e.entry_number AS number, f.flow_name AS flow, f.status, f.source
         FROM zoom.entry_points e JOIN zoom.flows f USING (source, flow_id)
         WHERE e.entry_number IS NOT NULL ORDER BY 1 LIMIT 5)
        UNION ALL
        (SELECT n.number, f.name, CASE WHEN f.published THEN 'published' ELSE 'draft' END, f.source
         FROM alibaba.contact_flow_numbers n
         JOIN alibaba.contact_flows f USING (source, instance_id, contact_flow_id)
         ORDER BY 1 LIMIT 4)""",
    "Which published flows have edits that are not published yet?": """
        SELECT f.flow_name AS flow, max(v.flow_version) FILTER (WHERE v.flow_version_status =
               'published') AS live, max(v.flow_version) AS newest,
               max(v.flow_version_last_modified_time) AS edited
        FROM zoom.flows f JOIN zoom.flow_versions v USING (source, flow_id)
        WHERE f.status = 'published' GROUP BY f.source, f.flow_id, f.flow_name
        HAVING max(v.flow_version) > max(v.flow_version) FILTER (WHERE v.flow_version_status =
               'published')
        ORDER BY edited DESC LIMIT 6""",
    "How many chat channels did each Flex Flow open?": """
        SELECT coalesce(f.friendly_name, '(deleted) ' || c.flex_flow_sid) AS flex_flow,
               f.channel_type, count(*) AS channels, max(c.date_created) AS newest
        FROM twilio.channels c LEFT JOIN twilio.flex_flows f
             ON f.source = c.source AND f.sid = c.flex_flow_sid
        GROUP BY 1, 2 ORDER BY channels DESC LIMIT 6""",
    "What was changed between the two syncs?": """
        SELECT h.flow_name AS before, coalesce(f.flow_name, '(deleted)') AS now,
               h.status AS status_before,
               to_char(h.valid_to, 'HH24:MI') AS seen
        FROM zoom.flows_history h LEFT JOIN zoom.flows f USING (source, flow_id)
        WHERE NOT h.is_current ORDER BY h.valid_to, before LIMIT 6""",
}

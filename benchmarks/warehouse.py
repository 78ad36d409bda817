"""Measure how fast the schema callflow answers, as an analyst's role over TCP.

    python benchmarks/warehouse.py [--scale 1.0] [--plans DIR]
    CALLFLOW_PG_BIN=/usr/lib/postgresql/15/bin python benchmarks/warehouse.py

Scale 1 is 1,000,000 channels, 20,000 Zoom flows with 5 versions and 3 entry points each, 2,500 Flex
Flows, 9,000 Alibaba flows of 20 activities, 5,000 Studio flows of 12 states, 20,000 phone numbers,
10,000 addresses, and 10 closed versions of each flow over 400 days. The rows are made in SQL, in an
embedded Postgres with its ordinary settings, which is deleted afterwards. Each query runs three
times and fetches all of its rows; the best run counts. A query that takes longer than its limit is
marked. `--plans` keeps EXPLAIN ANALYZE of each query.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from etl.sync.rebuild import rebuild_changes
from etl.warehouse import embedded, grant, migrate
from etl.warehouse.connect import connect
from etl.warehouse.roles import READER

AGGREGATE, FLOW, LOG = 1000, 50, 5
"""Limits in milliseconds: aggregates and filtered reads, one flow, the changes of one flow."""

# A version `v` back of row `g` was valid from AGE to the AGE of the version after it.
AGE = "now() - ({v} * 36 + g % 30) * interval '1 day'"
CLOSED = f"{AGE.format(v='v')}, {AGE.format(v='(v - 1)')}"
NOW = AGE.format(v="0")

ROWS = f"""
INSERT INTO zoom.flows (source, flow_id, flow_name, channel, status, modified_by,
    last_modified_time, valid_from)
SELECT 'zoom_' || g % 2, 'F' || lpad(g::text, 21, '0'), 'Flow ' || g % 7000, 'voice',
    (ARRAY['published', 'draft', 'archived', 'published'])[1 + g % 4], 'u' || g % 50, {NOW}, {NOW}
FROM generate_series(1, {{flows}}) AS g;

INSERT INTO history.zoom_flows (source, flow_id, flow_name, channel, status, modified_by,
    last_modified_time, valid_from, valid_to)
SELECT 'zoom_' || g % 2, 'F' || lpad(g::text, 21, '0'), 'Flow ' || g % 7000 || ' v' || v, 'voice',
    'published', 'u' || v % 50, {AGE.format(v="v")}, {CLOSED}
FROM generate_series(1, {{flows}}) AS g, generate_series(1, 10) AS v;

INSERT INTO zoom.flow_versions (source, flow_id, flow_version_id, flow_version,
    flow_version_status, valid_from)
SELECT 'zoom_' || g % 2, 'F' || lpad(g::text, 21, '0'), 'V' || n, n,
    CASE WHEN n < 5 THEN 'published' ELSE 'draft' END, {NOW}
FROM generate_series(1, {{flows}}) AS g, generate_series(1, 5) AS n;

INSERT INTO zoom.entry_points (source, flow_id, entry_id, entry_number, entry_language, valid_from)
SELECT 'zoom_' || g % 2, 'F' || lpad(g::text, 21, '0'), 'E' || n,
    '+4420' || lpad((g * 3 + n)::text, 8, '0'), 'en-US', {NOW}
FROM generate_series(1, {{flows}}) AS g, generate_series(1, 3) AS n;

INSERT INTO twilio.flex_flows (source, sid, account_sid, friendly_name, channel_type,
    contact_identity, enabled, long_lived, janitor_enabled, integration_type, date_updated,
    valid_from)
SELECT 'twilio', 'FO' || md5(g::text), 'AC1', 'Flex ' || g,
    (ARRAY['web', 'sms', 'whatsapp'])[1 + g % 3],
    '+1555' || lpad(g::text, 7, '0'), g % 5 > 0, g % 3 = 0, g % 2 = 0, 'studio', {NOW}, {NOW}
FROM generate_series(1, {{flex_flows}}) AS g;

INSERT INTO history.twilio_flex_flows (source, sid, account_sid, friendly_name, channel_type,
    contact_identity, enabled, integration_type, date_updated, valid_from, valid_to)
SELECT 'twilio', 'FO' || md5(g::text), 'AC1', 'Flex ' || g || ' v' || v, 'sms',
    '+1555' || lpad(g::text, 7, '0'), true, 'studio', {AGE.format(v="v")}, {CLOSED}
FROM generate_series(1, {{flex_flows}}) AS g, generate_series(1, 10) AS v;

INSERT INTO twilio.channels (source, sid, account_sid, flex_flow_sid, user_sid, date_created,
    date_updated, valid_from)
SELECT 'twilio', 'CH' || md5(g::text), 'AC1', 'FO' || md5((g % ({{flex_flows}} + 100))::text),
    'US' || g, now() - g % 90 * interval '1 day', now(), now() - g % 90 * interval '1 day'
FROM generate_series(1, {{channels}}) AS g;

INSERT INTO history.twilio_channels (source, sid, account_sid, flex_flow_sid, user_sid,
    date_created, date_updated, valid_from, valid_to)
SELECT source, sid, account_sid, flex_flow_sid, user_sid, date_created, date_updated,
    valid_from - interval '1 day', valid_from
FROM twilio.channels;

INSERT INTO alibaba.contact_flows (source, instance_id, contact_flow_id, name, type, definition,
    draft_id, published, editor, updated_time, valid_from)
SELECT 'alibaba', 'ccc' || g % 3, 'cf' || g, 'IVR ' || g,
    (ARRAY['MAIN_FLOW', 'SUB_FLOW', 'MAIN_FLOW'])[1 + g % 3], repeat(md5(g::text), 100),
    CASE WHEN g % 4 = 0 THEN 'draft' ELSE '' END, g % 5 > 0, 'editor' || g % 20, {NOW}, {NOW}
FROM generate_series(1, {{contact_flows}}) AS g;

INSERT INTO history.alibaba_contact_flows (source, instance_id, contact_flow_id, name, type,
    definition, draft_id, published, editor, updated_time, valid_from, valid_to)
SELECT 'alibaba', 'ccc' || g % 3, 'cf' || g, 'IVR ' || g, 'MAIN_FLOW',
    repeat(md5((g * v)::text), 100), '', true, 'editor' || v, {AGE.format(v="v")}, {CLOSED}
FROM generate_series(1, {{contact_flows}}) AS g, generate_series(1, 10) AS v;

INSERT INTO alibaba.contact_flow_numbers (source, instance_id, contact_flow_id, number, valid_from)
SELECT 'alibaba', 'ccc' || g % 3, 'cf' || g, '0571' || lpad(g::text, 8, '0'), {NOW}
FROM generate_series(1, {{contact_flows}}) AS g WHERE g % 3 <> 1;

INSERT INTO alibaba.contact_flow_activities (source, instance_id, contact_flow_id, activity_id,
    type, name, node_index, properties, valid_from)
SELECT 'alibaba', 'ccc' || g % 3, 'cf' || g, 'a' || n,
    (ARRAY['PLAY_SAY', 'MENU', 'TRANSFER'])[1 + n % 3], 'Step ' || n, n, jsonb_build_object(
        'position', jsonb_build_object('x', n, 'y', g), 'say', 'Hello ' || g,
        'flow', CASE WHEN n = 7 THEN 'cf' || (g + 3) END), {NOW}
FROM generate_series(1, {{contact_flows}}) AS g, generate_series(1, 20) AS n;

INSERT INTO history.alibaba_contact_flow_activities (source, instance_id, contact_flow_id,
    activity_id, type, name, node_index, properties, valid_from, valid_to)
SELECT 'alibaba', 'ccc' || g % 3, 'cf' || g, 'a' || v, 'PLAY_SAY', 'Step ' || v, v,
    jsonb_build_object('say', 'Hello ' || g || ' v' || v), {CLOSED}
FROM generate_series(1, {{contact_flows}}) AS g, generate_series(1, 10) AS v;

INSERT INTO alibaba.contact_flow_transitions (source, instance_id, contact_flow_id, activity_id,
    position, event, next_activity_id, valid_from)
SELECT 'alibaba', 'ccc' || g % 3, 'cf' || g, 'a' || n, p, 'event ' || p, 'a' || (n + p) % 20, {NOW}
FROM generate_series(1, {{contact_flows}}) AS g, generate_series(1, 20) AS n,
    generate_series(0, 1) AS p WHERE (n + p) % 4 > 0;

INSERT INTO alibaba.contact_flow_findings (source, instance_id, contact_flow_id, activity_id,
    finding, event, valid_from)
SELECT 'alibaba', 'ccc' || g % 3, 'cf' || g, 'a' || n, 'loop', '', {NOW}
FROM generate_series(1, {{contact_flows}}) AS g, generate_series(1, 3) AS n WHERE g % 10 = 0;

INSERT INTO twilio.studio_flows (source, sid, account_sid, author_sid, friendly_name, status,
    revision, live_revision, date_created, date_updated, valid_from)
SELECT 'twilio', 'FW' || md5(g::text), 'AC1', 'US' || g % 50, 'Studio ' || g,
    CASE WHEN g % 5 = 0 THEN 'draft' ELSE 'published' END, 12,
    CASE WHEN g % 7 > 0 THEN 12 - g % 2 END, {NOW}, {NOW}, {NOW}
FROM generate_series(1, {{studio_flows}}) AS g;

INSERT INTO history.twilio_studio_flows (source, sid, account_sid, author_sid, friendly_name,
    status, revision, live_revision, date_created, date_updated, valid_from, valid_to)
SELECT 'twilio', 'FW' || md5(g::text), 'AC1', 'US' || v, 'Studio ' || g, 'published', 11 - v,
    11 - v, {AGE.format(v="v")}, {AGE.format(v="v")}, {CLOSED}
FROM generate_series(1, {{studio_flows}}) AS g, generate_series(1, 10) AS v;

INSERT INTO twilio.studio_flow_revisions (source, sid, revision, account_sid, status, definition,
    date_created, valid_from)
SELECT 'twilio', 'FW' || md5(g::text), n, 'AC1', 'published', repeat(md5(g::text), 100), {NOW},
    {NOW}
FROM generate_series(1, {{studio_flows}}) AS g, generate_series(1, 12) AS n;

INSERT INTO twilio.studio_flow_states (source, sid, revision, name, type, is_start, state_index,
    properties, valid_from)
SELECT 'twilio', 'FW' || md5(g::text), n, 's' || i, CASE i WHEN 0 THEN 'trigger'
    WHEN 5 THEN 'run-subflow' WHEN 6 THEN 'make-http-request' ELSE 'say-play' END, i = 0, i,
    CASE i WHEN 5 THEN jsonb_build_object('flow_sid', 'FW' || md5((g + g % 20)::text))
    WHEN 6 THEN jsonb_build_object('url', 'https://example.com/' || g || '?key=1', 'method', 'GET')
    ELSE jsonb_build_object('say', 'Hello ' || g, 'voice', 'alice', 'loop', i) END, {NOW}
FROM generate_series(1, {{studio_flows}}) AS g, generate_series(11, 12) AS n,
    generate_series(0, 11) AS i;

INSERT INTO twilio.studio_flow_transitions (source, sid, revision, name, position, event, next,
    valid_from)
SELECT source, sid, revision, name, p,
    CASE WHEN is_start THEN (ARRAY['incomingMessage', 'incomingCall', 'incomingRequest'])[p + 1]
    ELSE 'event ' || p END, CASE WHEN p < 2 THEN 's' || state_index + 1 END, valid_from
FROM twilio.studio_flow_states, generate_series(0, 2) AS p;

INSERT INTO twilio.studio_live_states (source, sid, name, type, is_start, state_index, properties,
    account_sid, valid_from)
SELECT s.source, s.sid, s.name, s.type, s.is_start, s.state_index, s.properties, 'AC1',
    s.valid_from
FROM twilio.studio_flow_states AS s JOIN twilio.studio_flows AS f USING (source, sid)
WHERE s.revision = f.live_revision;

INSERT INTO twilio.studio_live_transitions (source, sid, name, position, event, next, account_sid,
    valid_from)
SELECT t.source, t.sid, t.name, t.position, t.event, t.next, 'AC1', t.valid_from
FROM twilio.studio_flow_transitions AS t JOIN twilio.studio_flows AS f USING (source, sid)
WHERE t.revision = f.live_revision;

INSERT INTO twilio.phone_numbers (source, sid, account_sid, phone_number, friendly_name,
    capability_voice, capability_sms, voice_url, voice_studio_flow_sid, sms_url, valid_from)
SELECT 'twilio', 'PN' || md5(g::text), 'AC1', '+1666' || lpad(g::text, 7, '0'), 'Number ' || g,
    true, g % 3 > 0, 'https://example.com/' || g,
    CASE WHEN g % 4 = 0 THEN 'FW' || md5((g % ({{studio_flows}} + 50))::text) END,
    CASE WHEN g % 2 = 0 THEN 'https://example.com/' || g END, {NOW}
FROM generate_series(1, {{phone_numbers}}) AS g;

INSERT INTO twilio.addresses (source, sid, account_sid, type, address, friendly_name,
    auto_creation_enabled, auto_creation_type, studio_flow_sid, webhook_url, valid_from)
SELECT 'twilio', 'IG' || md5(g::text), 'AC1', (ARRAY['sms', 'whatsapp'])[1 + g % 2],
    CASE g % 2 WHEN 0 THEN '' ELSE 'whatsapp:' END || '+1555' || lpad(g::text, 7, '0'),
    'Address ' || g, g % 5 > 0, CASE WHEN g % 3 = 0 THEN 'webhook' ELSE 'studio' END,
    CASE WHEN g % 3 > 0 THEN 'FW' || md5((g % ({{studio_flows}} + 50))::text) END,
    CASE WHEN g % 3 = 0 THEN 'https://example.com/' || g END, {NOW}
FROM generate_series(1, {{addresses}}) AS g;

INSERT INTO etl.streams (source, stream, provider, known_since, last_success_at, last_attempt_at)
SELECT source, stream, provider, (SELECT jsonb_object_agg(scope, now() - interval '500 days')
    FROM unnest(scopes) AS scope), now(), now()
FROM (VALUES ('zoom_0', 'flows', 'zoom', ARRAY['']), ('zoom_1', 'flows', 'zoom', ARRAY['']),
    ('twilio', 'flex_flows', 'twilio', ARRAY['']), ('twilio', 'channels', 'twilio', ARRAY['']),
    ('twilio', 'studio_flows', 'twilio', ARRAY['']), ('twilio', 'addresses', 'twilio', ARRAY['']),
    ('twilio', 'phone_numbers', 'twilio', ARRAY['']),
    ('alibaba', 'contact_flows', 'alibaba', ARRAY['ccc0', 'ccc1', 'ccc2']))
    AS each(source, stream, provider, scopes);
"""

SIZES = {
    "flows": 20_000,
    "flex_flows": 2_500,
    "channels": 1_000_000,
    "contact_flows": 9_000,
    "studio_flows": 5_000,
    "phone_numbers": 20_000,
    "addresses": 10_000,
}

ONE_FLOW = "source = 'zoom_1' AND flow_id = 'F000000000000000000101'"
ONE_IVR = "source = 'alibaba' AND flow_id = 'cf101'"
ONE_STUDIO = "source = 'twilio' AND flow_id = 'FW' || md5('101')"


@dataclass(frozen=True, slots=True)
class Query:
    """A query with its limit in milliseconds; None: it hands over millions of rows."""

    text: str
    limit: int | None = AGGREGATE


QUERIES = (
    Query("SELECT * FROM callflow.flows"),
    Query("SELECT provider, status, count(*) FROM callflow.flows GROUP BY 1, 2"),
    Query(f"SELECT * FROM callflow.flows WHERE {ONE_FLOW}", FLOW),
    Query("SELECT * FROM callflow.flows WHERE flow_id = 'cf101'", FLOW),
    Query("SELECT * FROM callflow.flows_at(now() - interval '200 days')"),
    Query(f"SELECT * FROM callflow.flows_at(now() - interval '200 days') WHERE {ONE_FLOW}", FLOW),
    Query("SELECT is_current, count(*) FROM callflow.flows_history GROUP BY 1"),
    Query("SELECT * FROM callflow.flows_history WHERE flow_id = 'cf101'", FLOW),
    Query("SELECT * FROM callflow.flow_versions"),
    Query("SELECT * FROM callflow.entry_points"),
    Query("SELECT * FROM callflow.entry_points WHERE address_key = '+442000000304'"),
    Query("SELECT count(*) FROM callflow.channels"),
    Query("SELECT flow_exists, count(*) FROM callflow.channels GROUP BY 1"),
    Query("SELECT date_trunc('day', created_at), count(*) FROM callflow.channels GROUP BY 1"),
    Query("SELECT count(*) FROM callflow.channels_at(now() - interval '30 days')", None),
    Query("SELECT step_type, count(*) FROM callflow.flow_steps GROUP BY 1"),
    Query(f"SELECT * FROM callflow.flow_steps WHERE {ONE_IVR}", FLOW),
    Query(f"SELECT * FROM callflow.flow_step_links WHERE {ONE_IVR}", FLOW),
    Query(f"SELECT * FROM callflow.flow_steps WHERE {ONE_STUDIO}", FLOW),
    Query(f"SELECT * FROM callflow.flow_references WHERE {ONE_STUDIO}", FLOW),
    Query(f"SELECT * FROM callflow.flow_version_steps WHERE {ONE_STUDIO}", FLOW),
    Query("SELECT kind, count(*) FROM callflow.flow_references GROUP BY 1"),
    Query("SELECT property, count(*) FROM callflow.flow_step_properties GROUP BY 1"),
    Query("SELECT finding, count(*) FROM callflow.flow_findings GROUP BY 1"),
    Query("SELECT count(*) FROM callflow.changes"),
    Query("SELECT * FROM callflow.changes WHERE flow_id = 'cf101'", LOG),
    Query(f"SELECT * FROM callflow.changes WHERE {ONE_FLOW}", LOG),
    Query("SELECT entity, count(*) FROM callflow.changes"
          " WHERE observed_at > now() - interval '7 days' GROUP BY 1"),
    Query("SELECT * FROM callflow.flow_diff('zoom_1', 'F000000000000000000101',"
          " now() - interval '200 days', now())", FLOW),
    Query("SELECT * FROM callflow.freshness", FLOW),
    *(
        Query(f"SELECT * FROM callflow.{view}")
        for view in (
            *("number_map", "shared_addresses", "unreached_flows", "entry_points_not_live"),
            *("unpublished_changes", "stale_drafts", "changes_per_week", "changes_per_editor"),
            *("deleted_flows", "flows_by_source", "flex_flows_to_review", "channels_by_flow"),
            *("channels_without_flow", "flow_uses", "flows_by_status", "unbound_numbers"),
            *("dead_bindings", "broken_references", "legacy_bridge"),
        )
    ),
    Query("SELECT * FROM callflow.number_map WHERE address_key = '+442000000304'"),
    Query("SELECT * FROM callflow.channels", None),
    Query("SELECT * FROM callflow.changes", None),
)  # fmt: skip


def fill(url: str, scale: float) -> None:
    """Bring the database to head, fill its tables and its log, and let the reader read it."""
    migrate.upgrade(url)
    engine = connect(url)
    with engine.begin() as connection:
        sizes = {name: int(size * scale) for name, size in SIZES.items()}
        connection.exec_driver_sql(ROWS.format(**sizes).replace("%", "%%"))
        print(f"{rebuild_changes(connection):,} changes")
        grant.grant(connection, READER)
    with engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        alone.exec_driver_sql("VACUUM (ANALYZE)")
    engine.dispose()


def measure(connection: psycopg.Connection, query: Query) -> tuple[float, int]:
    """Return the milliseconds of the best of three runs, and the number of rows."""
    best, rows = float("inf"), 0
    for _ in range(3):
        start = time.perf_counter()
        rows = len(connection.execute(query.text.encode(), prepare=False).fetchall())
        best = min(best, (time.perf_counter() - start) * 1000)
    return best, rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--plans", type=Path, help="a directory for EXPLAIN ANALYZE of each query")
    options = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="callflow-benchmark-") as folder:
        server = embedded.start(Path(folder))
        try:
            fill(server.url(), options.scale)
            url = server.reader_url().replace("postgresql+psycopg://", "postgresql://", 1)
            print(f"PostgreSQL {server.major}, scale {options.scale}")
            with psycopg.connect(url, autocommit=True) as connection:
                answer(connection, options.plans)
        finally:
            embedded.stop(Path(folder))


def answer(connection: psycopg.Connection, plans: Path | None) -> None:
    """Time every query, print it, and keep its plan in the directory `plans`."""
    for number, query in enumerate(QUERIES):
        took, rows = measure(connection, query)
        mark = "  OVER" if query.limit and took > query.limit else ""
        print(f"{took:9.1f} ms {rows:>9,} rows  {query.text}{mark}", flush=True)
        if plans:
            plans.mkdir(parents=True, exist_ok=True)
            lines = connection.execute(f"EXPLAIN (ANALYZE) {query.text}".encode()).fetchall()
            plan = "\n".join([query.text, "", *(line for (line,) in lines), ""])
            (plans / f"{number:02}.txt").write_text(plan, encoding="utf-8")


if __name__ == "__main__":
    main()

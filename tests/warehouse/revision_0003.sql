-- A warehouse of revision 0003 as the three migrations before the first release made it, with rows,
-- history and what a user had built on it; analyst is a role. From pg_dump 15, without the comments.
SET check_function_bodies = false;
SET search_path = '';
CREATE SCHEMA alibaba;
CREATE SCHEMA callflow;
CREATE SCHEMA etl;
CREATE SCHEMA history;
CREATE SCHEMA reports;
CREATE SCHEMA staging;
CREATE SCHEMA twilio;
CREATE SCHEMA zoom;
CREATE FUNCTION reports.names() RETURNS SETOF text LANGUAGE sql AS $$SELECT flow_name FROM
    zoom.flows_history ORDER BY 1$$;
CREATE TABLE history.zoom_flows (source text NOT NULL COLLATE pg_catalog."C", flow_id text NOT
    NULL COLLATE pg_catalog."C", flow_name text, flow_description text, channel_type text, channel
    text, channel_source text, status text, modified_by text, last_modified_time timestamp with
    time zone, extra jsonb, valid_from timestamp with time zone NOT NULL, valid_to timestamp with
    time zone NOT NULL);
CREATE TABLE zoom.flows (source text NOT NULL COLLATE pg_catalog."C", flow_id text NOT NULL
    COLLATE pg_catalog."C", flow_name text, flow_description text, channel_type text, channel
    text, channel_source text, status text, modified_by text, last_modified_time timestamp with
    time zone, extra jsonb, valid_from timestamp with time zone NOT NULL) WITH (fillfactor='90');
CREATE VIEW zoom.flows_history AS SELECT flows.source, flows.flow_id, flows.flow_name,
    flows.flow_description, flows.channel_type, flows.channel, flows.channel_source, flows.status,
    flows.modified_by, flows.last_modified_time, flows.extra, flows.valid_from, NULL::timestamp
    with time zone AS valid_to, true AS is_current FROM zoom.flows UNION ALL SELECT
    zoom_flows.source, zoom_flows.flow_id, zoom_flows.flow_name, zoom_flows.flow_description,
    zoom_flows.channel_type, zoom_flows.channel, zoom_flows.channel_source, zoom_flows.status,
    zoom_flows.modified_by, zoom_flows.last_modified_time, zoom_flows.extra,
    zoom_flows.valid_from, zoom_flows.valid_to, false AS is_current FROM history.zoom_flows;
CREATE FUNCTION reports.solid() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) AS count
    FROM zoom.flows_history; END;
CREATE TABLE alibaba.contact_flow_activities (source text NOT NULL COLLATE pg_catalog."C",
    instance_id text NOT NULL COLLATE pg_catalog."C", contact_flow_id text NOT NULL COLLATE
    pg_catalog."C", activity_id text NOT NULL COLLATE pg_catalog."C", type text, name text,
    node_index integer, properties jsonb, extra jsonb, valid_from timestamp with time zone NOT
    NULL) WITH (fillfactor='90');
CREATE TABLE history.alibaba_contact_flow_activities (source text NOT NULL COLLATE pg_catalog."C",
    instance_id text NOT NULL COLLATE pg_catalog."C", contact_flow_id text NOT NULL COLLATE
    pg_catalog."C", activity_id text NOT NULL COLLATE pg_catalog."C", type text, name text,
    node_index integer, properties jsonb, extra jsonb, valid_from timestamp with time zone NOT
    NULL, valid_to timestamp with time zone NOT NULL);
CREATE VIEW alibaba.contact_flow_activities_history AS SELECT contact_flow_activities.source,
    contact_flow_activities.instance_id, contact_flow_activities.contact_flow_id,
    contact_flow_activities.activity_id, contact_flow_activities.type,
    contact_flow_activities.name, contact_flow_activities.node_index,
    contact_flow_activities.properties, contact_flow_activities.extra,
    contact_flow_activities.valid_from, NULL::timestamp with time zone AS valid_to, true AS
    is_current FROM alibaba.contact_flow_activities UNION ALL SELECT
    alibaba_contact_flow_activities.source, alibaba_contact_flow_activities.instance_id,
    alibaba_contact_flow_activities.contact_flow_id, alibaba_contact_flow_activities.activity_id,
    alibaba_contact_flow_activities.type, alibaba_contact_flow_activities.name,
    alibaba_contact_flow_activities.node_index, alibaba_contact_flow_activities.properties,
    alibaba_contact_flow_activities.extra, alibaba_contact_flow_activities.valid_from,
    alibaba_contact_flow_activities.valid_to, false AS is_current FROM
    history.alibaba_contact_flow_activities;
CREATE TABLE alibaba.contact_flow_numbers (source text NOT NULL COLLATE pg_catalog."C",
    instance_id text NOT NULL COLLATE pg_catalog."C", contact_flow_id text NOT NULL COLLATE
    pg_catalog."C", number text NOT NULL COLLATE pg_catalog."C", extra jsonb, valid_from timestamp
    with time zone NOT NULL) WITH (fillfactor='90');
CREATE TABLE history.alibaba_contact_flow_numbers (source text NOT NULL COLLATE pg_catalog."C",
    instance_id text NOT NULL COLLATE pg_catalog."C", contact_flow_id text NOT NULL COLLATE
    pg_catalog."C", number text NOT NULL COLLATE pg_catalog."C", extra jsonb, valid_from timestamp
    with time zone NOT NULL, valid_to timestamp with time zone NOT NULL);
CREATE VIEW alibaba.contact_flow_numbers_history AS SELECT contact_flow_numbers.source,
    contact_flow_numbers.instance_id, contact_flow_numbers.contact_flow_id,
    contact_flow_numbers.number, contact_flow_numbers.extra, contact_flow_numbers.valid_from,
    NULL::timestamp with time zone AS valid_to, true AS is_current FROM
    alibaba.contact_flow_numbers UNION ALL SELECT alibaba_contact_flow_numbers.source,
    alibaba_contact_flow_numbers.instance_id, alibaba_contact_flow_numbers.contact_flow_id,
    alibaba_contact_flow_numbers.number, alibaba_contact_flow_numbers.extra,
    alibaba_contact_flow_numbers.valid_from, alibaba_contact_flow_numbers.valid_to, false AS
    is_current FROM history.alibaba_contact_flow_numbers;
CREATE TABLE alibaba.contact_flow_transitions (source text NOT NULL COLLATE pg_catalog."C",
    instance_id text NOT NULL COLLATE pg_catalog."C", contact_flow_id text NOT NULL COLLATE
    pg_catalog."C", activity_id text NOT NULL COLLATE pg_catalog."C", "position" integer NOT NULL,
    event text, edge_id text, next_activity_id text, extra jsonb, valid_from timestamp with time
    zone NOT NULL) WITH (fillfactor='90');
CREATE TABLE history.alibaba_contact_flow_transitions (source text NOT NULL COLLATE
    pg_catalog."C", instance_id text NOT NULL COLLATE pg_catalog."C", contact_flow_id text NOT
    NULL COLLATE pg_catalog."C", activity_id text NOT NULL COLLATE pg_catalog."C", "position"
    integer NOT NULL, event text, edge_id text, next_activity_id text, extra jsonb, valid_from
    timestamp with time zone NOT NULL, valid_to timestamp with time zone NOT NULL);
CREATE VIEW alibaba.contact_flow_transitions_history AS SELECT contact_flow_transitions.source,
    contact_flow_transitions.instance_id, contact_flow_transitions.contact_flow_id,
    contact_flow_transitions.activity_id, contact_flow_transitions."position",
    contact_flow_transitions.event, contact_flow_transitions.edge_id,
    contact_flow_transitions.next_activity_id, contact_flow_transitions.extra,
    contact_flow_transitions.valid_from, NULL::timestamp with time zone AS valid_to, true AS
    is_current FROM alibaba.contact_flow_transitions UNION ALL SELECT
    alibaba_contact_flow_transitions.source, alibaba_contact_flow_transitions.instance_id,
    alibaba_contact_flow_transitions.contact_flow_id,
    alibaba_contact_flow_transitions.activity_id, alibaba_contact_flow_transitions."position",
    alibaba_contact_flow_transitions.event, alibaba_contact_flow_transitions.edge_id,
    alibaba_contact_flow_transitions.next_activity_id, alibaba_contact_flow_transitions.extra,
    alibaba_contact_flow_transitions.valid_from, alibaba_contact_flow_transitions.valid_to, false
    AS is_current FROM history.alibaba_contact_flow_transitions;
CREATE TABLE alibaba.contact_flows (source text NOT NULL COLLATE pg_catalog."C", instance_id text
    NOT NULL COLLATE pg_catalog."C", contact_flow_id text NOT NULL COLLATE pg_catalog."C", name
    text, type text, description text, definition text, draft_id text, published boolean, editor
    text, created_time timestamp with time zone, updated_time timestamp with time zone, extra
    jsonb, valid_from timestamp with time zone NOT NULL) WITH (fillfactor='90');
CREATE TABLE history.alibaba_contact_flows (source text NOT NULL COLLATE pg_catalog."C",
    instance_id text NOT NULL COLLATE pg_catalog."C", contact_flow_id text NOT NULL COLLATE
    pg_catalog."C", name text, type text, description text, definition text, draft_id text,
    published boolean, editor text, created_time timestamp with time zone, updated_time timestamp
    with time zone, extra jsonb, valid_from timestamp with time zone NOT NULL, valid_to timestamp
    with time zone NOT NULL);
CREATE VIEW alibaba.contact_flows_history AS SELECT contact_flows.source,
    contact_flows.instance_id, contact_flows.contact_flow_id, contact_flows.name,
    contact_flows.type, contact_flows.description, contact_flows.definition,
    contact_flows.draft_id, contact_flows.published, contact_flows.editor,
    contact_flows.created_time, contact_flows.updated_time, contact_flows.extra,
    contact_flows.valid_from, NULL::timestamp with time zone AS valid_to, true AS is_current FROM
    alibaba.contact_flows UNION ALL SELECT alibaba_contact_flows.source,
    alibaba_contact_flows.instance_id, alibaba_contact_flows.contact_flow_id,
    alibaba_contact_flows.name, alibaba_contact_flows.type, alibaba_contact_flows.description,
    alibaba_contact_flows.definition, alibaba_contact_flows.draft_id,
    alibaba_contact_flows.published, alibaba_contact_flows.editor,
    alibaba_contact_flows.created_time, alibaba_contact_flows.updated_time,
    alibaba_contact_flows.extra, alibaba_contact_flows.valid_from, alibaba_contact_flows.valid_to,
    false AS is_current FROM history.alibaba_contact_flows;
CREATE TABLE twilio.channels (source text NOT NULL COLLATE pg_catalog."C", sid text NOT NULL
    COLLATE pg_catalog."C", account_sid text, flex_flow_sid text, user_sid text, task_sid text,
    date_created timestamp with time zone, date_updated timestamp with time zone, url text, extra
    jsonb, valid_from timestamp with time zone NOT NULL) WITH (fillfactor='90');
CREATE VIEW callflow.my_view AS SELECT channels.source, channels.sid FROM twilio.channels;
CREATE TABLE etl.absences (source text NOT NULL COLLATE pg_catalog."C", stream text NOT NULL
    COLLATE pg_catalog."C", key text NOT NULL COLLATE pg_catalog."C", run_id text NOT NULL, since
    timestamp with time zone NOT NULL);
CREATE TABLE etl.alembic_version (version_num character varying(32) NOT NULL);
CREATE UNLOGGED TABLE etl.checkpoints (source text NOT NULL COLLATE pg_catalog."C", stream text
    NOT NULL COLLATE pg_catalog."C", settings text NOT NULL, following text NOT NULL, state jsonb
    NOT NULL, staged bigint NOT NULL, saved_at timestamp with time zone NOT NULL);
CREATE TABLE etl.leases (source text NOT NULL COLLATE pg_catalog."C", stream text NOT NULL COLLATE
    pg_catalog."C", holder text NOT NULL, epoch bigint NOT NULL, until timestamp with time zone
    NOT NULL);
CREATE TABLE etl.rejects (source text NOT NULL COLLATE pg_catalog."C", stream text NOT NULL
    COLLATE pg_catalog."C", digest text NOT NULL COLLATE pg_catalog."C", run_id text NOT NULL,
    reason text NOT NULL, payload jsonb, first_seen timestamp with time zone NOT NULL, last_seen
    timestamp with time zone NOT NULL);
CREATE TABLE etl.runs (source text NOT NULL COLLATE pg_catalog."C", run_id text NOT NULL COLLATE
    pg_catalog."C", stream text NOT NULL COLLATE pg_catalog."C", mode text NOT NULL, started_at
    timestamp with time zone NOT NULL, finished_at timestamp with time zone NOT NULL, status text
    NOT NULL, requests bigint DEFAULT '0'::bigint NOT NULL, pages bigint DEFAULT '0'::bigint NOT
    NULL, records bigint DEFAULT '0'::bigint NOT NULL, inserted bigint DEFAULT '0'::bigint NOT
    NULL, updated bigint DEFAULT '0'::bigint NOT NULL, unchanged bigint DEFAULT '0'::bigint NOT
    NULL, deleted bigint DEFAULT '0'::bigint NOT NULL, rejected bigint DEFAULT '0'::bigint NOT
    NULL, warnings bigint DEFAULT '0'::bigint NOT NULL, rows_written bigint DEFAULT '0'::bigint
    NOT NULL, watermark_before timestamp with time zone, watermark_after timestamp with time zone,
    error_kind text, error text, reason text, absent bigint DEFAULT '0'::bigint NOT NULL, retries
    bigint DEFAULT '0'::bigint NOT NULL, throttled_seconds double precision DEFAULT '0'::double
    precision NOT NULL, retry_at timestamp with time zone);
CREATE TABLE etl.streams (source text NOT NULL COLLATE pg_catalog."C", stream text NOT NULL
    COLLATE pg_catalog."C", watermark timestamp with time zone, watermarks jsonb, last_run_id
    text, last_status text, last_attempt_at timestamp with time zone, last_success_at timestamp
    with time zone, last_full_at timestamp with time zone, changed_at timestamp with time zone,
    rows bigint DEFAULT '0'::bigint NOT NULL, error text, read_at timestamp with time zone,
    newest_first boolean, retry_at timestamp with time zone, told text);
CREATE TABLE history.twilio_channels (source text NOT NULL COLLATE pg_catalog."C", sid text NOT
    NULL COLLATE pg_catalog."C", account_sid text, flex_flow_sid text, user_sid text, task_sid
    text, date_created timestamp with time zone, date_updated timestamp with time zone, url text,
    extra jsonb, valid_from timestamp with time zone NOT NULL, valid_to timestamp with time zone
    NOT NULL);
CREATE TABLE history.twilio_flex_flows (source text NOT NULL COLLATE pg_catalog."C", sid text NOT
    NULL COLLATE pg_catalog."C", account_sid text, friendly_name text, channel_type text,
    chat_service_sid text, contact_identity text, enabled boolean, integration_type text,
    integration_flow_sid text, integration_url text, integration_workspace_sid text,
    integration_workflow_sid text, integration_channel text, integration_timeout integer,
    integration_priority integer, integration_creation_on_message boolean, integration_retry_count
    integer, janitor_enabled boolean, long_lived boolean, date_created timestamp with time zone,
    date_updated timestamp with time zone, url text, extra jsonb, valid_from timestamp with time
    zone NOT NULL, valid_to timestamp with time zone NOT NULL);
CREATE TABLE history.zoom_entry_points (source text NOT NULL COLLATE pg_catalog."C", flow_id text
    NOT NULL COLLATE pg_catalog."C", entry_id text NOT NULL COLLATE pg_catalog."C", entry_name
    text, entry_number text, entry_language text, email_address text, extra jsonb, valid_from
    timestamp with time zone NOT NULL, valid_to timestamp with time zone NOT NULL);
CREATE TABLE history.zoom_flow_versions (source text NOT NULL COLLATE pg_catalog."C", flow_id text
    NOT NULL COLLATE pg_catalog."C", flow_version_id text NOT NULL COLLATE pg_catalog."C",
    flow_version integer, flow_version_description text, flow_version_status text,
    flow_version_modified_by text, flow_version_last_modified_time timestamp with time zone, extra
    jsonb, valid_from timestamp with time zone NOT NULL, valid_to timestamp with time zone NOT
    NULL);
CREATE MATERIALIZED VIEW reports.kept AS SELECT flows_history.source, flows_history.flow_id,
    flows_history.flow_name, flows_history.flow_description, flows_history.channel_type,
    flows_history.channel, flows_history.channel_source, flows_history.status,
    flows_history.modified_by, flows_history.last_modified_time, flows_history.extra,
    flows_history.valid_from, flows_history.valid_to, flows_history.is_current FROM
    zoom.flows_history WITH NO DATA;
CREATE VIEW reports.seen AS SELECT flows_history.flow_id, flows_history.flow_name,
    flows_history.valid_to FROM zoom.flows_history;
CREATE VIEW twilio.channels_history AS SELECT channels.source, channels.sid, channels.account_sid,
    channels.flex_flow_sid, channels.user_sid, channels.task_sid, channels.date_created,
    channels.date_updated, channels.url, channels.extra, channels.valid_from, NULL::timestamp with
    time zone AS valid_to, true AS is_current FROM twilio.channels UNION ALL SELECT
    twilio_channels.source, twilio_channels.sid, twilio_channels.account_sid,
    twilio_channels.flex_flow_sid, twilio_channels.user_sid, twilio_channels.task_sid,
    twilio_channels.date_created, twilio_channels.date_updated, twilio_channels.url,
    twilio_channels.extra, twilio_channels.valid_from, twilio_channels.valid_to, false AS
    is_current FROM history.twilio_channels;
CREATE TABLE twilio.flex_flows (source text NOT NULL COLLATE pg_catalog."C", sid text NOT NULL
    COLLATE pg_catalog."C", account_sid text, friendly_name text, channel_type text,
    chat_service_sid text, contact_identity text, enabled boolean, integration_type text,
    integration_flow_sid text, integration_url text, integration_workspace_sid text,
    integration_workflow_sid text, integration_channel text, integration_timeout integer,
    integration_priority integer, integration_creation_on_message boolean, integration_retry_count
    integer, janitor_enabled boolean, long_lived boolean, date_created timestamp with time zone,
    date_updated timestamp with time zone, url text, extra jsonb, valid_from timestamp with time
    zone NOT NULL) WITH (fillfactor='90');
CREATE VIEW twilio.flex_flows_history AS SELECT flex_flows.source, flex_flows.sid,
    flex_flows.account_sid, flex_flows.friendly_name, flex_flows.channel_type,
    flex_flows.chat_service_sid, flex_flows.contact_identity, flex_flows.enabled,
    flex_flows.integration_type, flex_flows.integration_flow_sid, flex_flows.integration_url,
    flex_flows.integration_workspace_sid, flex_flows.integration_workflow_sid,
    flex_flows.integration_channel, flex_flows.integration_timeout,
    flex_flows.integration_priority, flex_flows.integration_creation_on_message,
    flex_flows.integration_retry_count, flex_flows.janitor_enabled, flex_flows.long_lived,
    flex_flows.date_created, flex_flows.date_updated, flex_flows.url, flex_flows.extra,
    flex_flows.valid_from, NULL::timestamp with time zone AS valid_to, true AS is_current FROM
    twilio.flex_flows UNION ALL SELECT twilio_flex_flows.source, twilio_flex_flows.sid,
    twilio_flex_flows.account_sid, twilio_flex_flows.friendly_name,
    twilio_flex_flows.channel_type, twilio_flex_flows.chat_service_sid,
    twilio_flex_flows.contact_identity, twilio_flex_flows.enabled,
    twilio_flex_flows.integration_type, twilio_flex_flows.integration_flow_sid,
    twilio_flex_flows.integration_url, twilio_flex_flows.integration_workspace_sid,
    twilio_flex_flows.integration_workflow_sid, twilio_flex_flows.integration_channel,
    twilio_flex_flows.integration_timeout, twilio_flex_flows.integration_priority,
    twilio_flex_flows.integration_creation_on_message, twilio_flex_flows.integration_retry_count,
    twilio_flex_flows.janitor_enabled, twilio_flex_flows.long_lived,
    twilio_flex_flows.date_created, twilio_flex_flows.date_updated, twilio_flex_flows.url,
    twilio_flex_flows.extra, twilio_flex_flows.valid_from, twilio_flex_flows.valid_to, false AS
    is_current FROM history.twilio_flex_flows;
CREATE TABLE zoom.entry_points (source text NOT NULL COLLATE pg_catalog."C", flow_id text NOT NULL
    COLLATE pg_catalog."C", entry_id text NOT NULL COLLATE pg_catalog."C", entry_name text,
    entry_number text, entry_language text, email_address text, extra jsonb, valid_from timestamp
    with time zone NOT NULL) WITH (fillfactor='90');
CREATE VIEW zoom.entry_points_history AS SELECT entry_points.source, entry_points.flow_id,
    entry_points.entry_id, entry_points.entry_name, entry_points.entry_number,
    entry_points.entry_language, entry_points.email_address, entry_points.extra,
    entry_points.valid_from, NULL::timestamp with time zone AS valid_to, true AS is_current FROM
    zoom.entry_points UNION ALL SELECT zoom_entry_points.source, zoom_entry_points.flow_id,
    zoom_entry_points.entry_id, zoom_entry_points.entry_name, zoom_entry_points.entry_number,
    zoom_entry_points.entry_language, zoom_entry_points.email_address, zoom_entry_points.extra,
    zoom_entry_points.valid_from, zoom_entry_points.valid_to, false AS is_current FROM
    history.zoom_entry_points;
CREATE TABLE zoom.flow_versions (source text NOT NULL COLLATE pg_catalog."C", flow_id text NOT
    NULL COLLATE pg_catalog."C", flow_version_id text NOT NULL COLLATE pg_catalog."C",
    flow_version integer, flow_version_description text, flow_version_status text,
    flow_version_modified_by text, flow_version_last_modified_time timestamp with time zone, extra
    jsonb, valid_from timestamp with time zone NOT NULL) WITH (fillfactor='90');
CREATE VIEW zoom.flow_versions_history AS SELECT flow_versions.source, flow_versions.flow_id,
    flow_versions.flow_version_id, flow_versions.flow_version,
    flow_versions.flow_version_description, flow_versions.flow_version_status,
    flow_versions.flow_version_modified_by, flow_versions.flow_version_last_modified_time,
    flow_versions.extra, flow_versions.valid_from, NULL::timestamp with time zone AS valid_to,
    true AS is_current FROM zoom.flow_versions UNION ALL SELECT zoom_flow_versions.source,
    zoom_flow_versions.flow_id, zoom_flow_versions.flow_version_id,
    zoom_flow_versions.flow_version, zoom_flow_versions.flow_version_description,
    zoom_flow_versions.flow_version_status, zoom_flow_versions.flow_version_modified_by,
    zoom_flow_versions.flow_version_last_modified_time, zoom_flow_versions.extra,
    zoom_flow_versions.valid_from, zoom_flow_versions.valid_to, false AS is_current FROM
    history.zoom_flow_versions;
INSERT INTO alibaba.contact_flow_activities VALUES ('ccc', 'i', 'c1', 'a', NULL, NULL, 0, '{"text": "hello"}', NULL, '2026-03-02 00:00:00+00');
INSERT INTO alibaba.contact_flow_numbers VALUES ('ccc', 'i', 'c1', '0571', NULL, '2026-03-02 00:00:00+00');
INSERT INTO alibaba.contact_flow_transitions VALUES ('ccc', 'i', 'c1', 'a', 0, 'ok', NULL, NULL, NULL, '2026-03-02 00:00:00+00');
INSERT INTO alibaba.contact_flows VALUES ('ccc', 'i', 'c1', 'IVR', NULL, NULL, NULL, NULL, true, NULL, NULL, NULL, NULL, '2026-03-02 00:00:00+00');
INSERT INTO etl.absences VALUES ('zoom_eu', 'flows', '["f2"]', 'r1', '2026-03-02 00:00:00+00');
INSERT INTO etl.alembic_version VALUES ('0003');
INSERT INTO etl.leases VALUES ('zoom_eu', 'flows', 'host:1', 3, '2026-03-02 00:00:00+00');
INSERT INTO etl.rejects VALUES ('zoom_eu', 'flows', 'd', 'r1', 'no id', '{}', '2026-03-02 00:00:00+00', '2026-03-02 00:00:00+00');
INSERT INTO etl.runs VALUES ('zoom_eu', 'r1', 'flows', 'full', '2026-03-01 23:59:00+00', '2026-03-02 00:00:00+00', 'complete', 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, 0, 0, 1.5, NULL);
INSERT INTO etl.streams VALUES ('zoom_eu', 'flows', '2026-03-01 10:00:00+00', NULL, 'r1', 'complete', NULL, NULL, NULL, NULL, 2, NULL, '2026-03-01 23:59:00+00', true, NULL, NULL);
INSERT INTO history.twilio_channels VALUES ('twilio', 'CH1', NULL, 'FO0', NULL, NULL, NULL, NULL, NULL, NULL, '2026-02-02 00:00:00+00', '2026-03-02 00:00:00+00');
INSERT INTO history.zoom_flows VALUES ('zoom_eu', 'f1', 'Hours', NULL, NULL, 'voice', NULL, 'draft', NULL, '2026-02-01 10:00:00+00', NULL, '2026-02-02 00:00:00+00', '2026-03-02 00:00:00+00');
INSERT INTO history.zoom_flows VALUES ('zoom_eu', 'f0', 'Removed', NULL, NULL, 'voice', NULL, 'draft', NULL, NULL, NULL, '2026-02-02 00:00:00+00', '2026-02-03 00:00:00+00');
INSERT INTO twilio.channels VALUES ('twilio', 'CH1', NULL, 'FO1', NULL, NULL, NULL, '2026-03-01 10:00:00+00', NULL, NULL, '2026-03-02 00:00:00+00');
INSERT INTO twilio.flex_flows VALUES ('twilio', 'FO1', NULL, 'Web', NULL, NULL, NULL, true, NULL, NULL, NULL, NULL, NULL, NULL, 60, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-03-02 00:00:00+00');
INSERT INTO zoom.entry_points VALUES ('zoom_eu', 'f1', 'e1', NULL, '+15550100', NULL, NULL, NULL, '2026-03-02 00:00:00+00');
INSERT INTO zoom.flow_versions VALUES ('zoom_eu', 'f1', 'v1', 1, NULL, NULL, NULL, NULL, NULL, '2026-03-02 00:00:00+00');
INSERT INTO zoom.flows VALUES ('zoom_eu', 'f1', 'Opening hours', NULL, NULL, 'voice', NULL, 'published', NULL, '2026-03-01 10:00:00+00', '{"new_member": [1, 2]}', '2026-03-02 00:00:00+00');
INSERT INTO zoom.flows VALUES ('zoom_eu', 'f2', 'Überlauf 夜', NULL, NULL, 'messaging', NULL, 'draft', NULL, NULL, NULL, '2026-03-02 00:00:00+00');
ALTER TABLE ONLY alibaba.contact_flow_activities ADD CONSTRAINT contact_flow_activities_pkey
    PRIMARY KEY (source, instance_id, contact_flow_id, activity_id);
ALTER TABLE ONLY alibaba.contact_flow_numbers ADD CONSTRAINT contact_flow_numbers_pkey PRIMARY KEY
    (source, instance_id, contact_flow_id, number);
ALTER TABLE ONLY alibaba.contact_flow_transitions ADD CONSTRAINT contact_flow_transitions_pkey
    PRIMARY KEY (source, instance_id, contact_flow_id, activity_id, "position");
ALTER TABLE ONLY alibaba.contact_flows ADD CONSTRAINT contact_flows_pkey PRIMARY KEY (source,
    instance_id, contact_flow_id);
ALTER TABLE ONLY etl.absences ADD CONSTRAINT absences_pkey PRIMARY KEY (source, stream, key);
ALTER TABLE ONLY etl.alembic_version ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY etl.checkpoints ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (source, stream);
ALTER TABLE ONLY etl.leases ADD CONSTRAINT leases_pkey PRIMARY KEY (source, stream);
ALTER TABLE ONLY etl.rejects ADD CONSTRAINT rejects_pkey PRIMARY KEY (source, stream, digest);
ALTER TABLE ONLY etl.runs ADD CONSTRAINT runs_pkey PRIMARY KEY (source, run_id);
ALTER TABLE ONLY etl.streams ADD CONSTRAINT streams_pkey PRIMARY KEY (source, stream);
ALTER TABLE ONLY history.alibaba_contact_flow_activities ADD CONSTRAINT
    alibaba_contact_flow_activities_pkey PRIMARY KEY (source, instance_id, contact_flow_id,
    activity_id, valid_from);
ALTER TABLE ONLY history.alibaba_contact_flow_numbers ADD CONSTRAINT
    alibaba_contact_flow_numbers_pkey PRIMARY KEY (source, instance_id, contact_flow_id, number,
    valid_from);
ALTER TABLE ONLY history.alibaba_contact_flow_transitions ADD CONSTRAINT
    alibaba_contact_flow_transitions_pkey PRIMARY KEY (source, instance_id, contact_flow_id,
    activity_id, "position", valid_from);
ALTER TABLE ONLY history.alibaba_contact_flows ADD CONSTRAINT alibaba_contact_flows_pkey PRIMARY
    KEY (source, instance_id, contact_flow_id, valid_from);
ALTER TABLE ONLY history.twilio_channels ADD CONSTRAINT twilio_channels_pkey PRIMARY KEY (source,
    sid, valid_from);
ALTER TABLE ONLY history.twilio_flex_flows ADD CONSTRAINT twilio_flex_flows_pkey PRIMARY KEY
    (source, sid, valid_from);
ALTER TABLE ONLY history.zoom_entry_points ADD CONSTRAINT zoom_entry_points_pkey PRIMARY KEY
    (source, flow_id, entry_id, valid_from);
ALTER TABLE ONLY history.zoom_flow_versions ADD CONSTRAINT zoom_flow_versions_pkey PRIMARY KEY
    (source, flow_id, flow_version_id, valid_from);
ALTER TABLE ONLY history.zoom_flows ADD CONSTRAINT zoom_flows_pkey PRIMARY KEY (source, flow_id,
    valid_from);
ALTER TABLE ONLY twilio.channels ADD CONSTRAINT channels_pkey PRIMARY KEY (source, sid);
ALTER TABLE ONLY twilio.flex_flows ADD CONSTRAINT flex_flows_pkey PRIMARY KEY (source, sid);
ALTER TABLE ONLY zoom.entry_points ADD CONSTRAINT entry_points_pkey PRIMARY KEY (source, flow_id,
    entry_id);
ALTER TABLE ONLY zoom.flow_versions ADD CONSTRAINT flow_versions_pkey PRIMARY KEY (source,
    flow_id, flow_version_id);
ALTER TABLE ONLY zoom.flows ADD CONSTRAINT flows_pkey PRIMARY KEY (source, flow_id);
CREATE INDEX runs_latest ON etl.runs USING btree (source, stream, started_at DESC);
CREATE INDEX kept_ids ON reports.kept USING btree (flow_id);
ALTER TABLE ONLY alibaba.contact_flow_activities ADD CONSTRAINT
    contact_flow_activities_contact_flows FOREIGN KEY (source, instance_id, contact_flow_id)
    REFERENCES alibaba.contact_flows(source, instance_id, contact_flow_id);
ALTER TABLE ONLY alibaba.contact_flow_numbers ADD CONSTRAINT contact_flow_numbers_contact_flows
    FOREIGN KEY (source, instance_id, contact_flow_id) REFERENCES alibaba.contact_flows(source,
    instance_id, contact_flow_id);
ALTER TABLE ONLY alibaba.contact_flow_transitions ADD CONSTRAINT
    contact_flow_transitions_contact_flow_activities FOREIGN KEY (source, instance_id,
    contact_flow_id, activity_id) REFERENCES alibaba.contact_flow_activities(source, instance_id,
    contact_flow_id, activity_id);
ALTER TABLE ONLY zoom.entry_points ADD CONSTRAINT entry_points_flows FOREIGN KEY (source, flow_id)
    REFERENCES zoom.flows(source, flow_id);
ALTER TABLE ONLY zoom.flow_versions ADD CONSTRAINT flow_versions_flows FOREIGN KEY (source,
    flow_id) REFERENCES zoom.flows(source, flow_id);
GRANT USAGE ON SCHEMA reports TO analyst;
GRANT USAGE ON SCHEMA zoom TO analyst;
GRANT SELECT ON TABLE zoom.flows_history TO analyst;
GRANT SELECT ON TABLE reports.kept TO analyst;
GRANT SELECT ON TABLE reports.seen TO analyst;
GRANT SELECT(flow_id) ON TABLE zoom.entry_points TO analyst WITH GRANT OPTION;
REFRESH MATERIALIZED VIEW reports.kept;

"""Flows of Zoom Contact Center, their versions and their entry points."""

from typing import TYPE_CHECKING

from etl.extract import zoom
from etl.extract.oauth import AccessToken, Client
from etl.extract.verdict import Judge
from etl.providers.declare import Stream
from etl.providers.zoom.source import ZoomSource
from etl.transform.tree import tree
from etl.warehouse.model.part import Lookup, Part
from etl.warehouse.tables import INT, KEY, TEXT, TIME, current, family, field, given

if TYPE_CHECKING:
    from etl.extract.http import Seam, Sign


def _auth(source: ZoomSource, seam: "Seam") -> "tuple[Sign, Judge]":
    client = Client(
        source.token_url,
        source.client_id,
        source.client_secret.get_secret_value(),
        {"grant_type": "account_credentials", "account_id": source.account_id},
        provider="Zoom",
        app="the server-to-server OAuth app",
        settings="account_id, client_id and client_secret",
        active="the server-to-server OAuth app is activated in the Zoom marketplace",
    )
    token = AccessToken(client, seam)
    return token, zoom.judge(token)


flows = current(
    "zoom.flows",
    "Flows of Zoom Contact Center.",
    field("flow_id", KEY, "Id of the flow."),
    field("flow_name", TEXT, "Name of the flow."),
    field("flow_description", TEXT, "Description of the flow."),
    field("channel_type", TEXT, "Deprecated by Zoom: voice, chat, sms, video, in_app_chat."),
    field("channel", TEXT, "Channel: voice, video, messaging, email, …"),
    field("channel_source", TEXT, "Source within the channel: web_chat, sms, whatsapp, …"),
    field("status", TEXT, "draft, published, archived, debugging, …"),
    field("modified_by", TEXT, "Id of the user who changed the flow last."),
    field("last_modified_time", TIME, "When the flow was changed last."),
    keys=1,
    record="flows[]",
    sought_by="flow_id",
)

versions = current(
    "zoom.flow_versions",
    "Versions of the flows of Zoom Contact Center.",
    given("flow_id", KEY, "flows[].flow_id: the flow that the version belongs to."),
    field("flow_version_id", KEY, "Id of the version."),
    field("flow_version", INT, "Number of the version."),
    field("flow_version_description", TEXT, "Description of the version."),
    field("flow_version_status", TEXT, "draft, published, archived, debugging, …"),
    field("flow_version_modified_by", TEXT, "Id of the user who changed the version last."),
    field("flow_version_last_modified_time", TIME, "When the version was changed last."),
    keys=2,
    record="flows[].flow_versions[]",
    parent=flows,
)

entry_points = current(
    "zoom.entry_points",
    "Entry points (numbers, addresses, web chats) that reach a flow of Zoom Contact Center.",
    given("flow_id", KEY, "flows[].flow_id: the flow that the entry point reaches."),
    field("entry_id", KEY, "Id of the entry point."),
    field("entry_name", TEXT, "Name (video, web chat, in-app chat)."),
    field("entry_number", TEXT, "Phone number, E.164 (voice, sms). Personal data."),
    field("entry_language", TEXT, "Language tag, such as en-US."),
    field("email_address", TEXT, "E-mail address (email). Personal data."),
    keys=2,
    record="flows[].entry_points[]",
    parent=flows,
)

# Accounts that Zoom has not moved to `channel` yet have only the deprecated `channel_type`.
_CHANNEL = """coalesce(nullif(r.channel, ''), CASE r.channel_type
    WHEN 'chat' THEN 'messaging' WHEN 'sms' THEN 'messaging' WHEN 'in_app_chat' THEN 'messaging'
    ELSE nullif(r.channel_type, '') END)"""
_CHANNEL_SOURCE = """CASE WHEN r.channel <> '' THEN nullif(r.channel_source, '')
    ELSE CASE r.channel_type WHEN 'chat' THEN 'web_chat' WHEN 'sms' THEN 'sms'
    WHEN 'in_app_chat' THEN 'in_app_chat' END END"""

PARTS = (
    Part(
        view="flows",
        table=flows,
        columns={
            "flow_id": "r.flow_id",
            "name": "r.flow_name",
            "description": "r.flow_description",
            "channel": _CHANNEL,
            "channel_source": _CHANNEL_SOURCE,
            "status": "nullif(r.status, '')",
            "is_live": "coalesce(r.status = 'published', false)",
            "modified_by": "nullif(r.modified_by, '')",
            "modified_at": "r.last_modified_time",
        },
        looked_up={
            "has_unpublished_changes": "coalesce(r.status = 'published'"
            " AND versions.newest > versions.published, false)",
            "published_version": "versions.published",
            "newest_version": "versions.newest",
        },
        lookup=Lookup(
            "versions",
            versions,
            on={"source": "r.source", "flow_id": "r.flow_id"},
            facts={
                "newest": "max(each.flow_version)",
                "published": "max(each.flow_version)"
                " FILTER (WHERE each.flow_version_status = 'published')",
            },
        ),
        compared={"channel_type": "r.channel_type"},
    ),
    Part(
        view="flow_versions",
        table=versions,
        columns={
            "flow_id": "r.flow_id",
            "version_id": "r.flow_version_id",
            "version_number": "r.flow_version",
            "status": "nullif(r.flow_version_status, '')",
            "description": "r.flow_version_description",
            "modified_by": "nullif(r.flow_version_modified_by, '')",
            "modified_at": "r.flow_version_last_modified_time",
        },
    ),
    Part(
        view="entry_points",
        table=entry_points,
        columns={
            "flow_id": "r.flow_id",
            "entry_point_id": "r.entry_id",
            "kind": "CASE WHEN r.entry_number <> '' THEN 'phone' WHEN r.email_address <> ''"
            " THEN 'email' WHEN r.entry_name <> '' THEN 'name' END",
            "address": "coalesce(nullif(r.entry_number, ''), nullif(r.email_address, ''),"
            " nullif(r.entry_name, ''))",
            "address_key": "CASE WHEN r.entry_number <> ''"
            " THEN nullif(regexp_replace(r.entry_number, '[^0-9+]', '', 'g'), '')"
            " ELSE lower(nullif(r.email_address, '')) END",
            "name": "r.entry_name",
            "language": "r.entry_language",
        },
    ),
)

STREAM = Stream(
    name="flows",
    tables=family(flows),
    auth=_auth,
    pages=zoom.flows,
    transform=tree(flows, noun="flow"),
    look_up=zoom.look_up_flow,
    probe=zoom.probe_flows,
    modified="last_modified_time",
    parts=PARTS,
    request_id="x-zm-trackingid",
)

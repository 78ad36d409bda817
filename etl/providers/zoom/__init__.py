"""Zoom Contact Center: flows, their versions and their entry points."""

from etl.providers.declare import Provider, Stream
from etl.providers.zoom.source import ZoomSource


def _streams() -> tuple[Stream, ...]:
    from etl.providers.zoom import flows

    return (flows.STREAM,)


PROVIDER = Provider(
    name="zoom",
    title="Zoom Contact Center",
    comment="Zoom Contact Center as it is now, in Zoom's own field names.",
    settings=ZoomSource,
    setup="App Marketplace → Develop → Build App → Server-to-Server OAuth.",
    credentials="a Server-to-Server OAuth app: account ID, client ID, client secret",
    rights="`contact_center:read:list_flows:admin`; also `contact_center:read:flow:admin`, with"
    " which callflow asks whether a flow that is no longer listed is gone (classic:"
    " `contact_center_flow:read:admin`)",
    example="""
[sources.zoom_eu]
provider = "zoom"
account_id = "…"
client_id = "…"
client_secret = "…"
base_url = "https://api.zoom.us/v2"
token_url = "https://zoom.us/oauth/token"
requests_per_second = 10        # the account shares its limit with its other apps; 0 = unlimited
""",
    names=("flows",),
    declared=_streams,
)

"""Twilio: Studio, addresses, phone numbers, and legacy Flex messaging."""

from etl.providers.declare import Provider, Stream
from etl.providers.twilio.source import TwilioSource


def _streams() -> tuple[Stream, ...]:
    from etl.providers.twilio import addresses, flex, phone_numbers, studio

    return (*flex.STREAMS, *studio.STREAMS, *addresses.STREAMS, *phone_numbers.STREAMS)


PROVIDER = Provider(
    name="twilio",
    title="Twilio",
    comment="Twilio as it is now, in Twilio's own field names.",
    settings=TwilioSource,
    setup="Console → Account → API keys & tokens. Use either the auth token or an API key.",
    credentials="account SID with its auth token, or with an API key and its secret",
    rights="to read Studio flows, Conversations addresses, incoming phone numbers and Flex; a list"
    " that the account or the key lacks is not available, and fails nothing",
    example="""
[sources.twilio_main]
provider = "twilio"
account_sid = "…"               # AC and 32 hexadecimal digits
auth_token = "…"
base_url = "https://flex-api.twilio.com"
studio_url = "https://studio.twilio.com"
conversations_url = "https://conversations.twilio.com"
api_url = "https://api.twilio.com"
requests_per_second = 5

# or, instead of auth_token:
api_key_sid = "…"               # SK and 32 hexadecimal digits
api_key_secret = "…"

[sources.twilio_main.channels]  # each stream of a source can have such a table
on_absent = "keep"              # no longer listed: "keep" it, or delete it once "confirm"ed
""",
    names=("flex_flows", "channels", "studio_flows", "addresses", "phone_numbers"),
    declared=_streams,
)

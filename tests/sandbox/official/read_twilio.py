"""Read an account with Twilio's own client, and print what it found; run where it is installed.

It gets {"url", "user", "secret", "account", "page_size"} as its first argument, in JSON.
"""

import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from twilio.base.exceptions import TwilioException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client


class Loopback(TwilioHttpClient):  # type: ignore[misc]  # the one way in that the client offers
    """Sends what is for a host of Twilio's to the emulator instead."""

    def __init__(self, url: str) -> None:
        super().__init__(timeout=20)
        self.session.trust_env = False
        self.emulator = url

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if host.endswith(".twilio.com"):
            url = f"{self.emulator}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        return super().request(method, url, *args, **kwargs)


def shown(instance: Any) -> dict[str, Any]:
    """Return the members of a resource as the client understood them."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in vars(instance).items()
        if not name.startswith("_")
    }


def main() -> None:
    given = json.loads(sys.argv[1])
    client = Client(
        given["user"], given["secret"], given["account"], http_client=Loopback(given["url"])
    )
    size = given["page_size"]
    flows = client.studio.v2.flows
    lists: dict[str, Callable[[], Any]] = {
        "flex_flows": lambda: client.flex_api.v1.flex_flow.list(page_size=size),
        "channels": lambda: client.flex_api.v1.channel.list(page_size=size),
        "studio_flows": lambda: flows.list(page_size=size),
        "addresses": lambda: client.conversations.v1.address_configurations.list(page_size=size),
        "phone_numbers": lambda: client.incoming_phone_numbers.list(page_size=size),
    }
    found: dict[str, Any] = {}
    for name, read in lists.items():
        try:
            found[name] = [shown(each) for each in read()]
        except TwilioException as error:  # of a page it has only the text of an answer
            found[name] = {"refused": str(error.args[1]) if len(error.args) > 1 else str(error)}
    found["one"] = {}
    if isinstance(found["studio_flows"], list):
        for flow in found["studio_flows"]:
            one = flows(flow["sid"])
            found["one"][flow["sid"]] = {
                "flow": shown(one.fetch()),
                "listed": [shown(each) for each in one.revisions.list(page_size=size)],
                "newest": shown(one.revisions("LatestRevision").fetch()),
                "live": live(one),
            }
    json.dump(found, sys.stdout)


def live(flow: Any) -> Any:
    try:
        return shown(flow.revisions("LatestPublished").fetch())
    except TwilioException as error:
        return {"status": error.status, "code": error.code}


if __name__ == "__main__":
    main()

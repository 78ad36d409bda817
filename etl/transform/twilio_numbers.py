"""Which Studio flow a webhook of a Twilio phone number belongs to."""

import re
from collections.abc import Callable
from typing import Any

_FLOW = re.compile(
    r"(?i:[a-z][a-z0-9+.-]*://(?:[^/?#@\s\\]*@)?webhooks\.twilio\.com)(?::[0-9]{1,5})?"
    r"/v1/Accounts/(AC[0-9a-fA-F]{32})/Flows/(FW[0-9a-fA-F]{32})/?(?:[?#].*)?",
    re.ASCII | re.DOTALL,
)


def studio_flow(member: str) -> Callable[[dict[str, Any]], str | None]:
    """Return a function (record → sid of the Studio flow that its URL `member` starts, or None).

    Host and path decide; scheme, user and query do not. The flow has to be of the number's own
    account: a flow is known by its account and its sid, and no list of this account has that of
    another one.
    """

    def derive(record: dict[str, Any]) -> str | None:
        url, account = record.get(member), record.get("account_sid")
        found = _FLOW.fullmatch(url) if isinstance(url, str) else None
        if found is None or account not in (found[1], None):
            return None
        return found[2]

    return derive

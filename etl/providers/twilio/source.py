"""How a Twilio account is configured, and how requests to it are signed."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from etl.config.settings import Source
from etl.config.values import Rate, Secret, WebUrl
from etl.extract import twilio
from etl.extract.url import basic
from etl.extract.verdict import Judge

if TYPE_CHECKING:
    from etl.extract.http import Seam, Sign


def _beside_flex(product: str) -> Callable[[dict[str, Any]], str]:
    """Return the default of a product's address: beside that of Flex, or the same one."""

    def address(given: dict[str, Any]) -> str:
        base = str(given.get("base_url", ""))
        return re.sub("^https://flex-api(?=[.])", f"https://{product}", base)

    return address


class TwilioSource(Source):
    """A Twilio account, reached with its auth token, or with an API key and its secret.

    Each of its products has an address: Flex (`base_url`), Studio, Conversations, and the REST API.
    Those that are not given follow from `base_url`, so a source that is pointed at a test server
    sends nothing to Twilio.

    Default pace: 5 requests per second, the lower one of the two lists' limits (Twilio's docs,
    "Flex limits", legacy messaging).
    """

    account: ClassVar[str] = "account_sid"
    logins: ClassVar[tuple[tuple[str, str], ...]] = (
        ("account_sid", "auth_token"),
        ("api_key_sid", "api_key_secret"),
    )

    provider: Literal["twilio"] = "twilio"
    account_sid: Annotated[str, Field(pattern="^AC[0-9a-fA-F]{32}$")] = Field(
        description="AC and 32 hexadecimal digits", examples=["AC" + 32 * "0"]
    )
    auth_token: Secret | None = Field(default=None, description="the account's auth token")
    api_key_sid: Annotated[str, Field(pattern="^SK[0-9a-fA-F]{32}$")] | None = Field(
        default=None, description="SK and 32 hexadecimal digits", examples=["SK" + 32 * "0"]
    )
    api_key_secret: Secret | None = Field(default=None, description="the secret of the API key")
    base_url: WebUrl = "https://flex-api.twilio.com"
    studio_url: WebUrl = Field(default_factory=_beside_flex("studio"))
    conversations_url: WebUrl = Field(default_factory=_beside_flex("conversations"))
    api_url: WebUrl = Field(default_factory=_beside_flex("api"))
    requests_per_second: Rate = 5.0

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> dict[str, str]:
        """Require exactly one way to log in, with all its keys."""
        half = {"api_key_sid", "api_key_secret"} - given.keys()
        if "auth_token" in given:
            both = "given together with api_key_sid or api_key_secret; expected one way to log in"
            return {"auth_token": both} if len(half) < 2 else {}
        if len(half) == 2:
            return {"auth_token": "missing; expected auth_token, or api_key_sid and api_key_secret"}
        return dict.fromkeys(half, "missing; an API key needs both api_key_sid and api_key_secret")


def auth(source: TwilioSource, seam: "Seam") -> "tuple[Sign, Judge]":
    """Sign with the API key where there is one, else with the account's auth token."""
    user, secret = source.account_sid, source.auth_token
    if source.api_key_sid and source.api_key_secret:
        user, secret = source.api_key_sid, source.api_key_secret
    headers = {"authorization": basic(user, secret.get_secret_value() if secret else "")}
    return lambda method, url, body: headers, twilio.judge

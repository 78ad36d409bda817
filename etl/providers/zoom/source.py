"""How a Zoom account is configured."""

from typing import ClassVar, Literal

from pydantic import Field

from etl.config.settings import Source
from etl.config.values import Rate, Secret, WebUrl, Word


class ZoomSource(Source):
    """A Zoom account, reached with a server-to-server OAuth app.

    Default pace: 10 requests per second, the lowest Medium limit of Contact Center (Zoom's docs,
    "Rate limits").
    """

    account: ClassVar[str] = "account_id"
    logins: ClassVar[tuple[tuple[str, str], ...]] = (("client_id", "client_secret"),)

    provider: Literal["zoom"] = "zoom"
    account_id: Word = Field(description="the account ID of the server-to-server OAuth app")
    client_id: Word = Field(description="the client ID of the server-to-server OAuth app")
    client_secret: Secret = Field(description="the client secret of the server-to-server OAuth app")
    base_url: WebUrl = "https://api.zoom.us/v2"
    token_url: WebUrl = "https://zoom.us/oauth/token"  # noqa: S105
    requests_per_second: Rate = 10.0

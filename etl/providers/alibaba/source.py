"""How an Alibaba Cloud account is configured, and how requests to it are signed."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from etl.config.settings import Source
from etl.config.values import InstanceIds, Rate, Secret, TimeZone, WebUrl, Word
from etl.extract import alibaba
from etl.extract.acs3 import Signer
from etl.extract.verdict import Judge

if TYPE_CHECKING:
    from etl.extract.http import Seam, Sign


class AlibabaSource(Source):
    """An Alibaba Cloud account; `timezone` is the zone of the times that it sends without one.

    Default pace: 5 requests per second; no limit is documented for CCC; its sister products state
    5 to 10 per account.
    """

    account: ClassVar[str] = "access_key_id"
    scopes: ClassVar[str | None] = "instance_ids"
    zone: ClassVar[str | None] = "timezone"

    provider: Literal["alibaba"] = "alibaba"
    access_key_id: Word = Field(description="the ID of a RAM user's access key")
    access_key_secret: Secret = Field(description="the secret of that access key")
    security_token: Secret | None = Field(
        default=None, description="the STS token that belongs to a temporary key"
    )
    instance_ids: InstanceIds = Field(
        description="a list of CCC instance ids, each once", examples=[["ccc-test"]]
    )
    base_url: WebUrl = "https://ccc.cn-shanghai.aliyuncs.com"
    timezone: TimeZone = "Asia/Shanghai"
    requests_per_second: Rate = 5.0


def auth(source: AlibabaSource, seam: "Seam", *, action: str) -> "tuple[Sign, Judge]":
    """Sign each request of an `action` with the access key."""
    token = source.security_token
    sign = Signer(
        source.access_key_id,
        source.access_key_secret.get_secret_value(),
        token.get_secret_value() if token else None,
        action,
        now=seam.now,
    )
    return sign, alibaba.judge(seam.now)

"""Alibaba Cloud CCC: IVR contact flows, their numbers, what their Definitions say and lack."""

from etl.providers.alibaba.source import AlibabaSource
from etl.providers.declare import Provider, Stream


def _streams() -> tuple[Stream, ...]:
    from etl.providers.alibaba import contact_flows, phone_numbers

    return (contact_flows.STREAM, phone_numbers.STREAM)


PROVIDER = Provider(
    name="alibaba",
    title="Alibaba Cloud CCC",
    comment="Alibaba Cloud CCC as it is now, in Alibaba's own field names (snake_case).",
    settings=AlibabaSource,
    setup="RAM console → Users → AccessKey.",
    credentials="the access key of a RAM user (or STS), the CCC instance ids",
    rights="read access to Cloud Call Center: ccc:ListContactFlows, ccc:ListPhoneNumbers",
    example="""
[sources.alibaba_sh]
provider = "alibaba"
access_key_id = "…"
access_key_secret = "…"
instance_ids = ["…"]            # one or more instances of Cloud Call Center
base_url = "https://ccc.cn-shanghai.aliyuncs.com"
timezone = "Asia/Shanghai"      # Alibaba sends times without a zone; they are read in this one
requests_per_second = 5

# only with temporary credentials (STS):
security_token = "…"
""",
    names=("contact_flows", "phone_numbers"),
    declared=_streams,
)

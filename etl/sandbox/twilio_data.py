"""Generated and awkward Flex Flows and channels of Twilio."""

from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache
from random import Random
from typing import Literal

from etl.sandbox.data import (
    AWKWARD_NAME,
    NEWEST,
    Record,
    any_language,
    name,
    past,
    phone_numbers,
    random_of,
    zulu,
)

_FLEX_API = "https://flex-api.twilio.com/v1"


def _sid(random: Random, kind: str) -> str:
    return f"{kind}{random.getrandbits(128):032x}"


def flex_flows(
    random: Random, count: int, account_sid: str, date_form: Literal["Z", "+00:00"] = "Z"
) -> list[Record]:
    """Invent rows of `GET /v1/FlexFlows`, of all three integration types."""
    service, workspace = _sid(random, "IS"), _sid(random, "WS")
    numbers = phone_numbers(random)
    flows = []
    for _ in range(count):
        sid, created, language = _sid(random, "FO"), past(random), any_language(random)
        channel_type = random.choices(
            ("web", "sms", "whatsapp", "facebook", "line", "custom"), (40, 22, 18, 8, 4, 8)
        )[0]
        number = next(numbers)
        identity = {"sms": number, "whatsapp": f"whatsapp:{number}"}
        kind, integration = _integration(random, workspace)
        changed = created + (NEWEST - created) * random.random()
        flows.append(
            {
                "sid": sid,
                "account_sid": account_sid,
                "date_created": zulu(created)[:-1] + date_form,
                "date_updated": zulu(changed)[:-1] + date_form,
                "friendly_name": name(random, language),
                "chat_service_sid": service,
                "channel_type": channel_type,
                "contact_identity": identity.get(channel_type),
                "enabled": random.random() < 0.85,
                "integration_type": kind,
                "integration": integration,
                "long_lived": random.random() < 0.2,
                "janitor_enabled": random.random() < 0.7,
                "url": f"{_FLEX_API}/FlexFlows/{sid}",
            }
        )
    return flows


def _integration(random: Random, workspace: str) -> tuple[str, Record]:
    kind = random.choices(("studio", "task", "external"), (60, 25, 15))[0]
    if kind == "studio":
        return kind, {"flow_sid": _sid(random, "FW"), "retry_count": random.randrange(4)}
    if kind == "external":
        url = f"https://bot{random.randrange(20)}.example.com/inbound"
        return kind, {"url": url, "retry_count": 3}
    return kind, {
        "workspace_sid": workspace,
        "workflow_sid": _sid(random, "WW"),
        "channel": random.choice(("default", "chat", _sid(random, "TC"))),
        "timeout": random.choice((3600, 86_400)),
        "priority": random.randrange(5),
        "creation_on_message": random.random() < 0.3,
    }


def channels(
    random: Random,
    count: int,
    account_sid: str,
    flex_flows: list[Record],
    date_form: Literal["Z", "+00:00"] = "Z",
) -> Iterator[tuple[str, bytes, str]]:
    """Yield rows of `GET /v1/Channels` for `Store.load`: one per conversation, the oldest first.

    Busy flows have many, some have none, and about 2 % belong to flex flows that were deleted.
    The rows are written as text because there may be a million of them.
    """
    places = [(flow["sid"], flow["integration_type"] == "task") for flow in flex_flows]
    weights = [random.paretovariate(1.2) for _ in places]
    deleted = [(_sid(random, "FO"), False) for _ in range(3)]
    places += deleted
    weights += [0.02 / 0.98 * sum(weights) / 3 or 1.0] * 3
    chosen = iter(random.choices(places, weights, k=count))
    step = 180 * 86_400 / max(count, 1)
    start = NEWEST.timestamp() - 180 * 86_400
    for number, (flow_sid, is_task) in enumerate(chosen):
        digits = random.randbytes(48).hex()
        sid = f"CH{digits[:32]}"
        created = int(start + number * step)
        updated = _stamp(created + random.getrandbits(10)) + date_form
        task = f'"WT{digits[32:64]}"' if is_task else "null"
        text = (
            f'{{"sid":"{sid}","account_sid":"{account_sid}","flex_flow_sid":"{flow_sid}",'
            f'"user_sid":"US{digits[64:]}","task_sid":{task},'
            f'"date_created":"{_stamp(created)}{date_form}","date_updated":"{updated}",'
            f'"url":"{_FLEX_API}/Channels/{sid}"}}'
        )
        yield sid, text.encode(), updated


def _stamp(seconds: int) -> str:
    """Write seconds since 1970 UTC as ISO 8601 without a zone; quickly, for a million of them."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{_date(day)}T{hour:02}:{minute:02}:{second:02}"


@cache
def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


# Rows that the documents allow but naive code does not expect. Every value fits its column.


def awkward_flex_flows() -> list[Record]:
    """Return null enums, every odd `integration`, both forms of dates."""
    names = flex_flows(random_of(0, "names"), 1, "")[0].keys()
    base: Record = {"account_sid": "AC" + "5" * 32, "date_updated": "2023-05-04T09:42:00+00:00"}

    def sid(number: int) -> str:
        return f"FO{number:032x}"

    return [
        {"sid": sid(1)},
        {**dict.fromkeys(names), "sid": sid(2)},
        {**base, "sid": sid(3), "friendly_name": "", "contact_identity": "", "url": ""},
        {**base, "sid": sid(4), "friendly_name": AWKWARD_NAME, "channel_type": "carrier_pigeon"},
        {**base, "sid": sid(5), "integration_type": "studio", "integration": {}},
        {**base, "sid": sid(6), "integration_type": "external", "integration": None},
        {
            **base,
            "sid": sid(7),
            "integration_type": "task",
            "integration": {
                "workspace_sid": None,
                "workflow_sid": "",
                "timeout": 0,
                "priority": -1,
                "creation_on_message": False,
                "added_later": {"x": 1},
            },
            "enabled": False,
        },
        {**base, "sid": sid(8), "integration_type": "agent", "integration": {"retry_count": 0}},
        {**base, "sid": "FO" + "ABCDEF01" * 4, "added_later": 1, "date_created": None},
    ]


def awkward_channels() -> list[Record]:
    """Return nulls, a deleted flex flow, upper-case sids."""
    names = ["account_sid", "flex_flow_sid", "user_sid", "task_sid", "date_created", "url"]
    account = "AC" + "5" * 32
    return [
        {"sid": "CH" + "1" * 32},
        {**dict.fromkeys(names), "sid": "CH" + "2" * 32},
        {"sid": "CH" + "3" * 32, "account_sid": account, "flex_flow_sid": "FO" + "9" * 32},
        {"sid": "CH" + "ABCDEF01" * 4, "date_created": "2023-05-04T09:42:00+00:00", "url": ""},
        {"sid": "CH" + "abcdef01" * 4, "date_updated": "2023-05-04T09:42:00.250Z", "mode": "new"},
    ]

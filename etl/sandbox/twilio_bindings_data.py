"""Generated and awkward addresses and telephone numbers of Twilio, and which flow each reaches."""

from collections.abc import Sequence
from random import Random

from etl.sandbox import data, twilio_numbers, twilio_studio
from etl.sandbox.data import Record, any_language, name, past, zulu


def addresses(
    random: Random,
    count: int,
    account_sid: str,
    studio_flows: Sequence[Record],
    flex_flows: Sequence[Record],
) -> list[Record]:
    """Invent rows of Configuration/Addresses: to Studio flows, webhooks, and to nothing but Twilio.

    The first ones succeed Flex Flows, of which every other one with an identity has a successor.
    One of six is bound to a Studio flow that has no way for conversations.
    """
    service = _sid(random, "IS")
    succeeded = [flow for flow in flex_flows if flow["contact_identity"]][::2][: (count + 1) // 2]
    numbers = data.phone_numbers(random)
    ways = {
        way: [flow["sid"] for flow in studio_flows if _takes_conversations(flow) is way]
        for way in (True, False)
    }
    found = []
    for number in range(count):
        if number < len(succeeded):
            kind = succeeded[number]["channel_type"]
            identity = succeeded[number]["contact_identity"]
        else:
            kind = ("sms", "whatsapp", "chat", "messenger", "email")[number % 5]
            identity = _identity(random, kind, next(numbers))
        at, language = past(random, 400), any_language(random)
        found.append(
            twilio_numbers.address(
                _sid(random, "IG"),
                account_sid,
                kind,
                zulu(at),
                address=identity,
                friendly_name=name(random, language),
                address_country=language[-2:] if kind in ("sms", "whatsapp") else None,
                auto_creation=_creation(random, number, service, ways),
            )
        )
    return found


def _identity(random: Random, kind: str, number: str) -> str:
    return {
        "sms": number,
        "whatsapp": f"whatsapp:{number}",
        "chat": _sid(random, "IS"),
        "messenger": f"messenger:{random.randrange(10**14, 10**15)}",
        "email": f"desk{random.randrange(1000)}@example.com",
    }[kind]


def _takes_conversations(flow: Record) -> bool:
    """Return whether a flow's trigger leads anywhere on a message of a conversation."""
    trigger = twilio_studio.revisions(flow)[-1]["definition"]["states"][0]
    ways = {way["event"]: way.get("next") for way in trigger["transitions"]}
    return bool(ways.get("incomingConversationMessage"))


def _creation(random: Random, number: int, service: str, ways: dict[bool, list[str]]) -> Record:
    what = number % 6
    if what == 3:
        return {"enabled": True, "type": "default", "conversation_service_sid": service}
    flows = ways[what != 1]
    if what == 2 or not flows:
        return {
            "enabled": True,
            "type": "webhook",
            "conversation_service_sid": service,
            "webhook_url": f"https://bot{random.randrange(20)}.example.com/hook?key=invented",
            "webhook_method": "POST",
            "webhook_filters": ["onMessageAdded", "onParticipantAdded"],
        }
    return {
        "enabled": what != 4,
        "type": "studio",
        "conversation_service_sid": service,
        "studio_flow_sid": random.choice(flows),
        "studio_retry_count": random.randrange(4),
    }


def phone_numbers(
    random: Random, count: int, account_sid: str, studio_flows: Sequence[Record]
) -> list[Record]:
    """Invent rows of IncomingPhoneNumbers: of eight, one reaches nothing, one a mere draft."""
    given = data.phone_numbers(random)
    live = [flow for flow in studio_flows if _is_published(flow)]
    drafts = [flow for flow in studio_flows if not _is_published(flow)]
    found = []
    for number in range(count):
        flow = (random.choice(live) if number else live[0]) if live else {}
        draft = random.choice(drafts) if drafts else flow
        at = twilio_numbers.stamp(past(random).timestamp())
        found.append(
            twilio_numbers.number(
                _sid(random, "PN"),
                account_sid,
                next(given),
                at,
                friendly_name=name(random, any_language(random)),
                **_bound(random, number % 8, _hook(flow), _hook(draft)),
            )
        )
    return found


def _bound(random: Random, what: int, flow: str, draft: str) -> Record:
    """Return what a number reaches; `flow` and `draft` are the webhooks of Studio flows."""
    elsewhere = f"https://ivr{random.randrange(9)}.example.com"
    demo = "https://demo.twilio.com/welcome"
    ways: tuple[Record, ...] = (
        {"voice_url": flow},
        {"voice_url": flow, "sms_url": flow},
        {"trunk_sid": _sid(random, "TK"), "voice_url": None},
        {"voice_application_sid": _sid(random, "AP"), "voice_url": f"{elsewhere}/ignored"},
        {"voice_url": f"{elsewhere}/voice?token=invented", "sms_url": f"{demo}/sms/reply/"},
        {},
        {"voice_url": f"{demo}/voice/", "sms_application_sid": _sid(random, "AP")},
        {"voice_url": draft},
    )
    return ways[what]


def _hook(flow: Record) -> str:
    return str(flow.get("webhook_url", "")).replace("http:", "https:")


def _is_published(flow: Record) -> bool:
    return any(each["status"] == "published" for each in flow["revisions"])


def _sid(random: Random, kind: str) -> str:
    return f"{kind}{random.getrandbits(128):032x}"


# Rows that the documents allow but naive code does not expect. Every value fits its column.


def awkward_addresses() -> list[Record]:
    """Return types unknown today, every odd `auto_creation`, nulls, a twin of an address."""
    account, at = "AC" + "5" * 32, "2023-05-04T09:42:00+00:00"
    creations: tuple[object, ...] = (
        None,
        {},
        {"enabled": None, "type": None},
        {"type": "added-later", "enabled": True, "added_later": {"x": 1}},
        {"type": "studio", "enabled": True, "studio_flow_sid": None, "studio_retry_count": None},
        {"type": "studio", "enabled": False, "studio_flow_sid": "", "studio_retry_count": 0},
        {"type": "webhook", "enabled": True, "webhook_url": "", "webhook_filters": None},
        {"type": "webhook", "enabled": True, "webhook_url": _ODD_URLS[0], "webhook_filters": []},
    )
    odd = [
        twilio_numbers.address(f"IG{n:032x}", account, "sms", at, auto_creation=creation)
        for n, creation in enumerate(creations, 1)
    ]
    return [
        *odd,
        {"sid": f"IG{101:032x}"},
        {**dict.fromkeys(odd[0]), "sid": f"IG{102:032x}"},
        twilio_numbers.address(f"IG{103:032x}", account, "pigeon", at, address="+442079460000"),
        twilio_numbers.address(f"IG{104:032x}", account, "sms", at, address="+442079460000"),
        {"sid": "IG" + "ABCDEF01" * 4, "friendly_name": data.AWKWARD_NAME, "added_later": 1},
    ]


_ODD_URLS = (
    "https://user:invented@ivr.example.com:8443/v1/Flows/FW1?key=invented#part",
    f"https://webhooks.twilio.com.example.com/v1/Accounts/AC/Flows/FW{'1' * 32}",
    f"https://webhooks.twilio.com@example.com/v1/Accounts/AC/Flows/FW{'1' * 32}",
    f"HTTP://Webhooks.Twilio.com:443/v1/Accounts/AC{'5' * 32}/Flows/FW{'1' * 32}?foo=bar",
    f"https://webhooks.twilio.com/v1/Accounts/AC{'5' * 32}/Flows/FW1",
    "not a URL at all {{x}}",
    "https://[::1",
    "",
)


def awkward_numbers() -> list[Record]:
    """Return webhooks with secrets, hosts that look like Twilio's, times as ISO 8601, nulls."""
    account, at = "AC" + "5" * 32, "Thu, 04 May 2023 09:42:00 +0000"
    odd = [
        twilio_numbers.number(f"PN{n:032x}", account, f"+4420794600{n:02}", at, voice_url=url)
        for n, url in enumerate(_ODD_URLS, 1)
    ]
    return [
        *odd,
        {"sid": f"PN{101:032x}"},
        {**dict.fromkeys(odd[0]), "sid": f"PN{102:032x}"},
        {**odd[0], "sid": f"PN{103:032x}", "capabilities": None, "date_created": None},
        {**odd[0], "sid": f"PN{104:032x}", "capabilities": {}, "status": "", "trunk_sid": ""},
        {"sid": "PN" + "ABCDEF01" * 4, "friendly_name": data.AWKWARD_NAME, "added_later": 1},
    ]

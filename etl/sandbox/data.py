"""Invented contact centres: seeded records in the providers' own shapes.

Nobody's data: names are departments and purposes, e-mail addresses end in example.com (RFC 2606),
and telephone numbers come from ranges set aside for drama (Ofcom, Bundesnetzagentur, NANP
555-01xx, ARCEP, ACMA) or end in `****`, as the numbers in Alibaba's API reference do.
"""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from random import Random
from typing import Any, Literal

from etl.sandbox.alibaba import Alibaba
from etl.sandbox.twilio import Twilio
from etl.sandbox.zoom import Zoom

Record = dict[str, Any]

NEWEST = datetime(2025, 12, 31, 18, 0, tzinfo=UTC)
"""No generated time is later, so that a change made by a test sorts after all of them."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many rows of each kind; the defaults make a demo in which every list has pages."""

    zoom_flows: int = 240
    twilio_flex_flows: int = 60
    twilio_channels: int = 3000
    alibaba_flows: int = 130  # in each instance

    @classmethod
    def of(cls, flows: int, channels: int) -> "Sizes":
        """`flows` per provider and instance, a quarter of that Flex Flows, `channels` channels."""
        return cls(flows, (flows + 3) // 4, channels, flows)


EMPTY = Sizes(0, 0, 0, 0)
"""For tests that add their own rows."""


def fill(zoom: Zoom, twilio: Twilio, alibaba: Alibaba, sizes: Sizes, seed: int) -> None:
    """Add generated rows to the emulators; each list has a generator of its own."""
    for flow in zoom_flows(_random(seed, "zoom"), sizes.zoom_flows):
        zoom.flows.add(flow)
    account = twilio.account_sid
    flex_flows = twilio_flex_flows(
        _random(seed, "flex"), sizes.twilio_flex_flows, account, twilio.date_form
    )
    for flow in flex_flows:
        twilio.flex_flows.add(flow)
    twilio.channels.load(
        twilio_channels(
            _random(seed, "channels"), sizes.twilio_channels, account, flex_flows, twilio.date_form
        )
    )
    for instance_id, store in alibaba.flows.items():
        for flow in alibaba_flows(_random(seed, instance_id), sizes.alibaba_flows, instance_id):
            store.add(flow)


def _random(seed: int, what: str) -> Random:
    return Random(f"{seed} {what}")  # noqa: S311  (not for secrets)


# -- words ----------------------------------------------------------------------------------------

LANGUAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "en-US": (
        ("Billing", "Sales", "Returns", "Technical Support", "Claims", "Pharmacy", "Fraud Desk"),
        ("Main Line", "After Hours", "Holiday Greeting", "Callback", "VIP Queue", "Survey"),
        "Thank you for calling. Please choose one of the following options.",
    ),
    "en-GB": (
        ("Accounts", "Bookings", "Complaints", "Deliveries", "Membership", "Lost Property"),
        ("Welcome Menu", "Out of Hours", "Bank Holiday", "Overflow", "Feedback"),
        "Welcome. Calls may be recorded. Please listen to the options.",
    ),
    "de-DE": (
        ("Kundendienst", "Rechnungen", "Störungsannahme", "Retouren", "Versand", "Verträge"),
        ("Begrüßung", "Außerhalb der Öffnungszeiten", "Feiertag", "Rückruf", "Zufriedenheit"),
        "Herzlich willkommen. Bitte wählen Sie.",
    ),
    "fr-FR": (
        ("Service client", "Facturation", "Réservations", "Livraisons", "Réclamations"),
        ("Accueil", "Fermeture", "Jours fériés", "Rappel", "Enquête de satisfaction"),
        "Bienvenue. Veuillez faire votre choix après le bip.",
    ),
    "es-ES": (
        ("Atención al cliente", "Facturación", "Pedidos", "Averías", "Devoluciones"),
        ("Menú principal", "Fuera de horario", "Festivos", "Llamada de vuelta", "Encuesta"),
        "Bienvenido. Elija una de las siguientes opciones, por favor.",
    ),
    "ja-JP": (
        ("ご請求窓口", "技術サポート", "ご予約センター", "配送受付", "修理受付"),
        ("代表番号", "営業時間外", "祝日案内", "折り返し予約", "満足度調査"),
        "お電話ありがとうございます。ご希望の番号を押してください。",
    ),
    "zh-CN": (
        ("客户服务", "账单咨询", "技术支持", "售后服务", "会员中心", "物流查询", "投诉受理"),
        ("主流程", "非工作时间", "节假日", "回拨预约", "满意度调查", "贵宾专线"),
        "您好,欢迎致电。请根据语音提示选择。",
    ),
}
"""Language → departments, purposes, a greeting."""

_WEIGHTS = (28, 14, 14, 8, 8, 14, 14)


def _name(random: Random, language: str) -> str:
    departments, purposes, _ = LANGUAGES[language]
    return f"{random.choice(departments)} – {random.choice(purposes)}"


def _language(random: Random) -> str:
    return random.choices(list(LANGUAGES), _WEIGHTS)[0]


FICTION = (
    "+121255501xx",  # NANP: 555-0100 to 555-0199 of any area code
    "+141555501xx",
    "+130555501xx",
    "+442079460xxx",  # Ofcom: London, Manchester, freephone
    "+441614960xxx",
    "+448081570xxx",
    "+493023125xxx",  # Bundesnetzagentur: Berlin, Frankfurt, Cologne
    "+496990009xxx",
    "+492214710xxx",
    "+3319900xxxx",  # ARCEP
    "+6127010xxxx",  # ACMA
)
"""Ranges of E.164 numbers that are set aside for fiction; each `x` is any digit."""


def phone_numbers(random: Random, ranges: tuple[str, ...] = FICTION) -> Iterator[str]:
    """Numbers that reach nobody, without repeats as long as there are enough of them."""
    given: set[str] = set()
    while True:
        for _ in range(50):
            pattern = random.choice(ranges)
            number = re.sub("x", lambda _: random.choice("0123456789"), pattern)
            if number not in given:
                break
        given.add(number)
        yield number


def _id22(random: Random) -> str:
    """128 random bits as Zoom writes ids: url-safe base64 without padding; `-` may come first."""
    return base64.urlsafe_b64encode(random.randbytes(16)).decode().rstrip("=")


def _past(random: Random, days: int = 900) -> datetime:
    return NEWEST - timedelta(seconds=random.randrange(days * 86_400))


# -- Zoom -----------------------------------------------------------------------------------------

_CHANNELS = (
    # channel, channel_source, the deprecated channel_type, weight
    ("voice", None, "voice", 55),
    ("video", None, "video", 8),
    ("messaging", "web_chat", "chat", 12),
    ("messaging", "in_app_chat", "in_app_chat", 4),
    ("messaging", "sms", "sms", 7),
    ("messaging", "whatsapp", None, 5),
    ("messaging", "facebook_messenger", None, 2),
    ("email", "email_address", None, 7),
)


def zoom_flows(random: Random, count: int) -> list[Record]:
    """Rows of `GET /contact_center/flows`: every channel and status, versions, entry points."""
    people = [_id22(random) for _ in range(12)]
    numbers = phone_numbers(random)
    return [_zoom_flow(random, people, numbers) for _ in range(count)]


def _zoom_flow(random: Random, people: list[str], numbers: Iterator[str]) -> Record:
    language = _language(random)
    channel, source, old_type, _ = random.choices(_CHANNELS, [each[3] for each in _CHANNELS])[0]
    status = random.choices(("published", "draft", "archived", "debugging"), (70, 15, 11, 4))[0]
    changed = _past(random)
    flow: Record = {
        "flow_id": _id22(random),
        "flow_name": _name(random, language),
        "flow_description": random.choice(("", LANGUAGES[language][2], f"Flow for {language}")),
    }
    if old_type is not None:
        flow["channel_type"] = old_type
    flow["channel"] = channel
    if source is not None:
        flow["channel_source"] = source
    flow |= {
        "status": status,
        "modified_by": random.choice(people),
        "last_modified_time": _zulu(changed),
        "entry_points": [],
        "flow_versions": _zoom_versions(random, status, changed, people),
    }
    if status != "draft":
        flow["entry_points"] = [
            _zoom_entry_point(random, channel, source, language, numbers)
            for _ in range(random.choices((0, 1, 2, 3), (10, 60, 22, 8))[0])
        ]
    return flow


def _zoom_versions(
    random: Random, status: str, changed: datetime, people: list[str]
) -> list[Record]:
    """Numbered from 1; a published flow may have a newer draft, its older versions are archived."""
    published = random.randint(1, 5)
    states = ["archived"] * (published - 1) + [status]
    if status == "published" and random.random() < 0.25:
        states.append("draft")
    versions = []
    for number, state in enumerate(states, 1):
        age = timedelta(days=9 * (len(states) - number), minutes=random.randrange(600))
        versions.append(
            {
                "flow_version_id": _id22(random),
                "flow_version_description": f"Version {number}",
                "flow_version_status": state,
                "flow_version": number,
                "flow_version_modified_by": random.choice(people),
                "flow_version_last_modified_time": _zulu(changed - age),
            }
        )
    return versions[::-1]


def _zoom_entry_point(
    random: Random, channel: str, source: str | None, language: str, numbers: Iterator[str]
) -> Record:
    entry: Record = {"entry_id": _id22(random)}
    if channel == "voice" or source in ("sms", "whatsapp"):
        entry["entry_number"] = next(numbers)
    elif channel == "email":
        entry["email_address"] = f"desk{random.randrange(1000)}@example.com"
    else:
        entry["entry_name"] = f"{source or channel} {random.randrange(100)}"
    entry["entry_language"] = language
    return entry


def _zulu(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# -- Twilio ---------------------------------------------------------------------------------------

_FLEX_API = "https://flex-api.twilio.com/v1"


def _sid(random: Random, kind: str) -> str:
    return f"{kind}{random.getrandbits(128):032x}"


def twilio_flex_flows(
    random: Random, count: int, account_sid: str, date_form: Literal["Z", "+00:00"] = "Z"
) -> list[Record]:
    """Rows of `GET /v1/FlexFlows`, of all three integration types."""
    service, workspace = _sid(random, "IS"), _sid(random, "WS")
    numbers = phone_numbers(random)
    flows = []
    for _ in range(count):
        sid, created, language = _sid(random, "FO"), _past(random), _language(random)
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
                "date_created": _zulu(created)[:-1] + date_form,
                "date_updated": _zulu(changed)[:-1] + date_form,
                "friendly_name": _name(random, language),
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


def twilio_channels(
    random: Random,
    count: int,
    account_sid: str,
    flex_flows: list[Record],
    date_form: Literal["Z", "+00:00"] = "Z",
) -> Iterator[tuple[str, bytes, str]]:
    """Rows of `GET /v1/Channels` for `Store.load`: one per conversation, the oldest first.

    Busy flows have many, some have none, and about 2 % belong to flex flows that were deleted.
    Rows are written as text because there may be a million of them.
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
    """ISO 8601 without a zone, of seconds since 1970 UTC: a million of them are made."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{_date(day)}T{hour:02}:{minute:02}:{second:02}"


@cache
def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


# -- Alibaba --------------------------------------------------------------------------------------

_ZH = LANGUAGES["zh-CN"]
_MASKED = ("400289", "021800", "010800")


def alibaba_flows(random: Random, count: int, instance_id: str) -> list[Record]:
    """Rows of ListContactFlows for one instance: all types, drafts, numbers, definitions."""
    numbers = phone_numbers(random)
    return [_alibaba_flow(random, instance_id, numbers) for _ in range(count)]


def _alibaba_flow(random: Random, instance_id: str, numbers: Iterator[str]) -> Record:
    kind = random.choices(("MAIN_FLOW", "SUB_FLOW", "SURVEY_FLOW"), (60, 28, 12))[0]
    # Few distinct instants, so that some rows share one, as rows of a bulk change do.
    changed = NEWEST - timedelta(minutes=10 * random.randrange(20_000))
    published = random.random() < 0.8
    flow: Record = {
        "Type": kind,
        "Definition": definition(random),
        "Description": f"{random.randint(1, 4)}.{random.randrange(10)}",
        "UpdatedTime": changed.strftime("%Y-%m-%d %H:%M:%S.0"),
        "Editor": "",
        "Published": published,
        "InstanceId": instance_id,
        "Name": f"{random.choice(_ZH[0])}-{random.choice(_ZH[1])}",
        "ContactFlowId": _uuid(random),
        "CreatedTime": (changed - _age(random)).strftime("%Y-%m-%d %H:%M:%S.0"),
        "NumberList": [],
    }
    if not published or random.random() < 0.2:
        flow["DraftId"] = _uuid(random)
        flow["Editor"] = f"agent-{random.randrange(40):03}"
    if kind == "MAIN_FLOW" and published:
        masked = random.choice(([], [f"{random.choice(_MASKED)}****"]))
        flow["NumberList"] = [next(numbers) for _ in range(random.randrange(3))] + masked
    return flow


def _age(random: Random) -> timedelta:
    return timedelta(minutes=random.randrange(1, 500_000))


def _uuid(random: Random) -> str:
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def definition(random: Random) -> str:
    """A flow's definition as JSON text, in the shape of the one in Alibaba's API reference.

    Of the activity types that reference shows INCOMING_CALL, PLAY_SAY and HANGUP; the others are
    invented to give the graph branches.
    """
    end = f"{random.getrandbits(32):08x}"
    greeting = f"{random.getrandbits(32):08x}"
    queues = [f"{random.getrandbits(32):08x}" for _ in range(random.randrange(4))]
    menu = f"{random.getrandbits(32):08x}" if queues else end
    activities = [
        _activity(random, "INCOMING_CALL", "开始", {}, {"complete": greeting}),
        _activity(random, "HANGUP", "挂机", {}, {"complete": None}, id=end, index=999),
        _activity(
            random,
            "PLAY_SAY",
            "放音",
            {"say": _ZH[2], "audioResourceId": "", "audioType": "tts", "audioInterrupt": False},
            {"complete": menu},
            id=greeting,
            index=1,
        ),
    ]
    if queues:
        keys: dict[str, str | None] = {f"press_{n}": q for n, q in enumerate(queues, 1)}
        activities.append(
            _activity(
                random,
                "DTMF_MENU",
                "按键菜单",
                {"timeout": 5, "retries": 3},
                {**keys, "timeout": end, "error": end},
                id=menu,
                index=2,
            )
        )
    for number, queue in enumerate(queues, 3):
        activities.append(
            _activity(
                random,
                "TRANSFER_TO_QUEUE",
                random.choice(_ZH[0]),
                {"skillGroupId": f"skg-{random.randrange(30)}", "maxWait": 120},
                {"complete": end, "overflow": end, "error": None},
                id=queue,
                index=number,
            )
        )
    return json.dumps(
        {"activities": activities, "description": ""}, ensure_ascii=False, separators=(",", ":")
    )


def _activity(
    random: Random,
    kind: str,
    name: str,
    properties: Record,
    events: dict[str, str | None],
    *,
    id: str | None = None,  # noqa: A002
    index: int = 0,
) -> Record:
    position = {"x": random.randrange(100, 2000) / 2, "y": random.randrange(100, 900)}
    return {
        "type": kind,
        "id": id or f"{random.getrandbits(32):08x}",
        "name": name,
        "properties": {**properties, "position": position},
        "events": [
            {"event": event, "next": following}
            if following is None
            else {
                "event": event,
                "next": following,
                "edgeId": f"{random.getrandbits(32):08x}",
            }
            for event, following in events.items()
        ],
        "nodeIndex": index,
    }


# -- awkward but legal ----------------------------------------------------------------------------
# Rows that the documents allow and a naive reader trips over. Every value fits its column.

_NAME = 'Say "hello", it\'s 100% 🦊\n\ttab \\ slash; {"not": json} -- 你好 \u202eabc'


def awkward_zoom_flows() -> list[Record]:
    """Missing, null and empty members; unknown ones; ids that start with `-`."""
    minute = "2024-02-29T23:59:59Z"
    version = {
        "flow_version_id": "-VersionStartsWithDash",
        "flow_version_description": _NAME,
        "flow_version_status": "debugging",
        "flow_version": 0,
        "flow_version_modified_by": "",
        "flow_version_last_modified_time": minute,
    }
    return [
        {"flow_id": "awkward-only-an-id-000"},
        {
            "flow_id": "awkward-all-null-00000",
            "flow_name": None,
            "flow_description": None,
            "channel_type": None,
            "channel": None,
            "channel_source": None,
            "status": None,
            "modified_by": None,
            "last_modified_time": None,
            "entry_points": None,
            "flow_versions": None,
        },
        {
            "flow_id": "awkward-empty-strings0",
            "flow_name": "",
            "flow_description": "",
            "channel_type": "",
            "channel": "",
            "channel_source": "",
            "status": "",
            "modified_by": "",
            "entry_points": [],
            "flow_versions": [],
        },
        {
            "flow_id": "-StartsWithADash_-____",
            "flow_name": _NAME,
            "flow_description": "x" * 5000,
            "channel_type": "hologram",
            "channel": "work_item",
            "channel_source": "api",
            "status": "retired",
            "modified_by": "-",
            "last_modified_time": "2022-02-15T09:27:15.5Z",
            "entry_points": [
                {"entry_id": "-e"},
                {"entry_id": "null-members", "entry_number": None, "entry_language": None},
                {"entry_id": "empty", "entry_number": "", "email_address": "", "entry_name": ""},
                {"entry_id": "more", "entry_name": _NAME, "added_later": [1, {"a": None}]},
            ],
            "flow_versions": [
                version,
                {**version, "flow_version_id": "same-number", "added_later": True},
                {"flow_version_id": "only-an-id"},
            ],
            "added_later": {"nested": [1.5, "two", None]},
            "tags": [],
        },
        {
            # The shape without channel and channel_source, and a sibling's entry point.
            "flow_id": "AWKWARD-EMPTY-STRINGS0",
            "flow_name": "Same id as another but for case",
            "channel_type": "voice",
            "status": "published",
            "last_modified_time": minute,
            "entry_points": [{"entry_id": "-e", "entry_number": "+12125550199"}],
            "flow_versions": [{**version, "flow_version": 2_147_483_647}],
        },
    ]


def awkward_twilio_flex_flows() -> list[Record]:
    """Null enums, every strange `integration`, both forms of dates."""
    names = twilio_flex_flows(_random(0, "names"), 1, "")[0].keys()
    base: Record = {"account_sid": "AC" + "5" * 32, "date_updated": "2023-05-04T09:42:00+00:00"}

    def sid(number: int) -> str:
        return f"FO{number:032x}"

    return [
        {"sid": sid(1)},
        {**dict.fromkeys(names), "sid": sid(2)},
        {**base, "sid": sid(3), "friendly_name": "", "contact_identity": "", "url": ""},
        {**base, "sid": sid(4), "friendly_name": _NAME, "channel_type": "carrier_pigeon"},
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


def awkward_twilio_channels() -> list[Record]:
    """Nulls, a deleted flex flow, upper-case sids."""
    names = ["account_sid", "flex_flow_sid", "user_sid", "task_sid", "date_created", "url"]
    account = "AC" + "5" * 32
    return [
        {"sid": "CH" + "1" * 32},
        {**dict.fromkeys(names), "sid": "CH" + "2" * 32},
        {"sid": "CH" + "3" * 32, "account_sid": account, "flex_flow_sid": "FO" + "9" * 32},
        {"sid": "CH" + "ABCDEF01" * 4, "date_created": "2023-05-04T09:42:00+00:00", "url": ""},
        {"sid": "CH" + "abcdef01" * 4, "date_updated": "2023-05-04T09:42:00.250Z", "mode": "new"},
    ]


def awkward_alibaba_flows(instance_id: str) -> list[Record]:
    """Definitions that are empty, no JSON, or JSON of another shape; null lists; odd times."""
    definitions: dict[str, object] = {
        "null": None,
        "empty": "",
        "text": "not JSON {",
        "list": "[]",
        "null-text": "null",
        "no-activities": '{"description":"x"}',
        "null-activities": '{"activities":null}',
        "null-members": (
            '{"activities":[{"id":"a1","type":null,"name":null,"properties":null,"events":null},'
            '{"id":"a2"},{"id":"a3","events":[]}]}'
        ),
        "twins": (
            '{"activities":[{"id":"a","type":"ADDED_LATER","name":"","nodeIndex":-1,'
            '"properties":{"position":{"x":485.5,"y":-0.25},"added":[1]},"added":1,'
            '"events":[{"event":"complete","next":"a","edgeId":"e"},'
            '{"event":"complete","next":"gone"},{"event":null,"next":null},{}]}]}'
        ),
    }
    common = {"InstanceId": instance_id, "Type": "SUB_FLOW", "UpdatedTime": "2021-03-08 15:34:49.0"}
    flows: list[Record] = [
        {**common, "ContactFlowId": f"definition-{what}", "Definition": text}
        for what, text in definitions.items()
    ]
    names = alibaba_flows(_random(0, "names"), 1, "")[0].keys() | {"DraftId"}
    return [
        *flows,
        {"InstanceId": instance_id, "ContactFlowId": "-only-the-key"},
        {**dict.fromkeys(names), "InstanceId": instance_id, "ContactFlowId": "all-null"},
        {
            **common,
            "ContactFlowId": "ALL-NULL",
            "Name": _NAME,
            "Description": "",
            "DraftId": "",
            "Editor": "",
            "Type": "ADDED_LATER",
            "Published": False,
            "UpdatedTime": "2021-03-08 15:34:49.123456",
            "CreatedTime": "2021-03-08 15:34:49",
            "NumberList": ["400289****", "", "+442079460000", "ext. 5 / 内线"],
            "AddedLater": {"x": 1},
        },
        {
            **common,
            "ContactFlowId": "no-numbers",
            "NumberList": [],
            "Definition": definition(_random(0, instance_id)),
        },
    ]

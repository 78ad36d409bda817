"""Generated and awkward contact flows of Alibaba Cloud CCC."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from random import Random

from etl.sandbox.data import (
    AWKWARD_NAME,
    LANGUAGES,
    NEWEST,
    Record,
    phone_numbers,
    random_of,
)

_ZH = LANGUAGES["zh-CN"]
_MASKED = ("400289", "021800", "010800")


def flows(random: Random, count: int, instance_id: str) -> list[Record]:
    """Invent rows of ListContactFlows of one instance: all types, drafts, numbers, definitions.

    A few of sixty have a fault in their definition.
    """
    numbers = phone_numbers(random)
    found = [_flow(random, instance_id, numbers) for _ in range(count)]
    for number, flow in enumerate(found):
        if fault := _FAULTS.get(number % 60):
            flow["Definition"] = fault(flow["Definition"])
    return found


def numbers(random: Random, count: int, instance_id: str, flows: list[Record]) -> list[Record]:
    """Invent rows of ListPhoneNumbers: those of published flows, and some that reach nothing.

    A number that a flow shows masked is left out here, because it would be no one's.
    """
    bound = [
        (number, flow)
        for flow in flows
        for number in flow["NumberList"]
        if not number.endswith("****")
    ]
    taken = {number for number, _ in bound}
    free = (number for number in phone_numbers(random) if number not in taken)
    nowhere: Record = {"ContactFlowId": "", "Name": ""}
    rows = bound[: count * 5 // 6]  # a list that is longer has more that reach nothing
    rows += [(next(free), nowhere) for _ in range(count - len(rows))]
    return [_number(random, number, instance_id, flow) for number, flow in rows]


def _number(random: Random, number: str, instance_id: str, flow: Record) -> Record:
    skill = random.randrange(30)
    province, city = random.choice((("浙江", "杭州"), ("上海", "上海"), ("", "")))
    joined = NEWEST - _age(random)
    return {
        "Number": number,
        "InstanceId": instance_id,
        "Active": bool(flow["ContactFlowId"]) or random.random() < 0.5,
        "ContactFlowId": flow["ContactFlowId"],
        "ContactFlowName": flow["Name"],
        "CreateTime": str(int(joined.timestamp() * 1000)),
        "Usage": random.choice(("Bidirection", "Bidirection", "Inbound", "Outbound")),
        "Provider": random.choice(("", "电信")),
        "Province": province,
        "City": city,
        "Tags": "[]",
        "UserId": f"agent-{skill}@{instance_id}" if random.random() < 0.1 else "",
        "SkillGroups": [
            {
                "SkillGroupId": f"skg-{skill}@{instance_id}",
                "Name": f"skg-{skill}",
                "DisplayName": random.choice(_ZH[0]),
                "InstanceId": instance_id,
            }
        ]
        if random.random() < 0.4
        else [],
    }


def _flow(random: Random, instance_id: str, numbers: Iterator[str]) -> Record:
    kind = random.choices(("MAIN_FLOW", "SUB_FLOW", "SURVEY_FLOW"), (60, 28, 12))[0]
    # Few distinct instants, so that some rows share one, as after a bulk change.
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
    """Invent a flow's definition: JSON text, shaped like the one in Alibaba's API reference.

    That reference shows the activity types INCOMING_CALL, PLAY_SAY and HANGUP; the others are
    invented so that the graph has branches.
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
        activities += _branches(random, menu, queues, end)
    return json.dumps(
        {"activities": activities, "description": ""}, ensure_ascii=False, separators=(",", ":")
    )


def _branches(random: Random, menu: str, queues: list[str], end: str) -> list[Record]:
    """Invent a menu that leads to queues."""
    keys: dict[str, str | None] = {f"press_{n}": q for n, q in enumerate(queues, 1)}
    found = [
        _activity(
            random,
            "DTMF_MENU",
            "按键菜单",
            {"timeout": 5, "retries": 3},
            {**keys, "timeout": end, "error": end},
            id=menu,
            index=2,
        )
    ]
    for number, queue in enumerate(queues, 3):
        found.append(
            _activity(
                random,
                "TRANSFER_TO_QUEUE",
                random.choice(_ZH[0]),
                {"skillGroupId": f"skg-{random.randrange(30)}", "maxWait": 120},
                {"complete": end, "overflow": end},
                id=queue,
                index=number,
            )
        )
    return found


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


def _with_event(event: str, following: str | None, text: str, *more: Record) -> str:
    """Return a definition with an event more at its greeting, and activities more."""
    content = json.loads(text)
    leaving = {"event": event, "next": following}
    edge = {} if following is None else {"edgeId": "e0000001"}
    content["activities"][2]["events"].append({**leaving, **edge})
    content["activities"] += more
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _left_over(text: str) -> str:
    """Return a definition with an announcement that no activity leads to any more."""
    content = json.loads(text)
    end = content["activities"][1]["id"]
    content["activities"].append(_apart("a0000001", "放音-旧", {"complete": end}))
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _repeating(text: str) -> str:
    """Return a definition whose greeting is repeated on request."""
    return _with_event("repeat", json.loads(text)["activities"][2]["id"], text)


def _apart(activity_id: str, name: str, events: dict[str, str | None]) -> Record:
    say = {"say": _ZH[2], "audioType": "tts"}
    return _activity(random_of(0, name), "PLAY_SAY", name, say, events, id=activity_id, index=90)


_FAULTS: dict[int, Callable[[str], str]] = {
    20: _left_over,
    27: lambda text: _with_event(
        "error", "a0000002", text, _apart("a0000002", "放音-错误", {"complete": None})
    ),
    34: lambda text: _with_event("timeout", None, text),
    41: lambda text: _with_event("error", "a0000003", text),
    48: _repeating,
    55: lambda text: text[: len(text) * 2 // 3],
}
"""Which of sixty flows has which fault: no way there, a dead end, an event without a next, a next
that is no activity, a loop, text that breaks off. None of a small list."""


# Rows that the documents allow but naive code does not expect. Every value fits its column.

_DEFINITIONS: dict[str, object] = {
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


def awkward_flows(instance_id: str) -> list[Record]:
    """Return definitions that are empty, no JSON, or odd JSON; null lists; odd times."""
    common = {"InstanceId": instance_id, "Type": "SUB_FLOW", "UpdatedTime": "2021-03-08 15:34:49.0"}
    defined: list[Record] = [
        {**common, "ContactFlowId": f"definition-{what}", "Definition": text}
        for what, text in _DEFINITIONS.items()
    ]
    names = flows(random_of(0, "names"), 1, "")[0].keys() | {"DraftId"}
    return [
        *defined,
        {"InstanceId": instance_id, "ContactFlowId": "-only-the-key"},
        {**dict.fromkeys(names), "InstanceId": instance_id, "ContactFlowId": "all-null"},
        {
            **common,
            "ContactFlowId": "ALL-NULL",
            "Name": AWKWARD_NAME,
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
            "Definition": definition(random_of(0, instance_id)),
        },
    ]


def awkward_numbers(instance_id: str) -> list[Record]:
    """Return numbers that reach nothing in every form, odd times, null and odd skill groups."""
    names = _number(random_of(0, "names"), "", "", {"ContactFlowId": "", "Name": ""}).keys()
    common = {"InstanceId": instance_id, "Active": True}
    group = {"SkillGroupId": "", "Name": None, "DisplayName": AWKWARD_NAME, "added_later": 1}
    return [
        {"Number": "only-the-key"},
        {**dict.fromkeys(names), "InstanceId": instance_id, "Number": "all-null"},
        {**common, "Number": "400289****", "ContactFlowId": None, "Usage": "Added later"},
        {**common, "Number": "+442079460000", "ContactFlowId": "", "CreateTime": ""},
        {**common, "Number": "ext. 5 / 内线", "CreateTime": "1578457081000", "SkillGroups": []},
        {**common, "Number": "0100000001", "CreateTime": 1578457081000, "Tags": '["a"]'},
        {**common, "Number": "0100000002", "SkillGroups": [group, {**group, "SkillGroupId": "g"}]},
        {**common, "Number": "0100000003", "AddedLater": {"x": 1}, "UserId": AWKWARD_NAME},
    ]

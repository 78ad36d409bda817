"""How Alibaba's flows and numbers are made and changed in random histories, and their rows."""

import json
from collections.abc import Mapping
from datetime import datetime
from random import Random
from typing import Any

from etl.providers.catalog import TABLES
from etl.sandbox.exchange import Response
from etl.sandbox.store import Paging, Store
from tests.sync.kinds import (
    SHANGHAI,
    Key,
    Kind,
    Mode,
    Record,
    Rendering,
    canonical,
    few,
    milliseconds,
    moment,
    row,
    word,
)
from tests.transform import naive

MODES = (
    Mode("alibaba/offset/updated", "alibaba_demo", "contact_flows", "offset/updated", True),
    Mode("alibaba.phone_numbers", "alibaba_demo", "phone_numbers", "offset/created", True),
)


def shanghai(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, SHANGHAI).strftime("%Y-%m-%d %H:%M:%S.0")


def definition(random: Random) -> str:
    activities = [
        {
            "id": name,
            "type": random.choice(("PLAY_SAY", "HANGUP")),
            "name": word(random),
            "nodeIndex": random.randint(1, 3),
            "properties": {"content": word(random)},
            "events": [
                {"event": "complete", "edgeId": f"{name}-{n}", "next": "a0"}
                for n in range(random.randint(0, 2))
            ],
        }
        for name in few(random, "a")
    ]
    return json.dumps({"activities": activities}, ensure_ascii=False)


def contact_flow(random: Random, name: str, stamp: str) -> Record:
    return {
        "ContactFlowId": name,
        "Name": word(random),
        "Type": "MAIN_FLOW",
        "Definition": definition(random),
        "Published": False,
        "NumberList": few(random, "400"),
        "CreatedTime": stamp,
        "UpdatedTime": stamp,
    }


def contact_change(random: Random, record: Record) -> Record:
    changes: tuple[Record, ...] = (
        {"Name": word(random)},
        {"Published": not record["Published"]},
        {"NumberList": few(random, "400")},
        {"Definition": definition(random)},
    )
    return random.choice(changes)


def contact_rows(key: Key, record: Record) -> Rendering:
    above = dict(zip(("instance_id", "contact_flow_id"), key, strict=True))
    activities = json.loads(record["Definition"])["activities"]
    main = row(
        TABLES["alibaba.contact_flows"],
        **above,
        name=record["Name"],
        type=record["Type"],
        definition=record["Definition"],
        published=record["Published"],
        created_time=moment(record["CreatedTime"]),
        updated_time=moment(record["UpdatedTime"]),
    )
    return (
        frozenset([main]),
        frozenset(
            row(TABLES["alibaba.contact_flow_numbers"], **above, number=number)
            for number in record["NumberList"]
        ),
        frozenset(
            row(
                TABLES["alibaba.contact_flow_activities"],
                **above,
                activity_id=each["id"],
                type=each["type"],
                name=each["name"],
                node_index=each["nodeIndex"],
                properties=canonical(each["properties"]),
            )
            for each in activities
        ),
        frozenset(
            row(
                TABLES["alibaba.contact_flow_transitions"],
                **above,
                activity_id=each["id"],
                position=position,
                event=event["event"],
                edge_id=event["edgeId"],
                next_activity_id=event["next"],
            )
            for each in activities
            for position, event in enumerate(each["events"])
        ),
        frozenset(
            row(
                TABLES["alibaba.contact_flow_findings"],
                **above,
                activity_id=activity,
                finding=finding,
                event=event,
                detail=detail,
            )
            for activity, finding, event, detail in naive.of_definition(record["Definition"])
        ),
    )


def phone_number(random: Random, name: str, stamp: str) -> Record:
    return {
        "Number": name,
        "Active": True,
        "ContactFlowId": random.choice(("", "f1", "f2")),
        "City": word(random),
        "CreateTime": stamp,
        "SkillGroups": skill_groups(random),
    }


def skill_groups(random: Random) -> list[Record]:
    return [{"SkillGroupId": name, "Name": word(random)} for name in few(random, "g")]


def number_change(random: Random, record: Record) -> Record:
    """Move the number to another flow, or change it elsewise."""
    changes: tuple[Record, ...] = (
        {"ContactFlowId": random.choice(("", "f1", "f2"))},
        {"Active": not record["Active"]},
        {"SkillGroups": skill_groups(random)},
    )
    return random.choice(changes)


def number_rows(key: Key, record: Record) -> Rendering:
    above = dict(zip(("instance_id", "number"), key, strict=True))
    main = row(
        TABLES["alibaba.phone_numbers"],
        **above,
        active=record["Active"],
        contact_flow_id=record["ContactFlowId"],
        city=record["City"],
        create_time=moment(record["CreateTime"]),
    )
    groups = [
        row(
            TABLES["alibaba.phone_number_skill_groups"],
            **above,
            skill_group_id=each["SkillGroupId"],
            name=each["Name"],
        )
        for each in record["SkillGroups"]
    ]
    return frozenset([main]), frozenset(groups)


KINDS: Mapping[str, Kind] = {
    "contact_flows": Kind(
        "ContactFlowId", "UpdatedTime", shanghai, contact_flow, contact_change, contact_rows
    ),
    "phone_numbers": Kind(
        "Number", "CreateTime", milliseconds, phone_number, number_change, number_rows
    ),
}


def stores(emulator: Any) -> Mapping[str, Mapping[str, Store]]:
    """Return stream → instance → the emulator's records."""
    return {"contact_flows": emulator.flows, "phone_numbers": emulator.phone_numbers}


def set_up(emulator: Any, paging: Paging, page: int, *, may_look_up: bool) -> None:
    """Do nothing: a request says how long its page is."""


def token_refused() -> Response:
    """Never called: Alibaba has no page tokens."""
    raise AssertionError

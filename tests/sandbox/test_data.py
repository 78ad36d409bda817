"""Generated data is reproducible, resembles the real data, and is no one's."""

import json
import re
from collections import Counter
from random import Random
from typing import Any

import pytest

from etl.sandbox import (
    alibaba_data,
    data,
    twilio_bindings_data,
    twilio_data,
    twilio_studio_data,
    zoom_data,
)
from etl.sandbox.data import Sizes
from etl.sandbox.server import Sandbox, serve
from tests.transform import naive

# Ranges that the numbering authorities reserve for fiction.
RESERVED = (
    r"\+1[2-9]\d\d55501\d\d",  # NANP
    r"\+442079460\d{3}",  # Ofcom: London
    r"\+441614960\d{3}",  # Manchester
    r"\+448081570\d{3}",  # freephone
    r"\+493023125\d{3}",  # Bundesnetzagentur: Berlin
    r"\+496990009\d{3}",  # Frankfurt
    r"\+492214710\d{3}",  # Cologne
    r"\+3319900\d{4}",  # ARCEP
    r"\+6127010\d{4}",  # ACMA
)

SIZES = Sizes(300, 2000, {"twilio.flex_flows": 120, "alibaba.contact_flows": 150})


@pytest.fixture(scope="module")
def generated() -> dict[str, Any]:
    with serve(SIZES, seed=5) as sandbox:
        return sandbox.records()


def strings(value: Any) -> list[str]:
    """Return every string in a value, at any depth."""
    if isinstance(value, dict):
        return [text for member in value.values() for text in strings(member)]
    if isinstance(value, list):
        return [text for member in value for text in strings(member)]
    return [value] if isinstance(value, str) else []


def test_sizes_are_kept_and_the_seed_decides(generated: dict[str, Any]) -> None:
    counts = {
        (name, stream): len(rows)
        for name, lists in generated.items()
        for stream, rows in lists.items()
    }
    assert counts == {
        ("zoom", "flows"): 300,
        ("twilio", "flex_flows"): 120,
        ("twilio", "channels"): 2000,
        ("twilio", "studio_flows"): 75,
        ("twilio", "addresses"): 75,
        ("twilio", "phone_numbers"): 75,
        ("alibaba", "contact_flows"): 2 * 150,
        ("alibaba", "phone_numbers"): 2 * 150,
    }
    with serve(SIZES, seed=5) as again, serve(SIZES, seed=6) as other:
        assert again.records() == generated
        assert other.records()["zoom"] != generated["zoom"]
    flows = generated["alibaba"]["contact_flows"]
    assert [*Counter(flow["InstanceId"] for flow in flows).values()] == [150, 150]
    assert len({flow["ContactFlowId"] for flow in flows}) == 300


def test_keys_are_unique_and_well_formed(generated: dict[str, Any]) -> None:
    for rows, key, pattern in (
        (generated["zoom"]["flows"], "flow_id", r"[A-Za-z0-9_-]{22}"),
        (generated["twilio"]["flex_flows"], "sid", r"FO[0-9a-f]{32}"),
        (generated["twilio"]["channels"], "sid", r"CH[0-9a-f]{32}"),
        (generated["twilio"]["studio_flows"], "sid", r"FW[0-9a-f]{32}"),
        (generated["twilio"]["addresses"], "sid", r"IG[0-9a-f]{32}"),
        (generated["twilio"]["phone_numbers"], "sid", r"PN[0-9a-f]{32}"),
    ):
        keys = [row[key] for row in rows]
        assert len(set(keys)) == len(keys)
        assert all(re.fullmatch(pattern, each) for each in keys)
    for row in generated["twilio"]["channels"]:
        for name, letters in (("account", "AC"), ("flex_flow", "FO"), ("user", "US")):
            assert re.fullmatch(f"{letters}[0-9a-f]{{32}}", row[f"{name}_sid"])


def test_every_telephone_number_is_fictional_or_masked(generated: dict[str, Any]) -> None:
    entries = [entry for flow in generated["zoom"]["flows"] for entry in flow["entry_points"]]
    numbers = [entry["entry_number"] for entry in entries if "entry_number" in entry]
    identities = [flow["contact_identity"] for flow in generated["twilio"]["flex_flows"]]
    identities += [
        row["address"]
        for row in generated["twilio"]["addresses"]
        if row["type"] in ("sms", "whatsapp")
    ]
    identities += [row["phone_number"] for row in generated["twilio"]["phone_numbers"]]
    numbers += [each.removeprefix("whatsapp:") for each in identities if each is not None]
    flows = generated["alibaba"]["contact_flows"]
    numbers += [number for flow in flows for number in flow["NumberList"]]
    numbers += [row["Number"] for row in generated["alibaba"]["phone_numbers"]]
    assert len(numbers) > 300
    for number in numbers:
        masked = re.fullmatch(r"\d{6}\*{4}", number)
        assert masked or any(re.fullmatch(each, number) for each in RESERVED), number
    for pattern in data.FICTION:
        assert any(re.fullmatch(each, pattern.replace("x", "5")) for each in RESERVED), pattern


def test_addresses_are_of_example_domains(generated: dict[str, Any]) -> None:
    texts = strings(generated)
    mails = [text for text in texts if "@" in text and "@ccc-" not in text]
    assert mails
    assert all(text.endswith("@example.com") for text in mails)
    hosts = {text.split("/")[2] for text in texts if text.startswith("http")}
    assert {host for host in hosts if not host.endswith(".example.com")} == {
        f"{product}.twilio.com"
        for product in ("flex-api", "studio", "conversations", "webhooks", "demo")
    }


def test_zoom_has_every_kind_of_flow(generated: dict[str, Any]) -> None:
    flows = generated["zoom"]["flows"]
    assert {flow["status"] for flow in flows} == {"published", "draft", "archived", "debugging"}
    assert {flow["channel"] for flow in flows} == {"voice", "video", "messaging", "email"}
    languages = {e["entry_language"] for flow in flows for e in flow["entry_points"]}
    assert languages == set(data.LANGUAGES)
    unpublished = 0
    for flow in flows:
        numbers = [version["flow_version"] for version in flow["flow_versions"]]
        assert numbers == list(range(len(numbers), 0, -1))
        states = [version["flow_version_status"] for version in flow["flow_versions"]]
        unpublished += states[0] == "draft" and flow["status"] == "published"
        if flow["status"] == "published":
            assert states.count("published") == 1
        reach = {"voice": "entry_number", "email": "email_address", "video": "entry_name"}
        for entry in flow["entry_points"]:
            assert reach.get(flow["channel"], "entry_language") in entry
    assert unpublished > 20


def test_twilio_has_every_integration_and_some_orphans(generated: dict[str, Any]) -> None:
    flows = {flow["sid"]: flow for flow in generated["twilio"]["flex_flows"]}
    keys = {
        "studio": {"flow_sid", "retry_count"},
        "external": {"url", "retry_count"},
        "task": {
            "workspace_sid",
            "workflow_sid",
            "channel",
            "timeout",
            "priority",
            "creation_on_message",
        },
    }
    assert {flow["integration_type"] for flow in flows.values()} == keys.keys()
    for flow in flows.values():
        assert flow["integration"].keys() == keys[flow["integration_type"]]
    channels = generated["twilio"]["channels"]
    for channel in channels:
        flow = flows.get(channel["flex_flow_sid"])
        is_task = flow is not None and flow["integration_type"] == "task"
        assert (channel["task_sid"] is not None) == is_task
        assert channel["date_created"] <= channel["date_updated"]
    per_flow = Counter(channel["flex_flow_sid"] for channel in channels)
    orphans = sum(count for sid, count in per_flow.items() if sid not in flows)
    assert 0 < orphans < 0.06 * len(channels)
    assert max(per_flow.values()) > 20


def states_of(revision: dict[str, Any]) -> dict[str, dict[str, Any]]:
    states = revision["definition"]["states"]
    found = {state["name"]: state for state in states}
    assert len(found) == len(states)
    return found


def test_studio_has_every_kind_of_flow(generated: dict[str, Any]) -> None:
    flows = generated["twilio"]["studio_flows"]
    sids = {flow["sid"] for flow in flows}
    kinds, called, broken, looped = set(), set(), 0, 0
    for flow in flows:
        numbers = [revision["revision"] for revision in flow["revisions"]]
        assert numbers == list(range(1, flow["revision"] + 1))
        assert (flow["date_updated"] is None) == (len(numbers) == 1)
        states = states_of(flow["revisions"][-1])
        assert flow["definition"]["initial_state"] in states
        kinds |= {state["type"] for state in states.values()}
        called |= {
            s["properties"]["flow_sid"] for s in states.values() if "flow_sid" in s["properties"]
        }
        ways = [
            (state["name"], way["next"])
            for state in states.values()
            for way in state["transitions"]
            if "next" in way
        ]
        broken += any(following not in states for _, following in ways)
        looped += any(following == name for name, following in ways)
    assert {
        "trigger",
        "say-play",
        "gather-input-on-call",
        "split-based-on",
        "send-to-flex",
    } <= kinds
    assert {"run-subflow", "run-function", "enqueue-call", "make-http-request"} <= kinds
    assert called & sids
    assert called - sids >= {"{{flow.variables.next_flow}}", "FW" + "d" * 32}
    assert broken
    assert looped
    histories = {tuple(each["status"] for each in flow["revisions"]) for flow in flows}
    assert {("draft", "draft"), ("published", "draft"), ("published",) * 3} <= histories


def test_some_bindings_of_twilio_reach_nothing(generated: dict[str, Any]) -> None:
    lists = generated["twilio"]
    flows = {flow["sid"]: flow for flow in lists["studio_flows"]}
    ways = Counter[str]()
    for row in lists["addresses"]:
        creation = row["auto_creation"]
        ways[creation["type"] if creation["enabled"] else "disabled"] += 1
        if creation["type"] == "studio":
            trigger = states_of(flows[creation["studio_flow_sid"]]["revisions"][-1])["Trigger"]
            events = {way["event"] for way in trigger["transitions"] if "next" in way}
            ways["dead"] += "incomingConversationMessage" not in events
    assert min(ways[each] for each in ("studio", "webhook", "default", "disabled", "dead")) > 3
    identities = {flow["contact_identity"] for flow in lists["flex_flows"]} - {None}
    assert 0 < len(identities & {row["address"] for row in lists["addresses"]}) < len(identities)
    reached = Counter[str]()
    for row in lists["phone_numbers"]:
        url = row["voice_url"] or ""
        sid = url.rpartition("/")[2]
        nothing = not (url or row["trunk_sid"] or row["voice_application_sid"] or row["sms_url"])
        reached["nothing"] += nothing
        reached["trunk"] += bool(row["trunk_sid"])
        reached["application"] += bool(row["voice_application_sid"])
        reached["secret"] += "token=" in url
        if sid in flows:
            statuses = {each["status"] for each in flows[sid]["revisions"]}
            reached["live" if "published" in statuses else "draft"] += 1
    assert min(reached.values()) > 3
    assert len(reached) == 6


def test_a_small_sandbox_has_what_the_demo_shows() -> None:
    with serve(Sizes(24, 0)) as sandbox:
        first = sandbox.records()["twilio"]["studio_flows"][0]
        assert len(states_of(first["revisions"][-1])) > 6
        rows = sandbox.records()["twilio"]["phone_numbers"]
        targets = ("voice_url", "sms_url", "trunk_sid", "voice_application_sid")
        assert [row for row in rows if not any(row[name] for name in targets)]


def test_alibabas_numbers_reach_their_flows_or_nothing(generated: dict[str, Any]) -> None:
    flows = {flow["ContactFlowId"]: flow for flow in generated["alibaba"]["contact_flows"]}
    rows = generated["alibaba"]["phone_numbers"]
    assert len({(row["InstanceId"], row["Number"]) for row in rows}) == len(rows)
    bound = [row for row in rows if row["ContactFlowId"]]
    for row in bound:
        flow = flows[row["ContactFlowId"]]
        assert row["Number"] in flow["NumberList"]
        assert (row["InstanceId"], row["ContactFlowName"]) == (flow["InstanceId"], flow["Name"])
        assert row["CreateTime"].isdecimal()
    assert 0.1 * len(rows) < len(rows) - len(bound)
    assert any(row["SkillGroups"] for row in rows)


def test_alibabas_definitions_are_connected_graphs(generated: dict[str, Any]) -> None:
    flows = generated["alibaba"]["contact_flows"]
    sound = [flow for flow in flows if not naive.of_definition(flow["Definition"])]
    assert 0.85 * len(flows) < len(sound) < len(flows)
    kinds = set()
    for flow in sound:
        activities = json.loads(flow["Definition"])["activities"]
        ids = {activity["id"] for activity in activities}
        assert len(ids) == len(activities)
        kinds |= {activity["type"] for activity in activities}
        for activity in activities:
            for event in activity["events"]:
                assert event["next"] is None or event["next"] in ids
                assert ("edgeId" in event) == (event["next"] is not None)
    for flow in flows:
        assert len(set(flow["NumberList"])) == len(flow["NumberList"])
        assert flow["Published"] or "DraftId" in flow
        assert flow["CreatedTime"] < flow["UpdatedTime"]
    assert {"INCOMING_CALL", "PLAY_SAY", "HANGUP", "DTMF_MENU"} <= kinds
    assert {flow["Type"] for flow in flows} == {"MAIN_FLOW", "SUB_FLOW", "SURVEY_FLOW"}
    times = Counter(flow["UpdatedTime"] for flow in flows)
    assert len(times) > 100
    assert any("Definition" in flow and ".5" in flow["Definition"] for flow in flows)


def test_no_time_is_later_than_the_newest(generated: dict[str, Any]) -> None:
    limit = f"{data.NEWEST:%Y-%m-%d}" + "z"
    times = [text for text in strings(generated) if re.match(r"\d{4}-\d\d-\d\d[T ]", text)]
    assert len(times) > 4000
    assert max(times) < limit


def test_awkward_rows_have_distinct_keys() -> None:
    for rows, key in (
        (zoom_data.awkward_flows(), "flow_id"),
        (twilio_data.awkward_flex_flows(), "sid"),
        (twilio_data.awkward_channels(), "sid"),
        (twilio_studio_data.awkward_studio_flows(), "sid"),
        (twilio_bindings_data.awkward_addresses(), "sid"),
        (twilio_bindings_data.awkward_numbers(), "sid"),
        (alibaba_data.awkward_numbers("ccc-x"), "Number"),
        (alibaba_data.awkward_flows("ccc-x"), "ContactFlowId"),
    ):
        assert len({row[key] for row in rows}) == len(rows) >= 5
        assert json.loads(json.dumps(rows)) == rows
    dashed = [row["flow_id"] for row in zoom_data.awkward_flows()]
    assert any(flow_id.startswith("-") for flow_id in dashed)
    assert {row["InstanceId"] for row in alibaba_data.awkward_flows("ccc-x")} == {"ccc-x"}


def test_dates_come_in_either_form() -> None:
    flows = twilio_data.flex_flows(Random(1), 3, "AC" + "5" * 32, "+00:00")
    rows = list(twilio_data.channels(Random(1), 3, "AC" + "5" * 32, flows, "+00:00"))
    for row in [*flows, *(json.loads(text) for _, text, _ in rows)]:
        assert row["date_updated"].endswith("+00:00")
    assert [updated for _, _, updated in rows] == [
        json.loads(t)["date_updated"] for _, t, _ in rows
    ]


def test_numbers_repeat_only_after_all_were_used() -> None:
    numbers = data.phone_numbers(Random(1))
    assert len({next(numbers) for _ in range(3000)}) == 3000
    few = data.phone_numbers(Random(1), ("+1x", "+4x"))
    assert len({next(few) for _ in range(100)}) == 20


def test_an_empty_sandbox_is_empty() -> None:
    with serve(data.EMPTY) as sandbox:
        assert isinstance(sandbox, Sandbox)
        assert sandbox.records() == {
            "zoom": {"flows": []},
            "twilio": {
                "flex_flows": [],
                "channels": [],
                "studio_flows": [],
                "addresses": [],
                "phone_numbers": [],
            },
            "alibaba": {"contact_flows": [], "phone_numbers": []},
        }

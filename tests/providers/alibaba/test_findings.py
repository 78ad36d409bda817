"""What callflow finds in the Definitions of Alibaba's contact flows."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from etl.load.merge import Written
from etl.providers.catalog import TABLES
from etl.sandbox import alibaba_data, data
from tests.load.loading import CONTACT_FLOWS, at, load, rows_of, versions_of
from tests.providers.alibaba.test_transform import SHANGHAI, contact_flow, defined
from tests.transform import naive
from tests.transform.named import example, named, transformed

FINDINGS = TABLES["alibaba.contact_flow_findings"]
Found = set[tuple[str, str, str, str | None]]


def of(rows: list[dict[str, Any]]) -> Found:
    """Activity, finding, event and detail of rows by name; no two with the same key."""
    found = {(row["activity_id"], row["finding"], row["event"], row.get("detail")) for row in rows}
    assert len({each[:3] for each in found}) == len(rows)
    return found


def findings(content: Any) -> Found:
    return of(named(defined(content), "alibaba.contact_flow_findings"))


def findings_of_text(text: Any) -> Found:
    return of(named(contact_flow(Definition=text)[1], "alibaba.contact_flow_findings"))


def activity(name: str, kind: str | None, *events: Any, **more: Any) -> dict[str, Any]:
    return {"id": name, "type": kind, "events": list(events), **more}


def event(name: str | None, following: Any = None) -> dict[str, Any]:
    return {"event": name, "next": following}


START = activity("in", "INCOMING_CALL", event("complete", "say"))
SAY = activity("say", "PLAY_SAY", event("complete", "end"))
END = activity("end", "HANGUP", event("complete"))


def test_the_documented_flow_is_sound() -> None:
    records = example("alibaba/contact_flows")["Data"]["List"]
    rows = transformed("alibaba.contact_flows", records, scope="ccc-test", zone=SHANGHAI)
    assert rows.tables["alibaba.contact_flow_findings"] == []


def test_each_kind_of_finding() -> None:
    lost = activity("lost", "PLAY_SAY", event("complete", "end"))
    assert findings({"activities": [START, SAY, END, lost]}) == {("lost", "unreachable", "", None)}
    stuck = activity("say", "PLAY_SAY", event("complete"))
    assert findings({"activities": [START, stuck]}) == {("say", "dead_end", "", None)}
    stuck = activity("say", "ADDED_LATER", event("ok", "end"), event("bad"), event("gone", "x"))
    assert findings({"activities": [START, stuck, END]}) == {
        ("say", "open_event", "bad", None),
        ("say", "broken_link", "gone", "x"),
    }
    menu = activity("say", "DTMF_MENU", event("again", "say"), event("ok", "end"))
    assert findings({"activities": [START, menu, END]}) == {("say", "loop", "", "say")}


@pytest.mark.parametrize("text", [None, ""])
def test_no_definition_has_no_findings(text: str | None) -> None:
    assert findings_of_text(text) == set()


@pytest.mark.parametrize("text", ["{}", '{"activities":[]}', '{"activities":null}'])
def test_a_definition_without_activities_has_no_start(text: str) -> None:
    assert findings_of_text(text) == {("", "no_start", "", None)}


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", "3", '"text"', " ", "\ud800", '{"activities": 3}', '{"activities":{}}',
     {"activities": []}, 0],
)  # fmt: skip
def test_what_is_no_definition_is_unreadable(text: Any) -> None:
    assert findings_of_text(text) == {("", "unreadable", "", None)}


def test_without_an_incoming_call_it_starts_at_the_lowest_index() -> None:
    first, second = {**SAY, "nodeIndex": 1}, activity("b", None, event("ok", "end"), nodeIndex="3")
    assert findings({"activities": [second, first, END]}) == {("b", "unreachable", "", None)}
    assert findings({"activities": [{**second, "nodeIndex": -1}, first, END]}) == {
        ("say", "unreachable", "", None)
    }
    assert findings({"activities": [SAY, END]}) == {("", "no_start", "", None)}


def test_two_incoming_calls_are_two_starts() -> None:
    other = activity("other", "INCOMING_CALL", event("complete", "end"))
    assert findings({"activities": [START, other, SAY, END]}) == set()


def test_events_that_cannot_be_read_are_no_dead_end() -> None:
    odd = {"id": "say", "type": "PLAY_SAY", "events": "none"}
    assert findings({"activities": [START, odd]}) == {("say", "unreadable", "", None)}
    nothing: tuple[dict[str, Any], ...] = ({"events": None}, {})
    for missing in nothing:
        odd = {"id": "say", "type": "PLAY_SAY", **missing}
        assert findings({"activities": [START, odd]}) == {("say", "dead_end", "", None)}


@pytest.mark.parametrize(("sent", "detail"), [(3, "3"), ({"a": 1}, '{"a":1}'), ("a\0", "a\ufffd")])
def test_a_next_that_is_no_id_is_a_broken_link(sent: Any, detail: str) -> None:
    say = activity("say", "PLAY_SAY", event(None, sent), event("ok", "end"))
    assert findings({"activities": [START, say, END]}) == {("say", "broken_link", "", detail)}


@pytest.mark.parametrize("more", [{}, {"next": ""}, {"next": None}])
def test_an_empty_next_is_none(more: dict[str, Any]) -> None:
    say = activity("say", "PLAY_SAY", {"event": "no", **more}, event("ok", "end"))
    assert findings({"activities": [START, say, END]}) == {("say", "open_event", "no", None)}


def test_a_link_to_an_activity_that_no_row_can_hold_is_broken() -> None:
    long = "x" * 801
    start = activity("in", "INCOMING_CALL", event("a", long), event("b", "end"))
    assert findings({"activities": [start, activity(long, "PLAY_SAY"), END]}) == {
        ("in", "broken_link", "a", long)
    }


def test_of_a_repeated_activity_the_last_counts() -> None:
    first = activity("say", "PLAY_SAY", event("x", "gone"), event("y"))
    assert findings({"activities": [START, first, SAY, END]}) == set()


def test_events_that_are_alike_in_the_key_share_a_finding() -> None:
    alike = [event("说" * 42 + end, f"x{end}") for end in ("说", "啊", "b")]
    start = activity("in", "INCOMING_CALL", *alike, event("ok", "end"))
    assert findings({"activities": [start, END]}) == {
        ("in", "broken_link", "说" * 42, "x说, x啊"),
        ("in", "broken_link", "说" * 42 + "b", "xb"),
    }


def test_the_sandbox_has_each_finding_and_mostly_sound_flows() -> None:
    flows = alibaba_data.flows(data.random_of(7, "ccc"), 240, "ccc")
    rows = transformed("alibaba.contact_flows", flows, scope="ccc", zone=SHANGHAI)
    found = named(rows, "alibaba.contact_flow_findings")
    kinds = {row["finding"] for row in found}
    assert kinds == {
        *("unreachable", "dead_end", "open_event", "broken_link", "loop", "unreadable"),
    }
    assert len({row["ord"] for row in found}) == 24
    for number, flow in enumerate(flows):
        own = of([row for row in found if row["ord"] == number])
        assert own == naive.of_definition(flow["Definition"])
    assert not any(
        naive.of_definition(each["Definition"])
        for each in alibaba_data.flows(data.random_of(7, "ccc"), 20, "ccc")
    )


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


def flow(*activities: Any, **more: Any) -> dict[str, Any]:
    return {"ContactFlowId": "f", "Definition": json.dumps({"activities": activities}), **more}


def stored(connection: Connection) -> Found:
    return of(rows_of(connection, FINDINGS))


def closed(connection: Connection) -> set[tuple[Any, ...]]:
    """Activity, finding, valid_from and valid_to of the closed versions."""
    names = ("activity_id", "finding", "valid_from", "valid_to")
    return {tuple(row[name] for name in names) for row in versions_of(connection, FINDINGS)}


def test_history_says_since_when_and_until_when(connection: Connection) -> None:
    stuck = activity("say", "PLAY_SAY", event("complete"))
    load(connection, "s", CONTACT_FLOWS, [flow(START, SAY, END)], now=at(0))
    assert stored(connection) == set()
    load(connection, "s", CONTACT_FLOWS, [flow(START, stuck)], now=at(1))
    assert stored(connection) == {("say", "dead_end", "", None)}
    again = flow(START, stuck, Name="renamed")
    load(connection, "s", CONTACT_FLOWS, [again], now=at(2))
    (row,) = rows_of(connection, FINDINGS)
    assert (row["valid_from"], row["instance_id"], row["contact_flow_id"]) == (at(1), "ccc", "f")
    assert load(connection, "s", CONTACT_FLOWS, [again], now=at(3)) == Written()
    load(connection, "s", CONTACT_FLOWS, [flow(START, SAY, END)], now=at(4))
    assert stored(connection) == set()
    assert closed(connection) == {("say", "dead_end", at(1), at(4))}


def test_a_finding_that_says_more_is_a_new_version_and_goes_with_its_flow(
    connection: Connection,
) -> None:
    for hour, gone in enumerate(("x", "y")):
        start = activity("in", "INCOMING_CALL", event("a", gone), event("b", "end"))
        load(connection, "s", CONTACT_FLOWS, [flow(start, END)], now=at(hour))
        assert stored(connection) == {("in", "broken_link", "a", gone)}
    load(connection, "s", CONTACT_FLOWS, gone=[("ccc", "f")], now=at(2))
    assert stored(connection) == set()
    assert closed(connection) == {
        ("in", "broken_link", at(0), at(1)),
        ("in", "broken_link", at(1), at(2)),
    }


def test_a_definition_that_is_too_large_keeps_what_is_stored(connection: Connection) -> None:
    load(connection, "s", CONTACT_FLOWS, [flow(START, SAY)], now=at(0))
    before = stored(connection)
    assert before
    huge = {"ContactFlowId": "f", "Definition": '{"activities":[' + "{}," * 200_000 + "{}]}"}
    load(connection, "s", CONTACT_FLOWS, [huge], now=at(1))
    assert stored(connection) == before
    assert len(rows_of(connection, TABLES["alibaba.contact_flow_activities"])) == 2
    assert closed(connection) == set()


def test_keys_of_the_greatest_length_fit_the_index(connection: Connection, seed: int) -> None:
    """Random letters, so that Postgres cannot compress them."""
    rng = data.random_of(seed, "keys")
    flow_id, instance, name, said = (
        "".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(266)) for _ in range(4)
    )
    start = activity(name, "INCOMING_CALL", event(said, "gone"), event(said, None))
    record = flow(start)
    record["ContactFlowId"] = flow_id
    source = "s" * 40
    load(connection, source, CONTACT_FLOWS, [record], now=at(0), scope=instance)
    assert stored(connection) == {
        (name, "dead_end", "", None),
        (name, "broken_link", said[:42], "gone"),
        (name, "open_event", said[:42], None),
    }
    gone = [(instance, flow_id)]
    load(connection, source, CONTACT_FLOWS, gone=gone, now=at(1), scope=instance)
    assert len(closed(connection)) == 3

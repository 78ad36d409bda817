"""Definitions of Studio flows → states, transitions and findings."""

import json
from copy import deepcopy
from random import Random
from typing import Any

import pytest

from etl.extract.page import Page
from etl.providers.catalog import STREAMS, TABLES
from etl.transform.rows import Rows
from etl.warehouse import tables
from tests.providers.twilio.flows import HELLO, definition, recorded, sid, state

TRANSFORM = STREAMS["twilio.studio_flows"].transform


def transformed(*definitions: Any, **more: Any) -> Rows:
    """Return the rows of a flow whose revisions, from 1 on, have these definitions."""
    revisions = [
        {"sid": sid(1), "revision": number, "status": "draft", "definition": each}
        for number, each in enumerate(definitions, 1)
    ]
    flow = {"sid": sid(1), "revision": len(revisions), "revisions": revisions, **more}
    before = deepcopy(flow)
    rows = TRANSFORM(Page([flow], 1), 7)
    assert flow == before
    return rows


def cells(rows: Rows, table: str, *columns: str) -> list[tuple[Any, ...]]:
    """Return the cells of rows of one revision's table."""
    found = TABLES[f"twilio.studio_flow_{table}"]
    names = ["ord", *tables.data_columns(found)]
    return [
        tuple(row[names.index(each)] for each in columns) for row in rows.tables[found.fullname]
    ]


def found(rows: Rows) -> list[tuple[Any, ...]]:
    return sorted(cells(rows, "findings", "name", "finding", "event", "detail"))


def test_states_and_transitions_of_each_revision_are_read() -> None:
    rows = transformed(recorded("studio_definition_messaging")["definition"], None, HELLO)
    assert (rows.warnings, rows.rejects) == (0, [])
    assert cells(rows, "states", "revision", "name", "type", "is_start", "state_index")[:3] == [
        (1, "Trigger", "trigger", True, 0),
        (1, "send_welcome", "send-and-wait-for-reply", False, 1),
        (1, "select_queue", "split-based-on", False, 2),
    ]
    assert cells(rows, "states", "revision", "name")[7:] == [(3, "Trigger"), (3, "hello")]
    matches = [row for row in cells(rows, "transitions", "name", "position", "event", "next",
                                    "conditions") if row[2] == "match"]  # fmt: skip
    assert [row[:4] for row in matches] == [
        ("select_queue", 1, "match", "set_sales"), ("select_queue", 2, "match", "set_support"),
    ]  # fmt: skip
    assert json.loads(matches[0][4])[0]["value"] == "sales"
    assert [row[0] is None for row in cells(rows, "revisions", "definition")] == [
        False,
        True,
        False,
    ]


def test_a_definition_as_text_becomes_the_same_rows() -> None:
    inside = recorded("studio_definition_callback")["definition"]
    text = json.dumps(inside, separators=(",", ":"))
    assert transformed(inside).tables == transformed(text).tables


def test_where_a_state_is_drawn_is_left_out_of_its_properties_alone() -> None:
    placed = state("Trigger", properties={"offset": {"x": 1, "y": 2}, "say": "Hi"})
    rows = transformed(definition(placed))
    assert cells(rows, "states", "properties", "extra") == [('{"say":"Hi"}', None)]
    assert '"offset":{"x":1,"y":2}' in cells(rows, "revisions", "definition")[0][0]


def test_a_flow_starts_at_its_initial_state_whatever_that_is_called() -> None:
    states = (state("Trigger", "b"), state("a", "Trigger"), state("b"))
    rows = transformed(definition(*states, initial_state="a"))
    assert cells(rows, "states", "name", "is_start") == [
        ("Trigger", False), ("a", True), ("b", False)
    ]  # fmt: skip
    assert found(rows) == []
    assert found(transformed(definition(*states, initial_state="c"))) == [
        ("", "no_start", "", None)
    ]


@pytest.mark.parametrize("following", [None, "", "absent"])
def test_an_event_without_a_next_ends_the_flow(following: str | None) -> None:
    last = state("end", following, "end2")
    if following == "absent":
        del last["transitions"][0]["next"]
    rows = transformed(definition(state("Trigger", "end"), last, state("end2")))
    assert found(rows) == []


def test_faults_of_the_graph_are_found() -> None:
    rows = transformed(
        definition(
            state("Trigger", "ask", "gone"),
            state("ask", "ask"),
            state("alone", 7),  # type: ignore[arg-type]
            state("odd", transitions={"event": "x"}),
        )
    )
    assert found(rows) == [
        ("Trigger", "broken_link", "event1", "gone"),
        ("alone", "broken_link", "event0", "7"),
        ("alone", "unreachable", "", None),
        ("ask", "loop", "", "ask"),
        ("odd", "unreachable", "", None),
        ("odd", "unreadable", "", None),
    ]
    assert rows.warnings == 3  # a next that is no text; transitions that are no list, read twice


ODD: tuple[Any, ...] = ([], 5, "text", "[1]", {"states": {}}, {"states": "x"}, True)


@pytest.mark.parametrize("inside", ODD, ids=json.dumps)
def test_a_definition_that_has_no_list_of_states_is_kept_as_text(inside: Any) -> None:
    rows = transformed(inside)
    assert found(rows) == [("", "unreadable", "", None)]
    (text,) = [cell for (cell,) in cells(rows, "revisions", "definition")]
    assert text == inside or json.loads(text) == inside
    assert (rows.warnings, rows.rejects) == (1, [])


def test_states_that_cannot_be_keyed_and_repeated_names_are_warnings() -> None:
    odd: list[Any] = [{"type": "no name"}, {"name": 3}, {"name": ""}, "text", None]
    rows = transformed(definition(state("Trigger", "a"), *odd, state("a", "x"), state("a")))
    assert cells(rows, "states", "name", "state_index") == [("Trigger", 0), ("a", 7)]
    assert cells(rows, "transitions", "name", "next") == [("Trigger", "a")]
    assert (rows.warnings, rows.rejects) == (len(odd) + 1, [])


def test_a_revision_without_a_number_is_rejected_and_costs_no_other() -> None:
    flow = {"sid": sid(1), "revisions": [
        {"revision": None, "definition": HELLO}, {"revision": 2, "definition": HELLO},
        {"revision": 2**40, "definition": HELLO}, {"revision": "3"}, 4,
    ]}  # fmt: skip
    rows = TRANSFORM(Page([flow], 1), 0)
    assert cells(rows, "revisions", "revision") == [(2,), (3,)]
    assert [reject.reason.rpartition(": ")[2] for reject in rows.rejects] == [
        "revision is missing", "revision is not a whole number", "it is not an object",
    ]  # fmt: skip
    assert {number for (number,) in cells(rows, "states", "revision")} == {2}


def test_a_revision_that_is_listed_twice_counts_once() -> None:
    twice = [{"revision": 1, "definition": HELLO}, {"revision": 1, "definition": HELLO}]
    rows = TRANSFORM(Page([{"sid": sid(1), "revisions": twice}], 1), 0)
    assert [len(each) for each in rows.tables.values()] == [1, 1, 2, 1, 0, 0, 0, 0]


def test_a_definition_too_large_to_be_read_is_rejected_and_keeps_what_is_there() -> None:
    text = "[" + "{}," * 400_000 + "{}]"
    rows = transformed(HELLO, text)
    (reject,) = rows.rejects
    assert "definition of revision 2" in reject.reason
    assert cells(rows, "states", "revision") == [(1,), (1,)]
    assert rows.tables["twilio.studio_flows"][0][1] is True  # one of its children is unread


def test_thousands_of_states_in_a_chain_and_a_cycle(seed: int) -> None:
    names = ["Trigger", *(f"s{n}" for n in range(5000))]
    chain = [state(name, after) for name, after in zip(names, [*names[1:], "s0"], strict=True)]
    Random(seed).shuffle(chain)
    rows = transformed(definition(*chain))
    loops = [row for row in found(rows) if row[1] == "loop"]
    assert len(loops) == len(found(rows)) == 5000
    assert len(cells(rows, "states", "name")) == 5001


def test_unknown_types_first_versions_and_liquid_are_kept_as_they_are() -> None:
    way = {"event": "incomingCall", "next": "{{flow.next}}", "uuid": 1}
    old: dict[str, Any] = {
        "name": "Trigger",
        "type": "InitialState",
        "flow_url": "https://x.example/{{a}}",
    }
    old["transitions"] = [way]
    rows = transformed(definition(old, state("x", type="from-the-future"), flags={}))
    assert cells(rows, "states", "type", "properties", "extra") == [
        ("InitialState", None, '{"flow_url":"https://x.example/{{a}}"}'),
        ("from-the-future", "{}", None),
    ]
    assert cells(rows, "transitions", "next", "extra") == [("{{flow.next}}", '{"uuid":1}')]

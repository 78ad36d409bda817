"""What Studio flows add to the views of the schema callflow."""

from typing import Any

import pytest

from etl.sandbox.twilio import Twilio
from tests.postgres import ask
from tests.providers.twilio.conftest import Sync
from tests.providers.twilio.flows import CHANGED, HELLO, add, definition, sid, state


def test_flows_say_what_is_live_and_what_is_not_published(
    sync: Sync, twilio: Twilio, url: str
) -> None:
    add(twilio, 1, ("published", HELLO))
    add(twilio, 2, ("draft", HELLO))
    add(twilio, 3, ("published", HELLO), ("draft", CHANGED))
    add(twilio, 4, ("published", HELLO), ("published", CHANGED))
    sync()
    columns = "status, is_live, has_unpublished_changes, published_version, newest_version"
    query = f"SELECT {columns} FROM callflow.flows WHERE account_id = %s ORDER BY flow_id"
    assert ask(url, query, twilio.account_sid) == [
        ("published", True, False, 1, 1),
        ("draft", False, False, None, 1),
        ("draft", True, True, 1, 2),
        ("published", True, False, 2, 2),
    ]
    times = """SELECT f.flow_id, s.date_updated IS NULL, f.modified_at IS NULL
        FROM callflow.flows AS f JOIN twilio.studio_flows AS s ON s.sid = f.flow_id ORDER BY 1"""
    assert ask(url, times)[:2] == [(sid(1), True, False), (sid(2), True, False)]
    query = "SELECT version_id, status FROM callflow.flow_versions WHERE flow_id = %s ORDER BY 1"
    assert ask(url, query, sid(3)) == [("1", "published"), ("2", "draft")]


def test_steps_are_those_of_the_live_revision(sync: Sync, twilio: Twilio, url: str) -> None:
    add(twilio, 1, ("published", HELLO), ("draft", definition(state("draft"))))
    add(twilio, 2, ("draft", HELLO))
    sync()
    steps = "SELECT flow_id, step_id, step_number, properties FROM callflow.flow_steps ORDER BY 3"
    assert ask(url, steps) == [
        (sid(1), "Trigger", 0, "{}"),
        (sid(1), "hello", 1, '{"say": "Hello"}'),
    ]
    links = "SELECT step_id, link_number, event, next_step_id FROM callflow.flow_step_links"
    assert ask(url, links) == [("Trigger", 0, "event0", "hello")]
    settings = "SELECT step_id, property, value FROM callflow.flow_step_properties"
    assert ask(url, settings) == [("hello", "say", "Hello")]
    joined = """SELECT count(*) FROM callflow.flow_steps AS s JOIN callflow.flows AS f
        ON (f.source, f.account_id, f.flow_id) = (s.source, s.account_id, s.flow_id)"""
    assert ask(url, joined) == [(2,)]


def changes(url: str) -> list[tuple[Any, ...]]:
    return ask(url, "SELECT entity, entity_id, change, field, old_value, new_value"
                    " FROM callflow.changes ORDER BY 1, 2, 4")  # fmt: skip


def test_a_new_revision_is_told_step_by_step(sync: Sync, twilio: Twilio, url: str) -> None:
    old = (state("Trigger", "a"), state("a", "b", properties={"say": "1"}), state("b"), state("c"))
    new = (state("Trigger", "b"), state("a", "b", properties={"say": "2"}), state("b"), state("d"))
    add(twilio, 1, ("published", definition(*old)))
    sync()
    twilio.publish(sid(1), definition(*new))
    sync()
    assert changes(url) == [
        ("flow", sid(1), "updated", "published_version", "1", "2"),
        ("flow_version", "2", "created", None, None, None),
        ("step", "a", "updated", "properties.say", "1", "2"),
        ("step", "c", "deleted", None, None, None),
        ("step", "d", "created", None, None, None),
        ("step_link", "Trigger/event0", "updated", "next_step", "a", "b"),
    ]


def test_where_states_are_drawn_and_in_which_order_they_come_is_no_change(
    sync: Sync, twilio: Twilio, url: str
) -> None:
    states = [state(name, properties={"offset": {"x": 1}, "say": name}) for name in "abc"]
    add(twilio, 1, ("published", definition(*states, initial_state="a")))
    sync()
    moved = [state(name, properties={"say": name, "offset": {"x": 7, "y": 1}}) for name in "cba"]
    twilio.publish(sid(1), definition(*moved, initial_state="a"))
    sync()
    assert {each[0] for each in changes(url)} == {"flow", "flow_version"}


def uses(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    return state(name, type=kind, properties=settings)


LIQUID = "{{flow.variables.x}}"

REFERENCES: list[tuple[dict[str, Any], list[tuple[str, str, bool]]]] = [
    (uses("flex", "send-to-flex", workflow="WW1", channel="TC1"), [("workflow", "WW1", False)]),
    (uses("flex", "send-to-flex", workflow=LIQUID), [("workflow", LIQUID, True)]),
    (uses("call", "run-subflow", flow_sid=sid(2), flow_revision="x"), [("flow", sid(2), False)]),
    (uses("call", "run-subflow", flow_sid="{% if x %}"), [("flow", "{% if x %}", True)]),
    (
        uses("run", "run-function", function_sid="ZH1", url="https://a.example/x"),
        [("function", "ZH1", False)],
    ),
    (
        uses("run", "run-function", function_sid="", url="https://a.example/x?key=secret"),
        [("url", "a.example/x", False)],
    ),
    (
        uses("queue", "enqueue-call", workflow_sid="WW1", queue_name="sales"),
        [("queue", "sales", False), ("workflow", "WW1", False)],
    ),
    (uses("none", "say-play", workflow="WW1", url="https://a.example", flow_sid="FW1"), []),
    (uses("odd", "make-http-request", url={"a": 1}), []),
    (uses("odd", "send-to-flex", workflow="", flow_sid=3), []),
    *(
        (uses("http", "make-http-request", url=url), [("url", shown, is_dynamic)])
        for url, shown, is_dynamic in [
            ("https://a.example/x/y?token=secret#z", "a.example/x/y", False),
            ("https://user:secret@a.example:8443/x", "a.example:8443/x", False),
            ("https://user:sec@ret@a.example", "a.example", False),
            ("HTTP://a.example#secret", "a.example", False),
            ("https://user:secret?x@a.example/", "…", False),
            ("https://[::1]:80/x", "[::1]:80/x", False),
            ("//user:secret@a.example/x", "a.example/x", False),
            ("https://a.example/@x/y", "a.example/@x/y", False),
            ("https://{{a/b}}:{{secret}}@a.example/x?y={{z}}", "a.example/x", True),
            ("{{flow.base}}/x?key=secret", "{{flow.base}}/x", True),
            ("https://a.example/{{x}}?key=secret", "a.example/{{x}}", True),
        ]
    ),
]


@pytest.mark.parametrize(
    ("step", "found"), REFERENCES, ids=lambda each: str(each)[:60] if each else "none"
)
def test_what_a_step_uses_is_named(
    sync: Sync, twilio: Twilio, url: str, step: dict[str, Any], found: list[Any]
) -> None:
    add(twilio, 1, ("published", definition(step, initial_state=step["name"])))
    add(twilio, 2, ("draft", HELLO))
    sync()
    query = "SELECT step_id, kind, target_id, is_dynamic, target_name FROM callflow.flow_references"
    assert ask(url, f"{query} ORDER BY 2") == [
        (step["name"], *each, "Flow 2" if each[1] == sid(2) else None) for each in found
    ]


def test_a_flow_that_another_calls_or_that_starts_by_request_is_reached(
    sync: Sync, twilio: Twilio, url: str
) -> None:
    calling = definition(state("Trigger", "call"), uses("call", "run-subflow", flow_sid=sid(2)))
    way = {"event": "incomingRequest", "next": "hello"}
    ends = {"event": "incomingParent"}
    for number, inside in enumerate([
        calling, HELLO, definition(state("Trigger") | {"transitions": [way]}, state("hello")),
        definition(state("Trigger") | {"transitions": [ends]}),
    ], 1):  # fmt: skip
        add(twilio, number, ("published", inside))
    sync()
    query = "SELECT flow_id FROM callflow.unreached_flows ORDER BY 1"
    assert ask(url, query) == [(sid(1),), (sid(4),)]

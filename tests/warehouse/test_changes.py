"""callflow.changes: what is logged of flows that real syncs find changed, and what is not."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import Engine

from etl.load.runs import Run
from etl.sandbox.server import Sandbox
from etl.sync.rebuild import rebuild_changes
from tests.postgres import ask
from tests.sync.conftest import Starter, Sync

ZOOM, FLEX = "zoom_demo.flows", "twilio_demo.flex_flows"
CHANNELS, ALIBABA = "twilio_demo.channels", "alibaba_demo.contact_flows"
pytestmark = pytest.mark.slow

INSTANCE, OTHER = "ccc-sandbox", "ccc-sandbox-survey"


@pytest.fixture
def engine(emptied: Engine) -> Engine:
    return emptied


@pytest.fixture
def warehouse(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def complete(run: Sync, stream: str, **given: Any) -> Run:
    result = run(stream, **given)
    assert result.status == "complete", result.error
    return result


def logged(url: str, columns: str = "entity, entity_id, change, field, old_value, new_value"
           ) -> list[tuple[Any, ...]]:  # fmt: skip
    return ask(url, f"SELECT {columns} FROM callflow.changes ORDER BY observed_at, {columns}")


def rebuilt(engine: Engine) -> list[tuple[Any, ...]]:
    """Return the rows of the log as they are when it is written again from the histories."""
    with engine.connect() as connection:
        rebuild_changes(connection)
        rows = connection.exec_driver_sql("SELECT * FROM history.changes").all()
        connection.rollback()
    return sorted((tuple(row) for row in rows), key=repr)


def written(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM history.changes").all()
    return sorted((tuple(row) for row in rows), key=repr)


def flow(flow_id: str = "f", **changes: Any) -> dict[str, Any]:
    return {
        "flow_id": flow_id,
        "flow_name": "Main",
        "channel": "voice",
        "status": "draft",
        "modified_by": "ada",
        "last_modified_time": "2026-01-01T00:00:00Z",
        "flow_versions": [{"flow_version_id": "v1", "flow_version": 1}],
        "entry_points": [{"entry_id": "e1", "entry_number": "+12125550100"}],
        **changes,
    }


def flex_flow(**changes: Any) -> dict[str, Any]:
    times = {"date_created": "2026-01-01T00:00:00Z", "date_updated": "2026-01-01T00:00:00Z"}
    return {"sid": "FO1", "account_sid": "AC1", "friendly_name": "Web", **times, **changes}


def activity(
    step_id: str, *events: tuple[str | None, str | None], **changes: Any
) -> dict[str, Any]:
    """Return an activity of a Definition; an event is its name and the activity that follows."""
    return {
        "id": step_id,
        "type": "PLAY_SAY",
        "name": f"Step {step_id}",
        "nodeIndex": 1,
        "properties": {"content": "Hello", "position": {"x": 1}},
        "events": [
            {"event": event, "edgeId": f"{step_id}-{number}", "next": following}
            for number, (event, following) in enumerate(events)
        ],
        **changes,
    }


def contact_flow(activities: Iterable[Any] | str, **changes: Any) -> dict[str, Any]:
    """Return a contact flow with these activities, or with this text as its Definition."""
    inside = (
        activities if isinstance(activities, str) else json.dumps({"activities": [*activities]})
    )
    return {
        "ContactFlowId": "f",
        "Name": "IVR",
        "Type": "MAIN_FLOW",
        "Definition": inside,
        "Published": False,
        "NumberList": ["4001"],
        "Editor": "li",
        "CreatedTime": "2026-01-01 08:00:00.0",
        "UpdatedTime": "2026-01-01 08:00:00.0",
        **changes,
    }


LATER, AFTER_THAT = "2026-02-01 08:00:00.0", "2026-03-01 08:00:00.0"


def edited(run: Sync, sandbox: Sandbox, before: Any, after: Any, **changes: Any) -> None:
    """Sync a contact flow with the activities `before`, then with `after`."""
    store = sandbox.alibaba.flows[INSTANCE]
    store.add(contact_flow(before))
    complete(run, ALIBABA)
    store.add(contact_flow(after, **{"UpdatedTime": LATER, **changes}))
    assert complete(run, ALIBABA).rows_written


# -- rule 1: a change gives a row, layout gives none ----------------------------------------------


def test_each_value_that_differs_is_a_row_with_both_values(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    flows.add(flow())
    complete(run, ZOOM)
    flows.add(
        flow(
            flow_name="Sales",
            flow_description="New",
            channel="messaging",
            channel_source="sms",
            channel_type="sms",
            status="published",
            modified_by="bob",
            last_modified_time="2026-02-01T00:00:00Z",
            own={"a": [1]},
            flow_versions=[
                {
                    "flow_version_id": "v1",
                    "flow_version": 2,
                    "flow_version_status": "published",
                    "flow_version_description": "Two",
                    "flow_version_modified_by": "eve",
                    "flow_version_last_modified_time": "2026-01-20T00:00:00Z",
                }
            ],
            entry_points=[
                {
                    "entry_id": "e1",
                    "entry_number": "+12125550199",
                    "entry_name": "Line",
                    "entry_language": "en-US",
                }
            ],
        )
    )
    complete(run, ZOOM)
    assert logged(warehouse) == [
        ("entry_point", "e1", "updated", "address", "+12125550100", "+12125550199"),
        ("entry_point", "e1", "updated", "language", None, "en-US"),
        ("entry_point", "e1", "updated", "name", None, "Line"),
        ("flow", "f", "updated", "channel", "voice", "messaging"),
        ("flow", "f", "updated", "channel_source", None, "sms"),
        ("flow", "f", "updated", "channel_type", None, "sms"),
        ("flow", "f", "updated", "description", None, "New"),
        ("flow", "f", "updated", "extra.own", None, '{"a": [1]}'),
        ("flow", "f", "updated", "name", "Main", "Sales"),
        ("flow", "f", "updated", "status", "draft", "published"),
        ("flow_version", "v1", "updated", "description", None, "Two"),
        ("flow_version", "v1", "updated", "status", None, "published"),
        ("flow_version", "v1", "updated", "version_number", "1", "2"),
    ]
    columns = "entity, flow_name, entity_name, modified_by, modified_at::date::text, flow_key"
    assert set(logged(warehouse, columns)) == {
        ("entry_point", "Sales", "+12125550199", "bob", "2026-02-01", "zoom_demo/f"),
        ("flow", "Sales", "Sales", "bob", "2026-02-01", "zoom_demo/f"),
        ("flow_version", "Sales", "2", "eve", "2026-01-20", "zoom_demo/f"),
    }
    assert {row[:4] for row in logged(warehouse, "provider, source, account_id, flow_id")} == {
        ("zoom", "zoom_demo", None, "f")
    }


def test_what_is_special_to_a_provider_is_compared_by_its_own_name(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run = sync(sandbox)
    sandbox.twilio.flex_flows.add(
        flex_flow(enabled=True, channel_type="sms", contact_identity="+12125550100")
    )
    sandbox.alibaba.flows[INSTANCE].add(contact_flow([]))
    complete(run, FLEX)
    complete(run, ALIBABA)
    sandbox.twilio.flex_flows.add(
        flex_flow(
            date_updated="2026-02-01T00:00:00Z",
            enabled=False,
            channel_type="whatsapp",
            contact_identity="whatsapp:+12125550100",
            integration_type="studio",
            integration={"flow_sid": "FW1", "retry_count": 3, "creation_on_message": True},
            janitor_enabled=True,
            long_lived=False,
            chat_service_sid="IS1",
            url="https://twilio.example/FO1",
        )
    )
    sandbox.alibaba.flows[INSTANCE].add(
        contact_flow([], DraftId="d1", Published=True, UpdatedTime=LATER)
    )
    complete(run, FLEX)
    complete(run, ALIBABA)
    assert logged(warehouse, "provider, account_id, field, old_value, new_value") == [
        ("twilio", "AC1", "address", "+12125550100", "whatsapp:+12125550100"),
        ("twilio", "AC1", "channel_source", "sms", "whatsapp"),
        ("twilio", "AC1", "chat_service_sid", None, "IS1"),
        ("twilio", "AC1", "flow_type", None, "studio"),
        ("twilio", "AC1", "integration_creation_on_message", None, "true"),
        ("twilio", "AC1", "integration_flow_sid", None, "FW1"),
        ("twilio", "AC1", "integration_retry_count", None, "3"),
        ("twilio", "AC1", "janitor_enabled", None, "true"),
        ("twilio", "AC1", "long_lived", None, "false"),
        ("twilio", "AC1", "status", "published", "disabled"),
        ("alibaba", INSTANCE, "draft", None, "d1"),
        ("alibaba", INSTANCE, "status", "draft", "published"),
    ]


def test_a_flow_that_was_only_saved_gives_one_row_with_both_times(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    flows.add(flow())
    complete(run, ZOOM)
    flows.add(flow(modified_by="bob", last_modified_time="2026-02-01T01:02:03.5+01:00"))
    complete(run, ZOOM)
    before, after = "2026-01-01T00:00:00.000000Z", "2026-02-01T00:02:03.500000Z"
    assert logged(warehouse) == [("flow", "f", "updated", "saved", before, after)]
    assert logged(warehouse, "modified_by") == [("bob",)]


def test_only_the_editor_of_a_version_differs_and_it_was_saved(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    flows.add(flow())
    complete(run, ZOOM)
    version = {"flow_version_id": "v1", "flow_version": 1, "flow_version_modified_by": "bob"}
    flows.add(flow(flow_versions=[version]))
    complete(run, ZOOM)
    assert logged(warehouse) == [("flow_version", "v1", "updated", "saved", None, None)]


def test_a_step_that_only_moved_on_the_drawing_board_gives_no_row(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    moved = activity("a", properties={"content": "Hello", "position": {"x": 9}}, nodeIndex=7)
    edited(sync(sandbox), sandbox, [activity("a")], [moved])
    versions = ask(warehouse, "SELECT count(*) FROM alibaba.contact_flow_activities_history")
    assert versions == [(2,)]
    assert logged(warehouse, "entity, field") == [("flow", "saved")]


def test_the_settings_of_a_step_are_compared_one_by_one(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    before = activity("a", properties={"content": "Hello", "gone": 1, "list": [1, 2]})
    after = activity(
        "a",
        type="MENU",
        name="Menu",
        own=True,
        properties={"content": "Bye", "new": None, "list": [1, 2]},
    )
    edited(sync(sandbox), sandbox, [before], [after])
    assert logged(warehouse) == [
        ("flow", "f", "updated", "saved", "2026-01-01T00:00:00.000000Z",
         "2026-02-01T00:00:00.000000Z"),
        ("step", "a", "updated", "extra.own", None, "true"),
        ("step", "a", "updated", "name", "Step a", "Menu"),
        ("step", "a", "updated", "properties.content", "Hello", "Bye"),
        ("step", "a", "updated", "properties.gone", "1", None),
        ("step", "a", "updated", "properties.new", None, None),
        ("step", "a", "updated", "step_type", "PLAY_SAY", "MENU"),
    ]  # fmt: skip
    people = set(logged(warehouse, "entity, modified_by, modified_at::date::text"))
    assert people == {(entity, "li", "2026-02-01") for entity in ("flow", "step")}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1], {"a": 1}, {("properties", "[1]", None), ("properties.a", None, "1")}),
        ({"a": 1}, "x", {("properties", None, '"x"'), ("properties.a", "1", None)}),
        ([1], [2], {("properties", "[1]", "[2]")}),
        (3, [2], {("properties", "3", "[2]")}),
    ],
)
def test_settings_that_are_no_object_are_compared_whole(
    sync: Starter, sandbox: Sandbox, warehouse: str, before: Any, after: Any, expected: set[Any]
) -> None:
    edited(
        sync(sandbox),
        sandbox,
        [activity("a", properties=before)],
        [activity("a", properties=after)],
    )
    steps = {row[1:] for row in logged(warehouse, "entity, field, old_value, new_value")
             if row[0] == "step"}  # fmt: skip
    assert steps == expected


# -- rule 2: created, restored, updated, deleted --------------------------------------------------


def test_a_flow_is_created_then_deleted_then_restored(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    flows.add(flow("other"))
    complete(run, ZOOM)
    flows.add(flow())
    complete(run, ZOOM)
    flows.delete("f")
    complete(run, ZOOM)
    flows.add(flow(flow_name="Back"))
    complete(run, ZOOM)
    flows.delete("f")
    complete(run, ZOOM)
    columns = "flow_id, change, field, flow_name, entity_name, modified_by, modified_at IS NULL"
    assert ask(warehouse, f"SELECT {columns} FROM callflow.changes ORDER BY observed_at") == [
        ("f", "created", None, "Main", "Main", "ada", False),
        ("f", "deleted", None, "Main", "Main", None, True),
        ("f", "restored", None, "Back", "Back", "ada", False),
        ("f", "deleted", None, "Back", "Back", None, True),
    ]


def test_a_child_of_a_flow_is_created_deleted_and_restored(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    first, second = ({"entry_id": name, "entry_name": name.upper()} for name in ("e1", "e2"))
    for entry_points in ([first], [first, second], [first], [first, second]):
        flows.add(flow(entry_points=entry_points))
        complete(run, ZOOM)
    columns = "entity, entity_id, entity_name, change, field, flow_name, modified_by"
    assert ask(warehouse, f"SELECT {columns} FROM callflow.changes ORDER BY observed_at") == [
        ("entry_point", "e2", "E2", "created", None, "Main", "ada"),
        ("entry_point", "e2", "E2", "deleted", None, "Main", None),
        ("entry_point", "e2", "E2", "restored", None, "Main", "ada"),
    ]


# -- rule 3: a first complete run is no news ------------------------------------------------------


def test_what_the_first_complete_run_finds_is_no_news(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    for name in "abc":
        flows.add(flow(name))
    assert complete(run, ZOOM).inserted == 3
    assert logged(warehouse) == []
    flows.add(flow("d"))
    complete(run, ZOOM)
    assert logged(warehouse) == [("flow", "d", "created", None, None, None)]


def test_a_list_that_was_empty_at_first_has_news_from_then_on(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    complete(run, ZOOM)
    flows.add(flow("a", entry_points=[]))
    complete(run, ZOOM)
    flows.add(flow("a"))  # the first row that the table of entry points ever has
    complete(run, ZOOM)
    assert logged(warehouse, "entity, entity_id, change") == [
        ("flow", "a", "created"),
        ("entry_point", "e1", "created"),
    ]


def test_nothing_is_news_until_a_run_was_complete(
    sync: Starter, sandbox: Sandbox, engine: Engine, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    flows.add(flow("a"))
    flows.add({"flow_name": "no id"}, key="odd")
    assert run(ZOOM).status == "incomplete"
    flows.add(flow("a", flow_name="New"))
    flows.add(flow("b"))
    assert run(ZOOM).status == "incomplete"
    flows.delete("odd")
    flows.add(flow("c"))
    complete(run, ZOOM)
    assert ask(warehouse, "SELECT count(*) FROM zoom.flows_history") == [(4,)]
    assert logged(warehouse) == rebuilt(engine) == []
    flows.add(flow("a", flow_name="Newer"))
    flows.add({"flow_name": "no id"}, key="odd")
    assert run(ZOOM).status == "incomplete"  # what it changed is news: the list is known
    assert logged(warehouse) == [("flow", "a", "updated", "name", "New", "Newer")]


def test_an_instance_is_known_by_its_own_first_complete_run(
    sync: Starter, sandbox: Sandbox, engine: Engine, warehouse: str
) -> None:
    one, other = sandbox.alibaba.flows[INSTANCE], sandbox.alibaba.flows[OTHER]
    one.add(contact_flow([activity("a")], ContactFlowId="f"))
    other.add(contact_flow([activity("a")], ContactFlowId="f"))
    only, both = sync(sandbox, instance_ids=[INSTANCE]), sync(sandbox)
    complete(only, ALIBABA)
    complete(both, ALIBABA)
    assert logged(warehouse) == rebuilt(engine) == []
    one.add(contact_flow([activity("a")], ContactFlowId="new", UpdatedTime=LATER))
    other.add(contact_flow([activity("b")], ContactFlowId="f", UpdatedTime=LATER))
    complete(both, ALIBABA)
    assert logged(warehouse, "account_id, flow_id, entity, entity_id, change, field") == [
        (INSTANCE, "new", "flow", "new", "created", None),
        (OTHER, "f", "flow", "f", "updated", "saved"),
        (OTHER, "f", "step", "a", "deleted", None),
        (OTHER, "f", "step", "b", "created", None),
    ]


def test_an_instance_in_the_same_run_as_a_known_one_is_no_news(
    sync: Starter, sandbox: Sandbox, engine: Engine, warehouse: str
) -> None:
    one, other = sandbox.alibaba.flows[INSTANCE], sandbox.alibaba.flows[OTHER]
    one.add(contact_flow([]))
    complete(sync(sandbox, instance_ids=[INSTANCE]), ALIBABA)
    one.add(contact_flow([], Name="New", UpdatedTime=LATER))
    other.add(contact_flow([activity("a")]))
    complete(sync(sandbox), ALIBABA)
    expected = [(INSTANCE, "flow", "name")]
    assert logged(warehouse, "account_id, entity, field") == expected
    assert rebuilt(engine) == written(engine)


def test_an_empty_instance_is_known_too(sync: Starter, sandbox: Sandbox, warehouse: str) -> None:
    run = sync(sandbox)
    complete(run, ALIBABA)
    sandbox.alibaba.flows[OTHER].add(contact_flow([activity("a")]))
    complete(run, ALIBABA)
    assert logged(warehouse, "account_id, entity, change") == [(OTHER, "flow", "created")]


# -- rule 4: what comes or goes with its flow -----------------------------------------------------


def test_a_flow_and_all_its_children_are_one_row(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, store = sync(sandbox), sandbox.alibaba.flows[INSTANCE]
    complete(run, ALIBABA)
    steps = [activity(name, ("next", "c"), ("back", None)) for name in "abc"]
    record = contact_flow(steps, NumberList=["1", "2", "3"])
    for change in ("created", "deleted", "restored"):
        if change == "deleted":
            store.delete("f")
            complete(run, ALIBABA, full=True, accept_deletes=True)
            result = complete(run, ALIBABA, full=True, accept_deletes=True)
        else:
            store.add(record)
            result = complete(run, ALIBABA)
        assert result.rows_written > 10
        last = ask(
            warehouse,
            "SELECT entity, entity_id, change FROM callflow.changes WHERE observed_at ="
            " (SELECT max(observed_at) FROM callflow.changes)",
        )
        assert last == [("flow", "f", change)]


# -- rule 5: ways out of a step, as a set ---------------------------------------------------------


def link_changes(url: str) -> list[tuple[Any, ...]]:
    columns = "entity, entity_id, entity_name, change, field, old_value, new_value"
    return [row[1:] for row in logged(url, columns) if row[0] == "step_link"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            [("1", "x"), ("2", "y")],
            [("0", "z"), ("1", "x"), ("2", "y")],
            [("a/0", "0", "created", None, None, None)],
        ),
        ([("1", "x"), ("2", "y")], [("2", "y"), ("1", "x")], []),
        (
            [("0", "z"), ("1", "x"), ("2", "y")],
            [("1", "x"), ("2", "y")],
            [("a/0", "0", "deleted", None, None, None)],
        ),
        ([("1", "x")], [("1", "y")], [("a/1", "1", "updated", "next_step", "x", "y")]),
        ([("1", "x")], [("1", None)], [("a/1", "1", "updated", "next_step", "x", None)]),
        (
            [("1", "x"), ("1", "y")],
            [("1", "y"), ("1", "x"), ("1", "x")],
            [],
        ),
        (
            [("1", "x")],
            [("1", "x"), ("1", "y")],
            [("a/1", "1", "updated", "next_step", "x", "x, y")],
        ),
        (
            [(None, "x")],
            [("0", "y"), (None, "x")],
            [("a/0", "0", "created", None, None, None)],
        ),
    ],
    ids=["inserted in front", "moved", "first removed", "leads elsewhere", "leads nowhere",
         "the same twice", "one more", "without a name"],
)  # fmt: skip
def test_ways_out_are_compared_by_event_whatever_their_position(
    sync: Starter, sandbox: Sandbox, engine: Engine, warehouse: str, before: Any, after: Any,
    expected: list[Any],
) -> None:  # fmt: skip
    others = [activity(name) for name in "xyz"]
    edited(
        sync(sandbox),
        sandbox,
        [activity("a", *before), *others],
        [activity("a", *after), *others],
    )
    assert ask(warehouse, "SELECT max(valid_to) IS NULL FROM alibaba.contact_flows_history") == [
        (False,)
    ]
    assert link_changes(warehouse) == expected
    assert rebuilt(engine) == written(engine)


def test_another_id_of_an_edge_is_no_change(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    step = activity("a", ("1", "b"))
    other = json.loads(json.dumps(step))
    other["events"][0]["edgeId"] = "another"
    edited(sync(sandbox), sandbox, [step], [other])
    versions = "SELECT count(*) FROM alibaba.contact_flow_transitions_history"
    assert ask(warehouse, versions) == [(2,)]
    assert link_changes(warehouse) == []


def test_a_way_out_that_comes_back_is_restored(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, store = sync(sandbox), sandbox.alibaba.flows[INSTANCE]
    for month, events in enumerate(([("1", "x")], [], [("1", "x")]), 1):
        updated = f"2026-0{month}-01 08:00:00.0"
        store.add(contact_flow([activity("a", *events), activity("x")], UpdatedTime=updated))
        complete(run, ALIBABA)
    assert [row[2] for row in link_changes(warehouse)] == ["deleted", "restored"]


# -- rule 6: a value that a new version of callflow moves from `extra` to a column ----------------


def as_before(engine: Engine, *statements: str) -> None:
    """Make rows as a version of callflow wrote them that did not have some column yet."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_a_value_that_moves_from_extra_to_its_column_is_no_change(
    sync: Starter, sandbox: Sandbox, engine: Engine, warehouse: str
) -> None:
    run = sync(sandbox)
    sandbox.zoom.flows.add(flow(flow_description="Text", own="kept"))
    sandbox.twilio.flex_flows.add(
        flex_flow(
            integration_type="task",
            integration={"timeout": 60, "creation_on_message": True, "url": "https://a.example"},
        )
    )
    sandbox.alibaba.flows[INSTANCE].add(contact_flow([activity("a")]))
    for stream in (ZOOM, FLEX, ALIBABA):
        complete(run, stream)
    as_before(
        engine,
        "UPDATE zoom.flows SET extra = extra || jsonb_build_object("
        "'flow_description', flow_description, 'last_modified_time', '2026-01-01T00:00:00Z'),"
        " flow_description = NULL, last_modified_time = NULL",
        "UPDATE zoom.entry_points SET extra = jsonb_build_object('entry_number', entry_number),"
        " entry_number = NULL",
        "UPDATE twilio.flex_flows SET extra = jsonb_build_object('integration', jsonb_build_object("
        "'timeout', 60, 'creation_on_message', true, 'url', 'https://a.example')),"
        " integration_timeout = NULL, integration_creation_on_message = NULL,"
        " integration_url = NULL",
        "UPDATE alibaba.contact_flow_activities SET extra = jsonb_build_object("
        "'properties', properties), properties = NULL",
        "UPDATE etl.streams SET last_full_at = NULL",
    )
    for stream in (ZOOM, FLEX, ALIBABA):
        assert complete(run, stream, full=True).updated == 1
    assert ask(warehouse, "SELECT flow_description, extra::text FROM zoom.flows") == [
        ("Text", '{"own": "kept"}')
    ]
    assert ask(warehouse, "SELECT integration_timeout, extra FROM twilio.flex_flows") == [
        (60, None)
    ]
    assert logged(warehouse) == rebuilt(engine) == []


def test_a_value_that_changes_while_it_moves_to_its_column_is_a_change(
    sync: Starter, sandbox: Sandbox, engine: Engine, warehouse: str
) -> None:
    run = sync(sandbox)
    sandbox.zoom.flows.add(flow(flow_description="Text", own="kept"))
    complete(run, ZOOM)
    as_before(
        engine,
        "UPDATE zoom.flows SET extra = extra || jsonb_build_object("
        "'flow_description', flow_description), flow_description = NULL",
    )
    sandbox.zoom.flows.add(flow(flow_description="Changed", own="too"))
    complete(run, ZOOM)
    assert logged(warehouse) == [
        ("flow", "f", "updated", "description", "Text", "Changed"),
        ("flow", "f", "updated", "extra.own", "kept", "too"),
    ]
    assert rebuilt(engine) == written(engine)


# -- rule 7: an inside that cannot be read --------------------------------------------------------


@pytest.mark.parametrize("unreadable", ["", "no JSON " + "x" * 300, '["another shape"]'])
def test_an_inside_that_cannot_be_read_is_compared_as_text(
    sync: Starter, sandbox: Sandbox, engine: Engine, warehouse: str, unreadable: str
) -> None:
    run, store = sync(sandbox), sandbox.alibaba.flows[INSTANCE]
    readable = contact_flow([activity("a")])
    store.add(readable)
    complete(run, ALIBABA)
    store.add(contact_flow(unreadable, UpdatedTime=LATER))
    complete(run, ALIBABA)
    store.add({**readable, "UpdatedTime": AFTER_THAT})
    complete(run, ALIBABA)
    of_flow = [row[2:] for row in logged(warehouse) if row[0] == "flow"]
    text = readable["Definition"]
    assert len(text) < 200
    if unreadable:
        assert of_flow == [
            ("updated", "definition", text, unreadable[:200]),
            ("updated", "definition", unreadable[:200], text),
        ]
    else:  # nothing inside: that can be read
        assert [row[:2] for row in of_flow] == [("updated", "saved")] * 2
    assert [row[1:3] for row in logged(warehouse) if row[0] == "step"] == [
        ("a", "deleted"),
        ("a", "restored"),
    ]
    assert rebuilt(engine) == written(engine)


def test_an_inside_that_can_be_read_is_not_compared_as_text(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    edited(sync(sandbox), sandbox, [activity("a")], [activity("a", events=[], name="New")])
    assert [row[3] for row in logged(warehouse)] == ["saved", "name"]


# -- rule 8: channels ------------------------------------------------------------------------------


def test_channels_are_not_in_the_log(sync: Starter, sandbox: Sandbox, warehouse: str) -> None:
    run = sync(sandbox)
    channel = {"sid": "CH1", "date_created": "2026-01-01T00:00:00Z"}
    for day in range(1, 4):
        sandbox.twilio.channels.add({**channel, "date_updated": f"2026-01-0{day}T00:00:00Z"})
        assert complete(run, CHANNELS).rows_written == 1
    assert ask(warehouse, "SELECT count(*) FROM callflow.channels_history") == [(3,)]
    assert logged(warehouse) == []


# -- rule 9: in the transaction of the merge, and nothing in a quiet run --------------------------


def test_a_change_is_logged_in_the_transaction_and_at_the_instant_of_its_merge(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    flows.add(flow("a"))
    flows.add(flow("b"))
    complete(run, ZOOM)
    flows.add(flow("a", flow_name="New", entry_points=[]))
    flows.delete("b")
    complete(run, ZOOM)
    assert len(logged(warehouse)) == 3
    of_run = ask(
        warehouse,
        "SELECT DISTINCT xmin::text, observed_at FROM history.changes UNION"
        " SELECT xmin::text, valid_to FROM history.zoom_flows UNION"
        " SELECT xmin::text, valid_to FROM history.zoom_entry_points UNION"
        " SELECT xmin::text, valid_from FROM zoom.flows",
    )
    assert len(of_run) == 1


def test_a_merge_that_fails_logs_nothing(
    sync: Starter, sandbox: Sandbox, engine: Engine, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    flows.add(flow())
    complete(run, ZOOM)
    flows.add(flow(flow_name="New"))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE history.changes ADD CONSTRAINT none_such CHECK (field <> 'name')"
        )
    try:
        assert run(ZOOM).status == "failed"
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE history.changes DROP CONSTRAINT none_such")
    assert ask(warehouse, "SELECT flow_name FROM zoom.flows_history") == [("Main",)]
    complete(run, ZOOM)
    assert logged(warehouse) == [("flow", "f", "updated", "name", "Main", "New")]


def test_a_quiet_run_writes_nothing(sync: Starter, sandbox: Sandbox, warehouse: str) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    flows.add(flow())
    complete(run, ZOOM)
    flows.add(flow(flow_name="New"))
    complete(run, ZOOM)
    size = "SELECT pg_relation_size('history.changes'), count(*), max(ctid) FROM history.changes"
    before = ask(warehouse, size)
    for full in (False, True):
        assert complete(run, ZOOM, full=full).rows_written == 0
    assert ask(warehouse, size) == before


def test_a_merge_of_many_records_logs_the_same_as_one_of_few(
    sync: Starter, sandbox: Sandbox, engine: Engine, warehouse: str
) -> None:
    """Beyond a thousand records their versions are found by reading the tables."""
    run, flows = sync(sandbox), sandbox.zoom.flows
    for number in range(1100):
        flows.add(flow(f"f{number:04}"))
    complete(run, ZOOM)
    for number in range(1100):
        flows.add(flow(f"f{number:04}", flow_name="New", entry_points=[]))
    complete(run, ZOOM)
    counts = "SELECT entity, change, field, count(*) FROM callflow.changes GROUP BY 1, 2, 3"
    assert sorted(ask(warehouse, counts)) == [
        ("entry_point", "deleted", None, 1100),
        ("flow", "updated", "name", 1100),
    ]
    assert rebuilt(engine) == written(engine)


def test_two_sources_with_the_same_flow_are_told_apart(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    """The second source starts later, so its flow is no news when that of the first one is."""
    flows = sandbox.zoom.flows
    flows.add(flow())
    first, second = sync(sandbox), sync(sandbox, name="zoom_two")
    complete(first, ZOOM)
    flows.add(flow(flow_name="New"))
    complete(second, ZOOM)
    complete(first, ZOOM)
    assert logged(warehouse, "source, field, new_value") == [("zoom_demo", "name", "New")]
    flows.add(flow(flow_name="Newer"))
    complete(second, ZOOM)
    assert logged(warehouse, "source, field, old_value")[1:] == [("zoom_two", "name", "New")]


# -- hostile values -------------------------------------------------------------------------------


def test_values_that_would_break_text_or_sql_are_logged_as_they_are(
    sync: Starter, sandbox: Sandbox, engine: Engine, warehouse: str
) -> None:
    odd = "\u202e'\"\\ %s %(x)s :now ; <script> \n 流程 😀"
    run, store = sync(sandbox), sandbox.alibaba.flows[INSTANCE]
    store.add(contact_flow([activity("a", (odd, "a"), properties={odd: "1"})], odd=1))
    complete(run, ALIBABA)
    step = activity("a", (odd, "b"), (f"{odd}2", "a"), properties={odd: odd}, name=odd)
    store.add(contact_flow([step], Name=odd, NumberList=[odd], **{"UpdatedTime": LATER, odd: odd}))
    complete(run, ALIBABA)
    assert set(logged(warehouse)) == {
        ("flow", "f", "updated", "name", "IVR", odd),
        ("flow", "f", "updated", "extra.odd", "1", None),
        ("flow", "f", "updated", f"extra.{odd}", None, odd),
        ("entry_point", "4001", "deleted", None, None, None),
        ("entry_point", odd, "created", None, None, None),
        ("step", "a", "updated", "name", "Step a", odd),
        ("step", "a", "updated", f"properties.{odd}", "1", odd),
        ("step_link", f"a/{odd}", "updated", "next_step", "a", "b"),
        ("step_link", f"a/{odd}2", "created", None, None, None),
    }
    assert rebuilt(engine) == written(engine)


# -- flow_diff ------------------------------------------------------------------------------------


def difference(url: str, since: str, until: str = "now()", source: str = "zoom_demo") -> Any:
    """Return what flow_diff finds about the flow f between two instants, given as SQL."""
    return ask(
        url,
        "SELECT entity, entity_id, change, field, old_value, new_value"
        f" FROM callflow.flow_diff('{source}', 'f', {since}, {until}) ORDER BY 1, 2, 3, 4",
    )


def instants(url: str) -> list[str]:
    """Return the instants of all versions, as SQL literals, the oldest first."""
    times = ask(
        url,
        "SELECT DISTINCT valid_from::text FROM callflow.flows_history UNION"
        " SELECT valid_to::text FROM callflow.flows_history WHERE valid_to IS NOT NULL ORDER BY 1",
    )
    return [f"timestamptz '{time}'" for (time,) in times]


def test_flow_diff_is_net_and_a_value_that_went_back_is_no_difference(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    states = [("Main", "draft"), ("Sales", "draft"), ("Main", "draft"), ("Main", "published")]
    for day, (name, status) in enumerate(states, 1):
        time = f"2026-01-0{day}T00:00:00Z"
        flows.add(flow(flow_name=name, status=status, last_modified_time=time))
        complete(run, ZOOM)
    first, second, third, fourth = instants(warehouse)
    assert difference(warehouse, first, second) == [
        ("flow", "f", "updated", "name", "Main", "Sales")
    ]
    assert difference(warehouse, first, third) == []
    assert difference(warehouse, first, fourth) == [
        ("flow", "f", "updated", "status", "draft", "published")
    ]
    assert difference(warehouse, fourth, first) == [
        ("flow", "f", "updated", "status", "published", "draft")
    ]
    assert difference(warehouse, fourth, fourth) == []


def test_flow_diff_says_that_a_flow_was_only_saved(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    for day in (1, 2, 3):
        flows.add(flow(last_modified_time=f"2026-01-0{day}T00:00:00Z"))
        complete(run, ZOOM)
    first, second, third = instants(warehouse)
    days = [f"2026-01-0{day}T00:00:00.000000Z" for day in (1, 2, 3)]
    assert difference(warehouse, first, second) == [("flow", "f", "updated", "saved", *days[:2])]
    assert difference(warehouse, first, third) == [
        ("flow", "f", "updated", "saved", days[0], days[2])
    ]


def test_flow_diff_of_a_flow_that_came_and_went(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    run, flows = sync(sandbox), sandbox.zoom.flows
    flows.add(flow("other"))
    complete(run, ZOOM)
    flows.add(flow())
    complete(run, ZOOM)
    flows.delete("f")
    complete(run, ZOOM)
    _, came, went = instants(warehouse)
    before = f"{came} - interval '1 second'"
    assert difference(warehouse, before, came) == [("flow", "f", "created", None, None, None)]
    assert difference(warehouse, came, went) == [("flow", "f", "deleted", None, None, None)]
    assert difference(warehouse, before, went) == []
    assert difference(warehouse, came, went, source="another") == []


def test_flow_diff_compares_steps_and_ways_out_too(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    edited(
        sync(sandbox),
        sandbox,
        [activity("a", ("1", "b")), activity("b")],
        [activity("a", ("0", "b"), ("1", "a"), name="New"), activity("c")],
        NumberList=[],
    )
    first, second = instants(warehouse)
    found = difference(warehouse, first, second, source="alibaba_demo")
    assert found == [
        ("entry_point", "4001", "deleted", None, None, None),
        ("flow", "f", "updated", "saved", "2026-01-01T00:00:00.000000Z",
         "2026-02-01T00:00:00.000000Z"),
        ("step", "a", "updated", "name", "Step a", "New"),
        ("step", "b", "deleted", None, None, None),
        ("step", "c", "created", None, None, None),
        ("step_link", "a/0", "created", None, None, None),
        ("step_link", "a/1", "updated", "next_step", "b", "a"),
    ]  # fmt: skip
    assert found == sorted(logged(warehouse), key=lambda row: (row[0], row[1], row[2]))

"""What `callflow show` and `callflow diff` say of Studio flows, and of a number's two ways."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from etl.config.redact import Redactor
from etl.errors import ConfigError
from etl.sandbox.twilio import Twilio
from etl.status import flows, versions
from etl.status.drawing import mermaid
from etl.status.flows import Content
from tests.postgres import ask, dsn
from tests.providers.twilio.conftest import Sync
from tests.providers.twilio.flows import ACCOUNT, HELLO, add, definition, recorded, sid, state
from tests.test_cli import environment
from tests.warm import Warm


def match(value: str, following: str | None) -> dict[str, Any]:
    return {"event": "match", "next": following,
            "conditions": [{"type": "equal_to", "value": value}]}  # fmt: skip


def split(name: str, *ways: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "type": "split-based-on", "transitions": [*ways], "properties": {}}


def trigger(**ways: str | None) -> dict[str, Any]:
    events = [
        {"event": event, **({} if to is None else {"next": to})} for event, to in ways.items()
    ]
    return {"name": "Begin", "type": "trigger", "transitions": events, "properties": {}}


def content(engine: Engine, flow_id: str, at: datetime | None = None) -> Content:
    with flows.snapshot(engine, Redactor(), "test") as connection:
        (flow,) = flows.find(connection, flow_id)
        found = flows.content(connection, flow, at)
    assert found is not None
    return found


def compared(engine: Engine, flow_id: str, *of: versions.Version | None) -> versions.Compared:
    with flows.snapshot(engine, Redactor(), "test") as connection:
        (flow,) = flows.find(connection, flow_id)
        return versions.difference(connection, flow, *of)


def said(found: versions.Compared) -> list[tuple[Any, ...]]:
    names = ("entity", "entity_id", "change", "field", "old_value", "new_value")
    return [tuple(row[name] for name in names) for row in found.rows]


OLD = definition(
    trigger(incomingCall="menu", incomingMessage=None),
    split("menu", match("1", "sales"), match("2", "support")),
    state("sales", properties={"say": "Hello", "loop": 1}),
    state("support"),
    state("fax", type="send-fax"),
    initial_state="Begin",
)
NEW = definition(
    trigger(incomingCall="menu", incomingMessage="menu"),
    split("menu", match("1", "support"), match("2", "sales")),
    state("sales", properties={"loop": 2, "say": "Hello"}, type="play"),
    state("support", "menu"),
    state("mail"),
    initial_state="Begin",
)


def test_two_versions_differ_step_by_step(sync: Sync, twilio: Twilio, engine: Engine) -> None:
    add(twilio, 1, ("published", OLD), ("draft", NEW))
    sync()
    found = compared(engine, sid(1), "live", "newest")
    assert (found.old, found.new) == (1, 2)
    one, two = (f'[{{"type": "equal_to", "value": "{each}"}}]' for each in "12")
    assert said(found) == [
        ("step", "fax", "deleted", None, None, None),
        ("step", "mail", "created", None, None, None),
        ("step", "sales", "updated", "properties.loop", "1", "2"),
        ("step", "sales", "updated", "step_type", "say-play", "play"),
        ("step_link", "Begin/incomingMessage", "updated", "next_step", None, "menu"),
        ("step_link", "menu/match", "updated", "conditions",
         f"{one} → sales, {two} → support", f"{one} → support, {two} → sales"),
        ("step_link", "support/event0", "created", None, None, None),
    ]  # fmt: skip
    assert said(compared(engine, sid(1), 2, 1))[0][:3] == ("step", "fax", "created")
    assert (compared(engine, sid(1), None, None).old, said(compared(engine, sid(1), 2, 2))) == (
        1,
        [],
    )


def test_versions_differ_as_the_log_says_once_the_newer_is_live(
    sync: Sync, twilio: Twilio, engine: Engine, url: str
) -> None:
    add(twilio, 1, ("published", OLD))
    sync()
    twilio.publish(sid(1), NEW)
    sync()
    columns = "entity, entity_id, change, field, old_value, new_value"
    logged = ask(url, f"SELECT {columns} FROM callflow.changes WHERE entity LIKE 'step%'")
    assert sorted(said(compared(engine, sid(1), 1, 2)), key=repr) == sorted(logged, key=repr)
    with engine.begin() as connection:
        differing = connection.execute(
            text(f"SELECT {columns} FROM callflow.flow_diff('tw', :id, :first, now())"
                 " WHERE entity LIKE 'step%'"),
            {"id": sid(1), "first": ask(url, "SELECT min(valid_from) FROM "
                                             "callflow.flows_history")[0][0]},
        )  # fmt: skip
        assert sorted(map(tuple, differing), key=repr) == sorted(logged, key=repr)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("live", None, "no version of Flow 2 is live → give a number; the warehouse holds 1"),
        (1, 7, "does not hold the inside of version 7 of Flow 2 → it holds 1"),
        (None, 1, "holds no version of Flow 2 before 1 → give another --to; it holds 1"),
    ],
)
def test_a_version_that_is_not_there_is_an_error_that_says_which_are(
    sync: Sync, twilio: Twilio, engine: Engine, old: Any, new: Any, what: str
) -> None:
    add(twilio, 2, ("draft", HELLO))
    sync()
    with pytest.raises(ConfigError) as raised:
        compared(engine, sid(2), old, new)
    assert what in str(raised.value)


def test_without_the_inside_of_versions_an_error_says_to_give_moments(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO zoom.flows (source, flow_id, flow_name, valid_from)"
            " VALUES ('eu', 'f', 'Main', now())"
        )
    with pytest.raises(ConfigError, match="single versions of Main → give two moments"):
        compared(engine, "f", 3, 5)


def test_a_flow_is_drawn_from_its_start_with_the_events_that_lead_on(
    sync: Sync, twilio: Twilio, engine: Engine
) -> None:
    again = definition(
        state("first", "Begin"),
        state("lost"),
        trigger(incomingCall="first", incomingMessage=None, incomingRequest=""),
        split("broken", match("1", "no such state")),
        state("back", "broken", "Begin"),
        initial_state="Begin",
    )
    again["states"][0]["transitions"].append({"event": "end", "next": "back"})
    add(twilio, 1, ("published", again))
    sync()
    its = content(engine, sid(1))
    drawn = flows.drawing(its)
    assert drawn.start == "Begin"  # everything leads to it, and others come before it
    picture = mermaid(drawn)
    begin, first = drawn.numbers["Begin"], drawn.numbers["first"]
    assert f'n{begin} -->|"incomingCall"| n{first}' in picture
    assert "incomingMessage" not in picture and "incomingRequest" not in picture
    assert "no step no such state" in picture  # a finding
    assert {row["finding"] for row in its.findings} >= {"broken_link", "unreachable", "loop"}


def test_a_flow_that_is_gone_shows_its_last_inside_and_versions(
    sync: Sync, twilio: Twilio, engine: Engine
) -> None:
    called = state("sub", type="run-subflow", properties={"flow_sid": sid(2)})
    calls = definition(state("Trigger", "sub"), called)
    add(twilio, 1, ("published", OLD))
    add(twilio, 2, ("published", HELLO))
    sync()
    twilio.publish(sid(1), calls)
    sync()
    assert [(row["name"], row["step_id"]) for row in content(engine, sid(2)).used_by] == [
        ("Flow 1", "sub")
    ]
    its = content(engine, sid(1))
    assert [(row["kind"], row["target_name"]) for row in its.uses] == [("flow", "Flow 2")]
    twilio.studio_flows.delete(sid(1))
    for _ in range(2):
        sync()
    gone = content(engine, sid(1))
    assert gone.gone_at is not None
    assert (gone.steps, gone.links, gone.uses) == (its.steps, its.links, its.uses)
    assert len(gone.versions) == 2
    assert said(compared(engine, sid(1), 1, 2))
    assert content(engine, sid(2)).used_by == []


@pytest.mark.parametrize("name", ["callback", "messaging", "schedule"])
def test_the_examples_of_the_documents_are_drawn(
    sync: Sync, twilio: Twilio, engine: Engine, name: str
) -> None:
    inside = recorded(f"studio_definition_{name}")["definition"]
    add(twilio, 1, ("published", inside))
    sync()
    its = content(engine, sid(1))
    assert {row["step_id"] for row in its.steps} == {each["name"] for each in inside["states"]}
    assert flows.drawing(its).start == inside["initial_state"]


Cli = Callable[..., Any]


@pytest.fixture
def cli(warm: Warm, url: str, tmp_path: Path) -> Iterator[Cli]:
    config = tmp_path / "of_cli.toml"
    config.write_text(f'[warehouse]\nurl = "{dsn(url)}"\n', encoding="utf-8")
    config.chmod(0o600)
    env = environment(CALLFLOW_CONFIG=str(config))

    def run(*words: str) -> Any:
        return warm.run(words, env=env, cwd=tmp_path)

    yield run


@pytest.mark.slow
def test_the_commands_show_both_ways_of_a_number_and_compare_versions(
    sync: Sync, twilio: Twilio, engine: Engine, cli: Cli
) -> None:
    add(twilio, 1, ("published", OLD), ("draft", NEW))
    sync()
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO twilio.phone_numbers (source, sid, account_sid, phone_number,"
                " voice_studio_flow_sid, sms_studio_flow_sid, valid_from)"
                " VALUES ('tw', 'PN1', :account, '+14155550100', :flow, :flow, now())"
            ),
            {"account": ACCOUNT, "flow": sid(1)},
        )
    shown = cli("show", sid(1))
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    start = lines.index("Entry points")
    assert lines[start + 1 : start + 3] == [
        "  phone     +14155550100  sms", "  phone     +14155550100  voice"
    ]  # fmt: skip
    assert "  versions    1 is published, 2 is the newest" in lines
    assert re.search(r"\nVersions\n +2 +draft .*\n +1 +published ", shown.stdout)
    found = cli("diff", sid(1), "--from", "1", "--to", "newest")
    assert found.returncode == 0, found
    title, *rows = found.stdout.splitlines()
    assert title == "tw  Flow 1: from version 1 to version 2"
    assert "    step mail is new" in rows
    assert '    step sales: properties.loop: "1" → "2"' in rows
    as_json = [
        json.loads(line) for line in cli("diff", sid(1), "--json", "--to", "2").stdout.splitlines()
    ]
    assert {row["flow_name"] for row in as_json} == {"Flow 1"}
    for words, expected in (
        (
            ["--from", "1", "--to", "1h"],
            "a moment and a version → give two moments, or two versions",
        ),
        (["--from", "v3"], "or a version: 3, live, newest"),
        (["--from", "7"], "does not hold the inside of version 7"),
    ):
        done = cli("diff", sid(1), *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert expected in done.stderr

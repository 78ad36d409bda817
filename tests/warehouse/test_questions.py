"""Each question's view, on rows with a known answer that the tempting wrong query misses.

A test asks both: the right answer is written down, and the wrong one has to differ from it.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from etl.providers.catalog import PARTS, TABLES
from etl.warehouse import tables
from etl.warehouse.model.assemble import unused
from etl.warehouse.model.contract import SQL_TYPES
from etl.warehouse.model.definition import ViewDefinition
from etl.warehouse.model.lists import named
from etl.warehouse.model.questions import QUESTIONS, of_questions
from tests.postgres import dsn

SEEN = datetime(2026, 11, 2, 9, tzinfo=UTC)
"""When callflow first saw every row that has no other time here."""

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)

NAMES = ("مرحبا \u202eabc", "☎️ 你好 👩‍👩‍👧", "two\nlines\t", 'O\'Neil "x" \\ %s $1', "<script>")
NAME_IDS = ("rtl", "emoji", "newline", "quotes", "script")

Db = psycopg.Connection[Any]
Row = tuple[Any, ...]


@pytest.fixture
def db(emptied: Engine) -> Iterator[Db]:
    """Yield a session on an empty warehouse, in a time zone that must not matter."""
    url = emptied.url.render_as_string(hide_password=False)
    with psycopg.connect(dsn(url), autocommit=True) as connection:
        connection.execute("SET TIME ZONE 'Asia/Tokyo'")
        yield connection


def put(db: Db, table: str, **row: Any) -> None:
    values = {"valid_from": SEEN, **row} if not table.endswith(".changes") else row
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(*table.split(".")),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join([sql.Placeholder()] * len(values)),
    )
    db.execute(statement, list(values.values()))


def zoom(
    db: Db,
    flow_id: str,
    source: str = "eu",
    *,
    status: str | None = "published",
    versions: Sequence[Row] = (),
    entries: Sequence[dict[str, Any]] = (),
    **more: Any,
) -> None:
    """Put a Zoom flow; `versions` are number, status and time of the last edit."""
    key = {"source": source, "flow_id": flow_id}
    put(db, "zoom.flows", **key, status=status, **more)
    for index, (number, state, edited) in enumerate(versions):
        put(
            db,
            "zoom.flow_versions",
            **key,
            flow_version_id=f"v{index}",
            flow_version=number,
            flow_version_status=state,
            flow_version_last_modified_time=edited,
        )
    for index, entry in enumerate(entries):
        put(db, "zoom.entry_points", **key, entry_id=f"{flow_id}-{index}", **entry)


def flex(db: Db, sid: str, source: str = "tw", account: str | None = "AC1", **more: Any) -> None:
    values = {"channel_type": "sms", "enabled": True, **more}
    put(db, "twilio.flex_flows", source=source, sid=sid, account_sid=account, **values)


def ivr(
    db: Db,
    flow_id: str,
    instance: str = "i1",
    source: str = "cn",
    *,
    numbers: Sequence[str] = (),
    steps: Sequence[Any] = (),
    **more: Any,
) -> None:
    """Put a contact flow; `steps` are the properties of its activities."""
    key = {"source": source, "instance_id": instance, "contact_flow_id": flow_id}
    values = {"type": "MAIN_FLOW", "published": True, **more}
    put(db, "alibaba.contact_flows", **key, **values)
    for number in numbers:
        put(db, "alibaba.contact_flow_numbers", **key, number=number)
    for index, properties in enumerate(steps):
        step = {"activity_id": f"s{index}", "type": "X", "properties": Jsonb(properties)}
        put(db, "alibaba.contact_flow_activities", **key, **step)


def studio(
    db: Db,
    sid: str,
    source: str = "tw",
    account: str | None = "AC1",
    *,
    starts: dict[str, str | None] | None = None,
    calls: Sequence[str] = (),
    live: int | None = 1,
    **more: Any,
) -> None:
    """Put a Studio flow; `starts` are the ways out of its start, `calls` its sub-flows.

    Its start is called Begin, and another state is called Trigger.
    """
    key = {"source": source, "sid": sid}
    status = "draft" if live is None else "published"
    given = {"status": status, "revision": live or 1, "live_revision": live, **more}
    put(db, "twilio.studio_flows", **key, account_sid=account, **given)
    states: dict[str, tuple[str, dict[str, str]]] = (
        {"Begin": ("trigger", {}), "Trigger": ("trigger", {})} if starts is not None else {}
    )
    states |= {f"call{n}": ("run-subflow", {"flow_sid": each}) for n, each in enumerate(calls)}
    for index, (name, (kind, settings)) in enumerate(states.items()):
        put(db, "twilio.studio_live_states", **key, account_sid=account, name=name, type=kind,
            is_start=name == "Begin", state_index=index, properties=Jsonb(settings))  # fmt: skip
    for name, ways in (("Begin", starts or {}), ("Trigger", {"incomingCall": "Trigger"})):
        if starts is not None:
            for position, (event, following) in enumerate(ways.items()):
                put(db, "twilio.studio_live_transitions", **key, account_sid=account, name=name,
                    position=position, event=event, next=following)  # fmt: skip


def number(db: Db, sid: str, source: str = "tw", account: str | None = "AC1", **more: Any) -> None:
    values = {"phone_number": "+1 415", "capability_voice": True, "capability_sms": True, **more}
    put(db, "twilio.phone_numbers", source=source, sid=sid, account_sid=account, **values)


def address(db: Db, sid: str, source: str = "tw", account: str | None = "AC1", **more: Any) -> None:
    values = {"type": "whatsapp", "auto_creation_enabled": True, "auto_creation_type": "studio"}
    put(db, "twilio.addresses", source=source, sid=sid, account_sid=account, **{**values, **more})


def line(db: Db, number: str, flow: str | None, instance: str = "i1", **more: Any) -> None:
    """Put a number of Alibaba's list."""
    key = {"source": "cn", "instance_id": instance, "number": number}
    put(db, "alibaba.phone_numbers", **key, contact_flow_id=flow, **more)


def channel(db: Db, sid: str, flow: str | None, age: timedelta | None, **more: Any) -> None:
    created = None if age is None else NOON - age
    values = {"source": "tw", "account_sid": "AC1", **more}
    put(db, "twilio.channels", sid=sid, flex_flow_sid=flow, date_created=created, **values)


def change(db: Db, flow_id: str, observed: datetime, source: str = "eu", **more: Any) -> None:
    values = {"provider": "zoom", "entity": "flow", "change": "updated", **more}
    put(db, "history.changes", source=source, flow_id=flow_id, observed_at=observed, **values)


def ask(db: Db, query: str, at: datetime | None = None) -> list[Row]:
    """Return the rows in some order, as of `at`."""
    db.execute("SELECT set_config('callflow.at', %s, false)", [at.isoformat() if at else ""])
    try:
        return sorted(db.execute(query.encode()).fetchall(), key=repr)
    finally:
        db.execute("RESET callflow.at")


def expect(found: list[Row], *rows: Row) -> None:
    assert found == sorted(rows, key=repr)


# --- number_map ----------------------------------------------------------------------------------
def test_number_map_joins_flows_of_all_providers_with_and_without_an_account(db: Db) -> None:
    zoom(db, "f", flow_name="Sales", entries=[{"entry_number": "+49 30 1", "entry_language": "de"}])
    zoom(db, "f", "us", status="draft", entries=[{"email_address": "Desk@X.org"}])
    flex(db, "FO1", friendly_name="Chat", channel_type="whatsapp", contact_identity="whatsapp:+44")
    flex(db, "FO2", account=None, enabled=None, contact_identity="+1 (2)")
    ivr(db, "f", "i1", name="A", numbers=["400****", "021 1"])
    ivr(db, "f", "i2", name="B", published=False, numbers=["021 1"])
    columns = "provider, source, account_id, flow_id, address, address_key, kind"
    columns += ", flow_name, status, is_live, entry_point_id, language"
    right = ask(db, f"SELECT {columns} FROM callflow.number_map")
    expect(
        right,
        ("zoom", "eu", None, "f", "+49 30 1", "+49301", "phone",
         "Sales", "published", True, "f-0", "de"),
        ("zoom", "us", None, "f", "Desk@X.org", "desk@x.org", "email",
         None, "draft", False, "f-0", None),
        ("twilio", "tw", "AC1", "FO1", "whatsapp:+44", "+44", "phone",
         "Chat", "published", True, "FO1", None),
        ("twilio", "tw", None, "FO2", "+1 (2)", "+12", "phone", None, None, False, "FO2", None),
        ("alibaba", "cn", "i1", "f", "400****", None, "phone",
         "A", "published", True, "400****", None),
        ("alibaba", "cn", "i1", "f", "021 1", "0211", "phone",
         "A", "published", True, "021 1", None),
        ("alibaba", "cn", "i2", "f", "021 1", "0211", "phone",
         "B", "draft", False, "021 1", None),
    )  # fmt: skip
    wrong = "SELECT count(*) FROM callflow.entry_points JOIN callflow.flows USING "
    assert ask(db, f"{wrong} (provider, source, account_id, flow_id)") == [(4,)]  # NULL = NULL
    assert ask(db, f"{wrong} (source, flow_id)") == [(10,)]  # two instances


def test_number_map_has_what_leads_elsewhere_and_nowhere(db: Db) -> None:
    studio(db, "FW1", friendly_name="Main", starts={"incomingCall": "Trigger"})
    url = "https://user:pw@x.example/hook?token=s3cret#top"
    number(db, "PN1", voice_studio_flow_sid="FW1", sms_url=url)
    number(db, "PN2", trunk_sid="TK1", capability_sms=False, sms_studio_flow_sid="FW1")
    number(db, "PN3", voice_studio_flow_sid="FW9", friendly_name="Old")
    address(db, "IG1", studio_flow_sid="FW1", auto_creation_enabled=False, address="whatsapp:+1")
    columns = "entry_point_id, flow_id, flow_name, status, is_live, target_kind, target, flow_key"
    expect(
        ask(db, f"SELECT {columns} FROM callflow.number_map"),
        ("PN1/voice", "FW1", "Main", "published", True, "flow", "FW1", "tw/AC1/FW1"),
        ("PN1/sms", None, None, None, False, "url", "x.example/hook", None),
        ("PN2/voice", None, None, None, False, "trunk", "TK1", None),
        ("PN3/voice", "FW9", None, None, False, "flow", "FW9", "tw/AC1/FW9"),
        ("PN3/sms", None, None, None, False, None, None, None),
        ("IG1", None, None, None, False, None, None, None),
    )
    wrong = "SELECT count(*) FROM callflow.entry_points JOIN callflow.flows USING (source, flow_id)"
    assert ask(db, wrong) == [(1,)]


# --- shared_addresses ----------------------------------------------------------------------------
def test_shared_addresses_count_flows_and_compare_what_is_dialled(db: Db) -> None:
    one, other = {"entry_number": "+49 30 1"}, {"entry_number": "+49301"}
    zoom(db, "twice", flow_name="Twice", entries=[{"entry_number": "+7"}, {"entry_number": "+ 7"}])
    zoom(db, "a", flow_name="A", entries=[one, other])
    zoom(db, "a", "us", entries=[one])
    zoom(db, "draft", status="draft", entries=[one, {"entry_number": "+44"}])
    flex(db, "FO1", friendly_name="W", channel_type="whatsapp", contact_identity="whatsapp:+49301")
    flex(db, "FO2", friendly_name="S", contact_identity="+44")
    ivr(db, "f", "i1", name="M1", numbers=["400****"])
    ivr(db, "f", "i2", name="M2", numbers=["400****"])
    right = "SELECT * FROM callflow.shared_addresses"
    expect(ask(db, right), ("+49301", 3, "A, W, a", "eu, tw, us"))
    live = "FROM callflow.number_map WHERE is_live GROUP BY 1 HAVING count(*) > 1"
    assert {row[0] for row in ask(db, f"SELECT address_key {live}")} == {"+7", "+49301", None}
    assert {row[0] for row in ask(db, f"SELECT address {live}")} == {"+49 30 1", "400****"}


def test_calls_and_messages_of_a_number_to_one_flow_share_nothing(db: Db) -> None:
    studio(db, "FW1", friendly_name="A")
    studio(db, "FW2", friendly_name="B")
    both = {"voice_studio_flow_sid": "FW1", "sms_studio_flow_sid": "FW1"}
    number(db, "PN1", phone_number="+1", **both)
    number(db, "PN2", phone_number="+2", **{**both, "sms_studio_flow_sid": "FW2"})
    number(db, "PN3", phone_number="+3")
    number(db, "PN4", phone_number="+3")
    expect(ask(db, "SELECT * FROM callflow.shared_addresses"), ("+2", 2, "A, B", "tw"))
    assert ask(db, "SELECT count(*) FROM callflow.unreached_flows") == [(0,)]
    assert ask(db, "SELECT count(*) FROM callflow.entry_points_not_live") == [(0,)]
    wrong = "SELECT address_key FROM callflow.entry_points GROUP BY 1 HAVING count(*) > 1"
    assert ask(db, wrong) == [("+1",), ("+2",), ("+3",)]


# --- unbound_numbers, dead_bindings, broken_references, legacy_bridge ----------------------------
def test_unbound_numbers_reach_nothing_in_any_way_that_they_have(db: Db) -> None:
    number(db, "nothing", friendly_name="N", date_created=NOON)
    number(db, "voice", voice_url="https://x.example")
    number(db, "sms", sms_application_sid="AP1")
    number(db, "trunk", trunk_sid="TK1")
    number(db, "cannot", capability_voice=False, voice_url="https://x.example")
    number(db, "unknown", capability_voice=None, voice_url="https://x.example")
    number(db, "trunk only of calls", capability_voice=False, trunk_sid="TK1")
    line(db, "0571 1", "f", create_time=NOON)
    line(db, "0571 2", "", create_time=NOON)
    line(db, "0571****3", None)
    line(db, "0571 4", "", user_id="agent")
    columns = "provider, account_id, number_id, address, address_key, name, created_at, since"
    expect(
        ask(db, f"SELECT {columns} FROM callflow.unbound_numbers"),
        *(
            ("twilio", "AC1", sid, "+1 415", "+1415", name, at, SEEN)
            for sid, name, at in (("nothing", "N", NOON), ("cannot", None, None),
                                  ("trunk only of calls", None, None))
        ),
        ("alibaba", "i1", "0571 2", "0571 2", "05712", None, NOON, SEEN),
        ("alibaba", "i1", "0571****3", "0571****3", None, None, None, SEEN),
    )  # fmt: skip
    wrong = """SELECT address FROM callflow.entry_points
        WHERE flow_id IS NULL AND target_kind IS NULL"""
    assert len(ask(db, wrong)) == 10  # one for each kind of contact, also of those that reach


def test_dead_bindings_ask_the_start_of_the_live_version(db: Db) -> None:
    studio(db, "all", starts={"incomingCall": "Trigger", "incomingMessage": "Trigger",
                              "incomingConversationMessage": "Trigger"})  # fmt: skip
    ways = {"incomingCall": "Trigger", "incomingMessage": "", "incomingConversationMessage": None}
    studio(db, "calls", friendly_name="C", starts=ways)
    studio(db, "lost", starts={"incomingCall": "no such state"})
    studio(db, "edited", status="draft", starts={"incomingCall": "Trigger"})
    studio(db, "draft", live=None)
    studio(db, "unreadable")
    for flow in ("all", "calls", "lost", "edited", "draft", "unreadable", "gone"):
        number(db, flow, voice_studio_flow_sid=flow, sms_studio_flow_sid=flow)
    number(db, "trunk", voice_studio_flow_sid="gone", trunk_sid="TK1", capability_sms=False)
    number(db, "x", "unread", voice_studio_flow_sid="gone")  # callflow has no flow of this source
    flex(db, "FO1", "unread")
    address(db, "IG1", studio_flow_sid="calls", address="whatsapp:+1")
    address(db, "IG2", studio_flow_sid="all")
    address(db, "IG3", studio_flow_sid="calls", auto_creation_enabled=False)
    address(db, "IG4", studio_flow_sid="calls", auto_creation_type="webhook")
    zoom(db, "f", status="draft", entries=[{"entry_number": "+2"}])
    zoom(db, "off", status="archived", entries=[{"entry_number": "+3"}])
    ivr(db, "main")
    ivr(db, "new", published=False)
    for flow in ("main", "new", "away"):
        line(db, flow, flow)
    line(db, "y", "away", "i2")  # callflow has no flow of this instance
    columns = "entry_point_id, event, reason"
    right = ask(db, f"SELECT {columns} FROM callflow.dead_bindings")
    call, message = "incomingCall", "incomingMessage"
    expect(
        right,
        ("calls/sms", message, "no_path"),
        ("IG1", "incomingConversationMessage", "no_path"),
        ("lost/voice", call, "no_path"),
        ("lost/sms", message, "no_path"),
        ("edited/sms", message, "no_path"),
        ("draft/voice", None, "only_draft"),
        ("draft/sms", None, "only_draft"),
        ("gone/voice", None, "flow_gone"),
        ("gone/sms", None, "flow_gone"),
        ("f-0", None, "only_draft"),
        ("new", None, "only_draft"),
        ("away", None, "flow_gone"),
    )
    expect(
        ask(db, "SELECT flow_name, address, kind, flow_key FROM callflow.dead_bindings"
                " WHERE entry_point_id = 'IG1'"),
        ("C", "whatsapp:+1", "phone", "tw/AC1/calls"),
    )  # fmt: skip
    status = "SELECT entry_point_id FROM callflow.number_map WHERE status = 'draft'"
    assert ("edited/voice",) in ask(db, status)  # its live version answers


def test_broken_references_are_constants(db: Db) -> None:
    gone, dynamic = "FW404", "{{flow.variables.next}}"
    studio(db, "FW1", friendly_name="A", starts={}, calls=["FW2", gone, dynamic])
    studio(db, "FW2", starts={}, calls=["FW1"])
    studio(db, gone, "tw2")
    put(db, "history.twilio_studio_flows", source="tw", sid=gone, account_sid="AC1",
        friendly_name="Old", valid_to=SEEN + DAY)  # fmt: skip
    ivr(db, "main", name="M", steps=[{"deep": [{"flow": "sub"}]}, {"say": "0000"}])
    put(db, "history.alibaba_contact_flows", source="cn", instance_id="i1", contact_flow_id="sub",
        name="S", valid_to=SEEN + DAY)  # fmt: skip
    expect(
        ask(db, "SELECT * FROM callflow.broken_references"),
        ("twilio", "tw", "AC1", "FW1", "A", "call1", gone, "Old", "tw/AC1/FW1"),
        ("alibaba", "cn", "i1", "main", "M", "s0", "sub", "S", "cn/i1/main"),
    )
    wrong = "SELECT target_id FROM callflow.flow_references WHERE target_name IS NULL"
    assert {row[0] for row in ask(db, wrong)} == {gone, dynamic, "FW2", "sub"}
    expect(ask(db, "SELECT used_flow_id FROM callflow.flow_uses WHERE flow_id = 'FW1'"), ("FW2",))


def test_the_legacy_bridge_matches_account_channel_and_identity(db: Db) -> None:
    flex(db, "sms", friendly_name="S", contact_identity="+1 (415) 555-0100")
    flex(db, "whatsapp", channel_type="whatsapp", contact_identity="WhatsApp:+14155550100")
    flex(db, "web", channel_type="web", contact_identity="Shop", enabled=False)
    flex(db, "facebook", channel_type="facebook", contact_identity="messenger:123")
    flex(db, "line", channel_type="line", contact_identity="+1 415 555 0100")
    flex(db, "none", channel_type="web", contact_identity=None)
    flex(db, "empty", contact_identity="")
    flex(db, "other account", account="AC2", contact_identity="+14155550100")
    flex(db, "other source", "tw2", contact_identity="+14155550100")
    number_of = {"address": "+14155550100"}
    address(db, "IG1", type="sms", studio_flow_sid="FW1", friendly_name="New", **number_of)
    address(db, "IG0", type="sms", auto_creation_enabled=False, **number_of)
    address(db, "IG2", type="whatsapp", address="whatsapp:+14155550100", studio_flow_sid="FW2")
    address(db, "IG3", type="chat", address="shop", auto_creation_type="webhook",
            webhook_url="https://u:p@x.example/a?b=c")  # fmt: skip
    address(db, "IG4", type="messenger", address="MESSENGER:123", auto_creation_type="default")
    address(db, "IG5", type="chat", address="")
    columns = "flow_id, status, channel, address_id, is_enabled, target_kind, target"
    expect(
        ask(db, f"SELECT {columns} FROM callflow.legacy_bridge"),
        ("sms", "published", "sms", "IG1", True, "flow", "FW1"),
        ("whatsapp", "published", "whatsapp", "IG2", True, "flow", "FW2"),
        ("web", "disabled", "web", "IG3", True, "url", "x.example/a"),
        ("facebook", "published", "facebook", "IG4", True, "conversation", None),
        *(
            (flow_id, "published", channel, None, None, None, None)
            for flow_id, channel in (
                ("line", "line"), ("none", "web"), ("empty", "sms"), ("other account", "sms"),
                ("other source", "sms"),
            )
        ),
    )  # fmt: skip
    wrong = """SELECT f.sid FROM twilio.flex_flows AS f
        JOIN twilio.addresses AS a ON a.address = f.contact_identity AND a.type = f.channel_type"""
    assert ask(db, wrong) == [("other account",)] * 2 + [("other source",)] * 2


# --- unreached_flows -----------------------------------------------------------------------------
def test_unreached_flows_leave_out_what_is_reached_in_another_way(db: Db) -> None:
    zoom(db, "reached", entries=[{"entry_name": "page"}])
    zoom(db, "unreached", flow_name="U", channel="voice", last_modified_time=NOON)
    zoom(db, "draft", status="draft")
    zoom(db, "debugging", status="debugging")
    zoom(db, "reached", "us")  # an entry point in another source
    for kind in ("web", "custom", "facebook", "line", "sms", "new", None):
        flex(db, f"FO-{kind}", channel_type=kind, contact_identity="")
    flex(db, "FO-off", channel_type="line", enabled=False)
    flex(db, "FO-null", account=None, contact_identity="+1")
    for kind in ("MAIN_FLOW", "SUB_FLOW", "SURVEY_FLOW"):
        ivr(db, kind, type=kind)
    ivr(db, "masked", numbers=["400****"])
    ivr(db, "MAIN_FLOW", "i2", numbers=["1"])
    right = ask(db, "SELECT source, account_id, flow_id, flow_key FROM callflow.unreached_flows")
    expect(
        right,
        ("eu", None, "unreached", "eu/unreached"),
        ("us", None, "reached", "us/reached"),
        *(
            ("tw", "AC1", f"FO-{kind}", f"tw/AC1/FO-{kind}")
            for kind in ("facebook", "line", "sms", "new", None)
        ),
        ("cn", "i1", "MAIN_FLOW", "cn/i1/MAIN_FLOW"),
    )
    expect(
        ask(
            db,
            "SELECT name, flow_type, channel, modified_at FROM callflow.unreached_flows"
            " WHERE flow_id = 'unreached'",
        ),
        ("U", None, "voice", NOON),
    )
    wrong = """SELECT f.source, f.account_id, f.flow_id, f.flow_key FROM callflow.flows f
        LEFT JOIN callflow.entry_points e USING (provider, source, account_id, flow_id)
        WHERE f.is_live AND e.flow_id IS NULL"""
    added = {row[2] for row in set(ask(db, wrong)) - set(right)}
    assert added == {"reached", "FO-web", "FO-custom", "FO-null", "SUB_FLOW", "SURVEY_FLOW"}


# --- entry_points_not_live -----------------------------------------------------------------------
def test_entry_points_not_live_include_those_of_flows_without_a_status(db: Db) -> None:
    for status in ("published", "draft", "debugging", "retired", "archived", "", None):
        zoom(db, f"f-{status}", status=status, flow_name="N", entries=[{"entry_number": "+1"}])
    flex(db, "FO-null", enabled=None, contact_identity="+2")
    ivr(db, "null", published=None, numbers=["+3"])
    query = "SELECT flow_id, address, kind, flow_name, status FROM "
    right = ask(db, f"{query} callflow.entry_points_not_live")
    expect(
        right,
        *(
            (f"f-{status}", "+1", "phone", "N", status or None)
            for status in ("draft", "debugging", "retired", "archived", "", None)
        ),
        ("FO-null", "+2", "phone", None, None),
        ("null", "+3", "phone", None, None),
    )
    wrong = ask(db, f"{query} callflow.number_map WHERE status <> 'published'")
    assert len(right) - len(wrong) == 4


# --- unpublished_changes -------------------------------------------------------------------------
def test_unpublished_changes_ignore_versions_without_a_number(db: Db) -> None:
    old, new = NOON - 9 * DAY, NOON - 2 * DAY - timedelta(hours=5)
    published, draft = (3, "published", old), (4, "draft", new)
    unnumbered = (None, "draft", NOON)
    zoom(db, "edited", flow_name="E", versions=[(1, "archived", old), published, draft, unnumbered])
    zoom(db, "fresh", versions=[published, unnumbered, (3, "draft", new)])
    zoom(db, "again", status="draft", versions=[published, draft])
    zoom(db, "none")
    zoom(db, "edited", "us", versions=[published])
    ivr(db, "a", name="A", draft_id="d", updated_time=old)
    ivr(db, "empty", draft_id="")
    ivr(db, "new", draft_id="d", published=False)
    ivr(db, "a", "i2")
    flex(db, "FO1")
    query = "SELECT * FROM callflow.unpublished_changes"
    right = ask(db, query, at=NOON)
    expect(
        right,
        ("zoom", "eu", None, "edited", "E", 3, 4, new, 2, "eu/edited"),
        ("alibaba", "cn", "i1", "a", "A", None, None, old, 9, "cn/i1/a"),
    )
    first = "SELECT DISTINCT ON (source, flow_id) source, flow_id, version_number"
    ordered = "FROM callflow.flow_versions ORDER BY source, flow_id, version_number DESC"
    wrong = f"""SELECT flow_id FROM ({first} {ordered}) AS newest
        JOIN callflow.flows USING (source, flow_id)
        WHERE is_live AND version_number > published_version"""
    assert ask(db, wrong) == []
    assert [row[8] for row in ask(db, query, at=NOON + 3 * DAY)] == [12, 5]


# --- stale_drafts --------------------------------------------------------------------------------
def test_stale_drafts_include_flows_that_were_published_once(db: Db) -> None:
    edited = NOON - 100 * DAY
    zoom(db, "never", status="draft", last_modified_time=edited, versions=[(1, "draft", None)])
    zoom(db, "again", status="draft", last_modified_time=NOON, versions=[(1, "published", None)])
    zoom(db, "no time", status="draft")
    zoom(db, "live", versions=[(1, "published", None), (2, "draft", None)])
    zoom(db, "archived", status="archived")
    flex(db, "FO1", enabled=False)
    ivr(db, "a", name="A", published=False, updated_time=NOON + DAY / 24)  # clocks differ
    ivr(db, "b", published=None)
    right = ask(db, "SELECT flow_id, name, modified_at, age_days FROM callflow.stale_drafts", NOON)
    expect(
        right,
        ("never", None, edited, 100),
        ("again", None, NOON, 0),
        ("no time", None, None, None),
        ("a", "A", NOON + DAY / 24, 0),
    )
    wrong = "SELECT flow_id FROM callflow.flows WHERE published_version IS NULL AND NOT is_live"
    assert {row[0] for row in right} ^ {row[0] for row in ask(db, wrong)} == {
        "again", "archived", "FO1", "b"
    }  # fmt: skip


# --- flows_by_status -----------------------------------------------------------------------------
def test_flows_by_status_count_those_without_one(db: Db) -> None:
    zoom(db, "a", channel="voice")
    zoom(db, "b", channel="voice")
    zoom(db, "c", status=None)
    zoom(db, "d", status="")
    zoom(db, "a", "us", channel="voice")
    flex(db, "FO1", enabled=None)
    ivr(db, "a", "i1")
    ivr(db, "a", "i2")
    right = ask(db, "SELECT * FROM callflow.flows_by_status")
    expect(
        right,
        ("zoom", "eu", "voice", "published", 2),
        ("zoom", "eu", None, None, 2),
        ("zoom", "us", "voice", "published", 1),
        ("twilio", "tw", "messaging", None, 1),
        ("alibaba", "cn", "voice", "published", 2),
    )
    wrong = "SELECT provider, source, channel, status, count(status) FROM callflow.flows"
    assert ask(db, f"{wrong} GROUP BY 1, 2, 3, 4") != right


# --- flows_by_source -----------------------------------------------------------------------------
def test_flows_by_source_takes_names_of_other_case_and_spaces_for_one(db: Db) -> None:
    zoom(db, "1", "eu", flow_name="Main Menu")
    zoom(db, "2", "us", flow_name=" main\u00a0 menu\n")
    zoom(db, "3", "us", flow_name="MainMenu")
    zoom(db, "4", "asia", flow_name="Other")
    zoom(db, "5", "asia", flow_name=None)
    zoom(db, "6", "asia", flow_name=" ")
    flex(db, "FO1", friendly_name="Main Menu")
    ivr(db, "a", "i1", name="语音 A")
    ivr(db, "b", "i2", "cn", name="语音\u3000a")
    ivr(db, "b", "i2", "cn2", name="x")
    right = ask(db, "SELECT * FROM callflow.flows_by_source")
    assert {row[1].strip() for row in right} >= {"Other", "x"}
    expect(
        [(row[0], "".join(row[1].split()).lower(), *row[2:]) for row in right],
        ("zoom", "mainmenu", 2, 3, "eu, us"),
        ("zoom", "other", 1, 3, "asia"),
        ("twilio", "mainmenu", 1, 1, "tw"),
        ("alibaba", "语音a", 1, 2, "cn"),
        ("alibaba", "x", 1, 2, "cn2"),
    )
    wrong = "SELECT provider, name, count(DISTINCT source) FROM callflow.flows GROUP BY 1, 2"
    assert {row[2] for row in ask(db, wrong)} == {1}


# --- flex_flows_to_review ------------------------------------------------------------------------
def test_flex_flows_to_review_take_an_unknown_janitor_for_none(db: Db) -> None:
    flex(db, "good", long_lived=True, janitor_enabled=True)
    flex(db, "short", long_lived=False, janitor_enabled=False)
    flex(db, "off", enabled=False, long_lived=None, friendly_name="Off")
    flex(db, "never ends", long_lived=True, janitor_enabled=False)
    flex(db, "unknown", long_lived=True, enabled=None)
    flex(db, "both", account=None, enabled=False, long_lived=True, janitor_enabled=None)
    flex(db, "null", enabled=None)
    zoom(db, "draft", status="draft")
    right = ask(db, "SELECT * FROM callflow.flex_flows_to_review")
    never = "long-lived without janitor"
    expect(
        right,
        ("twilio", "tw", "AC1", "off", "Off", "disabled", None, None, "disabled", "tw/AC1/off"),
        ("twilio", "tw", "AC1", "never ends", None, "published", True, False, never,
         "tw/AC1/never ends"),
        ("twilio", "tw", "AC1", "unknown", None, None, True, None, never, "tw/AC1/unknown"),
        ("twilio", "tw", None, "both", None, "disabled", True, None, f"disabled, {never}",
         "tw/both"),
    )  # fmt: skip
    wrong = "SELECT sid FROM twilio.flex_flows WHERE NOT enabled"
    wrong += " OR long_lived AND NOT janitor_enabled"
    assert ask(db, wrong) == [("both",), ("never ends",), ("off",)]


# --- flow_uses -----------------------------------------------------------------------------------
def test_flow_uses_are_found_inside_lists_and_objects(db: Db) -> None:
    ivr(db, "sub", "i1", name="Sub 1", type="SUB_FLOW")
    ivr(db, "sub", "i2", name="Sub 2", type="SUB_FLOW", steps=[{"target": "main"}])
    ivr(db, "sub", "i1", "cn2", name="Sub 3")
    nested = {"branches": [{"then": {"flow": "sub"}}, {"flow": "sub"}, 1, None]}
    plain = {"target": "sub", "own": "main", "say": "call sub now", "position": {"x": "sub"}}
    ivr(db, "main", steps=[nested, plain, "sub", ["sub"], None, {"sub": "key"}])
    columns = "account_id, flow_id, step_id, property, used_flow_id, used_flow_name"
    right = ask(db, f"SELECT {columns} FROM callflow.flow_uses")
    expect(
        right,
        ("i1", "main", "s0", "branches", "sub", "Sub 1"),
        ("i1", "main", "s1", "target", "sub", "Sub 1"),
    )
    wrong = """SELECT p.step_id, p.property, f.name FROM callflow.flow_step_properties p
        JOIN callflow.flows f ON f.flow_id = p.value AND f.flow_id <> p.flow_id"""
    expect(
        ask(db, wrong),
        *(("s1", "target", f"Sub {n}") for n in (1, 2, 3)),
        ("s0", "target", None),
    )


# --- changes_per_week ----------------------------------------------------------------------------
def test_changes_per_week_start_on_monday_utc_and_count_flows_by_their_whole_key(db: Db) -> None:
    monday = datetime(2026, 11, 9, tzinfo=UTC)
    late = monday - timedelta(minutes=30)  # Monday already in Tokyo
    change(db, "a", late, field="name")
    change(db, "a", monday, field="name")
    change(db, "a", monday, field="status")
    change(db, "a", monday + 6 * DAY, field="name")
    change(db, "b", monday)
    change(db, "a", monday, "us")
    for instance in ("i1", "i2"):
        change(db, "a", monday, "cn", provider="alibaba", account_id=instance)
    right = ask(db, "SELECT * FROM callflow.changes_per_week")
    expect(
        right,
        (monday - 7 * DAY, "zoom", "eu", 1, 1),
        (monday, "zoom", "eu", 4, 2),
        (monday, "zoom", "us", 1, 1),
        (monday, "alibaba", "cn", 2, 2),
    )
    wrong = """SELECT {week}, provider, source, count(*), count(DISTINCT flow_id)
        FROM callflow.changes GROUP BY 1, 2, 3"""
    assert len(ask(db, wrong.format(week="date_trunc('week', observed_at)"))) == 3
    weeks = wrong.format(week="date_trunc('week', observed_at, 'UTC')")
    expect([row for row in ask(db, weeks) if row not in right], (monday, "alibaba", "cn", 2, 1))
    assert len(ask(db, "SELECT * FROM callflow.changes_per_week", at=late)) == 1


# --- changes_per_editor --------------------------------------------------------------------------
def test_changes_per_editor_count_what_no_one_signed(db: Db) -> None:
    night = datetime(2026, 11, 9, 23, 59, tzinfo=UTC)
    change(db, "a", NOON, modified_by="ann", modified_at=night)
    change(db, "b", NOON, modified_by="ann", modified_at=night + DAY)
    change(db, "b", NOON, modified_by="ann", modified_at=NOON)
    change(db, "c", NOON, modified_by=None, modified_at=NOON, provider="twilio", source="tw")
    change(db, "d", NOON, change="deleted")
    change(db, "e", NOON, change="deleted")
    right = ask(db, "SELECT * FROM callflow.changes_per_editor")
    expect(
        right,
        ("ann", "zoom", "eu", 23, 2),
        ("ann", "zoom", "eu", 12, 1),
        (None, "twilio", "tw", 12, 1),
        (None, "zoom", "eu", None, 2),
    )
    wrong = """SELECT modified_by, provider, source, extract(hour FROM modified_at)::integer,
        count(modified_by) FROM callflow.changes GROUP BY 1, 2, 3, 4"""
    found = ask(db, wrong)
    assert {row[3] for row in found} == {8, 21, None}  # in Tokyo
    assert sum(row[4] for row in found) == 3


# --- deleted_flows -------------------------------------------------------------------------------
def test_deleted_flows_are_listed_once_with_their_last_content(db: Db) -> None:
    hours = [SEEN + timedelta(hours=n) for n in range(6)]

    def was(flow_id: str, start: int, end: int, source: str = "eu", **more: Any) -> None:
        row = {"source": source, "flow_id": flow_id, "valid_to": hours[end], **more}
        put(db, "history.zoom_flows", valid_from=hours[start], **row)

    def event(flow_id: str, hour: int, what: str = "deleted", **more: Any) -> None:
        change(db, flow_id, hours[hour], change=what, **more)

    was("twice", 0, 1, flow_name="first")
    event("twice", 1)
    event("twice", 2, "restored")
    was("twice", 2, 3, flow_name="second", status="draft")
    was("twice", 3, 4, flow_name="third", flow_description="D", status="published",
        modified_by="ann", last_modified_time=NOON)  # fmt: skip
    event("twice", 4)
    was("back", 0, 1, flow_name="back")
    event("back", 1)
    event("back", 2, "restored")
    zoom(db, "back", valid_from=hours[2])
    zoom(db, "twice", "us")  # the same id, elsewhere
    event("live", 1, entity="entry_point")
    zoom(db, "live")
    for instance, hour in (("i1", 3), ("i2", 5)):
        row = {"instance_id": instance, "contact_flow_id": "x", "name": instance}
        put(db, "history.alibaba_contact_flows", source="cn", valid_to=hours[hour], **row)
        event("x", hour, source="cn", provider="alibaba", account_id=instance)
    right = ask(db, "SELECT * FROM callflow.deleted_flows")
    expect(
        right,
        ("zoom", "eu", None, "twice", "third", "D", "published", "ann", NOON, hours[3], hours[4],
         "eu/twice"),
        ("alibaba", "cn", "i1", "x", "i1", None, None, None, None, SEEN, hours[3], "cn/i1/x"),
        ("alibaba", "cn", "i2", "x", "i2", None, None, None, None, SEEN, hours[5], "cn/i2/x"),
    )  # fmt: skip
    wrong = "FROM callflow.changes WHERE entity = 'flow' AND change = 'deleted'"
    assert len(ask(db, f"SELECT flow_key {wrong}")) == 5
    assert ("eu/back",) in ask(db, f"SELECT DISTINCT flow_key {wrong}")
    then = "SELECT name, deleted_at FROM callflow.deleted_flows"
    expect(ask(db, then, at=hours[0]))
    expect(ask(db, then, at=hours[1]), ("first", hours[1]), ("back", hours[1]))
    expect(ask(db, then, at=hours[2]))


# --- channels_by_flow ----------------------------------------------------------------------------
def test_channels_by_flow_have_an_exact_age_and_include_those_of_flows_that_are_gone(
    db: Db,
) -> None:
    flex(db, "FO1", friendly_name="Chat")
    flex(db, "FO1", "tw2", account="AC2", friendly_name="Other")
    flex(db, "FO2", friendly_name="No channels")
    flex(db, "FO3", account=None, friendly_name="No account")
    second = timedelta(seconds=1)
    ages = (-DAY, DAY, DAY + second, 7 * DAY, 7 * DAY + second, 30 * DAY, 30 * DAY + second, None)
    for number, age in enumerate(ages):
        channel(db, f"CH{number}", "FO1", age)
    channel(db, "CH1", "FO1", 2 * DAY, source="tw2", account_sid="AC2")
    channel(db, "gone", "FO9", 2 * DAY)
    channel(db, "none", None, 2 * DAY)
    channel(db, "null", "FO3", 2 * DAY, account_sid=None)
    right = ask(db, "SELECT * FROM callflow.channels_by_flow", at=NOON)
    at = NOON - 2 * DAY
    expect(
        right,
        ("twilio", "tw", "AC1", "FO1", "Chat", 8, 2, 2, 2, 1, NOON + DAY, "tw/AC1/FO1"),
        ("twilio", "tw2", "AC2", "FO1", "Other", 1, 0, 1, 0, 0, at, "tw2/AC2/FO1"),
        ("twilio", "tw", "AC1", "FO9", None, 1, 0, 1, 0, 0, at, "tw/AC1/FO9"),
        ("twilio", "tw", "AC1", None, None, 1, 0, 1, 0, 0, at, None),
        ("twilio", "tw", None, "FO3", "No account", 1, 0, 1, 0, 0, at, "tw/FO3"),
    )
    wrong = """SELECT f.name, count(*) FILTER (WHERE extract(day FROM now() - c.created_at) <= 1)
        FROM callflow.channels c JOIN callflow.flows f ON f.flow_id = c.flow_id GROUP BY 1"""
    moved = "callflow.moment()"
    assert ask(db, wrong.replace("now()", moved), at=NOON) == [
        ("Chat", 3), ("No account", 0), ("Other", 3)
    ]  # fmt: skip


# --- channels_without_flow -----------------------------------------------------------------------
def test_channels_without_flow_compare_the_source_too(db: Db) -> None:
    flex(db, "FO1")
    flex(db, "FO2", "tw2")
    channel(db, "a", "FO1", DAY)
    channel(db, "b", "FO2", DAY)  # the flow is in another source
    channel(db, "c", "FO2", 2 * DAY)
    channel(db, "d", "FO2", DAY, source="tw2")
    channel(db, "e", None, None)
    right = ask(db, "SELECT * FROM callflow.channels_without_flow")
    expect(
        right,
        ("twilio", "tw", "AC1", "FO2", 2, NOON - DAY, "tw/AC1/FO2"),
        ("twilio", "tw", "AC1", None, 1, None, None),
    )
    wrong = """SELECT flow_id, count(*) FROM callflow.channels
        WHERE flow_id NOT IN (SELECT flow_id FROM callflow.flows) GROUP BY 1"""
    assert ask(db, wrong) == []


# --- all of them ---------------------------------------------------------------------------------
@pytest.fixture
def world(db: Db) -> Db:
    """Return a warehouse in which each question has an answer, rows full of NULL included."""
    entry = {"entry_number": "+1"}
    versions = [(1, "published", NOON), (2, "draft", NOON), (None, None, None)]
    zoom(db, "live", flow_name="Main", entries=[entry], versions=versions)
    zoom(db, "live", "us", flow_name="main", entries=[entry])
    zoom(db, "draft", status="draft", entries=[{"entry_number": "+2"}, {}])
    zoom(db, "null", status=None)
    flex(db, "FO1", enabled=False)
    flex(db, "FO2", account=None, enabled=None, channel_type=None)
    flex(db, "FO3", channel_type="line")
    ivr(db, "sub", type="SUB_FLOW")
    ivr(db, "main", steps=[{"target": "sub"}, None], numbers=["+1"])
    ivr(db, "null", "i2", type=None, published=None)
    for number_of, flow in enumerate(("FO1", "FO9", None)):
        channel(db, f"CH{number_of}", flow, DAY)
    studio(db, "FW1", starts={"incomingCall": None}, calls=["FW404"])
    number(db, "PN1", voice_studio_flow_sid="FW1")
    number(db, "PN2")
    address(db, "IG1", studio_flow_sid="FW404")
    put(db, "history.zoom_flows", source="eu", flow_id="gone", valid_to=SEEN + DAY)
    change(db, "gone", SEEN + DAY, change="deleted")
    return db


def everything(db: Db, at: datetime | None) -> dict[str, list[Row]]:
    return {each.name: ask(db, f"SELECT * FROM callflow.{each.name}", at) for each in QUESTIONS}


def test_every_question_follows_callflow_at(world: Db) -> None:
    """What was answered while rows were current is answered when they are history."""
    before, then = everything(world, SEEN - DAY), everything(world, NOON)
    assert {name for name, rows in before.items() if rows} == set()
    assert {name for name, rows in then.items() if not rows} == set()
    for table in reversed(list(TABLES.values())):
        previous = tables.history(table).fullname
        columns = ", ".join(column.name for column in table.columns)
        world.execute(
            f"INSERT INTO {previous} ({columns}, valid_to)"
            f" SELECT {columns}, %s FROM {table.fullname}".encode(),
            [NOON + DAY],
        )
        world.execute(f"DELETE FROM {table.fullname}".encode())
    assert everything(world, NOON) == then
    left = {name for name, rows in everything(world, None).items() if rows}
    assert left == {"changes_per_week", "changes_per_editor", "deleted_flows"}


def test_without_callflow_at_ages_count_until_now(world: Db) -> None:
    (row,) = ask(
        world,
        "SELECT age_days, extract(day FROM now() - edited_at) FROM callflow.unpublished_changes",
    )
    assert row[0] == row[1]
    put(world, "twilio.channels", source="tw", sid="new", flex_flow_sid="FO-new",
        date_created=datetime.now(UTC))  # fmt: skip
    columns = "up_to_1_day, up_to_7_days + up_to_30_days + over_30_days"
    query = f"SELECT {columns} FROM callflow.channels_by_flow WHERE flow_id = 'FO-new'"
    assert ask(world, query) == [(1, 0)]


@pytest.mark.parametrize("name", NAMES, ids=NAME_IDS)
def test_names_come_out_as_they_are(db: Db, name: str) -> None:
    zoom(db, "a", flow_name=name, status="draft", entries=[{"entry_name": name}])
    flex(db, "FO1", friendly_name=name, channel_type="line", long_lived=True)
    flex(db, "FO2", friendly_name=name, contact_identity="+1")
    ivr(db, "x", name=name, draft_id="d", numbers=["+1"])
    ivr(db, "y", name="y", steps=[{name: "x"}], numbers=["+3"])
    channel(db, "CH1", "FO1", DAY)
    for query in (
        "SELECT flow_name FROM callflow.number_map WHERE flow_id <> 'y'",
        "SELECT name FROM callflow.unreached_flows",
        "SELECT flow_name FROM callflow.entry_points_not_live",
        "SELECT address FROM callflow.entry_points_not_live",
        "SELECT name FROM callflow.unpublished_changes",
        "SELECT name FROM callflow.stale_drafts",
        "SELECT name FROM callflow.flows_by_source WHERE name <> 'y'",
        "SELECT name FROM callflow.flex_flows_to_review",
        "SELECT used_flow_name FROM callflow.flow_uses",
        "SELECT property FROM callflow.flow_uses",
        "SELECT flow_name FROM callflow.channels_by_flow",
    ):
        assert set(ask(db, query)) == {(name,)}, query
    assert ask(db, "SELECT flow_names FROM callflow.shared_addresses") == [(f"{name}, {name}",)]


def test_columns_and_comments_are_those_of_the_values(db: Db) -> None:
    """Ids compare by bytes, or no index on a key could serve a comparison."""
    columns = """SELECT attname, format_type(atttypid, NULL), collname,
            col_description(attrelid, attnum)
        FROM pg_attribute LEFT JOIN pg_collation AS c ON c.oid = attcollation
        WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum"""
    types = {"timestamp with time zone": "timestamptz"}
    for each in QUESTIONS:
        found = db.execute(columns, [f"callflow.{each.name}"]).fetchall()
        assert [(name, types.get(kind, kind), said) for name, kind, _, said in found] == [
            (column.name, SQL_TYPES[column.kind], column.comment) for column in each.columns
        ]
        names = {column.name for column in each.columns}
        ids = {column.name for column in each.columns if column.kind == "id"}
        assert ids >= names & {"source", "account_id", "flow_id", "flow_key"}
        assert {name for name, _, collation, _ in found if collation == "C"} >= ids
        assert ("flow_key" in names) == ("flow_id" in names)
        comment = "SELECT obj_description(%s::regclass)"
        assert db.execute(comment, [f"callflow.{each.name}"]).fetchall() == [
            (f"{each.asked} {each.caveat}",)
        ]
        assert each.asked.endswith("?") and each.caveat.endswith(".")


def test_what_providers_list_for_a_question_has_its_columns() -> None:
    for each in QUESTIONS:
        for of in each.lists:
            assert named(of.name) is of
            parts = [part for _, part in PARTS if part.view == of.name]
            assert parts
            assert [unused(of, part) for part in parts] == [[]] * len(parts)


def test_a_question_for_which_no_provider_lists_anything_still_has_its_view(db: Db) -> None:
    made = list(of_questions(()))
    assert [each.name for each in made] == [f"callflow.{each.name}" for each in QUESTIONS]
    for each in made:
        assert isinstance(each, ViewDefinition)
        assert db.execute(each.query(list(each.columns)).encode()).fetchall() == []

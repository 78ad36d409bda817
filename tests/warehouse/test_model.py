"""The views of the schema callflow: their contract, and what each provider's rows become in them.

Rows are inserted by hand: one for each case that a provider's data have shown or may show.
"""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from etl.providers import PROVIDERS
from etl.providers.catalog import PARTS, TABLES
from etl.sandbox.server import serve
from etl.warehouse import tables
from etl.warehouse.model import assemble
from etl.warehouse.model.assemble import unused
from etl.warehouse.model.contract import (
    CHANGES,
    COLLATIONS,
    FRESHNESS,
    SQL_TYPES,
    VIEWS,
    Column,
    Kind,
    history_columns,
)
from etl.warehouse.model.lists import named
from etl.warehouse.model.part import Part
from tests.load.loading import CONTACT_FLOWS, at, load
from tests.postgres import dsn
from tests.sync.conftest import SMALL, Starter
from tests.warehouse.contract import broken, merged, present, promised

Session = psycopg.Connection[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]


@pytest.fixture
def engine(emptied: Engine) -> Engine:
    return emptied


@pytest.fixture
def url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture
def session(url: str) -> Iterator[Session]:
    with psycopg.connect(dsn(url), autocommit=True, options="-c timezone=UTC") as session:
        yield session


def insert(session: Session, table: str, **values: object) -> None:
    """Insert a row of the source s, valid from 2026-01-01; and its parent, if that is missing."""
    row = {"source": "s", "valid_from": "2026-01-01Z", **values}
    if (parent := TABLES[table].info["parent"]) is not None:
        key = {name: row[name] for name in ("source", "valid_from", *tables.key_columns(parent))}
        insert(session, parent.fullname, **key)
    cells = [Jsonb(cell) if isinstance(cell, dict | list) else cell for cell in row.values()]
    session.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
            sql.Identifier(*table.split(".")),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(sql.Placeholder() * len(row)),
        ),
        cells,
    )


def ask(session: Session, query: str) -> Rows:
    return session.execute(query.encode()).fetchall()


def flows(session: Session, columns: str, where: str = "true") -> Rows:
    return ask(session, f"SELECT {columns} FROM callflow.flows WHERE {where} ORDER BY flow_key")


# -- the contract ---------------------------------------------------------------------------------


def test_the_columns_are_those_that_were_promised(url: str) -> None:
    found = present(url)
    assert list(broken(promised(), found)) == []
    assert merged(promised(), found) == promised(), (
        "columns that are new → `python -m tests.warehouse.contract` appends them to contract.txt"
    )


@pytest.mark.every_postgres
def test_each_postgres_gives_the_same_columns(url: str) -> None:
    assert sorted(present(url)) == sorted(promised())


@pytest.mark.parametrize(
    "line",
    [
        "flows 5 title text default",  # renamed
        "flows 5 name integer -",  # retyped
        "flows 5 name text C",  # another collation
        "flows 99 gone text default",  # removed
        "gone 1 provider text default",  # a view that is not there
    ],
)
def test_a_column_that_is_not_kept_is_named_and_what_the_rule_is(url: str, line: str) -> None:
    (sentence,) = broken([line], present(url))
    assert sentence.startswith(f"contract.txt promises `{line}`, the views have `")
    assert "columns of callflow's views are only appended" in sentence


def test_only_what_is_new_is_appended() -> None:
    before = ["flows 1 a text C", "flows 2 gone text C", "links 1 x text C"]
    now = ["flows 1 a text C", "flows 2 b text C", "flows 3 c text C", "flows 10 d text C"]
    assert merged(before, now) == [*before[:2], *now[2:], before[2]]


def declared() -> Iterator[tuple[str, Column]]:
    for view in VIEWS:
        yield from ((view.name, column) for column in view.columns)
        yield from ((f"{view.name}_history", column) for column in history_columns(view))
    yield from (("changes", column) for column in CHANGES)
    yield from (("freshness", column) for column in FRESHNESS)


def test_each_column_has_the_type_and_the_collation_of_its_declaration(session: Session) -> None:
    found = {
        (view, name): (kind, collation)
        for view, name, kind, collation in ask(
            session,
            "SELECT relname, attname, atttypid::regtype::text, collname FROM pg_attribute"
            " JOIN pg_class AS relation ON relation.oid = attrelid"
            " LEFT JOIN pg_collation ON pg_collation.oid = attcollation"
            " WHERE relkind = 'v' AND relnamespace = 'callflow'::regnamespace",
        )
    }
    for view, column in declared():
        wanted = (
            "timestamp with time zone" if column.kind == "timestamptz" else SQL_TYPES[column.kind]
        )
        assert found[view, column.name] == (wanted, COLLATIONS.get(column.kind)), (
            view,
            column.name,
        )
    for (view, name), (_, collation) in found.items():
        if name.endswith("_id") or name in ("source", "flow_key", "address_key"):
            assert collation == "C", f"{view}.{name}: keys compare in byte order, or no index helps"


@pytest.mark.every_postgres
def test_everything_is_described_and_a_view_by_its_question(session: Session) -> None:
    undescribed = ask(
        session,
        "SELECT c.oid::regclass::text FROM pg_class AS c WHERE relkind = 'v'"
        " AND relnamespace = 'callflow'::regnamespace"
        " AND coalesce(obj_description(c.oid, 'pg_class'), '') = ''"
        " UNION ALL SELECT attrelid::regclass || '.' || attname FROM pg_attribute"
        " JOIN pg_class AS c ON c.oid = attrelid WHERE relkind = 'v'"
        " AND relnamespace = 'callflow'::regnamespace"
        " AND coalesce(col_description(attrelid, attnum), '') = ''"
        " UNION ALL SELECT p.oid::regprocedure::text FROM pg_proc AS p"
        " WHERE pronamespace = 'callflow'::regnamespace"
        " AND coalesce(obj_description(p.oid, 'pg_proc'), '') = ''",
    )
    assert undescribed == []
    for view in VIEWS:
        assert "?" in view.comment
        ((said,),) = ask(session, f"SELECT obj_description('callflow.{view.name}'::regclass)")
        assert said.startswith(view.comment) and "From: " in said


def test_a_comment_says_which_providers_leave_a_column_empty(session: Session) -> None:
    said = "SELECT col_description('callflow.{}'::regclass, attnum) FROM pg_attribute"
    said += " WHERE attrelid = 'callflow.{}'::regclass AND attname = '{}'"

    def comment(view: str, column: str) -> str:
        ((found,),) = ask(session, said.format(view, view, column))
        return str(found)

    assert comment("flows", "account_id").endswith(" NULL for zoom.")
    assert comment("flows", "created_at").endswith(" NULL for zoom.")
    assert comment("flows", "description").endswith(" NULL for twilio.")
    assert "NULL for" not in comment("flows", "name")
    assert comment("entry_points", "name").endswith(" NULL for twilio and alibaba.")


@pytest.mark.slow
def test_the_first_time_of_each_view_is_there_for_every_provider(
    sync: Starter, session: Session
) -> None:
    """BI tools take it as their time axis."""
    with serve(SMALL, seed=7) as sandbox:
        run = sync(sandbox)
        for stream in ("zoom_demo.flows", "twilio_demo.flex_flows", "twilio_demo.channels",
                       "alibaba_demo.contact_flows"):  # fmt: skip
            assert run(stream).status == "complete"
    for view, _ in dict.fromkeys((view, None) for view, _ in declared()):
        columns = [column for name, column in declared() if name == view]
        first = next(column.name for column in columns if column.kind == "timestamptz")
        for provider, rows, times in ask(
            session, f"SELECT provider, count(*), count({first}) FROM callflow.{view} GROUP BY 1"
        ):
            assert times, f"{view}.{first} of {provider} is NULL in all {rows} rows"


# -- the parts of the providers -------------------------------------------------------------------


ALLOWED: dict[Kind, tuple[str, ...]] = {
    "id": ("text",),
    "text": ("text",),
    "boolean": ("boolean",),
    "integer": ("integer",),
    "bigint": ("bigint", "integer"),
    "timestamptz": ("timestamp with time zone",),
}


def mistyped(session: Session, part: Part) -> Iterator[str]:
    """Yield the columns of a part whose SQL has another type than the view: a cast would hide it.

    A part is asked for no rows; Postgres says what types they would have.
    """
    given, lookup = dict(assemble.expressions("x", part)), ""
    if part.lookup and part.lookup.facts:
        lookup = assemble.joined(part.lookup, assemble.TODAY)
    elif part.lookup:
        found = assemble.found(part.lookup, assemble.TODAY)
        given |= {n: given[n].replace(f"{{{part.lookup.name}}}", found) for n in part.looked_up}
    more = f" CROSS JOIN LATERAL {part.each}" if part.each else ""
    for column in named(part.view).columns:
        if column.name not in given:
            continue
        query = f"SELECT {given[column.name]} FROM {part.table.fullname} AS r{more}{lookup} LIMIT 0"
        cursor = session.execute(query.encode())
        assert cursor.description is not None
        ((kind,),) = ask(session, f"SELECT {cursor.description[0].type_code}::regtype::text")
        if kind not in ALLOWED[column.kind]:
            yield f"{part.view}.{column.name} of {part.table} is {kind}, expected {column.kind}"


def test_each_part_gives_the_columns_of_its_view_in_their_types(session: Session) -> None:
    for _, part in PARTS:
        assert unused(named(part.view), part) == []
        assert list(mistyped(session, part)) == []


def test_a_column_of_another_type_or_name_is_found(session: Session) -> None:
    table = next(part.table for _, part in PARTS if part.view == "flows")
    odd = Part(
        view="flows",
        table=table,
        columns={"flow_id": "r.flow_id", "name": "r.last_modified_time", "modified_at": "r.status",
                 "is_live": "1", "nmae": "r.flow_name"},
    )  # fmt: skip
    assert unused(named("flows"), odd) == ["nmae"]
    assert list(mistyped(session, odd)) == [
        "flows.name of zoom.flows is timestamp with time zone, expected text",
        "flows.is_live of zoom.flows is integer, expected boolean",
        "flows.modified_at of zoom.flows is text, expected timestamptz",
    ]


def test_every_provider_is_in_the_view_of_flows() -> None:
    assert {provider for provider, part in PARTS if part.view == "flows"} == {
        provider.name for provider in PROVIDERS
    }


# -- Zoom -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "channel"),
    [
        ({"channel": "voice"}, ("voice", None)),
        ({"channel": "messaging", "channel_source": "whatsapp"}, ("messaging", "whatsapp")),
        ({"channel": "messaging", "channel_source": ""}, ("messaging", None)),
        ({"channel": "email", "channel_type": "chat"}, ("email", None)),  # the newer one counts
        ({"channel_type": "voice"}, ("voice", None)),
        ({"channel_type": "video"}, ("video", None)),
        ({"channel": "", "channel_type": "chat"}, ("messaging", "web_chat")),
        ({"channel_type": "sms", "channel_source": "kept?"}, ("messaging", "sms")),
        ({"channel_type": "in_app_chat"}, ("messaging", "in_app_chat")),
        ({"channel_type": "fax"}, ("fax", None)),
        ({"channel_type": ""}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_zoom_channel(session: Session, sent: dict[str, str], channel: tuple[Any, ...]) -> None:
    insert(session, "zoom.flows", flow_id="f", **sent)
    assert flows(session, "channel, channel_source") == [channel]


def zoom(session: Session, status: str | None, *versions: tuple[int | None, str | None]) -> None:
    insert(session, "zoom.flows", flow_id="f", status=status)
    for number, (version, state) in enumerate(versions):
        insert(session, "zoom.flow_versions", flow_id="f", flow_version_id=f"v{number}",
               flow_version=version, flow_version_status=state)  # fmt: skip


@pytest.mark.parametrize(
    ("status", "versions", "expected"),
    [
        ("published", [(1, "published"), (2, "draft")], ("published", True, True, 1, 2)),
        ("published", [(1, "archived"), (2, "published")], ("published", True, False, 2, 2)),
        ("draft", [(1, "published"), (2, "draft")], ("draft", False, False, 1, 2)),
        ("debugging", [(1, "published"), (2, "debugging")], ("debugging", False, False, 1, 2)),
        ("archived", [(1, "published")], ("archived", False, False, 1, 1)),
        ("on_hold", [(1, "on_hold")], ("on_hold", False, False, None, 1)),
        ("", [], (None, False, False, None, None)),
        (None, [(None, None)], (None, False, False, None, None)),
        ("published", [], ("published", True, False, None, None)),
        ("published", [(3, "published"), (3, "draft")], ("published", True, False, 3, 3)),
        ("published", [(None, "published"), (2, "draft")], ("published", True, False, None, 2)),
        ("published", [(1, "published"), (None, "draft")], ("published", True, False, 1, 1)),
        ("published", [(2, "published"), (1, "published"), (9, "x")],
         ("published", True, True, 2, 9)),
        ("Published", [], ("Published", False, False, None, None)),
    ],
)  # fmt: skip
def test_zoom_status_and_versions(
    session: Session, status: Any, versions: Any, expected: tuple[Any, ...]
) -> None:
    zoom(session, status, *versions)
    columns = "status, is_live, has_unpublished_changes, published_version, newest_version"
    assert flows(session, columns) == [expected]
    then = "FROM callflow.flows_at('2026-06-01Z')"
    assert ask(session, f"SELECT {columns} {then}") == [expected]


def test_versions_of_another_source_are_not_counted(session: Session) -> None:
    zoom(session, "published", (1, "published"))
    insert(session, "zoom.flow_versions", source="t", flow_id="f", flow_version_id="v",
           flow_version=9, flow_version_status="draft")  # fmt: skip
    assert flows(session, "newest_version, has_unpublished_changes", "source = 's'") == [(1, False)]


def test_zoom_flow_in_all_its_columns(session: Session) -> None:
    insert(
        session,
        "zoom.flows",
        flow_id="f",
        flow_name="Main",
        flow_description="Text",
        channel="voice",
        status="published",
        modified_by="",
        last_modified_time="2026-01-01 01:00Z",
    )
    assert flows(
        session,
        "provider, source, account_id, flow_id, name, description, flow_type, modified_by,"
        " modified_at::text, created_at, valid_from::date::text, flow_key",
    ) == [("zoom", "s", None, "f", "Main", "Text", None, None, "2026-01-01 01:00:00+00", None,
           "2026-01-01", "s/f")]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"entry_number": "+1 (212) 555-0100"}, ("phone", "+1 (212) 555-0100", "+12125550100")),
        ({"email_address": "Help@Example.COM"}, ("email", "Help@Example.COM", "help@example.com")),
        ({"entry_name": "Web"}, ("name", "Web", None)),
        ({"entry_number": "", "email_address": "a@b"}, ("email", "a@b", "a@b")),
        (
            {"entry_number": "1", "email_address": "a@b", "entry_name": "n"},
            ("phone", "1", "1"),
        ),
        ({"entry_number": "anonymous"}, ("phone", "anonymous", None)),
        ({"entry_number": "", "email_address": "", "entry_name": ""}, (None, None, None)),
        ({}, (None, None, None)),
    ],
)
def test_zoom_entry_point(session: Session, sent: dict[str, str], expected: Any) -> None:
    insert(session, "zoom.entry_points", flow_id="f", entry_id="e", entry_language="en", **sent)
    columns = "kind, address, address_key, name, language, flow_key, entry_point_id, account_id"
    assert ask(session, f"SELECT {columns} FROM callflow.entry_points") == [
        (*expected, sent.get("entry_name"), "en", "s/f", "e", None)
    ]


def test_zoom_version(session: Session) -> None:
    zoom(session, "draft", (None, ""))
    columns = "account_id, flow_id, version_id, version_number, status, modified_by, flow_key"
    assert ask(session, f"SELECT {columns} FROM callflow.flow_versions") == [
        (None, "f", "v0", None, None, None, "s/f")
    ]


# -- Twilio ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("enabled", "expected"),
    [
        (True, ("published", True, False)),
        (False, ("disabled", False, False)),
        (None, (None, False, False)),
    ],
)
def test_twilio_status(session: Session, enabled: bool | None, expected: Any) -> None:
    insert(session, "twilio.flex_flows", sid="FO1", account_sid="AC1", enabled=enabled)
    columns = "status, is_live, has_unpublished_changes"
    assert flows(session, columns) == [expected]
    rest = "account_id, channel, published_version, newest_version, modified_by, flow_key"
    assert flows(session, rest) == [("AC1", "messaging", None, None, None, "s/AC1/FO1")]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [("web", "web_chat"), ("facebook", "facebook_messenger"), ("sms", "sms"), ("line", "line"),
     ("whatsapp", "whatsapp"), ("custom", "custom"), ("new one", "new one"), ("", None),
     (None, None)],
)  # fmt: skip
def test_twilio_channel_source(session: Session, sent: str | None, shown: str | None) -> None:
    insert(session, "twilio.flex_flows", sid="FO1", channel_type=sent, integration_type="studio")
    assert flows(session, "channel_source, flow_type, flow_key") == [(shown, "studio", "s/FO1")]


@pytest.mark.parametrize(
    ("kind", "identity", "expected"),
    [
        ("sms", "+44 7700 900123", [("phone", "+44 7700 900123", "+447700900123")]),
        ("whatsapp", "whatsapp:+447700900123",
         [("phone", "whatsapp:+447700900123", "+447700900123")]),
        ("facebook", "Messenger:123", [("address", "Messenger:123", "messenger:123")]),
        (None, "X", [("address", "X", "x")]),
        ("web", "", []),
        ("web", None, []),
    ],
)  # fmt: skip
def test_twilio_entry_point(session: Session, kind: Any, identity: Any, expected: Rows) -> None:
    insert(session, "twilio.flex_flows", sid="FO1", channel_type=kind, contact_identity=identity)
    found = ask(session, "SELECT kind, address, address_key FROM callflow.entry_points")
    assert found == expected
    if expected:
        ids = "entry_point_id, flow_id, name, language"
        assert ask(session, f"SELECT {ids} FROM callflow.entry_points") == [
            ("FO1", "FO1", None, None)
        ]


def test_one_number_of_two_flows_has_one_key(session: Session) -> None:
    for sid, kind, identity in (("1", "sms", "+447700900123"),
                                ("2", "whatsapp", "whatsapp:+447700900123")):  # fmt: skip
        insert(session, "twilio.flex_flows", sid=sid, channel_type=kind, enabled=True,
               contact_identity=identity)  # fmt: skip
    assert ask(session, "SELECT DISTINCT address_key FROM callflow.entry_points") == [
        ("+447700900123",)
    ]


def test_twilio_channels_know_whether_their_flow_is_there(session: Session) -> None:
    insert(session, "twilio.flex_flows", sid="FO1")
    insert(session, "twilio.flex_flows", sid="FO2", source="other")
    for number, flow in enumerate(("FO1", "FO2", "FO3", None, "")):
        insert(session, "twilio.channels", sid=f"CH{number}", account_sid="AC1", user_sid="US",
               flex_flow_sid=flow, task_sid="WT")  # fmt: skip
    columns = "flow_id, flow_exists, account_id, user_id, task_id, flow_key"
    expected = [
        ("FO1", True, "AC1", "US", "WT", "s/AC1/FO1"),
        ("FO2", False, "AC1", "US", "WT", "s/AC1/FO2"),
        ("FO3", False, "AC1", "US", "WT", "s/AC1/FO3"),
        (None, False, "AC1", "US", "WT", None),
        ("", False, "AC1", "US", "WT", "s/AC1/"),
    ]
    query = "SELECT {} FROM callflow.{} ORDER BY channel_id"
    assert ask(session, query.format(columns, "channels")) == expected
    assert ask(session, query.format(columns, "channels_at('2026-06-01Z')")) == expected


# -- Alibaba --------------------------------------------------------------------------------------


def alibaba(session: Session, **values: object) -> None:
    key = {"instance_id": "i", "contact_flow_id": "f"}
    insert(session, "alibaba.contact_flows", **{**key, **values})


def of_flow(session: Session, table: str, **values: object) -> None:
    key = {"instance_id": "i", "contact_flow_id": "f"}
    insert(session, f"alibaba.contact_flow_{table}", **{**key, **values})


@pytest.mark.parametrize(
    ("published", "draft", "expected"),
    [
        (True, None, ("published", True, False)),
        (True, "", ("published", True, False)),
        (True, "d", ("published", True, True)),
        (False, "d", ("draft", False, False)),
        (False, None, ("draft", False, False)),
        (None, "d", (None, False, False)),
    ],
)
def test_alibaba_status(session: Session, published: Any, draft: Any, expected: Any) -> None:
    alibaba(session, published=published, draft_id=draft, type="SUB_FLOW", editor="",
            name="IVR", description="Text", updated_time="2026-01-01 08:00+08")  # fmt: skip
    assert flows(session, "status, is_live, has_unpublished_changes") == [expected]
    rest = "account_id, name, description, flow_type, channel, channel_source, modified_by,"
    rest += " published_version, newest_version, modified_at::text, flow_key"
    assert flows(session, rest) == [("i", "IVR", "Text", "SUB_FLOW", "voice", None, None, None,
                                     None, "2026-01-01 00:00:00+00", "s/i/f")]  # fmt: skip


def test_the_same_contact_flow_in_two_instances_and_sources(session: Session) -> None:
    for source in ("s", "t"):
        for instance in ("i", "j"):
            alibaba(session, source=source, instance_id=instance, name=f"{source}{instance}")
            of_flow(session, "numbers", source=source, instance_id=instance, number="1")
    assert flows(session, "flow_key, name") == [
        ("s/i/f", "si"), ("s/j/f", "sj"), ("t/i/f", "ti"), ("t/j/f", "tj")
    ]  # fmt: skip
    joined = (
        "SELECT count(*) FROM callflow.flows JOIN callflow.entry_points"
        " USING (provider, source, account_id, flow_id)"
    )
    assert ask(session, joined) == [(4,)]


@pytest.mark.parametrize(
    ("number", "key"),
    [("400-123 45", "40012345"), ("+86400", "+86400"), ("400****123", None), ("*", None),
     ("extern", None)],
)  # fmt: skip
def test_alibaba_number(session: Session, number: str, key: str | None) -> None:
    of_flow(session, "numbers", number=number)
    columns = "entry_point_id, kind, address, address_key, name, account_id"
    assert ask(session, f"SELECT {columns} FROM callflow.entry_points") == [
        (number, "phone", number, key, None, "i")
    ]


def test_alibaba_steps_ways_out_and_findings(session: Session) -> None:
    of_flow(session, "activities", activity_id="a", type="MENU", name="Menu", node_index=3,
            properties={"position": {"x": 1}, "content": "Hi", "list": [1, {"b": None}], "no": None,
                        "yes": True})  # fmt: skip
    of_flow(session, "transitions", activity_id="a", position=0, event="1", next_activity_id="b")
    of_flow(session, "transitions", activity_id="a", position=1)
    of_flow(session, "findings", activity_id="a", finding="broken_link", event="1", detail="b")
    of_flow(session, "findings", activity_id="", finding="no_start", event="")
    of_flow(session, "findings", activity_id="a", finding="open_event", event="2")
    steps = "step_id, step_type, name, step_number, account_id, flow_key, properties::jsonb"
    assert ask(session, f"SELECT {steps} FROM callflow.flow_steps") == [
        ("a", "MENU", "Menu", 3, "i", "s/i/f",
         {"content": "Hi", "list": [1, {"b": None}], "no": None, "yes": True})
    ]  # fmt: skip
    links = "step_id, link_number, event, next_step_id, flow_key"
    assert ask(session, f"SELECT {links} FROM callflow.flow_step_links ORDER BY 2") == [
        ("a", 0, "1", "b", "s/i/f"),
        ("a", 1, None, None, "s/i/f"),
    ]
    settings = "step_id, step_type, step_name, property, value"
    assert ask(session, f"SELECT {settings} FROM callflow.flow_step_properties ORDER BY 4") == [
        ("a", "MENU", "Menu", "content", "Hi"),
        ("a", "MENU", "Menu", "list", '[1, {"b": null}]'),
        ("a", "MENU", "Menu", "no", None),
        ("a", "MENU", "Menu", "yes", "true"),
    ]
    found = "SELECT finding, step_id, detail FROM callflow.flow_findings ORDER BY 1"
    assert ask(session, found) == [
        ("broken_link", "a", "1: b"),
        ("no_start", None, None),
        ("open_event", "a", "2"),
    ]


@pytest.mark.parametrize(
    ("settings", "text", "count"),
    [
        ("[1, 2]", "[1, 2]", 0),
        ('"text"', '"text"', 0),
        ("3", "3", 0),
        ("null", "null", 0),
        (None, None, 0),
        ("{}", "{}", 0),
        ('{"position": 1}', "{}", 0),
        ('["position"]', '["position"]', 0),
        ('{"a": {"position": 1}}', '{"a": {"position": 1}}', 1),
    ],
)
def test_settings_of_any_shape_spoil_no_view(
    session: Session, settings: str | None, text: str | None, count: int
) -> None:
    of_flow(session, "activities", activity_id="a", properties=settings)
    of_flow(session, "activities", activity_id="b", properties={"content": "Hi"})
    steps = "SELECT properties FROM callflow.flow_steps ORDER BY step_id"
    assert ask(session, steps) == [(text,), ('{"content": "Hi"}',)]
    settings_of_a = "SELECT count(*) FROM callflow.flow_step_properties WHERE step_id = 'a'"
    assert ask(session, settings_of_a) == [(count,)]


# -- hostile content ------------------------------------------------------------------------------


EVERY = [name for view in VIEWS for name in (view.name, f"{view.name}_history")]


def read_all(session: Session) -> dict[str, Rows]:
    """Return the rows of every view, in each of its forms."""
    found = {name: ask(session, f"SELECT * FROM callflow.{name}") for name in EVERY}
    for view in VIEWS:
        then = ask(session, f"SELECT * FROM callflow.{view.name}_at('2026-06-01Z')")
        assert sorted(then, key=repr) == sorted(found[view.name], key=repr), view.name
    return found


def test_rows_with_nothing_but_a_key(session: Session) -> None:
    insert(session, "zoom.flows", flow_id="f")
    insert(session, "zoom.flow_versions", flow_id="f", flow_version_id="v")
    insert(session, "zoom.entry_points", flow_id="f", entry_id="e")
    insert(session, "twilio.flex_flows", sid="f")
    insert(session, "twilio.channels", sid="c")
    alibaba(session)
    of_flow(session, "numbers", number="n")
    of_flow(session, "activities", activity_id="a")
    of_flow(session, "transitions", activity_id="a", position=0)
    of_flow(session, "findings", activity_id="", finding="", event="")
    counts = {name: len(rows) for name, rows in read_all(session).items()}
    assert counts == {
        name: {
            "flows": 3,
            "entry_points": 2,
            "flow_step_properties": 0,
            "flow_references": 0,
            "flow_version_steps": 0,
            "flow_version_links": 0,
        }.get(name.removesuffix("_history"), 1)
        for name in EVERY
    }
    never_null = "is_live, has_unpublished_changes"
    assert flows(session, never_null) == [(False, False)] * 3


ODD = "\u202eabc 'q' \"q\" \\ \n\t <script>alert(1)</script> %s 流程 😀 ; --"


def test_names_in_any_writing_are_shown_as_they_are(session: Session) -> None:
    insert(session, "zoom.flows", flow_id=ODD, flow_name=ODD, flow_description=ODD, status=ODD)
    insert(session, "zoom.entry_points", flow_id=ODD, entry_id=ODD, entry_name=ODD)
    insert(session, "twilio.flex_flows", sid=ODD, account_sid=ODD, friendly_name=ODD,
           channel_type=ODD, contact_identity=ODD)  # fmt: skip
    alibaba(session, contact_flow_id=ODD, instance_id=ODD, name=ODD, type=ODD, editor=ODD)
    key = {"contact_flow_id": ODD, "instance_id": ODD}
    of_flow(session, "activities", activity_id=ODD, name=ODD, properties={ODD: ODD}, **key)
    of_flow(session, "findings", **key, activity_id=ODD, finding="loop", event=ODD, detail=ODD)
    assert {row[0] for row in flows(session, "name")} == {ODD}
    assert flows(session, "flow_key", f"flow_id = {sql.Literal(ODD).as_string()}") == [
        (f"s/{ODD}",), (f"s/{ODD}/{ODD}",), (f"s/{ODD}/{ODD}",)
    ]  # fmt: skip
    found = ask(session, "SELECT property, value FROM callflow.flow_step_properties")
    assert found == [(ODD, ODD)]
    assert ask(session, "SELECT detail FROM callflow.flow_findings") == [(f"{ODD}: {ODD}",)]
    read_all(session)


@pytest.mark.slow
def test_a_definition_of_three_megabytes_with_5000_activities(
    session: Session, engine: Engine
) -> None:
    chain = [
        {
            "id": f"a{number}",
            "type": "INCOMING_CALL" if number == 0 else "PLAY_SAY",
            "properties": {"content": "x" * 500},
            "events": [{"event": "next", "next": f"a{number + 1}"}],
        }
        for number in range(5000)
    ]
    text = json.dumps({"activities": chain})
    assert len(text) > 3_000_000
    record = {"ContactFlowId": "f", "Definition": text}
    with engine.connect() as connection:
        load(connection, "s", CONTACT_FLOWS, [record], now=at(0), scope="i")
        chain[7]["properties"] = {"content": "y"}
        record["Definition"] = json.dumps({"activities": chain})
        load(connection, "s", CONTACT_FLOWS, [record], now=at(1), scope="i")
    found = read_all(session)
    assert len(found["flow_steps"]) == len(found["flow_step_links"]) == 5000
    assert len(found["flow_steps_history"]) == 5001
    assert len(found["flow_step_properties"]) == 5000
    findings = "SELECT finding, step_id, detail FROM callflow.flow_findings ORDER BY 1"
    assert ask(session, findings) == [
        ("broken_link", "a4999", "next: a5000"),
        ("dead_end", "a4999", None),
    ]
    between = "SELECT entity, entity_id, field, old_value IS NULL FROM callflow.flow_diff('s', 'f',"
    assert ask(session, f"{between} '{at(0)}', '{at(1)}') ORDER BY 1") == [
        ("step", "a7", "properties.content", False),
    ]

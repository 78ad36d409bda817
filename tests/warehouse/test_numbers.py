"""What numbers and addresses lead to, in the view of entry points, today and in the past."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from etl.warehouse.model.part import host_and_path
from tests.postgres import dsn
from tests.transform.named import example, named, transformed
from tests.warehouse.test_model import Rows, Session, ask, insert

ACCOUNT = "AC" + "a" * 32
FLOW = "FW" + "a" * 32
COLUMNS = "entry_point_id, kind, address_key, flow_id, target_kind, target"


@pytest.fixture
def session(emptied: Engine) -> Iterator[Session]:
    url = emptied.url.render_as_string(hide_password=False)
    with psycopg.connect(dsn(url), autocommit=True, options="-c timezone=UTC") as session:
        yield session


def entry_points(session: Session, columns: str = COLUMNS) -> Rows:
    return ask(session, f"SELECT {columns} FROM callflow.entry_points ORDER BY entry_point_id")


def load_example(session: Session, table: str) -> None:
    provider = table.split(".")[0]
    answer: Any = example(table.replace(".", "/"))
    records = answer.get("address_configurations") or answer.get("incoming_phone_numbers")
    for row in named(transformed(table, records or answer["Data"]["List"], scope="i"), table):
        cells = {name: cell for name, cell in row.items() if name not in ("ord", "partial")}
        insert(session, table, **cells)
    assert provider in ("twilio", "alibaba")


# --- Twilio --------------------------------------------------------------------------------------
def test_the_documented_numbers_lead_where_their_document_says(session: Session) -> None:
    load_example(session, "twilio.phone_numbers")
    number = "+1500555000"
    assert entry_points(session) == [  # none of them can receive text messages
        (f"PN{32 * 'a'}/voice", "phone", f"{number}6", None, None, None),
        (f"PN{32 * 'b'}/voice", "phone", f"{number}7", FLOW, "flow", FLOW),
        (f"PN{32 * 'c'}/voice", "phone", f"{number}8", None, "trunk", "TK" + 32 * "a"),
        (f"PN{32 * 'd'}/voice", "phone", f"{number}9", None, "application", "AP" + 32 * "a"),
    ]


@pytest.mark.parametrize(
    ("sent", "voice", "sms"),
    [
        ({}, (None, None, None), (None, None, None)),
        (
            {"voice_url": "u", "voice_studio_flow_sid": "F", "sms_studio_flow_sid": "G"},
            ("F", "flow", "F"),
            ("G", "flow", "G"),
        ),
        (
            {"voice_studio_flow_sid": "F", "voice_application_sid": "A", "trunk_sid": "T"},
            (None, "trunk", "T"),
            (None, None, None),
        ),
        (
            {"voice_studio_flow_sid": "F", "voice_application_sid": "A"},
            (None, "application", "A"),
            (None, None, None),
        ),
        (
            {"sms_studio_flow_sid": "F", "sms_application_sid": "A", "trunk_sid": "T"},
            (None, "trunk", "T"),
            (None, "application", "A"),
        ),
        (
            {"voice_url": "https://me:pw@h.example/a?k=1", "sms_url": "https://h.example#x"},
            (None, "url", "h.example/a"),
            (None, "url", "h.example"),
        ),
    ],
)
def test_a_trunk_comes_before_an_application_and_that_before_a_url(
    session: Session, sent: dict[str, str], voice: tuple[Any, ...], sms: tuple[Any, ...]
) -> None:
    insert(session, "twilio.phone_numbers", sid="PN1", phone_number="+1500", **sent)
    assert entry_points(session) == [
        ("PN1/sms", "phone", "+1500", *sms),
        ("PN1/voice", "phone", "+1500", *voice),
    ]


@pytest.mark.parametrize(
    ("voice", "sms", "ways"),
    [
        (True, True, 2), (None, None, 2), (False, True, 1), (True, False, 1), (False, False, 0),
    ],
)  # fmt: skip
def test_what_a_number_cannot_do_is_no_entry_point(
    session: Session, voice: Any, sms: Any, ways: int
) -> None:
    insert(session, "twilio.phone_numbers", sid="PN1", capability_voice=voice, capability_sms=sms)
    assert len(entry_points(session)) == ways


def test_the_documented_addresses_lead_where_their_document_says(session: Session) -> None:
    load_example(session, "twilio.addresses")
    assert [row[2:] for row in entry_points(session)] == [
        ("+15005550006", None, "url", "example.com"),
        ("+15005550007", None, None, None),  # Studio, but not enabled
        ("+15005550008", None, "conversation", None),
    ]


@pytest.mark.parametrize(
    ("kind", "address", "expected"),
    [
        ("sms", "+15005550006", ("phone", "+15005550006")),
        ("whatsapp", "whatsapp:+15005550006", ("phone", "+15005550006")),
        ("rcs", "rcs:brand", ("phone", None)),
        ("email", "Help@Example.com", ("email", "help@example.com")),
        ("messenger", "messenger:Page", ("address", "messenger:page")),
        ("of tomorrow", "X", ("address", "x")),
        (None, None, ("address", None)),
    ],
)
def test_the_kind_of_an_address_is_by_its_type(
    session: Session, kind: Any, address: Any, expected: Any
) -> None:
    insert(
        session,
        "twilio.addresses",
        sid="IG1",
        type=kind,
        address=address,
        auto_creation_enabled=True,
        auto_creation_type="studio",
        studio_flow_sid=FLOW,
    )
    assert entry_points(session) == [("IG1", *expected, FLOW, "flow", FLOW)]


# --- URLs ----------------------------------------------------------------------------------------
@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com", "example.com"),
        ("https://example.com/a/b", "example.com/a/b"),
        ("HTTPS://Example.com:8443/a?key=1#x", "Example.com:8443/a"),
        ("https://me:pw@example.com/a", "example.com/a"),
        ("https://me:p@w@example.com/a", "example.com/a"),
        ("https://me@example.com?x=@", "example.com"),
        ("https://[::1]:80/a", "[::1]:80/a"),
        ("https://例.example/a", "例.example/a"),
        ("https://medium.example/@me", "medium.example/@me"),
        ("//me:pw@example.com/a", "example.com/a"),
        ("https://{{a/b}}:{{pw}}@example.com/a?b={{c}}", "example.com/a"),
        ("https://{{a}}.example.com:{{port}}/{{b}}?c=1", "{{a}}.example.com:{{port}}/{{b}}"),
        ("{{base}}/a?key=pw", "{{base}}/a"),
        ("{% if a %}x{% endif %}/a#pw", "{% if a %}x{% endif %}/a"),
        ("{{base}}:pw@example.com/a", "example.com/a"),
        ("{{base}}:pw/a", "…"),
        ("{base}/a", "…"),
        ("https://me:{{pw}}/x@example.com/a", "…"),
        ("https://me:12/34@example.com/a", "…"),
        ("https://me:pw/x@example.com/a", "…"),
        ("https://me:pw?x@example.com/a", "…"),
        ("https://me:pw#x@example.com/a", "…"),
        ("me:pw@example.com/a", "…"),
        ("https:///a?pw", "…"),
        ("https://exa mple.com/a", "…"),
        ("key=pw", "…"),
        ("", None),
        (None, None),
    ],
)
def test_a_view_shows_host_and_path_of_a_url_and_nothing_secret(
    session: Session, url: Any, shown: Any
) -> None:
    shows = host_and_path("given").replace("%", "%%")
    query = f"SELECT {shows} FROM (SELECT %s::text) AS each (given)"
    assert session.execute(query.encode(), [url]).fetchone() == (shown,)


# --- Alibaba -------------------------------------------------------------------------------------
def flow_number(session: Session, number: str, flow: str = "f", **more: str) -> None:
    insert(
        session,
        "alibaba.contact_flow_numbers",
        **{"instance_id": "i", "contact_flow_id": flow, "number": number, **more},
    )


def listed_number(session: Session, number: str, flow: str = "f", **more: str) -> None:
    insert(
        session,
        "alibaba.phone_numbers",
        **{"instance_id": "i", "contact_flow_id": flow, "number": number, **more},
    )


def test_a_listed_number_leads_to_its_flow_or_to_its_agent_or_nowhere(session: Session) -> None:
    listed_number(session, "1", user_id="")
    listed_number(session, "2", "", user_id="agent@i")
    listed_number(session, "3", "", user_id="")
    listed_number(session, "400****", "", user_id="")
    listed_number(session, "400****/1578457081000", "")
    columns = "entry_point_id, account_id, address, address_key, flow_id, target_kind, target"
    assert entry_points(session, columns) == [
        ("1", "i", "1", "1", "f", "flow", "f"),
        ("2", "i", "2", "2", None, "agent", "agent@i"),
        ("3", "i", "3", "3", None, None, None),
        ("400****", "i", "400****", None, None, None, None),
        ("400****/1578457081000", "i", "400****", None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("of_flow", "listed", "ids"),
    [
        ("4001234567", ("4001234567", "f"), ["4001234567"]),
        ("4001234567", ("4001234567", ""), ["4001234567"]),
        ("4001234567", ("4001234567", "g"), ["4001234567"]),
        ("4001234567", ("4001234568", "f"), ["4001234567", "4001234568"]),
        ("400123****", ("4001234567", "f"), ["4001234567"]),
        ("400123****", ("400123****", "f"), ["400123****"]),
        ("400123****", ("4001234567", "g"), ["400123****", "4001234567"]),
        ("400123****", ("40012345678", "f"), ["400123****", "40012345678"]),
        ("400123****", ("4009994567", "f"), ["400123****", "4009994567"]),
    ],
)
def test_a_number_of_a_flow_counts_where_the_list_of_numbers_does_not_have_it(
    session: Session, of_flow: str, listed: tuple[str, str], ids: list[str]
) -> None:
    flow_number(session, of_flow)
    assert entry_points(session, "entry_point_id") == [(of_flow,)]
    listed_number(session, *listed)
    assert entry_points(session, "entry_point_id") == [(each,) for each in ids]
    if listed[0] == of_flow:
        assert entry_points(session, "flow_id") == [(listed[1] or None,)]


def test_the_lists_of_other_instances_and_sources_say_nothing_of_it(session: Session) -> None:
    flow_number(session, "1")
    listed_number(session, "1", instance_id="j")
    listed_number(session, "1", source="other")
    assert len(entry_points(session)) == 3


def test_the_past_keeps_what_only_flows_said_of_a_number(session: Session) -> None:
    """A number was listed from February to March; its flow has had it since January."""
    flow_number(session, "1")
    session.execute(
        "INSERT INTO history.alibaba_phone_numbers"
        " (source, instance_id, number, contact_flow_id, valid_from, valid_to)"
        " VALUES ('s', 'i', '1', 'f', '2026-02-01Z', '2026-02-15Z'),"
        " ('s', 'i', '1', 'g', '2026-02-15Z', '2026-03-01Z')"
    )
    when = "valid_from::date::text, valid_to::date::text"
    found = ask(
        session,
        f"SELECT {when}, flow_id, is_current FROM callflow.entry_points_history ORDER BY 1",
    )
    assert found == [
        ("2026-01-01", "2026-02-01", "f", False),
        ("2026-02-01", "2026-02-15", "f", False),
        ("2026-02-15", "2026-03-01", "g", False),
        ("2026-03-01", None, "f", True),
    ]
    for at, flow in (("01-10", "f"), ("02-10", "f"), ("02-20", "g"), ("03-10", "f")):
        query = f"SELECT flow_id FROM callflow.entry_points_at('2026-{at}Z')"
        assert ask(session, query) == [(flow,)]

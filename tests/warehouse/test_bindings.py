"""Changes of numbers and addresses that lead to flows of another list: which flow sees what."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from etl.load import merge
from etl.load.changes import Log
from etl.providers.catalog import STREAMS
from etl.sync.rebuild import rebuild_changes
from tests.load.loading import at, kind_of, pairs_of, scan
from tests.warehouse.merges import Account, log_of, note

AC = "AC" + 32 * "1"
FLOWS, NUMBERS, ADDRESSES = "twilio.studio_flows", "twilio.phone_numbers", "twilio.addresses"
CONTACT_FLOWS, LINES = "alibaba.contact_flows", "alibaba.phone_numbers"


@pytest.fixture
def connection(emptied: Engine) -> Iterator[Connection]:
    with emptied.connect() as connection:
        yield connection


def sync(
    connection: Connection, name: str, records: Sequence[Any], now: datetime, *, first: bool = False
) -> None:
    """Merge a complete list, of one instance where there are several; `first` is no news."""
    kind, stream, (provider, _, own) = kind_of(name), STREAMS[name], name.partition(".")
    account = Account(provider, provider, own, kind, [])
    scan(connection, provider, kind, records)
    with connection.begin():
        pairs = pairs_of(provider, kind)
        gone = merge.unlisted(connection, provider, pairs[0], [])
        scope = "ccc" if kind.scope else ""
        log = Log(provider, stream.parts, stream.scope, () if first else (scope,))
        merge.merge(connection, provider, pairs, gone, now, log=log)
        if first:
            account.known[scope] = now
            note(connection, account)


def fw(letter: str) -> str:
    return "FW" + 32 * letter


def flow(letter: str, name: str) -> dict[str, Any]:
    times = {"date_created": "2026-01-01T00:00:00Z", "date_updated": "2026-01-09T00:00:00Z"}
    return {
        "sid": fw(letter),
        "account_sid": AC,
        "friendly_name": name,
        "author_sid": "US1",
        **times,
    }


def number(
    sid: str, voice: str = "", sms: str = "", *, day: int = 1, **more: Any
) -> dict[str, Any]:
    """Return a phone number; `voice` and `sms` are the letters of flows, or URLs."""

    def url(to: str) -> str:
        return (
            to if len(to) != 1 else f"https://webhooks.twilio.com/v1/Accounts/{AC}/Flows/{fw(to)}"
        )

    return {
        "sid": sid, "account_sid": AC, "phone_number": "+14155550100", "friendly_name": "Main",
        "capabilities": {"voice": True, "sms": True}, "voice_url": url(voice), "sms_url": url(sms),
        "date_updated": f"{stamp(day):%a, %d %b %Y %H:%M:%S} +0000", **more,
    }  # fmt: skip


def said(connection: Connection, columns: str, since: datetime) -> list[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM callflow.changes WHERE observed_at >= :since"
    with connection.begin():
        return sorted(map(tuple, connection.execute(text(query), {"since": since})), key=repr)


WHAT = "right(flow_id, 1), flow_name, entity_id, change"


def check(connection: Connection, *hours: int) -> None:
    """Check that the log is that of the histories, and that flow_diff finds it for these hours."""
    with connection.begin():
        written = log_of(connection)
        rebuild_changes(connection)
        assert log_of(connection) == written
    for now, before in ((at(hour), at(hour - 1)) for hour in hours):
        for source, flow_id in said(connection, "DISTINCT source, flow_id", at(0)):
            given = {"source": source, "flow_id": flow_id, "before": before, "now": now}
            with connection.begin():
                found = connection.execute(
                    text("SELECT * FROM callflow.flow_diff(:source, :flow_id, :before, :now)"),
                    given,
                )
                logged = connection.execute(
                    text(
                        "SELECT * FROM callflow.changes WHERE source = :source"
                        " AND flow_id = :flow_id AND observed_at = :now"
                    ),
                    given,
                )
                assert sorted(map(tuple, found), key=repr) == sorted(map(tuple, logged), key=repr)


def test_a_number_that_moves_leaves_one_flow_and_joins_another(connection: Connection) -> None:
    sync(connection, FLOWS, [flow("a", "A"), flow("b", "B")], at(1), first=True)
    sync(connection, NUMBERS, [number("PN1", "a", "a"), number("PN2", "b")], at(2), first=True)
    assert said(connection, WHAT, at(0)) == []
    sync(connection, NUMBERS, [number("PN1", "b", "a", day=2), number("PN2", "b")], at(3))
    made = ("entry_point", None, stamp(2), None)
    assert said(connection, f"{WHAT}, entity, field, modified_at, modified_by", at(3)) == [
        ("a", "A", "PN1/voice", "deleted", *made),
        ("b", "B", "PN1/voice", "created", *made),
    ]
    sync(connection, NUMBERS, [number("PN1", "a", "a", day=3), number("PN2", "b")], at(4))
    assert said(connection, WHAT, at(4)) == [
        ("a", "A", "PN1/voice", "restored"),
        ("b", "B", "PN1/voice", "deleted"),
    ]
    sync(connection, NUMBERS, [number("PN2", "b")], at(5))
    assert said(connection, f"{WHAT}, modified_at", at(5)) == [
        ("a", "A", "PN1/sms", "deleted", None),
        ("a", "A", "PN1/voice", "deleted", None),
    ]
    check(connection, 3, 4, 5)


def stamp(day: int) -> datetime:
    return at(24 * (day - 1))


def test_only_what_is_shown_of_an_entry_point_is_a_change_of_its_flow(
    connection: Connection,
) -> None:
    secret = "https://user:pw@x.example/hook?key="
    sync(connection, FLOWS, [flow("a", "A")], at(1), first=True)
    sync(connection, NUMBERS, [number("PN1", "a", secret + "1")], at(2), first=True)
    other = number("PN1", "a", secret + "2", day=3, status_callback=secret, bundle_sid="BU1")
    sync(connection, NUMBERS, [other], at(3))  # of its other way, and of what no view shows
    assert said(connection, WHAT, at(3)) == []
    sync(connection, NUMBERS, [number("PN1", "a", secret, friendly_name="New", day=4)], at(4))
    columns = f"{WHAT}, field, old_value, new_value, modified_at"
    assert said(connection, columns, at(4)) == [
        ("a", "A", "PN1/voice", "updated", "name", "Main", "New", stamp(4))
    ]
    check(connection, 3, 4)


def test_what_leads_elsewhere_and_then_to_a_flow_joins_it(connection: Connection) -> None:
    sync(connection, FLOWS, [flow("a", "A")], at(1), first=True)
    sync(
        connection, NUMBERS, [number("PN1"), number("PN2", "a", trunk_sid="TK1")], at(2), first=True
    )
    now = [number("PN1", sms="a"), number("PN2", "a")]
    sync(connection, NUMBERS, now, at(3))
    joined = [("a", "A", "PN1/sms", "created"), ("a", "A", "PN2/voice", "created")]
    assert said(connection, WHAT, at(3)) == joined
    no_sms: dict[str, Any] = {"capabilities": {"voice": True, "sms": False}}
    now = [number("PN1", sms="a", **no_sms), number("PN2", "a", voice_application_sid="AP1")]
    sync(connection, NUMBERS, now, at(4))
    assert said(connection, WHAT, at(4)) == [
        ("a", "A", "PN1/sms", "deleted"), ("a", "A", "PN2/voice", "deleted")
    ]  # fmt: skip
    check(connection, 3, 4)


def test_a_flow_comes_and_goes_without_its_numbers(connection: Connection) -> None:
    """A binding to a flow that callflow does not have is logged; its name is the last one."""
    sync(connection, NUMBERS, [], at(1), first=True)
    sync(connection, FLOWS, [], at(1), first=True)
    sync(connection, NUMBERS, [number("PN1", "a")], at(2))
    sync(connection, FLOWS, [flow("a", "A")], at(3))
    sync(connection, FLOWS, [flow("a", "New")], at(4))
    sync(connection, FLOWS, [], at(5))
    sync(connection, NUMBERS, [], at(6))
    assert said(connection, "observed_at, entity, flow_name, change, modified_by", at(0)) == sorted(
        [
            (at(2), "entry_point", None, "created", None),
            (at(3), "flow", "A", "created", "US1"),
            (at(4), "flow", "New", "updated", "US1"),
            (at(5), "flow", "New", "deleted", None),
            (at(6), "entry_point", "New", "deleted", None),
        ],
        key=repr,
    )
    check(connection, 2, 3, 4, 5, 6)


def test_an_address_that_is_switched_off_leaves_its_flow(connection: Connection) -> None:
    def address(**changes: Any) -> list[dict[str, Any]]:
        made = {"enabled": True, "type": "studio", "studio_flow_sid": fw("a"), **changes}
        return [{"sid": "IG1", "account_sid": AC, "type": "sms", "address": "+1",
                 "auto_creation": made, "date_updated": "2026-01-03T00:00:00Z"}]  # fmt: skip

    sync(connection, FLOWS, [flow("a", "A")], at(1), first=True)
    sync(connection, ADDRESSES, address(), at(2), first=True)
    sync(connection, ADDRESSES, address(enabled=False), at(3))
    sync(connection, ADDRESSES, address(), at(4))
    sync(connection, ADDRESSES, address(type="webhook", webhook_url="https://x.example"), at(5))
    columns = "entity_id, entity_name, change, modified_at, flow_name"
    assert said(connection, columns, at(0)) == [
        ("IG1", "+1", "deleted", stamp(3), "A"),
        ("IG1", "+1", "deleted", stamp(3), "A"),
        ("IG1", "+1", "restored", stamp(3), "A"),
    ]
    check(connection, 3, 4, 5)


def test_each_list_has_its_own_time_from_which_changes_are_news(connection: Connection) -> None:
    """Rebuilding the log of one list leaves what another one of the source has logged."""
    sync(connection, FLOWS, [flow("a", "A")], at(1), first=True)
    sync(connection, FLOWS, [flow("a", "New")], at(2))
    sync(connection, NUMBERS, [number("PN1", "a")], at(3), first=True)
    sync(connection, FLOWS, [flow("a", "Newer")], at(4))
    sync(connection, NUMBERS, [number("PN1", "a"), number("PN2", "a")], at(5))
    sync(connection, ADDRESSES, [], at(6), first=True)
    made = {"enabled": True, "type": "studio", "studio_flow_sid": fw("a")}
    sync(connection, ADDRESSES, [{"sid": "IG1", "account_sid": AC, "auto_creation": made}], at(7))
    assert said(connection, "observed_at, entity, change", at(0)) == [
        (at(2), "flow", "updated"), (at(4), "flow", "updated"),
        (at(5), "entry_point", "created"), (at(7), "entry_point", "created"),
    ]  # fmt: skip
    check(connection, 2, 4, 5, 7)


def test_a_number_in_both_lists_of_alibaba_is_logged_once(connection: Connection) -> None:
    def ivr(*numbers: str) -> dict[str, Any]:
        return {"ContactFlowId": "f", "Name": "IVR", "Type": "MAIN_FLOW", "Published": True,
                "NumberList": [*numbers], "Definition": "",
                "CreatedTime": "2026-01-01 08:00:00.0"}  # fmt: skip

    def line(number: str, to: str = "f") -> dict[str, Any]:
        return {"InstanceId": "ccc", "Number": number, "ContactFlowId": to, "CreateTime": "0"}

    sync(connection, CONTACT_FLOWS, [ivr("1")], at(1), first=True)
    sync(connection, CONTACT_FLOWS, [ivr("1", "2")], at(2))  # nobody read the list of numbers yet
    columns = "entity_id, change, flow_name, account_id"
    assert said(connection, columns, at(2)) == [("2", "created", "IVR", "ccc")]
    sync(connection, LINES, [line("1"), line("2")], at(3), first=True)
    sync(connection, CONTACT_FLOWS, [ivr("1", "2", "3")], at(4))
    sync(connection, LINES, [line("1"), line("2"), line("3")], at(5))
    sync(connection, CONTACT_FLOWS, [ivr("1", "3")], at(6))
    sync(connection, LINES, [line("1"), line("2", ""), line("3")], at(7))
    assert said(connection, f"observed_at, {columns}", at(3)) == [
        (at(5), "3", "created", "IVR", "ccc"),
        (at(7), "2", "deleted", "IVR", "ccc"),
    ]
    check(connection, 2, 4, 5, 6, 7)

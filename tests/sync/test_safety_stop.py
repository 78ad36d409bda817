"""A safety stop names whom it keeps: in its message, in the warehouse, and as values."""

import dataclasses
import random
from collections.abc import Sequence

import pytest
from sqlalchemy import Engine

from etl.config.redact import Redactor
from etl.load.named import Listing, Named
from etl.load.unlisted import Missing
from etl.providers.catalog import STREAMS
from etl.providers.declare import name_sql
from etl.sandbox import alibaba_data, twilio_data
from etl.sandbox.server import Sandbox
from etl.status.missing import missing
from etl.sync.outlook import Outlook
from etl.sync.unlisted import safety_stop
from tests.postgres import ask
from tests.sync.conftest import Starter
from tests.sync.test_incomplete import ZOOM, fill, flow

CONTACT_FLOWS, FLEX_FLOWS = "alibaba_demo.contact_flows", "twilio_demo.flex_flows"


def message(names: Sequence[str | None], total: int = 0) -> str:
    records = [Named((f"id-{number}",), name) for number, name in enumerate(names)]
    listing = Listing(total or len(names), records)
    return safety_stop(listing, 900, "demo.contact_flows", Redactor(["hunter2hunter2"])).what


def test_the_message_names_five_and_says_how_many_more_there_are() -> None:
    assert message("ABCDEFG", 1200).endswith(
        'nothing was removed: "A" (id-0), "B" (id-1), "C" (id-2), "D" (id-3), "E" (id-4), and 1,195'
        " more"
    )
    assert message("ABCDE").endswith('"E" (id-4)')
    assert message("ABCDEF").endswith('"E" (id-4), and 1 more')


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (None, ": id-0"),
        ("", ': "" (id-0)'),
        ("总机 客服", ': "总机 客服" (id-0)'),
        ("a\n\x1b[31mb\u202ec", ': "a ␛[31mb\ufffdc" (id-0)'),
        ("Hotline +49 30 1234567", ': "Hotline …" (id-0)'),
        ("mail anna@example.org", ': "mail …" (id-0)'),
        ("Sales → Billing", ': "Sales -> Billing" (id-0)'),
        ("key hunter2hunter2", ': "key …" (id-0)'),
        ("x" * 500, f': "{"x" * 59}…" (id-0)'),
    ],
)
def test_a_name_in_the_message_is_short_harmless_and_not_personal(
    name: str | None, shown: str
) -> None:
    assert message([name]).endswith(shown)


def test_every_stream_whose_records_people_name_says_how() -> None:
    nameless = {name for name, stream in STREAMS.items() if name_sql(stream) == "NULL::text"}
    assert nameless == {"twilio.channels", "alibaba.phone_numbers"}


@pytest.mark.fault(9)
def test_all_of_them_are_known_until_they_are_listed_again(
    sync: Starter, sandbox: Sandbox, warehouse: str, engine: Engine
) -> None:
    fill(sandbox, 60)
    sandbox.zoom.flows.update("flow-0001", flow_name="总机")
    sandbox.zoom.flows.update("flow-0002", flow_name=None)
    run = sync(sandbox)
    run(ZOOM)
    kept = [sandbox.zoom.flows.get(f"flow-{number:04}") for number in range(20)]
    for each in kept:
        sandbox.zoom.flows.delete(each["flow_id"])
    outlooks: list[Outlook] = []
    stopped = run(ZOOM, on_outlook=outlooks.append)
    assert '"Flow 0" (flow-0000), "Flow 10" (flow-0010)' in str(stopped.error)
    assert "and 15 more → see all of them: `callflow show zoom_demo.flows --missing`" in str(
        stopped.error
    )
    assert ask(warehouse, "SELECT error FROM etl.runs WHERE error IS NOT NULL UNION ALL"
               " SELECT error FROM etl.streams") == [(stopped.error,)] * 2  # fmt: skip
    (outlook,) = outlooks
    assert (outlook.missing.total, outlook.deleted.total) == (20, 0)
    with engine.begin() as connection:
        found = missing(connection, "zoom_demo", STREAMS["zoom.flows"])
    assert [each.id for each in found] == [each.id for each in outlook.missing.records]
    assert [each.name for each in found[-2:]] == ["总机", None]
    assert found[0].modified is not None and found[0].since is not None
    for each in kept:
        sandbox.zoom.flows.add(each)
    assert run(ZOOM).status == "complete"
    with engine.begin() as connection:
        assert missing(connection, "zoom_demo", STREAMS["zoom.flows"]) == []


def test_a_list_without_a_count_is_remembered_and_forgotten_too(
    sync: Starter, sandbox: Sandbox, engine: Engine
) -> None:
    for record in twilio_data.flex_flows(random.Random(1), 40, "AC", "Z"):
        sandbox.twilio.flex_flows.add(record)
    run = sync(sandbox)
    run(FLEX_FLOWS)
    kept = sandbox.twilio.flex_flows.records()[:30]
    for each in kept:
        sandbox.twilio.flex_flows.delete(each["sid"])

    def noted() -> list[Missing]:
        with engine.begin() as connection:
            return missing(connection, "twilio_demo", STREAMS["twilio.flex_flows"])

    assert run(FLEX_FLOWS).error_kind == "safety_stop"
    assert len(noted()) == 30
    for each in kept[:25]:
        sandbox.twilio.flex_flows.add(each)
    again = run(FLEX_FLOWS)
    assert (again.status, again.deleted, noted()) == ("complete", 5, [])


def test_an_id_that_two_instances_have_is_missing_in_one(
    sync: Starter, sandbox: Sandbox, engine: Engine
) -> None:
    for instance, store in sandbox.alibaba.flows.items():
        for number, record in enumerate(alibaba_data.flows(random.Random(1), 30, instance)):
            store.add({**record, "ContactFlowId": f"flow-{number}", "Name": f"Of {instance}"})
    run = sync(sandbox)
    run(CONTACT_FLOWS, full=True)
    one, other = sandbox.alibaba.flows
    for number in range(15):
        sandbox.alibaba.flows[other].delete(f"flow-{number}")
    stopped = run(CONTACT_FLOWS, full=True)
    assert f'"Of {other}" ({other}/flow-0)' in str(stopped.error) and one + "/" not in str(
        stopped.error
    )
    with engine.begin() as connection:
        found = missing(connection, "alibaba_demo", STREAMS["alibaba.contact_flows"])
    assert {each.id for each in found} == {f"{other}/flow-{number}" for number in range(15)}
    assert {each.name for each in found} == {f"Of {other}"}
    outlooks: list[Outlook] = []
    deleted = run(CONTACT_FLOWS, full=True, accept_deletes=True, on_outlook=outlooks.append)
    assert (deleted.deleted, outlooks[0].deleted.total) == (15, 15)
    assert {each.name for each in outlooks[0].deleted.records} == {f"Of {other}"}


def test_ten_thousand_missing_records_are_told_apart_and_counted(
    sync: Starter, sandbox: Sandbox, warehouse: str, engine: Engine
) -> None:
    fill(sandbox, 3)
    run = sync(sandbox)
    run(ZOOM)
    ask(warehouse, "INSERT INTO zoom.flows (source, flow_id, flow_name, valid_from)"
        " SELECT 'zoom_demo', 'more-' || n, 'More ' || n, now() FROM generate_series(1, 10000) n"
        " RETURNING 1")  # fmt: skip
    outlooks: list[Outlook] = []
    stopped = run(ZOOM, on_outlook=outlooks.append)
    assert "and 9,995 more" in str(stopped.error) and len(str(stopped.error)) < 1000
    assert (outlooks[0].missing.total, len(outlooks[0].missing.records)) == (10_000, 100)
    with engine.begin() as connection:
        assert len(missing(connection, "zoom_demo", STREAMS["zoom.flows"])) == 10_000


def test_only_deletes_by_order_are_announced_and_before_they_are_committed(
    sync: Starter, sandbox: Sandbox, warehouse: str
) -> None:
    fill(sandbox, 60)
    run = sync(sandbox)
    run(ZOOM)
    left: list[int] = []
    outlooks: list[Outlook] = []

    def note(outlook: Outlook) -> None:
        outlooks.append(outlook)
        left.append(ask(warehouse, "SELECT count(*) FROM zoom.flows")[0][0])

    sandbox.zoom.flows.delete("flow-0001")
    assert run(ZOOM, on_outlook=note).deleted == 1
    assert outlooks == []
    sandbox.zoom.flows.delete("flow-0002")
    assert run(ZOOM, accept_deletes=True, on_outlook=note).deleted == 1
    assert [each.name for each in outlooks[0].deleted.records] == ["Flow 2"]
    assert left == [59]
    assert dataclasses.asdict(outlooks[0])["dry_run"] is False
    sandbox.zoom.flows.add(flow(2))
    assert run(ZOOM, accept_deletes=True, on_outlook=note).status == "complete"
    assert len(outlooks) == 1

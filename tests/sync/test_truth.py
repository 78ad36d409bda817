"""The main job: every table equals the provider, again after a change, and a third run is quiet."""

from collections.abc import Callable

import pytest

from etl.load.runs import Run
from etl.providers import PROVIDERS
from etl.sandbox import twilio_studio, twilio_studio_data
from etl.sandbox.server import Sandbox
from tests.providers.twilio.expected import live_revision
from tests.sync import truth
from tests.sync.conftest import Sync

pytestmark = pytest.mark.slow

STREAMS = tuple(
    f"{provider.name}_demo.{stream.name}" for provider in PROVIDERS for stream in provider.streams
)


def sync_all(run: Sync) -> dict[str, Run]:
    runs = {name: run(name) for name in STREAMS}
    assert {name: (run.status, run.error) for name, run in runs.items()} == dict.fromkeys(
        STREAMS, ("complete", None)
    )
    return runs


def change(sandbox: Sandbox) -> None:
    """Make some changes of every kind; one channel leaves the list, as closed chats do."""
    zoom = sandbox.zoom.flows
    first, second, third, fourth, *_ = zoom.keys()
    zoom.update(first, flow_name="Neue Hotline ☎", status="archived")
    zoom.update(second, flow_versions=[], entry_points=None)
    zoom.delete(third)
    record = zoom.get(fourth)
    record["entry_points"] = [{"entry_id": "new", "entry_number": "+12125550100"}]
    zoom.update_silently(fourth, **record)
    zoom.add({**record, "flow_id": "-brand_new-", "flow_versions": []})
    flex = sandbox.twilio.flex_flows
    one, two, *_ = flex.keys()
    flex.update(one, enabled=False, integration={"url": "https://hooks.example/x"})
    flex.delete(two)
    sandbox.twilio.channels.delete(sandbox.twilio.channels.keys()[0])
    studio = sandbox.twilio.studio_flows
    one, two, three, four, *_ = studio.keys()
    inside = twilio_studio.revisions(studio.get(one))[-1]["definition"]
    sandbox.twilio.save_draft(one, twilio_studio_data.rewired(inside))
    sandbox.twilio.publish(two, inside)
    studio.update(three, friendly_name="Renamed")
    studio.delete(four)
    addresses, numbers = sandbox.twilio.addresses, sandbox.twilio.phone_numbers
    one, two, *_ = addresses.keys()
    addresses.update(one, auto_creation={"enabled": False, "type": "default"})
    addresses.delete(two)
    one, two, *_ = numbers.keys()
    numbers.update(one, voice_url=studio.get(studio.keys()[0])["webhook_url"], sms_url="")
    numbers.delete(two)
    for store in sandbox.alibaba.flows.values():
        one, two, three, *_ = store.keys()
        store.update(one, Name="改名", NumberList=["4001"])
        store.update(two, Definition='{"activities": []}')
        store.delete(three)
    for store in sandbox.alibaba.phone_numbers.values():
        one, two, *_ = store.keys()
        store.update(one, ContactFlowId="another", SkillGroups=[])
        store.delete(two)


@pytest.mark.every_postgres
def test_every_table_equals_the_provider_before_and_after_a_change(
    sync: Callable[[Sandbox], Sync], full_sandbox: Sandbox, warehouse: str
) -> None:
    run = sync(full_sandbox)

    first = sync_all(run)
    held = truth.stored(warehouse)
    assert held == truth.of(full_sandbox, held)
    assert all(r.inserted == r.records - r.rejected for r in first.values())

    channels = truth.of(full_sandbox)["twilio.channels"]
    change(full_sandbox)
    second = sync_all(run)
    stored = truth.stored(warehouse)
    expected = truth.of(full_sandbox, stored)
    expected["twilio.channels"] = channels  # kept
    for name in stored:
        if name.startswith("alibaba."):  # one run cannot confirm yet that two flows are gone
            assert stored[name] > expected[name] or stored[name] == expected[name]
        else:
            assert stored[name] == expected[name]
    assert {name: (r.inserted, r.updated, r.deleted, r.absent) for name, r in second.items()} == {
        "zoom_demo.flows": (1, 3, 1, 0),
        "twilio_demo.flex_flows": (0, 1, 1, 0),
        "twilio_demo.channels": (0, 0, 0, 0),  # it came newest first: read until nothing was new
        "twilio_demo.studio_flows": (0, 3, 1, 0),
        "twilio_demo.addresses": (0, 1, 1, 0),
        "twilio_demo.phone_numbers": (0, 1, 1, 0),
        "alibaba_demo.contact_flows": (0, 4, 0, 2),
        "alibaba_demo.phone_numbers": (0, 2, 0, 2),
    }

    third = sync_all(run)
    assert truth.stored(warehouse) == expected
    assert third["alibaba_demo.contact_flows"].deleted == 2
    assert third["alibaba_demo.phone_numbers"].deleted == 2
    whole = run("twilio_demo.channels", full=True)
    assert (whole.mode, whole.deleted, whole.absent) == ("full", 0, 1)

    before = truth.versions(warehouse)
    fourth = sync_all(run)
    assert truth.versions(warehouse) == before
    assert {r.rows_written for r in fourth.values()} == {0}
    assert all(r.unchanged > 0 and r.updated == 0 for r in fourth.values())


def test_requests_use_the_largest_pages_and_no_more(
    sync: Callable[[Sandbox], Sync], full_sandbox: Sandbox
) -> None:
    run = sync(full_sandbox)
    runs = sync_all(run)
    studio = full_sandbox.twilio.records()["studio_flows"]
    # A token; and several pages: a second scan proves the first.
    assert runs["zoom_demo.flows"].requests == 1 + 2 * 3
    assert runs["twilio_demo.flex_flows"].requests == 1
    assert runs["twilio_demo.channels"].requests == 3
    assert runs["twilio_demo.addresses"].requests == 2
    assert runs["twilio_demo.phone_numbers"].requests == 1
    assert runs["alibaba_demo.contact_flows"].requests == 2 * 2
    definitions = sum(len({flow["revision"], live_revision(flow)} - {None}) for flow in studio)
    assert runs["twilio_demo.studio_flows"].requests == 1 + len(studio) + definitions
    again = sync_all(run)
    assert again["zoom_demo.flows"].requests == 1 + 3
    assert again["alibaba_demo.contact_flows"].requests == 2
    assert again["twilio_demo.studio_flows"].requests == 1


def test_watermark_is_the_newest_time_of_the_provider(
    sync: Callable[[Sandbox], Sync], full_sandbox: Sandbox
) -> None:
    runs = sync_all(sync(full_sandbox))
    newest = max(flow[-1] for flow in truth.of(full_sandbox)["zoom.flows"] if flow[-1] is not None)
    assert runs["zoom_demo.flows"].watermark_after == newest
    assert sync_all(sync(full_sandbox))["zoom_demo.flows"].watermark_before == newest

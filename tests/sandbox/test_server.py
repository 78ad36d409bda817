"""All emulators together."""

import threading
import time
import tomllib
from typing import Any

import httpx
import pytest

from etl.errors import ConfigError
from etl.sandbox.alibaba_gateway import AccessKey
from etl.sandbox.data import EMPTY, Sizes
from etl.sandbox.server import EMULATORS, Sandbox, run, serve
from etl.sandbox.wire import Clock
from tests.sandbox.clients import alibaba_get, twilio_pages, zoom_pages

SMALL = Sizes(5, 7, {"twilio.flex_flows": 4, "alibaba.contact_flows": 3})


def sources(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    parsed = tomllib.loads(sandbox.toml())["sources"]
    assert isinstance(parsed, dict)
    return parsed


def test_the_toml_has_what_a_client_needs(http: httpx.Client) -> None:
    with serve(SMALL) as sandbox:
        config = sources(sandbox)
        assert list(config) == [f"{each.name}_demo" for each in EMULATORS]
        assert {source["requests_per_second"] for source in config.values()} == {0}
        zoom = config["zoom_demo"]
        assert zoom["provider"] == "zoom"
        answer = http.post(
            zoom["token_url"],
            data={"grant_type": "account_credentials", "account_id": zoom["account_id"]},
            auth=(zoom["client_id"], zoom["client_secret"]),
        )
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        page = http.get(f"{zoom['base_url']}/contact_center/flows", headers=bearer).json()
        assert page["total_records"] == 5
        twilio = config["twilio_demo"]
        assert twilio["provider"] == "twilio"
        assert len(twilio["account_sid"]) == 34
        auth = (twilio["account_sid"], twilio["auth_token"])
        page = http.get(f"{twilio['base_url']}/v1/FlexFlows", auth=auth).json()
        assert len(page["flex_flows"]) == 4
        alibaba = config["alibaba_demo"]
        assert alibaba["provider"] == "alibaba"
        assert alibaba["base_url"] == sandbox.alibaba.url
        assert alibaba["access_key_id"] in sandbox.alibaba.keys
        assert alibaba["access_key_secret"] == sandbox.alibaba.access_key_secret
        assert alibaba["instance_ids"] == list(sandbox.alibaba.flows)
        assert "security_token" not in alibaba


def test_the_toml_has_the_token_of_a_temporary_key() -> None:
    with serve(EMPTY) as sandbox:
        key = AccessKey("secret", security_token="sandbox-sts")
        sandbox.alibaba.keys = {sandbox.alibaba.access_key_id: key}
        alibaba = sources(sandbox)["alibaba_demo"]
    assert (alibaba["access_key_secret"], alibaba["security_token"]) == ("secret", "sandbox-sts")


def test_the_records_are_what_the_lists_return(http: httpx.Client) -> None:
    with serve(SMALL) as sandbox:
        truth = sandbox.records()
        listed = [flow for page in zoom_pages(http, sandbox.zoom) for flow in page]
        assert sorted(listed) == sorted(flow["flow_id"] for flow in truth["zoom"]["flows"])
        for path, stream in (("FlexFlows", "flex_flows"), ("Channels", "channels")):
            sids = [sid for page in twilio_pages(http, sandbox.twilio, path) for sid in page]
            assert sorted(sids) == sorted(row["sid"] for row in truth["twilio"][stream])
        for instance_id in sandbox.alibaba.flows:
            flows = [
                flow
                for flow in truth["alibaba"]["contact_flows"]
                if flow["InstanceId"] == instance_id
            ]
            params = {"InstanceId": instance_id, "PageNumber": "1", "PageSize": "100"}
            page = alibaba_get(http, sandbox.alibaba, "ListContactFlows", **params)
            assert {flow["ContactFlowId"] for flow in page["List"]} == {
                flow["ContactFlowId"] for flow in flows
            }
            assert page["TotalCount"] == len(flows) == 3


def test_several_sandboxes_share_nothing() -> None:
    with serve(EMPTY) as one, serve(EMPTY) as two:
        one.zoom.flows.add({"flow_id": "a"})
        assert two.zoom.records() == {"flows": []}
        assert len({*ports_of(one), *ports_of(two)}) == 2 * len(EMULATORS)


def test_a_clock_may_be_shared_and_otherwise_is_not() -> None:
    clock = Clock(frozen_at=5)
    with serve(EMPTY, clock=clock) as sandbox:
        clock.advance(1)
        assert {each.clock() for each in sandbox.emulators.values()} == {6}
    with serve(EMPTY) as sandbox:
        sandbox.zoom.clock.advance(1000)
        assert sandbox.alibaba.clock() < sandbox.zoom.clock() - 900


def test_run_serves_until_it_is_asked_to_stop(http: httpx.Client) -> None:
    stop, running = threading.Event(), threading.Event()
    announced: list[Sandbox] = []

    def announce(sandbox: Sandbox) -> None:
        announced.append(sandbox)
        running.set()

    thread = threading.Thread(target=run, args=((0,) * len(EMULATORS), SMALL, 1, stop, announce))
    thread.start()
    try:
        assert running.wait(60)
        assert len(twilio_pages(http, announced[0].twilio, "Channels")[0]) == 7
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    with pytest.raises(httpx.ConnectError):
        http.get(announced[0].zoom.url)


def ports_of(sandbox: Sandbox) -> list[int]:
    return [int(each.url.rpartition(":")[2]) for each in sandbox.emulators.values()]


def test_a_taken_port_stops_those_that_had_started() -> None:
    with serve(EMPTY) as before:
        *free, _ = ports_of(before)
    with serve(EMPTY) as first:
        *_, taken = ports_of(first)
        with pytest.raises(ConfigError, match=f"port {taken}"), serve(EMPTY, ports=[*free, taken]):
            pass
    with serve(EMPTY, ports=[*free, 0]) as after:
        assert ports_of(after)[:-1] == free


def test_starting_and_stopping_is_cheap() -> None:
    def once() -> float:
        start = time.perf_counter()
        with serve(SMALL):
            pass
        return time.perf_counter() - start

    assert min(once() for _ in range(10)) < 0.25  # socketserver polls twice a second

"""Which limits a source counts by, and that the runs of one account never overlap."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from etl.config.settings import Settings, Source
from etl.errors import ConfigError
from etl.load.runs import Run
from etl.providers import named
from etl.providers.alibaba.source import AlibabaSource
from etl.providers.declare import streams_of
from etl.providers.twilio.source import TwilioSource
from etl.providers.zoom.source import ZoomSource
from etl.sync.selection import Unit, account, exit_code, host, run_all, select

SECRET = SecretStr("CANARY")
SID = "AC" + 32 * "0"


def zoom(name: str = "z", **given: Any) -> ZoomSource:
    return ZoomSource(
        name=name,
        **{"account_id": "acc", "client_id": "c", "client_secret": SECRET, **given},
    )


def twilio(name: str = "t", **given: Any) -> TwilioSource:
    return TwilioSource(name=name, **{"account_sid": SID, "auth_token": SECRET, **given})


def alibaba(name: str = "a", **given: Any) -> AlibabaSource:
    keys = {"access_key_id": "key", "access_key_secret": SECRET, "instance_ids": ("i",)}
    return AlibabaSource(name=name, **{**keys, **given})


def of(*sources: Source) -> list[Unit]:
    return [
        (source, stream)
        for source in sources
        for stream in streams_of(source, named(source.provider))
    ]


def run_of(unit: Unit, status: Any = "complete") -> Run:
    source, stream = unit
    return Run("id", source.name, stream.name, "full", datetime.now(UTC), status=status)


# --- accounts and hosts --------------------------------------------------------------------------
def test_an_account_is_that_of_the_provider_at_its_api() -> None:
    assert account(zoom()) == "api.zoom.us acc"
    assert account(twilio()) == f"flex-api.twilio.com {SID}"
    assert account(alibaba()) == "ccc.cn-shanghai.aliyuncs.com key"


def test_sources_of_one_account_share_it_whatever_else_differs() -> None:
    assert account(zoom("x", client_id="other")) == account(zoom("y", requests_per_second=1.0))
    assert account(alibaba("x", instance_ids=("i",))) == account(alibaba("y", instance_ids=("j",)))
    assert account(twilio("x")) == account(
        twilio("y", auth_token=None, api_key_sid="SK" + 32 * "0", api_key_secret=SECRET)
    )


def test_different_accounts_differ() -> None:
    assert account(zoom()) != account(zoom(account_id="other"))
    assert account(zoom()) != account(zoom(base_url="https://api.zoom.example/v2"))
    near, far = (alibaba(base_url=f"https://ccc.{name}.example") for name in ("near", "far"))
    assert account(near) != account(far)
    same = {"base_url": "https://gateway.example"}
    assert account(zoom(account_id="x", **same)) != account(zoom(account_id="y", **same))


def test_no_account_contains_a_secret() -> None:
    for source in (zoom(), twilio(), alibaba()):
        assert "CANARY" not in account(source)


def test_a_host_has_its_port_and_no_path() -> None:
    assert host(zoom()) == "api.zoom.us"
    assert host(zoom(base_url="http://127.0.0.1:8000/v2")) == "127.0.0.1:8000"
    assert host(zoom(base_url="https://API.zoom.us/v2")) == "api.zoom.us"


# --- running -------------------------------------------------------------------------------------
def test_runs_of_one_account_are_made_in_turn_and_accounts_side_by_side() -> None:
    units = of(twilio("t1"), zoom("z1"), twilio("t2"), zoom("z2"), alibaba())
    accounts = {account(source) for source, _ in units}
    assert len(accounts) == 3
    together = threading.Barrier(3)
    lock = threading.Lock()
    at_work: Counter[str] = Counter()
    wrong: list[str] = []
    order: list[str] = []

    def run_unit(unit: Unit) -> Run:
        mine = account(unit[0])
        with lock:
            first = not any(name.startswith(unit[0].provider) for name in order)
            order.append(f"{unit[0].provider} {unit[0].name}.{unit[1].name}")
            at_work[mine] += 1
            if at_work[mine] > 1:
                wrong.append(mine)
        if first:
            together.wait(30)  # all three accounts are at work
        with lock:
            at_work[mine] -= 1
        return run_of(unit)

    with ThreadPoolExecutor(8) as executor:
        runs = list(run_all(units, run_unit, executor))
    assert wrong == []
    assert sorted((run.source, run.stream) for run in runs) == sorted(
        (source.name, stream.name) for source, stream in units
    )
    streams = [stream.name for stream in named("twilio").streams]
    assert [name for name in order if name.startswith("twilio")] == [
        f"twilio {source}.{stream}" for source in ("t1", "t2") for stream in streams
    ]


def test_runs_are_yielded_before_all_have_ended() -> None:
    go = threading.Event()

    def run_unit(unit: Unit) -> Run:
        if unit[0].name == "z" or unit[1].name == "phone_numbers":
            assert go.wait(30)
        return run_of(unit)

    with ThreadPoolExecutor(2) as executor:
        units = of(zoom(), alibaba(streams=("contact_flows", "phone_numbers")))
        runs = run_all(units, run_unit, executor)
        assert next(runs).stream == "contact_flows"  # the next one of its account runs on
        go.set()
        assert {(run.source, run.stream) for run in runs} == {
            ("z", "flows"),
            ("a", "phone_numbers"),
        }


def test_an_error_that_is_no_run_is_raised() -> None:
    def run_unit(unit: Unit) -> Run:
        raise KeyError(unit[0].name)

    with ThreadPoolExecutor(2) as executor, pytest.raises(KeyError, match="z"):
        list(run_all(of(zoom()), run_unit, executor))


# --- choosing ------------------------------------------------------------------------------------
def test_streams_are_chosen_by_name_in_the_order_of_the_settings() -> None:
    chosen = twilio(streams=("flex_flows", "channels"))
    settings = Settings(sources={"t": chosen, "z": zoom()})

    def names(*wanted: str) -> list[str]:
        return [f"{source.name}.{stream.name}" for source, stream in select(settings, wanted)]

    assert names() == ["t.flex_flows", "t.channels", "z.flows"]
    assert names("z", "t.channels") == ["t.channels", "z.flows"]
    assert names("t", "t.channels") == ["t.flex_flows", "t.channels"]
    with pytest.raises(ConfigError) as caught:
        names("z.flow", "q", "t")
    assert "'z.flow'; there is no source or stream 'q'" in str(caught.value)
    assert "did you mean z.flows?" in str(caught.value)


@pytest.mark.parametrize(
    ("states", "code"),
    [([], 0), (["complete"], 0), (["complete", "busy"], 75), (["busy", "failed"], 1),
     (["incomplete", "complete"], 1)],
)  # fmt: skip
def test_exit_codes(states: list[str], code: int) -> None:
    runs = [run_of(of(zoom())[0], status) for status in states]
    assert exit_code(runs) == code
    assert exit_code({str(n): run for n, run in enumerate(runs)}) == code

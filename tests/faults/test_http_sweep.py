"""Each request of a sync × each fault of a provider or the network.

Every stream has something to add, to change and to remove. One of its requests (the n-th, for every
n) meets a fault, once or from then on forever. Then the tables hold rows from before or after and
no others, nothing is gone that was not removed at the provider, the run is complete or says why it
is not, and an undisturbed run brings the tables to the provider's state.

`make test` takes the same SAMPLE of the cases each time, so that a failure is about the change at
hand; CALLFLOW_SWEEP=500 draws as many by its seed, CALLFLOW_SWEEP=all takes all of them.
"""

import itertools
import os
import random
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from etl.config import load as config
from etl.load.runs import Run
from etl.providers import PROVIDERS
from etl.providers.catalog import STREAMS as DECLARED
from etl.providers.declare import Stream
from etl.sandbox import data
from etl.sandbox.exchange import JSON, Request, Response, json_response
from etl.sandbox.faults import Fault, empty, html, redirect
from etl.sandbox.server import Sandbox, serve
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import select
from etl.warehouse.connect import connect
from etl.warehouse.embedded import find_binaries
from etl.warehouse.tables import key_columns
from tests.postgres import Cluster
from tests.proxies import Authority, in_tls
from tests.sync import truth
from tests.sync.simulation import HISTORIES

pytestmark = pytest.mark.slow

SAMPLE = 25
SEED = 8919
STREAMS = {
    f"{provider.name}_demo.{stream.name}": provider.name
    for provider in PROVIDERS
    for stream in provider.streams
}
MOST = 14
"""More requests than any of these syncs makes."""

Alter = Callable[[Request, Response], Response]


def said(status: int, body: Any, **headers: str) -> Response:
    return Response(status, json_response(200, body).body, {**JSON, **headers})


def shortened(_: Request, answer: Response) -> Response:
    return Response(answer.status, answer.body[:-7], answer.headers)


def other_type(_: Request, answer: Response) -> Response:
    return Response(answer.status, answer.body, {"Content-Type": "text/plain"})


def damaged_gzip(_: Request, answer: Response) -> Response:
    return Response(200, b"\x1f\x8b\x08" + answer.body[:50], {**JSON, "Content-Encoding": "gzip"})


FAULTS: dict[str, dict[str, Any]] = {
    # --- the network
    "reset at once": {"delivery": "reset_at_once"},
    "reset after the headers": {"delivery": "reset", "cut": 0},
    "reset in the body": {"delivery": "reset"},
    "cut off": {"delivery": "truncated"},
    "cut off without a length": {"delivery": "close_delimited"},
    "silent": {"delay": 60.0},
    "a byte now and then": {"bytes_per_second": 20.0},
    # --- what stands between
    "a page of HTML": {"response": html(200)},
    "a redirect": {"response": redirect("https://login.example/")},
    "moved": {"response": redirect("/elsewhere", 301)},
    "not modified": {"response": empty(304)},
    "an odd status": {"response": said(999, {})},
    "damaged gzip": {"response": damaged_gzip},
    "another content type": {"response": other_type},
    "brotli": {"response": said(200, {}, **{"Content-Encoding": "br"})},
    # --- the provider
    "nothing": {"response": empty(204)},
    "an empty 200": {"response": empty(200)},
    **{f"HTTP {status}": {"response": said(status, {"message": "no"})} for status in
       (400, 401, 403, 404, 405, 408, 409, 410, 418, 429, 500, 501, 502, 503, 504)},
    "HTML 404": {"response": html(404)},
    "HTML 503": {"response": html(503)},
    "429, wait 1 s": {"response": said(429, {}, **{"Retry-After": "1"})},
    "429, wait a day": {"response": said(429, {}, **{"Retry-After": "86400"})},
    "429, wait nonsense": {"response": said(429, {}, **{"Retry-After": "Fri, 99 Nov 99999999999"})},
    "shortened JSON": {"response": shortened},
    "a list": {"response": said(200, [])},
    "a text": {"response": said(200, "x")},
    "null": {"response": said(200, None)},
    "an empty object": {"response": said(200, {})},
    "Zoom's error with 200": {"response": said(200, {"code": 300, "message": "Invalid"})},
    "Twilio's error with 200": {"response": said(200, {"code": 20500, "message": "Oh"})},
    "Alibaba's error with 200": {"response": said(200, {"Code": "InternalError", "Message": "x"})},
    "Alibaba's refusal": {"response": said(400, {"Code": "InvalidAccessKeyId.NotFound"})},
    "a code of its own": {"response": said(200, {"code": 10**30, "Code": 5, "error": [1]})},
    "half JSON": {"response": Response(200, b'{"flows": [', JSON)},
    "garbage": {"response": Response(200, b"\xff\xfe\x00garbage", JSON)},
}  # fmt: skip

HARMLESS = ("another content type",)


@dataclass(frozen=True)
class Case:
    stream: str
    fault: str
    nth: int
    forever: bool

    def __str__(self) -> str:
        often = "forever from" if self.forever else "once at"
        return f"{self.stream}: {self.fault}, {often} request {self.nth}"


def every_case() -> list[Case]:
    return [
        Case(*each)
        for each in itertools.product(STREAMS, FAULTS, range(1, MOST + 1), (False, True))
    ]


class SyncedSandbox:
    """A sandbox, in which faults happen, and the warehouse that is checked."""

    def __init__(self, sandbox: Sandbox, url: str, toml: str, folder: Any) -> None:
        self.sandbox, self.url = sandbox, url
        path = folder / "callflow.toml"
        path.write_text(toml, encoding="utf-8")
        path.chmod(0o600)
        self.settings = config.load(path, {})
        self.engine = connect(url)
        self.number = 0

    def run(self, name: str, *, full: bool = True, **source: Any) -> Run:
        ((settings, stream),) = select(self.settings, [name])
        changed = settings.model_copy(update=source)
        job = Job(self.engine, stream, changed, "test:1:x", full=full, sleep=lambda _: None)
        return run_stream(job)

    def emulator(self, name: str) -> Any:
        return getattr(self.sandbox, STREAMS[name])

    def stores(self, name: str) -> Any:
        of = HISTORIES[STREAMS[name]].stores(self.emulator(name))[name.partition(".")[2]]
        return list(of.values())

    def change_records(self, name: str) -> None:
        """Add a record, change one and delete one."""
        self.number += 1
        for store in self.stores(name):
            one, two, *_ = store.keys()
            kind = HISTORIES[STREAMS[name]].KINDS[name.partition(".")[2]]
            store.update(two, **kind.change(random.Random(self.number), store.get(two)))
            store.add({**store.get(one), kind.key: f"new{self.number:030}"})
            store.delete(one)

    def tables(self, name: str) -> truth.Rows:
        return of_stream(name, truth.stored(self.url))

    def wanted(self, name: str) -> truth.Rows:
        """Return what the tables have to hold."""
        return of_stream(name, truth.of(self.sandbox, truth.stored(self.url)))

    def converge(self, name: str) -> None:
        """Check that undisturbed runs reach the provider's state; Alibaba needs two to confirm."""
        runs = []
        for _ in range(3):
            runs.append(self.run(name))
            found, wanted = self.tables(name), self.wanted(name)
            if STREAMS[name] == "twilio" and name.endswith("channels"):  # closed chats are kept
                found = {table: found[table] & wanted[table] for table in found}
            if runs[-1].status == "complete" and found == wanted:
                return
        raise AssertionError([(run.status, run.error) for run in runs])


def of_stream(name: str, rows: truth.Rows) -> truth.Rows:
    return {table.fullname: rows[table.fullname] for table in declared(name).tables}


def declared(name: str) -> Stream:
    return DECLARED[f"{STREAMS[name]}.{name.partition('.')[2]}"]


@contextmanager
def synced_sandbox(warehouse: str, folder: Any) -> Iterator[SyncedSandbox]:
    sizes = {name: 4 if name == "twilio.studio_flows" else 7 for name in DECLARED}
    with serve(data.Sizes(7, 7, sizes), seed=5) as sandbox:
        sandbox.zoom.largest_page = sandbox.twilio.largest_page = 3
        synced = SyncedSandbox(sandbox, warehouse, sandbox.toml(), folder)
        try:
            for name in STREAMS:
                synced.converge(name)
            yield synced
        finally:
            synced.engine.dispose()


@pytest.fixture(scope="module")
def synced(
    clusters: Callable[[Path], Cluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SyncedSandbox]:
    """Yield one for all tests of this file: each leaves warehouse and provider in agreement."""
    cluster = clusters(find_binaries(os.environ))
    with (
        cluster.database(template=cluster.migrated) as url,
        synced_sandbox(url, tmp_path_factory.mktemp("synced")) as running,
    ):
        yield running


def run_case(synced: SyncedSandbox, case: Case) -> int | None:
    """Run one case; return None if the fault was met, else how many requests the sync made."""
    name = case.stream
    before = synced.tables(name)
    synced.change_records(name)
    seen = itertools.count(1)
    first = next(seen)

    def due(request: Request) -> bool:
        nonlocal first
        number, first = first, first + 1
        return number >= case.nth if case.forever else number == case.nth

    fault = Fault(when=due, times=None, **FAULTS[case.fault])
    emulator = synced.emulator(name)
    emulator.faults.append(fault)
    slow = case.fault in ("silent", "a byte now and then")
    try:
        run = synced.run(name, timeout=0.15 if slow else 10.0)
    finally:
        emulator.faults.remove(fault)
    if fault.fired:
        check_result(synced, case, run, before, synced.wanted(name))
    synced.converge(name)
    return None if fault.fired else first - 1


def check_result(
    synced: SyncedSandbox, case: Case, run: Run, before: truth.Rows, after: truth.Rows
) -> None:
    now, stream = synced.tables(case.stream), declared(case.stream)
    for table, rows in now.items():
        strange = rows - before[table] - after[table]
        assert not strange, f"{case}: {table} has {strange}"
    main = next(iter(now))
    width = 1 + len(key_columns(stream.tables[0]))

    def keys(rows: Any) -> set[Any]:
        return {row[:width] for row in rows}

    lost = (keys(before[main]) & keys(after[main])) - keys(now[main])
    assert not lost, f"{case}: {lost} are gone"
    if run.status == "complete":
        assert run.error is None, case
        assert keys(now[main]) >= keys(after[main]), case
    else:
        assert run.deleted == 0, case
        assert keys(now[main]) >= keys(before[main]), case
        states = {"ended": bool(stream.ended), "not_available": stream.optional}
        is_state = run.status == "not_available" and states[str(run.error_kind)]
        assert is_state or run.status in ("failed", "incomplete"), f"{case}: {run.status}"
        said = str(run.error)
        assert said.startswith(case.stream), f"{case}: {said}"
        assert "internal" not in str(run.error_kind), f"{case}: {said}"
        assert len(said) < 1500 and said.isprintable(), f"{case}: {said}"
        for secret in ("sandbox-zoom-secret", "sandbox-twilio-token", "sandbox-alibaba-secret"):
            assert secret not in said, case
    if case.forever and case.fault not in HARMLESS and case.nth <= 2:
        # The first two requests are those for a token and for a page: no run can do without them.
        assert run.status != "complete", case


@pytest.mark.fault(4, 5, 21, 23, 24, 25, 28, 29)
def test_any_fault_at_any_request(synced: SyncedSandbox, seed: int) -> None:
    cases = every_case()
    asked = os.environ.get("CALLFLOW_SWEEP", str(SAMPLE))
    most = len(cases) if asked == "all" else int(asked)
    random.Random(seed if "CALLFLOW_SWEEP" in os.environ else SEED).shuffle(cases)
    reached, made = 0, dict.fromkeys(STREAMS, MOST)
    for case in cases:
        if case.nth > made[case.stream]:
            continue  # a sync that meets no fault ends before that request
        requests = run_case(synced, case)
        if requests is None:
            reached += 1
        else:
            made[case.stream] = requests
        if reached >= most:
            break
    assert reached >= min(most, SAMPLE)


@pytest.mark.fault(21, 22)
@pytest.mark.parametrize("how", ["refused", "an unknown certificate", "no TLS at all"])
def test_a_provider_that_cannot_be_reached(synced: SyncedSandbox, how: str, tmp_path: Any) -> None:
    authority = Authority(tmp_path)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in STREAMS:
            before = synced.tables(name)
            synced.change_records(name)
            emulator = synced.emulator(name)
            port = int(emulator.url.rpartition(":")[2])
            with in_tls(port, authority.server("127.0.0.1")) as front:
                if how == "refused":
                    base = f"http://127.0.0.1:{closed.getsockname()[1]}"
                else:
                    base = f"https://127.0.0.1:{front if 'certificate' in how else port}"
                moved: dict[str, Any] = {declared(name).origin: base}
                if name.startswith("zoom"):
                    moved["token_url"] = f"{base}/oauth/token"
                run = synced.run(name, **moved)
            assert (run.status, run.deleted, run.inserted, run.updated) == ("failed", 0, 0, 0)
            wanted = {
                "refused": r"cannot connect to 127\.0\.0\.1:\d+: Connection refused",
                "an unknown certificate": r"the certificate of 127\.0\.0\.1 cannot be verified",
                "no TLS at all": r"no TLS connection to 127\.0\.0\.1: ",
            }[how]
            assert re.search(wanted, str(run.error))
            assert re.search("network.(proxy|ca_file)", str(run.error))
            assert synced.tables(name) == before
            synced.converge(name)

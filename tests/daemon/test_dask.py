"""Runs on the workers of a real Dask cluster, of which some die, and so does its scheduler."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Self

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.protocol.pickle import dumps
from sqlalchemy import Engine, make_url

from etl import api
from etl.config import load as config
from etl.config.settings import Settings, secrets
from etl.daemon.dask import Dask
from etl.daemon.dispatch import Dispatch
from etl.errors import ConfigError, StoppedError
from etl.load import lead
from etl.load import lease as leases
from etl.load.lease import Lease, process_name
from etl.load.runs import Run
from etl.sandbox import alibaba_data, data
from etl.sandbox.alibaba_gateway import AccessKey
from etl.sandbox.exchange import Request
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox, serve
from etl.sync.selection import Unit, select
from etl.warehouse.connect import connect
from tests.daemon.conftest import Start
from tests.daemon.processes import free_port, until
from tests.postgres import ask, dsn
from tests.sync import truth

pytestmark = pytest.mark.more

ACCOUNTS, SOURCES, LONG, WORKERS = 32, 40, 8, 8
"""The last eight sources are of the first eight accounts; the first eight have long lists."""


class Gate:
    """Holds back up to `most` requests that match `when`, until it is opened."""

    def __init__(self, when: Callable[[Request], bool], most: int | None = None) -> None:
        self.held: list[str] = []
        self._open = threading.Event()
        self.fault = Fault(when=when, times=most, before_request=self._hold)

    def _hold(self, _: Any, request: Request) -> None:
        self.held.append(request.params["InstanceId"])
        self._open.wait(60)

    def open(self) -> None:
        self._open.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


def instance(number: int) -> str:
    return f"ccc-{number:02}"


def sources(sandbox: Sandbox, numbers: range) -> str:
    """Return one Alibaba source for each number: a separate instance in one of the accounts."""
    lines = []
    for number in numbers:
        key = f"key-{number % ACCOUNTS:02}"
        sandbox.alibaba.keys[key] = AccessKey(f"secret-of-{key}")
        store = sandbox.alibaba.add_instance(instance(number))
        count = 120 if number < LONG else 3 + number % 7
        for flow in alibaba_data.flows(Random(number), count, instance(number)):
            store.add(flow)
        lines.append(
            f'[sources.s{number:02}]\nprovider = "alibaba"\naccess_key_id = "{key}"\n'
            f'access_key_secret = "secret-of-{key}"\ninstance_ids = ["{instance(number)}"]\n'
            f'base_url = "{sandbox.alibaba.url}"\nrequests_per_second = 0\n'
            'streams = ["contact_flows"]\n'
        )
    return "\n".join(lines)


def of_instance(request: Request) -> str:
    return request.params["InstanceId"]


def right(sandbox: Sandbox, url: str) -> None:
    """Assert that the warehouse has each row of the sandbox once, in its first version."""
    expected = {
        table: {(f"s{row[1][-2:]}", *row[1:]) for row in rows}
        for table, rows in truth.of(sandbox).items()
        if table.startswith("alibaba.contact_flow")
    }
    stored = truth.stored(url)
    for table, rows in expected.items():
        assert rows and stored[table] == rows, table
        assert ask(url, f"SELECT count(*) FROM {table}") == [(len(rows),)]
        assert ask(url, f"SELECT FROM history.{table.replace('.', '_')} LIMIT 1") == []


def requests(sandbox: Sandbox) -> list[tuple[str, str]]:
    """Return (access key, instance) of each request, in their order."""
    found = []
    for request in list(sandbox.alibaba.requests):
        key = re.search("Credential=([^,]+)", request.headers["authorization"])
        assert key is not None
        found.append((key[1], of_instance(request)))
    return found


def one_at_a_time(sent: list[tuple[str, str]]) -> int:
    """Assert that sources of one account never overlap; return how many accounts have two."""
    shared = 0
    for account in {each for each, _ in sent}:
        order = [source for each, source in sent if each == account]
        changes = sum(previous != later for previous, later in pairwise(order))
        assert changes == len(set(order)) - 1, (account, order)
        shared += changes
    return shared


def tasks(dask_scheduler: Any) -> dict[str, tuple[str, bytes]]:
    """Map each worker to its tasks: the stream, and what the scheduler was sent."""
    return {
        key: (task.run_spec.args[0], dumps(task.run_spec))
        for key, task in dask_scheduler.tasks.items()
        if task.state == "processing"
    }


def at_work(client: Client) -> dict[str, dict[str, bytes]]:
    """Return worker → stream → the task as the scheduler was sent it."""
    sent = client.run_on_scheduler(tasks)
    return {
        worker: dict(sent[key] for key in keys if key in sent)
        for worker, keys in client.processing().items()
    }


@dataclass
class Fleet:
    """The lead, a dispatcher, and the runs that ended, as in a daemon."""

    settings: Settings
    dask: Dask
    lease: Lease
    ended: list[Run | BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dispatch = Dispatch(self._begin, workers=WORKERS, ended=self._ended)

    def _begin(self, unit: Unit, stop: object) -> "Future[Run]":
        name = f"{unit[0].name}.{unit[1].name}"
        return self.dask.submit(
            api.sync_stream, name, self.settings.path, holder=self.lease.holder, leader=self.lease
        )

    def _ended(self, unit: Unit, outcome: Run | BaseException) -> None:
        self.ended.append(outcome)

    def submit(self) -> "list[Future[None]]":
        """Return all sources, those of one account next to each other."""
        names = sorted(self.settings.sources, key=lambda name: (int(name[1:]) % ACCOUNTS, name))
        return [self.dispatch.submit(select(self.settings, [name])) for name in names]

    def complete(self) -> list[str]:
        runs = [each for each in self.ended if isinstance(each, Run) and each.status == "complete"]
        assert len(runs) == len(self.ended), self.ended
        return sorted(run.source for run in runs)


@contextmanager
def leading(engine: Engine) -> Iterator[Lease]:
    """Yield the lead of a daemon, renewed as a daemon renews it."""
    with engine.begin() as connection:
        lease = lead.take(connection, process_name())
    assert lease is not None
    over = threading.Event()

    def beat() -> None:
        while not over.wait(1.0):
            with engine.begin() as connection:
                leases.renew(connection, lease, lead.TTL)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield lease
    finally:
        over.set()
        thread.join()


@pytest.fixture
def engine(warehouse: str) -> Iterator[Engine]:
    made = connect(warehouse)
    yield made
    made.dispose()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(data.EMPTY) as running:
        running.alibaba.flows.clear()
        yield running


@pytest.fixture
def configured(sandbox: Sandbox, warehouse: str, tmp_path: Path) -> Callable[[range], Settings]:
    def of(numbers: range) -> Settings:
        path = tmp_path / "callflow.toml"
        text = f'[warehouse]\nurl = "{dsn(warehouse)}"\n{sources(sandbox, numbers)}'
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return config.load(path, {})

    return of


@pytest.fixture(scope="module", autouse=True)
def steady() -> Iterator[None]:
    """Dask without what makes a test fail now and then.

    Its profiler brings a Python before 3.12 to a standstill (python/cpython#106883: a deadlock of
    sys._current_frames and the garbage collector). A new worker would be shut out after 15 s; on a
    loaded machine it takes longer.
    """
    with dask.config.set({
        "distributed.worker.profile.enabled": False,
        "distributed.deploy.lost-worker-timeout": "1h",
    }):  # fmt: skip
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=4, processes=True, host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster.scheduler_address, set_as_default=False) as looking_on:
        yield looking_on


def test_runs_of_a_killed_worker_are_made_again_elsewhere(
    cluster: LocalCluster,
    client: Client,
    sandbox: Sandbox,
    configured: Callable[[range], Settings],
    warehouse: str,
    engine: Engine,
) -> None:
    settings = configured(range(SOURCES))
    counted: dict[str, int] = {}

    def second(request: Request) -> bool:
        counted[of_instance(request)] = counted.get(of_instance(request), 0) + 1
        return counted[of_instance(request)] == 2 and int(of_instance(request)[-2:]) < LONG

    with (
        Dask(cluster.scheduler_address) as dask,
        leading(engine) as lease,
        Gate(second) as gate,
    ):
        sandbox.alibaba.faults.append(gate.fault)
        until(lambda: dask.trouble is None, "the cluster is there")
        fleet = Fleet(settings, dask, lease)
        over = fleet.submit()
        until(lambda: len(gate.held) == LONG, "the long lists are being read")
        working = at_work(client)
        assert sum(map(len, working.values())) == WORKERS
        # Secrets are neither what is sent nor anything that it holds.
        everything = b"".join(task for each in working.values() for task in each.values())
        assert b"callflow.toml" in everything and b"s00.contact_flows" in everything
        hidden = {*secrets(settings), str(make_url(warehouse).password)}
        assert len(hidden) == ACCOUNTS + 2
        assert not any(secret.encode() in everything for secret in hidden)

        killed = max(working, key=lambda worker: len(working[worker]))
        (pid,) = (each.pid for each in cluster.workers.values() if each.worker_address == killed)
        os.kill(pid, signal.SIGKILL)
        until(lambda: killed not in client.nthreads(), "the scheduler knows that it is gone")
        gate.open()
        for each in over:
            each.result(60)

    names = sorted(settings.sources)
    assert fleet.complete() == names
    repeated = {name.partition(".")[0] for name in working[killed]}
    assert 0 < len(repeated) <= WORKERS
    runs = ask(warehouse, "SELECT source, status FROM etl.runs ORDER BY source")
    assert runs == [(name, "complete") for name in names]
    # Taking a lease raises its epoch, which therefore counts the starts of a run.
    starts = dict(ask(warehouse, "SELECT source, epoch FROM etl.leases WHERE source <> '*'"))
    assert starts == {name: 2 if name in repeated else 1 for name in names}
    right(sandbox, warehouse)
    assert one_at_a_time(requests(sandbox)) == SOURCES - ACCOUNTS


def until_there(path: Path) -> int:
    until(path.exists, f"{path} is there")
    return 7


def test_an_exception_of_a_run_is_returned_to_the_caller(
    cluster: LocalCluster,
    configured: Callable[[range], Settings],
    warehouse: str,
    engine: Engine,
) -> None:
    settings = configured(range(1))
    with engine.begin() as connection:
        lease = lead.take(connection, process_name())
        assert lease is not None
        leases.release(connection, lease)
    with Dask(cluster.scheduler_address) as dask:
        until(lambda: dask.trouble is None, "the cluster is there")
        submit = partial(dask.submit, api.sync_stream, holder="h", leader=lease)
        stopped = submit("s00.contact_flows", settings.path).exception(60)
        assert isinstance(stopped, StoppedError) and "does not lead" in str(stopped)
        wrong = submit("s99.contact_flows", settings.path).exception(60)
        assert isinstance(wrong, ConfigError) and "s99.contact_flows" in wrong.what
    assert ask(warehouse, "SELECT FROM etl.runs") == []
    with pytest.raises(StoppedError, match="closed"):
        dask.submit(int)


def test_without_a_worker_nothing_starts_and_a_call_that_is_cancelled_in_time_never_does(
    tmp_path: Path,
) -> None:
    with (
        LocalCluster(
            n_workers=0, processes=True, threads_per_worker=1, host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Dask(cluster.scheduler_address) as dask,
    ):  # fmt: skip
        until(lambda: "no worker" in (dask.trouble or ""), "it says so")
        with pytest.raises(StoppedError, match="no worker"):
            dask.submit(int)
        cluster.scale(1)
        until(lambda: dask.trouble is None, "a worker came")
        assert dask.submit(int, "7").result(60) == 7
        let_go, made = tmp_path / "let_go", tmp_path / "made"
        busy, waiting = dask.submit(until_there, let_go), dask.submit(made.touch)
        assert waiting.cancel()
        let_go.touch()
        assert busy.result(60) == dask.submit(int, "7").result(60) == 7
        assert not made.exists()


CLUSTER = """
import sys
from distributed import LocalCluster
with LocalCluster(n_workers=1, threads_per_worker=4, processes=False, protocol="tcp://",
                  host="127.0.0.1", scheduler_port=int(sys.argv[1]),
                  dashboard_address="127.0.0.1:0"):
    sys.stdin.read()
"""


WITHOUT = """
import sys
sys.modules["distributed"] = None
from etl.errors import ConfigError
from etl.daemon.dask import Dask
try:
    Dask("tcp://127.0.0.1:1")
except ConfigError as error:
    print(error)
"""


def test_without_the_extra_it_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("daemon.executor:")
    assert "pip install '/path/to/callflow[dask]'" in done.stdout


@contextmanager
def cluster_at(port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield a scheduler with a worker, in a process that is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(port)],
        stdin=subprocess.PIPE,
        env=os.environ | {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_a_daemon_waits_for_its_cluster_and_goes_on_when_it_is_back(
    sandbox: Sandbox, warehouse: str, start: Start
) -> None:
    text, port = sources(sandbox, range(3)), free_port()
    address = f"tcp://127.0.0.1:{port}"
    options = f'executor = "dask"\ndask_scheduler = "{address}"'

    def notes() -> Any:
        return daemon.status()["notes"]

    def held() -> bool:
        return len(gate.held) == 3

    with Gate(lambda request: request.params["PageNumber"] != "1", most=3) as gate:
        sandbox.alibaba.faults.append(gate.fault)
        daemon = start(text, every="1h", daemon=options)
        until(lambda: any("no Dask scheduler" in note for note in notes()), "it says so", daemon)
        with cluster_at(port):
            until(held, "the lists are being read", daemon)
            assert notes() == []
            with Client(address, set_as_default=False) as client:
                (working,) = at_work(client).values()
            assert set(working) == {f"s{number:02}.contact_flows" for number in range(3)}
            everything = b"".join(working.values())
            assert b".toml" in everything and b"secret-of" not in everything
        until(lambda: any(address in note for note in notes()), "it says so", daemon)
        until(
            lambda: not any(each["running_since"] for each in daemon.status()["streams"]),
            "it does not wait for runs that no worker makes", daemon,
        )  # fmt: skip
        assert ask(warehouse, "SELECT FROM etl.runs") == []
        assert ask(warehouse, "SELECT FROM alibaba.contact_flows") == []
    with cluster_at(port):
        daemon.ran(3, status="complete")
        right(sandbox, warehouse)
        assert ask(warehouse, "SELECT status FROM etl.runs") == [("complete",)] * 3
        until(lambda: notes() == [], "nothing is left to say", daemon)
        daemon.kill(signal.SIGTERM)
        assert daemon.ended() == 0
    assert "Traceback" not in daemon.output and "secret-of" not in daemon.output


def test_a_scheduler_that_is_slow_to_answer_loses_no_run(
    sandbox: Sandbox, warehouse: str, start: Start
) -> None:
    text, port = sources(sandbox, range(2)), free_port()
    options = f'executor = "dask"\ndask_scheduler = "tcp://127.0.0.1:{port}"'
    with (
        cluster_at(port) as slow,
        Gate(lambda request: request.params["PageNumber"] != "1", most=2) as gate,
    ):
        sandbox.alibaba.faults.append(gate.fault)
        daemon = start(text, every="1h", daemon=options)
        until(lambda: len(gate.held) == 2, "the lists are being read", daemon)
        slow.send_signal(signal.SIGSTOP)
        until(lambda: "does not answer" in str(daemon.status()["notes"]), "it says so", daemon)
        slow.send_signal(signal.SIGCONT)
        until(lambda: daemon.status()["notes"] == [], "it answers again", daemon)
        gate.open()
        daemon.ran(2, status="complete")
        daemon.kill(signal.SIGTERM)
        assert daemon.ended() == 0
    right(sandbox, warehouse)
    # A source that is planned again while its round ends may run once more, for what changed since.
    first = "SELECT status FROM etl.runs WHERE mode = 'full'"
    assert ask(warehouse, first) == [("complete",)] * 2
    assert ask(warehouse, "SELECT DISTINCT status FROM etl.runs") == [("complete",)]


def test_a_daemon_that_stops_leaves_no_run_behind_that_writes(
    sandbox: Sandbox, warehouse: str, start: Start
) -> None:
    text, port = sources(sandbox, range(2)), free_port()
    address = f"tcp://127.0.0.1:{port}"
    options = f'executor = "dask"\ndask_scheduler = "{address}"\nstop_deadline = "7s"'
    with cluster_at(port):
        with Gate(lambda request: request.params["PageNumber"] != "1", most=2) as gate:
            sandbox.alibaba.faults.append(gate.fault)
            daemon = start(text, every="1h", daemon=options)
            until(lambda: len(gate.held) == 2, "the lists are being read", daemon)
            daemon.kill(signal.SIGTERM)
            assert daemon.ended() == 0
        with Client(address, set_as_default=False) as client:
            until(lambda: not any(at_work(client).values()), "the runs came to their end")
    assert ask(warehouse, "SELECT FROM etl.runs") == []
    assert ask(warehouse, "SELECT FROM alibaba.contact_flows") == []


def test_a_configuration_that_workers_do_not_find_is_reported(
    sandbox: Sandbox, warehouse: str, start: Start
) -> None:
    text, port = sources(sandbox, range(2)), free_port()
    options = f'executor = "dask"\ndask_scheduler = "tcp://127.0.0.1:{port}"'
    with cluster_at(port):
        daemon = start(text, daemon=options)
        daemon.ran(2, status="complete")
        elsewhere = daemon.path.rename(daemon.path.with_suffix(".moved"))
        failed = daemon.ran(1, status="failed")[0]
        assert str(daemon.path) in failed["error"] and failed["error_kind"] == "config"
        problem = until(lambda: daemon.stream("s00.contact_flows")["problem"], "it shows", daemon)
        assert str(daemon.path) in problem
        elsewhere.rename(daemon.path)
        ended = len(daemon.runs(status="complete"))
        daemon.ran(ended + 2, status="complete")
        right(sandbox, warehouse)
        daemon.kill(signal.SIGTERM)
        assert daemon.ended() == 0


def test_with_a_cluster_the_warehouse_cannot_be_the_embedded_one(tmp_path: Path) -> None:
    path = tmp_path / "callflow.toml"
    path.write_text(
        '[daemon]\nexecutor = "dask"\ndask_scheduler = "tcp://127.0.0.1:1"\n'
        '[sources.zoom_eu]\nprovider = "zoom"\naccount_id = "a"\nclient_id = "b"\n'
        'client_secret_file = "secret"\n',
        encoding="utf-8",
    )
    (tmp_path / "secret").write_text("c", encoding="utf-8")
    (tmp_path / "secret").chmod(0o600)
    command = [sys.executable, "-m", "etl", "daemon", "--config", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "warehouse.url: missing" in ended.stderr and "Traceback" not in ended.stderr

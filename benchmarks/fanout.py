"""Measure how long many sources take, on one thread, on eight, and on two Dask workers.

    pip install -e '.[dask,embedded]'
    python benchmarks/fanout.py [--sources 40 200] [--latency 0.15] [--flows 20]

Each source is a separate Alibaba account with one instance; the sandbox (another process, on
loopback) answers every request after `--latency` seconds. The benchmark runs each source once with
the daemon's dispatcher, into an embedded Postgres with its ordinary settings, and measures from the
start of the first run to the end of the last: for the first load into an empty database, and for
one more run when nothing has changed. All accounts share one host, so `workers` of [daemon] limits
the concurrent runs; it is set to the number of the executor's threads. The Dask workers are two
processes with `--threads` threads each, started and warmed up beforehand.

`waiting` is the least time possible: the latency of all requests of a run without changes, divided
by the concurrent runs. Any time above it is work of Python and Postgres on the same cores.
"""

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from psycopg import sql
from rich import box
from rich.console import Console
from rich.table import Table

from etl import api
from etl.config import load as config
from etl.config.settings import Settings
from etl.daemon.dask import Dask
from etl.daemon.dispatch import Dispatch
from etl.daemon.executors import Threads
from etl.load import lead
from etl.load import lease as leases
from etl.load.lease import Lease, process_name
from etl.load.runs import Run
from etl.sandbox import alibaba_data, data
from etl.sandbox.alibaba_gateway import AccessKey
from etl.sandbox.faults import Fault
from etl.sandbox.server import serve
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import Unit, select
from etl.warehouse import embedded, migrate
from etl.warehouse.connect import connect

SPAWN = multiprocessing.get_context("spawn")


def provider(line: Connection, sources: int, flows: int, latency: float) -> None:
    """Serve the sandbox: send its URL over `line`, and end when the other end is closed."""
    with serve(data.EMPTY, keep_requests=10) as sandbox:
        for number in range(sources):
            sandbox.alibaba.keys[f"key-{number}"] = AccessKey("secret")
            store = sandbox.alibaba.add_instance(f"ccc-{number}")
            for flow in alibaba_data.flows(Random(number), flows, f"ccc-{number}"):
                store.add(flow)
        sandbox.alibaba.faults.append(Fault(delay=latency, times=None))
        line.send(sandbox.alibaba.url)
        line.poll(None)


@contextmanager
def providing(sources: int, flows: int, latency: float) -> Iterator[str]:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=provider, args=(theirs, sources, flows, latency))
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join()


def configured(path: Path, warehouse: str, url: str, sources: int) -> Settings:
    lines = [f'[warehouse]\nurl = "{warehouse}"\n']
    lines += [
        f'[sources.s{number}]\nprovider = "alibaba"\naccess_key_id = "key-{number}"\n'
        f'access_key_secret = "secret"\ninstance_ids = ["ccc-{number}"]\nbase_url = "{url}"\n'
        "requests_per_second = 0\n"
        for number in range(sources)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    path.chmod(0o600)
    return config.load(path, {})


def new_database(server: embedded.Server, name: str) -> str:
    admin = server.url("postgres").replace("+psycopg", "")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate.upgrade(server.url(name))
    return server.url(name)


@contextmanager
def leading(engine: Any) -> Iterator[Lease]:
    """Take the lead, and renew it as a daemon does."""
    with engine.begin() as connection:
        lease = lead.take(connection, process_name())
    assert lease is not None
    over = threading.Event()

    def beat(lease: Lease) -> None:
        while not over.wait(lead.TTL.total_seconds() / 4):
            with engine.begin() as connection:
                leases.renew(connection, lease, lead.TTL)

    thread = threading.Thread(target=beat, args=(lease,))
    thread.start()
    try:
        yield lease
    finally:
        over.set()
        thread.join()


def measure(
    settings: Settings, warehouse: str, at_once: int, dask: Dask | None
) -> tuple[float, float, int]:
    """Return seconds of all first runs, seconds of all second runs, requests of the second runs."""
    runs: list[Run] = []

    def ended(unit: Unit, outcome: Run | BaseException) -> None:
        if not isinstance(outcome, Run) or outcome.status != "complete":
            print(unit[0].name, outcome)
        else:
            runs.append(outcome)

    engine = connect(warehouse, most=None)
    with leading(engine) as lease:
        threads = Threads()

        def launch(unit: Unit, stop: threading.Event) -> "Future[Run]":
            if dask is not None:
                name, path = f"{unit[0].name}.{unit[1].name}", settings.path
                return dask.submit(api.sync_stream, name, path, holder=lease.holder, leader=lease)
            return threads.submit(
                run_stream, Job(engine, unit[1], unit[0], lease.holder, leader=lease)
            )

        dispatch = Dispatch(launch, workers=at_once, ended=ended)
        took: list[float] = []
        for _ in range(2):
            runs.clear()
            start = time.monotonic()
            for each in [dispatch.submit(select(settings, [name])) for name in settings.sources]:
                each.result()
            took.append(time.monotonic() - start)
            assert len(runs) == len(settings.sources), "not all runs are complete"
    engine.dispose()
    return took[0], took[1], sum(run.requests for run in runs)


@contextmanager
def cluster(threads: int, warm: Callable[[Dask], None]) -> Iterator[Dask]:
    import dask.config
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),  # docs/scale.md says why
        LocalCluster(
            n_workers=2, threads_per_worker=threads, processes=True, host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as running,
        Dask(running.scheduler_address) as dask,
    ):  # fmt: skip
        warm(dask)
        yield dask


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sources", type=int, nargs="+", default=[40, 200])
    options.add_argument("--latency", type=float, default=0.15, help="seconds per request")
    options.add_argument("--flows", type=int, default=20, help="contact flows of each source")
    options.add_argument("--threads", type=int, default=4, help="threads of each Dask worker")
    given = options.parse_args()
    heads = ("sources", "on", "first load", "times as fast", "again", "times as fast", "waiting")
    table = Table(*heads, box=box.MARKDOWN)
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        server = embedded.start(folder / "postgres")
        stack.callback(embedded.stop, server.data_dir)
        most = max(*given.sources, 4 * given.threads)
        url = stack.enter_context(providing(most, given.flows, given.latency))
        count = 0

        def prepared(sources: int) -> tuple[Settings, str]:
            nonlocal count
            count += 1
            warehouse = new_database(server, f"fanout_{count}")
            plain = warehouse.replace("+psycopg", "")
            return configured(folder / f"{count}.toml", plain, url, sources), warehouse

        def warm(dask: Dask) -> None:
            settings, warehouse = prepared(4 * given.threads)
            measure(settings, warehouse, 2 * given.threads, dask)

        dask = stack.enter_context(cluster(given.threads, warm))
        measure(*prepared(1), 1, None)
        ways = [
            ("1 thread", 1, None),
            ("8 threads", 8, None),
            (f"2 Dask workers of {given.threads} threads", 2 * given.threads, dask),
        ]
        for sources in given.sources:
            one: tuple[float, float] | None = None
            for way, at_once, executor in ways:
                first, again, requests = measure(*prepared(sources), at_once, executor)
                one = one or (first, again)
                table.add_row(
                    str(sources), way, f"{first:.1f}", f"{one[0] / first:.1f}", f"{again:.1f}",
                    f"{one[1] / again:.1f}", f"{requests * given.latency / at_once:.1f}",
                )  # fmt: skip
                print(f"{sources} sources, {way}: {first:.1f} s, {again:.1f} s", flush=True)
    Console(width=120).print(table)
    print(
        f"Seconds; {given.latency * 1000:.0f} ms per request, {given.flows} flows per source; "
        f"{os.cpu_count()} cores, load average {before[0]:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after"
    )


if __name__ == "__main__":
    main()

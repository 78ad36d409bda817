"""callflow from Python, for orchestrators: `streams()` to map over, `sync(name)` as a task.

    from etl import api

    for name in api.streams():            # "zoom_eu.flows", …
        for run in api.sync(name):        # never raises for what a provider or Postgres does
            print(run.status, run.records)

Settings come from the configuration file and the environment, as for the commands: arguments never
hold a secret, so a task's arguments may be stored, logged and sent to other machines.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from etl import config as configuration
from etl import query
from etl.health import StreamHealth
from etl.job import Job
from etl.load.lease import Lease, process_name
from etl.load.runs import Run
from etl.sync import run_stream
from etl.units import exit_code, select
from etl.warehouse import connect, database_url

__all__ = ["Run", "StreamHealth", "exit_code", "sources", "status", "streams", "sync"]


def sources(config: Path | None = None, *, env: Mapping[str, str] = os.environ) -> list[str]:
    """The names of the configured sources. Raises ConfigError."""
    return list(configuration.load(config, env).sources)


def streams(config: Path | None = None, *, env: Mapping[str, str] = os.environ) -> list[str]:
    """Every stream as "source.stream", in the configuration's order. Raises ConfigError."""
    settings = configuration.load(config, env)
    return [f"{source.name}.{stream.name}" for source, stream in select(settings, [])]


def sync(
    name: str,
    config: Path | None = None,
    *,
    full: bool = False,
    accept_deletes: bool = False,
    env: Mapping[str, str] = os.environ,
    holder: str | None = None,
    leader: Lease | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Run]:
    """Run a stream ("source.stream"), or a source's streams in turn; return their runs.

    What a provider or Postgres does is in the runs' `status` ("complete", "incomplete", "failed",
    "busy") and `error`; `exit_code(runs)` sums it up. The schema must be there (`callflow
    migrate`). `full` and `accept_deletes` are those of `callflow sync`; `stopped` is asked twice a
    second whether to end. `holder` and `leader` are a daemon's, for runs on other machines.

    Raises ConfigError for a wrong configuration or name, StoppedError when it was to stop, or the
    daemon of `leader` does not lead any more.
    """
    settings = configuration.load(config, env)
    engine = connect(database_url(settings, env))
    try:
        return [
            run_stream(
                Job(
                    engine,
                    stream,
                    source,
                    holder or process_name(),
                    accept_deletes,
                    full,
                    leader,
                    stopped=stopped,
                )
            )
            for source, stream in select(settings, [name])
        ]
    finally:
        engine.dispose()


def sync_stream(name: str, config: Path | None, *, holder: str, leader: Lease) -> Run:
    """What a daemon sends to other machines: one stream, which they read the settings of."""
    (run,) = sync(name, config, holder=holder, leader=leader)
    return run


def status(
    config: Path | None = None, *, env: Mapping[str, str] = os.environ
) -> tuple[StreamHealth, ...]:
    """The state of every stream. Raises ConfigError and WarehouseError."""
    settings = configuration.load(config, env)
    engine = connect(database_url(settings, env))
    try:
        return query.status(engine, settings)
    finally:
        engine.dispose()

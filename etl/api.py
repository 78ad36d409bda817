"""callflow from Python, for orchestrators: `streams()` to map over, `sync(name)` as a task.

    from etl import api

    for name in api.streams():                # "zoom_eu.flows", …
        for run in api.sync(name):            # raises nothing for what a provider or Postgres does
            print(run.status, run.error)      # "failed", "zoom_eu.flows: … → what to do now"
            store(api.summary(run))           # a dict as JSON has it

Settings come from the configuration file and the environment, as for the commands, on the machine
that calls: no argument is a secret, so a task's arguments may be stored, logged and sent about.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from etl.config import load as configuration
from etl.config.redact import Redactor
from etl.config.settings import Settings, redactor
from etl.load.lease import Lease, process_name
from etl.load.runs import Run
from etl.status import query, show
from etl.status.health import StreamHealth
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import exit_code, name_of, select
from etl.warehouse.connect import connect, database_url

__all__ = ["Run", "StreamHealth", "exit_code", "sources", "status", "streams", "summary", "sync"]

Config = str | os.PathLike[str] | None
"""Path of the configuration file; None: $CALLFLOW_CONFIG, else ./callflow.toml, as `callflow`."""

LATELY = 5.0
"""Seconds for which a worker of a daemon holds its settings for those of now."""


def sources(config: Config = None, *, env: Mapping[str, str] = os.environ) -> list[str]:
    """The names of the configured sources, in the configuration's order. Raises ConfigError."""
    return list(_settings(config, env).sources)


def streams(config: Config = None, *, env: Mapping[str, str] = os.environ) -> list[str]:
    """Every stream as "source.stream", in the configuration's order. Raises ConfigError."""
    return [name_of(unit) for unit in select(_settings(config, env), [])]


def sync(
    name: str,
    config: Config = None,
    *,
    full: bool = False,
    accept_deletes: bool = False,
    env: Mapping[str, str] = os.environ,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Run]:
    """Run a stream ("source.stream"), or a source's streams in turn; return their runs.

    What a provider or Postgres does is in the runs' `status` ("complete", "incomplete", "failed",
    "busy": another run is at it) and `error`; `exit_code(runs)` sums it up. The schema must be
    there (`callflow migrate`). `full` and `accept_deletes` are those of `callflow sync`; `stopped`
    is asked twice a second whether to end.

    A provider's limits are per account, and nothing here knows of another process: run one stream
    of an account at a time.

    Raises ConfigError for a wrong configuration or name, EmbeddedError when the embedded Postgres
    cannot be started, and StoppedError when it was to stop.
    """
    settings = _settings(config, env)
    options: dict[str, Any]
    options = {"full": full, "accept_deletes": accept_deletes, "stopped": stopped}
    options["redact"] = redactor(settings)
    return _run(settings, name, env, process_name(), **options)


def sync_stream(name: str, config: Path | None, *, holder: str, leader: Lease) -> Run:
    """What a daemon sends to other machines: one stream, which they read the settings of.

    They read them anew every LATELY seconds: to judge the settings of 200 sources takes as long as
    a run that finds nothing new. Raises ConfigError, and StoppedError when the daemon does not lead
    any more.
    """
    settings, redact = _lately(config, int(time.monotonic() / LATELY))
    (run,) = _run(settings, name, os.environ, holder, redact=redact, leader=leader)
    return run


def status(config: Config = None, *, env: Mapping[str, str] = os.environ) -> list[StreamHealth]:
    """The state of every stream, and of those that were synced once and are configured no more.

    Raises ConfigError, EmbeddedError and WarehouseError.
    """
    settings = _settings(config, env)
    engine = connect(database_url(settings, env))
    try:
        return list(query.status(engine, settings).streams)
    finally:
        engine.dispose()


def summary(told: Run | StreamHealth) -> dict[str, Any]:
    """What `callflow sync --json` or `callflow status --json` tells of it, as JSON can hold it.

    Times are ISO 8601 texts in UTC, lengths of time seconds. None of it is a secret.
    """
    line = show.run_json(told) if isinstance(told, Run) else show.stream_json(told)
    found: dict[str, Any] = json.loads(line)
    return found


def _settings(config: Config, env: Mapping[str, str]) -> Settings:
    return configuration.load(None if config is None else Path(config), env)


@lru_cache(maxsize=1)
def _lately(config: Path | None, period: int) -> tuple[Settings, Redactor]:
    settings = _settings(config, os.environ)
    return settings, redactor(settings)


def _run(
    settings: Settings, name: str, env: Mapping[str, str], holder: str, **options: Any
) -> list[Run]:
    units = select(settings, [name])
    engine = connect(database_url(settings, env))
    try:
        return [
            run_stream(Job(engine, stream, source, holder, **options)) for source, stream in units
        ]
    finally:
        engine.dispose()

"""callflow from Python, for orchestrators: `streams()` to map over, `sync(name)` as a task.

    from etl import api

    for name in api.streams():                # "zoom_eu.flows", …
        for run in api.sync(name):            # errors of a provider or of Postgres are in the run
            print(run.status, run.error)      # "failed", "zoom_eu.flows: … → what to do now"
            store(api.summary(run))           # a dict of JSON's types

Settings come from the configuration file and the environment of the machine that calls, as for the
commands. No argument is a secret, so an orchestrator can store, log and send a task's arguments.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from etl.config import load as configuration
from etl.config.redact import Redactor
from etl.config.settings import Settings, redactor
from etl.load.lease import Lease, process_name
from etl.load.runs import Run
from etl.status import documents, queries
from etl.status.health import StreamHealth
from etl.sync.job import Job
from etl.sync.outlook import Outlook
from etl.sync.run import run_stream
from etl.sync.selection import exit_code, name_of, select
from etl.warehouse.connect import connect, database_url

__all__ = ["Outlook", "Run", "StreamHealth", "exit_code", "sources", "status", "streams", "summary",
           "sync"]  # fmt: skip

Config = str | os.PathLike[str] | None
"""Path of the configuration file. None means $CALLFLOW_CONFIG, else ./callflow.toml."""

SETTINGS_CACHE_SECONDS = 5.0
"""How long, in seconds, a worker of a daemon caches the settings."""


def sources(config: Config = None, *, env: Mapping[str, str] = os.environ) -> list[str]:
    """Return the configured sources' names, in the configuration's order. Raises ConfigError."""
    return list(_settings(config, env).sources)


def streams(config: Config = None, *, env: Mapping[str, str] = os.environ) -> list[str]:
    """Return every stream as "source.stream", in the same order. Raises ConfigError."""
    return [name_of(unit) for unit in select(_settings(config, env), [])]


def sync(
    name: str,
    config: Config = None,
    *,
    full: bool = False,
    accept_deletes: bool = False,
    dry_run: bool = False,
    on_outlook: Callable[[str, Outlook], None] = lambda name, outlook: None,
    env: Mapping[str, str] = os.environ,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Run]:
    """Run a stream ("source.stream"), or a source's streams in turn; return their runs.

    Errors of a provider or of Postgres do not raise. They are in the runs' `error` and `status`:
    "complete", "incomplete", "failed", "busy" if another run is syncing the stream, or
    "not_available" if there is nothing to read and nothing failed. `exit_code(runs)` sums them up.
    The schema must exist (`callflow migrate`).

    `full`, `accept_deletes` and `dry_run` are those of `callflow sync`. `on_outlook` is called with
    a stream's name and what is about to become of its records (`Job.on_outlook`); `summary` takes
    it. `stopped` is called about twice a
    second; when it returns True, the run ends.

    A provider's limits are per account, and other processes are not taken into account: run one
    stream of an account at a time.

    Raises ConfigError for a wrong configuration or name, EmbeddedError if the embedded Postgres
    cannot be started, and StoppedError if `stopped` ended the run.
    """
    settings = _settings(config, env)
    options: dict[str, Any]
    options = {"full": full, "accept_deletes": accept_deletes, "stopped": stopped}
    options |= {"dry_run": dry_run, "redact": redactor(settings)}
    return _run(settings, name, env, process_name(), on_outlook, **options)


def sync_stream(name: str, config: Path | None, *, holder: str, leader: Lease) -> Run:
    """Run one stream on a worker of a daemon, with this machine's settings.

    The settings are read again every SETTINGS_CACHE_SECONDS: to validate those of 200 sources
    takes as long as a run that finds nothing new.

    Raises ConfigError, and StoppedError if the daemon no longer leads.
    """
    settings, redact = _cached_settings(config, int(time.monotonic() / SETTINGS_CACHE_SECONDS))
    (run,) = _run(settings, name, os.environ, holder, redact=redact, leader=leader)
    return run


def status(config: Config = None, *, env: Mapping[str, str] = os.environ) -> list[StreamHealth]:
    """Return the state of every stream that is configured or was ever synced.

    Raises ConfigError, EmbeddedError and WarehouseError.
    """
    settings = _settings(config, env)
    engine = connect(database_url(settings, env))
    try:
        return list(queries.status(engine, settings, redactor(settings)).streams)
    finally:
        engine.dispose()


def summary(of: Run | StreamHealth, outlook: Outlook | None = None) -> dict[str, Any]:
    """Return what `callflow sync --json` or `callflow status --json` prints about it, as a dict.

    Of a run, the lists of records that it prints are those of `outlook`; None leaves them out.
    Times are ISO 8601 texts in UTC, lengths of time are seconds. None of it is a secret.
    """
    line = documents.run_json(of, outlook) if isinstance(of, Run) else documents.stream_json(of)
    found: dict[str, Any] = json.loads(line)
    return found


def _settings(config: Config, env: Mapping[str, str]) -> Settings:
    return configuration.load(None if config is None else Path(config), env)


@lru_cache(maxsize=1)
def _cached_settings(config: Path | None, period: int) -> tuple[Settings, Redactor]:
    settings = _settings(config, os.environ)
    return settings, redactor(settings)


def _run(
    settings: Settings,
    name: str,
    env: Mapping[str, str],
    holder: str,
    on_outlook: Callable[[str, Outlook], None] = lambda name, outlook: None,
    **options: Any,
) -> list[Run]:
    units = select(settings, [name])
    engine = connect(database_url(settings, env))
    try:
        jobs = [Job(engine, stream, source, holder, **options) for source, stream in units]
        return [run_stream(replace(job, on_outlook=partial(on_outlook, job.name))) for job in jobs]
    finally:
        engine.dispose()

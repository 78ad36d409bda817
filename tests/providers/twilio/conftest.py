"""The sandbox's Twilio, and runs of its Studio flows into a real warehouse."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from etl.config import load as config
from etl.load.runs import Run
from etl.sandbox.twilio import Twilio
from etl.sandbox.wire import serving
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import select

Sync = Callable[[], Run]


@pytest.fixture
def engine(emptied: Engine) -> Engine:
    return emptied


@pytest.fixture
def url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture
def twilio() -> Iterator[Twilio]:
    emulator = Twilio()
    with serving(emulator):
        yield emulator


@pytest.fixture
def job(twilio: Twilio, engine: Engine, tmp_path: Path) -> Job:
    path = tmp_path / "callflow.toml"
    path.touch(mode=0o600)
    path.write_text(
        f'[sources.tw]\nprovider = "twilio"\naccount_sid = "{twilio.account_sid}"\n'
        f'auth_token = "{twilio.auth_token}"\nrequests_per_second = 0\nbase_url = "{twilio.url}"\n',
        encoding="utf-8",
    )
    ((source, stream),) = select(config.load(path, {}), ["tw.studio_flows"])
    return Job(engine, stream, source, "test:1:unknown", sleep=lambda seconds: None)


@pytest.fixture
def sync(job: Job) -> Sync:
    return lambda: run_stream(job)

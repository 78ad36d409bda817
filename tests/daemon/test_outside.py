"""What the outside sees: alerts that are sent once, notes, and how to connect."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import Engine

from etl.config.redact import Redactor
from etl.config.settings import Daemon, Settings, Warehouse
from etl.daemon import connections, snapshot
from etl.daemon.connections import Engines
from etl.daemon.context import Context
from etl.daemon.metrics import Metrics
from etl.daemon.outside import Alerting, Notes, reach
from etl.daemon.snapshot import Snapshot
from etl.load.lease import Lease
from etl.status.health import Overview, Reach, StreamHealth
from etl.warehouse.connect import connect
from tests.daemon.processes import until
from tests.daemon.test_alerts import hook

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
FAILED = StreamHealth("zoom_eu", "flows", "zoom", "failed", stale=False, problem="HTTP 401: no")
WELL = StreamHealth("zoom_eu", "flows", "zoom", "good", stale=False, age=1.0)


@pytest.fixture
def engine(warehouse: str) -> Iterator[Engine]:
    engine = connect(warehouse)
    try:
        yield engine
    finally:
        engine.dispose()


def context(engine: Engine, url: str, more: Any = None, **given: Any) -> Context:
    daemon = Daemon(alert_webhook=SecretStr(url), **(more or {}))
    settings = Settings(daemon=daemon, sources={})
    lease = Lease("*", "daemon", "here", 1)
    named: dict[str, Any] = {"engines": Engines(engine, engine), "lease": lease} | given
    return Context("here", settings, Redactor(), **named)


def read(engine: Engine, clock: float) -> Snapshot:
    with connections.transaction(engine) as connection:
        return snapshot.read(connection, clock, None, Redactor())


def seen(stream: StreamHealth, **given: Any) -> Overview:
    return Overview(NOON, "1", streams=(stream,), **given)


class Beats:
    """Calls an `Alerting` repeatedly, while a message may be under way."""

    def __init__(self) -> None:
        self.notes = Notes(structlog.get_logger("callflow"))
        self._alerting = Alerting(Metrics("1", CollectorRegistry()), self.notes)

    def beat(self, daemon: Context, shown: Overview, known: Snapshot | None, *, now: float) -> None:
        self._alerting.beat(daemon, shown, known, now)

    def sent(self) -> bool:
        message = self._alerting._message
        return message is None or message.done()


def test_an_alert_is_sent_once_although_all_was_read_again_while_it_was_sent(
    engine: Engine,
) -> None:
    beats = Beats()
    with hook() as server:
        server.go.clear()
        daemon = context(engine, server.origin)
        beats.beat(daemon, seen(FAILED), read(engine, 1.0), now=1.0)
        meanwhile = read(engine, 2.0)  # the message is under way, so nothing is recorded yet
        beats.beat(daemon, seen(FAILED), meanwhile, now=2.0)
        server.go.set()
        until(beats.sent, "it was sent")
        beats.beat(daemon, seen(FAILED), meanwhile, now=3.0)
        assert beats.sent()
        beats.beat(daemon, seen(FAILED), read(engine, 4.0), now=4.0)
        assert beats.sent()
        assert len(server.came) == 1
        beats.beat(daemon, seen(WELL), read(engine, 5.0), now=5.0)
        until(beats.sent, "the all-clear was sent")
        assert len(server.came) == 2


def test_what_the_webhook_did_not_take_is_noted_and_sent_again(engine: Engine) -> None:
    beats = Beats()
    with hook(status=503) as server:
        daemon = context(engine, server.origin)
        for now in (1.0, 30.0, 40.0):
            beats.beat(daemon, seen(FAILED), read(engine, now), now=now)
            until(beats.sent, "there is an answer")
        beats.beat(daemon, seen(FAILED), read(engine, 41.0), now=41.0)
        (note,) = beats.notes.texts()
        assert "HTTP 503" in note
        assert len(server.came) == 1
        beats.beat(daemon, seen(FAILED), read(engine, 61.0), now=61.0)
        until(beats.sent, "there is an answer")
        assert len(server.came) == 2


@pytest.mark.parametrize("given", [{"lease": None}, {"engines": None}])
def test_only_a_daemon_that_leads_sends(engine: Engine, given: Any) -> None:
    beats = Beats()
    with hook() as server:
        daemon = context(engine, server.origin, **given)
        beats.beat(daemon, seen(FAILED), read(engine, 1.0), now=1.0)
        leads = context(engine, server.origin)
        beats.beat(leads, seen(FAILED, database="no answer"), read(engine, 2.0), now=2.0)
        beats.beat(leads, seen(FAILED), None, now=3.0)
        assert beats.sent()
        assert server.came == []


def test_the_settings_say_in_which_shape_and_to_which_page_it_links(engine: Engine) -> None:
    beats = Beats()
    page = "https://callflow.example"
    with hook() as server:
        daemon = context(engine, server.origin, {"alert_format": "json", "public_url": page})
        beats.beat(daemon, seen(FAILED), read(engine, 1.0), now=1.0)
        until(beats.sent, "it was sent")
    ((_, _, body),) = server.came
    (alert,) = json.loads(body)["alerts"]
    assert (alert["event"], alert["url"]) == ("failed", f"{page}/streams/zoom_eu/flows")


def test_a_note_has_lines_on_the_page_and_none_in_the_log() -> None:
    logged: list[str] = []
    notes = Notes(SimpleNamespace(warning=logged.append))
    for _ in range(2):
        notes.set("config", "refused:\n  a hunter22\n  b", Redactor({"hunter22"}))
    assert notes.texts() == ("refused:\n  a …\n  b",)
    assert logged == ["refused: a … b"]
    notes.set("config", None, Redactor())
    assert notes.texts() == ()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"url": "postgresql://me:hunter22@db.example/w"},
         Reach("db.example", "5432", "w")),
        ({"url": "postgresql://me:hunter22@/w?host=/run/pg&port=5433"},
         Reach("/run/pg", "5433", "w")),
        ({"url": "postgresql://me@db/w", "read_url": "postgresql://bi:hunter22@replica:6543/x"},
         Reach("replica", "6543", "x", "bi")),
        ({"url": "postgresql:///w"}, Reach("", "5432", "w")),
        ({"url": "postgresql://db/w", "read_url": "postgresql://db/w?nonsense=hunter22"}, None),
        ({}, Reach("127.0.0.1", "7", "callflow", "callflow_reader", embedded=True)),
    ],
)  # fmt: skip
def test_how_to_connect_follows_from_the_settings_without_a_password(
    given: dict[str, str], found: Reach | None
) -> None:
    secret: dict[str, Any] = {name: SecretStr(value) for name, value in given.items()}
    settings = Settings(warehouse=Warehouse(**secret), sources={})
    own = connect(given.get("url", "postgresql://callflow:hunter22@127.0.0.1:7/callflow"))
    known = Context("here", settings, Redactor(), engines=Engines(own, own))
    assert reach(known) == found
    assert "hunter22" not in repr(found)
    assert reach(replace(known, engines=None)) is None

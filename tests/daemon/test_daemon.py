"""`callflow daemon` as an operator meets it: a process, its log, its page, and its troubles."""

import http.server
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

from etl.sandbox import twilio, zoom
from etl.sandbox.alibaba_gateway import AccessKey
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox
from tests.daemon.conftest import Start
from tests.daemon.processes import PATIENCE, free_port, relayed, until, write_config
from tests.postgres import ask, dsn
from tests.sync.truth import STREAMS

pytestmark = pytest.mark.slow

ZOOM_LIST = "/v2/contact_center/flows"


def names(process: Any) -> set[str]:
    return {f"{run['source']}.{run['stream']}" for run in process.runs(status="complete")}


def zoom_rows(url: str) -> int:
    return int(ask(url, "SELECT count(*) FROM zoom.flows")[0][0])


# -- the main path --------------------------------------------------------------------------------


def test_it_keeps_the_warehouse_fresh_until_a_signal_stops_it(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    daemon = start(sandbox)
    until(lambda: names(daemon) == set(STREAMS), "all streams ran", daemon)
    ready = until(lambda: daemon.get("/readyz").status_code == 200, "it is ready")
    assert ready
    assert zoom_rows(warehouse) == len(sandbox.zoom.flows.keys())
    gone, kept = sandbox.zoom.flows.keys()[:2]
    sandbox.zoom.flows.delete(gone)
    sandbox.zoom.flows.update(kept, flow_name="renamed")
    until(
        lambda: (
            ask(warehouse, f"SELECT FROM zoom.flows WHERE flow_id = '{gone}'") == []
            and ask(warehouse, "SELECT count(*) FROM zoom.flows WHERE flow_name = 'renamed'")
            == [(1,)]
        ),
        "the change is in the warehouse",
    )
    status = daemon.status()
    assert (status["role"], status["database"], status["notes"]) == ("leader", None, [])
    assert {each["name"] for each in status["streams"]} == set(STREAMS)
    assert all(each["state"] == "good" and each["next_run_at"] for each in status["streams"])
    assert "zoom_demo" in daemon.get("/").text
    daemon.kill(signal.SIGTERM)
    assert daemon.ended() == 0
    assert ask(warehouse, "SELECT count(*) FROM etl.leases WHERE until > now()") == [(0,)]
    assert daemon.events("stopped")
    for secret in (sandbox.zoom.client_secret, sandbox.twilio.auth_token, "Traceback"):
        assert secret not in daemon.output


def test_its_pages_show_sources_and_flows(start: Start, sandbox: Sandbox) -> None:
    daemon = start(sandbox)
    daemon.status()
    until(lambda: daemon.get("/readyz").status_code == 200, "it is ready", daemon)
    source = daemon.get("/source/alibaba_demo")
    assert source.status_code == 200
    links = re.findall(r'href="(/flow\?key=[^"]+)"', source.text)
    pages = [daemon.get(link).text for link in links[:5]]
    assert all("Entry points" in page for page in pages)
    drawn = "<figure" if find_spec("pygraphviz") else "pygraphviz is not installed"
    assert any(drawn in page for page in pages)
    assert daemon.get("/flow?key=alibaba_demo%2Fnope").status_code == 404


@pytest.mark.fault(64)
def test_a_source_that_is_not_overdue_does_not_run_when_it_starts(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    first = start(sandbox, every="1h")
    first.ran(len(STREAMS), status="complete")
    first.kill(signal.SIGTERM)
    assert first.ended() == 0
    ask_for = "UPDATE etl.streams SET last_attempt_at = now() - interval '2 hours'"
    with_age = f"{ask_for} WHERE source = 'zoom_demo' RETURNING source"
    assert ask(warehouse, with_age) == [("zoom_demo",)]
    second = start(sandbox, every="1h")
    second.ran(source="zoom_demo")

    def in_an_hour(at: str | None) -> bool:
        left = datetime.fromisoformat(at) - datetime.now(UTC) if at else timedelta()
        return timedelta(minutes=50) < left < timedelta(minutes=70)

    until(
        lambda: all(in_an_hour(each["next_run_at"]) for each in second.status()["streams"]),
        "the next runs are planned",
        second,
    )
    assert {run["source"] for run in second.runs()} == {"zoom_demo"}


@pytest.mark.fault(60)
def test_a_second_signal_ends_it_at_once(start: Start, sandbox: Sandbox) -> None:
    came, go = hold(sandbox.zoom.faults, ZOOM_LIST)
    daemon = start(sandbox)
    assert came.wait(PATIENCE)
    daemon.kill(signal.SIGTERM)
    daemon.said("stopping")
    daemon.kill(signal.SIGTERM)
    assert daemon.ended() == 128 + signal.SIGTERM  # 0 where it waits for what runs
    go.set()


@pytest.mark.fault(60)
def test_a_run_that_cannot_finish_before_the_deadline_is_rolled_back(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    came, go = hold(sandbox.zoom.faults, ZOOM_LIST)
    daemon = start(sandbox, daemon='stop_deadline = "8s"')
    assert came.wait(PATIENCE)
    daemon.kill(signal.SIGTERM)
    assert daemon.ended() == 0
    go.set()
    assert daemon.events()[-1]["rolled_back"] >= 1
    assert zoom_rows(warehouse) == 0
    assert ask(warehouse, "SELECT count(*) FROM etl.runs WHERE source = 'zoom_demo'") == [(0,)]


def hold(faults: list[Fault], path: str = "") -> tuple[threading.Event, threading.Event]:
    """Let a request hang. The first event is set when it comes; set the second to release it."""
    came, go = threading.Event(), threading.Event()

    def wait(emulator: Any, request: Any) -> None:
        came.set()
        go.wait(300)

    faults.append(Fault(path=path, times=1, before_request=wait))
    return came, go


# -- what goes wrong around it --------------------------------------------------------------------


@pytest.mark.fault(48)
def test_a_database_that_is_away_is_waited_for(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    with relayed(warehouse, open_=False) as (url, relay):
        daemon = start(sandbox, url=url)
        # The daemon tries again automatically.
        assert "run again" not in daemon.said("no warehouse; waiting for it")["error"]
        assert daemon.get("/healthz").status_code == 200
        assert daemon.get("/readyz").status_code == 503
        assert "Postgres" in daemon.status()["database"]
        assert "Postgres" in daemon.get("/").text
        relay.open()
        until(lambda: names(daemon) == set(STREAMS), "all streams ran", daemon)
        until(lambda: daemon.get("/readyz").status_code == 200, "it is ready", daemon)
        relay.shut()
        until(lambda: daemon.status()["database"], "it is noticed")
        assert daemon.get("/readyz").status_code == 503
        assert "zoom_demo" in daemon.get("/").text
        before = len(daemon.runs(source="zoom_demo", status="complete"))
        relay.open()
        daemon.ran(before + 2, source="zoom_demo", status="complete")
        until(lambda: daemon.get("/readyz").status_code == 200, "it is ready", daemon)
        daemon.kill(signal.SIGTERM)
        assert daemon.ended() == 0
    assert "Traceback" not in daemon.output


@pytest.mark.fault(64)
def test_trouble_with_one_source_does_not_reach_another(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    sources, sandbox.zoom.client_secret = sandbox.toml(), "changed-meanwhile"
    came, go = hold(sandbox.alibaba.faults)
    daemon = start(sources)
    assert came.wait(PATIENCE)
    daemon.ran(3, source="twilio_demo", stream="channels", status="complete")
    daemon.ran(2, source="zoom_demo", status="failed")
    assert not daemon.runs(source="alibaba_demo")
    until(
        lambda: "alibaba_demo" in {each["source"] for each in daemon.events("not started")},
        "the long run is not doubled",
        daemon,
    )
    for others in ({"source": "twilio_demo", "stream": "channels"}, {"source": "zoom_demo"}):
        daemon.ran(len(daemon.runs(**others)) + 1, **others)  # they go on all the while
    assert not daemon.runs(source="alibaba_demo")
    assert not daemon.events("Execution of job")  # APScheduler's own words for it
    lag = 'callflow_schedule_lag_seconds{source="alibaba_demo"} '
    until(
        lambda: float(daemon.get("/metrics").text.partition(lag)[2].split()[0]) > 1.5,
        "the lag grows while the run goes on",
        daemon,
    )
    skipped = 'callflow_runs_skipped_total{source="alibaba_demo"}'
    assert skipped in daemon.get("/metrics").text
    zoom_demo = daemon.stream("zoom_demo.flows")
    assert (zoom_demo["state"], zoom_demo["good"]) == ("failed", False)
    assert "client_secret" in zoom_demo["problem"] + zoom_demo["advice"]
    assert daemon.get("/readyz").status_code == 503
    assert daemon.stream("alibaba_demo.contact_flows")["running_since"]
    go.set()
    daemon.ran(source="alibaba_demo", status="complete")
    assert ask(warehouse, "SELECT count(*) FROM etl.runs WHERE status = 'busy'") == [(0,)]


@pytest.mark.fault(1)
def test_a_daily_limit_pauses_the_account_until_it_is_reset(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    reset = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=5)
    sandbox.zoom.faults.append(
        Fault(path=ZOOM_LIST, times=None, response=zoom.too_many_today(reset.isoformat()))
    )
    daemon = start(sandbox)
    daemon.ran(source="zoom_demo", status="failed")
    daemon.ran(3, source="twilio_demo", stream="channels", status="complete")
    assert len(daemon.runs(source="zoom_demo")) == 1
    until(lambda: daemon.stream("zoom_demo.flows").get("state") == "throttled", "it is reported")
    planned = datetime.fromisoformat(daemon.stream("zoom_demo.flows")["next_run_at"])
    assert abs(planned - reset) < timedelta(minutes=1)
    daemon.kill(signal.SIGTERM)
    assert daemon.ended() == 0
    again = start(sandbox)
    again.ran(3, source="twilio_demo", stream="channels", status="complete")
    assert not again.runs(source="zoom_demo")


def test_what_was_paused_continues_when_the_pause_is_over(start: Start, sandbox: Sandbox) -> None:
    reset = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=5)
    limit = zoom.too_many_today(reset.isoformat())
    sandbox.zoom.faults.append(Fault(path=ZOOM_LIST, times=None, response=limit))
    daemon = start(sandbox, every="30d")
    daemon.ran(source="zoom_demo", status="failed")
    until(lambda: daemon.stream("zoom_demo.flows").get("state") == "throttled", "it is reported")
    planned = datetime.fromisoformat(daemon.stream("zoom_demo.flows")["next_run_at"])
    assert abs(planned - reset) < timedelta(minutes=1)


def test_a_run_that_hangs_is_given_up_and_the_rest_goes_on(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    came, go = hold(sandbox.zoom.faults, ZOOM_LIST)
    daemon = start(sandbox, daemon='hung_after = "4s"', more="")
    assert came.wait(PATIENCE)
    (run, *_) = daemon.ran(source="zoom_demo", status="failed")
    assert "no progress for 4s" in run["error"]
    assert run["error_kind"] == "hung"
    assert ask(warehouse, "SELECT DISTINCT error_kind FROM etl.runs WHERE status = 'failed'") == [
        ("hung",)
    ]
    daemon.ran(source="zoom_demo", status="complete")
    rows = zoom_rows(warehouse)
    go.set()  # what hung goes on, and finds that it may write nothing any more
    daemon.ran(3, source="zoom_demo", status="complete")
    assert zoom_rows(warehouse) == rows == len(sandbox.zoom.flows.keys())
    assert 'callflow_runs_hung_total{source="zoom_demo"' in daemon.get("/metrics").text


def test_a_port_that_is_taken_is_reported_and_tried_again(start: Start, sandbox: Sandbox) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        daemon = start(sandbox, port=port)
        daemon.said("trying again")
        daemon.ran(len(STREAMS), status="complete")
    until(lambda: daemon.status()["notes"] == [], "the note is gone", daemon)
    assert daemon.get("/healthz").text.strip() == "ok"


@pytest.mark.fault(65)
def test_the_clock_of_the_machine_is_set(start: Start, sandbox: Sandbox, warehouse: str) -> None:
    """Set it by a year forwards and back meanwhile: no extra run, and no watermark moves."""
    daemon = start(sandbox, every="10m", code=JUMPING)
    daemon.ran(len(STREAMS), status="complete")
    marks = ask(warehouse, "SELECT source, stream, watermark FROM etl.streams ORDER BY 1, 2")
    daemon.kill(signal.SIGUSR1)
    daemon.said("went forward")
    daemon.kill(signal.SIGUSR2)
    daemon.said("went back")
    until(lambda: daemon.status()["role"] == "leader", "it goes on")
    left = [
        datetime.fromisoformat(each["next_run_at"]) - datetime.now(UTC)
        for each in daemon.status()["streams"]
    ]
    assert all(left_ < timedelta(minutes=12) for left_ in left)
    assert len(daemon.runs()) <= 2 * len(STREAMS)
    assert marks == ask(
        warehouse, "SELECT source, stream, watermark FROM etl.streams ORDER BY 1, 2"
    )
    assert "callflow_clock_jumps_total 2" in daemon.get("/metrics").text


JUMPING = """
import os, signal, sys
from datetime import timedelta
from pathlib import Path
import structlog
from etl.config import load as config
from etl.daemon import logs
from etl.daemon.context import Surroundings
from etl.daemon.daemon import run
from etl.extract.clock import utc_now

jump = [timedelta()]
signal.signal(signal.SIGUSR1, lambda *_: jump.__setitem__(0, timedelta(days=365)))
signal.signal(signal.SIGUSR2, lambda *_: jump.__setitem__(0, timedelta()))
logs.configure(sys.stderr, as_json=True)
settings = config.load(Path(os.environ["CALLFLOW_CONFIG"]), os.environ)
run(settings, Surroundings(
    load=lambda: settings, env=os.environ, log=structlog.get_logger("callflow"),
    relog=lambda settings: None, wall=lambda: utc_now() + jump[0],
))
"""


# -- its configuration ----------------------------------------------------------------------------


def test_a_new_configuration_is_taken_and_a_bad_one_is_refused(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    whole = sandbox.toml()
    only_zoom = whole.partition("[sources.twilio_demo]")[0]
    daemon = start(only_zoom, every="1h")
    daemon.ran(source="zoom_demo", status="complete")
    daemon.path.write_text(daemon.path.read_text(encoding="utf-8") + "\n[sources.x]\n", "utf-8")
    daemon.kill(signal.SIGHUP)
    daemon.said("is refused")
    assert any("is refused" in note for note in daemon.status()["notes"])
    assert "callflow_config_refused 1" in daemon.get("/metrics").text
    write_config(daemon.path, warehouse, whole, port=daemon.port, every="1h")
    daemon.kill(signal.SIGHUP)
    until(lambda: names(daemon) == set(STREAMS), "the new sources ran", daemon)
    assert daemon.status()["notes"] == []
    assert len(daemon.runs(source="zoom_demo")) == 1
    write_config(daemon.path, warehouse, only_zoom, port=daemon.port, every="1h")
    daemon.kill(signal.SIGHUP)
    until(
        lambda: daemon.stream("twilio_demo.channels")["state"] == "not configured",
        "the source is forgotten",
    )
    daemon.path.unlink()
    daemon.kill(signal.SIGHUP)
    until(lambda: daemon.status()["notes"], "the missing file is reported")
    assert daemon.stream("zoom_demo.flows")["state"] == "good"


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ('every = "fast"', "schedule.every"),
        ('cron = "61 * * * *"', "schedule.cron"),
        ('cron = "0 0 30 2 *"', "schedule.cron"),
        ('cron = "* * * * *"\ntimezone = "Mars/Olympus"', "schedule.timezone"),
    ],
)
def test_a_bad_schedule_is_refused_with_what_is_wrong(
    start: Start, sandbox: Sandbox, tmp_path: Path, schedule: str, problem: str
) -> None:
    more = f"[sources.zoom_demo.schedule]\n{schedule}\n"
    daemon = start(sandbox, more=more)
    assert daemon.ended() == 2
    assert problem in daemon.output
    assert "Traceback" not in daemon.output


@pytest.mark.fault(53)
def test_a_schema_from_before_the_first_release_is_refused(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    ask(warehouse, "UPDATE etl.alembic_version SET version_num = '0002' RETURNING 1")
    daemon = start(sandbox)
    assert daemon.ended() == 1
    assert "before the first release" in daemon.output
    assert "callflow migrate" in daemon.output


@pytest.mark.fault(53)
def test_a_schema_that_changes_under_it_stops_the_runs_until_it_fits(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    daemon = start(sandbox)
    daemon.ran(len(STREAMS), status="complete")
    previous = "(SELECT version_num FROM etl.alembic_version)"
    ((head,),) = ask(warehouse, f"SELECT {previous}")
    ask(warehouse, "UPDATE etl.alembic_version SET version_num = '9999' RETURNING 1")
    trouble = until(lambda: daemon.status()["database"], "it is noticed", daemon)
    assert "newer version" in trouble
    assert daemon.get("/readyz").status_code == 503
    ask(warehouse, f"UPDATE etl.alembic_version SET version_num = '{head}' RETURNING 1")
    until(lambda: daemon.get("/readyz").status_code == 200, "it goes on", daemon)
    before = len(daemon.runs())
    daemon.ran(before + len(STREAMS), status="complete")


# -- notifications --------------------------------------------------------------------------------


class Hook(http.server.ThreadingHTTPServer):
    """A webhook that keeps the messages it gets."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        super().__init__(("127.0.0.1", 0), _Keeps)


class _Keeps(http.server.BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.messages.append(body["text"])
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Log nothing: the tests look at the messages."""


@contextmanager
def hooked() -> Iterator[Hook]:
    hook = Hook()
    thread = threading.Thread(target=hook.serve_forever, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        hook.shutdown()
        hook.server_close()
        thread.join(10)


def test_it_reports_once_that_a_stream_turned_bad_and_once_that_it_is_well_again(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    sources, good = sandbox.toml(), sandbox.zoom.client_secret
    sandbox.zoom.client_secret = "changed-meanwhile"
    with hooked() as hook:
        webhook = f'alert_webhook = "http://127.0.0.1:{hook.server_port}/T0/B0/secret-part"'
        daemon = start(sources, daemon=webhook)
        until(lambda: hook.messages, "it is reported", daemon)
        daemon.ran(3, source="zoom_demo", status="failed")
        daemon.kill(signal.SIGTERM)
        assert daemon.ended() == 0
        assert len(hook.messages) == 1
        assert hook.messages[0].startswith("zoom_demo.flows failed")
        assert "client_secret" in hook.messages[0]
        daemon = start(sources, daemon=webhook)  # another one knows what was reported
        daemon.ran(2, source="zoom_demo", status="failed")
        assert len(hook.messages) == 1
        sandbox.zoom.client_secret = good
        until(lambda: len(hook.messages) == 2, "the recovery is reported", daemon)
        assert "zoom_demo.flows is well again" in hook.messages[1]
        daemon.ran(2, source="zoom_demo", status="complete")
        assert len(hook.messages) == 2
        assert "secret-part" not in daemon.output


def test_that_a_list_has_ended_is_reported_once_and_leaves_all_well(
    start: Start, sandbox: Sandbox
) -> None:
    refused = twilio.error(403, 20403, "Forbidden")
    sandbox.twilio.faults.append(Fault(path="/v1/FlexFlows", times=None, response=refused))
    name = "twilio_demo.flex_flows"
    with hooked() as hook:
        webhook = f'alert_webhook = "http://127.0.0.1:{hook.server_port}/T0/B0/secret-part"'
        daemon = start(sandbox, daemon=webhook)
        until(lambda: hook.messages, "it is reported", daemon)
        daemon.ran(3, source="twilio_demo", stream="flex_flows", status="not_available")
        until(lambda: daemon.get("/readyz").status_code == 200, "the others ran", daemon)
        assert [daemon.stream(name)[key] for key in ("state", "good")] == ["ended", True]
        assert (
            'callflow_stream_state{source="twilio_demo",state="ended",stream="flex_flows"} 1'
            in (daemon.get("/metrics").text)
        )
        daemon.kill(signal.SIGTERM)
        assert daemon.ended() == 0
        daemon = start(sandbox, daemon=webhook)  # another one knows what was reported
        daemon.ran(2, source="twilio_demo", stream="flex_flows", status="not_available")
        assert len(hook.messages) == 1
        assert hook.messages[0].startswith(f"{name} is ended: the provider has ended this API")
        assert "read twilio.addresses and twilio.studio_flows instead" in hook.messages[0]
        sandbox.twilio.faults.clear()
        until(lambda: len(hook.messages) == 2, "the recovery is reported", daemon)
        assert hook.messages[1] == f"{name} is well again"


def test_a_run_that_waits_for_its_provider_delays_no_other_account(
    start: Start, sandbox: Sandbox
) -> None:
    """This includes accounts of one host, which has one slot."""
    came, go = hold(sandbox.alibaba.faults)
    parts = []
    for name in ("one", "two"):
        sandbox.alibaba.keys[name] = AccessKey("secret-of-both")
        parts.append(
            f'[sources.{name}]\nprovider = "alibaba"\naccess_key_id = "{name}"\n'
            f'access_key_secret = "secret-of-both"\nbase_url = "{sandbox.alibaba.url}"\n'
            f'instance_ids = ["{next(iter(sandbox.alibaba.flows))}"]\ntimeout = 110\n'
        )
    daemon = start("".join(parts), daemon="workers = 1")
    assert came.wait(PATIENCE)
    daemon.ran(2, status="complete")
    assert len({run["source"] for run in daemon.runs()}) == 1
    go.set()
    until(lambda: len({run["source"] for run in daemon.runs()}) == 2, "the other goes on", daemon)


def test_runs_that_are_rolled_back_at_the_end_are_counted(start: Start, sandbox: Sandbox) -> None:
    came, go = hold(sandbox.zoom.faults, ZOOM_LIST)
    daemon = start(sandbox, daemon='stop_deadline = "2s"', every="1h")
    assert came.wait(PATIENCE)
    assert daemon.said("started")["process"] == daemon.status()["process"]
    daemon.ran(len(STREAMS) - 1, status="complete")
    daemon.kill(signal.SIGTERM)
    assert daemon.ended() == 0
    assert daemon.said("stopped")["rolled_back"] == 1
    go.set()


def test_a_new_address_that_is_taken_leaves_the_previous_one(
    start: Start, sandbox: Sandbox
) -> None:
    daemon = start(sandbox)
    daemon.ran()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = daemon.path.read_text(encoding="utf-8")
        moved = text.replace(f"127.0.0.1:{daemon.port}", f"127.0.0.1:{port}")
        daemon.path.write_text(moved, encoding="utf-8")
        daemon.kill(signal.SIGHUP)
        daemon.said("cannot listen")
        until(  # the page may have been made just before
            lambda: any("cannot listen" in note for note in daemon.status()["notes"]),
            "the page says so",
            daemon,
        )
    daemon.port = port
    until(lambda: daemon.status()["notes"] == [], "it has moved", daemon)


def test_two_thousand_sources(start: Start, sandbox: Sandbox) -> None:
    """All belong to one account, so one runs at a time; the daemon still answers and ends."""
    one = next(part for part in sandbox.toml().split("[sources.") if part.startswith("zoom_demo"))
    text = "".join(f"[sources.{one.replace('zoom_demo', f's{n}', 1)}\n" for n in range(2000))
    daemon = start(text, every="1h")
    daemon.ran(20, status="complete")
    status = daemon.status()
    assert len(status["streams"]) == 2000
    assert status["notes"] == []
    assert daemon.get("/healthz").status_code == 200
    assert daemon.get("/readyz").status_code == 503
    assert "s1999" in daemon.get("/?q=s1999").text
    daemon.kill(signal.SIGTERM)
    assert daemon.ended() == 0
    assert {run["status"] for run in daemon.runs()} == {"complete"}
    assert "Traceback" not in daemon.output


# -- several of them ------------------------------------------------------------------------------


def two(start: Start, sandbox: Sandbox) -> tuple[Any, Any]:
    """Return a daemon that leads, and one that stands by."""
    leader = start(sandbox)
    leader.ran(len(STREAMS), status="complete")
    standby = start(sandbox)
    until(lambda: standby.status()["role"] == "standby", "the second one stands by")
    until(lambda: standby.get("/readyz").status_code == 200, "it is ready as well")
    assert standby.status()["leader"] == leader.status()["process"]
    assert not standby.runs()
    return leader, standby


def recorded(warehouse: str) -> set[str]:
    return {run_id for (run_id,) in ask(warehouse, "SELECT run_id FROM etl.runs")}


@pytest.mark.fault(61)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_second_daemon_takes_over_from_the_first(
    start: Start, sandbox: Sandbox, number: int
) -> None:
    leader, standby = two(start, sandbox)
    leader.kill(number)
    standby.said("this daemon leads")
    standby.ran(len(STREAMS), status="complete")
    assert leader.ended() == (0 if number == signal.SIGTERM else -number)


@pytest.mark.fault(62)
def test_a_daemon_that_was_asleep_writes_nothing_when_it_wakes(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    leader, standby = two(start, sandbox)
    came, go = hold(sandbox.zoom.faults, ZOOM_LIST)
    assert came.wait(PATIENCE)  # it is stopped in a run, and others are due when it resumes
    leader.kill(signal.SIGSTOP)
    standby.said("this daemon leads")
    standby.ran(2, source="zoom_demo", status="complete")
    go.set()
    logged, before = len(leader.runs()), recorded(warehouse)
    leader.kill(signal.SIGCONT)
    leader.said("another daemon leads now")
    standby.ran(len(standby.runs(source="zoom_demo")) + 2, source="zoom_demo", status="complete")
    assert leader.status()["role"] == "standby"
    late = {run["run_id"] for run in leader.runs()[logged:]}
    assert not late & (recorded(warehouse) - before)
    count = "SELECT count(*) FROM etl.runs WHERE status <> 'complete'"
    assert ask(warehouse, count) == [(0,)]
    here = until(lambda: standby.status()["process"], "its name")
    until(
        lambda: ask(warehouse, "SELECT DISTINCT holder FROM etl.leases") == [(here,)],
        "only the new one holds leases",
    )


@pytest.mark.fault(62)
def test_a_daemon_that_was_stopped_in_the_middle_of_a_write_is_followed_too(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    leader, standby = two(start, sandbox)
    flow = sandbox.zoom.flows.keys()[0]
    with psycopg.connect(dsn(warehouse)) as another:
        another.execute("SELECT FROM zoom.flows WHERE flow_id = %s FOR UPDATE", [flow])
        sandbox.zoom.flows.update(flow, flow_name="renamed")
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        until(lambda: ask(warehouse, waits), "a write waits for that row", leader)
        leader.kill(signal.SIGSTOP)
    standby.said("this daemon leads")
    standby.ran(2, source="zoom_demo", status="complete")
    logged, before = len(leader.runs()), recorded(warehouse)
    leader.kill(signal.SIGCONT)
    leader.said("another daemon leads now")
    standby.ran(len(standby.runs(source="zoom_demo")) + 2, source="zoom_demo", status="complete")
    late = {run["run_id"] for run in leader.runs()[logged:]}
    assert not late & (recorded(warehouse) - before)
    renamed = "SELECT count(*) FROM zoom.flows WHERE flow_name = 'renamed'"
    assert ask(warehouse, renamed) == [(1,)]
    here = standby.status()["process"]
    writers = "SELECT DISTINCT holder FROM etl.leases"
    until(lambda: ask(warehouse, writers) == [(here,)], "only the new one holds leases")


@pytest.mark.fault(61)
def test_two_that_start_on_an_empty_database_make_one_warehouse(
    start: Start, sandbox: Sandbox, database: str
) -> None:
    daemons = [start(sandbox, url=database) for _ in range(2)]
    until(
        lambda: sorted(each.status()["role"] for each in daemons) == ["leader", "standby"],
        "one leads",
        *daemons,
    )
    until(lambda: any(names(each) == set(STREAMS) for each in daemons), "all streams ran")
    assert sum(bool(each.runs()) for each in daemons) == 1

"""Traces of runs, as a receiver of OTLP over HTTP gets them from a daemon."""

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from etl.sandbox.faults import Fault, html
from etl.sandbox.server import Sandbox
from tests.daemon.conftest import Start
from tests.daemon.processes import until
from tests.postgres import ask, dsn

otlp = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

MISSING = """
import sys
sys.modules["opentelemetry.exporter"] = None
sys.argv = ["callflow", "daemon"]
from etl.__main__ import main
main()
"""


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps the spans that it gets, and the bytes of the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.bytes = b""
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def runs(self, status: str) -> list[Any]:
        """Return the spans of runs that ended so."""
        found = [span for span in list(self.spans) if span.name == "run"]
        return [span for span in found if attributes(span).get("callflow.status") == status]

    def stages(self, run: Any) -> list[str]:
        """Return the names of a run's children, in the order of their starts."""
        found = [span for span in list(self.spans) if span.parent_span_id == run.span_id]
        assert {span.trace_id for span in found} <= {run.trace_id}
        return [span.name for span in sorted(found, key=lambda span: span.start_time_unix_nano)]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        request = otlp.ExportTraceServiceRequest.FromString(body)
        self.server.headers.append({**self.headers, "path": self.path})
        self.send_response(self.server.status)
        self.end_headers()
        if self.server.status != 200:
            return
        self.server.bytes += body
        for each in request.resource_spans:
            self.server.resources.append(attributes(each.resource))
            self.server.spans += [span for scope in each.scope_spans for span in scope.spans]

    def log_message(self, *args: Any) -> None:
        pass


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


def refuse(warehouse: str, table: str) -> None:
    """Let Postgres refuse every new row of a table."""
    with psycopg.connect(dsn(warehouse)) as connection:
        connection.execute(
            "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$BEGIN RAISE EXCEPTION 'no'; END$$; CREATE TRIGGER refuse BEFORE INSERT ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION public.refuse()".encode()
        )


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()


@pytest.mark.slow
def test_each_run_is_a_trace_with_its_stages(
    start: Start, sandbox: Sandbox, warehouse: str
) -> None:
    refuse(warehouse, "alibaba.contact_flows")
    sandbox.zoom.faults.append(Fault(path="/v2/contact_center/flows", response=html(503)))
    with receiving() as receiver:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=sesame",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        daemon = start(sandbox, daemon="telemetry = true", env=env)
        daemon.ran(source="zoom_demo", status="complete")
        (refused, *_) = until(lambda: receiver.runs("failed"), "a failure is received", daemon)
        sandbox.zoom.client_secret = "another one by now"
        failed = until(
            lambda: next(
                (
                    run
                    for run in receiver.runs("failed")
                    if attributes(run)["callflow.source"] == "zoom_demo"
                ),
                None,
            ),
            "another failure is received",
            daemon,
        )
        found = receiver.runs("complete")
        daemon.kill(15)
        assert daemon.ended() == 0

    assert {each["path"] for each in receiver.headers} == {"/v1/traces"}
    assert {each["x-key"] for each in receiver.headers} == {"sesame"}
    wanted = {"service.name": "callflow", "deployment.environment": "test"}
    assert all(wanted.items() <= each.items() for each in receiver.resources)

    recorded = {
        row[0]: row[1:]
        for row in ask(
            warehouse,
            "SELECT run_id, source, stream, mode, status, records, requests, retries FROM etl.runs",
        )
    }
    names = ("source", "stream", "mode", "status", "records", "requests", "retries")
    for run in found:
        assert not run.parent_span_id
        given = attributes(run)
        assert recorded[run.trace_id.hex()] == tuple(given[f"callflow.{name}"] for name in names)
    of = {attributes(run)["callflow.stream"]: receiver.stages(run) for run in found[::-1]}
    assert of["flows"] == ["extract", "prove", "stage", "judge", "merge"]
    assert of["channels"] == ["extract", "load"]

    (error,) = ask(
        warehouse, f"SELECT error FROM etl.runs WHERE run_id = '{failed.trace_id.hex()}'"
    )
    assert (failed.status.code, (failed.status.message,)) == (2, error)
    (event,) = failed.events
    assert attributes(event)["exception.message"] == failed.status.message
    assert receiver.stages(failed) == ["extract", "prove", "stage", "merge"]

    # A stage in which an exception was raised is marked, and sends nothing of its text.
    ended = [span for span in receiver.spans if span.parent_span_id == refused.span_id]
    assert {span.name for span in ended if span.status.code == 2} == {"merge"}
    stages = [span for span in receiver.spans if span.name != "run"]
    assert not any(span.status.message or span.events for span in stages)

    (line, *_) = daemon.events("asking again")  # logged while the run was under way
    assert line["trace_id"] in {run.trace_id.hex() for run in found}
    (line, *_) = daemon.runs(status="failed")
    assert line["trace_id"] == line["run_id"]
    for secret in (
        sandbox.zoom.client_id, "sandbox-zoom-secret", sandbox.twilio.auth_token,
        sandbox.zoom.flows.records()[0]["flow_name"],
    ):  # fmt: skip
        assert secret.encode() not in receiver.bytes


@pytest.mark.slow
def test_a_daemon_says_what_to_install_and_ends_although_nobody_receives(
    start: Start, sandbox: Sandbox
) -> None:
    daemon = start(sandbox, daemon="telemetry = true", code=MISSING)
    assert daemon.ended() == 2
    assert "daemon.telemetry: telemetry = true needs the extra `otel`" in daemon.output
    assert "pip install '/path/to/callflow[otel]'" in daemon.output

    with receiving() as receiver:
        receiver.status = 503
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        daemon = start(sandbox, daemon="telemetry = true", env=env)
        until(lambda: len(receiver.headers) > 3, "it has tried several times", daemon)
        receiver.status = 200
        daemon.said("traces can be sent again")
    daemon.ran(2, source="zoom_demo", status="complete")  # nobody receives any more
    daemon.kill(15)
    assert daemon.ended() == 0
    assert len(daemon.events("export")) in (1, 2), daemon.output  # one for each outage

"""Traces of runs for OpenTelemetry, with the extra `otel`; off unless `daemon.telemetry` is set.

A run is a trace, whose id is the run's, so that logs, etl.runs and traces name it alike:

    run        source, stream, mode, status, records, requests, retries
      extract  one scan of the list; its rows are copied into staging as they come
      prove    was all of it seen?
      stage    make the staged rows unique, and complete records that the list does not hold whole
      judge    are the records that were not listed deleted?
      merge    the transaction that writes
      load     instead of stage and merge: the first load of a fast list

Where they are sent is up to OpenTelemetry's own variables, OTEL_*, by OTLP over HTTP. The error of
a failed run is sent as it is recorded: redacted. No other text of a provider is.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import structlog

from etl.errors import ConfigError, StoppedError
from etl.load.runs import Run
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span, Tracer

LAST = 3.0
"""Seconds that are left at the end for sending what was not sent yet."""

log = logging.getLogger(__name__)

_SENT = ("mode", "status", "records", "requests", "retries")


@contextmanager
def tracing() -> Iterator[Callable[[Job], Run]]:
    """Yield what runs a stream as `run_stream` does, and records a trace of it.

    Raises ConfigError where the extra is not installed, or a variable of OpenTelemetry is wrong.
    """
    provider = _provider()
    try:
        yield partial(_run, provider.get_tracer("callflow", __version__))
    finally:
        last = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
        last.start()
        last.join(LAST)


def _provider() -> "TracerProvider":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    except ImportError:
        raise ConfigError(
            "telemetry = true needs the extra `otel`",
            where="daemon.telemetry",
            advice="pip install '/path/to/callflow[otel]'",
        ) from None

    class Ids(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            return uuid.uuid4().int  # it becomes the id of the run, which is a UUID

    try:
        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "callflow"}))
        resource = Resource({"service.version": __version__}).merge(resource)
        provider = TracerProvider(resource=resource, id_generator=Ids(), shutdown_on_exit=False)
        exporter = _Exporter(OTLPSpanExporter())
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(exporter.is_news)
        provider.add_span_processor(BatchSpanProcessor(cast("SpanExporter", exporter)))
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"OpenTelemetry refuses its variables: {error}",
            where="daemon.telemetry",
            advice="correct the variables OTEL_…, or leave telemetry out",
        ) from None
    return provider


class _Exporter:
    """An exporter of OpenTelemetry that says once that it cannot send, and once that it can again.

    On its own it would repeat the reason several times for each batch.
    """

    def __init__(self, inner: "SpanExporter") -> None:
        self.shutdown, self.force_flush = inner.shutdown, inner.force_flush
        self._export = inner.export
        self._fails = False

    def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
        result = self._export(spans)
        if self._fails and result.name == "SUCCESS":
            self._fails = False
            log.info("traces can be sent again")
        return result

    def is_news(self, record: logging.LogRecord) -> bool:
        """Whether what the exporter logs is the first trouble since it could send."""
        said, self._fails = self._fails, True
        return not said


def _run(tracer: "Tracer", job: Job) -> Run:
    from opentelemetry.trace import StatusCode  # only here, where it is known to be installed

    with _span(tracer, "run") as span:
        context = span.get_span_context()
        if context.is_valid:  # not with OTEL_SDK_DISABLED
            trace = f"{context.trace_id:032x}"
            structlog.contextvars.bind_contextvars(trace_id=trace)
            job = replace(job, run_id=trace, span=partial(_span, tracer))
        span.set_attributes({"callflow.source": job.source, "callflow.stream": job.stream.name})
        run = run_stream(job)
        span.set_attributes({f"callflow.{name}": getattr(run, name) for name in _SENT})
        if run.status == "failed":
            span.set_status(StatusCode.ERROR, run.error)
            why = {"exception.type": run.error_kind or "", "exception.message": run.error or ""}
            span.add_event("exception", why)
    return run


@contextmanager
def _span(tracer: "Tracer", name: str) -> Iterator["Span"]:
    from opentelemetry.trace import StatusCode

    # Otherwise OpenTelemetry sends the text and the traceback of an exception as they are.
    with tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except StoppedError:
            raise
        except BaseException:
            span.set_status(StatusCode.ERROR)
            raise

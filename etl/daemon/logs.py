"""The daemon's log: lines for people on a terminal, one JSON object a line elsewhere.

Events of structlog and records of `logging`, also those of libraries, go through one handler. There
each text loses what must not leave; structlog's own renderers then write it.
"""

import codecs
import contextlib
import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping, Set
from datetime import date, datetime, timedelta
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

import structlog
from rich.console import Console
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter
from structlog.processors import ExceptionRenderer, JSONRenderer, TimeStamper
from structlog.stdlib import ProcessorFormatter

from etl.config.redact import HIDDEN, Redactor
from etl.load.runs import Run

Event = MutableMapping[str, Any]

_LEVELS = {
    "complete": "info",
    "not_available": "info",
    "incomplete": "warning",
    "busy": "warning",
    "failed": "error",
}
_QUIET = ("apscheduler", "uvicorn", "httpx", "httpcore", "alembic.runtime.plugins")
"""Libraries whose INFO is of no use to an operator; that of httpx holds whole URLs."""
_NO_NEWS = ("Context impl %s.", "Will assume %s DDL.")
"""What Alembic says before each of its migrations, which are news."""
_SAID_BETTER = "apscheduler.scheduler"
"""Warns of rounds that it skips, in words about its own jobs; the daemon logs which source."""
_ADOPTED = ("apscheduler", "uvicorn", "sqlalchemy", "distributed", "dask", "tornado", "bokeh")
"""Libraries whose loggers come with handlers."""


def configure(
    stream: TextIO,
    *,
    as_json: bool,
    redact: Redactor | None = None,
    level: int = logging.INFO,
) -> None:
    """Send all logs of this process from `level` up to `stream`, without what `redact` hides.

    May be called again at any time, with other secrets or another stream. Call it after the import
    of `distributed`, which adds its own handlers. When `stream` is closed or has no reader, the
    line is lost and nothing is raised.

    JSON has `timestamp` (ISO 8601, UTC), `level`, `event`, `logger` and the fields. Lines for
    people have the local time, and leave out fields that are 0 or empty. An exception is one line
    (`error`); at `level` DEBUG, JSON has the traceback too (`exception`).
    """
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.PositionalArgumentsFormatter(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = ProcessorFormatter(
        foreign_pre_chain=common,
        processors=[
            ProcessorFormatter.remove_processors_meta,
            ExceptionRenderer(itemgetter(1)),  # type: ignore[arg-type]  # the exception itself
            partial(_exception_in_a_line, as_json and level <= logging.DEBUG),
            _Cleaned(redact or Redactor()),
            TimeStamper("iso" if as_json else "%H:%M:%S", utc=as_json),
            *(_json(plain=not _is_unicode(stream)) if as_json else _lines(_has_colours(stream))),
        ],
    )
    root = logging.getLogger()
    handler = next((each for each in root.handlers if isinstance(each, _Handler)), None)
    if handler is None:
        root.addHandler(handler := _Handler(stream))
        handler.addFilter(lambda record: record.msg not in _NO_NEWS)
    handler.change(stream, formatter)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.getLogger(_SAID_BETTER).setLevel(logging.ERROR)
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in _ADOPTED:
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True


def run_ended(log: Any, run: Run, *, traced: bool = False) -> None:
    """Log a run that ended on the structlog logger `log`: one line with its counts.

    A run that was `traced` (telemetry.py) has the id of its trace, which is its own.
    Its level is info for a complete run and for a list that is not available, error for a failed
    run, and warning for any other.
    """
    seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at else None
    getattr(log, _LEVELS[run.status])(
        "run ended",
        source=run.source,
        stream=run.stream,
        status=run.status,
        mode=run.mode,
        # It started by this machine's clock and ended by the database's.
        seconds=None if seconds is None else round(max(0.0, seconds), 3),
        requests=run.requests,
        retries=run.retries,
        throttled_seconds=round(run.throttled_seconds, 3),
        pages=run.pages,
        records=run.records,
        inserted=run.inserted,
        updated=run.updated,
        unchanged=run.unchanged,
        deleted=run.deleted,
        absent=run.absent,
        rejected=run.rejected,
        warnings=run.warnings,
        watermark=run.watermark_after,
        retry_at=run.retry_at,
        error_kind=run.error_kind,
        error=run.error,
        run_id=run.run_id,
        **({"trace_id": run.run_id} if traced else {}),
    )


# --- what must not leave -------------------------------------------------------------------------
_NAMES = ("process", "source", "stream")
"""Fields that hold names of ours: a process's has digits like a phone number's, and a source's may
be a word that is also a password."""


class _Cleaned:
    """Redacts every text of an event, also in nested values; the last to change its fields."""

    def __init__(self, redact: Redactor) -> None:
        self._text = redact.logged

    def __call__(self, logger: Any, method: str, event: Event) -> Event:
        return {
            self._text(str(key)): value if key in _NAMES else self._value(value, 0)
            for key, value in event.items()
        }

    def _value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if abs(value) < float("inf") else str(value)  # JSON has no NaN
        if depth > 5:
            return HIDDEN  # it may contain itself
        if isinstance(value, Mapping):
            return {self._text(str(k)): self._value(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | Set):
            return [self._value(each, depth + 1) for each in value]
        if isinstance(value, timedelta):
            return value.total_seconds()
        text = value.isoformat() if isinstance(value, datetime | date) else str(value)
        return self._text(text)


# --- forms ---------------------------------------------------------------------------------------
def _exception_in_a_line(traces: bool, logger: Any, method: str, event: Event) -> Event:
    """Make one line of an exception; with `traces` keep its traceback beside it."""
    error = event.pop("exception", None)
    event.pop("stack_info", None)
    if isinstance(error, BaseException):
        event["raised" if "error" in event else "error"] = _in_a_line(error)
        if traces:
            event["exception"] = "".join(traceback.format_exception(error))
    return event


def _in_a_line(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}{words and ': ' + words}{at}"


def _json(*, plain: bool) -> list[Any]:
    """Return the last processors for JSON; `plain`: in ASCII."""
    return [_in_order, JSONRenderer(_dumps, ensure_ascii=plain)]


def _in_order(logger: Any, method: str, event: Event) -> Event:
    """Put the names that every line has first, in the same order."""
    first = ("timestamp", "level", "event", "logger")
    return {name: event.pop(name, None) for name in first} | dict(event)


def _dumps(event: Event, **options: Any) -> str:
    # Half a surrogate pair cannot be written, and some readers end a line at U+2028.
    text = json.dumps(event, **options)
    return _UNREADABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_UNREADABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _lines(colours: bool) -> list[Any]:
    """Return the last processors for people: `12:00:00 warning run ended source=zoom_eu …`."""
    dim, off = ("\x1b[2m", "\x1b[0m") if colours else ("", "")
    styles = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}
    columns = [
        Column("timestamp", KeyValueColumnFormatter(None, dim, off, str)),
        Column("level", partial(_level, styles if colours else {})),
        Column("event", KeyValueColumnFormatter(None, "", "", _with_escapes)),
        Column("", KeyValueColumnFormatter(dim, "", off, _word_or_json)),
    ]
    return [_for_people, ConsoleRenderer(columns=columns, sort_keys=False)]


def _level(styles: Mapping[str, str], key: str, value: object) -> str:
    style = styles.get(str(value), "")
    off = "\x1b[0m" if style else ""
    return f"{style}{value:<7}{off}"


def _for_people(logger: Any, method: str, event: Event) -> Event:
    """Leave out what is 0 or empty, and the names of our own loggers."""
    name = str(event.pop("logger", ""))
    kept = {_with_escapes(key): value for key, value in event.items() if value or value is False}
    if "stack" in kept:  # ConsoleRenderer would write it as lines after it
        kept["stack_info"] = kept.pop("stack")
    if name.partition(".")[0] not in ("etl", "callflow"):
        kept["logger"] = name
    return kept


def _word_or_json(value: object) -> str:
    """Return a field's value as JSON, or bare if it is one plain word."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[^\s\"'=\\]+", value) and value.isprintable()
        return value if plain else _with_escapes(json.dumps(value, ensure_ascii=False))
    return _with_escapes(json.dumps(value, ensure_ascii=False))


def _with_escapes(text: object) -> str:
    """Return `text` on one line, without what a terminal would obey."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def _is_unicode(stream: TextIO) -> bool:
    return stream.encoding is None or codecs.lookup(stream.encoding).name.startswith("utf")


def _has_colours(stream: TextIO) -> bool:
    with contextlib.suppress(ValueError, OSError):  # it may be closed
        console = Console(file=stream)
        return console.color_system is not None and not console.no_color
    return False


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; one that cannot be written is lost, and nothing else."""

    def change(self, stream: TextIO, formatter: logging.Formatter) -> None:
        """Write to `stream` from the next line on."""
        self.acquire()
        try:
            self.stream, self.formatter = stream, formatter
        finally:
            self.release()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; characters that `stream` cannot encode are escaped."""
        line, encoding = super().format(record), self.stream.encoding
        return line.encode(encoding, "backslashreplace").decode(encoding) if encoding else line

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Write that a line could not be made, if that can be written; never raise."""
        what = f"a line of this log could not be written: {type(sys.exception()).__name__}"
        instead = logging.LogRecord(record.name, record.levelno, "", 0, what, None, None)
        with contextlib.suppress(Exception):
            self.stream.write(self.format(instead) + self.terminator)
            self.flush()

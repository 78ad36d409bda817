"""The daemon's log: lines for people on a terminal, one JSON object a line elsewhere.

What is logged with structlog and what is logged with `logging` (also by libraries) takes the same
way: through one handler, where each text loses what must not leave, and into one form.
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
from pathlib import Path
from typing import Any, TextIO

import structlog
from rich.console import Console

from etl.config.redact import HIDDEN, Redactor
from etl.load.runs import Run

Event = MutableMapping[str, Any]

_LEVELS = {"complete": "info", "incomplete": "warning", "busy": "warning", "failed": "error"}
_QUIET = ("apscheduler", "uvicorn", "httpx", "httpcore")
"""Libraries whose INFO says nothing to an operator; that of httpx holds whole URLs."""
_TOLD_OTHERWISE = "apscheduler.scheduler"
"""Warns of rounds that it skips, in words about its own jobs; the daemon says which source."""
_ADOPTED = ("apscheduler", "uvicorn", "sqlalchemy", "distributed", "dask", "tornado", "bokeh")
"""Libraries that give their loggers handlers of their own."""


def configure(
    stream: TextIO,
    *,
    as_json: bool,
    redact: Redactor | None = None,
    level: int = logging.INFO,
) -> None:
    """Let all logs of this process go to `stream`, from `level` up; what `redact` hides does not.

    May be called again, at any time: other secrets, another stream. Call it after the import of
    `distributed`, which puts up handlers of its own. Nothing is raised when `stream` is closed or
    nobody reads it any more: the line is lost.

    JSON has `timestamp` (ISO 8601, UTC), `level`, `event`, `logger` and the fields. Lines for
    people have the local time; fields that are 0 or nothing are left out. An exception is one line
    (`error`); with `level` DEBUG, JSON has the traceback too (`exception`).
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
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=common,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _Told(traces=as_json and level <= logging.DEBUG),
            _Cleaned(redact or Redactor()),
            structlog.processors.TimeStamper("iso" if as_json else "%H:%M:%S", utc=as_json),
            _Json(plain=not _is_unicode(stream)) if as_json else _Lines(_has_colours(stream)),
        ],
    )
    root = logging.getLogger()
    handler = next((each for each in root.handlers if isinstance(each, _Handler)), None)
    if handler is None:
        root.addHandler(handler := _Handler(stream))
    handler.change(stream, formatter)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.getLogger(_TOLD_OTHERWISE).setLevel(logging.ERROR)
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in _ADOPTED:
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True


def run_ended(log: Any, run: Run) -> None:
    """Log a run that ended on the structlog logger `log`: one line with its counts.

    Its level is info for a complete run, error for a failed one, and warning for any other.
    """
    seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at else None
    getattr(log, _LEVELS[run.status])(
        "run ended",
        source=run.source,
        stream=run.stream,
        status=run.status,
        mode=run.mode,
        # It began by this machine's clock and ended by the database's.
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
    )


# --- what must not leave -------------------------------------------------------------------------
_NAMES = ("process", "source", "stream")
"""Fields that hold names of ours: a process' has numbers like a phone's, a source's may be a word
that is also somebody's password."""


class _Cleaned:
    """Cleans every text of an event, also in values that hold others; the last to change it."""

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
            return HIDDEN  # it may hold itself
        if isinstance(value, Mapping):
            return {self._text(str(k)): self._value(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | Set):
            return [self._value(each, depth + 1) for each in value]
        if isinstance(value, timedelta):
            return value.total_seconds()
        text = value.isoformat() if isinstance(value, datetime | date) else str(value)
        return self._text(text)


# --- forms ---------------------------------------------------------------------------------------
class _Told:
    """Makes one line of an exception; with `traces` its traceback is kept beside it."""

    def __init__(self, *, traces: bool) -> None:
        self._traces = traces

    def __call__(self, logger: Any, method: str, event: Event) -> Event:
        for name in ("stack_info", "exception"):
            event.pop(name, None)
        error = _exception(event.pop("exc_info", None))
        if error is not None:
            event["raised" if "error" in event else "error"] = _in_a_line(error)
            if self._traces:
                event["exception"] = "".join(traceback.format_exception(error))
        return event


def _exception(given: Any) -> BaseException | None:
    """What `exc_info` stands for: an exception, what sys.exc_info() gave, or the current one."""
    if isinstance(given, tuple):
        given = given[1]
    elif given and not isinstance(given, BaseException):
        given = sys.exception()
    return given if isinstance(given, BaseException) else None


def _in_a_line(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}{words and ': ' + words}{at}"


class _Json:
    """One JSON object, its names in the same order in every line; `plain`: in ASCII."""

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain

    def __call__(self, logger: Any, method: str, event: Event) -> str:
        first = ("timestamp", "level", "event", "logger")
        ordered = {name: event.pop(name, None) for name in first} | dict(event)
        text = json.dumps(ordered, ensure_ascii=self._plain)
        # Half a surrogate pair cannot be written, and some readers end a line at U+2028.
        return _UNREADABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_UNREADABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _Lines:
    """`12:00:00 warning run ended source=zoom_eu stream=flows …`"""

    def __init__(self, colours: bool) -> None:
        self._dim, self._off = ("\x1b[2m", "\x1b[0m") if colours else ("", "")
        self._levels = (
            {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}
            if colours
            else {}
        )

    def __call__(self, logger: Any, method: str, event: Event) -> str:
        time, level, name = (str(event.pop(key, "")) for key in ("timestamp", "level", "logger"))
        style = self._levels.get(level, "")
        parts = [
            f"{self._dim}{time}{self._off}",
            f"{style}{level:<7}{style and self._off}",
            _printable(str(event.pop("event", ""))),
        ]
        fields = {key: value for key, value in event.items() if value or value is False}
        if name.partition(".")[0] not in ("etl", "callflow"):
            fields["logger"] = name
        parts += [
            f"{self._dim}{_printable(key)}={self._off}{_quoted(value)}"
            for key, value in fields.items()
        ]
        return " ".join(parts)


def _quoted(value: object) -> str:
    if isinstance(value, str):
        plain = re.fullmatch(r"[^\s\"'=\\]+", value) and value.isprintable()
        return value if plain else _printable(json.dumps(value, ensure_ascii=False))
    return _printable(json.dumps(value, ensure_ascii=False))


def _printable(text: str) -> str:
    """`text` on one line, without what a terminal would obey."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _is_unicode(stream: TextIO) -> bool:
    return stream.encoding is None or codecs.lookup(stream.encoding).name.startswith("utf")


def _has_colours(stream: TextIO) -> bool:
    with contextlib.suppress(ValueError, OSError):  # it may be closed
        console = Console(file=stream)
        return console.color_system is not None and not console.no_color
    return False


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; what cannot be written is lost, and no more than that."""

    def change(self, stream: TextIO, formatter: logging.Formatter) -> None:
        """Write to `stream` from the next line on."""
        self.acquire()
        try:
            self.stream, self.formatter = stream, formatter
        finally:
            self.release()

    def format(self, record: logging.LogRecord) -> str:
        """The line; what `stream` has no characters for is escaped."""
        line, encoding = super().format(record), self.stream.encoding
        return line.encode(encoding, "backslashreplace").decode(encoding) if encoding else line

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say that a line could not be made, where that can be said; never raise."""
        what = f"a line of this log could not be written: {type(sys.exception()).__name__}"
        instead = logging.LogRecord(record.name, record.levelno, "", 0, what, None, None)
        with contextlib.suppress(Exception):
            self.stream.write(self.format(instead) + self.terminator)
            self.flush()

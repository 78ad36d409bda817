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
import urllib.parse
from collections.abc import Collection, Mapping, MutableMapping, Set
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import structlog
from rich.console import Console

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
    secrets: Collection[str] = (),
    level: int = logging.INFO,
) -> None:
    """Let all logs of this process go to `stream`, from `level` up; none of `secrets` does.

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
            _Cleaned(secrets),
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
_HIDDEN = "…"
_URL = re.compile(
    r"(?<![\w+.-])(\w[\w+.-]*://)([^\s\"'<>]*@)?([^\s\"'<>/?#]*[^\s\"'<>?#]*)([?#][^\s\"'<>]*)?"
)
_QUERY = re.compile(r"(?<=[^\s?])\?[\w.~%\[\]-]+=[^\s\"'<>]*")
_TOKEN = re.compile(r"\b(Bearer|Basic) +[\w.~+/=-]{16,}", re.IGNORECASE)
_NUMBER = re.compile(
    r"""
    (?P<kept>
        (?<!\d) \d{4}-\d\d-\d\d (?: [T_\ ] \d\d:?\d\d (?: :?\d\d (?:[.,]\d+)? )?
            (?: Z | [+-]\d\d:?\d\d )? )? (?!\d)                                # ISO 8601
      | (?<!\d) \d\d?[./]\d\d?[./]\d{4} (?!\d)                                 # 20.11.2026
      | (?<![\d.]) \d{1,3} (?:\.\d{1,3}){3} (?![\d.]*\d)                       # 127.0.0.1
      | (?<!\w) [0-9a-f]{8} (?:-[0-9a-f]{4}){3} -[0-9a-f]{12} (?!\w)           # a UUID
    )
  | (?: %2B | (?<!\w)\+ ) \(?\d [\d\ ().\-/]{5,30} \d                          # +49 (0)30 123456
  | (?<![\w.]) (?:
        \d{10,15}                                                              # 13800138000
      | 0\d{6,14}                                                              # 0301234
      | \(\d{2,5}\) [\ -]? \d{3,8} (?: [\ .-] \d{2,5} )*                       # (212) 555-0100
      | 0\d{1,4} (?: [\ ./-] (?!\d{4}-\d\d-\d\d) \d{2,8} ){1,6}                # 01 23 45 67 89
      | (?P<many> \d{1,4} (?: [\ .-] (?!\d{4}-\d\d-\d\d) \d{2,8} ){2,6} )      # 1-212-555-0100
      | \d{3}-\d{4}                                                            # 555-0100
    ) (?! (?!x\d)\w | [.:]\d )
    """,
    re.VERBOSE | re.IGNORECASE,
)


def clean(text: str) -> str:
    """`text` without phone numbers, URLs' queries and passwords, and tokens of Authorization.

    They become "…". Times, addresses of machines, ids and counts below 10,000,000,000 stay.
    """
    text = _QUERY.sub(f"?{_HIDDEN}", _TOKEN.sub(rf"\1 {_HIDDEN}", _URL.sub(_without_query, text)))
    return _NUMBER.sub(_without_phone, text)


def _without_query(found: re.Match[str]) -> str:
    scheme, user, place, query = found.groups(default="")
    return f"{scheme}{user and _HIDDEN + '@'}{place}{query and '?' + _HIDDEN}"


def _without_phone(found: re.Match[str]) -> str:
    digits = sum(character.isdigit() for character in found[0])
    fewest = 9 if found["many"] else 7  # several numbers may stand in a row
    return found[0] if found["kept"] or digits < fewest else _HIDDEN


class _Cleaned:
    """Cleans every text of an event, also in values that hold others; the last to change it."""

    def __init__(self, secrets: Collection[str]) -> None:
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        # The longest first: one may be a part of another.
        longest = sorted(forms, key=len, reverse=True)
        self._secrets = [form for form in longest if len(form) >= 6]
        # A short one is part of many words.
        short = "|".join(re.escape(form) for form in longest if len(form) < 6)
        self._words = re.compile(rf"(?<!\w)(?:{short})(?!\w)") if short else None

    def __call__(self, logger: Any, method: str, event: Event) -> Event:
        return {
            self._text(str(key)): value if key == "process" else self._value(value, 0)
            for key, value in event.items()  # a process' name has numbers like a phone's
        }

    def _text(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, _HIDDEN)
        if self._words is not None:
            text = self._words.sub(_HIDDEN, text)
        return clean(text)

    def _value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if abs(value) < float("inf") else str(value)  # JSON has no NaN
        if depth > 5:
            return _HIDDEN  # it may hold itself
        if isinstance(value, Mapping):
            return {self._text(str(k)): self._value(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | Set):
            return [self._value(each, depth + 1) for each in value]
        if isinstance(value, timedelta):
            return value.total_seconds()
        text = value.isoformat() if isinstance(value, datetime | date) else str(value)
        return self._text(text)


def _forms(secret: str) -> set[str]:
    """How a secret may be written; of a URL also its password, or what follows its host."""
    parts = [secret]
    with contextlib.suppress(ValueError):
        url = urllib.parse.urlsplit(secret)
        parts += [url.password, urllib.parse.unquote(url.password)] if url.password else []
        if url.scheme in ("http", "https") and len(url.path) > 1:
            parts.append(url.path)
    found = set()
    for part in parts:
        quoted = {urllib.parse.quote(part, safe=safe) for safe in ("", "/", "~/:@!$&'()*+,;=")}
        written = {repr(part)[1:-1], json.dumps(part)[1:-1]}
        found |= {part, *quoted, *written, urllib.parse.quote_plus(part)}
    return found


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

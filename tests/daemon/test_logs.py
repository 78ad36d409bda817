"""etl.daemon.logs: what really arrives at a stream, a pipe and a pseudo-terminal."""

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog
from alembic.runtime.migration import MigrationContext
from hypothesis import example, given
from hypothesis import strategies as st

from etl.config.redact import Redactor
from etl.daemon.logs import configure, run_ended
from etl.load.runs import Run

NOON = datetime(2026, 11, 20, 12, 0, 0, 123456, UTC)
SECRET = "s3cr&t/pa ss'wörd"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Restore logging and structlog, which belong to the whole process, at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Log:
    """A stream that a log goes to."""

    def __init__(self, *secrets: str, as_json: bool = True, level: int = logging.INFO) -> None:
        self.stream = io.StringIO()
        # pytest's own handlers raise what a line that cannot be made raises.
        logging.getLogger().handlers.clear()
        configure(self.stream, as_json=as_json, redact=Redactor(secrets), level=level)
        self.log = structlog.stdlib.get_logger("etl.daemon.daemon")

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        assert self.text == "" or self.text.endswith("\n")
        return [json.loads(line) for line in self.text.splitlines()]


def new_run(**values: Any) -> Run:
    named: dict[str, Any] = {"mode": "full", "started_at": NOON, "status": "complete"} | values
    named = {"finished_at": NOON + timedelta(seconds=1.5)} | named
    return Run("12345678901234567890123456789012", "zoom_4930123456", "flows", **named)


# --- JSON ----------------------------------------------------------------------------------------
def test_json_is_one_object_a_line() -> None:
    log = Log()
    before = datetime.now(UTC)
    log.log.info(
        "daemon started", workers=8, names=["a", "b"], when=NOON, took=timedelta(seconds=2)
    )
    logging.getLogger("etl.extract.http").warning("%s: asking %d times\nagain", "zoom_eu.flows", 2)
    one, two = log.lines
    assert list(one) == [
        "timestamp", "level", "event", "logger", "workers", "names", "when", "took",
    ]  # fmt: skip
    assert (one["level"], one["event"], one["logger"]) == (
        "info",
        "daemon started",
        "etl.daemon.daemon",
    )
    assert (one["workers"], one["names"], one["took"]) == (8, ["a", "b"], 2.0)
    assert one["when"] == "2026-11-20T12:00:00.123456+00:00"
    stamp = datetime.fromisoformat(one["timestamp"])
    assert before <= stamp <= datetime.now(UTC)
    assert stamp.utcoffset() == timedelta(0)
    del two["timestamp"]
    assert two == {
        "level": "warning", "event": "zoom_eu.flows: asking 2 times\nagain",
        "logger": "etl.extract.http",
    }  # fmt: skip


def test_libraries_take_the_same_way_and_the_talkative_ones_are_quiet() -> None:
    log = Log()
    logging.getLogger("apscheduler.scheduler").warning(
        "chat"
    )  # the daemon logs it in its own words
    MigrationContext.configure(dialect_name="postgresql")
    for name in (
        "apscheduler.executors", "uvicorn", "httpx", "httpcore.connection",
        "alembic.runtime.plugins",
    ):  # fmt: skip
        logging.getLogger(name).info("chat")
        logging.getLogger(name).warning("matter")
    logging.getLogger("sqlalchemy.engine").warning("matter")
    for name in ("distributed.worker", "etl.extract.http", "alembic.runtime.migration"):
        logging.getLogger(name).info("matter")
    assert [line["event"] for line in log.lines] == ["matter"] * 9
    assert log.lines[0]["logger"] == "apscheduler.executors"


def test_a_librarys_own_handlers_are_removed() -> None:
    theirs = io.StringIO()
    library = logging.getLogger("distributed.test_logs")
    library.addHandler(logging.StreamHandler(theirs))
    library.propagate = False
    log = Log()
    library.warning("worker lost")
    assert theirs.getvalue() == ""
    assert [line["event"] for line in log.lines] == ["worker lost"]


@pytest.mark.slow
def test_distributed_itself_is_heard() -> None:
    pytest.importorskip("distributed")
    code = (
        "import sys, logging, distributed\n"
        "from etl.daemon.logs import configure; from etl.config.redact import Redactor\n"
        "configure(sys.stdout, as_json=True, redact=Redactor(['sesame-open']))\n"
        "logging.getLogger('distributed.worker').warning('lost sesame-open')\n"
        "logging.getLogger('distributed.client').error('gone')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr == ""
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["lost …", "gone"]


def test_nothing_below_the_level() -> None:
    log = Log()
    log.log.debug("structlog's")
    logging.getLogger("etl.extract.http").debug("logging's")
    assert log.text == ""
    log = Log(level=logging.DEBUG)
    log.log.debug("structlog's")
    logging.getLogger("etl.extract.http").debug("logging's")
    assert len(log.lines) == 2


@example("", [float("nan"), float("-inf")])
@given(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                               lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                               max_leaves=5))  # fmt: skip
def test_any_value_makes_one_line_of_json(text: str, value: Any) -> None:
    log = Log()
    log.log.info(text, value=value, other=object())
    assert log.text.count("\n") == 1
    log.text.encode()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", log.text[:-1])
    (line,) = log.lines
    assert set(line) == {"timestamp", "level", "event", "logger", "value", "other"}

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(log.text, parse_constant=refuse)


def test_a_value_that_contains_itself_is_rendered() -> None:
    log = Log()
    endless: list[Any] = []
    endless.append(endless)
    log.log.info("endless", value=endless)
    assert "…" in log.text


def fail(log: Log) -> None:
    try:
        open_door("sesame-open\nand more")
    except ValueError:
        log.log.exception("beat failed", attempt=2)
        logging.getLogger("apscheduler").exception("job failed")


def open_door(word: str) -> None:
    raise ValueError(word)


@pytest.mark.parametrize("as_json", [True, False])
def test_an_exception_is_a_field_and_no_traceback(as_json: bool) -> None:
    log = Log("sesame-open", as_json=as_json)
    fail(log)
    assert log.text.count("\n") == 2
    assert "Traceback" not in log.text
    assert "sesame" not in log.text
    assert re.search(r"ValueError: … and more \(test_logs.py:\d+\)", log.text)
    if as_json:
        assert not any("exception" in line for line in log.lines)


def test_a_traceback_is_kept_at_debug_as_clean_as_the_rest() -> None:
    log = Log("sesame-open", level=logging.DEBUG)
    fail(log)
    for line in log.lines:
        assert "Traceback" in line["exception"]
        assert "in open_door" in line["exception"]
    assert "sesame-open" not in json.dumps([line["error"] for line in log.lines])
    assert "ValueError: sesame" not in log.text
    human = Log("sesame-open", as_json=False, level=logging.DEBUG)
    fail(human)
    assert "Traceback" not in human.text


def test_the_error_of_a_line_and_its_exception_are_both_logged() -> None:
    log = Log()
    log.log.error("stopped", error="for a reason", exc_info=ValueError("x"))
    (line,) = log.lines
    assert (line["error"], line["raised"]) == ("for a reason", "ValueError: x")


# --- runs ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "level"),
    [("complete", "info"), ("incomplete", "warning"), ("busy", "warning"), ("failed", "error")],
)
def test_a_run_is_one_line_with_its_counts(status: str, level: str) -> None:
    log = Log()
    run = new_run(
        status=status, requests=5, pages=4, records=1234567890, inserted=3, updated=2,
        unchanged=1234567885, deleted=1, rejected=6, warnings=7, absent=8, retries=2,
        throttled_seconds=0.12345, watermark_after=NOON, retry_at=NOON,
        error_kind="credentials", error="zoom_eu.flows, page 3: HTTP 401 → check it",
    )  # fmt: skip
    run_ended(log.log, run)
    (line,) = log.lines
    del line["timestamp"]
    assert line == {
        "level": level, "event": "run ended", "logger": "etl.daemon.daemon",
        "source": "zoom_4930123456", "stream": "flows", "status": status, "mode": "full",
        "seconds": 1.5, "requests": 5, "retries": 2, "throttled_seconds": 0.123, "pages": 4,
        "records": 1234567890, "inserted": 3, "updated": 2, "unchanged": 1234567885, "deleted": 1,
        "absent": 8, "rejected": 6, "warnings": 7,
        "watermark": "2026-11-20T12:00:00.123456+00:00",
        "retry_at": "2026-11-20T12:00:00.123456+00:00",
        "error_kind": "credentials", "error": "zoom_eu.flows, page 3: HTTP 401 → check it",
        "run_id": "12345678901234567890123456789012",
    }  # fmt: skip


def test_a_run_that_did_not_end_or_ended_before_its_start() -> None:
    log = Log()
    run_ended(log.log, new_run(finished_at=None))
    run_ended(log.log, new_run(finished_at=NOON - timedelta(hours=1)))
    assert [line["seconds"] for line in log.lines] == [None, 0]
    assert "trace_id" not in log.lines[0]


def test_a_run_that_was_traced_has_its_id_as_that_of_the_trace() -> None:
    log = Log()
    run_ended(log.log, run := new_run(), traced=True)
    assert log.lines[0]["trace_id"] == run.run_id


# --- lines for people ----------------------------------------------------------------------------
def test_a_line_for_people() -> None:
    log = Log(as_json=False)
    run_ended(log.log, new_run(requests=5, inserted=3))
    log.log.warning("odd", words="two words", flag=False, nothing=None, empty="", nested={"a": 1})
    logging.getLogger("uvicorn.error").error("port taken")
    run, odd, theirs = log.text.splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d info    run ended source=zoom_4930123456 stream=flows status=complete "
        r"mode=full seconds=1\.5 requests=5 inserted=3 run_id=12345678901234567890123456789012",
        run,
    )
    assert odd[9:] == 'warning odd words="two words" flag=false nested="{\\"a\\": 1}"' or (
        odd[9:] == 'warning odd words="two words" flag=false nested={"a": 1}'
    )
    assert theirs[9:] == "error   port taken logger=uvicorn.error"


@pytest.mark.slow
def test_the_time_is_local() -> None:
    code = (
        "import sys, logging; from etl.daemon.logs import configure\n"
        "configure(sys.stdout, as_json=False); logging.getLogger('etl').error('x')"
    )
    far = {"TZ": "XXX-13"}  # POSIX: 13 hours east of UTC
    before = datetime.now(UTC)
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | far, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    here = datetime.strptime(done.stdout[:8], "%H:%M:%S").replace(tzinfo=UTC)
    past = (here - before - timedelta(hours=13)).total_seconds() % 86400
    assert past < 120 or past > 86400 - 2


@pytest.mark.fault(41)
def test_text_never_moves_a_terminals_cursor_or_adds_a_line() -> None:
    log = Log(as_json=False)
    log.log.info("a\x1b[2Jb\nc\r\u202e", **{"k\n\x1b": "v\x1b]0;x\x07"}, other="two\nlines")
    assert log.text.count("\n") == 1
    assert re.fullmatch(r"[ -~]*", log.text[:-1])
    assert r"a\x1b[2Jb\nc\r\u202e" in log.text


def test_a_field_name_never_adds_a_second_line() -> None:
    """structlog's renderer for people writes some names on separate lines."""
    log = Log(as_json=False)
    odd = {"stack": "a\nb", "stack_info": "c\nd", "exception": "e\nf", "logger_name": "g\nh"}
    log.log.info("odd", **odd)
    assert log.text.count("\n") == 1
    assert 'stack_info="a\\nb"' in log.text


@contextlib.contextmanager
def terminal() -> Iterator[tuple[TextIO, Any]]:
    """Yield a pseudo-terminal: the stream that a process writes to, and what a person reads."""
    ours, theirs = os.openpty()
    with open(theirs, "w", encoding="utf-8") as stream:  # noqa: PTH123
        yield stream, lambda: os.read(ours, 65536).decode()
    os.close(ours)


@pytest.mark.slow
def test_a_terminal_has_colours_where_something_is_wrong() -> None:
    code = (
        "import sys, structlog; from etl.daemon.logs import configure\n"
        "configure(sys.stderr, as_json=False)\n"
        "log = structlog.stdlib.get_logger('etl.daemon.daemon')\n"
        "log.info('good', n=1); log.warning('odd'); log.error('bad')"
    )

    def shown(**env: str) -> str:
        with terminal() as (stream, read):
            clear = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
            subprocess.run(
                [sys.executable, "-c", code], stderr=stream, env=clear | {"TERM": "xterm"} | env,
                check=True, timeout=60,
            )  # fmt: skip
            seen = read()
            assert isinstance(seen, str)
            return seen

    good, odd, bad = shown().splitlines()
    assert re.fullmatch(
        r"\x1b\[2m\d\d:\d\d:\d\d\x1b\[0m info    good \x1b\[2mn\x1b\[0m=1\x1b\[0m", good
    )
    assert "\x1b[33mwarning\x1b[0m odd" in odd
    assert "\x1b[31merror  \x1b[0m bad" in bad
    for plain in (shown(NO_COLOR="1"), shown(TERM="dumb")):
        assert "good n=1" in plain
        assert "\x1b" not in plain


# --- what must not leave -------------------------------------------------------------------------
@pytest.mark.fault(72)
@pytest.mark.parametrize("as_json", [True, False])
def test_a_secret_is_hidden_wherever_it_stands(as_json: bool) -> None:
    log = Log(SECRET, "abc", as_json=as_json)
    said = {"in": [{"deep": (f"x{SECRET}y", {SECRET})}], SECRET: 1}
    log.log.info(f"is {SECRET}", field=SECRET, nested=said, error=ValueError(SECRET), abc="abc")
    log.log.info("%s and %s", SECRET, "abc")
    logging.getLogger(f"etl.{SECRET}").warning("is %s", SECRET)
    logging.getLogger("etl").warning("/a?x=1&b=s3cr%26t%2Fpa%20ss%27w%C3%B6rd")
    logging.getLogger("etl").warning("form b=s3cr%26t%2Fpa+ss%27w%C3%B6rd")
    logging.getLogger("etl").warning("%r", {"k": SECRET})
    structlog.contextvars.bind_contextvars(bound=SECRET)
    try:
        log.log.info("bound")
    finally:
        structlog.contextvars.clear_contextvars()
    assert not re.search(r"s3cr|rd\b|abc|[^a-z]pa[ %+]", log.text), log.text
    assert log.text.count("\n") == 7


def test_a_secret_that_is_the_start_of_another_leaves_no_rest() -> None:
    log = Log("sesame", "sesame-open-wide")
    log.log.info("say sesame-open-wide")
    assert log.lines[0]["event"] == "say …"


def test_a_short_secret_cuts_no_word() -> None:
    log = Log("eu", "", "x")
    log.log.info("zoom_eu next: eu, x!")
    assert log.lines[0]["event"] == "zoom_eu next: …, …!"


def test_the_password_and_the_path_of_a_secret_url_are_secret_too() -> None:
    log = Log(
        "https://hooks.example/services/T0/B1", "postgresql+psycopg://me:p%40ssword@db/callflow"
    )
    log.log.info("POST /services/T0/B1, password p@ssword or p%40ssword; callflow at db")
    assert log.lines[0]["event"] == "POST …, password … or …; callflow at db"


def test_configured_again_other_secrets_hold_and_nothing_is_said_twice() -> None:
    log = Log("first-secret")
    previous = log.log
    configure(log.stream, as_json=True, redact=Redactor(["second-secret"]))
    previous.info("first-secret second-secret")
    assert [line["event"] for line in log.lines] == ["first-secret …"]
    other = io.StringIO()
    configure(other, as_json=False)
    previous.info("moved")
    assert len(log.lines) == 1
    assert other.getvalue().endswith("info    moved\n")


def test_while_it_is_configured_no_line_is_lost() -> None:
    log = Log()
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            configure(log.stream, as_json=True, redact=Redactor([uuid.uuid4().hex]))

    thread = threading.Thread(target=change)
    thread.start()
    for n in range(500):
        log.log.info("line", n=n)
    done.set()
    thread.join()
    assert [line["n"] for line in log.lines] == list(range(500))


# --- streams that end ----------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.fault(63)
@pytest.mark.parametrize("as_json", [True, False])
def test_a_pipe_without_a_reader_ends_nothing(
    as_json: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    configure(stream, as_json=as_json)
    log = structlog.stdlib.get_logger("etl.daemon.daemon")
    for n in range(2000):
        log.info("to a closed pipe", n=n, filled="x" * 100)
    logging.getLogger("uvicorn").error("to a closed pipe")
    with contextlib.suppress(BrokenPipeError):
        stream.close()
    log.error("to a closed stream")
    assert capfd.readouterr() == ("", "")
    other = io.StringIO()
    configure(other, as_json=as_json)
    log.info("heard again")
    assert "heard again" in other.getvalue()


@pytest.mark.fault(63)
def test_a_full_disk_ends_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    stream = full.open("w")
    configure(stream, as_json=True)
    structlog.stdlib.get_logger("etl.daemon.daemon").error("to nowhere")
    with contextlib.suppress(OSError):
        stream.close()
    assert capfd.readouterr() == ("", "")


def test_a_line_that_cannot_be_made_is_named_and_the_next_is_written() -> None:
    log = Log()

    class Wordless:
        def __str__(self) -> str:
            raise RuntimeError

    logging.getLogger("etl.extract.http").warning("%d of %d", "one")
    log.log.info("value", value=Wordless())
    log.log.info("next")
    assert [line["event"] for line in log.lines] == [
        "a line of this log could not be written: TypeError",
        "a line of this log could not be written: RuntimeError",
        "next",
    ]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_stream_that_knows_ascii_only_gets_all_lines(as_json: bool) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    configure(stream, as_json=as_json)
    structlog.stdlib.get_logger("etl.daemon.daemon").info("größer → ende")
    (line,) = raw.getvalue().decode("ascii").splitlines()
    if as_json:
        assert json.loads(line)["event"] == "größer → ende"
    else:
        assert line.endswith(r"gr\xf6\xdfer \u2192 ende")
    stream.detach()

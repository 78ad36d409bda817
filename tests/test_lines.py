"""Runs and streams as a person reads them in a terminal of 80 columns."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from etl.commands.lines import run_line, stream_line
from etl.commands.output import print_lines
from etl.load.runs import Run
from etl.status.health import StreamHealth

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ERROR = "a.flows: the provider said no, in [bold] words that are long → ask it " + "again " * 20


def printed(markup: str, *, terminal: bool, indent: int = 4) -> list[str]:
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, no_color=True,
                      emoji=False, soft_wrap=True, highlight=False)  # fmt: skip
    print_lines(console, markup, indent)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def run(**given: object) -> Run:
    named: dict[str, Any] = {"status": "complete", **given}
    end = NOON + timedelta(seconds=12.34)
    return Run("id", "alibaba_demo", "contact_flows", "full", NOON, end, **named)


def test_a_run_has_its_counts_and_fits_a_terminal() -> None:
    line = run_line(run(records=5000, inserted=5000, requests=5))
    assert printed(line, terminal=False) == [
        "alibaba_demo.contact_flows complete   5,000 new (5 requests, 12.3 s)"
    ]
    assert "(1 request, " in run_line(run(requests=1))
    assert "7 read, nothing written" in run_line(run(status="failed", records=7))


def test_a_stream_has_its_times_on_a_separate_line() -> None:
    known = StreamHealth("z", "flows", "zoom", "good", stale=False, rows=1200, age=75.0,
                         watermark=NOON, last_full_at=NOON)  # fmt: skip
    assert printed(stream_line(known), terminal=False) == [
        "z.flows                    good       1,200 rows, complete 1m 15s ago",
        "    watermark 2026-11-21 12:00:00+00, last full scan 2026-11-21 12:00:00+00",
    ]
    never = StreamHealth("z", "flows", "zoom", "never run", stale=False)
    assert printed(stream_line(never), terminal=False) == ["z.flows                    never run"]


def test_a_stale_stream_says_so_beside_its_state() -> None:
    stale = StreamHealth("z", "flows", "zoom", "good", stale=True)
    assert printed(stream_line(stale), terminal=False) == ["z.flows                    stale"]
    failed = StreamHealth("z", "flows", "zoom", "failed", stale=True, rows=1)
    (line,) = printed(stream_line(failed), terminal=False)
    assert line == "z.flows                    failed, stale 1 rows"


def test_a_long_message_is_broken_between_words_on_a_terminal_only() -> None:
    line = run_line(run(status="failed", error=ERROR))
    whole = printed(line, terminal=False)
    assert whole[1] == "    " + ERROR
    first, *rest = printed(line, terminal=True)
    assert first == whole[0]
    assert len(rest) > 1
    assert all(len(each) <= 80 and each.startswith("    ") for each in rest)
    assert " ".join(" ".join(rest).split()) == " ".join(ERROR.split())


def test_what_is_not_there_to_be_read_is_said_in_words() -> None:
    lacks = run(
        status="not_available", error_kind="not_available", error="a.b: no → look", requests=1
    )
    assert printed(run_line(lacks), terminal=False) == [
        "alibaba_demo.contact_flows not available nothing read (1 request, 12.3 s)",
        "    a.b: no → look",
    ]
    ended = run(status="not_available", error_kind="ended", requests=1)
    (line,) = printed(run_line(ended), terminal=False)
    assert line == "alibaba_demo.contact_flows ended      nothing read (1 request, 12.3 s)"
    known = StreamHealth("z", "flows", "zoom", "not available", stale=False, rows=0)
    assert printed(stream_line(known), terminal=False) == [
        "z.flows                    not available 0 rows"
    ]

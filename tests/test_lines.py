"""Runs and streams as a person reads them in a terminal of 80 columns."""

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from etl.commands import grid, lines
from etl.commands.flow_lines import change_table
from etl.commands.lines import run_line, stream_line
from etl.commands.output import print_lines, print_rows
from etl.commands.output import zone as zone_of
from etl.commands.progress import phase, print_runs
from etl.load.runs import Run
from etl.status.health import Leftover, StreamHealth
from etl.status.words import local_time
from etl.sync.job import Reached

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ERROR = "a.flows: the provider said no, in [bold] words that are long → ask it " + "again " * 20


def console_of(width: int = 80, *, terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, no_color=True,
                   color_system=None, emoji=False, soft_wrap=True, highlight=False)  # fmt: skip


def shown(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def printed(markup: str, *, terminal: bool, indent: int = 4) -> list[str]:
    console = console_of(terminal=terminal)
    print_lines(console, markup, indent)
    return shown(console)


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
    assert line == "z.flows                    failed, stale 1 row"


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


# --- tables --------------------------------------------------------------------------------------
LONG = "twilio_emea_contact_centre_production_01"
BERLIN = ZoneInfo("Europe/Berlin")
AWKWARD = (
    "投诉受理贵宾专线" * 20 + " \x1b[31m\u202e " + "word " * 30 + "https://x.example/" + "y" * 90
)


def table(runs: Sequence[Run], width: int) -> list[str]:
    console = console_of(width)
    names = [f"{each.source}.{each.stream}" for each in runs]
    assert list(print_runs(console, names, runs)) == runs
    return shown(console)


def test_runs_are_a_table_whose_numbers_end_below_their_titles() -> None:
    most = run(records=1_000_000, inserted=1_000_000, requests=1000)
    few = replace(run(records=60, updated=1, unchanged=58, deleted=1, requests=2), source="zoom")
    assert table([most, few], 80) == [
        "stream                      status      records    new  changed  gone    took",
        "alibaba_demo.contact_flows  complete  1,000,000 1,000,000     0     0  12.3 s",
        "zoom.contact_flows          complete         60      0        1     1  12.3 s",
    ]
    title, _, last = table([most, few], 120)
    assert title.endswith("took  unchanged  requests")
    assert last.endswith("12.3 s         58         2")
    long = replace(few, finished_at=NOON + timedelta(seconds=3700))
    assert " ".join(table([long], 80)[1].split()) == "zoom.contact_flows complete 60 0 1 1 1h 1m 58"


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(width: int) -> None:
    failed = run(status="failed", error=f"{LONG}.contact_flows, page 1: {AWKWARD}")
    runs = [
        replace(failed, source=LONG),
        run(records=1_000_000, inserted=1_000_000, updated=10**6, deleted=10**6, rejected=7),
        run(status="not_available", error_kind="ended", error="gone → look", warnings=2),
    ]
    streams = [
        StreamHealth(LONG, "contact_flows", "zoom", "not configured", stale=True, rows=10**6,
                     age=10**6, problem=AWKWARD, advice="look", watermark=NOON, last_full_at=NOON),
        StreamHealth("z", "flows", "zoom", "good", stale=False,
                     leftovers=(Leftover("z/old", "no longer configured", "forget"),)),
    ]  # fmt: skip
    console = console_of(width)
    print_rows(console, lines.PAST, [lines.past_row(each, BERLIN) for each in runs])
    print_rows(console, lines.STREAMS, [lines.stream_row(each, NOON, None) for each in streams])
    found = [*table(runs, width), *shown(console)]
    words = {word for line in found for word in line.split()}
    assert "https://x.example/" + "y" * 90 in words
    assert all(
        cell_len(line) <= width for line in found if "https:" not in line and LONG not in line
    )
    assert not set("\x1b\u202e") & set("".join(found))
    said = " ".join(" ".join(found).split())
    assert said.count("word " * 20) or width < 120
    for each in ("7 rejected", "2 values kept in extra", "gone → look", "z/old: no longer"):
        assert each in said
    assert f"{LONG}.contact_flows, page 1" not in said  # the row has the name


def test_a_long_name_costs_the_other_rows_no_column() -> None:
    runs = [replace(run(records=5, inserted=5), source=LONG), run(records=7, updated=7)]
    assert table(runs, 80) == [
        "stream                            status      records    new  changed  gone",
        f"{LONG}.contact_flows",
        "                                  complete          5      5        0     0",
        "alibaba_demo.contact_flows        complete          7      0        7     0",
    ]


def test_what_does_not_fit_in_columns_stands_below_in_words() -> None:
    console = console_of()
    known = StreamHealth("zoom", "flows", "zoom", "failed", stale=False, rows=1200, age=75.0,
                         watermark=NOON, last_full_at=NOON - timedelta(hours=2),
                         problem="zoom.flows: no", advice="ask")  # fmt: skip
    other = replace(known, source="another_source_name", state="good", problem=None, rows=1)
    print_rows(console, lines.STREAMS,
               [lines.stream_row(each, NOON, BERLIN) for each in (known, other)])  # fmt: skip
    assert shown(console) == [
        "stream                     state    rows    complete  full scan",
        "zoom.flows                 failed  1,200  1m 15s ago     2h ago",
        "    watermark 2026-11-21 13:00 CET (12:00 UTC)",
        "    no → ask",
        "another_source_name.flows  good        1  1m 15s ago     2h ago",
        "    watermark 2026-11-21 13:00 CET (12:00 UTC)",
    ]
    wide = console_of(120)
    print_rows(wide, lines.STREAMS, [lines.stream_row(known, NOON, UTC)])
    assert shown(wide)[1:] == [
        "zoom.flows  failed  1,200  1m 15s ago     2h ago  2026-11-21 12:00 UTC",
        "    no → ask",
    ]
    past = console_of()
    print_rows(past, lines.PAST, [lines.past_row(run(records=5, inserted=5, requests=1), BERLIN)])
    assert shown(past) == [
        "started                           stream                      status      took",
        "2026-11-21 13:00 CET (12:00 UTC)  alibaba_demo.contact_flows  complete  12.3 s",
        "    full, 1 request, 5 records, 5 new",
    ]


def test_chinese_is_broken_between_its_characters_and_stays_in_the_line() -> None:
    found = [line.plain for line in grid.hanging(Text("a " + "投" * 100), 40, 4)]
    assert found == ["a", *["    " + "投" * 18] * 5, "    " + "投" * 10]


@pytest.mark.parametrize(
    ("time", "zone", "expected"),
    [
        (NOON, BERLIN, "2026-11-21 13:00 CET (12:00 UTC)"),
        (NOON - timedelta(days=120), BERLIN, "2026-07-24 14:00 CEST (12:00 UTC)"),
        (NOON, UTC, "2026-11-21 12:00 UTC"),
        (NOON, ZoneInfo("Europe/London"), "2026-11-21 12:00 UTC"),
        (NOON + timedelta(hours=9), ZoneInfo("Asia/Shanghai"),
         "2026-11-22 05:00 CST (11-21 21:00 UTC)"),
        (datetime.max.replace(tzinfo=UTC), ZoneInfo("Asia/Shanghai"), "9999-12-31 23:59 UTC"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), BERLIN,
         "9999-12-31 23:59 UTC-12:00"),
    ],
)  # fmt: skip
def test_a_time_is_said_in_the_zone_of_the_user_and_in_utc(
    time: datetime, zone: tzinfo, expected: str
) -> None:
    assert local_time(time, zone) == expected


def test_only_a_terminal_is_in_the_zone_of_this_machine() -> None:
    assert zone_of(console_of()) is None
    assert zone_of(console_of(terminal=False)) is UTC


def test_the_last_line_counts_everything_together() -> None:
    runs = [run(records=5, inserted=3, updated=2, requests=7), run(status="failed", requests=1)]
    plain = Text.from_markup(lines.totals(runs, 75.5)).plain
    assert plain == (
        "2 streams, 1 failed: 5 records, 3 new, 2 changed, 0 gone (8 requests, 1m 16s)"
    )
    assert lines.totals(runs[:1], 0.52).startswith("1 stream: 5 records, ")


def test_changes_are_a_table_below_each_flow() -> None:
    def change(**given: object) -> dict[str, Any]:
        row = {"observed_at": NOON, "source": "z", "provider": "zoom", "account_id": "a",
               "flow_id": "f", "flow_name": "投诉", "modified_by": None, "modified_at": None,
               "entity": "flow", "entity_id": None, "entity_name": None, "change": "updated",
               "field": None, "old_value": None, "new_value": None}  # fmt: skip
        return {**row, **given}

    rows = [
        change(field="name", old_value="a" * 200, new_value="b " * 100, modified_by="Jo"),
        change(entity="step", entity_name="Menu 菜单", change="created", modified_by="Jo"),
    ]
    found = [line.plain for line in change_table(rows, BERLIN, 80)]
    assert found[:3] == [
        "seen                              source  flow",
        "2026-11-21 13:00 CET (12:00 UTC)  z       投诉",
        "    by Jo",
    ]
    assert found[3].startswith('    name            "aaa')
    assert found[-1] == "    step Menu 菜单  is new"
    assert all(cell_len(line) <= 80 for line in found)
    assert max(len(line.plain) for line in change_table(rows, UTC, 200)) > 100


def test_a_bar_names_what_its_run_does() -> None:
    assert phase(Reached("reading", 1)) == "reading"
    assert [phase(Reached("reading", 1, scan=scan)) for scan in (2, 3, 4)] == [
        "2nd reading", "3rd reading", "4th reading"
    ]  # fmt: skip
    assert phase(Reached("merging", 1, scan=2)) == "merging"

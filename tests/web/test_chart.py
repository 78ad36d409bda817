"""The bars of a stream's last runs, and the words that go with them."""

import re
from datetime import timedelta

import pytest

from etl.daemon.web.chart import HEIGHT, WIDTH, changes, chart, seconds, took
from tests.web.fleet import NOW, run


def height(path: str) -> float:
    found = re.fullmatch(r"M[\d.]+ ([\d.]+)h6v([\d.]+)h-6z", path)
    assert found, path
    top, up = float(found[1]), float(found[2])
    assert top >= 0
    assert top + up <= HEIGHT
    return up


def test_there_is_no_chart_of_no_runs() -> None:
    assert chart([]) is None


def test_the_newest_run_stands_at_the_right_and_the_tallest_bar_is_the_longest() -> None:
    runs = [
        run(started_at=NOW - timedelta(seconds=length), finished_at=NOW, inserted=rows)
        for length, rows in ((10, 0), (40, 3), (20, 12))
    ]
    shown = chart(runs)
    assert shown is not None
    assert [bar.x for bar in shown.bars] == [WIDTH - 24, WIDTH - 16, WIDTH - 8]
    assert [height(bar.duration) for bar in shown.bars] == [15, 30, 7.5]
    assert [bar.changed and height(bar.changed) for bar in shown.bars] == [11, 2.75, ""]
    assert (shown.longest, shown.most) == ("40s", "12 rows")
    assert shown.words == (
        "The last 3 runs: 3 complete; the longest took 40s, the most rows changed are 12."
    )


def test_a_run_that_failed_slowly_is_cut_and_leaves_the_good_ones_readable() -> None:
    lengths = ((300, "failed"), (30, "complete"), (31, "incomplete"), (15, "complete"))
    runs = [
        run(started_at=NOW - timedelta(seconds=length), finished_at=NOW, status=status)
        for length, status in lengths
    ]
    shown = chart(runs)
    assert shown is not None
    assert [height(bar.duration) for bar in (shown.bars[0], shown.bars[2])] == [15, 30]
    for bar in (shown.bars[1], shown.bars[3]):
        assert bar.duration == f"M{bar.x + 1} 2h6v3l-6 3zM{bar.x + 1} 32v-21l6 -3v24z"
    assert shown.longest == "30s"
    assert "the longest complete one took 30s" in shown.words
    alone = chart([run(status="failed"), run(status="failed", started_at=NOW, finished_at=NOW)])
    assert alone is not None
    assert height(alone.bars[1].duration) == 30  # of runs that all failed the longest is whole


def test_only_thirty_runs_are_shown() -> None:
    runs = [run(records=place, started_at=NOW - timedelta(hours=place)) for place in range(40)]
    shown = chart(runs)
    assert shown is not None
    assert [bar.x for bar in shown.bars] == list(range(0, WIDTH, 8))
    assert shown.bars[-1].title.startswith("2026-03-14 03:12:40 UTC")
    assert shown.words.startswith("The last 30 runs")


@pytest.mark.parametrize("status", ["failed", "incomplete", "busy"])
def test_a_run_that_did_not_end_well_has_its_own_mark(status: str) -> None:
    shown = chart([run(status=status), run()])
    assert shown is not None
    well, ill = shown.bars
    assert (well.status, well.mark) == ("complete", "")
    assert ill.status == status
    others = {chart([run(status=other)]) for other in ("failed", "incomplete", "busy")}
    assert len({other.bars[0].mark for other in others if other}) == 3
    assert ill.mark.startswith(f"M{WIDTH - 8 + 1.5} ")
    assert f"1 {status}" in shown.words


def test_runs_without_time_or_rows_have_bars_all_the_same() -> None:
    shown = chart([run(started_at=NOW, finished_at=NOW), run(finished_at=None)])
    assert shown is not None
    assert [height(bar.duration) for bar in shown.bars] == [0.5, 0.5]
    assert (shown.longest, shown.most) == ("0.0s", "no rows")
    assert shown.words.endswith("none changed a row.")


def test_a_clock_that_was_set_back_makes_no_bar_grow_downwards() -> None:
    assert seconds(run(started_at=NOW, finished_at=NOW - timedelta(hours=1))) == 0


def test_a_single_row_is_seen_beside_a_million() -> None:
    shown = chart([run(inserted=1), run(deleted=1_000_000)])
    assert shown is not None
    assert [height(bar.changed) for bar in shown.bars] == [11, 1]
    assert shown.most == "1.0M rows"


def test_the_words() -> None:
    assert changes(run()) == "nothing changed"
    assert changes(run(inserted=1200, updated=2, deleted=1, rejected=4)) == (
        "1,200 new, 2 changed, 1 gone, 4 rejected"
    )
    assert [took(each) for each in (0, 0.44, 9.94, 9.96, 65, 3725)] == [
        "0.0s", "0.4s", "9.9s", "10s", "1m 5s", "1h 2m"
    ]  # fmt: skip
    shown = chart([run(inserted=3, deleted=1)])
    assert shown is not None
    assert shown.bars[0].title == "2026-03-14 03:08:15 UTC, complete, 4.2s: 3 new, 1 gone"

"""When a source is due: crontab's meaning, each day once where clocks change, and no surprises."""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from etl.config import load as config
from etl.config.settings import Schedule
from etl.errors import ConfigError
from etl.status.timetable import after, due, gap
from etl.status.words import in_words, span

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
YEAR = 2026
# The last one's clocks go from 24:00 to 23:00, and from 0:00 to 1:00; Lord Howe's by half an hour.
ZONES = ("America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago")


def cron(line: str, zone: str = "UTC") -> Schedule:
    return Schedule(cron=line, timezone=zone)


def times(schedule: Schedule, moment: datetime) -> Iterator[datetime]:
    while True:
        moment = after(schedule, moment)
        yield moment


def in_zone(zone: str, *parts: int, fold: int = 0) -> datetime:
    year, month, day, hour, minute = parts
    return datetime(year, month, day, hour, minute, tzinfo=ZoneInfo(zone), fold=fold)


# --- the five fields -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "days"),
    [
        ("0 0 * * 0", {"Sun"}),
        ("0 0 * * 7", {"Sun"}),
        ("0 0 * * SUN", {"Sun"}),
        ("0 0 * * 1", {"Mon"}),
        ("0 0 * * 1-5", {"Mon", "Tue", "Wed", "Thu", "Fri"}),
        ("0 0 * * mon-FRI", {"Mon", "Tue", "Wed", "Thu", "Fri"}),
        ("0 0 * * 5-7", {"Fri", "Sat", "Sun"}),
        ("0 0 * * 0,6", {"Sun", "Sat"}),
        ("0 0 * * */2", {"Sun", "Tue", "Thu", "Sat"}),
    ],
)
def test_weekdays_are_crontab_s(line: str, days: set[str]) -> None:
    assert {time.strftime("%a") for time in islice(times(cron(line), NOON), 20)} == days


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("30 4 * * *", "11-22T04:30 11-23T04:30 11-24T04:30"),
        ("*/20 * * * *", "11-21T12:20 11-21T12:40 11-21T13:00"),
        ("5-7 13 * * *", "11-21T13:05 11-21T13:06 11-21T13:07"),
        ("10-50/20 * * * *", "11-21T12:10 11-21T12:30 11-21T12:50"),
        ("0 9,13,22 * * *", "11-21T13:00 11-21T22:00 11-22T09:00"),
        ("0 0 1 JAN,jul *", "01-01T00:00 07-01T00:00 01-01T00:00"),
        ("0 0 30 * *", "11-30T00:00 12-30T00:00 01-30T00:00"),
    ],
)
def test_lists_ranges_steps_and_names(line: str, expected: str) -> None:
    found = islice(times(cron(line), NOON), 3)
    assert " ".join(time.strftime("%m-%dT%H:%M") for time in found) == expected


def test_if_both_days_are_restricted_either_one_matches() -> None:
    found = [time.date() for time in islice(times(cron("0 0 13 * FRI"), NOON), 5)]
    assert found == [
        date(2026, *each) for each in ((11, 27), (12, 4), (12, 11), (12, 13), (12, 18))
    ]


NUMBERS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}


@st.composite
def fields(draw: st.DrawFn, name: str) -> tuple[str, frozenset[int]]:
    """Return a field of a line, and the numbers that it means."""
    low, high = NUMBERS[name]
    kind = draw(st.sampled_from(["*", "*/", "list", "range", "range/"]))
    step = draw(st.integers(1, high)) if kind.endswith("/") else 1
    if kind.startswith("*"):
        return f"*/{step}" if step > 1 else "*", frozenset(range(low, high + 1, step))
    if kind == "list":
        some = draw(st.lists(st.integers(low, high), min_size=1, max_size=3))
        return ",".join(map(str, some)), frozenset(some)
    # A range of one number with a step is another thing: it goes on to the highest.
    first, last = sorted(
        draw(st.lists(st.integers(low, high), min_size=2, max_size=2, unique=True))
    )
    text = f"{first}-{last}" + (f"/{step}" if step > 1 else "")
    return text, frozenset(range(first, last + 1, step))


@settings(max_examples=60, deadline=None)
@given(st.tuples(*(fields(name) for name in NUMBERS)), st.integers(0, 10**6))
def test_a_line_means_what_five_loops_say(
    five: tuple[tuple[str, frozenset[int]], ...], later: int
) -> None:
    (_, minutes), (_, hours), (day, days), (_, months), (weekday, weekdays) = five
    start = NOON + timedelta(seconds=later)
    line = " ".join(text for text, _ in five)
    try:
        schedule = cron(line)
    except ValidationError:
        assert day[0] == "*" or min(days) > 29  # 30 February
        return
    expected = []
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    for date_ in (midnight + DAY * n for n in range(400)):
        by_day, by_weekday = date_.day in days, date_.isoweekday() % 7 in weekdays
        both = day.startswith("*") or weekday.startswith("*")
        if date_.month in months and ((by_day and by_weekday) if both else (by_day or by_weekday)):
            expected += [
                time
                for hour in sorted(hours)
                for minute in sorted(minutes)
                if (time := date_.replace(hour=hour, minute=minute)) > start
            ]
        if len(expected) > 30:
            break
    assert list(islice(times(schedule, start), min(30, len(expected)))) == expected[:30]


def test_a_time_is_met_to_the_second_and_never_again() -> None:
    schedule = cron("0 13 * * *")
    for before in (HOUR, timedelta(seconds=1), timedelta(microseconds=1)):
        assert after(schedule, NOON + HOUR - before) == NOON + HOUR
    for past in (timedelta(), timedelta(microseconds=1), timedelta(seconds=59)):
        assert after(schedule, NOON + HOUR + past) == NOON + HOUR + DAY


# --- clocks that change --------------------------------------------------------------------------
@cache
def planned_of_the_year(zone: str, hour: int, minute: int) -> list[datetime]:
    """Return when `hour`:`minute` first comes on each day, or the clocks have jumped over it."""
    found = []
    for day in (date(YEAR - 1, 12, 30) + DAY * n for n in range(370)):
        local = in_zone(zone, day.year, day.month, day.day, hour, minute)
        time = local.astimezone(UTC)
        if time.astimezone(local.tzinfo).replace(tzinfo=None) != local.replace(tzinfo=None):
            time -= 3 * HOUR
            while time.astimezone(local.tzinfo).replace(tzinfo=None) < local.replace(tzinfo=None):
                time += MINUTE
        found.append(time)
    return found


@pytest.mark.fault(67)
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ZONES), st.sampled_from([0, 0, 1, 1, 2, 2, 3, 23, 12]), st.integers(0, 59))
def test_every_day_of_the_year_comes_exactly_once(zone: str, hour: int, minute: int) -> None:
    expected = planned_of_the_year(zone, hour, minute)
    schedule = cron(f"{minute} {hour} * * *", zone)
    found = list(islice(times(schedule, expected[0]), len(expected) - 1))
    assert found == expected[1:]
    days = [time.astimezone(ZoneInfo(zone)).date() for time in found]
    assert days == [date(YEAR - 1, 12, 31) + DAY * n for n in range(len(days))]


CHANGES = {
    "America/New_York": (date(2026, 3, 8), date(2026, 11, 1)),
    "Europe/Berlin": (date(2026, 3, 29), date(2026, 10, 25)),
    "Australia/Lord_Howe": (date(2026, 4, 5), date(2026, 10, 4)),
    "America/Santiago": (date(2026, 4, 4), date(2026, 9, 5)),
}


@pytest.mark.fault(67)
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.integers(0, 3),
    st.integers(0, 59),
    st.integers(0, 1),
    st.integers(-12 * 3600, 36 * 3600),
)
def test_whenever_one_starts_about_a_change_it_is_the_next_time(
    zone: str, hour: int, minute: int, which: int, seconds: int
) -> None:
    expected = planned_of_the_year(zone, hour, minute)
    day = CHANGES[zone][which]
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=seconds)
    found = after(cron(f"{minute} {hour} * * *", zone), start)
    assert found == expected[bisect_right(expected, start)]


@pytest.mark.fault(67)
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("line", ["*/15 * * * *", "7,22,37,52 * * * *"])
def test_every_quarter_of_an_hour_goes_on_through_both_changes(zone: str, line: str) -> None:
    for day in CHANGES[zone]:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC) - 12 * HOUR
        found = [*islice(times(cron(line, zone), start), 200)]
        assert {later - earlier for earlier, later in pairwise(found)} == {15 * MINUTE}


def test_a_time_that_comes_twice_is_not_planned_for_the_past() -> None:
    """At 01:10 for the second time, 01:30 for the first time is over, and 01:30 was met."""
    start = in_zone("America/New_York", 2026, 11, 1, 1, 10, fold=1)
    found = after(cron("30 1 * * *", "America/New_York"), start)
    assert found == in_zone("America/New_York", 2026, 11, 2, 1, 30)
    assert found.tzinfo is UTC


def test_a_time_skipped_by_the_clock_change_comes_right_after_it() -> None:
    found = after(cron("30 2 * * *", "Europe/Berlin"), in_zone("Europe/Berlin", 2026, 3, 29, 0, 0))
    assert found == datetime(2026, 3, 29, 1, tzinfo=UTC)
    half = cron("10 2 * * *", "Australia/Lord_Howe")
    found = after(half, in_zone("Australia/Lord_Howe", 2026, 10, 4, 0, 0))
    assert found == in_zone("Australia/Lord_Howe", 2026, 10, 4, 2, 30)


# --- lines that are refused ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "line",
    ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31 2 */7", "60 * * * *", "* 24 * * *", "* * 0 * *",
     "* * * 13 *", "* * * * 8", "9-5 * * * *", "*/0 * * * *", "x * * * *", "* * * * FOO"],
)  # fmt: skip
def test_a_line_that_no_minute_meets_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "callflow.toml"
    path.write_text(f'[schedule]\ncron = "{line}"\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        config.load(path, {})
    assert "schedule.cron (line 2): expected " in str(caught.value)
    assert "crontab" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("line", ["0 0 29 2 *", "0 0 29 2 */7", "0 0 31 2 MON", "0 0 L * *"])
def test_a_line_that_is_seldom_met_is_not_refused(line: str) -> None:
    first, second = islice(times(cron(line, "Europe/Berlin"), NOON), 2)
    assert NOON < first < second


# --- what is due ---------------------------------------------------------------------------------
EVERY = Schedule(every=timedelta(minutes=10))


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (None, NOON),
        (timedelta(), NOON + 10 * MINUTE),
        (3 * MINUTE, NOON + 7 * MINUTE),
        (10 * MINUTE, NOON),
        (11 * MINUTE, NOON),
        (-HOUR, NOON + 10 * MINUTE),
        (-400 * DAY, NOON + 10 * MINUTE),
        (400 * DAY, NOON),
        (timedelta.max, NOON),
        (timedelta.min, NOON + 10 * MINUTE),
    ],
)
def test_an_interval_is_due_by_its_age(age: timedelta | None, expected: datetime) -> None:
    assert due(EVERY, age, NOON) == expected


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (None, NOON),
        (timedelta(), NOON + 5 * MINUTE),
        (4 * MINUTE, NOON + 5 * MINUTE),
        (56 * MINUTE, NOON),  # it was due at 11:05
        (54 * MINUTE, NOON + 5 * MINUTE),
        (-HOUR, NOON + 5 * MINUTE),
        (timedelta.max, NOON),
        (timedelta.min, NOON + 5 * MINUTE),
    ],
)
def test_a_cron_line_is_due_by_its_times(age: timedelta | None, expected: datetime) -> None:
    assert due(cron("5 * * * *"), age, NOON) == expected


def test_without_every_and_cron_it_is_every_quarter_of_an_hour() -> None:
    assert after(Schedule(), NOON) == NOON + 15 * MINUTE
    assert gap(Schedule(), NOON) == 15 * MINUTE
    assert in_words(Schedule()) == "every 15m"


def test_times_are_utc_whatever_the_moment_s_zone() -> None:
    moment = NOON.astimezone(ZoneInfo("Asia/Tokyo"))
    for schedule in (EVERY, cron("0 13 * * *")):
        assert after(schedule, moment) == after(schedule, NOON)
        assert after(schedule, moment).tzinfo is UTC


def test_an_interval_beyond_the_calendar_is_only_a_very_long_one() -> None:
    for text in ("999999w", "999999w999999w"):
        schedule = Schedule.model_validate({"every": text})
        assert after(schedule, NOON).year == due(schedule, timedelta(), NOON).year == 2126
        assert gap(schedule, NOON) > 36000 * DAY


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("*/15 * * * *", 15 * MINUTE),
        ("0 3 * * *", DAY),
        ("0 3 * * MON", 7 * DAY),
        ("0,10 * * * *", 50 * MINUTE),  # 12:10 and 13:00
    ],
)
def test_the_gap_is_the_one_between_the_next_two(line: str, expected: timedelta) -> None:
    assert gap(cron(line), NOON) == expected


# --- in words ------------------------------------------------------------------------------------
def test_schedules_in_words() -> None:
    assert in_words(Schedule(every=timedelta(hours=1, minutes=30))) == "every 1h 30m"
    assert in_words(Schedule.model_validate({"every": "1w1s"})) == "every 7d 1s"
    assert in_words(cron("*/15 * * * *", "Europe/Berlin")) == "cron */15 * * * * Europe/Berlin"


@pytest.mark.parametrize(
    ("seconds", "parts", "expected"),
    [(0, 4, "0s"), (0.4, 4, "0s"), (0.6, 4, "1s"), (59.7, 4, "1m"), (60, 4, "1m"),
     (3661, 4, "1h 1m 1s"), (3661, 2, "1h 1m"), (90061, 4, "1d 1h 1m 1s"), (86400, 1, "1d"),
     (86461, 2, "1d 1m"), (400 * 86400, 2, "400d")],
)  # fmt: skip
def test_spans(seconds: float, parts: int, expected: str) -> None:
    assert span(seconds, parts) == expected

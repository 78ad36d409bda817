"""One round per source at a time, none is lost, and no set clock makes a storm of them."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue
from random import Random
from statistics import fmean
from time import monotonic, process_time
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from etl.config.settings import Schedule
from etl.daemon import schedule
from etl.daemon.schedule import CRON_JITTER, Planned, jitter, next_runs, plan
from etl.status.timetable import after

pytestmark = pytest.mark.slow

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
DAY = timedelta(days=1)
PATIENCE = 30.0


def every(interval: timedelta, share: float = 0.0) -> Schedule:
    return Schedule(every=interval, jitter=share)


class Rounds:
    """What a scheduler submitted and reported."""

    def __init__(self) -> None:
        self.submitted: SimpleQueue[tuple[str, float, Future[None]]] = SimpleQueue()
        self.skipped: SimpleQueue[str] = SimpleQueue()

    def submit(self, source: str, late: float) -> "Future[None]":
        over: Future[None] = Future()
        self.submitted.put((source, late, over))
        return over

    def next(self) -> tuple[str, float, "Future[None]"]:
        return self.submitted.get(timeout=PATIENCE)


@contextmanager
def at_work(rounds: Rounds) -> Iterator[BackgroundScheduler]:
    """Yield a scheduler that was started, and paused."""
    made = schedule.scheduler(rounds.submit, rounds.skipped.put)
    made.start(paused=True)
    try:
        yield made
    finally:
        made.shutdown(wait=False)


@pytest.fixture
def rounds() -> Rounds:
    return Rounds()


@pytest.fixture
def timer(rounds: Rounds) -> Iterator[BackgroundScheduler]:
    with at_work(rounds) as made:
        yield made


def planned(
    timer: BackgroundScheduler,
    schedules: dict[str, Schedule],
    ages: dict[str, timedelta | None] | None = None,
    now: datetime = NOON,
    **more: Any,
) -> dict[str, datetime]:
    given = {"paused": {}, "random": Random(1), **more}
    plan(timer, schedules, {} if ages is None else ages, now=now, **given)
    return next_runs(timer)


# --- rounds --------------------------------------------------------------------------------------
@pytest.mark.fault(64)
def test_a_round_that_still_runs_is_not_doubled_and_each_miss_is_reported(
    timer: BackgroundScheduler, rounds: Rounds
) -> None:
    planned(timer, {"a": every(SECOND)}, now=datetime.now(UTC))
    start = monotonic()
    timer.resume()
    source, _, over = rounds.next()
    assert source == "a"
    for _ in range(2):
        assert rounds.skipped.get(timeout=PATIENCE) == "a"
    with pytest.raises(Empty):
        rounds.submitted.get_nowait()
    ended = monotonic()
    over.set_result(None)
    _, late, over = rounds.next()
    assert late <= monotonic() - ended + 1.0  # nothing of the times that were missed
    skips = 2 + rounds.skipped.qsize()
    assert skips <= monotonic() - start
    over.cancel()  # however it ends
    rounds.next()


def test_one_source_s_round_does_not_hold_another_s_up(
    timer: BackgroundScheduler, rounds: Rounds
) -> None:
    both = {"slow": every(SECOND), "quick": every(SECOND)}
    planned(timer, both, now=datetime.now(UTC))
    timer.resume()
    seen: Counter[str] = Counter()
    while seen["quick"] < 3:
        source, _, over = rounds.next()
        seen[source] += 1
        if source == "quick":
            over.set_result(None)
    assert seen["slow"] == 1


@pytest.mark.fault(64)
def test_missed_rounds_are_made_up_for_by_one_round_however_late(
    timer: BackgroundScheduler, rounds: Rounds
) -> None:
    """The scheduler was stopped for a year."""
    lines = {"a": every(MINUTE), "b": Schedule(cron="* * * * *", jitter=0.0)}
    planned(timer, lines, now=datetime.now(UTC) - 365 * DAY)
    start = process_time()
    timer.resume()
    got = [rounds.next() for _ in lines]
    assert process_time() - start < 5
    assert {source for source, _, _ in got} == {"a", "b"}
    for _, late, over in got:
        assert abs(late - 365 * 86400) < 60
        over.set_result(None)
    for time in next_runs(timer).values():
        assert timedelta() < time - datetime.now(UTC) <= MINUTE
    assert rounds.submitted.empty()


def test_a_round_that_ends_before_it_started_leaves_no_trace() -> None:
    """A round is cancelled when nothing is started any more; the next round still comes."""
    count: SimpleQueue[str] = SimpleQueue()

    def submit(source: str, late: float) -> "Future[None]":
        count.put(source)
        over: Future[None] = Future()
        over.cancel()
        return over

    rounds = Rounds()
    made = schedule.scheduler(submit, rounds.skipped.put)
    made.start(paused=True)
    try:
        planned(made, {"a": every(SECOND)}, now=datetime.now(UTC))
        made.resume()
        assert [count.get(timeout=PATIENCE) for _ in range(3)] == ["a", "a", "a"]
    finally:
        made.shutdown(wait=False)
    assert rounds.skipped.empty()


def test_a_source_that_cannot_be_submitted_is_planned_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried: SimpleQueue[str] = SimpleQueue()

    def submit(source: str, late: float) -> "Future[None]":
        tried.put(source)
        raise KeyError(source)

    made = schedule.scheduler(submit, lambda source: None)
    made.start(paused=True)
    try:
        planned(made, {"a": every(SECOND)}, now=datetime.now(UTC))
        made.resume()
        assert [tried.get(timeout=PATIENCE) for _ in range(2)] == ["a", "a"]
    finally:
        made.shutdown(wait=False)
    assert {record.levelname for record in caplog.records} == {"ERROR"}


# --- the plan ------------------------------------------------------------------------------------
def test_overdue_sources_are_spread_and_the_rest_is_planned_by_its_age(
    timer: BackgroundScheduler, seed: int
) -> None:
    lines = {f"s{n}": every(100 * MINUTE, 0.1) for n in range(2000)}
    ages: dict[str, timedelta | None] = dict.fromkeys(lines, 2 * HOUR)
    ages |= {"s0": None, "s1": 40 * MINUTE, "s2": -HOUR}
    found = planned(timer, lines, ages, random=Random(seed))
    assert found.pop("s1") == NOON + 60 * MINUTE
    assert found.pop("s2") == NOON + 100 * MINUTE
    offsets = sorted((time - NOON).total_seconds() for time in found.values())
    most = min(schedule.OVERDUE_EVERY * 1998, timedelta(minutes=10)).total_seconds()
    assert 0 <= offsets[0] < most / 100
    assert most * 0.99 < offsets[-1] <= most
    tenths = Counter(int(10 * offset / most) for offset in offsets)
    assert all(120 < count < 280 for count in tenths.values()), tenths  # 200 each


def test_a_few_overdue_sources_do_not_wait_long_because_their_interval_is_long(
    timer: BackgroundScheduler, seed: int
) -> None:
    found = planned(timer, {"a": every(DAY, 1.0), "b": every(DAY, 1.0)}, random=Random(seed))
    assert all(NOON <= time <= NOON + SECOND for time in found.values())


def test_without_jitter_overdue_sources_run_now(timer: BackgroundScheduler) -> None:
    lines = {"a": every(HOUR), "b": Schedule(cron="0 * * * *", jitter=0.0)}
    assert planned(timer, lines, {"a": 2 * HOUR, "b": 2 * HOUR}) == {"a": NOON, "b": NOON}


def test_the_first_times_of_many_sources_with_one_line_are_apart(
    timer: BackgroundScheduler, seed: int
) -> None:
    lines = {f"s{n}": Schedule(cron="0 13 * * *", jitter=0.1) for n in range(200)}
    found = planned(timer, lines, dict.fromkeys(lines, HOUR), random=Random(seed))
    assert min(found.values()) >= NOON + HOUR
    assert max(found.values()) <= NOON + HOUR + CRON_JITTER
    assert len({time.second for time in found.values()}) > 40


def test_a_source_that_was_asked_to_wait_waits(timer: BackgroundScheduler) -> None:
    lines = {name: every(HOUR) for name in "abc"}
    ages: dict[str, timedelta | None] = {"a": None, "b": 10 * MINUTE, "c": None}
    found = planned(timer, lines, ages, paused={"a": 5 * MINUTE, "b": 5 * MINUTE})
    assert found == {"a": NOON + 5 * MINUTE, "b": NOON + 50 * MINUTE, "c": NOON}


def test_planned_again_while_it_runs_it_is_not_doubled(
    timer: BackgroundScheduler, rounds: Rounds
) -> None:
    hourly = {"a": every(HOUR)}
    planned(timer, hourly, now=datetime.now(UTC))
    timer.resume()
    _, _, over = rounds.next()
    assert planned(timer, hourly, now=datetime.now(UTC)).keys() == {"a"}
    assert rounds.skipped.get(timeout=PATIENCE) == "a"
    assert rounds.submitted.empty()
    over.set_result(None)
    planned(timer, hourly, now=datetime.now(UTC))
    rounds.next()


def test_a_source_that_was_dropped_and_came_back_is_not_doubled(
    timer: BackgroundScheduler, rounds: Rounds
) -> None:
    planned(timer, {"a": every(HOUR), "b": every(HOUR)}, {"b": MINUTE}, now=datetime.now(UTC))
    timer.resume()
    _, _, over = rounds.next()
    schedule.drop(timer, {"b"})
    assert next_runs(timer).keys() == {"b"}
    planned(timer, {"a": every(HOUR)}, now=datetime.now(UTC))
    assert rounds.skipped.get(timeout=PATIENCE) == "a"
    over.set_result(None)
    schedule.drop(timer, set())
    assert next_runs(timer) == {}


def test_times_are_moved_one_way_only(timer: BackgroundScheduler) -> None:
    planned(timer, {"a": every(HOUR)}, {"a": timedelta()})
    to = NOON + HOUR
    schedule.bring_forward(timer, "a", to + MINUTE)
    assert next_runs(timer) == {"a": to}
    schedule.bring_forward(timer, "a", to - MINUTE)
    assert next_runs(timer) == {"a": to - MINUTE}
    schedule.put_off(timer, "a", to - HOUR)
    assert next_runs(timer) == {"a": to - MINUTE}
    schedule.put_off(timer, "a", to + DAY)
    assert next_runs(timer) == {"a": to + DAY}
    assert next_runs(timer)["a"].tzinfo is UTC
    for move in (schedule.bring_forward, schedule.put_off):
        move(timer, "gone", NOON)


def test_a_source_that_is_brought_forward_runs_at_once(
    timer: BackgroundScheduler, rounds: Rounds
) -> None:
    now = datetime.now(UTC)
    planned(timer, {"a": every(HOUR)}, {"a": timedelta()}, now=now)
    timer.resume()
    schedule.bring_forward(timer, "a", now)
    source, late, _ = rounds.next()
    assert source == "a"
    assert late < PATIENCE


# --- the next time -------------------------------------------------------------------------------
LINES = [
    every(SECOND),
    every(SECOND, 1.0),
    every(15 * MINUTE, 0.1),
    Schedule(cron="* * * * *", jitter=1.0),
    Schedule(cron="30 1 * * *", timezone="America/New_York"),
]


@pytest.mark.fault(65)
@pytest.mark.parametrize("line", LINES, ids=str)
@pytest.mark.parametrize("jump", [HOUR, -HOUR, 365 * DAY, -365 * DAY, timedelta(), None], ids=str)
def test_a_changed_clock_plans_one_time_after_now(
    line: Schedule, jump: timedelta | None, seed: int
) -> None:
    random = Random(seed)
    trigger = Planned(line, random)
    previous = None if jump is None else NOON - jump
    most = 1.5 * jitter(line, NOON)
    start = process_time()
    for _ in range(20):
        found = trigger.get_next_fire_time(previous, NOON)
        assert NOON < found <= after(line, NOON) + most
        assert found.tzinfo is UTC
    assert process_time() - start < 1


def test_intervals_keep_their_length_on_the_average(seed: int) -> None:
    for share in (0.0, 0.1, 1.0):
        trigger, now, periods = Planned(every(HOUR, share), Random(seed)), NOON, []
        for _ in range(4000):
            later = trigger.get_next_fire_time(now, now)
            periods.append((later - now) / HOUR)
            now = later
        assert abs(fmean(periods) - 1) < 0.05 * share + 1e-9
        assert min(periods) >= 1 - share / 2
        assert max(periods) <= 1 + share / 2
        assert max(periods) - min(periods) >= 0.95 * share


@pytest.mark.parametrize(
    ("line", "share", "most"),
    [
        ("0 3 * * *", 1.0, MINUTE),
        ("0 3 * * *", 0.0, timedelta()),
        ("*/5 * * * *", 0.1, 30 * SECOND),
        ("*/5 * * * *", 1.0, MINUTE),
        ("* * * * *", 0.5, 30 * SECOND),
    ],
)
def test_times_of_a_line_are_moved_on_a_little_and_never_back(
    line: str, share: float, most: timedelta, seed: int
) -> None:
    of_line = Schedule(cron=line, jitter=share)
    trigger, now, random = Planned(of_line, Random(seed)), NOON, Random(seed)
    moved = []
    for _ in range(300):
        meant = after(of_line, now)
        found = trigger.get_next_fire_time(None, now)
        moved.append(found - meant)
        now = found + random.random() * (after(of_line, found) - found) * 0.9
    assert timedelta() <= min(moved) <= max(moved) <= most
    assert max(moved) >= most * 0.9


def test_every_time_of_a_line_is_met_once_with_jitter(seed: int) -> None:
    line = Schedule(cron="0,1,30 * * * *", jitter=1.0)
    trigger, now, met = Planned(line, Random(seed)), NOON, []
    for _ in range(300):
        meant = after(line, now)
        now = trigger.get_next_fire_time(None, now)
        met.append(meant)
    assert len(set(met)) == 300
    assert [time.minute for time in met[:6]] == [1, 30, 0, 1, 30, 0]

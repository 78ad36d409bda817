"""One run at a time per account, a few per host, in order of arrival; what hangs is given up."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import SimpleQueue
from random import Random
from time import process_time
from typing import Any

import pytest
from pydantic import SecretStr

from etl.daemon.dispatch import SILENT, SPARE, Dispatch, Running
from etl.daemon.executors import Threads
from etl.errors import StoppedError
from etl.load.runs import Run
from etl.providers import named
from etl.providers.declare import streams_of
from etl.providers.twilio.source import TwilioSource
from etl.providers.zoom.source import ZoomSource
from etl.sync.selection import Unit, account, host, name_of

PATIENCE = 30.0
"""Seconds until a test that hangs fails."""


def zoom(name: str, owner: str = "", at: str = "zoom.example") -> list[Unit]:
    """Return a source with one stream."""
    source = ZoomSource(
        name=name,
        account_id=owner or name,
        client_id="c",
        client_secret=SecretStr("s"),
        base_url=f"https://{at}",
    )
    return [(source, stream) for stream in named("zoom").streams]


def twilio(name: str, number: int = 0) -> list[Unit]:
    """Return a source with two streams."""
    source = TwilioSource(
        name=name,
        account_sid=f"AC{number:032x}",
        auth_token=SecretStr("t"),
        streams=("flex_flows", "channels"),
    )
    return [(source, stream) for stream in streams_of(source, named("twilio"))]


def run_of(unit: Unit) -> Run:
    return Run("id", unit[0].name, unit[1].name, "full", datetime.now(UTC), status="complete")


@dataclass
class ByHand:
    """An executor whose runs end when the test says so, and what the dispatcher reported."""

    workers: int = 2
    now: float = 100.0
    launched: list[str] = field(default_factory=list)
    at_work: dict[str, tuple[Unit, "Future[Run]"]] = field(default_factory=dict)
    stops: dict[str, threading.Event] = field(default_factory=dict)
    ended: list[tuple[str, Any]] = field(default_factory=list)
    started: list[tuple[str, float]] = field(default_factory=list)
    broken: Callable[[str], bool] = lambda name: False
    queued: bool = False  # as on a cluster without a free thread: accepted, not started

    def __post_init__(self) -> None:
        self.dispatch = Dispatch(
            self.launch,
            workers=self.workers,
            ended=lambda unit, outcome: self.ended.append((name_of(unit), outcome)),
            started=lambda source, late: self.started.append((source, late)),
            clock=lambda: self.now,
        )

    def launch(self, unit: Unit, stop: threading.Event) -> "Future[Run]":
        name = name_of(unit)
        self.launched.append(name)
        self.stops[name] = stop
        if self.broken(name):
            raise RuntimeError("can't start new thread")
        future: Future[Run] = Future()
        if not self.queued:
            future.set_running_or_notify_cancel()
        self.at_work[name] = (unit, future)
        return future

    def end(self, name: str, error: BaseException | None = None) -> None:
        unit, future = self.at_work.pop(name)
        if error is None:
            future.set_result(run_of(unit))
        else:
            future.set_exception(error)

    def running(self, name: str) -> Running:
        (found,) = (each for each in self.dispatch.running().values() if name_of(each.unit) == name)
        return found

    def over(self) -> list[str]:
        return [name for name, _ in self.ended]


@pytest.fixture
def hand() -> ByHand:
    return ByHand()


# --- which is next -------------------------------------------------------------------------------
def test_a_silent_run_leaves_its_place_to_another_account_until_it_is_heard(hand: ByHand) -> None:
    for name in ("a", "b", "c", "d"):
        hand.dispatch.submit(zoom(name))
    assert hand.launched == ["a.flows", "b.flows"]
    units = [hand.at_work[name][0] for name in hand.launched]
    hand.now += SILENT + 1
    hand.dispatch.look_again()
    assert hand.launched == ["a.flows", "b.flows"]  # answers are not reported, as on a cluster
    for unit in units:
        hand.dispatch.heard(unit)
    hand.now += SILENT + 1
    hand.dispatch.heard(units[1])
    hand.dispatch.look_again()
    assert hand.launched == ["a.flows", "b.flows", "c.flows"]
    hand.now += SILENT + 1
    hand.dispatch.heard(units[0])
    hand.dispatch.heard(units[1])
    hand.dispatch.look_again()
    assert len(hand.launched) == 3  # c is silent in vain: a and b work again
    hand.end("c.flows")
    assert len(hand.launched) == 3
    hand.end("a.flows")
    assert hand.launched[-1] == "d.flows"


def test_silent_runs_get_a_limited_number_of_spare_slots(hand: ByHand) -> None:
    for n in range(SPARE * hand.workers + 5):
        hand.dispatch.submit(zoom(f"s{n}"))
    for _ in range(10):
        for unit, _future in list(hand.at_work.values()):
            hand.dispatch.heard(unit)
        hand.now += SILENT + 1
        hand.dispatch.look_again()
    assert len(hand.launched) == SPARE * hand.workers


def test_the_streams_of_a_source_run_in_turn(hand: ByHand) -> None:
    over = hand.dispatch.submit(twilio("t"))
    assert hand.launched == ["t.flex_flows"]
    hand.end("t.flex_flows")
    assert hand.launched == ["t.flex_flows", "t.channels"]
    assert not over.done()
    hand.end("t.channels")
    assert over.done()
    assert over.exception() is None
    assert hand.dispatch.running() == {}


def test_two_sources_of_one_account_do_not_run_at_once(hand: ByHand) -> None:
    first, second = twilio("a", 7), twilio("b", 7)
    hand.dispatch.submit(first)
    hand.dispatch.submit(second)
    hand.dispatch.submit(twilio("c", 8))
    assert hand.launched == ["a.flex_flows", "c.flex_flows"]
    hand.end("a.flex_flows")
    assert "b.flex_flows" not in hand.launched  # the first one's second stream comes before
    hand.end("a.channels")
    assert hand.launched[-1] == "b.flex_flows"


def test_a_host_uses_all_workers_without_delaying_other_hosts(hand: ByHand) -> None:
    for n in range(4):
        hand.dispatch.submit(zoom(f"slow{n}", at="slow.example"))
    hand.dispatch.submit(zoom("other", at="other.example"))
    assert hand.launched == ["slow0.flows", "slow1.flows", "other.flows"]
    hand.end("other.flows")
    assert len(hand.launched) == 3
    hand.end("slow1.flows")
    assert hand.launched[3:] == ["slow2.flows"]
    hand.dispatch.submit(zoom("late", at="other.example"))
    assert hand.launched[4:] == ["late.flows"]
    hand.end("slow0.flows")
    assert hand.launched[5:] == ["slow3.flows"]


def test_a_round_that_waits_for_its_account_does_not_hold_others_up(hand: ByHand) -> None:
    hand.dispatch.submit(zoom("a", "one"))
    hand.dispatch.submit(zoom("b", "one"))
    hand.dispatch.submit(zoom("c", "one"))
    hand.dispatch.submit(zoom("d", "two"))
    assert hand.launched == ["a.flows", "d.flows"]
    hand.end("a.flows")
    hand.end("b.flows")
    assert hand.launched == ["a.flows", "d.flows", "b.flows", "c.flows"]


def test_the_lag_is_reported_once_a_round(hand: ByHand) -> None:
    hand.dispatch.submit(twilio("a", 1), late=4.0)
    hand.dispatch.submit(twilio("b", 1), late=1.0)
    hand.dispatch.submit(twilio("c", 2), late=-3.0)
    hand.now += 10.0
    hand.end("a.flex_flows")
    hand.end("a.channels")
    assert hand.started == [("a", 4.0), ("c", 0.0), ("b", 11.0)]


def test_running_runs_are_listed_with_their_age(hand: ByHand) -> None:
    hand.dispatch.submit(twilio("t"))
    hand.now += 5.0
    ((pair, running),) = hand.dispatch.running().items()
    assert pair == ("t", "flex_flows")
    assert hand.dispatch.age(running) == 5.0
    hand.end("t.flex_flows")
    assert hand.dispatch.age(hand.running("t.channels")) == 0.0


# --- how a run ends ------------------------------------------------------------------------------
def test_every_outcome_is_reported_once_and_the_round_goes_on(hand: ByHand) -> None:
    hand.dispatch.submit(twilio("t"))
    bug = KeyError("a bug")
    hand.end("t.flex_flows", bug)
    hand.end("t.channels")
    (first, outcome), (second, run) = hand.ended
    assert (first, outcome, second) == ("t.flex_flows", bug, "t.channels")
    assert isinstance(run, Run)
    assert run.status == "complete"


def test_a_run_that_was_stopped_or_cancelled_is_reported_as_such() -> None:
    hand = ByHand(queued=True)
    over = hand.dispatch.submit(twilio("t"))
    hand.end("t.flex_flows", StoppedError("stopped"))
    _, future = hand.at_work.pop("t.channels")
    assert future.cancel()
    assert over.done()
    assert hand.over() == ["t.flex_flows", "t.channels"]
    assert all(isinstance(outcome, StoppedError) for _, outcome in hand.ended)


def test_an_executor_that_broke_is_reported_and_the_next_runs_go_on() -> None:
    hand = ByHand(broken=lambda name: name.startswith("a."))
    over = hand.dispatch.submit(twilio("a"))
    hand.dispatch.submit(zoom("b"))
    assert over.done()
    assert hand.over() == ["a.flex_flows", "a.channels"]
    assert all("can't start" in str(outcome) for _, outcome in hand.ended)
    hand.end("b.flows")
    assert hand.over()[2:] == ["b.flows"]


def test_a_callback_that_fails_holds_no_slot(caplog: pytest.LogCaptureFixture) -> None:
    """The disk may be full when the end of a run is logged."""

    def full(*what: Any) -> None:
        raise OSError("No space left on device")

    ends: list[Future[Run]] = []

    def launch(unit: Unit, stop: threading.Event) -> "Future[Run]":
        ends.append(Future())
        return ends[-1]

    dispatch = Dispatch(launch, workers=1, ended=full, started=full)
    first, second = dispatch.submit(zoom("a")), dispatch.submit(zoom("b"))
    for _ in range(2):
        ends.pop().set_exception(KeyError("a bug"))
    assert first.done()
    assert second.done()
    assert dispatch.wait(0)
    assert [each.levelname for each in caplog.records] == 4 * ["ERROR"]


def test_a_callback_that_fails_does_not_stop_the_queue(caplog: pytest.LogCaptureFixture) -> None:
    reported = []

    def ended(unit: Unit, outcome: Run | BaseException) -> None:
        reported.append(name_of(unit))
        raise OSError("No space left on device")

    def broken(unit: Unit, stop: threading.Event) -> "Future[Run]":
        raise RuntimeError("can't start new thread")

    dispatch = Dispatch(broken, workers=1, ended=ended)
    assert dispatch.submit(twilio("a")).done()
    assert dispatch.submit(twilio("b")).done()
    assert reported == ["a.flex_flows", "a.channels", "b.flex_flows", "b.channels"]
    assert len(caplog.records) == 4


# --- what hangs ----------------------------------------------------------------------------------
def test_a_run_that_is_given_up_frees_its_slot_and_is_reported_once(hand: ByHand) -> None:
    over = hand.dispatch.submit(twilio("a"))
    hand.dispatch.submit(zoom("x", at="flex-api.twilio.com"))
    hand.dispatch.submit(zoom("y", at="flex-api.twilio.com"))
    assert hand.launched == ["a.flex_flows", "x.flows"]
    hung = hand.running("a.flex_flows")
    hand.dispatch.give_up(hung, TimeoutError("no progress"))
    assert hung.stop.is_set()
    assert not hand.stops["x.flows"].is_set()
    assert hand.launched[2:] == ["a.channels"]  # the round goes on
    hand.dispatch.give_up(hung, TimeoutError("again"))
    hand.end("a.flex_flows")  # it ends after all, which changes nothing
    assert [(name, str(outcome)) for name, outcome in hand.ended] == [
        ("a.flex_flows", "no progress")
    ]
    assert hand.launched[3:] == []
    hand.end("a.channels")
    assert over.done()
    assert hand.launched[3:] == ["y.flows"]
    assert hand.over() == ["a.flex_flows", "a.channels"]


def test_a_run_that_ended_cannot_be_given_up(hand: ByHand) -> None:
    hand.dispatch.submit(twilio("a"))
    ended = hand.running("a.flex_flows")
    hand.end("a.flex_flows")
    hand.dispatch.give_up(ended, TimeoutError("too late"))
    assert hand.over() == ["a.flex_flows"]
    assert [*hand.dispatch.running()] == [("a", "channels")]
    assert not hand.stops["a.channels"].is_set()


def test_the_last_stream_that_is_given_up_ends_the_round(hand: ByHand) -> None:
    over = hand.dispatch.submit(zoom("a"))
    hand.dispatch.give_up(hand.running("a.flows"), TimeoutError("no progress"))
    assert over.done()
    assert hand.dispatch.wait(0)
    hand.dispatch.submit(zoom("b", "a"))
    assert hand.launched == ["a.flows", "b.flows"]


# --- the end -------------------------------------------------------------------------------------
def test_closed_it_starts_nothing_and_runs_under_way_go_on(hand: ByHand) -> None:
    first = hand.dispatch.submit(twilio("a", 1))
    waiting = hand.dispatch.submit(twilio("b", 1))
    hand.dispatch.close()
    assert waiting.cancelled()
    assert hand.dispatch.submit(zoom("c")).cancelled()
    assert not hand.stops["a.flex_flows"].is_set()
    assert not hand.dispatch.wait(0.01)
    hand.end("a.flex_flows")
    assert first.done()
    assert not first.cancelled()
    assert hand.launched == ["a.flex_flows"]
    assert hand.over() == ["a.flex_flows"]
    assert hand.dispatch.wait(0)


def test_stopping_asks_all_that_is_under_way(hand: ByHand) -> None:
    hand.dispatch.submit(zoom("a"))
    hand.dispatch.submit(zoom("b"))
    hand.dispatch.stop()
    assert all(stop.is_set() for stop in hand.stops.values())
    hand.end("a.flows", StoppedError("stopped"))
    hand.dispatch.submit(zoom("c"))
    assert not hand.stops["c.flows"].is_set()


def test_waiting_ends_with_the_last_run() -> None:
    go = threading.Event()
    threads = Threads()

    def work(unit: Unit) -> Run:
        go.wait(PATIENCE)
        return run_of(unit)

    ended: SimpleQueue[Unit] = SimpleQueue()
    dispatch = Dispatch(
        lambda unit, stop: threads.submit(work, unit),
        workers=2,
        ended=lambda unit, outcome: ended.put(unit),
    )
    dispatch.submit(zoom("a"))
    dispatch.submit(zoom("b"))
    assert not dispatch.wait(0.05)
    waited = threads.submit(dispatch.wait, 10 * PATIENCE)
    go.set()
    assert waited.result(PATIENCE)
    assert ended.qsize() == 2  # all was reported by then


@pytest.fixture
def hurried() -> Iterator[None]:
    """Let threads take turns after every few instructions."""
    previous = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(previous)


@pytest.mark.usefixtures("hurried")
def test_it_can_be_closed_at_any_instant() -> None:
    units = [zoom(f"s{n}") for n in range(6)]
    for _ in range(150):
        dispatch = Dispatch(launch_now, workers=3, ended=lambda unit, outcome: None)
        results: SimpleQueue[Future[None]] = SimpleQueue()

        def submit(
            some: list[list[Unit]],
            dispatch: Dispatch = dispatch,
            results: "SimpleQueue[Future[None]]" = results,
        ) -> None:
            for each in some:
                results.put(dispatch.submit(each))

        threads = [threading.Thread(target=submit, args=(units[n::2],)) for n in range(2)]
        for thread in threads:
            thread.start()
        dispatch.close()
        for thread in threads:
            thread.join(PATIENCE)
        assert dispatch.wait(PATIENCE)
        for _ in units:
            assert results.get(timeout=PATIENCE).done()


def launch_now(unit: Unit, stop: threading.Event) -> "Future[Run]":
    """Run the unit before returning its future, as a fast executor would."""
    future: Future[Run] = Future()
    future.set_result(run_of(unit))
    return future


# --- many ----------------------------------------------------------------------------------------
def broken(unit: Unit, stop: threading.Event) -> "Future[Run]":
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("launch", [broken, launch_now])
@pytest.mark.parametrize("accounts", [1, 3000])
def test_three_thousand_sources_end_whatever_the_executor_does(
    launch: Callable[..., "Future[Run]"], accounts: int
) -> None:
    """Ends do not recurse, and the time grows in proportion to the sources."""
    reported: Counter[str] = Counter()
    gate: list[Future[Run]] = []

    def gated(unit: Unit, stop: threading.Event) -> "Future[Run]":
        if unit[0].name.startswith("gate"):
            gate.append(Future())
            return gate[-1]
        return launch(unit, stop)

    dispatch = Dispatch(
        gated, workers=8, ended=lambda unit, outcome: reported.update([name_of(unit)])
    )
    # All wait behind eight runs, and start when those end.
    for n in range(8):
        dispatch.submit(zoom(f"gate{n}", at="flex-api.twilio.com"))
    rounds = [dispatch.submit(twilio(f"s{n}", n % accounts)) for n in range(3000)]
    assert not any(each.done() for each in rounds)
    start = process_time()
    for each in gate:
        each.set_exception(StoppedError("stopped"))
    assert all(each.done() for each in rounds)
    assert set(reported.values()) == {1}
    assert len(reported) == 6008
    assert process_time() - start < 10


@dataclass
class Watched:
    """An executor that counts how many runs overlap, by account and host."""

    executor: Executor
    random: Random
    workers: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    accounts: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    most: int = 0
    launched: Counter[str] = field(default_factory=Counter)
    reported: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def launch(self, unit: Unit, stop: threading.Event) -> "Future[Run]":
        mine, there = account(unit[0]), host(unit[0])
        with self.lock:
            self.launched[name_of(unit)] += 1
            self.accounts[mine] += 1
            self.hosts[there] += 1
            self.most = max(self.most, self.hosts[there])
            if self.accounts[mine] > 1 or self.hosts[there] > self.workers:
                self.wrong.append(f"{name_of(unit)}: {self.accounts[mine]} {self.hosts[there]}")
            chance, pause = self.random.random(), self.random.random() / 500
        if chance < 0.1:
            raise RuntimeError("can't start new thread")
        return self.executor.submit(self.work, unit, stop, chance, pause)

    def work(self, unit: Unit, stop: threading.Event, chance: float, pause: float) -> Run:
        if chance < 0.2:
            stop.wait(PATIENCE)  # it hangs, until it is given up
        elif chance < 0.7:
            stop.wait(pause)
        if chance < 0.5:
            raise KeyError("a bug")
        return run_of(unit)

    def ended(self, unit: Unit, outcome: Run | BaseException) -> None:
        with self.lock:
            self.reported[name_of(unit)] += 1
            self.accounts[account(unit[0])] -= 1
            self.hosts[host(unit[0])] -= 1


def test_under_stress_no_two_overlap_and_all_end(seed: int) -> None:
    random = Random(seed)
    watched = Watched(Threads(), random, workers=3)
    dispatch = Dispatch(watched.launch, workers=3, ended=watched.ended)
    sources = [twilio(f"t{n}", n % 20) for n in range(60)]
    sources += [zoom(f"z{n}", f"a{n % 25}", f"h{n % 3}.example") for n in range(90)]
    random.shuffle(sources)
    done = threading.Event()

    def watchdog() -> None:
        while not done.is_set():
            for running in dispatch.running().values():
                if dispatch.age(running) > 0.02:
                    dispatch.give_up(running, TimeoutError("no progress"))
            done.wait(0.005)

    rounds: SimpleQueue[Future[None]] = SimpleQueue()

    def submit(some: list[list[Unit]]) -> None:
        for units in some:
            rounds.put(dispatch.submit(units))

    threads = [threading.Thread(target=submit, args=(sources[n::4],)) for n in range(4)]
    threads.append(threading.Thread(target=watchdog))
    try:
        for thread in threads:
            thread.start()
        for _ in sources:
            rounds.get(timeout=PATIENCE).result(PATIENCE)
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert watched.wrong == []
    assert watched.most == 3
    every = {name_of(unit): 1 for units in sources for unit in units}
    assert watched.launched == every
    assert watched.reported == every
    assert dispatch.wait(0)


@pytest.mark.parametrize("how", ["given up", "stopped"])
def test_a_queued_run_that_is_given_up_or_stopped_is_cancelled(how: str) -> None:
    """Otherwise it would run later, beside the next run of the account."""
    hand = ByHand(queued=True)
    over = hand.dispatch.submit(zoom("a"))
    _, future = hand.at_work["a.flows"]
    if how == "given up":
        hand.dispatch.give_up(hand.running("a.flows"), RuntimeError("hung"))
        assert [str(outcome) for _, outcome in hand.ended] == ["hung"]
    else:
        hand.dispatch.stop()
        assert [str(outcome) for _, outcome in hand.ended] == ["cancelled"]
    assert future.cancelled()
    assert over.done()

"""What state a stream is in, what is wrong with it, and whether a reader can trust it."""

from datetime import UTC, datetime, timedelta
from time import process_time
from typing import Any

import pytest
from pydantic import SecretStr

from etl.config.settings import Schedule, Settings
from etl.providers.twilio.source import TwilioSource
from etl.providers.zoom.source import ZoomSource
from etl.status.health import Overview, StreamHealth, assess, stale_after

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def zoom(name: str = "z", **schedule: Any) -> ZoomSource:
    return ZoomSource(
        name=name,
        account_id="a",
        client_id="c",
        client_secret=SecretStr("s"),
        schedule=Schedule.model_validate(schedule),
    )


def configured(*sources: ZoomSource | TwilioSource) -> Settings:
    return Settings(sources={source.name: source for source in sources})


ONE = configured(zoom())
TWO = ("flex_flows", "channels")


def row(ago: timedelta | None = MINUTE, status: str | None = "complete", **more: Any) -> Any:
    """Return a row of etl.streams, whose last complete run ended `ago`."""
    return {
        "source": "z",
        "stream": "flows",
        "last_status": status,
        "last_success_at": None if ago is None else NOW - ago,
        "error": None,
        "retry_at": None,
        **more,
    }


def only(*rows: Any, settings: Settings = ONE, **more: Any) -> StreamHealth:
    (found,) = assess(settings, rows, NOW, **more)
    return found


# --- states --------------------------------------------------------------------------------------
def test_a_stream_that_is_well() -> None:
    found = only(
        row(rows=7, last_full_at=NOW - HOUR, watermark=NOW - DAY, last_attempt_at=NOW - MINUTE)
    )
    assert (found.state, found.stale, found.problem, found.advice) == ("good", False, None, None)
    assert (found.name, found.provider, found.schedule) == ("z.flows", "zoom", "every 15m")
    assert (found.age, found.rows, found.stale_after) == (60.0, 7, 3600.0)
    assert (found.last_full_at, found.watermark) == (NOW - HOUR, NOW - DAY)
    assert (found.last_status, found.last_attempt_at) == ("complete", NOW - MINUTE)
    assert found.good
    assert found.fresh


ERROR = "z.flows: the API said no → ask it nicely"


@pytest.mark.parametrize(
    ("status", "retry", "state"),
    [
        ("complete", None, "good"),
        ("incomplete", None, "incomplete"),
        ("failed", None, "failed"),
        ("failed", HOUR, "throttled"),
        ("incomplete", HOUR, "throttled"),
        ("failed", -MINUTE, "failed"),  # the wait is over
        ("failed", timedelta(), "failed"),
        ("complete", HOUR, "good"),
    ],
)
def test_the_state_is_what_the_last_run_says(
    status: str, retry: timedelta | None, state: str
) -> None:
    error = None if status == "complete" else ERROR
    found = only(row(MINUTE, status, error=error, retry_at=retry if retry is None else NOW + retry))
    assert (found.state, found.stale) == (state, False)
    assert found.good == (state == "good")
    assert found.fresh
    if state == "throttled":
        assert found.problem == "z.flows: the API said no; paused until 2026-11-21 13:00 UTC"
        assert found.advice == "nothing; it continues automatically after that"
    elif state != "good":
        assert (found.problem, found.advice) == ("z.flows: the API said no", "ask it nicely")


@pytest.mark.parametrize(
    "known", [{"next_runs": {"z": NOW}}, {"running": {("z", "flows"): NOW - MINUTE}}]
)
def test_a_pause_that_is_over_is_no_failure_while_a_daemon_goes_on(known: Any) -> None:
    over = row(MINUTE, "failed", error=ERROR, retry_at=NOW - MINUTE)
    assert only(over, **known).state == "throttled"
    assert only(over).state == "failed"
    failed_again = row(MINUTE, "failed", error=ERROR)
    assert only(failed_again, **known).state == "failed"


def test_an_error_without_advice() -> None:
    found = only(row(MINUTE, "failed", error="it broke"))
    assert (found.problem, found.advice) == ("it broke", None)


def test_a_stream_of_no_configured_source_is_never_stale() -> None:
    """This includes a stream of the provider that a source had before."""
    old = {**row(900 * DAY), "source": "gone"}
    other = {**row(900 * DAY), "stream": "channels"}
    found = assess(ONE, [old, other, row()], NOW, next_runs={"z": NOW + HOUR})
    assert [(each.name, each.state, each.stale) for each in found] == [
        ("gone.flows", "not configured", False),
        ("z.channels", "not configured", False),
        ("z.flows", "good", False),
    ]
    assert [each.next_run_at for each in found] == [None, None, NOW + HOUR]
    assert found[0].good
    assert (found[0].provider, found[0].schedule, found[0].stale_after) == ("", "", None)
    assert Overview(NOW, "1", streams=found).ready


def test_every_stream_of_every_source_comes_in_the_order_of_the_names() -> None:
    twilio = TwilioSource(
        name="a", account_sid="AC" + 32 * "0", auth_token=SecretStr("t"), streams=TWO
    )
    running = {("a", "channels"): NOW - MINUTE}
    found = assess(configured(zoom(), twilio), [], NOW, running=running)
    assert [each.name for each in found] == ["a.channels", "a.flex_flows", "z.flows"]
    assert [each.running_since for each in found] == [NOW - MINUTE, None, None]


# --- lists that are not there to be read ---------------------------------------------------------
LACKING = "z.flows: this account does not have flows → look"


def test_what_the_account_lacks_is_calm_and_never_stale() -> None:
    found = only(row(None, "not_available", error=LACKING), since=NOW - DAY)
    assert (found.state, found.stale, found.stale_after) == ("not available", False, None)
    assert (found.problem, found.advice) == ("z.flows: this account does not have flows", "look")
    assert found.good
    assert Overview(NOW, "1", streams=(found,)).ready


@pytest.mark.parametrize(("age", "stale"), [(MINUTE, False), (DAY, True)])
def test_what_was_readable_once_becomes_stale_like_any_stream(age: timedelta, stale: bool) -> None:
    found = only(row(age, "not_available", error=LACKING))
    assert (found.state, found.stale, found.good) == ("not available", stale, not stale)
    assert found.problem == "z.flows: this account does not have flows"
    assert Overview(NOW, "1", streams=(found,)).ready is not stale


@pytest.mark.parametrize("age", [None, MINUTE, 900 * DAY])
def test_what_its_provider_has_ended_is_calm_and_never_stale(age: timedelta | None) -> None:
    twilio = TwilioSource(
        name="a", account_sid="AC" + 32 * "0", auth_token=SecretStr("t"), streams=TWO
    )
    flows = {"source": "a", "stream": "flex_flows", "error": "a.flex_flows: ended → read other"}
    others = {"source": "a", "stream": "channels"}
    rows = [{**row(age, "not_available"), **flows}, {**row(), **others}]
    _, found = assess(configured(twilio), rows, NOW, since=NOW - 9 * DAY)
    assert (found.state, found.stale, found.stale_after) == ("ended", False, None)
    assert (found.problem, found.advice) == ("a.flex_flows: ended", "read other")
    assert found.good
    assert Overview(NOW, "1", streams=(found,)).ready
    rows[0]["last_status"] = "failed"
    _, found = assess(configured(twilio), rows, NOW, since=NOW - 9 * DAY)
    assert (found.state, found.good) == ("failed", False)


def test_a_stream_that_its_source_does_not_choose_is_not_configured() -> None:
    twilio = TwilioSource(
        name="a", account_sid="AC" + 32 * "0", auth_token=SecretStr("t"), streams=("channels",)
    )
    rows = [{**row(DAY), "source": "a", "stream": name} for name in ("channels", "flex_flows")]
    channels, flows = assess(configured(twilio), rows, NOW)
    assert (channels.state, channels.stale, channels.leftovers) == ("good", True, ())
    assert (flows.state, flows.stale, flows.good) == ("not configured", False, True)
    (left,) = flows.leftovers
    assert left.name == "a.flex_flows"
    assert "`callflow forget a.flex_flows` moves them to history" in left.advice
    assert [each.name for each in assess(configured(twilio), [], NOW)] == ["a.channels"]


# --- staleness -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("schedule", "age", "stale"),
    [
        ({"stale_after": "2h"}, 2 * HOUR, False),
        ({"stale_after": "2h"}, 2 * HOUR + timedelta(seconds=1), True),
        ({"every": "1s"}, HOUR, False),
        ({"every": "1s"}, HOUR + timedelta(seconds=1), True),
        ({"every": "2h"}, 6 * HOUR, False),
        ({"every": "2h"}, 6 * HOUR + timedelta(seconds=1), True),
        ({"every": "2h", "stale_after": "1m"}, 2 * MINUTE, True),
    ],
)
def test_a_stream_is_stale_when_it_is_older_than_is_allowed(
    schedule: dict[str, str], age: timedelta, stale: bool
) -> None:
    found = only(row(age), settings=configured(zoom(**schedule)))
    assert (found.stale, found.good, found.fresh) == (stale, not stale, not stale)
    assert found.state == "good"
    if stale:
        assert "the last complete run is " in (found.problem or "")
        assert found.advice == "check that a daemon runs and leads; `callflow sync` runs it now"


def test_a_stale_stream_that_fails_says_why() -> None:
    found = only(row(DAY, "failed", error=ERROR))
    assert (found.stale, found.state) == (True, "failed")
    assert (found.problem, found.advice) == ("z.flows: the API said no", "ask it nicely")


OFFICE = Schedule(cron="*/15 9-17 * * MON-FRI", timezone="Europe/Berlin")


@pytest.mark.parametrize(
    ("success", "until"),
    [
        ("2026-11-20T16:46:10", "2026-11-23T08:30:00"),  # Friday's last; on Monday 9:00 to 9:30
        ("2026-11-19T16:46:10", "2026-11-20T08:30:00"),
        ("2026-11-19T16:20:10", "2026-11-20T08:00:00"),  # 17:30 and 17:45 in Berlin, then 9:00
        ("2026-11-19T12:01:10", "2026-11-19T13:01:10"),  # 12:15, 12:30, 12:45: the hour is more
    ],
)
def test_office_hours_make_nothing_stale_overnight(success: str, until: str) -> None:
    """A stream is stale after three planned times, however the next ones are planned."""
    started = datetime.fromisoformat(success + "+00:00")
    ends = datetime.fromisoformat(until + "+00:00")
    assert started + stale_after(OFFICE, started) == ends
    settings = configured(zoom(cron=OFFICE.cron, timezone=OFFICE.timezone))
    moment, judged = started, []
    while moment < started + 4 * DAY:
        (found,) = assess(settings, [row(last_success_at=started)], moment)
        judged.append((moment, found.stale))
        moment += timedelta(minutes=7)
    assert not any(stale for moment, stale in judged if moment < ends)
    assert all(stale for moment, stale in judged if moment > ends + MINUTE)


def test_a_daily_line_may_miss_two_days() -> None:
    daily = Schedule(cron="0 3 * * *")
    success = datetime(2026, 11, 20, 3, 1, tzinfo=UTC)
    assert success + stale_after(daily, success) == datetime(2026, 11, 23, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("watched", "stale"),
    [(None, False), (timedelta(), False), (HOUR, False), (HOUR + MINUTE, True), (-DAY, False)],
)
def test_a_stream_that_never_ran_is_stale_after_it_was_watched_for_long_enough(
    watched: timedelta | None, stale: bool
) -> None:
    found = only(since=None if watched is None else NOW - watched)
    assert (found.state, found.stale, found.age) == ("never run", stale, None)
    assert not found.fresh
    assert found.good == (not stale)
    if stale:
        assert found.problem == "no complete run yet, and 1h is allowed"


def test_a_row_without_a_run_is_one_that_never_ran() -> None:
    """Its row has no run, but an alert may have been recorded."""
    assert only(row(None, None, told="stale")).state == "never run"


def test_a_stream_that_always_failed_becomes_stale() -> None:
    found = only(row(None, "failed", error=ERROR), since=NOW - 2 * HOUR)
    assert (found.state, found.stale, found.age, found.fresh) == ("failed", True, None, False)
    assert found.problem == "z.flows: the API said no"


@pytest.mark.fault(65)
def test_a_clock_that_was_set_back_makes_nothing_older() -> None:
    found = only(row(-DAY))
    assert (found.age, found.stale, found.state) == (0.0, False, "good")


def test_times_are_utc() -> None:
    tokyo = datetime.fromisoformat("2026-11-21T20:59:00+09:00")
    found = only(row(last_success_at=tokyo, changed_at=tokyo))
    for time in (found.last_success_at, found.changed_at):
        assert time == tokyo
        assert time is not None
        assert time.tzinfo is UTC


def test_crontab_lines_of_many_sources_are_not_evaluated_one_by_one() -> None:
    """Everything is assessed again every second, and a line takes 0.1 ms to evaluate."""

    def cost(**schedule: Any) -> float:
        settings = configured(*(zoom(f"z{n}", **schedule) for n in range(1000)))
        rows = [{**row(timedelta(seconds=n % 900)), "source": f"z{n}"} for n in range(1000)]
        costs = []
        for _ in range(3):
            started = process_time()
            assert len(assess(settings, rows, NOW)) == 1000
            costs.append(process_time() - started)
        return min(costs)

    assert cost(cron="*/15 8-18 * * MON-FRI") < 3 * cost(every="15m")


# --- all together --------------------------------------------------------------------------------
def test_ready_is_when_every_stream_is_fresh_and_the_database_answers() -> None:
    well = only(row())
    failing = only(row(MINUTE, "failed", error=ERROR))
    stale, never = only(row(25 * HOUR + MINUTE)), only(since=NOW)
    gone = assess(configured(), [row(None, "failed")], NOW)[0]

    def overview(*streams: StreamHealth, database: str | None = None) -> Overview:
        return Overview(NOW, "1", streams=streams, database=database)

    for ready in (overview(), overview(well), overview(well, failing), overview(well, gone)):
        assert ready.ready
        assert ready.reasons == ()
    for unready, reasons in (
        (overview(well, stale), ("z.flows: 1d 1h old",)),
        (overview(never, well), ("z.flows: no complete run yet",)),
        (overview(well, database="it is away"), ("it is away",)),
        (overview(stale, database="it is away"), ("it is away", "z.flows: 1d 1h old")),
    ):
        assert not unready.ready
        assert unready.reasons == reasons

"""What is known of the last runs decides when the next ones are due, and which run hangs."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.daemon.hung import patience, reason
from etl.daemon.rounds import recorded_ages, run_that_died
from etl.daemon.snapshot import Snapshot
from etl.errors import StoppedError, WarehouseError
from etl.extract.budget import MAX_ASKED_WAIT
from etl.extract.verdict import ATTEMPTS
from etl.providers.twilio.source import TwilioSource
from etl.sync.selection import account, select

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def settings(*names: str, owner: str = "") -> Settings:
    """Return Twilio sources, which have the streams flex_flows and channels."""
    return Settings(
        sources={
            name: TwilioSource(
                name=name,
                account_sid=f"AC{owner or name:0>32}",
                auth_token=SecretStr("t"),
                streams=("flex_flows", "channels"),
            )
            for name in names
        }
    )


def row(source: str, stream: str, ago: int, **values: Any) -> dict[str, Any]:
    last = {"last_attempt_at": NOON - ago * MINUTE, "last_status": "complete", "retry_at": None}
    return {"source": source, "stream": stream, "told": None} | last | values


def known(*rows: dict[str, Any]) -> Snapshot:
    return Snapshot(NOON, 100.0, rows, ())


def test_a_source_is_as_old_as_its_oldest_stream() -> None:
    seen = known(row("a", "flex_flows", 3), row("a", "channels", 7), row("b", "channels", 1))
    ages, asked = recorded_ages(settings("a", "b"), seen, NOON, failed_now=True)
    assert ages == {"a": 7 * MINUTE, "b": None}  # a stream of b never ran
    assert asked == {}


def test_a_stream_that_failed_is_due_at_once_when_a_daemon_only_starts_to_lead() -> None:
    seen = known(row("a", "flex_flows", 3), row("a", "channels", 7, last_status="failed"))
    for failed_now, age in ((True, None), (False, 7 * MINUTE)):
        ages, _ = recorded_ages(settings("a"), seen, NOON, failed_now=failed_now)
        assert ages == {"a": age}


def test_all_sources_of_an_account_wait_as_long_as_one_of_them_was_asked_to() -> None:
    both = settings("a", "b", owner="1")
    seen = known(
        row("a", "flex_flows", 3, retry_at=NOON + 5 * MINUTE),
        row("b", "channels", 3, retry_at=NOON + 9 * MINUTE),
    )
    _, asked = recorded_ages(both, seen, NOON, failed_now=False)
    assert asked == {account(both.sources["a"]): 9 * MINUTE}


def test_a_snapshot_goes_on_by_the_steady_clock() -> None:
    assert known().time(160.0) == NOON + MINUTE


def test_patience_lasts_for_all_attempts_at_a_request_unless_it_is_set() -> None:
    unit = select(settings("a"), [])[0]
    assert patience(unit, None) > ATTEMPTS * (unit[0].timeout + MAX_ASKED_WAIT)
    assert patience(unit, 2 * MINUTE) == 120
    assert "no progress for 2m" in str(reason(unit, 2 * MINUTE))


def test_a_run_that_crashed_says_why_and_keeps_no_secret() -> None:
    unit = select(settings("a"), ["a.channels"])[0]
    bug = run_that_died(unit, KeyError("sesame"), Redactor(["sesame"]), NOON)
    assert (bug.status, bug.error_kind, bug.started_at) == ("failed", "internal", NOON)
    assert "a.channels: the run died of KeyError" in str(bug.error)
    assert "sesame" not in str(bug.error)
    away = WarehouseError("cannot connect as sesame-open", where="db")
    error = run_that_died(unit, away, Redactor(["sesame-open"]), NOON)
    assert (error.error_kind, error.error) == ("database", "db: cannot connect as …")
    assert run_that_died(unit, StoppedError("stopped"), Redactor(), NOON).error == "stopped"

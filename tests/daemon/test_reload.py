"""What a configuration that was read again changes in a daemon that runs."""

from typing import Any

from pydantic import SecretStr

from etl.config.settings import Daemon, Schedule, Settings, Warehouse
from etl.daemon.reload import merged, rescheduled
from etl.providers.zoom.source import ZoomSource


def settings(
    *names: str, url: str = "postgresql://a/b", minutes: int = 5, **daemon: Any
) -> Settings:
    sources = {
        name: ZoomSource(
            name=name,
            account_id="a",
            client_id="c",
            client_secret=SecretStr("s"),
            schedule=Schedule.model_validate({"every": f"{minutes}m"}),
        )
        for name in names
    }
    return Settings(
        warehouse=Warehouse.model_validate({"url": url}),
        daemon=Daemon.model_validate(daemon),
        sources=sources,
    )


def test_settings_that_need_a_restart_are_kept_and_named() -> None:
    before, after = settings(workers=3), settings(url="postgresql://a/c", workers=4, http="[::1]:1")
    found, fixed = merged(before, after)
    assert fixed == ["warehouse", "daemon.workers"]
    assert (found.warehouse, found.daemon.workers) == (before.warehouse, 3)
    assert found.daemon.http == after.daemon.http
    assert merged(before, before) == (before, [])


def test_only_new_sources_and_new_schedules_are_planned_again() -> None:
    before = settings("a", "b")
    assert rescheduled(before, settings("b", "c")) == ["c"]
    assert rescheduled(before, settings("a", minutes=6)) == ["a"]
    assert rescheduled(before, before) == []
    source = before.sources["a"].model_copy(update={"streams": ("flows",)})
    fewer = before.model_copy(update={"sources": {**before.sources, "a": source}})
    assert rescheduled(before, fewer) == ["a"]
    assert rescheduled(fewer, before) == ["a"]

"""Overviews and runs made by hand: what a daemon would report about four plausible sources."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from etl.load.runs import Run
from etl.status.health import Leftover, Overview, StreamHealth

NOW = datetime(2026, 3, 14, 3, 12, 40, tzinfo=UTC)

SCOPE = "zoom_us.flows, page 1: the access token lacks a scope"
SCOPE_ADVICE = "add contact_center:read:list_flows:admin to the server-to-server OAuth app"
STALLED = (
    "twilio_main.channels: the list ended at 41,288 of 52,310 channels, a page token was refused"
    " twice; nothing was deleted"
)

Runs = dict[tuple[str, str], list[Run]]


def ago(**length: float) -> datetime:
    return NOW - timedelta(**length)


def stream(source: str = "zoom_eu", name: str = "flows", **given: Any) -> StreamHealth:
    """Return a healthy stream, except for `given`."""
    values: dict[str, Any] = {
        "provider": source.split("_")[0],
        "state": "good",
        "stale": False,
        "schedule": "every 15m",
        "stale_after": 3600.0,
        "age": 260.0,
        "rows": 1204,
        "last_status": "complete",
        "last_attempt_at": ago(seconds=260),
        "last_success_at": ago(seconds=260),
        "last_full_at": ago(hours=9),
        "changed_at": ago(hours=3),
        "next_run_at": NOW + timedelta(minutes=10, seconds=40),
    }
    return StreamHealth(source, name, **(values | given))


def overview(*streams: StreamHealth, **given: Any) -> Overview:
    """Return the overview of a daemon that leads; `given` is what differs."""
    values: dict[str, Any] = {
        "at": NOW,
        "version": "0.1.0",
        "role": "leader",
        "leader": "etl-1:4711",
        "process": "etl-1:4711",
        "started_at": ago(days=12, hours=4),
        "seen_at": ago(seconds=2),
    }
    return Overview(**(values | given), streams=streams)


def left(name: str) -> Leftover:
    """Return what is no longer configured, as it is shown."""
    what = "no longer configured; its rows stay as they were"
    return Leftover(name, what, f"`callflow forget {name}` moves them to history")


FAILED = stream(
    "zoom_us",
    state="failed",
    stale=True,
    problem=SCOPE,
    advice=SCOPE_ADVICE,
    age=9080.0,
    rows=3418,
    last_status="failed",
    last_success_at=ago(seconds=9080),
    last_attempt_at=ago(seconds=400),
    next_run_at=NOW + timedelta(minutes=8),
)
INCOMPLETE = stream(
    "twilio_main",
    "channels",
    state="incomplete",
    problem=STALLED,
    advice="nothing is deleted; run again, and report it to the provider if it stays",
    age=2300.0,
    rows=52310,
    last_status="incomplete",
    last_success_at=ago(seconds=2300),
    last_attempt_at=ago(seconds=500),
    changed_at=ago(seconds=500),
    next_run_at=NOW + timedelta(minutes=6),
)
GOOD = (
    stream(
        "alibaba_sh",
        "contact_flows",
        schedule="cron */30 * * * * Asia/Shanghai",
        stale_after=5400.0,
        age=1060.0,
        last_attempt_at=ago(seconds=1060),
        rows=388,
        next_run_at=NOW + timedelta(minutes=17),
    ),
    stream(
        "twilio_main",
        "flex_flows",
        age=905.0,
        last_attempt_at=ago(seconds=905),
        rows=96,
        changed_at=ago(days=6),
        next_run_at=NOW + timedelta(minutes=6),
        running_since=ago(seconds=3),
    ),
    stream("zoom_eu", changed_at=ago(seconds=240)),
)

SOME_BAD = overview(GOOD[0], INCOMPLETE, GOOD[1], GOOD[2], FAILED)
ALL_WELL = overview(
    *GOOD,
    stream("twilio_main", "channels", rows=52310, age=500.0),
    stream("zoom_us", rows=3418, age=400.0),
)
DOWN = replace(
    SOME_BAD,
    database="Postgres at db.internal:5432 refuses connections → see whether it runs; callflow"
    " keeps trying and loses nothing",
    seen_at=ago(minutes=3, seconds=5),
    notes=("the changed callflow.toml was refused, the previous one is in use:"
           " sources.zoom_eu.every: expected a number with a unit → run `callflow check`",),
)  # fmt: skip


def many(number: int, bad_each: int = 40) -> Overview:
    """Return `number` streams of two-stream sources; each `bad_each`-th failed."""
    streams = []
    for place in range(number):
        source, name = f"twilio_{place // 2:04}", ("channels", "flex_flows")[place % 2]
        bad = bad_each and place % bad_each == bad_each - 1
        streams.append(
            replace(
                FAILED,
                source=source,
                stream=name,
                provider="twilio",
                problem=SCOPE.replace("zoom_us.flows", f"{source}.{name}"),
            )
            if bad
            else stream(source, name, rows=place * 7)
        )
    return overview(*streams)


def run(source: str = "zoom_eu", name: str = "flows", **given: Any) -> Run:
    """Return a complete run of 4.2 seconds, except for `given`."""
    values: dict[str, Any] = {
        "mode": "incremental",
        "started_at": ago(seconds=264, milliseconds=200),
        "finished_at": ago(seconds=260),
        "status": "complete",
        "requests": 5,
        "records": 1204,
    }
    return Run(given.pop("run_id", "0f3a"), source, name, **(values | given))


def last_runs(view: Overview, seed: int = 7) -> Runs:
    """Return thirty plausible runs of each stream, newest first, that fit the stream's state."""
    return {
        (each.source, each.stream): _history(each, Random(f"{seed} {each.name}"))
        for each in view.streams
    }


def _history(of: StreamHealth, chance: Random) -> list[Run]:
    if of.state == "never run":
        return []
    rows = of.rows or 1
    apart = 30 if "/30" in of.schedule else 15
    base = 0.4 + rows / 2600
    found = []
    for back in range(30):
        full = (back + 11) % 24 == 0
        started = (of.last_attempt_at or NOW) - timedelta(
            minutes=apart * back, seconds=chance.random() * 40
        )
        status, error, gone = "complete", None, 0
        if of.state == "failed" and back < 10:
            status, error = "failed", f"{of.problem} → {of.advice}"
        elif of.state == "incomplete" and back < 2:
            status, error = "incomplete", f"{of.problem} → {of.advice}"
        elif back and chance.random() < 0.03:
            status, error = "failed", f"{of.name}, page 2: HTTP 503 (5 attempts) → try again later"
        took = base * chance.lognormvariate(0, 0.25) * (2.6 if full else 1)
        changed = int(chance.paretovariate(0.9)) - 1 if chance.random() < 0.45 else 0
        if of.changed_at is None or started > of.changed_at:
            changed = 0
        elif started + timedelta(minutes=apart) > of.changed_at:
            changed += 3
        if status == "failed":
            took, changed = 0.3 + chance.random() * 0.3, 0
        else:
            gone = changed // 4
        changed = min(changed, rows // 8 + 1)
        found.append(
            run(
                of.source,
                of.stream,
                run_id=f"{of.name}-{back}",
                mode="full" if full else "incremental",
                started_at=started,
                finished_at=started + timedelta(seconds=took),
                status=status,
                error=error,
                error_kind="credentials" if status == "failed" else None,
                records=0 if status == "failed" else rows if full else changed,
                requests=1 if status == "failed" else math.ceil(rows / 300) if full else 2,
                pages=0 if status == "failed" else math.ceil(rows / 300) if full else 1,
                rows_written=changed + gone,
                watermark_before=started - timedelta(hours=3),
                watermark_after=started - timedelta(minutes=4 if changed else 180),
                inserted=changed // 2,
                updated=changed - changed // 2,
                deleted=gone,
                unchanged=rows if full else 0,
            )
        )
    return found


def asked(runs: Mapping[tuple[str, str], Sequence[Run]], pairs: Sequence[tuple[str, str]]) -> Runs:
    """Return what `recent` answers when it is asked for `pairs`."""
    return {pair: list(runs[pair]) for pair in pairs if pair in runs}

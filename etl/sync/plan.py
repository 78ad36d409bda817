"""How much of its list a run reads, and why. Values and pure functions only."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from etl.extract.page import EVERYTHING, ScanRequest
from etl.load.runs import Progress
from etl.providers.declare import Stream

FULL_EVERY = timedelta(hours=24)
"""Longest time between two complete full scans, unless the settings say otherwise."""

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run reads its list.

    `mode`    "full": the whole list; "incremental": what changed.
    `reason`  why, as `etl.runs` records it.
    `request` what the extractor is asked for.
    """

    mode: Literal["full", "incremental"]
    reason: str | None
    request: ScanRequest = EVERYTHING

    def noting(self, note: str) -> "Plan":
        """Return the plan with a further remark in its reason."""
        return replace(self, reason=f"{self.reason}; {note}")


def choose_plan(
    stream: Stream, previous: Progress, *, asked_full: bool, full_every: timedelta | None
) -> Plan:
    """Choose a full scan or an incremental one.

    `previous` is how far the stream had come, `asked_full` whether the caller wants a full scan,
    `full_every` the longest time between two of them (None: FULL_EVERY).
    """
    reason = "asked for" if asked_full else _why_full(stream, previous, full_every or FULL_EVERY)
    if reason is not None:
        return Plan("full", reason)
    if stream.changes == "since":
        since = {scope: mark for scope, mark in previous.watermarks.items() if mark is not None}
        request = ScanRequest(since, previous.read_at)
        return Plan("incremental", "what changed since the watermark", request)
    return Plan("incremental", "newest first, until nothing is new")


def _why_full(stream: Stream, previous: Progress, every: timedelta) -> str | None:
    """Return why the whole list has to be read; None if a part of it is enough."""
    if previous.unreadable:
        columns = ", ".join(previous.unreadable)
        return f"what etl.streams holds in {columns} cannot be read"
    if stream.changes is None:
        return "the API cannot be asked for changes only"
    if stream.modified is None:
        return "the list has no modification times"
    if previous.last_full_at is None:
        return "there was no complete full scan yet"
    age = previous.now - previous.last_full_at
    if age >= every:
        return f"the last complete full scan is older than {every / _HOUR:g} h"
    if age < -_HOUR:
        return "the database's clock was set back since the last full scan"
    if not any(previous.watermarks.values()):
        return "there is no watermark yet"
    if stream.changes == "newest first" and not previous.newest_first:
        return "the list did not come newest first"
    return None

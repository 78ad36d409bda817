"""Lists that cannot be read although nothing failed: the account lacks them, or they have ended."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from etl.errors import (
    CallflowError,
    ForbiddenError,
    MissingError,
    NotAvailableError,
    UnavailableError,
    WithdrawnError,
)
from etl.load.runs import Past
from etl.providers.declare import Stream

IN_A_ROW = 3
"""So many runs in a row are refused before an answer that may be an outage, or not the provider's
own, counts as the announced end of a list."""

_REFUSED = r"HTTP (?:403|404|410|5\d\d)\b"
_LIST = "page 1"


@dataclass(frozen=True, slots=True)
class Before:
    """What was recorded of a stream: its last runs, newest first, and its last complete one (UTC).

    A busy run does not count.
    """

    runs: Sequence[Past] = ()
    complete_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether the last run found that the provider has ended the list."""
        return bool(self.runs) and self.runs[0].error_kind == "ended"


NEVER = Before()
"""Nothing was recorded yet."""


def excuse(
    stream: Stream, error: CallflowError, *, where: str, before: Before = NEVER
) -> NotAvailableError | None:
    """Return what the first answer of a list means if it is `error`; None: that it failed.

    `where` is "source.stream", as in the errors that the runs of `before` recorded.
    """
    if stream.ended:
        reason = _reason_to_end(error, where, before)
        return None if reason is None else ended(stream, reason, where=where)
    if stream.optional and isinstance(error, ForbiddenError | MissingError):
        return _not_available(stream, error, where, before.complete_at)
    return None


def ended(stream: Stream, reason: str, *, where: str, advice: str = "") -> NotAvailableError:
    """Return that the provider has ended the list, which is known by `reason`."""
    return NotAvailableError(
        f"the provider has ended this API ({reason}); its rows are kept as they were",
        kind="ended",
        where=where,
        advice="; ".join(filter(None, (stream.ended, advice))),
    )


def _reason_to_end(error: CallflowError, where: str, before: Before) -> str | None:
    """Return why the list has ended; None if it may only be out of order for a while."""
    for kind, status in ((ForbiddenError, 403), (MissingError, 404), (WithdrawnError, 410)):
        if isinstance(error, kind):
            return f"HTTP {status}: {error.what}"
    asked_to_wait = isinstance(error, UnavailableError) and error.wait is not None
    if asked_to_wait or not re.match(_REFUSED, error.what):
        return None
    if before.ended:
        return error.what
    refused = re.compile(f"{re.escape(where)}, {_LIST}: {_REFUSED}")
    others = before.runs[: IN_A_ROW - 1]
    if len(others) < IN_A_ROW - 1 or not all(
        run.status == "failed" and run.retry_at is None and refused.match(run.error or "")
        for run in others
    ):
        return None
    return f"{error.what}, in {IN_A_ROW} runs in a row"


def _not_available(
    stream: Stream, error: CallflowError, where: str, complete_at: datetime | None
) -> NotAvailableError:
    noun = stream.name.replace("_", " ")
    lacks = "these credentials lack the permission to read"
    if isinstance(error, MissingError):
        lacks = "this account does not have"
    what = f"{lacks} {noun} ({error.what})"
    if complete_at is not None:
        what += f"; they were readable until {complete_at:%Y-%m-%d %H:%M} UTC,"
        what += " and their rows are kept as they were"
    leave_out = f"leave {stream.name} out of the source's `streams` if it is not wanted"
    advice = "; ".join(filter(None, (error.advice, leave_out)))
    return NotAvailableError(what, kind="not_available", where=where, advice=advice)

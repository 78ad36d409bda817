"""An answer of a provider as its judge sees it, and what can be read from it without the API.

Words of error envelopes, and the time that a provider asks callflow to wait.
"""

import email.utils
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from etl.config.redact import Redactor
from etl.extract.page import Params

QUOTED = 64 * 1024
"""Characters of a provider's text that are looked at for a message."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,12}(\.[0-9]{0,9})?")
_SLOW_DOWN = re.compile(
    r"rate limit|limit rate|throttl|flow control|too many (?:concurrent |api )?(?:api )?requests"
    r"|maximum number of .{0,40}requests|(?:requests|calls|queries) per (?:second|minute|day)"
    r"|\bqps\b|request (?:limit|frequency) |concurrent api requests|(?:requests|api) quota"
    r"|流控|限流|请求过于频繁"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer of a provider, for its judge.

    `body`    decoded JSON; None if it is not JSON (only where `status` is not 2xx).
    `said`    the provider's own words, cleaned and cut: fit for a message.
    `wait`    seconds that it asks to wait before the next request; None if it does not ask.
    `params`  the query parameters of the request.
    `headers` by lower-case name.
    `redact`  cleans other parts of the answer that a judge quotes.
    """

    status: int
    headers: Mapping[str, str]
    body: Any
    said: str
    wait: float | None
    params: Params
    redact: Redactor

    @property
    def slow_down(self) -> bool:
        """Whether the request was refused because there were too many, whatever its code or status.

        Zoom says so in HTTP 403 (zoom/api-v1, issue 19), Alibaba in 400 ("Throttling.User").
        """
        said = (words(self.body) or self.said).lower()
        return 400 <= self.status < 500 and _SLOW_DOWN.search(said) is not None


def words(body: Any) -> str:
    """Return the words of an error envelope as they came; "" if there are none.

    Zoom and Twilio use `message`, Alibaba `Message`, OAuth `reason` and `error`. They are cut to
    `QUOTED` characters.
    """
    if isinstance(body, dict):
        for name in ("message", "Message", "reason", "error"):
            if isinstance(said := body.get(name), str) and (said := said[:QUOTED]).strip():
                return said
    return ""


def asked_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that an answer asks to wait, never negative; None if it does not ask.

    `retry-after` is in seconds, an HTTP date, or an ISO 8601 instant; instants count from the
    answer's own Date, or from `now` if it has none.
    """
    text = headers.get("retry-after", "").strip()
    if (seconds := duration(text)) is not None:
        return seconds
    until = instant(text)
    if until is None:
        return None
    return max(0.0, (until - (instant(headers.get("date", "")) or now)).total_seconds())


def duration(text: str) -> float | None:
    """Read a decimal number; a negative one is 0. None for all else, and for over twelve digits."""
    return max(0.0, float(text)) if _NUMBER.fullmatch(text) else None


def instant(text: str) -> datetime | None:
    """Read an HTTP date or an ISO 8601 time, and return it in UTC; one without a zone is UTC.

    Return None if it is neither, or lies outside the years 1 to 9999 in UTC.
    """
    for parse in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError, TypeError, IndexError, OverflowError):
            when = parse(text[:100])
            return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    return None

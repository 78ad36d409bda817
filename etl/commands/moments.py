"""What people write for a moment: a date, a time, how long ago, or a version of a flow."""

import re
from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from etl.config.values import Duration
from etl.errors import ConfigError
from etl.status.versions import WORDS, Version
from etl.warehouse.model import moment

_AT_LEAST = datetime(1, 1, 2)  # noqa: DTZ001 - only its distance counts


def as_moment(given: str | None, option: str) -> datetime | None:
    """Return the moment that the value of `option` means; None if the option was not given.

    Raises ConfigError, which says what is expected.
    """
    if given is None:
        return None
    try:
        return moment.parse(given)
    except ValueError as error:
        raise _unreadable(given, option, str(error)) from None


def as_time(given: str | None, option: str) -> datetime | timedelta | None:
    """Return what the value of `option` means: a moment, or how long ago; None if not given.

    Raises ConfigError, which says what is expected.
    """
    if given is None:
        return None
    try:
        return TypeAdapter[timedelta](Duration).validate_python(given)
    except ValidationError:
        pass
    try:
        return moment.parse(given)
    except ValueError as error:
        raise _unreadable(given, option, f"{error}, or how long ago: 12h, 7d") from None


def as_time_or_version(given: str | None, option: str) -> datetime | timedelta | Version | None:
    """Return what the value of `option` means, as `as_time`, or a version of a flow.

    That is a number, "live" or "newest". Raises ConfigError, which says what is expected.
    """
    for word in WORDS:
        if given == word:
            return word
    if given is not None and re.fullmatch("[0-9]{1,9}", given):
        return int(given)
    try:
        return as_time(given, option)
    except ConfigError as error:
        raise _unreadable(
            given or "", option, f"{error.advice}, or a version: 3, live, newest"
        ) from None


def _unreadable(given: str, option: str, expected: str) -> ConfigError:
    return ConfigError(f"{given[:80]!r} cannot be read", where=option, advice=expected)


def resolved(given: datetime | timedelta | None, now: datetime) -> datetime:
    """Return a moment, or the one so long before `now`; the first one there is at the earliest."""
    if isinstance(given, timedelta):
        return now - min(given, now.replace(tzinfo=None) - _AT_LEAST)
    return given or now

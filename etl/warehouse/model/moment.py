"""`callflow.at`: the moment as of which the views of the schema `callflow` answer.

It is a setting of the session (`SET callflow.at = '2026-11-17 14:05+01'`), which the function
`callflow.moment()` reads. It raises its error without an exception block: that would be a
subtransaction, which Postgres does not allow in a parallel query.
"""

import re
from datetime import UTC, datetime, timedelta, timezone

from etl.warehouse.model.definition import FunctionDefinition

NAME = "callflow.moment()"

JOINED = f"{NAME} AS moment(at)"
"""A FROM item with the moment, for conditions on rows: evaluated once, not for each row. A
sub-select would not do, because PostgreSQL 15 makes no parallel plan with one."""

EXPECTED = "a date, or a date and a time, such as 2026-11-17 14:05+01"

_PATTERN = (
    r"^(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])",
    r"([ T]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?",
    r"\s?(Z|z|UTC|[+-](0\d|1[0-5])(:?[0-5]\d)?)?)?$",
)
"""What `callflow.moment()` and `parse` both read."""


def parse(text: str) -> datetime:
    """Return the moment that a text means to `callflow.moment()` in a session whose zone is UTC.

    It is in UTC, unless its year there is before 1 or after 9999. Raises ValueError for a text that
    means none.
    """
    found = re.fullmatch("".join(_PATTERN), text, re.ASCII)
    if found is None:
        raise ValueError(f"expected {EXPECTED}")
    day, time, zone = text[:10], found[4] or "", found[8] or "Z"
    clock, _, fraction = time[1:].removesuffix(found[8] or "").strip().partition(".")
    try:
        read = datetime.fromisoformat(f"{day}T{clock or '00:00'}")
        read += timedelta(microseconds=round(int(fraction or 0) * 10 ** (6 - len(fraction))))
    except (OverflowError, ValueError):
        raise ValueError(f"expected {EXPECTED}") from None
    if zone in ("Z", "z", "UTC"):
        return read.replace(tzinfo=UTC)
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    offset = timedelta(hours=hours, minutes=minutes)
    there = read.replace(tzinfo=timezone(-offset if zone[0] == "-" else offset))
    try:
        return there.astimezone(UTC)
    except OverflowError:
        return there


FUNCTION = FunctionDefinition(
    "callflow.moment",
    "The moment as of which the views of callflow answer: the setting callflow.at. NULL if it is"
    " not set: then they answer as of now.",
    "",
    "timestamptz",
    f"""
DECLARE
  given text := current_setting('callflow.at', true);
  parts text[];
BEGIN
  IF given IS NULL OR given = '' THEN  -- RESET and SET LOCAL leave ''
    RETURN NULL;
  END IF;
  parts := regexp_match(given,
    '{_PATTERN[0]}'
    '{_PATTERN[1]}'
    '{_PATTERN[2]}');
  IF parts IS NULL OR parts[1] = '0000' OR parts[3]::integer > extract(day FROM
      make_date(parts[1]::integer, parts[2]::integer, 1) + interval '1 month - 1 day') THEN
    RAISE EXCEPTION 'callflow.at is ''%'': expected {EXPECTED}', left(given, 100)
      USING ERRCODE = 'invalid_parameter_value',
            HINT = 'SET callflow.at = ''2026-11-17 14:05+01'', or RESET callflow.at for today. '
                   'Without an offset, the time zone of the session counts.';
  END IF;
  RETURN given::timestamptz;
END
""",
    "plpgsql",
)

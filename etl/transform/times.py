"""How providers spell times, besides ISO 8601: a column that holds such times says which it is.

A spelling is read as strictly as ISO 8601 is (`decode.moment`): what might mean something else does
not fit, and stays in `extra`.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from etl.extract.decode import moment, whole

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_RFC_2822: Final = re.compile(
    rf"(?:({'|'.join(_DAYS)}), )?([0-9]{{1,2}}) ({'|'.join(_MONTHS)}) ([0-9]{{4}})"
    r" ([0-9]{2}):([0-9]{2}):([0-9]{2}) (?:([+-])([0-9]{2})([0-5][0-9])|GMT|UT)"
)
_LATEST: Final = 253_402_300_800_000  # milliseconds up to the year 10000


def rfc_2822(value: Any) -> datetime | None:
    """Read `Thu, 30 Jul 2015 23:19:04 +0000`, or an ISO 8601 time; None for all else.

    The zone is a number, GMT or UT; -0000 is Universal Time too. A day of the week has to be that
    of the date (RFC 2822, 3.3 and 4.3).
    """
    found = _RFC_2822.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return moment(value)
    day, date, month, year, hour, minute, second, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if offset >= timedelta(days=1):
        return None
    zone = timezone(-offset if sign == "-" else offset)
    try:
        when = datetime(
            int(year), _MONTHS.index(month) + 1, int(date), int(hour), int(minute), int(second),
            tzinfo=zone,
        )  # fmt: skip
    except ValueError:
        return None
    return when if day in (None, _DAYS[when.weekday()]) else None


def epoch_milliseconds(value: Any) -> datetime | None:
    """Read "1578457081000", milliseconds since 1970 in UTC, as text or number; None for all else.

    0 does not fit: it stands for a time that nobody set.
    """
    number = whole(value)
    if number is None or not 0 < number < _LATEST:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number)


SPELLINGS: Mapping[str, Callable[[Any], datetime | None]] = {
    "rfc 2822": rfc_2822,
    "epoch milliseconds": epoch_milliseconds,
}
"""`Column.info["spelled"]` → what reads such a time."""

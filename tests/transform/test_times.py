"""Times that are not spelled as ISO 8601 spells them: read strictly, or not at all."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from etl.transform.times import epoch_milliseconds, rfc_2822

EAST = timezone(timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    ("sent", "when"),
    [
        ("Thu, 30 Jul 2015 23:19:04 +0000", datetime(2015, 7, 30, 23, 19, 4, tzinfo=UTC)),
        ("30 Jul 2015 23:19:04 +0000", datetime(2015, 7, 30, 23, 19, 4, tzinfo=UTC)),
        ("Sat, 1 Aug 2015 01:02:03 +0530", datetime(2015, 8, 1, 1, 2, 3, tzinfo=EAST)),
        ("Fri, 31 Jul 2015 19:19:04 -0400", datetime(2015, 7, 31, 23, 19, 4, tzinfo=UTC)),
        ("Thu, 30 Jul 2015 23:19:04 -0000", datetime(2015, 7, 30, 23, 19, 4, tzinfo=UTC)),
        ("Thu, 30 Jul 2015 23:19:04 GMT", datetime(2015, 7, 30, 23, 19, 4, tzinfo=UTC)),
        ("30 Jul 2015 23:19:04 UT", datetime(2015, 7, 30, 23, 19, 4, tzinfo=UTC)),
        ("2016-08-01T22:10:40Z", datetime(2016, 8, 1, 22, 10, 40, tzinfo=UTC)),
    ],
)
def test_a_time_of_rfc_2822_is_read(sent: str, when: datetime) -> None:
    assert rfc_2822(sent) == when


@pytest.mark.parametrize(
    "sent",
    [
        "Thu, 30 Jul 2015 23:19:04",
        "Thu, 30 Jul 2015 23:19:04 GMT+1",
        "Thu, 30 Jul 2015 23:19:04 EST",
        "Thu, 30 Jul 2015 23:19:04 gmt",
        "Thu, 30 Jul 2015 23:19:04 +2400",
        "Thu, 30 Jul 2015 23:19:04 +0060",
        "Thu, 30 Jul 2015 23:19 +0000",
        "Thu, 30 Jul 2015 24:00:00 +0000",
        "Thu, 30 Jul 2015 23:19:60 +0000",
        "Fri, 30 Jul 2015 23:19:04 +0000",
        "Thu, 31 Jun 2015 23:19:04 +0000",
        "Thu, 30 Jul 15 23:19:04 +0000",
        "Thursday, 30 Jul 2015 23:19:04 +0000",
        "Thu, 30 JUL 2015 23:19:04 +0000",
        "Thu, 30 Jul 2015 23:19:04 +0000 (UTC)",
        " Thu, 30 Jul 2015 23:19:04 +0000",
        "Thu, 30 Jul 2015 23:19:04 +0000\n",
        "Thu, ٣٠ Jul 2015 23:19:04 +0000",
        "Mon, 01 Jan 0000 00:00:00 +0000",
        "",
        "2015-07-30",
        1438298344,
        None,
        ["Thu, 30 Jul 2015 23:19:04 +0000"],
    ],
)
def test_what_might_mean_something_else_is_not_read(sent: Any) -> None:
    assert rfc_2822(sent) is None


@pytest.mark.parametrize("sent", ["1578457081000", 1578457081000, 1578457081000.0])
def test_milliseconds_since_1970_are_read(sent: Any) -> None:
    assert epoch_milliseconds(sent) == datetime(2020, 1, 8, 4, 18, 1, tzinfo=UTC)


def test_milliseconds_are_exact_up_to_the_year_9999() -> None:
    assert epoch_milliseconds("1578457081001") == datetime(2020, 1, 8, 4, 18, 1, 1000, tzinfo=UTC)
    last = datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
    assert epoch_milliseconds("253402300799999") == last


@pytest.mark.parametrize(
    "sent",
    ["", "0", 0, -1, "-1", "01578457081000", "+1578457081000", " 1578457081000", "1578457081000.0",
     1578457081000.5, "253402300800000", "9" * 30, "1.5e12", "2020-01-08T04:18:01Z", True, None,
     [1578457081000]],
)  # fmt: skip
def test_what_is_no_number_of_milliseconds_is_not_read(sent: Any) -> None:
    assert epoch_milliseconds(sent) is None

"""The records of a list in two files: the bytes, separated by commas, and where each one starts.

So any window of the list is one piece of a file: an answer needs no work but to be sent. The
records are those of the sandbox, or like them. A record is changed in place, by the last digit of
the year of its modification, so that every answer has the same length before and after.
"""

import mmap
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from etl.sandbox import alibaba_data, data, twilio_data

ACCOUNT = "AC" + 32 * "5"
ORIGINAL = b"5"
"""The last digit of the year in which all records were changed at first."""


class Records:
    """The records in `folder`, mapped; `window` returns those from `start` to before `end`."""

    def __init__(self, folder: Path) -> None:
        with (folder / "offsets").open("rb") as file:
            offsets = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with (folder / "records").open("rb") as file:
            self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._offsets = memoryview(offsets).cast("Q")
        self.count = len(self._offsets) - 1

    def window(self, start: int, end: int) -> memoryview:
        """Return the records, with commas between them; empty beyond the end."""
        start, end = min(start, self.count), min(end, self.count)
        first, last = self._offsets[start], self._offsets[end]
        return self._data[first : max(first, last - 1)]


def write(folder: Path, records: Iterable[bytes]) -> None:
    """Write the records."""
    folder.mkdir(parents=True)
    offsets, place = array("Q"), 0
    with (folder / "records").open("wb") as file:
        for record in records:
            offsets.append(place)
            place += file.write(record + b",")
    offsets.append(place)
    (folder / "offsets").write_bytes(offsets.tobytes())


def change(folder: Path, member: bytes, every: int, digit: bytes) -> int:
    """Set the last digit of the year in `member` of every `every`-th record; return how many.

    `member` is the JSON before the time, such as `"date_updated":"`; the year is 202x.
    """
    offsets = array("Q", (folder / "offsets").read_bytes())[:-1]
    changed = 0
    with (
        (folder / "records").open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as records,
    ):
        for place in offsets[::every]:
            at = records.find(member, place)
            if at < 0:
                raise ValueError(f"no {member!r} in the record at {place}")
            records[at + len(member) + 3] = digit[0]
            changed += 1
    return changed


def channels(count: int) -> Iterator[bytes]:
    """Yield Twilio channels of the sandbox, of which all were changed in 2025."""
    flows = twilio_data.flex_flows(data.random_of(1, "flex_flows"), 10, ACCOUNT)
    rows = twilio_data.channels(data.random_of(1, "channels"), count, ACCOUNT, flows)
    return (record for _, record, _ in rows)


def zoom_flows(count: int, versions: int = 5, entry_points: int = 3) -> Iterator[bytes]:
    """Yield Zoom flows with as many children each, in the members and lengths of the sandbox's."""
    random = data.random_of(1, "zoom")
    for number in range(count):
        yield msgspec.json.encode(_zoom_flow(random, number, versions, entry_points))


def _zoom_flow(random: Random, number: int, versions: int, entry_points: int) -> dict[str, Any]:
    when = f"2025-{1 + number % 12:02}-{1 + number % 28:02}T10:{number % 60:02}:00Z"
    user = f"user{number % 12:018}"
    return {
        "flow_id": random.randbytes(11).hex(),
        "flow_name": data.name(random, data.any_language(random)),
        "flow_description": "Please choose one of the following options.",
        "channel_type": "voice",
        "channel": "voice",
        "status": "published",
        "modified_by": user,
        "last_modified_time": when,
        "entry_points": [
            {
                "entry_id": random.randbytes(11).hex(),
                "entry_number": f"+44207946{number * entry_points + each:08}",
                "entry_language": "en-US",
            }
            for each in range(entry_points)
        ],
        "flow_versions": [
            {
                "flow_version_id": random.randbytes(11).hex(),
                "flow_version_description": f"Version {each}",
                "flow_version_status": "published" if each == versions else "archived",
                "flow_version": each,
                "flow_version_modified_by": user,
                "flow_version_last_modified_time": when,
            }
            for each in range(versions, 0, -1)
        ],
    }


def contact_flows(count: int, instance: str) -> list[bytes]:
    """Return contact flows of the sandbox, the one that was changed last at the end."""
    flows = alibaba_data.flows(data.random_of(1, instance), count, instance)
    flows.sort(key=lambda flow: str(flow["UpdatedTime"]))
    return [msgspec.json.encode(flow) for flow in flows]

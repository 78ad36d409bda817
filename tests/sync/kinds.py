"""What a history needs to know about a stream: its paging, and how records are made and changed."""

import email.utils
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any

from sqlalchemy import Table

from etl.sandbox.exchange import Response
from etl.sandbox.store import Paging
from etl.warehouse import tables

Record = dict[str, Any]
Key = tuple[str, ...]
Row = tuple[Any, ...]
Rendering = tuple[frozenset[Row], ...]
"""The rows that a record becomes, per table of its stream, without source and valid_from."""

SHANGHAI = timezone(timedelta(hours=8))


@dataclass(frozen=True, slots=True)
class Mode:
    """A stream and how its list is paged.

    `promises`  whether a complete run has every row that existed all along, proven by the list's
                count (Zoom) or by anchors and count (Alibaba). Twilio sends no count.
    `keeps`     rows that are no longer listed stay in the table.
    """

    name: str
    source: str
    stream: str
    paging: Paging
    promises: bool = False
    keeps: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """How one stream's records are made, changed, and what rows they become.

    `create` (random, id, stamp) → record; `change` (random, record) → the members that change;
    `render` (key, record) → rows; `stamp` seconds since 1970 → the text of a time. `updated` is
    the member with the time of the last change, which may be None before the first one.

    `as_known`  (rows of a version, rows in the tables) → the version without what callflow need not
                know and the tables do not have.
    `details`   what stands in the paths of requests for single records, which a complete run needs;
                at times they get one of `failures`, or an answer from before the run.
    `sizes`     how many records there are at first: from, to.
    """

    key: str
    updated: str
    stamp: Callable[[float], str]
    create: Callable[[Random, str, str], Record]
    change: Callable[[Random, Record], Record]
    render: Callable[[Key, Record], Rendering]
    as_known: Callable[[Rendering, Rendering], Rendering] = lambda version, stored: version
    details: str = ""
    failures: tuple[Response, ...] = ()
    sizes: tuple[int, int] = (30, 110)


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc_2822(seconds: float) -> str:
    return email.utils.format_datetime(datetime.fromtimestamp(int(seconds), UTC))


def milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


def moment(text: str) -> datetime:
    """Read a time as any of the providers spells it."""
    if text.isdigit():
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    if "," in text:
        return email.utils.parsedate_to_datetime(text)
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=SHANGHAI)


def row(table: Table, **values: Any) -> Row:
    return tuple(values.get(name) for name in tables.data_columns(table))


def few(random: Random, prefix: str) -> list[str]:
    """Return ids of children: up to three of five, so that they go and come back."""
    return random.sample([f"{prefix}{n}" for n in range(5)], random.randint(0, 3))


def word(random: Random) -> str:
    """Return a text of few values, so that a record changes back at times."""
    return random.choice(("Main", "Sales", "Störung ☎", "售后服务", "'; --"))


def canonical(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value

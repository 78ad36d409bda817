"""Which provider has which streams: where extractors, transformers and tables meet."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from zoneinfo import ZoneInfo

from sqlalchemy import Table

from etl.extract import alibaba as extract_alibaba
from etl.extract import twilio as extract_twilio
from etl.extract import zoom as extract_zoom
from etl.extract.http import Http
from etl.extract.page import Ask, Lookup, Page
from etl.transform import alibaba, twilio, zoom
from etl.transform.rows import Rows
from etl.warehouse import tables

Transform = Callable[[Page, int], Rows]


@dataclass(frozen=True, slots=True)
class Stream:
    """One list of a provider, from its API to its tables. `settings` is the source's, of config.

    `tables`     the records' own table, then their children's, parents first.
    `connect`    opens the HTTP seam with the provider's authentication.
    `extract`    pages through the list, or as much of it as is asked for.
    `transform`  makes rows of a page, once it has the settings.
    `lookup`     asks for one record by its key without source; None: the API cannot be asked.
    `probe`      one cheap request that shows whether credentials and rights suffice.
    `modified`   the column of the provider's modification time, the watermark; None: it has none.
    `scope`      the key column that splits the list (Alibaba: its instances).
    `counted`    whether the API says how many rows the list has.
    `changes`    how a run can read less than the whole list: "since" a watermark; from the newest
                 on, where the list is "newest first"; None: it cannot.
    `on_absent`  what becomes of a record that is no longer listed, unless the settings say
                 otherwise: "confirm" that it went, or "keep" run-time objects, which may leave the
                 list while they still exist.
    `resumable`  whether a scan can go on from a page's pointer later.
    `batch`      pages per COPY.
    """

    name: str
    tables: tuple[Table, ...]
    connect: Callable[..., Http]
    extract: Callable[[Http, Any, Ask], Iterator[Page]]
    transform: Callable[[Any], Transform]
    lookup: Callable[[Http, Any, tuple[Any, ...]], Lookup] | None
    probe: Callable[[Http, Any], str]
    modified: str | None = None
    scope: str | None = None
    counted: bool = True
    changes: Literal["since", "newest first"] | None = None
    on_absent: Literal["confirm", "keep"] = "confirm"
    resumable: bool = False
    batch: int = 10


CATALOG: Mapping[str, tuple[Stream, ...]] = {
    "zoom": (
        Stream(
            name="flows",
            tables=(tables.zoom_flows, tables.zoom_flow_versions, tables.zoom_entry_points),
            connect=extract_zoom.connect,
            extract=extract_zoom.flows,
            transform=lambda settings: zoom.flows,
            lookup=extract_zoom.lookup_flow,
            probe=extract_zoom.probe_flows,
            modified="last_modified_time",
        ),
    ),
    "twilio": (
        Stream(
            name="flex_flows",
            tables=(tables.twilio_flex_flows,),
            connect=extract_twilio.connect,
            extract=extract_twilio.flex_flows,
            transform=lambda settings: twilio.flex_flows,
            lookup=extract_twilio.lookup_flex_flow,
            probe=extract_twilio.probe_flex_flows,
            modified="date_updated",
            counted=False,
            resumable=True,
        ),
        Stream(
            name="channels",
            tables=(tables.twilio_channels,),
            connect=extract_twilio.connect,
            extract=extract_twilio.channels,
            transform=lambda settings: twilio.channels,
            lookup=extract_twilio.lookup_channel,
            probe=extract_twilio.probe_channels,
            modified="date_updated",
            counted=False,
            changes="newest first",
            on_absent="keep",
            resumable=True,
        ),
    ),
    "alibaba": (
        Stream(
            name="contact_flows",
            tables=(
                tables.alibaba_contact_flows,
                *tables.children(tables.alibaba_contact_flows),
            ),
            connect=extract_alibaba.connect,
            extract=extract_alibaba.contact_flows,
            transform=lambda settings: partial(
                alibaba.contact_flows, zone=ZoneInfo(settings.timezone)
            ),
            lookup=None,
            probe=extract_alibaba.probe_contact_flows,
            modified="updated_time",
            scope="instance_id",
            changes="since",
            batch=1,  # a hundred Definitions of a hundred kilobytes are enough to hold
        ),
    ),
}

"""Twilio's records → rows: Flex Flows and chat channels."""

from etl.extract.page import Page
from etl.transform.rows import Rows
from etl.transform.values import exact_reader, no_rows, readable, reader
from etl.warehouse import tables

_flex_flow = reader(tables.twilio_flex_flows)
_channel = reader(tables.twilio_channels)
_all_channels = exact_reader(tables.twilio_channels)


def flex_flows(page: Page, start: int) -> Rows:
    """A page of `flex_flows[]` → rows of twilio.flex_flows.

    `start` is the ordinal of the page's first record in the scan. Every row begins with the ordinal
    of its record and False: it has no children that could be unreadable.
    """
    rows = no_rows(tables.twilio_flex_flows)
    rows.tables["twilio.flex_flows"] += [
        (start + index, False, *row)
        for index, _, row in readable("flex flow", page.records, _flex_flow, (), rows)
    ]
    return rows


def channels(page: Page, start: int) -> Rows:
    """A page of `flex_chat_channels[]` → rows of twilio.channels; begun as those of flex_flows."""
    rows = no_rows(tables.twilio_channels)
    if (found := _all_channels(page.records)) is not None:
        rows.tables["twilio.channels"] += [
            (ordinal, False, *row, None) for ordinal, row in enumerate(found, start)
        ]
        return rows
    rows.tables["twilio.channels"] += [
        (start + index, False, *row)
        for index, _, row in readable("channel", page.records, _channel, (), rows)
    ]
    return rows

"""What every table has to hold, worked out from well-formed records apart from the product."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg

from etl.providers import TABLES
from etl.sandbox.server import Sandbox
from tests.postgres import dsn
from tests.transform import naive

Rows = dict[str, set[tuple[Any, ...]]]

SHANGHAI = timezone(timedelta(hours=8))


def _time(text: str | None, zone: timezone | None = None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment.replace(tzinfo=zone) if zone else moment


def of(sandbox: Sandbox) -> Rows:
    """Return rows per table, without extra and valid_from; all records are as documented."""
    rows: Rows = {name: set() for name in COLUMNS}
    for flow in sandbox.zoom.flows.records():
        _zoom(flow, rows)
    for flow in sandbox.twilio.flex_flows.records():
        inside = flow.get("integration") or {}
        names = COLUMNS["twilio.flex_flows"][1:]
        rows["twilio.flex_flows"].add(
            (
                "twilio_demo",
                *(
                    inside.get(name.removeprefix("integration_"))
                    if name.startswith("integration_") and name != "integration_type"
                    else _time(flow.get(name))
                    if name.startswith("date_")
                    else flow.get(name)
                    for name in names
                ),
            )
        )
    for channel in sandbox.twilio.channels.records():
        rows["twilio.channels"].add(
            (
                "twilio_demo",
                *(
                    _time(channel.get(name)) if name.startswith("date_") else channel.get(name)
                    for name in COLUMNS["twilio.channels"][1:]
                ),
            )
        )
    for instance, store in sandbox.alibaba.flows.items():
        for flow in store.records():
            _alibaba(instance, flow, rows)
    return rows


def _zoom(flow: dict[str, Any], rows: Rows) -> None:
    def cells(record: dict[str, Any], table: str) -> tuple[Any, ...]:
        return tuple(
            _time(record.get(name)) if name.endswith("_time") else record.get(name)
            for name in COLUMNS[table][2:]
        )

    head = ("zoom_demo", flow["flow_id"])
    rows["zoom.flows"].add((*head, *cells(flow, "zoom.flows")))
    for child in flow.get("flow_versions") or ():
        rows["zoom.flow_versions"].add((*head, *cells(child, "zoom.flow_versions")))
    for child in flow.get("entry_points") or ():
        rows["zoom.entry_points"].add((*head, *cells(child, "zoom.entry_points")))


def _alibaba(instance: str, flow: dict[str, Any], rows: Rows) -> None:
    head = ("alibaba_demo", instance, flow["ContactFlowId"])
    plain = ("Name", "Type", "Description", "Definition", "DraftId", "Published", "Editor")
    times = (_time(flow.get(name), SHANGHAI) for name in ("CreatedTime", "UpdatedTime"))
    rows["alibaba.contact_flows"].add((*head, *(flow.get(name) for name in plain), *times))
    for number in flow.get("NumberList") or ():
        rows["alibaba.contact_flow_numbers"].add((*head, number))
    for found in naive.of_definition(flow["Definition"]):
        rows["alibaba.contact_flow_findings"].add((*head, *found))
    for activity in _activities(flow["Definition"]):
        rows["alibaba.contact_flow_activities"].add(
            (
                *head,
                activity["id"],
                activity.get("type"),
                activity.get("name"),
                activity.get("nodeIndex"),
                json.dumps(activity.get("properties"), sort_keys=True),
            )
        )
        for position, event in enumerate(activity.get("events") or ()):
            rows["alibaba.contact_flow_transitions"].add(
                (
                    *head,
                    activity["id"],
                    position,
                    event.get("event"),
                    event.get("edgeId"),
                    event.get("next"),
                )
            )


def _activities(definition: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(definition)["activities"]
    except ValueError:
        return []
    return found


COLUMNS = {
    table.fullname: [
        column.name for column in table.columns if column.name not in ("extra", "valid_from")
    ]
    for table in TABLES.values()
}


def stored(url: str) -> Rows:
    """Return the rows of the warehouse, in the same form."""
    rows: Rows = {}
    with psycopg.connect(dsn(url)) as connection:
        for table, columns in COLUMNS.items():
            found = connection.execute(f"SELECT {', '.join(columns)} FROM {table}")
            rows[table] = {
                tuple(json.dumps(c, sort_keys=True) if isinstance(c, dict) else c for c in row)
                for row in found
            }
    return rows


def versions(url: str) -> Rows:
    """Return each row's place and writer, which are equal only if no row was written."""
    with psycopg.connect(dsn(url)) as connection:
        return {
            table: set(connection.execute(f"SELECT ctid::text, xmin::text FROM {table}"))
            for table in COLUMNS
        }

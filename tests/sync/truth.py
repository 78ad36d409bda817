"""What every table has to hold, worked out from well-formed records apart from the product."""

import email.utils
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import psycopg

from etl.providers import PROVIDERS
from etl.providers.catalog import TABLES
from etl.sandbox.server import Sandbox
from tests.postgres import dsn
from tests.providers.twilio.expected import studio_rows, without_definition
from tests.transform import naive

Rows = dict[str, set[tuple[Any, ...]]]

STREAMS = [f"{each.name}_demo.{stream.name}" for each in PROVIDERS for stream in each.streams]
"""What is synced with the configuration that the sandbox prints."""

SHANGHAI = timezone(timedelta(hours=8))


def _time(text: str | None, zone: timezone | None = None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment.replace(tzinfo=zone) if zone else moment


def of(sandbox: Sandbox, held: Rows | None = None) -> Rows:
    """Return rows per table, without extra and valid_from; all records are as documented.

    `held` is what the warehouse holds: definitions that callflow need not fetch, because they are
    of revisions that are neither the newest nor live, may be missing there, and then are here too.
    """
    table = "twilio.studio_flow_revisions"
    unfetched = without_definition(held[table], COLUMNS[table]) if held else set()
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
    for flow in sandbox.twilio.records()["studio_flows"]:
        for table, cells in studio_rows(flow, unfetched):
            rows[table].add(
                tuple((cells | {"source": "twilio_demo"}).get(name) for name in COLUMNS[table])
            )
    for address in sandbox.twilio.addresses.records():
        _address(address, rows)
    for number in sandbox.twilio.phone_numbers.records():
        _twilio_number(number, rows)
    for instance, store in sandbox.alibaba.phone_numbers.items():
        for number in store.records():
            _alibaba_number(instance, number, rows)
    for instance, store in sandbox.alibaba.flows.items():
        for flow in store.records():
            _alibaba(instance, flow, rows)
    return rows


def _address(address: dict[str, Any], rows: Rows) -> None:
    started = address.get("auto_creation") or {}
    own = {"auto_creation_enabled": "enabled", "auto_creation_type": "type"}
    cells = {
        **{name: started.get(own.get(name, name)) for name in COLUMNS["twilio.addresses"]},
        **{name: value for name, value in address.items() if name != "auto_creation"},
        "source": "twilio_demo",
        "webhook_filters": _json(started.get("webhook_filters")),
        **{name: _time(address.get(name)) for name in ("date_created", "date_updated")},
    }
    rows["twilio.addresses"].add(tuple(cells[name] for name in COLUMNS["twilio.addresses"]))


def _twilio_number(number: dict[str, Any], rows: Rows) -> None:
    cells = {name: value or None for name, value in number.items()} | {"source": "twilio_demo"}
    for name, value in (number.get("capabilities") or {}).items():
        cells[f"capability_{name}"] = value
    for name in ("date_created", "date_updated"):
        cells[name] = email.utils.parsedate_to_datetime(number[name])
    for way in ("voice", "sms"):
        url = urlsplit(number.get(f"{way}_url") or "")
        place = url.path.split("/")[1:]
        is_studio = url.netloc == "webhooks.twilio.com" and place[:2] == ["v1", "Accounts"]
        is_own = is_studio and place[2] == number["account_sid"] and place[3] == "Flows"
        cells[f"{way}_studio_flow_sid"] = place[4] if is_own else None
    columns = COLUMNS["twilio.phone_numbers"]
    rows["twilio.phone_numbers"].add(tuple(cells.get(name) for name in columns))


def _alibaba_number(instance: str, number: dict[str, Any], rows: Rows) -> None:
    head = ("alibaba_demo", instance, number["Number"])
    names = ("Active", "ContactFlowId", "ContactFlowName", "Usage", "Provider", "Province", "City")
    joined = datetime.fromtimestamp(int(number["CreateTime"]) / 1000, UTC)
    cells = [number.get(name) for name in (*names, "UserId")]
    rows["alibaba.phone_numbers"].add((*head, *cells, joined))
    for group in number.get("SkillGroups") or ():
        rows["alibaba.phone_number_skill_groups"].add(
            (*head, group["SkillGroupId"], group.get("Name"), group.get("DisplayName"))
        )


def _json(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value


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
            rows[table] = {tuple(_json(cell) for cell in row) for row in found}
    return rows


def versions(url: str) -> Rows:
    """Return each row's place and writer, which are equal only if no row was written."""
    with psycopg.connect(dsn(url)) as connection:
        return {
            table: set(connection.execute(f"SELECT ctid::text, xmin::text FROM {table}"))
            for table in COLUMNS
        }

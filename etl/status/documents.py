"""Runs and streams as JSON, for `--json`, /api/status and `etl.api`. Pure."""

import json
from dataclasses import asdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from etl.load.named import Named
from etl.load.runs import Run
from etl.load.unlisted import Missing
from etl.status.health import StreamHealth
from etl.sync.outlook import Outlook


def run_json(run: Run, outlook: Outlook | None = None) -> str:
    """Return a run as one JSON object: the columns of etl.runs, and what `outlook_of` gives."""
    return as_json(asdict(run) | ({} if outlook is None else outlook_of(outlook)))


def outlook_of(outlook: Outlook) -> dict[str, Any]:
    """Return whom a run keeps although they are missing; of a dry run all that it would do.

    Each list holds the first records by name, its `_total` says how many there are.
    """
    lists = {"missing": outlook.missing}
    found: dict[str, Any] = {}
    if outlook.dry_run:
        found = {"dry_run": True, "would_update_fields": dict(outlook.fields)}
        lists |= {
            "would_insert": outlook.new,
            "would_update": outlook.changed,
            "would_delete": outlook.deleted,
            "unlisted": outlook.unlisted,
            "confirmed": outlook.confirmed,
        }
    for name, each in lists.items():
        found |= {name: [*map(_record, each.records)], f"{name}_total": each.total}
    return found


def _record(record: Named) -> dict[str, Any]:
    fields = {"fields": [*record.fields]} if record.fields else {}
    return {"id": record.id, "name": record.name, **fields}


def missing_json(source: str, stream: str, record: Missing) -> str:
    """Return a record that is missing from its list as one JSON object."""
    return as_json({"source": source, "stream": stream, **asdict(record)})


def stream_json(stream: StreamHealth) -> str:
    """Return a stream's state as one JSON object; lengths of time are seconds."""
    error = " → ".join(filter(None, (stream.problem, stream.advice))) or None
    return as_json({**asdict(stream), "name": stream.name, "good": stream.good, "error": error})


def as_json(value: Any) -> str:
    """Return `value` as one line of JSON; times are ISO 8601, lengths of time seconds."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)

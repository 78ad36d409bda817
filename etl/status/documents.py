"""Runs and streams as JSON, for `--json`, /api/status and `etl.api`. Pure."""

import json
from dataclasses import asdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from etl.load.runs import Run
from etl.status.health import StreamHealth


def run_json(run: Run) -> str:
    """Return a run as one JSON object: the columns of etl.runs."""
    return as_json(asdict(run))


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

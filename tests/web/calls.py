"""Flows made by hand, as the warehouse answers: of one source, with awkward names among them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from etl.errors import ConfigError
from etl.status.drawing import Drawing
from etl.status.flows import Content, Flow, FlowStory, Row, SourceFlows
from tests.web import fleet

SOURCE = "zoom_eu"
EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>\n&amp; {{ 7 * 7 }}"
NAMES = ("Billing", EVIL, "קו שירות", "خدمة \u202eevil", "👩‍👩‍👧‍👦 ☎️ Family", "w" * 80, "", None)
"""Names of flows; each has the id f1, f2, … in this order."""
CHANGED = datetime(2026, 3, 13, 17, 5, tzinfo=UTC)


def flow_row(name: str | None, flow_id: str, **given: Any) -> dict[str, Any]:
    """Return a row of callflow.flows, except for `given`."""
    row: dict[str, Any] = {
        "provider": "zoom",
        "source": SOURCE,
        "account_id": None,
        "flow_id": flow_id,
        "flow_key": f"{SOURCE}/{flow_id}",
        "name": name,
        "description": None,
        "flow_type": None,
        "channel": "voice",
        "channel_source": None,
        "status": "published",
        "is_live": True,
        "has_unpublished_changes": False,
        "published_version": 3,
        "newest_version": 3,
        "modified_by": "u-anna",
        "modified_at": fleet.ago(days=3),
        "created_at": None,
        "valid_from": fleet.ago(days=2),
    }
    return row | given


def change(flow_id: str = "f1", name: str | None = "Billing", **given: Any) -> dict[str, Any]:
    """Return a row of callflow.changes, except for `given`: the name of a flow was another one."""
    row: dict[str, Any] = {
        "provider": "zoom",
        "source": SOURCE,
        "account_id": None,
        "flow_id": flow_id,
        "flow_name": name,
        "entity": "flow",
        "entity_id": flow_id,
        "entity_name": name,
        "observed_at": CHANGED,
        "modified_at": CHANGED - timedelta(minutes=4),
        "modified_by": "u-anna",
        "change": "updated",
        "field": "name",
        "old_value": "Invoices",
        "new_value": name,
        "flow_key": f"{SOURCE}/{flow_id}",
    }
    return row | given


def step(step_id: str, name: str, step_type: str = "PLAY") -> dict[str, Any]:
    return {"step_id": step_id, "step_type": step_type, "name": name, "step_number": None,
            "is_start": None}  # fmt: skip


def link(step_id: str, number: int, event: str, to: str | None) -> dict[str, Any]:
    return {"step_id": step_id, "link_number": number, "event": event, "next_step_id": to}


def content(name: str | None = "Billing", **given: Any) -> Content:
    """Return a flow with everything, in which all that can has that name; except for `given`."""
    called = name or ""
    values: dict[str, Any] = {
        "flow": flow_row(name, "f1", description=name),
        "gone_at": None,
        "entry_points": [
            {"entry_point_id": "e1", "kind": "phone", "address": "+4930123456",
             "address_key": "+4930123456", "name": called, "language": "de-DE",
             "valid_from": fleet.ago(days=2)},
        ],
        "versions": [
            {"version_id": f"v{number}", "version_number": number, "status": status,
             "description": called, "modified_by": "u-ben", "modified_at": fleet.ago(days=9),
             "valid_from": fleet.ago(days=2)}
            for number, status in ((3, "published"), (None, None))
        ],
        "findings": [
            {"step_id": "s3", "finding": "dead_end", "detail": called,
             "valid_from": fleet.ago(days=1, hours=2)},
            {"step_id": "s2", "finding": "loop", "detail": "s2", "valid_from": fleet.ago(days=9)},
            {"step_id": None, "finding": "no_start", "detail": None,
             "valid_from": fleet.ago(days=2)},
        ],
        "steps": [step("s1", called, "INCOMING_CALL"), step("s2", "Menu", called or "MENU"),
                  step("s3", "Sales")],
        "links": [link("s1", 0, called, "s2"), link("s2", 0, "timeout", "s2"),
                  link("s2", 1, "1", "s3"), link("s3", 0, "done", None)],
        "uses": [
            {"step_id": step_id, "kind": kind, "target_id": "f2", "target_name": target_name,
             "is_dynamic": is_dynamic, "valid_from": fleet.ago(days=2)}
            for step_id, kind, target_name, is_dynamic in (
                ("s1", "flow", called or "f2", False), ("s2", "flow", None, False),
                ("s3", "url", None, True),
            )
        ],
        "used_by": [{"name": name, "flow_id": "f3", "flow_key": f"{SOURCE}/f3", "step_id": "s9"}],
    }  # fmt: skip
    return Content(**(values | given))


def story_of(its: Content, changes: Sequence[Row] | None = None) -> FlowStory:
    """Return the answer about a flow with that content."""
    row = its.flow
    flow = Flow(row["source"], row["account_id"] or "", row["flow_id"], row["provider"],
                row["name"] or "", its.gone_at is None)  # fmt: skip
    made = [change(row["flow_id"], row["name"])] if changes is None else changes
    return FlowStory(flow, its, made)


def story(key: str) -> FlowStory | None:
    """Return the flow with that key: zoom_eu/f1 and so on have NAMES."""
    for number, name in enumerate(NAMES, 1):
        if key == f"{SOURCE}/f{number}":
            its = content(name, flow=flow_row(name, f"f{number}", description=name))
            return story_of(its)
    return None


def of_source(name: str, number: int = len(NAMES)) -> SourceFlows:
    """Return the flows of a source: those with NAMES, and more up to `number`; others have none."""
    if name != SOURCE:
        return SourceFlows([], [], [], {})
    more = [f"Flow {at:04}" for at in range(len(NAMES) + 1, number + 1)]
    rows = [flow_row(each, f"f{at}") for at, each in enumerate((*NAMES, *more), 1)]
    gone = [{"name": EVIL, "flow_id": "g1", "flow_key": f"{SOURCE}/g1", "deleted_at": CHANGED}]
    changes = [change(f"f{at}", each) for at, each in enumerate(NAMES, 1)]
    return SourceFlows(rows, gone, changes, {f"{SOURCE}/f1": 2})


def latest(limit: int) -> Sequence[Row]:
    """Return the last changes of all sources."""
    return [change(), change("f7", "Returns", source="zoom_us", modified_by=None)][:limit]


def no_picture(drawing: Drawing) -> str:
    """Refuse to draw, as an installation without the extra does."""
    raise ConfigError(
        "pygraphviz is not installed",
        where="picture",
        advice="pip install '/path/to/callflow[pictures]'",
    )

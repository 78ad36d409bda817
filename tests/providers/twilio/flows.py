"""Studio flows for tests: states, definitions, flows with revisions, recorded examples."""

import json
from pathlib import Path
from typing import Any

from etl.sandbox import twilio_studio as emulated
from etl.sandbox.twilio import Twilio

HERE = Path(__file__).parent
AT = "2026-03-01T09:00:00Z"
ACCOUNT = Twilio().account_sid


def recorded(name: str) -> Any:
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def sid(number: int) -> str:
    return f"FW{number:032x}"


def state(name: str, *following: str | None, **more: Any) -> dict[str, Any]:
    """Return a state with an event for each name of `following`."""
    transitions = [{"event": f"event{n}", "next": each} for n, each in enumerate(following)]
    return {"name": name, "type": "say-play", "transitions": transitions, "properties": {}, **more}


def definition(*states: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"initial_state": "Trigger", "states": [*states], **more}


HELLO = definition(state("Trigger", "hello"), state("hello", properties={"say": "Hello"}))
CHANGED = definition(state("Trigger", "hello"), state("hello", properties={"say": "Hi"}))


def add(twilio: Twilio, number: int, *revisions: tuple[str, object], **more: Any) -> str:
    """Add a flow with these revisions: their status and definition."""
    flow = emulated.flow(sid(number), ACCOUNT, f"Flow {number}", AT) | more
    for status, inside in revisions:
        flow = emulated.saved(flow, inside, AT, status=status)
    return twilio.studio_flows.add(flow)


def asked(twilio: Twilio) -> list[str]:
    """Return what was asked for below the list since the last call."""
    paths = [each.path.removeprefix("/v2/Flows/") for each in twilio.requests]
    twilio.requests.clear()
    return [path for path in paths if path != "/v2/Flows"]

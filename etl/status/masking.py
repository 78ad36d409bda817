"""What a flow is, without what is personal: addresses, and phone numbers in texts. Pure."""

import json
import re
from typing import Any

from etl.status.drawing import mask, mask_numbers
from etl.status.flows import Content, Row

_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*')
"""A string or a number in JSON."""


def masked(of: Content) -> Content:
    """Return the content of a flow without addresses, and without phone numbers in its texts.

    Ids stay, except where an entry point's id is its address.
    """
    hidden = []
    for row in of.entry_points:
        address, name, its_id = row["address"], row["name"], row["entry_point_id"]
        new: dict[str, Any] = {"address": address and mask(address), "address_key": None}
        new |= {"name": name and mask(name)}
        new |= {"entry_point_id": new["address"] if its_id == address else its_id}
        hidden.append({**row, **new})
    return Content(
        _without_numbers(of.flow, "name", "description"),
        of.gone_at,
        hidden,
        [_without_numbers(row, "description") for row in of.versions],
        [_without_numbers(row, "detail") for row in of.findings],
        [
            {**_without_numbers(row, "name"), "properties": _masked_json(row["properties"])}
            for row in of.steps
        ],
        [_without_numbers(row, "event") for row in of.links],
    )


def _without_numbers(row: Row, *columns: str) -> Row:
    return {**row, **{name: mask_numbers(row[name]) for name in columns if row[name]}}


def _masked_json(properties: str | None) -> str | None:
    """Return the settings of a step with their numbers masked, still as JSON.

    A number that is hidden becomes a string. Each literal is masked by itself: what is escaped in
    it, such as \\u0031, is a digit, too.
    """
    if properties is None:
        return None

    def literal(found: re.Match[str]) -> str:
        value = json.loads(found[0])
        shown = mask_numbers(value if isinstance(value, str) else found[0])
        same = shown == (value if isinstance(value, str) else found[0])
        return found[0] if same else json.dumps(shown, ensure_ascii=False)

    return _LITERAL.sub(literal, properties)

"""What is to be found about a graph, worked out slowly: from which step which other is reached."""

import json
from collections import Counter
from collections.abc import Collection
from typing import Any

Found = tuple[str, str, str, str | None]
"""Step, finding, event, detail."""


def found(
    steps: Collection[tuple[str, bool, int | None, bool]],
    links: Collection[tuple[str, str, str | None]],
) -> set[Found]:
    """Find it: steps are (id, starts, order, ends), each once; links are (step, event, next)."""
    ids = [step[0] for step in steps]
    after = {name: {to for of, _, to in links if of == name and to in ids} for name in ids}
    for middle in ids:
        for name in ids:
            if middle in after[name]:
                after[name] = after[name] | after[middle]
    starts = {step[0] for step in steps if step[1]}
    orders = [step[2] for step in steps if step[2] is not None]
    if not starts and orders:
        starts = {next(step[0] for step in steps if step[2] == min(orders))}
    seen: set[Found] = set() if starts else {("", "no_start", "", None)}
    for name, _, _, ends in steps:
        own = [(event, to) for of, event, to in links if of == name]
        if starts and name not in starts and not any(name in after[each] for each in starts):
            seen.add((name, "unreachable", "", None))
        if not ends and not after[name]:
            seen.add((name, "dead_end", "", None))
        if any(to is not None for _, to in own):
            seen |= {(name, "open_event", event, None) for event, to in own if to is None}
        for event in {event for event, to in own if to is not None and to not in ids}:
            named = [to for other, to in own if other == event and to and to not in ids]
            seen.add((name, "broken_link", event, ", ".join(dict.fromkeys(named))))
        if name in after[name]:
            loop = sorted(each for each in after[name] if name in after[each])
            more = f" and {len(loop) - 20} more" if len(loop) > 20 else ""
            seen.add((name, "loop", "", ", ".join(loop[:20]) + more))
    return seen


def of_definition(text: str | None) -> set[Found]:
    """Find it in an Alibaba Definition: one as documented, or text that is no JSON."""
    if not text:
        return set()
    try:
        activities: list[dict[str, Any]] = json.loads(text)["activities"]
    except ValueError:
        return {("", "unreadable", "", None)}
    assert max(Counter(each["id"] for each in activities).values(), default=1) == 1
    return found(
        [
            (
                each["id"],
                each.get("type") == "INCOMING_CALL",
                each.get("nodeIndex"),
                each.get("type") == "HANGUP",
            )
            for each in activities
        ],
        [
            (each["id"], event.get("event") or "", event.get("next"))
            for each in activities
            for event in each.get("events") or ()
        ],
    )

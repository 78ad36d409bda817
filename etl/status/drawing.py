"""What is inside a flow, for drawings of it: values, words, and the drawing in Mermaid. Pure.

`etl/status/picture.py` makes SVG and HTML of it, `etl/commands/drawing.py` a drawing for a
terminal. All of them show what they are given: who asks for a drawing masks what is personal.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from etl.config.redact import harmless

UNREACHABLE, LOOP = "unreachable", "loop"
"""Findings that change how a step is drawn; others are only named."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a flow. `findings` are words of flow_findings, such as "dead_end".

    `is_start` whether the provider says that contacts come in here.
    """

    id: str
    step_type: str
    name: str
    findings: tuple[str, ...] = ()
    is_start: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """What follows a step on an event. `next_step_id` None: nothing does."""

    step_id: str
    event: str
    next_step_id: str | None


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one step to the next, for all events that lead there, in one line.

    `number`  of the next step; None if there is none, which `missing` then says in words.
    `back`    whether it closes a loop: it leads to a step on the way to its own.
    """

    events: str
    number: int | None
    missing: str
    back: bool


@dataclass(frozen=True)
class Drawing:
    """A flow as it is drawn.

    `steps`     in the order of their numbers; ids are unique.
    `links`     in the order of a step's events. Those of steps that do not exist are left out.
    `addresses` what reaches the flow, in the words to show; see `mask`.
    `findings`  about the whole flow, such as "no_start".
    """

    title: str
    steps: tuple[Step, ...]
    links: tuple[Link, ...] = ()
    addresses: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Return step id → its number in the drawing, from 1."""
        return {step.id: number for number, step in enumerate(self.steps, 1)}

    @cached_property
    def arrows(self) -> Mapping[str, tuple[Arrow, ...]]:
        """Return step id → the arrows that leave it, one for all events that lead to one step."""
        found: dict[str, dict[str | None, dict[str, None]]] = {step.id: {} for step in self.steps}
        for link in self.links:
            if link.step_id in found:
                found[link.step_id].setdefault(link.next_step_id, {})[plain(link.event)] = None
        return {
            source: tuple(self._arrow(source, *each) for each in targets.items())
            for source, targets in found.items()
        }

    def _arrow(self, source: str, target: str | None, events: Iterable[str]) -> Arrow:
        to = None if target is None else self.numbers.get(target)
        missing = "nothing" if target is None else f"no step {plain(target)}"
        said = ", ".join(filter(None, events))
        return Arrow(said, to, "" if to else missing, (source, target) in self._back)

    @cached_property
    def start(self) -> str | None:
        """Return the id of the step at which calls come in; None if no step is reachable.

        If the provider does not say which one it is: of the steps that can be reached, only the
        start can do without an arrow that leads to it; if all have one, it is the first of them.
        """
        for step in self.steps:
            if step.is_start:
                return step.id
        reached = [step.id for step in self.steps if UNREACHABLE not in step.findings]
        led_to = {link.next_step_id for link in self.links if link.step_id in self.numbers}
        return next((each for each in reached if each not in led_to), next(iter(reached), None))

    @property
    def ends_open(self) -> bool:
        """Return whether an arrow leads to no step."""
        return any(arrow.missing for arrows in self.arrows.values() for arrow in arrows)

    @property
    def goes_back(self) -> bool:
        """Return whether an arrow closes a loop."""
        return bool(self._back)

    @cached_property
    def _back(self) -> frozenset[tuple[str, str | None]]:
        """Return the pairs of steps whose arrow closes a loop: it leads back on the way to it."""
        following: dict[str, list[str]] = {step.id: [] for step in self.steps}
        for link in self.links:
            if link.step_id in following and link.next_step_id in following:
                following[link.step_id].append(link.next_step_id)
        found, seen = set(), set[str]()
        for root in filter(None, [self.start, *following]):
            way: dict[str, Iterator[str]] = {}
            if root not in seen:
                seen.add(root)
                way[root] = iter(following[root])
            while way:
                here = next(reversed(way))
                target = next(way[here], None)
                if target is None:
                    del way[here]
                elif target in way:
                    found.add((here, target))
                elif target not in seen:
                    seen.add(target)
                    way[target] = iter(following[target])
        return frozenset(found)


# --- words ---------------------------------------------------------------------------------------
def plain(text: str) -> str:
    """Return `text` as one line of characters that can be shown."""
    line = " ".join(text.split())
    return "".join(
        each if each.isprintable() or each in "\u200c\u200d" else "\ufffd"
        for each in harmless(line)
    )


def short(text: str, limit: int) -> str:
    """Return `text` on one line, cut to `limit` characters."""
    line = plain(text)
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def fold(text: str, width: int, lines: int, size: Callable[[str], int]) -> list[str]:
    """Return `text` in up to `lines` lines of up to `width`, as `size` measures; "…" if cut.

    Breaks between words, and within one that is wider than a line.
    """
    found = [""]
    for word in plain(text).split(" "):
        joined = f"{found[-1]} {word}".strip()
        if size(joined) <= width:
            found[-1] = joined
            continue
        if found[-1]:
            found.append("")
        for each in word:
            if found[-1] and size(found[-1] + each) > width:
                found.append("")
            found[-1] += each
        if len(found) > lines:
            break
    if len(found) <= lines:
        return found
    last = found[lines - 1]
    while last and size(f"{last}…") > width:
        last = last[:-1]
    return [*found[: lines - 1], f"{last.rstrip()}…"]


def headline(step: Step) -> str:
    """Return what a step is called: its name, else its type, else its id."""
    return plain(step.name) or plain(step.step_type) or plain(step.id)


def kind(step: Step) -> str:
    """Return the type of a step, if `headline` does not say it already."""
    word = plain(step.step_type)
    return "" if word == headline(step) else word


def words(finding: str) -> str:
    """Return a finding as words: "dead_end" as "dead end"."""
    return plain(finding.replace("_", " "))


def some(addresses: Sequence[str]) -> list[str]:
    """Return up to four addresses; of more than that, three and how many are left."""
    if len(addresses) <= 4:
        return list(addresses)
    return [*addresses[:3], f"and {len(addresses) - 3:,} more"]


_DOMAIN = re.compile(r"@([\w.-]*)[^@]*\Z")
_PHONE = re.compile(r"[\d\s()+*#./x-]+", re.IGNORECASE)


def mask(address: str) -> str:
    """Hide who has an address: "…67" of a phone number, "…@example.com" of a mail address.

    What has five digits or more, or only digits, counts as a phone number. Other names stay.
    """
    domain = _DOMAIN.search(address)
    if domain and domain.start():
        return f"…@{domain[1]}"
    digits = [each for each in address if each.isdecimal()]
    if len(digits) >= 5 or (digits and _PHONE.fullmatch(address)):
        return f"…{''.join(digits[-2:])}"
    return address


_NUMBER = re.compile(r"(?<![+(])[+(]*\d(?:[\s().*/\u2010-\u2015-]{0,4}\d){6,}")


def mask_numbers(text: str) -> str:
    """Hide what looks like a phone number in `text`, as `mask` does: seven digits or more.

    A date, or an id with so many digits, looks like one, too: to show a number would be worse.
    """
    return _NUMBER.sub(lambda found: mask(found[0]), text)


# --- Mermaid -------------------------------------------------------------------------------------
_SIGNS = re.compile(r"[\x21-\x2b\x2d-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]")
"""What may mean something to Mermaid, or to the Markdown in its labels: all signs of ASCII but
the comma."""


def escaped(text: str) -> str:
    """Return `text` as Mermaid reads it back between double quotes: "#" as "#35;"."""
    return _SIGNS.sub(lambda found: f"#{ord(found[0])};", text)


def mermaid(drawing: Drawing) -> str:
    """Return the flow as a Mermaid flowchart. Names are cut to 80 characters and escaped."""

    title = json.dumps(short(drawing.title, 80), ensure_ascii=False)  # YAML reads it, too
    lines = ["---", f"title: {title}", "---", "flowchart TD"]
    for step in drawing.steps:
        said = (kind(step), headline(step), ", ".join(map(words, step.findings)))
        label = "<br/>".join(escaped(short(line, 80)) for line in said if line)
        lines.append(f'  n{drawing.numbers[step.id]}["{label or " "}"]')
    for number, address in enumerate(some(drawing.addresses), 1):
        lines.append(f'  a{number}(["{escaped(short(address, 80)) or " "}"])')
        if drawing.start:
            lines.append(f"  a{number} --> n{drawing.numbers[drawing.start]}")
    lines += [*_arrows(drawing), *_classes(drawing)]
    return "".join(f"{line}\n" for line in lines)


def _arrows(drawing: Drawing) -> Iterator[str]:
    stubs = 0
    for source, arrows in drawing.arrows.items():
        for arrow in arrows:
            event = escaped(short(arrow.events, 80))
            line = ("-.->" if arrow.back else "-->") + (f'|"{event}"|' if event else "")
            target = f"n{arrow.number}"
            if arrow.number is None:
                stubs += 1
                target = f"x{stubs}"
                yield f'  {target}(["{escaped(short(arrow.missing, 60))}"]):::broken'
            yield f"  n{drawing.numbers[source]} {line} {target}"


def _classes(drawing: Drawing) -> Iterator[str]:
    unreachable = [
        f"n{drawing.numbers[each.id]}" for each in drawing.steps if UNREACHABLE in each.findings
    ]
    if unreachable:
        yield f"  class {','.join(unreachable)} unreachable"
        yield "  classDef unreachable fill:#eee,stroke:#888,stroke-dasharray:4,color:#555"
    if drawing.ends_open:
        yield "  classDef broken fill:#fdeceb,stroke:#b3231b,color:#b3231b"

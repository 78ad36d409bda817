"""Flows and their changes as lines for a person, in the markup of rich. Pure.

What a flow is called, and every value in it, is text from outside: it is cut, and stays on one
line in characters that a terminal shows.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import Any

from rich.cells import cell_len
from rich.markup import escape
from rich.text import Text

from etl.commands.grid import below, hanging
from etl.status.changed import by_editor, change_line, change_parts, minute, seen_at_once
from etl.status.drawing import plain, short, words
from etl.status.flows import Content, Flow, Row, contact_kind
from etl.status.words import local_time, span

_MOST = 20
"""How many versions, entry points or findings are shown; --json has all of them."""
_LABEL = 12


# --- changes -------------------------------------------------------------------------------------
def change_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield lines about changes, newest first: a paragraph for what was seen of a flow at once.

    It says when callflow saw it, in which flow, who made it and when, and each value that changed.
    """
    for group in seen_at_once(rows):
        first = group[0]
        about = f"{minute(first['observed_at'])} {first['source']}  {_name(first)}"
        yield f"[bold]{escape(about)}[/bold]"
        for said, made in by_editor(group):
            if said:
                yield escape(f"    {said}")
            yield from (escape(f"    {change_line(row)}") for row in made)


def change_table(rows: Sequence[Row], zone: tzinfo | None, width: int) -> Iterator[Text]:
    """Yield the same for a terminal: in columns, with times in `zone` and in UTC."""
    say = partial(local_time, zone=zone)
    groups = list(seen_at_once(rows))
    seen = max((cell_len(say(group[0]["observed_at"])) for group in groups), default=0)
    source = max(len("source"), *(len(group[0]["source"]) for group in groups))
    parts = {id(row): change_parts(row, max(30, width // 3)) for row in rows}
    widest = max((cell_len(what) for what, _ in parts.values()), default=0)
    room = min(widest, width // 2 - 6)
    yield Text(f"{'seen':<{seen}}  {'source':<{source}}  flow", "dim")
    for group in groups:
        first = group[0]
        about = f"{say(first['observed_at']):<{seen}}  {first['source']:<{source}}  {_name(first)}"
        yield from hanging(Text(about, "bold"), width)
        for said, made in by_editor(group, say):
            if said:
                yield from below(Text(said), width)
            for what, change in (parts[id(row)] for row in made):
                space = " " * max(room - cell_len(what), 0)
                yield from hanging(Text(f"    {what}{space}  {change}"), width, room + 6)


def difference_title(flow: Flow, since: datetime | None, until: datetime | None) -> str:
    """Return the line above a difference; without `since` it says that there is no change."""
    name = f"{flow.source}  {short(flow.name, 60) or flow.flow_id}"
    if since is None:
        return escape(f"{name}: no change of it is recorded.")
    end = "now" if until is None else f"{_second(until)} UTC"
    return escape(f"{name}: from {_second(since)} UTC to {end}")


def versions_title(flow: Flow, old: int, new: int) -> str:
    """Return the line above a difference between two versions."""
    name = f"{flow.source}  {short(flow.name, 60) or flow.flow_id}"
    return escape(f"{name}: from version {old} to version {new}")


def _second(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _name(row: Row) -> str:
    return short(row["flow_name"] or "", 60) or row["flow_id"]


# --- one flow ------------------------------------------------------------------------------------
def header(of: Content, zone: tzinfo | None) -> Iterator[str]:
    """Yield lines about a flow: its name, whether it is gone, its source, status and times.

    They are in `zone` and in UTC.
    """
    flow = of.flow
    name = escape(short(flow["name"] or "", 200) or "(no name)")
    yield f"[bold]{name}[/bold]"
    if of.gone_at:
        yield (
            f"  [red]It is gone: callflow saw that at {local_time(of.gone_at, zone)}."
            " This is its last content.[/red]"
        )
    account = f", account {flow['account_id']}" if flow["account_id"] else ""
    yield _fact("source", f"{flow['source']} ({flow['provider']}){account}")
    yield _fact("id", flow["flow_id"])
    yield _fact("status", f"{flow['status'] or 'unknown'}, {_live(flow)}")
    yield from _numbers(flow)
    kinds = [flow[each] for each in ("flow_type", "channel", "channel_source") if flow[each]]
    if kinds:
        yield _fact("kind", ", ".join(kinds))
    if flow["modified_at"] or flow["modified_by"]:
        yield _fact("modified", _at_by(flow, zone))
    if flow["created_at"]:
        yield _fact("created", local_time(flow["created_at"], zone))
    yield _fact("unchanged", f"since {local_time(flow['valid_from'], zone)}")
    if flow["description"]:
        yield _fact("about", flow["description"])


def _numbers(flow: Row) -> Iterator[str]:
    """Yield a line about the versions, if there are several or the newest is not published."""
    if flow["published_version"] is not None and flow["has_unpublished_changes"]:
        text = f"{flow['published_version']} is published, {flow['newest_version']} is the newest"
        yield _fact("versions", text)
    elif flow["has_unpublished_changes"]:
        yield _fact("versions", "it was edited since it was published")


def _live(flow: Row) -> str:
    return "live" if flow["is_live"] else "not live"


def _fact(label: str, text: str) -> str:
    return escape(f"  {label:<{_LABEL}}{short(text, 400)}")


def _at_by(row: Row, zone: tzinfo | None) -> str:
    when = local_time(row["modified_at"], zone) if row["modified_at"] else ""
    return " by ".join(filter(None, (when, short(row["modified_by"] or "", 60))))


def parts(of: Content, now: datetime, zone: tzinfo | None) -> Iterator[str]:
    """Yield lines about the entry points, references, versions and findings of a flow."""
    names = {row["step_id"]: row["name"] or "" for row in of.steps}
    for title, rows, say in (
        ("Entry points", of.entry_points, _entry_point),
        ("Uses", of.uses, lambda row: _use(row, names)),
        ("Used by", of.used_by, _user),
        ("Versions", of.versions, lambda row: _version(row, zone)),
        ("Findings", of.findings, lambda row: _finding(row, names, of.gone_at or now, zone)),
    ):
        if rows:
            yield ""
            yield f"[bold]{title}[/bold]"
            yield from (escape(f"  {say(row)}") for row in rows[:_MOST])
        if len(rows) > _MOST:
            yield f"  and {len(rows) - _MOST:,} more, which --json prints"


def _entry_point(row: Row) -> str:
    address = row["address"] or ""
    way = contact_kind(row)
    more = [way, row["name"] if row["name"] != row["address"] else "", row["language"]]
    said = ", ".join(short(str(each), 60) for each in more if each)
    shown = short(address, 60) or "(no address)"
    return f"{row['kind'] or '':<{_LABEL - 2}}{shown}{f'  {said}' if said else ''}"


def _use(row: Row, names: Mapping[str, str]) -> str:
    said = short(row["target_name"] or row["target_id"] or "", 60)
    if row["target_name"]:
        said += f" ({short(row['target_id'], 60)})"
    elif row["is_dynamic"]:
        said += " (an expression)"
    elif row["kind"] == "flow":
        said += " (no such flow)"
    step = short(names.get(row["step_id"]) or row["step_id"], 60)
    return f"{row['kind']:<{_LABEL - 2}}{said} at {step}"


def _user(row: Row) -> str:
    return f"{short(row['name'] or row['flow_id'], 60)} at {short(row['step_id'], 60)}"


def _version(row: Row, zone: tzinfo | None) -> str:
    number = "" if row["version_number"] is None else str(row["version_number"])
    about = short(row["description"] or "", 60)
    said = f"{number:>4}  {short(row['status'] or 'unknown', 20):<11}{_at_by(row, zone)}"
    return f"{said}{f'  {about}' if about else ''}"


def _finding(row: Row, names: Mapping[str, str], now: datetime, zone: tzinfo | None) -> str:
    step = row["step_id"]
    where = f" at {short(names.get(step) or step, 60)}" if step else ""
    detail = f": {short(row['detail'], 120)}" if row["detail"] else ""
    lasted = span(max((now - row["valid_from"]) / timedelta(seconds=1), 0), 2)
    since = f"since {local_time(row['valid_from'], zone)}, {lasted}"
    return f"{words(row['finding'])}{where}{detail}; {since}"


def flow_json(of: Content) -> dict[str, Any]:
    """Return a flow with all that belongs to it, for JSON."""
    return {
        **of.flow,
        "gone_at": of.gone_at,
        "entry_points": of.entry_points,
        "versions": of.versions,
        "findings": of.findings,
        "steps": of.steps,
        "links": of.links,
        "uses": of.uses,
        "used_by": of.used_by,
    }


def candidate_line(flow: Flow) -> str:
    """Return a flow that may be meant: what to give for it, its name, and whether it is gone."""
    gone = "" if flow.is_there else " (gone)"
    return escape(f"  {plain(flow.key):<40}  {short(flow.name, 60)}{gone}")

"""`callflow diff`: in what a flow differs between two moments, or two versions."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from rich.console import Console
from rich.markup import escape
from sqlalchemy import Connection

from etl.commands import flow_lines
from etl.commands.access import reading
from etl.commands.find import one_flow
from etl.commands.moments import as_time_or_version, resolved
from etl.commands.output import print_lines, stdout
from etl.commands.rows import write_objects
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.errors import ConfigError
from etl.status import flows, versions
from etl.status.changed import change_line
from etl.status.flows import Flow, Row
from etl.status.versions import Version


def run(
    settings: Settings,
    redact: Redactor,
    name: str,
    source: str | None,
    since: str | None,
    until: str | None,
    *,
    as_json: bool,
) -> None:
    """Print in what the flow `name` differs `since` one moment or version `until` another."""
    start, end = as_time_or_version(since, "--from"), as_time_or_version(until, "--to")
    with (
        reading(settings, redact) as (engine, _),
        flows.snapshot(engine, redact, "diff") as connection,
    ):
        flow = one_flow(connection, name, source, "diff")
        if isinstance(start, int | str) or isinstance(end, int | str):
            if isinstance(start, datetime | timedelta) or isinstance(end, datetime | timedelta):
                raise ConfigError(
                    "--from and --to are a moment and a version",
                    where="diff",
                    advice="give two moments, or two versions",
                )
            title, found = _of_versions(connection, flow, start, end)
        else:
            title, found = of_moments(connection, flow, start, end)
    if as_json:
        write_objects(found)
        return
    show(stdout(), title, found)


def show(console: Console, title: str, found: Sequence[Row]) -> None:
    """Print in what a flow differs."""
    print_lines(console, title)
    for row in found:
        print_lines(console, escape(f"    {change_line(row)}"), indent=6)
    if not found and not title.endswith("."):
        console.print("    no difference")


_Time = datetime | timedelta | None


def of_moments(
    connection: Connection, flow: Flow, start: _Time, end: _Time
) -> tuple[str, Sequence[Row]]:
    """Return a title, and in what a flow differs between two moments: by default, its last change.

    Raises ConfigError if `start` is not before `end`.
    """
    now = flows.now(connection)
    last = now if end is None else resolved(end, now)
    if start is not None:
        first: datetime | None = resolved(start, now)
    else:
        changed = flows.last_change(connection, flow, last)
        first = changed and changed - flows.INSTANT
    if first is not None and first >= last:
        raise ConfigError(
            f"{first:%Y-%m-%d %H:%M:%S} UTC is not before {last:%Y-%m-%d %H:%M:%S} UTC",
            where="diff",
            advice="give an earlier --from, or a later --to",
        )
    found = flows.difference(connection, flow, first, last) if first else []
    return flow_lines.difference_title(flow, first, None if end is None else last), found


def _of_versions(
    connection: Connection, flow: Flow, old: Version | None, new: Version | None
) -> tuple[str, Sequence[Row]]:
    """Return a title, and in what two versions of a flow differ."""
    found = versions.difference(connection, flow, old, new)
    return flow_lines.versions_title(flow, found.old, found.new), found.rows

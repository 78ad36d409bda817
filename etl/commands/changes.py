"""`callflow changes`: who changed what; `callflow diff`: moments or versions compared."""

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.markup import escape
from sqlalchemy import Connection

from etl.commands import flow_lines
from etl.commands.access import reading
from etl.commands.find import one_flow, require_source
from etl.commands.options import (
    AsJson,
    ConfigPath,
    FlowName,
    OfSource,
    as_time,
    as_time_or_version,
    load,
)
from etl.commands.output import note, print_lines, stderr, stdout
from etl.commands.rows import write_objects
from etl.errors import ConfigError
from etl.status import flows, versions
from etl.status.changed import change_line
from etl.status.flows import Flow, Row
from etl.status.versions import Version
from etl.sync.selection import perhaps

_AT_LEAST = datetime(1, 1, 2)  # noqa: DTZ001 - only its distance counts


def changes(
    context: typer.Context,
    source: Annotated[
        str | None, typer.Argument(metavar="SOURCE", help="Only of this source. Default: all.")
    ] = None,
    since: Annotated[
        str,
        typer.Option(metavar="WHEN", help="From then on: 7d or 12h ago, a date, or a moment."),
    ] = "7d",
    flow: Annotated[
        str | None,
        typer.Option(metavar="NAME|ID", help="Only of this flow: its id, or (a part of) its name."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="EDITOR", help="Only what this editor changed.")
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", help="How many changed values.", min=1, max=1_000_000)
    ] = 100,
    as_json: AsJson = False,
    path: ConfigPath = None,
) -> None:
    """Show who changed what in the flows, newest first.

    Prints when callflow saw it (UTC), the flow, who made it and when, and each value, old → new.
    What was there when a list was first read is no change. --json prints rows of callflow.changes.
    """
    start = as_time(since, "--since")
    settings, redact = load(context, path)
    with (
        reading(settings, redact) as (engine, _),
        flows.snapshot(engine, redact, "changes") as connection,
    ):
        if source is not None:
            require_source(connection, source, "changes")
        meant = None if flow is None else one_flow(connection, flow, source, "changes")
        first = moment(start, flows.now(connection))
        found = flows.changes(
            connection, first, limit + 1, source=source, flow=meant, by=by
        )  # fmt: skip
        editors = flows.editors(connection, first) if by is not None and not found else []
    shown = found[:limit]
    if as_json:
        write_objects(shown)
    else:
        for line in flow_lines.change_lines(shown):
            print_lines(stdout(), line)
    sys.stdout.flush()  # if stdout is broken, fail here, before the notes on stderr
    if len(found) > limit:
        note(f"there are more than {limit:,} changes; --limit shows more of them")
    if not found:
        stderr().print(f"No change since {first:%Y-%m-%d %H:%M} UTC.")
    if editors and by is not None:
        note(f"no change then was made by {by} → {perhaps([by], editors[:20])}")


def diff(
    context: typer.Context,
    name: FlowName,
    source: OfSource = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WHEN|VERSION",
            help="The earlier moment or version. Default: before its last change.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="WHEN|VERSION", help="The later moment or version. Default: now."
        ),
    ] = None,
    as_json: AsJson = False,
    path: ConfigPath = None,
) -> None:
    """Show in what a flow differs between two moments, or two of its versions.

    They are a date, a moment, or how long ago: 7d; or a version's number, live or newest, where the
    provider keeps what is inside of versions. A value that changed and went back is no difference.
    --json prints rows as of callflow.changes.
    """
    start, end = as_time_or_version(since, "--from"), as_time_or_version(until, "--to")
    settings, redact = load(context, path)
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
            title, found = _of_moments(connection, flow, start, end)
    if as_json:
        write_objects(found)
        return
    print_lines(stdout(), title)
    for row in found:
        print_lines(stdout(), escape(f"    {change_line(row)}"), indent=6)
    if not found and not title.endswith("."):
        stdout().print("    no difference")


_Time = datetime | timedelta | None


def _of_moments(
    connection: Connection, flow: Flow, start: _Time, end: _Time
) -> tuple[str, Sequence[Row]]:
    """Return a title, and in what a flow differs between two moments."""
    now = flows.now(connection)
    last = now if end is None else moment(end, now)
    if start is not None:
        first: datetime | None = moment(start, now)
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


def moment(given: datetime | timedelta | None, now: datetime) -> datetime:
    """Return a moment, or the one so long before `now`; the first one there is at the earliest."""
    if isinstance(given, timedelta):
        return now - min(given, now.replace(tzinfo=None) - _AT_LEAST)
    return given or now

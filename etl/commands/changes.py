"""`callflow changes`: who changed what."""

import sys

from etl.commands import flow_lines
from etl.commands.access import reading
from etl.commands.find import one_flow, require_source
from etl.commands.moments import as_time, resolved
from etl.commands.output import note, print_lines, stderr, stdout, zone
from etl.commands.rows import write_objects
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.status import flows
from etl.status.words import local_time
from etl.sync.selection import perhaps


def run(
    settings: Settings,
    redact: Redactor,
    source: str | None,
    *,
    since: str,
    flow: str | None,
    by: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Print what changed `since` then, `limit` values at most; of one flow, by one editor."""
    start = as_time(since, "--since")
    with (
        reading(settings, redact) as (engine, _),
        flows.snapshot(engine, redact, "changes") as connection,
    ):
        if source is not None:
            require_source(connection, source, "changes")
        meant = None if flow is None else one_flow(connection, flow, source, "changes")
        first = resolved(start, flows.now(connection))
        found = flows.changes(
            connection, first, limit + 1, source=source, flow=meant, by=by
        )  # fmt: skip
        editors = flows.editors(connection, first) if by is not None and not found else []
    shown, results = found[:limit], stdout()
    if as_json:
        write_objects(shown)
    elif results.is_terminal and shown:
        table = flow_lines.change_table(shown, zone(results), results.width)
        results.print(*table, sep="\n")
    else:
        for line in flow_lines.change_lines(shown):
            print_lines(results, line)
    sys.stdout.flush()  # if stdout is broken, fail here, before the notes on stderr
    if len(found) > limit:
        note(f"there are more than {limit:,} changes; --limit shows more of them")
    if not found:
        stderr().print(f"No change since {local_time(first, zone(stderr()))}.")
    if editors and by is not None:
        note(f"no change then was made by {by} → {perhaps([by], editors[:20])}")

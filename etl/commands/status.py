"""`callflow status`: the state of every stream, and what is wrong."""

import sys

from rich.markup import escape

from etl.commands import lines
from etl.commands.access import warehouse
from etl.commands.output import note, print_lines, print_rows, stderr, stdout, zone
from etl.config.load import no_sources
from etl.config.redact import Redactor, harmless
from etl.config.settings import Settings
from etl.status import documents, queries


def run(settings: Settings, redact: Redactor, *, as_json: bool) -> None:
    """Print the state of every stream, then who leads."""
    with warehouse(settings, redact, to_read=True) as engine:
        overview = queries.status(engine, settings, redact)
    results = stdout()
    if as_json:
        for stream in overview.streams:
            sys.stdout.write(documents.stream_json(stream) + "\n")
    elif results.is_terminal:
        rows = [lines.stream_row(each, overview.at, zone(results)) for each in overview.streams]
        print_rows(results, lines.STREAMS, rows)
    else:
        width = max([26, *(len(stream.name) for stream in overview.streams)])
        for stream in overview.streams:
            print_lines(results, lines.stream_line(stream, width))
    sys.stdout.flush()  # if stdout is broken, fail here, before the notes on stderr
    leader = f"daemon: {overview.leader} leads" if overview.leader else "no daemon is running"
    stderr().print(escape(harmless(leader)))
    if unread := [each.name for each in overview.streams if each.state == "never run"]:
        which = f"{unread[0]} was" if len(unread) == 1 else f"{len(unread)} streams were"
        note(f"{which} never synced; `callflow sync` does it now")
    if not overview.streams:
        stderr().print("No source is configured, and none was ever synced.")
    if error := no_sources(settings):
        note(str(error))

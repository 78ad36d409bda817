"""`callflow status`: the state of every stream, and what is wrong."""

import sys

from rich.markup import escape

from etl.commands import lines
from etl.commands.access import warehouse
from etl.commands.output import note, print_lines, stderr, stdout
from etl.config.load import no_sources
from etl.config.redact import Redactor, harmless
from etl.config.settings import Settings
from etl.status import documents, queries


def run(settings: Settings, redact: Redactor, *, as_json: bool) -> None:
    """Print the state of every stream, then who leads."""
    with warehouse(settings, redact, to_read=True) as engine:
        overview = queries.status(engine, settings, redact)
    for stream in overview.streams:
        if as_json:
            sys.stdout.write(documents.stream_json(stream) + "\n")
        else:
            print_lines(stdout(), lines.stream_line(stream))
    sys.stdout.flush()  # if stdout is broken, fail here, before the notes on stderr
    leader = f"{overview.leader} leads" if overview.leader else "none leads"
    stderr().print(f"daemon: {escape(harmless(leader))}")
    if not overview.streams:
        stderr().print("No source is configured, and none was ever synced.")
    if error := no_sources(settings):
        note(str(error))

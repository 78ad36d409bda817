"""`callflow runs`: the last runs, and what went wrong with them."""

import sys
from typing import Annotated

import typer

from etl.commands import lines
from etl.commands.access import warehouse
from etl.commands.options import AsJson, ConfigPath, load
from etl.commands.output import print_lines, stderr, stdout
from etl.errors import ConfigError
from etl.status import documents, queries
from etl.sync.selection import perhaps


def runs(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE[.STREAM]", help="A source or stream. Default: all."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="How many runs.", min=1, max=10_000)] = 20,
    as_json: AsJson = False,
    path: ConfigPath = None,
) -> None:
    """Show the last runs, newest first, and what went wrong.

    Prints start (UTC), stream, mode, status and duration, then the requests and what became of the
    records; after a failure also what to do now. --json prints every column of etl.runs.

    Exits 0 whatever became of the runs, 2 if nothing has that name.
    """
    settings, redact = load(context, path)
    with warehouse(settings, redact, to_read=True) as engine:
        source = None if name is None else name.partition(".")[0]
        known = queries.known_streams(engine, settings, redact, source)
        wanted = [each for each in known if name in (None, each[0], ".".join(each))]
        if not wanted and name is not None:
            names = dict.fromkeys([*(each[0] for each in known), *map(".".join, known)])
            raise ConfigError(
                f"there is no source or stream {name!r}, and no run of it",
                where="runs",
                advice=perhaps([name], list(names)),
            )
        found = queries.last_runs(engine, wanted, redact, limit)
    for run in found:
        if as_json:
            sys.stdout.write(documents.run_json(run) + "\n")
        else:
            print_lines(stdout(), lines.past_run_lines(run))
    sys.stdout.flush()  # if stdout is broken, fail here, before the note on stderr
    if not found:
        stderr().print("No run is recorded.")

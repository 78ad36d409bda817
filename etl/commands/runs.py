"""`callflow runs`: the last runs, and what went wrong with them."""

import sys

from etl.commands import lines
from etl.commands.access import warehouse
from etl.commands.output import print_lines, print_rows, stderr, stdout, zone
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.errors import ConfigError
from etl.status import documents, queries
from etl.sync.selection import perhaps


def run(
    settings: Settings, redact: Redactor, name: str | None, limit: int, *, as_json: bool
) -> None:
    """Print the last `limit` runs of the source or stream `name`, of all if it is None.

    Raises ConfigError if nothing has that name.
    """
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
    results = stdout()
    if as_json:
        for each in found:
            sys.stdout.write(documents.run_json(each) + "\n")
    elif results.is_terminal:
        print_rows(results, lines.PAST, [lines.past_row(each, zone(results)) for each in found])
    else:
        for each in found:
            print_lines(results, lines.past_run_lines(each))
    sys.stdout.flush()  # if stdout is broken, fail here, before the note on stderr
    if not found:
        stderr().print("No run is recorded.")

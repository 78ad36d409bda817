"""`callflow show SOURCE.STREAM --missing`: records that are not listed any more, by name."""

import sys

from etl.commands.access import warehouse
from etl.commands.output import stderr, stdout
from etl.commands.rows import print_table, without_control
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.status import documents
from etl.status.drawing import short
from etl.status.missing import Missing, missing
from etl.sync.selection import select


def run(settings: Settings, redact: Redactor, name: str, *, as_json: bool) -> None:
    """Print the records of the stream `name`, or of all streams of a source, that are missing.

    Raises ConfigError if nothing has that name.
    """
    units = select(settings, [name])
    with warehouse(settings, redact, to_read=True) as engine, engine.begin() as connection:
        found = [
            (source.name, stream.name, missing(connection, source.name, stream))
            for source, stream in units
        ]
    for source, stream, records in found:
        if as_json:
            for each in records:
                line = documents.missing_json(source, stream, each)
                sys.stdout.write((without_control(line) if sys.stdout.isatty() else line) + "\n")
        elif records:
            title = f"{source}.{stream}: {len(records):,} not listed any more, and kept"
            rows = (_row(each) for each in records)
            header = ("name", "id", "unlisted since (UTC)", "last modified (UTC)")
            print_table(stdout(), iter([header, *rows]), title)
    sys.stdout.flush()  # if stdout is broken, fail here, before the note on stderr
    for source, stream, records in found:
        if not records:
            stderr().print(f"{source}.{stream}: no record is missing.")


def _row(record: Missing) -> tuple[object, ...]:
    name = None if record.name is None else short(record.name, 200)
    times = (time and time.replace(tzinfo=None, microsecond=0)
             for time in (record.since, record.modified))  # fmt: skip
    return (name, short(record.id, 200), *times)

"""`callflow show SOURCE.STREAM --missing`: records that are not listed any more, by name."""

import sys
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from etl.commands.access import warehouse
from etl.commands.output import stderr, stdout
from etl.commands.rows import print_table, without_control
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.status import documents
from etl.status.drawing import short
from etl.status.missing import Missing, missing
from etl.sync.selection import select

NARROWEST = 58
"""Columns of a terminal that a table takes besides its ids: two times, and names of 14."""


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
            _print(f"{source}.{stream}", records)
    sys.stdout.flush()  # if stdout is broken, fail here, before the note on stderr
    for source, stream, records in found:
        if not records:
            text = f"{source}.{stream}: no record is noted as missing (a dry run notes none)"
            stderr().print(escape(text))


def _print(name: str, records: Sequence[Missing]) -> None:
    """Print the records: ids whole, names on more lines where the terminal is narrow.

    Where even that does not fit, each value of a record gets a line.
    """
    console, title = stdout(), f"{name}: {len(records):,} not listed any more, and kept"
    header = ("name", "id", "unlisted since (UTC)", "last modified (UTC)")
    rows = [_row(each) for each in records]
    if NARROWEST + max(len(row[1]) for row in rows) > console.width:
        print_table(console, iter([header, *rows]), title)
        return
    table = Table(title=Text(title, style="bold"), box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column(header[0], overflow="fold")
    for column in header[1:]:
        table.add_column(column.replace(" (", "\n("), no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _row(record: Missing) -> tuple[str, ...]:
    name = "" if record.name is None else short(record.name, 200)
    times = (record.since, record.modified)
    shown = (f"{time:%Y-%m-%d %H:%M}" if time else "" for time in times)
    return (name, short(record.id, 200), *shown)

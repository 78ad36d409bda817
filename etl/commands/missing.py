"""`callflow show SOURCE.STREAM --missing`: records that are not listed any more, by name."""

import sys
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from etl.commands.access import warehouse
from etl.commands.output import stderr, stdout
from etl.commands.rows import without_control
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
            stdout().print(_table(f"{source}.{stream}", records))
    sys.stdout.flush()  # if stdout is broken, fail here, before the note on stderr
    for source, stream, records in found:
        if not records:
            text = f"{source}.{stream}: no record is noted as missing (a dry run notes none)"
            stderr().print(escape(text))


def _table(name: str, records: Sequence[Missing]) -> Table:
    """Return the records as a table; names and ids take more lines where the terminal is narrow."""
    title = Text(f"{name}: {len(records):,} not listed any more, and kept", style="bold")
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("name", overflow="fold")
    table.add_column("id", overflow="fold")
    for header in ("unlisted since", "last modified"):
        table.add_column(f"{header}\n(UTC)", no_wrap=True)
    for each in records:
        texts = ["" if each.name is None else short(each.name, 200), short(each.id, 200)]
        texts += [f"{time:%Y-%m-%d %H:%M}" if time else "" for time in (each.since, each.modified)]
        table.add_row(*map(Text, texts))
    return table

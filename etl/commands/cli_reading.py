"""How the commands that only read are called; the others are in `cli`, which lists them all."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from etl.commands import names
from etl.commands.options import AsJson, At, ConfigPath, FlowName, OfSource, load
from etl.commands.program import Reading
from etl.commands.signals import importing


def runs(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE[.STREAM]",
            help="A source or stream. Default: all.",
            autocompletion=names.of_streams,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="How many runs.", min=1, max=10_000)] = 20,
    as_json: AsJson = False,
    path: ConfigPath = None,
) -> None:
    """Show the last runs, newest first, and what went wrong.

    Prints start, stream, mode, status and duration, the requests and what became of the records;
    after a failure also what to do now. On a terminal times are in your time zone and in UTC,
    elsewhere in UTC. --json prints every column of etl.runs.

    Exits 0 whatever became of the runs, 2 if nothing has that name.
    """
    settings, redact = load(context, path)
    with importing():
        from etl.commands import runs
    runs.run(settings, redact, name, limit, as_json=as_json)


def changes(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="Only of this source. Default: all.",
            autocompletion=names.of_sources,
        ),
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

    Prints when callflow saw it, the flow, who made it and when, and each value, old → new. What was
    there when a list was first read is no change. On a terminal times are in your time zone and in
    UTC, elsewhere in UTC. --json prints rows of callflow.changes.
    """
    settings, redact = load(context, path)
    with importing():
        from etl.commands import changes
    changes.run(
        settings, redact, source, since=since, flow=flow, by=by, limit=limit, as_json=as_json
    )


_Picture = Annotated[
    Path | None,
    typer.Option(metavar="FILE", readable=False, help="Also write a picture of it."),
]


def show(
    context: typer.Context,
    name: FlowName,
    source: OfSource = None,
    at: At = None,
    svg: _Picture = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Also write a page with its picture."),
    ] = None,
    mask: Annotated[
        bool,
        typer.Option(
            "--mask",
            help="Hide phone numbers and mail addresses that reach it, and numbers of seven digits"
            " or more in its texts.",
        ),
    ] = False,
    missing: Annotated[
        bool,
        typer.Option(
            "--missing",
            help="Of a stream, SOURCE.STREAM instead of FLOW: what is not listed any more.",
        ),
    ] = False,
    as_json: AsJson = False,
    path: ConfigPath = None,
) -> None:
    """Show a flow: what reaches it, its versions, what is wrong with it, and its inside, drawn.

    Of a flow that is gone it shows the last content, and when callflow saw that it was gone. The
    pictures take pip install '/path/to/callflow[pictures]'. --json prints one object.
    """
    if missing and (source is not None or at is not None or svg or html or mask):
        raise typer.BadParameter("--missing takes no other option than --json and --config")
    settings, redact = load(context, path)
    with importing():
        from etl.commands import missing as missing_command
        from etl.commands import show
    if missing:
        missing_command.run(settings, redact, name, as_json=as_json)
        return
    show.run(settings, redact, name, source, at, svg=svg, html=html, mask=mask, as_json=as_json)


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
    settings, redact = load(context, path)
    with importing():
        from etl.commands import diff
    diff.run(settings, redact, name, source, since, until, as_json=as_json)


class Format(StrEnum):
    """What the files of an export are."""

    CSV = "csv"
    PARQUET = "parquet"


def export(
    context: typer.Context,
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", readable=False, help="The directory to make, with a file per view."
        ),
    ],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            metavar="csv|parquet",
            help="parquet takes pip install '/path/to/callflow[parquet]'.",
        ),
    ] = Format.CSV,
    history: Annotated[
        bool, typer.Option("--history", help="Also every version of every row: the _history views.")
    ] = False,
    at: At = None,
    as_json: AsJson = False,
    path: ConfigPath = None,
) -> None:
    """Write the views of the schema callflow to files, all as of one instant.

    The directory must not exist; it is there when all of its files are. CSV is what COPY reads:
    NULL is nothing, an empty text is "". Prints each file and how many rows it has.
    """
    settings, redact = load(context, path)
    with importing():
        from etl.commands import export
    export.run(settings, redact, directory, form.value, at, history=history, as_json=as_json)


class WithQuery(Reading):
    """A command whose argument is SQL, which may start with a comment: `-- so`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move arguments that are SQL comments behind a `--`; they contain blanks, options do not.

        Otherwise click would take them for unknown options.
        """
        options = {name for parameter in self.params for name in parameter.opts}
        comments = [
            word
            for word in args[: args.index("--") if "--" in args else None]
            if re.match(r"--.*\s", word, re.DOTALL) and word.partition("=")[0] not in options
        ]
        if comments:
            args = [word for word in args if word not in (*comments, "--")] + ["--", *comments]
        return super().parse_args(ctx, args)


def sql(
    context: typer.Context,
    statement: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERY",
            help="A SELECT, or `-` to read it from standard input. Default: open psql.",
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
    at: At = None,
    path: ConfigPath = None,
) -> None:
    """Run a read-only query on the warehouse, or open psql.

    The query runs with the rights of the role in warehouse.read_url, or of callflow_reader on the
    embedded Postgres. With --at the views of callflow answer as of that moment, in psql too.
    """
    settings, redact = load(context, path)
    with importing():
        from etl.commands import sql
    sql.run(settings, redact, statement, at, as_csv=as_csv, as_json=as_json)

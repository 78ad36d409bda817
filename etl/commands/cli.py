"""The command line: what each command is given. What it does is `run` in the file of its name.

A command imports that file when it runs, after it has read the configuration. So help, a new
callflow.toml and a mistake in it wait for no library that they do not need. How the commands that
only read are called is in `cli_reading`.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from etl.commands import cli_reading
from etl.commands.options import (
    DEFAULT_PORTS,
    AsJson,
    ConfigPath,
    Names,
    Ports,
    Secrets,
    WithMigrate,
    load,
)
from etl.commands.signals import importing
from etl.commands.standard import open_streams
from etl.errors import CallflowError, ConfigError, OutputError, StoppedError, internal

app = typer.Typer(
    name="callflow",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keep a Postgres warehouse in step with the call flows of Zoom Contact Center, Twilio "
    "Flex and Alibaba Cloud CCC. "
    "Start with `callflow demo`; for your own accounts, `callflow init`.",
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from etl.version import __version__

        sys.stdout.write(f"callflow {__version__}\n")
        raise typer.Exit


@app.command()
def demo(
    flows: Annotated[
        int, typer.Option(metavar="N", help="Flows per provider.", min=1, max=5000)
    ] = 60,
    channels: Annotated[
        int, typer.Option(metavar="N", help="Twilio channels.", min=0, max=1_000_000)
    ] = 5000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the invented data.")] = 1,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the embedded Postgres keeps its data.")
    ] = None,
) -> None:
    """Show everything, without credentials and without a network.

    Starts the embedded Postgres and the sandbox (the providers' APIs, emulated on this
    machine), syncs from the sandbox into Postgres three times, answers a few questions in SQL, and
    says how to connect.
    """
    with importing():
        from etl.commands import demo
    raise typer.Exit(demo.run(demo.Sample(flows, channels, seed), data_dir))


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path(
        "callflow.toml"
    ),
) -> None:
    """Write a commented callflow.toml to fill in. An existing file is left alone."""
    with importing():
        from etl.commands import init
    init.run(path)


@app.command()
def check(context: typer.Context, names: Names = None, path: ConfigPath = None) -> None:
    """Check the configuration, the warehouse, credentials and rights. Writes nothing.

    Prints one line for each: what is wrong and how to fix it. Exits 1 if anything is wrong. A list
    that the account does not have, or that its provider has ended, is nothing wrong.
    """
    settings, redact = load(context, path, sources=True)
    with importing():
        from etl.commands import check
    raise typer.Exit(check.run(settings, redact, names or []))


@app.command()
def sync(
    context: typer.Context,
    names: Names = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Scan whole lists, even if reading only the changes would be enough."
        ),
    ] = False,
    accept_deletes: Annotated[
        bool,
        typer.Option(
            "--accept-deletes", help="Delete rows even if suspiciously many are gone at once."
        ),
    ] = False,
    with_migrate: WithMigrate = False,
    as_json: AsJson = False,
    path: ConfigPath = None,
) -> None:
    """Bring the warehouse up to date now.

    Runs every stream once, or those that are named.

    Exits 0 if all are complete or not there to be read, 1 if one failed or is incomplete (the
    others are still synced), 75 if another run was busy with one, 2 if the configuration is wrong.
    """
    settings, redact = load(context, path, sources=True)
    with importing():
        from etl.commands import sync
    code = sync.run(
        settings,
        redact,
        names or [],
        full=full,
        accept_deletes=accept_deletes,
        with_migrate=with_migrate,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command()
def status(context: typer.Context, as_json: AsJson = False, path: ConfigPath = None) -> None:
    """Show the state of every stream, and what is wrong.

    Prints the last success, the watermark and the number of rows, and what to do now.

    Exits 0 whatever state the streams are in. For monitoring use --json or the daemon's /readyz.
    """
    settings, redact = load(context, path)
    with importing():
        from etl.commands import status
    status.run(settings, redact, as_json=as_json)


app.command()(cli_reading.runs)
app.command()(cli_reading.changes)
app.command()(cli_reading.show)
app.command()(cli_reading.diff)
app.command()(cli_reading.export)


@app.command()
def forget(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE[.STREAM][/INSTANCE]", help="The source, stream or instance to forget."
        ),
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask. Required without a terminal.")
    ] = False,
    path: ConfigPath = None,
) -> None:
    """Move the rows of what is no longer configured to history.

    That is a source, one stream of a source (SOURCE.STREAM), or one instance of a source
    (SOURCE/INSTANCE). Asks first. If it is synced again later, that starts with a full load, and
    its history shows the gap. etl.runs and etl.rejects keep their rows.

    Exits 2 if it is still configured, if nothing ever had that name, or without --yes if
    there is no terminal to ask on; 75 while one of its streams is being synced.
    """
    settings, redact = load(context, path)
    with importing():
        from etl.commands import forget
    forget.run(settings, redact, name, yes=yes)


@app.command()
def daemon(
    context: typer.Context,
    with_migrate: WithMigrate = False,
    path: ConfigPath = None,
) -> None:
    """Sync on the configured schedule, until SIGTERM or Ctrl-C.

    Serves a status page, /readyz, /metrics and /api/status on daemon.http (127.0.0.1:8787). Several
    daemons can share a warehouse: one leads, and another takes over when it ends. SIGHUP makes it
    read the configuration again. While the database is unreachable, the daemon waits for it.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the daemon handles it; it would end us
    settings, redact = load(context, path, sources=True)
    with importing():
        from etl.commands import daemon
    daemon.run(settings, redact, with_migrate=with_migrate)


@app.command()
def migrate(
    context: typer.Context,
    again: Annotated[
        bool,
        typer.Option(
            "--rebuild-changes", help="Also write callflow.changes again, from the histories."
        ),
    ] = False,
    path: ConfigPath = None,
) -> None:
    """Bring the warehouse's schema up to date, or create it.

    `sync` and `daemon` create a missing schema themselves; they change one only with --migrate.
    """
    settings, redact = load(context, path)
    with importing():
        from etl.commands import migrate
    migrate.run(settings, redact, rebuild_changes=again)


@app.command()
def sandbox(
    ports: Ports = DEFAULT_PORTS,
    flows: Annotated[
        int, typer.Option(metavar="N", help="Flows per provider.", min=0, max=100_000)
    ] = 60,
    channels: Annotated[
        int, typer.Option(metavar="N", help="Twilio channels.", min=0, max=1_000_000)
    ] = 5000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the invented data.")] = 1,
    path: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="Write the callflow.toml there instead."
        ),
    ] = None,
) -> None:
    """Serve emulations of the providers' APIs until Ctrl-C.

    They listen on 127.0.0.1. Prints a callflow.toml for them, or writes it to the file that
    --config names. Of the files that exist it replaces only those that it has written itself.
    """
    with importing():
        from etl.commands import sandbox
    raise typer.Exit(sandbox.run(ports, flows, channels, seed, path))


app.command(cls=cli_reading.WithQuery)(cli_reading.sql)


@app.command()
def grant(
    context: typer.Context,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="An existing role of the warehouse.")],
    writes: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMA", help="Also give it this schema to write to, as dbt does; made if new."
        ),
    ] = None,
    path: ConfigPath = None,
) -> None:
    """Give a Postgres role the read-only rights that BI tools need.

    Sets the role's time zone to UTC, its time limit to 5 minutes, and jit off. Prints the SQL that
    only an administrator can run. Exits 0 if the role can read everything (with --writes: and write
    to that schema), even if its settings are left to an administrator; 1 if it cannot.
    """
    settings, redact = load(context, path)
    with importing():
        from etl.commands import grant
    raise typer.Exit(grant.run(settings, redact, role, writes))


@app.command()
def stop(context: typer.Context, path: ConfigPath = None) -> None:
    """Stop the embedded Postgres. Its data stays; the next command starts it again."""
    settings, _ = load(context, path)
    with importing():
        from etl.commands import stop
    stop.run(settings)


def main() -> None:
    """Run the command line; every error becomes one message and an exit code, never a traceback."""
    open_streams()
    secrets = Secrets()
    try:
        try:
            app(obj=secrets)
        finally:
            sys.stdout.flush()  # if Python did it at exit, it would print a traceback
    except StoppedError as error:
        _report(error, secrets, style="")
        sys.exit(error.exit_code)
    except (BrokenPipeError, OutputError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        if isinstance(error, OutputError):  # otherwise the reader has gone, as with `| head`
            _report(error, secrets)
        sys.exit(1)
    except CallflowError as error:
        _report(error, secrets)
        sys.exit(error.exit_code)
    except Exception as error:
        if "CALLFLOW_TRACEBACK" in os.environ:
            raise
        bug = internal(error)
        bug.advice = "run it again with CALLFLOW_TRACEBACK=1 and report what it prints"
        _report(bug, secrets)
        sys.exit(1)


def _report(error: CallflowError, secrets: Secrets, style: str = "[red]") -> None:
    from rich.markup import escape

    from etl.commands.output import print_lines, stderr
    from etl.config.redact import Redactor

    redact = secrets.redact or Redactor()
    text = escape(redact.message(str(error), keep="\n", typed=isinstance(error, ConfigError)))
    print_lines(stderr(), f"{style}callflow:{style and '[/red]'} {text}")

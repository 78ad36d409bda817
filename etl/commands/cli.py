"""The command line: what each command is given. What it does is `run` in the file of its name.

A command imports that file when it runs, after it has read the configuration. So help, a new
callflow.toml and a mistake in it wait for no library that they do not need. How the commands that
only read are called is in `cli_reading`.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from etl.commands import cli_reading
from etl.commands.options import (
    COMPLETION_VARIABLE,
    DEFAULT_PORTS,
    AsJson,
    ConfigPath,
    LogLevel,
    Names,
    Ports,
    Quiet,
    Shared,
    Shell,
    Verbose,
    WithMigrate,
    load,
)
from etl.commands.program import Command, Program, Reading, commands, print_help, usage_error
from etl.commands.signals import importing
from etl.commands.standard import open_streams
from etl.commands.starting import end_well_while_starting
from etl.errors import CallflowError, ConfigError, OutputError, StoppedError, internal

app = typer.Typer(
    name="callflow",
    cls=Program,
    subcommand_metavar="COMMAND ...",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keep a Postgres warehouse in step with the call flows of Zoom Contact Center, Twilio "
    "and Alibaba Cloud CCC.",
)


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and exit.")
    ] = False,
    path: ConfigPath = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    log_level: LogLevel = None,
) -> None:
    """Print the version, or leave all to the command; `Program` has moved shared options there."""
    if version:
        from etl.version import __version__

        sys.stdout.write(f"callflow {__version__}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command(cls=Command)
def demo(
    flows: Annotated[
        int, typer.Option(metavar="N", help="Flows per provider.", min=1, max=5000)
    ] = 60,
    channels: Annotated[
        int, typer.Option(metavar="N", help="Twilio channels.", min=0, max=1_000_000)
    ] = 5000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the invented data.")] = 1,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", readable=False, help="Where the embedded Postgres keeps its data."
        ),
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


@app.command(cls=Command)
def init(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", readable=False, help="The file to write.")
    ] = Path("callflow.toml"),
    no_input: Annotated[
        bool, typer.Option("--no-input", help="Ask nothing; write a commented file to fill in.")
    ] = False,
    as_schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of callflow.toml instead.")
    ] = False,
) -> None:
    """Write a new callflow.toml: with your answers, or to fill in.

    On a terminal it asks for a provider, its credentials and the warehouse, and checks the source.
    Secrets are not shown; they go to files beside it that only you can read. Without a terminal, or
    with --no-input, it writes a commented file. An existing file is left alone.
    """
    with importing():
        from etl.commands import init
    if as_schema:
        init.print_schema()
        return
    asks = not no_input and sys.stdin.isatty() and sys.stderr.isatty()
    raise typer.Exit(init.run(path, asks=asks))


@app.command(cls=Reading)
def check(context: typer.Context, names: Names = None, path: ConfigPath = None) -> None:
    """Check the configuration, the warehouse, credentials and rights. Writes nothing.

    Prints one line for each: what is wrong and how to fix it. Exits 1 if anything is wrong. A list
    that the account does not have, or that its provider has ended, is nothing wrong.
    """
    settings, redact = load(context, path, sources=True)
    with importing():
        from etl.commands import check
    raise typer.Exit(check.run(settings, redact, names or []))


@app.command(cls=Reading)
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
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only show what would be added, changed and deleted; write nothing."
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
        dry_run=dry_run,
        with_migrate=with_migrate,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command(cls=Reading)
def status(context: typer.Context, as_json: AsJson = False, path: ConfigPath = None) -> None:
    """Show the state of every stream, and what is wrong.

    Prints the last success, the watermark and the number of rows, and what to do now.

    Exits 0 whatever state the streams are in. For monitoring use --json or the daemon's /readyz.
    """
    settings, redact = load(context, path)
    with importing():
        from etl.commands import status
    status.run(settings, redact, as_json=as_json)


app.command(cls=Reading)(cli_reading.runs)
app.command(cls=Reading)(cli_reading.changes)
app.command(cls=Reading)(cli_reading.show)
app.command(cls=Reading)(cli_reading.diff)
app.command(cls=Reading)(cli_reading.export)


@app.command(cls=Reading)
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


@app.command(cls=Reading)
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
    end_well_while_starting()
    settings, redact = load(context, path, sources=True, logs=False)
    with importing():
        from etl.commands import daemon
    level = context.obj.logs_from()
    daemon.run(settings, redact, with_migrate=with_migrate, level=level)


@app.command(cls=Reading)
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


@app.command(cls=Command)
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
            "--config",
            "-c",
            metavar="FILE",
            readable=False,
            help="Write the callflow.toml there instead.",
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


@app.command(cls=Reading)
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


@app.command(cls=Reading)
def stop(context: typer.Context, path: ConfigPath = None) -> None:
    """Stop the embedded Postgres. Its data stays; the next command starts it again."""
    settings, _ = load(context, path)
    with importing():
        from etl.commands import stop
    stop.run(settings)


@app.command(cls=Command)
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print a script that completes commands, options and names.

    It also completes the sources and streams of the configuration. It asks no database.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(
        prog_name="callflow", complete_var=COMPLETION_VARIABLE, shell=shell.value
    )
    sys.stdout.write(script + "\n")


@app.command("help", cls=Command)
def _help(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND", help="The command. Default: list all.", autocompletion=commands
        ),
    ] = None,
) -> None:
    """Show what a command does, its options, and examples."""
    print_help(context, name)


def main() -> None:
    """Run the command line; every error becomes one message and an exit code, never a traceback."""
    open_streams()
    shared = Shared()
    if COMPLETION_VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        try:
            code = app(obj=shared, prog_name="callflow", standalone_mode=False)
        finally:
            sys.stdout.flush()  # if Python did it at exit, it would print a traceback
    except TyperException as error:
        _report(usage_error(error), shared)
        sys.exit(2)
    except StoppedError as error:
        _report(error, shared, style="")
        sys.exit(error.exit_code)
    except (BrokenPipeError, OutputError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        if isinstance(error, OutputError):  # otherwise the reader has gone, as with `| head`
            _report(error, shared)
        sys.exit(1)
    except CallflowError as error:
        _report(error, shared)
        sys.exit(error.exit_code)
    except Exception as error:
        if "CALLFLOW_TRACEBACK" in os.environ:
            raise
        bug = internal(error)
        bug.advice = "run it again with CALLFLOW_TRACEBACK=1 and report what it prints"
        _report(bug, shared)
        sys.exit(1)
    sys.exit(code or 0)


def _report(error: CallflowError, shared: Shared, style: str = "[red]") -> None:
    from rich.markup import escape

    from etl.commands.output import print_lines, stderr
    from etl.config.redact import Redactor

    redact = shared.redact or Redactor()
    text = escape(redact.message(str(error), keep="\n", typed=isinstance(error, ConfigError)))
    print_lines(stderr(), f"{style}callflow:{style and '[/red]'} {text}")

"""The command line: what each command is given, and what it prints.

`runs`, `changes` (with `diff`), `show`, `export`, `forget`, `sql` and `grant` are in files of their
names.
"""

import os
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.markup import escape

from etl import __version__
from etl.commands import check, lines
from etl.commands.access import leader_on, warehouse
from etl.commands.changes import changes, diff
from etl.commands.export import export
from etl.commands.forget import forget
from etl.commands.grant import grant
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
from etl.commands.output import note, open_streams, print_lines, stderr, stdout
from etl.commands.progress import run_jobs
from etl.commands.runs import runs
from etl.commands.show import show
from etl.commands.signals import stopping
from etl.commands.sql import WithQuery, sql
from etl.config import load as config
from etl.config.files import write_own
from etl.config.redact import Redactor, harmless
from etl.config.settings import Settings, redactor
from etl.errors import CallflowError, ConfigError, OutputError, StoppedError, internal
from etl.load.lease import process_name
from etl.status import documents, queries
from etl.sync.job import Job
from etl.sync.rebuild import rebuild_changes
from etl.sync.selection import exit_code, select
from etl.warehouse import embedded, migrate
from etl.warehouse.connect import connect, database_url
from etl.warehouse.rights import suggest_grants

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
        stdout().print(f"callflow {__version__}")
        raise typer.Exit


@app.command("demo")
def demo_command(
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
    from etl.commands import demo  # it imports the sandbox, which the other commands do not need

    with stopping() as stopped:
        code = demo.run(
            demo.Screen(stdout(), stderr()),
            demo.Sample(flows, channels, seed),
            stopped,
            data_dir=data_dir,
            env=os.environ,
        )
    raise typer.Exit(code)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path(
        "callflow.toml"
    ),
) -> None:
    """Write a commented callflow.toml to fill in. An existing file is left alone."""
    config.write_example(path)
    stdout().print(
        f"Wrote {path}. Fill in one source, then:\n"
        "  callflow check   shows what is missing\n"
        "  callflow sync    fills the warehouse"
    )


@app.command("check")
def check_command(context: typer.Context, names: Names = None, path: ConfigPath = None) -> None:
    """Check the configuration, the warehouse, credentials and rights. Writes nothing.

    Prints one line for each: what is wrong and how to fix it. Exits 1 if anything is wrong. A list
    that the account does not have, or that its provider has ended, is nothing wrong.
    """
    settings, redact = load(context, path)
    config.require_sources(settings)
    good = True
    for finding in check.check(settings, select(settings, names or []), os.environ, redact):
        mark = "[green]ok  [/green]" if finding.there else "[yellow]none[/yellow]"
        mark = mark if finding.good else "[red]FAIL[/red]"
        text = escape(harmless(finding.text))
        print_lines(stdout(), f"{mark} {escape(finding.subject):<26} {text}", indent=5)
        good &= finding.good
    raise typer.Exit(0 if good else 1)


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
    settings, redact = load(context, path)
    config.require_sources(settings)
    units = select(settings, names or [])
    for warning in settings.warnings:
        note(warning)
    done = []
    with (
        warehouse(settings, redact, allow_behind=with_migrate, notes=True) as engine,
        stopping() as stopped,
    ):
        holder = process_name()
        jobs = [
            Job(engine, stream, source, holder, accept_deletes, full, stopped=stopped.is_set,
                redact=redact)
            for source, stream in units
        ]  # fmt: skip
        for run in run_jobs(jobs, stderr(), quiet=as_json):
            done.append(run)
            if as_json:
                sys.stdout.write(documents.run_json(run) + "\n")
                sys.stdout.flush()
            else:
                print_lines(stdout(), lines.run_line(run))
    raise typer.Exit(exit_code(done))


@app.command()
def status(context: typer.Context, as_json: AsJson = False, path: ConfigPath = None) -> None:
    """Show the state of every stream, and what is wrong.

    Prints the last success, the watermark and the number of rows, and what to do now.

    Exits 0 whatever state the streams are in. For monitoring use --json or the daemon's /readyz.
    """
    settings, redact = load(context, path)
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
    if error := config.no_sources(settings):
        note(str(error))


app.command("runs")(runs)
app.command("changes")(changes)
app.command("show")(show)
app.command("diff")(diff)
app.command("export")(export)
app.command("forget")(forget)


@app.command("daemon")
def daemon_command(
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
    from etl.daemon import daemon, logs  # they import a web server, which no other command needs
    from etl.daemon.context import Surroundings

    settings, redact = load(context, path)
    config.require_sources(settings)

    def log_with(redact: Redactor) -> None:
        logs.configure(sys.stderr, as_json=not sys.stderr.isatty(), redact=redact)

    def log_again(settings: Settings) -> None:
        log_with(redactor(settings))  # a configuration that was read again may have new secrets

    def load_again() -> Settings:
        again = config.load(settings.path, os.environ)
        config.require_sources(again)
        return again

    log_with(redact)
    log = structlog.get_logger("callflow")
    for warning in settings.warnings:
        log.warning(warning)
    given = Surroundings(load_again, os.environ, log, log_again, with_migrate=with_migrate)
    daemon.run(settings, given)


@app.command("migrate")
def migrate_command(
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
    url = database_url(settings, os.environ, note)
    before = migrate.upgrade(url)
    done = {"head": "is already up to date", "empty": "was created", "behind": "was migrated"}
    stdout().print(f"The schema {done[before]}.")
    if again:
        engine = connect(url)
        try:
            with suggest_grants(engine, "migrate", redact), engine.begin() as connection:
                count = rebuild_changes(connection)
        finally:
            engine.dispose()
        rows = f"{count:,} row{'' if count == 1 else 's'}"
        stdout().print(f"The log of changes was rebuilt from the histories: it has {rows}.")


_OF_THE_SANDBOX = "# Written by `callflow sandbox --config`, which replaces this file each time."


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
    for port in ports:
        if not 0 <= port <= 65535:
            raise ConfigError(
                f"there is no port {port}",
                where="--ports",
                advice=f"give {len(ports)} ports, each 0 to 65535",
            )
    from etl.sandbox import server
    from etl.sandbox.data import Sizes

    def announce(running: server.Sandbox) -> None:
        # What goes to stderr is a comment, so that a file of both streams is still TOML.
        if path is None:
            sys.stdout.write(running.toml())
            sys.stdout.flush()
            how = "Save this as callflow.toml, then `callflow sync`."
        else:
            write_own(path, f"{_OF_THE_SANDBOX}\n{running.toml()}")
            how = f"Wrote {path}; then `callflow sync -c {shlex.quote(str(path))}`."
        stderr().print(escape(f"# Serving. {harmless(how)} Ctrl-C ends."))

    try:
        with stopping() as stopped:
            server.run(ports, Sizes(flows, channels), seed, stopped, announce)
    except StoppedError as stop:
        stderr().print("# Stopped by a signal.")
        raise typer.Exit(stop.exit_code) from None


app.command("sql", cls=WithQuery)(sql)
app.command("grant")(grant)


@app.command()
def stop(context: typer.Context, path: ConfigPath = None) -> None:
    """Stop the embedded Postgres. Its data stays; the next command starts it again."""
    settings, _ = load(context, path)
    if settings.warehouse.url is not None:
        raise ConfigError(
            "warehouse.url names a server that callflow did not start",
            where="stop",
            advice="stop it where it runs",
        )
    data_dir = settings.warehouse.data_dir or embedded.default_data_dir()
    with suppress(Exception):  # this is only a note; without it the server can still be stopped
        if leader := leader_on(settings, data_dir):
            note(f"the daemon {leader} leads and will start it again → end it first")
    running = embedded.stop(data_dir, env=os.environ)
    stdout().print("Stopped." if running else "It was not running.")


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
        _report(error, secrets.redact, style="")
        sys.exit(error.exit_code)
    except (BrokenPipeError, OutputError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        if isinstance(error, OutputError):  # otherwise the reader has gone, as with `| head`
            _report(error, secrets.redact)
        sys.exit(1)
    except CallflowError as error:
        _report(error, secrets.redact)
        sys.exit(error.exit_code)
    except Exception as error:
        if "CALLFLOW_TRACEBACK" in os.environ:
            raise
        bug = internal(error)
        bug.advice = "run it again with CALLFLOW_TRACEBACK=1 and report what it prints"
        _report(bug, secrets.redact)
        sys.exit(1)


def _report(error: CallflowError, redact: Redactor, style: str = "[red]") -> None:
    typed = isinstance(error, ConfigError)
    text = escape(redact.message(str(error), keep="\n", typed=typed))
    stderr().print(f"{style}callflow:{style and '[/red]'} {text}")

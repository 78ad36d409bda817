"""The commands. Each reads its arguments, calls one stage, and shows what came of it."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from sqlalchemy import Engine
from typer.core import TyperCommand

from etl import __version__
from etl.commands import check, forget
from etl.config import load as config
from etl.config.redact import Redactor, harmless
from etl.config.settings import Settings, redactor
from etl.errors import CallflowError, ConfigError, StoppedError, WarehouseError, internal
from etl.load import lead
from etl.load.lease import is_dead, process_name
from etl.load.runs import Run
from etl.providers import PROVIDERS
from etl.sandbox import FIRST_PORT
from etl.status import answer, query, show
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import Unit, exit_code, name_of, run_all, select
from etl.warehouse import embedded, migrate
from etl.warehouse.connect import connect, database_url, embedded_server, normalise, plain_errors
from etl.warehouse.rights import plain_rights
from etl.warehouse.roles import ADMIN, READER

app = typer.Typer(
    name="callflow",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keeps a Postgres warehouse in step with the call flows of Zoom Contact Center, Twilio "
    "Flex and Alibaba Cloud CCC. "
    "Start with `callflow demo`; for your own accounts, `callflow init`.",
)

ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The configuration file. Default: $CALLFLOW_CONFIG, else ./callflow.toml.",
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SOURCE[.STREAM]]…",
        help="Sources or streams; all of them without any.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
PORTS = tuple(range(FIRST_PORT, FIRST_PORT + len(PROVIDERS)))
if TYPE_CHECKING:
    Ports = tuple[int, ...]
else:
    Ports = tuple[(int,) * len(PROVIDERS)]  # by this typer knows how many to read


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        stdout().print(f"callflow {__version__}")
        raise typer.Exit


def stderr() -> Console:
    """Where messages go."""
    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def tell(note: str) -> None:
    """Print something that a person should know."""
    stderr().print(f"note: {escape(harmless(note))}")


def stdout() -> Console:
    """Where results go; lines are not broken where nobody looks at them."""
    width = None if sys.stdout.isatty() else 10_000
    return Console(highlight=False, soft_wrap=True, width=width, emoji=False)


def load(context: typer.Context, path: Path | None) -> Settings:
    """The settings; from here on the command's last message shows none of their secrets."""
    settings = config.load(path, os.environ)
    if isinstance(context.obj, list):
        context.obj.append(redactor(settings))
    return settings


@contextmanager
def warehouse(
    settings: Settings,
    *,
    allow_behind: bool = False,
    notes: bool = False,
    to_read: bool = False,
) -> Iterator[Engine]:
    """An engine for the configured warehouse, its tables made if there are none.

    `to_read`: a role that lacks rights is told only what it takes to read.
    Raises SchemaError when they are behind, unless that is allowed, and when they are too new.
    """
    url = database_url(settings, os.environ, tell if notes else lambda note: None)
    engine = connect(url)
    try:
        with plain_rights(engine, "warehouse", redactor(settings)):
            with engine.connect() as connection:
                if to_read and migrate.is_hidden(connection):
                    raise migrate.hidden(str(engine.url.username))
                state = migrate.state(connection)
            migrate.fit(state, url, behind_too=allow_behind)
            yield engine
    finally:
        engine.dispose()


@contextmanager
def reading(settings: Settings) -> Iterator[tuple[Engine, str]]:
    """An engine that reads: as `warehouse.read_url`, or as the reader of the embedded Postgres.

    With neither it is the role of `warehouse.url`, and a note tells what that role may do. The
    second value is what to advise when a right is lacking. Raises SchemaError as `warehouse` does,
    unless the role that reads may not know.
    """
    denied = "use a role that has it; `callflow grant ROLE` gives what analysts need"
    given = settings.warehouse
    if given.read_url is not None:
        url = normalise(given.read_url.get_secret_value())
    elif given.url is not None:
        url = normalise(given.url.get_secret_value())
    else:
        server = embedded_server(settings, os.environ)
        embedded.prove_reader(server)
        with warehouse(settings) as owner, owner.begin() as connection:
            query.let_read(connection, READER)
        url = normalise(server.reader_url())
        denied = f"{READER} only reads; as the owner: {server.psql()}"
    engine = connect(url)
    try:
        if given.read_url is None and given.url is not None:
            with plain_errors("warehouse"):
                with engine.connect() as connection:
                    state = "head" if migrate.is_hidden(connection) else migrate.state(connection)
                    more = query.more_than_reads(connection)
                migrate.fit(state, url, behind_too=False)
            if more:
                tell(f"{more} → set warehouse.read_url to a role that only reads")
        yield engine, denied
    except WarehouseError as error:
        if given.read_url is not None:
            error.advice = error.advice.replace("warehouse.url", "warehouse.read_url")
        raise
    finally:
        engine.dispose()


class WithQuery(TyperCommand):
    """A command whose argument is SQL, which may begin with a comment: `-- so`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put what looks like an option and is a comment, by its blanks, after a `--`."""
        options = {name for parameter in self.params for name in parameter.opts}
        comments = [
            word
            for word in args[: args.index("--") if "--" in args else None]
            if re.match(r"--.*\s", word, re.DOTALL) and word.partition("=")[0] not in options
        ]
        if comments:
            args = [word for word in args if word not in (*comments, "--")] + ["--", *comments]
        return super().parse_args(ctx, args)


@app.command("demo")
def demo_command(
    flows: Annotated[int, typer.Option(help="Flows per provider.", min=1, max=5000)] = 60,
    channels: Annotated[int, typer.Option(help="Twilio channels.", min=0, max=1_000_000)] = 5000,
    seed: Annotated[int, typer.Option(help="Seed of the invented data.")] = 1,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the embedded Postgres keeps its data.")
    ] = None,
) -> None:
    """Show everything, with no credentials and no network.

    Starts the embedded Postgres and the sandbox (the providers' APIs, emulated on this
    machine), syncs one from the other three times, answers a few questions, and says how to
    connect.
    """
    from etl.commands import demo  # it brings the sandbox along, which no other command needs

    messages = stderr()
    with show.stopping() as stopped:

        def run(engine: Engine, units: Sequence[Unit]) -> Iterator[Run]:
            return run_units(engine, units, messages, stopped)

        code = demo.run(
            messages,
            stdout(),
            run,
            stopped,
            flows=flows,
            channels=channels,
            seed=seed,
            data_dir=data_dir,
            env=os.environ,
        )
    raise typer.Exit(code)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("callflow.toml"),
) -> None:
    """Write a commented callflow.toml to fill in. An existing file is not touched."""
    config.write_example(path)
    stdout().print(
        f"Wrote {path}. Fill in one source, then:\n"
        "  callflow check   shows what is missing\n"
        "  callflow sync    fills the warehouse"
    )


@app.command("check")
def check_command(context: typer.Context, names: Names = None, path: ConfigPath = None) -> None:
    """Check the configuration, the warehouse, credentials and rights. Writes nothing.

    One line each: what is wrong and how to mend it. Exits 1 when something is wrong.
    """
    settings = load(context, path)
    config.require_sources(settings)
    good = True
    for finding in check.check(settings, select(settings, names or []), os.environ):
        mark = "[green]ok  [/green]" if finding.good else "[red]FAIL[/red]"
        text = escape(harmless(finding.text))
        stdout().print(f"{mark} {escape(finding.subject):<24} {text}")
        good &= finding.good
    raise typer.Exit(0 if good else 1)


@app.command()
def sync(
    context: typer.Context,
    names: Names = None,
    full: Annotated[
        bool, typer.Option("--full", help="Scan whole lists, also where changes would do.")
    ] = False,
    accept_deletes: Annotated[
        bool,
        typer.Option("--accept-deletes", help="Remove even suspiciously many rows at once."),
    ] = False,
    with_migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring the schema to head first if it is behind.")
    ] = False,
    as_json: AsJson = False,
    path: ConfigPath = None,
) -> None:
    """Bring the warehouse up to date now: one run of every stream, or of those named.

    Exits 0 when all are complete, 1 when one failed or is incomplete (the others were still
    synced), 75 when another run was busy with one, 2 on a wrong configuration.
    """
    settings = load(context, path)
    config.require_sources(settings)
    units = select(settings, names or [])
    messages = stderr()
    for warning in settings.warnings:
        tell(warning)
    runs = []
    with (
        warehouse(settings, allow_behind=with_migrate, notes=True) as engine,
        show.stopping() as stopped,
    ):
        for run in run_units(
            engine,
            units,
            messages,
            stopped,
            accept_deletes=accept_deletes,
            full=full,
            quiet=as_json,
            redact=redactor(settings),
        ):
            runs.append(run)
            if as_json:
                sys.stdout.write(show.run_json(run) + "\n")
                sys.stdout.flush()
            else:
                stdout().print(show.run_line(run))
    raise typer.Exit(exit_code(runs))


@app.command()
def status(context: typer.Context, as_json: AsJson = False, path: ConfigPath = None) -> None:
    """Show every stream: last success, watermark, rows, and what is wrong.

    Exits 0 whatever state the streams are in. For monitoring take /readyz of the daemon, or --json.
    """
    settings = load(context, path)
    with warehouse(settings, to_read=True) as engine:
        overview = query.status(engine, settings)
    for stream in overview.streams:
        if as_json:
            sys.stdout.write(show.stream_json(stream) + "\n")
        else:
            stdout().print(show.stream_line(stream))
    sys.stdout.flush()  # what follows is beside the point where that cannot be written
    leader = f"{overview.leader} leads" if overview.leader else "none leads"
    stderr().print(f"daemon: {escape(harmless(leader))}")
    if not overview.streams:
        stderr().print("No sources are configured, and none was ever synced.")
    if error := config.no_sources(settings):
        tell(str(error))


@app.command("forget")
def forget_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SOURCE[/INSTANCE]", help="What to forget.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed in a script.")] = False,
    path: ConfigPath = None,
) -> None:
    """Move the rows of what is no longer configured to history: a source, or one instance.

    Asks first. A later run of the same source begins with a full load, and its history shows the
    gap. etl.runs and etl.rejects stay. Exits 2 when it is configured still, when nothing was ever
    called so, and without --yes where nobody can be asked; 75 while a run of it is under way.
    """
    settings = load(context, path)
    with warehouse(settings) as engine, plain_rights(engine, "forget", redactor(settings)):
        with engine.connect() as connection:
            left = forget.find(connection, settings, name)
            leader = lead.leader(connection)
        if left is not None and not yes:
            confirm(left)
        moved = left and forget.forget(engine, settings, name, process_name())
    if moved is None:
        stdout().print(f"Nothing is left of {escape(name)}: it was forgotten already.")
        return
    for table, count in moved.rows.items():
        stdout().print(f"{table:<36} {count:>10,} row{'s' if count > 1 else ''} moved to history")
    stdout().print(f"{escape(moved.name)} is forgotten.")
    if leader is not None and not is_dead(leader):
        tell(
            f"the daemon {leader} leads: unless it has read the configuration since (SIGHUP, or a"
            f" restart), it will sync {moved.name} again"
        )


def confirm(left: forget.Left) -> None:
    """Ask on the terminal whether to forget that. Raises ConfigError where there is none."""
    if not sys.stdin.isatty():
        raise ConfigError(
            "nobody can be asked: the input is not a terminal",
            where="forget",
            advice=f"to move its rows to history, run: callflow forget {left.name} --yes",
        )
    messages = stderr()
    messages.print(f"{escape(left.name)} is no longer configured. To history would go")
    for table, count in left.rows.items():
        messages.print(f"  {table:<36} {count:>10,} row{'s' if count > 1 else ''}")
    if not left.rows:
        messages.print("  no rows: only what is kept for its next run would go")
    if not typer.confirm("Forget it?", err=True):
        messages.print("Nothing was changed.")
        raise typer.Exit(1)


@app.command("daemon")
def daemon_command(
    context: typer.Context,
    with_migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring the schema to head first if it is behind.")
    ] = False,
    path: ConfigPath = None,
) -> None:
    """Keep the warehouse fresh, on the schedule of the configuration, until SIGTERM or Ctrl-C.

    Serves a status page, /readyz, /metrics and /api/status on daemon.http (127.0.0.1:8787). Several
    daemons may share a warehouse: one leads, another takes over when it ends. SIGHUP reads the
    configuration anew. A database that is away is waited for.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be heeded; it would end the process
    from etl.daemon import (  # they bring a web server along, which no other command needs
        daemon,
        logs,
    )

    settings = load(context, path)
    config.require_sources(settings)

    def log_to(settings: Settings) -> None:
        logs.configure(sys.stderr, as_json=not sys.stderr.isatty(), redact=redactor(settings))

    def load_again() -> Settings:
        again = config.load(settings.path, os.environ)
        config.require_sources(again)
        return again

    log_to(settings)
    log = structlog.get_logger("callflow")
    for warning in settings.warnings:
        log.warning(warning)
    daemon.Daemon(
        settings, load=load_again, env=os.environ, log=log, relog=log_to, with_migrate=with_migrate
    ).run()


@app.command("migrate")
def migrate_command(context: typer.Context, path: ConfigPath = None) -> None:
    """Bring the warehouse's schema to the head of the migrations."""
    settings = load(context, path)
    url = database_url(settings, os.environ, tell)
    before = migrate.upgrade(url)
    text = {"head": "was at head already", "empty": "made", "behind": "brought to head"}[before]
    stdout().print(f"The schema was {text}." if before != "head" else f"The schema {text}.")


@app.command()
def sandbox(
    ports: Annotated[
        Ports,
        typer.Option(
            metavar=" ".join(provider.name.upper() for provider in PROVIDERS),
            help="The ports, 0 to 65535; 0: any free one.",
        ),
    ] = PORTS,
    flows: Annotated[int, typer.Option(help="Flows per provider.", min=0, max=100_000)] = 60,
    channels: Annotated[int, typer.Option(help="Twilio channels.", min=0, max=1_000_000)] = 5000,
    seed: Annotated[int, typer.Option(help="Seed of the invented data.")] = 1,
) -> None:
    """Serve the providers' APIs, emulated, on this machine, until Ctrl-C.

    Prints a callflow.toml for them.
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
        sys.stdout.write(running.toml())
        sys.stdout.flush()
        # As comments: all is TOML, also where both streams are saved in one file.
        stderr().print("# Serving. Save this as callflow.toml, then `callflow sync`. Ctrl-C ends.")

    try:
        with show.stopping() as stopped:
            server.run(ports, Sizes(flows, channels), seed, stopped, announce)
    except StoppedError as stop:
        stderr().print("# Stopped by a signal.")
        raise typer.Exit(stop.exit_code) from None


@app.command(cls=WithQuery)
def sql(
    context: typer.Context,
    statement: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUERY]",
            help="A SELECT; `-` reads it from standard input; without one psql is opened.",
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
    path: ConfigPath = None,
) -> None:
    """Run a query on the warehouse, in a read-only transaction, and print its rows.

    It runs as the role of warehouse.read_url; on the embedded Postgres as callflow_reader.
    """
    if as_csv and as_json:
        raise ConfigError("--csv and --json exclude each other", advice="choose one")
    settings = load(context, path)
    if statement == "-":
        statement = sys.stdin.buffer.read().decode("utf-8-sig", errors="surrogateescape")
    with reading(settings) as (engine, denied):
        if statement is None:
            command, env = query.psql(engine, os.environ)
            os.execve(command[0], command, env)  # noqa: S606
        asked = query.ask(engine, statement, denied=denied)
        with show.cancelling(), closing(asked) as rows:
            if not (as_csv or as_json):
                count = show.table(stdout(), rows)
                stderr().print(f"{count} row{'' if count == 1 else 's'}")
                return
            names = next(rows)
            if (apart := answer.told_apart(names)) != names:
                changed = [new for old, new in zip(names, apart, strict=True) if old != new]
                tell(f"columns with the name of another are called {', '.join(changed)}")
            (show.write_csv if as_csv else show.write_json)(chain([apart], rows))


@app.command()
def grant(
    context: typer.Context,
    role: Annotated[str, typer.Argument(help="An existing role of the warehouse.")],
    path: ConfigPath = None,
) -> None:
    """Give a Postgres role the read-only rights that analysts and BI tools need.

    What takes an administrator is printed as SQL. Exits 0 when the role can read everything, also
    where only its time zone and its time limit are left; 1 when it cannot.
    """
    settings = load(context, path)
    with warehouse(settings) as engine, plain_errors("grant"):
        if settings.warehouse.url is not None:
            with engine.begin() as connection:
                grants = query.grant(connection, role)
        else:
            grants = grant_on(embedded_server(settings, os.environ), engine, role)
    schemas = ", ".join(query.READABLE)
    if grants.reads:
        stdout().print(
            f"{escape(role)} can read the schemas {schemas}: now, and what migrations add."
        )
    if grants.left:
        tell("the rest takes an administrator, who runs in psql, in this database:")
        for statement in grants.left:
            stderr().print(f"  {escape(statement)};")
    raise typer.Exit(0 if grants.reads else 1)


def grant_on(server: embedded.Server, engine: Engine, role: str) -> query.Grants:
    """Grant on the embedded Postgres, whose owner may not change roles: its administrator does."""

    def create(statement: str) -> str:
        return f"with: {server.psql(ADMIN, '-c', statement)}"

    with engine.begin() as connection:
        grants = query.grant(connection, role, create=create)
    embedded.administer(server, grants.left)
    return query.Grants(True, ())


@app.command()
def stop(context: typer.Context, path: ConfigPath = None) -> None:
    """Stop the embedded Postgres. Its data stays; the next command starts it again."""
    settings = load(context, path)
    if settings.warehouse.url is not None:
        raise ConfigError("warehouse.url names a server of yours", advice="stop it where it runs")
    data_dir = settings.warehouse.data_dir or embedded.default_data_dir()
    with suppress(Exception):  # it is but a note: whatever goes wrong, the server can be stopped
        if leader := leader_on(settings, data_dir):
            tell(f"the daemon {leader} leads and will start it again → end it first")
    running = embedded.stop(data_dir, env=os.environ)
    stdout().print("Stopped." if running else "It was not running.")


def leader_on(settings: Settings, data_dir: Path) -> str | None:
    """The daemon that leads on the embedded Postgres of `data_dir`, which is not started for this.

    Raises whatever goes wrong.
    """
    if not embedded.is_running(data_dir):
        return None
    engine = connect(database_url(settings, os.environ))
    try:
        with engine.connect() as connection:
            leader = lead.leader(connection)
    finally:
        engine.dispose()
    return None if leader is None or is_dead(leader) else leader


def run_units(
    engine: Engine,
    units: Sequence[Unit],
    messages: Console,
    stopped: threading.Event,
    *,
    accept_deletes: bool = False,
    full: bool = False,
    quiet: bool = False,
    redact: Redactor | None = None,
) -> Iterator[Run]:
    """Run `units`, with progress bars when `messages` is a terminal; yield their runs.

    `redact` takes the secrets of the whole configuration out of messages.
    """
    holder, redact = process_name(), redact or Redactor()
    names = [name_of(unit) for unit in units]
    with show.Watch(messages, names, quiet=quiet) as watch, ThreadPoolExecutor(8) as executor:

        def run_unit(unit: Unit) -> Run:
            (source, stream), name = unit, name_of(unit)
            job = Job(
                engine,
                stream,
                source,
                holder,
                accept_deletes,
                full,
                on_page=partial(watch.page, name),
                stopped=stopped.is_set,
                redact=redact,
            )
            run = run_stream(job)
            watch.done(name)
            return run

        finished = run_all(units, run_unit, executor)
        # Above bars that are being drawn there is no room for lines.
        yield from list(finished) if watch.shown else finished


def main() -> None:
    """Run the command line; every error becomes one message and an exit code, never a traceback."""
    show.open_streams()
    redactors = [Redactor()]  # the last one knows the secrets, once they have been read
    try:
        try:
            app(obj=redactors)
        finally:
            sys.stdout.flush()  # at the end of the process its error would be told in Python's way
    except StoppedError as error:
        _report(error, redactors[-1], style="")
        sys.exit(error.exit_code)
    except (BrokenPipeError, show.OutputError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left to write
        if isinstance(error, show.OutputError):  # otherwise the reader has gone, as with `| head`
            _report(error, redactors[-1])
        sys.exit(1)
    except CallflowError as error:
        _report(error, redactors[-1])
        sys.exit(error.exit_code)
    except Exception as error:
        if "CALLFLOW_TRACEBACK" in os.environ:
            raise
        bug = internal(error)
        bug.advice = "run it again with CALLFLOW_TRACEBACK=1 and report what it prints"
        _report(bug, redactors[-1])
        sys.exit(1)


def _report(error: CallflowError, redact: Redactor, style: str = "[red]") -> None:
    typed = isinstance(error, ConfigError)
    text = escape(redact.message(str(error), keep="\n", typed=typed))
    stderr().print(f"{style}callflow:{style and '[/red]'} {text}")

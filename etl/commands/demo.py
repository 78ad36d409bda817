"""`callflow demo`: sync the sandbox into the embedded Postgres, and look at the result."""

import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.markup import escape
from rich.text import Text
from sqlalchemy import Connection, Engine, text

from etl.commands import diff, drawing, lines, sql
from etl.commands.output import print_lines, stderr, stdout
from etl.commands.progress import print_runs, run_jobs
from etl.commands.questions import CHANGED, DRAWN, QUESTIONS
from etl.commands.rows import print_table
from etl.commands.signals import stopping
from etl.config import load as config
from etl.config.settings import Settings, redactor
from etl.load.lease import process_name
from etl.load.runs import Run
from etl.sandbox.data import Sizes
from etl.sandbox.server import Sandbox, serve
from etl.status import flows
from etl.sync.job import Job
from etl.sync.selection import exit_code, select
from etl.warehouse import embedded, grant, migrate
from etl.warehouse.connect import connect
from etl.warehouse.roles import READER
from etl.warehouse.translate import translate_errors

DATABASE = "callflow_demo"


@dataclass(frozen=True, slots=True)
class Screen:
    """Where the demo prints its results, and where its messages and progress bars."""

    results: Console
    messages: Console


@dataclass(frozen=True, slots=True)
class Sample:
    """How much data the sandbox invents, and from which seed."""

    flows: int
    channels: int
    seed: int


def run(sample: Sample, data_dir: Path | None) -> int:
    """Show everything on the terminal; return the exit code of the syncs.

    Raises EmbeddedError if no Postgres can be started, StoppedError if a signal came.
    """
    with stopping() as stopped:
        return show(Screen(stdout(), stderr()), sample, stopped, data_dir=data_dir, env=os.environ)


def show(
    screen: Screen,
    sample: Sample,
    stopped: threading.Event,
    *,
    data_dir: Path | None,
    env: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run the demo and return the exit code of its syncs. The database stays.

    `clock` counts seconds. Raises EmbeddedError if no Postgres can be started, StoppedError if
    `stopped` is set.
    """
    results, started = screen.results, clock()
    server = embedded.start(data_dir or embedded.default_data_dir(), env=env)
    for note in server.notes:
        screen.messages.print(f"note: {escape(note)}")
    runs_on = f"PostgreSQL {server.major} runs on {server.host}:{server.port}"
    results.print(f"{runs_on} ({clock() - started:.1f} s).")
    with serve(Sizes(sample.flows, sample.channels), sample.seed) as sandbox:
        settings = _settings(sandbox, env)
        redact = redactor(settings)
        with translate_errors("demo", redact):
            since = clock()
            if _create_database(server):
                results.print(
                    "The demo ran here before; its database was dropped, it starts again."
                )
            engine = connect(server.url(DATABASE))
            try:
                migrate.upgrade(server.url(DATABASE))
                with engine.begin() as connection:
                    grant.let_read(connection, READER)
                ready = "The tables are there, and a sandbox plays the providers' APIs"
                results.print(f"{ready} ({clock() - since:.1f} s).")
                holder = process_name()
                jobs = [
                    Job(engine, stream, source, holder, stopped=stopped.is_set, redact=redact)
                    for source, stream in select(settings, [])
                ]
                runs = _sync_three_times(screen, sandbox, engine, jobs, stopped, clock)
                for title, question in QUESTIONS.items():
                    print_table(results, sql.ask(engine, question, redact), title)
                with flows.snapshot(engine, redact, "demo") as connection:
                    _compare_a_flow(results, connection)
                    _draw_a_flow(results, connection)
            finally:
                engine.dispose()
    _print_how_to_connect(results, server, data_dir)
    results.print(f"\nThe demo took {clock() - started:.1f} s.")
    return exit_code(runs)


def _create_database(server: embedded.Server) -> bool:
    """Create the demo's database, empty; return whether it takes the place of an earlier one."""
    engine = connect(server.url())
    try:
        with engine.execution_options(isolation_level="AUTOCOMMIT").begin() as alone:
            there = text("SELECT EXISTS (SELECT FROM pg_database WHERE datname = :name)")
            was_there = bool(alone.scalar(there, {"name": DATABASE}))
            alone.exec_driver_sql(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            alone.exec_driver_sql(f"CREATE DATABASE {DATABASE}")
            return was_there
    finally:
        engine.dispose()


def _settings(sandbox: Sandbox, env: Mapping[str, str]) -> Settings:
    """Return the settings for `sandbox`; those of the user's own configuration do not count."""
    own = {name: value for name, value in env.items() if not name.startswith("CALLFLOW_")}
    with TemporaryDirectory(prefix="callflow-demo-") as folder:
        path = Path(folder, "callflow.toml")
        path.write_text(sandbox.toml(), encoding="utf-8")
        path.chmod(0o600)
        return config.load(path, own)


def _sync_three_times(
    screen: Screen,
    sandbox: Sandbox,
    engine: Engine,
    jobs: Sequence[Job],
    stopped: threading.Event,
    clock: Callable[[], float],
) -> list[Run]:
    """Sync everything, sync after some changes, and sync when nothing has changed."""
    runs = _sync("First sync: everything is new.", screen, jobs, clock)
    if not stopped.is_set():
        runs += _sync(f"Someone {_change(sandbox)}. Second sync:", screen, jobs, clock)
    if not stopped.is_set():
        before = _wal(engine)
        last = _sync("Nothing changed. Third sync:", screen, jobs, clock)
        written = sum(run.rows_written for run in last)
        size = (_wal(engine) - before) / 1024
        screen.results.print(f"  It wrote {written} rows and {size:,.0f} kB of WAL in total.\n")
        runs += last
    return runs


def _sync(title: str, screen: Screen, jobs: Sequence[Job], clock: Callable[[], float]) -> list[Run]:
    started = clock()
    screen.results.print()
    print_lines(screen.results, f"[bold]{title}[/bold]", indent=0)
    names = [job.name for job in jobs]
    # If nobody reads what is printed, the runs end before the sandbox does.
    with closing(run_jobs(jobs, screen.results, screen.messages)) as runs:
        done = list(print_runs(screen.results, names, runs, indent=2))
    print_lines(screen.results, f"  {lines.totals(done, clock() - started)}")
    return done


def _change(sandbox: Sandbox) -> str:
    """Let each emulator change what it has; return what was done, to follow "Someone"."""
    done = [phrase for each in sandbox.emulators.values() for phrase in each.change()]
    return ", ".join([*done[:-1], f"and {done[-1]}"]) if len(done) > 1 else "".join(done)


def _wal(engine: Engine) -> int:
    """Return the position in the server's write-ahead log, in bytes."""
    with engine.begin() as connection:
        return int(connection.scalar(text("SELECT pg_current_wal_insert_lsn() - '0/0'")) or 0)


def _compare_a_flow(results: Console, connection: Connection) -> None:
    """Print in what the flow whose inside changed last differs from before; nothing without one."""
    if changed := connection.execute(text(CHANGED)).one_or_none():
        flow = flows.find(connection, changed.flow_key)[0]
        before = changed.at - flows.INSTANT
        results.print("[bold]In what does a flow differ from how it was before?[/bold]\n")
        diff.show(results, *diff.of_moments(connection, flow, before, None))
        results.print()


def _draw_a_flow(results: Console, connection: Connection) -> None:
    """Draw a flow, one with a fault inside if there is one; nothing if no flow has steps."""
    key = connection.scalar(text(DRAWN))
    content = flows.content(connection, flows.find(connection, key)[0]) if key else None
    if content is not None:
        results.print("[bold]What happens inside a flow, and is anything wrong there?[/bold]\n")
        drawn = drawing.terminal(flows.drawing(content), results.width)
        results.print(Text(drawn.strip("\n") + "\n"), soft_wrap=True)


def _print_how_to_connect(results: Console, server: embedded.Server, data_dir: Path | None) -> None:
    password_file = server.data_dir / embedded.PASSWORDS[READER]
    program = escape(_program())
    there = shlex.quote(str(data_dir)) if data_dir else ""
    stop = f"CALLFLOW_WAREHOUSE__DATA_DIR={escape(there)} " if there else ""
    psql = "psql" if shutil.which("psql") else shlex.quote(str(server.bin_dir / "psql"))
    results.print(
        f"""[bold]Connect[/bold]
  psql      PGPASSFILE={escape(shlex.quote(str(password_file)))} \\
              {escape(psql)} -h {server.host} -p {server.port} -U {READER} {DATABASE}"""
    )
    print_lines(
        results,
        f"  BI tool   PostgreSQL, host {server.host}, port {server.port}, database {DATABASE},"
        f" user {READER} (read-only), password: the last field of that file\n",
        indent=12,
    )
    print_lines(
        results,
        f"""Postgres keeps running; `{stop}{program} stop` shuts it down, the data stays.
For your own accounts, run `{program} init`, fill in callflow.toml, then run `check` and `sync`.""",
        indent=2,
    )


def _program() -> str:
    """Return how to start callflow from this prompt; after `make demo` it is not on PATH."""
    if shutil.which("callflow"):
        return "callflow"
    beside = Path(sys.executable).with_name("callflow")
    if not beside.exists():
        return f"{shlex.quote(sys.executable)} -m etl"
    with suppress(ValueError):
        beside = beside.relative_to(Path.cwd())
    return shlex.quote(str(beside))

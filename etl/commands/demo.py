"""`callflow demo`: the sandbox, synced into the embedded Postgres, and a look at the result."""

import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.markup import escape
from sqlalchemy import Engine, text

from etl.config import load as config
from etl.load.runs import Run
from etl.sandbox.data import Sizes
from etl.sandbox.server import Sandbox, serve
from etl.status import query, show
from etl.sync.selection import Unit, exit_code, select
from etl.warehouse import embedded, migrate
from etl.warehouse.connect import connect, plain_errors
from etl.warehouse.roles import READER

DATABASE = "callflow_demo"

QUESTIONS = {
    "Which numbers reach which flow?": """
        (SELECT e.entry_number AS number, f.flow_name AS flow, f.status, f.source
         FROM zoom.entry_points e JOIN zoom.flows f USING (source, flow_id)
         WHERE e.entry_number IS NOT NULL ORDER BY 1 LIMIT 5)
        UNION ALL
        (SELECT n.number, f.name, CASE WHEN f.published THEN 'published' ELSE 'draft' END, f.source
         FROM alibaba.contact_flow_numbers n
         JOIN alibaba.contact_flows f USING (source, instance_id, contact_flow_id)
         ORDER BY 1 LIMIT 4)""",
    "Which published flows have edits that are not published yet?": """
        SELECT f.flow_name AS flow, max(v.flow_version) FILTER (WHERE v.flow_version_status =
               'published') AS live_version, max(v.flow_version) AS newest_version,
               max(v.flow_version_last_modified_time) AS edited
        FROM zoom.flows f JOIN zoom.flow_versions v USING (source, flow_id)
        WHERE f.status = 'published' GROUP BY f.source, f.flow_id, f.flow_name
        HAVING max(v.flow_version) > max(v.flow_version) FILTER (WHERE v.flow_version_status =
               'published')
        ORDER BY edited DESC LIMIT 6""",
    "How many chat channels did each Flex Flow open?": """
        SELECT coalesce(f.friendly_name, '(deleted) ' || c.flex_flow_sid) AS flex_flow,
               f.channel_type, count(*) AS channels, max(c.date_created) AS newest
        FROM twilio.channels c LEFT JOIN twilio.flex_flows f
             ON f.source = c.source AND f.sid = c.flex_flow_sid
        GROUP BY 1, 2 ORDER BY channels DESC LIMIT 6""",
    "What was changed between the two syncs?": """
        SELECT h.flow_name AS before, f.flow_name AS now, h.status AS status_before,
               coalesce(f.status, '(deleted)') AS status_now, h.valid_to AS seen_at
        FROM zoom.flows_history h LEFT JOIN zoom.flows f USING (source, flow_id)
        WHERE NOT h.is_current ORDER BY h.valid_to, before LIMIT 6""",
}

RunUnits = Callable[[Engine, list[Unit]], Iterable[Run]]


def run(
    messages: Console,
    results: Console,
    run_units: RunUnits,
    stopped: threading.Event,
    *,
    flows: int,
    channels: int,
    seed: int,
    data_dir: Path | None,
    env: Mapping[str, str],
) -> int:
    """Run the demo; return the exit code of its syncs. What it made is left in place.

    Raises EmbeddedError when no Postgres can be started, StoppedError when it was stopped.
    """
    server = embedded.start(data_dir or embedded.default_data_dir(), env=env)
    for note in server.notes:
        messages.print(f"note: {escape(note)}")
    results.print(f"PostgreSQL {server.major} runs on {server.host}:{server.port}.")
    _new_database(server)
    engine = connect(server.url(DATABASE))
    try:
        with plain_errors("demo"), serve(Sizes(flows, channels), seed) as sandbox:
            migrate.upgrade(server.url(DATABASE))
            units = _units(sandbox, env)
            runs = _sync("First sync: everything is new.", results, engine, units, run_units)
            if not stopped.is_set():
                title = f"Someone {_change(sandbox)}. Second sync:"
                runs += _sync(title, results, engine, units, run_units)
            if not stopped.is_set():
                before = _wal(engine)
                title = "Nothing changed. Third sync:"
                last = _sync(title, results, engine, units, run_units)
                written = sum(run.rows_written for run in last)
                size = (_wal(engine) - before) / 1024
                results.print(f"  It wrote {written} rows and {size:,.0f} kB of WAL in total.\n")
                runs += last
        for title, question in QUESTIONS.items():
            show.table(results, query.ask(engine, question), title)
        with plain_errors("demo"), engine.begin() as connection:
            query.let_read(connection, READER)
    finally:
        engine.dispose()
    _how_to_connect(results, server)
    return exit_code(runs)


def _new_database(server: embedded.Server) -> None:
    engine = connect(server.url())
    try:
        with plain_errors("demo"), engine.connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            alone.exec_driver_sql(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            alone.exec_driver_sql(f"CREATE DATABASE {DATABASE}")
    finally:
        engine.dispose()


def _units(sandbox: Sandbox, env: Mapping[str, str]) -> list[Unit]:
    own = {name: value for name, value in env.items() if not name.startswith("CALLFLOW_")}
    with TemporaryDirectory(prefix="callflow-demo-") as folder:
        path = Path(folder, "callflow.toml")
        path.write_text(sandbox.toml(), encoding="utf-8")
        path.chmod(0o600)
        return select(config.load(path, own), [])


def _sync(
    title: str, results: Console, engine: Engine, units: list[Unit], run_units: RunUnits
) -> list[Run]:
    results.print(f"\n[bold]{title}[/bold]")
    runs = []
    for each in run_units(engine, units):
        results.print("  " + show.run_line(each))
        runs.append(each)
    return runs


def _change(sandbox: Sandbox) -> str:
    """Change what each emulator has for that; return what was done, after "Someone"."""
    done = [phrase for each in sandbox.emulators.values() for phrase in each.change()]
    return ", ".join([*done[:-1], f"and {done[-1]}"]) if len(done) > 1 else "".join(done)


def _wal(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT pg_current_wal_insert_lsn() - '0/0'")) or 0)


def _how_to_connect(results: Console, server: embedded.Server) -> None:
    password_file = server.data_dir / embedded.PASSWORDS[READER]
    program = escape(_program())
    psql = "psql" if shutil.which("psql") else shlex.quote(str(server.bin_dir / "psql"))
    results.print(
        f"""[bold]Connect[/bold]
  psql      PGPASSFILE={escape(shlex.quote(str(password_file)))} \\
              {escape(psql)} -h {server.host} -p {server.port} -U {READER} {DATABASE}
  BI tool   PostgreSQL, host {server.host}, port {server.port}, database {DATABASE},
            user {READER} (read-only), password: the last field of that file

Postgres keeps running; `{program} stop` shuts it down, the data stays.
Your own accounts: `{program} init`, fill in callflow.toml, then `check` and `sync`."""
    )


def _program() -> str:
    """Return how a person at this prompt starts callflow; `make demo` puts it on no PATH."""
    if shutil.which("callflow"):
        return "callflow"
    beside = Path(sys.executable).with_name("callflow")
    if not beside.exists():
        return f"{shlex.quote(sys.executable)} -m etl"
    with suppress(ValueError):
        beside = beside.relative_to(Path.cwd())
    return shlex.quote(str(beside))

"""What the configuration no longer has: it is said, and `callflow forget` moves it to history."""

import os
import pty
import re
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from etl.commands import forget, lines
from etl.commands.check import check
from etl.config import load as configuration
from etl.config.redact import Redactor
from etl.config.settings import redactor
from etl.errors import BusyError, ConfigError, SchemaError
from etl.load import lease as leases
from etl.providers import named
from etl.providers.catalog import TABLES
from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from etl.status import health, queries
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import select
from etl.warehouse.connect import connect
from etl.warehouse.translate import translate_errors
from tests.postgres import ask, dsn
from tests.sync.truth import STREAMS
from tests.terminal import at_terminal
from tests.warm import Warm
from tests.web import fleet
from tests.web.running import running

Cli = Callable[..., subprocess.CompletedProcess[str]]
Sync = Callable[..., None]
Said = Callable[[], str]
Drop = Callable[[str], forget.Left | None]
OLD, OTHER = "ccc-sandbox", "ccc-sandbox-survey"
FLOWS = ("zoom.flows", "zoom.flow_versions", "zoom.entry_points")
INSTANCES = tuple(name for name in TABLES if name.startswith("alibaba."))
"""The tables whose rows belong to an instance."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with serve(data.Sizes(24, 20), seed=5) as running:
        yield running


@pytest.fixture
def path(sandbox: Sandbox, warehouse: str, tmp_path: Path) -> Path:
    path = tmp_path / "callflow.toml"
    path.touch(mode=0o600)
    path.write_text(f'[warehouse]\nurl = "{dsn(warehouse)}"\n\n{sandbox.toml()}', encoding="utf-8")
    return path


@pytest.fixture
def sync(path: Path, warehouse: str) -> Iterator[Callable[..., None]]:
    """Bring the named sources up to date, as `callflow sync` does."""
    engine = connect(warehouse)

    def run(*names: str) -> None:
        for source, stream in select(configuration.load(path, {}), names):
            assert run_stream(Job(engine, stream, source, "test")).status == "complete"

    yield run
    engine.dispose()


@pytest.fixture
def said(path: Path, warehouse: str) -> Iterator[Callable[[], str]]:
    """Yield what `callflow status` and `callflow check` print of the present configuration."""
    engine = connect(warehouse)

    def run() -> str:
        settings = configuration.load(path, {})
        redact = redactor(settings)
        streams = queries.status(engine, settings, redact).streams
        shown = [lines.stream_line(each) for each in streams]
        findings = check(settings, [], {}, redact)
        shown += [f"{each.good} {each.subject}: {each.text}" for each in findings]
        return "\n".join(shown)

    yield run
    engine.dispose()


@pytest.fixture
def drop(path: Path, warehouse: str) -> Iterator[Callable[[str], forget.Left | None]]:
    """Run `callflow forget NAME --yes`; yield what it does."""
    engine = connect(warehouse)
    yield lambda name: forget.move_to_history(engine, configuration.load(path, {}), name, "test")
    engine.dispose()


@pytest.fixture
def cli(path: Path, warm: Warm) -> Cli:
    def run(*words: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
        env = {key: word for key, word in os.environ.items() if not key.startswith("CALLFLOW_")}
        return warm.run(words, env={**env, "CALLFLOW_CONFIG": str(path)}, stdin=stdin)

    return run


def count(url: str, table: str, where: str = "true") -> int:
    (row,) = ask(url, f"SELECT count(*) FROM {table} WHERE {where}")
    return int(row[0])


def old(table: str) -> str:
    return "history." + table.replace(".", "_")


def take_out(path: Path, source: str) -> str:
    """Remove the source from the configuration; return the previous text of the file."""
    text = path.read_text()
    kept = re.sub(rf"\[sources\.{source}\].*?(?=\n\[|\Z)", "", text, flags=re.S)
    assert source not in tomllib.loads(kept)["sources"]
    path.write_text(kept)
    return text


def without(path: Path, instance: str) -> str:
    text = path.read_text()
    path.write_text(
        text.replace(f'instance_ids = ["{OLD}", "{OTHER}"]', f'instance_ids = ["{instance}"]')
    )
    assert path.read_text() != text
    return text


@pytest.mark.slow
def test_a_source_that_was_removed_is_reported_and_forgotten(
    sync: Sync, said: Said, drop: Drop, path: Path, warehouse: str
) -> None:
    sync("zoom_demo", "alibaba_demo")
    before = {table: count(warehouse, table) for table in FLOWS}
    assert min(before.values()) > 0
    with pytest.raises(ConfigError) as refused:
        drop("zoom_demo")
    assert "zoom_demo is configured" in str(refused.value)
    assert refused.value.advice == "remove [sources.zoom_demo] from the configuration first"
    text = take_out(path, "zoom_demo")

    left = "no longer configured; its rows stay as they were → `callflow forget zoom_demo` moves"
    assert f"zoom_demo: {left}" in said()
    assert f"True zoom_demo: note: {left}" in said()
    with pytest.raises(ConfigError, match="no 'zoom_dem' in the warehouse; did you mean zoom_demo"):
        drop("zoom_dem")

    moved = drop("zoom_demo")
    assert moved is not None
    assert dict(moved.rows) == before
    for table, rows in before.items():
        assert (count(warehouse, table), count(warehouse, old(table))) == (0, rows)
    for table in ("etl.streams", "etl.absences", "etl.checkpoints"):
        assert count(warehouse, table, "source = 'zoom_demo'") == 0
    assert count(warehouse, "etl.runs", "source = 'zoom_demo'") == 1
    assert count(warehouse, "etl.leases", "until > now()") == 0
    assert count(warehouse, "pg_tables", "tablename LIKE 'zoom_demo%'") == 0
    assert count(warehouse, "alibaba.contact_flows") > 0
    assert ask(warehouse, "SELECT count(DISTINCT valid_to) FROM history.zoom_flows") == [(1,)]
    assert "zoom_demo" not in said()
    assert drop("zoom_demo") is None

    path.write_text(text)
    sync("zoom_demo")
    assert {table: count(warehouse, table) for table in FLOWS} == before
    gaps = ask(
        warehouse,
        "SELECT count(*), bool_and(now.valid_from > was.valid_to) FROM zoom.flows AS now"
        " JOIN history.zoom_flows AS was USING (source, flow_id)",
    )
    assert gaps == [(before["zoom.flows"], True)]


def test_an_instance_that_was_removed_is_reported_and_forgotten(
    sync: Sync, said: Said, drop: Drop, path: Path, warehouse: str
) -> None:
    sync("alibaba_demo")
    name = f"alibaba_demo/{OLD}"
    theirs = f"instance_id = '{OLD}'"
    before = {table: count(warehouse, table, theirs) for table in INSTANCES}
    assert min(before.values()) > 0
    kept = {table: count(warehouse, table, f"NOT {theirs}") for table in INSTANCES}
    with pytest.raises(ConfigError) as refused:
        drop(name)
    assert f"{name} is configured" in str(refused.value)
    assert refused.value.advice == "take it out of sources.alibaba_demo.instance_ids first"
    absence = "INSERT INTO etl.absences VALUES ('alibaba_demo', 'contact_flows', %s, 'r', now())"
    with psycopg.connect(dsn(warehouse)) as connection:
        for instance in (OLD, OTHER):
            connection.execute(absence, [f'["{instance}", "flow"]'])
    text = without(path, OTHER)

    left = f"no longer configured; its rows stay as they were → `callflow forget {name}` moves"
    assert f"{name}: {left}" in said()
    assert f"True {name}: note: {left}" in said()
    moved = drop(name)
    assert moved is not None
    assert dict(moved.rows) == before
    for table, rows in before.items():
        assert (count(warehouse, table, theirs), count(warehouse, old(table))) == (0, rows)
    assert {table: count(warehouse, table) for table in INSTANCES} == kept
    state = ask(
        warehouse,
        "SELECT rows, array(SELECT jsonb_object_keys(watermarks)),"
        " watermark = (watermarks ->> %s)::timestamptz FROM etl.streams"
        " WHERE stream = 'contact_flows'",
        OTHER,
    )
    assert state == [(kept["alibaba.contact_flows"], [OTHER], True)]
    assert ask(warehouse, "SELECT key FROM etl.absences") == [(f'["{OTHER}", "flow"]',)]
    assert "no longer configured" not in said()
    assert drop(name) is None
    with pytest.raises(ConfigError, match=r"no 'alibaba_demo/ccc-sandbax'.* did you mean .*/ccc-s"):
        drop("alibaba_demo/ccc-sandbax")

    path.write_text(text)
    sync("alibaba_demo")
    assert {table: count(warehouse, table, theirs) for table in INSTANCES} == before


def test_nothing_is_forgotten_while_a_stream_is_being_synced(
    sync: Sync, drop: Drop, path: Path, warehouse: str
) -> None:
    sync("zoom_demo")
    take_out(path, "zoom_demo")
    rows = count(warehouse, "zoom.flows")
    engine = connect(warehouse)
    with engine.begin() as connection:
        leases.acquire(connection, "zoom_demo", "flows", holder="elsewhere:1:x")
    engine.dispose()
    with pytest.raises(BusyError, match="elsewhere:1:x") as busy:
        drop("zoom_demo")
    assert busy.value.exit_code == 75
    assert (count(warehouse, "zoom.flows"), count(warehouse, "history.zoom_flows")) == (rows, 0)


def test_it_is_all_or_nothing(sync: Sync, drop: Drop, path: Path, warehouse: str) -> None:
    sync("zoom_demo")
    take_out(path, "zoom_demo")
    rows = {table: count(warehouse, table) for table in FLOWS}
    with psycopg.connect(dsn(warehouse)) as connection:  # the last table that is moved
        connection.execute("ALTER TABLE history.zoom_flows ADD CHECK (valid_to < '2001-01-01')")
    with pytest.raises(SchemaError), translate_errors("forget"):
        drop("zoom_demo")
    assert {table: count(warehouse, table) for table in FLOWS} == rows
    assert sum(count(warehouse, old(table)) for table in FLOWS) == 0
    assert count(warehouse, "etl.streams") == 1


@pytest.mark.parametrize("changed_at", ["2999-01-01 00:00:00+00", "infinity"])
def test_what_is_moved_was_there_until_after_its_last_change(
    sync: Sync, drop: Drop, path: Path, warehouse: str, changed_at: str
) -> None:
    """Whatever the clock says; an instant that cannot be read does not count."""
    sync("zoom_demo")
    take_out(path, "zoom_demo")
    ask(warehouse, f"UPDATE etl.streams SET changed_at = '{changed_at}' RETURNING 1")
    assert drop("zoom_demo") is not None
    is_after = "valid_to > '2999-01-01'" if changed_at != "infinity" else "valid_to < now()"
    moved = count(warehouse, "history.zoom_flows")
    assert count(warehouse, "history.zoom_flows", is_after) == moved > 0


def test_a_name_that_is_another_provider_s_now_keeps_what_it_has_now(
    sync: Sync, drop: Drop, path: Path, warehouse: str
) -> None:
    """The rows that it had with its previous provider are removed."""
    sync("zoom_demo")
    take_out(path, "zoom_demo")
    path.write_text(path.read_text().replace("sources.twilio_demo", "sources.zoom_demo"))
    sync("zoom_demo")
    assert drop("zoom_demo") is not None
    assert count(warehouse, "zoom.flows") == 0
    assert count(warehouse, "twilio.flex_flows") > 0
    kept = ask(warehouse, "SELECT stream FROM etl.streams ORDER BY 1")
    assert kept == [(name,) for name in sorted(each.name for each in named("twilio").streams)]


@contextmanager
def terminal(typed: str) -> Iterator[int]:
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    try:
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)


def test_it_asks_on_a_terminal_and_nowhere_else(
    cli: Cli, sync: Sync, path: Path, warehouse: str
) -> None:
    sync("zoom_demo")
    take_out(path, "zoom_demo")
    rows = count(warehouse, "zoom.flows")
    asks = cli("forget", "zoom_demo")
    assert asks.returncode == 2
    assert (
        "standard input is not a terminal → to move its rows to history, run: callflow forget"
        " zoom_demo --yes"
    ) in asks.stderr
    with terminal("n\n") as stdin:
        no = cli("forget", "zoom_demo", stdin=stdin)
    assert (no.returncode, count(warehouse, "zoom.flows")) == (1, rows)
    assert re.search(rf"zoom\.flows +{rows} rows", no.stderr)
    assert "Forget it?" in no.stderr
    assert "Nothing was changed." in no.stderr
    with terminal("y\n") as stdin:
        yes = cli("forget", "zoom_demo", stdin=stdin)
    assert yes.returncode == 0
    assert re.search(rf"zoom\.flows +{rows} rows moved to history", yes.stdout)
    assert yes.stdout.endswith("zoom_demo is forgotten.\n")
    assert count(warehouse, "zoom.flows") == 0


@pytest.mark.slow
def test_ctrl_c_is_an_answer_that_changes_nothing(sync: Sync, path: Path, warehouse: str) -> None:
    sync("zoom_demo")
    take_out(path, "zoom_demo")
    rows = count(warehouse, "zoom.flows")
    for typed, code, said in (
        ("\x03", 130, "stopped by a signal; nothing was changed"),
        ("\x04", 1, "Nothing was changed."),
        ("perhaps\n", 1, "Nothing was changed."),
    ):
        shown, ended = at_terminal(
            ["forget", "zoom_demo"], path.parent, [("Forget it?", typed)], CALLFLOW_CONFIG=str(path)
        )
        assert (ended, count(warehouse, "zoom.flows")) == (code, rows), shown
        assert said in shown


def test_the_page_and_the_api_report_it(sync: Sync, path: Path, warehouse: str) -> None:
    sync("zoom_demo", "alibaba_demo")
    take_out(path, "zoom_demo")
    without(path, OTHER)
    engine = connect(warehouse)
    view = queries.status(engine, configuration.load(path, {}), Redactor())
    engine.dispose()
    names = ["alibaba_demo/" + OLD, "zoom_demo"]
    with running(view, now=lambda: view.at) as client:
        page = client.get("/").text
        streams = client.get("/api/status").json()["streams"]
    assert {left["name"] for stream in streams for left in stream["leftovers"]} == set(names)
    assert "No longer configured" in page
    for name in names:
        assert f"<code>callflow forget {name}</code>" in page


def test_a_locked_table_makes_no_reader_wait(sync: Sync, path: Path, warehouse: str) -> None:
    sync("alibaba_demo")
    engine = connect(warehouse)
    with psycopg.connect(dsn(warehouse)) as holder, engine.connect() as connection:
        holder.execute("LOCK TABLE alibaba.contact_flows IN ACCESS EXCLUSIVE MODE")
        release = threading.Timer(30, holder.close)
        release.start()
        connection.exec_driver_sql("SET LOCAL lock_timeout = '3s'")
        before = [("alibaba_demo", "contact_flows", OLD)]
        assert queries.scopes(connection, before) == before
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "3s"
        assert len(queries.status(engine, configuration.load(path, {}), Redactor()).streams) == len(
            STREAMS
        )
        assert not holder.closed
        release.cancel()
    engine.dispose()


def test_many_leftovers_are_counted_on_the_page() -> None:
    left = [health.Leftover(f"s{n:02}", "no longer configured", "forget it") for n in range(30)]
    streams = [fleet.stream(each.name, state="not configured", leftovers=(each,)) for each in left]
    with running(fleet.overview(*streams)) as client:
        page = client.get("/").text
    assert page.count("<code>callflow forget ") == 20
    assert "and 10 more" in page


def test_a_stream_that_is_not_chosen_any_more_can_be_forgotten(
    cli: Cli, drop: Drop, sync: Sync, said: Said, path: Path, warehouse: str
) -> None:
    def held() -> list[int]:
        return [count(warehouse, f"twilio.{name}") for name in ("flex_flows", "channels")]

    sync("twilio_demo")
    rows = held()
    with pytest.raises(ConfigError, match=r"leave it out of sources\.twilio_demo\.streams first"):
        drop("twilio_demo.channels")
    text = path.read_text()
    path.write_text(
        text.replace("[sources.twilio_demo]", '[sources.twilio_demo]\nstreams = ["flex_flows"]')
    )
    assert "twilio_demo.channels: no longer configured; its rows stay as they were" in said()
    assert "`callflow forget twilio_demo.channels` moves them to history" in said()
    assert held() == rows
    done = cli("forget", "twilio_demo.channels", "--yes")
    assert re.search(rf"twilio\.channels +{rows[1]} rows moved to history", done.stdout)
    assert done.stdout.endswith("twilio_demo.channels is forgotten.\n")
    assert held() == [
        rows[0],
        0,
    ]
    assert count(warehouse, old("twilio.channels"), "valid_to IS NOT NULL") == rows[1]
    assert "twilio_demo.channels" not in said()
    assert drop("twilio_demo.channels") is None
    with pytest.raises(ConfigError, match=r"there is no 'twilio_demo\.chanels' in the"):
        drop("twilio_demo.chanels")
    path.write_text(text)
    sync("twilio_demo")
    assert held() == rows

"""`callflow changes`, `show`, `diff` and `export`, on a warehouse in which things were changed."""

import csv
import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text

from etl.commands.export import views
from etl.commands.moments import resolved
from etl.config.redact import Redactor
from etl.errors import WarehouseError
from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from etl.status import flows
from etl.status.changed import change_line
from etl.status.masking import masked
from etl.warehouse.connect import connect
from etl.warehouse.embedded import find_binaries
from tests.postgres import Cluster, ask, dsn
from tests.test_cli import environment
from tests.warm import Warm

HOSTILE = (
    "x\x1b[31m\u202e<script>alert(1)</script>\r\n\"'[bold]; DROP TABLE zoom.flows; --"
    " \U0001f469\u200d\U0001f4bb שלום \x9b2J\x07 100% \\"
)
SPOKEN = "+1 (212) 555-0145"
EDITOR = "anna\x1b]0;x\x07@example.com"


@dataclass(frozen=True)
class Synced:
    """A warehouse that was synced, after which people changed things, and synced again.

    `renamed` and `hostile` are flows of Zoom and of Alibaba with another name, `saved` was only
    saved, `gone` deleted; `twin` is the id of a flow in both instances of Alibaba; `dead_end` is
    a flow with that finding, which has an address.
    """

    url: str
    config: Path
    instances: tuple[str, str]
    renamed: str
    saved: str
    gone: str
    gone_name: str
    hostile: str
    twin: str
    dead_end: str


def change(sandbox: Sandbox, config: Path, url: str) -> Synced:
    """Let people change things; return what they changed."""
    zoom, instances = sandbox.zoom.flows, list(sandbox.alibaba.flows)
    one, other = (sandbox.alibaba.flows[name] for name in instances)
    renamed, gone, saved = zoom.keys()[:3]
    hostile, twin, dead_end = one.keys()[20], one.keys()[0], one.keys()[27]
    gone_name = zoom.get(gone)["flow_name"]
    zoom.update(renamed, flow_name="Größe & Maß", modified_by="u-anna")
    zoom.update(saved, modified_by="u-ben")
    zoom.delete(gone)
    inside = json.loads(one.get(hostile)["Definition"])
    inside["activities"][2]["properties"]["say"] = HOSTILE
    inside["activities"][2]["name"] = HOSTILE
    inside["activities"][3]["name"] = f"Call {SPOKEN}"
    inside["activities"][3]["properties"]["say"] = [f"call {SPOKEN}", 7, 2125550145]
    more = {"Definition": json.dumps(inside), "NumberList": ["+442079460123"]}
    one.update(hostile, Name=HOSTILE, Editor=EDITOR, Description=HOSTILE, **more)
    other.add({**one.get(twin), "InstanceId": instances[1]})
    keys = renamed, saved, gone, gone_name, hostile, twin, dead_end
    return Synced(url, config, (instances[0], instances[1]), *keys)


@pytest.fixture(scope="module")
def synced(
    clusters: Callable[[Path], Cluster], warm: Warm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Synced]:
    cluster = clusters(find_binaries(os.environ))
    place = tmp_path_factory.mktemp("flows")
    config = place / "callflow.toml"
    with (
        cluster.database(template=cluster.migrated) as url,
        serve(data.Sizes(60, 50), seed=3) as sandbox,
    ):
        config.write_text(f'[warehouse]\nurl = "{dsn(url)}"\n{sandbox.toml()}', encoding="utf-8")
        config.chmod(0o600)
        env = environment(CALLFLOW_CONFIG=str(config))
        assert warm.run(["sync"], env=env, cwd=place).returncode == 0
        found = change(sandbox, config, url)
        done = warm.run(["sync", "--full"], env=env, cwd=place)
        assert done.returncode == 0, done
        yield found


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(synced: Synced, warm: Warm, tmp_path: Path) -> Cli:
    """Return a function that runs `callflow …`, and finds nothing that a terminal would obey."""

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        env = environment(CALLFLOW_CONFIG=str(synced.config), **env)
        done = warm.run(words, env=env, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        assert " a bug" not in done.stderr
        harmless(done.stdout if "--json" not in words else "", done.stderr)
        return done

    return run


def harmless(*texts: str) -> None:
    for each in texts:
        assert not set("\x1b\x9b\x07\u202e\r") & set(each), each


def objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done
    return [json.loads(line) for line in done.stdout.splitlines()]


def on_a_terminal(warm: Warm, synced: Synced, *words: str, columns: int = 80) -> str:
    """Return what a command prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    env = environment(
        CALLFLOW_CONFIG=str(synced.config), COLUMNS=str(columns), TERM="dumb", NO_COLOR="1"
    )
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side has closed
                return
            if not part:
                return
            seen.extend(part)

    reader = threading.Thread(target=read)
    with warm.start(words, env=env, stdout=theirs, stderr=theirs) as command:
        os.close(theirs)
        reader.start()
        assert command.wait(60) == 0
        reader.join()
    os.close(ours)
    return seen.decode().replace("\r\n", "\n")


# --- changes -------------------------------------------------------------------------------------
def test_changes_say_who_changed_what_newest_first(cli: Cli, synced: Synced) -> None:
    done = cli("changes")
    assert (done.returncode, done.stderr) == (0, "")
    groups = re.split(r"(?m)^(?=\S)", done.stdout)[1:]
    (renamed,) = (each for each in groups if "Größe & Maß" in each)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d zoom_demo  Größe & Maß\n"
        r"    by u-anna, made \d{4}-\d\d-\d\d \d\d:\d\d\n"
        r"    name: \"[^\"]+\" → \"Größe & Maß\"\n",
        renamed,
    )
    assert any("by u-ben" in each and "\n    saved; the data do not" in each for each in groups)
    assert any(
        synced.gone_name in each and each.endswith("\n    the flow is gone\n") for each in groups
    )
    times = [each[:16] for each in groups]
    assert times == sorted(times, reverse=True)


def test_changes_as_json_are_the_rows_of_the_view(cli: Cli, synced: Synced) -> None:
    found = objects(cli("changes", "--json"))
    rows = ask(synced.url, "SELECT row_to_json(c) FROM callflow.changes AS c")
    assert len(found) == len(rows) > 5
    assert {tuple(row) for row in found} == {tuple(row) for (row,) in rows}  # the same columns
    key = ("source", "flow_id", "entity", "entity_id", "field", "old_value", "new_value")
    assert {tuple(r[k] for k in key) for r in found} == {tuple(r[k] for k in key) for (r,) in rows}
    seen = [datetime.fromisoformat(row["observed_at"]) for row in found]
    assert all(first >= second for first, second in pairwise(seen))


@pytest.mark.slow
def test_changes_are_narrowed_by_source_flow_editor_and_time(cli: Cli, synced: Synced) -> None:
    def of(*words: str) -> set[tuple[str, str | None]]:
        found = objects(cli("changes", "--json", *words))
        return {(row["flow_id"], row["modified_by"]) for row in found}

    assert of("zoom_demo", "--by", "U-Anna") == {(synced.renamed, "u-anna")}
    assert of("--flow", "größe") == {(synced.renamed, "u-anna")}
    assert of("--flow", synced.gone, "--since", "1h") == {(synced.gone, None)}
    assert {flow for flow, _ in of("zoom_demo")} == {synced.renamed, synced.saved, synced.gone}
    assert of("--since", "2020-01-01") == of("--since", "9999w") == of()
    assert of("--since", "2999-01-01") == of("twilio_demo") == set()
    done = cli("changes", "--limit", "1")
    assert done.stderr == "note: there are more than 1 changes; --limit shows more of them\n"
    done = cli("changes", "--by", "u-ana")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no change then was made by u-ana → did you mean u-anna?" in done.stderr
    assert "No change since 2999-01-01 00:00 UTC." in cli("changes", "--since", "2999-01-01").stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["changes", "zoom_dem"], "nothing of a source 'zoom_dem' → did you mean zoom_demo?"),
        (["changes", "--since", "soon"], "--since: 'soon' cannot be read → expected a date, or a"),
        (["changes", "--since", "0d"], "or how long ago: 12h, 7d"),
        (["changes", "--flow", "no such thing"], "no flow has the id 'no such thing'"),
        (["show", ""], "no flow has the id ''"),
        (["show", "größe", "--source", "alibaba_demo"], "no flow in alibaba_demo has the id"),
        (["show", "größe", "--source", HOSTILE], "the warehouse has nothing of a source"),
        (["show", "größe", "--at", "2020-01-01"], "callflow did not know Größe & Maß at that"),
        (["show", "größe", "--svg", "x.svg"], "no steps of this flow, so there is nothing to"),
        (["show", HOSTILE, "--source", "zoom_demo"], "no flow in zoom_demo has the id"),
        (["diff", "größe", "--from", "1h", "--to", "2h"], "diff: .* UTC is not before .* UTC →"),
        (["diff", "größe", "--to", "never"], "--to: 'never' cannot be read"),
        (["export", "x", "--at", "never"], "--at: 'never' cannot be read"),
        (["export", "."], ".: already exists and is not empty; it was not changed → name another"),
        (["export", "no/such/place"], "cannot be written: No such file or directory → "),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_expected(
    cli: Cli, words: list[str], said: str
) -> None:
    done = cli(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(said, done.stderr), done.stderr


@pytest.mark.slow
def test_what_is_printed_fits_a_terminal_and_is_harmless(warm: Warm, synced: Synced) -> None:
    for words in (["changes"], ["show", synced.hostile], ["diff", synced.hostile]):
        shown = on_a_terminal(warm, synced, *words)
        harmless(shown)
        assert "␛[31m" in shown
        assert max(map(flow_width, shown.splitlines())) <= 80, shown
        harmless(on_a_terminal(warm, synced, *words, "--json"))


def flow_width(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line)


def test_a_change_of_a_long_text_shows_where_it_differs() -> None:
    row: dict[str, Any] = {
        "entity": "step", "entity_name": "Greeting", "entity_id": "s", "change": "updated",
        "field": "properties.say", "old_value": "a" * 100 + "old", "new_value": "a" * 100 + "new",
    }  # fmt: skip
    start = "step Greeting: properties.say: "
    end = f'"…{"a" * 20}old" → "…{"a" * 20}new"'
    assert change_line(row) == start + end
    row |= {"old_value": None, "new_value": "", "entity": "flow", "field": "description"}
    assert change_line(row) == 'description: nothing → ""'
    row |= {"change": "restored"}
    assert change_line(row) == "the flow is there again"


# --- which flow is meant -------------------------------------------------------------------------
@pytest.fixture
def named(engine: Engine) -> Engine:
    """Return a warehouse with some flows of Zoom and Alibaba."""
    with engine.begin() as connection:
        for flow_id, name, old in (
            ("a1", "Billing", "Accounts"), ("a2", "billing", None), ("a3", "Billing EU", None),
            ("a4", "ÜBER uns", None), ("a5", "a1", None), ("a6", None, None), ("100%", "1_%", None),
        ):  # fmt: skip
            _insert(connection, "zoom.flows", flow_id, name, "2026-02-01", None)
            if old:
                _insert(connection, "history.zoom_flows", flow_id, old, "2026-01-01", "2026-02-01")
        _insert(connection, "history.zoom_flows", "gone", "Billing", "2026-01-01", "2026-02-01")
        _insert(connection, "history.zoom_flows", "gone2", "Closed", "2026-01-01", "2026-02-01")
        connection.exec_driver_sql("""
            INSERT INTO alibaba.contact_flows (source, instance_id, contact_flow_id, name,
                valid_from) VALUES ('ali', 'one', 'twin', 'Twin', now()),
                ('ali', 'two', 'twin', 'Twin', now()), ('ali', 'two', 'x/y', 'Slash', now())""")
    return engine


def _insert(
    connection: Any, table: str, flow_id: str, name: str | None, since: str, to: str | None
) -> None:
    ended = ", valid_to" if to else ""
    values = {"id": flow_id, "name": name, "since": since, "to": to}
    connection.execute(
        text(
            f"INSERT INTO {table} (source, flow_id, flow_name, valid_from{ended})"
            f" VALUES ('zoom', :id, :name, :since{', :to' if to else ''})"
        ),
        {key: value for key, value in values.items() if value is not None or key == "name"},
    )


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ("a1", ["zoom/a1"]),  # an id before a name
        ("zoom/a1", ["zoom/a1"]),
        ("gone", ["zoom/gone"]),
        ("Billing", ["zoom/a1"]),  # the same case before another, what is there before what is gone
        ("BILLING", ["zoom/a1", "zoom/a2"]),
        ("eu", ["zoom/a3"]),
        ("über", ["zoom/a4"]),
        ("closed", ["zoom/gone2"]),
        ("accounts", ["zoom/a1"]),  # what it was once called
        ("twin", ["ali/one/twin", "ali/two/twin"]),
        ("ali/two/twin", ["ali/two/twin"]),
        ("two/twin", []),
        ("x/y", ["ali/two/x/y"]),
        ("100%", ["zoom/100%"]),
        ("_", ["zoom/100%"]),  # no pattern
        ("%", ["zoom/100%"]),
        ("'", []),
        ("nothing", []),
        ("", []),
        (" ", []),
    ],
)
def test_a_flow_is_found_by_id_key_name_or_part_of_it(
    named: Engine, wanted: str, keys: list[str]
) -> None:
    with flows.snapshot(named, Redactor(), "test") as connection:
        assert [flow.key for flow in flows.find(connection, wanted)] == keys
        if keys and wanted != "ali/two/twin":
            source = keys[0].partition("/")[0]
            assert [flow.key for flow in flows.find(connection, wanted, source)] == keys
            assert flows.find(connection, wanted, "other") == []


@pytest.mark.slow
def test_flows_that_may_be_meant_are_listed(cli: Cli, synced: Synced) -> None:
    done = cli("show", synced.twin)
    assert (done.returncode, done.stdout) == (2, "")
    first, *listed = done.stderr.splitlines()
    assert first.startswith(f"callflow: show: '{synced.twin}' can mean 2 flows → give one of these")
    keys = [line.split()[0] for line in listed]
    assert keys == [f"alibaba_demo/{name}/{synced.twin}" for name in sorted(synced.instances)]
    for key in keys:
        (found,) = objects(cli("show", key, "--json"))
        assert found["flow_key"] == key
    done = cli("diff", "e")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 + 30 + 1
    assert re.search(r"\n  and \d+ more\n$", done.stderr)


# --- show ----------------------------------------------------------------------------------------
def test_show_prints_everything_about_a_flow(cli: Cli, synced: Synced) -> None:
    done = cli("show", synced.dead_end)
    assert (done.returncode, done.stderr) == (0, "")
    for expected in (
        rf"\n  source      alibaba_demo \(alibaba\), account {synced.instances[0]}\n",
        rf"\n  id          {synced.dead_end}\n",
        r"\n  status      published, live\n",
        r"\nEntry points\n  phone     \+\d+\n",
        r"\nFindings\n  dead end at .+; since \d{4}-\d\d-\d\d \d\d:\d\d UTC, .+\n",
        r"\nSteps\n┌─+┐\n│ +1 INCOMING_CALL +│\n",
    ):
        assert re.search(expected, done.stdout), expected
    assert all(flow_width(line) <= 80 for line in done.stdout.splitlines())
    done = cli("show", "GRÖSSE & MASS")
    assert "\nVersions\n   " in done.stdout
    assert done.stdout.startswith("Größe & Maß\n  source      zoom_demo (zoom)\n")
    assert done.stdout.endswith("\nThe warehouse holds no steps of this flow.\n")


def test_show_as_json_is_one_object(cli: Cli, synced: Synced) -> None:
    (found,) = objects(cli("show", synced.hostile, "--json"))
    assert found["name"] == HOSTILE
    assert found["gone_at"] is None
    assert found["entry_points"][0]["address"] == "+442079460123"
    assert HOSTILE in [step["name"] for step in found["steps"]]
    assert {"finding": "unreachable"}.items() <= found["findings"][0].items()
    assert {"step_id", "event", "next_step_id"} <= set(found["links"][0])


def test_masked_output_has_no_number(cli: Cli, synced: Synced) -> None:
    for words in ([], ["--json"]):
        done = cli("show", synced.hostile, "--mask", *words)
        assert "…23" in done.stdout
        assert "…45" in done.stdout  # of the step whose name and settings have SPOKEN
        for hidden in ("2079460", SPOKEN, "5550145"):
            assert hidden not in done.stdout
    (found,) = objects(done)
    (settings,) = [step["properties"] for step in found["steps"] if "…45" in step["name"]]
    shown = json.loads(settings)
    assert shown["say"] == ["call …45", 7, "…45"]
    assert SPOKEN in cli("show", synced.hostile, "--json").stdout


def test_texts_of_every_kind_are_masked_and_ids_are_not() -> None:
    number, empty = "+1 212 5550145", None
    row = {"name": number, "description": number, "detail": number, "event": number}
    row |= {"step_id": "s2125550145", "flow_id": "2125550145", "properties": f'["{number}"]'}
    of = flows.Content(row, None, [], [row], [row], [row], [row])
    found = masked(of)
    assert (found.flow["name"], found.flow["description"]) == ("…45", "…45")
    assert found.versions[0]["description"] == found.findings[0]["detail"] == "…45"
    assert (found.steps[0]["name"], found.steps[0]["properties"]) == ("…45", '["…45"]')
    assert found.links[0]["event"] == "…45"
    assert found.flow["flow_id"] == row["flow_id"]
    assert found.steps[0]["step_id"] == found.findings[0]["step_id"] == row["step_id"]
    nothing = dict.fromkeys(row, empty)
    of = flows.Content(nothing, None, [], [nothing], [nothing], [nothing], [nothing])
    assert masked(of) == of


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ('{"say": "1234567", "n": 1234567, "t": 30}', '{"say": "…67", "n": "…67", "t": 30}'),
        ('{"5550145": [true, null, -1.5e+3]}', '{"…45": [true, null, -1.5e+3]}'),
        (r'["\u0031234567", "a\"1234567"]', r'["…67", "a\"…67"]'),
        ("1234567", '"…67"'),
        ('"\\ud83d\\ude00"', '"\\ud83d\\ude00"'),
        ("[1234, 5678901]", '[1234, "…01"]'),
    ],
)
def test_settings_stay_json_when_they_are_masked(settings: str, shown: str) -> None:
    row = {"name": None, "properties": settings}
    of = flows.Content({"name": None, "description": None}, None, [], [], [], [row], [])
    (step,) = masked(of).steps
    assert step["properties"] == shown
    json.loads(shown)


def test_a_flow_that_is_gone_shows_its_last_content(cli: Cli, synced: Synced) -> None:
    done = cli("show", synced.gone)
    assert (done.returncode, done.stderr) == (0, "")
    name, gone, *_ = done.stdout.splitlines()
    assert name == synced.gone_name
    assert re.fullmatch(
        r"  It is gone: callflow saw that at \S+ \S+ UTC\. This is its last content\.", gone
    )
    (found,) = objects(cli("show", synced.gone, "--json"))
    ((at, count),) = ask(
        synced.url,
        "SELECT valid_to, (SELECT count(*) FROM callflow.flow_versions_history WHERE flow_id = %s)"
        " FROM callflow.flows_history WHERE flow_id = %s",
        synced.gone,
        synced.gone,
    )
    assert datetime.fromisoformat(found["gone_at"]) == at
    assert len(found["versions"]) == count > 0
    assert found["entry_points"]
    before = (at - timedelta(microseconds=1)).isoformat()
    (then,) = objects(cli("show", synced.gone, "--json", "--at", before))
    assert then["gone_at"] is None
    assert {**then, "gone_at": found["gone_at"]} == found


@pytest.mark.slow
def test_show_answers_as_of_a_moment(cli: Cli, synced: Synced) -> None:
    ((first, second),) = ask(
        synced.url,
        "SELECT min(valid_from), max(valid_from) FROM callflow.flows_history WHERE flow_id = %s",
        synced.hostile,
    )
    assert first < second
    for at, name in ((first, False), (second, True), (second + timedelta(days=999), True)):
        (found,) = objects(cli("show", synced.hostile, "--json", "--at", at.isoformat()))
        assert (found["name"] == HOSTILE, found["entry_points"] != []) == (name, name)
        assert (HOSTILE in [step["name"] for step in found["steps"]]) == name
    early = (first - timedelta(microseconds=1)).isoformat()
    assert cli("show", synced.hostile, "--at", early).returncode == 2


@pytest.mark.slow
def test_pictures_are_written_whole_and_never_over_a_file(
    cli: Cli, synced: Synced, tmp_path: Path
) -> None:
    pytest.importorskip("pygraphviz", exc_type=ImportError)
    svg, html = tmp_path / "flow.svg", tmp_path / "flow.html"
    done = cli("show", synced.hostile, "--svg", "flow.svg", "--html", "flow.html", "--mask")
    assert (done.returncode, done.stderr) == (0, "note: wrote flow.svg\nnote: wrote flow.html\n")
    for file in (svg, html):
        content = file.read_text(encoding="utf-8")
        assert "<script" not in content
        assert "alert(1)" in content
        assert "2079460" not in content
        assert "Call …45" in content
        assert SPOKEN not in content
        harmless(content)
    before = html.read_bytes()
    done = cli("show", synced.hostile, "--html", "flow.html")
    assert (done.returncode, done.stdout) == (2, "")
    assert "flow.html: already exists; it was not changed" in done.stderr
    assert html.read_bytes() == before
    for other in ("flow.html", "nowhere/flow.html", "new.svg"):
        done = cli("show", synced.hostile, "--svg", "new.svg", "--html", other)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{other}: " in done.stderr
        assert sorted(each.name for each in tmp_path.iterdir()) == ["flow.html", "flow.svg"]
    assert html.read_bytes() == before


# --- diff ----------------------------------------------------------------------------------------
def test_diff_starts_before_the_last_change(cli: Cli, synced: Synced) -> None:
    done = cli("diff", "größe")
    assert re.fullmatch(
        r"zoom_demo  Größe & Maß: from \S+ \S+ UTC to now\n"
        r"    name: \"[^\"]+\" → \"Größe & Maß\"\n",
        done.stdout,
    )
    (found,) = objects(cli("diff", "größe", "--json"))
    (expected,) = objects(cli("changes", "--json", "--flow", "größe"))
    assert found == expected
    assert cli("diff", synced.gone).stdout.endswith("\n    the flow is gone\n")
    assert {row["flow_key"] for row in objects(cli("diff", synced.hostile, "--json"))} == {
        f"alibaba_demo/{synced.instances[0]}/{synced.hostile}"
    }


@pytest.mark.slow
def test_diff_between_two_moments(cli: Cli, synced: Synced) -> None:
    """Before callflow knew a flow, there was none: so it is new, and not there again."""
    assert cli("diff", "größe", "--from", "1h").stdout.endswith("\n    the flow is new\n")
    assert cli("diff", "größe", "--from", "2h", "--to", "1h").stdout.endswith("no difference\n")
    assert objects(cli("diff", "größe", "--from", "2h", "--to", "1h", "--json")) == []
    for name in synced.instances:
        key = f"alibaba_demo/{name}/{synced.twin}"
        (found,) = objects(cli("diff", key, "--from", "1h", "--json"))
        assert (found["flow_key"], found["change"]) == (key, "created")
    unchanged = f"alibaba_demo/{synced.instances[0]}/{synced.dead_end}"
    assert cli("diff", unchanged).stdout.endswith(": no change of it is recorded.\n")


def test_a_time_long_ago_is_the_first_one_there_is() -> None:
    now = datetime(2026, 11, 27, 12, tzinfo=UTC)
    assert resolved(timedelta(days=7), now) == now - timedelta(days=7)
    assert resolved(timedelta(weeks=999_999 // 7), now) == datetime(1, 1, 2, tzinfo=UTC)
    assert resolved(None, now) == now


# --- export --------------------------------------------------------------------------------------
def files(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


@pytest.mark.slow
def test_export_writes_each_view_as_csv(cli: Cli, synced: Synced, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # an empty one is filled
    done = cli("export", "out")
    assert (done.returncode, done.stderr.startswith("Wrote ")) == (0, True)
    wanted = [name for name in views() if not name.endswith("_history")]
    assert "flows" in wanted
    assert files(tmp_path) == ["out"]
    assert files(tmp_path / "out") == sorted(f"{name}.csv" for name in wanted)
    for name in ("flows", "changes", "flow_steps"):
        copy = f"COPY (SELECT * FROM callflow.{name}) TO STDOUT (FORMAT csv, HEADER)"
        with psycopg.connect(dsn(synced.url)) as connection:
            connection.execute("SET timezone = 'UTC'")
            with connection.cursor().copy(copy.encode()) as copied:
                expected = b"".join(bytes(each) for each in copied)
        assert (tmp_path / "out" / f"{name}.csv").read_bytes() == expected
        with (tmp_path / "out" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            count = len(list(csv.reader(file))) - 1
        assert re.search(rf"(?m)^{name}\.csv +{count} rows?$", done.stdout)


@pytest.mark.slow
def test_export_as_of_a_moment_with_history_as_json(
    cli: Cli, synced: Synced, tmp_path: Path
) -> None:
    done = cli("export", "out", "--at", "2020-01-01", "--history", "--json")
    counts = {each["file"]: each["rows"] for each in objects(done)}
    assert set(counts) == {f"{name}.csv" for name in views()}
    assert (counts["flows.csv"], counts["channels.csv"]) == (0, 0)
    assert counts["flows_history.csv"] > 0


@pytest.mark.slow
def test_export_as_parquet_keeps_types_and_null(cli: Cli, synced: Synced, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    assert cli("export", "out", "--format", "parquet").returncode == 0
    for name in ("flows", "freshness", "flow_step_properties"):
        found = parquet.read_table(tmp_path / "out" / f"{name}.parquet")
        kinds = {column.name: str(column.type) for column in found.schema}
        rows = found.to_pylist()
        with psycopg.connect(dsn(synced.url)) as connection:
            cursor = connection.execute(f"SELECT * FROM callflow.{name}".encode())
            names = [column.name for column in cursor.description or ()]
            expected = [dict(zip(names, row, strict=True)) for row in cursor]
        stable = [n for n in names if n != "age_seconds"]

        def key(row: dict[str, Any], stable: list[str] = stable) -> str:
            return repr([
                each.astimezone(UTC) if isinstance(each := row[n], datetime) else each
                for n in stable
            ])  # fmt: skip

        assert sorted(map(key, rows)) == sorted(map(key, expected))
    assert kinds["value"] == "string"
    types = parquet.read_schema(tmp_path / "out" / "flows.parquet")
    assert str(types.field("modified_at").type) == "timestamp[us, tz=UTC]"
    assert str(types.field("is_live").type) == "bool"
    assert str(types.field("newest_version").type) == "int32"


@pytest.mark.slow
def test_an_export_that_fails_leaves_nothing(cli: Cli, synced: Synced, tmp_path: Path) -> None:
    """A role that may read all views but the last."""
    role = f"half_{os.getpid()}"
    url = re.sub("//.*@", f"//{role}:h@", dsn(synced.url))
    with psycopg.connect(dsn(synced.url), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'h'".encode())
        try:
            assert cli("grant", role).returncode == 0
            done = cli("export", "out", CALLFLOW_WAREHOUSE__READ_URL=url)
            assert done.returncode == 0, done
            for words in (["changes"], ["show", "größe"], ["diff", "größe"]):
                done = cli(*words, CALLFLOW_WAREHOUSE__READ_URL=url)
                assert (done.returncode, done.stderr) == (0, "")
            admin.execute(f"REVOKE SELECT ON callflow.{views()[-1]} FROM {role}".encode())
            done = cli("export", "late", CALLFLOW_WAREHOUSE__READ_URL=url)
            assert (done.returncode, done.stdout) == (1, "")
            assert "permission denied" in done.stderr
            assert files(tmp_path) == ["out"]
        finally:
            admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.mark.slow
def test_without_pyarrow_the_error_says_what_to_install(synced: Synced, tmp_path: Path) -> None:
    """A Python that has all packages of this one but that."""
    for each in Path(psycopg.__file__).parents[1].iterdir():
        if not each.name.startswith("pyarrow"):
            (tmp_path / each.name).symlink_to(each)
    root = Path(__file__).parents[1]
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(root)!r}]\n"
        f"sys.argv[1:] = ['export', '{tmp_path}/out', '--format', 'parquet']\n"
        "from etl.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment(CALLFLOW_CONFIG=str(synced.config)),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "callflow: export: pyarrow is not installed → pip install '/path/to/callflow[parquet]',"
        " or take --format csv\n"
    )
    assert not (tmp_path / "out").exists()


# --- what the daemon's pages show ----------------------------------------------------------------
@pytest.fixture
def of_world(synced: Synced) -> Iterator[Engine]:
    engine = connect(synced.url)
    try:
        yield engine
    finally:
        engine.dispose()


def test_a_source_has_its_flows_its_changes_and_what_is_gone(
    of_world: Engine, synced: Synced
) -> None:
    zoom = flows.of_source(of_world, "zoom_demo", Redactor())
    ids = {row["flow_id"]: row for row in zoom.flows}
    assert (len(ids), ids[synced.renamed]["name"]) == (59, "Größe & Maß")
    assert [(row["flow_id"], row["name"]) for row in zoom.gone] == [(synced.gone, synced.gone_name)]
    assert {row["flow_id"] for row in zoom.changes} == {synced.renamed, synced.saved, synced.gone}
    ali = flows.of_source(of_world, "alibaba_demo", Redactor())
    assert {row["source"] for row in ali.changes} == {"alibaba_demo"}
    key = f"alibaba_demo/{synced.instances[0]}/{synced.dead_end}"
    assert ali.faults[key] == 1
    with of_world.begin() as connection:
        query = text("SELECT flow_key FROM callflow.flow_findings WHERE finding = 'loop'")
        looped = set(connection.execute(query).scalars())
    assert looped
    assert not looped & set(ali.faults)


@pytest.mark.parametrize("source", ["nope", "", "\0", "zoom_demo'; --"])
def test_a_source_that_is_not_known_has_nothing(of_world: Engine, source: str) -> None:
    assert flows.of_source(of_world, source, Redactor()) == flows.SourceFlows([], [], [], {})


def test_a_flow_is_found_by_its_key_and_by_nothing_else(of_world: Engine, synced: Synced) -> None:
    one, other = (f"alibaba_demo/{instance}/{synced.twin}" for instance in synced.instances)
    found = [flows.story(of_world, key, Redactor()) for key in (one, other)]
    assert [each and each.content.flow["flow_key"] for each in found] == [one, other]
    for key in (synced.twin, f"alibaba_demo/{synced.twin}", f"{one}/", f"x/{one}", "", "/", "\0",
                "/" * 60_000):  # fmt: skip
        assert flows.story(of_world, key, Redactor()) is None, key


def test_a_flow_whose_id_has_slashes_is_found(named: Engine) -> None:
    found = flows.story(named, "ali/two/x/y", Redactor())
    assert found is not None
    assert (found.flow.account_id, found.flow.flow_id) == ("two", "x/y")


def test_a_flow_that_is_gone_has_its_last_content_and_the_change_that_says_so(
    of_world: Engine, synced: Synced
) -> None:
    found = flows.story(of_world, f"zoom_demo/{synced.gone}", Redactor())
    assert found is not None
    assert found.content.flow["name"] == synced.gone_name
    assert [row["change"] for row in found.changes] == ["deleted"]
    assert found.content.gone_at == found.changes[0]["observed_at"]
    assert found.content.versions


def test_the_newest_changes_of_a_source_come_however_old_they_are(named: Engine) -> None:
    with named.begin() as connection:
        connection.exec_driver_sql("""
            INSERT INTO history.changes (source, provider, flow_id, entity, observed_at, change)
            SELECT CASE WHEN n > 400 THEN 'old' ELSE 'new' END, 'zoom', 'a1', 'flow',
                now() - n * interval '1 day', 'created' FROM generate_series(1, 410) AS n""")
    for source, count in (("old", 10), ("new", flows.MOST_CHANGES)):
        found = flows.of_source(named, source, Redactor()).changes
        times = [row["observed_at"] for row in found]
        assert (len(times), times) == (count, sorted(times, reverse=True))
        assert datetime.now(UTC) - times[0] < timedelta(days=2 if source == "new" else 402)


@pytest.mark.slow
def test_a_page_waits_for_no_lock_longer_than_a_few_seconds(named: Engine) -> None:
    with named.begin() as other:
        other.exec_driver_sql("LOCK TABLE zoom.flows IN ACCESS EXCLUSIVE MODE")
        for ask in (lambda: flows.of_source(named, "zoom", Redactor()),
                    lambda: flows.story(named, "zoom/a1", Redactor())):  # fmt: skip
            with pytest.raises(WarehouseError):
                ask()

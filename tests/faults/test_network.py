"""What no single module answers for: open files, arguments, names, and what is never unpickled."""

import ast
import json
import re
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest
import typer
from apscheduler.jobstores.memory import MemoryJobStore

from etl.commands.cli import app
from etl.config import load as config
from etl.daemon import schedule
from etl.errors import ConfigError
from etl.sandbox.wire import serving
from tests.extract.scripted import Script

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

HUNGRY = """
import os, resource, sys
from etl.errors import CallflowError
from etl.extract.http import Http, Seam
from etl.extract.verdict import judge_status
url = sys.argv[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
except OSError:
    pass
try:
    seam = Seam("demo.stream", sleep=lambda _: None)
    with Http(url, seam, sign=lambda *_: {}, judge=judge_status) as http:
        http.call("GET", "/")
except CallflowError as error:
    print(error)
"""


@pytest.mark.fault(63)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_running_out_of_file_descriptors_is_reported_as_that(scheme: str) -> None:
    with serving(Script({})) as url:
        done = subprocess.run(
            [sys.executable, "-c", HUNGRY, url.replace("http", scheme)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    assert "Too many open files" in done.stdout, done.stdout + done.stderr
    assert "raise the limit of open files (ulimit -n)" in done.stdout
    assert not done.stderr


@pytest.mark.fault(69)
def test_no_command_takes_a_secret_as_an_argument() -> None:
    commands = typer.main.get_command(app)
    names = {
        option
        for command in vars(commands)["commands"].values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert {"--config", "--full"} <= names
    for name in names:
        assert not re.search("secret|password|token|url|key|proxy", name), name


@pytest.mark.fault(73)
@pytest.mark.parametrize(
    "name",
    ['a"; DROP TABLE x; --', "a.b", "a b", "A", "ä", "1a", "_a", "a-b", "a'b", "%s", "", 41 * "a"],
)
def test_a_source_whose_name_is_no_plain_name_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "callflow.toml"
    path.write_text(f'[sources.{json.dumps(name, ensure_ascii=False)}]\nprovider = "zoom"\n')
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"a name of at most 40 characters \(a-z, 0-9, _\)"):
        config.load(path, {})


@pytest.mark.fault(74)
def test_nothing_is_read_that_could_run_code() -> None:
    """There are no YAML tags, no pickles, and no job store that would unpickle."""
    loaders = {"yaml", "pickle", "cloudpickle", "shelve", "marshal", "dill", "jsonpickle"}
    for path in (ROOT / "etl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not loaders & {name.partition(".")[0] for name in names}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path

    def submit(source: str, late: float) -> Future[None]:
        raise AssertionError("no source is due in a paused scheduler")

    made = schedule.scheduler(submit, lambda source: None)
    made.start(paused=True)
    try:
        made.add_job(print, id="x", trigger="interval", hours=1)
        stores = made._jobstores
        assert [type(store) for store in stores.values()] == [MemoryJobStore]
    finally:
        made.shutdown(wait=False)

"""examples/dbt: dbt itself runs it, as a role that `callflow grant` made, where there is a dbt.

It is no dependency of ours: CALLFLOW_DBT names the program of an environment that has it
(pip install 'dbt-core<1.12' dbt-postgres).
"""

import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from etl.warehouse import grant
from etl.warehouse.connect import connect
from tests.bi import EXAMPLES, fill
from tests.postgres import ask, dsn

DBT = os.environ.get("CALLFLOW_DBT", "")

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(not DBT, reason="CALLFLOW_DBT names no program dbt"),
]

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def analyst(warehouse: str) -> Iterator[str]:
    """Yield a role that may read the warehouse and write to its own schema `analytics`."""
    name = f"analyst_{secrets.token_hex(4)}"
    engine = connect(warehouse)
    with psycopg.connect(dsn(warehouse), autocommit=True) as connection:
        role = sql.Identifier(name)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'a'").format(role))
        connection.execute(sql.SQL("CREATE SCHEMA analytics AUTHORIZATION {}").format(role))
        try:
            with engine.begin() as granting:
                assert grant.grant(granting, name).reads
            yield name
        finally:
            engine.dispose()
            connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.fixture
def dbt(warehouse: str, analyst: str, tmp_path: Path) -> Run:
    """Return a function that runs dbt on a copy of the example: its exit code and its log."""
    project = tmp_path / "dbt"
    shutil.copytree(EXAMPLES / "dbt", project)
    url = make_url(warehouse)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PGHOST": url.host or "",
        "PGPORT": str(url.port),
        "PGDATABASE": url.database or "",
        "PGUSER": analyst,
        "PGPASSWORD": "a",
        "DBT_PROFILES_DIR": str(project),
    }

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [DBT, "--no-use-colors", "--warn-error", *words],
            env=env, cwd=project, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return run


def test_dbt_builds_tests_and_documents_it_without_a_warning(
    dbt: Run, warehouse: str, tmp_path: Path
) -> None:
    fill(warehouse, tmp_path)
    for words in (("source", "freshness"), ("run",), ("test",), ("docs", "generate")):
        code, log = dbt(*words)
        assert (code, re.findall(r"WARN(?:ING| )", log)) == (0, []), log
    ((rows,),) = ask(warehouse, "SELECT count(*) FROM analytics.live_numbers")
    assert rows > 5
    manifest = json.loads((tmp_path / "dbt/target/manifest.json").read_text(encoding="utf-8"))
    catalog = json.loads((tmp_path / "dbt/target/catalog.json").read_text(encoding="utf-8"))
    for found in (manifest["sources"], {**manifest["nodes"]}):
        for name, node in found.items():
            if node["resource_type"] in ("source", "model"):
                assert node["description"], name
    tables = {name: each for name, each in manifest["sources"].items() if each["columns"]}
    for name, each in tables.items():
        if not each["name"].endswith("_history"):
            assert {*each["columns"]} == {*catalog["sources"][name]["columns"]}, name


def test_freshness_sees_the_list_that_was_not_read_for_long(
    dbt: Run, warehouse: str, tmp_path: Path
) -> None:
    fill(warehouse, tmp_path)
    late = "UPDATE etl.streams SET last_success_at = {} WHERE stream = 'channels' RETURNING 1"
    asked = ("source", "freshness", "--select")
    never = ("NULL", "ERROR STALE", 1)
    for since, verdict, expected in (("now() - interval '3 hours'", "WARN", 0), never):
        assert ask(warehouse, late.format(since)) == [(1,)]
        code, log = dbt(*asked, "source:twilio.channels", "source:callflow.freshness")
        assert code == expected, log
        assert log.count(verdict + " freshness of") == 2, log
        assert dbt(*asked, "source:zoom", "source:alibaba")[0] == 0
    lenient = '{"callflow_warn_after_hours": 2000000, "callflow_error_after_hours": 2000000}'
    assert dbt("source", "freshness", "--vars", lenient)[0] == 0

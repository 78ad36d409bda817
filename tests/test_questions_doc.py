"""Every query of docs/questions.md runs on the data of `callflow demo`.

It returns rows, or the document explains why it does not.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from etl import api
from etl.sandbox import data
from etl.sandbox.server import serve
from etl.warehouse.embedded import find_binaries
from etl.warehouse.model.questions import QUESTIONS
from tests.docs import ROOT
from tests.postgres import Cluster, dsn

TEXT = (ROOT / "docs/questions.md").read_text(encoding="utf-8")

SECTION = re.compile(r"^### (.+?)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)

SECTIONS: list[tuple[str, str]] = SECTION.findall(TEXT)

EMPTY = "Empty in the sandbox: "


@pytest.fixture(scope="module")
def synced(
    clusters: Callable[[Path], Cluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Yield a warehouse that was synced from the sandbox, as in `callflow demo`, twice."""
    cluster = clusters(find_binaries(os.environ))
    with (
        cluster.database(template=cluster.migrated) as url,
        serve(data.Sizes(60, 500), seed=1) as sandbox,
    ):
        path: Path = tmp_path_factory.mktemp("synced") / "callflow.toml"
        path.write_text(f'[warehouse]\nurl = "{dsn(url)}"\n{sandbox.toml()}', encoding="utf-8")
        path.chmod(0o600)
        for _ in range(2):
            runs = [run for name in api.sources(path) for run in api.sync(name, path, full=True)]
            assert {run.status for run in runs} == {"complete"}
            for emulator in sandbox.emulators.values():
                emulator.change()
        yield url


def queries(body: str) -> list[str]:
    """Return the statements in the code blocks of a section."""
    found = re.findall(r"```sql\n(.*?)```", body, re.DOTALL)
    return [each.strip() for block in found for each in block.strip().rstrip(";").split(";\n")]


@pytest.mark.parametrize("title, body", SECTIONS, ids=[title for title, _ in SECTIONS])
def test_each_query_answers(synced: str, title: str, body: str) -> None:
    assert queries(body), f"{title}: no query"
    rows = []
    with psycopg.connect(dsn(synced)) as connection:
        for query in queries(body):
            cursor = connection.execute(query.encode())
            if cursor.description:
                rows += cursor.fetchall()
    assert bool(rows) != (EMPTY in body), rows or f"no rows; explain it with “{EMPTY}…”"


def test_every_question_is_in_the_document() -> None:
    assert [title for title, _ in SECTIONS][: len(QUESTIONS)] == [each.asked for each in QUESTIONS]


def test_what_was_never_live_is_no_answer_to_what_is_live_now(synced: str) -> None:
    (body,) = (body for title, body in SECTIONS if title.startswith("What is live now"))
    (query,) = queries(body)
    with psycopg.connect(dsn(synced)) as connection:
        rows = connection.execute(query.encode()).fetchall()
    assert {(bool(was), bool(live)) for *_, was, live in rows} <= {(True, False), (False, True)}

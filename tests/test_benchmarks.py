"""benchmarks/speed and docs/performance.md: what it reports is what it measured."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import chart, model, page
from benchmarks.speed.__main__ import PAGE, RESULTS
from benchmarks.speed.bench import Bench, measure_group
from benchmarks.speed.postgres import Server
from benchmarks.speed.results import Results, Run, mine, read
from benchmarks.speed.scenarios import Group, Step
from etl.warehouse import embedded
from tests.postgres import dsn

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_and_its_chart_are_what_was_measured() -> None:
    found = read(RESULTS / "runs.jsonl")
    assert page.written(PAGE.read_text("utf-8"), found) == PAGE.read_text("utf-8")
    assert chart.svg(found) == PAGE.with_suffix(".svg").read_text("utf-8")


def test_a_ratio_is_the_median_of_the_repetitions_that_measured_both() -> None:
    slow, fast = (1.0, 20.0, 3.0), (0.5, 2.0, None)
    found = Results(
        {},
        [
            {"group": "200k", "rows": 5, "tool": tool, "step": "first load", "repetition": n}
            | ({"error": "gone"} if wall is None else {"wall": wall})
            for tool, walls in (("bare", slow), ("callflow", fast))
            for n, wall in enumerate(walls)
        ],
    )
    bare, callflow = Run("200k", "bare", "first load"), mine("200k", "first load")
    assert found.ratio(bare, callflow) == 6.0  # of 2 and 10; the medians would give 2.4
    assert found.middle(callflow, "wall") == 1.25
    assert found.ratio(bare, callflow, "peak") is None
    assert [line["tool"] for line in found.failed] == ["callflow"]


def test_the_line_of_the_cost_model_is_exact_where_the_cost_is_linear() -> None:
    exact = model.line([(200_000, 3.0), (1_000_000, 11.0), (3_000_000, 31.0)])
    assert exact is not None
    assert exact == pytest.approx((1.0, 1e-5, 0.0), abs=1e-9)
    steep = model.line([(1, 1.0), (2, 3.0)])
    assert steep is not None
    assert steep.fixed == 0.0
    assert steep.off > 0.1
    assert model.line([(1, 1.0)]) is None


def test_a_page_from_a_trial_says_so() -> None:
    found = read(RESULTS / "runs.jsonl")
    trial = replace(found, machine={**found.machine, "scale": 0.01})
    assert "Only a trial" in page.described(trial)
    busy = replace(found, lines=[{**line, "others": 0.5} for line in found.lines])
    assert "not quiet" in page.described(busy)
    quiet = replace(busy, lines=[{**line, "others": 0.1} for line in found.lines])
    assert "not quiet" not in page.described(quiet)


def test_a_step_that_fails_ends_what_depends_on_it_and_nothing_else(
    postgres: embedded.Server, tmp_path: Path
) -> None:
    def python(code: str) -> Any:
        return lambda place, url: [sys.executable, "-c", code, url]

    write = "import psycopg, sys; psycopg.connect(sys.argv[1]).execute(" \
        "'CREATE TABLE t AS SELECT generate_series(1, 1000)').connection.commit()"  # fmt: skip
    steps = (
        Step("a", "fails", "bench_a", python("raise SystemExit('a reason')")),
        Step("a", "never", "bench_a", python("")),
        Step("b", "writes", "bench_b", python(write), check=lambda output: {"requests": 7}),
    )
    url = dsn(postgres.url("NAME")).replace("NAME", "{}")
    server = Server("test", url, postgres.pid)
    bench = Bench(tmp_path, server, server, None, tmp_path, postgres.pid, "")
    failed, wrote = measure_group(bench, Group("both", 3, steps))
    assert (failed["tool"], failed["step"]) == ("a", "fails")
    assert "a reason" in failed["error"]
    assert (wrote["step"], wrote["written"], wrote["requests"]) == ("writes", 1000, 7)
    assert wrote["wal"] > 1000
    assert wrote["disk"] >= 1000
    assert wrote["client_cpu"] > 0


GROUPS = ("start-up", "200k", "zoom", "alibaba", "eight")
"""Groups with each kind of step; the others are these with more rows, or slower."""


@pytest.mark.more
def test_the_whole_benchmark_runs_on_short_lists_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    results, target = tmp_path / "results", tmp_path / "page.md"
    target.write_text("".join(f"{page.begin(name)}\n{page.end(name)}\n" for name in page.PARTS))

    def bench(*more: str) -> list[str]:
        how = ["--scale", "0.001", "--repetitions", "1", "--only", *GROUPS]
        where = ["--results", str(results), "--page", str(target)]
        command = [sys.executable, "-m", "benchmarks.speed", *how, *where, *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    assert {line.partition(":")[0] for line in bench()} == {f"1/1 {name}" for name in GROUPS}
    assert "| zoom | 200 | callflow: nothing changed |" in target.read_text("utf-8")
    file = results / "runs.jsonl"
    lines = file.read_text("utf-8").splitlines(keepends=True)
    stopped = [line for line in lines if "zoom" not in line or "1 % changed" not in line]
    file.write_text("".join(stopped))
    again = bench("--resume")
    assert {line.partition(":")[0] for line in again} == {"1/1 zoom"}
    assert len(file.read_text("utf-8").splitlines()) == len(lines)

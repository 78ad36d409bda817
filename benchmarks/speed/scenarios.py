"""What is measured: groups of steps that share their lists and run one after the other.

A repetition runs every group once, so all tools of a group are measured within minutes of each
other. Each database of a group is new in each repetition.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed import lists
from benchmarks.speed.measure import StepError

BESIDE = Path(__file__).parent
UPDATED = b'"date_updated":"'
MODIFIED = b'"last_modified_time":"'

TUNED = {
    "NORMALIZE__WORKERS": "2",
    "LOAD__WORKERS": "4",
    "DATA_WRITER__BUFFER_MAX_ITEMS": "20000",
    "DATA_WRITER__FILE_MAX_ITEMS": "50000",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a group runs: its folder for files, the provider's URL, dlt's Python."""

    folder: Path
    provider: str
    dlt: Path | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A command to measure.

    `tool` and `name` say what it is; `database` is the one that it writes to, one of its group's.
    `changed` is the state of the list: every how many records are changed, and the digit that they
    get. `check` takes the output, returns counts to keep, and raises StepError.
    `held` is a query and what it must return when all is done; it is asked once, at the end,
    because it reads, and so tidies, whole tables. `most` is how many repetitions measure it.
    """

    tool: str
    name: str
    database: str
    command: Callable[[Place, str], list[str]]
    env: Callable[[Place, str], Mapping[str, str]] = lambda place, url: {}
    check: Callable[[str], dict[str, Any]] = lambda output: {}
    held: tuple[str, int] | None = None
    changed: tuple[int, bytes] | None = None
    most: int = 1_000


@dataclass(frozen=True, slots=True)
class Group:
    """Steps on one list of `rows` records.

    `records` is the folder of the list, and `make` fills it; `member` is where a record is
    changed, as `lists.change` takes it. `embedded`: on callflow's own server.
    """

    name: str
    rows: int
    steps: tuple[Step, ...]
    records: str = ""
    make: Callable[[Path], None] = lambda folder: None
    member: bytes = b""
    embedded: bool = False

    @property
    def databases(self) -> list[str]:
        """Those that its steps need: the one called callflow is migrated, the others are empty."""
        return list(dict.fromkeys(step.database for step in self.steps))


def callflow(config: str, *words: str) -> Callable[[Place, str], list[str]]:
    """Return a step's command: callflow with `config`, in which {provider} and {url} are filled."""

    def command(place: Place, url: str) -> list[str]:
        path = place.folder / "callflow.toml"
        warehouse = f'[warehouse]\nurl = "{url}"\n'
        path.write_text(warehouse + config.replace("{provider}", place.provider))
        path.chmod(0o600)
        return [sys.executable, "-m", "etl", *words, *(["-c", str(path)] if config else [])]

    return command


def completed(**expected: int) -> Callable[[str], dict[str, Any]]:
    """Return the check of `sync --json`: complete runs, whose counts summed up are as expected."""

    def check(output: str) -> dict[str, Any]:
        runs = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        counts = {
            name: sum(run[name] for run in runs)
            for name in ("requests", "records", "inserted", "updated", "unchanged")
        }
        wrong = {name: n for name, n in expected.items() if counts[name] != n}
        if not runs or wrong or any(run["status"] != "complete" for run in runs):
            raise StepError(f"expected {expected} of complete runs: {output[-1000:]}")
        return counts

    return check


# --- Twilio --------------------------------------------------------------------------------------
def twilio(name: str, base: str, more: str = "requests_per_second = 0") -> str:
    sid = f"AC{abs(hash_of(name)):032x}"
    return f"""
[sources.{name}]
provider = "twilio"
account_sid = "{sid}"
auth_token = "static"
base_url = "{{provider}}/{base}"
{more}
"""


def hash_of(name: str) -> int:
    return int.from_bytes(name.encode(), "big") % 16**32


def bare(base: str, *more: str) -> Callable[[Place, str], list[str]]:
    return lambda place, url: [
        sys.executable, str(BESIDE / "bare.py"), f"{place.provider}/{base}", url, *more
    ]  # fmt: skip


def channels(name: str, rows: int, *, peers: bool, slowest: int, embedded: bool = False) -> Group:
    """Return the steps with `rows` channels; those that change all run `slowest` times at most."""
    sync = callflow(twilio("bench", name), "sync", "bench.channels", "--full", "--json")
    first = [
        Step("bare", "first load", "bare", bare(name)),
        Step("callflow", "first load", "callflow", sync, check=completed(inserted=rows)),
        Step("callflow", "nothing changed", "callflow", sync, check=completed(unchanged=rows)),
    ]
    changed = [
        Step("callflow", "1 % changed", "callflow", sync, check=completed(updated=-(-rows // 100)),
             changed=(100, b"4")),
        Step("callflow", "all changed", "callflow", sync, check=completed(updated=rows),
             changed=(1, b"3"), most=slowest),
        Step("ON CONFLICT", "staged", "bare", bare(name, "stage"), changed=(1, b"3"), most=slowest),
        Step("ON CONFLICT", "all changed", "bare", bare(name, "upsert"), changed=(1, b"3"),
             most=slowest, held=("SELECT count(*) FROM channels", rows)),
    ]  # fmt: skip
    dlt = peer("channels", name, rows) if peers else []
    return Group(
        f"{name}, embedded" if embedded else name,
        rows,
        (*first, *dlt, *changed),
        name,
        make=lambda folder: lists.write(folder, lists.channels(rows)),
        member=UPDATED,
        embedded=embedded,
    )


def eight(rows: int) -> Group:
    """Return runs of eight accounts at once, each with `rows` channels."""
    config = "".join(twilio(f"account_{n}", "eight") for n in range(8))
    names = [f"account_{n}.channels" for n in range(8)]
    sync = callflow(config, "sync", *names, "--full", "--json")
    steps = (
        Step("callflow", "first load", "callflow", sync, check=completed(inserted=8 * rows)),
        Step("callflow", "nothing changed", "callflow", sync, check=completed(unchanged=8 * rows)),
    )
    return Group("eight", rows, steps, "eight", lambda at: lists.write(at, lists.channels(rows)))


def paced(rows: int) -> Group:
    """Return runs at callflow's default pace for Twilio, with answers that take 150 ms."""
    config = twilio("bench", "slow-150/paced", more="")
    sync = callflow(config, "sync", "bench.channels", "--full", "--json")
    steps = (
        Step("callflow", "first load", "callflow", sync, check=completed(inserted=rows), most=1),
        Step("callflow", "nothing changed", "callflow", sync, check=completed(unchanged=rows),
             most=1),
    )  # fmt: skip
    return Group("paced", rows, steps, "paced", lambda at: lists.write(at, lists.channels(rows)))


# --- Zoom, Alibaba -------------------------------------------------------------------------------
ZOOM = """
[sources.bench]
provider = "zoom"
account_id = "static"
client_id = "static"
client_secret = "static"
base_url = "{provider}/zoom/v2"
token_url = "{provider}/zoom/oauth/token"
requests_per_second = 0
"""


def zoom(rows: int, *, peers: bool) -> Group:
    """Return the steps with `rows` flows of 5 versions and 3 entry points each."""
    sync = callflow(ZOOM, "sync", "bench.flows", "--full", "--json")
    mine = (
        Step("callflow", "first load", "callflow", sync, check=completed(inserted=rows)),
        Step("callflow", "nothing changed", "callflow", sync, check=completed(unchanged=rows)),
    )
    dlt = peer("flows", "zoom", rows) if peers else []
    changed = Step("callflow", "1 % changed", "callflow", sync,
                   check=completed(updated=-(-rows // 100)), changed=(100, b"4"))  # fmt: skip
    steps = (*mine, *dlt, changed)

    def make(folder: Path) -> None:
        lists.write(folder, lists.zoom_flows(rows))

    return Group("zoom", rows, steps, "zoom", make, MODIFIED)


INSTANCES = ("ccc-0", "ccc-1")
ALIBABA = f"""
[sources.bench]
provider = "alibaba"
access_key_id = "static"
access_key_secret = "static"
instance_ids = {json.dumps(INSTANCES)}
base_url = "{{provider}}/alibaba"
requests_per_second = 0
"""


def alibaba(rows: int) -> Group:
    """Return the steps with `rows` contact flows with Definitions, in two instances."""
    sync = callflow(ALIBABA, "sync", "bench.contact_flows", "--full", "--json")
    each = rows // len(INSTANCES)
    total = each * len(INSTANCES)

    def make(folder: Path) -> None:
        for instance in INSTANCES:
            lists.write(folder / instance, lists.contact_flows(each, instance))

    steps = (
        Step("callflow", "first load", "callflow", sync, check=completed(inserted=total)),
        Step("callflow", "nothing changed", "callflow", sync, check=completed(unchanged=total)),
    )
    return Group("alibaba", total, steps, "alibaba", make)


# --- others --------------------------------------------------------------------------------------
def startup() -> Group:
    """Return the commands that do nothing but start; `status` also asks the database."""

    def fresh(place: Place, url: str) -> list[str]:
        (place.folder / "started.toml").unlink(missing_ok=True)
        return [sys.executable, "-m", "etl", "init", "started.toml"]

    status = callflow(twilio("bench", "eight"), "status")
    steps = (
        Step("callflow", "--help", "callflow", callflow("", "--help")),
        Step("callflow", "--version", "callflow", callflow("", "--version")),
        Step("callflow", "init", "callflow", fresh),
        Step("callflow", "status", "callflow", status),
    )
    return Group("start-up", 0, steps)


def peer(kind: str, name: str, rows: int) -> list[Step]:
    """Return dlt's steps with the list `name` of `rows` records."""

    def check(output: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        if found != {"records": rows}:
            raise StepError(f"expected {rows} records: {found}")
        return found

    steps = []
    for how in ("default", "tuned"):

        def command(place: Place, url: str, how: str = how) -> list[str]:
            folder = str(place.folder / f"dlt-{how}")
            script = str(BESIDE / "dlt_peer.py")
            return [str(place.dlt), script, kind, f"{place.provider}/{name}", folder, how]

        def env(place: Place, url: str, how: str = how) -> Mapping[str, str]:
            quiet = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(place.folder)}
            there = {"DESTINATION__POSTGRES__CREDENTIALS": url}
            return {**quiet, **there, **(TUNED if how == "tuned" else {})}

        tool, database, held = (
            f"dlt {how}",
            f"dlt_{how}",
            (f"SELECT count(*) FROM peer.{kind}", rows),
        )
        steps += [
            Step(tool, "first load", database, command, env=env, check=check),
            Step(tool, "nothing changed", database, command, env=env, check=check, held=held),
        ]
    return steps


def groups(scale: float, *, peers: bool) -> list[Group]:
    """Return all groups, in the order in which a repetition runs them."""

    def sized(rows: int) -> int:
        return max(200, round(rows * scale))

    return [
        startup(),
        channels("200k", sized(200_000), peers=peers, slowest=1_000),
        zoom(sized(20_000), peers=peers),
        alibaba(sized(18_000)),
        eight(sized(50_000)),
        channels("200k", sized(200_000), peers=False, slowest=1_000, embedded=True),
        channels("1m", sized(1_000_000), peers=False, slowest=1_000),
        channels("3m", sized(3_000_000), peers=False, slowest=1),
        paced(sized(200_000)),
    ]


QUICK = ("start-up", "200k", "zoom")

"""docker-compose.yml and the Dockerfile without a Docker engine: the schema, and real commands."""

import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from etl.commands import cli
from etl.config import load as config
from etl.config.settings import Daemon
from etl.providers.catalog import STREAMS
from etl.sandbox import server as sandbox
from etl.sandbox.data import EMPTY, Sizes
from tests.postgres import dsn

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
OURS = ("callflow", "sandbox", "demo")
DAEMONS = ("callflow", "demo")
"""Service of the real thing, and of the demo."""


def composed(**variables: str) -> Any:
    """Return docker-compose.yml with its ${VARIABLE:-default}s filled in."""
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: variables.get(found[1]) or found[2], TEXT)
    assert "$" not in re.sub("(?m)#.*$", "", text)
    return yaml.safe_load(text)


COMPOSE = composed()
SERVICES: Mapping[str, Any] = COMPOSE["services"]


def seconds(text: str) -> int:
    return sum(int(n) * {"s": 1, "m": 60}[unit] for n, unit in re.findall(r"(\d+)([sm])", text))


def files_of(service: str) -> set[str]:
    """Return the paths of the configs and secrets that a service mounts."""
    own = SERVICES[service]
    names = [COMPOSE["secrets"][name] for name in own.get("secrets", ())]
    names += [COMPOSE["configs"][entry["source"]] for entry in own.get("configs", ())]
    return {entry["file"] for entry in names}


# --- the file ------------------------------------------------------------------------------------
@pytest.mark.more
@pytest.mark.parametrize(
    ("slip", "code"),
    [({}, 0), ({"comand": ["sync"]}, 1), ({"init": 1}, 1), ({"ports": "8787"}, 1)],
    ids=repr,
)
def test_the_file_is_what_the_compose_specification_says(
    tmp_path: Path, slip: Mapping[str, Any], code: int
) -> None:
    services = {**SERVICES, "callflow": {**SERVICES["callflow"], **slip}}
    path = tmp_path / "docker-compose.yml"
    path.write_text(yaml.safe_dump({**COMPOSE, "services": services}), encoding="utf-8")
    # With its own copy of the schema: nothing is downloaded.
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert all(word in done.stdout for word in slip), done.stdout


def test_every_service_is_confined_supervised_and_open_to_this_machine_only() -> None:
    for name, service in SERVICES.items():
        assert service["init"] is True, name
        assert service["restart"] == "unless-stopped", name
        assert service["read_only"] is True, name
        assert "/tmp" in service["tmpfs"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"] == {"driver": "local"}, name
        assert service["healthcheck"]["test"][0] == "CMD", name
        for port in service.get("ports", ()):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), name
    for name in OURS:
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", SERVICES[name]["user"]), name
        assert SERVICES[name]["cap_drop"] == ["ALL"], name
        assert not SERVICES[name].keys() & {"cap_add", "privileged", "volumes"}, name
    assert composed(RUN_AS="501:20")["services"]["callflow"]["user"] == "501:20"


def test_a_daemon_may_end_by_itself_before_docker_kills_it() -> None:
    for name in DAEMONS:
        grace = seconds(SERVICES[name]["stop_grace_period"])
        assert grace > Daemon().stop_deadline.total_seconds(), name


def test_the_two_profiles_need_nothing_of_each_other() -> None:
    assert {tuple(service["profiles"]) for service in SERVICES.values()} == {("live",), ("demo",)}
    built = [service["image"] for service in SERVICES.values() if "build" in service]
    assert len(set(built)) == len(built) == 2  # one build for each image, or they race
    mounted: dict[str, set[str]] = {"live": set(), "demo": set()}
    for name, service in SERVICES.items():
        (profile,) = service["profiles"]
        mounted[profile] |= files_of(name)
        others = [*service.get("depends_on", ())]
        others += re.findall("^service:(.+)", service.get("network_mode", ""))
        assert [other for other in others if SERVICES[other]["profiles"] != [profile]] == []
    assert not mounted["live"] & mounted["demo"]
    assert {ROOT / path for path in mounted["demo"]} == {ROOT / "examples/demo/sandbox.toml"}
    assert all((ROOT / path).is_file() for path in mounted["demo"])
    # Everything that is declared is mounted: Compose would read unused files too.
    declared = [*COMPOSE["configs"].values(), *COMPOSE["secrets"].values()]
    assert {entry["file"] for entry in declared} == mounted["live"] | mounted["demo"]


def test_configs_and_secrets_are_files_because_the_root_is_read_only() -> None:
    for entry in [*COMPOSE["configs"].values(), *COMPOSE["secrets"].values()]:
        assert entry.keys() == {"file"}


def test_every_secret_of_the_real_thing_is_a_mounted_file() -> None:
    for name in ("warehouse", "callflow"):
        service = SERVICES[name]
        variables = service["environment"]
        given = [variable for variable in variables if variable.endswith("_FILE")]
        paths = {variables[variable] for variable in given}
        assert paths == {f"/run/secrets/{secret}" for secret in service["secrets"]}
        secret = re.compile("PASSWORD|TOKEN|SECRET|KEY|URL")
        assert [v for v in variables if secret.search(v)] == given


def test_the_header_explains_each_file_that_a_user_must_make() -> None:
    explained = TEXT[: TEXT.index("\nname:")]
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    wanted = re.findall(r"file: \./(\S+?)\}", TEXT)
    assert len(wanted) == 6
    for name in wanted:
        if name != "examples/demo/sandbox.toml":
            assert re.search(rf"(> |example\.toml ){re.escape(name)}\b", explained), name
            assert name.partition("/")[0] in (entry.rstrip("/") for entry in ignored), name


def test_the_published_port_is_the_one_that_the_daemon_listens_on_and_that_is_asked() -> None:
    for name in DAEMONS:
        service = SERVICES[name]
        _, _, port = service["environment"]["CALLFLOW_DAEMON__HTTP"].rpartition(":")
        owner = SERVICES["sandbox" if name == "demo" else name]  # the demo lives in its network
        assert [entry.rpartition(":")[2] for entry in owner["ports"]] == [port]
        assert f'"127.0.0.1", {port},' in service["healthcheck"]["test"][-1]
        assert '"/readyz"' in service["healthcheck"]["test"][-1]
    assert SERVICES["demo"]["network_mode"] == "service:sandbox"


# --- commands ------------------------------------------------------------------------------------
def dockerfile(instruction: str) -> Any:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    (last,) = re.findall(rf"^{instruction} .*?(\[.*\])$", text, re.MULTILINE)
    return json.loads(last)


def entry_points() -> list[tuple[str, list[str]]]:
    assert dockerfile("ENTRYPOINT") == ["callflow"]
    found = [("the image", dockerfile("CMD"))]
    found += [(name, SERVICES[name]["command"]) for name in OURS]
    # The lines that docs and comments ask people to type.
    for path in ("docker-compose.yml", "docs/deploy.md"):
        text = (ROOT / path).read_text(encoding="utf-8")
        for line in re.findall(r"docker compose run --rm callflow +([a-z -]+[a-z])", text):
            found.append((path, line.split()))
    return found


@pytest.mark.parametrize(("place", "command"), entry_points())
def test_the_command_line_parses(place: str, command: Sequence[str]) -> None:
    group = typer.main.get_command(cli.app)
    with group.make_context("callflow", list(command)) as context:
        name, found, rest = group.resolve_command(context, list(command))  # type: ignore[attr-defined]
        assert name == command[0], place
        with found.make_context(name, rest, parent=context):
            pass


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers with the status set for each path, and records the requests."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Answering)
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Answering(http.server.HTTPServer):
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str] = []


@contextmanager
def answering(status: int) -> Iterator[Answering]:
    with Answering() as server:
        server.status = status
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def probed(command: Sequence[str], port: int) -> int:
    """Return the exit code of a healthcheck's command, with another port than the daemon's."""
    moved = [part.replace("8787", str(port)) for part in command]
    assert moved[0] == "python"
    assert moved != list(command)
    env = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, *moved[1:]], env=env, capture_output=True, timeout=120, check=False
    )
    return done.returncode


@pytest.mark.more
@pytest.mark.parametrize(
    ("command", "path"),
    [
        (SERVICES["callflow"]["healthcheck"]["test"][1:], "/readyz"),
        (SERVICES["demo"]["healthcheck"]["test"][1:], "/readyz"),
        (dockerfile("HEALTHCHECK"), "/healthz"),
    ],
    ids=["compose", "demo", "image"],
)
def test_the_healthcheck_distinguishes_good_from_bad(command: Sequence[str], path: str) -> None:
    with answering(200) as server:
        assert probed(command, server.server_port) == 0
        assert server.asked == [path]
    with answering(503) as server:
        assert probed(command, server.server_port) == 1
    assert probed(command, server.server_port) == 1  # nothing listens


# --- what it would run ---------------------------------------------------------------------------
def ports_of(toml: str) -> list[str]:
    return sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", toml)))


def moved(toml: str, running: sandbox.Sandbox) -> str:
    """Return the demo's configuration with the ports of a sandbox that runs elsewhere."""
    assert SERVICES["sandbox"]["command"] == ["sandbox"]  # at the default ports
    assert ports_of(toml) == [str(port) for port in sandbox.PORTS]
    for port, emulator in zip(sandbox.PORTS, running.emulators.values(), strict=True):
        toml = toml.replace(f"http://127.0.0.1:{port}", emulator.url)
    return toml


def demo_environment() -> dict[str, str]:
    """Return the variables of the demo's daemon: those of its file, and its own."""
    text = (ROOT / SERVICES["demo"]["env_file"]).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    own: dict[str, str] = SERVICES["demo"]["environment"]
    return dict(line.split("=", 1) for line in lines) | own


def demo_toml() -> str:
    (path,) = files_of("demo")
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.fixture
def running() -> Iterator[sandbox.Sandbox]:
    with sandbox.serve(Sizes(3, 10)) as serving:
        yield serving


def callflow(
    command: Sequence[str], cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "etl", *command],
        cwd=cwd,
        env={**plain(), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def plain() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    return kept | {"PYTHONPATH": str(ROOT)}


@pytest.mark.more
def test_the_demo_has_the_sources_that_the_sandbox_prints(
    running: sandbox.Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "printed.toml").write_text(running.toml(), encoding="utf-8")
    (tmp_path / "demo.toml").write_text(moved(demo_toml(), running), encoding="utf-8")
    printed = config.load(tmp_path / "printed.toml", {})
    read = config.load(tmp_path / "demo.toml", demo_environment())
    assert read.sources.keys() == printed.sources.keys()
    for name, source in read.sources.items():
        assert source == printed.sources[name].model_copy(update={"schedule": source.schedule})
    assert read.warnings == ()  # the secrets are in the environment


def test_the_sandbox_is_healthy_when_every_emulator_answers() -> None:
    python, flag, probe = SERVICES["sandbox"]["healthcheck"]["test"][1:]
    with sandbox.serve(EMPTY) as serving:
        ports = [int(each.url.rpartition(":")[2]) for each in serving.emulators.values()]
        ours = probe.replace("from etl.sandbox.server import PORTS", f"PORTS = {ports}")
        assert (python, flag, ours == probe) == ("python", "-c", False)
        assert subprocess.run([sys.executable, flag, ours], check=False).returncode == 0
        with socket.create_server(("127.0.0.1", 0)) as closed:  # and is, at the end of this block
            one_silent = ours.replace("]", f", {closed.getsockname()[1]}]", 1)
        done = subprocess.run([sys.executable, flag, one_silent], capture_output=True, check=False)
        assert b"ConnectionRefusedError" in done.stderr
        assert done.returncode == 1


def in_files(tmp_path: Path, url: str, running: sandbox.Sandbox) -> dict[str, str]:
    """Prepare `tmp_path` as the header of docker-compose.yml says; return the environment."""
    (tmp_path / "secrets").mkdir(mode=0o700)
    secrets = {"warehouse_url": dsn(url), "http_token": "0123456789abcdef"}
    secrets["zoom_secret"] = running.zoom.client_secret
    for name, value in secrets.items():
        path = tmp_path / "secrets" / name
        path.write_text(value + "\n", encoding="utf-8")
        path.chmod(0o600)
    zoom = tomllib.loads(running.toml())["sources"]["zoom_demo"]
    lines = [f"{key} = {json.dumps(value)}" for key, value in zoom.items()]
    lines = [line for line in lines if not line.startswith("client_secret ")]
    lines += [f'client_secret_file = "{tmp_path}/secrets/zoom_secret"']
    text = "[sources.zoom_eu]\n" + "\n".join(lines) + "\n"
    (tmp_path / "callflow.toml").write_text(text, encoding="utf-8")
    given: dict[str, str] = SERVICES["callflow"]["environment"]
    return {k: v.replace("/run/secrets/", f"{tmp_path}/secrets/") for k, v in given.items()}


@pytest.mark.more
def test_what_the_header_says_to_prepare_is_enough(
    tmp_path: Path, warehouse: str, running: sandbox.Sandbox
) -> None:
    env = in_files(tmp_path, warehouse, running)
    settings = config.load(tmp_path / "callflow.toml", env)
    assert settings.warnings == ()
    assert settings.daemon.http == "0.0.0.0:8787"
    assert settings.daemon.http_token is not None
    checked = callflow(["check"], tmp_path, env)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "zoom_eu" in checked.stdout


def started(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    log = (cwd / "log").open("wb")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "etl", *command], cwd=cwd, env={**plain(), **env}, stderr=log
        )


def until(good: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + 180
    while not good():
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < ends, log.read_text(encoding="utf-8")
        time.sleep(0.2)  # between two probes, as Docker's start_interval


@pytest.mark.more
def test_the_demo_becomes_healthy_and_ends_when_asked(
    tmp_path: Path, database: str, running: sandbox.Sandbox
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "callflow.toml").write_text(moved(demo_toml(), running), encoding="utf-8")
    env = demo_environment()
    env["CALLFLOW_WAREHOUSE__URL"] = dsn(database)
    env["CALLFLOW_DAEMON__HTTP"] = f"127.0.0.1:{port}"
    check = SERVICES["demo"]["healthcheck"]["test"][1:]
    daemon = started(SERVICES["demo"]["command"], tmp_path, env)
    try:
        until(lambda: probed(check, port) == 0, daemon, tmp_path / "log")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(seconds(SERVICES["demo"]["stop_grace_period"])) == 0
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()
    shown = callflow(["status", "--json"], tmp_path, env)
    streams = [json.loads(line) for line in shown.stdout.splitlines()]
    assert len(streams) == len(STREAMS), shown.stderr
    assert {stream["last_status"] for stream in streams} == {"complete"}

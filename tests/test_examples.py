"""examples/: what it names exists, and what can be run of it without its platform runs."""

import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from etl import errors
from etl.commands import cli
from etl.config import load as config
from etl.config.settings import Daemon
from etl.daemon.metrics import Metrics
from etl.load.runs import Run
from etl.status.health import Overview, State, StreamHealth
from etl.version import __version__

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
RULES = yaml.safe_load((EXAMPLES / "prometheus/callflow.rules.yml").read_text(encoding="utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((EXAMPLES / "grafana/callflow.json").read_text(encoding="utf-8"))
FLOWS = json.loads((EXAMPLES / "grafana/flows.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PORT = int(Daemon().http.rpartition(":")[2])


def tool(name: str) -> str:
    """Return the path of a tool; skip the test if it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- metrics -------------------------------------------------------------------------------------
@functools.cache
def exposed() -> Mapping[str, Mapping[str, frozenset[str]]]:
    """Return sample of the daemon → its labels → their values."""
    now = datetime(2026, 11, 17, 14, 5, tzinfo=UTC)
    metrics = Metrics("0.1.0", CollectorRegistry())
    finished = now + timedelta(seconds=3)
    metrics.run(
        Run("1", "zoom_eu", "flows", "full", now, finished, status="failed", error_kind="database")
    )
    metrics.lag("zoom_eu", 1.0)
    later = now + timedelta(hours=1)
    throttled: State = "throttled"
    stream = StreamHealth(
        source="zoom_eu",
        stream="flows",
        provider="zoom",
        state=throttled,
        stale=True,
        stale_after=3600.0,
        age=4000.0,
        rows=60,
        last_success_at=now,
        retry_at=later,
    )
    text = metrics.render(Overview(at=now, version="0.1.0", streams=(stream,))).decode()
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    # Kinds of errors are there when they happen: those that the code can raise.
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "etl").rglob("*.py"))
    kinds = set(re.findall(r'\bkind(?:: str)? ?= ?"(\w+)"', code))
    assert {"credentials", "incomplete_scan"} <= kinds
    found["callflow_run_errors_total"]["kind"] = kinds
    return {
        name: {label: frozenset(values) for label, values in labels.items()}
        for name, labels in found.items()
    }


OPEN = {"source", "stream", "version", "job", "instance", "le"}
"""Labels whose values are the user's, or Prometheus's own."""

SELECTOR = re.compile(r"\b((?:callflow|process|python)_\w+|up)\b(?:\{([^}]*)\})?")


def selected(expression: str) -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """Yield each metric of a PromQL expression, with its matchers: label → (operator, value)."""
    for name, matchers in SELECTOR.findall(expression):
        pairs = re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers)
        yield name, {label: (operator, value) for label, operator, value in pairs}


def labels_of(name: str) -> set[str]:
    return {"job", "instance"} | ({*exposed()[name]} if name != "up" else set())


def mistakes(expression: str) -> list[str]:
    """Return the mistakes in an expression: what it asks for and the daemon does not show."""
    found, known = [], {"job", "instance"}
    for name, matchers in selected(expression):
        if name != "up" and name not in exposed():
            found.append(name)
            continue
        known |= labels_of(name)
        for label, (_, value) in matchers.items():
            if label not in labels_of(name):
                found.append(f"{name}{{{label}}}")
            elif label not in OPEN:
                found += [
                    f"{name}{{{label}={part}}}"
                    for part in value.split("|")
                    if part not in exposed()[name][label]
                ]
    for listed in re.findall(r"\b(?:by|on|group_left|without) \(([^)]*)\)", expression):
        found += [f"by {label}" for label in re.findall(r"\w+", listed) if label not in known]
    return found


def test_mistakes_are_found() -> None:
    assert mistakes('callflow_runs_total{status="failed"}') == []
    assert mistakes('callflow_run_total{status="failed"}') == ["callflow_run_total"]
    assert mistakes('callflow_runs_total{state="failed"}') == ["callflow_runs_total{state}"]
    assert mistakes('callflow_runs_total{status=~"failed|lost"}') == [
        "callflow_runs_total{status=lost}"
    ]
    assert mistakes("sum by (streams) (callflow_runs_total)") == ["by streams"]


# --- Prometheus ----------------------------------------------------------------------------------
def words(text: str) -> str:
    return re.sub(r"\{\{.*?\}\}", "zoom_eu", text)


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_an_alert_asks_for_what_there_is_and_says_what_to_do(rule: Mapping[str, Any]) -> None:
    names = [name for name, _ in selected(rule["expr"])]
    assert names
    assert mistakes(rule["expr"]) == []
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert 10 < len(rule["annotations"]["summary"]) < 90
    assert len(rule["annotations"]["description"]) > 100
    joined = re.search(r"^\w+ by \(([^)]*)\)", rule["expr"])
    has = {*re.findall(r"\w+", joined[1])} if joined else labels_of(names[0])
    used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    assert used <= has
    if "stream" in has or "source" in has:
        assert "source" in used


def test_every_alert_is_tried() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)
    text = (EXAMPLES / "prometheus/callflow.rules.test.yml").read_text(encoding="utf-8")
    tries = [each for test in yaml.safe_load(text)["tests"] for each in test["alert_rule_test"]]
    fires = {each["alertname"] for each in tries if each["exp_alerts"]}
    quiet = {each["alertname"] for each in tries if not each["exp_alerts"]}
    assert fires == set(names)
    assert len(quiet) > len(names) / 2


@pytest.mark.more
def test_promtool_plays_every_alert() -> None:
    promtool = tool("promtool")
    run(promtool, "test", "rules", EXAMPLES / "prometheus/callflow.rules.test.yml")


@pytest.mark.more
def test_prometheus_takes_the_configuration_and_every_expression(tmp_path: Path) -> None:
    promtool = tool("promtool")
    shutil.copytree(EXAMPLES / "prometheus", tmp_path / "prometheus")
    (tmp_path / "prometheus/http_token").write_text("0123abcd\n", encoding="utf-8")
    run(promtool, "check", "config", tmp_path / "prometheus/prometheus.yml")
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions())]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules" in run(promtool, "check", "rules", path)


def test_prometheus_scrapes_where_the_daemon_listens() -> None:
    given = yaml.safe_load((EXAMPLES / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    (scrape,) = given["scrape_configs"]
    (target,) = scrape["static_configs"]
    assert target["targets"] == [Daemon().http]
    assert all((EXAMPLES / "prometheus" / name).is_file() for name in given["rule_files"])
    asked = {m["job"][1] for rule in ALERTS for _, m in selected(rule["expr"]) if "job" in m}
    assert asked == {scrape["job_name"]}


# --- Grafana -------------------------------------------------------------------------------------
def expressions() -> list[str]:
    """Return those of all panels, annotations and variables, as Prometheus would get them."""
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    found += [each["expr"] for each in DASHBOARD["annotations"]["list"] if "expr" in each]
    found += [
        re.sub(r"^label_values\((.*), (\w+)\)$", r"count by (\2) (\1)", variable["definition"])
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    found = [
        re.sub(r'=~"\$\w+"', '=~".*"', text).replace("$__rate_interval", "5m") for text in found
    ]
    assert "$" not in "".join(found)
    return found


def test_the_dashboard_asks_for_what_there_is() -> None:
    asked = expressions()
    assert len(asked) > 25
    assert {text: mistakes(text) for text in asked if mistakes(text)} == {}
    on_it = {name for text in asked for name, _ in selected(text)}
    in_rules = {name for rule in ALERTS for name, _ in selected(rule["expr"])}
    assert in_rules - {"up"} <= on_it  # every alert can be looked at on the dashboard


@pytest.mark.parametrize(
    ("dashboard", "kind"),
    [(DASHBOARD, "prometheus"), (FLOWS, "grafana-postgresql-datasource")],
    ids=["callflow", "flows"],
)
def test_every_panel_says_what_it_shows_and_in_which_unit(
    dashboard: Mapping[str, Any], kind: str
) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles) > 10
    source = {"type": kind, "uid": "${datasource}"}
    assert dashboard["templating"]["list"][0]["query"] == kind
    for panel in panels:
        assert panel["title"], panel["id"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])
        refs = [target["refId"] for target in panel["targets"]]
        assert refs == list("ABCDEFGH"[: len(refs)])


@pytest.mark.parametrize("dashboard", [DASHBOARD, FLOWS], ids=["callflow", "flows"])
def test_no_panel_covers_another_one(dashboard: Mapping[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]


@pytest.mark.parametrize(
    ("dashboard", "expected"),
    [
        (DASHBOARD, {"datasource", "job", "source", "stream"}),
        (FLOWS, {"datasource", "provider", "source"}),
    ],
    ids=["callflow", "flows"],
)
def test_the_dashboard_uses_its_variables_and_no_others(
    dashboard: Mapping[str, Any], expected: set[str]
) -> None:
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    text = json.dumps([dashboard["panels"], dashboard["annotations"], dashboard["templating"]])
    used = set(re.findall(r"\$\{?([a-z]+)\}?", text))
    assert used == variables == expected


def test_the_dashboards_are_two() -> None:
    assert DASHBOARD["uid"] != FLOWS["uid"]
    assert DASHBOARD["title"] != FLOWS["title"]


def test_grafana_is_given_the_dashboard_where_it_looks_for_it() -> None:
    provided = yaml.safe_load(
        (EXAMPLES / "grafana/provisioning/dashboards/callflow.yml").read_text(encoding="utf-8")
    )
    readme = (EXAMPLES / "grafana/README.md").read_text(encoding="utf-8")
    (provider,) = provided["providers"]
    for name in ("callflow.json", "flows.json"):
        assert f"./{name}:{provider['options']['path']}/{name}:ro" in readme
    assert "./provisioning:/etc/grafana/provisioning:ro" in readme
    source = EXAMPLES / "grafana/provisioning/datasources/prometheus.yml"
    (prometheus,) = yaml.safe_load(source.read_text(encoding="utf-8"))["datasources"]
    assert prometheus["url"] == "${PROMETHEUS_URL}"
    assert "-e PROMETHEUS_URL=" in readme
    source = EXAMPLES / "grafana/provisioning/datasources/warehouse.yml"
    text = source.read_text(encoding="utf-8")
    (warehouse,) = yaml.safe_load(text)["datasources"]
    assert warehouse["type"] == FLOWS["templating"]["list"][0]["query"]
    for name in re.findall(r"\$\{(\w+)\}", text):
        assert f"-e {name}" in readme


# --- commands ------------------------------------------------------------------------------------
def parses(command: list[str]) -> None:
    """Raise click's UsageError unless `callflow` takes these arguments."""
    group: Any = typer.main.get_command(cli.app)
    with group.make_context("callflow", list(command)) as context:
        name, found, rest = group.resolve_command(context, list(command))
        with found.make_context(name, rest, parent=context):
            pass


def commands() -> list[tuple[str, str]]:
    """Return every `callflow …` that an example or its documentation asks people to type."""
    found: set[tuple[str, str]] = set()
    left_out = {"airflow", "target", "logs"}  # dbt writes the last two
    paths = [p for p in EXAMPLES.rglob("*") if p.is_file() and not left_out & {*p.parts}]
    for path in sorted([*paths, ROOT / "docs/deploy.md"]):
        text = re.sub(r"\s+", " ", re.sub(r"(?m)^\s*# ?", "", path.read_text(encoding="utf-8")))
        commands = re.findall(r"`callflow ([^`]+)`", words(text))
        found |= {(str(path.relative_to(ROOT)), command) for command in commands}
    return sorted(found)


@pytest.mark.parametrize(("place", "command"), commands())
def test_a_command_in_the_documentation_exists(place: str, command: str) -> None:
    parses(command.split())


# --- Kubernetes ----------------------------------------------------------------------------------
KUBERNETES = EXAMPLES / "kubernetes"


def documents(name: str) -> list[Any]:
    return [*yaml.safe_load_all((KUBERNETES / name).read_text(encoding="utf-8"))]


def resource(name: str, kind: str) -> Any:
    (found,) = [document for document in documents(name) if document["kind"] == kind]
    return found


def pods() -> dict[str, Any]:
    job = resource("cronjob.yaml", "CronJob")["spec"]["jobTemplate"]["spec"]
    daemon = resource("deployment.yaml", "Deployment")["spec"]
    return {"daemon": daemon["template"]["spec"], "sync": job["template"]["spec"]}


def containers(pod: Mapping[str, Any]) -> list[Any]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.parametrize("pod", pods().values(), ids=pods())
def test_a_pod_meets_the_restricted_standard(pod: Mapping[str, Any]) -> None:
    """Kubernetes' docs, "Pod Security Standards", restricted; and a root that is read-only."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] > Daemon().stop_deadline.total_seconds()
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert all(
        volume.keys() <= {"name", "configMap", "secret", "emptyDir"} for volume in pod["volumes"]
    )
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() == {"memory"}  # CPU limits only throttle
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        parses(container["args"])


def variables(container: Mapping[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


@pytest.mark.parametrize("pod", pods().values(), ids=pods())
def test_the_pods_configuration_is_accepted(pod: Mapping[str, Any], tmp_path: Path) -> None:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
    (secret,) = kustomization["secretGenerator"]
    (of_config,) = kustomization["configMapGenerator"]
    contents = dict.fromkeys(secret["files"], "0123456789abcdef")
    contents["secrets/warehouse_url"] = "postgresql://callflow:x@db.example:5432/callflow"
    mounts = {m["name"]: m["mountPath"] for c in containers(pod) for m in c["volumeMounts"]}
    for path, value in contents.items():
        (tmp_path / Path(path).name).write_text(value + "\n", encoding="utf-8")
        (tmp_path / Path(path).name).chmod(0o600)
    (name, _, file) = of_config["files"][0].partition("=")
    toml = (KUBERNETES / file).read_text(encoding="utf-8")
    toml = toml.replace(mounts["secrets"], str(tmp_path))
    (tmp_path / name).write_text(toml, encoding="utf-8")
    moved = {"secrets": secret["name"], "config": of_config["name"]}
    for volume in pod["volumes"]:
        given = volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get(
            "name"
        )
        assert given == moved.get(volume["name"])
    for container in containers(pod):
        env = {
            key: value.replace(mounts["secrets"], str(tmp_path)).replace(
                mounts["config"], str(tmp_path)
            )
            for key, value in variables(container).items()
        }
        settings = config.load(None, env | {"CALLFLOW_PORT_8787_TCP_ADDR": "10.0.0.1"})
        assert settings.path == tmp_path / "callflow.toml"
        assert settings.warehouse.url is not None
        assert settings.sources
        assert settings.warnings == ()
    used = set(re.findall(rf"{tmp_path}/(\w+)", toml + json.dumps(env)))
    assert used - {"callflow"} <= {Path(path).name for path in contents}


def test_the_daemons_of_kubernetes_are_probed_where_they_listen() -> None:
    (container,) = pods()["daemon"]["containers"]
    (port,) = container["ports"]
    assert variables(container)["CALLFLOW_DAEMON__HTTP"] == f"0.0.0.0:{port['containerPort']}"
    assert port["containerPort"] == PORT
    probes = {
        kind: container[kind]["httpGet"]
        for kind in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert [probe["path"] for probe in probes.values()] == ["/healthz", "/healthz", "/readyz"]
    labels = resource("deployment.yaml", "Deployment")["spec"]["template"]["metadata"]["labels"]
    service = resource("deployment.yaml", "Service")["spec"]
    budget = resource("deployment.yaml", "PodDisruptionBudget")["spec"]
    assert service["selector"] == budget["selector"]["matchLabels"] == labels
    assert service["publishNotReadyAddresses"] is True
    assert service["ports"][0]["targetPort"] == port["name"]
    deployment = resource("deployment.yaml", "Deployment")["spec"]
    assert deployment["selector"]["matchLabels"] == labels
    assert deployment["replicas"] == 2
    assert deployment["strategy"] == {"type": "Recreate"}


def test_the_cron_job_knows_the_exit_codes() -> None:
    spec = resource("cronjob.yaml", "CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy wants it
    (container,) = job["template"]["spec"]["containers"]
    actions = {
        code: rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        for code in rule.get("onExitCodes", {}).get("values", ())
    }
    assert actions == {
        errors.ConfigError.exit_code: "FailJob",
        errors.BusyError.exit_code: "Ignore",
    }
    named = [
        rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    ]
    assert {rule["containerName"] for rule in named} == {container["name"]}


def test_all_pods_run_the_image_that_kustomize_replaces() -> None:
    images = {container["image"] for pod in pods().values() for container in containers(pod)}
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
    (replaced,) = kustomization["images"]
    assert images == {f"{replaced['name']}:{replaced['newTag']}"} == {f"callflow:{__version__}"}


@pytest.mark.more
def test_kustomize_builds_it(tmp_path: Path) -> None:
    kubectl = tool("kubectl")
    shutil.copytree(KUBERNETES, tmp_path / "k")
    (tmp_path / "k/secrets").mkdir()
    for name in ("warehouse_url", "http_token", "zoom_secret"):
        (tmp_path / "k/secrets" / name).write_text("0123abcd\n", encoding="utf-8")
    built = [*yaml.safe_load_all(run(kubectl, "kustomize", tmp_path / "k"))]
    assert [each["kind"] for each in built] == [
        "ConfigMap",
        "Secret",
        "Service",
        "Deployment",
        "PodDisruptionBudget",
    ]
    by_kind = {each["kind"]: each for each in built}
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    assert {c["image"] for c in containers(pod)} == {"registry.example/callflow:0.1.0"}
    mounted = {v["name"]: v for v in pod["volumes"]}
    assert mounted["config"]["configMap"]["name"] == by_kind["ConfigMap"]["metadata"]["name"]
    assert mounted["secrets"]["secret"]["secretName"] == by_kind["Secret"]["metadata"]["name"]
    assert by_kind["ConfigMap"]["data"].keys() == {"callflow.toml"}


# --- systemd -------------------------------------------------------------------------------------
SYSTEMD = EXAMPLES / "systemd"
SERVICES = ("callflow.service", "callflow-sync.service")
PROGRAM = "/opt/callflow/bin/callflow"


def unit(name: str) -> dict[str, list[str]]:
    """Return the directives of a unit; a repeated one has several values."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text(encoding="utf-8").splitlines():
        if match := re.match(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def environment(text: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^(?:# )?Environment=(\w+)=(.*)$", text))


@pytest.mark.parametrize("name", SERVICES)
def test_a_units_secrets_are_credentials_and_its_configuration_is_accepted(
    name: str, tmp_path: Path
) -> None:
    text = (SYSTEMD / name).read_text(encoding="utf-8")
    given = dict(re.findall(r"(?m)^(?:# )?LoadCredential=(\w+):(\S+)$", text))
    env = environment(text)
    assert env.keys() > set(environment(re.sub("(?m)^#.*", "", text)))  # one more, commented
    assert {v.removeprefix("%d/") for k, v in env.items() if k.endswith("_FILE")} == given.keys()
    for credential in given:
        value = "postgresql://callflow@localhost/callflow" if "url" in credential else "0123abcd"
        (tmp_path / credential).write_text(value + "\n", encoding="utf-8")
        (tmp_path / credential).chmod(0o600)
    source = '[sources.zoom_eu]\nprovider = "zoom"\naccount_id = "a"\nclient_id = "b"\n'
    (tmp_path / "callflow.toml").write_text(source, encoding="utf-8")
    (directory,) = unit(name)["WorkingDirectory"]
    moved = {
        k: v.replace("%d", str(tmp_path)).replace(directory, str(tmp_path)) for k, v in env.items()
    }
    settings = config.load(None, moved)
    assert settings.path == tmp_path / "callflow.toml"
    assert settings.warnings == ()
    assert settings.warehouse.url is not None


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_runs_a_command_that_exists_and_knows_its_exit_codes(name: str) -> None:
    (command,) = unit(name)["ExecStart"]
    program, *arguments = command.split()
    assert program == PROGRAM
    parses(arguments)
    assert int(unit(name)["TimeoutStopSec"][0].rstrip("s")) > Daemon().stop_deadline.total_seconds()


def test_busy_is_no_failure_and_a_wrong_configuration_is_not_tried_again() -> None:
    assert unit("callflow-sync.service")["SuccessExitStatus"] == [str(errors.BusyError.exit_code)]
    daemon = unit("callflow.service")
    assert daemon["RestartPreventExitStatus"] == [str(errors.ConfigError.exit_code)]
    assert daemon["Restart"] == ["on-failure"]
    assert daemon["ExecReload"] == ["kill -HUP $MAINPID"]


def test_the_daemon_notifies_systemd_and_is_watched_for_longer_than_a_beat_may_take() -> None:
    daemon = unit("callflow.service")
    assert (daemon["Type"], daemon["NotifyAccess"]) == (["notify"], ["main"])
    # A connection that breaks is noticed after a minute (tcp_user_timeout, warehouse/connect.py),
    # and the embedded Postgres may take as long to start.
    assert daemon["WatchdogSec"] == ["3min"]
    assert daemon["TimeoutStartSec"] == ["1h"]  # a migration
    assert daemon["LimitCORE"] == ["0"]
    assert "AF_UNIX" in daemon["RestrictAddressFamilies"][0]


@pytest.mark.more
def test_systemd_finds_nothing_wrong_and_little_exposed(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    program = Path(sys.executable).with_name("callflow")  # it must exist
    for path in SYSTEMD.glob("callflow*"):
        text = path.read_text(encoding="utf-8").replace(PROGRAM, str(program))
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    units = sorted(tmp_path.glob("callflow*"))
    assert len(units) == 3
    done = subprocess.run(
        [analyze, "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert "callflow" not in done.stderr  # of other units of this machine it may say anything
    for name in SERVICES:
        said = run(analyze, "security", "--offline=true", "--no-pager", tmp_path / name)
        exposure = re.search(r"exposure level for \S+ ([\d.]+)", said)
        assert exposure is not None
        assert float(exposure[1]) < 2.0


# --- all of them ---------------------------------------------------------------------------------
def test_every_directory_says_what_it_is_in_a_few_lines() -> None:
    for directory in EXAMPLES.iterdir():
        lines = (directory / "README.md").read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("# "), directory.name
        assert len(lines) <= 40, directory.name

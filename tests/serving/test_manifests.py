"""Deployment files: valid by the schemas of those who read them, and true to what the code offers.

Kubernetes' own schemas come with kubernetes-validate, the Compose specification's with check-jsonschema. KServe's are
read from the files of its Python SDK, generated from its CRDs, without importing it: ``pip install --no-deps kserve``.
Kustomize and prometheus-adapter publish none: the keys that our files use stand here. Prometheus has promtool.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from fsspec.registry import known_implementations
from typer.exceptions import TyperException

from slimline.cli import COMMANDS
from slimline.events import EventWriter
from slimline.monitoring import servers
from tests.monitoring.conftest import run

ROOT = Path(__file__).parents[2]
SERVING = ROOT / "serving"
RESOURCES = (
    "autoscaler", "deployment", "disruption-budget", "monitor", "monitor-claim", "monitor-service", "probe",
    "probe-service", "service",
)  # fmt: skip
CLUSTERS = ("1.31", "1.37")


def load(name: str) -> Any:
    return yaml.safe_load((SERVING / name).read_text(encoding="utf-8"))


def pod(name: str) -> dict[str, Any]:
    """Return the pod's specification of a Deployment or the InferenceService."""
    document = load(f"k8s/{name}.yaml")
    found: dict[str, Any] = (
        document["spec"]["template"]["spec"] if document["kind"] == "Deployment" else document["spec"]["predictor"]
    )
    return found


PODS = ("deployment", "inference-service")  # of the endpoint
ALL_PODS = (*PODS, "monitor", "probe")


def containers(name: str) -> list[dict[str, Any]]:
    spec = pod(name)
    return [*spec.get("initContainers", []), *spec["containers"]]


def misspelt(document: Any, path: tuple[Any, ...]) -> Any:
    """Return a copy in which the key at ``path`` has one letter more."""
    changed = copy.deepcopy(document)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[f"{path[-1]}x"] = at.pop(path[-1])
    return changed


@pytest.mark.parametrize("version", CLUSTERS)
@pytest.mark.parametrize("name", RESOURCES)
def test_kubernetes_takes_it(name: str, version: str) -> None:
    kubernetes_validate.validate(load(f"k8s/{name}.yaml"), version, strict=True)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("deployment", ("spec", "template", "spec", "containers", 0, "readinessProbe")),
        ("deployment", ("spec", "template", "spec", "securityContext", "runAsNonRoot")),
        ("autoscaler", ("spec", "metrics", 0, "pods", "target", "averageValue")),
        ("disruption-budget", ("spec", "minAvailable")),
        ("service", ("spec", "ports", 0, "targetPort")),
        ("monitor", ("spec", "template", "spec", "volumes", 0, "persistentVolumeClaim", "claimName")),
        ("monitor-claim", ("spec", "accessModes")),
    ],
)
def test_kubernetes_takes_no_misspelt_key(name: str, path: tuple[Any, ...]) -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt(load(f"k8s/{name}.yaml"), path), CLUSTERS[-1], strict=True)


def compose_schema() -> Any:
    path = distribution("check-jsonschema").locate_file("check_jsonschema/builtin_schemas/vendor/compose-spec.json")
    return json.loads(Path(str(path)).read_text(encoding="utf-8"))


def test_compose_takes_it() -> None:
    jsonschema.validate(load("compose.yaml"), compose_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(misspelt(load("compose.yaml"), ("services", "endpoint", "volumes")), compose_schema())


# -- Kustomize, prometheus-adapter, Prometheus -------------------------------------------------------------------------


def exactly(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has these keys and no other."""
    return {
        "type": "object", "additionalProperties": False, "required": list(properties), "properties": properties,
    }  # fmt: skip


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


TEXT = {"type": "string", "minLength": 1}
KUSTOMIZATION = exactly(
    apiVersion={"const": "kustomize.config.k8s.io/v1beta1"},
    kind={"const": "Kustomization"},
    resources=listed(TEXT),
    configMapGenerator=listed(exactly(name=TEXT, literals=listed({"type": "string", "pattern": "^[A-Z]+=.+$"}))),
)
RESOURCE = exactly(resource=TEXT)
RULE = exactly(
    seriesQuery=TEXT,
    resources=exactly(overrides=exactly(namespace=RESOURCE, pod=RESOURCE)),
    name=exactly(**{"as": TEXT}),
    metricsQuery=TEXT,
)
SCHEMAS = {
    "k8s/kustomization.yaml": KUSTOMIZATION,
    "k8s/metrics-adapter.yaml": exactly(rules=exactly(custom=listed(RULE))),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_has_the_keys_that_its_reader_knows(name: str) -> None:
    jsonschema.validate(load(name), SCHEMAS[name])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("k8s/kustomization.yaml", ("resources",)),
        ("k8s/kustomization.yaml", ("configMapGenerator", 0, "literals")),
        ("k8s/metrics-adapter.yaml", ("rules", "custom", 0, "resources")),
        ("k8s/metrics-adapter.yaml", ("rules", "custom", 1, "resources", "overrides", "pod")),
    ],
)
def test_its_reader_takes_no_misspelt_key(name: str, path: tuple[Any, ...]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(misspelt(load(name), path), SCHEMAS[name])


@pytest.mark.parametrize(
    "other",
    [{"kind": "Kustomisation"}, {"namePrefixx": "x-"}, {"apiVersion": "v1"}],
    ids=lambda other: next(iter(other)),
)
def test_kustomize_takes_no_other_kind_or_key(other: dict[str, str]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(load("k8s/kustomization.yaml") | other, KUSTOMIZATION)


def test_prometheus_takes_it() -> None:
    done = run(SERVING, "promtool", "check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


# -- KServe ------------------------------------------------------------------------------------------------------------


def kserve_model(kind: str) -> dict[str, str] | None:
    """Return {JSON key: type} of a model of KServe's SDK, None for one of Kubernetes' own."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
    path = Path(str(distribution("kserve").locate_file(f"kserve/models/{words}.py")))
    if not path.is_file():
        return None
    found: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else ""
        if name in {"openapi_types", "attribute_map"}:
            found[name] = ast.literal_eval(node.value)
    return {key: found["openapi_types"][own] for own, key in found["attribute_map"].items()}


PLAIN = {"str": str, "int": int, "bool": bool}


def check_kserve(value: Any, kind: str, where: str) -> None:
    """Hold ``value`` to a type of KServe's SDK, and a pod's own keys to Kubernetes' schema of a pod."""
    if match := re.fullmatch(r"list\[(\w+)\]", kind):
        for index, each in enumerate(value):
            check_kserve(each, match[1], f"{where}.{index}")
    elif kind in PLAIN:
        assert isinstance(value, PLAIN[kind]), f"{where}: {value!r} is no {kind}"
    elif (model := kserve_model(kind)) is not None:
        for key, each in value.items():
            assert key in model, f"{where}.{key}: KServe's {kind} has {', '.join(model)}"
            check_kserve(each, model[key], f"{where}.{key}")
        own = {key: each for key, each in value.items() if re.fullmatch(r"(list\[)?V1[A-Z]\w+\]?", model[key])}
        if "containers" in own:
            document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": own}
            kubernetes_validate.validate(document, CLUSTERS[-1], strict=True)
    else:
        assert kind.startswith("V1"), f"{where}: {kind} is unknown to this check"


@pytest.fixture
def _kserve() -> None:
    try:
        distribution("kserve")
    except PackageNotFoundError:
        pytest.skip("needs the files of KServe's SDK: pip install --no-deps kserve==0.21.0")


@pytest.mark.usefixtures("_kserve")
def test_kserve_takes_it() -> None:
    check_kserve(load("k8s/inference-service.yaml"), "V1beta1InferenceService", "inference-service")


@pytest.mark.usefixtures("_kserve")
@pytest.mark.parametrize(
    "path",
    [("spec", "predictor"), ("spec", "predictor", "minReplicas"), ("spec", "predictor", "containers", 0, "image")],
    ids=str,
)
def test_kserve_takes_no_misspelt_key(path: tuple[Any, ...]) -> None:
    document = misspelt(load("k8s/inference-service.yaml"), path)
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
        check_kserve(document, "V1beta1InferenceService", "inference-service")


# -- true to the code and to each other --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_PODS)
def test_no_container_runs_as_root_or_may_become_it(name: str) -> None:
    security = pod(name)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == 10001
    for each in containers(name):
        own = each["securityContext"]
        assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert each["resources"]["limits"]["memory"]
        assert not each["image"].endswith(":latest")
        assert ":" in each["image"]


@pytest.mark.parametrize("name", ALL_PODS)
def test_a_service_sets_no_variables_that_the_endpoint_would_refuse(name: str) -> None:
    assert pod(name)["enableServiceLinks"] is False


@pytest.mark.parametrize(
    ("name", "service"), [("deployment", "service"), ("monitor", "monitor-service"), ("probe", "probe-service")]
)
def test_a_service_leads_to_its_pods(name: str, service: str) -> None:
    deployment, before = load(f"k8s/{name}.yaml"), load(f"k8s/{service}.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == deployment["metadata"]["labels"]
    assert labels == before["spec"]["selector"] == before["metadata"]["labels"]
    (container,) = pod(name)["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in before["spec"]["ports"]} <= ports
    assert str(container["ports"][0]["containerPort"]) == container["args"][container["args"].index("--port") + 1]
    volumes = {volume["name"] for volume in pod(name)["volumes"]}
    assert {mount["name"] for each in containers(name) for mount in each["volumeMounts"]} <= volumes


def test_names_lead_to_each_other() -> None:
    deployment, budget = load("k8s/deployment.yaml"), load("k8s/disruption-budget.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == budget["spec"]["selector"]["matchLabels"]
    target = load("k8s/autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (deployment["kind"], deployment["metadata"]["name"])


def test_the_monitor_watches_the_endpoints_release_and_store_and_keeps_what_it_knows() -> None:
    document, spec, endpoint = load("k8s/monitor.yaml"), pod("monitor"), pod("deployment")
    assert (document["spec"]["replicas"], document["spec"]["strategy"]) == (1, {"type": "Recreate"})
    (own,), (theirs,) = spec["initContainers"], endpoint["initContainers"]
    assert own["envFrom"] == theirs["envFrom"]
    assert own["args"][:2] == theirs["args"][:2]
    (container,) = spec["containers"]
    assert container["env"] == [each for each in endpoint["containers"][0]["env"] if "valueFrom" in each]
    arguments = dict(zip(container["args"][1::2], container["args"][2::2], strict=True))
    assert arguments["--deployment"] == own["args"][own["args"].index("--to") + 1]
    (volume,) = [each for each in spec["volumes"] if "persistentVolumeClaim" in each]
    assert volume["persistentVolumeClaim"]["claimName"] == load("k8s/monitor-claim.yaml")["metadata"]["name"]
    (mount,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == volume["name"]]
    for option in ("--deployment", "--state", "--undo"):
        assert Path(arguments[option]).is_relative_to(mount), "or a restart forgets it"
    (secret,) = [each["secret"] for each in spec["volumes"] if "secret" in each]
    (item,) = secret["items"]
    assert (secret["secretName"], arguments["--token-file"]) == ("slimline", f"/secrets/{item['path']}")
    for path in ("deployment.yaml", "../../docs/serving.md"):
        assert f"--from-file={item['key']}" in (SERVING / "k8s" / path).read_text(encoding="utf-8")


def test_the_probe_asks_the_service_about_the_endpoints_release_with_a_token_that_is_told_of() -> None:
    spec, endpoint = pod("probe"), pod("deployment")
    (own,), (theirs,) = spec["initContainers"], endpoint["initContainers"]
    assert (own["args"], own["envFrom"]) == (theirs["args"], theirs["envFrom"])
    (container,) = spec["containers"]
    chosen = parsed(container["args"])
    assert chosen["url"] == f"http://{load('k8s/service.yaml')['metadata']['name']}"
    assert str(chosen["release"]) == own["args"][own["args"].index("--to") + 1]
    (secret,) = [each["secret"] for each in spec["volumes"] if "secret" in each]
    (item,) = secret["items"]
    assert (secret["secretName"], str(chosen["token_file"])) == ("slimline", f"/secrets/{item['path']}")
    for path in ("deployment.yaml", "../../docs/serving.md"):
        assert f"--from-file={item['key']}" in (SERVING / "k8s" / path).read_text(encoding="utf-8")
    monitored = [each["metadata"]["name"] for each in servers.kubernetes([])]
    assert load("k8s/probe-service.yaml")["metadata"]["name"] in monitored


def test_composes_probe_reads_the_token_that_compose_gives_it() -> None:
    compose = load("compose.yaml")
    (name,) = compose["services"]["probe"]["secrets"]
    assert str(parsed(compose["services"]["probe"]["command"])["token_file"]) == f"/run/secrets/{name}"
    assert compose["secrets"].keys() == {name}


def test_kustomize_finds_every_file_and_makes_what_the_deployment_reads() -> None:
    kustomization = load("k8s/kustomization.yaml")
    assert sorted(kustomization["resources"]) == sorted(f"{name}.yaml" for name in RESOURCES)
    (made,) = kustomization["configMapGenerator"]
    keys = {literal.partition("=")[0] for literal in made["literals"]}
    (release,) = pod("deployment")["initContainers"]
    assert {"configMapRef": {"name": made["name"]}} in release["envFrom"]
    assert set(re.findall(r"\$\((\w+)\)", " ".join(release["args"]))) == keys


def endpoint_series() -> dict[str, list[dict[str, str]]]:
    """Return {name: labels of each series} of an endpoint that has answered nothing yet."""
    metrics = importlib.import_module("slimline.endpoint.metrics")
    made = metrics.Metrics()
    metrics.Series(made, "sha256:0", "default", ["cat"])
    found: dict[str, list[dict[str, str]]] = {}
    for sample in chain.from_iterable(family.samples for family in made.registry.collect()):
        found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_the_autoscaler_asks_for_what_the_adapter_derives_from_the_endpoints_series(tmp_path: Path) -> None:
    rules = load("k8s/metrics-adapter.yaml")["rules"]["custom"]
    wanted = {metric["pods"]["metric"]["name"] for metric in load("k8s/autoscaler.yaml")["spec"]["metrics"]}
    assert {rule["name"]["as"] for rule in rules} == wanted
    known = endpoint_series()
    for rule in rules:
        found = re.fullmatch(r'(\w+)\{namespace!="",pod!=""\}', rule["seriesQuery"])
        assert found
        series, query = found[1], rule["metricsQuery"]
        assert re.findall(r"(\w+)\{", query) == [series]
        assert query.count("<<.LabelMatchers>>") == query.count("<<.GroupBy>>") == 1
        chosen = dict(re.findall(r'(\w+)="([^"]*)"', query))
        assert chosen.keys() == {"part"}, "the parts of a request overlap: one of them"
        assert any(chosen.items() <= labels.items() for labels in known[series])
    asked = [
        rule["metricsQuery"].replace("<<.LabelMatchers>>", 'pod="a"').replace("<<.GroupBy>>", "pod") for rule in rules
    ]
    recorded = [{"record": f"asked_{number}", "expr": each} for number, each in enumerate(asked)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "adapter", "rules": recorded}]}))
    done = run(tmp_path, "promtool", "check", "rules", "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_what_compose_runs() -> None:
    """Under the names that a release's own rules ask for, at the ports where the commands serve."""
    services, ports = (
        load("compose.yaml")["services"],
        {"endpoint": 3000, "monitor": 3001, "probe": 3002, "triton": 8002},
    )
    jobs = load("prometheus.yml")["scrape_configs"]
    targets = {each for job in jobs for each in job["static_configs"][0]["targets"]}
    assert targets == {f"{name}:{port}" for name, port in ports.items() if name in services}
    assert {job["job_name"] for job in jobs} == {*servers.JOBS, *servers.NAMED}


def drain_seconds(environment: Any) -> float:
    given = {each["name"]: each.get("value") for each in environment} if isinstance(environment, list) else environment
    return float(given.get("SLIMLINE_DRAIN_SECONDS", 0))


def test_nobody_is_killed_before_its_end_is_over() -> None:
    """Draining, requests under way, what runs behind them, the queue of events and its writer."""
    endpoint = [importlib.import_module(f"slimline.endpoint.{name}") for name in ("server", "core", "recording")]
    writer = inspect.signature(EventWriter).parameters["timeout"].default
    ending = endpoint[0].FINISH_SECONDS + endpoint[1].BACKGROUND_SECONDS + endpoint[2].FLUSH_SECONDS + writer
    deployment, compose = pod("deployment"), load("compose.yaml")["services"]["endpoint"]
    drain = drain_seconds(deployment["containers"][0]["env"])
    assert drain + ending < deployment["terminationGracePeriodSeconds"]
    kserve = pod("inference-service")
    assert drain_seconds(kserve["containers"][0]["env"]) + ending < kserve["terminationGracePeriodSeconds"]
    assert drain_seconds(compose["environment"]) + ending < float(compose["stop_grace_period"].removesuffix("s"))


@pytest.mark.parametrize("name", PODS)
def test_store_and_tokens_come_from_the_secret(name: str) -> None:
    endpoint = pod(name)["containers"][0]
    environment = {each["name"]: each for each in endpoint["env"]}
    assert environment["SLIMLINE_EVENT_STORE"]["valueFrom"] == {
        "secretKeyRef": {"name": "slimline", "key": "event-store"}
    }
    (mount,) = [each for each in endpoint["volumeMounts"] if each["name"] == "secrets"]
    (volume,) = [each["secret"] for each in pod(name)["volumes"] if each["name"] == "secrets"]
    assert volume == {"secretName": "slimline", "items": [{"key": "tokens", "path": "tokens"}]}
    assert environment["SLIMLINE_TOKENS_FILE"]["value"] == f"{mount['mountPath']}/tokens"


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Return what the command itself makes of its command line; an unknown option or a bad value is an error."""
    from typer.main import get_group

    app = importlib.import_module(f"slimline.cli.{COMMANDS[arguments[0]]}").app
    app.callback()(lambda: None)
    with get_group(app).commands[arguments[0]].make_context(arguments[0], arguments[1:]) as context:
        return dict(context.params)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["probe"], "MissingParameter"),
        (["probe", "http://x", "--every", "soon"], "BadParameter"),
        (["probe", "http://x", "--port", "70000"], "BadParameter"),
        (["monitor", "--token-fil", "x"], "NoSuchOption"),
    ],
    ids=["no argument", "no number", "out of range", "misspelt"],
)
def test_a_command_line_that_the_command_would_refuse_is_found(arguments: list[str], error: str) -> None:
    with pytest.raises(TyperException) as caught:
        parsed(arguments)
    assert type(caught.value).__name__ == error


def image_command() -> list[str]:
    found = re.search(r"^CMD (\[.*\])$", (SERVING / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    command: list[str] = json.loads(found[1])
    return command


def test_the_release_is_fetched_by_a_real_command() -> None:
    for name in ("deployment", "monitor", "probe"):
        parsed(pod(name)["initContainers"][0]["args"])


def test_it_is_served_and_watched_by_real_commands() -> None:
    services = load("compose.yaml")["services"]
    composed = [services[name]["command"] for name in ("monitor", "probe")]
    assert [each[0] for each in composed] == ["monitor", "probe"]
    for arguments in (image_command(), *composed, *(pod(name)["containers"][0]["args"] for name in ALL_PODS)):
        parsed(arguments)


def test_every_setting_is_one_of_the_endpoints() -> None:
    settings = importlib.import_module("slimline.endpoint.settings")
    names = [env["name"] for name in ALL_PODS for each in containers(name) for env in each.get("env", [])]
    names += load("compose.yaml")["services"]["endpoint"]["environment"]
    given = {name: "10" for name in names if name.startswith("SLIMLINE_")}
    assert given
    settings.from_environment(given)


def test_every_probe_is_a_page_of_what_it_asks() -> None:
    openapi = importlib.import_module("slimline.endpoint.openapi")
    pages = json.dumps(openapi.document()) if not hasattr(openapi, "PATHS") else json.dumps(openapi.PATHS)
    for name in PODS:
        for each in pod(name)["containers"]:
            for probe in ("readinessProbe", "livenessProbe"):
                assert f'"{each[probe]["httpGet"]["path"]}"' in pages
    running = importlib.import_module("slimline.monitor.running")
    for each in pod("monitor")["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert each[probe]["httpGet"]["path"] in running.pages(None)
    for each in pod("probe")["containers"]:  # it has no other page: tests/monitor/test_probe.py gets it
        assert {each[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")} == {"/metrics"}


# -- the image ---------------------------------------------------------------------------------------------------------


def test_the_image_holds_no_torch_and_no_root() -> None:
    text = re.sub(r"^#.*\n", "", (SERVING / "Dockerfile").read_text(), flags=re.MULTILINE)
    build, final = text.split("\nFROM ")
    assert "ARG EXTRAS=serve\n" in build
    assert '".[${EXTRAS}]"' in build
    assert not re.search(r"\btrain\b", text)
    users = re.findall(r"^USER (.+)$", final, re.MULTILINE)
    assert users[-1:] == ["10001:10001"], "a number: Kubernetes can't tell whether a name is root"
    assert final.index("\nUSER ") < final.index("\nENTRYPOINT ")
    for image in re.findall(r"^(?:FROM )?(python:\S+)", text, re.MULTILINE):
        assert re.fullmatch(r"python:3\.\d+-slim-\w+", image)


@pytest.mark.parametrize("path", ["serving/k8s/deployment.yaml", "docs/serving.md"])
def test_the_documented_build_has_what_the_cluster_needs(path: str) -> None:
    """The driver of a store that replicas share, and what reads the release's URL."""
    (line,) = re.findall(r"docker build (.+)", (ROOT / path).read_text(encoding="utf-8"))
    given = dict(re.findall(r"--build-arg (\w+)=(\S+)", line))
    assert given.keys() == {"EXTRAS", "PACKAGES"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = given["EXTRAS"].split(",")
    assert {"serve", "postgres"} <= set(extras) <= project["optional-dependencies"].keys()
    (url,) = re.findall(r"URL=(\w+)://", (SERVING / "k8s/kustomization.yaml").read_text(encoding="utf-8"))
    assert known_implementations[url]["class"].partition(".")[0] in given["PACKAGES"].split(",")
    assert {each["image"] for name in ALL_PODS for each in containers(name)} == {re.findall(r"-t (\S+)", line)[0]}


def test_the_image_is_built_from_what_the_wheel_needs() -> None:
    ignored = (SERVING / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (SERVING / "Dockerfile").read_text(), re.MULTILINE)
    assert {name for line in copied for name in line.split()} == kept
    for name in kept:
        assert (ROOT / name).exists()
    wheel = (ROOT / "pyproject.toml").read_text().partition("wheel.force-include]")[2].partition("\n[")[0]
    assert set(re.findall(r'^"([\w./]+)" =', wheel, re.MULTILINE)) <= kept


@pytest.mark.parametrize(
    "path",
    sorted([SERVING / "compose.yaml", SERVING / "prometheus.yml", *SERVING.glob("k8s/*.yaml"), SERVING / "Dockerfile"]),
    ids=lambda p: p.name,
)
def test_each_file_says_that_it_was_checked_and_not_run(path: Path) -> None:
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert re.search(r"hecked by tests/serving.*not (run|built)", header, re.DOTALL)

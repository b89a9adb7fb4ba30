"""Deployment files lead to each other: pods, services, volumes, the Secret, what Kustomize makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slimline.monitoring import servers
from tests.serving.manifests import ALL_PODS, PODS, RESOURCES, ROOT, containers, load, parsed, pod


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


def secret_keys(name: str) -> set[tuple[str, str]]:
    """Return (Secret, key) of everything that a pod reads from a Secret by its key."""
    references = [
        each["valueFrom"] for container in containers(name) for each in container.get("env", []) if "valueFrom" in each
    ]
    keys = {(each["secretKeyRef"]["name"], each["secretKeyRef"]["key"]) for each in references}
    volumes = [each["secret"] for each in pod(name)["volumes"] if "secret" in each]
    return keys | {(each["secretName"], item["key"]) for each in volumes for item in each["items"]}


@pytest.mark.parametrize("path", ["serving/k8s/deployment.yaml", "docs/serving.md"])
def test_the_documented_secret_has_every_key_that_a_pod_reads_and_no_other(path: str) -> None:
    (line,) = re.findall(r"kubectl create secret generic (.+)", (ROOT / path).read_text(encoding="utf-8"))
    name, *options = line.split()
    made = {(name, re.sub(r"--from-(file|literal)=", "", each).partition("=")[0]) for each in options}
    assert made == set.union(*map(secret_keys, ALL_PODS))
    assert (name, "probe-token") in secret_keys("probe")


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

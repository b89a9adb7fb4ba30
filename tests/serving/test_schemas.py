"""Deployment files are valid by the schemas of those who read them.

Kubernetes' own schemas come with kubernetes-validate, the Compose specification's with check-jsonschema. Kustomize and
prometheus-adapter publish none: the keys that our files use stand here. Prometheus has promtool.
"""

from __future__ import annotations

import json
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.monitoring.conftest import run
from tests.serving.manifests import CLUSTERS, RESOURCES, SERVING, load, misspelt


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

"""The InferenceService is valid by KServe's models.

They are read from the files of its Python SDK, generated from its CRDs, without importing it:
``pip install --no-deps kserve``.
"""

from __future__ import annotations

import ast
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.serving.manifests import CLUSTERS, load, misspelt


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

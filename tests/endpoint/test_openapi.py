"""The OpenAPI document: sound, complete, and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.testclient import TestClient

from slimline.endpoint.openapi import document
from tests.endpoint.conftest import Server

TOKEN = "schemathesis-token-1"  # noqa: S105
EXAMPLES = 40
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    negative_data_rejection, unsupported_method,
]  # fmt: skip


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_the_document_is_sound() -> None:
    api = document()
    schemas = api["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert references(api) == {f"#/components/schemas/{name}" for name in schemas}
    operations = [operation for path in api["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for path, methods in api["paths"].items():
        for operation in methods.values():
            declared = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_it_lists_every_route_and_no_other(client: TestClient) -> None:
    routes = {
        (route.path, method.lower())
        for route in client.app.routes  # type: ignore[attr-defined]
        for method in route.methods - {"HEAD"}
    }
    assert routes == {(path, method) for path, methods in document()["paths"].items() for method in methods}


def test_answers_have_the_promised_form(client: TestClient, rows: NDArray[np.float32]) -> None:
    api = client.get("/openapi.json").json()
    answer = client.post("/predict", json={"inputs": {"image": rows.tolist()}}).json()
    error = client.post("/predict", json={}).json()
    for name, instance in (("Predictions", answer), ("Error", error)):
        jsonschema.validate(instance, {"$ref": f"#/components/schemas/{name}", "components": api["components"]})


def test_binary_tensors_are_declared_as_they_come_and_go(client: TestClient, rows: NDArray[np.float32]) -> None:
    tensor = {"name": "image", "shape": rows.shape, "datatype": "FP32", "parameters": {"binary_data_size": rows.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    answer = client.post("/v2/models/digits/infer", content=head + rows.tobytes(), headers=headers)
    assert answer.status_code == 200, answer.text
    infer = document()["paths"]["/v2/models/{model}/infer"]["post"]
    asked, answered = infer["requestBody"]["content"], infer["responses"]["200"]
    assert headers.keys() <= {"content-type", *(each["name"] for each in infer["parameters"])}
    assert headers["content-type"] in asked
    assert answer.headers["content-type"] in answered["content"]
    assert answer.headers.keys() - {"content-type", "content-length"} == answered["headers"].keys()


@pytest.mark.e2e
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.name)
def test_generated_requests_find_no_hole(listen: Callable[..., Server], tmp_path: Path, mode: GenerationMode) -> None:
    server = listen(event_store=f"sqlite:///{tmp_path}/events.db", tokens=f"admin,predict,feedback {TOKEN}")
    loaded = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [each.ok() for each in loaded.get_all_operations()]
    assert {each.path for each in operations} == document()["paths"].keys() - {"/openapi.json"}
    if mode is GenerationMode.NEGATIVE:  # any path is a sound one: only bodies can be wrong
        operations = [each for each in operations if len(each.body)]
    for operation in operations:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, checks=CHECKS)

        ask()

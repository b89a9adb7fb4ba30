"""The Open Inference Protocol: the real Triton client over a real socket, and what it would never send."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from starlette.testclient import TestClient

from slimline.manifest import digest
from slimline.predictor import Predictor
from tests.endpoint.conftest import Serve, Server


@pytest.fixture
def logits(release: Path, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    predictor = Predictor(release, threads=1)
    found: NDArray[np.float32] = predictor.predict({"image": rows})["logits"]
    predictor.close()
    return found


def test_the_triton_client_works(
    listen: Callable[..., Server], release: Path, rows: NDArray[np.float32], logits: NDArray[np.float32]
) -> None:
    server = listen()
    client = triton.InferenceServerClient(server.address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("default", digest(release)[7:19])
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("digits")
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    for binary_in in (True, False):
        image = triton.InferInput("image", list(rows.shape), "FP32")
        image.set_data_from_numpy(rows, binary_data=binary_in)
        for outputs in (None, *([triton.InferRequestedOutput("logits", binary_data=flag)] for flag in (True, False))):
            result = client.infer("digits", [image], outputs=outputs, request_id="mine")
            np.testing.assert_allclose(result.as_numpy("logits"), logits, rtol=1e-4, atol=1e-5)
            response = result.get_response()
            assert (response["id"], response["parameters"]["revision"]) == ("mine", digest(release))
    with pytest.raises(triton.InferenceServerException, match="no such model"):
        client.infer("other", [image])
    wrong = triton.InferInput("image", [1, 1, 8, 9], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 1, 8, 9), np.float32))
    with pytest.raises(triton.InferenceServerException, match="axis 3 has size 9, expected 8"):
        client.infer("digits", [wrong])
    client.close()


def test_the_platform_is_the_runtime_in_use(client: TestClient, serve: Serve) -> None:
    assert client.get("/v2/models/digits").json()["platform"] == "onnxruntime_onnx"
    pytest.importorskip("openvino")
    assert serve(runtime="openvino").get("/v2/models/digits").json()["platform"] == "openvino"


def test_a_model_whose_runtime_is_away_is_not_ready(serve: Serve) -> None:
    """The process is."""
    client = serve()
    client.app.state.core.variants.primary.live.predictor.runtime.is_ready = lambda: False  # type: ignore[attr-defined]
    assert client.get("/v2/models/digits/ready").status_code == client.get("/v2/health/ready").status_code == 503
    assert client.get("/v2/health/live").status_code == client.get("/readyz").status_code == 200


def tensor(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64, **changes}]}


def test_doubles_are_taken_as_floats_and_nested_data_as_flat(client: TestClient) -> None:
    flat = client.post("/v2/models/digits/infer", json=tensor()).json()
    nested = [[[[0.5] * 8] * 8]]
    other = client.post("/v2/models/default/infer", json=tensor(datatype="FP64", data=nested)).json()
    assert flat["outputs"] == other["outputs"]
    assert flat["outputs"][0]["shape"] == [1, 10]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "expected a list of tensors"),
        ({"inputs": [1]}, "each tensor is an object"),
        (tensor(name="x"), "is unknown"),
        ({"inputs": tensor()["inputs"] * 2}, "given twice"),
        (tensor(datatype="FP31"), "datatype: expected one of"),
        (tensor(datatype=[]), "datatype: expected one of"),
        (tensor(datatype="INT64", data=[1.5] * 64), "expected int64 numbers"),
        (tensor(shape=[64]), "1 axes, expected 4"),
        (tensor(shape=[1, 1, 8, -8]), "shape: expected a list of sizes"),
        (tensor(shape=[1, 1, 8, 2**31]), "shape: expected a list of sizes"),
        (tensor(shape=[1] * 33, data=[0.5]), "1 values don't fill shape"),
        (tensor(data=[0.5] * 63), "63 values don't fill shape"),
        (tensor(data=None), "data: expected a list"),
        (tensor(parameters={"binary_data_size": 8}), "binary_data_size is not within the body"),
        (tensor() | {"outputs": [{"name": "x"}]}, '"outputs": expected a list'),
        (tensor() | {"outputs": "logits"}, '"outputs": expected a list'),
        (tensor() | {"id": 5}, '"id": expected printable text'),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(client: TestClient, document: Any, message: str) -> None:
    answer = client.post("/v2/models/digits/infer", json=document)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "100000", "9" * 5000], ids=lambda length: length[:6])
def test_a_head_outside_the_body_is_refused(client: TestClient, length: str) -> None:
    headers = {"inference-header-content-length": length}
    answer = client.post("/v2/models/digits/infer", content=json.dumps(tensor()), headers=headers)
    assert (answer.status_code, answer.json()["error"][:31]) == (400, "inference-header-content-length")


def test_bytes_that_belong_to_no_tensor_are_refused(client: TestClient) -> None:
    head = json.dumps(tensor()).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = client.post("/v2/models/digits/infer", content=head + b"1234", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "4 bytes of the body belong to no tensor")


def test_another_version_is_not_found(client: TestClient) -> None:
    assert client.get("/v2/models/digits/versions/000000000000").status_code == 404
    assert client.post("/v2/models/digits/versions/1/infer", json=tensor()).status_code == 404

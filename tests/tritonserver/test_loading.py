"""Explicit loading and unloading, restricted administration, and releases that must not load."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from slimline import manifest
from slimline.model_repository.repository import Options, write
from slimline.predictor import Predictor

from .conftest import MODEL, Server

PROTOCOLS = {"http": tritonclient.http, "grpc": tritonclient.grpc}


@pytest.fixture(scope="module")
def alone(serve: Callable[..., Server], two_releases: tuple[Path, Path]) -> Server:
    """One release, and a server that nobody else uses."""
    return serve([two_releases[0]], largest=16)


@pytest.fixture(params=PROTOCOLS)
def client(request: pytest.FixtureRequest, alone: Server) -> Iterator[Any]:
    module: ModuleType = PROTOCOLS[request.param]
    made = module.InferenceServerClient(getattr(alone, request.param))
    yield made
    made.close()


def answer(client: Any, rows: NDArray[np.float32], version: str = "") -> NDArray[np.float32]:
    module = tritonclient.http if isinstance(client, tritonclient.http.InferenceServerClient) else tritonclient.grpc
    sent = module.InferInput("image", list(rows.shape), "FP32")
    sent.set_data_from_numpy(rows)
    found: NDArray[np.float32] = client.infer(MODEL, [sent], version).as_numpy("logits")
    return found


def test_a_model_is_unloaded_and_loaded_again(client: Any, rows: NDArray[np.float32]) -> None:
    before = answer(client, rows)
    client.unload_model(MODEL)
    with pytest.raises(InferenceServerException, match="has no available versions"):
        answer(client, rows)
    client.load_model(MODEL)
    np.testing.assert_array_equal(answer(client, rows), before)


def test_the_next_release_is_loaded_beside_the_first_and_taken_back(
    client: Any, alone: Server, two_releases: tuple[Path, Path], rows: NDArray[np.float32]
) -> None:
    expected = [Predictor(each, threads=1).predict({"image": rows})["logits"] for each in two_releases]
    options = Options(backend="python", largest=16)
    write(two_releases, alone.repository, options)
    client.load_model(MODEL)
    for version in (1, 2):
        np.testing.assert_allclose(answer(client, rows, str(version)), expected[version - 1], rtol=1e-5, atol=1e-5)
    write(two_releases[:1], alone.repository, options)
    client.load_model(MODEL)
    np.testing.assert_allclose(answer(client, rows), expected[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(InferenceServerException, match="version 2 is not at ready state"):
        answer(client, rows, "2")


def test_a_damaged_release_is_not_loaded_and_the_reason_is_told(
    client: Any, alone: Server, two_releases: tuple[Path, Path], rows: NDArray[np.float32]
) -> None:
    before = answer(client, rows)
    write(two_releases, alone.repository, Options(backend="python", largest=16))
    path = alone.repository / MODEL / "2" / "export" / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InferenceServerException, match=r"model\.onnx: wrong digest, its bytes changed"):
        client.load_model(MODEL)
    np.testing.assert_array_equal(answer(client, rows, "1"), before)
    write(two_releases[:1], alone.repository, Options(backend="python", largest=16))
    client.load_model(MODEL)


def test_administration_needs_the_header(serve: Callable[..., Server], two_releases: tuple[Path, Path]) -> None:
    server = serve([two_releases[0]], variables={"TRITON_ADMIN": "x-admin=let-me-in"})
    path = f"/v2/repository/models/{MODEL}/unload"
    assert server.get(path, b"{}")[0] in {401, 403}
    with (
        tritonclient.grpc.InferenceServerClient(server.grpc) as client,
        pytest.raises(InferenceServerException, match="restricted"),
    ):
        client.unload_model(MODEL)
    config = json.loads(server.get(f"/v2/models/{MODEL}/config")[1])
    assert config["parameters"]["revision.1"]["string_value"] == manifest.digest(two_releases[0])
    assert server.get(path, b"{}", **{"x-admin": "let-me-in"})[0] == 200

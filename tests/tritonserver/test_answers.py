"""Answers of the real server over HTTP and gRPC, from arrays and from raw images."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from slimline import manifest, preprocess
from slimline.predictor import Predictor

from .conftest import MODEL, PYTHON, Server

PROTOCOLS = {"http": tritonclient.http, "grpc": tritonclient.grpc}
Ask = Callable[..., Any]


@pytest.fixture(params=PROTOCOLS)
def ask(request: pytest.FixtureRequest, server: Server) -> Any:
    """Send one array to a model and return tritonclient's result."""
    module: ModuleType = PROTOCOLS[request.param]
    client = module.InferenceServerClient(getattr(server, request.param))

    def send(model: str, name: str, array: NDArray[Any], datatype: str, version: str = "", **more: Any) -> Any:
        sent = module.InferInput(name, list(array.shape), datatype)
        sent.set_data_from_numpy(array)
        outputs = [module.InferRequestedOutput("logits", **more)]
        return client.infer(model, [sent], version, outputs)

    yield send
    client.close()


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


NOISE = png(np.random.default_rng(0).integers(0, 256, (30, 30), np.uint8))


def raw(*values: bytes) -> NDArray[Any]:
    return np.array([[each] for each in values], object)


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Five images of several sizes: the preprocessing resizes them."""
    draw = np.random.default_rng(0)
    return [png(draw.integers(0, 256, (size, size + 3), np.uint8)) for size in (5, 8, 13, 30, 64)]


def test_the_server_has_neither_slimline_nor_torch() -> None:
    code = "from importlib.util import find_spec; assert not find_spec('slimline') and not find_spec('torch')"
    subprocess.run([PYTHON, "-c", code], check=True)


@pytest.mark.parametrize("version", [1, 2])
def test_each_version_answers_as_its_releases_predictor(
    ask: Ask, two_releases: tuple[Path, Path], rows: NDArray[np.float32], version: int
) -> None:
    found = ask(MODEL, "image", rows, "FP32", str(version))
    expected = Predictor(two_releases[version - 1], threads=1).predict({"image": rows})["logits"]
    np.testing.assert_allclose(found.as_numpy("logits"), expected, rtol=1e-5, atol=1e-5)


def test_the_versions_differ_and_the_newest_answers_by_default(ask: Ask, rows: NDArray[np.float32]) -> None:
    first, second, default = (
        ask(MODEL, "image", rows, "FP32", version).as_numpy("logits") for version in ("1", "2", "")
    )
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(second, default)


@pytest.mark.parametrize(("model", "version"), [("digits-raw", 2), ("digits-raw-v1", 1)])
def test_raw_images_go_through_the_ensemble(
    ask: Ask, two_releases: tuple[Path, Path], pictures: list[bytes], model: str, version: int
) -> None:
    release = two_releases[version - 1]
    inputs = preprocess.run(manifest.read_json(release / "chain" / "distill" / "preprocess.json"), pictures)
    expected = Predictor(release, threads=1).predict(inputs)["logits"]
    found = ask(model, "raw", raw(*pictures), "BYTES")
    np.testing.assert_allclose(found.as_numpy("logits"), expected, rtol=1e-5, atol=1e-5)


def test_labels_come_by_the_classification_extension(
    ask: Ask, two_releases: tuple[Path, Path], rows: NDArray[np.float32]
) -> None:
    predictor = Predictor(two_releases[1], threads=1)
    expected = predictor.predict({"image": rows[:1]})["logits"][0]
    (best,) = ask(MODEL, "image", rows[:1], "FP32", class_count=1).as_numpy("logits").ravel()
    score, index, label = best.decode().split(":")
    assert (int(index), label) == (int(expected.argmax()), predictor.signature["labels"][int(expected.argmax())])
    assert float(score) == pytest.approx(float(expected.max()), rel=1e-4)


@pytest.mark.parametrize(
    ("array", "datatype", "model", "name", "message"),
    [
        pytest.param(raw(b"no image"), "BYTES", "digits-raw", "raw", "image 0: not an image", id="no image"),
        pytest.param(raw(NOISE[:200]), "BYTES", "digits-raw", "raw", "image 0: can't be decoded", id="damaged image"),
        pytest.param(
            raw(*[png(np.zeros((4096, 4096), np.uint8))] * 5),
            "BYTES",
            "digits-raw",
            "raw",
            "pixels together",
            id="bombs together",
        ),
        pytest.param(
            raw(png(np.zeros((5000, 5000), np.uint8))), "BYTES", "digits-raw", "raw", "image 0: more than", id="bomb"
        ),
        pytest.param(
            np.full((1, 1, 8, 8), np.nan, np.float32), "FP32", MODEL, "image", "input 'image': holds NaN", id="NaN"
        ),
        pytest.param(np.zeros((1, 1, 8, 9), np.float32), "FP32", MODEL, "image", "unexpected shape", id="shape"),
        pytest.param(np.zeros((1, 1, 8, 8), np.float64), "FP64", MODEL, "image", "data-type", id="dtype"),
        pytest.param(np.zeros((17, 1, 8, 8), np.float32), "FP32", MODEL, "image", "must be <= 16", id="batch"),
    ],
)
def test_bad_input_is_the_clients_mistake_in_one_line(
    ask: Ask, array: NDArray[Any], datatype: str, model: str, name: str, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        ask(model, name, array, datatype)
    assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}
    assert "Traceback" not in str(caught.value)
    assert ".py" not in str(caught.value)


def test_requests_that_arrive_together_run_as_one_batch(server: Server, ask: Ask, rows: NDArray[np.float32]) -> None:
    def counts() -> tuple[float, float]:
        names = ("nv_inference_count", "nv_inference_exec_count")
        count, executions = (server.metric(name, model=MODEL, version="1") for name in names)
        return count, executions

    one_by_one = [ask(MODEL, "image", row[None], "FP32", "1").as_numpy("logits")[0] for row in rows]
    before = counts()
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:

        def infer(row: NDArray[np.float32]) -> NDArray[np.float32]:
            sent = tritonclient.grpc.InferInput("image", [1, 1, 8, 8], "FP32")
            sent.set_data_from_numpy(row[None])
            found: NDArray[np.float32] = client.infer(MODEL, [sent], "1").as_numpy("logits")[0]
            return found

        with ThreadPoolExecutor(len(rows)) as pool:
            together = list(pool.map(infer, rows))
    after = counts()
    assert after[0] - before[0] == len(rows)
    assert after[1] - before[1] <= len(rows) / 2
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-4)


def test_in_a_batch_a_bad_request_fails_alone(server: Server, rows: NDArray[np.float32]) -> None:
    damaged = rows.copy()
    damaged[3] = np.nan
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:

        def infer(row: NDArray[np.float32]) -> str:
            sent = tritonclient.grpc.InferInput("image", [1, 1, 8, 8], "FP32")
            sent.set_data_from_numpy(row[None])
            try:
                client.infer(MODEL, [sent], "1")
            except InferenceServerException as error:
                return str(error.message())
            return ""

        with ThreadPoolExecutor(len(rows)) as pool:
            said = list(pool.map(infer, damaged))
    assert [index for index, each in enumerate(said) if each] == [3]
    assert said[3] == "input 'image': holds NaN or infinity"


def test_an_answers_version_leads_to_its_revision(
    server: Server, ask: Ask, two_releases: tuple[Path, Path], rows: NDArray[np.float32]
) -> None:
    found = ask(MODEL, "image", rows, "FP32").get_response()
    version = found["model_version"] if isinstance(found, dict) else found.model_version
    parameters = json.loads(server.get(f"/v2/models/{MODEL}/config")[1])["parameters"]
    assert parameters[f"revision.{version}"]["string_value"] == manifest.digest(two_releases[1])


def test_latencies_are_among_the_metrics(server: Server, ask: Ask, rows: NDArray[np.float32]) -> None:
    ask(MODEL, "image", rows, "FP32")
    assert server.metric("nv_inference_request_summary_us_count", model=MODEL, version="2") >= 1
    assert 0 < server.metric("nv_inference_request_summary_us", model=MODEL, version="2", quantile="0.99") < 10e6

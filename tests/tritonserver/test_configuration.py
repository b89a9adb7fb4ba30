"""What config.pbtxt says is what the real server does: policy, instances, warm-up; and text through the ensemble."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from slimline import manifest, preprocess
from slimline.predictor import Predictor
from tests.letters import installed, release_of_text

from .conftest import MODEL, Server

Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def first_alone(serve: Serve, two_releases: tuple[Path, Path]) -> Server:
    """Two releases of which the first is served, by two instances of it."""
    return serve(list(two_releases), "--log-verbose=1", served=(1,), instances=2, largest=16)


def test_the_version_policy_is_kept(first_alone: Server, rows: NDArray[np.float32]) -> None:
    with tritonclient.http.InferenceServerClient(first_alone.http) as client:
        assert client.is_model_ready(MODEL, "1")
        assert not client.is_model_ready(MODEL, "2")
        assert client.get_model_metadata(MODEL)["versions"] == ["1"]
        models = {each["name"]: each for each in client.get_model_repository_index()}
        assert models["digits-raw-v1"]["state"] == "READY"
        assert "digits-raw" not in models


def test_as_many_instances_run_as_are_configured(first_alone: Server) -> None:
    config = json.loads(first_alone.get(f"/v2/models/{MODEL}/config")[1])
    (group,) = config["instance_group"]
    assert (group["count"], group["kind"]) == (2, "KIND_CPU")
    log = first_alone.log.read_text()
    for number in range(2):
        assert f"TRITONBACKEND_ModelInstanceInitialize: {MODEL}_0_{number} (CPU device 0)" in log


def test_every_instance_was_warmed_up_before_it_was_ready(first_alone: Server) -> None:
    """By golden rows, alone and in each preferred size."""
    config = json.loads(first_alone.get(f"/v2/models/{MODEL}/config")[1])
    samples = [each["name"] for each in config["model_warmup"]]
    assert samples[0] == "golden row × 1"
    log = first_alone.log.read_text()
    for number in range(2):
        for sample in samples:
            ran = f"model '{MODEL}' instance {MODEL}_0_{number} is running warmup sample '{sample}'"
            assert ran in log
            assert log.index(ran) < log.index("Started HTTPService")
    rows = sum(int(each["batch_size"]) for each in config["model_warmup"])
    assert first_alone.metric("nv_inference_count", model=MODEL, version="1") == 2 * rows, "nobody asked yet"


@pytest.fixture(scope="module")
def of_text(
    serve: Serve, two_releases: tuple[Path, Path], resealed: Callable[..., Path], tmp_path_factory: Any
) -> Iterator[tuple[Server, Path]]:
    """A release whose raw input is text, read by an installed plug-in's step, which travels with the repository."""
    folder = tmp_path_factory.mktemp("text")
    with installed(folder / "packages"):
        release = release_of_text(two_releases[0], folder / "release", resealed)
        yield serve([release], largest=16), release


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_raw_text_goes_through_the_ensemble(of_text: tuple[Server, Path], protocol: str) -> None:
    server, release = of_text
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
    texts = ["", "a short one", "Käse ☃ " * 40]
    inputs = preprocess.run(manifest.read_json(release / "chain" / "distill" / "preprocess.json"), texts)
    expected = Predictor(release, threads=1).predict(inputs)["logits"]

    def ask(values: list[bytes]) -> NDArray[np.float32]:
        sent = module.InferInput("raw", [len(values), 1], "BYTES")
        sent.set_data_from_numpy(np.array([[each] for each in values], object))
        with module.InferenceServerClient(getattr(server, protocol)) as client:
            found: NDArray[np.float32] = client.infer(f"{MODEL}-raw", [sent]).as_numpy("logits")
            return found

    np.testing.assert_allclose(ask([each.encode() for each in texts]), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(InferenceServerException, match="text 1: no UTF-8") as caught:
        ask([b"fine", b"\xff"])
    assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}

"""POST /predict: every form of input, the contract's answer, and one line for what can't be read."""

from __future__ import annotations

import base64
import io
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from slimline.endpoint import codecs
from slimline.manifest import digest
from slimline.predictor import Predictor
from tests.endpoint.conftest import Serve, Server

OCTETS = {"content-type": "application/octet-stream"}


def png(size: tuple[int, int] = (8, 8), value: int = 128) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size, value).save(stream, "PNG")
    return stream.getvalue()


def test_the_answer_is_the_predictors(client: TestClient, release: Path, rows: NDArray[np.float32]) -> None:
    predictor = Predictor(release, threads=1)
    logits = predictor.predict({"image": rows})["logits"]
    predictor.close()
    answer = client.post("/predict", json={"inputs": {"image": rows.tolist()}, "id": "mine"})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["id"], found["revision"], found["variant"]) == ("mine", digest(release), "default")
    assert [each["label"] for each in found["predictions"]] == [str(index) for index in logits.argmax(1)]
    probabilities = np.array([list(each["probabilities"].values()) for each in found["predictions"]])
    exact = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(probabilities, exact / exact.sum(1, keepdims=True), rtol=1e-4, atol=1e-7)


def test_binary_bodies_are_answered_as_json_is(client: TestClient, rows: NDArray[np.float32]) -> None:
    expected = client.post("/predict", json={"inputs": {"image": rows.tolist()}}).json()["predictions"]
    stream = io.BytesIO()
    np.save(stream, rows)
    as_npy = client.post("/predict", content=stream.getvalue(), headers={**OCTETS, "slimline-id": "x"}).json()
    assert as_npy["id"] == "x"
    shape = ",".join(map(str, rows.shape))
    headers = {**OCTETS, "slimline-dtype": "float32", "slimline-shape": shape, "slimline-input": "image"}
    as_raw = client.post("/predict", content=rows.tobytes(), headers=headers).json()
    wide = headers | {"slimline-dtype": "float64"}
    as_double = client.post("/predict", content=rows.astype(np.float64).tobytes(), headers=wide).json()
    assert as_npy["predictions"] == as_raw["predictions"] == as_double["predictions"] == expected


def test_one_row_needs_no_batch_axis(client: TestClient, rows: NDArray[np.float32]) -> None:
    found = client.post("/predict", json={"inputs": {"image": rows[0].tolist()}})
    assert len(found.json()["predictions"]) == 1


def test_raw_images_run_the_releases_own_preprocessing(client: TestClient) -> None:
    image = png((20, 30))
    found = client.post("/predict", json={"raw": [base64.b64encode(image).decode()] * 2})
    assert found.status_code == 200, found.text
    assert len(found.json()["predictions"]) == 2
    direct = client.post("/predict", content=image, headers={"content-type": "image/png"})
    assert direct.json()["predictions"] == found.json()["predictions"][:1]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, 'either "inputs" or "raw"'),
        ({"inputs": {}, "raw": []}, 'either "inputs" or "raw"'),
        ({"inputs": {}, "ids": 1}, '"ids": unknown key'),
        ({"inputs": []}, "expected an object of arrays"),
        ({"inputs": {}}, "input 'image' is missing"),
        ({"inputs": {"picture": []}}, "input 'image' is missing|input 'picture' is unknown"),
        ({"inputs": {"image": [[[[0.0]]]]}}, "axis 2 has size 1, expected 8"),
        ({"inputs": {"image": "abc"}}, "nested 0 deep"),
        (
            {"inputs": {"image": [[[*[[0.0] * 8] * 7, [*[0.0] * 7, [0.0]]]]]}},
            r"input 'image': a list at \[0, 0, 7, 7\], where one value is expected",
        ),
        ({"raw": []}, "one or more values"),
        ({"raw": [1]}, "row 0: expected an image file as base64"),
        ({"raw": ["%%%"]}, "row 0: not valid base64"),
        ({"raw": ["aGVsbG8="]}, "row 0: not an image"),
        ({"raw": ["aGVsbG8="], "id": ""}, '"id": expected printable text'),
        ({"raw": ["aGVsbG8="], "id": "a\nb"}, '"id": expected printable text'),
        ({"raw": ["aGVsbG8="], "id": "a" * 129}, '"id": expected printable text'),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(client: TestClient, document: Any, message: str) -> None:
    answer = client.post("/predict", json=document)
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}
    assert "\n" not in answer.json()["error"]
    assert re.search(message, answer.json()["error"])


def test_nan_and_infinity_are_refused(client: TestClient, rows: NDArray[np.float32]) -> None:
    for value in (np.nan, np.inf):
        bad = rows.copy()
        bad[3, 0, 2, 2] = value
        stream = io.BytesIO()
        np.save(stream, bad)
        answer = client.post("/predict", content=stream.getvalue(), headers=OCTETS)
        assert (answer.status_code, answer.json()["error"]) == (400, "input 'image': holds NaN or infinity")
    huge = rows[:1].tolist()
    huge[0][0][0][0] = 1e300  # infinite as float32
    answer = client.post("/predict", json={"inputs": {"image": huge}})
    assert (answer.status_code, answer.json()["error"]) == (400, "input 'image': holds NaN or infinity")


def test_limits_are_kept(serve: Serve, rows: NDArray[np.float32]) -> None:
    client = serve(max_body_bytes=4000, max_rows=2, max_pixels=100)
    three = client.post("/predict", content=rows[:3].tobytes(), headers={**OCTETS, "slimline-shape": "3,1,8,8"})
    assert (three.status_code, "at most 2" in three.text) == (400, True)
    large = client.post("/predict", content=b"[" * 4001, headers={"content-type": "application/json"})
    assert (large.status_code, large.json()["error"]) == (413, "the body is larger than 4000 bytes")
    chunked = client.post("/predict", content=iter([b"[" * 3000, b"[" * 3000]))
    assert chunked.status_code == 413
    bomb = client.post("/predict", content=png((11, 10)), headers={"content-type": "image/png"})
    assert (bomb.status_code, "pixels" in bomb.text) == (413, True)
    packed = client.post("/predict", content=b"x", headers={"content-encoding": "gzip"})
    assert packed.status_code == 415
    other = client.post("/predict", content=b"x", headers={"content-type": "application/x-yaml"})
    assert other.status_code == 415


def test_a_decompression_bomb_is_refused_by_its_head(client: TestClient) -> None:
    """A PNG of 30,000 × 30,000 black pixels is 110 kB; decoding it would take 900 MB."""
    stream = io.BytesIO()
    Image.MAX_IMAGE_PIXELS, before = None, Image.MAX_IMAGE_PIXELS
    try:
        Image.new("1", (30_000, 30_000)).save(stream, "PNG")
    finally:
        Image.MAX_IMAGE_PIXELS = before
    answer = client.post("/predict", content=stream.getvalue(), headers={"content-type": "image/png"})
    assert answer.status_code == 413


def test_unknown_paths_and_methods_are_json(client: TestClient) -> None:
    assert client.get("/nope").json() == {"error": "Not Found"}
    slash = client.get("/readyz/", headers={"host": "evil.example"}, follow_redirects=False)  # no word of the host's
    assert (slash.status_code, slash.json()) == (404, {"error": "Not Found"})
    wrong = client.get("/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_a_failure_shows_no_stack_trace(client: TestClient, rows: NDArray[np.float32], monkeypatch: Any) -> None:
    core = client.app.state.core  # type: ignore[attr-defined]

    def broken(*_: Any) -> Any:
        raise RuntimeError("secret path /srv")

    monkeypatch.setattr(core.variants.primary.live.batcher, "_run", broken)
    answer = client.post("/predict", json={"inputs": {"image": rows.tolist()}})
    assert (answer.status_code, answer.json()) == (500, {"error": "the server failed; its log says why"})


@pytest.mark.parametrize("path", ["/predict", "/v2/models/digits/infer"])
def test_a_large_body_holds_up_nobody_else(
    listen: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """While its numbers are read, /livez answers."""
    reads, answered = threading.Event(), threading.Event()
    from_flat = codecs.from_flat

    def slow(*args: Any) -> Any:
        reads.set()
        assert answered.wait(10), "/livez didn't answer"
        return from_flat(*args)

    server = listen()
    monkeypatch.setattr(codecs, "from_flat", slow)
    image = np.random.default_rng(0).random((1024, 1, 8, 8)).tolist()
    tensor = {"name": "image", "shape": [1024, 1, 8, 8], "datatype": "FP64", "data": image}
    sent = {"inputs": {"image": image} if path == "/predict" else [tensor]}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.post, f"{server.url}{path}", json=sent, timeout=30)
        assert reads.wait(10)
        assert httpx.get(f"{server.url}/livez", timeout=5).status_code == 200
        answered.set()
        assert asked.result().status_code == 200

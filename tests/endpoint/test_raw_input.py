"""The task's raw input: text by a plug-in's own step, images within their limits."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from slimline import manifest, preprocess
from slimline.predictor import Predictor
from tests.endpoint.conftest import Serve
from tests.endpoint.test_predict import png
from tests.letters import installed, release_of_text


@pytest.fixture
def text(release: Path, resealed: Callable[..., Path], tmp_path: Path) -> Iterator[Path]:
    """A release whose raw input is text."""
    with installed(tmp_path / "packages"):
        yield release_of_text(release, tmp_path / "release", resealed)


def test_text_goes_through_the_releases_own_steps(serve: Serve, text: Path) -> None:
    client = serve(release=text)
    values = ["", "a short one", "Käse ☃ " * 40]
    answer = client.post("/predict", json={"raw": values})
    assert answer.status_code == 200, answer.text
    predictor = Predictor(text, threads=1)
    inputs = preprocess.run(manifest.read_json(text / "chain" / "distill" / "preprocess.json"), values)
    logits = predictor.predict(inputs)["logits"]
    predictor.close()
    assert [each["label"] for each in answer.json()["predictions"]] == [str(each) for each in logits.argmax(1)]
    assert len({str(each["probabilities"]) for each in answer.json()["predictions"]}) == 3


@pytest.mark.parametrize(
    ("raw", "status", "message"),
    [
        (["a" * 101], 413, '"raw": row 0: more than 100 characters'),
        (["fine", 5], 400, '"raw": row 1: expected text'),
        (["a"] * 5, 400, '"raw": 5 rows, at most 4 are taken at once'),
        ("a", 400, '"raw": expected a list of one or more values'),
    ],
)
def test_text_has_its_limits(serve: Serve, text: Path, raw: Any, status: int, message: str) -> None:
    client = serve(release=text, max_text_chars=100, max_rows=4)
    answer = client.post("/predict", json={"raw": raw})
    assert (answer.status_code, answer.json()) == (status, {"error": message})


def test_an_image_for_a_release_that_reads_text_is_refused(serve: Serve, text: Path) -> None:
    answer = serve(release=text).post("/predict", content=png(), headers={"content-type": "image/png"})
    assert (answer.status_code, "expected application/json" in answer.text) == (415, True)


def test_an_op_that_nobody_installed_stops_the_request_in_one_line(
    serve: Serve, release: Path, resealed: Callable[..., Path], tmp_path: Path
) -> None:
    with installed(tmp_path / "packages"):
        made = release_of_text(release, tmp_path / "release", resealed)
    answer = serve(release=made).post("/predict", json={"raw": ["a"]})
    assert (answer.status_code, "no plug-in 'letters'" in answer.json()["error"]) == (400, True)


def test_many_images_that_unpack_to_too_much_together_are_refused(serve: Serve) -> None:
    """Each alone is within the limit: 60 such of 4,096 × 4,096, a body of 1.3 MB, took 11 s and 700 MB."""
    client = serve(max_pixels=100, max_request_pixels=250)
    image = base64.b64encode(png((10, 10))).decode()
    assert client.post("/predict", json={"raw": [image] * 2}).status_code == 200
    refused = client.post("/predict", json={"raw": [image] * 3})
    assert (refused.status_code, "of more than 250 pixels together" in refused.text) == (413, True)


@pytest.mark.parametrize("kind", ["EPS", "PPM", "PCX", "ICNS"])
def test_formats_that_nobody_sends_are_not_read(client: TestClient, kind: str) -> None:
    """Pillow reads dozens, PostScript by running a program."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, kind)
    answer = client.post("/predict", content=stream.getvalue(), headers={"content-type": "image/x"})
    assert (answer.status_code, answer.json()) == (400, {"error": '"raw": row 0: not an image that can be read'})


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


WHOLE = {kind: encoded(kind) for kind in ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")}


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.tuples(st.floats(0, 0.999), st.binary(max_size=4)), max_size=4))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_image_is_answered_or_refused_in_one_line(
    client: TestClient, kind: str, damage: list[tuple[float, bytes]]
) -> None:
    image = bytearray(WHOLE[kind])
    for share, other in damage:
        at = int(share * len(image))
        image[at : at + len(other) or len(image)] = other  # nothing there: cut off
    answer = client.post("/predict", content=bytes(image), headers={"content-type": "image/x"})
    assert answer.status_code in {200, 400, 413}, answer.text
    assert answer.status_code == 200 or (answer.json().keys() == {"error"} and "\n" not in answer.json()["error"])

"""Whatever bytes and headers arrive, the answer is an answer or one line with a 4xx."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from starlette.testclient import TestClient

PATHS = ("/predict", "/feedback", "/v2/models/digits/infer", "/v2/models/default/versions/1/infer", "/admin/reload")
KINDS = ("application/json", "application/octet-stream", "image/png", "text/plain", "", "application/json;x=\xff")
NUMBERS = st.sampled_from(["-1", "0", "7", "99999999999999999999", "9" * 5000, "x", "", "1e3", "1,1,8,8", "٣"])
HEADERS = st.dictionaries(
    st.sampled_from([
        "slimline-dtype", "slimline-shape", "slimline-input", "slimline-id", "inference-header-content-length",
        "content-encoding", "authorization",
    ]),
    NUMBERS | st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12),
    max_size=3,
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
KEYS = st.sampled_from(["inputs", "raw", "id", "label", "labels", "index", "outputs", "parameters", "name", "shape"])


def sound(answer: Any) -> None:
    """Hold an answer to what is promised for any request."""
    assert answer.status_code < 500 or answer.status_code == 503, answer.text
    if answer.status_code >= 400:
        assert answer.json().keys() == {"error"}
        assert "\n" not in answer.json()["error"]
        assert len(answer.text) < 1000
        assert ".py" not in answer.text


CAREFUL = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.sampled_from(PATHS), st.sampled_from(KINDS), st.binary(max_size=200), HEADERS)
@CAREFUL
def test_any_body_and_headers(client: TestClient, path: str, kind: str, body: bytes, headers: dict[str, str]) -> None:
    sent = {name: value.encode("utf-8") for name, value in headers.items()} | {"content-type": kind.encode("latin-1")}
    sound(client.post(path, content=body, headers=sent))  # type: ignore[arg-type]


@given(st.sampled_from(PATHS), st.dictionaries(KEYS, VALUES, max_size=4))
@CAREFUL
def test_any_json_object(client: TestClient, path: str, document: dict[str, Any]) -> None:
    sound(client.post(path, content=json.dumps(document), headers={"content-type": "application/json"}))


@given(at=st.floats(0, 0.999), other=st.binary(min_size=1, max_size=8), length=st.integers(-3, 3))
@CAREFUL
def test_a_binary_tensor_whose_bytes_changed(
    client: TestClient, rows: NDArray[np.float32], at: float, other: bytes, length: int
) -> None:
    data = rows[:2].tobytes()
    tensor = {
        "name": "image", "shape": [2, 1, 8, 8], "datatype": "FP32", "parameters": {"binary_data_size": len(data)},
    }  # fmt: skip
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    body = bytearray(head + data)
    place = int(at * len(body))
    body[place : place + len(other)] = other
    headers = {"inference-header-content-length": str(len(head) + length)}
    answer = client.post("/v2/models/digits/infer", content=bytes(body), headers=headers)
    if answer.status_code != 200:
        sound(answer)


@pytest.mark.parametrize("path", ["/%0aERROR%20forged", "//etc/passwd", "/../../etc/passwd", "/%2e%2e/etc", "/%00"])
def test_no_path_leads_anywhere(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})

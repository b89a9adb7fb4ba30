"""One golden row as each of the bodies that servers take, and each server's answer back as probabilities."""

from __future__ import annotations

import json
import struct
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import manifest

JSON = {"Content-Type": "application/json"}
DATATYPES = {"float32": "FP32", "int64": "INT64"}
HEAD_LENGTH = "Inference-Header-Content-Length"
GRPC = {"content-type": "application/grpc", "te": "trailers"}


@dataclass(frozen=True)
class Body:
    """What is sent, and how to read what comes back: (body, headers) to rows × scores."""

    data: bytes
    headers: Mapping[str, str]
    read: Callable[[bytes, Mapping[str, str]], NDArray[Any]]


def golden(release: Path) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Return the first golden row's inputs and the last stage's outputs for it."""
    last = manifest.read_json(release / "card.json")["last"]
    with np.load(release / "golden.npz") as file:
        rows = {name.removeprefix("input/"): file[name][:1] for name in file.files if name.startswith("input/")}
        return rows, file[f"output/{last}"][:1]


def bodies(release: Path, model: str) -> dict[str, Body]:
    """Return the first golden row in every form, by the form's name."""
    rows, _ = golden(release)
    lists = {
        name: array.astype(float).round(4).tolist() if array.dtype.kind == "f" else array.tolist()
        for name, array in rows.items()
    }
    tensors = [
        {"name": name, "shape": list(array.shape), "datatype": DATATYPES[str(array.dtype)]}
        for name, array in rows.items()
    ]
    flat = [{**each, "data": np.ravel(lists[each["name"]]).tolist()} for each in tensors]
    sized = [{**each, "parameters": {"binary_data_size": rows[each["name"]].nbytes}} for each in tensors]
    head = json.dumps({"inputs": sized, "parameters": {"binary_data_output": True}}).encode()
    binary = {"Content-Type": "application/octet-stream", HEAD_LENGTH: str(len(head))}
    return {
        "inputs": Body(_json({"inputs": lists}), JSON, _predictions),
        "bento": Body(_json({"inputs": next(iter(lists.values()))}), JSON, _rows),
        "v2": Body(_json({"inputs": flat}), JSON, _v2),
        "v2-binary": Body(head + b"".join(array.tobytes() for array in rows.values()), binary, _v2_binary),
        "grpc": Body(_grpc(model, rows), GRPC, _v2),
    }


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


def _grpc(model: str, rows: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a ModelInferRequest as gRPC frames it: one byte "not compressed", four of length, the message."""
    from tritonclient.grpc import service_pb2

    message = service_pb2.ModelInferRequest(model_name=model)
    for name, array in rows.items():
        message.inputs.add(name=name, datatype=DATATYPES[str(array.dtype)], shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    data: bytes = message.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


def _predictions(body: bytes, _: Mapping[str, str]) -> NDArray[Any]:
    found = json.loads(body)["predictions"]
    return np.array([list(each["probabilities"].values()) for each in found])


def _rows(body: bytes, _: Mapping[str, str]) -> NDArray[Any]:
    return np.array(json.loads(body))


def _v2(body: bytes, _: Mapping[str, str]) -> NDArray[Any]:
    (output,) = json.loads(body)["outputs"]
    return np.array(output["data"]).reshape(output["shape"])


def _v2_binary(body: bytes, headers: Mapping[str, str]) -> NDArray[Any]:
    at = int(headers[HEAD_LENGTH])
    (output,) = json.loads(body[:at])["outputs"]
    return np.frombuffer(body[at:], np.float32).reshape(output["shape"])


def check(url: str, body: Body, expected: NDArray[Any]) -> None:
    """Send one request and compare: the same answer as the release's own, logits or their softmax.

    Raises AssertionError: a server that answers something else has no speed worth a table.
    """
    request = urllib.request.Request(url, body.data, dict(body.headers))
    with urllib.request.urlopen(request, timeout=30) as answer:
        found = body.read(answer.read(), answer.headers)
    wanted = odds(expected)
    given = found if np.allclose(found.sum(-1), 1, atol=1e-3) else odds(found)
    assert np.allclose(given, wanted, atol=0.02), f"{url} answers {given}, expected {wanted}"  # bodies are rounded


def odds(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the softmax over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    scaled: NDArray[Any] = powers / powers.sum(-1, keepdims=True)
    return scaled

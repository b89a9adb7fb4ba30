"""The Open Inference Protocol v2 (KServe, Triton): metadata, readiness and inference, JSON or binary tensors.

Source: github.com/kserve/open-inference-protocol, and Triton's binary tensor data extension.
A model's name is the release's task, which chooses among the variants, or a variant's own name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from slimline import __version__
from slimline.endpoint import codecs
from slimline.endpoint.core import Answered, Core
from slimline.endpoint.exchange import Exchange, RefusedError, Reply, json_reply
from slimline.endpoint.loaded import Loaded
from slimline.endpoint.predict import check_id
from slimline.endpoint.variants import Variant
from slimline.errors import InputError
from slimline.events import new_id
from slimline.predictor import Arrays

DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
BY_DTYPE = {np.dtype(dtype): datatype for dtype, datatype in DATATYPES.items()}  # a dtype's name is slow to make
HEAD_LENGTH = b"inference-header-content-length"
BINARY = b"application/octet-stream"
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}  # as Triton calls them; else the runtime


class OpenInference:
    """The protocol's routes."""

    def __init__(self, core: Core) -> None:
        self.core = core

    async def server(self, _: Exchange) -> Reply:
        """GET /v2"""
        return json_reply({"name": "slimline", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def live(self, _: Exchange) -> Reply:
        """GET /v2/health/live"""
        return json_reply({"live": True})

    async def ready(self, _: Exchange) -> Reply:
        """GET /v2/health/ready: every model would answer."""
        ready = self._takes_requests() and all([await each.live.is_ready() for each in self.core.variants.routed])
        return json_reply({"ready": ready}, 200 if ready else 503)

    async def model(self, exchange: Exchange) -> Reply:
        """GET /v2/models/NAME: inputs and outputs with their datatypes; -1 is an axis of any size."""
        live = self._variant(exchange, "").live
        return json_reply(
            {
                "name": exchange.path_params["model"],
                "versions": [live.short],
                "platform": PLATFORMS.get(live.predictor.runtime_name, live.predictor.runtime_name),
                "inputs": [_tensor(spec) for spec in live.signature["inputs"]],
                "outputs": [_tensor(spec) for spec in live.signature["outputs"]],
                "parameters": {
                    "revision": live.revision,
                    "labels": live.answers.labels or [],
                    **({"thresholds": live.answers.thresholds} if live.answers.thresholds else {}),
                },
            }
        )

    async def model_ready(self, exchange: Exchange) -> Reply:
        """GET /v2/models/NAME/ready: the model would answer, also where another server runs it."""
        live = self._variant(exchange, "").live
        ready = self._takes_requests() and await live.is_ready()
        return json_reply({"name": exchange.path_params["model"], "ready": ready}, 200 if ready else 503)

    async def infer(self, exchange: Exchange) -> Reply:
        """POST /v2/models/NAME/infer"""
        core = self.core
        with core.admitted(exchange, "predict"):
            body = await exchange.body(core.limits.max_body_bytes, core.limits.body_seconds, core.room)
            document, binary = await codecs.aside(len(body), _split, body, exchange.headers.get(HEAD_LENGTH))
            given = document.get("id")
            request_id = new_id() if given is None or given == "" else check_id(given, core)
            with self._variant(exchange, request_id).used() as live:
                inputs = await codecs.aside(len(body), self._inputs, document, binary, live)
                encode = _encoder(document, exchange.path_params["model"], live)
                return await core.infer(exchange, live, request_id, inputs, encode)

    def _takes_requests(self) -> bool:
        return self.core.ready and not self.core.draining

    def _variant(self, exchange: Exchange, request_id: str) -> Variant:
        """Return who answers for the model in the path. Raises RefusedError 404."""
        variants, params = self.core.variants, exchange.path_params
        model, version = params["model"], params.get("version")
        variant = variants.named(model)
        if variant is None and model == variants.primary.live.task:
            variant = variants.choose(request_id) if version is None and request_id else variants.primary
            if version is not None:
                variant = next((each for each in variants.routed if each.live.short == version), None)
        if variant is None or version not in {None, variant.live.short}:
            raise RefusedError(404, "no such model or version; GET /model lists them")
        return variant

    def _inputs(self, document: dict[str, Any], binary: memoryview, live: Loaded) -> Arrays:
        listed = codecs.opened(document.get("inputs"))
        if not isinstance(listed, list) or not listed:
            raise InputError('"inputs": expected a list of tensors')
        arrays: Arrays = {}
        at = 0
        for tensor in map(codecs.opened, listed):
            if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
                raise InputError('"inputs": each tensor is an object with name, shape, datatype and data')
            name = tensor["name"]
            if name not in live.specs or name in arrays:
                raise InputError(
                    f"input {name[:40]!r} is unknown or given twice; the model takes {', '.join(live.specs)}"
                )
            size = _parameter(tensor, "binary_data_size")
            data: Any = tensor.get("data")
            if size is not None:
                if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(binary) - at:
                    raise InputError(f"input {name!r}: binary_data_size is not within the body")
                data, at = binary[at : at + size], at + size
            arrays[name] = self._array(tensor, data, live.specs[name])
        if at != len(binary):
            raise InputError(f"{len(binary) - at} bytes of the body belong to no tensor")
        return arrays

    def _array(self, tensor: dict[str, Any], data: Any, spec: dict[str, Any]) -> Any:
        name, shape = tensor["name"], codecs.plain(tensor.get("shape"))
        datatype = tensor.get("datatype")
        dtype = DTYPES.get(datatype) if isinstance(datatype, str) else None
        if dtype is None:
            raise InputError(f"input {name!r}: datatype: expected one of {', '.join(DTYPES)}")
        if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
            raise InputError(f"input {name!r}: shape: expected a list of sizes")
        if isinstance(data, memoryview):
            return codecs.fit(codecs.from_raw(data, codecs.little_endian(dtype), shape, name), spec, self.core.limits)
        return codecs.fit(codecs.from_flat(data, dtype, shape, name), spec, self.core.limits)


def _tensor(spec: dict[str, Any]) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else -1 for size in spec["shape"]]
    return {"name": spec["name"], "datatype": DATATYPES.get(spec["dtype"], "BYTES"), "shape": shape}


def _parameter(holder: dict[str, Any], name: str) -> Any:
    parameters = codecs.plain(holder.get("parameters"))
    return parameters.get(name) if isinstance(parameters, dict) else None


def _split(body: bytes, head_length: bytes | None) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON head and the bytes behind it."""
    if head_length is None:
        return codecs.parse_json(body, unread="inputs"), memoryview(b"")
    if not head_length.isdigit() or len(head_length) > 12 or int(head_length) > len(body):
        raise InputError("inference-header-content-length: not a length within the body")
    at = int(head_length)
    return codecs.parse_json(body[:at], unread="inputs"), memoryview(body)[at:]


def _encoder(document: dict[str, Any], model: str, live: Loaded) -> Callable[[Answered], Reply]:
    """Return what writes the outputs that the request asks for, each as JSON or as binary."""
    known = [spec["name"] for spec in live.signature["outputs"]]
    every = _parameter(document, "binary_data_output") is True
    asked: list[tuple[str, Any]] = [(name, None) for name in known]
    if wanted := document.get("outputs"):
        if not isinstance(wanted, list) or not all(
            isinstance(each, dict) and each.get("name") in known for each in wanted
        ):
            raise InputError(f'"outputs": expected a list of objects with a name among {", ".join(known)}')
        asked = [(each["name"], _parameter(each, "binary_data")) for each in wanted]

    def encode(answered: Answered) -> Reply:
        outputs, blobs = [], []
        for name, flag in asked:
            array = answered.outputs[name]
            tensor: dict[str, Any] = {
                "name": name,
                "datatype": BY_DTYPE.get(array.dtype, "BYTES"),
                "shape": list(array.shape),
            }
            if (every if flag is None else flag is True) and not array.dtype.hasobject:
                blobs.append(np.ascontiguousarray(array).tobytes())
                tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                tensor["data"] = array.ravel().tolist()
            outputs.append(tensor)
        head = orjson.dumps(
            {
                "model_name": model,
                "model_version": live.short,
                "id": answered.id,
                "parameters": {"revision": live.revision, "variant": live.variant},
                "outputs": outputs,
            }
        )
        if not blobs:
            return Reply(head)
        return Reply(b"".join([head, *blobs]), 200, BINARY, {HEAD_LENGTH: b"%d" % len(head)})

    return encode

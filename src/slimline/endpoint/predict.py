"""POST /predict: JSON arrays, the task's raw input, npy, or raw bytes with dtype and shape in headers."""

from __future__ import annotations

from typing import Any

from slimline.endpoint import codecs, raw_input
from slimline.endpoint.core import Answered, Core
from slimline.endpoint.exchange import Exchange, RefusedError, Reply, json_reply
from slimline.endpoint.loaded import Loaded
from slimline.errors import InputError
from slimline.events import new_id
from slimline.predictor import Arrays

ID = b"slimline-id"
INPUT = b"slimline-input"
DTYPE = b"slimline-dtype"
SHAPE = b"slimline-shape"
JSON_KEYS = {"inputs", "raw", "id"}


class Predict:
    """Answers one request of one or many rows."""

    def __init__(self, core: Core) -> None:
        self.core = core

    async def __call__(self, exchange: Exchange) -> Reply:
        core = self.core
        with core.admitted(exchange, "predict"):
            body = await exchange.body(core.limits.max_body_bytes, core.limits.body_seconds, core.room)
            kind = exchange.headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
            is_json = kind == b"application/json"
            document = await codecs.aside(len(body), codecs.parse_json, body, unread="inputs") if is_json else None
            request_id = self._id(exchange, document)
            with core.variants.choose(request_id).used() as live:
                if document is None:
                    inputs = await self._binary(exchange, kind, body, live)
                else:
                    inputs = await self._document(document, body, live)
                return await core.infer(exchange, live, request_id, inputs, reply)

    def _id(self, exchange: Exchange, document: dict[str, Any] | None) -> str:
        given = document.get("id") if document is not None else None
        if given is None:
            header = exchange.headers.get(ID)
            return new_id() if header is None else check_id(header.decode("latin-1"), self.core)
        return check_id(given, self.core)

    async def _document(self, document: dict[str, Any], body: bytes, live: Loaded) -> Arrays:
        if unknown := document.keys() - JSON_KEYS:
            raise InputError(f'"{min(unknown)[:40]}": unknown key; a request has "inputs" or "raw", and "id"')
        if ("inputs" in document) == ("raw" in document):
            raise InputError('expected either "inputs" or "raw"')
        if "raw" in document:
            return await raw_input.arrays_of(document["raw"], live, self.core.limits)
        return await codecs.aside(len(body), self._arrays, document, body, live)

    def _arrays(self, document: dict[str, Any], body: bytes, live: Loaded) -> Arrays:
        given = codecs.opened(document["inputs"])
        if not isinstance(given, dict):
            raise InputError('"inputs": expected an object of arrays by input name')
        known = live.specs
        if given.keys() != known.keys():
            odd = min(given.keys() ^ known.keys())
            raise InputError(
                f"input {odd[:40]!r} is {'missing' if odd in known else 'unknown'}; the model takes {', '.join(known)}"
            )
        return codecs.from_lists(given, known, body, self.core.limits)

    async def _binary(self, exchange: Exchange, kind: bytes, body: bytes, live: Loaded) -> Arrays:
        limits, headers = self.core.limits, exchange.headers
        if kind.startswith(b"image/") and raw_input.is_image(live):
            return await raw_input.decoded([body], live, limits)
        if kind != b"application/octet-stream":
            raise RefusedError(415, "expected application/json, application/octet-stream or an image")
        name = headers.get(INPUT, b"").decode("latin-1") or next(iter(live.specs))
        if name not in live.specs or len(live.specs) > 1:
            raise InputError(f"one input a body: the model takes {', '.join(live.specs)}; send several as JSON or v2")
        spec = live.specs[name]
        if DTYPE in headers or SHAPE in headers:
            dtype = headers.get(DTYPE, spec["dtype"].encode()).decode("latin-1")
            shape = codecs.shape_from(headers.get(SHAPE, b""), name)
            array = codecs.from_raw(body, codecs.little_endian(dtype), shape, name)
            return {name: codecs.fit(array, spec, limits)}
        return {name: codecs.from_npy(body, spec, limits)}


def check_id(given: Any, core: Core) -> str:
    """Return a caller's own id. Raises InputError when it is no printable text of a sensible length."""
    if not isinstance(given, str) or not 0 < len(given) <= core.limits.max_id_chars or not given.isprintable():
        raise InputError(f'"id": expected printable text of 1 to {core.limits.max_id_chars} characters')
    return given


def reply(answered: Answered) -> Reply:
    """Return the answer as the contract says."""
    return json_reply(
        {
            "id": answered.id,
            "revision": answered.live.revision,
            "variant": answered.live.variant,
            "predictions": answered.live.answers.predictions(answered.labels, answered.probabilities, answered.outputs),
        }
    )

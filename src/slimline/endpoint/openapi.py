"""The endpoint's OpenAPI 3.1 document, written by hand: what is promised, not what happens to be in the code."""

from __future__ import annotations

from typing import Any

from slimline import __version__
from slimline.endpoint import open_inference

JSON = "application/json"
BINARY = "application/octet-stream"
IMAGE = "image/png"  # or any of the formats that are read
BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary", "contentMediaType": BINARY}}
STRING: dict[str, Any] = {"type": "string"}
OPEN: dict[str, Any] = {"type": "object", "additionalProperties": True}
ID = {"type": "string", "minLength": 1, "maxLength": 128}

REASONS = {
    "400": "The request doesn't fit the model; one line says how.",
    "401": "A bearer token is needed.",
    "403": "The token lacks the scope.",
    "404": "No such model or version.",
    "408": "The body wasn't whole in time.",
    "413": "The body, an image or a text is too large.",
    "415": "The content type is not one that is read.",
    "422": "The prediction is known and has no such row.",
    "429": "The queue is full; retry-after says when to come again.",
    "503": "Not ready, too many requests at once, or the event store is away.",
}

SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object", "required": ["error"], "additionalProperties": False, "properties": {"error": STRING},
    },
    "PredictInputs": {
        "type": "object", "required": ["inputs"], "additionalProperties": False,
        "properties": {
            "inputs": {
                "type": "object", "minProperties": 1, "additionalProperties": {"type": "array", "minItems": 1},
                "description": "Nested lists by input name, the batch axis first; shapes are in GET /model.",
            },
            "id": ID,
        },
    },
    "PredictRaw": {
        "type": "object", "required": ["raw"], "additionalProperties": False,
        "properties": {
            "raw": {
                "type": "array", "minItems": 1,
                "items": {"anyOf": [STRING, {"type": "array", "minItems": 2, "maxItems": 2, "items": STRING}]},
                "description": "Image files as base64, texts, or pairs of texts, as the release's task takes.",
            },
            "id": ID,
        },
    },
    "Prediction": {
        "type": "object",
        "properties": {
            "label": STRING | {
                "description": "Where the signature's answer is many: every label whose probability is above its "
                "threshold, by commas, as in a,b; empty where none is.",
            },
            "probabilities": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
            "outputs": OPEN,
        },
    },
    "Predictions": {
        "type": "object", "required": ["id", "revision", "variant", "predictions"], "additionalProperties": False,
        "properties": {
            "id": STRING, "revision": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}, "variant": STRING,
            "predictions": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Prediction"}},
        },
    },
    "Label": {
        "type": "object", "required": ["id", "label"], "additionalProperties": False,
        "properties": {
            "id": ID,
            "index": {"type": "integer", "minimum": 0, "default": 0, "description": "The row of the request."},
            "label": {
                "anyOf": [STRING, {"type": "number"}, {"type": "array", "items": {"type": ["string", "number"]}}],
                "description": "What was true; the last one written holds.",
            },
        },
    },
    "Labels": {
        "type": "object", "required": ["labels"], "additionalProperties": False,
        "properties": {
            "labels": {
                "type": "array", "minItems": 1, "maxItems": 1000, "items": {"$ref": "#/components/schemas/Label"},
            },
        },
    },
    "Acknowledged": {
        "type": "object", "required": ["id", "index", "outcome"], "additionalProperties": False,
        "properties": {
            "id": STRING, "index": {"type": "integer"},
            "outcome": {"enum": ["new", "corrected", "duplicate", "early", "no such row"]},
            "note": STRING | {"description": "What an early label waits for."},
        },
    },
    "AllAcknowledged": {
        "type": "object", "required": ["labels"], "additionalProperties": False,
        "properties": {"labels": {"type": "array", "items": {"$ref": "#/components/schemas/Acknowledged"}}},
    },
    "InferRequest": {
        "type": "object", "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": 128},
            "parameters": OPEN,
            "inputs": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Tensor"}},
            "outputs": {
                "type": "array", "items": {"type": "object", "required": ["name"], "properties": {"name": STRING}},
            },
        },
    },
    "Tensor": {
        "type": "object", "required": ["name", "shape", "datatype"],
        "properties": {
            "name": STRING, "datatype": STRING, "parameters": OPEN, "data": {"type": "array"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        },
    },
    "InferResponse": {
        "type": "object", "required": ["model_name", "model_version", "id", "outputs"],
        "properties": {
            "model_name": STRING, "model_version": STRING, "id": STRING, "parameters": OPEN,
            "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
        },
    },
}  # fmt: skip


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Slimline",
            "version": __version__,
            "description": "Predictions of a released model, feedback on them, and the Open Inference Protocol v2.",
        },
        "paths": {**_predictions(), **_probes(), **_open_inference(), **_administration()},
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _predictions() -> dict[str, Any]:
    headers = [
        _header("slimline-id", ID, "The caller's own id, where the body has no room for it."),
        _header("slimline-dtype", STRING, "The dtype of raw bytes; without it and the shape the body is an npy file."),
        _header("slimline-shape", STRING, "The shape of raw bytes, as in 8,1,28,28."),
        _header("slimline-input", STRING, "The input that the bytes are for."),
    ]
    return {
        "/predict": {
            "post": {
                "operationId": "predict",
                "summary": "Answer one or many rows.",
                "security": [{}, {"bearer": []}],
                "parameters": headers,
                "requestBody": {
                    "required": True,
                    "content": {JSON: _any_of("PredictInputs", "PredictRaw"), BINARY: BYTES, IMAGE: BYTES},
                },
                "responses": _responses("Predictions", "400", "401", "403", "408", "413", "415", "429", "503"),
            }
        },
        "/feedback": {
            "post": {
                "operationId": "feedback",
                "summary": "Say what was true; answered with 200 only once it is durable.",
                "security": [{}, {"bearer": []}],
                "requestBody": {"required": True, "content": {JSON: _any_of("Label", "Labels")}},
                "responses": {
                    **_responses(None, "400", "401", "403", "408", "413", "415", "503"),
                    "200": _described("Kept.", _any_of("Acknowledged", "AllAcknowledged")),
                    "422": _described(REASONS["422"], _ref("Acknowledged")),
                },
            }
        },
    }


def _probes() -> dict[str, Any]:
    text = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": STRING}}}
    return {
        "/livez": _get("livez", "The process runs.", _responses(OPEN)),
        "/readyz": _get(
            "readyz",
            "The golden requests were answered in this process, and it isn't ending.",
            {**_responses(OPEN), "503": _described("Starting or draining.", {"schema": OPEN})},
        ),
        "/metrics": _get("metrics", "Metrics of all worker processes.", {"200": text}),
        "/model": _get("model", "What answers: releases with their cards.", _responses(OPEN, "503")),
        "/openapi.json": _get("openapi", "This document.", _responses(OPEN)),
    }


def _open_inference() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v2": _get("server_metadata", "Server metadata.", _responses(OPEN)),
        "/v2/health/live": _get("server_live", "The process runs.", _responses(OPEN)),
        "/v2/health/ready": _get(
            "server_ready", "Ready.", {**_responses(OPEN), "503": _described("Not ready.", {"schema": OPEN})}
        ),
    }
    length = {"type": "integer", "minimum": 0}
    head_length = open_inference.HEAD_LENGTH.decode()
    head = _header(head_length, length, "Bytes of the JSON; those behind it are the tensors with a binary_data_size.")
    answers = _responses("InferResponse", "400", "401", "403", "404", "408", "413", "415", "429", "503")
    answers["200"]["content"][BINARY] = BYTES
    answers["200"]["headers"] = {head_length: {"schema": length, "description": "Beside binary tensors only."}}
    for suffix, names in (("", ("model",)), ("/versions/{version}", ("model", "version"))):
        base, tail = f"/v2/models/{{model}}{suffix}", "_version" if suffix else ""
        parameters = [{"name": name, "in": "path", "required": True, "schema": STRING} for name in names]
        ready = {**_responses(OPEN, "404"), "503": _described("Not ready.", {"schema": OPEN})}
        paths[base] = _get(f"model_metadata{tail}", "Inputs and outputs.", _responses(OPEN, "404", "503"), parameters)
        paths[f"{base}/ready"] = _get(f"model_ready{tail}", "Ready.", ready, parameters)
        paths[f"{base}/infer"] = {
            "post": {
                "operationId": f"infer{tail}",
                "summary": "Raw outputs for tensors; binary tensors as in Triton's extension.",
                "security": [{}, {"bearer": []}],
                "parameters": [*parameters, head],
                "requestBody": {"required": True, "content": {JSON: _ref("InferRequest"), BINARY: BYTES}},
                "responses": answers,
            }
        }
    return paths


def _administration() -> dict[str, Any]:
    return {
        "/admin/reload": {
            "post": {
                "operationId": "reload",
                "summary": "Look for new releases now, those that were refused before too.",
                "security": [{"bearer": []}],
                "responses": _responses(OPEN, "401", "403", "503"),
            }
        }
    }


def _get(name: str, summary: str, responses: dict[str, Any], parameters: list[Any] | None = None) -> dict[str, Any]:
    operation = {"operationId": name, "summary": summary, "responses": responses}
    return {"get": operation | ({"parameters": parameters} if parameters else {})}


def _responses(good: str | dict[str, Any] | None, *errors: str) -> dict[str, Any]:
    found = {status: _described(REASONS[status], _ref("Error")) for status in errors}
    if good is None:
        return found
    return {"200": _described("Fine.", _ref(good) if isinstance(good, str) else {"schema": good}), **found}


def _described(what: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": what, "content": {JSON: content}}


def _header(name: str, schema: dict[str, Any], what: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": what}


def _ref(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _any_of(*names: str) -> dict[str, Any]:
    return {"schema": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}}

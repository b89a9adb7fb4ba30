"""config.pbtxt of the three models: the model itself, its preprocessing, and the ensemble of both.

Fields as in Triton's model_config.proto. ``parameters`` hold the revision of each version, so that an answer, which
names its version, can be traced to the release that gave it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimline import __version__
from slimline.answers import Answers
from slimline.errors import ReleaseError
from slimline.model_repository import names
from slimline.model_repository.batching import Batching
from slimline.model_repository.pbtxt import Word
from slimline.model_repository.source import Backend, Device, Source
from slimline.preprocess import takes_pairs

Message = dict[str, Any]
TYPES = {
    "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64", "int8": "TYPE_INT8", "int16": "TYPE_INT16", "int32": "TYPE_INT32", "int64": "TYPE_INT64",
    "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64",
}  # fmt: skip
LABELS = "labels.txt"
GOLDEN = "golden-{}"  # warmup/golden-INPUT: the first golden row of an input


@dataclass(frozen=True)
class Plan:
    """Everything that the configurations of one repository have in common."""

    name: str
    sources: Mapping[int, Source]
    served: tuple[int, ...] | int
    backend: Backend
    device: Device
    format: str
    batching: Batching
    instances: int
    threads: int

    @property
    def newest(self) -> Source:
        return self.sources[max(self.sources)]


def model(plan: Plan, golden: Mapping[str, Sequence[int]]) -> Message:
    """Return the model's configuration; ``golden`` has the shape of each input's warm-up row."""
    message = _common(plan, plan.name) | {
        "backend": plan.backend,
        "input": [tensor(spec) for spec in plan.newest.signature["inputs"]],
        "output": [tensor(spec) | _labels(plan.newest.signature, spec) for spec in plan.newest.signature["outputs"]],
        "instance_group": [{"count": plan.instances, "kind": Word(f"KIND_{plan.device.upper()}")}],
    }
    if plan.batching.largest > 1:
        message["dynamic_batching"] = {
            "preferred_batch_size": list(plan.batching.preferred),
            "max_queue_delay_microseconds": plan.batching.delay,
        }
    message["model_warmup"] = [_warm_up(plan, size, golden) for size in (1, *plan.batching.preferred)]
    message["parameters"] = _parameters(_revisions(plan) | _session(plan))
    if plan.format == "onnx-trt":
        accelerator = {"name": "tensorrt", "parameters": [{"key": "precision_mode", "value": "INT8"}]}
        message["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}
    return message


def preprocessing(plan: Plan) -> Message:
    """Return the configuration of the steps before the model; they run on the CPU, a request at a time."""
    return _common(plan, names.preprocessing(plan.name)) | {
        "backend": "python",
        "input": [_raw(plan)],
        "output": [tensor(spec) for spec in plan.newest.signature["inputs"]],
        "instance_group": [{"count": plan.instances, "kind": Word("KIND_CPU")}],
        "parameters": _parameters(_revisions(plan)),
    }


def ensemble(plan: Plan, version: int) -> Message:
    """Return the configuration of raw values → preprocessing → model, all of one version."""
    inputs = [spec["name"] for spec in plan.newest.signature["inputs"]]
    outputs = [spec["name"] for spec in plan.newest.signature["outputs"]]
    steps = [
        (names.preprocessing(plan.name), [(names.RAW, names.RAW)], [(name, f"input/{name}") for name in inputs]),
        (plan.name, [(name, f"input/{name}") for name in inputs], [(name, name) for name in outputs]),
    ]
    one = {version: plan.sources[version]}
    return {
        "name": names.ensemble(plan.name, version, max(plan.sources)),
        "platform": "ensemble",
        "max_batch_size": plan.batching.largest,
        "version_policy": {"specific": {"versions": [version]}},
        "input": [_raw(plan)],
        "output": [tensor(spec) | _labels(plan.newest.signature, spec) for spec in plan.newest.signature["outputs"]],
        "ensemble_scheduling": {
            "step": [
                {"model_name": step, "model_version": version, "input_map": _pairs(takes), "output_map": _pairs(gives)}
                for step, takes, gives in steps
            ]
        },
        "parameters": _parameters(_revisions(plan, one)),
    }


def tensor(spec: Mapping[str, Any]) -> Message:
    """Return an input or output of the signature; the batch, its first axis, is Triton's own."""
    shape = spec["shape"]
    if not isinstance(shape[0], str):
        raise ReleaseError(
            f"{spec['name']!r} has shape {shape}: Triton batches a named first axis, export it as dynamic"
        )
    if spec["dtype"] not in TYPES:
        raise ReleaseError(f"{spec['name']!r} is {spec['dtype']}, which Triton has no type for: {', '.join(TYPES)}")
    dims = [-1 if isinstance(axis, str) else axis for axis in shape[1:]]
    if not dims:  # one number a row
        return {"name": spec["name"], "data_type": Word(TYPES[spec["dtype"]]), "dims": [1], "reshape": {}}
    return {"name": spec["name"], "data_type": Word(TYPES[spec["dtype"]]), "dims": dims}


def _common(plan: Plan, name: str) -> Message:
    if plan.served == 0:
        policy: Message = {"all": {}}
    elif isinstance(plan.served, int):
        policy = {"latest": {"num_versions": plan.served}}
    else:
        policy = {"specific": {"versions": list(plan.served)}}
    return {"name": name, "max_batch_size": plan.batching.largest, "version_policy": policy}


def _raw(plan: Plan) -> Message:
    width = 2 if takes_pairs(plan.newest.preprocess) else 1
    return {"name": names.RAW, "data_type": Word("TYPE_STRING"), "dims": [width]}


def _labels(signature: Mapping[str, Any], spec: Mapping[str, Any]) -> Message:
    labels = signature.get("labels") or []
    return {"label_filename": LABELS} if labels and spec["shape"][1:] == [len(labels)] else {}


def _warm_up(plan: Plan, size: int, golden: Mapping[str, Sequence[int]]) -> Message:
    inputs = []
    for spec in plan.newest.signature["inputs"]:
        name = spec["name"]
        row = {"data_type": Word(TYPES[spec["dtype"]]), "dims": list(golden[name]) or [1]}
        inputs.append({"key": name, "value": row | {"input_data_file": GOLDEN.format(name)}})
    return {"name": f"golden row × {size}", "batch_size": size, "inputs": inputs}


def _revisions(plan: Plan, sources: Mapping[int, Source] | None = None) -> dict[str, str]:
    found = {"slimline": __version__}
    for version, source in sorted((sources or plan.sources).items()):
        found |= {
            f"revision.{version}": source.revision,
            f"export.{version}": source.digest,
            f"stage.{version}": source.stage,
        }
        if (thresholds := Answers(source.signature).thresholds) is not None:
            found[f"thresholds.{version}"] = json.dumps(thresholds)
    return found


def _session(plan: Plan) -> dict[str, str]:
    if plan.backend == "python":
        return {"threads": str(plan.threads)}
    if plan.backend == "onnxruntime" and plan.device == "cpu":
        return {"intra_op_thread_count": str(plan.threads), "inter_op_thread_count": "1"}
    return {}


def _parameters(values: Mapping[str, str]) -> list[Message]:
    return [{"key": key, "value": {"string_value": value}} for key, value in sorted(values.items())]


def _pairs(pairs: Sequence[tuple[str, str]]) -> list[Message]:
    return [{"key": key, "value": value} for key, value in pairs]

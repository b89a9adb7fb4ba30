"""What other tools make of the same teacher: the rows with ``stage: peer`` in benchmarks/methods.yaml.

    torch-pruning   its own pruner as its own benchmark script drives it: all groups ranked together, small steps until
                    the share of multiply-adds is gone; then the recovery of our own rows, on the same views
    onnxruntime     its static (QDQ) and dynamic quantizers, on the teacher's ONNX file
    nncf            its post-training quantization of that file (``pip install 'slimline[peers]'``)

Each is given the settings that its documentation offers, calibrates on the same rows and trains for as long. All are
measured like the rest, in the target's runtime. NNCF's full bias correction is left out: its ONNX form fails here.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from slimline import manifest, params, plugins
from slimline.errors import SlimlineError
from slimline.export.facts import count_macs
from slimline.params import Recovery
from slimline.pipeline import ROOT
from slimline.stage import Stage
from slimline.task import Split, call, tensors
from slimline.training import State, TeacherCache, Term, fit

BATCH = 100
STEPS = 400  # a pruner's steps from the whole model to none


class MissingToolError(SlimlineError):
    """A peer whose package isn't installed."""


def identity(section: dict[str, Any]) -> dict[str, Any]:
    """Return what a peer's result hangs on beside the teacher: its settings, its version and this file."""
    tool = section["tool"]
    try:
        installed = version(tool)
    except PackageNotFoundError as error:
        raise MissingToolError(f"{tool} isn't installed: pip install 'slimline[peers]'") from error
    return {**section, "version": installed, "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}


def make(section: dict[str, Any], stage: Stage, teacher: Path, scratch: Path) -> Path:
    """Let a tool compress the teacher, whose export is ``teacher``, and return the folder of what it wrote."""
    tools: dict[str, Callable[..., int | None]] = {
        "torch-pruning": _pruned,
        "onnxruntime": onnxruntime_quantized,
        "nncf": _nncf,
    }
    export = scratch / "export"
    with manifest.sealed(export) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("signature.json", "preprocess.json"):
            shutil.copy(teacher / name, folder / name)
        settings = {key: value for key, value in section.items() if key != "tool"}
        macs = tools[section["tool"]](stage, teacher / "model.onnx", folder / "model.onnx", **settings)
        before = manifest.read_json(teacher / "facts.json")["macs"]
        manifest.write_json(folder / "facts.json", {"macs": before if macs is None else macs})
    return export


def feeds(rows: Split, size: int) -> Iterator[dict[str, Any]]:
    """Yield the inputs of ``rows``, ``size`` at a time."""
    for start in range(0, len(rows), size):
        yield dict(rows[slice(start, start + size)][0])


# --- quantizers ------------------------------------------------------------------------------------------------------


def onnxruntime_quantized(stage: Stage, source: Path, target: Path, calibrator: str | None = None) -> None:
    """Write the model quantized by ONNX Runtime's own tools; without a calibrator dynamically.

    Weights are int8 per channel and activations uint8, as its documentation advises for convolutions on x86; its
    integer convolution of the dynamic form takes no other weights than uint8.
    """
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        try:
            quantization.quant_pre_process(source, prepared)
        except Exception:  # noqa: BLE001  (its symbolic shapes give up on an encoder's free axes, with a plain one)
            quantization.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        if calibrator is None:
            quantization.quantize_dynamic(prepared, target, weight_type=quantization.QuantType.QUInt8)
            return

        class Rows(quantization.CalibrationDataReader):
            """The calibration split, batch by batch."""

            def __init__(self) -> None:
                self._feeds = feeds(stage.splits["calibration"], BATCH)

            def get_next(self) -> dict[str, Any] | None:  # type: ignore[override]
                return next(self._feeds, None)

        quantization.quantize_static(
            prepared, target, Rows(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[calibrator],
        )  # fmt: skip


def _nncf(stage: Stage, source: Path, target: Path, preset: str) -> None:
    """Write the model quantized by NNCF, on every calibration row, with its fast bias correction."""
    os.environ.setdefault("NNCF_CI", "1")  # it then sends no usage data
    import nncf
    import onnx

    logging.getLogger("nncf").setLevel(logging.ERROR)
    rows = list(feeds(stage.splits["calibration"], 1))
    quantized = nncf.quantize(
        onnx.load(source), nncf.Dataset(rows), preset=nncf.QuantizationPreset(preset), subset_size=len(rows),
        target_device=nncf.TargetDevice.CPU,
    )  # fmt: skip
    onnx.save(quantized, target)


# --- torch-pruning ---------------------------------------------------------------------------------------------------


def _pruned(stage: Stage, source: Path, target: Path, importance: str, ratio: float, recovery: dict[str, Any]) -> int:
    """Write the teacher less ``ratio`` of its multiply-adds, recovered; return how many are left."""
    del source  # it prunes the PyTorch model
    teacher, _, digest = stage.load(ROOT)
    model, _, _ = stage.load(ROOT)
    _prune(model, stage, importance, ratio)
    student = copy.deepcopy(model)  # training in bfloat16 leaves its mark on what was trained
    train, settings = stage.splits["train"], Recovery.model_validate(recovery)
    where = "benchmarks/methods.yaml: recovery"
    terms = [Term(params.configure("losses", each, at), each.weight, at) for each, at in settings.losses(where)]
    name = hashlib.sha256(manifest.canonical([digest, train.digest, stage.params.seed])).hexdigest()[:16]
    with tempfile.TemporaryDirectory() as folder:
        fit(
            student, stage.task, train, stage.splits["validation"], settings,
            loss=terms, seed=stage.params.seed, state=State({}, Path(folder)), where=where,
            teacher=TeacherCache(teacher, stage.task, train, name, stage.params.seed),
        )  # fmt: skip
    model.load_state_dict(student.state_dict())
    plugins.find("exporters", "onnx")(model, stage.task.signature(), target.parent, {})
    return count_macs(model, stage.task.signature())


def _prune(model: nn.Module, stage: Stage, importance: str, ratio: float) -> None:
    """Take channels away, in place, until ``ratio`` of the multiply-adds is gone."""
    import torch_pruning as tp

    calibration = stage.splits["calibration"]
    inputs = tensors(calibration[slice(0, 1)][0])
    example = next(iter(inputs.values()))
    outputs = stage.task.signature()["outputs"][0]["shape"][-1]
    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == outputs]
    scores = {"l2": tp.importance.GroupMagnitudeImportance(p=2), "taylor": tp.importance.GroupTaylorImportance()}
    pruner = tp.pruner.BasePruner(
        model.eval(), example, importance=scores[importance], global_pruning=True, pruning_ratio=1.0,
        max_pruning_ratio=0.9, iterative_steps=STEPS, round_to=8, ignored_layers=heads,
    )  # fmt: skip
    whole = left = tp.utils.count_ops_and_params(model, example)[0]
    if importance == "taylor":
        _gradients(model, stage)  # the pruner slices them with their weights
    for _ in range(STEPS):
        if left <= (1 - ratio) * whole:
            break
        pruner.step()
        left = tp.utils.count_ops_and_params(model, example)[0]
    model.zero_grad()


def _gradients(model: nn.Module, stage: Stage) -> None:
    """Sum the loss's gradients over the calibration rows."""
    model.zero_grad()
    calibration = stage.splits["calibration"]
    for start in range(0, len(calibration), BATCH):
        inputs, y = calibration[slice(start, start + BATCH)]
        loss: Tensor = stage.task.loss(call(model, tensors(inputs)), tensors({"y": y})["y"])
        loss.backward()  # type: ignore[no-untyped-call]

"""What torch-pruning makes of a teacher: its own pruner, driven as its own benchmark script does, then trained.

All groups of channels are ranked together and go in small steps until the share of multiply-adds is gone; the recovery
is our own loop's, on the same views as our stages'.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import post_training
from torch import Tensor, nn

from slimline import manifest, params, plugins
from slimline.errors import SlimlineError
from slimline.export.facts import count_macs
from slimline.params import Distill, Recovery
from slimline.pipeline import ROOT
from slimline.stage import Stage
from slimline.task import call, tensors
from slimline.training import State, TeacherCache, Term, fit

BATCH = 100
STEPS = 400  # a pruner's steps from the whole model to none


def to_int8(stage: Stage, source: Path, target: Path, ratio: float, recovery: dict[str, Any]) -> None:
    """Write the teacher less ``ratio`` of its multiply-adds, recovered, in ONNX Runtime's static int8."""
    del source  # it prunes the PyTorch model
    floats = target.parent / "floats"
    floats.mkdir()
    where = f"{params.FILE}: recovery"
    pruned(stage, floats / target.name, "taylor", ratio, Recovery.model_validate(recovery), where)
    post_training.static(stage, floats / target.name, target)
    shutil.rmtree(floats)


def whole_recovery(stage: Stage) -> Recovery:
    """Return the chain's first recovery, with as many epochs as all its exported stages are trained for."""
    epochs, first = 0, None
    for name in stage.params.export.stages:
        if name == ROOT:
            continue
        section = stage.params.compressions[name]
        if isinstance(section, Distill):
            epochs += section.training.epochs
            continue
        epochs += sum(each.epochs for each in (section.before, section.recovery) if each)
        if first is None and section.recovery and section.recovery.epochs:
            first = section.recovery
    if first is None:
        raise SlimlineError(f"{params.FILE}: no stage has a recovery, so no tool is given one")
    return first.model_copy(update={"epochs": epochs})


def pruned(stage: Stage, target: Path, importance: str, ratio: float, recovery: Recovery, where: str) -> int:
    """Write the teacher less ``ratio`` of its multiply-adds, recovered, as ``target``; return how many are left.

    ``where`` is the file and key of ``recovery``. A recovery that was stopped goes on at its last epoch.
    """
    teacher, _, digest = stage.load(ROOT)
    model, _, _ = stage.load(ROOT)
    prune(model, stage, importance, ratio)
    student = copy.deepcopy(model)  # training in bfloat16 leaves its mark on what was trained
    train, seed = stage.splits["train"], stage.params.seed
    terms = [Term(params.configure("losses", each, at), each.weight, at) for each, at in recovery.losses(where)]
    name = hashlib.sha256(manifest.canonical([digest, train.digest, seed])).hexdigest()[:16]
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    asked = [importance, ratio, recovery.model_dump(), version("torch-pruning")]
    state = State({"peer": asked, "teacher": digest, "data": train.digest, "seed": seed, "code": code})
    fit(
        student, stage.task, train, stage.splits["validation"], recovery,
        loss=terms, seed=seed, state=state, where=where, teacher=TeacherCache(teacher, stage.task, train, name, seed),
        on_epoch=lambda each: print(f"torch-pruning: epoch {each.epoch + 1} loss={each.loss:.4f}", flush=True),
    )  # fmt: skip
    model.load_state_dict(student.state_dict())
    plugins.find("exporters", "onnx")(model, stage.task.signature(), target.parent, {})
    state.clear()
    return count_macs(model, stage.task.signature())


def prune(model: nn.Module, stage: Stage, importance: str, ratio: float) -> None:
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

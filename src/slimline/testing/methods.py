"""``check_method``: a method under test on small models, alone, after pruning and after quantizing."""

from __future__ import annotations

import copy
import inspect
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimline import artifact, params, plugins
from slimline.artifact import Artifact, Named
from slimline.decisions import Decisions
from slimline.errors import MethodError
from slimline.method import Batch, Context, Edit, Method, Plan, compress, load_tensors
from slimline.params import Configured, Target
from slimline.pruning import masks
from slimline.quantization.quantizers import plain, quantizers
from slimline.task import Split, Task, call, tensors
from slimline.testing.promises import fits, promise, repeatable, require

ROWS, BATCH, STEPS = 96, 32, 3
MODELS: dict[str, dict[str, Any]] = {"cnn": {"width": 16}, "resnet": {"depth": 8, "width": 16, "stem_stride": 1}}
EARLIER: dict[str, dict[str, Any]] = {"structured": {"ratio": 0.3, "multiple": 2}, "linear": {}, "magnitude": {}}
# shares of the outputs' spread: a value on the edge between two integers may fall to either side
PARITY, MEAN_PARITY = 0.1, 0.02


@dataclass(frozen=True)
class Subject:
    """A model under test in evaluation mode, and what it was made from: ``fresh`` and the edits since."""

    name: str
    task: Task
    fresh: nn.Module
    model: nn.Module
    edits: tuple[Edit, ...] = ()

    @cached_property
    def calibration(self) -> Split:
        return self.task.splits()["calibration"].head(ROWS)

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return next(self.batches())[0]

    def batches(self) -> Iterator[Batch]:
        return _batches(self.calibration)

    def context(self, choices: Mapping[str, Any]) -> Context:
        decisions = Decisions(None, {})
        decisions.choices.update(copy.deepcopy(dict(choices)))
        validation = self.task.splits()["validation"].head(ROWS)
        return Context(
            self.task, self.calibration, validation, Target(batch_sizes=[1]), decisions, where="check_method"
        )


def check_method(
    method: Method,
    model: nn.Module | None = None,
    task: Task | None = None,
    *,
    choices: Mapping[str, Any] | None = None,
    may_refuse: Collection[str] = (),
) -> None:
    """Raise AssertionError unless ``method`` keeps the promises of ``slimline.method.Method``.

    It is tried on ``model`` (used as it is: train it a little) with ``task``, or on a small ``cnn`` and ``resnet`` of
    the ``digits`` task; alone, after pruning and after quantizing. ``choices`` are decisions to replay in place of
    measuring: the ``choices`` of a ``decisions/STAGE.json``. ``may_refuse`` names the earlier methods (``structured``,
    ``linear``, ``magnitude``) after which this one may raise MethodError; anywhere else that breaks a promise.
    """
    if (model is None) != (task is None):
        raise TypeError("check_method: give a model together with its task, or neither")
    for name in may_refuse:
        if name not in EARLIER:
            raise TypeError(f"check_method: may_refuse: no {name!r}; tried are {', '.join(EARLIER)}")
    _check_settings(method)
    if model is None or task is None:
        subjects = [_default(name) for name in MODELS]
    else:
        subjects = [Subject(type(model).__name__, task, model, copy.deepcopy(model).eval())]
    for subject in subjects:
        where = f"{type(method).__name__} on {subject.name}"
        with promise(f"{where}: refused"):
            compressed = _check_on(method, subject, choices or {}, where)
        _check_export(compressed, where)
        for name in EARLIER:
            before = _after(subject, name)
            if before is not None:
                _check_combination(method, before, choices or {}, f"{where} after {name}", refuses=name in may_refuse)


def _check_combination(
    method: Method, before: Subject, choices: Mapping[str, Any], where: str, *, refuses: bool
) -> None:
    """Check ``method`` on what an earlier one made; ``refuses``: it may say that this can't be."""
    try:
        with promise(f"{where}: refused", let=MethodError if refuses else ()):
            after = _check_on(method, before, choices, where)
    except MethodError:
        return
    _check_kept(before, after, where)
    if quantizers(before.model):
        _check_export(after, where)


def _check_settings(method: Method) -> None:
    kind: Any = type(method)
    frozen = is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[union-attr]
    require(frozen, f"{kind.__name__}: not a frozen dataclass; its fields are its params.yaml keys")
    static = isinstance(inspect.getattr_static(kind, "apply"), staticmethod)
    require(static, f"{kind.__name__}.apply: not a staticmethod; replay has no settings to give it")
    settings = _settings(method)
    with promise(f"{kind.__name__}: its fields are not JSON data"):
        require(json.loads(json.dumps(settings)) == settings, f"{kind.__name__}: JSON changes its fields")


def _check_on(method: Method, subject: Subject, choices: Mapping[str, Any], where: str) -> Subject:
    """Check plan, apply, recovery and replay on one subject, and return what the method made of it."""
    plan = _check_plan(method, subject, choices, where)
    # like a loaded artifact, apply gets the edit as JSON text and a model that knows nothing of the plan
    edit = replace(plan.edit, data=json.loads(json.dumps(plan.edit.data)))
    with promise(f"{where}: apply and load_tensors fail on a fresh copy"):
        model = type(method).apply(copy.deepcopy(subject.model), edit)
        load_tensors(model, plan.tensors)
    compressed = replace(subject, model=model.eval(), edits=(*subject.edits, edit))
    _check_foreseen(method, subject, compressed.model, where)
    _check_outputs(compressed, where)
    _check_replay(compressed, where)
    _check_recovery(method, compressed, where)
    _check_replay(compressed, f"{where}, after recovery")
    return compressed


def _check_plan(method: Method, subject: Subject, choices: Mapping[str, Any], where: str) -> Plan:
    context = subject.context(choices)
    before, structure = _state(subject.model), repr(subject.model)
    plans = []
    for seed in (1, 2):  # the second replays what the first measured
        with repeatable(seed), promise(f"{where}: plan fails", let=MethodError):
            plans.append(method.plan(subject.model, subject.batches, context))
    same = repr(subject.model) == structure and _equal(_state(subject.model), before)
    require(same, f"{where}: plan changes the model; work on a deep copy")
    quiet = not any(module.training for module in subject.model.modules())
    require(quiet, f"{where}: plan leaves the model in training mode")
    left = [name for name, parameter in subject.model.named_parameters() if parameter.grad is not None]
    require(not left, f"{where}: plan leaves gradients on the model ({left[:1]}); work on a deep copy")
    first, second = plans
    with promise(f"{where}: the edit's data is not JSON data"):
        data = json.loads(json.dumps(first.edit.data, allow_nan=False))
        require(data == first.edit.data, f"{where}: JSON changes the edit's data (a tuple, a number as a key?)")
    wild = [name for name, each in first.tensors.items() if not bool(each.isfinite().all())]
    require(not wild, f"{where}: the plan's {', '.join(wild)} is not finite")
    same = first.edit == second.edit and _equal(first.tensors, second.tensors)
    require(
        same, f"{where}: two plans differ; draw chance from context.seed, leave measured choices to context.decisions"
    )
    with promise(f"{where}: the edit's method {first.edit.method!r} is not found"):
        found = plugins.find("methods", first.edit.method)
    require(found is type(method), f"{where}: the edit's method {first.edit.method!r} is another class, {found!r}")
    with promise(f"{where}: its fields are refused as params.yaml keys"):
        chosen = Configured(name=first.edit.method, **_settings(method))
        require(params.configure("methods", chosen, where) == method, f"{where}: params.yaml changes its fields")
    return first


def _check_foreseen(method: Method, subject: Subject, compressed: nn.Module, where: str) -> None:
    """What ``slimline check`` would say of the model before the method, and tell the methods behind it, is true."""
    context = subject.context({})
    with promise(f"{where}: check_model refuses what plan takes"):
        method.check_model(subject.model, subject.batches, context)
    foreseen = method.foresee(subject.model, subject.batches, context)
    same = foreseen is None or _layers(foreseen) == _layers(compressed)
    require(same, f"{where}: foresee gives other layers than the method leaves")


def _layers(model: nn.Module) -> dict[str, type]:
    """Return the kind of each layer that has a weight, quantizers taken off."""
    layers = plain(model).named_modules()
    return {name: type(each) for name, each in layers if getattr(each, "weight", None) is not None}


def _check_outputs(subject: Subject, where: str) -> None:
    out = _run(subject.model, subject.inputs, where)
    expected = subject.task.signature()["outputs"][0]["shape"]
    require(
        fits(tuple(out.shape), expected, {}), f"{where}: outputs are {list(out.shape)}, the signature has {expected}"
    )
    require(bool(out.isfinite().all()), f"{where}: outputs are not finite")


def _check_replay(subject: Subject, where: str) -> None:
    """Save an artifact and load it over a model of other weights: bit for bit the same."""
    described = Artifact(Named("task"), Named("model"), list(subject.edits), "check")
    with tempfile.TemporaryDirectory() as scratch, promise(f"{where}: the saved artifact can't be loaded"):
        folder = Path(scratch, "artifact")
        artifact.save(folder, subject.model, described)
        loaded = copy.deepcopy(subject.fresh)
        for tensor in loaded.state_dict().values():
            tensor.fill_(1)  # a structure that hangs on weights comes out differently
        for edit in artifact.read(folder).edits:
            loaded = artifact.replay(loaded, edit, where=where)
        artifact.load_weights(loaded, folder / "model.safetensors")
    same = _equal(_state(loaded), _state(subject.model))
    require(same, f"{where}: the replayed artifact's weights differ")
    same = torch.equal(_run(loaded.eval(), subject.inputs, where), _run(subject.model, subject.inputs, where))
    require(same, f"{where}: the replayed artifact's outputs differ; is there state outside the state dict?")


def _check_recovery(method: Method, subject: Subject, where: str) -> None:
    """Train a few steps as recovery does, with penalty and constrain."""
    model = subject.model.train()
    structure, shapes = repr(model), {name: tensor.shape for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(STEPS):
        for inputs, y in subject.batches():
            with promise(f"{where}: penalty fails"):
                penalty = method.penalty(model)
            loss = subject.task.loss(call(model, inputs), y)
            if penalty is not None:
                scalar = penalty.ndim == 0 and bool(penalty.isfinite()) and penalty.requires_grad
                require(scalar, f"{where}: the penalty is no finite scalar with a gradient")
                loss = loss + penalty
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with promise(f"{where}: constrain fails"):
                method.constrain(model, step + 1, STEPS)
            with promise(f"{where}: a mask no longer fits"):
                masks.enforce(masks.masked(model))
    kept = repr(model) == structure and shapes == {name: tensor.shape for name, tensor in model.state_dict().items()}
    require(kept, f"{where}: training with penalty and constrain changes the structure")
    model.eval()
    _check_outputs(subject, f"{where}, after recovery")


def _check_kept(before: Subject, after: Subject, where: str) -> None:
    """What was pruned is still pruned, masks included, and what was quantized still carries quantizers."""
    old = dict(before.model.named_parameters())
    for name, parameter in after.model.named_parameters():
        if name in old and parameter.ndim == old[name].ndim:
            grown = any(new > size for new, size in zip(parameter.shape, old[name].shape, strict=True))
            require(not grown, f"{where}: {name} grows from {list(old[name].shape)} to {list(parameter.shape)}")
    layers = dict(after.model.named_modules())
    for name, masked in masks.masked(before.model).items():
        if not isinstance(getattr(layers.get(name), "weight", None), Tensor):  # other layers stand there now
            continue
        weight, lives = masks.weight(layers[name]), masks.live(layers[name])
        require(masks.mask_of(layers[name]) is not None, f"{where}: the mask of {name} is gone")
        require(not bool(weight[~lives].any()), f"{where}: masked weights of {name} are no longer zero")
        back = lives.shape == masks.live(masked).shape and bool((lives & ~masks.live(masked)).any())
        require(not back, f"{where}: masked weights of {name} live again")
    still = [name.rpartition(".")[0] for name in quantizers(after.model)]
    for name in quantizers(before.model):
        layer = name.rpartition(".")[0]
        lost = layer in layers and not any(f"{each}.".startswith(f"{layer}.") for each in still)
        require(not lost, f"{where}: the quantizers of {layer} are gone")


def _check_export(subject: Subject, where: str) -> None:
    """Export to ONNX and compare ONNX Runtime with torch."""
    expected = _run(subject.model, subject.inputs, where).numpy()
    with tempfile.TemporaryDirectory() as folder, promise(f"{where}: the model can't be exported and run"):
        plugins.find("exporters", "onnx")(subject.model, subject.task.signature(), Path(folder), {})
        runtime = plugins.find("runtimes", "onnxruntime")(Path(folder), 1)
        found = next(iter(runtime.run({name: value.numpy() for name, value in subject.inputs.items()}).values()))
        runtime.close()
    errors, spread = np.abs(found - expected), np.ptp(expected)
    is_close = errors.max() <= PARITY * spread and errors.mean() <= MEAN_PARITY * spread
    said = f"off by {errors.max():.3g}, {errors.mean():.3g} in the mean"
    require(bool(is_close), f"{where}: ONNX Runtime is {said}, where outputs span {spread:.3g}")


def _after(subject: Subject, name: str) -> Subject | None:
    """Return the subject compressed by a built-in method, or None when that method doesn't fit it."""
    method = params.configure("methods", Configured(name=name, **EARLIER[name]), "check_method")
    try:
        model, plan = compress(method, subject.model, subject.batches, subject.context({}))
    except MethodError:
        return None
    return replace(subject, model=model.eval(), edits=(*subject.edits, plan.edit))


@cache
def _default(name: str) -> Subject:
    """Return a built-in model after some training steps on the digits."""
    task: Task = plugins.find("tasks", "digits")()
    with repeatable(0):
        model = task.build_model(name, **MODELS[name])
        fresh = copy.deepcopy(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for inputs, y in _batches(task.splits()["train"].head(20 * BATCH)):
            optimizer.zero_grad()
            task.loss(call(model, inputs), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    model.zero_grad()
    return Subject(name, task, fresh, model.eval())


def _batches(split: Split) -> Iterator[Batch]:
    for start in range(0, len(split), BATCH):
        inputs, y = split[slice(start, start + BATCH)]
        yield tensors(inputs), torch.from_numpy(np.ascontiguousarray(y))


@torch.inference_mode()
def _run(model: nn.Module, inputs: Mapping[str, Tensor], where: str) -> Tensor:
    with promise(f"{where}: the model doesn't run"):
        return call(model, inputs)


def _settings(method: Any) -> dict[str, Any]:
    return asdict(method)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)

"""check_method and check_task pass every built-in, and name each promise that a bad plug-in breaks."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline import masks, plugins
from slimline.errors import MethodError
from slimline.factorization import Energy, Ratio
from slimline.method import Batches, Context, Edit, Method, Plan, compress
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.quantization import Override
from slimline.quantizers import is_quantized, plain
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.tasks.fashion_mnist import FashionMnist
from slimline.testing import check_method, check_task


def forced(method: str, **ranks: list[int]) -> dict[str, Any]:
    """Return decisions that give these layers these ranks, as a measurement would have."""
    layers = {name.replace("_", "."): {"ranks": value, "why": "forced"} for name, value in ranks.items()}
    return {method: {"layers": layers, "summary": "forced"}}


# --- methods ---------------------------------------------------------------------------------------------------------


def test_structured_on_the_default_models() -> None:
    check_method(plugins.find("methods", "structured")(importance="l2", multiple=4))


@pytest.mark.parametrize(
    ("name", "settings", "model", "choices"),
    [
        ("symmetric", {"calibrator": "percentile"}, "resnet", {}),
        ("linear", {"weights": "symmetric"}, "cnn", {}),
        ("symmetric", {"bits": 4, "granularity": "block", "block": 4, "calibrator": "entropy"}, "cnn", {}),
        ("linear", {"weight_bits": 3, "activation_bits": 32, "weights": "linear"}, "cnn", {}),
        ("linear", {"bits": 12, "layers": {"3": Override(bits=5)}, "calibrator": "mse"}, "cnn", {}),
        ("svd", {"multiple": 2}, "cnn", forced("svd", **{"11": [4]})),
        ("tucker2", {"multiple": 2}, "resnet", forced("tucker2", stages_1_0_conv2=[4, 6])),
        ("spatial", {"rank": Energy(0.8), "multiple": 2}, "cnn", {}),
        ("cp", {"rank": Ratio(0.5), "multiple": 2, "whiten": False}, "cnn", {}),
        ("magnitude", {"ratio": 0.7, "schedule": "cubic", "start": 0.3, "every": 1}, "resnet", {}),
        ("magnitude", {"ratio": 0.6, "scope": "sensitivity"}, "cnn", {}),
        ("n-m", {"n": 1, "m": 2}, "cnn", {}),
        ("structured", {"importance": "fisher", "multiple": 2}, "cnn", {}),
        ("structured", {"importance": "hessian", "multiple": 2}, "cnn", {}),
        ("structured", {"importance": "bn-scale", "multiple": 2, "scope": "sensitivity"}, "cnn", {}),
        ("sparsify", {"kind": "group-lasso"}, "cnn", {}),
        ("symmetric", {"bits": 6, "learned_steps": True, "equalize": True}, "resnet", {}),
        ("symmetric", {"bits": 6, "rounding": "adaround", "rounding_steps": 10, "bias_correction": True}, "cnn", {}),
        ("linear", {"ranges": "dynamic"}, "cnn", {}),
        ("float16", {}, "resnet", {}),
        ("bfloat16", {}, "cnn", {}),
    ],
    ids=[
        "symmetric",
        "linear",
        "blocks",
        "weights alone",
        "own widths",
        "svd",
        "tucker2",
        "spatial",
        "cp",
        "magnitude",
        "sensitivity",
        "n-m",
        "fisher",
        "hessian",
        "bn-scale",
        "sparsify",
        "learned steps",
        "adaround",
        "dynamic ranges",
        "float16",
        "bfloat16",
    ],
)
def test_built_in_methods(
    name: str,
    settings: dict[str, Any],
    model: str,
    choices: dict[str, Any],
    cnn: Cnn,
    resnet: ResNet,
    task: Digits,
) -> None:
    method = plugins.find("methods", name)(**settings)
    check_method(method, {"cnn": cnn, "resnet": resnet}[model], task, choices=choices)


@dataclass(frozen=True)
class Nothing(Method):
    """Does nothing and breaks no promise; the bad methods below break one each."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit(f"{__name__}:{type(self).__name__}", {}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return model


class NoDataclass(Method):
    pass


@dataclass
class NotFrozen(Method):
    pass


@dataclass(frozen=True)
class FieldOfObjects(Nothing):
    score: Any = len


@dataclass(frozen=True)
class FieldOfTuple(Nothing):
    layers: Any = (1, 2)


@dataclass(frozen=True)
class FieldCalledName(Nothing):
    name: str = "the key that names the method"


@dataclass(frozen=True)
class ApplyWithSelf(Nothing):
    def apply(self, model: nn.Module, edit: Edit) -> nn.Module:  # type: ignore[override]
        return model


@dataclass(frozen=True)
class PlanFails(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        raise ZeroDivisionError("no\nrows")


@dataclass(frozen=True)
class PlanRefuses(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        raise MethodError("no layer fits")


@dataclass(frozen=True)
class PlanChangesWeights(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        model.state_dict()["11.bias"].add_(1e-6)
        return super().plan(model, batches, context)


@dataclass(frozen=True)
class PlanChangesStructure(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        model.add_module("2", nn.Identity())
        return super().plan(model, batches, context)


@dataclass(frozen=True)
class PlanLeavesTraining(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        model.get_submodule("2").train()
        return super().plan(model, batches, context)


@dataclass(frozen=True)
class PlanLeavesGradients(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        inputs, y = next(iter(batches()))
        context.task.loss(model(inputs["image"]), y).backward()  # type: ignore[no-untyped-call]
        return super().plan(model, batches, context)


@dataclass(frozen=True)
class PlanByChance(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        plan = super().plan(model, batches, context)
        return Plan(plan.edit, {"11.bias": torch.rand(10)})


@dataclass(frozen=True)
class PlanByPythonsChance(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit(f"{__name__}:PlanByPythonsChance", {"x": random.random()}))


@dataclass(frozen=True)
class WithData(Nothing):
    """Puts ``data`` of a class attribute into its edit."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit(f"{__name__}:{type(self).__name__}", {"kept": type(self).data()}))

    @staticmethod
    def data() -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class TensorInEdit(WithData):
    @staticmethod
    def data() -> Any:
        return torch.zeros(2)


@dataclass(frozen=True)
class TupleInEdit(WithData):
    @staticmethod
    def data() -> Any:
        return (1, 2)


@dataclass(frozen=True)
class NumberAsKeyInEdit(WithData):
    @staticmethod
    def data() -> Any:
        return {1: "layer"}


@dataclass(frozen=True)
class NanInEdit(WithData):
    @staticmethod
    def data() -> Any:
        return float("nan")


@dataclass(frozen=True)
class UnderAnothersName(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit("structured", {"kept": {}}))


@dataclass(frozen=True)
class UnderNoName(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit("no-such-method", {}))


@dataclass(frozen=True)
class TensorWithoutPlace(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(super().plan(model, batches, context).edit, {"nowhere": torch.zeros(1)})


@dataclass(frozen=True)
class TensorOfNan(Nothing):
    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(super().plan(model, batches, context).edit, {"11.bias": torch.full((10,), torch.nan)})


@dataclass(frozen=True)
class OtherOutputs(Nothing):
    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        model.add_module("11", nn.Linear(model.get_submodule("11").in_features, 5))  # type: ignore[arg-type]
        return model


@dataclass(frozen=True)
class StructureFromWeights(Nothing):
    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        model.register_buffer("positive", torch.zeros(int((model.state_dict()["11.weight"] > 0).sum())))
        return model


class Shifted(nn.Flatten):
    """Adds a number that no state dict holds."""

    by: Tensor

    def __init__(self, by: Tensor) -> None:
        super().__init__()
        self.register_buffer("by", by, persistent=False)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input) + self.by


@dataclass(frozen=True)
class StateOutsideTheStateDict(Nothing):
    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        model.add_module("10", Shifted(model.state_dict()["11.weight"].mean()))
        return model


@dataclass(frozen=True)
class Explodes(Nothing):
    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        model.add_module("10", Shifted(torch.tensor(torch.inf)))
        return model


@dataclass(frozen=True)
class PenaltyOfMany(Nothing):
    def penalty(self, model: nn.Module) -> Tensor | None:
        return next(model.parameters()).abs()


@dataclass(frozen=True)
class PenaltyWithoutGradient(Nothing):
    def penalty(self, model: nn.Module) -> Tensor | None:
        return next(model.parameters()).detach().abs().sum()


@dataclass(frozen=True)
class ConstrainFails(Nothing):
    def constrain(self, model: nn.Module, step: int, total: int) -> None:
        raise KeyError("mask")


@dataclass(frozen=True)
class ConstrainChangesStructure(Nothing):
    def constrain(self, model: nn.Module, step: int, total: int) -> None:
        model.add_module("2", nn.Identity())


@dataclass(frozen=True)
class GrowsBack(Nothing):
    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        reader: Any = model.get_submodule("3")
        model.add_module("0", nn.Conv2d(1, 8, 3, 1, 1, bias=False))
        model.add_module("1", nn.BatchNorm2d(8))
        model.add_module("3", nn.Conv2d(8, reader.out_channels, 3, 2, 1, bias=False))
        return model


@dataclass(frozen=True)
class DropsQuantizers(Nothing):
    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return plain(model)


@dataclass(frozen=True)
class DropsMasks(Nothing):
    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        for layer in masks.masked(model).values():
            del layer.weight_mask
        return model


@dataclass(frozen=True)
class CutsMasksAlone(Nothing):
    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        for layer in masks.masked(model).values():
            layer.weight_mask = masks.live(layer)[:1]
        return model


class OtherWhenExported(nn.Flatten):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input) * (0 if torch.compiler.is_exporting() else 1)


@dataclass(frozen=True)
class ExportsOtherwise(Nothing):
    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        model.add_module("10", OtherWhenExported())
        return model


class BranchOnData(nn.Flatten):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input) if input.sum() > 0 else super().forward(-input)


@dataclass(frozen=True)
class CantBeExported(Nothing):
    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        model.add_module("10", BranchOnData())
        return model


BAD_METHODS: dict[type[Method], str] = {
    NoDataclass: "NoDataclass: not a frozen dataclass",
    NotFrozen: "NotFrozen: not a frozen dataclass",
    FieldOfObjects: "FieldOfObjects: its fields are not JSON data",
    FieldOfTuple: "FieldOfTuple: JSON changes its fields",
    FieldCalledName: "its fields are refused as params.yaml keys",
    ApplyWithSelf: r"ApplyWithSelf.apply: not a staticmethod",
    PlanFails: "PlanFails on Cnn: plan fails: ZeroDivisionError: no rows",
    PlanRefuses: "PlanRefuses on Cnn: refused: MethodError: no layer fits",
    PlanChangesWeights: "plan changes the model",
    PlanChangesStructure: "plan changes the model",
    PlanLeavesTraining: "plan leaves the model in training mode",
    PlanLeavesGradients: "plan leaves gradients on the model",
    PlanByChance: "two plans differ",
    PlanByPythonsChance: "two plans differ",
    TensorInEdit: "the edit's data is not JSON data",
    TupleInEdit: "JSON changes the edit's data",
    NumberAsKeyInEdit: "JSON changes the edit's data",
    NanInEdit: "the edit's data is not JSON data",
    UnderAnothersName: "the edit's method 'structured' is another class",
    UnderNoName: "the edit's method 'no-such-method' is not found",
    TensorWithoutPlace: "apply and load_tensors fail on a fresh copy: MethodError: tensor nowhere",
    TensorOfNan: "the plan's 11.bias is not finite",
    Explodes: "outputs are not finite",
    OtherOutputs: r"outputs are \[32, 5\], the signature has \['batch', 10\]",
    StructureFromWeights: "the saved artifact can't be loaded",
    StateOutsideTheStateDict: "the replayed artifact's outputs differ",
    PenaltyOfMany: "the penalty is no finite scalar with a gradient",
    PenaltyWithoutGradient: "the penalty is no finite scalar with a gradient",
    ConstrainFails: "constrain fails: KeyError",
    ConstrainChangesStructure: "training with penalty and constrain changes the structure",
    GrowsBack: r"GrowsBack on Cnn after structured: 0.weight grows from \[\d, 1, 3, 3\] to \[8, 1, 3, 3\]",
    DropsQuantizers: "DropsQuantizers on Cnn after linear: the quantizers of 0 are gone",
    DropsMasks: "DropsMasks on Cnn after magnitude: the mask of 0 is gone",
    CutsMasksAlone: r"CutsMasksAlone on Cnn after magnitude: a mask no longer fits: MethodError: 0: its mask is \[1, 1",
    ExportsOtherwise: "ONNX Runtime is off",
    CantBeExported: "the model can't be exported and run: ExportError",
}


@pytest.mark.parametrize("method", BAD_METHODS, ids=lambda kind: kind.__name__)
def test_a_bad_method_is_named(method: type[Method], cnn: Cnn, task: Digits) -> None:
    with pytest.raises(AssertionError, match=BAD_METHODS[method]) as broken:
        check_method(method(), cnn, task)
    assert "\n" not in str(broken.value)


@dataclass(frozen=True)
class FloatOnly(Nothing):
    """An impossible combination that says so."""

    skip: list[str] = field(default_factory=list)

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        if is_quantized(model):
            raise MethodError(f"{context.where}: prune before you quantize")
        return super().plan(model, batches, context)


def test_a_method_may_refuse_what_came_before_and_leaves_the_callers_model_alone(cnn: Cnn, task: Digits) -> None:
    before, chance = copy.deepcopy(cnn.state_dict()), torch.get_rng_state()
    check_method(FloatOnly(), cnn.train(), task)
    assert all(torch.equal(before[name], tensor) for name, tensor in cnn.state_dict().items())
    assert cnn.training
    assert torch.equal(torch.get_rng_state(), chance)


def test_a_model_needs_its_task(cnn: Cnn) -> None:
    with pytest.raises(TypeError, match="give a model together with its task"):
        check_method(Nothing(), cnn)


@pytest.mark.parametrize("model", ["cnn", "resnet"])
@pytest.mark.parametrize("method", ["symmetric", "linear"])
def test_quantizing_again_on_the_same_data_changes_nothing(
    method: str, model: str, request: pytest.FixtureRequest, batches: Batches, context: Callable[..., Context]
) -> None:
    """check_method found it: ranges that stayed the same were left out of the plan, though apply had reset them."""
    chosen = plugins.find("methods", method)()
    once, _ = compress(chosen, request.getfixturevalue(model), batches, context())
    twice, _ = compress(chosen, once, batches, context())
    assert all(torch.equal(tensor, twice.state_dict()[name]) for name, tensor in once.state_dict().items())


# --- tasks -----------------------------------------------------------------------------------------------------------


def grey(size: int) -> list[NDArray[np.uint8]]:
    return [np.full((size, size), value, np.uint8) for value in (0, 200)]


def test_digits() -> None:
    check_task(Digits(), raw=grey(8))


def test_fashion_mnist(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    check_task(FashionMnist(), raw=grey(28))


DIGITS = Digits()


class Small(Digits):
    """Forty rows a split of the digits; the bad tasks below break one promise each."""

    def splits(self) -> dict[str, Split]:
        return {name: split.head(40) for name, split in DIGITS.splits().items()}


class ThreeSplits(Small):
    def splits(self) -> dict[str, Split]:
        return {name: split for name, split in super().splits().items() if name != "calibration"}


class EmptySplit(Small):
    def splits(self) -> dict[str, Split]:
        splits = super().splits()
        return {**splits, "test": Split({"image": splits["test"].inputs["image"][:0]}, splits["test"].targets[:0])}


class SharedRows(Small):
    def splits(self) -> dict[str, Split]:
        splits = super().splits()
        return {**splits, "calibration": splits["train"].head(3)}


class StraddlingGroup(Small):
    def splits(self) -> dict[str, Split]:
        splits = super().splits()
        groups = {name: np.arange(40) + 39 * at for at, name in enumerate(splits)}
        return {name: Split(split.inputs, split.targets, groups[name]) for name, split in splits.items()}


class UnseededSplits(Small):
    def splits(self) -> dict[str, Split]:
        order = np.random.permutation(40)  # noqa: NPY002
        return {name: Split(*split[order]) for name, split in super().splits().items()}


class DoubleInputs(Small):
    def splits(self) -> dict[str, Split]:
        splits = super().splits()
        return {
            name: Split({"image": split.inputs["image"].astype(np.float64)}, split.targets)
            for name, split in splits.items()
        }


class OtherInputs(Small):
    def splits(self) -> dict[str, Split]:
        return {
            name: Split({"picture": split.inputs["image"]}, split.targets) for name, split in super().splits().items()
        }


class OtherShape(Small):
    def signature(self) -> dict[str, Any]:
        spec = {"name": "image", "dtype": "float32", "shape": ["batch", 1, 8, 9]}
        return {**super().signature(), "inputs": [spec]}


class OtherRange(Small):
    def signature(self) -> dict[str, Any]:
        spec = {**super().signature()["inputs"][0], "range": [5, 9]}
        return {**super().signature(), "inputs": [spec]}


class FixedBatch(Small):
    def signature(self) -> dict[str, Any]:
        return {**super().signature(), "outputs": [{"name": "logits", "dtype": "float32", "shape": [1, 10]}]}


class NoDtype(Small):
    def signature(self) -> dict[str, Any]:
        return {**super().signature(), "outputs": [{"name": "logits", "shape": ["batch", 10]}]}


class SignatureOfArrays(Small):
    def signature(self) -> dict[str, Any]:
        return {**super().signature(), "labels": np.arange(10)}


class StepsOfArrays(Small):
    def preprocess(self) -> dict[str, Any]:
        return {"format": 1, "input": "image", "steps": [{"op": "normalize", "mean": np.zeros(1)}]}


class StepsWithoutInput(Small):
    def preprocess(self) -> dict[str, Any]:
        return {"format": 1, "steps": []}


class UnknownStep(Small):
    def preprocess(self) -> dict[str, Any]:
        return {"format": 1, "input": "image", "steps": [{"op": "normalise"}]}


class StepsOfAnotherSize(Small):
    def preprocess(self) -> dict[str, Any]:
        document = super().preprocess()
        return {**document, "steps": [step for step in document["steps"] if step["op"] != "resize"]}


class OwnWayIn(Small):
    def inputs_of(self, raw: Any) -> dict[str, NDArray[Any]]:
        return {"image": super().inputs_of(raw)["image"] * np.float32(2)}


class LossOfRows(Small):
    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out, y, reduction="none")


class LossWithoutGradient(Small):
    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return super().loss(out, y).detach()


class LossOfZero(Small):
    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return (out * 0).sum()


class NoPrimary(Small):
    primary = "balanced_accuracy"


class NanMetric(Small):
    def metrics(self, out: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
        return {"accuracy": float("nan")}


class OneAnswer(Small):
    def answer(self, out: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(out.argmax(axis=-1)[:1])


class OneVerdict(Small):
    def correct(self, answer: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(np.all(answer == y))


class LonelyAnswers(Small):
    def agree(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(a < b)


class OneSidedAgreement(Small):
    def agree(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(a <= b)


class AnswerByBatch(Small):
    def answer(self, out: NDArray[Any]) -> NDArray[Any]:
        return super().answer(out - out.mean(axis=0))


class AugmentByBatch(Small):
    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        return {"image": inputs["image"] - inputs["image"].mean()}


class AugmentByChance(Small):
    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        return {"image": inputs["image"] + torch.rand(1)}


class AugmentInPlace(Small):
    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        return {"image": inputs["image"].add_(1)}


class AugmentChangesShape(Small):
    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        return {"image": inputs["image"][..., :7]}


class AugmentWithoutDraws(Small):
    augment_draws = 0


BAD_TASKS: dict[type[Digits], str] = {
    ThreeSplits: "splits are train, validation, test; expected train, validation, calibration, test",
    EmptySplit: "the test split is empty",
    SharedRows: "3 rows stand in two splits, 0 may: row 0 of calibration stands in train too",
    StraddlingGroup: "group 39 straddles train and validation",
    UnseededSplits: "splits differ when drawn again",
    DoubleInputs: "input 'image' is float64, the signature has float32",
    OtherInputs: r"has inputs \['picture'\], not \['image'\]",
    OtherShape: r"input 'image' has shape \[40, 1, 8, 8\], the signature has \['batch', 1, 8, 9\]",
    OtherRange: r"input 'image' has numbers outside of the signature's range \[5, 9\]",
    FixedBatch: "logits: the first axis is the batch, by name",
    NoDtype: "the signature's outputs need name, dtype and shape",
    SignatureOfArrays: "the signature is not JSON data",
    StepsOfArrays: "preprocess is not JSON data",
    StepsWithoutInput: "preprocess needs format, steps, and as input one of image",
    UnknownStep: "preprocess doesn't run without torch: .*no plug-in 'normalise'",
    StepsOfAnotherSize: r"preprocess: input 'image' has shape \[2, 1, 9, 9\]",
    OwnWayIn: "inputs_of and the steps of preprocess give other arrays",
    LossOfRows: "loss is no finite scalar with a gradient",
    LossWithoutGradient: "loss is no finite scalar with a gradient",
    LossOfZero: "loss gives outputs no gradient",
    NoPrimary: "metrics are accuracy, macro_f1; the primary 'balanced_accuracy' is missing",
    NanMetric: "metrics are not finite floats",
    OneAnswer: "answer gives 1 answers for 32 rows",
    OneVerdict: "correct is not one bool a row",
    LonelyAnswers: "an answer doesn't agree with itself",
    OneSidedAgreement: r"agree\(a, b\) and agree\(b, a\) differ",
    AnswerByBatch: "a row's answer depends on the other rows",
    AugmentByBatch: "augment of a row depends on its batch or on chance",
    AugmentByChance: "augment of a row depends on its batch or on chance",
    AugmentInPlace: "augment changes its inputs in place",
    AugmentChangesShape: "augment changes the shape or dtype of 'image'",
    AugmentWithoutDraws: "augment is never called while augment_draws is 0",
}


@pytest.mark.parametrize("task", BAD_TASKS, ids=lambda kind: kind.__name__)
def test_a_bad_task_is_named(task: type[Digits]) -> None:
    raw = grey(9) if task in {OwnWayIn, StepsOfAnotherSize} else None
    with pytest.raises(AssertionError, match=BAD_TASKS[task]) as broken:
        check_task(task(), raw)
    assert "\n" not in str(broken.value)


def test_rows_that_the_data_repeats_may_be_allowed() -> None:
    check_task(SharedRows(), duplicates=3)


def test_a_preprocessing_step_that_imports_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_step.py").write_text("def heavy(values):\n    import torch\n    return values\n")
    installed = tmp_path / "heavy-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: heavy\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[slimline.preprocess]\nheavy = heavy_step:heavy\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    class Heavy(Small):
        def preprocess(self) -> dict[str, Any]:
            return {"format": 1, "input": "image", "steps": [{"op": "heavy"}]}

    with pytest.raises(AssertionError, match="preprocess doesn't run without torch: ModuleNotFoundError"):
        check_task(Heavy(), raw=grey(8))

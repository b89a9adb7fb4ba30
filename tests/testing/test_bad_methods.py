"""check_method names each promise that a bad method breaks."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline import masks
from slimline.errors import MethodError
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.models.cnn import Cnn
from slimline.quantizers import is_quantized, plain
from slimline.tasks.digits import Digits
from slimline.testing import check_method


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
    check_method(FloatOnly(), cnn.train(), task, may_refuse=["linear"])
    assert all(torch.equal(before[name], tensor) for name, tensor in cnn.state_dict().items())
    assert cnn.training
    assert torch.equal(torch.get_rng_state(), chance)


def test_a_combination_that_is_refused_unasked_is_named(cnn: Cnn, task: Digits) -> None:
    with pytest.raises(
        AssertionError, match=r"^FloatOnly on Cnn after linear: refused: MethodError: .*before you quant"
    ):
        check_method(FloatOnly(), cnn, task, may_refuse=["structured"])


def test_what_may_refuse_must_be_tried(cnn: Cnn, task: Digits) -> None:
    with pytest.raises(TypeError, match=r"may_refuse: no 'quantize'; tried are structured, linear, magnitude"):
        check_method(FloatOnly(), cnn, task, may_refuse=["quantize"])


def test_a_model_needs_its_task(cnn: Cnn) -> None:
    with pytest.raises(TypeError, match="give a model together with its task"):
        check_method(Nothing(), cnn)

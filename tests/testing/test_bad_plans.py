"""check_method names each promise that a bad method's class, plan or edit breaks."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.models.cnn import Cnn
from slimline.tasks.digits import Digits
from slimline.testing import check_method
from tests.testing.nothing import Nothing


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


BAD_PLANS: dict[type[Method], str] = {
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
}


@pytest.mark.parametrize("method", BAD_PLANS, ids=lambda kind: kind.__name__)
def test_a_bad_method_is_named(method: type[Method], cnn: Cnn, task: Digits) -> None:
    with pytest.raises(AssertionError, match=BAD_PLANS[method]) as broken:
        check_method(method(), cnn, task)
    assert "\n" not in str(broken.value)

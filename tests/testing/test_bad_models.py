"""check_method names each promise that a bad method's model breaks: applied, trained, compressed before, exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.models.cnn import Cnn
from slimline.pruning import masks
from slimline.quantization.quantizers import plain
from slimline.tasks.digits import Digits
from slimline.testing import check_method
from tests.testing.nothing import Nothing


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


BAD_MODELS: dict[type[Method], str] = {
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


@pytest.mark.parametrize("method", BAD_MODELS, ids=lambda kind: kind.__name__)
def test_a_bad_method_is_named(method: type[Method], cnn: Cnn, task: Digits) -> None:
    with pytest.raises(AssertionError, match=BAD_MODELS[method]) as broken:
        check_method(method(), cnn, task)
    assert "\n" not in str(broken.value)

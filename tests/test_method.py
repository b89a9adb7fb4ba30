from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from slimline import plugins
from slimline.errors import MethodError
from slimline.factorization.ranks import Ratio
from slimline.method import Batches, Context, Edit, Method, Plan, compress, load_tensors
from slimline.models.cnn import Cnn
from slimline.tasks.digits import Digits
from slimline.testing import check_method


@dataclass(frozen=True)
class Double(Method):
    """Doubles the weight of a linear layer: the smallest method there is."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit("double", {}), {"weight": model.state_dict()["weight"] * 2})

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return model


def test_compress_leaves_the_model_and_returns_a_changed_copy(
    batches: Batches, context: Callable[..., Context]
) -> None:
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    compressed, plan = compress(Double(), model, batches, context())
    assert torch.equal(model.weight, before)
    assert torch.equal(compressed.state_dict()["weight"], before * 2)
    assert plan.edit == Edit("double", {}, 1)


def test_a_copy_for_reading_shares_what_stays(batches: Batches, context: Callable[..., Context]) -> None:
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    compressed, _ = compress(Double(), model, batches, context(), share=True)
    assert torch.equal(model.weight, before)
    assert torch.equal(compressed.state_dict()["weight"], before * 2)
    assert compressed.get_parameter("bias").data_ptr() == model.bias.data_ptr()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("weight", (3, 2), r"tensor weight: the plan has shape \[3, 2\], the model \[2, 2\]"),
        ("wight", (2, 2), r"tensor wight: the plan has shape \[2, 2\], the model no such tensor"),
    ],
    ids=["shape", "name"],
)
def test_tensors_must_fit(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        load_tensors(nn.Linear(2, 2), {name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("structured", {}),
        ("sparsify", {}),
        ("magnitude", {}),
        ("drop-layers", {"keep": {"": list(range(11))}}),
        ("linear", {}),
        ("float16", {}),
        *((name, {"rank": Ratio(0.5)}) for name in ("svd", "tucker2", "cp", "spatial")),
    ],
)
def test_no_rows_are_one_line(name: str, settings: dict[str, Any], cnn: Cnn, context: Callable[..., Context]) -> None:
    method = plugins.find("methods", name)(**settings)
    with pytest.raises(MethodError, match=r"^here: the calibration split has no rows$"):
        compress(method, cnn, list, context())


def test_a_method_may_leave_penalty_and_constraint_out() -> None:
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    assert Method().penalty(model) is None
    Method().constrain(model, 1, 10)
    assert torch.equal(model.weight, before)


@dataclass(frozen=True)
class Refuses(Method):
    """Refuses before training what it takes then."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit(f"{__name__}:{type(self).__name__}", {}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return model

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        raise MethodError("no layer fits")


@dataclass(frozen=True)
class Foresees(Refuses):
    """Tells the methods behind it of layers that it doesn't leave."""

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        pass

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("method", "broken"),
    [
        (Refuses(), "check_model refuses what plan takes: MethodError: no layer fits"),
        (Foresees(), "foresee gives other layers than the method leaves"),
    ],
    ids=["refuses", "foresees"],
)
def test_what_is_said_of_the_model_before_training_is_true(method: Method, broken: str, cnn: Cnn, task: Digits) -> None:
    with pytest.raises(AssertionError, match=broken):
        check_method(method, cnn, task)

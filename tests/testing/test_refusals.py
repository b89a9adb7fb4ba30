"""A method may refuse what came before it, where its author says so."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, Plan
from slimline.models.cnn import Cnn
from slimline.quantization.quantizers import is_quantized
from slimline.tasks.digits import Digits
from slimline.testing import check_method
from tests.testing.nothing import Nothing


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

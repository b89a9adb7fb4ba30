"""Models exported once for all tests of this folder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from slimline.export.onnx import to_onnx
from slimline.method import Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.methods.symmetric import Symmetric
from slimline.models.resnet import ResNet
from slimline.tasks.digits import Digits

Exported = tuple[nn.Module, Any]


@pytest.fixture(scope="session")
def exported(
    _warm_resnet: ResNet, batches: Batches, context: Callable[..., Context], task: Digits
) -> Callable[[str], Exported]:
    """Return (torch model, ONNX model) of the residual net: "float", "symmetric" or "linear"."""
    made: dict[str, Exported] = {}
    methods = {"symmetric": Symmetric(), "linear": Linear()}

    def get(kind: str) -> Exported:
        if kind not in made:
            model: nn.Module = copy.deepcopy(_warm_resnet)
            if kind in methods:
                model, _ = compress(methods[kind], model, batches, context())
            made[kind] = (model.eval(), to_onnx(model, task.signature()))
        return made[kind]

    return get

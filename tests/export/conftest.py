"""Models exported once for all tests of this folder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from slimline.export.onnx import to_onnx
from slimline.export.onnx_trt import OnnxTrt
from slimline.method import Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.methods.symmetric import Symmetric
from slimline.models.cnn import Cnn
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


@pytest.fixture(scope="session")
def for_tensorrt(
    _warm_resnet: ResNet,
    _trained_cnn: Cnn,
    batches: Batches,
    context: Callable[..., Context],
    task: Digits,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[nn.Module, Path]]:
    """Return (torch model, its onnx-trt file): "resnet-symmetric", "resnet-linear", "resnet-fp16" or "cnn-linear"."""
    made: dict[str, tuple[nn.Module, Path]] = {}
    methods = {"symmetric": Symmetric(), "linear": Linear(), "fp16": Linear()}

    def get(kind: str) -> tuple[nn.Module, Path]:
        if kind not in made:
            net, _, scheme = kind.partition("-")
            weights = Linear(weights="linear") if net == "cnn" else methods[scheme]
            model, _ = compress(weights, _trained_cnn if net == "cnn" else _warm_resnet, batches, context())
            folder = tmp_path_factory.mktemp(kind)
            OnnxTrt(fp16=scheme == "fp16")(model.eval(), task.signature(), folder, {})
            made[kind] = model, folder / "model.trt.onnx"
        return made[kind]

    return get

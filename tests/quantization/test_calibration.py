from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.models.resnet import ResNet
from slimline.quantization import quantizers as q
from slimline.quantization.calibration import calibrate
from slimline.quantization.grids import Spec
from slimline.quantization.observers import MinMax

WEIGHT, ACTIVATION = Spec(8, "symmetric", axis=0), Spec(8, "linear")


def quantized(model: nn.Module) -> nn.Module:
    names = {name: layer for name, layer in model.named_modules() if q.is_quantizable(layer)}
    q.replace(model, {name: q.quantize_layer(layer, WEIGHT, ACTIVATION) for name, layer in names.items()})
    return model


def feed(model: nn.Module, images: Tensor) -> Callable[[], None]:
    def run() -> None:
        model(images)

    return run


def test_calibration_sets_every_range_and_leaves_the_mode(resnet: ResNet, images: Tensor) -> None:
    model = quantized(resnet).train()
    calibrate(model, feed(model, images), MinMax)
    assert model.training
    for name, quantizer in q.quantizers(model).items():
        assert quantizer.observer is None
        assert not (quantizer.scale == 1).all(), name


def test_calibration_rounds_nothing_meanwhile(resnet: ResNet, images: Tensor) -> None:
    expected = resnet(images)
    model = quantized(resnet)
    seen: list[Tensor] = []
    calibrate(model, lambda: seen.append(model(images)), MinMax)
    weights_rounded = seen[0]
    assert (weights_rounded - expected).abs().max() < 0.2 * expected.abs().max()


def test_calibrating_some_leaves_the_others(resnet: ResNet, images: Tensor) -> None:
    model = quantized(resnet)
    calibrate(model, feed(model, images), MinMax)
    before = copy.deepcopy(model.state_dict())
    calibrate(model, feed(model, images * 5), MinMax, only=["conv.input_quantizer"])
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"conv.input_quantizer.scale"}


def test_a_layer_that_forward_never_reaches_is_named(resnet: ResNet, images: Tensor) -> None:
    resnet.stray = nn.Linear(2, 2)
    model = quantized(resnet)
    with pytest.raises(MethodError, match=r"layer stray: calibration saw no data; is it reached in forward\(\)\?"):
        calibrate(model, feed(model, images), MinMax)
    assert all(quantizer.observer is None for quantizer in q.quantizers(model).values())

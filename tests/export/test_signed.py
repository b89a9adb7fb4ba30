from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from slimline.export.signed import Signed, half, requantize
from slimline.method import Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.methods.symmetric import Symmetric
from slimline.models.cnn import Cnn
from slimline.quantization.quantizers import Quantizer, Spec, quantizers


@pytest.fixture
def linear(cnn: Cnn, batches: Batches, context: Callable[..., Context]) -> nn.Module:
    """The trained cnn with asymmetric activations and one asymmetric grid for each layer's weights."""
    return compress(Linear(weights="linear"), cnn, batches, context())[0].eval()


def test_every_grid_becomes_symmetric_and_holds_the_trained_range(linear: nn.Module) -> None:
    signed, changed = requantize(linear)
    before, after = quantizers(linear), quantizers(signed)
    assert changed == len(before) == len(after)
    for name, quantizer in after.items():
        old = before[name]
        low, high = ((end - old.zero_point) * old.scale for end in (0, 255))
        weight = name.endswith("weight_quantizer")
        assert quantizer.spec == Spec(8, "symmetric", 0 if weight else None)
        assert not quantizer.zero_point.any()
        if not weight:
            torch.testing.assert_close(quantizer.scale, torch.maximum(-low, high) / 127)


def test_weights_are_quantized_by_output_channel(linear: nn.Module) -> None:
    signed, _ = requantize(linear)
    for name, quantizer in quantizers(signed).items():
        layer, _, role = name.rpartition(".")
        if role == "weight_quantizer":
            weight = linear.get_submodule(layer).get_parameter("weight")
            torch.testing.assert_close(quantizer.scale, weight.detach().flatten(1).abs().amax(1) / 127)


@torch.no_grad()
def test_a_symmetric_model_stays_as_it_is(
    cnn: Cnn, batches: Batches, context: Callable[..., Context], images: Tensor
) -> None:
    model = compress(Symmetric(), cnn, batches, context())[0].eval()
    signed, changed = requantize(model)
    assert changed == 0
    assert torch.equal(signed(images), model(images))


@torch.no_grad()
def test_answers_hardly_change(linear: nn.Module, images: Tensor) -> None:
    expected, found = linear(images), requantize(linear)[0](images)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert not torch.equal(found, expected)


def test_the_model_given_is_left_alone(linear: nn.Module) -> None:
    requantize(linear)
    assert not any(isinstance(each, Signed) for each in linear.modules())
    assert {each.spec.scheme for each in quantizers(linear).values()} == {"linear"}


@pytest.mark.parametrize(
    ("spec", "scale", "zero_point", "expected"),
    [
        pytest.param(Spec(4, "linear"), 0.5, 3, 12 * 0.5 / 127, id="4 bits"),
        pytest.param(Spec(16, "linear"), 0.001, 60000, 60 / 127, id="16 bits, mostly negative"),
        pytest.param(Spec(4, "symmetric"), 0.5, 0, 3.5 / 127, id="4 bits, symmetric"),
    ],
)
def test_other_widths_keep_their_range(spec: Spec, scale: float, zero_point: int, expected: float) -> None:
    quantizer = Quantizer(spec)
    quantizer.scale.fill_(scale)
    quantizer.zero_point.fill_(zero_point)
    signed, changed = requantize(nn.Sequential(quantizer))
    assert changed == 1
    assert float(quantizers(signed)["0"].scale) == pytest.approx(expected)


@torch.no_grad()
def test_scales_in_half_are_positive_however_small_the_weights(linear: nn.Module) -> None:
    """Float16 rounds below 3e-8 to 0, which TensorRT rejects as a scale."""
    linear.get_submodule("0").get_parameter("weight")[0] *= 1e-12
    signed, _ = requantize(linear)
    for name, quantizer in quantizers(half(signed)).items():
        scale = quantizer.scale
        assert (scale > 0).all(), name
        assert torch.equal(scale.half().float(), scale), "float16 holds it"

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.layers import Add
from slimline.models.resnet import ResNet
from slimline.quantization import quantizers as q
from slimline.quantization.grids import Scheme, Spec, by_scale, scale_shape, spec_data, spec_of, spread
from slimline.quantization.quantizers import Quantizer

values = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
    elements=st.floats(-1000, 1000, width=32),
).map(torch.from_numpy)
specs = st.builds(Spec, bits=st.integers(2, 16), scheme=st.sampled_from(["symmetric", "linear"]))


def fitted(spec: Spec, x: Tensor) -> Quantizer:
    quantizer = Quantizer(spec, None if spec.axis is None else x.shape[spec.axis])
    quantizer.fit(x)
    return quantizer


@pytest.mark.parametrize(
    ("spec", "low", "high"),
    [
        (Spec(8, "symmetric"), -127, 127),
        (Spec(8, "linear"), 0, 255),
        (Spec(4, "symmetric"), -7, 7),
        (Spec(4, "linear"), 0, 15),
        (Spec(2, "symmetric"), -1, 1),
        (Spec(16, "linear"), 0, 65535),
    ],
    ids=["int8", "uint8", "int4", "uint4", "ternary", "uint16"],
)
def test_the_grid_has_the_documented_ends(spec: Spec, low: int, high: int) -> None:
    assert (spec.qmin, spec.qmax) == (low, high)


@given(values, specs)
def test_the_error_is_at_most_half_a_step(x: Tensor, spec: Spec) -> None:
    quantizer = fitted(spec, x)
    bound = quantizer.scale * 0.5 + x.abs().max() * 1e-6
    assert ((x - quantizer(x)).abs() <= bound * (1 + 1e-3)).all()


@given(values, st.sampled_from(["symmetric", "linear"]))
def test_per_channel_the_error_is_at_most_half_the_channels_step(x: Tensor, scheme: Scheme) -> None:
    x = x[:, None] if x.ndim == 1 else x  # a weight has two axes at least
    quantizer = fitted(Spec(8, scheme, axis=0), x)
    scale = quantizer.scale.reshape(-1, *[1] * (x.ndim - 1))
    assert ((x - quantizer(x)).abs() <= (scale * 0.5 + x.abs() * 1e-6) * (1 + 1e-3)).all()


weights = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=7), elements=st.floats(-100, 100, width=32)
).map(torch.from_numpy)


@given(weights, specs, st.integers(2, 5))
def test_in_blocks_the_error_is_at_most_half_the_blocks_step(x: Tensor, spec: Spec, block: int) -> None:
    spec = Spec(spec.bits, spec.scheme, axis=0, block=block)
    quantizer = q.weight_quantizer(spec, x)
    quantizer.fit(x)
    step = spread(spec, quantizer.scale, x.shape)
    assert step.shape == x.shape
    assert ((x - quantizer(x)).abs() <= (step * 0.5 + x.abs() * 1e-6) * (1 + 1e-3)).all()
    assert torch.equal(quantizer(quantizer(x)), quantizer(x))


@given(weights, st.integers(2, 5))
def test_a_block_is_so_many_neighbours_along_the_inputs(x: Tensor, block: int) -> None:
    spec = Spec(4, "symmetric", axis=0, block=block)
    values = by_scale(spec, x)
    assert values.shape == (*scale_shape(spec, x.shape), block)
    for start in range(0, x.shape[1], block):
        mine = x[:, start : start + block].movedim(1, -1)
        assert torch.equal(values[:, start // block, ..., : mine.shape[-1]], mine)
        assert (values[:, start // block, ..., mine.shape[-1] :] == 0).all()


@given(values, specs)
def test_zero_is_exact(x: Tensor, spec: Spec) -> None:
    assert (fitted(spec, x)(torch.zeros(3)) == 0).all()


@given(values, specs)
def test_rounding_twice_is_rounding_once(x: Tensor, spec: Spec) -> None:
    quantizer = fitted(spec, x)
    once = quantizer(x)
    assert torch.equal(quantizer(once), once)


@given(values, specs)
def test_values_lie_on_the_grid(x: Tensor, spec: Spec) -> None:
    quantizer = fitted(spec, x)
    steps = quantizer(x) / quantizer.scale + quantizer.zero_point
    integers = steps.round()
    assert torch.allclose(steps, integers, atol=1e-3 + 2.0 ** (spec.bits - 22))  # float32 holds so many digits
    assert integers.min() >= spec.qmin
    assert integers.max() <= spec.qmax


@given(st.floats(1e-3, 1e3), st.floats(-1, 1))
def test_symmetric_is_its_formula(largest: float, share: float) -> None:
    """x_q = round(x / x_max · 127)."""
    quantizer = Quantizer(Spec(8, "symmetric"))
    quantizer.set_range(torch.tensor(-largest), torch.tensor(largest / 2))
    x = largest * share
    steps = float(quantizer(torch.tensor(x)) / quantizer.scale)
    assert quantizer.zero_point == 0
    assert abs(steps - x / largest * 127) <= 0.5 + 1e-3


@given(st.floats(-1e3, 0), st.floats(1e-2, 1e3), st.floats(0, 1))
def test_linear_is_its_formula_with_a_whole_zero_point(low: float, high: float, share: float) -> None:
    """x_q = round((x − x_min) / (x_max − x_min) · 255), moved by less than a step so that 0 is on the grid."""
    quantizer = Quantizer(Spec(8, "linear"))
    quantizer.set_range(torch.tensor(low), torch.tensor(high))
    x = low + share * (high - low)
    found = float(quantizer(torch.tensor(x)) / quantizer.scale + quantizer.zero_point)
    assert abs(found - (x - low) / (high - low) * 255) <= 1 + 1e-2
    assert float(quantizer.scale) == pytest.approx((high - low) / 255, rel=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "zero_point"),
    [(0.0, 1.0, 0), (0.5, 1.0, 0), (-1.0, 0.0, 255), (-1.0, -0.5, 255), (-1.0, 3.0, 64)],
    ids=["relu", "above 0", "negative", "below 0", "both"],
)
def test_linears_range_always_holds_zero(low: float, high: float, zero_point: int) -> None:
    quantizer = Quantizer(Spec(8, "linear"))
    quantizer.set_range(torch.tensor(low), torch.tensor(high))
    assert int(quantizer.zero_point) == zero_point


@pytest.mark.parametrize("scheme", ["symmetric", "linear"])
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-40, 1e-38], ids=str)
def test_a_channel_that_is_all_but_zero_stays_finite(scheme: Scheme, size: float) -> None:
    """Weight decay drives dead channels into the subnormal numbers, whose reciprocal is infinite."""
    weight = torch.stack([torch.full((3,), size), torch.ones(3)])
    quantizer = fitted(Spec(8, scheme, axis=0), weight)
    found = quantizer(weight)
    assert torch.isfinite(found).all()
    assert torch.allclose(found, weight, atol=1e-2)


def test_the_gradient_passes_inside_the_range_and_stops_outside() -> None:
    quantizer = Quantizer(Spec(8, "symmetric"))
    quantizer.set_range(torch.tensor(-1.0), torch.tensor(1.0))
    x = torch.tensor([-2.0, -0.5, 0.3, 2.0], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]


# --- layers that carry quantizers ------------------------------------------------------------------------------------

WEIGHT, ACTIVATION = Spec(8, "symmetric", axis=0), Spec(8, "linear")
LAYERS: list[Callable[[], nn.Module]] = [
    lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
    lambda: nn.Conv2d(4, 4, 3, groups=4, dilation=2, padding=2, bias=False),
    lambda: nn.Linear(5, 3),
    lambda: nn.AdaptiveAvgPool2d(2),
    Add,
]
IDS = ["conv", "depthwise", "linear", "pool", "add"]


@pytest.mark.parametrize("make", LAYERS, ids=IDS)
def test_quantizing_a_layer_keeps_its_parameters(make: Callable[[], nn.Module]) -> None:
    layer = make()
    quantized = q.quantize_layer(layer, WEIGHT, ACTIVATION)
    assert not q.is_quantizable(quantized)
    assert q.is_quantized(quantized)
    assert not q.is_quantized(layer)
    for name, parameter in layer.named_parameters():
        assert dict(quantized.named_parameters())[name] is parameter
    assert len(list(quantized.parameters())) == len(list(layer.parameters()))


@pytest.mark.parametrize("make", LAYERS, ids=IDS)
def test_plain_layer_undoes_quantize_layer(make: Callable[[], nn.Module]) -> None:
    layer = make()
    back = q.plain_layer(q.quantize_layer(layer, WEIGHT, ACTIVATION))
    assert type(back) is type(layer)
    assert not q.is_quantized(back)
    assert repr(back) == repr(layer)
    for name, parameter in layer.named_parameters():
        assert dict(back.named_parameters())[name] is parameter


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(2)],
    ids=["relu", "circular", "norm"],
)
def test_other_layers_are_not_quantizable(layer: nn.Module) -> None:
    assert not q.is_quantizable(layer)
    assert q.plain_layer(layer) is layer


def test_a_layer_without_a_quantized_form_is_an_error() -> None:
    with pytest.raises(MethodError, match="a layer of type ReLU can't be quantized"):
        q.quantize_layer(nn.ReLU(), WEIGHT, ACTIVATION)


def quantized(model: nn.Module) -> nn.Module:
    names = {name: layer for name, layer in model.named_modules() if q.is_quantizable(layer)}
    q.replace(model, {name: q.quantize_layer(layer, WEIGHT, ACTIVATION) for name, layer in names.items()})
    return model


def test_plain_is_a_copy_of_the_model_without_quantizers(resnet: ResNet, images: Tensor) -> None:
    before = resnet(images)
    model = quantized(resnet)
    bare = q.plain(model)
    assert q.is_quantized(model)
    assert not q.is_quantized(bare)
    assert torch.equal(bare(images), before)
    for name, parameter in bare.named_parameters():
        assert dict(model.named_parameters())[name] is not parameter


@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d], ids=["linear", "conv"])
def test_a_stale_weight_range_is_renewed_on_eval(kind: type[nn.Module]) -> None:
    layer = nn.Linear(4, 3) if kind is nn.Linear else nn.Conv2d(4, 3, 1)
    model = q.quantize_layer(layer, WEIGHT, ACTIVATION)
    x = torch.rand(2, 4) if kind is nn.Linear else torch.rand(2, 4, 1, 1)
    quantizer = q.quantizers(model)["weight_quantizer"]
    model.train()
    model(x)
    with torch.no_grad():
        layer.weight.mul_(3)  # what an optimizer step does after the last forward
    model.eval()
    expected = layer.weight.detach().flatten(1).abs().amax(1) / 127
    assert torch.allclose(quantizer.scale, expected)


def test_evaluation_alone_never_moves_a_weight_range() -> None:
    model = q.quantize_layer(nn.Linear(4, 3), WEIGHT, ACTIVATION).eval()
    model(torch.rand(2, 4))
    model.train()
    model.eval()
    assert (q.quantizers(model)["weight_quantizer"].scale == 1).all()


def test_replace_takes_dotted_and_top_names(resnet: ResNet) -> None:
    layers = {"fc": nn.Identity(), "stages.1.0.conv1": nn.Identity()}
    q.replace(resnet, layers)
    assert resnet.get_submodule("fc") is layers["fc"]
    assert resnet.get_submodule("stages.1.0.conv1") is layers["stages.1.0.conv1"]


@given(specs, st.none() | st.integers(0, 3), st.none() | st.integers(2, 64), st.booleans())
def test_a_spec_survives_json(spec: Spec, axis: int | None, block: int | None, learned: bool) -> None:
    spec = Spec(spec.bits, spec.scheme, axis, block, learned)
    assert spec_of(spec_data(spec)) == spec

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from slimline.pruning import masks
from slimline.quantization.grids import Spec, by_scale, spread
from slimline.quantization.quantizers import quantize_layer
from slimline.quantization.rounding import Layer, adaround, beta, error, rectified_sigmoid

ITERATIONS = 400


def made(kind: str, spec: Spec) -> tuple[Layer, Tensor, Tensor]:
    """Return a layer with a fitted grid, correlated inputs [256, …] and its float outputs."""
    plain: nn.Module = (
        nn.Linear(12, 6) if kind == "linear" else nn.Conv2d(8, 6, 3, groups=2 if kind == "grouped" else 1)
    )
    layer = cast(Layer, quantize_layer(plain, spec, None))
    layer.weight_quantizer.fit_least_error(layer.weight)
    if kind == "linear":
        x = torch.randn(512, 4) @ torch.randn(4, 12) + 0.1 * torch.randn(512, 12)
    else:
        x = torch.einsum("nkhw,kc->nchw", torch.rand(512, 3, 5, 5), torch.randn(3, 8)).relu()
    return layer, x, cast(Tensor, plain(x)).detach()


def nearest(layer: Layer) -> Tensor:
    return cast(Tensor, layer.weight_quantizer(layer.weight)).detach()


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize(
    ("kind", "axis", "block"),
    [("linear", 0, None), ("linear", 0, 4), ("linear", None, None), ("conv", 0, None), ("grouped", 0, None)],
    ids=["linear", "blocks", "per tensor", "conv", "grouped"],
)
@pytest.mark.parametrize("scheme", ["symmetric", "linear"])
def test_the_layer_is_nearer_on_rows_that_it_has_not_seen(
    bits: int, kind: str, axis: int | None, block: int | None, scheme: str
) -> None:
    layer, x, y = made(kind, Spec(bits, scheme, axis, block))  # type: ignore[arg-type]
    weight, share = adaround(layer, x[:256], y[:256], ITERATIONS, seed=0)
    assert share < 0.9
    assert error(layer, weight, x[256:], y[256:]) < 0.95 * error(layer, nearest(layer), x[256:], y[256:])


def test_every_weight_stands_on_its_grid_within_one_step() -> None:
    layer, x, y = made("conv", Spec(3, "symmetric", axis=0))
    weight, _ = adaround(layer, x, y, ITERATIONS, seed=0)
    quantizer = layer.weight_quantizer
    step = spread(quantizer.spec, quantizer.scale, weight.shape)
    torch.testing.assert_close(weight / step, (weight / step).round(), rtol=0, atol=1e-5)
    inside = layer.weight.abs() <= 3 * step
    assert ((weight - layer.weight)[inside].abs() < step.expand_as(weight)[inside] * 1.001).all()
    assert by_scale(quantizer.spec, weight / step).abs().max() <= 3.001
    assert not torch.equal(weight, nearest(layer))
    torch.testing.assert_close(quantizer(weight), weight, rtol=0, atol=1e-6)


def test_a_seed_makes_it_again() -> None:
    layer, x, y = made("linear", Spec(3, "symmetric", axis=0))
    assert torch.equal(adaround(layer, x, y, 50, seed=3)[0], adaround(layer, x, y, 50, seed=3)[0])


def test_masked_weights_stay_zero() -> None:
    layer, x, y = made("conv", Spec(3, "symmetric", axis=0))
    with torch.no_grad():
        masks.attach(nn.Sequential(layer), ["0"])
        masks.mask_of(layer)[:, ::2] = False  # type: ignore[index]
        layer.weight[:, ::2] = 0
    weight, _ = adaround(layer, x, y, ITERATIONS, seed=0)
    assert not weight[:, ::2].any()
    assert weight[:, 1::2].any()


def test_where_nothing_better_is_found_the_nearest_stays() -> None:
    """One iteration moves nothing across the middle."""
    layer, x, y = made("linear", Spec(4, "symmetric", axis=0))
    weight, share = adaround(layer, x, y, 1, seed=0)
    assert share == 1
    assert torch.equal(weight, nearest(layer))


def test_the_rectified_sigmoid_reaches_both_ends() -> None:
    h = rectified_sigmoid(torch.linspace(-8, 8, 101))
    assert h[0] == 0
    assert h[-1] == 1
    assert (h.diff() >= 0).all()
    assert h[50] == pytest.approx(0.5)


def test_beta_falls_from_20_to_2_after_the_warm_up() -> None:
    assert beta(200, 1000) == pytest.approx(20)
    assert beta(600, 1000) == pytest.approx(11)
    assert beta(1000, 1000) == pytest.approx(2)

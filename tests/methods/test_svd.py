from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimline.factorization import whitening
from slimline.method import Batches, Context, compress
from slimline.methods import svd
from slimline.methods.linear import Linear
from slimline.methods.svd import Svd
from slimline.models.resnet import ResNet
from slimline.quantization.quantizers import QuantizedLinear, quantizers

Made = Callable[..., Context]


def problem(out: int, into: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return a random weight [out × in] and the covariance of strongly correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, into, generator=generator)
    mixing = torch.randn(into, into, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, into)
    return weight, mixing @ mixing.T


def output_error(weight: Tensor, approximation: Tensor, covariance: Tensor) -> float:
    """Return E‖(W − Ŵ) x‖² of inputs x with this covariance."""
    difference = (weight - approximation).double()
    return float((difference @ covariance @ difference.T).trace())


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 1000))
def test_full_rank_reconstructs_the_weight(out: int, into: int, seed: int) -> None:
    weight, covariance = problem(out, into, seed)
    a, b = svd.factors(weight, covariance, min(out, into))
    assert a.shape == (min(out, into), into)
    assert b.shape == (out, min(out, into))
    torch.testing.assert_close(b @ a, weight, rtol=1e-3, atol=1e-3)


@settings(max_examples=25)
@given(st.integers(3, 12), st.integers(3, 12), st.integers(0, 1000), st.data())
def test_the_error_is_the_tail_of_the_singular_values(out: int, into: int, seed: int, data: st.DataObject) -> None:
    """Eckart & Young on W·L: the squared error is the sum of the squared singular values that were cut."""
    weight, covariance = problem(out, into, seed)
    rank = data.draw(st.integers(1, min(out, into) - 1))
    lower = whitening.root(covariance)
    tail = torch.linalg.svdvals(weight.double() @ lower)[rank:].square().sum()
    a, b = svd.factors(weight, covariance, rank)
    assert output_error(weight, b @ a, lower @ lower.T) == pytest.approx(float(tail), rel=1e-3, abs=1e-6)


@settings(max_examples=25)
@given(st.integers(4, 12), st.integers(0, 1000), st.integers(1, 3))
def test_on_correlated_inputs_it_never_loses_to_plain_svd(size: int, seed: int, rank: int) -> None:
    weight, covariance = problem(size, size, seed)
    a, b = svd.factors(weight, covariance, rank)
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    plain = (u[:, :rank] * s[:rank]) @ vt[:rank]
    assert output_error(weight, b @ a, covariance) <= output_error(weight, plain, covariance) * (1 + 1e-3)


def test_without_correlation_it_is_plain_svd() -> None:
    weight, _ = problem(6, 5, 0)
    a, b = svd.factors(weight, torch.eye(5, dtype=torch.float64), 2)
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    torch.testing.assert_close(b @ a, (u[:, :2] * s[:2]) @ vt[:2], rtol=1e-4, atol=1e-4)


def test_a_rank_deficient_covariance_is_no_obstacle() -> None:
    weight, _ = problem(4, 6, 0)
    x = torch.randn(2, 6, dtype=torch.float64)
    a, b = svd.factors(weight, x.T @ x, 2)
    assert torch.isfinite(b @ a).all()
    torch.testing.assert_close(x.float() @ (b @ a).T, x.float() @ weight.T, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        pytest.param(nn.Linear(3, 2), True, id="linear"),
        pytest.param(nn.Conv2d(3, 2, 1, stride=2), True, id="1x1"),
        pytest.param(nn.Conv2d(3, 2, 3), False, id="3x3"),
        pytest.param(nn.Conv2d(4, 4, 1, groups=2), False, id="grouped"),
        pytest.param(nn.Conv2d(3, 2, 1, padding=1), False, id="padded"),
        pytest.param(nn.ReLU(), False, id="relu"),
    ],
)
def test_only_layers_of_one_matrix_are_taken(layer: nn.Module, expected: bool) -> None:
    assert Svd.takes(layer) is expected


@pytest.mark.parametrize(
    ("layer", "x"),
    [(nn.Linear(6, 5), torch.rand(3, 6)), (nn.Conv2d(6, 5, 1, stride=2, bias=False), torch.rand(2, 6, 4, 4))],
    ids=["linear", "strided 1x1"],
)
def test_a_sequence_of_full_rank_computes_the_layer(layer: nn.Module, x: Tensor) -> None:
    sequence = Svd.structure(layer, [5])
    weights = Svd.weights(layer, [5], torch.eye(6, dtype=torch.float64))
    tensors = {f"{at}.weight": weight for at, weight in enumerate(weights)}
    sequence.load_state_dict(tensors | ({"1.bias": layer.bias.data} if isinstance(layer.bias, Tensor) else {}))
    assert [part.bias is None for part in sequence] == [True, layer.bias is None]
    torch.testing.assert_close(sequence(x), layer(x), rtol=1e-4, atol=1e-5)


def test_forced_ranks_are_taken(resnet: ResNet, batches: Batches, context: Made, images: Tensor) -> None:
    ranks = {"fc": [10], "stages.1.0.shortcut.0": [8]}
    factorized, plan = compress(Svd(), resnet, batches, context(svd=ranks))
    assert plan.edit.data["ranks"] == ranks
    assert [tuple(factorized.get_parameter(f"fc.{at}.weight").shape) for at in (0, 1)] == [(10, 32), (10, 10)]
    assert plan.notes == ["fc: forced", "stages.1.0.shortcut.0: forced", "forced"]
    torch.testing.assert_close(factorized(images), resnet(images), rtol=1e-2, atol=1e-2)


def test_a_quantized_layer_gives_quantized_factors(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor
) -> None:
    quantized, _ = compress(Linear(), resnet, batches, context())
    factorized, _ = compress(Svd(), quantized, batches, context(svd={"fc": [10]}))
    parts = list(factorized.get_submodule("fc").children())
    assert all(isinstance(part, QuantizedLinear) for part in parts)
    ranges, before = quantizers(factorized), quantizers(quantized)
    assert torch.equal(ranges["fc.0.input_quantizer"].scale, before["fc.input_quantizer"].scale)
    assert not (ranges["fc.1.input_quantizer"].scale == 1).any()
    assert torch.equal(ranges["conv.input_quantizer"].scale, before["conv.input_quantizer"].scale)
    error = (factorized(images) - quantized(images)).abs().max() / quantized(images).abs().max()
    assert error < 0.15  # two factors are rounded instead of one matrix


def test_quantizing_after_factorizing_takes_the_factors(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor
) -> None:
    factorized, _ = compress(Svd(), resnet, batches, context(svd={"fc": [10]}))
    quantized, plan = compress(Linear(), factorized, batches, context())
    assert {"fc.0", "fc.1"} <= set(plan.edit.data["layers"])
    error = (quantized(images) - resnet(images)).abs().max() / resnet(images).abs().max()
    assert error < 0.1

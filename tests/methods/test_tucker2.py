from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimline.method import Batches, Context, compress
from slimline.methods import tucker2
from slimline.methods.linear import Linear
from slimline.methods.tucker2 import Tucker2
from slimline.models.resnet import ResNet
from slimline.quantization.quantizers import QuantizedConv2d, quantizers

Made = Callable[..., Context]


def product(a: Tensor, core: Tensor, b: Tensor) -> Tensor:
    """Return the kernel that the three factors make together."""
    return torch.einsum("si,rskl,or->oikl", a, core, b)


def problem(out: int, into: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return a random 3×3 kernel and the covariance of strongly correlated input channels."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, into, 3, 3, generator=generator)
    mixing = torch.randn(into, into, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, into)
    return weight, mixing @ mixing.T


def error(difference: Tensor, covariance: Tensor) -> float:
    """Return the error of the products at each kernel position, on inputs of this channel covariance."""
    return float(torch.einsum("oikl,ij,ojkl->", difference.double(), covariance, difference.double()))


@settings(max_examples=20)
@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 1000))
def test_full_ranks_reconstruct_the_kernel(out: int, into: int, seed: int) -> None:
    weight, covariance = problem(out, into, seed)
    a, core, b = tucker2.factors(weight, covariance, into, out)
    assert (a.shape, core.shape, b.shape) == ((into, into), (out, into, 3, 3), (out, out))
    torch.testing.assert_close(product(a, core, b), weight, rtol=1e-3, atol=1e-3)


@settings(max_examples=20)
@given(st.integers(4, 8), st.integers(4, 8), st.integers(0, 1000))
def test_a_kernel_of_that_rank_is_found_exactly(out: int, into: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(*shape, generator=generator) for shape in ((3, into), (2, 3, 3, 3), (out, 2))]
    weight = product(*parts)
    found = product(*tucker2.factors(weight, torch.eye(into, dtype=torch.float64), 3, 2))
    torch.testing.assert_close(found, weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_on_correlated_inputs_it_loses_less_than_without_whitening(seed: int) -> None:
    weight, covariance = problem(8, 8, seed)
    aware = product(*tucker2.factors(weight, covariance, 3, 6))
    plain = product(*tucker2.factors(weight, torch.eye(8, dtype=torch.float64), 3, 6))
    assert error(weight - aware, covariance) < error(weight - plain, covariance)


@pytest.mark.parametrize("rank", range(1, 7))
def test_more_rank_never_costs(rank: int) -> None:
    weight, covariance = problem(7, 7, 0)
    less = product(*tucker2.factors(weight, covariance, rank, rank))
    more = product(*tucker2.factors(weight, covariance, rank + 1, rank + 1))
    assert error(weight - more, covariance) <= error(weight - less, covariance) + 1e-6


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(4, 6, (3, 5), padding=(2, 4), dilation=2),
        nn.Conv2d(4, 6, 3, padding="same"),
    ],
    ids=["bias", "stride", "dilation", "same"],
)
def test_a_sequence_of_full_rank_computes_the_convolution(conv: nn.Conv2d) -> None:
    sequence = Tucker2.structure(conv, [4, 6])
    weights = Tucker2.weights(conv, [4, 6], torch.eye(4, dtype=torch.float64))
    tensors = {f"{at}.weight": weight for at, weight in enumerate(weights)}
    sequence.load_state_dict(tensors | ({"2.bias": conv.bias.data} if conv.bias is not None else {}))
    x = torch.rand(2, 4, 9, 9)
    torch.testing.assert_close(sequence(x), conv(x), rtol=1e-4, atol=1e-4)


def test_forced_ranks_are_taken(resnet: ResNet, batches: Batches, context: Made, images: Tensor) -> None:
    name = "stages.2.0.conv2"
    factorized, plan = compress(Tucker2(), resnet, batches, context(tucker2={name: [32, 32]}))
    assert plan.edit.data["ranks"] == {name: [32, 32]}
    torch.testing.assert_close(factorized(images), resnet(images), rtol=1e-2, atol=1e-2)


def test_a_quantized_convolution_gives_quantized_factors(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor
) -> None:
    name = "stages.2.0.conv2"
    quantized, _ = compress(Linear(), resnet, batches, context())
    factorized, _ = compress(Tucker2(), quantized, batches, context(tucker2={name: [32, 32]}))
    parts = list(factorized.get_submodule(name).children())
    assert len(parts) == 3
    assert all(isinstance(part, QuantizedConv2d) for part in parts)
    ranges = quantizers(factorized)
    assert torch.equal(
        ranges[f"{name}.0.input_quantizer"].scale, quantizers(quantized)[f"{name}.input_quantizer"].scale
    )
    error = (factorized(images) - quantized(images)).abs().max() / quantized(images).abs().max()
    assert error < 0.1


def test_quantizing_after_factorizing_folds_into_the_last_factor(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor
) -> None:
    name = "stages.2.0.conv2"
    factorized, _ = compress(Tucker2(), resnet, batches, context(tucker2={name: [32, 32]}))
    quantized, plan = compress(Linear(), factorized, batches, context())
    assert [f"{name}.2", "stages.2.0.bn2"] in plan.edit.data["fold"]
    assert quantized.get_submodule(f"{name}.2").bias is not None
    error = (quantized(images) - resnet(images)).abs().max() / resnet(images).abs().max()
    assert error < 0.1


class Circular(nn.Module):
    """A convolution that pads by wrapping around, which the factors can't."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1, padding_mode="circular")
        self.second = nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular")
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.second(F.relu(self.first(x)))).mean((2, 3))
        assert isinstance(y, Tensor)
        out = self.fc(y)
        assert isinstance(out, Tensor)
        return out


def test_a_convolution_with_another_padding_is_left_alone(batches: Batches, context: Made) -> None:
    _, plan = compress(Tucker2(), Circular(), batches, context())
    assert plan.edit.data["ranks"] == {}
    assert dict(plan.tensors) == {}

"""What every factorize method promises: its factors are the layer at full rank, and its keys do what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimline import params
from slimline.errors import MethodError, ParamsError
from slimline.factorization import whitening
from slimline.factorization.plan import LowRank, is_dense_kernel
from slimline.factorization.rank_choice import cost
from slimline.factorization.ranks import Energy, Ratio, rank_of_energy
from slimline.method import Batches, Context, compress
from slimline.methods.cp import Cp
from slimline.methods.linear import Linear
from slimline.methods.spatial import Spatial
from slimline.methods.svd import Svd
from slimline.methods.tucker2 import Tucker2
from slimline.models.resnet import ResNet
from slimline.params import Configured
from slimline.quantization.quantizers import plain, quantizers

Made = Callable[..., Context]
KINDS: list[type[LowRank]] = [Svd, Tucker2, Spatial, Cp]
KERNELS: list[type[LowRank]] = [Tucker2, Spatial, Cp]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[LowRank]:
    """Each factorize method."""
    found: type[LowRank] = request.param
    return found


def filled(kind: type[LowRank], layer: nn.Module, ranks: list[int], covariance: Tensor) -> nn.Sequential:
    """Return the sequence with its weights."""
    sequence = kind.structure(layer, ranks)
    for part, weight in zip(sequence.children(), kind.weights(layer, ranks, covariance), strict=True):
        assert part.weight.shape == weight.shape
        part.weight.data.copy_(weight)  # type: ignore[operator]
    if isinstance(layer.bias, Tensor):
        list(sequence.children())[-1].bias.data.copy_(layer.bias.data)  # type: ignore[operator]
    return sequence


@pytest.mark.parametrize("kind", [Spatial, Cp], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 3, stride=(2, 1), padding=1, bias=False),
        nn.Conv2d(4, 6, (3, 5), padding=(2, 4), dilation=2),
        nn.Conv2d(4, 6, 3, padding="same"),
    ],
    ids=["bias", "stride", "dilation", "same"],
)
def test_enough_rank_computes_the_convolution(kind: type[LowRank], conv: nn.Conv2d) -> None:
    full = 12 if kind is Spatial else 60  # CP needs far more terms than channels to be exact
    sequence = filled(kind, conv, [full], torch.eye(4, dtype=torch.float64))
    x = torch.rand(2, 4, 9, 9)
    torch.testing.assert_close(sequence(x), conv(x), rtol=5e-3, atol=5e-3)


def kernel(kind: type[LowRank], weights: list[Tensor]) -> Tensor:
    """Return the kernel [O × I × k_h × k_w] that the factors make up."""
    if kind is Spatial:
        v, h = weights
        return torch.einsum("rik,orl->oikl", v[..., 0], h[..., 0, :])
    a, v, h, d = weights
    return torch.einsum("ri,rk,rl,or->oikl", a[..., 0, 0], v[:, 0, :, 0], h[:, 0, 0], d[..., 0, 0])


@settings(max_examples=12)
@given(
    st.sampled_from([Spatial, Cp]), st.integers(2, 5), st.integers(2, 4), st.integers(2, 3), st.integers(2, 3),
    st.integers(0, 1000),
)  # fmt: skip
def test_full_rank_is_the_kernel_and_the_error_on_real_inputs_falls_with_rank(
    kind: type[LowRank], out: int, into: int, high: int, wide: int, seed: int
) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(into, out, (high, wide))
    mixing = torch.randn(into, into, dtype=torch.float64)
    covariance = mixing @ mixing.T + 0.1 * torch.eye(into)
    lower = whitening.root(covariance)
    sizes = (out * wide, into * high) if kind is Spatial else (out * into * high * wide // max(out, into, high, wide),)
    ranks = [1, 2, min(sizes)]
    errors = []
    for rank in ranks:
        lost = conv.weight.detach() - kernel(kind, kind.weights(conv, [rank], covariance))
        errors.append(float(whitening.whitened(lost, lower).square().sum()))
    whole = float(whitening.whitened(conv.weight, lower).square().sum())
    assert whole > errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4 * whole
    if kind is Spatial:  # Eckart & Young
        (spectrum,) = kind.spectra(conv, covariance)
        tails = [float(spectrum[rank:].square().sum()) for rank in ranks]
        assert errors == pytest.approx(tails, rel=1e-3, abs=1e-6 * whole)


@torch.no_grad()
@pytest.mark.parametrize("kind", [Spatial, Cp], ids=lambda kind: kind.name)
def test_a_kernel_of_that_rank_is_found(kind: type[LowRank]) -> None:
    generator = torch.Generator().manual_seed(0)
    if kind is Spatial:
        v, h = torch.randn(2, 5, 3, generator=generator), torch.randn(6, 2, 3, generator=generator)
        kernel = torch.einsum("rik,orl->oikl", v, h)
    else:
        parts = [torch.randn(size, 2, generator=generator) for size in (6, 5, 3, 3)]
        kernel = torch.einsum("or,ir,kr,lr->oikl", *parts)
    conv = nn.Conv2d(5, 6, 3, bias=False)
    conv.weight.data = kernel
    x = torch.rand(3, 5, 8, 8, generator=generator)
    sequence = filled(kind, conv, [2], torch.eye(5, dtype=torch.float64))
    error = (sequence(x) - conv(x)).square().mean() / conv(x).square().mean()
    assert error < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("kind", KERNELS, ids=lambda kind: kind.name)
def test_whitening_loses_less_on_the_inputs_that_occur(kind: type[LowRank]) -> None:
    generator = torch.Generator().manual_seed(1)
    conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    mixing = torch.randn(8, 8, generator=generator) * torch.logspace(0, -2, 8)
    x = torch.einsum("ij,njhw->nihw", mixing, torch.randn(64, 8, 6, 6, generator=generator))
    rows = x.movedim(1, -1).flatten(0, -2).double()
    ranks = [3, 6] if kind is Tucker2 else [6]
    errors = [
        float((filled(kind, conv, ranks, covariance)(x) - conv(x)).square().mean())
        for covariance in (rows.T @ rows / len(rows), torch.eye(8, dtype=torch.float64))
    ]
    assert errors[0] < errors[1]


def test_a_ratio_below_half_a_multiple_is_no_rank_of_one(kind: type[LowRank], batches: Batches, context: Made) -> None:
    """A tenth of 16 was rounded to no multiple of 4, and the layer cut to rank 1; a stem of one channel was, always."""
    model = ResNet(depth=8, width=16).eval()
    _, plan = compress(kind(rank=Ratio(0.1), multiple=4), model, batches, context())
    assert plan.edit.data["ranks"]
    for name, ranks in plan.edit.data["ranks"].items():
        spectra = kind.spectra(model.get_submodule(name), torch.eye(size_in(model, name), dtype=torch.float64))
        assert all(rank >= min(4, len(each)) for rank, each in zip(ranks, spectra, strict=True)), name


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_a_ratio_is_taken_by_every_layer_that_saves_work(
    kind: type[LowRank], resnet: ResNet, batches: Batches, context: Made, ratio: float
) -> None:
    factorized, plan = compress(kind(rank=Ratio(ratio), multiple=1), resnet, batches, context())
    assert plan.edit.data["ranks"]
    for name, ranks in plan.edit.data["ranks"].items():
        spectra = kind.spectra(resnet.get_submodule(name), torch.eye(size_in(resnet, name), dtype=torch.float64))
        assert ranks == [max(1, round(len(each) * ratio)) for each in spectra]
        assert len(list(factorized.get_submodule(name).children())) >= 2
    assert sum(p.numel() for p in factorized.parameters()) < sum(p.numel() for p in resnet.parameters())


def size_in(model: nn.Module, name: str) -> int:
    """Return a layer's input channels."""
    return model.get_parameter(f"{name}.weight").shape[1]


@torch.no_grad()
def test_more_energy_costs_less_accuracy_of_the_outputs(
    kind: type[LowRank], resnet: ResNet, batches: Batches, context: Made, images: Tensor
) -> None:
    errors = []
    for energy in (0.5, 0.999):
        made = kind(rank=Energy(energy), multiple=1)
        factorized, _ = compress(made, resnet, batches, context())
        errors.append(float((factorized(images) - resnet(images)).square().mean()))
    assert errors[1] <= errors[0]


@pytest.mark.parametrize(("energy", "rank"), [(0.5, 1), (0.81, 2), (0.92, 2), (0.95, 3)])
def test_the_rank_of_an_energy(energy: float, rank: int) -> None:
    assert rank_of_energy(torch.tensor([9.0, 4.0, 1.0]).sqrt() * 2, energy) == rank


def test_a_layer_where_the_rank_costs_more_stays_and_says_so(resnet: ResNet, batches: Batches, context: Made) -> None:
    _, plan = compress(Svd(rank=Ratio(0.99), multiple=1), resnet, batches, context())
    assert plan.edit.data["ranks"] == {}
    assert any("stays: ranks [10] would take" in note for note in plan.notes)


@pytest.mark.parametrize("whiten", [True, False])
def test_inputs_that_are_not_finite_are_refused(
    kind: type[LowRank], resnet: ResNet, broken_batches: Batches, context: Made, whiten: bool
) -> None:
    method = kind(rank=Ratio(0.5), whiten=whiten)
    with pytest.raises(MethodError, match=r"^here: layer \S+: calibration saw inputs that are not finite$"):
        method.plan(resnet, broken_batches, context())


@pytest.mark.parametrize("before", [True, False], ids=["quantized after", "quantized before"])
def test_it_works_before_and_after_quantizing(
    kind: type[LowRank], before: bool, resnet: ResNet, batches: Batches, context: Made, images: Tensor
) -> None:
    steps: list[Any] = [kind(rank=Ratio(0.75), multiple=1), Linear()]
    model: nn.Module = resnet
    for method in steps if before else reversed(steps):
        model, _ = compress(method, model, batches, context())
    expected = plain(model)(images)  # the same factors, without their quantizers
    assert quantizers(model)
    assert (model(images) - expected).std() / expected.std() < 0.25


def test_skip_leaves_layers_and_refuses_a_glob_that_matches_nothing(
    resnet: ResNet, batches: Batches, context: Made
) -> None:
    _, plan = compress(Tucker2(rank=Ratio(0.25), skip=["stages.2.*"]), resnet, batches, context())
    assert not any(name.startswith("stages.2") for name in plan.edit.data["ranks"])
    with pytest.raises(MethodError, match=r"here.skip: 'stage.\*' matches no layer that can be factorized; layers: "):
        Tucker2(skip=["stage.*"]).plan(resnet, batches, context())


@pytest.mark.parametrize(
    ("rank", "expected"), [("auto", "auto"), ({"ratio": 0.5}, Ratio(0.5)), ({"energy": 0.9}, Energy(0.9))]
)
def test_rank_as_params_yaml_writes_it(rank: Any, expected: Any) -> None:
    made = params.configure("methods", Configured(name="svd", rank=rank), "params.yaml: factorize.methods.0")  # type: ignore[call-arg]
    assert made.rank == expected


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        ({"ratio": 1.5}, ".ratio: input should be less than 1, found 1.5"),
        ({"energy": 0}, ".energy: input should be greater than 0, found 0"),
        ({"rato": 0.5}, ".rato: unknown key. Did you mean 'ratio'? Known: ratio, energy"),
        ({"energy": 0.5, "multiple": 8}, ".multiple: unknown key. Known: ratio, energy"),
        ({"ratio": 0.5, "energy": 0.5}, ": input should be auto, or one of {ratio: r} and {energy: e}, found {'ratio'"),
        ({}, ".ratio: missing"),
        (4, ": input should be auto, or one of {ratio: r} and {energy: e}, found 4"),
        ("automatic", ": input should be auto, or one of {ratio: r} and {energy: e}, found 'automatic'"),
    ],
    ids=str,
)
def test_a_wrong_rank_is_one_line_that_says_what_is_wrong(rank: Any, message: str) -> None:
    """Whatever was wrong, the message used to be that a rank should be 'auto'; one of two keys was not read."""
    with pytest.raises(ParamsError) as caught:
        params.configure("methods", Configured(name="svd", rank=rank), "params.yaml: factorize.methods.0")  # type: ignore[call-arg]
    assert str(caught.value).startswith(f"params.yaml: factorize.methods.0.rank{message}")
    assert "\n" not in str(caught.value)


def test_no_ratio_to_try_is_refused() -> None:
    """It ended in 'no layer pays on this target'."""
    with pytest.raises(ParamsError, match=r"here\.ratios: list should have at least 1 item"):
        params.configure("methods", Configured(name="svd", ratios=[]), "here")  # type: ignore[call-arg]


def test_cost_counts_what_a_sequence_does() -> None:
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    assert cost(conv, (4, 8, 8)) == 16 * 6 * 4 * 9
    assert cost(Tucker2.structure(conv, [2, 3]), (4, 8, 8)) == 64 * 4 * 2 + 16 * (2 * 3 * 9 + 3 * 6)


def test_without_whitening_the_spectrum_is_the_kernels_own() -> None:
    layer = nn.Linear(5, 4)
    found = Svd.spectra(layer, torch.eye(5, dtype=torch.float64))[0]
    torch.testing.assert_close(found.float(), torch.linalg.svdvals(layer.weight.detach()), rtol=1e-3, atol=1e-4)
    assert is_dense_kernel(nn.Conv2d(2, 2, 3))

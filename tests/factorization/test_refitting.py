"""Factors solved for again behind other factorized layers: nearer to the model, in the order of the calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from slimline.factorization import refitting
from slimline.factorization.plan import LowRank
from slimline.factorization.ranks import Ratio
from slimline.layers import sharing
from slimline.method import Batches, Context, compress
from slimline.methods.cp import Cp
from slimline.methods.svd import Svd, factors
from slimline.methods.tucker2 import Tucker2
from slimline.models.resnet import ResNet

Made = Callable[..., Context]
CONVOLUTIONS = [
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(2, 4), dilation=2),
    nn.Conv2d(4, 6, (2, 3), padding="same"),
    nn.Conv2d(4, 6, 3, padding="valid"),
    nn.Conv2d(4, 6, 1, stride=2),
]


@torch.no_grad()
@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=["padding", "dilation", "same", "valid", "pointwise"])
def test_unfolded_inputs_times_the_weight_are_the_convolution(conv: nn.Conv2d) -> None:
    z = torch.rand(2, 4, 9, 8)
    product = refitting._unfolded(z, conv) @ conv.weight.flatten(1).T + cast(Tensor, conv.bias)
    torch.testing.assert_close(product, refitting._rows(conv(z), conv))


@pytest.mark.parametrize("kind", [Tucker2, Cp], ids=lambda kind: kind.name)
def test_the_whole_model_comes_nearer_to_what_it_was(
    kind: type[LowRank], resnet: ResNet, batches: Batches, context: Made
) -> None:
    def error(*, refit: bool) -> float:
        changed, _ = compress(kind(rank=Ratio(0.5), refit=refit), resnet, batches, context())
        with torch.no_grad():
            pairs = [(changed.eval()(next(iter(x.values()))), resnet(next(iter(x.values())))) for x, _ in batches()]
        return float(sum((a - b).square().mean() for a, b in pairs))

    assert error(refit=True) < 0.95 * error(refit=False)


class Backwards(nn.Module):
    """The layer that is called first is registered last."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.Linear(16, 12), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(x)))
        return out


@pytest.fixture
def rows() -> Batches:
    """Correlated rows, in batches."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 16, generator=generator) @ torch.randn(16, 16, generator=generator)
    return lambda: (({"x": part}, torch.zeros(len(part))) for part in x.split(100))


def test_layers_are_taken_in_the_order_of_the_calls(rows: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Backwards()
    changed = sharing(model)
    for name in ("first", "second"):
        setattr(changed, name, Svd.structure(model.get_submodule(name), [2]))
    solved: list[str] = []
    own = refitting._moments
    monkeypatch.setattr(refitting, "_moments", lambda *args: solved.append(args[2]) or own(*args))
    refitting.refit(changed, model, ["second", "first"], rows)
    assert solved == ["first", "second"]


@torch.no_grad()
def test_alone_a_linear_layer_gets_the_factors_of_whitened_svd_and_keeps_its_bias(rows: Batches) -> None:
    model, changed = Backwards(), Backwards()
    x = torch.cat([inputs["x"] for inputs, _ in rows()])
    changed.first = Svd.structure(model.first, [4])  # type: ignore[assignment]
    changed.first[1].bias.copy_(model.first.bias)  # type: ignore[index]
    refitting.refit(changed, model, ["first"], rows)
    a, b = factors(model.first.weight, (x.T @ x / len(x)).double(), 4)
    found = cast(nn.Sequential, changed.first)
    product = cast(Tensor, found[1].weight) @ cast(Tensor, found[0].weight)
    expected = (x @ (b @ a).T).std()
    assert float((x @ (product - b @ a).T).std() / expected) < 0.01
    assert torch.equal(cast(Tensor, found[1].bias), model.first.bias)


@torch.no_grad()
def test_at_full_rank_nothing_changes(rows: Batches) -> None:
    model, changed = Backwards(), Backwards()
    changed.first = model.first
    changed.second = Svd.structure(model.second, [12])  # type: ignore[assignment]
    changed.second[1].bias.copy_(model.second.bias)  # type: ignore[index]
    refitting.refit(changed, model, ["second"], rows)
    x = next(iter(rows()))[0]["x"]
    torch.testing.assert_close(changed(x), model(x), rtol=1e-2, atol=1e-2)

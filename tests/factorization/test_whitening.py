from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from slimline.factorization import whitening
from slimline.method import Batches
from slimline.models.resnet import ResNet
from slimline.task import call


@pytest.mark.parametrize("name", ["fc", "stages.1.0.conv1"])
def test_covariances_are_the_mean_outer_product(resnet: ResNet, batches: Batches, name: str) -> None:
    seen: list[Tensor] = []
    handle = resnet.get_submodule(name).register_forward_pre_hook(
        lambda _m, args: seen.append(args[0].detach().double())
    )
    for inputs, _ in batches():
        call(resnet, inputs)
    handle.remove()
    rows = torch.cat(seen)
    rows = rows.movedim(1, -1).flatten(0, -2)
    found = whitening.covariances(resnet, [name], batches)[name]
    torch.testing.assert_close(found, rows.T @ rows / len(rows))


def test_a_layer_that_is_never_reached_has_no_covariance(resnet: ResNet, batches: Batches) -> None:
    resnet.stray = nn.Linear(2, 2)
    assert whitening.covariances(resnet, ["stray"], batches) == {}


@given(st.integers(1, 8), st.integers(0, 100))
def test_the_root_times_its_transpose_is_the_covariance(size: int, seed: int) -> None:
    x = torch.randn(50, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    covariance = x.T @ x / 50
    lower = whitening.root(covariance)
    assert torch.equal(lower, lower.tril())
    torch.testing.assert_close(lower @ lower.T, covariance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("room", [0, 2**26], ids=["one at a time", "all"])
def test_covariances_are_the_same_a_few_at_a_time(
    resnet: ResNet, batches: Batches, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    names = [name for name, each in resnet.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    runs: list[list[str]] = []
    whole = whitening.covariances

    def counted(model: nn.Module, group: list[str], data: Batches) -> dict[str, Tensor]:
        runs.append(group)
        return whole(model, group, data)

    monkeypatch.setattr(whitening, "covariances", counted)
    monkeypatch.setattr(whitening, "LEAST", room)
    monkeypatch.setattr(whitening, "SHARE", 0)
    found = whitening.Covariances(resnet, names, batches)
    expected = whole(resnet, names, batches)
    assert list(found) == list(expected)
    for name in names:
        assert torch.equal(found[name], expected[name])
    assert len(runs) == (1 if room else len(names))

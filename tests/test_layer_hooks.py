"""Hooks see and replace what layers read and give, and are gone afterwards, whatever happens in between."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline import layer_hooks


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def hooks(model: nn.Module) -> int:
    """Return how many hooks of forward runs there are."""
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())


def test_each_layer_is_shown_under_its_name(model: nn.Module) -> None:
    x, seen = torch.rand(5, 4), {}

    def see(name: str, layer: nn.Module, args: tuple[Tensor, ...], *out: Tensor) -> None:
        seen[name] = layer, args[0].shape, *(each.shape for each in out)

    with layer_hooks.before(model, ["", "0"], see), layer_hooks.after(model, ["2"], see):
        model(x)
    assert seen == {"": (model, (5, 4)), "0": (model[0], (5, 4)), "2": (model[2], (5, 3), (5, 2))}


def test_what_a_hook_returns_takes_the_place(model: nn.Module) -> None:
    x = torch.rand(5, 4)
    twice = lambda _name, _layer, args: (2 * args[0],)  # noqa: E731
    negated = lambda _name, _layer, _args, out: -out  # noqa: E731
    expected = -model(2 * x)
    with layer_hooks.before(model, ["0"], twice), layer_hooks.after(model, ["2"], negated):
        assert torch.equal(model(x), expected)
    assert torch.equal(model(2 * x), -expected)


@pytest.mark.parametrize("attach", [layer_hooks.before, layer_hooks.after])
def test_no_hook_stays(model: nn.Module, attach: Any) -> None:
    with attach(model, ["0", "2"], print):
        assert hooks(model) == 2
    assert hooks(model) == 0
    with pytest.raises(RuntimeError, match="shapes"), attach(model, ["0", "2"], lambda *_: None):
        model(torch.rand(5, 3))
    assert hooks(model) == 0
    with pytest.raises(AttributeError), attach(model, ["0", "none"], print):
        pass
    assert hooks(model) == 0


def test_inputs_of_all_batches_are_seen_in_evaluation_mode(model: nn.Module) -> None:
    rows = [({"x": torch.rand(n, 4)}, torch.zeros(n)) for n in (3, 2)]
    seen: list[tuple[str, int, bool]] = []
    see = lambda name, layer, args: seen.append((name, len(args[0]), layer.training))  # noqa: E731
    layer_hooks.see_inputs(model, ["0", "2"], lambda: iter(rows), see)
    assert seen == [("0", 3, False), ("2", 3, False), ("0", 2, False), ("2", 2, False)]
    assert hooks(model) == 0

"""Scores of channels are their formulas."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Batch, Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.pruning import importances
from slimline.pruning.channels import Group, groups
from slimline.pruning.importances import Importance
from slimline.task import call

Made = Callable[..., Context]


class SquaredError:
    """½ Σ (out − y)² over all rows, whose Hessian is known."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return (out - y).square().sum() / 2


def found_in(model: nn.Module, batches: Batches) -> list[Group]:
    return groups(model, next(iter(batches()))[0], 10)


def test_l1_and_l2_scores_are_their_formulas() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False))
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.tensor([3.0, -4.0]).reshape(2, 1, 1, 1))
        model.get_parameter("1.weight").copy_(torch.tensor([[4.0, 3.0]]).reshape(1, 2, 1, 1))
    group = Group([("0", "out", [[0], [1]]), ("1", "in", [[0], [1]])], 2)
    assert importances.score("l1", group, model, {}).tolist() == [1, 1]  # (3 + 4, 4 + 3) over their mean
    with torch.no_grad():
        model.get_parameter("1.weight").copy_(torch.tensor([[4.0, 0.0]]).reshape(1, 2, 1, 1))
    l1, l2 = importances.score("l1", group, model, {}), importances.score("l2", group, model, {})
    assert l1.tolist() == pytest.approx([7 / 5.5, 4 / 5.5])
    assert l2.tolist() == pytest.approx([5 / 4.5, 4 / 4.5])


def test_taylor_scores_are_weight_times_gradient(cnn: Cnn, batches: Batches, context: Made) -> None:
    made = context()
    gradients = importances.sensitivities("taylor", cnn, batches, made)
    found = groups(cnn, next(iter(batches()))[0], 10)
    group = next(each for each in found if each.members[0][0] == "6")
    w, g = cnn.get_parameter("6.weight").detach(), gradients["6.weight"]
    reader = (cnn.get_parameter("11.weight").detach() * gradients["11.weight"]).sum(0).abs().reshape(8, 4).sum(1)
    expected = (w * g).sum((1, 2, 3)).abs() + reader
    torch.testing.assert_close(
        importances.score("taylor", group, cnn, gradients), expected.double(), rtol=1e-4, atol=1e-7
    )


def test_fisher_is_half_the_squared_weight_times_the_mean_squared_gradient_of_single_rows(
    cnn: Cnn, batches: Batches, context: Made
) -> None:
    made = context()
    cnn.eval()
    squares = torch.zeros_like(cnn.get_parameter("6.weight"))
    reader = torch.zeros_like(cnn.get_parameter("11.weight"))
    rows = 0
    for inputs, y in batches():
        for at in range(len(y)):
            loss = made.task.loss(cnn(inputs["image"][at : at + 1]), y[at : at + 1])
            one, two = torch.autograd.grad(loss, [cnn.get_parameter("6.weight"), cnn.get_parameter("11.weight")])
            squares, reader, rows = squares + one.square(), reader + two.square(), rows + 1
    own = (cnn.get_parameter("6.weight").detach().square() * squares).sum((1, 2, 3))
    read = (cnn.get_parameter("11.weight").detach().square() * reader).sum(0).reshape(8, 4).sum(1)
    found = found_in(cnn, batches)
    group = next(index for index, each in enumerate(found) if each.members[0][0] == "6")
    scores = importances.scores("fisher", found, cnn, batches, made)[group]
    torch.testing.assert_close(scores, ((own + read) / (2 * rows)).double(), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("importance", ["taylor", "fisher", "hessian"])
def test_scores_that_are_not_finite_are_refused(
    cnn: Cnn, batches: Batches, broken_batches: Batches, context: Made, importance: Importance
) -> None:
    found = found_in(cnn, batches)
    with pytest.raises(MethodError, match=rf"^here: layer {found[0].members[0][0]}: its {importance} scores are not"):
        importances.scores(importance, found, cnn, broken_batches, context())


def test_only_what_is_scored_gets_gradients(cnn: Cnn, batches: Batches, context: Made) -> None:
    found = found_in(cnn, batches)
    at = next(index for index, each in enumerate(found) if each.members[0][0] == "6")
    (alone,) = importances.scores("taylor", [found[at]], cnn, batches, context())
    assert set(importances.sensitivities("taylor", cnn, batches, context(), {"6.weight"})) == {"6.weight"}
    assert all(each.grad is None for each in cnn.parameters())
    assert all(each.requires_grad for each in cnn.parameters())
    assert torch.equal(alone, importances.scores("taylor", found, cnn, batches, context())[at])


class Squares(nn.Module):
    """Reads x, gives x + W(Vx)², and remembers weakly what is squared."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.inside: list[weakref.ref[Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        self.inside.append(weakref.ref(y))
        return x + cast(Tensor, self.second(y.square()))


class Blocks(nn.Module):
    def __init__(self, width: int = 8, depth: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Squares(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_what_is_inside_a_transformers_layers_is_not_kept_for_gradients(context: Made) -> None:
    torch.manual_seed(0)
    model = Blocks()
    x, y = torch.randn(4, 5, 8), torch.randn(4, 5, 8)

    class Watched:
        def loss(self, out: Tensor, y: Tensor) -> Tensor:
            assert [[each() for each in block.inside] for block in model.blocks] == [[None]] * 3
            return SquaredError().loss(out, y)

    made = replace(context(), task=cast(Any, Watched()))
    seen = importances.sensitivities("taylor", model, lambda: [({"x": x}, y)], made)
    assert all("forward" not in vars(block) for block in model.blocks)
    SquaredError().loss(model(x), y).backward()
    assert len(seen) == 12
    for name, parameter in model.named_parameters():
        assert torch.equal(seen[name], cast(Tensor, parameter.grad))


def test_hutchinson_is_exact_where_the_hessian_is_diagonal(context: Made) -> None:
    """With one-hot inputs ∂²L/∂w_ij² counts the rows that show input j, and no two weights mix."""
    rows = torch.eye(3)[[0, 0, 1, 2, 2, 2]]

    def each() -> Iterator[Batch]:
        yield {"x": rows}, torch.zeros(6, 2)

    made = replace(context(), task=cast(Any, SquaredError()))
    found = importances.sensitivities("hessian", nn.Linear(3, 2, bias=False), each, made)
    assert found["weight"].tolist() == [[2, 1, 3], [2, 1, 3]]


def test_hessian_scores_are_mean_curvature_times_squared_weight() -> None:
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.tensor([[3.0], [1.0]]))
        model.get_parameter("1.weight").copy_(torch.tensor([[4.0, 2.0]]))
    group = Group([("0", "out", [[0], [1]]), ("1", "in", [[0], [1]])], 2)
    seen = {"0.weight": torch.tensor([[2.0], [-8.0]]), "1.weight": torch.tensor([[6.0, 2.0]])}
    scores = importances.score("hessian", group, model, seen)
    assert scores.tolist() == [(2 + 6) / (2 * 2) * (9 + 16), 0]  # the second channel's mean curvature is below 0


def test_bn_scale_is_the_mean_of_the_norms(resnet: ResNet, batches: Batches, context: Made) -> None:
    found = found_in(resnet, batches)
    scores = importances.scores("bn-scale", found, resnet, batches, context())
    joined = next(at for at, group in enumerate(found) if any(layer == "bn" for layer, _, _ in group.members))
    expected = (resnet.get_parameter("bn.weight").abs() + resnet.get_parameter("stages.0.0.bn2.weight").abs()) / 2
    torch.testing.assert_close(scores[joined], expected.detach().double())


def test_bn_scale_after_folding_is_a_named_error(resnet: ResNet, batches: Batches, context: Made) -> None:
    quantized, _ = compress(Linear(), resnet, batches, context())
    with pytest.raises(
        MethodError, match=r"here\.importance: bn-scale needs a BatchNorm, and .* prune before"
    ) as named:
        importances.scores("bn-scale", found_in(resnet, batches), quantized, batches, context())
    assert "\n" not in str(named.value)


def test_random_scores_hang_on_the_seed_alone(cnn: Cnn, batches: Batches, context: Made) -> None:
    found = found_in(cnn, batches)
    first = importances.scores("random", found, cnn, batches, context())
    again = importances.scores("random", found, Cnn(width=8), batches, context())
    other = importances.scores("random", found, cnn, batches, replace(context(), seed=1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("importance", ["taylor", "fisher"])
def test_scores_from_gradients_spare_what_the_loss_needs(
    cnn: Cnn, batches: Batches, context: Made, importance: Importance
) -> None:
    """A channel whose readers are zero can't move the loss."""
    with torch.no_grad():
        cnn.get_parameter("6.weight")[:, [2, 5]] = 0
    found = found_in(cnn, batches)
    group = next(index for index, each in enumerate(found) if each.members[0][0] == "3")
    scores = importances.scores(importance, found, cnn, batches, context())[group]
    assert set(scores.topk(2, largest=False).indices.tolist()) == {2, 5}


def test_the_models_outputs_are_untouched(cnn: Cnn, batches: Batches, context: Made) -> None:
    inputs, _ = next(iter(batches()))
    before = call(cnn, inputs)
    importances.scores("hessian", found_in(cnn, batches), cnn, batches, context())
    assert torch.equal(call(cnn, inputs), before)

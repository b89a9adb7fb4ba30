"""Movement: what a fine-tuning draws to zero goes, however large it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.decisions import Decisions
from slimline.errors import MethodError
from slimline.method import Batch, Context, compress
from slimline.methods.heads import Heads
from slimline.methods.neurons import Neurons
from slimline.params import Target
from slimline.pruning import importances
from slimline.pruning.channels import Group
from slimline.pruning.encoder_pruning import EncoderPruning
from slimline.pruning.movement import Tuning
from slimline.sensitivity import Sensitivity
from slimline.task import Split, tensors
from slimline.tasks.text import Text
from tests.encoders import text_project


class FirstInput:
    """Guess the first of two inputs."""

    augment_draws = 0

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return (out[:, 0] - y).square().mean()


@pytest.fixture
def guess() -> Context:
    """Thirty-two rows whose target is their first input."""
    x = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)
    rows = Split({"x": x}, x[:, 0].copy())
    return Context(cast(Any, FirstInput()), rows, rows, Target(), Decisions(None, {}), where="here", train=rows)


def moved(group: Group, model: nn.Module, context: Context, steps: int, lr: float) -> Tensor:
    """Return the group's scores by movement, which reads no calibration batches."""
    (found,) = importances.scores("movement", [group], model, list, context, Tuning(steps, lr))
    return found


@pytest.fixture
def neurons() -> tuple[nn.Sequential, Group]:
    """Two neurons: a small one that reads the first input, a large one that reads the second."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.2, 0.0], [0.0, 1.0]]))
        model[1].weight.copy_(torch.tensor([[0.2, 1.0]]))
    return model, Group([("0", "out", [[0], [1]]), ("1", "in", [[0], [1]])], 2)


def test_what_moves_to_zero_scores_below_what_moves_away(neurons: tuple[nn.Sequential, Group], guess: Context) -> None:
    """Magnitude keeps the neuron that the task has no use for, movement the other."""
    model, group = neurons
    before = copy.deepcopy(model.state_dict())
    small, large = moved(group, model, guess, 20, 1e-2).tolist()
    assert small > 0 > large
    l1 = importances.score("l1", group, model, {})
    assert l1[0] < l1[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scores_sum_over_steps_what_the_gradient_says_of_each(
    neurons: tuple[nn.Sequential, Group], guess: Context
) -> None:
    model, group = neurons
    inputs, y = guess.calibration[slice(0, 32)]
    guess.task.loss(model(torch.from_numpy(inputs["x"])), torch.from_numpy(y)).backward()  # type: ignore[no-untyped-call]
    one = [-(p.detach() * p.grad) for p in model.parameters() if p.grad is not None]
    expected = one[0].sum(1) + one[1].sum(0)
    found = moved(group, model, guess, 3, 1e-12)  # so slow that every step sees the same weights
    torch.testing.assert_close(found, 3 * expected.double(), rtol=1e-4, atol=1e-6)


def test_a_loss_that_grows_without_bound_names_lr(neurons: tuple[nn.Sequential, Group], guess: Context) -> None:
    with pytest.raises(MethodError, match=r"^here\.lr: the loss became (inf|nan) at step 2; lower lr$"):
        moved(neurons[1], neurons[0], guess, 5, 1e30)


class SquareRoot(FirstInput):
    """Its gradient is infinite where its value is 0."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return super().loss(0 * out, 0 * y).sqrt()


def test_scores_that_are_not_finite_are_refused(neurons: tuple[nn.Sequential, Group], guess: Context) -> None:
    broken = replace(guess, task=cast(Any, SquareRoot()))
    with pytest.raises(
        MethodError, match=r"^here: layer 0: its movement scores are not finite; .* the training data\?$"
    ):
        moved(neurons[1], neurons[0], broken, 1, 1e-3)


def test_a_train_split_without_rows_is_an_error(neurons: tuple[nn.Sequential, Group], guess: Context) -> None:
    nothing = Split({"x": np.zeros((0, 2), np.float32)}, np.zeros(0, np.float32))
    with pytest.raises(MethodError, match=r"^here\.importance: movement fine-tunes, and the train split has no rows$"):
        moved(neurons[1], neurons[0], replace(guess, train=nothing), 1, 1e-3)


@pytest.fixture(scope="module")
def own_task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Text]:
    with text_project(tmp_path_factory.mktemp("movement")) as task:
        yield task


@pytest.fixture
def encoder(own_task: Text) -> nn.Module:
    pytest.importorskip("transformers")
    from slimline.models.hf_encoder import HfEncoder

    torch.manual_seed(1)
    return HfEncoder("model", classes=3, config={"num_attention_heads": 4}).eval()


@pytest.fixture
def planned(own_task: Text, encoder: nn.Module) -> Callable[..., tuple[nn.Module, Any]]:
    rows = own_task.splits()

    def batches() -> Iterator[Batch]:
        inputs, y = rows["calibration"][slice(0, 24)]
        yield tensors(inputs), torch.from_numpy(y)

    context = Context(own_task, rows["calibration"], rows["validation"], Target(), Decisions(None, {}), where="here")

    return lambda method: compress(method, encoder, batches, context)


@pytest.mark.parametrize(
    "method",
    [
        Heads(importance="movement", steps=8, lr=1e-3, scope="layer"),
        Neurons(importance="movement", steps=8, lr=1e-3, scope="layer"),
    ],
    ids=["heads", "neurons"],
)
def test_a_real_encoder_is_pruned_by_movement_and_left_as_it_was(
    method: EncoderPruning, encoder: nn.Module, planned: Callable[..., tuple[nn.Module, Any]]
) -> None:
    before = copy.deepcopy(encoder.state_dict())
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, plan = planned(method)
    assert torch.equal(torch.rand(1), expected)  # no chance was taken from what comes after
    second, again = planned(method)
    assert plan.edit == again.edit
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert not any(module.training for module in encoder.modules())
    kept = "2 of 4 heads kept" if isinstance(method, Heads) else "32 of 64 neurons kept"
    assert sum(kept in note for note in plan.notes) == 2
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])


def test_a_cost_is_not_that_of_other_training_rows(own_task: Text, encoder: nn.Module, tmp_path: Path) -> None:
    rows = own_task.splits()
    calibration, train = rows["calibration"].head(24), rows["train"]
    base = Context(own_task, calibration, calibration, Target(), Decisions(None, {}), where="here", cache=tmp_path)

    def batches() -> Iterator[Batch]:
        inputs, y = calibration[slice(0, 24)]
        yield tensors(inputs), torch.from_numpy(y)

    def known(method: EncoderPruning, train: Split) -> bool:
        context = replace(base, train=train)
        study = Sensitivity(encoder, context)
        layer, alone = next(iter(method.alone(encoder, batches, context).items()))
        before = study.knows(method, layer, alone)
        study.cost(method, layer, alone)
        return before

    moving = Neurons(importance="movement", steps=2, lr=1e-3)
    assert [known(moving, each) for each in (train, train, train.head(30))] == [False, True, False]
    assert [known(Neurons(importance="l1"), each) for each in (train, train.head(30))] == [False, True]


@pytest.mark.parametrize("key", ["steps", "lr"])
def test_what_another_importance_does_not_read_is_refused(key: str) -> None:
    with pytest.raises(MethodError, match=rf"^here\.{key}: it is read with importance: movement, not taylor$"):
        Heads(**{key: 1}).check("here")  # type: ignore[arg-type]
    Heads(importance="movement", **{key: 1}).check("here")  # type: ignore[arg-type]

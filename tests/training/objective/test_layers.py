"""Losses on layers: their regressors, a training that goes on where it was killed, layers that are wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.errors import ParamsError
from slimline.models.cnn import Cnn
from slimline.params import Layer
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.training import Epoch, Objective, Term
from slimline.training.losses import FeatureLoss
from slimline.training.losses.attention import Attention
from slimline.training.losses.contract import Pairs
from slimline.training.losses.hard import Hard
from slimline.training.losses.hint import Hint
from slimline.training.losses.relational import Relational
from slimline.training.losses.soft import Soft
from tests.training.objective.conftest import FOUR, HINT, Run, fresh, same


def stop(record: Epoch) -> None:
    if record.epoch == 1:
        raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_run_with_a_regressor_ends_in_the_same_weights(run: Run, optimizer: str) -> None:
    settings = FOUR.model_copy(update={"optimizer": optimizer})
    losses = [Term(Hard()), Term(HINT, 5.0), Term(Attention({"8": "8"}))]
    whole, resumed = fresh(), fresh()
    history = run(whole, losses, settings, key="whole")
    with pytest.raises(KeyboardInterrupt):
        run(fresh(), losses, settings, key="broken", on_epoch=stop)
    assert run(resumed, losses, settings, key="broken") == history
    assert same(resumed, whole)


def test_a_resumed_run_hangs_on_its_regressor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: a regressor that starts over ends elsewhere."""
    losses = [Term(Hard()), Term(HINT, 5.0)]
    whole, resumed = fresh(), fresh()
    run(whole, losses, key="whole")
    with pytest.raises(KeyboardInterrupt):
        run(fresh(), losses, key="broken", on_epoch=stop)
    monkeypatch.setattr(nn.ModuleList, "load_state_dict", lambda *_: None)
    run(resumed, losses, key="broken")
    assert not same(resumed, whole)


def test_a_regressor_learns_and_leaves_nothing_on_the_models(
    run: Run, objective: Callable[..., Objective], batch: tuple[dict[str, Tensor], Tensor], cnn: Cnn
) -> None:
    made = objective(HINT)
    made(made.student, *batch, []).backward()  # type: ignore[no-untyped-call]
    assert [tuple(p.shape) for p in made.regressors.parameters()] == [(16, 8, 1, 1), (16,)]
    assert all(p.grad is not None and bool(p.grad.any()) for p in made.regressors.parameters())
    assert all(parameter.grad is None for parameter in cnn.parameters())
    student = fresh()
    names = list(student.state_dict())
    run(student, [Term(Hard()), Term(HINT)])
    assert list(student.state_dict()) == names
    for model in (student, cnn):
        assert not any(module._forward_hooks for module in model.modules())


def test_a_regressor_is_drawn_from_the_seed_alone(task: Digits, splits: dict[str, Split], cnn: Cnn) -> None:
    student = fresh()

    def weights(seed: int, chance: int) -> Tensor:
        torch.manual_seed(chance)
        made = Objective([Term(HINT)], task, student, cnn, splits["train"], seed)
        assert torch.initial_seed() == chance
        return next(made.regressors.parameters()).detach()

    assert torch.equal(weights(1, 8), weights(1, 9))
    assert not torch.equal(weights(1, 8), weights(2, 8))


def test_the_cache_is_filled_only_when_outputs_are_read(run: Run, tmp_path: Path) -> None:
    run(fresh(), [Term(Hard()), Term(HINT)], key="layers")
    assert not list((tmp_path / "teacher").rglob("*.npy"))
    run(fresh(), [Term(Relational()), Term(HINT)], key="outputs")
    assert len(list((tmp_path / "teacher").rglob("*.npy"))) == 2


def test_hints_of_blended_rows_are_the_teachers(run: Run) -> None:
    plain, mixed = fresh(), fresh()
    losses = [Term(Hard()), Term(HINT)]
    run(plain, losses, key="plain")
    history = run(mixed, losses, FOUR.model_copy(update={"mixup": 0.5}), key="mixed")
    assert len(history) == 4
    assert not same(plain, mixed)


def test_looking_for_layers_changes_neither_model(objective: Callable[..., Objective], cnn: Cnn) -> None:
    student = fresh().train()
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in (student, cnn)]
    made = objective(HINT, student=student)
    assert made.student.training
    for model, state in zip((student, cnn), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"stages.0": "3"}, "no layer 'stages.0' in the student."),
        ({"3": "31"}, "no layer '31' in the teacher. Did you mean '3'?"),
        ({"3": "0"}, "3 and 0 give [8, 4, 4] and [8, 8, 8] a row; the regressor changes channels only"),
        ({"3": "11"}, "3 and 11 give [8, 4, 4] and [10] a row; the regressor changes channels only"),
    ],
    ids=["student", "teacher", "size", "axes"],
)
def test_a_wrong_layer_is_one_line_with_its_key(
    objective: Callable[..., Objective], layers: dict[str, str], message: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        objective(Soft(), Hard(), Hint(layers))
    assert str(caught.value) == f"params.yaml: distill.loss.2.layers: {message}"


class Pairing(nn.Module):
    """A branch that is never run, and layers that give two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.body = fresh()
        self.idle = nn.ReLU()
        self.two, self.named = Two(), Named()

    def forward(self, x: Tensor) -> Tensor:
        return self.named(self.two(self.body(x))[0])["x"]  # type: ignore[no-any-return]


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"x": x}


def test_of_a_layer_that_gives_several_tensors_the_first_counts(objective: Callable[..., Objective]) -> None:
    objective(Hint({"two": "11"}), student=Pairing())


@pytest.mark.parametrize(("layer", "message"), [("idle", "is never run"), ("named", "gives a dict, no tensor")])
def test_a_layer_that_gives_no_tensor_is_named(objective: Callable[..., Objective], layer: str, message: str) -> None:
    with pytest.raises(ParamsError, match=f"distill.loss.0.layers: layer '{layer}' of the student {message}"):
        objective(Hint({layer: "11"}), student=Pairing())


@dataclass(frozen=True)
class Gram(FeatureLoss):
    """A third party's loss, with nothing but the contract."""

    layers: dict[Layer, Layer]

    def __call__(self, pairs: Pairs) -> Tensor:
        (student, teacher), *_ = ((a.flatten(1) @ a.flatten(1).T, b.flatten(1) @ b.flatten(1).T) for a, b in pairs)
        return F.mse_loss(student, teacher)


@dataclass(frozen=True)
class Clashing(Gram):
    def __call__(self, pairs: Pairs) -> Tensor:
        (student, teacher), *_ = pairs
        return F.mse_loss(student, teacher.flatten(1))


@dataclass(frozen=True)
class Uneven(Gram):
    def parts(self, model: nn.Module, layer: str, inputs: dict[str, Tensor]) -> list[str]:
        """Name one layer in one model and two in the other."""
        return [layer] if layer == "5" else [layer, "9"]


def test_layers_that_stand_for_unequal_numbers_are_one_line(objective: Callable[..., Objective]) -> None:
    message = (
        "params.yaml: distill.loss.0.layers: '5' of the student is 1 layers to compare, '8' of the teacher 2; name "
        "layers that pair up"
    )
    with pytest.raises(ParamsError, match=f"^{re.escape(message)}$"):
        objective(Uneven({"5": "8"}))


def test_a_third_partys_loss_on_layers_trains(run: Run) -> None:
    alone, guided = fresh(), fresh()
    run(alone, [Term(Hard())], key="alone")
    run(guided, [Term(Hard()), Term(Gram({"5": "8"}), 0.01)], key="guided")
    assert not same(alone, guided)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_loss_that_fails_on_its_layers_is_named_before_training(objective: Callable[..., Objective]) -> None:
    with pytest.raises(ParamsError, match=r"distill.loss.0.layers: The size of tensor a") as caught:
        objective(Clashing({"5": "8"}))
    assert "\n" not in str(caught.value)

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from slimline import metrics
from slimline.errors import TrainingError
from slimline.method import Batches, Context, Method, compress
from slimline.methods.linear import Linear
from slimline.models.cnn import Cnn
from slimline.params import Training
from slimline.quantization.quantizers import quantizers
from slimline.task import Split, Task
from slimline.tasks.digits import Digits
from slimline.training import Epoch, State, TeacherCache, fit
from slimline.training.loop import warmup_cosine
from slimline.training.losses import SoftTargets

FOUR = Training(epochs=4, batch_size=64, lr=0.01, weight_decay=0.01)
Run = Callable[..., list[Epoch]]


class Stopped(Exception):  # noqa: N818  (a stand-in for SIGKILL, no error of the program)
    """Raised at the end of an epoch to break a training off."""


def stop_after(epoch: int) -> Callable[[Epoch], None]:
    def on_epoch(record: Epoch) -> None:
        if record.epoch == epoch:
            raise Stopped

    return on_epoch


@pytest.fixture
def run(task: Digits, splits: dict[str, Split], tmp_path: Path) -> Run:
    """Train a model on 200 rows; keyword arguments are passed on to ``fit``."""

    def train(model: nn.Module, settings: Training = FOUR, *, key: str = "", **options: Any) -> list[Epoch]:
        defaults = {
            "loss": SoftTargets(),
            "seed": 3,
            "state": State({"key": key}, tmp_path),
            "where": "params.yaml: x.training",
        }
        return fit(
            model, task, splits["train"].head(200), splits["validation"].head(100), settings, **{**defaults, **options}
        )

    return train


def fresh() -> Cnn:
    torch.manual_seed(5)
    return Cnn(width=4)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


@pytest.mark.parametrize(
    "settings", [FOUR, FOUR.model_copy(update={"optimizer": "sgd", "views": 2})], ids=["adamw", "sgd"]
)
@pytest.mark.parametrize("last", [0, 2])
def test_a_resumed_run_ends_in_the_same_weights(run: Run, settings: Training, last: int) -> None:
    whole, broken = fresh(), fresh()
    history = run(whole, settings, key="whole")
    with pytest.raises(Stopped):
        run(broken, settings, key="broken", on_epoch=stop_after(last))
    seen: list[Epoch] = []
    resumed = fresh()
    assert run(resumed, settings, key="broken", on_epoch=seen.append) == history
    assert seen == history
    assert same(resumed, whole)


def test_a_resumed_quantized_run_ends_in_the_same_weights(
    run: Run, cnn: Cnn, batches: Batches, context: Callable[..., Context]
) -> None:
    def made() -> nn.Module:
        return compress(Linear(), cnn, batches, context())[0]

    whole, resumed = made(), made()
    run(whole, key="whole")
    with pytest.raises(Stopped):
        run(made(), key="broken", on_epoch=stop_after(1))
    run(resumed, key="broken")
    assert same(resumed, whole)
    for name, quantizer in quantizers(whole).items():
        if name.endswith("weight_quantizer"):
            weight = whole.get_submodule(name.rpartition(".")[0]).weight
            assert isinstance(weight, Tensor)
            assert torch.allclose(quantizer.scale, weight.flatten(1).abs().amax(1) / 127)


def test_another_seed_gives_other_weights(run: Run) -> None:
    one, other = fresh(), fresh()
    run(one, key="one")
    run(other, key="other", seed=4)
    assert not same(one, other)


def test_a_finished_run_trains_no_further(run: Run) -> None:
    first, second = fresh(), fresh()
    history = run(first)
    assert run(second) == history
    assert same(first, second)


def test_training_learns(run: Run) -> None:
    history = run(fresh())
    assert history[-1].loss < history[0].loss
    assert [record.epoch for record in history] == [0, 1, 2, 3]
    assert history[-1].lr == pytest.approx(0, abs=1e-9)


def test_the_model_is_left_with_its_best_weights_evaluating(run: Run, task: Digits, splits: dict[str, Split]) -> None:
    model = fresh()
    history = run(model, FOUR.model_copy(update={"lr": 0.3, "epochs": 6}))
    best = max(record.validation["accuracy"] for record in history)
    assert not model.training
    assert metrics.evaluate(model, task, splits["validation"].head(100))["accuracy"] == best


@dataclass(frozen=True)
class Frozen(Method):
    """Keeps every weight at zero: nothing can improve."""

    def constrain(self, model: nn.Module, step: int, total: int) -> None:
        assert 1 <= step <= total
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()


def test_the_best_epoch_is_the_one_most_like_the_teacher_where_the_loss_decides(
    run: Run, task: Digits, splits: dict[str, Split], tmp_path: Path
) -> None:
    teacher = fresh()
    run(teacher, key="teacher")
    cache = TeacherCache(teacher, task, splits["train"].head(200), "x", 3, tmp_path / "cache")
    rows = splits["validation"].head(100)
    y, wanted = torch.from_numpy(rows.targets), torch.from_numpy(metrics.outputs(teacher, rows))
    losses: list[float] = []

    def note(_: Epoch) -> None:
        losses.append(float(SoftTargets()(task, torch.from_numpy(metrics.outputs(student, rows)), y, wanted)))

    torch.manual_seed(6)
    student = Cnn(width=4)
    settings = FOUR.model_copy(update={"best": "loss", "batch_size": 30, "epochs": 6, "lr": 0.05})
    history = run(student, settings, key="student", teacher=cache, on_epoch=note)
    assert [each.validation_loss for each in history] == pytest.approx(losses, rel=1e-4)
    note(history[-1])
    assert losses[-1] == min(losses)


def test_a_key_at_its_default_changes_no_recorded_decision() -> None:
    assert "best" not in FOUR.model_dump()
    assert FOUR.model_copy(update={"best": "loss"}).model_dump()["best"] == "loss"


def test_patience_ends_a_run_that_stalls(run: Run) -> None:
    history = run(fresh(), FOUR.model_copy(update={"epochs": 10, "patience": 2}), methods=[Frozen()])
    assert len(history) == 3


@dataclass(frozen=True)
class Pull(Method):
    """A penalty that draws every weight to zero."""

    strength: float

    def penalty(self, model: nn.Module) -> Tensor:
        return self.strength * torch.stack([p.square().sum() for p in model.parameters()]).sum()


def test_a_methods_penalty_joins_the_loss(run: Run) -> None:
    free, drawn = fresh(), fresh()
    run(free, key="free")
    run(drawn, key="drawn", methods=[Pull(1.0)])
    size = [sum(float(p.detach().square().sum()) for p in model.parameters()) for model in (free, drawn)]
    assert size[1] < 0.9 * size[0]


@dataclass
class Breaking:
    """A loss that is NaN from its n-th call on."""

    after: int
    calls: int = 0

    def __call__(self, task: Task, out: Tensor, y: Tensor, teacher: Tensor | None) -> Tensor:
        self.calls += 1
        value = task.loss(out, y)
        return value * float("nan") if self.calls > self.after else value


def test_a_loss_that_is_not_finite_names_epoch_and_step_and_keeps_the_last_good_weights(
    run: Run, tmp_path: Path
) -> None:
    one = fresh()
    run(one, FOUR.model_copy(update={"warmup": 0.25}), key="one", on_epoch=lambda _: None)
    broken = fresh()
    with pytest.raises(TrainingError) as caught:
        run(broken, key="broken", loss=Breaking(after=4 + 2))
    text = str(caught.value)
    assert text.startswith("params.yaml: x.training: the loss became nan at epoch 2, step 3;")
    assert "the weights of epoch 1 are kept in" in text
    (kept,) = tmp_path.rglob("last-good.safetensors")
    assert str(kept) in text
    tensors = load_file(kept)
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert tensors.keys() == broken.state_dict().keys()


def test_a_loss_that_is_not_finite_in_the_first_epoch_says_so(run: Run) -> None:
    with pytest.raises(TrainingError, match="epoch 1, step 1; no epoch was finished before; lower lr"):
        run(fresh(), loss=Breaking(after=0))


def test_a_teacher_is_listened_to(run: Run, cnn: Cnn, task: Digits, splits: dict[str, Split], tmp_path: Path) -> None:
    cache = TeacherCache(cnn, task, splits["train"].head(200), "key", 3, tmp_path / "teacher")
    alone, taught = fresh(), fresh()
    run(alone, key="alone")
    run(taught, FOUR.model_copy(update={"views": 2}), key="taught", teacher=cache)
    assert not same(alone, taught)
    assert sorted(path.name for path in (tmp_path / "teacher" / "key").iterdir()) == ["view-0.npy", "view-1.npy"]


def test_channels_last_leaves_contiguous_weights(run: Run) -> None:
    model = fresh()
    run(model, FOUR.model_copy(update={"channels_last": True}))
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_warm_up_rises_in_a_line_and_the_cosine_falls_to_nothing() -> None:
    factor = warmup_cosine(Training(epochs=1, lr=1, warmup=0.2), 10)
    found = [factor(step) for step in range(11)]
    assert found[:2] == [0.5, 1.0]
    assert found[2] == 1.0
    assert found[10] == pytest.approx(0)
    assert all(a >= b for a, b in itertools.pairwise(found[2:]))
    assert factor(6) == pytest.approx(0.5)


class Counting:
    """A loss that counts the steps it is asked for."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, task: Any, student: Tensor, y: Tensor | None, teacher: Tensor | None) -> Tensor:
        self.steps += 1
        return SoftTargets()(task, student, y, teacher)


def test_a_resumed_run_trains_only_the_epochs_that_are_left(run: Run) -> None:
    first, second = Counting(), Counting()
    with pytest.raises(Stopped):
        run(fresh(), key="broken", loss=first, on_epoch=stop_after(2))
    assert first.steps == 3 * 4
    run(fresh(), key="broken", loss=second)
    assert second.steps == 1 * 4


def test_weights_decay_and_vectors_do_not(run: Run) -> None:
    free, decayed = (fresh() for _ in range(2))
    for model, decay in ((free, 0.0), (decayed, 0.5)):
        run(model, FOUR.model_copy(update={"epochs": 1, "lr": 0.05, "weight_decay": decay}), key=str(decay))
    assert decayed.get_parameter("3.weight").norm() < 0.97 * free.get_parameter("3.weight").norm()
    bare = {"optimizer": "sgd", "momentum": 0.0, "lr": 1e-9, "epochs": 1, "warmup": 0.0}
    still = fresh()
    run(still, FOUR.model_copy(update={**bare, "weight_decay": 1e8}), key="vectors")
    assert torch.allclose(still.get_parameter("1.weight"), fresh().get_parameter("1.weight"), atol=1e-4)
    assert not torch.allclose(still.get_parameter("3.weight"), fresh().get_parameter("3.weight"), atol=1e-4)


@pytest.mark.parametrize("clip_norm", [1e-2, 1e-1, None])
def test_a_step_is_no_longer_than_the_clipped_gradient(run: Run, clip_norm: float | None) -> None:
    """One step of plain SGD moves the weights by lr · gradient, so by lr · clip_norm where the gradient is longer."""
    bare = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.5, "weight_decay": 0.0, "epochs": 1, "batch_size": 200}
    model, start = fresh(), fresh()
    run(model, FOUR.model_copy(update={**bare, "clip_norm": clip_norm}))
    moves = [(a - b).detach().flatten() for a, b in zip(model.parameters(), start.parameters(), strict=True)]
    length = float(torch.cat(moves).norm())
    if clip_norm is None:
        assert length > 2 * 0.5 * 0.1, "left alone the gradient is longer than any clip_norm above"
    else:
        assert length == pytest.approx(0.5 * clip_norm, rel=1e-3)


def test_precisions_may_follow_each_other_in_a_process(run: Run) -> None:
    for precision in ("no", "bf16", "no"):
        history = run(fresh(), FOUR.model_copy(update={"epochs": 1, "precision": precision}), key=precision)
        assert len(history) == 1


def test_the_best_epochs_answers_are_given_on(run: Run, splits: dict[str, Split]) -> None:
    heard: list[Any] = []
    model = Cnn()
    history = run(model, on_best=heard.append)
    best = max(range(len(history)), key=lambda at: history[at].validation["accuracy"])
    assert len(heard) <= len(history)
    assert heard[-1] == pytest.approx(metrics.outputs(model, splits["validation"].head(100)), abs=1e-5), best

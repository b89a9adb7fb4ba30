"""The weighted sum of losses: teachers, layers and regressors, and a training that goes on where it was killed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline import metrics
from slimline.errors import ParamsError, TrainingError
from slimline.models.cnn import Cnn
from slimline.params import Layer, Training
from slimline.task import Split, tensors
from slimline.tasks.digits import Digits
from slimline.tasks.labelled_images import images
from slimline.training import Epoch, Objective, State, TeacherCache, Term, check_terms, fit
from slimline.training.losses import FeatureLoss, SoftTargets
from slimline.training.losses.attention import Attention
from slimline.training.losses.contract import Pairs
from slimline.training.losses.decoupled import Decoupled
from slimline.training.losses.hard import Hard
from slimline.training.losses.hint import Hint
from slimline.training.losses.relational import Relational
from slimline.training.losses.soft import Soft

FOUR = Training(epochs=4, batch_size=64, lr=0.01, weight_decay=0.01, views=2)
HINT = Hint({"5": "5"})
WHERE = "params.yaml: distill.training"
Run = Callable[..., list[Epoch]]
Taught = Callable[..., TeacherCache]


def fresh(seed: int = 5) -> Cnn:
    torch.manual_seed(seed)
    return Cnn(width=4)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


@pytest.fixture
def taught(task: Digits, splits: dict[str, Split], cnn: Cnn, tmp_path: Path) -> Taught:
    """Return a teacher's cache on 200 rows, by default that of the trained ``cnn``."""

    def make(model: nn.Module = cnn, key: str = "key") -> TeacherCache:
        return TeacherCache(model, task, splits["train"].head(200), key, 3, tmp_path / "teacher")

    return make


@pytest.fixture
def run(task: Digits, splits: dict[str, Split], tmp_path: Path, taught: Taught) -> Run:
    """Train a model on 200 rows; keyword arguments are passed on to ``fit``."""

    def train(model: nn.Module, loss: Any, settings: Training = FOUR, *, key: str = "", **options: Any) -> list[Epoch]:
        rows, validation = splits["train"].head(200), splits["validation"].head(100)
        defaults = {"seed": 3, "state": State({"key": key}, tmp_path), "where": WHERE, "teacher": taught()}
        return fit(model, task, rows, validation, settings, loss=loss, **{**defaults, **options})

    return train


@pytest.fixture
def objective(task: Digits, splits: dict[str, Split], cnn: Cnn) -> Callable[..., Objective]:
    """Return an objective of these losses between a fresh student and the trained ``cnn``."""

    def make(*losses: Any, student: nn.Module | None = None, teacher: nn.Module = cnn) -> Objective:
        terms = [Term(loss, 1.0, f"params.yaml: distill.loss.{index}") for index, loss in enumerate(losses)]
        return Objective(terms, task, student or fresh(), teacher, splits["train"], 3)

    return make


@pytest.fixture
def batch(splits: dict[str, Split]) -> tuple[dict[str, Tensor], Tensor]:
    inputs, y = splits["train"].head(16)[slice(0, 16)]
    return tensors(inputs), torch.from_numpy(y)


# --- the sum ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [FOUR, FOUR.model_copy(update={"mixup": 0.5, "clip_norm": 1.0})], ids=["plain", "mixup"]
)
def test_one_loss_and_a_list_of_one_train_to_the_same_bits(run: Run, settings: Training) -> None:
    alone, listed = fresh(), fresh()
    history = run(alone, SoftTargets(2.0, 0.7), settings, key="alone")
    assert run(listed, [Term(SoftTargets(2.0, 0.7))], settings, key="listed") == history
    assert same(alone, listed)


def test_the_total_is_the_weighted_sum(
    task: Digits, splits: dict[str, Split], cnn: Cnn, batch: tuple[dict[str, Tensor], Tensor]
) -> None:
    student = fresh().eval()
    inputs, y = batch
    losses = [Hard(0.1), Soft(2.0), Attention({"8": "8"}), Relational()]

    def total(*weights: float) -> float:
        terms = [Term(loss, weight) for loss, weight in zip(losses, weights, strict=True)]
        made = Objective(terms, task, student, cnn, splits["train"], 0)
        return float(made(student, inputs, y, [cnn(inputs["image"]).detach()]).detach())

    parts = [total(*(float(at == each) for at in range(4))) for each in range(4)]
    assert all(part > 0 for part in parts)
    assert total(0.3, 0.7, 2.0, 5.0) == pytest.approx(0.3 * parts[0] + 0.7 * parts[1] + 2 * parts[2] + 5 * parts[3])


@dataclass(frozen=True)
class Seen:
    """Tells what it was called with."""

    needs: ClassVar[tuple[str, ...]] = ()

    def __call__(self, task: Digits, student: Tensor, y: Tensor | None, teacher: Tensor | None) -> Tensor:
        return torch.tensor(10.0 * (y is not None) + 1.0 * (teacher is not None))


class SeesLabels(Seen):
    needs = ("labels",)


class SeesTeacher(Seen):
    needs = ("teacher",)


@dataclass(frozen=True)
class SeesAll:
    def __call__(self, *arguments: Any) -> Tensor:
        return Seen()(*arguments)


@pytest.mark.parametrize(
    ("loss", "labelled", "blended"),
    [(Seen(), 0, 0), (SeesLabels(), 10, 0), (SeesTeacher(), 1, 1), (SeesAll(), 11, 1)],
    ids=lambda each: type(each).__name__,
)
def test_a_loss_gets_what_it_says_it_needs_and_is_left_out_of_what_has_no_labels(
    loss: Any,
    labelled: int,
    blended: int,
    objective: Callable[..., Objective],
    batch: tuple[dict[str, Tensor], Tensor],
) -> None:
    made = objective(loss, SeesTeacher())
    inputs, y = batch
    answers = [torch.zeros(16, 10)]
    assert float(made(made.student, inputs, y, answers)) == labelled + 1
    assert float(made(made.student, inputs, None, answers)) == blended + 1


@pytest.mark.parametrize("losses", [[Hard()], [Hard(), Decoupled()]], ids=["hard", "decoupled"])
def test_blended_rows_need_a_loss_that_asks_for_no_label(run: Run, losses: list[Any]) -> None:
    terms = [Term(loss) for loss in losses]
    with pytest.raises(TrainingError, match=r"distill.training.mixup: blended rows have no label, and every loss here"):
        run(fresh(), terms, FOUR.model_copy(update={"mixup": 0.5}))


@pytest.mark.parametrize("loss", [Soft(), Decoupled(), HINT], ids=lambda loss: type(loss).__name__)
def test_a_loss_that_learns_from_a_teacher_needs_one(run: Run, loss: Any) -> None:
    with pytest.raises(ParamsError, match=r"x.loss.1: \w+ learns from a teacher, and none is named"):
        run(fresh(), [Term(Hard()), Term(loss, 1.0, "params.yaml: x.loss.1")], teacher=None)


# --- several teachers ------------------------------------------------------------------------------------------------


def test_soft_follows_the_mean_of_the_teachers_probabilities(
    objective: Callable[..., Objective], batch: tuple[dict[str, Tensor], Tensor]
) -> None:
    made = objective(Soft(2.0))
    made.student.eval()
    inputs, y = batch
    answers = list(4 * torch.randn(3, 16, 10))
    made(made.student, inputs, y, answers).backward()  # type: ignore[no-untyped-call]
    found = [p.grad.clone() for p in made.student.parameters() if p.grad is not None]
    made.student.zero_grad()
    mean = torch.stack([F.softmax(each / 2, -1) for each in answers]).mean(0)
    (4 * F.kl_div(F.log_softmax(made.student(inputs["image"]) / 2, -1), mean, reduction="batchmean")).backward()  # type: ignore[no-untyped-call]
    expected = [p.grad for p in made.student.parameters()]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_twice_the_same_teacher_is_that_teacher_and_another_counts(run: Run, taught: Taught) -> None:
    one, twice, other = fresh(), fresh(), fresh()
    history = run(one, Soft(), key="one")
    assert run(twice, Soft(), key="twice", others=[taught(key="again")]) == history
    assert same(one, twice)
    run(other, Soft(), key="other", others=[taught(fresh(6), key="other")])
    assert not same(one, other)


# --- layers and regressors -------------------------------------------------------------------------------------------


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


def test_without_a_teacher_numbers_are_learnt_by_the_tasks_own_loss() -> None:
    """So is every teacher of numbers: its section names no loss."""
    task = images(answer="number", data="none", tolerance=0.1)
    terms = [Term(SoftTargets(), 1.0, "params.yaml: teacher.loss")]
    check_terms(terms, task, taught=False, mixup=0.0, where="params.yaml: teacher.training")
    out, y = torch.randn(4, 1), torch.randn(4)
    assert torch.equal(SoftTargets()(task, out, y, None), task.loss(out, y))


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_a_student_of_numbers_comes_nearer_to_its_teacher_than_noisy_targets_bring_it(
    splits: dict[str, Split], tmp_path: Path, mixup: float
) -> None:
    task = images(answer="number", data="none", tolerance=0.1, size=[8, 8], mode="L", mirror=False, shift=0)
    teacher, untaught, learner = (nn.Sequential(nn.Flatten(), nn.Linear(64, 1)) for _ in range(3))
    learner.load_state_dict(untaught.state_dict())

    def numbered(part: Split, noise: float) -> Split:
        with torch.no_grad():
            y = teacher(torch.from_numpy(part.inputs["image"])).squeeze(-1)
        return Split(part.inputs, (y + noise * torch.randn(len(part))).numpy())

    train, validation = numbered(splits["train"].head(200), 2.0), numbered(splits["validation"].head(100), 0.0)
    cache = TeacherCache(teacher, task, train, "numbers", 3, tmp_path / "teacher")
    settings = Training(epochs=60, batch_size=64, lr=0.05, views=2)

    def trained(student: nn.Module, settings: Training, **options: Any) -> float:
        state = State({"key": str(len(options))}, tmp_path)
        terms = [Term(SoftTargets())]
        fit(student, task, train, validation, settings, loss=terms, seed=3, state=state, where=WHERE, **options)
        return metrics.evaluate(student, task, validation)["rmse"]

    alone = trained(untaught, settings)
    assert trained(learner, settings.model_copy(update={"mixup": mixup}), teacher=cache) < 0.5 * alone

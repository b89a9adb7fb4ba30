"""The weighted sum of losses, and several teachers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.errors import ParamsError, TrainingError
from slimline.models.cnn import Cnn
from slimline.params import Training
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.training import Objective, Term
from slimline.training.losses import SoftTargets
from slimline.training.losses.attention import Attention
from slimline.training.losses.decoupled import Decoupled
from slimline.training.losses.hard import Hard
from slimline.training.losses.relational import Relational
from slimline.training.losses.soft import Soft
from tests.training.objective.conftest import FOUR, HINT, Run, Taught, fresh, same


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

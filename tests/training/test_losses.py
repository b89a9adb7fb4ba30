from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimline import params, plugins
from slimline.errors import ParamsError
from slimline.params import Configured
from slimline.tasks.digits import Digits
from slimline.tasks.text import text
from slimline.training.losses import SoftTargets
from slimline.training.losses.decoupled import Decoupled
from slimline.training.losses.hard import Hard
from slimline.training.losses.hint import Hint
from slimline.training.losses.soft import Soft
from tests.training.draws import SEEDS, drawn

PAIR = {"a": "a"}


# --- on outputs ------------------------------------------------------------------------------------------------------


@given(temperature=st.floats(0.5, 20), alpha=st.floats(0, 1), seed=st.integers(0, 100))
def test_soft_targets_are_their_formula(temperature: float, alpha: float, seed: int) -> None:
    """L = (1 − α) · CE + α · T² · KL(teacher ‖ student), each the mean over rows."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 4, 10, generator=generator)
    y = torch.randint(0, 10, (4,), generator=generator)
    hard = soft = 0.0
    for row in range(4):
        p_s = [math.exp(float(z)) for z in student[row]]
        hard -= math.log(p_s[int(y[row])] / sum(p_s)) / 4
        q_s = [math.exp(float(z) / temperature) for z in student[row]]
        q_t = [math.exp(float(z) / temperature) for z in teacher[row]]
        for s, t in zip(q_s, q_t, strict=True):
            soft += t / sum(q_t) * (math.log(t / sum(q_t)) - math.log(s / sum(q_s))) / 4
    expected = (1 - alpha) * hard + alpha * temperature**2 * soft
    found = SoftTargets(temperature, alpha)(Digits(), student, y, teacher)
    assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_without_a_teacher_it_is_the_tasks_own_loss(task: Digits) -> None:
    out, y = torch.randn(4, 10), torch.arange(4)
    assert torch.equal(SoftTargets()(task, out, y, None), task.loss(out, y))


def test_a_student_that_equals_its_teacher_has_no_soft_loss(task: Digits) -> None:
    out, y = torch.randn(4, 10), torch.arange(4)
    assert float(SoftTargets(alpha=1.0)(task, out, y, out)) == pytest.approx(0, abs=1e-5)


def test_outputs_of_more_axes_are_averaged_over_rows_and_positions() -> None:
    class PerPosition(Digits):
        def loss(self, out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return super().loss(out.flatten(0, 1), y.flatten())

    student, teacher = torch.randn(2, 3, 5, 10)
    y = torch.zeros(3, 5, dtype=torch.int64)
    whole = SoftTargets()(PerPosition(), student, y, teacher)
    flat = SoftTargets()(Digits(), student.flatten(0, 1), y.flatten(), teacher.flatten(0, 1))
    torch.testing.assert_close(whole, flat)


@given(temperature=st.floats(0.5, 20), alpha=st.floats(0, 1), seed=SEEDS)
def test_soft_targets_are_hard_and_soft_in_these_weights(temperature: float, alpha: float, seed: int) -> None:
    student, teacher = drawn(2, 4, 10, seed=seed)
    y = torch.arange(4)
    parts = (1 - alpha) * Hard()(Digits(), student, y, None) + alpha * Soft(temperature)(
        Digits(), student, None, teacher
    )
    torch.testing.assert_close(SoftTargets(temperature, alpha)(Digits(), student, y, teacher), parts)


def test_hard_is_the_tasks_own_loss(task: Digits) -> None:
    out, y = drawn(4, 10), torch.arange(4)
    assert torch.equal(Hard()(task, out, y, None), task.loss(out, y))


@given(smoothing=st.floats(0.01, 0.99), seed=SEEDS)
def test_smoothed_labels_give_each_class_its_share_of_the_loss(smoothing: float, seed: int) -> None:
    """L = (1 − ε) · CE(y) + ε / K · Σ_k CE(k)."""
    task, out, y = Digits(), drawn(4, 10, seed=seed), torch.arange(4)
    any_label = torch.stack([task.loss(out, torch.full_like(y, k)) for k in range(10)]).mean()
    expected = (1 - smoothing) * task.loss(out, y) + smoothing * any_label
    torch.testing.assert_close(Hard(smoothing)(task, out, y, None), expected)


class Weighed(Digits):
    """A loss of its own, which no inherited smoothing knows of."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y, torch.arange(10.0))


class WeighedAndSmoothed(Weighed):
    def smoothed_loss(self, out: Tensor, y: Tensor, smoothing: float) -> Tensor:
        return F.cross_entropy(out, y, torch.arange(10.0), label_smoothing=smoothing)


def test_a_loss_that_cannot_be_smoothed_is_named() -> None:
    message = "here.label_smoothing: the loss of Weighed can't be smoothed: it has no smoothed_loss"
    with pytest.raises(ParamsError) as caught:
        Hard(0.1).check(Weighed(), "here")
    assert str(caught.value) == message
    Hard(0.0).check(Weighed(), "here")
    Hard(0.1).check(WeighedAndSmoothed(), "here")
    Hard(0.1).check(Digits(), "here")


@given(temperature=st.floats(0.5, 10), seed=SEEDS)
def test_decoupled_with_the_teachers_doubt_as_beta_is_plain_kl(temperature: float, seed: int) -> None:
    """KL = TCKD + (1 − p_t) · NCKD, row by row: equation 7 of the paper."""
    student, teacher = drawn(2, 1, 10, seed=seed)
    y = torch.tensor([seed % 10])
    doubt = 1 - float(F.softmax(teacher / temperature, -1)[0, y])
    found = Decoupled(temperature, 1.0, doubt)(Digits(), student, y, teacher)
    plain = Soft(temperature)(Digits(), student, None, teacher)
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-5)


def test_each_part_of_decoupled_sees_its_own(task: Digits) -> None:
    student, teacher = drawn(2, 4, 10)
    y = torch.arange(4)
    surer = student + 3 * F.one_hot(y, 10)
    others = Decoupled(alpha=0.0, beta=1.0)
    torch.testing.assert_close(others(task, surer, y, teacher), others(task, student, y, teacher))
    swapped = student[:, [0, 1, 2, 3, *range(9, 3, -1)]]
    target = Decoupled(alpha=1.0, beta=0.0)
    torch.testing.assert_close(target(task, swapped, y, teacher), target(task, student, y, teacher))
    assert float(others(task, swapped, y, teacher)) != pytest.approx(float(others(task, student, y, teacher)))


def test_decoupled_wants_one_class_a_row() -> None:
    class PerPosition(Digits):
        def signature(self) -> dict[str, Any]:
            spec = {"name": "logits", "dtype": "float32", "shape": ["batch", 5, 10]}
            return {**super().signature(), "outputs": [spec]}

    Decoupled().check(Digits(), "here")
    with pytest.raises(ParamsError, match="here: this loss wants one class a row, PerPosition has something else"):
        Decoupled().check(PerPosition(), "here")


# --- as params.yaml names them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"name": "hint"}, "here.layers: missing; it has no default"),
        ({"name": "hint", "layers": {}}, "here.layers: dictionary should have at least 1 item"),
        ({"name": "hint", "layer": {}}, "here.layer: unknown key of 'hint'. Did you mean 'layers'?"),
        ({"name": "attention", "layers": {"a": ["b"]}}, "here.layers.a: input should be a valid string"),
        ({"name": "soft", "temperature": 0}, "here.temperature: input should be greater than 0"),
        ({"name": "hard", "label_smoothing": 1}, "here.label_smoothing: input should be less than 1"),
    ],
    ids=lambda each: each["name"] if isinstance(each, dict) else "",
)
def test_wrong_settings_are_named(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        params.configure("losses", Configured.model_validate(chosen), "here")
    assert str(caught.value).startswith(message)


def test_a_layer_may_be_a_number() -> None:
    chosen = Configured.model_validate({"name": "hint", "layers": {3: 6}})
    assert params.configure("losses", chosen, "here") == Hint({"3": "6"})


def test_every_loss_is_offered() -> None:
    names = {offer.name for offer in plugins.offers("losses")}
    assert names >= {
        "hard",
        "soft",
        "soft-targets",
        "hint",
        "attention",
        "relational",
        "decoupled",
        "hidden-states",
        "minilm",
    }


class Many(Digits):
    """Any of the labels may hold."""

    independent = True


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_targets_of_independent_labels_sum_their_own_divergences(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    p, q = (torch.sigmoid(z / temperature) for z in (teacher, student))
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean()
    found = Soft(temperature)(Many(), student, None, teacher)
    torch.testing.assert_close(found, temperature**2 * expected)
    assert float(Soft()(Many(), teacher, None, teacher)) == pytest.approx(0, abs=1e-9)


class OneOutput(Digits):
    """A model of one output."""

    def signature(self) -> dict[str, Any]:
        given = super().signature()
        return {**given, "outputs": [{**given["outputs"][0], "shape": ["batch", 1]}]}


class OneNumber(OneOutput):
    numeric = True


class OneOfItsOwn(OneOutput):
    independent = True


@pytest.mark.parametrize("loss", [Soft(), SoftTargets()])
def test_one_output_is_a_number_or_a_label_or_refused(loss: Any) -> None:
    for known in (OneNumber(), OneOfItsOwn()):
        loss.check(known, "params.yaml: distill.loss")
    message = (
        r"^params.yaml: distill.loss: the model gives one output.* numeric = True in OneOutput .* take \{name: hard\}$"
    )
    with pytest.raises(ParamsError, match=message):
        loss.check(OneOutput(), "params.yaml: distill.loss")


@given(temperature=st.floats(0.5, 20), alpha=st.floats(0, 1), seed=SEEDS)
def test_soft_targets_of_numbers_follow_the_blend_of_target_and_teacher(
    temperature: float, alpha: float, seed: int
) -> None:
    """Their gradient is that of the squared error to (1 − α)·y + α·z_t, whatever T is."""
    task = text(answer="number", data="none.csv", tokenizer="none", tolerance=0.1)
    student, teacher, y = drawn(6, 1, seed=seed).requires_grad_(), drawn(6, 1, seed=seed + 1), drawn(6, seed=seed + 2)
    found = SoftTargets(temperature, alpha)(task, student, y, teacher)
    (slope,) = torch.autograd.grad(found, student)
    blend = (1 - alpha) * y[:, None] + alpha * teacher
    torch.testing.assert_close(slope, 2 * (student - blend).detach() / 6, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Soft(temperature)(task, student, None, teacher), F.mse_loss(student, teacher))
    unlabelled = SoftTargets(temperature, alpha)(task, student, None, teacher)
    torch.testing.assert_close(unlabelled, alpha * F.mse_loss(student, teacher))

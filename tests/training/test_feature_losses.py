"""Each loss on features beside its formula written out."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn

from slimline.training.losses.attention import Attention
from slimline.training.losses.hint import Hint
from slimline.training.losses.relational import Relational
from tests.training.draws import SEEDS, drawn

PAIR = {"a": "a"}


@pytest.mark.parametrize("loss", [Hint(PAIR), Attention(PAIR), Relational()], ids=lambda loss: type(loss).__name__)
def test_equal_features_cost_nothing_and_pull_nowhere(loss: Any) -> None:
    features = drawn(4, 3, 2, 2).requires_grad_()
    value = loss([(features, features.detach())])
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    assert features.grad is not None
    assert float(features.grad.abs().max()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", [Hint(PAIR), Attention(PAIR), Relational()], ids=lambda loss: type(loss).__name__)
def test_pairs_are_summed(loss: Any) -> None:
    first, second = ((drawn(4, 3, 2, 2, seed=seed), drawn(4, 3, 2, 2, seed=seed + 1)) for seed in (0, 2))
    torch.testing.assert_close(loss([first, second]), loss([first]) + loss([second]))


def test_a_hint_is_half_the_mean_square() -> None:
    student, teacher = drawn(2, 4, 3, 2, 2)
    assert float(Hint(PAIR)([(student, teacher)])) == pytest.approx(float(((student - teacher) ** 2).mean() / 2))


@pytest.mark.parametrize(
    ("student", "teacher", "kind"),
    [((2, 4, 3, 3), (2, 6, 3, 3), nn.Conv2d), ((2, 4), (2, 6), nn.Linear), ((2, 5, 4), (2, 5, 6), nn.Linear)],
    ids=["maps", "vectors", "sequences"],
)
def test_the_regressor_brings_the_students_width_to_the_teachers(
    student: tuple[int, ...], teacher: tuple[int, ...], kind: type[nn.Module]
) -> None:
    regressor = Hint(PAIR).adapter(drawn(*student), drawn(*teacher))
    assert isinstance(regressor, kind)
    assert tuple(regressor(drawn(*student)).shape) == teacher


@pytest.mark.parametrize(
    ("loss", "student", "teacher"),
    [
        (Hint(PAIR), (2, 4, 3, 3), (2, 4, 6, 6)),
        (Hint(PAIR), (2, 4), (2, 4, 3, 3)),
        (Attention(PAIR), (2, 4, 3, 3), (2, 4, 6, 6)),
        (Attention(PAIR), (2, 4), (2, 4)),
    ],
    ids=["hint of another size", "hint of other axes", "attention of another size", "attention without a map"],
)
def test_shapes_that_cannot_match_are_said(loss: Any, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[4.*\] and \[4.*\] a row; "):
        loss.adapter(drawn(*student), drawn(*teacher))


def test_attention_is_its_formula() -> None:
    student, teacher = drawn(3, 4, 2, 2, seed=1), drawn(3, 6, 2, 2, seed=2)
    expected = 0.0
    for row in range(3):
        maps = []
        for features in (student, teacher):
            q = [
                sum(abs(float(a)) ** 3 for a in features[row, :, h, w])
                for h, w in itertools.product(range(2), repeat=2)
            ]
            norm = math.sqrt(sum(each * each for each in q))
            maps.append([each / norm for each in q])
        expected += sum((s - t) ** 2 for s, t in zip(*maps, strict=True)) / 2 / 3
    assert float(Attention(PAIR, power=3.0)([(student, teacher)])) == pytest.approx(expected, rel=1e-4)


def test_attention_does_not_care_which_channel_or_how_much() -> None:
    teacher = drawn(3, 6, 2, 2)
    assert float(Attention(PAIR)([(5 * teacher.flip(1), teacher)])) == pytest.approx(0, abs=1e-6)


@given(seed=SEEDS)
def test_relations_survive_turning_scaling_and_moving(seed: int) -> None:
    teacher = drawn(5, 3, seed=seed)
    turn, _ = torch.linalg.qr(drawn(3, 3, seed=seed + 1))
    student = 4 * teacher @ turn + drawn(3, seed=seed + 2)
    assert float(Relational()([(student, teacher)])) == pytest.approx(0, abs=1e-4)


def huber(a: float, b: float) -> float:
    apart = abs(a - b)
    return apart * apart / 2 if apart <= 1 else apart - 0.5


def test_relational_is_its_formula() -> None:
    student, teacher = 3 * drawn(4, 2, seed=1), drawn(4, 5, seed=2)
    pairs = list(itertools.permutations(range(4), 2))
    apart = [{(i, j): float((e[i] - e[j]).norm()) for i, j in pairs} for e in (student, teacher)]
    mean = [sum(each.values()) / len(pairs) for each in apart]
    distance = sum(huber(apart[0][p] / mean[0], apart[1][p] / mean[1]) for p in pairs) / len(pairs)
    triples = list(itertools.permutations(range(4), 3))
    angle = 0.0
    for i, j, k in triples:
        cosines = [float(F.cosine_similarity(e[i] - e[j], e[k] - e[j], dim=0)) for e in (student, teacher)]
        angle += huber(*cosines) / len(triples)
    for settings, expected in (((1.0, 0.0), distance), ((0.0, 1.0), angle), ((2.0, 3.0), 2 * distance + 3 * angle)):
        found = Relational({}, *settings)([(student, teacher)])
        assert float(found) == pytest.approx(expected, rel=1e-4), settings


@pytest.mark.parametrize("rows", [drawn(1, 3), drawn(2, 3), drawn(1, 3).repeat(4, 1)], ids=["one", "two", "all alike"])
def test_relational_is_finite_on_the_smallest_batches(rows: Tensor) -> None:
    student = rows.clone().requires_grad_()
    value = Relational()([(student, drawn(*rows.shape, seed=9))])
    value.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(float(value.detach()))
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())

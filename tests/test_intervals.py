from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from slimline import intervals

confidences = st.sampled_from([0.8, 0.95, 0.99])


def hits(right: int, total: int) -> NDArray[np.bool_]:
    return np.arange(total) < right


def paired(both: int, before: int, after: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the answers of two models that are both right, one alone, and both wrong on so many rows."""
    one = [True] * (both + before) + [False] * (after + neither)
    other = [True] * both + [False] * before + [True] * after + [False] * neither
    return np.array(one, bool), np.array(other, bool)


def test_the_interval_of_a_median_holds_it_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(0).exponential(size=(400, 31))
    found = [intervals.median(each, 0.9) for each in drawn]
    assert 0.86 < np.mean([low <= np.log(2) <= high for low, high in found]) < 0.95
    assert found[0] == intervals.median(drawn[0], 0.9)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    ids=str,
)
def test_share_gives_the_published_values(right: int, total: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 857–872, table I, method 3 (Wilson)."""
    assert intervals.share(hits(right, total), 0.95) == pytest.approx([low, high], abs=5e-5)


@given(st.integers(1, 300), st.data(), confidences)
def test_share_holds_the_share_and_stays_within_0_and_1(total: int, data: st.DataObject, confidence: float) -> None:
    right = data.draw(st.integers(0, total))
    low, high = intervals.share(hits(right, total), confidence)
    assert -1e-12 <= low <= right / total + 1e-12
    assert right / total - 1e-12 <= high <= 1 + 1e-12


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        pytest.param((36, 12, 2, 0), 0.0569, 0.3404, id="negative correlation"),
        pytest.param((20, 12, 2, 16), 0.0562, 0.3292, id="positive correlation"),
        pytest.param((1, 1, 7, 12), -0.507, -0.026, id="airways"),
    ],
)
def test_paired_drop_gives_the_published_values(table: tuple[int, int, int, int], low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 2635–2650, method 10; airways as in Fagerland et al. 2014."""
    found = intervals.paired_drop(*paired(*table), 0.95)
    assert found == pytest.approx([low, high], abs=5e-5 if table[0] > 1 else 5e-4)


cells = st.integers(0, 60)


@given(cells, cells, cells, cells, confidences)
def test_paired_drop_holds_the_drop_and_stays_within_its_bounds(
    a: int, b: int, c: int, d: int, confidence: float
) -> None:
    if a + b + c + d == 0:
        return
    low, high = intervals.paired_drop(*paired(a, b, c, d), confidence)
    drop = (b - c) / (a + b + c + d)
    assert -1 - 1e-9 <= low <= drop + 1e-9
    assert drop - 1e-9 <= high <= 1 + 1e-9


@given(cells, cells, cells, cells)
def test_swapping_the_models_turns_the_interval_round(a: int, b: int, c: int, d: int) -> None:
    if a + b + c + d == 0:
        return
    low, high = intervals.paired_drop(*paired(a, b, c, d), 0.95)
    assert intervals.paired_drop(*paired(a, c, b, d), 0.95) == pytest.approx([-high, -low], abs=1e-9)


def test_more_agreement_makes_the_interval_narrower() -> None:
    agreeing = intervals.paired_drop(*paired(80, 5, 0, 15), 0.95)
    crossing = intervals.paired_drop(*paired(65, 20, 15, 0), 0.95)
    assert agreeing[1] - agreeing[0] < 0.5 * (crossing[1] - crossing[0])


@pytest.mark.parametrize(
    "shares",
    [(0.88, 0.03, 0.01, 0.08), (0.5, 0.2, 0.2, 0.1), (0.96, 0.02, 0.02, 0.0)],
    ids=["compressed model", "unlike models", "few differ"],
)
@pytest.mark.parametrize("rows", [100, 400])
def test_paired_drop_covers_the_true_drop(shares: tuple[float, ...], rows: int) -> None:
    rng = np.random.default_rng(0)
    truth = shares[1] - shares[2]
    inside = 0
    for _ in range(600):
        low, high = intervals.paired_drop(*paired(*rng.multinomial(rows, shares).tolist()), 0.95)
        inside += low <= truth <= high
    assert 0.925 <= inside / 600 <= 1.0


def test_percentile_leaves_the_same_share_out_on_both_sides() -> None:
    assert intervals.percentile(list(range(101)), 0.9) == pytest.approx([5, 95])


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5), st.integers(0, 5))
def test_mcnemar_is_the_exact_sign_test_of_the_rows_that_differ(lost: int, won: int, both: int, neither: int) -> None:
    n, few = lost + won, min(lost, won)
    exact = min(Fraction(1), 2 * sum((Fraction(comb(n, k), 2**n) for k in range(few + 1)), Fraction(0)))
    assert intervals.mcnemar(*paired(both, lost, won, neither)) == pytest.approx(float(exact), rel=1e-9)


def test_mcnemar_of_many_rows_neither_overflows_nor_vanishes() -> None:
    assert 0 < intervals.mcnemar(*paired(0, 3000, 2700, 0)) < 1e-4
    assert intervals.mcnemar(*paired(0, 5000, 5000, 0)) == 1


def test_holm_by_hand() -> None:
    """Holm 1979: the smallest p times m, the next times m − 1, …, and never below the one before."""
    assert intervals.holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert intervals.holm([0.5, 0.9]) == [1.0, 1.0]
    assert intervals.holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_lies_between_the_plain_and_bonferronis(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, intervals.holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, len(p_values) * p) + 1e-12


@pytest.mark.parametrize("classes", [10])
def test_holm_rarely_calls_chance_a_difference(classes: int) -> None:
    """Without any difference one of ten classes is called harmed in at most 5% of studies; without Holm in more."""
    rng = np.random.default_rng(0)
    called = {"plain": 0, "holm": 0}
    for _ in range(400):
        answers = [(rng.random(200) < 0.8, rng.random(200) < 0.8) for _ in range(classes)]
        p_values = [intervals.mcnemar(*each) for each in answers]
        called["plain"] += min(p_values) <= 0.05
        called["holm"] += min(intervals.holm(p_values)) <= 0.05
    assert called["holm"] <= 0.05 * 400 + 12
    assert called["plain"] > 3 * called["holm"]

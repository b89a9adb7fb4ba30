"""Promises of the sequential tests: fair bets, bounded false alarms, and a state that doesn't depend on the batches."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimline.monitor.sequential import BETS, Detector, factors, interval

shares = st.floats(0.01, 0.99)


@given(mean=shares, promised=shares, other=st.floats(0, 1))
def test_a_bet_wins_nothing_on_average_while_the_promise_holds(mean: float, promised: float, other: float) -> None:
    """Exact expectation over a distribution on {0, other, 1} whose mean is at least what was promised."""
    mean = max(mean, promised)
    for low, high in ((0.0, 1.0), (min(other, mean), 1.0), (0.0, max(other, mean))):
        if high == low:
            continue
        weight = (mean - low) / (high - low)
        made = factors(np.array([low, high]), np.array([promised, promised]))
        assert (made > 0).all()
        assert ((1 - weight) * made[0] + weight * made[1] <= 1 + 1e-9).all()


@given(promised=st.floats(0.2, 0.95), drop=st.sampled_from(BETS))
def test_a_bet_is_the_likelihood_ratio_of_the_drop_it_names(promised: float, drop: float) -> None:
    made = factors(np.array([1.0, 0.0]), np.full(2, promised))[:, BETS.index(drop)]
    rate = promised * (1 - drop)
    assert made == pytest.approx([rate / promised, (1 - rate) / (1 - promised)])


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    every=st.sampled_from([1, 7, 10]),
    streams=st.integers(1, 4),
)
def test_batches_and_restarts_change_nothing(seed: int, cuts: list[int], every: int, streams: int) -> None:
    rng = np.random.default_rng(seed)
    made = factors(rng.random((60, streams)) ** 2, np.full((60, streams), 0.6))
    weights = np.full(streams, 1 / streams)
    whole, one_by_one = Detector(weights, 50, every=every), Detector(weights, 50, every=every)
    alarms = whole.feed(made)
    singly = [row for row in range(60) if one_by_one.feed(made[row : row + 1])]
    parts, edges = [], [0, *sorted(cuts), 60]
    detector = Detector(weights, 50, every=every)
    for start, end in itertools.pairwise(edges):
        parts += [start + row for row in detector.feed(made[start:end])]
        saved = json.loads(json.dumps(detector.dump()))
        detector = Detector(weights, 50, every=every)
        detector.restore(saved)
    assert alarms == singly == parts
    assert whole.dump() == one_by_one.dump() == detector.dump()


def test_false_alarms_are_as_rare_as_promised_at_the_very_edge() -> None:
    """Rows right at what is promised, threshold 500: 400,000 rows give at most 800 alarms on average; seeded."""
    rng = np.random.default_rng(1)
    detector = Detector([1.0], 500)
    rows = 400_000
    alarms = len(detector.feed(factors((rng.random((rows, 1)) < 0.9).astype(float), np.full((rows, 1), 0.9))))
    assert 0 < alarms <= 800


def test_the_evidence_averages_no_more_than_the_rows_seen() -> None:
    """E[R] ≤ n, over 4,000 streams of 50 rows at the edge; a detector that bets on its side by mistake exceeds it."""
    rng = np.random.default_rng(2)
    scores = (rng.random((50, 4000)) < 0.8).astype(float)
    detector = Detector(np.full(4000, 1.0), np.inf)
    detector.feed(factors(scores, np.full(scores.shape, 0.8)))
    assert detector.shares.mean() <= 50 * 1.1


def test_a_loss_is_found_within_its_theory() -> None:
    """Kullback and Leibler's 0.053 a row and ln(6·10⁶) nats to gather: near 300 rows."""
    rng = np.random.default_rng(3)
    delays = []
    for _ in range(50):
        scores = (rng.random((3000, 1)) < 0.78).astype(float)
        delays.append(Detector([1.0], 1e6).feed(factors(scores, np.full((3000, 1), 0.893)))[0])
    assert 150 < np.median(delays) < 350


@given(count=st.integers(1, 10_000), share=st.floats(0, 1), confidence=st.sampled_from([0.5, 0.95, 0.999]))
def test_an_interval_holds_its_mean_and_shrinks(count: int, share: float, confidence: float) -> None:
    low, high = interval(share * count, count, confidence)
    assert 0 <= low <= share <= high <= 1
    wider_low, wider_high = interval(share * count, count, confidence + (1 - confidence) / 2)
    assert wider_low <= low
    assert high <= wider_high


@pytest.mark.parametrize("mean", [0.02, 0.5, 0.9])
def test_an_interval_covers_at_all_looks_at_once(mean: float) -> None:
    """Of 400 streams of 500 looks at most 10% may ever lose the mean at 90%; four binomial deviations allowed."""
    rng = np.random.default_rng(4)
    lost = 0
    for _ in range(400):
        sums = np.cumsum(rng.random(500) < mean)
        edges = [interval(float(sums[n - 1]), n, 0.9) for n in range(1, 501, 7)]
        lost += any(not low <= mean <= high for low, high in edges)
    assert lost <= 400 * (0.1 + 4 * (0.1 * 0.9 / 400) ** 0.5)
    assert interval(0, 0, 0.9) == (0.0, 1.0)

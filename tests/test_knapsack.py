from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimline import knapsack
from slimline.knapsack import frontier

ITEM = st.lists(st.tuples(st.integers(0, 20), st.floats(0, 5)), min_size=1, max_size=4)


def best(items: list[list[tuple[int, float]]], budget: float) -> float | None:
    """Return the least loss within a budget, by trying everything."""
    sums = [(sum(s for s, _ in options), sum(loss for _, loss in options)) for options in product(*items)]
    return min((loss for size, loss in sums if size <= budget), default=None)


def columns(items: list[list[tuple[int, float]]]) -> tuple[list[list[float]], list[list[float]]]:
    return [[s for s, _ in item] for item in items], [[loss for _, loss in item] for item in items]


@settings(max_examples=100)
@given(st.lists(ITEM, min_size=1, max_size=4), st.integers(0, 80))
def test_the_front_holds_the_best_of_all_choices(items: list[list[tuple[int, float]]], budget: int) -> None:
    front = frontier(*columns(items))
    within = [point for point in front if point.size <= budget]
    found = within[-1].loss if within else None
    assert found == pytest.approx(best(items, budget))
    assert all(a.size < b.size and a.loss > b.loss for a, b in pairwise(front))
    for point in front:
        assert point.size == sum(item[option][0] for item, option in zip(items, point.options, strict=True))
        assert point.loss == pytest.approx(
            sum(item[option][1] for item, option in zip(items, point.options, strict=True))
        )


def test_a_thinned_front_keeps_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    items = [
        [(int(s), float(loss)) for s, loss in zip(rng.integers(0, 900, 3), rng.random(3), strict=True)]
        for _ in range(8)
    ]
    monkeypatch.setattr(knapsack, "MOST", 40)
    front = frontier(*columns(items))
    assert len(front) <= 41
    whole = sum(max(s for s, _ in item) for item in items)
    step = whole / 40
    for budget in np.linspace(front[0].size + len(items) * step, whole, 7):
        found = [point for point in front if point.size <= budget][-1]
        tighter = best(items, budget - len(items) * step)
        assert tighter is not None
        assert found.loss <= tighter + 1e-9


def test_fifty_layers_take_no_time() -> None:
    rng = np.random.default_rng(0)
    sizes = [sorted(rng.integers(1_000, 1_000_000, 4).tolist()) for _ in range(50)]
    losses = [sorted(rng.random(4).tolist(), reverse=True) for _ in range(50)]
    front = frontier(sizes, losses)
    assert 1_000 < len(front) <= knapsack.MOST + 1
